//! maglev: Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4) whose table follows from the configuration alone.
//!
//! Two appliances with the same servers and weights send a client to the same server, whatever the order in their files,
//! whatever came before, and whichever servers either of them can reach: the table has the servers of a weight above 0 in
//! the order of address and port, and only the clients of a server that cannot be used go elsewhere. The hash, its keys and
//! the messages are written down in docs/adr/0017-schedulers.md, for others to compute the same.

use std::collections::BinaryHeap;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher24;

use super::{Cursor, Description, Flag, Member, Request, Schedule, TableSizes};
use crate::model::Scheduler;

pub(super) const DESCRIPTION: Description = Description {
    stateless: true,
    also: &["consistent-hash", "consistent_hash", "chash", "ring-hash"],
    flags: &[
        Flag::port("maglev-port", "hash the client's port too, not only its address"),
        Flag::fallback("maglev-fallback", "pick another server when the hashed one reached its threshold"),
    ],
    table: Some(TableSizes { sizes: SIZES, default: 65_537 }),
    ..Description::new(
        "maglev",
        "Maglev hashing of our own: a client has the same server on every appliance with the same servers and weights, \
         whatever their order; a server at weight 0 hands its clients to the others; 65537 slots without `mh_table_size`",
        |scheduler, members| Arc::new(Table::new(members, scheduler)),
    )
};

/// Primes.
const SIZES: &[u32] = &[251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 65_537, 131_071, 262_139, 524_287];

/// The key of SipHash-2-4: "Evenkeel" and "Maglev 1".
const KEY: (u64, u64) = (0x4576_656e_6b65_656c, 0x4d61_676c_6576_2031);

const EMPTY: u16 = u16::MAX;

/// How often a client is hashed anew when its server cannot be used, before the servers are tried in their order.
const ATTEMPTS: u16 = 16;

/// A lookup table.
#[derive(Debug)]
pub struct Table {
    slots: Box<[u16]>,
    /// The members that share the table, by address and port.
    order: Box<[u16]>,
    port: bool,
    fallback: bool,
}

fn siphash(message: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(KEY.0, KEY.1);
    hasher.write(message);
    hasher.finish()
}

/// An address as 16 bytes, IPv4 as `::ffff:a.b.c.d`.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `what`, the server's address and its port, in network order.
fn server_hash(what: u8, member: &Member) -> u64 {
    let mut message = [what; 19];
    message[1..17].copy_from_slice(&octets(member.address));
    message[17..].copy_from_slice(&member.port.to_be_bytes());
    siphash(&message)
}

/// A server's walk over the table.
struct Walk {
    member: u16,
    weight: u64,
    next: u32,
    skip: u32,
}

/// A server's next turn. Turn n of a server of weight w, counted from 0, comes at n/w, so each has one at once; at the same moment those with the lower rank
/// come first.
#[derive(PartialEq, Eq)]
struct Turn {
    turn: u64,
    weight: u64,
    rank: u32,
}

impl Ord for Turn {
    /// The heap gives its greatest, so what comes first is the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (ours, theirs) = (self.turn * other.weight, other.turn * self.weight);
        theirs.cmp(&ours).then(other.rank.cmp(&self.rank))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The slots while they fill; a bit each tells which are taken, as the bits fit a core's first cache.
struct Slots {
    members: Box<[u16]>,
    taken: Vec<u64>,
    left: usize,
}

impl Slots {
    fn new(size: u32) -> Self {
        let size = size as usize;
        Slots { members: vec![EMPTY; size].into(), taken: vec![0; size.div_ceil(64)], left: size }
    }

    /// The next free slot of a walk is its server's. False when all are taken.
    fn take(&mut self, walk: &mut Walk) -> bool {
        let size = self.members.len() as u32;
        if self.left == 0 {
            return false;
        }
        loop {
            let slot = walk.next;
            walk.next += walk.skip;
            if walk.next >= size {
                walk.next -= size;
            }
            let (word, bit) = (&mut self.taken[slot as usize / 64], 1 << (slot % 64));
            if *word & bit == 0 {
                *word |= bit;
                self.members[slot as usize] = walk.member;
                self.left -= 1;
                return self.left > 0;
            }
        }
    }
}

impl Table {
    /// Builds the table.
    pub fn new(members: &[Member], scheduler: Scheduler) -> Self {
        let size = DESCRIPTION.slots(scheduler);
        let mut sharing: Vec<(u16, &Member)> = (0u16..).zip(members).filter(|(_, m)| m.weight > 0).collect();
        sharing.sort_by_key(|(_, m)| (octets(m.address), m.port, m.weight));
        let mut walks: Vec<Walk> = sharing
            .iter()
            .map(|(at, m)| Walk {
                member: *at,
                weight: u64::from(m.weight),
                next: (server_hash(b'o', m) % u64::from(size)) as u32,
                skip: (server_hash(b's', m) % u64::from(size - 1)) as u32 + 1,
            })
            .collect();
        let mut slots = Slots::new(size);
        if walks.windows(2).all(|pair| pair[0].weight == pair[1].weight) {
            while !walks.is_empty() && walks.iter_mut().all(|walk| slots.take(walk)) {}
        } else {
            let first = (0u32..).zip(&walks).map(|(rank, walk)| Turn { turn: 0, weight: walk.weight, rank });
            let mut turns: BinaryHeap<Turn> = first.collect();
            while let Some(mut turn) = turns.peek_mut() {
                if !slots.take(&mut walks[turn.rank as usize]) {
                    break;
                }
                turn.turn += 1;
            }
        }
        Table {
            slots: slots.members,
            order: sharing.iter().map(|(at, _)| *at).collect(),
            port: scheduler.port,
            fallback: scheduler.fallback,
        }
    }

    /// The member of each slot.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// The smallest number of slots that gives each of so many servers about a hundred, and no more than the default.
    pub(super) fn size_for(members: usize) -> u32 {
        let wanted = u32::try_from(members.saturating_mul(100)).unwrap_or(u32::MAX);
        let most = DESCRIPTION.slots(Scheduler::named(DESCRIPTION.name));
        SIZES.iter().copied().find(|size| *size >= wanted).unwrap_or(most).min(most)
    }
}

impl Schedule for Table {
    fn select(&self, members: &[Member], _: &Cursor, request: &Request) -> Option<usize> {
        let port = if self.port { request.port } else { 0 };
        // Who the hash names is asked whether it is up, never whether it has room, unless another may take its place.
        let usable = |m: &Member| m.weight > 0 && m.reachable && !(self.fallback && m.load.is_overloaded());
        let mut last = 0;
        let hashed = (0..ATTEMPTS).find_map(|attempt| {
            let mut message = [0; 8];
            message[..4].copy_from_slice(&request.client.to_be_bytes());
            message[4..6].copy_from_slice(&port.to_be_bytes());
            message[6..].copy_from_slice(&attempt.to_be_bytes());
            last = siphash(&message);
            let member = usize::from(self.slots[(last % self.slots.len() as u64) as usize]);
            // An empty table has nobody to look for.
            members.get(member).is_none_or(usable).then_some(member)
        });
        let member = hashed.or_else(|| {
            let (before, from) = self.order.split_at((last % self.order.len().max(1) as u64) as usize);
            let all = from.iter().chain(before).map(|at| usize::from(*at));
            all.into_iter().find(|at| members.get(*at).is_some_and(usable))
        })?;
        members.get(member).filter(|m| m.is_available()).map(|_| member)
    }
}
