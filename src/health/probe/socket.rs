//! Sockets that ask a server: opened, bound and on their way.
//!
//! Owns the way of checks with `path = "service"`: which ports of ours belong to which server. Never waits.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::words;
use crate::health::Outcome;
use crate::health::driver::Egress;
use crate::model::{CheckTarget, Through};

/// For how long a way that could not be opened is not tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// The way of checks with `path = "service"`.
#[derive(Default)]
pub struct Way {
    egress: Option<Box<dyn Egress>>,
    opened: Option<(Duration, Result<u32, String>)>,
}

impl Way {
    /// Over `egress`, which is opened when the first check needs it.
    pub fn new(egress: Option<Box<dyn Egress>>) -> Way {
        Way { egress, opened: None }
    }

    /// Opens it, if it is not open. `Some`: the descriptor to poll, told once.
    pub fn open(&mut self, now: Duration) -> Option<RawFd> {
        let due = match &self.opened {
            None => true,
            Some((tried, Err(_))) => now >= *tried + PAUSE,
            Some((_, Ok(_))) => false,
        };
        if !due {
            return None;
        }
        let egress = self.egress.as_mut();
        let opened = egress.map_or_else(
            || Err("checks with path = \"service\" need the running engine".to_owned()),
            |egress| egress.open().map_err(|error| format!("no way to servers for path = \"service\": {error}")),
        );
        let descriptor = opened.as_ref().ok().and_then(|_| self.egress.as_ref()?.descriptor());
        self.opened = Some((now, opened));
        descriptor
    }

    /// Packets wait.
    pub fn turn(&mut self) {
        if let Some(egress) = &mut self.egress {
            egress.turn();
        }
    }

    /// The mark for sockets, and the address they should have.
    fn prepared(&self, through: &Through) -> Result<(u32, Option<IpAddr>), String> {
        match (&self.opened, &self.egress) {
            (Some((_, Ok(mark))), Some(egress)) => Ok((*mark, egress.source(through))),
            (Some((_, Err(error))), _) => Err(error.clone()),
            _ => Err("the way to servers is not open".to_owned()),
        }
    }

    fn bind(&mut self, port: Port, through: Option<&Through>) {
        if let Some(egress) = &mut self.egress {
            egress.bind(port.protocol, port.number, through);
        }
    }

    /// The check from that port is over.
    pub fn release(&mut self, port: Option<Port>) {
        if let Some(port) = port {
            self.bind(port, None);
        }
    }
}

/// A port of ours whose packets go to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    protocol: u8,
    number: u16,
}

/// A non-blocking socket towards `target`: connected, or on its way to be. Its port, where that belongs to one server, must be
/// released.
pub fn connect(kind: Type, target: &CheckTarget, way: &mut Way) -> Result<(Socket, Option<Port>), Outcome> {
    let to = SocketAddr::new(target.address, target.port);
    let socket = Socket::new(Domain::for_address(to), kind.nonblocking(), None)
        .map_err(|error| words::unable("open a socket", &error))?;
    let stream = kind == Type::STREAM;
    if stream {
        // It ends with a reset: thousands of checks a second leave nothing behind in TIME_WAIT, on neither side.
        socket.set_linger(Some(Duration::ZERO)).map_err(|error| words::unable("set up a socket", &error))?;
    }
    let port = bind(&socket, if stream { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP } as u8, target, way)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            way.release(port);
            Err(words::refused_here(to.ip(), &error))
        }
        _ => Ok((socket, port)),
    }
}

fn bind(socket: &Socket, protocol: u8, target: &CheckTarget, way: &mut Way) -> Result<Option<Port>, Outcome> {
    let to = |source: IpAddr| {
        let failed = move |error: io::Error| words::unable(&format!("ask from {source}"), &error);
        socket.bind(&SocketAddr::new(source, 0).into()).map_err(failed)
    };
    let Some(through) = &target.through else {
        return target.source.map_or(Ok(()), to).map(|()| None);
    };
    let (mark, source) = way.prepared(through).map_err(Outcome::Unable)?;
    socket.set_mark(mark).map_err(|error| words::unable("mark a socket", &error))?;
    let any = if target.address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    // By tunnel a server may be of the other family than the service.
    let source = source.filter(|source| source.is_ipv4() == target.address.is_ipv4());
    // Bound now, so that the port is known before the first packet.
    to(target.source.or(source).unwrap_or(any))?;
    let bound = socket.local_addr().map_err(|error| words::unable("bind a socket", &error))?;
    let number = bound.as_socket().map_or(0, |address| address.port());
    let port = Port { protocol, number };
    way.bind(port, Some(through));
    Ok(Some(port))
}

/// The address that packets to `to` have as their source.
pub fn source_towards(to: IpAddr, wanted: Option<IpAddr>) -> Result<IpAddr, Outcome> {
    if let Some(source) = wanted {
        return Ok(source);
    }
    // Nothing is sent: to connect it is to look up the route.
    let socket = Socket::new(Domain::for_address(SocketAddr::new(to, 0)), Type::DGRAM, None)
        .map_err(|error| words::unable("open a socket", &error))?;
    socket.connect(&SocketAddr::new(to, 9).into()).map_err(|error| words::refused_here(to, &error))?;
    let own = socket.local_addr().map_err(|error| words::unable("ask", &error))?;
    own.as_socket().map(|own| own.ip()).ok_or_else(|| Outcome::Unable("the kernel names no source address".into()))
}
