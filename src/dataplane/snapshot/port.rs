//! A port of the data plane: which frames are addressed to it, and how large they may be.
//!
//! Owns the comparisons that every packet pays for. Pure.

use crate::model::MacAddr;

/// A port of the data plane: one interface of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// The interface's MAC as the low 48 bits of a native-order word read from memory.
    mac: u64,
    /// All ones in those bits if frames must be addressed to that MAC, else zero.
    mac_mask: u64,
    /// Largest frame that may leave, without VLAN tags, in bytes.
    pub max_frame: u32,
    /// Virtual MACs of VRRP that are the interface's too, by family and number of the virtual router.
    virtuals: [[u64; 4]; 2],
}

const MAC_BITS: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);

impl Port {
    /// An interface with its MAC and MTU (bytes, without the Ethernet header). `strict`: frames for other MACs are
    /// dropped; a capture being replayed is not that particular.
    pub fn new(mac: MacAddr, mtu: u32, strict: bool) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        Port {
            mac: u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]),
            mac_mask: if strict { MAC_BITS } else { 0 },
            max_frame: mtu.saturating_add(14),
            virtuals: [[0; 4]; 2],
        }
    }

    /// Takes frames for a virtual MAC of VRRP (RFC 9568, section 7.3), too.
    pub fn add_virtual(&mut self, mac: MacAddr) {
        if let [0, 0, 0x5e, 0, family @ 1..=2, router] = mac.0 {
            self.virtuals[usize::from(family - 1)][usize::from(router / 64)] |= 1 << (router % 64);
        }
    }

    /// Whether a frame whose first eight bytes are `head` is addressed to one of the virtual MACs.
    #[inline(never)]
    fn accepts_virtual(&self, head: u64) -> bool {
        match head.to_ne_bytes() {
            [0, 0, 0x5e, 0, family @ 1..=2, router, ..] => {
                self.virtuals[usize::from(family - 1)][usize::from(router / 64)] >> (router % 64) & 1 == 1
            }
            _ => false,
        }
    }

    /// Whether a frame whose first eight bytes are `head` is addressed to this interface.
    #[inline(always)]
    pub fn accepts(&self, head: u64) -> bool {
        (head ^ self.mac) & self.mac_mask == 0 || self.accepts_virtual(head)
    }

    /// Whether the eight bytes from a frame's source address on are this interface's own address.
    #[inline(always)]
    pub fn is_own(&self, source: u64) -> bool {
        (source ^ self.mac) & MAC_BITS == 0
    }

    /// The interface's MAC.
    pub fn mac(&self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = self.mac.to_ne_bytes();
        MacAddr([a, b, c, d, e, f])
    }
}
