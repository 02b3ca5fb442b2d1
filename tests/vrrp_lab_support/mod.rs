//! What the tests of the `vrrp` thread share: a segment with appliances on it, their drivers, and who looks at the wire.
//!
//! Owns the network. Every driver is a thread of the test, inside its appliance's namespace.
#![allow(dead_code, reason = "every test file uses a part of this")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel::lab::client::frames::Frames;
use evenkeel::lab::netlink::Wire;
use evenkeel::lab::process;
use evenkeel::lab::topology::Lab;
use evenkeel::model::{
    Announcements, MacAddr, Mastery, RouterSlot, VirtualAddress, VirtualRouter, Vrrp, VrrpSettings, VrrpVersion,
};
use evenkeel::vrrp::status::RouterStatus;
use evenkeel::vrrp::{Driver, Plan, Wiring};

/// The segment.
pub const LAN: &str = "lan";
/// The interface of every node on it.
pub const ETH: &str = "eth0";
/// Enough for anything on a slow machine.
pub const LONG: Duration = Duration::from_secs(15);

/// A lab with nodes on one segment; node number n has 10.0.0.n and its link-local address.
pub fn segment(nodes: &[&str]) -> Lab {
    // What the drivers say is shown where a test fails.
    let _ = tracing_subscriber::fmt().with_test_writer().with_ansi(false).try_init();
    let mut lab = Lab::new().unwrap();
    lab.add_segment(LAN, 1500).unwrap();
    for (number, node) in (1u8..).zip(nodes) {
        lab.add_node(node).unwrap();
        lab.attach(node, ETH, LAN, Wire::default()).unwrap();
        lab.address(node, ETH, format!("10.0.0.{number}/24").parse().unwrap()).unwrap();
    }
    lab
}

/// A router of version 3 on [`ETH`], with adverts each 100 ms and one announcement.
pub fn router(name: &str, vrid: u8, priority: u8, addresses: &[&str]) -> VirtualRouter {
    let addresses = addresses.iter().map(|text| VirtualAddress::host(text.parse().unwrap())).collect();
    VirtualRouter {
        version: VrrpVersion::V3,
        priority,
        interval: Duration::from_millis(100),
        announcements: Announcements { repeat: 1, delay: Duration::ZERO, ..Announcements::default() },
        ..VirtualRouter::new(name, ETH, vrid, addresses)
    }
}

/// Routers with the slots 1, 2, ...
pub fn plan(routers: Vec<VirtualRouter>) -> Plan {
    let slots = (1..=routers.len()).map(|number| RouterSlot::new(number).unwrap()).collect();
    let settings = VrrpSettings { realtime: 0, ..VrrpSettings::default() };
    Plan { vrrp: Vrrp { settings, routers, ..Vrrp::default() }, slots }
}

/// A driver in the namespace of a node.
pub struct Appliance {
    pub driver: Driver,
    pub mastery: Arc<Mastery>,
    pub kept: PathBuf,
}

impl Appliance {
    pub fn start(lab: &Lab, node: &str, plan: Plan) -> Appliance {
        Self::start_with(lab, node, plan, Arc::new(Vec::new))
    }

    pub fn start_with(lab: &Lab, node: &str, plan: Plan, beats: Arc<dyn Fn() -> Vec<u64> + Send + Sync>) -> Appliance {
        let (mastery, kept) = (Arc::new(Mastery::default()), lab.path(&format!("{node}.addresses")));
        let wiring = Wiring { mastery: Arc::clone(&mastery), beats, kept: kept.clone() };
        let driver = lab.node(node).unwrap().run(|| Driver::start(plan, wiring)).unwrap().unwrap();
        Appliance { driver, mastery, kept }
    }

    /// Whether it is master of the router in slot `number`.
    pub fn masters(&self, number: usize) -> bool {
        self.mastery.has(RouterSlot::new(number).unwrap())
    }

    pub fn router(&self, name: &str) -> RouterStatus {
        let status = self.driver.status();
        status.routers.iter().find(|router| router.name == name).cloned().unwrap_or_default()
    }

    pub fn state(&self, name: &str) -> String {
        self.router(name).state
    }
}

/// Waits until something holds; returns how long that took.
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// A raw socket on a node's interface, that hears all of the segment.
pub fn listen(lab: &Lab, node: &str) -> Frames {
    Frames::open(lab.node(node).unwrap(), ETH).unwrap()
}

/// Whether a frame is an advert over IPv4 for the group from that address.
pub fn is_advert_of(frame: &[u8], source: [u8; 4]) -> bool {
    frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&112) && frame.get(26..30) == Some(&source)
}

/// What `ip` says in a node.
pub fn ip(lab: &Lab, node: &str, arguments: &str) -> String {
    let mut command = std::process::Command::new(process::require("ip", "iproute2").unwrap());
    command.args(arguments.split(' '));
    lab.output(node, &command).unwrap()
}

/// The Ethernet address of a node's interface.
pub fn mac(lab: &Lab, node: &str) -> MacAddr {
    lab.mac(node, ETH).unwrap()
}
