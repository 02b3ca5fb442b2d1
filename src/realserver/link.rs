//! Interfaces of this machine: up and down, the kernel's own tunnel device, the reverse path filter.
//!
//! Owns a short conversation with rtnetlink for each request. Never keeps a socket.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoIpTunnel, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::net::if_::InterfaceFlags;

use super::wanted::{Tunnel, host, label};

/// What became of the wish for a tunnel device of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelDevice {
    /// It is there and up; it was made here, and goes with [`delete`].
    Made,
    /// This kernel has no such devices.
    Lacking,
}

/// Switches an interface on, with this MTU in bytes.
///
/// # Errors
/// What the kernel says.
pub fn set_up(name: &str, mtu: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index(name)?;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::Mtu(mtu));
    ask(RouteNetlinkMessage::SetLink(link), 0)
}

/// Makes `ip link add NAME type ipip external` and switches it on: it takes every IPv4 packet in IPv4 out.
///
/// # Errors
/// What the kernel says, but for "no such kind of device".
pub fn add_ipip(name: &str, mtu: u32) -> io::Result<KernelDevice> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::IpIp),
        LinkInfo::Data(InfoData::IpTunnel(vec![InfoIpTunnel::CollectMetadata])),
    ]));
    match ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(KernelDevice::Lacking),
        result => result?,
    }
    set_up(name, mtu).inspect_err(|_| {
        let _ = delete(name);
    })?;
    Ok(KernelDevice::Made)
}

/// Makes a tunnel device of the kernel's, or finds the one that comes with its module, and switches it on.
///
/// # Errors
/// What the kernel says, but for "no such kind of device".
pub fn add_tunnel(tunnel: &Tunnel) -> io::Result<KernelDevice> {
    if tunnel.external.is_some() || index(tunnel.name).is_err() {
        // Asking for one of its kind makes the kernel load the module.
        match ask(RouteNetlinkMessage::NewLink(tunnel_message(tunnel)), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(KernelDevice::Lacking),
            Err(error) if tunnel.external.is_none() && error.raw_os_error() == Some(libc::EEXIST) => {}
            result => result?,
        }
    }
    switch(tunnel.name, true)?;
    Ok(KernelDevice::Made)
}

fn tunnel_message(tunnel: &Tunnel) -> LinkMessage {
    let kind = match tunnel.kind {
        "ipip" => InfoKind::IpIp,
        "sit" => InfoKind::SitTun,
        "ip6tnl" => InfoKind::Ip6Tnl,
        "gre" => InfoKind::GreTun,
        _ => InfoKind::GreTun6,
    };
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(tunnel.name.to_owned()));
    let mut info = vec![LinkInfo::Kind(kind)];
    // An attribute without a value: its length and its number.
    let external = |number: u16| [4u16.to_ne_bytes(), number.to_ne_bytes()].concat();
    info.extend(tunnel.external.map(|number| LinkInfo::Data(InfoData::Other(external(number)))));
    link.attributes.push(LinkAttribute::LinkInfo(info));
    link
}

/// Switches an interface on or off.
///
/// # Errors
/// What the kernel says.
pub fn switch(name: &str, on: bool) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index(name)?;
    link.header.change_mask = LinkFlags::Up;
    if on {
        link.header.flags = LinkFlags::Up;
    }
    ask(RouteNetlinkMessage::SetLink(link), 0)
}

/// An address of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The address.
    pub address: IpAddr,
    /// Its interface.
    pub interface: String,
}

/// An interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is Ethernet-like (neither loopback nor point-to-point): it asks by ARP.
    pub asks: bool,
}

/// All addresses of this machine, and all interfaces.
///
/// # Errors
/// What the kernel says.
pub fn holdings() -> io::Result<(Vec<Held>, Vec<Seen>)> {
    let (mut held, mut links): (Vec<Held>, Vec<Seen>) = (Vec::new(), Vec::new());
    for entry in nix::ifaddrs::getifaddrs()? {
        // An IPv4 address with a label comes under that: `lo:evenkeel`. No interface has a colon in its name.
        let mut name = entry.interface_name;
        name.truncate(name.find(':').unwrap_or(name.len()));
        if !links.iter().any(|link| link.name == name) {
            let asks = !entry
                .flags
                .intersects(InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_POINTOPOINT | InterfaceFlags::IFF_NOARP);
            links.push(Seen { name: name.clone(), up: entry.flags.contains(InterfaceFlags::IFF_UP), asks });
        }
        let Some(address) = entry.address else { continue };
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())));
        held.extend(ip.map(|address| Held { address, interface: name.clone() }));
    }
    Ok((held, links))
}

/// Puts a service address on an interface, as a host: IPv6 without duplicate address detection, which would find the appliance.
///
/// # Errors
/// What the kernel says.
pub fn add_address(address: IpAddr, interface: &str) -> io::Result<()> {
    let mut message = address_message(address, interface)?;
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Takes a service address off. `Ok(false)`: it was not there.
///
/// # Errors
/// What the kernel says.
pub fn delete_address(address: IpAddr, interface: &str) -> io::Result<bool> {
    let message = match address_message(address, interface) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(false),
        message => message?,
    };
    match ask(RouteNetlinkMessage::DelAddress(message), 0) {
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(false),
        result => result.map(|()| true),
    }
}

fn address_message(address: IpAddr, interface: &str) -> io::Result<AddressMessage> {
    let mut message = AddressMessage::default();
    message.header.index = index(interface)?;
    message.header.prefix_len = host(address);
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message.attributes.extend(label(interface).filter(|_| address.is_ipv4()).map(AddressAttribute::Label));
    Ok(message)
}

/// Whether there is an interface of this name.
pub fn exists(name: &str) -> bool {
    index(name).is_ok()
}

/// Removes an interface.
///
/// # Errors
/// What the kernel says.
pub fn delete(name: &str) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index(name)?;
    ask(RouteNetlinkMessage::DelLink(link), 0)
}

/// Lets packets of any source arrive on an interface: the way back to clients is not through it. Returns whether the
/// strict filter was on for all interfaces: then the best that can be had is the loose one (the kernel takes the larger
/// of the two settings, and loose is the larger), which asks for a route to the source by any interface.
///
/// # Errors
/// The setting cannot be written.
pub fn allow_any_source(name: &str) -> io::Result<bool> {
    let path = |of: &str| PathBuf::from("/proc/sys/net/ipv4/conf").join(of).join("rp_filter");
    let strict = fs::read_to_string(path("all")).is_ok_and(|value| value.trim() == "1");
    fs::write(path(name), if strict { "2" } else { "0" })?;
    Ok(strict)
}

fn index(name: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(name).map_err(io::Error::from)
}

fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
