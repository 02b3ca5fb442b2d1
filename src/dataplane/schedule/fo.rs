//! fo: weighted fail-over (`ip_vs_fo.c`): the server of the highest weight, while it can take flows.

use std::sync::Arc;

use super::{Cursor, Description, Member, Request, Schedule};

pub(super) const DESCRIPTION: Description = Description {
    stateless: true,
    ..Description::new("fo", "fail-over: all to the server of the highest weight that can take flows", |_, _| {
        Arc::new(FailOver)
    })
};

#[derive(Debug)]
struct FailOver;

impl Schedule for FailOver {
    fn select(&self, members: &[Member], _: &Cursor, _: &Request) -> Option<usize> {
        heaviest(members, Member::is_available)
    }
}

/// The member of the highest weight among some; the first of several.
pub(super) fn heaviest(members: &[Member], of: impl Fn(&Member) -> bool) -> Option<usize> {
    let mut best: Option<(u32, usize)> = None;
    for (at, member) in members.iter().enumerate().filter(|(_, m)| of(m)) {
        if best.is_none_or(|(weight, _)| member.weight > weight) {
            best = Some((member.weight, at));
        }
    }
    best.map(|(_, at)| at)
}
