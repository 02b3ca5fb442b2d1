//! Both parts of a worker's flows against a map, and what moves between them.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::state::{STATES, State, timeouts_ms};
use super::super::{Budget, FlowV4, FlowV6, KeyV4, KeyV6, Step};
use super::*;
use crate::model::Timeouts;

fn key(n: u32) -> KeyV4 {
    KeyV4 { addresses: u64::from(n).wrapping_mul(0x1_0000_0001), ports: n ^ 0x5000, protocol: 17 }
}

fn limits() -> [u32; STATES] {
    timeouts_ms(&Timeouts::default())
}

/// The number of a flow's other key.
const OTHER: u32 = 1_000_000;

fn put(flows: &mut Flows<FlowV4>, n: u32, paired: bool, state: State, now: u32, gone: &mut Vec<u32>) -> bool {
    let (k, r) = (key(n), key(n + OTHER));
    let (hash, other) = (flows.hash(&k), flows.hash(&r));
    if paired {
        let keys = [(&k, hash), (&r, other)];
        let each = |g: Gone<FlowV4>| gone.push(g.entry.server());
        return flows.unproven.insert_pair(keys, n, state, now, &limits(), each).is_ok();
    }
    match flows.unproven.insert(&k, hash, n, state, now, &limits()) {
        Ok((_, old)) => {
            gone.extend(old.map(|g| g.entry.server()));
            true
        }
        Err(Full) => false,
    }
}

fn locate(flows: &Flows<FlowV4>, n: u32) -> Option<(Stage, Place)> {
    let k = key(n);
    flows.find(&k, flows.hash(&k))
}

#[test]
fn a_flow_moves_with_everything_that_it_has() {
    for (paired, by_reverse) in [(false, false), (true, false), (true, true)] {
        let mut flows = Flows::<FlowV4>::new(100, 100, Seeds::fixed(), false).expect("memory");
        assert!(put(&mut flows, 7, paired, State::UDP, 1000, &mut Vec::new()));
        let (_, place) = locate(&flows, 7).expect("there");
        let table = &mut flows.unproven;
        let entry = table.entry(place);
        entry.set_flags(entry.flags() | flag::PROXY | flag::LIMITED);
        entry.set_extra(0xdead_beef);
        entry.set_stamp(2000);
        let partner = table.partner(place);
        if let Some(partner) = partner {
            table.entry(partner).set_extra(42);
            table.entry(partner).set_stamp(3000);
        }
        table.set_state(place, State::TCP_ESTABLISHED);
        let by = if by_reverse { partner.expect("a pair") } else { place };
        let now = flows.promote(by, 5000, &limits(), |_| panic!("there is room")).expect("there is room");
        assert_eq!((flows.unproven.len(), flows.proven.len()), (0, if paired { 2 } else { 1 }));
        let (stage, place) = locate(&flows, 7).expect("there");
        let table = &mut flows.proven;
        assert_eq!(stage, Stage::Proven);
        assert_eq!(Some(now), if by_reverse { table.partner(place) } else { Some(place) });
        let entry = *table.entry(place);
        assert_eq!(
            (entry.server(), entry.state(), entry.stamp(), entry.extra(), entry.flags()),
            (7, State::TCP_ESTABLISHED, 2000, 0xdead_beef, flag::PROXY | flag::LIMITED)
        );
        if paired {
            let partner = table.partner(place).expect("a pair");
            assert_eq!(table.partner(partner), Some(place));
            let other = *table.entry(partner);
            assert_eq!((other.stamp(), other.extra(), other.flags()), (3000, 42, flag::REVERSE));
            assert_eq!((other.key(), other.state()), (key(7 + OTHER), State::TCP_ESTABLISHED));
        } else {
            assert_eq!(table.partner(place), None);
        }
    }
}

#[test]
fn what_finds_the_proven_full_stays_and_breaks_nothing() {
    let mut flows = Flows::<FlowV4>::new(16, 64, Seeds::fixed(), false).expect("memory");
    let mut gone = Vec::new();
    // One entry is left for a pair: its first half goes in and comes out again.
    for n in 0..15 {
        assert!(put(&mut flows, n, false, State::TCP_ESTABLISHED, 0, &mut gone));
        let (_, place) = locate(&flows, n).expect("there");
        flows.promote(place, 0, &limits(), |_| panic!("there is room")).expect("there is room");
    }
    assert!(put(&mut flows, 50, true, State::TCP_ESTABLISHED, 0, &mut gone));
    for number in [50, 50 + OTHER] {
        let (_, place) = locate(&flows, number).expect("there");
        assert_eq!(flows.promote(place, 1, &limits(), |_| panic!("nothing gives way")), Err(Full));
        assert_eq!(locate(&flows, number).map(|(stage, _)| stage), Some(Stage::Unproven));
    }
    assert_eq!((flows.proven.len(), flows.unproven.len(), gone.len()), (15, 2, 0));
    // What is about to end gives way for what is proven.
    for n in 0..15 {
        let (_, place) = locate(&flows, n).expect("there");
        flows.proven.set_state(place, State::TCP_FIN_WAIT);
    }
    let (_, place) = locate(&flows, 50).expect("there");
    flows.promote(place, 2, &limits(), |g| gone.push(g.entry.server())).expect("one gives way");
    assert!(gone.len() == 1 && gone[0] < 15, "{gone:?}");
    assert_eq!((flows.proven.len(), flows.unproven.len()), (16, 0));
}

#[test]
fn unproven_flows_never_reach_the_proven_part() {
    let mut flows = Flows::<FlowV4>::new(100, 100, Seeds::fixed(), false).expect("memory");
    let mut gone = Vec::new();
    for n in 0..100 {
        assert!(put(&mut flows, n, false, State::TCP_ESTABLISHED, 0, &mut gone));
        let (_, place) = locate(&flows, n).expect("there");
        flows.promote(place, 0, &limits(), |_| panic!("there is room")).expect("there is room");
    }
    for n in 100..5000 {
        assert!(put(&mut flows, n, n % 3 == 0, State::UDP, n, &mut gone), "the idlest gives way");
    }
    assert!((0..100).all(|n| locate(&flows, n).is_some_and(|(stage, _)| stage == Stage::Proven)));
    assert!(flows.unproven.len() <= 100 && gone.iter().all(|n| *n >= 100));
}

#[derive(Clone, Copy, Debug)]
struct Known {
    paired: bool,
    proven: bool,
    extra: u32,
}

/// Every operation on the parts agrees with a map, in tables small enough to overflow and to be full.
fn as_a_map(operations: Vec<(u8, u32, bool)>) -> Result<(), TestCaseError> {
    let mut flows = Flows::<FlowV4>::new(24, 20, Seeds::fixed(), false).expect("memory");
    let mut map: HashMap<u32, Known> = HashMap::new();
    for (step, (operation, n, choice)) in operations.into_iter().enumerate() {
        let now = step as u32;
        let found = locate(&flows, n);
        prop_assert_eq!(found.map(|(stage, _)| stage == Stage::Proven), map.get(&n).map(|known| known.proven));
        let mut gone = Vec::new();
        match (operation, found) {
            (0 | 1, None) => {
                let state = if choice { State::UDP } else { State::TCP_SYN_RECV };
                if put(&mut flows, n, choice, state, now, &mut gone) {
                    map.insert(n, Known { paired: choice, proven: false, extra: now });
                    let (_, place) = locate(&flows, n).expect("it was put in");
                    flows.unproven.entry(place).set_extra(now);
                }
            }
            (2 | 3, Some((Stage::Unproven, place))) => {
                let known = map.get_mut(&n).expect("known");
                let by = if choice { flows.unproven.partner(place).unwrap_or(place) } else { place };
                flows.unproven.set_state(place, State::TCP_ESTABLISHED);
                match flows.promote(by, now, &limits(), |g| gone.push(g.entry.server())) {
                    Ok(_) => known.proven = true,
                    Err(Full) => prop_assert!(flows.proven.len() + 2 > flows.proven.capacity()),
                }
            }
            (4, Some((stage, place))) => {
                let of = if choice { flows.part(stage).partner(place).unwrap_or(place) } else { place };
                let out = flows.part(stage).remove(of);
                prop_assert_eq!((out.entry.key(), out.reverse.is_some()), (key(n), map[&n].paired));
                map.remove(&n);
            }
            // What is about to end gives way to others.
            (5, Some((Stage::Proven, place))) if choice => flows.proven.set_state(place, State::TCP_TIME_WAIT),
            _ => {}
        }
        for n in gone {
            prop_assert!(map.remove(&n).is_some(), "{} went twice", n);
        }
        let entries = |proven: bool| -> usize {
            map.values().filter(|known| known.proven == proven).map(|known| 1 + usize::from(known.paired)).sum()
        };
        prop_assert_eq!((flows.proven.len(), flows.unproven.len()), (entries(true), entries(false)));
        for (n, known) in &map {
            let (stage, place) = locate(&flows, *n).expect("it is known");
            let table = flows.part(stage);
            prop_assert_eq!((table.entry(place).extra(), table.entry(place).server()), (known.extra, *n));
            let partner = table.partner(place);
            prop_assert_eq!(partner.is_some(), known.paired);
            if let Some(partner) = partner {
                prop_assert_eq!((table.entry(partner).key(), table.partner(partner)), (key(*n + OTHER), Some(place)));
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn behave_as_a_map(operations in proptest::collection::vec((0u8..6, 0u32..40, any::<bool>()), 1..400)) {
        as_a_map(operations)?;
    }

    /// A walk in pieces of any size sees every flow that is there all the time, once, whatever else happens meanwhile; and a
    /// flow that is proven meanwhile, too, if the unproven part is visited first.
    #[test]
    fn visits_in_pieces_miss_nothing_that_stays(
        pieces in proptest::collection::vec((1usize..40, 0u32..60, 0u8..4), 1..200),
    ) {
        let mut flows = Flows::<FlowV4>::new(200, 200, Seeds::fixed(), false).expect("memory");
        let mut gone = Vec::new();
        for n in 0..60 {
            put(&mut flows, n, n % 3 == 0, State::UDP, 0, &mut gone);
        }
        let mut touched = std::collections::HashSet::new();
        let mut seen: HashMap<u32, u32> = HashMap::new();
        let (mut stage, mut at) = (Stage::Unproven, Some(0));
        let mut pieces = pieces.into_iter().cycle();
        while let Some(from) = at {
            let (mut buckets, n, what) = pieces.next().expect("endless");
            let look = |_: usize, entry: &FlowV4, other: Option<&FlowV4>| {
                assert_eq!(entry.server().is_multiple_of(3), other.is_some());
                *seen.entry(entry.server()).or_default() += 1;
                Step::Next
            };
            at = flows.part(stage).visit(from, &mut buckets, |_| true, look, |_| {});
            if at.is_none() && stage == Stage::Unproven {
                (stage, at) = (Stage::Proven, Some(0));
            }
            let place = locate(&flows, n);
            match (what, place) {
                (0, Some((stage, place))) => {
                    touched.insert(n);
                    flows.part(stage).remove(place);
                }
                (1, None) => {
                    touched.insert(n);
                    put(&mut flows, n, n % 3 == 0, State::UDP, 0, &mut gone);
                }
                (2, Some((Stage::Unproven, place))) => {
                    flows.promote(place, 0, &limits(), |_| {}).expect("there is room");
                }
                _ => {}
            }
        }
        prop_assert!(gone.is_empty());
        for n in (0..60).filter(|n| !touched.contains(n)) {
            let times = seen.get(&n).copied().unwrap_or(0);
            prop_assert!(times == 1 || times == 2 && locate(&flows, n).is_some_and(|(s, _)| s == Stage::Proven), "{n}: {times}");
        }
    }
}

#[test]
fn a_sweep_in_pieces_keeps_to_its_budget_and_ends_everything() {
    let mut table = FlowTable::<FlowV6>::new(10_000, Seeds::fixed(), false).expect("memory");
    for n in 0..10_000u32 {
        let k = KeyV6 { source: [1, u64::from(n)], destination: [2, 3], ports: n, protocol: 17 };
        table.insert(&k, table.hash(&k), n, State::UDP, 0, &limits()).expect("room");
    }
    let (mut ended, mut pieces, mut looked) = (0, 0, 0);
    while !table.is_empty() {
        let most = Budget { buckets: 100, flows: 32 };
        let (mut budget, before) = (most, ended);
        table.sweep_some(&mut budget, 400_000, &limits(), |_| false, |_| ended += 1);
        // A bucket is looked at whole: it holds two.
        assert!(ended - before <= 33 && budget.buckets < 100, "{} in one piece", ended - before);
        looked += most.buckets - budget.buckets;
        pieces += 1;
    }
    assert_eq!(ended, 10_000);
    assert!(pieces >= 10_000 / 33 && looked <= table.buckets() + 1, "{pieces} pieces, {looked} buckets");
}
