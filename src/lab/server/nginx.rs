//! nginx as a real web server.
//!
//! Owns its configuration: one process in the foreground, everything in the lab's directory. `/` answers the server's
//! name, `/large` the same file on every server; the header `X-Client` says who asked, in the server's eyes.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::bytes::Bytes;
use crate::lab::error::{Doing, LabError};
use crate::lab::process::{Process, require};
use crate::lab::site::{Site, SiteServer};

/// Bytes of `/large`.
pub const LARGE: usize = 4 << 20;

/// Starts nginx on every server of the site, on `port` of every address, and waits until all of them listen.
pub fn start_all(site: &Site, port: u16) -> Result<Vec<Process>, LabError> {
    start_on(site, &site.servers, port, false)
}

/// Starts nginx on some servers of the site. With `proxied`, connections must begin with a PROXY header.
pub fn start_on(site: &Site, servers: &[SiteServer], port: u16, proxied: bool) -> Result<Vec<Process>, LabError> {
    let content = site.lab.path("www");
    fs::create_dir_all(&content).doing(|| format!("creating {}", content.display()))?;
    fs::write(content.join("large"), large_file()).doing(|| "writing the large file".into())?;
    servers.iter().map(|server| start(site, server, port, proxied, &content)).collect()
}

/// The content of `/large`: no two blocks alike, so that a lost or doubled one shows.
pub fn large_file() -> Vec<u8> {
    Bytes::new(1).take(LARGE)
}

fn start(site: &Site, server: &SiteServer, port: u16, proxied: bool, content: &Path) -> Result<Process, LabError> {
    let nginx = require("nginx", "nginx-light")?;
    let name = &server.name;
    let home = site.lab.path(&format!("{name}-nginx-{port}"));
    fs::create_dir_all(&home).doing(|| format!("creating {}", home.display()))?;
    let file = home.join("nginx.conf");
    fs::write(&file, configuration(name, &home, port, proxied, content))
        .doing(|| format!("writing {}", file.display()))?;
    let mut command = Command::new(nginx);
    command.arg("-e").arg(home.join("error.log")).arg("-p").arg(&home).arg("-c").arg(&file);
    let process = site.lab.start(name, &format!("{name}-nginx-{port}"), &command)?;
    await_listener(site, name, &process, SocketAddr::new(server.v4, port))?;
    Ok(process)
}

fn configuration(name: &str, home: &Path, port: u16, proxied: bool, content: &Path) -> String {
    let (home, content) = (home.display(), content.display());
    let (word, client) = if proxied { (" proxy_protocol", "proxy_protocol") } else { ("", "remote") };
    format!(
        "daemon off;
master_process off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    log_format client \"${client}_addr ${client}_port $status\";
    access_log {home}/access.log client;
    default_type text/plain;
    sendfile on;
    tcp_nodelay on;
    keepalive_timeout 600s;
    keepalive_requests 100000000;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen 0.0.0.0:{port} backlog=4096{word};
        listen [::]:{port} backlog=4096{word};
        add_header X-Server {name} always;
        add_header X-Client \"${client}_addr ${client}_port\" always;
        location = / {{ return 200 \"{name}\\n\"; }}
        location = /large {{ root {content}; }}
    }}
}}
"
    )
}

/// Waits until something inside `node` accepts connections.
pub(super) fn await_listener(site: &Site, node: &str, process: &Process, address: SocketAddr) -> Result<(), LabError> {
    let within = Duration::from_secs(10);
    let start = Instant::now();
    site.lab.node(node)?.run(|| {
        loop {
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            if process.ended().is_some() || start.elapsed() > within {
                return Err(LabError::Timeout {
                    what: format!("{} listening on {address}", process.name()),
                    after: start.elapsed(),
                    detail: format!("; its last words:\n    {}", process.last_words(10)),
                });
            }
            thread::sleep(Duration::from_millis(10));
        }
    })?
}
