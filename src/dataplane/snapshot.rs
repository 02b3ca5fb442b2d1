//! The snapshot: everything that workers read and that a change replaces, in one immutable value.
//!
//! Owns the layout that lookups need. Never changes after it was built; what must outlive it (loads, cursors) is
//! shared by reference. Built by `control::compile`.

mod port;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::access::Table;
use super::director::ServiceState;
use super::flow::Lifetimes;
use super::flow::state::{STATES, State, timeouts_ms};
use super::limits::Tally;
use super::ownership::{Owner, Ownership};
use super::parse::NO_VLAN;
use super::persist::Departure;
use super::rewrite::plain::{Rewrite4, Rewrite6};
use super::rewrite::tunnel::Tunnel;
use super::rewrite::tunnel::plain::PlainTunnel;
use super::schedule::{Load, Member, Selector};
use super::verdict::{DropReason, Outcome, Verdict};
use crate::model::{Fate, MacAddr, NoServer, Service, ServiceKey, Timeouts};
pub use port::Port;

/// A resolved next hop: where frames for a server leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Interface, as an index into the config's list.
    pub port: super::io::PortIndex,
    /// VLAN id to leave with, if any.
    pub vlan: Option<u16>,
    /// Destination MAC.
    pub mac: MacAddr,
}

/// A real server as the forwarding path needs it; indexed by slot.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct ServerEntry {
    /// Stable id: generation of the slot above its number. 0 where the slot is empty.
    pub id: u32,
    /// VLAN id to leave with, or [`NO_VLAN`].
    pub vlan: u16,
    /// Largest frame that may leave, without VLAN tags.
    pub max_frame: u16,
    /// The same where an untagged frame leaves untagged, else 0: the one comparison of the short way.
    pub plain_limit: u16,
    /// Destination and source MAC as they go into the frame.
    pub macs: [u8; 12],
    /// The outcome of a packet that goes to it, ready made: its service, its slot, the interface to leave through.
    pub outcome: Outcome,
    /// Whether the next hop is resolved.
    pub reachable: bool,
    /// How its packets reach it. [`ServerEntry::plain_limit`] is 0 for every method but direct routing.
    pub way: Way,
}

/// How packets reach a server, as the forwarding path tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// Direct routing.
    Dr,
    /// Destination NAT.
    Nat,
    /// NAT of both addresses.
    FullNat,
    /// Any tunnel; [`Target::tunnel`] says which.
    Tunnel,
    /// The server is this machine: its packets are the kernel's (IPVS "Local").
    Local,
}

/// What rewriting needs to know of a server beyond its [`ServerEntry`]; indexed by slot, read only for methods that
/// change more than Ethernet addresses.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server: address, and port where it differs from the service's.
    pub server: Endpoint,
    /// The service as the client sees it: address, and port where the server's differs.
    pub service: Endpoint,
    /// The outer header.
    pub tunnel: Option<Tunnel>,
    /// Largest TCP segment that a SYN may announce; 0 leaves it.
    pub mss: u16,
    /// Whether the client's address goes ahead by PROXY protocol version 2.
    pub proxy: bool,
    /// Full NAT: slots of the service's local addresses, in [`Snapshot::locals`].
    pub locals: Arc<[u16]>,
}

/// What changes in a packet of NAT, worked out beforehand for the short way.
#[derive(Clone, Copy, Debug)]
pub enum PlainNat {
    /// IPv4.
    V4 {
        /// Service to server.
        to_server: Rewrite4,
        /// Server to service.
        to_client: Rewrite4,
    },
    /// IPv6.
    V6 {
        /// Service to server.
        to_server: Rewrite6,
        /// Server to service.
        to_client: Rewrite6,
    },
}

impl PlainNat {
    fn new(service: Endpoint, server: Endpoint) -> Option<PlainNat> {
        match (service.address, server.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let (service, server) = ((a, service.port), (b, server.port));
                Some(PlainNat::V4 {
                    to_server: Rewrite4::new(service, server),
                    to_client: Rewrite4::new(server, service),
                })
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let (service, server) = ((a, service.port), (b, server.port));
                Some(PlainNat::V6 {
                    to_server: Rewrite6::new(service, server),
                    to_client: Rewrite6::new(server, service),
                })
            }
            _ => None,
        }
    }
}

/// An address and, where it changes, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port, host order; `None` leaves the packet's.
    pub port: Option<u16>,
}

const _: () = assert!(size_of::<ServerEntry>() == 32);

impl ServerEntry {
    /// A slot without a server.
    pub const EMPTY: ServerEntry = ServerEntry {
        id: 0,
        vlan: NO_VLAN,
        max_frame: 0,
        plain_limit: 0,
        macs: [0; 12],
        outcome: Outcome::drop(DropReason::NoNextHop),
        reachable: false,
        way: Way::Dr,
    };
}

/// What the compiler knows of one server when a snapshot is built.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Where its frames leave, if that is known.
    pub hop: Option<NextHop>,
    /// That is being asked for: it may serve in a moment.
    pub awaited: bool,
    /// Largest packet on the route there, in bytes, where the route has a limit of its own.
    pub mtu: Option<u32>,
    /// How they reach it.
    pub way: Way,
    /// What rewriting needs.
    pub target: Target,
    /// What becomes of its flows where it does not serve them (any more): it cannot be reached then, whatever `hop` says.
    pub fate: Option<Fate>,
}

/// The slot in a stable server id.
#[inline(always)]
pub const fn slot_of(id: u32) -> usize {
    (id & 0xffff) as usize
}

/// A stable server id. Generations start at 1, so that no id is 0.
pub const fn server_id(slot: u16, generation: u16) -> u32 {
    (generation as u32) << 16 | slot as u32
}

/// Ways to a member of a service, sorted.
#[derive(Debug, Default)]
pub struct MemberIndex {
    reals: Vec<(u32, u16)>,
    quic: Vec<(Box<[u8]>, u16)>,
}

impl MemberIndex {
    /// The index of a service's members.
    pub fn new(config: &Service, members: &[Member]) -> MemberIndex {
        let numbered = || (0u16..).zip(members);
        let mut reals: Vec<(u32, u16)> = numbered().map(|(at, member)| (member.real, at)).collect();
        reals.sort_unstable();
        let own_port = config.key.ports.as_single().unwrap_or(0);
        let with_ids = config.servers.iter().filter_map(|server| Some((server, server.quic_id.as_deref()?)));
        let mut quic: Vec<(Box<[u8]>, u16)> = with_ids
            .filter_map(|(server, id)| {
                let ends = (server.address, server.port.unwrap_or(own_port));
                let (at, _) = numbered().find(|(_, member)| (member.address, member.port) == ends)?;
                Some((Box::from(id), at))
            })
            .collect();
        quic.sort_unstable();
        MemberIndex { reals, quic }
    }
}

/// A service of a snapshot.
#[derive(Debug)]
pub struct ServiceEntry {
    /// As configured.
    pub config: Arc<Service>,
    /// Servers in IPVS's order.
    pub members: Vec<Member>,
    /// Servers that were removed, while flows of them are left. Nothing is scheduled to them.
    pub ghosts: Vec<Member>,
    /// The scheduler, prepared for the members.
    pub selector: Selector,
    /// The same choice for a client at any time and on every appliance: for flows that are let in without state.
    pub stateless: Selector,
    /// Number of the service's group, or of the service itself: what shares persistent clients.
    pub unit: u32,
    /// Members by their number within the unit and by their QUIC server id.
    pub index: MemberIndex,
    /// What workers share of it beyond this snapshot.
    pub state: Arc<ServiceState>,
    /// What is counted of it for its limits.
    pub tally: Arc<Tally>,
    /// The first snapshot that has this tally: who comes from an older one counts his flows anew.
    pub tally_since: u64,
}

impl ServiceEntry {
    /// What the service matches.
    pub fn key(&self) -> &ServiceKey {
        &self.config.key
    }

    /// The member with this number within the unit.
    pub fn real(&self, real: u32) -> Option<&Member> {
        let at = self.index.reals.binary_search_by_key(&real, |(known, _)| *known).ok()?;
        self.members.get(usize::from(self.index.reals[at].1))
    }

    /// The member with this QUIC server id.
    pub fn quic_member(&self, id: &[u8]) -> Option<&Member> {
        let at = self.index.quic.binary_search_by(|(known, _)| (**known).cmp(id)).ok()?;
        self.members.get(usize::from(self.index.quic[at].1))
    }

    /// Members and ghosts.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().chain(&self.ghosts)
    }
}

/// The services of one address and protocol, by port.
#[derive(Debug, Default)]
struct Ports(Vec<(u16, u16, u16)>);

impl Ports {
    fn find(&self, port: u16) -> Option<u16> {
        let at = self.0.partition_point(|(first, ..)| *first <= port);
        let (_, last, service) = *self.0.get(at.checked_sub(1)?)?;
        (port <= last).then_some(service)
    }
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Everything that a worker reads for a batch.
#[derive(Debug)]
pub struct Snapshot {
    /// Number of this snapshot, counting up.
    pub generation: u64,
    /// Interfaces, in the config's order.
    pub ports: Vec<Port>,
    /// Services, in the config's order.
    pub services: Vec<ServiceEntry>,
    /// Which clients may open flows.
    pub access: Arc<Table>,
    /// Departures of the last hour, by server and generation.
    pub departures: Arc<[Departure]>,
    /// Timeouts in milliseconds, by state; the first are those of services that say nothing.
    lifetimes: Vec<[u32; STATES]>,
    /// Which of them each service has.
    service_lifetimes: Vec<u16>,
    /// By service, see [`Snapshot::cookie_mss`].
    cookie_mss: Vec<Option<u16>>,
    /// By service, see [`Snapshot::refuses`].
    refuses: Vec<bool>,
    /// What becomes of a server's flows, by slot, where it does not serve them.
    fates: Vec<Option<Fate>>,
    servers: Vec<ServerEntry>,
    targets: Vec<Option<Target>>,
    plain_nat: Vec<Option<PlainNat>>,
    plain_tunnels: Vec<Option<PlainTunnel>>,
    /// Whether any server is reached by full NAT.
    pub has_full_nat: bool,
    /// Local addresses of full NAT by their stable slot; `None` where a slot is free.
    pub locals: Vec<Option<IpAddr>>,
    local_slots: Map<IpAddr, u16>,
    /// Members and ghosts by slot.
    members: Vec<Option<Member>>,
    /// Slots of servers behind tunnels, by address.
    tunnels: Map<IpAddr, Vec<u16>>,
    by_address: Map<(IpAddr, u8), Ports>,
    /// The addresses that the appliance answers for.
    pub ownership: Ownership,
    /// Numbers of the services' tallies, sorted.
    tallies: Vec<u32>,
}

impl Snapshot {
    /// A snapshot of services, and of addresses that are owned besides, or by virtual routers. It admits every client.
    ///
    /// `place` is asked for each member, with the index of its service. Members' slots must be below
    /// [`super::stats::MAX_SERVERS`].
    pub fn new(
        generation: u64,
        ports: Vec<Port>,
        services: Vec<ServiceEntry>,
        timeouts: &Timeouts,
        locals: Vec<Option<IpAddr>>,
        mut ownership: Ownership,
        place: impl Fn(usize, &Member) -> Placed,
    ) -> Self {
        let slots = services.iter().flat_map(ServiceEntry::all).map(|m| slot_of(m.id) + 1).max().unwrap_or(0);
        let mut servers = vec![ServerEntry::EMPTY; slots];
        let mut targets = vec![None; slots];
        let mut plain_nat = vec![None; slots];
        let mut plain_tunnels = vec![None; slots];
        let mut members = vec![None; slots];
        let mut fates = vec![None; slots];
        let mut awaited = vec![false; slots];
        let mut lifetimes = vec![timeouts_ms(timeouts)];
        let mut service_lifetimes = Vec::with_capacity(services.len());
        let mut tunnels: Map<IpAddr, Vec<u16>> = Map::default();
        let mut by_address: Map<(IpAddr, u8), Ports> = Map::default();
        for local in locals.iter().flatten() {
            ownership.add(*local, Owner::ALWAYS);
        }
        for (index, service) in services.iter().enumerate() {
            let key = service.config.key;
            ownership.add(key.address, Owner::ALWAYS);
            by_address.entry((key.address, key.protocol.number())).or_default().0.push((
                key.ports.first,
                key.ports.last,
                index as u16,
            ));
            let own = timeouts_ms(&service.config.timeouts);
            let known = lifetimes.iter().position(|known| *known == own).unwrap_or_else(|| {
                lifetimes.push(own);
                lifetimes.len() - 1
            });
            service_lifetimes.push(known as u16);
            for member in service.all() {
                let Placed { hop, awaited: is_awaited, mtu, way, target, fate } = place(index, member);
                fates[slot_of(member.id)] = fate;
                awaited[slot_of(member.id)] = is_awaited;
                if way == Way::Nat {
                    plain_nat[slot_of(member.id)] = PlainNat::new(target.service, target.server);
                }
                if target.tunnel.is_some() {
                    tunnels.entry(target.server.address).or_default().push(slot_of(member.id) as u16);
                }
                let tunnel = target.tunnel.clone();
                targets[slot_of(member.id)] = Some(target);
                let entry = &mut servers[slot_of(member.id)];
                *entry = ServerEntry { id: member.id, way, ..ServerEntry::EMPTY };
                entry.outcome.service = index as u16;
                entry.outcome.server = slot_of(member.id) as u16;
                members[slot_of(member.id)] = Some(member.clone());
                if fate.is_some() {
                    continue;
                }
                if way == Way::Local {
                    entry.outcome.verdict = Verdict::Pass;
                    entry.max_frame = u16::MAX;
                    entry.reachable = true;
                    continue;
                }
                let Some(hop) = hop else { continue };
                let Some(port) = ports.get(usize::from(hop.port)) else { continue };
                entry.macs[..6].copy_from_slice(&hop.mac.0);
                entry.macs[6..].copy_from_slice(&port.mac().0);
                plain_tunnels[slot_of(member.id)] = tunnel.map(|tunnel| PlainTunnel::new(&tunnel, entry.macs));
                entry.vlan = hop.vlan.unwrap_or(NO_VLAN);
                entry.outcome.verdict = Verdict::Tx(hop.port);
                let most = port.max_frame.min(mtu.map_or(u32::MAX, |mtu| mtu.saturating_add(14)));
                entry.max_frame = u16::try_from(most).unwrap_or(u16::MAX);
                entry.plain_limit = if hop.vlan.is_none() && way == Way::Dr { entry.max_frame } else { 0 };
                entry.reachable = true;
            }
        }
        for ports in by_address.values_mut() {
            ports.0.sort_unstable();
        }
        let refuses = services.iter().map(|service| refuses(service, &servers, &awaited)).collect();
        let cookie_mss = services.iter().map(|service| cookie_mss(service, &servers, &targets)).collect();
        let has_full_nat = servers.iter().any(|server| server.way == Way::FullNat);
        let slots = (0u16..).zip(&locals).filter_map(|(slot, local)| Some(((*local)?, slot)));
        let local_slots = slots.collect();
        let mut tallies: Vec<u32> = services.iter().map(|service| service.tally.id).collect();
        tallies.sort_unstable();
        Snapshot {
            generation,
            ports,
            services,
            access: Arc::default(),
            departures: Arc::default(),
            lifetimes,
            cookie_mss,
            refuses,
            service_lifetimes,
            fates,
            servers,
            targets,
            plain_nat,
            plain_tunnels,
            locals,
            has_full_nat,
            local_slots,
            members,
            tunnels,
            by_address,
            ownership,
            tallies,
        }
    }

    /// The service of the server with this stable id, ghosts included.
    pub fn service_of(&self, server: u32) -> Option<&ServiceEntry> {
        self.services.get(usize::from(self.server(server)?.outcome.service))
    }

    /// How the flows of a server counted for persistent clients in the snapshot of this generation, if they do not any more.
    pub fn departure(&self, server: u32, generation: u64) -> Option<&Departure> {
        let at = self.departures.partition_point(|known| (known.server, known.since) <= (server, generation));
        self.departures.get(at).filter(|departure| departure.server == server)
    }

    /// Whether this is the number of a service's tally.
    pub fn has_tally(&self, id: u32) -> bool {
        self.tallies.binary_search(&id).is_ok()
    }

    /// The server with this stable id, unless it is gone.
    #[inline(always)]
    pub fn server(&self, id: u32) -> Option<&ServerEntry> {
        self.servers.get(slot_of(id)).filter(|s| s.id == id)
    }

    /// What rewriting needs to know of the server with this stable id.
    #[inline]
    pub fn target(&self, id: u32) -> Option<&Target> {
        self.targets.get(slot_of(id))?.as_ref()
    }

    /// The tunnels to an address, with their servers.
    pub fn tunnels_to(&self, address: IpAddr) -> impl Iterator<Item = (&ServerEntry, &Tunnel)> {
        self.tunnels.get(&address).into_iter().flatten().filter_map(|slot| {
            let slot = usize::from(*slot);
            Some((self.servers.get(slot)?, self.targets.get(slot)?.as_ref()?.tunnel.as_ref()?))
        })
    }

    /// What changes in a packet of the NAT server with this stable id.
    #[inline(always)]
    pub fn plain_nat(&self, id: u32) -> Option<&PlainNat> {
        self.plain_nat.get(slot_of(id))?.as_ref()
    }

    /// What goes before the packets for the tunnel server with this stable id.
    #[inline(always)]
    pub fn plain_tunnel(&self, id: u32) -> Option<&PlainTunnel> {
        self.plain_tunnels.get(slot_of(id))?.as_ref()
    }

    /// The connection counts of the server with this stable id, unless it is gone.
    pub fn load(&self, id: u32) -> Option<&Load> {
        self.member(id).map(|member| &*member.load)
    }

    /// The member with this stable id, ghosts included.
    pub fn member(&self, id: u32) -> Option<&Member> {
        self.members.get(slot_of(id))?.as_ref().filter(|member| member.id == id)
    }

    /// The member in this slot now, ghosts included.
    pub fn member_at(&self, slot: u16) -> Option<&Member> {
        self.members.get(usize::from(slot))?.as_ref()
    }

    /// What becomes of the flows of the server with this stable id; `None` where it serves them.
    #[inline]
    pub fn fate(&self, id: u32) -> Option<Fate> {
        self.fates.get(slot_of(id)).copied().flatten()
    }

    /// The largest TCP segment that a client may send to any server of a service, if its SYN is answered by a cookie; `None`: it
    /// must not be, as not all of the servers are behind NAT or none takes new flows.
    #[inline]
    pub fn cookie_mss(&self, service: u16) -> Option<u16> {
        self.cookie_mss.get(usize::from(service)).copied().flatten()
    }

    /// Whether a service has no server that takes new flows, and tells its clients so.
    #[inline]
    pub fn refuses(&self, service: u16) -> bool {
        self.refuses.get(usize::from(service)).copied().unwrap_or(false)
    }

    /// The service for a destination.
    pub fn service(&self, address: IpAddr, protocol: u8, port: u16) -> Option<u16> {
        self.by_address.get(&(address, protocol))?.find(port)
    }

    /// The slot of a local address of full NAT.
    pub fn local_slot(&self, address: IpAddr) -> Option<u16> {
        self.local_slots.get(&address).copied()
    }

    /// Whether the appliance answers for this address now.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.ownership.owner(address).is_some()
    }
}

/// See [`Snapshot::refuses`]. Where servers are only full, or their next hops are still being asked for, the client's next attempt may be
/// let in: that is no refusal.
fn refuses(service: &ServiceEntry, servers: &[ServerEntry], awaited: &[bool]) -> bool {
    let reached = |member: &Member| servers.get(slot_of(member.id)).is_some_and(|server| server.reachable);
    let usable = |member: &Member| member.weight > 0 && member.reachable && reached(member);
    let may_be = |member: &Member| member.weight > 0 && awaited.get(slot_of(member.id)).is_some_and(|awaited| *awaited);
    service.config.health.no_server == NoServer::Refuse
        && !service.members.iter().any(|member| usable(member) || may_be(member))
}

/// See [`Snapshot::cookie_mss`].
fn cookie_mss(service: &ServiceEntry, servers: &[ServerEntry], targets: &[Option<Target>]) -> Option<u16> {
    let v6 = service.config.key.address.is_ipv6();
    let (usual, headers) = if v6 { (1440, 74) } else { (1460, 54) };
    let (mut most, mut any) = (usual, false);
    for member in &service.members {
        let server = servers.get(slot_of(member.id))?;
        let target = targets.get(slot_of(member.id))?.as_ref()?;
        if !matches!(server.way, Way::Nat | Way::FullNat) {
            return None;
        }
        if server.reachable && member.reachable && member.weight > 0 {
            any = true;
            most = most.min(server.max_frame.saturating_sub(headers));
        }
        if target.mss != 0 {
            most = most.min(target.mss);
        }
    }
    if service.config.proxy_protocol {
        most = most.saturating_sub(super::proxy::length(v6) as u16);
    }
    any.then_some(most.max(64))
}

impl Lifetimes for Snapshot {
    #[inline(always)]
    fn limit_ms(&self, server: u32, state: State) -> u32 {
        let state = usize::from(state.0) & (STATES - 1);
        // Most configurations have the same timeouts for all services.
        if self.lifetimes.len() == 1 {
            return self.lifetimes[0][state];
        }
        let service = self.server(server).map_or(usize::MAX, |server| usize::from(server.outcome.service));
        let own = self.service_lifetimes.get(service).copied().unwrap_or(0);
        self.lifetimes[usize::from(own)][state]
    }
}
