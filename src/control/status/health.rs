//! Health in the status: checks, how servers are by them, quorums; the values, and the words for people.
//!
//! Owns what stands before a server's next hop, and the table of checks. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::table::Table;
use super::{ServerStatus, ServiceStatus, Status};

/// One check, which may be that of several servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Its number, by which servers name it.
    pub id: u64,
    /// What is asked, and of whom: `tcp 10.0.0.11:80`.
    pub check: String,
    /// Servers that have it: `10.0.0.11:80 of web`.
    pub servers: Vec<String>,
    /// `up`, `down`, or `starting` before its first result.
    pub state: String,
    /// Unix time since when.
    pub since: Option<u64>,
    /// What its last run showed, in words.
    pub result: String,
    /// Whether that run was `good`, `bad`, or `unable`: this machine could not ask.
    pub last: Option<String>,
    /// Unix time of that run.
    pub at: Option<u64>,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// What somebody should look after though the check is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Results of the same kind in a row.
    pub streak: u32,
    /// Good runs.
    pub passed: u64,
    /// Failed runs.
    pub failed: u64,
    /// Runs in which this machine could not ask.
    pub unable: u64,
    /// Failed runs by their reason; reasons that never happened are absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, u64>,
    /// Its last changes, oldest first.
    pub history: Vec<TurnStatus>,
}

/// One change of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnStatus {
    /// Unix time.
    pub at: u64,
    /// `up` or `down`.
    pub state: String,
    /// Why.
    pub words: String,
}

/// How a server is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHealthStatus {
    /// `starting`, `up`, `down`, `draining`, `maintenance`, `ejected` or `held`; for a sorry server `standby` or `serving`.
    pub state: String,
    /// Why, in words; empty where there is nothing to say.
    pub reason: String,
    /// Seconds since when.
    pub for_s: u64,
    /// What was decided by hand: `ready`, `drain` or `maintenance`.
    pub admin: String,
    /// Weight as it is written.
    pub configured_weight: u16,
    /// Percentage of its weight that a server has while it ramps up, else 100.
    pub weight_percent: u8,
    /// Its checks.
    pub checks: Vec<ServerCheckStatus>,
}

/// A check of a server in short; [`CheckStatus`] has the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCheckStatus {
    /// Its number: servers that share a check name the same.
    pub id: u64,
    /// What is asked, and of whom.
    pub check: String,
    /// `up`, `down` or `starting`.
    pub state: String,
    /// What its last run showed, in words.
    pub result: String,
    /// Good runs.
    pub passed: u64,
    /// Failed runs.
    pub failed: u64,
}

/// The quorum of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumStatus {
    /// Whether it is there.
    pub up: bool,
    /// Sum of the usable servers' weights.
    pub weight: u64,
    /// What it must be.
    pub least: u32,
    /// It is lost below `least` less this, and found at `least` plus this.
    pub hysteresis: u32,
}

/// A time in a word, as HAProxy's status page has it: `12s`, `3m20s`, `2h14m`, `5d3h`.
pub(in crate::control) fn short(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The word of a state in the table.
pub(in crate::control) fn word(state: &str) -> &str {
    match state {
        "starting" => "STARTING",
        "up" => "UP",
        "down" => "DOWN",
        "draining" => "DRAIN",
        "maintenance" => "MAINT",
        "ejected" => "EJECTED",
        "held" => "HELD",
        "standby" => "SORRY, standby",
        "serving" => "SORRY, serving",
        other => other,
    }
}

/// How a server is, before what else is to say of it: `UP 2h14m, `.
pub(super) fn of_server(server: &ServerStatus) -> String {
    let Some(health) = &server.health else { return String::new() };
    let mut text = word(&health.state).to_owned();
    if !matches!(health.state.as_str(), "standby" | "serving") {
        text += &format!(" {}", short(health.for_s));
    }
    // What cannot be reached says so by itself.
    if !health.reason.is_empty() && server.unreachable.is_none() {
        text += &format!(" ({})", health.reason);
    }
    if health.weight_percent < 100 {
        text += &format!(", {} % of its weight", health.weight_percent);
    }
    text + ", "
}

/// The weight of a server: what counts now, and what is written where that is another one.
pub(super) fn weight(server: &ServerStatus) -> String {
    match &server.health {
        Some(health) if health.configured_weight != server.weight => {
            format!("{} of {}", server.weight, health.configured_weight)
        }
        _ => server.weight.to_string(),
    }
}

/// A service that has lost its quorum.
pub(super) fn of_service(service: &ServiceStatus) -> String {
    match &service.quorum {
        Some(quorum) if !quorum.up => {
            let wanted = quorum.least + quorum.hysteresis;
            format!(", NO QUORUM: weight {} of {wanted}", quorum.weight)
        }
        _ => String::new(),
    }
}

/// The checks for people: a table of all, the failing ones first. `now` is the Unix time.
pub fn render_checks(status: &Status, now: u64) -> String {
    let mut table = Table::new(&[
        "<Check",
        "<State",
        ">Since",
        ">Passed",
        ">Failed",
        ">Unable",
        ">Took",
        "<Last result",
        "<Servers",
    ]);
    let mut checks: Vec<&CheckStatus> = status.checks.iter().collect();
    checks.sort_by_key(|check| (check.state == "up", check.id));
    for check in checks {
        let result = match check.last.as_deref() {
            None => "none yet".to_owned(),
            Some("unable") => format!("could not ask: {}", check.result),
            Some(last) if check.result.is_empty() => last.to_owned(),
            Some(_) => check.result.clone(),
        };
        let warning = check.warning.as_ref().map(|warning| format!("; {warning}")).unwrap_or_default();
        table.row([
            check.check.clone(),
            word(&check.state).to_owned(),
            check.since.map_or_else(String::new, |since| short(now.saturating_sub(since))),
            check.passed.to_string(),
            check.failed.to_string(),
            check.unable.to_string(),
            if check.last.is_some() { format!("{:.1} ms", check.took_ms) } else { String::new() },
            format!("{result}{warning}"),
            check.servers.join(", "),
        ]);
    }
    let mut out = table.render();
    for check in status.checks.iter().filter(|check| check.state != "up" && !check.history.is_empty()) {
        let _ = writeln!(out, "\n{}", check.check);
        for turn in &check.history {
            let words = if turn.words.is_empty() { String::new() } else { format!(": {}", turn.words) };
            let _ = writeln!(out, "  {} ago {}{words}", short(now.saturating_sub(turn.at)), word(&turn.state));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_that_fail_come_first_with_their_history() {
        let turn = |at, state: &str, words: &str| TurnStatus { at, state: state.to_owned(), words: words.to_owned() };
        let good = CheckStatus {
            id: 1,
            check: "https 10.0.0.11:443".to_owned(),
            servers: vec!["10.0.0.11:443 of web".to_owned(), "10.0.0.11:443 of shop".to_owned()],
            state: "up".to_owned(),
            since: Some(1000),
            result: "status 200".to_owned(),
            last: Some("good".to_owned()),
            at: Some(9000),
            took_ms: 1.26,
            warning: Some("certificate ends in 5 days".to_owned()),
            passed: 4000,
            ..CheckStatus::default()
        };
        let bad = CheckStatus {
            id: 2,
            check: "tcp 10.0.0.12:80".to_owned(),
            servers: vec!["10.0.0.12:80 of web".to_owned()],
            state: "down".to_owned(),
            since: Some(9990),
            result: "connection refused".to_owned(),
            last: Some("bad".to_owned()),
            took_ms: 0.2,
            failed: 7,
            history: vec![turn(2800, "up", ""), turn(9990, "down", "connection refused")],
            ..CheckStatus::default()
        };
        let new = CheckStatus {
            id: 3,
            check: "ping 10.0.0.13".to_owned(),
            state: "starting".to_owned(),
            last: Some("unable".to_owned()),
            result: "no sockets left".to_owned(),
            unable: 1,
            ..CheckStatus::default()
        };
        let status = Status { checks: vec![good, bad, new], ..Status::default() };
        let wanted = "\
Check                State     Since  Passed  Failed  Unable    Took  Last result                             Servers
tcp 10.0.0.12:80     DOWN        10s       0       7       0  0.2 ms  connection refused                      10.0.0.12:80 of web
ping 10.0.0.13       STARTING              0       0       1  0.0 ms  could not ask: no sockets left
https 10.0.0.11:443  UP        2h30m    4000       0       0  1.3 ms  status 200; certificate ends in 5 days  10.0.0.11:443 of web, 10.0.0.11:443 of shop

tcp 10.0.0.12:80
  2h0m ago UP
  10s ago DOWN: connection refused
";
        let text = render_checks(&status, 10_000);
        assert!(text == wanted, "{text}");
        assert_eq!([59, 60, 3725, 90_000].map(short), ["59s", "1m0s", "1h2m", "1d1h"]);
    }
}
