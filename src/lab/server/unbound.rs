//! Unbound, the DNS cache, on a real server.
//!
//! Owns its configuration: a zone of its own whose every name is answered with the server's name, and nothing else. It
//! listens on the server's own address, for checks, and on the service's, for clients.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use super::nginx::await_listener;
use crate::lab::error::{Doing, LabError};
use crate::lab::process::{Process, require};
use crate::lab::site::{Family, Site, SiteServer};

/// The port it listens on.
pub const PORT: u16 = 53;
/// Every name in this zone has a TXT record with the name of the server that is asked.
pub const WHO: &str = "who.test";
/// Every name in this zone has this address.
pub const NAMES: (&str, &str) = ("example.test", "192.0.2.80");

/// An Unbound of one server.
pub struct Unbound {
    server: SiteServer,
    file: PathBuf,
    process: Process,
}

impl Unbound {
    /// Starts it, and waits until it listens.
    pub fn start(site: &Site, server: &SiteServer, family: Family) -> Result<Self, LabError> {
        let file = site.lab.path(&format!("{}-unbound.conf", server.name));
        let text = configuration(&server.name, &[server.address(family), site.vip(family)]);
        fs::write(&file, text).doing(|| format!("writing {}", file.display()))?;
        let process = run(site, server, family, &file)?;
        Ok(Unbound { server: server.clone(), file, process })
    }

    /// Ends it.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// Starts it again.
    pub fn start_again(&mut self, site: &Site, family: Family) -> Result<(), LabError> {
        self.process = run(site, &self.server, family, &self.file)?;
        Ok(())
    }
}

fn run(site: &Site, server: &SiteServer, family: Family, file: &PathBuf) -> Result<Process, LabError> {
    let mut command = Command::new(require("unbound", "unbound")?);
    command.args(["-d", "-p", "-c"]).arg(file);
    let process = site.lab.start(&server.name, &format!("{}-unbound", server.name), &command)?;
    await_listener(site, &server.name, &process, SocketAddr::new(server.address(family), PORT))?;
    Ok(process)
}

fn configuration(name: &str, addresses: &[IpAddr]) -> String {
    let listen: String = addresses.iter().map(|address| format!("    interface: {address}\n")).collect();
    let (zone, address) = NAMES;
    format!(
        "server:
{listen}    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    identity: {name}
    chroot: \"\"
    username: \"\"
    directory: \"/\"
    pidfile: \"\"
    use-syslog: no
    module-config: \"iterator\"
    num-threads: 1
    local-zone: \".\" static
    local-data: \". SOA {name}. nobody.test. 1 3600 900 86400 300\"
    local-zone: \"{WHO}.\" redirect
    local-data: \"{WHO}. 0 TXT {name}\"
    local-zone: \"{zone}.\" redirect
    local-data: \"{zone}. 0 A {address}\"
remote-control:
    control-enable: no
"
    )
}
