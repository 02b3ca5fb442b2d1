//! The short way of NAT, full NAT and tunnels: untagged packets without options, of flows that need no attention.
//!
//! What needs a look at more than the flow's own entries goes the long way: a state that changes, an entry that may have
//! expired, SYNs (whose options may be changed), VLANs, packets that do not fit, streams with a PROXY
//! protocol header, and those that a SYN cookie opened.

use super::flow_path::wants_hop_check;
use super::kit::Kit;
use super::send::flow_hash;
use super::{Context, Lane};
use crate::dataplane::flow::state::{self, Side};
use crate::dataplane::flow::{Entry, FlowTable, FlowV4, FlowV6, KeyV6, STAMP_MS, flag, is_expired};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{NO_VLAN, tcp_flag};
use crate::dataplane::rewrite::plain::{self, DESTINATION, SOURCE};
use crate::dataplane::snapshot::{PlainNat, ServerEntry};
use crate::dataplane::verdict::{Outcome, Verdict};

/// Where a packet leaves: MACs as they go into the frame, and what became of it.
struct Exit {
    macs: [u8; 12],
    outcome: Outcome,
}

impl Context<'_> {
    /// Whether a packet leaves its flow as it is but for the time stamp, which is seen to.
    #[inline(always)]
    fn undisturbed<E: Entry>(&self, entry: &mut E, side: Side, lane: &Lane) -> bool {
        if lane.tcp
            && (lane.tcp_flags & tcp_flag::SYN != 0
                || state::tcp_next(side, entry.state(), lane.tcp_flags) != entry.state())
        {
            return false;
        }
        let stamp = entry.stamp();
        if self.now.wrapping_sub(stamp) >= STAMP_MS {
            if is_expired(entry, self.now, self.snapshot) || (side == Side::Client && wants_hop_check(self.now, stamp))
            {
                return false;
            }
            entry.set_stamp(self.now);
        }
        true
    }

    /// The way out to a server, untagged.
    #[inline(always)]
    fn exit_to_server(&self, server: &ServerEntry, frame: &Frame) -> Option<Exit> {
        let fits = server.reachable && server.vlan == NO_VLAN && frame.len <= u32::from(server.max_frame);
        fits.then_some(Exit { macs: server.macs, outcome: server.outcome })
    }

    /// The way back to a client, untagged. `number` is that of the flow's last hop.
    #[inline(always)]
    fn exit_to_client(&self, server: &ServerEntry, kit: &Kit, number: u32, frame: &Frame) -> Option<Exit> {
        let hop = kit.hops.get(number as u16).filter(|hop| hop.vlan == NO_VLAN)?;
        let port = self.snapshot.ports.get(usize::from(hop.port)).filter(|port| frame.len <= port.max_frame)?;
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&hop.mac.0);
        macs[6..].copy_from_slice(&port.mac().0);
        Some(Exit { macs, outcome: Outcome { verdict: Verdict::Tx(hop.port), ..server.outcome } })
    }

    /// The last steps that both directions share.
    #[inline(always)]
    fn leave(
        &self,
        bytes: &mut [u8],
        exit: &Exit,
        server: &ServerEntry,
        reverse: bool,
        lane: &Lane,
    ) -> Option<Outcome> {
        let head: &mut [u8; 12] = bytes.first_chunk_mut()?;
        *head = exit.macs;
        if reverse {
            self.count_out(server, u32::from(lane.total));
        } else {
            self.count(server, u32::from(lane.total));
        }
        Some(exit.outcome)
    }

    /// NAT over IPv4.
    #[inline(never)]
    pub(super) fn plain_nat_v4<M: FrameMemory>(
        &self,
        entry: &mut FlowV4,
        server: &ServerEntry,
        kit: &Kit,
        memory: &mut M,
        frame: &Frame,
        lane: &Lane,
    ) -> Option<Outcome> {
        let Some(PlainNat::V4 { to_server, to_client }) = self.snapshot.plain_nat(server.id) else { return None };
        let protocol = lane.ident.protocol();
        // The two ends of a flow that a cookie opened count from different numbers.
        let flags = entry.flags();
        if flags & flag::COOKIE != 0 {
            return None;
        }
        if flags & flag::REVERSE == 0 {
            let exit = self.exit_to_server(server, frame)?;
            if !self.undisturbed(entry, Side::Client, lane) {
                return None;
            }
            let bytes = memory.bytes_mut(frame);
            plain::plain_v4::<DESTINATION, true>(bytes, to_server, protocol).then_some(())?;
            self.leave(bytes, &exit, server, false, lane)
        } else {
            let exit = self.exit_to_client(server, kit, entry.extra(), frame)?;
            if !self.undisturbed(entry, Side::Server, lane) {
                return None;
            }
            let bytes = memory.bytes_mut(frame);
            plain::plain_v4::<SOURCE, true>(bytes, to_client, protocol).then_some(())?;
            self.leave(bytes, &exit, server, true, lane)
        }
    }

    /// NAT over IPv6.
    #[inline(never)]
    pub(super) fn plain_nat_v6<M: FrameMemory>(
        &self,
        entry: &mut FlowV6,
        server: &ServerEntry,
        kit: &Kit,
        memory: &mut M,
        frame: &Frame,
        lane: &Lane,
    ) -> Option<Outcome> {
        let Some(PlainNat::V6 { to_server, to_client }) = self.snapshot.plain_nat(server.id) else { return None };
        let protocol = lane.ident.protocol();
        // The two ends of a flow that a cookie opened count from different numbers.
        let flags = entry.flags();
        if flags & flag::COOKIE != 0 {
            return None;
        }
        if flags & flag::REVERSE == 0 {
            let exit = self.exit_to_server(server, frame)?;
            if !self.undisturbed(entry, Side::Client, lane) {
                return None;
            }
            let bytes = memory.bytes_mut(frame);
            plain::plain_v6::<DESTINATION, true>(bytes, to_server, protocol).then_some(())?;
            self.leave(bytes, &exit, server, false, lane)
        } else {
            let exit = self.exit_to_client(server, kit, entry.extra(), frame)?;
            if !self.undisturbed(entry, Side::Server, lane) {
                return None;
            }
            let bytes = memory.bytes_mut(frame);
            plain::plain_v6::<SOURCE, true>(bytes, to_client, protocol).then_some(())?;
            self.leave(bytes, &exit, server, true, lane)
        }
    }

    /// What both families of full NAT share: the entry seen to, and the way out. The packet gets the other direction's
    /// addresses and ports, the other way round: those are in the partner's key.
    #[inline(always)]
    fn full_nat_exit<E: Entry>(
        &self,
        entry: &mut E,
        server: &ServerEntry,
        kit: &Kit,
        frame: &Frame,
        lane: &Lane,
    ) -> Option<(Exit, bool)> {
        // A local address has just lost its slot: the long way sees which flows that ends.
        if !kit.ending.is_empty() {
            return None;
        }
        let reverse = entry.flags() & flag::REVERSE != 0;
        let exit = if reverse {
            self.exit_to_client(server, kit, entry.extra(), frame)?
        } else {
            self.exit_to_server(server, frame)?
        };
        let side = if reverse { Side::Server } else { Side::Client };
        self.undisturbed(entry, side, lane).then_some((exit, reverse))
    }

    /// Full NAT over IPv4.
    #[inline(never)]
    pub(super) fn plain_full_nat_v4<M: FrameMemory>(
        &self,
        table: &mut FlowTable<FlowV4>,
        server: &ServerEntry,
        kit: &Kit,
        memory: &mut M,
        frame: &Frame,
        lane: &Lane,
    ) -> Option<Outcome> {
        let place = table.find_at(&lane.ident.key(), lane.home)?;
        let partner = table.partner(place)?;
        let other = *table.entry(partner);
        let entry = table.entry(place);
        // The client's entry says so, whichever of the two that is.
        if (entry.flags() | other.flags()) & (flag::PROXY | flag::COOKIE) != 0 {
            return None;
        }
        let (exit, reverse) = self.full_nat_exit(entry, server, kit, frame, lane)?;
        let bytes = memory.bytes_mut(frame);
        plain::ends_v4(bytes, lane.ident.key(), other.key()).then_some(())?;
        self.leave(bytes, &exit, server, reverse, lane)
    }

    /// Full NAT over IPv6.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn plain_full_nat_v6<M: FrameMemory>(
        &self,
        table: &mut FlowTable<FlowV6>,
        server: &ServerEntry,
        kit: &Kit,
        memory: &mut M,
        frame: &Frame,
        lane: &Lane,
        key: &KeyV6,
    ) -> Option<Outcome> {
        let place = table.find_at(key, lane.home)?;
        let partner = table.partner(place)?;
        let other = *table.entry(partner);
        let entry = table.entry(place);
        if (entry.flags() | other.flags()) & (flag::PROXY | flag::COOKIE) != 0 {
            return None;
        }
        let (exit, reverse) = self.full_nat_exit(entry, server, kit, frame, lane)?;
        let bytes = memory.bytes_mut(frame);
        plain::ends_v6(bytes, key, &other.key()).then_some(())?;
        self.leave(bytes, &exit, server, reverse, lane)
    }

    /// Tunnels, whatever the families.
    #[inline(never)]
    pub(super) fn plain_tunnel<const V6: bool, E: Entry, M: FrameMemory>(
        &self,
        entry: &mut E,
        server: &ServerEntry,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        lane: &Lane,
    ) -> Option<Outcome> {
        let outer = self.snapshot.plain_tunnel(server.id)?;
        let length = u32::from(lane.total) + outer.front();
        let most = outer.largest_frame(server.max_frame, self.now);
        if length > u32::from(most) || !server.reachable || server.vlan != NO_VLAN {
            return None;
        }
        if !self.undisturbed(entry, Side::Only, lane) {
            return None;
        }
        kit.next_id = kit.next_id.wrapping_add(1);
        outer.wrap::<V6, M>(memory, frame, lane.total, flow_hash(lane.home), kit.next_id).then_some(())?;
        self.count(server, u32::from(lane.total));
        Some(server.outcome)
    }
}
