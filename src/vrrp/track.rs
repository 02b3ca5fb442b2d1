//! What a virtual router's right to be master hangs on: observations in, a condition for each router out. Pure.
//!
//! Owns the rules by which what is tracked changes a priority or puts a router in fault; they are keepalived's
//! (`vrrp_track.c`, `track_file.c`). Never finds anything out: scripts, files and processes are [`tracker`]'s, interfaces,
//! services and the engine the driver's.

use std::collections::{BTreeMap, BTreeSet};

use super::election::Condition;
use super::status::TrackedStatus;
use crate::model::{SyncGroup, Track, Tracked, VirtualRouter, Vrrp};

mod file;
mod process;
mod script;
#[cfg(test)]
mod tests;
pub mod tracker;

pub use tracker::Tracker;

/// Least product of a file's number and weight that changes a priority; below it the router is in fault.
const LEAST: i64 = -253;
/// Most that one file adds.
const MOST: i64 = 253;

/// Priority of an address owner.
const OWNER: u8 = 255;

/// What was seen of something that is tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// It holds.
    Good,
    /// It fails; why, in words that stand behind its name: "failed: exit code 1", "is down".
    Bad(String),
    /// The number in a [`Tracked::File`].
    Number(i64),
}

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Of what.
    pub what: Tracked,
    /// What.
    pub value: Value,
}

impl Observation {
    /// That something holds.
    pub fn good(what: Tracked) -> Self {
        Observation { what, value: Value::Good }
    }

    /// That it fails, and why.
    pub fn bad(what: Tracked, why: impl Into<String>) -> Self {
        Observation { what, value: Value::Bad(why.into()) }
    }

    /// Whether an interface is up and has a carrier.
    pub fn interface(name: &str, up: bool) -> Self {
        Self::held(Tracked::Interface(name.to_owned()), up, "is down")
    }

    /// Whether a service has its quorum of usable servers.
    pub fn service(name: &str, up: bool) -> Self {
        Self::held(Tracked::Service(name.to_owned()), up, "has too few usable servers")
    }

    /// Whether the engine turns; `stalled` names its workers that do not, with the seconds.
    pub fn engine(stalled: &[(usize, f64)]) -> Self {
        let words: Vec<String> = stalled
            .iter()
            .map(|(worker, seconds)| format!("worker {worker} has not turned for {seconds:.1} s"))
            .collect();
        Self::held(Tracked::Engine, stalled.is_empty(), &words.join(", "))
    }

    fn held(what: Tracked, holds: bool, why: &str) -> Self {
        if holds { Self::good(what) } else { Self::bad(what, why) }
    }
}

#[derive(Debug)]
struct Router {
    name: String,
    tracks: Vec<Track>,
    told: Option<Condition>,
}

/// The conditions of all routers.
#[derive(Debug, Default)]
pub struct Conditions {
    routers: Vec<Router>,
    values: BTreeMap<Tracked, Value>,
}

impl Conditions {
    /// Takes a configuration. What was seen of things that are still tracked stays. Returns the routers whose condition is
    /// now another one, or is known for the first time.
    pub fn configure(&mut self, vrrp: &Vrrp) -> Vec<String> {
        let mut before: BTreeMap<String, Option<Condition>> =
            self.routers.drain(..).map(|router| (router.name, router.told)).collect();
        self.routers = vrrp
            .routers
            .iter()
            .map(|router| Router {
                name: router.name.clone(),
                tracks: tracks_of(vrrp, router),
                told: before.remove(&router.name).flatten(),
            })
            .collect();
        let wanted: BTreeSet<&Tracked> =
            self.routers.iter().flat_map(|router| router.tracks.iter().map(|track| &track.what)).collect();
        self.values.retain(|what, _| wanted.contains(what));
        self.changed(|_| true)
    }

    /// Takes what was seen. Returns the routers whose condition is now another one, in the order of the configuration; none
    /// where nobody tracks it.
    pub fn observe(&mut self, observation: Observation) -> Vec<String> {
        let Observation { what, value } = observation;
        if !self.tracks(&what) || self.values.get(&what) == Some(&value) {
            return Vec::new();
        }
        self.values.insert(what.clone(), value);
        self.changed(|router| router.tracks.iter().any(|track| track.what == what))
    }

    /// The condition of a router; `None` while something that decides over fault has not been seen yet and nothing is known
    /// to fail: a router that begins waits, one that runs goes on as it was.
    pub fn of(&self, router: &str) -> Option<&Condition> {
        self.routers.iter().find(|known| known.name == router)?.told.as_ref()
    }

    /// Whether anybody tracks it, and so whether it has to be looked at.
    pub fn tracks(&self, what: &Tracked) -> bool {
        self.routers.iter().any(|router| router.tracks.iter().any(|track| track.what == *what))
    }

    /// What a router still waits for before it can begin; empty where it waits for nothing.
    pub fn awaited(&self, router: &str) -> Vec<&Tracked> {
        let router = self.routers.iter().find(|known| known.name == router && known.told.is_none());
        let unseen = |track: &&Track| track.weight == 0 && !self.values.contains_key(&track.what);
        router.map_or(Vec::new(), |router| router.tracks.iter().filter(unseen).map(|track| &track.what).collect())
    }

    /// Everything that is tracked, by kind and name.
    pub fn status(&self) -> Vec<TrackedStatus> {
        let all: BTreeSet<&Tracked> =
            self.routers.iter().flat_map(|router| router.tracks.iter().map(|track| &track.what)).collect();
        let status = |what: &Tracked| {
            let (state, good, number) = match self.values.get(what) {
                None => ("not known yet".to_owned(), None, None),
                Some(Value::Good) => ("good".to_owned(), Some(true), None),
                Some(Value::Bad(why)) => (why.clone(), Some(false), None),
                Some(Value::Number(number)) => (format!("holds {number}"), None, Some(*number)),
            };
            TrackedStatus { what: what.to_string(), state, good, number }
        };
        all.into_iter().map(status).collect()
    }

    fn changed(&mut self, concerned: impl Fn(&Router) -> bool) -> Vec<String> {
        let mut changed = Vec::new();
        for router in self.routers.iter_mut().filter(|router| concerned(router)) {
            let Some(condition) = condition(&router.tracks, &self.values) else { continue };
            if router.told.as_ref() != Some(&condition) {
                router.told = Some(condition);
                changed.push(router.name.clone());
            }
        }
        changed
    }
}

/// Why what a router tracks by a weight of its own does nothing; `None` where it does something. In a group members of
/// different priorities would never settle, and an owner's priority is fixed (keepalived says "ignoring tracked script").
fn ignored_for(router: &VirtualRouter, group: Option<&SyncGroup>) -> Option<&'static str> {
    match (group, router.priority) {
        (Some(_), _) => Some("it is in a sync group: give it weight 0, or let the group track it"),
        (None, OWNER) => Some("the priority of an address owner is fixed: give it weight 0"),
        _ => None,
    }
}

/// A sentence for each thing that is tracked to no effect, as keepalived ignores it.
pub fn ignored(vrrp: &Vrrp) -> Vec<String> {
    let mut sentences = Vec::new();
    for router in &vrrp.routers {
        let Some(why) = ignored_for(router, group_of(vrrp, router)) else { continue };
        for track in router.tracks.iter().filter(|track| track.weight != 0) {
            sentences
                .push(format!("({}) ignoring tracked {} with weight {}: {why}", router.name, track.what, track.weight));
        }
    }
    sentences
}

fn group_of<'a>(vrrp: &'a Vrrp, router: &VirtualRouter) -> Option<&'a SyncGroup> {
    vrrp.groups.iter().find(|group| group.routers.contains(&router.name))
}

/// What a router tracks: its interface, its own and its group's. Each thing once; the group's weight goes before its own
/// (`add_obj_to_track_file`), and is 0 where a member of the group is an address owner.
fn tracks_of(vrrp: &Vrrp, router: &VirtualRouter) -> Vec<Track> {
    let group = group_of(vrrp, router);
    let owner = |name: &String| vrrp.routers.iter().any(|known| known.name == *name && known.priority == OWNER);
    let has_owner = group.is_some_and(|group| group.routers.iter().any(owner));
    let own = router.tracks.iter().filter(|track| track.weight == 0 || ignored_for(router, group).is_none());
    let shared = group.iter().flat_map(|group| &group.tracks);
    let mut tracks = vec![Track { what: Tracked::Interface(router.interface.clone()), weight: 0 }];
    for track in own.chain(shared) {
        // One that is there already has weight 0: it is the interface, or a group's member tracks it, too.
        if tracks.iter().all(|known| known.what != track.what) {
            tracks.push(Track { what: track.what.clone(), weight: if has_owner { 0 } else { track.weight } });
        }
    }
    tracks
}

/// What one thing does.
enum Effect {
    Adjust(i32),
    Fault(String),
    Unknown,
}

fn effect(track: &Track, value: Option<&Value>) -> Effect {
    let weight = i64::from(track.weight);
    match value {
        None if weight == 0 => Effect::Unknown,
        None => Effect::Adjust(0),
        // A file: without a weight everything but 0 is a failure; else the product counts, and far below zero is one.
        Some(Value::Number(0)) => Effect::Adjust(0),
        Some(Value::Number(number)) if weight == 0 => Effect::Fault(format!("{} holds {number}", track.what)),
        Some(Value::Number(number)) => match number.saturating_mul(weight) {
            product if product < LEAST => Effect::Fault(format!("{} holds {number}, with weight {weight}", track.what)),
            product => Effect::Adjust(product.min(MOST) as i32),
        },
        Some(Value::Good) => Effect::Adjust(i32::from(track.weight.max(0))),
        Some(Value::Bad(why)) if weight == 0 => Effect::Fault(match &track.what {
            Tracked::Engine => why.clone(),
            what => format!("{what} {why}"),
        }),
        Some(Value::Bad(_)) => Effect::Adjust(i32::from(track.weight.min(0))),
    }
}

fn condition(tracks: &[Track], values: &BTreeMap<Tracked, Value>) -> Option<Condition> {
    let (mut adjust, mut fault, mut unknown) = (0, None, false);
    for track in tracks {
        match effect(track, values.get(&track.what)) {
            Effect::Adjust(by) => adjust += by,
            Effect::Fault(why) => fault = fault.or(Some(why)),
            Effect::Unknown => unknown = true,
        }
    }
    // A fault is one at once; everything else waits until all is known (`num_script_init`).
    (fault.is_some() || !unknown).then_some(Condition { adjust, fault })
}

/// Successes and failures in a row of a script, and what they make of it (`vrrp_script_child_thread`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streak {
    rise: u32,
    fall: u32,
    /// Below `rise`: bad.
    score: u32,
    begun: bool,
}

impl Streak {
    /// `rise` successes in a row make it good, `fall` failures bad; the first result alone decides. `starts_good`: it is good
    /// before that.
    pub fn new(rise: u16, fall: u16, starts_good: bool) -> Streak {
        let (rise, fall) = (u32::from(rise.max(1)), u32::from(fall.max(1)));
        Streak { rise, fall, score: if starts_good { rise + fall - 1 } else { rise - 1 }, begun: starts_good }
    }

    /// `None` before the first result.
    pub fn good(&self) -> Option<bool> {
        self.begun.then_some(self.score >= self.rise)
    }

    /// Takes other numbers, and stays what it is.
    pub fn set(&mut self, rise: u16, fall: u16) {
        if let Some(good) = self.good() {
            *self = Streak { begun: true, ..Streak::new(rise, fall, good) };
            self.score = if good { self.score } else { 0 };
        } else {
            *self = Streak::new(rise, fall, false);
        }
    }

    /// Takes a result; returns what the script is from now on, where that is new.
    pub fn take(&mut self, success: bool) -> Option<bool> {
        let before = self.good();
        let full = self.rise + self.fall - 1;
        self.score = match (success, self.score) {
            (true, score) if score + 1 < self.rise => score + 1,
            (true, _) => full,
            (false, score) if score > self.rise => score - 1,
            (false, _) => 0,
        };
        self.begun = true;
        let after = self.good();
        if after == before { None } else { after }
    }
}
