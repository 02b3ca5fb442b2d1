//! The short way: an untagged IPv4 packet of a flow that is known and needs no attention.
//!
//! Owns the few steps that most packets need. Whatever does not fit is left untouched for the long way.

use super::{Context, Lane, NOT_PLAIN};
use crate::dataplane::flow::state::{self, State};
use crate::dataplane::flow::{Entry, FlowTable, FlowV4, STAMP_MS, is_expired};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::rewrite;
use crate::dataplane::snapshot::slot_of;
use crate::dataplane::verdict::{Outcome, Verdict};
use crate::model::VerifyChecksums;

impl Context<'_> {
    /// The short way: an untagged IPv4 packet of a known flow whose state, server and time stamp need no attention.
    /// `None`: nothing was changed, and the long way decides.
    #[inline(always)]
    pub(super) fn plain_hit<M: FrameMemory>(
        &self,
        table: &mut FlowTable<FlowV4>,
        memory: &mut M,
        frame: &Frame,
        lane: &Lane,
    ) -> Option<Outcome> {
        if lane.home == NOT_PLAIN || self.verify == VerifyChecksums::All {
            return None;
        }
        let entry = match table.place_at_home(lane.home, lane.ident) {
            Some(place) => table.entry(place),
            None => table.behind(lane.home, lane.ident)?,
        };
        let server = self.snapshot.server(entry.server())?;
        if frame.len > server.plain_limit {
            return None;
        }
        if self.now.wrapping_sub(entry.stamp()) >= STAMP_MS {
            if is_expired(entry, self.now, &self.snapshot.timeouts_ms) {
                return None;
            }
            entry.set_stamp(self.now);
        }
        // UDP packets have no flags, and their flows a state that no flags change.
        if lane.tcp_flags != 0 || entry.state() != State::UDP {
            let before = entry.state();
            let after = state::tcp_next(before, lane.tcp_flags);
            if after != before {
                entry.set_state(after);
                self.state_changed(server.id, before, after);
            }
        }
        rewrite::direct_plain_v4(memory.bytes_mut(frame), server);
        self.count(server, u32::from(lane.total));
        Some(Outcome {
            verdict: Verdict::Tx(server.port),
            service: server.service,
            server: slot_of(server.id) as u16,
            new_flow: false,
        })
    }
}
