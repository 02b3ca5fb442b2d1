//! What is inside a tunnelled packet: IPIP (RFC 2003, 2473, 4213), GRE (RFC 2784), GUE versions 0 and 1.
//!
//! Pure: bytes in, the inner packet or a reason out. Never copies, and never looks further than the inner network header.

use std::net::IpAddr;

use serde::Serialize;

/// What follows the outer IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wrapping {
    /// An IPv4 packet (protocol 4).
    Ipv4,
    /// An IPv6 packet (protocol 41).
    Ipv6,
    /// GRE (protocol 47).
    Gre,
    /// UDP was taken off already: GUE.
    Gue,
}

/// Why a packet was not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Headers that do not fit, contradict each other, or have a wrong checksum.
    Malformed,
    /// A tunnel header with fields that are not understood (GRE keys, GUE options or control messages).
    Unsupported,
    /// The outer source is not allowed.
    Stranger,
    /// The inner destination is not an address of this machine, or not one of those given.
    NotOurs,
    /// Congestion was marked on a packet whose sender does not know such marks (RFC 6040, section 4.2).
    Congestion,
    /// The kernel did not take it.
    Refused,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Reason; 6] = [
        Reason::Malformed,
        Reason::Unsupported,
        Reason::Stranger,
        Reason::NotOurs,
        Reason::Congestion,
        Reason::Refused,
    ];

    /// Name, as in the counters.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::Unsupported => "unsupported",
            Reason::Stranger => "stranger",
            Reason::NotOurs => "not-ours",
            Reason::Congestion => "congestion",
            Reason::Refused => "refused",
        }
    }
}

/// Where the payload of a whole IPv4 packet begins.
///
/// # Errors
/// [`Reason::Malformed`].
pub fn behind_ipv4(packet: &[u8]) -> Result<usize, Reason> {
    let header = usize::from(packet.first().ok_or(Reason::Malformed)? & 0x0f) * 4;
    if packet[0] >> 4 == 4 && header >= 20 && header <= packet.len() { Ok(header) } else { Err(Reason::Malformed) }
}

/// The inner packet, without what may follow it, as a range of `payload`; and its destination.
///
/// # Errors
/// [`Reason::Malformed`] or [`Reason::Unsupported`].
pub fn open(wrapping: Wrapping, payload: &[u8]) -> Result<(std::ops::Range<usize>, IpAddr), Reason> {
    let (at, version) = match wrapping {
        Wrapping::Ipv4 => (0, 4),
        Wrapping::Ipv6 => (0, 6),
        Wrapping::Gre => gre(payload)?,
        Wrapping::Gue => gue(payload)?,
    };
    let packet = payload.get(at..).ok_or(Reason::Malformed)?;
    let (length, destination) = match (version, packet.first().ok_or(Reason::Malformed)? >> 4) {
        (4, 4) => {
            let header = behind_ipv4(packet)?;
            let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            if length < header {
                return Err(Reason::Malformed);
            }
            (length, IpAddr::from([packet[16], packet[17], packet[18], packet[19]]))
        }
        (6, 6) => {
            let head: &[u8; 40] = packet.first_chunk().ok_or(Reason::Malformed)?;
            let destination: &[u8; 16] = head[24..].first_chunk().ok_or(Reason::Malformed)?;
            (40 + usize::from(u16::from_be_bytes([head[4], head[5]])), IpAddr::from(*destination))
        }
        _ => return Err(Reason::Malformed),
    };
    if length > packet.len() {
        return Err(Reason::Malformed);
    }
    Ok((at..at + length, destination))
}

/// RFC 2784: where the inner packet begins, and its IP version.
fn gre(payload: &[u8]) -> Result<(usize, u8), Reason> {
    let head: &[u8; 4] = payload.first_chunk().ok_or(Reason::Malformed)?;
    let flags = u16::from_be_bytes([head[0], head[1]]);
    // All but the checksum bit: routing, key and sequence number (RFC 1701, 2890), version.
    if flags & 0x7fff != 0 {
        return Err(Reason::Unsupported);
    }
    let at = if flags == 0 { 4 } else { 8 };
    if flags != 0 && (payload.len() < 8 || fold(sum(payload)) != 0xffff) {
        return Err(Reason::Malformed);
    }
    match [head[2], head[3]] {
        [0x08, 0x00] => Ok((at, 4)),
        [0x86, 0xdd] => Ok((at, 6)),
        _ => Err(Reason::Unsupported),
    }
}

/// GUE: where the inner packet begins, and its IP version. Version 1 has no header: the packet's own version field is it.
fn gue(payload: &[u8]) -> Result<(usize, u8), Reason> {
    let first = *payload.first().ok_or(Reason::Malformed)?;
    match first >> 4 {
        4 => return Ok((0, 4)),
        6 => return Ok((0, 6)),
        _ => {}
    }
    let head: &[u8; 4] = payload.first_chunk().ok_or(Reason::Malformed)?;
    // Version and control bit; optional fields have flags, and some of them change what the payload means.
    if first & 0xe0 != 0 || head[2] != 0 || head[3] != 0 {
        return Err(Reason::Unsupported);
    }
    let at = 4 + usize::from(first & 0x1f) * 4;
    match head[1] {
        4 => Ok((at, 4)),
        41 => Ok((at, 6)),
        _ => Err(Reason::Unsupported),
    }
}

/// Carries a congestion mark of the outer header (its TOS or traffic class) into the inner packet (RFC 6040, section 4.2).
///
/// # Errors
/// [`Reason::Congestion`]: the inner packet cannot have the mark, and must be dropped for it.
pub fn carry_congestion(outer: u8, packet: &mut [u8]) -> Result<(), Reason> {
    let Some(head) = packet.first_chunk_mut::<12>() else { return Ok(()) };
    let v4 = head[0] >> 4 == 4;
    let inner = if v4 { head[1] & 3 } else { head[1] >> 4 & 3 };
    let marked = match (inner, outer & 3) {
        (0, 3) => return Err(Reason::Congestion),
        (0, _) => 0,
        (_, 3) => 3,
        (2, 1) => 1,
        _ => inner,
    };
    if marked == inner {
        return Ok(());
    }
    if v4 {
        let old = u16::from_be_bytes([head[0], head[1]]);
        head[1] = head[1] & !3 | marked;
        let new = u16::from_be_bytes([head[0], head[1]]);
        // RFC 1624, equation 3.
        let check = !u16::from_be_bytes([head[10], head[11]]);
        let check = !fold(u32::from(check) + u32::from(!old) + u32::from(new));
        head[10..12].copy_from_slice(&check.to_be_bytes());
    } else {
        head[1] = head[1] & !0x30 | marked << 4;
    }
    Ok(())
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    fn inner(v6: bool) -> Vec<u8> {
        let mut packet = Vec::new();
        if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 9).udp(1, 2).write(&mut packet, b"hello").expect("builds");
        } else {
            PacketBuilder::ipv4([1; 4], [2; 4], 9).udp(1, 2).write(&mut packet, b"hello").expect("builds");
        }
        packet
    }

    fn behind(head: &[u8], packet: &[u8]) -> Vec<u8> {
        [head, packet].concat()
    }

    #[test]
    fn each_wrapping_is_opened() {
        for v6 in [false, true] {
            let packet = inner(v6);
            let bare = if v6 { Wrapping::Ipv6 } else { Wrapping::Ipv4 };
            let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
            let protocol = if v6 { 41 } else { 4 };
            let mut summed = behind(&[0x80, 0, ethertype[0], ethertype[1], 0, 0, 0, 0], &packet);
            let check = !fold(sum(&summed));
            summed[4..6].copy_from_slice(&check.to_be_bytes());
            for (wrapping, payload, at) in [
                (bare, packet.clone(), 0),
                (bare, behind(&packet, &[0; 9]), 0),
                (Wrapping::Gre, behind(&[0, 0, ethertype[0], ethertype[1]], &packet), 4),
                (Wrapping::Gre, summed.clone(), 8),
                (Wrapping::Gue, behind(&[0, protocol, 0, 0], &packet), 4),
                (Wrapping::Gue, behind(&[2, protocol, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9], &packet), 12),
                (Wrapping::Gue, packet.clone(), 0),
            ] {
                let (range, destination) = open(wrapping, &payload).expect("opens");
                assert_eq!((range.start, &payload[range]), (at, &packet[..]));
                assert_eq!(destination, if v6 { IpAddr::from([2; 16]) } else { IpAddr::from([2; 4]) });
            }
            summed[8] ^= 1;
            assert_eq!(open(Wrapping::Gre, &summed), Err(Reason::Malformed));
            let other = if v6 { Wrapping::Ipv4 } else { Wrapping::Ipv6 };
            assert_eq!(open(other, &packet), Err(Reason::Malformed));
            assert_eq!(open(bare, &packet[..packet.len() - 1]), Err(Reason::Malformed));
            for head in [[0x20, 0, 8, 0], [0x10, 0, 8, 0], [0, 1, 8, 0], [0, 0, 8, 6]] {
                assert_eq!(open(Wrapping::Gre, &behind(&head, &packet)), Err(Reason::Unsupported));
            }
            for head in [[0x20, 4, 0, 0], [0, 4, 0, 1], [0, 17, 0, 0], [0x80, 4, 0, 0]] {
                assert_eq!(open(Wrapping::Gue, &behind(&head, &packet)), Err(Reason::Unsupported));
            }
        }
    }

    #[test]
    fn marks_are_carried_as_rfc_6040_says() {
        // Rows: inner Not-ECT, ECT(1), ECT(0), CE. Columns: outer, likewise. 9: dropped.
        let table = [[0, 0, 0, 9], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
        for v6 in [false, true] {
            for (before, row) in table.iter().enumerate() {
                for (outer, expected) in row.iter().enumerate() {
                    let mut packet = inner(v6);
                    if v6 {
                        packet[1] |= (before as u8) << 4;
                    } else {
                        packet[1] = 0xb8 | before as u8;
                        packet[10..12].fill(0);
                        let check = !fold(sum(&packet[..20]));
                        packet[10..12].copy_from_slice(&check.to_be_bytes());
                    }
                    let result = carry_congestion(0xb8 | outer as u8, &mut packet);
                    assert_eq!(result.is_err(), *expected == 9);
                    if *expected != 9 {
                        assert_eq!(if v6 { packet[1] >> 4 } else { packet[1] & 3 }, *expected);
                        assert!(v6 || fold(sum(&packet[..20])) == 0xffff);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), outer: u8) {
            for wrapping in [Wrapping::Ipv4, Wrapping::Ipv6, Wrapping::Gre, Wrapping::Gue] {
                if let Ok((range, _)) = open(wrapping, &bytes) {
                    let _ = carry_congestion(outer, &mut bytes[range]);
                }
            }
            let _ = behind_ipv4(&bytes);
        }
    }
}
