//! The way back to clients: the Ethernet neighbour from which a client's packets came.
//!
//! NAT sends answers to where the questions came from, so no routing table is asked for a packet. Owns the neighbours
//! that flows of this worker refer to, each once, with a count of its flows. Fixed memory; never asks the kernel.

use super::io::PortIndex;
use super::parse::{NO_VLAN, Parsed};
use crate::model::MacAddr;

const WAYS: usize = 8;
const BUCKETS: usize = 4096;

/// Most different neighbours: as many as a `u16` can name.
pub const MAX_HOPS: usize = WAYS * BUCKETS;

/// Where answers leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The neighbour.
    pub mac: MacAddr,
    /// Interface.
    pub port: PortIndex,
    /// VLAN id, or [`NO_VLAN`].
    pub vlan: u16,
}

impl Hop {
    /// Where a frame came from. `None`: its source is a group, to which no answer can go.
    pub fn of(bytes: &[u8], parsed: &Parsed, port: PortIndex) -> Option<Hop> {
        let mac = MacAddr(*bytes.get(6..)?.first_chunk::<6>()?);
        let vlan = if parsed.tags == 0 { NO_VLAN } else { parsed.vlan };
        (!mac.is_multicast()).then_some(Hop { mac, port, vlan })
    }

    fn bucket(&self) -> usize {
        let [a, b, c, d, e, f] = self.mac.0;
        let word = u64::from_ne_bytes([a, b, c, d, e, f, self.port, 0]) ^ u64::from(self.vlan) << 48;
        let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
        (product ^ (product >> 64)) as usize % BUCKETS
    }
}

#[derive(Clone, Copy)]
struct Entry {
    hop: Hop,
    flows: u32,
}

/// The neighbours of one worker's NAT flows.
pub struct LastHops {
    entries: Box<[Entry]>,
}

impl Default for LastHops {
    fn default() -> Self {
        let hop = Hop { mac: MacAddr::default(), port: 0, vlan: NO_VLAN };
        LastHops { entries: vec![Entry { hop, flows: 0 }; MAX_HOPS].into_boxed_slice() }
    }
}

impl LastHops {
    /// The number of a neighbour, for one more flow. `None`: no room for another one.
    pub fn take(&mut self, hop: Hop) -> Option<u16> {
        let first = hop.bucket() * WAYS;
        let bucket = self.entries.get_mut(first..first + WAYS)?;
        let known = bucket.iter().position(|entry| entry.flows > 0 && entry.hop == hop);
        let way = known.or_else(|| bucket.iter().position(|entry| entry.flows == 0))?;
        bucket[way] = Entry { hop, flows: bucket[way].flows + 1 };
        Some((first + way) as u16)
    }

    /// One flow less refers to this neighbour.
    pub fn give(&mut self, number: u16) {
        if let Some(entry) = self.entries.get_mut(usize::from(number)) {
            debug_assert!(entry.flows > 0, "a last hop was given back twice");
            entry.flows = entry.flows.saturating_sub(1);
        }
    }

    /// The neighbour of this number.
    #[inline(always)]
    pub fn get(&self, number: u16) -> Option<Hop> {
        self.entries.get(usize::from(number)).map(|entry| entry.hop)
    }

    /// Flows that refer to any neighbour.
    pub fn flows(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.flows)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(n: u32) -> Hop {
        let [a, b, c, d] = n.to_be_bytes();
        Hop { mac: MacAddr([2, 0, a, b, c, d]), port: (n % 3) as u8, vlan: NO_VLAN }
    }

    #[test]
    fn each_neighbour_is_there_once_and_as_long_as_it_has_flows() {
        let mut hops = LastHops::default();
        let first = hops.take(hop(1)).expect("room");
        assert_eq!(hops.take(hop(1)), Some(first));
        assert_eq!(hops.get(first), Some(hop(1)));
        let tagged = hops.take(Hop { vlan: 7, ..hop(1) }).expect("room");
        assert_ne!(tagged, first);
        for _ in 0..2 {
            hops.give(first);
        }
        hops.give(tagged);
        assert_eq!(hops.flows(), 0);
    }

    #[test]
    fn thousands_of_neighbours_on_a_segment_fit_and_no_flood_grows_it() {
        let mut hops = LastHops::default();
        let taken = (0..8_000).filter(|n| hops.take(hop(*n)).is_some()).count();
        assert_eq!(taken, 8_000);
        let more = (8_000..200_000).filter(|n| hops.take(hop(*n)).is_some()).count();
        assert!(more <= MAX_HOPS - 8_000);
    }
}
