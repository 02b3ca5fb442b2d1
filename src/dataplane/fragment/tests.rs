//! The table of fragmented packets: its rules one by one, then against random traffic and a model of it.

use proptest::prelude::*;

use super::*;

const FLOW: Decision = Decision::Follow { ports: 7, protocol: 17 };

fn table(datagrams: usize, waiting: usize) -> FragmentTable {
    FragmentTable::new(datagrams, waiting, 64, 1000, Seeds::fixed())
}

fn id(n: u32) -> FragmentId {
    FragmentId { source: [n as u8; 16], destination: [9; 16], id: n, protocol: 17, v6: !n.is_multiple_of(2) }
}

/// A fragment by its first and last unit of eight bytes.
fn piece(n: u32, start: u16, end: u16, more: bool) -> Fragment {
    Fragment { id: id(n), start: start * 8, end: end * 8, more }
}

fn note(table: &mut FragmentTable, fragment: Fragment, now: u32) -> Noted {
    let hash = table.hash(&fragment.id);
    table.note(hash, &fragment, now)
}

fn undecided(table: &mut FragmentTable, fragment: Fragment, now: u32) -> Place {
    match note(table, fragment, now) {
        Noted::Undecided(place) => place,
        other => panic!("{other:?}"),
    }
}

/// Takes what waits of a packet: the first byte of each.
fn drain(table: &mut FragmentTable, place: Place) -> Vec<u8> {
    let mut found = Vec::new();
    while let Some(waiting) = table.next_waiting(place) {
        found.push(table.waiting_frame(&waiting).0[0]);
        table.free(waiting);
    }
    found
}

/// Everything is where it belongs, and nothing was lost.
fn check(table: &FragmentTable) {
    let free = |mut at: u32, next: &dyn Fn(u32) -> u32| {
        let mut count = 0;
        while at != NONE {
            count += 1;
            at = next(at);
        }
        count
    };
    let free_records = free(table.free, &|at| table.records[at as usize].chain);
    assert_eq!(free_records + table.len(), table.records.len());
    let mut seen = 0;
    let mut waiting = 0;
    for head in &table.buckets {
        let mut at = *head;
        while at != NONE {
            let record = &table.records[at as usize];
            assert_eq!(table.find(table.hash(&record.id), &record.id), Some(at));
            let queued = free(record.queue.0, &|slot| table.slots[slot as usize].next);
            assert_eq!(queued, usize::from(record.waiting));
            assert!(record.waiting == 0 || record.decision.is_none(), "what is decided does not wait");
            waiting += queued;
            seen += 1;
            at = record.chain;
        }
    }
    assert_eq!((seen, waiting), (table.len(), table.waiting()));
    let free_slots = free(table.free_slots, &|slot| table.slots[slot as usize].next);
    assert_eq!(free_slots + table.waiting(), table.slots.len());
    for (order, decided) in [(&table.undecided, false), (&table.decided, true)] {
        let mut at = order.first();
        while let Some(index) = at {
            assert_eq!(table.records[index as usize].decision.is_some(), decided);
            seen -= 1;
            at = table.records[index as usize].links.younger();
        }
    }
    assert_eq!(seen, 0, "each record is in the list of its age");
}

#[test]
fn a_packet_in_order_is_followed_until_it_is_whole() {
    let mut table = table(4, 4);
    let place = undecided(&mut table, piece(1, 0, 3, true), 0);
    table.decide(place, FLOW, 0);
    table.finish(place);
    assert_eq!(note(&mut table, piece(1, 3, 6, true), 1), Noted::Decided(FLOW));
    assert_eq!(table.len(), 1);
    assert_eq!(note(&mut table, piece(1, 6, 7, false), 2), Noted::Decided(FLOW));
    assert!(table.is_empty() && !table.is_due(1 << 30));
    check(&table);
}

#[test]
fn fragments_before_the_first_wait_in_their_order() {
    let mut table = table(4, 8);
    for (at, number) in [(6, 30), (3, 20), (4, 40)] {
        let place = undecided(&mut table, piece(1, at, at + 1, at != 6), 5);
        assert!(table.wait(place, &[number; 40], 3, 5));
    }
    assert_eq!(table.waiting(), 3);
    let place = undecided(&mut table, piece(1, 0, 3, true), 9);
    table.decide(place, FLOW, 9);
    let waiting = table.next_waiting(place).expect("waits");
    assert_eq!(table.waiting_frame(&waiting), (&[30; 40][..], 3));
    table.free(waiting);
    assert_eq!(drain(&mut table, place), [20, 40]);
    table.finish(place);
    check(&table);
    assert_eq!(note(&mut table, piece(1, 5, 6, true), 9), Noted::Decided(FLOW));
    assert!(table.is_empty());
}

#[test]
fn overlaps_poison_duplicates_do_not() {
    use DropReason::FragmentOverlap;
    // The packet so far: units 0 to 3 and 5 to 7.
    let rows = [
        (piece(1, 0, 3, true), Noted::Duplicate),
        (piece(1, 5, 7, true), Noted::Duplicate),
        (piece(1, 0, 2, true), Noted::Refused(Place(0), FragmentOverlap)),
        (piece(1, 2, 5, true), Noted::Refused(Place(0), FragmentOverlap)),
        (piece(1, 4, 6, true), Noted::Refused(Place(0), FragmentOverlap)),
        (piece(1, 1, 2, true), Noted::Refused(Place(0), FragmentOverlap)),
        (piece(1, 4, 9, true), Noted::Refused(Place(0), FragmentOverlap)),
        // The last fragment does not end the packet.
        (piece(1, 3, 4, false), Noted::Refused(Place(0), FragmentOverlap)),
        (piece(1, 5, 7, false), Noted::Refused(Place(0), FragmentOverlap)),
        (piece(1, 3, 5, true), Noted::Undecided(Place(0))),
        (piece(1, 9, 11, false), Noted::Undecided(Place(0))),
    ];
    for (fragment, expected) in rows {
        for decided in [false, true] {
            let mut table = table(2, 2);
            undecided(&mut table, piece(1, 0, 3, true), 0);
            let place = undecided(&mut table, piece(1, 5, 7, true), 0);
            if decided {
                table.decide(place, FLOW, 0);
            }
            let expected = match expected {
                Noted::Undecided(_) if decided => Noted::Decided(FLOW),
                other => other,
            };
            assert_eq!(note(&mut table, fragment, 1), expected, "{fragment:?}");
            let refused = matches!(expected, Noted::Refused(..));
            if refused {
                let drop = Noted::Decided(Decision::Drop(FragmentOverlap));
                for more in [piece(1, 3, 5, true), piece(1, 7, 8, false), piece(1, 0, 3, true)] {
                    assert_eq!(note(&mut table, more, 2), drop);
                }
                assert_eq!(table.len(), 1, "it is not forgotten because it is whole");
            }
            check(&table);
        }
    }
    // Behind a last fragment nothing comes, and there is one last fragment.
    for fragment in [piece(1, 7, 8, true), piece(1, 7, 8, false), piece(1, 5, 7, true), piece(1, 2, 5, false)] {
        let mut table = table(2, 2);
        undecided(&mut table, piece(1, 5, 7, false), 0);
        assert_eq!(note(&mut table, fragment, 0), Noted::Refused(Place(0), FragmentOverlap));
    }
}

#[test]
fn the_kernels_packets_are_not_judged() {
    let mut table = table(2, 2);
    let place = undecided(&mut table, piece(1, 0, 3, true), 0);
    table.decide(place, Decision::Pass, 0);
    for fragment in [piece(1, 1, 2, true), piece(1, 0, 3, true), piece(1, 2, 9, false)] {
        assert_eq!(note(&mut table, fragment, 0), Noted::Decided(Decision::Pass));
    }
    assert_eq!(note(&mut table, piece(1, 3, 4, false), 0), Noted::Decided(Decision::Pass));
    assert!(table.is_empty());
}

#[test]
fn too_many_fragments_are_refused() {
    let mut table = table(2, 2);
    for at in 0..MOST_RANGES as u16 {
        undecided(&mut table, piece(1, at, at + 1, true), 0);
    }
    let place = Place(0);
    let expected = Noted::Refused(place, DropReason::FragmentLimit);
    assert_eq!(note(&mut table, piece(1, 200, 201, true), 0), expected);
    assert_eq!(note(&mut table, piece(1, 0, 1, true), 0), Noted::Decided(Decision::Drop(DropReason::FragmentLimit)));
    check(&table);
}

#[test]
fn a_full_table_lets_the_oldest_go_after_a_second() {
    let mut table = table(2, 4);
    let place = undecided(&mut table, piece(1, 3, 4, true), 0);
    assert!(table.wait(place, &[1], 0, 0));
    let place = undecided(&mut table, piece(2, 0, 4, true), 10);
    table.decide(place, FLOW, 10);
    assert_eq!(note(&mut table, piece(3, 0, 1, true), 1000), Noted::Full);
    assert_eq!(note(&mut table, piece(2, 4, 5, true), 1000), Noted::Decided(FLOW), "a known one finds its place");
    undecided(&mut table, piece(3, 0, 1, true), 1001);
    assert_eq!((table.take_given_way(), table.take_given_way(), table.waiting()), (1, 0, 0));
    undecided(&mut table, piece(4, 0, 1, true), 1011);
    assert_eq!(note(&mut table, piece(5, 0, 1, true), 1012), Noted::Full);
    check(&table);
    let mut none = FragmentTable::new(0, 0, 64, 1000, Seeds::fixed());
    assert_eq!(note(&mut none, piece(5, 0, 1, true), 1012), Noted::Full);
}

#[test]
fn no_packet_takes_the_whole_store() {
    let mut table = table(8, 32);
    let place = undecided(&mut table, piece(1, 100, 101, false), 0);
    for _ in 0..FAIR_WAITING {
        assert!(table.wait(place, &[1], 0, 0));
    }
    assert!(!table.wait(place, &[1], 0, 0));
    for n in 2..5 {
        let place = undecided(&mut table, piece(n, 100, 101, false), n);
        assert!((0..FAIR_WAITING).all(|_| table.wait(place, &[n as u8], 0, n)));
    }
    // Full: after a tenth of a second the oldest gives way.
    let place = undecided(&mut table, piece(5, 3, 4, false), 5);
    assert!(!table.wait(place, &[5], 0, 5));
    assert!(!table.wait(place, &[0; 65], 0, 2000), "longer than a slot");
    assert!(table.wait(place, &[0; 64], 0, 200));
    assert_eq!((table.take_given_way() as usize, table.waiting()), (FAIR_WAITING, 32 - FAIR_WAITING + 1));
    check(&table);
    for (store, most) in [(0, 8), (16, 8), (64, 16), (256, 64), (100_000, 64)] {
        assert_eq!(self::table(1, store).most_waiting, most);
    }
}

#[test]
fn time_ends_waiting_and_following() {
    for start in [0, u32::MAX - 500] {
        let mut table = table(8, 8);
        let at = |ms: u32| start.wrapping_add(ms);
        let place = undecided(&mut table, piece(1, 3, 4, true), at(0));
        assert!(table.wait(place, &[1], 0, at(0)));
        let second = undecided(&mut table, piece(2, 0, 4, true), at(1));
        table.decide(second, FLOW, at(1));
        assert!(!table.is_due(at(999)));
        assert!(table.is_due(at(1000)));
        assert_eq!(table.overdue(at(1000)), Some((place, id(1))));
        table.remove(place);
        assert!(!table.is_due(at(FOLLOWED_MS)));
        assert!(table.is_due(at(FOLLOWED_MS + 1)));
        table.forget(8, at(FOLLOWED_MS + 1));
        assert!(table.is_empty());
        check(&table);
    }
}

#[test]
fn hashes_differ_in_every_part_of_the_identity() {
    let table = table(1, 1);
    let base = id(2);
    let mut others =
        vec![FragmentId { id: 3, ..base }, FragmentId { protocol: 6, ..base }, FragmentId { v6: true, ..base }];
    for at in 0..16 {
        let mut other = base;
        other.source[at] ^= 1;
        others.push(other);
        let mut other = base;
        other.destination[at] ^= 1;
        others.push(other);
    }
    let mut hashes: Vec<u64> = others.iter().chain([&base]).map(|id| table.hash(id)).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), others.len() + 1);
}

/// How a packet is cut, and what is done to the pieces.
#[derive(Clone, Debug)]
struct Cut {
    sizes: Vec<u16>,
    duplicates: Vec<prop::sample::Index>,
}

fn cut_strategy() -> impl Strategy<Value = Cut> {
    let sizes = proptest::collection::vec(1u16..40, 2..40);
    let duplicates = proptest::collection::vec(any::<prop::sample::Index>(), 0..3);
    (sizes, duplicates).prop_map(|(sizes, duplicates)| Cut { sizes, duplicates })
}

fn pieces(n: u32, sizes: &[u16]) -> Vec<Fragment> {
    let mut start = 0;
    let last = sizes.len() - 1;
    sizes
        .iter()
        .enumerate()
        .map(|(at, size)| {
            let piece = piece(n, start, start + size, at != last);
            start += size;
            piece
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Packets cut at random, mixed with each other, in any order, some pieces twice: each piece goes where its first one
    /// goes, once, and nothing stays behind.
    #[test]
    fn honest_packets_in_any_order(
        cuts in proptest::collection::vec(cut_strategy(), 1..6),
        order in proptest::collection::vec(any::<u32>(), 300),
    ) {
        let mut table = table(8, 400);
        table.most_waiting = 64;
        let mut all = Vec::new();
        for (n, cut) in cuts.iter().enumerate() {
            let pieces = pieces(n as u32, &cut.sizes);
            all.extend(cut.duplicates.iter().map(|at| pieces[at.index(pieces.len())]));
            all.extend(pieces);
        }
        let mut keys = order.iter().cycle();
        let mut mixed: Vec<(u32, Fragment)> = all.into_iter().map(|f| (*keys.next().expect("endless"), f)).collect();
        mixed.sort_by_key(|(key, _)| *key);
        let mut forwarded: Vec<usize> = vec![0; cuts.len()];
        for (now, (_, fragment)) in mixed.iter().enumerate() {
            let n = fragment.id.id as usize;
            let flow = Decision::Follow { ports: n as u32, protocol: 17 };
            match note(&mut table, *fragment, now as u32) {
                Noted::Decided(decision) => {
                    prop_assert_eq!(decision, flow);
                    forwarded[n] += 1;
                }
                Noted::Undecided(place) if fragment.start == 0 => {
                    table.decide(place, flow, now as u32);
                    forwarded[n] += 1;
                    for found in drain(&mut table, place) {
                        prop_assert_eq!(usize::from(found), n);
                        forwarded[n] += 1;
                    }
                    table.finish(place);
                }
                Noted::Undecided(place) => prop_assert!(table.wait(place, &[n as u8], 0, now as u32)),
                Noted::Duplicate => {}
                other => prop_assert!(false, "{other:?}"),
            }
            check(&table);
        }
        for (cut, forwarded) in cuts.iter().zip(&forwarded) {
            // A first piece that comes again when its packet is whole and forgotten begins it anew.
            prop_assert!(*forwarded >= cut.sizes.len() && *forwarded <= cut.sizes.len() + cut.duplicates.len());
        }
        prop_assert!(table.len() <= cuts.iter().filter(|cut| !cut.duplicates.is_empty()).count());
    }

    /// Whatever comes: memory is bounded, the lists hold, bytes are never forwarded twice, and time empties the table.
    #[test]
    fn any_fragments_at_all(
        traffic in proptest::collection::vec((0u32..9, 0u16..8, 1u16..5, any::<bool>(), 0u32..300), 1..300),
    ) {
        let mut table = table(6, 20);
        let mut now = u32::MAX - 5_000;
        let mut seen: std::collections::HashMap<u32, Vec<(u16, u16)>> = std::collections::HashMap::new();
        for (n, start, len, more, pause) in traffic {
            now = now.wrapping_add(pause);
            let fragment = piece(n, start, start + len, more);
            if table.find(table.hash(&fragment.id), &fragment.id).is_none() {
                seen.remove(&n);
            }
            match note(&mut table, fragment, now) {
                Noted::Decided(Decision::Follow { .. }) => {
                    let ranges = seen.entry(n).or_default();
                    prop_assert!(ranges.iter().all(|(from, to)| fragment.end <= *from || fragment.start >= *to));
                    ranges.push((fragment.start, fragment.end));
                }
                Noted::Undecided(place) if start == 0 => {
                    let decision = if n == 0 { Decision::Drop(DropReason::NoServer) } else { FLOW };
                    seen.entry(n).or_default().push((fragment.start, fragment.end));
                    table.decide(place, decision, now);
                    drain(&mut table, place);
                    table.finish(place);
                }
                Noted::Undecided(place) => {
                    seen.entry(n).or_default().push((fragment.start, fragment.end));
                    if !table.wait(place, &[n as u8], 0, now) {
                        table.decide(place, Decision::Drop(DropReason::FragmentLimit), now);
                        drain(&mut table, place);
                    }
                }
                Noted::Refused(place, _) => {
                    drain(&mut table, place);
                }
                Noted::Decided(_) | Noted::Duplicate | Noted::Full => {}
            }
            while let Some((place, _)) = table.overdue(now) {
                table.remove(place);
            }
            table.forget(100, now);
            check(&table);
        }
        now = now.wrapping_add(FOLLOWED_MS);
        while let Some((place, _)) = table.overdue(now) {
            table.remove(place);
        }
        table.forget(100, now);
        check(&table);
        prop_assert!(table.is_empty() && table.waiting() == 0);
    }
}
