//! wrr: weighted round robin, with the very sequence of `ip_vs_wrr.c`.
//!
//! Passes over the list with a falling limit, and takes servers whose weight reaches it. What the kernel finds by walking
//! through passes that nobody can meet is worked out here, so that a choice costs at most two walks whatever the weights.

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, Step, gcd};

pub(super) const DESCRIPTION: Description = Description {
    step: after_step,
    ..Description::new("wrr", "weighted round robin", |_, members| {
        Arc::new(Weights::new(members.iter().map(|m| m.weight)))
    })
};

/// What follows from the weights: their step (greatest common divisor) and the highest limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weights {
    step: u32,
    max: u32,
}

impl Weights {
    /// From the weights of all servers.
    fn new(weights: impl Iterator<Item = u32>) -> Self {
        let (mut divisor, mut highest) = (0, 0);
        for weight in weights {
            divisor = gcd(weight, divisor);
            highest = highest.max(weight);
        }
        let step = divisor.max(1);
        Weights { step, max: highest.saturating_sub(step - 1) }
    }

    /// The limit after the list changed (`ip_vs_wrr_dest_changed`).
    fn adjust(self, limit: u32) -> u32 {
        if limit > self.max || limit == 0 {
            self.max
        } else if self.step > 1 {
            limit / self.step * self.step + 1
        } else {
            limit
        }
    }

    /// The limit of the next pass.
    fn lower(self, limit: u32) -> u32 {
        if limit > self.step { limit - self.step } else { self.max }
    }

    /// The first limit from here on, in the order of passes, that a server of weight `top` reaches.
    fn reached_by(self, limit: u32, top: u32) -> u32 {
        let down = |from: u32| {
            let passes = from.saturating_sub(top).div_ceil(self.step);
            from.checked_sub(passes * self.step).filter(|limit| *limit > 0)
        };
        // Limits run to 1 when they begin at `max`.
        down(limit).or_else(|| down(self.max)).unwrap_or(1)
    }

    /// Where the sequence goes on from `(last, limit)`: the index chosen, and the next `(last, limit)`.
    fn next(self, members: &[Member], last: u32, limit: u32) -> (Option<usize>, (u32, u32)) {
        let limit = if limit == 0 { self.max } else { limit };
        let at = members.iter().position(|m| m.id == last && last != 0);
        let first = at.map_or(0, |at| at + 1);
        let fits = |limit: u32| move |m: &Member| m.is_available() && m.weight >= limit;
        let found = |at: usize, limit: u32| (Some(at), (members[at].id, limit));
        if let Some(more) = members[first..].iter().position(fits(limit)) {
            return found(first + more, limit);
        }
        let top = members.iter().filter(|m| m.is_available()).map(|m| m.weight).max();
        let Some(top) = top else {
            // Nobody: the kernel's walk ends at the server chosen last if it began in the last pass, else at the head.
            let stays = at.is_some() && limit <= self.step;
            return (None, if stays { (last, 1) } else { (0, self.max) });
        };
        let limit = self.reached_by(self.lower(limit), top);
        match members.iter().position(fits(limit)) {
            Some(at) => found(at, limit),
            None => (None, (last, limit)),
        }
    }
}

impl Schedule for Weights {
    fn select(&self, members: &[Member], cursor: &Cursor, _: &Request) -> Option<usize> {
        if self.max == 0 {
            return None;
        }
        loop {
            let old = cursor.load();
            let (found, next) = self.next(members, old.0, old.1);
            if old == next || cursor.swap(old, next) {
                return found;
            }
        }
    }
}

/// Any change sends the sequence to the head (`ip_vs_wrr_dest_changed`).
fn after_step(cursor: &Cursor, step: &Step<'_>) {
    let weights = Weights::new(step.list.iter().map(|l| l.1));
    cursor.update(|(_, limit)| (0, weights.adjust(limit)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::member;
    use super::*;

    /// `ip_vs_wrr_schedule`, walk by walk.
    fn kernel(weights: Weights, members: &[Member], last: u32, limit: u32) -> (Option<usize>, (u32, u32)) {
        let (step, max) = (i64::from(weights.step), i64::from(weights.max));
        let mut limit = if limit == 0 { max } else { i64::from(limit) };
        let start = members.iter().position(|m| m.id == last && last != 0);
        let mut next = start.map_or(0, |at| at + 1);
        let (mut stop, mut last_pass, mut restarted) = (None, false, false);
        loop {
            for (at, member) in members.iter().enumerate().skip(next) {
                if member.is_available() && i64::from(member.weight) >= limit {
                    return (Some(at), (member.id, limit as u32));
                }
                if Some(at) == stop {
                    return (None, (member.id, limit as u32));
                }
            }
            next = 0;
            limit -= step;
            if limit <= 0 {
                limit = max;
                if last_pass || start.is_none() {
                    return (None, (0, limit as u32));
                }
                restarted = true;
            }
            last_pass = limit <= step;
            if last_pass && restarted && start.is_some() {
                stop = start;
            }
        }
    }

    proptest! {
        /// Step by step as the kernel's walk, through servers that come and go.
        #[test]
        fn goes_on_as_the_kernel_does(
            weights in proptest::collection::vec(prop_oneof![0u32..12, Just(30u32), 0u32..300], 1..7),
            masks in proptest::collection::vec(any::<u8>(), 1..60),
        ) {
            let mut members: Vec<Member> = (1u32..).zip(&weights).map(|(n, w)| member(n, *w, 80)).collect();
            let weights = Weights::new(members.iter().map(|m| m.weight));
            let mut state = (0, 0);
            for mask in masks {
                for (bit, member) in members.iter_mut().enumerate() {
                    member.reachable = mask & (1 << bit) == 0;
                }
                if weights.max > 0 {
                    let ours = weights.next(&members, state.0, state.1);
                    prop_assert_eq!(ours, kernel(weights, &members, state.0, state.1), "{:?} {:?}", weights, state);
                    state = ours.1;
                }
            }
        }
    }
}
