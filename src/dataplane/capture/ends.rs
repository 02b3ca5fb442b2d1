//! Where a frame comes from and goes to, as far as that can be told, however broken it is. Pure.
//!
//! Owns the look at a frame's headers for a capture's filter. It decides nothing: what a frame is, [`crate::dataplane::parse`]
//! says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dataplane::parse::{SCTP, TCP, UDP, be16};

/// Addresses and ports of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Source address; the sender's of ARP.
    pub source: Option<IpAddr>,
    /// Destination address; the target's of ARP.
    pub destination: Option<IpAddr>,
    /// IP protocol number, behind extension headers.
    pub protocol: Option<u8>,
    /// Source and destination port, host order, where the frame has them.
    pub ports: Option<(u16, u16)>,
}

/// Most VLAN tags and extension headers that are walked.
const MOST: usize = 8;

fn v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: &[u8; 4] = bytes.get(at..)?.first_chunk()?;
    Some(IpAddr::V4(Ipv4Addr::from(*octets)))
}

fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: &[u8; 16] = bytes.get(at..)?.first_chunk()?;
    Some(IpAddr::V6(Ipv6Addr::from(*octets)))
}

impl Ends {
    /// Of a frame, from its Ethernet header on.
    pub fn of(bytes: &[u8]) -> Ends {
        let mut at = 12;
        for _ in 0..MOST {
            match be16(bytes, at) {
                Some(0x8100 | 0x88a8) => at += 4,
                Some(0x0800) => return Ends::of_v4(bytes, at + 2),
                Some(0x86dd) => return Ends::of_v6(bytes, at + 2),
                Some(0x0806) => {
                    let (source, destination) = (v4(bytes, at + 16), v4(bytes, at + 26));
                    return Ends { source, destination, ..Ends::default() };
                }
                _ => break,
            }
        }
        Ends::default()
    }

    fn of_v4(bytes: &[u8], at: usize) -> Ends {
        let header = usize::from(bytes.get(at).copied().unwrap_or(0) & 15) * 4;
        let protocol = bytes.get(at + 9).copied();
        let first = be16(bytes, at + 6).is_some_and(|word| word & 0x1fff == 0);
        let ports = protocol.filter(|_| first).and_then(|protocol| ports(bytes, at + header, protocol));
        Ends { source: v4(bytes, at + 12), destination: v4(bytes, at + 16), protocol, ports }
    }

    fn of_v6(bytes: &[u8], at: usize) -> Ends {
        let mut ends = Ends { source: v6(bytes, at + 8), destination: v6(bytes, at + 24), ..Ends::default() };
        let (mut next, mut at) = (bytes.get(at + 6).copied(), at + 40);
        for _ in 0..MOST {
            let length = bytes.get(at + 1).map_or(0, |length| usize::from(*length));
            match next {
                // Hop-by-hop, routing and destination options (RFC 8200, section 4).
                Some(0 | 43 | 60) => (next, at) = (bytes.get(at).copied(), at + (length + 1) * 8),
                Some(44) => {
                    let first = be16(bytes, at + 2).is_some_and(|word| word & 0xfff8 == 0);
                    (next, at) = (bytes.get(at).copied(), at + 8);
                    if !first {
                        ends.protocol = next;
                        return ends;
                    }
                }
                _ => break,
            }
        }
        ends.protocol = next;
        ends.ports = next.and_then(|protocol| ports(bytes, at, protocol));
        ends
    }
}

fn ports(bytes: &[u8], at: usize, protocol: u8) -> Option<(u16, u16)> {
    matches!(protocol, TCP | UDP | SCTP).then(|| Some((be16(bytes, at)?, be16(bytes, at + 2)?))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    #[test]
    fn whole_frames_are_told_with_tags_and_without() {
        let plain = PacketBuilder::ethernet2([2; 6], [3; 6]).ipv4([198, 51, 100, 7], [192, 0, 2, 10], 64);
        let mut frame = Vec::new();
        plain.udp(1024, 53).write(&mut frame, b"question").unwrap();
        let ends = Ends {
            source: Some([198, 51, 100, 7].into()),
            destination: Some([192, 0, 2, 10].into()),
            protocol: Some(17),
            ports: Some((1024, 53)),
        };
        assert_eq!(Ends::of(&frame), ends);
        let mut tagged = frame.clone();
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(Ends::of(&tagged), ends);
        // A later fragment has no ports.
        frame[21] = 1;
        assert_eq!(Ends::of(&frame), Ends { ports: None, ..ends });
        // A frame that ends in its addresses is told as far as it goes.
        assert_eq!(Ends::of(&frame[..32]), Ends { destination: None, ports: None, ..ends });
    }

    #[test]
    fn ipv6_and_arp_are_told() {
        let (from, to) = ("2001:db8::7".parse::<Ipv6Addr>().unwrap(), "2001:db8::10".parse::<Ipv6Addr>().unwrap());
        let mut frame = Vec::new();
        let plain = PacketBuilder::ethernet2([2; 6], [3; 6]).ipv6(from.octets(), to.octets(), 64);
        plain.tcp(4000, 80, 0, 0).write(&mut frame, &[]).unwrap();
        let ends = Ends {
            source: Some(from.into()),
            destination: Some(to.into()),
            protocol: Some(6),
            ports: Some((4000, 80)),
        };
        assert_eq!(Ends::of(&frame), ends);
        // Behind destination options.
        let mut longer = frame.clone();
        longer[20] = 60;
        longer.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(Ends::of(&longer), ends);

        let mut arp = vec![0xff; 12];
        arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 9]);
        let told = Ends::of(&arp);
        assert_eq!((told.source, told.destination), (Some([10, 0, 0, 1].into()), Some([10, 0, 0, 9].into())));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_broken(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..4) {
            let mut bytes = bytes;
            if bytes.len() > 14 {
                bytes[12..14].copy_from_slice(&[[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]][kind]);
            }
            let ends = Ends::of(&bytes);
            prop_assert!(ends.ports.is_none() || ends.protocol.is_some());
        }
    }
}
