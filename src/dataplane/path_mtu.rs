//! The path MTU towards a tunnel's far end, as routers on the way tell it (RFC 1191, RFC 8201).
//!
//! Owns what was learned and how long it holds. Pure: time is given. Shared by all workers and all snapshots. Never judges
//! whether an error is genuine, but for its number.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long what was learned holds, in milliseconds: then larger packets are tried again (RFC 1191, section 6.3; RFC 8201,
/// section 4).
pub const HOLDS_MS: u32 = 600_000;

/// Least path MTU that is believed, for IPv4: what every host takes (RFC 791, section 3.2). Links below that are not met,
/// and who forges errors does no more harm than this.
pub const LEAST_V4: u32 = 576;

/// The same for IPv6: less is not told to anybody (RFC 8201, section 4).
pub const LEAST_V6: u32 = 1280;

/// Workers read the common clock one after the other: one may be this much behind another, in milliseconds.
const SLACK_MS: u32 = 60_000;

/// What is known of a path: an MTU above, the time (ms) when it was learned below; 0 is nothing. One word, so that both
/// change together.
#[derive(Debug, Default)]
pub struct PathMtu(AtomicU64);

impl PathMtu {
    /// Largest packet in bytes that the path is known to take, if it is known at `now` (ms of the workers' common clock,
    /// may wrap around).
    #[inline(always)]
    pub fn get(&self, now: u32) -> Option<u32> {
        let word = self.0.load(Relaxed);
        if word == 0 { None } else { self.still(word, now) }
    }

    /// Largest frame without VLAN tags, in bytes, where interface and route take `max_frame`.
    #[inline(always)]
    pub fn largest_frame(&self, max_frame: u16, now: u32) -> u16 {
        match self.get(now) {
            Some(mtu) => max_frame.min(u16::try_from(mtu.saturating_add(14)).unwrap_or(u16::MAX)),
            None => max_frame,
        }
    }

    /// Takes down that packets above `mtu` bytes do not pass. `false`: that is nothing new, and what is known holds no
    /// longer for it (RFC 1191, section 6.3: the time is that of the last decrease).
    pub fn learn(&self, mtu: u32, now: u32) -> bool {
        if self.get(now).is_some_and(|known| known <= mtu) {
            return false;
        }
        // Two workers that learn at once: the larger one comes again with the next packet that does not pass.
        self.0.store(u64::from(mtu) << 32 | u64::from(now), Relaxed);
        true
    }

    #[cold]
    fn still(&self, word: u64, now: u32) -> Option<u32> {
        let age = now.wrapping_sub(word as u32);
        if age.wrapping_add(SLACK_MS) < HOLDS_MS + SLACK_MS {
            return Some((word >> 32) as u32);
        }
        // Forgotten for good: the clock comes round again.
        let _ = self.0.compare_exchange(word, 0, Relaxed, Relaxed);
        None
    }
}

/// Whether an error may name this path MTU about a packet of `length` bytes, of the family of the outer header.
pub fn is_plausible(mtu: u32, length: u32, v6: bool) -> bool {
    let least = if v6 { LEAST_V6 } else { LEAST_V4 };
    (least..length).contains(&mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_less_is_new() {
        let path = PathMtu::default();
        assert_eq!(path.get(5), None);
        assert!(path.learn(1400, 1000) && !path.learn(1400, 2000) && !path.learn(1450, 2000));
        assert_eq!(path.get(2000), Some(1400));
        assert!(path.learn(1300, 2000));
        assert_eq!(path.get(2000), Some(1300));
    }

    #[test]
    fn it_is_forgotten_after_ten_minutes() {
        for start in [0, 1, 5000, u32::MAX - 1000] {
            let path = PathMtu::default();
            path.learn(1400, start);
            // Another worker's clock is a little behind.
            assert_eq!(path.get(start.wrapping_sub(3)), Some(1400));
            // The same news again does not make it younger.
            path.learn(1400, start.wrapping_add(HOLDS_MS - 1));
            assert_eq!(path.get(start.wrapping_add(HOLDS_MS - 1)), Some(1400));
            assert_eq!(path.get(start.wrapping_add(HOLDS_MS)), None);
            assert_eq!(path.get(start), None, "for good, when the clock comes round");
            assert!(path.learn(1450, start), "more than before, if that is the news then");
            assert_eq!(path.get(start), Some(1450));
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_not_believed() {
        assert!(is_plausible(576, 1500, false) && is_plausible(1280, 1500, true) && is_plausible(1499, 1500, false));
        for (mtu, v6) in
            [(0, false), (68, false), (575, false), (1500, false), (1279, true), (1500, true), (9000, true)]
        {
            assert!(!is_plausible(mtu, 1500, v6), "{mtu}");
        }
    }
}
