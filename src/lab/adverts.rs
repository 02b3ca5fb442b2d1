//! What appliances say on the wire, read field by field: VRRP adverts, gratuitous ARP, unsolicited neighbour advertisements.
//!
//! Owns a reader of its own, so that the product's is not its own judge. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket};

use crate::model::MacAddr;

/// IP protocol number of VRRP.
const VRRP: u8 = 112;
const ICMPV6: u8 = 58;
/// Bytes of a version 2 advert's authentication data.
const TRAILER: usize = 8;

/// What the checksum of an advert covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// A pseudo-header and the message.
    PseudoHeader,
    /// The message only.
    Message,
    /// Neither: it is wrong.
    Wrong,
}

/// An advert with the headers around it, as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Ethernet source and destination.
    pub macs: (MacAddr, MacAddr),
    /// IP source.
    pub source: IpAddr,
    /// IP destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// ToS byte or traffic class.
    pub tos: u8,
    /// Version of the protocol.
    pub version: u8,
    /// Router number.
    pub vrid: u8,
    /// Priority; 0: the sender stops.
    pub priority: u8,
    /// Time between adverts, as the field of its version says.
    pub interval: Duration,
    /// Version 2: type of authentication; else 0.
    pub auth_type: u8,
    /// Version 2: authentication data; else zeroes.
    pub auth: [u8; TRAILER],
    /// Addresses in their order.
    pub addresses: Vec<IpAddr>,
    /// What the checksum covers.
    pub sum: Sum,
}

/// Something that an appliance says about its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// An advert.
    Advert(Advert),
    /// VRRP, but not to be read: why.
    Broken(String),
    /// Where an address is: gratuitous ARP or an unsolicited neighbour advertisement with the override flag.
    Here {
        /// The address.
        address: IpAddr,
        /// Its Ethernet address.
        mac: MacAddr,
    },
}

/// Reads a frame; `None` where it is about something else.
pub fn read(frame: &[u8]) -> Option<Said> {
    let macs = (mac_at(frame, 6)?, mac_at(frame, 0)?);
    if frame.get(12..14)? == [0x08, 0x06] {
        return gratuitous(frame.get(14..)?);
    }
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination, ttl, tos, payload) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            if header.protocol().0 != VRRP {
                return None;
            }
            let tos = header.dcp().value() << 2 | header.ecn().value();
            let ends = (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()));
            (ends.0, ends.1, header.ttl(), tos, ip.payload().payload)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let payload = ip.payload().payload;
            if ip.payload().ip_number.0 == ICMPV6 {
                return unsolicited(payload);
            }
            if ip.payload().ip_number.0 != VRRP {
                return None;
            }
            let ends = (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()));
            (ends.0, ends.1, header.hop_limit(), header.traffic_class(), payload)
        }
        _ => return None,
    };
    Some(match message(payload, source, destination) {
        Ok(advert) => Said::Advert(Advert { macs, ttl, tos, ..advert }),
        Err(why) => Said::Broken(format!("{why}: {payload:02x?} from {source}")),
    })
}

fn message(bytes: &[u8], source: IpAddr, destination: IpAddr) -> Result<Advert, String> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or("shorter than 8 bytes")?;
    let [kind, vrid, priority, count, fifth, sixth, _, _] = *head;
    let version = kind >> 4;
    if kind & 15 != 1 || !matches!(version, 2 | 3) {
        return Err(format!("version and type {kind:#04x}"));
    }
    let size = if source.is_ipv4() { 4 } else { 16 };
    let trailer = if version == 2 { TRAILER } else { 0 };
    if rest.len() != usize::from(count) * size + trailer {
        return Err(format!("{} bytes after the head, with {count} addresses", rest.len()));
    }
    let (list, auth) = rest.split_at(usize::from(count) * size);
    let addresses = list.chunks_exact(size).map(address).collect();
    let interval = match version {
        2 => Duration::from_secs(sixth.into()),
        _ => Duration::from_millis(10 * u64::from(u16::from_be_bytes([fifth & 15, sixth]))),
    };
    if version == 3 && fifth >> 4 != 0 {
        return Err("reserved bits are set".into());
    }
    let sum = if sum(&[bytes]) == 0xffff {
        Sum::Message
    } else if sum(&[&pseudo_header(source, destination, bytes.len()), bytes]) == 0xffff {
        Sum::PseudoHeader
    } else {
        Sum::Wrong
    };
    Ok(Advert {
        macs: (MacAddr([0; 6]), MacAddr([0; 6])),
        source,
        destination,
        ttl: 0,
        tos: 0,
        version,
        vrid,
        priority,
        interval,
        auth_type: if version == 2 { fifth } else { 0 },
        auth: auth.try_into().unwrap_or_default(),
        addresses,
        sum,
    })
}

fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> Vec<u8> {
    let mut header = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    match source {
        IpAddr::V4(_) => header.extend([0, VRRP]),
        IpAddr::V6(_) => header.extend([0, 0]),
    }
    header.extend((length as u16).to_be_bytes());
    if source.is_ipv6() {
        header.extend([0, 0, 0, VRRP]);
    }
    header
}

/// The ones' complement sum of 16-bit words (RFC 1071); all ones over a message with a right checksum.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn gratuitous(arp: &[u8]) -> Option<Said> {
    let ethernet_ipv4 = arp.get(..6)? == [0, 1, 8, 0, 6, 4];
    let (sender, target) = (arp.get(14..18)?, arp.get(24..28)?);
    (ethernet_ipv4 && sender == target).then_some(())?;
    Some(Said::Here { address: address(sender), mac: mac_at(arp, 8)? })
}

fn unsolicited(icmp: &[u8]) -> Option<Said> {
    const ADVERTISEMENT: u8 = 136;
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let wanted = *icmp.first()? == ADVERTISEMENT && icmp.get(4)? & (SOLICITED | OVERRIDE) == OVERRIDE;
    // One option: the target's Ethernet address.
    (wanted && icmp.get(24..26)? == [2, 1]).then_some(())?;
    Some(Said::Here { address: address(icmp.get(8..24)?), mac: mac_at(icmp, 26)? })
}

fn mac_at(bytes: &[u8], at: usize) -> Option<MacAddr> {
    bytes.get(at..at + 6)?.try_into().ok().map(MacAddr)
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 16]>::try_from(bytes) {
        Ok(long) => Ipv6Addr::from(long).into(),
        Err(_) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap_or_default()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn read_message(hex: &str, from: &str, to: &str) -> Result<Advert, String> {
        message(&bytes(hex), from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn known_messages_are_read() {
        let two =
            read_message("210ac802000192edc0000201c00002020000000000000000", "192.0.2.251", "224.0.0.18").unwrap();
        assert_eq!((two.version, two.vrid, two.priority, two.auth_type), (2, 10, 200, 0));
        assert_eq!((two.interval, two.sum), (Duration::from_secs(1), Sum::Message));
        assert_eq!(two.addresses, ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap()));
        let three = |hex| read_message(hex, "192.0.2.251", "224.0.0.18").unwrap();
        assert_eq!(three("310ac8020064defbc0000201c0000202").sum, Sum::PseudoHeader);
        assert_eq!(three("310ac8020064828ac0000201c0000202").sum, Sum::Message);
        assert_eq!(three("310ac8020064defac0000201c0000202").sum, Sum::Wrong);
        let six = "310a640200643f5dfe80000000000000000000000000000120010db8000000000000000000000001";
        let six = read_message(six, "fe80::c8", "ff02::12").unwrap();
        assert_eq!((six.sum, six.interval, six.addresses.len()), (Sum::PseudoHeader, Duration::from_secs(1), 2));
    }

    #[test]
    fn what_is_no_advert_says_why() {
        for (hex, why) in [
            ("310ac8020064de", "shorter"),
            ("320ac8020064defbc0000201c0000202", "type"),
            ("310ac8030064defbc0000201c0000202", "3 addresses"),
            ("310ac8021064defbc0000201c0000202", "reserved"),
        ] {
            let said = read_message(hex, "192.0.2.251", "224.0.0.18").unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn announcements_are_read_and_questions_are_not() {
        let head = "ffffffffffff02005e0000010806";
        let here = format!("{head}000108000604000102005e000001c000020affffffffffffc000020a");
        let mac = MacAddr([2, 0, 0x5e, 0, 0, 1]);
        let address = "192.0.2.10".parse().unwrap();
        assert_eq!(read(&bytes(&here)), Some(Said::Here { address, mac }));
        let question = format!("{head}000108000604000102005e000001c0000201000000000000c000020a");
        assert_eq!(read(&bytes(&question)), None);
        assert_eq!(read(&[]), None);
    }
}
