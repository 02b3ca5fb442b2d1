//! ICMP echo by the kernel's ping sockets.
//!
//! Owns one question and its answer. The kernel fills in identifier and checksum.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// Sends an echo request with `size` bytes of data from the calling thread's namespace and waits for the same bytes.
pub fn ping(target: IpAddr, size: usize, timeout: Duration) -> io::Result<()> {
    let (family, protocol, request) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    // A datagram socket of any protocol takes the calls of `UdpSocket`: connect, send, receive.
    let socket = UdpSocket::from(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?);
    socket.connect(SocketAddr::new(target, 0))?;
    socket.set_read_timeout(Some(timeout))?;
    let mut message = vec![request, 0, 0, 0, 0, 0, 0, 1];
    message.extend((0..size).map(|index| index as u8));
    socket.send(&message)?;
    let mut answer = vec![0; message.len() + 64];
    let length = socket.recv(&mut answer)?;
    if answer[..length].get(8..) == message.get(8..) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer has other bytes"))
    }
}
