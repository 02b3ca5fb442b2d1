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
//! Direct routing: the appliance only sends towards the servers: they have the service address on `lo`, and answer the
//! client themselves, directly (one arm) or through the router (two arms).
//!
//! NAT: there is no router. The servers have a network of their own, with one arm on the same segment, and their default
//! route leads to a gateway address of the engine's. Full NAT: the same, but the servers have no route at all.
//!
//! Tunnels: the servers are in a third network, `far`, behind the router, which brings their answers to the client.

pub mod links;
pub mod picture;
pub mod plan;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use plan::{Network, Plan, USUAL};

use super::error::LabError;
use super::netlink::{Cidr, Rtnl, Wire};
use super::topology::Lab;
use super::{shuffler, tagger};
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

/// How packets reach a server and its answers the client: it decides where the server stands and what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Beside the appliance, with the service address; answers past the appliance.
    Direct,
    /// Beside the appliance, which is its gateway.
    Nat,
    /// Beside the appliance, without any route.
    FullNat,
    /// Behind the router, with the service address, at the end of a tunnel; answers past the appliance.
    Tunnel,
    /// The servers in turn: direct, NAT, tunnel. Two arms.
    Mixed,
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
    /// How packets reach the servers.
    pub reach: Reach,
    /// Whether a [`shuffler`] stands between the client and its segment: frames of a burst change their order.
    pub shuffled: bool,
    /// Its addresses.
    pub plan: Plan,
    /// Appliances: 1, or 2 that share the addresses by VRRP.
    pub appliances: u8,
}

impl SiteOptions {
    /// One arm, three servers by direct routing, one queue.
    pub const USUAL: SiteOptions = SiteOptions {
        shape: Shape::OneArm,
        servers: 3,
        wire: Wire { queues: 1, mtu: 1500 },
        vlan: None,
        reach: Reach::Direct,
        shuffled: false,
        plan: USUAL,
        appliances: 1,
    };
}

impl Default for SiteOptions {
    fn default() -> Self {
        SiteOptions::USUAL
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
    /// How packets reach it; never [`Reach::Mixed`].
    pub reach: Reach,
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
/// The node of the shuffler, where there is one.
const SHUFFLER: &str = "shuffler";
/// The node with the client.
pub const CLIENT: &str = "client";
/// The node with the appliance.
pub const APPLIANCE: &str = "appliance";
/// The node with the second appliance, where there are two.
pub const SECOND: &str = "appliance2";
/// The node that routes the servers' answers in a two-arm site, and to the servers of tunnels.
pub const ROUTER: &str = "router";

/// A host number that nobody has.
const NOBODY: u8 = 99;

impl Site {
    /// Builds the network.
    pub fn build(options: SiteOptions) -> Result<Self, LabError> {
        let mut site = Site { lab: Lab::new()?, options, servers: Vec::new(), kernel_vlans: true };
        let plan = options.plan;
        // Room for the tag, so that tagged frames may carry full packets.
        let segment_mtu = options.wire.mtu + if options.vlan.is_some() { 4 } else { 0 };
        site.lab.add_segment(site.segment(Network::Front), segment_mtu)?;
        if options.shape == Shape::TwoArm {
            site.lab.add_segment(site.segment(Network::Back), segment_mtu)?;
        }
        if site.has(Reach::Tunnel) {
            site.lab.add_segment(site.segment(Network::Far), segment_mtu)?;
        }
        site.lab.add_node(CLIENT)?;
        if options.vlan.is_some() {
            site.kernel_vlans = site.lab.node(CLIENT)?.run(|| Rtnl::open()?.has_vlans())??;
            if !site.kernel_vlans {
                site.lab.add_node(TAGS)?;
                site.lab.setting(TAGS, "net/ipv6/conf/default/disable_ipv6", "1")?;
            }
        }
        site.join(CLIENT, "eth0", Network::Front, plan.client)?;
        site.lab.setting(CLIENT, "net/ipv4/ip_local_port_range", "2048 65535")?;
        for number in 0..options.appliances {
            site.add_appliance(number)?;
        }
        if site.has_router() {
            site.add_router()?;
        }
        // What the client knows of the servers' own addresses: the way that does not pass the service.
        if options.shape == Shape::TwoArm || site.back() == Network::Back {
            let through = if site.has_router() { plan.router } else { plan.appliance };
            site.route(CLIENT, Network::Back, Network::Front, through)?;
        }
        if site.has(Reach::Tunnel) {
            site.route(CLIENT, Network::Far, Network::Front, plan.router)?;
        }
        for number in 0..options.servers {
            site.add_server(number)?;
        }
        Ok(site)
    }

    fn add_appliance(&mut self, number: u8) -> Result<(), LabError> {
        let plan = self.options.plan;
        let [front, back] = plan.arms;
        let (node, host) = (appliance(number), plan.appliance + number);
        self.lab.add_node(node)?;
        self.join(node, front, Network::Front, host)?;
        if self.options.shape == Shape::TwoArm {
            self.join(node, back, Network::Back, host)?;
        } else if self.back() == Network::Back {
            let interface = self.addressed_interface(front);
            self.give(node, &interface, Network::Back, host)?;
        }
        if self.has(Reach::Nat) || self.has(Reach::FullNat) {
            // What the servers send that is no service's passes the appliance's kernel, as with IPVS.
            self.forwards(node)?;
        }
        if self.has(Reach::Tunnel) {
            let near = if self.options.shape == Shape::TwoArm { Network::Back } else { Network::Front };
            self.route(node, Network::Far, near, plan.router)?;
        }
        Ok(())
    }

    fn add_router(&mut self) -> Result<(), LabError> {
        let host = self.options.plan.router;
        self.lab.add_node(ROUTER)?;
        self.forwards(ROUTER)?;
        self.join(ROUTER, "eth0", Network::Front, host)?;
        if self.options.shape == Shape::TwoArm {
            self.join(ROUTER, "eth1", Network::Back, host)?;
        }
        if self.has(Reach::Tunnel) {
            self.join(ROUTER, "eth2", Network::Far, host)?;
        }
        Ok(())
    }

    fn add_server(&mut self, number: u8) -> Result<(), LabError> {
        let plan = self.options.plan;
        let host = plan.first_server + number;
        let name = format!("server{}", number + 1);
        let reach = self.reach_of(number);
        self.lab.add_node(&name)?;
        // Real servers neither answer ARP for the service address nor name it in their own questions.
        for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
            self.lab.setting(&name, &format!("net/ipv4/conf/all/{key}"), value)?;
        }
        // On one wire with the clients, the appliance's kernel tells a server of a shorter way to them than through the appliance.
        // For IPv6 it cannot be told not to.
        self.lab.setting(&name, "net/ipv6/conf/default/accept_redirects", "0")?;
        let network = if reach == Reach::Tunnel { Network::Far } else { self.back() };
        self.join(&name, "eth0", network, host)?;
        if matches!(reach, Reach::Direct | Reach::Tunnel) {
            for family in [Family::V4, Family::V6] {
                self.lab.address(&name, "lo", Cidr::host(self.vip(family)))?;
            }
        }
        let gateway = match reach {
            Reach::Direct if self.options.shape == Shape::TwoArm => Some(plan.router),
            Reach::Tunnel => Some(plan.router),
            Reach::Nat => Some(plan.gateway),
            _ => None,
        };
        if let Some(gateway) = gateway {
            self.lab.route(&name, Cidr::new(Ipv4Addr::UNSPECIFIED, 0), plan.v4(network, gateway).into())?;
            self.lab.route(&name, Cidr::new(Ipv6Addr::UNSPECIFIED, 0), plan.v6(network, gateway).into())?;
        }
        let (v4, v6) = (plan.v4(network, host).into(), plan.v6(network, host).into());
        self.servers.push(SiteServer { name, v4, v6, reach });
        Ok(())
    }

    /// The service address.
    pub fn vip(&self, family: Family) -> IpAddr {
        self.options.plan.address(Network::Front, family, self.options.plan.vip)
    }

    /// The service address and a port.
    pub fn vip_port(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(family), port)
    }

    /// The client's address.
    pub fn client_address(&self, family: Family) -> IpAddr {
        self.options.plan.address(Network::Front, family, self.options.plan.client)
    }

    /// The appliance's own address on the clients' side.
    pub fn appliance_address(&self, family: Family) -> IpAddr {
        self.options.plan.address(Network::Front, family, self.options.plan.appliance)
    }

    /// The own address of appliance number `number` (0, 1) on the clients' side.
    pub fn address_of(&self, number: u8, family: Family) -> IpAddr {
        self.options.plan.address(Network::Front, family, self.options.plan.appliance + number)
    }

    /// The gateway of the NAT servers: an address of the engine's, which the appliance's kernel does not have.
    pub fn gateway(&self, family: Family) -> IpAddr {
        self.options.plan.address(self.back(), family, self.options.plan.gateway)
    }

    /// The local address number `index` of full NAT, which nobody else has.
    pub fn local_address(&self, family: Family, index: u8) -> IpAddr {
        self.options.plan.address(self.back(), family, self.options.plan.first_local + index)
    }

    /// The gateway address beside the appliance's interface to the servers, or to the router before them.
    pub fn gateway_beside(&self, family: Family) -> IpAddr {
        let network = if self.options.shape == Shape::TwoArm { Network::Back } else { Network::Front };
        self.options.plan.address(network, family, self.options.plan.gateway)
    }

    /// The router's address on the segment of the servers behind it.
    pub fn router_address(&self, family: Family) -> IpAddr {
        self.options.plan.address(Network::Far, family, self.options.plan.router)
    }

    /// The clients' network.
    pub fn clients_network(&self, family: Family) -> Cidr {
        Cidr::new(self.options.plan.address(Network::Front, family, 0), prefix(family))
    }

    /// The network of the servers beside the appliance.
    pub fn servers_network(&self, family: Family) -> Cidr {
        Cidr::new(self.options.plan.address(self.back(), family, 0), prefix(family))
    }

    /// The address on which a server is asked: its own behind NAT, else the service's.
    pub fn served_address(&self, server: &SiteServer, family: Family) -> IpAddr {
        match server.reach {
            Reach::Nat | Reach::FullNat => server.address(family),
            _ => self.vip(family),
        }
    }

    /// An address on the servers' segment that nobody has.
    pub fn nobody(&self, family: Family) -> IpAddr {
        self.options.plan.address(self.back(), family, NOBODY)
    }

    /// The interfaces that the engine takes.
    pub fn appliance_interfaces(&self) -> &[&'static str] {
        match self.options.shape {
            Shape::OneArm => &self.options.plan.arms[..1],
            Shape::TwoArm => &self.options.plan.arms,
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

    /// The network of the servers beside the appliance. Those of NAT have one of their own also where the segment is the
    /// clients': their answers must take the gateway.
    fn back(&self) -> Network {
        match (self.options.shape, self.options.reach) {
            (Shape::OneArm, Reach::Direct | Reach::Tunnel) => Network::Front,
            _ => Network::Back,
        }
    }

    fn reach_of(&self, number: u8) -> Reach {
        match self.options.reach {
            Reach::Mixed => [Reach::Direct, Reach::Nat, Reach::Tunnel][usize::from(number) % 3],
            reach => reach,
        }
    }

    fn has(&self, reach: Reach) -> bool {
        (0..self.options.servers).any(|number| self.reach_of(number) == reach)
    }

    fn has_router(&self) -> bool {
        self.has(Reach::Tunnel) || self.options.shape == Shape::TwoArm && self.has(Reach::Direct)
    }

    /// The segment, a node of the lab, that carries a network.
    pub fn segment(&self, network: Network) -> &'static str {
        match (self.options.shape, network) {
            (_, Network::Far) => "far",
            (Shape::OneArm, _) => "lan",
            (_, Network::Front) => "front",
            (_, Network::Back) => "back",
        }
    }

    /// Lets a node forward packets.
    fn forwards(&self, node: &str) -> Result<(), LabError> {
        self.lab.setting(node, "net/ipv4/ip_forward", "1")?;
        self.lab.setting(node, "net/ipv6/conf/all/forwarding", "1")?;
        // A packet may leave by the interface that it came by.
        self.lab.setting(node, "net/ipv4/conf/all/send_redirects", "0")?;
        self.lab.setting(node, "net/ipv4/conf/default/send_redirects", "0")
    }

    /// Adds a node's route to a network through a host of another one.
    fn route(&self, node: &str, to: Network, by: Network, host: u8) -> Result<(), LabError> {
        let plan = self.options.plan;
        self.lab.route(node, Cidr::new(plan.v4(to, 0), 24), plan.v4(by, host).into())?;
        self.lab.route(node, Cidr::new(plan.v6(to, 0), 64), plan.v6(by, host).into())
    }

    /// Attaches a node to a segment and gives it its addresses there.
    fn join(&mut self, node: &str, interface: &str, network: Network, host: u8) -> Result<(), LabError> {
        let mut wire = self.options.wire;
        let segment = self.segment(network);
        match self.options.vlan {
            None if self.options.shuffled && node == CLIENT => {
                self.lab.add_node(SHUFFLER)?;
                self.lab.setting(SHUFFLER, "net/ipv6/conf/default/disable_ipv6", "1")?;
                self.lab.link((node, interface), (SHUFFLER, "inside"), wire)?;
                self.lab.attach(SHUFFLER, "outside", segment, wire)?;
                shuffler::start(&mut self.lab, SHUFFLER, "inside", "outside")?;
            }
            None => self.lab.attach(node, interface, segment, wire)?,
            Some(id) if !self.kernel_vlans && ![APPLIANCE, SECOND].contains(&node) => {
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
        self.give(node, &interface, network, host)
    }

    /// Gives a node its addresses in a network.
    fn give(&self, node: &str, interface: &str, network: Network, host: u8) -> Result<(), LabError> {
        let plan = self.options.plan;
        self.lab.address(node, interface, Cidr::new(plan.v4(network, host), 24))?;
        self.lab.address(node, interface, Cidr::new(plan.v6(network, host), 64))
    }
}

/// The node of appliance number `number` (0, 1).
pub fn appliance(number: u8) -> &'static str {
    if number == 0 { APPLIANCE } else { SECOND }
}

/// Bits of a network's prefix.
fn prefix(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}
