//! How a packet leaves: what is changed in it, and what is done when it is too large for its way.
//!
//! Owns the order of rewriting. Never chooses a server.

use std::net::IpAddr;

use super::Context;
use super::family::Family;
use super::kit::Kit;
use crate::dataplane::flow::FlowTable;
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::last_hop::Hop;
use crate::dataplane::parse::{Kind, Parsed};
use crate::dataplane::rewrite::tunnel::Tunnel;
use crate::dataplane::rewrite::{self, nat, tunnel};
use crate::dataplane::snapshot::{Endpoint, Port, ServerEntry, Way};
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};

/// How one packet is to leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    /// New source.
    pub source: Option<Endpoint>,
    /// New destination.
    pub destination: Option<Endpoint>,
    /// Outer header.
    pub tunnel: Option<&'a Tunnel>,
    /// Where it leaves: MACs, tag, largest frame, verdict.
    pub exit: ServerEntry,
    /// Largest TCP segment that a SYN may announce; 0 leaves it.
    pub mss: u16,
    /// Whether sequence numbers make room for a PROXY protocol header.
    pub proxy: bool,
    /// In whose name ICMP errors about it are sent: the service address.
    pub service: IpAddr,
}

impl Plan<'_> {
    /// As it is, to a server.
    pub fn direct(server: &ServerEntry, service: IpAddr) -> Self {
        Plan { source: None, destination: None, tunnel: None, exit: *server, mss: 0, proxy: false, service }
    }

    /// Lets it leave towards a neighbour instead.
    pub fn exit(&mut self, hop: &Hop, port: &Port) {
        self.exit.macs[..6].copy_from_slice(&hop.mac.0);
        self.exit.macs[6..].copy_from_slice(&port.mac().0);
        self.exit.vlan = hop.vlan;
        self.exit.max_frame = u16::try_from(port.max_frame).unwrap_or(u16::MAX);
        self.exit.outcome.verdict = Verdict::Tx(hop.port);
        self.exit.reachable = true;
    }

    /// Bytes that the packet grows by.
    fn growth(&self) -> u32 {
        self.tunnel.map_or(0, Tunnel::overhead)
    }
}

impl Context<'_> {
    /// Readies a packet for its way, in one piece or several.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn send<E: Family, M: FrameMemory>(
        &self,
        _table: &mut FlowTable<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        plan: &Plan<'_>,
        hash: u64,
    ) -> Outcome {
        let outcome = plan.exit.outcome;
        if plan.exit.way == Way::Local && outcome.verdict == Verdict::Pass {
            return outcome;
        }
        let length = frame.len - 4 * u32::from(parsed.tags) + plan.growth();
        if length > u32::from(plan.exit.max_frame) {
            return self.too_big(kit, memory, frame, parsed, plan, hash);
        }
        match rewrite_for(kit, memory, frame, parsed, plan, hash) {
            Ok(()) => outcome,
            Err(reason) => Outcome { verdict: Verdict::Drop(reason), ..outcome },
        }
    }

    /// A packet that does not fit: in pieces where its sender allows that, else the sender is told.
    #[cold]
    fn too_big<M: FrameMemory>(
        &self,
        _kit: &mut Kit,
        _memory: &mut M,
        _frame: &mut Frame,
        _parsed: &Parsed,
        plan: &Plan<'_>,
        _hash: u64,
    ) -> Outcome {
        Outcome { verdict: Verdict::Drop(DropReason::TooBig), ..plan.exit.outcome }
    }
}

/// Changes a packet as planned. On an error it may be half changed: it is dropped.
pub(super) fn rewrite_for<M: FrameMemory>(
    kit: &mut Kit,
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    plan: &Plan<'_>,
    hash: u64,
) -> Result<(), DropReason> {
    if rewrite::ttl(memory.bytes(frame), parsed) < 2 {
        return Err(DropReason::TtlExpired);
    }
    if (plan.source.is_some() || plan.destination.is_some()) && matches!(parsed.kind, Kind::Flow4 | Kind::Flow6) {
        nat::translate(memory.bytes_mut(frame), parsed, plan.source, plan.destination)?;
    }
    match plan.tunnel {
        Some(outer) => {
            kit.next_id = kit.next_id.wrapping_add(1);
            tunnel::encapsulate(memory, frame, parsed, &plan.exit, outer, (hash >> 16) as u32, kit.next_id)
        }
        None => rewrite::direct(memory, frame, parsed, &plan.exit),
    }
}
