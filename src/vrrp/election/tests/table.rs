//! Every state of a router and every event: the state afterwards and what was to be done, in this order.

use super::*;

/// A state, how it is brought about, and its name.
fn rig(state: &str) -> Rig {
    let one = || vec![router("VI_1")];
    let mut rig = match state {
        "init" => Rig::new(one()),
        "backup" => Rig::backup(one()),
        "master" => Rig::master(one()),
        "fault" => {
            let mut rig = Rig::backup(one());
            rig.condition("VI_1", 0, Some("script chk failed"));
            rig
        }
        "handover" => {
            let mut rig = Rig::master(one());
            rig.election.stop(rig.now, &mut rig.out);
            rig
        }
        "stopped" => {
            let mut rig = Rig::backup(one());
            rig.election.stop(rig.now, &mut rig.out);
            rig
        }
        _ => panic!("no state {state}"),
    };
    rig.out.clear();
    rig
}

const STATES: [&str; 6] = ["init", "backup", "master", "fault", "handover", "stopped"];

fn event(rig: &mut Rig, event: &str) {
    match event {
        "timer" => rig.run(10 * MS + rig.election.deadline().map_or(5 * SECOND, |due| due.saturating_sub(rig.now))),
        "higher priority" => rig.hear("10.0.0.1", 150),
        "lower priority" => rig.hear("10.0.0.1", 50),
        "same priority, higher address" => rig.hear("10.0.0.3", 100),
        "same priority, lower address" => rig.hear("10.0.0.1", 100),
        "priority 0" => rig.hear("10.0.0.1", 0),
        "owner" => rig.hear("10.0.0.1", 255),
        "refused advert" => {
            let router = rig.routers[0].clone();
            rig.hear_for(&router, "10.0.0.1", 150, |envelope, _| envelope.ttl = 254);
        }
        "fault" => rig.condition("VI_1", 0, Some("interface eth0 is down")),
        "well" => rig.condition("VI_1", 0, None),
        "priority falls" => rig.condition("VI_1", -30, None),
        "no address" => rig.source("VI_1", None),
        "address" => rig.source("VI_1", Some(ip("10.0.0.2"))),
        "claim" => rig.election.claimed("eth0", ip("10.0.0.100"), OTHER_MAC, rig.now, &mut rig.out),
        "same configuration" => rig.configure(),
        "other configuration" => {
            rig.routers[0].addresses.push(virtual_address("10.0.0.101"));
            rig.configure();
        }
        "other number" => {
            rig.routers[0].vrid = 52;
            rig.configure();
        }
        "gone" => {
            rig.routers.clear();
            rig.configure();
        }
        "stop" => rig.election.stop(rig.now, &mut rig.out),
        _ => panic!("no event {event}"),
    }
}

/// For each event, in the order of [`STATES`].
#[rustfmt::skip]
const TABLE: &[(&str, [&str; 6])] = &[
    ("timer", [
        "INIT",
        "MASTER: advert 100, own, announce 5, VI_1 MASTER",
        "MASTER: advert 100",
        "FAULT",
        "STOP: disown",
        "STOP",
    ]),
    ("higher priority", [
        "INIT",
        "BACKUP",
        "BACKUP: disown, VI_1 BACKUP",
        "FAULT",
        "STOP: disown",
        "STOP",
    ]),
    ("lower priority", [
        "INIT",
        "BACKUP",
        "MASTER: advert 100, announce 5",
        "FAULT",
        "STOP: disown",
        "STOP",
    ]),
    ("same priority, higher address", [
        "INIT",
        "BACKUP",
        "BACKUP: disown, VI_1 BACKUP",
        "FAULT",
        "STOP: disown",
        "STOP",
    ]),
    ("same priority, lower address", [
        "INIT",
        "BACKUP",
        "MASTER: advert 100, announce 5",
        "FAULT",
        "STOP: disown",
        "STOP",
    ]),
    ("priority 0", [
        "INIT",
        "BACKUP",
        "MASTER: advert 100",
        "FAULT",
        "STOP",
        "STOP",
    ]),
    ("owner", [
        "INIT",
        "BACKUP",
        "BACKUP: disown, VI_1 BACKUP",
        "FAULT",
        "STOP: disown",
        "STOP",
    ]),
    ("refused advert", [
        "INIT",
        "BACKUP",
        "MASTER",
        "FAULT",
        "STOP",
        "STOP",
    ]),
    ("fault", [
        "FAULT: VI_1 FAULT",
        "FAULT: VI_1 FAULT",
        "FAULT: disown, advert 0, VI_1 FAULT",
        "FAULT",
        "STOP",
        "STOP",
    ]),
    ("well", [
        "INIT",
        "BACKUP",
        "MASTER",
        "BACKUP: VI_1 BACKUP",
        "STOP",
        "STOP",
    ]),
    ("priority falls", [
        "INIT",
        "BACKUP",
        "MASTER",
        "BACKUP: VI_1 BACKUP",
        "STOP",
        "STOP",
    ]),
    ("no address", [
        "FAULT: VI_1 FAULT",
        "FAULT: VI_1 FAULT",
        "FAULT: disown, advert 0, VI_1 FAULT",
        "FAULT",
        "STOP",
        "STOP",
    ]),
    ("address", [
        "INIT",
        "BACKUP",
        "MASTER",
        "FAULT",
        "STOP",
        "STOP",
    ]),
    ("claim", [
        "INIT",
        "BACKUP",
        "MASTER",
        "FAULT",
        "STOP",
        "STOP",
    ]),
    ("same configuration", [
        "INIT",
        "BACKUP",
        "MASTER",
        "FAULT",
        "STOP",
        "STOP",
    ]),
    ("other configuration", [
        "INIT",
        "BACKUP",
        "MASTER: own, announce 5",
        "FAULT",
        "STOP",
        "STOP",
    ]),
    ("other number", [
        "INIT: VI_1 STOP",
        "BACKUP: VI_1 STOP, VI_1 BACKUP",
        "BACKUP: advert 0, disown, VI_1 STOP, VI_1 BACKUP",
        "FAULT: VI_1 STOP, VI_1 FAULT",
        "STOP",
        "STOP",
    ]),
    ("gone", [
        "gone: VI_1 STOP",
        "gone: VI_1 STOP",
        "gone: advert 0, VI_1 STOP",
        "gone: VI_1 STOP",
        "STOP",
        "STOP",
    ]),
    ("stop", [
        "STOP: VI_1 STOP",
        "STOP: VI_1 STOP",
        "STOP: advert 0, VI_1 STOP",
        "STOP: VI_1 STOP",
        "STOP",
        "STOP",
    ]),
];

#[test]
fn every_state_and_every_event() {
    let mut wrong = Vec::new();
    for (name, cells) in TABLE {
        for (state, expected) in STATES.iter().zip(cells) {
            let mut rig = rig(state);
            event(&mut rig, name);
            let after = rig.states().first().cloned().unwrap_or_else(|| "gone".to_owned());
            let got = format!("{after}: {}", rig.done());
            if got.trim_end_matches([' ', ':']) != *expected {
                wrong.push(format!("{state}, {name}: {got}\n    expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(TABLE.len(), 19);
}
