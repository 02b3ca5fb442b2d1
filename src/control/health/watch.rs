//! What the running engine holds: the checks that run, and what their results mean.
//!
//! Owns the checker's handle and the meaning. Never changes the data plane: it says that it stands otherwise now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::checks::Checks;
use super::egress::{ServicePath, Ways};
use super::meaning::passive::Counts;
use super::meaning::{Meaning, Moment, Seen};
use super::{Admin, Change, What};
use crate::control::nexthop::Reach;
use crate::health::{CheckId, Checker, CheckerError, Record, Wiring};
use crate::model::{Desired, Server, ServerKey, Service};

/// Calls the control loop.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// The running checks and their meaning.
pub struct Watch {
    checker: Option<Checker>,
    checks: Checks,
    meaning: Meaning,
    wake: Wake,
    /// How checks with `path = "service"` reach their servers.
    ways: Ways,
    started: Instant,
    /// What happened, until somebody takes it.
    changes: Vec<Change>,
    /// Servers of which it was told that they have drained.
    drained: HashSet<ServerKey>,
}

/// A configuration that has not been taken over yet: how everything would stand.
pub struct Prospect {
    checks: Checks,
    meaning: Meaning,
    changes: Vec<Change>,
}

impl Prospect {
    /// How everything would stand.
    pub const fn meaning(&self) -> &Meaning {
        &self.meaning
    }

    /// Somebody decided about a server before this configuration was taken over.
    pub fn set_admin(&mut self, server: &ServerKey, admin: Admin) -> bool {
        self.meaning.set_admin(server, admin)
    }

    /// Whether the file by which a server drains exists.
    pub fn set_drain_file(&mut self, server: &ServerKey, exists: bool) -> bool {
        self.meaning.set_drain_file(server, exists)
    }
}

impl Watch {
    /// Nothing yet. `started` is the moment from which time is counted; `wake` calls the control loop when there is something
    /// to read.
    pub fn new(started: Instant, wake: Wake) -> Watch {
        Watch {
            checker: None,
            checks: Checks::default(),
            meaning: Meaning::default(),
            wake,
            ways: Ways::default(),
            started,
            changes: Vec::new(),
            drained: HashSet::new(),
        }
    }

    /// A moment by both clocks.
    pub fn moment(&self, now: Instant) -> Moment {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Moment { now: now.saturating_duration_since(self.started), wall }
    }

    /// Looks at another configuration. `prepare` tells what else is known of its servers; [`Watch::take`] takes it over.
    pub fn look(
        &self,
        desired: &Desired,
        now: Instant,
        reach: impl Fn(&Service, &Server) -> Reach,
        prepare: impl FnOnce(&mut Prospect),
    ) -> Prospect {
        let moment = self.moment(now);
        let mut prospect = Prospect { checks: self.checks.clone(), meaning: self.meaning.clone(), changes: Vec::new() };
        prospect.checks.assign(desired);
        prospect.meaning.configure(desired, &prospect.checks, moment);
        prospect.meaning.reach(desired, reach);
        prepare(&mut prospect);
        prospect.meaning.judge(moment, &mut prospect.changes);
        prospect
    }

    /// Takes a configuration over that is in force now: its checks run from here on, those that stay as before.
    ///
    /// # Errors
    /// [`CheckerError`]: these are the first checks, and they cannot be run.
    pub fn take(&mut self, prospect: Prospect) -> Result<(), CheckerError> {
        let Prospect { checks, meaning, changes } = prospect;
        (self.checks, self.meaning) = (checks, meaning);
        self.changes.extend(changes);
        if self.checker.is_none() && !self.checks.is_empty() {
            let egress = Box::new(ServicePath::new(self.ways.clone()));
            self.checker = Some(Checker::start(Wiring { wake: Arc::clone(&self.wake), egress: Some(egress) })?);
        }
        if let Some(checker) = &self.checker {
            checker.configure(self.checks.plan());
        }
        Ok(())
    }

    /// The ways of checks with `path = "service"`, to be kept fresh.
    pub const fn ways(&self) -> &Ways {
        &self.ways
    }

    /// Takes the checks' news. Whether there were any.
    pub fn listen(&mut self) -> bool {
        let Some(checker) = &self.checker else { return false };
        let mut any = false;
        for event in checker.events() {
            any = true;
            self.meaning.note(event.id, Seen { up: event.up, weigh: event.weigh, words: event.words });
        }
        any
    }

    /// Takes what is known of the ways to the servers.
    pub fn reach(&mut self, desired: &Desired, reach: impl Fn(&Service, &Server) -> Reach) {
        self.meaning.reach(desired, reach);
    }

    /// Takes what the data plane counted, for passive checks.
    pub fn count(&mut self, counted: impl Fn(&ServerKey) -> Counts) {
        self.meaning.count(counted);
    }

    /// Whether [`Watch::count`] is of use.
    pub fn is_counting(&self) -> bool {
        self.meaning.is_counting()
    }

    /// Somebody decided about a server. `false`: there is no such server.
    pub fn set_admin(&mut self, server: &ServerKey, admin: Admin) -> bool {
        self.meaning.set_admin(server, admin)
    }

    /// Whether the file by which a server drains exists. `false`: there is no such server.
    pub fn set_drain_file(&mut self, server: &ServerKey, exists: bool) -> bool {
        self.meaning.set_drain_file(server, exists)
    }

    /// Judges what changed and what is due. Whether anything stands otherwise than before: the data plane must be told.
    pub fn judge(&mut self, now: Instant) -> bool {
        let moment = self.moment(now);
        self.meaning.judge(moment, &mut self.changes)
    }

    /// When [`Watch::judge`] must be called though nobody called.
    pub fn next_deadline(&self) -> Option<Instant> {
        Some(self.started + self.meaning.next_deadline()?)
    }

    /// These servers drain and have no flows left.
    pub fn drained(&mut self, servers: impl Iterator<Item = ServerKey>, now: Instant) {
        let moment = self.moment(now);
        let all: HashSet<ServerKey> = servers.collect();
        for server in all.difference(&self.drained) {
            let Some(view) = self.meaning.view(server, moment.now) else { continue };
            self.changes.push(Change {
                service: server.service,
                name: self.meaning.name(&server.service).unwrap_or_default().to_owned(),
                server: Some(*server),
                what: What::Drained,
                words: "its last flow has ended".to_owned(),
                usable: None,
                at: moment.wall,
                before: Some((view.state.word(), view.lasts)),
            });
        }
        self.drained = all;
    }

    /// What happened since the last call.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// How everything stands.
    pub const fn meaning(&self) -> &Meaning {
        &self.meaning
    }

    /// Which checks there are.
    pub const fn checks(&self) -> &Checks {
        &self.checks
    }

    /// What is known of a check.
    pub fn record(&self, id: CheckId) -> Option<Arc<Record>> {
        self.checker.as_ref()?.record(id)
    }

    /// A number that grows between two calls if the thread of the checks turns. `None` where there are no checks.
    pub fn turns(&self) -> Option<u64> {
        self.checker.as_ref().map(Checker::turns)
    }

    /// Whether the checks run, where they should.
    pub fn is_running(&self) -> bool {
        self.checker.as_ref().is_none_or(Checker::is_running)
    }
}

/// The servers that share a check, by its id.
pub fn sharing<'d>(checks: &Checks, desired: &'d Desired) -> HashMap<CheckId, Vec<(&'d Service, &'d Server)>> {
    let mut all: HashMap<CheckId, Vec<(&Service, &Server)>> = HashMap::new();
    for service in &desired.services {
        for server in &service.servers {
            checks.of(server).for_each(|(id, _)| all.entry(id).or_default().push((service, server)));
        }
    }
    all
}
