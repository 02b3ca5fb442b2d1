//! Keys and entries of the flow tables, one pair for each address family, and the hash.
//!
//! Plain memory layouts with their sizes asserted. Never walks a table.

use bytemuck::{Pod, Zeroable};

use super::state::State;
use crate::dataplane::sys;

/// Secret hash seeds: without them nobody can aim flows at one bucket.
#[derive(Clone, Copy, Debug)]
pub struct Seeds(pub [u64; 4]);

impl Seeds {
    /// Seeds from the operating system's entropy (by way of the standard library's hash keys).
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Seeds([0u64, 1, 2, 3].map(|i| RandomState::new().hash_one(i) | 1))
    }

    /// Seeds that are the same every time, for replay and tests.
    pub const fn fixed() -> Self {
        Seeds([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0x8cb9_2ba7_2f3d_8dd7, 0xaef1_7502_108e_f2d9])
    }
}

/// Key of an IPv4 flow: addresses and ports as they lie in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyV4 {
    /// Source address, then destination address.
    pub addresses: u64,
    /// Source port, then destination port.
    pub ports: u32,
    /// IP protocol number.
    pub protocol: u8,
}

/// Key of an IPv6 flow: addresses and ports as they lie in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyV6 {
    /// Source address.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// Source port, then destination port.
    pub ports: u32,
    /// IP protocol number.
    pub protocol: u8,
}

/// What the table needs of an entry. Two entries make a bucket, which is aligned to a cache line.
pub trait Entry: Copy {
    /// The flow's identity.
    type Key: Copy;
    /// Two entries.
    type Bucket: Pod;
    /// Load of the table, in percent of its entries, when it holds as many flows as it was made for.
    const LOAD_PERCENT: usize;
    /// Hash of a key.
    fn hash(key: &Self::Key, seeds: &Seeds) -> u64;
    /// The entries of a bucket.
    fn entries(bucket: &Self::Bucket) -> &[Self; 2];
    /// The entries of a bucket, to change.
    fn entries_mut(bucket: &mut Self::Bucket) -> &mut [Self; 2];
    /// Asks the CPU for a bucket.
    fn prefetch(bucket: &Self::Bucket);
    /// Whether this is the flow of `key`.
    fn matches(&self, key: &Self::Key) -> bool;
    /// Whether the entry is in use.
    fn is_live(&self) -> bool;
    /// The entry's key.
    fn key(&self) -> Self::Key;
    /// Makes the entry a flow's; keeps the overflow count.
    fn fill(&mut self, key: &Self::Key, server: u32, state: State, now: u32);
    /// Frees the entry; keeps the overflow count.
    fn clear(&mut self);
    /// Overflow count of the bucket (kept in its first entry).
    fn overflow(&self) -> u8;
    /// Sets the overflow count.
    fn set_overflow(&mut self, count: u8);
    /// Stable id of the flow's server.
    fn server(&self) -> u32;
    /// Binds the flow to another server.
    fn set_server(&mut self, server: u32);
    /// State.
    fn state(&self) -> State;
    /// Sets the state.
    fn set_state(&mut self, state: State);
    /// Time of the last packet, milliseconds, at most [`super::STAMP_MS`] too old.
    fn stamp(&self) -> u32;
    /// Sets the time of the last packet.
    fn set_stamp(&mut self, now: u32);
    /// Bits of [`super::flag`].
    fn flags(&self) -> u8;
    /// Sets the flags.
    fn set_flags(&mut self, flags: u8);
    /// Where the entry of the other direction lies, packed by the table; 0: there is none.
    fn partner(&self) -> u32;
    /// Sets where the entry of the other direction lies.
    fn set_partner(&mut self, partner: u32);
    /// A word of the pipeline's. In a flow's second entry: the number of its last hop, and above that what is watched of its
    /// server (`pipeline::passive`).
    fn extra(&self) -> u32;
    /// Sets the pipeline's word.
    fn set_extra(&mut self, extra: u32);
}

/// 64 x 64 -> 128 bit multiplication, folded. One round alone would be multiplicative hashing, which lays keys that
/// differ in few bits in heaps under unlucky seeds: every hash here ends with a second one.
#[inline(always)]
pub(in crate::dataplane) const fn mix(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

macro_rules! common {
    () => {
        #[inline(always)]
        fn is_live(&self) -> bool {
            self.protocol != 0
        }
        #[inline(always)]
        fn overflow(&self) -> u8 {
            self.overflow
        }
        #[inline(always)]
        fn set_overflow(&mut self, count: u8) {
            self.overflow = count;
        }
        #[inline(always)]
        fn server(&self) -> u32 {
            self.server
        }
        #[inline(always)]
        fn set_server(&mut self, server: u32) {
            self.server = server;
        }
        #[inline(always)]
        fn state(&self) -> State {
            State(self.state)
        }
        #[inline(always)]
        fn set_state(&mut self, state: State) {
            self.state = state.0;
        }
        #[inline(always)]
        fn stamp(&self) -> u32 {
            self.stamp
        }
        #[inline(always)]
        fn set_stamp(&mut self, now: u32) {
            self.stamp = now;
        }
        #[inline(always)]
        fn flags(&self) -> u8 {
            self.flags
        }
        #[inline(always)]
        fn set_flags(&mut self, flags: u8) {
            self.flags = flags;
        }
        #[inline(always)]
        fn partner(&self) -> u32 {
            self.partner
        }
        #[inline(always)]
        fn set_partner(&mut self, partner: u32) {
            self.partner = partner;
        }
        #[inline(always)]
        fn extra(&self) -> u32 {
            self.extra
        }
        #[inline(always)]
        fn set_extra(&mut self, extra: u32) {
            self.extra = extra;
        }
    };
}

/// An IPv4 flow: half a cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FlowV4 {
    addresses: u64,
    ports: u32,
    protocol: u8,
    state: u8,
    flags: u8,
    overflow: u8,
    server: u32,
    stamp: u32,
    partner: u32,
    extra: u32,
}

/// The identity of an IPv4 flow as two words, the second as an entry holds it: ports below the protocol, which lies
/// in the lowest byte of the upper half.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ident {
    /// Source address, then destination address.
    pub addresses: u64,
    /// Ports and protocol; the upper 24 bits are 0.
    pub rest: u64,
}

impl Ident {
    /// From addresses, ports and protocol as they lie in the packet.
    #[inline(always)]
    pub fn new(addresses: u64, ports: u32, protocol: u8) -> Self {
        Ident { addresses, rest: u64::from(ports) | u64::from(protocol) << 32 }
    }

    /// The same as a key.
    pub fn key(self) -> KeyV4 {
        KeyV4 { addresses: self.addresses, ports: self.ports(), protocol: self.protocol() }
    }

    /// Source port, then destination port.
    #[inline(always)]
    pub fn ports(self) -> u32 {
        self.rest as u32
    }

    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(self) -> u8 {
        (self.rest >> 32) as u8
    }

    /// The hash; equal to that of [`Ident::key`].
    #[inline(always)]
    pub fn hash(self, seeds: &Seeds) -> u64 {
        mix(mix(self.addresses ^ seeds.0[0], self.rest ^ seeds.0[1]), seeds.0[2])
    }
}

impl FlowV4 {
    /// Whether this is the flow of `ident`.
    #[inline(always)]
    pub fn is(&self, ident: Ident) -> bool {
        // One load: these five fields are one aligned word of the entry.
        let upper = u32::from_le_bytes([self.protocol, self.state, self.flags, self.overflow]);
        let rest = u64::from(self.ports) | u64::from(upper) << 32;
        (self.addresses ^ ident.addresses) | ((rest ^ ident.rest) & 0xff_ffff_ffff) == 0
    }
}

/// Two IPv4 flows: one cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct BucketV4([FlowV4; 2]);

const _: () = assert!(size_of::<FlowV4>() == 32 && size_of::<BucketV4>() == 64 && align_of::<BucketV4>() == 64);

impl Entry for FlowV4 {
    type Key = KeyV4;
    type Bucket = BucketV4;
    const LOAD_PERCENT: usize = 55;

    #[inline(always)]
    fn hash(key: &KeyV4, seeds: &Seeds) -> u64 {
        Ident::new(key.addresses, key.ports, key.protocol).hash(seeds)
    }
    #[inline(always)]
    fn entries(bucket: &BucketV4) -> &[Self; 2] {
        &bucket.0
    }
    #[inline(always)]
    fn entries_mut(bucket: &mut BucketV4) -> &mut [Self; 2] {
        &mut bucket.0
    }
    #[inline(always)]
    fn prefetch(bucket: &BucketV4) {
        sys::prefetch(bucket);
    }
    #[inline(always)]
    fn matches(&self, key: &KeyV4) -> bool {
        (self.addresses == key.addresses) & (self.ports == key.ports) & (self.protocol == key.protocol)
    }
    fn key(&self) -> KeyV4 {
        KeyV4 { addresses: self.addresses, ports: self.ports, protocol: self.protocol }
    }
    #[inline(always)]
    fn fill(&mut self, key: &KeyV4, server: u32, state: State, now: u32) {
        *self = FlowV4 {
            addresses: key.addresses,
            ports: key.ports,
            protocol: key.protocol,
            state: state.0,
            flags: 0,
            overflow: self.overflow,
            server,
            stamp: now,
            partner: 0,
            extra: 0,
        };
    }
    #[inline(always)]
    fn clear(&mut self) {
        *self = FlowV4 { overflow: self.overflow, ..FlowV4::zeroed() };
    }
    common!();
}

/// An IPv6 flow: one cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FlowV6 {
    source: [u64; 2],
    destination: [u64; 2],
    ports: u32,
    protocol: u8,
    state: u8,
    flags: u8,
    overflow: u8,
    server: u32,
    stamp: u32,
    partner: u32,
    extra: u32,
    spare: u64,
}

/// Two IPv6 flows: two adjacent cache lines.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(128))]
pub struct BucketV6([FlowV6; 2]);

const _: () = assert!(size_of::<FlowV6>() == 64 && size_of::<BucketV6>() == 128);

impl Entry for FlowV6 {
    type Key = KeyV6;
    type Bucket = BucketV6;
    const LOAD_PERCENT: usize = 68;

    #[inline(always)]
    fn hash(key: &KeyV6, seeds: &Seeds) -> u64 {
        let rest = u64::from(key.ports) | u64::from(key.protocol) << 32;
        let source = mix(key.source[0] ^ seeds.0[0], key.source[1] ^ seeds.0[1]);
        let destination = mix(key.destination[0] ^ seeds.0[2], key.destination[1] ^ seeds.0[3]);
        mix(mix(source ^ rest ^ seeds.0[3], destination ^ seeds.0[0]), seeds.0[2])
    }
    #[inline(always)]
    fn entries(bucket: &BucketV6) -> &[Self; 2] {
        &bucket.0
    }
    #[inline(always)]
    fn entries_mut(bucket: &mut BucketV6) -> &mut [Self; 2] {
        &mut bucket.0
    }
    #[inline(always)]
    fn prefetch(bucket: &BucketV6) {
        sys::prefetch(&bucket.0[0]);
        sys::prefetch(&bucket.0[1]);
    }
    #[inline(always)]
    fn matches(&self, key: &KeyV6) -> bool {
        (self.source == key.source)
            & (self.destination == key.destination)
            & (self.ports == key.ports)
            & (self.protocol == key.protocol)
    }
    fn key(&self) -> KeyV6 {
        KeyV6 { source: self.source, destination: self.destination, ports: self.ports, protocol: self.protocol }
    }
    #[inline(always)]
    fn fill(&mut self, key: &KeyV6, server: u32, state: State, now: u32) {
        *self = FlowV6 {
            source: key.source,
            destination: key.destination,
            ports: key.ports,
            protocol: key.protocol,
            state: state.0,
            flags: 0,
            overflow: self.overflow,
            server,
            stamp: now,
            partner: 0,
            extra: 0,
            spare: 0,
        };
    }
    #[inline(always)]
    fn clear(&mut self) {
        *self = FlowV6 { overflow: self.overflow, ..FlowV6::zeroed() };
    }
    common!();
}
