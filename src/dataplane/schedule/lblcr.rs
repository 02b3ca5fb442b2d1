//! lblcr: locality-based least connections with replication (`ip_vs_lblcr.c`).
//!
//! As lblc, with a set of servers for a destination: it grows by the least loaded server when it is overloaded, and loses
//! its most loaded one after a day without a change. The set is kept in the members' shared counts ([`super::Load`]):
//! each knows when it joined, so the set needs no memory of its own and no lock, and its order is that of joining, the
//! last one first, as in the kernel.

use std::sync::Arc;

use super::cursor::EXPIRATION_MS;
use super::{Cursor, Description, Member, Request, Schedule, cost};

pub(super) const DESCRIPTION: Description = Description::new(
    "lblcr",
    "as `lblc` with a set of servers, which grows while it is overloaded and shrinks after a day without a change",
    |_, _| Arc::new(Replicated),
);

#[derive(Debug)]
struct Replicated;

/// The least loaded member of the set, and how many it has (`ip_vs_dest_set_min`).
fn least(members: &[Member], cursor: &Cursor) -> (Option<usize>, usize) {
    let mut best: Option<(u64, u64, u32, usize)> = None;
    let mut size = 0;
    for (at, member) in members.iter().enumerate() {
        let Some(joined) = cursor.joined(member) else { continue };
        size += 1;
        if !member.is_available() {
            continue;
        }
        let (load, weight) = (cost::overhead(member), u64::from(member.weight));
        let better = |(least, least_weight, since, _): (u64, u64, u32, usize)| {
            let (theirs, ours) = (least * weight, load * least_weight);
            theirs > ours || (theirs == ours && joined > since)
        };
        if best.is_none_or(better) {
            best = Some((load, weight, joined, at));
        }
    }
    (best.map(|(.., at)| at), size)
}

/// The most loaded member of the set (`ip_vs_dest_set_max`).
fn most<'m>(members: &'m [Member], cursor: &Cursor) -> Option<&'m Member> {
    let mut best: Option<(u64, u64, u32, &Member)> = None;
    for member in members.iter().filter(|m| m.weight > 0) {
        let Some(joined) = cursor.joined(member) else { continue };
        let (load, weight) = (cost::overhead(member), u64::from(member.weight));
        let worse = |(most, most_weight, since, _): (u64, u64, u32, &Member)| {
            let (theirs, ours) = (most * weight, load * most_weight);
            theirs < ours || (theirs == ours && joined > since)
        };
        if best.is_none_or(worse) {
            best = Some((load, weight, joined, member));
        }
    }
    best.map(|(.., member)| member)
}

impl Schedule for Replicated {
    fn select(&self, members: &[Member], cursor: &Cursor, request: &Request) -> Option<usize> {
        if !cursor.touch(request.now) {
            cursor.forget();
        }
        let (known, size) = least(members, cursor);
        if size > 1
            && cursor.is_unchanged_for(EXPIRATION_MS, request.now)
            && let Some(member) = most(members, cursor)
        {
            cursor.leave(member);
        }
        if let Some(at) = known
            && !cost::is_crowded(&members[at], members)
        {
            return Some(at);
        }
        let at = cost::least(members, cost::overhead)?;
        cursor.join(&members[at], request.now);
        Some(at)
    }
}
