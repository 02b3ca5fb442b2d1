//! From counters, facts and next hops to a [`Status`].
//!
//! Owns nothing but the gathering. Never changes anything, and reads counters as they run: numbers of one status can
//! be microseconds apart.

pub mod health;
pub mod neighbors;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::apply::{Applied, totals};
use super::compile::Drain;
use super::counters;
use super::health::watch::Watch;
use super::nexthop::{Facts, Reach, Reason};
use super::status::parts::Question;
use super::status::{
    DrainStatus, InterfaceStatus, LimitedClientsStatus, LimitsStatus, LocalPortsStatus, NextHopStatus,
    PersistenceStatus, QueueStatus, RefusedMode, RemovedStatus, ServerStatus, ServiceStatus, Unreachable, WorkerStatus,
};
use super::workers::{Worker, Workers};
use crate::dataplane::io::open::IoReport;
use crate::dataplane::schedule::{self, Member};
use crate::dataplane::snapshot::{ServiceEntry, Snapshot};
use crate::dataplane::verdict::DropReason;
use crate::model::{Desired, IoMode, PortRange, Server, Service};

/// The interfaces.
pub fn interfaces(report: &IoReport, facts: &Facts, applied: &Applied) -> Vec<InterfaceStatus> {
    let mut all = Vec::new();
    for (port, start) in report.interfaces.iter().enumerate() {
        let link = facts.links.values().find(|link| link.name == start.name);
        let counters = applied.gates.get(port).and_then(|gate| gate.counters().ok()).unwrap_or_default();
        let sockets = report.workers.iter().flat_map(|worker| {
            let mine = worker.sockets.iter().filter(move |socket| usize::from(socket.port) == port);
            mine.map(|socket| QueueStatus { queue: socket.queue, worker: worker.worker, mode: socket.mode })
        });
        let mut queues: Vec<QueueStatus> = sockets.collect();
        if queues.is_empty() {
            // AF_PACKET has no queues: one worker has them all.
            let mode = report.modes.get(port).copied().unwrap_or(IoMode::AfPacket);
            queues.push(QueueStatus { queue: 0, worker: 0, mode });
        }
        queues.sort_by_key(|queue| queue.queue);
        all.push(InterfaceStatus {
            name: start.name.clone(),
            driver: start.driver.clone(),
            mac: link.and_then(|link| link.mac).unwrap_or(start.mac).to_string(),
            mtu: link.map_or(start.mtu, |link| link.mtu),
            up: link.is_some_and(|link| link.up && link.running),
            queues,
            refused: report.refused.iter().map(|r| RefusedMode { mode: r.mode, reason: r.reason.clone() }).collect(),
            filter_passed: counters.passed,
            filter_taken: counters.redirected,
            filter_no_socket: counters.no_socket,
            filter_denied: counters.denied,
        });
    }
    all
}

/// Local addresses of a configuration, each once.
fn local_addresses(desired: &Desired) -> u64 {
    desired.services.iter().flat_map(|service| &service.local_addresses).collect::<BTreeSet<_>>().len() as u64
}

/// Ports of one local address that are a worker's: every `workers`th, beginning with its own number.
fn share_of_ports(ports: PortRange, worker: usize, workers: usize) -> u64 {
    let count = usize::from(ports.last - ports.first) + 1;
    count.saturating_sub(worker).div_ceil(workers.max(1)) as u64
}

/// Ports of local addresses, over all workers.
pub fn local_ports(desired: &Desired, workers: &Workers) -> LocalPortsStatus {
    let (addresses, ports) = (local_addresses(desired), desired.engine.local_ports);
    LocalPortsStatus {
        addresses,
        in_use: workers.list.iter().map(|worker| worker.stats.local_ports.get()).sum(),
        capacity: addresses * share_of_ports(ports, 0, 1),
    }
}

/// The workers; `loads` has the share of time that each spent on packets of late.
pub fn workers(desired: &Desired, workers: &Workers, loads: &[f64]) -> Vec<WorkerStatus> {
    let locals = local_addresses(desired);
    let mut all = Vec::new();
    for (number, worker) in workers.list.iter().enumerate() {
        let (stats, io) = (&worker.stats, worker.stats.io.read());
        all.push(WorkerStatus {
            worker: number,
            core: worker.core,
            running: worker.is_running(),
            load: loads.get(number).copied().unwrap_or(0.0),
            rx_frames: stats.frames.get(),
            tx_frames: io.tx_frames,
            rx_bytes: io.rx_bytes,
            tx_bytes: io.tx_bytes,
            batches: stats.batches.get(),
            sleeps: stats.sleeps.get(),
            forwarded: stats.forwarded.get(),
            replies: stats.replies.get(),
            rx_ring_drops: io.rx_ring_drops,
            tx_full: io.tx_full,
            passed: io.passed,
            tx_kicks: io.tx_kicks,
            rx_wakeups: io.rx_wakeups,
            expired: stats.expired.get(),
            flows: stats.flows_v4.get(),
            flow_capacity: worker.capacity.0,
            flows_ipv6: stats.flows_v6.get(),
            flow_capacity_ipv6: worker.capacity.1,
            evicted: stats.evicted.get(),
            handed: stats.handed.get(),
            taken_over: stats.taken_over.get(),
            kept: stats.kept.get(),
            unmatched: stats.unmatched.get(),
            icmp_errors: stats.icmp_errors.get(),
            unproven: stats.unproven.get(),
            stateless: stats.stateless.get(),
            resets: stats.resets.get(),
            refused: stats.refused.get(),
            cookies_sent: stats.cookies_sent.get(),
            cookies_accepted: stats.cookies_accepted.get(),
            cookies_refused: stats.cookies_refused.get(),
            cookie_flows: stats.cookie_flows.get(),
            cookie_flow_capacity: u64::from(desired.engine.cookie_flows),
            directory_full: stats.directory_full.get(),
            local_ports: stats.local_ports.get(),
            local_port_capacity: locals * share_of_ports(desired.engine.local_ports, number, workers.list.len()),
        });
    }
    all
}

/// Persistent clients.
pub fn persistence(workers: &Workers) -> PersistenceStatus {
    let templates = &workers.director.templates;
    PersistenceStatus {
        clients: templates.len() as u64,
        capacity: templates.capacity() as u64,
        gave_way: templates.gave_way(),
        refused: templates.refused(),
    }
}

/// Dropped packets by reason, over all workers.
pub fn drops(workers: &Workers) -> BTreeMap<String, u64> {
    let count = |reason: DropReason| -> u64 {
        workers.list.iter().filter_map(|worker| worker.stats.drops.get(reason as usize)).map(|drops| drops.get()).sum()
    };
    DropReason::ALL.iter().map(|reason| (reason.name().to_owned(), count(*reason))).filter(|(_, n)| *n > 0).collect()
}

/// Dropped packets by reason, for each worker.
pub fn drops_by_worker(workers: &Workers) -> Vec<BTreeMap<String, u64>> {
    let of = |worker: &Worker| {
        let counted = DropReason::ALL.iter().zip(&worker.stats.drops).map(|(reason, drops)| (reason, drops.get()));
        counted.filter(|(_, count)| *count > 0).map(|(reason, count)| (reason.name().to_owned(), count)).collect()
    };
    workers.list.iter().map(of).collect()
}

/// Client networks that are counted for limits. Looks at the whole table.
pub fn limited_clients(snapshot: &Snapshot, workers: &Workers) -> LimitedClientsStatus {
    let clients = &workers.director.clients;
    LimitedClientsStatus {
        networks: clients.totals(|tally| snapshot.has_tally(tally)).0,
        capacity: clients.capacity() as u64,
        uncounted: workers.list.iter().map(|worker| worker.stats.clients_full.get()).sum(),
    }
}

/// One moment by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The workers' clock: milliseconds, wraps.
    pub clock: u32,
    /// The clock of changes.
    pub elapsed: Duration,
}

/// What checks, what they mean, and of whom it is asked.
#[derive(Clone, Copy)]
pub struct Healths<'a> {
    /// Which services and servers are wanted.
    pub asked: &'a Question,
    /// What they mean.
    pub watch: &'a Watch,
    /// Each with its id.
    pub checks: &'a health::Known<'a>,
}

/// The services of a snapshot that are asked for, with their servers in the order of the file. The sums of a service are those of
/// all its servers, unless servers are named.
pub fn services(
    snapshot: &Snapshot,
    desired: &Desired,
    applied: &Applied,
    workers: &Workers,
    now: Now,
    Healths { asked, watch, checks }: Healths<'_>,
    reach: impl Fn(&Service, &Server) -> Reach,
) -> Vec<ServiceStatus> {
    let mut all = Vec::new();
    let drains = applied.drains();
    for service in snapshot.services.iter().filter(|service| asked.concerns(&service.config)) {
        let (config, members) = (&*service.config, by_ends(service));
        let one = |configured: &Server| {
            let member = members.get(&ends(config, configured)).copied();
            let tunnel = member.and_then(|member| snapshot.target(member.id)?.tunnel.as_ref());
            let path_mtu = tunnel.and_then(|tunnel| tunnel.path().get(now.clock));
            let reach = reach(config, configured).and_then(|hop| match member {
                // Known for a moment, and not yet in force.
                Some(member) if !is_in_force(snapshot, member) => Err(Reason::Unresolved),
                _ => Ok(hop),
            });
            let drain = member.and_then(|member| drain(config, member, &drains, now.elapsed));
            let health = health::server(config, configured, watch, checks, now.elapsed)
                .or_else(|| health::sorry(config, watch.meaning()));
            let (weight, health) = health.map_or((configured.weight, None), |(weight, health)| (weight, Some(health)));
            let server = server(configured, member, desired, applied, workers, reach);
            ServerStatus { path_mtu, drain, weight, health, ..server }
        };
        let is_asked = |server: &&Server| asked.names_server(config, server);
        let servers: Vec<ServerStatus> = config.servers.iter().filter(is_asked).map(one).collect();
        let sorry = config.health.sorry.as_deref().filter(is_asked).map(|configured| Box::new(one(configured)));
        let flags = schedule::flags(config.scheduler).into_iter().map(str::to_owned).collect();
        let counted = applied.counters.of_service(service, |id| totals(workers, id));
        let [packets, bytes, connections, out_packets, out_bytes] = counted;
        all.push(ServiceStatus {
            name: config.name.clone(),
            address: config.key.address.to_string(),
            protocol: config.key.protocol,
            port: config.key.ports.to_string(),
            scheduler: config.scheduler.name.to_owned(),
            flags,
            method: config.method,
            packets,
            bytes,
            out_packets,
            out_bytes,
            connections,
            rates: applied.counters.rates_of_service(&config.key),
            settings: counters::settings(config),
            limits: limits(service),
            quorum: health::quorum(config, watch.meaning()),
            servers,
            sorry,
            removed: if asked.server.is_none() { removed(service) } else { Vec::new() },
        });
    }
    all
}

/// Whether the data plane knows where a server is; of one that serves nobody, `flows_of_down` decides.
fn is_in_force(snapshot: &Snapshot, member: &Member) -> bool {
    snapshot.server(member.id).is_some_and(|entry| entry.reachable) || snapshot.fate(member.id).is_some()
}

/// How far a server has drained.
fn drain(service: &Service, member: &Member, drains: &HashMap<u32, Drain>, now: Duration) -> Option<DrainStatus> {
    let drain = drains.get(&member.id)?;
    let left = |deadline: Duration| deadline.saturating_sub(now).as_millis().div_ceil(1000) as u64;
    Some(DrainStatus {
        flows: member.load.total(),
        of: drain.flows,
        seconds_left: drain.deadline(service).map(left),
        fate: service.fates.drained,
    })
}

/// What a service limits.
fn limits(service: &ServiceEntry) -> Option<LimitsStatus> {
    let limits = &service.config.limits;
    (!limits.is_none()).then(|| LimitsStatus {
        connections: limits.connections.map(|_| service.tally.flows.get()),
        max_connections: limits.connections,
        max_rate: limits.rate.map(|rate| rate.per_second),
        client_max_connections: limits.client_connections,
        client_max_rate: limits.client_rate.map(|rate| rate.per_second),
        refused: service.tally.refused.load(Relaxed),
    })
}

/// Servers that were removed and have flows left.
fn removed(service: &ServiceEntry) -> Vec<RemovedStatus> {
    let of_service = service.config.key.ports.as_single().unwrap_or(0);
    let ghosts = service.ghosts.iter().filter(|ghost| ghost.load.total() > 0);
    let row = |ghost: &Member| RemovedStatus {
        address: ghost.address.to_string(),
        port: Some(ghost.port).filter(|port| *port != of_service),
        flows: ghost.load.total(),
        fate: service.config.fates.removed,
    };
    ghosts.map(row).collect()
}

/// What tells the members of a service apart.
type Ends = (IpAddr, u16);

/// Those of a configured server.
fn ends(service: &Service, configured: &Server) -> Ends {
    (configured.address, configured.port.or(service.key.ports.as_single()).unwrap_or(0))
}

/// The members of a service by their ends.
fn by_ends(service: &ServiceEntry) -> HashMap<Ends, &Member, RandomState> {
    service.members.iter().map(|member| ((member.address, member.port), member)).collect()
}

fn server(
    configured: &Server,
    member: Option<&Member>,
    desired: &Desired,
    applied: &Applied,
    workers: &Workers,
    reach: Reach,
) -> ServerStatus {
    let [packets, bytes, connections, out_packets, out_bytes] =
        member.map_or([0; 5], |member| applied.counters.of_server(member.id, |id| totals(workers, id)));
    let method = if reach == Err(Reason::Local) { "local" } else { configured.method.name() };
    let interface = |port: u8| desired.interfaces.get(usize::from(port)).map_or(String::new(), |i| i.name.clone());
    let (next_hop, unreachable) = match reach {
        Ok(hop) => {
            let (mac, interface, vlan) = (hop.mac.to_string(), interface(hop.port), hop.vlan);
            (Some(NextHopStatus { mac, interface, vlan }), None)
        }
        // Its packets are the kernel's: they need none.
        Err(Reason::Local) => (None, None),
        Err(why) => (None, Some(Unreachable { reason: why.word().to_owned(), detail: why.to_string() })),
    };
    ServerStatus {
        address: configured.address.to_string(),
        port: configured.port,
        method: method.to_owned(),
        configured_method: configured.method.name().to_owned(),
        weight: configured.weight,
        health: None,
        next_hop,
        unreachable,
        active: member.map_or(0, |member| member.load.active()),
        inactive: member.map_or(0, |member| member.load.inactive()),
        connections,
        upper_threshold: configured.upper,
        lower_threshold: configured.lower,
        overloaded: member.is_some_and(|member| member.load.is_overloaded()),
        drain: None,
        packets,
        bytes,
        out_packets,
        out_bytes,
        rates: member.map(|member| applied.counters.rates_of_server(member.id)).unwrap_or_default(),
        path_mtu: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shared_out_whole() {
        for (ports, workers) in [(PortRange { first: 1024, last: 65_535 }, 3), (PortRange { first: 10, last: 12 }, 4)] {
            let shares: Vec<u64> = (0..workers).map(|worker| share_of_ports(ports, worker, workers)).collect();
            let counted: Vec<u64> = (0..workers)
                .map(|worker| {
                    (ports.first..=ports.last).filter(|p| usize::from(p - ports.first) % workers == worker).count()
                        as u64
                })
                .collect();
            assert_eq!(shares, counted);
            assert_eq!(shares.iter().sum::<u64>(), share_of_ports(ports, 0, 1));
        }
    }
}
