//! Pieces put together again are the packet.

use proptest::prelude::*;

use super::*;
use crate::dataplane::io::memory::HeapMemory;

/// An IPv4 packet in Ethernet, with `tags` VLAN tags, options and a fragment field.
fn packet(tags: usize, options: &[u8], field: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
    for tag in 0..tags {
        frame.extend_from_slice(&[0x81, 0, 0, tag as u8 + 5]);
    }
    frame.extend_from_slice(&[8, 0]);
    let mut padded = options.to_vec();
    padded.resize(options.len().next_multiple_of(4), 0);
    let header = 20 + padded.len();
    let mut ip = vec![0x40 | (header / 4) as u8, 0xb9, 0, 0, 0x12, 0x34, 0, 0, 63, 17, 0, 0];
    ip.extend_from_slice(&[198, 51, 100, 7, 192, 0, 2, 10]);
    ip.extend_from_slice(&padded);
    ip[2..4].copy_from_slice(&((header + data.len()) as u16).to_be_bytes());
    ip[6..8].copy_from_slice(&field.to_be_bytes());
    let check = checksum::checksum(&ip);
    ip[10..12].copy_from_slice(&check.to_ne_bytes());
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(data);
    frame
}

struct Cut {
    result: Result<(), DropReason>,
    pieces: Vec<Vec<u8>>,
    /// Frames in the hands of the worker: its own and those made.
    held: usize,
}

fn cut(bytes: &[u8], mtu: u32, frames: u32) -> Cut {
    cut_by(bytes, frames, |memory, frame, others| fragment(memory, frame, mtu, others))
}

fn cut_by(
    bytes: &[u8],
    frames: u32,
    by: impl FnOnce(&mut HeapMemory, &mut Frame, &mut Vec<Frame>) -> Result<(), DropReason>,
) -> Cut {
    let mut memory = HeapMemory::new(frames, 16384);
    let mut frame = memory.allocate(2, bytes.len() as u32).expect("room");
    memory.bytes_mut(&frame).copy_from_slice(bytes);
    let before = frame;
    let mut others = Vec::new();
    let result = by(&mut memory, &mut frame, &mut others);
    let held = memory.frames() - memory.free();
    assert_eq!(held, 1 + others.len(), "each frame that was taken is in the list");
    if result.is_err() {
        assert_eq!((frame, memory.bytes(&frame), others.len()), (before, bytes, 0));
        return Cut { result, pieces: Vec::new(), held };
    }
    assert!(others.iter().all(|piece| piece.port == 2));
    let pieces = std::iter::once(&frame).chain(&others).map(|piece| memory.bytes(piece).to_vec()).collect();
    Cut { result, pieces, held }
}

/// Data with its place, and whether more follows; the header is checked.
fn read(piece: &[u8], l3: usize) -> (usize, bool, Vec<u8>, Vec<u8>) {
    let ip = &piece[l3..];
    let header = usize::from(ip[0] & 0xf) * 4;
    assert_eq!(checksum::fold(checksum::sum(&ip[..header], 0)), 0xffff);
    assert_eq!(usize::from(be16(ip, 2).expect("length")), ip.len());
    assert_eq!((ip[1], &ip[4..6], ip[8], ip[9]), (0xb9, &[0x12, 0x34][..], 63, 17));
    assert_eq!(ip[12..20], [198, 51, 100, 7, 192, 0, 2, 10]);
    let field = be16(ip, 6).expect("field");
    (usize::from(field & 0x1fff) * 8, field & MORE != 0, ip[20..header].to_vec(), ip[header..].to_vec())
}

#[test]
fn a_packet_that_fits_stays() {
    let bytes = packet(1, &[], 0, &[7; 100]);
    let cut = cut(&bytes, 120, 4);
    assert_eq!((cut.result, cut.pieces, cut.held), (Ok(()), vec![bytes], 1));
}

#[test]
fn a_packet_that_must_stay_whole_is_refused() {
    assert_eq!(cut(&packet(0, &[], 0x4000, &[7; 100]), 119, 4).result, Err(DropReason::TooBig));
    assert_eq!(cut(&packet(0, &[], 0, &[7; 100]), 27, 90).result, Err(DropReason::TooBig), "no room for data");
    assert_eq!(cut(&packet(0, &[], 0, &[7; 8 * 65]), 28, 90).result, Err(DropReason::TooBig), "too many pieces");
    assert_eq!(cut(&packet(0, &[], 0, &[7; 8 * 64]), 28, 90).pieces.len(), 64);
    assert_eq!(cut(&packet(0, &[], 0x1fff, &[7; 100]), 60, 9).result, Err(DropReason::BadLength));
}

#[test]
fn without_a_free_frame_nothing_changes() {
    let bytes = packet(0, &[], 0, &[7; 1000]);
    for frames in 1..4 {
        let cut = cut(&bytes, 300, frames);
        assert_eq!(cut.result, Err(DropReason::NoFrame));
        assert_eq!(cut.held, 1, "those taken are given back");
    }
    assert_eq!(cut(&bytes, 300, 4).pieces.len(), 4);
}

#[test]
fn options_with_the_copied_flag_are_in_each_piece() {
    // Timestamp (not copied), router alert (copied), no operation.
    let options = [68, 4, 5, 0, 1, 148, 4, 0, 0];
    let cut = cut(&packet(0, &options, 0, &[7; 200]), 100, 9);
    let all: Vec<_> = cut.pieces.iter().map(|piece| read(piece, 14)).collect();
    assert_eq!(all[0].2, [68, 4, 5, 0, 1, 148, 4, 0, 0, 0, 0, 0]);
    assert!(all[1..].iter().all(|piece| piece.2 == [148, 4, 0, 0]));
    // 100 - 32 = 68, 64 of them; then 100 - 24 = 76, 72 of them.
    assert_eq!(all.iter().map(|piece| piece.3.len()).collect::<Vec<_>>(), [64, 72, 64]);
}

#[test]
fn malformed_packets_are_refused() {
    for (bytes, reason) in [
        (packet(0, &[68, 9, 0, 0], 0, &[7; 100]), DropReason::BadIpOptions),
        (packet(0, &[68, 0, 0, 0], 0, &[7; 100]), DropReason::BadIpOptions),
        (packet(0, &[148, 1, 0, 0], 0, &[7; 100]), DropReason::BadIpOptions),
        (packet(3, &[], 0, &[7; 100]), DropReason::BadIpHeader),
        (packet(0, &[], 0, &[7; 100])[..90].to_vec(), DropReason::Truncated),
        (packet(0, &[], 0, &[7; 100])[..20].to_vec(), DropReason::Truncated),
        (vec![0; 5], DropReason::Truncated),
        (vec![0; 60], DropReason::BadIpHeader),
    ] {
        assert_eq!(cut(&bytes, 80, 9).result, Err(reason));
    }
}

const ID: u32 = 0xdead_beef;

fn cut_v6(bytes: &[u8], mtu: u32, frames: u32) -> Cut {
    cut_by(bytes, frames, |memory, frame, others| fragment_v6(memory, frame, mtu, ID, others))
}

/// An IPv6 packet in Ethernet, with `tags` VLAN tags.
fn packet_v6(tags: usize, next: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
    for tag in 0..tags {
        frame.extend_from_slice(&[0x81, 0, 0, tag as u8 + 5]);
    }
    frame.extend_from_slice(&[0x86, 0xdd, 0x6b, 0x90, 0, 0]);
    frame.extend_from_slice(&(data.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[next, 63]);
    frame.extend_from_slice(&[0x20; 16]);
    frame.extend_from_slice(&[0x30; 16]);
    frame.extend_from_slice(data);
    frame
}

#[test]
fn ipv6_that_cannot_be_cut_is_refused_and_unchanged() {
    let bytes = packet_v6(0, 41, &[7; 100]);
    assert_eq!(cut_v6(&bytes, 140, 1).pieces, std::slice::from_ref(&bytes), "it fits");
    assert_eq!(cut_v6(&bytes, 139, 1).result, Err(DropReason::NoFrame));
    assert_eq!(cut_v6(&packet_v6(0, 41, &[7; 1000]), 200, 3).result, Err(DropReason::NoFrame));
    assert_eq!(cut_v6(&bytes, 55, 9).result, Err(DropReason::TooBig), "no room for data");
    assert_eq!(cut_v6(&packet_v6(0, 41, &[7; 8 * 65]), 56, 90).result, Err(DropReason::TooBig), "too many pieces");
    assert_eq!(cut_v6(&packet_v6(0, 41, &[7; 8 * 64]), 56, 90).pieces.len(), 64);
    assert_eq!(cut_v6(&packet_v6(0, 44, &[7; 100]), 100, 9).result, Err(DropReason::BadIpHeader));
    assert_eq!(cut_v6(&packet(0, &[], 0, &[7; 100]), 80, 9).result, Err(DropReason::BadIpHeader));
    assert_eq!(cut_v6(&bytes[..150], 80, 9).result, Err(DropReason::Truncated));
    assert_eq!(cut_v6(&bytes[..40], 80, 9).result, Err(DropReason::Truncated));
    let no_headroom = cut_by(&bytes, 9, |memory, frame, others| {
        let mut moved = Frame { addr: frame.addr - memory.headroom(frame) as u64 + 7, ..*frame };
        memory.bytes_mut(&moved).copy_from_slice(&bytes);
        fragment_v6(memory, &mut moved, 100, ID, others)
    });
    assert_eq!(no_headroom.result, Err(DropReason::NoHeadroom));
}

proptest! {
    #[test]
    fn ipv6_pieces_together_are_the_packet(
        tags in 0usize..3, data in proptest::collection::vec(any::<u8>(), 1..9000), mtu in 240u32..1600,
        padding in 0usize..30,
    ) {
        let l3 = 14 + 4 * tags;
        let mut bytes = packet_v6(tags, 41, &data);
        let fits = bytes.len() - l3 <= mtu as usize;
        bytes.resize(bytes.len() + padding, 0xee);
        let cut = cut_v6(&bytes, mtu, 64);
        prop_assert_eq!(cut.result, Ok(()));
        if fits {
            prop_assert_eq!(&cut.pieces, &[bytes]);
            return Ok(());
        }
        let mut whole = Vec::new();
        for (number, piece) in cut.pieces.iter().enumerate() {
            let ip = &piece[l3..];
            prop_assert!(ip.len() <= mtu as usize);
            prop_assert_eq!(&piece[..l3 + 4], &bytes[..l3 + 4]);
            prop_assert_eq!(usize::from(be16(ip, 4).expect("length")), ip.len() - 40);
            prop_assert_eq!((ip[6], &ip[7..40]), (44, &bytes[l3 + 7..l3 + 40]));
            prop_assert_eq!((ip[40], ip[41], &ip[44..48]), (41, 0, &ID.to_be_bytes()[..]));
            let field = be16(ip, 42).expect("offset");
            let last = number + 1 == cut.pieces.len();
            prop_assert_eq!((usize::from(field & 0xfff8), field & 7), (whole.len(), u16::from(!last)));
            prop_assert!(last || (ip.len() - 48) % 8 == 0);
            whole.extend_from_slice(&ip[48..]);
        }
        prop_assert_eq!(whole, data);
    }
    #[test]
    fn pieces_together_are_the_packet(
        tags in 0usize..3, data in proptest::collection::vec(any::<u8>(), 1..9000), mtu in 240u32..1600,
        offset in 0u16..1000, more: bool, padding in 0usize..30, copied: bool, plain: bool,
    ) {
        let mut options = Vec::new();
        if plain {
            options.extend_from_slice(&[7, 7, 4, 1, 2, 3, 4]);
        }
        if copied {
            options.extend_from_slice(&[130, 5, 1, 2, 3]);
        }
        let l3 = 14 + 4 * tags;
        let mut bytes = packet(tags, &options, offset | if more { MORE } else { 0 }, &data);
        bytes.resize(bytes.len() + padding, 0xee);
        let cut = cut(&bytes, mtu, 64);
        prop_assert_eq!(cut.result, Ok(()));
        let mut whole = Vec::new();
        let count = cut.pieces.len();
        for (number, piece) in cut.pieces.iter().enumerate() {
            if count == 1 {
                prop_assert_eq!(piece, &bytes);
                return Ok(());
            }
            prop_assert_eq!(&piece[..l3], &bytes[..l3]);
            prop_assert!(piece.len() - l3 <= mtu as usize);
            let (at, follows, _, part) = read(piece, l3);
            let last = number + 1 == count;
            prop_assert_eq!(at, usize::from(offset) * 8 + whole.len());
            prop_assert_eq!(follows, !last || more);
            prop_assert!(last || part.len() % 8 == 0);
            whole.extend_from_slice(&part);
        }
        prop_assert_eq!(whole, data);
    }
}
