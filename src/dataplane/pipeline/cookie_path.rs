//! SYN cookies: clients of NAT and full NAT that are answered before anything is remembered of them, and the handshake with
//! the server once they have come back (ADR 0015).
//!
//! Owns when a SYN is answered by a cookie, and what each packet of such a flow means until both ends know each other. What
//! is shifted afterwards is in [`crate::dataplane::syn_cookie::translate`].

use std::net::SocketAddr;

use super::family::Family;
use super::flow_path::ip_length;
use super::kit::Kit;
use super::{Context, MAX_EXTRA};
use crate::dataplane::flow::state::State;
use crate::dataplane::flow::{FlowTable, Flows, Place, Stage, flag};
use crate::dataplane::guard::YOUNG_MS;
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{Parsed, Part, TCP, be16, tcp_flag};
use crate::dataplane::proxy;
use crate::dataplane::rewrite::options::{field, header_end};
use crate::dataplane::schedule::Request;
use crate::dataplane::snapshot::{Endpoint, ServerEntry};
use crate::dataplane::syn_cookie::segment::{self, Segment, SynOptions};
use crate::dataplane::syn_cookie::slab::{Phase, Splice};
use crate::dataplane::syn_cookie::{Ends, Offer, Proof, SCALE, Secret};
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::model::SynCookies;

const SYN: u8 = tcp_flag::SYN;
const ACK: u8 = tcp_flag::ACK;
const RST: u8 = tcp_flag::RST;

/// How long the server has to answer a SYN before a packet of the client makes it go out again, milliseconds.
const RETRY_MS: u32 = 200;

/// How often the SYN goes out again at once because the server answered with something of an older connection.
const MOST_RETRIES: u8 = 3;

/// Counts the cookies of a second that nobody has answered: these would be unproven flows, and as many of them as would fill
/// that part of the table while it is young are a flood that goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    since: u32,
    unanswered: u32,
}

impl Meter {
    /// Counts one that was sent. Whether more than `limit` of this second are unanswered.
    fn sent(&mut self, limit: u32, now: u32) -> bool {
        if now.wrapping_sub(self.since) >= 1000 {
            *self = Meter { since: now, unanswered: 0 };
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.unanswered > limit
    }

    fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }
}

/// Unanswered cookies a second that are as many as `capacity` places for unproven flows bear; a flow by NAT takes two.
fn bearable(capacity: usize) -> u32 {
    (capacity / 2 / (YOUNG_MS as usize / 1000)).max(1) as u32
}

/// Window of a TCP segment, as it lies in the header.
fn window(bytes: &[u8], parsed: &Parsed) -> u16 {
    be16(bytes, usize::from(parsed.l4) + 14).unwrap_or(0)
}

fn socket(end: Endpoint) -> SocketAddr {
    SocketAddr::new(end.address, end.port.unwrap_or(0))
}

/// A packet of a flow that a cookie opened: where the flow is.
#[derive(Clone, Copy)]
struct Met<'s> {
    stage: Stage,
    /// Entry of the packet's direction.
    place: Place,
    /// Entry of the client's direction.
    forward: Place,
    /// Place in the slab.
    index: u32,
    splice: Splice,
    server: &'s ServerEntry,
    hash: u64,
}

impl Met<'_> {
    fn refuse(&self, reason: DropReason) -> Outcome {
        Outcome { verdict: Verdict::Drop(reason), ..self.server.outcome }
    }
}

impl Context<'_> {
    /// A packet without a flow, as far as SYN cookies concern it; `None`: they do not.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn cookies<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
        service: u16,
        request: &Request,
    ) -> Option<Outcome> {
        if parsed.protocol != TCP {
            return None;
        }
        let is_on = match self.director.syn_cookies {
            SynCookies::Off => return None,
            SynCookies::Always => true,
            // Cookies that were sent in a flood may come back after it.
            SynCookies::Flood if self.director.guard.is_remembered(self.now) => self.director.guard.is_on(self.now),
            SynCookies::Flood => return None,
        };
        let mss = self.snapshot.cookie_mss(service)?;
        if is_on && parsed.tcp_flags & (SYN | ACK) == SYN && parsed.part == Part::Whole {
            return Some(self.answer_syn(flows, kit, memory, frame, parsed, service, mss));
        }
        let secret = Secret(self.director.cookie_key);
        match secret.proof(memory.bytes(frame), parsed, self.now) {
            Some(proof) => {
                Some(self.open_spliced(flows, kit, memory, frame, parsed, key, hash, service, request, &proof))
            }
            None if is_on => {
                self.stats.cookies_refused.add(1);
                Some(Outcome { service, ..Outcome::drop(DropReason::BadCookie) })
            }
            None => None,
        }
    }

    /// Answers a SYN by a SYN-ACK whose sequence number is the cookie. Its window is 0: the client must not send before there
    /// is a server. `mss`: the largest segment that the client may send.
    #[allow(clippy::too_many_arguments)]
    fn answer_syn<E: Family, M: FrameMemory>(
        &self,
        flows: &Flows<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        service: u16,
        mss: u16,
    ) -> Outcome {
        let outcome = |verdict| Outcome { service, ..Outcome::plain(verdict) };
        let bytes = memory.bytes(frame);
        let (Some(offer), Some(ends)) = (Offer::of(bytes, parsed), Ends::of(bytes, parsed)) else {
            return outcome(Verdict::Drop(DropReason::BadTransportHeader));
        };
        let isn = field(bytes, usize::from(parsed.l4), 4);
        let cookie = Secret(self.director.cookie_key).issue(&ends, isn, offer, self.now);
        let options = SynOptions { mss, scale: offer.scale().map(|_| SCALE), sack: offer.sack() };
        let answer =
            Segment { number: cookie, ack: isn.wrapping_add(1), flags: SYN | ACK, window: 0, options: Some(options) };
        let Some(port) = self.snapshot.ports.get(usize::from(frame.port)) else {
            return outcome(Verdict::Drop(DropReason::NotOurs));
        };
        if segment::answer(memory, frame, parsed, port.mac(), &answer).is_none() {
            return outcome(Verdict::Drop(DropReason::MartianSource));
        }
        self.stats.cookies_sent.add(1);
        if self.director.syn_cookies == SynCookies::Flood
            && kit.meter.sent(bearable(flows.unproven.capacity()), self.now)
        {
            self.director.guard.press(self.now);
        }
        outcome(Verdict::Reply(frame.port))
    }

    /// A client came back with a good cookie: its packet becomes the SYN to a server.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn open_spliced<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
        service: u16,
        request: &Request,
        proof: &Proof,
    ) -> Outcome {
        let refuse = |reason| Outcome { service, ..Outcome::drop(reason) };
        self.stats.cookies_accepted.add(1);
        kit.meter.answered();
        let splice = Splice::new(proof, window(memory.bytes(frame), parsed), self.now);
        let Some(index) = kit.splices.take(splice) else { return refuse(DropReason::CookieTableFull) };
        let Some(parsed) = segment::replace(memory, frame, parsed, &splice.syn()) else {
            kit.splices.give(index);
            return refuse(DropReason::NoFrame);
        };
        self.open_flow(flows, kit, memory, frame, &parsed, key, hash, service, request, false, Some(index))
    }

    /// A packet of a flow that a cookie opened. `None`: it goes on as any packet of a flow; it may have become another one,
    /// and `parsed` with it.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn cookie_flow<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        (stage, place): (Stage, Place),
        server: &ServerEntry,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &mut Parsed,
        (key, hash): (&E::Key, u64),
    ) -> Option<Outcome> {
        let table = flows.part(stage);
        let reverse = table.entry(place).flags() & flag::REVERSE != 0;
        let forward = if reverse { table.partner(place) } else { Some(place) };
        let found = forward.and_then(|forward| {
            let index = table.entry(forward).extra();
            Some((forward, index, *kit.splices.get(index)?))
        });
        let Some((forward, index, splice)) = found else {
            return Some(Outcome { verdict: Verdict::Drop(DropReason::NoReturnHop), ..server.outcome });
        };
        let met = Met { stage, place, forward, index, splice, server, hash };
        let bytes = memory.bytes(frame);
        let whole = parsed.part == Part::Whole && header_end(bytes, parsed).is_some();
        match (splice.phase(), reverse) {
            (Phase::Open, false) => {
                // A SYN that comes late, when the client has had its answer.
                let late = whole && proxy::opens(bytes, parsed) == Some(splice.isn);
                late.then(|| met.refuse(DropReason::HandshakePending))
            }
            (Phase::Pending, _) if !whole => Some(met.refuse(DropReason::HandshakePending)),
            (Phase::Pending, false) => self.pending_client(flows, kit, &met, memory, frame, parsed, key),
            (Phase::Pending, true) => self.pending_server(flows, kit, &met, memory, frame, parsed),
            (Phase::Open, true) if whole && parsed.tcp_flags & (SYN | ACK | RST) == SYN | ACK => {
                if field(bytes, usize::from(parsed.l4), 4) == splice.server_isn() {
                    // The ACK was lost.
                    return self.shake_hands(flows, kit, &met, memory, frame, parsed);
                }
                // The server took a SYN of the client's own: that connection needs no help.
                let isn = field(bytes, usize::from(parsed.l4), 8).wrapping_sub(1);
                kit.splices.give(index);
                let table = flows.part(stage);
                for (place, off) in
                    [(place, flag::COOKIE), (forward, flag::COOKIE | flag::PROXY_SENT | flag::PROXY_DONE)]
                {
                    let entry = table.entry(place);
                    entry.set_flags(entry.flags() & !off);
                }
                table.entry(forward).set_extra(isn);
                None
            }
            (Phase::Open, true) => None,
        }
    }

    /// The client says something while its server has not answered.
    #[allow(clippy::too_many_arguments)]
    fn pending_client<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        met: &Met<'_>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &mut Parsed,
        key: &E::Key,
    ) -> Option<Outcome> {
        let bytes = memory.bytes(frame);
        let flags = parsed.tcp_flags;
        let number = field(bytes, usize::from(parsed.l4), 4);
        let first = met.splice.isn.wrapping_add(1);
        let pending = Some(met.refuse(DropReason::HandshakePending));
        if flags & RST != 0 {
            if number != first {
                return pending;
            }
            // It gave up. Nothing of the server can be acknowledged yet.
            let reset = Segment { number: first, ack: 0, flags: RST, window: 0, options: None };
            let Some(parsed) = segment::replace(memory, frame, parsed, &reset) else { return pending };
            let table = flows.part(met.stage);
            let sent = match self.plan_to_server(table, kit, met.forward, met.server, key) {
                Ok(plan) => self.send::<E, M>(table, kit, memory, frame, &parsed, &plan, met.hash),
                Err(reason) => met.refuse(reason),
            };
            self.count(met.server, ip_length(&parsed));
            self.end(flows, kit, met);
            return Some(sent);
        }
        if flags & (SYN | ACK) == SYN && number != met.splice.isn {
            return Some(self.replace_flow(flows, kit, (met.stage, met.place), memory, frame, parsed, key, met.hash));
        }
        let splice = kit.splices.get_mut(met.index)?;
        if flags & (SYN | ACK) != ACK || self.now.wrapping_sub(splice.sent) < RETRY_MS {
            return pending;
        }
        splice.sent = self.now;
        splice.window = window(bytes, parsed);
        let syn = splice.syn();
        let Some(replaced) = segment::replace(memory, frame, parsed, &syn) else { return pending };
        *parsed = replaced;
        None
    }

    /// The server answers the SYN.
    fn pending_server<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        met: &Met<'_>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &mut Parsed,
    ) -> Option<Outcome> {
        let bytes = memory.bytes(frame);
        let ack = field(bytes, usize::from(parsed.l4), 8);
        let first = met.splice.isn.wrapping_add(1);
        let pending = Some(met.refuse(DropReason::HandshakePending));
        match parsed.tcp_flags & (SYN | ACK | RST) {
            flags if flags & ACK == 0 => pending,
            flags if flags & RST != 0 && ack == first => {
                // It refuses. The client takes a reset that is where its own window begins (RFC 5961, section 3.2).
                let number = met.splice.cookie.wrapping_add(1);
                let reset = Segment { number, ack: first, flags: RST | ACK, window: 0, options: None };
                let Some(parsed) = segment::replace(memory, frame, parsed, &reset) else { return pending };
                let table = flows.part(met.stage);
                let sent = match self.plan_to_client(table, kit, met.place, met.server) {
                    Ok(plan) => self.send::<E, M>(table, kit, memory, frame, &parsed, &plan, met.hash),
                    Err(reason) => met.refuse(reason),
                };
                self.count_out(met.server, ip_length(&parsed));
                self.server_answers(flows.part(met.stage), met.place, &parsed);
                // The server has nothing left of it: a local port need not rest.
                flows.part(met.stage).set_state(met.place, State::TCP_CLOSE);
                self.end(flows, kit, met);
                Some(sent)
            }
            flags if flags & RST != 0 => pending,
            flags if flags & SYN != 0 && ack == first => self.shake_hands(flows, kit, met, memory, frame, parsed),
            // It still has an older connection of these ends (RFC 9293, section 3.10.7.3).
            _ => self.end_older(flows, kit, met, memory, frame, parsed, ack).or(pending),
        }
    }

    /// The server's SYN-ACK came: it gets its ACK, and the client learns the server's window.
    fn shake_hands<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        met: &Met<'_>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &mut Parsed,
    ) -> Option<Outcome> {
        let bytes = memory.bytes(frame);
        let number = field(bytes, usize::from(parsed.l4), 4);
        let offered = window(bytes, parsed);
        let pending = met.refuse(DropReason::HandshakePending);
        let Some(options) = Offer::of(bytes, parsed) else { return Some(pending) };
        let splice = kit.splices.get_mut(met.index)?;
        if splice.phase() == Phase::Pending {
            splice.open(number, options);
        }
        let splice = *splice;
        self.tell_server(flows.part(met.stage), kit, met, memory, frame, &splice.ack());
        let update = Segment {
            number: number.wrapping_add(1),
            ack: splice.isn.wrapping_add(1),
            flags: ACK,
            window: splice.first_window(offered),
            options: None,
        };
        match segment::replace(memory, frame, parsed, &update) {
            Some(replaced) => {
                *parsed = replaced;
                None
            }
            None => Some(pending),
        }
    }

    /// Resets what the server has left of an older connection, and asks again.
    #[allow(clippy::too_many_arguments)]
    fn end_older<E: Family, M: FrameMemory>(
        &self,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        met: &Met<'_>,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        ack: u32,
    ) -> Option<Outcome> {
        let port = self.snapshot.ports.get(usize::from(frame.port))?;
        let reset = Segment { number: ack, ack: 0, flags: RST, window: 0, options: None };
        segment::answer(memory, frame, parsed, port.mac(), &reset)?;
        let splice = kit.splices.get_mut(met.index)?;
        if splice.retries < MOST_RETRIES {
            splice.retries += 1;
            splice.sent = self.now;
            let syn = splice.syn();
            self.tell_server(flows.part(met.stage), kit, met, memory, frame, &syn);
        }
        Some(Outcome { verdict: Verdict::Reply(frame.port), ..met.server.outcome })
    }

    /// Sends the server a segment in its client's name. `frame` is what it answers. Where that fails the server, or the
    /// client, asks again.
    fn tell_server<E: Family, M: FrameMemory>(
        &self,
        table: &mut FlowTable<E>,
        kit: &mut Kit,
        met: &Met<'_>,
        memory: &mut M,
        frame: &Frame,
        segment: &Segment,
    ) {
        let key = table.entry(met.forward).key();
        let (source, destination) = (socket(E::source_end(&key)), socket(E::destination_end(&key)));
        let made = if kit.extra.len() < MAX_EXTRA {
            segment::make(memory, frame.port, source, destination, segment)
        } else {
            None
        };
        let Some((mut own, parsed)) = made else { return self.count_lost(DropReason::NoFrame, 1) };
        let outcome = match self.plan_to_server(table, kit, met.forward, met.server, &key) {
            Ok(plan) => self.send::<E, M>(table, kit, memory, &mut own, &parsed, &plan, met.hash),
            Err(reason) => met.refuse(reason),
        };
        self.count(met.server, ip_length(&parsed));
        kit.extra.push((own, outcome));
    }

    /// Ends a flow.
    fn end<E: Family>(&self, flows: &mut Flows<E>, kit: &mut Kit, met: &Met<'_>) {
        let gone = flows.part(met.stage).remove(met.place);
        kit.close(self.snapshot, &gone, self.now);
    }
}
