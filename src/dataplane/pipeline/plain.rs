//! The short way: an untagged packet without options, of a flow that is known and needs no attention.
//!
//! Owns the few steps that most packets need. Whatever does not fit is left untouched for the long way.

use super::family::word64;
use super::kit::Kit;
use super::{Context, Lane, NOT_PLAIN};
use crate::dataplane::flow::state::{self, Side};
use crate::dataplane::flow::{Entry, FlowTable, FlowV4, FlowV6, Ident, KeyV6, STAMP_MS, is_expired};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::tcp_flag;
use crate::dataplane::rewrite;
use crate::dataplane::snapshot::{ServerEntry, Way};
use crate::dataplane::verdict::Outcome;
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
            return match server.way {
                Way::Nat => self.plain_nat_v4(entry, server, kit, memory, frame, lane),
                Way::FullNat => self.plain_full_nat_v4(table, server, kit, memory, frame, lane),
                Way::Tunnel => self.plain_tunnel::<false, _, _>(entry, server, kit, memory, frame, lane),
                Way::Dr | Way::Local => None,
            };
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
            return match server.way {
                Way::Nat => self.plain_nat_v6(entry, server, kit, memory, frame, lane),
                Way::FullNat => self.plain_full_nat_v6(table, server, kit, memory, frame, lane, &key),
                Way::Tunnel => self.plain_tunnel::<true, _, _>(entry, server, kit, memory, frame, lane),
                Way::Dr | Way::Local => None,
            };
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
            if is_expired(entry, self.now, self.snapshot) {
                return None;
            }
            entry.set_stamp(self.now);
        }
        if lane.tcp {
            let before = entry.state();
            let after = state::tcp_next(Side::Only, before, lane.tcp_flags);
            if after != before {
                // A SYN on a flow that closes is a new connection.
                if lane.tcp_flags & tcp_flag::SYN != 0 {
                    return None;
                }
                entry.set_state(after);
                self.state_changed(server.id, before, after);
            }
        }
        Some(())
    }
}
