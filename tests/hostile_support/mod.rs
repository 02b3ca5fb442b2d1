//! What the hostile frames meet: a deterministic source of numbers, and a site whose services change.

pub mod echo;
pub mod frames;
pub mod rig;
pub mod site;
pub mod talk;

use evenkeel::model::MacAddr;

pub const MTU: u32 = 1500;
pub const OWN: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
pub const VIP: [u8; 4] = [192, 0, 2, 10];
pub const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Local addresses of full NAT: more than the engine has slots for.
pub const LOCALS: [[u8; 4]; 4] = [[192, 0, 2, 101], [192, 0, 2, 102], [192, 0, 2, 103], [192, 0, 2, 104]];
/// An owned address without a service.
pub const GATEWAY: [u8; 4] = [10, 0, 0, 254];

/// The same for IPv6.
pub const LOCAL6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
