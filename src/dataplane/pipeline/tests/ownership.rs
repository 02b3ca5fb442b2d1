//! Addresses of virtual routers: served by their master only, from one batch to the next, with its virtual MAC where wanted.

use super::answers::{arp, solicit};
use super::*;

const VMAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];
const VMAC6: [u8; 6] = [0, 0, 0x5e, 0, 2, 52];

fn ping(mac: [u8; 6]) -> Vec<u8> {
    let mut ping = Vec::new();
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, mac).ipv4(CLIENT, VIP, 9).icmpv4_echo_request(7, 1);
    builder.write(&mut ping, b"abcdefg").expect("builds");
    ping
}

fn ping6(mac: [u8; 6]) -> Vec<u8> {
    let mut ping = Vec::new();
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, mac).ipv6(CLIENT6, VIP6, 9).icmpv6_echo_request(7, 1);
    builder.write(&mut ping, b"abcdefg").expect("builds");
    ping
}

fn to(mac: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac);
    frame
}

/// A rig whose two service addresses belong to two virtual routers.
fn rig(change: impl Fn(&mut VirtualRouter)) -> (Rig, [RouterSlot; 2]) {
    let mut rig = Rig::new();
    let router = |name, vrid, address| {
        let mut router = VirtualRouter::new(name, "eth0", vrid, vec![VirtualAddress::host(address)]);
        change(&mut router);
        router
    };
    let mut desired = desired(default_services());
    desired.vrrp.routers = vec![router("VI_4", 51, IpAddr::from(VIP)), router("VI_6", 52, IpAddr::from(VIP6))];
    let mut ports = ports();
    desired.vrrp.routers.iter().filter(|router| router.virtual_mac).for_each(|r| ports[0].add_virtual(r.mac()));
    rig.snapshot = rig.registry.compile(&desired, ports, hop).expect("compiles").snapshot;
    let slots = ["VI_4", "VI_6"].map(|name| rig.registry.routers.slot(name).expect("a number"));
    (rig, slots)
}

impl Rig {
    fn is_master(&self, slot: RouterSlot, master: bool) {
        self.registry.routers.mastery.set(slot, master);
    }
}

#[test]
fn a_backup_is_silent_and_a_master_serves_with_the_next_batch() {
    let (mut rig, [v4, v6]) = rig(|_| {});
    let not_master = Some(DropReason::NotMaster);
    let later = |rig: &mut Rig| {
        // Flows that are there already are no exception.
        (rig.drops(tcp(1000, 80, A, b"x")), rig.drops(tcp6(1000)))
    };
    for round in 0..3u16 {
        // Other hosts' questions and what the other appliance says of itself are the kernel's.
        assert_eq!(rig.one(arp(1, CLIENT, VIP)).verdict, Verdict::Pass);
        assert_eq!(rig.one(arp(1, VIP, VIP)).verdict, Verdict::Pass);
        assert_eq!(rig.one(solicit(CLIENT6, VIP6, true, 255)).verdict, Verdict::Pass);
        assert_eq!(rig.drops(ping(OWN.0)), not_master);
        assert_eq!(rig.drops(ping6(OWN.0)), not_master);
        assert_eq!(rig.drops(tcp(2000 + round, 80, S, b"")), not_master);
        assert_eq!(rig.drops(udp(CLIENT, 5000)), not_master);
        assert_eq!(later(&mut rig), (not_master, not_master));
        assert!(rig.io.sent(0).is_empty());

        rig.is_master(v4, true);
        assert_eq!(rig.one(arp(1, CLIENT, VIP)).verdict, Verdict::Reply(0));
        assert_eq!(rig.one(ping(OWN.0)).verdict, Verdict::Reply(0));
        assert_eq!(rig.drops(tcp(1000, 80, S, b"")), None);
        assert_eq!(rig.drops(tcp(1000, 80, A, b"x")), None);
        // A claim is VRRP's to judge: the kernel gets it.
        assert_eq!(rig.one(arp(1, VIP, VIP)).verdict, Verdict::Pass);
        assert_eq!(rig.drops(ping6(OWN.0)), not_master, "the other router is another's still");
        rig.is_master(v6, true);
        assert_eq!(rig.one(ping6(OWN.0)).verdict, Verdict::Reply(0));
        assert_eq!(rig.one(solicit(CLIENT6, VIP6, true, 255)).verdict, Verdict::Reply(0));
        assert_eq!(rig.drops(tcp6(1000)), None);
        assert_eq!(later(&mut rig), (None, None));
        rig.io.sent(0);
        rig.is_master(v4, false);
        rig.is_master(v6, false);
    }
    assert_eq!(rig.pipeline.stats().conflicts.get(), 0);
}

fn tcp6(source_port: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let builder =
        PacketBuilder::ethernet2(CLIENT_MAC, OWN.0).ipv6(CLIENT6, VIP6, 64).tcp(source_port, 80, 1, 9000).syn();
    builder.write(&mut out, b"").expect("builds");
    out
}

#[test]
fn numbers_stay_while_routers_come_and_go() {
    let (mut rig, [v4, v6]) = rig(|_| {});
    rig.is_master(v4, true);
    let mut desired = desired(default_services());
    let router =
        |name: &str, vrid| VirtualRouter::new(name, "eth0", vrid, vec![VirtualAddress::host(IpAddr::from(VIP))]);
    desired.vrrp.routers = vec![router("new", 53), router("VI_4", 51)];
    rig.snapshot = rig.registry.compile(&desired, ports(), hop).expect("compiles").snapshot;
    let slots = &rig.registry.routers;
    assert_eq!(slots.slot("VI_4"), Some(v4));
    assert!(slots.slot("VI_6").is_none() && slots.slot("new") != Some(v6), "it rests");
    // What belongs to no router any more is always served.
    assert_eq!(rig.one(ping6(OWN.0)).verdict, Verdict::Reply(0));
}

#[test]
fn virtual_macs_are_answered_with_and_taken() {
    let (mut rig, [v4, v6]) = rig(|router| router.virtual_mac = true);
    assert_eq!(rig.drops(to(VMAC, tcp(1, 80, S, b""))), Some(DropReason::NotMaster));
    rig.is_master(v4, true);
    rig.is_master(v6, true);
    assert_eq!(rig.one(arp(1, CLIENT, VIP)).verdict, Verdict::Reply(0));
    let sent = rig.sent();
    assert_eq!((&sent[6..12], &sent[22..28]), (&VMAC[..], &VMAC[..]));
    assert_eq!(rig.one(solicit(CLIENT6, VIP6, true, 255)).verdict, Verdict::Reply(0));
    let sent = rig.sent();
    assert_eq!((&sent[6..12], &sent[80..86]), (&VMAC6[..], &VMAC6[..]));
    assert_eq!(rig.one(ping(VMAC)).verdict, Verdict::Reply(0));
    assert_eq!(rig.sent()[6..12], VMAC);
    assert_eq!(rig.one(ping6(VMAC6)).verdict, Verdict::Reply(0));
    assert_eq!(rig.sent()[6..12], VMAC6);
    for mac in [VMAC, OWN.0] {
        assert_eq!(rig.drops(to(mac, tcp(1, 80, S, b""))), None);
        assert_eq!(rig.drops(to(mac, tcp(1, 80, A, b"x"))), None);
    }
    rig.io.sent(0);
    for other in [[0, 0, 0x5e, 0, 1, 50], [0, 0, 0x5e, 0, 2, 51], [0, 0, 0x5e, 0, 3, 51]] {
        assert_eq!(rig.drops(to(other, tcp(1, 80, A, b"x"))), Some(DropReason::WrongMac));
    }
}

#[test]
fn without_accept_mode_there_is_no_echo() {
    let (mut rig, slots) = rig(|router| router.accept = false);
    slots.iter().for_each(|slot| rig.is_master(*slot, true));
    assert_eq!(rig.drops(ping(OWN.0)), Some(DropReason::IcmpIgnored));
    assert_eq!(rig.drops(ping6(OWN.0)), Some(DropReason::IcmpIgnored));
    assert_eq!(rig.one(arp(1, CLIENT, VIP)).verdict, Verdict::Reply(0));
    assert_eq!(rig.one(solicit(CLIENT6, VIP6, true, 255)).verdict, Verdict::Reply(0));
    assert_eq!(rig.drops(tcp(1, 80, S, b"")), None);
}
