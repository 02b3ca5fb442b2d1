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
    ask_bytes(socket, payload.as_bytes())
}

/// Sends `payload`, in fragments where it is long, and returns the name of the server that echoed it byte for byte.
pub fn ask_bytes(socket: &UdpSocket, payload: &[u8]) -> io::Result<String> {
    socket.send(payload)?;
    let mut buffer = vec![0; 65536];
    let length = socket.recv(&mut buffer)?;
    let answer = &buffer[..length];
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let blank = answer.iter().position(|&byte| byte == b' ').ok_or_else(|| wrong(format!("{length} other bytes")))?;
    let (server, echoed) = (&answer[..blank], &answer[blank + 1..]);
    if echoed != payload {
        let place = echoed.iter().zip(payload).position(|(got, sent)| got != sent);
        return Err(wrong(format!("{} of {} bytes came back, wrong from {place:?}", echoed.len(), payload.len())));
    }
    Ok(String::from_utf8_lossy(server).into_owned())
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
