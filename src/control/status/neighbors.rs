//! Next hops in the status: how frames for each server leave, or why they cannot.
//!
//! Owns the values. Pure.

use serde::{Deserialize, Serialize};

use super::Unreachable;

/// The way to one server, or an entry of `[[neighbor]]` that no server needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeighborStatus {
    /// The server's address.
    pub address: String,
    /// The services that have it; twice in the list is one that is reached by two methods' paths.
    pub services: Vec<String>,
    /// How far its methods can go: `on-link` (direct routing), or `routed`.
    pub path: String,
    /// Whom its frames are for: the server, or the router on the way; absent where no route is known.
    pub via: Option<String>,
    /// `reachable`; `held`: the kernel has forgotten it and asks again, and what was known is used meanwhile; `fixed`: by
    /// `[[neighbor]]`; `local`: this machine; or `unreachable`.
    pub state: String,
    /// Ethernet address of the next hop.
    pub mac: Option<String>,
    /// Interface of the engine.
    pub interface: Option<String>,
    /// 802.1Q tag.
    pub vlan: Option<u16>,
    /// What the kernel's neighbour table says: `sure`, `stale`, `pending` or `failed`; absent where it has no entry.
    pub kernel: Option<String>,
    /// Seconds since the next hop, or its absence, became what it is.
    pub for_s: u64,
    /// Why there is no next hop: a word, and a sentence.
    pub unreachable: Option<Unreachable>,
}
