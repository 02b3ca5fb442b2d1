//! The addresses of a site: its networks, and the host number of everybody in them.
//!
//! Owns numbers. Each IPv6 address has the digits of its IPv4 twin as its last part, so that people recognize it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Family;

/// The networks of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The clients' and the service address's.
    Front,
    /// The servers', where the appliance is in it.
    Back,
    /// The servers', where a router is between.
    Far,
}

/// Networks (/24 each) and host numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// First three bytes of the clients' network.
    pub front: [u8; 3],
    /// First three bytes of the servers' network beside the appliance.
    pub back: [u8; 3],
    /// First three bytes of the servers' network behind the router.
    pub far: [u8; 3],
    /// The service address, in `front`.
    pub vip: u8,
    /// The NAT servers' gateway, in `back`: the engine's, not the kernel's.
    pub gateway: u8,
    /// The first local address of full NAT, in `back`.
    pub first_local: u8,
    /// The client, in `front`.
    pub client: u8,
    /// The appliance's kernel, everywhere.
    pub appliance: u8,
    /// The router, everywhere.
    pub router: u8,
    /// The first server, wherever it is.
    pub first_server: u8,
    /// The appliance's interfaces: the clients' side first.
    pub arms: [&'static str; 2],
}

/// The plan of all sites that have none of their own: documentation and private addresses.
pub const USUAL: Plan = Plan {
    front: [192, 0, 2],
    back: [10, 0, 0],
    far: [10, 0, 1],
    vip: 10,
    gateway: 9,
    first_local: 50,
    client: 100,
    appliance: 1,
    router: 254,
    first_server: 11,
    arms: ["eth0", "eth1"],
};

impl Plan {
    /// The IPv4 address of a host.
    pub fn v4(&self, network: Network, host: u8) -> Ipv4Addr {
        let [a, b, c] = match network {
            Network::Front => self.front,
            Network::Back => self.back,
            Network::Far => self.far,
        };
        Ipv4Addr::new(a, b, c, host)
    }

    /// The IPv6 address of a host.
    pub fn v6(&self, network: Network, host: u8) -> Ipv6Addr {
        let digits = u16::from(host / 100) << 8 | u16::from(host / 10 % 10) << 4 | u16::from(host % 10);
        let network = match network {
            Network::Front => 1,
            Network::Back => 2,
            Network::Far => 3,
        };
        Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, digits)
    }

    /// The address of a host.
    pub fn address(&self, network: Network, family: Family, host: u8) -> IpAddr {
        match family {
            Family::V4 => self.v4(network, host).into(),
            Family::V6 => self.v6(network, host).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_show_the_same_digits() {
        assert_eq!(USUAL.address(Network::Far, Family::V4, 213).to_string(), "10.0.1.213");
        assert_eq!(USUAL.address(Network::Far, Family::V6, 213).to_string(), "2001:db8:0:3::213");
        assert_eq!(USUAL.address(Network::Front, Family::V6, 9).to_string(), "2001:db8:0:1::9");
    }
}
