//! The pool of local ports against a model, and its figures.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const RANGE: PortRange = PortRange { first: 1024, last: 65535 };

#[test]
fn a_million_ports_at_once() {
    for workers in [1, 2, 3, 7] {
        let mut taken = 0;
        let mut bytes = 0;
        for worker in 0..workers {
            let mut pool = PortPool::new(16, RANGE, worker, workers);
            bytes += (pool.free.len() + pool.rest.len()) * 2 + pool.since.len() * 4 + pool.used.len() * 8;
            for slot in 0..16 {
                let mut ports = HashSet::new();
                while let Some(port) = pool.take(slot, 5) {
                    assert!(pool.share(port) && ports.insert(port));
                }
                assert_eq!(ports.len() as u32, pool.capacity(slot));
                assert_eq!(pool.in_use(slot), pool.capacity(slot));
                taken += ports.len();
            }
        }
        assert_eq!(taken, 16 * 64512);
        assert!(taken >= 1_000_000);
        assert!(bytes as f64 / (taken as f64) < 8.13, "{bytes}");
    }
}

#[test]
fn the_longest_unused_is_next_and_rest_is_kept() {
    let range = PortRange { first: 10, last: 13 };
    let mut pool = PortPool::new(1, range, 0, 1);
    let now = u32::MAX - 10;
    assert_eq!([(); 5].map(|()| pool.take(0, now)), [Some(10), Some(11), Some(12), Some(13), None]);
    pool.give(0, 12, now, false);
    pool.give(0, 10, now, true);
    pool.give(0, 13, now, false);
    assert_eq!((pool.take(0, now), pool.take(0, now), pool.take(0, now)), (Some(12), Some(13), None));
    assert_eq!(pool.in_use(0), 3);
    // The clock wraps meanwhile.
    assert_eq!(pool.take(0, now.wrapping_add(REST_MS - 1)), None);
    assert_eq!(pool.take(0, now.wrapping_add(REST_MS)), Some(10));
    pool.reset(0);
    assert_eq!((pool.in_use(0), pool.take(0, 0)), (0, Some(10)));
}

#[test]
fn what_does_not_exist_is_empty() {
    let mut pool = PortPool::new(2, PortRange { first: 7, last: 8 }, 2, 3);
    assert_eq!((pool.capacity(0), pool.take(0, 0), pool.share(7), pool.share(9)), (0, None, false, false));
    assert_eq!((pool.capacity(9), pool.in_use(9), pool.take(9, 0)), (0, 0, None));
    pool.reset(9);
    let mut pool = PortPool::new(1, PortRange { first: 65535, last: 65535 }, 0, 1);
    assert_eq!((pool.take(0, 0), pool.take(0, 0)), (Some(65535), None));
    let mut none = PortPool::new(0, RANGE, 0, 1);
    assert_eq!(none.take(0, 0), None);
}

#[test]
#[cfg_attr(debug_assertions, should_panic = "given back twice")]
fn a_port_given_back_twice_is_noticed() {
    let mut pool = PortPool::new(1, RANGE, 0, 1);
    let port = pool.take(0, 0).expect("a port");
    pool.give(0, port, 0, false);
    pool.give(0, port, 0, false);
    assert_eq!(pool.in_use(0), 0);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    Give { which: usize, rest: bool },
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Take),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, rest)| Step::Give { which, rest }),
        2 => (0u32..20_000).prop_map(Step::Wait),
        1 => (0u32..200_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn no_port_is_given_in_use_or_before_its_rest_is_over(
        steps in steps(),
        start: u32,
        ports in 1u16..12,
        workers in 1u8..4,
        slots in 1u16..3,
    ) {
        let range = PortRange { first: 5000, last: 5000 + ports - 1 };
        let mut pool = PortPool::new(slots.into(), range, 0, workers);
        let mut clock = 0u64;
        let now = |clock: u64| start.wrapping_add(clock as u32);
        let mut used: Vec<(u16, u16)> = Vec::new();
        let mut wakes: HashMap<(u16, u16), u64> = HashMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            let slot = number as u16 % slots;
            match step {
                Step::Take => match pool.take(slot, now(clock)) {
                    Some(port) => {
                        prop_assert!(pool.share(port));
                        prop_assert!(!used.contains(&(slot, port)));
                        prop_assert!(wakes.remove(&(slot, port)).is_none_or(|wake| wake <= clock));
                        used.push((slot, port));
                    }
                    None => {
                        let busy = used.iter().filter(|(at, _)| *at == slot).count();
                        let resting = wakes.iter().filter(|((at, _), wake)| *at == slot && **wake > clock).count();
                        prop_assert_eq!((busy + resting) as u32, pool.capacity(slot));
                    }
                },
                Step::Give { which, rest } if !used.is_empty() => {
                    let (slot, port) = used.swap_remove(which % used.len());
                    pool.give(slot, port, now(clock), rest);
                    if rest {
                        wakes.insert((slot, port), clock + u64::from(REST_MS));
                    }
                }
                Step::Give { .. } => {}
                Step::Wait(ms) => clock += u64::from(ms),
            }
            for slot in 0..slots {
                let busy = used.iter().filter(|(at, _)| *at == slot).count();
                prop_assert_eq!(pool.in_use(slot), busy as u32);
            }
        }
        // Exhaustion heals: when all came back and rested, all can be taken again.
        for (slot, port) in used {
            pool.give(slot, port, now(clock), true);
        }
        clock += u64::from(REST_MS);
        for slot in 0..slots {
            let mut again = HashSet::new();
            while let Some(port) = pool.take(slot, now(clock)) {
                prop_assert!(again.insert(port));
            }
            prop_assert_eq!(again.len() as u32, pool.capacity(slot));
        }
    }

    #[test]
    fn shares_partition_the_range(first: u16, len in 0u16..300, workers in 1u8..=255, probe: u16) {
        let range = PortRange { first, last: first.saturating_add(len) };
        let mut seen = HashSet::new();
        let mut owners = 0;
        for worker in 0..workers {
            let mut pool = PortPool::new(1, range, worker, workers);
            owners += u32::from(pool.share(probe));
            while let Some(port) = pool.take(0, 0) {
                prop_assert!(range.contains(port) && seen.insert(port) && pool.share(port));
            }
        }
        prop_assert_eq!(seen.len(), usize::from(range.last - range.first) + 1);
        prop_assert_eq!(owners, u32::from(range.contains(probe)));
    }
}
