//! What goes wrong with a site's cables: cut, mended, and parted from one another.
//!
//! Owns the state of the segments' ports. Never touches the interface of a node itself: it loses its carrier, as at a switch.

use std::net::Ipv4Addr;
use std::process::Command;

use super::{Network, Shape, Site, appliance};
use crate::lab::error::LabError;
use crate::lab::netlink::Cidr;
use crate::lab::process::require;
use crate::lab::topology::port;

/// The segment of the appliances' second interface in a one-arm site, see [`Site::add_side`].
const SIDE: &str = "side";
/// The appliances' interface there.
pub const SIDE_INTERFACE: &str = "eth1";

impl Site {
    /// Gives each appliance of a one-arm site a second interface, `eth1`, on a segment where nobody else is.
    pub fn add_side(&mut self) -> Result<(), LabError> {
        self.lab.add_segment(SIDE, self.options.wire.mtu)?;
        for number in 0..self.options.appliances {
            self.lab.attach(appliance(number), SIDE_INTERFACE, SIDE, self.options.wire)?;
            let own = Ipv4Addr::new(10, 0, 9, self.options.plan.appliance + number);
            self.lab.address(appliance(number), SIDE_INTERFACE, Cidr::new(own, 24))?;
        }
        Ok(())
    }

    /// The segment, and its port, that an appliance's interface is connected to.
    pub fn port_of(&self, node: &str, interface: &str) -> (&'static str, String) {
        let [front, back] = self.options.plan.arms;
        let segment = match self.options.shape {
            _ if interface == front => self.segment(Network::Front),
            Shape::TwoArm if interface == back => self.segment(Network::Back),
            _ => SIDE,
        };
        (segment, port(node, interface))
    }

    /// Sets the switch port of an appliance's interface up or down: the interface gets or loses its carrier.
    pub fn plug(&self, node: &str, interface: &str, in_place: bool) -> Result<(), LabError> {
        let (segment, port) = self.port_of(node, interface);
        self.lab.rtnl(segment, |rtnl| rtnl.set_up(&port, in_place))
    }

    /// Parts the appliances from one another on the clients' segment, or joins them again. Everybody else reaches both all
    /// the time.
    pub fn part(&self, parted: bool) -> Result<(), LabError> {
        let front = self.options.plan.arms[0];
        for number in 0..self.options.appliances {
            let (segment, port) = self.port_of(appliance(number), front);
            let mut command = Command::new(require("sh", "dash")?);
            let bit = u8::from(parted);
            command.arg("-c").arg(format!("echo {bit} > /sys/class/net/{port}/brport/isolated"));
            self.lab.output(segment, &command)?;
        }
        Ok(())
    }
}
