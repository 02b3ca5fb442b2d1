//! Routers that are master together or not at all.

use super::*;

fn group(routers: &[&str]) -> SyncGroup {
    let routers = routers.iter().map(|name| (*name).to_owned()).collect();
    SyncGroup { name: "G".to_owned(), routers, tracks: Vec::new(), notify: Notify::default() }
}

/// Two routers, `VI_1` with number 51 and `VI_2` with 52, in one group, and one that is in none.
fn rig() -> Rig {
    let two = VirtualRouter { vrid: 52, addresses: vec![virtual_address("10.0.0.102")], ..router("VI_2") };
    let three = VirtualRouter { vrid: 53, addresses: vec![virtual_address("10.0.0.103")], ..router("VI_3") };
    let mut rig = Rig::new(vec![router("VI_1"), two, three]);
    rig.groups = vec![group(&["VI_1", "VI_2"])];
    rig.configure();
    rig.ready();
    rig
}

fn master() -> Rig {
    let mut rig = rig();
    rig.run(10 * SECOND);
    assert_eq!(rig.states(), ["MASTER"; 3]);
    rig.out.clear();
    rig
}

fn hear(rig: &mut Rig, at: usize, priority: u8) {
    let router = rig.routers[at].clone();
    rig.hear_for(&router, "10.0.0.1", priority, |_, _| {});
}

#[test]
fn they_wait_until_all_want_to_be_master() {
    let mut rig = rig();
    rig.out.clear();
    for _ in 0..10 {
        rig.run(SECOND);
        hear(&mut rig, 1, 150);
    }
    assert_eq!(rig.states(), ["BACKUP", "BACKUP", "MASTER"], "the second one's master is well");
    rig.out.clear();
    rig.run(4 * SECOND);
    assert_eq!(rig.states(), ["MASTER"; 3]);
    let done = rig.done();
    let both = "advert 100, own, announce 5, VI_1 MASTER, advert 100, own, announce 5, VI_2 MASTER, G MASTER";
    assert!(done.contains(both), "{done}");
    assert_eq!(rig.election.groups()[0].state, "MASTER");
}

#[test]
fn one_that_wanted_and_hears_a_master_again_wants_no_more() {
    let mut rig = rig();
    for _ in 0..5 {
        rig.run(SECOND);
        hear(&mut rig, 1, 150);
    }
    for _ in 0..3 {
        rig.run(SECOND);
        hear(&mut rig, 0, 150);
    }
    rig.run(SECOND);
    assert_eq!(rig.states()[..2], ["BACKUP"; 2]);
    rig.run(4 * SECOND);
    assert_eq!(rig.states()[..2], ["MASTER"; 2]);
}

#[test]
fn one_that_gives_way_takes_the_others_along() {
    let mut rig = master();
    hear(&mut rig, 0, 150);
    assert_eq!(rig.states(), ["BACKUP", "BACKUP", "MASTER"]);
    assert_eq!(rig.done(), "disown, VI_1 BACKUP, disown, advert 0, VI_2 BACKUP, G BACKUP");
}

#[test]
fn one_in_fault_takes_the_others_along_and_holds_them() {
    let mut rig = master();
    rig.condition("VI_2", 0, Some("interface eth1 is down"));
    assert_eq!(rig.done(), "disown, advert 0, VI_1 FAULT, disown, advert 0, VI_2 FAULT, G FAULT");
    let status = rig.status();
    assert_eq!((status.state.as_str(), status.why.as_str()), ("FAULT", "VI_2 of its group: interface eth1 is down"));
    rig.run(20 * SECOND);
    rig.condition("VI_1", 0, Some("script chk failed"));
    rig.condition("VI_2", 0, None);
    assert_eq!(rig.states()[..2], ["FAULT"; 2], "the other one now");
    rig.done();
    rig.condition("VI_1", 0, None);
    assert_eq!(rig.done(), "VI_1 BACKUP, VI_2 BACKUP, G BACKUP");
    rig.run(4 * SECOND);
    assert_eq!(rig.states(), ["MASTER"; 3]);
}

#[test]
fn the_words_of_keepalived() {
    let mut rig = rig();
    rig.run(10 * SECOND);
    hear(&mut rig, 0, 150);
    rig.condition("VI_1", 0, Some("script chk failed"));
    let lines = rig.lines();
    for state in ["MASTER", "BACKUP", "FAULT"] {
        assert!(lines.contains(&format!("VRRP_Group(G) Syncing instances to {state} state")), "{state}: {lines:#?}");
    }
}

#[test]
fn they_begin_together() {
    let mut rig = rig();
    rig.groups = vec![group(&["VI_1", "VI_2", "VI_4"])];
    rig.routers.push(VirtualRouter { vrid: 54, ..router("VI_4") });
    let mut fresh = Rig::new(rig.routers.clone());
    fresh.groups = rig.groups.clone();
    fresh.configure();
    for name in ["VI_1", "VI_2"] {
        fresh.source(name, Some(ip("10.0.0.2")));
        fresh.condition(name, 0, None);
    }
    fresh.run(10 * SECOND);
    assert_eq!(fresh.states()[..2], ["INIT"; 2], "one of them is not known yet");
    fresh.ready();
    assert_eq!(fresh.states(), ["BACKUP"; 4]);
}

#[test]
fn a_router_that_joins_a_group_of_masters_becomes_one() {
    let mut rig = master();
    rig.routers.push(VirtualRouter { vrid: 54, ..router("VI_4") });
    rig.groups = vec![group(&["VI_1", "VI_2", "VI_4"])];
    rig.configure();
    rig.ready();
    assert_eq!(rig.states(), ["MASTER", "MASTER", "MASTER", "BACKUP"]);
    let own = rig.done();
    assert!(!own.contains("own"), "the others go on: {own}");
    rig.run(4 * SECOND);
    assert_eq!(rig.states(), ["MASTER"; 4]);
}

#[test]
fn masters_and_backups_that_become_a_group_are_backups() {
    let mut rig = master();
    hear(&mut rig, 2, 150);
    assert_eq!(rig.states(), ["MASTER", "MASTER", "BACKUP"]);
    rig.groups = vec![group(&["VI_1", "VI_2", "VI_3"])];
    rig.configure();
    assert_eq!(rig.states(), ["BACKUP"; 3]);
    rig.groups.clear();
    rig.configure();
    rig.run(4 * SECOND);
    assert_eq!(rig.states(), ["MASTER"; 3]);
}

#[test]
fn stopping_stops_the_group() {
    let mut rig = master();
    rig.election.stop(rig.now, &mut rig.out);
    assert!(rig.done().ends_with("G STOP"));
}
