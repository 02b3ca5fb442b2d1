//! Drawing servers at random in proportion to their weights, for the schedulers that compare two.

use super::Member;

/// Two words from the request's random one (the finish of SplitMix64).
pub(super) fn words(random: u32) -> (u32, u32) {
    let mut word = u64::from(random).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^= word >> 31;
    ((word >> 32) as u32, word as u32)
}

/// A random word as a number below `limit`, all of them alike.
pub(super) fn below(word: u32, limit: u64) -> u64 {
    (u64::from(word) * limit) >> 32
}

/// Of two, the first unless the second costs less relative to its weight.
pub(super) fn cheaper(members: &[Member], first: usize, second: usize, cost: impl Fn(&Member) -> u64) -> usize {
    let (a, b) = (&members[first], &members[second]);
    if cost(b) * u64::from(a.weight) < cost(a) * u64::from(b.weight) { second } else { first }
}
