//! Tunnels through the pipeline: what routers tell of their paths, who is believed, and what does not fit in pieces.

use std::net::SocketAddr;

use super::translation::{at, packet};
use super::*;
use crate::dataplane::path_mtu::HOLDS_MS;

const HERE4: &str = "10.0.0.254";
const HERE6: &str = "fd00::fe";
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn service(vip: &str, server: &str, method: Method) -> Service {
    let vip = at(vip);
    let key = ServiceKey { address: vip.ip(), protocol: Protocol::Tcp, ports: PortRange::single(vip.port()) };
    let server = Server::new(address(server), None, 1, method);
    let tunnel = TunnelSettings {
        source_v4: Some(HERE4.parse().expect("IPv4")),
        source_v6: Some(HERE6.parse().expect("IPv6")),
        source_spread_bits: if method == Method::Gue { 0 } else { 1 },
        ..TunnelSettings::default()
    };
    Service { method, tunnel, ..Service::dr("tunnel", key, Scheduler::RR, vec![server]) }
}

fn rig(services: Vec<Service>) -> Rig {
    Rig::with(EngineSettings { flows: 1000, flows_ipv6: 1000, ..EngineSettings::default() }, services)
}

/// A client's segment whose IP packet has `length` bytes, with DF.
fn segment(vip: SocketAddr, port: u16, flags: u8, length: usize) -> Vec<u8> {
    let (client, header) = if vip.is_ipv4() { (IpAddr::from(CLIENT), 40) } else { (IpAddr::from(CLIENT6), 60) };
    let data: Vec<u8> = (0..length - header).map(|n| n as u8).collect();
    let frame = packet(CLIENT_MAC, SocketAddr::new(client, port), vip, Protocol::Tcp, flags, &data);
    if vip.is_ipv4() { with_df(frame, true) } else { frame }
}

/// "Fragmentation needed" or "packet too big" about a frame that was sent, as a router sends it.
fn too_large(about: &[u8], mtu: u32, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let v6 = about[12..14] == [0x86, 0xdd];
    let ip = &about[14..];
    let mut message = if v6 { vec![2, 0, 0, 0] } else { vec![3, 4, 0, 0] };
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(&ip[..if v6 { 600 } else { 28 }.min(ip.len())]);
    change(&mut message);
    let mut out = Vec::new();
    let ethernet = PacketBuilder::ethernet2(ROUTER_MAC, OWN.0);
    if v6 {
        let router = address("fd00::1:1");
        let IpAddr::V6(router) = router else { panic!("IPv6") };
        let to: [u8; 16] = ip[8..24].try_into().expect("sixteen");
        let pseudo = checksum::pseudo_header(&router.octets(), &to, 58, message.len() as u32);
        let check = !checksum::fold(checksum::sum(&message, pseudo));
        message[2..4].copy_from_slice(&check.to_ne_bytes());
        let ip = ethernet.ipv6(router.octets(), to, 64);
        ip.write(&mut out, etherparse::IpNumber::IPV6_ICMP, &message).expect("builds");
    } else {
        let to: [u8; 4] = ip[12..16].try_into().expect("four");
        let check = checksum::checksum(&message);
        message[2..4].copy_from_slice(&check.to_ne_bytes());
        let ip = ethernet.ipv4([203, 0, 113, 1], to, 64);
        ip.write(&mut out, etherparse::IpNumber::ICMP, &message).expect("builds");
    }
    out
}

/// The MTU that a client is told, in an error from the service address.
fn told(sent: &[u8], vip: IpAddr) -> u32 {
    match vip {
        IpAddr::V4(vip) => {
            assert_eq!((&sent[26..30], &sent[34..36]), (&vip.octets()[..], &[3, 4][..]));
            u32::from(u16::from_be_bytes([sent[40], sent[41]]))
        }
        IpAddr::V6(vip) => {
            assert_eq!((&sent[22..38], sent[54]), (&vip.octets()[..], 2));
            u32::from_be_bytes([sent[58], sent[59], sent[60], sent[61]])
        }
    }
}

/// Every method, inner and outer family: vip, server, method, bytes of the outer header.
fn all() -> Vec<(&'static str, &'static str, Method, usize)> {
    let mut all = Vec::new();
    for (method, behind_ip) in [(Method::Ipip, 0), (Method::Gue, 12), (Method::Gre, 4)] {
        for vip in ["192.0.2.10:80", "[2001:db8::10]:80"] {
            for (server, ip) in [("10.0.0.1", 20), ("fd00::1", 40)] {
                all.push((vip, server, method, ip + behind_ip));
            }
        }
    }
    all
}

fn known(rig: &Rig) -> Option<u32> {
    let (_, tunnel) =
        ["10.0.0.1", "fd00::1"].iter().find_map(|server| rig.snapshot.tunnels_to(address(server)).next())?;
    tunnel.path().get(rig.now)
}

#[test]
fn a_smaller_path_is_learned_told_and_forgotten() {
    for (vip, server, method, overhead) in all() {
        let what = format!("{vip} {server} {method:?}");
        let mut rig = rig(vec![service(vip, server, method)]);
        let vip = at(vip);
        rig.one(segment(vip, 1, S, 100));
        rig.sent();
        let large = || segment(vip, 1, A, 1500 - overhead);
        assert_eq!(rig.one(large()).verdict, Verdict::Tx(0), "{what}");
        let outer = rig.sent();
        assert_eq!(outer.len(), 1514, "{what}");
        // The router's error goes on to the kernel.
        let error = too_large(&outer, 1400, |_| {});
        assert_eq!(rig.one(error.clone()).verdict, Verdict::Pass, "{what}");
        assert_eq!((rig.io.passed(), known(&rig)), (vec![error], Some(1400)), "{what}");
        // From now on the client is told, for this flow and for new ones; what fits goes.
        for frame in [large(), segment(vip, 2, A, 1401 - overhead), tagged(large(), 9)] {
            assert_eq!(rig.one(frame).verdict, Verdict::Reply(0), "{what}");
            let sent = rig.sent();
            let sent = if sent[12] == 0x81 { [&sent[..12], &sent[16..]].concat() } else { sent };
            assert_eq!(told(&sent, vip.ip()), 1400 - overhead as u32, "{what}");
        }
        assert_eq!(rig.one(segment(vip, 1, A, 1400 - overhead)).verdict, Verdict::Tx(0), "{what}");
        assert_eq!(rig.sent().len(), 1414);
        // After ten minutes a larger one is tried again.
        rig.now += HOLDS_MS;
        assert_eq!(rig.one(large()).verdict, Verdict::Tx(0), "{what}");
        assert_eq!((rig.sent().len(), known(&rig)), (1514, None), "{what}");
    }
}

#[test]
fn one_address_has_one_path_whatever_the_service_and_the_snapshot() {
    let services = vec![
        service("192.0.2.10:80", "10.0.0.1", Method::Ipip),
        service("192.0.2.10:81", "10.0.0.1", Method::Gue),
        service("192.0.2.10:82", "10.0.0.2", Method::Ipip),
    ];
    let mut rig = rig(services.clone());
    rig.one(segment(at("192.0.2.10:80"), 1, A, 1480));
    let error = too_large(&rig.sent(), 1400, |_| {});
    rig.one(error);
    rig.swap([&services[..], &[service("192.0.2.10:83", "10.0.0.1", Method::Gre)]].concat());
    for (port, overhead) in [(80, 20), (81, 32), (83, 24)] {
        let vip = SocketAddr::new(VIP.into(), port);
        assert_eq!(rig.one(segment(vip, 1, A, 1401 - overhead)).verdict, Verdict::Reply(0), "{port}");
        assert_eq!(told(&rig.sent(), vip.ip()), 1400 - overhead as u32);
    }
    // Another server has a path of its own.
    assert_eq!(rig.one(segment(at("192.0.2.10:82"), 1, A, 1480)).verdict, Verdict::Tx(0));
    // Who has no tunnel any more is forgotten.
    rig.swap(vec![services[2].clone()]);
    rig.swap(services);
    assert_eq!(rig.snapshot.tunnels_to(address("10.0.0.1")).count(), 2);
    assert_eq!(known(&rig), None);
}

#[test]
fn forged_errors_teach_nothing() {
    for (vip, server, method, overhead) in all() {
        let mut rig = rig(vec![service(vip, server, method)]);
        rig.one(segment(at(vip), 1, A, 1500 - overhead));
        let outer = rig.sent();
        let v6 = server.contains(':');
        let (least, source) = if v6 { (1280, 8) } else { (576, 12) };
        let (protocol, destination, behind) = if v6 { (6, 24, 40) } else { (9, 16, 20) };
        // Numbers that cannot be: counted.
        for mtu in [0, 68, least - 1, 1500, 9000] {
            assert_eq!(rig.drops(too_large(&outer, mtu, |_| {})), Some(DropReason::BadIcmp), "{mtu}");
        }
        // About something else: the kernel's, if it wants it. Places are those within the message.
        let mut wrong = vec![(8 + source, 1), (8 + destination, 1), (8 + protocol, 0x80), (0, 1)];
        if method == Method::Gue {
            wrong.push((8 + behind + 2, 1));
        }
        for (place, bits) in wrong {
            let error = too_large(&outer, 1400, |message| message[place] ^= bits);
            assert_eq!(rig.one(error).verdict, Verdict::Pass, "{place}");
        }
        // To another host, with a wrong checksum, for another MAC, cut short.
        let good = too_large(&outer, 1400, |_| {});
        let (to, sum) = if v6 { (38, 56) } else { (30, 36) };
        for place in [to + 1, sum, 5] {
            let mut error = good.clone();
            error[place] ^= 1;
            if !v6 {
                error = with_df(error, false);
            }
            assert_eq!(rig.one(error).verdict, Verdict::Pass, "{place}");
        }
        for length in 0..behind {
            let error = too_large(&outer, 1400, |message| message.truncate(8 + length));
            assert_eq!(rig.one(error).verdict, Verdict::Pass, "{length}");
        }
        assert_eq!(known(&rig), None);
        // The same source but for the bits that vary is the tunnel's.
        let mut varied = outer.clone();
        varied[14 + if v6 { 23 } else { 15 }] ^= u8::from(method != Method::Gue);
        assert_eq!(rig.one(too_large(&varied, 1400, |_| {})).verdict, Verdict::Pass);
        assert_eq!(known(&rig), Some(1400));
        // What is larger is no news.
        rig.one(too_large(&outer, 1450, |_| {}));
        assert_eq!(known(&rig), Some(1400));
    }
}

/// The source of a tunnel may be an address of the engine's own: then errors about clients' flows come to it as well.
#[test]
fn a_tunnel_from_the_service_address_learns_too() {
    let mut services = vec![service("192.0.2.10:80", "10.0.0.1", Method::Ipip)];
    services[0].tunnel = TunnelSettings { source_v4: Some(VIP.into()), ..TunnelSettings::default() };
    let mut rig = rig(services);
    rig.one(segment(at("192.0.2.10:80"), 500, A, 1480));
    let outer = rig.sent();
    let mut spoiled = too_large(&outer, 1400, |_| {});
    spoiled[36] ^= 1;
    assert_eq!(rig.drops(spoiled), Some(DropReason::BadIcmp));
    assert_eq!(known(&rig), None);
    assert_eq!(rig.one(too_large(&outer, 1400, |_| {})).verdict, Verdict::Pass);
    assert_eq!(known(&rig), Some(1400));
    // About what the server sent to the client: to the server, as ever.
    assert_eq!(rig.one(frag_needed(500)).verdict, Verdict::Tx(0));
    assert_eq!(known(&rig), Some(1400));
}

#[test]
fn what_may_be_cut_up_is_cut_to_the_path() {
    let mut rig = rig(vec![service("192.0.2.10:80", "10.0.0.1", Method::Ipip)]);
    let vip = at("192.0.2.10:80");
    rig.one(segment(vip, 1, A, 1480));
    let error = too_large(&rig.sent(), 1400, |_| {});
    rig.one(error);
    assert_eq!(rig.one(with_df(segment(vip, 1, A, 1480), false)).verdict, Verdict::Tx(0));
    let sent = rig.io.sent(0);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [14 + 20 + 20 + 1360, 14 + 20 + 20 + 100]);
}

/// The outer packet of frames that are its fragments, in their order.
fn reassembled(pieces: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let v6 = pieces[0][12..14] == [0x86, 0xdd];
    let (mut data, mut ids) = (Vec::new(), std::collections::HashSet::new());
    for (number, piece) in pieces.iter().enumerate() {
        let ip = &piece[14..];
        assert!(ip.len() <= mtu && piece[..14] == pieces[0][..14]);
        let last = number + 1 == pieces.len();
        let (offset, more, id, rest) = if v6 {
            assert_eq!((ip[6], usize::from(ip[4]) << 8 | usize::from(ip[5])), (44, ip.len() - 40));
            let field = u16::from_be_bytes([ip[42], ip[43]]);
            (usize::from(field & 0xfff8), field & 1 == 1, ip[44..48].to_vec(), &ip[48..])
        } else {
            assert_eq!(checksum::checksum(&ip[..20]), 0);
            let field = u16::from_be_bytes([ip[6], ip[7]]);
            (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0, ip[4..6].to_vec(), &ip[20..])
        };
        assert_eq!((offset, more), (data.len(), !last));
        ids.insert(id);
        data.extend_from_slice(rest);
    }
    assert_eq!(ids.len(), 1);
    data
}

#[test]
fn ipv6_that_must_fit_goes_in_fragments_of_the_outer_packet() {
    for (vip, server, method, overhead) in all().into_iter().filter(|case| case.0.starts_with('[')) {
        let mut rig = rig(vec![service(vip, server, method)]);
        let vip = at(vip);
        rig.one(segment(vip, 1, S, 100));
        rig.one(segment(vip, 1, A, 1500 - overhead));
        let outer = rig.io.sent(0).remove(1);
        rig.one(too_large(&outer, 1290, |_| {}));
        assert_eq!(known(&rig), Some(1290));
        // Larger than what any link takes: the sender is told, but not of less than that.
        assert_eq!(rig.one(segment(vip, 1, A, 1281)).verdict, Verdict::Reply(0));
        assert_eq!(told(&rig.sent(), vip.ip()), 1280);
        let mut ids = Vec::new();
        for length in [1280, 1291 - overhead, 1280] {
            let whole = segment(vip, 1, A, length);
            assert_eq!(rig.one(whole.clone()).verdict, Verdict::Tx(0));
            let pieces = rig.io.sent(0);
            assert_eq!(pieces.len(), 2);
            ids.push(pieces[0][18..20].to_vec());
            let mut inner = reassembled(&pieces, 1290);
            let inner = inner.split_off(if server.contains(':') { overhead - 40 } else { overhead - 20 });
            let mut expected = whole[14..].to_vec();
            expected[7] -= 1;
            assert_eq!(inner, expected, "{server} {method:?} {length}");
        }
        let v4 = !server.contains(':');
        assert!(!v4 || (ids[0] != ids[1] && ids[1] != ids[2]), "each packet has its own identification");
        assert_eq!(rig.one(segment(vip, 1, A, 1290 - overhead)).verdict, Verdict::Tx(0));
        assert_eq!(rig.sent().len(), 1304, "what fits is not cut");
        assert_eq!(rig.pipeline.stats().drops.iter().map(|drops| drops.get()).sum::<u64>(), 0);
    }
}

#[test]
fn an_error_about_a_fragment_of_an_outer_packet_is_believed() {
    for method in [Method::Ipip, Method::Gue, Method::Gre] {
        let mut rig = rig(vec![service("[2001:db8::10]:80", "fd00::1", method)]);
        let vip = at("[2001:db8::10]:80");
        rig.one(segment(vip, 1, A, 1400));
        let error = too_large(&rig.sent(), 1320, |_| {});
        rig.one(error);
        rig.one(segment(vip, 1, A, 1280));
        let pieces = rig.io.sent(0);
        if pieces.len() == 1 {
            assert_eq!(method, Method::Ipip, "it fits");
            continue;
        }
        let error = too_large(&pieces[0], 1300, |_| {});
        assert_eq!(rig.one(error).verdict, Verdict::Pass);
        assert_eq!(known(&rig), Some(1300), "{method:?}");
    }
}

/// A packet that cannot be cut up for want of frames is one drop, and nothing else is counted.
#[test]
fn a_failed_cut_is_one_drop() {
    let mut rig = Rig::new();
    for frames in [1, 2] {
        rig.io = MemoryIo::new(2, frames, 4096);
        assert_eq!(rig.drops(with_df(tcp(1, 80, S, &[7; 3000]), false)), Some(DropReason::NoFrame));
    }
    let stats = rig.pipeline.stats();
    assert_eq!((stats.frames.get(), stats.drops[DropReason::NoFrame as usize].get()), (2, 2));
    rig.io = MemoryIo::new(2, 3, 4096);
    assert_eq!(rig.drops(with_df(tcp(1, 80, S, &[7; 3000]), false)), None);
    assert_eq!(rig.io.sent(0).len(), 3);
    // The same for a tunnel's outer packet.
    let mut rig = self::rig(vec![service("[2001:db8::10]:80", "fd00::1", Method::Ipip)]);
    let vip = at("[2001:db8::10]:80");
    rig.one(segment(vip, 1, A, 1460));
    let error = too_large(&rig.sent(), 1290, |_| {});
    rig.one(error);
    rig.io = MemoryIo::new(2, 1, 4096);
    assert_eq!(rig.drops(segment(vip, 1, A, 1280)), Some(DropReason::NoFrame));
    assert_eq!(rig.pipeline.stats().frames.get(), 3);
}

/// What nobody may be told of does not use up the errors that others could be told.
#[test]
fn only_errors_that_are_sent_count() {
    let mut rig = rig(vec![service("[2001:db8::10]:80", "fd00::1", Method::Ipip)]);
    let vip = at("[2001:db8::10]:80");
    rig.one(segment(vip, 1, S, 100));
    rig.sent();
    // No room for the error's headers before the frame: it cannot be sent.
    let quiet = segment(vip, 1, A, 1480);
    for _ in 0..300 {
        let mut frame = rig.io.memory().allocate(0, quiet.len() as u32).expect("room");
        frame.addr -= rig.io.memory().headroom(&frame) as u64;
        rig.io.memory().bytes_mut(&frame).copy_from_slice(&quiet);
        let mut outcomes = [Outcome::plain(Verdict::Pass)];
        rig.pipeline.process(&rig.snapshot, rig.io.memory(), &mut [frame], &mut outcomes, rig.now);
        assert_eq!(outcomes[0].verdict, Verdict::Drop(DropReason::TooBig));
        rig.io.release(frame);
    }
    assert_eq!(rig.one(quiet).verdict, Verdict::Reply(0));
}
