//! Packets of checks as frames to a server. Pure.
//!
//! Owns what of a packet tells whose it is, and the frame around it. Never sends.

use std::net::IpAddr;

use super::Hop;
use crate::dataplane::io::FrameMemory;
use crate::dataplane::io::memory::HeapMemory;
use crate::dataplane::parse::{self, NO_VLAN};
use crate::dataplane::rewrite::tunnel::{Tunnel, encapsulate};
use crate::dataplane::snapshot::ServerEntry;
use crate::model::Through;

/// Bytes of a chunk of frame memory: more than the device's MTU, the outer header and what the memory keeps free before it.
const CHUNK: u32 = 4096;

/// What tells whose a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// IP number of the protocol.
    pub protocol: u8,
    /// Source port, host order.
    pub port: u16,
    /// Where it goes.
    pub destination: IpAddr,
}

impl Head {
    /// Of a packet from its IP header on. `None` for what no check sends: fragments, extension headers, other protocols.
    pub fn of(packet: &[u8]) -> Option<Head> {
        let (protocol, header, destination) = match packet.first()? >> 4 {
            4 => {
                let header = usize::from(packet[0] & 0xf) * 4;
                let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
                let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
                (*packet.get(9)?, Some(header).filter(|_| fragment == 0 && header >= 20)?, IpAddr::from(destination))
            }
            6 => {
                let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
                (*packet.get(6)?, 40, IpAddr::from(destination))
            }
            _ => return None,
        };
        if !matches!(protocol, 6 | 17) {
            return None;
        }
        let port = u16::from_be_bytes(packet.get(header..header + 2)?.try_into().ok()?);
        Some(Head { protocol, port, destination })
    }
}

fn ethertype(packet: &[u8]) -> [u8; 2] {
    if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] }
}

/// The packet as it is, to the server's Ethernet address: direct routing.
pub fn direct(packet: &[u8], hop: &Hop) -> Vec<u8> {
    let mut frame = Vec::with_capacity(packet.len() + 18);
    frame.extend(hop.mac.0);
    frame.extend(hop.own.0);
    if let Some(vlan) = hop.vlan {
        frame.extend([0x81, 0x00]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ethertype(packet));
    frame.extend(packet);
    frame
}

/// The packet in an outer one, as clients' packets are. `source`: of the outer packet.
pub fn tunnelled(packet: &[u8], head: &Head, hop: &Hop, through: &Through, source: IpAddr) -> Option<Vec<u8>> {
    if source.is_ipv4() != through.server.is_ipv4() {
        return None;
    }
    let bare = direct(packet, &Hop { vlan: None, ..hop.clone() });
    let mut memory = HeapMemory::new(1, CHUNK);
    let mut frame = memory.allocate(0, u32::try_from(bare.len()).ok()?)?;
    memory.bytes_mut(&frame).copy_from_slice(&bare);
    let mut server = ServerEntry::EMPTY;
    server.macs[..6].copy_from_slice(&hop.mac.0);
    server.macs[6..].copy_from_slice(&hop.own.0);
    server.vlan = hop.vlan.unwrap_or(NO_VLAN);
    let tunnel = Tunnel::new(through.method, source, through.server, through.tunnel);
    let parsed = parse::parse(&bare).ok()?;
    // Varies with the port, as a client's flows do.
    let hash = u32::from(head.port).wrapping_mul(0x9e37_79b1);
    encapsulate(&mut memory, &mut frame, &parsed, &server, &tunnel, hash, head.port).ok()?;
    Some(memory.bytes(&frame).to_vec())
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;
    use crate::model::{MacAddr, Method, TunnelSettings};

    fn packet(v6: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(4000, 80, 1, 100).write(&mut bytes, &[]).unwrap();
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 10], 64).udp(4000, 53).write(&mut bytes, b"query").unwrap();
        }
        bytes
    }

    fn hop(vlan: Option<u16>) -> Hop {
        let (own, mac) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 9]));
        Hop { interface: "eth0".into(), own, vlan, mac, source: None, back: "eth0".into(), back_index: 2 }
    }

    #[test]
    fn whose_a_packet_is() {
        let v4 = Head { protocol: 17, port: 4000, destination: [192, 0, 2, 10].into() };
        assert_eq!(Head::of(&packet(false)), Some(v4));
        assert_eq!(Head::of(&packet(true)), Some(Head { protocol: 6, port: 4000, destination: [2; 16].into() }));
        for v6 in [false, true] {
            let whole = packet(v6);
            for cut in 0..if v6 { 42 } else { 22 } {
                assert_eq!(Head::of(&whole[..cut]), None, "{cut}");
            }
        }
        let change = |at: usize, to: u8| {
            let mut bytes = packet(false);
            bytes[at] = to;
            Head::of(&bytes)
        };
        assert_eq!(change(0, 0x55), None, "no version of IP");
        assert_eq!(change(0, 0x44), None, "a header too short");
        assert_eq!(change(6, 0x20), None, "a first fragment");
        assert_eq!(change(7, 0x01), None, "a later fragment");
        assert_eq!(change(9, 1), None, "ICMP");
        assert_eq!(change(6, 0x40), Some(v4), "DF");
    }

    #[test]
    fn by_direct_routing_nothing_but_ethernet_is_added() {
        for v6 in [false, true] {
            let (packet, plain) = (packet(v6), direct(&packet(v6), &hop(None)));
            assert_eq!(plain[..6], [2, 0, 0, 0, 0, 9]);
            assert_eq!(plain[6..12], [2, 0, 0, 0, 0, 1]);
            assert_eq!(plain[14..], packet[..]);
            let tagged = direct(&packet, &hop(Some(0x123)));
            assert_eq!((&tagged[..12], &tagged[12..16]), (&plain[..12], &[0x81, 0, 1, 0x23][..]));
            assert_eq!(tagged[16..], plain[12..]);
            assert!(SlicedPacket::from_ethernet(&tagged).is_ok());
        }
    }

    #[test]
    fn by_tunnel_the_packet_is_inside() {
        let servers = [[10, 0, 0, 11].into(), IpAddr::from([3; 16])];
        for (server, v6) in servers.into_iter().flat_map(|server| [(server, false), (server, true)]) {
            for method in [Method::Ipip, Method::Gue, Method::Gre] {
                let through = Through { server, method, tunnel: TunnelSettings { gue_port: 7, ..Default::default() } };
                let source: IpAddr = if server.is_ipv4() { [10, 0, 0, 1].into() } else { [4; 16].into() };
                let inner = packet(v6);
                let head = Head::of(&inner).unwrap();
                for vlan in [None, Some(7)] {
                    let frame = tunnelled(&inner, &head, &hop(vlan), &through, source).unwrap();
                    let outer = SlicedPacket::from_ethernet(&frame).unwrap();
                    assert_eq!(outer.vlan_ids().len(), usize::from(vlan.is_some()));
                    // The inner TTL is one less, as a client's.
                    let mut lowered = inner.clone();
                    lowered[if v6 { 7 } else { 8 }] = 63;
                    let tail = &frame[frame.len() - inner.len()..];
                    assert_eq!((&tail[12..], tail[0]), (&lowered[12..], lowered[0]), "{method:?} {server} {v6}");
                    if method == Method::Gue {
                        let Some(TransportSlice::Udp(udp)) = outer.transport else { panic!("{outer:?}") };
                        assert_eq!(udp.destination_port(), 7);
                    }
                }
                let other: IpAddr = if server.is_ipv4() { [4; 16].into() } else { [10, 0, 0, 1].into() };
                assert_eq!(tunnelled(&inner, &head, &hop(None), &through, other), None, "a source of the other family");
            }
        }
    }
}
