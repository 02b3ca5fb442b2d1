//! The topology: a generator, a device and a sink, joined by veth.
//!
//! Owns names, addresses and where the kernel's work runs. Made afresh for each measurement, so that nothing of one
//! device is left for the next.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use evenkeel::lab::netlink::{Cidr, Wire};
use evenkeel::lab::topology::Lab;
use evenkeel::model::MacAddr;

/// Core of the generator, the sink, clients and servers.
pub const LOAD_CORE: usize = 0;
/// Core of the device under test.
pub const DEVICE_CORE: usize = 1;

pub const GENERATOR: &str = "gen";
pub const DEVICE: &str = "dut";
pub const SINK: &str = "sink";

/// The service address: reached through the device.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Another address of the sink, reached by the direct cable.
pub const DIRECT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The real server: the sink's own address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 92, 0, 2);
/// UDP port of generated packets, dropped on arrival.
pub const BULK_PORT: u16 = 9999;

/// Where the kernel receives the device's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// As veth does it: the sender's core receives for its peer. A kernel device then works on the generator's core, and
    /// AF_XDP has both cores: the kernel's reception on core 0, its worker on core 1.
    Default,
    /// Threaded NAPI: the device's reception has a kernel thread on the device's core, so everything that a device does
    /// happens on core 1, and an AF_XDP worker shares it with its own reception.
    OneCore,
}

impl Placement {
    pub const ALL: [Placement; 2] = [Placement::Default, Placement::OneCore];

    pub fn name(self) -> &'static str {
        match self {
            Placement::Default => "two cores",
            Placement::OneCore => "one core",
        }
    }
}

/// The network.
pub struct Site {
    pub lab: Lab,
}

impl Site {
    pub fn new() -> anyhow::Result<Site> {
        let mut lab = Lab::new()?;
        for node in [GENERATOR, DEVICE, SINK] {
            lab.add_node(node)?;
        }
        lab.link((GENERATOR, "g0"), (DEVICE, "l0"), Wire::default())?;
        lab.link((DEVICE, "l1"), (SINK, "k0"), Wire::default())?;
        lab.link((GENERATOR, "g1"), (SINK, "k1"), Wire::default())?;
        let cidr = |a, b, c, d, prefix| Cidr::new(Ipv4Addr::new(a, b, c, d), prefix);
        lab.address(GENERATOR, "g0", cidr(10, 91, 0, 1, 16))?;
        lab.address(GENERATOR, "g1", cidr(10, 93, 0, 1, 24))?;
        lab.address(DEVICE, "l0", cidr(10, 91, 255, 254, 16))?;
        lab.address(DEVICE, "l1", cidr(10, 92, 0, 254, 24))?;
        lab.address(SINK, "k0", cidr(10, 92, 0, 2, 24))?;
        lab.address(SINK, "k1", cidr(10, 93, 0, 2, 24))?;
        for address in [VIP, DIRECT] {
            lab.address(SINK, "lo", Cidr::host(address.into()))?;
        }
        let site = Site { lab };
        // Every next hop is known: nobody asks for addresses while packets flow.
        let device = Ipv4Addr::new(10, 91, 255, 254);
        let direct = Ipv4Addr::new(10, 93, 0, 2);
        let back = Ipv4Addr::new(10, 93, 0, 1);
        site.neighbor(GENERATOR, "g0", device, (DEVICE, "l0"))?;
        site.neighbor(GENERATOR, "g1", direct, (SINK, "k1"))?;
        site.neighbor(DEVICE, "l1", SERVER, (SINK, "k0"))?;
        site.neighbor(SINK, "k1", back, (GENERATOR, "g1"))?;
        site.neighbor(SINK, "k0", Ipv4Addr::new(10, 92, 0, 254), (DEVICE, "l1"))?;
        site.lab.route(GENERATOR, Cidr::host(VIP.into()), device.into())?;
        site.lab.route(GENERATOR, Cidr::host(DIRECT.into()), direct.into())?;
        // Direct routing: answers do not cross the device.
        site.lab.route(SINK, cidr(10, 91, 0, 0, 16), back.into())?;
        site.lab.setting(GENERATOR, "net/ipv4/ip_local_port_range", "1024 65535")?;
        site.lab.setting(DEVICE, "net/ipv4/ip_local_port_range", "1024 65535")?;
        site.nft(
            SINK,
            &format!(
                "table netdev sink {{ chain in {{ type filter hook ingress device \"k0\" priority 0; \
                 udp dport {BULK_PORT} drop; }} }}"
            ),
        )?;
        Ok(site)
    }

    fn neighbor(&self, node: &str, interface: &str, address: Ipv4Addr, of: (&str, &str)) -> anyhow::Result<()> {
        let mac = self.mac(of.0, of.1)?;
        Ok(self.lab.rtnl(node, |rtnl| rtnl.set_neighbor(interface, IpAddr::V4(address), mac))?)
    }

    pub fn mac(&self, node: &str, interface: &str) -> anyhow::Result<MacAddr> {
        self.lab.mac(node, interface).with_context(|| format!("no address of {interface} in {node}"))
    }

    /// Loads rules into a node.
    pub fn nft(&self, node: &str, rules: &str) -> anyhow::Result<()> {
        let file = self.lab.path(&format!("{node}.nft"));
        // nft wants an end of line after a closing brace.
        fs::write(&file, rules.replace('}', "}\n"))?;
        self.command(node, &["nft", "-f", &file.display().to_string()])
    }

    /// Runs a command in a node.
    pub fn command(&self, node: &str, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        self.lab.output(node, &command)?;
        Ok(())
    }

    /// Packets that arrived at the sink.
    pub fn arrived(&self) -> anyhow::Result<u64> {
        let text = self.lab.node(SINK)?.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix("k0:")).context("k0 has no counters")?;
        Ok(line.split_whitespace().nth(1).context("short line")?.parse()?)
    }

    /// Gives the reception of the device's `l0` a kernel thread on the device's core; returns its process id.
    pub fn thread_napi(&self) -> anyhow::Result<u32> {
        let before = napi_threads()?;
        let script = "echo 1 > /sys/class/net/l0/threaded";
        self.command(DEVICE, &["sh", "-c", script])?;
        let start = Instant::now();
        loop {
            let fresh: Vec<u32> = napi_threads()?.into_iter().filter(|pid| !before.contains(pid)).collect();
            if let [pid] = fresh[..] {
                pin(pid, DEVICE_CORE)?;
                return Ok(pid);
            }
            if start.elapsed() > Duration::from_secs(2) {
                bail!("{} new NAPI threads instead of one", fresh.len());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Pins a process or thread.
pub fn pin(pid: u32, core: usize) -> anyhow::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(core)?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    nix::sched::sched_setaffinity(pid, &set).with_context(|| format!("pinning {pid}"))
}

/// Kernel threads that receive for an interface called `l0`, whichever namespace it is in.
fn napi_threads() -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("napi/l0-") {
            found.push(pid);
        }
    }
    Ok(found)
}
