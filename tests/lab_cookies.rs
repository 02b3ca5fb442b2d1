//! SYN cookies end to end: every connection by NAT and full NAT begins with one, and real TCP at both ends never notices.

mod lab_support;

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::JoinHandle;

use evenkeel::lab::client::http;
use evenkeel::lab::client::load::{Load, LoadPlan};
use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::server::{haproxy, nginx, transfer};
use evenkeel::lab::site::{Family, Site};
use evenkeel::model::Method;
use lab_support::rig::{BULK, PATIENCE, Rig, Stand, WEB, WEB_INSIDE, Wish, eventually};
use lab_support::{heavy, lab_is_possible};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Where HAProxy takes PROXY headers off.
const RELAY: u16 = 7443;
/// Where the servers speak first.
const GREETING: u16 = 2525;
/// Connections to those.
const GREETED: usize = 6;

fn stand(method: Method, family: Family) -> Stand {
    let mut stand = Wish::new(method, family).build();
    stand.config.set("engine", "syn_cookies", "always");
    stand
}

/// What the workers count, all together.
fn sum(rig: &Rig, key: &str) -> u64 {
    let status = rig.engine.status().unwrap();
    status["workers"].as_array().into_iter().flatten().filter_map(|worker| worker[key].as_u64()).sum()
}

/// Serves `count` connections: speaks first, then answers each line.
fn greet(site: &Site, node: &str, address: IpAddr, count: usize) -> JoinHandle<()> {
    let bind = || TcpListener::bind(SocketAddr::new(address, GREETING));
    let listener = site.lab.node(node).unwrap().run(bind).unwrap().unwrap();
    std::thread::spawn(move || {
        for _ in 0..count {
            let (mut connection, _) = listener.accept().unwrap();
            connection.write_all(b"220 ready\r\n").unwrap();
            let lines = BufReader::new(connection.try_clone().unwrap()).lines();
            for line in lines {
                connection.write_all(format!("250 {}\r\n", line.unwrap()).as_bytes()).unwrap();
            }
        }
    })
}

/// The client says nothing before it was greeted.
fn is_greeted(rig: &Rig) {
    let target = rig.target(BULK);
    let talk = || -> std::io::Result<()> {
        for round in 0..GREETED {
            let mut connection = TcpStream::connect_timeout(&target, PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            let mut reader = BufReader::new(connection.try_clone()?);
            let mut line = String::new();
            reader.read_line(&mut line)?;
            assert_eq!(line, "220 ready\r\n");
            for word in ["HELO", "QUIT"] {
                connection.write_all(format!("{word} {round}\r\n").as_bytes())?;
                line.clear();
                reader.read_line(&mut line)?;
                assert_eq!(line, format!("250 {word} {round}\r\n"));
            }
        }
        Ok(())
    };
    rig.client().run(talk).unwrap().unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
}

/// Requests, a load of short connections, and connections that stay: all of nginx, and cookies for each.
fn web_works(rig: &Rig, named: bool) {
    let before = sum(rig, "cookies_accepted");
    for _ in 0..4 {
        let (own, response) = rig.get();
        assert_eq!(response.status, 200);
        if named {
            assert_eq!(response.client, format!("{} {}", own.ip(), own.port()), "{}", rig.story());
        }
    }
    let target = rig.target(WEB);
    for _ in 0..4 {
        let large = rig.client().run(|| http::get(target, "/large", PATIENCE)).unwrap();
        let large = large.unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
        assert!(large.body == nginx::large_file(), "the large file came out different");
    }
    let streams = Streams::open(rig.client(), target, Speech::Http, 4, std::time::Duration::from_millis(20)).unwrap();
    let load = Load::start(rig.client(), &LoadPlan { rate: 300, ..LoadPlan::new(target) }).unwrap();
    eventually("the open connections go on", || streams.exchanges() > 100);
    eventually("so do new ones", || load.tally().answered() > 150);
    let tally = load.stop();
    assert_eq!((tally.failures, streams.broken()), (0, vec![]), "{:?}\n{}", tally.reasons, rig.story());
    let after = sum(rig, "cookies_accepted");
    let (answered, sent) = (tally.answered() + 12, sum(rig, "cookies_sent"));
    assert!(after - before >= answered && sent >= after, "{answered} of {before} to {after}\n{}", rig.story());
    assert_eq!(sum(rig, "unproven"), 0, "nobody is let in without a cookie\n{}", rig.story());
}

/// The client scales windows as the cookie's answer said, whatever the server's own scale.
fn windows_are_scaled(rig: &Rig) {
    let target = rig.target(WEB);
    let connection = rig.client().run(|| http::HttpConnection::open(target, PATIENCE)).unwrap().unwrap();
    let own = connection.local_address().unwrap();
    let mut command = Command::new(evenkeel::lab::process::require("ss", "iproute2").unwrap());
    command.args(["-tinH", "state", "established", &format!("sport = :{}", own.port())]);
    let told = rig.site.lab.output(evenkeel::lab::site::CLIENT, &command).unwrap();
    assert!(told.contains("wscale:7,"), "{told}");
}

fn arrives_whole(method: Method) {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    for family in FAMILIES {
        let rig = stand(method, family).start();
        web_works(&rig, method == Method::Nat);
        windows_are_scaled(&rig);
        rig.transfer_all();
        assert_eq!(rig.drops("cookie-table-full") + rig.drops("bad-transport-checksum"), 0, "{}", rig.story());
    }
}

#[test]
fn by_nat_all_arrives_whole() {
    arrives_whole(Method::Nat);
}

#[test]
fn by_full_nat_all_arrives_whole() {
    arrives_whole(Method::FullNat);
}

#[test]
fn with_a_proxy_header_all_arrives_whole() {
    if !lab_is_possible() {
        return;
    }
    let there = evenkeel::lab::process::program("haproxy").is_some();
    assert!(there || std::env::var_os("CI").is_none(), "haproxy is not installed, and CI skips nothing");
    if !there {
        eprintln!("SKIPPED: haproxy is not installed");
        return;
    }
    let _alone = heavy();
    for family in FAMILIES {
        let mut stand = stand(Method::FullNat, family);
        for name in ["web", "bulk"] {
            stand.config.change_service(name, "proxy_protocol", "v2");
        }
        stand.config.change_servers("bulk", "port", i64::from(RELAY));
        nginx::start_on(&stand.site, &stand.site.servers, WEB_INSIDE, true).unwrap();
        for server in stand.site.servers.clone() {
            let address = server.address(family);
            transfer::start(&mut stand.site, &server.name, address, BULK).unwrap();
            haproxy::relay(&stand.site, &server, RELAY, SocketAddr::new(address, BULK)).unwrap();
        }
        let rig = stand.start_engine();
        web_works(&rig, true);
        rig.transfer_all();
    }
}

/// The client is silent until the server has spoken: it hears of its window, then the greeting.
#[test]
fn a_server_may_speak_first() {
    if !lab_is_possible() {
        return;
    }
    for (method, proxy) in [(Method::Nat, false), (Method::FullNat, false), (Method::FullNat, true)] {
        for family in FAMILIES {
            let mut stand = stand(method, family);
            let servers = stand.site.servers.clone();
            let inside = if proxy { RELAY } else { GREETING };
            stand.config.change_servers("bulk", "port", i64::from(inside));
            let each = GREETED.div_ceil(servers.len());
            let greeters: Vec<_> =
                servers.iter().map(|server| greet(&stand.site, &server.name, server.address(family), each)).collect();
            if proxy {
                if evenkeel::lab::process::program("haproxy").is_none() {
                    continue;
                }
                stand.config.change_service("bulk", "proxy_protocol", "v2");
                for server in &servers {
                    let target = SocketAddr::new(server.address(family), GREETING);
                    haproxy::relay(&stand.site, server, RELAY, target).unwrap();
                }
            }
            let rig = stand.start_engine();
            is_greeted(&rig);
            assert!(sum(&rig, "cookies_accepted") >= GREETED as u64, "{}", rig.story());
            greeters.into_iter().for_each(|greeter| greeter.join().unwrap());
        }
    }
}
