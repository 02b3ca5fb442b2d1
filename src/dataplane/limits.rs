//! Limits for new flows: of a service, and of each client network.
//!
//! Owns counters and rate buckets that all workers share, without a lock, in memory that is fixed at the start. Never reads a
//! clock: `now` is in milliseconds and wraps.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use super::flow::{Entry, FlowV6, KeyV6, Seeds};
use crate::model::Rate;

/// Flows that are counted over all workers.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU32);

impl Gauge {
    /// Counts one more unless there are `limit` already: never more than that, whatever other workers do at the same moment.
    pub fn try_add(&self, limit: u32) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |count| (count < limit).then(|| count + 1)).is_ok()
    }

    /// Counts one more that is there already.
    pub fn add(&self) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |count| count.checked_add(1));
    }

    /// Counts one less.
    pub fn give(&self) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
    }

    /// How many there are.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// A rate over all workers: the generic cell rate algorithm (ITU-T I.371, virtual scheduling), whose whole state is one
/// word: when the next one would be due if all came at the rate exactly.
///
/// Times are milliseconds with 32 binary digits behind the point, and wrap with the clock. 0: never used.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

/// Longest time that a burst may take to come back, in seconds: what the clock can tell apart.
pub const MOST_BURST_SECONDS: u32 = 86_400;

/// Workers read the clock at different times: one may be behind the other by so many milliseconds at most.
const SKEW_MS: u64 = 1000;

/// The same as a bucket writes it.
const fn fixed(now: u32) -> u64 {
    (now as u64) << 32
}

impl Bucket {
    /// Takes one, if the rate permits it at `now`. Never more than `burst` at once, nor more than `per_second` in the long
    /// run.
    pub fn take(&self, rate: Rate, now: u32) -> bool {
        // Rounded up: the rate is never exceeded.
        let interval = fixed(1000).div_ceil(u64::from(rate.per_second.max(1)));
        let most = interval.saturating_mul(u64::from(rate.burst.max(1) - 1)).min(fixed(MOST_BURST_SECONDS * 1000));
        let now = fixed(now);
        let next = |due: u64| {
            let ahead = ahead(due, now, most + interval);
            // What wraps to 0 is put off by the smallest step there is.
            (ahead <= most).then(|| (now.wrapping_add(ahead).wrapping_add(interval)).max(1))
        };
        self.0.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Whether one could be taken now; takes none.
    pub fn has(&self, rate: Rate, now: u32) -> bool {
        Bucket(AtomicU64::new(self.0.load(Relaxed))).take(rate, now)
    }

    /// Takes back the last [`Bucket::take`].
    pub fn give_back(&self, rate: Rate) {
        let interval = fixed(1000).div_ceil(u64::from(rate.per_second.max(1)));
        let _ = self.0.fetch_update(Relaxed, Relaxed, |due| (due != 0).then(|| due.wrapping_sub(interval).max(1)));
    }

    /// Whether all of any burst may be taken.
    fn is_full(&self, now: u32) -> bool {
        ahead(self.0.load(Relaxed), fixed(now), fixed(MOST_BURST_SECONDS * 1000)) == 0
    }

    fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// How far `due` lies after `now`. More than `most` cannot be: that is a moment long ago, and the clock has wrapped since.
const fn ahead(due: u64, now: u64, most: u64) -> u64 {
    let ahead = due.wrapping_sub(now);
    if due == 0 || ahead > most.saturating_add(SKEW_MS << 32) { 0 } else { ahead }
}

/// Limits of one client network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Flows at a time.
    pub connections: Option<u32>,
    /// New flows.
    pub rate: Option<Rate>,
}

/// What became of a client's new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is within the limits, and was counted.
    Admitted,
    /// There is no room to count it.
    NoRoom,
    /// The network has as many flows as it may have.
    Connections,
    /// The network makes flows faster than it may.
    Rate,
}

/// Most flows of one network that can be counted.
pub const MOST_PER_CLIENT: u32 = (1 << COUNT_BITS) - 1;

const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// The entry is being put in: nobody may count there yet.
const PENDING: u64 = 1 << COUNT_BITS;
const TAG: u64 = !(COUNT | PENDING);

/// Entries in which a network may be.
const WAYS: usize = 8;

/// How often a worker begins anew because others put in the same network at the same moment.
const TRIES: usize = 16;

/// A client network: 32 bytes, two to a cache line.
#[derive(Debug, Default)]
#[repr(align(32))]
struct Slot {
    /// Tag of the network, [`PENDING`], number of its flows; 0: free. All that must change together is in this word.
    word: AtomicU64,
    rate: Bucket,
    /// Number of the [`Tally`] that the network is counted for.
    tally: AtomicU32,
}

const _: () = assert!(size_of::<Slot>() == 32);

/// Client networks that are counted, for all services: a table of fixed size that all workers share.
///
/// A network lies in one of [`WAYS`] entries, by a hash under secret seeds: nobody can aim networks at one place. What has no
/// flow and all of its burst gives way to others. Where nothing does, a flow is not counted.
#[derive(Debug)]
pub struct Clients {
    slots: Box<[Slot]>,
    seeds: Seeds,
}

/// A network of a service, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    hash: u64,
    tally: u32,
}

impl Network {
    fn tag(self) -> u64 {
        let tag = self.hash << (COUNT_BITS + 1);
        // No network looks like a free entry.
        if tag == 0 { 1 << (COUNT_BITS + 1) } else { tag }
    }
}

impl Clients {
    /// Room for `capacity` networks.
    pub fn new(capacity: usize, seeds: Seeds) -> Clients {
        let groups = capacity.div_ceil(WAYS).max(1);
        let slots = (0..groups * WAYS).map(|_| Slot::default()).collect();
        Clients { slots, seeds }
    }

    /// The network of an address, `prefix` bits long, as the tally of this number counts it. IPv4 addresses in the low 32 bits.
    pub fn network(&self, tally: u32, address: std::net::IpAddr, prefix: u8) -> Network {
        let (bits, width) = match address {
            std::net::IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            std::net::IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let host = width - u32::from(prefix).min(width);
        let network = bits.checked_shr(host).unwrap_or(0);
        let key = KeyV6 {
            source: [network as u64, (network >> 64) as u64],
            destination: [u64::from(tally), u64::from(prefix)],
            ports: 0,
            protocol: width as u8,
        };
        Network { hash: FlowV6::hash(&key, &self.seeds), tally }
    }

    fn group(&self, network: Network) -> &[Slot] {
        let groups = (self.slots.len() / WAYS) as u64;
        let at = (((network.hash >> 32) * groups) >> 32) as usize * WAYS;
        &self.slots[at..at + WAYS]
    }

    /// Judges a new flow of a network and counts it. `alive` tells whether a tally is still somebody's.
    pub fn admit(&self, network: Network, limits: ClientLimits, now: u32, alive: impl Fn(u32) -> bool) -> Admission {
        let most = limits.connections.unwrap_or(MOST_PER_CLIENT);
        let slot = match self.open(network, most, now, &alive) {
            Ok(slot) => slot,
            Err(why) => return why,
        };
        // Counted: so the entry stays this network's while its bucket is looked at.
        let within = limits.rate.is_none_or(|rate| slot.rate.take(rate, now));
        if !within || limits.connections.is_none() {
            close(slot, network.tag());
        }
        if within { Admission::Admitted } else { Admission::Rate }
    }

    /// Counts a flow that is there already, whatever the limit. `false`: there is no room.
    pub fn add(&self, network: Network, now: u32, alive: impl Fn(u32) -> bool) -> bool {
        self.open(network, MOST_PER_CLIENT, now, &alive).is_ok()
    }

    /// Counts one flow less.
    pub fn give(&self, network: Network) {
        if let Some(slot) = self.group(network).iter().find(|slot| is_of(slot.word.load(SeqCst), network.tag())) {
            close(slot, network.tag());
        }
    }

    /// Takes back what [`Clients::admit`] counted for a flow that was not made after all.
    pub fn give_up(&self, network: Network, limits: ClientLimits) {
        if let Some(slot) = self.group(network).iter().find(|slot| is_of(slot.word.load(SeqCst), network.tag())) {
            if let Some(rate) = limits.rate {
                slot.rate.give_back(rate);
            }
            if limits.connections.is_some() {
                close(slot, network.tag());
            }
        }
    }

    /// What [`Clients::admit`] would say to a network that is counted already; counts nothing. One that is not is admitted
    /// where there is room, of which this says nothing.
    pub fn judge(&self, network: Network, limits: ClientLimits, now: u32) -> Admission {
        let known = self.group(network).iter().find(|slot| is_of(slot.word.load(SeqCst), network.tag()));
        let Some(slot) = known else { return Admission::Admitted };
        let count = slot.word.load(SeqCst) & COUNT;
        if count >= u64::from(limits.connections.unwrap_or(MOST_PER_CLIENT)) {
            Admission::Connections
        } else if limits.rate.is_some_and(|rate| !slot.rate.has(rate, now)) {
            Admission::Rate
        } else {
            Admission::Admitted
        }
    }

    /// Flows of a network now.
    pub fn count(&self, network: Network) -> u32 {
        let words = self.group(network).iter().map(|slot| slot.word.load(SeqCst));
        words.filter(|word| is_of(*word, network.tag())).map(|word| (word & COUNT) as u32).sum()
    }

    /// Networks that it has room for.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Networks with flows now, and the flows of all of them, for the tallies that are meant. Looks at every entry.
    pub fn totals(&self, meant: impl Fn(u32) -> bool) -> (u64, u64) {
        let slots = self.slots.iter().filter(|slot| meant(slot.tally.load(Relaxed)));
        let words = slots.map(|slot| slot.word.load(Relaxed)).filter(|word| word & PENDING == 0);
        let counts = words.map(|word| word & COUNT).filter(|count| *count > 0);
        counts.fold((0, 0), |(networks, flows), count| (networks + 1, flows + count))
    }

    /// Counts a flow in the network's entry, which is put in where it is missing.
    fn open(&self, network: Network, most: u32, now: u32, alive: &impl Fn(u32) -> bool) -> Result<&Slot, Admission> {
        let (group, tag) = (self.group(network), network.tag());
        for _ in 0..TRIES {
            if let Some(slot) = group.iter().find(|slot| is_of(slot.word.load(SeqCst), tag)) {
                let more = |word: u64| (is_of(word, tag) && word & COUNT < u64::from(most)).then(|| word + 1);
                match slot.word.fetch_update(SeqCst, SeqCst, more) {
                    Ok(_) => return Ok(slot),
                    Err(word) if is_of(word, tag) => return Err(Admission::Connections),
                    // It gave way at the same moment.
                    Err(_) => continue,
                }
            }
            let given = group.iter().find_map(|slot| {
                let word = slot.word.load(SeqCst);
                let idle = || word & COUNT == 0 && slot.rate.is_full(now);
                let gives_way = word == 0 || word & PENDING == 0 && (idle() || !alive(slot.tally.load(Relaxed)));
                gives_way.then_some((slot, word))
            });
            let Some((slot, old)) = given else {
                // What another worker puts in at this moment may be this very network.
                if group.iter().any(|slot| slot.word.load(SeqCst) & PENDING != 0) {
                    std::hint::spin_loop();
                    continue;
                }
                return Err(Admission::NoRoom);
            };
            if put_in(group, slot, old, network) {
                return Ok(slot);
            }
        }
        Err(Admission::NoRoom)
    }
}

/// Puts a network into an entry whose word is `old`, with one flow. `false`: another worker was first, there or with the
/// same network.
///
/// Two workers may put in the same network at different entries at once. So an entry is pending at first; who has written
/// his looks for others of the same network, throws out those that are pending, and gives up his own where one is in. Of
/// two, one sees the other's: both write before they look, and all of it is sequentially consistent.
fn put_in(group: &[Slot], slot: &Slot, old: u64, network: Network) -> bool {
    let tag = network.tag();
    let pending = tag | PENDING;
    if slot.word.compare_exchange(old, pending, SeqCst, SeqCst).is_err() {
        return false;
    }
    slot.rate.reset();
    slot.tally.store(network.tally, Relaxed);
    for other in group.iter().filter(|other| !std::ptr::eq(*other, slot)) {
        let mut word = other.word.load(SeqCst);
        if word == pending {
            // Its owner frees it: he may be writing to it.
            word = other.word.compare_exchange(pending, PENDING, SeqCst, SeqCst).err().unwrap_or(PENDING);
        }
        if is_of(word, tag) {
            slot.word.store(0, SeqCst);
            return false;
        }
    }
    let is_in = slot.word.compare_exchange(pending, tag | 1, SeqCst, SeqCst).is_ok();
    if !is_in {
        slot.word.store(0, SeqCst);
    }
    is_in
}

/// Whether this is the word of an entry that a network is in.
const fn is_of(word: u64, tag: u64) -> bool {
    word & (TAG | PENDING) == tag
}

fn close(slot: &Slot, tag: u64) {
    let less = |word: u64| (is_of(word, tag) && word & COUNT > 0).then(|| word - 1);
    let _ = slot.word.fetch_update(SeqCst, SeqCst, less);
}

/// What a service counts for its limits. A new one takes its place where what is counted changes.
#[derive(Debug, Default)]
pub struct Tally {
    /// Its number, by which the clients' table tells services apart; never 0 once it is in use.
    pub id: u32,
    /// Flows of the service, where these are limited.
    pub flows: Gauge,
    /// New flows that a limit refused.
    pub refused: AtomicU64,
}

#[cfg(test)]
mod tests;
