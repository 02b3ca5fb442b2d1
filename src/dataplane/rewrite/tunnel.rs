//! Rewriting for tunnels: an outer header before the client's packet (RFC 2003, 2473, 4213, 2784, GUE version 0).
//!
//! Owns the outer header, ready made for each server. Pure. Never decides where a frame goes, and never looks beyond the
//! network header of the packet that it wraps: a fragment is wrapped like any other packet.
//!
//! Byte for byte what IPVS sends (`net/netfilter/ipvs/ip_vs_xmit.c`, `ip_vs_tunnel_xmit` and `_v6`):
//! - the inner TTL is one less, and the outer one is its copy;
//! - DSCP is copied; ECN too, but for CE, which becomes ECT(0) outside (`INET_ECN_encapsulate`, the full functionality
//!   of RFC 3168, section 9.1.1). Nothing is lost: the mark stays inside, where the receiver looks, RFC 6040 or not;
//! - DF is that of the inner IPv4 packet, and clear for IPv6 inside IPv4 (`pmtu_disc = 1`). The identification is 0 with
//!   DF (RFC 6864);
//! - no IPv6 flow label, no encapsulation limit option;
//! - GUE's UDP checksum is zero over both families (RFC 6935 and 6936 permit it over IPv6 for tunnels; the inner packet
//!   has its own). Linux receivers take it: `fou` sockets do not ask for one.

pub mod plain;

use std::net::IpAddr;
use std::sync::Arc;

use super::lower_ttl;
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{NO_VLAN, Parsed, UDP, be16};
use crate::dataplane::path_mtu::PathMtu;
use crate::dataplane::snapshot::ServerEntry;
use crate::dataplane::verdict::DropReason;
use crate::model::{Method, TunnelSettings};

/// Bytes of the longest outer header: IPv6, UDP, GUE.
const LONGEST: usize = 52;

/// Protocol numbers of an IPv4 and of an IPv6 packet inside another.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const GRE: u8 = 47;
/// The IPv6 fragment header.
const FRAGMENT_HEADER: u8 = 44;

/// First port of the dynamic range (RFC 6335, section 6): GUE's source ports, as RFC 7605 and 8085 (5.1.1) ask.
const FIRST_DYNAMIC_PORT: u16 = 49152;

/// The outer header towards one server.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Bytes that it adds.
    length: u8,
    /// Whether it is IPv6.
    v6: bool,
    /// Outer TTL or hop limit; 0 copies the inner one.
    ttl: u8,
    /// Bits of the last word of the outer source that come from the flow's hash.
    spread: u32,
    /// Around an IPv4 packet.
    around_v4: Template,
    /// Around an IPv6 packet.
    around_v6: Template,
    /// What is known of the path to the server.
    path: Arc<PathMtu>,
}

/// An outer header but for what varies with the packet: that is zero here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template {
    bytes: [u8; LONGEST],
    /// Outer IPv4: the header's 16-bit words, added up.
    sum: u32,
}

impl Template {
    fn new(method: Method, source: IpAddr, destination: IpAddr, inside: u8, port: u16) -> Template {
        let mut bytes = [0; LONGEST];
        let protocol = match method {
            Method::Gue => UDP,
            Method::Gre => GRE,
            _ => inside,
        };
        let mut sum = 0;
        let rest = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes[0] = 0x45;
                bytes[9] = protocol;
                bytes[12..16].copy_from_slice(&source.octets());
                bytes[16..20].copy_from_slice(&destination.octets());
                sum = bytes[..20].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
                &mut bytes[20..]
            }
            _ => {
                bytes[0] = 0x60;
                bytes[6] = protocol;
                bytes[8..24].copy_from_slice(&v6_octets(source));
                bytes[24..40].copy_from_slice(&v6_octets(destination));
                &mut bytes[40..]
            }
        };
        match method {
            // No flags, version 0 (RFC 2784, section 2).
            Method::Gre => {
                rest[2..4].copy_from_slice(if inside == IPV4_INSIDE { &[0x08, 0x00] } else { &[0x86, 0xdd] })
            }
            Method::Gue => {
                rest[2..4].copy_from_slice(&port.to_be_bytes());
                // Version 0, data, no fields; then the protocol, and no flags.
                rest[9] = inside;
            }
            _ => {}
        }
        Template { bytes, sum }
    }
}

fn v6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// An address without the bits of its last word that are set in `mask`.
fn without(address: IpAddr, mask: u32) -> IpAddr {
    match address {
        IpAddr::V4(a) => IpAddr::from((u32::from(a) & !mask).to_be_bytes()),
        IpAddr::V6(a) => IpAddr::from((u128::from(a) & !u128::from(mask)).to_be_bytes()),
    }
}

impl Tunnel {
    /// The outer header from `source` to the server `destination`, both of one family. `method` is a tunnel.
    pub fn new(method: Method, source: IpAddr, destination: IpAddr, settings: TunnelSettings) -> Tunnel {
        let bits = if method == Method::Gue { 0 } else { u32::from(settings.source_spread_bits) };
        let spread = ((1u64 << bits.min(32)) - 1) as u32;
        let v6 = source.is_ipv6() || destination.is_ipv6();
        let behind_ip = match method {
            Method::Gue => 12,
            Method::Gre => 4,
            _ => 0,
        };
        let template = |inside| {
            // A source that varies is put in whole, with each packet.
            Template::new(method, without(source, spread), destination, inside, settings.gue_port)
        };
        Tunnel {
            length: if v6 { 40 } else { 20 } + behind_ip,
            v6,
            ttl: settings.ttl.unwrap_or(0),
            spread,
            around_v4: template(IPV4_INSIDE),
            around_v6: template(IPV6_INSIDE),
            path: Arc::default(),
        }
    }

    /// Lets it share what is known of its path with other tunnels to the same address.
    pub fn sharing(self, path: Arc<PathMtu>) -> Tunnel {
        Tunnel { path, ..self }
    }

    /// What is known of the path to its server.
    pub fn path(&self) -> &PathMtu {
        &self.path
    }

    /// The outer source address; where it varies with the flow, the first of its range.
    pub fn source(&self) -> IpAddr {
        let octets = |at: usize, length: usize| self.around_v4.bytes.get(at..at + length).unwrap_or_default();
        match (<[u8; 16]>::try_from(octets(8, 16)), <[u8; 4]>::try_from(octets(12, 4))) {
            (Ok(source), _) if self.v6 => IpAddr::from(source),
            (_, Ok(source)) => IpAddr::from(source),
            _ => IpAddr::from([0; 4]),
        }
    }

    /// Whether the outer header is IPv6.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// Largest frame without VLAN tags, in bytes, where the interface and the route take `max_frame`. `now` as in
    /// [`PathMtu::get`].
    #[inline(always)]
    pub fn largest_frame(&self, max_frame: u16, now: u32) -> u16 {
        self.path.largest_frame(max_frame, now)
    }

    /// Whether an outer packet is one of this tunnel's: `quoted` is what an ICMP error holds of it, from its IP header
    /// on (at least 8 bytes behind that, RFC 792).
    pub fn has_made(&self, quoted: &[u8]) -> bool {
        let (header, protocol, source, destination) =
            if self.v6 { (40, 6, 8..24, 24..40) } else { (20, 9, 12..16, 16..20) };
        let templates = [&self.around_v4.bytes, &self.around_v6.bytes];
        let Some(head) = quoted.get(..header) else { return false };
        // Never with options, whose place is within the first byte.
        let version = if self.v6 { head[0] >> 4 == 6 } else { head[0] == 0x45 };
        if !version || head[destination.clone()] != templates[0][destination] {
            return false;
        }
        let (mut next, mut at, mut first) = (head[protocol], header, true);
        // One that was sent in fragments (RFC 8200, section 4.5).
        if self.v6 && next == FRAGMENT_HEADER {
            let Some(fragment) = quoted.get(header..header + 8) else { return false };
            (next, at) = (fragment[0], header + 8);
            first = u16::from_be_bytes([fragment[2], fragment[3]]) & 0xfff8 == 0;
        }
        let fixed = source.end - 4;
        let last =
            |bytes: &[u8]| u32::from_be_bytes([bytes[fixed], bytes[fixed + 1], bytes[fixed + 2], bytes[fixed + 3]]);
        let from_here = head[source.start..fixed] == templates[0][source.start..fixed]
            && last(head) & !self.spread == last(templates[0]);
        let port = header + 2;
        from_here
            && templates.iter().any(|template| template[protocol] == next)
            && (next != UDP || !first || be16(quoted, at + 2) == be16(templates[0], port))
    }

    /// Bytes that it adds to a packet.
    pub fn overhead(&self) -> u32 {
        u32::from(self.length)
    }
}

/// What the outer header takes from the packet.
struct Inner {
    /// Outer packet's bytes, outer header included.
    total: u32,
    /// DSCP and ECN.
    tos: u8,
    /// TTL or hop limit for the outer header.
    ttl: u8,
    /// 0x40 for DF.
    df: u8,
    hash: u32,
    id: u16,
}

/// Wraps a packet and readies the frame for its server: inner TTL - 1, outer header, VLAN tag and MACs as in
/// [`super::direct`]; Ethernet padding goes. `flow_hash` varies the outer source with the flow; `id` is the IPv4
/// identification where DF is not set. Whether the result fits the way's MTU is asked before, with
/// [`Tunnel::overhead`].
///
/// # Errors
/// [`DropReason::TtlExpired`], [`DropReason::BadVlan`], [`DropReason::NoHeadroom`], [`DropReason::TooBig`] beyond what
/// an IP header can say, and [`DropReason::BadIpHeader`] or [`DropReason::Truncated`] for what is no IP packet. The frame
/// is unchanged then.
#[inline]
pub fn encapsulate<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    server: &ServerEntry,
    tunnel: &Tunnel,
    flow_hash: u32,
    id: u16,
) -> Result<(), DropReason> {
    let l3 = u32::from(parsed.l3);
    let length = u32::from(parsed.l4).saturating_sub(l3) + u32::from(parsed.l4_len);
    let ethernet: u32 = if server.vlan == NO_VLAN { 14 } else { 18 };
    let front = ethernet + u32::from(tunnel.length);
    let total = length + u32::from(tunnel.length);
    // A second tag belongs to somebody else's network.
    if parsed.tags > 1 {
        return Err(DropReason::BadVlan);
    }
    if total > 0xffff {
        return Err(DropReason::TooBig);
    }
    if length < 20 || l3 + length > frame.len {
        return Err(DropReason::Truncated);
    }
    let grown = front - l3;
    if memory.headroom(frame) < grown as usize {
        return Err(DropReason::NoHeadroom);
    }
    let wrapped = Frame { addr: frame.addr - u64::from(grown), len: front + length, ..*frame };
    let bytes = memory.bytes_mut(&wrapped);
    // Priority bits of a tag that is there stay (IEEE 802.1Q, 9.6).
    let priority = match bytes.get(grown as usize + 14) {
        Some(first) if parsed.tags == 1 => u16::from(first & 0xf0) << 8,
        _ => 0,
    };
    let (head, packet) = bytes.split_at_mut_checked(front as usize).ok_or(DropReason::Truncated)?;
    let packet: &mut [u8; 20] = packet.first_chunk_mut().ok_or(DropReason::Truncated)?;
    let (template, tos, ttl, df) = match packet[0] >> 4 {
        4 => (&tunnel.around_v4, packet[1], packet[8], packet[6] & 0x40),
        6 => (&tunnel.around_v6, packet[0] << 4 | packet[1] >> 4, packet[7], 0),
        _ => return Err(DropReason::BadIpHeader),
    };
    if ttl < 2 {
        return Err(DropReason::TtlExpired);
    }
    let (link, outer) = head.split_at_mut_checked(ethernet as usize).ok_or(DropReason::Truncated)?;
    let macs: &mut [u8; 14] = link.first_chunk_mut().ok_or(DropReason::Truncated)?;
    // Nothing fails from here on.
    if packet[0] >> 4 == 4 {
        if let Some(word) = packet[8..].first_chunk_mut() {
            lower_ttl(word);
        }
    } else {
        packet[7] -= 1;
    }
    let ethertype: [u8; 2] = if tunnel.v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    macs[..12].copy_from_slice(&server.macs);
    macs[12..].copy_from_slice(&ethertype);
    if let Some(tag) = link.get_mut(12..18) {
        tag[..2].copy_from_slice(&[0x81, 0x00]);
        tag[2..4].copy_from_slice(&(priority | server.vlan).to_be_bytes());
        tag[4..].copy_from_slice(&ethertype);
    }
    let tos = if tos & 3 == 3 { tos & !3 | 2 } else { tos };
    let ttl = if tunnel.ttl == 0 { ttl - 1 } else { tunnel.ttl };
    let inner = Inner { total, tos, ttl, df, hash: flow_hash, id };
    // Lengths that the compiler knows make each of these a few moves.
    match outer.len() {
        20 => put_v4::<20>(outer, template, tunnel.spread, &inner),
        32 => put_v4::<32>(outer, template, 0, &inner),
        24 => put_v4::<24>(outer, template, tunnel.spread, &inner),
        40 => put_v6::<40>(outer, template, tunnel.spread, &inner),
        52 => put_v6::<52>(outer, template, 0, &inner),
        _ => put_v6::<44>(outer, template, tunnel.spread, &inner),
    }
    *frame = wrapped;
    Ok(())
}

#[inline(always)]
fn put_v4<const N: usize>(into: &mut [u8], template: &Template, spread: u32, inner: &Inner) {
    let Some(out) = into.first_chunk_mut::<N>() else { return };
    out.copy_from_slice(&template.bytes[..N]);
    let id = if inner.df == 0 { inner.id } else { 0 };
    out[1] = inner.tos;
    out[2..4].copy_from_slice(&(inner.total as u16).to_be_bytes());
    out[4..6].copy_from_slice(&id.to_be_bytes());
    out[6] = inner.df;
    out[8] = inner.ttl;
    let mut sum = template.sum
        + u32::from(inner.tos)
        + inner.total
        + u32::from(id)
        + (u32::from(inner.df) << 8)
        + (u32::from(inner.ttl) << 8);
    if spread != 0 {
        let varied = inner.hash & spread;
        let source = u32::from_be_bytes([out[12], out[13], out[14], out[15]]) | varied;
        out[12..16].copy_from_slice(&source.to_be_bytes());
        sum += (varied >> 16) + (varied & 0xffff);
    }
    sum = (sum >> 16) + (sum & 0xffff);
    sum += sum >> 16;
    out[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
    if N == 32 {
        put_udp(&mut out[20..], inner.hash, inner.total - 20);
    }
}

#[inline(always)]
fn put_v6<const N: usize>(into: &mut [u8], template: &Template, spread: u32, inner: &Inner) {
    let Some(out) = into.first_chunk_mut::<N>() else { return };
    out.copy_from_slice(&template.bytes[..N]);
    out[0] = 0x60 | inner.tos >> 4;
    out[1] = inner.tos << 4;
    let payload = inner.total - 40;
    out[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    out[7] = inner.ttl;
    if spread != 0 {
        let source = u32::from_be_bytes([out[20], out[21], out[22], out[23]]) | inner.hash & spread;
        out[20..24].copy_from_slice(&source.to_be_bytes());
    }
    if N == 52 {
        put_udp(&mut out[40..], inner.hash, payload);
    }
}

/// Source port and length of GUE's UDP header.
#[inline(always)]
fn put_udp(out: &mut [u8], hash: u32, length: u32) {
    let port = FIRST_DYNAMIC_PORT | ((hash ^ hash >> 16) as u16 & !FIRST_DYNAMIC_PORT);
    out[..2].copy_from_slice(&port.to_be_bytes());
    out[4..6].copy_from_slice(&(length as u16).to_be_bytes());
}

#[cfg(test)]
mod tests;
