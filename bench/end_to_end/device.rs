//! The devices under test, each on the device's node.
//!
//! Owns how each is set up so that packets for the service address reach the sink with its MAC address, and what
//! processor time it took.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use evenkeel::lab::engine::{Engine, EngineConfig};
use evenkeel::lab::process::Process;
use evenkeel::model::Protocol;

use crate::Programs;
use crate::site::{BULK_PORT, DEVICE, DEVICE_CORE, LOAD_CORE, Placement, SERVER, Site, VIP};

/// UDP port of pings.
pub const PING_PORT: u16 = 7777;
/// TCP port of the web server.
pub const WEB_PORT: u16 = 80;

/// What forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EvenkeelBusy,
    EvenkeelAdaptive,
    Forwarder,
    /// The bare forwarder that sleeps when idle, as an adaptive worker does.
    ForwarderAdaptive,
    IpForward,
    NftFwd,
    NftDnat,
    Haproxy,
    /// No device: the direct cable.
    Direct,
}

impl Kind {
    /// Devices of the packet rates.
    pub const RATED: [Kind; 7] = [
        Kind::EvenkeelBusy,
        Kind::EvenkeelAdaptive,
        Kind::Forwarder,
        Kind::ForwarderAdaptive,
        Kind::IpForward,
        Kind::NftFwd,
        Kind::NftDnat,
    ];
    /// Devices of the latency.
    pub const TIMED: [Kind; 5] =
        [Kind::EvenkeelBusy, Kind::EvenkeelAdaptive, Kind::Forwarder, Kind::IpForward, Kind::NftFwd];
    /// Devices of connections.
    pub const CONNECTED: [Kind; 4] = [Kind::Direct, Kind::EvenkeelBusy, Kind::EvenkeelAdaptive, Kind::Haproxy];

    pub fn name(self) -> &'static str {
        match self {
            Kind::EvenkeelBusy => "evenkeel-busy",
            Kind::EvenkeelAdaptive => "evenkeel-adaptive",
            Kind::Forwarder => "bare-forwarder",
            Kind::ForwarderAdaptive => "bare-forwarder-adaptive",
            Kind::IpForward => "ip_forward",
            Kind::NftFwd => "nft-fwd",
            Kind::NftDnat => "nft-dnat",
            Kind::Haproxy => "haproxy",
            Kind::Direct => "direct",
        }
    }
}

/// A device that runs; it ends with the site.
pub struct Device {
    /// Processes and kernel threads whose time is the device's.
    pids: Vec<u32>,
    _engine: Option<Engine>,
    _process: Option<Process>,
}

impl Device {
    pub fn start(site: &Site, programs: &Programs, kind: Kind, placement: Placement) -> anyhow::Result<Device> {
        let mut device = Device { pids: Vec::new(), _engine: None, _process: None };
        match kind {
            Kind::EvenkeelBusy | Kind::EvenkeelAdaptive => {
                let engine = evenkeel(site, programs, kind)?;
                device.pids.push(engine.process().pid());
                device._engine = Some(engine);
            }
            Kind::Forwarder | Kind::ForwarderAdaptive => {
                let mut command = Command::new(&programs.forwarder);
                command.args(["--in", "l0", "--out", "l1", "--dst", &VIP.to_string()]);
                command.args(["--dst-mac", &site.mac(crate::site::SINK, "k0")?.to_string()]);
                command.args(["--core", &DEVICE_CORE.to_string()]);
                if kind == Kind::ForwarderAdaptive {
                    command.arg("--sleep");
                }
                let process = site.lab.start(DEVICE, "forwarder", &command)?;
                wait_for(&process, "forwarder: ")?;
                device.pids.push(process.pid());
                device._process = Some(process);
            }
            Kind::IpForward | Kind::NftFwd | Kind::NftDnat => kernel(site, kind)?,
            Kind::Haproxy => {
                let process = haproxy(site)?;
                device.pids.push(process.pid());
                device._process = Some(process);
            }
            Kind::Direct => {}
        }
        if placement == Placement::OneCore {
            device.pids.push(site.thread_napi()?);
        }
        Ok(device)
    }

    /// User and system time so far, in nanoseconds, as the scheduler and the clock's ticks tell; `None` where the device
    /// has no process.
    pub fn cpu_ns(&self) -> Option<[f64; 2]> {
        if self.pids.is_empty() {
            return None;
        }
        let mut sum = [0.0, 0.0];
        for &pid in &self.pids {
            let [user, system] = ticks(pid)?;
            // The scheduler's total is exact; the ticks only split it.
            let total = runtime(pid)?;
            let share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
            sum[0] += total * share;
            sum[1] += total * (1.0 - share);
        }
        Some(sum)
    }
}

fn evenkeel(site: &Site, programs: &Programs, kind: Kind) -> anyhow::Result<Engine> {
    let mut config = EngineConfig::new();
    config
        .set("engine", "cores", vec![DEVICE_CORE as i64])
        .set("engine", "polling", if kind == Kind::EvenkeelAdaptive { "adaptive" } else { "busy" })
        .interface("l0")
        .interface("l1");
    // Four servers with the sink's Ethernet address.
    let mac = site.mac(crate::site::SINK, "k0")?;
    let servers: Vec<_> = (0..4u8).map(|n| (std::net::Ipv4Addr::new(10, 92, 0, 2 + n).into(), 1)).collect();
    for &(server, _) in &servers {
        config.neighbor(server, mac, "l1", None);
    }
    for (name, protocol, port) in
        [("bulk", Protocol::Udp, BULK_PORT), ("ping", Protocol::Udp, PING_PORT), ("web", Protocol::Tcp, WEB_PORT)]
    {
        config.service(name, VIP.into(), protocol, &port.to_string(), "wlc", &servers);
    }
    let engine = Engine::start(&site.lab, DEVICE, &programs.evenkeel, &config)?;
    engine.await_ready(Duration::from_secs(10))?;
    Ok(engine)
}

fn kernel(site: &Site, kind: Kind) -> anyhow::Result<()> {
    // The generator hands over XDP frames, which a veth without a program takes when it has GRO.
    site.command(DEVICE, &["ethtool", "-K", "l0", "gro", "on"])?;
    let own = site.mac(DEVICE, "l1")?;
    let next = site.mac(crate::site::SINK, "k0")?;
    match kind {
        Kind::NftFwd => site.nft(
            DEVICE,
            &format!(
                "table netdev lb {{ chain in {{ type filter hook ingress device \"l0\" priority 0; \
                 ip daddr {VIP} ether daddr set {next} ether saddr set {own} fwd to \"l1\"; }} }}"
            ),
        )?,
        _ => {
            site.lab.setting(DEVICE, "net/ipv4/ip_forward", "1")?;
            site.lab.route(DEVICE, evenkeel::lab::netlink::Cidr::host(VIP.into()), SERVER.into())?;
        }
    }
    if kind == Kind::NftDnat {
        site.nft(
            DEVICE,
            &format!(
                "table ip lb {{ chain pre {{ type nat hook prerouting priority -100; ip daddr {VIP} dnat to {SERVER}; \
                 }} }}"
            ),
        )?;
    }
    Ok(())
}

fn haproxy(site: &Site) -> anyhow::Result<Process> {
    site.lab.address(DEVICE, "lo", evenkeel::lab::netlink::Cidr::host(VIP.into()))?;
    let file = site.lab.path("haproxy.cfg");
    fs::write(
        &file,
        format!(
            "global\n  maxconn 4000\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  \
             timeout server 30s\nlisten web\n  bind {VIP}:{WEB_PORT} backlog 4096\n  server s1 {SERVER}:{WEB_PORT}\n"
        ),
    )?;
    let mut command = Command::new("taskset");
    command.args(["-c", &DEVICE_CORE.to_string(), "haproxy", "-db", "-f"]).arg(&file);
    let process = site.lab.start(DEVICE, "haproxy", &command)?;
    std::thread::sleep(Duration::from_millis(300));
    if let Some(status) = process.ended() {
        bail!("haproxy ended ({status}): {}", process.last_words(5));
    }
    Ok(process)
}

fn wait_for(process: &Process, words: &str) -> anyhow::Result<()> {
    for _ in 0..500 {
        if let Some(status) = process.ended() {
            bail!("{} ended ({status}): {}", process.name(), process.last_words(5));
        }
        if process.output().contains(words) {
            std::thread::sleep(Duration::from_millis(50));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("{} did not start: {}", process.name(), process.last_words(5))
}

fn ticks(pid: u32) -> Option<[f64; 2]> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some([fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?])
}

fn runtime(pid: u32) -> Option<f64> {
    let mut sum = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        sum += text.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    Some(sum)
}

/// A command pinned to the load's core.
pub fn on_load_core(program: &std::path::Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(LOAD_CORE.to_string()).arg(program);
    command
}

/// The first number of a JSON report's key.
pub fn number(text: &str, key: &str) -> anyhow::Result<f64> {
    let json: serde_json::Value = serde_json::from_str(text.trim()).with_context(|| format!("not JSON: {text}"))?;
    json[key].as_f64().with_context(|| format!("no {key} in {text}"))
}
