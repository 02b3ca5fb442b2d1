//! TCP resets in the service's own name: a client's segment becomes the answer that nobody knows its connection (RFC 9293,
//! section 3.10.7.1).
//!
//! Owns when one may be sent and how it looks. Pure. Never decides that a connection ends.
//!
//! A frame is turned around in place, its tags stay. The header is as short as can be and looks as that of the kernel behind
//! IPVS: no options, window 0, TTL or hop limit 64, IPv4 with DF and identification 0 (RFC 6864, section 4.1).

use super::answer::is_martian;
use super::checksum;
use super::icmp::ends;
use super::io::{Frame, FrameMemory};
use super::parse::{Kind, Parsed, Part, TCP, tcp_flag};
use crate::model::MacAddr;

/// TTL and hop limit of a reset.
const TTL: u8 = 64;

/// Bytes of a TCP header without options.
const HEADER: usize = 20;

/// Turns a client's segment into the reset that answers it. `own` is the MAC of the interface that it came by.
///
/// `false`: none may be sent, and the frame is unchanged. A reset is never answered, nor is anything to or from a group; of a
/// fragment only what says by itself where its sender waits.
#[cold]
pub fn answer<M: FrameMemory>(memory: &mut M, frame: &mut Frame, parsed: &Parsed, own: MacAddr) -> bool {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let v6 = match parsed.kind {
        Kind::Flow4 => false,
        Kind::Flow6 => true,
        _ => return false,
    };
    let flags = parsed.tcp_flags;
    let has_ack = flags & tcp_flag::ACK != 0;
    let told_whole = parsed.part == Part::Whole || (parsed.part == Part::First && has_ack);
    if parsed.protocol != TCP || flags & tcp_flag::RST != 0 || !told_whole {
        return false;
    }
    let bytes = memory.bytes(frame);
    let group = |at: usize| bytes.get(at).is_none_or(|first| first & 1 == 1);
    let Some((from, to, _)) = ends(bytes, l3) else { return false };
    if group(0) || group(6) || is_martian(from) || is_martian(to) || from == to {
        return false;
    }
    let Some(segment) = bytes.get(l4..).and_then(|l4| l4.first_chunk::<HEADER>()).copied() else { return false };
    let word = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
    // What it acknowledges is where it waits; who acknowledges nothing is told what he sent.
    let data = parsed.l4_len.saturating_sub(u16::from(segment[12] >> 4) * 4);
    let controls = (flags & (tcp_flag::SYN | tcp_flag::FIN)).count_ones();
    let length = u32::from(data) + controls;
    let (number, ack, answered) = if has_ack {
        (word(8), 0, tcp_flag::RST)
    } else {
        (0, word(4).wrapping_add(length), tcp_flag::RST | tcp_flag::ACK)
    };
    let header = if v6 { 40 } else { 20 };
    let turned = Frame { len: (l3 + header + HEADER) as u32, ..*frame };
    if turned.len > frame.len {
        return false;
    }
    let bytes = memory.bytes_mut(&turned);
    if bytes.len() != turned.len as usize {
        return false;
    }
    bytes.copy_within(6..12, 0);
    bytes[6..12].copy_from_slice(&own.0);
    let (ip, tcp) = bytes[l3..].split_at_mut(header);
    let length_field = HEADER as u16;
    let pseudo = if v6 {
        let (source, destination) = (array::<16>(ip, 8), array::<16>(ip, 24));
        ip.fill(0);
        ip[0] = 0x60;
        ip[4..6].copy_from_slice(&length_field.to_be_bytes());
        ip[6] = TCP;
        ip[7] = TTL;
        ip[8..24].copy_from_slice(&destination);
        ip[24..40].copy_from_slice(&source);
        checksum::pseudo_header(&destination, &source, TCP, u32::from(length_field))
    } else {
        let (source, destination) = (array::<4>(ip, 12), array::<4>(ip, 16));
        ip.fill(0);
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(20 + length_field).to_be_bytes());
        ip[6] = 0x40;
        ip[8] = TTL;
        ip[9] = TCP;
        ip[12..16].copy_from_slice(&destination);
        ip[16..20].copy_from_slice(&source);
        let check = checksum::checksum(ip);
        ip[10..12].copy_from_slice(&check.to_ne_bytes());
        checksum::pseudo_header(&destination, &source, TCP, u32::from(length_field))
    };
    tcp.fill(0);
    tcp[..2].copy_from_slice(&segment[2..4]);
    tcp[2..4].copy_from_slice(&segment[..2]);
    tcp[4..8].copy_from_slice(&number.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = ((HEADER / 4) as u8) << 4;
    tcp[13] = answered;
    let check = !checksum::fold(checksum::sum(tcp, pseudo));
    tcp[16..18].copy_from_slice(&check.to_ne_bytes());
    *frame = turned;
    true
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests;
