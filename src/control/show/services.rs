//! Services, and servers, for people: a line each.
//!
//! Owns the layout, and which servers get no new flows. Pure.

use crate::control::status::table::Table;
use crate::control::status::{ServerStatus, ServiceStatus, Status, short, state_word, with_port};

/// Whether a server gets new flows now.
pub fn serves(server: &ServerStatus) -> bool {
    server.weight > 0 && server.unreachable.is_none() && !server.overloaded
}

/// How a service is, in a word or two.
pub fn state(service: &ServiceStatus) -> String {
    let sorry = service.sorry.as_ref().is_some_and(|sorry| serves(sorry));
    match &service.quorum {
        _ if sorry => "SORRY SERVER".to_owned(),
        _ if !service.servers.iter().any(serves) => "NO SERVER".to_owned(),
        Some(quorum) if !quorum.up => format!("NO QUORUM: {} of {}", quorum.weight, quorum.least + quorum.hysteresis),
        _ => "up".to_owned(),
    }
}

/// How a server is, in a word or two.
pub fn server_state(server: &ServerStatus) -> String {
    match (&server.unreachable, &server.health) {
        (Some(_), _) => "UNREACHABLE".to_owned(),
        (None, _) if server.overloaded => "OVERLOADED".to_owned(),
        (None, Some(health)) => state_word(&health.state).to_owned(),
        (None, None) => "-".to_owned(),
    }
}

/// The address and port of a server of a service.
pub fn server_end(service: &ServiceStatus, server: &ServerStatus) -> String {
    let port = server.port.map_or_else(|| service.port.clone(), |port| port.to_string());
    with_port(&server.address, &port)
}

/// Why a server is as it is, and where its frames go.
fn more(server: &ServerStatus) -> String {
    let health = server.health.as_ref();
    let reason = match (&server.unreachable, health.map(|health| health.reason.as_str())) {
        (Some(why), _) => Some(why.detail.clone()),
        (None, Some(reason)) if !reason.is_empty() => Some(reason.to_owned()),
        _ => None,
    };
    let hop = server.next_hop.as_ref().map(|hop| {
        let vlan = hop.vlan.map(|id| format!(" vlan {id}")).unwrap_or_default();
        format!("{} {}{vlan}", hop.mac, hop.interface)
    });
    reason.into_iter().chain(hop).collect::<Vec<_>>().join(", ")
}

/// The services, a line each.
pub fn render(services: &[ServiceStatus]) -> String {
    if services.is_empty() {
        return "no services\n".to_owned();
    }
    let mut table = Table::new(&[
        "<Service",
        "<Prot",
        "<Address:Port",
        "<Scheduler",
        "<Method",
        "<State",
        ">Serving",
        ">ActiveConn",
        ">InActConn",
        ">Conns",
        ">InPkts",
        ">OutPkts",
        ">InBytes",
        ">OutBytes",
    ]);
    for service in services {
        let sum = |of: fn(&ServerStatus) -> u32| service.servers.iter().map(|s| u64::from(of(s))).sum::<u64>();
        let serving = service.servers.iter().filter(|server| serves(server)).count();
        table.cells(vec![
            service.name.clone(),
            service.protocol.name().to_uppercase(),
            with_port(&service.address, &service.port),
            service.scheduler.clone(),
            service.method.name().to_owned(),
            state(service),
            format!("{serving} of {}", service.servers.len()),
            sum(|server| server.active).to_string(),
            sum(|server| server.inactive).to_string(),
            service.connections.to_string(),
            service.packets.to_string(),
            service.out_packets.to_string(),
            service.bytes.to_string(),
            service.out_bytes.to_string(),
        ]);
    }
    table.render()
}

/// The servers of services, a line each.
pub fn render_servers(services: &[ServiceStatus]) -> String {
    let mut table = Table::new(&[
        "<Service",
        "<Server",
        "<Method",
        "<State",
        ">Since",
        ">Weight",
        ">ActiveConn",
        ">InActConn",
        ">Conns",
        ">InPkts",
        ">OutPkts",
        "<Why / next hop",
    ]);
    let mut any = false;
    for service in services {
        for server in service.servers.iter().chain(service.sorry.as_deref()) {
            any = true;
            let weight = match &server.health {
                Some(health) if health.configured_weight != server.weight => {
                    format!("{} of {}", server.weight, health.configured_weight)
                }
                _ => server.weight.to_string(),
            };
            table.row([
                service.name.clone(),
                server_end(service, server),
                server.method.clone(),
                server_state(server),
                server.health.as_ref().map_or_else(|| "-".to_owned(), |health| short(health.for_s)),
                weight,
                server.active.to_string(),
                server.inactive.to_string(),
                server.connections.to_string(),
                server.packets.to_string(),
                server.out_packets.to_string(),
                more(server),
            ]);
        }
    }
    if any { table.render() } else { "no servers\n".to_owned() }
}

/// Leaves only servers that get no new flows, and services that have any of these.
pub fn keep_failing(status: &mut Status) {
    for service in &mut status.services {
        service.servers.retain(|server| !serves(server));
        // A sorry server that is not needed is as it should be.
        service.sorry = None;
    }
    status.services.retain(|service| !service.servers.is_empty());
}

#[cfg(test)]
pub(in crate::control) mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::status::{QuorumStatus, Unreachable};

    /// A server of an example.
    pub fn server(address: &str, state: &str, weight: u16) -> ServerStatus {
        let value = json!({
            "address": address, "port": 8080, "method": "nat", "weight": weight,
            "state": state, "reason": "", "for_s": 65, "admin": "ready", "configured_weight": 2, "weight_percent": 100,
            "checks": [],
            "next_hop": { "mac": "02:00:00:00:00:11", "interface": "eth0", "vlan": null }, "unreachable": null,
            "active": 12, "inactive": 3, "connections": 40,
            "packets": 1000, "bytes": 64_000, "out_packets": 900, "out_bytes": 128_000,
        });
        serde_json::from_value(value).expect("a server")
    }

    /// A service of an example.
    pub fn service(name: &str, servers: Vec<ServerStatus>) -> ServiceStatus {
        let sum = |of: fn(&ServerStatus) -> u64| servers.iter().map(of).sum::<u64>();
        let value = json!({
            "name": name, "address": "192.0.2.10", "protocol": "tcp", "port": "80",
            "scheduler": "wlc", "flags": [], "method": "nat",
            "packets": sum(|server| server.packets), "bytes": sum(|server| server.bytes),
            "out_packets": sum(|server| server.out_packets), "out_bytes": sum(|server| server.out_bytes),
            "connections": sum(|server| server.connections), "servers": [],
        });
        ServiceStatus { servers, ..serde_json::from_value(value).expect("a service") }
    }

    fn example() -> Vec<ServiceStatus> {
        let mut down = server("10.0.0.12", "down", 0);
        down.health.as_mut().unwrap().reason = "connection refused".to_owned();
        let mut lost = server("fd00::13", "down", 0);
        lost.port = None;
        lost.next_hop = None;
        lost.unreachable = Some(Unreachable { reason: "no-route".to_owned(), detail: "no route to it".to_owned() });
        vec![
            service("web", vec![server("10.0.0.11", "up", 2), down]),
            ServiceStatus {
                quorum: Some(QuorumStatus { up: false, weight: 0, least: 1, hysteresis: 0 }),
                ..service("mail", vec![lost])
            },
        ]
    }

    #[test]
    fn a_line_for_each() {
        let expected = "\
Service  Prot  Address:Port   Scheduler  Method  State      Serving  ActiveConn  InActConn  Conns  InPkts  OutPkts  InBytes  OutBytes
web      TCP   192.0.2.10:80  wlc        nat     up          1 of 2          24          6     80    2000     1800   128000    256000
mail     TCP   192.0.2.10:80  wlc        nat     NO SERVER   0 of 1          12          3     40    1000      900    64000    128000
";
        let text = render(&example());
        assert!(text == expected, "{text}");
        let expected = "\
Service  Server          Method  State        Since  Weight  ActiveConn  InActConn  Conns  InPkts  OutPkts  Why / next hop
web      10.0.0.11:8080  nat     UP            1m5s       2          12          3     40    1000      900  02:00:00:00:00:11 eth0
web      10.0.0.12:8080  nat     DOWN          1m5s  0 of 2          12          3     40    1000      900  connection refused, 02:00:00:00:00:11 eth0
mail     [fd00::13]:80   nat     UNREACHABLE   1m5s  0 of 2          12          3     40    1000      900  no route to it
";
        let text = render_servers(&example());
        assert!(text == expected, "{text}");
        assert_eq!((render(&[]), render_servers(&[])), ("no services\n".to_owned(), "no servers\n".to_owned()));
    }

    #[test]
    fn those_that_serve_can_be_left_out() {
        let mut status = Status { services: example(), ..Status::default() };
        keep_failing(&mut status);
        let left: Vec<&str> = status.services.iter().flat_map(|s| &s.servers).map(|s| s.address.as_str()).collect();
        assert_eq!(left, ["10.0.0.12", "fd00::13"]);
        status.services = vec![service("web", vec![server("10.0.0.11", "up", 2)])];
        keep_failing(&mut status);
        assert_eq!(status.services, []);
    }

    #[test]
    fn states_of_a_service() {
        let mut one = service("web", vec![server("10.0.0.11", "up", 2), server("10.0.0.12", "up", 2)]);
        assert_eq!(state(&one), "up");
        one.quorum = Some(QuorumStatus { up: false, weight: 4, least: 5, hysteresis: 1 });
        assert_eq!(state(&one), "NO QUORUM: 4 of 6");
        one.servers[0].overloaded = true;
        assert_eq!(server_state(&one.servers[0]), "OVERLOADED");
        one.servers[1].weight = 0;
        assert_eq!(state(&one), "NO SERVER");
        one.sorry = Some(Box::new(server("10.0.0.99", "serving", 1)));
        assert_eq!(state(&one), "SORRY SERVER");
    }
}
