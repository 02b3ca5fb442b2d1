//! The engine's picture as the status page wants it: sums, a page of services, servers only where somebody looks or must look.
//!
//! Owns what is trouble, and how much goes into one answer. Pure: time is a parameter.

mod machine;
mod rows;

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::query::{MOST_SERVERS, Query, Sort};
use crate::control::show::services::{server_end, server_state, serves, state};
use crate::control::status::{CheckStatus, ConfigStatus, EngineStatus, ServerStatus, ServiceStatus, Status};
use crate::control::status::{PersistenceStatus, RatesStatus, with_port};
use crate::vrrp::status::VrrpStatus;
use machine::{Dropped, Interface, Worker};
use rows::{ServerRow, ServiceRow};

/// Most warnings in an answer.
const MOST_WARNINGS: usize = 50;

/// Servers of a service that is not open, where they are in trouble or found by the filter.
const MOST_SHOWN: usize = 5;

/// How something is, for its colour; there is always a word beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Somebody must look.
    Bad,
    /// Somebody should look.
    Warn,
    /// As it should be.
    Good,
    /// People took it out.
    Off,
}

/// An answer.
#[derive(Debug, Serialize)]
pub struct View<'s> {
    /// Unix time of this answer, by the appliance's clock.
    now: u64,
    engine: &'s EngineStatus,
    config: &'s ConfigStatus,
    warnings: Vec<&'s str>,
    /// Warnings that are not in the list.
    warnings_more: usize,
    totals: Totals,
    services: Services<'s>,
    workers: Vec<Worker>,
    interfaces: Vec<Interface<'s>>,
    drops: Vec<Dropped<'s>>,
    vrrp: Option<&'s VrrpStatus>,
    persistence: &'s PersistenceStatus,
}

/// Over all services.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Totals {
    services: usize,
    /// Services with trouble.
    services_trouble: usize,
    servers: usize,
    /// Servers that get new flows.
    servers_serving: usize,
    /// Servers with trouble.
    servers_trouble: usize,
    active: u64,
    inactive: u64,
    connections: u64,
    rates: RatesStatus,
}

/// A page of services.
#[derive(Debug, Serialize)]
struct Services<'s> {
    /// Services that the filter leaves.
    matched: usize,
    /// The page: the last one, where there are fewer than was asked for.
    page: usize,
    pages: usize,
    list: Vec<ServiceRow<'s>>,
}

/// How a server is.
pub fn tone(server: &ServerStatus) -> Tone {
    let state = server.health.as_ref().map_or("", |health| health.state.as_str());
    match state {
        // Whoever took it out knows.
        "maintenance" | "draining" | "standby" => Tone::Off,
        _ if server.unreachable.is_some() => Tone::Bad,
        "down" | "ejected" => Tone::Bad,
        "starting" | "held" | "serving" => Tone::Warn,
        _ if server.overloaded => Tone::Warn,
        _ if server.weight == 0 => Tone::Off,
        _ => Tone::Good,
    }
}

/// Whether somebody should look at a server.
fn troubled(server: &ServerStatus) -> bool {
    matches!(tone(server), Tone::Bad | Tone::Warn)
}

/// All servers of a service, and whether each is the sorry server.
fn all(service: &ServiceStatus) -> impl Iterator<Item = (&ServerStatus, bool)> {
    let sorry = service.sorry.as_deref().map(|server| (server, true));
    service.servers.iter().map(|server| (server, false)).chain(sorry)
}

fn has(text: &str, filter: &str) -> bool {
    text.to_lowercase().contains(filter)
}

/// What a look at a service shows without its servers' rows.
struct Look<'s> {
    service: &'s ServiceStatus,
    tone: Tone,
    word: String,
    serving: usize,
    /// Servers with trouble.
    trouble: usize,
    active: u64,
    inactive: u64,
}

impl<'s> Look<'s> {
    fn at(service: &'s ServiceStatus) -> Look<'s> {
        let word = state(service);
        let trouble = service.servers.iter().filter(|server| troubled(server)).count();
        let tone = match (word.as_str(), trouble) {
            ("up", 0) => Tone::Good,
            ("up", _) => Tone::Warn,
            _ => Tone::Bad,
        };
        let sum = |of: fn(&ServerStatus) -> u32| all(service).map(|(server, _)| u64::from(of(server))).sum();
        Look {
            service,
            tone,
            word: if word == "up" { "UP".to_owned() } else { word },
            serving: service.servers.iter().filter(|server| serves(server)).count(),
            trouble,
            active: sum(|server| server.active),
            inactive: sum(|server| server.inactive),
        }
    }

    /// Whether the service itself has the text, its servers aside.
    fn is_named(&self, filter: &str) -> bool {
        let service = self.service;
        let words = [&service.name, &service.scheduler, &self.word];
        words.into_iter().any(|word| has(word, filter))
            || has(&with_port(&service.address, &service.port), filter)
            || has(service.protocol.name(), filter)
            || has(service.method.name(), filter)
    }
}

/// Whether a server has the text.
fn is_found(service: &ServiceStatus, server: &ServerStatus, filter: &str) -> bool {
    let reason = server.health.as_ref().map_or("", |health| health.reason.as_str());
    has(&server_end(service, server), filter) || has(&server_state(server), filter) || has(reason, filter)
}

/// The answer. `now`: the Unix time.
pub fn view<'s>(status: &'s Status, query: &Query, now: u64) -> View<'s> {
    let looks: Vec<Look<'s>> = status.services.iter().map(Look::at).collect();
    let checks: HashMap<u64, &CheckStatus> = status.checks.iter().map(|check| (check.id, check)).collect();
    let mut warnings: Vec<&str> = status.warnings.iter().map(String::as_str).collect();
    let warnings_more = warnings.len().saturating_sub(MOST_WARNINGS);
    warnings.truncate(MOST_WARNINGS);
    View {
        now,
        engine: &status.engine,
        config: &status.config,
        warnings,
        warnings_more,
        totals: totals(&looks),
        services: services(looks, &checks, query),
        workers: machine::workers(&status.workers),
        interfaces: machine::interfaces(&status.interfaces),
        drops: machine::drops(&status.drops),
        vrrp: status.vrrp.as_ref(),
        persistence: &status.persistence,
    }
}

fn totals(looks: &[Look<'_>]) -> Totals {
    let mut totals = Totals { services: looks.len(), ..Totals::default() };
    for look in looks {
        let (service, rates) = (look.service, look.service.rates);
        totals.services_trouble += usize::from(look.tone < Tone::Good);
        totals.servers += service.servers.len();
        totals.servers_serving += look.serving;
        totals.servers_trouble += look.trouble;
        totals.active += look.active;
        totals.inactive += look.inactive;
        totals.connections += service.connections;
        totals.rates.connections += rates.connections;
        totals.rates.in_packets += rates.in_packets;
        totals.rates.out_packets += rates.out_packets;
        totals.rates.in_bytes += rates.in_bytes;
        totals.rates.out_bytes += rates.out_bytes;
    }
    totals
}

fn services<'s>(mut looks: Vec<Look<'s>>, checks: &HashMap<u64, &'s CheckStatus>, query: &Query) -> Services<'s> {
    let filter = query.filter.as_str();
    looks.retain(|look| {
        let wanted = !query.trouble || look.tone < Tone::Good;
        let found = || all(look.service).any(|(server, _)| is_found(look.service, server, filter));
        wanted && (filter.is_empty() || look.is_named(filter) || found())
    });
    match query.sort {
        Sort::Order => {}
        Sort::Trouble => looks.sort_by_key(|look| look.tone),
        Sort::Name => looks.sort_by(|a, b| a.service.name.cmp(&b.service.name)),
        Sort::Flows => looks.sort_by_key(|look| Reverse(look.active + look.inactive)),
        Sort::Packets => {
            looks.sort_by_key(|look| Reverse(look.service.rates.in_packets + look.service.rates.out_packets));
        }
    }
    let (matched, size) = (looks.len(), query.size.max(1));
    let pages = matched.div_ceil(size).max(1);
    let page = query.page.min(pages - 1);
    let list = looks.iter().skip(page * size).take(size).map(|look| row(look, checks, query)).collect();
    Services { matched, page, pages, list }
}

/// A service with those of its servers that are shown.
fn row<'s>(look: &Look<'s>, checks: &HashMap<u64, &'s CheckStatus>, query: &Query) -> ServiceRow<'s> {
    let (service, filter) = (look.service, query.filter.as_str());
    let open = query.open.iter().find(|(name, _)| *name == service.name).map(|(_, from)| *from);
    let by_servers = !filter.is_empty() && !look.is_named(filter);
    let mut shown: Vec<(&ServerStatus, bool)> = all(service)
        .filter(|(server, sorry)| match (by_servers, open) {
            (true, _) => is_found(service, server, filter),
            (false, Some(_)) => true,
            // A sorry server that serves is why the service is in trouble.
            (false, None) => troubled(server) || *sorry && tone(server) != Tone::Off,
        })
        .collect();
    shown.sort_by_key(|(server, _)| if troubled(server) { tone(server) } else { Tone::Good });
    let most = if open.is_some() { MOST_SERVERS } else { MOST_SHOWN };
    // A page that is no longer there: the last one.
    let from = open.unwrap_or(0).min(shown.len().saturating_sub(1) / most * most);
    let of = shown.len();
    let servers: Vec<ServerRow<'s>> = shown
        .into_iter()
        .skip(from)
        .take(most)
        .map(|(server, sorry)| rows::server(service, server, sorry, tone(server), checks))
        .collect();
    rows::service(look, open.is_some(), servers, of, from)
}

#[cfg(test)]
mod tests;
