//! The byte vectors of the reference, adverts of keepalived, and every way in which a message is refused.

use super::*;

const V2: &str = "210ac802000192edc0000201c00002020000000000000000";
const V3: &str = "310ac8020064defbc0000201c0000202";
const V3_PLAIN: &str = "310ac8020064828ac0000201c0000202";
const V3_IPV6: &str = "310a640200643f5dfe80000000000000000000000000000120010db8000000000000000000000001";
const V2_ONE: &str = "210164010001ba52c0a800010000000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn envelope(source: &str, destination: &str) -> Envelope {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    Envelope {
        source: source.parse().expect("source"),
        destination: destination.parse().expect("address"),
        ttl: 255,
        mac,
    }
}

fn multicast() -> Envelope {
    envelope("192.0.2.251", "224.0.0.18")
}

fn multicast_v6() -> Envelope {
    envelope("fe80::c8", "ff02::12")
}

fn advert(version: VrrpVersion, vrid: u8, priority: u8, checksum: VrrpChecksum, addresses: &[&str]) -> Advert {
    Advert {
        version,
        vrid,
        priority,
        interval: Duration::from_secs(1),
        password: None,
        auth_type: NO_AUTH,
        checksum,
        addresses: addresses.iter().map(|address| address.parse().expect("address")).collect(),
    }
}

/// With a right checksum, of a message in which something else was changed.
fn summed(envelope: &Envelope, mut message: Vec<u8>) -> Vec<u8> {
    if message.len() >= 8 {
        message[6..8].fill(0);
        let pseudo = match message[0] >> 4 {
            2 => 0,
            _ => pseudo_header(envelope.source, envelope.destination, message.len()),
        };
        let sum = !fold(sum(&message) + pseudo);
        message[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

#[test]
fn names_are_unique_and_sentences_are_written() {
    let names: std::collections::BTreeSet<&str> = Refusal::ALL.iter().map(|refusal| refusal.name()).collect();
    assert_eq!(names.len(), Refusal::ALL.len());
    assert!(Refusal::ALL.iter().all(|refusal| refusal.meaning().trim().ends_with('.')));
}

#[test]
fn the_vectors_of_the_reference_both_ways() {
    let two = ["192.0.2.1", "192.0.2.2"];
    let (v2, v3) = (VrrpVersion::V2, VrrpVersion::V3);
    let rows = [
        (V2, multicast(), advert(v2, 10, 200, VrrpChecksum::Message, &two)),
        (V3, multicast(), advert(v3, 10, 200, VrrpChecksum::PseudoHeader, &two)),
        (V3_PLAIN, multicast(), advert(v3, 10, 200, VrrpChecksum::Message, &two)),
        (V3_IPV6, multicast_v6(), advert(v3, 10, 100, VrrpChecksum::PseudoHeader, &["fe80::1", "2001:db8::1"])),
        (V2_ONE, multicast(), advert(v2, 1, 100, VrrpChecksum::Message, &["192.168.0.1"])),
    ];
    for (hex, envelope, advert) in rows {
        assert_eq!(parse(&envelope, &bytes(hex)).as_ref(), Ok(&advert), "{hex}");
        assert_eq!(build(&advert, envelope.source, envelope.destination), bytes(hex), "{hex}");
    }
}

#[test]
fn adverts_of_keepalived_byte_for_byte() {
    let mut seen = 0;
    for line in include_str!("../../../tests/golden/vrrp/adverts.txt").lines().filter(|line| !line.starts_with('#')) {
        let [scenario, source, destination, ttl, hex] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("five words in `{line}`")
        };
        let envelope = Envelope { ttl: ttl.parse().expect("ttl"), ..envelope(source, destination) };
        let advert = parse(&envelope, &bytes(hex)).unwrap_or_else(|refusal| panic!("{line}: {refusal:?}"));
        assert_eq!(build(&advert, envelope.source, envelope.destination), bytes(hex), "{line}");
        assert_eq!((advert.vrid, &advert.addresses[..]), (51, &["10.0.0.100".parse().expect("address")][..]));
        let fast = scenario.contains("fast");
        assert_eq!(advert.interval, Duration::from_millis(if fast { 100 } else { 1000 }), "{line}");
        assert_eq!(advert.password.as_ref(), (scenario == "v2_pass").then_some(b"s3cret12"), "{line}");
        assert!(matches!((source, advert.priority), ("10.0.0.2", 100) | ("10.0.0.1", 150 | 0)), "{line}");
        assert_eq!(advert.checksum == VrrpChecksum::PseudoHeader, scenario.starts_with("v3"), "{line}");
        seen += 1;
    }
    assert!(seen >= 18, "{seen} adverts");
}

#[test]
fn a_checksum_covers_every_byte() {
    for (hex, envelope) in [(V2, multicast()), (V3, multicast()), (V3_PLAIN, multicast()), (V3_IPV6, multicast_v6())] {
        let good = bytes(hex);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&envelope, &bad).is_err(), "{hex} with bit {bit} turned");
        }
    }
    // The pseudo-header is part of it: the same message between two others.
    assert_eq!(parse(&envelope("192.0.2.9", "224.0.0.18"), &bytes(V3)), Err(Refusal::Checksum));
    assert_eq!(parse(&envelope("192.0.2.251", "192.0.2.250"), &bytes(V3)), Err(Refusal::Checksum));
    // Over IPv6 it must be there.
    let mut plain = bytes(V3_IPV6);
    plain[6..8].fill(0);
    let sum = !fold(sum(&plain));
    plain[6..8].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(parse(&multicast_v6(), &plain), Err(Refusal::Checksum));
}

#[test]
fn every_malformed_message_has_its_reason() {
    type Change = fn(&mut Vec<u8>);
    let rows: [(&str, &str, Change, Refusal); 15] = [
        ("nothing", V3, |m| m.clear(), Refusal::Short),
        ("half a header", V3, |m| m.truncate(7), Refusal::Short),
        ("header only", V3, |m| m.truncate(8), Refusal::Short),
        ("half an address", V3, |m| m.truncate(14), Refusal::Short),
        ("no authentication data", V2, |m| m.truncate(16), Refusal::Short),
        ("a byte more", V3, |m| m.push(0), Refusal::Long),
        ("an address more than it says", V2, |m| m[3] = 1, Refusal::Long),
        ("an address less than it says", V3, |m| m[3] = 3, Refusal::Short),
        ("version 1", V2, |m| m[0] = 0x11, Refusal::Version),
        ("version 4", V3, |m| m[0] = 0x41, Refusal::Version),
        ("type 2", V3, |m| m[0] = 0x32, Refusal::Type),
        (
            "no address",
            V3,
            |m| {
                m[3] = 0;
                m.truncate(8)
            },
            Refusal::NoAddress,
        ),
        ("interval 0", V3, |m| m[4..6].fill(0), Refusal::ZeroInterval),
        ("interval 0 in version 2", V2, |m| m[5] = 0, Refusal::ZeroInterval),
        ("authentication header", V2, |m| m[4] = 2, Refusal::AuthType),
    ];
    for (name, hex, change, refusal) in rows {
        let mut message = bytes(hex);
        change(&mut message);
        assert_eq!(parse(&multicast(), &summed(&multicast(), message)), Err(refusal), "{name}");
    }
    let mut wrong = bytes(V3);
    wrong[7] ^= 1;
    assert_eq!(parse(&multicast(), &wrong), Err(Refusal::Checksum));
    // Version 2 knows no IPv6.
    let v6 = multicast_v6();
    assert_eq!(parse(&v6, &summed(&v6, bytes(V2))), Err(Refusal::Version));
    // Passed a router.
    for ttl in [0, 1, 64, 254] {
        assert_eq!(parse(&Envelope { ttl, ..multicast() }, &bytes(V3)), Err(Refusal::Ttl));
        assert_eq!(parse(&Envelope { ttl, ..v6 }, &bytes(V3_IPV6)), Err(Refusal::Ttl));
        let unicast = Envelope { ttl, ..envelope("192.0.2.251", "192.0.2.252") };
        let message = summed(&unicast, bytes(V3));
        assert!(parse(&unicast, &message).is_ok(), "between single peers the router's configuration says");
    }
}

#[test]
fn reserved_bits_are_not_looked_at() {
    let mut message = bytes(V3);
    message[4] |= 0xf0;
    let advert = parse(&multicast(), &summed(&multicast(), message)).expect("RFC 9568, section 5.2.6");
    assert_eq!(advert.interval, Duration::from_secs(1));
}

#[test]
fn intervals_are_what_the_version_can_say() {
    let of = |version, millis| {
        let advert = Advert {
            interval: Duration::from_millis(millis),
            ..advert(version, 1, 100, VrrpChecksum::PseudoHeader, &["192.0.2.1"])
        };
        let message = build(&advert, multicast().source, multicast().destination);
        parse(&multicast(), &message).expect("advert").interval.as_millis()
    };
    let v3 = [(10, 10), (14, 10), (15, 20), (100, 100), (1234, 1230), (40_950, 40_950), (90_000, 40_950), (1, 10)];
    for (millis, read) in v3 {
        assert_eq!(of(VrrpVersion::V3, millis), read);
    }
    for (millis, read) in [(100, 1000), (1000, 1000), (1500, 2000), (255_000, 255_000), (400_000, 255_000)] {
        assert_eq!(of(VrrpVersion::V2, millis), read);
    }
}

#[test]
fn as_many_addresses_as_fit() {
    let many: Vec<IpAddr> = (0..300u32).map(|n| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n))).collect();
    let advert = Advert { addresses: many, ..advert(VrrpVersion::V3, 1, 100, VrrpChecksum::PseudoHeader, &[]) };
    let message = build(&advert, multicast().source, multicast().destination);
    assert_eq!(parse(&multicast(), &message).expect("advert").addresses, advert.addresses[..255]);
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read(
        v2: bool, vrid: u8, priority: u8, unit in 1u64..=255, addresses in proptest::collection::vec(proptest::prelude::any::<u32>(), 1..20),
        password: Option<[u8; 8]>, plain: bool, unicast: bool,
    ) {
        let envelope = if unicast { envelope("192.0.2.251", "192.0.2.1") } else { multicast() };
        let password = password.filter(|_| v2);
        let advert = Advert {
            version: if v2 { VrrpVersion::V2 } else { VrrpVersion::V3 },
            vrid,
            priority,
            interval: if v2 { Duration::from_secs(unit) } else { Duration::from_millis(unit * 160) },
            auth_type: if password.is_some() { PASSWORD } else { NO_AUTH },
            password,
            checksum: if plain || v2 { VrrpChecksum::Message } else { VrrpChecksum::PseudoHeader },
            addresses: addresses.into_iter().map(|bits| IpAddr::from(Ipv4Addr::from(bits))).collect(),
        };
        let message = build(&advert, envelope.source, envelope.destination);
        proptest::prop_assert_eq!(parse(&envelope, &message), Ok(advert));
    }
}
