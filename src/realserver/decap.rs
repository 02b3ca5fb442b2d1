//! `evenkeel realserver decap`: tunnelled packets in by sockets, their inside out by a TUN device.
//!
//! Owns the loop, who may send what to whom, and the counters. Never answers, and never sends a packet on to another
//! machine: what is not for this one is dropped.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{ArgAction, Args};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use socket2::{Domain, Protocol, Socket, Type};

use super::link::{self, KernelDevice};
use super::outer::{self, Reason, Wrapping};
use crate::model::GUE_PORT;
use crate::tun::Tun;

/// Name of the kernel's device where there is one.
const KERNEL_DEVICE: &str = "evenkeel-ipip";

/// Bytes that each socket may hold back.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Packets of one socket before the others have their turn.
const TURN: usize = 64;

/// Least time between two looks at this machine's addresses.
const ADDRESSES_LAST: Duration = Duration::from_secs(1);

const STOP: Token = Token(100);
const SHOW: Token = Token(101);

sockopt_impl!(
    /// Take UDP over IPv6 without a checksum (RFC 6936): GUE's, whose inside has its own.
    UdpNoCheck6Rx,
    SetOnly,
    libc::IPPROTO_UDP,
    libc::UDP_NO_CHECK6_RX,
    bool
);

/// Arguments of `evenkeel realserver decap`.
#[derive(Debug, Args)]
pub struct DecapArgs {
    /// Name of the TUN device.
    #[arg(long, default_value = "evenkeel0")]
    device: String,
    /// MTU of the TUN device, in bytes.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=65535))]
    mtu: u32,
    /// UDP port of GUE.
    #[arg(long, default_value_t = GUE_PORT)]
    gue_port: u16,
    /// Service address to which packets may be; without, any address of this machine. Repeatable.
    #[arg(long)]
    address: Vec<IpAddr>,
    /// Outer source from which packets may be; without, any. Repeatable.
    #[arg(long)]
    from: Vec<IpAddr>,
    /// Leave IPIP over IPv4 to the kernel's own device, where it has them and neither --address nor --from is given.
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    prefer_kernel: bool,
    /// Print counters as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// Why packets cannot be taken out of tunnels here.
#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    /// No TUN device.
    #[error("cannot make the TUN device {name}; it needs /dev/net/tun and CAP_NET_ADMIN")]
    Device {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A socket.
    #[error("cannot receive {what}; it needs CAP_NET_RAW, and a GUE port that nobody else has")]
    Socket {
        /// What it is for.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The loop's own things.
    #[error("cannot set up the loop")]
    Loop(#[source] io::Error),
}

/// What came and what became of it, since start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received.
    pub received: u64,
    /// Packets handed to the kernel.
    pub delivered: u64,
    /// Bytes of those, inner packets only.
    pub bytes: u64,
    /// Packets dropped, in the order of [`Reason::ALL`].
    pub dropped: [u64; Reason::ALL.len()],
}

impl Counters {
    fn to_json(&self) -> Value {
        let dropped: serde_json::Map<String, Value> =
            Reason::ALL.iter().zip(self.dropped).map(|(reason, n)| (reason.name().to_owned(), n.into())).collect();
        json!({ "received": self.received, "delivered": self.delivered, "bytes": self.bytes, "dropped": dropped })
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} received, {} delivered ({} bytes)", self.received, self.delivered, self.bytes)?;
        let dropped = Reason::ALL.iter().zip(self.dropped).filter(|(_, count)| *count > 0);
        for (at, (reason, count)) in dropped.enumerate() {
            write!(f, "{} {} {count}", if at == 0 { "; dropped:" } else { "," }, reason.name())?;
        }
        Ok(())
    }
}

/// One socket, and what arrives on it.
struct Source {
    socket: Socket,
    wrapping: Wrapping,
    /// Whether received bytes begin with the outer IPv4 header, as raw sockets of IPv4 give it.
    with_header: bool,
    /// Whether there may be something to read.
    ready: bool,
}

/// Whom packets may be from, and for.
struct Limits {
    /// Outer sources; empty allows any.
    from: HashSet<IpAddr>,
    /// Inner destinations.
    addresses: HashSet<IpAddr>,
    /// Whether those were given; else they are this machine's, looked up again when one is missing.
    fixed: bool,
    looked: Option<Instant>,
}

impl Limits {
    fn new(args: &DecapArgs) -> Limits {
        Limits {
            from: args.from.iter().copied().collect(),
            addresses: args.address.iter().copied().collect(),
            fixed: !args.address.is_empty(),
            looked: None,
        }
    }

    fn is_ours(&mut self, destination: IpAddr) -> bool {
        if self.addresses.contains(&destination) {
            return true;
        }
        if self.fixed || self.looked.is_some_and(|at| at.elapsed() < ADDRESSES_LAST) {
            return false;
        }
        self.looked = Some(Instant::now());
        self.addresses = own_addresses();
        self.addresses.contains(&destination)
    }
}

/// This machine's addresses but those that no other machine can mean.
fn own_addresses() -> HashSet<IpAddr> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return HashSet::new() };
    all.filter_map(|entry| ip_of(&entry.address?)).filter(|address| !address.is_loopback()).collect()
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

/// Runs the command, and returns its exit code.
pub fn main(args: DecapArgs) -> ExitCode {
    match run(&args) {
        Ok(counters) => {
            show(&counters, args.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}

fn show(counters: &Counters, as_json: bool) {
    if as_json { println!("{}", counters.to_json()) } else { println!("{counters}") }
}

/// Takes packets out of tunnels until a signal ends it.
///
/// # Errors
/// [`DecapError`]: why it did not start.
pub fn run(args: &DecapArgs) -> Result<Counters, DecapError> {
    let device = |source| DecapError::Device { name: args.device.clone(), source };
    let mut poll = Poll::new().map_err(DecapError::Loop)?;
    // Before anything is made that a signal must take away again.
    let _stop = listen(&poll, STOP, &[SIGTERM, SIGINT]).map_err(DecapError::Loop)?;
    let asked = listen(&poll, SHOW, &[SIGUSR1]).map_err(DecapError::Loop)?;
    let tun = Tun::create(&args.device).map_err(device)?;
    let strict = link::allow_any_source(&args.device).map_err(device)?;
    link::set_up(&args.device, args.mtu).map_err(device)?;
    if strict {
        eprintln!(
            "warning: net.ipv4.conf.all.rp_filter is 1: {} takes packets only from sources to which this machine has a \
             route; set it to 0 or 2 if clients' packets are missing",
            args.device
        );
    }
    let kernel = kernel_device(args);
    let mut sources = open(args.gue_port, kernel.is_none())?;
    for (number, source) in sources.iter().enumerate() {
        let fd = source.socket.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(number), Interest::READABLE).map_err(DecapError::Loop)?;
    }
    eprintln!("ready: packets from tunnels arrive on {}", args.device);
    let mut work = Work { tun, limits: Limits::new(args), counters: Counters::default(), buffer: vec![0; 1 << 16] };
    let mut events = Events::with_capacity(16);
    loop {
        let wait = if sources.iter().any(|source| source.ready) { Some(Duration::ZERO) } else { None };
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(DecapError::Loop(error)),
            _ => {}
        }
        for event in &events {
            match event.token() {
                STOP => return Ok(work.counters),
                SHOW => {
                    let _ = io::copy(&mut &asked, &mut io::sink());
                    show(&work.counters, args.json);
                }
                Token(number) => {
                    if let Some(source) = sources.get_mut(number) {
                        source.ready = true;
                    }
                }
            }
        }
        for source in sources.iter_mut().filter(|source| source.ready) {
            source.ready = work.turn(source);
        }
    }
}

/// The kernel's tunnel device; it goes with this value.
struct Kernel;

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = link::delete(KERNEL_DEVICE);
    }
}

/// The kernel's own device for IPIP over IPv4, if it is wanted and can be had; says what it found.
fn kernel_device(args: &DecapArgs) -> Option<Kernel> {
    if !args.prefer_kernel {
        return None;
    }
    if !args.address.is_empty() || !args.from.is_empty() {
        eprintln!("note: a device of the kernel's knows neither --address nor --from: all packets are taken out here");
        return None;
    }
    match link::add_ipip(KERNEL_DEVICE, args.mtu) {
        Ok(KernelDevice::Made) => {
            let kernel = Kernel;
            if let Ok(true) = link::allow_any_source(KERNEL_DEVICE) {
                eprintln!("warning: net.ipv4.conf.all.rp_filter is 1, for {KERNEL_DEVICE} too");
            }
            eprintln!("note: the kernel takes IPIP over IPv4 out, by its device {KERNEL_DEVICE}: not counted here");
            Some(kernel)
        }
        Ok(KernelDevice::Lacking) => {
            eprintln!(
                "warning: this kernel has no ipip devices: packets are taken out here, which costs more. With the module \
                 ipip (sit, ip6_tunnel, ip_gre and fou for the other tunnels), `ip link add {KERNEL_DEVICE} type ipip \
                 external` does it without this program"
            );
            None
        }
        Err(error) => {
            eprintln!("warning: the kernel does not make {KERNEL_DEVICE} ({error}): packets are taken out here");
            None
        }
    }
}

/// A pipe that becomes readable when one of the signals arrives.
fn listen(poll: &Poll, token: Token, signals: &[i32]) -> io::Result<std::os::unix::net::UnixStream> {
    let (receiver, sender) = std::os::unix::net::UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, sender.try_clone()?)?;
    }
    receiver.set_nonblocking(true)?;
    poll.registry().register(&mut SourceFd(&receiver.as_raw_fd()), token, Interest::READABLE)?;
    Ok(receiver)
}

/// All sockets; those of IPv6 may be missing, where the machine has none.
fn open(gue_port: u16, ipip_over_v4: bool) -> Result<Vec<Source>, DecapError> {
    let wrappings = [
        (Wrapping::Ipv4, 4, "IPv4 packets in IP"),
        (Wrapping::Ipv6, 41, "IPv6 packets in IP"),
        (Wrapping::Gre, 47, "GRE"),
        (Wrapping::Gue, 17, "GUE"),
    ];
    let mut sources = Vec::new();
    for (wrapping, protocol, what) in wrappings {
        for v6 in [false, true] {
            if wrapping == Wrapping::Ipv4 && !v6 && !ipip_over_v4 {
                continue;
            }
            let port = (wrapping == Wrapping::Gue).then_some(gue_port);
            match open_one(v6, protocol, port) {
                Ok(socket) => {
                    let with_header = !v6 && port.is_none();
                    sources.push(Source { socket, wrapping, with_header, ready: true });
                }
                Err(error) if v6 && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(source) => return Err(DecapError::Socket { what, source }),
            }
        }
    }
    Ok(sources)
}

fn open_one(v6: bool, protocol: i32, port: Option<u16>) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let kind = if port.is_some() { Type::DGRAM } else { Type::RAW };
    let socket = Socket::new(domain, kind, Some(Protocol::from(protocol)))?;
    socket.set_nonblocking(true)?;
    // More than `net.core.rmem_max` needs a privilege; what the kernel grants will do.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    if v6 {
        setsockopt(&socket, sockopt::Ipv6RecvTClass, &true)?;
    } else {
        setsockopt(&socket, sockopt::IpRecvTos, &true)?;
    }
    if let Some(port) = port {
        let any = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        if v6 {
            socket.set_only_v6(true)?;
            setsockopt(&socket, UdpNoCheck6Rx, &true)?;
        }
        socket.bind(&SocketAddr::new(any, port).into())?;
    }
    Ok(socket)
}

struct Work {
    tun: Tun,
    limits: Limits,
    counters: Counters,
    buffer: Vec<u8>,
}

impl Work {
    /// Up to [`TURN`] packets of one socket. Returns whether there may be more.
    fn turn(&mut self, source: &Source) -> bool {
        for _ in 0..TURN {
            match receive(source.socket.as_raw_fd(), &mut self.buffer) {
                Ok((length, from, tos)) => {
                    self.counters.received += 1;
                    match self.packet(source, length, from, tos) {
                        Ok(bytes) => {
                            self.counters.delivered += 1;
                            self.counters.bytes += bytes as u64;
                        }
                        Err(reason) => self.counters.dropped[reason as usize] += 1,
                    }
                }
                Err(Errno::EAGAIN) => return false,
                // Errors of earlier packets (ICMP) are told once each.
                Err(_) => {}
            }
        }
        true
    }

    /// Hands one packet on; returns its bytes.
    fn packet(&mut self, source: &Source, length: usize, from: Option<IpAddr>, tos: u8) -> Result<usize, Reason> {
        let allowed = from.is_some_and(|from| self.limits.from.contains(&from));
        if !self.limits.from.is_empty() && !allowed {
            return Err(Reason::Stranger);
        }
        let bytes = self.buffer.get_mut(..length).ok_or(Reason::Malformed)?;
        let at = if source.with_header { outer::behind_ipv4(bytes)? } else { 0 };
        let (range, destination) = outer::open(source.wrapping, &bytes[at..])?;
        if !self.limits.is_ours(destination) {
            return Err(Reason::NotOurs);
        }
        let packet = &mut bytes[at..][range];
        outer::carry_congestion(tos, packet)?;
        self.tun.write(packet).map_err(|_| Reason::Refused)?;
        Ok(packet.len())
    }
}

/// Length, sender, and TOS or traffic class of the next packet.
fn receive(socket: RawFd, buffer: &mut [u8]) -> nix::Result<(usize, Option<IpAddr>, u8)> {
    let mut space = nix::cmsg_space!(libc::c_int);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let mut tos = 0;
    for control in message.cmsgs().into_iter().flatten() {
        match control {
            ControlMessageOwned::Ipv4Tos(value) => tos = value,
            ControlMessageOwned::Ipv6TClass(value) => tos = value as u8,
            _ => {}
        }
    }
    Ok((message.bytes, message.address.as_ref().and_then(ip_of), tos))
}
