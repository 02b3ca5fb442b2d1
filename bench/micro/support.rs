//! What the in-memory benchmark measures: the pipeline on prepared frames, and a bare loop to hold it against.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use evenkeel::control::compile::Registry;
use evenkeel::dataplane::checksum;
use evenkeel::dataplane::flow::{FlowTable, FlowV4, Seeds};
use evenkeel::dataplane::io::{BATCH, Frame, FrameMemory};
use evenkeel::dataplane::parse;
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::rewrite;
use evenkeel::dataplane::schedule::{Cursor, Member, Request, Selector, description, maglev, mh};
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::dataplane::stats::WorkerStats;
use evenkeel::dataplane::sys;
use evenkeel::dataplane::verdict::{Outcome, Verdict};
use evenkeel::model::{
    Desired, EngineSettings, Interface, MacAddr, PortRange, Protocol, Scheduler, Server, Service, ServiceKey,
};

const CHUNK: usize = 2048;
pub const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// One case: the family and the number of flows.
pub struct Case {
    pub v6: bool,
    pub flows: usize,
}

/// Median of measurements.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Sixty-four frames of 64 bytes (78 for IPv6) in their chunks.
pub struct Frames {
    memory: Memory,
    frames: [Frame; BATCH],
}

/// Frame memory of the benchmark.
pub struct Memory(Vec<u8>);

impl FrameMemory for Memory {
    #[inline(always)]
    fn bytes(&self, frame: &Frame) -> &[u8] {
        let start = frame.addr as usize;
        self.0.get(start..start + frame.len as usize).unwrap_or_default()
    }
    #[inline(always)]
    fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8] {
        let start = frame.addr as usize;
        self.0.get_mut(start..start + frame.len as usize).unwrap_or_default()
    }
    fn headroom(&self, frame: &Frame) -> usize {
        frame.addr as usize % CHUNK
    }
    fn allocate(&mut self, _: u8, _: u32) -> Option<Frame> {
        None
    }
    fn give_back(&mut self, _: Frame) {}
}

impl Frames {
    /// The memory and the batch.
    pub fn parts(&mut self) -> (&mut Memory, &mut [Frame]) {
        (&mut self.memory, &mut self.frames)
    }

    /// Changes each frame.
    pub fn each(&mut self, mut change: impl FnMut(&mut [u8])) {
        for frame in &self.frames {
            change(self.memory.bytes_mut(frame));
        }
    }

    pub fn new() -> Self {
        Frames { memory: Memory(vec![0; CHUNK * BATCH]), frames: [Frame::default(); BATCH] }
    }

    /// Writes the headers of one batch; `flow` numbers the flow of each lane.
    pub fn write(&mut self, case: &Case, mut flow: impl FnMut(usize) -> usize) {
        for lane in 0..BATCH {
            let start = lane * CHUNK + 256;
            let n = flow(lane) as u32;
            let len = if case.v6 { 78 } else { 64 };
            let frame = &mut self.memory.0[start..start + len];
            frame[..6].copy_from_slice(&OWN.0);
            frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
            if case.v6 {
                frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 17, 64]);
                frame[22..38].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                frame[34..38].copy_from_slice(&(n / 50_000).to_be_bytes());
                frame[38..54].copy_from_slice(&vip(true).1);
                frame[54..62].copy_from_slice(&[0, 0, 0, 53, 0, 24, 0, 0]);
            } else {
                frame[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0]);
                frame[26..30].copy_from_slice(&(0x0a00_0001 + n / 50_000).to_be_bytes());
                frame[30..34].copy_from_slice(&vip(false).1[..4]);
                let check = checksum::checksum(&frame[14..34]);
                frame[24..26].copy_from_slice(&check.to_ne_bytes());
                frame[34..42].copy_from_slice(&[0, 0, 0, 53, 0, 30, 0, 0]);
            }
            let ports = if case.v6 { 54 } else { 34 };
            frame[ports..ports + 2].copy_from_slice(&(1024 + (n % 50_000) as u16).to_be_bytes());
            if case.v6 {
                let pseudo = checksum::pseudo_header(&frame[22..38], &frame[38..54], 17, 24);
                let check = !checksum::fold(checksum::sum(&frame[54..78], pseudo));
                let check = if check == 0 { 0xffff } else { check };
                frame[60..62].copy_from_slice(&check.to_ne_bytes());
            }
            self.frames[lane] = Frame { addr: start as u64, len: len as u32, ..Frame::default() };
        }
    }
}

pub fn vip(v6: bool) -> (IpAddr, [u8; 16]) {
    if v6 {
        let bytes = [0x20, 1, 0xd, 0xb8, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        (IpAddr::from(bytes), bytes)
    } else {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[192, 0, 2, 10]);
        (IpAddr::from([192, 0, 2, 10]), bytes)
    }
}

fn snapshot(v6: bool, scheduler: Scheduler) -> Snapshot {
    let servers = (1..=10u8)
        .map(|n| {
            let address = if v6 {
                IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n])
            } else {
                IpAddr::from([10, 0, 0, n])
            };
            Server::dr(address, u16::from(n))
        })
        .collect();
    let key = ServiceKey { address: vip(v6).0, protocol: Protocol::Udp, ports: PortRange::single(53) };
    let desired = Desired {
        interfaces: vec![Interface { name: "eth0".into(), queues: None }],
        ..Desired::of(vec![Service::dr("dns", key, scheduler, servers)])
    };
    let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 1, 1]) };
    let ports = vec![Port::new(OWN, 1500, true)];
    Registry::default().compile(&desired, ports, |_| Some(hop)).expect("compiles").snapshot
}

/// The pipeline on its frames.
pub struct Rig {
    pub frames: Frames,
    pipeline: Pipeline,
    snapshot: Snapshot,
    outcomes: [Outcome; BATCH],
    processed: u64,
    now: u32,
    stage_table: FlowTable<FlowV4>,
}

impl Rig {
    pub fn new(case: &Case, capacity: usize) -> Self {
        let settings = EngineSettings {
            flows: if case.v6 { 16 } else { capacity as u32 },
            flows_ipv6: if case.v6 { capacity as u32 } else { 16 },
            ..EngineSettings::default()
        };
        Rig {
            frames: Frames::new(),
            pipeline: Pipeline::new(&settings, Seeds::random(), Arc::new(WorkerStats::default())).expect("memory"),
            snapshot: snapshot(case.v6, Scheduler::WLC),
            outcomes: [Outcome::plain(Verdict::Pass); BATCH],
            processed: 0,
            now: 0,
            stage_table: FlowTable::new(2000, Seeds::random(), true).expect("memory"),
        }
    }

    /// Creates every flow, and proves it: two packets each.
    pub fn fill(&mut self, case: &Case) {
        let mut at = 0;
        while at < case.flows {
            for _ in 0..2 {
                self.frames.write(case, |lane| (at + lane).min(case.flows - 1));
                self.process();
            }
            at += BATCH;
        }
        assert_eq!(self.proven(case.v6), case.flows, "not every flow is proven");
    }

    /// Proven flows of a family.
    pub fn proven(&self, v6: bool) -> usize {
        let (v4_table, v6_table) = self.pipeline.tables();
        if v6 { v6_table.proven.len() } else { v4_table.proven.len() }
    }

    /// Touches the flow table's memory, so that page faults are not measured.
    pub fn touch(&mut self) {
        self.pipeline.sweep(&self.snapshot, usize::MAX / 2, 0);
        for _ in 0..2 {
            self.pipeline.prefault();
        }
    }

    /// One batch, as a worker does it: process, then count.
    #[inline(never)]
    pub fn process(&mut self) {
        // 64 packets at some 20 Mpps: the clock moves about 3 us a batch.
        self.processed += BATCH as u64;
        self.now = (self.processed / 20_000) as u32;
        let frames = &mut self.frames;
        self.pipeline.process(&self.snapshot, &mut frames.memory, &mut frames.frames, &mut self.outcomes, self.now);
        self.pipeline.settle(&self.outcomes);
    }

    pub fn all_forwarded(&self) -> bool {
        self.pipeline.stats().forwarded.get() == self.processed
    }

    pub fn table_bytes(&self, v6: bool) -> usize {
        let (v4_table, v6_table) = self.pipeline.tables();
        if v6 { v6_table.proven.bytes() } else { v4_table.proven.bytes() }
    }

    /// One batch of a single stage.
    pub fn stage(&mut self, name: &str) -> u64 {
        let memory = &mut self.frames.memory;
        let mut sum = 0;
        match name {
            "parse" => {
                for frame in &self.frames.frames {
                    let parsed = parse::plain_v4(black_box(memory.bytes(frame)));
                    sum += parsed.map_or(0, |p| p.addresses);
                }
            }
            "lookup" => {
                for n in 0..BATCH as u32 {
                    let key = evenkeel::dataplane::flow::KeyV4 { addresses: u64::from(n), ports: n, protocol: 17 };
                    let hash = self.stage_table.hash(&black_box(key));
                    sum += u64::from(self.stage_table.find(&key, hash).is_some());
                }
            }
            "rewrite" => {
                let server = *self.snapshot.server(0x1_0000).expect("the first server");
                for frame in &mut self.frames.frames {
                    let parsed = parse::Parsed {
                        kind: parse::Kind::Flow4,
                        protocol: 17,
                        tcp_flags: 0,
                        part: parse::Part::Whole,
                        tags: 0,
                        vlan: parse::NO_VLAN,
                        l3: 14,
                        l4: 34,
                        l4_len: 30,
                    };
                    memory.bytes_mut(frame)[22] = 64;
                    sum += u64::from(rewrite::direct(memory, frame, &parsed, &server).is_ok());
                }
            }
            scheduler => {
                let known = scheduler.strip_prefix("schedule-").and_then(description).expect("a scheduler");
                let kind = Scheduler { port: !known.flags.is_empty(), ..Scheduler::named(known.name) };
                thread_local! {
                    static PREPARED: std::cell::RefCell<Option<(Scheduler, Selector, Cursor)>> =
                        const { std::cell::RefCell::new(None) };
                }
                let members = &self.snapshot.services[0].members;
                PREPARED.with_borrow_mut(|slot| {
                    if slot.as_ref().is_none_or(|(k, ..)| *k != kind) {
                        *slot = Some((kind, Selector::new(kind, members), Cursor::default()));
                    }
                    let Some((_, selector, cursor)) = slot else { return };
                    for n in 0..BATCH as u32 {
                        let random = n.wrapping_mul(0x9e37_79b9);
                        let client = Request { client: black_box(n), port: n as u16, random, ..Request::default() };
                        sum += selector.select(members, cursor, &client).unwrap_or(0) as u64;
                    }
                });
            }
        }
        sum
    }
}

/// The bare loop: parse, one lookup with prefetch in an open-addressing table of 32-byte entries, MAC rewrite. No
/// validation, no states, no time stamps, no counters.
pub struct Bare {
    table: sys::Zeroed<Entry>,
    mask: u64,
    v6: bool,
    servers: [[u8; 12]; 16],
    /// Packets whose flow was found.
    pub found: u64,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(32))]
struct Entry {
    key: [u64; 2],
    server: u64,
    used: u64,
}

impl Bare {
    pub fn new(case: &Case) -> Self {
        let slots = (case.flows * 2).next_power_of_two();
        let table = sys::Zeroed::new(slots, true).expect("memory");
        let servers = std::array::from_fn(|n| [n as u8; 12]);
        Bare { table, mask: slots as u64 - 1, v6: case.v6, servers, found: 0 }
    }

    /// The same parse as the pipeline's for IPv4; for IPv6 only that it is UDP behind a plain header.
    #[inline(always)]
    fn key(&self, bytes: &[u8]) -> Option<[u64; 2]> {
        if self.v6 {
            let word = |at: usize| bytes.get(at..at + 8)?.first_chunk().map(|b| u64::from_ne_bytes(*b));
            if bytes.get(12..15)? != [0x86, 0xdd, 0x60] || *bytes.get(20)? != 17 {
                return None;
            }
            // Addresses and ports folded to the entry's 16 bytes.
            Some([word(22)? ^ word(38)?.rotate_left(17), word(30)? ^ word(46)? ^ (word(54)? & 0xffff_ffff) << 16])
        } else {
            let plain = parse::plain_v4(bytes)?;
            Some([plain.addresses, u64::from(plain.ports) | u64::from(plain.protocol) << 32])
        }
    }

    #[inline(always)]
    fn hash(key: [u64; 2]) -> u64 {
        let mix = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            (product as u64) ^ (product >> 64) as u64
        };
        mix(mix(key[0] ^ 0x9e37_79b9_7f4a_7c15, key[1] ^ 0xd1b5_4a32_d192_ed03), 0x8cb9_2ba7_2f3d_8dd7)
    }

    pub fn fill(&mut self, case: &Case) {
        let mut frames = Frames::new();
        let mut at = 0;
        while at < case.flows {
            frames.write(case, |lane| (at + lane).min(case.flows - 1));
            for frame in &frames.frames {
                let Some(key) = self.key(frames.memory.bytes(frame)) else { continue };
                let mut slot = Self::hash(key) & self.mask;
                while self.table[slot as usize].used != 0 && self.table[slot as usize].key != key {
                    slot = (slot + 1) & self.mask;
                }
                self.table[slot as usize] = Entry { key, server: slot & 7, used: 1 };
            }
            at += BATCH;
        }
    }

    #[inline(never)]
    pub fn process(&mut self, frames: &mut Frames) {
        let mut found = [([0u64; 2], 0u64); BATCH];
        for (lane, frame) in frames.frames.iter().enumerate() {
            let key = self.key(frames.memory.bytes(frame)).unwrap_or_default();
            let slot = Self::hash(key) & self.mask;
            sys::prefetch(&self.table[slot as usize]);
            found[lane] = (key, slot);
        }
        for (lane, frame) in frames.frames.iter().enumerate() {
            let (key, mut slot) = found[lane];
            loop {
                let entry = &self.table[(slot & self.mask) as usize];
                if entry.used == 0 {
                    break;
                }
                if entry.key == key {
                    if let Some(head) = frames.memory.bytes_mut(frame).first_chunk_mut::<12>() {
                        *head = self.servers[(entry.server & 15) as usize];
                        self.found += 1;
                    }
                    break;
                }
                slot += 1;
            }
        }
        black_box(&frames.memory.0);
    }
}

/// Stages that can be measured by themselves, IPv4 and 1000 flows.
pub const STAGES: [&str; 14] = [
    "parse",
    "lookup",
    "schedule-rr",
    "schedule-wrr",
    "schedule-lc",
    "schedule-wlc",
    "schedule-sed",
    "schedule-sh",
    "schedule-mh",
    "schedule-lblcr",
    "schedule-twos",
    "schedule-p2c",
    "schedule-maglev",
    "rewrite",
];

/// Runs one case for an instruction counter: `hits-v4-1000000`, `new-v6-100000`, `bare-v4-1000`, or a stage.
pub fn count(case: &str) {
    if STAGES.contains(&case) {
        let mut rig = Rig::new(&Case { v6: false, flows: 1000 }, 2000);
        rig.frames.write(&Case { v6: false, flows: 1000 }, |lane| lane * 7);
        for _ in 0..1000 {
            rig.measured_stage(case);
        }
        println!("packets {}", 1000 * BATCH);
        return;
    }
    let mut parts = case.split('-').peekable();
    if parts.next_if_eq(&"way").is_some() {
        let name = parts.next().unwrap_or_default();
        let v6 = parts.next() == Some("v6");
        return crate::methods::count(name, v6, parts.next().and_then(|n| n.parse().ok()).unwrap_or(1000));
    }
    let what = parts.next().unwrap_or_default().to_owned();
    let v6 = parts.next() == Some("v6");
    let flows = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let case = Case { v6, flows };
    let mut rig = Rig::new(&case, flows + flows / 16 + BATCH * 2000);
    let mut random = 0x1234_5678_9abc_def1;
    match what.as_str() {
        "bare" => {
            let mut bare = Bare::new(&case);
            bare.fill(&case);
            for _ in 0..1000 {
                rig.frames.write(&case, |_| super::next(&mut random, flows));
                bare.process(&mut rig.frames);
            }
        }
        "hits" => {
            rig.fill(&case);
            for _ in 0..1000 {
                rig.frames.write(&case, |_| super::next(&mut random, flows));
                rig.measured();
            }
        }
        "new" => {
            for batch in 0..1000 {
                rig.frames.write(&case, |lane| batch * BATCH + lane);
                rig.measured();
            }
        }
        other => {
            eprintln!("unknown case `{other}`; expected bare, hits or new, as in hits-v4-1000, or a stage: {STAGES:?}");
            std::process::exit(2);
        }
    }
    println!("packets {}", 1000 * BATCH);
}

impl Rig {
    /// [`Rig::process`] under a name of its own, which an instruction counter is told to count.
    #[inline(never)]
    pub fn measured(&mut self) {
        self.process();
    }

    /// [`Rig::stage`] in the same way.
    #[inline(never)]
    pub fn measured_stage(&mut self, name: &str) {
        black_box(self.stage(name));
    }
}

fn server(n: u32, weight: u32) -> Member {
    Member {
        id: n,
        weight,
        last_weight: weight,
        reachable: true,
        address: IpAddr::from((0x0a00_0000 + n).to_be_bytes()),
        port: 80,
        real: n,
        upper: 0,
        lower: 0,
        load: Arc::default(),
    }
}

/// The table of `mh` or `maglev`.
pub fn table(name: &str, members: &[Member], size: u32) -> Box<[u16]> {
    let scheduler = Scheduler { table_size: size, ..Scheduler::MH };
    match name {
        "mh" => mh::Table::new(members, scheduler).slots().into(),
        _ => maglev::Table::new(members, scheduler).slots().into(),
    }
}

/// For each of ten equal servers: the percentage of slots that move from one server that stays to another when it
/// leaves.
pub fn maglev_moves(name: &str, size: u32) -> Vec<f64> {
    let all: Vec<_> = (1..=10).map(|n| server(n, 1)).collect();
    let before = table(name, &all, size);
    (0..all.len())
        .map(|gone| {
            let mut left = all.clone();
            left.remove(gone);
            let after = table(name, &left, size);
            let pairs = before.iter().zip(&after);
            let needless = pairs
                .filter(|(b, a)| usize::from(**b) != gone && all[usize::from(**b)].id != left[usize::from(**a)].id);
            needless.count() as f64 * 100.0 / f64::from(size)
        })
        .collect()
}

/// Milliseconds to build a table for a thousand servers: of equal weights, or of a hundred different ones.
pub fn maglev_build(name: &str, size: u32, equal: bool) -> f64 {
    let all: Vec<_> = (0..1000).map(|n| server(n, if equal { 1 } else { 1 + n % 100 })).collect();
    let start = std::time::Instant::now();
    black_box(table(name, black_box(&all), size));
    start.elapsed().as_secs_f64() * 1000.0
}
