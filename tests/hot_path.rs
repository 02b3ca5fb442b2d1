//! The rules of the hot path, proved on the worker's own loop: no allocation for a packet, and a thousand swaps under
//! full load that lose nothing and move no flow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel::control::compile::Registry;
use evenkeel::dataplane::capture::{Capture, Captures, Caught, Decision, Wanted};
use evenkeel::dataplane::flow::Seeds;
use evenkeel::dataplane::io::memory::MemoryIo;
use evenkeel::dataplane::io::{BATCH, Frame, PacketIo};
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::schedule::SCHEDULERS;
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::dataplane::verdict::{Outcome, Verdict};
use evenkeel::dataplane::worker::{self, Pace, Shared};
use evenkeel::model::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// The allocation counts are the whole process's: the tests here take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn desired(scheduler: Scheduler, servers: &[(u8, u16)]) -> Desired {
    let key =
        ServiceKey { address: IpAddr::from([192, 0, 2, 10]), protocol: Protocol::Udp, ports: PortRange::single(53) };
    let servers = servers.iter().map(|(n, weight)| Server::dr(IpAddr::from([10, 0, 0, *n]), *weight)).collect();
    Desired::of(vec![Service::dr("dns", key, scheduler, servers)])
}

fn compile(registry: &mut Registry, desired: &Desired) -> Snapshot {
    let hop = |address: IpAddr| match address {
        IpAddr::V4(a) => Some(NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 1, a.octets()[3]]) }),
        IpAddr::V6(_) => None,
    };
    registry.compile(desired, vec![Port::new(OWN, 1500, true)], hop).expect("compiles").snapshot
}

/// A query of flow `n`.
fn query(n: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], OWN.0)
        .ipv4([198, 51, 100, 7], [192, 0, 2, 10], 64)
        .udp(1024 + n, 53)
        .write(&mut frame, &n.to_be_bytes())
        .expect("builds");
    frame
}

fn settings() -> EngineSettings {
    EngineSettings { flows: 20_000, flows_ipv6: 1024, ..EngineSettings::default() }
}

#[test]
fn no_packet_allocates() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    for known in SCHEDULERS {
        let flags = !known.flags.is_empty();
        let scheduler = Scheduler { port: flags, fallback: flags, ..Scheduler::named(known.name) };
        // The counts are the whole process's, and the test harness has a thread that allocates now and then. What the
        // pipeline allocates, it allocates on every attempt: each begins with a new one.
        let attempts: Vec<usize> = (0..5).map(|_| allocations(scheduler)).collect();
        assert!(attempts.contains(&0), "{scheduler:?}: each attempt allocated: {attempts:?}");
    }
}

/// What a new pipeline allocates, frees or reallocates for 200 batches of new flows, hits and drops.
fn allocations(scheduler: Scheduler) -> usize {
    let snapshot = compile(&mut Registry::default(), &desired(scheduler, &[(1, 3), (2, 2), (3, 1)]));
    let mut pipeline = Pipeline::new(&settings(), Seeds::random(), Arc::default()).expect("memory");
    // In-memory I/O copies what it is given, so the pipeline is counted on frames that lie there already.
    let mut io = MemoryIo::new(1, 256, 2048);
    let (mut new, mut hits, mut changes) = (0, 0, 0);
    for round in 0..4u16 {
        for batch in 0..50u16 {
            for lane in 0..BATCH as u16 {
                let mut frame = query(batch * BATCH as u16 + lane);
                if lane == 7 {
                    frame[24] ^= 1; // a drop takes the long way
                }
                assert!(io.inject(0, &frame));
            }
            let mut frames = [Frame::default(); BATCH];
            let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
            assert_eq!(io.receive(&mut frames), BATCH);
            let region = Region::new(ALLOCATOR);
            pipeline.process(&snapshot, io.memory(), &mut frames, &mut outcomes, u32::from(round) * 1000);
            pipeline.settle(&outcomes);
            pipeline.sweep(&snapshot, 64, u32::from(round) * 1000);
            let change = region.change();
            changes += change.allocations + change.deallocations + change.reallocations;
            new += outcomes.iter().filter(|o| o.new_flow).count();
            hits += outcomes.iter().filter(|o| matches!(o.verdict, Verdict::Tx(_)) && !o.new_flow).count();
            worker::act(&mut io, &[], &frames, &mut outcomes);
            io.sent(0);
        }
    }
    assert_eq!((new, hits), (50 * 63, 3 * 50 * 63), "{scheduler:?}");
    changes
}

/// In-memory I/O that never runs dry: it plays the same queries in turn, and checks each answer as it is sent.
struct Load {
    inner: MemoryIo,
    frames: Vec<Vec<u8>>,
    next: usize,
    sent: u64,
    injected: u64,
    /// Server (last byte of its MAC) of each flow, as first seen.
    bound: HashMap<u16, u8>,
    moved: u64,
}

impl PacketIo for Load {
    type Memory = <MemoryIo as PacketIo>::Memory;

    fn memory(&mut self) -> &mut Self::Memory {
        self.inner.memory()
    }

    fn receive(&mut self, out: &mut [Frame]) -> usize {
        for _ in 0..out.len() {
            assert!(self.inner.inject(0, &self.frames[self.next]));
            self.injected += 1;
            self.next = (self.next + 1) % self.frames.len();
        }
        self.inner.receive(out)
    }

    fn transmit(&mut self, port: u8, frame: Frame) -> bool {
        let accepted = self.inner.transmit(port, frame);
        for bytes in self.inner.sent(0) {
            self.sent += 1;
            let flow = u16::from_be_bytes([bytes[42], bytes[43]]);
            self.moved += u64::from(*self.bound.entry(flow).or_insert(bytes[5]) != bytes[5]);
        }
        accepted
    }

    fn pass(&mut self, frame: Frame) -> bool {
        self.inner.pass(frame)
    }

    fn release(&mut self, frame: Frame) {
        self.inner.release(frame);
    }

    fn service(&mut self) {
        assert!(self.inner.frames_accounted().balanced());
    }

    fn wait(&mut self, _: Duration, _: Option<std::os::fd::BorrowedFd<'_>>) {}

    fn tx_pending(&self) -> bool {
        false
    }

    fn stats(&mut self) -> evenkeel::dataplane::io::IoStats {
        self.inner.stats()
    }
}

#[test]
fn a_thousand_swaps_under_full_load_lose_nothing_and_move_no_flow() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let mut registry = Registry::default();
    // Servers 1 to 3 stay, with changing weights; 4 and 5 come and go, with weight 0: they get no flows to lose.
    let stays = |round: u16| [(1, 1 + round % 5), (2, round % 3), (3, 2)];
    let first = compile(&mut registry, &desired(Scheduler::WLC, &stays(1)));
    let shared = Arc::new(Shared::new(first, 1, 2048 - 256).expect("shared"));
    let mut load = Load {
        inner: MemoryIo::new(1, 256, 2048),
        frames: (0..2000).map(query).collect(),
        next: 0,
        sent: 0,
        injected: 0,
        bound: HashMap::new(),
        moved: 0,
    };
    let mut pipeline = Pipeline::new(&settings(), Seeds::random(), Arc::default()).expect("memory");
    let stats = pipeline.stats().clone();
    let theirs = shared.clone();
    let worker = std::thread::spawn(move || {
        let pace = Pace { polling: Polling::Busy, idle: Duration::ZERO };
        worker::run(&mut load, &mut pipeline, &theirs, 0, pace);
        load
    });
    // Every flow is there before the first swap, and the worker has seen each snapshot before the next.
    while stats.forwarded.get() < 4000 {
        std::thread::yield_now();
    }
    for round in 1..=1000u16 {
        let mut servers = stays(round).to_vec();
        if round % 2 == 0 {
            servers.insert(usize::from(round % 4), (4 + (round % 4 / 2) as u8, 0));
        }
        let next = compile(&mut registry, &desired(Scheduler::WLC, &servers));
        let generation = next.generation;
        shared.snapshot.store(Arc::new(next));
        while stats.generation.get() != generation {
            std::thread::yield_now();
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    let load = worker.join().expect("the worker lives");
    assert_eq!((load.sent, load.moved, load.bound.len()), (load.injected, 0, 2000));
    assert!(stats.drops.iter().all(|d| d.get() == 0));
    println!("{} packets over 1000 swaps", load.sent);
}

/// In-memory I/O that gives back what it is to send, so that what is allocated between two batches is the worker's own; and
/// somebody who takes the copies of a capture away, between batches too.
struct Watched {
    inner: MemoryIo,
    shared: Arc<Shared>,
    capture: Arc<Capture>,
    frames: Vec<Vec<u8>>,
    batches: usize,
    region: Option<Region<'static, std::alloc::System>>,
    /// Allocations, frees and reallocations of the batches, but for the first ones.
    changes: usize,
    /// Copies by whether they are of frames that leave, and of those that came the dropped ones.
    copies: [usize; 3],
}

/// Batches that are watched, and those before, in which a thread makes what it keeps.
const BATCHES: usize = 400;
const FIRST: usize = 5;

impl Watched {
    fn take_copies(&mut self) {
        while let Some(caught) = self.capture.take(0) {
            let Caught { about, leaves, bytes, length, .. } = &*caught;
            let flow = usize::from(u16::from_be_bytes([bytes[42], bytes[43]]));
            assert_eq!((bytes.len(), *length), (44, 44));
            if *leaves {
                assert_eq!((&bytes[..4], &bytes[6..12]), (&[2, 0, 0, 0][..], &OWN.0[..]), "as it leaves");
            } else {
                assert_eq!(bytes, &self.frames[flow], "as it came");
            }
            let dropped = about.decision == Decision::Drop;
            assert_eq!(dropped, flow % BATCH == 7, "{about:?}");
            assert!(dropped || about.service.is_some() && about.server.is_some(), "{about:?}");
            self.copies[if dropped { 2 } else { usize::from(*leaves) }] += 1;
            self.capture.give_back(0, caught);
        }
    }
}

impl PacketIo for Watched {
    type Memory = <MemoryIo as PacketIo>::Memory;

    fn memory(&mut self) -> &mut Self::Memory {
        self.inner.memory()
    }

    fn receive(&mut self, out: &mut [Frame]) -> usize {
        if let Some(region) = self.region.take() {
            let change = region.change();
            self.changes += change.allocations + change.deallocations + change.reallocations;
        }
        self.take_copies();
        if self.batches == BATCHES {
            self.shared.stop.store(true, Ordering::Relaxed);
            return 0;
        }
        let batch = self.batches * BATCH;
        for lane in 0..BATCH {
            assert!(self.inner.inject(0, &self.frames[(batch + lane) % self.frames.len()]));
        }
        self.batches += 1;
        let count = self.inner.receive(out);
        self.region = (self.batches > FIRST).then(|| Region::new(ALLOCATOR));
        count
    }

    fn transmit(&mut self, _: u8, frame: Frame) -> bool {
        self.inner.release(frame);
        true
    }

    fn pass(&mut self, frame: Frame) -> bool {
        self.inner.release(frame);
        true
    }

    fn release(&mut self, frame: Frame) {
        self.inner.release(frame);
    }

    fn service(&mut self) {}

    fn wait(&mut self, _: Duration, _: Option<std::os::fd::BorrowedFd<'_>>) {}

    fn tx_pending(&self) -> bool {
        false
    }

    fn stats(&mut self) -> evenkeel::dataplane::io::IoStats {
        self.inner.stats()
    }
}

#[test]
fn no_packet_allocates_while_there_are_captures() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let attempts: Vec<usize> = (0..5).map(|_| captured()).collect();
    assert!(attempts.contains(&0), "each attempt allocated: {attempts:?}");
}

/// What a worker allocates, frees or reallocates under two captures: one whose copies are taken away and one whose are not.
fn captured() -> usize {
    let snapshot = compile(&mut Registry::default(), &desired(Scheduler::WLC, &[(1, 3), (2, 2), (3, 1)]));
    let shared = Arc::new(Shared::new(snapshot, 1, 2048 - 256).expect("shared"));
    let everything = (BATCHES * BATCH) as u64;
    let [taken, left] = [true, false].map(|both| {
        let capture = Capture::new(Wanted::default(), everything * 2, if both { 4096 } else { 60 }, both, 1);
        Arc::new(capture)
    });
    let captures = Arc::new(Captures::new(vec![taken.clone(), left.clone()]));
    let before = shared.taps().set(captures.clone());
    let mut frames: Vec<Vec<u8>> = (0..10 * BATCH as u16).map(query).collect();
    frames.iter_mut().skip(7).step_by(BATCH).for_each(|frame| frame[24] ^= 1);
    let mut io = Watched {
        inner: MemoryIo::new(1, 256, 2048),
        shared: shared.clone(),
        capture: taken.clone(),
        frames,
        batches: 0,
        region: None,
        changes: 0,
        copies: [0; 3],
    };
    let mut pipeline = Pipeline::new(&settings(), Seeds::random(), Arc::default()).expect("memory");
    let theirs = shared.clone();
    let worker = std::thread::spawn(move || {
        let pace = Pace { polling: Polling::Busy, idle: Duration::ZERO };
        worker::run(&mut io, &mut pipeline, &theirs, 0, pace);
        io.take_copies();
        io
    });
    let io = worker.join().expect("the worker lives");
    drop((before, captures));
    assert_eq!(io.copies, [BATCHES * 63, BATCHES * 63, BATCHES]);
    assert_eq!(taken.missed(), 0);
    // Nobody took these away: what found no room was counted, and nothing else happened.
    let mut kept = 0;
    while let Some(caught) = left.take(0) {
        assert!(!caught.leaves);
        kept += 1;
    }
    assert!(kept > 0 && left.missed() > 0);
    assert_eq!(kept + left.missed(), everything);
    io.changes
}
