//! Every step of a change, with maps in memory: each client is judged by the old lists, then by the new ones.

use std::collections::{BTreeMap, HashMap as Map, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::dataplane::access::DENIED;
use crate::dataplane::access::tests::{access, clients, near};
use crate::model::Access;

/// Maps that note the judgement of some clients after each step, and fail at one of them.
struct Fake {
    words: [Vec<u64>; 3],
    blocks: Map<u32, Block>,
    long: BTreeMap<(u8, u128), Judgement>,
    clients: Vec<IpAddr>,
    /// Words of each part that a client's cell is in. A default that changes writes them all, and few are worth a look.
    concerned: [HashSet<usize>; 3],
    /// Of each client: its judgement, and how often that changed.
    seen: Vec<(bool, u32)>,
    steps: usize,
    fails_at: usize,
}

impl Fake {
    fn new(clients: Vec<IpAddr>) -> Fake {
        let seen = vec![(false, 0); clients.len()];
        let words = std::array::from_fn(|_| vec![0; WORDS]);
        let mut concerned: [HashSet<usize>; 3] = Default::default();
        for client in &clients {
            match client {
                IpAddr::V4(address) => concerned[0].insert((address.to_bits() >> 13) as usize),
                IpAddr::V6(address) => concerned[1].insert((address.to_bits() >> 109) as usize),
            };
        }
        let (steps, fails_at) = (0, usize::MAX);
        Fake { words, blocks: Map::new(), long: BTreeMap::new(), clients, concerned, seen, steps, fails_at }
    }

    fn cell(&self, part: Part, leading: u32) -> u64 {
        self.words[part as usize][(leading >> 5) as usize] >> ((leading & 31) * 2) & 3
    }

    /// As the program does, except that a client that the summary does not have must have no longer prefix.
    fn denies(&self, client: IpAddr) -> bool {
        match client {
            IpAddr::V4(address) => {
                let (address, leading) = (address.to_bits(), address.to_bits() >> 8);
                let cell = self.cell(Part::Cells4, leading);
                let block = self.blocks.get(&leading).filter(|_| cell & CLOSER != 0);
                block.map_or(cell & DENIED != 0, |block| block[(address >> 6 & 3) as usize] >> (address & 63) & 1 != 0)
            }
            IpAddr::V6(address) => {
                let address = address.to_bits();
                let cell = self.cell(Part::Cells6, (address >> 104) as u32);
                let holds = |(length, first): &(u8, u128)| (first ^ address) >> (128 - length) == 0;
                let longest = self.long.iter().rev().find(|(prefix, _)| holds(prefix));
                assert!(longest.is_none() || cell & CLOSER != 0);
                longest.map_or(cell & DENIED != 0, |(_, judgement)| *judgement == Judgement::Deny)
            }
        }
    }

    /// After a step, which must not be beyond the one that fails.
    fn look(&mut self) -> Result<(), Failure> {
        self.steps += 1;
        for at in 0..self.clients.len() {
            let denied = self.denies(self.clients[at]);
            let (before, changes) = &mut self.seen[at];
            if *before != denied {
                (*before, *changes) = (denied, *changes + 1);
            }
        }
        Ok(())
    }

    fn may(&self) -> Result<(), Failure> {
        if self.steps == self.fails_at {
            Err(("blocks", MapError::OutOfBounds { index: 0, max_entries: 0 }))
        } else {
            Ok(())
        }
    }

    /// The lists that it has from here on: nothing that was seen before counts.
    fn begin(&mut self) {
        self.seen = self.clients.iter().map(|client| (self.denies(*client), 0)).collect();
        self.steps = 0;
    }
}

impl Maps for Fake {
    fn load(&self, part: Part, index: usize) -> u64 {
        self.words[part as usize][index]
    }

    fn store(&mut self, part: Part, index: usize, word: u64) {
        self.words[part as usize][index] = word;
        if self.concerned[part as usize].contains(&index) {
            self.look().expect("a word can always be written");
        }
    }

    fn put_blocks(&mut self, leading: &[u32], blocks: &[Block]) -> Result<(), Failure> {
        leading.iter().zip(blocks).try_for_each(|(leading, block)| {
            self.may()?;
            self.blocks.insert(*leading, *block);
            self.look()
        })
    }

    fn take_block(&mut self, leading: u32) -> Result<(), Failure> {
        self.blocks.remove(&leading);
        self.look()
    }

    fn put_longs(&mut self, long: &[Long]) -> Result<(), Failure> {
        long.iter().try_for_each(|long| {
            self.may()?;
            self.long.insert((long.0, long.1), long.2);
            self.look()
        })
    }

    fn take_long(&mut self, long: &Long) -> Result<(), Failure> {
        self.long.remove(&(long.0, long.1));
        self.look()
    }
}

fn table(access: &Access) -> Table {
    Table::new(&Arc::new(access.clone()))
}

/// Lists that share most of what they have.
fn two() -> impl Strategy<Value = (Access, Access)> {
    (access(), access(), any::<u64>()).prop_map(|(one, other, keep)| {
        let kept = (0..).zip(one.lists()).filter(|(at, _)| keep >> (at % 64) & 1 != 0).map(|(_, entry)| *entry);
        let other = Access::new(other.default, kept.chain(other.lists().iter().copied()).collect());
        (one, other)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn each_client_changes_once_or_not_at_all(
        (one, other) in two(),
        more in prop::collection::vec(prop_oneof![near(true), near(false)], 20),
        fails_at in prop_oneof![Just(usize::MAX), 0usize..20],
    ) {
        let (old, new) = (table(&one), table(&other));
        let mut maps = Fake::new(clients(&one, clients(&other, more)));
        change(&mut maps, &Table::default(), &old).expect("everything fits");
        maps.begin();
        maps.fails_at = fails_at;
        let done = change(&mut maps, &old, &new);
        if done.is_err() {
            maps.fails_at = usize::MAX;
            change(&mut maps, &new, &old).expect("the way back");
        }
        let last = if done.is_ok() { &new } else { &old };
        for (client, (denied, changes)) in maps.clients.iter().zip(&maps.seen) {
            let (before, after) = (old.denies(*client), last.denies(*client));
            prop_assert_eq!(*denied, after, "{}", client);
            let most = if done.is_ok() { u32::from(before != after) } else { 2 * u32::from(before != new.denies(*client)) };
            prop_assert!(*changes <= most, "{} changed {} times, from {} to {}", client, changes, before, after);
        }
        prop_assert_eq!(maps.blocks.len(), last.blocks().count());
        prop_assert_eq!(maps.long.len(), last.long().len());
        for (part, words) in [(Part::Cells4, last.cells4()), (Part::Cells6, last.cells6()), (Part::Summary, last.summary())] {
            prop_assert!((0..WORDS).all(|at| maps.load(part, at) == word(words, at)), "{:?}", part);
        }
    }
}

#[test]
fn the_order_is_what_keeps_clients_apart() {
    let prefix = |text: &str| text.parse().expect("prefix");
    let deny = |texts: &[&str], allow: &[&str]| {
        let denied = texts.iter().map(|text| (prefix(text), Judgement::Deny));
        let allowed = allow.iter().map(|text| (prefix(text), Judgement::Allow));
        Access::new(Judgement::Allow, denied.chain(allowed).collect())
    };
    // The hole moves from one prefix into another, longer one.
    let one = deny(&["2001:db8::/32", "10.0.0.0/8"], &["2001:db8:1::/48", "10.1.0.0/16"]);
    let other = deny(&["2001:db8::/40", "10.1.1.0/24"], &["2001:db8:1::/64", "10.1.1.128/25"]);
    let inside =
        [IpAddr::V6("2001:db8:1::5".parse::<Ipv6Addr>().expect("address")), IpAddr::V4(Ipv4Addr::new(10, 1, 1, 129))];
    for (from, to) in [(&one, &other), (&other, &one)] {
        let mut maps = Fake::new(inside.into());
        change(&mut maps, &Table::default(), &table(from)).expect("fits");
        maps.begin();
        change(&mut maps, &table(from), &table(to)).expect("fits");
        assert!(maps.steps > 2 && maps.seen.iter().all(|seen| *seen == (false, 0)), "{:?}", maps.seen);
    }
}
