//! From a configuration and next hops to what the workers and the filters do: compile, widen, swap, narrow.
//!
//! Owns the order of a change, so that no packet of a service that stays is lost: the filters take what is new before
//! the workers know it, and leave what is old only when no worker can want it any more. Never reads a file.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::compile::{CompileError, Drain, Registry, Whereabouts};
use super::counters::{Counters, Counts};
use super::groups::Groups;
use super::nexthop::Facts;
use super::persistence;
use super::workers::Workers;
use crate::dataplane::access::Table;
use crate::dataplane::io::facts::InterfaceFacts;
use crate::dataplane::io::open::Gate;
use crate::dataplane::snapshot::{Port, Snapshot, slot_of};
use crate::dataplane::worker::Shared;
use crate::dataplane::xdp::{FilterEntry, FilterError, FilterTable};
use crate::model::{
    Desired, Mastery, Method, Place, PortRange, RouterSlot, Server, ServerKey, Service, ServiceKey, VirtualRouter,
};

/// Why a change was not made. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The filters cannot hold it.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The snapshot cannot hold it.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// The state of the data plane as this program made it.
pub struct Applied {
    registry: Registry,
    /// What each filter takes.
    pub gates: Vec<Gate>,
    groups: Groups,
    /// What servers and services counted.
    pub counters: Counters,
    /// Who has persistent clients, and how they are told apart.
    units: persistence::Units,
    /// Clients of what is gone are forgotten once every worker has this generation.
    forgetting: Option<u64>,
    /// What the filters shall take once every worker has this generation.
    narrowing: Option<(u64, FilterTable)>,
}

/// What the machine is like at the moment of a change.
pub struct Machine<'k> {
    /// The data plane's ports.
    pub ports: Vec<Port>,
    /// Addresses that the kernel has.
    pub addresses: &'k HashSet<IpAddr>,
    /// Time since any moment before the start.
    pub now: Duration,
}

/// What the filters must take for a configuration: the services' packets, the answers of servers by NAT, errors about
/// packets in tunnels, and all that concerns owned addresses. Clients of services are judged where any can be denied. For a local address that the kernel has (`kernel`) the kernel goes on to answer ARP.
pub fn filter_table(desired: &Desired, kernel: &HashSet<IpAddr>) -> FilterTable {
    let (mut entries, mut replies) = (BTreeSet::new(), BTreeSet::new());
    let mut owned: BTreeSet<IpAddr> = desired.addresses.iter().copied().collect();
    // Whoever is master: the workers see that for themselves. On an interface of the kernel they are the kernel's.
    let in_engine = desired.vrrp.routers.iter().filter(|router| router.place == Place::Engine);
    owned.extend(in_engine.flat_map(VirtualRouter::all_addresses).map(|known| known.address));
    for service in &desired.services {
        let key = service.key;
        entries.insert(FilterEntry { address: key.address, protocol: key.protocol, ports: key.ports });
        owned.insert(key.address);
        for address in &service.local_addresses {
            let ports = desired.engine.local_ports;
            entries.insert(FilterEntry { address: *address, protocol: key.protocol, ports });
            if !kernel.contains(address) {
                owned.insert(*address);
            }
        }
        replies.extend(service.all_servers().filter_map(|server| answers(key, server)));
    }
    let judged: BTreeSet<IpAddr> = match desired.access.denies_any() {
        true => desired.services.iter().map(|service| service.key.address).collect(),
        false => BTreeSet::new(),
    };
    FilterTable {
        entries: entries.into_iter().collect(),
        judged: judged.into_iter().collect(),
        owned: owned.into_iter().collect(),
        replies: replies.into_iter().collect(),
        tunnels: desired.tunnel_servers().collect::<BTreeSet<_>>().into_iter().collect(),
    }
}

/// What a server by NAT sends to the clients of a service.
fn answers(key: ServiceKey, server: &Server) -> Option<FilterEntry> {
    let ports = server.port.map_or(key.ports, PortRange::single);
    let entry = FilterEntry { address: server.address, protocol: key.protocol, ports };
    (server.method == Method::Nat).then_some(entry)
}

/// The table with the answers of removed servers that have flows left: the kernel would forward them to clients as they are,
/// and a client resets a connection of which it does not know.
fn with_ghosts<'g>(mut table: FilterTable, ghosts: impl Iterator<Item = (ServiceKey, &'g Server)>) -> FilterTable {
    table.replies.extend(ghosts.filter_map(|(key, server)| answers(key, server)));
    table.replies.sort_unstable();
    table.replies.dedup();
    table
}

/// The data plane's ports: what the kernel says now, else what it said at start.
pub fn ports(desired: &Desired, facts: &Facts, at_start: &[InterfaceFacts]) -> Vec<Port> {
    desired
        .interfaces
        .iter()
        .zip(at_start)
        .map(|(interface, start)| {
            let link = facts.links.values().find(|link| link.name == interface.name);
            let mac = link.and_then(|link| link.mac).unwrap_or(start.mac);
            let mut port = Port::new(mac, link.map_or(start.mtu, |link| link.mtu), true);
            // The router may be in a VLAN of the interface.
            let is_on = |router: &&VirtualRouter| router.interface.split('.').next() == Some(&interface.name);
            let routers = desired.vrrp.routers.iter().filter(|router| router.virtual_mac);
            routers.filter(is_on).for_each(|router| port.add_virtual(router.mac()));
            port
        })
        .collect()
}

impl Applied {
    /// The first snapshot, while every filter is still empty. Call [`Applied::open`] when the workers run.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub fn first(
        gates: Vec<Gate>,
        groups: Groups,
        desired: &Desired,
        machine: Machine<'_>,
        whereabouts: impl Fn(&Service, &Server) -> Whereabouts,
    ) -> Result<(Applied, Snapshot), ApplyError> {
        let mut registry = Registry::default();
        let compiled = registry.compile_at(desired, machine.ports, machine.now, whereabouts)?;
        let mut counters = Counters::default();
        counters.change(&compiled.snapshot, &compiled.added, &[], |_| [0; 5]);
        let units = persistence::units(&compiled.snapshot);
        Ok((Applied { registry, gates, groups, counters, units, forgetting: None, narrowing: None }, compiled.snapshot))
    }

    /// Opens the filters: from here on packets are taken from the kernel.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub fn open(&mut self, desired: &Desired, kernel: &HashSet<IpAddr>) -> Result<(), ApplyError> {
        let access = self.registry.access(&desired.access);
        self.set_access(&access)?;
        Ok(self.widen(&filter_table(desired, kernel))?)
    }

    /// Makes a change. The generation of the new snapshot.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing changed then.
    pub fn change(
        &mut self,
        desired: &Desired,
        machine: Machine<'_>,
        whereabouts: impl Fn(&Service, &Server) -> Whereabouts,
        shared: &Arc<Shared>,
        workers: &Workers,
    ) -> Result<u64, ApplyError> {
        let table = filter_table(desired, machine.addresses);
        let before =
            self.narrowing.as_ref().map(|(_, table)| table).or_else(|| self.gates.first().map(Gate::table)).cloned();
        let same = before.as_ref().is_some_and(|before| before.same(&table));
        // The lists first: who is judged is judged by the new ones. Where they go, they admit everybody until `narrow`.
        let lists = self.gates.first().map(Gate::access).unwrap_or_default();
        let access = self.registry.access(&desired.access);
        self.set_access(&access)?;
        if !same && let Err(error) = self.widen(&table) {
            self.narrow(&before.clone().unwrap_or_default());
            self.keep_access(&lists);
            return Err(error.into());
        }
        let compiled = match self.registry.compile_at(desired, machine.ports, machine.now, whereabouts) {
            Ok(compiled) => compiled,
            Err(error) => {
                self.narrow(&before.unwrap_or_default());
                self.keep_access(&lists);
                return Err(error.into());
            }
        };
        self.counters.change(&compiled.snapshot, &compiled.added, &compiled.removed, |id| totals(workers, id));
        let generation = compiled.snapshot.generation;
        let units = persistence::units(&compiled.snapshot);
        shared.snapshot.store(Arc::new(compiled.snapshot));
        if units != self.units {
            self.units = units;
            self.forgetting = Some(generation);
        }
        let table = with_ghosts(table, self.registry.ghosts());
        if !before.is_some_and(|before| before.same(&table)) {
            self.narrowing = Some((generation, table));
        }
        Ok(generation)
    }

    /// Who is master: the bits that the workers read.
    pub fn mastery(&self) -> &Arc<Mastery> {
        &self.registry.routers.mastery
    }

    /// The number of a virtual router of the newest snapshot.
    pub fn slot(&self, router: &str) -> Option<RouterSlot> {
        self.registry.routers.slot(router)
    }

    /// When a change is due though nothing changed: a server has drained for long enough. By the clock of [`Machine::now`].
    pub const fn next_deadline(&self) -> Option<Duration> {
        self.registry.next_deadline()
    }

    /// Whether a change would forget servers that were removed and have no flows left.
    pub fn has_idle_ghosts(&self) -> bool {
        self.registry.has_idle_ghosts()
    }

    /// Servers that drain and have no flows left.
    pub fn drained(&self) -> impl Iterator<Item = ServerKey> {
        self.registry.drained()
    }

    /// Servers that drain, by their stable ids.
    pub fn drains(&self) -> HashMap<u32, Drain> {
        self.registry.drains()
    }

    /// Whether filters wait to be narrowed, or clients to be forgotten.
    pub fn is_settling(&self) -> bool {
        self.narrowing.is_some() || self.forgetting.is_some()
    }

    /// Narrows the filters and forgets clients if every worker has taken the newest snapshot. To be called from time to time.
    pub fn settle(&mut self, workers: &Workers) {
        if self.forgetting.is_some_and(|generation| workers.oldest_generation() >= generation) {
            self.forgetting = None;
            persistence::settle(&workers.director, &self.units);
        }
        if let Some((generation, table)) = self.narrowing.take() {
            if workers.oldest_generation() >= generation {
                self.narrow(&table);
            } else {
                self.narrowing = Some((generation, table));
            }
        }
    }

    /// Gives all filters these lists, or none.
    fn set_access(&mut self, access: &Arc<Table>) -> Result<(), FilterError> {
        let before = self.gates.first().map(Gate::access).unwrap_or_default();
        let done = self.gates.iter_mut().try_for_each(|gate| gate.set_access(access));
        if done.is_err() {
            self.keep_access(&before);
        }
        done
    }

    /// Takes the lists of before again, after a change that was not made.
    fn keep_access(&mut self, before: &Arc<Table>) {
        for gate in &mut self.gates {
            if let Err(error) = gate.set_access(before) {
                tracing::error!("the filter has other access lists than it should: {error}");
            }
        }
    }

    fn widen(&mut self, table: &FilterTable) -> Result<(), FilterError> {
        // First the groups: what is taken must arrive.
        self.groups.widen(table);
        self.gates.iter_mut().try_for_each(|gate| gate.widen(table))
    }

    fn narrow(&mut self, table: &FilterTable) {
        for gate in &mut self.gates {
            if let Err(error) = gate.narrow(table) {
                // What is taken beyond the table is dropped and counted as `not-ours`.
                tracing::error!("the filter takes more than it should: {error}");
            }
        }
        self.groups.narrow(table);
    }
}

/// What all workers counted in the slot of a server, as in [`Counts`].
pub fn totals(workers: &Workers, id: u32) -> Counts {
    workers.list.iter().filter_map(|worker| worker.stats.servers.get(slot_of(id))).fold([0; 5], |sum, server| {
        let counters = [&server.packets, &server.bytes, &server.connections, &server.out_packets, &server.out_bytes];
        [0, 1, 2, 3, 4].map(|at: usize| sum[at] + counters[at].get())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::snapshot::NextHop;
    use crate::model::{MacAddr, Protocol, Scheduler};

    #[test]
    fn answers_of_a_removed_server_are_taken_while_it_has_flows() {
        let key = |port| ServiceKey {
            address: IpAddr::from([192, 0, 2, 10]),
            protocol: Protocol::Tcp,
            ports: PortRange::single(port),
        };
        let server = |last| Server { method: Method::Nat, ..Server::dr(IpAddr::from([10, 0, 0, last]), 1) };
        let mut desired = Desired::of(vec![Service::dr("web", key(80), Scheduler::WLC, vec![server(1), server(2)])]);
        let mut registry = Registry::default();
        let mut table = |desired: &Desired, flows: i32| {
            let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
            let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
            let compiled = registry.compile(desired, vec![port], |_| Some(hop)).expect("compiles");
            let load = &compiled.snapshot.services[0].all().find(|m| m.address == IpAddr::from([10, 0, 0, 2]));
            if let Some(member) = load {
                match flows {
                    1 => member.load.open(false),
                    -1 => member.load.close(false),
                    _ => {}
                }
            }
            with_ghosts(filter_table(desired, &HashSet::new()), registry.ghosts()).replies.len()
        };
        assert_eq!(table(&desired, 1), 2);
        desired.services[0].servers.pop();
        assert_eq!(table(&desired, 0), 2);
        assert_eq!(table(&desired, -1), 2);
        assert_eq!(table(&desired, 0), 1, "its last flow has ended");
    }
}
