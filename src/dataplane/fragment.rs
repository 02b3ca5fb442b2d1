//! The fragmented packets that a worker follows: what was seen of each, what was decided for it, and the fragments that
//! wait for their first one.
//!
//! Pure: time and bytes come as parameters, and all memory is taken at the start. Never reassembles, never looks into a
//! packet, never decides where one goes. Why it is as it is: `docs/adr/0009-fragments.md`.

mod list;

use super::flow::Seeds;
use super::parse::{Fragment, FragmentId};
use super::verdict::DropReason;
use list::{Links, NONE, Order};

/// Most fragments of one packet. The largest packet is 45 of them on Ethernet, and 119 at the 576 bytes that every IPv4
/// host takes.
pub const MOST_RANGES: usize = 128;

/// Most fragments of one packet that wait: enough for the largest packet in Ethernet's frames, sent last fragment first.
/// Also never more than a quarter of the store, unless that is less than [`FAIR_WAITING`].
pub const MOST_WAITING: usize = 64;

/// Fragments of one packet that may wait however small the store is.
pub const FAIR_WAITING: usize = 8;

/// Milliseconds for which a packet is followed once its first fragment came: the lower bound that RFC 791 (section 3.2)
/// gives for reassembly. Linux waits 30 s, RFC 8200 says 60 s, but identifications of IPv4 return sooner (RFC 4963).
pub const FOLLOWED_MS: u32 = 15_000;

/// Milliseconds after which a packet gives way to a new one in a full table.
pub const GIVES_WAY_MS: u32 = 1_000;

/// Milliseconds after which waiting fragments give way to new ones in a full store. Reordered fragments are a few
/// milliseconds apart.
pub const WAITING_GIVES_WAY_MS: u32 = 100;

/// What becomes of all fragments of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They go where the flow of these ports goes.
    Follow {
        /// Source port, then destination port, as they lie in the first fragment.
        ports: u32,
        /// Protocol of the transport header.
        protocol: u8,
    },
    /// They are the kernel's.
    Pass,
    /// They are dropped.
    Drop(DropReason),
}

/// A followed packet's place in the table, good until the packet is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

/// What the table says of a fragment that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// What becomes of its packet is decided.
    Decided(Decision),
    /// It is not: this is the first fragment, or one that must wait for it.
    Undecided(Place),
    /// The same bytes of the same packet were here before.
    Duplicate,
    /// Its packet is refused from now on, and so is what waits of it.
    Refused(Place, DropReason),
    /// There is no room for another packet.
    Full,
}

/// A waiting fragment that was taken out of its packet's queue, and must be freed.
#[derive(Debug)]
pub struct Waiting(u32);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    start: u16,
    end: u16,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    id: FragmentId,
    decision: Option<Decision>,
    /// When its first fragment came, whichever that was; once decided, when that was.
    stamp: u32,
    /// Length of the packet's fragmentable part; 0 until the last fragment came.
    total: u16,
    /// The end of the furthest fragment.
    reach: u16,
    /// Bytes seen.
    seen: u16,
    ranges: u16,
    waiting: u16,
    /// Waiting fragments, in the order in which they came.
    queue: (u32, u32),
    /// The next record of the same bucket, or the next free one.
    chain: u32,
    links: Links,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    next: u32,
    len: u32,
    port: u8,
}

/// The fragmented packets that one worker follows.
#[derive(Debug)]
pub struct FragmentTable {
    records: Box<[Record]>,
    ranges: Box<[Range]>,
    buckets: Box<[u32]>,
    free: u32,
    len: u32,
    /// Records by age: those that wait for their first fragment, and the others.
    undecided: Order,
    decided: Order,
    slots: Box<[Slot]>,
    store: Box<[u8]>,
    slot_bytes: usize,
    free_slots: u32,
    waiting: u32,
    most_waiting: u16,
    wait_ms: u32,
    seeds: Seeds,
    given_way: u32,
}

/// Folded 64 x 64 -> 128 bit multiplication.
const fn mix(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b))
}

impl FragmentTable {
    /// A table for `datagrams` packets and `waiting` fragments of at most `slot_bytes` bytes, each of which waits at most
    /// `wait_ms` milliseconds.
    pub fn new(datagrams: usize, waiting: usize, slot_bytes: usize, wait_ms: u32, seeds: Seeds) -> FragmentTable {
        let nobody = FragmentId { source: [0; 16], destination: [0; 16], id: 0, protocol: 0, v6: false };
        let record = |at: usize| Record {
            id: nobody,
            decision: None,
            stamp: 0,
            total: 0,
            reach: 0,
            seen: 0,
            ranges: 0,
            waiting: 0,
            queue: (NONE, NONE),
            chain: if at + 1 < datagrams { at as u32 + 1 } else { NONE },
            links: Links::default(),
        };
        let slot = |at: usize| Slot { next: if at + 1 < waiting { at as u32 + 1 } else { NONE }, len: 0, port: 0 };
        FragmentTable {
            records: (0..datagrams).map(record).collect(),
            ranges: vec![Range::default(); datagrams * MOST_RANGES].into_boxed_slice(),
            buckets: vec![NONE; (datagrams * 2).next_power_of_two()].into_boxed_slice(),
            free: if datagrams > 0 { 0 } else { NONE },
            len: 0,
            undecided: Order::default(),
            decided: Order::default(),
            slots: (0..waiting).map(slot).collect(),
            store: vec![0; waiting * slot_bytes].into_boxed_slice(),
            slot_bytes,
            free_slots: if waiting > 0 { 0 } else { NONE },
            waiting: 0,
            most_waiting: (waiting / 4).clamp(FAIR_WAITING, MOST_WAITING) as u16,
            wait_ms,
            seeds,
            given_way: 0,
        }
    }

    /// Touches every page of its memory.
    pub fn prefault(&mut self) {
        self.store.fill(0);
        self.ranges.fill(Range::default());
    }

    /// Packets followed now.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no packet is followed now.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fragments that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting as usize
    }

    /// Waiting fragments that gave way to others since the last call.
    pub fn take_given_way(&mut self) -> u32 {
        std::mem::take(&mut self.given_way)
    }

    /// The hash of a packet's identity, the same for all workers of one set of seeds.
    pub fn hash(&self, id: &FragmentId) -> u64 {
        let seeds = &self.seeds.0;
        let rest = u64::from(id.id) | u64::from(id.protocol) << 32 | u64::from(id.v6) << 40;
        let source = mix(word(&id.source) ^ seeds[0], word(&id.source[8..]) ^ seeds[1]);
        let destination = mix(word(&id.destination) ^ seeds[2], word(&id.destination[8..]) ^ seeds[3]);
        mix(mix(source ^ seeds[1], destination ^ seeds[0]) ^ seeds[2], rest ^ seeds[3])
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    fn find(&self, hash: u64, id: &FragmentId) -> Option<u32> {
        let mut at = self.buckets[self.bucket(hash)];
        while let Some(record) = self.records.get(at as usize) {
            if record.id == *id {
                return Some(at);
            }
            at = record.chain;
        }
        None
    }

    /// Notes a fragment with the hash of its identity, and says what is known of its packet. A packet of which all bytes
    /// were noted leaves the table: at once if it is decided, else with [`FragmentTable::finish`].
    pub fn note(&mut self, hash: u64, fragment: &Fragment, now: u32) -> Noted {
        let at = match self.find(hash, &fragment.id) {
            Some(at) => at,
            None => match self.begin(hash, fragment.id, now) {
                Some(at) => at,
                None => return Noted::Full,
            },
        };
        let place = Place(at);
        let decision = self.records[at as usize].decision;
        // A refused packet stays so: its ranges mean nothing any more.
        if let Some(Decision::Drop(DropReason::FragmentOverlap | DropReason::FragmentLimit)) = decision {
            return decision.map_or(Noted::Full, Noted::Decided);
        }
        let added = self.add_range(at, fragment);
        match (added, decision) {
            // How the kernel's packets are cut is the kernel's concern.
            (_, Some(decision @ Decision::Pass)) | (Ok(true), Some(decision)) => {
                self.finish(place);
                Noted::Decided(decision)
            }
            (Ok(true), None) => Noted::Undecided(place),
            (Ok(false), _) => Noted::Duplicate,
            (Err(reason), _) => {
                self.decide(place, Decision::Drop(reason), now);
                Noted::Refused(place, reason)
            }
        }
    }

    fn begin(&mut self, hash: u64, id: FragmentId, now: u32) -> Option<u32> {
        if self.free == NONE {
            let oldest = [self.undecided.first(), self.decided.first()]
                .into_iter()
                .flatten()
                .max_by_key(|at| now.wrapping_sub(self.records[*at as usize].stamp))?;
            if now.wrapping_sub(self.records[oldest as usize].stamp) <= GIVES_WAY_MS {
                return None;
            }
            self.give_way(oldest);
        }
        let at = self.free;
        let bucket = self.bucket(hash);
        let record = &mut self.records[at as usize];
        self.free = record.chain;
        *record = Record {
            id,
            decision: None,
            stamp: now,
            total: 0,
            reach: 0,
            seen: 0,
            ranges: 0,
            waiting: 0,
            queue: (NONE, NONE),
            chain: self.buckets[bucket],
            links: Links::default(),
        };
        self.buckets[bucket] = at;
        self.len += 1;
        self.undecided.push(&mut self.records[..], at);
        Some(at)
    }

    fn give_way(&mut self, at: u32) {
        self.given_way += u32::from(self.records[at as usize].waiting);
        self.remove(Place(at));
    }

    /// Adds a fragment's bytes to what was seen of its packet: `false` for a duplicate.
    ///
    /// An overlap is refused for IPv6 (RFC 5722) and for IPv4: no sender makes one, and hosts that let the first or the
    /// last copy win can be told apart and fooled. What contradicts the packet's length is no better.
    fn add_range(&mut self, at: u32, fragment: &Fragment) -> Result<bool, DropReason> {
        let Fragment { start, end, more, .. } = *fragment;
        let record = &mut self.records[at as usize];
        let contradicts = if record.total != 0 {
            end > record.total || more == (end == record.total)
        } else {
            !more && record.reach >= end
        };
        if contradicts {
            return Err(DropReason::FragmentOverlap);
        }
        let first = at as usize * MOST_RANGES;
        let ranges = &mut self.ranges[first..first + MOST_RANGES];
        let count = usize::from(record.ranges);
        for range in &ranges[..count] {
            if *range == (Range { start, end }) {
                return Ok(false);
            }
            if start < range.end && range.start < end {
                return Err(DropReason::FragmentOverlap);
            }
        }
        let Some(range) = ranges.get_mut(count) else { return Err(DropReason::FragmentLimit) };
        *range = Range { start, end };
        record.ranges += 1;
        record.seen += end - start;
        record.reach = record.reach.max(end);
        if !more {
            record.total = end;
        }
        Ok(true)
    }

    /// Lets a fragment wait for the first one of its packet: `bytes` of a frame that arrived on `port`. `false`: there is
    /// no room, or its packet has its share of it.
    pub fn wait(&mut self, place: Place, bytes: &[u8], port: u8, now: u32) -> bool {
        let at = place.0;
        if bytes.len() > self.slot_bytes || self.records[at as usize].waiting >= self.most_waiting {
            return false;
        }
        if self.free_slots == NONE && !self.make_room(at, now) {
            return false;
        }
        let slot = self.free_slots;
        let Some(entry) = self.slots.get_mut(slot as usize) else { return false };
        self.free_slots = entry.next;
        *entry = Slot { next: NONE, len: bytes.len() as u32, port };
        let from = slot as usize * self.slot_bytes;
        self.store[from..from + bytes.len()].copy_from_slice(bytes);
        let record = &mut self.records[at as usize];
        record.waiting += 1;
        self.waiting += 1;
        let last = std::mem::replace(&mut record.queue.1, slot);
        match self.slots.get_mut(last as usize) {
            Some(last) => last.next = slot,
            None => record.queue.0 = slot,
        }
        true
    }

    /// Frees a slot at the cost of the packet whose fragments wait longest, if that is not `except` and long enough.
    fn make_room(&mut self, except: u32, now: u32) -> bool {
        let Some(oldest) = self.undecided.first().filter(|at| *at != except) else { return false };
        if now.wrapping_sub(self.records[oldest as usize].stamp) <= WAITING_GIVES_WAY_MS {
            return false;
        }
        self.give_way(oldest);
        self.free_slots != NONE
    }

    /// Takes the packet's next waiting fragment out of its queue.
    pub fn next_waiting(&mut self, place: Place) -> Option<Waiting> {
        let record = &mut self.records[place.0 as usize];
        let slot = record.queue.0;
        let entry = self.slots.get(slot as usize)?;
        record.queue.0 = entry.next;
        if entry.next == NONE {
            record.queue.1 = NONE;
        }
        record.waiting -= 1;
        self.waiting -= 1;
        Some(Waiting(slot))
    }

    /// A waiting fragment's bytes, and the port on which it arrived.
    pub fn waiting_frame(&self, waiting: &Waiting) -> (&[u8], u8) {
        let Slot { len, port, .. } = self.slots[waiting.0 as usize];
        let from = waiting.0 as usize * self.slot_bytes;
        (&self.store[from..from + len as usize], port)
    }

    /// Gives a waiting fragment's memory back.
    pub fn free(&mut self, waiting: Waiting) {
        self.slots[waiting.0 as usize].next = std::mem::replace(&mut self.free_slots, waiting.0);
    }

    /// Decides what becomes of a packet, from now on for at most [`FOLLOWED_MS`].
    pub fn decide(&mut self, place: Place, decision: Decision, now: u32) {
        let before = self.records[place.0 as usize].decision.replace(decision);
        let order = if before.is_some() { &mut self.decided } else { &mut self.undecided };
        order.unlink(&mut self.records[..], place.0);
        self.records[place.0 as usize].stamp = now;
        self.decided.push(&mut self.records[..], place.0);
    }

    /// Removes a packet if all its bytes were noted. Nothing of it may wait then. A refused packet stays.
    pub fn finish(&mut self, place: Place) {
        let record = &self.records[place.0 as usize];
        let refused = matches!(record.decision, Some(Decision::Drop(DropReason::FragmentOverlap)));
        if !refused && record.total != 0 && record.seen == record.total {
            self.remove(place);
        }
    }

    /// Removes a packet, and what waits of it.
    pub fn remove(&mut self, place: Place) {
        while let Some(waiting) = self.next_waiting(place) {
            self.free(waiting);
        }
        let Record { id, chain, decision, .. } = self.records[place.0 as usize];
        let order = if decision.is_some() { &mut self.decided } else { &mut self.undecided };
        order.unlink(&mut self.records[..], place.0);
        let bucket = self.bucket(self.hash(&id));
        let mut before = self.buckets[bucket];
        if before == place.0 {
            self.buckets[bucket] = chain;
        } else {
            while let Some(record) = self.records.get_mut(before as usize) {
                if record.chain == place.0 {
                    record.chain = chain;
                    break;
                }
                before = record.chain;
            }
        }
        self.records[place.0 as usize].chain = std::mem::replace(&mut self.free, place.0);
        self.len -= 1;
    }

    /// A packet whose fragments waited in vain, the oldest first, and where it was to go.
    pub fn overdue(&self, now: u32) -> Option<(Place, FragmentId)> {
        let at = self.undecided.first()?;
        let record = &self.records[at as usize];
        (now.wrapping_sub(record.stamp) >= self.wait_ms).then_some((Place(at), record.id))
    }

    /// Whether [`FragmentTable::overdue`] or [`FragmentTable::forget`] has anything to do.
    #[inline]
    pub fn is_due(&self, now: u32) -> bool {
        self.len != 0 && (self.overdue(now).is_some() || self.outlived(now).is_some())
    }

    fn outlived(&self, now: u32) -> Option<u32> {
        self.decided.first().filter(|at| now.wrapping_sub(self.records[*at as usize].stamp) >= FOLLOWED_MS)
    }

    /// Forgets at most `budget` packets that never became whole.
    pub fn forget(&mut self, budget: usize, now: u32) {
        for _ in 0..budget {
            let Some(at) = self.outlived(now) else { return };
            self.remove(Place(at));
        }
    }
}

#[cfg(test)]
mod tests;
