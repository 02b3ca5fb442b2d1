//! `evenkeel check`: reads a configuration file and says everything that is wrong with it.
//!
//! Owns the command's arguments, its output and its exit code (0 fine, 1 refused). Never touches the machine beyond
//! reading the file.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::config::{self, Outcome, reference, render};
use crate::model::Desired;

/// Arguments of `evenkeel check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(value_name = "FILE", required_unless_present_any = ["config", "reference"])]
    file: Option<PathBuf>,
    /// The configuration file, as `evenkeel run` takes it.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print the configuration with every default written out.
    #[arg(long, conflicts_with = "json")]
    effective: bool,
    /// Print the reference page of all keys instead.
    #[arg(long, conflicts_with_all = ["file", "config", "json", "effective"])]
    reference: bool,
}

/// Runs `evenkeel check`.
pub fn main(args: CheckArgs) -> ExitCode {
    if args.reference {
        super::print(&reference::page());
        return ExitCode::SUCCESS;
    }
    let path = args.file.or(args.config).unwrap_or_default();
    let file = path.display().to_string();
    let outcome = config::check_file(&path);
    if args.json {
        super::print(&format!("{}\n", as_json(&file, &outcome)));
    } else {
        eprint!("{}", config::render_all(&file, &outcome.problems));
        match &outcome.desired {
            Some(desired) if args.effective => super::print(&render::render(desired)),
            Some(desired) => super::print(&format!("{file}: {}\n", summary(desired, outcome.warnings().count()))),
            None => eprintln!("{file}: refused: {}", counted(outcome.errors().count(), "error")),
        }
    }
    if outcome.desired.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line about a sound configuration.
pub fn summary(desired: &Desired, warnings: usize) -> String {
    let servers: usize = desired.services.iter().map(|service| service.servers.len()).sum();
    let routers = match desired.vrrp.routers.len() {
        0 => String::new(),
        some => format!("{}, ", counted(some, "virtual router")),
    };
    format!(
        "fine: {}, {}, {}, {}, {routers}{}",
        counted(desired.services.len(), "service"),
        counted(servers, "server"),
        counted(desired.interfaces.len(), "interface"),
        counted(desired.engine.cores.len(), "worker"),
        counted(warnings, "warning"),
    )
}

fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn as_json(file: &str, outcome: &Outcome) -> serde_json::Value {
    let summary = outcome.desired.as_ref().map(|desired| {
        json!({
            "services": desired.services.len(),
            "servers": desired.services.iter().map(|service| service.servers.len()).sum::<usize>(),
            "interfaces": desired.interfaces.len(),
            "workers": desired.engine.cores.len(),
            "virtual_routers": desired.vrrp.routers.len(),
        })
    });
    json!({
        "file": file,
        "ok": outcome.desired.is_some(),
        "errors": outcome.errors().collect::<Vec<_>>(),
        "warnings": outcome.warnings().collect::<Vec<_>>(),
        "summary": summary,
    })
}
