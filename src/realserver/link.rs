//! Interfaces of this machine: up and down, the kernel's own tunnel device, the reverse path filter.
//!
//! Owns a short conversation with rtnetlink for each request. Never keeps a socket.

use std::fs;
use std::io;
use std::path::PathBuf;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoIpTunnel, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

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
