//! The same batch while there is a capture: frames are copied before they are decided about and before they leave.
//!
//! Owns the order of that. Allocates nothing, waits for nobody and reads no clock; what is wanted and where copies go is in
//! [`crate::dataplane::capture`].

use super::super::capture::scratch::Batch;
use super::super::io::{BATCH, Frame, PacketIo};
use super::super::pipeline::Pipeline;
use super::super::snapshot::Snapshot;
use super::super::verdict::{Outcome, Verdict};
use super::{Shared, Turn, act, act_on_extra};

/// One batch, from frames to counters and copies. `false`: it was not dealt with, as there is no place for copies.
#[cold]
#[inline(never)]
pub(super) fn batch<I: PacketIo>(
    io: &mut I,
    pipeline: &mut Pipeline,
    (shared, me): (&Shared, usize),
    snapshot: &Snapshot,
    frames: &mut [Frame],
    outcomes: &mut [Outcome],
    turn: Turn,
) -> bool {
    let Some((mut scratch, captures)) = shared.taps().begin(me) else { return false };
    let batch = Batch { captures: &captures, snapshot, worker: me, time: shared.nanoseconds(turn.time) };
    scratch.came(&captures, io.memory(), frames);
    pipeline.process(snapshot, io.memory(), frames, outcomes, turn.now);
    scratch.leaves(&captures, io.memory(), frames, outcomes);
    act(io, shared.inboxes(), frames, outcomes);
    pipeline.settle(outcomes);
    scratch.keep(batch, frames, outcomes);
    shared.taps().end(me, scratch);
    extra(io, pipeline, (shared, me), snapshot, turn);
    true
}

/// The frames that a batch, or the end of a wait, brought forth besides its own.
#[cold]
#[inline(never)]
pub(super) fn extra<I: PacketIo>(
    io: &mut I,
    pipeline: &mut Pipeline,
    (shared, me): (&Shared, usize),
    snapshot: &Snapshot,
    turn: Turn,
) {
    if !pipeline.has_extra() {
        return;
    }
    let Some((mut scratch, captures)) = shared.taps().begin(me) else {
        return act_on_extra(io, shared.inboxes(), pipeline);
    };
    let batch = Batch { captures: &captures, snapshot, worker: me, time: shared.nanoseconds(turn.time) };
    let mut frames = [Frame::default(); BATCH];
    let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
    loop {
        let count = pipeline.take_extra(&mut frames, &mut outcomes);
        if count == 0 {
            break;
        }
        scratch.came(&captures, io.memory(), &frames[..count]);
        act(io, shared.inboxes(), &frames[..count], &mut outcomes[..count]);
        pipeline.settle(&outcomes[..count]);
        scratch.keep_extra(batch, &frames[..count], &outcomes[..count]);
    }
    shared.taps().end(me, scratch);
}
