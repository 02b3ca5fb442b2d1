//! The kernel, memory, cores and clocks.
//!
//! Owns what a machine needs for a configuration. Never looks at the machine. Pure.

use std::collections::BTreeSet;

use super::super::facts::{Facts, Interface};
use super::super::finding::{Finding, Group, Level};
use crate::dataplane::flow::{Entry, FlowV4, FlowV6};
use crate::model::{EngineSettings, HugePages, IoMode};

/// Least kernels: AF_XDP that tells when to wake it, frames back to the kernel by XDP, memory counted by cgroups.
const OLDEST: (u32, u32) = (5, 4);
const WAY_BACK: (u32, u32) = (5, 18);
const NO_MEMLOCK: (u32, u32) = (5, 11);

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The kernel and what it permits.
pub fn kernel(facts: &Facts) -> Vec<Finding> {
    let (kernel, group) = (&facts.kernel, Group::Kernel);
    let mut all = Vec::new();
    let modes = facts.desired.as_ref().map_or(&IoMode::ALL[..], |desired| &desired.engine.modes);
    let falls_back = modes.contains(&IoMode::AfPacket);
    let found = format!("Linux {}", kernel.release);
    all.push(match version(&kernel.release) {
        Some(version) if version < OLDEST => {
            let why = "AF_XDP is of use from Linux 5.4 on";
            Finding::new(Level::Problem, "kernel-version", group, "version", found, why)
        }
        Some(version) if version < WAY_BACK => {
            let why = "before Linux 5.18 frames that are not the engine's cannot be given back: what NAT servers send of their own \
                       accord from a service's port is dropped";
            Finding::new(Level::Warning, "kernel-version", group, "version", found, why)
        }
        _ => Finding::fine("kernel-version", group, "version", found),
    });
    match kernel.af_xdp {
        Some(Ok(())) => all.push(Finding::fine("af-xdp", group, "AF_XDP", "sockets can be had")),
        Some(Err(libc::EPERM | libc::EACCES)) | None => {
            let (found, why) = ("could not be tried without CAP_NET_RAW", "without it the engine sees no frame");
            all.push(Finding::new(Level::Note, "af-xdp", group, "AF_XDP", found, why).mend("sudo evenkeel doctor"));
        }
        Some(Err(number)) => {
            let level = if falls_back { Level::Warning } else { Level::Problem };
            let found = format!("no sockets (error {number}): the kernel has no CONFIG_XDP_SOCKETS");
            let why = if falls_back {
                "the engine falls back to AF_PACKET: one worker, and the kernel sees every packet, too"
            } else {
                "the modes of the configuration need it"
            };
            let command = "grep CONFIG_XDP_SOCKETS /boot/config-$(uname -r)    # then boot a kernel that has it";
            all.push(Finding::new(level, "af-xdp", group, "AF_XDP", found, why).mend(command));
        }
    }
    if kernel.jit == Some(0) {
        let why = "the XDP filter is interpreted for every packet: several times slower";
        let finding = Finding::new(Level::Warning, "bpf-jit", group, "BPF compiler", "is off", why);
        all.push(finding.mend("sysctl -w net.core.bpf_jit_enable=1"));
    } else if kernel.jit.is_some() {
        all.push(Finding::fine("bpf-jit", group, "BPF compiler", "is on"));
    }
    if kernel.lacks.is_empty() {
        all.push(Finding::fine("capabilities", group, "capabilities", "all that the engine uses are there"));
    } else {
        let found = format!("this process lacks {}", kernel.lacks.join(", "));
        let why = "what needs them could not be looked at; the engine needs them at its start";
        let finding = Finding::new(Level::Note, "capabilities", group, "capabilities", found, why);
        all.push(finding.mend("sudo evenkeel doctor"));
    }
    if let (Some(limit), Some(desired)) = (kernel.memlock, &facts.desired) {
        let need = frames_need(&desired.engine, &queues(facts));
        let counts = kernel.lacks.contains(&"CAP_IPC_LOCK") || version(&kernel.release).is_some_and(|v| v < NO_MEMLOCK);
        if counts && limit < need {
            let found = format!("{} may be locked, and the frames take {}", mib(limit), mib(need));
            let finding =
                Finding::new(Level::Problem, "memlock", group, "locked memory", found, "the kernel refuses the frames");
            all.push(finding.mend("ulimit -l unlimited    # for a unit of systemd: LimitMEMLOCK=infinity"));
        }
    }
    all
}

/// Queues that are used of each interface of the configuration.
fn queues(facts: &Facts) -> Vec<u64> {
    let Some(desired) = &facts.desired else { return Vec::new() };
    let of = |interface: &crate::model::Interface| {
        let has = || facts.interface(&interface.name).map_or(1, |found| u64::from(found.rx_queues));
        interface.queues.as_ref().map_or_else(has, |queues| queues.len() as u64)
    };
    desired.interfaces.iter().map(of).collect()
}

/// Bytes of the frames of all workers.
fn frames_need(settings: &EngineSettings, queues: &[u64]) -> u64 {
    queues.iter().sum::<u64>() * u64::from(settings.frames) * u64::from(settings.frame_size)
}

/// Bytes that the workers take at start: frames, flow tables, counters.
pub fn memory_need(settings: &EngineSettings, queues: &[u64]) -> u64 {
    let table = |flows: u32, bytes: usize, load: usize| u64::from(flows) * (bytes * 100 / load) as u64;
    let v4 = settings.flows + settings.unproven + settings.cookie_flows;
    let worker = table(v4, size_of::<FlowV4>(), FlowV4::LOAD_PERCENT)
        + table(settings.flows_ipv6 + settings.unproven_ipv6, size_of::<FlowV6>(), FlowV6::LOAD_PERCENT)
        + (1 << 20);
    frames_need(settings, queues) + settings.cores.len() as u64 * worker
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Memory.
pub fn memory(facts: &Facts) -> Vec<Finding> {
    let group = Group::Memory;
    let Some(desired) = &facts.desired else { return Vec::new() };
    let need = memory_need(&desired.engine, &queues(facts));
    let mut all = Vec::new();
    if let Some(available) = facts.memory.available {
        let found = format!("the workers take {}, and {} can be had", mib(need), mib(available));
        all.push(if need > available {
            let why = "the kernel ends the engine, or something else, when memory runs out";
            Finding::new(Level::Problem, "memory", group, "memory", found, why)
                .mend("write smaller `flows`, `flows_ipv6`, `unproven_flows` or `frames` below [engine]")
        } else if need > available / 10 * 8 {
            let why = "little is left for everything else";
            Finding::new(Level::Warning, "memory", group, "memory", found, why)
        } else {
            Finding::fine("memory", group, "memory", found)
        });
    }
    let (Some(free), Some(total)) = (facts.memory.huge_free, facts.memory.huge_total) else { return all };
    let pages = need.div_ceil(facts.memory.huge_size.max(1));
    let found = format!("{free} of {total} are free, and the configuration can use {pages}");
    let command = format!("sysctl -w vm.nr_hugepages={}", total - free.min(total) + pages);
    all.push(match desired.engine.huge_pages {
        HugePages::Never => Finding::fine("huge-pages", group, "huge pages", "none are wanted"),
        _ if free >= pages => Finding::fine("huge-pages", group, "huge pages", found),
        HugePages::Always => {
            let why = "`huge_pages = \"always\"`: the engine refuses to start with fewer";
            Finding::new(Level::Problem, "huge-pages", group, "huge pages", found, why).mend(command)
        }
        HugePages::Auto => {
            let why = "transparent ones or normal pages are taken where these are missing: more work for the processor";
            Finding::new(Level::Note, "huge-pages", group, "huge pages", found, why).mend(command)
        }
    });
    all
}

fn list(cores: impl IntoIterator<Item = usize>) -> String {
    cores.into_iter().map(|core| core.to_string()).collect::<Vec<_>>().join(",")
}

/// Cores.
pub fn cores(facts: &Facts) -> Vec<Finding> {
    let (cores, group) = (&facts.cores, Group::Cores);
    let Some(desired) = &facts.desired else { return Vec::new() };
    let wanted: BTreeSet<usize> = desired.engine.cores.iter().copied().collect();
    let subject = format!("cores {}", list(wanted.iter().copied()));
    let mut all = Vec::new();
    let missing: Vec<usize> = wanted.difference(&cores.online).copied().collect();
    if !missing.is_empty() {
        let found = format!("{} not online; there are {}", list(missing), list(cores.online.iter().copied()));
        let finding =
            Finding::new(Level::Problem, "core-missing", group, &subject, found, "a worker cannot start there");
        return vec![finding.mend("write `cores` of those that there are below [engine]")];
    }
    let barred: Vec<usize> = wanted.difference(&cores.allowed).copied().collect();
    if !barred.is_empty() && !cores.allowed.is_empty() {
        let found = format!("this process may not run on {}", list(barred));
        let why = "a worker cannot be pinned there; a cgroup or `taskset` keeps this process away";
        let finding = Finding::new(Level::Warning, "core-barred", group, &subject, found, why);
        all.push(finding.mend("cat /proc/self/status | grep Cpus_allowed_list"));
    }
    if all.is_empty() {
        all.push(Finding::fine("core-missing", group, &subject, "online, and permitted"));
    }
    let shared: Vec<usize> = wanted.difference(&cores.isolated).copied().collect();
    if !shared.is_empty() {
        let found = format!("{} not isolated", list(shared.iter().copied()));
        let why = "other programs may run there, and packets wait while they do";
        let finding = Finding::new(Level::Note, "isolation", group, &subject, found, why);
        all.push(finding.mend(format!("add `isolcpus={}` to the kernel's command line, or use cpusets", list(shared))));
    }
    let ticks = |core: &&usize| cores.tickless.as_ref().is_some_and(|tickless| !tickless.contains(core));
    let ticking: Vec<usize> = wanted.intersection(&cores.isolated).filter(ticks).copied().collect();
    if !ticking.is_empty() {
        let found = format!("{} isolated, but has the timer's tick", list(ticking.iter().copied()));
        let why =
            "the kernel interrupts the worker up to a thousand times a second to look whether somebody else should run";
        let finding = Finding::new(Level::Note, "tick", group, &subject, found, why);
        all.push(finding.mend(format!("add `nohz_full={}` to the kernel's command line", list(ticking))));
    }
    for core in &wanted {
        let one = format!("core {core}");
        if let Some(governor) = cores.governors.get(core).filter(|governor| *governor != "performance") {
            let why = "a core that slows down while it waits answers the next packet late";
            let finding =
                Finding::new(Level::Warning, "governor", group, &one, format!("its governor is {governor}"), why);
            let file = format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
            all.push(finding.mend(format!("echo performance > {file}")));
        }
        if let Some(busy) = cores.busy.get(core).filter(|busy| **busy > 25 && !facts.engine_runs) {
            let why = "a worker shares the core with what runs there";
            let found = format!("it was {busy} % busy just now, without the engine");
            let finding = Finding::new(Level::Warning, "core-busy", group, &one, found, why);
            all.push(finding.mend(format!("ps -eLo pcpu,psr,comm --sort=-pcpu | awk '$2 == {core}' | head")));
        }
        let twins: BTreeSet<usize> = cores.siblings.get(core).cloned().unwrap_or_default();
        let others: Vec<usize> = twins.into_iter().filter(|twin| twin > core && wanted.contains(twin)).collect();
        if !others.is_empty() {
            let found = format!("it shares a physical core with core {}", list(others));
            let why = "two workers that never sleep have half a core each";
            let finding = Finding::new(Level::Warning, "siblings", group, &one, found, why);
            all.push(finding.mend("lscpu -e    # then write `cores` of different physical cores"));
        }
    }
    all.extend(facts.interfaces.iter().filter_map(|interface| far_cores(facts, interface, &wanted)));
    all
}

fn far_cores(facts: &Facts, interface: &Interface, wanted: &BTreeSet<usize>) -> Option<Finding> {
    let nodes = &facts.cores.nodes;
    let node = interface.node.filter(|node| *node >= 0)?;
    let far: Vec<usize> = wanted.iter().copied().filter(|core| nodes.get(core).is_some_and(|at| *at != node)).collect();
    let near = nodes.iter().filter(|(_, at)| **at == node).map(|(core, _)| *core);
    let found = format!("is on NUMA node {node}, and the cores {} are not", list(far.iter().copied()));
    let why = "every frame crosses from one processor to the other";
    (!far.is_empty()).then(|| {
        Finding::new(Level::Warning, "numa", Group::Cores, &interface.name, found, why)
            .mend(format!("write `cores` out of {} below [engine]", list(near)))
    })
}

/// Clocks.
pub fn time(facts: &Facts) -> Vec<Finding> {
    let group = Group::Time;
    let mut all = Vec::new();
    match facts.clock.source.as_deref() {
        Some(source @ ("tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" | "xen")) => {
            all.push(Finding::fine("clocksource", group, "clock source", source));
        }
        Some(source) => {
            let why = "every reading of the clock, one for each batch of packets, is a slow access to a device";
            let finding = Finding::new(Level::Warning, "clocksource", group, "clock source", source, why);
            let file = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
            all.push(finding.mend(format!("echo tsc > {file}")));
        }
        None => {}
    }
    match facts.clock.synchronised {
        Some(true) => all.push(Finding::fine("time", group, "time of day", "is kept by others' clocks")),
        Some(false) => {
            let why =
                "times in logs, events and captures do not fit those of other machines; certificates are judged by it";
            let finding = Finding::new(Level::Warning, "time", group, "time of day", "follows nobody's clock", why);
            all.push(finding.mend("timedatectl set-ntp true"));
        }
        None => {
            let found = "whether it is right could not be seen (no timedatectl)";
            all.push(Finding::new(
                Level::Note,
                "time",
                group,
                "time of day",
                found,
                "times in logs and certificates hang on it",
            ));
        }
    }
    all
}
