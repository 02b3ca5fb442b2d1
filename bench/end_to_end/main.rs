//! End to end over veth: Evenkeel against its peers, in one run, in rounds that take turns.
//!
//! `cargo run --release --example end_to_end [-- --quick] [--json FILE] [--only PART]`, as root. Owns the plan of the
//! measurement and nothing of how a device works. Everything happens inside network namespaces of its own, which go when
//! it ends. See docs/performance.md for what the figures mean.
//!
//! ```text
//!   generator g0 === l0 device l1 === k0 sink        (veth; a second cable generator - sink carries answers)
//!   core 0           core 1           core 0
//! ```

mod connections;
mod device;
mod latency;
mod quiet;
mod rate;
mod report;
mod site;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use evenkeel::lab::holdings;

use device::Kind;
use report::{Report, Sample};
use site::Placement;

/// Evenkeel end to end over veth, against its peers.
#[derive(Parser)]
struct Arguments {
    /// Rounds; every device is measured once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A short run: two rounds, fewer steps.
    #[arg(long)]
    quick: bool,
    /// Parts to run.
    #[arg(long, value_delimiter = ',', default_value = "overload,loss-free,latency,connections")]
    only: Vec<String>,
    /// Devices to measure in the parts `overload` and `loss-free`; all where none is given.
    #[arg(long, value_delimiter = ',')]
    devices: Vec<String>,
    /// Where to write the samples and medians.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The program under test.
    #[arg(long)]
    evenkeel: Option<PathBuf>,
    /// The bare forwarder.
    #[arg(long)]
    forwarder: Option<PathBuf>,
}

/// The programs that are measured.
struct Programs {
    evenkeel: PathBuf,
    forwarder: PathBuf,
}

fn main() -> ExitCode {
    holdings::clean_up_on_signals();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("end_to_end: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let examples = own.parent().context("no directory")?;
    let programs = Programs {
        evenkeel: arguments.evenkeel.clone().unwrap_or_else(|| examples.join("../evenkeel")),
        forwarder: arguments.forwarder.clone().unwrap_or_else(|| examples.join("forwarder")),
    };
    for program in [&programs.evenkeel, &programs.forwarder] {
        if !program.is_file() {
            bail!("{} is missing: cargo build --release --bin evenkeel --examples", program.display());
        }
    }
    if std::thread::available_parallelism()?.get() < 2 {
        bail!("two cores are needed: one for the generator and the sink, one for the device");
    }
    let known = ["overload", "loss-free", "latency", "connections"];
    if let Some(part) = arguments.only.iter().find(|part| !known.contains(&part.as_str())) {
        bail!("--only {part}: the parts are {}", known.join(", "));
    }
    let rounds = if arguments.quick { 2 } else { arguments.rounds };
    let mut report = Report::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for part in &arguments.only {
            match part.as_str() {
                "overload" => overload(arguments, &programs, round, &mut report)?,
                "loss-free" => loss_free(arguments, &programs, round, &mut report)?,
                "latency" => latency_round(&programs, round, arguments.quick, &mut report)?,
                _ => connections_round(&programs, round, arguments.quick, &mut report)?,
            }
        }
    }
    print!("{}", report.tables());
    if let Some(file) = &arguments.json {
        std::fs::write(file, report.json().to_string()).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// The devices in another order each round, so that no one always comes first.
fn turn(devices: &[String], round: usize) -> Vec<Kind> {
    let wanted = |kind: &Kind| devices.is_empty() || devices.iter().any(|device| device == kind.name());
    let mut kinds: Vec<Kind> = Kind::RATED.into_iter().filter(wanted).collect();
    let by = round % kinds.len().max(1);
    kinds.rotate_left(by);
    kinds
}

fn overload(arguments: &Arguments, programs: &Programs, round: usize, report: &mut Report) -> anyhow::Result<()> {
    for placement in Placement::ALL {
        for flows in [1000, 100_000] {
            if placement == Placement::OneCore && flows != 1000 {
                continue;
            }
            for kind in turn(&arguments.devices, round) {
                let case = format!("overload, {}, {flows} flows", placement.name());
                let measured = rate::overload(programs, kind, placement, flows).context(case.clone())?;
                let note = if measured.undisturbed { "" } else { " (disturbed)" };
                eprintln!("  {case}: {} {:.0} packets/s{note}", kind.name(), measured.rate);
                let mut add = |what, value| {
                    let sample = Sample::new(&case, kind.name(), round, what, value);
                    report.add(sample.disturbed(!measured.undisturbed));
                };
                add("packets_per_s", measured.rate);
                if let Some([user, system]) = measured.cpu_ns {
                    add("user_ns", user);
                    add("system_ns", system);
                }
            }
        }
    }
    Ok(())
}

fn loss_free(arguments: &Arguments, programs: &Programs, round: usize, report: &mut Report) -> anyhow::Result<()> {
    let flows = 1000;
    for kind in turn(&arguments.devices, round) {
        let case = format!("loss-free, {}, {flows} flows", Placement::Default.name());
        let steps = if arguments.quick { 5 } else { 7 };
        let rate = rate::loss_free(programs, kind, Placement::Default, flows, steps).context(case.clone())?;
        eprintln!("  {case}: {} {rate:.0} packets/s", kind.name());
        report.add(Sample::new(&case, kind.name(), round, "packets_per_s", rate));
    }
    Ok(())
}

fn latency_round(programs: &Programs, round: usize, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    let pings = if quick { 1000 } else { 5000 };
    for kind in Kind::TIMED {
        let through = latency::measure(programs, kind, pings).context("latency")?;
        eprintln!("  latency: {} +{:.1} us, 99 % +{:.1} us", kind.name(), through.added_median, through.added_p99);
        for (what, value) in through.values() {
            report.add(Sample::new("latency", kind.name(), round, what, value));
        }
    }
    Ok(())
}

fn connections_round(programs: &Programs, round: usize, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    let seconds = if quick { 1.0 } else { 2.0 };
    for kind in Kind::CONNECTED {
        let measured = connections::measure(programs, kind, seconds).context("connections")?;
        eprintln!("  connections: {} {:.0}/s, {} failed", kind.name(), measured.rate, measured.failed);
        report.add(Sample::new("connections", kind.name(), round, "connections_per_s", measured.rate));
        report.add(Sample::new("connections", kind.name(), round, "failed", measured.failed as f64));
        if let Some(us) = measured.device_us {
            report.add(Sample::new("connections", kind.name(), round, "device_us", us));
        }
    }
    Ok(())
}
