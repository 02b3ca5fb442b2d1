//! The flow table: a worker's own map from a client's connection to its real server.
//!
//! Fixed capacity, no allocation after start, one cache line touched for most lookups. Never shared, never locked,
//! never reads a clock: `now` is milliseconds since an epoch of the worker's choice, and wraps after 49 days.
//!
//! Buckets hold two entries and an overflow count: how many entries whose home lies at or before this bucket were put
//! behind it. A lookup walks on only while that count is not zero, so misses end at once and nothing like tombstones
//! is needed. A flow of which both directions pass by has an entry for each; they know each other's place, share their
//! state, and go together. The table is sized for a load of [`Entry::LOAD_PERCENT`] at capacity.

mod key;
mod parts;
pub mod state;
mod walk;

pub(in crate::dataplane) use key::mix;
pub use key::{Entry, FlowV4, FlowV6, Ident, KeyV4, KeyV6, Seeds};
pub use parts::{Flows, Stage};
pub use walk::{Budget, Step};

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

impl Place {
    fn pack(self) -> u32 {
        (self.bucket * WAYS + self.way + 1) as u32
    }

    fn unpack(packed: u32) -> Option<Place> {
        let index = packed.checked_sub(1)? as usize;
        Some(Place { bucket: index / WAYS, way: index % WAYS })
    }
}

/// A flow that the table let go, with both its entries.
#[derive(Clone, Copy, Debug)]
pub struct Gone<E> {
    /// The entry of the client's direction.
    pub entry: E,
    /// Hash of its key.
    pub hash: u64,
    /// The entry of the server's direction and the hash of its key, where the flow has one.
    pub reverse: Option<(E, u64)>,
}

/// Bits of an entry's flags.
pub mod flag {
    /// The key is that of packets from the server.
    pub const REVERSE: u8 = 0x01;
    /// The client's address goes ahead of its stream by PROXY protocol.
    pub const PROXY: u8 = 0x02;
    /// That header was sent.
    pub const PROXY_SENT: u8 = 0x04;
    /// The server has acknowledged it.
    pub const PROXY_DONE: u8 = 0x08;
    /// The appliance answered the client's SYN by a cookie, and translates the numbers of both streams.
    pub const COOKIE: u8 = 0x10;
    /// The flow is one of those of a persistent client.
    pub const PERSISTENT: u8 = 0x20;
    /// The flow counts for the limits of its client's network.
    pub const LIMITED: u8 = 0x40;
    /// The flow is being put in: it does not give way.
    pub(super) const FRESH: u8 = 0x80;
}

/// How long flows live without a packet.
pub trait Lifetimes {
    /// Milliseconds for a flow of this server (a stable id) in this state.
    fn limit_ms(&self, server: u32, state: State) -> u32;
}

impl Lifetimes for [u32; STATES] {
    #[inline(always)]
    fn limit_ms(&self, _: u32, state: State) -> u32 {
        self[usize::from(state.0) & (STATES - 1)]
    }
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
    /// Whether every flow that is not established gives way, not only what is about to end.
    lenient: bool,
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
        Ok(FlowTable { buckets, live: 0, capacity, seeds, sweep_at: 0, lenient: false })
    }

    /// The same table, in which every flow gives way that is not established: one for flows of which nobody knows yet
    /// whether they are any.
    pub fn lenient(self) -> Self {
        FlowTable { lenient: true, ..self }
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

    /// Asks the CPU to fetch the other direction's entry of a flow whose home bucket is known.
    #[inline(always)]
    pub fn approach_partner(&self, key: &E::Key, home: u32) {
        let Some(place) = self.find_from(key, home as usize) else { return };
        let entry = &E::entries(&self.buckets[place.bucket])[place.way & 1];
        if let Some(bucket) = Place::unpack(entry.partner()).and_then(|partner| self.buckets.get(partner.bucket)) {
            E::prefetch(bucket);
        }
    }

    /// Finds a flow whose home bucket is known.
    #[inline(always)]
    pub fn find_at(&self, key: &E::Key, home: u32) -> Option<Place> {
        self.find_from(key, home as usize)
    }

    /// The number of a hash's home bucket, as [`FlowTable::approach`] gives it.
    pub fn home_of(&self, hash: u64) -> u32 {
        self.home(hash) as u32
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
    fn find_from(&self, key: &E::Key, home: usize) -> Option<Place> {
        // No entry lies further from its home, whatever the overflow counts say.
        for at in home..home + MAX_PROBE {
            let bucket = self.buckets.get(at)?;
            let entries = E::entries(bucket);
            let second = E::matches(&entries[1], key);
            if E::matches(&entries[0], key) | second {
                return Some(Place { bucket: at, way: usize::from(second) });
            }
            if E::overflow(&entries[0]) == 0 {
                return None;
            }
        }
        None
    }

    /// The entry at a place that [`FlowTable::find`] or [`FlowTable::insert`] gave.
    #[inline(always)]
    pub fn entry(&mut self, place: Place) -> &mut E {
        &mut E::entries_mut(&mut self.buckets[place.bucket])[place.way & 1]
    }

    /// The entry of the other direction of a flow that has two.
    #[inline(always)]
    pub fn partner(&mut self, place: Place) -> Option<Place> {
        Place::unpack(self.entry(place).partner())
    }

    /// Sets the state of a flow, in both its entries.
    pub fn set_state(&mut self, place: Place, state: State) {
        self.entry(place).set_state(state);
        if let Some(partner) = self.partner(place) {
            self.entry(partner).set_state(state);
        }
    }

    /// Puts in a flow that is not there and whose both directions pass by: an entry for each, the client's first. The
    /// places are in this order, the second entry has [`flag::REVERSE`].
    ///
    /// # Errors
    /// [`Full`]; neither is in then. `gone` may have been called nevertheless.
    #[allow(clippy::too_many_arguments)]
    pub fn insert_pair(
        &mut self,
        keys: [(&E::Key, u64); 2],
        server: u32,
        state: State,
        now: u32,
        lifetimes: &impl Lifetimes,
        mut gone: impl FnMut(Gone<E>),
    ) -> Result<[Place; 2], Full> {
        let (first, old) = self.insert(keys[0].0, keys[0].1, server, state, now, lifetimes)?;
        old.into_iter().for_each(&mut gone);
        self.entry(first).set_flags(flag::FRESH);
        match self.insert(keys[1].0, keys[1].1, server, state, now, lifetimes) {
            Ok((second, old)) => {
                old.into_iter().for_each(&mut gone);
                self.entry(first).set_flags(0);
                self.entry(first).set_partner(second.pack());
                self.entry(second).set_flags(flag::REVERSE);
                self.entry(second).set_partner(first.pack());
                Ok([first, second])
            }
            Err(Full) => {
                self.remove(first);
                Err(Full)
            }
        }
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
        lifetimes: &impl Lifetimes,
    ) -> Result<(Place, Option<Gone<E>>), Full> {
        let home = self.home(hash);
        let mut gone = None;
        let mut place = if self.live < self.capacity { self.free_place(home) } else { None };
        if place.is_none() {
            let victim = self.victim(home, now, lifetimes).ok_or(Full)?;
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
    fn victim(&self, home: usize, now: u32, lifetimes: &impl Lifetimes) -> Option<Place> {
        let mut best: Option<(u32, Place)> = None;
        for bucket in home..home + VICTIM_PROBE {
            for (way, entry) in E::entries(self.buckets.get(bucket)?).iter().enumerate() {
                if !E::is_live(entry) {
                    continue;
                }
                let place = Place { bucket, way };
                // An entry of two may be idle while its partner is not: that costs a look elsewhere, so it is no victim.
                if E::partner(entry) == 0 && is_expired(entry, now, lifetimes) {
                    return Some(place);
                }
                if E::flags(entry) & flag::FRESH != 0 {
                    continue;
                }
                let idle = now.wrapping_sub(E::stamp(entry));
                let state = E::state(entry);
                if (state.gives_way() || self.lenient && !state.is_active()) && best.is_none_or(|(most, _)| idle > most)
                {
                    best = Some((idle, place));
                }
            }
        }
        best.map(|(_, place)| place)
    }

    /// Takes a flow out, both its entries.
    pub fn remove(&mut self, place: Place) -> Gone<E> {
        let partner = self.partner(place);
        let taken = self.take(place);
        let other = partner.map(|partner| self.take(partner));
        match other {
            Some(other) if taken.0.flags() & flag::REVERSE != 0 => {
                Gone { entry: other.0, hash: other.1, reverse: Some(taken) }
            }
            _ => Gone { entry: taken.0, hash: taken.1, reverse: other },
        }
    }

    /// Takes one entry out: what it was, and the hash of its key.
    fn take(&mut self, place: Place) -> (E, u64) {
        let entry = *self.entry(place);
        let hash = E::hash(&E::key(&entry), &self.seeds);
        let home = self.home(hash);
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
        (entry, hash)
    }

    /// Whether the flow at a place has outlived its timeout: in both directions, where it has two.
    #[inline(always)]
    pub fn expired(&mut self, place: Place, now: u32, lifetimes: &impl Lifetimes) -> bool {
        is_expired(self.entry(place), now, lifetimes) && self.partner_expired(place, now, lifetimes)
    }

    /// Whether nothing came the other way either; else the entry takes over its partner's time stamp.
    fn partner_expired(&mut self, place: Place, now: u32, lifetimes: &impl Lifetimes) -> bool {
        let Some(partner) = self.partner(place) else { return true };
        let other = *self.entry(partner);
        let expired = is_expired(&other, now, lifetimes);
        if !expired {
            self.entry(place).set_stamp(other.stamp());
        }
        expired
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

    /// Calls `each` for every entry, to change what the pipeline keeps in it.
    #[cold]
    pub fn for_each_mut(&mut self, mut each: impl FnMut(&mut E)) {
        for bucket in self.buckets.iter_mut() {
            E::entries_mut(bucket).iter_mut().filter(|e| E::is_live(e)).for_each(&mut each);
        }
    }
}

/// Whether a flow has outlived the timeout of its state.
#[inline(always)]
pub fn is_expired<E: Entry>(entry: &E, now: u32, lifetimes: &impl Lifetimes) -> bool {
    let idle = now.wrapping_sub(E::stamp(entry));
    // A stamp can lie a little after `now` where a capture's times step back: that is not idle time.
    let limit = lifetimes.limit_ms(E::server(entry), E::state(entry)).saturating_add(STAMP_MS);
    idle > limit && idle < u32::MAX / 2
}

#[cfg(test)]
mod tests;
