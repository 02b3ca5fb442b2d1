//! rr: round robin, with the very sequence of `ip_vs_rr.c`.
//!
//! The list is walked from its head, behind the server chosen last; all workers share that place.

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule, Step};

pub(super) const DESCRIPTION: Description = Description {
    step: after_step,
    ..Description::new("rr", "round robin: weights only tell 0 from more", |_, _| Arc::new(RoundRobin))
};

#[derive(Debug)]
struct RoundRobin;

impl Schedule for RoundRobin {
    fn select(&self, members: &[Member], cursor: &Cursor, _: &Request) -> Option<usize> {
        loop {
            let old = cursor.load();
            let start = behind(members, old.0);
            let found =
                (0..members.len()).map(|step| (start + step) % members.len()).find(|&at| members[at].is_available())?;
            if cursor.swap(old, (members[found].id, old.1)) {
                return Some(found);
            }
        }
    }
}

/// Index behind the server with this id; the head if it is not in the list.
fn behind(members: &[Member], id: u32) -> usize {
    match members.iter().position(|m| m.id == id) {
        Some(at) if id != 0 => at + 1,
        _ => 0,
    }
}

/// The server chosen last goes: the sequence continues behind the one before it (`ip_vs_rr_del_dest`).
fn after_step(cursor: &Cursor, step: &Step<'_>) {
    if let Some((gone, previous)) = step.removed {
        cursor.update(|(server, rest)| (if server == gone { previous } else { server }, rest));
    }
}
