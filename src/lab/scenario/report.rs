//! What a scenario found, for people and as JSON.
//!
//! Owns the form of the report. Never measures anything.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::lab::client::load::Tally;

/// One thing that must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What must hold.
    pub what: String,
    /// Whether it does.
    pub passed: bool,
    /// What was seen.
    pub seen: String,
}

/// What was done to a real site with the classic tools, what came of it there, and what comes of it here.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub what: &'static str,
    /// The site's own result.
    pub there: &'static str,
    /// What was measured now.
    pub here: String,
}

/// The outcome of a scenario.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// Answers by server.
    pub answers: BTreeMap<String, u64>,
    /// Failed requests.
    pub failures: u64,
    /// The first few failures, in words.
    pub reasons: Vec<String>,
    /// Latency: median, microseconds.
    pub latency_p50_us: u64,
    /// Latency: 99 of 100 are below, microseconds.
    pub latency_p99_us: u64,
    /// Latency: the slowest, microseconds.
    pub latency_max_us: u64,
    /// What had to hold.
    pub checks: Vec<Check>,
    /// For the scenarios of real sites.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
}

impl Report {
    /// A report with the tally of a load.
    pub fn new(scenario: &str, tally: &Tally) -> Self {
        let micros = |share| u64::try_from(tally.percentile(share).as_micros()).unwrap_or(u64::MAX);
        Report {
            scenario: scenario.to_owned(),
            answers: tally.answers.clone(),
            failures: tally.failures,
            reasons: tally.reasons.clone(),
            latency_p50_us: micros(0.5),
            latency_p99_us: micros(0.99),
            latency_max_us: micros(1.0),
            checks: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Notes whether something holds.
    pub fn check(&mut self, what: impl Into<String>, passed: bool, seen: impl Into<String>) {
        self.checks.push(Check { what: what.into(), passed, seen: seen.into() });
    }

    /// Whether everything holds.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.answers.values().sum();
        writeln!(f, "  {:<12} {:>8}  share", "server", "answers")?;
        for (server, count) in &self.answers {
            writeln!(f, "  {server:<12} {count:>8}  {:>4.1} %", 100.0 * *count as f64 / total.max(1) as f64)?;
        }
        writeln!(f, "  {:<12} {:>8}", "failed", self.failures)?;
        for reason in &self.reasons {
            writeln!(f, "    {reason}")?;
        }
        let [p50, p99, max] =
            [self.latency_p50_us, self.latency_p99_us, self.latency_max_us].map(Duration::from_micros);
        writeln!(f, "  latency: median {}, 99 % below {}, slowest {}", millis(p50), millis(p99), millis(max))?;
        for check in &self.checks {
            let word = if check.passed { "PASS" } else { "FAIL" };
            let seen = if check.seen.is_empty() { String::new() } else { format!(": {}", check.seen) };
            writeln!(f, "  {word}  {}{seen}", check.what)?;
        }
        if !self.rows.is_empty() {
            writeln!(f, "\n  {:<62} {:<52} here", "what", "there")?;
        }
        for row in &self.rows {
            writeln!(f, "  {:<62} {:<52} {}", row.what, row.there, row.here)?;
        }
        Ok(())
    }
}

/// A duration in milliseconds, for people.
pub fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
