//! A TCP server that answers every block with its name and a hash of all that the connection carried so far.
//!
//! Owns the protocol: a block is a length (u32, big endian) and that many bytes; the answer is a line `NAME HASH`. A lost,
//! doubled or foreign byte anywhere in a connection's life shows in every later answer. Client: [`super::super::client::stream`].

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::lab::error::LabError;
use crate::lab::site::{Family, Site};

/// Largest block.
pub const MAX_BLOCK: usize = 1 << 20;

/// FNV-1a with 64 bits, over a stream.
#[derive(Clone, Copy, Debug)]
pub struct RunningHash(u64);

impl Default for RunningHash {
    fn default() -> Self {
        RunningHash(0xcbf2_9ce4_8422_2325)
    }
}

impl RunningHash {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash of all bytes so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// Starts the server on `port`, on every server of the site: on the service address where it has that one, else on its own.
pub fn start_all(site: &mut Site, family: Family, port: u16) -> Result<(), LabError> {
    super::on_all(site, family, port, start)
}

/// Starts the server on one node and one address of it.
pub fn start(site: &mut Site, node: &str, address: IpAddr, port: u16) -> Result<(), LabError> {
    super::listen(site, node, address, port, "hash", serve)
}

fn serve(mut connection: TcpStream, name: &str, stop: &Arc<AtomicBool>) -> io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut hash = RunningHash::default();
    let mut block = vec![0; MAX_BLOCK];
    loop {
        let mut length = [0; 4];
        if !read_all(&mut connection, &mut length, stop)? {
            return Ok(());
        }
        let length = u32::from_be_bytes(length) as usize;
        let Some(block) = block.get_mut(..length) else { return Ok(()) };
        if !read_all(&mut connection, block, stop)? {
            return Ok(());
        }
        hash.update(block);
        connection.write_all(format!("{name} {:016x}\n", hash.value()).as_bytes())?;
    }
}

/// Fills `buffer`, looking at `stop` between reads; `false` when the other side has closed or the lab ends.
fn read_all(connection: &mut TcpStream, buffer: &mut [u8], stop: &AtomicBool) -> io::Result<bool> {
    let mut done = 0;
    while done < buffer.len() {
        match connection.read(&mut buffer[done..]) {
            Ok(0) => return Ok(false),
            Ok(count) => done += count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_does_not_depend_on_how_the_stream_is_cut_and_matches_the_published_vector() {
        let mut whole = RunningHash::default();
        whole.update(b"foobar");
        let mut cut = RunningHash::default();
        cut.update(b"foo");
        cut.update(b"bar");
        assert_eq!(whole.value(), cut.value());
        assert_eq!(whole.value(), 0x85944171f73967e8);
    }
}
