//! The packet generator: `evenkeel pktgen`, and its sink.
//!
//! Owns the arguments, the bounds and the pace, and the report. A run is always bounded. Never used by the appliance.

mod live;
mod sink;
pub mod template;
mod xsk;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::dataplane::io::facts::{FactsError, InterfaceFacts};
use crate::dataplane::io::xsk::OpenError;
use crate::model::MacAddr;
use template::{Kind, Parameters, Sources, Template, TemplateError, parse_sources};

/// How packets are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// An XDP program that the kernel runs on recycled frames: fastest. On veth the peer needs an XDP program.
    LiveFrames,
    /// AF_XDP transmission.
    Xsk,
}

/// In which order flows are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// At random.
    Random,
    /// One after the other.
    Sequential,
}

/// Arguments of `evenkeel pktgen`.
#[derive(Debug, clap::Args)]
pub struct PktgenArgs {
    /// Interface to send on, or with --sink to receive on.
    #[arg(long, short)]
    interface: String,
    /// Count and drop generated packets that arrive, instead of sending.
    #[arg(long)]
    sink: bool,
    /// How packets are made.
    #[arg(long, value_enum, default_value = "live-frames")]
    engine: Engine,
    /// Destination: an address, or address:port ([address]:port). Port 80 where none is given.
    #[arg(long, value_parser = parse_destination, required_unless_present = "sink")]
    dst: Option<(IpAddr, u16)>,
    /// Ethernet address of the next hop; not a group. Where none is given, the kernel's ARP table must have --dst.
    #[arg(long)]
    dst_mac: Option<MacAddr>,
    /// Source Ethernet address; the interface's where none is given.
    #[arg(long)]
    src_mac: Option<MacAddr>,
    /// Source address, or a prefix of addresses. 198.18.0.0/16 or 2001:db8:18::/112 where none is given.
    #[arg(long, value_parser = parse_sources)]
    src: Option<Sources>,
    /// Flows (source address and port).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    flows: u32,
    /// Order of the flows.
    #[arg(long, value_enum, default_value = "random")]
    order: Order,
    /// What is sent.
    #[arg(long, value_enum, default_value = "udp")]
    proto: Kind,
    /// Bytes of a frame, without FCS. 60 is the least on Ethernet (64 with FCS); raised to fit the headers if not given.
    #[arg(long)]
    size: Option<usize>,
    /// Packets each second; 0 is as fast as possible.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Stop after so many packets.
    #[arg(long)]
    count: Option<u64>,
    /// Stop after so many seconds. 10 where neither --count nor --duration is given.
    #[arg(long)]
    duration: Option<f64>,
    /// Print the report as one line of JSON.
    #[arg(long)]
    json: bool,
}

fn parse_destination(text: &str) -> Result<(IpAddr, u16), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, 80));
    }
    let socket: SocketAddr = text.parse().map_err(|_| format!("`{text}` is neither an address nor address:port"))?;
    Ok((socket.ip(), socket.port()))
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum PktgenError {
    /// The interface.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The packets.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The AF_XDP socket.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The XDP program.
    #[error("{what}")]
    Bpf {
        /// What was done.
        what: &'static str,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An argument.
    #[error("{0}")]
    Argument(String),
}

/// When to stop.
struct Bounds {
    count: Option<u64>,
    deadline: Option<Instant>,
    stop: Arc<AtomicBool>,
}

impl Bounds {
    /// How many packets may still come, or `None` when it is time to stop.
    fn left(&self, done: u64) -> Option<u64> {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if late || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        match self.count {
            Some(count) => count.checked_sub(done).filter(|&left| left > 0),
            None => Some(u64::MAX),
        }
    }
}

/// How many packets are due.
struct Pace {
    rate: u64,
    /// When the first packet was due; moves when a pause is not made up for.
    began: Instant,
    /// When sending began.
    started: Instant,
}

impl Pace {
    /// Everything is ready: what comes before, loading a program above all, is not made up for.
    fn start(&mut self) {
        self.started = Instant::now();
        self.began = self.started;
    }

    fn due(&mut self, sent: u64, now: Instant) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        let due = ((now - self.began).as_secs_f64() * self.rate as f64) as u64;
        let behind = due.saturating_sub(sent);
        // What a pause missed is made up for by a short burst only: a long one would overrun the receiver's ring and
        // show as its loss.
        let limit = (self.rate / 1000).max(64);
        if behind > limit {
            self.began += Duration::from_secs_f64((behind - limit) as f64 / self.rate as f64);
            return limit;
        }
        behind
    }
}

/// The outcome, as `--json` prints it.
#[derive(Clone, Debug, serde::Serialize)]
struct Report {
    /// `live-frames`, `xsk` or `sink`.
    engine: &'static str,
    interface: String,
    /// Packets given to the driver (sink: counted).
    packets: u64,
    /// Bytes of those frames.
    bytes: u64,
    seconds: f64,
    pps: f64,
    /// What the interface itself counted as sent, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface_tx_packets: Option<u64>,
}

/// Runs `evenkeel pktgen`. Exit code 0 done, 1 failed.
pub fn main(args: PktgenArgs) -> ExitCode {
    match run(&args) {
        Ok(report) => {
            print(&args, &report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut text = format!("evenkeel pktgen: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn print(args: &PktgenArgs, report: &Report) {
    if args.json {
        println!("{}", serde_json::to_string(report).unwrap_or_default());
    } else {
        let Report { packets, seconds, pps, interface, .. } = report;
        let verb = if args.sink { "received" } else { "sent" };
        println!("{interface}: {packets} packets {verb} in {seconds:.3} s, {pps:.0} packets/s");
    }
}

fn run(args: &PktgenArgs) -> Result<Report, PktgenError> {
    if args.duration.is_some_and(|seconds| !seconds.is_finite() || !(0.0..=1e6).contains(&seconds)) {
        return Err(PktgenError::Argument("--duration must be between 0 and a million seconds".to_owned()));
    }
    let facts = InterfaceFacts::of(&args.interface)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| PktgenError::Argument(format!("signal handler: {error}")))?;
    }
    let seconds = args.duration.or(if args.count.is_none() { Some(10.0) } else { None });
    let began = Instant::now();
    let deadline = seconds.map(|seconds| began + Duration::from_secs_f64(seconds));
    let bounds = Bounds { count: args.count, deadline, stop };

    if args.sink {
        let counts = sink::run(facts.ifindex, &bounds, |pps, total| {
            if !args.json {
                println!("{pps:.0} packets/s, {total} in all");
            }
        })?;
        let seconds = counts.active.as_secs_f64();
        let pps = if seconds > 0.0 { counts.packets as f64 / seconds } else { 0.0 };
        let (packets, bytes) = (counts.packets, counts.bytes);
        let interface = facts.name;
        return Ok(Report { engine: "sink", interface, packets, bytes, seconds, pps, interface_tx_packets: None });
    }

    let template = template(args, &facts)?;
    let random = args.order == Order::Random;
    let before = interface_tx_packets(&facts.name);
    let began = Instant::now();
    let mut pace = Pace { rate: args.rate, began, started: began };
    let (engine, packets) = match args.engine {
        Engine::LiveFrames => ("live-frames", live::run(&template, facts.ifindex, random, &bounds, &mut pace)?),
        Engine::Xsk => ("xsk", xsk::run(&template, &facts, random, &bounds, &mut pace)?),
    };
    let seconds = pace.started.elapsed().as_secs_f64();
    let interface_tx_packets = before.zip(interface_tx_packets(&facts.name)).map(|(before, after)| after - before);
    Ok(Report {
        engine,
        interface: facts.name,
        packets,
        bytes: packets * template.bytes.len() as u64,
        seconds,
        pps: packets as f64 / seconds.max(1e-9),
        interface_tx_packets,
    })
}

fn template(args: &PktgenArgs, facts: &InterfaceFacts) -> Result<Template, PktgenError> {
    let missing = |what: &str| PktgenError::Argument(format!("{what} is needed"));
    let (destination, port) = args.dst.ok_or_else(|| missing("--dst"))?;
    let destination_mac = args.dst_mac.or_else(|| resolved(&facts.name, destination));
    let destination_mac = destination_mac.ok_or_else(|| {
        missing(&format!("--dst-mac, because {destination} is not in the ARP table of {}", facts.name))
    })?;
    let usual = if destination.is_ipv4() { "198.18.0.0/16" } else { "2001:db8:18::/112" };
    let sources = match args.src {
        Some(sources) => sources,
        None => parse_sources(usual).map_err(PktgenError::Argument)?,
    };
    let least = if destination.is_ipv4() { 34 } else { 54 } + if args.proto == Kind::Udp { 8 } else { 20 };
    Ok(Template::new(Parameters {
        source_mac: args.src_mac.unwrap_or(facts.mac),
        destination_mac,
        sources,
        destination,
        port,
        kind: args.proto,
        size: args.size.unwrap_or(least.max(60)),
        flows: args.flows,
    })?)
}

/// The next hop's address that the kernel has resolved on this interface (IPv4: `proc_pid_net(5)`, arp).
fn resolved(interface: &str, destination: IpAddr) -> Option<MacAddr> {
    let text = std::fs::read_to_string("/proc/thread-self/net/arp").ok()?;
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [address, _, _, mac, _, device] = fields[..] else { return None };
        let found = device == interface && address.parse::<IpAddr>() == Ok(destination);
        mac.parse::<MacAddr>().ok().filter(|mac| found && !mac.is_zero())
    })
}

/// Packets that an interface of this thread's namespace has sent.
fn interface_tx_packets(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().nth(9)?.parse().ok()
}
