//! Rewriting for NAT: addresses and ports, with every checksum that covers them (RFC 1624, RFC 3022).
//!
//! Changes packets in place. Never decides what becomes of them, and never touches Ethernet headers or the TTL.
//!
//! A checksum is updated by what the words that it covers gained (`checksum::gain`), which holds for words at even
//! offsets only. All of them are: Ethernet headers are 14 bytes and four for each tag, IPv4 headers and IPv6 extension
//! headers are multiples of four, an ICMP error quotes behind eight bytes, and addresses, ports and checksums lie at even
//! offsets of their headers. Offsets of any other kind are refused.

use std::net::IpAddr;

use crate::dataplane::checksum::{adjust, gain, sctp_update};
use crate::dataplane::parse::{Kind, Parsed, Part, SCTP, TCP, UDP, be16};
use crate::dataplane::snapshot::Endpoint;
use crate::dataplane::verdict::DropReason;

/// A packet whose headers were found to be there.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Offset of the network header.
    l3: usize,
    v6: bool,
    /// What has ports, and where.
    transport: Option<Transport>,
}

#[derive(Clone, Copy, Debug)]
struct Transport {
    protocol: u8,
    /// Offset of the transport header; four bytes of ports are there.
    l4: usize,
    /// Whether all of its checksum is there.
    checked: bool,
    /// Bytes of the transport header and payload of the whole packet; 0 if that is not known.
    len: usize,
}

/// Offset of a protocol's checksum in its header, and where it ends.
const fn checksum_at(protocol: u8) -> Option<(usize, usize)> {
    match protocol {
        TCP => Some((16, 18)),
        UDP => Some((6, 8)),
        SCTP => Some((8, 12)),
        _ => None,
    }
}

/// Puts `new` at an offset that is there; what the sum over these bytes gains.
#[inline]
fn put(bytes: &mut [u8], at: usize, new: &[u8]) -> u64 {
    let old = &mut bytes[at..at + new.len()];
    let change = gain(old, new);
    old.copy_from_slice(new);
    change
}

/// Updates the checksum at an offset that is there; what the sum over it gains.
#[inline]
fn mend(bytes: &mut [u8], at: usize, change: u64) -> u64 {
    let check = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    put(bytes, at, &adjust(check, change).to_ne_bytes())
}

/// Puts an address of the packet's family where the packet's is.
fn put_address(bytes: &mut [u8], place: &Place, is_source: bool, address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(new) => put(bytes, place.l3 + if is_source { 12 } else { 16 }, &new.octets()),
        IpAddr::V6(new) => put(bytes, place.l3 + if is_source { 8 } else { 24 }, &new.octets()),
    }
}

impl Place {
    fn fits(&self, address: Option<IpAddr>) -> bool {
        address.is_none_or(|address| address.is_ipv6() == self.v6)
    }

    /// Whether a new source and destination port are other than the packet's.
    fn moves_ports(&self, bytes: &[u8], source: Option<Endpoint>, destination: Option<Endpoint>) -> bool {
        let Some(transport) = self.transport else { return false };
        let moves = |end: Option<Endpoint>, at: usize| {
            end.and_then(|end| end.port).is_some_and(|port| be16(bytes, transport.l4 + at) != Some(port))
        };
        moves(source, 0) || moves(destination, 2)
    }

    /// Changes addresses and ports and mends the packet's own checksums. What the sum over all its bytes gains.
    fn change(&self, bytes: &mut [u8], source: Option<Endpoint>, destination: Option<Endpoint>) -> u64 {
        let mut addresses = 0;
        for (end, is_source) in [(source, true), (destination, false)] {
            if let Some(end) = end {
                addresses += put_address(bytes, self, is_source, end.address);
            }
        }
        let mut all = addresses;
        if !self.v6 {
            all += mend(bytes, self.l3 + 10, addresses);
        }
        let Some(Transport { protocol, l4, checked, len }) = self.transport else { return all };
        let old = [bytes[l4], bytes[l4 + 1], bytes[l4 + 2], bytes[l4 + 3]];
        let mut new = old;
        if let Some(port) = source.and_then(|end| end.port) {
            new[..2].copy_from_slice(&port.to_be_bytes());
        }
        if let Some(port) = destination.and_then(|end| end.port) {
            new[2..].copy_from_slice(&port.to_be_bytes());
        }
        let ports = put(bytes, l4, &new);
        all += ports;
        let Some((at, _)) = checksum_at(protocol).filter(|_| checked) else { return all };
        let at = l4 + at;
        all + match protocol {
            SCTP if old == new || len == 0 => 0,
            SCTP => {
                let check = sctp_update([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]], old, new, len);
                put(bytes, at, &check)
            }
            // No checksum (RFC 768, RFC 6935).
            UDP if bytes[at..at + 2] == [0, 0] => 0,
            UDP => {
                let check = adjust(u16::from_ne_bytes([bytes[at], bytes[at + 1]]), addresses + ports);
                // One that comes out as 0 goes as its other form (RFC 768).
                put(bytes, at, &(if check == 0 { 0xffff } else { check }).to_ne_bytes())
            }
            _ => mend(bytes, at, addresses + ports),
        }
    }
}

/// Gives a TCP, UDP or SCTP packet, or any fragment of one, another source, destination or both (of its own family).
/// Checksums are updated, not recomputed, so that a wrong one stays wrong, SCTP's CRC32c too. A UDP checksum of zero
/// stays zero (RFC 768, RFC 6935).
///
/// # Errors
/// [`DropReason::Fragment`] for a first fragment of SCTP whose port would change (its CRC32c depends on the length of
/// the whole packet), [`DropReason::Truncated`] for headers that do not fit the frame, [`DropReason::BadIpHeader`] for
/// addresses of the other family or a frame that is not IP, and [`DropReason::BadTransportHeader`] for other protocols.
/// The packet is unchanged then.
pub fn translate(
    bytes: &mut [u8],
    parsed: &Parsed,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
) -> Result<(), DropReason> {
    let v6 = match parsed.kind {
        Kind::Flow4 => false,
        Kind::Flow6 => true,
        _ => return Err(DropReason::BadIpHeader),
    };
    let (l3, l4, len) = (usize::from(parsed.l3), usize::from(parsed.l4), usize::from(parsed.l4_len));
    let header = if v6 { 40 } else { 20 };
    if !(l3 | l4).is_multiple_of(2) || l4 < l3 + header || l4 > bytes.len() {
        return Err(DropReason::Truncated);
    }
    let mut place = Place { l3, v6, transport: None };
    if parsed.part != Part::Later {
        let (_, end) = checksum_at(parsed.protocol).ok_or(DropReason::BadTransportHeader)?;
        if end > len || l4 + end > bytes.len() {
            return Err(DropReason::Truncated);
        }
        place.transport = Some(Transport { protocol: parsed.protocol, l4, checked: true, len });
    }
    if !place.fits(source.map(|end| end.address)) || !place.fits(destination.map(|end| end.address)) {
        return Err(DropReason::BadIpHeader);
    }
    if parsed.protocol == SCTP && parsed.part == Part::First && place.moves_ports(bytes, source, destination) {
        return Err(DropReason::Fragment);
    }
    place.change(bytes, source, destination);
    Ok(())
}

/// The packet that an ICMP error quotes in `quote` (bytes of the frame up to its end), from `l3` on.
fn quoted(quote: &[u8], l3: usize, l4: usize, v6: bool) -> Option<Place> {
    let head = quote.get(l3..)?;
    let header = l4.checked_sub(l3)?;
    let later = Place { l3, v6, transport: None };
    let (protocol, total, whole) = if v6 {
        let fixed: &[u8; 40] = head.first_chunk()?;
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let (mut next, mut at, mut whole) = (fixed[6], 40, true);
        while at < header {
            let extension = head.get(at..at + 8)?;
            at += match next {
                0 | 43 | 60 | 135 | 139 | 140 => (usize::from(extension[1]) + 1) * 8,
                51 => (usize::from(extension[1]) + 2) * 4,
                44 => {
                    let word = u16::from_be_bytes([extension[2], extension[3]]);
                    if word & 0xfff8 != 0 {
                        return Some(later);
                    }
                    whole &= word & 1 == 0;
                    8
                }
                _ => return None,
            };
            next = extension[0];
        }
        if at != header {
            return None;
        }
        (next, usize::from(u16::from_be_bytes([fixed[4], fixed[5]])) + 40, whole)
    } else {
        let fixed: &[u8; 20] = head.first_chunk()?;
        if fixed[0] >> 4 != 4 || usize::from(fixed[0] & 15) * 4 != header || header < 20 {
            return None;
        }
        let word = u16::from_be_bytes([fixed[6], fixed[7]]);
        if word & 0x1fff != 0 {
            return Some(later);
        }
        (fixed[9], usize::from(u16::from_be_bytes([fixed[2], fixed[3]])), word & 0x2000 == 0)
    };
    let (_, end) = checksum_at(protocol)?;
    // What a router pads a quote with is no part of the packet.
    let there = quote.len().min(l3 + total);
    if l4 + 8 > there {
        return None;
    }
    let len = if whole { total - header } else { 0 };
    Some(Place { l3, v6, transport: Some(Transport { protocol, l4, checked: l4 + end <= there, len }) })
}

/// Bytes of an ICMP message up to the end of what it quotes: extensions may follow (RFC 4884, section 5).
pub fn quote_end(message: &[u8], v6: bool) -> usize {
    let length = match (v6, message) {
        (false, [3 | 11 | 12, _, _, _, _, words, ..]) => usize::from(*words) * 4,
        (true, [1 | 3, _, _, _, words, ..]) => usize::from(*words) * 8,
        _ => 0,
    };
    if length == 0 { message.len() } else { message.len().min(8 + length) }
}

/// Gives an ICMP or ICMPv6 error another source, destination or both, and the packet inside it (at the offset `inner`,
/// with its transport header at `inner_l4`) likewise. Inner headers may be cut off behind the first eight bytes of the
/// transport header; what is there is translated, inner checksums included, and the ICMP checksum is updated. A quoted
/// fragment other than the first one has no ports: its addresses alone are translated.
///
/// # Errors
/// [`DropReason::BadIcmp`] for inner headers that do not fit, and for addresses of another family. The packet is
/// unchanged then.
#[allow(clippy::too_many_arguments)]
pub fn translate_icmp_error(
    bytes: &mut [u8],
    parsed: &Parsed,
    inner: usize,
    inner_l4: usize,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    inner_source: Option<Endpoint>,
    inner_destination: Option<Endpoint>,
) -> Result<(), DropReason> {
    let v6 = match parsed.kind {
        Kind::Icmp4 => false,
        Kind::Icmp6 => true,
        _ => return Err(DropReason::BadIcmp),
    };
    let (l3, l4, len) = (usize::from(parsed.l3), usize::from(parsed.l4), usize::from(parsed.l4_len));
    let header = if v6 { 40 } else { 20 };
    if !(l3 | l4 | inner | inner_l4).is_multiple_of(2)
        || l4 < l3 + header
        || inner < l4 + 8
        || parsed.part == Part::Later
    {
        return Err(DropReason::BadIcmp);
    }
    let message = bytes.get(l4..l4 + len).ok_or(DropReason::BadIcmp)?;
    let end = l4 + quote_end(message, v6);
    let outer = Place { l3, v6, transport: None };
    let place = quoted(&bytes[..end], inner, inner_l4, v6).ok_or(DropReason::BadIcmp)?;
    let addresses =
        [source, destination, inner_source.map(|end| end.address), inner_destination.map(|end| end.address)];
    if !addresses.into_iter().all(|address| outer.fits(address)) {
        return Err(DropReason::BadIcmp);
    }
    // Where a checksum in the quote is right, it takes up what changed beside it; but it may be wrong, or cut off: the
    // ICMP checksum gets what every word gained, whatever it is for.
    let mut message = place.change(bytes, inner_source, inner_destination);
    let mut addresses = 0;
    for (address, is_source) in [(source, true), (destination, false)] {
        if let Some(address) = address {
            addresses += put_address(bytes, &outer, is_source, address);
        }
    }
    if v6 {
        // ICMPv6 has a pseudo-header (RFC 4443, section 2.3).
        message += addresses;
    } else {
        mend(bytes, l3 + 10, addresses);
    }
    mend(bytes, l4 + 2, message);
    Ok(())
}

#[cfg(test)]
pub(in crate::dataplane) mod tests;
