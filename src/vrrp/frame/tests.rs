//! Frames against keepalived's, and against what nobody should send.

use proptest::prelude::*;

use super::*;
use crate::vrrp::announce::announcement;

/// From captures of keepalived 2.2.7, taken for this project: its first advert in version 3.
const KEEPALIVED_V3: &str =
    "01005e00001202000000005108004 5c0002000010000ff70d0990a000001e000001231339601006443730a000064";
/// The same to a single peer.
const KEEPALIVED_UNICAST: &str =
    "02000000005202000000005108004 5c0002000010000ff70a6aa0a0000010a00000231339601006419840a000064";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| *digit != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x51]);

#[test]
fn an_advert_in_its_frame_is_keepaliveds_byte_for_byte() {
    let golden = bytes(KEEPALIVED_V3);
    let frame = multicast(&golden[34..], ip("10.0.0.1"), ip("224.0.0.18"), MAC, 1);
    assert_eq!(frame, golden);
    let golden = bytes(KEEPALIVED_UNICAST);
    let header = ipv4_header([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), golden.len() - 34, 1);
    assert_eq!(header, golden[14..34]);
}

#[test]
fn adverts_are_found_with_what_is_around_them() {
    let golden = bytes(KEEPALIVED_V3);
    let envelope = Envelope { source: ip("10.0.0.1"), destination: ip("224.0.0.18"), ttl: 255, mac: MAC };
    assert_eq!(heard(&golden), Some(Heard::Advert(envelope, &golden[34..])));
    // Padding of Ethernet's is left out.
    let mut padded = golden.clone();
    padded.resize(60, 0xee);
    assert_eq!(heard(&padded), Some(Heard::Advert(envelope, &golden[34..])));
    // Options of IPv4's are skipped.
    let mut options = golden.clone();
    options.splice(34..34, [1, 1, 1, 0]);
    (options[14], options[17]) = (0x46, 36);
    options[24..26].copy_from_slice(&[0, 0]);
    let sum = checksum(&[&options[14..38]]);
    options[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(heard(&options), Some(Heard::Advert(envelope, &golden[34..])));
    // A cut message is still one, for whom counts such.
    assert_eq!(heard(&golden[..40]), Some(Heard::Advert(envelope, &golden[34..40])));

    let frame = multicast(&[0x31, 7, 100], ip("fe80::1"), ip("ff02::12"), MAC, 9);
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 0x12]);
    assert_eq!(frame[14..16], [0x6c, 0]);
    let envelope = Envelope { source: ip("fe80::1"), destination: ip("ff02::12"), ttl: 255, mac: MAC };
    assert_eq!(heard(&frame), Some(Heard::Advert(envelope, &[0x31, 7, 100])));
}

#[test]
fn what_a_kernel_would_drop_is_nothing() {
    let golden = bytes(KEEPALIVED_V3);
    for (what, at, value) in [
        ("version", 14, 0x55),
        ("header of 16 bytes", 14, 0x44),
        ("header checksum", 24, 0),
        ("another protocol", 23, 113),
        ("a later fragment", 21, 1),
        ("ethertype", 13, 1),
    ] {
        let mut frame = golden.clone();
        frame[at] = value;
        if what != "header checksum" {
            frame[24..26].copy_from_slice(&[0, 0]);
            let sum = checksum(&[&frame[14..34]]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        assert_eq!(heard(&frame), None, "{what}");
    }
}

#[test]
fn claims_are_the_senders_of_arp_and_the_targets_of_neighbour_advertisements() {
    for address in ["10.0.0.100", "2001:db8::64"] {
        let frame = announcement(ip(address), MAC, false);
        assert_eq!(heard(&frame), Some(Heard::Claim { address: ip(address), mac: MAC }));
        for length in 0..frame.len() {
            assert_eq!(heard(&frame[..length]).filter(|_| length < 32), None, "{address} cut to {length}");
        }
    }
    assert_eq!(heard(&announcement(ip("0.0.0.0"), MAC, false)), None, "a probe claims nothing");
    // An option of no length does not go on for ever.
    let mut frame = announcement(ip("2001:db8::64"), MAC, false);
    frame[78..80].copy_from_slice(&[1, 0]);
    assert_eq!(heard(&frame), None);
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic(mut frame in prop::collection::vec(any::<u8>(), 0..120), kind in 0..4usize) {
        if let (Some(at), Some(kind)) = (frame.get_mut(12..14), [IPV4, IPV6, ARP].get(kind)) {
            at.copy_from_slice(&kind.to_be_bytes());
        }
        heard(&frame);
    }
}
