//! The fragment part of the parser: what fragment of which packet a frame holds, and the rules for its length.
//!
//! Pure functions over bytes. Never remembers a fragment; [`crate::dataplane::fragment`] does.

use std::net::IpAddr;

use super::{Kind, Parsed, Part, SCTP, TCP, transport_minimum};
use crate::dataplane::verdict::DropReason;

/// IANA protocol number of the IPv6 fragment header.
pub(super) const FRAGMENT_HEADER: u8 = 44;

/// What all fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentId {
    /// Source address; an IPv4 address is in the first four bytes.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// Identification, host order: 16 bits for IPv4, 32 for IPv6.
    pub id: u32,
    /// IPv4 (RFC 791, section 3.2): the protocol. IPv6: 0, for fragments of one packet may name different next headers
    /// (RFC 8200, section 4.5).
    pub protocol: u8,
    /// Whether the addresses are IPv6.
    pub v6: bool,
}

impl FragmentId {
    /// The destination address.
    pub fn destination(&self) -> IpAddr {
        let [a, b, c, d, ..] = self.destination;
        if self.v6 { IpAddr::from(self.destination) } else { IpAddr::from([a, b, c, d]) }
    }
}

/// One fragment: which bytes of which packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The packet.
    pub id: FragmentId,
    /// First byte, counted from where the fragmentable part of the packet begins; a multiple of 8.
    pub start: u16,
    /// The byte after the last; above `start`.
    pub end: u16,
    /// Whether more fragments follow.
    pub more: bool,
}

/// Whether a packet is whole, by the 13 bits of its fragment offset and its "more fragments" flag.
pub(super) fn part_of(offset: u16, more: bool) -> Part {
    match (offset, more) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    }
}

/// The rules for one fragment's length: each has data, all but the last a multiple of eight bytes (RFC 791, section
/// 3.2; RFC 8200, section 4.5), and none reaches past the largest packet. `before` is what counts towards the packet's
/// length besides.
pub(super) fn check_length(before: usize, offset: u16, len: u16, more: bool) -> Result<(), DropReason> {
    let end = usize::from(offset) * 8 + usize::from(len);
    if len == 0 || (more && !len.is_multiple_of(8)) || before + end > usize::from(u16::MAX) {
        return Err(DropReason::BadLength);
    }
    Ok(())
}

/// A later fragment whose protocol is known. It must not begin inside the transport header, where it could change what
/// was judged by the first one (RFC 1858, section 4).
pub(super) fn later(mut parsed: Parsed, offset: u16, kind: Kind) -> Result<Parsed, DropReason> {
    parsed.part = Part::Later;
    if let Some(minimum) = transport_minimum(parsed.protocol) {
        if offset.saturating_mul(8) < minimum {
            return Err(DropReason::FragmentTiny);
        }
        parsed.kind = kind;
    }
    Ok(parsed)
}

/// A first fragment with ports must hold its whole transport header (RFC 1858, section 3; RFC 7112, section 5): of TCP
/// with its options, of SCTP the common header.
pub(super) fn check_first(bytes: &[u8], parsed: &Parsed) -> Result<(), DropReason> {
    let Some(minimum) = transport_minimum(parsed.protocol) else { return Ok(()) };
    if parsed.l4_len < minimum {
        return Err(DropReason::FragmentTiny);
    }
    if parsed.protocol == TCP {
        let words = bytes.get(usize::from(parsed.l4) + 12).ok_or(DropReason::Truncated)? >> 4;
        let header = u16::from(words) * 4;
        if header < minimum {
            return Err(DropReason::BadTransportHeader);
        }
        if header > parsed.l4_len {
            return Err(DropReason::FragmentTiny);
        }
    }
    Ok(())
}

/// Whether a later fragment may turn out to have ports although it does not say so: an IPv6 one whose fragment header
/// names another extension header, which only the first fragment has.
pub fn may_have_ports(parsed: &Parsed, fragment: &Fragment) -> bool {
    matches!(parsed.kind, Kind::Flow4 | Kind::Flow6)
        || (parsed.part == Part::Later && fragment.id.v6 && matches!(parsed.protocol, 43 | 51 | 60 | 135 | 139 | 140))
}

/// Makes a later fragment one of the protocol that its first one has, where the two differ.
pub fn adopt_protocol(parsed: &mut Parsed, v6: bool, protocol: u8) {
    parsed.protocol = protocol;
    parsed.kind = match protocol {
        TCP | super::UDP | SCTP if v6 => Kind::Flow6,
        TCP | super::UDP | SCTP => Kind::Flow4,
        _ => Kind::Other,
    };
}

/// Which fragment of which packet this is; `None` for a whole packet, and for what is no IP packet. `parsed` must be
/// the parse of `bytes`.
pub fn fragment_of(bytes: &[u8], parsed: &Parsed) -> Option<Fragment> {
    if parsed.part == Part::Whole {
        return None;
    }
    let ip = bytes.get(usize::from(parsed.l3)..)?;
    if ip.first()? >> 4 == 4 { fragment_v4(ip, parsed) } else { fragment_v6(ip, parsed) }
}

fn address(ip: &[u8], at: usize, len: usize) -> Option<[u8; 16]> {
    let mut address = [0; 16];
    address[..len].copy_from_slice(ip.get(at..at + len)?);
    Some(address)
}

fn fragment_v4(ip: &[u8], parsed: &Parsed) -> Option<Fragment> {
    let head: &[u8; 20] = ip.first_chunk()?;
    let id = FragmentId {
        source: address(head, 12, 4)?,
        destination: address(head, 16, 4)?,
        id: u32::from(u16::from_be_bytes([head[4], head[5]])),
        protocol: head[9],
        v6: false,
    };
    let word = u16::from_be_bytes([head[6], head[7]]);
    let start = (word & 0x1fff) * 8;
    Some(Fragment { id, start, end: start.checked_add(parsed.l4_len)?, more: word & 0x2000 != 0 })
}

/// The fragment header is looked for again: only the first fragment has other headers behind it.
fn fragment_v6(ip: &[u8], parsed: &Parsed) -> Option<Fragment> {
    let end = usize::from(parsed.l4 - parsed.l3) + usize::from(parsed.l4_len);
    let mut next = *ip.get(6)?;
    let mut at = 40;
    while next != FRAGMENT_HEADER {
        let ext: &[u8; 2] = ip.get(at..end)?.first_chunk()?;
        let len = if next == 51 { (usize::from(ext[1]) + 2) * 4 } else { (usize::from(ext[1]) + 1) * 8 };
        next = ext[0];
        at += len;
    }
    let ext: &[u8; 8] = ip.get(at..end)?.first_chunk()?;
    let word = u16::from_be_bytes([ext[2], ext[3]]);
    let id = FragmentId {
        source: address(ip, 8, 16)?,
        destination: address(ip, 24, 16)?,
        id: u32::from_be_bytes([ext[4], ext[5], ext[6], ext[7]]),
        protocol: 0,
        v6: true,
    };
    let start = word & 0xfff8;
    let len = u16::try_from(end - at - 8).ok()?;
    Some(Fragment { id, start, end: start.checked_add(len)?, more: word & 1 != 0 })
}
