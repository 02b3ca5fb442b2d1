//! What the filter takes, as a value, and its translation to the maps of `filter.c`.
//!
//! Pure: holds no map, file or socket. Owns the memory layout of the maps' keys and values, which `filter.c` repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{PortRange, Protocol};

/// Most separate ranges of ports that one address and protocol can have in the filter. `MAX_RANGES` in `filter.c`.
pub const MAX_RANGES: usize = 16;
/// Most addresses (`addresses` in `filter.c`).
pub const MAX_ADDRESSES: usize = 16384;
/// Most single ports over all addresses (`ports` in `filter.c`).
pub const MAX_PORTS: usize = 65536;

/// Traffic to one service, or from one NAT server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterEntry {
    /// Address of the service, or of the server.
    pub address: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Its ports.
    pub ports: PortRange,
}

/// What the filter takes from an interface. Order and repetition carry no meaning: compare with [`FilterTable::same`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterTable {
    /// Services whose packets are taken, by their destination. Local addresses of full NAT are such, too.
    pub entries: Vec<FilterEntry>,
    /// NAT servers: packets that come from them are taken if their destination is not taken already, and ICMP errors
    /// about packets to them.
    pub replies: Vec<FilterEntry>,
    /// Addresses that the appliance owns now: ARP, neighbour solicitations, echo requests and ICMP errors are taken.
    pub owned: Vec<IpAddr>,
    /// Servers behind tunnels: errors about packets to them that say "too large" are taken.
    pub tunnels: Vec<IpAddr>,
    /// Service addresses whose clients the access lists judge.
    pub judged: Vec<IpAddr>,
}

fn set<T: Ord + Copy>(one: &[T], other: &[T]) -> BTreeSet<T> {
    one.iter().chain(other).copied().collect()
}

impl FilterTable {
    /// Whether both tables take the same frames, whatever the order of their lists.
    pub fn same(&self, other: &FilterTable) -> bool {
        set(&self.entries, &[]) == set(&other.entries, &[])
            && set(&self.replies, &[]) == set(&other.replies, &[])
            && set(&self.owned, &[]) == set(&other.owned, &[])
            && set(&self.tunnels, &[]) == set(&other.tunnels, &[])
            && set(&self.judged, &[]) == set(&other.judged, &[])
    }

    /// A table that takes what either takes, and judges who either judges.
    pub fn union(&self, other: &FilterTable) -> FilterTable {
        FilterTable {
            entries: set(&self.entries, &other.entries).into_iter().collect(),
            replies: set(&self.replies, &other.replies).into_iter().collect(),
            owned: set(&self.owned, &other.owned).into_iter().collect(),
            tunnels: set(&self.tunnels, &other.tunnels).into_iter().collect(),
            judged: set(&self.judged, &other.judged).into_iter().collect(),
        }
    }

    /// Whether it takes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.replies.is_empty() && self.owned.is_empty() && self.tunnels.is_empty()
    }
}

/// A table that the filter cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// More separate port ranges than the filter walks.
    #[error(
        "{address} has {count} separate {protocol} port ranges; the XDP filter holds {MAX_RANGES} for an address and \
         protocol: join ranges, or use `any`"
    )]
    TooManyRanges {
        /// The address of the service or server.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// Ranges after joining those that touch.
        count: usize,
    },
    /// More addresses than the map holds.
    #[error("{0} addresses; the XDP filter holds {MAX_ADDRESSES}")]
    TooManyAddresses(usize),
    /// More single ports than the map holds.
    #[error("{0} single ports; the XDP filter holds {MAX_PORTS}")]
    TooManyPorts(usize),
}

/// `struct key` of `filter.c`: address in network order (IPv4 in the last four bytes), port in network order, protocol
/// number, family 4 or 6 with [`FAMILY_REPLY`].
pub(super) type Key = [u8; 20];
/// `struct ranges` of `filter.c`: a count, then `first << 16 | last`, all in the machine's order.
pub(super) type Ranges = [u32; 1 + MAX_RANGES];

pub(super) const OWNED: u32 = 0x1;
pub(super) const TUNNEL: u32 = 0x2;
pub(super) const JUDGED: u32 = 0x4;
pub(super) const SERVICE: u32 = 0x10;
pub(super) const ANY_PORT: u32 = 0x100;
pub(super) const RANGES: u32 = 0x1000;
pub(super) const SERVICE_MASK: u32 = 0x70;
/// What is taken from an address is said by the same bits, this much higher.
pub(super) const REPLY_SHIFT: u32 = 16;
/// In a key's family: the ports are source ports of a NAT server.
pub(super) const FAMILY_REPLY: u8 = 0x80;

/// In the settings: there are NAT servers; there are servers behind tunnels.
pub(super) const ALSO_REPLIES: u32 = 1 << 31;
pub(super) const ALSO_TUNNELS: u32 = 1 << 30;

/// `struct settings` of `filter.c`: the secret in three words, and what is taken besides what comes to us.
pub(super) type Settings = [u32; 4];

/// The contents of the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// Bits of each address.
    pub(super) addresses: BTreeMap<Key, u32>,
    /// Single ports.
    pub(super) ports: BTreeSet<Key>,
    /// Ranges of each address and protocol.
    pub(super) ranges: BTreeMap<Key, Ranges>,
    /// What is taken besides what comes to us: [`ALSO_REPLIES`], [`ALSO_TUNNELS`].
    pub(super) also: u32,
}

pub(super) fn key(address: IpAddr, protocol: u8, port: u16) -> Key {
    let mut key = [0; 20];
    match address {
        IpAddr::V4(address) => key[12..16].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => key[..16].copy_from_slice(&address.octets()),
    }
    key[16..18].copy_from_slice(&port.to_be_bytes());
    key[18] = protocol;
    key[19] = if address.is_ipv4() { 4 } else { 6 };
    key
}

/// The key of source ports.
pub(super) fn reply_key(address: IpAddr, protocol: u8, port: u16) -> Key {
    let mut key = key(address, protocol, port);
    key[19] |= FAMILY_REPLY;
    key
}

fn index(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Sctp => 2,
    }
}

/// Ranges in order, with those that overlap or touch joined.
fn join(ranges: &mut Vec<PortRange>) {
    ranges.sort();
    let mut joined: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges.drain(..) {
        match joined.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => last.last = last.last.max(range.last),
            _ => joined.push(range),
        }
    }
    *ranges = joined;
}

impl Image {
    /// Translates a table. Where an address has more ranges than the filter walks, the shortest become single ports.
    pub(super) fn of(table: &FilterTable) -> Result<Image, TableError> {
        let mut image = Image::default();
        for &address in &table.owned {
            *image.addresses.entry(key(address, 0, 0)).or_default() |= OWNED;
        }
        image.add_ports(&table.entries, 0, key)?;
        image.add_ports(&table.replies, REPLY_SHIFT, reply_key)?;
        for &address in &table.tunnels {
            *image.addresses.entry(key(address, 0, 0)).or_default() |= TUNNEL;
        }
        for &address in &table.judged {
            *image.addresses.entry(key(address, 0, 0)).or_default() |= JUDGED;
        }
        let also = |list: bool, bit| if list { bit } else { 0 };
        image.also = also(!table.replies.is_empty(), ALSO_REPLIES) | also(!table.tunnels.is_empty(), ALSO_TUNNELS);
        if image.addresses.len() > MAX_ADDRESSES {
            return Err(TableError::TooManyAddresses(image.addresses.len()));
        }
        if image.ports.len() > MAX_PORTS {
            return Err(TableError::TooManyPorts(image.ports.len()));
        }
        Ok(image)
    }

    /// Adds addresses with their ports: their bits `shift` higher, the ports under keys that `key_of` makes.
    fn add_ports(
        &mut self,
        entries: &[FilterEntry],
        shift: u32,
        key_of: fn(IpAddr, u8, u16) -> Key,
    ) -> Result<(), TableError> {
        let mut all: BTreeMap<(IpAddr, Protocol), Vec<PortRange>> = BTreeMap::new();
        for entry in entries {
            all.entry((entry.address, entry.protocol)).or_default().push(entry.ports);
        }
        for ((address, protocol), mut ranges) in all {
            join(&mut ranges);
            let shift = shift + index(protocol);
            let bits = self.addresses.entry(key(address, 0, 0)).or_default();
            *bits |= SERVICE << shift;
            if ranges.iter().any(|range| range.is_any()) {
                *bits |= ANY_PORT << shift;
                continue;
            }
            let (single, mut long): (Vec<_>, Vec<_>) = ranges.into_iter().partition(|range| range.first == range.last);
            long.sort_by_key(|range| range.last - range.first);
            let count = long.len();
            let expanded = long.drain(..count.saturating_sub(MAX_RANGES));
            for range in single.into_iter().chain(expanded) {
                if usize::from(range.last - range.first) + self.ports.len() >= MAX_PORTS {
                    return Err(TableError::TooManyRanges { address, protocol, count });
                }
                self.ports.extend((range.first..=range.last).map(|port| key_of(address, protocol.number(), port)));
            }
            if !long.is_empty() {
                *bits |= RANGES << shift;
                long.sort();
                let mut value = [0; 1 + MAX_RANGES];
                value[0] = u32::try_from(long.len()).unwrap_or(0);
                for (slot, range) in value[1..].iter_mut().zip(&long) {
                    *slot = u32::from(range.first) << 16 | u32::from(range.last);
                }
                self.ranges.insert(key_of(address, protocol.number(), 0), value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, protocol: Protocol, first: u16, last: u16) -> FilterEntry {
        FilterEntry { address: address.parse().expect("address"), protocol, ports: PortRange { first, last } }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let entries = vec![entry("192.0.2.1", Protocol::Tcp, 10, 20), entry("192.0.2.1", Protocol::Tcp, 21, 30)];
        let image = Image::of(&FilterTable { entries, ..FilterTable::default() }).expect("fits");
        let value = image.ranges.values().next().expect("a range");
        assert_eq!((value[0], value[1]), (1, 10 << 16 | 30));
        assert!(image.ports.is_empty());
    }

    #[test]
    fn the_shortest_ranges_are_expanded_when_there_are_too_many() {
        let entries: Vec<_> =
            (0..20u16).map(|i| entry("2001:db8::1", Protocol::Udp, i * 1000, i * 1000 + 10 + i)).collect();
        let image = Image::of(&FilterTable { entries, ..FilterTable::default() }).expect("fits");
        assert_eq!(image.ranges.values().next().expect("ranges")[0], 16);
        assert_eq!(image.ports.len(), 11 + 12 + 13 + 14);
    }

    #[test]
    fn too_many_long_ranges_are_refused_by_name() {
        let entries: Vec<_> =
            (0..30u16).map(|i| entry("192.0.2.1", Protocol::Tcp, i * 2000, i * 2000 + 1998)).collect();
        let many = (0..4).flat_map(|host| {
            entries
                .iter()
                .map(move |e| FilterEntry { address: format!("192.0.2.{host}").parse().expect("address"), ..*e })
        });
        let error =
            Image::of(&FilterTable { entries: many.collect(), ..FilterTable::default() }).expect_err("too many");
        assert!(error.to_string().contains("30 separate tcp port ranges"), "{error}");
    }

    #[test]
    fn ipv4_and_mapped_ipv6_are_different_keys() {
        assert_ne!(key("192.0.2.1".parse().expect("v4"), 6, 80), key("::ffff:192.0.2.1".parse().expect("v6"), 6, 80));
    }

    #[test]
    fn a_server_and_a_service_of_one_address_keep_apart() {
        let a = entry("192.0.2.1", Protocol::Tcp, 80, 80);
        let b = entry("192.0.2.1", Protocol::Udp, 10, 20);
        let table = FilterTable { entries: vec![a], replies: vec![b], ..FilterTable::default() };
        let image = Image::of(&table).expect("fits");
        let bits = SERVICE | SERVICE << (1 + REPLY_SHIFT) | RANGES << (1 + REPLY_SHIFT);
        assert_eq!(image.addresses.values().copied().collect::<Vec<_>>(), [bits]);
        assert!(image.ports.contains(&key(a.address, 6, 80)) && image.also == ALSO_REPLIES);
        assert!(image.ranges.contains_key(&reply_key(a.address, 17, 0)));
    }

    #[test]
    fn tables_compare_as_sets() {
        let a = entry("192.0.2.1", Protocol::Tcp, 80, 80);
        let b = entry("192.0.2.1", Protocol::Tcp, 443, 443);
        let one = FilterTable { entries: vec![a, b], owned: vec![a.address], ..FilterTable::default() };
        let two = FilterTable { entries: vec![b, a, a], owned: vec![a.address], ..FilterTable::default() };
        assert!(one.same(&two));
        let three = FilterTable { replies: vec![a], ..one.clone() };
        assert!(!one.same(&three) && one.union(&three).same(&three));
        let four = FilterTable { tunnels: vec![b.address], ..one.clone() };
        assert!(!one.same(&four) && one.union(&four).same(&four));
        let bits = Image::of(&four).expect("fits").addresses.into_values().collect::<Vec<_>>();
        assert_eq!(bits, [OWNED | TUNNEL | SERVICE]);
        let five = FilterTable { judged: vec![b.address], ..one.clone() };
        assert!(!one.same(&five) && one.union(&five).same(&five));
        let bits = Image::of(&five).expect("fits").addresses.into_values().collect::<Vec<_>>();
        assert_eq!(bits, [OWNED | JUDGED | SERVICE]);
        assert!(one.union(&two).same(&two));
    }
}
