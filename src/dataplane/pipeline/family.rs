//! What differs between IPv4 and IPv6 flows: how a key is read from a packet and taken apart again.
//!
//! Pure functions over bytes and keys.

use std::net::IpAddr;

use crate::dataplane::flow::{Entry, FlowV4, FlowV6, KeyV4, KeyV6};
use crate::dataplane::parse::{self, Kind, Parsed, Part};
use crate::dataplane::snapshot::Endpoint;

/// A family's way of reading its key and of telling its client.
pub(super) trait Family: Entry {
    /// `hint`: the ports of a fragment that has none itself ([`crate::dataplane::io::Frame::hint`]).
    fn key_of(bytes: &[u8], parsed: &Parsed, hint: u32) -> Option<Self::Key>;
    /// The key of the flow whose server sent the packet at `l3`, with its transport header at `l4`: both reversed.
    fn reverse_key_of(bytes: &[u8], l3: usize, l4: usize, protocol: u8) -> Option<Self::Key>;
    fn source(key: &Self::Key) -> IpAddr;
    fn destination(key: &Self::Key) -> IpAddr;
    /// Source and destination port, host order.
    fn ports(key: &Self::Key) -> (u16, u16);
    /// IP protocol number.
    fn protocol(key: &Self::Key) -> u8;
    /// The key of packets between two ends of this family, both with their ports.
    fn key_from(source: Endpoint, destination: Endpoint, protocol: u8) -> Option<Self::Key>;

    /// Address and port of the source.
    fn source_end(key: &Self::Key) -> Endpoint {
        Endpoint { address: Self::source(key), port: Some(Self::ports(key).0) }
    }

    /// Address and port of the destination.
    fn destination_end(key: &Self::Key) -> Endpoint {
        Endpoint { address: Self::destination(key), port: Some(Self::ports(key).1) }
    }
}

fn join_ports(source: u16, destination: u16) -> u32 {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

pub(super) fn word64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b))
}

/// Source port, then destination port.
#[inline(always)]
fn ports_of(bytes: &[u8], l4: usize, parsed: &Parsed, hint: u32) -> Option<u32> {
    if parsed.part == Part::Later {
        return Some(hint);
    }
    Some(u32::from_ne_bytes(*bytes.get(l4..)?.first_chunk()?))
}

fn split_ports(ports: u32) -> (u16, u16) {
    let [a, b, c, d] = ports.to_ne_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

impl Family for FlowV4 {
    #[inline(always)]
    fn key_of(bytes: &[u8], parsed: &Parsed, hint: u32) -> Option<KeyV4> {
        let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
        let addresses = u64::from_ne_bytes(*bytes.get(l3 + 12..)?.first_chunk()?);
        let ports = ports_of(bytes, l4, parsed, hint)?;
        Some(KeyV4 { addresses, ports, protocol: parsed.protocol })
    }

    fn reverse_key_of(bytes: &[u8], l3: usize, l4: usize, protocol: u8) -> Option<KeyV4> {
        let addresses = u64::from_ne_bytes(*bytes.get(l3 + 12..)?.first_chunk()?).rotate_left(32);
        let ports = u32::from_ne_bytes(*bytes.get(l4..)?.first_chunk()?).rotate_left(16);
        Some(KeyV4 { addresses, ports, protocol })
    }

    fn source(key: &KeyV4) -> IpAddr {
        let [a, b, c, d, ..] = key.addresses.to_ne_bytes();
        IpAddr::from([a, b, c, d])
    }

    fn destination(key: &KeyV4) -> IpAddr {
        let [.., a, b, c, d] = key.addresses.to_ne_bytes();
        IpAddr::from([a, b, c, d])
    }

    fn ports(key: &KeyV4) -> (u16, u16) {
        split_ports(key.ports)
    }

    fn protocol(key: &KeyV4) -> u8 {
        key.protocol
    }

    fn key_from(source: Endpoint, destination: Endpoint, protocol: u8) -> Option<KeyV4> {
        let (IpAddr::V4(from), IpAddr::V4(to)) = (source.address, destination.address) else { return None };
        let ([a, b, c, d], [e, f, g, h]) = (from.octets(), to.octets());
        let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        Some(KeyV4 { addresses, ports: join_ports(source.port?, destination.port?), protocol })
    }
}

fn address6(words: [u64; 2]) -> IpAddr {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    IpAddr::from(bytes)
}

impl Family for FlowV6 {
    #[inline(always)]
    fn key_of(bytes: &[u8], parsed: &Parsed, hint: u32) -> Option<KeyV6> {
        let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
        let addresses: &[u8; 32] = bytes.get(l3 + 8..)?.first_chunk()?;
        let ports = ports_of(bytes, l4, parsed, hint)?;
        Some(KeyV6 {
            source: [word64(&addresses[..8]), word64(&addresses[8..16])],
            destination: [word64(&addresses[16..24]), word64(&addresses[24..])],
            ports,
            protocol: parsed.protocol,
        })
    }

    fn reverse_key_of(bytes: &[u8], l3: usize, l4: usize, protocol: u8) -> Option<KeyV6> {
        let parsed = Parsed {
            kind: Kind::Flow6,
            protocol,
            tcp_flags: 0,
            part: Part::Whole,
            tags: 0,
            vlan: parse::NO_VLAN,
            l3: l3 as u16,
            l4: l4 as u16,
            l4_len: 0,
        };
        let key = Self::key_of(bytes, &parsed, 0)?;
        Some(KeyV6 { source: key.destination, destination: key.source, ports: key.ports.rotate_left(16), protocol })
    }

    fn source(key: &KeyV6) -> IpAddr {
        address6(key.source)
    }

    fn destination(key: &KeyV6) -> IpAddr {
        address6(key.destination)
    }

    fn ports(key: &KeyV6) -> (u16, u16) {
        split_ports(key.ports)
    }

    fn protocol(key: &KeyV6) -> u8 {
        key.protocol
    }

    fn key_from(source: Endpoint, destination: Endpoint, protocol: u8) -> Option<KeyV6> {
        let (IpAddr::V6(from), IpAddr::V6(to)) = (source.address, destination.address) else { return None };
        let words = |address: std::net::Ipv6Addr| {
            let bytes = address.octets();
            [word64(&bytes[..8]), word64(&bytes[8..])]
        };
        let ports = join_ports(source.port?, destination.port?);
        Some(KeyV6 { source: words(from), destination: words(to), ports, protocol })
    }
}
