//! Full NAT through the pipeline: local ports, their end and their return, and PROXY protocol.

use std::net::SocketAddr;

use super::translation::{SERVER_MAC, at, ends, icmp_error, packet, quoted};
use super::*;
use crate::control::compile::Whereabouts;

fn service(vip: &str, protocol: Protocol, server: &str, port: Option<u16>, locals: &[&str]) -> Service {
    let vip = at(vip);
    let key = ServiceKey { address: vip.ip(), protocol, ports: PortRange::single(vip.port()) };
    let server = Server::new(server.parse().expect("address"), port, 1, Method::FullNat);
    Service {
        method: Method::FullNat,
        local_addresses: locals.iter().map(|local| local.parse().expect("address")).collect(),
        ..Service::dr("full", key, Scheduler::RR, vec![server])
    }
}

fn settings(ports: PortRange) -> EngineSettings {
    let (unproven, unproven_ipv6) = (3000, 1000);
    EngineSettings {
        flows: 3000,
        flows_ipv6: 1000,
        unproven,
        unproven_ipv6,
        local_ports: ports,
        ..EngineSettings::default()
    }
}

#[test]
fn both_addresses_change_and_come_back() {
    for protocol in Protocol::ALL {
        for (client, vip, server, local) in [
            ("198.51.100.7:40000", "192.0.2.10:80", "10.0.0.1", "10.0.0.50"),
            ("[2001:db8:1::7]:40000", "[2001:db8::10]:80", "fd00::1", "fd00::50"),
        ] {
            let services = vec![service(vip, protocol, server, Some(8080), &[local])];
            let mut rig = Rig::with(settings(PortRange { first: 2000, last: 2009 }), services);
            let (client, vip) = (at(client), at(vip));
            let server = SocketAddr::new(server.parse().expect("address"), 8080);
            let open = if protocol == Protocol::Tcp { S } else { 1 };
            assert!(rig.one(packet(CLIENT_MAC, client, vip, protocol, open, b"hello")).new_flow);
            let asked = rig.sent();
            let (from, to) = ends(&asked);
            assert_eq!((from, to), (SocketAddr::new(local.parse().expect("address"), 2000), server));
            rig.one(packet(
                SERVER_MAC,
                server,
                from,
                protocol,
                if protocol == Protocol::Tcp { S | A } else { 2 },
                b"hi",
            ));
            let sent = rig.sent();
            assert_eq!((ends(&sent), &sent[..6]), ((vip, client), &CLIENT_MAC[..]));
            // And on the short way, with payloads of any length.
            for data in [&b""[..], b"x", b"ab", b"odd", b"even"] {
                let flags = if protocol == Protocol::Tcp { A } else { 0 };
                rig.one(packet(CLIENT_MAC, client, vip, protocol, flags, data));
                assert_eq!(ends(&rig.sent()), (from, server));
                rig.one(packet(SERVER_MAC, server, from, protocol, flags, data));
                let sent = rig.sent();
                assert_eq!((ends(&sent), &sent[..6]), ((vip, client), &CLIENT_MAC[..]));
            }
            // An error from the server about what it was asked.
            let kind = if vip.is_ipv4() { 3 } else { 1 };
            rig.one(icmp_error(SERVER_MAC, server.ip(), from.ip(), kind, &asked, 80));
            let (source, destination, inner) = quoted(&rig.sent());
            assert_eq!((source, destination), (vip.ip(), client.ip()));
            let header = if vip.is_ipv4() { 34 } else { 54 };
            assert_eq!(inner[header..header + 4], [client.port().to_be_bytes(), vip.port().to_be_bytes()].concat());
            // The next client gets the next port; who asks the local address without a flow gets nothing.
            let other = SocketAddr::new(client.ip(), 40_001);
            rig.one(packet(CLIENT_MAC, other, vip, protocol, open, b""));
            assert_eq!(ends(&rig.sent()).0.port(), 2001);
            let stray = packet(SERVER_MAC, server, SocketAddr::new(from.ip(), 2009), protocol, 0, b"");
            assert_eq!(rig.drops(stray), Some(DropReason::NoFlow));
            // The local address is the appliance's: it answers ARP for it.
            if let IpAddr::V4(local) = from.ip() {
                assert_eq!(rig.one(arp(1, [10, 0, 0, 1], local.octets())).verdict, Verdict::Reply(0));
            }
        }
    }
}

#[test]
fn ports_that_are_all_in_use_are_survived() {
    let locals = ["10.0.0.50", "10.0.0.51"];
    let services = vec![service("192.0.2.10:53", Protocol::Udp, "10.0.0.1", None, &locals)];
    let mut rig = Rig::with(settings(PortRange { first: 4000, last: 4009 }), services);
    let vip = at("192.0.2.10:53");
    let query =
        |n: u16| packet(CLIENT_MAC, SocketAddr::new([198, 51, 100, 7].into(), 1000 + n), vip, Protocol::Udp, 0, b"q");
    let mut used = std::collections::HashSet::new();
    for n in 0..20 {
        assert_eq!(rig.one(query(n)).verdict, Verdict::Tx(0));
        assert!(used.insert(ends(&rig.sent()).0), "given twice");
    }
    assert_eq!(rig.drops(query(20)), Some(DropReason::NoLocalPort));
    assert_eq!((rig.pipeline.tables().0.len(), rig.pipeline.kit.hops.flows()), (40, 20));
    // The flows that have one go on.
    assert_eq!(rig.one(query(3)).verdict, Verdict::Tx(0));
    rig.pipeline.sweep(&rig.snapshot, 0, rig.now);
    assert_eq!(rig.pipeline.stats().local_ports.get(), 20);
    rig.now += 301_000;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert_eq!(rig.pipeline.stats().local_ports.get(), 0);
    assert_eq!(rig.drops(query(21)), None);
}

#[test]
fn a_port_whose_flow_was_cut_off_rests() {
    let services = vec![service("192.0.2.10:80", Protocol::Tcp, "10.0.0.1", None, &["10.0.0.50"])];
    let mut rig = Rig::with(settings(PortRange::single(4000)), services.clone());
    let vip = at("192.0.2.10:80");
    let syn = |n: u16| packet(CLIENT_MAC, SocketAddr::new([198, 51, 100, 7].into(), n), vip, Protocol::Tcp, S, b"");
    assert_eq!(rig.drops(syn(1)), None);
    assert_eq!(rig.drops(syn(2)), Some(DropReason::NoLocalPort));
    // Half open for a minute, then forgotten: the server may still answer.
    rig.now += 61_000;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert_eq!(rig.drops(syn(2)), Some(DropReason::NoLocalPort));
    rig.now += 60_000;
    assert_eq!(rig.drops(syn(2)), None);
    // Another local address: its ports are free at once, and those of the old one are nobody's.
    let mut moved = services;
    moved[0].local_addresses = vec![IpAddr::from([10, 0, 0, 51])];
    rig.swap(moved);
    assert_eq!(rig.drops(syn(3)), None);
}

#[test]
fn flows_of_an_address_whose_place_another_takes_end() {
    let with = |locals: &[&str]| vec![service("192.0.2.10:80", Protocol::Tcp, "10.0.0.1", None, locals)];
    let engine = EngineSettings { local_addresses: 1, ..settings(PortRange { first: 4000, last: 4003 }) };
    let mut rig = Rig::with(engine.clone(), with(&["10.0.0.50"]));
    let vip = at("192.0.2.10:80");
    let client = |n: u16| SocketAddr::new([198, 51, 100, 7].into(), n);
    let of = |n: u16, flags: u8| packet(CLIENT_MAC, client(n), vip, Protocol::Tcp, flags, b"");
    for n in [1, 2] {
        assert_eq!((rig.drops(of(n, S)), rig.drops(of(n, A))), (None, None));
    }
    // Ten minutes without the address: its place is anyone's, though its flows go on.
    for (minutes, locals) in [(1, &[][..]), (6, &[]), (12, &["10.0.0.51"])] {
        rig.now = 1000 + minutes * 60_000;
        let desired = Desired { engine: engine.clone(), ..desired(with(locals)) };
        let at = |_: &Service, server: &Server| Whereabouts { hop: hop(server.address), ..Whereabouts::default() };
        let now = std::time::Duration::from_secs(60 * u64::from(minutes));
        rig.snapshot = rig.registry.compile_at(&desired, ports(), now, at).expect("compiles").snapshot;
        rig.io.sent(0);
        assert_eq!(rig.drops(of(1, A)), None);
        let from = ends(&rig.sent()).0;
        let kept = IpAddr::from([10, 0, 0, if minutes == 12 { 51 } else { 50 }]);
        assert_eq!(from.ip(), kept, "after {minutes} minutes");
    }
    assert_eq!(rig.counts(0), [(1, 1)], "one flow was picked up again, the other one waits for the sweep");
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert_eq!(rig.counts(0), [(0, 1)], "the flow that was picked up again; the other one is gone");
    let Holdings { last_hops, local_ports, .. } = rig.pipeline.holdings();
    assert_eq!((last_hops, local_ports), (1, 1));
}

/// A TCP segment of the client with a sequence number.
fn segment(flags: u8, sequence: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let tcp = PacketBuilder::ethernet2(CLIENT_MAC, OWN.0).ipv4(CLIENT, VIP, 64).tcp(40_000, 80, sequence, 9000);
    let tcp = if flags & S != 0 { tcp.syn() } else { tcp };
    let tcp = if flags & A != 0 { tcp.ack(7) } else { tcp };
    let tcp = if flags & F != 0 { tcp.fin() } else { tcp };
    tcp.write(&mut out, data).expect("builds");
    out
}

#[test]
fn the_clients_address_goes_ahead_of_its_stream() {
    let mut one = service("192.0.2.10:80", Protocol::Tcp, "10.0.0.1", None, &["10.0.0.50"]);
    one.proxy_protocol = true;
    let mut rig = Rig::with(settings(PortRange { first: 2000, last: 2009 }), vec![one]);
    let sequence = |frame: &[u8]| u32::from_be_bytes(frame[38..42].try_into().expect("four"));
    rig.one(segment(S, 1000, b""));
    let syn = rig.sent();
    assert_eq!((sequence(&syn), syn.len()), (1000, 54));
    let from = ends(&syn).0;
    let header =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &CLIENT, &VIP, &40_000u16.to_be_bytes(), &80u16.to_be_bytes()];
    let header = header.concat();
    rig.one(segment(A, 1001, b""));
    let ack = rig.sent();
    ends(&ack);
    assert_eq!((sequence(&ack), &ack[54..]), (1001, &header[..]));
    rig.one(segment(A, 1001, b"GET /"));
    let data = rig.sent();
    ends(&data);
    assert_eq!((sequence(&data), &data[54..]), (1001, &[&header[..], b"GET /"].concat()[..]));
    rig.one(segment(A, 1006, b" HTTP"));
    assert_eq!(sequence(&rig.sent()), 1006 + 28);
    // The server acknowledges all: the client hears of what it sent.
    let mut answer = Vec::new();
    PacketBuilder::ethernet2(SERVER_MAC, OWN.0)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 50], 64)
        .tcp(80, from.port(), 5000, 9000)
        .ack(1011 + 28)
        .write(&mut answer, b"200")
        .expect("builds");
    rig.one(answer);
    let sent = rig.sent();
    assert_eq!(ends(&sent).1, at("198.51.100.7:40000"));
    assert_eq!(sent[42..46], 1011u32.to_be_bytes());
    // From now on nothing is put in.
    rig.one(segment(A, 1011, b"more"));
    let data = rig.sent();
    assert_eq!((sequence(&data), &data[54..]), (1011 + 28, &b"more"[..]));
}

#[test]
fn a_connection_in_the_place_of_an_old_one_has_its_own_header() {
    let mut one = service("192.0.2.10:80", Protocol::Tcp, "10.0.0.1", None, &["10.0.0.50"]);
    one.proxy_protocol = true;
    let mut rig = Rig::with(settings(PortRange { first: 2000, last: 2009 }), vec![one]);
    for (isn, established) in [(1000u32, false), (9000, true), (5000, true)] {
        rig.one(segment(S, isn, b""));
        rig.sent();
        if established {
            rig.one(segment(A, isn + 1, b""));
            assert_eq!(rig.sent().len(), 54 + 28);
            rig.one(segment(A, isn + 1, b"x"));
            assert_eq!(rig.sent().len(), 54 + 28 + 1);
            // A SYN from elsewhere does not disturb it.
            rig.one(segment(S, 77, b""));
            rig.sent();
            rig.one(segment(A, isn + 2, b"y"));
            assert_eq!(rig.sent()[38..42], (isn + 2 + 28).to_be_bytes());
            // The client closes, then the server does: its port may come again.
            rig.one(segment(F | A, isn + 3, b""));
            let from = ends(&rig.sent()).0;
            rig.one(packet(SERVER_MAC, at("10.0.0.1:80"), from, Protocol::Tcp, F | A, b""));
            rig.sent();
        }
    }
    assert_eq!(rig.pipeline.tables().0.len(), 2);
}

#[test]
fn a_full_segment_that_the_header_makes_too_large_is_reported() {
    let mut one = service("192.0.2.10:80", Protocol::Tcp, "10.0.0.1", None, &["10.0.0.50"]);
    one.proxy_protocol = true;
    let mut rig = Rig::with(settings(PortRange { first: 2000, last: 2009 }), vec![one]);
    rig.one(segment(S, 1000, b""));
    rig.sent();
    assert_eq!(rig.one(with_df(segment(A, 1001, &[1; 1460]), true)).verdict, Verdict::Reply(0));
    let error = rig.sent();
    assert_eq!((&error[34..36], &error[40..42]), (&[3, 4][..], &1472u16.to_be_bytes()[..]));
    rig.one(segment(A, 1001, &[1; 1432]));
    assert_eq!(rig.sent().len(), 1514);
}

fn random_packet(choice: (u8, u16, u8, bool), locals: &[IpAddr]) -> Vec<u8> {
    let (kind, port, flags, up) = choice;
    let protocol = Protocol::ALL[usize::from(kind % 3)];
    let client = SocketAddr::new([198, 51, 100, 7].into(), 1000 + port % 50);
    let vip = SocketAddr::new(IpAddr::from(VIP), 80);
    let flags = if protocol == Protocol::Tcp { flags & 0x17 } else { flags % 15 };
    if up {
        packet(CLIENT_MAC, client, vip, protocol, flags, b"data")
    } else {
        let local = SocketAddr::new(locals[usize::from(port) % locals.len()], 2000 + port % 40);
        packet(SERVER_MAC, at("10.0.0.1:80"), local, protocol, flags, b"answer")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes from either side, at whatever times: every port in use belongs to one flow, every last hop too,
    /// loads agree with the table, and in the end all is given back.
    #[test]
    fn possessions_agree_with_the_flows(
        steps in proptest::collection::vec((any::<(u8, u16, u8, bool)>(), 0u32..40_000), 1..200),
    ) {
        let locals = ["10.0.0.50", "10.0.0.51"];
        let services = Protocol::ALL.map(|protocol| {
            let mut one = service("192.0.2.10:80", protocol, "10.0.0.1", None, &locals);
            one.proxy_protocol = protocol == Protocol::Tcp;
            one
        });
        let mut rig = Rig::with(settings(PortRange { first: 2000, last: 2019 }), services.to_vec());
        let addresses = locals.map(|local| local.parse().expect("address"));
        for (choice, pause) in steps {
            rig.run(&[random_packet(choice, &addresses)]);
            rig.now += pause;
            rig.pipeline.sweep(&rig.snapshot, 1 << 20, rig.now);
            let pairs = rig.pipeline.tables().0.len() as u64 / 2;
            prop_assert_eq!(rig.pipeline.stats().local_ports.get(), pairs);
            prop_assert_eq!(rig.pipeline.kit.hops.flows(), pairs);
            let mut ends = std::collections::HashSet::new();
            let mut twice = false;
            rig.pipeline.tables().0.for_each(|entry| {
                use crate::dataplane::flow::{Entry, flag};
                if entry.flags() & flag::REVERSE != 0 {
                    let key = entry.key();
                    twice |= !ends.insert((FlowV4::destination(&key), FlowV4::ports(&key).1));
                }
            });
            prop_assert!(!twice, "a port was given twice");
            let counted: u32 = (0..3).flat_map(|s| rig.counts(s)).map(|(a, i)| a + i).sum();
            prop_assert_eq!(u64::from(counted), pairs);
        }
        rig.now += 2_000_000;
        rig.pipeline.sweep(&rig.snapshot, 1 << 20, rig.now);
        prop_assert_eq!((rig.pipeline.kit.hops.flows(), rig.pipeline.stats().local_ports.get()), (0, 0));
    }
}
