//! Flows whose server was removed, is down or has drained; connections that begin anew; timeouts of services.

use std::net::SocketAddr;

use super::translation::{SERVER_MAC, at, packet};
use super::*;
use crate::dataplane::parse::be16;

pub(super) const METHODS: [Method; 3] = [Method::Dr, Method::Nat, Method::FullNat];

/// The client and the service of a family.
pub(super) fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
    if v6 {
        (at("[2001:db8:1::7]:40000"), at("[2001:db8::10]:80"))
    } else {
        (at("198.51.100.7:40000"), at("192.0.2.10:80"))
    }
}

pub(super) fn web(v6: bool, protocol: Protocol, method: Method, servers: &[u8]) -> Service {
    let address = ends(v6).1.ip();
    let servers: Vec<(u8, u16)> = servers.iter().map(|n| (*n, 1)).collect();
    let mut service = service(address, protocol, PortRange::single(80), &servers);
    service.method = method;
    service.servers.iter_mut().for_each(|server| server.method = method);
    if method == Method::FullNat {
        service.local_addresses = vec![server_address(address, 200)];
    }
    service
}

fn settings() -> EngineSettings {
    EngineSettings { flows: 1000, flows_ipv6: 1000, local_addresses: 2, ..EngineSettings::default() }
}

pub(super) fn rig(services: Vec<Service>) -> Rig {
    Rig::with(settings(), services)
}

pub(super) fn flows(rig: &Rig) -> usize {
    let (v4, v6) = rig.pipeline.tables();
    v4.len() + v6.len()
}

/// The client's packet.
pub(super) fn say(v6: bool, protocol: Protocol, flags: u8, data: &[u8]) -> Vec<u8> {
    let (client, vip) = ends(v6);
    packet(CLIENT_MAC, client, vip, protocol, flags, data)
}

pub(super) fn opening(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => S,
        Protocol::Udp => 0,
        Protocol::Sctp => 1,
    }
}

/// Opens a flow to the first of IPVS's list, which is the last server.
fn open(rig: &mut Rig, v6: bool, protocol: Protocol) -> Outcome {
    let outcome = rig.one(say(v6, protocol, opening(protocol), b""));
    assert!(outcome.new_flow && matches!(outcome.verdict, Verdict::Tx(0)), "{outcome:?}");
    rig.sent();
    if protocol == Protocol::Tcp {
        rig.one(say(v6, protocol, A, b""));
        rig.io.sent(0);
    }
    outcome
}

/// What is checked of an answer: it comes from the service, to the client, and what it is.
pub(super) fn answered(frame: &[u8], v6: bool) -> String {
    let (client, vip) = ends(v6);
    let parsed = crate::dataplane::parse::parse(frame).expect("sound");
    let (from, to, _) = crate::dataplane::icmp::ends(frame, usize::from(parsed.l3)).expect("addresses");
    assert_eq!((from, to), (vip.ip(), client.ip()));
    assert_eq!((&frame[..6], &frame[6..12]), (&CLIENT_MAC[..], &OWN.0[..]));
    let l4 = usize::from(parsed.l4);
    if parsed.kind == Kind::Icmp4 || parsed.kind == Kind::Icmp6 {
        return format!("icmp {} {}", frame[l4], frame[l4 + 1]);
    }
    crate::dataplane::parse::verify_transport(frame, &parsed).expect("a right checksum");
    assert_eq!((be16(frame, l4), be16(frame, l4 + 2)), (Some(vip.port()), Some(client.port())));
    format!("tcp {:#04x}", parsed.tcp_flags)
}

#[test]
fn a_removed_servers_clients_are_told() {
    for (v6, method) in [false, true].into_iter().flat_map(|v6| METHODS.map(|method| (v6, method))) {
        for protocol in Protocol::ALL {
            let mut rig = rig(vec![web(v6, protocol, method, &[1, 2])]);
            open(&mut rig, v6, protocol);
            rig.swap(vec![web(v6, protocol, method, &[1])]);
            let outcome = rig.one(say(v6, protocol, if protocol == Protocol::Tcp { A } else { 0 }, b"data"));
            assert_eq!((outcome.verdict, outcome.service, outcome.new_flow), (Verdict::Reply(0), 0, false));
            let expected = match (protocol, v6) {
                (Protocol::Tcp, _) => "tcp 0x04",
                (_, false) => "icmp 3 3",
                (_, true) => "icmp 1 4",
            };
            assert_eq!(answered(&rig.sent(), v6), expected, "{protocol} {method:?}");
            assert_eq!(flows(&rig), 0, "the flow has ended");
            let stats = rig.pipeline.stats();
            let counted = (stats.resets.get(), stats.icmp_errors.get());
            assert_eq!(counted, if protocol == Protocol::Tcp { (1, 0) } else { (0, 1) });
            assert!(rig.snapshot.services[0].ghosts.iter().all(|ghost| ghost.load.total() == 0));
            // The server that is left takes over.
            let next = rig.one(say(v6, protocol, opening(protocol), b""));
            assert!(next.new_flow && matches!(next.verdict, Verdict::Tx(0)), "{next:?}");
            assert_eq!(mac_of(&rig.sent()), 1);
        }
    }
}

#[test]
fn a_kept_flow_waits_for_its_server() {
    for (v6, method) in [false, true].into_iter().flat_map(|v6| METHODS.map(|method| (v6, method))) {
        for protocol in Protocol::ALL {
            let config = |servers: &[u8]| {
                let mut service = web(v6, protocol, method, servers);
                service.fates.removed = Fate::Keep;
                vec![service]
            };
            let mut rig = rig(config(&[1, 2]));
            let first = open(&mut rig, v6, protocol);
            for _ in 0..3 {
                rig.swap(config(&[1]));
                let frame = say(v6, protocol, if protocol == Protocol::Tcp { A } else { 0 }, b"data");
                assert_eq!(rig.drops(frame), Some(DropReason::ServerGone));
            }
            rig.swap(config(&[1, 2]));
            let again = rig.one(say(v6, protocol, if protocol == Protocol::Tcp { A } else { 0 }, b"data"));
            assert_eq!((again.new_flow, again.server, again.verdict), (false, first.server, Verdict::Tx(0)));
            assert_eq!(mac_of(&rig.sent()), 2);
            // Dropped packets keep no flow alive.
            rig.swap(config(&[1]));
            let lifetime = match protocol {
                Protocol::Tcp => 900_000,
                Protocol::Udp => 300_000,
                Protocol::Sctp => 4_000,
            };
            rig.now += lifetime / 2;
            let frame = || say(v6, protocol, if protocol == Protocol::Tcp { A } else { 0 }, b"data");
            assert_eq!(rig.drops(frame()), Some(DropReason::ServerGone));
            rig.now += lifetime / 2 + 1000;
            let anew = rig.one(frame());
            assert!(anew.new_flow, "{protocol} {method:?}: {anew:?}");
            assert_eq!(mac_of(&rig.sent()), 1);
        }
    }
}

#[test]
fn a_rescheduled_flow_goes_to_another_server() {
    for method in METHODS {
        for protocol in Protocol::ALL {
            let config = |servers: &[u8]| {
                let mut service = web(false, protocol, method, servers);
                service.fates.removed = Fate::Reschedule;
                vec![service]
            };
            let mut rig = rig(config(&[1, 2]));
            open(&mut rig, false, protocol);
            rig.swap(config(&[1]));
            let moved = rig.one(say(false, protocol, if protocol == Protocol::Tcp { A } else { 0 }, b"data"));
            assert!(moved.new_flow && moved.verdict == Verdict::Tx(0), "{moved:?}");
            assert_eq!(mac_of(&rig.sent()), 1);
        }
    }
}

#[test]
fn tags_stay_and_resets_are_not_answered() {
    let mut rig = rig(vec![web(false, Protocol::Tcp, Method::Dr, &[1, 2])]);
    open(&mut rig, false, Protocol::Tcp);
    rig.swap(vec![web(false, Protocol::Tcp, Method::Dr, &[1])]);
    // A broken segment says nothing.
    let mut broken = say(false, Protocol::Tcp, A, b"data");
    broken[55] ^= 1;
    assert_eq!(rig.drops(broken), Some(DropReason::BadTransportChecksum));
    assert_eq!(flows(&rig), 1);
    assert_eq!(rig.one(tagged(say(false, Protocol::Tcp, A, b"data"), 0x2063)).verdict, Verdict::Reply(0));
    let reset = rig.sent();
    assert_eq!((&reset[12..18], reset.len()), (&[0x81, 0, 0x20, 0x63, 8, 0][..], 58));
    // The client's own reset ends the flow as well.
    rig.swap(vec![web(false, Protocol::Tcp, Method::Dr, &[1, 3])]);
    open(&mut rig, false, Protocol::Tcp);
    rig.swap(vec![web(false, Protocol::Tcp, Method::Dr, &[1])]);
    assert_eq!(rig.drops(say(false, Protocol::Tcp, R, b"")), Some(DropReason::ServerGone));
    assert_eq!(flows(&rig), 0);
}

#[test]
fn a_new_connection_on_a_dead_servers_flow_begins_anew() {
    for method in METHODS {
        let mut rig = rig(vec![web(false, Protocol::Tcp, method, &[1, 2])]);
        open(&mut rig, false, Protocol::Tcp);
        rig.swap(vec![web(false, Protocol::Tcp, method, &[1])]);
        let outcome = rig.one(say(false, Protocol::Tcp, S, b""));
        assert!(outcome.new_flow && outcome.verdict == Verdict::Tx(0), "{outcome:?}");
        assert_eq!(mac_of(&rig.sent()), 1);
    }
}

#[test]
fn a_server_that_is_down_or_has_drained_loses_its_flows_as_configured() {
    let config = |fate, down: bool| {
        let mut service = web(false, Protocol::Tcp, Method::Dr, &[1, 2]);
        (service.fates.down, service.fates.drained) = (fate, fate);
        if !down {
            service.servers[1].drain = true;
            service.drain_deadline = Some(20);
        }
        service
    };
    for (down, fate) in
        [true, false].into_iter().flat_map(|down| [Fate::Keep, Fate::Reschedule, Fate::Reset].map(|fate| (down, fate)))
    {
        let mut rig = rig(vec![web(false, Protocol::Tcp, Method::Dr, &[1, 2])]);
        open(&mut rig, false, Protocol::Tcp);
        for now in [100, 125] {
            let is_down = |address| down && address == server_address(address, 2);
            let compiled = rig.registry.compile_at(
                &desired(vec![config(fate, down)]),
                ports(),
                std::time::Duration::from_secs(now),
                |_, server| crate::control::compile::Whereabouts {
                    hop: hop(server.address).filter(|_| !is_down(server.address)),
                    ..Default::default()
                },
            );
            rig.snapshot = compiled.expect("compiles").snapshot;
            if now == 100 && !down {
                // It drains: what it has goes on.
                assert!(!rig.one(say(false, Protocol::Tcp, A, b"data")).new_flow);
                assert_eq!(mac_of(&rig.sent()), 2);
            }
        }
        let outcome = rig.one(say(false, Protocol::Tcp, A, b"data"));
        match (fate, down) {
            (Fate::Keep, true) => assert_eq!(outcome.verdict, Verdict::Drop(DropReason::NoNextHop)),
            (Fate::Keep, false) => assert_eq!((outcome.new_flow, mac_of(&rig.sent())), (false, 2)),
            (Fate::Reschedule, _) => assert_eq!((outcome.new_flow, mac_of(&rig.sent())), (true, 1)),
            (Fate::Reset, _) => {
                assert_eq!(outcome.verdict, Verdict::Reply(0));
                assert_eq!(answered(&rig.sent(), false), "tcp 0x04");
            }
        }
    }
}

/// The last port of a client is used again right away, whatever ended the connection before: no packet of the new one is
/// lost, and it may have another server.
#[test]
fn a_syn_on_a_closing_flow_begins_anew_at_once() {
    let (client, vip) = ends(false);
    for method in METHODS {
        for ending in ["client's FIN", "server's FIN", "client's RST", "server's RST", "client's FIN, unproven"] {
            let nat = method.is_nat();
            if !nat && ending.starts_with("server") {
                // Its half does not pass by.
                continue;
            }
            let mut rig = rig(vec![web(false, Protocol::Tcp, method, &[1, 2])]);
            rig.one(say(false, Protocol::Tcp, S, b""));
            let first = rig.sent();
            let parsed = crate::dataplane::parse::parse(&first).expect("sound");
            let port = be16(&first, usize::from(parsed.l4)).expect("a port");
            // The server answers to whom it was asked by.
            let asked_by =
                if method == Method::FullNat { SocketAddr::new(server_address(vip.ip(), 200), port) } else { client };
            let server = SocketAddr::new(server_address(vip.ip(), mac_of(&first)), 80);
            let mut mac = SERVER_MAC;
            mac[5] = mac_of(&first);
            let from_server = |rig: &mut Rig, flags| {
                if nat {
                    rig.one(packet(mac, server, asked_by, Protocol::Tcp, flags, b""));
                    rig.io.sent(0);
                }
            };
            from_server(&mut rig, S | A);
            if !ending.ends_with("unproven") {
                rig.one(say(false, Protocol::Tcp, A, b""));
                rig.one(say(false, Protocol::Tcp, A, b"GET"));
            }
            let from_client = |rig: &mut Rig, flags| {
                rig.one(say(false, Protocol::Tcp, flags, b""));
                rig.io.sent(0);
            };
            match ending {
                "client's RST" => from_client(&mut rig, R),
                "server's RST" => from_server(&mut rig, R),
                "server's FIN" => {
                    from_server(&mut rig, F | A);
                    from_client(&mut rig, F | A);
                    from_server(&mut rig, A);
                }
                _ => {
                    from_client(&mut rig, F | A);
                    from_server(&mut rig, F | A);
                    from_client(&mut rig, A);
                }
            }
            rig.now += 1;
            let again = rig.one(say(false, Protocol::Tcp, S, b""));
            assert!(again.new_flow && again.verdict == Verdict::Tx(0), "{method:?} {ending}: {again:?}");
            // Round robin: the other one's turn.
            assert_ne!(mac_of(&rig.sent()), mac_of(&first), "{method:?} {ending}");
            assert_eq!(flows(&rig), if nat { 2 } else { 1 });
            assert_eq!(rig.counts(0).iter().map(|count| count.0 + count.1).sum::<u32>(), 1);
        }
    }
}

/// `golden/persist/timeouts_6_4_3`: `ipvsadm --set 6 4 3`. A flow is there until its time, and not after it.
#[test]
fn flows_live_as_long_as_ipvs_lets_them() {
    let timeouts = Timeouts { tcp_established: 6, tcp_fin_wait: 4, udp: 3, ..Timeouts::default() };
    let services = || {
        let mut services = vec![
            web(false, Protocol::Tcp, Method::Dr, &[1, 2]),
            service(IpAddr::from(VIP), Protocol::Udp, PortRange::single(5000), &[(1, 1)]),
            // Another service has its own.
            service(IpAddr::from(VIP), Protocol::Udp, PortRange::single(5001), &[(1, 1)]),
        ];
        services[..2].iter_mut().for_each(|service| service.timeouts = timeouts);
        services
    };
    let mut rig = rig(services());
    for flags in [S, A] {
        rig.one(tcp(20_503, 80, flags, b""));
    }
    for flags in [S, A, F | A, A] {
        rig.one(tcp(20_504, 80, flags, b""));
    }
    rig.one(udp(CLIENT, 5000));
    rig.one(udp(CLIENT, 5001));
    let names = |rig: &Rig| {
        let mut names = Vec::new();
        rig.pipeline.tables().0.for_each(|entry| names.push(crate::dataplane::flow::Entry::state(entry).name()));
        names.sort_unstable();
        names
    };
    let start = rig.now;
    for (seconds, left) in [
        (2, vec!["ESTABLISHED", "FIN_WAIT", "UDP", "UDP"]),
        (4, vec!["ESTABLISHED", "FIN_WAIT", "UDP"]),
        (5, vec!["ESTABLISHED", "UDP"]),
        (7, vec!["UDP"]),
    ] {
        // As long as the timeout, and the time by which stamps may be late.
        rig.now = start + seconds * 1000 - 500;
        rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
        assert_eq!(names(&rig), left, "after {seconds} s");
    }
    rig.now = start + 301_000;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert!(names(&rig).is_empty());
    // A change of timeouts holds for flows that are there.
    rig.one(udp(CLIENT, 5001));
    let mut shorter = services();
    shorter[2].timeouts.udp = 1;
    rig.swap(shorter);
    rig.now += 1500;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert!(names(&rig).is_empty());
}
