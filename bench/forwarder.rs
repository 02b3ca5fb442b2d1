//! The bare AF_XDP forwarder: takes what the filter gives it, sets the MAC addresses, sends it out. What Evenkeel's
//! end-to-end rate is measured against.
//!
//! Owns nothing but its loop: sockets, rings and filter are the appliance's own, so the difference to the appliance is
//! the pipeline alone. It never parses, looks up or counts a packet.
//!
//! `forwarder --in IFACE --out IFACE --dst IP[:PORT] --dst-mac MAC [--seconds N] [--core N] [--sleep [--idle-us N]]`

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use evenkeel::dataplane::io::open::{self, WorkerIo};
use evenkeel::dataplane::io::{BATCH, Frame, FrameMemory, PacketIo};
use evenkeel::dataplane::xdp::{FilterEntry, FilterTable};
use evenkeel::model::{EngineSettings, Interface, IoMode, MacAddr, PortRange, Protocol};
use nix::sys::resource::{UsageWho, getrusage};

/// A bare AF_XDP forwarder.
#[derive(Parser)]
struct Arguments {
    /// Interface on which packets arrive.
    #[arg(long = "in")]
    input: String,
    /// Interface on which they leave; the same one for one arm.
    #[arg(long = "out")]
    output: String,
    /// Address, or address:port, whose UDP and TCP packets are taken.
    #[arg(long)]
    dst: String,
    /// Ethernet address of the next hop.
    #[arg(long)]
    dst_mac: MacAddr,
    /// Stop after so many seconds; 0 runs until a signal.
    #[arg(long, default_value_t = 0.0)]
    seconds: f64,
    /// Pin to this core.
    #[arg(long)]
    core: Option<usize>,
    /// Sleep when idle, as the appliance's adaptive polling does; else poll without end.
    #[arg(long)]
    sleep: bool,
    /// With --sleep: microseconds without a packet before it sleeps.
    #[arg(long, default_value_t = 100)]
    idle_us: u64,
    /// I/O modes allowed, best first.
    #[arg(long, value_delimiter = ',', default_value = "zero-copy,copy,generic")]
    modes: Vec<String>,
    /// Entries in a ring.
    #[arg(long, default_value_t = 2048)]
    ring_size: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forwarder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (address, ports) = match (arguments.dst.parse::<IpAddr>(), arguments.dst.parse::<SocketAddr>()) {
        (Ok(address), _) => (address, PortRange::ANY),
        (_, Ok(socket)) => (socket.ip(), PortRange::single(socket.port())),
        _ => bail!("--dst {} is neither an address nor address:port", arguments.dst),
    };
    let modes = arguments.modes.iter().map(|name| {
        let mode = IoMode::ALL.into_iter().find(|mode| mode.name() == name);
        mode.with_context(|| format!("--modes: `{name}` is no mode"))
    });
    let settings = EngineSettings {
        modes: modes.collect::<anyhow::Result<_>>()?,
        ring_size: arguments.ring_size,
        frames: arguments.ring_size * 4,
        ..EngineSettings::default()
    };
    let mut names = vec![arguments.input.clone()];
    if arguments.output != arguments.input {
        names.push(arguments.output.clone());
    }
    let interfaces: Vec<_> = names.into_iter().map(|name| Interface { name, queues: None }).collect();
    let mut opened = open::open(&interfaces, &settings).context("no I/O")?;
    let modes: Vec<_> = opened.report.modes.iter().map(ToString::to_string).collect();
    eprintln!("forwarder: {}", modes.join(", "));
    let entries = [Protocol::Tcp, Protocol::Udp].map(|protocol| FilterEntry { address, protocol, ports });
    opened.gates[0].widen(&FilterTable { entries: entries.to_vec(), ..FilterTable::default() })?;
    if let Some(core) = arguments.core {
        let mut set = nix::sched::CpuSet::new();
        set.set(core)?;
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).context("pinning")?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let output = (interfaces.len() - 1) as u8;
    let source_mac = opened.report.interfaces[usize::from(output)].mac;
    let mut header = [0u8; 12];
    header[..6].copy_from_slice(&arguments.dst_mac.0);
    header[6..].copy_from_slice(&source_mac.0);
    let sleep = arguments.sleep.then(|| Duration::from_micros(arguments.idle_us));
    let deadline = (arguments.seconds > 0.0).then(|| Instant::now() + Duration::from_secs_f64(arguments.seconds));
    match &mut opened.workers[0] {
        WorkerIo::Xsk(io) => forward(io.as_mut(), output, &header, sleep, deadline, &stop),
        WorkerIo::AfPacket(io) => forward(io.as_mut(), output, &header, sleep, deadline, &stop),
    }
    Ok(())
}

fn forward(
    io: &mut impl PacketIo,
    output: u8,
    header: &[u8; 12],
    sleep: Option<Duration>,
    deadline: Option<Instant>,
    stop: &AtomicBool,
) {
    let began = Instant::now();
    let (mut frames, mut batches, mut dropped) = (0u64, 0u64, 0u64);
    let mut batch = [Frame::default(); BATCH];
    let mut idle = Instant::now();
    let (mut empty, mut turn) = (false, 0u32);
    loop {
        let count = io.receive(&mut batch);
        for frame in &batch[..count] {
            if let Some(addresses) = io.memory().bytes_mut(frame).first_chunk_mut() {
                *addresses = *header;
            }
            if !io.transmit(output, *frame) {
                io.release(*frame);
                dropped += 1;
            }
        }
        io.service();
        // The clock and the flag are looked at only when there is nothing else to do, or once in a while.
        turn = turn.wrapping_add(1);
        if count > 0 {
            frames += count as u64;
            batches += 1;
            empty = false;
            if turn & 0xfff != 0 {
                continue;
            }
        }
        let now = Instant::now();
        if count == 0 && !empty {
            (empty, idle) = (true, now);
        }
        if stop.load(Ordering::Relaxed) || deadline.is_some_and(|deadline| now >= deadline) {
            break;
        }
        let asleep = sleep.is_some_and(|patience| empty && now - idle >= patience);
        if asleep && !io.tx_pending() {
            io.wait(Duration::from_millis(100), None);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let stats = serde_json::to_value(io.stats()).unwrap_or_default();
    let per_frame = |time: nix::sys::time::TimeVal| {
        let spent = time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3;
        spent / frames.max(1) as f64
    };
    // The polling of idle moments is in the user time: it means something under full load only.
    let usage = getrusage(UsageWho::RUSAGE_THREAD);
    let report = serde_json::json!({
        "frames": frames,
        "seconds": seconds,
        "mean_batch": frames as f64 / batches.max(1) as f64,
        "dropped": dropped,
        "user_ns": usage.as_ref().map(|usage| per_frame(usage.user_time())).ok(),
        "system_ns": usage.as_ref().map(|usage| per_frame(usage.system_time())).ok(),
        "io": stats,
    });
    println!("{report}");
}
