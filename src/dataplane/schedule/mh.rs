//! mh: Maglev hashing with the lookup table, hash, keys and weights of `ip_vs_mh.c` (Eisenbud et al., NSDI 2016,
//! section 3.4), so that a client gets the server here that it gets from an IPVS director.
//!
//! The table is built once for a list of members; a choice is one hash and one load. Servers that cannot be reached are
//! left out of the table as if they were removed; servers at weight 0 keep their share and, without the fallback flag,
//! refuse it, as in IPVS.

use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::{Cursor, Description, Flag, Member, Request, Schedule, TableSizes, fold_address, gcd};
use crate::model::Scheduler;

pub(super) const DESCRIPTION: Description = Description {
    stateless: true,
    flags: &[
        Flag::port("mh-port", "hash the client's port too, not only its address"),
        Flag::fallback("mh-fallback", "pick another server when the hashed one has weight 0 or reached its threshold"),
    ],
    // The largest primes below powers of two (`primes`); the default is a stock kernel's.
    table: Some(TableSizes {
        sizes: &[251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071],
        default: 4093,
    }),
    ..Description::new(
        "mh",
        "Maglev hashing as IPVS does it: a client keeps its server, on every appliance that has the servers in the same \
         order; 4093 slots without `mh_table_size`, as in a stock kernel",
        |scheduler, members| Arc::new(Table::new(members, scheduler)),
    )
};

/// Keys of the two hash functions (`generate_hash_secret`).
const KEY1: u64 = 2_654_435_761;
const KEY2: u64 = 2_654_446_892;

/// Kernel default of `CONFIG_IP_VS_MH_TAB_INDEX`: weights use at most half of its bits.
const TABLE_BITS: u32 = 12 / 2;

const EMPTY: u16 = u16::MAX;

/// A Maglev lookup table.
#[derive(Debug)]
pub struct Table {
    slots: Box<[u16]>,
    port: bool,
    fallback: bool,
}

/// `hsiphash` of one 32-bit word on a 64-bit kernel: SipHash-1-3, low half.
fn hash(word: u32, key: u64) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(key, key);
    hasher.write(&word.to_le_bytes());
    hasher.finish() as u32
}

/// A server's walk over the table.
struct Walk {
    member: u16,
    next: u32,
    skip: u32,
    turns: u32,
}

impl Table {
    /// Builds the table.
    pub fn new(members: &[Member], scheduler: Scheduler) -> Self {
        let size = DESCRIPTION.slots(scheduler);
        let mut slots = vec![EMPTY; size as usize].into_boxed_slice();
        let sharing = || members.iter().enumerate().filter(|(_, m)| m.reachable && m.last_weight > 0);
        let divisor = sharing().fold(0, |g, (_, m)| gcd(m.last_weight, g)).max(1);
        let highest = sharing().map(|(_, m)| m.last_weight / divisor).max().unwrap_or(0);
        let shift = (u32::BITS - highest.leading_zeros()).saturating_sub(TABLE_BITS);
        let mut walks: Vec<Walk> = sharing()
            .map(|(at, m)| {
                let word = fold_address(m.address).wrapping_add(u32::from(m.port));
                Walk {
                    member: at as u16,
                    next: hash(word, KEY1) % size,
                    skip: hash(word, KEY2) % (size - 1) + 1,
                    turns: ((m.last_weight / divisor) >> shift).max(1),
                }
            })
            .collect();
        let mut filled = 0;
        'fill: while filled < size && !walks.is_empty() {
            for walk in &mut walks {
                for _ in 0..walk.turns {
                    while slots[walk.next as usize] != EMPTY {
                        walk.next += walk.skip;
                        if walk.next >= size {
                            walk.next -= size;
                        }
                    }
                    slots[walk.next as usize] = walk.member;
                    filled += 1;
                    if filled == size {
                        break 'fill;
                    }
                }
            }
        }
        Table { slots, port: scheduler.port, fallback: scheduler.fallback }
    }

    fn member(&self, members: &[Member], slot: u32) -> Option<usize> {
        let member = usize::from(self.slots[slot as usize]);
        (member < members.len()).then_some(member)
    }

    /// The member of each slot, for tests and `explain`.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }
}

impl Schedule for Table {
    fn select(&self, members: &[Member], _: &Cursor, client: &Request) -> Option<usize> {
        let size = self.slots.len() as u32;
        let port = if self.port { u32::from(client.port) } else { 0 };
        let word = client.client.wrapping_add(port);
        let first = hash(word, KEY1) % size;
        let member = self.member(members, first)?;
        if members[member].is_available() {
            return Some(member);
        }
        // Without that last question a table whose servers are all full would be hashed through for nothing.
        if !self.fallback || !members.iter().any(Member::is_available) {
            return None;
        }
        (0..size).find_map(|offset| {
            let word = word.wrapping_add((offset + first) % size);
            self.member(members, hash(word, KEY1) % size).filter(|m| members[*m].is_available())
        })
    }
}
