//! The short way: an untagged packet without options, of a flow that is known and needs no attention.
//!
//! Owns the few steps that most packets need. Whatever does not fit is left untouched for the long way.

use super::family::word64;
use super::flow_path::wants_hop_check;
use super::kit::Kit;
use super::send::flow_hash;
use super::{Context, Lane, NOT_PLAIN};
use crate::dataplane::flow::state::{self, Side};
use crate::dataplane::flow::{Entry, FlowTable, FlowV4, FlowV6, Ident, KeyV6, STAMP_MS, flag, is_expired};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{NO_VLAN, tcp_flag};
use crate::dataplane::rewrite;
use crate::dataplane::rewrite::plain::{self, DESTINATION, SOURCE};
use crate::dataplane::rewrite::tunnel::{self, Tunnel};
use crate::dataplane::snapshot::{PlainNat, ServerEntry, Way};
use crate::dataplane::verdict::{Outcome, Verdict};
use crate::model::VerifyChecksums;

/// The key of a plain IPv6 packet whose ports and protocol are known.
#[inline(always)]
pub(super) fn key_v6(bytes: &[u8], ident: Ident) -> Option<KeyV6> {
    let addresses: &[u8; 32] = bytes.get(22..)?.first_chunk()?;
    Some(KeyV6 {
        source: [word64(&addresses[..8]), word64(&addresses[8..16])],
        destination: [word64(&addresses[16..24]), word64(&addresses[24..])],
        ports: ident.ports(),
        protocol: ident.protocol(),
    })
}

impl Context<'_> {
    /// An IPv4 packet. `None`: nothing was changed, and the long way decides.
    #[inline(always)]
    pub(super) fn plain_hit_v4<M: FrameMemory>(
        &self,
        table: &mut FlowTable<FlowV4>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        lane: &Lane,
    ) -> Option<Outcome> {
        if self.verify == VerifyChecksums::All {
            return None;
        }
        let entry = match table.at_home(lane.home, lane.ident) {
            Some(entry) => entry,
            None if lane.home == NOT_PLAIN => return None,
            None => table.behind(lane.home, lane.ident)?,
        };
        let server = self.snapshot.server(entry.server())?;
        if frame.len > u32::from(server.plain_limit) {
            return self.plain_other(entry, server, kit, memory, frame, lane, translate_v4);
        }
        self.plain_entry(entry, server, lane)?;
        rewrite::direct_plain_v4(memory.bytes_mut(frame), server);
        self.count(server, u32::from(lane.total));
        Some(server.outcome)
    }

    /// An IPv6 packet. `None`: nothing was changed, and the long way decides.
    #[inline(always)]
    pub(super) fn plain_hit_v6<M: FrameMemory>(
        &self,
        table: &mut FlowTable<FlowV6>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        lane: &Lane,
    ) -> Option<Outcome> {
        if lane.home == NOT_PLAIN || self.verify == VerifyChecksums::All {
            return None;
        }
        let key = key_v6(memory.bytes(frame), lane.ident)?;
        let entry = table.from_home(lane.home, &key)?;
        let server = self.snapshot.server(entry.server())?;
        if frame.len > u32::from(server.plain_limit) {
            return self.plain_other(entry, server, kit, memory, frame, lane, translate_v6);
        }
        self.plain_entry(entry, server, lane)?;
        rewrite::direct_plain_v6(memory.bytes_mut(frame), server);
        self.count(server, u32::from(lane.total));
        Some(server.outcome)
    }

    /// Sees to a flow's time stamp and state.
    #[inline(always)]
    fn plain_entry<E: Entry>(&self, entry: &mut E, server: &ServerEntry, lane: &Lane) -> Option<()> {
        if self.now.wrapping_sub(entry.stamp()) >= STAMP_MS {
            if is_expired(entry, self.now, &self.snapshot.timeouts_ms) {
                return None;
            }
            entry.set_stamp(self.now);
        }
        if lane.tcp {
            let before = entry.state();
            let after = state::tcp_next(Side::Only, before, lane.tcp_flags);
            if after != before {
                entry.set_state(after);
                self.state_changed(server.id, before, after);
            }
        }
        Some(())
    }

    /// NAT and tunnels. What needs a look at more than the flow's own entry goes the long way: a state that changes, an
    /// entry that may have expired, SYNs (whose options may be changed), VLANs, packets that do not fit.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn plain_other<E: Entry, M: FrameMemory>(
        &self,
        entry: &mut E,
        server: &ServerEntry,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        lane: &Lane,
        translate: impl FnOnce(&mut [u8], &PlainNat, bool, u8) -> bool,
    ) -> Option<Outcome> {
        let reverse = entry.flags() & flag::REVERSE != 0;
        let side = match (server.way, reverse) {
            (Way::Nat, true) => Side::Server,
            (Way::Nat, false) => Side::Client,
            (Way::Tunnel, _) => Side::Only,
            _ => return None,
        };
        if lane.tcp
            && (lane.tcp_flags & tcp_flag::SYN != 0
                || state::tcp_next(side, entry.state(), lane.tcp_flags) != entry.state())
        {
            return None;
        }
        let stamp = entry.stamp();
        let idle = self.now.wrapping_sub(stamp);
        if idle >= STAMP_MS
            && (is_expired(entry, self.now, &self.snapshot.timeouts_ms)
                || (side == Side::Client && wants_hop_check(self.now, stamp)))
        {
            return None;
        }
        if reverse {
            let hop = kit.hops.get(entry.extra() as u16).filter(|hop| hop.vlan == NO_VLAN)?;
            let port = self.snapshot.ports.get(usize::from(hop.port)).filter(|port| frame.len <= port.max_frame)?;
            let bytes = memory.bytes_mut(frame);
            if !translate(bytes, self.snapshot.plain_nat(server.id)?, reverse, lane.ident.protocol()) {
                return None;
            }
            let head: &mut [u8; 12] = bytes.first_chunk_mut()?;
            head[..6].copy_from_slice(&hop.mac.0);
            head[6..].copy_from_slice(&port.mac().0);
            self.count_out(server, u32::from(lane.total));
            if idle >= STAMP_MS {
                entry.set_stamp(self.now);
            }
            return Some(Outcome { verdict: Verdict::Tx(hop.port), ..server.outcome });
        }
        let tunnel = if server.way == Way::Tunnel { self.snapshot.target(server.id)?.tunnel.as_ref() } else { None };
        let growth = tunnel.map_or(0, Tunnel::overhead);
        let most = tunnel.map_or(server.max_frame, |outer| outer.largest_frame(server.max_frame, self.now));
        if !server.reachable || server.vlan != NO_VLAN || frame.len + growth > u32::from(most) {
            return None;
        }
        if let Some(outer) = tunnel {
            kit.next_id = kit.next_id.wrapping_add(1);
            let hash = flow_hash(lane.home);
            tunnel::encapsulate(memory, frame, &lane.parsed(), server, outer, hash, kit.next_id).ok()?;
        } else {
            let bytes = memory.bytes_mut(frame);
            if !translate(bytes, self.snapshot.plain_nat(server.id)?, reverse, lane.ident.protocol()) {
                return None;
            }
            let head: &mut [u8; 12] = bytes.first_chunk_mut()?;
            *head = server.macs;
        }
        self.count(server, u32::from(lane.total));
        if idle >= STAMP_MS {
            entry.set_stamp(self.now);
        }
        Some(server.outcome)
    }
}

fn translate_v4(bytes: &mut [u8], plain: &PlainNat, reverse: bool, protocol: u8) -> bool {
    match plain {
        PlainNat::V4 { to_client, .. } if reverse => plain::plain_v4::<SOURCE, true>(bytes, to_client, protocol),
        PlainNat::V4 { to_server, .. } => plain::plain_v4::<DESTINATION, true>(bytes, to_server, protocol),
        PlainNat::V6 { .. } => false,
    }
}

fn translate_v6(bytes: &mut [u8], plain: &PlainNat, reverse: bool, protocol: u8) -> bool {
    match plain {
        PlainNat::V6 { to_client, .. } if reverse => plain::plain_v6::<SOURCE, true>(bytes, to_client, protocol),
        PlainNat::V6 { to_server, .. } => plain::plain_v6::<DESTINATION, true>(bytes, to_server, protocol),
        PlainNat::V4 { .. } => false,
    }
}
