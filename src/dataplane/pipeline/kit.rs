//! What a worker owns besides its flow tables: last hops, local ports, frames that the pipeline brought forth.
//!
//! Owns how a flow's possessions are given back when it ends.

use super::family::Family;
use crate::dataplane::directory::{Peers, Refused};
use crate::dataplane::flow::Gone;
use crate::dataplane::io::Frame;
use crate::dataplane::last_hop::LastHops;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::Outcome;

/// The worker's own things.
pub(super) struct Kit {
    /// Ways back to clients.
    pub hops: LastHops,
    /// Frames that the pipeline made itself or had kept, with what becomes of them.
    pub extra: Vec<(Frame, Outcome)>,
    /// The worker's place among others.
    pub peers: Option<Peers>,
    /// IPv4 identification of the next outer header that may be fragmented.
    pub next_id: u16,
}

impl Kit {
    /// Ends a flow: its server has one less, the directory forgets it, and what it had is free again.
    pub fn close<E: Family>(&mut self, snapshot: &Snapshot, gone: &Gone<E>) {
        if let Some(load) = snapshot.load(gone.entry.server()) {
            load.close(gone.entry.state().is_active());
        }
        self.forget(gone);
    }

    /// Takes a flow's keys out of the directory and frees what it had.
    pub fn forget<E: Family>(&mut self, gone: &Gone<E>) {
        if let Some(peers) = &self.peers {
            peers.directory.remove(gone.hash, peers.me);
            if let Some((_, hash)) = gone.reverse {
                peers.directory.remove(hash, peers.me);
            }
        }
        if let Some((reverse, _)) = &gone.reverse {
            self.hops.give(reverse.extra() as u16);
        }
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
