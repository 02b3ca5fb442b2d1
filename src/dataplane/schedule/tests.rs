//! Sequences recorded from the real IPVS, and the properties of Maglev.

use std::net::Ipv4Addr;

use super::*;
const MH: Scheduler = Scheduler::MH;

fn member(n: u32, weight: u32, port: u16) -> Member {
    Member {
        id: n,
        weight,
        last_weight: weight,
        reachable: true,
        address: Ipv4Addr::new(10, 0, 0, 20 + n as u8).into(),
        port,
        real: n,
        upper: 0,
        lower: 0,
        load: Arc::default(),
    }
}

/// Servers 1, 2, 3 in the order of adding, so in IPVS's order the last comes first.
fn service(scheduler: Scheduler, weights: &[u32], port: u16) -> (Vec<Member>, Cursor) {
    let members: Vec<Member> = weights.iter().enumerate().rev().map(|(n, w)| member(n as u32 + 1, *w, port)).collect();
    let cursor = Cursor::default();
    carry_over(scheduler, &cursor, &[], &listed(&members));
    (members, cursor)
}

fn listed(members: &[Member]) -> Vec<Listed> {
    members.iter().map(|m| (m.id, m.weight)).collect()
}

fn client(address: [u8; 4], port: u16) -> Request {
    Request { client: u32::from(Ipv4Addr::from(address)), port, ..Request::default() }
}

/// Sixty connections from 10.0.0.10 that stay open, as `golden/sched` recorded them.
fn sequence(scheduler: Scheduler, weights: &[u32], tcp: bool) -> String {
    let (members, cursor) = service(scheduler, weights, if tcp { 80 } else { 5000 });
    let selector = Selector::new(scheduler, &members);
    (0..60)
        .map(|n| match selector.select(&members, &cursor, &client([10, 0, 0, 10], 22_000 + n)) {
            Some(at) => {
                members[at].load.open(tcp);
                char::from_digit(members[at].id, 10).unwrap_or('?')
            }
            None => '-',
        })
        .collect()
}

#[test]
fn sequences_of_the_real_ipvs() {
    let [lc, rr, wlc, wrr] = [Scheduler::LC, Scheduler::RR, Scheduler::WLC, Scheduler::WRR];
    let thrice = "321".repeat(20);
    let weighted = "321121".repeat(10);
    let rows: [(Scheduler, [u32; 3], bool, &str); 20] = [
        (rr, [1, 1, 1], true, &thrice),
        (rr, [1, 1, 1], false, &thrice),
        (rr, [3, 2, 1], true, &thrice),
        (rr, [3, 2, 1], false, &thrice),
        (wrr, [1, 1, 1], true, &thrice),
        (wrr, [1, 1, 1], false, &thrice),
        (wrr, [3, 2, 1], true, &weighted),
        (wrr, [3, 2, 1], false, &weighted),
        (lc, [1, 1, 1], true, &thrice),
        (lc, [1, 1, 1], false, &thrice),
        (lc, [3, 2, 1], true, &thrice),
        (lc, [3, 2, 1], false, &thrice),
        (wlc, [1, 1, 1], true, &thrice),
        (wlc, [1, 1, 1], false, &thrice),
        (wlc, [3, 2, 1], true, &weighted),
        (wlc, [3, 2, 1], false, &weighted),
        (MH, [1, 1, 1], true, &"3".repeat(60)),
        (MH, [1, 1, 1], false, &"1".repeat(60)),
        (MH, [3, 2, 1], true, &"1".repeat(60)),
        (MH, [3, 2, 1], false, &"1".repeat(60)),
    ];
    for (scheduler, weights, tcp, expected) in rows {
        assert_eq!(sequence(scheduler, &weights, tcp), expected, "{scheduler:?} {weights:?} tcp={tcp}");
    }
}

/// `golden/sched/hash_mh*`: clients 10.0.0.30 to .59; same again; server 2 at weight 0; back; removed.
#[test]
fn maglev_choices_of_the_real_ipvs() {
    let round = |members: &[Member], fallback: bool| -> String {
        let scheduler = Scheduler { fallback, ..MH };
        let selector = Selector::new(scheduler, members);
        (30..60)
            .map(|n| {
                let chosen = selector.select(members, &Cursor::default(), &client([10, 0, 0, n], 24_650));
                chosen.map_or('-', |at| char::from_digit(members[at].id, 10).unwrap_or('?'))
            })
            .collect()
    };
    let (mut members, _) = service(MH, &[1, 1, 1], 80);
    assert_eq!(round(&members, false), "113312321313123313322322111232");
    members[1].weight = 0;
    assert_eq!(round(&members, false), "11331-3-13131-33133--3--111-3-");
    assert_eq!(round(&members, true), "113313331313113313313311111131");
    members.remove(1);
    assert_eq!(round(&members, false), "113311331313113313313311111133");
}

#[test]
fn maglev_shares_by_weight_and_moves_little() {
    let members: Vec<Member> = (1..=10).map(|n| member(n, 1 + n % 3, 80)).collect();
    let before = maglev::Table::new(&members, false, false, 65521);
    let total: u32 = members.iter().map(|m| m.weight).sum();
    for (at, m) in members.iter().enumerate() {
        let share = before.slots().iter().filter(|s| usize::from(**s) == at).count() as f64 / 65521.0;
        let fair = f64::from(m.weight) / f64::from(total);
        assert!((share / fair - 1.0).abs() < 0.01, "server {at}: {share} instead of {fair}");
    }
    for gone in 0..members.len() {
        let mut left = members.clone();
        left.remove(gone);
        let after = maglev::Table::new(&left, false, false, 65521);
        let kept = |s: u16| members[usize::from(s)].id;
        let moved = before
            .slots()
            .iter()
            .zip(after.slots())
            .filter(|(b, a)| usize::from(**b) != gone && kept(**b) != left[usize::from(**a)].id)
            .count();
        // Slots of servers that stayed but changed hands: what moves needlessly.
        assert!((moved as f64) < 0.03 * 65521.0, "server {gone}: {moved} slots moved needlessly");
    }
}

#[test]
fn unreachable_and_quiescent_servers_get_nothing() {
    for scheduler in [Scheduler::RR, Scheduler::WRR, Scheduler::LC, Scheduler::WLC, MH] {
        let (mut members, cursor) = service(scheduler, &[5, 5, 5], 80);
        members[0].reachable = false;
        members[2].weight = 0;
        members[2].last_weight = 0;
        let selector = Selector::new(scheduler, &members);
        for n in 0..50u8 {
            let got = selector.select(&members, &cursor, &client([10, 9, n, n], 1));
            assert_eq!(got, Some(1), "{scheduler:?}");
        }
        members[1].weight = 0;
        assert_eq!(Selector::new(scheduler, &members).select(&members, &cursor, &client([1; 4], 1)), None);
        assert_eq!(Selector::new(scheduler, &[]).select(&[], &cursor, &client([1; 4], 1)), None);
    }
}

#[test]
fn round_robin_continues_over_changes() {
    let (mut members, cursor) = service(Scheduler::RR, &[1, 1, 1, 1], 80);
    let pick = |members: &[Member], cursor: &Cursor| {
        Selector::RoundRobin.select(members, cursor, &client([1; 4], 1)).map(|at| members[at].id)
    };
    assert_eq!((pick(&members, &cursor), pick(&members, &cursor)), (Some(4), Some(3)));
    // The server chosen last goes: the sequence continues behind its predecessor.
    let old = listed(&members);
    members.retain(|m| m.id != 3);
    carry_over(Scheduler::RR, &cursor, &old, &listed(&members));
    assert_eq!((pick(&members, &cursor), pick(&members, &cursor)), (Some(2), Some(1)));
    assert_eq!(pick(&members, &cursor), Some(4));
}

#[test]
fn wrr_gives_each_its_share_whatever_the_weights() {
    let weights = [7, 0, 3, 10, 5];
    let (members, cursor) = service(Scheduler::WRR, &weights, 80);
    let selector = Selector::new(Scheduler::WRR, &members);
    let mut got = [0u32; 5];
    for _ in 0..2500 {
        let at = selector.select(&members, &cursor, &client([1; 4], 1)).expect("available");
        got[members[at].id as usize - 1] += 1;
    }
    assert_eq!(got, [700, 0, 300, 1000, 500]);
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
