//! What all workers share besides the snapshot, so that together they are one director.
//!
//! Owns memory that is fixed at the start and that all workers read and write without locks. Never holds a flow: those are a
//! worker's own.

use super::flow::Seeds;
use super::guard::Guard;
use super::limits::{Bucket, Clients};
use super::persist::Templates;
use super::schedule::Cursor;
use crate::model::{EngineSettings, SynCookies};

/// Shared by all workers of an engine.
#[derive(Debug)]
pub struct Director {
    /// Whether unproven flows come faster than there is room for them.
    pub guard: Guard,
    /// When SYNs for NAT are answered by cookies.
    pub syn_cookies: SynCookies,
    /// What only this director knows: the key of its SYN cookies.
    pub cookie_key: [u64; 2],
    /// Persistent clients and their servers.
    pub templates: Templates,
    /// Client networks, counted for limits.
    pub clients: Clients,
}

impl Director {
    /// A director's memory; `seeds` are those of its flow tables.
    pub fn new(settings: &EngineSettings, seeds: Seeds) -> Director {
        let [a, b, c, d] = seeds.0;
        Director {
            guard: Guard::default(),
            syn_cookies: settings.syn_cookies,
            cookie_key: [a.rotate_left(17) ^ c, b.rotate_left(29) ^ d],
            templates: Templates::new(settings.persistent_clients as usize, seeds),
            clients: Clients::new(settings.limited_clients as usize, seeds),
        }
    }
}

/// What a service has beyond one snapshot, shared by all workers.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// Where its sequence of servers continues.
    pub cursor: Cursor,
    /// Its new flows a second.
    pub rate: Bucket,
}
