//! The real keepalived, as the other appliance of a pair.
//!
//! Owns its process inside a node, with pid files and a log of its own in the lab's directory: only VRRP (`-P`), in the
//! foreground. Touches no keepalived of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use super::error::{Doing, LabError};
use super::process::{Process, require};
use super::topology::Lab;

/// A running keepalived; the lab ends it.
pub struct Keepalived {
    file: PathBuf,
    process: Process,
}

impl Keepalived {
    /// Writes its configuration and starts it inside `node`.
    pub fn start(lab: &Lab, node: &str, config: &str) -> Result<Self, LabError> {
        let keepalived = require("keepalived", "keepalived")?;
        let file = lab.path(&format!("{node}.keepalived.conf"));
        write(&file, config)?;
        let mut command = Command::new(keepalived);
        command.args(["-n", "-l", "-D", "-P", "-f"]).arg(&file);
        for (option, kind) in [("-p", "pid"), ("-r", "vrrp-pid"), ("-c", "check-pid")] {
            let pid = lab.path(&format!("{node}.keepalived.{kind}"));
            // A killed one leaves its own, and its child may still be seen by the next.
            let _ = fs::remove_file(&pid);
            command.arg(option).arg(pid);
        }
        let process = lab.start(node, &format!("{node}-keepalived"), &command)?;
        Ok(Keepalived { file, process })
    }

    /// Replaces its configuration and tells it to read it.
    pub fn reload(&self, config: &str) -> Result<(), LabError> {
        write(&self.file, config)?;
        // Its parent tells its child: the group as a whole would hear it twice.
        self.process.signal_leader(Signal::SIGHUP)
    }

    /// Its process; a kill ends parent and child at the same moment, so that nobody says goodbye.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn write(file: &Path, config: &str) -> Result<(), LabError> {
    fs::write(file, config).doing(|| format!("writing {}", file.display()))
}
