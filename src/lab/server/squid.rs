//! Squid, the proxy, on an appliance of a pair.
//!
//! Owns its configuration and the command that checks it: one process in the foreground, without a cache, everything in the
//! lab's directory. Its shared memory is its node's alone, so that a killed one leaves nothing on the machine.

use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::nginx::await_listener;
use crate::lab::error::{Doing, LabError};
use crate::lab::process::{Process, require};
use crate::lab::site::Site;

/// The port it listens on.
pub const PORT: u16 = 3128;

/// A Squid of one node.
pub struct Squid {
    node: String,
    own: IpAddr,
    program: PathBuf,
    file: PathBuf,
    process: Process,
}

impl Squid {
    /// Starts it on every address of `node`, and waits until it listens on `own`.
    pub fn start(site: &Site, node: &str, own: IpAddr) -> Result<Self, LabError> {
        let program = require("squid", "squid")?;
        let home = site.lab.path(&format!("{node}-squid"));
        let file = home.join("squid.conf");
        // It gives up root, and writes here after that.
        let write = || {
            fs::create_dir_all(&home)?;
            fs::set_permissions(&home, Permissions::from_mode(0o777))?;
            fs::write(&file, configuration(node, &home.display().to_string()))
        };
        write().doing(|| format!("writing {}", file.display()))?;
        let mut memory = Command::new(require("mount", "mount")?);
        memory.args(["-t", "tmpfs", "none", "/dev/shm"]);
        site.lab.output(node, &memory)?;
        let process = run(site, node, own, &program, &file)?;
        Ok(Squid { node: node.to_owned(), own, program, file, process })
    }

    /// The command that says by its exit code whether it runs.
    pub fn check(&self) -> String {
        format!("{} -k check -f {}", self.program.display(), self.file.display())
    }

    /// Ends it.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// Starts it again.
    pub fn start_again(&mut self, site: &Site) -> Result<(), LabError> {
        let _ = fs::remove_file(self.file.with_file_name("squid.pid"));
        self.process = run(site, &self.node, self.own, &self.program, &self.file)?;
        Ok(())
    }
}

fn run(site: &Site, node: &str, own: IpAddr, program: &PathBuf, file: &PathBuf) -> Result<Process, LabError> {
    // What a killed one left in the shared memory would keep it from starting.
    let mut command = Command::new(require("sh", "dash")?);
    command.args(["-c", "rm -f /dev/shm/squid-*; exec \"$0\" -N -f \"$1\""]).arg(program).arg(file);
    let process = site.lab.start(node, &format!("{node}-squid"), &command)?;
    await_listener(site, node, &process, SocketAddr::new(own, PORT))?;
    Ok(process)
}

fn configuration(name: &str, home: &str) -> String {
    format!(
        "http_port {PORT}
visible_hostname {name}
http_access allow all
cache deny all
memory_cache_shared off
access_log none
cache_log {home}/cache.log
pid_filename {home}/squid.pid
coredump_dir {home}
pinger_enable off
dns_nameservers 127.0.0.1
shutdown_lifetime 0 seconds
"
    )
}
