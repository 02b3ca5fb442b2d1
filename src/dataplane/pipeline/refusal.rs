//! Clients who are told that nobody serves them: a TCP reset, or ICMP port unreachable.
//!
//! Owns which of the two a packet gets and what is counted of it. Never decides that there is no server: that a service has
//! none is the snapshot's word, and what becomes of the flows of one that is gone is in [`super::fate`].

use super::Context;
use super::family::Family;
use super::kit::Kit;
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{Parsed, TCP};
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::dataplane::{icmp, reset};

impl Context<'_> {
    /// A packet that would open a flow, and whose service has no server for it. IPVS answers every protocol by ICMP port
    /// unreachable (`ip_vs_leave`); to TCP this says it by a reset, which clients believe at once (RFC 9293, section
    /// 3.10.7.1; of an ICMP error they need not, RFC 5461).
    #[cold]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn refuse_client<E: Family, M: FrameMemory>(
        &self,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        service: u16,
    ) -> Outcome {
        let told = self.snapshot.refuses(service) && self.tell_the_client::<E, M>(kit, memory, frame, parsed, key);
        if !told {
            return Outcome { service, ..Outcome::drop(DropReason::NoServer) };
        }
        self.stats.refused.add(1);
        Outcome { service, ..Outcome::plain(Verdict::Reply(frame.port)) }
    }

    /// Makes a client's packet the answer that its connection is over: a reset, or ICMP port unreachable, of which only so
    /// many are sent a second.
    pub(super) fn tell_the_client<E: Family, M: FrameMemory>(
        &self,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
    ) -> bool {
        let Some(port) = self.snapshot.ports.get(usize::from(frame.port)) else { return false };
        if parsed.protocol == TCP {
            let told = reset::answer(memory, frame, parsed, port.mac());
            self.stats.resets.add(u64::from(told));
            return told;
        }
        if !kit.limiter.allow(self.now) {
            return false;
        }
        let told = icmp::port_unreachable(memory, frame, parsed, E::destination(key), port.mac());
        if told {
            self.stats.icmp_errors.add(1);
        } else {
            kit.limiter.give_back();
        }
        told
    }
}
