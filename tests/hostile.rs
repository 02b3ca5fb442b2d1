//! A million random and mutated frames through the pipeline, with the configuration swapped under them.
//!
//! Deterministic: one seed, one outcome. After each batch every frame is accounted for, has exactly one outcome, and
//! every drop is counted; what is sent is sound; the servers' loads are the flows in the tables.
//!
//! `HOSTILE_FRAMES=50000000 HOSTILE_SEED=2 cargo test --test hostile` goes on for longer, or elsewhere.

mod hostile_support;

use std::collections::VecDeque;

use evenkeel::dataplane::io::BATCH;
use evenkeel::dataplane::verdict::DropReason;
use hostile_support::Random;
use hostile_support::frames::{bases, fragments, mutated};
use hostile_support::rig::Rig;

const FRAMES: u64 = 1_000_000;

/// Reasons that this traffic need not bring about: one worker that forwards by direct routing only cannot meet them.
const UNREACHED: [DropReason; 5] = [
    DropReason::NoHeadroom,
    DropReason::NoLocalPort,
    DropReason::TupleTaken,
    DropReason::NoReturnHop,
    DropReason::PeerBusy,
];

fn run(frames: u64, seed: u64) -> Rig {
    let mut random = Random::new(seed);
    let bases = bases();
    let mut rig = Rig::new();
    let mut pieces: VecDeque<Vec<u8>> = VecDeque::new();
    let mut batches = 0u64;
    while rig.frames < frames {
        batches += 1;
        let count = (1 + random.below(BATCH as u64)).min(frames - rig.frames);
        if pieces.len() < 200 && random.one_in(8) {
            // Of several packets at a time, in turns.
            let mut packets: Vec<Vec<Vec<u8>>> = (0..1 + random.below(4)).map(|_| fragments(&mut random)).collect();
            while !packets.is_empty() {
                packets.iter_mut().for_each(|packet| pieces.extend(packet.pop()));
                packets.retain(|packet| !packet.is_empty());
            }
        }
        let batch: Vec<(u8, Vec<u8>)> = (0..count)
            .map(|_| {
                let piece = if random.one_in(4) { pieces.pop_front() } else { None };
                (u8::from(random.one_in(16)), piece.unwrap_or_else(|| mutated(&bases, &mut random)))
            })
            .collect();
        rig.io.limit_output(if random.one_in(200) { 8 } else { usize::MAX });
        rig.batch(&batch);
        // Mostly the pace of a busy link; now and then minutes pass.
        let pause = if random.one_in(400) { random.below(200_000) } else { random.below(20) };
        rig.pass_time(pause as u32, if random.one_in(100) { usize::MAX / 2 } else { 64 });
        if random.one_in(20) {
            rig.swap(&mut random);
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
    assert!(rig.extra > 0 && rig.lost > 0, "no fragment waited: {tally:?}");
    for name in ["tx", "reply", "pass"] {
        assert!(rig.tally.get(name).is_some_and(|count| *count > FRAMES / 100), "hardly any {name}: {tally:?}");
    }
    let missing: Vec<&str> = DropReason::ALL
        .iter()
        .filter(|reason| !UNREACHED.contains(reason) && stats.drops[**reason as usize].get() == 0)
        .map(|reason| reason.name())
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
            rig.pass_time(1000, 200);
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
