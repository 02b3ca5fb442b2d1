//! Next hops: by which interface, tag and Ethernet address a real server is reached, or why it is not.
//!
//! Owns the judgement over the kernel's facts. Never asks the kernel: [`tracker`] collects the facts and keeps them
//! fresh. Pure.

pub mod tracker;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::netlink::{Certainty, Link, NeighbourEntry, Route};
use crate::dataplane::io::PortIndex;
pub use crate::dataplane::snapshot::NextHop;
use crate::model::{Interface, Method, Neighbor};

/// How long an Ethernet address is still used after the kernel forgot it and has not found it again.
pub const HOLD: Duration = Duration::from_secs(30);

/// How far a method can go to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Path {
    /// To a server in the same network only: direct routing.
    OnLink,
    /// Over routers, too.
    Routed,
}

impl Path {
    /// That of a method.
    pub const fn of(method: Method) -> Path {
        match method {
            Method::Dr => Path::OnLink,
            _ => Path::Routed,
        }
    }
}

/// Why a server has no next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The kernel has no route to it.
    NoRoute,
    /// It is this machine.
    Local,
    /// The route leads over a router; direct routing needs the server in the same network.
    NotOnLink {
        /// The router.
        gateway: IpAddr,
    },
    /// The route leaves by an interface that the engine does not have.
    WrongInterface {
        /// That interface.
        name: String,
    },
    /// The interface is switched off or has no carrier.
    LinkDown {
        /// That interface.
        name: String,
    },
    /// The kernel is asking for its Ethernet address.
    Unresolved,
    /// It, or the router on the way, does not answer ARP or neighbour discovery.
    Failed,
    /// A tunnel has no source address of the server's family.
    NoSource,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoRoute => f.write_str("no route to it: give an interface an address in its network"),
            Reason::Local => f.write_str("it is an address of this machine: its packets are left to the kernel"),
            Reason::NotOnLink { gateway } => {
                write!(f, "behind the router {gateway}: direct routing needs it in the same network")
            }
            Reason::WrongInterface { name } => {
                write!(f, "its route leaves by {name}, which is no interface of the engine")
            }
            Reason::LinkDown { name } => write!(f, "{name} is down"),
            Reason::Unresolved => f.write_str("asking for its Ethernet address"),
            Reason::Failed => f.write_str("it, or the router to it, does not answer ARP or neighbour discovery"),
            Reason::NoSource => f.write_str("its tunnel has no source address: write `tunnel_source`"),
        }
    }
}

impl Reason {
    /// One word, for JSON and metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Reason::NoRoute => "no-route",
            Reason::Local => "local",
            Reason::NotOnLink { .. } => "not-on-link",
            Reason::WrongInterface { .. } => "wrong-interface",
            Reason::LinkDown { .. } => "link-down",
            Reason::Unresolved => "unresolved",
            Reason::Failed => "failed",
            Reason::NoSource => "no-source",
        }
    }
}

/// A next hop or why there is none.
pub type Reach = Result<NextHop, Reason>;

/// What the kernel said.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Interfaces by index.
    pub links: HashMap<u32, Link>,
    /// Routes to the servers; a server without a route has `None`.
    pub routes: HashMap<IpAddr, Option<Route>>,
    /// Neighbours by interface and address.
    pub neighbours: HashMap<(u32, IpAddr), NeighbourEntry>,
    /// This machine's own addresses.
    pub addresses: HashSet<IpAddr>,
}

impl Facts {
    fn named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The route to a server.
    pub fn route(&self, address: IpAddr) -> Option<Route> {
        self.routes.get(&address).copied().flatten()
    }

    /// The row of whom a packet to a server is handed to: the server, or the router on the way.
    fn neighbour(&self, address: IpAddr) -> Option<&NeighbourEntry> {
        let route = self.route(address)?;
        self.neighbours.get(&(route.link, route.gateway.unwrap_or(address)))
    }
}

/// Which of the engine's interfaces a kernel interface is, and with which tag.
fn locate(link: &Link, facts: &Facts, ports: &[Interface]) -> Result<(PortIndex, Option<u16>), Reason> {
    let port = |name: &str| ports.iter().position(|port| port.name == name).and_then(|at| PortIndex::try_from(at).ok());
    let down = |link: &Link| Reason::LinkDown { name: link.name.clone() };
    if let Some(port) = port(&link.name) {
        return if link.up && link.running { Ok((port, None)) } else { Err(down(link)) };
    }
    let parent = link.parent.and_then(|index| facts.links.get(&index));
    if let (Some(id), Some(parent)) = (link.vlan, parent)
        && let Some(port) = port(&parent.name)
    {
        return match [parent, link].into_iter().find(|link| !link.up || !link.running) {
            Some(off) => Err(down(off)),
            None => Ok((port, Some(id))),
        };
    }
    Err(Reason::WrongInterface { name: link.name.clone() })
}

/// One step towards a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leg {
    port: PortIndex,
    vlan: Option<u16>,
    /// Whom frames are for: the server, or the router on the way.
    neighbour: IpAddr,
}

/// The kernel's way to a server, as far as the engine can go it.
fn way(address: IpAddr, path: Path, facts: &Facts, ports: &[Interface]) -> Result<Leg, Reason> {
    let route = facts.route(address).ok_or(Reason::NoRoute)?;
    if route.local {
        return Err(Reason::Local);
    }
    let link = facts.links.get(&route.link).ok_or(Reason::NoRoute)?;
    let (port, vlan) = locate(link, facts, ports)?;
    match route.gateway {
        Some(gateway) if path == Path::OnLink => Err(Reason::NotOnLink { gateway }),
        gateway => Ok(Leg { port, vlan, neighbour: gateway.unwrap_or(address) }),
    }
}

/// The fixed neighbour that frames to a server are for, if there is one: the server, or the router on the way.
fn fixed_for<'n>(address: IpAddr, way: &Result<Leg, Reason>, fixed: &'n [Neighbor]) -> Option<&'n Neighbor> {
    let find = |address: IpAddr| fixed.iter().find(|neighbor| neighbor.address == address);
    find(address).or_else(|| find(way.as_ref().ok()?.neighbour))
}

/// The next hop of a server, from the facts as they are now.
pub fn judge(address: IpAddr, path: Path, facts: &Facts, ports: &[Interface], fixed: &[Neighbor]) -> Reach {
    let way = way(address, path, facts, ports);
    if let Some(neighbor) = fixed_for(address, &way, fixed) {
        let (port, vlan) = fixed_way(neighbor, way.map(|leg| (leg.port, leg.vlan)), facts, ports)?;
        return Ok(NextHop { port, vlan: neighbor.vlan.or(vlan), mac: neighbor.mac });
    }
    let Leg { port, vlan, .. } = way?;
    let entry = facts.neighbour(address).ok_or(Reason::Unresolved)?;
    match (entry.certainty, entry.mac) {
        (Certainty::Failed, _) => Err(Reason::Failed),
        (Certainty::Sure | Certainty::Stale, Some(mac)) if !mac.is_zero() && !mac.is_multicast() => {
            Ok(NextHop { port, vlan, mac })
        }
        _ => Err(Reason::Unresolved),
    }
}

/// The way to a fixed neighbour: that of the route when it leaves by the named interface, else that interface, untagged.
fn fixed_way(
    neighbor: &Neighbor,
    way: Result<(PortIndex, Option<u16>), Reason>,
    facts: &Facts,
    ports: &[Interface],
) -> Result<(PortIndex, Option<u16>), Reason> {
    let named = match (&neighbor.interface, &way, ports) {
        // Its packets are not sent at all.
        (_, Err(Reason::Local), _) => return Err(Reason::Local),
        (Some(name), ..) => name.as_str(),
        (None, Ok(found), _) => return Ok(*found),
        (None, Err(_), [only]) => only.name.as_str(),
        (None, Err(reason), _) => return Err(reason.clone()),
    };
    match way {
        Ok((port, vlan)) if ports.get(usize::from(port)).is_some_and(|port| port.name == named) => Ok((port, vlan)),
        _ => {
            let link = facts.named(named).ok_or_else(|| Reason::LinkDown { name: named.to_owned() })?;
            locate(link, facts, ports)
        }
    }
}

/// Which neighbour the kernel should be asked to resolve or confirm now on the way to a server, and on which interface.
pub fn wants_resolution(address: IpAddr, path: Path, facts: &Facts, fixed: &[Neighbor]) -> Option<(u32, IpAddr)> {
    let route = facts.route(address)?;
    let usable = !route.local
        && (route.gateway.is_none() || path == Path::Routed)
        // What is asked on a link without carrier fails, and stays failed for a while when the carrier is back.
        && facts.links.get(&route.link).is_some_and(|link| link.up && link.running);
    let neighbour = route.gateway.unwrap_or(address);
    let sure = facts.neighbour(address).is_some_and(|entry| entry.certainty == Certainty::Sure);
    let given = fixed.iter().any(|neighbor| neighbor.address == address || neighbor.address == neighbour);
    (usable && !sure && !given).then_some((route.link, neighbour))
}

/// What is known of a server over time: a fresh judgement, steadied so that the kernel's housekeeping is not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steady {
    /// What is to be used.
    pub reach: Reach,
    /// Since when the kernel no longer confirms it.
    held_since: Option<Instant>,
    /// The next hop of before the link went: what to use when it is back, and the kernel has forgotten it.
    before: Option<NextHop>,
}

impl Steady {
    /// The first judgement.
    pub const fn new(reach: Reach) -> Steady {
        Steady { reach, held_since: None, before: None }
    }

    /// Whether it is in use though the kernel no longer confirms it.
    pub const fn is_held(&self) -> bool {
        self.held_since.is_some() && self.reach.is_ok()
    }

    /// Takes a fresh judgement. A neighbour that the kernel forgot and asks for again keeps its Ethernet address for
    /// [`HOLD`], if the way there is the same (`same_way`): it forgets those of a link without carrier, too, and takes a second
    /// to find them again. One that did not answer stays so while it is asked again.
    pub fn update(&mut self, fresh: Reach, same_way: impl Fn(&NextHop) -> bool, now: Instant) {
        let is_gone = |reach: &Reach| matches!(reach, Err(Reason::LinkDown { .. } | Reason::NoRoute));
        match (&self.reach, &fresh) {
            (Ok(hop), Err(Reason::Unresolved)) if same_way(hop) => {
                let since = *self.held_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= HOLD {
                    *self = Steady::new(fresh);
                }
            }
            (Err(_), Err(Reason::Unresolved)) if self.before.is_some_and(|hop| same_way(&hop)) => {
                let hop = self.before.take().ok_or(Reason::Unresolved);
                *self = Steady { held_since: Some(now), ..Steady::new(hop) };
            }
            (Err(Reason::Failed), Err(Reason::Unresolved)) => {}
            (before, _) if is_gone(&fresh) => {
                let before = before.as_ref().ok().copied().or(self.before);
                *self = Steady { before, ..Steady::new(fresh) };
            }
            _ => *self = Steady::new(fresh),
        }
    }
}

#[cfg(test)]
mod tests;
