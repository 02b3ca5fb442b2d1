//! The networks that the scenarios and tests share: one client side, one appliance, several real servers.
//!
//! Owns names and addresses. Every site carries IPv4 and IPv6 side by side; which family a service uses is the caller's
//! choice. Never starts a program.
//!
//! ```text
//! one arm:  client ---+--- appliance        two arms:  client --- front ---+--- appliance --- back ---+--- server1
//!                     |                                                    |                          +--- server2
//!          lan -------+--- server1                                         +------- router -----------+--- server3
//!                     +--- server2
//!                     +--- server3
//! ```
//! The appliance only sends towards the servers: they have the service address on `lo`, and answer the client themselves,
//! directly (one arm) or through the router (two arms).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::LabError;
use super::netlink::{Cidr, Rtnl, Wire};
use super::tagger;
use super::topology::Lab;
use crate::model::MacAddr;

/// The internet protocol that a service uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the appliance is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One interface on the segment that everybody shares.
    OneArm,
    /// One interface on the clients' segment and one on the servers'.
    TwoArm,
}

/// What a site is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteOptions {
    /// How the appliance is connected.
    pub shape: Shape,
    /// Real servers.
    pub servers: u8,
    /// Queues and MTU of every cable.
    pub wire: Wire,
    /// Put the addresses of everybody on this 802.1Q VLAN: all traffic is tagged. Where the kernel has no VLAN
    /// interfaces, a [`tagger`] stands between each node and the segment, and the appliance's kernel has no part in the
    /// VLAN: the engine needs [`Site::static_neighbors`].
    pub vlan: Option<u16>,
}

impl Default for SiteOptions {
    fn default() -> Self {
        SiteOptions { shape: Shape::OneArm, servers: 3, wire: Wire::default(), vlan: None }
    }
}

/// A real server of a site.
#[derive(Clone, Debug)]
pub struct SiteServer {
    /// Its node, and what its programs call themselves.
    pub name: String,
    /// Its own IPv4 address.
    pub v4: IpAddr,
    /// Its own IPv6 address.
    pub v6: IpAddr,
}

impl SiteServer {
    /// Its own address.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// A built site.
pub struct Site {
    /// The namespaces.
    pub lab: Lab,
    /// What it was built with.
    pub options: SiteOptions,
    /// The real servers.
    pub servers: Vec<SiteServer>,
    /// Whether VLANs are the kernel's.
    kernel_vlans: bool,
}

/// The node of the taggers, where there are any.
const TAGS: &str = "tags";
/// The node with the client.
pub const CLIENT: &str = "client";
/// The node with the appliance.
pub const APPLIANCE: &str = "appliance";
/// The node that routes the servers' answers in a two-arm site.
pub const ROUTER: &str = "router";

const VIP: u8 = 10;
const CLIENT_HOST: u8 = 100;
const APPLIANCE_HOST: u8 = 1;
const ROUTER_HOST: u8 = 254;
const FIRST_SERVER: u8 = 11;

/// The networks: `Front` has the clients (and, with one arm, everybody), `Back` the servers of a two-arm site.
#[derive(Clone, Copy)]
enum Network {
    Front,
    Back,
}

impl Network {
    fn v4(self, host: u8) -> Ipv4Addr {
        match self {
            Network::Front => Ipv4Addr::new(192, 0, 2, host),
            Network::Back => Ipv4Addr::new(10, 0, 0, host),
        }
    }

    /// The IPv6 host part is written with the digits of the IPv4 one, so that people recognize it.
    fn v6(self, host: u8) -> Ipv6Addr {
        let digits = u16::from(host / 100) << 8 | u16::from(host / 10 % 10) << 4 | u16::from(host % 10);
        let network = match self {
            Network::Front => 1,
            Network::Back => 2,
        };
        Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, digits)
    }
}

impl Site {
    /// Builds the network.
    pub fn build(options: SiteOptions) -> Result<Self, LabError> {
        let mut site = Site { lab: Lab::new()?, options, servers: Vec::new(), kernel_vlans: true };
        let (front, back) = match options.shape {
            Shape::OneArm => ("lan", "lan"),
            Shape::TwoArm => ("front", "back"),
        };
        let back_network = site.back();
        // Room for the tag, so that tagged frames may carry full packets.
        let segment_mtu = options.wire.mtu + if options.vlan.is_some() { 4 } else { 0 };
        site.lab.add_segment(front, segment_mtu)?;
        if front != back {
            site.lab.add_segment(back, segment_mtu)?;
        }
        site.lab.add_node(CLIENT)?;
        if options.vlan.is_some() {
            site.kernel_vlans = site.lab.node(CLIENT)?.run(|| Rtnl::open()?.has_vlans())??;
            if !site.kernel_vlans {
                site.lab.add_node(TAGS)?;
                site.lab.setting(TAGS, "net/ipv6/conf/default/disable_ipv6", "1")?;
            }
        }
        site.join(CLIENT, "eth0", front, Network::Front, CLIENT_HOST)?;
        site.lab.setting(CLIENT, "net/ipv4/ip_local_port_range", "2048 65535")?;
        site.lab.add_node(APPLIANCE)?;
        site.join(APPLIANCE, "eth0", front, Network::Front, APPLIANCE_HOST)?;
        if front != back {
            site.join(APPLIANCE, "eth1", back, Network::Back, APPLIANCE_HOST)?;
            site.lab.add_node(ROUTER)?;
            site.lab.setting(ROUTER, "net/ipv4/ip_forward", "1")?;
            site.lab.setting(ROUTER, "net/ipv6/conf/all/forwarding", "1")?;
            site.join(ROUTER, "eth0", front, Network::Front, ROUTER_HOST)?;
            site.join(ROUTER, "eth1", back, Network::Back, ROUTER_HOST)?;
            site.lab.route(
                CLIENT,
                "10.0.0.0/24".parse().map_err(unexpected)?,
                Network::Front.v4(ROUTER_HOST).into(),
            )?;
        }
        for number in 0..options.servers {
            let host = FIRST_SERVER + number;
            let name = format!("server{}", number + 1);
            site.lab.add_node(&name)?;
            // Real servers neither answer ARP for the service address nor name it in their own questions.
            for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
                site.lab.setting(&name, &format!("net/ipv4/conf/all/{key}"), value)?;
            }
            site.join(&name, "eth0", back, back_network, host)?;
            for family in [Family::V4, Family::V6] {
                site.lab.address(&name, "lo", Cidr::host(site.vip(family)))?;
            }
            if front != back {
                site.lab.route(&name, Cidr::new(Ipv4Addr::UNSPECIFIED, 0), Network::Back.v4(ROUTER_HOST).into())?;
                site.lab.route(&name, Cidr::new(Ipv6Addr::UNSPECIFIED, 0), Network::Back.v6(ROUTER_HOST).into())?;
            }
            site.servers.push(SiteServer { name, v4: back_network.v4(host).into(), v6: back_network.v6(host).into() });
        }
        Ok(site)
    }

    /// The service address.
    pub fn vip(&self, family: Family) -> IpAddr {
        address(Network::Front, family, VIP)
    }

    /// The service address and a port.
    pub fn vip_port(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(family), port)
    }

    /// The client's address.
    pub fn client_address(&self, family: Family) -> IpAddr {
        address(Network::Front, family, CLIENT_HOST)
    }

    /// The appliance's own address on the clients' side.
    pub fn appliance_address(&self, family: Family) -> IpAddr {
        address(Network::Front, family, APPLIANCE_HOST)
    }

    /// An address on the servers' segment that nobody has.
    pub fn nobody(&self, family: Family) -> IpAddr {
        address(self.back(), family, 99)
    }

    /// The interfaces that the engine takes.
    pub fn appliance_interfaces(&self) -> &'static [&'static str] {
        match self.options.shape {
            Shape::OneArm => &["eth0"],
            Shape::TwoArm => &["eth0", "eth1"],
        }
    }

    /// The interface that has the addresses of `interface`: itself, or its VLAN.
    pub fn addressed_interface(&self, interface: &str) -> String {
        match self.options.vlan {
            Some(id) if self.kernel_vlans => format!("{interface}.{id}"),
            _ => interface.to_owned(),
        }
    }

    /// The servers' Ethernet addresses, where the appliance's kernel cannot find them out.
    pub fn static_neighbors(&self, family: Family) -> Vec<(IpAddr, MacAddr)> {
        if self.kernel_vlans || self.options.vlan.is_none() {
            return Vec::new();
        }
        let mac = |server: &SiteServer| Some((server.address(family), self.lab.mac(&server.name, "eth0")?));
        self.servers.iter().filter_map(mac).collect()
    }

    /// A drawing of the site with its addresses, for people.
    pub fn picture(&self, family: Family) -> String {
        let vip = self.vip(family);
        let tag = self.options.vlan.map(|id| format!(" (all frames tagged, VLAN {id})")).unwrap_or_default();
        let mut lines = vec![
            format!("  client     {:<18} asks for {vip}{tag}", self.client_address(family).to_string()),
            String::from("    |"),
        ];
        let appliance =
            format!("  appliance  {:<18} Evenkeel: takes {vip}", self.appliance_address(family).to_string());
        match self.options.shape {
            Shape::OneArm => lines.push(String::from("    |   one Ethernet segment")),
            Shape::TwoArm => lines.push(String::from("    |   front segment; answers come back by the router")),
        }
        lines.push(String::from("    |"));
        lines.push(appliance);
        lines.push(String::from("    |   changes Ethernet addresses, nothing else"));
        for server in &self.servers {
            let own = server.address(family).to_string();
            lines.push(format!("    +-- {:<8} {own:<18} has {vip} on lo, answers the client itself", server.name));
        }
        lines.join("\n")
    }

    fn back(&self) -> Network {
        match self.options.shape {
            Shape::OneArm => Network::Front,
            Shape::TwoArm => Network::Back,
        }
    }

    /// Attaches a node to a segment and gives it its addresses there.
    fn join(&mut self, node: &str, interface: &str, segment: &str, network: Network, host: u8) -> Result<(), LabError> {
        let mut wire = self.options.wire;
        match self.options.vlan {
            None => self.lab.attach(node, interface, segment, wire)?,
            Some(id) if !self.kernel_vlans && node != APPLIANCE => {
                let tagged = format!("{node}-tag");
                self.lab.link((node, interface), (TAGS, node), wire)?;
                wire.mtu += 4;
                self.lab.attach(TAGS, &tagged, segment, wire)?;
                tagger::start(&mut self.lab, TAGS, node, &tagged, id)?;
            }
            Some(id) => {
                wire.mtu += 4;
                self.lab.attach(node, interface, segment, wire)?;
                if self.kernel_vlans {
                    self.lab.add_vlan(node, interface, id)?;
                }
            }
        }
        let interface = self.addressed_interface(interface);
        self.lab.address(node, &interface, Cidr::new(network.v4(host), 24))?;
        self.lab.address(node, &interface, Cidr::new(network.v6(host), 64))
    }
}

fn address(network: Network, family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => network.v4(host).into(),
        Family::V6 => network.v6(host).into(),
    }
}

fn unexpected(error: impl std::fmt::Display) -> LabError {
    LabError::Unexpected(error.to_string())
}
