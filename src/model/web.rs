//! The web listener: where it listens, who may see what, by which certificate.
//!
//! Owns plain values. Never opens anything. Pure.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::Role;

/// The web listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Addresses of this machine that it listens on.
    pub listen: Vec<IpAddr>,
    /// TCP port, host order.
    pub port: u16,
    /// Certificate and key; `None`: plain HTTP.
    pub tls: Option<WebTls>,
    /// Who gets in, by password; `None`: everybody, as a reader.
    pub users: Option<WebUsers>,
}

impl Web {
    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        self.listen.iter().all(|address| address.to_canonical().is_loopback())
    }
}

/// Certificate and key as they were when the configuration was read.
#[derive(Clone, PartialEq, Eq)]
pub struct WebTls {
    /// The file with the chain.
    pub certificate: PathBuf,
    /// The file with the key.
    pub key: PathBuf,
    /// What they hold, PEM.
    pub chain: Vec<u8>,
    /// The same of the key; never shown.
    pub secret: Vec<u8>,
}

impl fmt::Debug for WebTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebTls").field("certificate", &self.certificate).field("key", &self.key).finish_non_exhaustive()
    }
}

/// Users as their file was when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUsers {
    /// The file.
    pub file: PathBuf,
    /// Each by its own line.
    pub list: Vec<WebUser>,
}

/// Somebody with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUser {
    /// The name.
    pub name: String,
    /// The password's bcrypt hash, as `htpasswd -B` writes it; never shown.
    pub hash: String,
    /// What this user may do.
    pub role: Role,
}

impl fmt::Debug for WebUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebUser").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}
