//! From counters, facts and next hops to a [`Status`].
//!
//! Owns nothing but the gathering. Never changes anything, and reads counters as they run: numbers of one status can
//! be microseconds apart.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{Applied, totals};
use super::nexthop::{Facts, Reach, Reason};
use super::status::{
    InterfaceStatus, LocalPortsStatus, NextHopStatus, QueueStatus, RefusedMode, ServerStatus, ServiceStatus,
    Unreachable, WorkerStatus,
};
use super::workers::Workers;
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
            directory_full: stats.directory_full.get(),
            local_ports: stats.local_ports.get(),
            local_port_capacity: locals * share_of_ports(desired.engine.local_ports, number, workers.list.len()),
        });
    }
    all
}

/// Dropped packets by reason, over all workers.
pub fn drops(workers: &Workers) -> BTreeMap<String, u64> {
    let count = |reason: DropReason| -> u64 {
        workers.list.iter().filter_map(|worker| worker.stats.drops.get(reason as usize)).map(|drops| drops.get()).sum()
    };
    DropReason::ALL.iter().map(|reason| (reason.name().to_owned(), count(*reason))).filter(|(_, n)| *n > 0).collect()
}

/// The services of a snapshot, with their servers in the order of the file. `now` by the workers' clock.
pub fn services(
    snapshot: &Snapshot,
    desired: &Desired,
    applied: &Applied,
    workers: &Workers,
    now: u32,
    reach: impl Fn(&Service, &Server) -> Reach,
) -> Vec<ServiceStatus> {
    let mut all = Vec::new();
    for service in &snapshot.services {
        let config = &service.config;
        let servers: Vec<ServerStatus> = config
            .servers
            .iter()
            .map(|configured| {
                let member = member(service, configured);
                let tunnel = member.and_then(|member| snapshot.target(member.id)?.tunnel.as_ref());
                let path_mtu = tunnel.and_then(|tunnel| tunnel.path().get(now));
                let reach = reach(config, configured);
                ServerStatus { path_mtu, ..server(configured, member, desired, applied, workers, reach) }
            })
            .collect();
        let flags = schedule::flags(config.scheduler).into_iter().map(str::to_owned).collect();
        let sum = |of: fn(&ServerStatus) -> u64| servers.iter().map(of).sum();
        all.push(ServiceStatus {
            name: config.name.clone(),
            address: config.key.address.to_string(),
            protocol: config.key.protocol,
            port: config.key.ports.to_string(),
            scheduler: config.scheduler.name.to_owned(),
            flags,
            method: config.method,
            packets: sum(|server| server.packets),
            bytes: sum(|server| server.bytes),
            out_packets: sum(|server| server.out_packets),
            out_bytes: sum(|server| server.out_bytes),
            connections: sum(|server| server.connections),
            servers,
        });
    }
    all
}

/// A configured server in the snapshot.
fn member<'s>(service: &'s ServiceEntry, configured: &Server) -> Option<&'s Member> {
    let port = configured.port.or(service.config.key.ports.as_single()).unwrap_or(0);
    service.members.iter().find(|member| (member.address, member.port) == (configured.address, port))
}

fn server(
    configured: &Server,
    member: Option<&Member>,
    desired: &Desired,
    applied: &Applied,
    workers: &Workers,
    reach: Reach,
) -> ServerStatus {
    let [packets, bytes, connections, out_packets, out_bytes] = member.map_or([0; 5], |member| {
        let base = applied.baselines.get(&member.id).copied().unwrap_or_default();
        let now = totals(workers, member.id);
        [0, 1, 2, 3, 4].map(|at: usize| now[at].saturating_sub(base[at]))
    });
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
        weight: configured.weight,
        next_hop,
        unreachable,
        active: member.map_or(0, |member| member.load.active()),
        inactive: member.map_or(0, |member| member.load.inactive()),
        connections,
        packets,
        bytes,
        out_packets,
        out_bytes,
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
