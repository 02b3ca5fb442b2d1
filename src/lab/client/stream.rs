//! Long-lived connections that notice any change of their server.
//!
//! Owns clients of [`crate::lab::server::hash`] (every byte checked) and of plain HTTP with keep-alive. A connection that
//! breaks is reported, never reopened.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::http::HttpConnection;
use crate::lab::error::LabError;
use crate::lab::netns::Namespace;
use crate::lab::server::hash::RunningHash;

/// What the connections speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Blocks of this many bytes, answered by a running hash.
    Hash(usize),
    /// `GET /` with keep-alive.
    Http,
}

/// What became of one connection.
#[derive(Clone, Debug, Default)]
pub struct StreamState {
    /// The server that answered first.
    pub server: Option<String>,
    /// Exchanges that were right.
    pub exchanges: u64,
    /// What went wrong; nothing follows.
    pub broken: Option<String>,
    /// Whether it has ended in good order.
    pub ended: bool,
}

/// Long-lived connections; closed when dropped.
pub struct Streams {
    stop: Arc<AtomicBool>,
    hang_up: Arc<Mutex<Vec<String>>>,
    states: Arc<Vec<Mutex<StreamState>>>,
    exchanges: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    /// Opens `count` connections inside `namespace`; each makes an exchange every `pause`.
    pub fn open(
        namespace: &Namespace,
        target: SocketAddr,
        speech: Speech,
        count: usize,
        pause: Duration,
    ) -> Result<Self, LabError> {
        let mut streams = Streams {
            stop: Arc::default(),
            hang_up: Arc::default(),
            states: Arc::new((0..count).map(|_| Mutex::default()).collect()),
            exchanges: Arc::default(),
            threads: Vec::new(),
        };
        for number in 0..count {
            let (stop, hang_up) = (Arc::clone(&streams.stop), Arc::clone(&streams.hang_up));
            let (states, exchanges) = (Arc::clone(&streams.states), Arc::clone(&streams.exchanges));
            let thread = namespace.thread(&format!("stream-{number}"), move || {
                let state = &states[number];
                match talk(target, speech, pause, &stop, &hang_up, state, &exchanges) {
                    Ok(()) => lock(state).ended = true,
                    Err(error) => lock(state).broken = Some(error.to_string()),
                }
            })?;
            streams.threads.push(thread);
        }
        Ok(streams)
    }

    /// Waits until every connection has made its first exchange or broken; `false` when some did neither in time.
    pub fn settled(&self, within: Duration) -> bool {
        let steps = within.as_millis() / 5;
        (0..=steps).any(|_| {
            let ready = self.states().iter().all(|state| state.exchanges > 0 || state.broken.is_some());
            if !ready {
                thread::sleep(Duration::from_millis(5));
            }
            ready
        })
    }

    /// What became of each connection so far.
    pub fn states(&self) -> Vec<StreamState> {
        self.states.iter().map(|state| lock(state).clone()).collect()
    }

    /// Open connections by server.
    pub fn by_server(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for state in self.states() {
            if let (Some(server), None, false) = (state.server, state.broken, state.ended) {
                *counts.entry(server).or_default() += 1;
            }
        }
        counts
    }

    /// What went wrong, one entry a broken connection.
    pub fn broken(&self) -> Vec<String> {
        self.states()
            .into_iter()
            .filter_map(|state| Some(format!("{}: {}", state.server.as_deref().unwrap_or("no server"), state.broken?)))
            .collect()
    }

    /// Right exchanges, all connections together.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Tells the connections of one server to end in good order.
    pub fn hang_up_on(&self, server: &str) {
        lock(&self.hang_up).push(server.to_owned());
    }

    /// Ends all connections and returns what became of them.
    pub fn close(mut self) -> Vec<StreamState> {
        self.join();
        self.states()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.join();
    }
}

/// A connection that can make one exchange and say who answered.
enum Talker {
    Hash { connection: BufReader<TcpStream>, hash: RunningHash, block: Vec<u8> },
    Http(HttpConnection),
}

impl Talker {
    fn open(target: SocketAddr, speech: Speech) -> io::Result<Self> {
        let patience = Duration::from_secs(5);
        Ok(match speech {
            Speech::Http => Talker::Http(HttpConnection::open(target, patience)?),
            Speech::Hash(size) => {
                let stream = TcpStream::connect_timeout(&target, patience)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                let block = vec![0; size];
                Talker::Hash { connection: BufReader::new(stream), hash: RunningHash::default(), block }
            }
        })
    }

    fn exchange(&mut self, number: u64) -> io::Result<String> {
        match self {
            Talker::Http(connection) => connection.get("/", false).map(|response| response.server),
            Talker::Hash { connection, hash, block } => {
                for (index, byte) in block.iter_mut().enumerate() {
                    *byte = (number as usize).wrapping_mul(31).wrapping_add(index * 7) as u8;
                }
                hash.update(block);
                let mut message = u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
                message.extend_from_slice(block);
                connection.get_mut().write_all(&message)?;
                let mut line = String::new();
                connection.read_line(&mut line)?;
                let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
                let (server, answer) =
                    line.trim_end().split_once(' ').ok_or_else(|| wrong(format!("answered {line:?}")))?;
                if answer == format!("{:016x}", hash.value()) {
                    Ok(server.to_owned())
                } else {
                    Err(wrong(format!("{server} received something else: exchange {number}")))
                }
            }
        }
    }
}

fn talk(
    target: SocketAddr,
    speech: Speech,
    pause: Duration,
    stop: &AtomicBool,
    hang_up: &Mutex<Vec<String>>,
    state: &Mutex<StreamState>,
    exchanges: &AtomicU64,
) -> io::Result<()> {
    let mut talker = Talker::open(target, speech)?;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let answered = talker.exchange(number)?;
        number += 1;
        exchanges.fetch_add(1, Ordering::Relaxed);
        let first = {
            let mut state = lock(state);
            state.exchanges = number;
            state.server.get_or_insert_with(|| answered.clone()).clone()
        };
        if first != answered {
            return Err(io::Error::other(format!("moved to {answered}")));
        }
        if lock(hang_up).contains(&first) {
            return Ok(());
        }
        thread::sleep(pause);
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
