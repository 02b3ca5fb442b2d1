//! Network namespaces: made, named in `/run/netns` as `ip netns` names them, entered by threads, removed.
//!
//! Owns one long-lived *keeper* thread for each namespace. It has the namespace's own `/sys`, and every child process of
//! the lab is spawned by it: children inherit its namespaces, and the death signal that they ask the kernel for comes
//! when their keeper's process dies, not when some short thread ends. Never moves a thread that it did not start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::error::{Doing, LabError};

/// Where `ip netns` looks for names.
pub const NETNS_DIR: &str = "/run/netns";

type Job = Box<dyn FnOnce() + Send>;

/// A named network namespace; dropping it removes it.
pub struct Namespace {
    name: String,
    file: File,
    jobs: Option<mpsc::Sender<Job>>,
    keeper: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes a namespace with the given name, its loopback interface still down.
    pub fn create(name: &str) -> Result<Self, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        prepare_directory()?;
        let path = path_of(name);
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, readiness) = mpsc::sync_channel(1);
        let keeper = thread::Builder::new()
            .name(format!("netns-{name}"))
            .spawn(move || {
                let made = make(&path);
                let good = made.is_ok();
                let _ = ready.send(made);
                if good {
                    inbox.into_iter().for_each(|job| job());
                }
            })
            .doing(|| "starting a thread".into())?;
        let file = match readiness.recv() {
            Ok(made) => made?,
            Err(_) => return Err(LabError::Unexpected(format!("the thread that makes {name} died"))),
        };
        Ok(Namespace { name: name.to_owned(), file, jobs: Some(jobs), keeper: Some(keeper) })
    }

    /// Its name below [`NETNS_DIR`]: what `ip netns exec` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A descriptor of the namespace.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `work` on a thread inside the namespace and returns what it returns; a panic of it goes on here.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, LabError> {
        let fd = self.fd();
        let outcome = thread::scope(|scope| {
            let inside = scope.spawn(move || setns(fd, CloneFlags::CLONE_NEWNET).map(|()| work()));
            inside.join()
        });
        match outcome {
            Ok(entered) => entered.doing(|| format!("entering the namespace {}", self.name)),
            Err(cause) => panic::resume_unwind(cause),
        }
    }

    /// Starts a thread that lives inside the namespace. It must end before the lab does: an open socket keeps a
    /// namespace alive.
    pub fn thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LabError> {
        let file = self.file.try_clone().doing(|| "copying a descriptor".into())?;
        let (entered, entry) = mpsc::sync_channel(1);
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let inside = setns(&file, CloneFlags::CLONE_NEWNET);
                drop(file);
                let good = inside.is_ok();
                let _ = entered.send(inside);
                if good {
                    work();
                }
            })
            .doing(|| format!("starting the thread {name}"))?;
        match entry.recv() {
            Ok(inside) => inside.doing(|| format!("entering the namespace {}", self.name))?,
            Err(_) => return Err(LabError::Unexpected(format!("the thread {name} died at once"))),
        }
        Ok(handle)
    }

    /// Spawns a child process inside the namespace.
    pub fn spawn(&self, mut command: Command) -> Result<Child, LabError> {
        let (done, outcome) = mpsc::sync_channel(1);
        let what = command.get_program().to_string_lossy().into_owned();
        let job: Job = Box::new(move || {
            let _ = done.send(command.spawn());
        });
        let gone = || LabError::Unexpected(format!("the keeper of {} is gone", self.name));
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?.doing(|| format!("starting {what} in {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
        remove(&self.name);
    }
}

/// The file that names a namespace.
pub fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Removes a namespace's name; the kernel frees it with its last process and socket. Missing names are fine.
pub fn remove(name: &str) {
    let path = path_of(name);
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(&path);
}

/// Makes [`NETNS_DIR`] a shared mount, once for the machine, so that names vanish everywhere when they are removed.
fn prepare_directory() -> Result<(), LabError> {
    const NOTHING: Option<&str> = None;
    fs::create_dir_all(NETNS_DIR).doing(|| format!("creating {NETNS_DIR}"))?;
    let directory = File::open(NETNS_DIR).doing(|| format!("opening {NETNS_DIR}"))?;
    let _lock =
        Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, error)| error).doing(|| "locking".into())?;
    let share = || mount(NOTHING, NETNS_DIR, NOTHING, MsFlags::MS_SHARED | MsFlags::MS_REC, NOTHING);
    if share().is_err() {
        mount(Some(NETNS_DIR), NETNS_DIR, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)
            .doing(|| format!("binding {NETNS_DIR} to itself"))?;
        share().doing(|| format!("sharing {NETNS_DIR}"))?;
    }
    Ok(())
}

/// Puts the calling thread into a new namespace, names it, and gives the thread a `/sys` that shows it.
fn make(path: &Path) -> Result<File, LabError> {
    const NOTHING: Option<&str> = None;
    OpenOptions::new().write(true).create_new(true).open(path).doing(|| format!("creating {}", path.display()))?;
    let entered = || -> Result<File, LabError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| match io::Error::from(error) {
            denied if denied.kind() == io::ErrorKind::PermissionDenied => LabError::NotRoot,
            source => LabError::Io { doing: "making a network namespace".into(), source },
        })?;
        mount(Some("/proc/thread-self/ns/net"), path, NOTHING, MsFlags::MS_BIND, NOTHING)
            .doing(|| format!("naming {}", path.display()))?;
        let file = File::open(path).doing(|| format!("opening {}", path.display()))?;
        own_sys()?;
        Ok(file)
    };
    entered().inspect_err(|_| {
        let _ = umount2(path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(path);
    })
}

/// Gives the calling thread mounts of its own, with a `/sys` that shows its network namespace.
fn own_sys() -> Result<(), LabError> {
    const NOTHING: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).doing(|| "making a mount namespace".into())?;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_SLAVE | MsFlags::MS_REC, NOTHING)
        .doing(|| "keeping mounts private".into())?;
    let _ = umount2("/sys", MntFlags::MNT_DETACH);
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NOTHING).doing(|| "mounting /sys".into())
}

/// Runs a command, with this process's terminal, inside the namespace called `name`, whoever made it.
pub fn execute(name: &str, mut command: Command) -> Result<ExitStatus, LabError> {
    let path = path_of(name);
    let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
    let inside = thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).doing(|| "entering a namespace".into())?;
        own_sys()?;
        let what = command.get_program().to_string_lossy().into_owned();
        command.status().doing(|| format!("running {what}"))
    });
    inside.join().unwrap_or_else(|_| Err(LabError::Unexpected("the thread in the namespace died".into())))
}
