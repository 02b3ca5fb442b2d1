//! From the engine's status to what ipvsadm shows. Pure.
//!
//! Owns how what IPVS does not have is shown where ipvsadm's columns are: a port range by its first port, full NAT by a word of
//! its own; and what of it cannot be saved as rules.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::layout::{Connection, Server, Service, Way};
use crate::control::flows::FlowRow;
use crate::control::persistence::Row;
use crate::control::status::{ServerStatus, ServiceStatus, Status};

/// The port of a service: the first one of a range, 0 for every port.
pub fn port(text: &str) -> u16 {
    text.split('-').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

/// Persistent clients of each server, by its service's name and its own address, with its port where it has one.
type Clients<'r> = HashMap<(&'r str, &'r str), u32>;

/// Services as ipvsadm shows them. `saved`: weights as they are configured, not as checks and people left them. `clients`:
/// persistent clients.
pub fn services(status: &Status, saved: bool, clients: &[Row]) -> Vec<Service> {
    let mut counts = Clients::new();
    for row in clients {
        for service in row.server.iter().flat_map(|_| &row.services) {
            *counts.entry((service, row.server.as_deref().unwrap_or_default())).or_default() += 1;
        }
    }
    status.services.iter().filter_map(|service| of_service(service, saved, &counts)).collect()
}

fn of_service(service: &ServiceStatus, saved: bool, clients: &Clients<'_>) -> Option<Service> {
    let address: IpAddr = service.address.parse().ok()?;
    let settings = &service.settings;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let mask = settings.persistence.as_ref().filter(|known| known.prefix != whole).map(|known| match address {
        IpAddr::V4(_) => Ipv4Addr::from(u32::MAX.checked_shl(u32::from(32 - known.prefix)).unwrap_or(0)).to_string(),
        IpAddr::V6(_) => known.prefix.to_string(),
    });
    let engine = settings.persistence.as_ref().map(|known| known.by.as_str());
    // By their bits: fallback, then port.
    let mut flags = service.flags.clone();
    flags.sort_unstable();
    Some(Service {
        protocol: service.protocol,
        address,
        port: port(&service.port),
        scheduler: service.scheduler.clone(),
        flags,
        persistent: settings.persistence.as_ref().map(|known| known.seconds),
        mask,
        engine: engine.filter(|by| *by == "sip-call-id").map(|_| "sip".to_owned()),
        one_packet: settings.one_packet,
        stats: [service.connections, service.packets, service.out_packets, service.bytes, service.out_bytes],
        rates: service.rates.counts(),
        // The one that was added last comes first, as in the kernel's list.
        servers: service.servers.iter().rev().filter_map(|server| of_server(service, server, saved, clients)).collect(),
    })
}

fn of_server(service: &ServiceStatus, server: &ServerStatus, saved: bool, clients: &Clients<'_>) -> Option<Server> {
    let address: IpAddr = server.address.parse().ok()?;
    let port = server.port.unwrap_or_else(|| port(&service.port));
    let method = if saved { server.configured_method.as_str() } else { server.method.as_str() };
    let way = match method {
        "nat" => Way::Masq,
        "full-nat" => Way::FullNat,
        "ipip" => Way::Ipip,
        "gue" => Way::Gue(service.settings.gue_port),
        "gre" => Way::Gre,
        "local" => Way::Local,
        _ => Way::Route,
    };
    let end = SocketAddr::new(address, port).to_string();
    let of = |server: &str| clients.get(&(service.name.as_str(), server)).copied().unwrap_or(0);
    Some(Server {
        address,
        port,
        way,
        weight: u32::from(weight(server, saved)),
        upper: server.upper_threshold.unwrap_or(0),
        lower: server.lower_threshold.unwrap_or(0),
        active: server.active,
        inactive: server.inactive,
        persistent: of(&end) + of(&server.address),
        stats: [server.connections, server.packets, server.out_packets, server.bytes, server.out_bytes],
        rates: server.rates.counts(),
    })
}

/// The weight to show: as it is configured in rules, and in listings where nothing but a missing next hop keeps the server from
/// serving, of which IPVS takes no notice; else as checks and people left it.
fn weight(server: &ServerStatus, saved: bool) -> u16 {
    let Some(health) = &server.health else { return server.weight };
    let decided = ["draining", "maintenance", "ejected", "held", "standby"].contains(&health.state.as_str());
    match saved || server.weight == 0 && health.checks.is_empty() && health.admin == "ready" && !decided {
        true => health.configured_weight,
        false => server.weight,
    }
}

/// Why a service cannot be said in rules of ipvsadm; `None` where it can.
pub fn unsaid(service: &ServiceStatus) -> Option<&'static str> {
    let methods = || service.servers.iter().map(|server| server.configured_method.as_str());
    if service.port.contains('-') {
        Some("it has a range of ports")
    } else if methods().any(|method| method == "full-nat") {
        Some("it has full NAT")
    } else if service.settings.persistence.as_ref().is_some_and(|known| known.by == "quic-server-id") {
        Some("its clients are told apart by QUIC connection ids")
    } else if matches!(service.scheduler.as_str(), "maglev" | "p2c") {
        Some("IPVS has no such scheduler")
    } else {
        None
    }
}

/// A flow as a connection. A server that is gone has its place, without an address.
pub fn flow(row: &FlowRow) -> Connection {
    let end = |end: SocketAddr| (end.ip(), end.port());
    let none = if row.client.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    Connection {
        protocol: row.protocol.to_uppercase(),
        expires: row.expires_s,
        state: row.state.clone(),
        ends: [end(row.client), end(row.r#virtual), row.server.map_or((none, 0), end)],
        engine: None,
    }
}

/// A persistent client as IPVS's template: its network, without a port. Where a group of services shares it, it is shown with
/// the group's first one, without a port, as IPVS shows those of a firewall mark with none.
pub fn template(row: &Row, status: &Status) -> Option<Connection> {
    let client: IpAddr = row.client.split('/').next()?.parse().ok()?;
    let first = row.services.first()?;
    let service = status.services.iter().find(|service| service.name == *first)?;
    let address: IpAddr = service.address.parse().ok()?;
    let of_service = if row.service.is_some() { port(&service.port) } else { 0 };
    let none = if client.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let server = row.server.as_deref().map_or(Some((none, 0)), |server| match server.parse::<SocketAddr>() {
        Ok(end) => Some((end.ip(), end.port())),
        Err(_) => Some((server.parse().ok()?, 0)),
    })?;
    Some(Connection {
        protocol: service.protocol.name().to_uppercase(),
        expires: row.expires_s,
        state: if row.assured { "ASSURED" } else { "NONE" }.to_owned(),
        ends: [(client, 0), (address, of_service), server],
        engine: row.call_id.clone().map(|id| ("sip".to_owned(), id)),
    })
}
