//! The families about virtual routers.
//!
//! Owns names, sentences and how each is read from the status. Pure.

use std::collections::BTreeMap;

use super::table::{Metric, metric};
use crate::vrrp::machine::State;
use crate::vrrp::packet::Refusal;
use crate::vrrp::status::{GroupStatus, RouterStatus, VrrpStatus};

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// Families about VRRP, once each.
pub const VRRP: &[Metric<VrrpStatus>] = &[
    metric!(Gauge "evenkeel_vrrp_routers", "Virtual routers.", |vrrp| vrrp.routers.len()),
    metric!(Counter "evenkeel_vrrp_adverts_unassigned_total" ["reason"],
    "Adverts that were refused before a router of ours was known, by reason.",
    |vrrp, out| for refusal in Refusal::ALL {
        let count = vrrp.refused.get(refusal.name()).copied().unwrap_or(0);
        out.with(&[("reason", refusal.name())], count);
    }),
    metric!(Gauge "evenkeel_vrrp_tracked_good" ["what"],
    "1 while what routers track holds, 0 while it fails; `what` is its kind and name, such as `script chk_haproxy`.",
    |vrrp, out| for (what, good) in vrrp.tracked.iter().filter_map(|one| Some((&one.what, one.good?))) {
        out.with(&[("what", what)], good);
    }),
    metric!(Gauge "evenkeel_vrrp_tracked_number" ["what"], "The number in a file that routers track.",
    |vrrp, out| for (what, number) in vrrp.tracked.iter().filter_map(|one| Some((&one.what, one.number?))) {
        out.with(&[("what", what)], number as f64);
    }),
];

/// Labels of [`ROUTERS`].
pub const ROUTER: &[&str] = &["router"];

/// Families about each virtual router.
pub const ROUTERS: &[Metric<RouterStatus>] = &[
    metric!(Gauge "evenkeel_vrrp_info" ["interface", "vrid", "group"], "Always 1; the labels say what the router is.",
        |router, out| out.with(&[
            ("interface", &router.interface),
            ("vrid", &router.vrid.to_string()),
            ("group", router.group.as_deref().unwrap_or("")),
        ], 1_u8)),
    metric!(Gauge "evenkeel_vrrp_state" ["state"], "1 for the state in which the router is, 0 for the others.",
    |router, out| for state in State::ALL {
        out.with(&[("state", state.name())], router.state == state.name());
    }),
    metric!(Gauge "evenkeel_vrrp_state_seconds", "For how long it has been in its state.",
        |router| seconds(router.for_ms)),
    metric!(Counter "evenkeel_vrrp_promotions_total", "Changes to master since the router was configured.",
        |router| router.promotions),
    metric!(Gauge "evenkeel_vrrp_priority", "Priority with what is tracked.", |router| router.priority),
    metric!(Gauge "evenkeel_vrrp_configured_priority", "Priority as configured.", |router| router.base_priority),
    metric!(Gauge "evenkeel_vrrp_master_known", "1 while it is known who is master, this appliance included.",
        |router| router.master.is_some()),
    metric!(Gauge "evenkeel_vrrp_master_seconds" [], "For how long the master of now has been known as master.",
    |router, out| if let Some(master) = &router.master {
        out.put(seconds(master.for_ms));
    }),
    metric!(Gauge "evenkeel_vrrp_peer_priority" ["peer"], "Priority of another router, as its last advert says; 0: it left.",
    |router, out| for peer in &router.peers {
        out.with(&[("peer", &peer.address)], peer.priority);
    }),
    metric!(Gauge "evenkeel_vrrp_peer_silent_seconds" ["peer"],
    "Time since the last advert of another router. While we are master they have nothing to say.",
    |router, out| for peer in &router.peers {
        out.with(&[("peer", &peer.address)], seconds(peer.heard_ms));
    }),
    metric!(Counter "evenkeel_vrrp_adverts_sent_total", "Adverts sent, those with priority 0 among them.",
        |router| router.adverts.sent),
    metric!(Counter "evenkeel_vrrp_adverts_sent_zero_total", "Adverts sent with priority 0: this appliance left.",
        |router| router.adverts.sent_zero),
    metric!(Counter "evenkeel_vrrp_adverts_received_total", "Adverts taken, those with priority 0 among them.",
        |router| router.adverts.received),
    metric!(Counter "evenkeel_vrrp_adverts_received_zero_total", "Adverts taken with priority 0: another router left.",
        |router| router.adverts.received_zero),
    metric!(Counter "evenkeel_vrrp_adverts_refused_total" ["reason"],
    "Adverts refused, by reason; docs/operations.md says of each what it means.",
    |router, out| for refusal in Refusal::ALL {
        let count = router.adverts.refused.get(refusal.name()).copied().unwrap_or(0);
        out.with(&[("reason", refusal.name())], count);
    }),
    metric!(Gauge "evenkeel_vrrp_evidence" ["kind"],
    "How often something wrong was seen within the last hour, such as `two-masters`; docs/operations.md says of each kind what it means.",
    |router, out| for (kind, (count, _)) in by_kind(router) {
        out.with(&[("kind", kind)], count);
    }),
    metric!(Gauge "evenkeel_vrrp_evidence_age_seconds" ["kind"], "Time since that was seen last.",
    |router, out| for (kind, (_, seen)) in by_kind(router) {
        out.with(&[("kind", kind)], seconds(seen));
    }),
];

/// How often each kind of thing was seen, whoever did it, and when last.
fn by_kind(router: &RouterStatus) -> BTreeMap<&str, (u64, u64)> {
    let mut kinds = BTreeMap::new();
    for evidence in &router.evidence {
        let (count, seen) = kinds.entry(evidence.kind.as_str()).or_insert((0, u64::MAX));
        *count += evidence.count;
        *seen = evidence.seen_ms.min(*seen);
    }
    kinds
}

/// Labels of [`GROUPS`].
pub const GROUP: &[&str] = &["group"];

/// Families about each group of virtual routers.
pub const GROUPS: &[Metric<GroupStatus>] =
    &[metric!(Gauge "evenkeel_vrrp_group_state" ["state"], "1 for the state in which the group is, 0 for the others.",
    |group, out| for state in State::ALL {
        out.with(&[("state", state.name())], group.state == state.name());
    })];
