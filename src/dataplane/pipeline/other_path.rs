//! Frames that belong to no flow: ARP, neighbour discovery, ICMP, what is broken, and what is nobody's.
//!
//! Owns how an ICMP error finds the server that it is about.

use super::Context;
use super::family::Family;
use super::flow_path::ip_length;
use super::kit::Kit;
use super::passive;
use crate::dataplane::answer::{self, Answer};
use crate::dataplane::flow::{FlowV4, FlowV6, Flows, flag};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{self, Kind, Parsed, SCTP, TCP, UDP};
use crate::dataplane::rewrite::nat;
use crate::dataplane::snapshot::Port;
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};

impl Context<'_> {
    /// ARP, ICMP, and what is nobody's.
    #[cold]
    pub(super) fn other_packet<M: FrameMemory>(
        &self,
        v4: &mut Flows<FlowV4>,
        v6: &mut Flows<FlowV6>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
    ) -> Outcome {
        let Some(port) = self.snapshot.ports.get(usize::from(frame.port)) else {
            return Outcome::drop(DropReason::NotOurs);
        };
        let port: Port = *port;
        if parsed.kind == Kind::Icmp4
            && let Some(reason) = self.foreign(memory.bytes(frame), frame)
        {
            return self.broken_packet(memory.bytes(frame), reason);
        }
        let found = match parsed.kind {
            Kind::Arp => answer::arp(self.snapshot, &port, memory.bytes_mut(frame), parsed, frame),
            Kind::Icmp4 => answer::icmp4(self.snapshot, &port, memory.bytes_mut(frame), parsed, frame),
            Kind::Icmp6 => {
                let mut grown = *frame;
                if memory.headroom(frame) as u64 + u64::from(frame.len + answer::ND_GROWTH) <= 2048 {
                    grown.len += answer::ND_GROWTH;
                }
                answer::icmp6(self.snapshot, &port, memory.bytes_mut(&grown), parsed, frame)
            }
            _ => return Outcome::plain(Verdict::Pass),
        };
        match found {
            Answer::Done(outcome) => outcome,
            Answer::Conflict(mac) => {
                let [a, b, c, d, e, f] = mac.0;
                self.stats.conflicts.add(1);
                self.stats.conflict_mac.set(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
                Outcome::drop(DropReason::AddressConflict)
            }
            Answer::IcmpError(inner) => {
                if let Some(outcome) = self.path_error(memory.bytes(frame), frame, parsed, inner) {
                    return outcome;
                }
                if parsed.kind == Kind::Icmp4 {
                    self.icmp_error(v4, kit, memory, frame, parsed, inner, inner_l4_v4)
                } else {
                    self.icmp_error(v6, kit, memory, frame, parsed, inner, inner_l4_v6)
                }
            }
        }
    }

    /// An ICMP error goes where the packet came from that it is about (`ip_vs_in_icmp`, `ip_vs_out_icmp`): that packet's
    /// addresses are a flow's, reversed. To the flow's server if the packet went to the client, to the client if it
    /// went to the server; where NAT changed the packet, the error tells of it as it was.
    #[allow(clippy::too_many_arguments)]
    fn icmp_error<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        inner: usize,
        inner_l4: impl Fn(&[u8], usize) -> Option<(u8, usize)>,
    ) -> Outcome {
        let bytes = memory.bytes(frame);
        let owned = parse::destination(bytes).is_some_and(|address| self.snapshot.owns(address));
        let refuse = |reason| if owned { Outcome::drop(reason) } else { Outcome::plain(Verdict::Pass) };
        if let Some(reason) = self.foreign(bytes, frame) {
            return refuse(reason);
        }
        let Some((protocol, l4)) = inner_l4(bytes, inner) else { return refuse(DropReason::BadIcmp) };
        let Some(key) = E::reverse_key_of(bytes, inner, l4, protocol) else { return refuse(DropReason::BadIcmp) };
        let hash = flows.hash(&key);
        let Some((stage, place)) = flows.find(&key, hash) else {
            return match kit.other(frame, hash) {
                Some(worker) => Outcome::plain(Verdict::Hand(worker)),
                None => refuse(DropReason::IcmpNoFlow),
            };
        };
        let table = flows.part(stage);
        let entry = *table.entry(place);
        let Some(server) = self.snapshot.server(entry.server()) else { return refuse(DropReason::IcmpNoFlow) };
        let reverse = entry.flags() & flag::REVERSE != 0;
        if reverse && entry.extra() & passive::WATCHED != 0 {
            self.error_about_question(table, place, memory.bytes(frame), parsed);
        }
        let plan = if reverse {
            self.plan_to_client(table, kit, place, server)
        } else {
            self.plan_to_server(table, kit, place, server, &key)
        };
        let drop = |reason| Outcome { verdict: Verdict::Drop(reason), ..server.outcome };
        let plan = match plan {
            Ok(plan) => plan,
            Err(reason) => return drop(reason),
        };
        if plan.source.is_some() || plan.destination.is_some() {
            // The packet inside went the other way: its source is where this one goes. An error from the server itself
            // comes from the service address, as IPVS has it (`ip_vs_nat_icmp`); one to the server keeps its source.
            let source = if reverse { plan.source.map(|end| end.address) } else { None };
            let destination = plan.destination.map(|end| end.address);
            let done = nat::translate_icmp_error(
                memory.bytes_mut(frame),
                parsed,
                inner,
                l4,
                source,
                destination,
                plan.destination,
                plan.source,
            );
            if let Err(reason) = done {
                return drop(reason);
            }
            if let Some((splice, to_server)) = &plan.splice {
                splice.quoted(memory.bytes_mut(frame), parsed, l4, *to_server);
            }
        }
        let outcome = self.send::<E, M>(table, kit, memory, frame, parsed, &plan, hash);
        if let Verdict::Tx(_) | Verdict::Pass = outcome.verdict {
            if reverse {
                self.count_out(server, ip_length(parsed));
            } else {
                self.count(server, ip_length(parsed));
            }
        }
        outcome
    }

    /// A frame that does not parse: dropped if it was meant for an owned address or cannot be told, else the
    /// kernel's.
    #[cold]
    pub(super) fn broken_packet(&self, bytes: &[u8], reason: DropReason) -> Outcome {
        match parse::destination(bytes) {
            Some(address) if !self.snapshot.owns(address) => Outcome::plain(Verdict::Pass),
            _ => Outcome::drop(reason),
        }
    }
}

/// Protocol and transport offset of the IPv4 packet inside an ICMP error (at least 8 bytes of transport, RFC 792).
fn inner_l4_v4(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let head: &[u8; 20] = bytes.get(at..)?.first_chunk()?;
    let header = usize::from(head[0] & 15) * 4;
    let first = u16::from_be_bytes([head[6], head[7]]) & 0x1fff == 0;
    let flows = matches!(head[9], TCP | UDP | SCTP);
    (head[0] >> 4 == 4 && header >= 20 && first && flows && bytes.len() >= at + header + 8)
        .then_some((head[9], at + header))
}

/// The same for IPv6, behind at most eight extension headers; `None` for a fragment other than the first.
fn inner_l4_v6(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let head: &[u8; 40] = bytes.get(at..)?.first_chunk()?;
    let (mut next, mut l4) = (head[6], at + 40);
    for _ in 0..8 {
        let first: &[u8; 8] = bytes.get(l4..)?.first_chunk()?;
        l4 += match next {
            0 | 43 | 60 => (usize::from(first[1]) + 1) * 8,
            44 if u16::from_be_bytes([first[2], first[3]]) & 0xfff8 == 0 => 8,
            51 => (usize::from(first[1]) + 2) * 4,
            _ => break,
        };
        next = first[0];
    }
    (head[0] >> 4 == 6 && matches!(next, TCP | UDP | SCTP) && bytes.len() >= l4 + 8).then_some((next, l4))
}
