//! Virtual routers for people, in full: a block each.
//!
//! Owns the layout. Pure.

use std::fmt::Write as _;

use crate::control::status::table::Table;
use crate::control::status::{ago, master_words};
use crate::vrrp::status::{RouterStatus, VrrpStatus};

/// The virtual routers, their groups, and what is tracked.
pub fn render(status: Option<&VrrpStatus>) -> String {
    let Some(status) = status.filter(|status| !status.routers.is_empty()) else {
        return "no virtual routers are configured\n".to_owned();
    };
    let mut out = String::new();
    for router in &status.routers {
        block(&mut out, router);
        out.push('\n');
    }
    for group in &status.groups {
        let _ = writeln!(out, "group {} ({}): {}", group.name, group.routers.join(" "), group.state);
    }
    for tracked in &status.tracked {
        let _ = writeln!(out, "{}: {}", tracked.what, tracked.state);
    }
    let strays: Vec<String> = status.refused.iter().map(|(why, count)| format!("{count} {why}")).collect();
    if !strays.is_empty() {
        let _ = writeln!(out, "adverts of no router here, refused: {}", strays.join(", "));
    }
    let _ = writeln!(out, "VRRP thread: {}", status.realtime);
    out
}

fn block(out: &mut String, router: &RouterStatus) {
    let _ = writeln!(
        out,
        "{} ({}, VRID {}): {} for {}",
        router.name,
        router.interface,
        router.vrid,
        router.state,
        ago(router.for_ms)
    );
    let mut line = |what: &str, text: String| {
        let _ = writeln!(out, "  {what:<15}{text}");
    };
    if !router.why.is_empty() {
        line("because", router.why.clone());
    }
    line("addresses", router.addresses.join(" "));
    line(
        "priority",
        match router.priority == router.base_priority {
            true => router.priority.to_string(),
            false => format!("{}, {} before what is tracked", router.priority, router.base_priority),
        },
    );
    line("sends from", router.source.clone().unwrap_or_else(|| "no address: it cannot take part".to_owned()));
    let interval = router.master.as_ref().map(|master| format!(", every {} ms", master.interval_ms));
    line("master", format!("{}{}", master_words(router), interval.unwrap_or_default()));
    line(
        "became master",
        match router.promotions {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        },
    );
    if let Some(group) = &router.group {
        line("group", group.clone());
    }
    let adverts = &router.adverts;
    line(
        "adverts",
        format!(
            "{} sent ({} with priority 0), {} received ({} with priority 0)",
            adverts.sent, adverts.sent_zero, adverts.received, adverts.received_zero
        ),
    );
    let refused: Vec<String> = adverts.refused.iter().map(|(why, count)| format!("{count} {why}")).collect();
    if !refused.is_empty() {
        line("refused", refused.join(", "));
    }
    for evidence in &router.evidence {
        let seen = format!("{} times, last {} ago", evidence.count, ago(evidence.seen_ms));
        line("warning", format!("{}: {} ({seen})", evidence.kind, evidence.text));
    }
    if router.peers.is_empty() {
        return;
    }
    let mut table =
        Table::new(&["<  Heard from", "<Ethernet address", ">Priority", ">Every", "<Checksum", ">Adverts", ">Last"]);
    for peer in &router.peers {
        table.row([
            format!("  {}", peer.address),
            peer.mac.clone(),
            if peer.priority == 0 { "0 (left)".to_owned() } else { peer.priority.to_string() },
            format!("{} ms", peer.interval_ms),
            peer.checksum.clone(),
            peer.adverts.to_string(),
            format!("{} ago", ago(peer.heard_ms)),
        ]);
    }
    out.push_str(&table.render());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::status::{AdvertCounts, GroupStatus, MasterStatus, PeerStatus};

    #[test]
    fn a_block_for_each_router() {
        let router = RouterStatus {
            name: "VI_1".to_owned(),
            interface: "eth0".to_owned(),
            vrid: 51,
            group: Some("VG".to_owned()),
            state: "BACKUP".to_owned(),
            why: "10.0.0.2 has priority 150, ours is 80".to_owned(),
            for_ms: 65_000,
            promotions: 1,
            base_priority: 100,
            priority: 80,
            source: Some("10.0.0.1".to_owned()),
            addresses: vec!["10.0.0.100".to_owned(), "10.0.0.101".to_owned()],
            master: Some(MasterStatus {
                address: "10.0.0.2".to_owned(),
                mac: Some("02:00:00:00:00:52".to_owned()),
                priority: 150,
                interval_ms: 1000,
                heard_ms: 42,
                ..MasterStatus::default()
            }),
            peers: vec![PeerStatus {
                address: "10.0.0.2".to_owned(),
                mac: "02:00:00:00:00:52".to_owned(),
                priority: 150,
                interval_ms: 1000,
                checksum: "message".to_owned(),
                adverts: 65,
                heard_ms: 42,
            }],
            adverts: AdvertCounts {
                sent: 4,
                sent_zero: 1,
                received: 65,
                refused: [("wrong-password".to_owned(), 7)].into(),
                ..AdvertCounts::default()
            },
            ..RouterStatus::default()
        };
        let group = GroupStatus { name: "VG".to_owned(), state: "BACKUP".to_owned(), routers: vec!["VI_1".to_owned()] };
        let status = VrrpStatus {
            routers: vec![router],
            groups: vec![group],
            realtime: "SCHED_FIFO priority 50".to_owned(),
            ..VrrpStatus::default()
        };
        let expected = "\
VI_1 (eth0, VRID 51): BACKUP for 1 min 5 s
  because        10.0.0.2 has priority 150, ours is 80
  addresses      10.0.0.100 10.0.0.101
  priority       80, 100 before what is tracked
  sends from     10.0.0.1
  master         10.0.0.2 (02:00:00:00:00:52), priority 150, heard 0.042 s ago, every 1000 ms
  became master  once
  group          VG
  adverts        4 sent (1 with priority 0), 65 received (0 with priority 0)
  refused        7 wrong-password
  Heard from  Ethernet address   Priority    Every  Checksum  Adverts         Last
  10.0.0.2    02:00:00:00:00:52       150  1000 ms  message        65  0.042 s ago

group VG (VI_1): BACKUP
VRRP thread: SCHED_FIFO priority 50
";
        let text = render(Some(&status));
        assert!(text == expected, "{text}");
        for nothing in [None, Some(&VrrpStatus::default())] {
            assert_eq!(render(nothing), "no virtual routers are configured\n");
        }
    }
}
