//! The guard: whether a flood fills the unproven parts of the flow tables.
//!
//! Owns one moment, shared by all workers: when an unproven flow last had to give way that was still young. Never reads a clock.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// An unproven flow that gives way when it is younger than this (milliseconds without a packet) tells of a flood: a client
/// with a slow line may have been about to answer.
pub const YOUNG_MS: u32 = 5_000;

/// How long a flood is taken to last after the last sign of it, in milliseconds.
pub const HOLD_MS: u32 = 10_000;

/// How long after a flood unknown flows may still be ones that were let in without state: as long as a client's SYN is
/// remembered (IPVS's SYN_RECV).
pub const MEMORY_MS: u32 = HOLD_MS + 60_000;

/// Tells of floods.
#[derive(Debug, Default)]
pub struct Guard {
    /// Whether `last` means anything.
    ever: AtomicBool,
    last: AtomicU32,
}

impl Guard {
    /// Notes that a flow gave way after `idle` milliseconds without a packet.
    pub fn gave_way(&self, idle: u32, now: u32) {
        if idle < YOUNG_MS {
            self.press(now);
        }
    }

    /// Notes a sign of a flood.
    pub fn press(&self, now: u32) {
        if !self.ever.load(Relaxed) || self.last.load(Relaxed) != now {
            self.last.store(now, Relaxed);
            self.ever.store(true, Relaxed);
        }
    }

    fn within(&self, time: u32, now: u32) -> bool {
        // Workers read the clock at different times: a moment in the other's future is no flood of 49 days ago.
        let since = now.wrapping_sub(self.last.load(Relaxed));
        since < time || since > u32::MAX / 2
    }

    /// Whether a flood is going on.
    #[inline]
    pub fn is_on(&self, now: u32) -> bool {
        self.ever.load(Relaxed) && self.within(HOLD_MS, now)
    }

    /// Whether a flood is going on, or has not been over for long.
    #[inline]
    pub fn is_remembered(&self, now: u32) -> bool {
        self.ever.load(Relaxed) && self.within(MEMORY_MS, now)
    }

    /// Forgets a flood that is long over. To be called now and then, or one of 49 days ago comes back.
    pub fn settle(&self, now: u32) {
        if self.ever.load(Relaxed) && !self.within(MEMORY_MS, now) {
            self.ever.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_noticed_held_and_remembered() {
        let guard = Guard::default();
        assert!(!guard.is_on(0) && !guard.is_remembered(0));
        guard.gave_way(YOUNG_MS, 1000);
        assert!(!guard.is_on(1000), "an old flow that gives way is no flood");
        guard.gave_way(YOUNG_MS - 1, 1000);
        assert!(guard.is_on(1000) && guard.is_on(1000 + HOLD_MS - 1) && guard.is_on(990));
        assert!(!guard.is_on(1000 + HOLD_MS));
        assert!(guard.is_remembered(1000 + MEMORY_MS - 1) && !guard.is_remembered(1000 + MEMORY_MS));
        guard.settle(1000 + MEMORY_MS - 1);
        assert!(guard.is_remembered(1000 + HOLD_MS));
        guard.settle(1000 + MEMORY_MS);
        assert!(!guard.is_on(1000), "what is forgotten does not come back when the clock wraps");
    }

    #[test]
    fn the_clock_may_wrap_in_a_flood() {
        let guard = Guard::default();
        guard.press(u32::MAX - 10);
        assert!(guard.is_on(5) && !guard.is_on(HOLD_MS));
    }
}
