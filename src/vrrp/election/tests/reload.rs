//! A configuration that changes while routers run.

use super::*;

#[test]
fn a_reload_that_concerns_another_router_touches_nothing() {
    let two = VirtualRouter { vrid: 52, ..router("VI_2") };
    let mut rig = Rig::master(vec![router("VI_1"), two.clone()]);
    let due = rig.election.deadline();
    rig.routers[1].priority = 90;
    rig.configure();
    assert_eq!((rig.done().as_str(), rig.election.deadline()), ("", due));
    rig.routers.insert(0, VirtualRouter { vrid: 53, ..router("VI_0") });
    // Their slots stay with them.
    let slots = [3, 1, 2].map(|number| RouterSlot::new(number).expect("slot"));
    let specs: Vec<Spec> =
        (rig.routers.iter().zip(slots)).map(|(router, slot)| Spec { router: Arc::new(router.clone()), slot }).collect();
    rig.election.configure(&specs, &[], HANDOVER, rig.now, &mut rig.out);
    assert_eq!((rig.done().as_str(), rig.states()), ("", ["INIT", "MASTER", "MASTER"].map(str::to_owned).to_vec()));
}

#[test]
fn what_changes_while_a_router_runs() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    rig.routers[0].priority = 120;
    rig.configure();
    assert_eq!((rig.done().as_str(), rig.status().priority), ("", 120));
    rig.routers[0].interval = 100 * MS;
    rig.configure();
    rig.run(210 * MS);
    assert_eq!(rig.done(), "advert 120, advert 120, advert 120", "at once, and then at the new interval");
    rig.routers[0].excluded.push(virtual_address("10.0.0.200"));
    rig.configure();
    assert_eq!(rig.done(), "own, announce 5");
    assert_eq!(rig.states(), ["MASTER"]);
}

#[test]
fn a_router_that_is_gone_hands_its_addresses_over() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    let gone = rig.routers.remove(0);
    rig.configure();
    assert_eq!(rig.done(), "advert 0, VI_1 STOP");
    rig.hear_for(&gone, "10.0.0.1", 50, |_, _| {});
    assert_eq!(rig.done(), "disown");
    assert_eq!(rig.election.deadline(), None);
    // Nobody speaks up.
    let mut rig = Rig::master(vec![router("VI_1")]);
    rig.routers.clear();
    rig.configure();
    rig.run(10 * SECOND);
    assert_eq!(rig.done(), "advert 0, VI_1 STOP, disown");
    // Stopping meanwhile waits for it.
    let mut rig = Rig::master(vec![router("VI_1")]);
    rig.routers.clear();
    rig.configure();
    rig.election.stop(rig.now, &mut rig.out);
    assert!(!rig.election.is_stopped());
    rig.run(10 * SECOND);
    assert!(rig.election.is_stopped());
}

#[test]
fn a_name_or_a_bit_that_comes_back_ends_the_hand_over() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    let gone = rig.routers.remove(0);
    rig.configure();
    rig.done();
    rig.routers.push(gone);
    rig.configure();
    assert_eq!(rig.done(), "disown");
    rig.ready();
    rig.run(10 * SECOND);
    assert_eq!((rig.states(), rig.status().promotions), (vec!["MASTER".to_owned()], 1));
}

#[test]
fn what_others_see_otherwise_begins_anew_with_what_is_known() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    rig.routers[0].vrid = 60;
    rig.configure();
    assert_eq!(rig.done(), "advert 0, disown, VI_1 STOP, VI_1 BACKUP");
    // On another interface nothing is known of its source.
    rig.routers[0].interface = "eth1".to_owned();
    rig.configure();
    assert_eq!(rig.states(), ["INIT"]);
    rig.source("VI_1", Some(ip("10.0.0.2")));
    assert_eq!(rig.states(), ["BACKUP"], "what it tracks is known");
}

#[test]
fn a_priority_raised_above_the_masters_preempts() {
    let mut rig = Rig::backup(vec![router("VI_1")]);
    for (priority, state) in [(100, "BACKUP"), (200, "MASTER")] {
        rig.routers[0].priority = priority;
        rig.configure();
        for _ in 0..6 {
            rig.run(SECOND);
            rig.hear("10.0.0.1", 150);
        }
        assert_eq!(rig.states(), [state]);
    }
}
