//! Child processes of a lab.
//!
//! Owns starting them inside a namespace with a death signal, in their own process group and with their output in a file,
//! and ending them. Never touches a process that the lab did not start.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal, killpg};
use nix::unistd::Pid;

use super::error::{Doing, LabError};
use super::netns::Namespace;

/// How long a child may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A child process and its process group; the lab that it was started in ends it.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    pid: u32,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command` inside `namespace`; its output goes to `log`.
    pub fn start(namespace: &Namespace, name: &str, command: &Command, log: &Path) -> Result<Self, LabError> {
        let out = File::create(log).doing(|| format!("creating {}", log.display()))?;
        let err = out.try_clone().doing(|| "copying a descriptor".into())?;
        let mut command = mortal(command);
        command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(err);
        let child = namespace.spawn(command)?;
        let inner = Inner { name: name.to_owned(), pid: child.id(), log: log.to_owned(), child: Mutex::new(child) };
        Ok(Process { inner: Arc::new(inner) })
    }

    /// The name it was started with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Everything that it printed so far.
    pub fn output(&self) -> String {
        fs::read(&self.inner.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last `lines` lines of its output, for an error message.
    pub fn last_words(&self, lines: usize) -> String {
        let output = self.output();
        let all: Vec<&str> = output.lines().collect();
        let tail = all[all.len().saturating_sub(lines)..].join("\n    ");
        if tail.is_empty() { String::from("(it printed nothing)") } else { tail }
    }

    /// Sends a signal to the process group, unless the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let mut child = self.child();
        if child.try_wait().doing(|| format!("looking after {}", self.name()))?.is_some() {
            return Err(LabError::Unexpected(format!("{} has ended already", self.name())));
        }
        self.signal_group(signal).doing(|| format!("sending {signal} to {}", self.name()))
    }

    /// Sends a signal to the process alone, unless it has ended.
    pub fn signal_leader(&self, signal: Signal) -> Result<(), LabError> {
        let mut child = self.child();
        if child.try_wait().doing(|| format!("looking after {}", self.name()))?.is_some() {
            return Err(LabError::Unexpected(format!("{} has ended already", self.name())));
        }
        let pid = Pid::from_raw(self.inner.pid as i32);
        signal::kill(pid, signal).doing(|| format!("sending {signal} to {}", self.name()))
    }

    /// Waits until it ends.
    pub fn wait(&self, within: Duration) -> Result<ExitStatus, LabError> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if start.elapsed() > within {
                return Err(LabError::Timeout {
                    what: format!("the end of {}", self.name()),
                    after: within,
                    detail: format!("; its last words:\n    {}", self.last_words(10)),
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end, and ends it if it does not.
    pub fn stop(&self) -> ExitStatus {
        let _ = self.signal(Signal::SIGTERM);
        match self.wait(PATIENCE) {
            Ok(status) => status,
            Err(_) => self.kill(),
        }
    }

    /// Ends it at once (SIGKILL to its process group).
    pub fn kill(&self) -> ExitStatus {
        let mut child = self.child();
        if let Ok(Some(status)) = child.try_wait() {
            return status;
        }
        let _ = self.signal_group(Signal::SIGKILL);
        let _ = child.kill();
        child.wait().unwrap_or_else(|_| ExitStatus::from_raw(9))
    }

    /// The group's id is the child's: it was made its leader, and cannot be another's while it is not waited for.
    fn signal_group(&self, signal: Signal) -> Result<(), io::Error> {
        killpg(Pid::from_raw(self.inner.pid as i32), signal).map_err(io::Error::from)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.inner.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same command, with SIGKILL as its death signal where util-linux's `setpriv` is there to ask for it.
///
/// The kernel forgets the death signal at fork, and setting it between fork and exec from here would need unsafe code.
pub fn mortal(command: &Command) -> Command {
    let mut wrapped = match program("setpriv") {
        Some(setpriv) => {
            let mut wrapped = Command::new(setpriv);
            wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
            wrapped
        }
        None => Command::new(command.get_program()),
    };
    wrapped.args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// Where a program is: in `PATH`, or in the directories of root's programs.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Like [`program`], or an error that names the Debian package.
pub fn require(program_name: &'static str, package: &'static str) -> Result<PathBuf, LabError> {
    program(program_name).ok_or(LabError::Missing { program: program_name, package })
}

/// Runs a command inside `namespace` to its end and returns its output; an error if it fails.
pub fn output(namespace: &Namespace, command: &Command) -> Result<String, LabError> {
    let what = format!("{command:?}");
    let mut command = mortal(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = namespace.spawn(command)?.wait_with_output().doing(|| format!("running {what}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LabError::Unexpected(format!("{what} in {}: {} ({})", namespace.name(), said, output.status)))
    }
}
