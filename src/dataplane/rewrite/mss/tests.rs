//! MSS options at any offset, among other options, and malformed.

use proptest::prelude::*;

use super::*;
use crate::dataplane::parse::{Kind, NO_VLAN, Part, TCP, UDP, be16, parse, verify_transport};
use crate::dataplane::rewrite::nat::tests::{Build, parsed_of};

/// A TCP segment with these flags and options (a multiple of four bytes).
fn segment(v6: bool, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1, 0, 0, 0, 2, 0x50 + (options.len() as u8 / 4 * 16), flags, 1, 0, 0, 0, 0, 0];
    body.extend(options);
    body.extend(b"odd");
    let ends = if v6 { ([1; 16].into(), [2; 16].into()) } else { ([192, 0, 2, 1].into(), [192, 0, 2, 2].into()) };
    Build {
        protocol: TCP,
        source: (ends.0, 1000),
        destination: (ends.1, 80),
        tags: 1,
        extra: 1,
        ttl: 64,
        body,
        unchecked: false,
    }
    .frame()
}

#[test]
fn lowered_and_clamped() {
    for v6 in [false, true] {
        for (options, at) in [
            (&[2, 4, 0x05, 0xb4][..], 2),
            (&[1, 2, 4, 0x05, 0xb4, 3, 3, 7][..], 3),
            (&[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 0x05, 0xb4, 4, 2][..], 12),
        ] {
            for flags in [tcp_flag::SYN, tcp_flag::SYN | tcp_flag::ACK] {
                let mut frame = segment(v6, flags, options);
                let parsed = parse(&frame).expect("parses");
                let at = usize::from(parsed.l4) + 20 + at;
                assert!(!clamp(&mut frame, &parsed, 1460));
                assert!(clamp(&mut frame, &parsed, 1400));
                assert_eq!(be16(&frame, at), Some(1400));
                assert!(lower(&mut frame, &parsed, 28));
                assert_eq!(be16(&frame, at), Some(1372));
                assert!(lower(&mut frame, &parsed, 1320));
                assert_eq!(be16(&frame, at), Some(64));
                assert_eq!(verify_transport(&frame, &parsed), Ok(()));
            }
        }
    }
}

#[test]
fn one_step_at_a_time() {
    let mut frame = segment(false, tcp_flag::SYN, &[1, 2, 4, 0x05, 0xb4, 0, 0, 0]);
    let parsed = parse(&frame).expect("parses");
    let at = usize::from(parsed.l4) + 23;
    for (step, mss) in [(1400u16, 1400), (28, 1372), (52, 1320), (2000, 64), (2000, 64), (40, 40), (7, 40)] {
        if matches!(step, 1400 | 40) {
            clamp(&mut frame, &parsed, step);
        } else {
            lower(&mut frame, &parsed, step);
        }
        assert_eq!(be16(&frame, at), Some(mss), "{step}");
        assert_eq!(verify_transport(&frame, &parsed), Ok(()));
    }
}

#[test]
fn left_alone() {
    let cases: [(u8, &[u8]); 8] = [
        (tcp_flag::ACK, &[2, 4, 5, 180]),
        (tcp_flag::SYN, &[]),
        (tcp_flag::SYN, &[0, 0, 0, 0, 2, 4, 5, 180]),
        (tcp_flag::SYN, &[2, 3, 5, 180]),
        (tcp_flag::SYN, &[2, 0, 5, 180]),
        (tcp_flag::SYN, &[2, 1, 5, 180]),
        (tcp_flag::SYN, &[1, 1, 1, 2]),
        (tcp_flag::SYN, &[1, 2, 4, 5]),
    ];
    for (flags, options) in cases {
        let frame = segment(false, flags, options);
        let parsed = parse(&frame).expect("parses");
        let mut changed = frame.clone();
        assert!(!clamp(&mut changed, &parsed, 536) && !lower(&mut changed, &parsed, 28), "{options:?}");
        assert_eq!(changed, frame);
    }
    let frame = segment(false, tcp_flag::SYN, &[2, 4, 5, 180]);
    let parsed = parse(&frame).expect("parses");
    for parsed in [
        crate::dataplane::parse::Parsed { protocol: UDP, ..parsed },
        crate::dataplane::parse::Parsed { part: Part::Later, ..parsed },
        crate::dataplane::parse::Parsed { l4_len: 23, ..parsed },
    ] {
        let mut changed = frame.clone();
        assert!(!clamp(&mut changed, &parsed, 536));
    }
}

proptest! {
    #[test]
    fn any_options_keep_the_checksum_right(words in proptest::collection::vec(any::<[u8; 4]>(), 0..=10), mss: u16) {
        let mut frame = segment(true, tcp_flag::SYN, &words.concat());
        let parsed = parse(&frame).expect("parses");
        let before = frame.clone();
        let changed = clamp(&mut frame, &parsed, mss);
        prop_assert_eq!(changed, frame != before);
        prop_assert_eq!(verify_transport(&frame, &parsed), Ok(()));
        lower(&mut frame, &parsed, mss);
        prop_assert_eq!(verify_transport(&frame, &parsed), Ok(()));
    }

    #[test]
    fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), l4: u8, l4_len: u16, mss: u16) {
        let parsed = crate::dataplane::parse::Parsed {
            kind: Kind::Flow4,
            protocol: TCP,
            tcp_flags: tcp_flag::SYN,
            part: Part::Whole,
            tags: 0,
            vlan: NO_VLAN,
            l3: 14,
            l4: l4.into(),
            l4_len,
        };
        clamp(&mut bytes, &parsed, mss);
        lower(&mut bytes, &parsed, mss);
    }
}

#[test]
fn the_builder_builds_what_the_parser_takes() {
    let build = Build {
        protocol: TCP,
        source: ([1; 16].into(), 1),
        destination: ([2; 16].into(), 2),
        tags: 2,
        extra: 3,
        ttl: 3,
        body: vec![0; 16],
        unchecked: false,
    };
    assert_eq!((parsed_of(&build).l3, parsed_of(&build).l4), (22, 86));
}
