//! lc and wlc: the server with the least connections (`ip_vs_lc.c`, `ip_vs_wlc.c`).
//!
//! A connection in ESTABLISHED weighs 256, any other 1 (`ip_vs_dest_conn_overhead`). Ties go to the server that
//! comes first in IPVS's order.

use super::Member;

fn overhead(member: &Member) -> u64 {
    (u64::from(member.load.active()) << 8) + u64::from(member.load.inactive())
}

/// Least connections among servers whose weight is not 0.
pub fn lc(members: &[Member]) -> Option<usize> {
    let mut best: Option<(u64, usize)> = None;
    for (at, member) in members.iter().enumerate().filter(|(_, m)| m.is_available()) {
        let load = overhead(member);
        if best.is_none_or(|(least, _)| load < least) {
            best = Some((load, at));
        }
    }
    best.map(|(_, at)| at)
}

/// Least connections relative to the weight: `a/wa > b/wb` compared as `a*wb > b*wa`.
pub fn wlc(members: &[Member]) -> Option<usize> {
    let mut best: Option<(u64, u64, usize)> = None;
    for (at, member) in members.iter().enumerate().filter(|(_, m)| m.is_available()) {
        let (load, weight) = (overhead(member), u64::from(member.weight));
        if best.is_none_or(|(least, least_weight, _)| least * weight > load * least_weight) {
            best = Some((load, weight, at));
        }
    }
    best.map(|(_, _, at)| at)
}
