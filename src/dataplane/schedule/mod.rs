//! Schedulers: which real server a new flow gets.
//!
//! One file for each family; this one owns what they share: the members of a service in IPVS's order, their loads,
//! and the place where a sequence continues. Members, weights and tables are immutable parts of a snapshot; loads and
//! cursors are atomics shared by all workers and all snapshots, so several workers behave as one director.

pub mod least;
pub mod maglev;
pub mod round_robin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::model::Scheduler;

/// Connections of one real server over all workers.
#[derive(Debug, Default)]
pub struct Load {
    active: AtomicU32,
    inactive: AtomicU32,
}

impl Load {
    /// Counts a new flow.
    pub fn open(&self, active: bool) {
        if active { &self.active } else { &self.inactive }.fetch_add(1, Relaxed);
    }

    /// Counts a flow that ended.
    pub fn close(&self, active: bool) {
        if active { &self.active } else { &self.inactive }.fetch_sub(1, Relaxed);
    }

    /// Moves a flow between active and inactive.
    pub fn shift(&self, to_active: bool) {
        self.open(to_active);
        self.close(!to_active);
    }

    /// Flows in ESTABLISHED (`ActiveConn`).
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// All other flows (`InActConn`).
    pub fn inactive(&self) -> u32 {
        self.inactive.load(Relaxed)
    }
}

/// A real server as its service's scheduler sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Stable id of the server.
    pub id: u32,
    /// Weight; 0 takes no new flows.
    pub weight: u32,
    /// The last weight that was not 0: Maglev's table keeps a quiescent server's share.
    pub last_weight: u32,
    /// Whether its next hop is resolved.
    pub reachable: bool,
    /// Its own address.
    pub address: std::net::IpAddr,
    /// Its port, host order; 0 where the service has a range.
    pub port: u16,
    /// Its connections.
    pub load: Arc<Load>,
}

impl Member {
    /// Whether it may take a new flow.
    pub fn is_available(&self) -> bool {
        self.weight > 0 && self.reachable
    }
}

/// What a hashing scheduler looks at.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The client's address as 32 bits (see [`fold_address`]).
    pub folded_address: u32,
    /// The client's port, host order.
    pub port: u16,
}

/// An address as the 32 bits that IPVS's hashing schedulers use: an IPv4 address, or the xor of an IPv6 address's
/// words, host order.
pub fn fold_address(address: std::net::IpAddr) -> u32 {
    match address {
        std::net::IpAddr::V4(a) => u32::from(a),
        std::net::IpAddr::V6(a) => {
            let bits = u128::from(a);
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

/// Where a service's sequence continues: the id of the server chosen last (0: the head of the list) and wrr's current
/// weight. Survives snapshots.
#[derive(Debug, Default)]
pub struct Cursor(AtomicU64);

impl Cursor {
    fn load(&self) -> (u32, u32) {
        let word = self.0.load(Relaxed);
        ((word >> 32) as u32, word as u32)
    }

    fn swap(&self, old: (u32, u32), new: (u32, u32)) -> bool {
        let pack = |(server, weight): (u32, u32)| u64::from(server) << 32 | u64::from(weight);
        self.0.compare_exchange_weak(pack(old), pack(new), Relaxed, Relaxed).is_ok()
    }

    fn update(&self, mut change: impl FnMut((u32, u32)) -> (u32, u32)) {
        loop {
            let old = self.load();
            if self.swap(old, change(old)) {
                return;
            }
        }
    }
}

/// A service's scheduler with what it precomputed for the current members.
#[derive(Debug)]
pub enum Selector {
    /// rr
    RoundRobin,
    /// wrr
    WeightedRoundRobin(round_robin::Weights),
    /// lc
    LeastConnection,
    /// wlc
    WeightedLeastConnection,
    /// mh
    Maglev(maglev::Table),
}

impl Selector {
    /// Prepares a scheduler for these members (in IPVS's order: the one added last comes first).
    pub fn new(scheduler: Scheduler, members: &[Member]) -> Self {
        match scheduler {
            Scheduler::Rr => Selector::RoundRobin,
            Scheduler::Wrr => Selector::WeightedRoundRobin(round_robin::Weights::new(members.iter().map(|m| m.weight))),
            Scheduler::Lc => Selector::LeastConnection,
            Scheduler::Wlc => Selector::WeightedLeastConnection,
            Scheduler::Mh { port, fallback, table_size } => {
                Selector::Maglev(maglev::Table::new(members, port, fallback, table_size))
            }
        }
    }

    /// Index of the member that a new flow gets; `None` if there is none to be had.
    pub fn select(&self, members: &[Member], cursor: &Cursor, client: Client) -> Option<usize> {
        match self {
            Selector::RoundRobin => round_robin::rr(members, cursor),
            Selector::WeightedRoundRobin(weights) => round_robin::wrr(members, *weights, cursor),
            Selector::LeastConnection => least::lc(members),
            Selector::WeightedLeastConnection => least::wlc(members),
            Selector::Maglev(table) => table.select(members, client),
        }
    }
}

/// One server as a change sees it: stable id and weight.
pub type Listed = (u32, u32);

/// Carries a cursor over from one list of servers to the next, as IPVS does when `ipvsadm` deletes, edits and adds
/// servers one after the other. Both lists are in IPVS's order.
pub fn carry_over(scheduler: Scheduler, cursor: &Cursor, old: &[Listed], new: &[Listed]) {
    let mut list: Vec<Listed> = old.to_vec();
    let step = |list: &[Listed]| {
        if scheduler == Scheduler::Wrr {
            let weights = round_robin::Weights::new(list.iter().map(|l| l.1));
            cursor.update(|(_, current)| (0, weights.adjust(current)));
        }
    };
    for (id, _) in old {
        if new.iter().any(|n| n.0 == *id) {
            continue;
        }
        let Some(at) = list.iter().position(|l| l.0 == *id) else { continue };
        let previous = if at == 0 { 0 } else { list[at - 1].0 };
        list.remove(at);
        if scheduler == Scheduler::Rr {
            cursor.update(|(server, w)| (if server == *id { previous } else { server }, w));
        }
        step(&list);
    }
    for (id, weight) in new {
        if let Some(at) = list.iter().position(|l| l.0 == *id)
            && list[at].1 != *weight
        {
            list[at].1 = *weight;
            step(&list);
        }
    }
    for added in new.iter().rev() {
        if !list.iter().any(|l| l.0 == added.0) {
            list.insert(0, *added);
            step(&list);
        }
    }
}

#[cfg(test)]
mod tests;
