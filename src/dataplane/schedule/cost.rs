//! What the schedulers that count connections have in common.
//!
//! Costs are compared relative to weights without dividing: `a/wa > b/wb` as `a*wb > b*wa`. Ties go to the server that
//! comes first in IPVS's order.

use super::Member;

/// Connections of a server: one in ESTABLISHED weighs 256, any other 1 (`ip_vs_dest_conn_overhead`).
pub(super) fn overhead(member: &Member) -> u64 {
    (u64::from(member.load.active()) << 8) + u64::from(member.load.inactive())
}

/// What `sed` and `nq` expect: the established connections, and the new one (`ip_vs_sed_dest_overhead`).
pub(super) fn delay(member: &Member) -> u64 {
    u64::from(member.load.active()) + 1
}

/// The available member whose cost is least relative to its weight.
pub(super) fn least(members: &[Member], cost: impl Fn(&Member) -> u64) -> Option<usize> {
    let mut best: Option<(u64, u64, usize)> = None;
    for (at, member) in members.iter().enumerate().filter(|(_, m)| m.is_available()) {
        let (cost, weight) = (cost(member), u64::from(member.weight));
        if best.is_none_or(|(least, least_weight, _)| least * weight > cost * least_weight) {
            best = Some((cost, weight, at));
        }
    }
    best.map(|(_, _, at)| at)
}

/// `is_overloaded` of `ip_vs_lblc.c` and `ip_vs_lblcr.c`: more established connections than its weight, while another
/// server has less than half of its own.
pub(super) fn is_crowded(member: &Member, members: &[Member]) -> bool {
    let idle = |m: &Member| m.reachable && u64::from(m.load.active()) * 2 < u64::from(m.weight);
    member.load.active() > member.weight && members.iter().any(idle)
}
