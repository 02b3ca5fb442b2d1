//! `evenkeel check`: reads a configuration file and says everything that is wrong with it.
//!
//! Owns the command's arguments, its output and its exit code (0 fine, 1 refused). Never touches the machine beyond
//! reading the file.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::config::{self, Outcome, reference, render};
use super::counted;
use crate::model::{CheckKind, Desired, Service};

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
            Some(desired) => {
                let notes = notes(desired).into_iter().map(|note| format!("{file}: note: {note}\n"));
                let fine = format!("{file}: {}\n", summary(desired, outcome.warnings().count()));
                super::print(&notes.chain([fine]).collect::<String>());
                eprintln!(
                    "next: `evenkeel doctor --config {file}` looks at this machine, `evenkeel run --config {file}` serves"
                );
            }
            None => eprintln!("{file}: refused: {}", counted(outcome.errors().count() as u64, "error")),
        }
    }
    if outcome.desired.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line about a sound configuration.
pub fn summary(desired: &Desired, warnings: usize) -> String {
    let servers: usize = desired.services.iter().map(|service| service.servers.len()).sum();
    let routers = match desired.vrrp.routers.len() {
        0 => String::new(),
        some => format!("{}, ", counted(some as u64, "virtual router")),
    };
    format!(
        "fine: {}, {}, {}, {}, {routers}{}",
        counted(desired.services.len() as u64, "service"),
        counted(servers as u64, "server"),
        counted(desired.interfaces.len() as u64, "interface"),
        counted(desired.engine.cores.len() as u64, "worker"),
        counted(warnings as u64, "warning"),
    )
}

/// Services of which a note names each.
const MOST_NAMED: usize = 20;

/// What was not written and is done nevertheless: a sentence for each sort of usual check.
pub fn notes(desired: &Desired) -> Vec<String> {
    let usual = |service: &Service| {
        let check = service.servers.iter().find(|server| server.health.default_check)?.health.checks.first()?;
        Some((service.name.clone(), check.kind.clone(), check.pace.interval))
    };
    let all: Vec<_> = desired.services.iter().filter_map(usual).collect();
    let sorts = [(CheckKind::Tcp, "a connection to each server"), (CheckKind::Ping, "a ping of each server")];
    let note = |(kind, what): (CheckKind, &str)| {
        let of_sort: Vec<_> = all.iter().filter(|(_, known, _)| *known == kind).collect();
        let (_, _, interval) = of_sort.first()?;
        let mut names: Vec<&str> = of_sort.iter().map(|(name, ..)| name.as_str()).take(MOST_NAMED).collect();
        let more = format!("{} more", of_sort.len() - names.len());
        if of_sort.len() > names.len() {
            names.push(&more);
        }
        let names = names.join(", ");
        Some(format!("{names}: no `[[service.check]]`: {what} every {} s is the check", interval.as_secs_f64()))
    };
    let mut all: Vec<String> = sorts.into_iter().filter_map(note).collect();
    if let Some(web) = desired.web.as_ref().filter(|web| web.users.is_none() && !web.is_local()) {
        let addresses: Vec<String> = web.listen.iter().map(ToString::to_string).collect();
        all.push(format!(
            "[web]: no `users`: whoever reaches {} port {} sees everything, and changes nothing",
            addresses.join(", "),
            web.port
        ));
    }
    all
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
        "notes": outcome.desired.as_ref().map(notes).unwrap_or_default(),
        "summary": summary,
    })
}
