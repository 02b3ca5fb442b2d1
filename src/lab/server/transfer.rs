//! A TCP server that receives and sends large streams at once, and checks what it receives byte for byte.
//!
//! Owns the protocol. The client says a seed and two counts (u64 each, big endian): bytes up, bytes down. It sends its
//! stream, that of the seed; the server sends its name (16 bytes, padded with NUL), the stream of the seed plus one, and at
//! last a verdict (u64): [`WHOLE`], or the place of the first byte that was wrong. Client: [`super::super::client::transfer`].

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::lab::bytes::Bytes;
use crate::lab::error::LabError;
use crate::lab::site::{Family, Site};

/// The verdict for a stream that is as it was sent.
pub const WHOLE: u64 = u64::MAX;
/// Bytes of the server's name.
pub const NAME: usize = 16;
/// Bytes that are made, sent or compared at a time.
pub const BLOCK: usize = 64 << 10;
/// How long one side waits for the other to take or give anything: several times what TCP waits before it sends again. Counted in
/// waits of the socket, so that a machine that stood still meanwhile has not used it up.
pub const STILL: Duration = Duration::from_secs(30);

/// Starts the server on `port`, on every server of the site: on the service address where it has that one, else on its own.
pub fn start_all(site: &mut Site, family: Family, port: u16) -> Result<(), LabError> {
    super::on_all(site, family, port, start)
}

/// Starts the server on one node and one address of it.
pub fn start(site: &mut Site, node: &str, address: IpAddr, port: u16) -> Result<(), LabError> {
    super::listen(site, node, address, port, "transfer", serve)
}

fn serve(connection: TcpStream, name: &str, stop: &Arc<AtomicBool>) -> io::Result<()> {
    let connection = &connection;
    connection.set_nonblocking(false)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_millis(100)))?;
    connection.set_write_timeout(Some(Duration::from_millis(100)))?;
    let mut head = [0; 24];
    read_all(connection, &mut head, stop)?;
    let number = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().unwrap_or_default());
    let (seed, up, down) = (number(0), number(8), number(16));
    let mut padded = [0; NAME];
    padded.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    let verdict = thread::scope(|scope| {
        let checked = scope.spawn(|| check(connection, &mut Bytes::new(seed), up, stop));
        let sent =
            write_all(connection, &padded, stop).and_then(|()| send(connection, seed.wrapping_add(1), down, stop));
        let checked = checked.join().unwrap_or_else(|_| Err(io::Error::other("the thread died")));
        sent.and(checked)
    })?;
    write_all(connection, &verdict.to_be_bytes(), stop)
}

/// Sends `count` bytes of the stream of `seed`.
pub fn send(connection: &TcpStream, seed: u64, count: u64, stop: &AtomicBool) -> io::Result<()> {
    let mut bytes = Bytes::new(seed);
    let mut block = vec![0; BLOCK];
    let mut left = count;
    while left > 0 {
        let part = &mut block[..usize::try_from(left).unwrap_or(BLOCK).min(BLOCK)];
        bytes.fill(part);
        write_all(connection, part, stop)?;
        left -= part.len() as u64;
    }
    Ok(())
}

/// Receives `count` bytes and compares them with a stream; returns [`WHOLE`] or the place of the first wrong byte.
pub fn check(connection: &TcpStream, expected: &mut Bytes, count: u64, stop: &AtomicBool) -> io::Result<u64> {
    let (mut block, mut same) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut done = 0;
    let mut verdict = WHOLE;
    while done < count {
        let length = usize::try_from(count - done).unwrap_or(BLOCK).min(BLOCK);
        let (block, same) = (&mut block[..length], &mut same[..length]);
        read_all(connection, block, stop)?;
        expected.fill(same);
        if verdict == WHOLE
            && let Some(wrong) = block.iter().zip(same.iter()).position(|(got, sent)| got != sent)
        {
            verdict = done + wrong as u64;
        }
        done += length as u64;
    }
    Ok(verdict)
}

/// Fills `buffer`; gives up when nothing comes for [`STILL`], or the lab ends.
pub fn read_all(mut connection: &TcpStream, buffer: &mut [u8], stop: &AtomicBool) -> io::Result<()> {
    let mut done = 0;
    let mut waited = Duration::ZERO;
    while done < buffer.len() {
        match connection.read(&mut buffer[done..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                done += count;
                waited = Duration::ZERO;
            }
            Err(error) => waits_on(error, connection.read_timeout()?, &mut waited, stop)?,
        }
    }
    Ok(())
}

/// Writes `buffer`; gives up when nothing is taken for [`STILL`], or the lab ends.
pub fn write_all(mut connection: &TcpStream, buffer: &[u8], stop: &AtomicBool) -> io::Result<()> {
    let mut done = 0;
    let mut waited = Duration::ZERO;
    while done < buffer.len() {
        match connection.write(&buffer[done..]) {
            Ok(count) => {
                done += count;
                waited = Duration::ZERO;
            }
            Err(error) => waits_on(error, connection.write_timeout()?, &mut waited, stop)?,
        }
    }
    Ok(())
}

/// Whether to go on after a call that brought nothing. `a_wait`: how long the socket waited for it.
fn waits_on(error: io::Error, a_wait: Option<Duration>, waited: &mut Duration, stop: &AtomicBool) -> io::Result<()> {
    let patient = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    if patient {
        *waited += a_wait.unwrap_or(STILL);
    }
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        _ if !patient => Err(error),
        _ if stop.load(Ordering::Relaxed) => Err(io::Error::other("the lab ends")),
        _ if *waited > STILL => Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing moved for {STILL:?}"))),
        _ => Ok(()),
    }
}
