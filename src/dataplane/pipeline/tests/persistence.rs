//! Persistent clients: what the real IPVS was recorded to do, groups, calls, QUIC connections, and what ends.

use std::collections::BTreeSet;

use super::translation::{at, packet};
use super::*;
use crate::dataplane::persist::Template;

const P32: &str = include_str!("../../../../tests/golden/persist/p300_32.tsv");
const P24: &str = include_str!("../../../../tests/golden/persist/p300_24.tsv");
const P16: &str = include_str!("../../../../tests/golden/persist/p300_16.tsv");
const QUIESCENT: &str = include_str!("../../../../tests/golden/persist/p300_24_quiesc1.tsv");
const UDP300: &str = include_str!("../../../../tests/golden/persist/udp_p300.tsv");
const LIFE: &str = include_str!("../../../../tests/golden/persist/p5_life.tsv");

pub(super) fn persistence(seconds: u32) -> Persistence {
    Persistence { by: PersistBy::Client, seconds, prefix_v4: 32, prefix_v6: 128, leave_drained: false }
}

/// A service with servers 10.0.0.N, or fd00::N.
pub(super) fn web(vip: &str, protocol: Protocol, servers: &[u8], persistence: Option<Persistence>) -> Service {
    let vip = at(vip);
    let servers: Vec<(u8, u16)> = servers.iter().map(|n| (*n, 1)).collect();
    let plain = service(vip.ip(), protocol, PortRange::single(vip.port()), &servers);
    Service { name: format!("{protocol}-{vip}"), persistence, ..plain }
}

pub(super) fn rig(services: Vec<Service>) -> Rig {
    Rig::with(settings(), services)
}

fn settings() -> EngineSettings {
    EngineSettings { flows: 4000, flows_ipv6: 1000, persistent_clients: 1024, ..EngineSettings::default() }
}

/// The last byte of the server that a frame goes to; 0: none.
fn goes_to(rig: &mut Rig, frame: Vec<u8>) -> u8 {
    match rig.one(frame).verdict {
        Verdict::Tx(_) => mac_of(&rig.sent()),
        _ => 0,
    }
}

fn tcp_from(client: &str, vip: &str, flags: Flags) -> Vec<u8> {
    packet(CLIENT_MAC, at(client), at(vip), Protocol::Tcp, flags, b"")
}

/// A connection that its client opens, uses and closes.
fn get(rig: &mut Rig, client: &str, vip: &str) -> u8 {
    let server = goes_to(rig, tcp_from(client, vip, S));
    for flags in [A, F | A, A] {
        assert_eq!(goes_to(rig, tcp_from(client, vip, flags)), server);
    }
    server
}

pub(super) fn datagram(rig: &mut Rig, client: &str, vip: &str, payload: &[u8]) -> u8 {
    goes_to(rig, packet(CLIENT_MAC, at(client), at(vip), Protocol::Udp, 0, payload))
}

pub(super) fn templates(rig: &Rig) -> Vec<Template> {
    rig.pipeline.director().templates.list(rig.now).collect()
}

pub(super) fn end_flows(rig: &mut Rig) {
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
}

/// Replays a recording: the same clients get the same servers, and the same templates are there with the same time left.
fn replay(golden: &str, vip: &str, protocol: Protocol, persistence: Persistence) {
    let mut services = vec![web(vip, protocol, &[21, 22, 23], Some(persistence))];
    let mut rig = rig(services.clone());
    let start = rig.now;
    let (mut choices, mut listed) = (0, 0);
    let mut lines = golden.lines().peekable();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["#cmd", _, _, _, _, "ipvsadm", command, "-t", _, "-r", server, rest @ ..] = words.as_slice()
            && *command != "-Lnc"
        {
            let server: IpAddr = server.parse().expect("address");
            let servers = &mut services[0].servers;
            match (*command, rest.last()) {
                ("-d", _) => servers.retain(|known| known.address != server),
                ("-a", _) => servers.push(Server::dr(server, 1)),
                (_, weight) => {
                    let weight = weight.expect("weight").parse().expect("number");
                    servers.iter_mut().filter(|s| s.address == server).for_each(|s| s.weight = weight);
                }
            }
            rig.swap(services.clone());
        } else if words[0] == "#cmd" {
            let mut rows = Vec::new();
            while let Some(row) = lines.next_if(|row| row.starts_with("TCP ") || row.starts_with("UDP ")) {
                rows.push(row.split_whitespace().collect::<Vec<_>>());
            }
            let seconds = |row: &[&str]| -> u32 {
                let (minutes, seconds) = row[1].split_once(':').expect("a time");
                minutes.parse::<u32>().expect("minutes") * 60 + seconds.parse::<u32>().expect("seconds")
            };
            // A connection that is left alone tells how much time has passed since it was opened.
            if let Some(row) = rows.iter().find(|row| row[2] == "ESTABLISHED") {
                rig.now = start + (899 - seconds(row)) * 1000 + 500;
            }
            end_flows(&mut rig);
            rows.retain(|row| row[2] != "ESTABLISHED");
            let entry = &rig.snapshot.services[0];
            let found: BTreeSet<(String, String)> = templates(&rig)
                .iter()
                .map(|t| (t.network.to_string(), entry.real(t.real).expect("a server").address.to_string()))
                .collect();
            let bare = |text: &str| text.rsplit_once(':').expect("a port").0.to_owned();
            let expected: BTreeSet<_> = rows.iter().map(|row| (bare(row[3]), bare(row[5]))).collect();
            assert_eq!(found, expected);
            for row in rows {
                let template = templates(&rig).into_iter().find(|t| t.network.to_string() == bare(row[3]));
                let template = template.expect("listed");
                let left = template.left_ms / 1000;
                // The recording's own clock is read when a row is printed.
                assert!(left.abs_diff(seconds(&row)) <= 1, "{row:?}: {left} s");
                let state = if template.assured { "ASSURED" } else { "NONE" };
                assert_eq!(row[2], state, "{row:?}");
                listed += 1;
            }
        } else {
            let server = match words[1] {
                "open" => {
                    let server = goes_to(&mut rig, tcp_from(words[2], vip, S));
                    assert_eq!(goes_to(&mut rig, tcp_from(words[2], vip, A)), server);
                    server
                }
                _ if protocol == Protocol::Udp => datagram(&mut rig, words[2], vip, b"question"),
                _ => get(&mut rig, words[2], vip),
            };
            assert_eq!(format!("s{}", server - 20), words[3], "{line}");
            choices += 1;
        }
    }
    println!("{vip}: {choices} choices, {listed} rows of templates");
    assert!(choices >= 4 && listed >= 4);
}

#[test]
fn choices_and_templates_are_those_of_ipvs() {
    let masked = |prefix_v4| Persistence { prefix_v4, ..persistence(300) };
    replay(P32, "10.2.0.2:80", Protocol::Tcp, persistence(300));
    replay(P24, "10.2.0.3:80", Protocol::Tcp, masked(24));
    replay(P16, "10.2.0.4:80", Protocol::Tcp, masked(16));
    replay(QUIESCENT, "10.2.0.6:80", Protocol::Tcp, Persistence { leave_drained: true, ..masked(24) });
    replay(UDP300, "10.2.0.9:5000", Protocol::Udp, persistence(300));
}

#[test]
fn templates_live_as_long_as_those_of_ipvs() {
    replay(LIFE, "10.2.0.10:80", Protocol::Tcp, persistence(5));
}

#[test]
fn a_group_shares_its_clients() {
    let grouped = |vip, protocol| Service {
        group: Some("shop".into()),
        ..web(vip, protocol, &[1, 2, 3], Some(persistence(300)))
    };
    let mut any = grouped("192.0.2.11:1", Protocol::Tcp);
    any.key.ports = PortRange::ANY;
    let mut rig = rig(vec![
        grouped("192.0.2.10:80", Protocol::Tcp),
        grouped("192.0.2.10:443", Protocol::Tcp),
        grouped("192.0.2.10:443", Protocol::Udp),
        any,
        web("192.0.2.10:81", Protocol::Tcp, &[1, 2, 3], Some(persistence(300))),
    ]);
    // A service that is not in the group has a turn and clients of its own.
    get(&mut rig, "198.51.100.200:1", "192.0.2.10:81");
    for n in 1..=9 {
        let client = format!("198.51.100.{n}");
        let first = get(&mut rig, &format!("{client}:1000"), "192.0.2.10:80");
        assert_eq!(get(&mut rig, &format!("{client}:1000"), "192.0.2.10:443"), first);
        assert_eq!(datagram(&mut rig, &format!("{client}:1000"), "192.0.2.10:443", b"x"), first);
        // An FTP-like use: any port of any service of the group.
        assert_eq!(get(&mut rig, &format!("{client}:1001"), "192.0.2.11:21"), first);
        assert_eq!(get(&mut rig, &format!("{client}:1002"), "192.0.2.11:40123"), first);
        assert_ne!(get(&mut rig, &format!("{client}:1003"), "192.0.2.10:81"), first);
    }
    assert_eq!(templates(&rig).len(), 19);
    assert!(templates(&rig).iter().all(|template| template.flows == 5 || template.flows == 1));
    rig.now += 1_000_000;
    end_flows(&mut rig);
    assert!(rig.pipeline.director().templates.is_empty());
}

#[test]
fn clients_keep_their_server_past_its_threshold_and_its_weight() {
    let mut services = vec![web("192.0.2.10:80", Protocol::Tcp, &[1], Some(persistence(300)))];
    services[0].servers[0].upper = Some(1);
    let mut rig = rig(services.clone());
    assert_eq!(goes_to(&mut rig, tcp_from("198.51.100.1:1", "192.0.2.10:80", S)), 1);
    // As in IPVS, where only the scheduler looks at thresholds.
    assert_eq!(goes_to(&mut rig, tcp_from("198.51.100.1:2", "192.0.2.10:80", S)), 1);
    assert_eq!(rig.drops(tcp_from("198.51.100.2:1", "192.0.2.10:80", S)), Some(DropReason::NoServer));
    services[0].servers[0].weight = 0;
    rig.swap(services.clone());
    assert_eq!(goes_to(&mut rig, tcp_from("198.51.100.1:3", "192.0.2.10:80", S)), 1);
    services[0].persistence = Some(Persistence { leave_drained: true, ..persistence(300) });
    rig.swap(services);
    assert_eq!(rig.drops(tcp_from("198.51.100.1:4", "192.0.2.10:80", S)), Some(DropReason::NoServer));
    // Who was refused holds nothing.
    assert_eq!(templates(&rig).iter().map(|template| template.flows).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_server_that_is_gone_or_out_of_reach_is_left() {
    let mut services = vec![web("192.0.2.10:80", Protocol::Tcp, &[1, 2], Some(persistence(300)))];
    let mut rig = rig(services.clone());
    let client = |port: u16| format!("198.51.100.1:{port}");
    assert_eq!(get(&mut rig, &client(1), "192.0.2.10:80"), 2);
    // Removed and back before the client's next connection: it is its server again.
    let away = services[0].servers.pop().expect("a server");
    rig.swap(services.clone());
    services[0].servers.push(away.clone());
    rig.swap(services.clone());
    assert_eq!(get(&mut rig, &client(2), "192.0.2.10:80"), 2);
    services[0].servers.pop();
    rig.swap(services.clone());
    assert_eq!(get(&mut rig, &client(3), "192.0.2.10:80"), 1);
    services[0].servers.push(away);
    rig.swap(services.clone());
    assert_eq!(get(&mut rig, &client(4), "192.0.2.10:80"), 1);
    // No next hop: the client gets the other one, and keeps that.
    let unreachable = rig.registry.compile(&desired(services.clone()), ports(), |address| {
        hop(address).filter(|_| address != IpAddr::from([10, 0, 0, 1]))
    });
    rig.snapshot = unreachable.expect("compiles").snapshot;
    assert_eq!(get(&mut rig, &client(5), "192.0.2.10:80"), 2);
    rig.swap(services);
    assert_eq!(get(&mut rig, &client(6), "192.0.2.10:80"), 2);
}

#[test]
fn networks_of_ipv6_and_methods_of_both_halves() {
    for method in [Method::Dr, Method::Nat, Method::FullNat] {
        let wide = Persistence { prefix_v6: 56, ..persistence(300) };
        let mut service = web("[2001:db8::10]:80", Protocol::Tcp, &[1, 2, 3], Some(wide));
        service.method = method;
        service.local_addresses =
            if method == Method::FullNat { vec!["fd00::ff".parse().expect("address")] } else { Vec::new() };
        service.servers.iter_mut().for_each(|server| server.method = method);
        let mut rig = rig(vec![service]);
        let mut open = |client: &str| goes_to(&mut rig, tcp_from(client, "[2001:db8::10]:80", S));
        let first = open("[2001:db8:1:aa00::1]:1000");
        assert_eq!(open("[2001:db8:1:aa00::2]:1000"), first);
        assert_eq!(open("[2001:db8:1:aaff::1]:1000"), first);
        assert_ne!(open("[2001:db8:1:ab00::1]:1000"), first);
        let flows = |rig: &Rig| templates(rig).iter().map(|t| (t.flows, t.assured)).collect::<BTreeSet<_>>();
        assert_eq!(flows(&rig), BTreeSet::from([(3, false), (1, false)]));
        goes_to(&mut rig, tcp_from("[2001:db8:1:aa00::2]:1000", "[2001:db8::10]:80", A));
        assert_eq!(flows(&rig), BTreeSet::from([(3, true), (1, false)]));
        // The established one lives for 900 s, and the template with it.
        rig.now += 301_000;
        end_flows(&mut rig);
        assert_eq!(flows(&rig), BTreeSet::from([(1, true)]));
        rig.now += 601_000;
        end_flows(&mut rig);
        rig.now += 60_000;
        assert_eq!(flows(&rig), BTreeSet::new());
    }
}

#[test]
fn workers_of_one_director_agree() {
    let services = || vec![web("192.0.2.10:80", Protocol::Tcp, &[1, 2, 3], Some(persistence(300)))];
    let mut workers: Vec<Rig> = (0..3).map(|_| rig(services())).collect();
    let director = workers[0].pipeline.director().clone();
    for worker in &mut workers[1..] {
        let pipeline = Pipeline::within(director.clone(), &settings(), Seeds::fixed(), Arc::default());
        worker.pipeline = pipeline.expect("memory");
    }
    for n in 0..60u16 {
        let client = format!("198.51.100.{}:{}", n % 12, 1000 + n);
        let server = get(&mut workers[usize::from(n) % 3], &client, "192.0.2.10:80");
        for (other, worker) in workers.iter_mut().enumerate() {
            let client = format!("198.51.100.{}:{}", n % 12, 3000 + n * 3 + other as u16);
            assert_eq!(get(worker, &client, "192.0.2.10:80"), server);
        }
    }
    assert!(templates(&workers[0]).iter().all(|template| template.flows == 20));
    for worker in &mut workers {
        worker.now += 200_000;
        end_flows(worker);
    }
    assert!(templates(&workers[0]).iter().all(|template| template.flows == 0));
}

#[test]
fn in_a_flood_a_syn_and_its_ack_agree() {
    let services = vec![web("192.0.2.10:80", Protocol::Tcp, &[1, 2, 3, 4, 5], Some(persistence(300)))];
    let mut rig = rig(services);
    let known = get(&mut rig, "198.51.100.1:1", "192.0.2.10:80");
    rig.pipeline.director().guard.press(rig.now);
    let mut stays = 0;
    for n in 1..40u16 {
        let client = format!("198.51.100.{n}:2000");
        let server = goes_to(&mut rig, tcp_from(&client, "192.0.2.10:80", S));
        assert_eq!(goes_to(&mut rig, tcp_from(&client, "192.0.2.10:80", A)), server);
        assert_eq!(goes_to(&mut rig, tcp_from(&format!("198.51.100.{n}:2001"), "192.0.2.10:80", S)), server);
        if n == 1 {
            assert_eq!(server, known, "who had a server keeps it");
        }
        stays += usize::from(templates(&rig).len() == usize::from(n));
    }
    // Only those that came back have templates, and flows.
    assert_eq!((stays, rig.pipeline.stats().stateless.get()), (39, 78));
    assert!(templates(&rig).iter().filter(|template| template.flows > 0).count() == 39);
}

fn sip(method: &str, call_id: &str) -> Vec<u8> {
    format!("{method} sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n{call_id}\r\nCSeq: 1 X\r\n\r\n").into_bytes()
}

#[test]
fn a_call_stays_with_its_server() {
    for one_packet in [false, true] {
        let by_call = Persistence { by: PersistBy::SipCallId, prefix_v4: 0, ..persistence(60) };
        let service = Service { one_packet, ..web("192.0.2.10:5060", Protocol::Udp, &[1, 2, 3], Some(by_call)) };
        let mut rig = rig(vec![service]);
        let vip = "192.0.2.10:5060";
        // Three calls of one gateway, which has one port for all.
        let first: Vec<u8> = (0..3)
            .map(|call| {
                datagram(
                    &mut rig,
                    &format!("198.51.100.1:{}", 5060 + call),
                    vip,
                    &sip("INVITE", &format!("Call-ID: {call}@gw")),
                )
            })
            .collect();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{first:?}");
        for (call, server) in first.iter().enumerate() {
            // From another port, and with the mask 0 from another address; the short form in another case is the same call.
            assert_eq!(
                datagram(&mut rig, "198.51.100.1:7000", vip, &sip("ACK", &format!("call-id: {call}@gw"))),
                if one_packet { *server } else { first[0] }
            );
            assert_eq!(
                datagram(&mut rig, &format!("203.0.113.9:{}", 7001 + call), vip, &sip("BYE", &format!("i:{call}@gw"))),
                *server
            );
        }
        let no_call = packet(CLIENT_MAC, at("198.51.100.1:8000"), at(vip), Protocol::Udp, 0, b"\r\n\r\n");
        assert_eq!(rig.drops(no_call), Some(DropReason::NoCallId));
        let flows: Vec<u32> = templates(&rig).iter().map(|template| template.flows).collect();
        assert_eq!(flows.iter().sum::<u32>(), if one_packet { 0 } else { 7 });
        assert!(templates(&rig).iter().all(|template| template.assured));
        // UDP flows live for 300 s: their calls are armed again until then, those without flows end after their 60 s.
        rig.now += 61_000;
        end_flows(&mut rig);
        assert_eq!(templates(&rig).len(), if one_packet { 0 } else { 3 });
        rig.now += 240_000;
        end_flows(&mut rig);
        assert!(templates(&rig).iter().all(|template| template.flows == 0));
        rig.now += 60_000;
        end_flows(&mut rig);
        assert!(rig.pipeline.director().templates.is_empty());
    }
}

#[test]
fn calls_are_the_clients_own_where_its_network_counts() {
    let by_call = Persistence { by: PersistBy::SipCallId, ..persistence(60) };
    let mut rig = rig(vec![web("192.0.2.10:5060", Protocol::Udp, &[1, 2], Some(by_call))]);
    let mut call = |client: &str| datagram(&mut rig, client, "192.0.2.10:5060", &sip("INVITE", "Call-ID: same"));
    // As `ip_vs_sip_ct_match` does: the masked address counts, too.
    let first = call("198.51.100.1:1");
    assert_eq!(call("198.51.100.1:2"), first);
    assert_ne!(call("198.51.100.2:1"), first);
}

fn quic_service(weight: u16) -> Service {
    let by = PersistBy::QuicServerId { rotation: 1, length: 2 };
    let mut service = web("192.0.2.10:443", Protocol::Udp, &[1, 2, 3], Some(Persistence { by, ..persistence(0) }));
    for (n, server) in (1u8..).zip(&mut service.servers) {
        server.quic_id = Some(vec![0xee, n]);
        server.weight = if n == 2 { weight } else { 1 };
    }
    service
}

/// A datagram with a connection id of rotation 1.
fn quic(long: bool, server: [u8; 2]) -> Vec<u8> {
    let id = [0b0010_0000, server[0], server[1], 7, 7, 7, 7, 7];
    let mut datagram = if long { vec![0xe0, 0, 0, 0, 1, 8] } else { vec![0x40] };
    datagram.extend(id);
    datagram.extend([0x5a; 40]);
    datagram
}

#[test]
fn a_quic_connection_follows_its_client() {
    let vip = "192.0.2.10:443";
    let mut rig = rig(vec![quic_service(1)]);
    let mut initial = vec![0xc0, 0, 0, 0, 1, 8];
    initial.extend([0xff, 0xff, 0xff, 1, 2, 3, 4, 5]);
    initial.extend([0; 60]);
    let mut served = BTreeSet::new();
    for n in 0..9u8 {
        let client = format!("198.51.100.{n}:1000");
        let server = datagram(&mut rig, &client, vip, &initial);
        served.insert(server);
        // The server has told the client a connection id of its own; the client comes with it from elsewhere.
        for (address, long) in [("203.0.113.7:2000", true), ("203.0.113.8:2000", false), ("203.0.113.8:2001", false)] {
            let client = format!("{}{n}", &address[..address.len()]);
            assert_eq!(datagram(&mut rig, &client, vip, &quic(long, [0xee, server])), server);
        }
    }
    assert_eq!(served, BTreeSet::from([1, 2, 3]), "new connections are spread");
    // A flow that is there stays as it is.
    let server = datagram(&mut rig, "198.51.100.1:1000", vip, &initial);
    assert_eq!(datagram(&mut rig, "198.51.100.1:1000", vip, &quic(false, [0xee, server % 3 + 1])), server);
    // A server that takes no new flows keeps its connections, but gets none that may be new.
    rig.swap(vec![quic_service(0)]);
    assert_eq!(datagram(&mut rig, "203.0.113.9:1", vip, &quic(false, [0xee, 2])), 2);
    let mut made_up = quic(true, [0xee, 2]);
    made_up[0] = 0xc0;
    for port in 2..12 {
        assert_ne!(datagram(&mut rig, &format!("203.0.113.9:{port}"), vip, &made_up), 2);
    }
    // Of nobody, and not of this configuration: the scheduler's.
    for port in 20..30 {
        assert_ne!(datagram(&mut rig, &format!("203.0.113.9:{port}"), vip, &quic(false, [0xee, 9])), 0);
        assert_ne!(datagram(&mut rig, &format!("203.0.114.9:{port}"), vip, b"?"), 0);
    }
    assert!(templates(&rig).is_empty());
}

#[test]
fn quic_clients_may_keep_their_server_for_new_connections_too() {
    let mut service = quic_service(1);
    service.persistence.as_mut().expect("by connection id").seconds = 300;
    let mut rig = rig(vec![service]);
    let first = datagram(&mut rig, "198.51.100.1:1000", "192.0.2.10:443", b"no connection id");
    let other = first % 3 + 1;
    assert_eq!(datagram(&mut rig, "198.51.100.1:1001", "192.0.2.10:443", &quic(false, [0xee, other])), other);
    assert_eq!(datagram(&mut rig, "198.51.100.1:1002", "192.0.2.10:443", b"no connection id"), first);
}
