//! From the desired services to the snapshot that workers read.
//!
//! Owns what must outlive snapshots: the stable ids of servers, their loads, and where each service's sequence
//! continues. Never reads a file, a socket or a clock, and never talks to workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::dataplane::flow::state::timeouts_ms;
use crate::dataplane::schedule::{Cursor, Listed, Load, Member, Selector, carry_over};
use crate::dataplane::snapshot::{
    Endpoint, NextHop, Placed, Port, ServiceEntry, Snapshot, Target, Way, server_id, slot_of,
};
use crate::dataplane::stats::MAX_SERVERS;
use crate::model::{Desired, Scheduler, Server, Service, ServiceKey};

/// How one server of a service is reached.
fn place(service: &Service, address: IpAddr, hop: Option<NextHop>) -> Placed {
    let server = Endpoint { address, port: None };
    let target = Target {
        server,
        service: Endpoint { address: service.key.address, port: None },
        tunnel: None,
        mss: service.mss_clamp.unwrap_or(0),
        proxy: service.proxy_protocol,
        locals: Arc::from([]),
    };
    Placed { hop, way: Way::Dr, target }
}

/// More servers than slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} servers configured, at most {MAX_SERVERS} are supported; split the services over two appliances")]
pub struct TooManyServers {
    /// Servers in the configuration, over all services.
    pub wanted: usize,
}

/// A server as it is known from one snapshot to the next.
#[derive(Clone, Debug)]
struct Record {
    address: IpAddr,
    id: u32,
    weight: u32,
    last_weight: u32,
    load: Arc<Load>,
}

/// A service as it is known from one snapshot to the next. Servers are in IPVS's order: the one added last comes first.
#[derive(Debug)]
struct ServiceRecord {
    scheduler: Scheduler,
    cursor: Arc<Cursor>,
    servers: Vec<Record>,
}

/// What outlives snapshots.
#[derive(Debug, Default)]
pub struct Registry {
    generation: u64,
    services: HashMap<ServiceKey, ServiceRecord>,
    /// Generation of each slot that was ever used, and whether it is in use.
    slots: Vec<(u16, bool)>,
    free: Vec<u16>,
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
    /// Compiles `desired`. Servers that stay keep their id, so that their flows stay; next hops come from `next_hop`.
    ///
    /// # Errors
    /// [`TooManyServers`]; the registry is unchanged then.
    pub fn compile(
        &mut self,
        desired: &Desired,
        ports: Vec<Port>,
        next_hop: impl Fn(IpAddr) -> Option<NextHop>,
    ) -> Result<Compiled, TooManyServers> {
        let wanted = desired.services.iter().map(|s| s.servers.len()).sum();
        if wanted > MAX_SERVERS {
            return Err(TooManyServers { wanted });
        }
        let mut removed = Vec::new();
        let mut added = Vec::new();
        let mut before = std::mem::take(&mut self.services);
        let mut entries = Vec::with_capacity(desired.services.len());
        let mut placed: HashMap<u32, Placed> = HashMap::new();
        // Slots that go are given out again only after all that stay were taken over.
        let wanted: HashMap<ServiceKey, &Service> = desired.services.iter().map(|s| (s.key, s)).collect();
        let mut gone: Vec<u32> = Vec::new();
        for (key, record) in &before {
            let stays = |address| wanted.get(key).is_some_and(|s| s.servers.iter().any(|n| n.address == address));
            gone.extend(record.servers.iter().filter(|r| !stays(r.address)).map(|r| r.id));
        }
        gone.sort_unstable();
        for id in gone {
            self.release(id);
            removed.push(id);
        }
        for service in &desired.services {
            let old = before.remove(&service.key);
            let record = self.carry_service(service, old, &mut added);
            let port = service.key.ports.as_single().unwrap_or(0);
            let members: Vec<Member> = record
                .servers
                .iter()
                .map(|r| {
                    let hop = next_hop(r.address);
                    placed.insert(r.id, place(service, r.address, hop));
                    Member {
                        id: r.id,
                        weight: r.weight,
                        last_weight: r.last_weight,
                        reachable: hop.is_some_and(|h| usize::from(h.port) < ports.len()),
                        address: r.address,
                        port,
                        load: r.load.clone(),
                    }
                })
                .collect();
            entries.push(ServiceEntry {
                selector: Selector::new(service.scheduler, &members),
                cursor: record.cursor.clone(),
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
            timeouts_ms(&desired.timeouts),
            Vec::new(),
            &desired.addresses,
            |_, member| placed[&member.id].clone(),
        );
        Ok(Compiled { snapshot, added, removed })
    }

    fn carry_service(&mut self, service: &Service, old: Option<ServiceRecord>, added: &mut Vec<u32>) -> ServiceRecord {
        let (cursor, old_servers) = match old {
            Some(old) if old.scheduler == service.scheduler => (old.cursor, old.servers),
            Some(old) => (Arc::default(), old.servers),
            None => (Arc::default(), Vec::new()),
        };
        let before: Vec<Listed> = old_servers.iter().map(|r| (r.id, r.weight)).collect();
        let configured = |address: IpAddr| service.servers.iter().find(|s| s.address == address);
        let mut servers: Vec<Record> = old_servers
            .into_iter()
            .filter_map(|record| {
                let weight = u32::from(configured(record.address)?.weight);
                let last_weight = if weight > 0 { weight } else { record.last_weight };
                Some(Record { weight, last_weight, ..record })
            })
            .collect();
        for Server { address, weight, .. } in &service.servers {
            if servers.iter().any(|r| r.address == *address) {
                continue;
            }
            let id = self.take_slot();
            added.push(id);
            let weight = u32::from(*weight);
            servers.insert(0, Record { address: *address, id, weight, last_weight: weight, load: Arc::default() });
        }
        let after: Vec<Listed> = servers.iter().map(|r| (r.id, r.weight)).collect();
        carry_over(service.scheduler, &cursor, &before, &after);
        ServiceRecord { scheduler: service.scheduler, cursor, servers }
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
mod tests {
    use super::*;
    use crate::model::{EngineSettings, MacAddr, PortRange, Protocol, Timeouts};

    fn desired(servers: &[(u8, u16)]) -> Desired {
        let servers = servers.iter().map(|(n, weight)| Server::dr(IpAddr::from([10, 0, 0, *n]), *weight)).collect();
        let key = ServiceKey {
            address: IpAddr::from([192, 0, 2, 10]),
            protocol: Protocol::Tcp,
            ports: PortRange::single(80),
        };
        Desired {
            engine: EngineSettings::default(),
            timeouts: Timeouts::default(),
            control_socket: "/x".into(),
            interfaces: Vec::new(),
            neighbors: Vec::new(),
            addresses: Vec::new(),
            services: vec![Service::dr("web", key, Scheduler::Wlc, servers)],
        }
    }

    fn compile(registry: &mut Registry, servers: &[(u8, u16)]) -> Compiled {
        let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
        let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
        registry.compile(&desired(servers), vec![port], |_| Some(hop)).expect("compiles")
    }

    fn ids(compiled: &Compiled) -> Vec<(u8, u32)> {
        let last = |m: &Member| match m.address {
            IpAddr::V4(a) => a.octets()[3],
            IpAddr::V6(_) => 0,
        };
        compiled.snapshot.services[0].members.iter().map(|m| (last(m), m.id)).collect()
    }

    #[test]
    fn servers_that_stay_keep_their_id_and_load() {
        let mut registry = Registry::default();
        let first = compile(&mut registry, &[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(ids(&first), [(3, 0x1_0002), (2, 0x1_0001), (1, 0x1_0000)]);
        first.snapshot.services[0].members[0].load.open(true);
        let second = compile(&mut registry, &[(4, 1), (3, 7), (1, 1)]);
        assert_eq!(second.removed, [0x1_0001]);
        // Server 4 takes the slot of server 2 under a new generation, and IPVS's list order holds.
        assert_eq!(ids(&second), [(4, 0x2_0001), (3, 0x1_0002), (1, 0x1_0000)]);
        assert_eq!(second.snapshot.services[0].members[1].load.active(), 1);
        assert!(second.snapshot.server(0x1_0001).is_none());
        assert!(second.snapshot.server(0x2_0001).is_some());
    }

    #[test]
    fn a_quiescent_server_remembers_its_weight() {
        let mut registry = Registry::default();
        compile(&mut registry, &[(1, 5)]);
        let drained = compile(&mut registry, &[(1, 0)]);
        let member = &drained.snapshot.services[0].members[0];
        assert_eq!((member.weight, member.last_weight), (0, 5));
    }

    #[test]
    fn generations_skip_zero_when_they_wrap() {
        let mut registry = Registry { slots: vec![(u16::MAX, false)], free: vec![0], ..Registry::default() };
        assert_eq!(registry.take_slot(), 0x1_0000);
    }

    #[test]
    fn too_many_servers_are_refused() {
        let mut registry = Registry::default();
        let mut config = desired(&[]);
        let server = |n: u32| Server::dr(IpAddr::from((n + 0x0a00_0000).to_be_bytes()), 1);
        config.services[0].servers = (0..=MAX_SERVERS as u32).map(server).collect();
        assert_eq!(
            registry.compile(&config, Vec::new(), |_| None).map(|_| ()),
            Err(TooManyServers { wanted: MAX_SERVERS + 1 })
        );
    }
}
