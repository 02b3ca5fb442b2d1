//! What the running engine does for `evenkeel explain`: asks the workers for the client's flows, then says what it knows.
//!
//! Owns who waits for that. What it means is decided in [`crate::control::explain`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::Engine;
use crate::control::explain::Question;
use crate::control::explain::decide::{Known, explain};
use crate::control::flows::FlowRow;
use crate::control::health::ServerState;
use crate::control::nexthop::Reason;
use crate::control::socket::Answer;
use crate::control::socket::server::{ClientId, Reply};
use crate::model::{Server, ServerKey, Service};

/// How long flows are looked for at most.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most flows of a client that are looked at.
const MOST_FLOWS: usize = 10_000;

/// Clients that wait for an explanation.
#[derive(Debug, Default)]
pub(super) struct Asking(BTreeMap<ClientId, Waiting>);

#[derive(Debug)]
struct Waiting {
    question: Question,
    /// What the workers are asked.
    options: Map<String, Value>,
    since: Instant,
    flows: Vec<FlowRow>,
}

impl Asking {
    /// Forgets those who went away.
    pub fn keep(&mut self, waits: impl Fn(ClientId) -> bool) {
        self.0.retain(|client, _| waits(*client));
    }
}

impl Engine {
    /// The command `explain`.
    pub(super) fn explain(&mut self, client: ClientId, given: &Map<String, Value>, now: Instant) -> Reply {
        let question = match Question::read(given, &self.desired) {
            Ok(question) => question,
            Err(why) => return Answer::refused(why).into(),
        };
        let snapshot = self.shared.snapshot.load();
        let (to, protocol) = (question.to, question.protocol);
        let index = snapshot.service(to.ip(), protocol.number(), to.port());
        let Some(service) = index.and_then(|index| snapshot.services.get(usize::from(index))) else {
            return self.explained_with(&question, &[], true, now).into();
        };
        let mut options = Map::new();
        options.insert("client".to_owned(), json!(question.client.to_string()));
        options.insert("service".to_owned(), json!(service.config.name));
        let reply = self.listings.begin(client, &options, &self.shared, &self.desired, now);
        if reply == Reply::Later {
            self.asking.0.insert(client, Waiting { question, options, since: now, flows: Vec::new() });
        }
        reply
    }

    /// An answer about flows: the client's who asked for them, or a piece of an explanation. What is to be said, if anything
    /// is.
    pub(super) fn explained(&mut self, client: ClientId, answer: Answer, now: Instant) -> Option<Answer> {
        let Some(mut waiting) = self.asking.0.remove(&client) else { return Some(answer) };
        let Answer::Done(mut page) = answer else { return Some(answer) };
        let rows = page.get_mut("flows").map(Value::take).unwrap_or_default();
        let rows: Vec<FlowRow> = serde_json::from_value(rows).unwrap_or_default();
        let asked = waiting.question;
        let is_meant =
            |row: &FlowRow| row.r#virtual == asked.to && asked.port.is_none_or(|port| row.client.port() == port);
        waiting.flows.extend(rows.into_iter().filter(is_meant));
        let found = asked.port.is_some() && !waiting.flows.is_empty();
        let next = page.get_mut("next").map(Value::take).filter(|next| !next.is_null());
        let enough = found || waiting.flows.len() >= MOST_FLOWS || now >= waiting.since + PATIENCE;
        if let Some(next) = next.clone().filter(|_| !enough) {
            waiting.options.insert("from".to_owned(), next);
            if self.listings.begin(client, &waiting.options, &self.shared, &self.desired, now) == Reply::Later {
                self.asking.0.insert(client, waiting);
                return None;
            }
        }
        // A flow that was confirmed meanwhile is listed twice.
        waiting.flows.sort_by_key(|row| (row.client, !row.proven));
        waiting.flows.dedup_by_key(|row| row.client);
        Some(self.explained_with(&asked, &waiting.flows, next.is_none() || found, now))
    }

    fn explained_with(&self, question: &Question, flows: &[FlowRow], is_complete: bool, now: Instant) -> Answer {
        let (snapshot, elapsed) = (self.shared.snapshot.load(), self.watch.moment(now).now);
        let interfaces: Vec<String> = self.desired.interfaces.iter().map(|port| port.name.clone()).collect();
        let health = |service: &Service, server: &Server| {
            let view = self.watch.meaning().view(&ServerKey::of(service, server), elapsed);
            let told = view.filter(|view| view.state != ServerState::Up).map(|view| match view.words {
                "" => view.state.name().to_owned(),
                words => format!("{}: {words}", view.state.name()),
            });
            let reach = self.tracker.reach(service, server).err().filter(|why| *why != Reason::Local);
            match (told, reach) {
                (Some(told), _) => told,
                (None, Some(why)) => format!("unreachable: {why}"),
                (None, None) => String::new(),
            }
        };
        let router = |address: IpAddr| {
            let routers = &self.desired.vrrp.routers;
            let of = routers.iter().find(|router| router.all_addresses().any(|known| known.address == address));
            of.map(|router| router.name.clone())
        };
        let known = Known {
            snapshot: &snapshot,
            director: &self.workers.director,
            now: self.shared.clock(now),
            interfaces: &interfaces,
            flows,
            is_complete,
            router: &router,
            health: &health,
        };
        match serde_json::to_value(explain(question, &known)) {
            Ok(told) => Answer::Done(told),
            Err(error) => Answer::refused(error.to_string()),
        }
    }
}
