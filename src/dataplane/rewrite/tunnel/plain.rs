//! Wrapping on the short path: an untagged packet without options, towards a server whose segment is untagged.
//!
//! Owns the whole front of the frame, Ethernet header included, ready made. Equal to [`super::encapsulate`] byte for byte,
//! as tests show.

use std::sync::Arc;

use super::{Inner, Template, Tunnel, put_v4, put_v6};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::path_mtu::PathMtu;
use crate::dataplane::rewrite::lower_ttl;

/// Bytes of an untagged Ethernet header.
const ETHERNET: usize = 14;

/// What goes before the packets for one server.
#[derive(Clone, Debug)]
pub struct PlainTunnel {
    /// MACs and type.
    link: [u8; ETHERNET],
    /// Bytes of the outer header.
    length: u8,
    ttl: u8,
    spread: u32,
    /// Around an IPv4 packet, and around an IPv6 packet.
    around: [Template; 2],
    path: Arc<PathMtu>,
}

impl PlainTunnel {
    /// That of `tunnel`, with the MACs (destination, source) with which its frames leave.
    pub fn new(tunnel: &Tunnel, macs: [u8; 12]) -> PlainTunnel {
        let mut link = [0; ETHERNET];
        link[..12].copy_from_slice(&macs);
        link[12..].copy_from_slice(if tunnel.v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
        let around = [tunnel.around_v4.clone(), tunnel.around_v6.clone()];
        let path = tunnel.path.clone();
        PlainTunnel { link, length: tunnel.length, ttl: tunnel.ttl, spread: tunnel.spread, around, path }
    }

    /// As [`Tunnel::largest_frame`].
    #[inline(always)]
    pub fn largest_frame(&self, max_frame: u16, now: u32) -> u16 {
        self.path.largest_frame(max_frame, now)
    }

    /// Bytes from the start of a frame to the packet inside.
    #[inline(always)]
    pub fn front(&self) -> u32 {
        ETHERNET as u32 + u32::from(self.length)
    }

    /// Wraps a packet of `total` bytes that [`crate::dataplane::parse::plain_v4`] or `plain_v6` took; the other arguments
    /// as in [`super::encapsulate`]. `false`: no headroom, or too long for an IP packet; nothing was changed then.
    #[inline(always)]
    pub fn wrap<const V6: bool, M: FrameMemory>(
        &self,
        memory: &mut M,
        frame: &mut Frame,
        total: u16,
        flow_hash: u32,
        id: u16,
    ) -> bool {
        let grown = usize::from(self.length);
        let outer = u32::from(total) + u32::from(self.length);
        if memory.headroom(frame) < grown || outer > 0xffff {
            return false;
        }
        let wrapped = Frame { addr: frame.addr - grown as u64, len: self.front() + u32::from(total), ..*frame };
        let bytes = memory.bytes_mut(&wrapped);
        let Some((link, rest)) = bytes.split_first_chunk_mut::<ETHERNET>() else { return false };
        let job = Job { outer, hash: flow_hash, id };
        let done = match self.length {
            20 => self.put::<20, V6>(rest, &job),
            24 => self.put::<24, V6>(rest, &job),
            32 => self.put::<32, V6>(rest, &job),
            40 => self.put::<40, V6>(rest, &job),
            44 => self.put::<44, V6>(rest, &job),
            _ => self.put::<52, V6>(rest, &job),
        };
        if done {
            *link = self.link;
            frame.addr = wrapped.addr;
            frame.len = wrapped.len;
        }
        done
    }

    /// The outer header, and what it takes from the packet behind it.
    #[inline(always)]
    fn put<const N: usize, const V6: bool>(&self, rest: &mut [u8], job: &Job) -> bool {
        let Some((out, packet)) = rest.split_first_chunk_mut::<N>() else { return false };
        let Some(packet) = packet.first_chunk_mut::<20>() else { return false };
        let (tos, ttl, df) = if V6 {
            packet[7] -= 1;
            (packet[0] << 4 | packet[1] >> 4, packet[7], 0)
        } else {
            if let Some(word) = packet[8..].first_chunk_mut() {
                lower_ttl(word);
            }
            (packet[1], packet[8], packet[6] & 0x40)
        };
        let tos = if tos & 3 == 3 { tos & !3 | 2 } else { tos };
        let ttl = if self.ttl == 0 { ttl } else { self.ttl };
        let inner = Inner { total: job.outer, tos, ttl, df, hash: job.hash, id: job.id };
        // GUE varies its UDP port instead.
        let spread = if N == 32 || N == 52 { 0 } else { self.spread };
        let template = &self.around[usize::from(V6)];
        if N < 40 {
            put_v4::<N>(out, template, spread, &inner);
        } else {
            put_v6::<N>(out, template, spread, &inner);
        }
        true
    }
}

/// What one outer header needs to know.
struct Job {
    /// Bytes of the outer packet.
    outer: u32,
    hash: u32,
    id: u16,
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::dataplane::io::PacketIo;
    use crate::dataplane::io::memory::MemoryIo;
    use crate::dataplane::parse;
    use crate::dataplane::rewrite::tunnel::encapsulate;
    use crate::dataplane::snapshot::ServerEntry;
    use crate::model::{Method, TunnelSettings};

    fn received(frame: &[u8]) -> (MemoryIo, Frame) {
        let mut io = MemoryIo::new(1, 4, 4096);
        assert!(io.inject(0, frame));
        let mut frames = [Frame::default(); 1];
        assert_eq!(io.receive(&mut frames), 1);
        (io, frames[0])
    }

    proptest! {
        /// Both ways of wrapping give the same frame.
        #[test]
        fn equals_the_long_way(
            (v6, outer_v6, method, fixed_ttl, bits) in (
                any::<bool>(),
                any::<bool>(),
                prop_oneof![Just(Method::Ipip), Just(Method::Gue), Just(Method::Gre)],
                proptest::option::of(1u8..),
                0u8..17,
            ),
            (tos, ttl, df, hash, id) in (any::<u8>(), 2u8.., any::<bool>(), any::<u32>(), any::<u16>()),
            data in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
            let mut frame = Vec::new();
            if v6 {
                ethernet.ipv6([3; 16], [4; 16], ttl).udp(5, 6).write(&mut frame, &data).expect("builds");
                frame[14] = 0x60 | tos >> 4;
                frame[15] = tos << 4;
            } else {
                let mut ip = etherparse::Ipv4Header::new(0, ttl, etherparse::IpNumber::UDP, [3; 4], [4; 4]).expect("fits");
                ip.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("six bits");
                ip.ecn = etherparse::IpEcn::try_new(tos & 3).expect("two bits");
                ip.dont_fragment = df;
                let header = etherparse::IpHeaders::Ipv4(ip, Default::default());
                ethernet.ip(header).udp(5, 6).write(&mut frame, &data).expect("builds");
            }
            // Short frames arrive padded.
            frame.resize(frame.len().max(60), 0);
            let parsed = parse::parse(&frame).expect("sound");
            let ends: [IpAddr; 2] =
                if outer_v6 { [[7; 16].into(), [8; 16].into()] } else { [[7; 4].into(), [8; 4].into()] };
            let settings = TunnelSettings { ttl: fixed_ttl, source_spread_bits: bits, ..TunnelSettings::default() };
            let tunnel = Tunnel::new(method, ends[0], ends[1], settings);
            let server = ServerEntry { macs: [9; 12], ..ServerEntry::EMPTY };
            let (mut long, mut long_frame) = received(&frame);
            encapsulate(long.memory(), &mut long_frame, &parsed, &server, &tunnel, hash, id).expect("fits");
            let (mut short, mut short_frame) = received(&frame);
            let plain = PlainTunnel::new(&tunnel, server.macs);
            let total = parsed.l4 - parsed.l3 + parsed.l4_len;
            let done = if v6 {
                plain.wrap::<true, _>(short.memory(), &mut short_frame, total, hash, id)
            } else {
                plain.wrap::<false, _>(short.memory(), &mut short_frame, total, hash, id)
            };
            prop_assert!(done);
            prop_assert_eq!(short.memory().bytes(&short_frame), long.memory().bytes(&long_frame));
            prop_assert_eq!(plain.front(), 14 + tunnel.overhead());
        }
    }
}
