//! Inputs and what they mean: a table for each rule, and what must hold whatever happens.

mod properties;

use std::net::IpAddr;

use super::super::tests::{desired, tcp};
use super::*;
use crate::control::nexthop::{NextHop, Reason};
use crate::model::{Damping, FirstState, MacAddr, OnFailure, Passive, Quorum};

const HOP: NextHop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };

/// A service of which everything is handed in by hand.
struct Stage {
    desired: Desired,
    checks: Checks,
    meaning: Meaning,
    /// Milliseconds.
    now: u64,
    changes: Vec<Change>,
}

impl Stage {
    /// Servers 10.0.0.n, each with a check of its own.
    fn new(servers: &[u8], setting: impl FnOnce(&mut Service)) -> Stage {
        let mut desired = desired(servers);
        for server in &mut desired.services[0].servers {
            server.health.checks = vec![tcp(server.address, 80)];
        }
        setting(&mut desired.services[0]);
        let mut stage =
            Stage { desired, checks: Checks::default(), meaning: Meaning::default(), now: 0, changes: Vec::new() };
        stage.configure();
        stage
    }

    fn configure(&mut self) {
        self.checks.assign(&self.desired);
        self.meaning.configure(&self.desired, &self.checks, self.moment());
        self.meaning.reach(&self.desired, |_, _| Ok(HOP));
        self.judge();
    }

    fn moment(&self) -> Moment {
        Moment { now: Duration::from_millis(self.now), wall: Duration::from_secs(1_000_000) }
    }

    fn judge(&mut self) -> bool {
        self.meaning.judge(self.moment(), &mut self.changes)
    }

    fn key(&self, n: u8) -> ServerKey {
        ServerKey { service: self.desired.services[0].key, address: IpAddr::from([10, 0, 0, n]), port: None }
    }

    fn server(&self, n: u8) -> &Server {
        let address = IpAddr::from([10, 0, 0, n]);
        self.desired.services[0].all_servers().find(|server| server.address == address).expect("configured")
    }

    /// The check of a server says this.
    fn says(&mut self, n: u8, up: bool, words: &str) {
        self.weighs(n, up, words, None);
    }

    fn weighs(&mut self, n: u8, up: bool, words: &str, weigh: Option<Weigh>) {
        let (id, _) = self.checks.of(self.server(n)).next().expect("a check");
        self.meaning.note(id, Seen { up, weigh, words: words.to_owned() });
        self.judge();
    }

    fn admin(&mut self, n: u8, admin: Admin) {
        assert!(self.meaning.set_admin(&self.key(n), admin));
        self.judge();
    }

    /// Time passes; what is due happens when it is.
    fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(due) = self.meaning.next_deadline().map(|due| due.as_nanos().div_ceil(1_000_000) as u64) {
            if due > until {
                break;
            }
            assert!(due > self.now, "a deadline that does not pass");
            self.now = due;
            self.judge();
        }
        self.now = until;
    }

    fn stands(&self, n: u8) -> Standing {
        let moment = self.moment().now;
        self.meaning.standing(&self.desired.services[0], self.server(n), moment).expect("known")
    }

    fn weight(&self, n: u8) -> u32 {
        self.stands(n).weight
    }

    fn state(&self, n: u8) -> (ServerState, String) {
        let view = self.meaning.view(&self.key(n), self.moment().now).expect("known");
        (view.state, view.words.to_owned())
    }

    /// What happened since the last call: the last number of the server (0: the service), what, whether scripts run.
    fn told(&mut self) -> Vec<(u8, &'static str, Option<bool>)> {
        let last = |key: &ServerKey| match key.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        let row = |change: Change| (change.server.as_ref().map_or(0, last), change.what.name(), change.usable);
        self.changes.drain(..).map(row).collect()
    }
}

fn standing(weight: u32, takes: bool, failed: bool) -> Standing {
    Standing { weight, takes, failed, drains: false }
}

const IN: Standing = Standing { weight: 1, takes: true, failed: false, drains: false };

#[test]
fn before_its_first_result_a_check_is_what_the_file_says() {
    for (first, serves) in [(FirstState::Up, true), (FirstState::Down, false)] {
        let with = |service: &mut Service| {
            let servers = &mut service.servers;
            servers.iter_mut().for_each(|server| server.health.checks[0].pace.first = first);
        };
        let mut stage = Stage::new(&[1, 2, 3], with);
        assert_eq!(stage.stands(1), Standing { takes: serves, ..IN });
        assert_eq!(stage.state(1).0, ServerState::Starting);
        let start = if serves { vec![] } else { vec![(0, "quorum-lost", Some(false))] };
        assert_eq!(stage.told(), start);
        stage.says(1, true, "");
        assert_eq!((stage.stands(1), stage.state(1)), (IN, (ServerState::Up, String::new())));
        let found =
            if serves { vec![(1, "up", None)] } else { vec![(1, "up", Some(true)), (0, "quorum-found", Some(true))] };
        assert_eq!(stage.told(), found, "scripts run for what was not taken for true");
        stage.says(2, false, "connection refused");
        assert_eq!(
            (stage.stands(2), stage.state(2)),
            (standing(1, false, true), (ServerState::Down, "connection refused".to_owned()))
        );
        assert_eq!(stage.told(), [(2, "down", Some(false))], "as keepalived's first failure");
        assert_eq!(stage.changes.len(), 0);
    }
}

#[test]
fn all_checks_must_be_good() {
    let mut stage = Stage::new(&[1], |service| {
        let more = tcp(IpAddr::from([10, 0, 0, 1]), 81);
        service.servers[0].health.checks.push(more);
    });
    let ids: Vec<CheckId> = stage.checks.of(stage.server(1)).map(|(id, _)| id).collect();
    let says = |stage: &mut Stage, at: usize, up: bool, words: &str| {
        stage.meaning.note(ids[at], Seen { up, weigh: None, words: words.to_owned() });
        stage.judge();
        stage.state(1)
    };
    assert_eq!(says(&mut stage, 0, true, "").0, ServerState::Starting, "one has not said anything yet");
    assert_eq!(says(&mut stage, 1, false, "one"), (ServerState::Down, "one".to_owned()));
    assert_eq!(says(&mut stage, 0, false, "zero"), (ServerState::Down, "zero (and 1 check more)".to_owned()));
    assert_eq!(says(&mut stage, 1, true, ""), (ServerState::Down, "zero".to_owned()));
    assert_eq!(says(&mut stage, 0, true, "").0, ServerState::Up);
    stage.meaning.note(CheckId(99), Seen { up: false, weigh: None, words: String::new() });
    assert!(!stage.judge(), "a check that nobody has");
}

#[test]
fn what_a_state_means_follows_on_failure() {
    use Admin::{Drain, Maintenance, Ready};
    let drains = |standing: Standing| Standing { drains: true, ..standing };
    for (on_failure, up, admin, wanted) in [
        (OnFailure::Remove, true, Ready, IN),
        (OnFailure::Remove, false, Ready, standing(1, false, true)),
        (OnFailure::Inhibit, true, Ready, IN),
        (OnFailure::Inhibit, false, Ready, standing(0, true, false)),
        (OnFailure::Remove, true, Drain, drains(standing(0, true, false))),
        (OnFailure::Remove, false, Drain, drains(standing(1, false, true))),
        (OnFailure::Inhibit, false, Drain, drains(standing(0, true, false))),
        (OnFailure::Remove, true, Maintenance, standing(1, false, true)),
        (OnFailure::Inhibit, true, Maintenance, standing(1, false, true)),
        (OnFailure::Inhibit, false, Maintenance, standing(1, false, true)),
    ] {
        let with = |service: &mut Service| service.servers[0].health.on_failure = on_failure;
        let mut stage = Stage::new(&[1, 2], with);
        stage.says(1, up, "why");
        stage.admin(1, admin);
        assert_eq!(stage.stands(1), wanted, "{on_failure:?} {up} {admin:?}");
        // The order does not matter.
        let mut other = Stage::new(&[1, 2], with);
        other.admin(1, admin);
        other.says(1, up, "why");
        assert_eq!((other.stands(1), other.state(1)), (wanted, stage.state(1)));
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_down_and_one_that_is_asked_for_is_not_yet() {
    let mut stage = Stage::new(&[1, 2], |_| ());
    stage.says(1, true, "");
    stage.told();
    let reach = |stage: &mut Stage, reason: Option<Reason>| {
        let one = IpAddr::from([10, 0, 0, 1]);
        stage.meaning.reach(&stage.desired, |_, server| match &reason {
            Some(reason) if server.address == one => Err(reason.clone()),
            _ => Ok(HOP),
        });
        stage.judge();
        (stage.state(1), stage.told())
    };
    assert_eq!(reach(&mut stage, Some(Reason::Unresolved)).1, [], "the next moment tells");
    let down = reach(&mut stage, Some(Reason::NoRoute));
    assert_eq!(down, ((ServerState::Down, Reason::NoRoute.to_string()), vec![(1, "down", Some(false))]));
    assert_eq!(reach(&mut stage, Some(Reason::Local)).1, [(1, "up", Some(true))], "this machine is always reached");
    // A new one.
    let address = IpAddr::from([10, 0, 0, 3]);
    stage.desired.services[0].servers.push(Server::dr(address, 1));
    stage.checks.assign(&stage.desired);
    stage.meaning.configure(&stage.desired, &stage.checks, stage.moment());
    stage
        .meaning
        .reach(&stage.desired, |_, server| if server.address == address { Err(Reason::Unresolved) } else { Ok(HOP) });
    stage.judge();
    assert_eq!((stage.state(3).0, stage.stands(3).takes, stage.told()), (ServerState::Starting, false, vec![]));
    reach(&mut stage, None);
    assert_eq!((stage.state(3).0, stage.stands(3)), (ServerState::Up, IN));
}

#[test]
fn drains_by_file_by_hand_and_by_the_configuration_are_told_apart() {
    let mut stage = Stage::new(&[1, 2], |service| {
        service.servers[0].health.drain_file = Some("/run/drain-1".into());
        service.servers[1].drain = true;
    });
    assert_eq!(stage.state(2), (ServerState::Draining, "by the configuration".to_owned()));
    stage.says(1, true, "");
    assert!(stage.meaning.set_drain_file(&stage.key(1), true));
    stage.judge();
    assert_eq!(stage.state(1), (ServerState::Draining, "/run/drain-1 exists".to_owned()));
    assert!(stage.stands(1).drains);
    stage.admin(1, Admin::Drain);
    assert_eq!(stage.state(1).1, "by hand");
    stage.admin(1, Admin::Ready);
    assert_eq!(stage.state(1).0, ServerState::Draining, "the file is still there");
    // Another file is another question.
    stage.desired.services[0].servers[0].health.drain_file = Some("/run/other".into());
    stage.configure();
    assert_eq!((stage.state(1).0, stage.stands(1)), (ServerState::Up, IN));
    assert!(!stage.meaning.set_admin(&ServerKey { port: Some(8080), ..stage.key(1) }, Admin::Drain), "nobody");
}

#[test]
fn the_quorum_is_keepalived_s() {
    // Weights' sums in turn, and whether the quorum is there after each (`update_quorum_state`).
    type Row = (u32, u32, &'static [(u64, bool)]);
    let rows: [Row; 5] = [
        (1, 0, &[(3, true), (1, true), (0, false), (1, true)]),
        (4, 0, &[(3, false), (4, true), (3, false)]),
        (4, 1, &[(4, false), (5, true), (4, true), (3, true), (2, false), (4, false), (5, true)]),
        // Nothing is never enough, whatever the hysteresis.
        (2, 5, &[(7, true), (1, true), (0, false), (6, false), (7, true)]),
        (1, 0, &[(0, false), (0, false), (9, true)]),
    ];
    for (least, hysteresis, sums) in rows {
        let quorum = Quorum { least, hysteresis, ..Quorum::default() };
        let mut state = QuorumState::first(&quorum, sums[0].0);
        for (sum, up) in sums {
            let before = state.up;
            assert_eq!(state.judge(&quorum, *sum), before != *up, "{least} {hysteresis} {sum}");
            assert_eq!(state.up, *up, "{least} {hysteresis} {sum}");
        }
    }
}

#[test]
fn a_lost_quorum_brings_the_sorry_server_and_no_other() {
    let mut stage = Stage::new(&[1, 2, 3], |service| {
        service.health.quorum = Quorum { least: 2, hysteresis: 1, ..Quorum::default() };
        service.health.sorry = Some(Box::new(Server::dr(IpAddr::from([10, 0, 0, 99]), 1)));
        service.servers[2].health.on_failure = OnFailure::Inhibit;
    });
    (1..=3).for_each(|n| stage.says(n, true, ""));
    assert_eq!((stage.stands(99), stage.meaning.is_up("web")), (Standing::OUT, Some(true)));
    stage.told();
    stage.says(3, false, "no reply in 2 s");
    stage.says(2, false, "no reply in 2 s");
    assert_eq!(stage.told(), [(3, "down", Some(false)), (2, "down", Some(false))]);
    assert_eq!((stage.stands(99), stage.meaning.is_up("web")), (Standing::OUT, Some(true)), "by the hysteresis");
    stage.says(1, false, "no reply in 2 s");
    assert_eq!(stage.told(), [(1, "down", Some(false)), (0, "quorum-lost", Some(false)), (0, "sorry-in", None)]);
    assert_eq!(stage.stands(99), IN);
    assert!((1..=3).all(|n| !stage.stands(n).takes), "keepalived takes them all out");
    // Some come back: not enough.
    stage.says(1, true, "");
    stage.says(2, true, "");
    let out = Standing { takes: false, ..IN };
    assert_eq!((stage.stands(1), stage.stands(99)), (out, IN), "its flows go on, new ones are the sorry server's");
    assert_eq!(stage.told(), [(1, "up", Some(true)), (2, "up", Some(true))]);
    let view = stage.meaning.service(&stage.desired.services[0].key);
    assert_eq!(view, Some(ServiceView { up: false, sum: 2, sorry: true }));
    stage.says(3, true, "");
    assert_eq!(stage.told(), [(3, "up", Some(true)), (0, "quorum-found", Some(true)), (0, "sorry-out", None)]);
    assert_eq!((stage.stands(99), stage.stands(1)), (Standing::OUT, IN));
    // Over a reload it stays as it is, by the hysteresis of what was.
    stage.says(3, false, "");
    stage.configure();
    assert_eq!(stage.meaning.is_up("web"), Some(true));
    assert_eq!(stage.meaning.is_up("other"), None);
}

#[test]
fn checks_say_weights() {
    let mut stage = Stage::new(&[1, 2], |service| service.servers[0].weight = 5);
    stage.says(1, true, "");
    stage.told();
    for (weigh, weight) in [
        (Some(Weigh::Set(3)), 3),
        (Some(Weigh::Set(0)), 0),
        (Some(Weigh::Add(-2)), 3),
        (Some(Weigh::Add(-9)), 0),
        (Some(Weigh::Add(100_000)), 65_535),
        (None, 5),
    ] {
        stage.weighs(1, true, "", weigh);
        assert_eq!(stage.weight(1), weight, "{weigh:?}");
    }
    assert_eq!(stage.told(), [(1, "weight", None); 6]);
    let two = tcp(IpAddr::from([10, 0, 0, 1]), 81);
    stage.desired.services[0].servers[0].health.checks.push(two);
    stage.configure();
    let ids: Vec<CheckId> = stage.checks.of(stage.server(1)).map(|(id, _)| id).collect();
    for (id, weigh) in ids.iter().zip([Weigh::Set(8), Weigh::Add(-1)]) {
        stage.meaning.note(*id, Seen { up: true, weigh: Some(weigh), words: String::new() });
    }
    stage.judge();
    assert_eq!(stage.weight(1), 7, "8 instead of 5, less 1");
    // Nobody is left by weight, though all are up: that is what the quorum counts.
    stage.weighs(2, true, "", Some(Weigh::Set(0)));
    assert_eq!(stage.meaning.is_up("web"), Some(true));
    stage.meaning.note(ids[0], Seen { up: true, weigh: Some(Weigh::Set(0)), words: String::new() });
    stage.meaning.note(ids[1], Seen { up: true, weigh: None, words: String::new() });
    stage.judge();
    assert_eq!((stage.meaning.is_up("web"), stage.state(1).0), (Some(false), ServerState::Up));
}

#[test]
fn a_server_that_comes_back_ramps_up() {
    let mut stage = Stage::new(&[1, 2], |service| service.health.slow_start = Some(Duration::from_secs(9)));
    (1..=2).for_each(|n| stage.says(n, true, ""));
    assert_eq!((stage.weight(1), stage.weight(2)), (1, 1), "not at the start");
    stage.says(1, false, "");
    stage.pass(5000);
    stage.says(1, true, "");
    // Weight 1 has no tenth: all of the service's weights are ten times theirs meanwhile.
    for step in 1..=10 {
        let wanted = if step == 10 { (1, 1) } else { (step, 10) };
        assert_eq!((stage.weight(1), stage.weight(2)), wanted);
        stage.pass(999);
        assert_eq!((stage.weight(1), stage.weight(2)), wanted, "no step before its time");
        stage.pass(1);
    }
    assert_eq!(stage.meaning.next_deadline(), None);
    // A failure ends it; it counts whole for the quorum.
    stage.says(1, false, "");
    stage.says(1, true, "");
    stage.pass(3000);
    let view = stage.meaning.view(&stage.key(1), stage.moment().now).expect("known");
    assert_eq!((view.percent, view.weight), (40, 1));
    assert_eq!(stage.meaning.service(&stage.desired.services[0].key).map(|view| view.sum), Some(2));
    stage.says(1, false, "");
    assert_eq!((stage.meaning.next_deadline(), stage.weight(2)), (None, 1));
    // Back from maintenance it ramps up, too.
    stage.admin(1, Admin::Maintenance);
    stage.says(1, true, "");
    stage.admin(1, Admin::Ready);
    assert_eq!((stage.weight(1), stage.weight(2)), (1, 10));
}

#[test]
fn a_server_that_fails_too_often_is_held_out() {
    let seconds = Duration::from_secs;
    let damping = Damping { failures: 3, window: seconds(60), hold: seconds(30) };
    let mut stage = Stage::new(&[1, 2], |service| service.health.damping = Some(damping));
    let fails = |stage: &mut Stage| {
        stage.says(1, false, "no");
        stage.says(1, true, "");
        stage.state(1).0
    };
    assert_eq!(fails(&mut stage), ServerState::Up);
    stage.pass(10_000);
    assert_eq!(fails(&mut stage), ServerState::Up);
    stage.pass(50_000);
    stage.told();
    assert_eq!(fails(&mut stage), ServerState::Held, "three within 60 s, the ends included");
    assert_eq!(stage.state(1).1, "failed 3 times within 1 min: out for 30 s after the last");
    assert_eq!(stage.told(), [(1, "down", Some(false)), (1, "held", None)]);
    assert_eq!(stage.stands(1), standing(1, false, true));
    stage.pass(20_000);
    // One more: the time begins anew.
    assert_eq!(fails(&mut stage), ServerState::Held);
    stage.pass(29_999);
    assert_eq!(stage.state(1).0, ServerState::Held);
    stage.pass(1);
    assert_eq!((stage.state(1).0, stage.stands(1)), (ServerState::Up, IN));
    // Slowly enough it may fail for ever.
    for _ in 0..10 {
        stage.pass(30_001);
        assert_eq!(fails(&mut stage), ServerState::Up);
        stage.pass(30_001);
    }
    // What people do is no failure.
    for _ in 0..5 {
        stage.admin(1, Admin::Drain);
        stage.admin(1, Admin::Ready);
        stage.admin(1, Admin::Maintenance);
        stage.admin(1, Admin::Ready);
    }
    assert_eq!(stage.state(1).0, ServerState::Up);
    // Without damping nobody is held.
    stage.pass(60_001);
    (0..3).for_each(|_| {
        fails(&mut stage);
    });
    assert_eq!(stage.state(1).0, ServerState::Held);
    stage.desired.services[0].health.damping = None;
    stage.configure();
    assert_eq!(stage.state(1).0, ServerState::Up);
}

const PASSIVE: Passive = Passive {
    failures_percent: 50,
    least: 10,
    window: Duration::from_secs(10),
    eject: Duration::from_secs(30),
    most_percent: 50,
};

impl Stage {
    /// New flows and failures of each server within a window, which ends then.
    fn window(&mut self, total: &mut HashMap<ServerKey, Counts>, rows: &[(u8, u64, u64)]) {
        for (n, new, failed) in rows {
            let counts = total.entry(self.key(*n)).or_default();
            (counts.new, counts.failed) = (counts.new + new, counts.failed + failed);
        }
        self.meaning.count(|key| total.get(key).copied().unwrap_or_default());
        self.pass(10_000);
    }
}

#[test]
fn outliers_are_out_for_a_while_and_never_all() {
    let mut stage = Stage::new(&[1, 2, 3, 4], |service| service.health.passive = Some(PASSIVE));
    (1..=4).for_each(|n| stage.says(n, true, ""));
    stage.told();
    let mut total = HashMap::new();
    // What was counted before is nobody's fault.
    total.insert(stage.key(1), Counts { new: 1000, failed: 1000 });
    stage.window(&mut total, &[]);
    stage.window(&mut total, &[(1, 9, 9), (2, 100, 49), (3, 100, 0)]);
    assert_eq!(stage.told(), [], "too few, or too few failures");
    stage.window(&mut total, &[(1, 10, 5), (2, 100, 100), (3, 100, 90), (4, 100, 70)]);
    assert_eq!(stage.told(), [(2, "ejected", Some(false)), (3, "ejected", Some(false))], "the worst two of four");
    assert_eq!(stage.state(2), (ServerState::Ejected, "100 of 100 new flows failed: out for 30 s".to_owned()));
    assert_eq!(stage.stands(2), standing(1, false, false), "flows that were made are not judged by this");
    stage.window(&mut total, &[(1, 10, 10), (4, 10, 10)]);
    assert_eq!(stage.told(), [], "half of them are out");
    stage.pass(20_000);
    assert_eq!(stage.told(), [(2, "up", Some(true)), (3, "up", Some(true))]);
    // The next times are longer, up to ten times.
    for lasts in [60, 120, 240, 300, 300] {
        stage.window(&mut total, &[(2, 20, 20)]);
        assert_eq!(stage.told(), [(2, "ejected", Some(false))], "{lasts}");
        stage.pass(lasts * 1000 - 1);
        assert_eq!(stage.told(), [], "{lasts}");
        stage.pass(1);
        assert_eq!(stage.told(), [(2, "up", Some(true))], "{lasts}");
    }
    // Good windows make them shorter.
    (0..9).for_each(|_| stage.window(&mut total, &[(2, 20, 0)]));
    stage.window(&mut total, &[(2, 20, 20)]);
    assert_eq!(stage.state(2).1, "20 of 20 new flows failed: out for 30 s");
}

#[test]
fn an_ejected_server_is_better_than_none() {
    let mut stage = Stage::new(&[1, 2], |service| service.health.passive = Some(PASSIVE));
    (1..=2).for_each(|n| stage.says(n, true, ""));
    let mut total = HashMap::new();
    stage.window(&mut total, &[]);
    stage.window(&mut total, &[(1, 20, 20), (2, 20, 20)]);
    assert_eq!((stage.state(1).0, stage.state(2).0), (ServerState::Ejected, ServerState::Up), "one always stays");
    stage.told();
    stage.says(2, false, "connection refused");
    assert_eq!(stage.told(), [(1, "up", Some(true)), (2, "down", Some(false))]);
    assert_eq!(stage.meaning.is_up("web"), Some(true));
    // Small services: one may be out though half of two thirds is none.
    for (most, servers, out, usable, room) in
        [(50, 3, 0, 3, 1), (10, 3, 0, 3, 1), (10, 3, 1, 2, 0), (0, 9, 0, 9, 0), (100, 4, 0, 4, 3), (100, 4, 3, 1, 0)]
    {
        let settings = Passive { most_percent: most, ..PASSIVE };
        assert_eq!(passive::room(&settings, servers, out, usable), room);
    }
}

#[test]
fn a_reload_keeps_what_is_known() {
    let mut stage = Stage::new(&[1, 2, 3], |_| ());
    (1..=3).for_each(|n| stage.says(n, n != 2, "connection refused"));
    stage.admin(3, Admin::Drain);
    stage.told();
    stage.desired.services[0].servers[0].weight = 7;
    stage.desired.services[0].servers.reverse();
    stage.configure();
    assert_eq!((stage.weight(1), stage.state(2).0, stage.state(3).0), (7, ServerState::Down, ServerState::Draining));
    assert_eq!(stage.told(), [(1, "weight", None)]);
    // Another check has said nothing yet: it is taken for what the server was.
    let check = tcp(IpAddr::from([10, 0, 0, 2]), 8080);
    stage.desired.services[0].servers[1].health.checks = vec![check];
    stage.configure();
    assert_eq!((stage.state(2).0, stage.stands(2).takes), (ServerState::Starting, false));
    assert_eq!(stage.told(), []);
    stage.says(2, true, "");
    assert_eq!((stage.state(2).0, stage.told()), (ServerState::Up, vec![(2, "up", Some(true))]));
    stage.desired.services.clear();
    stage.configure();
    assert_eq!(
        stage.meaning.view(
            &ServerKey { service: desired(&[]).services[0].key, address: [10, 0, 0, 1].into(), port: None },
            Duration::ZERO
        ),
        None
    );
}

#[test]
fn another_check_leaves_a_server_what_it_was_until_it_has_a_result() {
    let mut stage = Stage::new(&[1, 2], |_| ());
    stage.says(1, true, "");
    stage.says(2, false, "connection refused");
    assert_eq!((stage.weight(1), stage.stands(2).takes), (1, false));
    // Another pace: another check.
    for server in &mut stage.desired.services[0].servers {
        server.health.checks[0].pace.fall = 9;
        server.health.checks[0].pace.first = FirstState::Up;
    }
    stage.configure();
    assert_eq!((stage.weight(1), stage.stands(2).takes), (1, false));
    // And another reload before there was a result.
    stage.configure();
    assert_eq!((stage.weight(1), stage.stands(2).takes), (1, false));
    stage.says(2, true, "");
    assert!(stage.stands(2).takes);
    // A server that nobody knows is taken for what the file says.
    stage.desired.services[0].servers.push(Server::dr(IpAddr::from([10, 0, 0, 3]), 1));
    let mut check = tcp(IpAddr::from([10, 0, 0, 3]), 80);
    check.pace.first = FirstState::Down;
    stage.desired.services[0].servers[2].health.checks = vec![check];
    stage.configure();
    assert!(!stage.stands(3).takes);
}
