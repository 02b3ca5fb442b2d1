//! A flood: packets from sources that nobody has, made by the program's own generator on a node of its own.
//!
//! Owns where they come from (198.18.0.0/15 and 2001:db8:f::/48, nobody's in any site) and how they are counted. Bounded in
//! time whatever happens.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::lab::error::LabError;
use crate::lab::netlink::Wire;
use crate::lab::process::Process;
use crate::lab::site::{APPLIANCE, Network, Site};

/// The node that it comes from, in the clients' network.
const FLOODER: &str = "flooder";

/// What it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// TCP SYNs.
    Syns,
    /// UDP datagrams.
    Datagrams,
}

/// A running flood; it ends by itself, or when the lab does.
pub struct Flood {
    process: Process,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Packets.
    pub packets: f64,
    /// In so many seconds.
    pub seconds: f64,
}

impl Sent {
    /// Packets a second.
    pub fn rate(&self) -> f64 {
        self.packets / self.seconds.max(0.001)
    }
}

/// Puts the flooder into the clients' network of a site.
pub fn attach(site: &mut Site) -> Result<(), LabError> {
    let segment = site.segment(Network::Front);
    site.lab.add_node(FLOODER)?;
    site.lab.setting(FLOODER, "net/ipv6/conf/default/disable_ipv6", "1")?;
    site.lab.attach(FLOODER, "eth0", segment, Wire { queues: 1, mtu: 1500 })
}

impl Flood {
    /// Starts a flood towards a service: `rate` packets a second, 0 for as many as possible.
    pub fn start(
        site: &Site,
        program: &Path,
        target: SocketAddr,
        packets: Packets,
        rate: u64,
        lasting: Duration,
    ) -> Result<Flood, LabError> {
        let interface = site.appliance_interfaces()[0];
        let mac = site.lab.mac(APPLIANCE, interface);
        let mac = mac.ok_or_else(|| LabError::Unexpected(format!("{APPLIANCE} has no {interface}")))?;
        let kind = if packets == Packets::Syns { "tcp-syn" } else { "udp" };
        let sources = if target.is_ipv4() { "198.18.0.0/15" } else { "2001:db8:f::/112" };
        let mut command = Command::new(program);
        command.args(["pktgen", "--engine", "xsk", "--interface", "eth0", "--json", "--proto", kind]);
        command.args(["--dst", &target.to_string(), "--dst-mac", &mac.to_string(), "--src", sources]);
        command.args(["--flows", "4000000000", "--order", "random", "--rate", &rate.to_string()]);
        command.args(["--duration", &lasting.as_secs_f64().to_string()]);
        Ok(Flood { process: site.lab.start(FLOODER, &format!("flood-{kind}-{rate}"), &command)? })
    }

    /// Whether it still goes on.
    pub fn is_on(&self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits for its end; what it sent.
    pub fn ended(&self, within: Duration) -> Result<Sent, LabError> {
        let status = self.process.wait(within)?;
        let said = self.process.output();
        let report = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).next_back();
        let number = |key: &str| report.as_ref().and_then(|report| report[key].as_f64());
        match (number("packets"), number("seconds")) {
            (Some(packets), Some(seconds)) if status.success() => Ok(Sent { packets, seconds }),
            _ => Err(LabError::Unexpected(format!("the generator failed ({status}): {}", self.process.last_words(5)))),
        }
    }
}
