//! wlc: the server with the least connections relative to its weight (`ip_vs_wlc.c`).

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, cost};

pub(super) const DESCRIPTION: Description =
    Description::new("wlc", "weighted least connections", |_, _| Arc::new(WeightedLeastConnections));

#[derive(Debug)]
struct WeightedLeastConnections;

impl Schedule for WeightedLeastConnections {
    fn select(&self, members: &[Member], _: &Cursor, _: &Request) -> Option<usize> {
        cost::least(members, cost::overhead)
    }
}
