//! What lies around a VRRP message on the wire: Ethernet, IPv4 and IPv6. Pure.
//!
//! Owns the headers of adverts that leave, which are keepalived's (`vrrp.c`), and takes frames that arrive apart, into adverts
//! and claims of addresses. Never reads a message: [`super::packet`] does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Envelope, PROTOCOL, fold, sum};
use crate::model::MacAddr;

/// Type of service of adverts: network control.
const CONTROL: u8 = 0xc0;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// What a frame holds for VRRP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A message, whole or not, and what was around it.
    Advert(Envelope, &'a [u8]),
    /// Somebody says that an address is his.
    Claim {
        /// The address.
        address: IpAddr,
        /// Where it is said to be.
        mac: MacAddr,
    },
}

/// Takes a received frame apart. `None`: it is none of VRRP's, or so broken that the kernel would drop it too.
pub fn heard(frame: &[u8]) -> Option<Heard<'_>> {
    let kind = u16::from_be_bytes(array(frame, 12)?);
    let mac = MacAddr(array(frame, 6)?);
    let rest = frame.get(ETHERNET..)?;
    match kind {
        IPV4 => advert_v4(rest, mac),
        IPV6 if *rest.get(6)? == PROTOCOL => {
            let length = usize::from(u16::from_be_bytes(array(rest, 4)?));
            if rest[0] >> 4 != 6 {
                return None;
            }
            let source = Ipv6Addr::from(array::<16>(rest, 8)?).into();
            let destination = Ipv6Addr::from(array::<16>(rest, 24)?).into();
            let message = rest.get(40..)?;
            let envelope = Envelope { source, destination, ttl: rest[7], mac };
            Some(Heard::Advert(envelope, &message[..length.min(message.len())]))
        }
        IPV6 => claim_v6(rest),
        ARP => claim_v4(rest),
        _ => None,
    }
}

fn advert_v4(packet: &[u8], mac: MacAddr) -> Option<Heard<'_>> {
    let header = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes(array(packet, 2)?));
    let fragment = u16::from_be_bytes(array(packet, 6)?) & 0x1fff;
    let ours = packet[0] >> 4 == 4 && header >= 20 && *packet.get(9)? == PROTOCOL;
    // Later fragments do not begin with a message.
    if !ours || fragment != 0 || checksum(&[packet.get(..header)?]) != 0 {
        return None;
    }
    let source = Ipv4Addr::from(array::<4>(packet, 12)?).into();
    let destination = Ipv4Addr::from(array::<4>(packet, 16)?).into();
    let envelope = Envelope { source, destination, ttl: packet[8], mac };
    // What lies behind the packet is padding of Ethernet's.
    Some(Heard::Advert(envelope, packet.get(header..total.min(packet.len()))?))
}

/// The sender of an ARP packet of Ethernet and IPv4, question or answer, unless it only probes (RFC 5227: sender 0.0.0.0).
fn claim_v4(packet: &[u8]) -> Option<Heard<'_>> {
    if packet.get(..6)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let address = Ipv4Addr::from(array::<4>(packet, 14)?);
    let mac = MacAddr(array(packet, 8)?);
    (!address.is_unspecified()).then_some(Heard::Claim { address: address.into(), mac })
}

/// The target of a neighbour advertisement that says where it is (RFC 4861, section 4.4).
fn claim_v6(packet: &[u8]) -> Option<Heard<'_>> {
    if packet[0] >> 4 != 6 || *packet.get(6)? != 58 || *packet.get(40)? != 136 {
        return None;
    }
    let address = Ipv6Addr::from(array::<16>(packet, 48)?);
    let mut options = packet.get(64..)?;
    while let [kind, units, ..] = options {
        if (*kind, *units) == (2, 1) {
            return Some(Heard::Claim { address: address.into(), mac: MacAddr(array(options, 2)?) });
        }
        // An option without a length would never end.
        options = options.get(usize::from((*units).max(1)) * 8..)?;
    }
    None
}

/// A frame with a message for a group address, from `mac`. `id` is the IPv4 packet's.
pub fn multicast(message: &[u8], source: IpAddr, group: IpAddr, mac: MacAddr, id: u16) -> Vec<u8> {
    match (source, group) {
        (IpAddr::V4(source), IpAddr::V4(group)) => {
            let [_, a, b, c] = group.octets();
            let to = MacAddr([0x01, 0x00, 0x5e, a & 0x7f, b, c]);
            let mut frame = ethernet(to, mac, IPV4, 20 + message.len());
            frame.extend(ipv4_header(source, group, message.len(), id));
            frame.extend(message);
            frame
        }
        (source, group) => {
            let [source, group] = [source, group].map(|address| match address {
                IpAddr::V6(address) => address,
                IpAddr::V4(address) => address.to_ipv6_mapped(),
            });
            let [.., a, b, c, d] = group.octets();
            let mut frame = ethernet(MacAddr([0x33, 0x33, a, b, c, d]), mac, IPV6, 40 + message.len());
            frame.extend(ipv6_header(source, group, PROTOCOL, message.len(), CONTROL));
            frame.extend(message);
            frame
        }
    }
}

/// The header of an IPv4 packet with an advert of `length` bytes: TTL 255, no options, may be fragmented.
pub fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr, length: usize, id: u16) -> [u8; 20] {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&[0x45, CONTROL]);
    header[2..4].copy_from_slice(&(20 + length as u16).to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[8..10].copy_from_slice(&[255, PROTOCOL]);
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// The header of an IPv6 packet with `length` bytes behind it and hop limit 255.
pub(super) fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, next: u8, length: usize, class: u8) -> [u8; 40] {
    let mut header = [0; 40];
    header[..2].copy_from_slice(&[0x60 | class >> 4, class << 4]);
    header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    header[6..8].copy_from_slice(&[next, 255]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

/// The beginning of a frame, with room for `length` bytes more.
pub(super) fn ethernet(to: MacAddr, from: MacAddr, kind: u16, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + length);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(kind.to_be_bytes());
    frame
}

/// The Internet checksum (RFC 1071) of parts, all of an even length but the last.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    !fold(parts.iter().map(|part| sum(part)).sum())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests;
