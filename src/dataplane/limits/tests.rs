//! Limits alone, over random operations, and under threads that all want the last place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;

const NOBODY_LEFT: fn(u32) -> bool = |_| true;

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second, burst }
}

/// Runs `work` on as many threads as there are numbers, all at once.
fn threads(count: usize, work: impl Fn(usize) + Sync) {
    let gate = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        for number in 0..count {
            let (gate, work) = (&gate, &work);
            scope.spawn(move || {
                gate.wait();
                work(number);
            });
        }
    });
}

#[test]
fn a_gauge_is_exact_whoever_counts() {
    const LIMIT: u32 = 37;
    for _ in 0..50 {
        let gauge = Gauge::default();
        let admitted = AtomicUsize::new(0);
        threads(4, |_| {
            for _ in 0..20 {
                if gauge.try_add(LIMIT) {
                    admitted.fetch_add(1, Relaxed);
                }
                assert!(gauge.get() <= LIMIT);
            }
        });
        assert_eq!((admitted.into_inner(), gauge.get()), (LIMIT as usize, LIMIT), "neither more nor fewer");
        threads(4, |number| (0..LIMIT as usize).filter(|n| n % 4 == number).for_each(|_| gauge.give()));
        assert_eq!(gauge.get(), 0);
        gauge.give();
        assert_eq!(gauge.get(), 0, "what was never counted is not given back");
    }
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let bucket = Bucket::default();
    let ten = rate(10, 3);
    let taken = |now: u32, tries: usize| (0..tries).filter(|_| bucket.take(ten, now)).count();
    assert_eq!(taken(5000, 5), 3, "the burst");
    assert_eq!(taken(5099, 5), 0);
    // A hundredth of a millisecond is rounded up.
    assert_eq!(taken(5101, 5), 1);
    assert_eq!(taken(5301, 5), 2);
    assert_eq!(taken(60_000, 9), 3, "no more than a burst is saved up");
    bucket.give_back(ten);
    assert_eq!(taken(60_000, 9), 1);
    // A worker whose clock is behind finds no more than others do.
    assert_eq!(taken(59_990, 5), 0);
    // The clock wraps, soon or after a long time.
    let bucket = Bucket::default();
    assert!((0..3).all(|_| bucket.take(ten, u32::MAX - 50)) && !bucket.take(ten, u32::MAX - 50));
    assert!(!bucket.take(ten, 20) && bucket.take(ten, 51));
    assert_eq!((0..5).filter(|_| bucket.take(ten, u32::MAX / 2)).count(), 3);
}

#[test]
fn a_bucket_is_exact_whoever_takes() {
    for _ in 0..50 {
        let (bucket, taken) = (Bucket::default(), AtomicUsize::new(0));
        threads(4, |_| {
            let mine = (0..100).filter(|_| bucket.take(rate(1, 123), 7)).count();
            taken.fetch_add(mine, Relaxed);
        });
        assert_eq!(taken.into_inner(), 123);
    }
}

fn address(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + n).to_be_bytes())
}

fn limits(connections: u32) -> ClientLimits {
    ClientLimits { connections: Some(connections), rate: None }
}

#[test]
fn networks_are_what_their_prefix_says() {
    let clients = Clients::new(64, Seeds::fixed());
    let net = |text: &str, prefix| clients.network(1, text.parse().expect("address"), prefix);
    assert_eq!(net("192.0.2.1", 24), net("192.0.2.200", 24));
    assert_ne!(net("192.0.2.1", 24), net("192.0.3.1", 24));
    assert_ne!(net("192.0.2.1", 32), net("192.0.2.2", 32));
    assert_eq!(net("2001:db8:1:2::1", 64), net("2001:db8:1:2:ffff::9", 64));
    assert_ne!(net("2001:db8:1:2::1", 64), net("2001:db8:1:3::1", 64));
    assert_ne!(net("::1", 128), net("0.0.0.1", 32));
    assert_eq!(net("0.0.0.0", 0), net("255.0.0.0", 0));
    assert_ne!(net("192.0.2.1", 32), clients.network(2, "192.0.2.1".parse().expect("address"), 32));
}

#[test]
fn a_network_is_limited_and_gives_back() {
    let clients = Clients::new(64, Seeds::fixed());
    let (one, other) = (clients.network(1, address(1), 32), clients.network(1, address(2), 32));
    let both = ClientLimits { connections: Some(2), rate: Some(rate(1, 3)) };
    assert_eq!(clients.admit(one, both, 0, NOBODY_LEFT), Admission::Admitted);
    assert_eq!(clients.admit(one, both, 0, NOBODY_LEFT), Admission::Admitted);
    assert_eq!(clients.admit(one, both, 0, NOBODY_LEFT), Admission::Connections);
    assert_eq!(clients.admit(other, both, 0, NOBODY_LEFT), Admission::Admitted);
    clients.give(one);
    assert_eq!(clients.admit(one, both, 0, NOBODY_LEFT), Admission::Admitted);
    clients.give(one);
    assert_eq!(clients.admit(one, both, 0, NOBODY_LEFT), Admission::Rate);
    assert_eq!(clients.count(one), 1, "what the rate refuses is not counted");
    clients.give(one);
    clients.give(one);
    assert_eq!((clients.count(one), clients.totals(|_| true)), (0, (1, 1)));
    // A flow that was not made after all.
    assert_eq!(clients.admit(one, both, 1000, NOBODY_LEFT), Admission::Admitted);
    clients.give_up(one, both);
    assert_eq!((clients.count(one), clients.admit(one, both, 1000, NOBODY_LEFT)), (0, Admission::Admitted));
}

#[test]
fn what_is_idle_gives_way_and_what_is_not_does_not() {
    let clients = Clients::new(WAYS, Seeds::fixed());
    let net = |n| clients.network(1, address(n), 32);
    let by_rate = ClientLimits { connections: None, rate: Some(rate(1, 1)) };
    (0..WAYS as u32 - 1)
        .for_each(|n| assert_eq!(clients.admit(net(n), limits(1), 0, NOBODY_LEFT), Admission::Admitted));
    assert_eq!(clients.admit(net(100), by_rate, 0, NOBODY_LEFT), Admission::Admitted);
    // The last entry has no flow, but remembers a rate.
    assert_eq!(clients.admit(net(101), limits(1), 900, NOBODY_LEFT), Admission::NoRoom);
    assert_eq!(clients.admit(net(100), by_rate, 900, NOBODY_LEFT), Admission::Rate);
    assert_eq!(clients.admit(net(101), limits(1), 1001, NOBODY_LEFT), Admission::Admitted);
    assert_eq!(clients.admit(net(100), by_rate, 1001, NOBODY_LEFT), Admission::NoRoom);
    assert_eq!(clients.totals(|_| true), (WAYS as u64, WAYS as u64));
    // Of a tally that is nobody's any more everything gives way.
    let second = clients.network(2, address(1), 32);
    assert_eq!(clients.admit(second, limits(1), 1001, |tally| tally == 2), Admission::Admitted);
    assert_eq!(clients.admit(second, limits(1), 1001, |tally| tally == 2), Admission::Connections);
}

/// Few places, many threads, the same few networks all the time: none ever has more than its limit, none is there twice, and
/// in the end nothing is left.
#[test]
fn never_more_than_the_limit_and_all_is_given_back() {
    const LIMIT: u32 = 3;
    for round in 0..40 {
        let clients = Clients::new(2 * WAYS, Seeds::fixed());
        let held: Vec<AtomicU32> = (0..24).map(|_| AtomicU32::new(0)).collect();
        threads(4, |thread| {
            let mut random = (round * 31 + thread as u32) | 1;
            let mut mine: Vec<u32> = Vec::new();
            for _ in 0..2000 {
                random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                let n = (random >> 16) % 24;
                if random >> 28 < 8 && !mine.is_empty() {
                    let n = mine.swap_remove((random >> 8) as usize % mine.len());
                    held[n as usize].fetch_sub(1, SeqCst);
                    clients.give(clients.network(1, address(n), 32));
                } else if clients.admit(clients.network(1, address(n), 32), limits(LIMIT), 5, NOBODY_LEFT)
                    == Admission::Admitted
                {
                    assert!(held[n as usize].fetch_add(1, SeqCst) < LIMIT, "more than the limit");
                    mine.push(n);
                }
            }
            for n in mine {
                held[n as usize].fetch_sub(1, SeqCst);
                clients.give(clients.network(1, address(n), 32));
            }
        });
        assert_eq!(clients.totals(|_| true), (0, 0));
    }
}

/// All threads bring the same new network at the same moment: it is put in once.
#[test]
fn a_new_network_is_put_in_once() {
    for round in 0..2000 {
        let clients = Clients::new(WAYS, Seeds::fixed());
        // Some entries are taken, and one of them goes at that moment.
        let others = round % WAYS as u32;
        for n in 0..others {
            let network = clients.network(1, address(n), 32);
            assert_eq!(clients.admit(network, limits(9), 0, NOBODY_LEFT), Admission::Admitted);
        }
        let admitted = AtomicUsize::new(0);
        // Where there is not a free entry for each thread, one that is stopped while it puts in the network keeps the others out.
        let crowded = others as usize + 3 > WAYS;
        threads(3, |thread| {
            if thread == 0 && others > 0 {
                clients.give(clients.network(1, address(0), 32));
            }
            for _ in 0..4 {
                let network = clients.network(1, address(1000), 32);
                match clients.admit(network, limits(5), 0, NOBODY_LEFT) {
                    Admission::Admitted => assert!(admitted.fetch_add(1, Relaxed) < 5),
                    Admission::NoRoom if crowded => {}
                    refused => assert_eq!(refused, Admission::Connections),
                }
            }
        });
        let admitted = admitted.into_inner();
        assert!(admitted == 5 || crowded && (1..5).contains(&admitted), "{admitted}");
        let slots = clients
            .slots
            .iter()
            .filter(|slot| is_of(slot.word.load(SeqCst), clients.network(1, address(1000), 32).tag()));
        assert_eq!(slots.count(), 1);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open(u32),
    Close(u32),
    GiveUp(u32),
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u32..12).prop_map(Step::Open),
        (0u32..12).prop_map(Step::Close),
        (0u32..12).prop_map(Step::GiveUp),
        (1u32..2000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Against a plain model, with room for all: the same answers, whatever the order.
    #[test]
    fn a_table_with_room_is_as_a_map(
        steps in proptest::collection::vec(step(), 1..300),
        connections in proptest::option::of(1u32..5),
        by_rate in proptest::option::of((1u32..20, 1u32..5)),
        start: u32,
    ) {
        let rate = by_rate.map(|(per_second, burst)| rate(per_second, burst));
        let limits = ClientLimits { connections, rate };
        let clients = Clients::new(4096, Seeds::fixed());
        let net = |n: u32| clients.network(7, address(n), 32);
        let mut counts: HashMap<u32, u32> = HashMap::new();
        let (mut made, mut now, mut elapsed) = (HashMap::<u32, u64>::new(), start, 0u64);
        for step in steps {
            match step {
                Step::Pass(time) => (now, elapsed) = (now.wrapping_add(time), elapsed + u64::from(time)),
                Step::Close(n) => {
                    if let Some(count) = counts.get_mut(&n).filter(|count| **count > 0) {
                        *count -= 1;
                        clients.give(net(n));
                    }
                }
                Step::GiveUp(n) => {
                    if clients.admit(net(n), limits, now, NOBODY_LEFT) == Admission::Admitted {
                        clients.give_up(net(n), limits);
                    }
                }
                Step::Open(n) => {
                    let count = counts.entry(n).or_default();
                    let full = connections.is_some_and(|most| *count >= most);
                    match clients.admit(net(n), limits, now, NOBODY_LEFT) {
                        Admission::Admitted => {
                            prop_assert!(!full);
                            *count += u32::from(connections.is_some());
                            *made.entry(n).or_default() += 1;
                            if let Some(rate) = rate {
                                let most = u64::from(rate.burst) + elapsed * u64::from(rate.per_second) / 1000 + 1;
                                prop_assert!(made[&n] <= most, "{} in {elapsed} ms", made[&n]);
                            }
                        }
                        Admission::Connections => prop_assert!(full),
                        Admission::Rate => prop_assert!(rate.is_some()),
                        Admission::NoRoom => prop_assert!(false, "there is room"),
                    }
                }
            }
            for n in 0..12 {
                prop_assert_eq!(clients.count(net(n)), counts.get(&n).copied().unwrap_or(0));
            }
        }
    }

    /// A bucket gives no more than it may in any time, and no less after a pause.
    #[test]
    fn a_bucket_keeps_its_word(
        per_second in 1u32..5_000_000,
        burst in 1u32..1000,
        pauses in proptest::collection::vec(0u32..3000, 1..60),
        start: u32,
    ) {
        prop_assume!(u64::from(burst) / u64::from(per_second) < u64::from(MOST_BURST_SECONDS));
        let (rate, bucket) = (rate(per_second, burst), Bucket::default());
        let (mut now, mut elapsed, mut taken) = (start, 0u64, 0u64);
        for pause in pauses {
            now = now.wrapping_add(pause);
            elapsed += u64::from(pause);
            let at_once = (0..burst + 1).filter(|_| bucket.take(rate, now)).count() as u64;
            taken += at_once;
            prop_assert!(at_once <= u64::from(burst));
            prop_assert!(taken <= u64::from(burst) + (elapsed * u64::from(per_second)).div_ceil(1000));
            // A millisecond's worth may be lost to rounding.
            let saved = u64::from(pause.saturating_sub(1)) * u64::from(per_second) / 1000;
            prop_assert!(at_once >= saved.min(u64::from(burst)));
        }
    }
}
