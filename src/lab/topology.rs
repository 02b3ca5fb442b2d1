//! Building a network: nodes, segments that join them, addresses, routes and kernel settings.
//!
//! Owns a [`Lab`]: everything that is built through it goes when it is dropped. Never decides what a network is for: see
//! [`super::site`].

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::error::{Doing, LabError};
use super::holdings::Holdings;
use super::netlink::{Cidr, Rtnl, Wire};
use super::netns::Namespace;
use super::process::{self, Process};
use crate::model::MacAddr;

/// The bridge inside a segment's namespace.
const BRIDGE: &str = "bridge";

/// Settings that every node starts with: addresses usable at once, no router advertisements, no reverse path filter, ping
/// for everybody.
const NODE_SETTINGS: [(&str, &str); 9] = [
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
];

/// A network of namespaces, with the processes and threads that live in it.
pub struct Lab {
    nodes: BTreeMap<String, Namespace>,
    holdings: Arc<Holdings>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    macs: BTreeMap<(String, String), MacAddr>,
}

impl Lab {
    /// An empty lab.
    pub fn new() -> Result<Self, LabError> {
        Ok(Lab {
            nodes: BTreeMap::new(),
            holdings: Holdings::open()?,
            threads: Vec::new(),
            stop: Arc::default(),
            macs: BTreeMap::new(),
        })
    }

    /// The lab's id: part of the names of its namespaces.
    pub fn id(&self) -> &str {
        self.holdings.id()
    }

    /// A directory that goes with the lab.
    pub fn directory(&self) -> &Path {
        self.holdings.directory()
    }

    /// Adds a host.
    pub fn add_node(&mut self, name: &str) -> Result<(), LabError> {
        let namespace = Namespace::create(&self.holdings.namespace(name))?;
        namespace.run(|| {
            for (key, value) in NODE_SETTINGS {
                write_setting(key, value)?;
            }
            Rtnl::open()?.set_up("lo", true)
        })??;
        self.nodes.insert(name.to_owned(), namespace);
        Ok(())
    }

    /// Adds an Ethernet segment: a switch to which nodes are attached.
    pub fn add_segment(&mut self, name: &str, mtu: u32) -> Result<(), LabError> {
        let namespace = Namespace::create(&self.holdings.namespace(name))?;
        namespace.run(|| {
            // A switch has no addresses: it must not take part in what it carries.
            write_setting("net/ipv6/conf/default/disable_ipv6", "1")?;
            write_setting("net/ipv6/conf/all/disable_ipv6", "1")?;
            let mut rtnl = Rtnl::open()?;
            rtnl.add_bridge(BRIDGE, mtu)?;
            rtnl.set_up(BRIDGE, true)
        })??;
        self.nodes.insert(name.to_owned(), namespace);
        Ok(())
    }

    /// Joins `node` to a segment with the new interface `interface`.
    pub fn attach(&mut self, node: &str, interface: &str, segment: &str, wire: Wire) -> Result<(), LabError> {
        let port = &port(node, interface);
        self.link((node, interface), (segment, port), wire)?;
        self.node(segment)?.run(|| Rtnl::open()?.enslave(port, BRIDGE))?
    }

    /// Joins two nodes by a cable.
    pub fn link(&mut self, a: (&str, &str), b: (&str, &str), wire: Wire) -> Result<(), LabError> {
        let (mac_a, mac_b) = (self.fresh_mac(a), self.fresh_mac(b));
        let (near, far) = (self.node(a.0)?, self.node(b.0)?);
        near.run(|| Rtnl::open()?.add_veth((a.1, mac_a), (b.1, mac_b), far.fd(), wire))??;
        for (namespace, interface) in [(near, a.1), (far, b.1)] {
            honest_frames(namespace, interface)?;
            namespace.run(|| Rtnl::open()?.set_up(interface, true))??;
        }
        Ok(())
    }

    /// Adds the tagged sub-interface `PARENT.ID` and returns its name.
    pub fn add_vlan(&mut self, node: &str, parent: &str, id: u16) -> Result<String, LabError> {
        let name = format!("{parent}.{id}");
        self.node(node)?.run(|| {
            let mut rtnl = Rtnl::open()?;
            rtnl.add_vlan(&name, parent, id)?;
            rtnl.set_up(&name, true)
        })??;
        Ok(name)
    }

    /// Adds an address to an interface.
    pub fn address(&self, node: &str, interface: &str, cidr: Cidr) -> Result<(), LabError> {
        self.rtnl(node, |rtnl| rtnl.add_address(interface, cidr))
    }

    /// Adds a route through a gateway.
    pub fn route(&self, node: &str, to: Cidr, gateway: IpAddr) -> Result<(), LabError> {
        self.rtnl(node, |rtnl| rtnl.add_route(to, Some(gateway), None))
    }

    /// Writes a kernel setting of a node: `key` as below `/proc/sys`.
    pub fn setting(&self, node: &str, key: &str, value: &str) -> Result<(), LabError> {
        self.node(node)?.run(|| write_setting(key, value))?
    }

    /// Runs netlink requests inside a node.
    pub fn rtnl(
        &self,
        node: &str,
        requests: impl FnOnce(&mut Rtnl) -> Result<(), LabError> + Send,
    ) -> Result<(), LabError> {
        self.node(node)?.run(|| requests(&mut Rtnl::open()?))?
    }

    /// Where the output of a process or a file of a node belongs.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory().join(file)
    }

    /// Starts a process inside a node; the lab ends it. Its output goes to `NAME.log` in the lab's directory.
    pub fn start(&self, node: &str, name: &str, command: &Command) -> Result<Process, LabError> {
        let process = Process::start(self.node(node)?, name, command, &self.path(&format!("{name}.log")))?;
        self.holdings.adopt(&process);
        Ok(process)
    }

    /// Starts a thread inside a node. It is given a flag that says when to stop, and must look at it often.
    pub fn thread(
        &mut self,
        node: &str,
        name: &str,
        work: impl FnOnce(Arc<AtomicBool>) + Send + 'static,
    ) -> Result<(), LabError> {
        let stop = Arc::clone(&self.stop);
        let handle = self.node(node)?.thread(name, move || work(stop))?;
        self.threads.push(handle);
        Ok(())
    }

    /// Runs a command inside a node to its end and returns what it printed; an error if it fails.
    pub fn output(&self, node: &str, command: &Command) -> Result<String, LabError> {
        process::output(self.node(node)?, command)
    }

    /// The namespace of a node or segment.
    pub fn node(&self, name: &str) -> Result<&Namespace, LabError> {
        self.nodes.get(name).ok_or_else(|| LabError::Unknown {
            kind: "node",
            name: name.to_owned(),
            known: self.nodes.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// The names of all nodes and segments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// The Ethernet address that the lab gave to an interface.
    pub fn mac(&self, node: &str, interface: &str) -> Option<MacAddr> {
        self.macs.get(&(node.to_owned(), interface.to_owned())).copied()
    }

    fn fresh_mac(&mut self, (node, interface): (&str, &str)) -> MacAddr {
        let number = self.macs.len() as u16 + 1;
        let [high, low] = number.to_be_bytes();
        let mac = MacAddr([0x02, 0x00, 0x5e, 0x00, high, low]);
        self.macs.insert((node.to_owned(), interface.to_owned()), mac);
        mac
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.holdings.end_processes();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.nodes.clear();
        self.holdings.close();
    }
}

/// The segment's end of the cable of a node's interface: its name has at most the 15 bytes that one may have.
pub fn port(node: &str, interface: &str) -> String {
    let name = format!("{node}-{interface}");
    name[..name.len().min(15)].to_owned()
}

/// Virtual Ethernet hands over frames with unfinished checksums, tags beside the frame and oversized segments, as no cable
/// would; a program that forwards raw frames would then send broken ones. This makes frames whole.
fn honest_frames(namespace: &Namespace, interface: &str) -> Result<(), LabError> {
    let ethtool = process::require("ethtool", "ethtool")?;
    let mut command = Command::new(ethtool);
    command.args(["-K", interface]);
    command.args(["tx", "off", "tso", "off", "gso", "off", "rxvlan", "off", "txvlan", "off"]);
    process::output(namespace, &command).map(|_| ())
}

fn write_setting(key: &str, value: &str) -> Result<(), LabError> {
    fs::write(Path::new("/proc/sys").join(key), value).doing(|| format!("setting {key} to {value}"))
}
