//! Rows of services and servers for the status page: values and words.
//!
//! Owns their form. Pure.

use std::collections::HashMap;

use serde::Serialize;

use super::{Look, Tone};
use crate::control::show::services::{server_end, server_state};
use crate::control::status::{
    CheckStatus, DrainStatus, LimitsStatus, QuorumStatus, RatesStatus, RemovedStatus, ServerStatus, ServiceStatus,
    with_port,
};

/// Most checks of a server in an answer.
const MOST_CHECKS: usize = 4;

/// A service.
#[derive(Debug, Serialize)]
pub struct ServiceRow<'s> {
    pub name: &'s str,
    pub end: String,
    pub protocol: &'static str,
    pub scheduler: &'s str,
    pub method: &'static str,
    pub tone: Tone,
    pub word: String,
    pub serving: usize,
    /// Its servers, the sorry server aside.
    pub of: usize,
    pub trouble: usize,
    pub active: u64,
    pub inactive: u64,
    pub connections: u64,
    pub rates: RatesStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<&'s LimitsStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<QuorumStatus>,
    /// Whether somebody opened it.
    pub open: bool,
    /// Those of its servers that are shown.
    pub servers: Vec<ServerRow<'s>>,
    /// How many there are to show, and the number of the first one here.
    pub servers_of: usize,
    pub servers_from: usize,
    #[serde(skip_serializing_if = "<[RemovedStatus]>::is_empty")]
    pub removed: &'s [RemovedStatus],
}

/// A server.
#[derive(Debug, Serialize)]
pub struct ServerRow<'s> {
    /// Address and port, for people.
    pub end: String,
    /// How commands name it.
    pub name: String,
    pub sorry: bool,
    pub method: &'s str,
    pub tone: Tone,
    pub word: String,
    /// Seconds since when; absent where nothing is checked.
    pub for_s: Option<u64>,
    /// What was decided by hand.
    pub admin: &'s str,
    /// Why it is as it is.
    pub why: &'s str,
    pub weight: u16,
    pub configured_weight: u16,
    pub weight_percent: u8,
    pub active: u32,
    pub inactive: u32,
    pub connections: u64,
    pub rates: RatesStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper_threshold: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<&'s DrainStatus>,
    /// Where its frames go.
    pub hop: String,
    pub checks: Vec<Check<'s>>,
    /// Its checks that are not in the list.
    pub checks_more: usize,
}

/// A check of a server.
#[derive(Debug, Serialize)]
pub struct Check<'s> {
    pub check: &'s str,
    pub state: &'s str,
    pub result: &'s str,
    /// `good`, `bad`, `unable`, or nothing before the first run.
    pub last: Option<&'s str>,
    /// Unix time of the last run.
    pub at: Option<u64>,
    /// Unix time since when it is in its state.
    pub since: Option<u64>,
    pub took_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<&'s str>,
}

/// A service's row.
pub(super) fn service<'s>(
    look: &Look<'s>,
    open: bool,
    servers: Vec<ServerRow<'s>>,
    servers_of: usize,
    servers_from: usize,
) -> ServiceRow<'s> {
    let service = look.service;
    ServiceRow {
        name: &service.name,
        end: with_port(&service.address, &service.port),
        protocol: service.protocol.name(),
        scheduler: &service.scheduler,
        method: service.method.name(),
        tone: look.tone,
        word: look.word.clone(),
        serving: look.serving,
        of: service.servers.len(),
        trouble: look.trouble,
        active: look.active,
        inactive: look.inactive,
        connections: service.connections,
        rates: service.rates,
        limits: service.limits.as_ref(),
        quorum: service.quorum,
        open,
        servers,
        servers_of,
        servers_from,
        removed: &service.removed,
    }
}

/// A server's row.
pub(super) fn server<'s>(
    service: &'s ServiceStatus,
    server: &'s ServerStatus,
    sorry: bool,
    tone: Tone,
    checks: &HashMap<u64, &'s CheckStatus>,
) -> ServerRow<'s> {
    let health = server.health.as_ref();
    let own = health.map_or(&[][..], |health| &health.checks);
    let why = match (&server.unreachable, health) {
        (Some(why), _) => &why.detail,
        (None, Some(health)) => health.reason.as_str(),
        (None, None) => "",
    };
    let hop = match &server.next_hop {
        Some(hop) => {
            let vlan = hop.vlan.map(|id| format!(" vlan {id}")).unwrap_or_default();
            format!("{} {}{vlan}", hop.mac, hop.interface)
        }
        None if server.method == "local" => "this machine".to_owned(),
        None => String::new(),
    };
    ServerRow {
        end: server_end(service, server),
        // Without a port of its own, its address is its whole name.
        name: server.port.map_or_else(|| server.address.clone(), |port| with_port(&server.address, &port.to_string())),
        sorry,
        method: &server.method,
        tone,
        word: server_state(server),
        for_s: health.map(|health| health.for_s),
        admin: health.map_or("ready", |health| &health.admin),
        why,
        weight: server.weight,
        configured_weight: health.map_or(server.weight, |health| health.configured_weight),
        weight_percent: health.map_or(100, |health| health.weight_percent),
        active: server.active,
        inactive: server.inactive,
        connections: server.connections,
        rates: server.rates,
        upper_threshold: server.upper_threshold,
        drain: server.drain.as_ref(),
        hop,
        checks: own
            .iter()
            .take(MOST_CHECKS)
            .map(|check| {
                let whole = checks.get(&check.id);
                Check {
                    check: &check.check,
                    state: &check.state,
                    result: &check.result,
                    last: whole.and_then(|whole| whole.last.as_deref()),
                    at: whole.and_then(|whole| whole.at),
                    since: whole.and_then(|whole| whole.since),
                    took_ms: whole.map_or(0.0, |whole| whole.took_ms),
                    warning: whole.and_then(|whole| whole.warning.as_deref()),
                }
            })
            .collect(),
        checks_more: own.len().saturating_sub(MOST_CHECKS),
    }
}
