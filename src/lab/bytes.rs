//! Bytes that two ends can make alike from a seed: no two blocks are the same, so that a lost or doubled one shows.
//!
//! Owns the generator (Marsaglia's xorshift64). Not for secrets.

/// A stream of bytes.
#[derive(Clone, Debug)]
pub struct Bytes {
    state: u64,
    /// The bytes of the last word that nobody has had yet.
    rest: [u8; 8],
    left: usize,
}

impl Bytes {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        // The generator stands still at 0; distant states for seeds that are near.
        let state = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1;
        Bytes { state, rest: [0; 8], left: 0 }
    }

    /// The next eight bytes, as a number.
    pub fn next_word(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// Fills a buffer with what comes next.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let taken = self.left.min(buffer.len());
        let (head, tail) = buffer.split_at_mut(taken);
        head.copy_from_slice(&self.rest[8 - self.left..8 - self.left + taken]);
        self.left -= taken;
        let mut words = tail.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.next_word().to_le_bytes());
        }
        let last = words.into_remainder();
        if !last.is_empty() {
            self.rest = self.next_word().to_le_bytes();
            last.copy_from_slice(&self.rest[..last.len()]);
            self.left = 8 - last.len();
        }
    }

    /// A buffer of `count` bytes of what comes next.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut buffer = vec![0; count];
        self.fill(&mut buffer);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_same_however_it_is_cut() {
        let whole = Bytes::new(7).take(1000);
        let mut cut = Bytes::new(7);
        let mut parts = Vec::new();
        for length in [1, 0, 7, 8, 9, 3, 100, 872] {
            parts.extend(cut.take(length));
        }
        assert_eq!(parts, whole);
        assert_ne!(Bytes::new(8).take(1000), whole);
        assert_ne!(whole[..500], whole[500..]);
    }
}
