//! ICMP errors in the appliance's own name: a frame that cannot go on becomes the answer to its sender (RFC 792, 1122,
//! 1191, 1812; RFC 4443, 8201).
//!
//! Owns when an error may be sent, how it looks, and how often ([`Limiter`]). Pure. Never decides that there is an error.
//!
//! A frame is turned around in place: what is quoted stays where it is, the new headers go into the headroom. So the
//! packet that is quoted is what the frame holds: ask before anything is rewritten.

use std::net::IpAddr;

use super::answer::is_martian;
use super::checksum;
use super::io::{Frame, FrameMemory};
use super::parse::{ICMP, ICMPV6, Parsed, Part};
use crate::model::MacAddr;

/// TTL of errors.
const TTL: u8 = 64;

/// Most bytes of an ICMP error, IP header included (RFC 1812, section 4.3.2.3).
const MOST_V4: usize = 576;

/// Most bytes of an ICMPv6 error, IP header included (RFC 4443, section 2.4(c)).
const MOST_V6: usize = 1280;

/// IP and ICMP header.
const HEAD_V4: usize = 28;
const HEAD_V6: usize = 48;

/// Least MTU of an IPv4 link (RFC 791) and of an IPv6 link (RFC 8200, section 5).
const LEAST_MTU_V4: u32 = 68;
const LEAST_MTU_V6: u32 = 1280;

/// Precedence "internetwork control" (RFC 1812, section 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;

/// Type, code and second word of an error, for each family.
struct Error {
    v4: (u8, u8, u32),
    v6: (u8, u8, u32),
}

/// "Packet too big" with the MTU of the way on, in bytes of an IP packet. IPv4: for packets with DF only; that is for the
/// caller to see to. An MTU below 68 or, for IPv6, 1280 is reported as that: a sender makes nothing smaller (RFC 8201,
/// section 4).
///
/// `false`: no error may be sent about this packet, and the frame is unchanged. The same for the other two.
pub fn too_big<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    source: IpAddr,
    own: MacAddr,
    mtu: u32,
) -> bool {
    let error = Error { v4: (3, 4, mtu.clamp(LEAST_MTU_V4, 0xffff)), v6: (2, 0, mtu.max(LEAST_MTU_V6)) };
    turn(memory, frame, parsed, source, own, &error)
}

/// "Port unreachable": the service has no server.
pub fn port_unreachable<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    source: IpAddr,
    own: MacAddr,
) -> bool {
    turn(memory, frame, parsed, source, own, &Error { v4: (3, 3, 0), v6: (1, 4, 0) })
}

/// "Time exceeded in transit": TTL or hop limit is used up.
pub fn time_exceeded<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    source: IpAddr,
    own: MacAddr,
) -> bool {
    turn(memory, frame, parsed, source, own, &Error { v4: (11, 0, 0), v6: (3, 0, 0) })
}

/// Whether the sender of a packet may be told that something is wrong with it (RFC 1122, section 3.2.2; RFC 4443,
/// section 2.4(e)). `source` is where the error would come from.
fn may_be_told(bytes: &[u8], parsed: &Parsed, source: IpAddr) -> bool {
    let group = |at: usize| bytes.get(at).is_none_or(|first| first & 1 == 1);
    if parsed.part == Part::Later || group(0) || group(6) {
        return false;
    }
    let Some((from, to, later)) = ends(bytes, usize::from(parsed.l3)) else { return false };
    let to_group = match to {
        IpAddr::V4(a) => a.is_multicast() || a.octets()[0] >= 240 || a.is_unspecified(),
        IpAddr::V6(a) => a.is_multicast() || a.is_unspecified(),
    };
    if later || to_group || is_martian(from) || from == source || from.is_ipv4() != source.is_ipv4() {
        return false;
    }
    let kind = bytes.get(usize::from(parsed.l4)).copied().filter(|_| parsed.l4_len > 0);
    match (from, parsed.protocol) {
        // Of a message without a type nobody can say that it is no error.
        (IpAddr::V4(_), ICMP) => !matches!(kind, None | Some(3 | 4 | 5 | 11 | 12)),
        (IpAddr::V6(_), ICMPV6) => !matches!(kind, None | Some(0..128 | 137)),
        _ => true,
    }
}

/// Source and destination of the packet at `l3`, and whether it is an IPv4 fragment other than the first.
pub(super) fn ends(bytes: &[u8], l3: usize) -> Option<(IpAddr, IpAddr, bool)> {
    let ip = bytes.get(l3..)?;
    if ip.first()? >> 4 == 6 {
        let addresses: &[u8; 32] = ip.get(8..)?.first_chunk()?;
        let (from, to) = addresses.split_at(16);
        return Some((IpAddr::from(*from.first_chunk::<16>()?), IpAddr::from(*to.first_chunk::<16>()?), false));
    }
    let head: &[u8; 20] = ip.first_chunk()?;
    let from = IpAddr::from([head[12], head[13], head[14], head[15]]);
    let to = IpAddr::from([head[16], head[17], head[18], head[19]]);
    (head[0] >> 4 == 4).then_some((from, to, u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0))
}

#[cold]
fn turn<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    source: IpAddr,
    own: MacAddr,
    error: &Error,
) -> bool {
    let l3 = usize::from(parsed.l3);
    let bytes = memory.bytes(frame);
    if !may_be_told(bytes, parsed, source) {
        return false;
    }
    let (head, most) = if source.is_ipv4() { (HEAD_V4, MOST_V4) } else { (HEAD_V6, MOST_V6) };
    // Without Ethernet padding.
    let packet = usize::from(parsed.l4).saturating_sub(l3) + usize::from(parsed.l4_len);
    let quote = packet.min(bytes.len() - l3).min(most - head);
    let addresses_end = if source.is_ipv4() { 20 } else { 40 };
    if quote < addresses_end || memory.headroom(frame) < head {
        return false;
    }
    let turned = Frame { addr: frame.addr - head as u64, len: (l3 + head + quote) as u32, ..*frame };
    let bytes = memory.bytes_mut(&turned);
    if bytes.len() != turned.len as usize {
        return false;
    }
    bytes.copy_within(head..head + l3, 0);
    bytes.copy_within(6..12, 0);
    bytes[6..12].copy_from_slice(&own.0);
    let (ip, quoted) = bytes[l3..].split_at_mut(head);
    match source {
        IpAddr::V4(source) => head_v4(ip, quoted, source.octets(), error.v4),
        IpAddr::V6(source) => head_v6(ip, quoted, source.octets(), error.v6),
    }
    *frame = turned;
    true
}

/// Writes the IPv4 and ICMP header before what is quoted.
fn head_v4(ip: &mut [u8], quoted: &[u8], source: [u8; 4], (kind, code, word): (u8, u8, u32)) {
    let total = (ip.len() + quoted.len()) as u16;
    ip.fill(0);
    ip[..2].copy_from_slice(&[0x45, PRECEDENCE]);
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    // May be fragmented on its way, so it needs an identification: that of the packet which it is about.
    ip[4..6].copy_from_slice(&quoted[4..6]);
    ip[8] = TTL;
    ip[9] = ICMP;
    ip[12..16].copy_from_slice(&source);
    ip[16..20].copy_from_slice(&quoted[12..16]);
    let check = checksum::checksum(&ip[..20]);
    ip[10..12].copy_from_slice(&check.to_ne_bytes());
    ip[20] = kind;
    ip[21] = code;
    ip[24..28].copy_from_slice(&word.to_be_bytes());
    let check = !checksum::fold(checksum::sum(quoted, checksum::sum(&ip[20..], 0)));
    ip[22..24].copy_from_slice(&check.to_ne_bytes());
}

/// Writes the IPv6 and ICMPv6 header before what is quoted.
fn head_v6(ip: &mut [u8], quoted: &[u8], source: [u8; 16], (kind, code, word): (u8, u8, u32)) {
    let payload = 8 + quoted.len();
    ip.fill(0);
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    ip[6] = ICMPV6;
    ip[7] = TTL;
    ip[8..24].copy_from_slice(&source);
    ip[24..40].copy_from_slice(&quoted[8..24]);
    ip[40] = kind;
    ip[41] = code;
    ip[44..48].copy_from_slice(&word.to_be_bytes());
    let pseudo = checksum::pseudo_header(&source, &quoted[8..24], ICMPV6, payload as u32);
    let check = !checksum::fold(checksum::sum(quoted, checksum::sum(&ip[40..], pseudo)));
    ip[42..44].copy_from_slice(&check.to_ne_bytes());
}

/// How many errors may be sent: a token bucket (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4(f)).
#[derive(Clone, Debug)]
pub struct Limiter {
    /// Errors a second.
    rate: u32,
    /// Most thousandths of an error that are saved up.
    most: u64,
    /// Thousandths of an error that may be sent now.
    saved: u64,
    /// When `saved` was right, ms.
    at: u32,
}

impl Limiter {
    /// `rate` errors a second, `burst` at once; full at first. `now` in ms, as in [`Limiter::allow`].
    pub const fn new(rate: u32, burst: u32, now: u32) -> Limiter {
        let most = burst as u64 * 1000;
        Limiter { rate, most, saved: most, at: now }
    }

    /// Whether an error may be sent at `now` (ms, may wrap around); if so, it counts as sent.
    pub fn allow(&mut self, now: u32) -> bool {
        let passed = now.wrapping_sub(self.at);
        self.at = now;
        // Errors a second are thousandths of an error a millisecond.
        self.saved = (self.saved + u64::from(passed) * u64::from(self.rate)).min(self.most);
        let allowed = self.saved >= 1000;
        if allowed {
            self.saved -= 1000;
        }
        allowed
    }

    /// Takes back what the last [`Limiter::allow`] counted: no error was sent after all.
    pub fn give_back(&mut self) {
        self.saved = (self.saved + 1000).min(self.most);
    }
}

impl Default for Limiter {
    /// 1000 errors a second, 100 at once.
    fn default() -> Limiter {
        Limiter::new(1000, 100, 0)
    }
}

#[cfg(test)]
mod tests;
