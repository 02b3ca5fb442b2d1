//! Fragments as the parser sees them: each rule of RFC 791, 1858, 6946, 7112 and 8200 as a row.

use std::net::IpAddr;

use super::*;
use crate::dataplane::checksum;

/// An IPv4 frame with these flags and offset (the 16 bits as they are sent).
fn v4(protocol: u8, word: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![4; 12];
    frame.extend_from_slice(&[8, 0, 0x45, 0]);
    frame.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0x12, 0x34]);
    frame.extend_from_slice(&word.to_be_bytes());
    frame.extend_from_slice(&[64, protocol, 0, 0, 198, 51, 100, 7, 192, 0, 2, 10]);
    let check = checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&check.to_ne_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An IPv6 frame of a chain of headers, the first of which has this number.
fn v6(first: u8, chain: &[&[u8]]) -> Vec<u8> {
    let body = chain.concat();
    let mut frame = vec![4; 12];
    frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend_from_slice(&(body.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[first, 64]);
    frame.extend_from_slice(&[1; 16]);
    frame.extend_from_slice(&[2; 16]);
    frame.extend_from_slice(&body);
    frame
}

/// A fragment header: `offset` in units of eight bytes.
fn header(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let [hi, lo] = (offset << 3 | u16::from(more)).to_be_bytes();
    [next, 0, hi, lo, 0xa, 0xb, 0xc, 0xd]
}

fn tcp(words: u8, len: usize) -> Vec<u8> {
    let mut segment = vec![0; len];
    segment[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
    if len > 13 {
        segment[12..14].copy_from_slice(&[words << 4, tcp_flag::SYN]);
    }
    segment
}

const MORE: u16 = 0x2000;

#[test]
fn ipv4_fragments_are_told_from_each_other() {
    let first = v4(TCP, MORE, &tcp(5, 24));
    let parsed = parse(&first).expect("parses");
    assert_eq!((parsed.kind, parsed.part, parsed.tcp_flags), (Kind::Flow4, Part::First, tcp_flag::SYN));
    assert_eq!((parsed.l4, parsed.l4_len), (34, 24));
    assert!(parse_plain_v4(&first).is_none());
    assert_eq!(verify_transport(&first, &parsed), Ok(()), "its checksum covers what is not there");
    let found = fragment_of(&first, &parsed).expect("a fragment");
    assert_eq!((found.start, found.end, found.more), (0, 24, true));
    assert_eq!((found.id.id, found.id.protocol, found.id.v6), (0x1234, TCP, false));
    assert_eq!(found.id.source[..5], [198, 51, 100, 7, 0]);
    assert_eq!(found.id.destination(), IpAddr::from([192, 0, 2, 10]));

    for (word, end, more) in [(MORE | 3, 40, true), (3, 40, false), (0x4000 | 3, 40, false)] {
        let later = v4(TCP, word, &[7; 16]);
        let parsed = parse(&later).expect("parses");
        assert_eq!((parsed.kind, parsed.part, parsed.tcp_flags), (Kind::Flow4, Part::Later, 0));
        let found = fragment_of(&later, &parsed).expect("a fragment");
        assert_eq!((found.start, found.end, found.more), (24, end, more));
        assert_eq!(verify_transport(&later, &parsed), Ok(()));
    }
    // A tag, and options, which need not be in every fragment.
    let mut optional = v4(UDP, 3, &[1; 12]);
    optional[14] = 0x46;
    optional[24..26].fill(0);
    let check = checksum::checksum(&optional[14..38]);
    optional[24..26].copy_from_slice(&check.to_ne_bytes());
    let optional = tagged(optional, &[5]);
    let parsed = parse(&optional).expect("parses");
    assert_eq!(fragment_of(&optional, &parsed).map(|f| (f.start, f.end)), Some((24, 32)));
    // Without ports.
    for (protocol, word, kind) in [(ICMP, MORE, Kind::Icmp4), (ICMP, 3, Kind::Other), (47, MORE, Kind::Other)] {
        let frame = v4(protocol, word, &[0; 8]);
        let parsed = parse(&frame).expect("parses");
        assert_eq!(parsed.kind, kind);
        let fragment = fragment_of(&frame, &parsed).expect("a fragment");
        assert!(!may_have_ports(&parsed, &fragment));
    }
    assert_eq!(fragment_of(&v4(UDP, 0, &[0; 8]), &parse(&v4(UDP, 0, &[0; 8])).expect("parses")), None);
}

#[test]
fn fragments_that_break_a_rule() {
    use DropReason::{BadExtensionHeader, BadLength, BadTransportHeader, FragmentTiny, SourceRoute};
    let options: &[u8] = &[TCP, 0, 1, 4, 0, 0, 0, 0];
    let rows: Vec<(Vec<u8>, DropReason)> = vec![
        // Lengths: all but the last a multiple of eight, some data in each, an end below 64 KiB.
        (v4(UDP, MORE, &[0; 12]), BadLength),
        (v4(UDP, MORE | 3, &[0; 12]), BadLength),
        (v4(UDP, MORE | 3, &[]), BadLength),
        (v4(UDP, 3, &[]), BadLength),
        (v4(UDP, 0x1fff, &[0; 8]), BadLength),
        (v4(UDP, 0x1ffe, &[0; 8]), BadLength),
        (v6(44, &[&header(UDP, 0, true), &[0; 12]]), BadLength),
        (v6(44, &[&header(UDP, 9, false)]), BadLength),
        (v6(44, &[&header(UDP, 0x1fff, false), &[0; 8]]), BadLength),
        // Transport headers that are not all in the first fragment, or begun again in the next.
        (v4(TCP, MORE, &tcp(5, 8)), FragmentTiny),
        (v4(TCP, MORE, &tcp(5, 16)), FragmentTiny),
        (v4(TCP, MORE, &tcp(7, 24)), FragmentTiny),
        (v4(SCTP, MORE, &[0; 8]), FragmentTiny),
        (v4(TCP, MORE, &tcp(4, 24)), BadTransportHeader),
        (v4(TCP, 1, &[0; 40]), FragmentTiny),
        (v4(TCP, MORE | 2, &[0; 40]), FragmentTiny),
        (v4(SCTP, 1, &[0; 40]), FragmentTiny),
        (v6(44, &[&header(TCP, 0, true), &tcp(5, 16)]), FragmentTiny),
        (v6(44, &[&header(TCP, 0, true), &tcp(7, 24)]), FragmentTiny),
        (v6(44, &[&header(TCP, 1, false), &[0; 40]]), FragmentTiny),
        // The whole chain of headers must be in the first fragment.
        (v6(44, &[&header(60, 0, true), options]), FragmentTiny),
        (v6(44, &[&header(60, 0, true), &[TCP, 3, 1, 4, 0, 0, 0, 0]]), FragmentTiny),
        (v6(44, &[&header(60, 0, true), options, &tcp(5, 16)]), FragmentTiny),
        (v6(44, &[&header(51, 0, true), &[TCP, 4, 0, 0, 0, 0, 0, 0]]), FragmentTiny),
        (v6(44, &[&header(43, 0, true), &[UDP, 0, 0, 1, 0, 0, 0, 0], &[0; 8]]), SourceRoute),
        // One fragment header at most.
        (v6(44, &[&header(44, 0, true), &header(UDP, 0, false), &[0; 8]]), BadExtensionHeader),
        (v6(44, &[&header(44, 0, false), &header(UDP, 3, false), &[0; 8]]), BadExtensionHeader),
        (v6(44, &[&[UDP, 0, 0, 1]]), BadExtensionHeader),
    ];
    for (frame, reason) in rows {
        assert_eq!(parse(&frame), Err(reason), "{frame:x?}");
    }
    // The largest packet there can be: 65,535 bytes with its header.
    assert!(parse(&v4(UDP, 0x1ffc, &[0; 8])).is_ok());
    assert!(parse(&v6(44, &[&header(UDP, 0x1ffe, true), &[0; 8]])).is_ok());
}

#[test]
fn ipv6_fragments_are_told_from_each_other() {
    let options: &[u8] = &[TCP, 0, 1, 4, 0, 0, 0, 0];
    let route: &[u8] = &[44, 0, 4, 0, 0, 0, 0, 0];
    let plain = v6(44, &[&header(TCP, 0, true), &tcp(5, 24)]);
    let behind = v6(43, &[route, &header(60, 0, true), options, &tcp(6, 24)]);
    for (frame, l4, end) in [(plain, 62, 24), (behind, 78, 32)] {
        let parsed = parse(&frame).expect("parses");
        assert_eq!((parsed.kind, parsed.part, parsed.protocol), (Kind::Flow6, Part::First, TCP));
        assert_eq!((parsed.l4, parsed.l4_len, parsed.tcp_flags), (l4, 24, tcp_flag::SYN));
        assert!(plain_v6(&frame).is_none());
        let found = fragment_of(&frame, &parsed).expect("a fragment");
        assert_eq!((found.start, found.end, found.more), (0, end, true));
        assert_eq!((found.id.id, found.id.protocol, found.id.v6), (0x0a0b_0c0d, 0, true));
        assert_eq!((found.id.source, found.id.destination()), ([1; 16], IpAddr::from([2; 16])));
    }
    let cases = [
        (UDP, Kind::Flow6, true),
        (TCP, Kind::Flow6, true),
        // The first fragment has the options, and knows what comes behind them.
        (60, Kind::Other, true),
        (ICMPV6, Kind::Other, false),
        (59, Kind::Other, false),
    ];
    for (next, kind, ports) in cases {
        let frame = tagged(v6(43, &[route, &header(next, 5, false), &[9; 11]]), &[1, 2]);
        let parsed = parse(&frame).expect("parses");
        assert_eq!((parsed.kind, parsed.part, parsed.protocol), (kind, Part::Later, next));
        assert_eq!((parsed.l4, parsed.l4_len), (54 + 8 + 16, 11));
        let found = fragment_of(&frame, &parsed).expect("a fragment");
        assert_eq!((found.start, found.end, found.more), (40, 51, false));
        assert_eq!(may_have_ports(&parsed, &found), ports, "{next}");
    }
    let mut adopted = parse(&v6(44, &[&header(60, 5, false), &[9; 11]])).expect("parses");
    adopt_protocol(&mut adopted, true, UDP);
    assert_eq!((adopted.kind, adopted.protocol, adopted.part), (Kind::Flow6, UDP, Part::Later));
    // ICMPv6 in its first fragment.
    let frame = v6(44, &[&header(ICMPV6, 0, true), &[128, 0, 0, 0, 0, 0, 0, 0]]);
    assert_eq!(parse(&frame).map(|p| (p.kind, p.part)), Ok((Kind::Icmp6, Part::First)));
}
