//! `evenkeel replay`: the engine's own pipeline over a capture, without privileges.
//!
//! Owns the command, the clock that the capture's stamps make, and the memory in which frames lie. Every decision is
//! the pipeline's: nothing here knows what a service is. Time never runs backwards: a stamp before its predecessor's
//! counts as the same moment.

mod capture;
mod report;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::control::compile::Registry;
use crate::control::config;
use crate::dataplane::flow::Seeds;
use crate::dataplane::io::{BATCH, Frame, FrameMemory, PortIndex};
use crate::dataplane::parse;
use crate::dataplane::pipeline::Pipeline;
use crate::dataplane::snapshot::{NextHop, Port, Snapshot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::model::{Desired, MacAddr};

use capture::{Input, Record};
use report::Report;

/// Arguments of `evenkeel replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The capture to read: pcap or pcapng, Ethernet.
    #[arg(long = "in", value_name = "A.pcap")]
    input: PathBuf,
    /// Where forwarded frames go, in order, with their stamps.
    #[arg(long = "out", value_name = "B.pcap")]
    output: Option<PathBuf>,
    /// Print one line of JSON for each input frame.
    #[arg(long)]
    json: bool,
    /// A server's MAC address; goes before the configuration's [[neighbor]] entries. May be repeated.
    #[arg(long = "neighbor", value_name = "IP=MAC", value_parser = parse_neighbor)]
    neighbors: Vec<(IpAddr, MacAddr)>,
    /// Take this server as down: it is left out, as if its health check had failed. May be repeated.
    #[arg(long = "down", value_name = "IP")]
    down: Vec<IpAddr>,
    /// The MAC of an interface; frames to other MACs are then dropped as they would be live. Without it, the
    /// destination MAC that most frames for services have is taken as the interface's, and other ones are accepted.
    #[arg(long = "mac", value_name = "INTERFACE=MAC", value_parser = parse_mac)]
    macs: Vec<(String, MacAddr)>,
    /// Write answers (ARP, ND, echo) to the output too.
    #[arg(long)]
    with_replies: bool,
}

fn parse_neighbor(text: &str) -> Result<(IpAddr, MacAddr), String> {
    let (address, mac) = text.split_once('=').ok_or("expected IP=MAC, for example 10.0.0.11=02:00:00:00:00:11")?;
    let address = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
    Ok((address, mac.parse().map_err(|e: crate::model::ParseMacError| e.to_string())?))
}

fn parse_mac(text: &str) -> Result<(String, MacAddr), String> {
    let (name, mac) = text.split_once('=').ok_or("expected INTERFACE=MAC, for example eth0=02:00:00:00:00:01")?;
    Ok((name.to_owned(), mac.parse().map_err(|e: crate::model::ParseMacError| e.to_string())?))
}

/// Why a replay could not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The configuration was refused; the text holds all its errors.
    #[error("{0}")]
    Config(String),
    /// A capture could not be read or written.
    #[error(transparent)]
    Capture(#[from] capture::CaptureError),
    /// `--mac` names an interface that the configuration does not have.
    #[error("--mac {name}: the configuration has no such interface; it has: {known}")]
    UnknownInterface {
        /// As given.
        name: String,
        /// Those there are.
        known: String,
    },
    /// More servers than slots.
    #[error(transparent)]
    Compile(#[from] crate::control::compile::CompileError),
    /// Output to the terminal failed.
    #[error("cannot write the report, or no memory for the flow table: {0}")]
    Report(#[from] std::io::Error),
}

/// Runs `evenkeel replay`.
pub fn main(args: ReplayArgs) -> ExitCode {
    match run(&args, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ReplayError::Report(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel replay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Bytes of a chunk of frame memory: the largest frame that a capture can hold, and headroom.
const CHUNK: usize = 1 << 17;
const HEADROOM: usize = 256;

/// One batch's frames, those that the pipeline makes behind those that it is given.
struct Memory {
    bytes: Vec<u8>,
    made: usize,
}

impl Memory {
    fn new() -> Self {
        Memory { bytes: vec![0; CHUNK * BATCH * 2], made: 0 }
    }

    fn put(&mut self, chunk: usize, bytes: &[u8], port: PortIndex) -> Frame {
        self.made = 0;
        let addr = chunk * CHUNK + HEADROOM;
        let len = bytes.len().min(CHUNK - HEADROOM - 64);
        self.bytes[addr..addr + len].copy_from_slice(&bytes[..len]);
        Frame { addr: addr as u64, len: len as u32, port, ..Frame::default() }
    }

    fn range(&self, frame: &Frame) -> std::ops::Range<usize> {
        let start = (frame.addr as usize).min(self.bytes.len());
        start..(start + frame.len as usize).min(self.bytes.len())
    }
}

impl FrameMemory for Memory {
    fn bytes(&self, frame: &Frame) -> &[u8] {
        &self.bytes[self.range(frame)]
    }

    fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8] {
        let range = self.range(frame);
        &mut self.bytes[range]
    }

    fn headroom(&self, frame: &Frame) -> usize {
        frame.addr as usize % CHUNK
    }

    fn allocate(&mut self, port: PortIndex, len: u32) -> Option<Frame> {
        if self.made == BATCH || len as usize > CHUNK - HEADROOM {
            return None;
        }
        let addr = (BATCH + self.made) * CHUNK + HEADROOM;
        self.made += 1;
        Some(Frame { addr: addr as u64, len, port, ..Frame::default() })
    }

    fn give_back(&mut self, frame: Frame) {
        if frame.addr as usize / CHUNK + 1 == BATCH + self.made {
            self.made -= 1;
        }
    }
}

/// Replays a capture and writes the report to `out`.
///
/// # Errors
/// A refused configuration, an unreadable capture, an output that cannot be written.
pub fn run(args: &ReplayArgs, out: &mut impl std::io::Write) -> Result<(), ReplayError> {
    let loaded = config::load(&args.config).map_err(|refused| ReplayError::Config(refused.to_string()))?;
    let mut desired = loaded.desired;
    let Input { records, damage } = Input::open(&args.input)?;
    if let Some(damage) = damage {
        eprintln!("evenkeel replay: {damage}; the {} frames before it are replayed", records.len());
    }
    // As many flows as the capture can hold, and no more than configured: the same answers from less memory.
    desired.engine.flows = desired.engine.flows.min(records.len() as u32 + 16);
    desired.engine.flows_ipv6 = desired.engine.flows_ipv6.min(records.len() as u32 + 16);
    for service in &mut desired.services {
        service.servers.retain(|server| !args.down.contains(&server.address));
    }
    let snapshot = snapshot(args, &desired, &records)?;
    let stats = Arc::new(WorkerStats::default());
    let mut pipeline = Pipeline::new(&desired.engine, Seeds::fixed(), stats)?;
    let mut output = match &args.output {
        Some(path) => Some(capture::Output::create(path)?),
        None => None,
    };
    let mut report = Report::new(&desired, &snapshot, args.json);
    let mut memory = Memory::new();
    let mut clock = Clock::new(records.first().map_or(Duration::ZERO, |r| r.time));
    let mut done = 0;
    while done < records.len() {
        let now = clock.advance(records[done].time);
        if clock.sweep_is_due() {
            pipeline.sweep(&snapshot, usize::MAX / 2, now);
        }
        // A batch is what the same millisecond brought.
        let mut frames = [Frame::default(); BATCH];
        let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
        let mut count = 0;
        while count < BATCH && done + count < records.len() && clock.same(records[done + count].time) {
            let record = &records[done + count];
            let port = (record.interface as usize).min(desired.interfaces.len().saturating_sub(1));
            frames[count] = memory.put(count, &record.bytes, port as PortIndex);
            count += 1;
        }
        let (frames, outcomes) = (&mut frames[..count], &mut outcomes[..count]);
        pipeline.process(&snapshot, &mut memory, frames, outcomes, now);
        pipeline.settle(outcomes);
        for (at, (frame, outcome)) in frames.iter().zip(&*outcomes).enumerate() {
            let record = &records[done + at];
            let sent = match outcome.verdict {
                Verdict::Tx(_) => true,
                Verdict::Reply(_) => args.with_replies,
                _ => false,
            };
            if let (true, Some(output)) = (sent, &mut output) {
                output.write(record.time, memory.bytes(frame))?;
            }
            report.frame(out, done + at + 1, record, outcome)?;
        }
        done += count;
    }
    if let Some(output) = output {
        output.finish()?;
    }
    report.end(out, args.output.as_deref().map(Path::display).map(|d| d.to_string()))?;
    Ok(())
}

/// The pipeline's milliseconds, from the capture's stamps.
struct Clock {
    start: Duration,
    now: Duration,
    swept: u32,
}

impl Clock {
    fn new(start: Duration) -> Self {
        Clock { start, now: start, swept: 0 }
    }

    fn millis(&self, time: Duration) -> u32 {
        time.saturating_sub(self.start).as_millis() as u32
    }

    fn advance(&mut self, time: Duration) -> u32 {
        self.now = self.now.max(time);
        self.millis(self.now)
    }

    /// Whether a frame with this stamp belongs to the current moment.
    fn same(&self, time: Duration) -> bool {
        self.millis(time.max(self.now)) == self.millis(self.now)
    }

    /// Flows end within a quarter of a second of their timeout.
    fn sweep_is_due(&mut self) -> bool {
        let now = self.millis(self.now);
        let due = now.wrapping_sub(self.swept) >= 250;
        if due {
            self.swept = now;
        }
        due
    }
}

/// The snapshot for a replay: MACs as given or learned, next hops as given or configured.
fn snapshot(args: &ReplayArgs, desired: &Desired, records: &[Record]) -> Result<Snapshot, ReplayError> {
    for (name, _) in &args.macs {
        if !desired.interfaces.iter().any(|i| i.name == *name) {
            let known: Vec<&str> = desired.interfaces.iter().map(|i| i.name.as_str()).collect();
            return Err(ReplayError::UnknownInterface { name: name.clone(), known: known.join(", ") });
        }
    }
    let ports = desired.interfaces.iter().enumerate().map(|(at, interface)| {
        match args.macs.iter().find(|(name, _)| *name == interface.name) {
            Some((_, mac)) => Port::new(*mac, 65_535, true),
            None => Port::new(learn_mac(desired, records, at), 65_535, false),
        }
    });
    let port_of = |name: &Option<String>| {
        let at = name.as_ref().and_then(|name| desired.interfaces.iter().position(|i| i.name == *name));
        at.unwrap_or(0) as PortIndex
    };
    let mut hops: HashMap<IpAddr, NextHop> = HashMap::new();
    for neighbor in &desired.neighbors {
        let hop = NextHop { port: port_of(&neighbor.interface), vlan: neighbor.vlan, mac: neighbor.mac };
        hops.insert(neighbor.address, hop);
    }
    for (address, mac) in &args.neighbors {
        let port = hops.get(address).map_or(0, |hop| hop.port);
        hops.insert(*address, NextHop { port, vlan: None, mac: *mac });
    }
    for service in &desired.services {
        for server in service.servers.iter().filter(|s| !hops.contains_key(&s.address)) {
            eprintln!(
                "evenkeel replay: {}: no next hop for {}; give --neighbor {}=MAC or a [[neighbor]] entry, or it takes \
                 no flows",
                service.name, server.address, server.address
            );
        }
    }
    let compiled = Registry::default().compile(desired, ports.collect(), |address| hops.get(&address).copied())?;
    Ok(compiled.snapshot)
}

/// The unicast destination MAC that most frames for owned addresses have on an interface.
fn learn_mac(desired: &Desired, records: &[Record], interface: usize) -> MacAddr {
    let of_services = desired.services.iter().flat_map(|s| s.local_addresses.iter().copied().chain([s.key.address]));
    let owned: std::collections::HashSet<IpAddr> = of_services.chain(desired.addresses.iter().copied()).collect();
    let mut seen: HashMap<MacAddr, usize> = HashMap::new();
    for record in records.iter().filter(|r| r.interface as usize == interface) {
        let for_us = parse::destination(&record.bytes).is_some_and(|address| owned.contains(&address));
        if let (true, Some(mac)) = (for_us, record.bytes.first_chunk::<6>())
            && !MacAddr(*mac).is_multicast()
        {
            *seen.entry(MacAddr(*mac)).or_default() += 1;
        }
    }
    let most = seen.into_iter().max_by_key(|(mac, count)| (*count, std::cmp::Reverse(*mac)));
    most.map_or(MacAddr([2, 0, 0, 0, 0, 1]), |(mac, _)| mac)
}

/// Names a drop for people and JSON.
fn reason_name(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Drop(reason) => Some(DropReason::name(reason)),
        _ => None,
    }
}
