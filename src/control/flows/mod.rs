//! Flows of the running engine, listed, counted and ended: the engine's side of `evenkeel flows`.
//!
//! Owns the questions that are open at the workers' desks, and for whom. Each request is a page: it ends when it has as many
//! flows as it may have, when its time is over, or when every worker has looked at everything, and says where the next one
//! goes on. So nobody, the control loop least of all, is held up by a listing. Never waits for a worker.

pub mod client;
pub(in crate::control) mod options;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::socket::Answer;
use super::socket::server::{ClientId, Reply};
use crate::dataplane::flow::flag;
use crate::dataplane::query::{self, Desk, Question, Record, Wish};
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::worker::Shared;
use crate::model::{Desired, Protocol};
pub use options::OPTIONS;
use options::Query;

/// How long one page may take before it is answered with what there is.
const PAGE_TIME: Duration = Duration::from_millis(300);

/// How long a worker may take to end a question; it looks at its desk many times as often, asleep or not.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often answers are fetched while a question is open.
const FETCH: Duration = Duration::from_millis(1);

/// Answers fetched from one worker in one turn of the control loop.
const FETCHED_A_TURN: usize = query::ANSWERS;

/// Requests that wait for others to end.
const MOST_WAITING: usize = 256;

/// A flow on the control socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRow {
    /// The worker that has it.
    pub worker: usize,
    /// Its service's name; absent where that is in the configuration no more.
    pub service: Option<String>,
    /// Protocol, in small letters.
    pub protocol: String,
    /// State as IPVS names it.
    pub state: String,
    /// Whether its client has confirmed it.
    pub proven: bool,
    /// The client's address and port.
    pub client: SocketAddr,
    /// What it asked for.
    pub r#virtual: SocketAddr,
    /// The server's address and port; absent where it is in the configuration no more.
    pub server: Option<SocketAddr>,
    /// Full NAT: the local address and port as the server sees them.
    pub local: Option<SocketAddr>,
    /// Seconds until it ends if no packet comes.
    pub expires_s: u32,
    /// Milliseconds since its last packet, exact to an eighth of a second.
    pub idle_ms: u32,
    /// `persistent`, `limited`, `syn-cookie`.
    pub flags: Vec<String>,
}

/// What one worker has said to a question.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// It has ended.
    ended: bool,
    /// Where another page goes on; `None`: nowhere.
    next: Option<u64>,
    /// The first flow that found no room in this page.
    beyond: Option<u64>,
}

/// A request that is being answered.
#[derive(Debug)]
struct Listing {
    client: ClientId,
    query: Query,
    slot: u8,
    number: u64,
    began: Instant,
    stopped: bool,
    parts: Vec<Part>,
    matched: u64,
    flows: Vec<(usize, Record)>,
    /// The client has had its answer, or is gone: only the workers' ends are awaited.
    over: bool,
}

/// All requests about flows.
#[derive(Debug, Default)]
pub struct Listings {
    open: Vec<Listing>,
    waiting: VecDeque<(ClientId, Query)>,
    /// Questions so far.
    asked: u64,
}

impl Listings {
    /// Takes a request.
    pub fn begin(
        &mut self,
        client: ClientId,
        given: &Map<String, Value>,
        shared: &Shared,
        desired: &Desired,
        now: Instant,
    ) -> Reply {
        let query = match Query::parse(given, desired, shared.desks().len()) {
            Ok(query) => query,
            Err(error) => return Answer::refused(error).into(),
        };
        if self.waiting.len() >= MOST_WAITING {
            return Answer::refused("too many requests about flows at once; try again").into();
        }
        self.waiting.push_back((client, query));
        self.start(shared, now);
        Reply::Later
    }

    /// Asks the workers what waits, as far as places are free.
    fn start(&mut self, shared: &Shared, now: Instant) {
        while let Some(slot) = (0..query::QUESTIONS as u8).find(|slot| self.open.iter().all(|open| open.slot != *slot))
            && let Some((client, query)) = self.waiting.pop_front()
        {
            self.asked += 1;
            let number = self.asked;
            let mut parts = Vec::with_capacity(query.from.len());
            for (worker, (desk, from)) in shared.desks().iter().zip(&query.from).enumerate() {
                let question = from.map(|from| Question { number, slot, wish: query.wish, filter: query.filter, from });
                let asked = question.is_some_and(|question| desk.ask(question));
                parts.push(Part { ended: !asked, next: None, beyond: None });
                if let Some(inbox) = shared.inboxes().get(worker).filter(|_| asked) {
                    inbox.ring();
                }
            }
            let (matched, flows) = (0, Vec::new());
            let (began, stopped, over) = (now, false, false);
            self.open.push(Listing { client, query, slot, number, began, stopped, parts, matched, flows, over });
        }
    }

    /// When [`Listings::turn`] must be called at the latest.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        (!self.open.is_empty()).then(|| now + FETCH)
    }

    /// Fetches what the workers said. `waits` tells whether a client is still there; `answer` gets what is complete.
    pub fn turn(
        &mut self,
        shared: &Shared,
        now: Instant,
        waits: impl Fn(ClientId) -> bool,
        mut answer: impl FnMut(ClientId, Answer),
    ) {
        if self.open.is_empty() && self.waiting.is_empty() {
            return;
        }
        for (worker, desk) in shared.desks().iter().enumerate() {
            self.fetch(worker, desk);
        }
        let mut snapshot = None;
        for listing in &mut self.open {
            listing.over |= !waits(listing.client);
            let full = listing.query.wish == Wish::List && listing.flows.len() >= listing.query.limit;
            if !listing.stopped && (listing.over || full || now >= listing.began + PAGE_TIME) {
                listing.stopped = true;
                shared.desks().iter().for_each(|desk| desk.stop(listing.slot));
            }
            if listing.over {
                continue;
            }
            if listing.parts.iter().all(|part| part.ended) {
                listing.over = true;
                let snapshot = snapshot.get_or_insert_with(|| shared.snapshot.load_full());
                answer(listing.client, Answer::Done(listing.page(snapshot)));
            } else if now >= listing.began + PATIENCE {
                listing.over = true;
                let silent = listing.parts.iter().position(|part| !part.ended).unwrap_or_default();
                answer(listing.client, Answer::refused(format!("worker {silent} does not answer")));
            }
        }
        self.open.retain(|listing| !(listing.over && listing.parts.iter().all(|part| part.ended)));
        self.waiting.retain(|(client, _)| waits(*client));
        self.start(shared, now);
    }

    fn fetch(&mut self, worker: usize, desk: &Desk) {
        for _ in 0..FETCHED_A_TURN {
            let Some(answer) = desk.take() else { return };
            let number = match answer {
                query::Answer::Flow { number, .. } | query::Answer::End { number, .. } => number,
            };
            let Some(listing) = self.open.iter_mut().find(|listing| listing.number == number) else { continue };
            let Some(part) = listing.parts.get_mut(worker) else { continue };
            match answer {
                query::Answer::Flow { record, .. } if listing.flows.len() < listing.query.limit => {
                    listing.flows.push((worker, record));
                }
                query::Answer::Flow { record, .. } => part.beyond = part.beyond.or(Some(record.at)),
                query::Answer::End { next, matched, .. } => {
                    listing.matched += matched;
                    part.ended = true;
                    part.next = part.beyond.or(next);
                }
            }
        }
    }
}

impl Listing {
    fn page(&self, snapshot: &Snapshot) -> Value {
        let more = self.parts.iter().any(|part| part.next.is_some());
        let next: Vec<Option<u64>> = self.parts.iter().map(|part| part.next).collect();
        let next = if more { json!(next) } else { Value::Null };
        if self.query.wish != Wish::List {
            return json!({ "matched": self.matched, "next": next });
        }
        let rows: Vec<FlowRow> = self.flows.iter().map(|(worker, record)| row(*worker, record, snapshot)).collect();
        json!({ "flows": rows, "matched": rows.len(), "next": next })
    }
}

fn row(worker: usize, record: &Record, snapshot: &Snapshot) -> FlowRow {
    let service = snapshot.service(record.service.0, record.protocol, record.service.1);
    let service = service.and_then(|at| snapshot.services.get(usize::from(at)));
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == record.protocol);
    let flags = [(flag::PERSISTENT, "persistent"), (flag::LIMITED, "limited"), (flag::COOKIE, "syn-cookie")];
    FlowRow {
        worker,
        service: service.map(|service| service.config.name.clone()),
        protocol: protocol.map_or_else(|| record.protocol.to_string(), |protocol| protocol.name().to_owned()),
        state: record.state.name().to_owned(),
        proven: record.proven,
        client: record.client.into(),
        r#virtual: record.service.into(),
        server: record.server.map(SocketAddr::from),
        local: record.local.map(SocketAddr::from),
        expires_s: record.left_ms / 1000,
        idle_ms: record.idle_ms,
        flags: flags.iter().filter(|(bit, _)| record.flags & bit != 0).map(|(_, name)| (*name).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests;
