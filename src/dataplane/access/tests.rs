//! The table against a naive search for the longest prefix.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::model::Prefix;

/// The longest prefix decides, by looking at all.
fn naive(access: &Access, client: IpAddr) -> bool {
    let holding = access.lists().iter().filter(|(prefix, _)| prefix.contains(client));
    let longest = holding.max_by_key(|(prefix, _)| prefix.length());
    longest.map_or(access.default, |(_, judgement)| *judgement) == Judgement::Deny
}

fn lists(default: Judgement, entries: &[(&str, Judgement)]) -> Table {
    let entries = entries.iter().map(|(text, judgement)| (text.parse().expect("prefix"), *judgement)).collect();
    Table::new(&Arc::new(Access::new(default, entries)))
}

fn denies(table: &Table, client: &str) -> bool {
    table.denies(client.parse().expect("address"))
}

#[test]
fn the_longest_prefix_decides() {
    use Judgement::{Allow, Deny};
    let table = lists(
        Allow,
        &[
            ("10.0.0.0/8", Deny),
            ("10.1.0.0/16", Allow),
            ("10.1.2.0/24", Deny),
            ("10.1.2.128/25", Allow),
            ("10.1.2.200/32", Deny),
            ("2001:db8::/32", Deny),
            ("2001:db8:7::/48", Allow),
            ("2001:db8:7:1::/64", Deny),
            ("2001:db8:7:1::9/128", Allow),
            ("3000::/4", Deny),
        ],
    );
    for (client, denied) in [
        ("9.255.255.255", false),
        ("10.0.0.0", true),
        ("10.1.0.0", false),
        ("10.1.2.127", true),
        ("10.1.2.128", false),
        ("10.1.2.200", true),
        ("10.1.2.201", false),
        ("11.0.0.0", false),
        ("2001:db8::1", true),
        ("2001:db8:7::1", false),
        ("2001:db8:7:1::8", true),
        ("2001:db8:7:1::9", false),
        ("2001:db8:7:1::a", true),
        ("2001:db9::", false),
        ("3fff::1", true),
        ("4000::", false),
        // Not IPv4, although it looks like it.
        ("::ffff:10.0.0.1", false),
    ] {
        assert_eq!(denies(&table, client), denied, "{client}");
    }
}

#[test]
fn a_default_of_deny_and_nothing_at_all() {
    let table = lists(Judgement::Deny, &[("192.0.2.0/24", Judgement::Allow)]);
    assert!(denies(&table, "192.0.3.1") && denies(&table, "::1") && !denies(&table, "192.0.2.1"));
    assert!(table.judges(true) && table.judges(false));
    let table = lists(Judgement::Allow, &[("192.0.2.0/24", Judgement::Allow), ("::/0", Judgement::Deny)]);
    assert!(!table.judges(true) && table.judges(false) && !denies(&table, "192.0.2.1") && denies(&table, "::1"));
    let table = lists(Judgement::Allow, &[("192.0.2.0/24", Judgement::Allow)]);
    assert!(!table.judges(true) && !table.judges(false) && table.cells4().is_empty());
    let table = Table::default();
    assert!(!denies(&table, "192.0.2.1") && !denies(&table, "2001:db8::1"));
}

#[test]
fn the_ends_of_the_address_space_have_their_answers() {
    use Judgement::{Allow, Deny};
    let table =
        lists(Allow, &[("255.255.255.255/32", Deny), ("0.0.0.0/32", Deny), ("::/128", Deny), ("ffff::/16", Deny)]);
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    for client in ["0.0.0.0", "255.255.255.255", "::", "ffff::", last] {
        assert!(denies(&table, client), "{client}");
    }
    assert!(!denies(&table, "0.0.0.1") && !denies(&table, "255.255.255.254") && !denies(&table, "::1"));
    let table = lists(Deny, &[(&format!("{last}/128"), Allow)]);
    assert!(!denies(&table, last) && denies(&table, "ffff::"));
}

#[test]
fn a_block_that_says_one_thing_is_none() {
    use Judgement::{Allow, Deny};
    let table =
        lists(Allow, &[("10.0.0.0/25", Deny), ("10.0.0.128/25", Deny), ("10.0.1.0/24", Deny), ("10.0.1.1/32", Deny)]);
    assert_eq!(table.blocks().count(), 0);
    assert!(denies(&table, "10.0.0.0") && denies(&table, "10.0.0.255") && denies(&table, "10.0.1.1"));
    assert!(!denies(&table, "10.0.2.0"));
}

/// Addresses that share many leading bits, so that prefixes hold each other and clients are near them.
pub(crate) fn near(v4: bool) -> impl Strategy<Value = IpAddr> {
    (any::<u128>(), any::<u8>(), any::<bool>()).prop_map(move |(random, keep, low)| {
        if v4 {
            let base = 0x0a01_02ff_u32;
            let mask = u32::MAX.checked_shr(u32::from(keep % 33)).unwrap_or(0);
            let random = if low { random as u32 & 0x0000_83ff } else { random as u32 };
            IpAddr::V4(Ipv4Addr::from_bits(base ^ (random & mask)))
        } else {
            let base = 0x2001_0db8_0007_0001_0000_0000_0000_0001_u128;
            let mask = u128::MAX.checked_shr(u32::from(keep % 129)).unwrap_or(0);
            let random = if low { random & 0x0300_0083_0003_0003_0000_0000_0000_0003 } else { random };
            IpAddr::V6(Ipv6Addr::from_bits(base ^ (random & mask)))
        }
    })
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (any::<bool>(), any::<u8>()).prop_flat_map(|(v4, length)| {
        near(v4).prop_map(move |address| {
            let length = length % if v4 { 33 } else { 129 };
            match Prefix::new(address, length) {
                Ok(prefix) => prefix,
                Err(crate::model::PrefixError::HostBits { network, .. }) => network,
                Err(error) => panic!("{error}"),
            }
        })
    })
}

fn judgement() -> impl Strategy<Value = Judgement> {
    prop_oneof![Just(Judgement::Allow), Just(Judgement::Deny)]
}

/// Any lists.
pub(crate) fn access() -> impl Strategy<Value = Access> {
    (judgement(), prop::collection::vec((prefix(), judgement()), 0..40))
        .prop_map(|(default, lists)| Access::new(default, lists))
}

/// Addresses around the ends of every prefix, and some others.
pub(crate) fn clients(access: &Access, more: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut all = more;
    for (prefix, _) in access.lists() {
        let host = u32::from(prefix.length());
        match prefix.address() {
            IpAddr::V4(first) => {
                let first = first.to_bits();
                let last = first | u32::MAX.checked_shr(host).unwrap_or(0);
                let ends = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                all.extend(ends.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))));
            }
            IpAddr::V6(first) => {
                let first = first.to_bits();
                let last = first | u128::MAX.checked_shr(host).unwrap_or(0);
                let ends = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                all.extend(ends.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_table_is_a_longest_prefix_match(
        access in access(),
        more in prop::collection::vec(prop_oneof![near(true), near(false)], 40),
    ) {
        let table = Table::new(&Arc::new(access.clone()));
        let mut denied = 0;
        for client in clients(&access, more) {
            let expected = naive(&access, client);
            denied += usize::from(expected);
            prop_assert_eq!(table.denies(client), expected, "{} with {:?}", client, access);
        }
        prop_assert!(denied == 0 || access.denies_any());
    }

    /// What the filter's maps are filled with says the same: cells, and blocks or the prefixes that are longer.
    #[test]
    fn the_parts_say_what_the_table_says(access in access(), more in prop::collection::vec(near(false), 40)) {
        let table = Table::new(&Arc::new(access.clone()));
        for client in clients(&access, more) {
            let IpAddr::V6(address) = client else { continue };
            let bits = address.to_bits();
            let longest = table.long().iter().rev().find(|(length, first, _)| (first ^ bits) >> (128 - length) == 0);
            let cell = cell(table.cells6(), (bits >> 104) as u32);
            let denied = longest.map_or(cell & DENIED != 0, |(_, _, judgement)| *judgement == Judgement::Deny);
            prop_assert_eq!(table.denies(client), denied, "{}", client);
            prop_assert!(longest.is_none() || cell & CLOSER != 0);
        }
        for (length, first, judgement) in table.long() {
            prop_assert_eq!(table.long_says(*length, *first), Some(*judgement));
            prop_assert_eq!(table.long_says(*length, first ^ 1 << 127), None);
        }
    }
}
