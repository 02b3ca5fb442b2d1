//! Limits for new flows, and what their end gives back.
//!
//! Owns what is counted for a flow besides its server's load: its service's and its client's limits, its persistent client.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::Context;
use super::choose::leave_template;
use super::family::Family;
use crate::dataplane::director::Director;
use crate::dataplane::flow::{Flows, flag};
use crate::dataplane::limits::{Admission, ClientLimits, Clients, Network};
use crate::dataplane::snapshot::{ServiceEntry, Snapshot};
use crate::dataplane::verdict::DropReason;
use crate::model::Limits;

/// The limits of each client network of a service; `None` where it has none.
fn client_limits(limits: &Limits) -> Option<ClientLimits> {
    let limits = ClientLimits { connections: limits.client_connections, rate: limits.client_rate };
    (limits.connections.is_some() || limits.rate.is_some()).then_some(limits)
}

/// The network of a client, as a service counts it.
fn network(clients: &Clients, service: &ServiceEntry, client: IpAddr) -> Network {
    let limits = &service.config.limits;
    let prefix = if client.is_ipv4() { limits.client_prefix_v4 } else { limits.client_prefix_v6 };
    clients.network(service.tally.id, client, prefix)
}

/// The flag of flows that count for a limit.
fn counted(limits: &Limits) -> u8 {
    if limits.connections.is_some() || limits.client_connections.is_some() { flag::LIMITED } else { 0 }
}

impl Context<'_> {
    /// Whether a new flow is within the limits of its service and of its client's network; counts it there. The flags that
    /// its entry gets.
    ///
    /// The client comes first: who is over his own limits takes nothing of the others', and no cache line from other workers.
    #[inline]
    pub(super) fn within_limits<E: Family>(&self, service: &ServiceEntry, key: &E::Key) -> Result<u8, DropReason> {
        if service.config.limits.is_none() {
            return Ok(0);
        }
        self.count_for_limits(service, E::source(key)).inspect_err(|_| {
            service.tally.refused.fetch_add(1, Relaxed);
        })
    }

    fn count_for_limits(&self, service: &ServiceEntry, client: IpAddr) -> Result<u8, DropReason> {
        let (limits, clients) = (&service.config.limits, &self.director.clients);
        let of_client = client_limits(limits).map(|limits| (network(clients, service, client), limits));
        if let Some((network, limits)) = of_client {
            match clients.admit(network, limits, self.now, |tally| self.snapshot.has_tally(tally)) {
                Admission::Admitted => {}
                Admission::NoRoom => self.stats.clients_full.add(1),
                Admission::Connections => return Err(DropReason::ClientConnections),
                Admission::Rate => return Err(DropReason::ClientRate),
            }
        }
        let refused = if limits.connections.is_some_and(|most| !service.tally.flows.try_add(most)) {
            DropReason::ServiceConnections
        } else if limits.rate.is_some_and(|rate| !service.state.rate.take(rate, self.now)) {
            if limits.connections.is_some() {
                service.tally.flows.give();
            }
            DropReason::ServiceRate
        } else {
            return Ok(counted(limits));
        };
        if let Some((network, limits)) = of_client {
            clients.give_up(network, limits);
        }
        Err(refused)
    }

    /// Takes back what [`Context::within_limits`] counted for a flow that was not made after all. What it took of a rate
    /// remains taken.
    pub(super) fn give_up_limits<E: Family>(&self, service: &ServiceEntry, key: &E::Key, flags: u8) {
        if flags & flag::LIMITED != 0 {
            give_limits(service, self.director, E::source(key));
        }
    }
}

/// Gives back what was counted for a flow that ended. `entry` is that of the client's direction.
pub(super) fn release<E: Family>(snapshot: &Snapshot, director: &Director, entry: &E, now: u32) {
    if entry.flags() & flag::PERSISTENT != 0 {
        leave_template(snapshot, director, entry, now);
    }
    if entry.flags() & flag::LIMITED != 0
        && let Some(service) = snapshot.service_of(entry.server())
    {
        give_limits(service, director, E::source(&entry.key()));
    }
}

/// A flow less of a service and of its client's network.
#[cold]
fn give_limits(service: &ServiceEntry, director: &Director, client: IpAddr) {
    let limits = &service.config.limits;
    if limits.connections.is_some() {
        service.tally.flows.give();
    }
    if limits.client_connections.is_some() {
        director.clients.give(network(&director.clients, service, client));
    }
}

/// Whether flows must be counted anew by who comes from the snapshot of this generation.
pub(super) fn is_stale(snapshot: &Snapshot, generation: u64) -> bool {
    let mut services = snapshot.services.iter();
    services.any(|service| service.tally_since > generation && counted(&service.config.limits) != 0)
}

/// Counts the flows of services that have another tally since the snapshot of this generation. Looks at every flow.
pub(super) fn recount<E: Family>(
    flows: &mut Flows<E>,
    snapshot: &Snapshot,
    director: &Director,
    generation: u64,
    now: u32,
) {
    flows.for_each_mut(|entry| {
        let Some(service) = snapshot.service_of(entry.server()) else { return };
        let limits = &service.config.limits;
        if entry.flags() & flag::REVERSE != 0 || service.tally_since <= generation || counted(limits) == 0 {
            return;
        }
        if limits.connections.is_some() {
            service.tally.flows.add();
        }
        if limits.client_connections.is_some() {
            let client = network(&director.clients, service, E::source(&entry.key()));
            director.clients.add(client, now, |tally| snapshot.has_tally(tally));
        }
        entry.set_flags(entry.flags() | flag::LIMITED);
    });
}
