//! Schedulers: which real server a new flow gets.
//!
//! One file for each family; this one owns what they share: the members of a service in IPVS's order, their loads,
//! and the place where a sequence continues. Members, weights and tables are immutable parts of a snapshot; loads and
//! cursors are atomics shared by all workers and all snapshots, so several workers behave as one director.

pub mod least;
pub mod maglev;
pub mod round_robin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::{MAGLEV_DEFAULT_SIZE, Scheduler};

/// Connections of one real server over all workers: one word, so that what is decided by its parts together is exact.
#[derive(Debug, Default)]
pub struct Load(AtomicU64);

/// One inactive connection, one active one, and their masks.
const INACTIVE: u64 = 1;
const ACTIVE: u64 = 1 << 32;
const COUNT: u64 = (1 << 31) - 1;

/// It has as many as it may have, and has not come below its lower threshold since (`IP_VS_DEST_F_OVERLOAD`).
const OVERLOADED: u64 = 1 << 63;

const fn one(active: bool) -> u64 {
    if active { ACTIVE } else { INACTIVE }
}

const fn total_of(word: u64) -> u64 {
    (word & COUNT) + (word >> 32 & COUNT)
}

impl Load {
    /// Counts a new flow unless the server has `upper` already (0: no such threshold). Never more than `upper` are counted,
    /// and none is refused below it, whatever other workers do at the same moment.
    pub fn try_open(&self, active: bool, upper: u32) -> bool {
        if upper == 0 {
            self.open(active);
            return true;
        }
        let more = |word: u64| {
            let total = total_of(word) + 1;
            let reached = if total >= u64::from(upper) { OVERLOADED } else { 0 };
            (total <= u64::from(upper)).then(|| (word + one(active)) | reached)
        };
        self.0.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Judges by the thresholds anew, after a flow ended (`ip_vs_unbind_dest`): with a `lower` one (0: none) the server takes
    /// flows again below it, else below three quarters of `upper` (0: none).
    pub fn relieve(&self, upper: u32, lower: u32) {
        if !self.is_overloaded() {
            return;
        }
        let judge = |word: u64| {
            let total = total_of(word);
            let relieved = match (lower, upper) {
                (0, 0) => true,
                (0, upper) => total * 4 < u64::from(upper) * 3,
                (lower, _) => total < u64::from(lower),
            };
            relieved.then_some(word & !OVERLOADED)
        };
        let _ = self.0.fetch_update(Relaxed, Relaxed, judge);
    }

    /// Judges by a new upper threshold (0: none), as if there had been no older one.
    pub fn rejudge(&self, upper: u32) {
        let judge = |word: u64| {
            let reached = upper != 0 && total_of(word) >= u64::from(upper);
            Some(word & !OVERLOADED | if reached { OVERLOADED } else { 0 })
        };
        let _ = self.0.fetch_update(Relaxed, Relaxed, judge);
    }

    /// Whether it takes no new flows for now.
    pub fn is_overloaded(&self) -> bool {
        self.0.load(Relaxed) & OVERLOADED != 0
    }

    /// All flows (IPVS's thresholds count inactive ones too).
    pub fn total(&self) -> u32 {
        total_of(self.0.load(Relaxed)) as u32
    }

    /// Counts a new flow.
    pub fn open(&self, active: bool) {
        self.0.fetch_add(one(active), Relaxed);
    }

    /// Counts a flow that ended.
    pub fn close(&self, active: bool) {
        self.0.fetch_sub(one(active), Relaxed);
    }

    /// Moves a flow between active and inactive.
    pub fn shift(&self, to_active: bool) {
        self.0.fetch_add(one(to_active).wrapping_sub(one(!to_active)), Relaxed);
    }

    /// Flows in ESTABLISHED (`ActiveConn`).
    pub fn active(&self) -> u32 {
        (self.0.load(Relaxed) >> 32 & COUNT) as u32
    }

    /// All other flows (`InActConn`).
    pub fn inactive(&self) -> u32 {
        (self.0.load(Relaxed) & COUNT) as u32
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
    /// Number of the real server within the service's group: the same in all its services, whatever the port.
    pub real: u32,
    /// Flows at which it takes no new ones; 0: no such threshold.
    pub upper: u32,
    /// Flows below which it takes new ones again; 0: three quarters of `upper`.
    pub lower: u32,
    /// Its connections.
    pub load: Arc<Load>,
}

impl Member {
    /// Whether it may take a new flow.
    pub fn is_available(&self) -> bool {
        self.weight > 0 && self.reachable && !self.load.is_overloaded()
    }
}

/// What a scheduler can look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// The client's address as 32 bits (see [`fold_address`]).
    pub client: u32,
    /// The client's port, host order.
    pub port: u16,
    /// The service's address as 32 bits.
    pub destination: u32,
    /// The port that the client asked for, host order.
    pub destination_port: u16,
    /// The time, in milliseconds; wraps.
    pub now: u32,
    /// A random word, another one for each flow.
    pub random: u32,
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
    /// Begins anew, for another scheduler.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }

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
        match scheduler.name {
            "rr" => Selector::RoundRobin,
            "wrr" => Selector::WeightedRoundRobin(round_robin::Weights::new(members.iter().map(|m| m.weight))),
            "lc" => Selector::LeastConnection,
            "mh" => {
                let size = if scheduler.table_size == 0 { MAGLEV_DEFAULT_SIZE } else { scheduler.table_size };
                Selector::Maglev(maglev::Table::new(members, scheduler.port, scheduler.fallback, size))
            }
            _ => Selector::WeightedLeastConnection,
        }
    }

    /// Index of the member that a new flow gets; `None` if there is none to be had.
    pub fn select(&self, members: &[Member], cursor: &Cursor, request: &Request) -> Option<usize> {
        match self {
            Selector::RoundRobin => round_robin::rr(members, cursor),
            Selector::WeightedRoundRobin(weights) => round_robin::wrr(members, *weights, cursor),
            Selector::LeastConnection => least::lc(members),
            Selector::WeightedLeastConnection => least::wlc(members),
            Selector::Maglev(table) => table.select(members, request),
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
        if scheduler == Scheduler::WRR {
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
        if scheduler == Scheduler::RR {
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
