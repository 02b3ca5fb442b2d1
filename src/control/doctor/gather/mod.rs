//! Looks at the machine: files of the kernel, netlink, ethtool, and, where asked, the segments.
//!
//! Owns which question makes which fact. Never judges, and changes nothing: `--probe` alone attaches the engine's filter for a
//! moment, and takes it off again.

mod interfaces;
mod machine;
mod network;
mod peers;
mod ping;

use std::fs;
use std::path::Path;

pub use peers::{listen, peers, servers};

use super::facts::Facts;
use crate::control::check;
use crate::control::config::{self, Severity};
use crate::control::startup;
use crate::dataplane::io::open;
use crate::model::Interface;

/// What is known at once: the configuration and the machine, without asking anybody.
pub fn machine_and_file(file: Option<&Path>, names: &[String]) -> Facts {
    let mut facts = Facts::default();
    if let Some(path) = file {
        let name = path.display().to_string();
        let outcome = config::check_file(path);
        let mistake = |problem: &config::Problem| super::facts::Mistake {
            error: problem.severity == Severity::Error,
            text: problem.render(&name),
        };
        facts.mistakes = outcome.problems.iter().map(mistake).collect();
        facts.notes = outcome.desired.as_ref().map(check::notes).unwrap_or_default();
        facts.desired = outcome.desired;
        facts.file = Some(name);
    }
    let of_file = facts.desired.iter().flat_map(|desired| &desired.interfaces).map(|interface| interface.name.clone());
    let mut wanted: Vec<String> = of_file.collect();
    let routers = facts.desired.iter().flat_map(|desired| &desired.vrrp.routers);
    for name in routers.map(|router| &router.interface).chain(names) {
        if !wanted.contains(name) {
            wanted.push(name.clone());
        }
    }
    facts.engine_runs = facts
        .desired
        .as_ref()
        .is_some_and(|desired| std::os::unix::net::UnixStream::connect(&desired.control_socket).is_ok());
    machine::look(&mut facts);
    interfaces::look(&mut facts, &wanted);
    network::look(&mut facts);
    facts
}

/// Tries the engine's I/O on the configuration's interfaces, with filters that take nothing, and lets go of it.
pub fn trial(facts: &mut Facts) {
    let Some(desired) = facts.desired.as_ref().filter(|_| !facts.engine_runs) else { return };
    let interfaces: &[Interface] = &desired.interfaces;
    facts.trial = Some(match open::open(interfaces, &desired.engine) {
        Ok(opened) => {
            let report = &opened.report;
            let why = startup::refusals(report);
            let line = |(name, mode): (&Interface, &crate::model::IoMode)| format!("{}: {mode} mode{why}", name.name);
            Ok(interfaces.iter().zip(&report.modes).map(line).collect())
        }
        Err(error) => Err(startup::chain(&error)),
    });
}

/// A file's text without the blanks around it.
fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A file's number.
fn number<T: std::str::FromStr>(path: impl AsRef<Path>) -> Option<T> {
    text(path)?.parse().ok()
}
