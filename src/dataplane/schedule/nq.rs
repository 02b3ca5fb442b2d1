//! nq: never queue (`ip_vs_nq.c`): the first idle server, else the shortest expected delay.

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, cost};

pub(super) const DESCRIPTION: Description = Description::new(
    "nq",
    "never queue: a server without established connections if there is one, else as `sed`; not for UDP either",
    |_, _| Arc::new(NeverQueue),
);

#[derive(Debug)]
struct NeverQueue;

impl Schedule for NeverQueue {
    fn select(&self, members: &[Member], _: &Cursor, _: &Request) -> Option<usize> {
        let idle = members.iter().position(|m| m.is_available() && m.load.active() == 0);
        idle.or_else(|| cost::least(members, cost::delay))
    }
}
