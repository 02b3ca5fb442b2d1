//! One parse of a frame: which flow it belongs to, or what else it is.
//!
//! Pure functions over bytes. Never changes a frame, never reads past its end, never looks anything up. Offsets are
//! from the start of the Ethernet header; keys hold addresses and ports as they lie in the packet (network order).

mod fragment;

use super::verdict::DropReason;
use fragment::FRAGMENT_HEADER;
pub use fragment::{Fragment, FragmentId, adopt_protocol, fragment_of, may_have_ports};

/// "Untagged" in [`Parsed::vlan`] and in next hops.
pub const NO_VLAN: u16 = 0xffff;

/// Most IPv6 extension headers that are walked (RFC 8200 lists seven kinds).
const MAX_EXTENSIONS: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// IANA protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;
/// IANA protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// IANA protocol number of SCTP.
pub const SCTP: u8 = 132;

/// TCP flag bits.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is valid.
    pub const ACK: u8 = 0x10;
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP, UDP or SCTP over IPv4.
    Flow4,
    /// TCP, UDP or SCTP over IPv6.
    Flow6,
    /// ARP for Ethernet and IPv4.
    Arp,
    /// ICMP.
    Icmp4,
    /// ICMPv6, neighbour discovery included.
    Icmp6,
    /// Anything else.
    Other,
}

/// Whether an IP packet is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// It is.
    #[default]
    Whole,
    /// The first fragment: it has the transport header.
    First,
    /// Another fragment: [`Parsed::l4`] is where its payload begins, and its ports are in
    /// [`super::io::Frame::hint`] once they are known.
    Later,
}

/// The result of a parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What the frame is.
    pub kind: Kind,
    /// IP protocol number of the transport header.
    pub protocol: u8,
    /// TCP flags; 0 for other protocols.
    pub tcp_flags: u8,
    /// Whether the packet is whole.
    pub part: Part,
    /// VLAN tags in the frame.
    pub tags: u8,
    /// Outermost VLAN id (12 bits), or [`NO_VLAN`].
    pub vlan: u16,
    /// Offset of the network header.
    pub l3: u16,
    /// Offset of the transport header.
    pub l4: u16,
    /// Bytes of the transport header and payload, by the IP header's length.
    pub l4_len: u16,
}

/// Reads a big-endian `u16`; `None` past the end.
#[inline]
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

/// A plain packet: what [`plain_v4`] found.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// Source address, then destination address, as in the packet.
    pub addresses: u64,
    /// Source port, then destination port, as in the packet.
    pub ports: u32,
    /// Bytes of the packet from the IP header on, by its length field.
    pub total: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags; 0 for other protocols.
    pub tcp_flags: u8,
}

/// The frequent case in one go: an untagged IPv4 packet without options or fragmentation, header checksum right,
/// TTL above 1, TCP, UDP or SCTP with a whole header. `None`: [`parse`] finds out what it is.
#[inline(always)]
pub fn plain_v4(bytes: &[u8]) -> Option<Plain> {
    const LAYOUT: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
    const IPV4_NO_OPTIONS: u32 = u32::from_ne_bytes([0x08, 0x00, 0x45, 0]);
    const FRAGMENT: u32 = u32::from_ne_bytes([0x3f, 0xff, 0, 0]);
    let head: &[u8; 42] = bytes.first_chunk()?;
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let total = u16::from_be_bytes([head[16], head[17]]);
    let protocol = head[23];
    if word(12) & LAYOUT != IPV4_NO_OPTIONS
        || word(20) & FRAGMENT != 0
        || head[22] < 2
        || usize::from(total) + 14 > bytes.len()
    {
        return None;
    }
    // The ones' complement sum of a header with a right checksum is 0xffff (RFC 1071).
    let sum =
        u64::from(word(14)) + u64::from(word(18)) + u64::from(word(22)) + u64::from(word(26)) + u64::from(word(30));
    let (low, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let low = low + u32::from(carry);
    if low.wrapping_add(low.rotate_left(16)) >> 16 != 0xffff {
        return None;
    }
    let mut tcp_flags = 0;
    if protocol == UDP {
        if total < 28 {
            return None;
        }
    } else if protocol == TCP {
        if total < 40 {
            return None;
        }
        tcp_flags = *bytes.get(47)?;
    } else if protocol != SCTP || total < 32 {
        return None;
    }
    let addresses = u64::from_ne_bytes(*head[26..].first_chunk()?);
    Some(Plain { addresses, ports: word(34), total, protocol, tcp_flags })
}

/// The frequent case of IPv6: untagged, no extension headers, hop limit above 1, TCP or UDP with a whole header. The
/// addresses are left to the caller ([`Plain::addresses`] is 0); the total includes the IP header.
#[inline(always)]
pub fn plain_v6(bytes: &[u8]) -> Option<Plain> {
    let head: &[u8; 62] = bytes.first_chunk()?;
    let payload = u16::from_be_bytes([head[18], head[19]]);
    let protocol = head[20];
    if head[12] != 0x86
        || head[13] != 0xdd
        || head[14] >> 4 != 6
        || head[21] < 2
        || usize::from(payload) + 54 > bytes.len()
    {
        return None;
    }
    let tcp_flags = match protocol {
        UDP if payload >= 8 => 0,
        TCP if payload >= 20 => *bytes.get(67)?,
        _ => return None,
    };
    let ports = u32::from_ne_bytes([head[54], head[55], head[56], head[57]]);
    Some(Plain { addresses: 0, ports, total: payload + 40, protocol, tcp_flags })
}

/// [`plain_v4`] with the result of [`parse`].
pub fn parse_plain_v4(bytes: &[u8]) -> Option<Parsed> {
    let plain = plain_v4(bytes)?;
    Some(Parsed {
        kind: Kind::Flow4,
        protocol: plain.protocol,
        tcp_flags: plain.tcp_flags,
        part: Part::Whole,
        tags: 0,
        vlan: NO_VLAN,
        l3: 14,
        l4: 34,
        l4_len: plain.total - 20,
    })
}

/// Parses any frame.
///
/// # Errors
/// The reason for which the frame must be dropped, if it turns out to be for an owned address.
pub fn parse(bytes: &[u8]) -> Result<Parsed, DropReason> {
    let mut parsed = Parsed {
        kind: Kind::Other,
        protocol: 0,
        tcp_flags: 0,
        part: Part::Whole,
        tags: 0,
        vlan: NO_VLAN,
        l3: 14,
        l4: 0,
        l4_len: 0,
    };
    let mut ethertype = be16(bytes, 12).ok_or(DropReason::Truncated)?;
    while ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
        if parsed.tags == 2 {
            return Err(DropReason::BadVlan);
        }
        let l3 = usize::from(parsed.l3);
        let tci = be16(bytes, l3).ok_or(DropReason::Truncated)?;
        if parsed.tags == 0 {
            parsed.vlan = tci & 0x0fff;
        }
        ethertype = be16(bytes, l3 + 2).ok_or(DropReason::Truncated)?;
        parsed.tags += 1;
        parsed.l3 += 4;
    }
    match ethertype {
        ETHERTYPE_IPV4 => parse_v4(bytes, parsed),
        ETHERTYPE_IPV6 => parse_v6(bytes, parsed),
        ETHERTYPE_ARP => {
            parsed.kind = Kind::Arp;
            Ok(parsed)
        }
        _ => Ok(parsed),
    }
}

fn parse_v4(bytes: &[u8], mut parsed: Parsed) -> Result<Parsed, DropReason> {
    let ip = bytes.get(usize::from(parsed.l3)..).ok_or(DropReason::Truncated)?;
    let head: &[u8; 20] = ip.first_chunk().ok_or(DropReason::Truncated)?;
    let header_len = usize::from(head[0] & 0x0f) * 4;
    if head[0] >> 4 != 4 || header_len < 20 {
        return Err(DropReason::BadIpHeader);
    }
    let total = u16::from_be_bytes([head[2], head[3]]);
    if usize::from(total) < header_len {
        return Err(DropReason::BadLength);
    }
    if usize::from(total) > ip.len() {
        return Err(DropReason::Truncated);
    }
    let header = ip.get(..header_len).ok_or(DropReason::Truncated)?;
    if super::checksum::fold(super::checksum::sum(header, 0)) != 0xffff {
        return Err(DropReason::BadIpChecksum);
    }
    check_v4_options(&header[20..])?;
    parsed.protocol = head[9];
    parsed.l4 = parsed.l3 + header_len as u16;
    parsed.l4_len = total - header_len as u16;
    let word = u16::from_be_bytes([head[6], head[7]]);
    let (offset, more) = (word & 0x1fff, word & 0x2000 != 0);
    parsed.part = fragment::part_of(offset, more);
    if parsed.part != Part::Whole {
        fragment::check_length(header_len, offset, parsed.l4_len, more)?;
        if parsed.part == Part::Later {
            return fragment::later(parsed, offset, Kind::Flow4);
        }
    }
    if parsed.protocol == ICMP {
        parsed.kind = Kind::Icmp4;
        return Ok(parsed);
    }
    transport(bytes, parsed, Kind::Flow4)
}

/// Walks IPv4 options (RFC 791, section 3.1): lengths must fit, and source routes are refused.
fn check_v4_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let Some(&kind) = options.first() {
        match kind {
            0 => return Ok(()),
            1 => options = &options[1..],
            _ => {
                let len = usize::from(*options.get(1).ok_or(DropReason::BadIpOptions)?);
                if len < 2 || len > options.len() {
                    return Err(DropReason::BadIpOptions);
                }
                if kind == 131 || kind == 137 {
                    return Err(DropReason::SourceRoute);
                }
                options = &options[len..];
            }
        }
    }
    Ok(())
}

fn parse_v6(bytes: &[u8], mut parsed: Parsed) -> Result<Parsed, DropReason> {
    let ip = bytes.get(usize::from(parsed.l3)..).ok_or(DropReason::Truncated)?;
    let head: &[u8; 40] = ip.first_chunk().ok_or(DropReason::Truncated)?;
    if head[0] >> 4 != 6 {
        return Err(DropReason::BadIpHeader);
    }
    let payload = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let packet = ip.get(..40 + payload).ok_or(DropReason::Truncated)?;
    let mut next = head[6];
    let mut at = 40;
    let mut fragmented = false;
    // What ends within a first fragment was to go on in the next one (RFC 7112, section 5).
    let cut_off = |part| if part == Part::First { DropReason::FragmentTiny } else { DropReason::BadExtensionHeader };
    for position in 0..=MAX_EXTENSIONS {
        let len = match next {
            // Hop-by-hop options must come first (RFC 8200, section 4.1).
            0 if position > 0 => return Err(DropReason::BadExtensionHeader),
            0 | 43 | 60 | 135 | 139 | 140 => {
                let ext = packet.get(at..at + 8).ok_or(cut_off(parsed.part))?;
                if next == 43 && ext[2] == 0 {
                    return Err(DropReason::SourceRoute);
                }
                next = ext[0];
                (usize::from(ext[1]) + 1) * 8
            }
            // At most once (RFC 8200, section 4.1).
            FRAGMENT_HEADER if fragmented => return Err(DropReason::BadExtensionHeader),
            FRAGMENT_HEADER => {
                let ext = packet.get(at..at + 8).ok_or(DropReason::BadExtensionHeader)?;
                let word = u16::from_be_bytes([ext[2], ext[3]]);
                let (offset, more) = (word >> 3, word & 1 != 0);
                fragmented = true;
                next = ext[0];
                // A fragment that is the whole packet is treated as one (RFC 6946).
                parsed.part = fragment::part_of(offset, more);
                if parsed.part != Part::Whole {
                    let len = (packet.len() - at - 8) as u16;
                    fragment::check_length(at - 40, offset, len, more)?;
                    if parsed.part == Part::Later {
                        parsed.protocol = next;
                        parsed.l4 = parsed.l3 + at as u16 + 8;
                        parsed.l4_len = len;
                        return fragment::later(parsed, offset, Kind::Flow6);
                    }
                }
                8
            }
            51 => {
                let ext = packet.get(at..at + 8).ok_or(cut_off(parsed.part))?;
                next = ext[0];
                (usize::from(ext[1]) + 2) * 4
            }
            _ => {
                parsed.protocol = next;
                parsed.l4 = parsed.l3 + at as u16;
                parsed.l4_len = (packet.len() - at) as u16;
                if next == ICMPV6 {
                    parsed.kind = Kind::Icmp6;
                    return Ok(parsed);
                }
                return transport(bytes, parsed, Kind::Flow6);
            }
        };
        at += len;
        if at > packet.len() {
            return Err(cut_off(parsed.part));
        }
    }
    Err(DropReason::BadExtensionHeader)
}

/// Smallest header of a transport protocol, in bytes.
const fn transport_minimum(protocol: u8) -> Option<u16> {
    match protocol {
        TCP => Some(20),
        UDP => Some(8),
        SCTP => Some(12),
        _ => None,
    }
}

fn transport(bytes: &[u8], mut parsed: Parsed, kind: Kind) -> Result<Parsed, DropReason> {
    let Some(minimum) = transport_minimum(parsed.protocol) else {
        return Ok(parsed);
    };
    if parsed.part == Part::First {
        fragment::check_first(bytes, &parsed)?;
    }
    if parsed.l4_len < minimum {
        return Err(DropReason::Truncated);
    }
    parsed.kind = kind;
    if parsed.protocol == TCP {
        parsed.tcp_flags = *bytes.get(usize::from(parsed.l4) + 13).ok_or(DropReason::Truncated)?;
    }
    Ok(parsed)
}

/// The destination address of an IP frame with at most two VLAN tags, whatever else is wrong with it.
pub fn destination(bytes: &[u8]) -> Option<std::net::IpAddr> {
    address(bytes, 16, 24)
}

/// The source address of an IP frame, likewise.
pub fn source(bytes: &[u8]) -> Option<std::net::IpAddr> {
    address(bytes, 12, 8)
}

/// The address at these offsets of an IPv4 or IPv6 header.
fn address(bytes: &[u8], v4: usize, v6: usize) -> Option<std::net::IpAddr> {
    let mut l3 = 14;
    let mut ethertype = be16(bytes, 12)?;
    while (ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ) && l3 <= 18 {
        ethertype = be16(bytes, l3 + 2)?;
        l3 += 4;
    }
    match ethertype {
        ETHERTYPE_IPV4 => bytes.get(l3 + v4..)?.first_chunk::<4>().map(|a| std::net::IpAddr::from(*a)),
        ETHERTYPE_IPV6 => bytes.get(l3 + v6..)?.first_chunk::<16>().map(|a| std::net::IpAddr::from(*a)),
        _ => None,
    }
}

/// Whether the transport header and checksum of a flow packet are sound. Costs a pass over the payload, so it is
/// asked for packets that would create a flow. A fragment is sound: its checksum covers what is not there.
///
/// # Errors
/// What is wrong. A checksum that equals the bare pseudo-header sum is named for what it is: a sender that left the
/// checksum to its network card (Linux `CHECKSUM_PARTIAL`).
pub fn verify_transport(bytes: &[u8], parsed: &Parsed) -> Result<(), DropReason> {
    if parsed.part != Part::Whole || !matches!(parsed.kind, Kind::Flow4 | Kind::Flow6) {
        return Ok(());
    }
    let l4 = usize::from(parsed.l4);
    let segment = bytes.get(l4..l4 + usize::from(parsed.l4_len)).ok_or(DropReason::Truncated)?;
    let at = match parsed.protocol {
        TCP => {
            let header = usize::from(segment[12] >> 4) * 4;
            if header < 20 || header > segment.len() {
                return Err(DropReason::BadTransportHeader);
            }
            16
        }
        UDP => {
            let len = usize::from(u16::from_be_bytes([segment[4], segment[5]]));
            if len < 8 || len > segment.len() {
                return Err(DropReason::BadLength);
            }
            if segment[6..8] == [0, 0] && parsed.kind == Kind::Flow4 {
                return Ok(());
            }
            6
        }
        _ => {
            let found = &segment[8..12];
            return match super::checksum::sctp(segment) {
                Some(right) if found == right => Ok(()),
                _ if found == [0; 4] => Err(DropReason::PartialChecksum),
                _ => Err(DropReason::BadTransportChecksum),
            };
        }
    };
    let l3 = usize::from(parsed.l3);
    let (source, destination) = match parsed.kind {
        Kind::Flow4 => (&bytes[l3 + 12..l3 + 16], &bytes[l3 + 16..l3 + 20]),
        _ => (&bytes[l3 + 8..l3 + 24], &bytes[l3 + 24..l3 + 40]),
    };
    let covered = if parsed.protocol == UDP {
        let len = usize::from(u16::from_be_bytes([segment[4], segment[5]]));
        &segment[..len]
    } else {
        segment
    };
    let pseudo = super::checksum::pseudo_header(source, destination, parsed.protocol, covered.len() as u32);
    if super::checksum::fold(super::checksum::sum(covered, pseudo)) == 0xffff {
        return Ok(());
    }
    let found = u16::from_ne_bytes([covered[at], covered[at + 1]]);
    if found == super::checksum::fold(pseudo) {
        Err(DropReason::PartialChecksum)
    } else {
        Err(DropReason::BadTransportChecksum)
    }
}

#[cfg(test)]
mod tests;
