//! Large streams in both directions at once, checked byte for byte at both ends.
//!
//! Owns one connection to [`crate::lab::server::transfer`]. Every wait is bounded: a transfer that stands still fails and
//! says where it stood.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::bytes::Bytes;
use crate::lab::error::LabError;
use crate::lab::netns::Namespace;
use crate::lab::server::transfer::{NAME, WHOLE, check, read_all, send, write_all};

/// How much to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the bytes.
    pub seed: u64,
    /// Bytes to the server.
    pub up: u64,
    /// Bytes from the server.
    pub down: u64,
}

/// A transfer that arrived whole at both ends.
#[derive(Clone, Debug)]
pub struct Transferred {
    /// The server.
    pub server: String,
    /// Bytes in both directions.
    pub bytes: u64,
    /// From connecting to the server's verdict.
    pub took: Duration,
}

impl Transferred {
    /// Megabits in a second, both directions together.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 8e-6 / self.took.as_secs_f64().max(1e-9)
    }
}

impl fmt::Display for Transferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.bytes >> 20;
        write!(f, "{mib} MiB with {} in {:.2} s, {:.0} Mbit/s", self.server, self.took.as_secs_f64(), self.rate())
    }
}

/// Makes one transfer from the calling thread's namespace.
pub fn transfer(target: SocketAddr, plan: Plan) -> io::Result<Transferred> {
    let start = Instant::now();
    let never = AtomicBool::new(false);
    let connection = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_millis(500)))?;
    connection.set_write_timeout(Some(Duration::from_millis(500)))?;
    let mut head = Vec::with_capacity(24);
    [plan.seed, plan.up, plan.down].iter().for_each(|number| head.extend(number.to_be_bytes()));
    write_all(&connection, &head, &never).map_err(|error| told("sending the head", error))?;
    let (name, received) = thread::scope(|scope| {
        let sent = scope.spawn(|| send(&connection, plan.seed, plan.up, &never));
        let received = || -> io::Result<([u8; NAME], u64)> {
            let mut name = [0; NAME];
            read_all(&connection, &mut name, &never)?;
            let mut expected = Bytes::new(plan.seed.wrapping_add(1));
            Ok((name, check(&connection, &mut expected, plan.down, &never)?))
        };
        let received = received().map_err(|error| told("receiving", error));
        let sent = sent.join().unwrap_or_else(|_| Err(io::Error::other("the thread died")));
        sent.map_err(|error| told("sending", error)).and(received)
    })?;
    let mut verdict = [0; 8];
    read_all(&connection, &mut verdict, &never).map_err(|error| told("awaiting the server's verdict", error))?;
    for (verdict, way) in [(received, "from the server"), (u64::from_be_bytes(verdict), "to the server")] {
        if verdict != WHOLE {
            let words = format!("byte {verdict} of the stream {way} is wrong");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
    }
    let server = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
    Ok(Transferred { server, bytes: plan.up + plan.down, took: start.elapsed() })
}

/// Makes `count` transfers at the same time inside `namespace`, each with a seed of its own.
pub fn at_once(
    namespace: &Namespace,
    target: SocketAddr,
    plan: Plan,
    count: u64,
) -> Result<Vec<io::Result<Transferred>>, LabError> {
    let handles: Result<Vec<_>, LabError> = (0..count)
        .map(|number| {
            let plan = Plan { seed: plan.seed + 2 * number, ..plan };
            let (done, outcome) = std::sync::mpsc::sync_channel(1);
            let thread =
                namespace.thread(&format!("transfer-{number}"), move || drop(done.send(transfer(target, plan))))?;
            Ok((thread, outcome))
        })
        .collect();
    let died = |_| Err(io::Error::other("the thread died"));
    Ok(handles?
        .into_iter()
        .map(|(thread, outcome)| {
            let outcome = outcome.recv().unwrap_or_else(died);
            let _ = thread.join();
            outcome
        })
        .collect())
}

fn told(doing: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}
