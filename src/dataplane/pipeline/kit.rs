//! What a worker owns besides its flow tables: last hops, local ports, frames that the pipeline brought forth.
//!
//! Owns how a flow's possessions are given back when it ends.

use std::net::IpAddr;
use std::sync::Arc;

use super::admission;
use super::cookie_path::Meter;
use super::family::Family;
use crate::dataplane::director::Director;
use crate::dataplane::directory::{Peers, Refused};
use crate::dataplane::flow::state::State;
use crate::dataplane::flow::{Gone, flag};
use crate::dataplane::fragment::FragmentTable;
use crate::dataplane::icmp::Limiter;
use crate::dataplane::io::Frame;
use crate::dataplane::last_hop::LastHops;
use crate::dataplane::parse::Parsed;
use crate::dataplane::ports::PortPool;
use crate::dataplane::proxy;
use crate::dataplane::snapshot::{Endpoint, Snapshot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::syn_cookie::slab::{Phase, Slab, Splice};
use crate::dataplane::verdict::Outcome;

/// The worker's own things.
pub(super) struct Kit {
    /// Ways back to clients.
    pub hops: LastHops,
    /// Frames that the pipeline made itself or had kept, with what becomes of them.
    pub extra: Vec<(Frame, Outcome)>,
    /// The worker's place among others.
    pub peers: Option<Peers>,
    /// Fragmented packets that this worker follows.
    pub fragments: FragmentTable,
    /// Pieces of the packet that is being cut up.
    pub pieces: Vec<Frame>,
    /// How many ICMP errors may be sent.
    pub limiter: Limiter,
    /// Local ports of full NAT that are this worker's.
    pub ports: PortPool,
    /// The local addresses for which they are.
    pub locals: Vec<Option<IpAddr>>,
    /// Addresses that lost their slot to others, in order, while flows may have ports of them: these end with the next sweep
    /// over everything, and a packet of theirs finds none. Memory for as many as there are slots.
    pub ending: Vec<IpAddr>,
    /// Buckets of that sweep that are left.
    pub ending_left: usize,
    /// Generation of the snapshot that was seen last.
    pub generation: u64,
    /// Changes of mastery that were seen.
    pub changes: u64,
    /// Whether any owned address was another appliance's after the last of them.
    pub partial: bool,
    /// IPv4 identification of the next outer header that may be fragmented.
    pub next_id: u16,
    /// The last IPv6 identification of an outer packet that went in fragments; workers begin far apart.
    pub next_id_v6: u32,
    /// What [`Kit::random`] goes on from; never 0.
    pub random: u32,
    /// What all workers share.
    pub director: Arc<Director>,
    /// What is kept of flows that SYN cookies opened.
    pub splices: Slab,
    /// How many cookies nobody answers.
    pub meter: Meter,
}

impl Kit {
    /// Ends a flow: its server has one less, the directory forgets it, and what it had is free again.
    pub fn close<E: Family>(&mut self, snapshot: &Snapshot, gone: &Gone<E>, now: u32) {
        if let Some(member) = snapshot.member(gone.entry.server()) {
            member.load.close(gone.entry.state().is_active());
            member.load.relieve(member.upper, member.lower);
        }
        admission::release(snapshot, &self.director, &gone.entry, now);
        self.forget(gone, now);
    }

    /// The next random word (xorshift): good enough to choose between servers, not to keep secrets.
    pub fn random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random
    }

    /// Takes a flow's keys out of the directory and frees what it had.
    pub fn forget<E: Family>(&mut self, gone: &Gone<E>, now: u32) {
        if let Some(peers) = &self.peers {
            peers.directory.remove(gone.hash, peers.me);
            if let Some((_, hash)) = gone.reverse {
                peers.directory.remove(hash, peers.me);
            }
        }
        if gone.entry.flags() & flag::COOKIE != 0 {
            self.splices.give(gone.entry.extra());
        }
        if let Some((reverse, _)) = &gone.reverse {
            self.hops.give(reverse.extra() as u16);
            // A flow that its two ends closed needs its port no more; one that was cut off may live on at the server.
            let state = gone.entry.state();
            let closed = matches!(state, State::TCP_TIME_WAIT | State::TCP_CLOSE | State::UDP);
            // By NAT the server answers to the client itself, whose address may be one that was local once.
            let end = E::destination_end(&reverse.key());
            if end != E::source_end(&gone.entry.key()) {
                self.give_local(end, now, !closed);
            }
        }
    }

    /// The two ends of a flow that a SYN cookie opened, once both are known. `entry` is that of the client's direction.
    pub fn splice_of<E: Family>(&self, entry: &E) -> Option<Splice> {
        if entry.flags() & flag::COOKIE == 0 {
            return None;
        }
        self.splices.get(entry.extra()).copied().filter(|splice| splice.phase() == Phase::Open)
    }

    /// Whether a client's SYN is the one that opened its flow, as far as that is known: a flow that a SYN cookie opened.
    pub fn knows_syn<E: Family>(&self, entry: &E, bytes: &[u8], parsed: &Parsed) -> bool {
        entry.flags() & flag::COOKIE != 0
            && self.splices.get(entry.extra()).is_some_and(|splice| proxy::opens(bytes, parsed) == Some(splice.isn))
    }

    /// Gives back a local port of full NAT.
    pub fn give_local(&mut self, end: Endpoint, now: u32, rest: bool) {
        let slot = self.locals.iter().position(|local| *local == Some(end.address));
        if let (Some(slot), Some(port)) = (slot, end.port) {
            self.ports.give(slot as u16, port, now, rest);
        }
    }

    /// Sees which addresses are another appliance's now.
    #[cold]
    pub fn look_at_masters(&mut self, snapshot: &Snapshot) {
        // In this order: a change that comes in between is seen with the next batch.
        self.changes = snapshot.ownership.changes();
        self.partial = snapshot.ownership.is_partial();
    }

    /// Takes over the local addresses of a new snapshot. A slot that has another address than before begins anew; flows of the
    /// old one end with the sweep, which takes `round` buckets for everything.
    #[cold]
    pub fn follow(&mut self, snapshot: &Snapshot, round: usize) {
        self.generation = snapshot.generation;
        self.look_at_masters(snapshot);
        for (slot, known) in self.locals.iter_mut().enumerate() {
            // An address that went keeps its ports, in case it comes back while flows of it are left.
            let new = snapshot.locals.get(slot).copied().flatten();
            let Some(old) = known.filter(|old| new.is_some_and(|new| new != *old)) else { continue };
            let Err(at) = self.ending.binary_search(&old) else { continue };
            if self.ending.len() < self.ending.capacity() {
                *known = None;
                self.ending.insert(at, old);
                self.ending_left = round;
            }
        }
        self.adopt(snapshot);
    }

    /// Gives slots without an address the snapshot's, but for those of which flows are left.
    fn adopt(&mut self, snapshot: &Snapshot) {
        for (slot, known) in (0u16..).zip(&mut self.locals) {
            let new = snapshot.locals.get(usize::from(slot)).copied().flatten();
            if known.is_none() && new.is_some_and(|new| self.ending.binary_search(&new).is_err()) {
                *known = new;
                self.ports.reset(slot);
            }
        }
    }

    /// Notes that the sweep has looked at some buckets.
    #[inline]
    pub fn swept(&mut self, buckets: usize, snapshot: &Snapshot) {
        if self.ending.is_empty() {
            return;
        }
        self.ending_left = self.ending_left.saturating_sub(buckets);
        if self.ending_left == 0 {
            self.ending.clear();
            self.adopt(snapshot);
        }
    }

    /// Whether this is the entry of a server's packets to an address that lost its slot.
    #[inline]
    pub fn is_ending<E: Family>(&self, entry: &E) -> bool {
        !self.ending.is_empty() && asks_from(entry, &self.ending)
    }

    /// Enters a key of a flow of this worker. `Err`: another worker has it.
    pub fn enter(&self, stats: &WorkerStats, hash: u64) -> Result<(), u8> {
        let Some(peers) = &self.peers else { return Ok(()) };
        match peers.directory.insert(hash, peers.me) {
            Ok(()) => Ok(()),
            Err(Refused::Taken(worker)) => Err(worker),
            Err(Refused::Full) => {
                stats.directory_full.add(1);
                Ok(())
            }
        }
    }

    /// Takes a key of this worker out again.
    pub fn leave(&self, hash: u64) {
        if let Some(peers) = &self.peers {
            peers.directory.remove(hash, peers.me);
        }
    }

    /// The other worker that has the flow of this hash.
    pub fn other(&self, frame: &Frame, hash: u64) -> Option<u8> {
        /// Once for a fragment to the worker that follows it, once to the worker that has the flow.
        const MOST_HOPS: u8 = 2;
        self.peers.as_ref().filter(|_| frame.hops < MOST_HOPS)?.other(hash)
    }
}

/// Whether this is the entry of a server's packets to one of these addresses, which are in order.
pub(super) fn asks_from<E: Family>(entry: &E, addresses: &[IpAddr]) -> bool {
    entry.flags() & flag::REVERSE != 0 && addresses.binary_search(&E::destination(&entry.key())).is_ok()
}
