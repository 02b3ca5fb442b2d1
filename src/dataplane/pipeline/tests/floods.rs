//! Floods from random sources: what is established stays, what is legitimate gets in.

use super::*;
use crate::dataplane::flow::{Entry, KeyV4, Stage};
use crate::dataplane::guard::{HOLD_MS, MEMORY_MS, YOUNG_MS};
use crate::dataplane::pipeline::family::Family;

/// Room for so few unproven flows that a small flood fills it.
const ROOM: u32 = 256;

fn rig(services: Vec<Service>) -> Rig {
    let settings = EngineSettings { flows: 1000, unproven: ROOM, unproven_ipv6: ROOM, ..EngineSettings::default() };
    Rig::with(settings, services)
}

fn web() -> Vec<Service> {
    let servers: Vec<(u8, u16)> = (1..=8).map(|n| (n, 1)).collect();
    vec![
        service(IpAddr::from(VIP), Protocol::Tcp, PortRange::single(80), &servers),
        service(IpAddr::from(VIP), Protocol::Udp, PortRange::single(5000), &servers),
    ]
}

fn from(source: [u8; 4], frame: Vec<u8>) -> Vec<u8> {
    let mut frame = frame;
    frame[26..30].copy_from_slice(&source);
    // The transport checksum is the caller's; here checksums are not looked at.
    frame[24..26].fill(0);
    let check = checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&check.to_ne_bytes());
    frame
}

fn unchecked(mut rig: Rig) -> Rig {
    rig.pipeline.verify = VerifyChecksums::Off;
    rig
}

/// `count` frames from sources that nobody else has, a batch at a time.
fn flood(rig: &mut Rig, count: u32, frame: &[u8], seed: u32) {
    let mut random = seed | 1;
    for _ in 0..count / BATCH as u32 {
        let batch: Vec<Vec<u8>> = (0..BATCH)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [_, b, c, d] = random.to_be_bytes();
                from([100, 64 | b & 63, c, d], frame.to_vec())
            })
            .collect();
        rig.run(&batch);
        rig.io.sent(0);
    }
}

fn handshake(rig: &mut Rig, client: [u8; 4], port: u16) -> [u8; 3] {
    [(S, &b""[..]), (A, b""), (A, b"GET")].map(|(flags, payload)| {
        let outcome = rig.one(from(client, tcp(port, 80, flags, payload)));
        assert!(matches!(outcome.verdict, Verdict::Tx(0)), "{outcome:?}");
        mac_of(&rig.sent())
    })
}

fn stage(rig: &Rig, client: [u8; 4], source_port: u16, port: u16, protocol: u8) -> Option<Stage> {
    let end =
        |address: [u8; 4], port| crate::dataplane::snapshot::Endpoint { address: address.into(), port: Some(port) };
    let key: KeyV4 = FlowV4::key_from(end(client, source_port), end(VIP, port), protocol).expect("one family");
    rig.pipeline.v4.find(&key, rig.pipeline.v4.hash(&key)).map(|(stage, _)| stage)
}

#[test]
fn a_flow_is_proven_by_its_client() {
    let mut rig = unchecked(rig(web()));
    let (syn, rst) = (tcp(7, 80, S, b""), tcp(7, 80, R, b""));
    for frame in [&syn, &syn] {
        rig.one(frame.clone());
        assert_eq!(stage(&rig, CLIENT, 7, 80, 6), Some(Stage::Unproven));
    }
    rig.one(tcp(7, 80, A, b""));
    assert_eq!(stage(&rig, CLIENT, 7, 80, 6), Some(Stage::Proven));
    rig.one(rst);
    assert_eq!(stage(&rig, CLIENT, 7, 80, 6), Some(Stage::Proven));
    // In mid-stream, as after a fail-over: the second packet tells.
    rig.one(tcp(8, 80, A, b""));
    assert_eq!(stage(&rig, CLIENT, 8, 80, 6), Some(Stage::Unproven));
    rig.one(tcp(8, 80, A, b"more"));
    assert_eq!(stage(&rig, CLIENT, 8, 80, 6), Some(Stage::Proven));
    for expected in [Stage::Unproven, Stage::Proven] {
        rig.one(udp(CLIENT, 5000));
        assert_eq!(stage(&rig, CLIENT, 4444, 5000, 17), Some(expected));
    }
    let counts = rig.counts(0).into_iter().chain(rig.counts(1));
    let sum = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert_eq!(sum, (0, 3), "each flow counts once, wherever it is: closed, picked up, UDP");
}

#[test]
fn a_syn_flood_leaves_the_established_alone() {
    let mut rig = unchecked(rig(web()));
    let clients: Vec<u16> = (1000..1100).collect();
    let servers: Vec<u8> = clients.iter().map(|port| handshake(&mut rig, CLIENT, *port)[2]).collect();
    let proven = rig.pipeline.v4.proven.len();
    for round in 0..40 {
        rig.now += 50;
        flood(&mut rig, 640, &tcp(5, 80, S, b""), round);
        assert_eq!(rig.pipeline.v4.proven.len(), proven);
        assert!(rig.pipeline.v4.unproven.len() <= ROOM as usize);
    }
    assert!(rig.pipeline.stats().evicted.get() > 0, "the flood filled its part");
    assert!(rig.pipeline.stats().stateless.get() > 20_000, "and was let in without state then");
    for (port, server) in clients.iter().zip(servers) {
        let outcome = rig.one(tcp(*port, 80, A, b"data"));
        assert!(!outcome.new_flow);
        assert_eq!(mac_of(&rig.sent()), server);
    }
}

#[test]
fn a_client_gets_in_during_a_flood_and_keeps_its_server_when_it_ends() {
    let mut rig = unchecked(rig(web()));
    flood(&mut rig, 1280, &tcp(5, 80, S, b""), 1);
    assert!(rig.pipeline.director().guard.is_on(rig.now));
    let mut all = std::collections::BTreeSet::new();
    for port in 2000..2100u16 {
        let client = [198, 51, 100, port as u8];
        // The SYN leaves nothing, the ACK finds its server again, the next packet proves the flow.
        rig.one(from(client, tcp(port, 80, S, b"")));
        let first = mac_of(&rig.sent());
        assert_eq!(stage(&rig, client, port, 80, 6), None);
        rig.now += 3;
        flood(&mut rig, 256, &tcp(6, 80, S, b""), u32::from(port));
        rig.one(from(client, tcp(port, 80, A, b"")));
        assert_eq!(mac_of(&rig.sent()), first);
        assert_eq!(stage(&rig, client, port, 80, 6), Some(Stage::Unproven));
        rig.one(from(client, tcp(port, 80, A, b"GET")));
        assert_eq!(mac_of(&rig.sent()), first);
        assert_eq!(stage(&rig, client, port, 80, 6), Some(Stage::Proven));
        all.insert(first);
    }
    assert!(all.len() > 4, "clients spread over the servers: {all:?}");
    // One whose ACK comes when the flood is just over.
    let late = [198, 51, 100, 250];
    rig.one(from(late, tcp(77, 80, S, b"")));
    let first = mac_of(&rig.sent());
    rig.now += HOLD_MS;
    assert!(!rig.pipeline.director().guard.is_on(rig.now));
    rig.one(from(late, tcp(77, 80, A, b"")));
    assert_eq!(mac_of(&rig.sent()), first);
    // Long after, the scheduler decides again, and SYNs have flows.
    rig.now += MEMORY_MS;
    rig.one(from(late, tcp(78, 80, S, b"")));
    rig.io.sent(0);
    assert_eq!(stage(&rig, late, 78, 80, 6), Some(Stage::Unproven));
}

#[test]
fn a_slow_stream_of_lost_clients_is_no_flood() {
    let mut rig = unchecked(rig(web()));
    // Twice the room in the time in which the guard calls a flow young, and the half of it again and again.
    for round in 0..20 {
        rig.now += YOUNG_MS / 2 + 1;
        flood(&mut rig, ROOM / 4, &tcp(5, 80, S, b""), round);
    }
    assert!(!rig.pipeline.director().guard.is_on(rig.now));
    assert_eq!(rig.pipeline.stats().stateless.get(), 0);
}

#[test]
fn a_udp_flood_leaves_those_alone_who_came_twice() {
    let mut rig = unchecked(rig(web()));
    let client = |n: u8| [198, 51, 100, n];
    let mut servers = Vec::new();
    for n in 0..100 {
        for _ in 0..2 {
            rig.one(udp(client(n), 5000));
            servers.push(mac_of(&rig.sent()));
        }
    }
    flood(&mut rig, 6400, &udp(CLIENT, 5000), 9);
    // One who comes first in the flood, and again while it goes on.
    for n in 100..200 {
        rig.one(udp(client(n), 5000));
        servers.push(mac_of(&rig.sent()));
        flood(&mut rig, 640, &udp(CLIENT, 5000), u32::from(n));
        rig.one(udp(client(n), 5000));
        servers.push(mac_of(&rig.sent()));
    }
    for (n, pair) in servers.chunks(2).enumerate() {
        assert_eq!(pair[0], pair[1], "client {n}");
        let outcome = rig.one(udp(client(n as u8), 5000));
        assert_eq!(mac_of(&rig.sent()), pair[0], "client {n}: {outcome:?}");
    }
    for n in 0..100 {
        assert_eq!(stage(&rig, client(n), 4444, 5000, 17), Some(Stage::Proven));
    }
}

#[test]
fn loads_and_tables_agree_after_a_flood() {
    let mut rig = unchecked(rig(web()));
    for round in 0..30 {
        rig.now += 700;
        flood(&mut rig, 320, &tcp(5, 80, if round % 3 == 0 { A } else { S }, b""), round);
        flood(&mut rig, 128, &udp(CLIENT, 5000), round);
        handshake(&mut rig, [198, 51, 100, round as u8], 9);
        let mut entries = 0;
        rig.pipeline.v4.for_each(|entry| entries += u32::from(entry.is_live()));
        let counts = rig.counts(0).into_iter().chain(rig.counts(1));
        assert_eq!(counts.map(|(active, inactive)| active + inactive).sum::<u32>(), entries);
        assert_eq!(entries as usize, rig.pipeline.v4.len());
    }
    rig.now += 1_000_000;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert!(rig.pipeline.v4.is_empty());
    assert!(rig.counts(0).into_iter().chain(rig.counts(1)).all(|count| count == (0, 0)));
}

#[test]
fn a_syn_on_a_closing_flow_is_a_new_connection() {
    for closing in [&[F | A][..], &[R], &[F | A, A]] {
        let mut rig = unchecked(rig(web()));
        let first = handshake(&mut rig, CLIENT, 7)[2];
        closing.iter().for_each(|flags| {
            rig.one(tcp(7, 80, *flags, b""));
            rig.io.sent(0);
        });
        let again = rig.one(tcp(7, 80, S, b""));
        assert!(again.new_flow, "{closing:?}");
        assert_ne!(mac_of(&rig.sent()), first, "the scheduler was asked again");
        assert_eq!(stage(&rig, CLIENT, 7, 80, 6), Some(Stage::Unproven));
        assert_eq!(rig.counts(0).iter().map(|(a, i)| a + i).sum::<u32>(), 1);
    }
    // One that is established keeps its flow: the SYN may be old, or a lie.
    let mut rig = unchecked(rig(web()));
    let first = handshake(&mut rig, CLIENT, 7)[2];
    assert!(!rig.one(tcp(7, 80, S, b"")).new_flow);
    assert_eq!(mac_of(&rig.sent()), first);
}

#[test]
fn answers_keep_an_unproven_flow_from_giving_way() {
    let key = ServiceKey { address: VIP.into(), protocol: Protocol::Udp, ports: PortRange::single(5000) };
    let server = Server::new(IpAddr::from([10, 0, 0, 1]), None, 1, Method::Nat);
    let nat = Service { method: Method::Nat, ..Service::dr("nat", key, Scheduler::RR, vec![server]) };
    let mut rig = unchecked(rig(vec![nat]));
    rig.one(udp(CLIENT, 5000));
    rig.io.sent(0);
    let mut answer = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 1, 1], OWN.0)
        .ipv4([10, 0, 0, 1], CLIENT, 64)
        .udp(5000, 4444)
        .write(&mut answer, b"a part of a long answer")
        .expect("builds");
    for round in 0..40 {
        rig.now += 300;
        let outcome = rig.one(answer.clone());
        assert!(matches!(outcome.verdict, Verdict::Tx(_)), "round {round}: {outcome:?}");
        rig.io.sent(0);
        flood(&mut rig, 64, &udp(CLIENT, 5000), round);
    }
    assert!(rig.pipeline.stats().evicted.get() > 500, "other flows gave way all the time");
}
