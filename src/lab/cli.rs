//! `evenkeel lab`: list, run, demo, shell, down.
//!
//! Owns its arguments and what it prints. Every subcommand cleans up on SIGINT, SIGTERM and SIGHUP.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::error::{Doing, LabError};
use super::holdings;
use super::kept;
use super::scenario::report::Report;
use super::scenario::{
    self, Deployment, RunOptions, SCENARIOS, Stage, Traffic, demo, dns_dsr, haproxy_pair, proxy_pair, traffic,
};
use super::site::{CLIENT, Site};
use crate::model::IoMode;

/// Arguments of `evenkeel lab`.
#[derive(Debug, clap::Args)]
pub struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// List the scenarios, and the labs that are up.
    List,
    /// Build a scenario, send its traffic, and say what came back; exit 1 when a check fails.
    Run(RunArgs),
    /// Show real HTTP crossing the appliance while the server set is swapped.
    Demo(DemoArgs),
    /// Open a shell inside a node of a scenario: of a kept lab if there is one, else of a new one.
    Shell(ShellArgs),
    /// End the kept labs, and remove what killed ones left.
    Down,
}

#[derive(Debug, Parser)]
struct EngineArgs {
    /// The evenkeel to test [default: this one].
    #[arg(long, value_name = "PATH")]
    evenkeel: Option<PathBuf>,
    /// The only I/O mode that it may use [default: it finds out].
    #[arg(long, value_parser = io_mode, value_name = "copy|generic|af-packet|zero-copy")]
    mode: Option<IoMode>,
}

#[derive(Debug, Parser)]
struct RunArgs {
    /// Which scenario; see `evenkeel lab list`.
    scenario: String,
    /// Keep the lab up afterwards, until Ctrl-C or `evenkeel lab down`.
    #[arg(long)]
    keep: bool,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
    /// Seconds of load.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    duration: u64,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Parser)]
struct DemoArgs {
    /// Shorter steps.
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Parser)]
struct ShellArgs {
    /// Which scenario.
    scenario: String,
    /// Which node.
    #[arg(default_value = CLIENT)]
    node: String,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs `evenkeel lab`.
pub fn main(args: LabArgs) -> ExitCode {
    holdings::clean_up_on_signals();
    let outcome = match args.command {
        LabCommand::List => list(),
        LabCommand::Run(args) => run(&args),
        LabCommand::Demo(args) => options(&args.engine, Duration::ZERO)
            .and_then(|options| demo::run(&options, args.short))
            .map(|report| report.passed()),
        LabCommand::Shell(args) => shell(&args),
        LabCommand::Down => down(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("evenkeel lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn io_mode(text: &str) -> Result<IoMode, String> {
    IoMode::ALL
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or_else(|| format!("expected one of {}", IoMode::ALL.map(IoMode::name).join(", ")))
}

fn options(engine: &EngineArgs, duration: Duration) -> Result<RunOptions, LabError> {
    let program = match &engine.evenkeel {
        Some(path) => path.clone(),
        None => std::env::current_exe().doing(|| "finding this program".into())?,
    };
    Ok(RunOptions { program, mode: engine.mode, duration })
}

fn list() -> Result<bool, LabError> {
    println!("scenarios:");
    for scenario in SCENARIOS {
        println!("  {:<16} {}", scenario.name, scenario.summary);
    }
    let kept = kept::all();
    if !kept.is_empty() {
        println!("kept labs:");
    }
    for lab in kept {
        println!("  {:<16} process {}, nodes {}", lab.scenario, lab.pid, lab.nodes.join(" "));
    }
    Ok(true)
}

fn run(args: &RunArgs) -> Result<bool, LabError> {
    let scenario = scenario::find(&args.scenario)?;
    let options = options(&args.engine, Duration::from_secs(args.duration))?;
    if !args.json {
        println!("{}: {}", scenario.name, scenario.summary);
    }
    if let Traffic::Pair(deployment) = scenario.traffic {
        return run_pair(args, deployment, &options);
    }
    let stage = Stage::set(scenario, &options)?;
    if !args.json {
        println!("{}\n", stage.site.picture(scenario.family));
        stage.engine.process().output().lines().take(20).for_each(|line| println!("  | {line}"));
        println!();
    }
    let report = traffic::run(&stage, options.duration)?;
    show(args, &report)?;
    if !report.passed() {
        eprintln!("the engine's last words:\n    {}", stage.engine.process().last_words(20));
    }
    keep(args, scenario.name, &stage.site)?;
    Ok(report.passed())
}

fn run_pair(args: &RunArgs, deployment: Deployment, options: &RunOptions) -> Result<bool, LabError> {
    let finish = |report: &Report, words: String, site: &Site| {
        show(args, report)?;
        if !report.passed() {
            eprintln!("the appliances' last words:\n{words}");
        }
        keep(args, &args.scenario, site)?;
        Ok(report.passed())
    };
    match deployment {
        Deployment::Proxy => {
            let mut stage = proxy_pair::Stage::set(options, proxy_pair::Pace::SITE)?;
            finish(&stage.run(proxy_pair::Pace::SITE)?, stage.last_words(), stage.network())
        }
        Deployment::Haproxy => {
            let mut stage = haproxy_pair::Stage::set(options, haproxy_pair::CHECKS)?;
            finish(&stage.run()?, stage.last_words(), stage.network())
        }
        Deployment::Dns => {
            let mut stage = dns_dsr::Stage::set(options, dns_dsr::Pace::SITE)?;
            finish(&stage.run()?, stage.last_words(), stage.network())
        }
    }
}

fn show(args: &RunArgs, report: &Report) -> Result<(), LabError> {
    if args.json {
        let text = serde_json::to_string_pretty(report);
        println!("{}", text.map_err(|error| LabError::Unexpected(error.to_string()))?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// Keeps the lab up for as long as somebody asked for that.
fn keep(args: &RunArgs, scenario: &str, site: &Site) -> Result<(), LabError> {
    if args.keep {
        kept::announce(scenario, site)?;
        eprintln!("\n{}", kept::guide(scenario, site));
        eprintln!("The lab stays up until Ctrl-C here, or `evenkeel lab down`.");
        loop {
            thread::park();
        }
    }
    Ok(())
}

fn shell(args: &ShellArgs) -> Result<bool, LabError> {
    let scenario = scenario::find(&args.scenario)?;
    if let Some(lab) = kept::all().into_iter().find(|lab| lab.scenario == scenario.name) {
        println!("In the kept lab of process {}: leaving the shell leaves it up.", lab.pid);
        return kept::shell(&lab, &args.node);
    }
    let options = options(&args.engine, Duration::ZERO)?;
    let enter = |site: &Site, picture: String| {
        let lab = kept::announce(scenario.name, site)?;
        println!("{picture}{}", kept::guide(scenario.name, site));
        println!("Leaving the shell takes the lab down.");
        kept::shell(&lab, &args.node)
    };
    match scenario.traffic {
        Traffic::Pair(Deployment::Proxy) => {
            let stage = proxy_pair::Stage::set(&options, proxy_pair::Pace::SITE)?;
            enter(stage.network(), String::new())
        }
        Traffic::Pair(Deployment::Haproxy) => {
            let stage = haproxy_pair::Stage::set(&options, haproxy_pair::CHECKS)?;
            enter(stage.network(), String::new())
        }
        Traffic::Pair(Deployment::Dns) => {
            let stage = dns_dsr::Stage::set(&options, dns_dsr::Pace::SITE)?;
            enter(stage.network(), String::new())
        }
        _ => {
            let stage = Stage::set(scenario, &options)?;
            enter(&stage.site, format!("{}\n\n", stage.site.picture(scenario.family)))
        }
    }
}

fn down() -> Result<bool, LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    for lab in kept::all() {
        println!("ending {} of process {}", lab.scenario, lab.pid);
        kept::end(&lab)?;
    }
    for name in holdings::sweep() {
        println!("removed {name}");
    }
    Ok(true)
}
