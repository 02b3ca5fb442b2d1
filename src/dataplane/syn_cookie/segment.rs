//! The packets of a handshake that the appliance holds for both ends: a SYN-ACK and an ACK of its own, and a client's ACK
//! that becomes the SYN which its server never saw.
//!
//! Owns how they look. Pure: changes or makes frames, never decides which. IP options and extension headers do not stay;
//! VLAN tags do.

use std::net::{IpAddr, SocketAddr};

use super::Offer;
use super::slab::Splice;
use crate::dataplane::checksum;
use crate::dataplane::icmp;
use crate::dataplane::io::{Frame, FrameMemory, PortIndex};
use crate::dataplane::parse::{Kind, NO_VLAN, Parsed, Part, TCP, be16, tcp_flag};
use crate::model::MacAddr;

/// TTL of packets that the appliance makes.
const TTL: u8 = 64;

/// Least bytes of a frame, without its checksum.
const LEAST_FRAME: usize = 60;

/// Most bytes of a TCP header that is made here.
const MOST_TCP: usize = 32;

/// A TCP segment without payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub number: u32,
    /// What it acknowledges.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// The window as it lies in the header.
    pub window: u16,
    /// Options of a SYN.
    pub options: Option<SynOptions>,
}

/// What a SYN or SYN-ACK announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size, bytes.
    pub mss: u16,
    /// Window scale.
    pub scale: Option<u8>,
    /// Selective acknowledgements.
    pub sack: bool,
}

impl SynOptions {
    /// Those of the client's own SYN.
    pub fn of(offer: Offer) -> SynOptions {
        SynOptions { mss: offer.mss(), scale: offer.scale(), sack: offer.sack() }
    }

    /// Writes them, aligned; how many bytes they are.
    fn write(&self, out: &mut [u8; MOST_TCP - 20]) -> usize {
        let [high, low] = self.mss.to_be_bytes();
        out[..4].copy_from_slice(&[2, 4, high, low]);
        let mut len = 4;
        if self.sack {
            out[len..len + 4].copy_from_slice(&[1, 1, 4, 2]);
            len += 4;
        }
        if let Some(scale) = self.scale {
            out[len..len + 4].copy_from_slice(&[1, 3, 3, scale]);
            len += 4;
        }
        len
    }
}

impl Segment {
    /// Writes the TCP header; how many bytes it has. The checksum is left 0.
    fn write(&self, out: &mut [u8; MOST_TCP], ports: [u16; 2]) -> usize {
        let mut options = [0; MOST_TCP - 20];
        let len = 20 + self.options.map_or(0, |announced| announced.write(&mut options));
        out[..2].copy_from_slice(&ports[0].to_be_bytes());
        out[2..4].copy_from_slice(&ports[1].to_be_bytes());
        out[4..8].copy_from_slice(&self.number.to_be_bytes());
        out[8..12].copy_from_slice(&self.ack.to_be_bytes());
        out[12] = (len as u8 / 4) << 4;
        out[13] = self.flags;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[16..20].fill(0);
        out[20..].copy_from_slice(&options);
        len
    }

    /// Bytes of the header.
    fn len(&self) -> usize {
        let mut options = [0; MOST_TCP - 20];
        20 + self.options.map_or(0, |announced| announced.write(&mut options))
    }
}

impl Splice {
    /// The SYN of the client, as far as its cookie remembers it.
    pub fn syn(&self) -> Segment {
        let options = Some(SynOptions::of(self.offer()));
        Segment { number: self.isn, ack: 0, flags: tcp_flag::SYN, window: self.window_of_syn(), options }
    }

    /// The client's ACK that ends its handshake, in its own numbers.
    pub fn ack(&self) -> Segment {
        let (number, ack) = (self.isn.wrapping_add(1), self.cookie.wrapping_add(1));
        Segment { number, ack, flags: tcp_flag::ACK, window: self.window, options: None }
    }
}

/// What stays of an IP header besides the addresses.
#[derive(Clone, Copy)]
struct Kept {
    /// IPv4: type of service; IPv6: the first four bytes. ECN bits are cleared: a segment of the handshake has none
    /// (RFC 3168, section 6.1.1).
    class: [u8; 4],
    ttl: u8,
}

const FRESH_V4: Kept = Kept { class: [0x45, 0, 0, 0], ttl: TTL };
const FRESH_V6: Kept = Kept { class: [0x60, 0, 0, 0], ttl: TTL };

/// Writes IP and TCP header at `l3`, and zeroes behind them. What the packet is then; `None`: the ends are of two
/// families.
fn write(
    bytes: &mut [u8],
    (tags, vlan, l3): (u8, u16, u16),
    source: SocketAddr,
    destination: SocketAddr,
    kept: Kept,
    segment: &Segment,
) -> Option<Parsed> {
    let mut tcp = [0; MOST_TCP];
    let len = segment.write(&mut tcp, [source.port(), destination.port()]);
    let tcp = &mut tcp[..len];
    let packet = bytes.get_mut(usize::from(l3)..)?;
    let (kind, header, pseudo) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ip = packet.get_mut(..20)?;
            ip.fill(0);
            ip[..2].copy_from_slice(&[0x45, kept.class[1] & !3]);
            ip[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
            // Not to be fragmented, so the identification may be 0 (RFC 6864).
            ip[6] = 0x40;
            ip[8..10].copy_from_slice(&[kept.ttl, TCP]);
            ip[12..16].copy_from_slice(&from.octets());
            ip[16..20].copy_from_slice(&to.octets());
            let check = checksum::checksum(ip);
            ip[10..12].copy_from_slice(&check.to_ne_bytes());
            (Kind::Flow4, 20, checksum::pseudo_header(&from.octets(), &to.octets(), TCP, len as u32))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = packet.get_mut(..40)?;
            ip[..4].copy_from_slice(&kept.class);
            ip[1] &= !0x30;
            ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            ip[6..8].copy_from_slice(&[TCP, kept.ttl]);
            ip[8..24].copy_from_slice(&from.octets());
            ip[24..40].copy_from_slice(&to.octets());
            (Kind::Flow6, 40, checksum::pseudo_header(&from.octets(), &to.octets(), TCP, len as u32))
        }
        _ => return None,
    };
    let check = !checksum::fold(checksum::sum(tcp, pseudo));
    tcp[16..18].copy_from_slice(&check.to_ne_bytes());
    packet.get_mut(header..header + len)?.copy_from_slice(tcp);
    packet[header + len..].fill(0);
    Some(Parsed {
        kind,
        protocol: TCP,
        tcp_flags: segment.flags,
        part: Part::Whole,
        tags,
        vlan,
        l3,
        l4: l3 + header as u16,
        l4_len: len as u16,
    })
}

/// Source and destination of a TCP packet, with their ports.
fn ends(bytes: &[u8], parsed: &Parsed) -> Option<(SocketAddr, SocketAddr)> {
    let (from, to, _) = icmp::ends(bytes, usize::from(parsed.l3))?;
    let l4 = usize::from(parsed.l4);
    Some((SocketAddr::new(from, be16(bytes, l4)?), SocketAddr::new(to, be16(bytes, l4 + 2)?)))
}

/// The frame with room for `segment`: it may have to grow. `None`: its chunk has not that much.
fn resized<M: FrameMemory>(memory: &M, frame: &Frame, parsed: &Parsed, segment: &Segment) -> Option<Frame> {
    let header = if parsed.kind == Kind::Flow4 { 20 } else { 40 };
    let len = (usize::from(parsed.l3) + header + segment.len()).max(LEAST_FRAME);
    let frame = Frame { len: len as u32, ..*frame };
    (memory.bytes(&frame).len() == len).then_some(frame)
}

/// Puts `segment` in the place of a TCP packet, from the same end to the same end; Ethernet header, class and TTL stay.
/// What the packet is then; `None`: the frame has no room, and is unchanged.
pub fn replace<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    segment: &Segment,
) -> Option<Parsed> {
    let new = resized(memory, frame, parsed, segment)?;
    let (source, destination) = ends(memory.bytes(frame), parsed)?;
    let l3 = usize::from(parsed.l3);
    let class = *memory.bytes(frame).get(l3..)?.first_chunk()?;
    let ttl = *memory.bytes(frame).get(l3 + if parsed.kind == Kind::Flow4 { 8 } else { 7 })?;
    let place = (parsed.tags, parsed.vlan, parsed.l3);
    let parsed = write(memory.bytes_mut(&new), place, source, destination, Kept { class, ttl }, segment)?;
    *frame = new;
    Some(parsed)
}

/// Turns a TCP packet into `segment` back to its sender, from the MAC `own`. `None`: the frame has no room, or came from
/// a group's MAC, and is unchanged.
pub fn answer<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    own: MacAddr,
    segment: &Segment,
) -> Option<Parsed> {
    let new = resized(memory, frame, parsed, segment)?;
    let bytes = memory.bytes(frame);
    let (source, destination) = ends(bytes, parsed)?;
    let sender: [u8; 6] = *bytes.get(6..)?.first_chunk()?;
    if sender[0] & 1 == 1 {
        return None;
    }
    let kept = if parsed.kind == Kind::Flow4 { FRESH_V4 } else { FRESH_V6 };
    let place = (parsed.tags, parsed.vlan, parsed.l3);
    let bytes = memory.bytes_mut(&new);
    let parsed = write(bytes, place, destination, source, kept, segment)?;
    bytes[..6].copy_from_slice(&sender);
    bytes[6..12].copy_from_slice(&own.0);
    *frame = new;
    Some(parsed)
}

/// A new frame with `segment`, as if it had come in on `port` without a tag. The MACs are left 0. `None`: no frame is
/// free, or the ends are of two families.
pub fn make<M: FrameMemory>(
    memory: &mut M,
    port: PortIndex,
    source: SocketAddr,
    destination: SocketAddr,
    segment: &Segment,
) -> Option<(Frame, Parsed)> {
    let v4 = source.is_ipv4();
    let (kept, header) = if v4 { (FRESH_V4, 20) } else { (FRESH_V6, 40) };
    let len = (14 + header + segment.len()).max(LEAST_FRAME);
    let frame = memory.allocate(port, len as u32)?;
    let bytes = memory.bytes_mut(&frame);
    if let Some(head) = bytes.first_chunk_mut::<14>() {
        *head = [0; 14];
        head[12..].copy_from_slice(if v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
    }
    let written = write(bytes, (0, NO_VLAN, 14), source, destination, kept, segment);
    if written.is_none() {
        memory.give_back(frame);
    }
    Some((frame, written?))
}

#[cfg(test)]
mod tests;
