//! The kernel's links, addresses, routes and neighbours over rtnetlink.
//!
//! Owns the two sockets: one that asks and waits for its answer, and one that listens to changes. Turns messages into
//! plain facts and never draws conclusions from them: [`super::nexthop`] does.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::model::MacAddr;

/// A conversation with rtnetlink that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket cannot be made.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The request did not go out, or no answer came.
    #[error("cannot ask the kernel for {what}")]
    Talk {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("the kernel refuses {what}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// Ethernet address, where it has one.
    pub mac: Option<MacAddr>,
    /// Largest packet.
    pub mtu: u32,
    /// Whether it is switched on (`IFF_UP`).
    pub up: bool,
    /// Whether it has a carrier (`IFF_LOWER_UP`).
    pub running: bool,
    /// Kind of a virtual interface, such as `veth` or `vlan`.
    pub kind: Option<String>,
    /// Interface below it, as a VLAN has; a veth's peer in another namespace is not given.
    pub parent: Option<u32>,
    /// VLAN id, when it is a VLAN of 802.1Q.
    pub vlan: Option<u16>,
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of its interface.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
}

/// What the kernel would do with a packet to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the interface that it would leave by.
    pub link: u32,
    /// Router that it would go to; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Address that it would have as its source.
    pub source: Option<IpAddr>,
    /// Whether the destination is this machine.
    pub local: bool,
    /// Largest packet, in bytes, where the route says so.
    pub mtu: Option<u32>,
}

/// How sure the kernel is of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Confirmed, or fixed by hand.
    Sure,
    /// Known, but not confirmed of late.
    Stale,
    /// Being asked for.
    Pending,
    /// It did not answer.
    Failed,
}

/// One row of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// Index of the interface.
    pub link: u32,
    /// The neighbour.
    pub address: IpAddr,
    /// Its Ethernet address, if known.
    pub mac: Option<MacAddr>,
    /// How sure that is.
    pub certainty: Certainty,
}

/// A socket that asks, and waits for the answer (at most two seconds, though the kernel answers at once).
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens the socket, in the network namespace of the calling thread.
    pub fn open() -> Result<Netlink, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        let timeout = nix::sys::time::TimeVal::new(2, 0);
        nix::sys::socket::setsockopt(&borrow(&socket), nix::sys::socket::sockopt::ReceiveTimeout, &timeout)
            .map_err(|errno| NetlinkError::Open(errno.into()))?;
        Ok(Netlink { socket, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask("the interfaces", request, NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|answer| if let RouteNetlinkMessage::NewLink(m) = answer { link(m) } else { None })
            .collect())
    }

    /// All interfaces with everything that the kernel says of them.
    pub(crate) fn link_messages(&mut self) -> Result<Vec<LinkMessage>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask("the interfaces", request, NLM_F_DUMP)?;
        let link = |answer| if let RouteNetlinkMessage::NewLink(message) = answer { Some(message) } else { None };
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// All addresses.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask("the addresses", request, NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|answer| if let RouteNetlinkMessage::NewAddress(m) = answer { address(m) } else { None })
            .collect())
    }

    /// What the kernel would do with a packet to `destination`; `None` when it would not send it.
    pub fn route(&mut self, destination: IpAddr) -> Result<Option<Route>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        match self.ask("a route", RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answers) => Ok(answers
                .iter()
                .find_map(|answer| if let RouteNetlinkMessage::NewRoute(m) = answer { Some(route(m)) } else { None })
                .flatten()),
            // ENETUNREACH, EHOSTUNREACH, EACCES (prohibit), EINVAL (blackhole), ESRCH: the kernel's ways to say no.
            Err(NetlinkError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole neighbour table, both families.
    pub fn neighbours(&mut self) -> Result<Vec<NeighbourEntry>, NetlinkError> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.ask("the neighbours", request, NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|answer| if let RouteNetlinkMessage::NewNeighbour(m) = answer { neighbour(m) } else { None })
            .collect())
    }

    /// Makes the kernel resolve a neighbour, or confirm it, as if it had a packet for it (`NTF_USE`).
    pub fn resolve(&mut self, link: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = link;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.ask("the resolution of a neighbour", request, NLM_F_CREATE | NLM_F_ACK).map(|_| ())
    }

    /// Makes the kernel change something. `flags` besides those of every request, such as `NLM_F_CREATE`.
    pub(crate) fn change(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.ask(what, request, flags | NLM_F_ACK).map(drop)
    }

    fn ask(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let talk = |source| NetlinkError::Talk { what, source };
        // A table that changes while it is dumped is marked, or the socket overflows: ask again, a few times.
        for _ in 0..3 {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            header.sequence_number = self.sequence;
            let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.clone()));
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            self.socket.send(&bytes, 0).map_err(talk)?;
            match self.answers(what, flags & NLM_F_DUMP == NLM_F_DUMP)? {
                Some(answers) => return Ok(answers),
                None => continue,
            }
        }
        Err(talk(io::Error::other("the table changes faster than it can be read")))
    }

    /// Everything that belongs to the last request. `None`: it must be asked again.
    fn answers(&mut self, what: &'static str, dump: bool) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        /// The kernel's mark on a dump that a change has cut in two.
        const NLM_F_DUMP_INTR: u16 = 0x10;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => length.min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                Err(source) => return Err(NetlinkError::Talk { what, source }),
            };
            for message in messages(&self.buffer[..length]) {
                let Ok(message) = message else { continue };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(answers)),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(NetlinkError::Refused { what, source: error.to_io() });
                    }
                    NetlinkPayload::Error(_) => return Ok(Some(answers)),
                    NetlinkPayload::InnerMessage(inner) => {
                        answers.push(inner);
                        if !dump {
                            return Ok(Some(answers));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// What changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// An interface came, went, or changed.
    pub links: bool,
    /// An address or a route did: any route may lead elsewhere now.
    pub routes: bool,
    /// Rows of the neighbour table, in order, and whether each was removed.
    pub neighbours: Vec<(NeighbourEntry, bool)>,
    /// Messages were lost: everything must be read again.
    pub lost: bool,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// A socket that listens to changes; never blocks, and can be registered in a poll loop by its descriptor.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Opens the socket and subscribes, in the network namespace of the calling thread.
    pub fn open() -> Result<Monitor, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_RULE,
        ];
        for group in groups {
            socket.add_membership(group).map_err(NetlinkError::Open)?;
        }
        // A larger buffer makes a loss rarer; that it can happen is provided for, so a refusal does not matter.
        let _ = socket.set_rx_buf_sz(1i32 << 20);
        socket.set_non_blocking(true).map_err(NetlinkError::Open)?;
        Ok(Monitor { socket, buffer: vec![0; 64 * 1024] })
    }

    /// Reads all that waits. Never fails: what cannot be read counts as lost.
    pub fn drain(&mut self) -> Changes {
        let mut changes = Changes::default();
        loop {
            let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => length.min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return changes,
                // ENOBUFS: the kernel dropped messages; the socket goes on.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    changes.lost = true;
                    continue;
                }
                Err(_) => {
                    changes.lost = true;
                    return changes;
                }
            };
            for message in messages(&self.buffer[..length]) {
                match message.map(|message| message.payload) {
                    Ok(NetlinkPayload::InnerMessage(inner)) => note(&inner, &mut changes),
                    Ok(NetlinkPayload::Overrun(_)) | Err(()) => changes.lost = true,
                    Ok(_) => {}
                }
            }
        }
    }

    /// Waits until something changed, for programs without a poll loop. Returns whether it did.
    pub fn wait(&self, timeout: Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let socket = borrow(&self.socket);
        let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)).is_ok_and(|ready| ready > 0)
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn note(message: &RouteNetlinkMessage, changes: &mut Changes) {
    match message {
        RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => changes.links = true,
        RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_)
        | RouteNetlinkMessage::NewRoute(_)
        | RouteNetlinkMessage::DelRoute(_)
        | RouteNetlinkMessage::NewRule(_)
        | RouteNetlinkMessage::DelRule(_) => changes.routes = true,
        RouteNetlinkMessage::NewNeighbour(row) => {
            changes.neighbours.extend(neighbour(row).map(|entry| (entry, false)));
        }
        RouteNetlinkMessage::DelNeighbour(row) => {
            changes.neighbours.extend(neighbour(row).map(|entry| (entry, true)));
        }
        _ => {}
    }
}

/// The messages of one datagram. A message that cannot be understood is an error, and the next is still read; a
/// length that makes no sense ends the datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, ()>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let (Some(bytes), true) = (rest.get(..length), length >= 16) else {
            rest = &[];
            return Some(Err(()));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(bytes).map_err(|_| ()))
    })
}

fn borrow(socket: &Socket) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(socket)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut found = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::LowerUp),
        kind: None,
        parent: None,
        vlan: None,
    };
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Address(bytes) => found.mac = mac(bytes),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Link(parent) => found.parent = Some(*parent),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => found.kind = Some(kind.to_string()),
                        LinkInfo::Data(InfoData::Vlan(vlan)) => found.vlan = vlan_id(vlan),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // The index is one of another namespace.
    if elsewhere {
        found.parent = None;
    }
    (!found.name.is_empty()).then_some(found)
}

/// The id of an 802.1Q VLAN; 802.1ad tags are not those that the engine writes.
fn vlan_id(vlan: &[InfoVlan]) -> Option<u16> {
    use netlink_packet_route::link::VlanProtocol;
    let foreign = vlan.iter().any(|info| matches!(info, InfoVlan::Protocol(p) if *p != VlanProtocol::Ieee8021Q));
    vlan.iter().find_map(|info| if let InfoVlan::Id(id) = info { Some(*id) } else { None }).filter(|_| !foreign)
}

fn address(message: &AddressMessage) -> Option<Address> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    // On a point-to-point interface IFA_ADDRESS is the other end, and IFA_LOCAL is ours.
    let local = find(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
    let any = find(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None });
    Some(Address { link: message.header.index, address: local.or(any)?, prefix: message.header.prefix_len })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let local = match message.header.kind {
        RouteType::Unicast => false,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast => true,
        _ => return None,
    };
    let mut link = None;
    let (mut gateway, mut source, mut mtu) = (None, None, None);
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                let find = |metric: &RouteMetric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None };
                // Below that no IPv4 packet need fit anywhere (RFC 791): it is no limit, but nonsense.
                mtu = metrics.iter().find_map(find).filter(|mtu| *mtu >= 68);
            }
            _ => {}
        }
    }
    Some(Route { link: link?, gateway, source, local, mtu })
}

fn neighbour(message: &NeighbourMessage) -> Option<NeighbourEntry> {
    let mut found = NeighbourEntry {
        link: message.header.ifindex,
        address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        mac: None,
        certainty: match message.header.state {
            NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => Certainty::Sure,
            NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => Certainty::Stale,
            NeighbourState::Failed => Certainty::Failed,
            _ => Certainty::Pending,
        },
    };
    // Rows that announce others' addresses are not about a neighbour of ours.
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => found.mac = mac(bytes),
            _ => {}
        }
    }
    found.address = address?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_in_a_datagram_is_an_error_and_ends() {
        assert_eq!(messages(&[]).count(), 0);
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
        for length in [0u32, 15, 17, u32::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(16, 0xff);
            let all: Vec<_> = messages(&bytes).collect();
            assert!(matches!(all.as_slice(), [Err(())]), "{length}: {all:?}");
        }
    }
}
