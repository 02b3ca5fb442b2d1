//! Single frames, sent and received as they are on the wire, by AF_PACKET.
//!
//! Owns a raw socket on one interface of a node, for protocols that the kernel lacks (SCTP), for frames that no kernel would
//! send, and for looking at tags: the kernel takes an 802.1Q tag out of a received frame, and this puts it back where it
//! was. Sees what arrives, not what the node itself sends. Never changes what it sends.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};
use nix::{setsockopt_impl, sockopt_impl};

use crate::lab::error::{Doing, LabError};
use crate::lab::netns::Namespace;

sockopt_impl!(
    /// Ask for `struct tpacket_auxdata` beside each frame: it has the tag.
    PacketAuxdata,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool
);

sockopt_impl!(
    /// Leave out what the node itself sends.
    PacketIgnoreOutgoing,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_IGNORE_OUTGOING,
    bool
);

/// `TP_STATUS_VLAN_VALID` of `linux/if_packet.h`.
const VLAN_VALID: u32 = 1 << 4;
/// Bytes of the two Ethernet addresses: a tag comes after them.
const ADDRESSES: usize = 12;
/// `sizeof(struct tpacket_auxdata)`.
const AUXDATA: usize = 20;

/// A raw socket on one interface.
pub struct Frames {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Frames {
    /// Opens a raw socket on `interface` of `namespace`.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self, LabError> {
        let socket = namespace.run(|| open(interface))?.doing(|| format!("opening a raw socket on {interface}"))?;
        Ok(Frames { socket, buffer: vec![0; 65536] })
    }

    /// A second handle of the same socket.
    pub fn second(&self) -> Result<Self, LabError> {
        let socket = self.socket.try_clone().doing(|| "copying a descriptor".into())?;
        Ok(Frames { socket, buffer: vec![0; 65536] })
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).map(drop).doing(|| "sending a frame".into())
    }

    /// The next frame that arrives, or `None` after 20 ms.
    pub fn poll(&mut self) -> Option<Vec<u8>> {
        self.take(MsgFlags::empty())
    }

    /// From now on the kernel notes the time of each frame, for [`Frames::poll_stamped`].
    pub fn stamp(&self) -> Result<(), LabError> {
        setsockopt(&self.socket, sockopt::ReceiveTimestampns, &true).doing(|| "asking for times of frames".into())
    }

    /// Like [`Frames::poll`], with the kernel's time of the frame; now, where it did not note one.
    pub fn poll_stamped(&mut self) -> Option<(SystemTime, Vec<u8>)> {
        self.take_all(MsgFlags::empty()).map(|(at, frame)| (at.unwrap_or_else(SystemTime::now), frame))
    }

    /// The next frame, if one is there.
    pub fn poll_at_once(&mut self) -> Option<Vec<u8>> {
        self.take(MsgFlags::MSG_DONTWAIT)
    }

    fn take(&mut self, flags: MsgFlags) -> Option<Vec<u8>> {
        self.take_all(flags).map(|(_, frame)| frame)
    }

    fn take_all(&mut self, flags: MsgFlags) -> Option<(Option<SystemTime>, Vec<u8>)> {
        let mut space = nix::cmsg_space!([u8; AUXDATA], TimeSpec);
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let message = recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
        let (mut tag, mut at) = (None, None);
        for control in message.cmsgs().ok()? {
            match control {
                ControlMessageOwned::Unknown(unknown) => tag = tag.or(tag_in(&unknown.data_bytes)),
                ControlMessageOwned::ScmTimestampns(time) => at = Some(SystemTime::UNIX_EPOCH + Duration::from(time)),
                _ => {}
            }
        }
        let length = message.bytes;
        let mut frame = self.buffer.get(..length)?.to_vec();
        if let Some(tag) = tag
            && frame.len() >= ADDRESSES
        {
            frame.splice(ADDRESSES..ADDRESSES, tag);
        }
        Some((at, frame))
    }

    /// The next frame for which `wanted` holds, if one comes in time.
    pub fn receive(&mut self, within: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Option<Vec<u8>> {
        let start = Instant::now();
        while start.elapsed() < within {
            if let Some(frame) = self.poll().filter(|frame| wanted(frame)) {
                return Some(frame);
            }
        }
        None
    }
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let address = getifaddrs()?
        .filter(|candidate| candidate.interface_name == interface)
        .find_map(|candidate| candidate.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such interface"))?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    setsockopt(&socket, PacketAuxdata, &true)?;
    setsockopt(&socket, PacketIgnoreOutgoing, &true)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20))?;
    setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
    bind(socket.as_fd().as_raw_fd(), &address)?;
    // What came from other interfaces between the two calls above is not ours.
    let mut scrap = [0; 1];
    while !matches!(nix::sys::socket::recv(socket.as_raw_fd(), &mut scrap, MsgFlags::MSG_DONTWAIT), Err(Errno::EAGAIN))
    {
    }
    Ok(socket)
}

/// The four bytes of the tag that a `struct tpacket_auxdata` reports.
fn tag_in(auxdata: &[u8]) -> Option<[u8; 4]> {
    let status = u32::from_ne_bytes(auxdata.get(..4)?.try_into().ok()?);
    let control = u16::from_ne_bytes(auxdata.get(16..18)?.try_into().ok()?);
    let protocol = u16::from_ne_bytes(auxdata.get(18..20)?.try_into().ok()?);
    let ([a, b], [c, d]) = (protocol.to_be_bytes(), control.to_be_bytes());
    (status & VLAN_VALID != 0).then_some([a, b, c, d])
}
