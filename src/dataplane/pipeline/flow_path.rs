//! The long way of a packet that belongs to a flow: any header, any tag, and flows that are new.
//!
//! Owns the order of checks before a flow is created. Everything that it refuses has its reason.

use std::net::IpAddr;

use super::Context;
use super::family::Family;
use crate::dataplane::answer;
use crate::dataplane::flow::state::{self, State};
use crate::dataplane::flow::{FlowTable, Full, Place, STAMP_MS};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{self, Parsed, SCTP, TCP, tcp_flag};
use crate::dataplane::rewrite;
use crate::dataplane::schedule::{Client, fold_address};
use crate::dataplane::snapshot::slot_of;
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::model::VerifyChecksums;

impl Context<'_> {
    /// A packet of a flow: the hit is the path that must be fast.
    #[inline(always)]
    pub(super) fn flow_packet<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        hash: u64,
    ) -> Outcome {
        let bytes = memory.bytes(frame);
        let Some(key) = E::key_of(bytes, parsed) else { return Outcome::drop(DropReason::Truncated) };
        if let Some(reason) = self.foreign(bytes, frame) {
            return self.not_for_our_mac::<E>(&key, reason);
        }
        let Some(place) = table.find(&key, hash) else {
            if frame.hops == 0
                && let Some(other) = self.peers.and_then(|peers| peers.other(hash))
            {
                return Outcome::plain(Verdict::Hand(other));
            }
            return self.new_flow(table, memory, frame, parsed, &key, hash);
        };
        let entry = table.entry(place);
        let (id, before, stamp) = (entry.server(), entry.state(), entry.stamp());
        let idle = self.now.wrapping_sub(stamp);
        let Some(server) = self.snapshot.server(id) else {
            return self.replace_flow(table, place, memory, frame, parsed, &key, hash);
        };
        if idle >= STAMP_MS {
            if table.expired(place, self.now, &self.snapshot.timeouts_ms) {
                return self.replace_flow(table, place, memory, frame, parsed, &key, hash);
            }
            table.entry(place).set_stamp(self.now);
        }
        let outcome = server.outcome;
        if !server.reachable {
            return Outcome { verdict: Verdict::Drop(DropReason::NoNextHop), ..outcome };
        }
        let length = frame.len - 4 * u32::from(parsed.tags);
        if length > u32::from(server.max_frame) {
            return Outcome { verdict: Verdict::Drop(DropReason::TooBig), ..outcome };
        }
        if self.verify == VerifyChecksums::All
            && let Err(reason) = parse::verify_transport(memory.bytes(frame), parsed)
        {
            return Outcome { verdict: Verdict::Drop(reason), ..outcome };
        }
        let after = if parsed.protocol == TCP {
            state::tcp_next(before, parsed.tcp_flags)
        } else if parsed.protocol == SCTP {
            sctp_after(before, memory.bytes(frame), parsed)
        } else {
            before
        };
        if let Err(reason) = rewrite::direct(memory, frame, parsed, server) {
            return Outcome { verdict: Verdict::Drop(reason), ..outcome };
        }
        if after != before {
            table.entry(place).set_state(after);
            self.state_changed(id, before, after);
        }
        self.count(server, ip_length(parsed));
        outcome
    }

    /// A flow that expired, or whose server is gone, gives way to a new one of the same key.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn replace_flow<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        place: Place,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
    ) -> Outcome {
        super::close(self.snapshot, table.remove(place));
        self.new_flow(table, memory, frame, parsed, key, hash)
    }

    /// A packet without a flow: find its service, judge it, choose a server, remember the flow, forward.
    #[inline(never)]
    fn new_flow<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
    ) -> Outcome {
        let (source, destination) = (E::source(key), E::destination(key));
        let (source_port, port) = E::ports(key);
        let Some(index) = self.snapshot.service(destination, parsed.protocol, port) else {
            return Outcome::plain(Verdict::Pass);
        };
        let mut outcome = Outcome::plain(Verdict::Drop(DropReason::NotOurs));
        outcome.service = index;
        let refuse = |reason| Outcome { verdict: Verdict::Drop(reason), ..outcome };
        if let Err(reason) = self.admit(memory.bytes(frame), parsed, source) {
            return refuse(reason);
        }
        let service = &self.snapshot.services[usize::from(index)];
        let client = Client { folded_address: fold_address(source), port: source_port };
        let Some(chosen) = service.selector.select(&service.members, &service.cursor, client) else {
            return refuse(DropReason::NoServer);
        };
        let member = &service.members[chosen];
        let Some(server) = self.snapshot.server(member.id).filter(|s| s.reachable) else {
            return refuse(DropReason::NoNextHop);
        };
        outcome.server = slot_of(member.id) as u16;
        let refuse = |reason| Outcome { verdict: Verdict::Drop(reason), ..outcome };
        let length = frame.len - 4 * u32::from(parsed.tags);
        if length > u32::from(server.max_frame) {
            return refuse(DropReason::TooBig);
        }
        let initial = State::initial(parsed.protocol);
        let state = match parsed.protocol {
            TCP => state::tcp_next(initial, parsed.tcp_flags),
            SCTP => sctp_after(initial, memory.bytes(frame), parsed),
            _ => initial,
        };
        if let Err(reason) = rewrite::direct(memory, frame, parsed, server) {
            return refuse(reason);
        }
        match table.insert(key, hash, member.id, state, self.now, &self.snapshot.timeouts_ms) {
            Ok((_, gone)) => {
                if let Some(gone) = gone {
                    super::close(self.snapshot, gone);
                    self.stats.evicted.add(1);
                }
            }
            Err(Full) => return refuse(DropReason::FlowTableFull),
        }
        if let Some(peers) = self.peers {
            let _ = peers.directory.insert(hash, peers.me);
        }
        member.load.open(state.is_active());
        if let Some(counters) = self.stats.servers.get(slot_of(member.id)) {
            counters.connections.add(1);
        }
        self.count(server, ip_length(parsed));
        Outcome { new_flow: true, ..server.outcome }
    }

    /// Whether a packet may create a flow.
    fn admit(&self, bytes: &[u8], parsed: &Parsed, source: IpAddr) -> Result<(), DropReason> {
        if answer::is_martian(source) {
            return Err(DropReason::MartianSource);
        }
        if self.snapshot.owns(source) {
            return Err(DropReason::OwnSource);
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
        if self.verify != VerifyChecksums::Off {
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

/// Bytes of an IP packet by its own length fields, which is what IPVS counts.
pub(super) fn ip_length(parsed: &Parsed) -> u32 {
    u32::from(parsed.l4 - parsed.l3) + u32::from(parsed.l4_len)
}

fn sctp_after(before: State, bytes: &[u8], parsed: &Parsed) -> State {
    let at = usize::from(parsed.l4);
    state::sctp_next(before, bytes.get(at..at + usize::from(parsed.l4_len)).unwrap_or_default())
}
