//! dh: destination hashing (`ip_vs_dh.c`): 256 buckets over the servers in turn, whatever their weights.

use std::sync::Arc;

use super::sh::{BUCKETS, bucket};
use super::{Cursor, Description, Member, Request, Schedule};

pub(super) const DESCRIPTION: Description = Description {
    stateless: true,
    ..Description::new(
        "dh",
        "destination hashing: the service's address picks the server, so a service of one address has one server; it \
         refuses clients while that one has weight 0",
        |_, members| Arc::new(DestinationHash::new(members)),
    )
};

#[derive(Debug)]
struct DestinationHash {
    buckets: [u16; BUCKETS],
}

impl DestinationHash {
    fn new(members: &[Member]) -> Self {
        let mut there = (0u16..).zip(members).filter(|(_, m)| m.reachable).map(|(at, _)| at).cycle();
        DestinationHash { buckets: std::array::from_fn(|_| there.next().unwrap_or(u16::MAX)) }
    }
}

impl Schedule for DestinationHash {
    fn select(&self, members: &[Member], _: &Cursor, request: &Request) -> Option<usize> {
        let at = usize::from(self.buckets[bucket(request.destination)]);
        members.get(at).filter(|m| m.is_available()).map(|_| at)
    }
}
