//! How a packet leaves: what is changed in it, and what is done when it is too large for its way.
//!
//! Owns the order of rewriting. Never chooses a server.

use std::net::{IpAddr, SocketAddr};

use super::family::Family;
use super::flow_path::ip_length;
use super::kit::Kit;
use super::{Context, MAX_EXTRA};
use crate::dataplane::flow::{FlowTable, Place, flag};
use crate::dataplane::icmp;
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::last_hop::Hop;
use crate::dataplane::parse::{self, Kind, Parsed, Part, TCP, tcp_flag};
use crate::dataplane::path_mtu::LEAST_V6;
use crate::dataplane::proxy::{self, Progress, Step};
use crate::dataplane::rewrite::tunnel::Tunnel;
use crate::dataplane::rewrite::{self, mss, nat, tunnel};
use crate::dataplane::snapshot::{Endpoint, Port, ServerEntry, Way};
use crate::dataplane::split::{self, MOST_PIECES};
use crate::dataplane::syn_cookie::slab::Splice;
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
    /// How sequence numbers make room for a PROXY protocol header.
    pub proxy: Option<Proxy>,
    /// The two ends of a flow that a SYN cookie opened, and whether the packet goes to the server.
    pub splice: Option<(Splice, bool)>,
    /// In whose name ICMP errors about it are sent: the service address.
    pub service: IpAddr,
}

/// A flow whose client's address goes ahead of its stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proxy {
    /// Place of the client's entry, which keeps the progress.
    forward: Place,
    /// Whether the packet goes to the server.
    to_server: bool,
    /// Sequence number of the client's SYN.
    isn: u32,
    progress: Progress,
    /// Client and service, for the header.
    ends: (Endpoint, Endpoint),
}

impl Proxy {
    /// That of a flow, if it is one. `forward` is the place of the client's entry.
    pub fn of<E: Family>(table: &mut FlowTable<E>, kit: &Kit, forward: Place, to_server: bool) -> Option<Proxy> {
        let entry = *table.entry(forward);
        let flags = entry.flags();
        if flags & flag::PROXY == 0 {
            return None;
        }
        let progress = match (flags & flag::PROXY_DONE != 0, flags & flag::PROXY_SENT != 0) {
            (true, _) => Progress::Acknowledged,
            (false, true) => Progress::Sent,
            (false, false) => Progress::Unsent,
        };
        let key = entry.key();
        let ends = (E::source_end(&key), E::destination_end(&key));
        let isn = if flags & flag::COOKIE == 0 { entry.extra() } else { kit.splices.get(entry.extra())?.isn };
        Some(Proxy { forward, to_server, isn, progress, ends })
    }
}

impl Plan<'_> {
    /// As it is, to a server.
    pub fn direct(server: &ServerEntry, service: IpAddr) -> Self {
        Plan {
            source: None,
            destination: None,
            tunnel: None,
            exit: *server,
            mss: 0,
            proxy: None,
            splice: None,
            service,
        }
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

    /// Largest frame that may leave, without VLAN tags.
    fn largest_frame(&self, now: u32) -> u32 {
        let most = self.exit.max_frame;
        u32::from(self.tunnel.map_or(most, |outer| outer.largest_frame(most, now)))
    }
}

impl Context<'_> {
    /// Readies a packet for its way, in one piece or several.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn send<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        whole: &Parsed,
        plan: &Plan<'_>,
        hash: u64,
    ) -> Outcome {
        let outcome = plan.exit.outcome;
        if plan.exit.way == Way::Local && outcome.verdict == Verdict::Pass {
            return outcome;
        }
        let mut parsed = *whole;
        if let Some(proxy) = &plan.proxy
            && parsed.protocol == TCP
            && parsed.part != Part::Later
            && let Err(reason) = make_room(table, memory, frame, &mut parsed, proxy)
        {
            return Outcome { verdict: Verdict::Drop(reason), ..outcome };
        }
        let inserted = u32::from(parsed.l4_len) - u32::from(whole.l4_len).min(u32::from(parsed.l4_len));
        let parsed = &parsed;
        let length_of = |frame: &Frame| frame.len - 4 * u32::from(parsed.tags) + plan.growth();
        let most = plan.largest_frame(self.now);
        if length_of(frame) > most {
            // What lies behind the packet is not part of it.
            frame.len = frame.len.min(u32::from(parsed.l3) + ip_length(parsed));
        }
        if length_of(frame) > most {
            let mtu = most.saturating_sub(14 + plan.growth() + inserted);
            return self.too_big(kit, memory, frame, parsed, plan, mtu, flow_hash(table.home_of(hash)));
        }
        match rewrite_for(kit, memory, frame, parsed, plan, flow_hash(table.home_of(hash))) {
            Ok(()) => outcome,
            Err(reason) => Outcome { verdict: Verdict::Drop(reason), ..outcome },
        }
    }

    /// A packet that does not fit: in pieces where its sender allows that, else the sender is told. `mtu` is what it may
    /// have.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn too_big<M: FrameMemory>(
        &self,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        plan: &Plan<'_>,
        mtu: u32,
        hash: u32,
    ) -> Outcome {
        let drop = |reason| Outcome { verdict: Verdict::Drop(reason), ..plan.exit.outcome };
        if rewrite::may_be_split(memory.bytes(frame), parsed) {
            return match self.send_in_pieces(kit, memory, frame, mtu, plan, hash) {
                Ok(()) => plan.exit.outcome,
                Err(reason) => drop(reason),
            };
        }
        // No sender of IPv6 need make smaller ones (RFC 8200, section 5): the tunnel carries them (RFC 2473, section 7.1).
        let v6 = matches!(parsed.kind, Kind::Flow6 | Kind::Icmp6);
        if v6 && plan.tunnel.is_some() && ip_length(parsed) <= LEAST_V6 {
            return match self.wrap_in_pieces(kit, memory, frame, parsed, plan, hash) {
                Ok(()) => plan.exit.outcome,
                Err(reason) => drop(reason),
            };
        }
        let Some(port) = self.snapshot.ports.get(usize::from(frame.port)) else { return drop(DropReason::TooBig) };
        if kit.limiter.allow(self.now) {
            if icmp::too_big(memory, frame, parsed, plan.service, port.mac(), mtu) {
                self.stats.icmp_errors.add(1);
                return Outcome { verdict: Verdict::Reply(frame.port), ..plan.exit.outcome };
            }
            kit.limiter.give_back();
        }
        drop(DropReason::TooBig)
    }

    /// Cuts an IPv4 packet into fragments that fit `mtu`, and readies each. The first stays in the frame, the others go
    /// to the pipeline's own frames.
    fn send_in_pieces<M: FrameMemory>(
        &self,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        mtu: u32,
        plan: &Plan<'_>,
        hash: u32,
    ) -> Result<(), DropReason> {
        if kit.extra.len() + MOST_PIECES > MAX_EXTRA {
            return Err(DropReason::NoFrame);
        }
        let mut pieces = std::mem::take(&mut kit.pieces);
        let cut = split::fragment(memory, frame, mtu, &mut pieces);
        let mut ready = |kit: &mut Kit, piece: &mut Frame| {
            let parsed = parse::parse(memory.bytes(piece))?;
            rewrite_for(kit, memory, piece, &parsed, plan, hash)
        };
        let done = cut.and_then(|()| ready(kit, frame));
        for mut piece in pieces.drain(..) {
            let outcome = match done.and_then(|()| ready(kit, &mut piece)) {
                Ok(()) => plan.exit.outcome,
                Err(reason) => Outcome { verdict: Verdict::Drop(reason), ..plan.exit.outcome },
            };
            kit.extra.push((piece, outcome));
        }
        kit.pieces = pieces;
        done
    }

    /// Wraps a packet for its tunnel, and cuts the outer packet into fragments, which the server puts together.
    fn wrap_in_pieces<M: FrameMemory>(
        &self,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        plan: &Plan<'_>,
        hash: u32,
    ) -> Result<(), DropReason> {
        if kit.extra.len() + MOST_PIECES > MAX_EXTRA {
            return Err(DropReason::NoFrame);
        }
        rewrite_for(kit, memory, frame, parsed, plan, hash)?;
        let mtu = plan.largest_frame(self.now).saturating_sub(14);
        let mut pieces = std::mem::take(&mut kit.pieces);
        let cut = if plan.tunnel.is_some_and(Tunnel::is_v6) {
            kit.next_id_v6 = kit.next_id_v6.wrapping_add(1);
            split::fragment_v6(memory, frame, mtu, kit.next_id_v6, &mut pieces)
        } else {
            split::fragment(memory, frame, mtu, &mut pieces)
        };
        kit.extra.extend(pieces.drain(..).map(|piece| (piece, plan.exit.outcome)));
        kit.pieces = pieces;
        cut
    }
}

/// Shifts a segment's numbers for the PROXY protocol header, and puts that in where it belongs.
#[cold]
fn make_room<E: Family, M: FrameMemory>(
    table: &mut FlowTable<E>,
    memory: &mut M,
    frame: &mut Frame,
    parsed: &mut Parsed,
    proxy: &Proxy,
) -> Result<(), DropReason> {
    let length = proxy::length(parsed.kind == Kind::Flow6);
    let bytes = memory.bytes_mut(frame);
    let step = if proxy.to_server {
        proxy::client_segment(bytes, parsed, proxy.isn, length, proxy.progress)?
    } else {
        proxy::server_segment(bytes, parsed, proxy.isn, length, proxy.progress)?
    };
    let reached = match step {
        Step::Untouched | Step::Shifted => return Ok(()),
        Step::Insert => {
            let end = |end: Endpoint| SocketAddr::new(end.address, end.port.unwrap_or(0));
            proxy::insert(memory, frame, parsed, end(proxy.ends.0), end(proxy.ends.1))?;
            parsed.l4_len += length as u16;
            flag::PROXY_SENT
        }
        Step::Acknowledged => flag::PROXY_DONE,
    };
    let entry = table.entry(proxy.forward);
    entry.set_flags(entry.flags() | reached);
    Ok(())
}

/// What varies with the flow in outer headers, from the number of its home bucket: both ways of a packet have that.
pub(super) const fn flow_hash(home: u32) -> u32 {
    home.wrapping_mul(0x9e37_79b1)
}

/// Changes a packet as planned. On an error it may be half changed: it is dropped.
pub(super) fn rewrite_for<M: FrameMemory>(
    kit: &mut Kit,
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    plan: &Plan<'_>,
    hash: u32,
) -> Result<(), DropReason> {
    if rewrite::ttl(memory.bytes(frame), parsed) < 2 {
        return Err(DropReason::TtlExpired);
    }
    if plan.mss != 0 && parsed.tcp_flags & tcp_flag::SYN != 0 {
        mss::clamp(memory.bytes_mut(frame), parsed, plan.mss);
    }
    if let Some((splice, to_server)) = &plan.splice
        && matches!(parsed.kind, Kind::Flow4 | Kind::Flow6)
    {
        let bytes = memory.bytes_mut(frame);
        if *to_server { splice.client_segment(bytes, parsed) } else { splice.server_segment(bytes, parsed) }?;
    }
    if (plan.source.is_some() || plan.destination.is_some()) && matches!(parsed.kind, Kind::Flow4 | Kind::Flow6) {
        nat::translate(memory.bytes_mut(frame), parsed, plan.source, plan.destination)?;
    }
    match plan.tunnel {
        Some(outer) => {
            kit.next_id = kit.next_id.wrapping_add(1);
            tunnel::encapsulate(memory, frame, parsed, &plan.exit, outer, hash, kit.next_id)
        }
        None => rewrite::direct(memory, frame, parsed, &plan.exit),
    }
}
