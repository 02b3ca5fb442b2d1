//! The loop of the thread `health`.
//!
//! Owns the poll, the attempts that run and the order of a turn: what has come in is read before anybody's time is judged, and
//! when this thread was kept from running, attempts get that time back. Never waits for anything but the poll.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TryRecvError, unbounded};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustls::ClientConfig;

use super::check::Running;
use super::{Event, Guard, Wanted, Wiring};
use crate::health::dialogue;
use crate::health::probe::datagram::Datagram;
use crate::health::probe::raw::{self, Raw, Which};
use crate::health::probe::stream::{Security, Stream};
use crate::health::probe::tls::Trust;
use crate::health::probe::{Ground, Step, Way, words};
use crate::health::runner::{Answer, Job, Runner};
use crate::health::schedule::{Due, End, Random, Schedule};
use crate::health::{CheckId, Outcome};
use crate::model::{Check, CheckKind, TlsCheck};

const WAKE: Token = Token(0);
const EGRESS: Token = Token(1);
const RAW: usize = 2;
/// Tokens of attempts are from here on, and never used twice.
const ATTEMPTS: usize = RAW + Which::ALL.len();

/// Events that are taken from the poll at a time.
const EVENTS: usize = 1024;
/// Most rounds of them before deadlines are judged.
const ROUNDS: usize = 16;
/// Most attempts that begin in a turn: what comes in meanwhile is read then.
const STARTS: usize = 256;
/// Longest sleep while an attempt runs: how well it is known that this thread was kept from running.
const NAP: Duration = Duration::from_millis(100);
/// To be kept from running for less is usual.
const STALL: Duration = Duration::from_millis(20);
/// How soon a check looks again for what it trusts, which is being read.
const SOON: Duration = Duration::from_millis(20);
/// What one read takes at most.
const BUFFER: usize = 64 << 10;

/// An attempt on its way.
enum Attempt {
    Stream(Box<Stream>),
    Datagram(Box<Datagram>),
    Ping,
    HalfOpen,
    /// On the other thread.
    Job,
}

/// What is known of authorities.
enum Known {
    /// They are being read; what was known before still holds.
    Asked(Option<Arc<ClientConfig>>),
    Ready(Arc<ClientConfig>),
    Failed(String),
}

/// How an attempt begins, or why not.
enum Begun {
    Runs(Attempt),
    /// What it trusts is not read yet.
    Later,
    Over(Outcome),
}

/// The thread's state.
pub(super) struct Turn {
    poll: Poll,
    epoch: Instant,
    inbox: Receiver<Vec<Wanted>>,
    answers: Receiver<Answer>,
    out: Sender<Event>,
    wake: Arc<dyn Fn() + Send + Sync>,
    latest: Arc<AtomicU64>,
    turns: Arc<AtomicU64>,
    schedule: Schedule,
    checks: HashMap<CheckId, Running>,
    attempts: HashMap<usize, (CheckId, Attempt)>,
    next: usize,
    /// Attempts, and raw sockets, that have more to read.
    again: Vec<Token>,
    raw: Raw,
    way: Way,
    trusts: HashMap<Trust, Known>,
    runner: Runner,
    random: Random,
    buffer: Vec<u8>,
    /// Whether events were sent in this turn.
    told: bool,
}

impl Turn {
    pub fn new(
        wiring: Wiring,
        inbox: Receiver<Vec<Wanted>>,
        out: Sender<Event>,
        latest: Arc<AtomicU64>,
        turns: Arc<AtomicU64>,
        guard: Guard,
    ) -> io::Result<(Turn, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (tell, answers) = unbounded();
        let back = Arc::clone(&waker);
        let told = move |answer| {
            // Nobody there: the other thread is ending.
            let _ = tell.send(answer);
            let _ = back.wake();
        };
        let runner = Runner::start(told, guard)?;
        // The system's random numbers, by way of the keys of its hash maps.
        let seed = || RandomState::new().hash_one(0);
        let turn = Turn {
            poll,
            epoch: Instant::now(),
            inbox,
            answers,
            out,
            wake: wiring.wake,
            latest,
            turns,
            schedule: Schedule::new(Random::new(seed())),
            checks: HashMap::new(),
            attempts: HashMap::new(),
            next: ATTEMPTS,
            again: Vec::new(),
            raw: Raw::new(RAW),
            way: Way::new(wiring.egress),
            trusts: HashMap::new(),
            runner,
            random: Random::new(seed()),
            buffer: vec![0; BUFFER],
            told: false,
        };
        Ok((turn, waker))
    }

    /// Runs until nobody is there to give it a plan.
    pub fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut busy_since = self.now();
        loop {
            let slept = self.now();
            let sleep = self.sleep(slept);
            let polled = self.poll.poll(&mut events, sleep);
            // What is readable now has been told by the poll: nothing is judged that became due later.
            let judged = self.now();
            let overslept = sleep.map_or(Duration::ZERO, |sleep| judged.saturating_sub(slept + sleep));
            self.give_back(slept.saturating_sub(busy_since));
            self.give_back(overslept);
            busy_since = judged;
            match polled {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // It cannot go on; whoever holds the checker sees that it has ended.
                Err(_) => return,
            }
            self.turns.fetch_add(1, Ordering::Relaxed);
            self.read(&mut events);
            if !self.take_plans() {
                return;
            }
            self.take_answers();
            let now = self.now();
            self.raw.resend(now);
            self.do_what_is_due(judged);
            self.latest.fetch_max(self.schedule.latest().as_nanos() as u64, Ordering::Relaxed);
            if std::mem::take(&mut self.told) {
                (self.wake)();
            }
        }
    }

    /// Since the thread began.
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn sleep(&self, now: Duration) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.schedule.next().into_iter().chain(self.raw.next()).min();
        let until = next.map(|next| next.saturating_sub(now));
        if self.attempts.is_empty() { until } else { Some(until.map_or(NAP, |until| until.min(NAP))) }
    }

    /// It was kept from running: by the system, or by too much to do.
    fn give_back(&mut self, time: Duration) {
        if time >= STALL && !self.attempts.is_empty() {
            self.schedule.give_back(time);
        }
    }

    /// Reads all that has come in.
    fn read(&mut self, events: &mut Events) {
        for token in std::mem::take(&mut self.again) {
            self.ready(token);
        }
        for _ in 0..ROUNDS {
            let tokens: Vec<Token> = events.iter().map(|event| event.token()).collect();
            for token in &tokens {
                self.ready(*token);
            }
            if tokens.len() < EVENTS || self.poll.poll(events, Some(Duration::ZERO)).is_err() {
                return;
            }
        }
    }

    fn ready(&mut self, token: Token) {
        match token {
            WAKE => {}
            EGRESS => self.way.turn(),
            Token(number @ RAW..ATTEMPTS) => {
                let mut over = Vec::new();
                let more = self.raw.ready(Which::ALL[number - RAW], &mut self.buffer, &mut over);
                if more {
                    self.again.push(token);
                }
                for (key, outcome) in over {
                    self.finish(key, outcome);
                }
            }
            Token(key) => {
                let Some((_, attempt)) = self.attempts.get_mut(&key) else { return };
                let mut ground =
                    Ground { registry: self.poll.registry(), way: &mut self.way, buffer: &mut self.buffer };
                let step = match attempt {
                    Attempt::Stream(stream) => stream.ready(&mut ground),
                    Attempt::Datagram(datagram) => datagram.ready(&mut ground),
                    Attempt::Ping | Attempt::HalfOpen | Attempt::Job => Step::Wait,
                };
                match step {
                    Step::Wait => {}
                    Step::Again => self.again.push(token),
                    Step::Done(outcome) => self.finish(key, outcome),
                }
            }
        }
    }

    /// Whether somebody is still there.
    fn take_plans(&mut self) -> bool {
        let mut newest = None;
        loop {
            match self.inbox.try_recv() {
                Ok(plan) => newest = Some(plan),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        if let Some(plan) = newest {
            self.take_plan(plan);
        }
        true
    }

    fn take_plan(&mut self, plan: Vec<Wanted>) {
        let wanted: HashSet<CheckId> = plan.iter().map(|wanted| wanted.id).collect();
        let gone: Vec<CheckId> = self.checks.keys().filter(|id| !wanted.contains(*id)).copied().collect();
        for id in gone {
            self.forget(id);
        }
        let trusted: HashSet<Trust> = plan.iter().filter_map(|wanted| tls_of(&wanted.check)).map(Trust::of).collect();
        self.trusts.retain(|trust, _| trusted.contains(trust));
        for trust in trusted {
            // Read anew at each reload: the file may have changed.
            self.ask_for(trust);
        }
        let now = self.now();
        for wanted in plan {
            match self.checks.get(&wanted.id) {
                Some(check) if check.writes_to(&wanted.record) => continue,
                // It was left out of a plan between this one and the last, and is another one now.
                Some(_) => self.forget(wanted.id),
                None => {}
            }
            self.schedule.add(wanted.id, &wanted.check.pace, !is_job(&wanted.check), now);
            self.checks.insert(wanted.id, Running::new(wanted));
        }
    }

    fn ask_for(&mut self, trust: Trust) {
        let before = match self.trusts.remove(&trust) {
            Some(Known::Ready(config) | Known::Asked(Some(config))) => Some(config),
            _ => None,
        };
        self.trusts.insert(trust.clone(), Known::Asked(before));
        self.runner.ask(Job::Read(trust));
    }

    fn forget(&mut self, id: CheckId) {
        self.schedule.remove(id);
        if let Some(check) = self.checks.remove(&id)
            && let Some(key) = check.attempt
        {
            self.close(key);
            if is_job(&check.check) {
                self.runner.ask(Job::Cancel(id));
            }
        }
    }

    fn take_answers(&mut self) {
        while let Ok(answer) = self.answers.try_recv() {
            match answer {
                Answer::Ran(id, outcome, took) => {
                    let now = self.now();
                    let Some(check) = self.checks.get_mut(&id) else { continue };
                    let Some(key) = check.attempt else { continue };
                    check.begun = now.saturating_sub(took);
                    self.finish(key, outcome);
                }
                Answer::Trusts(trust, read) => {
                    let Some(known) = self.trusts.get_mut(&trust) else { continue };
                    *known = match (read, &known) {
                        (Ok(config), _) => Known::Ready(config),
                        // Rather those of before than none.
                        (Err(_), Known::Asked(Some(before))) => Known::Ready(Arc::clone(before)),
                        (Err(error), _) => Known::Failed(error),
                    };
                }
            }
        }
    }

    fn do_what_is_due(&mut self, judged: Duration) {
        let mut starts = 0;
        while starts < STARTS {
            match self.schedule.pop(judged, self.now()) {
                Some(Due::Start(id)) => {
                    starts += 1;
                    self.start(id);
                }
                Some(Due::Deadline(id)) => self.expire(id),
                None => return,
            }
        }
    }

    fn expire(&mut self, id: CheckId) {
        let Some(check) = self.checks.get(&id) else { return };
        let Some(key) = check.attempt else { return };
        let time = check.check.pace.timeout;
        let outcome = match self.attempts.get(&key) {
            Some((_, Attempt::Stream(stream))) => stream.expired(),
            Some((_, Attempt::Datagram(datagram))) => datagram.expired(),
            Some((_, attempt)) => raw::expired(matches!(attempt, Attempt::HalfOpen), time),
            None => return,
        };
        self.finish(key, outcome);
    }

    fn start(&mut self, id: CheckId) {
        let now = self.now();
        let Some(check) = self.checks.get(&id).map(|check| Arc::clone(&check.check)) else { return };
        let key = self.next;
        self.next += 1;
        match self.begin(id, key, &check, now) {
            Begun::Runs(attempt) => {
                self.attempts.insert(key, (id, attempt));
                if let Some(check) = self.checks.get_mut(&id) {
                    (check.attempt, check.begun) = (Some(key), now);
                }
            }
            Begun::Later => self.schedule.put_off(id, now + SOON),
            Begun::Over(outcome) => {
                if let Some(check) = self.checks.get_mut(&id) {
                    check.begun = now;
                }
                self.over(id, outcome);
            }
        }
    }

    fn begin(&mut self, id: CheckId, key: usize, check: &Arc<Check>, now: Duration) -> Begun {
        if is_job(check) {
            self.runner.ask(Job::Run(id, Arc::clone(check)));
            return Begun::Runs(Attempt::Job);
        }
        if check.target.through.is_some()
            && let Some(descriptor) = self.way.open(now)
            && let Err(error) = self.poll.registry().register(&mut SourceFd(&descriptor), EGRESS, Interest::READABLE)
        {
            return Begun::Over(words::unable("poll the way to servers", &error));
        }
        let security = match tls_of(check).map(|tls| self.security(tls)) {
            None => None,
            Some(Ok(Some(security))) => Some(security),
            Some(Ok(None)) => return Begun::Later,
            Some(Err(words)) => return Begun::Over(Outcome::Unable(words)),
        };
        let mut ground = Ground { registry: self.poll.registry(), way: &mut self.way, buffer: &mut self.buffer };
        let begun = match &check.kind {
            CheckKind::Ping => {
                self.raw.ping(key, &check.target, &mut self.random, ground.registry).map(|()| Attempt::Ping)
            }
            CheckKind::HalfOpen => self
                .raw
                .half_open(key, &check.target, now, &mut self.random, ground.registry)
                .map(|()| Attempt::HalfOpen),
            _ => {
                let random = self.random.number();
                match dialogue::exchange(check, random) {
                    Some(exchange) => Datagram::start(Arc::clone(check), exchange, Token(key), &mut ground)
                        .map(|datagram| Attempt::Datagram(Box::new(datagram))),
                    None => {
                        let dialogue = dialogue::dialogue(check, random);
                        Stream::start(Arc::clone(check), dialogue, security, Token(key), &mut ground)
                            .map(|stream| Attempt::Stream(Box::new(stream)))
                    }
                }
            }
        };
        begun.map_or_else(Begun::Over, Begun::Runs)
    }

    /// What TLS of that check trusts; `None` while it is being read.
    fn security(&mut self, wanted: &TlsCheck) -> Result<Option<Security>, String> {
        let trust = Trust::of(wanted);
        match self.trusts.get(&trust) {
            Some(Known::Ready(config) | Known::Asked(Some(config))) => {
                Ok(Some(Security { wanted: wanted.clone(), config: Arc::clone(config) }))
            }
            Some(Known::Asked(None)) => Ok(None),
            Some(Known::Failed(error)) => {
                let error = error.clone();
                // It may have been mended by the next run.
                self.ask_for(trust);
                Err(error)
            }
            None => {
                self.ask_for(trust);
                Ok(None)
            }
        }
    }

    /// Closes what an attempt holds. Whether the server answered anything.
    fn close(&mut self, key: usize) -> bool {
        let Some((_, attempt)) = self.attempts.remove(&key) else { return false };
        let mut ground = Ground { registry: self.poll.registry(), way: &mut self.way, buffer: &mut self.buffer };
        match attempt {
            Attempt::Stream(stream) => {
                let reached = stream.reached();
                stream.end(&mut ground);
                reached
            }
            Attempt::Datagram(datagram) => {
                let reached = datagram.reached();
                datagram.end(&mut ground);
                reached
            }
            Attempt::Ping | Attempt::HalfOpen => {
                self.raw.forget(key);
                false
            }
            Attempt::Job => false,
        }
    }

    /// An attempt is over.
    fn finish(&mut self, key: usize, outcome: Outcome) {
        let Some(id) = self.attempts.get(&key).map(|(id, _)| *id) else { return };
        let reached = self.close(key);
        let Some(check) = self.checks.get_mut(&id) else { return };
        check.attempt = None;
        let target = &check.check.target;
        let outcome = match (outcome, &target.through) {
            (Outcome::Bad(failure), Some(through)) if !reached => {
                Outcome::Bad(words::through(failure, target, through))
            }
            (outcome, _) => outcome,
        };
        self.over(id, outcome);
    }

    fn over(&mut self, id: CheckId, outcome: Outcome) {
        let now = self.now();
        let end = if matches!(outcome, Outcome::Bad(_)) { End::Failed } else { End::Final };
        if !self.schedule.over(id, end, now) {
            return;
        }
        let Some(check) = self.checks.get_mut(&id) else { return };
        let took = now.saturating_sub(check.begun);
        if let Some(event) = check.take(outcome, took) {
            // Nobody there: the thread is about to end.
            let _ = self.out.send(event);
            self.told = true;
        }
    }
}

/// Whether it is done by the other thread.
fn is_job(check: &Check) -> bool {
    matches!(check.kind, CheckKind::Script(_) | CheckKind::File(_))
}

fn tls_of(check: &Check) -> Option<&TlsCheck> {
    match &check.kind {
        CheckKind::Http(http) => http.tls.as_ref(),
        CheckKind::Grpc(grpc) => grpc.tls.as_ref(),
        _ => None,
    }
}
