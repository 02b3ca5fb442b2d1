//! Attempts that share raw sockets: echo requests and SYNs.
//!
//! Owns one socket of a kind and family, opened when the first check needs it, and the port that SYNs come from. That port is
//! bound and not listened on, so the kernel itself resets what a server opens for us. Never waits.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvfrom, sendmsg};
use socket2::{Domain, Protocol, Socket, Type};

use super::packet::{self, Asked};
use super::socket::source_towards;
use super::{filter, words};
use crate::health::schedule::Random;
use crate::health::{Outcome, Reason};
use crate::model::CheckTarget;

/// A SYN that nobody answered is sent once more after this (RFC 6298, section 2).
const AGAIN: Duration = Duration::from_secs(1);
/// Most packets that are read from a socket at a time.
const TURN: usize = 1024;
/// Bytes that may wait in a socket: answers to thousands that were asked at once.
const BUFFER: usize = 4 << 20;

/// Which of the four sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// ICMP.
    IcmpV4,
    /// ICMPv6.
    IcmpV6,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
}

impl Which {
    /// All, in the order of their tokens.
    pub const ALL: [Which; 4] = [Which::IcmpV4, Which::IcmpV6, Which::TcpV4, Which::TcpV6];

    fn icmp(address: IpAddr) -> Which {
        if address.is_ipv4() { Which::IcmpV4 } else { Which::IcmpV6 }
    }

    fn tcp(address: IpAddr) -> Which {
        if address.is_ipv4() { Which::TcpV4 } else { Which::TcpV6 }
    }

    const fn is_v4(self) -> bool {
        matches!(self, Which::IcmpV4 | Which::TcpV4)
    }

    const fn is_icmp(self) -> bool {
        matches!(self, Which::IcmpV4 | Which::IcmpV6)
    }
}

/// A raw socket.
struct Open {
    socket: Socket,
    /// ICMP: the identifier. TCP: the port.
    number: u16,
    /// Holds the port.
    _reserved: Option<Socket>,
}

/// An attempt that waits for its answer.
struct Waiting {
    asked: Asked,
    nonce: u64,
    source: Option<IpAddr>,
}

/// All attempts of these kinds.
pub struct Raw {
    /// Token of the first socket; the others follow.
    first: usize,
    open: [Option<Open>; 4],
    sequence: u16,
    waiting: HashMap<usize, Waiting>,
    by_question: HashMap<Asked, usize>,
    again: VecDeque<(Duration, usize)>,
}

impl Raw {
    /// With four tokens from `first` on.
    pub fn new(first: usize) -> Raw {
        Raw {
            first,
            open: [None, None, None, None],
            sequence: 0,
            waiting: HashMap::new(),
            by_question: HashMap::new(),
            again: VecDeque::new(),
        }
    }

    /// Sends an echo request for the attempt `key`.
    ///
    /// # Errors
    /// The outcome, if it is over already.
    pub fn ping(
        &mut self,
        key: usize,
        target: &CheckTarget,
        random: &mut Random,
        poll: &Registry,
    ) -> Result<(), Outcome> {
        let which = Which::icmp(target.address);
        let id = self.socket(which, random, poll)?.number;
        self.sequence = self.sequence.wrapping_add(1);
        let asked = Asked::Echo { host: target.address, id, sequence: self.sequence };
        self.ask(key, Waiting { asked, nonce: random.number(), source: target.source })
    }

    /// Sends a SYN for the attempt `key`.
    ///
    /// # Errors
    /// The outcome, if it is over already.
    pub fn half_open(
        &mut self,
        key: usize,
        target: &CheckTarget,
        now: Duration,
        random: &mut Random,
        poll: &Registry,
    ) -> Result<(), Outcome> {
        // What ICMP says of SYNs comes in there.
        self.socket(Which::icmp(target.address), random, poll)?;
        let from = self.socket(Which::tcp(target.address), random, poll)?.number;
        let source = Some(source_towards(target.address, target.source)?);
        let sequence = random.number() as u32;
        let asked = Asked::Syn { host: target.address, port: target.port, from, sequence };
        self.ask(key, Waiting { asked, nonce: 0, source })?;
        self.again.push_back((now + AGAIN, key));
        Ok(())
    }

    /// The attempt is over.
    pub fn forget(&mut self, key: usize) {
        if let Some(waiting) = self.waiting.remove(&key) {
            self.by_question.remove(&waiting.asked);
        }
    }

    /// When to come back without an event.
    pub fn next(&self) -> Option<Duration> {
        self.again.front().map(|(at, _)| *at)
    }

    /// Sends again what nobody has answered.
    pub fn resend(&mut self, now: Duration) {
        while let Some((_, key)) = self.again.front().copied().filter(|(at, _)| *at <= now) {
            self.again.pop_front();
            if let Some(waiting) = self.waiting.get(&key) {
                // Lost or not: the deadline judges.
                let _ = self.send(waiting);
            }
        }
    }

    /// Reads what has come to a socket; outcomes of attempts go to `out`. Whether there may be more.
    pub fn ready(&mut self, which: Which, buffer: &mut [u8], out: &mut Vec<(usize, Outcome)>) -> bool {
        let Some(open) = &self.open[which as usize] else { return false };
        for _ in 0..TURN {
            let (length, from) = match recvfrom::<SockaddrStorage>(open.socket.as_raw_fd(), buffer) {
                Ok(got) => got,
                Err(Errno::EAGAIN) => return false,
                Err(_) => continue,
            };
            let bytes = &buffer[..length];
            let from = from.and_then(|from| from.as_sockaddr_in6().map(|from| from.ip()));
            let read = match (which, from) {
                (Which::IcmpV4 | Which::TcpV4, _) => packet::read_v4(bytes),
                (Which::IcmpV6, Some(from)) => packet::read_icmp_v6(from, bytes),
                (Which::TcpV6, Some(from)) => packet::read_tcp(from.into(), bytes),
                (_, None) => None,
            };
            let Some((asked, heard)) = read else { continue };
            let Some(key) = self.by_question.get(&asked) else { continue };
            let nonce = self.waiting.get(key).map_or(0, |waiting| waiting.nonce);
            out.extend(heard.outcome(nonce).map(|outcome| (*key, outcome)));
        }
        true
    }

    fn ask(&mut self, key: usize, waiting: Waiting) -> Result<(), Outcome> {
        self.send(&waiting)?;
        self.by_question.insert(waiting.asked, key);
        self.waiting.insert(key, waiting);
        Ok(())
    }

    fn send(&self, waiting: &Waiting) -> Result<(), Outcome> {
        let (host, which, bytes) = match waiting.asked {
            Asked::Echo { host, id, sequence } => {
                (host, Which::icmp(host), packet::echo_request(host.is_ipv4(), id, sequence, waiting.nonce))
            }
            Asked::Syn { host, port, from, sequence } => {
                let own = waiting.source.unwrap_or(host);
                let bytes = packet::syn((own, from), (host, port), sequence)
                    .ok_or_else(|| Outcome::Unable(format!("{own} is no source for packets to {host}")))?;
                (host, Which::tcp(host), bytes)
            }
        };
        let Some(open) = &self.open[which as usize] else { return Ok(()) };
        send(&open.socket, &bytes, host, waiting.source).map_err(|error| words::refused_here(host, &error))
    }

    fn socket(&mut self, which: Which, random: &mut Random, poll: &Registry) -> Result<&Open, Outcome> {
        let place = &mut self.open[which as usize];
        if place.is_none() {
            let opened = open(which, random).and_then(|open| {
                let token = Token(self.first + which as usize);
                poll.register(&mut SourceFd(&open.socket.as_raw_fd()), token, Interest::READABLE)?;
                Ok(open)
            });
            *place = Some(opened.map_err(|error| words::unable("open a raw socket", &error))?);
        }
        place.as_ref().ok_or_else(|| Outcome::Unable("no raw socket".into()))
    }
}

/// What to call it that nothing came back in time.
pub fn expired(half_open: bool, time: Duration) -> Outcome {
    let what = if half_open { "SYN-ACK" } else { "echo reply" };
    Outcome::bad(Reason::Timeout, format!("no {what} in {}", words::span(time)))
}

fn open(which: Which, random: &mut Random) -> io::Result<Open> {
    let (domain, any): (_, IpAddr) = match which.is_v4() {
        true => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        false => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let (protocol, number, reserved) = if which.is_icmp() {
        let protocol = if which.is_v4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        (protocol, random.number() as u16, None)
    } else {
        let reserved = Socket::new(domain, Type::STREAM, None)?;
        if !which.is_v4() {
            reserved.set_only_v6(true)?;
        }
        reserved.bind(&SocketAddr::new(any, 0).into())?;
        let port = reserved.local_addr()?.as_socket().map_or(0, |address| address.port());
        (Protocol::TCP, port, Some(reserved))
    };
    let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
    let program =
        if which.is_icmp() { filter::icmp(which.is_v4(), number) } else { filter::tcp(which.is_v4(), number) };
    socket.attach_filter(&program)?;
    // As much as the system permits.
    let _ = socket.set_recv_buffer_size(BUFFER);
    Ok(Open { socket, number, _reserved: reserved })
}

fn send(socket: &Socket, bytes: &[u8], to: IpAddr, source: Option<IpAddr>) -> io::Result<()> {
    let (fd, flags, bytes) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT, [IoSlice::new(bytes)]);
    let sent = match (to, source) {
        (IpAddr::V4(to), Some(IpAddr::V4(source))) => {
            let source = libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
            let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
            sendmsg(fd, &bytes, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
        }
        (IpAddr::V6(to), Some(IpAddr::V6(source))) => {
            let source = libc::in6_addr { s6_addr: source.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
            let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
            sendmsg(fd, &bytes, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
        }
        (IpAddr::V4(to), _) => sendmsg(fd, &bytes, &[], flags, Some(&SockaddrIn::from(SocketAddrV4::new(to, 0)))),
        (IpAddr::V6(to), _) => {
            sendmsg(fd, &bytes, &[], flags, Some(&SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0))))
        }
    };
    Ok(sent.map(drop)?)
}
