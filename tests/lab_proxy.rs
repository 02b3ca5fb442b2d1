//! PROXY protocol version 2 to real servers, and full NAT that runs out of ports.

mod lab_support;

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel::lab::client::http;
use evenkeel::lab::client::load::{Load, LoadPlan};
use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::server::{haproxy, nginx, transfer};
use evenkeel::lab::site::Family;
use evenkeel::model::Method;
use lab_support::lab_is_possible;
use lab_support::rig::{BULK, PATIENCE, Rig, Stand, WEB, WEB_INSIDE, Wish, eventually, text_of};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn has_haproxy() -> bool {
    let there = evenkeel::lab::process::program("haproxy").is_some();
    assert!(there || std::env::var_os("CI").is_none(), "haproxy is not installed, and CI skips nothing");
    if !there {
        eprintln!("SKIPPED: haproxy is not installed");
    }
    there
}

fn proxied(family: Family) -> Stand {
    let mut stand = Wish::new(Method::FullNat, family).build();
    stand.config.change_service("web", "proxy_protocol", "v2");
    stand
}

/// Requests one after the other, many on one connection, and a load: the server always names the client's own address and
/// port, and no byte is lost where the header was put in.
fn names_the_client(rig: &Rig) {
    for _ in 0..4 {
        let (own, response) = rig.get();
        assert_eq!(response.status, 200);
        assert_eq!(response.client, format!("{} {}", own.ip(), own.port()), "{}", rig.story());
    }
    let target = rig.target(WEB);
    rig.client()
        .run(|| {
            let mut connection = http::HttpConnection::open(target, PATIENCE).unwrap();
            let own = connection.local_address().unwrap();
            for _ in 0..50 {
                let response = connection.get("/", false).unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
                assert_eq!(response.client, format!("{} {}", own.ip(), own.port()));
            }
        })
        .unwrap();
    let load = Load::start(rig.client(), &LoadPlan { rate: 400, ..LoadPlan::new(target) }).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let tally = load.stop();
    assert!(tally.failures == 0 && tally.answered() > 50, "{:?}\n{}", tally.reasons, rig.story());
}

#[test]
fn nginx_learns_who_the_client_is() {
    if !lab_is_possible() {
        return;
    }
    for family in FAMILIES {
        let stand = proxied(family);
        nginx::start_on(&stand.site, &stand.site.servers, WEB_INSIDE, true).unwrap();
        let rig = stand.start_engine();
        names_the_client(&rig);
        let target = rig.target(WEB);
        for _ in 0..4 {
            let large = rig.client().run(|| http::get(target, "/large", PATIENCE)).unwrap();
            let large = large.unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
            assert!(large.body == nginx::large_file(), "the large file came out different");
        }
        // Its log names clients, never the appliance.
        let log = text_of(&rig.site.lab.path(&format!("server1-nginx-{WEB_INSIDE}/access.log")));
        let client = rig.site.client_address(family).to_string();
        assert!(log.lines().count() > 20, "{log}");
        assert!(log.lines().all(|line| line.starts_with(&client) || line.starts_with('-')), "{log}");
    }
}

#[test]
fn haproxy_learns_who_the_client_is() {
    if !lab_is_possible() || !has_haproxy() {
        return;
    }
    for family in FAMILIES {
        let stand = proxied(family);
        for server in &stand.site.servers {
            haproxy::start(&stand.site, server, WEB_INSIDE).unwrap();
        }
        names_the_client(&stand.start_engine());
    }
}

/// A large upload: every sequence number after the header is shifted, in both directions, over many windows.
#[test]
fn a_transfer_after_the_header_arrives_byte_for_byte() {
    const RELAY: u16 = 7443;
    if !lab_is_possible() || !has_haproxy() {
        return;
    }
    for family in FAMILIES {
        let mut stand = Wish::new(Method::FullNat, family).build();
        stand.config.change_service("bulk", "proxy_protocol", "v2").change_servers("bulk", "port", i64::from(RELAY));
        for server in stand.site.servers.clone() {
            // The transfer server knows no PROXY header: HAProxy takes it off and hands the stream on.
            let address = server.address(family);
            transfer::start(&mut stand.site, &server.name, address, BULK).unwrap();
            haproxy::relay(&stand.site, &server, RELAY, SocketAddr::new(address, BULK)).unwrap();
        }
        stand.start_engine().transfer_all();
    }
}

/// With as many local ports as there are connections, the next one is refused and counted; those that are there go on, and
/// when they have gone there is room again.
#[test]
fn running_out_of_local_ports_is_counted_and_survived() {
    if !lab_is_possible() {
        return;
    }
    let mut stand = Wish::new(Method::FullNat, Family::V4).build();
    let local = stand.site.local_address(Family::V4, 0).to_string();
    // Sixteen ports of one address for one server.
    stand.config.set("engine", "local_ports", "20000-20015");
    stand.config.change_service("web", "local_addresses", vec![local]);
    let first = stand.site.servers[0].v4;
    stand.config.servers("web", &[(first, 1)]).change_servers("web", "port", i64::from(WEB_INSIDE));
    // Closed connections give their ports back soon.
    for state in
        ["tcp_fin_wait", "tcp_time_wait", "tcp_close", "tcp_close_wait", "tcp_last_ack", "tcp_syn_sent", "tcp_syn_recv"]
    {
        stand.config.set("timeouts", state, 1);
    }
    let rig = stand.start();
    let target = rig.target(WEB);
    let streams = Streams::open(rig.client(), target, Speech::Http, 16, Duration::from_millis(50)).unwrap();
    assert!(streams.settled(PATIENCE), "{:?}\n{}", streams.broken(), rig.story());
    let open = streams.by_server().values().sum::<usize>();
    assert!(open >= 8, "only {open} connections with sixteen ports: {:?}\n{}", streams.broken(), rig.story());

    let refused = rig.client().run(|| http::get(target, "/", Duration::from_millis(700))).unwrap();
    assert!(refused.is_err(), "there was a seventeenth port\n{}", rig.story());
    assert!(rig.drops("no-local-port") > 0, "{}", rig.story());
    let before = streams.exchanges();
    eventually("the open connections go on", || streams.exchanges() > before + 50);
    assert_eq!(streams.by_server().values().sum::<usize>(), open, "{:?}", streams.broken());
    streams.close();
    // States end after a second, and ports rest a while before they are used again.
    let start = std::time::Instant::now();
    let again = || rig.client().run(|| http::get(target, "/", Duration::from_millis(700))).unwrap();
    loop {
        if again().is_ok_and(|response| response.status == 200) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(90), "no port came back\n{}", rig.story());
    }
}
