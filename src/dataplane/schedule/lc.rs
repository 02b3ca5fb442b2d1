//! lc: the server with the least connections (`ip_vs_lc.c`).

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, cost};

pub(super) const DESCRIPTION: Description =
    Description::new("lc", "least connections: weights only tell 0 from more", |_, _| Arc::new(LeastConnections));

#[derive(Debug)]
struct LeastConnections;

impl Schedule for LeastConnections {
    fn select(&self, members: &[Member], _: &Cursor, _: &Request) -> Option<usize> {
        let available = members.iter().enumerate().filter(|(_, m)| m.is_available());
        available.min_by_key(|(_, m)| cost::overhead(m)).map(|(at, _)| at)
    }
}
