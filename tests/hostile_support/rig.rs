//! One worker or several over in-memory I/O, and everything that must hold after each batch.

mod books;
mod sound;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::control::persistence;
use evenkeel::dataplane::director::Director;
use evenkeel::dataplane::directory::{Directory, Peers};
use evenkeel::dataplane::handover::Inbox;
use evenkeel::dataplane::io::memory::MemoryIo;
use evenkeel::dataplane::io::{BATCH, Frame, FrameMemory, PacketIo};
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::snapshot::Snapshot;
use evenkeel::dataplane::verdict::{DropReason, NONE, Outcome, Verdict};
use evenkeel::dataplane::worker;
use evenkeel::model::SynCookies;
use sound::{sound, summed};

use super::Random;
use super::echo::echo;
use super::site::{Engine, Site};

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
    pub director: Arc<Director>,
    engine: Engine,
    /// Whose clients there are, and since which generation those of what is gone wait to be forgotten.
    units: persistence::Units,
    forgetting: Option<u64>,
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
        Rig::of(Engine { workers: 1, syn_cookies: SynCookies::Flood, roomy: true })
    }

    /// Workers that know each other's flows.
    pub fn of(engine: Engine) -> Rig {
        let count = engine.workers;
        let mut site = Site::default();
        let snapshot = Arc::new(site.compile(2, Duration::ZERO).expect("compiles"));
        let (directory, director) = (engine.directory(), engine.director());
        let worker = |me| {
            let peers = (count > 1).then(|| Peers { me, count, directory: directory.clone() });
            // A few more frames than a batch has; of several workers each makes less of its own.
            let io = MemoryIo::new(2, if count > 1 { 68 } else { 72 }, 4096);
            Worker {
                io,
                pipeline: engine.pipeline(peers, &director),
                snapshot: snapshot.clone(),
                frames: 0,
                extra: 0,
                lost: 0,
            }
        };
        let workers: Vec<Worker> = (0..count).map(worker).collect();
        let inboxes = if count > 1 { count } else { 0 };
        let inboxes = (0..inboxes).map(|_| Inbox::new(PARCELS, 3840).expect("a bell")).collect();
        let (tally, sent) = (HashMap::new(), VecDeque::new());
        // Close to the wrap of the clock: it happens early in the test.
        let now = u32::MAX - 60_000;
        let elapsed = Duration::ZERO;
        Rig {
            workers,
            inboxes,
            directory,
            units: persistence::units(&snapshot),
            forgetting: None,
            director,
            engine,
            site,
            snapshot,
            now,
            elapsed,
            frames: 0,
            sent,
            tally,
            digest: 0,
            turn: 0,
        }
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
        self.settle();
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
        self.compare();
        if let Some(snapshot) = self.site.swap(ports, self.elapsed, random) {
            self.take(snapshot);
        }
    }

    /// Publishes a snapshot, as `control::apply` does.
    fn take(&mut self, snapshot: Snapshot) {
        self.snapshot = Arc::new(snapshot);
        let units = persistence::units(&self.snapshot);
        if units != self.units {
            self.units = units;
            self.forgetting = Some(self.snapshot.generation);
        }
    }

    /// Forgets the clients of what is gone once every worker knows.
    fn settle(&mut self) {
        if self.forgetting.is_some() && self.all_follow() {
            self.forgetting = None;
            persistence::settle(&self.director, &self.units);
        }
    }

    /// Whether every worker has seen the newest snapshot.
    fn all_follow(&self) -> bool {
        self.workers.iter().all(|worker| worker.snapshot.generation == self.snapshot.generation)
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
