//! What a reset looks like, for every segment; which segments get none.

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::dataplane::io::memory::HeapMemory;
use crate::dataplane::parse;
use tcp_flag::{ACK, FIN, RST, SYN};

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 9];
const VIP4: [u8; 4] = [192, 0, 2, 10];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const FROM4: [u8; 4] = [198, 51, 100, 7];
const FROM6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

fn segment(v6: bool, tags: &[u16], flags: u8, number: u32, ack: u32, options: bool, data: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(CLIENT, OWN.0);
    let ip = if v6 { ethernet.ipv6(FROM6, VIP6, 17) } else { ethernet.ipv4(FROM4, VIP4, 17) };
    let mut tcp = ip.tcp(4000, 80, number, 9000);
    tcp = if flags & SYN != 0 { tcp.syn() } else { tcp };
    tcp = if flags & FIN != 0 { tcp.fin() } else { tcp };
    tcp = if flags & RST != 0 { tcp.rst() } else { tcp };
    tcp = if flags & ACK != 0 { tcp.ack(ack) } else { tcp };
    if options {
        let timestamps = [etherparse::TcpOptionElement::Timestamp(1, 2)];
        tcp = tcp.options(&timestamps).expect("fits");
    }
    let mut frame = Vec::new();
    tcp.write(&mut frame, data).expect("builds");
    for tci in tags.iter().rev() {
        let [high, low] = tci.to_be_bytes();
        frame.splice(12..12, [0x81, 0, high, low]);
    }
    frame
}

/// The reset, or `None` if there is none: then the frame is checked to be what it was.
fn answered(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut memory = HeapMemory::new(1, 4096);
    let mut frame = memory.allocate(3, bytes.len() as u32).expect("room");
    memory.bytes_mut(&frame).copy_from_slice(bytes);
    let before = frame;
    let parsed = parse::parse(bytes).expect("sound");
    if !answer(&mut memory, &mut frame, &parsed, OWN) {
        assert_eq!((frame, memory.bytes(&frame)), (before, bytes));
        return None;
    }
    assert_eq!(frame.port, 3);
    Some(memory.bytes(&frame).to_vec())
}

/// Sequence number, acknowledgement and flags; all else is checked here.
fn read(reset: &[u8], v6: bool, tags: &[u16]) -> (u32, u32, u8) {
    let l3 = 14 + 4 * tags.len();
    assert_eq!((&reset[..6], &reset[6..12]), (&CLIENT[..], &OWN.0[..]));
    for (at, tci) in tags.iter().enumerate() {
        assert_eq!(reset[12 + 4 * at..16 + 4 * at], [0x81, 0, (tci >> 8) as u8, *tci as u8]);
    }
    let parsed = parse::parse(reset).expect("a sound frame");
    parse::verify_transport(reset, &parsed).expect("a right checksum");
    let (l4, header) = (usize::from(parsed.l4), if v6 { 40 } else { 20 });
    assert_eq!((l4, parsed.l4_len, reset.len()), (l3 + header, 20, l3 + header + 20));
    let (from, to, _) = ends(reset, l3).expect("addresses");
    if v6 {
        assert_eq!((from, to), (VIP6.into(), FROM6.into()));
        assert_eq!((reset[l3], reset[l3 + 7]), (0x60, 64));
    } else {
        assert_eq!((from, to), (VIP4.into(), FROM4.into()));
        assert_eq!(reset[l3..l3 + 10], [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
        assert_eq!(checksum::checksum(&reset[l3..l3 + 20]), 0);
    }
    let word = |at: usize| u32::from_be_bytes(array(reset, l4 + at));
    assert_eq!((parse::be16(reset, l4), parse::be16(reset, l4 + 2)), (Some(80), Some(4000)));
    assert_eq!((reset[l4 + 12], &reset[l4 + 14..l4 + 16], &reset[l4 + 18..]), (0x50, &[0, 0][..], &[0, 0][..]));
    (word(4), word(8), reset[l4 + 13])
}

#[test]
fn what_is_acknowledged_is_where_the_reset_lies() {
    for v6 in [false, true] {
        let reset = |flags, data: &[u8]| {
            let frame = segment(v6, &[], flags, 1000, 77_000, true, data);
            answered(&frame).map(|reset| read(&reset, v6, &[]))
        };
        assert_eq!(reset(ACK, b"data"), Some((77_000, 0, RST)));
        assert_eq!(reset(ACK | FIN, b""), Some((77_000, 0, RST)));
        assert_eq!(reset(SYN | ACK, b""), Some((77_000, 0, RST)));
        // Without one it acknowledges all that came, options are no data.
        assert_eq!(reset(SYN, b""), Some((0, 1001, RST | ACK)));
        assert_eq!(reset(SYN, b"fast"), Some((0, 1005, RST | ACK)));
        assert_eq!(reset(FIN, b"data"), Some((0, 1005, RST | ACK)));
        assert_eq!(reset(0, b"data"), Some((0, 1004, RST | ACK)));
        // A reset is never answered.
        assert_eq!(reset(RST, b""), None);
        assert_eq!(reset(RST | ACK, b""), None);
    }
}

#[test]
fn groups_and_fragments_get_none() {
    let sound = segment(false, &[], ACK, 1, 2, false, b"");
    assert!(answered(&sound).is_some());
    let mut to_group = sound.clone();
    to_group[0] |= 1;
    let mut from_group = sound.clone();
    from_group[6] |= 1;
    let repaired = |mut frame: Vec<u8>| {
        frame[24..26].fill(0);
        let check = checksum::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_ne_bytes());
        frame
    };
    let with_source = |source: [u8; 4]| {
        let mut frame = sound.clone();
        frame[26..30].copy_from_slice(&source);
        repaired(frame)
    };
    let fragment = |frame: &[u8], field: [u8; 2]| {
        let mut frame = frame.to_vec();
        frame[20..22].copy_from_slice(&field);
        repaired(frame)
    };
    assert_eq!(answered(&to_group), None);
    assert_eq!(answered(&from_group), None);
    for source in [[127, 0, 0, 1], [224, 0, 0, 1], [0; 4], [255; 4], VIP4] {
        assert_eq!(answered(&with_source(source)), None);
    }
    let with_data = |flags| segment(false, &[], flags, 1, 2, false, b"0123");
    assert_eq!(answered(&fragment(&with_data(ACK), [0, 9])), None);
    assert!(answered(&fragment(&with_data(ACK), [0x20, 0])).is_some(), "a first fragment with an acknowledgement");
    // How much it carries is not known.
    assert_eq!(answered(&fragment(&with_data(FIN), [0x20, 0])), None);
}

/// The resets that the real IPVS director's kernel sent with `expire_nodest_conn`, for the segments before them: ours are the
/// same from the Ethernet type on.
#[test]
fn resets_are_those_that_the_real_director_sends() {
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ipvs-nodest-tcp.pcap");
    let frames = read_capture(capture);
    let mut compared = 0;
    for theirs in frames.iter().filter(|frame| frame[47] & RST != 0) {
        // The segment that it answers: the last one from there before it.
        let at = frames.iter().position(|frame| std::ptr::eq(frame, theirs)).expect("there");
        let asked = frames[..at].iter().rev().find(|frame| frame[34..36] == theirs[36..38] && frame[22] == 64);
        let ours = answered(asked.expect("a segment")).expect("answered");
        assert_eq!(ours[12..], theirs[12..54]);
        compared += 1;
    }
    assert_eq!(compared, 6);
}

/// Frames of a classic capture in the byte order of the machine that made it.
fn read_capture(path: &str) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).expect("reads");
    assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
    let (mut rest, mut frames) = (&bytes[24..], Vec::new());
    while !rest.is_empty() {
        let length = u32::from_le_bytes(array(rest, 8)) as usize;
        frames.push(rest[16..16 + length].to_vec());
        rest = &rest[16 + length..];
    }
    frames
}

proptest! {
    #[test]
    fn any_segment_gets_a_sound_reset_that_its_sender_takes(
        v6: bool,
        tags in proptest::collection::vec(0u16..0xfff, 0..2),
        flags in 0u8..32,
        number: u32,
        ack: u32,
        options: bool,
        data in proptest::collection::vec(any::<u8>(), 0..1400),
    ) {
        let flags = flags & (SYN | FIN | RST | ACK);
        let frame = segment(v6, &tags, flags, number, ack, options, &data);
        match answered(&frame) {
            None => prop_assert!(flags & RST != 0),
            Some(reset) => {
                let (sequence, acknowledged, answered) = read(&reset, v6, &tags);
                if flags & ACK != 0 {
                    prop_assert_eq!((sequence, acknowledged, answered), (ack, 0, RST));
                } else {
                    let sent = data.len() as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
                    prop_assert_eq!((sequence, acknowledged, answered), (0, number.wrapping_add(sent), RST | ACK));
                }
            }
        }
    }
}
