//! Flows whose server does not serve them any more: kept, rescheduled or reset (ADR 0018).
//!
//! Owns what their next packet meets. Which of the three it is was decided by the compiler.

use super::Context;
use super::family::Family;
use super::kit::Kit;
use crate::dataplane::flow::{Flows, Place, Stage};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{self, Parsed, Part, TCP, tcp_flag};
use crate::dataplane::snapshot::ServerEntry;
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::model::{Fate, VerifyChecksums};

impl Context<'_> {
    /// A client's packet of such a flow.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn meet_fate<E: Family, M: FrameMemory>(
        &self,
        fate: Fate,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        place: (Stage, Place),
        server: &ServerEntry,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
    ) -> Outcome {
        let drop = |reason| Outcome { verdict: Verdict::Drop(reason), ..server.outcome };
        if flows.part(place.0).expired(place.1, self.now, self.snapshot) {
            return self.replace_flow(flows, kit, place, memory, frame, parsed, key, hash);
        }
        match fate {
            Fate::Keep => drop(DropReason::ServerGone),
            Fate::Reschedule => self.replace_flow(flows, kit, place, memory, frame, parsed, key, hash),
            // A client that begins anew is not told about what was before.
            Fate::Reset if begins(parsed) => self.replace_flow(flows, kit, place, memory, frame, parsed, key, hash),
            // It belongs to a packet whose first one was answered, or will be.
            Fate::Reset if parsed.part == Part::Later => drop(DropReason::ServerGone),
            Fate::Reset => {
                if self.verify != VerifyChecksums::Off
                    && parsed.part == Part::Whole
                    && let Err(reason) = parse::verify_transport(memory.bytes(frame), parsed)
                {
                    return drop(reason);
                }
                let told = self.tell_the_client::<E, M>(kit, memory, frame, parsed, key);
                let gone = flows.part(place.0).remove(place.1);
                kit.close(self.snapshot, &gone, self.now);
                if told {
                    Outcome { verdict: Verdict::Reply(frame.port), ..server.outcome }
                } else {
                    drop(DropReason::ServerGone)
                }
            }
        }
    }
}

/// Whether a client's packet is the first of a connection.
fn begins(parsed: &Parsed) -> bool {
    let control = tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST | tcp_flag::FIN;
    parsed.protocol == TCP && parsed.part != Part::Later && parsed.tcp_flags & control == tcp_flag::SYN
}
