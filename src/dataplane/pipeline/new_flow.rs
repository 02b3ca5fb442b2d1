//! A packet without a flow: another worker's, a new flow, or the kernel's.
//!
//! Owns the order of checks before a flow is created. Everything that it refuses has its reason, and leaves no flow.

use std::net::IpAddr;

use super::Context;
use super::family::Family;
use super::flow_path::{after, ip_length};
use super::kit::Kit;
use crate::dataplane::answer;
use crate::dataplane::flow::state::{self, Side, State};
use crate::dataplane::flow::{FlowTable, Full, Place, flag};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::last_hop::Hop;
use crate::dataplane::parse::{self, Parsed, Part, SCTP, TCP, tcp_flag};
use crate::dataplane::proxy;
use crate::dataplane::rewrite;
use crate::dataplane::schedule::{Client, Member, fold_address};
use crate::dataplane::snapshot::{Endpoint, ServerEntry, Target, Way, slot_of};
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::model::VerifyChecksums;

/// Why no flow was made.
enum Refusal {
    Drop(DropReason),
    /// Another worker made it at the same moment.
    Taken(u8),
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Refusal::Drop(reason)
    }
}

impl Context<'_> {
    /// A packet whose flow this worker does not have.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn miss<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
    ) -> Outcome {
        if let Some(worker) = kit.other(frame, hash) {
            return Outcome::plain(Verdict::Hand(worker));
        }
        let destination = E::destination(key);
        let Some(index) = self.snapshot.service(destination, parsed.protocol, E::ports(key).1) else {
            if self.snapshot.local_slot(destination).is_some() {
                return Outcome::drop(DropReason::NoFlow);
            }
            if !self.snapshot.owns(destination) {
                self.stats.unmatched.add(1);
            }
            return Outcome::plain(Verdict::Pass);
        };
        self.new_flow(table, kit, memory, frame, parsed, key, hash, index)
    }

    /// Judges the packet, chooses a server, remembers the flow, forwards.
    #[allow(clippy::too_many_arguments)]
    fn new_flow<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
        index: u16,
    ) -> Outcome {
        let mut outcome = Outcome::plain(Verdict::Drop(DropReason::NotOurs));
        outcome.service = index;
        let refuse = |reason| Outcome { verdict: Verdict::Drop(reason), ..outcome };
        let source = E::source(key);
        if let Err(reason) = self.admit(memory.bytes(frame), parsed, source) {
            return refuse(reason);
        }
        let service = &self.snapshot.services[usize::from(index)];
        let client = Client { folded_address: fold_address(source), port: E::ports(key).0 };
        let Some(chosen) = service.selector.select(&service.members, &service.cursor, client) else {
            return refuse(DropReason::NoServer);
        };
        let member = &service.members[chosen];
        let Some(server) = self.snapshot.server(member.id).filter(|s| s.reachable) else {
            return refuse(DropReason::NoNextHop);
        };
        outcome.server = slot_of(member.id) as u16;
        let refuse = |reason| Outcome { verdict: Verdict::Drop(reason), ..outcome };
        let bytes = memory.bytes(frame);
        let state = |side| after(side, State::initial(parsed.protocol), bytes, parsed);
        let made = match server.way {
            Way::Nat | Way::FullNat => {
                let state = state(Side::Client);
                let hop = Hop::of(bytes, parsed, frame.port);
                hop.ok_or(Refusal::Drop(DropReason::MartianSource))
                    .and_then(|hop| self.insert_pair(table, kit, bytes, parsed, key, hash, server, state, hop))
                    .map(|place| (place, state))
            }
            Way::Dr | Way::Tunnel | Way::Local => {
                let state = state(Side::Only);
                self.insert_one(table, kit, key, hash, server, state).map(|place| (place, state))
            }
        };
        let (place, state) = match made {
            Ok(made) => made,
            Err(Refusal::Drop(reason)) => return refuse(reason),
            Err(Refusal::Taken(worker)) => return Outcome::plain(Verdict::Hand(worker)),
        };
        let sent = match self.plan_to_server(table, place, server, key) {
            Ok(plan) => self.send::<E, M>(table, kit, memory, frame, parsed, &plan, hash),
            Err(reason) => refuse(reason),
        };
        if let Verdict::Drop(_) | Verdict::Reply(_) = sent.verdict {
            let gone = table.remove(place);
            kit.forget(&gone, self.now);
            return sent;
        }
        self.opened(member, server, state, parsed);
        Outcome { new_flow: true, ..sent }
    }

    fn opened(&self, member: &Member, server: &ServerEntry, state: State, parsed: &Parsed) {
        member.load.open(state.is_active());
        if let Some(counters) = self.stats.servers.get(slot_of(member.id)) {
            counters.connections.add(1);
        }
        self.count(server, ip_length(parsed));
    }

    /// A flow of which only the client's half passes by.
    fn insert_one<E: Family>(
        &self,
        table: &mut FlowTable<E>,
        kit: &mut Kit,
        key: &E::Key,
        hash: u64,
        server: &ServerEntry,
        state: State,
    ) -> Result<Place, Refusal> {
        kit.enter(self.stats, hash).map_err(Refusal::Taken)?;
        match table.insert(key, hash, server.id, state, self.now, &self.snapshot.timeouts_ms) {
            Ok((place, gone)) => {
                if let Some(gone) = gone {
                    kit.close(self.snapshot, &gone, self.now);
                    self.stats.evicted.add(1);
                }
                Ok(place)
            }
            Err(Full) => {
                kit.leave(hash);
                Err(Refusal::Drop(DropReason::FlowTableFull))
            }
        }
    }

    /// A flow of which both halves pass by.
    #[allow(clippy::too_many_arguments)]
    fn insert_pair<E: Family>(
        &self,
        table: &mut FlowTable<E>,
        kit: &mut Kit,
        bytes: &[u8],
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
        server: &ServerEntry,
        state: State,
        hop: Hop,
    ) -> Result<Place, Refusal> {
        let target = self.snapshot.target(server.id).ok_or(DropReason::NoNextHop)?;
        let reverse = self.reverse_key::<E>(table, kit, parsed, key, server, target)?;
        let reverse_hash = table.hash(&reverse);
        let Some(number) = kit.hops.take(hop) else {
            kit.give_local(E::destination_end(&reverse), self.now, false);
            return Err(DropReason::NoReturnHop.into());
        };
        let entered = kit
            .enter(self.stats, hash)
            .and_then(|()| kit.enter(self.stats, reverse_hash).inspect_err(|_| kit.leave(hash)));
        let undo = |kit: &mut Kit| {
            kit.hops.give(number);
            kit.give_local(E::destination_end(&reverse), self.now, false);
        };
        if let Err(worker) = entered {
            undo(kit);
            return Err(Refusal::Taken(worker));
        }
        let timeouts = &self.snapshot.timeouts_ms;
        let keys = [(key, hash), (&reverse, reverse_hash)];
        let inserted = table.insert_pair(keys, server.id, state, self.now, timeouts, |gone| {
            kit.close(self.snapshot, &gone, self.now);
            self.stats.evicted.add(1);
        });
        match inserted {
            Ok([first, second]) => {
                table.entry(second).set_extra(u32::from(number));
                // Only a SYN tells where the client's stream begins.
                if target.proxy
                    && server.way == Way::FullNat
                    && parsed.protocol == TCP
                    && let Some(isn) = proxy::opens(bytes, parsed)
                {
                    let entry = table.entry(first);
                    entry.set_extra(isn);
                    entry.set_flags(entry.flags() | flag::PROXY);
                }
                Ok(first)
            }
            Err(Full) => {
                kit.leave(hash);
                kit.leave(reverse_hash);
                undo(kit);
                Err(DropReason::FlowTableFull.into())
            }
        }
    }

    /// The key of the server's packets.
    fn reverse_key<E: Family>(
        &self,
        table: &mut FlowTable<E>,
        kit: &mut Kit,
        parsed: &Parsed,
        key: &E::Key,
        server: &ServerEntry,
        target: &Target,
    ) -> Result<E::Key, Refusal> {
        let (_, port) = E::ports(key);
        let from = Endpoint { address: target.server.address, port: Some(target.server.port.unwrap_or(port)) };
        let to = if server.way == Way::FullNat {
            self.local_end(kit, target, fold_address(E::source(key))).ok_or(DropReason::NoLocalPort)?
        } else {
            E::source_end(key)
        };
        let reverse = E::key_from(from, to, parsed.protocol).ok_or(DropReason::NoNextHop)?;
        // One connection of the client cannot be two at the server: the older one must have ended.
        if let Some(place) = table.find(&reverse, table.hash(&reverse)) {
            // Full NAT has just taken the port for this flow: whatever is left under it is not this address's.
            if server.way == Way::FullNat || table.entry(place).state().is_active() {
                if server.way == Way::FullNat {
                    kit.give_local(to, self.now, true);
                }
                return Err(DropReason::TupleTaken.into());
            }
            let gone = table.remove(place);
            kit.close(self.snapshot, &gone, self.now);
        }
        Ok(reverse)
    }

    /// A local address and port for a new flow: the clients spread over the addresses, and who finds one full takes
    /// the next.
    fn local_end(&self, kit: &mut Kit, target: &Target, client: u32) -> Option<Endpoint> {
        let count = target.locals.len();
        let first = (client.wrapping_mul(0x9e37_79b1) >> 8) as usize;
        (0..count).find_map(|at| {
            let slot = target.locals[(first % count + at) % count];
            let address = self.snapshot.locals.get(usize::from(slot)).copied().flatten()?;
            let port = kit.ports.take(slot, self.now)?;
            Some(Endpoint { address, port: Some(port) })
        })
    }

    /// Whether a packet may create a flow.
    fn admit(&self, bytes: &[u8], parsed: &Parsed, source: IpAddr) -> Result<(), DropReason> {
        // The first fragment makes the flow, or none does.
        if parsed.part == Part::Later {
            return Err(DropReason::Fragment);
        }
        if answer::is_martian(source) {
            return Err(DropReason::MartianSource);
        }
        if self.snapshot.owns(source) {
            return Err(DropReason::OwnSource);
        }
        if self.snapshot.access.denies(source) {
            return Err(DropReason::Denied);
        }
        if rewrite::ttl(bytes, parsed) < 2 {
            return Err(DropReason::TtlExpired);
        }
        if parsed.protocol == TCP {
            let flags = parsed.tcp_flags;
            let syn = flags & tcp_flag::SYN != 0;
            if flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST | tcp_flag::ACK) == 0
                || (syn && flags & (tcp_flag::FIN | tcp_flag::RST) != 0)
            {
                return Err(DropReason::BadTcpFlags);
            }
            if flags & tcp_flag::RST != 0 {
                return Err(DropReason::NoFlow);
            }
        }
        if self.verify != VerifyChecksums::Off && parsed.part == Part::Whole {
            parse::verify_transport(bytes, parsed)?;
        }
        if parsed.protocol == SCTP {
            let at = usize::from(parsed.l4);
            if !state::sctp_opens(bytes.get(at..at + usize::from(parsed.l4_len)).unwrap_or_default()) {
                return Err(DropReason::NoFlow);
            }
        }
        Ok(())
    }
}
