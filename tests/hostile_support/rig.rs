//! One worker or several over in-memory I/O, and everything that must hold after each batch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::control::persistence;
use evenkeel::dataplane::checksum;
use evenkeel::dataplane::directory::{Directory, Peers};
use evenkeel::dataplane::flow::{Entry, Flows, flag};
use evenkeel::dataplane::handover::Inbox;
use evenkeel::dataplane::io::memory::MemoryIo;
use evenkeel::dataplane::io::{BATCH, Frame, FrameMemory, PacketIo};
use evenkeel::dataplane::parse::{self, Kind, Part};
use evenkeel::dataplane::pipeline::{Holdings, Pipeline};
use evenkeel::dataplane::snapshot::{Snapshot, slot_of};
use evenkeel::dataplane::verdict::{DropReason, NONE, Outcome, Verdict};
use evenkeel::dataplane::worker;
use evenkeel::model::GUE_PORT;

use super::echo::echo;
use super::{MTU, OWN, Random, Site};

/// Parcels of an inbox: so few that a worker is at times too busy for the others.
const PARCELS: usize = 20;

/// Frames that wait to be answered.
const ECHOES: usize = 200;

/// A worker without its thread.
pub struct Worker {
    pub io: MemoryIo,
    pub pipeline: Pipeline,
    /// What it forwards by. It sees a change when frames of its own come.
    snapshot: Arc<Snapshot>,
    /// Frames that it was given, by its own queues and by others.
    frames: u64,
    /// Frames that batches brought forth besides their own.
    extra: u64,
    /// Fragments that waited in vain.
    lost: u64,
}

/// All workers, and what they have in common.
pub struct Rig {
    pub workers: Vec<Worker>,
    inboxes: Vec<Inbox>,
    directory: Arc<Directory>,
    pub site: Site,
    pub snapshot: Arc<Snapshot>,
    pub now: u32,
    elapsed: Duration,
    /// Frames that came in.
    pub frames: u64,
    /// Frames that were sent, with their ports.
    pub sent: VecDeque<(u8, Vec<u8>)>,
    pub tally: HashMap<&'static str, u64>,
    pub digest: u64,
    turn: usize,
}

impl Rig {
    /// One worker.
    pub fn new() -> Rig {
        Rig::team(1)
    }

    /// Workers that know each other's flows.
    pub fn team(count: u8) -> Rig {
        let mut site = Site::default();
        let snapshot = Arc::new(site.compile(2, Duration::ZERO).expect("compiles"));
        let directory = site.directory(count);
        let worker = |me| {
            let peers = (count > 1).then(|| Peers { me, count, directory: directory.clone() });
            // A few more frames than a batch has; of several workers each makes less of its own.
            let io = MemoryIo::new(2, if count > 1 { 68 } else { 80 }, 4096);
            Worker { io, pipeline: site.pipeline(peers), snapshot: snapshot.clone(), frames: 0, extra: 0, lost: 0 }
        };
        let workers: Vec<Worker> = (0..count).map(worker).collect();
        let inboxes = if count > 1 { count } else { 0 };
        let inboxes = (0..inboxes).map(|_| Inbox::new(PARCELS, 3840).expect("a bell")).collect();
        let (tally, sent) = (HashMap::new(), VecDeque::new());
        // Close to the wrap of the clock: it happens early in the test.
        let now = u32::MAX - 60_000;
        let elapsed = Duration::ZERO;
        Rig { workers, inboxes, directory, site, snapshot, now, elapsed, frames: 0, sent, tally, digest: 0, turn: 0 }
    }

    /// Runs one batch through a worker, those in turn, and what it hands on through the others; checks all that must hold
    /// after it.
    pub fn batch(&mut self, frames: &[(u8, Vec<u8>)]) {
        self.turn = (self.turn + 1) % self.workers.len();
        let worker = &mut self.workers[self.turn];
        worker.snapshot = self.snapshot.clone();
        for (port, frame) in frames {
            assert!(worker.io.inject(*port, frame), "a frame of {} bytes did not fit", frame.len());
        }
        let mut batch = [Frame::default(); BATCH];
        assert_eq!(worker.io.receive(&mut batch), frames.len());
        self.frames += frames.len() as u64;
        self.process(self.turn, &mut batch[..frames.len()]);
        self.deliver();
    }

    /// Lets every worker have what others handed to it, until nothing is left.
    fn deliver(&mut self) {
        while let Some(at) = self.inboxes.iter().position(|inbox| !inbox.is_empty()) {
            let mut batch = [Frame::default(); BATCH];
            let worker = &mut self.workers[at];
            let count = self.inboxes[at].take(worker.io.memory(), &mut batch);
            assert!(count > 0, "no frame is free, though all were given back");
            assert!(batch[..count].iter().all(|frame| (1..=3).contains(&frame.hops)), "handed round");
            worker.pipeline.stats().taken_over.add(count as u64);
            self.process(at, &mut batch[..count]);
        }
    }

    fn process(&mut self, at: usize, batch: &mut [Frame]) {
        let worker = &mut self.workers[at];
        let drops_before = worker.drops();
        let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
        let outcomes = &mut outcomes[..batch.len()];
        let right: Vec<bool> =
            batch.iter().map(|frame| summed(worker.io.memory().bytes(frame)) == Some(true)).collect();
        worker.pipeline.process(&worker.snapshot, worker.io.memory(), batch, outcomes, self.now);
        for ((frame, outcome), _) in batch.iter().zip(&*outcomes).zip(right).filter(|(_, right)| *right) {
            let bytes = worker.io.memory().bytes(frame);
            let forwarded = matches!(outcome.verdict, Verdict::Tx(_) | Verdict::Reply(_));
            assert!(
                !forwarded || summed(bytes) != Some(false),
                "a checksum was right before: {outcome:?} {bytes:02x?}"
            );
        }
        assert!(outcomes.iter().all(|outcome| outcome.verdict != Verdict::Hand(at as u8)), "to itself");
        worker::act(&mut worker.io, &self.inboxes, batch, outcomes);
        worker.pipeline.settle(outcomes);
        worker.frames += batch.len() as u64;
        let mut outcomes = outcomes.to_vec();
        outcomes.extend(self.take_extra(at));
        self.judge(at, &outcomes, drops_before);
    }

    /// Acts on what a pipeline brought forth besides the frames that it was given.
    fn take_extra(&mut self, at: usize) -> Vec<Outcome> {
        let worker = &mut self.workers[at];
        let mut frames = [Frame::default(); BATCH];
        let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
        let mut all = Vec::new();
        loop {
            let count = worker.pipeline.take_extra(&mut frames, &mut outcomes);
            if count == 0 {
                return all;
            }
            worker::act(&mut worker.io, &self.inboxes, &frames[..count], &mut outcomes[..count]);
            worker.pipeline.settle(&outcomes[..count]);
            worker.extra += count as u64;
            all.extend_from_slice(&outcomes[..count]);
        }
    }

    /// What must hold after frames were acted upon.
    fn judge(&mut self, at: usize, outcomes: &[Outcome], drops_before: u64) {
        let worker = &mut self.workers[at];
        worker.io.service();
        let account = worker.io.frames_accounted();
        assert!(account.balanced(), "{account:?}");
        assert_eq!((account.held, account.rx, account.tx), (0, 0, 0), "a frame stayed behind");

        let mut sent = [0usize; 2];
        let (mut passed, mut dropped) = (0, 0);
        for outcome in outcomes {
            let name = match outcome.verdict {
                Verdict::Tx(port) => {
                    assert!(outcome.service != NONE && outcome.server != NONE, "{outcome:?}");
                    sent[usize::from(port)] += 1;
                    "tx"
                }
                Verdict::Reply(port) => {
                    sent[usize::from(port)] += 1;
                    "reply"
                }
                Verdict::Pass => {
                    passed += 1;
                    "pass"
                }
                Verdict::Kept => "kept",
                Verdict::Hand(_) => "hand",
                Verdict::Drop(reason) => {
                    // What a full ring refuses has its flow: the client sends it again, to the same server.
                    let had_its_way = reason == DropReason::TxFull;
                    assert!(had_its_way || !outcome.new_flow, "a dropped packet made a flow: {outcome:?}");
                    dropped += 1;
                    reason.name()
                }
            };
            *self.tally.entry(name).or_default() += 1;
            self.digest = (self.digest ^ u64::from(name.as_bytes()[0]) ^ u64::from(outcome.server) << 8)
                .wrapping_mul(0x0000_0100_0000_01b3);
        }
        for port in [0, 1] {
            let frames = worker.io.sent(port);
            assert_eq!(frames.len(), sent[usize::from(port)], "frames sent on port {port}");
            frames.iter().for_each(|frame| sound(frame, port));
            let room = ECHOES - self.sent.len().min(ECHOES);
            self.sent.extend(frames.into_iter().take(room).map(|frame| (port, frame)));
        }
        assert_eq!(worker.io.passed().len(), passed);
        // Fragments that waited in vain were frames once: each is counted again, as one that was dropped.
        let stats = worker.pipeline.stats().clone();
        let lost = stats.frames.get() - worker.frames - worker.extra - worker.lost;
        worker.lost += lost;
        assert_eq!(worker.drops() - drops_before, dropped + lost, "each drop is counted once");
        let sum = [&stats.forwarded, &stats.replies, &stats.passed, &stats.handed, &stats.kept];
        let sum: u64 = sum.iter().map(|counter| counter.get()).sum();
        assert_eq!(sum + worker.drops(), stats.frames.get(), "each frame has one outcome");
    }

    /// Lets time pass, and looks at `budget` buckets for flows that outlived it.
    pub fn pass_time(&mut self, milliseconds: u32, budget: usize) {
        self.now = self.now.wrapping_add(milliseconds);
        self.elapsed += Duration::from_millis(u64::from(milliseconds));
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            worker.pipeline.sweep(&worker.snapshot, budget, self.now);
            let drops_before = worker.drops();
            worker.pipeline.expire_fragments(&worker.snapshot, worker.io.memory(), self.now);
            let outcomes = self.take_extra(at);
            self.judge(at, &outcomes, drops_before);
        }
        self.deliver();
    }

    /// Swaps the snapshot for one in which something is different.
    pub fn swap(&mut self, random: &mut Random) {
        // Now and then an interface is gone from the configuration while its frames still come.
        let ports = if random.one_in(10) { 1 } else { 2 };
        if let Some(snapshot) = self.site.swap(ports, self.elapsed, random) {
            self.snapshot = Arc::new(snapshot);
        }
        self.compare();
    }

    /// What comes back for one of the frames that were sent.
    pub fn answer(&mut self, random: &mut Random) -> Option<(u8, Vec<u8>)> {
        let at = random.index(self.sent.len());
        let (port, frame) = self.sent.swap_remove_back(at)?;
        Some((port, echo(&frame, random)?))
    }

    /// A counter, over all workers.
    pub fn sum(&self, of: impl Fn(&Worker) -> u64) -> u64 {
        self.workers.iter().map(of).sum()
    }

    /// Drops for a reason, over all workers.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.sum(|worker| worker.pipeline.stats().drops[reason as usize].get())
    }

    /// The tables of all workers against everything that is kept besides them: the servers' loads, last hops, local
    /// ports, the directory.
    pub fn compare(&self) {
        let mut found = Found::default();
        assert_eq!(self.sum(|worker| worker.pipeline.stats().directory_full.get()), 0, "the directory is too small");
        for (me, worker) in (0u8..).zip(&self.workers) {
            let (v4, v6) = worker.pipeline.tables();
            let before = (found.entries, found.pairs, found.local_ends, found.spliced);
            found.look(v4, me, &self.directory, self.workers.len() > 1);
            found.look(v6, me, &self.directory, self.workers.len() > 1);
            assert_eq!(found.entries - before.0, v4.len() + v6.len(), "the tables miscount themselves");
            assert!(v4.proven.len() <= v4.capacity() && v6.proven.len() <= v6.capacity());
            assert!(v4.unproven.len() <= v4.unproven.capacity() && v6.unproven.len() <= v6.unproven.capacity());
            let holdings = worker.pipeline.holdings();
            assert_eq!(holdings.last_hops, found.pairs - before.1, "last hops and pairs");
            assert_eq!(holdings.spliced, found.spliced - before.3, "what is kept of flows by cookie, and those flows");
            assert_eq!(holdings.local_ports, found.local_ends - before.2, "local ports and flows by full NAT");
        }
        if self.workers.len() > 1 {
            assert_eq!(self.directory.len(), found.entries, "the directory has what the tables have");
        }
        // Who has not seen the newest snapshot counts for an older tally.
        let all_follow = self.workers.iter().all(|worker| worker.snapshot.generation == self.snapshot.generation);
        for (index, service) in self.snapshot.services.iter().enumerate().filter(|_| all_follow) {
            let limited = |flow: &&(u32, u8)| {
                let of = self.snapshot.server(flow.0).map(|server| usize::from(server.outcome.service));
                of == Some(index) && flow.1 & flag::LIMITED != 0
            };
            let flows = found.flows.iter().filter(limited).count();
            if service.config.limits.connections.is_some() {
                assert_eq!(service.tally.flows.get() as usize, flows, "flows of {} for its limit", service.config.name);
            }
            if service.config.limits.client_connections.is_some() {
                let counted = self.sum(|worker| worker.pipeline.director().clients.totals_of(service.tally.id).1);
                assert_eq!(counted as usize, flows, "flows of the clients of {}", service.config.name);
            }
        }
        for service in &self.snapshot.services {
            for member in service.all() {
                let loads = (member.load.active(), member.load.inactive());
                let flows = found.loads.get(&member.id).copied().unwrap_or_default();
                assert_eq!(loads, flows, "server {} in slot {}", member.address, slot_of(member.id));
            }
        }
    }

    /// Lets everything end: nothing is left of any flow or fragment.
    pub fn end(&mut self) {
        for worker in &mut self.workers {
            worker.snapshot = self.snapshot.clone();
        }
        let units = persistence::units(&self.snapshot);
        self.workers.iter().for_each(|worker| persistence::settle(worker.pipeline.director(), &units));
        for _ in 0..20 {
            self.pass_time(1_000_000, usize::MAX / 2);
        }
        self.compare();
        assert!(self.directory.is_empty());
        for worker in &self.workers {
            let (v4, v6) = worker.pipeline.tables();
            assert!(v4.is_empty() && v6.is_empty(), "flows that do not end");
            let templates = &worker.pipeline.director().templates;
            assert!(templates.is_empty(), "{} templates that do not end", templates.len());

            assert_eq!(worker.pipeline.holdings(), Holdings::default());
        }
        let handed = self.sum(|worker| worker.pipeline.stats().handed.get());
        assert_eq!(handed, self.sum(|worker| worker.pipeline.stats().taken_over.get()), "what was handed on arrived");
    }
}

impl Worker {
    fn drops(&self) -> u64 {
        self.pipeline.stats().drops.iter().map(|drop| drop.get()).sum()
    }

    pub fn extra(&self) -> u64 {
        self.extra
    }

    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// What the tables hold.
#[derive(Default)]
struct Found {
    /// Active and inactive flows, by server.
    loads: HashMap<u32, (u32, u32)>,
    entries: usize,
    pairs: u64,
    /// Pairs whose server is asked from a local address.
    local_ends: u64,
    /// Server and flags of each flow.
    flows: Vec<(u32, u8)>,
    /// Pairs that a SYN cookie opened.
    spliced: u64,
}

impl Found {
    fn look<E: Entry>(&mut self, table: &Flows<E>, me: u8, directory: &Directory, listed: bool)
    where
        E::Key: Ends,
    {
        let mut clients = HashMap::new();
        let mut pairs = Vec::new();
        let mut both = 0;
        table.for_each(|flow| {
            self.entries += 1;
            let hash = table.hash(&flow.key());
            let found = directory.find(hash);
            assert!(!listed || found == Some(me), "worker {me} has a flow that others find at {found:?}");
            if flow.flags() & flag::REVERSE != 0 {
                pairs.push((flow.server(), flow.key().destination()));
                return;
            }
            both += u64::from(flow.partner() != 0);
            self.flows.push((flow.server(), flow.flags()));
            self.spliced += u64::from(flow.flags() & flag::COOKIE != 0);
            if flow.partner() != 0 {
                *clients.entry((flow.server(), flow.key().source())).or_insert(0u64) += 1;
            }
            let row = self.loads.entry(flow.server()).or_default();
            if flow.state().is_active() { row.0 += 1 } else { row.1 += 1 }
        });
        assert_eq!(both, pairs.len() as u64, "each of two entries has the other");
        self.pairs += both;
        // Under NAT the server answers to the client itself.
        self.local_ends += pairs.iter().filter(|pair| !clients.contains_key(*pair)).count() as u64;
    }
}

/// Address and port of a key's ends, as they lie in the packet.
trait Ends {
    fn source(&self) -> (u128, u16);
    fn destination(&self) -> (u128, u16);
}

impl Ends for evenkeel::dataplane::flow::KeyV4 {
    fn source(&self) -> (u128, u16) {
        (u128::from(self.addresses as u32), self.ports as u16)
    }

    fn destination(&self) -> (u128, u16) {
        (u128::from((self.addresses >> 32) as u32), (self.ports >> 16) as u16)
    }
}

impl Ends for evenkeel::dataplane::flow::KeyV6 {
    fn source(&self) -> (u128, u16) {
        (u128::from(self.source[0]) | u128::from(self.source[1]) << 64, self.ports as u16)
    }

    fn destination(&self) -> (u128, u16) {
        (u128::from(self.destination[0]) | u128::from(self.destination[1]) << 64, (self.ports >> 16) as u16)
    }
}

/// Whether the transport or ICMP checksum of a whole packet is right; `None` where there is none, and for GUE, whose outer
/// one may be missing.
fn summed(bytes: &[u8]) -> Option<bool> {
    let parsed = parse::parse(bytes).ok().filter(|parsed| parsed.part == Part::Whole)?;
    let l4 = usize::from(parsed.l4);
    let packet = bytes.get(l4..l4 + usize::from(parsed.l4_len))?;
    match parsed.kind {
        Kind::Flow4 | Kind::Flow6 if parsed.protocol == parse::UDP && packet[2..4] == GUE_PORT.to_be_bytes() => None,
        Kind::Flow4 | Kind::Flow6 => Some(parse::verify_transport(bytes, &parsed).is_ok()),
        Kind::Icmp4 => Some(checksum::checksum(packet) == 0),
        Kind::Icmp6 => {
            let (l3, length) = (usize::from(parsed.l3), u32::from(parsed.l4_len));
            let pseudo = checksum::pseudo_header(&bytes[l3 + 8..l3 + 24], &bytes[l3 + 24..l3 + 40], 58, length);
            Some(checksum::fold(checksum::sum(packet, pseudo)) == 0xffff)
        }
        _ => None,
    }
}

/// What goes out: from this interface, to one station, no longer than the MTU, with a right IPv4 header.
fn sound(frame: &[u8], port: u8) {
    assert_eq!(frame[6..12], OWN[usize::from(port)].0, "source MAC");
    let mut l3 = 14;
    while frame[l3 - 2..l3] == [0x81, 0] || frame[l3 - 2..l3] == [0x88, 0xa8] {
        l3 += 4;
    }
    let protocol = match frame[l3 - 2..l3] {
        [0x08, 0x00] => frame[l3 + 9],
        [0x86, 0xdd] => frame[l3 + 6],
        _ => 0,
    };
    // An answer is as long as its question; what is forwarded fits the server's network.
    let forwarded = [4, 6, 17, 41, 44, 47, 132].contains(&protocol);
    assert!(!forwarded || frame.len() <= l3 + MTU as usize, "{} bytes", frame.len());
    let group = frame[0] & 1 == 1;
    match frame[l3 - 2..l3] {
        [0x08, 0x00] => {
            let header = usize::from(frame[l3] & 15) * 4;
            assert_eq!(checksum::checksum(&frame[l3..l3 + header]), 0, "IPv4 header checksum");
            assert!(frame[l3 + 8] > 0 && !group);
        }
        // An advertisement to all nodes answers a duplicate address probe.
        [0x86, 0xdd] => assert!(frame[l3 + 7] > 0 && (!group || frame[l3 + 6] == 58)),
        [0x08, 0x06] => assert!(!group),
        _ => panic!("a frame of another ethertype was sent: {frame:x?}"),
    }
}
