//! Single frames and packets, byte by byte, odd ones too: what no sound stack would send must be seen as it is.
//!
//! Owns their form. Checksums are zeros.

/// Where IPv6 packets come from.
pub const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// Ethernet, `tags` VLAN tags, and what follows.
pub fn ethernet(tags: &[u16], ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 100]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(rest);
    frame
}

pub fn ipv4(destination: [u8; 4], protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45 + options as u8, 0];
    packet.extend(((20 + options * 4 + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 198, 51, 100, 7]);
    packet.extend(destination);
    packet.extend(vec![1; options * 4]);
    packet.extend(payload);
    packet
}

/// IPv6 with extension headers, each given by its number and its whole bytes without the next-header byte.
pub fn ipv6(destination: [u8; 16], extensions: &[(u8, Vec<u8>)], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, (_, bytes)) in extensions.iter().enumerate() {
        body.push(extensions.get(index + 1).map_or(protocol, |(next, _)| *next));
        body.extend(bytes);
    }
    body.extend(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([extensions.first().map_or(protocol, |(next, _)| *next), 64]);
    packet.extend(CLIENT6);
    packet.extend(destination);
    packet.extend(body);
    packet
}

/// The same from another source.
pub fn from4(source: [u8; 4], mut packet: Vec<u8>) -> Vec<u8> {
    packet[12..16].copy_from_slice(&source);
    packet
}

pub fn from6(source: [u8; 16], mut packet: Vec<u8>) -> Vec<u8> {
    packet[8..24].copy_from_slice(&source);
    packet
}

/// Ports of what a server answers.
pub fn reply(port: u16) -> Vec<u8> {
    [&port.to_be_bytes()[..], &1234u16.to_be_bytes(), &[0, 12, 0, 0, 1, 2, 3, 4]].concat()
}

/// An ICMP error with a packet in it.
pub fn about(kind: u8, packet: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], packet].concat()
}

pub fn udp(port: u16) -> Vec<u8> {
    [&1234u16.to_be_bytes()[..], &port.to_be_bytes(), &[0, 12, 0, 0, 1, 2, 3, 4]].concat()
}

pub fn arp(operation: u16, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend([2, 0, 0, 0, 0, 1]);
    packet.extend(sender);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

pub fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 1, 0, 1, 9, 9]
}

pub fn solicitation(target: [u8; 16]) -> Vec<u8> {
    [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target].concat()
}

pub fn advertisement(target: [u8; 16]) -> Vec<u8> {
    [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target].concat()
}

pub fn hop_by_hop(words: u8) -> (u8, Vec<u8>) {
    (0, [vec![words], vec![1; 6 + usize::from(words) * 8]].concat())
}

pub fn fragment6(offset: u16, more: u16) -> (u8, Vec<u8>) {
    (44, [&[0][..], &(offset << 3 | more).to_be_bytes(), &[0, 0, 0, 7]].concat())
}
