//! What happened to servers and services: remembered, told to the log, and to whoever asks or waits for it.
//!
//! Owns the sentences, the numbers of events and the clients that wait for the next one. Never decides anything, and never
//! waits itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::{Change, What};
use crate::control::naming::misread;
use crate::control::socket::Answer;
use crate::control::socket::server::{ClientId, Reply};
use crate::control::status::span;

/// Events that are remembered.
pub const KEPT: usize = 4096;

/// Most events in one answer: more of them would hold up the control loop.
const PAGE: usize = 500;

/// How long a client that waits for news is left without an answer: shorter than its own patience.
const HOLD: Duration = Duration::from_secs(20);

/// Most clients that wait for news.
const MOST_FOLLOWERS: usize = 64;

/// The names of a [`Question`]'s members.
pub const OPTIONS: &[&str] = &["since", "follow"];

/// Which events are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// Those with a higher number than this.
    pub since: u64,
    /// Whether to wait for one where there is none yet.
    pub follow: bool,
}

impl Question {
    fn read(options: &Map<String, Value>) -> Result<Question, String> {
        serde_json::from_value(Value::Object(options.clone())).map_err(|error| misread("events", &error))
    }
}

/// What the engine answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Oldest first.
    pub events: Vec<Event>,
    /// `since` of the next question.
    pub next: u64,
    /// Whether there are more already.
    pub more: bool,
    /// Events that were meant and are not remembered any more.
    pub lost: u64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 1 while the engine runs.
    pub number: u64,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Name of the service.
    pub service: String,
    /// Address and port of the server; absent where the whole service is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What happened: `up`, `down`, `quorum-lost`, ...
    pub what: String,
    /// The server's weight, where that is what changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Why; may be empty.
    pub reason: String,
    /// What it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// All of it in a sentence.
    pub text: String,
}

/// A state that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its name.
    pub state: String,
    /// How long it lasted, whole seconds.
    pub seconds: u64,
}

/// The sentence of a change, without its time.
pub fn sentence(change: &Change) -> String {
    let name = &change.name;
    let mut text = match (&change.server, change.what) {
        (Some(server), What::SorryIn) => format!("service {name}: its sorry server {server} serves"),
        (Some(server), What::SorryOut) => format!("service {name}: its sorry server {server} serves no more"),
        (Some(server), what) => {
            let said = match what {
                What::Weight(weight) => format!("has weight {weight}"),
                What::Drained => "has drained".to_owned(),
                What::Up => "is UP".to_owned(),
                What::Down => "is DOWN".to_owned(),
                What::Draining => "is in DRAIN".to_owned(),
                What::Maintenance => "is in MAINT".to_owned(),
                What::Ejected => "is EJECTED".to_owned(),
                What::Held => "is HELD out".to_owned(),
                other => format!("is {}", other.name()),
            };
            format!("server {server} of {name} {said}")
        }
        (None, What::QuorumFound) => format!("service {name} has its quorum"),
        (None, What::QuorumLost) => format!("service {name} is without its quorum"),
        (None, What::SorryIn) => format!("service {name}: its sorry server serves"),
        (None, What::SorryOut) => format!("service {name}: its sorry server serves no more"),
        (None, what) => format!("service {name}: {}", what.name()),
    };
    if !change.words.is_empty() {
        text.push_str(": ");
        text.push_str(&change.words);
    }
    if let Some((state, lasted)) = change.before {
        text.push_str(&format!(", was {state} {}", span(lasted.as_secs())));
    }
    text
}

/// Whether somebody should look after it.
fn is_bad(what: What) -> bool {
    matches!(what, What::Down | What::Ejected | What::Held | What::QuorumLost | What::SorryIn)
}

impl Event {
    fn of(number: u64, change: &Change) -> Event {
        let weight = if let What::Weight(weight) = change.what { Some(weight) } else { None };
        Event {
            number,
            at_ms: change.at.as_millis() as u64,
            service: change.name.clone(),
            server: change.server.map(|server| server.to_string()),
            what: change.what.name().to_owned(),
            weight,
            reason: change.words.clone(),
            before: change.before.map(|(state, lasted)| Before { state: state.to_owned(), seconds: lasted.as_secs() }),
            text: sentence(change),
        }
    }
}

/// A client that waits.
#[derive(Debug)]
struct Follower {
    client: ClientId,
    since: u64,
    until: Instant,
}

/// The last events, and who waits for the next.
#[derive(Debug, Default)]
pub struct Events {
    kept: VecDeque<Event>,
    /// Number of the last one.
    last: u64,
    followers: Vec<Follower>,
}

impl Events {
    /// Remembers what happened, and tells the log.
    pub fn note(&mut self, changes: &[Change]) {
        for change in changes {
            self.last += 1;
            let event = Event::of(self.last, change);
            if is_bad(change.what) {
                warn!("{}", event.text);
            } else {
                info!("{}", event.text);
            }
            if self.kept.len() == KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back(event);
        }
    }

    /// Takes a request.
    pub fn begin(&mut self, client: ClientId, options: &Map<String, Value>, now: Instant) -> Reply {
        let question = match Question::read(options) {
            Ok(question) => question,
            Err(why) => return Answer::refused(why).into(),
        };
        // Numbers of an engine that ran before mean nothing here.
        let since = if question.since > self.last { 0 } else { question.since };
        if !question.follow || since < self.last {
            return self.answer(since).into();
        }
        if self.followers.len() >= MOST_FOLLOWERS {
            return Answer::refused("too many wait for events already; ask without `follow`").into();
        }
        self.followers.push(Follower { client, since, until: now + HOLD });
        Reply::Later
    }

    /// When [`Events::turn`] must be called at the latest, besides after [`Events::note`].
    pub fn next_deadline(&self) -> Option<Instant> {
        self.followers.iter().map(|follower| follower.until).min()
    }

    /// Answers those who have waited long enough, or for whom there is something. `waits` tells whether a client is there still.
    pub fn turn(&mut self, now: Instant, waits: impl Fn(ClientId) -> bool, mut answer: impl FnMut(ClientId, Answer)) {
        let followers = std::mem::take(&mut self.followers);
        for follower in followers.into_iter().filter(|follower| waits(follower.client)) {
            if follower.since < self.last || now >= follower.until {
                answer(follower.client, self.answer(follower.since));
            } else {
                self.followers.push(follower);
            }
        }
    }

    fn answer(&self, since: u64) -> Answer {
        Answer::Done(json!(self.page(since)))
    }

    fn page(&self, since: u64) -> Page {
        let first = self.kept.front().map_or(self.last, |event| event.number - 1);
        let skip = usize::try_from(since.saturating_sub(first)).unwrap_or(usize::MAX);
        let events: Vec<Event> = self.kept.iter().skip(skip).take(PAGE).cloned().collect();
        let next = events.last().map_or(since, |event| event.number);
        Page { events, next, more: next < self.last, lost: first.saturating_sub(since) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::model::{PortRange, Protocol, ServerKey, ServiceKey};

    fn change(what: What, words: &str) -> Change {
        let service = ServiceKey {
            address: IpAddr::from([192, 0, 2, 10]),
            protocol: Protocol::Tcp,
            ports: PortRange::single(80),
        };
        let whole = matches!(what, What::QuorumFound | What::QuorumLost);
        let server = ServerKey { service, address: IpAddr::from([10, 0, 0, 11]), port: None };
        Change {
            service,
            name: "web".to_owned(),
            server: (!whole).then_some(server),
            what,
            words: words.to_owned(),
            usable: None,
            at: Duration::from_millis(1_763_784_936_123),
            before: None,
        }
    }

    fn page(events: &mut Events, since: u64) -> Page {
        let mut options = Map::new();
        options.insert("since".to_owned(), json!(since));
        match events.begin(ClientId(1), &options, Instant::now()) {
            Reply::Now(Answer::Done(page)) => serde_json::from_value(page).expect("a page"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sentences() {
        let before = Some(("up", Duration::from_secs(2 * 3600 + 3 * 60 + 7)));
        let down = Change { before, ..change(What::Down, "connection refused (3 of 3 failed)") };
        let rows = [
            (down, "server 10.0.0.11:80 of web is DOWN: connection refused (3 of 3 failed), was up 2 h 3 min"),
            (change(What::Up, ""), "server 10.0.0.11:80 of web is UP"),
            (
                change(What::Weight(3), "the script says 3"),
                "server 10.0.0.11:80 of web has weight 3: the script says 3",
            ),
            (change(What::Drained, ""), "server 10.0.0.11:80 of web has drained"),
            (change(What::Maintenance, "by hand"), "server 10.0.0.11:80 of web is in MAINT: by hand"),
            (
                change(What::QuorumLost, "weight 3 is left, quorum 4"),
                "service web is without its quorum: weight 3 is left, quorum 4",
            ),
            (change(What::SorryIn, ""), "service web: its sorry server 10.0.0.11:80 serves"),
        ];
        for (change, expected) in rows {
            assert_eq!(sentence(&change), expected);
        }
    }

    #[test]
    fn events_are_paged_and_the_oldest_are_forgotten() {
        let mut events = Events::default();
        assert_eq!(page(&mut events, 0), Page::default());
        let down = change(What::Down, "connection refused");
        events.note(&vec![down; 3]);
        let first = page(&mut events, 1);
        assert_eq!(first.events.iter().map(|event| event.number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((first.next, first.more, first.lost), (3, false, 0));
        let event = &first.events[0];
        assert_eq!(
            (event.at_ms, event.what.as_str(), event.server.as_deref()),
            (1_763_784_936_123, "down", Some("10.0.0.11:80"))
        );
        events.note(&vec![change(What::Up, ""); KEPT]);
        let (mut since, mut seen) = (1, 0);
        let mut lost = Vec::new();
        loop {
            let page = page(&mut events, since);
            assert!(page.events.len() <= PAGE);
            seen += page.events.len();
            lost.push(page.lost);
            since = page.next;
            if !page.more {
                break;
            }
        }
        assert_eq!((seen, since, lost[0], lost[1]), (KEPT, KEPT as u64 + 3, 2, 0));
        // Numbers of an engine that is gone.
        assert_eq!(page(&mut events, 1_000_000).events[0].number, 4);
        // A fuzzer's kind of question.
        for options in [json!({"since": -1}), json!({"since": "x"}), json!({"follow": 7}), json!({"sinc": 1})] {
            let Value::Object(options) = options else { panic!("an object") };
            let reply = events.begin(ClientId(1), &options, Instant::now());
            assert!(
                matches!(&reply, Reply::Now(Answer::Refused { error, .. }) if error.contains("events")),
                "{reply:?}"
            );
        }
    }

    #[test]
    fn who_follows_is_answered_when_something_happens_or_after_a_while() {
        let mut events = Events::default();
        let now = Instant::now();
        let Value::Object(options) = json!({"follow": true}) else { panic!("an object") };
        for client in 1..=3 {
            assert_eq!(events.begin(ClientId(client), &options, now), Reply::Later);
        }
        let mut answered = Vec::new();
        let mut turn = |events: &mut Events, now| {
            events.turn(now, |client| client != ClientId(2), |client, answer| answered.push((client.0, answer)));
            std::mem::take(&mut answered)
        };
        assert_eq!(turn(&mut events, now), []);
        assert_eq!(events.next_deadline(), Some(now + HOLD));
        events.note(&[change(What::Down, "")]);
        let told = turn(&mut events, now);
        // The second one went away.
        assert_eq!(told.iter().map(|(client, _)| *client).collect::<Vec<_>>(), [1, 3]);
        assert!(told.iter().all(|(_, answer)| matches!(answer, Answer::Done(page) if page["next"] == 1)), "{told:?}");
        assert_eq!(events.next_deadline(), None);
        // What is there already is told at once; what is not, after a while: nothing.
        assert!(matches!(events.begin(ClientId(4), &options, now), Reply::Now(_)));
        let Value::Object(options) = json!({"follow": true, "since": 1}) else { panic!("an object") };
        assert_eq!(events.begin(ClientId(5), &options, now), Reply::Later);
        assert_eq!(turn(&mut events, now + HOLD - Duration::from_millis(1)), []);
        let told = turn(&mut events, now + HOLD);
        assert_eq!(told, [(5, Answer::Done(json!(Page { next: 1, ..Page::default() })))]);
        for client in 10..10 + MOST_FOLLOWERS {
            assert_eq!(events.begin(ClientId(client), &options, now), Reply::Later);
        }
        assert!(matches!(events.begin(ClientId(9), &options, now), Reply::Now(Answer::Refused { .. })));
    }
}
