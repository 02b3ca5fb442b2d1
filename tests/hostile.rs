//! A million random and mutated frames through the pipeline, with the configuration swapped under them.
//!
//! Deterministic: one seed, one outcome. After each batch every frame is accounted for, has exactly one outcome, and
//! every drop is counted; what is sent is sound; the servers' loads are the flows in the tables.
//!
//! `HOSTILE_FRAMES=50000000 HOSTILE_SEED=2 cargo test --test hostile` goes on for longer, or elsewhere.

mod hostile_support;

use std::collections::HashMap;

use evenkeel::dataplane::checksum;
use evenkeel::dataplane::flow::Entry;
use evenkeel::dataplane::io::memory::MemoryIo;
use evenkeel::dataplane::io::{BATCH, Frame, PacketIo};
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::snapshot::{Snapshot, slot_of};
use evenkeel::dataplane::verdict::{DropReason, NONE, Outcome, Verdict};
use evenkeel::dataplane::worker;
use hostile_support::frames::{bases, mutated};
use hostile_support::{MTU, OWN, Random, Site};

const FRAMES: u64 = 1_000_000;

/// Reasons that this traffic need not bring about. None: the test must reach them all.
const UNREACHED: [DropReason; 0] = [];

struct Rig {
    io: MemoryIo,
    pipeline: Pipeline,
    site: Site,
    snapshot: Snapshot,
    now: u32,
    frames: u64,
    tally: HashMap<&'static str, u64>,
    digest: u64,
}

impl Rig {
    fn new() -> Rig {
        let mut site = Site::default();
        let snapshot = site.compile(2);
        let pipeline = site.pipeline();
        let (io, tally) = (MemoryIo::new(2, 256, 4096), HashMap::new());
        // Close to the wrap of the clock: it happens early in the test.
        Rig { io, pipeline, site, snapshot, now: u32::MAX - 60_000, frames: 0, tally, digest: 0 }
    }

    /// Runs one batch through, and checks all that must hold after it.
    fn batch(&mut self, frames: &[(u8, Vec<u8>)]) {
        for (port, frame) in frames {
            assert!(self.io.inject(*port, frame), "a frame of {} bytes did not fit", frame.len());
        }
        let mut batch = [Frame::default(); BATCH];
        let count = self.io.receive(&mut batch);
        assert_eq!(count, frames.len());
        let drops_before = self.drops();
        let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
        let outcomes = &mut outcomes[..count];
        self.pipeline.process(&self.snapshot, self.io.memory(), &mut batch[..count], outcomes, self.now);
        worker::act(&mut self.io, &batch[..count], outcomes);
        self.pipeline.settle(outcomes);
        self.io.service();

        let account = self.io.frames_accounted();
        assert!(account.balanced(), "{account:?}");
        assert_eq!((account.held, account.rx, account.tx), (0, 0, 0), "a frame stayed behind");

        self.frames += count as u64;
        let mut sent = [0usize; 2];
        let (mut passed, mut dropped) = (0, 0);
        for outcome in &*outcomes {
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
            let frames = self.io.sent(port);
            assert_eq!(frames.len(), sent[usize::from(port)], "frames sent on port {port}");
            frames.iter().for_each(|frame| sound(frame, port));
        }
        assert_eq!(self.io.passed().len(), passed);
        assert_eq!(self.drops() - drops_before, dropped, "each drop is counted once");
        assert_eq!(self.pipeline.stats().frames.get(), self.frames);
    }

    fn drops(&self) -> u64 {
        self.pipeline.stats().drops.iter().map(|drop| drop.get()).sum()
    }

    /// Active and inactive flows of each server as the tables have them, and as the schedulers are told.
    fn compare_loads(&self) {
        let mut found: HashMap<u32, (u32, u32)> = HashMap::new();
        let mut live = 0;
        let mut count = |server: u32, active: bool| {
            live += 1;
            let row = found.entry(server).or_default();
            if active { row.0 += 1 } else { row.1 += 1 }
        };
        let (v4, v6) = self.pipeline.tables();
        v4.for_each(|flow| count(flow.server(), flow.state().is_active()));
        v6.for_each(|flow| count(flow.server(), flow.state().is_active()));
        assert_eq!(live, v4.len() + v6.len(), "the tables miscount themselves");
        assert!(v4.len() <= v4.capacity() && v6.len() <= v6.capacity());
        for service in &self.snapshot.services {
            for member in &service.members {
                let loads = (member.load.active(), member.load.inactive());
                let flows = found.get(&member.id).copied().unwrap_or_default();
                assert_eq!(loads, flows, "server {} in slot {}", member.address, slot_of(member.id));
            }
        }
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
    let forwarded = [6, 17, 132].contains(&protocol);
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

fn run(frames: u64, seed: u64) -> Rig {
    let mut random = Random::new(seed);
    let bases = bases();
    let mut rig = Rig::new();
    let mut batches = 0u64;
    while rig.frames < frames {
        batches += 1;
        let count = (1 + random.below(BATCH as u64)).min(frames - rig.frames);
        let batch: Vec<(u8, Vec<u8>)> =
            (0..count).map(|_| (u8::from(random.one_in(16)), mutated(&bases, &mut random))).collect();
        rig.io.limit_output(if random.one_in(200) { 8 } else { usize::MAX });
        rig.batch(&batch);
        // Mostly the pace of a busy link; now and then minutes pass.
        let pause = if random.one_in(400) { random.below(200_000) } else { random.below(20) };
        rig.now = rig.now.wrapping_add(pause as u32);
        let budget = if random.one_in(100) { usize::MAX / 2 } else { 64 };
        rig.pipeline.sweep(&rig.snapshot, budget, rig.now);
        if random.one_in(20) {
            rig.site.change(&mut random);
            // Now and then an interface is gone from the configuration while its frames still come.
            let ports = if random.one_in(10) { 1 } else { 2 };
            rig.snapshot = rig.site.compile(ports);
            rig.compare_loads();
        }
        if batches.is_multiple_of(64) {
            rig.compare_loads();
        }
    }
    rig.compare_loads();
    rig
}

#[test]
fn a_million_hostile_frames() {
    let given = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let rig = run(given("HOSTILE_FRAMES").unwrap_or(FRAMES).max(FRAMES), given("HOSTILE_SEED").unwrap_or(1));
    let mut tally: Vec<_> = rig.tally.iter().collect();
    tally.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let swaps = rig.snapshot.generation;
    println!("{} frames, {swaps} snapshots: {tally:?}", rig.frames);
    assert!(swaps > 1000, "only {swaps} snapshots");
    let stats = rig.pipeline.stats();
    assert!(stats.expired.get() > 0 && stats.evicted.get() > 0, "no flow expired, or none gave way");
    for name in ["tx", "reply", "pass"] {
        assert!(rig.tally.get(name).is_some_and(|count| *count > FRAMES / 100), "hardly any {name}: {tally:?}");
    }
    let missing: Vec<&str> = DropReason::ALL
        .iter()
        .filter(|reason| !UNREACHED.contains(reason))
        .map(|reason| reason.name())
        .filter(|name| !rig.tally.contains_key(name))
        .collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

#[test]
fn the_same_seed_gives_the_same_outcomes() {
    assert_eq!(run(20_000, 7).digest, run(20_000, 7).digest);
    assert_ne!(run(20_000, 7).digest, run(20_000, 8).digest);
}

/// Each base cut at each length, and each of its bytes set to each of a few values.
#[test]
fn every_length_and_every_byte() {
    const VALUES: [u8; 8] = [0, 1, 4, 0x3f, 0x40, 0x7f, 0x80, 0xff];
    let mut rig = Rig::new();
    let mut waiting = Vec::new();
    let mut put = |rig: &mut Rig, frame: Vec<u8>| {
        waiting.push((0, frame));
        if waiting.len() == BATCH {
            rig.batch(&std::mem::take(&mut waiting));
            rig.now = rig.now.wrapping_add(1000);
            rig.pipeline.sweep(&rig.snapshot, 200, rig.now);
        }
    };
    for base in bases() {
        for length in 0..base.len() {
            put(&mut rig, base[..length].to_vec());
        }
        for at in 0..base.len().min(140) {
            for value in VALUES {
                let mut frame = base.clone();
                frame[at] = value;
                put(&mut rig, frame);
            }
        }
    }
    rig.compare_loads();
    assert!(rig.frames > 20_000, "{}", rig.frames);
}
