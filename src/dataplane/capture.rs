//! Captures: frames that somebody wants to see, copied while the worker has them in its hands.
//!
//! Owns which frames are wanted, the rings in which copies of them wait, and where both are laid out for the workers. While
//! there is no capture a batch pays one relaxed load. While there is one, nothing is allocated and nobody is waited for: the
//! copies lie in memory that was made when the capture began, and where that is full a frame goes uncopied and is counted as
//! missed. Never decides about a frame and never reads a clock.

pub mod ends;
pub mod scratch;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arc_swap::{ArcSwap, Guard};
use crossbeam::queue::ArrayQueue;

use super::io::PortIndex;
use super::query::Prefix;
use super::snapshot::Snapshot;
use super::verdict::{DropReason, NONE, Outcome, Verdict};
use crate::model::ServiceKey;
use ends::Ends;
use scratch::Scratch;

/// Most bytes of a frame that a capture keeps: no frame is longer (`engine.frame_size`).
pub const MOST_SNAPLEN: usize = 4096;

/// Memory for the copies of one capture, over all workers, in bytes.
const RING_BYTES: usize = 8 << 20;

/// Fewest and most copies that wait at one worker.
const SLOTS: std::ops::RangeInclusive<usize> = 128..=4096;

/// What became of a frame, as captures tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Sent to a server, or by NAT to a client.
    Tx,
    /// Turned into an answer to its sender.
    Reply,
    /// Given back to the kernel.
    Pass,
    /// Dropped.
    Drop,
    /// A fragment that waits for its first one.
    Kept,
}

impl Decision {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Decision; 5] = [Decision::Tx, Decision::Reply, Decision::Pass, Decision::Drop, Decision::Kept];

    /// Name as on the command line and in comments of a capture.
    pub const fn name(self) -> &'static str {
        match self {
            Decision::Tx => "tx",
            Decision::Reply => "reply",
            Decision::Pass => "pass",
            Decision::Drop => "drop",
            Decision::Kept => "kept",
        }
    }

    /// What a verdict is; `None`: another worker decides.
    const fn of(verdict: Verdict) -> Option<(Decision, Option<DropReason>)> {
        match verdict {
            Verdict::Tx(_) => Some((Decision::Tx, None)),
            Verdict::Reply(_) => Some((Decision::Reply, None)),
            Verdict::Pass => Some((Decision::Pass, None)),
            Verdict::Kept => Some((Decision::Kept, None)),
            Verdict::Drop(reason) => Some((Decision::Drop, Some(reason))),
            Verdict::Hand(_) => None,
        }
    }
}

/// Which frames are wanted: those for which all of it is true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What became of it.
    pub decision: Option<Decision>,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// The service that it was for.
    pub service: Option<ServiceKey>,
    /// A network that it comes from or goes to, as it came in or as it leaves.
    pub client: Option<Prefix>,
    /// Its server: address, and port.
    pub server: Option<(IpAddr, Option<u16>)>,
}

/// What is known of a frame besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// What became of it.
    pub decision: Decision,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// The service that it was for.
    pub service: Option<ServiceKey>,
    /// Address and port (host order) of its server.
    pub server: Option<(IpAddr, u16)>,
    /// Whether it opened a flow.
    pub new_flow: bool,
}

impl About {
    /// What an outcome says of a frame that had these ends. `None`: another worker decides about it.
    pub(super) fn of(outcome: &Outcome, ends: &Ends, snapshot: &Snapshot) -> Option<About> {
        let (decision, reason) = Decision::of(outcome.verdict)?;
        let known = (outcome.service != NONE).then_some(outcome.service);
        let index = known.or_else(|| snapshot.service(ends.destination?, ends.protocol?, ends.ports?.1));
        let service = index.and_then(|index| snapshot.services.get(usize::from(index))).map(|service| *service.key());
        let member = if outcome.server == NONE { None } else { snapshot.member_at(outcome.server) };
        let of_service = service.and_then(|service| service.ports.as_single()).unwrap_or(0);
        let server = member.map(|m| (m.address, if m.port == 0 { of_service } else { m.port }));
        Some(About { decision, reason, service, server, new_flow: outcome.new_flow })
    }
}

impl Wanted {
    /// Whether a frame is wanted that had these ends when it came in and has those now.
    fn wants(&self, about: &About, came: &Ends, leaves: &Ends) -> bool {
        let is_service = |wanted: ServiceKey| match about.service {
            Some(service) => service == wanted,
            // What is so broken that it has no ports is told by its destination.
            None => came.ports.is_none() && came.destination == Some(wanted.address),
        };
        let is_server = |(address, port): (IpAddr, Option<u16>)| match about.server {
            Some(server) => server.0 == address && port.is_none_or(|port| port == server.1),
            None => came.source == Some(address) || leaves.destination == Some(address),
        };
        let is_client = |network: Prefix| {
            let all = [came.source, came.destination, leaves.source, leaves.destination];
            all.into_iter().flatten().any(|address| network.contains(address))
        };
        self.decision.is_none_or(|wanted| wanted == about.decision)
            && self.reason.is_none_or(|wanted| Some(wanted) == about.reason)
            && self.service.is_none_or(is_service)
            && self.server.is_none_or(is_server)
            && self.client.is_none_or(is_client)
    }
}

/// A copy of a frame.
#[derive(Clone, Debug)]
pub struct Caught {
    /// What is known of it.
    pub about: About,
    /// When its batch was received: nanoseconds by the clock of all workers.
    pub time: u64,
    /// The worker's count of its copies, by which those of one batch are put in order.
    pub number: u64,
    /// Interface on which it came, or by which it leaves.
    pub port: PortIndex,
    /// Whether this is the frame as it leaves.
    pub leaves: bool,
    /// Bytes of the whole frame.
    pub length: u32,
    /// Its first bytes.
    pub bytes: Vec<u8>,
}

/// Copies of one worker for one capture.
#[derive(Debug)]
struct Ring {
    free: ArrayQueue<Box<Caught>>,
    full: ArrayQueue<Box<Caught>>,
    missed: AtomicU64,
}

impl Ring {
    fn new(slots: usize, snaplen: usize) -> Ring {
        let free = ArrayQueue::new(slots);
        let about = About { decision: Decision::Drop, reason: None, service: None, server: None, new_flow: false };
        for _ in 0..slots {
            let bytes = Vec::with_capacity(snaplen);
            let empty = Caught { about, time: 0, number: 0, port: 0, leaves: false, length: 0, bytes };
            // As many as there is room for.
            let _ = free.push(Box::new(empty));
        }
        Ring { free, full: ArrayQueue::new(slots), missed: AtomicU64::new(0) }
    }
}

/// One capture.
#[derive(Debug)]
pub struct Capture {
    wanted: Wanted,
    snaplen: usize,
    both: bool,
    /// Frames that are still wanted.
    left: AtomicU64,
    rings: Box<[Ring]>,
}

impl Capture {
    /// At most `count` frames, the first `snaplen` bytes of each (at most [`MOST_SNAPLEN`]), at so many workers. `both`: the
    /// frames as they leave, too.
    pub fn new(wanted: Wanted, count: u64, snaplen: usize, both: bool, workers: usize) -> Capture {
        let snaplen = snaplen.min(MOST_SNAPLEN);
        let each = RING_BYTES / workers.max(1) / (snaplen + size_of::<Caught>());
        let slots = each.clamp(*SLOTS.start(), *SLOTS.end());
        let rings = (0..workers).map(|_| Ring::new(slots, snaplen)).collect();
        Capture { wanted, snaplen, both, left: AtomicU64::new(count), rings }
    }

    /// Whether it has as many frames as it wants.
    pub fn is_full(&self) -> bool {
        self.left.load(Relaxed) == 0
    }

    /// Frames that it wanted and that went uncopied, as there was no room.
    pub fn missed(&self) -> u64 {
        self.rings.iter().map(|ring| ring.missed.load(Relaxed)).sum()
    }

    /// Whether no copy waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.rings.iter().all(|ring| ring.full.is_empty())
    }

    /// Takes the next copy of a worker; [`Capture::give_back`] it.
    pub fn take(&self, worker: usize) -> Option<Box<Caught>> {
        self.rings.get(worker)?.full.pop()
    }

    /// Gives the memory of a copy back to its worker.
    pub fn give_back(&self, worker: usize, caught: Box<Caught>) {
        if let Some(ring) = self.rings.get(worker) {
            let _ = ring.free.push(caught);
        }
    }

    /// For the worker: room for a copy, if one more frame is wanted.
    fn room(&self, worker: usize) -> Option<Box<Caught>> {
        if self.is_full() {
            return None;
        }
        let ring = self.rings.get(worker)?;
        let Some(room) = ring.free.pop() else {
            ring.missed.fetch_add(1, Relaxed);
            return None;
        };
        if self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err() {
            let _ = ring.free.push(room);
            return None;
        }
        Some(room)
    }

    /// For the worker: the same for the other half of a frame that was copied as it came.
    fn more_room(&self, worker: usize) -> Option<Box<Caught>> {
        let ring = self.rings.get(worker)?;
        let room = ring.free.pop();
        if room.is_none() {
            ring.missed.fetch_add(1, Relaxed);
        }
        room
    }

    /// For the worker: hands a copy over.
    fn push(&self, worker: usize, caught: Box<Caught>) {
        if let Some(ring) = self.rings.get(worker) {
            let _ = ring.full.push(caught);
        }
    }
}

/// The captures in force at one moment.
#[derive(Debug, Default)]
pub struct Captures {
    list: Vec<Arc<Capture>>,
    /// Whether frames are looked at when they leave.
    looks_twice: bool,
    /// Most bytes that any of them keeps.
    snaplen: usize,
}

impl Captures {
    /// Of these.
    pub fn new(list: Vec<Arc<Capture>>) -> Captures {
        let looks_twice = list
            .iter()
            .any(|capture| capture.both || capture.wanted.client.is_some() || capture.wanted.server.is_some());
        let snaplen = list.iter().map(|capture| capture.snaplen).max().unwrap_or(0);
        Captures { list, looks_twice, snaplen }
    }
}

/// Where captures are laid out for the workers.
#[derive(Debug)]
pub struct Taps {
    on: AtomicBool,
    captures: ArcSwap<Captures>,
    /// Each worker's place for the frames of a batch: there while the worker does not use it, and from the first capture on.
    scratch: Box<[ArrayQueue<Box<Scratch>>]>,
    prepared: AtomicBool,
}

impl Taps {
    /// For so many workers; no capture.
    pub fn new(workers: usize) -> Taps {
        Taps {
            on: AtomicBool::new(false),
            captures: ArcSwap::from_pointee(Captures::default()),
            scratch: (0..workers).map(|_| ArrayQueue::new(1)).collect(),
            prepared: AtomicBool::new(false),
        }
    }

    /// Whether there is a capture: what each batch asks.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Puts other captures in force and returns those that were. Whoever calls keeps both until nobody else has them: a worker
    /// that lets go last would give the memory back to the system.
    pub fn set(&self, captures: Arc<Captures>) -> Arc<Captures> {
        let on = !captures.list.is_empty();
        if on && !self.prepared.swap(true, Relaxed) {
            for place in &self.scratch {
                let _ = place.push(Box::default());
            }
        }
        let before = self.captures.swap(captures);
        self.on.store(on, Relaxed);
        before
    }

    /// For the worker: its scratch and the captures in force, for one batch.
    pub fn begin(&self, worker: usize) -> Option<(Box<Scratch>, Guard<Arc<Captures>>)> {
        let scratch = self.scratch.get(worker)?.pop()?;
        Some((scratch, self.captures.load()))
    }

    /// For the worker: puts the scratch back.
    pub fn end(&self, worker: usize, scratch: Box<Scratch>) {
        if let Some(place) = self.scratch.get(worker) {
            let _ = place.push(scratch);
        }
    }
}

#[cfg(test)]
mod tests;
