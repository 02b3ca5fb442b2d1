//! NAT against packets built anew with the other addresses and ports: they must be equal byte for byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::dataplane::checksum::{checksum, fold, pseudo_header, sctp, sum};
use crate::dataplane::parse::{ICMP, ICMPV6, NO_VLAN, parse, verify_transport};

/// A packet to be built, with every checksum right.
#[derive(Clone, Debug)]
pub struct Build {
    pub protocol: u8,
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub tags: u8,
    /// Words of IPv4 options, or IPv6 extension headers.
    pub extra: u8,
    pub ttl: u8,
    /// The transport header behind the ports, checksum and length zero, and the payload.
    pub body: Vec<u8>,
    /// UDP without a checksum.
    pub unchecked: bool,
}

impl Build {
    pub fn v6(&self) -> bool {
        self.source.0.is_ipv6()
    }

    fn addresses(&self) -> (Vec<u8>, Vec<u8>) {
        let octets = |address| match address {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        (octets(self.source.0), octets(self.destination.0))
    }

    fn transport(&self) -> Vec<u8> {
        let (source, destination) = self.addresses();
        let mut out = self.body.clone();
        let at = match self.protocol {
            ICMP | ICMPV6 => 2,
            protocol => {
                let ports = [self.source.1.to_be_bytes(), self.destination.1.to_be_bytes()].concat();
                out.splice(0..0, ports);
                checksum_at(protocol).expect("known").0
            }
        };
        if self.protocol == UDP {
            let len = out.len() as u16;
            out[4..6].copy_from_slice(&len.to_be_bytes());
        }
        if self.protocol == SCTP {
            let check = sctp(&out).expect("long enough");
            out[8..12].copy_from_slice(&check);
            return out;
        }
        let pseudo = if self.protocol == ICMP {
            0
        } else {
            pseudo_header(&source, &destination, self.protocol, out.len() as u32)
        };
        let check = match !fold(sum(&out, pseudo)) {
            _ if self.protocol == UDP && self.unchecked => 0,
            0 if self.protocol == UDP => 0xffff,
            check => check,
        };
        out[at..at + 2].copy_from_slice(&check.to_ne_bytes());
        out
    }

    pub fn ip(&self) -> Vec<u8> {
        let (source, destination) = self.addresses();
        let transport = self.transport();
        let mut out = Vec::new();
        if self.v6() {
            let next = if self.extra > 0 { 60 } else { self.protocol };
            out.extend([0x60, 0, 0, 0, 0, 0, next, self.ttl]);
            out[4..6].copy_from_slice(&(transport.len() as u16 + u16::from(self.extra) * 8).to_be_bytes());
            out.extend([source, destination].concat());
            for left in (0..self.extra).rev() {
                out.extend([if left > 0 { 60 } else { self.protocol }, 0, 1, 4, 0, 0, 0, 0]);
            }
        } else {
            let header = 20 + 4 * u16::from(self.extra);
            out.extend([0x45 + self.extra, 0, 0, 0, 0x12, 0x34, 0x40, 0, self.ttl, self.protocol, 0, 0]);
            out[2..4].copy_from_slice(&(header + transport.len() as u16).to_be_bytes());
            out.extend([source, destination].concat());
            out.extend([1, 1, 1, 1].repeat(self.extra.into()));
            let check = checksum(&out);
            out[10..12].copy_from_slice(&check.to_ne_bytes());
        }
        out.extend(transport);
        out
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut out = [2; 12].to_vec();
        for _ in 0..self.tags {
            out.extend([0x81, 0, 0, 7]);
        }
        out.extend(if self.v6() { [0x86, 0xdd] } else { [8, 0] });
        out.extend(self.ip());
        out
    }

    /// The same packet between other ends.
    pub fn between(&self, source: Option<Endpoint>, destination: Option<Endpoint>) -> Build {
        let end =
            |old: (IpAddr, u16), new: Option<Endpoint>| new.map_or(old, |new| (new.address, new.port.unwrap_or(old.1)));
        Build { source: end(self.source, source), destination: end(self.destination, destination), ..self.clone() }
    }
}

/// Addresses and ports, with the words that ones' complement sums confuse among them.
pub fn address(v6: bool) -> BoxedStrategy<IpAddr> {
    if v6 {
        prop_oneof![
            any::<[u8; 16]>().prop_map(|a| Ipv6Addr::from(a).into()),
            Just(Ipv6Addr::UNSPECIFIED.into()),
            Just(Ipv6Addr::from([0xff; 16]).into()),
        ]
        .boxed()
    } else {
        prop_oneof![
            any::<[u8; 4]>().prop_map(|a| Ipv4Addr::from(a).into()),
            Just(Ipv4Addr::UNSPECIFIED.into()),
            Just(Ipv4Addr::BROADCAST.into()),
        ]
        .boxed()
    }
}

pub fn port() -> impl Strategy<Value = u16> {
    prop_oneof![8 => any::<u16>(), 1 => Just(0u16), 1 => Just(0xffff)]
}

pub fn endpoint(v6: bool) -> impl Strategy<Value = Option<Endpoint>> {
    let end = (address(v6), proptest::option::of(port())).prop_map(|(address, port)| Endpoint { address, port });
    proptest::option::of(end)
}

fn body(protocol: u8) -> impl Strategy<Value = Vec<u8>> {
    let header: usize = match protocol {
        TCP => 16,
        UDP => 4,
        _ => 8,
    };
    (any::<[u8; 16]>(), proptest::collection::vec(any::<u8>(), 0..120)).prop_map(move |(head, payload)| {
        let mut out = head[..header].to_vec();
        match protocol {
            TCP => {
                out[8] = 0x50;
                out[12..14].fill(0);
            }
            UDP => out[2..4].fill(0),
            _ => out[4..8].fill(0),
        }
        out.extend(payload);
        out
    })
}

pub fn build(v6: bool, protocols: &'static [u8]) -> impl Strategy<Value = Build> {
    proptest::sample::select(protocols).prop_flat_map(move |protocol| {
        ((address(v6), port(), address(v6), port()), 0u8..3, 0u8..4, 2u8.., body(protocol), any::<bool>()).prop_map(
            move |((from, from_port, to, to_port), tags, extra, ttl, body, unchecked)| Build {
                protocol,
                source: (from, from_port),
                destination: (to, to_port),
                tags,
                extra,
                ttl,
                body,
                unchecked,
            },
        )
    })
}

const FLOWS: &[u8] = &[TCP, UDP, SCTP];

fn translation() -> impl Strategy<Value = (Build, Option<Endpoint>, Option<Endpoint>)> {
    any::<bool>().prop_flat_map(|v6| (build(v6, FLOWS), endpoint(v6), endpoint(v6)))
}

pub fn parsed_of(build: &Build) -> Parsed {
    parse(&build.frame()).expect("parses")
}

proptest! {
    #[test]
    fn translated_equals_built_anew((build, source, destination) in translation()) {
        let mut frame = build.frame();
        let parsed = parsed_of(&build);
        prop_assert_eq!(translate(&mut frame, &parsed, source, destination), Ok(()));
        prop_assert_eq!(&frame, &build.between(source, destination).frame());
        if !(build.unchecked && build.v6() && build.protocol == UDP) {
            prop_assert_eq!(verify_transport(&frame, &parsed), Ok(()));
        }
    }

    #[test]
    fn wrong_checksums_stay_wrong((mut build, source, destination) in translation(), flip in 1u16..0xffff) {
        build.unchecked = false;
        let parsed = parsed_of(&build);
        let mut frame = build.frame();
        let at = usize::from(parsed.l4) + checksum_at(build.protocol).expect("known").0;
        let bad = u16::from_be_bytes([frame[at], frame[at + 1]]) ^ flip;
        // The two zeroes are the same sum.
        prop_assume!(bad != 0 && bad != 0xffff);
        frame[at..at + 2].copy_from_slice(&bad.to_be_bytes());
        prop_assert_eq!(translate(&mut frame, &parsed, source, destination), Ok(()));
        prop_assert!(verify_transport(&frame, &parsed).is_err());
    }

    #[test]
    fn fragments((build, source, destination) in translation(), cut: prop::sample::Index, later: bool) {
        let mut parsed = parsed_of(&build);
        let new = build.between(source, destination);
        let (l4, end) = (usize::from(parsed.l4), checksum_at(build.protocol).expect("known").1);
        let from = if later { 0 } else { end };
        let keep = from + cut.index(usize::from(parsed.l4_len) - from + 1);
        let cut = |mut frame: Vec<u8>| {
            frame.truncate(l4 + keep);
            frame
        };
        let mut frame = cut(build.frame());
        parsed.l4_len = keep as u16;
        if later {
            // The same bytes as payload: addresses change, nothing behind the IP header does.
            parsed.part = Part::Later;
            let before = frame.clone();
            prop_assert_eq!(translate(&mut frame, &parsed, source, destination), Ok(()));
            prop_assert_eq!(&frame[..l4], &new.frame()[..l4]);
            prop_assert_eq!(&frame[l4..], &before[l4..]);
        } else {
            parsed.part = Part::First;
            let before = frame.clone();
            let result = translate(&mut frame, &parsed, source, destination);
            let moved = new.source.1 != build.source.1 || new.destination.1 != build.destination.1;
            if build.protocol == SCTP && moved {
                prop_assert_eq!(result, Err(DropReason::Fragment));
                prop_assert_eq!(frame, before);
            } else {
                prop_assert_eq!(result, Ok(()));
                prop_assert_eq!(frame, cut(new.frame()));
            }
        }
    }

    #[test]
    fn icmp_errors_equal_those_built_anew(
        (inner, inner_source, inner_destination) in translation(),
        outer_ends in any::<[[u8; 16]; 4]>(),
        change in any::<[bool; 2]>(),
        extra in 0u8..3,
        tags in 0u8..3,
        quote: prop::sample::Index,
        padded: bool,
    ) {
        let v6 = inner.v6();
        let address = |number: usize| -> IpAddr {
            let octets = outer_ends[number];
            if v6 { octets.into() } else { (*octets.first_chunk::<4>().expect("four")).into() }
        };
        let header = parsed_of(&inner);
        let inner_l3_len = usize::from(header.l4 - header.l3);
        let total = inner.ip().len();
        let mut keep = inner_l3_len + 8 + quote.index(total - inner_l3_len - 7);
        // Half a checksum is left as it is.
        let (start, end) = checksum_at(inner.protocol).expect("known");
        if (start + 1..end).contains(&(keep - inner_l3_len)) {
            keep = inner_l3_len + start;
        }
        let error = |source: IpAddr, destination: IpAddr, inner: &Build| {
            let mut quoted = inner.ip();
            quoted.truncate(keep);
            let mut body = if v6 { vec![1, 4, 0, 0, 0, 0, 0, 0] } else { vec![3, 3, 0, 0, 0, 0, 0, 0] };
            if padded && (keep == total || keep >= 128) {
                // RFC 4884: a datagram below 128 bytes is whole; zeroes up to there, the length, an extension.
                quoted.resize(quoted.len().max(128).next_multiple_of(8), 0);
                body[if v6 { 4 } else { 5 }] = (quoted.len() / if v6 { 8 } else { 4 }) as u8;
                quoted.extend([0x20, 0, 0xde, 0xff]);
            }
            body.extend(quoted);
            let protocol = if v6 { ICMPV6 } else { ICMP };
            let build = Build {
                protocol, source: (source, 0), destination: (destination, 0), tags, extra, ttl: 9, body, unchecked: false,
            };
            build.frame()
        };
        let mut frame = error(address(0), address(1), &inner);
        let parsed = parse(&frame).expect("parses");
        let at = usize::from(parsed.l4) + 8;
        let (source, destination) = (change[0].then(|| address(2)), change[1].then(|| address(3)));
        let result = translate_icmp_error(
            &mut frame, &parsed, at, at + inner_l3_len, source, destination, inner_source, inner_destination,
        );
        prop_assert_eq!(result, Ok(()));
        let new = inner.between(inner_source, inner_destination);
        let expected = error(source.unwrap_or(address(0)), destination.unwrap_or(address(1)), &new);
        prop_assert_eq!(frame, expected);
    }

    #[test]
    fn garbage_is_never_read_past_its_end(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..260),
        kind in 0usize..6,
        protocol in prop::sample::select(&[TCP, UDP, SCTP, ICMP, ICMPV6, 0, 47][..]),
        part in 0usize..3,
        offsets in any::<[u8; 5]>(),
        version in 0u8..3,
        (source, destination) in any::<bool>().prop_flat_map(|v6| (endpoint(v6), endpoint(v6))),
    ) {
        let parsed = Parsed {
            kind: [Kind::Flow4, Kind::Flow6, Kind::Arp, Kind::Icmp4, Kind::Icmp6, Kind::Other][kind],
            protocol,
            tcp_flags: 0,
            part: [Part::Whole, Part::First, Part::Later][part],
            tags: 0,
            vlan: NO_VLAN,
            l3: u16::from(offsets[0] / 8),
            l4: u16::from(offsets[1] / 2),
            l4_len: u16::from(offsets[2]),
        };
        let inner = usize::from(offsets[3] / 2);
        if let (Some(byte), 1..) = (bytes.get_mut(inner), version) {
            *byte = [0, 0x45, 0x60][usize::from(version)];
        }
        let before = bytes.clone();
        if translate(&mut bytes, &parsed, source, destination).is_err() {
            prop_assert_eq!(&bytes, &before);
        }
        let before = bytes.clone();
        let inner_l4 = if version == 1 { inner + 20 } else { usize::from(offsets[4]) };
        let address = source.map(|end| end.address);
        let result =
            translate_icmp_error(&mut bytes, &parsed, inner, inner_l4, address, None, source, destination);
        if result.is_err() {
            prop_assert_eq!(&bytes, &before);
        }
    }
}

fn example(protocol: u8) -> Build {
    Build {
        protocol,
        source: ("192.0.2.1".parse().expect("address"), 1000),
        destination: ("198.51.100.2".parse().expect("address"), 80),
        tags: 0,
        extra: 0,
        ttl: 64,
        body: if protocol == UDP { vec![0; 4] } else { vec![0; 16] },
        unchecked: false,
    }
}

fn end(address: &str, port: Option<u16>) -> Option<Endpoint> {
    Some(Endpoint { address: address.parse().expect("address"), port })
}

#[test]
fn an_udp_checksum_that_comes_out_as_zero_goes_as_ffff() {
    let build = example(UDP);
    let parsed = parsed_of(&build);
    let seen: Vec<[u8; 2]> = (0..=0xffff)
        .map(|port| {
            let mut frame = build.frame();
            translate(&mut frame, &parsed, end("192.0.2.9", Some(port)), None).expect("fits");
            [frame[40], frame[41]]
        })
        .collect();
    assert!(!seen.contains(&[0, 0]) && seen.contains(&[0xff, 0xff]));
}

#[test]
fn what_does_not_fit_is_refused_and_left() {
    let frame = example(TCP).frame();
    let parsed = parsed_of(&example(TCP));
    let refused = |parsed: Parsed, source, reason| {
        let mut changed = frame.clone();
        assert_eq!(translate(&mut changed, &parsed, source, None), Err(reason));
        assert_eq!(changed, frame);
    };
    refused(parsed, end("2001:db8::1", None), DropReason::BadIpHeader);
    refused(Parsed { kind: Kind::Icmp4, ..parsed }, None, DropReason::BadIpHeader);
    refused(Parsed { protocol: 47, ..parsed }, None, DropReason::BadTransportHeader);
    refused(Parsed { l4_len: 17, ..parsed }, None, DropReason::Truncated);
    refused(Parsed { l4: 35, ..parsed }, None, DropReason::Truncated);
    refused(Parsed { l4: 40, ..parsed }, None, DropReason::Truncated);
}

/// An ICMP error about `quote`, as a frame.
fn error_about(quote: &[u8], v6: bool) -> (Vec<u8>, Parsed) {
    let mut body = vec![if v6 { 1 } else { 3 }, 3, 0, 0, 0, 0, 0, 0];
    body.extend(quote);
    let ends: [IpAddr; 2] =
        if v6 { [[3; 16].into(), [4; 16].into()] } else { [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()] };
    let build = Build {
        protocol: if v6 { ICMPV6 } else { ICMP },
        source: (ends[0], 0),
        destination: (ends[1], 0),
        body,
        ..example(TCP)
    };
    let frame = build.frame();
    let parsed = parse(&frame).expect("parses");
    (frame, parsed)
}

fn message_is_right(frame: &[u8], parsed: &Parsed) -> bool {
    let message = &frame[usize::from(parsed.l4)..];
    let pseudo = match parsed.kind {
        Kind::Icmp6 => pseudo_header(&frame[22..38], &frame[38..54], ICMPV6, message.len() as u32),
        _ => 0,
    };
    fold(sum(message, pseudo)) == 0xffff
}

#[test]
fn wrong_checksums_in_a_quote_do_not_make_the_message_wrong() {
    let mut quote = example(TCP).ip();
    quote[10] ^= 0x55;
    quote[36] ^= 0x77;
    let (mut frame, parsed) = error_about(&quote, false);
    let to = end("203.0.113.7", Some(8080));
    translate_icmp_error(&mut frame, &parsed, 42, 62, None, Some([9, 9, 9, 9].into()), None, to).expect("fits");
    assert!(message_is_right(&frame, &parsed));
    assert_eq!(checksum(&frame[14..34]), 0);
    assert_ne!(checksum(&frame[42..62]), 0);
    assert_eq!((&frame[58..62], be16(&frame, 64)), (&[203, 0, 113, 7][..], Some(8080)));
}

#[test]
fn a_quoted_later_fragment_has_no_ports() {
    let mut quote = example(UDP).ip();
    quote[6..8].copy_from_slice(&[0x20, 0x10]);
    quote[10..12].fill(0);
    let check = checksum(&quote[..20]);
    quote[10..12].copy_from_slice(&check.to_ne_bytes());
    let (mut frame, parsed) = error_about(&quote, false);
    let payload = frame[62..].to_vec();
    translate_icmp_error(&mut frame, &parsed, 42, 62, None, None, end("9.9.9.9", Some(7)), None).expect("fits");
    assert_eq!(&frame[62..], payload);
    assert_eq!((&frame[54..58], checksum(&frame[42..62])), (&[9, 9, 9, 9][..], 0));
    assert!(message_is_right(&frame, &parsed));

    let v6 = Build { source: ([1; 16].into(), 1000), destination: ([2; 16].into(), 53), extra: 1, ..example(UDP) };
    for (word, ports_change) in [(0x0008u16, false), (0x0001, true)] {
        let mut quote = v6.ip();
        quote[6] = 44;
        quote[40..44].copy_from_slice(&[UDP, 0, (word >> 8) as u8, word as u8]);
        let (mut frame, parsed) = error_about(&quote, true);
        let from = Some(Endpoint { address: [7; 16].into(), port: Some(7) });
        translate_icmp_error(&mut frame, &parsed, 62, 110, Some([8; 16].into()), None, from, None).expect("fits");
        assert_eq!(frame[70..86], [7; 16]);
        assert_eq!(be16(&frame, 110) == Some(7), ports_change);
        assert!(message_is_right(&frame, &parsed));
    }
}

#[test]
fn quotes_that_do_not_fit_are_refused() {
    let quote = example(TCP).ip();
    for (keep, inner, inner_l4) in [(27, 42, 62), (40, 42, 66), (40, 43, 63), (40, 38, 58), (40, 44, 64), (0, 42, 62)] {
        let (frame, parsed) = error_about(&quote[..keep], false);
        let mut changed = frame.clone();
        let result = translate_icmp_error(&mut changed, &parsed, inner, inner_l4, None, None, None, None);
        assert_eq!((result, changed == frame), (Err(DropReason::BadIcmp), true), "{keep} {inner} {inner_l4}");
    }
}
