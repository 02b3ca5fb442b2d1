//! Frames that belong to no flow: ARP, neighbour discovery, ICMP, what is broken, and what is nobody's.
//!
//! Owns how an ICMP error finds the server that it is about.

use super::Context;
use super::family::Family;
use super::flow_path::ip_length;
use crate::dataplane::answer::{self, Answer};
use crate::dataplane::flow::{FlowTable, FlowV4, FlowV6};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{self, Kind, Parsed};
use crate::dataplane::rewrite;
use crate::dataplane::snapshot::Port;
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};

impl Context<'_> {
    /// ARP, ICMP, and what is nobody's.
    #[cold]
    pub(super) fn other_packet<M: FrameMemory>(
        &self,
        v4: &mut FlowTable<FlowV4>,
        v6: &mut FlowTable<FlowV6>,
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
            Answer::IcmpError(inner) if parsed.kind == Kind::Icmp4 => {
                self.icmp_error(v4, memory, frame, parsed, inner, inner_l4_v4)
            }
            Answer::IcmpError(inner) => self.icmp_error(v6, memory, frame, parsed, inner, inner_l4_v6),
        }
    }

    /// An ICMP error for a service address goes to the server that owns the flow which the error is about
    /// (`ip_vs_in_icmp`): the invoking packet was sent by that server, so its addresses are the flow's, reversed.
    fn icmp_error<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        inner: usize,
        inner_l4: impl Fn(&[u8], usize) -> Option<(u8, usize)>,
    ) -> Outcome {
        let bytes = memory.bytes(frame);
        if let Some(reason) = self.foreign(bytes, frame) {
            return Outcome::drop(reason);
        }
        let Some((protocol, l4)) = inner_l4(bytes, inner) else { return Outcome::drop(DropReason::BadIcmp) };
        let Some(key) = E::reverse_key_of(bytes, inner, l4, protocol) else {
            return Outcome::drop(DropReason::BadIcmp);
        };
        let hash = table.hash(&key);
        let Some(place) = table.find(&key, hash) else { return Outcome::drop(DropReason::IcmpNoFlow) };
        let id = table.entry(place).server();
        let Some(server) = self.snapshot.server(id) else { return Outcome::drop(DropReason::IcmpNoFlow) };
        let outcome = server.outcome;
        if !server.reachable {
            return Outcome { verdict: Verdict::Drop(DropReason::NoNextHop), ..outcome };
        }
        match rewrite::direct(memory, frame, parsed, server) {
            Ok(()) => {
                self.count(server, ip_length(parsed));
                outcome
            }
            Err(reason) => Outcome { verdict: Verdict::Drop(reason), ..outcome },
        }
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
    (head[0] >> 4 == 4 && header >= 20 && first && bytes.len() >= at + header + 8).then_some((head[9], at + header))
}

/// The same for IPv6; extension headers before the transport are not followed here.
fn inner_l4_v6(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let head: &[u8; 40] = bytes.get(at..)?.first_chunk()?;
    (head[0] >> 4 == 6 && bytes.len() >= at + 48).then_some((head[6], at + 40))
}
