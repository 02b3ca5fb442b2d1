//! The real servers' programs: nginx, HAProxy, and small ones that are easy to check.
//!
//! Owns starting them on a site's servers. Each says its own name in every answer, so that a client knows who answered.

pub mod decap;
pub mod haproxy;
pub mod hash;
pub mod nginx;
pub mod squid;
pub mod transfer;
pub mod udp;
pub mod unbound;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::error::{Doing, LabError};
use super::site::{Family, Site};

/// Starts a server with `start` on every server of the site: on the service address where it has that one, else on its own.
fn on_all(
    site: &mut Site,
    family: Family,
    port: u16,
    start: fn(&mut Site, &str, IpAddr, u16) -> Result<(), LabError>,
) -> Result<(), LabError> {
    for server in site.servers.clone() {
        start(site, &server.name, site.served_address(&server, family), port)?;
    }
    Ok(())
}

/// Listens on one node and one address of it, and serves each connection in a thread, with the node's name. `label` tells the
/// server from others of the node.
fn listen(
    site: &mut Site,
    node: &str,
    address: IpAddr,
    port: u16,
    label: &str,
    serve: fn(TcpStream, &str, &Arc<AtomicBool>) -> io::Result<()>,
) -> Result<(), LabError> {
    let bind = || TcpListener::bind(SocketAddr::new(address, port));
    let listener = site.lab.node(node)?.run(bind)?.doing(|| format!("listening on TCP port {port} of {node}"))?;
    listener.set_nonblocking(true).doing(|| "making a listener nonblocking".into())?;
    let name = node.to_owned();
    site.lab.thread(node, &format!("{node}-{label}"), move |stop| {
        thread::scope(|scope| {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((connection, _)) => {
                        let (name, stop) = (&name, &stop);
                        scope.spawn(move || serve(connection, name, stop));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
    })
}
