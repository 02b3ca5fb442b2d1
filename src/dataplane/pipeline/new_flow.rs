//! A packet without a flow: another worker's, a new flow, or the kernel's.
//!
//! Owns the order of checks before a flow is created. Everything that it refuses has its reason, and leaves no flow.

use std::net::IpAddr;

use super::Context;
use super::choose::Choice;
use super::family::Family;
use super::flow_path::{after, ip_length};
use super::kit::Kit;
use super::passive;
use crate::dataplane::answer;
use crate::dataplane::flow::state::{self, Side, State};
use crate::dataplane::flow::{Flows, Full, Gone, Place, Stage, flag};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::last_hop::Hop;
use crate::dataplane::parse::{self, Parsed, Part, SCTP, TCP, tcp_flag};
use crate::dataplane::proxy;
use crate::dataplane::rewrite;
use crate::dataplane::schedule::{Member, Request, fold_address};
use crate::dataplane::snapshot::{Endpoint, ServerEntry, ServiceEntry, Target, Way, slot_of};
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::model::VerifyChecksums;

/// What became of a packet without a flow.
enum Made<'s> {
    /// It has one now.
    Flow { place: Place, choice: Choice<'s> },
    /// It goes to this server and leaves none behind.
    Once(&'s Member),
}

/// Why no flow was made.
pub(super) enum Refusal {
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
        flows: &mut Flows<E>,
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
        self.new_flow(flows, kit, memory, frame, parsed, key, hash, index)
    }

    /// Judges the packet, chooses a server, remembers the flow, forwards.
    #[allow(clippy::too_many_arguments)]
    fn new_flow<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
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
        if let Err(reason) = self.admit(memory.bytes(frame), parsed, E::source(key)) {
            return refuse(reason);
        }
        let service = &self.snapshot.services[usize::from(index)];
        let opens = parsed.protocol == TCP && parsed.tcp_flags & tcp_flag::SYN != 0;
        let request = self.request(kit, service, E::source(key), E::ports(key));
        // In a flood, and while what it left may be about to answer, the same client always gets the same server.
        let stateless = self.director.guard.is_remembered(self.now);
        if let Some(answered) = self.cookies(flows, kit, memory, frame, parsed, key, hash, index, &request) {
            return answered;
        }
        if stateless && opens && self.director.guard.is_on(self.now) {
            match self.choose_stateless::<E>(service, key, &request) {
                Some(member) if !self.is_nat(member) => {
                    self.stats.stateless.add(1);
                    return self.forward_once::<E, M>(flows, kit, memory, frame, parsed, key, hash, member);
                }
                _ => {}
            }
        }
        self.open_flow(flows, kit, memory, frame, parsed, key, hash, index, &request, stateless, None)
    }

    /// Chooses a server for a packet that may open a flow, remembers the flow, forwards. `splice`: the place of what is kept
    /// of a flow that a SYN cookie opened, which is proven by that.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn open_flow<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
        index: u16,
        request: &Request,
        stateless: bool,
        splice: Option<u32>,
    ) -> Outcome {
        let mut outcome = Outcome { service: index, ..Outcome::drop(DropReason::NotOurs) };
        let refuse = |reason| Outcome { verdict: Verdict::Drop(reason), ..outcome };
        let service = &self.snapshot.services[usize::from(index)];
        let no_splice = |kit: &mut Kit| splice.into_iter().for_each(|splice| kit.splices.give(splice));
        let admitted = match self.within_limits::<E>(service, key) {
            Ok(flags) => flags,
            Err(reason) => {
                no_splice(kit);
                return refuse(reason);
            }
        };
        let stage = if splice.is_some() { Stage::Proven } else { Stage::Unproven };
        let bytes = memory.bytes(frame);
        let made = self.make_flow(flows, kit, bytes, frame, parsed, key, hash, service, request, stateless, stage);
        let (place, choice) = match made {
            Ok(Made::Flow { place, choice }) => (place, choice),
            Ok(Made::Once(member)) => {
                no_splice(kit);
                self.give_up_limits::<E>(service, key, admitted);
                return self.forward_once::<E, M>(flows, kit, memory, frame, parsed, key, hash, member);
            }
            Err(refusal) => {
                no_splice(kit);
                self.give_up_limits::<E>(service, key, admitted);
                return match refusal {
                    Refusal::Drop(DropReason::NoServer) => {
                        self.refuse_client::<E, M>(kit, memory, frame, parsed, key, index)
                    }
                    Refusal::Drop(reason) => refuse(reason),
                    Refusal::Taken(worker) => Outcome::plain(Verdict::Hand(worker)),
                };
            }
        };
        let table = flows.part(stage);
        let entry = table.entry(place);
        entry.set_flags(entry.flags() | choice.flags | admitted);
        if choice.ticket != 0 {
            entry.set_extra(choice.ticket);
        }
        if let Some(splice) = splice {
            entry.set_flags(entry.flags() | flag::COOKIE);
            entry.set_extra(splice);
            if let Some(partner) = table.partner(place) {
                let entry = table.entry(partner);
                entry.set_flags(entry.flags() | flag::COOKIE);
            }
        }
        let member = choice.member;
        let server = self.snapshot.server(member.id);
        outcome.server = slot_of(member.id) as u16;
        let refuse = |reason| Outcome { verdict: Verdict::Drop(reason), ..outcome };
        let sent =
            match server.ok_or(DropReason::NoNextHop).and_then(|s| self.plan_to_server(table, kit, place, s, key)) {
                Ok(plan) => self.send::<E, M>(table, kit, memory, frame, parsed, &plan, hash),
                Err(reason) => refuse(reason),
            };
        if let Verdict::Drop(_) | Verdict::Reply(_) = sent.verdict {
            let gone = table.remove(place);
            kit.close(self.snapshot, &gone, self.now);
            return sent;
        }
        if let Some(server) = server {
            self.opened(member, server, parsed);
        }
        Outcome { new_flow: true, ..sent }
    }

    /// What a scheduler may look at.
    pub(super) fn request(&self, kit: &mut Kit, service: &ServiceEntry, client: IpAddr, ports: (u16, u16)) -> Request {
        Request {
            client: fold_address(client),
            port: ports.0,
            destination: fold_address(service.config.key.address),
            destination_port: ports.1,
            now: self.now,
            random: kit.random(),
        }
    }

    /// Whether both halves of a member's flows pass by.
    pub(super) fn is_nat(&self, member: &Member) -> bool {
        self.snapshot.server(member.id).is_some_and(|server| matches!(server.way, Way::Nat | Way::FullNat))
    }

    /// Chooses a server, counts the flow there, and makes its entries, in this part of the table.
    #[allow(clippy::too_many_arguments)]
    fn make_flow<'s, E: Family>(
        &'s self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        bytes: &[u8],
        frame: &Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
        service: &'s ServiceEntry,
        request: &Request,
        stateless: bool,
        stage: Stage,
    ) -> Result<Made<'s>, Refusal> {
        /// How often another server is asked for when the chosen one reached its threshold at the same moment.
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            let choice = self.choose::<E>(service, bytes, parsed, key, request, stateless)?;
            let member = choice.member;
            let Some(server) = self.snapshot.server(member.id).filter(|s| s.reachable) else {
                self.unchoose(&choice);
                return Err(DropReason::NoNextHop.into());
            };
            // What comes in pieces has a flow all the same: the later ones must follow the first.
            if service.config.one_packet && parsed.part == Part::Whole && !self.is_nat(member) {
                self.went_once(&choice);
                return Ok(Made::Once(member));
            }
            let nat = matches!(server.way, Way::Nat | Way::FullNat);
            let side = if nat { Side::Client } else { Side::Only };
            let state = after(side, State::initial(parsed.protocol), bytes, parsed);
            // A client that has its server already comes to it whatever its threshold.
            let upper = if choice.fixed { 0 } else { member.upper };
            if !member.load.try_open(state.is_active(), upper) {
                self.unchoose(&choice);
                continue;
            }
            let made = if nat {
                let hop = Hop::of(bytes, parsed, frame.port);
                hop.ok_or(Refusal::Drop(DropReason::MartianSource)).and_then(|hop| {
                    let watched = passive::is_watched(service, parsed);
                    self.insert_pair(flows, kit, bytes, parsed, key, hash, server, state, (hop, watched), stage)
                })
            } else {
                self.insert_one(flows, kit, key, hash, server, state)
            };
            return match made {
                Ok(place) => Ok(Made::Flow { place, choice }),
                Err(refusal) => {
                    member.load.close(state.is_active());
                    member.load.relieve(member.upper, member.lower);
                    self.unchoose(&choice);
                    Err(refusal)
                }
            };
        }
        Err(DropReason::NoServer.into())
    }

    /// Forwards a packet that leaves no flow behind.
    #[allow(clippy::too_many_arguments)]
    fn forward_once<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
        member: &Member,
    ) -> Outcome {
        let Some(server) = self.snapshot.server(member.id) else { return Outcome::drop(DropReason::NoNextHop) };
        let sent = match self.plan_without_flow(server, E::destination(key)) {
            Ok(plan) => self.send::<E, M>(&mut flows.unproven, kit, memory, frame, parsed, &plan, hash),
            Err(reason) => Outcome { verdict: Verdict::Drop(reason), ..server.outcome },
        };
        if let Verdict::Tx(_) | Verdict::Pass = sent.verdict {
            if let Some(counters) = self.stats.servers.get(slot_of(member.id)) {
                counters.connections.add(1);
            }
            self.count(server, ip_length(parsed));
        }
        sent
    }

    fn opened(&self, member: &Member, server: &ServerEntry, parsed: &Parsed) {
        if let Some(counters) = self.stats.servers.get(slot_of(member.id)) {
            counters.connections.add(1);
        }
        self.count(server, ip_length(parsed));
    }

    /// A flow of which only the client's half passes by.
    fn insert_one<E: Family>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        key: &E::Key,
        hash: u64,
        server: &ServerEntry,
        state: State,
    ) -> Result<Place, Refusal> {
        kit.enter(self.stats, hash).map_err(Refusal::Taken)?;
        match flows.unproven.insert(key, hash, server.id, state, self.now, self.snapshot) {
            Ok((place, gone)) => {
                if let Some(gone) = gone {
                    self.gave_way(kit, &gone);
                }
                Ok(place)
            }
            Err(Full) => {
                kit.leave(hash);
                Err(Refusal::Drop(DropReason::FlowTableFull))
            }
        }
    }

    /// An unproven flow gave way to a newer one.
    fn gave_way<E: Family>(&self, kit: &mut Kit, gone: &Gone<E>) {
        let last = gone.reverse.map_or(gone.entry.stamp(), |(reverse, _)| {
            let idle = |stamp: u32| self.now.wrapping_sub(stamp);
            if idle(reverse.stamp()) < idle(gone.entry.stamp()) { reverse.stamp() } else { gone.entry.stamp() }
        });
        self.director.guard.gave_way(self.now.wrapping_sub(last), self.now);
        kit.close(self.snapshot, gone, self.now);
        self.stats.evicted.add(1);
    }

    /// A flow of which both halves pass by.
    #[allow(clippy::too_many_arguments)]
    fn insert_pair<E: Family>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        bytes: &[u8],
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
        server: &ServerEntry,
        state: State,
        (hop, watched): (Hop, bool),
        stage: Stage,
    ) -> Result<Place, Refusal> {
        let target = self.snapshot.target(server.id).ok_or(DropReason::NoNextHop)?;
        let reverse = self.reverse_key::<E>(flows, kit, parsed, key, server, target)?;
        let reverse_hash = flows.hash(&reverse);
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
        let table = flows.part(stage);
        let keys = [(key, hash), (&reverse, reverse_hash)];
        let inserted = table.insert_pair(keys, server.id, state, self.now, self.snapshot, |gone| {
            if stage == Stage::Unproven {
                self.gave_way(kit, &gone);
            } else {
                kit.close(self.snapshot, &gone, self.now);
                self.stats.evicted.add(1);
            }
        });
        match inserted {
            Ok([first, second]) => {
                table.entry(second).set_extra(passive::extra(number, watched));
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
        flows: &mut Flows<E>,
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
        if let Some((stage, place)) = flows.find(&reverse, flows.hash(&reverse)) {
            let table = flows.part(stage);
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
            // Flows of another address, or of its own former place, may not have ended yet.
            kit.locals.get(usize::from(slot)).filter(|local| **local == Some(address))?;
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
