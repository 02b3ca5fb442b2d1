//! The engine's side of the control socket, as a part of a poll loop.
//!
//! Owns the listening socket, its file with mode and group, and the clients and their order. A slow client, a flood or garbage
//! costs the loop a bounded piece of work a turn and never blocks it; admins come before all others, and get a place where there
//! is none. Never knows what a command means: a handler answers, at once or later.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::resource::{Resource, getrlimit};

use super::{Answer, Code, Request};
use crate::model::{Door, Role, Roles};
use client::{Client, Turn};

/// Most clients at once, where the process may have twice as many files open.
const MAX_CLIENTS: usize = 2048;

/// Clients that there is room for in any case.
const LEAST_CLIENTS: usize = 16;

/// Most clients that are let in in one turn.
const ACCEPTS_A_TURN: usize = 64;

/// Time in which requests are answered in one turn: then the loop looks after everything else first.
const BUDGET: Duration = Duration::from_millis(10);

/// Bytes of answers that clients have not taken, over all of them.
const MOST_PENDING: usize = 256 << 20;

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
    /// Whose turn was last.
    last: usize,
    /// Most clients at once.
    most: usize,
    roles: Roles,
    /// The user that this process runs as.
    own: u32,
    /// When it was last said that there are no descriptors.
    complained: Option<Instant>,
}

impl Server {
    /// Makes the socket with mode 0660 and registers it; root and the own user are admins, and nobody else may ask anything, until
    /// [`Server::set_roles`]. Tokens from `listening` on are the server's own: the loop
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
        Ok(Server {
            listener,
            path: path.to_owned(),
            inode,
            listening,
            next: listening.0 + 1,
            clients: BTreeMap::new(),
            ready: BTreeSet::new(),
            last: 0,
            most: room(),
            roles: Roles::default(),
            own: nix::unistd::geteuid().as_raw(),
            complained: None,
        })
    }

    /// Says who may do what from now on, clients that are there already too; the file's mode and group follow.
    pub fn set_roles(&mut self, roles: &Roles) {
        if self.roles == *roles {
            return;
        }
        let door = roles.door();
        if door != self.roles.door()
            && let Err(error) = self.open_door(door)
        {
            tracing::warn!("control socket: cannot set mode and group of {}: {error}", self.path.display());
        }
        self.roles.clone_from(roles);
        for client in self.clients.values_mut() {
            client.judge(&self.roles, self.own);
        }
    }

    fn open_door(&self, door: Door) -> io::Result<()> {
        let there = std::fs::symlink_metadata(&self.path)?;
        if (there.dev(), there.ino()) != self.inode {
            return Err(io::Error::other("it is not the one that this engine made"));
        }
        let (group, mode) = match door {
            Door::Own => (nix::unistd::getegid().as_raw(), 0o660),
            Door::Group(group) => (group, 0o660),
            Door::Open => (nix::unistd::getegid().as_raw(), 0o666),
        };
        std::os::unix::fs::chown(&self.path, None, Some(group))?;
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(mode))
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
        waiting.complete(answer, now);
        self.ready.insert(client.0);
        true
    }

    /// Whether a client still waits for its answer.
    pub fn waits(&self, client: ClientId) -> bool {
        self.clients.get(&client.0).is_some_and(|client| client.waiting)
    }

    /// Does a bounded piece of work for clients that have something to do: one request each, admins first, then the others in
    /// turn while there is time. `handle` answers requests.
    pub fn turn(&mut self, registry: &Registry, now: Instant, mut handle: impl FnMut(Request, ClientId) -> Reply) {
        let begun = Instant::now();
        if self.ready.remove(&self.listening.0) && !self.accept(registry, now) {
            self.ready.insert(self.listening.0);
        }
        let (admins, others) = self.in_turn();
        for class in [admins, others] {
            for (place, token) in class.into_iter().enumerate() {
                // One of each class in any case.
                if place > 0 && begun.elapsed() >= BUDGET {
                    break;
                }
                self.ready.remove(&token);
                self.last = token;
                let Some(client) = self.clients.get_mut(&token) else { continue };
                match client.turn(now, &self.roles, &mut |request| handle(request, ClientId(token))) {
                    Turn::Waiting => {}
                    Turn::More => {
                        self.ready.insert(token);
                    }
                    Turn::Gone => self.close(registry, token),
                }
            }
        }
        self.bound_pending(registry);
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

    /// Who has something to do: admins and the others, each beginning behind the one whose turn was last.
    fn in_turn(&self) -> (Vec<usize>, Vec<usize>) {
        let behind = self.ready.range(self.last + 1..).chain(self.ready.range(..=self.last));
        let is_admin = |token: &usize| self.clients.get(token).is_some_and(|client| client.role == Some(Role::Admin));
        // Who waits outside is no client yet.
        behind.copied().filter(|token| *token != self.listening.0).partition(is_admin)
    }

    /// Closes those that have not taken anything for longest while all together have too much to take.
    fn bound_pending(&mut self, registry: &Registry) {
        let mut pending: usize = self.clients.values().map(Client::pending).sum();
        while pending > MOST_PENDING {
            let slow = self.clients.iter().filter(|(_, client)| client.pending() > 0);
            let slowest = slow.map(|(token, client)| (client.active, *token, client.pending())).min();
            let Some((_, token, bytes)) = slowest else { return };
            if bytes == pending {
                // One answer alone.
                return;
            }
            pending -= bytes;
            self.close(registry, token);
        }
    }

    /// Lets clients in. Returns whether nobody else waits outside.
    fn accept(&mut self, registry: &Registry, now: Instant) -> bool {
        for _ in 0..ACCEPTS_A_TURN {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED)) => continue,
                Err(error) => {
                    if self.complained.is_none_or(|then| now >= then + PATIENCE) {
                        tracing::warn!("control socket: cannot accept a client: {error}");
                        self.complained = Some(now);
                    }
                    // No descriptors left, for one: somebody goes, or the listener is tried again with the next event.
                    return match self.least(Some(Role::Admin)) {
                        Some(token) => {
                            self.close(registry, token);
                            false
                        }
                        None => true,
                    };
                }
            };
            self.welcome(stream, None, registry, now);
        }
        false
    }

    /// Gives a client a place: another one's, where there is none. `fixed`: its role, whoever it is.
    fn welcome(&mut self, stream: UnixStream, fixed: Option<Role>, registry: &Registry, now: Instant) {
        let Ok(mut client) = Client::new(stream, fixed, now) else { return };
        client.judge(&self.roles, self.own);
        if self.clients.len() >= self.most {
            let Some(token) = self.least(client.role) else {
                let full = format!("{} clients are there already, and all of them wait for an answer", self.most);
                let _ = client.stream().write(&Answer::refused_as(Code::Failed, full).line());
                return;
            };
            self.close(registry, token);
        }
        let token = self.next;
        // Wraps after 2^64 clients.
        self.next += 1;
        if registry.register(client.stream(), Token(token), Interest::READABLE | Interest::WRITABLE).is_err() {
            return;
        }
        self.clients.insert(token, client);
        self.ready.insert(token);
    }

    /// Who makes room for somebody of this role: who may least, and of those the one that was silent for longest. Of their own
    /// role only those that do not wait for an answer.
    fn least(&self, role: Option<Role>) -> Option<usize> {
        let below = |client: &Client| client.role < role || client.role == role && !client.waiting;
        let all = self.clients.iter().filter(|(_, client)| below(client));
        all.min_by_key(|(_, client)| (client.role, client.waiting, client.active)).map(|(token, _)| *token)
    }

    /// Takes a client that this process let in by another door, with the role that it has there. It counts as the others do.
    pub fn adopt(&mut self, stream: std::os::unix::net::UnixStream, role: Role, registry: &Registry, now: Instant) {
        if stream.set_nonblocking(true).is_ok() {
            self.welcome(UnixStream::from_std(stream), Some(role), registry, now);
        }
    }

    fn close(&mut self, registry: &Registry, token: usize) {
        if let Some(mut client) = self.clients.remove(&token) {
            let _ = registry.deregister(client.stream());
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

/// Clients that there is room for: half of the files that this process may have open, as checks need some, too.
fn room() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(files / 2).unwrap_or(usize::MAX).clamp(LEAST_CLIENTS, MAX_CLIENTS)
}

/// The process that listens on a socket, if one does.
fn live(path: &Path) -> Option<i32> {
    let stream = std::os::unix::net::UnixStream::connect(path).ok()?;
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials);
    Some(peer.map_or(0, |peer| peer.pid()))
}
