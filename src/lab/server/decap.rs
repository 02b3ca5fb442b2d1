//! The receiving end of tunnels on the real servers, by `evenkeel realserver decap`.
//!
//! Owns its start on the servers that stand behind a tunnel; the site has given those the service address.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;

use crate::lab::error::LabError;
use crate::lab::process::Process;
use crate::lab::site::{Family, Reach, Site};
use crate::model::GUE_PORT;

/// Starts it on every server of the site that tunnels lead to, and waits until each has its device and listens.
pub fn start_all(site: &Site, program: &Path) -> Result<Vec<Process>, LabError> {
    let behind = site.servers.iter().filter(|server| server.reach == Reach::Tunnel);
    behind.map(|server| start(site, &server.name, program)).collect()
}

/// Its device's name.
const DEVICE: &str = "evenkeel0";

fn start(site: &Site, node: &str, program: &Path) -> Result<Process, LabError> {
    let mut command = Command::new(program);
    command.args(["realserver", "decap"]);
    for family in [Family::V4, Family::V6] {
        command.arg("--address").arg(site.vip(family).to_string());
    }
    command.env("NO_COLOR", "1");
    let process = site.lab.start(node, &format!("{node}-decap"), &command)?;
    let within = Duration::from_secs(10);
    let start = Instant::now();
    let ready = || if_nametoindex(DEVICE).is_ok() && listens(GUE_PORT);
    while !site.lab.node(node)?.run(ready)? {
        if process.ended().is_some() || start.elapsed() > within {
            return Err(LabError::Timeout {
                what: format!("evenkeel realserver decap on {node} being ready"),
                after: start.elapsed(),
                detail: format!("; its last words:\n    {}", process.last_words(10)),
            });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(process)
}

/// Whether somebody has the port in this thread's namespace, over both families. Looked up in the kernel's list: trying to
/// take it would be in the way of who is about to.
fn listens(port: u16) -> bool {
    let wanted = format!(":{port:04X} ");
    ["udp", "udp6"].iter().all(|list| {
        fs::read_to_string(format!("/proc/thread-self/net/{list}")).is_ok_and(|text| text.contains(&wanted))
    })
}
