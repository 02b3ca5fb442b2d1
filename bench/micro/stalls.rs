//! How long the turns of a worker's loop are with ten million flows: the loop itself (`worker::run`) over I/O in memory that
//! measures from the end of one `receive` to the beginning of the next `service`.
//!
//! Turns are measured in the thread's processor time (`CLOCK_THREAD_CPUTIME_ID`), so that the time in which the system lets
//! others run does not count. Interrupts and what a hypervisor takes still do: so each turn is followed by a control, a loop
//! of multiplications without any access to memory, made to take as long as the turn took (20 us at most, so that one that was
//! disturbed does not lengthen its control beyond the limit of 50 us) and measured in
//! the same way. What happens to both as often is the machine's. The longest turn by the wall clock stands beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use evenkeel::control::compile::{Registry, Whereabouts};
use evenkeel::dataplane::flow::Seeds;
use evenkeel::dataplane::io::{BATCH, Frame, IoStats, PacketIo};
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::query::{Answer, Desk, Filter, Question, Wish};
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::dataplane::stats::WorkerStats;
use evenkeel::dataplane::verdict::{Outcome, Verdict};
use evenkeel::dataplane::worker::{self, Pace, Shared};
use evenkeel::model::{
    Desired, EngineSettings, Interface, MacAddr, Method, Polling, PortRange, Protocol, Scheduler, Server, Service,
    ServiceKey,
};
use nix::time::{ClockId, clock_gettime};

use crate::support::{Case, Frames, OWN, vip};

/// Nanoseconds in a step of the histogram.
const STEP: u64 = 10;
/// Steps: up to two milliseconds.
const STEPS: usize = 200_000;

/// What the worker is given.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    /// No packets, polling without a pause.
    Idle,
    /// No packets, asleep for up to 100 ms at a time.
    Asleep,
    /// Full batches of packets of the first so many flows, at random.
    Hits(usize),
}

/// What goes on besides.
#[derive(Clone, Copy, PartialEq)]
enum Besides {
    Nothing,
    /// Every flow without packets ends in the same moment.
    Expiry,
    /// The whole table is listed over and over.
    Listing,
    /// The whole table is counted over and over by a filter that nothing passes.
    Counting,
}

struct Turns {
    frames: Frames,
    case: Case,
    load: Load,
    random: u64,
    until: Instant,
    /// Ends earlier when so many flows have ended.
    enough: u64,
    stats: Arc<WorkerStats>,
    shared: Arc<Shared>,
    began: Option<(u64, Instant)>,
    /// The turns, and their controls.
    measured: [Spread; 2],
    /// Multiplications a nanosecond.
    speed: f64,
    longest_wall: u64,
}

/// Times, and how often each.
struct Spread {
    steps: Vec<u32>,
    count: u64,
    total: u64,
    longest: u64,
}

impl Spread {
    fn new() -> Spread {
        Spread { steps: vec![0; STEPS], count: 0, total: 0, longest: 0 }
    }

    fn add(&mut self, ns: u64) {
        self.steps[((ns / STEP) as usize).min(STEPS - 1)] += 1;
        self.count += 1;
        self.total += ns;
        self.longest = self.longest.max(ns);
    }

    /// The time, in microseconds, that this share of them does not exceed.
    fn at(&self, share: f64) -> f64 {
        let mut left = (self.count as f64 * (1.0 - share)) as u64;
        for (step, count) in self.steps.iter().enumerate().rev() {
            if u64::from(*count) > left {
                return ((step as u64 + 1) * STEP) as f64 / 1000.0;
            }
            left -= u64::from(*count);
        }
        0.0
    }

    /// How many are above so many microseconds.
    fn above(&self, us: u64) -> u64 {
        self.steps.iter().skip((us * 1000 / STEP) as usize).map(|count| u64::from(*count)).sum()
    }
}

/// Multiplications, each of which waits for the one before.
#[inline(never)]
fn multiply(times: u64) {
    let mut value = std::hint::black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..times {
        value = value.wrapping_mul(value | 1);
    }
    std::hint::black_box(value);
}

/// Multiplications a nanosecond, undisturbed: the best of many short runs.
fn speed() -> f64 {
    let run = || {
        let began = processor_time();
        multiply(100_000);
        100_000.0 / (processor_time() - began) as f64
    };
    (0..200).map(|_| run()).fold(0.0, f64::max)
}

fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

impl PacketIo for Turns {
    type Memory = crate::support::Memory;

    fn memory(&mut self) -> &mut Self::Memory {
        self.frames.parts().0
    }

    fn service(&mut self) {
        if let Some((began, wall)) = self.began.take() {
            let wall = wall.elapsed().as_nanos() as u64;
            let spent = processor_time() - began;
            self.measured[0].add(spent);
            self.longest_wall = self.longest_wall.max(wall);
            let began = processor_time();
            multiply((spent.min(20_000) as f64 * self.speed) as u64);
            self.measured[1].add(processor_time() - began);
        }
        let over = self.stats.expired.get() >= self.enough;
        if over || self.measured[0].count.is_multiple_of(64) && Instant::now() >= self.until {
            self.shared.stop.store(true, Relaxed);
        }
    }

    fn receive(&mut self, out: &mut [Frame]) -> usize {
        let mut count = 0;
        if let Load::Hits(flows) = self.load {
            let random = &mut self.random;
            self.frames.write(&self.case, |_| crate::next(random, flows));
            let frames = self.frames.parts().1;
            count = frames.len();
            out[..count].copy_from_slice(frames);
        }
        self.began = Some((processor_time(), Instant::now()));
        count
    }

    fn transmit(&mut self, _: u8, _: Frame) -> bool {
        true
    }

    fn pass(&mut self, _: Frame) -> bool {
        true
    }

    fn release(&mut self, _: Frame) {}

    fn wait(&mut self, timeout: Duration, _: Option<std::os::fd::BorrowedFd<'_>>) {
        std::thread::sleep(timeout);
        // A sleep is no turn.
        self.began = Some((processor_time(), Instant::now()));
    }

    fn tx_pending(&self) -> bool {
        false
    }

    fn stats(&mut self) -> IoStats {
        IoStats::default()
    }
}

/// A table of flows that is filled once, and the configuration that goes with it.
struct Table {
    pipeline: Pipeline,
    registry: Registry,
    desired: Desired,
    case: Case,
}

impl Table {
    fn new(v6: bool, method: Method, flows: usize) -> Table {
        let entries = if method.is_nat() { flows * 2 } else { flows };
        let capacity = (entries + entries / 16) as u32;
        let engine = EngineSettings {
            flows: if v6 { 16 } else { capacity },
            flows_ipv6: if v6 { capacity } else { 16 },
            ..EngineSettings::default()
        };
        let address = |n: u8| {
            if v6 { [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n].into() } else { [172, 16, 0, n].into() }
        };
        let servers =
            (1..=10).map(|n| Server { port: method.is_nat().then_some(5353), method, ..Server::dr(address(n), 1) });
        let key = ServiceKey { address: vip(v6).0, protocol: Protocol::Udp, ports: PortRange::single(53) };
        let service = Service { method, ..Service::dr("dns", key, Scheduler::WLC, servers.collect()) };
        let desired = Desired {
            engine: engine.clone(),
            interfaces: vec![Interface { name: "eth0".into(), queues: None }],
            ..Desired::of(vec![service])
        };
        let pipeline = Pipeline::new(&engine, Seeds::random(), Arc::new(WorkerStats::default())).expect("memory");
        let mut table = Table { pipeline, registry: Registry::default(), desired, case: Case { v6, flows } };
        table.pipeline.prefault();
        table.fill();
        table
    }

    fn snapshot(&mut self, udp_timeout: u32) -> Snapshot {
        self.desired.timeouts.udp = udp_timeout;
        self.desired.services.iter_mut().for_each(|service| service.timeouts.udp = udp_timeout);
        let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 1, 1]) };
        let at = Whereabouts { hop: Some(hop), ..Whereabouts::default() };
        let ports = vec![Port::new(OWN, 1500, true)];
        self.registry.compile_at(&self.desired, ports, Duration::ZERO, |_, _| at).expect("compiles").snapshot
    }

    /// Flows that end if all end that get no packets.
    fn ends(&self, load: Load) -> u64 {
        let kept = if let Load::Hits(flows) = load { flows } else { 0 };
        (self.case.flows - kept).max(1) as u64
    }

    /// Makes every flow, and proves it: two packets each, at the time 0.
    fn fill(&mut self) {
        let snapshot = self.snapshot(100_000);
        let mut frames = Frames::new();
        let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
        let flows = self.case.flows;
        for at in (0..flows).step_by(BATCH) {
            for _ in 0..2 {
                frames.write(&self.case, |lane| (at + lane).min(flows - 1));
                let (memory, frames) = frames.parts();
                self.pipeline.process(&snapshot, memory, frames, &mut outcomes, 0);
                self.pipeline.settle(&outcomes);
            }
        }
        let (v4, v6) = self.pipeline.tables();
        let proven = if self.case.v6 { v6.proven.len() } else { v4.proven.len() };
        let entries = if self.desired.services[0].method.is_nat() { 2 * flows } else { flows };
        assert_eq!(proven, entries, "not every flow is proven");
    }
}

/// Asks without end, and takes the answers away, until it is told to stop. Returns walks that were completed.
fn ask(desk: &Desk, counting: bool, stop: &AtomicBool) -> (u64, u64) {
    /// Questions so far: what an asker before this one left behind must not be taken for its own.
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let (mut number, mut walks, mut flows) = (0, 0, 0);
    // A state in which no UDP flow is: every entry is looked at, none is taken.
    let states = if counting { 2 } else { 0 };
    let wish = if counting { Wish::Count } else { Wish::List };
    let mut open = false;
    while !stop.load(Relaxed) {
        if !open {
            number = ASKED.fetch_add(1, Relaxed) + 1;
            let filter = Filter { states, ..Filter::default() };
            open = desk.ask(Question { number, slot: 0, wish, filter, from: 0 });
        }
        match desk.take() {
            Some(Answer::Flow { .. }) => flows += 1,
            Some(Answer::End { number: other, .. }) if other != number => {}
            Some(Answer::End { next, .. }) => {
                assert_eq!(next, None);
                walks += 1;
                open = false;
            }
            None => std::thread::sleep(Duration::from_micros(100)),
        }
    }
    (walks, flows)
}

/// One row.
fn measure(name: &str, table: &mut Table, load: Load, besides: Besides, seconds: u64, json: bool) -> serde_json::Value {
    let snapshot = table.snapshot(if besides == Besides::Expiry { 2 } else { 100_000 });
    let shared = Arc::new(Shared::new(snapshot, 1, 2048).expect("shared"));
    let mut io = Turns {
        frames: Frames::new(),
        case: Case { ..table.case },
        load,
        random: 0x1234_5678_9abc_def1,
        until: Instant::now() + Duration::from_secs(if besides == Besides::Expiry { 60 } else { seconds }),
        enough: table.pipeline.stats().expired.get() + table.ends(load),
        stats: table.pipeline.stats().clone(),
        shared: shared.clone(),
        began: None,
        measured: [Spread::new(), Spread::new()],
        speed: speed(),
        longest_wall: 0,
    };
    let asker = matches!(besides, Besides::Listing | Besides::Counting).then(|| {
        let shared = shared.clone();
        std::thread::spawn(move || ask(&shared.desks()[0], besides == Besides::Counting, &shared.stop))
    });
    let polling = if load == Load::Asleep { Polling::Adaptive } else { Polling::Busy };
    let pace = Pace { polling, idle: Duration::from_micros(100) };
    let before = table.pipeline.stats().expired.get();
    worker::run(&mut io, &mut table.pipeline, &shared, 0, pace);
    let expired = table.pipeline.stats().expired.get() - before;
    let (walks, listed) = asker.map_or((0, 0), |asker| asker.join().expect("the asker lives"));
    let [turns, control] = &io.measured;
    let us = |ns: u64| ns as f64 / 1000.0;
    let of = |spread: &Spread| [spread.at(0.5), spread.at(0.999), spread.at(0.9999), us(spread.longest)];
    let ([median, p999, p9999, longest], [_, quiet_p999, quiet_p9999, quiet_longest]) = (of(turns), of(control));
    let (above, quiet_above) = (turns.above(50), control.above(50));
    if !json {
        println!(
            "stall {name:<36} {:>8} turns  median {median:5.2} us  99.9 % {p999:5.1} ({quiet_p999:5.1})  \
             99.99 % {p9999:5.1} ({quiet_p9999:5.1})  longest {longest:6.1} ({quiet_longest:6.1})  \
             above 50 us {above} ({quiet_above})  wall {:.0}  expired {expired}  walks {walks}  listed {listed}",
            turns.count,
            us(io.longest_wall)
        );
    }
    serde_json::json!({"case": "stall", "what": name, "turns": turns.count, "median_us": median,
        "mean_us": us(turns.total) / turns.count.max(1) as f64,
        "p999_us": p999, "p999_control_us": quiet_p999, "p9999_us": p9999, "p9999_control_us": quiet_p9999,
        "longest_us": longest, "longest_control_us": quiet_longest, "above_50_us": above,
        "above_50_us_control": quiet_above, "longest_wall_us": us(io.longest_wall), "expired": expired,
        "walks": walks, "listed": listed})
}

/// By how much a worker that always has full batches forwards less while its million flows are listed, or counted, over and over:
/// pairs of runs with and without, one after the other, so that a busy machine is busy for both. A turn's mean processor time.
pub fn questions(quick: bool, json: bool) -> Vec<serde_json::Value> {
    let (rounds, seconds) = if quick { (3, 1) } else { (11, 3) };
    let flows = 1_000_000;
    let mut table = Table::new(false, Method::Dr, flows);
    let mut rows = Vec::new();
    for (name, besides) in [("listed", Besides::Listing), ("counted", Besides::Counting)] {
        let (mut ratios, mut walks) = (Vec::new(), 0);
        for round in 0..rounds {
            let mut mean = |besides| {
                let row = measure("", &mut table, Load::Hits(flows), besides, seconds, true);
                walks += row["walks"].as_u64().unwrap_or(0);
                row["mean_us"].as_f64().unwrap_or(f64::NAN)
            };
            // Neither is always the first.
            let (with, without) = if round % 2 == 0 {
                let without = mean(Besides::Nothing);
                (mean(besides), without)
            } else {
                (mean(besides), mean(Besides::Nothing))
            };
            ratios.push((with / without - 1.0) * 100.0);
        }
        let middle = crate::support::median(&mut ratios);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let walk = (rounds as u64 * seconds) as f64 / walks.max(1) as f64;
        if !json {
            println!(
                "questions {name:<10} a turn takes {middle:+.2} % ({least:+.2} to {most:+.2}), a walk of a million flows {walk:.1} s"
            );
        }
        rows.push(
            serde_json::json!({"case": "questions", "what": name, "percent": middle, "least": least, "most": most,
            "seconds_a_walk": walk}),
        );
    }
    rows
}

/// Every row.
pub fn run(quick: bool, json: bool) -> Vec<serde_json::Value> {
    use Besides::{Counting, Expiry, Listing, Nothing};
    let (flows, seconds) = if quick { (1_000_000, 3) } else { (10_000_000, 10) };
    let mut rows = Vec::new();
    let mut empty = Table::new(false, Method::Dr, 64);
    rows.push(measure("no flows, idle (control)", &mut empty, Load::Idle, Nothing, seconds, json));
    rows.push(measure("64 flows, hits (control)", &mut empty, Load::Hits(64), Nothing, seconds, json));
    drop(empty);
    let hits = Load::Hits(flows);
    let mut table = Table::new(false, Method::Dr, flows);
    rows.push(measure("idle", &mut table, Load::Idle, Nothing, seconds, json));
    rows.push(measure("asleep", &mut table, Load::Asleep, Nothing, seconds, json));
    rows.push(measure("idle, listed", &mut table, Load::Idle, Listing, seconds, json));
    rows.push(measure("idle, counted", &mut table, Load::Idle, Counting, seconds, json));
    rows.push(measure("hits", &mut table, hits, Nothing, seconds, json));
    rows.push(measure("hits, listed", &mut table, hits, Listing, seconds, json));
    rows.push(measure("hits, counted", &mut table, hits, Counting, seconds, json));
    // Every time stamp is 0 again.
    table.fill();
    rows.push(measure("idle, all expire at once", &mut table, Load::Idle, Expiry, seconds, json));
    table.fill();
    let some = Load::Hits(flows / 16);
    rows.push(measure("hits, all others expire at once", &mut table, some, Expiry, seconds, json));
    drop(table);
    let mut pairs = Table::new(false, Method::Nat, flows / 2);
    rows.push(measure("NAT, idle, listed", &mut pairs, Load::Idle, Listing, seconds, json));
    pairs.fill();
    rows.push(measure("NAT, idle, all expire at once", &mut pairs, Load::Idle, Expiry, seconds, json));
    pairs.fill();
    let some = Load::Hits(flows / 32);
    rows.push(measure("NAT, hits, all others expire at once", &mut pairs, some, Expiry, seconds, json));
    drop(pairs);
    let mut table = Table::new(true, Method::Dr, flows);
    rows.push(measure("IPv6, hits, listed", &mut table, hits, Listing, seconds, json));
    table.fill();
    rows.push(measure("IPv6, idle, all expire at once", &mut table, Load::Idle, Expiry, seconds, json));
    rows
}
