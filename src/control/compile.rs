//! From the desired services to the snapshot that workers read.
//!
//! Owns what must outlive snapshots: the stable ids of servers, their loads, where each service's sequence continues, and
//! the slots of local addresses, the prepared access lists. Never reads a file, a socket or a clock, and never talks to workers.

mod departures;
mod life;
mod locals;
mod routers;
mod units;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::control::health::Standing;
use crate::dataplane::access::Table;
use crate::dataplane::director::ServiceState;
use crate::dataplane::limits::Tally;
use crate::dataplane::path_mtu::PathMtu;
use crate::dataplane::rewrite::tunnel::Tunnel;
use crate::dataplane::schedule::{Basis, Load, Member, Selector};
use crate::dataplane::snapshot::{
    Endpoint, MemberIndex, NextHop, Placed, Port, ServiceEntry, Snapshot, Target, Way, server_id, slot_of,
};
use crate::dataplane::stats::MAX_SERVERS;
use crate::model::{Access, Desired, Method, Scheduler, Server, Service, ServiceKey};
use departures::{Clients, Departures};
use life::Counted;
pub use life::Drain;
use locals::Locals;
use routers::Routers;
use units::Units;

/// Where a server is, as the kernel's facts tell it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whereabouts {
    /// Where frames for it leave; `None` while that is not known.
    pub hop: Option<NextHop>,
    /// That is being asked for: whether it can be reached is not known yet.
    pub awaited: bool,
    /// Largest packet on the route to it, in bytes, where the route has a limit of its own.
    pub mtu: Option<u32>,
    /// Outer source address of a tunnel to it.
    pub source: Option<IpAddr>,
    /// It is this machine.
    pub local: bool,
    /// How it stands by its checks, by people and by traffic; `None`: as it is configured, and a sorry server is not needed.
    pub standing: Option<Standing>,
}

impl Whereabouts {
    /// How a server stands.
    fn stands(&self, server: &Server, sorry: bool) -> Standing {
        let weight = if server.drain { 0 } else { u32::from(server.weight) };
        let configured = Standing { weight, takes: true, failed: false, drains: server.drain };
        self.standing.unwrap_or(if sorry { Standing::OUT } else { configured })
    }
}

/// How one server of a service is reached.
fn place(
    service: &Service,
    server: &Server,
    at: Whereabouts,
    locals: &Locals,
    none: &Arc<[u16]>,
    paths: &mut Paths,
) -> Placed {
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
        locals: if way == Way::FullNat { locals.slots(&service.local_addresses) } else { Arc::clone(none) },
    };
    Placed { hop: at.hop.filter(|_| complete), awaited: at.awaited, mtu: at.mtu, way, target, fate: None }
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
pub type Identity = (IpAddr, Option<u16>, Method);

/// What a server is known by from one snapshot to the next.
pub const fn identity(server: &Server) -> Identity {
    (server.address, server.port, server.method)
}

/// Maps and sets that are asked for every server with every change. Nobody from outside chooses their keys.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
type Set<K> = HashSet<K, foldhash::fast::RandomState>;

/// What is known of the paths to servers behind tunnels: the same for all that have one address.
type Paths = Map<IpAddr, Arc<PathMtu>>;

/// A server as it is known from one snapshot to the next.
#[derive(Clone, Debug)]
struct Record {
    id: u32,
    weight: u32,
    last_weight: u32,
    load: Arc<Load>,
    /// As configured, last.
    server: Server,
    /// It is the service's sorry server, which is no server of the service for anybody else.
    sorry: bool,
    /// Where it is now, and how it stands.
    at: Whereabouts,
    stands: Standing,
    /// Since when it drains.
    drain: Option<Drain>,
    /// Number of the first snapshot without it; 0 while it is configured.
    gone_since: u64,
}

impl Record {
    const fn identity(&self) -> Identity {
        identity(&self.server)
    }
}

/// A service as it is known from one snapshot to the next. Servers are in IPVS's order: the one added last comes first. The
/// sorry server is behind them all, where no sequence passes.
#[derive(Debug)]
struct ServiceRecord {
    scheduler: Scheduler,
    state: Arc<ServiceState>,
    servers: Vec<Record>,
    /// Servers that were removed, while flows of them may be left.
    ghosts: Vec<Record>,
    counted: Counted,
    tally: Arc<Tally>,
    tally_since: u64,
    /// As configured: shared with the snapshots.
    config: Arc<Service>,
    /// Its unit, and how that tells clients apart.
    clients: Clients,
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
    services: Map<ServiceKey, ServiceRecord>,
    /// Generation of each slot that was ever used, and whether it is in use.
    slots: Vec<(u16, bool)>,
    free: Vec<u16>,
    locals: Locals,
    paths: Paths,
    /// Tallies that there ever were.
    tallies: u32,
    /// When the next server has drained for long enough.
    next_deadline: Option<Duration>,
    access: Arc<Table>,
    units: Units,
    departures: Departures,
    /// Numbers of the virtual routers, and the bits of who is master.
    pub routers: Routers,
}

/// A compiled snapshot and what is new in it.
#[derive(Debug)]
pub struct Compiled {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Stable ids of servers that were not in the one before: their slots' counters start from what they show now.
    pub added: Vec<u32>,
    /// Stable ids of servers that are gone, and their flows with them.
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
        let servers: usize = desired.services.iter().map(|s| s.all_servers().count()).sum();
        if servers > MAX_SERVERS {
            return Err(CompileError::TooManyServers { wanted: servers });
        }
        self.locals.assign(desired, now)?;
        self.units.assign(desired, now);
        self.routers.assign(desired);
        let mut removed = Vec::new();
        let mut added = Vec::new();
        let mut before = std::mem::take(&mut self.services);
        let mut entries = Vec::with_capacity(desired.services.len());
        let mut placed: Map<u32, Placed> = Map::with_capacity_and_hasher(servers, Default::default());
        let no_locals: Arc<[u16]> = Arc::from([]);
        // Slots that go are given out again only after all that stay were taken over.
        let tunnels: Set<IpAddr> = desired.tunnel_servers().collect();
        self.paths.retain(|address, _| tunnels.contains(address));
        let wanted: Map<ServiceKey, &Service> = desired.services.iter().map(|s| (s.key, s)).collect();
        let same = life::who_stays(&before, &wanted);
        let gone = life::who_goes(&before, &wanted, &same);
        for id in &gone {
            self.release(*id);
            removed.push(*id);
        }
        self.next_deadline = None;
        for service in &desired.services {
            let old = before.remove(&service.key);
            let clients = (self.units.unit(service), service.persistence.clone());
            if let Some(old) = &old {
                self.departures.compare(old, Some(&clients), &gone, self.generation + 1, now);
            }
            let mut record = match old {
                Some(old) if same.contains(&service.key) => self.stand(service, old, now, &whereabouts),
                old => self.carry_service(service, old, &gone, &mut added, now, &whereabouts),
            };
            record.clients = clients;
            let port = service.key.ports.as_single().unwrap_or(0);
            let mut member = |known: &Record, ghost: bool| {
                let server = &known.server;
                let at = if ghost { Whereabouts::default() } else { known.at };
                let mut at = place(service, server, at, &self.locals, &no_locals, &mut self.paths);
                let reachable = at.way == Way::Local || at.hop.is_some_and(|h| usize::from(h.port) < ports.len());
                at.fate = known.fate(service, reachable, now);
                at.awaited &= !known.stands.failed;
                let member = Member {
                    id: known.id,
                    weight: known.weight,
                    last_weight: known.last_weight,
                    reachable: reachable && at.fate.is_none() && known.stands.takes,
                    address: server.address,
                    port: server.port.unwrap_or(port),
                    real: self.units.real(service, server),
                    upper: server.upper.unwrap_or(0),
                    lower: server.lower.unwrap_or(0),
                    load: known.load.clone(),
                };
                placed.insert(known.id, at);
                member
            };
            let members: Vec<Member> = record.servers.iter().map(|known| member(known, false)).collect();
            let ghosts: Vec<Member> = record.ghosts.iter().map(|known| member(known, true)).collect();
            let (selector, stateless) = record.selectors(&members);
            entries.push(ServiceEntry {
                selector,
                stateless,
                ghosts,
                unit: self.units.unit(service),
                index: MemberIndex::new(service, &members),
                state: record.state.clone(),
                tally: record.tally.clone(),
                tally_since: record.tally_since,
                config: Arc::clone(&record.config),
                members,
            });
            self.services.insert(service.key, record);
        }
        for old in before.values() {
            self.departures.compare(old, None, &gone, self.generation + 1, now);
        }
        self.generation += 1;
        let mut snapshot = Snapshot::new(
            self.generation,
            ports,
            entries,
            &desired.timeouts,
            self.locals.snapshot(),
            self.routers.ownership(desired),
            |_, member| placed[&member.id].clone(),
        );
        snapshot.access = self.access(&desired.access);
        snapshot.departures = self.departures.list(now);
        Ok(Compiled { snapshot, added, removed })
    }

    /// The access lists as the data plane asks them: the same as the last time where they are the same.
    pub fn access(&mut self, lists: &Arc<Access>) -> Arc<Table> {
        if self.access.lists() != lists {
            self.access = Arc::new(Table::new(lists));
        }
        Arc::clone(&self.access)
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
