//! What a worker keeps of each flow that a cookie opened: where its two streams begin, and how far the handshake is.
//!
//! Owns a fixed number of places and which are free. Pure; nothing is allocated after the start. A place is named by its
//! index, which the flow's first entry keeps.

use bytemuck::{Pod, Zeroable};

use super::{Offer, Proof};
use crate::dataplane::sys;

/// How far the handshake with the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The SYN was sent.
    Pending,
    /// The server's SYN-ACK came.
    Open,
}

/// "The server does not scale windows" in [`Splice`].
const NO_SCALE: u8 = 15;

/// A flow whose two ends count the server's stream from different numbers. 24 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub struct Splice {
    /// Sequence number of the client's SYN; of a free place, the next free one's number (index + 1, or 0).
    pub isn: u32,
    /// The cookie: where the server's stream begins for the client.
    pub cookie: u32,
    /// What the server counts further than the client, modulo 2^32.
    pub delta: u32,
    /// When the SYN was sent last, milliseconds, wraps.
    pub sent: u32,
    /// The client's window when its ACK came, as it lay in the header.
    pub window: u16,
    offer: u8,
    open: u8,
    server_scale: u8,
    /// How often the SYN was sent because the server answered it with something else.
    pub retries: u8,
    used: u8,
    server_sack: u8,
}

const _: () = assert!(size_of::<Splice>() == 24);

impl Splice {
    /// A flow whose SYN goes out at `now`. `window` is that of the client's ACK.
    pub fn new(proof: &Proof, window: u16, now: u32) -> Splice {
        Splice {
            isn: proof.isn,
            cookie: proof.cookie,
            delta: 0,
            sent: now,
            window,
            offer: proof.offer.bits(),
            open: 0,
            server_scale: NO_SCALE,
            retries: 0,
            used: 1,
            server_sack: 0,
        }
    }

    /// How far the handshake is.
    pub fn phase(&self) -> Phase {
        if self.open == 0 { Phase::Pending } else { Phase::Open }
    }

    /// The server's SYN-ACK came, with this sequence number and these options.
    pub fn open(&mut self, number: u32, options: Offer) {
        self.open = 1;
        self.delta = number.wrapping_sub(self.cookie);
        // A scale that nobody asked for means nothing (RFC 7323, section 2.5).
        self.server_scale = options.scale().filter(|_| self.offer().scale().is_some()).unwrap_or(NO_SCALE);
        self.server_sack = u8::from(options.sack());
    }

    /// What the client's SYN offered.
    pub fn offer(&self) -> Offer {
        Offer::from_bits(self.offer)
    }

    /// Sequence number of the server's SYN-ACK; only when it came.
    pub fn server_isn(&self) -> u32 {
        self.cookie.wrapping_add(self.delta)
    }

    /// Whether the server takes selective acknowledgements.
    pub fn server_sack(&self) -> bool {
        self.server_sack != 0
    }

    /// The server's window scale, if it agreed to scale.
    pub fn server_scale(&self) -> Option<u8> {
        (self.server_scale != NO_SCALE).then_some(self.server_scale)
    }
}

/// The places of one worker.
pub struct Slab {
    places: sys::Zeroed<Splice>,
    /// The first free place that was used before: index + 1, or 0.
    free: u32,
    /// Places from here on were never used.
    fresh: u32,
    used: u32,
}

impl Slab {
    /// `capacity` places; `huge` asks for huge pages.
    ///
    /// # Errors
    /// The kernel has not that much memory.
    pub fn new(capacity: usize, huge: bool) -> std::io::Result<Slab> {
        Ok(Slab { places: sys::Zeroed::new(capacity, huge)?, free: 0, fresh: 0, used: 0 })
    }

    /// Takes a place. `None`: all are in use.
    pub fn take(&mut self, splice: Splice) -> Option<u32> {
        let index = match self.free.checked_sub(1) {
            Some(index) => index,
            None => self.fresh,
        };
        let place = self.places.get_mut(index as usize)?;
        if self.free == 0 {
            self.fresh += 1;
        } else {
            self.free = place.isn;
        }
        *place = splice;
        self.used += 1;
        Some(index)
    }

    /// Frees a place that is in use.
    pub fn give(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize).filter(|place| place.used == 1) else {
            debug_assert!(false, "place {index} was given back twice");
            return;
        };
        *place = Splice { isn: self.free, ..Splice::zeroed() };
        self.free = index + 1;
        self.used -= 1;
    }

    /// What is kept at a place in use.
    pub fn get(&self, index: u32) -> Option<&Splice> {
        self.places.get(index as usize).filter(|place| place.used == 1)
    }

    /// The same, to change.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Splice> {
        self.places.get_mut(index as usize).filter(|place| place.used == 1)
    }

    /// Places in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Places in all.
    pub fn capacity(&self) -> usize {
        self.places.len()
    }

    /// Touches every page, so that no packet pays for a page fault.
    pub fn prefault(&mut self) {
        for place in self.places.iter_mut().step_by(4096 / size_of::<Splice>()) {
            place.used = std::hint::black_box(place.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn splice(isn: u32) -> Splice {
        Splice::new(&Proof { isn, cookie: 7, offer: Offer::from_bits(0x5f) }, 9, 0)
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(operations in proptest::collection::vec((any::<bool>(), 0usize..20), 0..200)) {
            let mut slab = Slab::new(8, false).expect("memory");
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (number, (take, which)) in (0u32..).zip(operations) {
                if take {
                    let index = slab.take(splice(number));
                    prop_assert_eq!(index.is_some(), model.len() < 8);
                    if let Some(index) = index {
                        prop_assert!(model.insert(index, number).is_none());
                    }
                } else if let Some(index) = model.keys().copied().nth(which) {
                    model.remove(&index);
                    slab.give(index);
                    prop_assert_eq!(slab.get(index), None);
                }
                prop_assert_eq!(slab.used() as usize, model.len());
                for (index, isn) in &model {
                    prop_assert_eq!(slab.get(*index), Some(&splice(*isn)));
                }
            }
        }
    }

    #[test]
    fn what_the_server_says_is_kept() {
        let mut kept = splice(5);
        assert_eq!((kept.phase(), kept.server_scale()), (Phase::Pending, None));
        kept.open(3, Offer::from_bits(0xe8));
        assert_eq!((kept.phase(), kept.server_isn(), kept.server_scale()), (Phase::Open, 3, Some(14)));
        assert!(kept.server_sack());
        assert_eq!((kept.isn, kept.delta, kept.offer()), (5, 3u32.wrapping_sub(7), Offer::from_bits(0x5f)));
        let mut slab = Slab::new(0, false).expect("memory");
        slab.prefault();
        assert_eq!((slab.take(kept), slab.capacity()), (None, 0));
    }
}
