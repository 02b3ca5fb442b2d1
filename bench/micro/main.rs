//! In-memory benchmark: what one worker's pipeline costs a packet, beside a bare loop, in one run.
//!
//! `cargo bench --bench micro` prints tables; `-- --json` one JSON object instead, `-- --out FILE` writes it beside the
//! tables; `-- --quick` fewer sizes and rounds;
//! `-- --hits` only hits of flows; `-- --methods` only the comparison of forwarding methods; `-- --stalls` only how long turns
//! of the worker's loop are; `-- --questions` only what listing and counting flows costs; `-- --maglev` only the tables of `mh` and `maglev`: what they move, how long they take to build;
//! `-- --count CASE` runs one case for an instruction counter (see `bench/instructions.sh`).
//!
//! Headers are written into the same 64 frames before each batch, outside the measured time, so packet bytes are hot
//! in the cache and only the flow table is not: what remains is the engine's own work.

mod methods;
mod stalls;
mod support;

use std::hint::black_box;
use std::time::Instant;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{Bare, Case, Rig, median};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Frames a batch.
const BATCH: usize = evenkeel::dataplane::io::BATCH;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let Some(at) = args.iter().position(|a| a == "--count") {
        return support::count(args.get(at + 1).map_or("", String::as_str));
    }
    let quick = args.iter().any(|a| a == "--quick");
    let json = args.iter().any(|a| a == "--json");
    let (sizes, rounds): (&[usize], usize) =
        if quick { (&[1_000, 1_000_000], 5) } else { (&[1_000, 100_000, 1_000_000, 10_000_000], 9) };
    if args.iter().any(|a| a == "--maglev") {
        maglev(json);
        return;
    }
    if args.iter().any(|a| a == "--methods") {
        methods::run(quick, json);
        return;
    }
    let out = |rows: Vec<serde_json::Value>| {
        let rows = serde_json::Value::Array(rows);
        if json {
            println!("{rows}");
        }
        if let Some(file) = args.iter().position(|a| a == "--out").and_then(|at| args.get(at + 1)) {
            std::fs::write(file, rows.to_string()).expect("the file of --out can be written");
        }
    };
    if args.iter().any(|a| a == "--stalls") {
        return out(stalls::run(quick, json));
    }
    if args.iter().any(|a| a == "--questions") {
        return out(stalls::questions(quick, json));
    }
    let mut rows = Vec::new();
    for v6 in [false, true] {
        for &flows in sizes {
            if v6 && flows > 1_000_000 && quick {
                continue;
            }
            rows.push(hits(v6, flows, rounds, json));
        }
    }
    if args.iter().any(|a| a == "--hits") {
        return out(rows);
    }
    for v6 in [false, true] {
        rows.push(new_flows(v6, if quick { 200_000 } else { 1_000_000 }, rounds, json));
    }
    rows.extend(methods::run(quick, json));
    rows.extend(stages(rounds, json));
    rows.extend(maglev(json));
    out(rows);
}

/// Flow hits in random order: the pipeline and the bare loop take turns.
fn hits(v6: bool, flows: usize, rounds: usize, json: bool) -> serde_json::Value {
    let case = Case { v6, flows };
    let mut rig = Rig::new(&case, flows + flows / 16);
    let mut bare = Bare::new(&case);
    rig.fill(&case);
    bare.fill(&case);
    let batches = if flows > 1_000_000 { 20_000 } else { 10_000 };
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = 0x1234_5678_9abc_def1;
    let mut allocations = 0;
    for round in 0..=rounds {
        let mut spent = [0u64; 2];
        for _ in 0..batches {
            rig.frames.write(&case, |_| next(&mut random, flows));
            let start = Instant::now();
            bare.process(&mut rig.frames);
            spent[1] += start.elapsed().as_nanos() as u64;
            rig.frames.write(&case, |_| next(&mut random, flows));
            let region = Region::new(ALLOCATOR);
            let start = Instant::now();
            rig.process();
            spent[0] += start.elapsed().as_nanos() as u64;
            allocations += region.change().allocations;
        }
        assert!(rig.all_forwarded(), "a hit was not forwarded");
        assert_eq!(bare.found, (batches * BATCH * (round + 1)) as u64, "the bare loop missed a flow");
        let per = |ns: u64| ns as f64 / (batches * BATCH) as f64;
        if round > 0 {
            ours.push(per(spent[0]));
            theirs.push(per(spent[1]));
            ratios.push(spent[0] as f64 / spent[1] as f64);
        }
    }
    let (middle, theirs, ratio) = (median(&mut ours), median(&mut theirs), median(&mut ratios));
    // `median` has sorted them.
    let (least, greatest) = (ours[0], ours[ours.len() - 1]);
    let bytes = rig.table_bytes(v6) as f64 / (flows + flows / 16) as f64;
    if !json {
        println!(
            "hits  {} {flows:>9} flows  pipeline {middle:6.1} ns ({least:.1} to {greatest:.1})  bare {theirs:6.1} ns  ratio {ratio:4.2}  allocations {allocations}  {bytes:.1} B/flow",
            if v6 { "v6" } else { "v4" }
        );
    }
    serde_json::json!({"case": "hits", "v6": v6, "flows": flows, "pipeline_ns": middle, "least_ns": least,
        "greatest_ns": greatest, "bare_ns": theirs,
        "ratio": ratio, "allocations": allocations, "bytes_per_flow": bytes})
}

/// New flows: the first packet of each inserts it among the unproven, the second one moves it to the proven.
fn new_flows(v6: bool, flows: usize, rounds: usize, json: bool) -> serde_json::Value {
    let case = Case { v6, flows };
    let mut per = [Vec::new(), Vec::new()];
    let mut allocations = 0;
    for round in 0..=rounds {
        let mut rig = Rig::new(&case, flows);
        rig.touch();
        let mut at = 0;
        let mut spent = [0, 0];
        while at + BATCH <= flows {
            for spent in &mut spent {
                rig.frames.write(&case, |lane| at + lane);
                let region = Region::new(ALLOCATOR);
                let start = Instant::now();
                rig.process();
                *spent += start.elapsed().as_nanos() as u64;
                allocations += region.change().allocations;
            }
            at += BATCH;
        }
        assert!(rig.all_forwarded(), "a new flow was refused");
        assert_eq!(rig.proven(v6), at, "not every flow is proven");
        if round > 0 {
            per.iter_mut().zip(spent).for_each(|(per, spent)| per.push(spent as f64 / at as f64));
        }
    }
    let [ns, second] = per.map(|mut per| median(&mut per));
    if !json {
        println!(
            "new   {} {flows:>9} flows  {ns:6.1} ns, proven by {second:6.1} ns  {:.2} M flows/s  allocations {allocations}",
            if v6 { "v6" } else { "v4" },
            1000.0 / (ns + second)
        );
    }
    serde_json::json!({"case": "new", "v6": v6, "flows": flows, "ns": ns, "second_ns": second,
        "flows_per_s": 1e9 / (ns + second), "allocations": allocations})
}

/// The stages by themselves, 1000 flows, everything in the cache.
fn stages(rounds: usize, json: bool) -> Vec<serde_json::Value> {
    let case = Case { v6: false, flows: 1000 };
    let mut rig = Rig::new(&case, 2000);
    rig.fill(&case);
    let mut rows = Vec::new();
    for name in support::STAGES {
        let mut per = Vec::new();
        for _ in 0..rounds {
            rig.frames.write(&case, |lane| lane * 7);
            let start = Instant::now();
            let turns = 20_000;
            for _ in 0..turns {
                black_box(rig.stage(name));
            }
            per.push(start.elapsed().as_nanos() as f64 / (turns * BATCH) as f64);
        }
        let ns = median(&mut per);
        if !json {
            println!("stage {name:<14} {ns:6.2} ns");
        }
        rows.push(serde_json::json!({"case": name, "ns": ns}));
    }
    rows
}

/// How much of a Maglev table changes hands needlessly when one of ten servers leaves (slots of servers that stay), and how
/// long a table for a thousand servers takes.
fn maglev(json: bool) -> Vec<serde_json::Value> {
    let mut rows = Vec::new();
    for (name, size) in
        [("mh", 251), ("mh", 4093), ("mh", 65_521), ("mh", 131_071), ("maglev", 4093), ("maglev", 65_537)]
    {
        let shares = support::maglev_moves(name, size);
        let worst = shares.iter().copied().fold(0.0, f64::max);
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        if !json {
            println!(
                "{name:<6} table {size:>6}  one of 10 servers leaves: {mean:4.2} % moved needlessly, at most {worst:4.2} %"
            );
        }
        let case = format!("{name}-moves");
        rows.push(serde_json::json!({"case": case, "table": size, "mean_percent": mean, "worst_percent": worst}));
    }
    for (name, size, equal) in [("mh", 65_521, true), ("maglev", 65_537, true), ("maglev", 65_537, false)] {
        let mut times: Vec<f64> = (0..21).map(|_| support::maglev_build(name, size, equal)).collect();
        let ms = median(&mut times);
        let worst = times.last().copied().unwrap_or(f64::NAN);
        if !json {
            let weights = if equal { "one weight" } else { "100 weights" };
            println!(
                "{name:<6} table {size:>6}  built for 1000 servers, {weights}: {ms:5.2} ms, at most {worst:5.2} ms"
            );
        }
        let case = format!("{name}-build");
        rows.push(serde_json::json!({"case": case, "table": size, "equal": equal, "ms": ms, "worst_ms": worst}));
    }
    rows
}

/// A pseudo-random flow number (xorshift).
fn next(state: &mut u64, flows: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (((*state >> 32) * flows as u64) >> 32) as usize
}
