//! Which server a new flow gets: the one that its QUIC connection id names, a persistent client's, else the scheduler's choice.
//!
//! Owns the order of these, and which of a client's flows count for its template. Never makes a flow.

use super::Context;
use super::family::Family;
use crate::dataplane::director::Director;
use crate::dataplane::flow::{Flows, Lifetimes, flag};
use crate::dataplane::parse::{Parsed, Part, UDP};
use crate::dataplane::persist::{Joined, Subject};
use crate::dataplane::schedule::{Member, Request};
use crate::dataplane::snapshot::{ServiceEntry, Snapshot};
use crate::dataplane::verdict::DropReason;
use crate::dataplane::{quic, sip};
use crate::model::{PersistBy, Persistence};

/// A chosen server.
pub(super) struct Choice<'s> {
    /// The server.
    pub member: &'s Member,
    /// Flags that the flow's entry gets.
    pub flags: u8,
    /// What the entry of a flow over UDP keeps besides; 0: nothing.
    pub ticket: u32,
    /// Whether the client had the server before: then its threshold does not hold, as in IPVS.
    pub fixed: bool,
    /// The template that counts the flow.
    template: Option<Joined>,
}

impl<'s> Choice<'s> {
    fn of(member: &'s Member, fixed: bool) -> Self {
        Choice { member, flags: 0, ticket: 0, fixed, template: None }
    }
}

/// Bytes behind the UDP header.
fn payload<'b>(bytes: &'b [u8], parsed: &Parsed) -> &'b [u8] {
    let (l4, length) = (usize::from(parsed.l4), usize::from(parsed.l4_len));
    bytes.get(l4 + 8..(l4 + length).min(bytes.len())).unwrap_or_default()
}

impl Context<'_> {
    /// The server of a new flow. `stateless`: where the scheduler chooses, the choice must be the same for a client at any time.
    pub(super) fn choose<'s, E: Family>(
        &self,
        service: &'s ServiceEntry,
        bytes: &[u8],
        parsed: &Parsed,
        key: &E::Key,
        request: &Request,
        stateless: bool,
    ) -> Result<Choice<'s>, DropReason> {
        let Some(persistence) = &service.config.persistence else {
            return Ok(Choice::of(self.schedule(service, request, stateless)?, false));
        };
        let mut call_id = &[][..];
        match persistence.by {
            PersistBy::Client => {}
            PersistBy::SipCallId => call_id = sip::call_id(payload(bytes, parsed)).ok_or(DropReason::NoCallId)?,
            PersistBy::QuicServerId { rotation, length } => {
                if let Some(member) = self.by_connection_id(service, payload(bytes, parsed), rotation, length) {
                    return Ok(Choice::of(member, true));
                }
            }
        }
        let templates = &self.director.templates;
        let subject = Subject::new(service.unit, E::source(key), persistence, call_id);
        let joined = if persistence.seconds > 0 { templates.join(&subject, self.now) } else { None };
        let Some(joined) = joined else {
            return Ok(Choice::of(self.schedule(service, request, stateless)?, false));
        };
        if let Some(member) = self.kept(service, persistence, joined.real) {
            templates.renew(&joined, persistence.seconds, self.now);
            // A call of which another packet came is one.
            if !call_id.is_empty() {
                templates.assure(joined.slot);
            }
            return Ok(self.under(Choice::of(member, true), joined, parsed));
        }
        let chosen = self.schedule(service, request, stateless).inspect_err(|_| {
            if joined.counted {
                templates.leave(joined.slot, self.now);
            }
        })?;
        // Another worker may have chosen for this client at the same moment.
        let real = templates.bind(&joined, chosen.real, persistence.seconds, self.now);
        let other = if real == chosen.real { None } else { self.kept(service, persistence, real) };
        Ok(self.under(Choice::of(other.unwrap_or(chosen), other.is_some()), joined, parsed))
    }

    /// The server that a client gets at any time: the one that it has, else by nothing but its address and the servers' own.
    pub(super) fn choose_stateless<'s, E: Family>(
        &self,
        service: &'s ServiceEntry,
        key: &E::Key,
        request: &Request,
    ) -> Option<&'s Member> {
        if let Some(persistence) = service.config.persistence.as_ref().filter(|p| p.by != PersistBy::SipCallId) {
            let subject = Subject::new(service.unit, E::source(key), persistence, &[]);
            let real = self.director.templates.peek(&subject, self.now).unwrap_or(0);
            if let Some(member) = self.kept(service, persistence, real) {
                return Some(member);
            }
        }
        self.schedule(service, request, true).ok()
    }

    /// Takes back what [`Context::choose`] noted for a flow that was not made after all.
    pub(super) fn unchoose(&self, choice: &Choice<'_>) {
        let Some(joined) = choice.template.filter(|joined| joined.counted) else { return };
        if !choice.fixed {
            self.director.templates.unbind(joined.slot, choice.member.real);
        }
        self.director.templates.leave(joined.slot, self.now);
    }

    /// Forgets a flow that left nothing behind, though its packet went to its server.
    pub(super) fn went_once(&self, choice: &Choice<'_>) {
        if let Some(joined) = choice.template.filter(|joined| joined.counted) {
            self.director.templates.leave(joined.slot, self.now);
        }
    }

    /// Notes that a persistent client's flow was proven.
    pub(super) fn assure<E: Family>(&self, entry: &E) {
        if let Some(slot) = template_of(self.snapshot, self.director, entry) {
            self.director.templates.assure(slot);
        }
    }

    fn schedule<'s>(
        &self,
        service: &'s ServiceEntry,
        request: &Request,
        stateless: bool,
    ) -> Result<&'s Member, DropReason> {
        let selector = if stateless { &service.stateless } else { &service.selector };
        let at = selector.select(&service.members, &service.state.cursor, request);
        at.and_then(|at| service.members.get(at)).ok_or(DropReason::NoServer)
    }

    /// The server of a template, where its client may still have it (`ip_vs_check_template`): neither its weight nor its
    /// threshold matters, unless clients are to leave drained servers. One that failed its checks or is in maintenance has left
    /// the service though its flows may go on.
    fn kept<'s>(&self, service: &'s ServiceEntry, persistence: &Persistence, real: u32) -> Option<&'s Member> {
        let member = service.real(real)?;
        let drained = member.weight == 0 && persistence.leave_drained;
        (!drained && member.reachable && self.reaches(member)).then_some(member)
    }

    fn reaches(&self, member: &Member) -> bool {
        self.snapshot.server(member.id).is_some_and(|server| server.reachable)
    }

    /// The server that a QUIC connection id names. In the first packets of a connection the client may have made it up: there
    /// it counts only where the server takes new flows anyway.
    fn by_connection_id<'s>(
        &self,
        service: &'s ServiceEntry,
        datagram: &[u8],
        rotation: u8,
        length: u8,
    ) -> Option<&'s Member> {
        let routed = quic::server_id(datagram, rotation, length)?;
        let member = service.quic_member(routed.server_id)?;
        let takes = if routed.may_begin { member.is_available() } else { true };
        (takes && self.reaches(member)).then_some(member)
    }

    fn under<'s>(&self, choice: Choice<'s>, joined: Joined, parsed: &Parsed) -> Choice<'s> {
        let flags = if joined.counted { flag::PERSISTENT } else { 0 };
        let keeps = joined.counted && parsed.protocol == UDP && parsed.part != Part::Later;
        let ticket = if keeps { self.director.templates.ticket(&joined) } else { 0 };
        Choice { flags, ticket, template: Some(joined), ..choice }
    }
}

/// The slot of the template that counts a flow. `entry` is that of the client's direction.
fn template_of<E: Family>(snapshot: &Snapshot, director: &Director, entry: &E) -> Option<u32> {
    let key = entry.key();
    let service = snapshot.service(E::destination(&key), E::protocol(&key), E::ports(&key).1)?;
    let service = snapshot.services.get(usize::from(service))?;
    slot_in(director, service.unit, service.config.persistence.as_ref()?, entry)
}

/// The same in a unit that tells its clients apart in this way.
fn slot_in<E: Family>(director: &Director, unit: u32, persistence: &Persistence, entry: &E) -> Option<u32> {
    match persistence.by {
        // Which call it was, only its packets told.
        PersistBy::SipCallId => director.templates.redeem(entry.extra()),
        _ => director.templates.slot_of(&Subject::new(unit, E::source(&entry.key()), persistence, &[])),
    }
}

/// Whether there are flows that count for other clients since the snapshot of this generation, or for none.
pub(super) fn has_departed(snapshot: &Snapshot, generation: u64) -> bool {
    snapshot.departures.iter().any(|departure| departure.since > generation)
}

/// Takes such flows away from their clients' templates, whose keys nobody will know when the flows end. Looks at every flow.
pub(super) fn depart<E: Family>(
    flows: &mut Flows<E>,
    snapshot: &Snapshot,
    director: &Director,
    generation: u64,
    now: u32,
) {
    flows.for_each_mut(|entry| {
        if entry.flags() & (flag::PERSISTENT | flag::REVERSE) != flag::PERSISTENT {
            return;
        }
        let Some(departure) = snapshot.departure(entry.server(), generation) else { return };
        if let Some(slot) = slot_in(director, departure.unit, &departure.persistence, entry) {
            director.templates.leave(slot, now);
        }
        entry.set_flags(entry.flags() & !flag::PERSISTENT);
    });
}

/// A flow under a template ended: when its own time was over, where it is a sweep that found out.
pub(super) fn leave_template<E: Family>(snapshot: &Snapshot, director: &Director, entry: &E, now: u32) {
    if let Some(slot) = template_of(snapshot, director, entry) {
        let limit = snapshot.limit_ms(entry.server(), entry.state());
        let late = now.wrapping_sub(entry.stamp()).checked_sub(limit).filter(|late| *late < u32::MAX / 2);
        director.templates.leave(slot, now.wrapping_sub(late.unwrap_or(0)));
    }
}
