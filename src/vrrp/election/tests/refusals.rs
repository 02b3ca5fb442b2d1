//! Adverts that are right in themselves, and not for this router, or not from whom they should be.

use super::*;

fn unicast(ttl: Option<(u8, u8)>) -> VirtualRouter {
    VirtualRouter { unicast: Some(Unicast { peers: vec![ip("10.0.0.1")], ttl }), ..router("VI_1") }
}

fn v2(password: Option<&[u8; 8]>) -> VirtualRouter {
    VirtualRouter { version: VrrpVersion::V2, password: password.copied(), ..router("VI_1") }
}

type Change = fn(&mut Envelope, &mut Advert);

/// A router, what is changed in a good advert for it, and how that is refused; `true`: counted for the router.
fn rows() -> Vec<(VirtualRouter, Change, &'static str, bool)> {
    let secret = Some(b"s3cret12");
    vec![
        (router("VI_1"), |from, _| from.ttl = 254, "ttl", true),
        (router("VI_1"), |_, advert| advert.vrid = 52, "unknown-vrid", false),
        (router("VI_1"), |_, advert| advert.version = VrrpVersion::V2, "version", true),
        (v2(None), |_, advert| advert.version = VrrpVersion::V3, "version", true),
        (router("VI_1"), |from, _| (from.source, from.mac) = (ip("10.0.0.2"), MAC), "own-source", true),
        (router("VI_1"), |from, _| from.source = ip("10.0.0.2"), "same-source", true),
        (router("VI_1"), |from, _| from.destination = ip("10.0.0.2"), "destination", true),
        (unicast(None), |from, _| from.destination = packet::GROUP_V4.into(), "destination", true),
        (unicast(None), |from, _| from.source = ip("10.0.0.9"), "not-a-peer", true),
        (unicast(Some((254, 255))), |from, _| from.ttl = 253, "ttl", true),
        (v2(secret), |_, advert| advert.password = Some(*b"s3cret13"), "wrong-password", true),
        (v2(secret), |_, advert| (advert.password, advert.auth_type) = (None, 0), "auth-type", true),
        (v2(None), |_, advert| (advert.password, advert.auth_type) = (Some(*b"s3cret12"), 1), "auth-type", true),
        (v2(None), |_, advert| advert.auth_type = 2, "auth-type", true),
        (v2(None), |_, advert| advert.interval = 2 * SECOND, "interval", true),
        (
            router("VI_1"),
            |from, advert| {
                (from.source, from.destination) = (ip("fe80::1"), packet::GROUP_V6.into());
                advert.addresses = vec![ip("fe80::100")];
            },
            "other-family",
            false,
        ),
    ]
}

#[test]
fn each_is_counted_by_its_reason_and_changes_nothing() {
    for state in ["BACKUP", "MASTER"] {
        for (router, change, reason, counted) in rows() {
            let mut rig =
                if state == "BACKUP" { Rig::backup(vec![router.clone()]) } else { Rig::master(vec![router.clone()]) };
            rig.run(500 * MS);
            rig.out.clear();
            let due = rig.election.deadline();
            for _ in 0..100 {
                rig.hear_for(&router, "10.0.0.1", 200, change);
            }
            assert_eq!((rig.states(), rig.election.deadline()), (vec![state.to_owned()], due), "{reason}");
            let status = rig.status();
            let counts = if counted { status.adverts.refused } else { rig.election.refused() };
            assert_eq!(counts, BTreeMap::from([(reason.to_owned(), 100)]), "{reason}");
            assert_eq!(status.adverts.received, 0);
            let lines = rig.lines();
            assert_eq!(lines.len(), usize::from(counted), "said once, if it is about us: {lines:?}");
            if counted {
                let expected = if reason == "own-source" { "(02:00:00:00:00:01)" } else { "(02:00:00:00:00:02)" };
                assert!(lines[0].starts_with("(VI_1) ") && lines[0].ends_with(expected), "{lines:?}");
            }
        }
    }
}

#[test]
fn keepalived_has_words_for_some() {
    let expect = [
        ("ttl", "(VI_1) invalid TTL/HL. Received 254 and expect 255"),
        ("wrong-password", "(VI_1) received an invalid passwd!"),
        ("interval", "(VI_1) advertisement interval mismatch mine=1 sec rcv'd=2 sec"),
        ("destination", "(VI_1) Expected multicast packet but received unicast packet"),
    ];
    for (reason, words) in expect {
        let (router, change, ..) = rows().into_iter().find(|row| row.2 == reason).expect("row");
        let mut rig = Rig::backup(vec![router.clone()]);
        rig.hear_for(&router, "10.0.0.1", 200, change);
        let lines = rig.lines();
        assert!(lines[0].starts_with(words), "{lines:?}");
    }
}

#[test]
fn malformed_ones_count_for_the_router_whose_number_they_have() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    let (envelope, advert) = heard(&rig.routers[0], "10.0.0.1", 200);
    let good = packet::build(&advert, envelope.source, envelope.destination);
    let mut bad = good.clone();
    bad[7] ^= 1;
    for message in [&bad[..], &good[..9], &[good.clone(), vec![0]].concat()] {
        rig.receive(&envelope, message);
    }
    rig.receive(&envelope, &[]);
    let counts: Vec<(String, u64)> = rig.status().adverts.refused.into_iter().collect();
    let expected = [("bad-checksum", 1), ("long", 1), ("short", 1)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(counts, expected);
    assert_eq!(rig.election.refused(), BTreeMap::from([("short".to_owned(), 1)]));
    assert_eq!(rig.states(), ["MASTER"]);
}

#[test]
fn another_interface_has_its_own_numbers() {
    let mut rig = Rig::master(vec![router("VI_1")]);
    let (envelope, advert) = heard(&rig.routers[0], "10.0.0.1", 200);
    let message = packet::build(&advert, envelope.source, envelope.destination);
    rig.election.receive("eth1", &envelope, &message, rig.now, &mut rig.out);
    assert_eq!((rig.done().as_str(), rig.election.refused()), ("", BTreeMap::from([("unknown-vrid".to_owned(), 1)])));
}

#[test]
fn one_number_may_be_used_for_both_families() {
    let six = VirtualRouter { addresses: vec![virtual_address("fe80::100")], ..router("VI_6") };
    let mut rig = Rig::master(vec![router("VI_1"), six.clone()]);
    rig.hear_for(&six, "fe80::1", 200, |_, _| {});
    assert_eq!(rig.states(), ["MASTER", "BACKUP"]);
    rig.hear("10.0.0.1", 200);
    assert_eq!(rig.states(), ["BACKUP", "BACKUP"]);
}

#[test]
fn a_replayed_advert_does_no_more_than_a_fresh_one() {
    // Nothing in the protocol tells the two apart; what matters is that a replay never makes a backup master, never makes two
    // masters, and that a master answers an old advert of lower priority as it answers a new one.
    let mut fresh = Rig::backup(vec![router("VI_1")]);
    let mut replayed = Rig::backup(vec![router("VI_1")]);
    for rig in [&mut fresh, &mut replayed] {
        rig.hear("10.0.0.1", 150);
        rig.run(SECOND);
    }
    fresh.hear("10.0.0.1", 150);
    for _ in 0..50 {
        replayed.hear("10.0.0.1", 150);
    }
    assert_eq!((fresh.election.deadline(), fresh.states()), (replayed.election.deadline(), replayed.states()));
    assert_eq!(fresh.done(), replayed.done());
}

#[test]
fn the_virtual_mac_is_ours_too() {
    let routers = vec![VirtualRouter { virtual_mac: true, ..router("VI_1") }];
    let mut rig = Rig::master(routers);
    let router = rig.routers[0].clone();
    rig.hear_for(&router, "10.0.0.2", 200, |from, _| from.mac = MacAddr([0, 0, 0x5e, 0, 1, 51]));
    assert_eq!(rig.status().adverts.refused, BTreeMap::from([("own-source".to_owned(), 1)]));
}
