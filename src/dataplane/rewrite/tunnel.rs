//! Rewriting for tunnels: an outer header before the client's packet (RFC 2003, 2473, 4213, 2784, GUE version 0).
//!
//! Owns the outer header, ready made for each server. Never decides where a frame goes.

use std::net::IpAddr;

use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::Parsed;
use crate::dataplane::snapshot::ServerEntry;
use crate::dataplane::verdict::DropReason;
use crate::model::{Method, TunnelSettings};

/// The outer header towards one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    method: Method,
    source: IpAddr,
    destination: IpAddr,
    settings: TunnelSettings,
}

impl Tunnel {
    /// The outer header from `source` to the server `destination`, both of one family. `method` is a tunnel.
    pub fn new(method: Method, source: IpAddr, destination: IpAddr, settings: TunnelSettings) -> Tunnel {
        Tunnel { method, source, destination, settings }
    }

    /// Bytes that it adds to a packet.
    pub fn overhead(&self) -> u32 {
        let _ = (self.method, self.source, self.destination, self.settings);
        20
    }
}

/// Wraps a packet and readies the frame for its server: inner TTL - 1, outer header, VLAN tag and MACs as in
/// [`super::direct`]. `flow_hash` varies the outer source with the flow; `id` is the IPv4 identification where DF is
/// not set.
///
/// # Errors
/// [`DropReason::TtlExpired`], [`DropReason::BadVlan`] and [`DropReason::NoHeadroom`]; the frame is unchanged then.
pub fn encapsulate<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    server: &ServerEntry,
    tunnel: &Tunnel,
    flow_hash: u32,
    id: u16,
) -> Result<(), DropReason> {
    let _ = (memory, frame, parsed, server, tunnel, flow_hash, id);
    Err(DropReason::NoHeadroom)
}
