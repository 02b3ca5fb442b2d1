//! A million random and mutated frames through one worker, and half as many through three, with the configuration swapped
//! under them: every forwarding method, answers and ICMP errors for what was sent, fragments both ways.
//!
//! Deterministic: one seed, one outcome. After each batch every frame is accounted for, has exactly one outcome, and
//! every drop is counted; what is sent is sound, and no right checksum became wrong; the servers' loads, the last hops, the local ports in use and the directory
//! are those of the flows in the tables. When all flows have ended, nothing is left.
//!
//! `HOSTILE_FRAMES=50000000 HOSTILE_SEED=2 cargo test --test hostile` goes on for longer, or elsewhere.

mod hostile_support;

use std::collections::VecDeque;

use evenkeel::dataplane::io::BATCH;
use evenkeel::dataplane::schedule::SCHEDULERS;
use evenkeel::dataplane::stats::WorkerStats;
use evenkeel::dataplane::verdict::DropReason;
use evenkeel::model::SynCookies;
use hostile_support::Random;
use hostile_support::frames::{again, bases, crowded, fragments, mutated, spoiled};
use hostile_support::rig::Rig;
use hostile_support::site::Engine;

const FRAMES: u64 = 1_000_000;

/// Frames of clients of which another one may come.
const RECENT: usize = 600;

/// Reasons that this traffic cannot bring about.
const UNREACHED: [DropReason; 1] = [
    // Every backend leaves more room before a frame than the largest outer header and PROXY header take together; only a
    // frame that was handed in without it meets this.
    DropReason::NoHeadroom,
];

/// Those that one worker alone does not meet.
const OF_SEVERAL: [DropReason; 1] = [DropReason::PeerBusy];

fn run(engine: Engine, frames: u64, seed: u64) -> Rig {
    let mut random = Random::new(seed);
    let (bases, crowd) = (bases(), crowded());
    let mut rig = Rig::of(engine);
    let mut pieces: VecDeque<Vec<u8>> = VecDeque::new();
    let mut recent: VecDeque<Vec<u8>> = VecDeque::new();
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
        let mut batch: Vec<(u8, Vec<u8>)> = Vec::new();
        for _ in 0..count {
            let answer = if random.one_in(3) { rig.answer(&mut random) } else { None };
            batch.push(match answer {
                Some((port, frame)) if random.one_in(5) => (port, spoiled(frame, &bases, &mut random)),
                Some(answer) => answer,
                None => {
                    let piece = if random.one_in(4) { pieces.pop_front() } else { None };
                    let frame = piece.unwrap_or_else(|| match recent.get(random.index(recent.len())) {
                        Some(frame) if random.one_in(5) => again(frame.clone(), &mut random),
                        _ => {
                            let frame = mutated(&bases, &crowd, &mut random);
                            if recent.len() == RECENT {
                                recent.pop_front();
                            }
                            recent.push_back(frame.clone());
                            frame
                        }
                    });
                    (u8::from(random.one_in(16)), frame)
                }
            });
        }
        for worker in &mut rig.workers {
            worker.io.limit_output(if random.one_in(200) { 8 } else { usize::MAX });
        }
        rig.batch(&batch);
        // Mostly the pace of a busy link; now and then minutes pass.
        let pause = if random.one_in(400) { random.below(200_000) } else { random.below(20) };
        rig.pass_time(pause as u32, if random.one_in(100) { usize::MAX / 2 } else { 64 });
        if random.one_in(14) {
            rig.swap(&mut random);
        }
        if batches.is_multiple_of(64) {
            rig.compare();
        }
    }
    rig.workers.iter_mut().for_each(|worker| worker.io.limit_output(usize::MAX));
    rig.compare();
    rig.end();
    rig
}

fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What no outcome tells, and counters do.
fn seen_in_counters(rig: &Rig) {
    let stats = |of: fn(&WorkerStats) -> u64| rig.sum(|w| of(w.pipeline.stats()));
    let counters: [(&str, u64); 13] = [
        ("expired", stats(|s| s.expired.get())),
        ("evicted", stats(|s| s.evicted.get())),
        ("ICMP errors", stats(|s| s.icmp_errors.get())),
        ("resets", stats(|s| s.resets.get())),
        ("refusals", stats(|s| s.refused.get())),
        ("failures of servers", stats(|s| s.servers.iter().map(|server| server.failed.get()).sum())),
        ("cookies sent", stats(|s| s.cookies_sent.get())),
        ("cookies accepted", stats(|s| s.cookies_accepted.get())),
        ("cookies refused", stats(|s| s.cookies_refused.get())),
        ("without state", stats(|s| s.stateless.get())),
        ("fragments that waited", rig.sum(|w| w.extra())),
        ("fragments that waited in vain", rig.sum(|w| w.lost())),
        ("answers", stats(|s| s.servers.iter().map(|server| server.out_packets.get()).sum()) / (rig.frames / 200)),
    ];
    println!("{counters:?}");
    assert!(counters.iter().all(|(_, count)| *count > 0), "some of it never happened: {counters:?}");
}

/// Everything that can happen did.
fn all_was_seen(rig: &Rig, unreached: &[DropReason]) {
    let mut tally: Vec<_> = rig.tally.iter().collect();
    tally.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let swaps = rig.snapshot.generation;
    println!("{} frames, {swaps} snapshots: {tally:?}", rig.frames);
    assert!(swaps > 500, "only {swaps} snapshots");
    assert_eq!(rig.site.schedulers.len(), SCHEDULERS.len(), "{:?}", rig.site.schedulers);
    seen_in_counters(rig);
    for name in ["tx", "reply", "pass"] {
        assert!(rig.tally.get(name).is_some_and(|count| *count > rig.frames / 100), "hardly any {name}: {tally:?}");
    }
    let missing: Vec<&str> = DropReason::ALL
        .iter()
        .filter(|reason| !UNREACHED.contains(reason) && !unreached.contains(reason) && rig.dropped(**reason) == 0)
        .map(|reason| reason.name())
        .collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

const ONE: Engine = Engine { workers: 1, syn_cookies: SynCookies::Flood, roomy: true };

#[test]
fn a_million_hostile_frames() {
    let rig = run(ONE, given("HOSTILE_FRAMES").unwrap_or(FRAMES).max(FRAMES), given("HOSTILE_SEED").unwrap_or(1));
    all_was_seen(&rig, &OF_SEVERAL);
}

/// Three workers, which have no room for all clients.
#[test]
fn hostile_frames_for_three_workers() {
    let frames = given("HOSTILE_FRAMES").unwrap_or(FRAMES).max(FRAMES) / 2;
    let rig = run(Engine { workers: 3, roomy: false, ..ONE }, frames, given("HOSTILE_SEED").unwrap_or(1));
    assert!(rig.tally["hand"] > rig.frames / 50, "hardly anything was handed on");
    let templates = &rig.director.templates;
    assert!(templates.gave_way() > 0 && templates.refused() > 0, "there was room for every client");
    assert!(rig.sum(|worker| worker.pipeline.stats().clients_full.get()) > 0, "every client was counted");
    all_was_seen(&rig, &[]);
}

/// Two workers, which answer every SYN for NAT by a cookie.
#[test]
fn hostile_frames_while_cookies_are_always_sent() {
    let engine = Engine { workers: 2, syn_cookies: SynCookies::Always, roomy: true };
    let rig =
        run(engine, given("HOSTILE_FRAMES").unwrap_or(FRAMES).max(FRAMES) / 4, given("HOSTILE_SEED").unwrap_or(1));
    seen_in_counters(&rig);
}

#[test]
fn the_same_seed_gives_the_same_outcomes() {
    for workers in [1, 2] {
        let engine = Engine { workers, roomy: workers == 1, ..ONE };
        assert_eq!(run(engine, 20_000, 7).digest, run(engine, 20_000, 7).digest);
        assert_ne!(run(engine, 20_000, 7).digest, run(engine, 20_000, 8).digest);
    }
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
    rig.compare();
    rig.end();
    assert!(rig.frames > 20_000, "{}", rig.frames);
}
