//! NAT and full NAT end to end: what arrives, what the servers see, what ICMP says, and what stays as it was.

mod lab_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::client::{http, ping, udp};
use evenkeel::lab::engine::find_server;
use evenkeel::lab::scenario::{Stage, find};
use evenkeel::lab::server::{transfer, udp as udp_server};
use evenkeel::lab::site::{APPLIANCE, CLIENT, Family, ROUTER, Reach};
use evenkeel::model::{IoMode, Method, Protocol};
use lab_support::rig::{
    BULK, ECHO, ECHO_INSIDE, PATIENCE, Rig, Stand, WEB, WEB_INSIDE, Wish, eventually, ip_option, limit_route, path_mtu,
};
use lab_support::{lab_is_possible, must_pass, options, set};

const LOAD: Duration = Duration::from_secs(2);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const METHODS: [Method; 2] = [Method::Nat, Method::FullNat];

fn scenario_passes(name: &str) {
    if lab_is_possible() {
        must_pass(&set(find(name).unwrap()), LOAD);
    }
}

#[test]
fn the_scenario_with_one_arm() {
    scenario_passes("nat-one-arm");
}

#[test]
fn the_scenario_with_two_arms() {
    scenario_passes("nat-two-arm");
}

#[test]
fn the_scenario_over_ipv6() {
    scenario_passes("nat-ipv6");
}

#[test]
fn the_scenario_with_full_nat() {
    scenario_passes("full-nat");
}

#[test]
fn the_scenario_with_three_methods_in_one_service() {
    scenario_passes("mixed");
}

#[test]
fn the_scenario_of_a_site_that_had_the_classic_tools() {
    scenario_passes("web-nat");
}

fn mode_passes(mode: IoMode) {
    if !lab_is_possible() {
        return;
    }
    for name in ["nat-two-arm", "full-nat"] {
        let mut options = options();
        options.mode = Some(mode);
        // Without XDP the kernel sees every packet too, and must not forward any.
        let routes = if mode == IoMode::AfPacket { "0" } else { "1" };
        let stage = Stage::set_with(find(name).unwrap(), &options, |site, _| {
            for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                site.lab.setting(APPLIANCE, key, routes).unwrap();
            }
        });
        must_pass(&stage.unwrap_or_else(|error| panic!("{mode}: {error}")), LOAD / 2);
    }
}

#[test]
fn generic_mode() {
    mode_passes(IoMode::Generic);
}

#[test]
fn af_packet_mode() {
    mode_passes(IoMode::AfPacket);
}

/// HTTP to another port, a transfer, datagrams; the servers see who they should.
fn carries(wish: Wish) {
    let rig = wish.build().start();
    let mut servers = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let (own, response) = rig.get();
        assert_eq!(response.status, 200);
        match wish.method {
            Method::FullNat => {
                let local = response.client.split(' ').next().unwrap_or_default();
                let locals = [0, 1].map(|index| rig.site.local_address(wish.family, index).to_string());
                assert!(locals.contains(&local.to_owned()), "{} is none of {locals:?}", response.client);
            }
            _ => assert_eq!(response.client, format!("{} {}", own.ip(), own.port())),
        }
        servers.insert(response.server);
    }
    assert_eq!(servers.len(), 2, "{servers:?}");
    rig.echo(&[1, 100, 1472 - 20, 500]);
    rig.transfer_all();
    let target = rig.target(ECHO);
    let answers = rig.client().run(|| udp::survey(target, 10, PATIENCE)).unwrap();
    assert_eq!(answers.values().copied().collect::<Vec<_>>(), [5, 5], "{answers:?}");
    let service = rig.site.vip(wish.family);
    rig.client().run(|| ping::ping(service, 56, PATIENCE)).unwrap().expect("the service address answers ping");
    if wish.method == Method::Nat {
        let (gateway, server) = (rig.site.gateway(wish.family), rig.site.lab.node("server1").unwrap());
        server.run(|| ping::ping(gateway, 56, PATIENCE)).unwrap().expect("the gateway answers ping");
    }
}

#[test]
fn nat_with_two_arms_over_ipv6() {
    if lab_is_possible() {
        carries(Wish::new(Method::Nat, Family::V6));
    }
}

#[test]
fn nat_with_one_arm() {
    if lab_is_possible() {
        FAMILIES.into_iter().for_each(|family| carries(Wish::new(Method::Nat, family).one_arm()));
    }
}

#[test]
fn full_nat_with_two_arms() {
    if lab_is_possible() {
        FAMILIES.into_iter().for_each(|family| carries(Wish::new(Method::FullNat, family)));
    }
}

#[test]
fn full_nat_with_one_arm() {
    if lab_is_possible() {
        FAMILIES.into_iter().for_each(|family| carries(Wish::new(Method::FullNat, family).one_arm()));
    }
}

/// The servers' own traffic passes the appliance's kernel, in both directions, as if there were no engine: also from the very
/// ports that are balanced, and to hosts that are clients as well.
#[test]
fn what_is_not_the_service_s_passes_the_kernel_as_before() {
    if !lab_is_possible() {
        return;
    }
    for family in FAMILIES {
        for wish in [Wish::new(Method::Nat, family), Wish::new(Method::Nat, family).one_arm()] {
            let rig = wish.build().start();
            rig.get();
            let client_address = rig.site.client_address(family);
            let server = rig.site.lab.node("server1").unwrap();
            let pinged = server.run(|| ping::ping(client_address, 1000, PATIENCE)).unwrap();
            pinged.unwrap_or_else(|error| panic!("a server pings a client: {error}\n{}", rig.story()));

            let listener = rig.client().run(|| TcpListener::bind((client_address, 9000))).unwrap().unwrap();
            let answering = std::thread::spawn(move || {
                let (mut connection, from) = listener.accept().unwrap();
                connection.write_all(from.ip().to_string().as_bytes()).unwrap();
            });
            let told = server.run(|| -> std::io::Result<String> {
                let mut connection = TcpStream::connect_timeout(&SocketAddr::new(client_address, 9000), PATIENCE)?;
                connection.set_read_timeout(Some(PATIENCE))?;
                let mut told = String::new();
                connection.read_to_string(&mut told).map(|_| told)
            });
            let told =
                told.unwrap().unwrap_or_else(|error| panic!("a server's own connection: {error}\n{}", rig.story()));
            assert_eq!(told, rig.site.servers[0].address(family).to_string());
            answering.join().unwrap();

            // Past the service: the client asks the server by its own address, on the port that the service uses inside.
            let direct = SocketAddr::new(rig.site.servers[0].address(family), WEB_INSIDE);
            let response = rig.client().run(|| http::get(direct, "/large", PATIENCE)).unwrap();
            let response =
                response.unwrap_or_else(|error| panic!("a connection past the service: {error}\n{}", rig.story()));
            assert_eq!((response.status, response.server.as_str()), (200, "server1"));
            assert!(response.client.starts_with(&client_address.to_string()), "{}", response.client);
            let direct = SocketAddr::new(rig.site.servers[0].address(family), ECHO_INSIDE);
            let asked = rig.client().run(|| udp::socket(direct, PATIENCE).and_then(|socket| udp::ask(&socket, "x")));
            assert_eq!(asked.unwrap().unwrap_or_else(|error| panic!("{error}\n{}", rig.story())), "server1");
            rig.get();
        }
    }
}

/// A server without a listener answers ICMP port unreachable. It quotes its own address; the client must be told about the
/// service's, or its kernel would not know what to do with it.
#[test]
fn port_unreachable_from_a_server_reaches_the_client_s_socket() {
    if !lab_is_possible() {
        return;
    }
    for family in FAMILIES {
        for method in METHODS {
            let wish = Wish::new(method, family);
            let mut stand = wish.build();
            let servers: Vec<_> = stand.site.servers.iter().map(|server| (server.address(family), 1)).collect();
            let vip = stand.site.vip(family);
            stand.config.service("silent", vip, Protocol::Udp, "999", "rr", &servers);
            evenkeel::lab::scenario::forward::by(&mut stand.config, &stand.site, family, "silent", method);
            stand.config.change_servers("silent", "port", 9999);
            let rig = stand.start();
            let target = rig.target(999);
            let error = rig.client().run(|| udp::socket(target, PATIENCE).and_then(|socket| udp::ask(&socket, "x")));
            let error = error.unwrap().expect_err("something answered");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}\n{}", rig.story());
            // The engine goes on.
            rig.get();
        }
    }
}

/// The node, its route and its interface at one end of a leg.
fn shrink(stand: &Stand, appliance: &str, ends: &[(&str, String)], mtu: u32) {
    stand.ip(APPLIANCE, &format!("link set {appliance} mtu {mtu}"));
    for (node, route) in ends {
        limit_route(&stand.site, node, stand.wish.family, route, mtu);
    }
}

/// Packets for the small leg are too large: their sender is told, and everything arrives.
fn learns(rig: &Rig, node: &str, to: std::net::IpAddr, mtu: u32) {
    rig.transfer(1, 16);
    assert_eq!(path_mtu(&rig.site, node, to), Some(mtu), "{node} did not learn the MTU to {to}\n{}", rig.story());
    rig.transfer(1, 4);
}

#[test]
fn the_client_learns_the_smaller_mtu_of_the_servers_leg() {
    if !lab_is_possible() {
        return;
    }
    for family in FAMILIES {
        for method in METHODS {
            let stand = Wish::new(method, family).build();
            let site = &stand.site;
            let ends: Vec<_> = site.servers.iter().map(|server| (server.name.as_str(), back_route(&stand))).collect();
            shrink(&stand, "eth1", &ends, 1400);
            let vip = site.vip(family);
            learns(&stand.start(), CLIENT, vip, 1400);
        }
    }
}

/// The servers' route towards the clients, or where they have none, to the appliance's local addresses.
fn back_route(stand: &Stand) -> String {
    let family = stand.wish.family;
    match stand.wish.site.reach {
        Reach::FullNat => stand.site.servers_network(family).to_string() + " dev eth0",
        _ => format!("default via {}", stand.site.gateway(family)),
    }
}

#[test]
fn a_server_learns_the_smaller_mtu_of_the_clients_leg() {
    if !lab_is_possible() {
        return;
    }
    for family in FAMILIES {
        for method in METHODS {
            let stand = Wish::new(method, family).build();
            let route = stand.site.clients_network(family).to_string() + " dev eth0";
            shrink(&stand, "eth0", &[(CLIENT, route)], 1400);
            let client = stand.site.client_address(family);
            let rig = stand.start();
            match method {
                Method::Nat => {
                    rig.transfer(2, 8);
                    for server in ["server1", "server2"] {
                        learns(&rig, server, client, 1400);
                    }
                }
                // Which local address was used is the engine's business.
                _ => {
                    rig.transfer(2, 8);
                    let locals = [0, 1].map(|index| rig.site.local_address(family, index));
                    let learned = locals.iter().any(|&local| path_mtu(&rig.site, "server1", local) == Some(1400));
                    assert!(learned, "server1 did not learn the MTU\n{}", rig.story());
                }
            }
        }
    }
}

/// A router between the appliance and the servers has the small leg: its ICMP error quotes what the appliance sent, and must
/// be turned back into the client's terms.
#[test]
fn an_inner_router_s_packet_too_big_is_translated_for_the_client() {
    if !lab_is_possible() {
        return;
    }
    for family in FAMILIES {
        // The site of tunnels has its servers behind a router.
        let mut wish = Wish::new(Method::Nat, family);
        wish.site.reach = Reach::Tunnel;
        let mut stand = wish.build();
        let option = ip_option(family);
        let gateway = stand.site.gateway_beside(family);
        // The only way back is the engine.
        stand.ip(ROUTER, "link set eth0 down");
        stand.ip(ROUTER, &format!("{option} route add default via {gateway} dev eth1"));
        stand.ip(ROUTER, "link set eth2 mtu 1400");
        stand.config.owned(gateway);
        for server in stand.site.servers.clone() {
            let router = stand.site.router_address(family);
            limit_route(&stand.site, &server.name, family, &format!("default via {router}"), 1400);
            transfer::start(&mut stand.site, &server.name, server.address(family), BULK).unwrap();
        }
        let vip = stand.site.vip(family);
        let rig = stand.start_engine();
        learns(&rig, CLIENT, vip, 1400);
    }
}

/// Datagrams with fragments of the sender's own making pass a small leg, too.
#[test]
fn datagrams_pass_a_small_leg() {
    if !lab_is_possible() {
        return;
    }
    for method in METHODS {
        let stand = Wish::new(method, Family::V4).build();
        let site = &stand.site;
        let ends: Vec<_> = site.servers.iter().map(|server| (server.name.as_str(), back_route(&stand))).collect();
        shrink(&stand, "eth1", &ends, 1400);
        let rig = stand.start();
        let target = rig.target(ECHO);
        let payload = vec![7; 1450];
        let mut tries = 0;
        // The first datagram says "do not fragment" and is answered by ICMP; the next ones are cut to fit.
        eventually("a datagram of 1450 bytes comes back", || {
            tries += 1;
            let ask = || {
                let socket = udp::socket(target, Duration::from_millis(500))?;
                udp::ask_bytes(&socket, &payload)
            };
            rig.client().run(ask).unwrap().is_ok()
        });
        assert!(tries <= 3, "{tries} tries\n{}", rig.story());
    }
}

/// Both directions are seen: a connection that both sides have closed is no longer active, and its state is TIME_WAIT.
#[test]
fn connections_are_active_until_they_are_closed() {
    if !lab_is_possible() {
        return;
    }
    for method in METHODS {
        let rig = Wish::new(method, Family::V4).build().start();
        let streams = Streams::open(rig.client(), rig.target(WEB), Speech::Http, 6, Duration::from_millis(20)).unwrap();
        assert!(streams.settled(PATIENCE), "{:?}\n{}", streams.broken(), rig.story());
        let counts = |status: &serde_json::Value| {
            let mut counts = (0, 0);
            for server in &rig.site.servers {
                let entry = find_server(status, "web", server.v4).unwrap();
                counts.0 += entry["active"].as_u64().unwrap();
                counts.1 += entry["inactive"].as_u64().unwrap();
            }
            counts
        };
        rig.await_status("six active connections", |status| counts(status) == (6, 0));
        streams.close();
        rig.await_status("six inactive connections", |status| counts(status) == (0, 6));
    }
}

/// Conversations hold over a change of weights, and a server with weight 0 keeps what it has.
#[test]
fn a_drained_server_keeps_its_connections() {
    if !lab_is_possible() {
        return;
    }
    for method in METHODS {
        let rig = Wish::new(method, Family::V4).build().start();
        let streams = Streams::open(rig.client(), rig.target(WEB), Speech::Http, 6, Duration::from_millis(5)).unwrap();
        assert!(streams.settled(PATIENCE), "{:?}\n{}", streams.broken(), rig.story());
        let before = streams.by_server();
        let mut config = rig.config.clone();
        for round in 0..50_i64 {
            config.change_server("web", rig.site.servers[0].v4, "weight", round % 2);
            rig.engine.reload(&config).unwrap();
        }
        assert_eq!(streams.broken(), Vec::<String>::new(), "{}", rig.story());
        assert_eq!(streams.by_server(), before);
    }
}

/// A server that is asked on another port by two services, and the same port by both protocols.
#[test]
fn two_services_share_a_server_and_its_port() {
    if !lab_is_possible() {
        return;
    }
    for method in METHODS {
        let mut stand = Wish::new(method, Family::V4).build();
        let servers: Vec<_> = stand.site.servers.iter().map(|server| (server.v4, 1)).collect();
        let vip = stand.site.vip(Family::V4);
        for (name, port, protocol) in [("again", "81", Protocol::Tcp), ("other", "82", Protocol::Udp)] {
            stand.config.service(name, vip, protocol, port, "rr", &servers);
            evenkeel::lab::scenario::forward::by(&mut stand.config, &stand.site, Family::V4, name, method);
            stand.config.change_servers(name, "port", i64::from(WEB_INSIDE));
        }
        stand.start_servers();
        udp_server::start(&mut stand.site, "server1", servers[0].0, WEB_INSIDE).unwrap();
        udp_server::start(&mut stand.site, "server2", servers[1].0, WEB_INSIDE).unwrap();
        let rig = stand.start_engine();
        rig.get();
        let (again, other) = (rig.target(81), rig.target(82));
        let response = rig.client().run(|| http::get(again, "/", PATIENCE)).unwrap();
        response.unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
        let answers = rig.client().run(|| udp::survey(other, 4, PATIENCE)).unwrap();
        assert_eq!(answers.values().copied().collect::<Vec<_>>(), [2, 2], "{answers:?}\n{}", rig.story());
    }
}
