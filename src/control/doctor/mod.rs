//! `evenkeel doctor`: whether a machine and a configuration are fit to go live, and what to do where they are not.
//!
//! Owns the command's arguments, the order of the looks, and its exit code (0 no problem, 1 problems). Runs beside an engine or
//! without one, and changes nothing.
//!
//! - [`facts`]: what can be known (pure). [`gather`] finds it out.
//! - [`judge`]: from facts to findings (pure). [`finding`]: what a finding is, and how it is written down (pure).

pub mod facts;
pub mod finding;
pub mod gather;
pub mod judge;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use finding::Level;

/// Arguments of `evenkeel doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// The configuration file that is to go live.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Interface to look at besides those of the file. Repeatable.
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// Listen this many seconds for other speakers of VRRP on the interfaces of the virtual routers.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    listen: Option<u64>,
    /// Try which I/O mode the interfaces give: attaches the filter for a moment, during which some drivers reset the link.
    #[arg(long)]
    probe: bool,
    /// Ask no server and no peer.
    #[arg(long)]
    quiet: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs `evenkeel doctor`.
pub fn main(args: DoctorArgs) -> ExitCode {
    let progress = std::io::stderr().is_terminal() && !args.json;
    let mut say = |what: &str| {
        if progress {
            let mut out = std::io::stderr();
            let _ = writeln!(out, "{what} ...");
        }
    };
    say("looking at the machine");
    let mut facts = gather::machine_and_file(args.config.as_deref(), &args.interface);
    if !args.quiet {
        gather::servers(&mut facts, &mut say);
        gather::peers(&mut facts, &mut say);
    }
    if let Some(seconds) = args.listen {
        gather::listen(&mut facts, Duration::from_secs(seconds), &mut say);
    }
    if args.probe {
        say("trying the I/O modes");
        gather::trial(&mut facts);
    }
    let findings = judge::judge(&facts);
    let file = facts.file.as_deref();
    let text =
        if args.json { format!("{}\n", finding::as_json(&findings, file)) } else { finding::text(&findings, file) };
    super::print(&text);
    let sick = findings.iter().any(|finding| finding.level == Level::Problem);
    if sick { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
