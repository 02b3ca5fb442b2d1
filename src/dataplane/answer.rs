//! Answers in the appliance's own name: ARP (RFC 826, 5227), neighbour discovery (RFC 4861) and echo (RFC 792, 4443)
//! for the addresses that it owns.
//!
//! Turns a request into its answer in place, in the same frame; a VLAN tag stays as it came. Never asks for anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum;
use super::io::Frame;
use super::ownership::Owner;
use super::parse::{Kind, Parsed};
use super::snapshot::{Port, Snapshot};
use super::verdict::{DropReason, Outcome, Verdict};
use crate::model::{MacAddr, RouterSlot};

/// TTL of echo replies.
const TTL: u8 = 64;

/// What came of a frame that may want an answer.
pub enum Answer {
    /// It has its outcome.
    Done(Outcome),
    /// An ICMP error: it concerns a flow. The payload is the invoking packet's offset.
    IcmpError(usize),
    /// Another host claims an owned address.
    Conflict(MacAddr),
}

fn drop(reason: DropReason) -> Answer {
    Answer::Done(Outcome::drop(reason))
}

fn pass() -> Answer {
    Answer::Done(Outcome::plain(Verdict::Pass))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.first_chunk::<N>().copied()
}

fn swap_ethernet(bytes: &mut [u8], own: MacAddr) {
    bytes.copy_within(6..12, 0);
    bytes[6..12].copy_from_slice(&own.0);
}

/// What comes of another host's claim of an address. Those of virtual routers' addresses are judged by VRRP, which knows the
/// other appliances: it sees what the kernel gets.
fn conflict(owner: &Owner, mac: MacAddr) -> Answer {
    if owner.slot == RouterSlot::ALWAYS { Answer::Conflict(mac) } else { pass() }
}

/// Whether a frame claims to come from a group (IEEE 802.3, 3.2.3): an answer would go to everyone in it.
fn from_group(bytes: &[u8]) -> bool {
    bytes.get(6).is_some_and(|first| first & 1 == 1)
}

/// ARP for Ethernet and IPv4.
pub fn arp(snapshot: &Snapshot, port: &Port, bytes: &mut [u8], parsed: &Parsed, frame: &Frame) -> Answer {
    let l3 = usize::from(parsed.l3);
    let Some(packet) = array::<28>(bytes, l3) else { return drop(DropReason::Truncated) };
    let sender_mac = MacAddr([packet[8], packet[9], packet[10], packet[11], packet[12], packet[13]]);
    let sender = Ipv4Addr::new(packet[14], packet[15], packet[16], packet[17]);
    let target = Ipv4Addr::new(packet[24], packet[25], packet[26], packet[27]);
    let (claimed, owner) = (snapshot.ownership.owner(IpAddr::V4(sender)), snapshot.ownership.owner(IpAddr::V4(target)));
    if claimed.is_none() && owner.is_none() {
        return pass();
    }
    if packet[..6] != [0, 1, 8, 0, 6, 4] {
        return drop(DropReason::BadArp);
    }
    if sender_mac == port.mac() {
        return drop(DropReason::Loop);
    }
    if let Some(claimed) = claimed {
        return conflict(claimed, sender_mac);
    }
    let Some(owner) = owner else { return pass() };
    // The kernel has the address too, where it serves it itself, and asked for a neighbour in its name.
    if packet[6..8] == [0, 2] {
        return pass();
    }
    // Only requests are answered (RFC 826); a sender of all zeroes is a probe (RFC 5227, 2.1.1) and is answered too.
    if packet[6..8] != [0, 1] {
        return drop(DropReason::BadArp);
    }
    if sender_mac.is_multicast() || sender_mac.is_zero() {
        return drop(DropReason::BadArp);
    }
    let mac = owner.mac.unwrap_or(port.mac());
    swap_ethernet(bytes, mac);
    bytes[..6].copy_from_slice(&sender_mac.0);
    let answer = &mut bytes[l3..l3 + 28];
    answer[7] = 2;
    answer[18..24].copy_from_slice(&packet[8..14]);
    answer[24..28].copy_from_slice(&packet[14..18]);
    answer[8..14].copy_from_slice(&mac.0);
    answer[14..18].copy_from_slice(&target.octets());
    Answer::Done(Outcome::plain(Verdict::Reply(frame.port)))
}

/// ICMP to an owned IPv4 address.
pub fn icmp4(snapshot: &Snapshot, port: &Port, bytes: &mut [u8], parsed: &Parsed, frame: &Frame) -> Answer {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let (Some(source), Some(destination)) = (array::<4>(bytes, l3 + 12), array::<4>(bytes, l3 + 16)) else {
        return drop(DropReason::Truncated);
    };
    let owner = snapshot.ownership.owner(IpAddr::from(destination));
    let owned = owner.is_some();
    let end = l4 + usize::from(parsed.l4_len);
    let Some(message) = bytes.get(l4..end).filter(|m| m.len() >= 8) else {
        return if owned { drop(DropReason::BadIcmp) } else { pass() };
    };
    // An error to a client about what NAT sent in its name; whether it is one, the flow tells.
    if !owned {
        return if matches!(message[0], 3 | 4 | 11 | 12) { Answer::IcmpError(l4 + 8) } else { pass() };
    }
    if checksum::fold(checksum::sum(message, 0)) != 0xffff {
        return drop(DropReason::BadIcmp);
    }
    match message[0] {
        8 if owner.is_some_and(|owner| !owner.echo) => drop(DropReason::IcmpIgnored),
        8 => {
            if is_martian(IpAddr::from(source)) || from_group(bytes) {
                return drop(DropReason::MartianSource);
            }
            swap_ethernet(bytes, owner.and_then(|owner| owner.mac).unwrap_or(port.mac()));
            let header = &mut bytes[l3..l4];
            header[8] = TTL;
            header[12..16].copy_from_slice(&destination);
            header[16..20].copy_from_slice(&source);
            header[10..12].fill(0);
            let check = checksum::checksum(header);
            header[10..12].copy_from_slice(&check.to_ne_bytes());
            bytes[l4] = 0;
            bytes[l4 + 2..l4 + 4].fill(0);
            let check = checksum::checksum(&bytes[l4..end]);
            bytes[l4 + 2..l4 + 4].copy_from_slice(&check.to_ne_bytes());
            Answer::Done(Outcome::plain(Verdict::Reply(frame.port)))
        }
        3 | 4 | 5 | 11 | 12 => Answer::IcmpError(l4 + 8),
        _ => drop(DropReason::IcmpIgnored),
    }
}

/// Bytes that an answer to a neighbour solicitation can be longer than the question: its option.
pub const ND_GROWTH: u32 = 8;

/// ICMPv6 to an owned address, neighbour discovery for one included. `bytes` may reach [`ND_GROWTH`] past the frame's
/// end; an advertisement that needs them sets the frame's length.
pub fn icmp6(snapshot: &Snapshot, port: &Port, bytes: &mut [u8], parsed: &Parsed, frame: &mut Frame) -> Answer {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let (Some(source), Some(destination)) = (array::<16>(bytes, l3 + 8), array::<16>(bytes, l3 + 24)) else {
        return drop(DropReason::Truncated);
    };
    let end = l4 + usize::from(parsed.l4_len);
    let Some(message) = bytes.get(l4..end).filter(|m| m.len() >= 4) else { return drop(DropReason::Truncated) };
    let kind = message[0];
    if kind == 135 || kind == 136 {
        return neighbour(snapshot, port, bytes, parsed, frame, source, destination);
    }
    let Some(owner) = snapshot.ownership.owner(IpAddr::from(destination)) else {
        return if message.len() >= 8 && matches!(kind, 1..=4) { Answer::IcmpError(l4 + 8) } else { pass() };
    };
    if message.len() < 8 || !icmp6_sum_is_right(bytes, source, destination, l4, end) {
        return drop(DropReason::BadIcmp);
    }
    match kind {
        128 if !owner.echo => drop(DropReason::IcmpIgnored),
        128 => {
            if is_martian(IpAddr::from(source)) || from_group(bytes) {
                return drop(DropReason::MartianSource);
            }
            swap_ethernet(bytes, owner.mac.unwrap_or(port.mac()));
            bytes[l3 + 7] = TTL;
            bytes[l3 + 8..l3 + 24].copy_from_slice(&destination);
            bytes[l3 + 24..l3 + 40].copy_from_slice(&source);
            bytes[l4] = 129;
            set_icmp6_sum(bytes, destination, source, l4, end);
            Answer::Done(Outcome::plain(Verdict::Reply(frame.port)))
        }
        1..=4 => Answer::IcmpError(l4 + 8),
        _ => drop(DropReason::IcmpIgnored),
    }
}

/// Whether the checksum of an ICMP or ICMPv6 message is right.
pub fn icmp_sum_is_right(bytes: &[u8], parsed: &Parsed) -> bool {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let end = l4 + usize::from(parsed.l4_len);
    if parsed.kind == Kind::Icmp6 {
        let ends = (array(bytes, l3 + 8), array(bytes, l3 + 24));
        let (Some(source), Some(destination), true) = (ends.0, ends.1, end <= bytes.len()) else { return false };
        return icmp6_sum_is_right(bytes, source, destination, l4, end);
    }
    bytes.get(l4..end).is_some_and(|message| checksum::fold(checksum::sum(message, 0)) == 0xffff)
}

fn icmp6_sum_is_right(bytes: &[u8], source: [u8; 16], destination: [u8; 16], l4: usize, end: usize) -> bool {
    let pseudo = checksum::pseudo_header(&source, &destination, super::parse::ICMPV6, (end - l4) as u32);
    checksum::fold(checksum::sum(&bytes[l4..end], pseudo)) == 0xffff
}

fn set_icmp6_sum(bytes: &mut [u8], source: [u8; 16], destination: [u8; 16], l4: usize, end: usize) {
    bytes[l4 + 2..l4 + 4].fill(0);
    let pseudo = checksum::pseudo_header(&source, &destination, super::parse::ICMPV6, (end - l4) as u32);
    let check = !checksum::fold(checksum::sum(&bytes[l4..end], pseudo));
    bytes[l4 + 2..l4 + 4].copy_from_slice(&check.to_ne_bytes());
}

/// Neighbour solicitations for owned addresses are answered; advertisements of them by others are conflicts.
fn neighbour(
    snapshot: &Snapshot,
    port: &Port,
    bytes: &mut [u8],
    parsed: &Parsed,
    frame: &mut Frame,
    source: [u8; 16],
    destination: [u8; 16],
) -> Answer {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let end = l4 + usize::from(parsed.l4_len);
    let Some(target) = array::<16>(bytes, l4 + 8).filter(|_| parsed.l4_len >= 24) else {
        return if snapshot.owns(IpAddr::from(destination)) { drop(DropReason::BadNd) } else { pass() };
    };
    let Some(owner) = snapshot.ownership.owner(IpAddr::from(target)) else { return pass() };
    // RFC 4861, 7.1.1: hop limit 255 (so it was not forwarded), code 0, checksum, target not multicast.
    let direct = parsed.l4 == parsed.l3 + 40;
    if bytes[l3 + 7] != 255 || bytes[l4 + 1] != 0 || !direct || !icmp6_sum_is_right(bytes, source, destination, l4, end)
    {
        return drop(DropReason::BadNd);
    }
    let sender_mac = MacAddr([bytes[6], bytes[7], bytes[8], bytes[9], bytes[10], bytes[11]]);
    if sender_mac == port.mac() {
        return drop(DropReason::Loop);
    }
    if bytes[l4] == 136 {
        return conflict(owner, sender_mac);
    }
    let mac = owner.mac.unwrap_or(port.mac());
    let probe = Ipv6Addr::from(source).is_unspecified();
    if !options_fit(&bytes[l4 + 24..end]) || sender_mac.is_multicast() || Ipv6Addr::from(source).is_multicast() {
        return drop(DropReason::BadNd);
    }
    // The option may only be left out in answers to unicast solicitations (RFC 4861, 4.4).
    let with_option = bytes.len() >= l4 + 32;
    let length = if with_option { 32 } else { 24 };
    let to = if probe { [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] } else { source };
    let to_mac = if probe { MacAddr([0x33, 0x33, 0, 0, 0, 1]) } else { sender_mac };
    bytes[..6].copy_from_slice(&to_mac.0);
    bytes[6..12].copy_from_slice(&mac.0);
    bytes[l3 + 4..l3 + 6].copy_from_slice(&(length as u16).to_be_bytes());
    bytes[l3 + 7] = 255;
    bytes[l3 + 8..l3 + 24].copy_from_slice(&target);
    bytes[l3 + 24..l3 + 40].copy_from_slice(&to);
    bytes[l4] = 136;
    bytes[l4 + 4..l4 + 8].copy_from_slice(&[if probe { 0x20 } else { 0x60 }, 0, 0, 0]);
    if with_option {
        bytes[l4 + 24..l4 + 26].copy_from_slice(&[2, 1]);
        bytes[l4 + 26..l4 + 32].copy_from_slice(&mac.0);
    }
    set_icmp6_sum(bytes, target, to, l4, l4 + length);
    frame.len = (l4 + length) as u32;
    Answer::Done(Outcome::plain(Verdict::Reply(frame.port)))
}

/// Whether ND options are well formed: none of length zero, none past the end.
fn options_fit(mut options: &[u8]) -> bool {
    while !options.is_empty() {
        let len = options.get(1).map_or(0, |l| usize::from(*l) * 8);
        if len == 0 || len > options.len() {
            return false;
        }
        options = &options[len..];
    }
    true
}

/// Whether no client can have this address (RFC 6890).
pub fn is_martian(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.is_loopback() || a.is_multicast() || a.octets()[0] >= 240,
        IpAddr::V6(a) => a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.to_ipv4_mapped().is_some(),
    }
}
