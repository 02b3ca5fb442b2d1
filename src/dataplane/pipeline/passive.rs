//! What clients' packets tell of a server behind NAT before any check does: connections that it resets at once, or to which it
//! says nothing.
//!
//! Owns what is remembered of a watched flow: bits of its second entry beside the number of its last hop. Counts, and judges
//! nobody: `control` does, over time. Services without passive checks have no such flows and pay nothing for them.

use super::Context;
use super::family::Family;
use crate::dataplane::flow::{Entry, FlowTable, Gone, Place};
use crate::dataplane::parse::{Kind, Parsed, Part, TCP, tcp_flag};
use crate::dataplane::snapshot::{ServiceEntry, slot_of};
use crate::dataplane::stats::WorkerStats;

/// What the low half of the second entry's word is: the number of the last hop.
const HOP: u32 = 0xffff;

/// The flow is watched, and was not counted yet.
pub(super) const WATCHED: u32 = 1 << 16;

/// The server has answered.
const ANSWERED: u32 = 1 << 17;

/// The client has sent its SYN once more.
const ASKED_AGAIN: u32 = 1 << 18;

/// A SYN that comes sooner than this after the client's last packet, in milliseconds, is none that was sent again for want of an
/// answer: those come a second apart at first (RFC 6298, section 2). Who sends three at once cannot make a server look dead.
const AGAIN_MS: u32 = 500;

/// Whether the flow that this packet opens is to be watched.
#[inline]
pub(super) fn is_watched(service: &ServiceEntry, parsed: &Parsed) -> bool {
    service.config.health.passive.is_some()
        && parsed.protocol == TCP
        && parsed.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
}

/// The word of a new flow's second entry.
#[inline]
pub(super) const fn extra(hop: u16, watched: bool) -> u32 {
    hop as u32 | if watched { WATCHED } else { 0 }
}

/// The same flow's, once its last hop is another.
#[inline]
pub(super) const fn with_hop(extra: u32, hop: u16) -> u32 {
    extra & !HOP | hop as u32
}

/// Counts a flow against its server, once.
#[cold]
fn count<E: Entry>(stats: &WorkerStats, reverse: &mut E) {
    reverse.set_extra(reverse.extra() & !WATCHED);
    if let Some(counters) = stats.servers.get(slot_of(reverse.server())) {
        counters.failed.add(1);
    }
}

/// A flow ended by its timeout: its server may have left it without an answer.
#[inline]
pub(super) fn expired<E: Entry>(stats: &WorkerStats, gone: &Gone<E>) {
    if let Some((mut reverse, _)) = gone.reverse
        && reverse.extra() & (WATCHED | ANSWERED) == WATCHED
    {
        count(stats, &mut reverse);
    }
}

impl Context<'_> {
    /// A packet of a watched flow's server. `place`: that of the flow's second entry.
    #[cold]
    pub(super) fn server_answers<E: Family>(&self, table: &mut FlowTable<E>, place: Place, parsed: &Parsed) {
        let reverse = table.entry(place);
        let extra = reverse.extra();
        if parsed.part == Part::Later || extra & WATCHED == 0 {
            return;
        }
        if parsed.tcp_flags & tcp_flag::RST == 0 {
            reverse.set_extra(extra | ANSWERED);
        } else if !reverse.state().is_active() && !reverse.state().is_closing() {
            count(self.stats, reverse);
        }
    }

    /// A client's packet of a flow that was not established and is not by this one, `idle` milliseconds after its last one.
    /// With the second SYN that was sent again, three seconds after the first one, a server is taken for dead: before that it
    /// may as well have been a lost packet.
    #[cold]
    pub(super) fn client_asks_again<E: Family>(
        &self,
        table: &mut FlowTable<E>,
        place: Place,
        parsed: &Parsed,
        idle: u32,
    ) {
        let Some(partner) = table.partner(place) else { return };
        let reverse = table.entry(partner);
        let extra = reverse.extra();
        let again = parsed.part != Part::Later
            && parsed.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST) == tcp_flag::SYN
            && (AGAIN_MS..u32::MAX / 2).contains(&idle);
        if !again || extra & (WATCHED | ANSWERED) != WATCHED {
            return;
        }
        if extra & ASKED_AGAIN == 0 {
            reverse.set_extra(extra | ASKED_AGAIN);
        } else {
            count(self.stats, reverse);
        }
    }

    /// An ICMP error about a packet of a watched flow to its server; `place` as in [`Context::server_answers`]. It counts where
    /// it says that the server cannot be reached (RFC 792, type 3, but for an MTU; RFC 4443, type 1).
    #[cold]
    pub(super) fn error_about_question<E: Family>(
        &self,
        table: &mut FlowTable<E>,
        place: Place,
        bytes: &[u8],
        parsed: &Parsed,
    ) {
        let reverse = table.entry(place);
        let said = bytes.get(usize::from(parsed.l4)..).and_then(|icmp| icmp.first_chunk()).copied().unwrap_or([0; 2]);
        let unreachable = match (parsed.kind, said) {
            (Kind::Icmp4, [3, code]) => code != 4,
            (Kind::Icmp6, [1, _]) => true,
            _ => false,
        };
        if unreachable && reverse.extra() & (WATCHED | ANSWERED) == WATCHED {
            count(self.stats, reverse);
        }
    }
}
