//! The rules of tracking, held to what keepalived does (`vrrp_track.c`, keepalived.conf(5)).

use super::*;
use crate::model::{Notify, VirtualAddress, VrrpSettings};

fn router(name: &str, priority: u8, tracks: &[(Tracked, i16)]) -> VirtualRouter {
    let address = VirtualAddress::host([192, 0, 2, 10].into());
    VirtualRouter { priority, tracks: tracks_from(tracks), ..VirtualRouter::new(name, "eth0", 51, vec![address]) }
}

fn tracks_from(tracks: &[(Tracked, i16)]) -> Vec<Track> {
    tracks.iter().map(|(what, weight)| Track { what: what.clone(), weight: *weight }).collect()
}

fn group(routers: &[&str], tracks: &[(Tracked, i16)]) -> SyncGroup {
    SyncGroup {
        name: "G1".into(),
        routers: routers.iter().map(|name| (*name).into()).collect(),
        tracks: tracks_from(tracks),
        notify: Notify::default(),
    }
}

fn vrrp(routers: Vec<VirtualRouter>, groups: Vec<SyncGroup>) -> Vrrp {
    Vrrp { settings: VrrpSettings::default(), routers, groups, ..Vrrp::default() }
}

fn script(name: &str) -> Tracked {
    Tracked::Script(name.into())
}

fn file(name: &str) -> Tracked {
    Tracked::File(name.into())
}

/// Conditions whose interface is up.
fn up(vrrp: &Vrrp) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.configure(vrrp);
    conditions.observe(Observation::interface("eth0", true));
    conditions
}

fn adjust(conditions: &Conditions, router: &str) -> (i32, Option<String>) {
    let condition = conditions.of(router).expect("known");
    (condition.adjust, condition.fault.clone())
}

/// What one thing with a weight makes of a router.
fn alone(what: Tracked, weight: i16, value: Option<Value>) -> Option<(i32, Option<String>)> {
    let mut conditions = up(&vrrp(vec![router("VI_1", 100, &[(what.clone(), weight)])], Vec::new()));
    if let Some(value) = value {
        conditions.observe(Observation { what, value });
    }
    conditions.of("VI_1").map(|condition| (condition.adjust, condition.fault.clone()))
}

#[test]
fn each_kind_and_weight_does_what_keepalived_does_with_it() {
    let bad = || Some(Value::Bad("failed: exited with status 1".into()));
    let fault = |text: &str| Some((0, Some(text.to_owned())));
    let by = |adjust| Some((adjust, None));
    let rows = [
        // Weight 0: fault while it fails, and nothing before it was seen.
        (script("chk"), 0, None, None),
        (script("chk"), 0, Some(Value::Good), by(0)),
        (script("chk"), 0, bad(), fault("script chk failed: exited with status 1")),
        // Above 0: added while it holds.
        (script("chk"), 20, None, by(0)),
        (script("chk"), 20, Some(Value::Good), by(20)),
        (script("chk"), 20, bad(), by(0)),
        // Below 0: added while it fails.
        (script("chk"), -20, None, by(0)),
        (script("chk"), -20, Some(Value::Good), by(0)),
        (script("chk"), -20, bad(), by(-20)),
        (Tracked::Process("squid".into()), -253, Some(Value::Bad("does not run".into())), by(-253)),
        (
            Tracked::Process("squid".into()),
            0,
            Some(Value::Bad("does not run".into())),
            fault("process squid does not run"),
        ),
        (Tracked::Service("web".into()), 0, None, None),
        (Tracked::Service("web".into()), -30, Some(Value::Bad("has too few usable servers".into())), by(-30)),
        // Files: the number times the weight.
        (file("load"), 1, None, by(0)),
        (file("load"), 1, Some(Value::Number(0)), by(0)),
        (file("load"), 1, Some(Value::Number(-20)), by(-20)),
        (file("load"), -2, Some(Value::Number(7)), by(-14)),
        (file("load"), -2, Some(Value::Number(-7)), by(14)),
        (file("load"), 1, Some(Value::Number(253)), by(253)),
        (file("load"), 1, Some(Value::Number(9999)), by(253)),
        (file("load"), 1, Some(Value::Number(-253)), by(-253)),
        (file("load"), 1, Some(Value::Number(-254)), fault("file load holds -254, with weight 1")),
        (file("load"), 2, Some(Value::Number(-127)), fault("file load holds -127, with weight 2")),
        (file("load"), -1, Some(Value::Number(i64::MAX)), fault("file load holds 9223372036854775807, with weight -1")),
        (file("load"), -1, Some(Value::Number(i64::MIN)), by(253)),
        // Files without a weight: 0 is good, all else is not.
        (file("drain"), 0, None, None),
        (file("drain"), 0, Some(Value::Number(0)), by(0)),
        (file("drain"), 0, Some(Value::Number(1)), fault("file drain holds 1")),
        (file("drain"), 0, Some(Value::Number(-1)), fault("file drain holds -1")),
        (file("drain"), 0, Some(Value::Number(i64::MIN)), fault("file drain holds -9223372036854775808")),
    ];
    for (what, weight, value, expected) in rows {
        assert_eq!(alone(what.clone(), weight, value.clone()), expected, "{what} with weight {weight} and {value:?}");
    }
}

#[test]
fn what_the_driver_sees_has_its_words() {
    let what = [Tracked::Interface("eth1".into()), Tracked::Service("web".into()), Tracked::Engine];
    let tracks: Vec<(Tracked, i16)> = what.into_iter().map(|what| (what, 0)).collect();
    let mut conditions = up(&vrrp(vec![router("VI_1", 100, &tracks)], Vec::new()));
    assert!(conditions.of("VI_1").is_none(), "three things are not known yet");
    assert_eq!(conditions.awaited("VI_1"), tracks.iter().map(|(what, _)| what).collect::<Vec<_>>());
    for good in [Observation::interface("eth1", true), Observation::service("web", true), Observation::engine(&[])] {
        conditions.observe(good);
    }
    assert_eq!(adjust(&conditions, "VI_1"), (0, None));
    let mut seen = |observation, expected: &str| {
        assert_eq!(conditions.observe(observation), ["VI_1"]);
        assert_eq!(adjust(&conditions, "VI_1"), (0, Some(expected.to_owned())));
    };
    seen(Observation::engine(&[(1, 1.24)]), "worker 1 has not turned for 1.2 s");
    // The reason is the first of those that are there, in the order of the configuration.
    seen(Observation::service("web", false), "service web has too few usable servers");
    seen(Observation::interface("eth1", false), "interface eth1 is down");
    seen(Observation::interface("eth0", false), "interface eth0 is down");
}

#[test]
fn weights_add_up_beyond_what_a_priority_can_be() {
    let tracks = [(script("a"), 253), (script("b"), 253), (file("c"), 1), (script("d"), -5)];
    let mut conditions = up(&vrrp(vec![router("VI_1", 100, &tracks)], Vec::new()));
    conditions.observe(Observation::good(script("a")));
    conditions.observe(Observation::good(script("b")));
    conditions.observe(Observation { what: file("c"), value: Value::Number(-200) });
    conditions.observe(Observation::bad(script("d"), "failed"));
    // As keepalived's `total_priority`: only the sum is kept within 1 and 254, by who uses it.
    assert_eq!(adjust(&conditions, "VI_1"), (253 + 253 - 200 - 5, None));
}

#[test]
fn a_fault_counts_at_once_and_everything_else_when_all_is_known() {
    let tracks = [(script("a"), 0), (script("b"), 0), (script("c"), 10)];
    let mut conditions = up(&vrrp(vec![router("VI_1", 100, &tracks)], Vec::new()));
    assert!(conditions.observe(Observation::good(script("a"))).is_empty());
    assert!(conditions.of("VI_1").is_none());
    assert_eq!(conditions.observe(Observation::bad(script("a"), "failed")), ["VI_1"]);
    assert_eq!(adjust(&conditions, "VI_1"), (0, Some("script a failed".into())));
    // Not out of fault before b has been seen.
    assert!(conditions.observe(Observation::good(script("a"))).is_empty());
    assert_eq!(adjust(&conditions, "VI_1"), (0, Some("script a failed".into())));
    assert_eq!(conditions.observe(Observation::good(script("b"))), ["VI_1"]);
    assert_eq!(adjust(&conditions, "VI_1"), (0, None));
}

#[test]
fn only_what_changes_a_condition_names_routers() {
    let routers =
        vec![router("VI_1", 100, &[(script("a"), 0)]), router("VI_2", 100, &[(script("a"), -5), (script("b"), -5)])];
    let mut conditions = up(&vrrp(routers, Vec::new()));
    assert_eq!(conditions.observe(Observation::good(script("a"))), ["VI_1"]);
    assert!(conditions.observe(Observation::good(script("a"))).is_empty(), "nothing new");
    assert!(conditions.observe(Observation::good(script("b"))).is_empty(), "adds nothing while it holds");
    assert!(conditions.observe(Observation::bad(script("nobody"), "failed")).is_empty());
    assert_eq!(conditions.observe(Observation::bad(script("a"), "failed")), ["VI_1", "VI_2"]);
    assert_eq!(conditions.observe(Observation::interface("eth0", false)), ["VI_1", "VI_2"]);
    assert!(conditions.tracks(&script("b")) && !conditions.tracks(&Tracked::Engine));
    let status = conditions.status();
    let shown: Vec<(&str, &str)> = status.iter().map(|row| (row.what.as_str(), row.state.as_str())).collect();
    assert_eq!(shown, [("interface eth0", "is down"), ("script a", "failed"), ("script b", "good")]);
}

/// As keepalived 2.2.7 did with such a configuration: "(V1) ignoring tracked script chk with weights due to SYNC group",
/// "(V3) ignoring tracked file tf with weight 2 due to address_owner", "(G) Cannot have weighted track script 'chk' with member
/// having priority 255 - clearing weight".
#[test]
fn weights_in_groups_and_of_owners_are_ignored_and_said_to_be() {
    let own = [(script("chk"), -20), (file("tf"), 0)];
    let routers =
        vec![router("V1", 100, &own), router("V2", 100, &[]), router("V3", 255, &own), router("V4", 100, &own)];
    let both = vrrp(routers, vec![group(&["V1", "V2"], &[(script("all"), -10)])]);
    let sentences = ignored(&both);
    assert_eq!(sentences.len(), 2, "{sentences:?}");
    assert!(sentences[0].starts_with("(V1) ignoring tracked script chk with weight -20: it is in a sync group"));
    assert!(
        sentences[1].starts_with("(V3) ignoring tracked script chk with weight -20: the priority of an address owner")
    );
    let mut conditions = up(&both);
    conditions.observe(Observation { what: file("tf"), value: Value::Number(0) });
    conditions.observe(Observation::bad(script("chk"), "failed"));
    conditions.observe(Observation::bad(script("all"), "failed"));
    let all = ["V1", "V2", "V3", "V4"].map(|name| adjust(&conditions, name).0);
    assert_eq!(all, [-10, -10, 0, -20]);
    // With an owner in the group its weights are 0: a failure is a fault of all.
    let mut owned = both.clone();
    owned.routers[1].priority = 255;
    let changed = conditions.configure(&owned);
    assert_eq!(changed, ["V1", "V2"]);
    assert_eq!(adjust(&conditions, "V1"), (0, Some("script all failed".into())));
}

#[test]
fn the_routers_own_interface_is_tracked_with_weight_0_whatever_is_written() {
    let mut conditions = up(&vrrp(vec![router("VI_1", 100, &[(Tracked::Interface("eth0".into()), -10)])], Vec::new()));
    conditions.observe(Observation::interface("eth0", false));
    assert_eq!(adjust(&conditions, "VI_1"), (0, Some("interface eth0 is down".into())));
}

#[test]
fn a_reload_keeps_what_was_seen_and_forgets_what_is_not_tracked() {
    let before = vrrp(vec![router("VI_1", 100, &[(script("a"), 0), (script("b"), 0)])], Vec::new());
    let mut conditions = up(&before);
    conditions.observe(Observation::good(script("a")));
    conditions.observe(Observation::good(script("b")));
    assert!(conditions.configure(&before).is_empty(), "nothing changed");
    // A new script: the router goes on as it was until it has run.
    let more = vrrp(vec![router("VI_1", 100, &[(script("a"), 0), (script("c"), 0)])], Vec::new());
    assert!(conditions.configure(&more).is_empty());
    assert_eq!(adjust(&conditions, "VI_1"), (0, None));
    assert_eq!(conditions.observe(Observation::bad(script("c"), "failed")), ["VI_1"]);
    // Back again: b was forgotten, and c no longer matters.
    assert!(conditions.configure(&before).is_empty());
    assert_eq!(conditions.observe(Observation::good(script("b"))), ["VI_1"]);
    assert_eq!(adjust(&conditions, "VI_1"), (0, None));
    // A router that comes is known at once where nothing is waited for.
    let two = vrrp(vec![before.routers[0].clone(), router("VI_2", 90, &[])], Vec::new());
    assert_eq!(conditions.configure(&two), ["VI_2"]);
    conditions.configure(&vrrp(Vec::new(), Vec::new()));
    assert!(conditions.of("VI_1").is_none() && conditions.status().is_empty());
}

#[test]
fn rise_and_fall_count_as_keepalived_counts() {
    // Rise, fall, begins good, results, and the results (by their place) that turn it: + good, - bad.
    let rows: [(u16, u16, bool, &str, &str); 10] = [
        (1, 1, false, "ox", "+-"),
        // The first result decides alone, whatever rise and fall are.
        (3, 3, false, "o", "+"),
        (3, 3, false, "x", "-"),
        (3, 3, false, "xooo", "-  +"),
        (3, 3, false, "oxxx", "+  -"),
        (3, 3, false, "oxxoxxoxxx", "+        -"),
        (3, 3, false, "xooxoooo", "-     + "),
        (2, 1, false, "xoox", "- +-"),
        (1, 2, true, "xox x", "    -"),
        (1, 1, true, "x", "-"),
    ];
    for (rise, fall, starts_good, results, expected) in rows {
        let mut streak = Streak::new(rise, fall, starts_good);
        assert_eq!(streak.good(), starts_good.then_some(true));
        let turns: String = results
            .chars()
            .map(|result| match (result != ' ').then(|| streak.take(result == 'o')).flatten() {
                Some(true) => '+',
                Some(false) => '-',
                None => ' ',
            })
            .collect();
        assert_eq!(turns.trim_end(), expected.trim_end(), "rise {rise}, fall {fall}: {results}");
    }
}

#[test]
fn other_numbers_leave_a_streak_what_it_is() {
    let mut streak = Streak::new(1, 1, false);
    streak.set(3, 2);
    assert_eq!(streak.good(), None);
    assert_eq!(streak.take(false), Some(false));
    streak.set(2, 2);
    assert_eq!((streak.good(), streak.take(true), streak.take(true)), (Some(false), None, Some(true)));
    streak.set(5, 3);
    assert_eq!((streak.good(), streak.take(false), streak.take(false)), (Some(true), None, None));
    assert_eq!(streak.take(false), Some(false));
    // 0 is taken for 1.
    assert_eq!(Streak::new(0, 0, false).take(true), Some(true));
}
