//! The pure pipeline: a batch of frames in, a verdict for each out, frames rewritten in place.
//!
//! Owns a worker's flow tables and the order of decisions. Never sends, sleeps, locks, logs, allocates or reads a
//! clock. Cache misses are the cost of a large flow table, so a batch is parsed and its buckets prefetched before the
//! first lookup waits for memory.

use std::net::IpAddr;
use std::sync::Arc;

use super::answer::{self, Answer};
use super::flow::state::{self, State};
use super::flow::{Entry, FlowTable, FlowV4, FlowV6, Gone, Ident, KeyV4, KeyV6, STAMP_MS, Seeds};
use super::io::{BATCH, Frame, FrameMemory};
use super::parse::{self, Kind, Parsed, SCTP, TCP, tcp_flag};
use super::rewrite;
use super::schedule::{Client, fold_address};
use super::snapshot::{Port, ServerEntry, Snapshot, slot_of};
use super::stats::WorkerStats;
use super::sys;
use super::verdict::{DropReason, Outcome, Verdict};
use crate::model::{EngineSettings, HugePages, VerifyChecksums};

/// Frames whose headers are fetched ahead of the one being parsed.
const AHEAD: usize = 8;

/// What the first pass found out about a frame that is not plain.
#[derive(Clone, Copy)]
struct Slot {
    parsed: Result<Parsed, DropReason>,
    hash: u64,
}

/// What the first pass found out about a plain IPv4 packet; `home` is [`NOT_PLAIN`] for any other frame.
#[derive(Clone, Copy, Default)]
struct Lane {
    ident: Ident,
    home: u32,
    total: u16,
    tcp_flags: u8,
}

const NOT_PLAIN: u32 = u32::MAX;

/// A family's way of reading its key and of telling its client.
trait Family: Entry {
    fn key_of(bytes: &[u8], parsed: &Parsed) -> Option<Self::Key>;
    /// The key of the flow whose server sent the packet at `l3`, with its transport header at `l4`: both reversed.
    fn reverse_key_of(bytes: &[u8], l3: usize, l4: usize, protocol: u8) -> Option<Self::Key>;
    fn source(key: &Self::Key) -> IpAddr;
    fn destination(key: &Self::Key) -> IpAddr;
    /// Source and destination port, host order.
    fn ports(key: &Self::Key) -> (u16, u16);
}

fn word64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b))
}

fn split_ports(ports: u32) -> (u16, u16) {
    let [a, b, c, d] = ports.to_ne_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

impl Family for FlowV4 {
    #[inline(always)]
    fn key_of(bytes: &[u8], parsed: &Parsed) -> Option<KeyV4> {
        let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
        let addresses = u64::from_ne_bytes(*bytes.get(l3 + 12..)?.first_chunk()?);
        let ports = u32::from_ne_bytes(*bytes.get(l4..)?.first_chunk()?);
        Some(KeyV4 { addresses, ports, protocol: parsed.protocol })
    }

    fn reverse_key_of(bytes: &[u8], l3: usize, l4: usize, protocol: u8) -> Option<KeyV4> {
        let addresses = u64::from_ne_bytes(*bytes.get(l3 + 12..)?.first_chunk()?).rotate_left(32);
        let ports = u32::from_ne_bytes(*bytes.get(l4..)?.first_chunk()?).rotate_left(16);
        Some(KeyV4 { addresses, ports, protocol })
    }

    fn source(key: &KeyV4) -> IpAddr {
        let [a, b, c, d, ..] = key.addresses.to_ne_bytes();
        IpAddr::from([a, b, c, d])
    }

    fn destination(key: &KeyV4) -> IpAddr {
        let [.., a, b, c, d] = key.addresses.to_ne_bytes();
        IpAddr::from([a, b, c, d])
    }

    fn ports(key: &KeyV4) -> (u16, u16) {
        split_ports(key.ports)
    }
}

fn address6(words: [u64; 2]) -> IpAddr {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    IpAddr::from(bytes)
}

impl Family for FlowV6 {
    #[inline(always)]
    fn key_of(bytes: &[u8], parsed: &Parsed) -> Option<KeyV6> {
        let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
        let addresses: &[u8; 32] = bytes.get(l3 + 8..)?.first_chunk()?;
        let ports = u32::from_ne_bytes(*bytes.get(l4..)?.first_chunk()?);
        Some(KeyV6 {
            source: [word64(&addresses[..8]), word64(&addresses[8..16])],
            destination: [word64(&addresses[16..24]), word64(&addresses[24..])],
            ports,
            protocol: parsed.protocol,
        })
    }

    fn reverse_key_of(bytes: &[u8], l3: usize, l4: usize, protocol: u8) -> Option<KeyV6> {
        let parsed = Parsed {
            kind: Kind::Flow6,
            protocol,
            tcp_flags: 0,
            tags: 0,
            vlan: parse::NO_VLAN,
            l3: l3 as u16,
            l4: l4 as u16,
            l4_len: 0,
        };
        let key = Self::key_of(bytes, &parsed)?;
        Some(KeyV6 { source: key.destination, destination: key.source, ports: key.ports.rotate_left(16), protocol })
    }

    fn source(key: &KeyV6) -> IpAddr {
        address6(key.source)
    }

    fn destination(key: &KeyV6) -> IpAddr {
        address6(key.destination)
    }

    fn ports(key: &KeyV6) -> (u16, u16) {
        split_ports(key.ports)
    }
}

/// What the paths of both families share.
struct Context<'a> {
    snapshot: &'a Snapshot,
    stats: &'a WorkerStats,
    verify: VerifyChecksums,
    now: u32,
}

/// A worker's flow tables and counters, and the way of a packet through them.
pub struct Pipeline {
    v4: FlowTable<FlowV4>,
    v6: FlowTable<FlowV6>,
    lanes: Box<[Lane; BATCH]>,
    slots: Box<[Slot; BATCH]>,
    stats: Arc<WorkerStats>,
    verify: VerifyChecksums,
}

impl Pipeline {
    /// A pipeline with empty flow tables of the configured capacity.
    ///
    /// # Errors
    /// The kernel has not that much memory.
    pub fn new(settings: &EngineSettings, seeds: Seeds, stats: Arc<WorkerStats>) -> std::io::Result<Self> {
        let huge = settings.huge_pages != HugePages::Never;
        let empty = Slot { parsed: Err(DropReason::Truncated), hash: 0 };
        Ok(Pipeline {
            v4: FlowTable::new(settings.flows as usize, seeds, huge)?,
            v6: FlowTable::new(settings.flows_ipv6 as usize, seeds, huge)?,
            lanes: Box::new([Lane::default(); BATCH]),
            slots: Box::new([empty; BATCH]),
            stats,
            verify: settings.verify_checksums,
        })
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }

    /// The flow tables, for listing.
    pub fn tables(&self) -> (&FlowTable<FlowV4>, &FlowTable<FlowV6>) {
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
        for frame in &frames[..count.min(AHEAD)] {
            fetch(memory, frame);
        }
        for at in 0..count {
            if let Some(frame) = frames.get(at + AHEAD) {
                fetch(memory, frame);
            }
            let bytes = memory.bytes(&frames[at]);
            self.lanes[at] = self.inspect(snapshot, &frames[at], bytes);
            if self.lanes[at].home == NOT_PLAIN {
                self.slots[at] = self.inspect_other(bytes);
            }
        }
        let context = Context { snapshot, stats: &self.stats, verify: self.verify, now };
        for at in 0..count {
            let lane = self.lanes[at];
            let frame = &mut frames[at];
            outcomes[at] = match context.plain_hit(&mut self.v4, memory, frame, &lane) {
                Some(outcome) => outcome,
                None => {
                    if lane.home != NOT_PLAIN {
                        self.slots[at] = self.inspect_other(memory.bytes(frame));
                    }
                    context.any_packet(&mut self.v4, &mut self.v6, memory, frame, self.slots[at])
                }
            };
        }
    }

    /// First pass: parse, hash, prefetch.
    #[inline(always)]
    fn inspect(&self, snapshot: &Snapshot, frame: &Frame, bytes: &[u8]) -> Lane {
        // A frame that is not addressed to us, or was sent by us, takes the long way, which says so. So does SCTP,
        // whose states need a look at its chunks.
        match parse::plain_v4(bytes) {
            Some(plain) if plain.protocol != SCTP && !is_foreign(snapshot, frame, bytes) => {
                let ident = Ident::new(plain.addresses, plain.ports, plain.protocol);
                Lane { ident, home: self.v4.approach(ident), total: plain.total, tcp_flags: plain.tcp_flags }
            }
            _ => Lane { home: NOT_PLAIN, ..Lane::default() },
        }
    }

    #[inline(never)]
    fn inspect_other(&self, bytes: &[u8]) -> Slot {
        let parsed = parse::parse(bytes);
        let mut hash = 0;
        if let Ok(parsed) = &parsed {
            if parsed.kind == Kind::Flow6 {
                hash = FlowV6::key_of(bytes, parsed).map_or(0, |key| self.v6.hash(&key));
                self.v6.prefetch(hash);
            } else if parsed.kind == Kind::Flow4 {
                hash = FlowV4::key_of(bytes, parsed).map_or(0, |key| self.v4.hash(&key));
                self.v4.prefetch(hash);
            }
        }
        Slot { parsed, hash }
    }

    /// Counts a batch's outcomes once they were acted upon (a transmission may have turned into a drop).
    pub fn settle(&self, outcomes: &[Outcome]) {
        let (mut forwarded, mut replies, mut passed) = (0, 0, 0);
        for outcome in outcomes {
            match outcome.verdict {
                Verdict::Tx(_) => forwarded += 1,
                Verdict::Reply(_) => replies += 1,
                Verdict::Pass => passed += 1,
                Verdict::Drop(reason) => self.stats.count_drop(reason),
            }
        }
        self.stats.frames.add(outcomes.len() as u64);
        self.stats.forwarded.add(forwarded);
        self.stats.replies.add(replies);
        self.stats.passed.add(passed);
        self.stats.batches.add(1);
    }

    /// Ends flows that outlived their timeout, looking at `budget` buckets of each table.
    pub fn sweep(&mut self, snapshot: &Snapshot, budget: usize, now: u32) {
        let mut expired = 0;
        let mut each = |gone: Gone| {
            close(snapshot, gone);
            expired += 1;
        };
        self.v4.sweep(budget, now, &snapshot.timeouts_ms, &mut each);
        self.v6.sweep(budget, now, &snapshot.timeouts_ms, &mut each);
        if expired > 0 {
            self.stats.expired.add(expired);
        }
        self.publish();
    }

    /// Touches every page of the flow tables, so that no packet pays for a page fault. Called once, by a worker that
    /// is about to start.
    pub fn prefault(&mut self) {
        self.v4.prefault();
        self.v6.prefault();
    }

    /// Publishes the flow tables' fill.
    fn publish(&self) {
        self.stats.flows_v4.set(self.v4.len() as u64);
        self.stats.flows_v6.set(self.v6.len() as u64);
    }

    /// Buckets of the larger table, for pacing [`Pipeline::sweep`].
    pub fn sweep_length(&self) -> usize {
        self.v4.buckets().max(self.v6.buckets())
    }
}

/// Whether a frame's Ethernet addresses say that it is not for the appliance.
#[inline(always)]
fn is_foreign(snapshot: &Snapshot, frame: &Frame, bytes: &[u8]) -> bool {
    let (Some(port), Some(head)) = (snapshot.ports.get(usize::from(frame.port)), bytes.first_chunk::<16>()) else {
        return true;
    };
    port.is_own(word64(&head[6..14])) || !port.accepts(word64(&head[..8]))
}

#[inline(always)]
fn fetch<M: FrameMemory>(memory: &M, frame: &Frame) {
    if let Some(first) = memory.bytes(frame).first() {
        sys::prefetch(first);
    }
}

fn close(snapshot: &Snapshot, gone: Gone) {
    if let Some(load) = snapshot.load(gone.server) {
        load.close(gone.state.is_active());
    }
}

impl Context<'_> {
    /// The short way: an untagged IPv4 packet of a known flow whose state, server and time stamp need no attention.
    /// `None`: nothing was changed, and the long way decides.
    #[inline(always)]
    fn plain_hit<M: FrameMemory>(
        &self,
        table: &mut FlowTable<FlowV4>,
        memory: &mut M,
        frame: &Frame,
        lane: &Lane,
    ) -> Option<Outcome> {
        if lane.home == NOT_PLAIN || self.verify == VerifyChecksums::All {
            return None;
        }
        let entry = match table.place_at_home(lane.home, lane.ident) {
            Some(place) => table.entry(place),
            None => table.behind(lane.home, lane.ident)?,
        };
        let server = self.snapshot.server(entry.server())?;
        if frame.len > server.plain_limit {
            return None;
        }
        if self.now.wrapping_sub(entry.stamp()) >= STAMP_MS {
            if super::flow::is_expired(entry, self.now, &self.snapshot.timeouts_ms) {
                return None;
            }
            entry.set_stamp(self.now);
        }
        // UDP packets have no flags, and their flows a state that no flags change.
        if lane.tcp_flags != 0 || entry.state() != State::UDP {
            let before = entry.state();
            let after = state::tcp_next(before, lane.tcp_flags);
            if after != before {
                entry.set_state(after);
                self.state_changed(server.id, before, after);
            }
        }
        rewrite::direct_plain_v4(memory.bytes_mut(frame), server);
        self.count(server, u32::from(lane.total));
        Some(Outcome {
            verdict: Verdict::Tx(server.port),
            service: server.service,
            server: slot_of(server.id) as u16,
            new_flow: false,
        })
    }

    /// The long way for any frame.
    #[inline(never)]
    fn any_packet<M: FrameMemory>(
        &self,
        v4: &mut FlowTable<FlowV4>,
        v6: &mut FlowTable<FlowV6>,
        memory: &mut M,
        frame: &mut Frame,
        slot: Slot,
    ) -> Outcome {
        match slot.parsed {
            Ok(parsed) if parsed.kind == Kind::Flow4 => self.flow_packet(v4, memory, frame, &parsed, slot.hash),
            Ok(parsed) if parsed.kind == Kind::Flow6 => self.flow_packet(v6, memory, frame, &parsed, slot.hash),
            Ok(parsed) => self.other_packet(v4, v6, memory, frame, &parsed),
            Err(reason) => self.broken_packet(memory.bytes(frame), reason),
        }
    }

    /// A packet of a flow: the hit is the path that must be fast.
    #[inline(always)]
    fn flow_packet<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        hash: u64,
    ) -> Outcome {
        let bytes = memory.bytes(frame);
        let Some(key) = E::key_of(bytes, parsed) else { return Outcome::drop(DropReason::Truncated) };
        if let Some(reason) = self.foreign(bytes, frame) {
            return self.not_for_our_mac::<E>(&key, reason);
        }
        let Some(place) = table.find(&key, hash) else {
            return self.new_flow(table, memory, frame, parsed, &key, hash);
        };
        let entry = table.entry(place);
        let (id, before, stamp) = (entry.server(), entry.state(), entry.stamp());
        let idle = self.now.wrapping_sub(stamp);
        let Some(server) = self.snapshot.server(id) else {
            return self.replace_flow(table, place, memory, frame, parsed, &key, hash);
        };
        if idle >= STAMP_MS {
            if table.expired(place, self.now, &self.snapshot.timeouts_ms) {
                return self.replace_flow(table, place, memory, frame, parsed, &key, hash);
            }
            table.entry(place).set_stamp(self.now);
        }
        let outcome = Outcome {
            verdict: Verdict::Tx(server.port),
            service: server.service,
            server: slot_of(id) as u16,
            new_flow: false,
        };
        if !server.reachable {
            return Outcome { verdict: Verdict::Drop(DropReason::NoNextHop), ..outcome };
        }
        let length = frame.len - 4 * u32::from(parsed.tags);
        if length > server.max_frame {
            return Outcome { verdict: Verdict::Drop(DropReason::TooBig), ..outcome };
        }
        if self.verify == VerifyChecksums::All
            && let Err(reason) = parse::verify_transport(memory.bytes(frame), parsed)
        {
            return Outcome { verdict: Verdict::Drop(reason), ..outcome };
        }
        let after = if parsed.protocol == TCP {
            state::tcp_next(before, parsed.tcp_flags)
        } else if parsed.protocol == SCTP {
            sctp_after(before, memory.bytes(frame), parsed)
        } else {
            before
        };
        if let Err(reason) = rewrite::direct(memory, frame, parsed, server) {
            return Outcome { verdict: Verdict::Drop(reason), ..outcome };
        }
        if after != before {
            table.entry(place).set_state(after);
            self.state_changed(id, before, after);
        }
        self.count(server, ip_length(parsed));
        outcome
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

    /// A flow that expired, or whose server is gone, gives way to a new one of the same key.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn replace_flow<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        place: super::flow::Place,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
    ) -> Outcome {
        close(self.snapshot, table.remove(place));
        self.new_flow(table, memory, frame, parsed, key, hash)
    }

    /// A packet without a flow: find its service, judge it, choose a server, remember the flow, forward.
    #[inline(never)]
    fn new_flow<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
    ) -> Outcome {
        let (source, destination) = (E::source(key), E::destination(key));
        let (source_port, port) = E::ports(key);
        let Some(index) = self.snapshot.service(destination, parsed.protocol, port) else {
            return Outcome::plain(Verdict::Pass);
        };
        let mut outcome = Outcome::plain(Verdict::Drop(DropReason::NotOurs));
        outcome.service = index;
        let refuse = |reason| Outcome { verdict: Verdict::Drop(reason), ..outcome };
        if let Err(reason) = self.admit(memory.bytes(frame), parsed, source) {
            return refuse(reason);
        }
        let service = &self.snapshot.services[usize::from(index)];
        let client = Client { folded_address: fold_address(source), port: source_port };
        let Some(chosen) = service.selector.select(&service.members, &service.cursor, client) else {
            return refuse(DropReason::NoServer);
        };
        let member = &service.members[chosen];
        let Some(server) = self.snapshot.server(member.id).filter(|s| s.reachable) else {
            return refuse(DropReason::NoNextHop);
        };
        outcome.server = slot_of(member.id) as u16;
        let refuse = |reason| Outcome { verdict: Verdict::Drop(reason), ..outcome };
        let length = frame.len - 4 * u32::from(parsed.tags);
        if length > server.max_frame {
            return refuse(DropReason::TooBig);
        }
        let initial = State::initial(parsed.protocol);
        let state = match parsed.protocol {
            TCP => state::tcp_next(initial, parsed.tcp_flags),
            SCTP => sctp_after(initial, memory.bytes(frame), parsed),
            _ => initial,
        };
        if let Err(reason) = rewrite::direct(memory, frame, parsed, server) {
            return refuse(reason);
        }
        match table.insert(key, hash, member.id, state, self.now, &self.snapshot.timeouts_ms) {
            Ok((_, gone)) => {
                if let Some(gone) = gone {
                    close(self.snapshot, gone);
                    self.stats.evicted.add(1);
                }
            }
            Err(super::flow::Full) => return refuse(DropReason::FlowTableFull),
        }
        member.load.open(state.is_active());
        if let Some(counters) = self.stats.servers.get(slot_of(member.id)) {
            counters.connections.add(1);
        }
        self.count(server, ip_length(parsed));
        Outcome { verdict: Verdict::Tx(server.port), new_flow: true, ..outcome }
    }

    /// Whether a packet may create a flow.
    fn admit(&self, bytes: &[u8], parsed: &Parsed, source: IpAddr) -> Result<(), DropReason> {
        if answer::is_martian(source) {
            return Err(DropReason::MartianSource);
        }
        if self.snapshot.owns(source) {
            return Err(DropReason::OwnSource);
        }
        if rewrite::ttl(bytes, parsed) < 2 {
            return Err(DropReason::TtlExpired);
        }
        if parsed.protocol == TCP {
            let flags = parsed.tcp_flags;
            let syn = flags & tcp_flag::SYN != 0;
            if flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST | tcp_flag::ACK) == 0
                || (syn && flags & (tcp_flag::FIN | tcp_flag::RST) != 0)
            {
                return Err(DropReason::BadTcpFlags);
            }
            if flags & tcp_flag::RST != 0 {
                return Err(DropReason::NoFlow);
            }
        }
        if self.verify != VerifyChecksums::Off {
            parse::verify_transport(bytes, parsed)?;
        }
        if parsed.protocol == SCTP {
            let at = usize::from(parsed.l4);
            if !state::sctp_opens(bytes.get(at..at + usize::from(parsed.l4_len)).unwrap_or_default()) {
                return Err(DropReason::NoFlow);
            }
        }
        Ok(())
    }

    /// ARP, ICMP, and what is nobody's.
    #[cold]
    fn other_packet<M: FrameMemory>(
        &self,
        v4: &mut FlowTable<FlowV4>,
        v6: &mut FlowTable<FlowV6>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
    ) -> Outcome {
        let Some(port) = self.snapshot.ports.get(usize::from(frame.port)) else {
            return Outcome::drop(DropReason::NotOurs);
        };
        let port: Port = *port;
        if parsed.kind == Kind::Icmp4
            && let Some(reason) = self.foreign(memory.bytes(frame), frame)
        {
            return self.broken_packet(memory.bytes(frame), reason);
        }
        let found = match parsed.kind {
            Kind::Arp => answer::arp(self.snapshot, &port, memory.bytes_mut(frame), parsed, frame),
            Kind::Icmp4 => answer::icmp4(self.snapshot, &port, memory.bytes_mut(frame), parsed, frame),
            Kind::Icmp6 => {
                let mut grown = *frame;
                if memory.headroom(frame) as u64 + u64::from(frame.len + answer::ND_GROWTH) <= 2048 {
                    grown.len += answer::ND_GROWTH;
                }
                answer::icmp6(self.snapshot, &port, memory.bytes_mut(&grown), parsed, frame)
            }
            _ => return Outcome::plain(Verdict::Pass),
        };
        match found {
            Answer::Done(outcome) => outcome,
            Answer::Conflict(mac) => {
                let [a, b, c, d, e, f] = mac.0;
                self.stats.conflicts.add(1);
                self.stats.conflict_mac.set(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
                Outcome::drop(DropReason::AddressConflict)
            }
            Answer::IcmpError(inner) if parsed.kind == Kind::Icmp4 => {
                self.icmp_error(v4, memory, frame, parsed, inner, inner_l4_v4)
            }
            Answer::IcmpError(inner) => self.icmp_error(v6, memory, frame, parsed, inner, inner_l4_v6),
        }
    }

    /// An ICMP error for a service address goes to the server that owns the flow which the error is about
    /// (`ip_vs_in_icmp`): the invoking packet was sent by that server, so its addresses are the flow's, reversed.
    fn icmp_error<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        inner: usize,
        inner_l4: impl Fn(&[u8], usize) -> Option<(u8, usize)>,
    ) -> Outcome {
        let bytes = memory.bytes(frame);
        if let Some(reason) = self.foreign(bytes, frame) {
            return Outcome::drop(reason);
        }
        let Some((protocol, l4)) = inner_l4(bytes, inner) else { return Outcome::drop(DropReason::BadIcmp) };
        let Some(key) = E::reverse_key_of(bytes, inner, l4, protocol) else {
            return Outcome::drop(DropReason::BadIcmp);
        };
        let hash = table.hash(&key);
        let Some(place) = table.find(&key, hash) else { return Outcome::drop(DropReason::IcmpNoFlow) };
        let id = table.entry(place).server();
        let Some(server) = self.snapshot.server(id) else { return Outcome::drop(DropReason::IcmpNoFlow) };
        let outcome = Outcome {
            verdict: Verdict::Tx(server.port),
            service: server.service,
            server: slot_of(id) as u16,
            new_flow: false,
        };
        if !server.reachable {
            return Outcome { verdict: Verdict::Drop(DropReason::NoNextHop), ..outcome };
        }
        match rewrite::direct(memory, frame, parsed, server) {
            Ok(()) => {
                self.count(server, ip_length(parsed));
                outcome
            }
            Err(reason) => Outcome { verdict: Verdict::Drop(reason), ..outcome },
        }
    }

    /// A frame that does not parse: dropped if it was meant for an owned address or cannot be told, else the
    /// kernel's.
    #[cold]
    fn broken_packet(&self, bytes: &[u8], reason: DropReason) -> Outcome {
        match parse::destination(bytes) {
            Some(address) if !self.snapshot.owns(address) => Outcome::plain(Verdict::Pass),
            _ => Outcome::drop(reason),
        }
    }
}

/// Bytes of an IP packet by its own length fields, which is what IPVS counts.
fn ip_length(parsed: &Parsed) -> u32 {
    u32::from(parsed.l4 - parsed.l3) + u32::from(parsed.l4_len)
}

fn sctp_after(before: State, bytes: &[u8], parsed: &Parsed) -> State {
    let at = usize::from(parsed.l4);
    state::sctp_next(before, bytes.get(at..at + usize::from(parsed.l4_len)).unwrap_or_default())
}

/// Protocol and transport offset of the IPv4 packet inside an ICMP error (at least 8 bytes of transport, RFC 792).
fn inner_l4_v4(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let head: &[u8; 20] = bytes.get(at..)?.first_chunk()?;
    let header = usize::from(head[0] & 15) * 4;
    let first = u16::from_be_bytes([head[6], head[7]]) & 0x1fff == 0;
    (head[0] >> 4 == 4 && header >= 20 && first && bytes.len() >= at + header + 8).then_some((head[9], at + header))
}

/// The same for IPv6; extension headers before the transport are not followed here.
fn inner_l4_v6(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let head: &[u8; 40] = bytes.get(at..)?.first_chunk()?;
    (head[0] >> 4 == 6 && bytes.len() >= at + 48).then_some((head[6], at + 40))
}

#[cfg(test)]
mod tests;
