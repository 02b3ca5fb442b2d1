//! An attempt over UDP: one question, and what comes back.
//!
//! Owns a connected socket, so that only the server's datagrams and what ICMP says of ours come in. Never judges an answer.

use std::io;
use std::sync::Arc;

use mio::net::UdpSocket;
use mio::{Interest, Token};
use socket2::Type;

use super::socket::{Port, connect};
use super::words::{self, span};
use super::{Ground, Step};
use crate::health::dialogue::{Exchange, Progress};
use crate::health::{Outcome, Reason};
use crate::model::Check;

/// Most datagrams that an attempt looks at.
const MOST: usize = 1000;
/// Most before others have their turn.
const TURN: usize = 32;

/// One attempt.
pub struct Datagram {
    check: Arc<Check>,
    exchange: Box<dyn Exchange>,
    socket: UdpSocket,
    port: Option<Port>,
    seen: usize,
}

impl Datagram {
    /// Asks.
    pub fn start(
        check: Arc<Check>,
        mut exchange: Box<dyn Exchange>,
        token: Token,
        ground: &mut Ground<'_>,
    ) -> Result<Datagram, Outcome> {
        let (socket, port) = connect(Type::DGRAM, &check.target, ground.way)?;
        let mut socket = UdpSocket::from_std(socket.into());
        let asked = ground
            .registry
            .register(&mut socket, token, Interest::READABLE)
            .map_err(|error| words::unable("poll a socket", &error))
            .and_then(|()| {
                let sent = socket.send(&exchange.question());
                sent.map_err(|error| words::refused_here(check.target.address, &error))
            });
        match asked {
            Ok(_) => Ok(Datagram { check, exchange, socket, port, seen: 0 }),
            Err(outcome) => {
                ground.way.release(port);
                Err(outcome)
            }
        }
    }

    /// Something came.
    pub fn ready(&mut self, ground: &mut Ground<'_>) -> Step {
        for _ in 0..TURN {
            match self.socket.recv(ground.buffer) {
                Ok(length) => {
                    self.seen += 1;
                    if let Progress::Done(outcome) = self.exchange.received(&ground.buffer[..length]) {
                        return Step::Done(outcome);
                    }
                    if self.seen >= MOST {
                        let words = format!("{MOST} datagrams came, and none was the answer");
                        return Step::Done(Outcome::bad(Reason::TooLarge, words));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Wait,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Step::Done(told(&error)),
            }
        }
        Step::Again
    }

    /// What to call it that its time is over.
    pub fn expired(&self) -> Outcome {
        let time = span(self.check.pace.timeout);
        match (self.exchange.silence_is_good(), self.seen) {
            (true, _) => Outcome::good(format!("no error in {time}")),
            (false, 0) => Outcome::bad(Reason::Timeout, format!("no reply in {time}")),
            (false, _) => Outcome::bad(Reason::Timeout, format!("no reply to this question in {time}")),
        }
    }

    /// Whether the server has answered anything.
    pub fn reached(&self) -> bool {
        self.seen > 0
    }

    /// Closes it.
    pub fn end(self, ground: &mut Ground<'_>) {
        ground.way.release(self.port);
    }
}

/// What ICMP said of the question.
fn told(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Outcome::bad(Reason::Refused, "port unreachable, the server says"),
        _ => words::told(error),
    }
}
