//! What is said to a server and what its answer means, protocol by protocol: bytes in, bytes out, an outcome. Pure.
//!
//! Owns the limits of what is read and kept. Never holds a socket and never sees a clock: who carries the bytes also ends what
//! takes too long.

use super::Outcome;

/// What follows from what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More must come.
    Wait,
    /// More must come, on a new connection to the same place: this one is closed, and [`Dialogue::begin`] is called again.
    Reconnect,
    /// That is all: the connection is closed.
    Done(Outcome),
}

/// A conversation over a stream, TLS below it or not. What is to be sent is appended to `out`.
pub trait Dialogue: Send {
    /// The connection is there.
    fn begin(&mut self, out: &mut Vec<u8>) -> Progress;
    /// Bytes came. Never called with none.
    fn received(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Progress;
    /// The other side ended the stream; nothing more will come.
    fn ended(&mut self) -> Progress;
}

/// A question and an answer over datagrams.
pub trait Exchange: Send {
    /// What is sent.
    fn question(&mut self) -> Vec<u8>;
    /// A datagram came from the right place. [`Progress::Wait`] for one that is not the answer.
    fn received(&mut self, datagram: &[u8]) -> Progress;
    /// Whether silence is good: nothing but an ICMP error is a failure.
    fn silence_is_good(&self) -> bool {
        false
    }
}
