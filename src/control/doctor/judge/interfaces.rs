//! The engine's interfaces: driver, link, queues, interrupts, offloads, sizes.
//!
//! Owns what is known of drivers. Never looks at the machine. Pure.

use super::super::facts::{Facts, Interface};
use super::super::finding::{Finding, Group, Level};
use crate::dataplane::io::xsk::HEADROOM;
use crate::model::IoMode;

/// Drivers that put frames straight into AF_XDP's memory, in kernels of late.
const ZERO_COPY: [&str; 9] = ["i40e", "ice", "ixgbe", "igb", "igc", "mlx5_core", "nfp", "st_gmac", "gve"];
/// Drivers that run XDP themselves, with a copy for AF_XDP.
const NATIVE: [&str; 22] = [
    "veth",
    "virtio_net",
    "tun",
    "ena",
    "bnxt_en",
    "mlx4_en",
    "thunder-nicvf",
    "nicvf",
    "qede",
    "sfc",
    "hv_netvsc",
    "mvneta",
    "mvpp2",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "fec",
    "vif",
    "ionic",
    "mana",
    "vmxnet3",
    "octeontx2-nicpf",
    "bonding",
];

/// What the engine will probably get of an interface.
fn best_mode(driver: &str) -> IoMode {
    if ZERO_COPY.contains(&driver) {
        IoMode::ZeroCopy
    } else if NATIVE.contains(&driver) {
        IoMode::Copy
    } else {
        IoMode::Generic
    }
}

/// All of them.
pub fn interfaces(facts: &Facts) -> Vec<Finding> {
    let group = Group::Interfaces;
    let mut all = Vec::new();
    for name in &facts.missing_interfaces {
        let found = format!("there is no such interface; there are {}", facts.all_interfaces.join(", "));
        let finding = Finding::new(Level::Problem, "no-interface", group, name, found, "the engine cannot start");
        all.push(finding.mend("ip -brief link"));
    }
    facts.interfaces.iter().for_each(|interface| all.extend(one(facts, interface)));
    let widest = facts.interfaces.iter().max_by_key(|interface| interface.mtu);
    let narrow = |interface: &&Interface| widest.is_some_and(|widest| interface.mtu < widest.mtu);
    for interface in facts.interfaces.iter().filter(narrow) {
        let widest = widest.map_or((String::new(), 0), |widest| (widest.name.clone(), widest.mtu));
        let found = format!("its MTU is {}, that of {} is {}", interface.mtu, widest.0, widest.1);
        let why = "larger packets that come by the one do not fit the other: their senders are told by ICMP, and must heed it";
        let finding = Finding::new(Level::Warning, "mtu-differs", group, &interface.name, found, why);
        all.push(finding.mend(format!("ip link set {} mtu {}", interface.name, widest.1)));
    }
    match &facts.trial {
        Some(Ok(modes)) => all.extend(modes.iter().map(|mode| Finding::fine("trial", group, "trial", mode))),
        Some(Err(why)) => {
            let finding =
                Finding::new(Level::Problem, "trial", group, "trial", why, "the engine would not start either");
            all.push(finding);
        }
        None => {}
    }
    all
}

fn one(facts: &Facts, interface: &Interface) -> Vec<Finding> {
    let (name, group) = (&interface.name, Group::Interfaces);
    let mut all = Vec::new();
    if !interface.ethernet {
        let why = "the engine reads and writes Ethernet frames";
        return vec![Finding::new(Level::Problem, "not-ethernet", group, name, "is not an Ethernet interface", why)];
    }
    all.push(link(interface));
    all.push(driver(facts, interface));
    if let Some(how) = interface.xdp.filter(|_| !facts.engine_runs) {
        let why = "an interface has room for one: the engine refuses to start";
        let finding = Finding::new(Level::Problem, "xdp-occupied", group, name, "another XDP program is on it", why);
        let command = format!(
            "ip link set dev {name} {how} off    # refused where a program holds it: stop that (`bpftool net`)"
        );
        all.push(finding.mend(command));
    }
    if let Some(master) = &interface.master {
        let found = format!("is a port of {master}");
        let why = "the engine takes frames before the bridge or bond sees them; give it an interface of its own, or the bond itself";
        let finding = Finding::new(Level::Warning, "port-of", group, name, found, why);
        all.push(finding.mend(format!("ip link set {name} nomaster")));
    }
    if interface.promiscuous {
        let why = "frames for others arrive, too, and cost time; a capture or a bridge asked for it";
        all.push(Finding::new(Level::Note, "promiscuous", group, name, "takes frames for everybody", why));
    }
    all.extend(queues(facts, interface));
    all.extend(interrupts(facts, interface));
    all.extend(offloads(facts, interface));
    all.extend(size(facts, interface));
    all
}

fn link(interface: &Interface) -> Finding {
    let (name, group) = (&interface.name, Group::Interfaces);
    if !interface.up {
        let finding =
            Finding::new(Level::Problem, "link-down", group, name, "is switched off", "no frame comes or goes");
        return finding.mend(format!("ip link set {name} up"));
    }
    if !interface.running {
        let why = "no frame comes or goes: the cable, the other end, or the switch's port";
        let finding = Finding::new(Level::Problem, "no-carrier", group, name, "has no carrier", why);
        return finding.mend(format!("ethtool {name}"));
    }
    let speed = interface.speed.map(|speed| format!(", {speed} Mbit/s")).unwrap_or_default();
    Finding::fine("link", group, name, format!("is up, MTU {}{speed}", interface.mtu))
}

fn driver(facts: &Facts, interface: &Interface) -> Finding {
    let (name, group) = (&interface.name, Group::Interfaces);
    let best = best_mode(&interface.driver);
    let modes = facts.desired.as_ref().map_or(&IoMode::ALL[..], |desired| &desired.engine.modes);
    let called = if interface.driver.is_empty() { "no name" } else { &interface.driver };
    let found = format!("its driver is {called}: {best} mode is to be expected");
    if !modes.iter().any(|mode| *mode >= best) {
        let wanted = modes.iter().map(|mode| mode.name()).collect::<Vec<_>>().join(", ");
        let why = format!("the configuration permits {wanted} only; `evenkeel doctor --probe` tries it");
        let finding = Finding::new(Level::Warning, "driver", group, name, found, why);
        return finding.mend(format!("write `mode = \"auto\"` or add \"{best}\" to `mode` below [engine]"));
    }
    match best {
        IoMode::ZeroCopy => Finding::fine("driver", group, name, found),
        IoMode::Copy => {
            let why = "each frame is copied once; cards with zero-copy carry several times more";
            Finding::new(Level::Note, "driver", group, name, found, why)
        }
        _ => {
            let why = "XDP runs late, in the kernel's receive path: slower than the kernel's own IPVS may be";
            Finding::new(Level::Warning, "driver", group, name, found, why)
        }
    }
}

fn queues(facts: &Facts, interface: &Interface) -> Vec<Finding> {
    let (name, group, has) = (&interface.name, Group::Interfaces, interface.rx_queues);
    let Some(desired) = &facts.desired else { return Vec::new() };
    let workers = desired.engine.cores.len() as u32;
    let named = desired.interfaces.iter().find(|one| one.name == *name).and_then(|one| one.queues.clone());
    let command = format!("ethtool -L {name} combined {workers}");
    if let Some(queue) = named.iter().flatten().find(|queue| **queue >= has) {
        let found = format!("has no receive queue {queue}; it has {has}, from 0");
        let finding = Finding::new(Level::Problem, "queues", group, name, found, "the engine refuses to start");
        return vec![finding.mend(format!("ethtool -L {name} combined {}", queue + 1))];
    }
    let used = named.as_ref().map_or(has, |queues| queues.len() as u32);
    if used < workers {
        let found = format!("{used} receive queues for {workers} workers");
        let finding = Finding::new(Level::Problem, "queues", group, name, found, "each worker needs one of its own");
        return vec![finding.mend(command)];
    }
    if used < has {
        let found = format!("{used} of {has} receive queues are used");
        let why = "packets for services that come by the others go to the kernel, which drops them";
        let finding = Finding::new(Level::Warning, "queues", group, name, found, why);
        return vec![finding.mend(format!("ethtool -L {name} combined {used}"))];
    }
    if used % workers.max(1) != 0 {
        let found = format!("{used} receive queues for {workers} workers");
        let why = "some workers have more than others";
        return vec![Finding::new(Level::Note, "queues", group, name, found, why).mend(command)];
    }
    vec![Finding::fine("queues", group, name, format!("{used} receive queues for {workers} workers"))]
}

fn interrupts(facts: &Facts, interface: &Interface) -> Vec<Finding> {
    let Some(desired) = &facts.desired else { return Vec::new() };
    let cores = &desired.engine.cores;
    let on = |(number, at): &(u32, std::collections::BTreeSet<usize>)| {
        let core = at.iter().find(|core| cores.contains(core)).filter(|_| at.len() == 1)?;
        Some((*number, *core))
    };
    let both: Vec<(u32, usize)> = interface.interrupts.iter().filter_map(on).collect();
    let Some((number, core)) = both.first().filter(|_| !desired.engine.busy_poll) else { return Vec::new() };
    let free = facts.cores.online.iter().find(|core| !cores.contains(core));
    let found = format!("{} of its interrupts go to cores of workers (interrupt {number} to core {core})", both.len());
    let why = "without busy polling the kernel's half of the work runs there, in the worker's time";
    let finding = Finding::new(Level::Note, "interrupts", Group::Interfaces, &interface.name, found, why);
    vec![match free {
        Some(free) => finding.mend(format!("echo {free} > /proc/irq/{number}/smp_affinity_list")),
        None => finding,
    }]
}

fn offloads(facts: &Facts, interface: &Interface) -> Vec<Finding> {
    let (name, group, offloads) = (&interface.name, Group::Interfaces, interface.offloads);
    let mut all = Vec::new();
    if offloads.lro == Some(true) {
        let why = "the card joins segments into ones that are too large to be sent on";
        let finding = Finding::new(Level::Problem, "lro", group, name, "joins received segments (LRO)", why);
        all.push(finding.mend(format!("ethtool -K {name} lro off")));
    }
    let modes = facts.desired.as_ref().map_or(&IoMode::ALL[..], |desired| &desired.engine.modes);
    let late = best_mode(&interface.driver) >= IoMode::Generic || modes.iter().all(|mode| *mode >= IoMode::Generic);
    if offloads.gro == Some(true) && late {
        let why = "in generic and AF_PACKET modes joined segments are seen joined, are too large, and are lost";
        let finding = Finding::new(Level::Warning, "gro", group, name, "joins received segments (GRO)", why);
        all.push(finding.mend(format!("ethtool -K {name} gro off")));
    }
    if offloads.rx_vlan == Some(true) && modes.iter().any(|mode| *mode != IoMode::AfPacket) {
        let tagged =
            facts.desired.iter().flat_map(|desired| &desired.neighbors).any(|neighbor| neighbor.vlan.is_some());
        let (level, why) = if tagged || !interface.vlans.is_empty() {
            (Level::Problem, "tagged packets look untagged to the engine: there are VLANs here, and they get mixed up")
        } else {
            (Level::Note, "tagged packets would look untagged; there is no VLAN in sight")
        };
        let finding = Finding::new(level, "rx-vlan", group, name, "takes VLAN tags off received frames", why);
        all.push(finding.mend(format!("ethtool -K {name} rxvlan off")));
    }
    match &interface.veth_peer {
        Some((peer, true)) => {
            let why = "packets with unfinished checksums are dropped as `partial-checksum`";
            let found = format!("its peer {peer} leaves transmit checksums to others");
            let finding = Finding::new(Level::Warning, "veth-checksums", group, name, found, why);
            all.push(finding.mend(format!("ethtool -K {peer} tx off")));
        }
        Some((peer, false)) => {
            all.push(Finding::fine("veth-checksums", group, name, format!("its peer {peer} finishes checksums")));
        }
        None if interface.driver == "veth" => {
            let why = "if that end leaves checksums to others, its packets are dropped as `partial-checksum`";
            let finding =
                Finding::new(Level::Note, "veth-checksums", group, name, "its peer is elsewhere, not seen", why);
            all.push(finding.mend("ethtool -K PEER tx off    # on the other end, where PEER is its name"));
        }
        None => {}
    }
    all
}

fn size(facts: &Facts, interface: &Interface) -> Option<Finding> {
    let desired = facts.desired.as_ref()?;
    let largest = interface.mtu + 14 + 2 * 4;
    let fits = |frame: u32| largest <= frame.saturating_sub(HEADROOM as u32);
    if fits(desired.engine.frame_size) {
        return None;
    }
    let found = format!("packets of MTU {} do not fit frames of {} bytes", interface.mtu, desired.engine.frame_size);
    let finding = Finding::new(
        Level::Problem,
        "frame-size",
        Group::Interfaces,
        &interface.name,
        found,
        "the engine refuses to start",
    );
    Some(if fits(4096) {
        finding.mend("write `frame_size = 4096` below [engine]")
    } else {
        finding.mend(format!("ip link set {} mtu 1500", interface.name))
    })
}
