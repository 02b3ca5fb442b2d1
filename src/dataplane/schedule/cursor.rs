//! What a service's scheduler remembers beyond one snapshot, shared by all workers without locks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::Member;

/// Milliseconds after which lblc and lblcr forget what was not used, and lblcr's set shrinks (`DEFAULT_EXPIRATION`).
pub(super) const EXPIRATION_MS: u32 = 24 * 60 * 60 * 1000;

/// Where a service's sequence continues: the id of the server chosen last (0: the head of the list) with wrr's current
/// limit, and lblcr's set of servers. Survives snapshots.
#[derive(Debug, Default)]
pub struct Cursor {
    /// Server chosen last, and limit.
    place: AtomicU64,
    /// When a server was asked for last, in milliseconds.
    used: AtomicU32,
    /// When the set last changed, in milliseconds.
    changed: AtomicU32,
    /// How many servers joined the set so far.
    joins: AtomicU32,
    /// Those up to this one are not in it any more.
    forgotten: AtomicU32,
}

impl Cursor {
    /// The same place, for somebody who wants to know what comes next and leaves it as it is.
    pub fn copy(&self) -> Cursor {
        let copy = |word: &AtomicU32| AtomicU32::new(word.load(Relaxed));
        Cursor {
            place: AtomicU64::new(self.place.load(Relaxed)),
            used: copy(&self.used),
            changed: copy(&self.changed),
            joins: copy(&self.joins),
            forgotten: copy(&self.forgotten),
        }
    }

    /// Begins anew, for another scheduler.
    pub fn reset(&self) {
        self.place.store(0, Relaxed);
        self.forget();
    }

    /// The server chosen last, and the limit.
    pub(super) fn load(&self) -> (u32, u32) {
        let word = self.place.load(Relaxed);
        ((word >> 32) as u32, word as u32)
    }

    /// Whether nobody was faster.
    pub(super) fn swap(&self, old: (u32, u32), new: (u32, u32)) -> bool {
        let pack = |(server, limit): (u32, u32)| u64::from(server) << 32 | u64::from(limit);
        self.place.compare_exchange_weak(pack(old), pack(new), Relaxed, Relaxed).is_ok()
    }

    pub(super) fn update(&self, mut change: impl FnMut((u32, u32)) -> (u32, u32)) {
        loop {
            let old = self.load();
            let new = change(old);
            if new == old || self.swap(old, new) {
                return;
            }
        }
    }

    /// Notes a use; false if what is remembered was not used for a day, and so is no longer true.
    pub(super) fn touch(&self, now: u32) -> bool {
        let used = self.used.load(Relaxed);
        if used != now {
            self.used.store(now, Relaxed);
        }
        elapsed(used, now) < EXPIRATION_MS
    }

    /// When a server joined the set, as a number that counts up; `None` if it is not in it.
    pub(super) fn joined(&self, member: &Member) -> Option<u32> {
        let joined = member.load.joined.load(Relaxed);
        (joined > self.forgotten.load(Relaxed)).then_some(joined)
    }

    /// Takes a server into the set, unless it is in it.
    pub(super) fn join(&self, member: &Member, now: u32) {
        let joined = member.load.joined.load(Relaxed);
        if joined <= self.forgotten.load(Relaxed) {
            let number = self.joins.fetch_add(1, Relaxed) + 1;
            if member.load.joined.compare_exchange(joined, number, Relaxed, Relaxed).is_ok() {
                self.changed.store(now, Relaxed);
            }
        }
    }

    /// Takes a server out of the set.
    pub(super) fn leave(&self, member: &Member) {
        member.load.joined.store(0, Relaxed);
    }

    /// Empties the set.
    pub(super) fn forget(&self) {
        self.forgotten.store(self.joins.load(Relaxed), Relaxed);
    }

    /// Whether the set did not change for longer than this; true for one worker only, and the time begins anew.
    pub(super) fn is_unchanged_for(&self, milliseconds: u32, now: u32) -> bool {
        let changed = self.changed.load(Relaxed);
        elapsed(changed, now) > milliseconds && self.changed.compare_exchange(changed, now, Relaxed, Relaxed).is_ok()
    }
}

/// Milliseconds between two times that wrap. Another worker's clock may be a moment ahead.
fn elapsed(since: u32, now: u32) -> u32 {
    let elapsed = now.wrapping_sub(since);
    if elapsed > u32::MAX - 60_000 { 0 } else { elapsed }
}
