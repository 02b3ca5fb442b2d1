//! The flow table: a worker's own map from a client's connection to its real server.
//!
//! Fixed capacity, no allocation after start, one cache line touched for most lookups. Never shared, never locked,
//! never reads a clock: `now` is milliseconds since an epoch of the worker's choice, and wraps after 49 days.
//!
//! Buckets hold two entries and an overflow count: how many entries whose home lies at or before this bucket were put
//! behind it. A lookup walks on only while that count is not zero, so misses end at once and nothing like tombstones
//! is needed. The table is sized for a load of [`Entry::LOAD_PERCENT`] at capacity.

mod key;
pub mod state;

pub use key::{Entry, FlowV4, FlowV6, Ident, KeyV4, KeyV6, Seeds};

use self::state::{STATES, State};
use super::sys;

/// Entries in a bucket.
const WAYS: usize = 2;

/// Most buckets that an entry may lie behind its home. At the loads used, entries this far out are rarer than one in
/// 10^14; nearly all lie in their home bucket or the next.
const MAX_PROBE: usize = 256;

/// Buckets searched for a flow that gives way.
const VICTIM_PROBE: usize = 24;

/// A flow's time stamp is refreshed when it is older than this, in milliseconds: most hits then write nothing.
/// Flows live by so much longer than their timeout, never shorter.
pub const STAMP_MS: u32 = 128;

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    bucket: usize,
    way: usize,
}

/// What happened to a flow that the table let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Stable id of its server.
    pub server: u32,
    /// Its last state.
    pub state: State,
}

/// Why a flow could not be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The IPv4 table's short way for the packets that matter most: no more is computed than a hit needs.
impl FlowTable<FlowV4> {
    /// The home bucket of a flow, and a request to the CPU to fetch it.
    #[inline(always)]
    pub fn approach(&self, ident: Ident) -> u32 {
        let home = self.home(ident.hash(&self.seeds));
        if let Some(bucket) = self.buckets.get(home) {
            FlowV4::prefetch(bucket);
        }
        home as u32
    }

    /// The flow's entry, if it lies in its home bucket.
    #[inline(always)]
    pub fn at_home(&mut self, home: u32, ident: Ident) -> Option<&mut FlowV4> {
        let entries = FlowV4::entries_mut(self.buckets.get_mut(home as usize)?);
        // Which of the two it is cannot be predicted: computed, not branched upon.
        let second = entries[1].is(ident);
        if entries[0].is(ident) | second { Some(&mut entries[usize::from(second)]) } else { None }
    }

    /// The flow's entry behind its home bucket, where that overflowed.
    #[inline(never)]
    pub fn behind(&mut self, home: u32, ident: Ident) -> Option<&mut FlowV4> {
        let place = self.find_from(&ident.key(), home as usize)?;
        Some(self.entry(place))
    }
}

/// The IPv6 table's short way.
impl FlowTable<FlowV6> {
    /// The home bucket of a flow, and a request to the CPU to fetch it.
    #[inline(always)]
    pub fn approach(&self, key: &KeyV6) -> u32 {
        let home = self.home(self.hash(key));
        if let Some(bucket) = self.buckets.get(home) {
            FlowV6::prefetch(bucket);
        }
        home as u32
    }

    /// The flow's entry, if it lies in its home bucket or behind it.
    #[inline(always)]
    pub fn from_home(&mut self, home: u32, key: &KeyV6) -> Option<&mut FlowV6> {
        let place = self.find_from(key, home as usize)?;
        Some(self.entry(place))
    }
}

/// A flow table for one address family.
pub struct FlowTable<E: Entry> {
    buckets: sys::Zeroed<E::Bucket>,
    live: usize,
    capacity: usize,
    seeds: Seeds,
    sweep_at: usize,
}

impl<E: Entry> FlowTable<E> {
    /// A table for `capacity` flows. Its memory is mapped here and fixed from now on; `huge` asks for huge pages.
    ///
    /// # Errors
    /// The kernel has not that much memory.
    pub fn new(capacity: usize, seeds: Seeds, huge: bool) -> std::io::Result<Self> {
        let entries = (capacity.max(16) * 100).div_ceil(E::LOAD_PERCENT);
        let count = entries.div_ceil(WAYS) + MAX_PROBE;
        let buckets = sys::Zeroed::new(count, huge)?;
        Ok(FlowTable { buckets, live: 0, capacity, seeds, sweep_at: 0 })
    }

    /// Flows in the table, expired ones that were not swept yet included.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Most flows that it takes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of memory, index included: there is no other memory than the buckets.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// What pages back it.
    pub fn backing(&self) -> sys::Backing {
        self.buckets.backing()
    }

    /// The hash of a key under this table's secret seeds.
    #[inline(always)]
    pub fn hash(&self, key: &E::Key) -> u64 {
        E::hash(key, &self.seeds)
    }

    /// Buckets that can be a home; the last [`MAX_PROBE`] only take overflow.
    #[inline(always)]
    fn homes(&self) -> u64 {
        (self.buckets.len() - MAX_PROBE) as u64
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.homes()) >> 32) as usize
    }

    /// Asks the CPU to fetch the home bucket of a hash.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.home(hash)) {
            E::prefetch(bucket);
        }
    }

    /// Finds a flow.
    #[inline(always)]
    pub fn find(&self, key: &E::Key, hash: u64) -> Option<Place> {
        self.find_from(key, self.home(hash))
    }

    #[inline(always)]
    fn find_from(&self, key: &E::Key, mut at: usize) -> Option<Place> {
        loop {
            let bucket = self.buckets.get(at)?;
            let entries = E::entries(bucket);
            let second = E::matches(&entries[1], key);
            if E::matches(&entries[0], key) | second {
                return Some(Place { bucket: at, way: usize::from(second) });
            }
            if E::overflow(&entries[0]) == 0 {
                return None;
            }
            at += 1;
        }
    }

    /// The entry at a place that [`FlowTable::find`] or [`FlowTable::insert`] gave.
    #[inline(always)]
    pub fn entry(&mut self, place: Place) -> &mut E {
        &mut E::entries_mut(&mut self.buckets[place.bucket])[place.way & 1]
    }

    /// Puts in a flow that is not there.
    ///
    /// Where its neighbourhood or the table is full, an expired flow or else the idlest flow that nobody uses
    /// ([`State::gives_way`]) makes room and is returned.
    ///
    /// # Errors
    /// [`Full`] where nothing can give way.
    pub fn insert(
        &mut self,
        key: &E::Key,
        hash: u64,
        server: u32,
        state: State,
        now: u32,
        timeouts: &[u32; STATES],
    ) -> Result<(Place, Option<Gone>), Full> {
        let home = self.home(hash);
        let mut gone = None;
        let mut place = if self.live < self.capacity { self.free_place(home) } else { None };
        if place.is_none() {
            let victim = self.victim(home, now, timeouts).ok_or(Full)?;
            gone = Some(self.remove(victim));
            place = Some(victim);
        }
        let place = place.ok_or(Full)?;
        for bucket in &mut self.buckets[home..place.bucket] {
            let entries = E::entries_mut(bucket);
            let count = E::overflow(&entries[0]);
            E::set_overflow(&mut entries[0], count.saturating_add(1));
        }
        let entry = self.entry(place);
        E::fill(entry, key, server, state, now);
        self.live += 1;
        Ok((place, gone))
    }

    fn free_place(&self, home: usize) -> Option<Place> {
        for bucket in home..home + MAX_PROBE {
            let entries = E::entries(self.buckets.get(bucket)?);
            for (way, entry) in entries.iter().enumerate() {
                if !E::is_live(entry) {
                    return Some(Place { bucket, way });
                }
            }
        }
        None
    }

    /// The best entry near `home` to give up: an expired one, else the idlest that gives way.
    fn victim(&self, home: usize, now: u32, timeouts: &[u32; STATES]) -> Option<Place> {
        let mut best: Option<(u32, Place)> = None;
        for bucket in home..home + VICTIM_PROBE {
            for (way, entry) in E::entries(self.buckets.get(bucket)?).iter().enumerate() {
                if !E::is_live(entry) {
                    continue;
                }
                let place = Place { bucket, way };
                if is_expired::<E>(entry, now, timeouts) {
                    return Some(place);
                }
                let idle = now.wrapping_sub(E::stamp(entry));
                if E::state(entry).gives_way() && best.is_none_or(|(most, _)| idle > most) {
                    best = Some((idle, place));
                }
            }
        }
        best.map(|(_, place)| place)
    }

    /// Takes a flow out.
    pub fn remove(&mut self, place: Place) -> Gone {
        let entry = *self.entry(place);
        let home = self.home(E::hash(&E::key(&entry), &self.seeds));
        for bucket in &mut self.buckets[home..place.bucket] {
            let entries = E::entries_mut(bucket);
            let count = E::overflow(&entries[0]);
            // A saturated count is no longer exact and stays.
            if count != u8::MAX {
                E::set_overflow(&mut entries[0], count.saturating_sub(1));
            }
        }
        E::clear(self.entry(place));
        self.live -= 1;
        Gone { server: E::server(&entry), state: E::state(&entry) }
    }

    /// Whether the flow at a place has outlived its timeout.
    #[inline(always)]
    pub fn expired(&mut self, place: Place, now: u32, timeouts: &[u32; STATES]) -> bool {
        is_expired::<E>(self.entry(place), now, timeouts)
    }

    /// Looks at the next `budget` buckets for expired flows and lets them go; returns whether it reached the end of
    /// the table and started over.
    pub fn sweep(&mut self, budget: usize, now: u32, timeouts: &[u32; STATES], mut each: impl FnMut(Gone)) -> bool {
        let end = (self.sweep_at + budget).min(self.buckets.len());
        for bucket in self.sweep_at..end {
            for way in 0..WAYS {
                let entry = &E::entries(&self.buckets[bucket])[way];
                if E::is_live(entry) && is_expired::<E>(entry, now, timeouts) {
                    each(self.remove(Place { bucket, way }));
                }
            }
        }
        let wrapped = end == self.buckets.len();
        self.sweep_at = if wrapped { 0 } else { end };
        wrapped
    }

    /// Writes to every page of an empty table, so that later no packet pays for a page fault.
    pub fn prefault(&mut self) {
        let stride = (4096 / size_of::<E::Bucket>()).max(1);
        for bucket in self.buckets.iter_mut().step_by(stride) {
            let entry = &mut E::entries_mut(bucket)[0];
            let count = std::hint::black_box(E::overflow(entry));
            E::set_overflow(entry, count);
        }
    }

    /// Buckets in all, for pacing [`FlowTable::sweep`].
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Calls `each` for every flow.
    pub fn for_each(&self, mut each: impl FnMut(&E)) {
        for bucket in self.buckets.iter() {
            E::entries(bucket).iter().filter(|e| E::is_live(e)).for_each(&mut each);
        }
    }
}

/// Whether a flow has outlived the timeout of its state.
#[inline(always)]
pub fn is_expired<E: Entry>(entry: &E, now: u32, timeouts: &[u32; STATES]) -> bool {
    let idle = now.wrapping_sub(E::stamp(entry));
    // A stamp can lie a little after `now` where a capture's times step back: that is not idle time.
    let limit = timeouts[usize::from(E::state(entry).0) & (STATES - 1)].saturating_add(STAMP_MS);
    idle > limit && idle < u32::MAX / 2
}

#[cfg(test)]
mod tests;
