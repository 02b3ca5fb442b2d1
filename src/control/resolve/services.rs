//! Services and their servers: what fits together within one `[[service]]`.
//!
//! Owns the rules of each method: which keys it needs, which it does not take. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use super::scheduler::{scheduler, table_holds};
use super::{default_name, health, life, persistence};
use crate::control::config::problem::Collector;
use crate::control::config::raw::{At, Entry};
use crate::model::{Method, PortRange, Protocol, Server, Service, ServiceKey, Timeouts, TunnelSettings};

/// All services of a file.
pub(super) fn services(entries: &[Entry], timeouts: Timeouts, out: &mut Collector<'_>) -> Vec<Service> {
    let mut found: Vec<(Service, &Entry)> = Vec::new();
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
        if let Some(scheduler) = scheduler {
            table_holds(entry, scheduler, servers.len(), out);
        }
        let uses = Uses::of(entry);
        let local_addresses = local_addresses(entry, uses, out);
        let proxy_protocol = proxy_protocol(entry, uses, out);
        let mss_clamp = mss_clamp(entry, uses, out);
        let tunnel = tunnel(entry, uses, out);
        let persistence = persistence::persistence(entry, key.map(|(key, _)| key), out);
        let method = method(entry);
        if let (Some(name), Some((key, _)), Some(scheduler), Some(method)) = (name, key, scheduler, method) {
            let service = Service {
                method,
                local_addresses,
                proxy_protocol,
                mss_clamp,
                tunnel,
                persistence,
                group: entry.text("group").map(|group| group.value),
                timeouts,
                ..Service::dr(&name, key, scheduler, servers)
            };
            let service = life::of_service(entry, service, uses.nat, out);
            found.push((health::of_service(entry, service, uses.nat, out), entry));
        }
    }
    persistence::groups(&found, out);
    found.into_iter().map(|(service, _)| service).collect()
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
pub(super) fn unfit(address: IpAddr) -> Option<&'static str> {
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

/// The method of a service or of a server, where it is written or has a default.
pub(super) fn method(entry: &Entry) -> Option<Method> {
    let name = entry.word("method")?.value;
    Method::ALL.into_iter().find(|method| method.name() == name)
}

/// The methods of the servers of a service; that of the service itself while it has none.
fn methods(service: &Entry) -> impl Iterator<Item = Method> {
    let of_service = method(service);
    let servers = service.tables("server");
    let alone = of_service.filter(|_| servers.is_empty());
    each_server(service).filter_map(move |server| method(server).or(of_service)).chain(alone)
}

/// The tables of a service's servers, and of its sorry server.
pub(super) fn each_server(service: &Entry) -> impl Iterator<Item = &Entry> {
    service.tables("server").iter().chain(service.tables("sorry_server"))
}

/// Whether a service has servers that may be behind routers.
pub(super) fn reaches_over_routers(service: &Entry) -> bool {
    methods(service).any(|method| method != Method::Dr)
}

/// What the servers of a service need.
#[derive(Clone, Copy, Debug)]
struct Uses {
    /// One has this method, or the service has.
    full_nat: bool,
    /// One has this method.
    full_nat_server: bool,
    /// Another method is there, too.
    not_full_nat: Option<Method>,
    /// One has NAT or full NAT, or the service has.
    nat: bool,
    /// One of them is a tunnel, or the service's is.
    tunnel: bool,
    /// One is a tunnel without a source port.
    portless_tunnel: bool,
}

impl Uses {
    fn of(service: &Entry) -> Uses {
        let all: Vec<Method> = methods(service).collect();
        let of_service = method(service);
        let with_service = || all.iter().copied().chain(of_service);
        Uses {
            full_nat: with_service().any(|method| method == Method::FullNat),
            full_nat_server: !service.tables("server").is_empty() && all.contains(&Method::FullNat),
            not_full_nat: all.iter().copied().find(|method| *method != Method::FullNat),
            nat: with_service().any(Method::is_nat),
            tunnel: with_service().any(Method::is_tunnel),
            portless_tunnel: with_service().any(|method| matches!(method, Method::Ipip | Method::Gre)),
        }
    }
}

/// Reports a key of another method, and says which method it belongs to.
fn stray(entry: &Entry, key: &str, at: usize, needs: &str, out: &mut Collector<'_>) {
    out.error(at, entry.key(key), format!("no server of the service has the method {needs}"))
        .expected(format!("this key only with the method {needs}"))
        .help("remove the key, or correct `method`");
}

fn local_addresses(entry: &Entry, uses: Uses, out: &mut Collector<'_>) -> Vec<IpAddr> {
    let key = entry.key("local_addresses");
    let Some(listed) = entry.addresses("local_addresses") else {
        if uses.full_nat_server && !entry.was_refused("local_addresses") {
            out.absent(entry.at, "local_addresses", key, "full NAT has no address to ask the servers from".to_owned())
                .expected("one or more addresses of the appliance, of the family of the service")
                .help("add `local_addresses = [...]`: free addresses of the network towards the servers");
        }
        return Vec::new();
    };
    if !uses.full_nat {
        stray(entry, "local_addresses", listed.at, "`full-nat`", out);
    }
    let service = entry.address("address").map(|address| address.value);
    for address in &listed.value {
        if let Some(what) = unfit(*address) {
            out.error(listed.at, key.clone(), format!("{address} is {what}"))
                .expected("unicast addresses of the appliance")
                .help("take free addresses of the network towards the servers");
        } else if let Some(service) = service
            && service.is_ipv4() != address.is_ipv4()
        {
            out.error(listed.at, key.clone(), format!("{address} is not of the family of {service}"))
                .expected("addresses of the family of the service")
                .help("NAT keeps a packet's family; make one service for each family");
        }
    }
    listed.value
}

fn proxy_protocol(entry: &Entry, uses: Uses, out: &mut Collector<'_>) -> bool {
    let Some(word) = entry.word("proxy_protocol").filter(|word| word.value == "v2") else { return false };
    let key = entry.key("proxy_protocol");
    let protocol = entry.word("protocol").map_or("tcp", |protocol| protocol.value);
    if protocol != "tcp" {
        out.error(word.at, key, format!("PROXY protocol goes ahead of a stream, and the service is {protocol}"))
            .expected("`\"off\"`, or a service over TCP")
            .help("remove the key");
    } else if let Some(other) = uses.not_full_nat {
        out.error(word.at, key, format!("a server has the method `{}`", other.name()))
            .expected("this key only where every server has the method `full-nat`")
            .help("remove the key: with the other methods a server sees the client's address anyway");
    }
    true
}

fn mss_clamp(entry: &Entry, uses: Uses, out: &mut Collector<'_>) -> Option<u16> {
    let clamp = entry.integer_or("mss_clamp")?;
    let protocol = entry.word("protocol").map_or("tcp", |protocol| protocol.value);
    if clamp.value.is_some() && protocol != "tcp" {
        out.error(clamp.at, entry.key("mss_clamp"), format!("only TCP has segments, and the service is {protocol}"))
            .expected("`\"off\"`, or a service over TCP")
            .help("remove the key");
    } else if clamp.value.is_some() && !uses.nat {
        let text =
            "what servers announce by direct routing or tunnel does not pass the appliance, so nothing is lowered";
        out.warning(clamp.at, entry.key("mss_clamp"), text)
            .help("remove the key, and lower it on the servers: `ip route change default via ROUTER advmss BYTES`");
    }
    clamp.value.and_then(|bytes| u16::try_from(bytes).ok())
}

fn tunnel(entry: &Entry, uses: Uses, out: &mut Collector<'_>) -> TunnelSettings {
    let mut settings = TunnelSettings::default();
    let sources = entry.addresses("tunnel_source");
    let (ttl, spread, port) =
        (entry.integer_or("tunnel_ttl"), entry.integer("tunnel_source_spread"), entry.integer("gue_port"));
    if !uses.tunnel {
        let written = [
            ("tunnel_source", sources.as_ref().map(|key| key.at)),
            ("tunnel_ttl", ttl.filter(|key| key.written).map(|key| key.at)),
            ("tunnel_source_spread", spread.filter(|key| key.written).map(|key| key.at)),
            ("gue_port", port.filter(|key| key.written).map(|key| key.at)),
        ];
        for (key, at) in written.into_iter().filter_map(|(key, at)| Some((key, at?))) {
            stray(entry, key, at, "`ipip`, `gue` or `gre`", out);
        }
        return settings;
    }
    for source in sources.iter().flat_map(|listed| &listed.value) {
        let at = sources.as_ref().map_or(entry.at, |listed| listed.at);
        check_source(entry, At { value: *source, at, written: true }, &settings, out);
        match source {
            IpAddr::V4(source) => settings.source_v4 = Some(*source),
            IpAddr::V6(source) => settings.source_v6 = Some(*source),
        }
    }
    if let Some(spread) = spread {
        if spread.value > 0 && !uses.portless_tunnel {
            let key = entry.key("tunnel_source_spread");
            out.error(spread.at, key, "GUE varies its source port with the flow already")
                .expected("this key only with the method `ipip` or `gre`")
                .help("remove the key");
        }
        settings.source_spread_bits = u8::try_from(spread.value).unwrap_or(0);
    }
    settings.ttl = ttl.and_then(|ttl| ttl.value).and_then(|ttl| u8::try_from(ttl).ok());
    settings.gue_port = port.and_then(|port| u16::try_from(port.value).ok()).unwrap_or(settings.gue_port);
    settings
}

fn check_source(entry: &Entry, source: At<IpAddr>, so_far: &TunnelSettings, out: &mut Collector<'_>) {
    let (key, address) = (entry.key("tunnel_source"), source.value);
    let second = if address.is_ipv4() { so_far.source_v4.is_some() } else { so_far.source_v6.is_some() };
    if let Some(what) = unfit(address) {
        out.error(source.at, key, format!("{address} is {what}"))
            .expected("a unicast address of the appliance")
            .help("remove the key to have the source address of the route to each server");
    } else if entry.address("address").is_some_and(|service| service.value == address) {
        out.error(source.at, key, "the servers have this address themselves, and drop packets from it")
            .expected("an address of the appliance that is not the service's")
            .help("remove the key to have the source address of the route to each server");
    } else if second {
        out.error(source.at, key, format!("{address} is a second address of its family"))
            .expected("at most one IPv4 and one IPv6 address")
            .help("remove one; `tunnel_source_spread` varies a source");
    }
}

fn servers(service: &Entry, key: Option<ServiceKey>, out: &mut Collector<'_>) -> Vec<Server> {
    let entries = service.tables("server");
    let mut found: Vec<Server> = Vec::new();
    let mut lines: HashMap<(IpAddr, Option<u16>), usize> = HashMap::new();
    for entry in entries {
        let (address, weight) = (entry.address("address"), entry.integer("weight"));
        // Nothing where the word was refused, here or in the service: then what hangs on it cannot be judged.
        let method = method(entry).or_else(|| method(service));
        let port = server_port(entry, key, method, out);
        if let Some(address) = address {
            check_server_address(service, entry, address, method, out);
            if let Some(line) = lines.insert((address.value, port), out.line(address.at)) {
                out.error(
                    address.at,
                    entry.key("address"),
                    format!("{} is there twice in this service", address.value),
                )
                .expected(format!("each server once; the first is on line {line}"))
                .help("remove one of them; for a larger share of new flows raise the weight");
            }
        }
        if let (Some(address), Some(weight), Some(method)) = (address, weight, method) {
            let weight = u16::try_from(weight.value).unwrap_or(u16::MAX);
            let quic_id = entry.bytes("quic_id").map(|id| id.value);
            let server = Server { quic_id, ..Server::new(address.value, port, weight, method) };
            found.push(life::of_server(entry, server, out));
        }
    }
    if entries.is_empty() {
        out.warning(service.at, service.key("server"), "the service has no servers")
            .help("its clients get no answer; add `[[service.server]]` with `address`");
    } else if !found.is_empty()
        && found.len() == entries.len()
        && found.iter().all(|server| server.weight == 0 || server.drain)
    {
        out.warning(service.at, service.key("server"), "every server of the service has weight 0, or drains")
            .help("new clients get no answer; give one a weight");
    }
    found
}

/// The port of a server, where it differs from the service's.
pub(super) fn server_port(
    entry: &Entry,
    key: Option<ServiceKey>,
    method: Option<Method>,
    out: &mut Collector<'_>,
) -> Option<u16> {
    let (At { value, at, .. }, key, method) = (entry.integer("port")?, key?, method?);
    let of_service = key.ports.as_single();
    if of_service.map(u32::from) == Some(value) {
        return None;
    }
    if method.is_nat() && of_service.is_some() {
        return u16::try_from(value).ok();
    }
    let problem = out.error(at, entry.key("port"), format!("port {value} is not the service's"));
    if method.is_nat() {
        problem.expected(format!("no port: those of the service are {}, and each packet keeps its own", key.ports));
        problem.help("remove the key, or make a service for each port");
    } else {
        let what = if method.is_tunnel() { "a tunnel" } else { "direct routing" };
        problem.expected(format!("{}: {what} does not change ports", key.ports));
        problem.help("remove the key, or choose the method `nat` or `full-nat`");
    }
    None
}

/// What the address of a server cannot be.
pub(super) fn check_server_address(
    service: &Entry,
    entry: &Entry,
    address: At<IpAddr>,
    method: Option<Method>,
    out: &mut Collector<'_>,
) {
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
            .expected("the server's own address, by which it is found")
            .help("by direct routing and tunnels the server has the service address on `lo` besides its own");
    } else if virtual_address.is_ipv4() != address.value.is_ipv4()
        && let Some(method) = method.filter(|method| !method.is_tunnel())
    {
        let family = if virtual_address.is_ipv4() { "IPv4" } else { "IPv6" };
        out.error(address.at, key, format!("{} is not an {family} address", address.value))
            .expected(format!("the family of the service's address, {virtual_address}"))
            .help(if method.is_nat() {
                "NAT keeps a packet's family: the server must speak it, or have a method that is a tunnel"
            } else {
                "direct routing sends the client's packet as it is: the server must speak its family"
            });
    }
}
