//! What each forwarding method costs a packet beside direct routing: the same flows, in turns, in one run.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel::control::compile::{Registry, Whereabouts};
use evenkeel::dataplane::checksum;
use evenkeel::dataplane::flow::Seeds;
use evenkeel::dataplane::io::BATCH;
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::dataplane::stats::WorkerStats;
use evenkeel::dataplane::verdict::{Outcome, Verdict};
use evenkeel::model::{
    Desired, EngineSettings, Interface, MacAddr, Method, PortRange, Protocol, Scheduler, Server, Service, ServiceKey,
};

use crate::support::{Case, Frames, OWN, median, vip};

/// What is measured: a method, and whether answers of the servers are.
const ROWS: [(&str, Method, bool); 7] = [
    ("dr", Method::Dr, false),
    ("nat", Method::Nat, false),
    ("nat answers", Method::Nat, true),
    ("full-nat", Method::FullNat, false),
    ("ipip", Method::Ipip, false),
    ("gue", Method::Gue, false),
    ("gre", Method::Gre, false),
];

fn address(v6: bool, n: u8) -> IpAddr {
    if v6 { IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]) } else { IpAddr::from([172, 16, 0, n]) }
}

/// The one server, with another port where NAT can change it.
fn snapshot(v6: bool, method: Method) -> Snapshot {
    let port = method.is_nat().then_some(5353);
    let server = Server { port, method, ..Server::dr(address(v6, 1), 1) };
    let key = ServiceKey { address: vip(v6).0, protocol: Protocol::Udp, ports: PortRange::single(53) };
    let local_addresses =
        if method == Method::FullNat { (101..=116).map(|n| address(v6, n)).collect() } else { Vec::new() };
    let service = Service { method, local_addresses, ..Service::dr("dns", key, Scheduler::WLC, vec![server]) };
    let desired =
        Desired { interfaces: vec![Interface { name: "eth0".into(), queues: None }], ..Desired::of(vec![service]) };
    let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 1, 1]) };
    let at = Whereabouts { hop: Some(hop), source: Some(address(v6, 254)), ..Whereabouts::default() };
    let ports = vec![Port::new(OWN, 1500, true)];
    Registry::default().compile_at(&desired, ports, std::time::Duration::ZERO, |_, _| at).expect("compiles").snapshot
}

struct Rig {
    frames: Frames,
    pipeline: Pipeline,
    snapshot: Snapshot,
    outcomes: [Outcome; BATCH],
    processed: u64,
}

impl Rig {
    fn new(case: &Case, method: Method) -> Rig {
        let entries = if method.is_nat() { case.flows * 2 } else { case.flows };
        let capacity = (entries + entries / 16) as u32;
        let settings = EngineSettings {
            flows: if case.v6 { 16 } else { capacity },
            flows_ipv6: if case.v6 { capacity } else { 16 },
            ..EngineSettings::default()
        };
        let mut rig = Rig {
            frames: Frames::new(),
            pipeline: Pipeline::new(&settings, Seeds::random(), Arc::new(WorkerStats::default())).expect("memory"),
            snapshot: snapshot(case.v6, method),
            outcomes: [Outcome::plain(Verdict::Pass); BATCH],
            processed: 0,
        };
        rig.pipeline.prefault();
        let mut at = 0;
        while at < case.flows {
            // The second packet proves a flow.
            for _ in 0..2 {
                rig.frames.write(case, |lane| (at + lane).min(case.flows - 1));
                rig.process();
            }
            at += BATCH;
        }
        rig
    }

    #[inline(never)]
    fn measured(&mut self) {
        self.process();
    }

    #[inline(always)]
    fn process(&mut self) {
        self.processed += BATCH as u64;
        let now = (self.processed / 20_000) as u32;
        let (memory, frames) = self.frames.parts();
        self.pipeline.process(&self.snapshot, memory, frames, &mut self.outcomes, now);
        self.pipeline.settle(&self.outcomes);
    }
}

/// Turns a batch of questions into the answers of the server, addresses and ports the other way round.
fn turn_round(frames: &mut Frames, v6: bool) {
    frames.each(|frame| {
        let (ip, l4) = if v6 { (22, 54) } else { (26, 34) };
        let length = if v6 { 16 } else { 4 };
        let client = frame[ip..ip + length].to_vec();
        let port = [frame[l4], frame[l4 + 1]];
        match address(v6, 1) {
            IpAddr::V4(a) => frame[ip..ip + 4].copy_from_slice(&a.octets()),
            IpAddr::V6(a) => frame[ip..ip + 16].copy_from_slice(&a.octets()),
        }
        frame[ip + length..ip + 2 * length].copy_from_slice(&client);
        frame[l4..l4 + 2].copy_from_slice(&5353u16.to_be_bytes());
        frame[l4 + 2..l4 + 4].copy_from_slice(&port);
        if !v6 {
            frame[24..26].fill(0);
            let check = checksum::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&check.to_ne_bytes());
        }
    });
}

/// A thousand batches of one method, for an instruction counter. `name` is that of a row, spaces as underlines.
pub fn count(name: &str, v6: bool, flows: usize) {
    let Some((_, method, answers)) = ROWS.into_iter().find(|row| row.0.replace([' ', '-'], "_") == name) else {
        eprintln!("unknown method `{name}`; expected one of {:?}", ROWS.map(|row| row.0.replace([' ', '-'], "_")));
        std::process::exit(2);
    };
    let case = Case { v6, flows };
    let mut rig = Rig::new(&case, method);
    let mut random = 0x1234_5678_9abc_def1;
    for _ in 0..1000 {
        rig.frames.write(&case, |_| crate::next(&mut random, flows));
        if answers {
            turn_round(&mut rig.frames, v6);
        }
        rig.measured();
    }
    println!("packets {}", 1000 * BATCH);
}

/// Hits in random order, every method in turn.
pub fn run(quick: bool, json: bool) -> Vec<serde_json::Value> {
    let (sizes, rounds): (&[usize], usize) = if quick { (&[1_000], 5) } else { (&[1_000, 100_000, 1_000_000], 9) };
    let mut rows = Vec::new();
    for (v6, &flows) in [false, true].into_iter().flat_map(|v6| sizes.iter().map(move |flows| (v6, flows))) {
        let case = Case { v6, flows };
        let mut rigs = ROWS.map(|(_, method, _)| Rig::new(&case, method));
        let mut spent = ROWS.map(|_| Vec::new());
        let mut more = ROWS.map(|_| Vec::new());
        let mut random = 0x1234_5678_9abc_def1;
        let batches = 4_000;
        for round in 0..=rounds {
            let mut dr = 0.0;
            for (at, rig) in rigs.iter_mut().enumerate() {
                let mut total = 0;
                for _ in 0..batches {
                    rig.frames.write(&case, |_| crate::next(&mut random, flows));
                    if ROWS[at].2 {
                        turn_round(&mut rig.frames, v6);
                    }
                    let start = Instant::now();
                    rig.measured();
                    total += start.elapsed().as_nanos() as u64;
                }
                assert_eq!(rig.pipeline.stats().forwarded.get(), rig.processed, "{}: not all forwarded", ROWS[at].0);
                let ns = total as f64 / (batches * BATCH) as f64;
                dr = if at == 0 { ns } else { dr };
                if round > 0 {
                    spent[at].push(ns);
                    more[at].push(ns - dr);
                }
            }
        }
        for (at, (name, ..)) in ROWS.iter().enumerate() {
            let (ns, difference) = (median(&mut spent[at]), median(&mut more[at]));
            let family = if v6 { "v6" } else { "v4" };
            if !json {
                println!("way   {family} {flows:>9} flows  {name:<12} {ns:6.1} ns  beside dr {difference:+6.1} ns");
            }
            rows.push(serde_json::json!({"case": "method", "method": name, "v6": v6, "flows": flows, "ns": ns,
                "beside_dr_ns": difference}));
        }
    }
    rows
}
