//! Keeps next hops fresh: listens to the kernel, asks it, and makes it confirm what grows stale.
//!
//! Owns the netlink sockets and the facts. Decides nothing about them: the judgement is [`super::judge`].

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::{Facts, NextHop, Path, Reach, Reason, Steady, fixed_for, judge, wants_resolution};
use crate::control::compile::Whereabouts;
use crate::control::netlink::{Certainty, Changes, Monitor, Netlink, NetlinkError};
use crate::model::{Desired, Interface, Neighbor, Server, Service};

/// How often the kernel is asked to resolve or confirm what it is not sure of.
const TICK: Duration = Duration::from_secs(1);

/// Most servers asked for in one tick, so that a large table is spread over several.
const KICKS: usize = 512;

/// Least time between two rounds of route lookups: a routing daemon changes routes by the thousand.
const ROUTES_PAUSE: Duration = Duration::from_millis(100);

/// What is known of the way to one server.
#[derive(Debug)]
struct Tracked {
    steady: Steady,
    /// Whom its frames are for.
    toward: Option<IpAddr>,
    /// Since when the next hop, or its absence, is what it is.
    since: Instant,
}

/// What is known of the way to a server, for people.
#[derive(Clone, Copy, Debug)]
pub struct Row<'t> {
    /// The server.
    pub address: IpAddr,
    /// How far the method can go.
    pub path: Path,
    /// The next hop, or why there is none.
    pub reach: &'t Reach,
    /// Whom its frames are for: the server, or the router on the way.
    pub via: Option<IpAddr>,
    /// Whether it is what the kernel no longer knows, used until it knows again.
    pub held: bool,
    /// The entry of the configuration that says so.
    pub fixed: Option<&'t Neighbor>,
    /// What the kernel's neighbour table says.
    pub certainty: Option<Certainty>,
    /// Since when.
    pub since: Instant,
}

/// The next hops of all servers.
#[derive(Debug)]
pub struct Tracker {
    netlink: Netlink,
    monitor: Monitor,
    facts: Facts,
    ports: Vec<Interface>,
    fixed: Vec<Neighbor>,
    hops: BTreeMap<(IpAddr, Path), Tracked>,
    /// Routers on the way to servers.
    gateways: BTreeSet<IpAddr>,
    /// Something else than a next hop changed of what snapshots and filters are made from.
    changed: bool,
    next_tick: Instant,
    kick_from: Option<(IpAddr, Path)>,
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
            gateways: BTreeSet::new(),
            changed: false,
            next_tick: now,
            kick_from: None,
            routes_read: now,
            routes_old: false,
        };
        tracker.watch(desired, now)?;
        // Nobody has used anything yet.
        tracker.changed = false;
        Ok(tracker)
    }

    /// Watches the servers of another configuration. Servers that stay keep what is known of them.
    pub fn watch(&mut self, desired: &Desired, now: Instant) -> Result<(), NetlinkError> {
        self.ports.clone_from(&desired.interfaces);
        self.fixed.clone_from(&desired.neighbors);
        let servers: BTreeSet<(IpAddr, Path)> = desired
            .services
            .iter()
            .flat_map(Service::all_servers)
            .map(|server| (server.address, Path::of(server.method)))
            .collect();
        self.hops.retain(|way, _| servers.contains(way));
        self.facts.routes.retain(|address, _| servers.iter().any(|(server, _)| server == address));
        for way in servers {
            let new = || Tracked { steady: Steady::new(Err(Reason::Unresolved)), toward: None, since: now };
            self.hops.entry(way).or_insert_with(new);
        }
        self.resync(now)?;
        self.tick(now);
        Ok(())
    }

    /// Every server with its next hop or why it has none; twice where it is reached by two paths.
    pub fn hops(&self) -> impl Iterator<Item = (IpAddr, &Reach)> {
        self.hops.iter().map(|((address, _), tracked)| (*address, &tracked.steady.reach))
    }

    /// The way to every server, for people.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.hops.iter().map(|((address, path), tracked)| {
            let way = super::way(*address, *path, &self.facts, &self.ports);
            Row {
                address: *address,
                path: *path,
                reach: &tracked.steady.reach,
                via: way.as_ref().map_or(tracked.toward, |leg| Some(leg.neighbour)),
                held: tracked.steady.is_held(),
                fixed: fixed_for(*address, &way, &self.fixed),
                certainty: self.facts.neighbour(*address).map(|entry| entry.certainty),
                since: tracked.since,
            }
        })
    }

    /// The next hop of one server.
    pub fn hop(&self, address: IpAddr, path: Path) -> Option<&Reach> {
        self.hops.get(&(address, path)).map(|tracked| &tracked.steady.reach)
    }

    /// The next hop of a server of a service, or why it cannot be used.
    pub fn reach(&self, service: &Service, server: &Server) -> Reach {
        let reach = self.hop(server.address, Path::of(server.method)).cloned().unwrap_or(Err(Reason::Unresolved));
        if reach.is_ok() && server.method.is_tunnel() && self.whereabouts(service, server).source.is_none() {
            return Err(Reason::NoSource);
        }
        reach
    }

    /// What a snapshot needs to know of a server.
    pub fn whereabouts(&self, service: &Service, server: &Server) -> Whereabouts {
        let reach = self.hop(server.address, Path::of(server.method));
        let route = self.facts.route(server.address);
        let source = service.tunnel.source_towards(server.address).or_else(|| route?.source);
        Whereabouts {
            hop: reach.and_then(|reach| reach.as_ref().ok()).copied(),
            awaited: reach == Some(&Err(Reason::Unresolved)),
            mtu: route.and_then(|route| route.mtu),
            source: source.filter(|source| source.is_ipv4() == server.address.is_ipv4()),
            local: reach == Some(&Err(Reason::Local)),
            standing: None,
        }
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
            } else if self.is_neighbour(entry.address) {
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
        self.read_routes(now);
        self.read_neighbours()?;
        self.changed |= self.rejudge(now);
        Ok(())
    }

    /// Whether frames to some server may be for this address.
    fn is_neighbour(&self, address: IpAddr) -> bool {
        let known = |path| self.hops.contains_key(&(address, path));
        known(Path::OnLink) || known(Path::Routed) || self.gateways.contains(&address)
    }

    fn read_neighbours(&mut self) -> Result<(), NetlinkError> {
        let rows = self.netlink.neighbours()?;
        self.facts.neighbours = rows
            .into_iter()
            .filter(|row| self.is_neighbour(row.address))
            .map(|row| ((row.link, row.address), row))
            .collect();
        Ok(())
    }

    fn read_routes(&mut self, now: Instant) {
        let servers: BTreeSet<IpAddr> = self.hops.keys().map(|(address, _)| *address).collect();
        for address in servers {
            if let Ok(route) = self.netlink.route(address) {
                self.changed |= self.facts.routes.insert(address, route) != Some(route);
            }
        }
        if let Ok(addresses) = self.netlink.addresses() {
            let addresses: HashSet<IpAddr> = addresses.into_iter().map(|address| address.address).collect();
            self.changed |= self.facts.addresses != addresses;
            self.facts.addresses = addresses;
        }
        let routed = self.hops.keys().filter(|(_, path)| *path == Path::Routed);
        let gateways: BTreeSet<IpAddr> =
            routed.filter_map(|(address, _)| self.facts.route(*address)?.gateway).collect();
        let known = gateways.is_subset(&self.gateways);
        self.gateways = gateways;
        if !known {
            // The rows of a router that nobody asked about were not kept.
            let _ = self.read_neighbours();
        }
        self.routes_read = now;
        self.routes_old = false;
    }

    /// Makes the kernel resolve or confirm what it is not sure of.
    fn tick(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        let mut order: Vec<(IpAddr, Path)> = self.hops.keys().copied().collect();
        let first = self.kick_from.and_then(|from| order.iter().position(|way| *way >= from)).unwrap_or(0);
        order.rotate_left(first);
        // One router may lead to many servers.
        let mut kicked = BTreeSet::new();
        self.kick_from = None;
        for (address, path) in order {
            let Some(wanted) = wants_resolution(address, path, &self.facts, &self.fixed) else { continue };
            if kicked.len() == KICKS {
                self.kick_from = Some((address, path));
                return;
            }
            if kicked.insert(wanted) {
                // A refusal (the interface just went, the table is full) shows as a neighbour that stays unresolved.
                let _ = self.netlink.resolve(wanted.0, wanted.1);
            }
        }
    }

    fn rejudge(&mut self, now: Instant) -> bool {
        let mut changed = std::mem::take(&mut self.changed);
        for ((address, path), tracked) in &mut self.hops {
            let fresh = judge(*address, *path, &self.facts, &self.ports, &self.fixed);
            let before = tracked.steady.reach.clone();
            let leg = super::way(*address, *path, &self.facts, &self.ports).ok();
            let toward = tracked.toward;
            let same_way = |hop: &NextHop| {
                leg.is_some_and(|leg| (leg.port, leg.vlan) == (hop.port, hop.vlan) && Some(leg.neighbour) == toward)
            };
            tracked.steady.update(fresh, same_way, now);
            tracked.toward = leg.map_or(toward, |leg| Some(leg.neighbour));
            if tracked.steady.reach != before {
                tracked.since = now;
                changed = true;
            }
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
