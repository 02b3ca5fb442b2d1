//! Echo requests of a certain size that no router may cut.
//!
//! Owns the sockets and the bytes. Never waits longer than it is told.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};

use crate::dataplane::checksum::checksum;

sockopt_impl!(
    /// Whether IPv4 packets may be cut, and whether a known path MTU counts.
    MtuDiscoverV4,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    /// The same of IPv6.
    MtuDiscoverV6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);

/// Whether an echo request in an IP packet of `bytes` bytes is answered in time. Needs `CAP_NET_RAW`.
///
/// # Errors
/// No socket. A packet that this machine cannot send counts as not answered.
pub fn answered(to: IpAddr, bytes: u32, number: u16, patience: Duration) -> io::Result<bool> {
    let v4 = to.is_ipv4();
    let socket = if v4 {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        setsockopt(&socket, MtuDiscoverV4, &libc::IP_PMTUDISC_PROBE)?;
        socket
    } else {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        setsockopt(&socket, MtuDiscoverV6, &libc::IPV6_PMTUDISC_PROBE)?;
        socket
    };
    socket.connect(&SocketAddr::new(to, 0).into())?;
    let mark = (std::process::id() as u16).to_be_bytes();
    let mut message = vec![if v4 { 8 } else { 128 }, 0, 0, 0, mark[0], mark[1]];
    message.extend(number.to_be_bytes());
    message.resize((bytes as usize).saturating_sub(if v4 { 20 } else { 40 }).max(8), 0x5a);
    if v4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_ne_bytes());
    }
    if socket.send(&message).is_err() {
        return Ok(false);
    }
    let until = Instant::now() + patience;
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        let length = match io::Read::read(&mut &socket, &mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Routers' words on earlier packets are told once each.
            Err(_) => continue,
        };
        let start = if v4 { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let answer = buffer.get(start..length).unwrap_or_default();
        let is_ours = answer.first() == Some(if v4 { &0 } else { &129 }) && answer.get(4..8) == message.get(4..8);
        if is_ours {
            return Ok(true);
        }
    }
}
