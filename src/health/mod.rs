//! Health checks: thousands of them on one thread, each honest about what it saw.
//!
//! Owns what is asked of a server, when, and what the answers say of it: up or down, why, and which weight. Never decides
//! what that means for a service: it reports, and `control` judges.
//!
//! ```text
//! machine, schedule                                   (pure: results to states, what is due)
//! dialogue/{http, dns, smtp, grpc, udp}               (pure: bytes in, bytes out, a result)
//! probe/{stream, tls, datagram, raw} <- driver        (sockets, the thread `health`)
//! runner                                              (scripts and files, the thread `health-run`)
//! ```

pub mod dialogue;
pub mod driver;
pub mod machine;
mod probe;
pub mod record;
mod runner;
pub mod schedule;

use std::fmt;

use crate::model::Weigh;

pub use driver::{Checker, CheckerError, Event, Plan, Wiring};
pub use record::{Record, RecordStatus};

/// What names a check between the thread that runs it and whoever asked for it. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId(pub u64);

/// What one attempt, or one run, has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server did what was wanted.
    Good {
        /// In words, where there is something to say: `status 200`.
        said: String,
        /// What it says about the weight.
        weigh: Option<Weigh>,
        /// What somebody should look after though it is good: the certificate ends in 5 days.
        warning: Option<String>,
    },
    /// The server did not.
    Bad(Failure),
    /// This machine could not ask, for a reason of its own: that says nothing of the server, and changes nothing.
    Unable(String),
}

impl Outcome {
    /// Good, and there is nothing else to say but this.
    pub fn good(said: impl Into<String>) -> Outcome {
        Outcome::Good { said: said.into(), weigh: None, warning: None }
    }

    /// Bad, for that reason.
    pub fn bad(reason: Reason, words: impl Into<String>) -> Outcome {
        Outcome::Bad(Failure { reason, words: words.into() })
    }
}

/// Why a server is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// By what it is counted.
    pub reason: Reason,
    /// A sentence without a full stop: `connection refused`, `status 503, wanted 200-299`, `no reply in 2 s`.
    pub words: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Kinds of failure: what is counted, and what metrics and JSON name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The host refused the connection, or said that the port is unreachable.
    Refused,
    /// There is no way to the host, or a router said so.
    Unreachable,
    /// It took too long.
    Timeout,
    /// The connection ended before the answer was whole.
    Closed,
    /// The answer is not of the protocol.
    Malformed,
    /// The answer is larger than a check reads.
    TooLarge,
    /// The answer is of the protocol, but not the wanted one: a status, a code, a state.
    Answer,
    /// The body, its digest or a reply has not what is wanted.
    Content,
    /// No TLS, or not with this server.
    Tls,
    /// The certificate is not valid.
    Certificate,
    /// The script failed, was killed or could not be started.
    Script,
    /// The file cannot be read, or says no.
    File,
}

impl Reason {
    /// All, in the order of the documentation.
    pub const ALL: [Reason; 12] = [
        Reason::Refused,
        Reason::Unreachable,
        Reason::Timeout,
        Reason::Closed,
        Reason::Malformed,
        Reason::TooLarge,
        Reason::Answer,
        Reason::Content,
        Reason::Tls,
        Reason::Certificate,
        Reason::Script,
        Reason::File,
    ];

    /// Name as in JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Refused => "refused",
            Reason::Unreachable => "unreachable",
            Reason::Timeout => "timeout",
            Reason::Closed => "closed",
            Reason::Malformed => "malformed",
            Reason::TooLarge => "too-large",
            Reason::Answer => "answer",
            Reason::Content => "content",
            Reason::Tls => "tls",
            Reason::Certificate => "certificate",
            Reason::Script => "script",
            Reason::File => "file",
        }
    }
}
