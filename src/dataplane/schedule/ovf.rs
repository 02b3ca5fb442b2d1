//! ovf: overflow (`ip_vs_ovf.c`): the server of the highest weight until it has more established connections than that,
//! then the next.

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, fo};

pub(super) const DESCRIPTION: Description = Description::new(
    "ovf",
    "overflow: all to the server of the highest weight until it has more established connections than its weight, then to \
     the next; none is left when all have. Not for UDP",
    |_, _| Arc::new(Overflow),
);

#[derive(Debug)]
struct Overflow;

impl Schedule for Overflow {
    fn select(&self, members: &[Member], _: &Cursor, _: &Request) -> Option<usize> {
        fo::heaviest(members, |m| m.is_available() && m.load.active() <= m.weight)
    }
}
