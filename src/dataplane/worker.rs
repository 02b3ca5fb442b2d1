//! The worker's loop: receive, decide, act, and keep house; one thread on one core.
//!
//! Owns the clock of the data plane (one reading a turn) and the pace of polling. Decides nothing about packets.

mod tapped;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use super::capture::Taps;
use super::flow::Budget;
use super::handover::{Inbox, PARCELS};
use super::io::{BATCH, Frame, FrameMemory, PacketIo};
use super::pipeline::{Effort, Pipeline};
use super::query::Desk;
use super::snapshot::Snapshot;
use super::verdict::{DropReason, Outcome, Verdict};
use crate::model::Polling;

/// Time in which the whole flow table is looked at for expired flows.
const SWEEP_PERIOD: Duration = Duration::from_secs(4);

/// Most that is swept in a turn that found frames, and in one that did not. The bench `micro -- --stalls` shows what it costs.
const SWEEP_BUSY: Budget = Budget { buckets: 256, flows: 12 };
const SWEEP_IDLE: Budget = Budget { buckets: 512, flows: 16 };

/// Most that is spent on questions about flows, in the same way.
const ANSWER_BUSY: Effort = Effort { buckets: 64, flows: 8 };
const ANSWER_IDLE: Effort = Effort { buckets: 256, flows: 16 };

/// Turns with a full batch, behind which more packets may wait, of which one answers: forwarding comes first. The bench
/// `micro -- --questions` shows what it costs.
const FULL_BATCHES_AN_ANSWER: u32 = 32;

/// Longest sleep: sweeping, the stop flag and new snapshots wait no longer.
const MAX_SLEEP: Duration = Duration::from_millis(100);

/// How often the I/O backend's counters are published.
const PUBLISH_PERIOD: Duration = Duration::from_millis(250);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The snapshot in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// Set once to end all workers.
    pub stop: AtomicBool,
    /// Where all workers' time begins: one may look at the stamps of what another handed over.
    start: Instant,
    /// One for each worker, or none where there is one worker only.
    inboxes: Box<[Inbox]>,
    /// One for each worker: where it is asked about its flows.
    desks: Box<[Desk]>,
    /// Where captures are laid out.
    taps: Taps,
}

impl Shared {
    /// What `workers` workers share whose frames have up to `room` bytes.
    ///
    /// # Errors
    /// No descriptor is left for the bells.
    pub fn new(snapshot: Snapshot, workers: usize, room: u32) -> std::io::Result<Shared> {
        let count = if workers > 1 { workers } else { 0 };
        let inboxes = (0..count).map(|_| Inbox::new(PARCELS, room)).collect::<Result<_, _>>()?;
        Ok(Shared {
            snapshot: ArcSwap::from_pointee(snapshot),
            stop: AtomicBool::new(false),
            start: Instant::now(),
            inboxes,
            desks: (0..workers).map(|_| Desk::default()).collect(),
            taps: Taps::new(workers),
        })
    }

    /// The clock of all workers at `time`: milliseconds, wraps around.
    pub fn clock(&self, time: Instant) -> u32 {
        (time - self.start).as_millis() as u32
    }

    /// The same clock in nanoseconds; it does not wrap.
    pub fn nanoseconds(&self, time: Instant) -> u64 {
        (time - self.start).as_nanos() as u64
    }

    /// Where captures are laid out for the workers.
    pub fn taps(&self) -> &Taps {
        &self.taps
    }

    /// The workers' inboxes, by their numbers.
    pub fn inboxes(&self) -> &[Inbox] {
        &self.inboxes
    }

    /// The workers' desks, by their numbers.
    pub fn desks(&self) -> &[Desk] {
        &self.desks
    }
}

/// One turn of a worker by both of its clocks: one reading.
#[derive(Clone, Copy, Debug)]
struct Turn {
    time: Instant,
    /// Milliseconds, wraps around.
    now: u32,
}

/// How a worker behaves without packets.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Busy or adaptive polling.
    pub polling: Polling,
    /// Adaptive polling: time without a frame before it sleeps.
    pub idle: Duration,
}

/// Runs worker number `me` until [`Shared::stop`] is set. Never returns a frame unaccounted for: each received frame was
/// transmitted, handed over, passed or released when it ends; what lies in an inbox then is lost.
pub fn run<I: PacketIo>(io: &mut I, pipeline: &mut Pipeline, shared: &Arc<Shared>, me: usize, pace: Pace) {
    let inbox = shared.inboxes().get(me);
    let desk = shared.desks().get(me);
    let stats = pipeline.stats().clone();
    let mut cache = Cache::new(&shared.snapshot);
    let mut frames = [Frame::default(); BATCH];
    let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
    let begin = Instant::now();
    let mut before = begin;
    let mut last_frame = begin;
    let mut last_publish = begin;
    let mut was_busy = false;
    let mut sweep_debt = 0.0f64;
    let mut full_batches = 0_u32;
    while !shared.stop.load(Relaxed) {
        io.service();
        let count = io.receive(&mut frames);
        let time = Instant::now();
        let now = shared.clock(time);
        let elapsed = time - before;
        before = time;
        if was_busy {
            stats.busy_ns.add(elapsed.as_nanos() as u64);
        }
        stats.loops.add(1);
        let snapshot = &**cache.load();
        if stats.generation.get() != snapshot.generation {
            stats.generation.set(snapshot.generation);
        }
        was_busy = count > 0;
        full_batches = if count == BATCH { full_batches.saturating_add(1) } else { FULL_BATCHES_AN_ANSWER };
        if was_busy {
            let (frames, outcomes) = (&mut frames[..count], &mut outcomes[..count]);
            batch(io, pipeline, (shared, me), snapshot, frames, outcomes, Turn { time, now });
        }
        if let Some(inbox) = inbox.filter(|inbox| !inbox.is_empty()) {
            // A batch of others' at most, so that the own queues have their turn.
            let count = inbox.take(io.memory(), &mut frames);
            stats.taken_over.add(count as u64);
            was_busy |= count > 0;
            let (frames, outcomes) = (&mut frames[..count], &mut outcomes[..count]);
            batch(io, pipeline, (shared, me), snapshot, frames, outcomes, Turn { time, now });
        }
        if was_busy {
            last_frame = time;
        }
        if pipeline.fragments_are_due(now) {
            pipeline.expire_fragments(snapshot, io.memory(), now);
            if shared.taps.is_on() {
                tapped::extra(io, pipeline, (shared, me), snapshot, Turn { time, now });
            } else {
                act_on_extra(io, shared.inboxes(), pipeline);
            }
        }
        // The debt never exceeds one round: a worker that was stopped for long does not sweep in circles.
        let round = pipeline.sweep_length() as f64;
        sweep_debt = (sweep_debt + round * elapsed.as_secs_f64() / SWEEP_PERIOD.as_secs_f64()).min(round);
        let most = if was_busy { SWEEP_BUSY } else { SWEEP_IDLE };
        let buckets = (sweep_debt as usize).min(most.buckets);
        if buckets > 0 {
            sweep_debt -= pipeline.sweep_some(snapshot, Budget { buckets, ..most }, now) as f64;
        }
        if let Some(desk) = desk
            && full_batches >= FULL_BATCHES_AN_ANSWER
        {
            full_batches = 0;
            pipeline.answer(desk, snapshot, if was_busy { ANSWER_BUSY } else { ANSWER_IDLE }, now);
        }
        if time - last_publish >= PUBLISH_PERIOD {
            last_publish = time;
            stats.io.publish(&io.stats());
        }
        if !was_busy {
            // What a sleep let pile up is swept before the next one, in turns of bounded length.
            let nothing_left = sweep_debt < SWEEP_IDLE.buckets as f64 && !pipeline.has_questions();
            let asleep = pace.polling == Polling::Adaptive && time - last_frame >= pace.idle && !io.tx_pending();
            if asleep && nothing_left {
                stats.sleeps.add(1);
                sleep(io, inbox);
            } else {
                std::hint::spin_loop();
            }
        }
    }
    stats.io.publish(&io.stats());
}

/// One batch, from frames to counters.
#[inline]
fn batch<I: PacketIo>(
    io: &mut I,
    pipeline: &mut Pipeline,
    (shared, me): (&Shared, usize),
    snapshot: &Snapshot,
    frames: &mut [Frame],
    outcomes: &mut [Outcome],
    turn: Turn,
) {
    if shared.taps.is_on() && tapped::batch(io, pipeline, (shared, me), snapshot, frames, outcomes, turn) {
        return;
    }
    pipeline.process(snapshot, io.memory(), frames, outcomes, turn.now);
    act(io, shared.inboxes(), frames, outcomes);
    pipeline.settle(outcomes);
    act_on_extra(io, shared.inboxes(), pipeline);
}

/// Sleeps until a frame arrives, from a queue or another worker.
fn sleep<I: PacketIo>(io: &mut I, inbox: Option<&Inbox>) {
    let Some(inbox) = inbox else { return io.wait(MAX_SLEEP, None) };
    if let Some(bell) = inbox.lie_down() {
        io.wait(MAX_SLEEP, Some(bell));
    }
    inbox.get_up();
}

/// Acts on the frames that a batch brought forth besides its own.
pub fn act_on_extra<I: PacketIo>(io: &mut I, inboxes: &[Inbox], pipeline: &mut Pipeline) {
    if !pipeline.has_extra() {
        return;
    }
    let mut frames = [Frame::default(); BATCH];
    let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
    loop {
        let count = pipeline.take_extra(&mut frames, &mut outcomes);
        if count == 0 {
            return;
        }
        act(io, inboxes, &frames[..count], &mut outcomes[..count]);
        pipeline.settle(&outcomes[..count]);
    }
}

/// Sends, answers, hands over, passes or releases each frame; what fails becomes a drop. `inboxes` are the workers', by
/// number; none where there is one worker only.
pub fn act<I: PacketIo>(io: &mut I, inboxes: &[Inbox], frames: &[Frame], outcomes: &mut [Outcome]) {
    for (frame, outcome) in frames.iter().zip(outcomes) {
        match outcome.verdict {
            Verdict::Tx(port) | Verdict::Reply(port) => {
                if !io.transmit(port, *frame) {
                    io.release(*frame);
                    outcome.verdict = Verdict::Drop(DropReason::TxFull);
                }
            }
            Verdict::Pass => {
                if !io.pass(*frame) {
                    outcome.verdict = Verdict::Drop(DropReason::NotOurs);
                }
            }
            Verdict::Hand(worker) => {
                let inbox = inboxes.get(usize::from(worker));
                if !inbox.is_some_and(|inbox| inbox.send(frame, io.memory().bytes(frame))) {
                    outcome.verdict = Verdict::Drop(DropReason::PeerBusy);
                }
                io.release(*frame);
            }
            // What was kept was copied.
            Verdict::Drop(_) | Verdict::Kept => io.release(*frame),
        }
    }
}
