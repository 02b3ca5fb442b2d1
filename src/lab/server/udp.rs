//! A UDP server that echoes and says its name.
//!
//! Owns the answer's form: `NAME PAYLOAD`. The answer leaves from the address that the question came to.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::lab::error::{Doing, LabError};
use crate::lab::site::{Family, Site};

/// Starts the server on `port`, on every server of the site: on the service address where it has that one, else on its own.
pub fn start_all(site: &mut Site, family: Family, port: u16) -> Result<(), LabError> {
    super::on_all(site, family, port, start)
}

/// Starts the server on one node and one address of it.
pub fn start(site: &mut Site, node: &str, address: IpAddr, port: u16) -> Result<(), LabError> {
    let bind = || UdpSocket::bind(SocketAddr::new(address, port));
    let socket = site.lab.node(node)?.run(bind)?.doing(|| format!("listening on UDP port {port} of {node}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(50))).doing(|| "setting a timeout".into())?;
    let name = node.to_owned();
    site.lab.thread(node, &format!("{node}-udp"), move |stop| {
        let mut buffer = [0; 65536];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let mut answer = format!("{name} ").into_bytes();
                answer.extend_from_slice(&buffer[..length]);
                let _ = socket.send_to(&answer, from);
            }
        }
    })
}
