//! PROXY protocol version 2: the client's address ahead of its stream, put there by a director that ends no connection
//! (haproxy's `proxy-protocol.txt`, section 2.2).
//!
//! Owns the header and what it does to sequence numbers. Pure: changes frames in place, never decides where they go and
//! keeps nothing; who calls keeps the client's initial sequence number (ISN) and the [`Progress`] of each flow.
//!
//! The server's stream is the client's with `length` bytes before it, at ISN + 1. So:
//! - A client's segment at ISN + 1 gets the header before its payload: the ACK that ends the handshake, so that a server
//!   that speaks first has it; the first data; any retransmission of either. Each is the same bytes at the same place,
//!   so it does not matter which of them arrive.
//! - Segments beyond ISN + 1 have `length` more in their sequence number.
//! - Segments from the server have `length` less in their acknowledgement, but never less than ISN + 1: the client has
//!   not sent the header. The edges of selective acknowledgements (RFC 2018) likewise.
//! - Once the server has acknowledged the header, nothing needs it any more: every number is shifted. Else a receiver's
//!   bare ACKs, which all are at ISN + 1, would carry it as long as the connection lasts, and a sequence number could not
//!   be told from one 4 GiB later.
//! - A reset at ISN + 1 must be where the server expects it (RFC 5961, section 3.2): behind the header once one was sent.
//! - A SYN keeps its number, but not its data, which the server could take for the stream's beginning; nor the request
//!   for Fast Open (RFC 7413) that makes a client send some. The client sends it again, as after any lost SYN data.
//! - The server's SYN-ACK announces a smaller MSS, so that a full segment with the header still fits.
//!
//! Timestamps stay. Not handled: the window that the server offers before it has acknowledged the header counts the
//! header, too, so a client that fills it has up to `length` bytes refused, which it sends again. A segment signed
//! by TCP-MD5 or TCP-AO (RFC 2385, RFC 5925) does not survive, as with any NAT.

use std::net::{IpAddr, SocketAddr};

use super::checksum::{adjust, gain, sum};
use super::io::{Frame, FrameMemory};
use super::parse::{Kind, Parsed, Part, tcp_flag};
use super::rewrite::options::{field, put_field};
use super::rewrite::{mss, options};
use super::verdict::DropReason;

/// The twelve bytes that begin every header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_COMMAND: u8 = 0x21;
/// Stream over IPv4, over IPv6.
const TCP_OVER: [u8; 2] = [0x11, 0x21];
/// TCP flag: the urgent pointer is valid.
const URG: u8 = 0x20;
/// TCP options by kind: padding, selective acknowledgement, Fast Open, experiments (RFC 6994) and Fast Open among them.
const OPTION_SACK: u8 = 5;
const OPTION_FAST_OPEN: u8 = 34;
const OPTION_EXPERIMENT: u8 = 254;
const EXPERIMENT_FAST_OPEN: [u8; 2] = [0xf9, 0x89];

/// How far the header of a flow is known to have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// None was put into a segment yet.
    #[default]
    Unsent,
    /// [`client_segment`] said [`Step::Insert`] at least once.
    Sent,
    /// [`server_segment`] said [`Step::Acknowledged`].
    Acknowledged,
}

/// What became of a segment, and what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is as it was, or (a SYN) keeps its sequence number.
    Untouched,
    /// Its sequence number or what it acknowledges was changed.
    Shifted,
    /// [`insert`] is to be called for it; it was not changed yet. The flow's progress is at least [`Progress::Sent`].
    Insert,
    /// As [`Step::Shifted`]; it acknowledges the whole header. The flow's progress is [`Progress::Acknowledged`].
    Acknowledged,
}

/// Bytes of the header, by family.
pub const fn length(v6: bool) -> u32 {
    if v6 { 52 } else { 28 }
}

/// Writes the header for a connection from `source` to `destination`, of one family, into `out` and returns its
/// length.
fn header(out: &mut [u8; 52], source: SocketAddr, destination: SocketAddr) -> Option<usize> {
    let (v6, ports) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out[16..20].copy_from_slice(&from.octets());
            out[20..24].copy_from_slice(&to.octets());
            (false, 24)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            out[16..32].copy_from_slice(&from.octets());
            out[32..48].copy_from_slice(&to.octets());
            (true, 48)
        }
        _ => return None,
    };
    let len = length(v6);
    out[..12].copy_from_slice(&SIGNATURE);
    out[12..14].copy_from_slice(&[VERSION_COMMAND, TCP_OVER[usize::from(v6)]]);
    out[14..16].copy_from_slice(&(len as u16 - 16).to_be_bytes());
    out[ports..ports + 2].copy_from_slice(&source.port().to_be_bytes());
    out[ports + 2..ports + 4].copy_from_slice(&destination.port().to_be_bytes());
    Some(len as usize)
}

/// Puts the header for the connection from `source` (the client) to `destination` (the address and port that it asked
/// for) between a segment's TCP header and its payload. The headers move into the headroom, so `frame` begins
/// earlier; offsets in `parsed` still hold, and its `l4_len` is short by the header's length. The addresses in the
/// packet do not matter: NAT may come before or after.
///
/// # Errors
/// [`DropReason::NoHeadroom`]; [`DropReason::Fragment`] for any fragment; [`DropReason::TooBig`] for what IP cannot hold;
/// [`DropReason::BadTransportHeader`] for what is no TCP segment with a whole header, or of addresses of two families.
/// The frame is unchanged then.
pub fn insert<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    source: SocketAddr,
    destination: SocketAddr,
) -> Result<(), DropReason> {
    let mut text = [0; 52];
    let len = header(&mut text, source, destination).ok_or(DropReason::BadTransportHeader)?;
    let text = &text[..len];
    if parsed.part != Part::Whole {
        return Err(DropReason::Fragment);
    }
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let bytes = memory.bytes(frame);
    let end = options::header_end(bytes, parsed).ok_or(DropReason::BadTransportHeader)?;
    // Where the length of the packet is, and where its header must end at least.
    let (length_at, header_end) = match parsed.kind {
        Kind::Flow4 => (l3 + 2, l3 + 20),
        Kind::Flow6 => (l3 + 4, l3 + 40),
        _ => return Err(DropReason::BadTransportHeader),
    };
    if l4 < header_end || !(l3 | l4).is_multiple_of(2) {
        return Err(DropReason::BadTransportHeader);
    }
    let old_length = [bytes[length_at], bytes[length_at + 1]];
    let grown = |old: u16| old.checked_add(len as u16).ok_or(DropReason::TooBig);
    let new_length = grown(u16::from_be_bytes(old_length))?.to_be_bytes();
    let segment = grown(parsed.l4_len)?.to_be_bytes();
    if memory.headroom(frame) < len {
        return Err(DropReason::NoHeadroom);
    }
    frame.addr -= len as u64;
    frame.len += len as u32;
    let bytes = memory.bytes_mut(frame);
    bytes.copy_within(len..len + end, 0);
    bytes[end..end + len].copy_from_slice(text);
    if parsed.kind == Kind::Flow4 {
        let check = u16::from_ne_bytes([bytes[l3 + 10], bytes[l3 + 11]]);
        let check = adjust(check, gain(&old_length, &new_length));
        bytes[l3 + 10..l3 + 12].copy_from_slice(&check.to_ne_bytes());
    }
    bytes[length_at..length_at + 2].copy_from_slice(&new_length);
    // The pseudo-header has the segment's length. The payload moves by an even number of bytes, so its sum stays.
    let mut change = gain(&parsed.l4_len.to_be_bytes(), &segment) + sum(text, 0);
    if bytes[l4 + 13] & URG != 0 {
        // What is urgent ends `len` bytes further behind the segment's number.
        let old = [bytes[l4 + 18], bytes[l4 + 19]];
        let new = u16::from_be_bytes(old).saturating_add(len as u16).to_be_bytes();
        bytes[l4 + 18..l4 + 20].copy_from_slice(&new);
        change += gain(&old, &new);
    }
    options::mend(bytes, l4, change);
    Ok(())
}

/// The sequence number of a client's SYN. Ports come again: a SYN that begins a new connection in an old flow's place
/// begins its ISN and [`Progress`] anew as well. Whether it does, the flow's state tells; this does not.
pub fn opens(bytes: &[u8], parsed: &Parsed) -> Option<u32> {
    options::header_end(bytes, parsed)?;
    let l4 = usize::from(parsed.l4);
    let syn = bytes[l4 + 13] & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST) == tcp_flag::SYN;
    syn.then(|| field(bytes, l4, 4))
}

/// Readies a segment from the client for its server. `isn` is the sequence number of its SYN, `length` the header's
/// ([`length`] of the client's family), `progress` how far the flow's header has come.
///
/// # Errors
/// [`DropReason::BadTransportHeader`] for what is no TCP segment with a whole header.
pub fn client_segment(
    bytes: &mut [u8],
    parsed: &mut Parsed,
    isn: u32,
    length: u32,
    progress: Progress,
) -> Result<Step, DropReason> {
    if parsed.part == Part::Later {
        return Ok(Step::Untouched);
    }
    let end = options::header_end(bytes, parsed).ok_or(DropReason::BadTransportHeader)?;
    let l4 = usize::from(parsed.l4);
    let flags = bytes[l4 + 13];
    if flags & tcp_flag::SYN != 0 {
        options::edit(bytes, parsed, |option| {
            let experiment = option[0] == OPTION_EXPERIMENT && option.get(2..4) == Some(&EXPERIMENT_FAST_OPEN);
            if option[0] == OPTION_FAST_OPEN || experiment {
                option.fill(options::NOP);
            }
        });
        drop_payload(bytes, parsed, end);
        return Ok(Step::Untouched);
    }
    let number = field(bytes, l4, 4);
    let reset = flags & tcp_flag::RST != 0;
    // Unsent data is at most a window (1 GiB) ahead, so the sign tells before from behind.
    let shift = match number.wrapping_sub(isn.wrapping_add(1)).cast_signed() {
        _ if progress == Progress::Acknowledged => true,
        0 if reset => progress == Progress::Sent,
        0 => return Ok(Step::Insert),
        ahead => ahead > 0,
    };
    if !shift {
        return Ok(Step::Untouched);
    }
    put_field(bytes, l4, 4, number.wrapping_add(length));
    Ok(Step::Shifted)
}

/// Cuts off what a SYN carries. The bytes stay in the frame, behind the packet's end.
fn drop_payload(bytes: &mut [u8], parsed: &mut Parsed, end: usize) {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let len = usize::from(parsed.l4_len);
    let cut = (l4 + len).saturating_sub(end);
    let at = if parsed.kind == Kind::Flow4 { l3 + 2 } else { l3 + 4 };
    let (Some(payload), true) = (bytes.get(end..end + cut), cut > 0 && at + 2 <= l4 && parsed.part == Part::Whole)
    else {
        return;
    };
    let payload = gain(payload, &[]);
    let old = [bytes[at], bytes[at + 1]];
    let new = u16::from_be_bytes(old).saturating_sub(cut as u16).to_be_bytes();
    bytes[at..at + 2].copy_from_slice(&new);
    if parsed.kind == Kind::Flow4 && l3 + 20 <= l4 {
        let check = adjust(u16::from_ne_bytes([bytes[l3 + 10], bytes[l3 + 11]]), gain(&old, &new));
        bytes[l3 + 10..l3 + 12].copy_from_slice(&check.to_ne_bytes());
    }
    let shorter = (len - cut) as u16;
    options::mend(bytes, l4, payload + gain(&parsed.l4_len.to_be_bytes(), &shorter.to_be_bytes()));
    parsed.l4_len = shorter;
}

/// Readies a segment from the server for its client; the arguments as in [`client_segment`].
///
/// # Errors
/// [`DropReason::BadTransportHeader`] for what is no TCP segment with a whole header.
pub fn server_segment(
    bytes: &mut [u8],
    parsed: &Parsed,
    isn: u32,
    length: u32,
    progress: Progress,
) -> Result<Step, DropReason> {
    if parsed.part == Part::Later {
        return Ok(Step::Untouched);
    }
    options::header_end(bytes, parsed).ok_or(DropReason::BadTransportHeader)?;
    let l4 = usize::from(parsed.l4);
    let flags = bytes[l4 + 13];
    let mut changed = flags & tcp_flag::SYN != 0 && mss::lower(bytes, parsed, length as u16);
    let first = isn.wrapping_add(1);
    let lowered = |number: u32| {
        let ahead = number.wrapping_sub(first).cast_signed();
        let by = if progress == Progress::Acknowledged { length } else { ahead.clamp(0, length.cast_signed()) as u32 };
        number.wrapping_sub(by)
    };
    if flags & tcp_flag::ACK == 0 {
        return Ok(if changed { Step::Shifted } else { Step::Untouched });
    }
    if flags & tcp_flag::SYN == 0 {
        changed |= options::edit(bytes, parsed, |option| {
            if option[0] == OPTION_SACK {
                for edge in option[2..].chunks_exact_mut(4) {
                    let number = u32::from_be_bytes([edge[0], edge[1], edge[2], edge[3]]);
                    edge.copy_from_slice(&lowered(number).to_be_bytes());
                }
            }
        });
    }
    let number = field(bytes, l4, 8);
    // A SYN-ACK that comes again late acknowledges the SYN and nothing behind it.
    let new = if flags & tcp_flag::SYN != 0 { number } else { lowered(number) };
    if new == number {
        return Ok(if changed { Step::Shifted } else { Step::Untouched });
    }
    put_field(bytes, l4, 8, new);
    let all = progress == Progress::Acknowledged || number.wrapping_sub(first) >= length;
    Ok(if all { Step::Acknowledged } else { Step::Shifted })
}

#[cfg(test)]
pub(in crate::dataplane) mod tests;
