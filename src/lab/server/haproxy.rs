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
    let haproxy = require("haproxy", "haproxy")?;
    let name = &server.name;
    let file = site.lab.path(&format!("{name}-haproxy.cfg"));
    fs::write(&file, configuration(name, port)).doing(|| format!("writing {}", file.display()))?;
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(&file);
    let process = site.lab.start(name, &format!("{name}-haproxy"), &command)?;
    await_listener(site, name, &process, SocketAddr::new(server.v4, port))?;
    Ok(process)
}

fn configuration(name: &str, port: u16) -> String {
    format!(
        "global
    maxconn 4096
defaults
    mode http
    timeout client 60s
    timeout http-request 5s
    timeout connect 5s
    timeout server 60s
frontend web
    bind 0.0.0.0:{port} accept-proxy
    bind [::]:{port} v6only accept-proxy
    http-request return status 200 content-type text/plain string \"{name}\" hdr X-Server \"{name}\" \
hdr X-Client \"%[src] %[src_port]\"
"
    )
}
