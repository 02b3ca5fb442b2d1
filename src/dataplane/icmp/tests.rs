//! What errors look like, to whom none is sent, and how many.

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, icmpv4, icmpv6};
use proptest::prelude::*;

use super::*;
use crate::dataplane::io::memory::HeapMemory;
use crate::dataplane::parse;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 9];
const VIP4: [u8; 4] = [192, 0, 2, 10];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const FROM4: [u8; 4] = [198, 51, 100, 7];
const FROM6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

fn vip(v6: bool) -> IpAddr {
    if v6 { VIP6.into() } else { VIP4.into() }
}

fn udp(v6: bool, tag: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(CLIENT, OWN.0);
    let mut frame = Vec::new();
    if v6 {
        ethernet.ipv6(FROM6, VIP6, 17).udp(4000, 53).write(&mut frame, payload).expect("builds");
    } else {
        ethernet.ipv4(FROM4, VIP4, 17).udp(4000, 53).write(&mut frame, payload).expect("builds");
    }
    if let Some(tci) = tag {
        let [high, low] = tci.to_be_bytes();
        frame.splice(12..12, [0x81, 0, high, low]);
    }
    frame
}

type Turn = dyn Fn(&mut HeapMemory, &mut Frame, &Parsed) -> bool;

/// The error, or `None` if there is none: then the frame is checked to be what it was.
fn told(bytes: &[u8], parsed: &Parsed, turn: &Turn) -> Option<Vec<u8>> {
    let mut memory = HeapMemory::new(1, 4096);
    let mut frame = memory.allocate(3, bytes.len() as u32).expect("room");
    memory.bytes_mut(&frame).copy_from_slice(bytes);
    let before = frame;
    if !turn(&mut memory, &mut frame, parsed) {
        assert_eq!((frame, memory.bytes(&frame)), (before, bytes));
        return None;
    }
    assert_eq!(frame.port, 3);
    Some(memory.bytes(&frame).to_vec())
}

fn unreachable(bytes: &[u8], parsed: &Parsed, v6: bool) -> Option<Vec<u8>> {
    told(bytes, parsed, &move |memory, frame, parsed| port_unreachable(memory, frame, parsed, vip(v6), OWN))
}

/// Type, code, second word and quoted bytes; addresses, lengths and checksums are checked here.
fn read(error: &[u8], v6: bool, l3: usize) -> (u8, u8, u32, Vec<u8>) {
    assert_eq!((&error[..6], &error[6..12]), (&CLIENT[..], &OWN.0[..]));
    let sliced = SlicedPacket::from_ethernet(error).expect("etherparse takes it");
    let (bytes, end) = match (sliced.net.expect("IP"), sliced.transport.expect("ICMP")) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let head = ip.header();
            assert_eq!((head.source(), head.destination(), head.ttl()), (VIP4, FROM4, 64));
            assert_eq!(checksum::fold(checksum::sum(&error[l3..l3 + 20], 0)), 0xffff);
            assert_eq!(checksum::fold(checksum::sum(icmp.slice(), 0)), 0xffff);
            (icmp.slice().to_vec(), usize::from(head.total_len()))
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let head = ip.header();
            assert_eq!((head.source(), head.destination(), head.hop_limit()), (VIP6, FROM6, 64));
            assert!(icmp.is_checksum_valid(VIP6, FROM6));
            (icmp.slice().to_vec(), 40 + usize::from(head.payload_length()))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(end + l3, error.len());
    assert!(end <= if v6 { 1280 } else { 576 });
    (bytes[0], bytes[1], u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]), bytes[8..].to_vec())
}

#[test]
fn each_error_has_its_type_and_quotes_the_packet() {
    for v6 in [false, true] {
        for tag in [None, Some(0x6005)] {
            let bytes = udp(v6, tag, &[7; 1400]);
            let parsed = parse::parse(&bytes).expect("parses");
            let l3 = usize::from(parsed.l3);
            let source = vip(v6);
            let big = move |mtu| {
                move |m: &mut HeapMemory, f: &mut Frame, p: &Parsed| -> bool { too_big(m, f, p, source, OWN, mtu) }
            };
            let late = move |m: &mut HeapMemory, f: &mut Frame, p: &Parsed| time_exceeded(m, f, p, source, OWN);
            let closed = move |m: &mut HeapMemory, f: &mut Frame, p: &Parsed| port_unreachable(m, f, p, source, OWN);
            let expected: [(Box<Turn>, (u8, u8, u32)); 5] = [
                (Box::new(big(1400)), if v6 { (2, 0, 1400) } else { (3, 4, 1400) }),
                (Box::new(big(60)), if v6 { (2, 0, 1280) } else { (3, 4, 68) }),
                (Box::new(big(100_000)), if v6 { (2, 0, 100_000) } else { (3, 4, 65535) }),
                (Box::new(late), if v6 { (3, 0, 0) } else { (11, 0, 0) }),
                (Box::new(closed), if v6 { (1, 4, 0) } else { (3, 3, 0) }),
            ];
            for (turn, (kind, code, word)) in expected {
                let error = told(&bytes, &parsed, &*turn).expect("an error");
                assert_eq!(error[12..l3], bytes[12..l3], "the tag stays");
                let (k, c, w, quoted) = read(&error, v6, l3);
                assert_eq!((k, c, w), (kind, code, word));
                assert_eq!(quoted.len(), if v6 { 1232 } else { 548 });
                assert_eq!(quoted, bytes[l3..l3 + quoted.len()]);
            }
        }
    }
}

#[test]
fn etherparse_names_them_the_same() {
    let bytes = udp(false, None, &[0; 1400]);
    let parsed = parse::parse(&bytes).expect("parses");
    let error = told(&bytes, &parsed, &|m, f, p| too_big(m, f, p, vip(false), OWN, 1300)).expect("an error");
    let Some(TransportSlice::Icmpv4(icmp)) = SlicedPacket::from_ethernet(&error).expect("ok").transport else {
        panic!("ICMP")
    };
    let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1300 };
    assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
    let bytes = udp(true, None, &[0; 10]);
    let parsed = parse::parse(&bytes).expect("parses");
    let error = unreachable(&bytes, &parsed, true).expect("an error");
    let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ethernet(&error).expect("ok").transport else {
        panic!("ICMPv6")
    };
    assert_eq!(icmp.icmp_type(), Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port));
}

#[test]
fn padding_is_not_quoted() {
    let mut bytes = udp(false, None, b"");
    let whole = bytes.len();
    bytes.resize(60, 0xee);
    let parsed = parse::parse(&bytes).expect("parses");
    let error = unreachable(&bytes, &parsed, false).expect("an error");
    assert_eq!(read(&error, false, 14).3, bytes[14..whole]);
}

#[test]
fn nobody_is_told_who_must_not_be() {
    for v6 in [false, true] {
        let bytes = udp(v6, None, b"x");
        let parsed = parse::parse(&bytes).expect("parses");
        assert!(unreachable(&bytes, &parsed, v6).is_some());
        assert!(unreachable(&bytes, &Parsed { part: Part::First, ..parsed }, v6).is_some());
        assert_eq!(unreachable(&bytes, &Parsed { part: Part::Later, ..parsed }, v6), None);
        assert_eq!(unreachable(&bytes, &parsed, !v6), None, "the other family");
        let changed = |at: usize, with: &[u8]| {
            let mut other = bytes.clone();
            other[at..at + with.len()].copy_from_slice(with);
            unreachable(&other, &parsed, v6)
        };
        assert_eq!(changed(0, &[0xff; 6]), None, "a broadcast frame");
        assert_eq!(changed(0, &[1, 0, 0x5e, 0, 0, 1]), None, "a multicast frame");
        assert_eq!(changed(6, &[3]), None, "from a group");
        assert_eq!(changed(14, &[0x10]), None, "no IP");
        if v6 {
            assert_eq!(changed(22, &[0; 16]), None, "from nowhere");
            assert_eq!(changed(22, &[0xff]), None, "from a multicast address");
            assert_eq!(changed(22, &VIP6), None, "from the service itself");
            assert_eq!(changed(38, &[0xff]), None, "to a multicast address");
        } else {
            for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], VIP4] {
                assert_eq!(changed(26, &source), None, "from {source:?}");
            }
            for destination in [[224, 0, 0, 1], [255, 255, 255, 255], [0, 0, 0, 0]] {
                assert_eq!(changed(30, &destination), None, "to {destination:?}");
            }
            assert_eq!(changed(20, &[0x00, 0x10]), None, "a later fragment");
        }
    }
}

#[test]
fn no_error_about_an_error() {
    for v6 in [false, true] {
        for kind in 0..=255u8 {
            let mut bytes = udp(v6, None, &[0; 8]);
            let at = if v6 { 54 } else { 34 };
            bytes[if v6 { 20 } else { 23 }] = if v6 { ICMPV6 } else { ICMP };
            bytes[at] = kind;
            let parsed = Parsed {
                protocol: if v6 { ICMPV6 } else { ICMP },
                ..parse::parse(&udp(v6, None, &[0; 8])).expect("parses")
            };
            let error = if v6 { kind < 128 || kind == 137 } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
            assert_eq!(unreachable(&bytes, &parsed, v6).is_none(), error, "type {kind}");
            assert_eq!(unreachable(&bytes, &Parsed { l4_len: 0, ..parsed }, v6), None, "without a type");
        }
    }
}

#[test]
fn headroom_is_asked_for() {
    let bytes = udp(false, None, b"x");
    let parsed = parse::parse(&bytes).expect("parses");
    for (room, expected) in [(27, false), (28, true)] {
        let mut memory = HeapMemory::new(1, 2048);
        let frame = memory.allocate(0, bytes.len() as u32).expect("room");
        let mut frame = Frame { addr: frame.addr - memory.headroom(&frame) as u64 + room, ..frame };
        memory.bytes_mut(&frame).copy_from_slice(&bytes);
        assert_eq!(port_unreachable(&mut memory, &mut frame, &parsed, vip(false), OWN), expected);
    }
}

#[test]
fn the_limit_is_a_rate_with_a_burst() {
    let mut limiter = Limiter::new(10, 3, 5000);
    let mut allowed = |now| limiter.allow(now);
    assert_eq!([5000, 5000, 5000, 5000, 5099].map(&mut allowed), [true, true, true, false, false]);
    assert_eq!([5100, 5100, 5199, 5200].map(&mut allowed), [true, false, false, true]);
    // No more than the burst is saved up.
    assert_eq!([90_000; 4].map(&mut allowed), [true, true, true, false]);
    // Time wraps around.
    let mut limiter = Limiter::new(1000, 1, u32::MAX);
    assert_eq!([u32::MAX, u32::MAX, 0, 0].map(|now| limiter.allow(now)), [true, false, true, false]);
    assert!((0..100).all({
        let mut limiter = Limiter::default();
        move |_| limiter.allow(0)
    }));
    // What was not sent does not count.
    let mut limiter = Limiter::new(1, 2, 0);
    assert!(limiter.allow(0) && limiter.allow(0) && !limiter.allow(0));
    limiter.give_back();
    assert!(limiter.allow(0) && !limiter.allow(0));
    assert_eq!((0..5000).filter(|_| Limiter::new(0, 0, 0).allow(1)).count(), 0);
}

proptest! {
    #[test]
    fn any_bytes_with_any_parse_do_no_harm(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        l3 in 0u16..40, l4 in 0u16..120, l4_len in 0u16..300, v6: bool, protocol in prop_oneof![Just(1u8), Just(58), Just(17)],
    ) {
        let parsed = Parsed { l3, l4, l4_len, protocol, ..parse::parse(&udp(v6, None, b"")).expect("parses") };
        if let Some(first) = bytes.get_mut(usize::from(l3)) {
            *first = version;
        }
        let _ = unreachable(&bytes, &parsed, v6);
    }
}
