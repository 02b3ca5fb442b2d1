//! Keeps next hops fresh: listens to the kernel, asks it, and makes it confirm what grows stale.
//!
//! Owns the netlink sockets and the facts. Decides nothing about them: the judgement is [`super::judge`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::{Facts, NextHop, Reach, Steady, judge, wants_resolution};
use crate::control::netlink::{Changes, Monitor, Netlink, NetlinkError};
use crate::model::{Desired, Interface, Neighbor};

/// How often the kernel is asked to resolve or confirm what it is not sure of.
const TICK: Duration = Duration::from_secs(1);

/// Most servers asked for in one tick, so that a large table is spread over several.
const KICKS: usize = 512;

/// Least time between two rounds of route lookups: a routing daemon changes routes by the thousand.
const ROUTES_PAUSE: Duration = Duration::from_millis(100);

/// The next hops of all servers.
#[derive(Debug)]
pub struct Tracker {
    netlink: Netlink,
    monitor: Monitor,
    facts: Facts,
    ports: Vec<Interface>,
    fixed: Vec<Neighbor>,
    hops: BTreeMap<IpAddr, Steady>,
    next_tick: Instant,
    kick_from: Option<IpAddr>,
    routes_read: Instant,
    routes_old: bool,
}

impl Tracker {
    /// Opens the sockets in the network namespace of the calling thread, and watches the servers of a configuration.
    pub fn open(desired: &Desired, now: Instant) -> Result<Tracker, NetlinkError> {
        // First the ears, then the questions: what changes in between is heard.
        let monitor = Monitor::open()?;
        let mut tracker = Tracker {
            netlink: Netlink::open()?,
            monitor,
            facts: Facts::default(),
            ports: Vec::new(),
            fixed: Vec::new(),
            hops: BTreeMap::new(),
            next_tick: now,
            kick_from: None,
            routes_read: now,
            routes_old: false,
        };
        tracker.watch(desired, now)?;
        Ok(tracker)
    }

    /// Watches the servers of another configuration. Servers that stay keep what is known of them.
    pub fn watch(&mut self, desired: &Desired, now: Instant) -> Result<(), NetlinkError> {
        self.ports.clone_from(&desired.interfaces);
        self.fixed.clone_from(&desired.neighbors);
        let servers: BTreeSet<IpAddr> =
            desired.services.iter().flat_map(|service| &service.servers).map(|server| server.address).collect();
        self.hops.retain(|address, _| servers.contains(address));
        self.facts.routes.retain(|address, _| servers.contains(address));
        let new: Vec<IpAddr> = servers.into_iter().filter(|address| !self.hops.contains_key(address)).collect();
        for address in new {
            self.hops.insert(address, Steady::new(Err(super::Reason::Unresolved)));
        }
        self.resync(now)?;
        self.tick(now);
        Ok(())
    }

    /// Every server with its next hop or why it has none.
    pub fn hops(&self) -> impl Iterator<Item = (IpAddr, &Reach)> {
        self.hops.iter().map(|(address, steady)| (*address, &steady.reach))
    }

    /// The next hop of one server.
    pub fn hop(&self, address: IpAddr) -> Option<&Reach> {
        self.hops.get(&address).map(|steady| &steady.reach)
    }

    /// The facts as last read, for status and start-up messages.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes what the kernel announced. Returns whether a next hop changed.
    pub fn on_readable(&mut self, now: Instant) -> bool {
        let changes = self.monitor.drain();
        if changes.is_empty() {
            return false;
        }
        self.take(changes, now);
        self.rejudge(now)
    }

    /// When [`Tracker::on_deadline`] must be called next.
    pub fn next_deadline(&self) -> Instant {
        if self.routes_old { self.next_tick.min(self.routes_read + ROUTES_PAUSE) } else { self.next_tick }
    }

    /// Does what is due. Returns whether a next hop changed.
    pub fn on_deadline(&mut self, now: Instant) -> bool {
        if self.routes_old && now >= self.routes_read + ROUTES_PAUSE {
            self.read_routes(now);
        }
        if now >= self.next_tick {
            self.tick(now);
        }
        self.rejudge(now)
    }

    /// Waits for a change or the next deadline, for programs without a poll loop. Returns whether a next hop changed.
    pub fn turn(&mut self, timeout: Duration) -> bool {
        let until = self.next_deadline().saturating_duration_since(Instant::now()).min(timeout);
        self.monitor.wait(until);
        let now = Instant::now();
        let heard = self.on_readable(now);
        self.on_deadline(now) || heard
    }

    fn take(&mut self, changes: Changes, now: Instant) {
        if changes.lost && self.resync(now).is_ok() {
            return;
        }
        for (entry, removed) in changes.neighbours {
            if removed {
                self.facts.neighbours.remove(&(entry.link, entry.address));
            } else if self.hops.contains_key(&entry.address) {
                self.facts.neighbours.insert((entry.link, entry.address), entry);
            }
        }
        if changes.links {
            // A failure leaves the old facts; the next change or loss reads again.
            if let Ok(links) = self.netlink.links() {
                self.facts.links = links.into_iter().map(|link| (link.index, link)).collect();
            }
        }
        if changes.links || changes.routes {
            self.routes_old = true;
            if now >= self.routes_read + ROUTES_PAUSE {
                self.read_routes(now);
            }
        }
    }

    /// Reads everything again.
    fn resync(&mut self, now: Instant) -> Result<(), NetlinkError> {
        self.facts.links = self.netlink.links()?.into_iter().map(|link| (link.index, link)).collect();
        let rows = self.netlink.neighbours()?;
        self.facts.neighbours = rows
            .into_iter()
            .filter(|row| self.hops.contains_key(&row.address))
            .map(|row| ((row.link, row.address), row))
            .collect();
        self.read_routes(now);
        self.rejudge(now);
        Ok(())
    }

    fn read_routes(&mut self, now: Instant) {
        for address in self.hops.keys() {
            if let Ok(route) = self.netlink.route(*address) {
                self.facts.routes.insert(*address, route);
            }
        }
        self.routes_read = now;
        self.routes_old = false;
    }

    /// Makes the kernel resolve or confirm what it is not sure of.
    fn tick(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        let mut order: Vec<IpAddr> = self.hops.keys().copied().collect();
        let first = self.kick_from.and_then(|from| order.iter().position(|address| *address >= from)).unwrap_or(0);
        order.rotate_left(first);
        let mut kicked = 0;
        self.kick_from = None;
        for address in order {
            let Some(link) = wants_resolution(address, &self.facts, &self.fixed) else { continue };
            if kicked == KICKS {
                self.kick_from = Some(address);
                return;
            }
            kicked += 1;
            // A refusal (the interface just went, the table is full) shows as a neighbour that stays unresolved.
            let _ = self.netlink.resolve(link, address);
        }
    }

    fn rejudge(&mut self, now: Instant) -> bool {
        let mut changed = false;
        for (address, steady) in &mut self.hops {
            let fresh = judge(*address, &self.facts, &self.ports, &self.fixed);
            let before = steady.reach.clone();
            let same_way = |hop: &NextHop| super::way(*address, &self.facts, &self.ports) == Ok((hop.port, hop.vlan));
            steady.update(fresh, same_way, now);
            changed |= steady.reach != before;
        }
        changed
    }
}

impl AsRawFd for Tracker {
    /// The descriptor that becomes readable when the kernel announces a change.
    fn as_raw_fd(&self) -> RawFd {
        self.monitor.as_raw_fd()
    }
}
