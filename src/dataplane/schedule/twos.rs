//! twos: the power of two choices (`ip_vs_twos.c`; Mitzenmacher, Richa, Sitaraman).
//!
//! Walks over the list as the kernel does. Two servers are drawn in proportion to their weights, both times from all, so
//! they may be the same; the one with fewer connections relative to its weight is taken. The kernel's draw gives the first
//! server of the list one chance more than its weight; this one does not.

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, cost, draw};

pub(super) const DESCRIPTION: Description = Description {
    draws: true,
    ..Description::new(
        "twos",
        "two servers drawn at random by weight, and of these the one with fewer connections for its weight; `p2c` does better",
        |_, _| Arc::new(Twos),
    )
};

#[derive(Debug)]
struct Twos;

impl Schedule for Twos {
    fn select(&self, members: &[Member], _: &Cursor, request: &Request) -> Option<usize> {
        let available = || members.iter().enumerate().filter(|(_, m)| m.is_available());
        let total: u64 = available().map(|(_, m)| u64::from(m.weight)).sum();
        let (first, second) = draw::words(request.random);
        let mut left = [draw::below(first, total), draw::below(second, total)];
        let mut chosen = [None; 2];
        // A server may become full between the two walks: then the last one that is left is taken.
        let mut last = None;
        for (at, member) in available() {
            last = Some(at);
            for (left, chosen) in left.iter_mut().zip(&mut chosen).filter(|(_, chosen)| chosen.is_none()) {
                match left.checked_sub(u64::from(member.weight)) {
                    Some(rest) => *left = rest,
                    None => *chosen = last,
                }
            }
        }
        let (first, second) = (chosen[0].or(last)?, chosen[1].or(last)?);
        Some(draw::cheaper(members, first, second, cost::overhead))
    }
}
