//! Which server the scheduler takes, and for each of the others why not. Pure.
//!
//! Owns the question to the scheduler, which is asked on copies of what it remembers, and the sentence about each server.

use std::collections::HashMap;
use std::net::IpAddr;

use super::decide::{Health, name};
use super::{Question, ServerRow};
use crate::dataplane::schedule::{self, Cursor, Member, Request, fold_address};
use crate::dataplane::snapshot::{ServiceEntry, Snapshot};
use crate::model::{Server, Service};

/// How many lots are drawn to say how likely each server is.
const LOTS: u32 = 1024;

/// How often the pipeline asks for another server.
const TRIES: usize = 4;

/// How far ahead a sequence is looked at.
const AHEAD: u32 = 512;

/// What the scheduler would do.
#[derive(Debug, Default)]
pub struct Choice {
    /// The server that is taken, by its stable id.
    pub taken: Option<u32>,
    /// The client had it before.
    fixed: bool,
    /// Where lots or an unknown port decide: how often each server was taken, from 0 to 1.
    pub shares: HashMap<u32, f64>,
    /// An unknown port decides.
    pub by_port: bool,
    /// How the choice is made: the scheduler's name, or `hash` in a flood.
    how: &'static str,
    /// Sequences: after how many new flows each server's turn comes.
    turns: HashMap<u32, u32>,
}

impl Choice {
    /// A client has this server already.
    pub fn fixed(id: u32) -> Choice {
        Choice { taken: Some(id), fixed: true, ..Choice::default() }
    }
}

/// What a sequence and its members stand at, to be asked without consequences.
fn copies(service: &ServiceEntry) -> (Vec<Member>, Cursor) {
    let copy = |member: &Member| Member { load: member.load.copy().into(), ..member.clone() };
    (service.members.iter().map(copy).collect(), service.state.cursor.copy())
}

/// A word that looks random (the finish of SplitMix64).
fn lot(number: u32) -> u32 {
    let mut word = u64::from(number).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (word ^ (word >> 27)) as u32
}

/// Whether a new flow is below the upper threshold. Where persistent clients came beyond it, a server is full though it was
/// never called overloaded.
fn has_room(member: &Member) -> bool {
    member.upper == 0 || member.load.total() < member.upper
}

/// Asks the scheduler for a new flow. `stateless`: a flood goes on, or did a moment ago.
pub fn choose(service: &ServiceEntry, asked: &Question, now: u32, stateless: bool) -> Choice {
    let scheduler = service.config.scheduler;
    let known = schedule::description(scheduler.name);
    let own = !stateless || known.is_some_and(|known| known.stateless);
    let selector = if stateless { &service.stateless } else { &service.selector };
    let by_port = asked.port.is_none() && (!own || scheduler.port);
    let draws = own && known.is_some_and(|known| known.draws);
    let request = |port: u16, random: u32| Request {
        client: fold_address(asked.client),
        port,
        destination: fold_address(service.config.key.address),
        destination_port: asked.to.port(),
        now,
        random,
    };
    let (members, cursor) = copies(service);
    let id = |at: usize| members.get(at).map(|member| member.id);
    let how = if own { scheduler.name } else { "hash" };
    let mut choice = Choice { how, by_port, ..Choice::default() };
    if draws || by_port {
        for number in 0..LOTS {
            let port = asked.port.unwrap_or((1024 + number * 63 % 64_512) as u16);
            let at = selector.select(&members, &cursor, &request(port, lot(number)));
            if let Some(id) = at.filter(|at| members.get(*at).is_some_and(has_room)).and_then(id) {
                *choice.shares.entry(id).or_default() += 1.0 / f64::from(LOTS);
            }
        }
        return choice;
    }
    let request = request(asked.port.unwrap_or(0), 0);
    // The pipeline asks for another as often where the chosen one has no room after all.
    choice.taken = (0..TRIES)
        .map_while(|_| selector.select(&members, &cursor, &request))
        .find(|at| members.get(*at).is_some_and(has_room))
        .and_then(id);
    if matches!(how, "rr" | "wrr") {
        for turn in 1..=AHEAD {
            let Some(next) = selector.select(&members, &cursor, &request).and_then(id) else { break };
            choice.turns.entry(next).or_insert(turn);
        }
    }
    choice
}

/// What tells the members of a service apart: address, and port or 0.
pub fn ends(service: &Service, server: &Server) -> (IpAddr, u16) {
    (server.address, server.port.or(service.key.ports.as_single()).unwrap_or(0))
}

/// The members of a service with their configuration, in the order of the file.
fn in_order(service: &ServiceEntry) -> impl Iterator<Item = (&Member, &Server)> {
    let members: HashMap<(IpAddr, u16), &Member> =
        service.members.iter().map(|member| ((member.address, member.port), member)).collect();
    let config = &*service.config;
    config.all_servers().filter_map(move |server| Some((*members.get(&ends(config, server))?, server)))
}

fn row(member: &Member, port: u16, why: String) -> ServerRow {
    ServerRow {
        server: name(member, port),
        weight: member.weight,
        active: member.load.active(),
        inactive: member.load.inactive(),
        taken: false,
        available: member.is_available() && has_room(member),
        share: None,
        why,
    }
}

/// The servers of a service of which a flow has one already.
pub fn of_flow(service: &ServiceEntry, taken: &Member, health: Health<'_>) -> Vec<ServerRow> {
    let port = service.config.key.ports.as_single().unwrap_or(0);
    in_order(service)
        .map(|(member, server)| {
            let is_it = member.id == taken.id;
            let mut why = if is_it { "the flow's server".to_owned() } else { "the flow has another".to_owned() };
            let health = health(&service.config, server);
            if !health.is_empty() {
                why = format!("{why}; {health}");
            }
            ServerRow { taken: is_it, ..row(member, port, why) }
        })
        .collect()
}

/// The servers of a service for a new flow.
pub fn rows(
    service: &ServiceEntry,
    asked: &Question,
    snapshot: &Snapshot,
    choice: &Choice,
    health: Health<'_>,
) -> Vec<ServerRow> {
    let taken = choice.taken.and_then(|id| service.members.iter().find(|member| member.id == id));
    in_order(service)
        .map(|(member, server)| {
            let reached = snapshot.server(member.id).is_some_and(|entry| entry.reachable);
            let is_it = taken.is_some_and(|taken| taken.id == member.id);
            let out = out(&service.config, server, member, reached, health);
            let available = out.is_none();
            let share = choice.shares.get(&member.id).copied();
            let why = match (out, taken) {
                _ if is_it && choice.fixed => "the client has it".to_owned(),
                (Some(out), _) => out,
                (None, _) if choice.fixed => "the client has another".to_owned(),
                (None, Some(taken)) if is_it => won(choice.how, taken),
                (None, Some(taken)) => lost(choice, member, taken),
                (None, None) if choice.by_port => share_words("for about", share.unwrap_or(0.0), " of ports"),
                (None, None) if !choice.shares.is_empty() => share_words("drawn about", share.unwrap_or(0.0), ""),
                (None, None) => "the client falls to another".to_owned(),
            };
            ServerRow { taken: is_it, available, share, ..row(member, asked.to.port(), why) }
        })
        .collect()
}

fn share_words(before: &str, share: f64, behind: &str) -> String {
    if share == 0.0 { "hardly ever".to_owned() } else { format!("{before} {:.0} %{behind}", share * 100.0) }
}

/// Why a server takes no new flows; `None`: it does.
fn out(service: &Service, server: &Server, member: &Member, reached: bool, health: Health<'_>) -> Option<String> {
    if member.is_available() && reached && has_room(member) {
        return None;
    }
    let health = health(service, server);
    if !health.is_empty() {
        return Some(health);
    }
    let is_sorry = service.health.sorry.as_deref().is_some_and(|sorry| std::ptr::eq(sorry, server));
    Some(if is_sorry && (member.weight == 0 || !member.reachable) {
        "sorry server: it serves while the service has no quorum".to_owned()
    } else if !member.reachable || !reached {
        "it cannot be reached, or is out".to_owned()
    } else if member.weight == 0 {
        "weight 0: no new flows".to_owned()
    } else if !member.load.is_overloaded() {
        format!("full: {} flows of {}", member.load.total(), member.upper)
    } else if member.lower == 0 {
        format!("overloaded: it had {} flows, and takes more below three quarters of that", member.upper)
    } else {
        format!("overloaded: it had {} flows, and takes more below {}", member.upper, member.lower)
    })
}

/// What a scheduler compares.
#[derive(Clone, Copy)]
enum Measure {
    /// All connections, an established one as 256 (`ip_vs_dest_conn_overhead`).
    Connections,
    /// The same for each unit of weight.
    ByWeight,
    /// Established connections and the new one, for each unit of weight.
    Delay,
    /// The weight.
    Weight,
}

impl Measure {
    fn of(how: &str) -> Option<Measure> {
        match how {
            "lc" => Some(Measure::Connections),
            "wlc" => Some(Measure::ByWeight),
            "sed" | "nq" => Some(Measure::Delay),
            "fo" | "ovf" => Some(Measure::Weight),
            _ => None,
        }
    }

    /// A fraction, and how it came about.
    fn take(self, member: &Member) -> ((u64, u64), String) {
        let (active, inactive) = (u64::from(member.load.active()), u64::from(member.load.inactive()));
        let (cost, weight) = (256 * active + inactive, u64::from(member.weight));
        let ratio = |cost: u64| cost as f64 / weight.max(1) as f64;
        match self {
            Measure::Connections => ((cost, 1), format!("{cost} (256 x {active} + {inactive})")),
            Measure::ByWeight => {
                ((cost, weight), format!("{:.2} ((256 x {active} + {inactive}) / {weight})", ratio(cost)))
            }
            Measure::Delay => ((active + 1, weight), format!("{:.2} (({active} + 1) / {weight})", ratio(active + 1))),
            Measure::Weight => ((weight, 1), format!("weight {weight}")),
        }
    }
}

/// Why the server is taken.
fn won(how: &str, member: &Member) -> String {
    match (how, Measure::of(how)) {
        ("rr" | "wrr", _) => "its turn".to_owned(),
        ("nq", _) if member.load.active() == 0 => "the first one without established connections".to_owned(),
        ("fo", Some(measure)) => format!("the highest weight: {}", measure.take(member).1),
        ("ovf", Some(measure)) => {
            format!("the highest weight of those with no more established connections: {}", measure.take(member).1)
        }
        (_, Some(measure)) => format!("the least: {}", measure.take(member).1),
        ("lblc" | "lblcr", None) => "the service address has it, or gets it now".to_owned(),
        _ => "the hash names it".to_owned(),
    }
}

/// Why one that could be taken is not.
fn lost(choice: &Choice, member: &Member, taken: &Member) -> String {
    let later = "comes later in the list";
    if matches!(choice.how, "rr" | "wrr") {
        return match choice.turns.get(&member.id) {
            Some(1) => "its turn is the next one".to_owned(),
            Some(turn) => format!("its turn comes {turn} new flows later"),
            None => "its turn comes later".to_owned(),
        };
    }
    if choice.how == "nq" && taken.load.active() == 0 {
        return match member.load.active() {
            0 => format!("has none either, but {later}"),
            active => format!("{active} established"),
        };
    }
    if choice.how == "ovf" && member.load.active() > member.weight {
        return format!("{} established, more than its weight {}", member.load.active(), member.weight);
    }
    let Some(measure) = Measure::of(choice.how) else {
        return match choice.how {
            "lblc" => "the service address keeps its server".to_owned(),
            "lblcr" => "not the least loaded of the service address's servers".to_owned(),
            _ => "the hash names another".to_owned(),
        };
    };
    let (((cost, per), words), ((least, least_per), _)) = (measure.take(member), measure.take(taken));
    let (ours, theirs) = (u128::from(cost) * u128::from(least_per), u128::from(least) * u128::from(per));
    let most = matches!(measure, Measure::Weight);
    match ours.cmp(&theirs) {
        std::cmp::Ordering::Equal => format!("{words}, the same, but {later}"),
        _ if most => format!("{words}, lower"),
        _ => format!("{words}, more"),
    }
}
