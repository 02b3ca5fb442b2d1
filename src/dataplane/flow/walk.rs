//! Walks over a whole flow table, a bounded piece at a time: the sweep that ends expired flows, and visits that list flows.
//!
//! Owns how much is looked at in one call, so that no worker is held up by the size of its table. Pure. Memory is asked for
//! some buckets ahead: a walk goes through all of it and finds next to none in the cache.

use super::{Entry, FlowTable, Gone, Lifetimes, Place, WAYS, flag, is_expired};

/// Buckets between the one that is looked at and the one that is asked for.
const AHEAD: usize = 16;

/// Buckets between the one that is looked at and the one whose flows' other entries are asked for.
const NEAR: usize = 6;

/// What a piece of a walk may cost. What is left of it is left in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Buckets to look at.
    pub buckets: usize,
    /// Flows to let go: each costs several accesses to memory that is in no cache.
    pub flows: usize,
}

/// What becomes of a flow that is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// On to the next.
    Next,
    /// It ends.
    End,
    /// No further: the visit goes on with this very flow another time.
    Stop,
}

impl<E: Entry> FlowTable<E> {
    /// Looks at the next buckets for flows that have expired, or that `ends` names by one of their entries, and lets them go.
    /// Returns whether it reached the end of the table; the next call starts over.
    pub fn sweep_some(
        &mut self,
        budget: &mut Budget,
        now: u32,
        lifetimes: &impl Lifetimes,
        ends: impl Fn(&E) -> bool,
        mut each: impl FnMut(Gone<E>),
    ) -> bool {
        while budget.buckets > 0 && budget.flows > 0 {
            let bucket = self.sweep_at;
            self.ask_ahead(bucket);
            self.ask_for_partners(bucket + NEAR, now, lifetimes);
            for way in 0..WAYS {
                let entry = &E::entries(&self.buckets[bucket])[way];
                let place = Place { bucket, way };
                if E::is_live(entry)
                    && (ends(entry) || is_expired(entry, now, lifetimes) && self.partner_expired(place, now, lifetimes))
                {
                    each(self.remove(place));
                    budget.flows = budget.flows.saturating_sub(1);
                }
            }
            budget.buckets -= 1;
            self.sweep_at = bucket + 1;
            if self.sweep_at >= self.buckets.len() {
                self.sweep_at = 0;
                return true;
            }
        }
        false
    }

    /// The same for the next `buckets` buckets, however many flows go.
    pub fn sweep(&mut self, buckets: usize, now: u32, lifetimes: &impl Lifetimes, each: impl FnMut(Gone<E>)) -> bool {
        self.sweep_some(&mut Budget { buckets, flows: usize::MAX }, now, lifetimes, |_| false, each)
    }

    /// Visits flows from number `from` on, at most `buckets` buckets of them; each once, by its entry of the client's direction.
    /// Of those that are `wanted`, `look` sees the number and both entries, and says what becomes of the flow. Returns the number to go on
    /// from; `None` at the end of the table.
    ///
    /// A flow never changes its number while it is in the table, so that one which is there during the whole walk is
    /// visited once, whatever happens to others between the calls.
    pub fn visit(
        &mut self,
        from: usize,
        buckets: &mut usize,
        wanted: impl Fn(&E) -> bool,
        mut look: impl FnMut(usize, &E, Option<&E>) -> Step,
        mut gone: impl FnMut(Gone<E>),
    ) -> Option<usize> {
        let mut at = from;
        while *buckets > 0 {
            let place = Place { bucket: at / WAYS, way: at % WAYS };
            let entry = &E::entries(self.buckets.get(place.bucket)?)[place.way];
            if E::is_live(entry) && E::flags(entry) & flag::REVERSE == 0 && wanted(entry) {
                let other = Place::unpack(E::partner(entry)).and_then(|other| self.peek(other));
                match look(at, entry, other) {
                    Step::Next => {}
                    Step::End => gone(self.remove(place)),
                    Step::Stop => return Some(at),
                }
            }
            at += 1;
            if at.is_multiple_of(WAYS) {
                *buckets -= 1;
                self.ask_ahead(place.bucket);
            }
        }
        (at < self.buckets.len() * WAYS).then_some(at)
    }

    fn peek(&self, place: Place) -> Option<&E> {
        Some(&E::entries(self.buckets.get(place.bucket)?)[place.way & 1])
    }

    #[inline(always)]
    fn ask_ahead(&self, bucket: usize) {
        if let Some(ahead) = self.buckets.get(bucket + AHEAD) {
            E::prefetch(ahead);
        }
    }

    /// Asks for the other entries of flows that may have expired.
    #[inline(always)]
    fn ask_for_partners(&self, bucket: usize, now: u32, lifetimes: &impl Lifetimes) {
        let Some(near) = self.buckets.get(bucket) else { return };
        for entry in E::entries(near) {
            if E::partner(entry) != 0
                && is_expired(entry, now, lifetimes)
                && let Some(partner) = Place::unpack(E::partner(entry)).and_then(|place| self.buckets.get(place.bucket))
            {
                E::prefetch(partner);
            }
        }
    }

    /// Calls `each` for every entry.
    pub fn for_each(&self, mut each: impl FnMut(&E)) {
        for bucket in self.buckets.iter() {
            E::entries(bucket).iter().filter(|e| E::is_live(e)).for_each(&mut each);
        }
    }
}
