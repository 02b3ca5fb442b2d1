//! What the status says of health.
//!
//! Owns nothing but the gathering.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::control::health::Admin;
use crate::control::health::meaning::words::span;
use crate::control::health::meaning::{Meaning, View};
use crate::control::health::watch::{Watch, sharing};
use crate::control::status::parts::Question;
use crate::control::status::{CheckStatus, QuorumStatus, ServerCheckStatus, ServerHealthStatus, TurnStatus};
use crate::health::{CheckId, Outcome, Reason, RecordStatus};
use crate::model::{Check, Desired, Server, ServerKey, Service};

/// Checks by their number.
pub type Known<'c> = HashMap<u64, &'c CheckStatus, foldhash::fast::RandomState>;

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const fn state_word(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

/// The checks of the servers that are asked for, each once, in the order of their numbers.
pub fn checks(desired: &Desired, watch: &Watch, asked: &Question) -> Vec<CheckStatus> {
    let mut shared = sharing(watch.checks(), desired);
    let is_asked = |id: &CheckId| {
        let mut servers = shared.get(id).into_iter().flatten();
        !asked.is_narrow()
            || servers.any(|(service, server)| asked.names(service) && asked.names_server(service, server))
    };
    let wanted: Vec<_> = watch.checks().plan().checks.into_iter().filter(|(id, _)| is_asked(id)).collect();
    let one = |(id, check): (CheckId, Arc<Check>)| {
        let name =
            |(service, server): (&Service, &Server)| format!("{} of {}", ServerKey::of(service, server), service.name);
        let servers = shared.remove(&id).unwrap_or_default().into_iter().map(name).collect();
        let record = watch.record(id).map(|record| record.read()).unwrap_or_default();
        CheckStatus { id: id.0, check: check.to_string(), servers, ..of_record(record) }
    };
    wanted.into_iter().map(one).collect()
}

fn of_record(record: RecordStatus) -> CheckStatus {
    let (last, result, warning) = match record.last {
        None => (None, String::new(), None),
        Some(Outcome::Good { said, warning, .. }) => (Some("good"), said, warning),
        Some(Outcome::Bad(failure)) => (Some("bad"), failure.words, None),
        Some(Outcome::Unable(words)) => (Some("unable"), words, None),
    };
    let reasons = Reason::ALL.iter().zip(record.reasons).filter(|(_, count)| *count > 0);
    let turn = |turn: crate::health::record::Turn| TurnStatus {
        at: unix(turn.at),
        state: state_word(turn.up).to_owned(),
        words: turn.words,
    };
    CheckStatus {
        state: record.up.map_or("starting", state_word).to_owned(),
        since: record.since.map(unix),
        result,
        last: last.map(str::to_owned),
        at: record.at.map(unix),
        took_ms: record.took.as_secs_f64() * 1000.0,
        warning,
        streak: record.streak,
        passed: record.passed,
        failed: record.failed,
        unable: record.unable,
        reasons: reasons.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        history: record.history.into_iter().map(turn).collect(),
        ..CheckStatus::default()
    }
}

/// What somebody should look at: warnings of checks that are good, and checks that this machine cannot run.
pub fn warnings(checks: &[CheckStatus]) -> Vec<String> {
    let warning = |check: &CheckStatus| {
        let unable = (check.last.as_deref() == Some("unable")).then(|| format!("could not be run: {}", check.result));
        check.warning.clone().or(unable).map(|words| format!("check {}: {words}", check.check))
    };
    checks.iter().filter_map(warning).collect()
}

/// How a server is.
pub fn server(
    service: &Service,
    server: &Server,
    watch: &Watch,
    checks: &Known<'_>,
    now: Duration,
) -> Option<(u16, ServerHealthStatus)> {
    let view = watch.meaning().view(&ServerKey::of(service, server), now)?;
    let in_short = |(id, _): (CheckId, &Check)| {
        let known = checks.get(&id.0)?;
        Some(ServerCheckStatus {
            id: id.0,
            check: known.check.clone(),
            state: known.state.clone(),
            result: known.result.clone(),
            passed: known.passed,
            failed: known.failed,
        })
    };
    let health = ServerHealthStatus {
        state: view.state.name().to_owned(),
        reason: words(&view),
        for_s: view.lasts.as_secs(),
        admin: view.admin.name().to_owned(),
        configured_weight: server.weight,
        weight_percent: view.percent,
        checks: watch.checks().of(server).filter_map(in_short).collect(),
    };
    Some((if view.serves { view.weight } else { 0 }, health))
}

fn words(view: &View<'_>) -> String {
    match view.out_for {
        Some(left) if view.words.is_empty() => format!("for {} more", span(left)),
        Some(left) => format!("{}; {} left", view.words, span(left)),
        None => view.words.to_owned(),
    }
}

/// How a sorry server is.
pub fn sorry(service: &Service, meaning: &Meaning) -> Option<(u16, ServerHealthStatus)> {
    let sorry = service.health.sorry.as_ref()?;
    let serves = meaning.service(&service.key).is_some_and(|view| view.sorry);
    let health = ServerHealthStatus {
        state: if serves { "serving" } else { "standby" }.to_owned(),
        admin: Admin::Ready.name().to_owned(),
        configured_weight: sorry.weight.max(1),
        weight_percent: 100,
        ..ServerHealthStatus::default()
    };
    Some((if serves { sorry.weight.max(1) } else { 0 }, health))
}

/// The quorum of a service.
pub fn quorum(service: &Service, meaning: &Meaning) -> Option<QuorumStatus> {
    let view = meaning.service(&service.key)?;
    let quorum = &service.health.quorum;
    Some(QuorumStatus { up: view.up, weight: view.sum, least: quorum.least, hysteresis: quorum.hysteresis })
}
