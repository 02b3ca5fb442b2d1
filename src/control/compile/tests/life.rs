//! Servers that drain, that are removed and come back, and what is counted for limits meanwhile.

use super::*;
use crate::dataplane::schedule::Load;
use crate::model::{Fate, Limits, Rate};

/// The load of a server that is a member or a ghost.
fn load(compiled: &Compiled, n: u8) -> Arc<Load> {
    let mut all = compiled.snapshot.services[0].all();
    all.find(|m| m.address == IpAddr::from([10, 0, 0, n])).expect("known").load.clone()
}

fn ghosts(compiled: &Compiled) -> Vec<(u8, u32)> {
    ids_of(&compiled.snapshot.services[0].ghosts)
}

#[test]
fn a_removed_server_stays_known_while_flows_of_it_are_left() {
    let mut registry = Registry::default();
    let first = compile(&mut registry, &[(1, 1), (2, 1)]);
    let two = load(&first, 2);
    two.open(true);
    two.open(false);
    for _ in 0..3 {
        let without = compile(&mut registry, &[(1, 1)]);
        assert_eq!((ids(&without), ghosts(&without)), (vec![(1, 0x1_0000)], vec![(2, 0x1_0001)]));
        assert_eq!((without.removed, without.snapshot.fate(0x1_0001)), (vec![], Some(Fate::Reset)));
        assert_eq!(without.snapshot.server(0x1_0001).map(|server| server.reachable), Some(false));
        assert!(!registry.has_idle_ghosts());
    }
    // It comes back: the same one, at the head of the list as every added server.
    let back = compile(&mut registry, &[(1, 1), (2, 5)]);
    assert_eq!((ids(&back), ghosts(&back)), (vec![(2, 0x1_0001), (1, 0x1_0000)], vec![]));
    assert_eq!((back.added, back.snapshot.fate(0x1_0001)), (vec![], None));
    assert_eq!((back.snapshot.services[0].members[0].load.total(), two.total()), (2, 2));
    // Once its flows have ended it is forgotten.
    compile(&mut registry, &[(1, 1)]);
    two.close(true);
    two.close(false);
    assert!(registry.has_idle_ghosts());
    let forgotten = compile(&mut registry, &[(1, 1)]);
    assert_eq!((forgotten.removed.clone(), ghosts(&forgotten)), (vec![0x1_0001], vec![]));
    assert!(forgotten.snapshot.server(0x1_0001).is_none() && !registry.has_idle_ghosts());
    assert_eq!(compile(&mut registry, &[(1, 1), (2, 1)]).added, [0x2_0001], "another one");
}

#[test]
fn the_fate_is_what_the_service_says() {
    let mut registry = Registry::default();
    let mut config = desired(&[(1, 1), (2, 1), (3, 1)]);
    config.services[0].drain_deadline = Some(30);
    config.services[0].servers[2].drain = true;
    let hop = |n: u8| NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, n]) };
    let mut snapshot = |config: &Desired, down: bool, now: u64| {
        let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
        let compiled = registry.compile_at(config, vec![port], Duration::from_secs(now), |_, server| {
            let is_down = down && server.address == IpAddr::from([10, 0, 0, 1]);
            Whereabouts { hop: (!is_down).then_some(hop(9)), ..Whereabouts::default() }
        });
        compiled.expect("compiles").snapshot
    };
    let mut fates = |config: &Desired, down: bool, now: u64| {
        let snapshot = snapshot(config, down, now);
        // A flow of the second one keeps it known.
        if now == 10 {
            snapshot.member(0x1_0001).expect("configured").load.open(false);
        }
        [0x1_0000, 0x1_0001, 0x1_0002].map(|id| (snapshot.fate(id), snapshot.member(id).is_some_and(|m| m.reachable)))
    };
    let (serves, cut_off) = ((None, true), (None, false));
    assert_eq!(fates(&config, false, 10), [serves; 3]);
    // Unreachable, and kept: as without a next hop.
    assert_eq!(fates(&config, true, 39), [cut_off, serves, serves]);
    // The deadline is counted from when the drain began.
    assert_eq!(fates(&config, true, 40), [cut_off, serves, (Some(Fate::Reset), false)]);
    for fate in [Fate::Reschedule, Fate::Reset] {
        config.services[0].fates.down = fate;
        assert_eq!(fates(&config, true, 41)[0], (Some(fate), false));
        assert_eq!(fates(&config, false, 41)[0], serves);
        config.services[0].fates.drained = fate;
        assert_eq!(fates(&config, false, 42)[2], (Some(fate), false));
    }
    config.services[0].fates.drained = Fate::Keep;
    assert_eq!(fates(&config, false, 43)[2], serves, "it goes on to serve what it has");
    config.services[0].servers.remove(1);
    for fate in [Fate::Keep, Fate::Reschedule, Fate::Reset] {
        config.services[0].fates.removed = fate;
        assert_eq!(fates(&config, false, 50)[1], (Some(fate), false));
    }
}

#[test]
fn a_drain_takes_no_new_flows_and_remembers_when_it_began() {
    let mut registry = Registry::default();
    let mut config = desired(&[(1, 1), (2, 7)]);
    let first = at(&mut registry, &config, 5).expect("compiles");
    let two = load(&first, 2);
    (0..4).for_each(|_| two.open(true));
    assert_eq!((registry.drains().len(), registry.next_deadline()), (0, None));
    config.services[0].servers[1].drain = true;
    config.services[0].drain_deadline = Some(60);
    let draining = at(&mut registry, &config, 100).expect("compiles");
    let member = &draining.snapshot.services[0].members[0];
    assert_eq!((member.weight, member.last_weight, member.is_available()), (0, 7, false));
    two.close(true);
    // Reloads in between change nothing about it.
    for now in [110, 120, 159] {
        at(&mut registry, &config, now).expect("compiles");
        let drain = Drain { since: Duration::from_secs(100), flows: 4 };
        assert_eq!(registry.drains().into_iter().collect::<Vec<_>>(), [(0x1_0001, drain)]);
        assert_eq!(registry.next_deadline(), Some(Duration::from_secs(160)));
    }
    let over = at(&mut registry, &config, 160).expect("compiles");
    assert_eq!((over.snapshot.fate(0x1_0001), registry.next_deadline()), (Some(Fate::Reset), None));
    // Another deadline, another time; the end of the drain, and it serves again with its weight.
    config.services[0].drain_deadline = Some(90);
    let later = at(&mut registry, &config, 161).expect("compiles");
    assert_eq!((later.snapshot.fate(0x1_0001), registry.next_deadline()), (None, Some(Duration::from_secs(190))));
    config.services[0].servers[1].drain = false;
    let ended = at(&mut registry, &config, 162).expect("compiles");
    let member = &ended.snapshot.services[0].members[0];
    assert_eq!((member.weight, member.is_available(), registry.drains().len()), (7, true, 0));
    assert_eq!((registry.next_deadline(), member.load.total()), (None, 3));
}

#[test]
fn thresholds_are_judged_anew_when_they_change() {
    let mut registry = Registry::default();
    let mut config = desired(&[(1, 1)]);
    let load = load(&at(&mut registry, &config, 0).expect("compiles"), 1);
    (0..10).for_each(|_| load.open(false));
    let mut overloaded = |upper, lower| {
        (config.services[0].servers[0].upper, config.services[0].servers[0].lower) = (upper, lower);
        at(&mut registry, &config, 0).expect("compiles");
        load.is_overloaded()
    };
    assert!(overloaded(Some(10), None));
    assert!(overloaded(Some(5), None));
    assert!(!overloaded(Some(11), None));
    assert!(overloaded(Some(10), Some(3)));
    assert!(!overloaded(Some(10), Some(11)), "a lower threshold that it is below");
    assert!(overloaded(Some(9), None) && !overloaded(None, None));
}

#[test]
fn what_is_counted_begins_anew_only_where_it_changes() {
    let mut registry = Registry::default();
    let mut config = desired(&[(1, 1), (2, 1)]);
    let mut tally = |config: &Desired| {
        let snapshot = at(&mut registry, config, 0).expect("compiles").snapshot;
        let service = &snapshot.services[0];
        assert!(snapshot.has_tally(service.tally.id));
        (service.tally.id, service.tally_since, snapshot.generation)
    };
    assert_eq!(tally(&config), (1, 1, 1));
    config.services[0].limits.rate = Some(Rate { per_second: 5, burst: 5 });
    assert_eq!(tally(&config), (1, 1, 2), "a rate counts no flows");
    config.services[0].limits.connections = Some(100);
    assert_eq!(tally(&config), (2, 3, 3));
    config.services[0].limits.connections = Some(50);
    assert_eq!(tally(&config), (2, 3, 4), "another number for the same");
    config.services[0].limits.client_prefix_v4 = 24;
    assert_eq!(tally(&config), (2, 3, 5), "of no use yet");
    config.services[0].limits.client_connections = Some(5);
    assert_eq!(tally(&config), (3, 6, 6));
    config.services[0].limits.client_prefix_v4 = 16;
    assert_eq!(tally(&config), (4, 7, 7));
    config.services[0].limits = Limits::NONE;
    assert_eq!(tally(&config), (5, 8, 8));
    assert_eq!(tally(&config), (5, 8, 9));
}

/// More removed servers than there are slots: those that were removed first are forgotten, flows or not.
#[test]
fn the_oldest_removed_servers_give_way() {
    let mut registry = Registry::default();
    let server = |n: u32| Server::dr(IpAddr::from((n + 0x0a00_0000).to_be_bytes()), 1);
    let half = MAX_SERVERS as u32 / 2;
    let mut compile = |first: u32, count: u32| {
        let mut config = desired(&[]);
        config.services[0].servers = (first..first + count).map(server).collect();
        config.services[0].limits.connections = Some(1000);
        let compiled = at(&mut registry, &config, 0).expect("compiles");
        compiled.snapshot.services[0].members.iter().for_each(|member| member.load.open(true));
        let service = &compiled.snapshot.services[0];
        (service.members.len(), service.ghosts.len(), compiled.removed.len(), service.tally.id)
    };
    let half_len = half as usize;
    assert_eq!(compile(0, half), (half_len, 0, 0, 1));
    assert_eq!(compile(half, half), (half_len, half_len, 0, 1));
    // Those of the second come into the place of those of the first, whose flows' counts are lost with them.
    assert_eq!(compile(2 * half, half), (half_len, half_len, half_len, 2));
    assert_eq!(compile(3 * half, 2 * half), (2 * half_len, 0, 2 * half_len, 3));
}
