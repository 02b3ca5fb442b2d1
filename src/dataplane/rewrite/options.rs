//! TCP options: a safe walk over them that mends the checksum behind it (RFC 9293, section 3.1).
//!
//! Owns the walk. Never knows what an option means, and never changes the length of one.

use crate::dataplane::checksum::{adjust, gain};
use crate::dataplane::parse::{Parsed, Part, TCP};

/// End of the option list.
const END: u8 = 0;
/// No operation.
pub const NOP: u8 = 1;

/// The end of the TCP header of a packet, as an offset: `None` if it is no TCP, has no header, or not all of it.
pub fn header_end(bytes: &[u8], parsed: &Parsed) -> Option<usize> {
    if parsed.protocol != TCP || parsed.part == Part::Later {
        return None;
    }
    let l4 = usize::from(parsed.l4);
    let len = usize::from(*bytes.get(l4 + 12)? >> 4) * 4;
    (len >= 20 && len <= usize::from(parsed.l4_len) && l4 + len <= bytes.len()).then_some(l4 + len)
}

/// Hands each option with a length (kind, length and value, at least two bytes) to `visit`, which may change its
/// bytes; then the checksum takes up what changed. The walk ends where an option does not fit. Returns whether bytes
/// changed. Options may lie at odd offsets, so the sum is taken over all of them, before and after.
pub fn edit(bytes: &mut [u8], parsed: &Parsed, mut visit: impl FnMut(&mut [u8])) -> bool {
    let Some(end) = header_end(bytes, parsed) else { return false };
    let l4 = usize::from(parsed.l4);
    let mut before = [0; 40];
    let Some(options) = bytes.get_mut(l4 + 20..end) else { return false };
    let Some(before) = before.get_mut(..options.len()) else { return false };
    before.copy_from_slice(options);
    let mut rest = &mut *options;
    loop {
        match *rest {
            [] | [END, ..] => break,
            [NOP, ..] => rest = &mut rest[1..],
            [_] => break,
            [_, len, ..] => {
                let len = usize::from(len);
                if len < 2 || len > rest.len() {
                    break;
                }
                let (option, behind) = rest.split_at_mut(len);
                visit(option);
                rest = behind;
            }
        }
    }
    if before == options {
        return false;
    }
    let change = gain(before, options);
    mend(bytes, l4, change);
    true
}

/// Shows each option with a length to `visit`; the walk ends as that of [`edit`]. `None`: no whole TCP header.
pub fn visit(bytes: &[u8], parsed: &Parsed, mut visit: impl FnMut(&[u8])) -> Option<()> {
    let end = header_end(bytes, parsed)?;
    let mut rest = bytes.get(usize::from(parsed.l4) + 20..end)?;
    loop {
        match *rest {
            [NOP, ..] => rest = &rest[1..],
            [kind, len, ..] if kind != END && len >= 2 && usize::from(len) <= rest.len() => {
                let (option, behind) = rest.split_at(usize::from(len));
                visit(option);
                rest = behind;
            }
            _ => return Some(()),
        }
    }
}

/// A four-byte field of a TCP header at `l4`; 0 if it is not there.
pub fn field(bytes: &[u8], l4: usize, at: usize) -> u32 {
    bytes.get(l4 + at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

/// Puts `new` over the four bytes of a TCP header at `at`, with the checksum.
pub fn put_field(bytes: &mut [u8], l4: usize, at: usize, new: u32) {
    let new = new.to_be_bytes();
    let Some(field) = bytes.get_mut(l4 + at..l4 + at + 4) else { return };
    let change = gain(field, &new);
    field.copy_from_slice(&new);
    mend(bytes, l4, change);
}

/// Gives the TCP checksum of a header at `l4` what the words that it covers gained.
pub fn mend(bytes: &mut [u8], l4: usize, change: u64) {
    if let Some(check) = bytes.get_mut(l4 + 16..l4 + 18).and_then(|check| check.first_chunk_mut::<2>()) {
        *check = adjust(u16::from_ne_bytes(*check), change).to_ne_bytes();
    }
}
