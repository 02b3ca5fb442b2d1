//! What clients say to services that look into their datagrams: SIP messages and QUIC packets, true ones and odd ones.

use super::Random;

/// A SIP message over UDP; sometimes without a Call-ID, or with one that cannot be read.
pub fn sip(random: &mut Random) -> Vec<u8> {
    let call = random.below(12);
    let header = match random.below(10) {
        0 => String::new(),
        1 => format!("Call-ID\r\n\t: {call}"),
        2 => format!("i:\r\n  {call}@h"),
        3 => format!("Call-ID: {}", "x".repeat(250 + random.index(10))),
        4 => "Call-ID: @h".to_owned(),
        _ => format!("i: call{call}@h"),
    };
    let method = ["INVITE", "BYE", "SIP/2.0 200"][random.index(3)];
    // Near the beginning, where most of what is spoiled lies.
    format!("{method}\r\n{header}\r\nVia: SIP/2.0/UDP h;branch=z\r\nMax-Forwards: 70\r\n\r\n").into_bytes()
}

/// A QUIC packet whose connection id names a server, or none: rotation 1, ids of two bytes.
pub fn quic(random: &mut Random) -> Vec<u8> {
    let rotation = if random.one_in(6) { random.byte() & 0xe0 } else { 0x20 };
    let mut id = vec![rotation | 7, 0xee, random.below(10) as u8, 1, 2, 3, 4, 5];
    if random.one_in(8) {
        id.truncate(random.index(9));
    }
    let mut packet = match random.below(3) {
        0 => vec![0x40],
        kind => {
            let version = [1, 0x6b33_43cf, 0xff00_001d, 0][random.index(4)];
            let mut head = vec![if kind == 1 { 0xc0 } else { 0xc0 | random.byte() & 0x30 }];
            head.extend_from_slice(&u32::to_be_bytes(version));
            head.push(if random.one_in(10) { random.byte() } else { id.len() as u8 });
            head
        }
    };
    packet.extend_from_slice(&id);
    let padding = [0, 40, 1200][random.index(3)];
    packet.resize(packet.len() + padding, 0x5a);
    packet
}
