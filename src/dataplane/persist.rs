//! Persistence: which real server a client had, for all workers and all services of a group.
//!
//! Owns the table of templates (IPVS's word for them): who has one, for how long, and how many flows are under it. Never
//! chooses a server itself and never reads a clock.
//!
//! The memory is fixed at the start and shared without locks. A template lies in one of two buckets of eight slots, which its
//! fingerprint under secret seeds names, so nobody can aim clients at one bucket. Server, flows and a generation are one word
//! of the slot: whoever changes one of them sees what the others were, and two workers that choose for one client at the same
//! moment agree on the first choice. Life is that of `ip_vs_conn.c`: each new flow begins it anew; one that ends while flows
//! are under it is armed again for 60 s, and stays a template of 60 s from then on.

mod list;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bytemuck::Zeroable;

use super::flow::{Seeds, mix};
use crate::model::Persistence;
use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
pub use list::Template;

/// Seconds for which a template is armed again that ends while flows are under it (`ip_vs_conn_expire`).
pub const REARM_SECONDS: u32 = 60;

/// Longest time of a template, in seconds: half a turn of the clock, and some to spare.
pub const MOST_SECONDS: u32 = 1_000_000;

/// Most templates that a table can be made for: a flow keeps the number of a slot in 24 bits.
pub const MOST_CLIENTS: u32 = 10_000_000;

/// Slots in a bucket: their fingerprints are one cache line.
const WAYS: usize = 8;

/// How often a change is tried again that another worker was in the way of.
const TRIES: usize = 4;

/// How often a worker looks whether another one that puts in the same client has done so.
const WAITS: usize = 1000;

/// Bytes of a Call-ID that are kept for listing.
const TEXT: usize = 88;

/// Who has a template: a client network, or one call of it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'p> {
    unit: u32,
    network: IpAddr,
    prefix: u8,
    call_id: &'p [u8],
}

impl<'p> Subject<'p> {
    /// A client of a service, or of a group, with this unit. `call_id` is empty where clients are told apart by nothing but
    /// their network.
    pub fn new(unit: u32, client: IpAddr, persistence: &Persistence, call_id: &'p [u8]) -> Self {
        let prefix = if client.is_ipv4() { persistence.prefix_v4 } else { persistence.prefix_v6 };
        Subject { unit, network: masked(client, prefix), prefix, call_id }
    }
}

/// An address without the bits behind a prefix.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::from((u32::from(v4) & mask).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::from((u128::from(v6) & mask).to_be_bytes())
        }
    }
}

/// A server whose flows counted for persistent clients otherwise than they do now: its service is gone, left its group, or
/// tells its clients apart in another way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Stable id of the server.
    pub server: u32,
    /// The first snapshot in which that is so.
    pub since: u64,
    /// The unit of the clients.
    pub unit: u32,
    /// How they were told apart.
    pub persistence: Persistence,
}

/// A network as two words.
fn halves(network: IpAddr) -> [u64; 2] {
    let bits = match network {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    [(bits >> 64) as u64, bits as u64]
}

/// Server, flows and generation of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const REAL: u64 = 0xffff_ffff;
    /// The slot is being taken or freed: nobody may join.
    const LEAVING: u64 = 1 << 32;
    /// A flow under it was proven (`IP_VS_CTPL_S_ASSURED`).
    const ASSURED: u64 = 1 << 33;
    /// Counts joins and frees, so that nobody frees a slot that was joined since they looked.
    const TURN: u64 = 1 << 34;
    const TURNS: u64 = 0xff << 34;
    const FLOW: u64 = 1 << 42;
    const MOST_FLOWS: u32 = (1 << 22) - 1;

    /// Number of the real server; 0: none.
    fn real(self) -> u32 {
        (self.0 & Word::REAL) as u32
    }

    fn with_real(self, real: u32) -> Word {
        Word((self.0 & !Word::REAL) | u64::from(real))
    }

    fn flows(self) -> u32 {
        (self.0 >> 42) as u32
    }

    fn is_leaving(self) -> bool {
        self.0 & Word::LEAVING != 0
    }

    fn is_assured(self) -> bool {
        self.0 & Word::ASSURED != 0
    }

    fn next_turn(self) -> Word {
        Word((self.0 & !Word::TURNS) | (self.0.wrapping_add(Word::TURN) & Word::TURNS))
    }
}

/// When a template was renewed (milliseconds, wraps), and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time {
    stamp: u32,
    seconds: u32,
    /// It was armed again while flows were under it, and has [`REARM_SECONDS`] from then on.
    rearmed: bool,
}

impl Time {
    fn unpack(word: u64) -> Time {
        Time { stamp: word as u32, seconds: (word >> 32) as u32 & 0x7fff_ffff, rearmed: word >> 63 != 0 }
    }

    fn pack(self) -> u64 {
        u64::from(self.stamp) | u64::from(self.seconds) << 32 | u64::from(self.rearmed) << 63
    }

    fn length_ms(self) -> u32 {
        if self.rearmed { REARM_SECONDS } else { self.seconds }.saturating_mul(1000)
    }

    /// Milliseconds since it was renewed. Workers read the clock at different times: a stamp may lie a little ahead.
    fn idle_ms(self, now: u32) -> u32 {
        let idle = now.wrapping_sub(self.stamp);
        if idle > u32::MAX / 2 { 0 } else { idle }
    }

    fn is_over(self, now: u32) -> bool {
        self.idle_ms(now) >= self.length_ms()
    }

    /// The same after the alarms that have gone off while flows were under it.
    fn caught_up(self, now: u32) -> Time {
        // One of 0 seconds is not bound yet.
        if self.seconds == 0 || !self.is_over(now) {
            return self;
        }
        let since = (self.idle_ms(now) - self.length_ms()) % (REARM_SECONDS * 1000);
        Time { stamp: now.wrapping_sub(since), rearmed: true, ..self }
    }

    fn left_ms(self, now: u32) -> u32 {
        self.length_ms().saturating_sub(self.idle_ms(now))
    }
}

/// A template's slot. Only the first two words are needed for a choice; the rest is for listing.
#[derive(Debug, Zeroable)]
#[repr(C)]
struct Slot {
    word: AtomicU64,
    time: AtomicU64,
    /// Unit, prefix, family, and length of the Call-ID.
    about: AtomicU64,
    network: [AtomicU64; 2],
    text: [AtomicU64; TEXT / 8],
}

const _: () = assert!(size_of::<Slot>() == 128);

impl Slot {
    fn word(&self) -> Word {
        Word(self.word.load(SeqCst))
    }

    fn swap(&self, old: Word, new: Word) -> Result<(), Word> {
        self.word.compare_exchange(old.0, new.0, SeqCst, SeqCst).map(|_| ()).map_err(Word)
    }

    fn time(&self) -> Time {
        Time::unpack(self.time.load(Acquire))
    }

    fn change_time(&self, change: impl Fn(Time) -> Time) {
        // Whoever was faster has written as good a time.
        let old = self.time();
        let _ = self.time.compare_exchange(old.pack(), change(old).pack(), AcqRel, Relaxed);
    }
}

/// A template that a flow was counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Number of its slot.
    pub slot: u32,
    /// The real server that it names; 0: none yet.
    pub real: u32,
    /// Whether the flow is counted: a template counts four million.
    pub counted: bool,
}

/// Persistent clients and their servers.
#[derive(Debug)]
pub struct Templates {
    /// Fingerprints, by slot; 0 where a slot is free.
    prints: Box<[AtomicU64]>,
    slots: Box<[Slot]>,
    seeds: Seeds,
    capacity: usize,
    used: AtomicUsize,
    sweep_at: AtomicUsize,
    gave_way: AtomicU32,
    refused: AtomicU32,
}

impl Templates {
    /// Room for `capacity` clients: half as many slots again, so that both buckets of a client are hardly ever full before.
    pub fn new(capacity: usize, seeds: Seeds) -> Templates {
        let capacity = capacity.clamp(WAYS, MOST_CLIENTS as usize);
        Templates::with_slots(capacity, (capacity + capacity / 2).next_multiple_of(WAYS), seeds)
    }

    fn with_slots(capacity: usize, slots: usize, seeds: Seeds) -> Templates {
        Templates {
            prints: bytemuck::zeroed_slice_box(slots),
            slots: bytemuck::zeroed_slice_box(slots),
            seeds,
            capacity,
            used: AtomicUsize::new(0),
            sweep_at: AtomicUsize::new(0),
            gave_way: AtomicU32::new(0),
            refused: AtomicU32::new(0),
        }
    }

    /// Touches every page, so that later no packet pays for a page fault.
    pub fn prefault(&self) {
        let words = self.slots.iter().step_by(32).map(|slot| &slot.word);
        for word in self.prints.iter().step_by(512).chain(words) {
            word.fetch_or(0, Relaxed);
        }
    }

    /// Slots in use.
    pub fn len(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Whether no slot is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most clients.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Slots in all, for pacing [`Templates::sweep`].
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Templates that gave way to newer ones before their time (wraps).
    pub fn gave_way(&self) -> u32 {
        self.gave_way.load(Relaxed)
    }

    /// Flows that found no room for a template (wraps).
    pub fn refused(&self) -> u32 {
        self.refused.load(Relaxed)
    }

    fn print(&self, subject: &Subject<'_>) -> u64 {
        let Seeds([a, b, c, d]) = self.seeds;
        let [high, low] = halves(subject.network);
        let family = u64::from(subject.network.is_ipv6());
        let about = u64::from(subject.unit) | u64::from(subject.prefix) << 32 | family << 40;
        let mut call = subject.call_id.len() as u64;
        for piece in subject.call_id.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..piece.len()].copy_from_slice(piece);
            call = mix(call ^ u64::from_le_bytes(bytes) ^ a, d);
        }
        // A print of 0 would be a free slot.
        mix(mix(mix(high ^ a, low ^ b) ^ about ^ d, call ^ c), a).max(1)
    }

    /// The slots where a template can lie, in the order in which they are looked at.
    fn places(&self, print: u64) -> impl Iterator<Item = usize> + use<> {
        let buckets = (self.slots.len() / WAYS) as u64;
        let bucket = |half: u64| ((half * buckets) >> 32) as usize * WAYS;
        let (first, second) = (bucket(print >> 32), bucket(print & 0xffff_ffff));
        (first..first + WAYS).chain(second..if second == first { second } else { second + WAYS })
    }

    fn find(&self, print: u64) -> Option<usize> {
        self.places(print).find(|at| self.prints[*at].load(SeqCst) == print && !self.slots[*at].word().is_leaving())
    }

    /// The real server that a client has now; changes nothing.
    pub fn peek(&self, subject: &Subject<'_>, now: u32) -> Option<u32> {
        let slot = &self.slots[self.find(self.print(subject))?];
        let word = slot.word();
        let holds = word.real() != 0 && (word.flows() > 0 || !slot.time().is_over(now));
        holds.then(|| word.real())
    }

    /// Counts a flow under a client's template, which is made where there is none. `None`: there is no room for it.
    pub fn join(&self, subject: &Subject<'_>, now: u32) -> Option<Joined> {
        let print = self.print(subject);
        for _ in 0..TRIES {
            let Some(at) = self.find(print).or_else(|| self.claim(print, subject, now)) else { break };
            if let Some(joined) = self.count_in(at, print, now) {
                return Some(joined);
            }
        }
        self.refused.fetch_add(1, Relaxed);
        None
    }

    fn count_in(&self, at: usize, print: u64, now: u32) -> Option<Joined> {
        let slot = &self.slots[at];
        let mut word = slot.word();
        loop {
            if word.is_leaving() {
                return None;
            }
            let counted = word.flows() < Word::MOST_FLOWS;
            let mut new = word.next_turn();
            if word.flows() > 0 {
                slot.change_time(|time| time.caught_up(now));
            } else if slot.time().is_over(now) {
                new = Word(new.with_real(0).0 & !Word::ASSURED);
            }
            new.0 += if counted { Word::FLOW } else { 0 };
            match slot.swap(word, new) {
                Ok(()) if self.prints[at].load(SeqCst) == print => {
                    return Some(Joined { slot: at as u32, real: new.real(), counted });
                }
                // It was freed between the look at the print and the one at the word.
                Ok(()) => {
                    if counted {
                        self.count_out(slot);
                    }
                    return None;
                }
                Err(other) => word = other,
            }
        }
    }

    /// Takes a flow away again; what the slot is then.
    fn count_out(&self, slot: &Slot) -> Word {
        let mut word = slot.word();
        while word.flows() > 0 && !word.is_leaving() {
            let new = Word(word.0 - Word::FLOW);
            match slot.swap(word, new) {
                Ok(()) => return new,
                Err(other) => word = other,
            }
        }
        word
    }

    /// Begins a template's time anew, for a flow that was counted under it.
    pub fn renew(&self, joined: &Joined, seconds: u32, now: u32) {
        if let Some(slot) = self.slots.get(joined.slot as usize) {
            slot.change_time(|time| Time { stamp: now, seconds, rearmed: time.rearmed });
        }
    }

    /// Gives a template the server that was chosen for its client, unless another worker was faster; the server that it has.
    pub fn bind(&self, joined: &Joined, real: u32, seconds: u32, now: u32) -> u32 {
        let Some(slot) = self.slots.get(joined.slot as usize) else { return real };
        let mut word = slot.word();
        loop {
            if word.real() != joined.real {
                return word.real();
            }
            slot.time.store(Time { stamp: now, seconds, rearmed: false }.pack(), Release);
            match slot.swap(word, word.with_real(real)) {
                Ok(()) => return real,
                Err(other) => word = other,
            }
        }
    }

    /// Takes back a choice whose flow was not made after all, unless other flows rely on it already.
    pub fn unbind(&self, slot: u32, real: u32) {
        let Some(slot) = self.slots.get(slot as usize) else { return };
        let word = slot.word();
        if word.real() == real && word.flows() == 1 {
            let _ = slot.swap(word, word.with_real(0));
        }
    }

    /// A flow of the template in a slot ended.
    pub fn leave(&self, slot: u32, now: u32) {
        let at = slot as usize;
        let Some(slot) = self.slots.get(at) else { return };
        if slot.word().flows() == 1 {
            slot.change_time(|time| time.caught_up(now));
        }
        let after = self.count_out(slot);
        if after.flows() == 0 && after.real() == 0 {
            self.free(at, after);
        }
    }

    /// A flow of a client's template was proven: it gives way to others no more while they are not.
    pub fn assure(&self, slot: u32) {
        if let Some(slot) = self.slots.get(slot as usize) {
            slot.word.fetch_or(Word::ASSURED, SeqCst);
        }
    }

    /// The slot of a client's template.
    pub fn slot_of(&self, subject: &Subject<'_>) -> Option<u32> {
        self.find(self.print(subject)).map(|at| at as u32)
    }

    /// What a flow keeps to find its template again, where its key does not tell: never 0.
    pub fn ticket(&self, joined: &Joined) -> u32 {
        let print = self.prints.get(joined.slot as usize).map_or(0, |print| print.load(Relaxed));
        (joined.slot + 1) | (print as u32) << 24
    }

    /// The slot of the template that a ticket was given for, unless another client has it by now.
    pub fn redeem(&self, ticket: u32) -> Option<u32> {
        let slot = (ticket & 0xff_ffff).checked_sub(1)?;
        let print = self.prints.get(slot as usize)?.load(Relaxed);
        (print != 0 && print as u32 & 0xff == ticket >> 24).then_some(slot)
    }

    /// Makes room for a client and takes it.
    fn claim(&self, print: u64, subject: &Subject<'_>, now: u32) -> Option<usize> {
        for _ in 0..TRIES {
            let room = self.len() < self.capacity;
            let free = if room { self.empty(print) } else { None };
            let victim = if free.is_none() { self.victim(print, now) } else { None };
            if let Some((at, word)) = victim {
                let early = word.flows() > 0 || !self.slots[at].time().is_over(now);
                if self.free(at, word) && early && word.real() != 0 {
                    self.gave_way.fetch_add(1, Relaxed);
                }
                continue;
            }
            let at = free.or_else(|| self.empty(print))?;
            let Some(word) = self.reserve(at, print) else { continue };
            if self.is_elsewhere(at, print) {
                self.release(at, word);
                // The one elsewhere may still be on its way in, or give way to a third.
                match (0..WAITS).inspect(|_| std::hint::spin_loop()).find_map(|_| self.find(print)) {
                    Some(first) => return Some(first),
                    None => continue,
                }
            }
            self.slots[at].describe(subject);
            self.slots[at].word.store(word.next_turn().0 & Word::TURNS, SeqCst);
            return Some(at);
        }
        None
    }

    /// Takes a free slot for a print; nobody joins it before its word is free of [`Word::LEAVING`] again.
    fn reserve(&self, at: usize, print: u64) -> Option<Word> {
        let slot = &self.slots[at];
        let word = slot.word();
        // A slot that is taken or freed changes its word: if the word is the same still, the slot is free still.
        if word.is_leaving() || self.prints[at].load(SeqCst) != 0 {
            return None;
        }
        slot.swap(word, Word(word.0 | Word::LEAVING)).ok()?;
        // Unless turns came round while this thread was stopped, and another one has just put a client in.
        if self.prints[at].load(SeqCst) != 0 {
            slot.word.store(word.0, SeqCst);
            return None;
        }
        self.prints[at].store(print, SeqCst);
        self.used.fetch_add(1, Relaxed);
        Some(word)
    }

    /// Whether another slot has this print, or is about to: of two workers that put in one client at the same moment, at
    /// least one sees the other. The one at the earlier place waits, a bounded number of times, for what the other does.
    fn is_elsewhere(&self, at: usize, print: u64) -> bool {
        let mut earlier = true;
        for other in self.places(print) {
            if other == at {
                earlier = false;
                continue;
            }
            let mut waits = 0;
            while self.prints[other].load(SeqCst) == print {
                if earlier || waits == WAITS || !self.slots[other].word().is_leaving() {
                    return true;
                }
                waits += 1;
                std::hint::spin_loop();
            }
        }
        false
    }

    /// A free slot for a new client, in the emptier one of its two buckets.
    fn empty(&self, print: u64) -> Option<usize> {
        let free = |at: &usize| self.prints[*at].load(SeqCst) == 0 && !self.slots[*at].word().is_leaving();
        let room = |part: usize| self.places(print).skip(part * WAYS).take(WAYS).filter(free).count();
        let part = usize::from(room(1) > room(0));
        self.places(print).skip(part * WAYS).find(free)
    }

    /// The template that gives way where there is no free slot: one whose time is over, else the idlest of those of which
    /// nobody knows whether their client is one, else the idlest without flows.
    fn victim(&self, print: u64, now: u32) -> Option<(usize, Word)> {
        let ranked = self.places(print).filter_map(|at| {
            let (word, time) = (self.slots[at].word(), self.slots[at].time());
            let rank = match (word.flows() == 0, word.is_assured()) {
                _ if word.is_leaving() || self.prints[at].load(SeqCst) == 0 => return None,
                (true, _) if word.real() == 0 || time.is_over(now) => 0,
                (_, false) => 1,
                (true, true) => 2,
                (false, true) => return None,
            };
            Some((rank, u32::MAX - time.idle_ms(now), at, word))
        });
        ranked.min_by_key(|(rank, idle, ..)| (*rank, *idle)).map(|(.., at, word)| (at, word))
    }

    /// Frees a slot that is still as it was. Flows that are under it forget it.
    fn free(&self, at: usize, word: Word) -> bool {
        let slot = &self.slots[at];
        if word.is_leaving() || slot.swap(word, Word(word.0 | Word::LEAVING)).is_err() {
            return false;
        }
        self.release(at, word);
        true
    }

    /// Gives back a slot whose word was this before it was marked as [`Word::LEAVING`].
    fn release(&self, at: usize, word: Word) {
        self.prints[at].store(0, SeqCst);
        self.used.fetch_sub(1, Relaxed);
        self.slots[at].time.store(0, Release);
        self.slots[at].word.store(word.next_turn().0 & Word::TURNS, SeqCst);
    }

    /// Looks at the next `budget` slots for templates whose time is over: those without flows go, the others are armed again.
    pub fn sweep(&self, budget: usize, now: u32) {
        let count = self.slots.len();
        let budget = budget.min(count);
        let from = self.sweep_at.fetch_add(budget, Relaxed) % count;
        for at in (from..from + budget).map(|at| at % count).filter(|at| self.prints[*at].load(Relaxed) != 0) {
            let slot = &self.slots[at];
            let word = slot.word();
            if word.flows() > 0 {
                slot.change_time(|time| time.caught_up(now));
            } else if word.real() == 0 || slot.time().is_over(now) {
                self.free(at, word);
            }
        }
    }
}

#[cfg(test)]
mod tests;
