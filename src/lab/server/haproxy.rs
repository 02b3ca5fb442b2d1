//! HAProxy as a real server that takes the PROXY protocol.
//!
//! Owns its configuration: it answers every request with its name, and with the client that the PROXY header named.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use crate::lab::error::{Doing, LabError};
use crate::lab::process::{Process, require};
use crate::lab::server::nginx::await_listener;
use crate::lab::site::{Site, SiteServer};

/// Starts HAProxy on `server`, on `port` of every address; connections must begin with a PROXY header.
pub fn start(site: &Site, server: &SiteServer, port: u16) -> Result<Process, LabError> {
    let name = &server.name;
    let answer = format!(
        "    mode http
    timeout http-request 5s
    http-request return status 200 content-type text/plain string \"{name}\" hdr X-Server \"{name}\" \
hdr X-Client \"%[src] %[src_port]\"
"
    );
    run(site, server, port, &answer)
}

/// Starts HAProxy on `server`, on `port` of every address: it takes the PROXY header off and hands the bytes to `inside`.
pub fn relay(site: &Site, server: &SiteServer, port: u16, inside: SocketAddr) -> Result<Process, LabError> {
    let onward =
        format!("    mode tcp\n    default_backend inside\nbackend inside\n    mode tcp\n    server inside {inside}\n");
    run(site, server, port, &onward)
}

fn run(site: &Site, server: &SiteServer, port: u16, body: &str) -> Result<Process, LabError> {
    let haproxy = require("haproxy", "haproxy")?;
    let name = format!("{}-haproxy-{port}", server.name);
    let file = site.lab.path(&format!("{name}.cfg"));
    fs::write(&file, configuration(port, body)).doing(|| format!("writing {}", file.display()))?;
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(&file);
    let process = site.lab.start(&server.name, &name, &command)?;
    await_listener(site, &server.name, &process, SocketAddr::new(server.v4, port))?;
    Ok(process)
}

fn configuration(port: u16, body: &str) -> String {
    format!(
        "global
    maxconn 2048
    nbthread 1
defaults
    timeout client 60s
    timeout connect 5s
    timeout server 60s
frontend front
    bind 0.0.0.0:{port} accept-proxy
    bind [::]:{port} v6only accept-proxy
{body}"
    )
}
