//! sh: source hashing (`ip_vs_sh.c`): 256 buckets over the servers by their weights.
//!
//! As with `mh`, servers that cannot be reached are left out as if they were removed; those at weight 0 keep one bucket, as
//! in IPVS, and refuse its clients without the fallback flag.

use std::sync::Arc;

use super::{Cursor, Description, Flag, Member, Request, Schedule};
use crate::model::Scheduler;

pub(super) const DESCRIPTION: Description = Description {
    stateless: true,
    flags: &[
        Flag::port("sh-port", "hash the client's port too, not only its address"),
        Flag::fallback("sh-fallback", "pick another server when the hashed one has weight 0 or reached its threshold"),
    ],
    ..Description::new(
        "sh",
        "source hashing over 256 buckets: a client keeps its server as long as the list of servers stays as it is; `mh` \
         moves far fewer clients when it changes",
        |scheduler, members| Arc::new(SourceHash::new(scheduler, members)),
    )
};

/// `IP_VS_SH_TAB_SIZE` and `IP_VS_DH_TAB_SIZE`.
pub(super) const BUCKETS: usize = 256;

/// `hash_32` of the kernel, eight bits.
pub(super) const fn bucket(word: u32) -> usize {
    (word.wrapping_mul(0x61C8_8647) >> 24) as usize
}

#[derive(Debug)]
struct SourceHash {
    buckets: [u16; BUCKETS],
    port: bool,
    fallback: bool,
}

impl SourceHash {
    /// Each server in turn fills as many buckets as its weight, and at least one (`ip_vs_sh_reassign`).
    fn new(scheduler: Scheduler, members: &[Member]) -> Self {
        let mut buckets = [u16::MAX; BUCKETS];
        let mut turns = (0u16..).zip(members).filter(|(_, m)| m.reachable).cycle();
        let mut at = 0;
        while at < BUCKETS {
            let Some((server, member)) = turns.next() else { break };
            let share = usize::try_from(member.weight.max(1)).unwrap_or(BUCKETS).min(BUCKETS - at);
            buckets[at..at + share].fill(server);
            at += share;
        }
        SourceHash { buckets, port: scheduler.port, fallback: scheduler.fallback }
    }
}

impl Schedule for SourceHash {
    fn select(&self, members: &[Member], _: &Cursor, request: &Request) -> Option<usize> {
        let port = if self.port { u32::from(request.port) } else { 0 };
        let first = bucket(request.client.wrapping_add(port));
        let member = |offset: usize| {
            let at = usize::from(self.buckets[(first + offset) % BUCKETS]);
            members.get(at).filter(|m| m.is_available()).map(|_| at)
        };
        member(0).or_else(|| {
            // The kernel looks for another from the bucket twice as far on (`ip_vs_sh_get_fallback`).
            if self.fallback { (0..BUCKETS).find_map(|offset| member(first + offset)) } else { None }
        })
    }
}
