//! From counters, facts and next hops to a [`Status`].
//!
//! Owns nothing but the gathering. Never changes anything, and reads counters as they run: numbers of one status can
//! be microseconds apart.

use std::collections::BTreeMap;

use super::apply::{Applied, totals};
use super::nexthop::{Facts, Reach};
use super::status::{
    InterfaceStatus, NextHopStatus, QueueStatus, RefusedMode, ServerStatus, ServiceStatus, Unreachable, WorkerStatus,
};
use super::workers::Workers;
use crate::dataplane::io::open::IoReport;
use crate::dataplane::snapshot::{ServiceEntry, Snapshot};
use crate::dataplane::verdict::DropReason;
use crate::model::{Desired, IoMode, MacAddr, Scheduler, Server, Service};

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

/// The workers; `loads` has the share of time that each spent on packets of late.
pub fn workers(workers: &Workers, loads: &[f64]) -> Vec<WorkerStatus> {
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

/// The services of a snapshot, with their servers in the order of the file.
pub fn services(
    snapshot: &Snapshot,
    desired: &Desired,
    applied: &Applied,
    workers: &Workers,
    reach: impl Fn(&Service, &Server) -> Reach,
) -> Vec<ServiceStatus> {
    let mut all = Vec::new();
    for service in &snapshot.services {
        let config = &service.config;
        let servers: Vec<ServerStatus> = config
            .servers
            .iter()
            .map(|configured| server(configured, service, desired, applied, workers, reach(config, configured)))
            .collect();
        let flags = match config.scheduler {
            Scheduler::Mh { port, fallback, .. } => [(port, "mh-port"), (fallback, "mh-fallback")]
                .into_iter()
                .filter(|(set, _)| *set)
                .map(|(_, name)| name.to_owned())
                .collect(),
            _ => Vec::new(),
        };
        let sum = |of: fn(&ServerStatus) -> u64| servers.iter().map(of).sum();
        all.push(ServiceStatus {
            name: config.name.clone(),
            address: config.key.address.to_string(),
            protocol: config.key.protocol,
            port: config.key.ports.to_string(),
            scheduler: config.scheduler.name().to_owned(),
            flags,
            method: config.method,
            packets: sum(|server| server.packets),
            bytes: sum(|server| server.bytes),
            connections: sum(|server| server.connections),
            servers,
        });
    }
    all
}

fn server(
    configured: &Server,
    service: &ServiceEntry,
    desired: &Desired,
    applied: &Applied,
    workers: &Workers,
    reach: Reach,
) -> ServerStatus {
    let member = {
        let port = configured.port.or(service.config.key.ports.as_single()).unwrap_or(0);
        service.members.iter().find(|member| (member.address, member.port) == (configured.address, port))
    };
    let [packets, bytes, connections] = member.map_or([0; 3], |member| {
        let base = applied.baselines.get(&member.id).copied().unwrap_or_default();
        let now = totals(workers, member.id);
        [0, 1, 2].map(|at: usize| now[at].saturating_sub(base[at]))
    });
    let interface = |port: u8| desired.interfaces.get(usize::from(port)).map_or(String::new(), |i| i.name.clone());
    let (next_hop, unreachable) = match reach {
        Ok(hop) => {
            let (mac, interface, vlan) = (hop.mac.to_string(), interface(hop.port), hop.vlan);
            (Some(NextHopStatus { mac, interface, vlan }), None)
        }
        Err(why) => (None, Some(Unreachable { reason: why.word().to_owned(), detail: why.to_string() })),
    };
    ServerStatus {
        address: configured.address.to_string(),
        weight: configured.weight,
        next_hop,
        unreachable,
        active: member.map_or(0, |member| member.load.active()),
        inactive: member.map_or(0, |member| member.load.inactive()),
        connections,
        packets,
        bytes,
    }
}

/// Something that a worker saw and someone should look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Same key, same alarm: it is logged once.
    pub key: String,
    /// What it is and what to do.
    pub text: String,
}

/// What the workers saw that someone should look at.
pub fn alarms(workers: &Workers) -> Vec<Alarm> {
    let mut all = Vec::new();
    for worker in &workers.list {
        let conflicts = worker.stats.conflicts.get();
        if conflicts > 0 {
            let [.., a, b, c, d, e, f] = worker.stats.conflict_mac.get().to_be_bytes();
            let mac = MacAddr([a, b, c, d, e, f]);
            all.push(Alarm {
                key: format!("conflict {mac}"),
                text: format!(
                    "another host claims a service address ({conflicts} times), last with the Ethernet address {mac}: \
                     it must have that address on `lo` only, with arp_ignore=1 and arp_announce=2"
                ),
            });
        }
        if worker.stats.drops.get(DropReason::PartialChecksum as usize).is_some_and(|drops| drops.get() > 0) {
            all.push(Alarm {
                key: "partial checksums".to_owned(),
                text: "packets with incomplete checksums are dropped (partial-checksum): a virtual interface leaves \
                       them to nobody; on its sender's end, `ethtool -K DEVICE tx off`"
                    .to_owned(),
            });
        }
    }
    all.sort();
    all.dedup_by(|a, b| a.key == b.key);
    all
}
