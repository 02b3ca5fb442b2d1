//! Captures of the running engine: the engine's side of `evenkeel capture`.
//!
//! Owns the captures in force, for whom, and how long. A client begins one and then asks for page after page; one that does
//! not ask any more has its capture ended. All is bounded: captures at a time, frames, bytes, seconds, the copies that wait.
//! Never waits for a worker: what a worker may still hold is kept until it let go.

mod base64;
pub mod client;
pub mod file;
mod options;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::socket::Answer;
use super::socket::server::{ClientId, Reply};
use crate::dataplane::capture::{Capture, Captures, Caught};
use crate::dataplane::worker::Shared;
use crate::model::{Desired, ServiceKey};
use options::{Asked, Wish};
pub use options::{OPTIONS, service};

/// Most captures at a time.
pub const MOST_CAPTURES: usize = 4;

/// How long a capture waits to be asked for before it ends.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long a request for a page waits for a frame before it is answered without one.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is seen whether there are frames for a page.
const FETCH: Duration = Duration::from_millis(10);

/// Most copies in one answer, and most bytes of them: putting more into words would hold up the control loop.
const PAGE: usize = 1000;
const PAGE_BYTES: u64 = 512 << 10;

/// How long a capture that ended waits for what workers have in hand: a batch takes a fraction of it.
const GRACE: Duration = Duration::from_millis(50);

/// A frame on the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRow {
    /// When its batch was received: nanoseconds since 1970.
    pub time: u64,
    /// Number of its interface in the answer to `start`.
    pub interface: u8,
    /// Whether this is the frame as it leaves, by that interface.
    pub leaves: bool,
    /// The worker that decided about it.
    pub worker: usize,
    /// What became of it: tx, reply, pass, drop or kept.
    pub verdict: String,
    /// Why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The service that it was for, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Whether it opened a flow.
    pub new_flow: bool,
    /// Bytes of the whole frame.
    pub length: u32,
    /// Its first bytes, in Base64.
    pub data: String,
}

/// An answer to `next` and `stop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Copies, in the order of their times.
    pub frames: Vec<FrameRow>,
    /// Frames that were wanted and went uncopied so far, as nobody took the others away fast enough.
    pub missed: u64,
    /// Why the capture has ended: count, bytes, seconds or stopped. There is nothing to ask for any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A capture in force.
#[derive(Debug)]
struct Open {
    number: u64,
    capture: Arc<Capture>,
    wish: Wish,
    began: Instant,
    /// When it was asked for last.
    asked: Instant,
    /// Who waits for a page, and since when.
    waiting: Option<(ClientId, Instant)>,
    /// Bytes that are still to be handed over.
    bytes_left: u64,
    /// Why it is over, and since when: no worker copies for it any more.
    ended: Option<(&'static str, Instant)>,
    /// Whose copies are taken first next time.
    turn: usize,
}

/// All captures.
#[derive(Debug, Default)]
pub struct Catching {
    open: Vec<Open>,
    /// What workers may still look at.
    let_go: Vec<Arc<Captures>>,
    in_force: Arc<Captures>,
    begun: u64,
}

impl Catching {
    /// Takes a request.
    pub fn begin(
        &mut self,
        client: ClientId,
        given: &Map<String, Value>,
        shared: &Shared,
        desired: &Desired,
        now: Instant,
    ) -> Reply {
        match Asked::parse(given, desired) {
            Err(error) => Answer::refused(error).into(),
            Ok(Asked::Start(wish)) => self.start(wish, shared, desired, now).into(),
            Ok(Asked::Next(number)) => match self.open.iter_mut().find(|open| open.number == number) {
                Some(open) if open.waiting.is_some() => {
                    Answer::refused(format!("somebody else waits for capture {number}")).into()
                }
                Some(open) => {
                    (open.waiting, open.asked) = (Some((client, now)), now);
                    Reply::Later
                }
                None => gone(number).into(),
            },
            Ok(Asked::Stop(number)) => match self.open.iter_mut().find(|open| open.number == number) {
                Some(open) => {
                    open.ended.get_or_insert(("stopped", now));
                    open.asked = now;
                    self.lay_out(shared);
                    Answer::Done(json!({ "capture": number })).into()
                }
                None => gone(number).into(),
            },
        }
    }

    fn start(&mut self, wish: Wish, shared: &Shared, desired: &Desired, now: Instant) -> Answer {
        if self.open.len() >= MOST_CAPTURES {
            return Answer::refused(format!(
                "{MOST_CAPTURES} captures at a time are the most; one ends {} s after nobody asked for it any more",
                LEASE.as_secs()
            ));
        }
        self.begun += 1;
        let workers = shared.desks().len();
        let capture = Arc::new(Capture::new(wish.wanted, wish.count, wish.snaplen, wish.both, workers));
        self.open.push(Open {
            number: self.begun,
            capture,
            wish,
            began: now,
            asked: now,
            waiting: None,
            bytes_left: wish.bytes,
            ended: None,
            turn: 0,
        });
        self.lay_out(shared);
        let interfaces: Vec<&str> = desired.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        Answer::Done(json!({
            "capture": self.begun,
            "interfaces": interfaces,
            "snaplen": wish.snaplen,
            "count": wish.count,
            "bytes": wish.bytes,
            "seconds": wish.lasts.as_secs(),
        }))
    }

    /// Lays the captures that go on before the workers.
    fn lay_out(&mut self, shared: &Shared) {
        let on = self.open.iter().filter(|open| open.ended.is_none());
        self.in_force = Arc::new(Captures::new(on.map(|open| Arc::clone(&open.capture)).collect()));
        let before = shared.taps().set(Arc::clone(&self.in_force));
        self.let_go.push(before);
    }

    /// When [`Catching::turn`] must be called at the latest.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let of_one = |open: &Open| match (&open.waiting, open.ended) {
            (Some(_), _) => now + FETCH,
            (None, Some(_)) => open.asked + LEASE,
            (None, None) => (open.asked + LEASE).min(open.began + open.wish.lasts),
        };
        let let_go = (!self.let_go.is_empty()).then_some(now + FETCH);
        self.open.iter().map(of_one).chain(let_go).min()
    }

    /// Ends what is over and answers who has waited long enough. `waits` tells whether a client is still there; `answer` gets
    /// what is complete.
    pub fn turn(
        &mut self,
        shared: &Shared,
        desired: &Desired,
        now: Instant,
        waits: impl Fn(ClientId) -> bool,
        mut answer: impl FnMut(ClientId, Answer),
    ) {
        // Nobody gets at them any more, so the memory is given back here and not by a worker.
        self.let_go.retain(|captures| Arc::strong_count(captures) > 1);
        if self.open.is_empty() {
            return;
        }
        let going = |open: &[Open]| open.iter().filter(|open| open.ended.is_none()).count();
        let before = (self.open.len(), going(&self.open));
        self.open.retain(|open| match open.waiting {
            Some((client, _)) => waits(client),
            None => now < open.asked + LEASE,
        });
        for open in &mut self.open {
            if open.ended.is_none() && open.capture.is_full() {
                open.ended = Some(("count", now));
            } else if open.ended.is_none() && now >= open.began + open.wish.lasts {
                open.ended = Some(("seconds", now));
            }
        }
        for open in &mut self.open {
            let Some((client, since)) = open.waiting else { continue };
            let settled = open.ended.is_some_and(|(_, since)| now >= since + GRACE);
            if open.capture.is_empty() && !settled && now < since + PATIENCE {
                continue;
            }
            let page = open.page(shared, desired, now, settled);
            (open.waiting, open.asked) = (None, now);
            let over = page.ended.is_some();
            answer(client, Answer::Done(json!(page)));
            if over {
                // Forgotten below: nobody can ask for it any more.
                open.asked = now - LEASE;
            }
        }
        self.open.retain(|open| open.waiting.is_some() || now < open.asked + LEASE);
        if (self.open.len(), going(&self.open)) != before {
            self.lay_out(shared);
        }
    }
}

impl Open {
    /// The copies that wait. `settled`: no more will come, and the last page says so.
    fn page(&mut self, shared: &Shared, desired: &Desired, now: Instant, settled: bool) -> Page {
        let start = start_of(shared, now);
        let workers = shared.desks().len();
        let mut taken: Vec<(u64, usize, u64, FrameRow)> = Vec::new();
        let (mut bytes, mut looked_at) = (0, 0);
        'page: while !self.capture.is_empty() {
            for step in 0..workers {
                let worker = (self.turn + step) % workers;
                if looked_at >= PAGE || bytes >= PAGE_BYTES {
                    self.turn = worker;
                    break 'page;
                }
                let Some(caught) = self.capture.take(worker) else { continue };
                looked_at += 1;
                let length = caught.bytes.len() as u64;
                if let Some(left) = self.bytes_left.checked_sub(length) {
                    (self.bytes_left, bytes) = (left, bytes + length);
                    taken.push((caught.time, worker, caught.number, row(&caught, worker, start, desired)));
                } else {
                    self.bytes_left = 0;
                    if !matches!(self.ended, Some(("bytes", _))) {
                        self.ended = Some(("bytes", now));
                    }
                }
                self.capture.give_back(worker, caught);
            }
        }
        taken.sort_unstable_by_key(|(time, worker, number, _)| (*time, *worker, *number));
        let over = settled && self.capture.is_empty();
        Page {
            frames: taken.into_iter().map(|(.., row)| row).collect(),
            missed: self.capture.missed(),
            ended: self.ended.filter(|_| over).map(|(why, _)| why.to_owned()),
        }
    }
}

fn gone(number: u64) -> Answer {
    Answer::refused(format!(
        "there is no capture {number}: it has ended, or nobody asked for it for {} s",
        LEASE.as_secs()
    ))
}

/// When the workers' clock began, in nanoseconds since 1970.
fn start_of(shared: &Shared, now: Instant) -> u64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (wall.as_nanos() as u64).saturating_sub(shared.nanoseconds(now))
}

fn row(caught: &Caught, worker: usize, start: u64, desired: &Desired) -> FrameRow {
    let about = &caught.about;
    let name = |key: ServiceKey| {
        let known = desired.services.iter().find(|service| service.key == key);
        known.map_or_else(|| key.to_string(), |service| service.name.clone())
    };
    FrameRow {
        time: start + caught.time,
        interface: caught.port,
        leaves: caught.leaves,
        worker,
        verdict: about.decision.name().to_owned(),
        reason: about.reason.map(|reason| reason.name().to_owned()),
        service: about.service.map(name),
        server: about.server.map(|(address, port)| match port {
            0 => address.to_string(),
            port => std::net::SocketAddr::new(address, port).to_string(),
        }),
        new_flow: about.new_flow,
        length: caught.length,
        data: base64::encode(&caught.bytes),
    }
}

#[cfg(test)]
mod tests;
