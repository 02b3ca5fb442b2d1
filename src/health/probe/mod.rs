//! One attempt of each kind of check: its sockets, and what came over them.
//!
//! Owns the sockets of attempts and what they may read. Never knows how often a check runs, and ends nothing for its time: the
//! driver does, and asks what to call it.

pub mod datagram;
mod filter;
pub mod packet;
pub mod raw;
mod socket;
pub mod stream;
pub mod tls;
pub mod words;

pub use socket::Way;

use mio::Registry;

use super::Outcome;

/// What became of an attempt that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It waits for its socket.
    Wait,
    /// There is more to read: it shall be looked at again after the others.
    Again,
    /// It is over.
    Done(Outcome),
}

/// What attempts share while they are looked at.
pub struct Ground<'a> {
    /// Where their sockets are registered.
    pub registry: &'a Registry,
    /// The way for checks with `path = "service"`.
    pub way: &'a mut Way,
    /// What is read goes here first.
    pub buffer: &'a mut [u8],
}
