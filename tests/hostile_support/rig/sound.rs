//! Whether a frame is as it should be.

use evenkeel::dataplane::checksum;
use evenkeel::dataplane::parse::{self, Kind, Part};
use evenkeel::model::GUE_PORT;

use crate::hostile_support::{MTU, OWN};

/// Whether the transport or ICMP checksum of a whole packet is right; `None` where there is none, and for GUE, whose outer
/// one may be missing.
pub fn summed(bytes: &[u8]) -> Option<bool> {
    let parsed = parse::parse(bytes).ok().filter(|parsed| parsed.part == Part::Whole)?;
    let l4 = usize::from(parsed.l4);
    let packet = bytes.get(l4..l4 + usize::from(parsed.l4_len))?;
    match parsed.kind {
        Kind::Flow4 | Kind::Flow6 if parsed.protocol == parse::UDP && packet[2..4] == GUE_PORT.to_be_bytes() => None,
        Kind::Flow4 | Kind::Flow6 => Some(parse::verify_transport(bytes, &parsed).is_ok()),
        Kind::Icmp4 => Some(checksum::checksum(packet) == 0),
        Kind::Icmp6 => {
            let (l3, length) = (usize::from(parsed.l3), u32::from(parsed.l4_len));
            let pseudo = checksum::pseudo_header(&bytes[l3 + 8..l3 + 24], &bytes[l3 + 24..l3 + 40], 58, length);
            Some(checksum::fold(checksum::sum(packet, pseudo)) == 0xffff)
        }
        _ => None,
    }
}

/// What goes out: from this interface, to one station, no longer than the MTU, with a right IPv4 header.
pub fn sound(frame: &[u8], port: u8) {
    assert_eq!(frame[6..12], OWN[usize::from(port)].0, "source MAC");
    let mut l3 = 14;
    while frame[l3 - 2..l3] == [0x81, 0] || frame[l3 - 2..l3] == [0x88, 0xa8] {
        l3 += 4;
    }
    let protocol = match frame[l3 - 2..l3] {
        [0x08, 0x00] => frame[l3 + 9],
        [0x86, 0xdd] => frame[l3 + 6],
        _ => 0,
    };
    // An answer is as long as its question; what is forwarded fits the server's network.
    let forwarded = [4, 6, 17, 41, 44, 47, 132].contains(&protocol);
    assert!(!forwarded || frame.len() <= l3 + MTU as usize, "{} bytes", frame.len());
    let group = frame[0] & 1 == 1;
    match frame[l3 - 2..l3] {
        [0x08, 0x00] => {
            let header = usize::from(frame[l3] & 15) * 4;
            assert_eq!(checksum::checksum(&frame[l3..l3 + header]), 0, "IPv4 header checksum");
            assert!(frame[l3 + 8] > 0 && !group);
        }
        // An advertisement to all nodes answers a duplicate address probe.
        [0x86, 0xdd] => assert!(frame[l3 + 7] > 0 && (!group || frame[l3 + 6] == 58)),
        [0x08, 0x06] => assert!(!group),
        _ => panic!("a frame of another ethertype was sent: {frame:x?}"),
    }
}
