//! When a backup takes over, to the microsecond, and what a master sends when.

use super::*;

/// Time from a master's last advert to the first one of the backup, without and with a farewell.
fn takeover(version: VrrpVersion, interval: Duration, priority: u8) -> (Duration, Duration) {
    let router = VirtualRouter { version, interval, priority, ..router("VI_1") };
    let measure = |last: u8| {
        let mut rig = Rig::backup(vec![router.clone()]);
        rig.run(interval);
        rig.hear("10.0.0.1", 255);
        if last == 0 {
            rig.run(interval);
            rig.hear("10.0.0.1", 0);
        }
        let heard = rig.now;
        rig.out.clear();
        let due = rig.election.deadline().expect("down timer");
        rig.run(due - heard - Duration::from_micros(1));
        assert_eq!(rig.done(), "", "not before its time");
        rig.run(Duration::from_micros(1));
        assert_eq!(rig.done(), format!("advert {priority}, own, announce 5, VI_1 MASTER"));
        rig.now - heard
    };
    (measure(255), measure(0))
}

#[test]
fn takeovers_as_in_the_table_of_the_reference() {
    use VrrpVersion::{V2, V3};
    let rows = [
        (V2, 1000, 100, 3.609, 0.609),
        (V3, 1000, 100, 3.609, 0.609),
        (V3, 1000, 200, 3.219, 0.219),
        (V3, 1000, 254, 3.008, 0.008),
        (V3, 100, 100, 0.361, 0.061),
        (V3, 10, 100, 0.036, 0.006),
        (V3, 10, 254, 0.030, 0.000),
        (V3, 10, 1, 0.040, 0.010),
        (V3, 40_950, 100, 147.804, 24.954),
        (V2, 10_000, 100, 30.609, 0.609),
    ];
    for (version, interval, priority, silent, farewell) in rows {
        let interval = Duration::from_millis(interval);
        let (after, leaving) = takeover(version, interval, priority);
        println!(
            "{version:?} {interval:?} priority {priority}: {after:?} after a crash, {leaving:?} after a graceful stop"
        );
        assert!((after.as_secs_f64() - silent).abs() < 0.0006, "{version:?} {interval:?} {priority}: {after:?}");
        assert!((leaving.as_secs_f64() - farewell).abs() < 0.0006, "{version:?} {interval:?} {priority}: {leaving:?}");
    }
    // Nothing is lost to whole centiseconds: 10 ms * 156 / 256.
    assert_eq!(takeover(V3, 10 * MS, 100).1, Duration::from_nanos(6_093_750));
}

#[test]
fn a_master_speaks_at_its_interval_and_announces_again() {
    let announcements = Announcements { repeat: 5, delay: 5 * SECOND, refresh: 7 * SECOND, refresh_repeat: 2 };
    let mut rig = Rig::backup(vec![VirtualRouter { announcements, interval: SECOND, ..router("VI_1") }]);
    rig.run(rig.election.deadline().expect("timer") - rig.now);
    let began = rig.now;
    rig.out.clear();
    let mut seen = Vec::new();
    while rig.now < began + 15 * SECOND {
        rig.run(500 * MS);
        let done = rig.done();
        if !done.is_empty() {
            seen.push(((rig.now - began).as_millis(), done));
        }
    }
    for (at, done) in &seen {
        let announced = match at {
            5000 => ", announce 5",
            7000 | 14_000 => ", announce 2",
            _ => "",
        };
        assert_eq!(*done, format!("advert 100{announced}"), "at {at} ms");
    }
    assert_eq!(seen.iter().map(|(at, _)| *at).collect::<Vec<_>>(), (1..=15).map(|n| n * 1000).collect::<Vec<_>>());
}

#[test]
fn a_late_tick_does_not_move_the_beat_and_a_pause_is_not_made_up_for() {
    let mut rig = Rig::master(vec![VirtualRouter {
        announcements: Announcements { delay: Duration::ZERO, ..Announcements::default() },
        ..router("VI_1")
    }]);
    let due = rig.election.deadline().expect("advert");
    rig.now = due + 300 * MS;
    rig.election.tick(rig.now, &mut rig.out);
    assert_eq!((rig.done().as_str(), rig.election.deadline()), ("advert 100", Some(due + SECOND)));
    rig.now = due + 60 * SECOND;
    rig.election.tick(rig.now, &mut rig.out);
    assert_eq!((rig.done().as_str(), rig.election.deadline()), ("advert 100", Some(due + 61 * SECOND)));
}

#[test]
fn after_a_pause_of_its_own_a_backup_first_takes_what_has_come_in() {
    let mut rig = Rig::backup(vec![router("VI_1")]);
    rig.hear("10.0.0.1", 150);
    rig.now += 60 * SECOND;
    rig.hear("10.0.0.1", 150);
    rig.election.tick(rig.now, &mut rig.out);
    assert_eq!((rig.done().as_str(), rig.states()), ("", vec!["BACKUP".to_owned()]));
}

#[test]
fn the_masters_interval_is_taken_over_in_version_3() {
    let mut rig = Rig::backup(vec![router("VI_1")]);
    let router = rig.routers[0].clone();
    rig.hear_for(&router, "10.0.0.1", 150, |_, advert| advert.interval = 100 * MS);
    let due = rig.election.deadline().expect("timer") - rig.now;
    assert_eq!(due, 300 * MS + 100 * MS * 156 / 256);
    let lines = rig.lines();
    assert!(
        lines.contains(&"(VI_1) advertisement interval updated from 1000ms to 100ms by master".to_owned()),
        "{lines:?}"
    );
    // Its own again once it is master.
    rig.run(due);
    assert_eq!(rig.election.deadline().expect("advert") - rig.now, SECOND);
}

#[test]
fn a_backup_that_may_not_preempt_waits_for_silence() {
    let mut rig = Rig::backup(vec![VirtualRouter { preempt: false, priority: 200, ..router("VI_1") }]);
    for _ in 0..10 {
        rig.run(SECOND);
        rig.hear("10.0.0.1", 50);
    }
    assert_eq!(rig.states(), ["BACKUP"]);
    rig.run(4 * SECOND);
    assert_eq!(rig.states(), ["MASTER"]);
}

#[test]
fn preemption_waits_for_its_delay_at_the_start_and_after_a_fault() {
    let mut rig = Rig::backup(vec![VirtualRouter { preempt_delay: 20 * SECOND, priority: 200, ..router("VI_1") }]);
    let preempted_after = |rig: &mut Rig| {
        let began = rig.now;
        while rig.states() == ["BACKUP"] {
            rig.hear("10.0.0.1", 50);
            rig.run(SECOND);
            assert!(rig.now < began + 60 * SECOND, "never");
        }
        (rig.now - began).as_secs()
    };
    // The delay, and then a silent master's time.
    assert_eq!(preempted_after(&mut rig), 23);
    assert!(rig.lines().iter().any(|line| line.starts_with("(VI_1) start preempt delay (20.0")));
    rig.condition("VI_1", 0, Some("interface eth0 is down"));
    rig.run(30 * SECOND);
    rig.condition("VI_1", 0, None);
    assert_eq!(preempted_after(&mut rig), 23);
    // It is no delay for a master that is silent, or that leaves.
    rig.condition("VI_1", 0, Some("interface eth0 is down"));
    rig.condition("VI_1", 0, None);
    rig.hear("10.0.0.1", 50);
    rig.hear("10.0.0.1", 0);
    rig.run(SECOND);
    assert_eq!(rig.states(), ["MASTER"]);
}

#[test]
fn an_owner_is_master_at_once() {
    let mut rig = Rig::new(vec![VirtualRouter { priority: 255, starts_as_master: true, ..router("VI_1") }]);
    rig.ready();
    assert_eq!(rig.done(), "VI_1 BACKUP, advert 255, own, announce 5, VI_1 MASTER");
    rig.condition("VI_1", -100, None);
    assert_eq!((rig.status().priority, rig.states()), (255, vec!["MASTER".to_owned()]));
}

#[test]
fn who_starts_as_master_still_listens_first_as_keepalived_does() {
    let rig = Rig::backup(vec![VirtualRouter { starts_as_master: true, priority: 150, ..router("VI_1") }]);
    assert_eq!(rig.election.deadline(), Some(rig.now + 3 * SECOND + SECOND * 106 / 256));
}

#[test]
fn priority_0_of_somebody_who_was_no_master_shortens_nothing() {
    let mut rig = Rig::backup(vec![router("VI_1")]);
    rig.hear("10.0.0.1", 150);
    let due = rig.election.deadline();
    rig.hear("10.0.0.9", 0);
    assert_eq!(rig.election.deadline(), due);
}

#[test]
fn tracking_moves_the_priority_within_its_bounds() {
    let mut rig = Rig::backup(vec![router("VI_1")]);
    for (adjust, priority) in [(50, 150), (500, 254), (-99, 1), (-500, 1), (i32::MIN, 1), (0, 100)] {
        rig.condition("VI_1", adjust, None);
        assert_eq!(rig.status().priority, priority, "{adjust}");
    }
    assert!(rig.lines().contains(&"(VI_1) Changing effective priority from 100 to 150".to_owned()));
    // A master whose priority falls gives way to the first better one, and says its new one at the next advert.
    rig.run(10 * SECOND);
    rig.condition("VI_1", -50, None);
    rig.done();
    rig.run(SECOND);
    assert_eq!(rig.done(), "advert 50");
    rig.hear("10.0.0.1", 60);
    assert_eq!(rig.states(), ["BACKUP"]);
}

#[test]
fn announcements_after_losing_adverts_are_bounded() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    for _ in 0..990 {
        rig.hear("10.0.0.1", 50);
        rig.run(MS);
    }
    let done = rig.done();
    assert_eq!(done.matches("announce").count(), 1, "one a second, though each advert is answered");
    assert_eq!(done.matches("advert").count(), 990);
    rig.run(SECOND);
    assert_eq!(rig.done().matches("announce").count(), 1, "and one after the last of them");
}

#[test]
fn a_graceful_stop_serves_on_until_the_successor_speaks() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    rig.election.stop(rig.now, &mut rig.out);
    assert_eq!(rig.done(), "advert 0, VI_1 STOP");
    rig.run(600 * MS);
    assert!(!rig.election.is_stopped());
    rig.hear("10.0.0.1", 50);
    assert_eq!(rig.done(), "disown");
    assert!(rig.election.is_stopped());
    assert_eq!(rig.election.deadline(), None);
}

#[test]
fn a_graceful_stop_ends_without_a_successor_too() {
    let ends_after = |router: VirtualRouter| {
        let mut rig = Rig::master(vec![router]);
        let began = rig.now;
        rig.election.stop(rig.now, &mut rig.out);
        while !rig.election.is_stopped() {
            let due = rig.election.deadline().expect("a bound");
            rig.run(due - rig.now);
        }
        assert!(rig.done().contains("disown"));
        (rig.now - began).as_millis()
    };
    assert_eq!(ends_after(router("VI_1")), 2000, "no longer than configured");
    assert_eq!(ends_after(VirtualRouter { interval: 10 * SECOND, ..router("VI_1") }), 2000);
    assert_eq!(
        ends_after(VirtualRouter { interval: 100 * MS, ..router("VI_1") }),
        200,
        "no longer than a successor takes"
    );
    let v2 = VirtualRouter { version: VrrpVersion::V2, ..router("VI_1") };
    assert_eq!(ends_after(v2), 2000);
    assert_eq!(ends_after(VirtualRouter { place: Place::Kernel, ..router("VI_1") }), 0, "programs stop with it");
}

#[test]
fn ipv6_does_the_same() {
    let addresses = vec![virtual_address("fe80::100"), virtual_address("2001:db8::100")];
    let mut rig = Rig::backup(vec![VirtualRouter { addresses, ..router("VI_6") }]);
    rig.hear("fe80::1", 150);
    rig.run(3 * SECOND);
    assert_eq!(rig.states(), ["BACKUP"]);
    rig.run(SECOND);
    assert_eq!(rig.states(), ["MASTER"]);
    rig.hear("fe80::3", 100);
    assert_eq!(rig.states(), ["BACKUP"], "the higher address wins");
}
