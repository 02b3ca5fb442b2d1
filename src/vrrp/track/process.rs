//! Tracked processes: how many of each run.
//!
//! Owns looking through `/proc`: every half second for all processes, and every 50 ms for those that were found, so that one
//! that ends is missed at once. Never sends a process anything.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::Observation;
use crate::model::{TrackProcess, Tracked};
use crate::vrrp::Level;
use crate::vrrp::notify::Report;

/// How often all processes are looked through.
const SCAN: Duration = Duration::from_millis(500);
/// How often those that were found are.
const LOOK: Duration = Duration::from_millis(50);
/// Most bytes of a process's name that the kernel keeps (`TASK_COMM_LEN` less its zero).
const NAME: usize = 15;

struct Process {
    spec: TrackProcess,
    found: BTreeSet<u32>,
    /// What was told.
    good: Option<bool>,
    /// Since when it is otherwise.
    other_since: Option<Duration>,
}

/// All tracked processes.
#[derive(Default)]
pub(super) struct Processes {
    all: Vec<Process>,
    scan: Duration,
    look: Duration,
}

impl Processes {
    /// Takes a configuration; what did not change keeps its state.
    pub fn configure<'a>(&mut self, specs: impl Iterator<Item = &'a TrackProcess>, now: Duration) {
        let mut before = std::mem::take(&mut self.all);
        for spec in specs {
            let known = before.iter().position(|process| process.spec == *spec).map(|at| before.swap_remove(at));
            let new = || Process { spec: spec.clone(), found: BTreeSet::new(), good: None, other_since: None };
            self.all.push(known.unwrap_or_else(new));
        }
        (self.scan, self.look) = (now, now);
    }

    /// When to come back.
    pub fn deadline(&self) -> Option<Duration> {
        (!self.all.is_empty()).then_some(self.scan.min(self.look))
    }

    /// Looks, where it is time.
    pub fn turn(&mut self, now: Duration, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        if self.all.is_empty() || now < self.scan.min(self.look) {
            return;
        }
        self.look = now + LOOK;
        if self.scan <= now {
            self.scan = now + SCAN;
            self.scan_all();
        } else {
            for process in &mut self.all {
                let name = cut(&process.spec.process);
                process.found.retain(|pid| runs_as(*pid, name));
            }
        }
        for process in &mut self.all {
            process.judge(now, out, reports);
        }
    }

    fn scan_all(&mut self) {
        self.all.iter_mut().for_each(|process| process.found.clear());
        let Ok(entries) = fs::read_dir("/proc") else { return };
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(name) = fs::read(format!("/proc/{pid}/comm")) else { continue };
            let name = name.strip_suffix(b"\n").unwrap_or(&name);
            for process in self.all.iter_mut().filter(|process| cut(&process.spec.process) == name) {
                if runs_as(pid, name) {
                    process.found.insert(pid);
                }
            }
        }
    }
}

impl Process {
    fn judge(&mut self, now: Duration, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        let good = self.found.len() >= usize::from(self.spec.quorum);
        if self.good == Some(good) {
            self.other_since = None;
            return;
        }
        // What is seen first counts at once; a change only when it has lasted.
        let since = *self.other_since.get_or_insert(now);
        if self.good.is_some() && now.saturating_sub(since) < self.spec.delay {
            return;
        }
        if self.good.is_some() || !good {
            let level = if good { Level::Info } else { Level::Warn };
            let word = if good { "gained" } else { "lost" };
            reports.push(Report::Log { level, text: format!("Quorum {word} for tracked process {}", self.spec.name) });
        }
        (self.good, self.other_since) = (Some(good), None);
        let what = Tracked::Process(self.spec.name.clone());
        out.push(if good { Observation::good(what) } else { Observation::bad(what, self.words()) });
    }

    fn words(&self) -> String {
        match (self.found.len(), self.spec.quorum) {
            (0, 0..=1) => "does not run".to_owned(),
            (found, quorum) => format!("runs {found} times of {quorum}"),
        }
    }
}

fn cut(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(NAME)]
}

/// Whether a process has that name and has not ended: `/proc/PID/stat` is `PID (NAME) STATE ...`, and Z and X are those whose
/// parent has not heard of it yet.
fn runs_as(pid: u32, name: &[u8]) -> bool {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { return false };
    let Some(open) = stat.iter().position(|byte| *byte == b'(') else { return false };
    let Some(close) = stat.iter().rposition(|byte| *byte == b')') else { return false };
    let state = stat.get(close + 2);
    stat.get(open + 1..close) == Some(name) && !matches!(state, None | Some(b'Z' | b'X' | b'x'))
}
