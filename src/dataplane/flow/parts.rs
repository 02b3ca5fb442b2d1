//! A worker's flows of one family in two parts: those that are proven, and those of which nobody knows yet.
//!
//! A flow begins in the unproven part, which is small, of fixed size, and where the idlest gives way. What its client
//! confirms moves on into the proven part, where only what is about to end gives way: a flood of packets from nowhere fills
//! the one and never reaches the other (ADR 0016). A flow with two entries has both in the same part.

use super::{Entry, FlowTable, Full, Gone, Lifetimes, Place, Seeds, flag};

/// The part of the table that a flow is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its client has confirmed it.
    Proven,
    /// It has not.
    Unproven,
}

/// Both parts.
pub struct Flows<E: Entry> {
    /// Flows that their clients have confirmed.
    pub proven: FlowTable<E>,
    /// The others.
    pub unproven: FlowTable<E>,
}

impl<E: Entry> Flows<E> {
    /// Room for `proven` and `unproven` flows; see [`FlowTable::new`].
    ///
    /// # Errors
    /// The kernel has not that much memory.
    pub fn new(proven: usize, unproven: usize, seeds: Seeds, huge: bool) -> std::io::Result<Self> {
        let unproven = FlowTable::new(unproven, seeds, huge)?.lenient();
        Ok(Flows { proven: FlowTable::new(proven, seeds, huge)?, unproven })
    }

    /// One of the parts.
    pub fn part(&mut self, stage: Stage) -> &mut FlowTable<E> {
        match stage {
            Stage::Proven => &mut self.proven,
            Stage::Unproven => &mut self.unproven,
        }
    }

    /// Finds a flow in either part.
    pub fn find(&self, key: &E::Key, hash: u64) -> Option<(Stage, Place)> {
        if let Some(place) = self.proven.find(key, hash) {
            return Some((Stage::Proven, place));
        }
        self.unproven.find(key, hash).map(|place| (Stage::Unproven, place))
    }

    /// The hash of a key: the same in both parts.
    #[inline(always)]
    pub fn hash(&self, key: &E::Key) -> u64 {
        self.proven.hash(key)
    }

    /// Flows in both parts.
    pub fn len(&self) -> usize {
        self.proven.len() + self.unproven.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves a flow from the unproven part into the proven one, with both its entries, and returns where the entry of
    /// `place` is now. What gives way for it goes to `gone`.
    ///
    /// # Errors
    /// [`Full`]: it stays where it is.
    pub fn promote(
        &mut self,
        place: Place,
        now: u32,
        lifetimes: &impl Lifetimes,
        mut gone: impl FnMut(Gone<E>),
    ) -> Result<Place, Full> {
        let entry = *self.unproven.entry(place);
        let (hash, key) = (self.hash(&entry.key()), entry.key());
        let (server, state) = (entry.server(), entry.state());
        let Some(partner) = self.unproven.partner(place) else {
            let (new, old) = self.proven.insert(&key, hash, server, state, now, lifetimes)?;
            old.into_iter().for_each(&mut gone);
            self.copy(new, &entry);
            self.unproven.remove(place);
            return Ok(new);
        };
        let other = *self.unproven.entry(partner);
        let other_key = other.key();
        let other_hash = self.hash(&other_key);
        let (own, others) = ((&key, hash), (&other_key, other_hash));
        let reversed = entry.flags() & flag::REVERSE != 0;
        let keys = if reversed { [others, own] } else { [own, others] };
        let [first, second] = self.proven.insert_pair(keys, server, state, now, lifetimes, &mut gone)?;
        let (new, new_other) = if reversed { (second, first) } else { (first, second) };
        self.copy(new, &entry);
        self.copy(new_other, &other);
        self.unproven.remove(place);
        Ok(new)
    }

    /// Copies what the pipeline keeps in an entry.
    fn copy(&mut self, place: Place, from: &E) {
        let entry = self.proven.entry(place);
        entry.set_flags(from.flags());
        entry.set_stamp(from.stamp());
        entry.set_extra(from.extra());
    }

    /// Calls `each` for every entry.
    pub fn for_each(&self, mut each: impl FnMut(&E)) {
        self.proven.for_each(&mut each);
        self.unproven.for_each(&mut each);
    }

    /// Calls `each` for every entry, to change what the pipeline keeps in it.
    #[cold]
    pub fn for_each_mut(&mut self, mut each: impl FnMut(&mut E)) {
        for part in [&mut self.proven, &mut self.unproven] {
            if !part.is_empty() {
                part.for_each_mut(&mut each);
            }
        }
    }

    /// Asks the CPU for a flow's home in both parts.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        self.proven.prefetch(hash);
        self.unproven.prefetch(hash);
    }

    /// Buckets of both parts.
    pub fn buckets(&self) -> usize {
        self.proven.buckets() + self.unproven.buckets()
    }

    /// Proven flows that there is room for.
    pub fn capacity(&self) -> usize {
        self.proven.capacity()
    }

    /// Bytes of memory of both parts.
    pub fn bytes(&self) -> usize {
        self.proven.bytes() + self.unproven.bytes()
    }

    /// See [`FlowTable::prefault`].
    pub fn prefault(&mut self) {
        self.proven.prefault();
        self.unproven.prefault();
    }
}

#[cfg(test)]
mod tests;
