//! Fragmentation: a packet that is too large for the way on, and may be taken apart, in pieces. IPv4 (RFC 791, section 3.2),
//! and what the appliance sends as IPv6 itself (RFC 8200, section 4.5): the outer packets of tunnels (RFC 2473, section 7.1).
//!
//! Owns the cut. Pure. Never sends a piece, and never takes apart what somebody else sent as IPv6: only the sender may.

use super::checksum;
use super::io::{Frame, FrameMemory};
use super::parse::be16;
use super::verdict::DropReason;

/// Most pieces of one packet: 64 KiB at an MTU of 1280 are 52.
pub const MOST_PIECES: usize = 64;

/// Bit of an option's kind that says that each fragment has the option (RFC 791, section 3.1).
const COPIED: u8 = 0x80;

/// More fragments follow.
const MORE: u16 = 0x2000;

/// IANA number of the IPv6 fragment header.
const FRAGMENT_HEADER: u8 = 44;

/// Takes a frame with an IPv4 packet (behind at most two VLAN tags) apart, so that no piece is larger than `mtu` bytes
/// from the IP header on. The frame keeps the first piece; the others are put behind what `pieces` holds, in their order,
/// in frames of the same port, and are the caller's to send. A packet that fits stays as it is.
///
/// # Errors
/// [`DropReason::NoFrame`] if a free frame lacks, [`DropReason::TooBig`] if the packet must stay whole (DF) or would be
/// more than [`MOST_PIECES`], [`DropReason::BadIpHeader`], [`DropReason::BadIpOptions`], [`DropReason::BadLength`] and
/// [`DropReason::Truncated`] for what is no IPv4 packet that could be. The frame and `pieces` are unchanged then.
#[cold]
pub fn fragment<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    mtu: u32,
    pieces: &mut Vec<Frame>,
) -> Result<(), DropReason> {
    let bytes = memory.bytes(frame);
    let l3 = network_header(bytes, 0x0800)?;
    let ip = &bytes[l3..];
    let head: &[u8; 20] = ip.first_chunk().ok_or(DropReason::Truncated)?;
    let header = usize::from(head[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[0] >> 4 != 4 || header < 20 {
        return Err(DropReason::BadIpHeader);
    }
    if total < header {
        return Err(DropReason::BadLength);
    }
    if total > ip.len() {
        return Err(DropReason::Truncated);
    }
    let mtu = mtu as usize;
    if total <= mtu {
        return Ok(());
    }
    let field = u16::from_be_bytes([head[6], head[7]]);
    if field & 0x4000 != 0 {
        return Err(DropReason::TooBig);
    }
    let mut later = [0; 60];
    let later_header = header_of_later(&ip[..header], &mut later)?;
    let first = piece(mtu, header)?;
    let each = piece(mtu, later_header)?;
    let data = total - header;
    let offset = usize::from(field & 0x1fff);
    // The last byte of the whole packet must have a place that the header can tell (RFC 791: 65535 bytes in all).
    if offset * 8 + data > 0xffff {
        return Err(DropReason::BadLength);
    }
    let others = (data - first).div_ceil(each);
    if others >= MOST_PIECES {
        return Err(DropReason::TooBig);
    }
    let start = pieces.len();
    let length = |number: usize| each.min(data - first - number * each);
    take_frames(memory, frame, pieces, (0..others).map(|number| l3 + later_header + length(number)))?;
    // Nothing fails from here on.
    let mut link = [0; 22];
    link[..l3].copy_from_slice(&memory.bytes(frame)[..l3]);
    let mut at = first;
    for (number, made) in pieces[start..].iter_mut().enumerate() {
        let length = made.len as usize - l3 - later_header;
        made.hops = frame.hops;
        made.hint = frame.hint;
        let more = if number + 1 == others { field & MORE } else { MORE };
        let flags = field & 0x8000 | more | (offset + at / 8) as u16;
        let head = &mut later[..later_header];
        set_header(head, later_header + length, flags);
        copy(memory, frame, l3 + header + at, made, l3 + later_header, length);
        let bytes = memory.bytes_mut(made);
        bytes[..l3].copy_from_slice(&link[..l3]);
        bytes[l3..l3 + later_header].copy_from_slice(head);
        at += length;
    }
    frame.len = (l3 + header + first) as u32;
    set_header(&mut memory.bytes_mut(frame)[l3..l3 + header], header + first, field | MORE);
    Ok(())
}

/// Takes an IPv6 packet that the appliance sends apart as [`fragment`] does; `id` is the identification, which no other
/// packet between the same ends may have for a minute. The packet has no extension header.
///
/// # Errors
/// As [`fragment`], and [`DropReason::NoHeadroom`].
#[cold]
pub fn fragment_v6<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    mtu: u32,
    id: u32,
    pieces: &mut Vec<Frame>,
) -> Result<(), DropReason> {
    /// IPv6 and fragment header.
    const HEAD: usize = 48;
    let bytes = memory.bytes(frame);
    let l3 = network_header(bytes, 0x86dd)?;
    let ip = &bytes[l3..];
    let fixed: [u8; 40] = *ip.first_chunk().ok_or(DropReason::Truncated)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::BadIpHeader);
    }
    let data = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if 40 + data > ip.len() {
        return Err(DropReason::Truncated);
    }
    if 40 + data <= mtu as usize {
        return Ok(());
    }
    if matches!(fixed[6], 0 | 43 | 44 | 51 | 60) {
        return Err(DropReason::BadIpHeader);
    }
    let each = piece(mtu as usize, HEAD)?;
    let others = data.div_ceil(each) - 1;
    if others >= MOST_PIECES {
        return Err(DropReason::TooBig);
    }
    if memory.headroom(frame) < HEAD - 40 {
        return Err(DropReason::NoHeadroom);
    }
    let start = pieces.len();
    let length = |number: usize| each.min(data - (number + 1) * each);
    take_frames(memory, frame, pieces, (0..others).map(|number| l3 + HEAD + length(number)))?;
    // Nothing fails from here on.
    let mut head = [0; 22 + HEAD];
    let head = &mut head[..l3 + HEAD];
    head[..l3 + 40].copy_from_slice(&memory.bytes(frame)[..l3 + 40]);
    head[l3 + 6] = FRAGMENT_HEADER;
    head[l3 + 40] = fixed[6];
    head[l3 + 44..].copy_from_slice(&id.to_be_bytes());
    let mut put_head = |bytes: &mut [u8], at: usize, length: usize| {
        let more = u16::from(at + length < data);
        head[l3 + 4..l3 + 6].copy_from_slice(&((length + 8) as u16).to_be_bytes());
        // `at` is a multiple of eight: the lowest three bits are free.
        head[l3 + 42..l3 + 44].copy_from_slice(&(at as u16 | more).to_be_bytes());
        bytes[..l3 + HEAD].copy_from_slice(head);
    };
    for (number, made) in pieces[start..].iter_mut().enumerate() {
        let (at, length) = ((number + 1) * each, made.len as usize - l3 - HEAD);
        made.hops = frame.hops;
        made.hint = frame.hint;
        copy(memory, frame, l3 + 40 + at, made, l3 + HEAD, length);
        put_head(memory.bytes_mut(made), at, length);
    }
    frame.addr -= (HEAD - 40) as u64;
    frame.len = (l3 + HEAD + each) as u32;
    put_head(memory.bytes_mut(frame), 0, each);
    Ok(())
}

/// Takes a free frame for each length, behind what `pieces` holds; all or none.
fn take_frames<M: FrameMemory>(
    memory: &mut M,
    frame: &Frame,
    pieces: &mut Vec<Frame>,
    lengths: impl Iterator<Item = usize>,
) -> Result<(), DropReason> {
    let start = pieces.len();
    for length in lengths {
        match memory.allocate(frame.port, length as u32) {
            Some(made) => pieces.push(made),
            None => {
                pieces.drain(start..).rev().for_each(|made| memory.give_back(made));
                return Err(DropReason::NoFrame);
            }
        }
    }
    Ok(())
}

/// Where the network header begins, which has to be of this Ethernet type.
fn network_header(bytes: &[u8], ethertype: u16) -> Result<usize, DropReason> {
    let mut l3 = 14;
    loop {
        match be16(bytes, l3 - 2).ok_or(DropReason::Truncated)? {
            kind if kind == ethertype && bytes.len() >= l3 => return Ok(l3),
            0x8100 | 0x88a8 if l3 < 22 => l3 += 4,
            _ => return Err(DropReason::BadIpHeader),
        }
    }
}

/// Bytes of data in a piece that another one follows.
fn piece(mtu: usize, header: usize) -> Result<usize, DropReason> {
    match mtu.saturating_sub(header) & !7 {
        0 => Err(DropReason::TooBig),
        data => Ok(data),
    }
}

/// The header of every piece but the first: only options with the copied flag. Returns its bytes.
fn header_of_later(header: &[u8], later: &mut [u8; 60]) -> Result<usize, DropReason> {
    later[..20].copy_from_slice(&header[..20]);
    let mut length = 20;
    let mut options = &header[20..];
    while let Some(&kind) = options.first() {
        let size = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(*options.get(1).ok_or(DropReason::BadIpOptions)?),
        };
        if size == 0 || size > options.len() || (kind != 1 && size < 2) {
            return Err(DropReason::BadIpOptions);
        }
        if kind & COPIED != 0 {
            later[length..length + size].copy_from_slice(&options[..size]);
            length += size;
        }
        options = &options[size..];
    }
    // What is behind them is zero: the end of options.
    let length = length.next_multiple_of(4);
    later[0] = 0x40 | (length / 4) as u8;
    Ok(length)
}

fn set_header(header: &mut [u8], total: usize, flags: u16) {
    header[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    header[6..8].copy_from_slice(&flags.to_be_bytes());
    header[10..12].fill(0);
    let check = checksum::checksum(header);
    header[10..12].copy_from_slice(&check.to_ne_bytes());
}

/// Copies between two frames, by way of the stack: a memory lends one frame at a time.
fn copy<M: FrameMemory>(memory: &mut M, from: &Frame, source: usize, to: &Frame, destination: usize, length: usize) {
    let mut block = [0; 2048];
    let mut done = 0;
    while done < length {
        let size = (length - done).min(block.len());
        let at = source + done;
        block[..size].copy_from_slice(&memory.bytes(from)[at..at + size]);
        let at = destination + done;
        memory.bytes_mut(to)[at..at + size].copy_from_slice(&block[..size]);
        done += size;
    }
}

#[cfg(test)]
mod tests;
