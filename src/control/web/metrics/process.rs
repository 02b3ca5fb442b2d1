//! The families about the process, by the names that Prometheus' own libraries have for them.
//!
//! Owns the reading of `/proc/self`. What cannot be read is left out.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

use super::table::{Metric, metric};

/// What the kernel says of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    cpu: Option<Duration>,
    resident: Option<u64>,
    virtual_: Option<u64>,
    threads: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    started: Option<f64>,
}

impl Process {
    /// As it is now.
    pub fn read() -> Process {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let time = |time: nix::sys::time::TimeVal| {
            let (seconds, micros) = (u64::try_from(time.tv_sec()).ok()?, u64::try_from(time.tv_usec()).ok()?);
            Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
        };
        let cpu = getrusage(UsageWho::RUSAGE_SELF).ok();
        Process {
            cpu: cpu.and_then(|usage| Some(time(usage.user_time())? + time(usage.system_time())?)),
            resident: field("VmRSS").map(|kib| kib * 1024),
            virtual_: field("VmSize").map(|kib| kib * 1024),
            threads: field("Threads"),
            // The one that reads the folder is among them.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|all| (all.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            started: started(),
        }
    }
}

/// Unix time of the start: field 22 of `/proc/self/stat` (proc_pid_stat(5)), in hundredths of a second since the machine's start.
fn started() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets, and may hold anything.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + ticks / 100.0)
}

/// Families about the process.
pub const PROCESS: &[Metric<Process>] = &[
    metric!(Counter "process_cpu_seconds_total" [], "Processor time of all threads, user and system.",
    |process, out| if let Some(cpu) = process.cpu {
        out.put(cpu.as_secs_f64());
    }),
    metric!(Gauge "process_resident_memory_bytes" [], "Memory that the process has in RAM.",
    |process, out| if let Some(bytes) = process.resident {
        out.put(bytes);
    }),
    metric!(Gauge "process_virtual_memory_bytes" [], "Addresses that the process has.",
    |process, out| if let Some(bytes) = process.virtual_ {
        out.put(bytes);
    }),
    metric!(Gauge "process_threads" [], "Threads.", |process, out| if let Some(threads) = process.threads {
        out.put(threads);
    }),
    metric!(Gauge "process_open_fds" [], "Open file descriptors.", |process, out| if let Some(count) = process.open_fds {
        out.put(count);
    }),
    metric!(Gauge "process_max_fds" [], "Most open file descriptors.", |process, out| if let Some(most) = process.max_fds {
        out.put(most);
    }),
    metric!(Gauge "process_start_time_seconds" [], "Unix time of the start.",
    |process, out| if let Some(started) = process.started {
        out.put(started);
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let process = Process::read();
        assert!(process.resident > Some(1 << 20) && process.virtual_ >= process.resident, "{process:?}");
        assert!(process.open_fds >= Some(3) && process.max_fds > process.open_fds, "{process:?}");
        assert!(process.threads >= Some(1), "{process:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let ago = now - process.started.expect("is known");
        assert!((-2.0..86_400.0).contains(&ago), "started {ago} s ago");
        let later = loop {
            let later = Process::read();
            if later.cpu > process.cpu {
                break later;
            }
        };
        assert_eq!(later.started, process.started);
    }
}
