//! The long way of a packet that belongs to a flow: any header, any tag, any forwarding method.
//!
//! Owns what happens to a flow when a packet of it comes: time stamp, state, the way it goes. New flows are in
//! [`super::new_flow`], the rewriting in [`super::send`].

use std::net::IpAddr;

use super::Context;
use super::family::Family;
use super::kit::Kit;
use super::passive;
use super::send::{Plan, Proxy};
use crate::dataplane::flow::state::{self, Side, State};
use crate::dataplane::flow::{FlowTable, Flows, Place, STAMP_MS, Stage, flag};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::last_hop::Hop;
use crate::dataplane::parse::{self, Parsed, Part, SCTP, TCP, tcp_flag};
use crate::dataplane::proxy;
use crate::dataplane::snapshot::{ServerEntry, Way, slot_of};
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::model::VerifyChecksums;

/// How often a NAT flow's way back is compared with where its packets come from: milliseconds, a power of two.
const HOP_CHECK_MS: u32 = 4096;

impl Context<'_> {
    /// A packet of a flow.
    #[inline(always)]
    pub(super) fn flow_packet<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        hash: u64,
    ) -> Outcome {
        let bytes = memory.bytes(frame);
        let Some(key) = E::key_of(bytes, parsed, frame.hint) else { return Outcome::drop(DropReason::Truncated) };
        if let Some(reason) = self.foreign(bytes, frame) {
            return self.not_for_our_mac::<E>(&key, reason);
        }
        let Some((stage, place)) = flows.find(&key, hash) else {
            return self.miss(flows, kit, memory, frame, parsed, &key, hash);
        };
        let table = flows.part(stage);
        let entry = *table.entry(place);
        let reverse = entry.flags() & flag::REVERSE != 0;
        let Some(server) = self.snapshot.server(entry.server()) else {
            return self.replace_flow(flows, kit, (stage, place), memory, frame, parsed, &key, hash);
        };
        if !kit.ending.is_empty() && entry.partner() != 0 && self.is_of_ended_address(table, kit, place) {
            return self.replace_flow(flows, kit, (stage, place), memory, frame, parsed, &key, hash);
        }
        if !reverse && starts_anew(entry.state(), parsed) && !kit.knows_syn(&entry, bytes, parsed) {
            return self.replace_flow(flows, kit, (stage, place), memory, frame, parsed, &key, hash);
        }
        if !reverse
            && !server.reachable
            && let Some(fate) = self.snapshot.fate(server.id)
        {
            return self.meet_fate(fate, flows, kit, (stage, place), server, memory, frame, parsed, &key, hash);
        }
        let idle = self.now.wrapping_sub(entry.stamp());
        if idle >= STAMP_MS {
            if table.expired(place, self.now, self.snapshot) {
                return self.replace_flow(flows, kit, (stage, place), memory, frame, parsed, &key, hash);
            }
            table.entry(place).set_stamp(self.now);
            // While nobody knows whether a flow is one, its answers are a sign of life for both of its entries.
            if stage == Stage::Unproven
                && let Some(partner) = table.partner(place)
            {
                table.entry(partner).set_stamp(self.now);
            }
            if entry.partner() != 0 && wants_hop_check(self.now, entry.stamp()) {
                self.renew_hop(table, kit, place, memory.bytes(frame), frame, parsed);
            }
        }
        let outcome = server.outcome;
        let bytes = memory.bytes(frame);
        if self.verify == VerifyChecksums::All
            && parsed.part == Part::Whole
            && let Err(reason) = parse::verify_transport(bytes, parsed)
        {
            return Outcome { verdict: Verdict::Drop(reason), ..outcome };
        }
        let mut changed = *parsed;
        let parsed = if entry.flags() & flag::COOKIE == 0 {
            parsed
        } else {
            let met = self.cookie_flow(flows, kit, (stage, place), server, memory, frame, &mut changed, (&key, hash));
            match met {
                Some(outcome) => return outcome,
                None => &changed,
            }
        };
        let table = flows.part(stage);
        let bytes = memory.bytes(frame);
        let entry = *table.entry(place);
        let side = match (reverse, entry.partner()) {
            (true, _) => Side::Server,
            (false, 0) => Side::Only,
            (false, _) => Side::Client,
        };
        let after = after(side, entry.state(), bytes, parsed);
        // A new connection in the place of one that has ended has a stream of its own.
        if after == State::TCP_SYN_RECV
            && entry.flags() & (flag::PROXY | flag::COOKIE) == flag::PROXY
            && side == Side::Client
            && let Some(isn) = proxy::opens(bytes, parsed).filter(|isn| *isn != entry.extra())
        {
            table.entry(place).set_extra(isn);
            table.entry(place).set_flags(entry.flags() & !(flag::PROXY_SENT | flag::PROXY_DONE));
        }
        let plan = if reverse {
            if entry.extra() & passive::WATCHED != 0 {
                self.server_answers(table, place, parsed);
            }
            self.plan_to_client(table, kit, place, server)
        } else {
            if side == Side::Client && (entry.state(), after) == (State::TCP_SYN_RECV, State::TCP_SYN_RECV) {
                self.client_asks_again(table, place, parsed, idle);
            }
            self.plan_to_server(table, kit, place, server, &key)
        };
        let outcome = match plan {
            Ok(plan) => self.send::<E, M>(table, kit, memory, frame, parsed, &plan, hash),
            Err(reason) => return Outcome { verdict: Verdict::Drop(reason), ..outcome },
        };
        if let Verdict::Drop(_) | Verdict::Reply(_) = outcome.verdict {
            return outcome;
        }
        if after != entry.state() {
            table.set_state(place, after);
            self.state_changed(server.id, entry.state(), after);
        }
        if reverse {
            self.count_out(server, ip_length(parsed));
        } else {
            self.count(server, ip_length(parsed));
            if stage == Stage::Unproven && state::proves(parsed.protocol, after, parsed.tcp_flags) {
                self.promote(flows, kit, place);
            }
        }
        outcome
    }

    /// Whether a flow has a port of a local address that lost its slot.
    #[cold]
    fn is_of_ended_address<E: Family>(&self, table: &mut FlowTable<E>, kit: &Kit, place: Place) -> bool {
        let partner = table.partner(place);
        kit.is_ending(table.entry(place)) || partner.is_some_and(|partner| kit.is_ending(table.entry(partner)))
    }

    /// Moves a flow to those that are proven. Where these are full it stays where it is.
    #[inline(never)]
    fn promote<E: Family>(&self, flows: &mut Flows<E>, kit: &mut Kit, place: Place) {
        let entry = *flows.unproven.entry(place);
        if entry.flags() & flag::PERSISTENT != 0 {
            self.assure(&entry);
        }
        let _ = flows.promote(place, self.now, self.snapshot, |gone| {
            kit.close(self.snapshot, &gone, self.now);
            self.stats.evicted.add(1);
        });
    }

    /// How a packet of a flow gets to its server.
    pub(super) fn plan_to_server<E: Family>(
        &self,
        table: &mut FlowTable<E>,
        kit: &Kit,
        place: Place,
        server: &ServerEntry,
        key: &E::Key,
    ) -> Result<Plan<'_>, DropReason> {
        let mut plan = self.plan_without_flow(server, E::destination(key))?;
        plan.splice = kit.splice_of(table.entry(place)).map(|splice| (splice, true));
        if server.way == Way::FullNat {
            let partner = table.partner(place).ok_or(DropReason::NoReturnHop)?;
            let reverse = table.entry(partner).key();
            plan.source = Some(E::destination_end(&reverse));
            plan.proxy = Proxy::of(table, kit, place, true);
        }
        Ok(plan)
    }

    /// The same for any packet of a service, as far as it does not depend on its flow. `service` is the service's address.
    pub(super) fn plan_without_flow(&self, server: &ServerEntry, service: IpAddr) -> Result<Plan<'_>, DropReason> {
        if !server.reachable {
            return Err(DropReason::NoNextHop);
        }
        let mut plan = Plan::direct(server, service);
        if server.way == Way::Dr {
            return Ok(plan);
        }
        let target = self.snapshot.target(server.id).ok_or(DropReason::NoNextHop)?;
        plan.mss = target.mss;
        match server.way {
            Way::Nat | Way::FullNat => plan.destination = Some(target.server),
            Way::Tunnel => plan.tunnel = target.tunnel.as_ref(),
            Way::Dr | Way::Local => {}
        }
        Ok(plan)
    }

    /// How an answer of a flow's server gets to its client. `place` is that of the flow's second entry.
    pub(super) fn plan_to_client<E: Family>(
        &self,
        table: &mut FlowTable<E>,
        kit: &Kit,
        place: Place,
        server: &ServerEntry,
    ) -> Result<Plan<'_>, DropReason> {
        let hop = kit.hops.get(table.entry(place).extra() as u16).ok_or(DropReason::NoReturnHop)?;
        let port = self.snapshot.ports.get(usize::from(hop.port)).ok_or(DropReason::NoReturnHop)?;
        let target = self.snapshot.target(server.id).ok_or(DropReason::NoNextHop)?;
        let mut plan = Plan::direct(server, target.service.address);
        plan.exit(&hop, port);
        plan.source = Some(target.service);
        plan.mss = target.mss;
        if table.entry(place).flags() & flag::COOKIE != 0
            && let Some(partner) = table.partner(place)
        {
            plan.splice = kit.splice_of(table.entry(partner)).map(|splice| (splice, false));
        }
        if server.way == Way::FullNat {
            let partner = table.partner(place).ok_or(DropReason::NoReturnHop)?;
            let forward = table.entry(partner).key();
            plan.destination = Some(E::source_end(&forward));
            plan.proxy = Proxy::of(table, kit, partner, false);
        }
        Ok(plan)
    }

    /// Follows the client where its packets come another way than before.
    #[cold]
    fn renew_hop<E: Family>(
        &self,
        table: &mut FlowTable<E>,
        kit: &mut Kit,
        place: Place,
        bytes: &[u8],
        frame: &Frame,
        parsed: &Parsed,
    ) {
        let Some(partner) = table.partner(place).filter(|_| table.entry(place).flags() & flag::REVERSE == 0) else {
            return;
        };
        let extra = table.entry(partner).extra();
        let old = extra as u16;
        let Some(hop) = Hop::of(bytes, parsed, frame.port).filter(|hop| kit.hops.get(old) != Some(*hop)) else {
            return;
        };
        if let Some(new) = kit.hops.take(hop) {
            kit.hops.give(old);
            table.entry(partner).set_extra(passive::with_hop(extra, new));
        }
    }

    /// A flow that expired, or whose server is gone, gives way to a new one of the same key.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn replace_flow<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        (stage, place): (Stage, Place),
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
    ) -> Outcome {
        let gone = flows.part(stage).remove(place);
        kit.close(self.snapshot, &gone, self.now);
        self.miss(flows, kit, memory, frame, parsed, key, hash)
    }

    #[inline(always)]
    pub(super) fn count_out(&self, server: &ServerEntry, bytes: u32) {
        if let Some(counters) = self.stats.servers.get(slot_of(server.id)) {
            counters.out_packets.add(1);
            counters.out_bytes.add(u64::from(bytes));
        }
    }
}

/// Whether a client's packet is the first of a new connection in the place of one that closes (IPVS's `conn_reuse_mode`, here
/// for all closing states, so that none is a black hole).
fn starts_anew(state: State, parsed: &Parsed) -> bool {
    parsed.protocol == TCP
        && parsed.part != Part::Later
        && parsed.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST | tcp_flag::FIN) == tcp_flag::SYN
        && state.is_closing()
}

/// Whether a flow that was last seen at `stamp` has its way back compared now.
pub(super) fn wants_hop_check(now: u32, stamp: u32) -> bool {
    (now ^ stamp) & !(HOP_CHECK_MS - 1) != 0
}

/// Bytes of an IP packet by its own length fields, which is what IPVS counts.
pub(super) fn ip_length(parsed: &Parsed) -> u32 {
    u32::from(parsed.l4 - parsed.l3) + u32::from(parsed.l4_len)
}

/// The state of a flow after a packet of it. Fragments without a transport header change nothing.
pub(super) fn after(side: Side, before: State, bytes: &[u8], parsed: &Parsed) -> State {
    if parsed.part == Part::Later {
        return before;
    }
    match parsed.protocol {
        TCP => state::tcp_next(side, before, parsed.tcp_flags),
        SCTP => {
            let at = usize::from(parsed.l4);
            state::sctp_next(side, before, bytes.get(at..at + usize::from(parsed.l4_len)).unwrap_or_default())
        }
        _ => before,
    }
}
