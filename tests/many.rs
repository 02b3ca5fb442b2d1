//! Several workers: flows whose packets come to the wrong one are handed to the one that has them, and nothing is lost.

mod io_support;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;
use evenkeel::control::compile::Registry;
use evenkeel::control::workers::{self, Workers};
use evenkeel::dataplane::directory::{Directory, Peers};
use evenkeel::dataplane::flow::Seeds;
use evenkeel::dataplane::io::facts::InterfaceFacts;
use evenkeel::dataplane::io::memory::MemoryIo;
use evenkeel::dataplane::io::open::{Opened, open};
use evenkeel::dataplane::io::{Frame, IoStats, PacketIo};
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::dataplane::stats::WorkerStats;
use evenkeel::dataplane::worker::{self, Pace, Shared};
use evenkeel::dataplane::xdp::{FilterEntry, FilterTable};
use evenkeel::model::*;
use io_support::{Net, raw, run};

const SERVICE: [u8; 4] = [192, 0, 2, 10];

fn desired() -> Desired {
    let key = ServiceKey { address: IpAddr::from(SERVICE), protocol: Protocol::Udp, ports: PortRange::single(53) };
    let servers = [1, 2, 3].map(|n| Server::dr(IpAddr::from([10, 0, 0, n]), 1)).to_vec();
    Desired::of(vec![Service::dr("dns", key, Scheduler::RR, servers)])
}

fn snapshot(mac: MacAddr) -> Snapshot {
    let hop = |address: IpAddr| match address {
        IpAddr::V4(a) => Some(NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 1, a.octets()[3]]) }),
        IpAddr::V6(_) => None,
    };
    Registry::default().compile(&desired(), vec![Port::new(mac, 1500, true)], hop).expect("compiles").snapshot
}

fn settings() -> EngineSettings {
    EngineSettings { flows: 20_000, flows_ipv6: 1024, ..EngineSettings::default() }
}

/// A query of flow `n`, with the flow's number in its payload.
fn query(mac: MacAddr, n: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], mac.0)
        .ipv4([198, 51, 100, 7], SERVICE, 64)
        .udp(1024 + n, 53)
        .write(&mut frame, &n.to_be_bytes())
        .expect("builds");
    frame
}

/// In-memory I/O that is fed from another thread, which rings when it has put something in.
struct Fed {
    inner: MemoryIo,
    feed: Arc<SegQueue<Vec<u8>>>,
    sent: Vec<Vec<u8>>,
}

impl PacketIo for Fed {
    type Memory = <MemoryIo as PacketIo>::Memory;

    fn memory(&mut self) -> &mut Self::Memory {
        self.inner.memory()
    }

    fn receive(&mut self, out: &mut [Frame]) -> usize {
        for _ in 0..out.len() {
            let Some(bytes) = self.feed.pop() else { break };
            assert!(self.inner.inject(0, &bytes), "frames are lost to the test itself");
        }
        self.inner.receive(out)
    }

    fn transmit(&mut self, port: u8, frame: Frame) -> bool {
        let accepted = self.inner.transmit(port, frame);
        self.sent.extend(self.inner.sent(port));
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

    fn wait(&mut self, timeout: Duration, bell: Option<BorrowedFd<'_>>) {
        if self.feed.is_empty() {
            self.inner.wait(timeout.min(Duration::from_millis(1)), bell);
        }
    }

    fn tx_pending(&self) -> bool {
        false
    }

    fn stats(&mut self) -> IoStats {
        self.inner.stats()
    }
}

fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

fn sum(stats: &[Arc<WorkerStats>], of: impl Fn(&WorkerStats) -> u64) -> u64 {
    stats.iter().map(|stats| of(stats)).sum()
}

fn drops(stats: &WorkerStats) -> u64 {
    stats.drops.iter().map(|drop| drop.get()).sum()
}

/// Every flow begins at one worker; then every worker gets packets of all flows, in no order and from both threads.
#[test]
fn flows_stay_whole_whichever_worker_gets_their_packets() {
    const FLOWS: u16 = 3000;
    const ROUNDS: u64 = 10;
    const WORKERS: usize = 3;
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    // A worker that is slow must not lose frames here: see the test of a full inbox in the unit tests.
    let shared = Arc::new(Shared::new(snapshot(mac), WORKERS, 2048 - 256).expect("shared"));
    let directory = Arc::new(Directory::new(20_000 * WORKERS));
    let feeds: Vec<Arc<SegQueue<Vec<u8>>>> = (0..WORKERS).map(|_| Arc::default()).collect();
    let mut stats = Vec::new();
    let mut threads = Vec::new();
    for (me, feed) in feeds.iter().cloned().enumerate() {
        let mut pipeline = Pipeline::new(&settings(), Seeds::fixed(), Arc::default()).expect("memory");
        stats.push(pipeline.stats().clone());
        pipeline.join(Peers { me: me as u8, count: WORKERS as u8, directory: directory.clone() });
        let shared = shared.clone();
        threads.push(std::thread::spawn(move || {
            let mut io = Fed { inner: MemoryIo::new(1, 512, 2048), feed, sent: Vec::new() };
            let pace = Pace { polling: Polling::Adaptive, idle: Duration::ZERO };
            worker::run(&mut io, &mut pipeline, &shared, me, pace);
            io
        }));
    }
    for flow in 0..FLOWS {
        feeds[usize::from(flow) % WORKERS].push(query(mac, flow));
    }
    let mut fed = u64::from(FLOWS);
    await_that("flows", || sum(&stats, |s| s.forwarded.get()) == fed);
    let mut at_home = fed;
    for round in 1..=ROUNDS {
        // At most as many under way as an inbox has parcels.
        for part in (0..FLOWS).collect::<Vec<_>>().chunks(500) {
            for flow in part {
                let worker = (usize::from(*flow) + round as usize) % WORKERS;
                feeds[worker].push(query(mac, *flow));
                fed += 1;
                at_home += u64::from(worker == usize::from(*flow) % WORKERS);
            }
            await_that("packets", || sum(&stats, |s| s.forwarded.get() + drops(s)) == fed);
        }
    }
    shared.stop.store(true, Relaxed);
    let ios: Vec<Fed> = threads.into_iter().map(|thread| thread.join().expect("the worker lives")).collect();
    assert_eq!(sum(&stats, drops), 0);
    assert_eq!(sum(&stats, |s| s.handed.get()), fed - at_home);
    assert_eq!(sum(&stats, |s| s.taken_over.get()), fed - at_home);
    assert_eq!(sum(&stats, |s| s.frames.get()), fed + (fed - at_home));
    assert_eq!(sum(&stats, |s| s.flows_v4.get()), u64::from(FLOWS), "one owner for each flow");
    let mut servers = vec![0u8; usize::from(FLOWS)];
    let mut sent = 0;
    for (me, mut io) in ios.into_iter().enumerate() {
        for bytes in io.sent {
            let flow = usize::from(u16::from_be_bytes([bytes[42], bytes[43]]));
            assert_eq!(flow % WORKERS, me, "sent by its owner");
            let bound = &mut servers[flow];
            assert!(*bound == 0 || *bound == bytes[5], "flow {flow} moved");
            *bound = bytes[5];
            sent += 1;
        }
        let account = io.inner.frames_accounted();
        assert_eq!((account.free, account.held), (512, 0), "{account:?}");
        assert_eq!(io.inner.stats().rx_ring_drops, 0);
    }
    assert_eq!(sent, fed);
}

/// On a real interface with two queues: all flows begin on the first one, then the sender spreads them over both.
#[test]
fn packets_on_another_queue_reach_their_flows() {
    let Some(net) = Net::new("packets_on_another_queue_reach_their_flows", 0) else { return };
    let outer = net.outer.as_str();
    let pair = "link add a0 numrxqueues 2 numtxqueues 2 type veth peer name c0 numrxqueues 2 numtxqueues 2 netns";
    run(&[&["ip", "-n", &net.inner], &pair.split(' ').collect::<Vec<_>>()[..], &[outer]].concat());
    run(&["ip", "-n", &net.inner, "link", "set", "a0", "up"]);
    run(&["ip", "-n", outer, "link", "set", "c0", "up"]);
    let in_outer =
        |words: &str| run(&[&["ip", "netns", "exec", outer], &words.split(' ').collect::<Vec<_>>()[..]].concat());
    in_outer("ethtool -K c0 tx off tso off gso off");
    run(&["ip", "netns", "exec", &net.inner, "ethtool", "-L", "a0", "rx", "2", "tx", "2"]);
    in_outer("ethtool -L c0 rx 2 tx 1");
    Net::enter(outer);
    let (mut sender, _) = raw("c0");
    Net::enter(&net.inner);
    let mac = InterfaceFacts::of("a0").expect("facts").mac;

    let settings = EngineSettings {
        cores: vec![0, 0],
        modes: vec![IoMode::Copy],
        polling: Polling::Adaptive,
        idle_us: 0,
        ..settings()
    };
    let interface = Interface { name: "a0".to_owned(), queues: None };
    let Opened { workers: ios, mut gates, .. } = open(&[interface], &settings).expect("open");
    let shared = Arc::new(workers::shared(snapshot(mac), ios.len(), &settings).expect("shared"));
    let workers = Workers::start(ios, &settings, &shared).expect("workers");
    let address = IpAddr::from(SERVICE);
    let entry = FilterEntry { address, protocol: Protocol::Udp, ports: PortRange::single(53) };
    gates[0]
        .widen(&FilterTable { entries: vec![entry], owned: vec![address], ..FilterTable::default() })
        .expect("table");

    let stats: Vec<Arc<WorkerStats>> = workers.list.iter().map(|worker| worker.stats.clone()).collect();
    const FLOWS: u16 = 400;
    let mut sent = 0;
    let mut all = || {
        for flow in 0..FLOWS {
            sender.send_to(&query(mac, flow), None).expect("room").expect("sent");
            sent += 1;
            if flow % 50 == 49 {
                await_that("packets", || sum(&stats, |s| s.forwarded.get() + drops(s)) == sent);
            }
        }
    };
    all();
    assert_eq!(sum(&stats, |s| s.handed.get()), 0);
    in_outer("ethtool -L c0 rx 2 tx 2");
    (0..5).for_each(|_| all());
    assert_eq!(sum(&stats, drops), 0);
    let handed = sum(&stats, |s| s.handed.get());
    assert!(handed > 100, "the sender did not spread its packets: {handed}");
    // A batch is counted when it was acted upon: the other worker may have been faster.
    await_that("the count of what was handed on", || {
        sum(&stats, |s| s.taken_over.get()) == sum(&stats, |s| s.handed.get())
    });
    await_that("the last sweep", || sum(&stats, |s| s.flows_v4.get()) == u64::from(FLOWS));
    assert_eq!(stats[1].forwarded.get(), 0, "the second worker has no flow of its own");
    drop(gates);
    drop(workers);
}
