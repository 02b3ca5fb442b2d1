//! A UDP client: one question, one answer.
//!
//! Owns sockets of its own for each question, so that each is a new conversation, unless the caller brings one.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// A socket that talks to `target` only.
pub fn socket(target: SocketAddr, timeout: Duration) -> io::Result<UdpSocket> {
    let socket = match target {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(timeout))?;
    Ok(socket)
}

/// Sends `payload` and returns the name of the server that echoed it.
pub fn ask(socket: &UdpSocket, payload: &str) -> io::Result<String> {
    socket.send(payload.as_bytes())?;
    let mut buffer = [0; 65536];
    let length = socket.recv(&mut buffer)?;
    let answer = String::from_utf8_lossy(&buffer[..length]);
    match answer.split_once(' ') {
        Some((server, echoed)) if echoed == payload => Ok(server.to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} other bytes came back", length))),
    }
}

/// Asks `count` times from new ports and counts who answered; failures are under the empty name.
pub fn survey(target: SocketAddr, count: usize, timeout: Duration) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for number in 0..count {
        let outcome = socket(target, timeout).and_then(|socket| ask(&socket, &format!("question {number}")));
        *answers.entry(outcome.unwrap_or_default()).or_default() += 1;
    }
    answers
}
