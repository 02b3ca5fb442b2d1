//! SYN cookies: a SYN is answered without anything being remembered, and the client's ACK brings back what the SYN said
//! (RFC 4987, section 3.6; Linux: `net/netfilter/nf_synproxy_core.c`, `net/ipv4/syncookies.c`).
//!
//! Owns the cookie: 8 bits of what the SYN offered, 24 bits of a keyed hash over them, the connection, the client's
//! initial sequence number (ISN) and a slot of time. Pure. Around it: [`segment`] builds the packets of the handshake,
//! [`translate`] shifts a flow's numbers afterwards, [`slab`] holds what a flow needs for that.
//!
//! Timestamps are never agreed upon: the server's clock is not known when the client is answered. ECN neither.

pub mod segment;
pub mod slab;
pub mod translate;

use siphasher::sip::SipHasher24;

use super::parse::{Kind, Parsed, Part, tcp_flag};
use super::rewrite::options;

/// Bits of the clock (milliseconds) within a slot of time: 65.5 seconds. A cookie is good in its own slot and the next, so
/// for at least that long and at most twice as long. The clock wraps after a whole number of slots.
const SLOT_BITS: u32 = 16;

/// The window scale that clients are told, whatever the server will say: Linux's for its usual buffers. Windows of a
/// server with another one are converted.
pub const SCALE: u8 = 7;

/// Largest window scale (RFC 7323, section 2.3).
const MOST_SCALE: u8 = 14;

/// "No window scale" in [`Offer`].
const NO_SCALE: u8 = 15;

/// The maximum segment sizes that a cookie can remember, in bytes. A client's is rounded down to one of them. 536 is what
/// a SYN without the option means over IPv4 (RFC 9293, section 3.7.1), 1220 over IPv6; 1360 to 1460 are those of 1500
/// bytes less tunnels, PPPoE and IPv6; 8940 is that of jumbo frames.
const MSS: [u16; 8] = [64, 536, 1220, 1360, 1400, 1440, 1460, 8940];

/// TCP options by kind.
const OPTION_MSS: u8 = 2;
const OPTION_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;

/// What a client's SYN offered, in the eight bits that a cookie has for it: index of the MSS (3), selective
/// acknowledgements (1), window scale (4; 15: none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer(u8);

impl Offer {
    /// What the SYN in a packet offers. `None`: it has no whole TCP header.
    pub fn of(bytes: &[u8], parsed: &Parsed) -> Option<Offer> {
        let mut mss = if parsed.kind == Kind::Flow6 { 1220 } else { 536 };
        let (mut scale, mut sack) = (NO_SCALE, false);
        options::visit(bytes, parsed, |option| match *option {
            [OPTION_MSS, 4, high, low] => mss = u16::from_be_bytes([high, low]),
            [OPTION_SCALE, 3, shift] => scale = shift.min(MOST_SCALE),
            [OPTION_SACK_PERMITTED, 2] => sack = true,
            _ => {}
        })?;
        // One below the least is taken for that: a sender with less would send little but headers.
        let index = MSS.iter().rposition(|known| *known <= mss).unwrap_or(0);
        Some(Offer(index as u8 | u8::from(sack) << 3 | scale << 4))
    }

    /// As it was kept.
    pub const fn from_bits(bits: u8) -> Offer {
        Offer(bits)
    }

    /// To be kept.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The client's maximum segment size in bytes, rounded down.
    pub const fn mss(self) -> u16 {
        MSS[(self.0 & 7) as usize]
    }

    /// Whether the client takes selective acknowledgements (RFC 2018).
    pub const fn sack(self) -> bool {
        self.0 & 8 != 0
    }

    /// The shift of the client's windows, if it scales any (RFC 7323, section 2).
    pub const fn scale(self) -> Option<u8> {
        let scale = self.0 >> 4;
        if scale == NO_SCALE { None } else { Some(scale) }
    }
}

/// A connection as the client sees it: addresses and ports as they lie in its packets.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    bytes: [u8; 36],
    len: usize,
}

impl Ends {
    /// Those of a client's packet. `None`: it has no ports.
    pub fn of(bytes: &[u8], parsed: &Parsed) -> Option<Ends> {
        let (from, len) = match parsed.kind {
            Kind::Flow4 => (usize::from(parsed.l3) + 12, 8),
            Kind::Flow6 => (usize::from(parsed.l3) + 8, 32),
            _ => return None,
        };
        if parsed.part == Part::Later {
            return None;
        }
        let mut ends = Ends { bytes: [0; 36], len: len + 4 };
        ends.bytes[..len].copy_from_slice(bytes.get(from..from + len)?);
        let l4 = usize::from(parsed.l4);
        ends.bytes[len..len + 4].copy_from_slice(bytes.get(l4..l4 + 4)?);
        Some(ends)
    }
}

/// A cookie that came back, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Sequence number of the client's SYN.
    pub isn: u32,
    /// The cookie: sequence number of the SYN-ACK that the client got.
    pub cookie: u32,
    /// What the SYN offered.
    pub offer: Offer,
}

/// The key of all cookies of a director, the same for its workers: the ACK may come to another one than the SYN.
#[derive(Clone, Copy, Debug)]
pub struct Secret(pub [u64; 2]);

impl Secret {
    fn mac(&self, ends: &Ends, isn: u32, offer: Offer, slot: u16) -> u32 {
        let mut text = [0; 36 + 7];
        text[..36].copy_from_slice(&ends.bytes);
        let len = ends.len;
        text[len..len + 4].copy_from_slice(&isn.to_be_bytes());
        text[len + 4..len + 6].copy_from_slice(&slot.to_be_bytes());
        text[len + 6] = offer.0;
        SipHasher24::new_with_keys(self.0[0], self.0[1]).hash(&text[..len + 7]) as u32 & 0xff_ffff
    }

    /// The cookie for a SYN. `now` is in milliseconds and may wrap.
    pub fn issue(&self, ends: &Ends, isn: u32, offer: Offer, now: u32) -> u32 {
        self.mac(ends, isn, offer, slot_of(now)) << 8 | u32::from(offer.0)
    }

    /// What the cookie says, if it is one of these two slots of time.
    pub fn accept(&self, ends: &Ends, isn: u32, cookie: u32, now: u32) -> Option<Offer> {
        let offer = Offer(cookie as u8);
        let slot = slot_of(now);
        [slot, slot.wrapping_sub(1)]
            .into_iter()
            .any(|slot| self.mac(ends, isn, offer, slot) == cookie >> 8)
            .then_some(offer)
    }

    /// The good cookie that a client's segment acknowledges, if it does. Any segment will do that does not open or reset:
    /// where the bare ACK was lost, data, a FIN or a probe come first.
    ///
    /// A client whose window is 0 may probe with the sequence number before its first byte (Linux), which is its ISN
    /// itself: a segment without payload is tried as that too. A guess has two slots of time and at most those two
    /// numbers, so it hits with a probability of 2^-23, or 2^-22 without payload.
    pub fn proof(&self, bytes: &[u8], parsed: &Parsed, now: u32) -> Option<Proof> {
        let end = options::header_end(bytes, parsed)?;
        let l4 = usize::from(parsed.l4);
        let opening = tcp_flag::SYN | tcp_flag::RST | tcp_flag::ACK;
        if bytes[l4 + 13] & opening != tcp_flag::ACK || parsed.part != Part::Whole {
            return None;
        }
        let ends = Ends::of(bytes, parsed)?;
        let number = options::field(bytes, l4, 4);
        let cookie = options::field(bytes, l4, 8).wrapping_sub(1);
        let is_empty = end == l4 + usize::from(parsed.l4_len);
        let tries = [number.wrapping_sub(1), number];
        tries[..if is_empty { 2 } else { 1 }].iter().find_map(|isn| {
            let offer = self.accept(&ends, *isn, cookie, now)?;
            Some(Proof { isn: *isn, cookie, offer })
        })
    }
}

const fn slot_of(now: u32) -> u16 {
    (now >> SLOT_BITS) as u16
}

#[cfg(test)]
mod tests;
