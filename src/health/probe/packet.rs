//! Packets of checks that need no connection: echo requests, SYNs, and what comes back for them. Pure.
//!
//! Owns their bytes. Never says whose check a packet is: it says what the packet is about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, TcpHeader, TcpOptionElement};

use crate::health::{Outcome, Reason};

/// Data of an echo request, as long as `ping`'s.
const DATA: usize = 56;
/// Maximum segment size that a SYN offers.
const SEGMENT: u16 = 1460;

/// What was asked: an answer names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// An echo request.
    Echo {
        /// Whose echo.
        host: IpAddr,
        /// Identifier, host order.
        id: u16,
        /// Sequence number, host order.
        sequence: u16,
    },
    /// A SYN.
    Syn {
        /// To which host.
        host: IpAddr,
        /// To which port, host order.
        port: u16,
        /// From which of our ports, host order.
        from: u16,
        /// Its sequence number, host order.
        sequence: u32,
    },
}

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The echo, with the first eight bytes of its data.
    Echoed(u64),
    /// SYN-ACK.
    Accepted,
    /// RST.
    Reset,
    /// An ICMP error.
    Failed(Reason, &'static str),
}

impl Heard {
    /// What it means for the attempt, whose echo had those first bytes; `None`: nothing.
    pub fn outcome(self, nonce: u64) -> Option<Outcome> {
        match self {
            Heard::Echoed(seen) if seen != nonce => None,
            Heard::Echoed(_) => Some(Outcome::good("echo reply")),
            Heard::Accepted => Some(Outcome::good("SYN-ACK")),
            Heard::Reset => Some(Outcome::bad(Reason::Refused, "connection refused")),
            Heard::Failed(reason, words) => Some(Outcome::bad(reason, words)),
        }
    }
}

/// An ICMP echo request. The checksum of ICMPv6 is left to the kernel (RFC 3542, section 3.1).
pub fn echo_request(v4: bool, id: u16, sequence: u16, nonce: u64) -> Vec<u8> {
    let mut data = [0u8; DATA];
    data[..8].copy_from_slice(&nonce.to_be_bytes());
    let echo = IcmpEchoHeader { id, seq: sequence };
    let mut packet = match v4 {
        true => Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &data).to_bytes().to_vec(),
        false => [&[128, 0, 0, 0][..], &echo.to_bytes()].concat(),
    };
    packet.extend_from_slice(&data);
    packet
}

/// A SYN, without an IP header; `None` where the addresses are of two families. Ports and number in host order.
pub fn syn(from: (IpAddr, u16), to: (IpAddr, u16), sequence: u32) -> Option<Vec<u8>> {
    let mut header = TcpHeader::new(from.1, to.1, sequence, 64_240);
    header.syn = true;
    header.set_options(&[TcpOptionElement::MaximumSegmentSize(SEGMENT)]).ok()?;
    header.checksum = match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => header.calc_checksum_ipv4_raw(from.octets(), to.octets(), &[]).ok()?,
        (IpAddr::V6(from), IpAddr::V6(to)) => header.calc_checksum_ipv6_raw(from.octets(), to.octets(), &[]).ok()?,
        _ => return None,
    };
    Some(header.to_bytes().to_vec())
}

/// Reads what a raw IPv4 socket gives: IP header and all. The kernel has checked lengths and the IP checksum.
pub fn read_v4(packet: &[u8]) -> Option<(Asked, Heard)> {
    let (host, protocol, body) = v4(packet)?;
    match protocol {
        1 => read_icmp_v4(host.into(), body),
        6 => read_tcp(host.into(), body),
        _ => None,
    }
}

/// Reads what a raw ICMPv6 socket gives, from `host`.
pub fn read_icmp_v6(host: Ipv6Addr, message: &[u8]) -> Option<(Asked, Heard)> {
    let (kind, code) = (*message.first()?, *message.get(1)?);
    let failed = match (kind, code) {
        (129, 0) => return echoed(host.into(), message),
        (1, 0) => (Reason::Unreachable, "no route to host, a router says"),
        (1, 1) => (Reason::Unreachable, "prohibited, a router says"),
        (1, 3) => (Reason::Unreachable, "no route to host"),
        (1, 4) => (Reason::Refused, "port unreachable, the server says"),
        (1, _) => (Reason::Unreachable, "unreachable, a router says"),
        (3, _) => (Reason::Unreachable, "packets run in a circle: their hop limit was exceeded"),
        _ => return None,
    };
    // RFC 4443, section 3.1: as much of the packet as fits.
    let quoted = message.get(8..)?;
    let host = Ipv6Addr::from(<[u8; 16]>::try_from(quoted.get(24..40)?).ok()?);
    let asked = asked(host.into(), *quoted.get(6)?, quoted.get(40..)?)?;
    Some((asked, Heard::Failed(failed.0, failed.1)))
}

/// Reads a segment from `host`: only what answers a SYN.
pub fn read_tcp(host: IpAddr, segment: &[u8]) -> Option<(Asked, Heard)> {
    let (port, from) = (half(segment, 0)?, half(segment, 2)?);
    let flags = *segment.get(13)?;
    let heard = match (flags & RST != 0, flags & (SYN | ACK) == SYN | ACK) {
        (true, _) if flags & ACK != 0 => Heard::Reset,
        (false, true) => Heard::Accepted,
        _ => return None,
    };
    // RFC 9293, section 3.10.7.3: it acknowledges our SYN and nothing else.
    let sequence = word(segment, 8)?.wrapping_sub(1);
    Some((Asked::Syn { host, port, from, sequence }, heard))
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

fn read_icmp_v4(host: IpAddr, message: &[u8]) -> Option<(Asked, Heard)> {
    let (kind, code) = (*message.first()?, *message.get(1)?);
    let failed = match (kind, code) {
        (0, 0) => return echoed(host, message),
        (3, 0 | 6) => (Reason::Unreachable, "no route to host, a router says"),
        (3, 1 | 7) => (Reason::Unreachable, "no route to host"),
        (3, 2) => (Reason::Refused, "protocol unreachable, the server says"),
        (3, 3) => (Reason::Refused, "port unreachable, the server says"),
        // Fragmentation needed: ours are smaller than any path's limit.
        (3, 4) => return None,
        (3, 9 | 10 | 13) => (Reason::Unreachable, "prohibited, a router says"),
        (3, _) => (Reason::Unreachable, "unreachable, a router says"),
        (11, _) => (Reason::Unreachable, "packets run in a circle: their TTL was exceeded"),
        _ => return None,
    };
    let (protocol, to, body) = quoted_v4(message.get(8..)?)?;
    Some((asked(to.into(), protocol, body)?, Heard::Failed(failed.0, failed.1)))
}

fn echoed(host: IpAddr, message: &[u8]) -> Option<(Asked, Heard)> {
    let asked = Asked::Echo { host, id: half(message, 4)?, sequence: half(message, 6)? };
    let nonce = u64::from_be_bytes(message.get(8..16)?.try_into().ok()?);
    Some((asked, Heard::Echoed(nonce)))
}

/// What a quoted packet of ours asked. At least eight bytes of it are there (RFC 792).
fn asked(host: IpAddr, protocol: u8, body: &[u8]) -> Option<Asked> {
    match (protocol, body.first()?) {
        (1, 8) | (58, 128) => Some(Asked::Echo { host, id: half(body, 4)?, sequence: half(body, 6)? }),
        (6, _) => {
            let (from, port) = (half(body, 0)?, half(body, 2)?);
            Some(Asked::Syn { host, port, from, sequence: word(body, 4)? })
        }
        _ => None,
    }
}

/// Source, protocol and what follows the header.
fn v4(packet: &[u8]) -> Option<(Ipv4Addr, u8, &[u8])> {
    let length = usize::from(packet.first()? & 0x0f) * 4;
    let source = Ipv4Addr::from(word(packet, 12)?);
    (length >= 20).then_some((source, *packet.get(9)?, packet.get(length..)?))
}

/// Protocol, destination and what follows the header of a quoted packet.
fn quoted_v4(packet: &[u8]) -> Option<(u8, Ipv4Addr, &[u8])> {
    let (_, protocol, body) = v4(packet)?;
    Some((protocol, Ipv4Addr::from(word(packet, 16)?), body))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
