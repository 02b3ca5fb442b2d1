//! p2c: the power of two choices over weighted least connections, in a time that hardly grows with the servers.
//!
//! Two different servers are drawn in proportion to their weights, by binary search in their sums; the one with fewer
//! connections for its weight is taken, the first one where they are even. Unlike wlc it does not walk over a list, and unlike wlc
//! several workers that choose at the same moment do not all choose the same server. Unlike twos it always compares two.

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, cost, draw};

pub(super) const DESCRIPTION: Description = Description {
    draws: true,
    ..Description::new(
        "p2c",
        "power of two choices: of two different servers, drawn at random by weight, the one with fewer connections for its \
     weight. As even as `wlc` in practice, and fast with thousands of servers; not of IPVS",
        |_, members| Arc::new(TwoChoices::new(members)),
    )
};

#[derive(Debug)]
struct TwoChoices {
    /// Sums of the weights up to each candidate and with it, and the candidate.
    sums: Box<[(u64, u16)]>,
    total: u64,
}

impl TwoChoices {
    fn new(members: &[Member]) -> Self {
        let mut total = 0;
        let candidates = (0u16..).zip(members).filter(|(_, m)| m.weight > 0 && m.reachable);
        let sums = candidates.map(|(at, member)| {
            total += u64::from(member.weight);
            (total, at)
        });
        TwoChoices { sums: sums.collect(), total }
    }

    /// The candidate that a number below the total falls to: where it is among the candidates.
    fn at(&self, number: u64) -> usize {
        self.sums.partition_point(|(sum, _)| *sum <= number)
    }

    /// Two different candidates, the second one drawn from the others by their weights.
    fn two(&self, random: u32) -> Option<(usize, Option<usize>)> {
        let (first, second) = draw::words(random);
        let one = self.at(draw::below(first, self.total));
        let (end, member) = *self.sums.get(one)?;
        let start = one.checked_sub(1).map_or(0, |before| self.sums[before].0);
        let others = self.total - (end - start);
        let number = draw::below(second, others);
        let two = self.sums.get(self.at(if number < start { number } else { number + (end - start) }));
        Some((usize::from(member), two.filter(|_| others > 0).map(|(_, at)| usize::from(*at))))
    }
}

impl Schedule for TwoChoices {
    fn select(&self, members: &[Member], _: &Cursor, request: &Request) -> Option<usize> {
        let (first, second) = self.two(request.random)?;
        let usable = |at: &usize| members.get(*at).is_some_and(Member::is_available);
        match (Some(first).filter(usable), second.filter(usable)) {
            (Some(first), Some(second)) => Some(draw::cheaper(members, first, second, cost::overhead)),
            (Some(one), None) | (None, Some(one)) => Some(one),
            // Both reached their thresholds: whoever has room.
            (None, None) => cost::least(members, cost::overhead),
        }
    }
}
