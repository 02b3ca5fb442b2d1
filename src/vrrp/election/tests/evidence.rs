//! What is wrong on the segment: said once, counted always, visible in status.

use super::*;

fn kinds(rig: &Rig) -> Vec<(String, u64)> {
    rig.status().evidence.into_iter().map(|one| (one.kind, one.count)).collect()
}

fn only(kind: &str, count: u64) -> Vec<(String, u64)> {
    vec![(kind.to_owned(), count)]
}

#[test]
fn two_masters_are_said_once() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    for _ in 0..30 {
        rig.run(SECOND);
        rig.hear("10.0.0.1", 50);
    }
    let lines = rig.lines();
    let two: Vec<&String> = lines.iter().filter(|line| line.contains("two masters")).collect();
    assert_eq!(two.len(), 1, "{lines:#?}");
    assert!(two[0].contains("10.0.0.1 (02:00:00:00:00:02) with priority 50"), "{two:?}");
    let lower = "(VI_1) Received advert from 10.0.0.1 with lower priority 50, ours 100, forcing new election";
    assert_eq!(lines.iter().filter(|line| *line == lower).count(), 1, "{lines:#?}");
    assert_eq!(kinds(&rig).iter().find(|(kind, _)| kind == "two-masters").map(|(_, count)| *count > 20), Some(true));
    // A single losing advert is a router that has just heard us, no second master.
    let mut rig = Rig::master(vec![router("VI_1")]);
    rig.hear("10.0.0.1", 50);
    rig.run(20 * SECOND);
    rig.hear("10.0.0.1", 50);
    assert_eq!(kinds(&rig), only("lower-priority", 2));
}

#[test]
fn a_differing_address_list_is_taken_and_said() {
    let mut rig = Rig::backup(vec![router("VI_1")]);
    let router = rig.routers[0].clone();
    for _ in 0..5 {
        rig.run(SECOND);
        rig.hear_for(&router, "10.0.0.1", 150, |_, advert| advert.addresses.push(ip("10.0.0.77")));
    }
    assert_eq!((rig.states(), kinds(&rig)), (vec!["BACKUP".to_owned()], only("address-list", 5)));
    rig.hear_for(&router, "10.0.0.1", 150, |_, advert| advert.addresses = vec![ip("10.9.9.9")]);
    let lines = rig.lines();
    assert_eq!(lines.len(), 2, "once for each list: {lines:#?}");
    assert!(lines[0].contains("in it and not ours: 10.0.0.77"), "{lines:#?}");
    assert!(
        lines[1].contains("not present in MASTER advert: 10.0.0.100") && lines[1].contains("used twice"),
        "{lines:#?}"
    );
    // Another order is the same list.
    let mut rig = Rig::backup(vec![VirtualRouter {
        addresses: vec![virtual_address("10.0.0.100"), virtual_address("10.0.0.101")],
        ..router.clone()
    }]);
    let router = rig.routers[0].clone();
    rig.hear_for(&router, "10.0.0.1", 150, |_, advert| advert.addresses.reverse());
    assert_eq!(kinds(&rig), []);
}

#[test]
fn another_interval_is_said() {
    let mut rig = Rig::backup(vec![router("VI_1")]);
    let router = rig.routers[0].clone();
    for _ in 0..5 {
        rig.hear_for(&router, "10.0.0.1", 150, |_, advert| advert.interval = 500 * MS);
    }
    assert_eq!(kinds(&rig), only("other-interval", 5));
    let lines = rig.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("mine=1000 ms rcv'd=500 ms")).count(), 1, "{lines:#?}");
}

#[test]
fn a_strangers_claim_matters_while_we_are_master() {
    let claim = |rig: &mut Rig, interface: &str, address: &str, mac: MacAddr| {
        rig.election.claimed(interface, ip(address), mac, rig.now, &mut rig.out);
    };
    let mut rig = Rig::backup(vec![router("VI_1")]);
    claim(&mut rig, "eth0", "10.0.0.100", OTHER_MAC);
    assert_eq!((kinds(&rig), rig.lines()), (Vec::new(), Vec::new()), "the master's own, as far as we know");
    let mut rig = Rig::master(vec![router("VI_1")]);
    claim(&mut rig, "eth0", "10.0.0.99", OTHER_MAC);
    claim(&mut rig, "eth1", "10.0.0.100", OTHER_MAC);
    claim(&mut rig, "eth0", "10.0.0.100", MAC);
    claim(&mut rig, "eth0", "10.0.0.100", MacAddr([0, 0, 0x5e, 0, 1, 51]));
    assert_eq!(rig.lines(), [] as [String; 0]);
    for _ in 0..1000 {
        claim(&mut rig, "eth0", "10.0.0.100", OTHER_MAC);
    }
    let lines = rig.lines();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("(VI_1) 10.0.0.100 is claimed by 02:00:00:00:00:02 while we are master"), "{lines:?}");
    assert_eq!((kinds(&rig), rig.states()), (only("claimed", 1000), vec!["MASTER".to_owned()]));
    // Somebody else, a second later: another line.
    rig.run(2 * SECOND);
    rig.out.clear();
    claim(&mut rig, "eth0", "10.0.0.100", MacAddr([2, 0, 0, 0, 0, 9]));
    assert_eq!(rig.lines().len(), 1);
    // The same after a minute's silence: news again.
    rig.run(61 * SECOND);
    rig.out.clear();
    claim(&mut rig, "eth0", "10.0.0.100", MacAddr([2, 0, 0, 0, 0, 9]));
    assert_eq!(rig.lines().len(), 1);
}

#[test]
fn many_senders_do_not_make_it_grow() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    let router = rig.routers[0].clone();
    for sender in 0..5000u32 {
        let source = IpAddr::from(std::net::Ipv4Addr::from(0x0a01_0000 + sender));
        rig.hear_for(&router, &source.to_string(), 50, |_, _| {});
        rig.hear_for(&router, &source.to_string(), 50, |from, _| from.ttl = 3);
    }
    let status = rig.status();
    assert!(
        status.peers.len() <= 32 && status.evidence.len() <= 65,
        "{} {}",
        status.peers.len(),
        status.evidence.len()
    );
    assert_eq!(status.evidence.last().map(|one| one.kind.as_str()), Some("more"));
    assert!(rig.lines().len() <= 64);
    assert_eq!(status.adverts.refused["ttl"], 5000);
}

#[test]
fn status_says_who_is_master_since_when_and_why() {
    let mut rig = Rig::backup(vec![router("VI_1")]);
    rig.hear("10.0.0.1", 150);
    rig.run(1500 * MS);
    rig.hear("10.0.0.1", 140);
    rig.run(100 * MS);
    let status = rig.status();
    let master = status.master.expect("heard");
    assert_eq!(
        (master.ours, master.address.as_str(), master.mac.as_deref()),
        (false, "10.0.0.1", Some("02:00:00:00:00:02"))
    );
    assert_eq!((master.priority, master.interval_ms, master.for_ms, master.heard_ms), (140, 1000, 1600, 100));
    assert_eq!((status.state.as_str(), status.why.as_str(), status.for_ms), ("BACKUP", "began", 1600));
    assert_eq!((status.peers[0].checksum.as_str(), status.peers[0].adverts), ("pseudo-header", 2));
    rig.run(10 * SECOND);
    let status = rig.status();
    let master = status.master.expect("we");
    assert_eq!((master.ours, master.address.as_str(), master.priority), (true, "10.0.0.2", 100));
    assert_eq!((status.why.as_str(), status.promotions), ("Receive advertisement timeout", 1));
    assert_eq!((status.adverts.sent > 5, status.adverts.received), (true, 2));
    rig.hear("10.0.0.1", 150);
    assert_eq!(rig.status().why, "Master received advert from 10.0.0.1 with higher priority 150, ours 100");
    rig.hear("10.0.0.1", 0);
    assert_eq!((rig.status().master, rig.status().adverts.received_zero), (None, 1));
    let mut rig = Rig::backup(vec![VirtualRouter { checksum: VrrpChecksum::Message, ..router("VI_1") }]);
    rig.hear("10.0.0.1", 150);
    assert_eq!(rig.status().peers[0].checksum, "message");
}
