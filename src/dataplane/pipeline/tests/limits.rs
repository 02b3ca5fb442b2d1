//! Limits of services and client networks, thresholds of servers, one-packet scheduling, through the pipeline.

use super::*;
use crate::dataplane::flow::{Entry, flag};

const OTHER: [u8; 4] = [198, 51, 100, 8];
const FAR: [u8; 4] = [203, 0, 113, 9];

/// A SYN from an address and port.
fn syn(source: [u8; 4], port: u16) -> Vec<u8> {
    from(source, port, S)
}

fn from(source: [u8; 4], port: u16, flags: Flags) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, OWN.0).ipv4(source, VIP, 64).tcp(port, 80, 1, 9000);
    let builder = if flags & S != 0 { builder.syn() } else { builder };
    let builder = if flags & A != 0 { builder.ack(7) } else { builder };
    let builder = if flags & R != 0 { builder.rst() } else { builder };
    let mut out = Vec::new();
    builder.write(&mut out, b"").expect("builds");
    out
}

fn limited(limits: Limits) -> Vec<Service> {
    let mut service = service(IpAddr::from(VIP), Protocol::Tcp, PortRange::single(80), &[(1, 1), (2, 1)]);
    service.limits = limits;
    vec![service]
}

fn settings() -> EngineSettings {
    EngineSettings { flows: 1000, flows_ipv6: 1000, ..EngineSettings::default() }
}

/// `None`: it was let in.
fn enter(rig: &mut Rig, frame: Vec<u8>) -> Option<DropReason> {
    let why = rig.drops(frame);
    rig.io.sent(0);
    why
}

fn sweep(rig: &mut Rig) {
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
}

/// Flows in the tables that count, what the service counts, and what all clients count.
fn counted(rig: &Rig) -> (u32, u32, u64) {
    let mut flows = 0;
    rig.pipeline.tables().0.for_each(|entry| flows += u32::from(entry.flags() & flag::LIMITED != 0));
    let tally = &rig.snapshot.services[0].tally;
    (flows, tally.flows.get(), rig.pipeline.director().clients.totals(|id| id == tally.id).1)
}

#[test]
fn a_service_takes_no_more_than_it_may() {
    let mut rig = Rig::with(settings(), limited(Limits { connections: Some(3), ..Limits::NONE }));
    for port in 1..=3 {
        assert_eq!(enter(&mut rig, syn(CLIENT, port)), None);
    }
    assert_eq!(enter(&mut rig, syn(OTHER, 4)), Some(DropReason::ServiceConnections));
    assert_eq!(counted(&rig), (3, 3, 0));
    assert_eq!(rig.snapshot.services[0].tally.refused.load(std::sync::atomic::Ordering::Relaxed), 1);
    // A flow that is there is not asked again; one that ends makes room.
    assert_eq!(enter(&mut rig, from(CLIENT, 1, A)), None);
    assert_eq!([A, R].map(|flags| enter(&mut rig, from(CLIENT, 2, flags))), [None; 2]);
    rig.now += 11_000;
    sweep(&mut rig);
    assert_eq!(counted(&rig), (2, 2, 0));
    assert_eq!(enter(&mut rig, syn(OTHER, 4)), None);
    // What is refused for another reason is not counted.
    let mut services = limited(Limits { connections: Some(9), ..Limits::NONE });
    services[0].servers.iter_mut().for_each(|server| server.weight = 0);
    rig.swap(services);
    assert_eq!(enter(&mut rig, syn(OTHER, 5)), Some(DropReason::NoServer));
    assert_eq!(counted(&rig), (3, 3, 0));
    rig.now += 2_000_000;
    sweep(&mut rig);
    assert_eq!(counted(&rig), (0, 0, 0));
}

#[test]
fn a_client_network_takes_no_more_than_it_may() {
    let limits = Limits { client_connections: Some(2), client_prefix_v4: 24, ..Limits::NONE };
    let mut rig = Rig::with(settings(), limited(limits));
    assert_eq!(enter(&mut rig, syn(CLIENT, 1)), None);
    assert_eq!(enter(&mut rig, syn(OTHER, 2)), None);
    assert_eq!(enter(&mut rig, syn(OTHER, 3)), Some(DropReason::ClientConnections));
    assert_eq!(enter(&mut rig, syn(FAR, 3)), None);
    assert_eq!(counted(&rig), (3, 0, 3));
    // Another length, and what is there is counted by it.
    rig.swap(limited(Limits { client_prefix_v4: 32, ..limits }));
    assert_eq!(enter(&mut rig, syn(OTHER, 3)), None);
    assert_eq!(enter(&mut rig, syn(OTHER, 4)), Some(DropReason::ClientConnections));
    assert_eq!(counted(&rig), (4, 0, 4));
    let clients = &rig.pipeline.director().clients;
    assert_eq!(clients.totals(|_| true).1, 4 + 3, "what was counted before is nobody's");
    assert_eq!(clients.totals(|tally| rig.snapshot.has_tally(tally)), (3, 4));
    rig.swap(limited(limits));
    assert_eq!(enter(&mut rig, syn(CLIENT, 5)), Some(DropReason::ClientConnections), "three are there");
    assert_eq!(enter(&mut rig, syn(FAR, 5)), None);
    rig.now += 2_000_000;
    sweep(&mut rig);
    assert_eq!(counted(&rig), (0, 0, 0));
}

#[test]
fn limits_that_come_and_go_count_what_is_there() {
    let mut rig = Rig::with(settings(), limited(Limits::NONE));
    for port in 1..=4 {
        assert_eq!(enter(&mut rig, syn(CLIENT, port)), None);
    }
    assert_eq!(counted(&rig), (0, 0, 0));
    let both = Limits { connections: Some(4), client_connections: Some(6), ..Limits::NONE };
    rig.swap(limited(both));
    assert_eq!(enter(&mut rig, syn(OTHER, 5)), Some(DropReason::ServiceConnections));
    assert_eq!(counted(&rig), (4, 4, 4));
    // Of a server that is removed, too.
    let mut services = limited(both);
    services[0].servers.truncate(1);
    services[0].fates.removed = Fate::Keep;
    rig.swap(services);
    assert_eq!(enter(&mut rig, syn(OTHER, 5)), Some(DropReason::ServiceConnections));
    rig.swap(limited(Limits::NONE));
    assert_eq!(enter(&mut rig, syn(OTHER, 5)), None);
    rig.now += 61_500;
    sweep(&mut rig);
    rig.swap(limited(both));
    sweep(&mut rig);
    assert_eq!(counted(&rig).1, 0, "none is left, none was counted");
}

#[test]
fn rates_hold_for_services_and_clients() {
    let limits = Limits {
        rate: Some(Rate { per_second: 10, burst: 5 }),
        client_rate: Some(Rate { per_second: 1, burst: 2 }),
        ..Limits::NONE
    };
    let mut rig = Rig::with(settings(), limited(limits));
    assert_eq!([1, 2, 3].map(|port| enter(&mut rig, syn(CLIENT, port))), [None, None, Some(DropReason::ClientRate)]);
    // What the client's own rate refused took nothing of the service's.
    let third = [198, 51, 100, 9];
    assert_eq!([1, 2].map(|port| enter(&mut rig, syn(OTHER, port))), [None, None]);
    assert_eq!([1, 2].map(|port| enter(&mut rig, syn(third, port))), [None, Some(DropReason::ServiceRate)]);
    rig.now += 101;
    // The third client was not charged for what the service refused.
    assert_eq!(enter(&mut rig, syn(third, 2)), None);
    assert_eq!(enter(&mut rig, syn(third, 3)), Some(DropReason::ClientRate));
    assert_eq!(counted(&rig), (0, 0, 0), "rates count no flows");
}

#[test]
fn without_room_for_a_client_it_is_let_in_and_that_is_counted() {
    let limits = Limits { client_connections: Some(1), ..Limits::NONE };
    let mut settings = settings();
    settings.limited_clients = 8;
    let mut rig = Rig::with(settings, limited(limits));
    for n in 0..8 {
        assert_eq!(enter(&mut rig, syn([203, 0, 113, n], 1)), None);
    }
    assert_eq!(rig.pipeline.stats().clients_full.get(), 0);
    assert_eq!([1, 2].map(|port| enter(&mut rig, syn(CLIENT, port))), [None, None]);
    assert_eq!(rig.pipeline.stats().clients_full.get(), 2);
    assert_eq!(enter(&mut rig, syn([203, 0, 113, 3], 2)), Some(DropReason::ClientConnections));
}

#[test]
fn a_server_takes_no_more_than_its_upper_threshold() {
    let mut services = limited(Limits::NONE);
    (services[0].servers[0].upper, services[0].servers[0].lower) = (Some(4), Some(2));
    services[0].servers[1].upper = Some(2);
    let mut rig = Rig::with(settings(), services);
    for port in 1..=6 {
        assert_eq!(enter(&mut rig, syn(CLIENT, port)), None);
    }
    // IPVS's order: server 2 first. It has the flows of ports 1 and 3.
    assert_eq!(rig.counts(0), [(0, 2), (0, 4)]);
    assert_eq!(enter(&mut rig, syn(CLIENT, 7)), Some(DropReason::NoServer));
    let reset = |rig: &mut Rig, ports: &[u16]| {
        ports.iter().for_each(|port| assert_eq!([A, R].map(|flags| enter(rig, from(CLIENT, *port, flags))), [None; 2]));
    };
    // Closing flows count until they are gone: inactive ones are connections, too.
    reset(&mut rig, &[1]);
    assert_eq!(enter(&mut rig, syn(CLIENT, 7)), Some(DropReason::NoServer));
    rig.now += 10_500;
    sweep(&mut rig);
    // Below three quarters of its threshold, and full again.
    assert_eq!(enter(&mut rig, syn(CLIENT, 7)), None);
    assert_eq!(rig.counts(0), [(0, 2), (0, 4)]);
    assert_eq!(enter(&mut rig, syn(CLIENT, 8)), Some(DropReason::NoServer));
    // Server 1 takes new ones below its lower threshold only.
    reset(&mut rig, &[2, 4]);
    rig.now += 10_500;
    sweep(&mut rig);
    assert_eq!(rig.counts(0), [(0, 2), (0, 2)]);
    assert_eq!(enter(&mut rig, syn(CLIENT, 8)), Some(DropReason::NoServer));
    reset(&mut rig, &[5]);
    rig.now += 10_500;
    sweep(&mut rig);
    assert_eq!(
        [8, 9, 10, 11].map(|port| enter(&mut rig, syn(CLIENT, port))),
        [None, None, None, Some(DropReason::NoServer)]
    );
    assert_eq!(rig.counts(0), [(0, 2), (0, 4)]);
}

#[test]
fn datagrams_are_scheduled_one_by_one() {
    let mut one_packet = service(IpAddr::from(VIP), Protocol::Udp, PortRange::single(5000), &[(1, 1), (2, 1), (3, 1)]);
    one_packet.one_packet = true;
    one_packet.limits.rate = Some(Rate { per_second: 10, burst: 7 });
    let mut rig = Rig::with(settings(), vec![one_packet]);
    let macs: Vec<u8> = (0..6)
        .map(|_| {
            let outcome = rig.one(udp(CLIENT, 5000));
            assert!(matches!(outcome.verdict, Verdict::Tx(0)) && !outcome.new_flow, "{outcome:?}");
            mac_of(&rig.sent())
        })
        .collect();
    assert_eq!(macs, [3, 2, 1, 3, 2, 1], "one sequence for one client and port");
    assert!(rig.pipeline.tables().0.is_empty());
    assert_eq!(rig.counts(0), [(0, 0); 3]);
    let counters = [0, 1, 2].map(|slot: usize| rig.pipeline.stats().servers[slot].connections.get());
    assert_eq!(counters, [2; 3]);
    // A rate holds for packets then.
    assert_eq!([(); 2].map(|()| enter(&mut rig, udp(CLIENT, 5000))), [None, Some(DropReason::ServiceRate)]);
}
