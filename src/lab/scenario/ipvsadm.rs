//! The engine's program under the name `ipvsadm`, as a site's scripts call it.
//!
//! Owns the name in `PATH` and the shell. Never decides what is said.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::lab::engine::Engine;
use crate::lab::error::{Doing, LabError};
use crate::lab::process;
use crate::lab::site::Site;

/// A directory with that name in it.
pub struct Ipvsadm {
    directory: PathBuf,
}

impl Ipvsadm {
    /// Gives an engine's program the name; the lab takes it away.
    pub fn new(site: &Site, engine: &Engine) -> Result<Self, LabError> {
        let directory = site.lab.path("bin");
        fs::create_dir_all(&directory).doing(|| format!("creating {}", directory.display()))?;
        let program = fs::canonicalize(engine.program()).doing(|| "finding the program".into())?;
        let name = directory.join("ipvsadm");
        symlink(&program, &name).doing(|| format!("creating {}", name.display()))?;
        Ok(Ipvsadm { directory })
    }

    /// Runs a line of a shell at an engine's node; what it prints, or an error with what it says.
    pub fn shell(&self, site: &Site, node: &str, engine: &Engine, line: &str) -> Result<String, LabError> {
        let path = format!("{}:{}", self.directory.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).env("PATH", path).env("EVENKEEL_SOCKET", engine.socket());
        process::output(site.lab.node(node)?, &command)
    }
}
