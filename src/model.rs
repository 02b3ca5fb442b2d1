//! The shared nouns: services, servers, protocols, ports, MAC addresses, engine settings.
//!
//! Owns plain values that every layer may name. Never holds a socket, a file, a thread, a lock or a clock, and
//! never decides anything. Ports are `u16` in host order unless a field says otherwise.

mod access;
mod engine;
mod health;
mod mastery;
mod roles;
mod router;
mod service;
mod web;

pub use access::{Access, Judgement, Prefix, PrefixError};
pub use engine::*;
pub use health::*;
pub use mastery::{MOST_ROUTERS, Masters, Mastery, RouterSlot};
pub use roles::{Door, Peer, Role, Roles, Who};
pub use router::*;
pub use service::*;
pub use web::{Web, WebTls, WebUser, WebUsers};

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
    /// Who may speak with the engine on it.
    pub roles: Roles,
    /// File that remembers which servers are in maintenance.
    pub state_file: PathBuf,
    /// Interfaces; a port index of the data plane is an index into this list.
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
    /// Virtual routers and what they need.
    pub vrrp: Vrrp,
    /// The web listener, if there is one.
    pub web: Option<Arc<Web>>,
}

impl Desired {
    /// Whether nothing is configured yet: the engine waits for its first interface or virtual router.
    pub const fn is_idle(&self) -> bool {
        self.interfaces.is_empty()
            && self.services.is_empty()
            && self.addresses.is_empty()
            && self.vrrp.routers.is_empty()
    }

    /// These services, with the defaults of the configuration file: no interfaces, no virtual routers.
    pub fn of(services: Vec<Service>) -> Desired {
        Desired {
            engine: EngineSettings::default(),
            timeouts: Timeouts::default(),
            control_socket: "/run/evenkeel.sock".into(),
            roles: Roles::default(),
            state_file: "/var/lib/evenkeel/state.json".into(),
            interfaces: Vec::new(),
            neighbors: Vec::new(),
            addresses: Vec::new(),
            access: Arc::default(),
            services,
            vrrp: Vrrp::default(),
            web: None,
        }
    }

    /// Addresses of servers behind tunnels, sorry servers too; some may come twice.
    pub fn tunnel_servers(&self) -> impl Iterator<Item = IpAddr> {
        let servers = self.services.iter().flat_map(Service::all_servers);
        servers.filter(|server| server.method.is_tunnel()).map(|server| server.address)
    }
}
