//! `evenkeel replay`: the engine's own pipeline over a capture, without privileges.
//!
//! Owns the command, the clock that the capture's stamps make, and the memory in which frames lie. Every decision is
//! the pipeline's: nothing here knows what a service is. Time never runs backwards: a stamp before its predecessor's
//! counts as the same moment. Frames go through one at a time, so that what one brings forth (fragments that waited for
//! it, pieces of it) follows right behind it.

mod capture;
mod report;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::control::compile::Registry;
use crate::control::{config, progress};
use crate::dataplane::flow::Seeds;
use crate::dataplane::io::{BATCH, Frame, FrameMemory, PortIndex};
use crate::dataplane::parse;
use crate::dataplane::pipeline::{MAX_EXTRA, Pipeline};
use crate::dataplane::snapshot::{NextHop, Port, Snapshot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::model::{Desired, MacAddr};

use capture::{Input, Record};
use report::{Line, Report};

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
    /// Print one line of JSON for each input frame, and for each frame that the engine made or had kept.
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
    /// The MTU of an interface, in bytes; without it, any frame fits. May be repeated.
    #[arg(long = "mtu", value_name = "INTERFACE=BYTES", value_parser = parse_mtu)]
    mtus: Vec<(String, u32)>,
    /// Write answers (ARP, ND, echo, ICMP errors) to the output too.
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

fn parse_mtu(text: &str) -> Result<(String, u32), String> {
    let (name, mtu) = text.split_once('=').ok_or("expected INTERFACE=BYTES, for example eth0=1500")?;
    let bytes: u32 = mtu.parse().map_err(|_| format!("`{mtu}` is not a number of bytes"))?;
    // From the least of an IPv4 link (RFC 791) to the largest packet.
    if (68..=65_535).contains(&bytes) {
        Ok((name.to_owned(), bytes))
    } else {
        Err(format!("{bytes} is not in 68..=65535"))
    }
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
    /// `--mac` or `--mtu` names an interface that the configuration does not have.
    #[error("--{option} {name}: the configuration has no such interface; it has: {known}")]
    UnknownInterface {
        /// The option, without dashes.
        option: &'static str,
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

/// The frame that is looked at, and behind it those that the pipeline makes.
struct Memory {
    bytes: Vec<u8>,
    made: usize,
}

impl Memory {
    fn new() -> Self {
        // Pages that are never touched cost nothing.
        Memory { bytes: vec![0; CHUNK * (1 + MAX_EXTRA)], made: 0 }
    }

    /// Puts a frame in. Those that were made for the one before are gone then.
    fn put(&mut self, bytes: &[u8], port: PortIndex) -> Frame {
        self.clear();
        let len = bytes.len().min(CHUNK - HEADROOM - 64);
        self.bytes[HEADROOM..HEADROOM + len].copy_from_slice(&bytes[..len]);
        Frame { addr: HEADROOM as u64, len: len as u32, port, ..Frame::default() }
    }

    fn clear(&mut self) {
        self.made = 0;
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
        if self.made == MAX_EXTRA || len as usize > CHUNK - HEADROOM {
            return None;
        }
        self.made += 1;
        let addr = self.made * CHUNK + HEADROOM;
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
    let output = match &args.output {
        Some(path) => Some(capture::Output::create(path)?),
        None => None,
    };
    let report = Report::new(&desired, &snapshot, args.json);
    let mut written = Written { output, report, with_replies: args.with_replies, out };
    let mut memory = Memory::new();
    let mut clock = Clock::new(records.first().map_or(Duration::ZERO, |r| r.time));
    let progress = progress::towards(records.len(), "frames", false);
    for (number, record) in (1..).zip(&records) {
        if number % 1024 == 0 {
            progress.set_position(number as u64);
        }
        let now = clock.advance(record.time);
        if clock.sweep_is_due() {
            pipeline.sweep(&snapshot, usize::MAX / 2, now);
        }
        if pipeline.fragments_are_due(now) {
            memory.clear();
            pipeline.expire_fragments(&snapshot, &mut memory, now);
            written.extra(&mut pipeline, &memory, None, record.time)?;
        }
        let port = (record.interface as usize).min(desired.interfaces.len().saturating_sub(1));
        let mut frames = [memory.put(&record.bytes, port as PortIndex)];
        let mut outcomes = [Outcome::plain(Verdict::Pass)];
        pipeline.process(&snapshot, &mut memory, &mut frames, &mut outcomes, now);
        pipeline.settle(&outcomes);
        written.frame(
            Line { number: Some(number), extra: false, time: record.time },
            memory.bytes(&frames[0]),
            &outcomes[0],
        )?;
        written.extra(&mut pipeline, &memory, Some(number), record.time)?;
    }
    progress.finish_and_clear();
    // What still waits when the capture ends waits in vain.
    let end = clock.now + Duration::from_millis(u64::from(desired.engine.fragment_wait_ms) * 2 + 1000);
    let now = clock.advance(end);
    while pipeline.fragments_are_due(now) {
        memory.clear();
        pipeline.expire_fragments(&snapshot, &mut memory, now);
        written.extra(&mut pipeline, &memory, None, end)?;
    }
    if let Some(output) = written.output {
        output.finish()?;
    }
    let file = args.output.as_deref().map(Path::display).map(|d| d.to_string());
    written.report.end(written.out, pipeline.stats(), file)?;
    Ok(())
}

/// Where outcomes go: the output capture, and the report.
struct Written<'a, W> {
    output: Option<capture::Output>,
    report: Report<'a>,
    with_replies: bool,
    out: &'a mut W,
}

impl<W: std::io::Write> Written<'_, W> {
    fn frame(&mut self, line: Line, bytes: &[u8], outcome: &Outcome) -> Result<(), ReplayError> {
        let sent = match outcome.verdict {
            Verdict::Tx(_) => true,
            Verdict::Reply(_) => self.with_replies,
            _ => false,
        };
        if let (true, Some(output)) = (sent, &mut self.output) {
            output.write(line.time, bytes)?;
        }
        self.report.frame(self.out, &line, outcome)?;
        Ok(())
    }

    /// What the pipeline brought forth besides the frame that it was given.
    fn extra(
        &mut self,
        pipeline: &mut Pipeline,
        memory: &Memory,
        number: Option<usize>,
        time: Duration,
    ) -> Result<(), ReplayError> {
        let mut frames = [Frame::default(); BATCH];
        let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
        loop {
            let count = pipeline.take_extra(&mut frames, &mut outcomes);
            if count == 0 {
                return Ok(());
            }
            pipeline.settle(&outcomes[..count]);
            for (frame, outcome) in frames.iter().zip(&outcomes).take(count) {
                self.frame(Line { number, extra: true, time }, memory.bytes(frame), outcome)?;
            }
        }
    }
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
    let named = args.macs.iter().map(|(name, _)| ("mac", name)).chain(args.mtus.iter().map(|(name, _)| ("mtu", name)));
    for (option, name) in named {
        if !desired.interfaces.iter().any(|i| i.name == *name) {
            let known: Vec<&str> = desired.interfaces.iter().map(|i| i.name.as_str()).collect();
            return Err(ReplayError::UnknownInterface { option, name: name.clone(), known: known.join(", ") });
        }
    }
    let ports = desired.interfaces.iter().enumerate().map(|(at, interface)| {
        let mtu = args.mtus.iter().find(|(name, _)| *name == interface.name).map_or(65_535, |(_, mtu)| *mtu);
        match args.macs.iter().find(|(name, _)| *name == interface.name) {
            Some((_, mac)) => Port::new(*mac, mtu, true),
            None => Port::new(learn_mac(desired, records, at), mtu, false),
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
    let mut registry = Registry::default();
    let compiled = registry.compile(desired, ports.collect(), |address| hops.get(&address).copied())?;
    // What the master would do.
    let slots = desired.vrrp.routers.iter().filter_map(|router| registry.routers.slot(&router.name));
    slots.for_each(|slot| registry.routers.mastery.set(slot, true));
    Ok(compiled.snapshot)
}

/// The unicast destination MAC that most frames for owned addresses, or from servers behind NAT, have on an interface.
fn learn_mac(desired: &Desired, records: &[Record], interface: usize) -> MacAddr {
    let of_services = desired.services.iter().flat_map(|s| s.local_addresses.iter().copied().chain([s.key.address]));
    let owned: HashSet<IpAddr> = of_services.chain(desired.addresses.iter().copied()).collect();
    let servers = desired.services.iter().flat_map(|s| &s.servers).filter(|server| server.method.is_nat());
    let servers: HashSet<IpAddr> = servers.map(|server| server.address).collect();
    let mut seen: HashMap<MacAddr, usize> = HashMap::new();
    for record in records.iter().filter(|r| r.interface as usize == interface) {
        let for_us = parse::destination(&record.bytes).is_some_and(|address| owned.contains(&address))
            || parse::source(&record.bytes).is_some_and(|address| servers.contains(&address));
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
