//! The way of a fragment: which worker follows its packet, where the first one goes and so all others, and what waits.
//!
//! Owns the order of these decisions. Never looks behind the headers of a first fragment; [`crate::dataplane::fragment`]
//! remembers.

use super::family::Family;
use super::kit::Kit;
use super::{Context, MAX_EXTRA, Pipeline};
use crate::dataplane::flow::{FlowV4, FlowV6, Flows};
use crate::dataplane::fragment::{Decision, MOST_WAITING, Noted, Place};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::{self, Kind, Parsed, Part};
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::split::MOST_PIECES;
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};

/// Packets that one turn looks after once their time is over.
const BUDGET: usize = 64;

impl Context<'_> {
    /// A fragment of any packet.
    #[cold]
    pub(super) fn fragment_packet<M: FrameMemory>(
        &self,
        v4: &mut Flows<FlowV4>,
        v6: &mut Flows<FlowV6>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
    ) -> Outcome {
        let bytes = memory.bytes(frame);
        if let Some(reason) = self.foreign(bytes, frame) {
            return self.broken_packet(bytes, reason);
        }
        let Some(fragment) = parse::fragment_of(bytes, parsed) else {
            return self.broken_packet(bytes, DropReason::Fragment);
        };
        // ICMP among them: an echo request larger than a frame gets no answer.
        if !parse::may_have_ports(parsed, &fragment) {
            return self.broken_packet(bytes, DropReason::Fragment);
        }
        // The worker that follows its packet sent it here: its flow is this worker's.
        if frame.hops > 0 && frame.hint != 0 {
            return self.flow_of_fragment(v4, v6, kit, memory, frame, parsed);
        }
        let hash = kit.fragments.hash(&fragment.id);
        if let Some(peers) = &kit.peers
            && frame.hops == 0
        {
            let follower = (((hash >> 32) * u64::from(peers.count)) >> 32) as u8;
            if follower != peers.me {
                return Outcome::plain(Verdict::Hand(follower));
            }
        }
        let noted = kit.fragments.note(hash, &fragment, self.now);
        self.count_lost(DropReason::FragmentLimit, kit.fragments.take_given_way());
        match noted {
            Noted::Decided(decision) => self.follow(v4, v6, kit, memory, frame, parsed, decision),
            Noted::Duplicate => Outcome::drop(DropReason::FragmentOverlap),
            Noted::Full => self.broken_packet(bytes, DropReason::FragmentLimit),
            Noted::Refused(place, reason) => {
                self.release(v4, v6, kit, memory, place, Decision::Drop(reason));
                Outcome::drop(reason)
            }
            Noted::Undecided(place) if parsed.part == Part::First => {
                let ports = bytes.get(usize::from(parsed.l4)..).and_then(|l4| l4.first_chunk()).copied();
                frame.hint = ports.map_or(0, u32::from_ne_bytes);
                let outcome = self.flow_of_fragment(v4, v6, kit, memory, frame, parsed);
                let decision = match outcome.verdict {
                    Verdict::Tx(_) | Verdict::Hand(_) => {
                        Decision::Follow { ports: frame.hint, protocol: parsed.protocol }
                    }
                    Verdict::Pass => Decision::Pass,
                    Verdict::Drop(reason) => Decision::Drop(reason),
                    // The sender was told that the packet cannot go on, for whatever reason.
                    Verdict::Reply(_) | Verdict::Kept => Decision::Drop(DropReason::Fragment),
                };
                kit.fragments.decide(place, decision, self.now);
                self.release(v4, v6, kit, memory, place, decision);
                kit.fragments.finish(place);
                outcome
            }
            Noted::Undecided(place) => {
                let kept = kit.fragments.wait(place, bytes, frame.port, self.now);
                self.count_lost(DropReason::FragmentLimit, kit.fragments.take_given_way());
                if kept {
                    return Outcome::plain(Verdict::Kept);
                }
                // A packet with a hole is of no use to a server: nothing more of it takes room.
                let outcome = self.broken_packet(bytes, DropReason::FragmentLimit);
                let decision = match outcome.verdict {
                    Verdict::Drop(reason) => Decision::Drop(reason),
                    _ => Decision::Pass,
                };
                kit.fragments.decide(place, decision, self.now);
                self.release(v4, v6, kit, memory, place, decision);
                outcome
            }
        }
    }

    /// A fragment whose packet's way is known.
    #[allow(clippy::too_many_arguments)]
    fn follow<M: FrameMemory>(
        &self,
        v4: &mut Flows<FlowV4>,
        v6: &mut Flows<FlowV6>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        decision: Decision,
    ) -> Outcome {
        match decision {
            Decision::Follow { ports, protocol } => {
                frame.hint = ports;
                let mut parsed = *parsed;
                // A next header that only the first fragment names (RFC 8200, section 4.5).
                if parsed.protocol != protocol {
                    parse::adopt_protocol(&mut parsed, true, protocol);
                }
                self.flow_of_fragment(v4, v6, kit, memory, frame, &parsed)
            }
            Decision::Pass => Outcome::plain(Verdict::Pass),
            Decision::Drop(reason) => Outcome::drop(reason),
        }
    }

    /// A fragment with its ports in the hint, as a packet of its flow.
    fn flow_of_fragment<M: FrameMemory>(
        &self,
        v4: &mut Flows<FlowV4>,
        v6: &mut Flows<FlowV6>,
        kit: &mut Kit,
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
    ) -> Outcome {
        let bytes = memory.bytes(frame);
        match parsed.kind {
            Kind::Flow4 => {
                let hash = FlowV4::key_of(bytes, parsed, frame.hint).map_or(0, |key| v4.hash(&key));
                self.flow_packet(v4, kit, memory, frame, parsed, hash)
            }
            Kind::Flow6 => {
                let hash = FlowV6::key_of(bytes, parsed, frame.hint).map_or(0, |key| v6.hash(&key));
                self.flow_packet(v6, kit, memory, frame, parsed, hash)
            }
            _ => self.broken_packet(bytes, DropReason::Fragment),
        }
    }

    /// Lets go of a packet's waiting fragments, in the order in which they came.
    fn release<M: FrameMemory>(
        &self,
        v4: &mut Flows<FlowV4>,
        v6: &mut Flows<FlowV6>,
        kit: &mut Kit,
        memory: &mut M,
        place: Place,
        decision: Decision,
    ) {
        while let Some(waiting) = kit.fragments.next_waiting(place) {
            if let Decision::Drop(reason) = decision {
                kit.fragments.free(waiting);
                self.count_lost(reason, 1);
                continue;
            }
            let (bytes, port) = kit.fragments.waiting_frame(&waiting);
            // Each may come out in pieces.
            let room = kit.extra.len() + MOST_PIECES < MAX_EXTRA;
            let frame = if room { memory.allocate(port, bytes.len() as u32) } else { None };
            let Some(mut frame) = frame else {
                kit.fragments.free(waiting);
                self.count_lost(DropReason::NoFrame, 1);
                continue;
            };
            memory.bytes_mut(&frame).copy_from_slice(bytes);
            kit.fragments.free(waiting);
            let outcome = match parse::parse(memory.bytes(&frame)) {
                Ok(parsed) => self.follow(v4, v6, kit, memory, &mut frame, &parsed, decision),
                Err(reason) => Outcome::drop(reason),
            };
            kit.extra.push((frame, outcome));
        }
    }

    /// Counts kept fragments that end without a frame: each was a frame, and is one that was dropped.
    pub(super) fn count_lost(&self, reason: DropReason, count: u32) {
        self.stats.frames.add(u64::from(count));
        self.stats.drops[reason as usize].add(u64::from(count));
    }
}

impl Pipeline {
    /// Whether [`Pipeline::expire_fragments`] has anything to do.
    #[inline]
    pub fn fragments_are_due(&self, now: u32) -> bool {
        self.kit.fragments.is_due(now)
    }

    /// Ends the wait of fragments whose first one did not come in time: those for an owned address are dropped and
    /// counted, the others go on as they are, with [`Pipeline::take_extra`]. Forgets packets that never became whole. A
    /// bounded number of either.
    pub fn expire_fragments<M: FrameMemory>(&mut self, snapshot: &Snapshot, memory: &mut M, now: u32) {
        if snapshot.generation != self.kit.generation {
            self.follow(snapshot, now);
        }
        let context = Context { snapshot, stats: &self.stats, verify: self.verify, director: &self.director, now };
        let kit = &mut self.kit;
        for _ in 0..BUDGET {
            if kit.extra.len() + MOST_WAITING + MOST_PIECES >= MAX_EXTRA {
                break;
            }
            let Some((place, id)) = kit.fragments.overdue(now) else { break };
            let owned = snapshot.owns(id.destination());
            let decision = if owned { Decision::Drop(DropReason::FragmentTimeout) } else { Decision::Pass };
            kit.fragments.decide(place, decision, now);
            context.release(&mut self.v4, &mut self.v6, kit, memory, place, decision);
            if owned {
                kit.fragments.remove(place);
            }
        }
        kit.fragments.forget(BUDGET, now);
    }
}
