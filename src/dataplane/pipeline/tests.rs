//! The pipeline over in-memory I/O: verdicts, rewriting, states, counts, and every way a frame can be refused.

mod answers;
mod any_traffic;
mod cookie_floods;
mod cookie_streams;
mod cookies;
mod departures;
mod fates;
mod floods;
mod fragments;
mod full_nat;
mod limits;
mod ownership;
mod passive;
mod peers;
mod persistence;
mod refusals;
mod translation;
mod tunnels;

use std::net::IpAddr;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::control::compile::Registry;
use crate::dataplane::io::PacketIo;
use crate::dataplane::io::memory::MemoryIo;
use crate::dataplane::snapshot::{NextHop, Port};
use crate::dataplane::worker;
use crate::model::*;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc];
const VIP: [u8; 4] = [192, 0, 2, 10];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

fn service(address: IpAddr, protocol: Protocol, ports: PortRange, servers: &[(u8, u16)]) -> Service {
    let servers = servers.iter().map(|(n, weight)| Server::dr(server_address(address, *n), *weight));
    let key = ServiceKey { address, protocol, ports };
    let mut service = Service::dr(&format!("{protocol}-{ports}"), key, Scheduler::RR, servers.collect());
    service.health.no_server = NoServer::Drop;
    service
}

fn server_address(family: IpAddr, n: u8) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::from([10, 0, 0, n]),
        IpAddr::V6(_) => IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]),
    }
}

/// The last byte of a server's address is also the last of its MAC; servers above 100 have no next hop, those from
/// 50 on lie behind VLAN 7, those from 40 to 49 behind the second interface.
fn hop(address: IpAddr) -> Option<NextHop> {
    let n = match address {
        IpAddr::V4(a) => a.octets()[3],
        IpAddr::V6(a) => a.octets()[15],
    };
    let port = u8::from((40..50).contains(&n));
    (n <= 100).then_some(NextHop { port, vlan: (n >= 50).then_some(7), mac: MacAddr([2, 0, 0, 0, 1, n]) })
}

fn default_services() -> Vec<Service> {
    use Protocol::{Sctp, Tcp, Udp};
    let (v4, v6) = (IpAddr::from(VIP), IpAddr::from(VIP6));
    vec![
        service(v4, Tcp, PortRange::single(80), &[(1, 1), (2, 1)]),
        service(v4, Udp, PortRange { first: 5000, last: 5010 }, &[(3, 1)]),
        service(v4, Sctp, PortRange::ANY, &[(4, 1)]),
        service(v6, Tcp, PortRange::single(80), &[(5, 1)]),
        service(v6, Udp, PortRange::ANY, &[(6, 1)]),
        service(v4, Tcp, PortRange::single(443), &[(41, 1)]),
        service(v4, Tcp, PortRange::single(700), &[(50, 1)]),
        service(v4, Tcp, PortRange::single(701), &[(101, 1)]),
        service(v4, Tcp, PortRange::single(702), &[]),
    ]
}

struct Rig {
    io: MemoryIo,
    pipeline: Pipeline,
    registry: Registry,
    snapshot: Snapshot,
    now: u32,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(EngineSettings { flows: 1000, flows_ipv6: 1000, ..EngineSettings::default() }, default_services())
    }

    fn with(settings: EngineSettings, services: Vec<Service>) -> Rig {
        let mut registry = Registry::default();
        let snapshot = compile(&mut registry, services);
        let pipeline = Pipeline::new(&settings, Seeds::fixed(), Arc::default()).expect("memory");
        Rig { io: MemoryIo::new(2, 256, 4096), pipeline, registry, snapshot, now: 1000 }
    }

    fn swap(&mut self, services: Vec<Service>) {
        self.snapshot = compile(&mut self.registry, services);
    }

    /// Runs frames through in one batch and returns their outcomes.
    fn run(&mut self, frames: &[Vec<u8>]) -> Vec<Outcome> {
        for frame in frames {
            assert!(self.io.inject(0, frame), "the frame fits a chunk");
        }
        let mut batch = [Frame::default(); BATCH];
        let count = self.io.receive(&mut batch);
        let mut outcomes = vec![Outcome::plain(Verdict::Pass); count];
        self.pipeline.process(&self.snapshot, self.io.memory(), &mut batch[..count], &mut outcomes, self.now);
        worker::act(&mut self.io, &[], &batch[..count], &mut outcomes);
        self.pipeline.settle(&outcomes);
        worker::act_on_extra(&mut self.io, &[], &mut self.pipeline);
        assert!(self.io.frames_accounted().balanced());
        assert_eq!(self.io.frames_accounted().held, 0, "the worker kept a frame");
        outcomes
    }

    fn one(&mut self, frame: Vec<u8>) -> Outcome {
        self.run(&[frame])[0]
    }

    fn drops(&mut self, frame: Vec<u8>) -> Option<DropReason> {
        match self.one(frame).verdict {
            Verdict::Drop(reason) => Some(reason),
            _ => None,
        }
    }

    fn sent(&mut self) -> Vec<u8> {
        let mut sent = self.io.sent(0);
        assert_eq!(sent.len(), 1);
        sent.remove(0)
    }

    fn counts(&self, service: usize) -> Vec<(u32, u32)> {
        self.snapshot.services[service].members.iter().map(|m| (m.load.active(), m.load.inactive())).collect()
    }
}

fn desired(services: Vec<Service>) -> Desired {
    Desired::of(services)
}

fn ports() -> Vec<Port> {
    let second = MacAddr([2, 0, 0, 0, 0, 2]);
    vec![Port::new(OWN, 1500, true), Port::new(second, 1500, true)]
}

fn compile(registry: &mut Registry, services: Vec<Service>) -> Snapshot {
    registry.compile(&desired(services), ports(), hop).expect("compiles").snapshot
}

use answers::{arp, frag_needed, solicit};

type Flags = u8;
const S: Flags = 2;
const A: Flags = 16;
const F: Flags = 1;
const R: Flags = 4;

fn tcp(source_port: u16, port: u16, flags: Flags, payload: &[u8]) -> Vec<u8> {
    let mut builder = PacketBuilder::ethernet2(CLIENT_MAC, OWN.0).ipv4(CLIENT, VIP, 64).tcp(source_port, port, 1, 9000);
    builder = if flags & S != 0 { builder.syn() } else { builder };
    builder = if flags & A != 0 { builder.ack(7) } else { builder };
    builder = if flags & F != 0 { builder.fin() } else { builder };
    builder = if flags & R != 0 { builder.rst() } else { builder };
    let mut out = Vec::new();
    builder.write(&mut out, payload).expect("builds");
    out
}

fn tcp6(source_port: u16, flags: Flags) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, OWN.0).ipv6(CLIENT6, VIP6, 64).tcp(source_port, 80, 1, 9000);
    let builder = if flags & S != 0 { builder.syn() } else { builder };
    let builder = if flags & A != 0 { builder.ack(7) } else { builder };
    let mut out = Vec::new();
    builder.write(&mut out, b"six").expect("builds");
    out
}

fn udp(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OWN.0)
        .ipv4(source, VIP, 64)
        .udp(4444, port)
        .write(&mut out, b"question")
        .expect("builds");
    out
}

fn sctp(kind: u8) -> Vec<u8> {
    let mut segment = vec![0x11, 0x22, 0x0b, 0x5a, 0, 0, 0, 1, 0, 0, 0, 0, kind, 0, 0, 4];
    let check = checksum::sctp(&segment).expect("long enough");
    segment[8..12].copy_from_slice(&check);
    let mut out = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OWN.0)
        .ipv4(CLIENT, VIP, 64)
        .write(&mut out, etherparse::IpNumber::SCTP, &segment)
        .expect("builds");
    out
}

use crate::dataplane::checksum;

fn tagged(mut frame: Vec<u8>, tci: u16) -> Vec<u8> {
    let [hi, lo] = tci.to_be_bytes();
    frame.splice(12..12, [0x81, 0, hi, lo]);
    frame
}

fn mac_of(frame: &[u8]) -> u8 {
    frame[5]
}

#[test]
fn a_connection_stays_with_its_server_and_only_macs_and_ttl_change() {
    let mut rig = Rig::new();
    let first = rig.one(tcp(40_000, 80, S, b""));
    assert!(first.new_flow && matches!(first.verdict, Verdict::Tx(0)));
    let mut expected = tcp(40_000, 80, S, b"");
    expected[..12].copy_from_slice(&[2, 0, 0, 0, 1, 2, 2, 0, 0, 0, 0, 1]);
    expected[22] = 63;
    let check = u16::from_be_bytes([expected[24], expected[25]]) + 0x0100;
    expected[24..26].copy_from_slice(&check.to_be_bytes());
    assert_eq!(rig.sent(), expected);
    // The next connection gets the other server; the first one's packets go where they went.
    rig.one(tcp(40_001, 80, S, b""));
    assert_eq!(mac_of(&rig.sent()), 1);
    for flags in [A, A, F | A, A] {
        let outcome = rig.one(tcp(40_000, 80, flags, b"data"));
        assert!(!outcome.new_flow && outcome.server == first.server);
        let sent = rig.sent();
        assert_eq!(mac_of(&sent), 2);
        assert_eq!(checksum::checksum(&sent[14..34]), 0, "the header checksum is right");
    }
}

#[test]
fn a_sweep_in_pieces_ends_and_counts_every_flow() {
    let mut rig = Rig::new();
    for n in 0..100 {
        rig.one(udp([198, 51, 100, n], 5001));
        rig.one(tcp6(1000 + u16::from(n), S));
    }
    rig.now += 400_000;
    let mut pieces = 0;
    while !rig.pipeline.tables().0.is_empty() || !rig.pipeline.tables().1.is_empty() {
        let before = rig.pipeline.stats().expired.get();
        let looked = rig.pipeline.sweep_some(&rig.snapshot, Budget { buckets: 5000, flows: 7 }, rig.now);
        // A bucket is looked at whole.
        assert!(looked <= 5000 && rig.pipeline.stats().expired.get() - before <= 8);
        pieces += 1;
    }
    assert_eq!(rig.pipeline.stats().expired.get(), 200);
    assert!(pieces >= 200 / 8, "{pieces}");
    assert_eq!((rig.counts(1), rig.counts(3)), (vec![(0, 0)], vec![(0, 0)]));
}

#[test]
fn active_and_inactive_follow_the_states() {
    let mut rig = Rig::new();
    rig.one(tcp(40_000, 80, S, b""));
    // IPVS's order: server 2 first.
    assert_eq!(rig.counts(0), [(0, 1), (0, 0)]);
    rig.one(tcp(40_000, 80, A, b""));
    assert_eq!(rig.counts(0), [(1, 0), (0, 0)]);
    rig.one(tcp(40_000, 80, F | A, b""));
    assert_eq!(rig.counts(0), [(0, 1), (0, 0)]);
    rig.one(udp(CLIENT, 5001));
    assert_eq!(rig.counts(1), [(0, 1)]);
    // FIN_WAIT lasts 120 s, UDP 300 s.
    rig.now += 121_000;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert_eq!((rig.counts(0), rig.counts(1)), (vec![(0, 0), (0, 0)], vec![(0, 1)]));
    rig.now += 180_000;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert_eq!(rig.counts(1), [(0, 0)]);
    assert_eq!(rig.pipeline.stats().expired.get(), 2);
}

#[test]
fn an_expired_flow_is_new_again_even_before_the_sweep() {
    let mut rig = Rig::new();
    let first = rig.one(tcp(40_000, 80, S, b""));
    rig.now += 59_000;
    assert!(!rig.one(tcp(40_000, 80, S, b"")).new_flow);
    rig.now += 61_000;
    let again = rig.one(tcp(40_000, 80, S, b""));
    assert!(again.new_flow && again.server != first.server);
    assert_eq!(rig.counts(0), [(0, 0), (0, 1)]);
}

#[test]
fn every_protocol_family_and_port_form() {
    let mut rig = Rig::new();
    for (frame, service, mac) in [
        (udp(CLIENT, 5000), 1, 3),
        (udp(CLIENT, 5010), 1, 3),
        (sctp(1), 2, 4),
        (tcp6(1, S), 3, 5),
        (tcp(9, 80, S, b""), 0, 2),
    ] {
        let outcome = rig.one(frame);
        assert!(matches!(outcome.verdict, Verdict::Tx(0)), "{outcome:?}");
        assert_eq!((outcome.service, outcome.new_flow), (service, true));
        assert_eq!(mac_of(&rig.sent()), mac);
    }
    for frame in [udp(CLIENT, 4999), udp(CLIENT, 5011), tcp(9, 81, S, b"")] {
        assert_eq!(rig.one(frame).verdict, Verdict::Pass);
    }
    assert_eq!(rig.io.passed().len(), 3);
}

#[test]
fn ipv6_hop_limit_falls_and_flows_stick() {
    let mut rig = Rig::new();
    rig.one(tcp6(7, S));
    let sent = rig.sent();
    assert_eq!((sent[21], mac_of(&sent)), (63, 5));
    assert!(!rig.one(tcp6(7, A)).new_flow);
    assert_eq!(rig.counts(3), [(1, 0)]);
}

#[test]
fn vlan_tags_are_pushed_popped_and_kept_with_their_priority() {
    let mut rig = Rig::new();
    rig.one(tcp(1, 700, S, b""));
    let pushed = rig.sent();
    assert_eq!(pushed[12..18], [0x81, 0, 0, 7, 8, 0]);
    assert_eq!((mac_of(&pushed), pushed.len()), (50, 58));
    rig.one(tagged(tcp(2, 700, S, b""), 0x6063));
    assert_eq!(rig.sent()[12..18], [0x81, 0, 0x60, 7, 8, 0]);
    rig.one(tagged(tcp(3, 80, S, b""), 9));
    let popped = rig.sent();
    assert_eq!((&popped[12..15], popped.len()), (&[8u8, 0, 0x45][..], 54));
    assert_eq!(rig.drops(tagged(tagged(tcp(4, 80, S, b""), 9), 9)), Some(DropReason::BadVlan));
}

#[test]
fn the_second_interface_gets_its_own_mac() {
    let mut rig = Rig::new();
    assert_eq!(rig.one(tcp(1, 443, S, b"")).verdict, Verdict::Tx(1));
    let sent = rig.io.sent(1);
    assert_eq!(sent[0][..12], [2, 0, 0, 0, 1, 41, 2, 0, 0, 0, 0, 2]);
}

#[test]
fn each_bad_packet_has_its_reason() {
    use DropReason::*;
    let fix_ip = |mut f: Vec<u8>| {
        f[24..26].fill(0);
        let check = checksum::checksum(&f[14..34]);
        f[24..26].copy_from_slice(&check.to_ne_bytes());
        f
    };
    let change = |at: usize, value: u8| {
        let mut frame = tcp(1, 80, S, b"payload");
        frame[at] = value;
        frame
    };
    let mut partial = tcp(1, 80, S, b"payload");
    let pseudo = checksum::pseudo_header(&partial[26..30], &partial[30..34], 6, 27);
    partial[50..52].copy_from_slice(&checksum::fold(pseudo).to_ne_bytes());
    let rows: Vec<(Vec<u8>, DropReason)> = vec![
        (tcp(1, 80, S, b"")[..40].to_vec(), Truncated),
        (tcp(1, 80, S, b"")[..20].to_vec(), Truncated),
        (vec![1, 2, 3], Truncated),
        (change(25, 0), BadIpChecksum),
        (fix_ip(change(14, 0x42)), BadIpHeader),
        (change(53, 0xee), BadTransportChecksum),
        (fix_ip(change(46, 0xf0)), BadTransportHeader),
        (partial, PartialChecksum),
        (fix_ip(change(22, 1)), TtlExpired),
        (fix_ip(change(20, 0x20)), BadLength),
        (tcp(1, 80, S | F, b""), BadTcpFlags),
        (tcp(1, 80, S | R, b""), BadTcpFlags),
        (tcp(1, 80, 0, b""), BadTcpFlags),
        (tcp(1, 80, R, b""), NoFlow),
        (sctp(6), NoFlow),
        (udp([127, 0, 0, 1], 5000), MartianSource),
        (udp([0, 1, 2, 3], 5000), MartianSource),
        (udp([224, 0, 0, 9], 5000), MartianSource),
        (udp([255; 4], 5000), MartianSource),
        (udp(VIP, 5000), OwnSource),
        (change(5, 9), WrongMac),
        (change(0, 0xff), WrongMac),
        (tcp(1, 701, S, b""), NoServer),
        (tcp(1, 702, S, b""), NoServer),
    ];
    for (frame, reason) in rows {
        let mut rig = Rig::new();
        assert_eq!(rig.drops(frame), Some(reason));
        assert_eq!(rig.pipeline.stats().drops[reason as usize].get(), 1, "{reason:?} is counted");
        assert!(rig.pipeline.tables().0.is_empty(), "{reason:?} left a flow behind");
    }
    let mut own = tcp(1, 80, S, b"");
    own[6..12].copy_from_slice(&OWN.0);
    assert_eq!(Rig::new().drops(own), Some(Loop));
}

/// DF set or cleared in an untagged IPv4 frame.
fn with_df(mut frame: Vec<u8>, df: bool) -> Vec<u8> {
    frame[20] = if df { 0x40 } else { 0 };
    frame[24..26].fill(0);
    let check = checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&check.to_ne_bytes());
    frame
}

#[test]
fn what_does_not_fit_is_cut_up_or_its_sender_is_told() {
    let mut rig = Rig::new();
    let large = tcp(1, 80, S, &[7; 1461]);
    // DF: the client learns the MTU from the service address, and no flow is made.
    let outcome = rig.one(with_df(large.clone(), true));
    assert_eq!((outcome.verdict, outcome.new_flow), (Verdict::Reply(0), false));
    let error = rig.sent();
    assert_eq!((&error[..6], &error[26..30], &error[30..34]), (&CLIENT_MAC[..], &VIP[..], &CLIENT[..]));
    assert_eq!((&error[34..36], &error[40..42]), (&[3, 4][..], &1500u16.to_be_bytes()[..]));
    assert!(rig.pipeline.tables().0.is_empty());
    assert_eq!(rig.pipeline.stats().icmp_errors.get(), 1);
    // No DF: two pieces to the same server.
    let outcome = rig.one(with_df(large, false));
    assert!(outcome.new_flow);
    let sent = rig.io.sent(0);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|piece| mac_of(piece) == mac_of(&sent[0]) && piece.len() <= 1514 && piece[22] == 63));
    let bytes: usize = sent.iter().map(|piece| piece.len() - 34).sum();
    assert_eq!(bytes, 20 + 1461);
    // Errors are limited in rate; beyond that the reason is counted.
    let df = with_df(tcp(2, 80, S, &[7; 1461]), true);
    let told = (0..300).filter(|_| rig.one(df.clone()).verdict == Verdict::Reply(0)).count();
    assert_eq!(told, 99);
    assert_eq!(rig.pipeline.stats().drops[DropReason::TooBig as usize].get(), 201);
    rig.io.sent(0);
    rig.now += 1000;
    assert_eq!(rig.one(df).verdict, Verdict::Reply(0));
    // IPv6 is never cut up.
    let mut six = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OWN.0)
        .ipv6(CLIENT6, VIP6, 64)
        .udp(9, 9)
        .write(&mut six, &[1; 1460])
        .expect("builds");
    rig.io.sent(0);
    assert_eq!(rig.one(six).verdict, Verdict::Reply(0));
    let error = rig.sent();
    assert_eq!((&error[22..38], error[54], &error[58..62]), (&VIP6[..], 2, &1500u32.to_be_bytes()[..]));
}

#[test]
fn broken_packets_for_others_are_the_kernels() {
    let mut frame = tcp(1, 80, S, b"");
    frame[33] = 99;
    assert_eq!(Rig::new().one(frame).verdict, Verdict::Pass);
}

#[test]
fn checks_of_checksums_as_configured() {
    let mut spoiled = tcp(1, 80, A, b"payload");
    spoiled[56] ^= 1;
    for (verify, first, later) in [
        (VerifyChecksums::NewFlows, false, true),
        (VerifyChecksums::All, false, false),
        (VerifyChecksums::Off, true, true),
    ] {
        let settings =
            EngineSettings { flows: 100, flows_ipv6: 16, verify_checksums: verify, ..EngineSettings::default() };
        let mut rig = Rig::with(settings, default_services());
        assert_eq!(rig.drops(spoiled.clone()).is_none(), first, "{verify:?}");
        rig.one(tcp(1, 80, S, b""));
        assert_eq!(rig.drops(spoiled.clone()).is_none(), later, "{verify:?}");
    }
}

#[test]
fn a_removed_server_moves_its_flows_and_no_others() {
    let mut rig = Rig::new();
    let mut before = std::collections::HashMap::new();
    for port in 0..100 {
        rig.one(tcp(port, 80, S, b""));
        before.insert(port, mac_of(&rig.sent()));
        rig.one(tcp(port, 80, A, b""));
        rig.sent();
    }
    let mut services = default_services();
    services[0] = service(IpAddr::from(VIP), Protocol::Tcp, PortRange::single(80), &[(1, 1), (9, 1)]);
    services[0].fates.removed = Fate::Reschedule;
    rig.swap(services);
    for (port, mac) in before {
        let outcome = rig.one(tcp(port, 80, A, b"more"));
        let now = mac_of(&rig.sent());
        if mac == 1 {
            assert_eq!((now, outcome.new_flow), (1, false));
        } else {
            assert!(outcome.new_flow && (now == 1 || now == 9));
        }
    }
}

#[test]
fn a_quiescent_or_unreachable_server_keeps_or_loses_its_flows_with_a_reason() {
    let mut rig = Rig::new();
    rig.one(udp(CLIENT, 5000));
    let mut services = default_services();
    services[1].servers[0].weight = 0;
    rig.swap(services.clone());
    assert_eq!(rig.drops(udp(CLIENT, 5000)), None);
    assert_eq!(rig.drops(udp(CLIENT, 5001)), Some(DropReason::NoServer));
    services[1].servers = vec![Server::dr(IpAddr::from([10, 0, 0, 3]), 1)];
    // The same server without a next hop: its flows are dropped by name, not moved.
    let desired_hop = |address: IpAddr| if address == IpAddr::from([10, 0, 0, 3]) { None } else { hop(address) };
    let desired = desired(services);
    let ports = vec![Port::new(OWN, 1500, true)];
    rig.snapshot = rig.registry.compile(&desired, ports, desired_hop).expect("compiles").snapshot;
    assert_eq!(rig.drops(udp(CLIENT, 5000)), Some(DropReason::NoNextHop));
}

#[test]
fn a_full_ring_is_a_counted_drop_and_keeps_no_frame() {
    let mut rig = Rig::new();
    rig.io.limit_output(0);
    assert_eq!(rig.drops(tcp(1, 80, S, b"")), Some(DropReason::TxFull));
}

#[test]
fn counters_agree_with_the_traffic() {
    let mut rig = Rig::new();
    for port in 0..10 {
        rig.one(tcp(port, 80, S, b""));
        rig.one(tcp(port, 80, A, b"0123456789"));
    }
    let stats = rig.pipeline.stats();
    let servers: Vec<_> = (0..2).map(|s| &stats.servers[s]).collect();
    for server in servers {
        assert_eq!((server.connections.get(), server.packets.get(), server.bytes.get()), (5, 10, 5 * (40 + 50)));
    }
    assert_eq!((stats.frames.get(), stats.forwarded.get()), (20, 20));
}
