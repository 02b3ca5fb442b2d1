//! Properties of the schedulers. Their sequences are held to the real IPVS in `tests/schedulers.rs`.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

pub(super) fn member(n: u32, weight: u32, port: u16) -> Member {
    Member {
        id: n,
        weight,
        last_weight: weight,
        reachable: true,
        address: Ipv4Addr::from(0x0a00_0014 + n).into(),
        port,
        real: n,
        upper: 0,
        lower: 0,
        load: Arc::default(),
    }
}

fn members(weights: &[u32]) -> Vec<Member> {
    (1u32..).zip(weights).map(|(n, weight)| member(n, *weight, 80)).collect()
}

fn listed(members: &[Member]) -> Vec<Listed> {
    members.iter().map(|m| (m.id, m.weight)).collect()
}

/// The n-th client.
fn client(n: u32) -> Request {
    let port = 1024 + (n % 60_000) as u16;
    Request {
        client: 0x0a01_0000_u32.wrapping_add(n),
        port,
        random: n.wrapping_mul(0x9e37_79b9) | 1,
        ..Request::default()
    }
}

fn all() -> impl Iterator<Item = Scheduler> {
    let flags = [(false, false), (true, false), (false, true), (true, true)];
    SCHEDULERS.iter().flat_map(move |known| {
        let taken = move |(port, fallback): &(bool, bool)| !known.flags.is_empty() || !(*port || *fallback);
        let with = move |(port, fallback)| Scheduler { port, fallback, ..Scheduler::named(known.name) };
        flags.into_iter().filter(taken).map(with)
    })
}

fn fill(member: &Member) {
    member.load.open(true);
    member.load.rejudge(1);
    member.load.close(true);
}

#[test]
fn names_and_flags_are_unambiguous() {
    for (at, known) in SCHEDULERS.iter().enumerate() {
        assert!(SCHEDULERS[..at].iter().all(|other| other.name != known.name), "{} twice", known.name);
        for flag in known.flags {
            assert!(flag.name.strip_prefix(known.name).is_some_and(|rest| rest.starts_with('-')), "{}", flag.name);
            let mut scheduler = Scheduler::named(known.name);
            flag.set(&mut scheduler);
            assert_eq!(flags(scheduler), [flag.name]);
        }
        if let Some(table) = known.table {
            assert!(table.sizes.is_sorted() && table.sizes.contains(&table.default), "{}", known.name);
            let prime = |n: u32| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
            assert!(table.sizes.iter().all(|size| prime(*size)), "{}: a walk must meet every slot", known.name);
        }
    }
}

proptest! {
    /// Whatever the members: nobody of weight 0, at a threshold or out of reach is chosen, and nothing panics; who keeps
    /// nobody away finds a server if there is one.
    #[test]
    fn only_available_servers_are_chosen(
        states in proptest::collection::vec((0u32..5, any::<bool>(), any::<bool>(), 0u32..9, 0u32..9), 0..8),
        seed in any::<u32>(),
    ) {
        let members: Vec<Member> = (1u32..).zip(&states).map(|(n, (weight, reachable, full, active, inactive))| {
            let member = Member { reachable: *reachable, ..member(n, *weight, 80) };
            (0..*active).for_each(|_| member.load.open(true));
            (0..*inactive).for_each(|_| member.load.open(false));
            if *full {
                fill(&member);
            }
            member
        }).collect();
        for scheduler in all() {
            let selector = Selector::new(scheduler, &members);
            let stateless = Selector::stateless(scheduler, &members, &selector);
            let cursor = Cursor::default();
            carry_over(scheduler, &cursor, &[], &listed(&members));
            for n in 0..20 {
                let request = client(seed.wrapping_add(n));
                for selector in [&selector, &stateless] {
                    let at = selector.select(&members, &cursor, &request);
                    prop_assert!(at.is_none_or(|at| members[at].is_available()), "{:?}", scheduler);
                }
                let refuses = ["sh", "mh", "maglev"].contains(&scheduler.name) && !scheduler.fallback
                    || ["dh", "ovf"].contains(&scheduler.name);
                if !refuses && members.iter().any(Member::is_available) {
                    prop_assert!(selector.select(&members, &cursor, &request).is_some(), "{:?}", scheduler);
                }
            }
        }
    }

    /// A stateless choice is the same whatever came before and whatever the time and the dice say.
    #[test]
    fn stateless_choices_depend_on_nothing_else(
        weights in proptest::collection::vec(0u32..20, 1..10),
        clients in proptest::collection::vec(any::<u32>(), 1..20),
    ) {
        let members = members(&weights);
        for scheduler in all() {
            let own = Selector::new(scheduler, &members);
            let stateless = Selector::stateless(scheduler, &members, &own);
            prop_assert_eq!(stateless.is(&own), description(scheduler.name).is_some_and(|known| known.stateless));
            for n in &clients {
                let request = client(*n);
                let first = stateless.select(&members, &Cursor::default(), &request);
                let cursor = Cursor::default();
                cursor.update(|_| (2, 3));
                if let Some(at) = first {
                    members[at].load.open(true);
                }
                let later = Request { now: 77, random: 99, ..request };
                prop_assert_eq!(stateless.select(&members, &cursor, &later), first, "{:?}", scheduler);
                if let Some(at) = first {
                    members[at].load.close(true);
                }
            }
        }
    }

    /// Two appliances: one configuration, servers in any order.
    #[test]
    fn maglev_does_not_depend_on_the_order(
        weights in proptest::collection::vec(0u32..40, 1..20),
        turn in any::<usize>(),
        port in any::<bool>(),
        clients in proptest::collection::vec(any::<u32>(), 1..50),
    ) {
        let scheduler = Scheduler { port, table_size: 1021, ..Scheduler::named("maglev") };
        let ours = members(&weights);
        let mut theirs: Vec<Member> = ours.iter().rev().cloned().collect();
        theirs.rotate_left(turn % ours.len());
        for member in &mut theirs {
            // Another history: other ids, other weights before.
            (member.id, member.last_weight) = (member.id + 1000, 1);
        }
        let (a, b) = (Selector::new(scheduler, &ours), Selector::new(scheduler, &theirs));
        for n in clients {
            let choice = |selector: &Selector, members: &[Member]| {
                let at = selector.select(members, &Cursor::default(), &client(n));
                at.map(|at| members[at].address)
            };
            prop_assert_eq!(choice(&a, &ours), choice(&b, &theirs));
        }
    }

    /// Over one turn of weights, wrr gives each server its weight exactly.
    #[test]
    fn wrr_gives_each_its_share(weights in proptest::collection::vec(0u32..50, 1..8)) {
        let members = members(&weights);
        let selector = Selector::new(Scheduler::WRR, &members);
        let cursor = Cursor::default();
        carry_over(Scheduler::WRR, &cursor, &[], &listed(&members));
        let divisor = weights.iter().fold(0, |g, w| gcd(*w, g)).max(1);
        let mut got = vec![0u32; weights.len()];
        for n in 0..3 * weights.iter().sum::<u32>() / divisor {
            got[selector.select(&members, &cursor, &client(n)).expect("available")] += 1;
        }
        let shares: Vec<u32> = weights.iter().map(|w| 3 * w / divisor).collect();
        prop_assert_eq!(got, shares);
    }
}

/// Members of a round that several workers choose from at the same time, and how often each was chosen.
fn together(scheduler: Scheduler, weights: &[u32], workers: u32, each: u32) -> Vec<u32> {
    let members = members(weights);
    let selector = Selector::new(scheduler, &members);
    let cursor = Cursor::default();
    carry_over(scheduler, &cursor, &[], &listed(&members));
    let got: Vec<AtomicU32> = weights.iter().map(|_| AtomicU32::new(0)).collect();
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (selector, members, cursor, got) = (&selector, &members, &cursor, &got);
            scope.spawn(move || {
                for n in 0..each {
                    let at = selector.select(members, cursor, &client(worker * each + n)).expect("available");
                    members[at].load.open(true);
                    got[at].fetch_add(1, Relaxed);
                }
            });
        }
    });
    got.iter().map(|n| n.load(Relaxed)).collect()
}

#[test]
fn workers_share_one_sequence() {
    assert_eq!(together(Scheduler::RR, &[1, 5, 2], 4, 30_000), [40_000; 3]);
    assert_eq!(together(Scheduler::WRR, &[7, 0, 3, 10, 5], 4, 25_000), [28_000, 0, 12_000, 40_000, 20_000]);
}

#[test]
fn workers_share_the_set_of_lblcr() {
    // All find it empty at the same moment, and all crowd it: it holds each server at most once, and they are used alike.
    let got = together(Scheduler::named("lblcr"), &[4, 4, 4, 4], 4, 5000);
    assert!(got.iter().all(|n| n.abs_diff(5000) < 500), "{got:?}");
}

/// Connections that stay, on servers of these weights: the shares in the end.
fn shares(scheduler: Scheduler, weights: &[u32], active: bool) -> Vec<f64> {
    let members = members(weights);
    let selector = Selector::new(scheduler, &members);
    let mut random = 0x1234_5678_u32;
    for n in 0..40_000 {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let request = Request { random, ..client(n) };
        let at = selector.select(&members, &Cursor::default(), &request).expect("available");
        members[at].load.open(active);
    }
    members.iter().map(|m| f64::from(m.load.total()) / 40_000.0).collect()
}

#[test]
fn random_choices_follow_the_weights() {
    let weights = [1, 2, 3, 10, 0, 24];
    for name in ["twos", "p2c"] {
        for active in [true, false] {
            let got = shares(Scheduler::named(name), &weights, active);
            for (share, weight) in got.iter().zip(weights) {
                let fair = f64::from(weight) / 40.0;
                assert!((share - fair).abs() <= fair * 0.05, "{name}: {got:?}");
            }
        }
    }
}

/// The more loaded of two is never taken: of two servers p2c always sees both, twos three times in four.
#[test]
fn two_choices_avoid_the_loaded_server() {
    let members = members(&[1, 1]);
    (0..10).for_each(|_| members[0].load.open(true));
    for (name, least, most) in [("p2c", 0, 0), ("twos", 2200, 2800)] {
        let selector = Selector::new(Scheduler::named(name), &members);
        let loaded = (0..10_000).filter(|n| selector.select(&members, &Cursor::default(), &client(*n)) == Some(0));
        let loaded = loaded.count();
        assert!((least..=most).contains(&loaded), "{name}: {loaded}");
    }
}

/// Choices of many clients, by address.
fn choices(scheduler: Scheduler, members: &[Member]) -> Vec<Option<std::net::IpAddr>> {
    let selector = Selector::new(scheduler, members);
    let choice = |n| selector.select(members, &Cursor::default(), &client(n)).map(|at| members[at].address);
    (0..20_000).map(choice).collect()
}

#[test]
fn maglev_tables_share_by_weight_and_move_little() {
    for (name, size) in [("mh", 65_521), ("maglev", 65_537)] {
        let scheduler = Scheduler { table_size: size, ..Scheduler::named(name) };
        let slots = |members: &[Member]| match name {
            "mh" => mh::Table::new(members, scheduler).slots().to_vec(),
            _ => maglev::Table::new(members, scheduler).slots().to_vec(),
        };
        let members: Vec<Member> = (1..=10).map(|n| member(n, 1 + n % 3, 80)).collect();
        let before = slots(&members);
        let total: u32 = members.iter().map(|m| m.weight).sum();
        for (at, m) in members.iter().enumerate() {
            let share = before.iter().filter(|s| usize::from(**s) == at).count() as f64 / f64::from(size);
            let fair = f64::from(m.weight) / f64::from(total);
            assert!((share / fair - 1.0).abs() < 0.01, "{name}: server {at}: {share} instead of {fair}");
        }
        for gone in 0..members.len() {
            let mut left = members.clone();
            left.remove(gone);
            let after = slots(&left);
            let kept = |s: u16| members[usize::from(s)].id;
            let stays = |(b, a): &(&u16, &u16)| usize::from(**b) == gone || kept(**b) == left[usize::from(**a)].id;
            let moved = before.iter().zip(&after).filter(|pair| !stays(pair)).count();
            // Slots of servers that stayed but changed hands: what moves needlessly.
            assert!((moved as f64) < 0.03 * f64::from(size), "{name}: server {gone}: {moved} slots moved needlessly");
        }
    }
}

#[test]
fn maglev_weights_are_exact_however_far_apart() {
    let scheduler = Scheduler::named("maglev");
    let members = members(&[65_535, 1, 1000, 3]);
    let table = maglev::Table::new(&members, scheduler);
    let total: u32 = members.iter().map(|m| m.weight).sum();
    for (at, m) in members.iter().enumerate() {
        let share = table.slots().iter().filter(|s| usize::from(**s) == at).count() as f64;
        let fair = f64::from(m.weight) * 65_537.0 / f64::from(total);
        assert!((share - fair).abs() < 2.0, "server {at}: {share} slots instead of {fair}");
    }
}

/// A server that one of two appliances cannot reach: only its own clients go elsewhere there.
#[test]
fn maglev_moves_only_the_clients_of_a_server_out_of_reach() {
    let scheduler = Scheduler::named("maglev");
    let all = members(&[3, 1, 2, 2]);
    let mut without = all.clone();
    without[2].reachable = false;
    let (here, there) = (choices(scheduler, &all), choices(scheduler, &without));
    let mut moved = [0; 4];
    for (here, there) in here.iter().zip(&there) {
        if *here == Some(all[2].address) {
            let to = all.iter().position(|m| Some(m.address) == *there).expect("some server");
            moved[to] += 1;
        } else {
            assert_eq!(here, there);
        }
    }
    // They spread over the others by weight.
    assert!(moved[0] > 2 * moved[1] && moved[3] > moved[1] && moved[2] == 0, "{moved:?}");
}

#[test]
fn maglev_refuses_or_falls_back_at_a_threshold() {
    let members = members(&[1, 1, 1]);
    let plain = Scheduler::named("maglev");
    let before = choices(plain, &members);
    fill(&members[1]);
    let full = Some(members[1].address);
    for (fallback, scheduler) in [(false, plain), (true, Scheduler { fallback: true, ..plain })] {
        for (before, after) in before.iter().zip(choices(scheduler, &members)) {
            match (*before == full, fallback) {
                (false, _) => assert_eq!(*before, after),
                (true, false) => assert_eq!(after, None),
                (true, true) => assert!(after.is_some() && after != full),
            }
        }
    }
}

/// Reference values, computed from docs/adr/0017-schedulers.md by another program.
#[test]
fn maglev_is_what_its_document_says() {
    let scheduler = Scheduler { table_size: 251, ..Scheduler::named("maglev") };
    let members = vec![member(1, 1, 80), member(2, 2, 80), member(3, 3, 8080)];
    let table = maglev::Table::new(&members, scheduler);
    let figure = |at: usize| char::from(b'1' + at as u8);
    let text: String = table.slots().iter().take(60).map(|slot| figure(usize::from(*slot))).collect();
    assert_eq!(text, "323132212333333323232311223233332132323231332323133212232323");
    let selector = Selector::new(scheduler, &members);
    let pick = |n: u8| {
        let request = Request { client: u32::from(Ipv4Addr::new(198, 51, 100, n)), ..Request::default() };
        selector.select(&members, &Cursor::default(), &request)
    };
    let text: String = (0..40).map(|n| pick(n).map_or('-', figure)).collect();
    assert_eq!(text, "3233212122123331323333213332232222331233");
}

#[test]
fn hashing_schedulers_keep_a_clients_server() {
    let members = members(&[3, 1, 2]);
    for name in ["sh", "mh", "maglev"] {
        let selector = Selector::new(Scheduler::named(name), &members);
        let with_port = Selector::new(Scheduler { port: true, ..Scheduler::named(name) }, &members);
        let mut elsewhere = 0;
        for n in 0..1000 {
            let pick = |selector: &Selector, port| {
                selector.select(&members, &Cursor::default(), &Request { port, ..client(n) })
            };
            assert!(pick(&selector, 1).is_some());
            assert_eq!(pick(&selector, 1), pick(&selector, 2), "{name}");
            elsewhere += u32::from(pick(&with_port, 1) != pick(&with_port, 2));
        }
        assert!(elsewhere > 300, "{name}: {elsewhere} of 1000 clients' second ports go elsewhere");
    }
}

#[test]
fn lblc_and_lblcr_forget_what_was_not_used_for_a_day() {
    for name in ["lblc", "lblcr"] {
        let members = members(&[4, 4, 4]);
        let selector = Selector::new(Scheduler::named(name), &members);
        let cursor = Cursor::default();
        let at = |now| selector.select(&members, &cursor, &Request { now, ..client(1) }).expect("available");
        assert_eq!(at(500), 0);
        members[0].load.open(false);
        // Within a day it stays, although others have less.
        assert_eq!(at(500 + cursor::EXPIRATION_MS - 1), 0);
        assert_eq!(at(499 + 2 * cursor::EXPIRATION_MS), 1, "{name}");
    }
}

#[test]
fn lblcr_sets_do_not_survive_another_scheduler() {
    let members = members(&[1, 1]);
    let selector = Selector::new(Scheduler::named("lblcr"), &members);
    let cursor = Cursor::default();
    assert_eq!(selector.select(&members, &cursor, &client(1)), Some(0));
    assert!(cursor.joined(&members[0]).is_some());
    cursor.reset();
    assert!(members.iter().all(|m| cursor.joined(m).is_none()));
    members[0].load.open(true);
    assert_eq!(selector.select(&members, &cursor, &client(1)), Some(1));
}

#[test]
fn round_robin_continues_over_changes() {
    let mut members: Vec<Member> = (1..=4).rev().map(|n| member(n, 1, 80)).collect();
    let cursor = Cursor::default();
    let pick = |members: &[Member]| {
        Selector::new(Scheduler::RR, members).select(members, &cursor, &client(1)).map(|at| members[at].id)
    };
    assert_eq!((pick(&members), pick(&members)), (Some(4), Some(3)));
    // The server chosen last goes: the sequence continues behind its predecessor.
    let old = listed(&members);
    members.retain(|m| m.id != 3);
    carry_over(Scheduler::RR, &cursor, &old, &listed(&members));
    assert_eq!((pick(&members), pick(&members)), (Some(2), Some(1)));
    assert_eq!(pick(&members), Some(4));
}

/// Threads that all want the last place: exactly as many get one as there are, and the threshold is not forgotten.
#[test]
fn an_upper_threshold_is_exact_whoever_opens() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    const UPPER: u32 = 10;
    for _ in 0..200 {
        let (load, opened) = (Load::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (load, opened) = (&load, &opened);
                scope.spawn(move || {
                    for n in 0..8 {
                        if load.try_open((n + thread) % 2 == 0, UPPER) {
                            opened.fetch_add(1, Ordering::Relaxed);
                        }
                        assert!(load.total() <= UPPER);
                    }
                });
            }
        });
        assert_eq!((opened.into_inner(), load.total(), load.is_overloaded()), (10, UPPER, true));
    }
    // Opened and closed at the same time: in the end there is nothing, and it takes flows.
    for _ in 0..200 {
        let load = Load::default();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        if load.try_open(true, 1) {
                            load.shift(false);
                            load.close(false);
                            load.relieve(1, 0);
                        }
                    }
                });
            }
        });
        assert_eq!((load.total(), load.is_overloaded()), (0, false));
    }
}
