//! The flow table against a plain map, and its limits.

mod collisions;

use std::collections::HashMap;

use proptest::prelude::*;

use super::state::{State, timeouts_ms};
use super::*;
use crate::model::Timeouts;

fn key(n: u32) -> KeyV4 {
    KeyV4 { addresses: u64::from(n).wrapping_mul(0x1_0000_0001), ports: n ^ 0x5000, protocol: 6 }
}

fn key6(n: u32) -> KeyV6 {
    KeyV6 { source: [1, u64::from(n)], destination: [2, 3], ports: n, protocol: 17 }
}

fn put(table: &mut FlowTable<FlowV4>, n: u32, state: State, now: u32) -> Result<(Place, Option<Gone<FlowV4>>), Full> {
    let (k, timeouts) = (key(n), timeouts_ms(&Timeouts::default()));
    table.insert(&k, table.hash(&k), n, state, now, &timeouts)
}

fn get(table: &mut FlowTable<FlowV4>, n: u32) -> Option<u32> {
    let k = key(n);
    let place = table.find(&k, table.hash(&k))?;
    Some(table.entry(place).server())
}

#[test]
fn memory_for_a_flow_is_bounded() {
    for capacity in [100_000, 1_000_000] {
        let v4 = FlowTable::<FlowV4>::new(capacity, Seeds::fixed(), false).expect("memory");
        let v6 = FlowTable::<FlowV6>::new(capacity, Seeds::fixed(), false).expect("memory");
        let (v4, v6) = (v4.bytes() as f64 / capacity as f64, v6.bytes() as f64 / capacity as f64);
        assert!(v4 <= 64.0, "IPv4: {v4} bytes a flow");
        assert!(v6 <= 96.0, "IPv6: {v6} bytes a flow");
    }
}

#[test]
fn takes_its_whole_capacity_and_no_more() {
    let mut table = FlowTable::<FlowV4>::new(100_000, Seeds::random(), false).expect("memory");
    for n in 0..100_000 {
        assert_eq!(put(&mut table, n, State::TCP_ESTABLISHED, 0).map(|(_, gone)| gone.is_none()), Ok(true));
    }
    assert_eq!(table.len(), 100_000);
    assert_eq!(put(&mut table, 100_000, State::TCP_ESTABLISHED, 1).map(|_| ()), Err(Full));
    for n in 0..100_000 {
        assert_eq!(get(&mut table, n), Some(n));
    }
    assert_eq!(get(&mut table, 100_000), None);
}

#[test]
fn six_takes_its_whole_capacity() {
    let mut table = FlowTable::<FlowV6>::new(50_000, Seeds::random(), false).expect("memory");
    let timeouts = timeouts_ms(&Timeouts::default());
    for n in 0..50_000 {
        let k = key6(n);
        table.insert(&k, table.hash(&k), n, State::UDP, 0, &timeouts).expect("room");
    }
    for n in 0..50_000 {
        let k = key6(n);
        let place = table.find(&k, table.hash(&k)).expect("found");
        assert_eq!(table.entry(place).server(), n);
    }
}

#[test]
fn a_full_table_gives_up_what_nobody_uses_and_never_the_established() {
    let mut table = FlowTable::<FlowV4>::new(1000, Seeds::fixed(), false).expect("memory");
    for n in 0..500 {
        put(&mut table, n, State::TCP_ESTABLISHED, 0).expect("room");
    }
    for n in 500..1000 {
        put(&mut table, n, State::TCP_SYN_RECV, 0).expect("room");
    }
    for n in 1000..1400 {
        let (_, gone) = put(&mut table, n, State::TCP_SYN_RECV, 5).expect("a half-open flow gives way");
        assert_eq!(gone.expect("one went").entry.state(), State::TCP_SYN_RECV);
    }
    assert_eq!(table.len(), 1000);
    for n in 0..500 {
        assert_eq!(get(&mut table, n), Some(n));
    }
}

#[test]
fn sweep_ends_what_is_idle_and_nothing_else() {
    let mut table = FlowTable::<FlowV4>::new(1000, Seeds::fixed(), false).expect("memory");
    let timeouts = timeouts_ms(&Timeouts::default());
    put(&mut table, 1, State::TCP_SYN_RECV, 1_000).expect("room");
    put(&mut table, 2, State::TCP_ESTABLISHED, 1_000).expect("room");
    let mut gone = Vec::new();
    table.sweep(usize::MAX / 2, 61_000, &timeouts, |g| gone.push(g.entry.server()));
    assert!(gone.is_empty());
    table.sweep(usize::MAX / 2, 61_001 + STAMP_MS, &timeouts, |g| gone.push(g.entry.server()));
    assert_eq!(gone, [1]);
    assert_eq!((get(&mut table, 1), get(&mut table, 2), table.len()), (None, Some(2), 1));
}

#[test]
fn time_wraps_without_harm() {
    let mut table = FlowTable::<FlowV4>::new(100, Seeds::fixed(), false).expect("memory");
    let timeouts = timeouts_ms(&Timeouts::default());
    let before = u32::MAX - 500;
    put(&mut table, 7, State::TCP_SYN_RECV, before).expect("room");
    let mut gone = 0;
    table.sweep(1 << 20, before.wrapping_add(59_000), &timeouts, |_| gone += 1);
    assert_eq!(gone, 0);
    table.sweep(1 << 20, before.wrapping_add(61_000), &timeouts, |_| gone += 1);
    assert_eq!(gone, 1);
}

proptest! {
    /// Inserts, lookups, removals and sweeps agree with a map at every step, in a table small enough to overflow.
    #[test]
    fn behaves_as_a_map(operations in proptest::collection::vec((0u8..4, 0u32..96), 1..600)) {
        let mut table = FlowTable::<FlowV4>::new(64, Seeds::fixed(), false).expect("memory");
        let timeouts = timeouts_ms(&Timeouts::default());
        let mut map: HashMap<u32, u32> = HashMap::new();
        let mut now = 0u32;
        for (operation, n) in operations {
            let k = key(n);
            let hash = table.hash(&k);
            let found = table.find(&k, hash);
            prop_assert_eq!(found.map(|p| table.entry(p).server()), map.contains_key(&n).then_some(n));
            match operation {
                0 | 1 => if found.is_none() {
                    match table.insert(&k, hash, n, State::TCP_ESTABLISHED, now, &timeouts) {
                        Ok((_, gone)) => {
                            if let Some(gone) = gone { map.remove(&gone.entry.server()); }
                            map.insert(n, now);
                        }
                        Err(Full) => prop_assert!(map.len() >= 40, "full at {}", map.len()),
                    }
                },
                2 => if let Some(place) = found {
                    prop_assert_eq!(table.remove(place).entry.server(), n);
                    map.remove(&n);
                },
                _ => {
                    now += 40_000;
                    table.sweep(1 << 20, now, &timeouts, |gone| {
                        let stamp = map.remove(&gone.entry.server()).expect("only live flows go");
                        assert!(now - stamp > 900_000);
                    });
                }
            }
            prop_assert_eq!(table.len(), map.len());
        }
        let mut listed = Vec::new();
        table.for_each(|e| listed.push(e.server()));
        listed.sort_unstable();
        let mut expected: Vec<_> = map.keys().copied().collect();
        expected.sort_unstable();
        prop_assert_eq!(listed, expected);
    }
}

/// Clients differ in few bits: consecutive ports of a few addresses. Whatever the seeds, they must spread like chance.
#[test]
fn consecutive_clients_spread_under_any_seeds() {
    fn longest<E: Entry>(key: impl Fn(u32) -> E::Key) -> u32 {
        let table = FlowTable::<E>::new(20_000, Seeds::random(), false).expect("memory");
        let mut homes = vec![0u32; table.buckets()];
        for n in 0..20_000 {
            homes[table.home(table.hash(&key(n)))] += 1;
        }
        homes.into_iter().max().unwrap_or(0)
    }
    for _ in 0..200 {
        let v4 = longest::<FlowV4>(|n| KeyV4 {
            addresses: 0x0a02_0000_c633_6407 + u64::from(n / 5000),
            ports: (n % 5000) << 8 | 0x5000_0000,
            protocol: 17,
        });
        let v6 = longest::<FlowV6>(|n| KeyV6 {
            source: [1, u64::from(n / 5000)],
            destination: [2, 3],
            ports: 1024 + n % 5000,
            protocol: 17,
        });
        // A bucket gets 1.1 (IPv4) or 1.4 (IPv6) of these on average. By chance one in 10,000 tables has a bucket with
        // 13 of them, and each one more is about ten times rarer: 20 is never seen.
        assert!(v4 < 20 && v6 < 20, "{v4} {v6}");
    }
}

fn pair(table: &mut FlowTable<FlowV4>, n: u32, now: u32) -> Result<[Place; 2], Full> {
    let (k, r, timeouts) = (key(n), key(n + 1_000_000), timeouts_ms(&Timeouts::default()));
    let keys = [(&k, table.hash(&k)), (&r, table.hash(&r))];
    table.insert_pair(keys, n, State::TCP_SYN_RECV, now, &timeouts, |_| {})
}

#[test]
fn a_pair_shares_its_state_and_its_life() {
    let mut table = FlowTable::<FlowV4>::new(1000, Seeds::fixed(), false).expect("memory");
    let timeouts = timeouts_ms(&Timeouts::default());
    let [first, second] = pair(&mut table, 7, 0).expect("room");
    assert_eq!((table.partner(first), table.partner(second)), (Some(second), Some(first)));
    assert_eq!((table.entry(first).flags(), table.entry(second).flags()), (0, flag::REVERSE));
    table.set_state(second, State::TCP_ESTABLISHED);
    assert_eq!(table.entry(first).state(), State::TCP_ESTABLISHED);
    // Packets of one direction keep both alive.
    table.entry(second).set_stamp(800_000);
    assert!(!table.expired(first, 1_000_000, &timeouts));
    table.sweep(1 << 20, 1_600_000, &timeouts, |_| panic!("still alive"));
    let mut gone = Vec::new();
    table.sweep(1 << 20, 1_801_000, &timeouts, |g| gone.push(g));
    assert_eq!((gone.len(), table.len()), (1, 0));
    let reverse = gone[0].reverse.expect("both went");
    assert_eq!((gone[0].entry.key(), reverse.0.key()), (key(7), key(1_000_007)));
    assert_eq!((gone[0].hash, reverse.1), (table.hash(&key(7)), table.hash(&key(1_000_007))));
}

#[test]
fn a_pair_never_evicts_its_own_half() {
    // Pairs that may give way push each other out, always whole.
    let mut table = FlowTable::<FlowV4>::new(300, Seeds::fixed(), false).expect("memory");
    for n in 0..3000 {
        let [first, second] = pair(&mut table, n, n).expect("something gives way");
        assert_eq!(table.entry(first).key(), key(n));
        assert_eq!(table.entry(second).key(), key(n + 1_000_000));
        let mut entries = 0;
        let mut halves = Vec::new();
        table.for_each(|e| {
            entries += 1;
            halves.push((e.server(), e.flags()));
        });
        assert_eq!(entries, table.len());
        assert!(halves.iter().all(|(server, flags)| halves.contains(&(*server, flags ^ flag::REVERSE))), "{halves:?}");
    }
}
