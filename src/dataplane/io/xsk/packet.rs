//! The raw calls of AF_PACKET sockets: the fallback's reception, and membership of multicast groups.
//!
//! Owns the calls and their layouts (`include/uapi/linux/if_packet.h`). Never decides which frame is whose.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;

use super::sys::set_option;
use crate::model::MacAddr;

const PACKET_ADD_MEMBERSHIP: c_int = 1;
const PACKET_DROP_MEMBERSHIP: c_int = 2;
const PACKET_STATISTICS: c_int = 6;
const PACKET_AUXDATA: c_int = 8;
const PACKET_IGNORE_OUTGOING: c_int = 23;
const PACKET_MR_MULTICAST: u16 = 0;
const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// `struct packet_mreq`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Membership {
    ifindex: c_int,
    kind: u16,
    length: u16,
    address: [u8; 8],
}

/// `struct tpacket_auxdata`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Auxiliary {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// What came with a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes of the whole frame; more than the buffer when it was cut.
    pub(crate) len: usize,
    /// Protocol and control information of a VLAN tag that the kernel took off, host order.
    pub(crate) vlan: Option<(u16, u16)>,
    /// The sender left the transport checksum incomplete.
    pub(crate) partial_checksum: bool,
}

fn socket(protocol: c_int) -> io::Result<OwnedFd> {
    let protocol = c_int::from((protocol as u16).to_be());
    // SAFETY: no pointers; the result is checked before it becomes a descriptor.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket for all received frames of an interface, not yet bound: it receives nothing until then. Frames that this
/// host sends are not seen (Linux 4.20), and stripped VLAN tags are reported beside the frame.
pub(crate) fn receiver(buffer: c_int) -> io::Result<OwnedFd> {
    let owned = socket(0)?;
    let fd = owned.as_fd();
    set_option(fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32)?;
    set_option(fd, libc::SOL_PACKET, PACKET_AUXDATA, &1i32)?;
    // Best effort: without it bursts are lost earlier.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &buffer);
    Ok(owned)
}

/// Receives one frame without waiting; `None` when there is none.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    #[repr(C, align(8))]
    struct Space([u8; 128]);
    let mut space = Space([0; 128]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: zero is a value of every member.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.0.as_mut_ptr().cast();
    message.msg_controllen = space.0.len() as _;
    // SAFETY: the message points to `buffer` and `space` with their lengths, and both live across the call.
    let done = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_TRUNC) };
    let Ok(len) = usize::try_from(done) else {
        let error = io::Error::last_os_error();
        // ENETDOWN comes once when the interface goes down, and then nothing until it is up.
        return match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN) => Ok(None),
            _ => Err(error),
        };
    };
    let mut received = Received { len, ..Received::default() };
    // SAFETY: the kernel filled `message`; the macros stay inside the control bytes that it announces, and a control
    // message of this type holds a `tpacket_auxdata`, read without regard to alignment.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(&raw const message);
        while !control.is_null() {
            let fits = (*control).cmsg_len as usize >= libc::CMSG_LEN(size_of::<Auxiliary>() as u32) as usize;
            if (*control).cmsg_level == libc::SOL_PACKET && (*control).cmsg_type == PACKET_AUXDATA && fits {
                let auxiliary: Auxiliary = libc::CMSG_DATA(control).cast::<Auxiliary>().read_unaligned();
                received.partial_checksum = auxiliary.status & TP_STATUS_CSUMNOTREADY != 0;
                if auxiliary.status & TP_STATUS_VLAN_VALID != 0 {
                    let known = auxiliary.status & TP_STATUS_VLAN_TPID_VALID != 0;
                    received.vlan = Some((if known { auxiliary.vlan_tpid } else { 0x8100 }, auxiliary.vlan_tci));
                }
            }
            control = libc::CMSG_NXTHDR(&raw const message, control);
        }
    }
    Ok(Some(received))
}

/// Frames that the kernel dropped on a socket since the last call (`PACKET_STATISTICS`).
pub(crate) fn take_drops(fd: BorrowedFd<'_>) -> u64 {
    // `struct tpacket_stats`: packets, drops.
    let mut counts = [0u32; 2];
    let mut length = size_of::<[u32; 2]>() as libc::socklen_t;
    // SAFETY: pointer and length describe `counts`; the kernel writes at most `length` bytes of integers.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_STATISTICS,
            counts.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done < 0 { 0 } else { u64::from(counts[1]) }
}

/// Membership of Ethernet multicast groups on an interface: the device's own filter lets their frames in as long as
/// this lives. Neighbour discovery needs it for the solicited-node groups of service addresses (RFC 4861 section 7.2.1).
#[derive(Debug)]
pub struct MulticastGuard {
    socket: OwnedFd,
    ifindex: c_int,
}

impl MulticastGuard {
    /// Membership of no group yet.
    ///
    /// # Errors
    /// No privilege to open an AF_PACKET socket.
    pub fn new(ifindex: u32) -> io::Result<MulticastGuard> {
        let ifindex = c_int::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // Protocol 0: the socket receives nothing.
        Ok(MulticastGuard { socket: socket(0)?, ifindex })
    }

    /// Joins a group (`PACKET_ADD_MEMBERSHIP` with `PACKET_MR_MULTICAST`). Joining twice counts twice in the kernel.
    ///
    /// # Errors
    /// The interface is gone, or the address is not of a group.
    pub fn join(&self, group: MacAddr) -> io::Result<()> {
        self.change(PACKET_ADD_MEMBERSHIP, group)
    }

    /// Leaves a group (`PACKET_DROP_MEMBERSHIP`).
    ///
    /// # Errors
    /// As [`MulticastGuard::join`].
    pub fn leave(&self, group: MacAddr) -> io::Result<()> {
        self.change(PACKET_DROP_MEMBERSHIP, group)
    }

    fn change(&self, how: c_int, group: MacAddr) -> io::Result<()> {
        if !group.is_multicast() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group.0);
        let request = Membership { ifindex: self.ifindex, kind: PACKET_MR_MULTICAST, length: 6, address };
        set_option(self.socket.as_fd(), libc::SOL_PACKET, how, &request)
    }
}

/// The Ethernet group of the solicited-node address of `address` (RFC 4291 section 2.7.1, RFC 2464 section 7).
pub fn solicited_node_group(address: std::net::Ipv6Addr) -> MacAddr {
    let [.., a, b, c] = address.octets();
    MacAddr([0x33, 0x33, 0xff, a, b, c])
}

const _: () = assert!(size_of::<Membership>() == 16 && size_of::<Auxiliary>() == 20);
