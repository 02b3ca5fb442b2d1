//! Of which virtual routers this appliance is master: the one word between VRRP and the workers.
//!
//! Owns a bit for each virtual router, written by VRRP alone and read by every worker once a batch. A change is visible with
//! the next batch, without a snapshot and without a map of the kernel's (ADR 0019).

use std::sync::atomic::{AtomicU64, Ordering};

/// Most virtual routers of one appliance.
pub const MOST_ROUTERS: usize = 1023;

const WORDS: usize = (MOST_ROUTERS + 1) / 64;

/// Number of a virtual router among the bits; stays the same for as long as the router is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouterSlot(u16);

impl RouterSlot {
    /// Of what belongs to no virtual router: always served.
    pub const ALWAYS: RouterSlot = RouterSlot(0);

    /// Slot number 1 to [`MOST_ROUTERS`].
    pub fn new(number: usize) -> Option<RouterSlot> {
        (1..=MOST_ROUTERS).contains(&number).then_some(RouterSlot(number as u16))
    }

    /// Its number.
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

/// What a worker holds of [`Mastery`] for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masters([u64; WORDS]);

impl Masters {
    /// Of every router.
    pub const ALL: Masters = Masters([u64::MAX; WORDS]);
    /// Of none: what belongs to no router is served all the same.
    pub const NONE: Masters = Masters({
        let mut words = [0; WORDS];
        words[0] = 1;
        words
    });

    /// Whether this appliance serves what belongs to that router.
    #[inline(always)]
    pub const fn has(&self, slot: RouterSlot) -> bool {
        self.0[slot.number() / 64 % WORDS] >> (slot.number() % 64) & 1 == 1
    }
}

/// The bits, with a count of their changes.
#[derive(Debug)]
pub struct Mastery {
    changes: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Default for Mastery {
    /// Master of nothing yet.
    fn default() -> Self {
        Mastery { changes: AtomicU64::new(1), words: Masters::NONE.0.map(AtomicU64::new) }
    }
}

impl Mastery {
    /// Says whether this appliance is master of a router.
    pub fn set(&self, slot: RouterSlot, master: bool) {
        if slot == RouterSlot::ALWAYS {
            return;
        }
        let (word, bit) = (&self.words[slot.number() / 64 % WORDS], 1 << (slot.number() % 64));
        match master {
            true => word.fetch_or(bit, Ordering::Relaxed),
            false => word.fetch_and(!bit, Ordering::Relaxed),
        };
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Whether it is, now.
    pub fn has(&self, slot: RouterSlot) -> bool {
        self.masters().has(slot)
    }

    /// Grows with every change.
    #[inline(always)]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// All bits. Read [`Mastery::changes`] before: a change that comes in between is seen by the next look.
    pub fn masters(&self) -> Masters {
        let mut words = [0; WORDS];
        for (word, shared) in words.iter_mut().zip(&self.words) {
            *word = shared.load(Ordering::Relaxed);
        }
        Masters(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_router_has_its_bit() {
        let mastery = Mastery::default();
        assert!(mastery.has(RouterSlot::ALWAYS));
        let slots: Vec<RouterSlot> = (1..=MOST_ROUTERS).filter_map(RouterSlot::new).collect();
        assert_eq!((slots.len(), RouterSlot::new(0), RouterSlot::new(MOST_ROUTERS + 1)), (MOST_ROUTERS, None, None));
        assert!(slots.iter().all(|slot| !mastery.has(*slot)));
        for slot in &slots {
            let before = mastery.changes();
            mastery.set(*slot, true);
            assert!(mastery.changes() > before);
            assert_eq!(slots.iter().filter(|other| mastery.has(**other)).count(), 1);
            mastery.set(*slot, false);
        }
        mastery.set(RouterSlot::ALWAYS, false);
        assert!(mastery.has(RouterSlot::ALWAYS));
        assert_eq!(mastery.masters(), Masters::NONE);
        assert!(slots.iter().all(|slot| Masters::ALL.has(*slot)));
    }
}
