//! Keys that an attacker chose: who knows the code but not the seeds cannot aim at a bucket, and who knew the seeds would
//! still be bounded. Costs are counted in buckets looked at, not in time.

use super::*;
use crate::dataplane::directory::{Directory, Refused};

/// Keys of the attacker.
const KEYS: usize = 100_000;

/// Seeds of other engines: none is the one that the attacker knows.
fn other_seeds() -> impl Iterator<Item = Seeds> {
    let mut state = 0x0123_4567_89ab_cdef_u64;
    std::iter::repeat_with(move || {
        Seeds([0; 4].map(|_: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) | 1
        }))
    })
}

/// Keys that have one and the same hash under the known seeds: one factor of the inner product is 0 for all of them.
fn equal_v4(n: usize) -> KeyV4 {
    KeyV4 { addresses: Seeds::fixed().0[0], ports: n as u32, protocol: 17 }
}

fn equal_v6(n: usize) -> KeyV6 {
    let [a, _, c, _] = Seeds::fixed().0;
    KeyV6 { source: [a, n as u64], destination: [c, 7], ports: 0x5000_1234, protocol: 6 }
}

/// Keys from one network to one service, such as real packets can have, which under the known seeds all have their home in
/// one 256th of a table.
fn crowded_v4() -> Vec<KeyV4> {
    let seeds = Seeds::fixed();
    let all = (0u64..).map(|n| KeyV4 {
        addresses: 0x0a02_0000_0000_0000 | (n & 0xffff) << 32 | 0xc633_6407,
        ports: 0x5000_0000 | (n >> 16) as u32,
        protocol: 6,
    });
    all.filter(|key| FlowV4::hash(key, &seeds) >> 56 == 0x5a).take(KEYS).collect()
}

/// Keys that nobody chose.
fn chance_v4(n: usize) -> KeyV4 {
    let word = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    KeyV4 { addresses: word ^ word >> 29, ports: (word >> 7) as u32, protocol: 6 }
}

fn chance_v6(n: usize) -> KeyV6 {
    let word = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    KeyV6 { source: [word, word.rotate_left(23)], destination: [2, word ^ word >> 31], ports: word as u32, protocol: 6 }
}

/// Buckets looked at for a key, whether it is found or not.
fn probes<E: Entry>(table: &FlowTable<E>, key: &E::Key) -> usize {
    let home = table.home(table.hash(key));
    let mut looked = 0;
    for bucket in home..home + MAX_PROBE {
        let entries = E::entries(&table.buckets[bucket]);
        looked += 1;
        if entries.iter().any(|entry| entry.matches(key)) || entries[0].overflow() == 0 {
            break;
        }
    }
    looked
}

/// Mean and most buckets looked at, for the keys that are in the table and for as many others.
fn cost<E: Entry>(seeds: Seeds, key: &impl Fn(usize) -> E::Key) -> [(f64, usize); 2] {
    let mut table = FlowTable::<E>::new(KEYS, seeds, false).expect("memory");
    let timeouts = timeouts_ms(&Timeouts::default());
    for n in 0..KEYS / 2 {
        let k = key(n);
        let (_, gone) = table.insert(&k, table.hash(&k), 1, State::TCP_ESTABLISHED, 0, &timeouts).expect("room");
        assert!(gone.is_none());
    }
    [0..KEYS / 2, KEYS / 2..KEYS].map(|range| {
        let all: Vec<usize> = range.map(|n| probes(&table, &key(n))).collect();
        (all.iter().sum::<usize>() as f64 / all.len() as f64, all.into_iter().max().unwrap_or(0))
    })
}

fn as_by_chance<E: Entry>(name: &str, attack: impl Fn(usize) -> E::Key, chance: impl Fn(usize) -> E::Key) {
    for seeds in other_seeds().take(8) {
        let (attacked, control) = (cost::<E>(seeds, &attack), cost::<E>(seeds, &chance));
        for ((mean, most), (usual, _)) in attacked.into_iter().zip(control) {
            assert!((mean - usual).abs() < 0.02 && most <= 16, "{name}: {attacked:?} beside {control:?}");
        }
    }
}

#[test]
fn keys_chosen_for_other_seeds_cost_what_any_cost() {
    let seeds = Seeds::fixed();
    let crowded = crowded_v4();
    // They are what they claim to be.
    let one = FlowV4::hash(&equal_v4(0), &seeds);
    assert!((0..KEYS).all(|n| FlowV4::hash(&equal_v4(n), &seeds) == one));
    let one = FlowV6::hash(&equal_v6(0), &seeds);
    assert!((0..KEYS).all(|n| FlowV6::hash(&equal_v6(n), &seeds) == one));
    as_by_chance::<FlowV4>("equal, IPv4", equal_v4, chance_v4);
    as_by_chance::<FlowV4>("crowded, IPv4", |n| crowded[n], chance_v4);
    as_by_chance::<FlowV6>("equal, IPv6", equal_v6, chance_v6);
}

#[test]
fn seeds_are_not_the_same_twice() {
    let seeds: std::collections::HashSet<u64> = (0..100).flat_map(|_| Seeds::random().0).collect();
    assert_eq!(seeds.len(), 400);
}

/// Under seeds that the attacker does know: what a table takes of such keys, and what they cost it and everybody else.
fn worst<E: Entry>(attack: impl Fn(usize) -> E::Key, chance: impl Fn(usize) -> E::Key) {
    let mut table = FlowTable::<E>::new(KEYS, Seeds::fixed(), false).expect("memory");
    let timeouts = timeouts_ms(&Timeouts::default());
    let mut taken = 0;
    for n in 0..KEYS / 2 {
        let k = attack(n);
        taken += usize::from(table.insert(&k, table.hash(&k), 1, State::TCP_ESTABLISHED, 0, &timeouts).is_ok());
    }
    // All have one home: no more than lie within reach of it.
    assert_eq!(taken, WAYS * MAX_PROBE);
    for n in 0..KEYS / 4 {
        let k = chance(n);
        let _ = table.insert(&k, table.hash(&k), 2, State::TCP_ESTABLISHED, 0, &timeouts);
    }
    // Each of the attacker's own lookups costs at most MAX_PROBE buckets ...
    let most = (0..KEYS).map(|n| probes(&table, &attack(n))).max();
    assert!(most.is_some_and(|most| most > MAX_PROBE / 2 && most <= MAX_PROBE), "{most:?}");
    // ... and of everybody else's a share as large as that of the buckets that are taken up, so that the mean hardly moves.
    let all: Vec<usize> = (0..KEYS / 2).map(|n| probes(&table, &chance(n))).collect();
    let slow = all.iter().filter(|probes| **probes > 16).count() as f64 / all.len() as f64;
    let reach = 2.0 * MAX_PROBE as f64 / table.buckets() as f64;
    assert!(slow < reach && all.iter().all(|probes| *probes <= MAX_PROBE), "{slow} of {reach}");
    assert!(all.iter().sum::<usize>() as f64 / (all.len() as f64) < 1.2 + reach * MAX_PROBE as f64);
    // What was put in is found, and only that.
    let found = (0..KEYS / 2).filter(|n| table.find(&attack(*n), table.hash(&attack(*n))).is_some()).count();
    assert_eq!(found, taken);
}

#[test]
fn a_successful_attack_is_bounded() {
    worst::<FlowV4>(equal_v4, chance_v4);
    worst::<FlowV6>(equal_v6, chance_v6);
}

/// Homes that lie side by side push each other's entries out of their places: a chain of buckets without end, if a walk had
/// none of its own.
#[test]
fn a_chain_of_crowded_homes_is_no_longer_than_one() {
    let mut table = FlowTable::<FlowV4>::new(2000, Seeds::fixed(), false).expect("memory");
    let timeouts = timeouts_ms(&Timeouts::default());
    // Every home from the first on gets three entries for its two places, until the table is full.
    let mut wanted = vec![3; 600];
    for n in 0.. {
        let k = key(n);
        let home = table.home(table.hash(&k));
        if let Some(left) = wanted.get_mut(home).filter(|left| **left > 0) {
            *left -= 1;
            let _ = table.insert(&k, table.hash(&k), n, State::TCP_ESTABLISHED, 0, &timeouts);
        } else if wanted.iter().all(|left| *left == 0) {
            break;
        }
    }
    let most = (0..200_000).map(|n| probes(&table, &key(n))).max();
    assert_eq!(most, Some(MAX_PROBE), "the chain is longer than a walk may be");
    // A key that is not there ends its walk, too.
    assert!((1_000_000..1_050_000).all(|n| table.find(&key(n), table.hash(&key(n))).is_none()));
}

/// Of a key the directory looks at two buckets, whatever anybody chose; by chance all find room in them.
#[test]
fn the_directory_takes_chosen_keys_as_any() {
    let crowded = crowded_v4();
    for seeds in other_seeds().take(8) {
        let directory = Directory::new(KEYS);
        for key in &crowded {
            assert_eq!(directory.insert(FlowV4::hash(key, &seeds), 3), Ok(()));
        }
        for key in &crowded {
            assert_eq!(directory.find(FlowV4::hash(key, &seeds)), Some(3));
        }
        let directory = Directory::new(KEYS);
        for n in 0..KEYS {
            assert_eq!(directory.insert(FlowV6::hash(&equal_v6(n), &seeds), 3), Ok(()));
        }
        assert_eq!(directory.len(), KEYS);
    }
    // Who knew the seeds fills the two buckets of a key, and no more: the rest is refused, and others find room.
    let directory = Directory::new(KEYS);
    let aimed = |n: u64| 0x5a5a_5a5a_0000_0000 | n << 8;
    let full = (1..2000).filter(|n| directory.insert(aimed(*n), 3) == Err(Refused::Full)).count();
    assert!(full > 0 && directory.len() < 2000);
    for n in 0..KEYS / 2 {
        let hash = FlowV4::hash(&chance_v4(n), &Seeds::fixed());
        assert_eq!(directory.insert(hash, 4), Ok(()), "{n}");
    }
}
