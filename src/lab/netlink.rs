//! Links, addresses, routes and neighbours of the calling thread's network namespace, by synchronous rtnetlink.
//!
//! Owns the messages that build a topology. Never changes namespace itself: a [`Rtnl`] speaks for the namespace in which
//! it was opened.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::str::FromStr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
    XdpAttached,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::error::{Doing, LabError};
use crate::model::MacAddr;

/// An address with the length of its network prefix, such as `192.0.2.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

impl Cidr {
    /// `address` with a prefix of `prefix` bits.
    pub fn new(address: impl Into<IpAddr>, prefix: u8) -> Self {
        Cidr { address: address.into(), prefix }
    }

    /// The address alone: /32 or /128.
    pub fn host(address: IpAddr) -> Self {
        Cidr { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A text that is not an address with a prefix length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address with a prefix length, such as 192.0.2.1/24")]
pub struct ParseCidrError(String);

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseCidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if prefix > Cidr::host(address).prefix { Err(wrong()) } else { Ok(Cidr { address, prefix }) }
    }
}

/// What a pair of virtual Ethernet interfaces is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Receive and transmit queues of both ends.
    pub queues: u32,
    /// MTU of both ends.
    pub mtu: u32,
}

impl Default for Wire {
    fn default() -> Self {
        Wire { queues: 1, mtu: 1500 }
    }
}

/// An rtnetlink socket of one namespace.
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

impl Rtnl {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Self, LabError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Rtnl { socket: open().doing(|| "opening an rtnetlink socket".into())?, sequence: 0 })
    }

    /// Creates a veth pair: `name` here, `peer` in the namespace of `peer_ns`.
    pub fn add_veth(
        &mut self,
        (name, mac): (&str, MacAddr),
        (peer, peer_mac): (&str, MacAddr),
        peer_ns: BorrowedFd<'_>,
        wire: Wire,
    ) -> Result<(), LabError> {
        let end = |name: &str, mac: MacAddr| {
            vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Address(mac.0.to_vec()),
                LinkAttribute::Mtu(wire.mtu),
                LinkAttribute::NumTxQueues(wire.queues),
                LinkAttribute::NumRxQueues(wire.queues),
            ]
        };
        let mut far = LinkMessage::default();
        far.attributes = end(peer, peer_mac);
        far.attributes.push(LinkAttribute::NetNsFd(peer_ns.as_raw_fd()));
        let mut near = LinkMessage::default();
        near.attributes = end(name, mac);
        near.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        self.create(RouteNetlinkMessage::NewLink(near), || format!("creating the veth pair {name} - {peer}"))
    }

    /// Creates a bridge that forwards everything: no spanning tree, no multicast snooping.
    pub fn add_bridge(&mut self, name: &str, mtu: u32) -> Result<(), LabError> {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(link), || format!("creating the bridge {name}"))
    }

    /// Whether this kernel has 802.1Q interfaces: asked by trying one on the loopback interface.
    pub fn has_vlans(&mut self) -> Result<bool, LabError> {
        const PROBE: &str = "ek-vlan-probe";
        match self.add_vlan(PROBE, "lo", 1) {
            Ok(()) => self.delete_link(PROBE).map(|()| true),
            Err(LabError::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(_) => Ok(true),
        }
    }

    /// Creates the 802.1Q sub-interface `name` of `parent`.
    pub fn add_vlan(&mut self, name: &str, parent: &str, id: u16) -> Result<(), LabError> {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(self.index(parent)?),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)])),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(link), || format!("creating VLAN {id} of {parent}"))
    }

    /// Removes an interface.
    pub fn delete_link(&mut self, name: &str) -> Result<(), LabError> {
        let mut link = LinkMessage::default();
        link.header.index = self.index(name)?;
        self.request(RouteNetlinkMessage::DelLink(link), 0).doing(|| format!("removing {name}"))
    }

    /// Makes `name` a port of the bridge `bridge`.
    pub fn enslave(&mut self, name: &str, bridge: &str) -> Result<(), LabError> {
        let mut link = LinkMessage::default();
        link.header.index = self.index(name)?;
        link.attributes = vec![LinkAttribute::Controller(self.index(bridge)?)];
        self.request(RouteNetlinkMessage::SetLink(link), 0).doing(|| format!("joining {name} to {bridge}"))
    }

    /// Sets an interface up or down.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), LabError> {
        let mut link = LinkMessage::default();
        link.header.index = self.index(name)?;
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        link.header.change_mask = LinkFlags::Up;
        let word = if up { "up" } else { "down" };
        self.request(RouteNetlinkMessage::SetLink(link), 0).doing(|| format!("setting {name} {word}"))
    }

    /// Adds an address, usable at once (no duplicate address detection).
    pub fn add_address(&mut self, interface: &str, cidr: Cidr) -> Result<(), LabError> {
        let mut message = AddressMessage::default();
        message.header.family = family(cidr.address);
        message.header.prefix_len = cidr.prefix;
        message.header.index = self.index(interface)?;
        message.header.scope = AddressScope::Universe;
        message.attributes = vec![AddressAttribute::Address(cidr.address), AddressAttribute::Local(cidr.address)];
        if cidr.address.is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.create(RouteNetlinkMessage::NewAddress(message), || format!("adding {cidr} to {interface}"))
    }

    /// Removes an address.
    pub fn delete_address(&mut self, interface: &str, cidr: Cidr) -> Result<(), LabError> {
        let mut message = AddressMessage::default();
        message.header.family = family(cidr.address);
        message.header.prefix_len = cidr.prefix;
        message.header.index = self.index(interface)?;
        message.attributes = vec![AddressAttribute::Address(cidr.address), AddressAttribute::Local(cidr.address)];
        self.request(RouteNetlinkMessage::DelAddress(message), 0).doing(|| format!("removing {cidr} from {interface}"))
    }

    /// Adds a route through a gateway, or to what is directly reachable on `interface`.
    pub fn add_route(&mut self, to: Cidr, gateway: Option<IpAddr>, interface: Option<&str>) -> Result<(), LabError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.address);
        message.header.destination_prefix_length = to.prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(to.address))];
        if let Some(gateway) = gateway {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
        }
        if let Some(interface) = interface {
            message.attributes.push(RouteAttribute::Oif(self.index(interface)?));
        }
        self.create(RouteNetlinkMessage::NewRoute(message), || format!("adding the route to {to}"))
    }

    /// Sets a permanent neighbour entry.
    pub fn set_neighbor(&mut self, interface: &str, address: IpAddr, mac: MacAddr) -> Result<(), LabError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.index(interface)?;
        message.header.state = NeighbourState::Permanent;
        let destination = match address {
            IpAddr::V4(a) => NeighbourAddress::Inet(a),
            IpAddr::V6(a) => NeighbourAddress::Inet6(a),
        };
        message.attributes =
            vec![NeighbourAttribute::Destination(destination), NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .doing(|| format!("setting the neighbour {address} on {interface}"))
    }

    /// Whether an XDP program is attached to an interface.
    pub fn has_xdp(&mut self, name: &str) -> Result<bool, LabError> {
        let mut link = LinkMessage::default();
        link.header.index = self.index(name)?;
        let answer = self.ask(RouteNetlinkMessage::GetLink(link), 0).doing(|| format!("asking about {name}"))?;
        let Some(RouteNetlinkMessage::NewLink(link)) = answer else {
            return Err(LabError::Unexpected(format!("the kernel says nothing about {name}")));
        };
        let attached = |xdp: &LinkXdp| matches!(xdp, LinkXdp::Attached(how) if *how != XdpAttached::None);
        Ok(link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::Xdp(xdps) => xdps.iter().any(attached),
            _ => false,
        }))
    }

    /// The index of the interface `name`.
    pub fn index(&mut self, name: &str) -> Result<u32, LabError> {
        nix::net::if_::if_nametoindex(name).doing(|| format!("looking for the interface {name}"))
    }

    fn create(&mut self, message: RouteNetlinkMessage, doing: impl FnOnce() -> String) -> Result<(), LabError> {
        self.request(message, NLM_F_CREATE | NLM_F_EXCL).doing(doing)
    }

    /// Sends one request and waits for its acknowledgement.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, flags).map(drop)
    }

    /// Sends one request and waits for its acknowledgement; the last message before that is the answer.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut buffer = vec![0; request.buffer_len()];
        request.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        let mut said = None;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Messages are aligned to 4 bytes.
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) => return Ok(said),
                    NetlinkPayload::InnerMessage(message) => said = Some(message),
                    _ => {}
                }
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cidr_reads_what_it_writes_and_refuses_the_rest() {
        for text in ["192.0.2.1/24", "0.0.0.0/0", "2001:db8::1/64", "::/0"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for text in ["192.0.2.1", "192.0.2.1/33", "2001:db8::1/129", "x/8", "1.2.3.4/-1", ""] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
