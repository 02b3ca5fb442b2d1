//! A machine of its own: systemd as process 1 in namespaces, over a copy-on-write view of this machine's files.
//!
//! Owns its start, commands inside it, and its end, which takes all that ran in it along. Never changes this machine.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::lab::process;

/// How long anything in the machine may take: the machine that tests run on may have much else to do.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A running machine; dropping it ends it.
pub struct Machine {
    child: Child,
    folder: PathBuf,
    init: String,
}

/// What a command said, both streams, and whether it went well.
#[derive(Debug)]
pub struct Said {
    /// Exit code 0.
    pub good: bool,
    /// Both streams.
    pub text: String,
}

/// Whether such machines can be had here; says so when not, and panics instead under CI.
pub fn machine_is_possible() -> bool {
    let mut missing = Vec::new();
    for name in ["systemctl", "systemd-analyze", "dpkg-deb", "nsenter", "unshare", "setpriv", "nginx", "ethtool"] {
        if process::program(name).is_none() {
            missing.push(format!("the program `{name}`"));
        }
    }
    if !nix::unistd::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    if missing.is_empty() {
        return true;
    }
    let what = missing.join(", ");
    assert!(std::env::var_os("CI").is_none(), "this test needs {what}, and CI skips nothing");
    eprintln!("SKIPPED: a machine with systemd needs {what}; `make test` installs what can be installed");
    false
}

impl Machine {
    /// Starts one; `files` is called with the folder that becomes its `/srv/lab`.
    pub fn start(name: &str, files: impl FnOnce(&std::path::Path)) -> Machine {
        let folder = std::env::temp_dir().join(format!("evenkeel-machine-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("files")).expect("a folder");
        fs::create_dir(folder.join("mount")).expect("a folder");
        files(&folder.join("files"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab_support/machine.sh");
        let log = fs::File::create(folder.join("log")).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private", "bash", script]);
        command.arg(&folder).process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let child = command.spawn().expect("a machine");
        let mut machine = Machine { child, folder, init: String::new() };
        machine.init = machine.until("its process 1", |machine| {
            let pid = fs::read_to_string(machine.folder.join("pid")).ok()?;
            Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty())
        });
        machine.wait("systemd", "systemctl is-active basic.target");
        machine
    }

    /// Waits until `look` finds something.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut(&Machine) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "waited for {what} in vain\n{}", self.last_words());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a line of shell in it.
    pub fn run(&self, line: &str) -> Said {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "60", "nsenter", "-t", &self.init, "-m", "-u", "-i", "-n", "-p", "-r", "-w"]);
        command.args(["bash", "-c", &format!("exec 2>&1; cd /; {line}")]).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        // A file, not a pipe: what goes on in the background keeps a pipe open.
        let path = self.folder.join("said");
        let said = fs::File::create(&path).expect("a file");
        command.stdout(said.try_clone().expect("a descriptor")).stderr(said);
        let status = command.status().expect("nsenter");
        let text = String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned();
        Said { good: status.success(), text }
    }

    /// The same; panics where it fails. Returns what it said, trimmed.
    pub fn must(&self, line: &str) -> String {
        let said = self.run(line);
        assert!(said.good, "`{line}` in the machine failed: {}\n{}", said.text, self.last_words());
        said.text.trim().to_owned()
    }

    /// Waits until a line of shell succeeds, and returns what it said.
    pub fn wait(&self, what: &str, line: &str) -> String {
        let mut last = String::new();
        let start = Instant::now();
        loop {
            let said = self.run(line);
            if said.good {
                return said.text.trim().to_owned();
            }
            last.clone_from(&said.text);
            assert!(start.elapsed() < PATIENCE, "waited for {what} in vain: {last}\n{}", self.last_words());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let journal = if self.init.is_empty() {
            String::new()
        } else {
            self.run("journalctl --no-pager -n 60 -o short-precise").text
        };
        format!("its start said:\n{log}\nits journal:\n{journal}")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Process 1 takes all others of its namespace along; its starter clears up then, and ends.
        let ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
        if let Ok(pid) = self.init.parse()
            && !ended(&mut self.child)
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let start = Instant::now();
        while !ended(&mut self.child) && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("what is left of the machine: {}", self.folder.display());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
