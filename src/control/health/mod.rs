//! What checks, people and traffic mean to servers and services.
//!
//! Owns the nouns of that: what was decided by hand, how a server stands, what happened. Never asks a server anything: the
//! checks are [`crate::health`]'s.
//!
//! ```text
//! checks   (pure: which checks there are, each once, and their ids)
//! meaning  (pure: check results, reachability, people, traffic -> how each server stands, and what happened)
//! egress   (the way of checks with path = "service")
//! watch    (what the running engine holds: the checker, its events, their meaning)
//! admin, drain_files, events, notify, client   (what people and their programs say and are told)
//! ```

pub mod admin;
pub mod checks;
pub mod client;
pub mod drain_files;
pub mod egress;
pub mod events;
pub mod meaning;
pub mod notify;
pub mod watch;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{ServerKey, ServiceKey};

/// What people want of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// It serves, if its checks are good.
    #[default]
    Ready,
    /// It takes no new flows; those that it has meet the service's `drain_deadline`.
    Drain,
    /// It is out: no new flows and no persistent clients, and its flows meet [`crate::model::Fates::down`].
    Maintenance,
}

impl Admin {
    /// Name as in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
            Admin::Maintenance => "maintenance",
        }
    }
}

/// How a server of a service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// A check has no result yet, or its Ethernet address is being asked for.
    #[default]
    Starting,
    /// All is well.
    Up,
    /// A check fails, or it cannot be reached.
    Down,
    /// It drains.
    Draining,
    /// It is out by hand.
    Maintenance,
    /// Its clients' packets met too many failures (passive checks).
    Ejected,
    /// It failed too often of late (damping).
    Held,
}

impl ServerState {
    /// The word in `evenkeel status`.
    pub const fn word(self) -> &'static str {
        match self {
            ServerState::Starting => "STARTING",
            ServerState::Up => "UP",
            ServerState::Down => "DOWN",
            ServerState::Draining => "DRAIN",
            ServerState::Maintenance => "MAINT",
            ServerState::Ejected => "EJECTED",
            ServerState::Held => "HELD",
        }
    }

    /// Name as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            ServerState::Starting => "starting",
            ServerState::Up => "up",
            ServerState::Down => "down",
            ServerState::Draining => "draining",
            ServerState::Maintenance => "maintenance",
            ServerState::Ejected => "ejected",
            ServerState::Held => "held",
        }
    }
}

/// How a server stands, as the data plane needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Weight for the scheduler. While a server of the service ramps up, all of the service's weights are ten times theirs.
    pub weight: u32,
    /// Whether it may have new flows and keeps its persistent clients.
    pub takes: bool,
    /// Whether its flows meet [`crate::model::Fates::down`].
    pub failed: bool,
    /// Whether it drains: its flows have until the service's deadline.
    pub drains: bool,
}

impl Standing {
    /// Not in use: a sorry server while it is not needed.
    pub const OUT: Standing = Standing { weight: 0, takes: false, failed: false, drains: false };
}

/// What happened to a server or a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The service.
    pub service: ServiceKey,
    /// Its name.
    pub name: String,
    /// The server; `None`: what happened concerns the whole service.
    pub server: Option<ServerKey>,
    /// What.
    pub what: What,
    /// Why, in words: `connection refused`, `weight 3 of 5 is left, quorum 4`. May be empty.
    pub words: String,
    /// Whether the server (the service, for its quorum) became usable or stopped being so, so that scripts are to run; `None`:
    /// neither.
    pub usable: Option<bool>,
    /// When, since 1970.
    pub at: Duration,
    /// What it was before, and for how long; `None`: nothing, it is new.
    pub before: Option<(&'static str, Duration)>,
}

/// Kinds of what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The server serves.
    Up,
    /// A check of the server fails, or it cannot be reached.
    Down,
    /// The server's weight is another one, by a check.
    Weight(u32),
    /// The server drains, by hand, by file or by the configuration.
    Draining,
    /// The server drains, and its last flow has ended.
    Drained,
    /// The server is in maintenance.
    Maintenance,
    /// The server is out since its clients met too many failures.
    Ejected,
    /// The server is held out since it failed too often.
    Held,
    /// The service has its quorum (again).
    QuorumFound,
    /// The service has lost its quorum, or starts without.
    QuorumLost,
    /// The sorry server serves.
    SorryIn,
    /// It does not any more.
    SorryOut,
}

impl What {
    /// Name as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            What::Up => "up",
            What::Down => "down",
            What::Weight(_) => "weight",
            What::Draining => "draining",
            What::Drained => "drained",
            What::Maintenance => "maintenance",
            What::Ejected => "ejected",
            What::Held => "held",
            What::QuorumFound => "quorum-found",
            What::QuorumLost => "quorum-lost",
            What::SorryIn => "sorry-in",
            What::SorryOut => "sorry-out",
        }
    }
}

#[cfg(test)]
mod tests;
