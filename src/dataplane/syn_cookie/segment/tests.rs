//! Each packet that is made, read back with every checksum; what has no room.

use super::*;
use crate::dataplane::io::memory::HeapMemory;
use crate::dataplane::parse::{parse, verify_transport};
use crate::dataplane::proxy::tests::{Segment as Seen, ends as addresses};

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn put(memory: &mut HeapMemory, bytes: &[u8]) -> (Frame, Parsed) {
    let frame = memory.allocate(3, bytes.len() as u32).expect("a frame");
    memory.bytes_mut(&frame).copy_from_slice(bytes);
    (frame, parse(bytes).expect("parses"))
}

fn cases() -> Vec<(Segment, Vec<u8>)> {
    let bare = Segment { number: 0xffff_fffe, ack: 7, flags: 0x10, window: 0x1234, options: None };
    let with = |options| Segment { flags: 0x12, options: Some(options), ..bare };
    vec![
        (bare, vec![]),
        (with(SynOptions { mss: 1460, scale: None, sack: false }), vec![2, 4, 5, 180]),
        (with(SynOptions { mss: 64, scale: None, sack: true }), vec![2, 4, 0, 64, 1, 1, 4, 2]),
        (with(SynOptions { mss: 536, scale: Some(0), sack: false }), vec![2, 4, 2, 24, 1, 3, 3, 0]),
        (with(SynOptions { mss: 8940, scale: Some(14), sack: true }), vec![2, 4, 34, 236, 1, 1, 4, 2, 1, 3, 3, 14]),
    ]
}

/// What a frame holds; its description must be what a parse finds.
fn read(memory: &HeapMemory, frame: &Frame, parsed: &Parsed) -> (Seen, (SocketAddr, SocketAddr), u8) {
    let bytes = memory.bytes(frame);
    assert_eq!(parse(bytes).as_ref(), Ok(parsed));
    assert_eq!(verify_transport(bytes, parsed), Ok(()));
    assert!(bytes.len() >= 60);
    let ttl = crate::dataplane::rewrite::ttl(bytes, parsed);
    (Seen::read(bytes), ends(bytes, parsed).expect("ends"), ttl)
}

#[test]
fn what_is_made_can_be_read() {
    for (v6, tags) in [(false, 0), (true, 0), (false, 1), (true, 2)] {
        for payload in [0, 3, 500] {
            for (segment, options) in cases() {
                let (from, to) = addresses(v6);
                let (from, to) = ((from, 1000).into(), (to, 80).into());
                let original = Seen { flags: 2, payload: vec![7; payload], ..Seen::default() }.frame(v6, tags);
                let expected = Seen {
                    number: segment.number,
                    ack: segment.ack,
                    flags: segment.flags,
                    window: segment.window,
                    urgent: 0,
                    options,
                    payload: vec![],
                };
                let mut memory = HeapMemory::new(3, 1024);
                let (mut frame, parsed) = put(&mut memory, &original);
                let parsed = replace(&mut memory, &mut frame, &parsed, &segment).expect("room");
                assert_eq!(read(&memory, &frame, &parsed), (expected.clone(), (from, to), 64));
                assert_eq!((&memory.bytes(&frame)[..12], frame.port), (&original[..12], 3));
                let (mut frame, parsed) = put(&mut memory, &original);
                // Fixed MACs of the test's frames have the group bit clear.
                let parsed = answer(&mut memory, &mut frame, &parsed, OWN, &segment).expect("room");
                assert_eq!(read(&memory, &frame, &parsed), (expected.clone(), (to, from), 64));
                assert_eq!(memory.bytes(&frame)[..12], [[2; 6], OWN.0].concat());
                assert_eq!((parsed.tags, parsed.l3), (tags, 14 + 4 * u16::from(tags)));
                let (frame, parsed) = make(&mut memory, 5, from, to, &segment).expect("a frame");
                assert_eq!(read(&memory, &frame, &parsed), (expected, (from, to), 64));
                assert_eq!((frame.port, memory.free()), (5, 0));
                assert_eq!(make(&mut memory, 5, from, to, &segment).map(|(frame, _)| frame), None);
            }
        }
    }
}

#[test]
fn class_and_ttl_stay_but_for_congestion_bits() {
    let segment = cases()[0].0;
    for (v6, at, ttl) in [(false, 15, 22), (true, 15, 21)] {
        let mut original = Seen { flags: 2, ..Seen::default() }.frame(v6, 0);
        original[at] |= if v6 { 0xf5 } else { 0xbb };
        original[ttl] = 17;
        let mut memory = HeapMemory::new(1, 1024);
        let frame = memory.allocate(0, original.len() as u32).expect("a frame");
        memory.bytes_mut(&frame).copy_from_slice(&original);
        // The IPv4 checksum is wrong now, which does not matter: it is made anew.
        let l4 = if v6 { 54 } else { 34 };
        let kind = if v6 { Kind::Flow6 } else { Kind::Flow4 };
        let parsed = Parsed {
            kind,
            protocol: TCP,
            tcp_flags: 2,
            part: Part::Whole,
            tags: 0,
            vlan: NO_VLAN,
            l3: 14,
            l4,
            l4_len: 20,
        };
        let mut frame = frame;
        let parsed = replace(&mut memory, &mut frame, &parsed, &segment).expect("room");
        let (_, _, left) = read(&memory, &frame, &parsed);
        assert_eq!((memory.bytes(&frame)[at], left), (if v6 { 0xc5 } else { 0xb8 }, 17));
    }
}

#[test]
fn what_has_no_room_or_no_sender_is_left() {
    let options = Some(SynOptions { mss: 1460, scale: Some(7), sack: true });
    let segment = Segment { options, ..cases()[0].0 };
    let original = Seen { flags: 2, ..Seen::default() }.frame(false, 0);
    // A chunk of which no more is left than the frame has.
    let mut memory = HeapMemory::new(1, 512);
    let whole = memory.allocate(0, 256).expect("a frame");
    let frame = Frame { addr: whole.addr + 256 - 60, len: 60, ..whole };
    let mut bytes = original.clone();
    bytes.resize(60, 0);
    memory.bytes_mut(&frame).copy_from_slice(&bytes);
    let parsed = parse(&bytes).expect("parses");
    let mut changed = frame;
    assert_eq!(replace(&mut memory, &mut changed, &parsed, &segment), None);
    assert_eq!(answer(&mut memory, &mut changed, &parsed, OWN, &segment), None);
    memory.bytes_mut(&frame)[6] = 1;
    let bare = Segment { options: None, ..segment };
    assert_eq!(answer(&mut memory, &mut changed, &parsed, OWN, &bare), None);
    memory.bytes_mut(&frame)[6] = bytes[6];
    assert_eq!((changed, memory.bytes(&frame)), (frame, &bytes[..]));
    assert!(answer(&mut memory, &mut changed, &parsed, OWN, &bare).is_some());
    memory.give_back(whole);
    let (v4, v6) = (([1, 2, 3, 4], 5).into(), ([1; 16], 5).into());
    assert_eq!(make(&mut memory, 0, v4, v6, &bare).map(|(frame, _)| frame), None);
    assert_eq!(memory.free(), 1);
}
