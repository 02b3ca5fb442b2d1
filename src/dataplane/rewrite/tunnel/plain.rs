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
    pub fn wrap<M: FrameMemory>(
        &self,
        memory: &mut M,
        frame: &mut Frame,
        total: u16,
        v6: bool,
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
        let template = &self.around[usize::from(v6)];
        let job = Job { link, rest, template, v6, outer, ttl: self.ttl, hash: flow_hash, id };
        let done = match self.length {
            20 => job.put::<20>(&self.link, self.spread),
            24 => job.put::<24>(&self.link, self.spread),
            32 => job.put::<32>(&self.link, 0),
            40 => job.put::<40>(&self.link, self.spread),
            44 => job.put::<44>(&self.link, self.spread),
            _ => job.put::<52>(&self.link, 0),
        };
        if done {
            *frame = wrapped;
        }
        done
    }
}

/// One packet.
struct Job<'a> {
    link: &'a mut [u8; ETHERNET],
    rest: &'a mut [u8],
    template: &'a Template,
    v6: bool,
    outer: u32,
    ttl: u8,
    hash: u32,
    id: u16,
}

impl Job<'_> {
    #[inline(always)]
    fn put<const N: usize>(self, link: &[u8; ETHERNET], spread: u32) -> bool {
        let Some((out, packet)) = self.rest.split_first_chunk_mut::<N>() else { return false };
        let Some(packet) = packet.first_chunk_mut::<20>() else { return false };
        let (tos, ttl, df) = if self.v6 {
            packet[7] -= 1;
            (packet[0] << 4 | packet[1] >> 4, packet[7], 0)
        } else {
            if let Some(word) = packet[8..].first_chunk_mut() {
                lower_ttl(word);
            }
            (packet[1], packet[8], packet[6] & 0x40)
        };
        *self.link = *link;
        let tos = if tos & 3 == 3 { tos & !3 | 2 } else { tos };
        let ttl = if self.ttl == 0 { ttl } else { self.ttl };
        let inner = Inner { total: self.outer, tos, ttl, df, hash: self.hash, id: self.id };
        if N < 40 {
            put_v4::<N>(out, self.template, spread, &inner);
        } else {
            put_v6::<N>(out, self.template, spread, &inner);
        }
        true
    }
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
            prop_assert!(plain.wrap(short.memory(), &mut short_frame, total, v6, hash, id));
            prop_assert_eq!(short.memory().bytes(&short_frame), long.memory().bytes(&long_frame));
            prop_assert_eq!(plain.front(), 14 + tunnel.overhead());
        }
    }
}
