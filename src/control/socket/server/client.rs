//! One client of the control socket: who it is, what it sent, what it is still to get.
//!
//! Owns its buffers and its share of a turn. Never knows what a command means.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use mio::net::UnixStream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use super::Reply;
use crate::control::socket::{Answer, MAX_ADMIN_LINE, MAX_LINE, Request, parse_request, roles};
use crate::model::{Peer, Role, Roles};

/// Most pieces that are read in one turn.
const PIECES_A_TURN: usize = 8;

/// Bytes in a piece.
const PIECE: usize = 4096;

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    peer: Peer,
    /// What it may do; `None`: nothing, it is told so.
    pub role: Option<Role>,
    /// Its role was decided elsewhere.
    fixed: Option<Role>,
    input: Vec<u8>,
    /// Bytes of `input` that have no newline.
    searched: usize,
    output: Vec<u8>,
    sent: usize,
    /// When it last sent or took anything.
    pub active: Instant,
    /// No more is read: what is in `output` is sent, then the client is closed.
    closing: bool,
    /// Its answer comes later.
    pub waiting: bool,
}

/// What became of a client in a turn.
pub(super) enum Turn {
    /// It waits for the socket, or for its answer.
    Waiting,
    /// There is more to do.
    More,
    /// It is to be closed.
    Gone,
}

impl Client {
    /// # Errors
    /// The kernel does not say who it is.
    pub fn new(stream: UnixStream, fixed: Option<Role>, now: Instant) -> io::Result<Client> {
        let known = getsockopt(&stream, sockopt::PeerCredentials)?;
        let peer = Peer { uid: known.uid(), gid: known.gid(), pid: known.pid() };
        Ok(Client {
            stream,
            peer,
            role: fixed,
            fixed,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            sent: 0,
            active: now,
            closing: false,
            waiting: false,
        })
    }

    /// Finds out what it may do.
    pub fn judge(&mut self, roles: &Roles, own: u32) {
        self.role = self.fixed.or_else(|| roles.role(self.peer, own));
    }

    pub const fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Bytes of answers that it has not taken.
    pub const fn pending(&self) -> usize {
        self.output.len() - self.sent
    }

    /// The answer that it waited for.
    pub fn complete(&mut self, answer: &Answer, now: Instant) {
        self.waiting = false;
        self.active = now;
        self.output = answer.line();
    }

    /// Its share of a turn: at most one request is answered.
    pub fn turn(&mut self, now: Instant, roles: &Roles, handle: &mut impl FnMut(Request) -> Reply) -> Turn {
        let mut answered = false;
        for _ in 0..PIECES_A_TURN {
            match self.flush(now) {
                Ok(true) => {}
                Ok(false) => return Turn::Waiting,
                Err(_) => return Turn::Gone,
            }
            if self.closing {
                return Turn::Gone;
            }
            if self.waiting {
                return if self.hung_up() { Turn::Gone } else { Turn::Waiting };
            }
            if answered {
                return Turn::More;
            }
            let tail = self.input.get(self.searched..).unwrap_or_default();
            if let Some(end) = tail.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=self.searched + end).collect();
                self.searched = 0;
                if self.input.is_empty() {
                    // What a long request took is given back.
                    self.input = Vec::new();
                }
                answered = self.answer(line.trim_ascii(), roles, handle);
                continue;
            }
            self.searched = self.input.len();
            let most = self.longest();
            if self.input.len() > most {
                self.output = too_long(most).line();
                self.closing = true;
                continue;
            }
            let mut piece = [0; PIECE];
            match self.stream.read(&mut piece) {
                Ok(0) => return Turn::Gone,
                Ok(length) => {
                    self.active = now;
                    self.input.extend_from_slice(piece.get(..length).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Waiting,
                Err(_) => return Turn::Gone,
            }
        }
        Turn::More
    }

    const fn longest(&self) -> usize {
        if matches!(self.role, Some(Role::Admin)) { MAX_ADMIN_LINE } else { MAX_LINE }
    }

    /// Whether the other end is closed in both directions.
    fn hung_up(&self) -> bool {
        let mut ends = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let asked = poll(&mut ends, PollTimeout::ZERO);
        let ended = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        asked.is_ok() && ends[0].revents().is_some_and(|events| events.intersects(ended))
    }

    /// Answers a line. Whether there was anything to answer.
    fn answer(&mut self, line: &[u8], roles: &Roles, handle: &mut impl FnMut(Request) -> Reply) -> bool {
        if line.is_empty() {
            return false;
        }
        let most = self.longest();
        let reply = if line.len() > most {
            too_long(most).into()
        } else {
            match parse_request(line) {
                Ok(request) => self.ask(request, roles, handle),
                Err(error) => Answer::refused(error).into(),
            }
        };
        match reply {
            Reply::Now(answer) => self.output = answer.line(),
            Reply::Later => self.waiting = true,
        }
        true
    }

    fn ask(&mut self, request: Request, roles: &Roles, handle: &mut impl FnMut(Request) -> Reply) -> Reply {
        if let Some(refusal) = roles::refusal(&request, self.role, self.peer, roles) {
            // Who may do nothing has no business here.
            self.closing = self.role.is_none();
            return refusal.into();
        }
        // Who came by another door was named there.
        if roles::needed(&request) == Role::Admin && self.fixed.is_none() {
            tracing::info!("control socket: `{}` asked for by {}", request.command.name(), self.peer);
        }
        handle(request)
    }

    /// Sends what waits. Returns whether all is sent.
    fn flush(&mut self, now: Instant) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(self.output.get(self.sent..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    self.sent += length;
                    self.active = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.output = Vec::new();
        self.sent = 0;
        Ok(true)
    }
}

fn too_long(most: usize) -> Answer {
    Answer::refused(format!("a request is at most {most} bytes"))
}
