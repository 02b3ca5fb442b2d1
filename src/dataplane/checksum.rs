//! Internet checksums (RFC 1071), their incremental update (RFC 1624), and SCTP's CRC32c (RFC 9260, appendix A).
//!
//! Pure arithmetic over byte slices. Sums are over 16-bit words *as they lie in memory* (native order), which the
//! ones' complement sum permits (RFC 1071, section 2(B)): a folded sum can be stored back with `to_ne_bytes`.

/// Adds the 16-bit words of `bytes` (the last one padded with zero) to a running 64-bit sum.
#[inline]
pub fn sum(bytes: &[u8], mut acc: u64) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]]);
        acc += (word & 0xffff_ffff) + (word >> 32);
    }
    let mut rest = chunks.remainder();
    while rest.len() >= 2 {
        acc += u64::from(u16::from_ne_bytes([rest[0], rest[1]]));
        rest = &rest[2..];
    }
    if let [last] = rest {
        acc += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    acc
}

/// Folds a running sum to 16 bits, not complemented.
#[inline]
pub const fn fold(acc: u64) -> u16 {
    let acc = (acc & 0xffff_ffff) + (acc >> 32);
    let acc = (acc & 0xffff) + (acc >> 16);
    let acc = (acc & 0xffff) + (acc >> 16);
    let acc = (acc & 0xffff) + (acc >> 16);
    acc as u16
}

/// The checksum of `bytes`: complement of the folded sum, in memory order.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes, 0))
}

/// Pseudo-header sum for IPv4 and IPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1), not folded.
#[inline]
pub fn pseudo_header(source: &[u8], destination: &[u8], protocol: u8, length: u32) -> u64 {
    let mut acc = sum(source, 0);
    acc = sum(destination, acc);
    acc = sum(&length.to_be_bytes(), acc);
    sum(&[0, protocol], acc)
}

/// A multiple of 0xffff above every [`sum`] of a packet: subtracting from it negates in ones' complement arithmetic.
const NEGATIVE: u64 = (1 << 48) - 1;

/// What a running sum gains where the bytes `old` become `new`; either may be empty. Both start at an even offset of
/// what the checksum covers, and are at most a packet long. Never 0, so that [`adjust`] has one form of zero.
#[inline(always)]
pub fn gain(old: &[u8], new: &[u8]) -> u64 {
    NEGATIVE - sum(old, 0) + sum(new, 0)
}

/// The checksum after what it covers gained `gain`, the sum of a few [`gain`]s (RFC 1624,
/// equation 3, for many words at once).
#[inline(always)]
pub const fn adjust(check: u16, gain: u64) -> u16 {
    !fold((!check as u64) + gain)
}

/// SCTP's checksum after the first four bytes (the ports) of a packet of `len` bytes became `new`. CRC is linear, so
/// the rest of the packet need not be seen, and a wrong checksum stays wrong. Costs a pass over `len` zeroes.
pub fn sctp_update(check: [u8; 4], old: [u8; 4], new: [u8; 4], len: usize) -> [u8; 4] {
    const ZEROES: [u8; 1024] = [0; 1024];
    // Both CRCs carry the same inversions, which their difference is free of; `append` inverts before and after.
    let mut crc = !(crc32c::crc32c(&old) ^ crc32c::crc32c(&new));
    let mut rest = len.saturating_sub(4);
    while rest > 0 {
        let step = rest.min(ZEROES.len());
        crc = crc32c::crc32c_append(crc, &ZEROES[..step]);
        rest -= step;
    }
    (u32::from_le_bytes(check) ^ !crc).to_le_bytes()
}

/// SCTP checksum over the packet with its checksum field taken as zero, as the value that lies in the field
/// (little-endian CRC32c, RFC 9260 appendix A).
pub fn sctp(packet: &[u8]) -> Option<[u8; 4]> {
    let (head, rest) = packet.split_at_checked(8)?;
    let (_, body) = rest.split_at_checked(4)?;
    let crc = crc32c::crc32c(head);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    Some(crc32c::crc32c_append(crc, body).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes, 0)).to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn crc32c_check_value() {
        // RFC 3720 appendix B.4: 32 bytes of zeroes.
        assert_eq!(crc32c::crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(sctp(&[0; 32]), Some([0xaa, 0x36, 0x91, 0x8a]));
        assert_eq!(sctp(&[0; 11]), None);
    }

    fn naive(bytes: &[u8]) -> u16 {
        let mut acc = 0u32;
        for pair in bytes.chunks(2) {
            acc += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            acc = (acc & 0xffff) + (acc >> 16);
        }
        (acc as u16).to_be()
    }

    proptest! {
        #[test]
        fn adjust_equals_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 40..1500),
            at in 0usize..10,
            new in proptest::collection::vec(any::<u8>(), 16),
        ) {
            bytes[0] = 0x45;
            let before = checksum(&bytes);
            let place = 2 + at * 2..18 + at * 2;
            let change = gain(&bytes[place.clone()], &new);
            bytes[place].copy_from_slice(&new);
            prop_assert_eq!(adjust(before, change), checksum(&bytes));
        }

        #[test]
        fn sctp_update_equals_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 12..3000),
            new: [u8; 4],
        ) {
            let before = sctp(&bytes).expect("long enough");
            let old = *bytes.first_chunk().expect("long enough");
            bytes[..4].copy_from_slice(&new);
            prop_assert_eq!(Some(sctp_update(before, old, new, bytes.len())), sctp(&bytes));
        }

        #[test]
        fn sum_equals_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let (ours, theirs) = (fold(sum(&bytes, 0)), naive(&bytes));
            prop_assert!(ours == theirs || (ours | theirs == 0xffff && ours & theirs == 0));
        }

        #[test]
        fn update_equals_recomputation(mut bytes in proptest::collection::vec(any::<u8>(), 20..60), at in 0usize..9, new: u16) {
            let before = checksum(&bytes);
            let old = u16::from_ne_bytes([bytes[at * 2], bytes[at * 2 + 1]]);
            bytes[at * 2..at * 2 + 2].copy_from_slice(&new.to_ne_bytes());
            let change = gain(&old.to_ne_bytes(), &new.to_ne_bytes());
            let (updated, recomputed) = (adjust(before, change), checksum(&bytes));
            prop_assert!(updated == recomputed || (updated ^ recomputed == 0xffff && (updated == 0 || recomputed == 0)));
        }
    }
}
