//! The words of `evenkeel run`: what start-up got, what only a restart brings.
//!
//! Owns sentences. Changes nothing but a configuration's parts that a running engine cannot take.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

use super::socket::client::DEFAULT_SOCKET;
use crate::dataplane::io::open::IoReport;
use crate::model::{Desired, IoMode, Method, Place, Server, Service};

/// Files that the engine has open at most: checks of thousands of servers, and as many clients of the control socket.
const DESCRIPTORS: u64 = 16_384;

/// Lets this process have as many files open as it may, up to what the engine can use.
pub fn raise_descriptors() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = hard.min(DESCRIPTORS);
    if soft < wanted
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    {
        warn!("at most {soft} files can be open, and no more could be had: {error}");
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// In brackets, the modes that the kernel or the driver refused before one was taken; empty where none was.
pub fn refusals(report: &IoReport) -> String {
    let refused: Vec<String> = report.refused.iter().map(|r| format!("{} refused: {}", r.mode, r.reason)).collect();
    if refused.is_empty() { String::new() } else { format!(" ({})", refused.join("; ")) }
}

/// Says in plain words what the engine got.
pub fn report(report: &IoReport, desired: &Desired) {
    for (port, facts) in report.interfaces.iter().enumerate() {
        let mode = report.modes.get(port).map_or("no mode", |mode| mode.name());
        let driver = if facts.driver.is_empty() { "no driver name" } else { &facts.driver };
        let queues = report.queues.get(port).map_or(0, Vec::len);
        let of = if queues == 0 { "all queues".to_owned() } else { format!("{queues} of {} queues", facts.rx_queues) };
        let why = refusals(report);
        let offloads = [
            ("tx checksum", facts.offloads.tx_checksum),
            ("tso", facts.offloads.tso),
            ("gro", facts.offloads.gro),
            ("lro", facts.offloads.lro),
            ("rx vlan", facts.offloads.rx_vlan),
        ];
        let on: Vec<&str> = offloads.into_iter().filter(|(_, on)| *on == Some(true)).map(|(name, _)| name).collect();
        let on = if on.is_empty() { "none".to_owned() } else { on.join(", ") };
        info!(
            "{}: driver {driver}, {mode} mode{why}, {of}, {}, MTU {}, offloads on: {on}",
            facts.name, facts.mac, facts.mtu
        );
    }
    for worker in &report.workers {
        let sockets: Vec<String> =
            worker.sockets.iter().map(|s| format!("{} queue {}", s.interface, s.queue)).collect();
        let core = desired.engine.cores.get(worker.worker).copied().unwrap_or_default();
        info!(
            "worker {} on core {core}: {}; {} frames of memory in {}",
            worker.worker,
            sockets.join(", "),
            worker.frames,
            worker.pages
        );
    }
    report.warnings.iter().for_each(|warning| warn!("{warning}"));
}

/// How to look at the engine that runs now.
pub fn next_steps(desired: &Desired) -> String {
    let socket = &desired.control_socket;
    let option =
        if socket == Path::new(DEFAULT_SOCKET) { String::new() } else { format!(" --socket {}", socket.display()) };
    let page = if desired.web.is_some() { "" } else { "; a status page and /metrics with `[web]` in the file" };
    format!("`evenkeel status{option}`, `evenkeel top{option}`{page}")
}

/// Whether the kernel forwards packets of a family.
fn forwards(v4: bool) -> bool {
    let setting = if v4 { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
    std::fs::read_to_string(format!("/proc/sys/net/{setting}")).is_ok_and(|value| value.trim() != "0")
}

/// How the setting is called that lets the kernel forward packets of a family.
const fn forwarding(v4: bool) -> &'static str {
    if v4 { "net.ipv4.ip_forward" } else { "net.ipv6.conf.all.forwarding" }
}

/// Families of the servers by NAT: IPv4 is `true`.
fn nat_families(desired: &Desired) -> impl Iterator<Item = bool> {
    let servers = || desired.services.iter().flat_map(Service::all_servers);
    let has = move |v4| servers().any(|s| s.method == Method::Nat && s.address.is_ipv4() == v4);
    [true, false].into_iter().filter(move |v4| has(*v4))
}

/// Says what is no fault, but surprises.
pub fn notes(desired: &Desired, kernel: &HashSet<IpAddr>) {
    for v4 in nat_families(desired).filter(|v4| !forwards(*v4)) {
        info!(
            "{} is 0: of what servers by NAT send through the appliance, only their answers to clients go on; to be their \
             router for the rest, too: `sysctl -w {}=1`",
            forwarding(v4),
            forwarding(v4)
        );
    }
    let shared: BTreeSet<&IpAddr> = shared_locals(desired, kernel).collect();
    for address in shared {
        info!(
            "the kernel has the local address {address}: answers to ports {} of it are taken from the kernel's own \
             connections, so keep `net.ipv4.ip_local_port_range` and `engine.local_ports` apart, or take a free address",
            desired.engine.local_ports
        );
    }
}

/// Local addresses of full NAT that the kernel has.
fn shared_locals<'a>(desired: &'a Desired, kernel: &'a HashSet<IpAddr>) -> impl Iterator<Item = &'a IpAddr> {
    let locals = desired.services.iter().flat_map(|service| &service.local_addresses);
    locals.filter(|address| kernel.contains(*address))
}

/// Why the kernel would act on packets that are the engine's. Only in AF_PACKET mode does it see them.
pub fn kernel_in_the_way(desired: &Desired, modes: &[IoMode], kernel: &HashSet<IpAddr>) -> Option<String> {
    if !modes.contains(&IoMode::AfPacket) {
        return None;
    }
    if let Some(v4) = nat_families(desired).find(|v4| forwards(*v4)) {
        return Some(format!(
            "in AF_PACKET mode the kernel would forward the servers' answers untranslated: `sysctl -w {}=0`, a mode with \
             XDP, or another method than `nat`",
            forwarding(v4)
        ));
    }
    shared_locals(desired, kernel).next().map(|address| {
        format!(
            "in AF_PACKET mode the kernel would refuse the servers' answers to the local address {address}, which it has: \
             take it off (`ip address del`), the engine answers for it"
        )
    })
}

/// What a server that is this machine needs.
pub fn local_server(service: &Service, server: &Server) -> String {
    let address = service.key.address;
    format!(
        "server {} of {} is this machine: its packets are left to the kernel, which must have the service address: \
         `ip address add {address}/{} dev lo`",
        server.address,
        service.name,
        if address.is_ipv4() { 32 } else { 128 },
    )
}

/// Addresses of virtual routers in the engine that the kernel has, too: it answers ARP for them whoever is master.
pub fn kernel_has(desired: &Desired, kernel: &HashSet<IpAddr>) -> Vec<String> {
    let in_engine = desired.vrrp.routers.iter().filter(|router| router.place == Place::Engine);
    let all = in_engine.flat_map(|router| router.all_addresses().map(move |known| (router, known.address)));
    all.filter(|(_, address)| kernel.contains(address))
        .map(|(router, address)| {
            format!(
                "the kernel has the address {address} of {}, and answers for it whoever is master: take it off (`ip address del`), \
                 or write `place = \"kernel\"`",
                router.name
            )
        })
        .collect()
}

/// Puts the running engine's settings in the place of those that it cannot take, and says which these are.
pub fn needs_restart(running: &Desired, new: &mut Desired) -> Vec<String> {
    let mut all = Vec::new();
    let mut keep = |what: &str, differs: bool| {
        if differs {
            all.push(format!("{what} changed in the file: restart the engine to have it so; the rest is in force"));
        }
    };
    keep("[engine]", running.engine != new.engine);
    keep("[[interface]]", running.interfaces != new.interfaces);
    let paths = |desired: &Desired| (desired.control_socket.clone(), desired.state_file.clone());
    keep("[control]", paths(running) != paths(new));
    new.engine.clone_from(&running.engine);
    new.interfaces.clone_from(&running.interfaces);
    (new.control_socket, new.state_file) = paths(running);
    all
}
