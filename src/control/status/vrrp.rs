//! Virtual routers in the status for people.
//!
//! Owns their layout. Pure.

use std::fmt::Write as _;

use super::table::Table;
use crate::vrrp::status::{MasterStatus, RouterStatus, VrrpStatus};

/// A time in milliseconds as people say it.
pub(in crate::control) fn ago(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{:03} s", ms / 1000, ms % 1000),
        _ => super::span(ms / 1000),
    }
}

/// Who is master, in words.
pub(in crate::control) fn master(router: &RouterStatus) -> String {
    match &router.master {
        None => "nobody known".to_owned(),
        Some(MasterStatus { ours: true, .. }) => "this appliance".to_owned(),
        Some(other) => {
            let mac = other.mac.as_ref().map(|mac| format!(" ({mac})")).unwrap_or_default();
            format!("{}{mac}, priority {}, heard {} ago", other.address, other.priority, ago(other.heard_ms))
        }
    }
}

/// Appends the virtual routers and their groups.
pub fn render(out: &mut String, status: &VrrpStatus) {
    if status.routers.is_empty() {
        return;
    }
    let mut table = Table::new(&["<Router", "<Interface", ">VRID", "<State", ">Since", ">Priority", "<Master"]);
    for router in &status.routers {
        let priority = match router.priority == router.base_priority {
            true => router.priority.to_string(),
            false => format!("{} of {}", router.priority, router.base_priority),
        };
        table.row([
            router.name.clone(),
            router.interface.clone(),
            router.vrid.to_string(),
            router.state.clone(),
            ago(router.for_ms),
            priority,
            master(router),
        ]);
    }
    out.push_str(&table.render());
    for router in &status.routers {
        let _ = writeln!(out, "{}: {}: {}", router.name, router.addresses.join(" "), router.why);
        for peer in router.peers.iter().filter(|peer| Some(&peer.address) != router.master.as_ref().map(|m| &m.address))
        {
            let (state, heard) = (if peer.priority == 0 { "left" } else { "peer" }, ago(peer.heard_ms));
            let _ = writeln!(
                out,
                "{}: {state} {} ({}), priority {}, heard {heard} ago",
                router.name, peer.address, peer.mac, peer.priority
            );
        }
        for evidence in &router.evidence {
            let _ = writeln!(
                out,
                "{}: warning: {}: {} ({} times, last {} ago)",
                router.name,
                evidence.kind,
                evidence.text,
                evidence.count,
                ago(evidence.seen_ms)
            );
        }
        let refused: Vec<String> = router.adverts.refused.iter().map(|(why, count)| format!("{count} {why}")).collect();
        if !refused.is_empty() {
            let _ = writeln!(out, "{}: adverts refused: {}", router.name, refused.join(", "));
        }
    }
    for group in &status.groups {
        let _ = writeln!(out, "group {} ({}): {}", group.name, group.routers.join(" "), group.state);
    }
    for tracked in &status.tracked {
        let _ = writeln!(out, "{}: {}", tracked.what, tracked.state);
    }
    let _ = writeln!(out, "VRRP thread: {}\n", status.realtime);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::status::{AdvertCounts, EvidenceStatus, GroupStatus, PeerStatus, TrackedStatus};

    #[test]
    fn people_see_who_is_master_since_when_and_why() {
        let router = RouterStatus {
            name: "VI_1".to_owned(),
            interface: "eth0".to_owned(),
            vrid: 51,
            state: "BACKUP".to_owned(),
            why: "10.0.0.2 has priority 150, ours is 80".to_owned(),
            for_ms: 65_000,
            base_priority: 100,
            priority: 80,
            addresses: vec!["10.0.0.100".to_owned()],
            master: Some(MasterStatus {
                ours: false,
                address: "10.0.0.2".to_owned(),
                mac: Some("02:00:00:00:00:52".to_owned()),
                priority: 150,
                interval_ms: 100,
                for_ms: 65_000,
                heard_ms: 42,
            }),
            peers: vec![
                PeerStatus { address: "10.0.0.2".to_owned(), ..PeerStatus::default() },
                PeerStatus {
                    address: "10.0.0.3".to_owned(),
                    mac: "02:00:00:00:00:53".to_owned(),
                    heard_ms: 9_001,
                    ..PeerStatus::default()
                },
            ],
            evidence: vec![EvidenceStatus {
                kind: "wrong-password".to_owned(),
                text: "from 10.0.0.9".to_owned(),
                count: 7,
                seen_ms: 100,
                ..EvidenceStatus::default()
            }],
            adverts: AdvertCounts { refused: [("wrong-password".to_owned(), 7)].into(), ..AdvertCounts::default() },
            ..RouterStatus::default()
        };
        let status = VrrpStatus {
            routers: vec![router],
            groups: vec![GroupStatus {
                name: "VG".to_owned(),
                state: "BACKUP".to_owned(),
                routers: vec!["VI_1".to_owned()],
            }],
            tracked: vec![TrackedStatus {
                what: "script chk".to_owned(),
                state: "failed: exit code 1".to_owned(),
                ..TrackedStatus::default()
            }],
            realtime: "SCHED_FIFO priority 50".to_owned(),
            ..VrrpStatus::default()
        };
        let mut out = String::new();
        render(&mut out, &status);
        let wanted = "\
Router  Interface  VRID  State   Since  Priority  Master
VI_1    eth0         51  BACKUP  1 min 5 s  80 of 100  10.0.0.2 (02:00:00:00:00:52), priority 150, heard 0.042 s ago
VI_1: 10.0.0.100: 10.0.0.2 has priority 150, ours is 80
VI_1: left 10.0.0.3 (02:00:00:00:00:53), priority 0, heard 9.001 s ago
VI_1: warning: wrong-password: from 10.0.0.9 (7 times, last 0.100 s ago)
VI_1: adverts refused: 7 wrong-password
group VG (VI_1): BACKUP
script chk: failed: exit code 1
VRRP thread: SCHED_FIFO priority 50

";
        let (out, wanted): (Vec<_>, Vec<_>) =
            (out.lines().map(squeezed).collect(), wanted.lines().map(squeezed).collect());
        assert_eq!(out, wanted);
        let mut nothing = String::new();
        render(&mut nothing, &VrrpStatus::default());
        assert_eq!(nothing, "");
    }

    fn squeezed(line: &str) -> String {
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
