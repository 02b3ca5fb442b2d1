//! The engine's side of the control socket, as a part of a poll loop.
//!
//! Owns the listening socket, its file, and the clients' buffers. A slow client, a flood or garbage costs the loop a
//! bounded piece of work a turn and never blocks it. Never knows what a command means: a handler answers, at once or later.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Answer, MAX_LINE, Request, parse_request};

/// Most clients at once; more are told so and closed.
const MAX_CLIENTS: usize = 256;

/// Most requests that one client has answered in one turn.
const REQUESTS_A_TURN: usize = 8;

/// A client that neither asks nor reads for so long is closed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another engine has it.
    #[error("already running, pid {pid}: it answers on {}", path.display())]
    Running {
        /// Its process.
        pid: i32,
        /// The socket.
        path: PathBuf,
    },
    /// Something else is in its place.
    #[error("{} exists and is no socket; remove it, or choose another path in `[control]`", .0.display())]
    Occupied(PathBuf),
    /// The file system refuses.
    #[error("cannot make the control socket {}", path.display())]
    Make {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A client, for an answer that is given later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub(in crate::control) usize);

/// What a handler says to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The answer.
    Now(Answer),
    /// The answer comes by [`Server::complete`]. Until then the client waits, and nothing more is read from it. The handler
    /// sees to it that it comes.
    Later,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Reply {
        Reply::Now(answer)
    }
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    active: Instant,
    /// No more is read: what is in `output` is sent, then the client is closed.
    closing: bool,
    /// Its answer comes later.
    waiting: bool,
}

/// The listening socket and its clients.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
    listening: Token,
    next: usize,
    clients: BTreeMap<usize, Client>,
    /// Tokens with something to do.
    ready: BTreeSet<usize>,
}

impl Server {
    /// Makes the socket with mode 0660 and registers it. Tokens from `listening` on are the server's own: the loop
    /// must not use them. The socket file of a dead process is replaced.
    ///
    /// # Errors
    /// [`SocketError::Running`] when a live process answers there.
    pub fn bind(path: &Path, registry: &Registry, listening: Token) -> Result<Server, SocketError> {
        let make = |source| SocketError::Make { path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => return Err(SocketError::Occupied(path.to_owned())),
            Ok(_) => {
                if let Some(pid) = live(path) {
                    return Err(SocketError::Running { pid, path: path.to_owned() });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(make(error)),
        }
        // Made under another name, so that nobody sees it with other permissions; the rename replaces a dead one.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(name);
        let _ = std::fs::remove_file(&draft);
        let made = UnixListener::bind(&draft).and_then(|listener| {
            std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o660))?;
            std::fs::rename(&draft, path)?;
            let there = std::fs::symlink_metadata(path)?;
            Ok((listener, (there.dev(), there.ino())))
        });
        let (mut listener, inode) = made.map_err(|error| {
            let _ = std::fs::remove_file(&draft);
            make(error)
        })?;
        registry.register(&mut listener, listening, Interest::READABLE).map_err(make)?;
        let (clients, ready) = (BTreeMap::new(), BTreeSet::new());
        Ok(Server { listener, path: path.to_owned(), inode, listening, next: listening.0 + 1, clients, ready })
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes an event of the loop. Returns whether it was the server's.
    pub fn note(&mut self, token: Token) -> bool {
        if token < self.listening {
            return false;
        }
        self.ready.insert(token.0);
        true
    }

    /// When [`Server::turn`] must be called at the latest, besides after events.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(now);
        }
        self.clients.values().filter(|client| !client.waiting).map(|client| client.active + PATIENCE).min()
    }

    /// Gives the answer to a request that was left for later. `false`: its client is gone.
    pub fn complete(&mut self, client: ClientId, answer: &Answer, now: Instant) -> bool {
        let Some(waiting) = self.clients.get_mut(&client.0).filter(|client| client.waiting) else { return false };
        waiting.waiting = false;
        waiting.active = now;
        waiting.output = answer.line();
        self.ready.insert(client.0);
        true
    }

    /// Whether a client still waits for its answer.
    pub fn waits(&self, client: ClientId) -> bool {
        self.clients.get(&client.0).is_some_and(|client| client.waiting)
    }

    /// Does a bounded piece of work for every client that has something to do. `handle` answers requests.
    pub fn turn(&mut self, registry: &Registry, now: Instant, mut handle: impl FnMut(Request, ClientId) -> Reply) {
        let ready = std::mem::take(&mut self.ready);
        for token in ready {
            if token == self.listening.0 {
                self.accept(registry, now);
                continue;
            }
            let Some(client) = self.clients.get_mut(&token) else { continue };
            match client.turn(now, |request| handle(request, ClientId(token))) {
                Turn::Waiting => {}
                Turn::More => {
                    self.ready.insert(token);
                }
                Turn::Gone => self.close(registry, token),
            }
        }
        let tired: Vec<usize> = self
            .clients
            .iter()
            .filter(|(_, client)| !client.waiting && now >= client.active + PATIENCE)
            .map(|(token, _)| *token)
            .collect();
        for token in tired {
            self.close(registry, token);
        }
    }

    fn accept(&mut self, registry: &Registry, now: Instant) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED)) => continue,
                // No descriptors left, for one: the listener stays ready, and is tried again when a client went.
                Err(error) => {
                    tracing::warn!("control socket: cannot accept a client: {error}");
                    return;
                }
            };
            if self.clients.len() >= MAX_CLIENTS {
                let _ = stream.write(&Answer::refused(format!("more than {MAX_CLIENTS} clients")).line());
                continue;
            }
            let token = self.next;
            // Wraps after 2^64 clients.
            self.next += 1;
            if registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE).is_err() {
                continue;
            }
            let (input, output) = (Vec::new(), Vec::new());
            let client = Client { stream, input, output, sent: 0, active: now, closing: false, waiting: false };
            self.clients.insert(token, client);
            self.ready.insert(token);
        }
    }

    fn close(&mut self, registry: &Registry, token: usize) {
        if let Some(mut client) = self.clients.remove(&token) {
            let _ = registry.deregister(&mut client.stream);
            // Room for one that could not be accepted before.
            self.ready.insert(self.listening.0);
        }
    }
}

impl Drop for Server {
    /// Removes the socket's file, if it is still ours.
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.inode);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

enum Turn {
    /// Nothing to do until the next event.
    Waiting,
    /// More to do without one.
    More,
    /// To be closed.
    Gone,
}

impl Client {
    /// Sends what waits, then reads and answers, a bounded number of requests. A client that does not read its
    /// answers is not read from either.
    fn turn(&mut self, now: Instant, mut handle: impl FnMut(Request) -> Reply) -> Turn {
        for _ in 0..REQUESTS_A_TURN {
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
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                self.answer(line.trim_ascii(), &mut handle);
                continue;
            }
            if self.input.len() > MAX_LINE {
                self.output = Answer::refused(format!("a request is at most {MAX_LINE} bytes")).line();
                self.closing = true;
                continue;
            }
            let mut piece = [0; 4096];
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

    /// Whether the other end is closed in both directions.
    fn hung_up(&self) -> bool {
        let mut ends = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let asked = poll(&mut ends, PollTimeout::ZERO);
        let ended = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        asked.is_ok() && ends[0].revents().is_some_and(|events| events.intersects(ended))
    }

    fn answer(&mut self, line: &[u8], handle: &mut impl FnMut(Request) -> Reply) {
        if line.is_empty() {
            return;
        }
        let reply = if line.len() > MAX_LINE {
            Answer::refused(format!("a request is at most {MAX_LINE} bytes")).into()
        } else {
            match parse_request(line) {
                Ok(request) => handle(request),
                Err(error) => Answer::refused(error).into(),
            }
        };
        match reply {
            Reply::Now(answer) => self.output = answer.line(),
            Reply::Later => self.waiting = true,
        }
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

/// The process that listens on a socket, if one does.
fn live(path: &Path) -> Option<i32> {
    let stream = std::os::unix::net::UnixStream::connect(path).ok()?;
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials);
    Some(peer.map_or(0, |peer| peer.pid()))
}
