//! What comes back for a frame that was sent: answers, ICMP errors about it, the next packet of the stream.

use evenkeel::dataplane::parse::{self, Kind, Parsed, Part};

use super::Random;
use super::frames::{icmp, repaired};

/// A frame that somebody may send who got `sent`: its receiver, or a router on its way.
pub fn echo(sent: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let parsed = parse::parse(sent).ok()?;
    let mut frame = sent.to_vec();
    for at in 0..6 {
        frame.swap(at, at + 6);
    }
    let v6 = frame.get(usize::from(parsed.l3))? >> 4 == 6;
    if random.one_in(4) { error(frame, &parsed, v6, random) } else { answer(frame, &parsed, random) }
}

fn swap(frame: &mut [u8], from: usize, to: usize, length: usize) {
    (0..length).for_each(|at| frame.swap(from + at, to + at));
}

/// From the receiver, to the sender.
fn answer(mut frame: Vec<u8>, parsed: &Parsed, random: &mut Random) -> Option<Vec<u8>> {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    match parsed.kind {
        Kind::Flow4 => {
            swap(&mut frame, l3 + 12, l3 + 16, 4);
            frame[l3 + 8] = 64;
        }
        Kind::Flow6 => {
            swap(&mut frame, l3 + 8, l3 + 24, 16);
            frame[l3 + 7] = 64;
        }
        _ => return None,
    }
    if parsed.part == Part::Later {
        return Some(repaired(frame));
    }
    swap(&mut frame, l4, l4 + 2, 2);
    let mut header = 8;
    if parsed.protocol == parse::TCP {
        header = usize::from(frame[l4 + 12] >> 4) * 4;
        let number = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let payload = u32::from(parsed.l4_len).saturating_sub(header as u32);
        let (seq, ack) = (number(l4 + 8), number(l4 + 4).wrapping_add(payload + u32::from(frame[l4 + 13] >> 1 & 1)));
        frame[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
        frame[l4 + 8..l4 + 12].copy_from_slice(&ack.to_be_bytes());
        frame[l4 + 13] = match frame[l4 + 13] {
            2 => [0x12, 0x12, 0x12, 0x14][random.index(4)],
            _ => [0x10, 0x10, 0x18, 0x18, 0x11, 0x04, 0x12][random.index(7)],
        };
    }
    let plain = parsed.part == Part::Whole && l4 - l3 == if parsed.kind == Kind::Flow4 { 20 } else { 40 };
    if plain && parsed.protocol != parse::SCTP && random.one_in(3) {
        let payload = [0, 1, 100, 1440, 1460, 1461, 1800][random.index(7)];
        sized(&mut frame, parsed, header, payload, random);
    }
    Some(repaired(frame))
}

/// Gives a packet without options a payload of another length.
fn sized(frame: &mut Vec<u8>, parsed: &Parsed, header: usize, payload: usize, random: &mut Random) {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let length = (header + payload) as u16;
    frame.resize(l4 + usize::from(length), 0x5a);
    if parsed.kind == Kind::Flow4 {
        frame[l3 + 2..l3 + 4].copy_from_slice(&(length + 20).to_be_bytes());
        frame[l3 + 6] = if random.one_in(2) { 0x40 } else { 0 };
    } else {
        frame[l3 + 4..l3 + 6].copy_from_slice(&length.to_be_bytes());
    }
    if parsed.protocol == parse::UDP {
        frame[l4 + 4..l4 + 6].copy_from_slice(&length.to_be_bytes());
    }
}

/// An ICMP error about the packet, which is quoted: truly, in part, or forged.
fn error(frame: Vec<u8>, parsed: &Parsed, v6: bool, random: &mut Random) -> Option<Vec<u8>> {
    let l3 = usize::from(parsed.l3);
    let mut quote = frame.get(l3..)?.to_vec();
    let whole = if v6 { 40 } else { 20 };
    let length = match random.below(6) {
        0 => random.index(60),
        1 => whole + 8,
        2 => whole + 20,
        _ => 548,
    };
    quote.truncate(length);
    if random.one_in(4) {
        for _ in 0..1 + random.below(3) {
            let at = random.index(quote.len());
            if let Some(byte) = quote.get_mut(at) {
                *byte = random.byte();
            }
        }
    }
    let (kind, code) = if v6 {
        [(2, 0), (1, 4), (1, 0), (3, 0), (4, 1)][random.index(5)]
    } else {
        [(3, 4), (3, 3), (3, 1), (11, 0), (12, 0)][random.index(5)]
    };
    let mut message = icmp(kind, code, &quote);
    message[4..8].copy_from_slice(&u32::to_be_bytes([0, 576, 1400, 9000, 0x0800_0000][random.index(5)]));
    let router = random.one_in(3);
    let mut out = frame[..l3].to_vec();
    let header = &frame[l3..];
    if v6 {
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend_from_slice(&(message.len() as u16).to_be_bytes());
        ip.extend_from_slice(&[58, 64]);
        ip.extend_from_slice(header.get(24..40)?);
        ip.extend_from_slice(header.get(8..24)?);
        if router {
            ip[23] = random.byte();
        }
        out.extend_from_slice(&ip);
    } else {
        let mut ip = vec![0x45, 0xc0];
        ip.extend_from_slice(&((20 + message.len()) as u16).to_be_bytes());
        ip.extend_from_slice(&[0, 7, 0, 0, 64, 1, 0, 0]);
        ip.extend_from_slice(header.get(16..20)?);
        ip.extend_from_slice(header.get(12..16)?);
        if router {
            ip[15] = random.byte();
        }
        out.extend_from_slice(&ip);
    }
    out.extend_from_slice(&message);
    Some(repaired(out))
}
