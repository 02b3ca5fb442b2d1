//! Workers, interfaces and drops for the status page.
//!
//! Owns their form. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::control::show::drops::meaning;
use crate::control::status::{InterfaceStatus, QueueStatus, RefusedMode, WorkerStatus};

/// A worker.
#[derive(Debug, Serialize)]
pub struct Worker {
    worker: usize,
    core: usize,
    running: bool,
    /// 0 to 1.
    load: f64,
    received: u64,
    sent: u64,
    forwarded: u64,
    /// Frames that the kernel dropped because the worker was late.
    late: u64,
    /// Frames that found the transmit ring full.
    full: u64,
    /// Frames handed to other workers.
    handed: u64,
    flows: u64,
    flows_of: u64,
    unproven: u64,
}

/// An interface with its rings.
#[derive(Debug, Serialize)]
pub struct Interface<'s> {
    name: &'s str,
    driver: &'s str,
    up: bool,
    mtu: u32,
    queues: &'s [QueueStatus],
    refused: &'s [RefusedMode],
    taken: u64,
    passed: u64,
    no_socket: u64,
    denied: u64,
}

/// Drops for one reason.
#[derive(Debug, Serialize)]
pub struct Dropped<'s> {
    reason: &'s str,
    count: u64,
    means: &'static str,
}

/// The workers.
pub fn workers(all: &[WorkerStatus]) -> Vec<Worker> {
    let one = |worker: &WorkerStatus| Worker {
        worker: worker.worker,
        core: worker.core,
        running: worker.running,
        load: worker.load,
        received: worker.rx_frames,
        sent: worker.tx_frames,
        forwarded: worker.forwarded,
        late: worker.rx_ring_drops,
        full: worker.tx_full,
        handed: worker.handed,
        flows: worker.flows + worker.flows_ipv6,
        flows_of: worker.flow_capacity + worker.flow_capacity_ipv6,
        unproven: worker.unproven,
    };
    all.iter().map(one).collect()
}

/// The interfaces.
pub fn interfaces(all: &[InterfaceStatus]) -> Vec<Interface<'_>> {
    all.iter()
        .map(|interface| Interface {
            name: &interface.name,
            driver: &interface.driver,
            up: interface.up,
            mtu: interface.mtu,
            queues: &interface.queues,
            refused: &interface.refused,
            taken: interface.filter_taken,
            passed: interface.filter_passed,
            no_socket: interface.filter_no_socket,
            denied: interface.filter_denied,
        })
        .collect()
}

/// The drops, the most frequent first.
pub fn drops(all: &BTreeMap<String, u64>) -> Vec<Dropped<'_>> {
    let mut list: Vec<Dropped<'_>> =
        all.iter().map(|(reason, count)| Dropped { reason, count: *count, means: meaning(reason) }).collect();
    list.sort_by(|a, b| b.count.cmp(&a.count).then(a.reason.cmp(b.reason)));
    list
}
