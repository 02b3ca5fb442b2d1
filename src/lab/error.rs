//! What can go wrong while a lab is built or used.
//!
//! Owns the error type of the lab and the extension that says what was being done. Never prints anything.

use std::io;
use std::time::Duration;

/// An operation of the lab that failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system call or a file operation failed.
    #[error("{doing}: {source}")]
    Io {
        /// What the lab was doing, with the names involved.
        doing: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The lab needs privileges that the process does not have.
    #[error("network namespaces need root (CAP_SYS_ADMIN and CAP_NET_ADMIN); run this with sudo")]
    NotRoot,
    /// A program that the lab starts is not installed.
    #[error("`{program}` is not installed; on Debian: apt-get install {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {after:?}{detail}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long.
        after: Duration,
        /// More to say, beginning with its own separator, or empty.
        detail: String,
    },
    /// A node, segment or scenario that the lab does not have.
    #[error("there is no {kind} named `{name}`; there are: {known}")]
    Unknown {
        /// What was looked for.
        kind: &'static str,
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// Something ran but said or did the wrong thing.
    #[error("{0}")]
    Unexpected(String),
}

/// Says what was being done when an `io::Error` or a nix `Errno` came back.
pub trait Doing<T> {
    /// Turns the error into a [`LabError`] that begins with `doing()`.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|error| LabError::Io { doing: doing(), source: error.into() })
    }
}
