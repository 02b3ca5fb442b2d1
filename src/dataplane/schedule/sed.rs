//! sed: shortest expected delay (`ip_vs_sed.c`; Weinrib and Shenker, INFOCOM 1988).

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, cost};

pub(super) const DESCRIPTION: Description = Description::new(
    "sed",
    "shortest expected delay: as `wlc` with the new connection counted in. It counts established connections only, so by \
     UDP all go to the server of the highest weight",
    |_, _| Arc::new(ShortestExpectedDelay),
);

#[derive(Debug)]
struct ShortestExpectedDelay;

impl Schedule for ShortestExpectedDelay {
    fn select(&self, members: &[Member], _: &Cursor, _: &Request) -> Option<usize> {
        cost::least(members, cost::delay)
    }
}
