//! From the desired services to the snapshot that workers read.
//!
//! Owns what must outlive snapshots: the stable ids of servers, their loads, where each service's sequence continues, and
//! the slots of local addresses. Never reads a file, a socket or a clock, and never talks to workers.

mod locals;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dataplane::director::ServiceState;
use crate::dataplane::path_mtu::PathMtu;
use crate::dataplane::rewrite::tunnel::Tunnel;
use crate::dataplane::schedule::{Basis, Listed, Load, Member, Selector, carry_over};
use crate::dataplane::snapshot::{
    Endpoint, NextHop, Placed, Port, ServiceEntry, Snapshot, Target, Way, server_id, slot_of,
};
use crate::dataplane::stats::MAX_SERVERS;
use crate::model::{Desired, Method, Scheduler, Server, Service, ServiceKey};
use locals::Locals;

/// Where a server is, as the kernel's facts tell it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whereabouts {
    /// Where frames for it leave; `None` while that is not known.
    pub hop: Option<NextHop>,
    /// Largest packet on the route to it, in bytes, where the route has a limit of its own.
    pub mtu: Option<u32>,
    /// Outer source address of a tunnel to it.
    pub source: Option<IpAddr>,
    /// It is this machine.
    pub local: bool,
}

/// How one server of a service is reached.
fn place(service: &Service, server: &Server, at: Whereabouts, locals: &Locals, paths: &mut Paths) -> Placed {
    let of_service = service.key.ports.as_single();
    let port = server.port.filter(|port| Some(*port) != of_service);
    let tunnel = at
        .source
        .filter(|_| server.method.is_tunnel())
        .map(|source| Tunnel::new(server.method, source, server.address, service.tunnel))
        .map(|tunnel| tunnel.sharing(paths.entry(server.address).or_default().clone()));
    let way = match server.method {
        _ if at.local => Way::Local,
        Method::Dr => Way::Dr,
        Method::Nat => Way::Nat,
        Method::FullNat => Way::FullNat,
        Method::Ipip | Method::Gue | Method::Gre => Way::Tunnel,
    };
    let complete = way != Way::Tunnel || tunnel.is_some();
    let target = Target {
        server: Endpoint { address: server.address, port },
        service: Endpoint { address: service.key.address, port: port.and(of_service) },
        tunnel,
        mss: service.mss_clamp.unwrap_or(0),
        proxy: service.proxy_protocol && way == Way::FullNat,
        locals: if way == Way::FullNat { locals.slots(&service.local_addresses) } else { Arc::from([]) },
    };
    Placed { hop: at.hop.filter(|_| complete), mtu: at.mtu, way, target, fate: None }
}

/// More than there are slots for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Servers.
    #[error("{wanted} servers configured, at most {MAX_SERVERS} are supported; split the services over two appliances")]
    TooManyServers {
        /// Servers in the configuration, over all services.
        wanted: usize,
    },
    /// Local addresses of full NAT.
    #[error(
        "{wanted} local addresses configured, and at most {most} are supported: each that was removed counts for ten more \
         minutes, while its ports rest; wait, or raise `engine.local_addresses` and restart"
    )]
    TooManyLocals {
        /// Local addresses in the configuration, over all services.
        wanted: usize,
        /// `engine.local_addresses`.
        most: usize,
    },
}

/// What makes a server the same one in two snapshots. Flows cannot go on where one of these changes.
type Identity = (IpAddr, Option<u16>, Method);

const fn identity(server: &Server) -> Identity {
    (server.address, server.port, server.method)
}

/// What is known of the paths to servers behind tunnels: the same for all that have one address.
type Paths = HashMap<IpAddr, Arc<PathMtu>>;

/// A server as it is known from one snapshot to the next.
#[derive(Clone, Debug)]
struct Record {
    identity: Identity,
    id: u32,
    weight: u32,
    last_weight: u32,
    load: Arc<Load>,
}

/// A service as it is known from one snapshot to the next. Servers are in IPVS's order: the one added last comes first.
#[derive(Debug)]
struct ServiceRecord {
    scheduler: Scheduler,
    state: Arc<ServiceState>,
    servers: Vec<Record>,
    /// The selectors of the last snapshot, and what they were made from.
    built: Option<(Basis, Selector, Selector)>,
}

impl ServiceRecord {
    /// The scheduler for these members, and the one for flows without state. A change that does not touch them, such as a
    /// next hop or another service, builds no table anew.
    fn selectors(&mut self, members: &[Member]) -> (Selector, Selector) {
        let basis = Basis::new(self.scheduler, members);
        let built = self.built.take().filter(|(known, ..)| *known == basis).unwrap_or_else(|| {
            let own = Selector::new(self.scheduler, members);
            let stateless = Selector::stateless(self.scheduler, members, &own);
            (basis, own, stateless)
        });
        let (_, own, stateless) = self.built.insert(built);
        (own.clone(), stateless.clone())
    }
}

/// What outlives snapshots.
#[derive(Debug, Default)]
pub struct Registry {
    generation: u64,
    services: HashMap<ServiceKey, ServiceRecord>,
    /// Generation of each slot that was ever used, and whether it is in use.
    slots: Vec<(u16, bool)>,
    free: Vec<u16>,
    locals: Locals,
    paths: Paths,
}

/// A compiled snapshot and what is new in it.
#[derive(Debug)]
pub struct Compiled {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Stable ids of servers that were not in the one before: their slots' counters start from what they show now.
    pub added: Vec<u32>,
    /// Stable ids of servers that are gone.
    pub removed: Vec<u32>,
}

impl Registry {
    /// [`Registry::compile_at`] without a kernel to ask, for replays, tests and benches: no server is this machine, and
    /// the source of a tunnel is the configured one or unspecified.
    ///
    /// # Errors
    /// [`CompileError`]; the registry is unchanged then.
    pub fn compile(
        &mut self,
        desired: &Desired,
        ports: Vec<Port>,
        next_hop: impl Fn(IpAddr) -> Option<NextHop>,
    ) -> Result<Compiled, CompileError> {
        self.compile_at(desired, ports, Duration::ZERO, |service, server| {
            let unspecified = match server.address {
                IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            };
            let source = service.tunnel.source_towards(server.address).or(Some(unspecified));
            Whereabouts { hop: next_hop(server.address), source, ..Whereabouts::default() }
        })
    }

    /// Compiles `desired`. Servers that stay keep their id, so that their flows stay; where they are comes from
    /// `whereabouts`. `now` is any clock that never goes back.
    ///
    /// # Errors
    /// [`CompileError`]; the registry is unchanged then.
    pub fn compile_at(
        &mut self,
        desired: &Desired,
        ports: Vec<Port>,
        now: Duration,
        whereabouts: impl Fn(&Service, &Server) -> Whereabouts,
    ) -> Result<Compiled, CompileError> {
        let wanted = desired.services.iter().map(|s| s.servers.len()).sum();
        if wanted > MAX_SERVERS {
            return Err(CompileError::TooManyServers { wanted });
        }
        self.locals.assign(desired, now)?;
        let mut removed = Vec::new();
        let mut added = Vec::new();
        let mut before = std::mem::take(&mut self.services);
        let mut entries = Vec::with_capacity(desired.services.len());
        let mut placed: HashMap<u32, Placed> = HashMap::new();
        // Slots that go are given out again only after all that stay were taken over.
        let tunnels: HashSet<IpAddr> = desired.tunnel_servers().collect();
        self.paths.retain(|address, _| tunnels.contains(address));
        let wanted: HashMap<ServiceKey, &Service> = desired.services.iter().map(|s| (s.key, s)).collect();
        let mut gone: Vec<u32> = Vec::new();
        for (key, record) in &before {
            let stays = |known| wanted.get(key).is_some_and(|s| s.servers.iter().any(|n| identity(n) == known));
            gone.extend(record.servers.iter().filter(|r| !stays(r.identity)).map(|r| r.id));
        }
        gone.sort_unstable();
        for id in gone {
            self.release(id);
            removed.push(id);
        }
        for service in &desired.services {
            let old = before.remove(&service.key);
            let mut record = self.carry_service(service, old, &mut added);
            let port = service.key.ports.as_single().unwrap_or(0);
            let configured: HashMap<Identity, &Server> = service.servers.iter().map(|s| (identity(s), s)).collect();
            let mut members = Vec::with_capacity(record.servers.len());
            for known in &record.servers {
                let Some(server) = configured.get(&known.identity) else { continue };
                let at = place(service, server, whereabouts(service, server), &self.locals, &mut self.paths);
                members.push(Member {
                    id: known.id,
                    weight: known.weight,
                    last_weight: known.last_weight,
                    reachable: at.way == Way::Local || at.hop.is_some_and(|h| usize::from(h.port) < ports.len()),
                    address: server.address,
                    port: server.port.unwrap_or(port),
                    real: known.id,
                    upper: server.upper.unwrap_or(0),
                    lower: server.lower.unwrap_or(0),
                    load: known.load.clone(),
                });
                placed.insert(known.id, at);
            }
            let (selector, stateless) = record.selectors(&members);
            entries.push(ServiceEntry {
                selector,
                stateless,
                ghosts: Vec::new(),
                unit: 0,
                state: record.state.clone(),
                config: service.clone(),
                members,
            });
            self.services.insert(service.key, record);
        }
        self.generation += 1;
        let snapshot = Snapshot::new(
            self.generation,
            ports,
            entries,
            &desired.timeouts,
            self.locals.snapshot(),
            &desired.addresses,
            |_, member| placed[&member.id].clone(),
        );
        Ok(Compiled { snapshot, added, removed })
    }

    fn carry_service(&mut self, service: &Service, old: Option<ServiceRecord>, added: &mut Vec<u32>) -> ServiceRecord {
        let (state, old_servers, built) = match old {
            Some(old) => {
                if old.scheduler != service.scheduler {
                    old.state.cursor.reset();
                }
                (old.state, old.servers, old.built)
            }
            None => (Arc::default(), Vec::new(), None),
        };
        let before: Vec<Listed> = old_servers.iter().map(|r| (r.id, r.weight)).collect();
        let configured: HashMap<Identity, u16> = service.servers.iter().map(|s| (identity(s), s.weight)).collect();
        let mut servers: Vec<Record> = old_servers
            .into_iter()
            .filter_map(|record| {
                let weight = u32::from(*configured.get(&record.identity)?);
                let last_weight = if weight > 0 { weight } else { record.last_weight };
                Some(Record { weight, last_weight, ..record })
            })
            .collect();
        let known: HashSet<Identity> = servers.iter().map(|record| record.identity).collect();
        for server in service.servers.iter().filter(|server| !known.contains(&identity(server))) {
            let id = self.take_slot();
            added.push(id);
            let (identity, weight) = (identity(server), u32::from(server.weight));
            servers.insert(0, Record { identity, id, weight, last_weight: weight, load: Arc::default() });
        }
        let after: Vec<Listed> = servers.iter().map(|r| (r.id, r.weight)).collect();
        carry_over(service.scheduler, &state.cursor, &before, &after);
        ServiceRecord { scheduler: service.scheduler, state, servers, built }
    }

    /// A free slot, with a generation that no live flow can name.
    fn take_slot(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            let state = &mut self.slots[usize::from(slot)];
            *state = (state.0.checked_add(1).unwrap_or(1), true);
            return server_id(slot, state.0);
        }
        self.slots.push((1, true));
        server_id((self.slots.len() - 1) as u16, 1)
    }

    fn release(&mut self, id: u32) {
        let slot = slot_of(id);
        self.slots[slot].1 = false;
        self.free.insert(0, slot as u16);
    }
}

#[cfg(test)]
mod tests;
