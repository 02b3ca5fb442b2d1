//! Persistent clients with real servers: two workers, plain HTTP on two ports of one group; connections over QUIC's header whose
//! client changes its address.

mod lab_support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use evenkeel::lab::client::{http, udp};
use evenkeel::lab::queues;
use evenkeel::lab::server::nginx;
use evenkeel::lab::site::{CLIENT, Family};
use evenkeel::model::{Method, Protocol};
use lab_support::rig::{ECHO, PATIENCE, Rig, WEB, Wish, ip};
use lab_support::{heavy, lab_is_possible};
use serde_json::Value as Json;

const SECURE: u16 = 443;
/// Longer than flows live that their clients closed, and the sweep that ends them.
const SECONDS: i64 = 10;

/// Three servers, four queues, two workers; the services `web` and `secure` are the group `shop`.
fn shop() -> Rig {
    let mut wish = Wish::new(Method::Dr, Family::V4);
    wish.site.servers = 3;
    wish.site.wire.queues = 4;
    let mut stand = wish.build();
    let servers: Vec<_> = stand.site.servers.iter().map(|server| (server.v4, 1)).collect();
    let vip = stand.site.vip(Family::V4);
    stand.config.service("secure", vip, Protocol::Tcp, &SECURE.to_string(), "rr", &servers);
    for name in ["web", "secure"] {
        stand.config.change_service(name, "persistence", SECONDS).change_service(name, "group", "shop");
    }
    stand.config.set("engine", "cores", queues::cores());
    // Which state a flow ends in depends on the order in which its last packets arrive.
    for state in ["fin_wait", "time_wait", "close", "close_wait", "last_ack", "syn_recv"] {
        stand.config.set("timeouts", &format!("tcp_{state}"), 1);
    }
    nginx::start_on(&stand.site, &stand.site.servers, SECURE, false).unwrap_or_else(|error| panic!("{error}"));
    stand.start()
}

/// The server that answers a new connection to a port.
fn get(rig: &Rig, port: u16) -> String {
    let target = rig.target(port);
    let answer = rig.client().run(|| http::get(target, "/", PATIENCE)).unwrap();
    answer.unwrap_or_else(|error| panic!("GET http://{target}/: {error}\n{}", rig.story())).server
}

/// The one server that answers connections to both ports, whichever queue and worker they come to.
fn only_server(rig: &Rig) -> String {
    let first = get(rig, WEB);
    for round in 0..20 {
        let port = if round % 2 == 0 { SECURE } else { WEB };
        assert_eq!(get(rig, port), first, "port {port}\n{}", rig.story());
    }
    first
}

fn persistence(rig: &Rig, words: &[&str]) -> String {
    rig.engine.persistence(words).unwrap_or_else(|error| panic!("{error}\n{}", rig.story()))
}

fn listed(rig: &Rig) -> Json {
    serde_json::from_str(&persistence(rig, &["list", "--json"])).unwrap()
}

#[test]
fn a_client_has_one_server_over_both_ports() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let mut rig = shop();
    let shuffling = queues::shuffle(&rig.site).unwrap();
    let first = only_server(&rig);
    let address = rig.site.client_address(Family::V4).to_string();
    let listing = listed(&rig);
    let row = &listing["clients"][0];
    assert_eq!(
        (&listing["count"], &row["client"], &row["group"]),
        (&1.into(), &address.as_str().into(), &"shop".into())
    );
    let server = rig.site.servers.iter().find(|server| server.name == first).unwrap().v4;
    assert_eq!((&row["server"], &row["assured"]), (&server.to_string().into(), &true.into()), "{listing}");
    let text = persistence(&rig, &["--client", "192.0.2.0/24", "--service", "secure"]);
    assert!(text.contains(&address) && text.contains("shop") && text.contains("ASSURED"), "{text}");
    assert_eq!(persistence(&rig, &["list", "--client", "198.51.100.0/24"]).lines().count(), 2);

    // Cleared: the scheduler, whose turn has moved on, chooses another one.
    assert_eq!(persistence(&rig, &["clear", "--group", "shop"]), "1 cleared\n");
    assert_eq!(listed(&rig)["count"], 0);
    let second = only_server(&rig);
    assert_ne!(second, first);

    // Drained: the client stays.
    let server = rig.site.servers.iter().find(|server| server.name == second).unwrap().v4;
    for name in ["web", "secure"] {
        rig.config.change_server(name, server, "weight", 0);
    }
    rig.engine.reload(&rig.config).unwrap();
    assert_eq!(only_server(&rig), second);
    // Unless clients are to leave.
    for name in ["web", "secure"] {
        rig.config.change_service(name, "persistence_drained", "leave");
    }
    rig.engine.reload(&rig.config).unwrap();
    let third = only_server(&rig);
    assert_ne!(third, second);

    // After its time nothing is left.
    let long = Duration::from_secs(2 * SECONDS as u64) + PATIENCE;
    let over = |status: &Json| status["persistence"]["clients"] == 0;
    rig.engine
        .await_status(long, "the end of all persistence", over)
        .unwrap_or_else(|error| panic!("{error}\n{}", listed(&rig)));
    assert_ne!(get(&rig, WEB), third, "the next one's turn");
    assert!(
        rig.engine.persistence(&["list", "--service", "wbe"]).unwrap_err().to_string().contains("no service `wbe`")
    );
    assert!(
        rig.engine.persistence(&["list", "--client", "x"]).unwrap_err().to_string().contains("expected an address")
    );
    assert!(shuffling.iter().all(|process| process.ended().is_none()));
}

/// A datagram with QUIC's header: a long one with a connection id that its client made up, or a short one with one that a
/// server made.
fn quic(server: Option<u8>) -> Vec<u8> {
    let mut packet = match server {
        None => vec![0xc0, 0, 0, 0, 1, 8, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5],
        Some(id) => vec![0x40, 0b0010_0101, 0xe0, id, 9, 9, 9, 9],
    };
    packet.resize(1200, 0x5a);
    packet
}

#[test]
fn a_quic_connection_survives_a_change_of_address() {
    if !lab_is_possible() {
        return;
    }
    let mut wish = Wish::new(Method::Dr, Family::V4);
    wish.site.servers = 3;
    wish.site.wire.queues = 4;
    let mut stand = wish.build();
    stand.config.set("engine", "cores", queues::cores());
    stand.config.change_service("echo", "persistence_by", "quic-server-id").change_service("echo", "quic_rotation", 1);
    for (id, server) in stand.site.servers.iter().enumerate() {
        stand.config.change_server("echo", server.v4, "quic_id", format!("e0{id:02x}"));
    }
    let others = [101, 102, 103].map(|host| Ipv4Addr::new(192, 0, 2, host));
    for address in others {
        ip(&stand.site, CLIENT, &format!("address add {address}/24 dev eth0"));
    }
    let rig = stand.start();
    let target: SocketAddr = rig.target(ECHO);
    let ask = |from: Ipv4Addr, payload: &[u8]| {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        udp::ask_bytes(&socket, payload)
    };
    let ask = |from, payload: &[u8]| {
        let answer = rig.client().run(|| ask(from, payload)).unwrap();
        answer.unwrap_or_else(|error| panic!("{error}\n{}", rig.story()))
    };
    let mut served = Vec::new();
    for connection in 0..6 {
        let name = ask(others[connection % 3], &quic(None));
        let id = rig.site.servers.iter().position(|server| server.name == name).unwrap() as u8;
        // From then on by the server's id, each time from another port, and from all addresses.
        for step in 0..9 {
            assert_eq!(ask(others[step % 3], &quic(Some(id))), name, "step {step}\n{}", rig.story());
        }
        served.push(name);
    }
    served.sort();
    served.dedup();
    assert_eq!(served.len(), 3, "new connections are spread");
}
