//! The nouns of services: what they match, how a server is chosen and reached, what clients and flows may do.
//!
//! Owns plain values and their defaults. Never decides anything.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Health, PortRange, Protocol, ServerHealth, Timeouts};

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

    /// Bytes that it puts before a packet where servers are reached over IPv4 or IPv6: 20 or 40, GRE 4 more (RFC 2784), GUE
    /// over UDP 12 more; 0 without an outer packet.
    pub const fn outer_bytes(self, over_v6: bool) -> u32 {
        let outer = if over_v6 { 40 } else { 20 };
        match self {
            Method::Ipip => outer,
            Method::Gre => outer + 4,
            Method::Gue => outer + 12,
            Method::Dr | Method::Nat | Method::FullNat => 0,
        }
    }

    /// Whether addresses are translated, and the server's answers come back through the appliance.
    pub const fn is_nat(self) -> bool {
        matches!(self, Method::Nat | Method::FullNat)
    }
}

/// UDP port of generic UDP encapsulation (IANA), the default of `ipvsadm --tun-port` too.
pub const GUE_PORT: u16 = 6080;

/// How a service's tunnelled packets are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Scheduler of a service with its settings. Which ones there are is known to `dataplane::schedule`, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scheduler {
    /// Name as in configs, JSON and `ipvsadm -L`.
    pub name: &'static str,
    /// Hashing schedulers: hash the client's port too, not only its address (IPVS flags `sh-port`, `mh-port`).
    pub port: bool,
    /// Hashing schedulers: pick another server when the hashed one has weight 0 or is overloaded (IPVS flags `sh-fallback`,
    /// `mh-fallback`).
    pub fallback: bool,
    /// Slots of a lookup table; 0 takes the scheduler's default.
    pub table_size: u32,
}

impl Scheduler {
    /// Round robin.
    pub const RR: Scheduler = Scheduler::named("rr");
    /// Weighted round robin.
    pub const WRR: Scheduler = Scheduler::named("wrr");
    /// Least connections.
    pub const LC: Scheduler = Scheduler::named("lc");
    /// Weighted least connections.
    pub const WLC: Scheduler = Scheduler::named("wlc");
    /// Maglev hashing as IPVS does it.
    pub const MH: Scheduler = Scheduler::named("mh");

    /// A scheduler without flags.
    pub const fn named(name: &'static str) -> Scheduler {
        Scheduler { name, port: false, fallback: false, table_size: 0 }
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

/// What identifies a server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey {
    /// The service.
    pub service: ServiceKey,
    /// The server's own address.
    pub address: IpAddr,
    /// Its port, host order, as configured; `None` where it has none of its own.
    pub port: Option<u16>,
}

impl ServerKey {
    /// That of a server of a service.
    pub const fn of(service: &Service, server: &Server) -> ServerKey {
        ServerKey { service: service.key, address: server.address, port: server.port }
    }
}

/// The server as people write it: its address, with its port or the service's.
impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port.or(self.service.ports.as_single()) {
            Some(port) => write!(f, "{}", SocketAddr::new(self.address, port)),
            None => write!(f, "{}", self.address),
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
    /// UDP: every packet is scheduled by itself, and no flow is remembered (`ipvsadm --ops`).
    pub one_packet: bool,
    /// Whether and how clients keep their server.
    pub persistence: Option<Persistence>,
    /// Services of one group share their persistent clients (IPVS does this by firewall marks).
    pub group: Option<String>,
    /// Flow timeouts.
    pub timeouts: Timeouts,
    /// Limits for new flows.
    pub limits: Limits,
    /// What becomes of flows whose server is gone.
    pub fates: Fates,
    /// Seconds after which the flows of a server with `drain` meet [`Fates::drained`]; `None`: they end by themselves.
    pub drain_deadline: Option<u32>,
    /// What health checks mean to it.
    pub health: Health,
    /// The real servers, in the order of the file.
    pub servers: Vec<Server>,
}

/// How clients keep their server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// What tells clients apart.
    pub by: PersistBy,
    /// Seconds after a client's last new flow (`ipvsadm -p`).
    pub seconds: u32,
    /// Leading bits of IPv4 client addresses that count (`ipvsadm -M`).
    pub prefix_v4: u8,
    /// Leading bits of IPv6 client addresses that count.
    pub prefix_v6: u8,
    /// Whether clients leave a server at weight 0 (`expire_quiescent_template`).
    pub leave_drained: bool,
}

/// What tells persistent clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersistBy {
    /// The client's address or network.
    Client,
    /// The Call-ID of SIP over UDP (`ipvsadm --pe sip`).
    SipCallId,
    /// The server id in QUIC connection ids (draft-ietf-quic-load-balancers, plaintext algorithm).
    QuicServerId {
        /// Config rotation bits that connection ids of this configuration have, 0 to 6.
        rotation: u8,
        /// Bytes of the server id, 1 to 15.
        length: u8,
    },
}

/// New flows in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// New flows a second in the long run.
    pub per_second: u32,
    /// New flows at once after a pause.
    pub burst: u32,
}

/// Limits for new flows of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows of the whole service at a time.
    pub connections: Option<u32>,
    /// New flows of the whole service.
    pub rate: Option<Rate>,
    /// Flows of one client network at a time.
    pub client_connections: Option<u32>,
    /// New flows of one client network.
    pub client_rate: Option<Rate>,
    /// Leading bits of an IPv4 client's network.
    pub client_prefix_v4: u8,
    /// Leading bits of an IPv6 client's network.
    pub client_prefix_v6: u8,
}

impl Limits {
    /// No limits.
    pub const NONE: Limits = Limits {
        connections: None,
        rate: None,
        client_connections: None,
        client_rate: None,
        client_prefix_v4: 32,
        client_prefix_v6: 64,
    };

    /// Whether there are none.
    pub const fn is_none(&self) -> bool {
        self.connections.is_none()
            && self.rate.is_none()
            && self.client_connections.is_none()
            && self.client_rate.is_none()
    }
}

/// What becomes of a flow whose server does not serve it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Fate {
    /// Its packets are dropped, and it goes on when the server is back (IPVS without `expire_nodest_conn`); for a server that
    /// can still be reached, it goes on as if nothing had happened.
    Keep,
    /// Its next packet is treated as one without a flow.
    Reschedule,
    /// Its next packet is answered by a TCP reset or ICMP port unreachable, and the flow ends.
    Reset,
}

/// What becomes of flows, by what happened to their server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fates {
    /// Its server was removed from the service.
    pub removed: Fate,
    /// Its server cannot be reached, or failed its checks.
    pub down: Fate,
    /// Its server drains, and the deadline has passed.
    pub drained: Fate,
}

impl Fates {
    /// What services have that say nothing: clients learn at once that a server was removed, and otherwise nothing happens.
    pub const DEFAULT: Fates = Fates { removed: Fate::Reset, down: Fate::Keep, drained: Fate::Reset };
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
    /// Flows at which it takes no new ones (`ipvsadm -x`).
    pub upper: Option<u32>,
    /// Flows below which it takes new ones again (`ipvsadm -y`); `None`: three quarters of `upper`.
    pub lower: Option<u32>,
    /// Whether it takes no new flows and loses those it has at the service's deadline.
    pub drain: bool,
    /// Its id in QUIC connection ids.
    pub quic_id: Option<Vec<u8>>,
    /// How its health is known, and what that means.
    pub health: ServerHealth,
}

impl Server {
    /// A server with the defaults of the configuration file.
    pub const fn new(address: IpAddr, port: Option<u16>, weight: u16, method: Method) -> Server {
        Server {
            address,
            port,
            weight,
            method,
            upper: None,
            lower: None,
            drain: false,
            quic_id: None,
            health: ServerHealth::NONE,
        }
    }

    /// A server by direct routing.
    pub const fn dr(address: IpAddr, weight: u16) -> Server {
        Server::new(address, None, weight, Method::Dr)
    }
}

impl Service {
    /// Its servers, and the sorry server after them.
    pub fn all_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().chain(self.health.sorry.as_deref())
    }

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
            one_packet: false,
            persistence: None,
            group: None,
            timeouts: Timeouts::default(),
            limits: Limits::NONE,
            fates: Fates::DEFAULT,
            drain_deadline: None,
            health: Health::default(),
            servers,
        }
    }
}
