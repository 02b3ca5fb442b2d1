//! The options of a request about flows: what was sent, checked, and what it means.
//!
//! Owns the names and the sentences about what is wrong with them. Pure.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::control::config::problem::nearest;
use crate::control::naming::{cut, end};
use crate::dataplane::flow::state::{STATES, State};
use crate::dataplane::query::{Filter, Prefix, Wish};
use crate::model::{Desired, Protocol};

/// The options of the command on the control socket.
pub const OPTIONS: &[&str] =
    &["service", "server", "client", "protocol", "state", "proven", "limit", "count", "clear", "all", "from"];

/// Most flows in one answer: putting more of them into words would hold up the control loop.
pub const MOST_A_PAGE: usize = 2000;

/// A request, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    pub wish: Wish,
    pub filter: Filter,
    /// Most flows in the answer.
    pub limit: usize,
    /// Where each worker's walk begins; `None`: it is through.
    pub from: Vec<Option<u64>>,
}

impl Query {
    /// Understands a request to so many workers, or says what is wrong with it.
    pub fn parse(given: &Map<String, Value>, desired: &Desired, workers: usize) -> Result<Query, String> {
        let wish = match (flag(given, "count")?.unwrap_or(false), flag(given, "clear")?.unwrap_or(false)) {
            (false, false) => Wish::List,
            (true, false) => Wish::Count,
            (false, true) => Wish::Clear,
            (true, true) => return Err("`count` and `clear` exclude each other; `clear` counts, too".to_owned()),
        };
        let filter = filter(given, desired)?;
        let all = flag(given, "all")?.unwrap_or(false);
        if wish == Wish::Clear && filter == Filter::default() && !all {
            return Err("`clear` without a filter would end every flow; say `all` if that is what you want".to_owned());
        }
        let limit = match given.get("limit") {
            None => MOST_A_PAGE / 2,
            Some(_) if wish != Wish::List => {
                return Err("`limit` is for listing, not for `count` and `clear`".to_owned());
            }
            Some(value) => {
                let limit = value.as_u64().and_then(|limit| usize::try_from(limit).ok());
                limit.filter(|limit| (1..=MOST_A_PAGE).contains(limit)).ok_or_else(|| {
                    format!(
                        "`limit` is {}; expected a number from 1 to {MOST_A_PAGE}, and more pages with `from`",
                        shown(value)
                    )
                })?
            }
        };
        let from = match given.get("from") {
            None => vec![Some(0); workers],
            Some(value) => {
                let places: Option<Vec<Option<u64>>> = serde_json::from_value(value.clone()).ok();
                places.filter(|places| places.len() == workers).ok_or_else(|| {
                    format!("`from` is {}; expected `next` of the answer before, for {workers} workers", shown(value))
                })?
            }
        };
        Ok(Query { wish, filter, limit, from })
    }
}

/// A value, cut to what a sentence can hold.
pub(in crate::control) fn shown(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

pub(in crate::control) fn flag(given: &Map<String, Value>, name: &str) -> Result<Option<bool>, String> {
    match given.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(format!("`{name}` is {}; expected true or false", shown(other))),
    }
}

pub(in crate::control) fn text<'g>(given: &'g Map<String, Value>, name: &str) -> Result<Option<&'g str>, String> {
    match given.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{name}` is {}; expected a text", shown(other))),
    }
}

fn filter(given: &Map<String, Value>, desired: &Desired) -> Result<Filter, String> {
    let mut filter = Filter { proven: flag(given, "proven")?, ..Filter::default() };
    if let Some(name) = text(given, "service")? {
        let found = desired.services.iter().find(|service| service.name == name).ok_or_else(|| {
            let near = nearest(name, desired.services.iter().map(|service| service.name.as_str()));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            format!("there is no service {:?}{near}", cut(name))
        })?;
        filter.service = Some((found.key.address, found.key.protocol.number(), found.key.ports));
    }
    if let Some(server) = text(given, "server")? {
        filter.server = Some(end(server).ok_or_else(|| {
            format!(
                "`server` is {:?}; expected an address, or one with a port such as 10.0.0.11:80 or [fd00::1]:80",
                cut(server)
            )
        })?);
    }
    if let Some(client) = text(given, "client")? {
        filter.client = Some(prefix(client).ok_or_else(|| {
            format!("`client` is {:?}; expected an address or a network such as 198.51.100.0/24", cut(client))
        })?);
    }
    if let Some(name) = text(given, "protocol")? {
        let found = Protocol::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name));
        filter.protocol = Some(
            found
                .ok_or_else(|| {
                    format!(
                        "`protocol` is {:?}; expected one of {}",
                        cut(name),
                        Protocol::ALL.map(|p| p.name()).join(", ")
                    )
                })?
                .number(),
        );
    }
    if let Some(name) = text(given, "state")? {
        filter.states = states(name).ok_or_else(|| {
            let mut known: Vec<&str> = names().map(|(_, name)| name).collect();
            known.sort_unstable();
            known.dedup();
            let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean {near}? "));
            format!("`state` is {:?}; {}it is one of {}", cut(name), near.unwrap_or_default(), known.join(", "))
        })?;
    }
    Ok(filter)
}

fn names() -> impl Iterator<Item = (u8, &'static str)> {
    (0..STATES as u8).map(|state| (state, State(state).name())).filter(|(_, name)| *name != "?")
}

/// The states of a name: TCP and SCTP share some.
fn states(wanted: &str) -> Option<u32> {
    let bits =
        names().filter(|(_, name)| name.eq_ignore_ascii_case(wanted)).fold(0, |bits, (state, _)| bits | 1 << state);
    (bits != 0).then_some(bits)
}

/// An address, or an address and the length of its network.
pub(in crate::control) fn prefix(text: &str) -> Option<Prefix> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse::<IpAddr>().ok()?, length.parse().ok()?),
        None => {
            let address = text.parse::<IpAddr>().ok()?;
            (address, if address.is_ipv4() { 32 } else { 128 })
        }
    };
    Prefix::new(address, length)
}
