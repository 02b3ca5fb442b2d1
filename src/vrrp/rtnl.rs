//! Requests to the kernel about interfaces and addresses.
//!
//! Owns the socket that asks and waits for its answer, at most two seconds: never used by the thread that speaks VRRP.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::link::{Links, news_in};

/// An address on an interface, as the kernel is to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnLink<'a> {
    /// Index of the interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// The kernel's label for it; IPv4.
    pub label: Option<&'a str>,
}

/// The socket.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Rtnl {
    /// Opens it in the network namespace of the calling thread.
    pub fn open() -> io::Result<Rtnl> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let timeout = nix::sys::time::TimeVal::new(2, 0);
        let borrowed = std::os::fd::AsFd::as_fd(&socket);
        nix::sys::socket::setsockopt(&borrowed, nix::sys::socket::sockopt::ReceiveTimeout, &timeout)?;
        Ok(Rtnl { socket, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    /// All interfaces with their addresses.
    pub fn links(&mut self) -> io::Result<Links> {
        let mut answers = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        answers.extend(self.ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?);
        Ok(answers.iter().filter_map(news_in).collect())
    }

    /// Puts an address on. `Ok(false)`: it is there already.
    pub fn add(&mut self, wanted: &OnLink<'_>) -> io::Result<bool> {
        let request = RouteNetlinkMessage::NewAddress(message(wanted));
        match self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes an address off. `Ok(false)`: it is not there, or its interface is not.
    pub fn remove(&mut self, unwanted: &OnLink<'_>) -> io::Result<bool> {
        match self.ask(RouteNetlinkMessage::DelAddress(message(unwanted)), NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        // A table that changes while it is read is marked, or the socket overflows: ask again, a few times.
        for _ in 0..3 {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            header.sequence_number = self.sequence;
            let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.clone()));
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            self.socket.send(&bytes, 0)?;
            if let Some(answers) = self.answers()? {
                return Ok(answers);
            }
        }
        Err(io::Error::other("the table changes faster than it can be read"))
    }

    /// Everything that belongs to the last request. `None`: it must be asked again.
    fn answers(&mut self) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        /// The kernel's mark on an answer that a change has cut in two.
        const NLM_F_DUMP_INTR: u16 = 0x10;
        let mut answers = Vec::new();
        let mut cut = false;
        loop {
            let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => length.min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut rest = &self.buffer[..length];
            while let Some(bytes) = rest.first_chunk().map(|size| u32::from_ne_bytes(*size) as usize) {
                let Some(one) = rest.get(..bytes).filter(|one| one.len() >= 16) else { break };
                rest = rest.get(bytes.next_multiple_of(4)..).unwrap_or_default();
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) else { continue };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                cut |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok((!cut).then_some(answers)),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) => return Ok(Some(answers)),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
    }
}

/// As keepalived has it (`vrrp_ipaddress.c`): IPv6 without duplicate address detection, which would take a second and find
/// the old master; a host address of IPv6 is deprecated, so that no program picks it as its source.
fn message(on: &OnLink<'_>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = on.index;
    message.header.prefix_len = on.prefix;
    message.header.family = if on.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(AddressAttribute::Local(on.address));
    if on.address.is_ipv4() {
        message.attributes.push(AddressAttribute::Address(on.address));
        message.attributes.extend(on.label.map(|label| AddressAttribute::Label(label.to_owned())));
    } else {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        if on.prefix == 128 {
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
    }
    message
}
