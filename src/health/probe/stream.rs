//! An attempt over TCP: the connection, TLS on it or not, and the dialogue.
//!
//! Owns the connection; closed, it is reset. Reads at most [`MOST`] bytes and at most [`TURN`] at a time, whatever a peer
//! sends. Never judges an answer: the dialogue does.

use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Token};
use rustls::{ClientConfig, ClientConnection};
use socket2::Type;

use super::socket::{Port, connect};
use super::words::{self, span};
use super::{Ground, Step, tls};
use crate::health::dialogue::{Dialogue, Progress};
use crate::health::{Outcome, Reason};
use crate::model::{Check, TlsCheck};

/// Most that an attempt reads, over all its connections: more than the limit that any dialogue has of its own.
pub const MOST: usize = 16 << 20;
/// Most that it reads before others have their turn.
const TURN: usize = 128 << 10;

/// TLS of an attempt.
pub struct Security {
    /// What the check wants.
    pub wanted: TlsCheck,
    /// How that is done.
    pub config: Arc<ClientConfig>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Handshake,
    Talking,
}

/// One attempt.
pub struct Stream {
    check: Arc<Check>,
    token: Token,
    dialogue: Option<Box<dyn Dialogue>>,
    security: Option<Security>,
    socket: TcpStream,
    port: Option<Port>,
    tls: Option<Box<ClientConnection>>,
    phase: Phase,
    /// To be sent, and how much of it was.
    out: Vec<u8>,
    sent: usize,
    /// Whether sending failed: what can still be read is worth more than that.
    deaf: bool,
    total: usize,
    /// Whether the server has answered anything.
    reached: bool,
    warning: Option<String>,
}

impl Stream {
    /// Begins to connect.
    pub fn start(
        check: Arc<Check>,
        dialogue: Option<Box<dyn Dialogue>>,
        security: Option<Security>,
        token: Token,
        ground: &mut Ground<'_>,
    ) -> Result<Stream, Outcome> {
        let (socket, port) = open(&check, dialogue.is_some(), token, ground)?;
        Ok(Stream {
            check,
            token,
            dialogue,
            security,
            socket,
            port,
            tls: None,
            phase: Phase::Connecting,
            out: Vec::new(),
            sent: 0,
            deaf: false,
            total: 0,
            reached: false,
            warning: None,
        })
    }

    /// Its socket is ready for something.
    pub fn ready(&mut self, ground: &mut Ground<'_>) -> Step {
        if self.phase == Phase::Connecting {
            match self.connected() {
                Ok(true) => {}
                Ok(false) => return Step::Wait,
                Err(outcome) => return Step::Done(outcome),
            }
            if let Some(step) = self.opened() {
                return self.follow(step, ground);
            }
        }
        let progress = if self.tls.is_some() { self.turn_tls(ground) } else { self.turn_plain(ground) };
        match progress {
            Ok(progress) => self.follow(progress, ground),
            Err(step) => step,
        }
    }

    /// What to call it that its time is over.
    pub fn expired(&self) -> Outcome {
        let time = span(self.check.pace.timeout);
        let words = match self.phase {
            Phase::Connecting => format!("no connection in {time}"),
            Phase::Handshake => format!("timed out in the TLS handshake after {time}"),
            Phase::Talking => {
                let awaited = self.dialogue.as_ref().map_or("reply", |dialogue| dialogue.awaited());
                format!("no {awaited} in {time}")
            }
        };
        Outcome::bad(Reason::Timeout, words)
    }

    /// Whether the server has answered anything.
    pub fn reached(&self) -> bool {
        self.reached
    }

    /// Closes it.
    pub fn end(self, ground: &mut Ground<'_>) {
        ground.way.release(self.port);
    }

    /// Whether the connection is there.
    fn connected(&mut self) -> Result<bool, Outcome> {
        match self.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => {
                self.reached = error.raw_os_error() == Some(libc::ECONNRESET);
                return Err(words::told(&error));
            }
        }
        match self.socket.peer_addr() {
            Ok(_) => Ok(true),
            // The event was of the connection before.
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(false),
            Err(error) => Err(words::told(&error)),
        }
    }

    /// The connection is there: what is said first.
    fn opened(&mut self) -> Option<Progress> {
        self.reached = true;
        if let Some(security) = &self.security {
            let alpn = self.dialogue.as_ref().map_or(&[][..], |dialogue| dialogue.alpn());
            match tls::session(security, self.check.target.address, alpn) {
                Ok(session) => self.tls = Some(Box::new(session)),
                Err(outcome) => return Some(Progress::Done(outcome)),
            }
            self.phase = Phase::Handshake;
            return None;
        }
        self.phase = Phase::Talking;
        match &mut self.dialogue {
            Some(dialogue) => match dialogue.begin(&mut self.out) {
                Progress::Wait => None,
                over => Some(over),
            },
            None => Some(Progress::Done(Outcome::good("connected"))),
        }
    }

    fn follow(&mut self, progress: Progress, ground: &mut Ground<'_>) -> Step {
        match progress {
            Progress::Wait => Step::Wait,
            Progress::Done(outcome) => Step::Done(self.with_warning(outcome)),
            Progress::Reconnect => {
                ground.way.release(self.port.take());
                match open(&self.check, true, self.token, ground) {
                    Ok((socket, port)) => {
                        // The old connection is closed here.
                        (self.socket, self.port) = (socket, port);
                        (self.phase, self.tls, self.deaf) = (Phase::Connecting, None, false);
                        (self.out, self.sent) = (Vec::new(), 0);
                        Step::Wait
                    }
                    Err(outcome) => Step::Done(outcome),
                }
            }
        }
    }

    fn with_warning(&mut self, mut outcome: Outcome) -> Outcome {
        if let (Outcome::Good { warning, .. }, Some(mine)) = (&mut outcome, self.warning.take()) {
            *warning = Some(warning.take().map_or(mine.clone(), |theirs| format!("{mine}; {theirs}")));
        }
        outcome
    }

    /// Sends and reads what can be without waiting. `Err` is what needs no dialogue's word.
    fn turn_plain(&mut self, ground: &mut Ground<'_>) -> Result<Progress, Step> {
        let mut turn = 0;
        loop {
            self.flush();
            if turn >= TURN {
                return Err(Step::Again);
            }
            match self.socket.read(ground.buffer) {
                Ok(0) => return Ok(self.ended()),
                Ok(count) => {
                    turn += count;
                    self.count(count)?;
                    let progress = self.dialogue_reads(&ground.buffer[..count]);
                    if progress != Progress::Wait {
                        return Ok(progress);
                    }
                }
                Err(error) => return self.waits_or_failed(&error),
            }
        }
    }

    fn turn_tls(&mut self, ground: &mut Ground<'_>) -> Result<Progress, Step> {
        let mut turn = 0;
        loop {
            if let Some(progress) = self.after_handshake() {
                return Ok(progress);
            }
            self.flush();
            if turn >= TURN {
                return Err(Step::Again);
            }
            let Some(tls) = &mut self.tls else { return Ok(Progress::Wait) };
            match tls.read_tls(&mut self.socket) {
                Ok(0) if self.phase == Phase::Handshake => {
                    let words = "the server closed the connection in the TLS handshake";
                    return Err(Step::Done(Outcome::bad(Reason::Tls, words)));
                }
                Ok(0) => return Ok(self.ended()),
                Ok(count) => {
                    turn += count;
                    self.count(count)?;
                }
                Err(error) => return self.waits_or_failed(&error),
            }
            let Some(tls) = &mut self.tls else { return Ok(Progress::Wait) };
            if let Err(error) = tls.process_new_packets() {
                // The alert, so that the server's log says why.
                let _ = tls.write_tls(&mut self.socket);
                return Err(Step::Done(tls::failed(&error, self.phase == Phase::Handshake)));
            }
            loop {
                if let Some(progress) = self.after_handshake() {
                    return Ok(progress);
                }
                let Some(tls) = &mut self.tls else { return Ok(Progress::Wait) };
                match tls.reader().read(ground.buffer) {
                    Ok(0) => return Ok(self.ended()),
                    Ok(count) => {
                        let progress = self.dialogue_reads(&ground.buffer[..count]);
                        if progress != Progress::Wait {
                            return Ok(progress);
                        }
                    }
                    // Without its farewell: the dialogue knows whether that was all.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(self.ended()),
                    Err(_) => break,
                }
            }
        }
    }

    /// Once the handshake is done: what the certificate says, and the dialogue's first words.
    fn after_handshake(&mut self) -> Option<Progress> {
        let tls = self.tls.as_ref().filter(|tls| self.phase == Phase::Handshake && !tls.is_handshaking())?;
        self.phase = Phase::Talking;
        let days = self.security.as_ref().map_or(0, |security| security.wanted.expiry_days);
        self.warning = tls.peer_certificates().and_then(|chain| tls::expiry(chain, days));
        let Some(dialogue) = &mut self.dialogue else { return Some(Progress::Done(Outcome::good("TLS connection"))) };
        Some(dialogue.begin(&mut self.out)).filter(|progress| *progress != Progress::Wait)
    }

    fn dialogue_reads(&mut self, bytes: &[u8]) -> Progress {
        match &mut self.dialogue {
            Some(dialogue) => dialogue.received(bytes, &mut self.out),
            None => Progress::Wait,
        }
    }

    fn ended(&mut self) -> Progress {
        let closed = || Progress::bad(Reason::Closed, "the server closed the connection before it answered");
        match self.dialogue.as_mut().map(|dialogue| dialogue.ended()) {
            None | Some(Progress::Wait) => closed(),
            Some(progress) => progress,
        }
    }

    fn count(&mut self, count: usize) -> Result<(), Step> {
        self.total += count;
        if self.total > MOST {
            let words = format!("the answer is larger than {} MiB", MOST >> 20);
            return Err(Step::Done(Outcome::bad(Reason::TooLarge, words)));
        }
        Ok(())
    }

    fn waits_or_failed(&mut self, error: &io::Error) -> Result<Progress, Step> {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Progress::Wait),
            _ => Err(Step::Done(words::told(error))),
        }
    }

    /// Sends what can be sent.
    fn flush(&mut self) {
        if self.deaf {
            self.out.clear();
            return;
        }
        if let Err(error) = self.send() {
            self.deaf = !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            while self.sent < self.out.len() {
                self.sent += self.socket.write(&self.out[self.sent..])?;
            }
            (self.out, self.sent) = (Vec::new(), 0);
            return Ok(());
        };
        loop {
            if self.sent < self.out.len() {
                self.sent += tls.writer().write(&self.out[self.sent..])?;
            } else {
                (self.out, self.sent) = (Vec::new(), 0);
            }
            if !tls.wants_write() {
                return Ok(());
            }
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
        }
    }
}

fn open(
    check: &Check,
    talks: bool,
    token: Token,
    ground: &mut Ground<'_>,
) -> Result<(TcpStream, Option<Port>), Outcome> {
    let (socket, port) = connect(Type::STREAM, &check.target, ground.way)?;
    if talks {
        // What is said in two writes should not wait for an acknowledgement in between.
        let _ = socket.set_tcp_nodelay(true);
    }
    let mut socket = TcpStream::from_std(socket.into());
    match ground.registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE) {
        Ok(()) => Ok((socket, port)),
        Err(error) => {
            ground.way.release(port);
            Err(words::unable("poll a socket", &error))
        }
    }
}
