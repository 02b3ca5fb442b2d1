//! The sockets that adverts come and go by.
//!
//! Owns a packet socket for each interface, the raw sockets that hold its group memberships, and those for single peers.
//! Opening joins groups, which may wait for the kernel's network lock: [`super::kernel`]'s thread does it. Sending and
//! receiving never wait. Never reads a message.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, bind, recv, send, sendmsg, setsockopt, sockopt,
};
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};

use super::filter::{self, Instruction};
use super::frame::ipv4_header;
use super::packet::{GROUP_V4, GROUP_V6, PROTOCOL};
use crate::model::MacAddr;

sockopt_impl!(
    /// Leave out what this machine itself sends.
    IgnoreOutgoing,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_IGNORE_OUTGOING,
    bool
);

sockopt_impl!(
    /// Make the interface take frames for one more address.
    JoinAddress,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_ADD_MEMBERSHIP,
    libc::packet_mreq
);

/// Bytes of frames that may wait: a thread that is kept from running for a while loses no advert.
const BUFFER: usize = 4 << 20;
/// `TC_PRIO_CONTROL` of `linux/pkt_sched.h`: what a queue sends first.
const URGENT: i32 = 7;
/// Longest frame: a whole IP packet.
pub const LONGEST: usize = 14 + 65535;

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} on {interface}: adverts need CAP_NET_RAW and CAP_NET_ADMIN")]
pub struct SocketError {
    what: &'static str,
    interface: String,
    #[source]
    source: io::Error,
}

/// The sockets of one interface.
#[derive(Debug)]
pub struct Port {
    packet: Socket,
    /// Held for their memberships, and so that the kernel does not tell peers that nobody speaks VRRP here.
    _members: Vec<Socket>,
}

impl Port {
    /// Opens the sockets of the interface with that index, in the network namespace of the calling thread, for adverts to
    /// the group addresses of the families that are wanted, and for claims of `addresses`.
    pub fn open(interface: &str, index: u32, v4: bool, v6: bool, addresses: &[IpAddr]) -> Result<Port, SocketError> {
        let doing = |what| move |source| SocketError { what, interface: interface.to_owned(), source };
        let packet = packet_socket(interface, index, addresses).map_err(doing("open a packet socket"))?;
        let mut members = Vec::new();
        if v4 {
            let join = || -> io::Result<Socket> {
                let socket = raw_socket(Domain::IPV4)?;
                socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
                Ok(socket)
            };
            members.push(join().map_err(doing("join 224.0.0.18"))?);
        }
        if v6 {
            let join = || -> io::Result<Socket> {
                let socket = raw_socket(Domain::IPV6)?;
                socket.join_multicast_v6(&GROUP_V6, index)?;
                Ok(socket)
            };
            members.push(join().map_err(doing("join ff02::12"))?);
        }
        Ok(Port { packet, _members: members })
    }

    /// Changes whose claims are heard.
    pub fn listen_for(&self, addresses: &[IpAddr]) -> io::Result<()> {
        attach(&self.packet, &filter::adverts_and_claims(addresses))
    }

    /// The next frame, if one waits. An error that the interface has (it is down) is told once and then gone.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match recv(self.packet.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends a frame, or says at once why it cannot.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(send(self.packet.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).map(drop)?)
    }
}

impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.packet.as_raw_fd()
    }
}

fn packet_socket(interface: &str, index: u32, addresses: &[IpAddr]) -> io::Result<Socket> {
    let address = getifaddrs()?
        .filter(|candidate| candidate.interface_name == interface)
        .filter_map(|candidate| candidate.address?.as_link_addr().copied())
        .find(|candidate| candidate.ifindex() == index as usize)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such interface"))?;
    // All protocols: frames of a VLAN above the interface can be told apart only before they are taken there.
    let every = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every))?;
    attach(&socket, &filter::adverts_and_claims(addresses))?;
    setsockopt(&socket, IgnoreOutgoing, &true)?;
    setsockopt(&socket, sockopt::Priority, &URGENT)?;
    // Without CAP_NET_ADMIN the buffers stay as they are.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
    let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER);
    bind(socket.as_raw_fd(), &address)?;
    // What came from other interfaces between the calls above is not ours.
    while recv(socket.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT) != Err(Errno::EAGAIN) {}
    Ok(socket)
}

/// The sockets for single peers: the kernel finds the way and the neighbour.
#[derive(Debug)]
pub struct Speaker {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Speaker {
    /// Opens the sockets of the families that are wanted, in the network namespace of the calling thread.
    pub fn open(v4: bool, v6: bool) -> Result<Speaker, SocketError> {
        let doing = |what| move |source| SocketError { what, interface: "any interface".into(), source };
        let open_v4 = || -> io::Result<Socket> {
            let socket = raw_socket(Domain::IPV4)?;
            socket.set_header_included_v4(true)?;
            setsockopt(&socket, sockopt::Priority, &URGENT)?;
            Ok(socket)
        };
        let open_v6 = || -> io::Result<Socket> {
            let socket = raw_socket(Domain::IPV6)?;
            socket.set_unicast_hops_v6(255)?;
            socket.set_tclass_v6(0xc0)?;
            setsockopt(&socket, sockopt::Priority, &URGENT)?;
            Ok(socket)
        };
        Ok(Speaker {
            v4: v4.then(open_v4).transpose().map_err(doing("open a raw IPv4 socket"))?,
            v6: v6.then(open_v6).transpose().map_err(doing("open a raw IPv6 socket"))?,
        })
    }

    /// Whether it speaks that family.
    pub fn speaks(&self, v4: bool) -> bool {
        if v4 { self.v4.is_some() } else { self.v6.is_some() }
    }

    /// Sends a message from `source`, of the interface with that index, to one peer. `id` is the IPv4 packet's.
    pub fn send(&self, message: &[u8], source: IpAddr, peer: IpAddr, index: u32, id: u16) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT;
        match (source, peer, &self.v4, &self.v6) {
            (IpAddr::V4(source), IpAddr::V4(peer), Some(socket), _) => {
                let header = ipv4_header(source, peer, message.len(), id);
                // The source decides on the route too, where there are rules about it.
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(SocketAddrV4::new(peer, 0));
                let parts = [IoSlice::new(&header), IoSlice::new(message)];
                sendmsg(socket.as_raw_fd(), &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))?;
            }
            (IpAddr::V6(source), IpAddr::V6(peer), _, Some(socket)) => {
                // An address of a link means nothing without the link.
                let scope = if peer.is_unicast_link_local() { index } else { 0 };
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: if source.is_unicast_link_local() { index } else { scope },
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(peer, 0, 0, scope));
                let parts = [IoSlice::new(message)];
                sendmsg(socket.as_raw_fd(), &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))?;
            }
            _ => return Err(Errno::EAFNOSUPPORT.into()),
        }
        Ok(())
    }
}

/// More addresses for which an interface takes frames, virtual MACs; dropping it gives them all back.
#[derive(Debug)]
pub struct Adopted {
    _socket: Socket,
}

impl Adopted {
    /// Makes the interface with that index take frames for `mac`. May wait for the kernel's network lock.
    pub fn new(index: u32, mac: MacAddr) -> io::Result<Adopted> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        let mut address = [0; 8];
        address[..6].copy_from_slice(&mac.0);
        let request = libc::packet_mreq {
            mr_ifindex: index as i32,
            mr_type: libc::PACKET_MR_UNICAST as u16,
            mr_alen: 6,
            mr_address: address,
        };
        setsockopt(&socket, JoinAddress, &request)?;
        Ok(Adopted { _socket: socket })
    }
}

fn raw_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
    // What arrives is read from the packet sockets.
    attach(&socket, &filter::NOTHING)?;
    Ok(socket)
}

fn attach(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    let program: Vec<SockFilter> =
        program.iter().map(|step| SockFilter::new(step.code, step.then, step.otherwise, step.value)).collect();
    socket.attach_filter(&program)
}
