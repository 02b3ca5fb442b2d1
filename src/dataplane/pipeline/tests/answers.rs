//! What the appliance answers itself, and the ICMP errors that it passes on.

use super::*;

pub(super) fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&CLIENT_MAC);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&CLIENT_MAC);
    frame.extend_from_slice(&sender);
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&target);
    frame.resize(60, 0);
    frame
}

#[test]
fn arp_is_answered_for_owned_addresses_only() {
    let mut rig = Rig::new();
    assert_eq!(rig.one(arp(1, CLIENT, VIP)).verdict, Verdict::Reply(0));
    let sent = rig.sent();
    assert_eq!(sent[..12], [2, 0, 0, 0, 0, 0xc, 2, 0, 0, 0, 0, 1]);
    assert_eq!(
        sent[20..42],
        {
            let mut body = vec![0, 2, 2, 0, 0, 0, 0, 1];
            body.extend_from_slice(&VIP);
            body.extend_from_slice(&CLIENT_MAC);
            body.extend_from_slice(&CLIENT);
            body
        }[..]
    );
    // A probe is answered too; tagged questions get tagged answers.
    assert_eq!(rig.one(arp(1, [0; 4], VIP)).verdict, Verdict::Reply(0));
    rig.sent();
    assert_eq!(rig.one(tagged(arp(1, CLIENT, VIP), 5)).verdict, Verdict::Reply(0));
    assert_eq!(rig.sent()[12..16], [0x81, 0, 0, 5]);
    assert_eq!(rig.one(arp(1, CLIENT, [192, 0, 2, 11])).verdict, Verdict::Pass);
    // An answer to the kernel's own question in that name, and what is neither question nor answer.
    assert_eq!(rig.one(arp(2, CLIENT, VIP)).verdict, Verdict::Pass);
    assert_eq!(rig.drops(arp(3, CLIENT, VIP)), Some(DropReason::BadArp));
    assert_eq!(rig.drops(arp(1, VIP, VIP)), Some(DropReason::AddressConflict));
    assert_eq!(rig.pipeline.stats().conflict_mac.get(), 0x0200_0000_000c);
    let mut bad = arp(1, CLIENT, VIP);
    bad[18] = 5;
    assert_eq!(rig.drops(bad), Some(DropReason::BadArp));
}

#[test]
fn echo_is_answered_in_both_families() {
    let mut rig = Rig::new();
    let mut ping = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OWN.0)
        .ipv4(CLIENT, VIP, 9)
        .icmpv4_echo_request(7, 1)
        .write(&mut ping, b"abcdefg")
        .expect("builds");
    assert_eq!(rig.one(ping.clone()).verdict, Verdict::Reply(0));
    let sent = rig.sent();
    let parsed = etherparse::SlicedPacket::from_ethernet(&sent).expect("parses");
    assert!(matches!(parsed.transport, Some(etherparse::TransportSlice::Icmpv4(i)) if i.type_u8() == 0));
    assert_eq!((checksum::checksum(&sent[14..34]), checksum::checksum(&sent[34..])), (0, 0));
    assert_eq!((&sent[26..30], &sent[30..34]), (&VIP[..], &CLIENT[..]));
    ping[40] ^= 1;
    assert_eq!(rig.drops(ping), Some(DropReason::BadIcmp));

    let mut ping = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OWN.0)
        .ipv6(CLIENT6, VIP6, 9)
        .icmpv6_echo_request(7, 1)
        .write(&mut ping, b"abcdefg")
        .expect("builds");
    assert_eq!(rig.one(ping).verdict, Verdict::Reply(0));
    let sent = rig.sent();
    assert_eq!(sent[54], 129);
    let pseudo = checksum::pseudo_header(&sent[22..38], &sent[38..54], 58, (sent.len() - 54) as u32);
    assert_eq!(checksum::fold(checksum::sum(&sent[54..], pseudo)), 0xffff);
}

pub(super) fn solicit(source: [u8; 16], target: [u8; 16], option: bool, hop_limit: u8) -> Vec<u8> {
    let mut body = vec![135, 0, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&target);
    if option {
        body.extend_from_slice(&[1, 1]);
        body.extend_from_slice(&CLIENT_MAC);
    }
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, target[13], target[14], target[15]];
    let pseudo = checksum::pseudo_header(&source, &group, 58, body.len() as u32);
    let check = !checksum::fold(checksum::sum(&body, pseudo));
    body[2..4].copy_from_slice(&check.to_ne_bytes());
    let mut out = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, [0x33, 0x33, 0xff, target[13], target[14], target[15]])
        .ipv6(source, group, hop_limit)
        .write(&mut out, etherparse::IpNumber::IPV6_ICMP, &body)
        .expect("builds");
    out
}

#[test]
fn neighbour_discovery_is_answered() {
    for (source, option) in [(CLIENT6, true), (CLIENT6, false), ([0; 16], false)] {
        let mut rig = Rig::new();
        assert_eq!(rig.one(solicit(source, VIP6, option, 255)).verdict, Verdict::Reply(0));
        let sent = rig.sent();
        assert_eq!(sent.len(), 86);
        let probe = source == [0; 16];
        assert_eq!(sent[..6], if probe { [0x33, 0x33, 0, 0, 0, 1] } else { CLIENT_MAC });
        assert_eq!((sent[54], sent[58], sent[21]), (136, if probe { 0x20 } else { 0x60 }, 255));
        assert_eq!(sent[22..38], VIP6);
        assert_eq!(sent[62..78], VIP6);
        assert_eq!(sent[78..86], [2, 1, 2, 0, 0, 0, 0, 1]);
        let pseudo = checksum::pseudo_header(&sent[22..38], &sent[38..54], 58, 32);
        assert_eq!(checksum::fold(checksum::sum(&sent[54..], pseudo)), 0xffff);
    }
    let mut rig = Rig::new();
    assert_eq!(rig.drops(solicit(CLIENT6, VIP6, true, 64)), Some(DropReason::BadNd));
    assert_eq!(rig.one(solicit(CLIENT6, CLIENT6, true, 255)).verdict, Verdict::Pass);
}

/// "Fragmentation needed" about a packet that a server sent to `CLIENT:port`.
pub(super) fn frag_needed(port: u16) -> Vec<u8> {
    let mut inner = Vec::new();
    PacketBuilder::ipv4(VIP, CLIENT, 60).tcp(80, port, 5, 5).write(&mut inner, b"").expect("builds");
    inner.truncate(28);
    let mut body = vec![3, 4, 0, 0, 0, 0, 5, 0x78];
    body.extend_from_slice(&inner);
    let check = checksum::checksum(&body);
    body[2..4].copy_from_slice(&check.to_ne_bytes());
    let mut out = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OWN.0)
        .ipv4([203, 0, 113, 1], VIP, 50)
        .write(&mut out, etherparse::IpNumber::ICMP, &body)
        .expect("builds");
    out
}

#[test]
fn an_icmp_error_goes_to_the_server_of_the_inner_flow() {
    let mut rig = Rig::new();
    rig.one(tcp(500, 80, S, b""));
    rig.one(tcp(501, 80, S, b""));
    rig.io.sent(0);
    for (port, mac) in [(500, 2), (501, 1)] {
        assert_eq!(rig.one(frag_needed(port)).verdict, Verdict::Tx(0));
        let sent = rig.sent();
        assert_eq!((mac_of(&sent), sent[22]), (mac, 49));
        assert_eq!(checksum::checksum(&sent[14..34]), 0);
    }
    assert_eq!(rig.drops(frag_needed(502)), Some(DropReason::IcmpNoFlow));
}
