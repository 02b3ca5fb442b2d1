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
use super::scenario::{self, RunOptions, SCENARIOS, Stage, demo, traffic};
use super::site::CLIENT;
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
    let stage = Stage::set(scenario, &options)?;
    if !args.json {
        println!("{}\n", stage.site.picture(scenario.family));
        stage.engine.process().output().lines().take(20).for_each(|line| println!("  | {line}"));
        println!();
    }
    let report = traffic::run(&stage, options.duration)?;
    if args.json {
        let text = serde_json::to_string_pretty(&report);
        println!("{}", text.map_err(|error| LabError::Unexpected(error.to_string()))?);
    } else {
        print!("{report}");
    }
    if !report.passed() {
        eprintln!("the engine's last words:\n    {}", stage.engine.process().last_words(20));
    }
    if args.keep {
        kept::announce(scenario.name, &stage.site)?;
        eprintln!("\n{}", kept::guide(scenario.name, &stage.site));
        eprintln!("The lab stays up until Ctrl-C here, or `evenkeel lab down`.");
        loop {
            thread::park();
        }
    }
    Ok(report.passed())
}

fn shell(args: &ShellArgs) -> Result<bool, LabError> {
    let scenario = scenario::find(&args.scenario)?;
    if let Some(lab) = kept::all().into_iter().find(|lab| lab.scenario == scenario.name) {
        println!("In the kept lab of process {}: leaving the shell leaves it up.", lab.pid);
        return kept::shell(&lab, &args.node);
    }
    let stage = Stage::set(scenario, &options(&args.engine, Duration::ZERO)?)?;
    let lab = kept::announce(scenario.name, &stage.site)?;
    println!("{}\n\n{}", stage.site.picture(scenario.family), kept::guide(scenario.name, &stage.site));
    println!("Leaving the shell takes the lab down.");
    kept::shell(&lab, &args.node)
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
