//! Announcements of an address: gratuitous ARP and unsolicited neighbour advertisements, as whole Ethernet frames. Pure.
//!
//! Owns their bytes, which are keepalived's (`vrrp_arp.c`, `vrrp_ndisc.c`). Never decides when one is sent:
//! [`super::machine`] does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frame::{checksum, ethernet, ipv6_header};
use crate::model::MacAddr;

const BROADCAST: MacAddr = MacAddr([0xff; 6]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
const ICMPV6: u8 = 58;

/// The frame that tells a segment that `address` is at `mac`. `router` is said of an IPv6 address alone: whether this
/// machine forwards packets of others.
pub fn announcement(address: IpAddr, mac: MacAddr, router: bool) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(address, mac),
        IpAddr::V6(address) => neighbour_advertisement(address, mac, router),
    }
}

/// A broadcast ARP request from `address` for itself (RFC 5227, section 3; the target's hardware address is the broadcast
/// one, as keepalived has it).
fn gratuitous_arp(address: Ipv4Addr, mac: MacAddr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, 0x0806, 28);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend(BROADCAST.0);
    frame.extend(address.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes with the override flag (RFC 4861, sections 4.4 and 7.2.6).
fn neighbour_advertisement(address: Ipv6Addr, mac: MacAddr, router: bool) -> Vec<u8> {
    let mut body = vec![136, 0, 0, 0, if router { 0xa0 } else { 0x20 }, 0, 0, 0];
    body.extend(address.octets());
    // The target's link-layer address, in units of eight bytes.
    body.extend([2, 1]);
    body.extend(mac.0);
    let header = ipv6_header(address, ALL_NODES, ICMPV6, body.len(), 0);
    let mut pseudo = [0; 8];
    pseudo[..4].copy_from_slice(&(body.len() as u32).to_be_bytes());
    pseudo[7] = ICMPV6;
    let sum = checksum(&[&header[8..40], &pseudo, &body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(ALL_NODES_MAC, mac, 0x86dd, header.len() + body.len());
    frame.extend(header);
    frame.extend(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv6Slice, NetSlice, SlicedPacket};

    /// From the capture of keepalived 2.2.7 as master of 10.0.0.100, taken for this project.
    const KEEPALIVED_GARP: &str =
        "ffffffffffff020000000051080600010800060400010200000000510a000064ffffffffffff0a000064";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_gratuitous_arp_is_keepaliveds_byte_for_byte() {
        let frame = announcement("10.0.0.100".parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 0x51]), true);
        assert_eq!(hex(&frame), KEEPALIVED_GARP);
    }

    #[test]
    fn a_neighbour_advertisement_overrides_and_its_checksum_holds() {
        let address: Ipv6Addr = "2001:db8::64".parse().unwrap();
        for (router, flags) in [(false, 0x20), (true, 0xa0)] {
            let mac = MacAddr([0, 0, 0x5e, 0, 2, 7]);
            let frame = announcement(address.into(), mac, router);
            assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 1, 0, 0, 0x5e, 0, 2, 7, 0x86, 0xdd]);
            let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv6(ip)) = &parsed.net else { panic!("{parsed:?}") };
            assert_eq!((ip.header().source_addr(), ip.header().destination_addr()), (address, ALL_NODES));
            assert_eq!((ip.header().hop_limit(), ip.header().next_header().0), (255, ICMPV6));
            let icmp = Icmpv6Slice::from_slice(&frame[54..]).unwrap();
            assert!(icmp.is_checksum_valid(address.octets(), ALL_NODES.octets()));
            assert_eq!(frame[54..56], [136, 0]);
            assert_eq!(frame[58..62], [flags, 0, 0, 0]);
            assert_eq!(frame[62..78], address.octets());
            assert_eq!(frame[78..], [2, 1, 0, 0, 0x5e, 0, 2, 7]);
        }
    }
}
