//! What goes in comes out again, header by header, and as the real IPVS sends it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, NetSlice, PacketBuilder, SlicedPacket};
use proptest::prelude::*;

use super::*;
use crate::dataplane::checksum;
use crate::dataplane::io::memory::HeapMemory;
use crate::dataplane::parse::{self, Kind, Part};
use crate::dataplane::verdict::{Outcome, Verdict};

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 1];
const HERE4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THERE4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 21);
const HERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const THERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x21);

fn server(vlan: u16) -> ServerEntry {
    ServerEntry { macs: MACS, vlan, outcome: Outcome::plain(Verdict::Tx(0)), ..ServerEntry::EMPTY }
}

fn ends(v6: bool) -> (IpAddr, IpAddr) {
    if v6 { (HERE6.into(), THERE6.into()) } else { (HERE4.into(), THERE4.into()) }
}

fn tunnel(method: Method, v6: bool, settings: TunnelSettings) -> Tunnel {
    let (here, there) = ends(v6);
    Tunnel::new(method, here, there, settings)
}

/// A UDP packet in Ethernet, with tags if asked, and its parse.
fn packet(v6: bool, tos: u8, ttl: u8, df: bool, tag: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut ip = Vec::new();
    if v6 {
        PacketBuilder::ipv6([0x20; 16], [0x30; 16], ttl).udp(4000, 53).write(&mut ip, payload).expect("builds");
        ip[0] = 0x60 | tos >> 4;
        ip[1] = tos << 4 | 0x05;
    } else {
        PacketBuilder::ipv4([198, 51, 100, 7], [192, 0, 2, 10], ttl).udp(4000, 53).write(&mut ip, payload).expect("ok");
        ip[1] = tos;
        ip[6] = if df { 0x40 } else { 0 };
        ip[10..12].fill(0);
        let check = checksum::checksum(&ip[..20]);
        ip[10..12].copy_from_slice(&check.to_ne_bytes());
    }
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
    if let Some(tci) = tag {
        frame.extend_from_slice(&[0x81, 0]);
        frame.extend_from_slice(&tci.to_be_bytes());
    }
    frame.extend_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
    frame.extend_from_slice(&ip);
    frame
}

fn place(memory: &mut HeapMemory, bytes: &[u8]) -> Frame {
    let frame = memory.allocate(0, bytes.len() as u32).expect("room");
    memory.bytes_mut(&frame).copy_from_slice(bytes);
    frame
}

/// The frame that leaves, or why none does; a refused frame is checked to be what it was.
fn wrap(
    bytes: &[u8],
    parsed: &Parsed,
    server: &ServerEntry,
    tunnel: &Tunnel,
    hash: u32,
    id: u16,
) -> Result<Vec<u8>, DropReason> {
    let mut memory = HeapMemory::new(1, 4096);
    let mut frame = place(&mut memory, bytes);
    let before = frame;
    let result = encapsulate(&mut memory, &mut frame, parsed, server, tunnel, hash, id);
    if result.is_err() {
        assert_eq!((frame, memory.bytes(&frame)), (before, bytes));
    }
    result.map(|()| memory.bytes(&frame).to_vec())
}

/// The inner packet, with what the outer header says of it. By hand, so that every byte is looked at.
struct Opened<'a> {
    tos: u8,
    ttl: u8,
    df: bool,
    id: u16,
    source: IpAddr,
    port: u16,
    inner: &'a [u8],
}

fn open(outer: &[u8], method: Method, v6: bool, inner_v6: bool) -> Opened<'_> {
    let (here, there) = ends(v6);
    let inside = if inner_v6 { 41 } else { 4 };
    let protocol = match method {
        Method::Ipip => inside,
        Method::Gre => 47,
        _ => 17,
    };
    let (head, mut rest, mut opened);
    if v6 {
        (head, rest) = outer.split_at(40);
        assert_eq!(head[0] >> 4, 6);
        assert_eq!((head[1] & 0x0f, head[2], head[3]), (0, 0, 0), "no flow label");
        assert_eq!(usize::from(u16::from_be_bytes([head[4], head[5]])), rest.len());
        assert_eq!(head[6], protocol);
        let source: [u8; 16] = head[8..24].try_into().expect("16");
        let tos = head[0] << 4 | head[1] >> 4;
        opened = Opened { tos, ttl: head[7], df: true, id: 0, source: source.into(), port: 0, inner: rest };
        assert_eq!(IpAddr::from(<[u8; 16]>::try_from(&head[24..40]).expect("16")), there);
    } else {
        (head, rest) = outer.split_at(20);
        assert_eq!(head[0], 0x45);
        assert_eq!(usize::from(u16::from_be_bytes([head[2], head[3]])), outer.len());
        assert_eq!(checksum::fold(checksum::sum(head, 0)), 0xffff, "header checksum");
        assert!(head[6] & !0x40 == 0 && head[7] == 0 && head[9] == protocol);
        let source: [u8; 4] = head[12..16].try_into().expect("4");
        opened = Opened {
            tos: head[1],
            ttl: head[8],
            df: head[6] & 0x40 != 0,
            id: u16::from_be_bytes([head[4], head[5]]),
            source: source.into(),
            port: 0,
            inner: rest,
        };
        assert_eq!(IpAddr::from(<[u8; 4]>::try_from(&head[16..20]).expect("4")), there);
    }
    if method == Method::Gre {
        assert_eq!(rest[..4], if inner_v6 { [0, 0, 0x86, 0xdd] } else { [0, 0, 8, 0] });
        rest = &rest[4..];
    } else if method == Method::Gue {
        opened.port = u16::from_be_bytes([rest[0], rest[1]]);
        assert_eq!(u16::from_be_bytes([rest[2], rest[3]]), 6080);
        assert_eq!(usize::from(u16::from_be_bytes([rest[4], rest[5]])), rest.len());
        assert_eq!(rest[6..8], [0, 0], "no checksum");
        assert_eq!(rest[8..12], [0, inside, 0, 0]);
        rest = &rest[12..];
    }
    opened.inner = rest;
    if method != Method::Ipip && method != Method::Gre {
        assert_eq!(opened.source, here);
    }
    opened
}

fn combinations() -> impl Iterator<Item = (Method, bool, bool)> {
    [Method::Ipip, Method::Gue, Method::Gre]
        .into_iter()
        .flat_map(|method| [(false, false), (false, true), (true, false), (true, true)].map(|(o, i)| (method, o, i)))
}

/// The packet as it must come out of the tunnel: one hop later.
fn aged(bytes: &[u8], v6: bool) -> Vec<u8> {
    let mut aged = bytes.to_vec();
    if v6 {
        aged[7] -= 1;
    } else {
        aged[8] -= 1;
        aged[10..12].fill(0);
        let check = checksum::checksum(&aged[..20]);
        aged[10..12].copy_from_slice(&check.to_ne_bytes());
    }
    aged
}

#[test]
fn each_combination_parses_as_what_it_is() {
    for (method, v6, inner_v6) in combinations() {
        let bytes = packet(inner_v6, 0, 64, true, None, b"question");
        let parsed = parse::parse(&bytes).expect("parses");
        let tunnel = tunnel(method, v6, TunnelSettings::default());
        let out = wrap(&bytes, &parsed, &server(NO_VLAN), &tunnel, 7, 9).expect("wraps");
        assert_eq!(out.len(), bytes.len() + tunnel.overhead() as usize);
        assert_eq!(out[..12], MACS);
        let sliced = SlicedPacket::from_ethernet(&out).expect("etherparse takes it");
        let (number, source, destination): (IpNumber, IpAddr, IpAddr) = match sliced.net.expect("IP") {
            NetSlice::Ipv4(ip) => {
                (ip.payload().ip_number, ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            NetSlice::Ipv6(ip) => {
                (ip.payload().ip_number, ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((source, destination), ends(v6));
        let expected = match method {
            Method::Gue => IpNumber::UDP,
            Method::Gre => IpNumber::GRE,
            _ if inner_v6 => IpNumber::IPV6,
            _ => IpNumber::IPV4,
        };
        assert_eq!(number, expected);
        assert_eq!(open(&out[14..], method, v6, inner_v6).inner, aged(&bytes[14..], inner_v6));
    }
}

#[test]
fn ipvs_sends_the_same() {
    let file = std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ipvs-tun.pcap")).expect("opens");
    let mut reader = pcap_file::pcap::PcapReader::new(file).expect("a capture");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.expect("a frame").data.into_owned());
    }
    assert_eq!(frames.len(), 24);
    for (number, pair) in frames.chunks_exact(2).enumerate() {
        let (client, theirs) = (&pair[0], &pair[1]);
        let parsed = parse::parse(client).expect("parses");
        let mut server = server(NO_VLAN);
        server.macs.copy_from_slice(&theirs[..12]);
        let to: [u8; 4] = theirs[30..34].try_into().expect("4");
        let tunnel = Tunnel::new(Method::Ipip, HERE4.into(), to.into(), TunnelSettings::default());
        let ours = wrap(client, &parsed, &server, &tunnel, number as u32, 1234).expect("wraps");
        assert_eq!(&ours, theirs, "pair {number}");
    }
}

#[test]
fn tags_are_pushed_changed_and_taken_off() {
    for (method, v6, inner_v6) in combinations() {
        for (tag, vlan, expected) in [
            (None, 100, Some(100)),
            (Some(0xa064), 200, Some(0xa0c8)),
            (Some(0xa064), NO_VLAN, None),
            (Some(0x0001), 1, Some(1)),
        ] {
            let bytes = packet(inner_v6, 0, 9, false, tag, b"x");
            let parsed = parse::parse(&bytes).expect("parses");
            let tunnel = tunnel(method, v6, TunnelSettings::default());
            let out = wrap(&bytes, &parsed, &server(vlan), &tunnel, 1, 1).expect("wraps");
            let l3 = if let Some(tci) = expected {
                assert_eq!(out[12..14], [0x81, 0]);
                assert_eq!(u16::from_be_bytes([out[14], out[15]]), tci);
                18
            } else {
                14
            };
            assert_eq!(out[l3 - 2..l3], if v6 { [0x86, 0xdd] } else { [8, 0] });
            let inner = &bytes[if tag.is_some() { 18 } else { 14 }..];
            assert_eq!(open(&out[l3..], method, v6, inner_v6).inner, aged(inner, inner_v6));
        }
    }
}

#[test]
fn what_cannot_be_wrapped_is_left_alone() {
    let plain = TunnelSettings::default();
    let ipip = tunnel(Method::Ipip, false, plain);
    let last_hop = packet(false, 0, 1, false, None, b"");
    let parsed = parse::parse(&last_hop).expect("parses");
    assert_eq!(wrap(&last_hop, &parsed, &server(NO_VLAN), &ipip, 0, 0), Err(DropReason::TtlExpired));
    let last_hop = packet(true, 0, 1, false, Some(5), b"");
    let parsed = parse::parse(&last_hop).expect("parses");
    assert_eq!(wrap(&last_hop, &parsed, &server(6), &ipip, 0, 0), Err(DropReason::TtlExpired));

    let bytes = packet(false, 0, 9, false, None, b"");
    let parsed = parse::parse(&bytes).expect("parses");
    let twice = Parsed { tags: 2, ..parsed };
    assert_eq!(wrap(&bytes, &twice, &server(NO_VLAN), &ipip, 0, 0), Err(DropReason::BadVlan));
    let longer = Parsed { l4_len: parsed.l4_len + 1, ..parsed };
    assert_eq!(wrap(&bytes, &longer, &server(NO_VLAN), &ipip, 0, 0), Err(DropReason::Truncated));
    let arp = Parsed { l4: 0, l4_len: 0, ..parsed };
    assert_eq!(wrap(&bytes, &arp, &server(NO_VLAN), &ipip, 0, 0), Err(DropReason::Truncated));
    let mut other = bytes.clone();
    other[14] = 0x55;
    assert_eq!(wrap(&other, &parsed, &server(NO_VLAN), &ipip, 0, 0), Err(DropReason::BadIpHeader));

    // Headroom: exactly enough, and one byte less.
    for (method, v6, _) in combinations() {
        let tunnel = tunnel(method, v6, plain);
        for spare in [0, 1] {
            let mut memory = HeapMemory::new(1, 4096);
            let mut frame = place(&mut memory, &bytes);
            // Down to the chunk's start but for the room that is needed.
            let room = u64::from(tunnel.overhead()) + 4 - spare;
            let low = Frame { addr: frame.addr - memory.headroom(&frame) as u64 + room, ..frame };
            memory.bytes_mut(&low).copy_from_slice(&bytes);
            frame = low;
            let result = encapsulate(&mut memory, &mut frame, &parsed, &server(5), &tunnel, 0, 0);
            if spare == 0 {
                assert_eq!((result, memory.headroom(&frame)), (Ok(()), 0));
            } else {
                assert_eq!((result, frame), (Err(DropReason::NoHeadroom), low));
                assert_eq!(memory.bytes(&frame), bytes);
            }
        }
    }
}

#[test]
fn padding_goes_and_fragments_stay() {
    let mut bytes = packet(false, 0, 9, false, None, b"");
    let whole = bytes.len();
    bytes.resize(60, 0xee);
    let parsed = parse::parse(&bytes).expect("parses");
    let ipip = tunnel(Method::Ipip, false, TunnelSettings::default());
    let out = wrap(&bytes, &parsed, &server(NO_VLAN), &ipip, 0, 0).expect("wraps");
    assert_eq!(out.len(), whole + 20);
    // A later fragment: no ports, and its own offset stays inside.
    bytes[20] = 0x20;
    bytes[21] = 0x10;
    bytes[24..26].fill(0);
    let check = checksum::checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&check.to_ne_bytes());
    let later = Parsed { part: Part::Later, kind: Kind::Other, ..parsed };
    let out = wrap(&bytes, &later, &server(NO_VLAN), &ipip, 0, 77).expect("wraps");
    let opened = open(&out[14..], Method::Ipip, false, false);
    assert_eq!((opened.df, opened.id), (false, 77));
    assert_eq!(opened.inner, aged(&bytes[14..whole], false));
}

#[test]
fn ce_becomes_ect0_outside_and_stays_inside() {
    for (method, v6, inner_v6) in combinations() {
        for ecn in 0..4u8 {
            let bytes = packet(inner_v6, 0xb8 | ecn, 64, true, None, b"");
            let parsed = parse::parse(&bytes).expect("parses");
            let tunnel = tunnel(method, v6, TunnelSettings::default());
            let out = wrap(&bytes, &parsed, &server(NO_VLAN), &tunnel, 0, 0).expect("wraps");
            let opened = open(&out[14..], method, v6, inner_v6);
            assert_eq!(opened.tos, 0xb8 | if ecn == 3 { 2 } else { ecn });
            assert_eq!(opened.inner, aged(&bytes[14..], inner_v6));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_goes_in_comes_out(
        which in 0usize..12, tos: u8, ttl in 2u8.., df: bool, tag in proptest::option::of(any::<u16>()),
        vlan in prop_oneof![Just(NO_VLAN), 0u16..4095], hash: u32, id: u16, fixed in proptest::option::of(1u8..),
        spread in 0u8..40, payload in proptest::collection::vec(any::<u8>(), 0..1500),
    ) {
        let (method, v6, inner_v6) = combinations().nth(which).expect("twelve");
        let bytes = packet(inner_v6, tos, ttl, df, tag, &payload);
        let parsed = parse::parse(&bytes).expect("parses");
        let settings = TunnelSettings { ttl: fixed, source_spread_bits: spread, ..TunnelSettings::default() };
        let tunnel = tunnel(method, v6, settings);
        let out = wrap(&bytes, &parsed, &server(vlan), &tunnel, hash, id).expect("wraps");
        let l3 = if vlan == NO_VLAN { 14 } else { 18 };
        prop_assert_eq!(out.len(), l3 + tunnel.overhead() as usize + bytes.len() - usize::from(parsed.l3));
        let opened = open(&out[l3..], method, v6, inner_v6);
        prop_assert_eq!(opened.inner, aged(&bytes[usize::from(parsed.l3)..], inner_v6));
        prop_assert_eq!(opened.ttl, fixed.unwrap_or(ttl - 1));
        prop_assert_eq!(opened.tos & 0xfc, tos & 0xfc);
        if !v6 {
            let keeps = df && !inner_v6;
            prop_assert_eq!((opened.df, opened.id), (keeps, if keeps { 0 } else { id }));
        }
        if method == Method::Gue {
            prop_assert!(opened.port >= FIRST_DYNAMIC_PORT);
        } else {
            let mask = ((1u128 << spread.min(32)) - 1) as u32;
            let (here, _) = ends(v6);
            match (opened.source, here) {
                (IpAddr::V4(a), IpAddr::V4(b)) => prop_assert_eq!(u32::from(a), u32::from(b) & !mask | hash & mask),
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    let (mask, hash) = (u128::from(mask), u128::from(hash));
                    prop_assert_eq!(u128::from(a), u128::from(b) & !mask | hash & mask);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
