//! The worker's loop: receive, decide, act, and keep house; one thread on one core.
//!
//! Owns the clock of the data plane (one reading a turn) and the pace of polling. Decides nothing about packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use super::io::{BATCH, Frame, PacketIo};
use super::pipeline::Pipeline;
use super::snapshot::Snapshot;
use super::verdict::{DropReason, Outcome, Verdict};
use crate::model::Polling;

/// Time in which the whole flow table is looked at for expired flows.
const SWEEP_PERIOD: Duration = Duration::from_secs(4);

/// Most buckets swept in a turn that found frames, and in one that did not.
const SWEEP_BUSY: usize = 64;
const SWEEP_IDLE: usize = 65_536;

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
}

/// How a worker behaves without packets.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Busy or adaptive polling.
    pub polling: Polling,
    /// Adaptive polling: time without a frame before it sleeps.
    pub idle: Duration,
}

/// Runs until [`Shared::stop`] is set. Never returns a frame unaccounted for: each received frame was transmitted,
/// passed or released when it ends.
pub fn run<I: PacketIo>(io: &mut I, pipeline: &mut Pipeline, shared: &Arc<Shared>, pace: Pace) {
    let stats = pipeline.stats().clone();
    let mut cache = Cache::new(&shared.snapshot);
    let mut frames = [Frame::default(); BATCH];
    let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
    let start = Instant::now();
    let mut before = start;
    let mut last_frame = start;
    let mut last_publish = start;
    let mut was_busy = false;
    let mut sweep_debt = 0.0f64;
    while !shared.stop.load(Relaxed) {
        io.service();
        let count = io.receive(&mut frames);
        let time = Instant::now();
        let now = (time - start).as_millis() as u32;
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
        if was_busy {
            last_frame = time;
            let (frames, outcomes) = (&mut frames[..count], &mut outcomes[..count]);
            pipeline.process(snapshot, io.memory(), frames, outcomes, now);
            act(io, frames, outcomes);
            pipeline.settle(outcomes);
            act_on_extra(io, pipeline);
        }
        if pipeline.fragments_are_due(now) {
            pipeline.expire_fragments(snapshot, io.memory(), now);
            act_on_extra(io, pipeline);
        }
        // The debt never exceeds one round: a worker that was stopped for long does not sweep in circles.
        let round = pipeline.sweep_length() as f64;
        sweep_debt = (sweep_debt + round * elapsed.as_secs_f64() / SWEEP_PERIOD.as_secs_f64()).min(round);
        let budget = (sweep_debt as usize).min(if was_busy { SWEEP_BUSY } else { SWEEP_IDLE });
        if budget > 0 {
            sweep_debt -= budget as f64;
            pipeline.sweep(snapshot, budget, now);
        }
        if time - last_publish >= PUBLISH_PERIOD {
            last_publish = time;
            stats.io.publish(&io.stats());
        }
        if !was_busy {
            let asleep = pace.polling == Polling::Adaptive && time - last_frame >= pace.idle && !io.tx_pending();
            if asleep {
                stats.sleeps.add(1);
                io.wait(MAX_SLEEP);
            } else {
                std::hint::spin_loop();
            }
        }
    }
    stats.io.publish(&io.stats());
}

/// Acts on the frames that a batch brought forth besides its own.
pub fn act_on_extra<I: PacketIo>(io: &mut I, pipeline: &mut Pipeline) {
    let mut frames = [Frame::default(); BATCH];
    let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
    loop {
        let count = pipeline.take_extra(&mut frames, &mut outcomes);
        if count == 0 {
            return;
        }
        act(io, &frames[..count], &mut outcomes[..count]);
        pipeline.settle(&outcomes[..count]);
    }
}

/// Sends, answers, passes or releases each frame; a transmission that fails becomes a drop.
pub fn act<I: PacketIo>(io: &mut I, frames: &[Frame], outcomes: &mut [Outcome]) {
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
            // Handing over copies the frame; what was kept was copied.
            Verdict::Drop(_) | Verdict::Kept | Verdict::Hand(_) => io.release(*frame),
        }
    }
}
