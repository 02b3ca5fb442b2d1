//! How servers stand by their checks, by people and by traffic, and the sorry server.

use super::*;
use crate::dataplane::schedule::Request;
use crate::model::{Fate, MacAddr};

const SERVES: Standing = Standing { weight: 1, takes: true, failed: false, drains: false };
const REMOVED: Standing = Standing { takes: false, failed: true, ..SERVES };

const SORRY: u8 = 99;

fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => 0,
    }
}

/// A snapshot in which every server can be reached, and stands as `stands` says by the last number of its address.
fn compile_with(
    registry: &mut Registry,
    desired: &Desired,
    now: u64,
    stands: impl Fn(u8) -> Option<Standing>,
) -> Snapshot {
    let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
    let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
    let whereabouts = |_: &Service, server: &Server| Whereabouts {
        hop: Some(hop),
        standing: stands(last(server.address)),
        ..Whereabouts::default()
    };
    registry.compile_at(desired, vec![port], Duration::from_secs(now), whereabouts).expect("compiles").snapshot
}

fn with_sorry(servers: &[(u8, u16)]) -> Desired {
    let mut desired = desired(servers);
    desired.services[0].health.sorry = Some(Box::new(Server::dr(IpAddr::from([10, 0, 0, SORRY]), 1)));
    desired
}

/// The last numbers of the servers that new flows get, in turn.
fn sequence(snapshot: &Snapshot, count: usize) -> Vec<u8> {
    let service = &snapshot.services[0];
    let next = |_| {
        let at = service.selector.select(&service.members, &service.state.cursor, &Request::default());
        at.map_or(0, |at| last(service.members[at].address))
    };
    (0..count).map(next).collect()
}

#[test]
fn a_standing_says_weight_new_flows_and_what_becomes_of_the_others() {
    for down in [Fate::Keep, Fate::Reschedule, Fate::Reset] {
        let fate = Some(down).filter(|fate| *fate != Fate::Keep);
        for (stands, weight, takes, fate) in [
            (SERVES, 1, true, None),
            (Standing { weight: 7, ..SERVES }, 7, true, None),
            (Standing { weight: 0, ..SERVES }, 0, true, None),
            // Its flows go on as long as there is a way to it, but it gets no new ones.
            (Standing { takes: false, ..SERVES }, 1, false, None),
            (REMOVED, 1, false, fate),
        ] {
            let mut config = desired(&[(1, 5), (2, 5)]);
            config.services[0].fates.down = down;
            let snapshot = compile_with(&mut Registry::default(), &config, 0, |n| (n == 1).then_some(stands));
            let member = &snapshot.services[0].members[1];
            let way = snapshot.server(member.id).expect("known").reachable;
            let got = (member.weight, member.reachable, snapshot.fate(member.id), way);
            assert_eq!(got, (weight, takes, fate, fate.is_none()), "{stands:?} {down:?}");
            assert_eq!(snapshot.services[0].members[0].weight, 5, "the other is as configured");
        }
    }
}

#[test]
fn an_inhibited_server_keeps_its_share_of_maglev_s_table_and_a_removed_one_does_not() {
    let mut config = desired(&[(1, 3), (2, 3), (3, 3)]);
    config.services[0].scheduler = Scheduler::MH;
    let mut registry = Registry::default();
    let mut last_weights = |stands: Standing| -> Vec<(u32, u32, bool)> {
        let snapshot = compile_with(&mut registry, &config, 0, |n| (n == 2).then_some(stands));
        let of = |m: &Member| (m.weight, m.last_weight, m.reachable);
        snapshot.services[0].members.iter().map(of).collect()
    };
    assert_eq!(last_weights(Standing { weight: 3, ..SERVES })[1], (3, 3, true));
    assert_eq!(last_weights(Standing { weight: 8, ..SERVES })[1], (8, 8, true));
    assert_eq!(last_weights(Standing { weight: 0, ..SERVES })[1], (0, 8, true), "IPVS remembers the last one");
    assert_eq!(last_weights(Standing { weight: 8, ..REMOVED })[1], (8, 8, false));
}

#[test]
fn sequences_go_on_as_with_weights_of_the_file() {
    for scheduler in [Scheduler::RR, Scheduler::WRR] {
        let turns: [&[(u8, u16)]; 5] = [
            &[(1, 4), (2, 2), (3, 1)],
            &[(1, 4), (2, 0), (3, 1)],
            &[(1, 0), (2, 0), (3, 1)],
            &[(1, 4), (2, 6), (3, 1)],
            &[(1, 4), (2, 2), (3, 1)],
        ];
        let (mut by_file, mut by_check) = (Registry::default(), Registry::default());
        let mut fixed = with_sorry(turns[0]);
        fixed.services[0].scheduler = scheduler;
        for (turn, count) in turns.iter().zip([5, 3, 2, 7, 11]) {
            let mut written = desired(turn);
            written.services[0].scheduler = scheduler;
            let wanted = sequence(&compile_with(&mut by_file, &written, 0, |_| None), count);
            let weight = |n: u8| turn.iter().find(|row| row.0 == n).map(|row| u32::from(row.1));
            let stands = |n: u8| weight(n).map(|weight| Standing { weight, ..SERVES });
            let got = sequence(&compile_with(&mut by_check, &fixed, 0, stands), count);
            assert_eq!(got, wanted, "{scheduler:?} {turn:?}");
            assert!(!got.contains(&0) && !got.contains(&SORRY), "{got:?}");
        }
    }
}

#[test]
fn who_drains_by_hand_has_the_deadline_of_the_service() {
    let mut config = desired(&[(1, 5), (2, 5)]);
    config.services[0].drain_deadline = Some(30);
    let mut registry = Registry::default();
    let drains = Standing { weight: 0, drains: true, ..SERVES };
    let id = compile_with(&mut registry, &config, 0, |_| None).services[0].members[1].id;
    compile_with(&mut registry, &config, 10, |n| (n == 1).then_some(drains));
    assert_eq!(registry.next_deadline(), Some(Duration::from_secs(40)));
    assert_eq!(registry.drained().map(|key| last(key.address)).collect::<Vec<_>>(), [1]);
    let over = compile_with(&mut registry, &config, 40, |n| (n == 1).then_some(drains));
    let (member, fate) = (over.member(id).expect("known"), over.fate(id));
    assert_eq!((member.weight, member.last_weight, fate), (0, 5, Some(Fate::Reset)));
    compile_with(&mut registry, &config, 50, |_| None);
    assert_eq!((registry.drained().count(), registry.next_deadline()), (0, None));
}

#[test]
fn the_sorry_server_is_behind_all_others_and_serves_alone() {
    let config = with_sorry(&[(1, 1), (2, 1)]);
    let mut registry = Registry::default();
    for scheduler in ["rr", "wrr", "wlc", "sh", "mh", "maglev", "p2c", "fo"] {
        let mut config = config.clone();
        config.services[0].scheduler = Scheduler { fallback: true, ..Scheduler::named(scheduler) };
        let usual = compile_with(&mut registry, &config, 0, |n| (n == SORRY).then_some(Standing::OUT));
        let members: Vec<u8> = usual.services[0].members.iter().map(|member| last(member.address)).collect();
        assert_eq!(members, [2, 1, SORRY], "{scheduler}");
        assert!(sequence(&usual, 6).iter().all(|n| [1, 2].contains(n)), "{scheduler}");
        let lost = |n: u8| Some(if n == SORRY { SERVES } else { Standing { takes: false, ..SERVES } });
        let lost = compile_with(&mut registry, &config, 0, lost);
        assert_eq!(sequence(&lost, 3), [SORRY; 3], "{scheduler}");
        assert!(usual.services[0].members.iter().zip(&lost.services[0].members).all(|(a, b)| a.id == b.id));
        let found = compile_with(&mut registry, &config, 0, |n| (n == SORRY).then_some(Standing::OUT));
        assert!(sequence(&found, 6).iter().all(|n| [1, 2].contains(n)), "{scheduler}");
        // What has flows of it goes on with it.
        let sorry = found.services[0].members[2].id;
        assert_eq!((found.fate(sorry), found.server(sorry).map(|server| server.reachable)), (None, Some(true)));
    }
    // Without anybody's word it is not needed.
    let usual = compile_with(&mut registry, &config, 0, |_| None);
    assert!(!usual.services[0].members[2].reachable && usual.services[0].members[2].weight == 0);
    let persistent = usual.services[0].members.iter().map(|member| member.real).collect::<HashSet<_>>();
    assert_eq!(persistent.len(), 3, "its clients are told apart from those of others");
    // New servers come before it; a server may become it, and it may go.
    let more = compile_with(&mut registry, &with_sorry(&[(1, 1), (2, 1), (3, 1)]), 0, |_| None);
    let members = |snapshot: &Snapshot| -> Vec<u8> {
        snapshot.services[0].members.iter().map(|member| last(member.address)).collect()
    };
    assert_eq!(members(&more), [3, 2, 1, SORRY]);
    let mut other = desired(&[(1, 1), (2, 1)]);
    other.services[0].health.sorry = Some(Box::new(Server::dr(IpAddr::from([10, 0, 0, 3]), 1)));
    let became = compile_with(&mut registry, &other, 0, |_| None);
    assert_eq!((members(&became), became.services[0].members[2].id), (vec![2, 1, 3], more.services[0].members[0].id));
    assert_eq!(became.services[0].ghosts.len(), 1, "the one before");
    let gone = compile_with(&mut registry, &desired(&[(1, 1), (2, 1), (3, 1)]), 0, |_| None);
    assert_eq!((members(&gone), gone.services[0].members[0].weight), (vec![2, 1, 3], 1), "it stays where it was");
}
