//! The table of templates: against a plain model, at its edges, and under many threads.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::model::PersistBy;

const SECONDS: u32 = 300;

fn by(prefix_v4: u8, prefix_v6: u8) -> Persistence {
    Persistence { by: PersistBy::Client, seconds: SECONDS, prefix_v4, prefix_v6, leave_drained: false }
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a03_0000 + number))
}

fn subject(number: u32) -> Subject<'static> {
    Subject::new(1, client(number), &by(32, 128), &[])
}

fn table(capacity: usize) -> Templates {
    Templates::new(capacity, Seeds::fixed())
}

/// A new flow as the pipeline makes one: the server that it gets.
fn open(table: &Templates, subject: &Subject<'_>, wish: u32, seconds: u32, now: u32) -> Option<(Joined, u32)> {
    let joined = table.join(subject, now)?;
    if joined.real != 0 {
        table.renew(&joined, seconds, now);
        return Some((joined, joined.real));
    }
    Some((joined, table.bind(&joined, wish, seconds, now)))
}

fn row(table: &Templates, now: u32, number: u32) -> Option<Template> {
    table.list(now).find(|template| template.network == client(number))
}

#[test]
fn clients_of_a_network_share_a_template() {
    let table = table(64);
    let ask = |unit, address: IpAddr, persistence: &Persistence, wish| {
        open(&table, &Subject::new(unit, address, persistence, &[]), wish, SECONDS, 0).unwrap().1
    };
    let wide = by(24, 56);
    assert_eq!(ask(1, client(10), &wide, 1), 1);
    assert_eq!(ask(1, client(11), &wide, 2), 1);
    assert_eq!(ask(1, client(256), &wide, 2), 2);
    // Another unit, another prefix, another family with the same bits.
    assert_eq!(ask(2, client(10), &wide, 3), 3);
    assert_eq!(ask(1, client(10), &by(32, 128), 4), 4);
    let v6 = |last: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, last, 0, 0, 0, 1));
    assert_eq!(ask(1, v6(0), &wide, 5), 5);
    assert_eq!(ask(1, v6(0xff), &wide, 6), 5);
    assert_eq!(ask(1, v6(0x100), &wide, 6), 6);
    assert_eq!(ask(1, IpAddr::V6(Ipv6Addr::from(u128::from(0x0a03_0000u32))), &by(32, 128), 7), 7);
    assert_eq!(ask(1, client(0), &by(32, 128), 8), 8);
    let mut networks: Vec<String> = table.list(0).map(|t| format!("{} {}/{}", t.unit, t.network, t.prefix)).collect();
    networks.sort();
    let expected = [
        "1 10.3.0.0/24",
        "1 10.3.0.0/32",
        "1 10.3.0.10/32",
        "1 10.3.1.0/24",
        "1 2001:db8:0:100::/56",
        "1 2001:db8::/56",
        "1 ::a03:0/128",
        "2 10.3.0.0/24",
    ];
    assert_eq!(networks, expected);
    assert_eq!(masked(client(10), 0), IpAddr::from([0, 0, 0, 0]));
    assert_eq!(masked(v6(1), 0), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
}

#[test]
fn calls_are_told_apart_and_listed() {
    let table = table(64);
    let persistence = Persistence { by: PersistBy::SipCallId, ..by(32, 128) };
    let long = "x".repeat(255);
    for (wish, call) in [(1, "a@b"), (2, "a@c"), (3, "12345678"), (4, "123456789"), (5, long.as_str())] {
        let subject = Subject::new(1, client(1), &persistence, call.as_bytes());
        for _ in 0..2 {
            let (joined, real) = open(&table, &subject, wish, SECONDS, 0).unwrap();
            assert_eq!(real, wish);
            let ticket = table.ticket(&joined);
            assert_eq!(table.redeem(ticket), Some(joined.slot));
            assert_eq!(table.redeem(ticket ^ 0x0100_0000), None);
        }
    }
    assert_eq!(table.redeem(0), None);
    let mut calls: Vec<(u32, usize)> = table.list(0).map(|t| (t.real, t.call_id.len())).collect();
    calls.sort_unstable();
    assert_eq!(calls, [(1, 3), (2, 3), (3, 8), (4, 9), (5, TEXT)]);
    assert!(table.list(0).any(|template| template.call_id == b"a@c"));
}

#[test]
fn time_is_that_of_ipvs() {
    // ../golden/persist/p5_life: 5 s, one client with a connection that stays, one without.
    let table = table(64);
    let (held, _) = open(&table, &subject(10), 3, 5, 0).unwrap();
    let (brief, _) = open(&table, &subject(11), 2, 5, 0).unwrap();
    table.leave(brief.slot, 100);
    let left = |now, number| row(&table, now, number).map(|template| template.left_ms);
    assert_eq!((left(1000, 10), left(1000, 11)), (Some(4000), Some(4000)));
    assert_eq!((left(4999, 10), left(4999, 11)), (Some(1), Some(1)));
    assert_eq!((left(5000, 10), left(5000, 11)), (Some(60_000), None));
    assert_eq!((table.peek(&subject(10), 5000), table.peek(&subject(11), 5000)), (Some(3), None));
    assert_eq!(left(64_999, 10), Some(1));
    assert_eq!(left(65_000, 10), Some(60_000));
    // A new flow of one that was armed again renews it for 60 s, not for 5.
    let (second, real) = open(&table, &subject(10), 1, 5, 70_000).unwrap();
    assert_eq!((second.slot, real, left(70_000, 10)), (held.slot, 3, Some(60_000)));
    assert_eq!(row(&table, 70_000, 10).unwrap().flows, 2);
    table.leave(held.slot, 71_000);
    // The last flow ends between two alarms: the template lives until the next one.
    table.leave(held.slot, 200_000);
    assert_eq!(left(200_000, 10), Some(50_000));
    assert_eq!(table.peek(&subject(10), 249_999), Some(3));
    assert_eq!(table.peek(&subject(10), 250_000), None);
    // What comes then is a new template with a time of its own.
    let (_, real) = open(&table, &subject(10), 1, 5, 250_000).unwrap();
    assert_eq!((real, left(250_000, 10)), (1, Some(5000)));
}

#[test]
fn the_clock_may_wrap_and_workers_may_differ() {
    let table = table(64);
    let start = u32::MAX - 1000;
    let (joined, _) = open(&table, &subject(1), 1, SECONDS, start).unwrap();
    table.leave(joined.slot, start);
    assert_eq!(table.peek(&subject(1), start.wrapping_sub(20)), Some(1), "another worker's clock is behind");
    assert_eq!(row(&table, start.wrapping_add(299_999), 1).unwrap().left_ms, 1);
    assert_eq!(table.peek(&subject(1), start.wrapping_add(300_000)), None);
    // Swept, it does not come back when the clock has gone round.
    table.sweep(usize::MAX, start.wrapping_add(300_000));
    assert!(table.is_empty());
    let time = Time { stamp: 0, seconds: MOST_SECONDS, rearmed: false };
    assert_eq!((Time::unpack(time.pack()), time.length_ms()), (time, 1_000_000_000));
}

#[test]
fn sweeping_ends_what_is_over_and_arms_what_is_used() {
    let table = table(64);
    for number in 0..20 {
        let (joined, _) = open(&table, &subject(number), 1, SECONDS, 0).unwrap();
        if number % 2 == 0 {
            table.leave(joined.slot, 0);
        }
    }
    for _ in 0..12 {
        table.sweep(8, 299_999);
    }
    assert_eq!(table.len(), 20);
    for _ in 0..12 {
        table.sweep(8, 300_000);
    }
    assert_eq!((table.len(), table.list(300_000).count()), (10, 10));
    assert!(table.list(300_000).all(|template| template.left_ms == 60_000 && template.flows == 1));
}

#[test]
fn a_refused_choice_leaves_nothing() {
    let table = table(64);
    let joined = table.join(&subject(1), 0).unwrap();
    assert_eq!((joined.real, table.list(0).count(), table.len()), (0, 0, 1));
    table.leave(joined.slot, 0);
    assert!(table.is_empty());
    // Chosen, but no flow was made: the next one is scheduled anew.
    let (joined, _) = open(&table, &subject(1), 7, SECONDS, 0).unwrap();
    table.unbind(joined.slot, 7);
    table.leave(joined.slot, 0);
    assert!(table.is_empty());
    // Unless another flow relies on it.
    let (first, _) = open(&table, &subject(1), 7, SECONDS, 0).unwrap();
    let (second, real) = open(&table, &subject(1), 8, SECONDS, 0).unwrap();
    assert_eq!((second.slot, real), (first.slot, 7));
    table.unbind(first.slot, 7);
    table.leave(first.slot, 0);
    assert_eq!(table.peek(&subject(1), 0), Some(7));
}

#[test]
fn the_first_of_two_choices_holds() {
    let table = table(64);
    let (one, other) = (table.join(&subject(1), 0).unwrap(), table.join(&subject(1), 0).unwrap());
    assert_eq!((one.real, other.real), (0, 0));
    assert_eq!(table.bind(&one, 4, SECONDS, 0), 4);
    assert_eq!(table.bind(&other, 5, SECONDS, 0), 4);
    // A server that is gone is replaced, by the first that comes.
    let (one, other) = (table.join(&subject(1), 1).unwrap(), table.join(&subject(1), 1).unwrap());
    assert_eq!((one.real, other.real), (4, 4));
    assert_eq!(table.bind(&other, 6, SECONDS, 1), 6);
    assert_eq!(table.bind(&one, 7, SECONDS, 1), 6);
}

#[test]
fn clearing_unbinds_and_keeps_count() {
    let table = table(64);
    for number in 0..10 {
        let (joined, _) = open(&table, &subject(number), 1, SECONDS, 0).unwrap();
        if number < 5 {
            table.leave(joined.slot, 0);
        }
    }
    assert_eq!(table.clear(0, |template| template.network == client(3) || template.network == client(7)), 2);
    assert_eq!((table.list(0).count(), table.len()), (8, 9));
    assert_eq!(table.clear(0, |template| template.network == client(7)), 0);
    // The flow of client 7 is still known when its next one comes.
    let (joined, real) = open(&table, &subject(7), 2, SECONDS, 0).unwrap();
    assert_eq!((real, row(&table, 0, 7).unwrap().flows), (2, 2));
    table.leave(joined.slot, 0);
    table.leave(joined.slot, 0);
    assert_eq!(row(&table, 0, 7).unwrap().flows, 0);
    table.retain(|template| template.network != client(8));
    assert!(row(&table, 0, 8).is_none() && table.len() == 8);
    assert_eq!(table.clear(0, |_| true), 8);
    // Client 9, 6 and 5 have flows; when these end, so do their slots.
    assert_eq!(table.len(), 3);
    for number in [5, 6, 9] {
        table.leave(table.slot_of(&subject(number)).unwrap(), 0);
    }
    assert!(table.is_empty());
}

#[test]
fn a_full_table_gives_way_in_order() {
    // One bucket: every client lies in it.
    let table = Templates::with_slots(8, 8, Seeds::fixed());
    let join = |number, now| open(&table, &subject(number), 1, SECONDS, now).map(|(joined, _)| joined);
    let all: Vec<Joined> = (0..8).map(|number| join(number, number * 1000).unwrap()).collect();
    let has = |number| table.slot_of(&subject(number)).is_some();
    // All have flows. Those of 0 to 3 were proven; of the others the idlest gives way.
    all[..4].iter().for_each(|joined| table.assure(joined.slot));
    join(100, 10_000).unwrap();
    assert_eq!(((0..8).filter(|number| !has(*number)).collect::<Vec<_>>(), table.gave_way()), (vec![4], 1));
    // A flood of clients that nobody knows takes one another's room, and no more.
    for number in 0..1000 {
        join(1000 + number, 20_000 + number).unwrap();
    }
    assert!((0..4).all(has) && !has(100));
    // Where all are proven, the idlest without flows goes; where all have flows, the newcomer has no template.
    let known: Vec<u32> = table
        .list(21_500)
        .map(|template| {
            u32::from_be_bytes(match template.network {
                IpAddr::V4(v4) => v4.octets(),
                IpAddr::V6(_) => unreachable!(),
            }) - 0x0a03_0000
        })
        .collect();
    known.iter().for_each(|number| table.assure(table.slot_of(&subject(*number)).unwrap()));
    assert!(join(2000, 22_000).is_none());
    assert_eq!(table.refused(), 1);
    table.leave(table.slot_of(&subject(2)).unwrap(), 22_000);
    table.leave(table.slot_of(&subject(1)).unwrap(), 22_000);
    assert!(join(2001, 22_000).is_some());
    assert!(!has(1) && has(2));
    // One whose time is over goes first of all, and is not counted as giving way.
    let before = table.gave_way();
    table.assure(table.slot_of(&subject(2001)).unwrap());
    assert!(join(2002, 400_000).is_some());
    assert!(!has(2));
    assert_eq!(table.gave_way(), before);
}

#[test]
fn it_fills_to_its_capacity() {
    let table = table(65_536);
    for number in 0..65_536 {
        open(&table, &subject(number), 1, SECONDS, 0).unwrap();
    }
    assert_eq!((table.capacity(), table.len(), table.gave_way()), (65_536, 65_536, 0));
    for number in 0..1000 {
        open(&table, &subject(100_000 + number), 1, SECONDS, 0).unwrap();
    }
    assert_eq!((table.len(), table.gave_way()), (65_536, 1000));
}

/// What a template is, without slots and words.
#[derive(Clone, Copy, Debug, Default)]
struct Plain {
    real: u32,
    until: u32,
    rearmed: bool,
    flows: u32,
}

impl Plain {
    /// Alarms that have gone off until `now`.
    fn pass(&mut self, now: u32) {
        while self.real != 0 && now >= self.until {
            if self.flows == 0 {
                self.real = 0;
            } else {
                self.rearmed = true;
                self.until += REARM_SECONDS * 1000;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open(u32),
    Close(u32),
    Pass(u32),
    Sweep,
    Clear(u32),
}

proptest! {
    #[test]
    fn it_does_what_a_plain_model_does(
        seconds in 1u32..200,
        steps in proptest::collection::vec(prop_oneof![
            4 => (0u32..12).prop_map(Step::Open),
            3 => (0u32..12).prop_map(Step::Close),
            3 => (0u32..150_000).prop_map(Step::Pass),
            1 => Just(Step::Sweep),
            1 => (0u32..12).prop_map(Step::Clear),
        ], 0..200),
    ) {
        let table = table(1024);
        let mut plain: HashMap<u32, Plain> = HashMap::new();
        let (mut now, mut wish) = (0, 0);
        for step in steps {
            plain.values_mut().for_each(|known| known.pass(now));
            match step {
                Step::Open(number) => {
                    wish += 1;
                    let known = plain.entry(number).or_default();
                    if known.real == 0 {
                        *known = Plain { real: wish, rearmed: false, ..*known };
                    }
                    known.until = now + if known.rearmed { REARM_SECONDS } else { seconds } * 1000;
                    known.flows += 1;
                    prop_assert_eq!(open(&table, &subject(number), wish, seconds, now).unwrap().1, known.real);
                }
                Step::Close(number) => {
                    if let Some(known) = plain.get_mut(&number).filter(|known| known.flows > 0) {
                        known.flows -= 1;
                        table.leave(table.slot_of(&subject(number)).unwrap(), now);
                    }
                }
                Step::Pass(time) => now += time,
                Step::Sweep => table.sweep(1024, now),
                Step::Clear(number) => {
                    let known = plain.entry(number).or_default();
                    let cleared = table.clear(now, |template| template.network == client(number));
                    prop_assert_eq!(cleared, usize::from(known.real != 0));
                    known.real = 0;
                }
            }
            plain.values_mut().for_each(|known| known.pass(now));
            for (number, known) in &plain {
                prop_assert_eq!(table.peek(&subject(*number), now).unwrap_or(0), known.real);
                if let Some(row) = row(&table, now, *number) {
                    prop_assert_eq!((row.flows, row.left_ms), (known.flows, known.until - now));
                }
            }
        }
    }
}

/// Many threads open and close flows of few clients, while others list, sweep and clear: at any time all of a client's flows
/// that are open are at one server, and in the end none is counted.
#[test]
fn workers_agree_under_any_interleaving() {
    // A worker that is stopped while it puts a client in keeps the others from it for as long.
    let open = |table: &Templates, subject: &Subject<'_>, wish| {
        (0..10_000).find_map(|_| {
            open(table, subject, wish, SECONDS, 0).or_else(|| {
                std::thread::yield_now();
                None
            })
        })
    };
    let (table, stop) = (table(64), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4u32)
            .map(|worker| {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..20_000u32 {
                        let subject = subject(round % 16);
                        let (joined, real) = open(table, &subject, worker + 1).expect("room");
                        // Ours is counted: the server cannot change now.
                        assert_eq!(table.peek(&subject, 0), Some(real));
                        let (again, same) = open(table, &subject, 9).expect("room");
                        assert_eq!((again.slot, same), (joined.slot, real));
                        table.leave(joined.slot, 0);
                        table.leave(again.slot, 0);
                    }
                })
            })
            .collect();
        let housekeeper = scope.spawn(|| {
            // Time passes for the sweep only: what has no flow goes at once.
            while !stop.load(Relaxed) {
                table.sweep(64, 300_000);
                assert!(table.list(0).all(|template| (1..=4).contains(&template.real)));
            }
        });
        let ended: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, Relaxed);
        housekeeper.join().expect("the housekeeper");
        ended.into_iter().for_each(|worker| worker.expect("a worker"));
    });
    assert!(table.list(0).all(|template| template.flows == 0));
    // Those that the housekeeper came upon while flows were under them have 60 s more.
    table.sweep(usize::MAX, 300_000 + REARM_SECONDS * 1000);
    assert!(table.is_empty());
}

#[test]
fn a_client_that_another_worker_has_put_in_meanwhile_is_not_put_in_twice() {
    let (table, subject) = (table(64), subject(1));
    let print = table.print(&subject);
    let earlier = table.places(print).next().unwrap();
    // While both looked for it there was no template; the other worker took a later place since then.
    table.prints[earlier].store(print ^ 1, SeqCst);
    let (joined, _) = open(&table, &subject, 1, SECONDS, 0).unwrap();
    table.prints[earlier].store(0, SeqCst);
    assert_ne!(joined.slot, earlier as u32);
    assert_eq!(table.claim(print, &subject, 0), Some(joined.slot as usize));
    assert_eq!((table.len(), table.list(0).count()), (1, 1));
    // One that another worker is only about to put in is waited for, though not for ever.
    let later = &table.slots[joined.slot as usize];
    later.word.fetch_or(Word::LEAVING, SeqCst);
    assert_eq!((table.claim(print, &subject, 0), table.len()), (None, 1));
    later.word.fetch_and(!Word::LEAVING, SeqCst);
    assert_eq!(table.join(&subject, 0).unwrap().slot, joined.slot);
}
