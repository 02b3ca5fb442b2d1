//! The pure pipeline: a batch of frames in, a verdict for each out, frames rewritten in place.
//!
//! Owns a worker's flow tables and the order of decisions. Never sends, sleeps, locks, logs, allocates or reads a
//! clock. Cache misses are the cost of a large flow table, so a batch is parsed and its buckets prefetched before the
//! first lookup waits for memory.

mod admission;
mod choose;
mod cookie_path;
mod family;
mod fate;
mod flow_path;
mod fragment_path;
mod kit;
mod listing;
mod new_flow;
mod other_path;
mod passive;
mod path_error;
mod plain;
mod plain_methods;
mod refusal;
mod send;

use std::sync::Arc;

use super::director::Director;
use super::directory::Peers;
use super::flow::state::State;
use super::flow::{Budget, FlowTable, FlowV4, FlowV6, Flows, Ident, Seeds};
use super::fragment::FragmentTable;
use super::icmp::Limiter;
use super::io::{BATCH, Frame, FrameMemory};
use super::last_hop::LastHops;
use super::parse::{self, Kind, Parsed, Part, SCTP, TCP};
use super::ports::PortPool;
use super::snapshot::{Port, ServerEntry, Snapshot, slot_of};
use super::split::MOST_PIECES;
use super::stats::WorkerStats;
use super::syn_cookie::slab::Slab;
use super::verdict::{DropReason, Outcome, Verdict};
use crate::model::{EngineSettings, HugePages, PortRange, VerifyChecksums};
use cookie_path::Meter;
use family::{Family, word64};
use kit::Kit;
use listing::Clerk;
pub use listing::Effort;

/// What the first pass found out about a frame that is not plain.
#[derive(Clone, Copy)]
struct Slot {
    parsed: Result<Parsed, DropReason>,
    hash: u64,
}

/// What the first pass found out about a plain packet; `home` is [`NOT_PLAIN`] for any other frame.
#[derive(Clone, Copy, Default)]
struct Lane {
    /// Identity of an IPv4 flow; of an IPv6 flow only the ports and the protocol.
    ident: Ident,
    home: u32,
    total: u16,
    tcp_flags: u8,
    tcp: bool,
    v6: bool,
}

const NOT_PLAIN: u32 = u32::MAX;

/// What the paths of both families share.
struct Context<'a> {
    snapshot: &'a Snapshot,
    stats: &'a WorkerStats,
    verify: VerifyChecksums,
    director: &'a Director,
    now: u32,
}

/// A worker's flow tables and counters, and the way of a packet through them.
pub struct Pipeline {
    v4: Flows<FlowV4>,
    v6: Flows<FlowV6>,
    director: Arc<Director>,
    lanes: Box<[Lane; BATCH]>,
    slots: Box<[Slot; BATCH]>,
    stats: Arc<WorkerStats>,
    verify: VerifyChecksums,
    kit: Kit,
    local_ports: PortRange,
    /// Which of the four tables is being swept.
    sweeping: u8,
    clerk: Clerk,
}

/// What a worker's flows and fragments hold at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Flows whose answers go back to where the client's packets came from: as many as have two entries.
    pub last_hops: u64,
    /// Local ports of full NAT in use, over all local addresses.
    pub local_ports: u64,
    /// Local addresses that lost their slot to others: flows of them may be left for one sweep, and their ports are not counted.
    pub ending: u64,
    /// Fragments that wait for their first one.
    pub waiting: u64,
    /// Flows that were opened by a SYN cookie.
    pub spliced: u64,
}

/// Most frames that a batch can bring forth besides its own.
pub const MAX_EXTRA: usize = 16 * BATCH;

impl Pipeline {
    /// A pipeline with empty flow tables of the configured capacity, and a director of its own.
    ///
    /// # Errors
    /// The kernel has not that much memory.
    pub fn new(settings: &EngineSettings, seeds: Seeds, stats: Arc<WorkerStats>) -> std::io::Result<Self> {
        Pipeline::within(Arc::new(Director::new(settings, seeds)), settings, seeds, stats)
    }

    /// A pipeline that is part of a director which others know, too.
    ///
    /// # Errors
    /// The kernel has not that much memory.
    pub fn within(
        director: Arc<Director>,
        settings: &EngineSettings,
        seeds: Seeds,
        stats: Arc<WorkerStats>,
    ) -> std::io::Result<Self> {
        let huge = settings.huge_pages != HugePages::Never;
        let empty = Slot { parsed: Err(DropReason::Truncated), hash: 0 };
        Ok(Pipeline {
            v4: Flows::new(settings.flows as usize, settings.unproven as usize, seeds, huge)?,
            v6: Flows::new(settings.flows_ipv6 as usize, settings.unproven_ipv6 as usize, seeds, huge)?,
            director: director.clone(),
            lanes: Box::new([Lane::default(); BATCH]),
            slots: Box::new([empty; BATCH]),
            stats,
            verify: settings.verify_checksums,
            local_ports: settings.local_ports,
            sweeping: 0,
            clerk: Clerk::default(),
            kit: Kit {
                hops: LastHops::default(),
                extra: Vec::with_capacity(MAX_EXTRA),
                peers: None,
                fragments: FragmentTable::new(
                    settings.fragments as usize,
                    settings.fragments_waiting as usize,
                    settings.frame_size as usize,
                    settings.fragment_wait_ms,
                    seeds,
                ),
                pieces: Vec::with_capacity(MOST_PIECES),
                ports: PortPool::new(settings.local_addresses as usize, settings.local_ports, 0, 1),
                locals: vec![None; settings.local_addresses as usize],
                ending: Vec::with_capacity(settings.local_addresses as usize),
                ending_left: 0,
                generation: 0,
                changes: 0,
                partial: false,
                limiter: Limiter::default(),
                next_id: 0,
                next_id_v6: 0,
                random: seeds.0[3] as u32 | 1,
                splices: Slab::new(settings.cookie_flows as usize, huge)?,
                meter: Meter::default(),
                director,
            },
        })
    }

    /// What it shares with other workers.
    pub fn director(&self) -> &Arc<Director> {
        &self.director
    }

    /// Makes it one of several workers, which know each other's flows by their directory.
    pub fn join(&mut self, peers: Peers) {
        let (slots, range) = (self.kit.locals.len(), self.local_ports);
        self.kit.ports = PortPool::new(slots, range, peers.me, peers.count);
        // Fragments of two workers' outer packets towards one server should differ in their identification.
        self.kit.next_id = (u32::from(peers.me) * 0x1_0000 / u32::from(peers.count.max(1))) as u16;
        self.kit.next_id_v6 = u32::from(peers.me) << 24;
        self.kit.random = (self.kit.random ^ u32::from(peers.me).wrapping_mul(0x9e37_79b1)) | 1;
        self.kit.peers = Some(peers);
    }

    /// Whether the last batch brought forth frames besides its own.
    #[inline]
    pub fn has_extra(&self) -> bool {
        !self.kit.extra.is_empty()
    }

    /// Takes the frames that the last batch brought forth besides its own, into `frames` and `outcomes`, and returns how
    /// many; to be called until it returns 0. They are acted upon and settled like those of a batch.
    pub fn take_extra(&mut self, frames: &mut [Frame], outcomes: &mut [Outcome]) -> usize {
        let count = self.kit.extra.len().min(frames.len()).min(outcomes.len());
        for (at, (frame, outcome)) in self.kit.extra.drain(..count).enumerate() {
            frames[at] = frame;
            outcomes[at] = outcome;
        }
        count
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }

    /// The flow tables, for listing.
    pub fn tables(&self) -> (&Flows<FlowV4>, &Flows<FlowV6>) {
        (&self.v4, &self.v6)
    }

    /// Decides for each of at most [`BATCH`] frames and rewrites those that are forwarded or answered.
    ///
    /// `now` is in milliseconds and may wrap. `outcomes` must be as long as `frames`; what does not fit is ignored.
    /// Drops are not counted here but by whoever acts on the outcome ([`Pipeline::settle`]).
    pub fn process<M: FrameMemory>(
        &mut self,
        snapshot: &Snapshot,
        memory: &mut M,
        frames: &mut [Frame],
        outcomes: &mut [Outcome],
        now: u32,
    ) {
        let count = frames.len().min(BATCH).min(outcomes.len());
        if snapshot.generation != self.kit.generation {
            self.follow(snapshot, now);
        }
        if snapshot.ownership.changes() != self.kit.changes {
            self.kit.look_at_masters(snapshot);
        }
        let partial = self.kit.partial;
        let (frames, outcomes) = (&mut frames[..count], &mut outcomes[..count]);
        let (tables, slots) = (Tables { v4: &self.v4, v6: &self.v6 }, &mut self.slots[..]);
        for ((frame, lane), slot) in frames.iter().zip(&mut self.lanes[..]).zip(&mut *slots) {
            let bytes = memory.bytes(frame);
            *lane = tables.inspect(&snapshot.ports, frame, bytes);
            if lane.home == NOT_PLAIN {
                *slot = tables.inspect_other(frame, bytes);
            }
        }
        if snapshot.has_full_nat {
            approach_partners(tables, memory, frames, &self.lanes[..]);
        }
        let context = Context { snapshot, stats: &self.stats, verify: self.verify, director: &self.director, now };
        for (((frame, outcome), lane), slot) in frames.iter_mut().zip(outcomes).zip(&self.lanes[..]).zip(slots) {
            let hit = if partial && context.is_anothers(memory.bytes(frame)) {
                Some(Outcome::drop(DropReason::NotMaster))
            } else if lane.v6 {
                context.plain_hit_v6(&mut self.v6.proven, &mut self.kit, memory, frame, lane)
            } else {
                context.plain_hit_v4(&mut self.v4.proven, &mut self.kit, memory, frame, lane)
            };
            *outcome = match hit {
                Some(outcome) => outcome,
                None => {
                    if lane.home != NOT_PLAIN {
                        *slot = Tables { v4: &self.v4, v6: &self.v6 }.inspect_other(frame, memory.bytes(frame));
                    }
                    context.any_packet(&mut self.v4, &mut self.v6, &mut self.kit, memory, frame, *slot)
                }
            };
        }
    }

    /// Takes over a new snapshot. Flows that are counted in another way than before, by a service's first limit on connections or
    /// another length of its clients' networks, are counted anew at the cost of a look at both tables: few operators ever see that.
    /// So are flows whose service went or left its group taken away from persistent clients.
    #[cold]
    fn follow(&mut self, snapshot: &Snapshot, now: u32) {
        let generation = self.kit.generation;
        if choose::has_departed(snapshot, generation) {
            choose::depart(&mut self.v4, snapshot, &self.director, generation, now);
            choose::depart(&mut self.v6, snapshot, &self.director, generation, now);
        }
        if admission::is_stale(snapshot, generation) {
            admission::recount(&mut self.v4, snapshot, &self.director, generation, now);
            admission::recount(&mut self.v6, snapshot, &self.director, generation, now);
        }
        self.kit.follow(snapshot, self.sweep_length());
    }

    /// Counts a batch's outcomes once they were acted upon (a transmission may have turned into a drop).
    pub fn settle(&self, outcomes: &[Outcome]) {
        let forwarded = outcomes.iter().filter(|o| matches!(o.verdict, Verdict::Tx(_))).count();
        self.stats.frames.add(outcomes.len() as u64);
        self.stats.forwarded.add(forwarded as u64);
        self.stats.batches.add(1);
        if forwarded < outcomes.len() {
            self.settle_others(outcomes);
        }
    }

    #[cold]
    fn settle_others(&self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            match outcome.verdict {
                Verdict::Tx(_) => {}
                Verdict::Reply(_) => self.stats.replies.add(1),
                Verdict::Pass => self.stats.passed.add(1),
                Verdict::Hand(_) => self.stats.handed.add(1),
                Verdict::Kept => self.stats.kept.add(1),
                Verdict::Drop(reason) => self.stats.count_drop(reason),
            }
        }
    }

    /// Ends flows that outlived their timeout, looking at the next `buckets` buckets of the flow tables, at most at all of them.
    pub fn sweep(&mut self, snapshot: &Snapshot, buckets: usize, now: u32) {
        self.sweep_some(snapshot, Budget { buckets, flows: usize::MAX }, now);
    }

    /// The same, but it stops when so many flows ended, too. Returns how many buckets it has looked at.
    pub fn sweep_some(&mut self, snapshot: &Snapshot, budget: Budget, now: u32) -> usize {
        if snapshot.generation != self.kit.generation {
            self.follow(snapshot, now);
        }
        let most = Budget { buckets: budget.buckets.min(self.sweep_length()), ..budget };
        let (mut left, mut ended) = (most, 0);
        while left.buckets > 0 && left.flows > 0 {
            let (kit, stats, left, ended) = (&mut self.kit, &*self.stats, &mut left, &mut ended);
            let through = match self.sweeping {
                0 => sweep_table(&mut self.v4.proven, kit, snapshot, stats, left, now, ended),
                1 => sweep_table(&mut self.v4.unproven, kit, snapshot, stats, left, now, ended),
                2 => sweep_table(&mut self.v6.proven, kit, snapshot, stats, left, now, ended),
                _ => sweep_table(&mut self.v6.unproven, kit, snapshot, stats, left, now, ended),
            };
            self.sweeping = (self.sweeping + u8::from(through)) % 4;
        }
        if ended > 0 {
            self.stats.expired.add(ended);
        }
        let swept = most.buckets - left.buckets;
        self.kit.swept(swept, snapshot);
        self.director.guard.settle(now);
        let (templates, length) = (&self.director.templates, self.sweep_length().max(1));
        templates.sweep((templates.slots() * swept).div_ceil(length), now);
        self.publish();
        swept
    }

    /// Touches every page of the flow tables, so that no packet pays for a page fault. Called once, by a worker that
    /// is about to start.
    pub fn prefault(&mut self) {
        self.v4.prefault();
        self.v6.prefault();
        self.kit.fragments.prefault();
        self.kit.splices.prefault();
    }

    /// Publishes the flow tables' fill.
    fn publish(&self) {
        self.stats.flows_v4.set(self.v4.len() as u64);
        self.stats.flows_v6.set(self.v6.len() as u64);
        self.stats.unproven.set((self.v4.unproven.len() + self.v6.unproven.len()) as u64);
        self.stats.cookie_flows.set(u64::from(self.kit.splices.used()));
        self.stats.local_ports.set(u64::from(self.kit.ports.taken()));
    }

    /// What flows and fragments hold: nothing once all have ended. Looks at every last hop.
    pub fn holdings(&self) -> Holdings {
        Holdings {
            last_hops: self.kit.hops.flows(),
            local_ports: u64::from(self.kit.ports.taken()),
            ending: self.kit.ending.len() as u64,
            waiting: self.kit.fragments.waiting() as u64,
            spliced: u64::from(self.kit.splices.used()),
        }
    }

    /// Buckets of all flow tables, for pacing [`Pipeline::sweep`].
    pub fn sweep_length(&self) -> usize {
        self.v4.buckets() + self.v6.buckets()
    }
}

/// A piece of the sweep over one table. Returns whether it reached its end.
fn sweep_table<E: Family>(
    table: &mut FlowTable<E>,
    kit: &mut Kit,
    snapshot: &Snapshot,
    stats: &WorkerStats,
    budget: &mut Budget,
    now: u32,
    ended: &mut u64,
) -> bool {
    // Lent out for as long as the closures live; nothing is allocated.
    let ending = std::mem::take(&mut kit.ending);
    let ends = |entry: &E| !ending.is_empty() && kit::asks_from(entry, &ending);
    let through = table.sweep_some(budget, now, snapshot, ends, |gone| {
        passive::expired(stats, &gone);
        kit.close(snapshot, &gone, now);
        *ended += 1;
    });
    kit.ending = ending;
    through
}

/// The flow tables as the first pass sees them.
#[derive(Clone, Copy)]
struct Tables<'a> {
    v4: &'a Flows<FlowV4>,
    v6: &'a Flows<FlowV6>,
}

impl Tables<'_> {
    /// First pass: parse, hash, prefetch.
    #[inline(always)]
    fn inspect(self, ports: &[Port], frame: &Frame, bytes: &[u8]) -> Lane {
        // A frame that is not addressed to us, or was sent by us, takes the long way, which says so. So does SCTP,
        // whose states need a look at its chunks.
        match parse::plain_v4(bytes) {
            Some(plain) if plain.protocol != SCTP && !is_foreign(ports, frame, bytes) => {
                let ident = Ident::new(plain.addresses, plain.ports, plain.protocol);
                let home = self.v4.proven.approach(ident);
                Lane {
                    ident,
                    home,
                    total: plain.total,
                    tcp_flags: plain.tcp_flags,
                    tcp: plain.protocol == TCP,
                    v6: false,
                }
            }
            Some(_) => Lane { home: NOT_PLAIN, ..Lane::default() },
            None => self.inspect_v6(ports, frame, bytes),
        }
    }

    #[inline(always)]
    fn inspect_v6(self, ports: &[Port], frame: &Frame, bytes: &[u8]) -> Lane {
        match parse::plain_v6(bytes) {
            Some(plain) if !is_foreign(ports, frame, bytes) => {
                let ident = Ident::new(0, plain.ports, plain.protocol);
                let home = match plain::key_v6(bytes, ident) {
                    Some(key) => self.v6.proven.approach(&key),
                    None => NOT_PLAIN,
                };
                Lane {
                    ident,
                    home,
                    total: plain.total,
                    tcp_flags: plain.tcp_flags,
                    tcp: plain.protocol == TCP,
                    v6: true,
                }
            }
            _ => Lane { home: NOT_PLAIN, ..Lane::default() },
        }
    }

    #[inline(never)]
    fn inspect_other(self, frame: &Frame, bytes: &[u8]) -> Slot {
        let parsed = parse::parse(bytes);
        let mut hash = 0;
        if let Ok(parsed) = &parsed {
            if parsed.kind == Kind::Flow6 {
                hash = FlowV6::key_of(bytes, parsed, frame.hint).map_or(0, |key| self.v6.hash(&key));
                self.v6.prefetch(hash);
            } else if parsed.kind == Kind::Flow4 {
                hash = FlowV4::key_of(bytes, parsed, frame.hint).map_or(0, |key| self.v4.hash(&key));
                self.v4.prefetch(hash);
            }
        }
        Slot { parsed, hash }
    }
}

/// Full NAT reads both entries of a flow: once the first has come from memory, asks the CPU for the second.
#[inline(never)]
fn approach_partners<M: FrameMemory>(tables: Tables<'_>, memory: &M, frames: &[Frame], lanes: &[Lane]) {
    for (frame, lane) in frames.iter().zip(lanes).filter(|(_, lane)| lane.home != NOT_PLAIN) {
        if !lane.v6 {
            tables.v4.proven.approach_partner(&lane.ident.key(), lane.home);
        } else if let Some(key) = plain::key_v6(memory.bytes(frame), lane.ident) {
            tables.v6.proven.approach_partner(&key, lane.home);
        }
    }
}

/// Whether a frame's Ethernet addresses say that it is not for the appliance.
#[inline(always)]
fn is_foreign(ports: &[Port], frame: &Frame, bytes: &[u8]) -> bool {
    let (Some(port), Some(head)) = (ports.get(usize::from(frame.port)), bytes.first_chunk::<16>()) else {
        return true;
    };
    port.is_own(word64(&head[6..14])) || !port.accepts(word64(&head[..8]))
}

impl Context<'_> {
    /// The long way for any frame.
    #[inline(never)]
    fn any_packet<M: FrameMemory>(
        &self,
        v4: &mut Flows<FlowV4>,
        v6: &mut Flows<FlowV6>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        slot: Slot,
    ) -> Outcome {
        match slot.parsed {
            Ok(parsed) if parsed.part != Part::Whole => self.fragment_packet(v4, v6, kit, memory, frame, &parsed),
            Ok(parsed) if parsed.kind == Kind::Flow4 => self.flow_packet(v4, kit, memory, frame, &parsed, slot.hash),
            Ok(parsed) if parsed.kind == Kind::Flow6 => self.flow_packet(v6, kit, memory, frame, &parsed, slot.hash),
            Ok(parsed) => self.other_packet(v4, v6, kit, memory, frame, &parsed),
            Err(reason) => self.broken_packet(memory.bytes(frame), reason),
        }
    }

    /// Whether a packet is for an address of which another appliance is master.
    #[inline(never)]
    fn is_anothers(&self, bytes: &[u8]) -> bool {
        parse::destination(bytes).is_some_and(|address| self.snapshot.ownership.is_anothers(address))
    }

    /// Why a frame is not the appliance's to forward, by its Ethernet addresses.
    #[inline(always)]
    fn foreign(&self, bytes: &[u8], frame: &Frame) -> Option<DropReason> {
        let port = self.snapshot.ports.get(usize::from(frame.port))?;
        let head: &[u8; 16] = bytes.first_chunk()?;
        let destination = word64(&head[..8]);
        let source = word64(&head[6..14]);
        if port.is_own(source) {
            return Some(DropReason::Loop);
        }
        if !port.accepts(destination) {
            return Some(DropReason::WrongMac);
        }
        None
    }

    #[cold]
    fn not_for_our_mac<E: Family>(&self, key: &E::Key, reason: DropReason) -> Outcome {
        if self.snapshot.owns(E::destination(key)) { Outcome::drop(reason) } else { Outcome::plain(Verdict::Pass) }
    }

    #[inline(always)]
    fn count(&self, server: &ServerEntry, bytes: u32) {
        if let Some(counters) = self.stats.servers.get(slot_of(server.id)) {
            counters.packets.add(1);
            counters.bytes.add(u64::from(bytes));
        }
    }

    #[cold]
    fn state_changed(&self, id: u32, before: State, after: State) {
        if before.is_active() != after.is_active()
            && let Some(load) = self.snapshot.load(id)
        {
            load.shift(after.is_active());
        }
    }
}

#[cfg(test)]
mod tests;
