//! What the status says of the web listener. Pure.

use serde::{Deserialize, Serialize};

/// The web listener. Counters are since start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebStatus {
    /// Where it listens, or should.
    pub addresses: Vec<String>,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// How many users there are; absent: everybody is a reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<usize>,
    /// Why it does not listen where it should, if so.
    pub trouble: Option<String>,
    /// Connections now.
    pub connections: u64,
    /// Connections that were let in.
    pub accepted: u64,
    /// Connections for which there was no place.
    pub refused_busy: u64,
    /// Idle connections that gave way to newer ones.
    pub gave_way: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// What was no request, or not one that may be.
    pub bad_requests: u64,
    /// Wrong names or passwords.
    pub wrong_passwords: u64,
    /// Passwords that were not looked at, as too many were wrong before.
    pub limited: u64,
    /// Clients that took too long to ask or to read.
    pub timeouts: u64,
    /// TLS handshakes that failed.
    pub failed_handshakes: u64,
}
