//! What one failed check costs the control thread with thousands of servers: from its word to the snapshot. Prints figures
//! (`-- --nocapture`), and asserts what the snapshot says, not how long it took.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use evenkeel::control::apply::filter_table;
use evenkeel::control::compile::{Registry, Whereabouts};
use evenkeel::control::health::checks::Checks;
use evenkeel::control::health::meaning::{Meaning, Moment, Seen};
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::model::*;

const SERVERS: u32 = 5000;

const HOP: NextHop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };

/// That many servers over that many services, each server with a check of its own.
fn desired(services: u32, scheduler: Scheduler) -> Desired {
    let address = |of: u32, n: u32| IpAddr::from(Ipv4Addr::from(of + n));
    let server = |n: u32| {
        let address = address(0x0a00_0001, n);
        let http = HttpRequest {
            method: "GET".to_owned(),
            path: format!("/health/{n}"),
            host: Some("www.example.com".to_owned()),
            headers: Vec::new(),
            status: vec![(200, 299)],
            body: Some(BodyMatch::Text("ready".to_owned())),
            digest: None,
        };
        let kind = CheckKind::Http(HttpCheck { tls: None, version_11: true, requests: vec![http] });
        let target = CheckTarget { address, port: 80, source: None, through: None };
        let mut server = Server::dr(address, 1);
        server.health.checks = vec![Check { kind, target, pace: Pace::default() }];
        server
    };
    let each = SERVERS / services;
    let service = |n: u32| {
        let ports = PortRange::single(80);
        let key = ServiceKey { address: address(0xc612_0001, n), protocol: Protocol::Tcp, ports };
        Service::dr(&format!("web{n}"), key, scheduler, (n * each..(n + 1) * each).map(server).collect())
    };
    Desired::of((0..services).map(service).collect())
}

fn compile(registry: &mut Registry, desired: &Desired, meaning: &Meaning, now: Duration) -> Snapshot {
    // As a change does it, but for the kernel's filters, which stay as they are.
    assert!(!filter_table(desired, &HashSet::new()).entries.is_empty());
    let whereabouts = |service: &Service, server: &Server| Whereabouts {
        hop: Some(HOP),
        standing: meaning.standing(service, server, now),
        ..Whereabouts::default()
    };
    let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
    registry.compile_at(desired, vec![port], now, whereabouts).expect("compiles").snapshot
}

#[test]
fn one_check_among_thousands() {
    for (services, scheduler) in [(500, Scheduler::WLC), (500, Scheduler::MH), (1, Scheduler::WLC), (1, Scheduler::WRR)]
    {
        let desired = desired(services, scheduler);
        let (mut checks, mut meaning, mut registry) = (Checks::default(), Meaning::default(), Registry::default());
        let moment = |n: u64| Moment { now: Duration::from_secs(n), wall: Duration::from_secs(n) };
        checks.assign(&desired);
        meaning.configure(&desired, &checks, moment(0));
        meaning.reach(&desired, |_, _| Ok(HOP));
        let mut changes = Vec::new();
        meaning.judge(moment(0), &mut changes);
        let usable = |snapshot: &Snapshot| {
            snapshot.services.iter().flat_map(|service| &service.members).filter(|member| member.is_available()).count()
        };
        assert_eq!(usable(&compile(&mut registry, &desired, &meaning, Duration::ZERO)), SERVERS as usize);
        let mut took = Vec::new();
        let all: Vec<_> = checks.plan().checks.iter().map(|(id, _)| *id).collect();
        for (n, id) in (1u64..).zip(all.iter().step_by(100)) {
            let begun = Instant::now();
            let words = "connection refused".to_owned();
            meaning.note(*id, Seen { up: false, weigh: None, words });
            assert!(meaning.judge(moment(n), &mut changes));
            let judged = begun.elapsed();
            let snapshot = compile(&mut registry, &desired, &meaning, moment(n).now);
            took.push((begun.elapsed(), judged));
            assert_eq!(usable(&snapshot), SERVERS as usize - n as usize);
        }
        assert_eq!(changes.len(), took.len());
        took.sort_unstable();
        let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
        println!(
            "{SERVERS} servers in {services} services ({}): a check's word to the snapshot in {:.2} ms (median, {:.2} ms of \
             it judging), {:.2} ms at most",
            scheduler.name,
            median.0.as_secs_f64() * 1000.0,
            median.1.as_secs_f64() * 1000.0,
            most.0.as_secs_f64() * 1000.0,
        );
    }
}
