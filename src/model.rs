//! The shared nouns: services, servers, protocols, ports, MAC addresses, engine settings.
//!
//! Owns plain values that every layer may name. Never holds a socket, a file, a thread, a lock or a clock, and
//! never decides anything. Ports are `u16` in host order unless a field says otherwise.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod access;

pub use access::{Access, Judgement, Prefix, PrefixError};

/// Transport protocols that a service can balance, with their IANA numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Protocol {
    /// Transmission Control Protocol (RFC 9293).
    Tcp = 6,
    /// User Datagram Protocol (RFC 768).
    Udp = 17,
    /// Stream Control Transmission Protocol (RFC 9260).
    Sctp = 132,
}

impl Protocol {
    /// All protocols, in the order of their numbers.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The IANA protocol number, as in the IPv4 `protocol` and IPv6 `next header` fields.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The protocol with this IANA number, if a service can have it.
    pub const fn from_number(number: u8) -> Option<Protocol> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            132 => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// Lower-case name, as in configs and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The ports of a service: one port is a range of one; every port is `0..=65535`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// First port, host order.
    pub first: u16,
    /// Last port, host order, inclusive; never below `first`.
    pub last: u16,
}

impl PortRange {
    /// Every port (`port = "any"`).
    pub const ANY: PortRange = PortRange { first: 0, last: u16::MAX };

    /// A single port.
    pub const fn single(port: u16) -> Self {
        PortRange { first: port, last: port }
    }

    /// Whether `port` (host order) lies in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether the two ranges share a port.
    pub const fn overlaps(self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether this is every port.
    pub const fn is_any(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    /// The one port, if the range is a single port.
    pub const fn as_single(self) -> Option<u16> {
        if self.first == self.last { Some(self.first) } else { None }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            f.write_str("any")
        } else if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Whether the group bit is set (multicast and broadcast).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether all bytes are zero.
    pub const fn is_zero(self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is not an Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address; expected six hexadecimal bytes such as 02:00:5e:10:00:01")]
pub struct ParseMacError(pub String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().unwrap_or_default();
            if part.is_empty() || part.len() > 2 || part.starts_with('+') {
                return Err(ParseMacError(text.to_owned()));
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacError(text.to_owned()))?;
        }
        if parts.next().is_some() { Err(ParseMacError(text.to_owned())) } else { Ok(MacAddr(bytes)) }
    }
}

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Method {
    /// Direct routing: only the Ethernet addresses change; the server answers the client itself (`ipvsadm -g`).
    Dr,
    /// Destination NAT: the server sees the client's address and answers through the appliance (`ipvsadm -m`).
    Nat,
    /// NAT of both addresses: the server sees one of the service's local addresses and answers to it.
    FullNat,
    /// IP in IP, in all four combinations of families (`ipvsadm -i`; RFC 2003, 2473, 4213).
    Ipip,
    /// Generic UDP encapsulation, version 0 (`ipvsadm -i --tun-type gue`).
    Gue,
    /// Generic routing encapsulation without options (`ipvsadm -i --tun-type gre`; RFC 2784).
    Gre,
}

impl Method {
    /// All methods, in the order of the documentation.
    pub const ALL: [Method; 6] = [Method::Dr, Method::Nat, Method::FullNat, Method::Ipip, Method::Gue, Method::Gre];

    /// Name as in configs and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Dr => "dr",
            Method::Nat => "nat",
            Method::FullNat => "full-nat",
            Method::Ipip => "ipip",
            Method::Gue => "gue",
            Method::Gre => "gre",
        }
    }

    /// Whether packets are put into an outer packet.
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Method::Ipip | Method::Gue | Method::Gre)
    }

    /// Whether addresses are translated, and the server's answers come back through the appliance.
    pub const fn is_nat(self) -> bool {
        matches!(self, Method::Nat | Method::FullNat)
    }
}

/// UDP port of generic UDP encapsulation (IANA), the default of `ipvsadm --tun-port` too.
pub const GUE_PORT: u16 = 6080;

/// How a service's tunnelled packets are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Outer source address towards IPv4 servers; `None` takes that of the route to the server.
    pub source_v4: Option<std::net::Ipv4Addr>,
    /// Outer source address towards IPv6 servers; `None` takes that of the route to the server.
    pub source_v6: Option<std::net::Ipv6Addr>,
    /// Outer TTL or hop limit; `None` copies the inner one, as IPVS does.
    pub ttl: Option<u8>,
    /// UDP destination port of GUE.
    pub gue_port: u16,
    /// IPIP and GRE: low bits of the outer source address that vary with the flow, so that receivers spread the load over their
    /// queues (0: none). Receivers must accept such sources.
    pub source_spread_bits: u8,
}

impl Default for TunnelSettings {
    fn default() -> Self {
        TunnelSettings { source_v4: None, source_v6: None, ttl: None, gue_port: GUE_PORT, source_spread_bits: 0 }
    }
}

impl TunnelSettings {
    /// The outer source address towards a server, where one is written.
    pub fn source_towards(&self, server: IpAddr) -> Option<IpAddr> {
        match server {
            IpAddr::V4(_) => self.source_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.source_v6.map(IpAddr::V6),
        }
    }
}

/// Scheduler of a service, by its IPVS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// Round robin (`ip_vs_rr`): weights only tell 0 from non-zero.
    Rr,
    /// Weighted round robin (`ip_vs_wrr`).
    Wrr,
    /// Least connections (`ip_vs_lc`).
    Lc,
    /// Weighted least connections (`ip_vs_wlc`).
    Wlc,
    /// Maglev hashing (`ip_vs_mh`).
    Mh {
        /// Hash the client's port too, not only its address (IPVS flag `mh-port`).
        port: bool,
        /// Pick another server when the hashed one has weight 0 (IPVS flag `mh-fallback`).
        fallback: bool,
        /// Slots of the lookup table: one of [`MAGLEV_SIZES`].
        table_size: u32,
    },
}

/// The Maglev table sizes that IPVS permits: the largest primes below powers of two from 2^8 to 2^17.
pub const MAGLEV_SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071];

/// The Maglev table size of a stock IPVS kernel.
pub const MAGLEV_DEFAULT_SIZE: u32 = 4093;

impl Scheduler {
    /// Name as in configs, JSON and `ipvsadm -L`.
    pub const fn name(self) -> &'static str {
        match self {
            Scheduler::Rr => "rr",
            Scheduler::Wrr => "wrr",
            Scheduler::Lc => "lc",
            Scheduler::Wlc => "wlc",
            Scheduler::Mh { .. } => "mh",
        }
    }
}

/// What identifies a service: no two services of one config share address, protocol and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The virtual address.
    pub address: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port, port range, or every port.
    pub ports: PortRange,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(a) => write!(f, "{} {a}:{}", self.protocol, self.ports),
            IpAddr::V6(a) => write!(f, "{} [{a}]:{}", self.protocol, self.ports),
        }
    }
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique name, for people, JSON and metrics.
    pub name: String,
    /// What the service matches.
    pub key: ServiceKey,
    /// How a server is chosen for a new flow.
    pub scheduler: Scheduler,
    /// How packets reach the servers, where a server does not say otherwise.
    pub method: Method,
    /// Full NAT: addresses of the appliance from which servers are asked, of the service's family.
    pub local_addresses: Vec<IpAddr>,
    /// Full NAT over TCP: tell the server the client's address by PROXY protocol version 2.
    pub proxy_protocol: bool,
    /// Largest TCP segment that a SYN may announce, in bytes; `None` leaves the option as it is.
    pub mss_clamp: Option<u16>,
    /// How tunnelled packets are wrapped.
    pub tunnel: TunnelSettings,
    /// The real servers, in the order of the file.
    pub servers: Vec<Server>,
}

/// A real server of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The server's own address, on which its MAC is resolved; not the virtual address.
    pub address: IpAddr,
    /// Its port, host order, where NAT changes it; `None` keeps the client's destination port.
    pub port: Option<u16>,
    /// Scheduling weight; 0 takes no new flows (quiescent).
    pub weight: u16,
    /// How packets reach it.
    pub method: Method,
}

impl Server {
    /// A server by direct routing.
    pub const fn dr(address: IpAddr, weight: u16) -> Server {
        Server { address, port: None, weight, method: Method::Dr }
    }
}

impl Service {
    /// A service by direct routing with IPVS's defaults.
    pub fn dr(name: &str, key: ServiceKey, scheduler: Scheduler, servers: Vec<Server>) -> Service {
        Service {
            name: name.to_owned(),
            key,
            scheduler,
            method: Method::Dr,
            local_addresses: Vec::new(),
            proxy_protocol: false,
            mss_clamp: None,
            tunnel: TunnelSettings::default(),
            servers,
        }
    }
}

/// A next hop fixed by the config instead of the kernel's neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Address of the real server.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Interface to send through; `None` takes the route's, or the only one.
    pub interface: Option<String>,
    /// 802.1Q tag to put on; `None` takes the route's.
    pub vlan: Option<u16>,
}

/// How frames move between an interface and a worker, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoMode {
    /// AF_XDP, the driver's native XDP, frames DMAed straight into the UMEM.
    ZeroCopy,
    /// AF_XDP, the driver's native XDP, one copy a frame.
    Copy,
    /// AF_XDP with generic (skb) XDP: any driver, slower.
    Generic,
    /// AF_PACKET sockets, where XDP cannot be had.
    AfPacket,
}

impl IoMode {
    /// All modes, best first: what `mode = "auto"` tries.
    pub const ALL: [IoMode; 4] = [IoMode::ZeroCopy, IoMode::Copy, IoMode::Generic, IoMode::AfPacket];

    /// Name as in configs and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            IoMode::ZeroCopy => "zero-copy",
            IoMode::Copy => "copy",
            IoMode::Generic => "generic",
            IoMode::AfPacket => "af-packet",
        }
    }
}

impl fmt::Display for IoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a worker does while no packets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Polling {
    /// Never sleeps: lowest latency, one core at 100 %.
    Busy,
    /// Polls for a while after the last packet, then sleeps in the kernel until one arrives.
    Adaptive,
}

/// Whether the UMEM and the flow tables use 2 MiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// Reserved huge pages, else transparent ones, else normal pages.
    Auto,
    /// Reserved huge pages or refuse to start.
    Always,
    /// Normal pages.
    Never,
}

/// Which transport checksums are verified before a packet is forwarded. IPv4 header checksums always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyChecksums {
    /// Packets that would create a flow: a broken packet makes no state, and partial checksums are found out.
    NewFlows,
    /// Every packet for a service.
    All,
    /// None.
    Off,
}

/// Settings of the packet engine. They need a restart to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// One worker per entry, pinned to that core.
    pub cores: Vec<usize>,
    /// I/O modes allowed, tried in this order.
    pub modes: Vec<IoMode>,
    /// What idle workers do.
    pub polling: Polling,
    /// Adaptive polling: microseconds without a packet before the worker sleeps.
    pub idle_us: u32,
    /// `XDP_USE_NEED_WAKEUP`: the kernel says when it wants a system call.
    pub need_wakeup: bool,
    /// Preferred busy polling on the sockets (`SO_PREFER_BUSY_POLL`).
    pub busy_poll: bool,
    /// Entries in each RX, TX and completion ring; a power of two. The fill ring has twice as many.
    pub ring_size: u32,
    /// UMEM frames for each queue of a worker.
    pub frames: u32,
    /// Bytes in a UMEM frame: 2048 or 4096.
    pub frame_size: u32,
    /// Huge pages for the UMEM and the flow tables.
    pub huge_pages: HugePages,
    /// IPv4 flows that one worker can hold.
    pub flows: u32,
    /// IPv6 flows that one worker can hold.
    pub flows_ipv6: u32,
    /// Transport checksums verified.
    pub verify_checksums: VerifyChecksums,
    /// Ports of each local address that full NAT uses, shared out among the workers.
    pub local_ports: PortRange,
    /// Most local addresses of full NAT, over all services.
    pub local_addresses: u32,
    /// Fragmented packets that one worker follows at a time.
    pub fragments: u32,
    /// Fragments that one worker lets wait for their first one, at most.
    pub fragments_waiting: u32,
    /// Milliseconds that a fragment waits for its first one.
    pub fragment_wait_ms: u32,
}

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            cores: vec![0],
            modes: IoMode::ALL.to_vec(),
            polling: Polling::Adaptive,
            idle_us: 100,
            need_wakeup: true,
            busy_poll: false,
            ring_size: 2048,
            frames: 8192,
            frame_size: 2048,
            huge_pages: HugePages::Auto,
            flows: 1_000_000,
            flows_ipv6: 250_000,
            verify_checksums: VerifyChecksums::NewFlows,
            local_ports: PortRange { first: 1024, last: u16::MAX },
            local_addresses: 16,
            fragments: 1024,
            fragments_waiting: 256,
            fragment_wait_ms: 1000,
        }
    }
}

/// Flow timeouts in seconds; the defaults are IPVS's (`ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`, `ip_vs_proto_sctp.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP ESTABLISHED.
    pub tcp_established: u32,
    /// TCP SYN_SENT.
    pub tcp_syn_sent: u32,
    /// TCP SYN_RECV.
    pub tcp_syn_recv: u32,
    /// TCP FIN_WAIT (`ipvsadm --set`'s tcpfin).
    pub tcp_fin_wait: u32,
    /// TCP TIME_WAIT.
    pub tcp_time_wait: u32,
    /// TCP CLOSE.
    pub tcp_close: u32,
    /// TCP CLOSE_WAIT.
    pub tcp_close_wait: u32,
    /// TCP LAST_ACK.
    pub tcp_last_ack: u32,
    /// UDP.
    pub udp: u32,
    /// SCTP ESTABLISHED.
    pub sctp_established: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            tcp_established: 900,
            tcp_syn_sent: 120,
            tcp_syn_recv: 60,
            tcp_fin_wait: 120,
            tcp_time_wait: 120,
            tcp_close: 10,
            tcp_close_wait: 60,
            tcp_last_ack: 30,
            udp: 300,
            sctp_established: 900,
        }
    }
}

/// One interface of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Kernel name, for example `eth0`.
    pub name: String,
    /// Receive queues to take; `None` takes all.
    pub queues: Option<Vec<u32>>,
}

/// A whole configuration, checked and complete: what the operator wants to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Engine settings.
    pub engine: EngineSettings,
    /// Flow timeouts.
    pub timeouts: Timeouts,
    /// Control socket path.
    pub control_socket: PathBuf,
    /// Interfaces, at least one; a port index of the data plane is an index into this list.
    pub interfaces: Vec<Interface>,
    /// Static next hops.
    pub neighbors: Vec<Neighbor>,
    /// Addresses that the engine owns without a service, for example the servers' gateway: it answers ARP, neighbour
    /// discovery and echo for them.
    pub addresses: Vec<IpAddr>,
    /// Which clients may use the services.
    pub access: Arc<Access>,
    /// Services, in the order of the file.
    pub services: Vec<Service>,
}

impl Desired {
    /// Addresses of servers behind tunnels; some may come twice.
    pub fn tunnel_servers(&self) -> impl Iterator<Item = IpAddr> {
        let servers = self.services.iter().flat_map(|service| &service.servers);
        servers.filter(|server| server.method.is_tunnel()).map(|server| server.address)
    }
}
