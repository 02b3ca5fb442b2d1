//! The frames of one batch, while a capture looks at them: as they came, and as they leave.
//!
//! Owns a worker's place for these copies and what goes from there into the rings. Never allocates once it is made.

use super::ends::Ends;
use super::{About, Capture, Captures, MOST_SNAPLEN};
use crate::dataplane::io::{BATCH, Frame, FrameMemory, PortIndex};
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::verdict::{Outcome, Verdict};

/// A copy of a frame, and where it comes from and goes to.
#[derive(Debug)]
struct Copy {
    ends: Ends,
    length: u32,
    bytes: Vec<u8>,
}

impl Default for Copy {
    fn default() -> Self {
        Copy { ends: Ends::default(), length: 0, bytes: Vec::with_capacity(MOST_SNAPLEN) }
    }
}

impl Copy {
    fn take(&mut self, bytes: &[u8], snaplen: usize) {
        self.ends = Ends::of(bytes);
        self.length = bytes.len() as u32;
        self.bytes.clear();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(snaplen)]);
    }

    fn clear(&mut self) {
        self.ends = Ends::default();
        self.bytes.clear();
    }
}

/// One frame of the batch.
#[derive(Debug, Default)]
struct Lane {
    came: Copy,
    leaves: Copy,
    /// By which port the frame leaves, where it does.
    exit: Option<PortIndex>,
}

/// Where a batch is, for its copies.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// The captures.
    pub captures: &'a Captures,
    /// The snapshot by which it was decided.
    pub snapshot: &'a Snapshot,
    /// The worker.
    pub worker: usize,
    /// When it was received: nanoseconds by the clock of all workers.
    pub time: u64,
}

/// A worker's copies of a batch.
#[derive(Debug)]
pub struct Scratch {
    lanes: Box<[Lane]>,
    /// Copies that went into rings so far.
    copies: u64,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { lanes: (0..BATCH).map(|_| Lane::default()).collect(), copies: 0 }
    }
}

impl Scratch {
    /// Copies frames as they came, before anything is decided.
    pub fn came<M: FrameMemory>(&mut self, captures: &Captures, memory: &M, frames: &[Frame]) {
        for (lane, frame) in self.lanes.iter_mut().zip(frames) {
            lane.came.take(memory.bytes(frame), captures.snaplen);
        }
    }

    /// Copies frames as they leave, before they are gone.
    pub fn leaves<M: FrameMemory>(&mut self, captures: &Captures, memory: &M, frames: &[Frame], outcomes: &[Outcome]) {
        for ((lane, frame), outcome) in self.lanes.iter_mut().zip(frames).zip(outcomes) {
            lane.leaves.clear();
            lane.exit = match outcome.verdict {
                Verdict::Tx(port) | Verdict::Reply(port) if captures.looks_twice => Some(port),
                _ => None,
            };
            if lane.exit.is_some() {
                lane.leaves.take(memory.bytes(frame), captures.snaplen);
            }
        }
    }

    /// Puts into the rings what is wanted, once the outcomes are final.
    pub fn keep(&mut self, batch: Batch<'_>, frames: &[Frame], outcomes: &[Outcome]) {
        let copies = &mut self.copies;
        for ((lane, frame), outcome) in self.lanes.iter().zip(frames).zip(outcomes) {
            let Some(about) = About::of(outcome, &lane.came.ends, batch.snapshot) else { continue };
            for capture in &batch.captures.list {
                if !capture.wanted.wants(&about, &lane.came.ends, &lane.leaves.ends) {
                    continue;
                }
                let Some(mut caught) = capture.room(batch.worker) else { continue };
                (caught.port, caught.leaves) = (frame.port, false);
                put(capture, batch, caught, about, &lane.came, copies);
                let left = matches!(outcome.verdict, Verdict::Tx(_) | Verdict::Reply(_));
                if let Some(exit) = lane.exit.filter(|_| capture.both && left)
                    && let Some(mut caught) = capture.more_room(batch.worker)
                {
                    (caught.port, caught.leaves) = (exit, true);
                    put(capture, batch, caught, about, &lane.leaves, copies);
                }
            }
        }
    }

    /// The same for frames that a batch brought forth besides its own: they never came in. Those that are dropped are what
    /// waited; of the others only captures that look twice have a copy.
    pub fn keep_extra(&mut self, batch: Batch<'_>, frames: &[Frame], outcomes: &[Outcome]) {
        let copies = &mut self.copies;
        for ((lane, frame), outcome) in self.lanes.iter().zip(frames).zip(outcomes) {
            let Some(about) = About::of(outcome, &lane.came.ends, batch.snapshot) else { continue };
            let exit = match outcome.verdict {
                Verdict::Tx(port) | Verdict::Reply(port) => Some(port),
                _ => None,
            };
            for capture in &batch.captures.list {
                let has = exit.is_none() || capture.both;
                if !has || !capture.wanted.wants(&about, &lane.came.ends, &lane.came.ends) {
                    continue;
                }
                let Some(mut caught) = capture.room(batch.worker) else { continue };
                (caught.port, caught.leaves) = (exit.unwrap_or(frame.port), exit.is_some());
                put(capture, batch, caught, about, &lane.came, copies);
            }
        }
    }
}

/// Fills a copy and hands it over.
fn put(
    capture: &Capture,
    batch: Batch<'_>,
    mut caught: Box<super::Caught>,
    about: About,
    copy: &Copy,
    copies: &mut u64,
) {
    *copies += 1;
    caught.about = about;
    (caught.time, caught.number, caught.length) = (batch.time, *copies, copy.length);
    caught.bytes.clear();
    // Within the capacity that the copy was made with.
    caught.bytes.extend_from_slice(&copy.bytes[..copy.bytes.len().min(capture.snaplen)]);
    capture.push(batch.worker, caught);
}
