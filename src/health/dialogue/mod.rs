//! What is said to a server and what its answer means, protocol by protocol: bytes in, bytes out, an outcome. Pure.
//!
//! Owns the limits of what is read and kept, and how foreign bytes are shown to people. What comes out never depends on how
//! the bytes of a stream were split. Never holds a socket and never sees a clock: who carries the bytes also ends what takes
//! too long.

mod dns;
mod grpc;
mod http;
mod smtp;
mod udp;

use std::fmt::Write;

use super::{Outcome, Reason};
use crate::model::{Check, CheckKind};

pub use dns::{CODES, dns_problem, dns_tcp, dns_udp};
pub use grpc::grpc;
pub use http::{http, regex_problem};
pub use smtp::smtp;
pub use udp::udp;

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

impl Progress {
    /// That is all, and it is bad.
    pub(crate) fn bad(reason: Reason, words: impl Into<String>) -> Progress {
        Progress::Done(Outcome::bad(reason, words))
    }
}

/// A conversation over a stream, TLS below it or not. What is to be sent is appended to `out`.
///
/// After [`Progress::Done`] nothing is called any more; after [`Progress::Reconnect`] only [`Dialogue::begin`], and what
/// still comes over the old connection is thrown away.
pub trait Dialogue: Send {
    /// The connection is there.
    fn begin(&mut self, out: &mut Vec<u8>) -> Progress;
    /// Bytes came. Never called with none.
    fn received(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Progress;
    /// The other side ended the stream; nothing more will come.
    fn ended(&mut self) -> Progress;
    /// What is waited for now, for the words of a timeout: `no <this> in 2 s`.
    fn awaited(&self) -> &'static str {
        "reply"
    }
    /// Protocols that TLS below it must offer (ALPN), best first; none: it offers nothing.
    fn alpn(&self) -> &'static [&'static [u8]] {
        &[]
    }
}

/// A question and an answer over datagrams.
pub trait Exchange: Send {
    /// What is sent. The same each time, so that it can be sent again.
    fn question(&mut self) -> Vec<u8>;
    /// A datagram came from the right place. [`Progress::Wait`] for one that is not the answer.
    fn received(&mut self, datagram: &[u8]) -> Progress;
    /// Whether silence is good: nothing but an ICMP error is a failure.
    fn silence_is_good(&self) -> bool {
        false
    }
}

/// The conversation of a check over a stream; `None` for kinds without one (plain TCP is good as soon as it is connected).
/// `random` is for what an outsider must not guess.
pub fn dialogue(check: &Check, random: u64) -> Option<Box<dyn Dialogue>> {
    match &check.kind {
        CheckKind::Dns(asked) if asked.tcp => Some(dns_tcp(asked, random as u16)),
        CheckKind::Http(asked) => Some(http(asked, &check.target)),
        CheckKind::Grpc(asked) => Some(grpc(asked, &check.target)),
        CheckKind::Smtp(asked) => Some(smtp(asked)),
        _ => None,
    }
}

/// The question of a check over datagrams; `None` for kinds without one.
pub fn exchange(check: &Check, random: u64) -> Option<Box<dyn Exchange>> {
    match &check.kind {
        CheckKind::Dns(asked) if !asked.tcp => Some(dns_udp(asked, random as u16)),
        CheckKind::Udp(asked) => Some(udp(asked)),
        _ => None,
    }
}

/// Characters of a server's words that are shown.
const SHOWN: usize = 60;

/// Foreign bytes for people: text in backquotes where it is printable ASCII, else hex; cut to what fits a line.
fn shown(bytes: &[u8]) -> String {
    let text = bytes.trim_ascii_end();
    let printable = !text.is_empty() && text.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let (most, text) = if printable { (SHOWN, text) } else { (SHOWN / 3, bytes) };
    let (head, cut) = if text.len() > most { (&text[..most], "...") } else { (text, "") };
    if printable {
        return format!("`{}{cut}`", String::from_utf8_lossy(head).replace('\t', " "));
    }
    if head.is_empty() {
        return "nothing".to_owned();
    }
    let mut words = String::from("hex");
    for byte in head {
        let _ = write!(words, " {byte:02x}");
    }
    words + cut
}

/// Foreign text for people: one line of printable characters, cut.
fn line(text: &str) -> String {
    let mut out: String =
        text.trim().chars().take(SHOWN).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if text.trim().chars().nth(SHOWN).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests;
