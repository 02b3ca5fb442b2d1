//! The life of a server from one snapshot to the next: added, draining, removed while flows of it are left, added again.
//!
//! Owns when a removed server is forgotten, what becomes of the flows of a server that does not serve them, and when what is
//! counted for a service's limits begins anew (ADR 0018). Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Identity, Map, Record, Registry, ServiceRecord, Set, Whereabouts, identity};
use crate::control::health::Standing;
use crate::dataplane::limits::Tally;
use crate::dataplane::schedule::{Listed, carry_over};
use crate::dataplane::stats::MAX_SERVERS;
use crate::model::{Fate, Limits, Server, ServerKey, Service, ServiceKey};

/// A server that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When it began, by the clock of [`Registry::compile_at`].
    pub since: Duration,
    /// Its flows at that moment.
    pub flows: u32,
}

impl Drain {
    /// When what is left of its flows meets the service's fate for them.
    pub fn deadline(&self, service: &Service) -> Option<Duration> {
        Some(self.since + Duration::from_secs(u64::from(service.drain_deadline?)))
    }
}

/// Servers as their scheduler's sequence knows them: without the sorry server.
fn listed(servers: &[Record]) -> Vec<Listed> {
    servers.iter().filter(|known| !known.sorry).map(|known| (known.id, known.weight)).collect()
}

/// What is counted of a service's flows: the service's own, and each client network's by its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    service: bool,
    clients: bool,
    networks: Option<(u8, u8)>,
}

impl Counted {
    pub fn of(limits: &Limits) -> Counted {
        let any = limits.client_connections.is_some() || limits.client_rate.is_some();
        Counted {
            service: limits.connections.is_some(),
            clients: limits.client_connections.is_some(),
            networks: any.then_some((limits.client_prefix_v4, limits.client_prefix_v6)),
        }
    }
}

impl Record {
    fn new(id: u32, server: &Server, sorry: bool, at: Whereabouts, now: Duration) -> Record {
        let (weight, load, stands) = (u32::from(server.weight), Arc::default(), Standing::OUT);
        let (last_weight, drain, gone_since) = (weight, None, 0);
        let known = server.clone();
        let record = Record { id, weight, last_weight, load, server: known, sorry, at, stands, drain, gone_since };
        record.carried(server, sorry, at, now)
    }

    /// The same server as it stands now, configured as before.
    fn stand(&mut self, at: Whereabouts, now: Duration) {
        let (stands, configured) = (at.stands(&self.server, self.sorry), u32::from(self.server.weight));
        self.weight = stands.weight;
        self.last_weight = match stands.weight {
            0 if stands.drains && configured > 0 => configured,
            0 => self.last_weight,
            weight => weight,
        };
        self.drain =
            stands.drains.then(|| self.drain.unwrap_or_else(|| Drain { since: now, flows: self.load.total() }));
        (self.at, self.stands) = (at, stands);
    }

    /// The same server as it is configured and stands now.
    fn carried(mut self, server: &Server, sorry: bool, at: Whereabouts, now: Duration) -> Record {
        let upper = server.upper.unwrap_or(0);
        if self.server.upper != server.upper {
            self.load.rejudge(upper);
        } else if self.server.lower != server.lower {
            self.load.relieve(upper, server.lower.unwrap_or(0));
        }
        if self.server != *server {
            self.server = server.clone();
        }
        (self.sorry, self.gone_since) = (sorry, 0);
        self.stand(at, now);
        self
    }

    /// What becomes of its flows; `None`: it serves them, or what there is of them waits for it.
    pub(super) fn fate(&self, service: &Service, reachable: bool, now: Duration) -> Option<Fate> {
        let fates = &service.fates;
        if self.gone_since > 0 {
            return Some(fates.removed);
        }
        let has_drained = self.drain.and_then(|drain| drain.deadline(service)).is_some_and(|deadline| now >= deadline);
        let fate = match (has_drained, reachable) {
            (true, _) if fates.drained != Fate::Keep => fates.drained,
            (_, false) => fates.down,
            _ if self.stands.failed => fates.down,
            _ => return None,
        };
        Some(fate).filter(|fate| *fate != Fate::Keep)
    }
}

/// Servers that are forgotten: those of services that are no more, those that were removed before and have no flows left, and
/// beyond what there is room for those that were removed first. `same`: services that are as before and have nobody to forget.
pub(super) fn who_goes(
    before: &Map<ServiceKey, ServiceRecord>,
    wanted: &Map<ServiceKey, &Service>,
    same: &Set<ServiceKey>,
) -> Vec<u32> {
    let mut gone: Vec<u32> = Vec::new();
    // Those that stay known, by when they were removed.
    let mut ghosts: Vec<(u64, u32)> = Vec::new();
    for (key, record) in before {
        let Some(service) = wanted.get(key) else {
            gone.extend(record.servers.iter().chain(&record.ghosts).map(|known| known.id));
            continue;
        };
        if same.contains(key) {
            continue;
        }
        let configured: Set<Identity> = service.all_servers().map(identity).collect();
        for known in record.servers.iter().chain(&record.ghosts) {
            if configured.contains(&known.identity()) {
                continue;
            }
            match known.gone_since {
                // Workers may make flows of it until they know.
                0 => ghosts.push((u64::MAX, known.id)),
                _ if known.load.total() == 0 => gone.push(known.id),
                since => ghosts.push((since, known.id)),
            }
        }
    }
    let servers: usize = wanted.values().map(|service| service.all_servers().count()).sum();
    ghosts.sort_unstable();
    let too_many = (servers + ghosts.len()).saturating_sub(MAX_SERVERS);
    gone.extend(ghosts.iter().take(too_many).map(|(_, id)| *id));
    gone.sort_unstable();
    gone
}

/// Services that are configured as before, and remember no removed server: checks change how servers stand, thousands of times,
/// and nothing else.
pub(super) fn who_stays(
    before: &Map<ServiceKey, ServiceRecord>,
    wanted: &Map<ServiceKey, &Service>,
) -> Set<ServiceKey> {
    let stays = |(key, record): (&ServiceKey, &ServiceRecord)| {
        let service = wanted.get(key)?;
        (record.ghosts.is_empty() && *record.config == **service).then_some(*key)
    };
    before.iter().filter_map(stays).collect()
}

impl Registry {
    /// A service as before, whose servers may stand otherwise.
    pub(super) fn stand(
        &mut self,
        service: &Service,
        mut record: ServiceRecord,
        now: Duration,
        whereabouts: &impl Fn(&Service, &Server) -> Whereabouts,
    ) -> ServiceRecord {
        let before = listed(&record.servers);
        for known in &mut record.servers {
            let at = whereabouts(service, &known.server);
            known.stand(at, now);
        }
        self.note_deadlines(service, &record.servers, now);
        carry_over(service.scheduler, &record.state.cursor, &before, &listed(&record.servers));
        record
    }

    fn note_deadlines(&mut self, service: &Service, servers: &[Record], now: Duration) {
        let deadlines = servers.iter().filter_map(|known| known.drain?.deadline(service)).filter(|at| *at > now);
        self.next_deadline = self.next_deadline.into_iter().chain(deadlines).min();
    }

    /// Takes a service over from the snapshot before. `gone`: servers that were forgotten, sorted.
    pub(super) fn carry_service(
        &mut self,
        service: &Service,
        old: Option<ServiceRecord>,
        gone: &[u32],
        added: &mut Vec<u32>,
        now: Duration,
        whereabouts: &impl Fn(&Service, &Server) -> Whereabouts,
    ) -> ServiceRecord {
        let old = old.unwrap_or_else(|| ServiceRecord {
            scheduler: service.scheduler,
            state: Arc::default(),
            servers: Vec::new(),
            ghosts: Vec::new(),
            counted: Counted::default(),
            tally: Arc::default(),
            tally_since: 0,
            config: Arc::new(service.clone()),
            clients: (0, None),
            built: None,
        });
        if old.scheduler != service.scheduler {
            old.state.cursor.reset();
        }
        let before = listed(&old.servers);
        let sorry = service.health.sorry.as_deref();
        let is_sorry = |server: &Server| sorry.is_some_and(|sorry| std::ptr::eq(sorry, server));
        let configured: Map<Identity, &Server> = service.all_servers().map(|s| (identity(s), s)).collect();
        let next = self.generation + 1;
        let is_gone = |id: u32| gone.binary_search(&id).is_ok();
        let (mut servers, mut ghosts, mut forgotten) = (Vec::new(), Vec::new(), false);
        for record in old.servers {
            match configured.get(&record.identity()) {
                Some(server) => {
                    let at = whereabouts(service, server);
                    servers.push(record.carried(server, is_sorry(server), at, now));
                }
                None if is_gone(record.id) => forgotten = true,
                None => {
                    let (weight, drain, sorry) = (0, None, false);
                    ghosts.push(Record { gone_since: next, weight, drain, sorry, ..record });
                }
            }
        }
        let mut back: Map<Identity, Record> = Map::default();
        for record in old.ghosts {
            if configured.contains_key(&record.identity()) {
                back.insert(record.identity(), record);
            } else if is_gone(record.id) {
                forgotten |= record.load.total() > 0;
            } else {
                ghosts.push(record);
            }
        }
        let known: Set<Identity> = servers.iter().map(Record::identity).collect();
        for server in service.all_servers().filter(|server| !known.contains(&identity(server))) {
            let (at, sorry) = (whereabouts(service, server), is_sorry(server));
            // One that was removed goes on with the flows that it has (`ip_vs_trash_get_dest`).
            let record = back.remove(&identity(server)).map(|record| record.carried(server, sorry, at, now));
            let record = record.unwrap_or_else(|| {
                let id = self.take_slot();
                added.push(id);
                Record::new(id, server, sorry, at, now)
            });
            servers.insert(0, record);
        }
        servers.sort_by_key(|known| known.sorry);
        self.note_deadlines(service, &servers, now);
        let after = listed(&servers);
        carry_over(service.scheduler, &old.state.cursor, &before, &after);
        // What forgotten servers' flows count for cannot be given back one by one.
        let counted = Counted::of(&service.limits);
        let (mut tally, mut tally_since) = (old.tally, old.tally_since);
        let config = if *old.config == *service { old.config } else { Arc::new(service.clone()) };
        if tally.id == 0 || counted != old.counted || forgotten {
            self.tallies += 1;
            (tally, tally_since) = (Arc::new(Tally { id: self.tallies, ..Tally::default() }), next);
        }
        let (scheduler, state, clients, built) = (service.scheduler, old.state, old.clients, old.built);
        ServiceRecord { scheduler, state, servers, ghosts, counted, tally, tally_since, config, clients, built }
    }

    /// When it should be compiled again because a server has drained for long enough, by the clock of
    /// [`Registry::compile_at`].
    pub const fn next_deadline(&self) -> Option<Duration> {
        self.next_deadline
    }

    /// Whether there is a removed server without flows: the next snapshot is without it.
    pub fn has_idle_ghosts(&self) -> bool {
        self.services.values().flat_map(|service| &service.ghosts).any(|ghost| ghost.load.total() == 0)
    }

    /// Servers that were removed and may have flows left, with what their services match.
    pub fn ghosts(&self) -> impl Iterator<Item = (ServiceKey, &Server)> {
        self.services.iter().flat_map(|(key, service)| service.ghosts.iter().map(|ghost| (*key, &ghost.server)))
    }

    /// Servers that drain and have no flows left.
    pub fn drained(&self) -> impl Iterator<Item = ServerKey> {
        let all = self.services.iter().flat_map(|(key, service)| service.servers.iter().map(move |known| (key, known)));
        let drained = all.filter(|(_, known)| known.drain.is_some() && known.load.total() == 0);
        drained.map(|(service, known)| ServerKey {
            service: *service,
            address: known.server.address,
            port: known.server.port,
        })
    }

    /// Servers that drain, by their stable ids.
    pub fn drains(&self) -> HashMap<u32, Drain> {
        let all = self.services.values().flat_map(|service| &service.servers);
        all.filter_map(|known| Some((known.id, known.drain?))).collect()
    }
}
