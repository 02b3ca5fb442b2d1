//! HAProxy: as a real server that takes the PROXY protocol, and as the balancer of a pair.
//!
//! Owns its configuration. As a server it answers every request with its name, and with the client that the PROXY header
//! named; as a balancer it checks the web servers behind and has a page of statistics.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

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

/// The port of a balancer's statistics, for [`STATISTICS_USER`] and nobody else.
pub const STATISTICS: u16 = 8080;
/// Name and password for the statistics, as the header `Authorization` has them.
pub const STATISTICS_USER: &str = "YWRtaW46c2VjcmV0";

/// Starts HAProxy on an appliance: it balances port 80 of every address over port 80 of the site's servers, and checks each
/// of them every `interval` (status 200; 2 successes, 5 failures).
pub fn balance(site: &Site, node: &str, own: IpAddr, interval: Duration) -> Result<Process, LabError> {
    let haproxy = require("haproxy", "haproxy")?;
    let every = interval.as_millis();
    let servers: String = site
        .servers
        .iter()
        .map(|server| format!("    server {} {}:80 check inter {every}ms rise 2 fall 5\n", server.name, server.v4))
        .collect();
    let text = format!(
        "global
    maxconn 2048
    nbthread 1
defaults
    mode http
    option redispatch
    timeout client 60s
    timeout connect 1s
    timeout server 60s
frontend web
    bind 0.0.0.0:80
    default_backend servers
backend servers
    balance roundrobin
    option httpchk GET /
    http-check expect status 200
{servers}listen statistics
    bind 0.0.0.0:{STATISTICS}
    stats enable
    stats uri /
    stats auth admin:secret
"
    );
    let file = site.lab.path(&format!("{node}-haproxy.cfg"));
    fs::write(&file, text).doing(|| format!("writing {}", file.display()))?;
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(&file);
    let process = site.lab.start(node, &format!("{node}-haproxy"), &command)?;
    await_listener(site, node, &process, SocketAddr::new(own, 80))?;
    Ok(process)
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
