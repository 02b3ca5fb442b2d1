//! IPv4 fragmentation (RFC 791, section 3.2): a packet that is too large for the way on, and may be taken apart, in
//! pieces.
//!
//! Owns the cut. Pure. Never sends a piece, and never takes an IPv6 packet apart: only its sender may (RFC 8200,
//! section 4.5).

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

/// Takes a frame with an IPv4 packet (behind at most two VLAN tags) apart, so that no piece is larger than `mtu` bytes
/// from the IP header on. The frame keeps the first piece; the others are put behind what `pieces` holds, in their order,
/// in frames of the same port, and are the caller's to send. A packet that fits stays as it is.
///
/// # Errors
/// [`DropReason::NoFrame`] if a free frame lacks, [`DropReason::TooBig`] if the packet must stay whole (DF) or would be
/// more than [`MOST_PIECES`], [`DropReason::BadIpHeader`], [`DropReason::BadIpOptions`], [`DropReason::BadLength`] and
/// [`DropReason::Truncated`] for what is no IPv4 packet that could be. The frame is unchanged then. Frames that were
/// added to `pieces` by then hold nothing, and are the caller's to release.
#[cold]
pub fn fragment<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    mtu: u32,
    pieces: &mut Vec<Frame>,
) -> Result<(), DropReason> {
    let bytes = memory.bytes(frame);
    let l3 = network_header(bytes)?;
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
    for number in 0..others {
        let length = each.min(data - first - number * each);
        let whole = (l3 + later_header + length) as u32;
        pieces.push(memory.allocate(frame.port, whole).ok_or(DropReason::NoFrame)?);
    }
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

/// Where the IPv4 header begins.
fn network_header(bytes: &[u8]) -> Result<usize, DropReason> {
    let mut l3 = 14;
    loop {
        match be16(bytes, l3 - 2).ok_or(DropReason::Truncated)? {
            0x0800 if bytes.len() >= l3 => return Ok(l3),
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
