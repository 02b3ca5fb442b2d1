//! NAT and full NAT through the pipeline: both directions, every protocol, what is remembered and what is given back.

use std::net::SocketAddr;

use super::*;
use crate::dataplane::parse::{self, Kind};

pub(super) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

pub(super) fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// A packet between two ends; `flags` for TCP, the kind of the first chunk for SCTP.
pub(super) fn packet(
    mac: [u8; 6],
    from: SocketAddr,
    to: SocketAddr,
    protocol: Protocol,
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(mac, OWN.0);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => ethernet.ipv4(a.octets(), b.octets(), 64),
        (IpAddr::V6(a), IpAddr::V6(b)) => ethernet.ipv6(a.octets(), b.octets(), 64),
        _ => panic!("two families"),
    };
    let mut out = Vec::new();
    match protocol {
        Protocol::Tcp => {
            let mut tcp = ip.tcp(from.port(), to.port(), 1, 9000);
            tcp = if flags & S != 0 { tcp.syn() } else { tcp };
            tcp = if flags & A != 0 { tcp.ack(7) } else { tcp };
            tcp = if flags & F != 0 { tcp.fin() } else { tcp };
            tcp = if flags & R != 0 { tcp.rst() } else { tcp };
            tcp.write(&mut out, data).expect("builds");
        }
        Protocol::Udp => ip.udp(from.port(), to.port()).write(&mut out, data).expect("builds"),
        Protocol::Sctp => {
            let mut segment = from.port().to_be_bytes().to_vec();
            segment.extend_from_slice(&to.port().to_be_bytes());
            segment.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, flags, 0, 0, 4]);
            segment.extend_from_slice(data);
            let check = checksum::sctp(&segment).expect("long enough");
            segment[8..12].copy_from_slice(&check);
            ip.write(&mut out, etherparse::IpNumber::SCTP, &segment).expect("builds");
        }
    }
    out
}

/// Source and destination of a sent frame, whose checksums must all be right and whose TTL one less.
pub(super) fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let parsed = parse::parse(frame).expect("a sound frame");
    parse::verify_transport(frame, &parsed).expect("a right checksum");
    assert_eq!(crate::dataplane::rewrite::ttl(frame, &parsed), 63);
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let port = |at: usize| parse::be16(frame, l4 + at).expect("ports");
    let (a, b): (IpAddr, IpAddr) = match parsed.kind {
        Kind::Flow4 => {
            let part = |at: usize| <[u8; 4]>::try_from(&frame[l3 + at..l3 + at + 4]).expect("four").into();
            (part(12), part(16))
        }
        _ => {
            let part = |at: usize| <[u8; 16]>::try_from(&frame[l3 + at..l3 + at + 16]).expect("sixteen").into();
            (part(8), part(24))
        }
    };
    (SocketAddr::new(a, port(0)), SocketAddr::new(b, port(2)))
}

fn nat_service(address: &str, protocol: Protocol, server: &str, port: Option<u16>) -> Service {
    let at = at(address);
    let key = ServiceKey { address: at.ip(), protocol, ports: PortRange::single(at.port()) };
    let address = server.parse().expect("an address");
    let server = Server::new(address, port, 1, Method::Nat);
    Service { method: Method::Nat, ..Service::dr(address_name(key), key, Scheduler::RR, vec![server]) }
}

fn address_name(key: ServiceKey) -> &'static str {
    match key.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn settings() -> EngineSettings {
    EngineSettings { flows: 1000, flows_ipv6: 1000, ..EngineSettings::default() }
}

#[test]
fn both_directions_of_every_protocol_and_family() {
    for protocol in Protocol::ALL {
        for (client, vip, server) in [
            ("198.51.100.7:40000", "192.0.2.10:80", "10.0.0.1"),
            ("[2001:db8:1::7]:40000", "[2001:db8::10]:80", "fd00::1"),
        ] {
            for port in [None, Some(8080)] {
                let mut rig = Rig::with(settings(), vec![nat_service(vip, protocol, server, port)]);
                let (client, vip) = (at(client), at(vip));
                let server = SocketAddr::new(server.parse().expect("address"), port.unwrap_or(80));
                let first = rig.one(packet(
                    CLIENT_MAC,
                    client,
                    vip,
                    protocol,
                    if protocol == Protocol::Tcp { S } else { 1 },
                    b"hello",
                ));
                assert!(first.new_flow && first.verdict == Verdict::Tx(0), "{protocol} {port:?}: {first:?}");
                let sent = rig.sent();
                assert_eq!(ends(&sent), (client, server));
                assert_eq!((&sent[..6], &sent[6..12]), (&SERVER_MAC[..], &OWN.0[..]));
                let answer = packet(
                    SERVER_MAC,
                    server,
                    client,
                    protocol,
                    if protocol == Protocol::Tcp { S | A } else { 2 },
                    b"hi",
                );
                let back = rig.one(answer);
                assert_eq!((back.verdict, back.new_flow), (Verdict::Tx(0), false), "{protocol} {port:?}");
                let sent = rig.sent();
                assert_eq!(ends(&sent), (vip, client));
                assert_eq!((&sent[..6], &sent[6..12]), (&CLIENT_MAC[..], &OWN.0[..]));
                // And on the short way too, many times.
                for data in [&b"x"[..], b"", b"odd", b"even"] {
                    rig.one(packet(
                        CLIENT_MAC,
                        client,
                        vip,
                        protocol,
                        if protocol == Protocol::Tcp { A } else { 0 },
                        data,
                    ));
                    assert_eq!(ends(&rig.sent()), (client, server));
                    rig.one(packet(
                        SERVER_MAC,
                        server,
                        client,
                        protocol,
                        if protocol == Protocol::Tcp { A } else { 0 },
                        data,
                    ));
                    assert_eq!(ends(&rig.sent()), (vip, client));
                }
                let counters = &rig.pipeline.stats().servers[0];
                assert_eq!((counters.packets.get(), counters.out_packets.get(), counters.connections.get()), (5, 5, 1));
            }
        }
    }
}

#[test]
fn udp_without_a_checksum_stays_so() {
    let service = nat_service("192.0.2.10:53", Protocol::Udp, "10.0.0.1", Some(5353));
    let mut rig = Rig::with(settings(), vec![service]);
    let mut query = packet(CLIENT_MAC, at("198.51.100.7:4000"), at("192.0.2.10:53"), Protocol::Udp, 0, b"q");
    query[40..42].fill(0);
    rig.one(query);
    let sent = rig.sent();
    assert_eq!((ends(&sent).1, &sent[40..42]), (at("10.0.0.1:5353"), &[0, 0][..]));
}

#[test]
fn a_connection_counts_and_ends_as_both_halves_say() {
    let vip = at("192.0.2.10:80");
    let mut rig = Rig::with(settings(), vec![nat_service("192.0.2.10:80", Protocol::Tcp, "10.0.0.1", None)]);
    let (client, server) = (at("198.51.100.7:40000"), at("10.0.0.1:80"));
    let steps = [
        (true, S, (0, 1), "SYN_RECV"),
        (false, S | A, (0, 1), "SYN_RECV"),
        (true, A, (1, 0), "ESTABLISHED"),
        (false, F | A, (0, 1), "FIN_WAIT"),
        (true, F | A, (0, 1), "TIME_WAIT"),
        (false, A, (0, 1), "TIME_WAIT"),
    ];
    for (up, flags, counts, state) in steps {
        let frame = if up {
            packet(CLIENT_MAC, client, vip, Protocol::Tcp, flags, b"")
        } else {
            packet(SERVER_MAC, server, client, Protocol::Tcp, flags, b"")
        };
        assert_eq!(rig.one(frame).verdict, Verdict::Tx(0));
        assert_eq!(rig.counts(0), [counts], "after {state}");
        let mut states = Vec::new();
        rig.pipeline.tables().0.for_each(|e| states.push(crate::dataplane::flow::Entry::state(e).name()));
        assert_eq!(states, [state, state]);
    }
    // TIME_WAIT lasts 120 s from the last packet of either side.
    rig.now += 100_000;
    rig.one(packet(SERVER_MAC, server, client, Protocol::Tcp, A, b""));
    rig.now += 100_000;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert_eq!(rig.counts(0), [(0, 1)]);
    rig.now += 21_000;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert_eq!((rig.counts(0), rig.pipeline.tables().0.len()), (vec![(0, 0)], 0));
    assert_eq!(rig.pipeline.kit.hops.flows(), 0);
    assert_eq!(rig.pipeline.stats().expired.get(), 1);
}

#[test]
fn what_answers_no_flow_is_the_kernels() {
    let mut rig = Rig::with(settings(), vec![nat_service("192.0.2.10:80", Protocol::Tcp, "10.0.0.1", None)]);
    let stray = packet(SERVER_MAC, at("10.0.0.1:80"), at("198.51.100.7:40000"), Protocol::Tcp, A, b"direct");
    assert_eq!(rig.one(stray.clone()).verdict, Verdict::Pass);
    assert_eq!(rig.io.passed(), [stray]);
    assert_eq!(rig.pipeline.stats().unmatched.get(), 1);
}

#[test]
fn answers_follow_the_client_to_its_new_neighbour() {
    let vip = at("192.0.2.10:53");
    let mut rig = Rig::with(settings(), vec![nat_service("192.0.2.10:53", Protocol::Udp, "10.0.0.1", None)]);
    let (client, server) = (at("198.51.100.7:40000"), at("10.0.0.1:53"));
    rig.one(packet(CLIENT_MAC, client, vip, Protocol::Udp, 0, b"q"));
    rig.sent();
    rig.one(packet(SERVER_MAC, server, client, Protocol::Udp, 0, b"a"));
    assert_eq!(rig.sent()[..6], CLIENT_MAC);
    // The other router of the pair took over; the tagged network and the second interface are followed too.
    rig.now += 5_000;
    let other = [2, 0, 0, 0, 0, 0xd];
    rig.one(packet(other, client, vip, Protocol::Udp, 0, b"q"));
    rig.sent();
    rig.one(packet(SERVER_MAC, server, client, Protocol::Udp, 0, b"a"));
    assert_eq!(rig.sent()[..6], other);
    rig.now += 5_000;
    rig.one(tagged(packet(other, client, vip, Protocol::Udp, 0, b"q"), 9));
    rig.sent();
    rig.one(packet(SERVER_MAC, server, client, Protocol::Udp, 0, b"a"));
    assert_eq!(rig.sent()[12..16], [0x81, 0, 0, 9]);
    assert_eq!(rig.pipeline.kit.hops.flows(), 1);
}

#[test]
fn two_services_of_one_server_do_not_mix_their_clients() {
    let services = vec![
        nat_service("192.0.2.10:80", Protocol::Tcp, "10.0.0.1", None),
        nat_service("192.0.2.11:80", Protocol::Tcp, "10.0.0.1", None),
    ];
    let mut rig = Rig::with(settings(), services);
    let client = at("198.51.100.7:40000");
    rig.one(packet(CLIENT_MAC, client, at("192.0.2.10:80"), Protocol::Tcp, S, b""));
    // Only half open: the new one takes its place.
    assert!(rig.one(packet(CLIENT_MAC, client, at("192.0.2.11:80"), Protocol::Tcp, S, b"")).new_flow);
    rig.one(packet(CLIENT_MAC, client, at("192.0.2.11:80"), Protocol::Tcp, A, b""));
    rig.io.sent(0);
    rig.one(packet(SERVER_MAC, at("10.0.0.1:80"), client, Protocol::Tcp, A, b""));
    assert_eq!(ends(&rig.sent()).0, at("192.0.2.11:80"));
    // Established: the other is refused by name.
    let frame = packet(CLIENT_MAC, client, at("192.0.2.10:80"), Protocol::Tcp, S, b"");
    assert_eq!(rig.drops(frame), Some(DropReason::TupleTaken));
    assert_eq!((rig.pipeline.tables().0.len(), rig.pipeline.kit.hops.flows()), (2, 1));
}

/// An ICMP error from `from` to `to` about `about` (a frame), code `code` of type `kind`.
pub(super) fn icmp_error(mac: [u8; 6], from: IpAddr, to: IpAddr, kind: u8, about: &[u8], quoted: usize) -> Vec<u8> {
    let mut message = vec![kind, if kind == 3 { 3 } else { 4 }, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&about[14..(14 + quoted).min(about.len())]);
    let mut out = Vec::new();
    let ethernet = PacketBuilder::ethernet2(mac, OWN.0);
    let (l3, number) = match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (ethernet.ipv4(a.octets(), b.octets(), 64), etherparse::IpNumber::ICMP),
        (IpAddr::V6(a), IpAddr::V6(b)) => (ethernet.ipv6(a.octets(), b.octets(), 64), etherparse::IpNumber::IPV6_ICMP),
        _ => panic!("two families"),
    };
    let pseudo = match (from, to) {
        (IpAddr::V6(a), IpAddr::V6(b)) => checksum::pseudo_header(&a.octets(), &b.octets(), 58, message.len() as u32),
        _ => 0,
    };
    let check = !checksum::fold(checksum::sum(&message, pseudo));
    message[2..4].copy_from_slice(&check.to_ne_bytes());
    l3.write(&mut out, number, &message).expect("builds");
    out
}

/// The packet that a sent ICMP error quotes, as a frame, and the error's own addresses. All checksums must be right.
pub(super) fn quoted(frame: &[u8]) -> (IpAddr, IpAddr, Vec<u8>) {
    let parsed = parse::parse(frame).expect("sound");
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let message = &frame[l4..l4 + usize::from(parsed.l4_len)];
    let mut inner = frame[..14].to_vec();
    inner.extend_from_slice(&message[8..]);
    if parsed.kind == Kind::Icmp4 {
        assert_eq!(checksum::fold(checksum::sum(message, 0)), 0xffff, "the ICMP checksum");
        assert_eq!(checksum::fold(checksum::sum(&message[8..28], 0)), 0xffff, "the inner header checksum");
        let part = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[l3 + at..l3 + at + 4]).expect("four"));
        (part(12), part(16), inner)
    } else {
        let (a, b) = (&frame[l3 + 8..l3 + 24], &frame[l3 + 24..l3 + 40]);
        let pseudo = checksum::pseudo_header(a, b, 58, message.len() as u32);
        assert_eq!(checksum::fold(checksum::sum(message, pseudo)), 0xffff, "the ICMPv6 checksum");
        let part = |bytes: &[u8]| IpAddr::from(<[u8; 16]>::try_from(bytes).expect("sixteen"));
        (part(a), part(b), inner)
    }
}

#[test]
fn icmp_errors_tell_each_side_of_the_packet_it_knows() {
    for (client, vip, server, router, kind) in [
        ("198.51.100.7:40000", "192.0.2.10:53", "10.0.0.1:5353", "203.0.113.1", 3),
        ("[2001:db8:1::7]:40000", "[2001:db8::10]:53", "[fd00::1]:5353", "2001:db8:9::1", 1),
    ] {
        for size in [70, 1200] {
            let service = nat_service(vip, Protocol::Udp, &at(server).ip().to_string(), Some(5353));
            let mut rig = Rig::with(settings(), vec![service]);
            let (client, vip, server) = (at(client), at(vip), at(server));
            let router: IpAddr = router.parse().expect("address");
            let question = packet(CLIENT_MAC, client, vip, Protocol::Udp, 0, b"question");
            rig.one(question.clone());
            let asked = rig.sent();
            rig.one(packet(SERVER_MAC, server, client, Protocol::Udp, 0, b"answer"));
            let answered = rig.sent();
            // The server says that nobody listens: the client learns it from the service address.
            let error = icmp_error(SERVER_MAC, server.ip(), client.ip(), kind, &asked, size);
            assert_eq!(rig.one(error).verdict, Verdict::Tx(0));
            let sent = rig.sent();
            assert_eq!(sent[..6], CLIENT_MAC);
            let (from, to, inner) = quoted(&sent);
            assert_eq!((from, to), (vip.ip(), client.ip()));
            // TTL apart (the quoted packet was forwarded), it is the client's own.
            assert_eq!(inner[inner.len() - 16..], question[question.len() - 16..]);
            // A router on the way to the client could not deliver the answer: the server learns it.
            let error = icmp_error(CLIENT_MAC, router, vip.ip(), kind, &answered, size);
            assert_eq!(rig.one(error).verdict, Verdict::Tx(0));
            let sent = rig.sent();
            assert_eq!(sent[..6], SERVER_MAC);
            let (from, to, inner) = quoted(&sent);
            assert_eq!((from, to), (router, server.ip()));
            assert!(inner.ends_with(b"answer"));
            // About nobody's packet: to the service address it is dropped by name, to a client it is the kernel's.
            let stranger = packet(SERVER_MAC, SocketAddr::new(vip.ip(), 999), client, Protocol::Udp, 0, b"x");
            let error = icmp_error(CLIENT_MAC, router, vip.ip(), kind, &stranger, size);
            assert_eq!(rig.drops(error), Some(DropReason::IcmpNoFlow));
            let error = icmp_error(SERVER_MAC, server.ip(), client.ip(), kind, &stranger, size);
            assert_eq!(rig.one(error).verdict, Verdict::Pass);
            // Cut off inside the quoted headers.
            let error = icmp_error(CLIENT_MAC, router, vip.ip(), kind, &answered, 22);
            assert_eq!(rig.drops(error), Some(DropReason::BadIcmp));
        }
    }
}
