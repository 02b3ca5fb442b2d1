//! Labs that stay up for people: found, entered, ended from another terminal.
//!
//! Owns the note `lab.json` in a kept lab's directory, and shells inside nodes. A kept lab belongs to the process that
//! runs it: ending that process takes the lab down.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Doing, LabError};
use super::holdings::{self, PREFIX, STATE_DIR};
use super::netns;
use super::site::Site;

const NOTE: &str = "lab.json";

/// What is known about a kept lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptLab {
    /// Its id: part of its namespaces' names.
    pub id: String,
    /// The process that runs it.
    pub pid: u32,
    /// Its scenario.
    pub scenario: String,
    /// Its nodes.
    pub nodes: Vec<String>,
}

/// Lets others find this lab.
pub fn announce(scenario: &str, site: &Site) -> Result<KeptLab, LabError> {
    let lab = KeptLab {
        id: site.lab.id().to_owned(),
        pid: std::process::id(),
        scenario: scenario.to_owned(),
        nodes: site.lab.names().map(str::to_owned).collect(),
    };
    let text = serde_json::to_string(&lab).map_err(|error| LabError::Unexpected(error.to_string()))?;
    fs::write(site.lab.path(NOTE), text).doing(|| "noting the lab".into())?;
    Ok(lab)
}

/// The kept labs of living processes.
pub fn all() -> Vec<KeptLab> {
    let read = |id: String| {
        let text = fs::read_to_string(Path::new(STATE_DIR).join(id).join(NOTE)).ok()?;
        serde_json::from_str(&text).ok()
    };
    holdings::living().into_iter().filter_map(read).collect()
}

/// How to get into the nodes.
pub fn guide(scenario: &str, site: &Site) -> String {
    let mut lines = vec![String::from("Nodes and how to enter them:")];
    for name in site.lab.names() {
        let namespace = site.lab.node(name).map(|node| node.name().to_owned()).unwrap_or_default();
        lines.push(format!("  evenkeel lab shell {scenario} {name:<10}  or  ip netns exec {namespace} COMMAND"));
    }
    lines.push(format!("Configs and logs: {}", site.lab.directory().display()));
    lines.join("\n")
}

/// Opens a shell inside a node and waits for its end.
pub fn shell(lab: &KeptLab, node: &str) -> Result<bool, LabError> {
    if !lab.nodes.iter().any(|known| known == node) {
        let known = lab.nodes.join(", ");
        return Err(LabError::Unknown { kind: "node", name: node.to_owned(), known });
    }
    let program = env::var_os("SHELL").unwrap_or_else(|| OsString::from("/bin/sh"));
    let mut command = Command::new(program);
    command.env("EVENKEEL_LAB_NODE", node).env("PS1", format!("{node}# "));
    netns::execute(&format!("{PREFIX}{}-{node}", lab.id), command)?;
    Ok(true)
}

/// Ends a kept lab and waits until it is gone.
pub fn end(lab: &KeptLab) -> Result<(), LabError> {
    let within = Duration::from_secs(10);
    kill(Pid::from_raw(lab.pid as i32), Signal::SIGTERM).doing(|| format!("ending process {}", lab.pid))?;
    let start = Instant::now();
    while holdings::living().contains(&lab.id) {
        if start.elapsed() > within {
            let what = format!("the end of process {}", lab.pid);
            return Err(LabError::Timeout { what, after: within, detail: String::new() });
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
