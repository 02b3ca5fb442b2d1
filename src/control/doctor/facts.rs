//! What doctor knows of a machine: plain values, so that tests can make up any machine.
//!
//! Owns the nouns. `None` means that it could not be seen. Never looks and never judges. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::dataplane::io::facts::Offloads;
use crate::model::Desired;

/// A mistake of the configuration, as `evenkeel check` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Whether the file is refused for it.
    pub error: bool,
    /// The whole message.
    pub text: String,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The configuration file, where one was given.
    pub file: Option<String>,
    /// What it says, when it is sound.
    pub desired: Option<Desired>,
    /// What is wrong with it.
    pub mistakes: Vec<Mistake>,
    /// What `check` has to say besides.
    pub notes: Vec<String>,
    /// Whether an engine answers on the configuration's control socket.
    pub engine_runs: bool,
    /// The kernel.
    pub kernel: Kernel,
    /// The engine's interfaces, or those that were named.
    pub interfaces: Vec<Interface>,
    /// Names that were given, of which the kernel knows nothing.
    pub missing_interfaces: Vec<String>,
    /// Names of all interfaces.
    pub all_interfaces: Vec<String>,
    /// Memory.
    pub memory: Memory,
    /// Cores.
    pub cores: Cores,
    /// Network settings.
    pub network: Network,
    /// Addresses of this machine: interface, address, bits of the prefix.
    pub addresses: Vec<(String, IpAddr, u8)>,
    /// Clocks.
    pub clock: Clock,
    /// Ways to servers.
    pub ways: Vec<Way>,
    /// Ways to single VRRP peers.
    pub peers: Vec<Way>,
    /// Adverts that were heard; `None`: nobody listened.
    pub heard: Option<Vec<Heard>>,
    /// What a trial of the engine's I/O got for each interface, or why it got nothing; `None`: not tried.
    pub trial: Option<Result<Vec<String>, String>>,
}

/// The kernel.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// Its release, such as `6.1.0-18-amd64`.
    pub release: String,
    /// Whether a socket of AF_XDP can be had; the error's number where not.
    pub af_xdp: Option<Result<(), i32>>,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<u32>,
    /// Bytes that may be locked; `None`: no limit.
    pub memlock: Option<u64>,
    /// Capabilities that the engine uses and this process lacks.
    pub lacks: Vec<&'static str>,
}

/// An interface.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether its frames are Ethernet's.
    pub ethernet: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Switched on.
    pub up: bool,
    /// Has a carrier.
    pub running: bool,
    /// Takes groups' frames.
    pub multicast: bool,
    /// Takes frames for everybody.
    pub promiscuous: bool,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Offloads.
    pub offloads: Offloads,
    /// How another XDP program is attached, as `ip link set` calls it: `xdp`, `xdpgeneric`, `xdpoffload`.
    pub xdp: Option<&'static str>,
    /// The bridge or bond that it is a port of.
    pub master: Option<String>,
    /// VLANs above it.
    pub vlans: Vec<u16>,
    /// A veth whose peer is here: the peer's name, and whether that leaves transmit checksums to others.
    pub veth_peer: Option<(String, bool)>,
    /// Mbit/s, where the driver knows.
    pub speed: Option<u32>,
    /// NUMA node of the card.
    pub node: Option<i32>,
    /// Its interrupts and the cores that they go to.
    pub interrupts: Vec<(u32, BTreeSet<usize>)>,
    /// `rp_filter` in effect (the larger of its own and `all`'s).
    pub rp_filter: Option<u8>,
    /// `send_redirects` in effect (its own or `all`'s).
    pub send_redirects: Option<bool>,
}

/// Memory, in bytes unless a field says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// What can be had without swapping.
    pub available: Option<u64>,
    /// Huge pages that are reserved and free.
    pub huge_free: Option<u64>,
    /// Huge pages that are reserved.
    pub huge_total: Option<u64>,
    /// Bytes of one.
    pub huge_size: u64,
}

/// Cores.
#[derive(Clone, Debug, Default)]
pub struct Cores {
    /// Online.
    pub online: BTreeSet<usize>,
    /// Those that this process may run on.
    pub allowed: BTreeSet<usize>,
    /// `isolcpus`.
    pub isolated: BTreeSet<usize>,
    /// `nohz_full`; `None` where the kernel was built without it.
    pub tickless: Option<BTreeSet<usize>>,
    /// Governor of each, where there is frequency scaling.
    pub governors: BTreeMap<usize, String>,
    /// Threads of the same physical core, itself included.
    pub siblings: BTreeMap<usize, BTreeSet<usize>>,
    /// NUMA node of each.
    pub nodes: BTreeMap<usize, i32>,
    /// Per cent of a short time that each was busy.
    pub busy: BTreeMap<usize, u8>,
}

/// Network settings and what runs beside the engine.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// `net.ipv4.ip_forward`.
    pub forward_v4: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`.
    pub forward_v6: Option<bool>,
    /// `net.ipv4.ip_local_port_range`.
    pub ports: Option<(u16, u16)>,
    /// Services of the kernel's IPVS; `None`: the module is not loaded.
    pub ipvs: Option<usize>,
    /// Process ids of keepalived in this network namespace.
    pub keepalived: Vec<u32>,
    /// Chains of nftables whose policy for incoming packets is to drop them; `None`: not seen.
    pub dropping_chains: Option<Vec<String>>,
    /// Entries and most entries of the kernel's table of connections.
    pub conntrack: Option<(u64, u64)>,
}

/// Clocks.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// `current_clocksource`.
    pub source: Option<String>,
    /// Whether the kernel's clock follows others'.
    pub synchronised: Option<bool>,
}

/// The way to a server or a peer.
#[derive(Clone, Debug)]
pub struct Way {
    /// Whom.
    pub to: IpAddr,
    /// What has it, in words: the services, or the virtual router.
    pub of: String,
    /// Whether it can be reached: the neighbour's name in words, or one word and a sentence why not.
    pub reach: Result<String, (&'static str, String)>,
    /// Whether it is reached through a tunnel, and how many bytes the outer headers take.
    pub tunnel: Option<u32>,
    /// The interface that its packets leave by, and the most bytes of a packet there.
    pub leaves: Option<(String, u32)>,
    /// Bytes of a packet that was asked to come back, and whether one did; `None`: not even a small one did.
    pub full_size: Option<(u32, bool)>,
}

/// A speaker of VRRP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heard {
    /// The interface.
    pub interface: String,
    /// Version 2 or 3.
    pub version: u8,
    /// Number of the virtual router.
    pub vrid: u8,
    /// The sender.
    pub source: IpAddr,
    /// Its priority.
    pub priority: u8,
    /// Milliseconds between its adverts.
    pub interval_ms: u64,
    /// The addresses that it has.
    pub addresses: Vec<IpAddr>,
}

impl Facts {
    /// The interface of that name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }
}
