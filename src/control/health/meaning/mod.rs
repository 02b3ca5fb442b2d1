//! From check results, reachability, people and traffic to how each server of each service stands. Pure.
//!
//! Owns quorum, sorry server, damping, slow start and passive ejections. A server is usable when all its checks are good, it
//! is reached, and it is not ejected, held, drained or in maintenance. Never asks anybody: all it knows is handed in, and
//! time is a parameter.

pub mod passive;
mod quorum;
mod server;
pub mod words;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::checks::Checks;
use super::{Admin, Change, ServerState, Standing, What};
use crate::control::nexthop::Reach;
use crate::health::CheckId;
use crate::model::{Desired, Health, Server, ServerKey, Service, ServiceKey, Weigh};
use passive::Counts;
use quorum::{QuorumState, threshold};
use server::{STEPS, Ward};

/// One moment by two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since any fixed moment; never goes back.
    pub now: Duration,
    /// Since 1970.
    pub wall: Duration,
}

/// The last word of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it is good.
    pub up: bool,
    /// What it says about the weight.
    pub weigh: Option<Weigh>,
    /// Why, in words.
    pub words: String,
}

/// What is known of one service.
#[derive(Clone, Debug)]
struct Ruled {
    key: ServiceKey,
    name: String,
    health: Health,
    wards: Vec<Ward>,
    /// `None`: never judged.
    quorum: Option<QuorumState>,
    /// Whether the sorry server serves.
    sorry: bool,
    /// By what weights are multiplied while a server ramps up.
    scale: u32,
    /// When the window of passive checks ends.
    window: Option<Duration>,
    /// Something was handed in since it was judged.
    dirty: bool,
    next: Option<Duration>,
    /// How its servers stood when it was judged last.
    stood: Vec<Standing>,
}

/// How a server is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'m> {
    /// How it is.
    pub state: ServerState,
    /// Why; empty where there is nothing to say.
    pub words: &'m str,
    /// For how long.
    pub lasts: Duration,
    /// What was decided by hand.
    pub admin: Admin,
    /// The weight that the configuration and the checks give it.
    pub weight: u16,
    /// The percentage of it that it has, below 100 while it ramps up.
    pub percent: u8,
    /// Whether it may serve.
    pub usable: bool,
    /// Whether it does: no sorry server serves instead.
    pub serves: bool,
    /// How long it stays held or ejected at least.
    pub out_for: Option<Duration>,
}

/// How a service is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Whether it has its quorum.
    pub up: bool,
    /// The sum of the usable servers' weights.
    pub sum: u64,
    /// Whether the sorry server serves.
    pub sorry: bool,
}

/// How everything stands.
#[derive(Clone, Debug, Default)]
pub struct Meaning {
    services: Vec<Ruled>,
    /// Places of servers by what they are called.
    places: HashMap<ServerKey, (usize, usize), foldhash::fast::RandomState>,
    /// Services with a check.
    asked: HashMap<CheckId, Vec<usize>>,
    seen: HashMap<CheckId, Seen>,
}

impl Meaning {
    /// Takes over a configuration, whose checks have been given their ids. Servers that stay keep what is known of them.
    pub fn configure(&mut self, desired: &Desired, checks: &Checks, moment: Moment) {
        let mut before: HashMap<ServiceKey, Ruled> = self.services.drain(..).map(|known| (known.key, known)).collect();
        self.asked.clear();
        self.places.clear();
        for (at, service) in desired.services.iter().enumerate() {
            let old = before.remove(&service.key);
            let ruled = Ruled::carried(service, old, checks, moment);
            for (place, ward) in ruled.wards.iter().enumerate() {
                self.places.insert(ward.key, (at, place));
                for (id, _) in &ward.checks {
                    let services = self.asked.entry(*id).or_default();
                    if services.last() != Some(&at) {
                        services.push(at);
                    }
                }
            }
            self.services.push(ruled);
        }
        let asked: HashSet<CheckId> = self.asked.keys().copied().collect();
        self.seen.retain(|id, _| asked.contains(id));
    }

    /// A check has a result that is news.
    pub fn note(&mut self, id: CheckId, seen: Seen) {
        // One that nobody has any more was on its way.
        let Some(services) = self.asked.get(&id) else { return };
        services.iter().for_each(|at| self.services[*at].dirty = true);
        self.seen.insert(id, seen);
    }

    /// Which servers can be reached. `desired` is the configuration that was taken over last.
    pub fn reach(&mut self, desired: &Desired, reach: impl Fn(&Service, &Server) -> Reach) {
        for (ruled, service) in self.services.iter_mut().zip(&desired.services) {
            for (ward, server) in ruled.wards.iter_mut().zip(&service.servers) {
                ruled.dirty |= ward.set_reach(&reach(service, server));
            }
        }
    }

    /// Somebody decided about a server. `false`: there is no such server.
    pub fn set_admin(&mut self, server: &ServerKey, admin: Admin) -> bool {
        self.with(server, |ward| ward.set_admin(admin))
    }

    /// Whether the file by which a server drains exists. `false`: there is no such server.
    pub fn set_drain_file(&mut self, server: &ServerKey, exists: bool) -> bool {
        self.with(server, |ward| ward.set_drain_file(exists))
    }

    fn with(&mut self, server: &ServerKey, change: impl FnOnce(&mut Ward) -> bool) -> bool {
        let Some((at, place)) = self.places.get(server) else { return false };
        let ruled = &mut self.services[*at];
        ruled.dirty |= change(&mut ruled.wards[*place]);
        true
    }

    /// Takes what the data plane counted of the servers of services with passive checks.
    pub fn count(&mut self, counted: impl Fn(&ServerKey) -> Counts) {
        for ruled in self.services.iter_mut().filter(|ruled| ruled.health.passive.is_some()) {
            ruled.wards.iter_mut().for_each(|ward| ward.watched.count(counted(&ward.key)));
        }
    }

    /// Whether any service has passive checks.
    pub fn is_counting(&self) -> bool {
        self.services.iter().any(|ruled| ruled.health.passive.is_some())
    }

    /// Judges what changed, and what is due. What happened is appended to `changes`; whether anything stands otherwise than
    /// before.
    pub fn judge(&mut self, moment: Moment, changes: &mut Vec<Change>) -> bool {
        let mut moved = false;
        for ruled in &mut self.services {
            if ruled.dirty || ruled.next.is_some_and(|due| moment.now >= due) {
                moved |= ruled.judge(&self.seen, moment, changes);
            }
        }
        moved
    }

    /// When [`Meaning::judge`] must be called though nothing is handed in, by [`Moment::now`].
    pub fn next_deadline(&self) -> Option<Duration> {
        self.services.iter().filter_map(|ruled| ruled.next).min()
    }

    /// How a server stands; `None`: it is not known here.
    pub fn standing(&self, service: &Service, server: &Server, now: Duration) -> Option<Standing> {
        match self.places.get(&ServerKey::of(service, server)) {
            Some((at, place)) => {
                let ruled = &self.services[*at];
                let ward = &ruled.wards[*place];
                Some(ward.standing(ruled.sorry, ruled.scale, ward.step(&ruled.health, now)))
            }
            None => {
                let ruled = self.services.iter().find(|ruled| ruled.key == service.key)?;
                let serves = Standing { weight: u32::from(server.weight).max(1), takes: true, ..Standing::OUT };
                Some(if ruled.sorry { serves } else { Standing::OUT })
            }
        }
    }

    /// How a server is, for people.
    pub fn view(&self, server: &ServerKey, now: Duration) -> Option<View<'_>> {
        let (at, place) = self.places.get(server)?;
        let ruled = &self.services[*at];
        let ward = &ruled.wards[*place];
        Some(View {
            state: ward.state,
            words: &ward.words,
            lasts: now.saturating_sub(ward.since),
            admin: ward.admin(),
            weight: ward.wanted,
            percent: (ward.step(&ruled.health, now) * 100 / STEPS) as u8,
            usable: ward.usable,
            serves: ward.usable && !ruled.sorry,
            out_for: ward.out_until().map(|until| until.saturating_sub(now)),
        })
    }

    /// How a service is, for people.
    pub fn service(&self, key: &ServiceKey) -> Option<ServiceView> {
        let ruled = self.services.iter().find(|ruled| ruled.key == *key)?;
        let up = ruled.quorum.is_some_and(|quorum| quorum.up);
        Some(ServiceView { up, sum: ruled.sum(), sorry: ruled.sorry })
    }

    /// The name of a service.
    pub fn name(&self, key: &ServiceKey) -> Option<&str> {
        self.services.iter().find(|ruled| ruled.key == *key).map(|ruled| ruled.name.as_str())
    }

    /// Whether the service of this name has its quorum; `None`: there is no such service.
    pub fn is_up(&self, name: &str) -> Option<bool> {
        let ruled = self.services.iter().find(|ruled| ruled.name == name)?;
        Some(ruled.quorum.is_some_and(|quorum| quorum.up))
    }
}

impl Ruled {
    fn carried(service: &Service, old: Option<Ruled>, checks: &Checks, moment: Moment) -> Ruled {
        let (wards, quorum, sorry, window, passive) = match old {
            Some(old) => (old.wards, old.quorum, old.sorry, old.window, old.health.passive),
            None => (Vec::new(), None, false, None, None),
        };
        let mut before: HashMap<ServerKey, Ward> = wards.into_iter().map(|ward| (ward.key, ward)).collect();
        let ward = |server: &Server| {
            let key = ServerKey::of(service, server);
            let mut ward = before.remove(&key).unwrap_or_else(|| Ward::new(key, moment.now));
            ward.configure(server, checks.of(server).map(|(id, check)| (id, check.pace.first)).collect());
            ward
        };
        let mut wards: Vec<Ward> = service.servers.iter().map(ward).collect();
        let health = service.health.clone();
        let same = health.passive == passive;
        if !same {
            wards.iter_mut().for_each(|ward| ward.watched = Default::default());
        }
        let window = window.filter(|_| same).or_else(|| health.passive.map(|passive| moment.now + passive.window));
        let (key, name) = (service.key, service.name.clone());
        Ruled { key, name, health, wards, quorum, sorry, scale: 1, window, dirty: true, next: None, stood: Vec::new() }
    }

    fn sum(&self) -> u64 {
        self.wards.iter().filter(|ward| ward.usable).map(|ward| u64::from(ward.wanted)).sum()
    }

    /// Whether any server stands otherwise than before.
    fn judge(&mut self, seen: &HashMap<CheckId, Seen>, moment: Moment, changes: &mut Vec<Change>) -> bool {
        let now = moment.now;
        for ward in &mut self.wards {
            ward.judge(seen, &self.health, now);
        }
        self.judge_window(now);
        self.release_if_alone(seen, now);
        let (sum, was_sorry) = (self.sum(), self.sorry);
        for ward in &mut self.wards {
            if let Some(news) = ward.news(now) {
                let change = Change {
                    service: self.key,
                    name: self.name.clone(),
                    server: Some(ward.key),
                    what: news.what,
                    words: ward.words.clone(),
                    usable: news.usable,
                    at: moment.wall,
                    before: news.before,
                };
                changes.push(change);
            }
        }
        self.judge_quorum(sum, moment, changes);
        self.scale = if self.wards.iter().any(Ward::is_ramping) { STEPS } else { 1 };
        let wards = self.wards.iter().filter_map(|ward| ward.next_deadline(&self.health, now));
        self.next = wards.chain(self.window).min();
        self.dirty = false;
        let stands = |ward: &Ward| ward.standing(self.sorry, self.scale, ward.step(&self.health, now));
        let stood: Vec<Standing> = self.wards.iter().map(stands).collect();
        let moved = stood != self.stood || self.sorry != was_sorry;
        self.stood = stood;
        moved
    }

    /// Puts out what the window that ends shows.
    fn judge_window(&mut self, now: Duration) {
        let (Some(settings), Some(end)) = (self.health.passive, self.window) else { return };
        if now < end {
            return;
        }
        // Windows that nobody looked at are one long window.
        self.window = Some(now + settings.window.max(Duration::from_millis(100)));
        let mut outliers: Vec<usize> = Vec::new();
        for (place, ward) in self.wards.iter_mut().enumerate() {
            match ward.watched.is_outlier(&settings) {
                Some(true) if ward.usable => outliers.push(place),
                Some(false) if ward.usable => ward.watched.praise(),
                _ => {}
            }
        }
        // The worst first; of equal ones the first of the file.
        let failed = |place: &usize| {
            let Counts { new, failed } = self.wards[*place].watched.window;
            std::cmp::Reverse(failed * 1_000_000 / new.max(1))
        };
        outliers.sort_by_key(failed);
        let out = self.wards.iter().filter(|ward| ward.watched.until.is_some()).count();
        let usable = self.wards.iter().filter(|ward| ward.usable).count();
        for place in outliers.into_iter().take(passive::room(&settings, self.wards.len(), out, usable)) {
            let ward = &mut self.wards[place];
            let Counts { new, failed } = ward.watched.window;
            let lasts = ward.watched.eject(&settings, now);
            let words = format!("{} of {new} new flows failed: out for {}", failed.min(new), words::span(lasts));
            ward.ejected(words, &self.health, now);
        }
        self.wards.iter_mut().for_each(|ward| ward.watched.begin());
    }

    /// A server that is out by passive checks is better than none.
    fn release_if_alone(&mut self, seen: &HashMap<CheckId, Seen>, now: Duration) {
        if self.wards.iter().any(|ward| ward.usable) {
            return;
        }
        for ward in self.wards.iter_mut().filter(|ward| ward.is_only_ejected()) {
            ward.watched.release();
            ward.judge(seen, &self.health, now);
        }
    }

    fn judge_quorum(&mut self, sum: u64, moment: Moment, changes: &mut Vec<Change>) {
        let quorum = &self.health.quorum;
        let change = |what, words: String, usable, before| Change {
            service: self.key,
            name: self.name.clone(),
            server: None,
            what,
            words,
            usable,
            at: moment.wall,
            before,
        };
        let was = self.quorum;
        let mut state = was.unwrap_or_else(|| QuorumState::first(quorum, sum));
        let changed = state.judge(quorum, sum) || was.is_none() && !state.up;
        if changed {
            let least = threshold(quorum, was.is_some_and(|was| was.up));
            let what = if state.up { What::QuorumFound } else { What::QuorumLost };
            let words = match state.up {
                true => format!("usable servers have weight {sum}, {least} was wanted"),
                false => format!("usable servers have weight {sum}, {least} is wanted"),
            };
            changes.push(change(what, words, Some(state.up), None));
        }
        self.quorum = Some(state);
        let sorry = !state.up && self.health.sorry.is_some();
        if sorry != self.sorry {
            let address = self.health.sorry.as_ref().map(|server| server.address.to_string()).unwrap_or_default();
            let what = if sorry { What::SorryIn } else { What::SorryOut };
            changes.push(change(what, address, None, None));
        }
        self.sorry = sorry;
    }
}

#[cfg(test)]
mod tests;
