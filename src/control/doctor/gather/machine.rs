//! The kernel, memory, cores and clocks, by the kernel's files.
//!
//! Owns reading them. Never judges.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit};
use socket2::{Domain, Socket, Type};

use super::super::facts::{Clock, Cores, Facts, Kernel, Memory};
use super::{number, text};

/// How long cores are watched.
const SAMPLE: Duration = Duration::from_millis(200);

/// Reads all of it.
pub fn look(facts: &mut Facts) {
    facts.kernel = kernel();
    facts.memory = memory();
    facts.cores = cores();
    facts.clock = clock();
}

fn kernel() -> Kernel {
    let used = [
        ("CAP_NET_ADMIN", Capability::CAP_NET_ADMIN),
        ("CAP_NET_RAW", Capability::CAP_NET_RAW),
        ("CAP_BPF", Capability::CAP_BPF),
        ("CAP_PERFMON", Capability::CAP_PERFMON),
        ("CAP_IPC_LOCK", Capability::CAP_IPC_LOCK),
    ];
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    // Before Linux 5.8 CAP_SYS_ADMIN is what CAP_BPF and CAP_PERFMON are now.
    let admin = has(Capability::CAP_SYS_ADMIN);
    let lacks = |(name, capability): &(&'static str, Capability)| {
        let covered = admin && matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
        (!has(*capability) && !covered).then_some(*name)
    };
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None);
    Kernel {
        release: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
        af_xdp: Some(socket.map(drop).map_err(|error| error.raw_os_error().unwrap_or(0))),
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        memlock: getrlimit(Resource::RLIMIT_MEMLOCK)
            .ok()
            .map(|(soft, _)| soft)
            .filter(|soft| *soft != libc::RLIM_INFINITY),
        lacks: used.iter().filter_map(lacks).collect(),
    }
}

fn memory() -> Memory {
    let all = text("/proc/meminfo").unwrap_or_default();
    let find = |name: &str| {
        let line = all.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Memory {
        available: find("MemAvailable").map(|kib| kib << 10),
        huge_free: find("HugePages_Free"),
        huge_total: find("HugePages_Total"),
        huge_size: find("Hugepagesize").unwrap_or(2048) << 10,
    }
}

/// A list of cores as the kernel writes it, such as `0-3,8`.
pub fn core_list(text: &str) -> BTreeSet<usize> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // The kernel has at most 8192; a longer list is none.
        (last < 1 << 16).then_some(first..=last)
    };
    text.split(',').filter_map(part).flatten().collect()
}

fn cores() -> Cores {
    let base = "/sys/devices/system/cpu";
    let online = text(format!("{base}/online")).map(|list| core_list(&list)).unwrap_or_default();
    let of = |file: &str| -> BTreeMap<usize, String> {
        online.iter().filter_map(|core| Some((*core, text(format!("{base}/cpu{core}/{file}"))?))).collect()
    };
    let node_of = |core: &usize| {
        let names = fs::read_dir(format!("{base}/cpu{core}")).ok()?.flatten();
        let node = names.filter_map(|name| name.file_name().to_str()?.strip_prefix("node")?.parse().ok()).next();
        node.map(|node| (*core, node))
    };
    let status = text("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Cores {
        allowed: allowed.map(core_list).unwrap_or_default(),
        isolated: text(format!("{base}/isolated")).map(|list| core_list(&list)).unwrap_or_default(),
        // Without any it says "(null)".
        tickless: text(format!("{base}/nohz_full")).map(|list| core_list(&list)),
        governors: of("cpufreq/scaling_governor"),
        siblings: of("topology/thread_siblings_list")
            .into_iter()
            .map(|(core, list)| (core, core_list(&list)))
            .collect(),
        nodes: online.iter().filter_map(node_of).collect(),
        busy: busy(),
        online,
    }
}

/// How busy each core is for a moment.
fn busy() -> BTreeMap<usize, u8> {
    let before = ticks(&text("/proc/stat").unwrap_or_default());
    thread::sleep(SAMPLE);
    let after = ticks(&text("/proc/stat").unwrap_or_default());
    let share = |(core, (idle, all)): (usize, (u64, u64))| {
        let (old_idle, old_all) = before.get(&core)?;
        let (idle, all) = (idle.saturating_sub(*old_idle), all.saturating_sub(*old_all));
        let busy = 100 - (idle * 100).checked_div(all)?.min(100);
        Some((core, busy as u8))
    };
    after.into_iter().filter_map(share).collect()
}

/// Idle ticks and all ticks of each core: `cpuN user nice system idle iowait irq softirq steal`.
pub fn ticks(stat: &str) -> BTreeMap<usize, (u64, u64)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let core = words.next()?.strip_prefix("cpu")?.parse().ok()?;
        let ticks: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
        let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0);
        Some((core, (idle, ticks.iter().sum())))
    };
    stat.lines().filter_map(line).collect()
}

fn clock() -> Clock {
    let mut command = Command::new("timedatectl");
    let said = command.args(["show", "--property", "NTPSynchronized", "--value"]).output();
    let synchronised = said.ok().filter(|output| output.status.success()).and_then(|output| {
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    });
    Clock { source: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"), synchronised }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_and_ticks_are_read() {
        assert_eq!(core_list("0-2,8"), BTreeSet::from([0, 1, 2, 8]));
        for garbage in ["", "x", "3-1", "0-99999999999", "0-4294967295"] {
            assert_eq!(core_list(garbage), BTreeSet::new(), "{garbage}");
        }
        let stat = "cpu  9 9 9 9\ncpu0 10 0 10 70 10 0 0 0 5 5\ncpu1 1 2\nintr 4";
        assert_eq!(ticks(stat), BTreeMap::from([(0, (80, 100))]));
    }
}
