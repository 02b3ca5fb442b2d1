//! What the running engine does with what its checks mean: the data plane at once, VRRP, people.
//!
//! Owns when a change is made for that. Decides nothing about servers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::error;

use super::Engine;
use crate::control::compile::Whereabouts;
use crate::control::health::meaning::Meaning;
use crate::control::health::meaning::passive::Counts;
use crate::control::nexthop::tracker::Tracker;
use crate::control::startup;
use crate::control::workers::Workers;
use crate::dataplane::snapshot::{Snapshot, slot_of};
use crate::model::{Server, ServerKey, Service};

/// Where servers are and how they stand. `now`: time since the start.
pub(super) fn whereabouts<'e>(
    tracker: &'e Tracker,
    meaning: &'e Meaning,
    now: Duration,
) -> impl Fn(&Service, &Server) -> Whereabouts + 'e {
    move |service, server| Whereabouts {
        standing: meaning.standing(service, server, now),
        ..tracker.whereabouts(service, server)
    }
}

impl Engine {
    /// When [`Engine::on_health`] has something to do though no check has anything to say.
    pub(super) fn health_deadline(&self) -> Option<Instant> {
        let change = self.stands_changed.then(|| self.next_change());
        self.watch.next_deadline().into_iter().chain(change).min()
    }

    /// Changes for checks leave the loop as much time again as they take, for thousands that fail one after the other.
    fn next_change(&self) -> Instant {
        self.changed + self.took
    }

    /// Hears the checks, judges what they say, and makes the data plane true to it: at once, and what came together together.
    pub(super) fn on_health(&mut self, now: Instant) {
        self.watch.listen();
        self.on_drain_files();
        self.stands_changed |= self.watch.judge(now);
        if self.stands_changed && now >= self.next_change() {
            self.stands_changed = false;
            self.apply_standings("servers stand otherwise");
        }
        self.tell();
    }

    /// Next hops changed.
    pub(super) fn on_hops(&mut self, now: Instant) {
        let tracker = &self.tracker;
        self.watch.reach(&self.desired, |service, server| tracker.reach(service, server));
        self.watch.judge(now);
        self.stands_changed = false;
        if self.apply_standings("next hops changed") {
            self.note_unreachable();
        }
        self.tell();
    }

    fn apply_standings(&mut self, why: &str) -> bool {
        let desired = self.desired.clone();
        match self.change(&desired, None) {
            Ok(_) => true,
            Err(failure) => {
                error!("{why}, but: {}", startup::chain(&failure));
                false
            }
        }
    }

    /// Once a second: who has drained, and what clients' packets met.
    pub(super) fn on_health_tick(&mut self, now: Instant) {
        self.watch.drained(self.applied.drained(), now);
        if self.watch.is_counting() {
            let snapshot = self.shared.snapshot.load();
            let counted = counts(&snapshot, &self.workers);
            self.watch.count(|server| counted.get(server).copied().unwrap_or_default());
        }
    }

    /// Tells everybody what happened.
    pub(super) fn tell(&mut self) {
        let changes = self.watch.changes();
        if changes.is_empty() {
            return;
        }
        let meaning = self.watch.meaning();
        self.routers.services(|service| meaning.is_up(service));
        self.people.tell(&self.desired, &changes);
    }
}

/// What the workers counted of the servers of services with passive checks.
fn counts(snapshot: &Snapshot, workers: &Workers) -> HashMap<ServerKey, Counts> {
    let mut all = HashMap::new();
    for service in snapshot.services.iter().filter(|service| service.config.health.passive.is_some()) {
        let of_service = service.config.key.ports.as_single().unwrap_or(0);
        let members: HashMap<_, _> = service.members.iter().map(|m| ((m.address, m.port), slot_of(m.id))).collect();
        for server in &service.config.servers {
            let Some(slot) = members.get(&(server.address, server.port.unwrap_or(of_service))) else { continue };
            let counted = workers.list.iter().filter_map(|worker| worker.stats.servers.get(*slot));
            let counts = counted.fold(Counts::default(), |sum, counted| Counts {
                new: sum.new + counted.connections.get(),
                failed: sum.failed + counted.failed.get(),
            });
            all.insert(ServerKey::of(&service.config, server), counts);
        }
    }
    all
}
