//! Checked values -> [`Desired`], with every check that compares one entry with another.
//!
//! Owns what a sound configuration is as a whole: unique names, services that do not overlap, addresses that make
//! sense where they stand. Never looks at the machine: whether an interface or a core exists is seen at start. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::apply::filter_table;
use super::config::problem::{Collector, Severity};
use super::config::raw::{At, Entry};
use crate::dataplane::stats::MAX_SERVERS;
use crate::dataplane::xdp::Matcher;
use crate::model::{
    Desired, EngineSettings, HugePages, Interface, IoMode, MAGLEV_DEFAULT_SIZE, MacAddr, Method, Neighbor, Polling,
    PortRange, Protocol, Scheduler, Server, Service, ServiceKey, Timeouts, VerifyChecksums,
};

/// Makes the configuration of a walked file. `None` when something necessary was refused on the way; the configuration
/// must not be used either when `out` has an error.
pub fn resolve(file: &Entry, last_core: usize, out: &mut Collector<'_>) -> Option<Desired> {
    let engine = file.tables("engine").first().and_then(|entry| engine(entry, last_core, out));
    let timeouts = file.tables("timeouts").first().and_then(timeouts);
    let control_socket = file.tables("control").first().and_then(|entry| entry.text("socket"));
    let interfaces = interfaces(file.tables("interface"), out);
    let services = services(file.tables("service"), out);
    let neighbors = neighbors(file, &interfaces, out);
    let desired = Desired {
        engine: engine?,
        timeouts: timeouts?,
        control_socket: control_socket?.value.into(),
        interfaces,
        neighbors,
        addresses: Vec::new(),
        services,
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
    if let Err(error) = Matcher::new(&filter_table(desired)) {
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
        ..EngineSettings::default()
    })
}

fn timeouts(entry: &Entry) -> Option<Timeouts> {
    let seconds = |key| entry.integer(key).map(|seconds| seconds.value);
    Some(Timeouts {
        tcp_established: seconds("tcp_established")?,
        tcp_syn_sent: seconds("tcp_syn_sent")?,
        tcp_syn_recv: seconds("tcp_syn_recv")?,
        tcp_fin_wait: seconds("tcp_fin_wait")?,
        tcp_time_wait: seconds("tcp_time_wait")?,
        tcp_close: seconds("tcp_close")?,
        tcp_close_wait: seconds("tcp_close_wait")?,
        tcp_last_ack: seconds("tcp_last_ack")?,
        udp: seconds("udp")?,
        sctp_established: seconds("sctp_established")?,
    })
}

fn interfaces(entries: &[Entry], out: &mut Collector<'_>) -> Vec<Interface> {
    let mut found: Vec<Interface> = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    for entry in entries {
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
        .flat_map(|service| service.tables("server"))
        .filter_map(|server| Some(server.address("address")?.value))
        .collect();
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
        if !servers.contains(&address.value) {
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

fn services(entries: &[Entry], out: &mut Collector<'_>) -> Vec<Service> {
    let mut found = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut taken: HashMap<(IpAddr, Protocol), Vec<(PortRange, usize)>> = HashMap::new();
    for entry in entries {
        let key = service_key(entry, out);
        let line = out.line(entry.at);
        if let Some((key, at)) = key {
            let others = taken.entry((key.address, key.protocol)).or_default();
            if let Some((ports, other)) = others.iter().find(|(ports, _)| ports.overlaps(key.ports)) {
                let problem = out.error(at, entry.key("port"), format!("{key} overlaps the service on line {other}"));
                problem.expected(format!("ports outside {ports}"));
                problem.help("give one of them another address, protocol or port");
            }
            others.push((key.ports, line));
        }
        let name = service_name(entry, key.map(|(key, _)| key), &mut names, out);
        let scheduler = scheduler(entry, out);
        let servers = servers(entry, key.map(|(key, _)| key), out);
        let method = entry.word("method").map(|_| Method::Dr);
        if let (Some(name), Some((key, _)), Some(scheduler), Some(method)) = (name, key, scheduler, method) {
            found.push(Service { method, ..Service::dr(&name, key, scheduler, servers) });
        }
    }
    found
}

/// What the service matches, and where its port stands.
fn service_key(entry: &Entry, out: &mut Collector<'_>) -> Option<(ServiceKey, usize)> {
    let address = entry.address("address");
    if let Some(address) = address
        && let Some(what) = unfit(address.value)
    {
        out.error(address.at, entry.key("address"), format!("{} is {what}", address.value))
            .expected("a unicast address that clients can reach")
            .help("the address must be one that no host has");
    }
    let protocol = match entry.word("protocol")?.value {
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let ports = entry.ports("port")?;
    Some((ServiceKey { address: address?.value, protocol, ports: ports.value }, ports.at))
}

/// What an address is that no service and no server can have.
fn unfit(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("the unspecified address");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240 => Some("a reserved address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 address in IPv6 form"),
        _ => None,
    }
}

/// The name of a service whose file gives none.
pub fn default_name(key: &ServiceKey) -> String {
    match key.address {
        IpAddr::V4(address) => format!("{address}:{}/{}", key.ports, key.protocol),
        IpAddr::V6(address) => format!("[{address}]:{}/{}", key.ports, key.protocol),
    }
}

fn service_name(
    entry: &Entry,
    key: Option<ServiceKey>,
    names: &mut HashMap<String, usize>,
    out: &mut Collector<'_>,
) -> Option<String> {
    let written = entry.text("name");
    let name = written.as_ref().map(|name| name.value.clone()).or_else(|| key.map(|key| default_name(&key)))?;
    let at = written.as_ref().map_or(entry.at, |name| name.at);
    // Two services with the same derived name overlap, and that was reported.
    if let Some(line) = names.insert(name.clone(), out.line(at))
        && written.is_some()
    {
        out.error(at, entry.key("name"), format!("the name `{name}` is taken by the service on line {line}"))
            .expected("a name that no other service has")
            .help("choose another, or remove the key to have one made from address, port and protocol");
    }
    Some(name)
}

fn scheduler(entry: &Entry, out: &mut Collector<'_>) -> Option<Scheduler> {
    let word = entry.word("scheduler")?.value;
    let (flags, size) = (entry.words("scheduler_flags"), entry.integer("mh_table_size"));
    if word != "mh" {
        let flags_at =
            flags.as_ref().filter(|flags| !flags.value.is_empty()).map(|flags| ("scheduler_flags", flags.at));
        for (key, at) in flags_at.into_iter().chain(size.map(|size| ("mh_table_size", size.at))) {
            out.error(at, entry.key(key), format!("the scheduler `{word}` has no such setting"))
                .expected("this key only with `scheduler = \"mh\"`")
                .help("remove the key, or choose the scheduler `mh`");
        }
    }
    Some(match word {
        "rr" => Scheduler::Rr,
        "wrr" => Scheduler::Wrr,
        "lc" => Scheduler::Lc,
        "mh" => {
            let flags = flags?.value;
            Scheduler::Mh {
                port: flags.contains(&"mh-port"),
                fallback: flags.contains(&"mh-fallback"),
                table_size: size.map_or(MAGLEV_DEFAULT_SIZE, |size| size.value),
            }
        }
        _ => Scheduler::Wlc,
    })
}

fn servers(service: &Entry, key: Option<ServiceKey>, out: &mut Collector<'_>) -> Vec<Server> {
    let entries = service.tables("server");
    let mut found: Vec<Server> = Vec::new();
    let mut lines: HashMap<IpAddr, usize> = HashMap::new();
    for entry in entries {
        let (address, weight) = (entry.address("address"), entry.integer("weight"));
        if let Some(address) = address {
            check_server_address(service, entry, address, out);
            if let Some(line) = lines.insert(address.value, out.line(address.at)) {
                out.error(
                    address.at,
                    entry.key("address"),
                    format!("{} is there twice in this service", address.value),
                )
                .expected(format!("each server once; the first is on line {line}"))
                .help("remove one of them; for a larger share of new flows raise the weight");
            }
        }
        if let (Some(port), Some(key)) = (entry.integer("port"), key)
            && key.ports.as_single().map(u32::from) != Some(port.value)
        {
            let problem = out.error(port.at, entry.key("port"), format!("port {} is not the service's", port.value));
            problem.expected(format!("{}: direct routing does not change ports", key.ports));
            problem.help("remove the key");
        }
        if let (Some(address), Some(weight)) = (address, weight) {
            found.push(Server::dr(address.value, u16::try_from(weight.value).unwrap_or(u16::MAX)));
        }
    }
    if entries.is_empty() {
        out.warning(service.at, service.key("server"), "the service has no servers")
            .help("its clients get no answer; add `[[service.server]]` with `address`");
    } else if !found.is_empty() && found.len() == entries.len() && found.iter().all(|server| server.weight == 0) {
        out.warning(service.at, service.key("server"), "every server of the service has weight 0")
            .help("new clients get no answer; give one a weight");
    }
    found
}

fn check_server_address(service: &Entry, entry: &Entry, address: At<IpAddr>, out: &mut Collector<'_>) {
    let key = entry.key("address");
    if let Some(what) = unfit(address.value) {
        out.error(address.at, key, format!("{} is {what}", address.value))
            .expected("the server's own unicast address")
            .help("it is the address that the server has on its network interface");
        return;
    }
    let Some(virtual_address) = service.address("address").map(|address| address.value) else { return };
    if virtual_address == address.value {
        out.error(address.at, key, "the server has the address of the service")
            .expected("the server's own address, by which its Ethernet address is found")
            .help("the server has the service address on `lo` besides its own");
    } else if virtual_address.is_ipv4() != address.value.is_ipv4() {
        let family = if virtual_address.is_ipv4() { "IPv4" } else { "IPv6" };
        out.error(address.at, key, format!("{} is not an {family} address", address.value))
            .expected(format!("the family of the service's address, {virtual_address}"))
            .help("direct routing sends the client's packet as it is: the server must speak its family");
    }
}
