//! The maximum segment size that a SYN announces, lowered for what the way to a server adds (RFC 9293, section 3.7.1).
//!
//! Changes the option in place. Never adds one: a sender without it is held to 536 bytes (IPv4) or 1220 (IPv6), which
//! fits anyway.

use super::options::edit;
use crate::dataplane::parse::{Parsed, tcp_flag};

/// Kind of the option; it has four bytes.
const MSS: u8 = 2;

/// What [`lower`] does not go below, in bytes: a sender with less would send little but headers.
const LEAST: u16 = 64;

/// Changes the MSS of a SYN or SYN-ACK. Returns whether it did.
fn change(bytes: &mut [u8], parsed: &Parsed, new: impl Fn(u16) -> u16) -> bool {
    if parsed.tcp_flags & tcp_flag::SYN == 0 {
        return false;
    }
    edit(bytes, parsed, |option| {
        if let [MSS, 4, high, low] = option {
            [*high, *low] = new(u16::from_be_bytes([*high, *low])).to_be_bytes();
        }
    })
}

/// Lowers the MSS of a SYN or SYN-ACK to `mss` bytes if it is larger, with the TCP checksum. Returns whether it was.
pub fn clamp(bytes: &mut [u8], parsed: &Parsed, mss: u16) -> bool {
    change(bytes, parsed, |old| old.min(mss))
}

/// Lowers the MSS of a SYN or SYN-ACK by `by` bytes, not below 64, with the TCP checksum. Returns whether it changed.
pub fn lower(bytes: &mut [u8], parsed: &Parsed, by: u16) -> bool {
    change(bytes, parsed, |old| old.saturating_sub(by).max(old.min(LEAST)))
}

#[cfg(test)]
mod tests;
