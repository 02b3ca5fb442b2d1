//! Services and servers in the status for people. Pure.

use std::fmt::Write as _;

use super::table::Table;
use super::{ServerStatus, Status, health, life};

/// A port of an address, as `ipvsadm` writes it.
pub(in crate::control) fn with_port(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// A method as `ipvsadm -L` shows it, with what that does not know.
fn forward(method: &str) -> &str {
    match method {
        "dr" => "Route",
        "nat" => "Masq",
        "full-nat" => "FullNat",
        "ipip" => "Tunnel",
        "gue" => "Tunnel gue",
        "gre" => "Tunnel gre",
        "local" => "Local",
        other => other,
    }
}

/// The row of a server. `port`: the service's.
fn row(server: &ServerStatus, port: &str) -> [String; 12] {
    let hop = match (&server.next_hop, &server.unreachable) {
        (Some(hop), _) => {
            let vlan = hop.vlan.map(|id| format!(" vlan {id}")).unwrap_or_default();
            let path = server.path_mtu.map(|mtu| format!(", path MTU {mtu}")).unwrap_or_default();
            format!("{} {}{vlan}{path}", hop.mac, hop.interface)
        }
        (None, Some(why)) => format!("UNREACHABLE: {}", why.detail),
        (None, None) if server.method == "local" => "this machine".to_owned(),
        (None, None) => "UNREACHABLE".to_owned(),
    };
    let port = server.port.map_or_else(|| port.to_owned(), |port| port.to_string());
    [
        "  ->".to_owned(),
        with_port(&server.address, &port),
        forward(&server.method).to_owned(),
        health::weight(server),
        server.active.to_string(),
        server.inactive.to_string(),
        server.connections.to_string(),
        server.packets.to_string(),
        server.out_packets.to_string(),
        server.bytes.to_string(),
        server.out_bytes.to_string(),
        format!("{}{hop}{}", health::of_server(server), life::of_server(server)),
    ]
}

/// The services and their servers, as `ipvsadm -L --stats` lays them out.
pub(super) fn render(out: &mut String, status: &Status) {
    let header = [
        "<Prot",
        "<LocalAddress:Port",
        "<Scheduler Flags",
        ">Weight",
        ">ActiveConn",
        ">InActConn",
        ">Conns",
        ">InPkts",
        ">OutPkts",
        ">InBytes",
        ">OutBytes",
        "<Name / next hop",
    ];
    let mut table = Table::new(&header);
    for service in &status.services {
        let flags: String = service.flags.iter().map(|flag| format!(" {flag}")).collect();
        let sum =
            |of: fn(&ServerStatus) -> u32| service.servers.iter().map(|s| u64::from(of(s))).sum::<u64>().to_string();
        table.row([
            service.protocol.name().to_uppercase(),
            with_port(&service.address, &service.port),
            format!("{}{flags}", service.scheduler),
            String::new(),
            sum(|server| server.active),
            sum(|server| server.inactive),
            service.connections.to_string(),
            service.packets.to_string(),
            service.out_packets.to_string(),
            service.bytes.to_string(),
            service.out_bytes.to_string(),
            format!("{}{}{}", service.name, life::of_service(service), health::of_service(service)),
        ]);
        for server in service.servers.iter().chain(service.sorry.as_deref()) {
            table.row(row(server, &service.port));
        }
        for removed in &service.removed {
            let port = removed.port.map_or_else(|| service.port.clone(), |port| port.to_string());
            let mut row: [String; 12] = Default::default();
            row[0] = "  ->".to_owned();
            row[1] = with_port(&removed.address, &port);
            row[11] = life::of_removed(removed);
            table.row(row);
        }
    }
    out.push_str(&table.render());
    let clients = &status.limited_clients;
    if clients.uncounted > 0 {
        let _ = writeln!(
            out,
            "limits of clients: {} of {} networks have flows; {} flows were let in without room to count them",
            clients.networks, clients.capacity, clients.uncounted
        );
    }
    out.push('\n');
}
