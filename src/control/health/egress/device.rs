//! The TUN device that takes the packets of marked sockets from the kernel.
//!
//! Owns the device, the rule and the routes that lead to it, and taking them away again. Never reads a packet's bytes.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::control::netlink::{Netlink, NetlinkError};
use crate::tun::Tun;

/// Name of the device without its number.
const NAME: &str = "ekcheck";
/// Engines of one network namespace that can have one.
const MOST: u32 = 16;
/// Marks of sockets and numbers of tables: this and the device's number. The first two bytes spell `ek`.
const FIRST: u32 = 0x656b_0000;
/// Before any rule that people write; the kernel's own, for local addresses, is 0.
const PRIORITY: u32 = 1;
/// Bytes of a packet: leaves room for every outer header, so that no check needs another MTU than its clients have.
const MTU: u32 = 1400;
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No device.
    #[error("cannot make the TUN device {name}, which needs /dev/net/tun and CAP_NET_ADMIN: {source}")]
    Tun {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// All names are taken.
    #[error("{MOST} devices named {NAME}0 and so on are there already: remove those that nobody uses (`ip link del`)")]
    Names,
    /// The device does not come up, or no route leads to it.
    #[error("cannot lead packets to the TUN device {name}: {source}")]
    Route {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: Cause,
    },
}

/// A refusal, with the kernel's own word.
#[derive(Debug, thiserror::Error)]
#[error("{}", match .0 { NetlinkError::Refused { what, source } => format!("the kernel refuses {what}: {source}"), other => other.to_string() })]
pub struct Cause(#[from] NetlinkError);

/// The device with its routes. Dropped, all of it goes.
#[derive(Debug)]
pub struct Device {
    tun: Tun,
    number: u32,
}

impl Device {
    /// Makes it, in the network namespace of the calling thread. What an earlier one has left is removed.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn make() -> Result<Device, DeviceError> {
        let (tun, number) = create()?;
        let device = Device { tun, number };
        let name = format!("{NAME}{number}");
        let lead = || -> Result<(), NetlinkError> {
            let mut netlink = Netlink::open()?;
            clean(&mut netlink, number);
            let index = nix::net::if_::if_nametoindex(name.as_str())
                .map_err(|errno| NetlinkError::Talk { what: "the device", source: errno.into() })?;
            netlink.change("the TUN device up", RouteNetlinkMessage::SetLink(up(index)), 0)?;
            for family in FAMILIES {
                match device.route(&mut netlink, family, index) {
                    // A machine without IPv6 has no checks over it.
                    Err(NetlinkError::Refused { source, .. })
                        if family == AddressFamily::Inet6
                            && matches!(source.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {}
                    other => other?,
                }
            }
            Ok(())
        };
        lead().map_err(|error| DeviceError::Route { name: name.clone(), source: error.into() })?;
        Ok(device)
    }

    /// Leads marked packets of a family to the device, and nowhere else: without it they have no way, rather than the usual one.
    fn route(&self, netlink: &mut Netlink, family: AddressFamily, index: u32) -> Result<(), NetlinkError> {
        let what = "a route to the TUN device";
        let replace = NLM_F_CREATE | NLM_F_REPLACE;
        let dead_end = RouteNetlinkMessage::NewRoute(default_route(family, self.mark(), None));
        netlink.change(what, dead_end, replace)?;
        let rule = RouteNetlinkMessage::NewRule(rule(family, self.mark()));
        netlink.change("a rule for marked packets", rule, NLM_F_CREATE | NLM_F_EXCL)?;
        let route = RouteNetlinkMessage::NewRoute(default_route(family, self.mark(), Some(index)));
        match netlink.change(what, route, replace) {
            // IPv6 is switched off on new interfaces (`disable_ipv6`): its checks say that there is no route.
            Err(NetlinkError::Refused { .. }) if family == AddressFamily::Inet6 => Ok(()),
            other => other,
        }
    }

    /// The mark of sockets whose packets it takes.
    pub fn mark(&self) -> u32 {
        FIRST + self.number
    }

    /// Takes the next packet, from its IP header on.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: none waits.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.tun.read(into)
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.tun.as_raw_fd()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The routes to the device go with it.
        if let Ok(mut netlink) = Netlink::open() {
            remove(&mut netlink, self.number);
        }
    }
}

fn create() -> Result<(Tun, u32), DeviceError> {
    for number in 0..MOST {
        let name = format!("{NAME}{number}");
        match Tun::create(&name) {
            Ok(tun) => return Ok((tun, number)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(source) => return Err(DeviceError::Tun { name, source }),
        }
    }
    Err(DeviceError::Names)
}

/// Removes what engines have left that did not end by themselves: the rules of this device's number, and of those whose device is
/// gone.
fn clean(netlink: &mut Netlink, own: u32) {
    let gone = |number: &u32| nix::net::if_::if_nametoindex(format!("{NAME}{number}").as_str()).is_err();
    for number in (0..MOST).filter(|number| *number == own || gone(number)) {
        remove(netlink, number);
    }
}

/// Removes the rules and the dead ends of a number. That they are not there is as well.
fn remove(netlink: &mut Netlink, number: u32) {
    for family in FAMILIES {
        let rule = || RouteNetlinkMessage::DelRule(rule(family, FIRST + number));
        while netlink.change("the end of a rule", rule(), 0).is_ok() {}
        let dead_end = RouteNetlinkMessage::DelRoute(default_route(family, FIRST + number, None));
        let _ = netlink.change("the end of a route", dead_end, 0);
    }
}

fn up(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::Mtu(MTU));
    link
}

/// The route of everything in a table: by the device, or to nowhere where nothing better is there.
fn default_route(family: AddressFamily, table: u32, device: Option<u32>) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family;
    route.header.protocol = RouteProtocol::Static;
    route.header.kind = if device.is_some() { RouteType::Unicast } else { RouteType::Unreachable };
    route.header.scope = match (device, family) {
        (Some(_), AddressFamily::Inet) => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    route.attributes.push(RouteAttribute::Table(table));
    route.attributes.push(RouteAttribute::Priority(if device.is_some() { 1 } else { u32::MAX }));
    route.attributes.extend(device.map(RouteAttribute::Oif));
    route
}

fn rule(family: AddressFamily, mark: u32) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.attributes.push(RuleAttribute::Priority(PRIORITY));
    rule.attributes.push(RuleAttribute::FwMark(mark));
    rule.attributes.push(RuleAttribute::Table(mark));
    rule
}
