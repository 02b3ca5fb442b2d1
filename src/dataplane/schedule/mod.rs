//! Schedulers: which real server a new flow gets.
//!
//! One file for each scheduler; this one owns their list, and what they share: the members of a service in IPVS's order,
//! their loads, and what is remembered between choices. Members, weights and tables are immutable parts of a snapshot;
//! loads and cursors are atomics shared by all workers and all snapshots, so several workers behave as one director.
//!
//! A new scheduler is a file with a `DESCRIPTION`, and its name in the list below: the configuration, its reference and
//! `status` know it from there.

mod cost;
mod cursor;
mod draw;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub use cursor::Cursor;

use crate::model::Scheduler;

macro_rules! schedulers {
    ($($file:ident)*) => {
        $(pub mod $file;)*

        /// Every scheduler there is.
        pub const SCHEDULERS: &[Description] = &[$($file::DESCRIPTION),*];
    };
}

schedulers! { rr wrr lc wlc sed nq sh dh mh lblc lblcr fo ovf twos p2c maglev }

/// A scheduler with what it worked out for the members of a service.
pub trait Schedule: fmt::Debug + Send + Sync {
    /// Index of the member that a new flow gets; `None` if there is none to be had. Never one of weight 0, one that cannot
    /// be reached or one at its threshold.
    fn select(&self, members: &[Member], cursor: &Cursor, request: &Request) -> Option<usize>;
}

/// What is to be known of a scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Name as in configs, JSON and `ipvsadm -L`.
    pub name: &'static str,
    /// What it does, for the reference.
    pub doc: &'static str,
    /// Words that others have for it, in lower case.
    pub also: &'static [&'static str],
    /// Flags that it takes.
    pub flags: &'static [Flag],
    /// The sizes of its lookup table, if it has one that can be sized.
    pub table: Option<TableSizes>,
    /// Whether a choice depends on nothing but the request and the members.
    pub stateless: bool,
    /// Whether it draws lots.
    pub draws: bool,
    build: fn(Scheduler, &[Member]) -> Arc<dyn Schedule>,
    step: fn(&Cursor, &Step<'_>),
}

impl Description {
    const fn new(
        name: &'static str,
        doc: &'static str,
        build: fn(Scheduler, &[Member]) -> Arc<dyn Schedule>,
    ) -> Description {
        Description {
            name,
            doc,
            also: &[],
            flags: &[],
            table: None,
            stateless: false,
            draws: false,
            build,
            step: |_, _| {},
        }
    }

    /// The slots of its table; 0 for one without.
    pub fn slots(&self, scheduler: Scheduler) -> u32 {
        match scheduler.table_size {
            0 => self.table.map_or(0, |table| table.default),
            size => size,
        }
    }
}

/// A setting that changes how a hashing scheduler hashes.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// As IPVS writes it, such as `sh-port`.
    pub name: &'static str,
    /// What it does, for the reference.
    pub doc: &'static str,
    /// Where it is kept.
    field: fn(&mut Scheduler) -> &mut bool,
}

impl Flag {
    const fn port(name: &'static str, doc: &'static str) -> Flag {
        Flag { name, doc, field: |scheduler| &mut scheduler.port }
    }

    const fn fallback(name: &'static str, doc: &'static str) -> Flag {
        Flag { name, doc, field: |scheduler| &mut scheduler.fallback }
    }

    /// Sets it.
    pub fn set(&self, scheduler: &mut Scheduler) {
        *(self.field)(scheduler) = true;
    }
}

/// How many slots a lookup table may have.
#[derive(Clone, Copy, Debug)]
pub struct TableSizes {
    /// Permitted, in rising order.
    pub sizes: &'static [u32],
    /// Without a setting.
    pub default: u32,
}

/// The scheduler of that name.
pub fn description(name: &str) -> Option<&'static Description> {
    SCHEDULERS.iter().find(|known| known.name == name)
}

/// The flags that are set, as IPVS writes them.
pub fn flags(scheduler: Scheduler) -> Vec<&'static str> {
    let all = description(scheduler.name).map_or(&[][..], |known| known.flags);
    let is_set = |flag: &&Flag| *(flag.field)(&mut scheduler.clone());
    all.iter().filter(is_set).map(|flag| flag.name).collect()
}

/// Connections of one real server over all workers: one word, so that what is decided by its parts together is exact.
#[derive(Debug, Default)]
pub struct Load {
    /// Active and inactive connections, and whether there are too many.
    word: AtomicU64,
    /// When it joined lblcr's set of servers, as [`Cursor`] counts.
    joined: AtomicU32,
}

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
        self.word.fetch_update(Relaxed, Relaxed, more).is_ok()
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
        let _ = self.word.fetch_update(Relaxed, Relaxed, judge);
    }

    /// Judges by a new upper threshold (0: none), as if there had been no older one.
    pub fn rejudge(&self, upper: u32) {
        let judge = |word: u64| {
            let reached = upper != 0 && total_of(word) >= u64::from(upper);
            Some(word & !OVERLOADED | if reached { OVERLOADED } else { 0 })
        };
        let _ = self.word.fetch_update(Relaxed, Relaxed, judge);
    }

    /// Whether it takes no new flows for now.
    pub fn is_overloaded(&self) -> bool {
        self.word.load(Relaxed) & OVERLOADED != 0
    }

    /// All flows (IPVS's thresholds count inactive ones too).
    pub fn total(&self) -> u32 {
        total_of(self.word.load(Relaxed)) as u32
    }

    /// The same counts, for somebody who wants to know what comes next and leaves them as they are.
    pub fn copy(&self) -> Load {
        Load { word: AtomicU64::new(self.word.load(Relaxed)), joined: AtomicU32::new(self.joined.load(Relaxed)) }
    }

    /// Counts a new flow.
    pub fn open(&self, active: bool) {
        self.word.fetch_add(one(active), Relaxed);
    }

    /// Counts a flow that ended.
    pub fn close(&self, active: bool) {
        self.word.fetch_sub(one(active), Relaxed);
    }

    /// Moves a flow between active and inactive.
    pub fn shift(&self, to_active: bool) {
        self.word.fetch_add(one(to_active).wrapping_sub(one(!to_active)), Relaxed);
    }

    /// Flows in ESTABLISHED (`ActiveConn`).
    pub fn active(&self) -> u32 {
        (self.word.load(Relaxed) >> 32 & COUNT) as u32
    }

    /// All other flows (`InActConn`).
    pub fn inactive(&self) -> u32 {
        (self.word.load(Relaxed) & COUNT) as u32
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
    /// Whether its next hop is resolved, and it has not left the service by its checks or by hand.
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

/// A service's scheduler with what it worked out for the current members.
#[derive(Clone, Debug)]
pub struct Selector(Arc<dyn Schedule>);

impl Selector {
    /// Prepares a scheduler for these members (in IPVS's order: the one added last comes first). A name that is not in the
    /// list is taken for wlc.
    pub fn new(scheduler: Scheduler, members: &[Member]) -> Self {
        let known = description(scheduler.name).unwrap_or(&wlc::DESCRIPTION);
        Selector((known.build)(scheduler, members))
    }

    /// For the same members, one whose choice for a client depends on nothing but the client and the members: `own`, the
    /// service's, if that is so already, else Maglev hashing with a table that fits their number.
    pub fn stateless(scheduler: Scheduler, members: &[Member], own: &Selector) -> Self {
        if description(scheduler.name).is_some_and(|known| known.stateless) {
            return own.clone();
        }
        let table_size = maglev::Table::size_for(members.len());
        // With the port: many clients may have one address.
        let maglev = Scheduler { port: true, fallback: true, table_size, ..Scheduler::named(maglev::DESCRIPTION.name) };
        Selector::new(maglev, members)
    }

    /// Index of the member that a new flow gets; `None` if there is none to be had.
    pub fn select(&self, members: &[Member], cursor: &Cursor, request: &Request) -> Option<usize> {
        self.0.select(members, cursor, request)
    }

    /// Whether this and the other are one and the same.
    pub fn is(&self, other: &Selector) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a [`Selector`] was made from: as long as it is the same, the selector is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis(Scheduler, Box<[Facts]>);

/// Id, weight, last weight, whether it can be reached, address, port.
type Facts = (u32, u32, u32, bool, std::net::IpAddr, u16);

impl Basis {
    /// Of a scheduler and members.
    pub fn new(scheduler: Scheduler, members: &[Member]) -> Basis {
        let facts = |m: &Member| (m.id, m.weight, m.last_weight, m.reachable, m.address, m.port);
        Basis(scheduler, members.iter().map(facts).collect())
    }
}

/// One server as a change sees it: stable id and weight.
pub type Listed = (u32, u32);

/// One change of a list of servers.
struct Step<'a> {
    /// The list after it.
    list: &'a [Listed],
    /// The server that it removed, and the one that was before it (0: none).
    removed: Option<(u32, u32)>,
}

/// Carries a cursor over from one list of servers to the next, as IPVS does when `ipvsadm` deletes, edits and adds
/// servers one after the other. Both lists are in IPVS's order.
pub fn carry_over(scheduler: Scheduler, cursor: &Cursor, old: &[Listed], new: &[Listed]) {
    let Some(known) = description(scheduler.name) else { return };
    let step = |list: &[Listed], removed| (known.step)(cursor, &Step { list, removed });
    let mut list: Vec<Listed> = old.to_vec();
    // Checks change weights and nothing else, thousands of times: the long way is quadratic.
    if old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.0 == new.0) {
        for (at, (_, weight)) in new.iter().enumerate() {
            if list[at].1 != *weight {
                list[at].1 = *weight;
                step(&list, None);
            }
        }
        return;
    }
    for (id, _) in old {
        if new.iter().any(|n| n.0 == *id) {
            continue;
        }
        let Some(at) = list.iter().position(|l| l.0 == *id) else { continue };
        let previous = if at == 0 { 0 } else { list[at - 1].0 };
        list.remove(at);
        step(&list, Some((*id, previous)));
    }
    for (id, weight) in new {
        if let Some(at) = list.iter().position(|l| l.0 == *id)
            && list[at].1 != *weight
        {
            list[at].1 = *weight;
            step(&list, None);
        }
    }
    for added in new.iter().rev() {
        if !list.iter().any(|l| l.0 == added.0) {
            list.insert(0, *added);
            step(&list, None);
        }
    }
}

/// Greatest common divisor; `gcd(n, 0) == n`.
fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests;
