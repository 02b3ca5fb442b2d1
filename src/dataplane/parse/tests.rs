//! The parser against packets built by etherparse, and against everything else.

mod fragments;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

fn tcp_v4(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([198, 51, 100, 7], [192, 0, 2, 10], 64)
        .tcp(51514, 80, 1, 1024)
        .syn()
        .write(&mut out, payload)
        .expect("builds");
    out
}

fn udp_v6(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6([1; 16], [2; 16], 64)
        .udp(4000, 53)
        .write(&mut out, payload)
        .expect("builds");
    out
}

/// Inserts an extension header chain (already encoded, last `next header` patched by the caller) into `udp_v6`.
fn with_extensions(first: u8, chain: &[u8]) -> Vec<u8> {
    let mut frame = udp_v6(b"hello");
    frame[20] = first;
    let payload = u16::from_be_bytes([frame[18], frame[19]]) + chain.len() as u16;
    frame[18..20].copy_from_slice(&payload.to_be_bytes());
    frame.splice(54..54, chain.iter().copied());
    frame
}

fn tagged(mut frame: Vec<u8>, tags: &[u16]) -> Vec<u8> {
    for vid in tags.iter().rev() {
        let [hi, lo] = vid.to_be_bytes();
        frame.splice(12..12, [0x81, 0x00, hi, lo]);
    }
    frame
}

#[test]
fn plain_and_full_agree() {
    let frame = tcp_v4(b"x");
    let parsed = parse(&frame).expect("parses");
    assert_eq!(parse_plain_v4(&frame), Some(parsed));
    assert_eq!((parsed.kind, parsed.protocol, parsed.tcp_flags), (Kind::Flow4, TCP, tcp_flag::SYN));
    assert_eq!((parsed.l3, parsed.l4, parsed.l4_len), (14, 34, 21));
    assert_eq!(verify_transport(&frame, &parsed), Ok(()));
}

#[test]
fn vlan_tags_shift_everything() {
    for tags in [&[5u16][..], &[0x2005, 7]] {
        let frame = tagged(tcp_v4(b""), tags);
        let parsed = parse(&frame).expect("parses");
        assert_eq!((parsed.vlan, usize::from(parsed.tags)), (5, tags.len()));
        assert_eq!(usize::from(parsed.l3), 14 + 4 * tags.len());
        assert_eq!(verify_transport(&frame, &parsed), Ok(()));
    }
    assert_eq!(parse(&tagged(tcp_v4(b""), &[1, 2, 3])), Err(DropReason::BadVlan));
}

#[test]
fn options_do_not_shift_the_ports() {
    let mut frame = tcp_v4(b"");
    frame.splice(34..34, [1, 1, 7, 3, 4, 0, 0, 0]);
    frame[14] = 0x47;
    frame[16..18].copy_from_slice(&48u16.to_be_bytes());
    let fix = |f: &mut Vec<u8>| {
        f[24..26].fill(0);
        let c = super::super::checksum::checksum(&f[14..42]);
        f[24..26].copy_from_slice(&c.to_ne_bytes());
    };
    fix(&mut frame);
    let parsed = parse(&frame).expect("parses");
    assert_eq!((parsed.l4, be16(&frame, 44)), (42, Some(80)));
    assert_eq!(parse_plain_v4(&frame), None);
    for (bytes, reason) in
        [([131u8, 3], DropReason::SourceRoute), ([7, 9], DropReason::BadIpOptions), ([7, 1], DropReason::BadIpOptions)]
    {
        let mut bad = frame.clone();
        bad[34..36].copy_from_slice(&bytes);
        fix(&mut bad);
        assert_eq!(parse(&bad), Err(reason));
    }
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let hop = [60, 0, 1, 4, 0, 0, 0, 0];
    let destination = [17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let frame = with_extensions(0, &[&hop[..], &destination[..]].concat());
    let parsed = parse(&frame).expect("parses");
    assert_eq!((parsed.kind, parsed.l4, parsed.l4_len), (Kind::Flow6, 54 + 24, 13));
    assert_eq!(verify_transport(&frame, &parsed), Ok(()));

    let cases: [(u8, Vec<u8>, DropReason); 5] = [
        (60, vec![0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0], DropReason::BadExtensionHeader),
        (43, vec![17, 0, 0, 1, 0, 0, 0, 0], DropReason::SourceRoute),
        (44, vec![17, 0, 0, 1, 0, 0, 0, 9], DropReason::BadLength),
        (60, vec![17, 200, 0, 0, 0, 0, 0, 0], DropReason::BadExtensionHeader),
        (60, [[60, 0, 1, 4, 0, 0, 0, 0]; 12].concat(), DropReason::BadExtensionHeader),
    ];
    for (first, chain, reason) in cases {
        assert_eq!(parse(&with_extensions(first, &chain)), Err(reason), "{chain:?}");
    }
    // An atomic fragment (RFC 6946) is a whole packet.
    assert!(parse(&with_extensions(44, &[17, 0, 0, 0, 0, 0, 0, 9])).is_ok());
}

#[test]
fn wrong_lengths_and_headers_have_their_reasons() {
    let good = tcp_v4(b"payload");
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(Spoil, DropReason); 6] = [
        (|f| f.truncate(30), DropReason::Truncated),
        (|f| f.truncate(60), DropReason::Truncated),
        (|f| f[14] = 0x44, DropReason::BadIpHeader),
        (|f| f[14] = 0x65, DropReason::BadIpHeader),
        (|f| f[17] = 10, DropReason::BadLength),
        (|f| f[22] ^= 1, DropReason::BadIpChecksum),
    ];
    for (spoil, reason) in cases {
        let mut frame = good.clone();
        spoil(&mut frame);
        assert_eq!(parse(&frame), Err(reason));
        assert_eq!(parse_plain_v4(&frame), None);
    }
}

#[test]
fn partial_checksums_are_told_from_wrong_ones() {
    let good = tcp_v4(b"payload");
    let parsed = parse(&good).expect("parses");
    let pseudo = super::super::checksum::pseudo_header(&good[26..30], &good[30..34], TCP, 27);
    let mut partial = good.clone();
    partial[50..52].copy_from_slice(&super::super::checksum::fold(pseudo).to_ne_bytes());
    assert_eq!(verify_transport(&partial, &parsed), Err(DropReason::PartialChecksum));
    let mut wrong = good;
    wrong[51] ^= 0x55;
    assert_eq!(verify_transport(&wrong, &parsed), Err(DropReason::BadTransportChecksum));
}

#[test]
fn udp_rules_differ_by_family() {
    let mut frame = udp_v6(b"abc");
    let parsed = parse(&frame).expect("parses");
    assert_eq!(verify_transport(&frame, &parsed), Ok(()));
    frame[60..62].fill(0);
    assert_eq!(verify_transport(&frame, &parsed), Err(DropReason::BadTransportChecksum));
    frame[58..60].copy_from_slice(&500u16.to_be_bytes());
    assert_eq!(verify_transport(&frame, &parsed), Err(DropReason::BadLength));
}

#[test]
fn destinations_are_found_in_broken_packets() {
    let mut frame = tagged(tcp_v4(b""), &[9]);
    frame[18] = 0x4f;
    frame.truncate(40);
    assert_eq!(destination(&frame), Some("192.0.2.10".parse().expect("address")));
    assert_eq!(destination(&udp_v6(b"")), Some([2; 16].into()));
    assert_eq!(destination(&[0; 20]), None);
}

proptest! {
    #[test]
    fn never_panics_and_offsets_stay_inside(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), shape in 0u8..4) {
        if bytes.len() > 20 {
            match shape {
                0 => bytes[12..15].copy_from_slice(&[8, 0, 0x45]),
                1 => bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]),
                2 => bytes[12..18].copy_from_slice(&[0x81, 0, 0, 5, 8, 0]),
                _ => {}
            }
        }
        let _ = destination(&bytes);
        if let Ok(parsed) = parse(&bytes)
            && matches!(parsed.kind, Kind::Flow4 | Kind::Flow6) {
                prop_assert!(usize::from(parsed.l4) + usize::from(parsed.l4_len) <= bytes.len());
                let _ = verify_transport(&bytes, &parsed);
            }
        if let Some(plain) = parse_plain_v4(&bytes) {
            prop_assert_eq!(parse(&bytes), Ok(plain));
        }
        if let Ok(parsed) = parse(&bytes) {
            let fragment = fragment_of(&bytes, &parsed);
            prop_assert_eq!(fragment.is_some(), parsed.part != Part::Whole);
            prop_assert!(fragment.is_none_or(|f| f.start < f.end && f.start.is_multiple_of(8)));
        }
    }

    /// A mutated good packet parses to the same thing, or to nothing.
    #[test]
    fn mutations_of_good_packets(at in 0usize..54, value: u8, cut in 0usize..60) {
        let mut frame = tcp_v4(b"some payload");
        let at = at.min(frame.len() - 1);
        frame[at] = value;
        frame.truncate(frame.len().saturating_sub(cut / 2).max(1));
        if let Ok(parsed) = parse(&frame) {
            let _ = verify_transport(&frame, &parsed);
            prop_assert!(usize::from(parsed.l3) <= frame.len());
        }
    }
}
