//! One server of a service: what is known of it, and how it stands. Pure.
//!
//! Owns damping and slow start. Never looks at other servers: the service's part is [`super`]'s.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::passive::Watched;
use super::{Seen, words};
use crate::control::counted;
use crate::control::health::{Admin, ServerState, Standing, What};
use crate::control::nexthop::{Reach, Reason};
use crate::health::CheckId;
use crate::model::{Damping, FirstState, Health, OnFailure, Server, ServerKey, Weigh};

/// Parts of the full weight while a server ramps up.
pub const STEPS: u32 = 10;

/// What is known of one server.
#[derive(Clone, Debug)]
pub struct Ward {
    /// Who it is.
    pub key: ServerKey,
    /// Its checks, and what each is taken for before its first result.
    pub checks: Vec<(CheckId, FirstState)>,
    weight: u16,
    on_failure: OnFailure,
    drain: bool,
    drain_path: Option<std::path::PathBuf>,
    admin: Admin,
    drain_file: bool,
    /// Why it cannot be reached, if so; `None`: nobody knows yet.
    reach: Option<Result<(), Reason>>,
    failures: VecDeque<Duration>,
    held: Option<Duration>,
    /// Passive checks.
    pub watched: Watched,
    /// When it began to ramp up.
    ramp: Option<Duration>,
    /// Whether checks and reachability were good at the last judgement.
    good: bool,
    /// How it is.
    pub state: ServerState,
    /// Why.
    pub words: String,
    /// The weight that the configuration and the checks give it.
    pub wanted: u16,
    /// Whether it counts: for the quorum, and as one that can serve.
    pub usable: bool,
    /// Since when it is in this state.
    pub since: Duration,
    /// What was told of it last.
    told: Told,
}

/// What was told of a server last.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    state: Option<(ServerState, Duration)>,
    weight: u16,
    usable: Option<bool>,
}

/// Something to tell of a server.
pub struct News {
    /// What.
    pub what: What,
    /// As in [`crate::control::health::Change::usable`].
    pub usable: Option<bool>,
    /// As in [`crate::control::health::Change::before`].
    pub before: Option<(&'static str, Duration)>,
}

impl Ward {
    /// A server that nothing is known of.
    pub fn new(key: ServerKey, now: Duration) -> Ward {
        Ward {
            key,
            checks: Vec::new(),
            weight: 0,
            on_failure: OnFailure::Remove,
            drain: false,
            drain_path: None,
            admin: Admin::Ready,
            drain_file: false,
            reach: None,
            failures: VecDeque::new(),
            held: None,
            watched: Watched::default(),
            ramp: None,
            good: false,
            state: ServerState::Starting,
            words: String::new(),
            wanted: 0,
            usable: false,
            since: now,
            told: Told::default(),
        }
    }

    /// Takes over its configuration.
    ///
    /// A check that is new to a server that was judged before is taken for what the server was until it has a result of its
    /// own: a reload that changes a check's pace does not put a dead server back in.
    pub fn configure(&mut self, server: &Server, mut checks: Vec<(CheckId, FirstState)>) {
        let judged = !self.checks.is_empty();
        for (id, first) in &mut checks {
            match self.checks.iter().find(|(known, _)| known == id) {
                Some((_, before)) => *first = *before,
                None if judged => *first = if self.good { FirstState::Up } else { FirstState::Down },
                None => {}
            }
        }
        self.weight = server.weight;
        self.on_failure = server.health.on_failure;
        self.drain = server.drain;
        if self.drain_path != server.health.drain_file {
            self.drain_path.clone_from(&server.health.drain_file);
            self.drain_file = false;
        }
        self.checks = checks;
    }

    /// Whether and how it is reached. Whether that is news.
    pub fn set_reach(&mut self, reach: &Reach) -> bool {
        let now = match reach {
            Ok(_) | Err(Reason::Local) => Ok(()),
            // Seen for a moment only: it resolves, or fails.
            Err(Reason::Unresolved) => return false,
            Err(why) => Err(why.clone()),
        };
        let now = Some(now);
        let changed = self.reach != now;
        self.reach = now;
        changed
    }

    /// What was decided by hand. Whether that is news.
    pub fn set_admin(&mut self, admin: Admin) -> bool {
        std::mem::replace(&mut self.admin, admin) != admin
    }

    /// Whether the file by which it drains exists. Whether that is news.
    pub fn set_drain_file(&mut self, exists: bool) -> bool {
        std::mem::replace(&mut self.drain_file, exists) != exists
    }

    /// What was decided by hand.
    pub const fn admin(&self) -> Admin {
        self.admin
    }

    fn drains(&self) -> bool {
        self.admin != Admin::Maintenance && (self.drain || self.drain_file || self.admin == Admin::Drain)
    }

    /// What checks and the network say: whether it is good, whether something is not known yet, and why it is not good.
    fn evidence(&self, seen: &HashMap<CheckId, Seen>) -> (bool, bool, String) {
        if let Some(Err(why)) = &self.reach {
            return (false, false, why.to_string());
        }
        let (mut good, mut waiting, mut failing) = (self.reach.is_some(), self.reach.is_none(), Vec::new());
        for (id, first) in &self.checks {
            match seen.get(id) {
                None => {
                    waiting = true;
                    good &= *first == FirstState::Up;
                }
                Some(result) if !result.up => failing.push(result.words.as_str()),
                Some(_) => {}
            }
        }
        match failing.as_slice() {
            [] if self.reach.is_none() => (false, true, "its Ethernet address is being asked for".to_owned()),
            [] if waiting => (good, true, "its first check has not ended yet".to_owned()),
            [] => (good, false, String::new()),
            [one] => (false, false, (*one).to_owned()),
            [one, more @ ..] => (false, false, format!("{one} (and {} more)", counted(more.len() as u64, "check"))),
        }
    }

    /// Its weight by the configuration and the checks: each check's part is added, as keepalived does.
    fn weighed(&self, seen: &HashMap<CheckId, Seen>) -> u16 {
        let own = i64::from(self.weight);
        let part = |id: &CheckId| match seen.get(id)?.weigh? {
            Weigh::Set(weight) => Some(i64::from(weight) - own),
            Weigh::Add(more) => Some(i64::from(more)),
        };
        let parts: i64 = self.checks.iter().filter_map(|(id, _)| part(id)).sum();
        (own + parts).clamp(0, i64::from(u16::MAX)) as u16
    }

    /// Judges it by itself. Whether a service without others may keep it out is not known here.
    pub fn judge(&mut self, seen: &HashMap<CheckId, Seen>, health: &Health, now: Duration) {
        let (good, waiting, words) = self.evidence(seen);
        let (was_good, was) = (std::mem::replace(&mut self.good, good), self.state);
        if was_good && !good && !waiting {
            self.note_failure(health.damping, now);
        }
        if health.damping.is_none() {
            self.failures.clear();
            self.held = None;
        }
        self.held = self.held.filter(|until| now < *until);
        self.watched.until = self.watched.until.filter(|until| now < *until && health.passive.is_some());
        let decided = if self.admin == Admin::Maintenance {
            (ServerState::Maintenance, "by hand".to_owned())
        } else if !good && !waiting {
            (ServerState::Down, words)
        } else if self.held.is_some() {
            let words = health.damping.map_or(String::new(), held_words);
            (ServerState::Held, words)
        } else if self.watched.until.is_some() {
            // What it met was said when it was put out.
            (ServerState::Ejected, if was == ServerState::Ejected { self.words.clone() } else { words })
        } else if self.drains() {
            (ServerState::Draining, self.drain_words())
        } else if waiting {
            (ServerState::Starting, words)
        } else {
            (ServerState::Up, words)
        };
        self.wanted = self.weighed(seen);
        self.enter(decided, good, health, now);
    }

    fn enter(&mut self, (state, words): (ServerState, String), good: bool, health: &Health, now: Duration) {
        let was = self.state;
        if state != was {
            self.since = now;
        }
        (self.state, self.words) = (state, words);
        let usable = match state {
            ServerState::Up => true,
            ServerState::Starting => good,
            _ => false,
        };
        let returns = usable && !self.usable && was != ServerState::Starting;
        self.ramp = match health.slow_start {
            Some(lasts) if usable && !lasts.is_zero() => {
                let begun = if returns { Some(now) } else { self.ramp };
                begun.filter(|begun| now.saturating_sub(*begun) < lasts)
            }
            _ => None,
        };
        self.usable = usable;
    }

    /// It was put out by passive checks, for these words.
    pub fn ejected(&mut self, words: String, health: &Health, now: Duration) {
        self.enter((ServerState::Ejected, words), true, health, now);
    }

    /// Whether it would serve if passive checks had not put it out.
    pub fn is_only_ejected(&self) -> bool {
        self.state == ServerState::Ejected && !self.drains()
    }

    fn note_failure(&mut self, damping: Option<Damping>, now: Duration) {
        let Some(damping) = damping else { return };
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|first| now.saturating_sub(*first) > damping.window) {
            self.failures.pop_front();
        }
        // More are not needed to know.
        while self.failures.len() > usize::from(damping.failures.max(1)) {
            self.failures.pop_front();
        }
        let is_held = self.held.is_some_and(|until| now < until);
        if is_held || self.failures.len() >= usize::from(damping.failures.max(1)) {
            self.held = Some(now + damping.hold);
        }
    }

    fn drain_words(&self) -> String {
        match &self.drain_path {
            _ if self.admin == Admin::Drain => "by hand".to_owned(),
            Some(path) if self.drain_file => format!("{} exists", path.display()),
            _ => "by the configuration".to_owned(),
        }
    }

    /// The part of its weight that it has, of [`STEPS`].
    pub fn step(&self, health: &Health, now: Duration) -> u32 {
        match (self.ramp, health.slow_start) {
            (Some(begun), Some(lasts)) => {
                let (passed, lasts) = (now.saturating_sub(begun).as_nanos(), lasts.as_nanos().max(1));
                let steps = u128::from(STEPS - 1) * passed / lasts;
                1 + u32::try_from(steps).unwrap_or(STEPS).min(STEPS - 1)
            }
            _ => STEPS,
        }
    }

    /// Until when it is held or ejected.
    pub fn out_until(&self) -> Option<Duration> {
        match self.state {
            ServerState::Held => self.held,
            ServerState::Ejected => self.watched.until,
            _ => None,
        }
    }

    /// Whether it ramps up.
    pub const fn is_ramping(&self) -> bool {
        self.ramp.is_some()
    }

    /// When it must be judged again though nothing is reported.
    pub fn next_deadline(&self, health: &Health, now: Duration) -> Option<Duration> {
        let step = self.ramp.zip(health.slow_start).map(|(begun, lasts)| {
            let done = u64::from(self.step(health, now)).min(u64::from(STEPS - 1));
            let nanos = lasts.as_nanos() * u128::from(done);
            // Rounded up, or the step would be one too early.
            begun + Duration::from_nanos(nanos.div_ceil(u128::from(STEPS - 1)) as u64)
        });
        [self.held, self.watched.until, step].into_iter().flatten().min()
    }

    /// How it stands. `sorry`: the sorry server serves instead of all others; `scale`: by what the service's weights are
    /// multiplied while one ramps up.
    pub fn standing(&self, sorry: bool, scale: u32, step: u32) -> Standing {
        let full = u32::from(self.wanted) * scale;
        let weight = if self.is_ramping() { full * step / STEPS } else { full };
        let serves = Standing { weight, takes: true, failed: false, drains: self.drains() };
        let stands = match (self.state, self.on_failure) {
            (ServerState::Up, _) => serves,
            (ServerState::Starting, _) if self.usable => serves,
            (ServerState::Draining, _) => Standing { weight: 0, ..serves },
            (ServerState::Maintenance, _) => Standing { takes: false, failed: true, ..serves },
            (_, OnFailure::Inhibit) => Standing { weight: 0, ..serves },
            // What flows it has are not judged by this.
            (ServerState::Ejected | ServerState::Starting, OnFailure::Remove) => Standing { takes: false, ..serves },
            (ServerState::Down | ServerState::Held, OnFailure::Remove) => {
                Standing { takes: false, failed: true, ..serves }
            }
        };
        Standing { takes: stands.takes && !sorry, ..stands }
    }

    /// What is to be told since the last time.
    pub fn news(&mut self, now: Duration) -> Option<News> {
        let told = self.told;
        let Some((state, since)) = told.state else {
            // What it is taken for is no news, but for a fault.
            let usable = self.usable.then_some(true);
            self.told = Told { state: Some((self.state, now)), weight: self.wanted, usable };
            return (!matches!(self.state, ServerState::Up | ServerState::Starting)).then(|| self.tell(None));
        };
        if state == self.state {
            let weighs = self.state == ServerState::Up && told.weight != self.wanted;
            self.told.weight = self.wanted;
            return weighs.then(|| News { what: What::Weight(u32::from(self.wanted)), usable: None, before: None });
        }
        let mut state_told = self.state;
        if self.state == ServerState::Starting {
            match (told.usable, self.usable) {
                (Some(known), usable) if known != usable => {}
                (None, true) => {
                    self.told.usable = Some(true);
                    return None;
                }
                _ => return None,
            }
            // What it is taken for is news where it is another thing than before.
            state_told = if self.usable { ServerState::Up } else { ServerState::Down };
        }
        self.told.state = Some((state_told, now));
        self.told.weight = self.wanted;
        Some(self.tell(Some((state.word(), now.saturating_sub(since)))))
    }

    fn tell(&mut self, before: Option<(&'static str, Duration)>) -> News {
        let what = match self.state {
            ServerState::Starting if !self.usable => What::Down,
            ServerState::Up | ServerState::Starting => What::Up,
            ServerState::Down => What::Down,
            ServerState::Draining => What::Draining,
            ServerState::Maintenance => What::Maintenance,
            ServerState::Ejected => What::Ejected,
            ServerState::Held => What::Held,
        };
        let usable = (self.told.usable != Some(self.usable)).then_some(self.usable);
        self.told.usable = Some(self.usable);
        News { what, usable, before }
    }
}

fn held_words(damping: Damping) -> String {
    let (failures, window, hold) = (damping.failures, words::span(damping.window), words::span(damping.hold));
    format!("failed {failures} times within {window}: out for {hold} after the last")
}
