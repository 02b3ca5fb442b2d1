//! The kernel's interfaces and their addresses, as the kernel tells of them.
//!
//! Owns the socket that listens, and the table that is kept from what it hears. Never asks: that may wait for the kernel's
//! network lock, and is [`super::rtnl`]'s, on another thread.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use crate::model::MacAddr;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index; another one when an interface of the same name is made anew.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// Ethernet address, where it has one.
    pub mac: Option<MacAddr>,
    /// Whether it is switched on, has a carrier and may be used (`IFF_UP`, `IFF_LOWER_UP`, `IFF_RUNNING`).
    pub usable: bool,
    /// Its addresses, oldest first.
    pub addresses: Vec<IpAddr>,
}

impl Link {
    /// Its first IPv4 address for which `fits` holds.
    pub fn first_v4(&self, fits: impl Fn(IpAddr) -> bool) -> Option<Ipv4Addr> {
        let v4 = |address: &IpAddr| if let IpAddr::V4(v4) = address { Some(*v4) } else { None };
        self.addresses.iter().filter(|address| fits(**address)).find_map(v4)
    }

    /// Its first IPv6 address, of the link or of the world, for which `fits` holds.
    pub fn first_v6(&self, of_the_link: bool, fits: impl Fn(IpAddr) -> bool) -> Option<Ipv6Addr> {
        let v6 = |address: &IpAddr| if let IpAddr::V6(v6) = address { Some(*v6) } else { None };
        let all = self.addresses.iter().filter(|address| fits(**address)).filter_map(v6);
        all.into_iter().find(|address| address.is_unicast_link_local() == of_the_link)
    }
}

/// One thing that the kernel told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An interface is there, or changed. Its addresses are not told here.
    Link(Link),
    /// An interface is gone.
    Gone(u32),
    /// An interface has an address.
    Address(u32, IpAddr),
    /// It no longer has it.
    NoAddress(u32, IpAddr),
}

/// All interfaces, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<u32, Link>);

impl Links {
    /// Takes one thing in. Returns whether something changed.
    pub fn apply(&mut self, news: &News) -> bool {
        match news {
            News::Link(link) => {
                let addresses = self.0.get(&link.index).map(|known| known.addresses.clone()).unwrap_or_default();
                let link = Link { addresses, ..link.clone() };
                self.0.insert(link.index, link.clone()).is_none_or(|known| known != link)
            }
            News::Gone(index) => self.0.remove(index).is_some(),
            News::Address(index, address) => match self.0.get_mut(index) {
                Some(link) if !link.addresses.contains(address) => {
                    link.addresses.push(*address);
                    true
                }
                _ => false,
            },
            News::NoAddress(index, address) => self.0.get_mut(index).is_some_and(|link| {
                let before = link.addresses.len();
                link.addresses.retain(|known| known != address);
                link.addresses.len() < before
            }),
        }
    }

    /// The interface of that name. The one with the highest index where a moment's news know two.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.0.values().rev().find(|link| link.name == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.values()
    }
}

impl FromIterator<News> for Links {
    /// From answers of the kernel: interfaces before their addresses.
    fn from_iter<I: IntoIterator<Item = News>>(news: I) -> Links {
        let mut links = Links::default();
        for one in news {
            links.apply(&one);
        }
        links
    }
}

/// How reading the news went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Something was lost: all must be asked for again.
    pub lost: bool,
    /// More may wait.
    pub more: bool,
}

/// The socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    /// Opens the socket and subscribes, in the network namespace of the calling thread.
    pub fn open() -> io::Result<Listener> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR] {
            socket.add_membership(group)?;
        }
        // A larger buffer makes a loss rarer; that it can happen is provided for, so a refusal does not matter.
        let _ = socket.set_rx_buf_sz(1i32 << 20);
        socket.set_non_blocking(true)?;
        Ok(Listener { socket, buffer: vec![0; 64 * 1024] })
    }

    /// Reads what waits into `news`, at most so much that the caller is not kept from its deadlines.
    pub fn drain(&mut self, news: &mut Vec<News>) -> Drained {
        let mut lost = false;
        for _ in 0..64 {
            let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => length.min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Drained { lost, more: false },
                // ENOBUFS: the kernel dropped messages; the socket goes on.
                Err(_) => {
                    lost = true;
                    continue;
                }
            };
            for message in messages(&self.buffer[..length]) {
                match message {
                    Some(NetlinkPayload::InnerMessage(inner)) => news.extend(news_in(&inner)),
                    Some(NetlinkPayload::Overrun(_)) | None => lost = true,
                    Some(_) => {}
                }
            }
        }
        Drained { lost, more: true }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The messages of one datagram; `None` for what cannot be understood.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Option<NetlinkPayload<RouteNetlinkMessage>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let (Some(bytes), true) = (rest.get(..length), length >= 16) else {
            rest = &[];
            return Some(None);
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(bytes).ok().map(|message| message.payload))
    })
}

/// What a message says, if it is about an interface or an address.
pub(super) fn news_in(message: &RouteNetlinkMessage) -> Option<News> {
    // A bridge tells of its ports with the same messages: that a port leaves it is no end of the interface.
    if let RouteNetlinkMessage::NewLink(about) | RouteNetlinkMessage::DelLink(about) = message
        && about.header.interface_family != AddressFamily::Unspec
    {
        return None;
    }
    match message {
        RouteNetlinkMessage::NewLink(message) => link(message).map(News::Link),
        RouteNetlinkMessage::DelLink(message) => Some(News::Gone(message.header.index)),
        RouteNetlinkMessage::NewAddress(message) => {
            let index = message.header.index;
            Some(if failed(message) {
                News::NoAddress(index, address(message)?)
            } else {
                News::Address(index, address(message)?)
            })
        }
        RouteNetlinkMessage::DelAddress(message) => Some(News::NoAddress(message.header.index, address(message)?)),
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let has = |flag| message.header.flags.contains(flag);
    let mut found = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        usable: has(LinkFlags::Up) && has(LinkFlags::LowerUp) && has(LinkFlags::Running),
        addresses: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Address(bytes) => found.mac = bytes.as_slice().try_into().ok().map(MacAddr),
            _ => {}
        }
    }
    (!found.name.is_empty()).then_some(found)
}

/// Whether another machine has the address: it is not ours to speak with (RFC 4862, section 5.4.5).
fn failed(message: &AddressMessage) -> bool {
    message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed)))
}

/// The address that a message is about.
pub(super) fn address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    // On a point-to-point interface IFA_ADDRESS is the other end, and IFA_LOCAL is ours.
    let local = find(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
    let any = find(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None });
    local.or(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth0(index: u32, usable: bool) -> News {
        News::Link(Link { index, name: "eth0".into(), mac: None, usable, addresses: Vec::new() })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_change_of_an_interface_keeps_its_addresses_and_a_new_one_of_its_name_has_none() {
        let mut links = Links::default();
        assert!(links.apply(&eth0(3, true)));
        assert!(!links.apply(&eth0(3, true)), "nothing new");
        for address in ["10.0.0.1", "10.0.0.100", "2001:db8::1", "fe80::1"] {
            assert!(links.apply(&News::Address(3, ip(address))));
            assert!(!links.apply(&News::Address(3, ip(address))), "told twice");
        }
        assert!(links.apply(&eth0(3, false)));
        let link = links.named("eth0").unwrap();
        assert_eq!((link.usable, link.addresses.len()), (false, 4));
        assert_eq!(link.first_v4(|_| true), Some([10, 0, 0, 1].into()));
        assert_eq!(link.first_v4(|address| address != ip("10.0.0.1")), Some([10, 0, 0, 100].into()));
        assert_eq!(link.first_v6(true, |_| true).map(IpAddr::V6), Some(ip("fe80::1")));
        assert_eq!(link.first_v6(false, |_| true).map(IpAddr::V6), Some(ip("2001:db8::1")));
        assert!(links.apply(&News::NoAddress(3, ip("10.0.0.1"))));
        assert!(!links.apply(&News::NoAddress(3, ip("10.0.0.1"))));
        assert!(!links.apply(&News::Address(9, ip("10.0.0.1"))), "of an interface that is not known");
        // Made anew: the new one may be told of before the old one's end.
        assert!(links.apply(&eth0(7, true)));
        assert_eq!(links.named("eth0").map(|link| (link.index, link.addresses.len())), Some((7, 0)));
        assert!(links.apply(&News::Gone(3)));
        assert!(!links.apply(&News::Gone(3)));
        assert_eq!(links.named("eth0").map(|link| link.index), Some(7));
        assert!(links.apply(&News::Gone(7)));
        assert_eq!(links.named("eth0"), None);
    }

    #[test]
    fn a_port_that_leaves_a_bridge_is_no_interface_that_is_gone() {
        let mut message = LinkMessage::default();
        message.header.index = 3;
        assert_eq!(news_in(&RouteNetlinkMessage::DelLink(message.clone())), Some(News::Gone(3)));
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(news_in(&RouteNetlinkMessage::DelLink(message)), None);
    }

    #[test]
    fn garbage_in_a_datagram_is_a_loss_and_ends() {
        assert_eq!(messages(&[]).count(), 0);
        for length in [0u32, 15, 17, u32::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(16, 0xff);
            assert!(matches!(messages(&bytes).collect::<Vec<_>>().as_slice(), [None]), "{length}");
        }
    }
}
