//! Hostile frames: realistic ones of every kind that the appliance may meet, and what spoils them.

use etherparse::PacketBuilder;
use evenkeel::dataplane::last_hop::{Hop, LastHops};
use evenkeel::dataplane::{checksum, parse};
use evenkeel::model::MacAddr;

use super::{GATEWAY, LOCALS, OWN, Random, VIP, VIP6, talk};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const LONGEST: usize = 2000;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = OWN[0].0.to_vec();
    frame.extend_from_slice(&CLIENT_MAC);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn ipv4(protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&[0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&CLIENT);
    packet.extend_from_slice(&VIP);
    packet.extend_from_slice(options);
    packet.extend_from_slice(payload);
    repaired(ethernet(0x0800, &packet))
}

/// `chain`: extension headers, each with its own number; its first byte becomes the next one's.
fn ipv6(protocol: u8, chain: &[(u8, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (at, (_, header)) in chain.iter().enumerate() {
        let mut header = header.clone();
        header[0] = chain.get(at + 1).map_or(protocol, |next| next.0);
        body.extend_from_slice(&header);
    }
    body.extend_from_slice(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(body.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[chain.first().map_or(protocol, |first| first.0), 64]);
    packet.extend_from_slice(&CLIENT6);
    packet.extend_from_slice(&VIP6);
    packet.extend_from_slice(&body);
    repaired(ethernet(0x86dd, &packet))
}

fn tcp(port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = 40_000u16.to_be_bytes().to_vec();
    segment.extend_from_slice(&port.to_be_bytes());
    segment.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    segment
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = 4444u16.to_be_bytes().to_vec();
    datagram.extend_from_slice(&port.to_be_bytes());
    datagram.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 1]);
    datagram.extend_from_slice(payload);
    datagram
}

fn sctp(chunk: u8) -> Vec<u8> {
    vec![0x11, 0x22, 0x0b, 0x59, 0, 0, 0, 1, 0, 0, 0, 0, chunk, 0, 0, 8, 1, 2, 3, 4]
}

/// The packet that an ICMP error is about: sent by a server, from the service's address to the client.
fn invoking(v6: bool, protocol: u8, from: u16, to: u16) -> Vec<u8> {
    let mut packet = if v6 {
        let mut head = vec![0x60, 0, 0, 0, 0, 20, protocol, 60];
        head.extend_from_slice(&VIP6);
        head.extend_from_slice(&CLIENT6);
        head
    } else {
        let mut head = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 60, protocol, 0, 0];
        head.extend_from_slice(&VIP);
        head.extend_from_slice(&CLIENT);
        head
    };
    packet.extend_from_slice(&from.to_be_bytes());
    packet.extend_from_slice(&to.to_be_bytes());
    packet.extend_from_slice(&[0; 16]);
    packet
}

pub fn icmp(kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 7, 0, 1];
    message.extend_from_slice(payload);
    message
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend_from_slice(&CLIENT_MAC);
    packet.extend_from_slice(&sender);
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&target);
    let mut frame = ethernet(0x0806, &packet);
    frame[..6].fill(0xff);
    frame.resize(60, 0);
    frame
}

fn neighbour(kind: u8, source: [u8; 16], option: bool, hop_limit: u8) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&VIP6);
    if option {
        body.extend_from_slice(&[1, 1]);
        body.extend_from_slice(&CLIENT_MAC);
    }
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, VIP6[13], VIP6[14], VIP6[15]];
    let mut out = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, [0x33, 0x33, 0xff, VIP6[13], VIP6[14], VIP6[15]])
        .ipv6(source, group, hop_limit)
        .write(&mut out, etherparse::IpNumber::IPV6_ICMP, &body)
        .expect("builds");
    repaired(out)
}

fn tagged(mut frame: Vec<u8>, kind: u16, tci: u16) -> Vec<u8> {
    let ([a, b], [c, d]) = (kind.to_be_bytes(), tci.to_be_bytes());
    frame.splice(12..12, [a, b, c, d]);
    frame
}

fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    repaired(frame)
}

/// Leaves the transport checksum as a sender with checksum offload does: the pseudo-header's sum only.
fn partial(mut frame: Vec<u8>) -> Vec<u8> {
    let (protocol, l4) = (frame[23], 34);
    let pseudo = checksum::pseudo_header(&frame[26..30], &frame[30..34], protocol, (frame.len() - l4) as u32);
    let at = if protocol == 6 { 50 } else { 40 };
    frame[at..at + 2].copy_from_slice(&checksum::fold(pseudo).to_ne_bytes());
    frame
}

/// One frame of every kind.
pub fn bases() -> Vec<Vec<u8>> {
    let options = |kind: u8| (60, vec![kind, 0, 1, 4, 0, 0, 0, 0]);
    let routing = |kind: u8| (43, vec![0, 0, kind, 0, 0, 0, 0, 0]);
    let fragment = |offset: u16| {
        let [hi, lo] = offset.to_be_bytes();
        (44, vec![0, 0, hi, lo, 0, 0, 0, 9])
    };
    let hop = (0, vec![0, 0, 5, 2, 0, 0, 1, 0]);
    let web = |flags: u8| ipv4(6, &[], &tcp(80, flags, b"GET / HTTP/1.1\r\n\r\n"));
    let mut all = vec![
        // TCP over IPv4, with every set of flags that means something.
        ipv4(6, &[], &tcp(80, SYN, b"")),
        web(ACK),
        web(PSH | ACK),
        web(FIN | ACK),
        web(RST),
        web(RST | ACK),
        web(SYN | FIN),
        web(SYN | RST),
        web(0),
        ipv4(6, &[], &tcp(443, SYN, b"")),
        ipv4(6, &[], &tcp(8005, SYN, b"")),
        ipv4(6, &[], &tcp(700, SYN, b"")),
        ipv4(6, &[], &tcp(701, SYN, b"")),
        ipv4(6, &[], &tcp(81, SYN, b"")),
        ipv4(6, &[], &tcp(81, ACK, b"")),
        ipv4(6, &[], &tcp(25, SYN, b"")),
        ipv4(6, &[], &tcp(25, PSH | ACK, &[7; 1460])),
        ipv4(17, &[], &udp(6000, b"question")),
        ipv4(17, &[], &udp(5100, b"alone")),
        ipv4(17, &[], &udp(5060, b"INVITE sip:x SIP/2.0\r\ni: call@h\r\n\r\n")),
        ipv4(17, &[], &udp(4433, &[0x40, 0x27, 0xee, 1, 1, 2, 3, 4, 5])),
        ipv4(6, &[], &tcp(82, SYN, b"")),
        ipv4(6, &[], &tcp(83, SYN, b"")),
        ipv6(6, &[], &tcp(82, SYN, b"")),
        ipv4(6, &[], &tcp(22, SYN, b"")),
        ipv4(6, &[], &tcp(80, ACK, &[7; 1440])),
        ipv4(6, &[], &tcp(80, ACK, &[7; 1500])),
        partial(web(SYN)),
        // IPv4 options: none, record route, source routes, and broken ones.
        ipv4(6, &[1, 1, 1, 0], &tcp(80, ACK, b"x")),
        ipv4(6, &[7, 7, 4, 0, 0, 0, 0, 0], &tcp(80, ACK, b"x")),
        ipv4(17, &[131, 7, 4, 10, 0, 0, 1, 0], &udp(5000, b"x")),
        ipv4(17, &[137, 7, 4, 10, 0, 0, 1, 0], &udp(5000, b"x")),
        ipv4(17, &[7, 40, 4, 0], &udp(5000, b"x")),
        ipv4(17, &[148, 1, 0, 0], &udp(5000, b"x")),
        // UDP and SCTP over IPv4.
        ipv4(17, &[], &udp(5000, b"question")),
        ipv4(17, &[], &udp(5010, b"")),
        ipv4(17, &[], &udp(53, b"not a service")),
        partial(ipv4(17, &[], &udp(5001, b"question"))),
        // Too large for some ways, with and without "don't fragment".
        with(ipv4(6, &[], &tcp(80, ACK, &[7; 1440])), 20, &[0]),
        with(ipv4(17, &[], &udp(5000, &[7; 1472])), 20, &[0]),
        with(ipv4(17, &[], &udp(5001, &[7; 1700])), 20, &[0]),
        ipv4(17, &[], &udp(5001, &[7; 1472])),
        ipv6(17, &[], &udp(53, &[7; 1400])),
        // From a server: of no flow, and about none.
        with(with(web(SYN | ACK), 26, &[10, 0, 0, 1]), 30, &CLIENT),
        with(with(ipv4(17, &[], &udp(5000, b"?")), 26, &[10, 0, 0, 1]), 30, &CLIENT),
        with(with(ipv4(1, &[], &icmp(3, 3, &invoking(false, 6, 80, 9))), 26, &[10, 0, 0, 1]), 30, &CLIENT),
        with(with(web(ACK), 26, &[10, 0, 0, 1]), 30, &LOCALS[0]),
        with(ipv4(1, &[], &icmp(8, 0, b"abcdefg")), 30, &GATEWAY),
        // Fragments, first and later ones that belong together, and some that belong to nothing.
        with(ipv4(6, &[], &tcp(80, ACK, &[3; 20])), 20, &[0x20, 0]),
        with(ipv4(6, &[], &tcp(80, ACK, &[3; 16])), 20, &[0x20, 5]),
        with(ipv4(17, &[], &udp(5000, &[3; 24])), 20, &[0x20, 0]),
        with(ipv4(17, &[], &udp(5000, &[3; 24])), 20, &[0x20, 4]),
        with(ipv4(17, &[], &[3; 20]), 20, &[0x00, 8]),
        with(ipv4(6, &[], &tcp(80, SYN, b"")[..16]), 20, &[0x20, 0]),
        with(ipv4(6, &[], &[3; 32]), 20, &[0x00, 1]),
        with(ipv4(1, &[], &icmp(8, 0, &[3; 16])), 20, &[0x20, 0]),
        with(ipv4(1, &[], &[3; 16]), 20, &[0x00, 3]),
        with(web(ACK), 20, &[0x20, 0]),
        with(web(ACK), 20, &[0x00, 0xb9]),
        // Addresses that no client has.
        with(web(SYN), 22, &[1]),
        with(web(SYN), 26, &[127, 0, 0, 1]),
        with(web(SYN), 26, &[224, 0, 0, 1]),
        with(web(SYN), 26, &[0, 0, 0, 0]),
        with(web(SYN), 26, &VIP),
        with(web(SYN), 0, &[2, 9, 9, 9, 9, 9]),
        with(web(SYN), 0, &[0xff; 6]),
        with(web(SYN), 6, &OWN[0].0),
        with(web(SYN), 30, &[203, 0, 113, 99]),
        // Tags.
        tagged(web(SYN), 0x8100, 7),
        tagged(web(ACK), 0x8100, 0xe007),
        tagged(tagged(web(SYN), 0x8100, 7), 0x88a8, 9),
        tagged(tagged(tagged(web(SYN), 0x8100, 7), 0x8100, 8), 0x88a8, 9),
        tagged(arp(1, CLIENT, VIP), 0x8100, 5),
        // ARP.
        arp(1, CLIENT, VIP),
        arp(1, [0; 4], VIP),
        arp(2, CLIENT, VIP),
        arp(1, VIP, VIP),
        arp(1, CLIENT, [192, 0, 2, 11]),
        with(arp(1, CLIENT, VIP), 18, &[5]),
        with(arp(1, CLIENT, VIP), 22, &OWN[0].0),
        // ICMP.
        ipv4(1, &[], &icmp(8, 0, b"abcdefg")),
        ipv4(1, &[], &icmp(13, 0, &[0; 12])),
        ipv4(1, &[], &icmp(3, 4, &invoking(false, 6, 80, 40_000))),
        ipv4(1, &[], &icmp(3, 3, &invoking(false, 17, 5000, 4444))),
        ipv4(1, &[], &icmp(11, 0, &invoking(false, 132, 2905, 4386))),
        ipv4(1, &[], &icmp(3, 4, &invoking(false, 6, 80, 9))),
        ipv4(1, &[], &icmp(3, 4, &[0x45, 0, 0])),
        // IPv6.
        ipv6(6, &[], &tcp(80, SYN, b"")),
        ipv6(6, &[], &tcp(80, ACK, b"six")),
        ipv6(6, &[], &tcp(80, FIN | ACK, b"")),
        ipv6(17, &[], &udp(53, b"question")),
        ipv6(132, &[], &sctp(1)),
        ipv6(6, &[hop.clone(), options(0)], &tcp(80, ACK, b"x")),
        ipv6(
            17,
            &[(51, vec![0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])],
            &udp(9, b"x"),
        ),
        ipv6(6, &[routing(0)], &tcp(80, SYN, b"")),
        ipv6(6, &[routing(4)], &tcp(80, SYN, b"")),
        ipv6(6, &[fragment(0)], &tcp(80, SYN, b"")),
        ipv6(6, &[fragment(1)], &tcp(80, SYN, b"")),
        ipv6(6, &[fragment(0x100)], &tcp(80, SYN, b"")),
        ipv6(17, &[fragment(1)], &udp(53, &[3; 24])),
        ipv6(17, &[fragment(0x21)], &[3; 32]),
        ipv6(17, &[fragment(0x40)], &[3; 9]),
        ipv6(60, &[options(0), fragment(0x20)], &[3; 9]),
        ipv6(6, &[fragment(1), options(0)], &tcp(80, ACK, &[3; 20])),
        ipv6(6, &[fragment(1)], &tcp(80, ACK, b"")[..16]),
        ipv6(58, &[fragment(1)], &icmp(128, 0, &[3; 16])),
        ipv6(6, &[options(0), hop.clone()], &tcp(80, SYN, b"")),
        ipv6(6, &std::iter::repeat_n(options(0), 9).collect::<Vec<_>>(), &tcp(80, SYN, b"")),
        ipv6(59, &[], &[]),
        ipv6(58, &[], &icmp(128, 0, b"abcdefg")),
        ipv6(58, &[], &icmp(131, 0, &[0; 16])),
        ipv6(58, &[], &icmp(2, 0, &invoking(true, 6, 80, 40_000))),
        ipv6(58, &[], &icmp(1, 4, &invoking(true, 17, 53, 4444))),
        ipv6(58, &[], &icmp(2, 0, &invoking(true, 6, 80, 9))),
        // Neighbour discovery.
        neighbour(135, CLIENT6, true, 255),
        neighbour(135, CLIENT6, false, 255),
        neighbour(135, [0; 16], false, 255),
        neighbour(135, CLIENT6, true, 64),
        neighbour(136, CLIENT6, true, 255),
        // Nobody's.
        ethernet(0x88cc, &[2, 7, 4, 0, 0, 0, 0, 0]),
        ethernet(0x05dc, &[0x42; 60]),
    ];
    for chunk in [0, 1, 3, 6, 7, 10, 11, 14] {
        all.push(ipv4(132, &[], &sctp(chunk)));
    }
    all
}

/// Where the network header is, and its ethertype.
fn network(frame: &[u8]) -> Option<(usize, u16)> {
    let mut l3 = 14;
    let mut kind = parse::be16(frame, 12)?;
    while matches!(kind, 0x8100 | 0x88a8) && l3 < 26 {
        kind = parse::be16(frame, l3 + 2)?;
        l3 += 4;
    }
    Some((l3, kind))
}

/// Makes checksums right, as far as the frame makes sense.
pub fn repaired(mut frame: Vec<u8>) -> Vec<u8> {
    let Some((l3, kind)) = network(&frame) else { return frame };
    if kind == 0x0800 && frame.len() >= l3 + 20 {
        let header = usize::from(frame[l3] & 15) * 4;
        if header >= 20 && frame.len() >= l3 + header {
            frame[l3 + 10..l3 + 12].fill(0);
            let check = checksum::checksum(&frame[l3..l3 + header]);
            frame[l3 + 10..l3 + 12].copy_from_slice(&check.to_ne_bytes());
        }
    }
    let Ok(parsed) = parse::parse(&frame) else { return frame };
    if parsed.part != parse::Part::Whole {
        return frame;
    }
    let (l4, length) = (usize::from(parsed.l4), usize::from(parsed.l4_len));
    let at = match parsed.protocol {
        1 | 58 => 2,
        6 => 16,
        17 => 6,
        132 => 8,
        _ => return frame,
    };
    let width = if parsed.protocol == 132 { 4 } else { 2 };
    if l4 == 0 || length < at + width || frame.len() < l4 + length {
        return frame;
    }
    frame[l4 + at..l4 + at + width].fill(0);
    if parsed.protocol == 132 {
        if let Some(check) = checksum::sctp(&frame[l4..l4 + length]) {
            frame[l4 + 8..l4 + 12].copy_from_slice(&check);
        }
        return frame;
    }
    let (from, to) = if kind == 0x0800 { (l3 + 12, l3 + 20) } else { (l3 + 8, l3 + 40) };
    let middle = from + (to - from) / 2;
    let start = match parsed.protocol {
        1 => 0,
        protocol => checksum::pseudo_header(&frame[from..middle], &frame[middle..to], protocol, length as u32),
    };
    let check = !checksum::fold(checksum::sum(&frame[l4..l4 + length], start));
    frame[l4 + at..l4 + at + 2].copy_from_slice(&check.to_ne_bytes());
    frame
}

/// The same kind of packet from another client, perhaps to another port and with other flags.
fn varied(mut frame: Vec<u8>, crowd: &[[u8; 6]], random: &mut Random) -> Vec<u8> {
    let Ok(parsed) = parse::parse(&frame) else { return frame };
    if !matches!(parsed.kind, parse::Kind::Flow4 | parse::Kind::Flow6) {
        return frame;
    }
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let source = l3 + if parsed.kind == parse::Kind::Flow4 { 15 } else { 23 };
    frame[source] = 1 + random.below(20) as u8;
    if let Some(fragment) = parse::fragment_of(&frame, &parsed) {
        // Of few packets, so that their pieces meet.
        let id = if fragment.id.v6 { l4 - 1 } else { l3 + 5 };
        if parsed.part == parse::Part::Later || parsed.kind == parse::Kind::Flow4 {
            frame[id] = 8 + random.below(4) as u8;
        }
        frame[source] = 1 + random.below(4) as u8;
        return repaired(frame);
    }
    if random.one_in(4) && !crowd.is_empty() && frame[6..12] == CLIENT_MAC {
        frame[6..12].copy_from_slice(&crowd[random.index(crowd.len())]);
    }
    frame[l4 + 1] = random.below(60) as u8;
    if random.one_in(3) {
        let ports = [
            80,
            80,
            81,
            443,
            25,
            25,
            6000,
            6000,
            8000,
            8007,
            5000,
            5003,
            5010,
            2905,
            53,
            700,
            701,
            82,
            82,
            83,
            5060,
            4433,
            5100,
            random.below(65_536),
        ];
        let port = ports[random.index(ports.len())] as u16;
        frame[l4 + 2..l4 + 4].copy_from_slice(&port.to_be_bytes());
    }
    if parsed.protocol == parse::TCP && random.one_in(2) {
        frame[l4 + 13] = [SYN, ACK, ACK, PSH | ACK, FIN | ACK, RST | ACK][random.index(6)];
    }
    repaired(frame)
}

fn spoil(frame: &mut Vec<u8>, bases: &[Vec<u8>], random: &mut Random) {
    let headers = frame.len().min(100);
    if headers < 2 {
        return;
    }
    let at = random.index(headers);
    match random.below(10) {
        0 | 1 => frame[at] = random.byte(),
        2 => frame[at] ^= 1 << random.below(8),
        3 => {
            let length = frame.len() as u16;
            let words = [0, 1, 0xffff, 0x8000, length, length.wrapping_sub(14), length.wrapping_sub(13)];
            let word = words[random.index(words.len())].to_be_bytes();
            let at = at.min(frame.len() - 2);
            frame[at..at + 2].copy_from_slice(&word);
        }
        4 => frame.truncate(random.index(frame.len())),
        5 => {
            let more = random.index(40);
            let fill = random.byte();
            frame.resize(frame.len() + more, fill);
        }
        6 => {
            let other = &bases[random.index(bases.len())];
            frame.truncate(at);
            frame.extend_from_slice(other.get(at..).unwrap_or_default());
        }
        7 => *frame = tagged(std::mem::take(frame), [0x8100, 0x88a8][random.index(2)], random.next() as u16),
        8 => {
            let piece: Vec<u8> = frame[at..].iter().take(random.index(24)).copied().collect();
            frame.splice(at..at, piece);
        }
        _ => {
            let end = (at + random.index(16)).min(frame.len());
            frame.drain(at..end);
        }
    }
}

/// The pieces of one datagram, in any order, perhaps one twice, one missing, one that overlaps, or very many of them.
pub fn fragments(random: &mut Random) -> Vec<Vec<u8>> {
    let v6 = random.one_in(2);
    let many = random.one_in(8);
    let pieces = if many { 60 + random.below(100) } else { 2 + random.below(12) };
    let size = if many { 8 } else { 8 * (1 + random.below(20)) };
    let body =
        udp([5003, 5000, 5000, 5000, 6000][random.index(5)], &vec![5; (pieces * size) as usize - random.index(8) - 8]);
    let (id, client) = (random.byte(), 1 + random.below(20) as u8);
    let one = |start: usize, end: usize| {
        let (more, end) = (end < body.len(), end.min(body.len()));
        let word = start as u16;
        let mut frame = if v6 {
            let [hi, lo] = (word | u16::from(more)).to_be_bytes();
            ipv6(17, &[(44, vec![0, 0, hi, lo, 0, 0, 1, id])], &body[start..end])
        } else {
            let [hi, lo] = ((word / 8) | if more { 0x2000 } else { 0 }).to_be_bytes();
            with(with(ipv4(17, &[], &body[start..end]), 20, &[hi, lo]), 18, &[0, id])
        };
        frame[if v6 { 37 } else { 29 }] = client;
        repaired(frame)
    };
    let size = size as usize;
    let mut all: Vec<Vec<u8>> = (0..body.len().div_ceil(size)).map(|n| one(n * size, (n + 1) * size)).collect();
    match random.below(6) {
        0 => {
            let at = random.index(all.len());
            all.push(all[at].clone());
        }
        1 => {
            all.remove(random.index(all.len()));
        }
        2 if body.len() > 24 => {
            let start = 8 * random.index(body.len() / 8 - 1);
            all.push(one(start, start + 16));
        }
        _ => {}
    }
    if random.one_in(4) {
        all.reverse();
    }
    // A few change places.
    for _ in 0..random.below(4) {
        let (a, b) = (random.index(all.len()), random.index(all.len()));
        all.swap(a, b);
    }
    all
}

/// A datagram of a client to a service that looks into it.
fn talking(random: &mut Random) -> Vec<u8> {
    let (port, payload) = if random.one_in(2) { (5060, talk::sip(random)) } else { (4433, talk::quic(random)) };
    ipv4(17, &[], &udp(port, &payload))
}

/// One hostile frame: sound, nearly sound, or garbage.
pub fn mutated(bases: &[Vec<u8>], crowd: &[[u8; 6]], random: &mut Random) -> Vec<u8> {
    if random.one_in(40) {
        let length = random.index(200);
        return (0..length).map(|_| random.byte()).collect();
    }
    let mut frame = bases[random.index(bases.len())].clone();
    if random.one_in(16) {
        frame = varied(talking(random), &[], random);
    } else if !random.one_in(4) {
        frame = varied(frame, crowd, random);
    }
    if random.one_in(2) { spoiled(frame, bases, random) } else { frame }
}

/// The same packet once more, or a later one of its connection.
pub fn again(mut frame: Vec<u8>, random: &mut Random) -> Vec<u8> {
    if let Ok(parsed) = parse::parse(&frame)
        && parsed.protocol == parse::TCP
        && parsed.part == parse::Part::Whole
        && !random.one_in(4)
    {
        frame[usize::from(parsed.l4) + 13] = [ACK, PSH | ACK, PSH | ACK, FIN | ACK][random.index(4)];
        return repaired(frame);
    }
    frame
}

/// A frame with a few things wrong.
pub fn spoiled(mut frame: Vec<u8>, bases: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    for _ in 0..1 + random.below(4) {
        // A tag needs a whole Ethernet header to go into.
        if frame.len() >= 14 {
            spoil(&mut frame, bases, random);
        }
    }
    if random.one_in(2) {
        frame = repaired(frame);
    }
    frame.truncate(LONGEST);
    frame
}

/// Neighbours that a worker keeps in one small place: more of them than fit.
pub fn crowded() -> Vec<[u8; 6]> {
    let mut hops = LastHops::default();
    let mut first = None;
    let all = (0u32..).filter_map(|n| {
        let [_, a, b, c] = n.to_be_bytes();
        let mac = [2, 0xcc, 0, a, b, c];
        let number = hops.take(Hop { mac: MacAddr(mac), port: 0, vlan: parse::NO_VLAN })?;
        hops.give(number);
        (*first.get_or_insert(number) == number).then_some(mac)
    });
    all.take(12).collect()
}
