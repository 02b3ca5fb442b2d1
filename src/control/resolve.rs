//! Checked values -> [`Desired`], with every check that compares one entry with another.
//!
//! Owns what a sound configuration is as a whole: unique names, services that do not overlap, addresses that make
//! sense where they stand. Never looks at the machine: whether an interface or a core exists is seen at start. Pure.

mod access;
mod checks;
mod health;
mod life;
mod persistence;
mod roles;
mod router;
mod scheduler;
mod services;
mod track;
mod vrrp;
mod web;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::apply::filter_table;
use super::config::ReadFile;
use super::config::problem::{Collector, Severity};
use super::config::raw::{At, Entry, no_interface};
use crate::dataplane::stats::MAX_SERVERS;
use crate::dataplane::xdp::Matcher;
use crate::model::{
    Desired, EngineSettings, HugePages, Interface, IoMode, MacAddr, Neighbor, Polling, PortRange, ServiceKey,
    SynCookies, Timeouts, VerifyChecksums,
};

/// Makes the configuration of a walked file. `None` when something necessary was refused on the way; the configuration
/// must not be used either when `out` has an error. Files that it names are read by `read`.
pub fn resolve(file: &Entry, last_core: usize, read: ReadFile<'_>, out: &mut Collector<'_>) -> Option<Desired> {
    let engine = file.tables("engine").first().and_then(|entry| engine(entry, last_core, out));
    let timeouts = file.tables("timeouts").first().map(|entry| life::timeouts(entry, Timeouts::default()));
    let control = |key| file.tables("control").first().and_then(|entry| entry.text(key));
    let (control_socket, state_file) = (control("socket"), control("state"));
    let roles = file.tables("control").first().and_then(|entry| roles::roles(entry, read, out));
    let interfaces = interfaces(file, out);
    let services = services::services(file.tables("service"), timeouts.unwrap_or_default(), out);
    local_addresses(file, engine.as_ref().map(|engine| engine.local_addresses), out);
    let addresses = addresses(file, out);
    let neighbors = neighbors(file, &interfaces, out);
    let vrrp = vrrp::vrrp(file, &interfaces, &services, out);
    let access = file.tables("access").first().and_then(|entry| access::access(entry, read, out));
    let web = match file.tables("web").first() {
        Some(entry) => web::web(entry, read, out).map(|web| Some(Arc::new(web))),
        None => Some(None),
    };
    let desired = Desired {
        engine: engine?,
        timeouts: timeouts?,
        control_socket: control_socket?.value.into(),
        roles: roles?,
        state_file: state_file?.value.into(),
        interfaces,
        neighbors,
        addresses,
        access: Arc::new(access?),
        services,
        vrrp: vrrp?,
        web: web?,
    };
    if out.problems.iter().all(|problem| problem.severity == Severity::Warning) {
        capacity(&desired, out);
    }
    Some(desired)
}

/// What the data plane cannot hold, said before anything is started.
fn capacity(desired: &Desired, out: &mut Collector<'_>) {
    let servers: usize = desired.services.iter().map(|service| service.servers.len()).sum();
    if servers > MAX_SERVERS {
        out.error(0, "service", format!("there are {servers} servers over all services"))
            .expected(format!("at most {MAX_SERVERS}"))
            .help("split the services over two appliances");
    }
    if let Err(error) = Matcher::new(&filter_table(desired, &HashSet::new())) {
        out.error(0, "service", error.to_string()).help("the filter in the kernel has tables of fixed size");
    }
}

fn engine(entry: &Entry, last_core: usize, out: &mut Collector<'_>) -> Option<EngineSettings> {
    let cores = entry.integers("cores").and_then(|cores| cores.value).map_or_else(
        || vec![last_core],
        |cores| cores.into_iter().filter_map(|core| usize::try_from(core).ok()).collect(),
    );
    let modes = entry.words("mode")?.value;
    let (ring_size, frames) = (entry.integer("ring_size"), entry.integer("frames"));
    if let (Some(ring_size), Some(frames)) = (ring_size, frames)
        && frames.value < ring_size.value.saturating_mul(2)
    {
        let (name, at) = if frames.written { ("frames", frames.at) } else { ("ring_size", ring_size.at) };
        out.error(at, entry.key(name), format!("{} frames cannot fill rings of {}", frames.value, ring_size.value))
            .expected("`frames` of at least twice `ring_size`")
            .help(format!("write `frames = {}`, or a smaller `ring_size`", ring_size.value.saturating_mul(4)));
    }
    let local_ports = entry.ports("local_ports")?;
    check_local_ports(entry, local_ports, cores.len(), out);
    Some(EngineSettings {
        cores,
        modes: modes.iter().filter_map(|name| IoMode::ALL.into_iter().find(|mode| mode.name() == *name)).collect(),
        polling: match entry.word("polling")?.value {
            "busy" => Polling::Busy,
            _ => Polling::Adaptive,
        },
        idle_us: entry.integer("idle_us")?.value,
        need_wakeup: entry.boolean("need_wakeup")?.value,
        busy_poll: entry.boolean("busy_poll")?.value,
        ring_size: ring_size?.value,
        frames: frames?.value,
        frame_size: entry.integer("frame_size")?.value,
        huge_pages: match entry.word("huge_pages")?.value {
            "always" => HugePages::Always,
            "never" => HugePages::Never,
            _ => HugePages::Auto,
        },
        flows: entry.integer("flows")?.value,
        flows_ipv6: entry.integer("flows_ipv6")?.value,
        verify_checksums: match entry.word("verify_checksums")?.value {
            "all" => VerifyChecksums::All,
            "off" => VerifyChecksums::Off,
            _ => VerifyChecksums::NewFlows,
        },
        local_ports: local_ports.value,
        local_addresses: entry.integer("local_addresses")?.value,
        fragments: entry.integer("fragments")?.value,
        fragments_waiting: entry.integer("fragments_waiting")?.value,
        fragment_wait_ms: entry.integer("fragment_wait_ms")?.value,
        unproven: entry.integer("unproven_flows")?.value,
        unproven_ipv6: entry.integer("unproven_flows_ipv6")?.value,
        syn_cookies: match entry.word("syn_cookies")?.value {
            "always" => SynCookies::Always,
            "off" => SynCookies::Off,
            _ => SynCookies::Flood,
        },
        cookie_flows: entry.integer("cookie_flows")?.value,
        limited_clients: entry.integer("limited_clients")?.value,
        persistent_clients: entry.integer("persistent_clients")?.value,
    })
}

/// Ports of local addresses: no port 0, and one for each worker at least.
fn check_local_ports(entry: &Entry, ports: At<PortRange>, workers: usize, out: &mut Collector<'_>) {
    let key = entry.key("local_ports");
    let count = usize::from(ports.value.last - ports.value.first) + 1;
    let problem = if ports.value.is_any() {
        out.error(ports.at, key, "port 0 cannot be used")
    } else if count < workers {
        out.error(ports.at, key, format!("{count} ports are too few for {workers} workers"))
    } else {
        return;
    };
    problem
        .expected("a range with a port for each worker at least, such as `\"1024-65535\"`")
        .help("write a longer range");
}

fn interfaces(file: &Entry, out: &mut Collector<'_>) -> Vec<Interface> {
    let mut found: Vec<Interface> = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    // Virtual routers in the kernel need no engine.
    let served = ["service", "address"].iter().any(|table| !file.tables(table).is_empty());
    let kernel_alone = !file.tables("virtual_router").is_empty() && !vrrp::in_the_engine(file) && !served;
    if file.tables("interface").is_empty() && !kernel_alone {
        // A package's first file says how the engine is reached and nothing else. One that says nothing at all may have been cut
        // off on the way, and must not take everything away.
        let begun = !file.tables("web").is_empty() || file.tables("control").iter().any(|table| table.at > 0);
        let parts = ["service", "address", "neighbor", "virtual_router", "sync_group"];
        if begun && parts.iter().all(|table| file.tables(table).is_empty()) {
            out.warning(0, "interface", "nothing is configured yet: no interface, no service, no virtual router")
                .expected("`[[interface]]` and `[[service]]`, or `[[virtual_router]]`")
                .help("write them into this file and restart the engine; configs/ and docs/config.md show how");
        } else {
            no_interface(file, out);
        }
    }
    for entry in file.tables("interface") {
        let Some(name) = entry.text("name") else { continue };
        if let Some(line) = lines.get(&name.value) {
            out.error(name.at, entry.key("name"), format!("interface `{}` is there twice", name.value))
                .expected(format!("each interface once; the first is on line {line}"))
                .help("remove one of them, and give the other all the queues");
            continue;
        }
        lines.insert(name.value.clone(), out.line(name.at));
        let Some(queues) = entry.integers("queues") else { continue };
        found.push(Interface { name: name.value, queues: queues.value });
    }
    found
}

fn neighbors(file: &Entry, interfaces: &[Interface], out: &mut Collector<'_>) -> Vec<Neighbor> {
    let mut found: Vec<Neighbor> = Vec::new();
    let mut lines: HashMap<IpAddr, usize> = HashMap::new();
    let servers: HashSet<IpAddr> = file
        .tables("service")
        .iter()
        .flat_map(services::each_server)
        .filter_map(|server| Some(server.address("address")?.value))
        .collect();
    // By NAT and tunnels it may be the router on the way to servers.
    let routed = file.tables("service").iter().any(services::reaches_over_routers);
    for entry in file.tables("neighbor") {
        let (address, mac, interface) = (entry.address("address"), entry.mac("mac"), entry.text("interface"));
        if let Some(mac) = mac {
            check_mac(entry, mac, out);
        }
        if let Some(interface) = &interface
            && !interfaces.iter().any(|known| known.name == interface.value)
        {
            let names = interfaces.iter().map(|interface| interface.name.as_str());
            let listed: Vec<&str> = names.clone().collect();
            out.error(
                interface.at,
                entry.key("interface"),
                format!("`{}` is not an interface of the engine", interface.value),
            )
            .expected(format!("one of {}", listed.join(", ")))
            .help(format!("add it as `[[interface]]` with `name = \"{}\"`", interface.value))
            .suggest(&interface.value, names);
        }
        let Some(address) = address else { continue };
        if let Some(line) = lines.insert(address.value, out.line(address.at)) {
            out.error(address.at, entry.key("address"), format!("{} has a neighbor already", address.value))
                .expected(format!("one for each address; the first is on line {line}"))
                .help("remove one of them");
        }
        if !servers.contains(&address.value) && !routed {
            out.warning(address.at, entry.key("address"), format!("no service has the server {}", address.value))
                .help("remove the neighbor, or correct its address");
        }
        let Some(mac) = mac else { continue };
        let interface = interface.map(|interface| interface.value);
        let vlan = entry.integer("vlan").and_then(|vlan| u16::try_from(vlan.value).ok());
        found.push(Neighbor { address: address.value, mac: mac.value, interface, vlan });
    }
    found
}

fn check_mac(entry: &Entry, mac: At<MacAddr>, out: &mut Collector<'_>) {
    let what = if mac.value.is_zero() {
        "the zero address"
    } else if mac.value.is_multicast() {
        "a multicast address"
    } else {
        return;
    };
    out.error(mac.at, entry.key("mac"), format!("{} is {what}", mac.value))
        .expected("the unicast Ethernet address of the server")
        .help("on the server, `ip -brief link` shows it");
}

/// Every address of a key in the services, with its service's line.
fn of_services<'f>(file: &'f Entry, key: &'static str, out: &Collector<'_>) -> HashMap<IpAddr, usize> {
    let found = |entry: &'f Entry| {
        let listed = entry.addresses(key).map(|listed| (listed.value, listed.at));
        listed.or_else(|| entry.address(key).map(|one| (vec![one.value], one.at)))
    };
    let all = file.tables("service").iter().filter_map(found);
    let mut lines = HashMap::new();
    for (addresses, at) in all {
        for address in addresses {
            lines.entry(address).or_insert_with(|| out.line(at));
        }
    }
    lines
}

/// Every server's address, with its line.
fn of_servers(file: &Entry, out: &Collector<'_>) -> HashMap<IpAddr, usize> {
    let all = file.tables("service").iter().flat_map(services::each_server);
    all.filter_map(|server| server.address("address")).map(|at| (at.value, out.line(at.at))).collect()
}

/// Local addresses against all other addresses, and how many there are.
fn local_addresses(file: &Entry, most: Option<u32>, out: &mut Collector<'_>) {
    let (services, servers) = (of_services(file, "address", out), of_servers(file, out));
    let routers = vrrp::of_routers(file, out);
    let mut all: BTreeSet<IpAddr> = BTreeSet::new();
    let mut full = false;
    for entry in file.tables("service") {
        let Some(listed) = entry.addresses("local_addresses") else { continue };
        for address in listed.value {
            let others = [("service", &services), ("server", &servers), ("virtual router", &routers)];
            let taken = others.into_iter().find_map(|(whose, lines)| Some((whose, lines.get(&address)?)));
            if let Some((whose, line)) = taken {
                let text = format!("{address} is the address of the {whose} on line {line}");
                out.error(listed.at, entry.key("local_addresses"), text)
                    .expected("an address of this appliance alone that no service and no server has")
                    .help("take a free address of the network towards the servers");
            }
            all.insert(address);
        }
        if let Some(most) = most
            && all.len() > most as usize
            && !full
        {
            full = true;
            let text = format!("here they are {} local addresses over all services", all.len());
            out.error(listed.at, entry.key("local_addresses"), text)
                .expected(format!("at most {most}: `engine.local_addresses`"))
                .help("raise `engine.local_addresses`, or let services share addresses");
        }
    }
}

/// Addresses that are owned without a service.
fn addresses(file: &Entry, out: &mut Collector<'_>) -> Vec<IpAddr> {
    let (services, servers) = (of_services(file, "address", out), of_servers(file, out));
    let locals = of_services(file, "local_addresses", out);
    let routers = vrrp::of_routers(file, out);
    let mut found: Vec<IpAddr> = Vec::new();
    let mut lines: HashMap<IpAddr, usize> = HashMap::new();
    for entry in file.tables("address") {
        let Some(At { value, at, .. }) = entry.address("address") else { continue };
        let key = entry.key("address");
        if let Some(what) = services::unfit(value) {
            out.error(at, key, format!("{value} is {what}"))
                .expected("a unicast address that hosts on the engine's interfaces can ask for")
                .help("for the gateway of servers behind NAT, a free address of their network");
            continue;
        }
        let others = [
            ("a service", services.get(&value)),
            ("local addresses", locals.get(&value)),
            ("a virtual router", routers.get(&value)),
        ];
        let owner = others.into_iter().find_map(|(whose, line)| Some((whose, *line?)));
        let owner = owner.or_else(|| lines.get(&value).map(|line| ("another `[[address]]`", *line)));
        if let Some((whose, line)) = owner {
            out.error(at, key, format!("{value} is owned already, by {whose} on line {line}"))
                .expected("an address that nothing else in the file has")
                .help("remove this entry: the engine answers for it without");
        } else if let Some(line) = servers.get(&value) {
            out.error(at, key, format!("{value} is the address of the server on line {line}"))
                .expected("an address of the appliance")
                .help("correct one of them");
        } else {
            found.push(value);
        }
        lines.entry(value).or_insert_with(|| out.line(at));
    }
    found
}

/// The name of a service whose file gives none.
pub fn default_name(key: &ServiceKey) -> String {
    match key.address {
        IpAddr::V4(address) => format!("{address}:{}/{}", key.ports, key.protocol),
        IpAddr::V6(address) => format!("[{address}]:{}/{}", key.ports, key.protocol),
    }
}
