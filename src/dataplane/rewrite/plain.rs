//! NAT on the short path: one end of an untagged packet without IP options gets another address and port, with the
//! checksum's change worked out beforehand.
//!
//! Owns what is precomputed for each server. Never finds out what a packet is: [`crate::dataplane::parse::plain_v4`]
//! and [`crate::dataplane::parse::plain_v6`] do. Equal to [`super::nat::translate`] byte for byte, as tests show.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dataplane::checksum::{fold, gain};
use crate::dataplane::flow::{KeyV4, KeyV6};
use crate::dataplane::parse::{TCP, UDP};

/// What the sum over an IPv4 header gains where the TTL loses one: the TTL is the high byte of its word.
const TTL: u64 = u16::from_ne_bytes([0xfe, 0xff]) as u64;

/// An IPv4 address and port that replace known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite4 {
    /// The new address, as in the packet.
    pub address: [u8; 4],
    /// The new port, as in the packet.
    pub port: [u8; 2],
    /// Whether the packet's port stays, because it is not known before or does not change.
    pub keep_port: bool,
    /// What the header's sum gains: 1 to 0xffff, in memory order.
    pub address_delta: u32,
    /// The same where the TTL loses one, too.
    pub ttl_delta: u32,
    /// What the sum of TCP or UDP gains.
    pub l4_delta: u32,
}

/// An IPv6 address and port that replace known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite6 {
    /// The new address, as in the packet.
    pub address: [u8; 16],
    /// The new port, as in the packet.
    pub port: [u8; 2],
    /// Whether the packet's port stays, because it is not known before or does not change.
    pub keep_port: bool,
    /// What the sum of TCP or UDP gains: 1 to 0xffff, in memory order.
    pub l4_delta: u32,
}

/// The new port, whether the packet's stays, and what the sum gains. Ports in host order; the packet's stays unless both
/// are given.
fn port_change(old: Option<u16>, new: Option<u16>) -> ([u8; 2], bool, u64) {
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            (new.to_be_bytes(), false, gain(&old.to_be_bytes(), &new.to_be_bytes()))
        }
        _ => ([0; 2], true, 0),
    }
}

impl Rewrite4 {
    /// Replaces the end `old` by `new` (ports in host order). The packet's port stays unless both ports are given.
    pub fn new(old: (Ipv4Addr, Option<u16>), new: (Ipv4Addr, Option<u16>)) -> Rewrite4 {
        let addresses = gain(&old.0.octets(), &new.0.octets());
        let (port, keep_port, ports) = port_change(old.1, new.1);
        Rewrite4 {
            address: new.0.octets(),
            port,
            keep_port,
            address_delta: fold(addresses).into(),
            ttl_delta: fold(addresses + TTL).into(),
            l4_delta: fold(addresses + ports).into(),
        }
    }
}

impl Rewrite6 {
    /// Replaces the end `old` by `new` (ports in host order). The packet's port stays unless both ports are given.
    pub fn new(old: (Ipv6Addr, Option<u16>), new: (Ipv6Addr, Option<u16>)) -> Rewrite6 {
        let addresses = gain(&old.0.octets(), &new.0.octets());
        let (port, keep_port, ports) = port_change(old.1, new.1);
        Rewrite6 { address: new.0.octets(), port, keep_port, l4_delta: fold(addresses + ports).into() }
    }
}

/// Which end of a packet is rewritten.
pub type End = bool;
/// The source, for [`plain_v4`] and [`plain_v6`].
pub const SOURCE: End = false;
/// The destination, for [`plain_v4`] and [`plain_v6`].
pub const DESTINATION: End = true;

/// RFC 1624, equation 3, with what changed folded beforehand. Both terms have 16 bits, so one carry is all.
#[inline(always)]
fn mend(check: &mut [u8; 2], delta: u32) {
    let acc = u32::from(!u16::from_ne_bytes(*check)) + delta;
    *check = (!((acc & 0xffff) + (acc >> 16)) as u16).to_ne_bytes();
}

/// The same for UDP: no checksum stays none, and one that comes out as 0 goes as 0xffff (RFC 768).
#[inline(always)]
fn mend_udp(check: &mut [u8; 2], delta: u32) {
    if *check != [0, 0] {
        mend(check, delta);
        if *check == [0, 0] {
            *check = [0xff; 2];
        }
    }
}

/// The IPv4 part: address, header checksum, TTL.
#[inline(always)]
fn head_v4<const END: End, const AGE: bool>(ip: &mut [u8; 20], rewrite: &Rewrite4) {
    if let Some(check) = ip[10..].first_chunk_mut() {
        mend(check, if AGE { rewrite.ttl_delta } else { rewrite.address_delta });
    }
    if AGE {
        ip[8] = ip[8].wrapping_sub(1);
    }
    let at = if END == DESTINATION { 16 } else { 12 };
    ip[at..at + 4].copy_from_slice(&rewrite.address);
}

/// Gives one end of a TCP or UDP packet that [`crate::dataplane::parse::plain_v4`] took another address and port. The
/// packet has the end that `rewrite` was made for. `AGE`: the TTL, which is not 0, loses one, too. `false`: another
/// protocol, or a frame too short; it is unchanged then.
#[inline(always)]
pub fn plain_v4<const END: End, const AGE: bool>(bytes: &mut [u8], rewrite: &Rewrite4, protocol: u8) -> bool {
    let port = if END == DESTINATION { 36 } else { 34 };
    if protocol == TCP {
        let Some(head) = bytes.first_chunk_mut::<52>() else { return false };
        if let Some(check) = head[50..].first_chunk_mut() {
            mend(check, rewrite.l4_delta);
        }
        if !rewrite.keep_port {
            head[port..port + 2].copy_from_slice(&rewrite.port);
        }
    } else if protocol == UDP {
        let Some(head) = bytes.first_chunk_mut::<42>() else { return false };
        if let Some(check) = head[40..].first_chunk_mut() {
            mend_udp(check, rewrite.l4_delta);
        }
        if !rewrite.keep_port {
            head[port..port + 2].copy_from_slice(&rewrite.port);
        }
    } else {
        return false;
    }
    if let Some(ip) = bytes.get_mut(14..).and_then(|ip| ip.first_chunk_mut()) {
        head_v4::<END, AGE>(ip, rewrite);
    }
    true
}

/// [`plain_v4`] for a packet that [`crate::dataplane::parse::plain_v6`] took. `AGE` is for the hop limit.
#[inline(always)]
pub fn plain_v6<const END: End, const AGE: bool>(bytes: &mut [u8], rewrite: &Rewrite6, protocol: u8) -> bool {
    let (address, port) = if END == DESTINATION { (38, 56) } else { (22, 54) };
    if protocol == TCP {
        let Some(check) = bytes.get_mut(70..72).and_then(|b| b.first_chunk_mut()) else { return false };
        mend(check, rewrite.l4_delta);
    } else if protocol == UDP {
        let Some(check) = bytes.get_mut(60..62).and_then(|b| b.first_chunk_mut()) else { return false };
        mend_udp(check, rewrite.l4_delta);
    } else {
        return false;
    }
    let Some(head) = bytes.first_chunk_mut::<58>() else { return false };
    head[address..address + 16].copy_from_slice(&rewrite.address);
    if !rewrite.keep_port {
        head[port..port + 2].copy_from_slice(&rewrite.port);
    }
    if AGE {
        head[21] = head[21].wrapping_sub(1);
    }
    true
}

/// What a sum gains where eight bytes change. Both are as they lie in the packet.
#[inline(always)]
fn gain_of_words(old: u64, new: u64) -> u64 {
    const LOW: u64 = 0xffff_ffff;
    (!old & LOW) + (!old >> 32) + (new & LOW) + (new >> 32)
}

/// Full NAT: gives both ends of a packet of `key` that [`crate::dataplane::parse::plain_v4`] took those of `back`, the key
/// of the packets that answer it, the other way round; the TTL loses one. `false` as in [`plain_v4`].
#[inline(always)]
pub fn ends_v4(bytes: &mut [u8], key: KeyV4, back: KeyV4) -> bool {
    let (addresses, ports) = (back.addresses.rotate_left(32), back.ports.rotate_left(16));
    let head = gain_of_words(key.addresses, addresses);
    let l4 = u32::from(fold(head + u64::from(!key.ports) + u64::from(ports)));
    if !mend_l4::<50, 40>(bytes, key.protocol, l4) {
        return false;
    }
    let Some(packet) = bytes.first_chunk_mut::<38>() else { return false };
    if let Some(check) = packet[24..].first_chunk_mut() {
        mend(check, u32::from(fold(head + TTL)));
    }
    packet[22] = packet[22].wrapping_sub(1);
    packet[26..34].copy_from_slice(&addresses.to_ne_bytes());
    packet[34..38].copy_from_slice(&ports.to_ne_bytes());
    true
}

/// [`ends_v4`] over IPv6.
#[inline(always)]
pub fn ends_v6(bytes: &mut [u8], key: &KeyV6, back: &KeyV6) -> bool {
    let ports = back.ports.rotate_left(16);
    let pairs = [
        (key.source[0], back.destination[0]),
        (key.source[1], back.destination[1]),
        (key.destination[0], back.source[0]),
        (key.destination[1], back.source[1]),
    ];
    let addresses: u64 = pairs.iter().map(|(old, new)| gain_of_words(*old, *new)).sum();
    let l4 = u32::from(fold(addresses + u64::from(!key.ports) + u64::from(ports)));
    if !mend_l4::<70, 60>(bytes, key.protocol, l4) {
        return false;
    }
    let Some(packet) = bytes.first_chunk_mut::<58>() else { return false };
    packet[21] = packet[21].wrapping_sub(1);
    for (at, (_, new)) in [22, 30, 38, 46].into_iter().zip(pairs) {
        packet[at..at + 8].copy_from_slice(&new.to_ne_bytes());
    }
    packet[54..58].copy_from_slice(&ports.to_ne_bytes());
    true
}

/// Mends the checksum of a TCP or UDP header, which lies at one of two offsets. `false`: another protocol, or too short.
#[inline(always)]
fn mend_l4<const TCP_AT: usize, const UDP_AT: usize>(bytes: &mut [u8], protocol: u8, delta: u32) -> bool {
    let at = if protocol == TCP { TCP_AT } else { UDP_AT };
    let Some(check) = bytes.get_mut(at..at + 2).and_then(|b| b.first_chunk_mut()) else { return false };
    match protocol {
        TCP => mend(check, delta),
        UDP => mend_udp(check, delta),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests;
