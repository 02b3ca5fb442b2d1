//! A finding: what was looked at, what was found, why it matters, and the command that mends it; and how it is written down.
//!
//! Owns the words around findings. Never finds anything. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use crate::control::counted;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, but worse, or not in every case.
    Warning,
    /// It does not work.
    Problem,
}

impl Level {
    /// Name as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The configuration file.
    Configuration,
    /// The kernel and what it permits.
    Kernel,
    /// The engine's interfaces.
    Interfaces,
    /// Memory.
    Memory,
    /// Cores.
    Cores,
    /// The kernel's network settings, addresses and programs beside the engine.
    Network,
    /// VRRP on the segments.
    Vrrp,
    /// Clocks.
    Time,
    /// Real servers and peers.
    Peers,
}

impl Group {
    /// Name as in JSON, and as a heading.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Configuration => "configuration",
            Group::Kernel => "kernel",
            Group::Interfaces => "interfaces",
            Group::Memory => "memory",
            Group::Cores => "cores",
            Group::Network => "network",
            Group::Vrrp => "vrrp",
            Group::Time => "time",
            Group::Peers => "peers",
        }
    }
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, for programs and for the operations page; the same for all of its kind.
    pub id: &'static str,
    /// What it is about.
    pub group: Group,
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// Why it matters for this configuration; empty where all is well.
    pub why: String,
    /// The command that mends it.
    pub command: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn fine(id: &'static str, group: Group, subject: impl Into<String>, found: impl Into<String>) -> Finding {
        let (subject, found) = (subject.into(), found.into());
        Finding { id, group, level: Level::Ok, subject, found, why: String::new(), command: None }
    }

    /// Something else.
    pub fn new(
        level: Level,
        id: &'static str,
        group: Group,
        subject: impl Into<String>,
        found: impl Into<String>,
        why: impl Into<String>,
    ) -> Finding {
        let (subject, found, why) = (subject.into(), found.into(), why.into());
        Finding { id, group, level, subject, found, why, command: None }
    }

    /// With the command that mends it.
    pub fn mend(mut self, command: impl Into<String>) -> Finding {
        self.command = Some(command.into());
        self
    }
}

fn count(findings: &[Finding], level: Level) -> u64 {
    findings.iter().filter(|finding| finding.level == level).count() as u64
}

/// What is to be done next. `config` is the file, where there was one.
pub fn next(findings: &[Finding], config: Option<&str>) -> String {
    match (count(findings, Level::Problem), config) {
        (0, Some(config)) => format!("next: evenkeel run --config {config}"),
        (0, None) => "next: write a configuration, then `evenkeel doctor --config FILE`".to_owned(),
        (_, Some(config)) => format!("next: mend the problems, then again `evenkeel doctor --config {config}`"),
        (_, None) => "next: mend the problems, then again `evenkeel doctor`".to_owned(),
    }
}

/// All findings for people: by group, the worst of each group first.
pub fn text(findings: &[Finding], config: Option<&str>) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| (finding.group, std::cmp::Reverse(finding.level)));
    let mut out = String::new();
    let mut group = None;
    for finding in sorted {
        if group != Some(finding.group) {
            group = Some(finding.group);
            out += &format!("{}\n", finding.group.name());
        }
        out += &format!("  {:<8} {}: {}\n", finding.level.name(), finding.subject, finding.found);
        if !finding.why.is_empty() {
            out += &format!("           {}\n", finding.why);
        }
        if let Some(command) = &finding.command {
            out += &format!("           do: {command}\n");
        }
    }
    out += &format!(
        "{}, {}, {}, {} fine\n{}\n",
        counted(count(findings, Level::Problem), "problem"),
        counted(count(findings, Level::Warning), "warning"),
        counted(count(findings, Level::Note), "note"),
        count(findings, Level::Ok),
        next(findings, config)
    );
    out
}

/// All findings for programs.
pub fn as_json(findings: &[Finding], config: Option<&str>) -> Value {
    json!({
        "version": 1,
        "ok": count(findings, Level::Problem) == 0,
        "config": config,
        "findings": findings,
        "next": next(findings, config),
    })
}
