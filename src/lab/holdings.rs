//! What a lab holds that outlives a crash: processes, names of namespaces, a directory; and how it is given back.
//!
//! Owns three ways to clean up: the owner's drop, a signal (every lab of this process), and the next lab's start (what a
//! killed process left). Names carry the process id, so labs never touch what a living one holds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::{Doing, LabError};
use super::netns::{self, NETNS_DIR};
use super::process::Process;

/// What every namespace of a lab is called first.
pub const PREFIX: &str = "ek-";

/// Where labs keep their files, one directory each.
pub const STATE_DIR: &str = "/run/evenkeel-lab";

static LIVE: Mutex<Vec<Weak<Holdings>>> = Mutex::new(Vec::new());
static SEQUENCE: AtomicU32 = AtomicU32::new(0);

/// The things of one lab that somebody must clean up.
pub struct Holdings {
    id: String,
    directory: PathBuf,
    processes: Mutex<Vec<Process>>,
    namespaces: Mutex<Vec<String>>,
    closed: AtomicBool,
}

impl Holdings {
    /// Sweeps up after dead labs, then opens an empty set with a name that no other lab has.
    pub fn open() -> Result<Arc<Self>, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        sweep();
        let pid = process::id();
        let id = match SEQUENCE.fetch_add(1, Ordering::Relaxed) {
            0 => pid.to_string(),
            more => format!("{pid}.{more}"),
        };
        let directory = Path::new(STATE_DIR).join(&id);
        // Another lab that ends may remove the empty parent between the two steps of this.
        let create = || fs::create_dir_all(&directory);
        create().or_else(|_| create()).doing(|| format!("creating {}", directory.display()))?;
        let born = start_time(pid).unwrap_or_default();
        fs::write(directory.join("born"), born).doing(|| "writing the lab's birth".into())?;
        let holdings = Arc::new(Holdings {
            id,
            directory,
            processes: Mutex::default(),
            namespaces: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let mut live = lock(&LIVE);
        live.retain(|other| other.strong_count() > 0);
        live.push(Arc::downgrade(&holdings));
        Ok(holdings)
    }

    /// Process id, and a number after the first lab of the process.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The lab's own directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The full name of a namespace, noted for removal.
    pub fn namespace(&self, short: &str) -> String {
        let name = format!("{PREFIX}{}-{short}", self.id);
        lock(&self.namespaces).push(name.clone());
        name
    }

    /// Notes a process to be ended; ends it at once if the lab is being torn down.
    pub fn adopt(&self, process: &Process) {
        lock(&self.processes).push(process.clone());
        if self.closed.load(Ordering::SeqCst) {
            process.kill();
        }
    }

    /// Ends every process: all are asked, then all are awaited, then what is left is killed.
    pub fn end_processes(&self) {
        let processes = std::mem::take(&mut *lock(&self.processes));
        for process in &processes {
            let _ = process.signal(Signal::SIGTERM);
        }
        let start = Instant::now();
        for process in &processes {
            while process.ended().is_none() && start.elapsed() < Duration::from_millis(1500) {
                thread::sleep(Duration::from_millis(2));
            }
            process.kill();
        }
    }

    /// Gives everything back. The second call finds nothing to do.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.end_processes();
        for name in std::mem::take(&mut *lock(&self.namespaces)) {
            netns::remove(&name);
        }
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir(STATE_DIR);
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        self.close();
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP clean up every lab of this process and then end it with 128 + signal.
pub fn clean_up_on_signals() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
        let _ = thread::Builder::new().name("lab-signals".into()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                close_all();
                process::exit(128 + signal);
            }
        });
    });
}

/// Cleans up every lab of this process.
pub fn close_all() {
    let live: Vec<_> = lock(&LIVE).iter().filter_map(Weak::upgrade).collect();
    for holdings in &live {
        holdings.close();
    }
    // Owners may still hold references: the process is about to end, and what they hold is gone.
    std::mem::forget(live);
}

/// Removes what killed labs left: namespaces with our prefix and directories of processes that are gone.
/// Returns the names of the namespaces.
pub fn sweep() -> Vec<String> {
    let mut removed = Vec::new();
    for (name, owner) in entries(NETNS_DIR, PREFIX) {
        if !alive(&owner) {
            end_processes_inside(&netns::path_of(&name));
            netns::remove(&name);
            removed.push(name);
        }
    }
    for (name, owner) in entries(STATE_DIR, "") {
        if !alive(&owner) {
            let _ = fs::remove_dir_all(Path::new(STATE_DIR).join(name));
        }
    }
    let _ = fs::remove_dir(STATE_DIR);
    removed
}

/// The labs whose process lives: their ids.
pub fn living() -> Vec<String> {
    let mut ids: Vec<String> =
        entries(STATE_DIR, "").into_iter().filter(|(_, owner)| alive(owner)).map(|(name, _)| name).collect();
    ids.sort();
    ids
}

/// The process id in a lab's id.
pub fn pid_of(id: &str) -> Option<u32> {
    id.split('.').next().and_then(|digits| digits.parse().ok())
}

/// Names in `directory` with `prefix` and a lab id after it, with that id.
fn entries(directory: &str, prefix: &str) -> Vec<(String, String)> {
    let Ok(listing) = fs::read_dir(directory) else { return Vec::new() };
    listing
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let id = name.strip_prefix(prefix)?.split('-').next()?.to_owned();
            pid_of(&id)?;
            Some((name, id))
        })
        .collect()
}

/// Whether the process that made the lab `id` still runs, and is not another one with a reused number.
fn alive(id: &str) -> bool {
    let Some(now) = pid_of(id).and_then(start_time) else { return false };
    match fs::read_to_string(Path::new(STATE_DIR).join(id).join("born")) {
        Ok(born) if !born.is_empty() => born == now,
        _ => true,
    }
}

/// The kernel's start time of a process (field 22 of `/proc/PID/stat`), while it is not a zombie.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    if fields.next() == Some("Z") { None } else { fields.nth(18).map(str::to_owned) }
}

/// Ends the processes of a dead lab: those whose network namespace is the one at `path`.
fn end_processes_inside(path: &Path) {
    let Ok(namespace) = fs::metadata(path) else { return };
    let Ok(listing) = fs::read_dir("/proc") else { return };
    for entry in listing.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(theirs) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
        if theirs.dev() == namespace.dev() && theirs.ino() == namespace.ino() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_id_begins_with_its_process() {
        assert_eq!(pid_of("123"), Some(123));
        assert_eq!(pid_of("123.4"), Some(123));
        assert_eq!(pid_of("x"), None);
        assert_eq!(pid_of(""), None);
    }

    #[test]
    fn this_process_is_alive_and_number_zero_is_not() {
        assert!(alive(&process::id().to_string()));
        assert!(!alive("0"));
    }
}
