//! lblc: locality-based least connections (`ip_vs_lblc.c`).
//!
//! Meant for caches: a destination keeps its server until that one has more established connections than its weight while
//! another has less than half of its own. A service has one address, so it has one such server. Unlike the kernel's, a
//! server that reached its threshold loses the destination too: thresholds hold for every scheduler here.

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, cost};

pub(super) const DESCRIPTION: Description = Description::new(
    "lblc",
    "locality-based least connections, for caches: one server until it has more established connections than its weight \
     while another has less than half of its own",
    |_, _| Arc::new(Locality),
);

#[derive(Debug)]
struct Locality;

impl Schedule for Locality {
    fn select(&self, members: &[Member], cursor: &Cursor, request: &Request) -> Option<usize> {
        let known = cursor.load().0;
        let known = if cursor.touch(request.now) && known != 0 {
            members.iter().position(|m| m.id == known && m.is_available() && !cost::is_crowded(m, members))
        } else {
            None
        };
        known.or_else(|| {
            let at = cost::least(members, cost::overhead)?;
            cursor.update(|(_, rest)| (members[at].id, rest));
            Some(at)
        })
    }
}
