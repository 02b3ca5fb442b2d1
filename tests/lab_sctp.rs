//! SCTP and other frames that no kernel here would send, written by hand and looked at on the servers' wires.

mod lab_support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use evenkeel::lab::client::frames::Frames;
use evenkeel::lab::client::udp;
use evenkeel::lab::engine::Engine;
use evenkeel::lab::scenario::{START, base_config, forward};
use evenkeel::lab::server::udp as udp_server;
use evenkeel::lab::site::{APPLIANCE, CLIENT, Family, Reach, Shape, Site, SiteOptions};
use evenkeel::model::{MacAddr, Protocol};
use lab_support::{lab_is_possible, program};

const PORT: u16 = 2905;
const TTL: u8 = 64;

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!(),
    }
}

/// An SCTP INIT from `port` in an IPv4 packet in an Ethernet frame.
fn init(from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr), port: u16) -> Vec<u8> {
    chunk(from, to, [port, PORT], 1)
}

/// An SCTP packet with a chunk of the form of INIT (type 1) or INIT ACK (type 2).
fn chunk(from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr), ports: [u16; 2], kind: u8) -> Vec<u8> {
    let mut sctp = Vec::new();
    ports.iter().for_each(|port| sctp.extend(port.to_be_bytes()));
    sctp.extend([0; 8]);
    // INIT: type 1, flags 0, length 20; initiate tag, window, streams, first TSN (RFC 9260 section 3.3.2).
    sctp.extend([kind, 0, 0, 20, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1]);
    let checksum = crc32c::crc32c(&sctp).to_le_bytes();
    sctp[8..12].copy_from_slice(&checksum);

    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2(from.0.0, to.0.0).ipv4(from.1.octets(), to.1.octets(), TTL);
    builder.write(&mut frame, etherparse::IpNumber::SCTP, &sctp).unwrap();
    frame
}

#[test]
fn sctp_associations_reach_one_server_each_and_only_ttl_and_macs_change() {
    if !lab_is_possible() {
        return;
    }
    let site = Site::build(SiteOptions::default()).unwrap();
    let mut config = base_config(&site, Family::V4);
    let servers: Vec<_> = site.servers.iter().map(|server| (server.v4, 1)).collect();
    config.service("sigtran", site.vip(Family::V4), Protocol::Sctp, &PORT.to_string(), "rr", &servers);
    let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
    engine.await_ready(START).unwrap_or_else(|error| panic!("{error}"));

    let mac = |node: &str| site.lab.mac(node, "eth0").unwrap();
    let client = (mac(CLIENT), v4(site.client_address(Family::V4)));
    let service = (mac(APPLIANCE), v4(site.vip(Family::V4)));
    let sender = Frames::open(site.lab.node(CLIENT).unwrap(), "eth0").unwrap();
    let open = |name: &str| Frames::open(site.lab.node(name).unwrap(), "eth0").unwrap();
    let mut wires: Vec<_> = site.servers.iter().map(|server| (server.name.clone(), open(&server.name))).collect();

    let mut chosen = BTreeMap::new();
    for round in 0..2 {
        for port in 40_000..40_012_u16 {
            let sent = init(client, service, port);
            sender.send(&sent).unwrap();
            let ours =
                |frame: &[u8]| frame.len() >= sent.len() && frame[14 + 9] == 132 && frame[34..36] == port.to_be_bytes();
            let (name, frame) = (0..50)
                .flat_map(|_| 0..3)
                .find_map(|index: usize| {
                    let (name, wire) = &mut wires[index];
                    wire.receive(Duration::from_millis(1), ours).map(|frame| (name.clone(), frame))
                })
                .unwrap_or_else(|| {
                    panic!("INIT from port {port} reached no server: {}", engine.process().last_words(10))
                });
            assert_eq!(frame[..6], mac(&name).0);
            assert_eq!(frame[6..12], mac(APPLIANCE).0);
            // The packet is what was sent, with one hop less and the header checksum that follows from it.
            let got = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap();
            assert_eq!(got.ttl(), TTL - 1);
            assert_eq!(got.header_checksum(), got.to_header().calc_header_checksum());
            assert_eq!(frame[14..22], sent[14..22]);
            assert_eq!(frame[26..sent.len()], sent[26..]);
            let first = chosen.entry(port).or_insert_with(|| name.clone());
            assert_eq!(*first, name, "the association of port {port} moved in round {round}");
        }
    }
    let mut counts = BTreeMap::new();
    chosen.values().for_each(|name| *counts.entry(name.as_str()).or_insert(0) += 1);
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("server1", 4), ("server2", 4), ("server3", 4)]);
}

/// Addresses, ports and whether the checksum is right, of an SCTP packet in a frame that is addressed to `mac`.
fn sctp_of(frame: &[u8], mac: MacAddr) -> Option<(Ipv4Addr, u16, Ipv4Addr, u16, bool)> {
    if frame.get(..6)? != mac.0 || frame.get(12..14)? != [8, 0] || frame.get(23)? != &132 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes(frame.get(16..18)?.try_into().ok()?));
    let mut sctp = frame.get(34..14 + length)?.to_vec();
    let address = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).ok().map(Ipv4Addr::from);
    let port = |at: usize| u16::from_be_bytes([sctp[at], sctp[at + 1]]);
    let (source, destination) = (port(0), port(2));
    let said: [u8; 4] = sctp.get(8..12)?.try_into().ok()?;
    sctp[8..12].fill(0);
    Some((address(26)?, source, address(30)?, destination, crc32c::crc32c(&sctp).to_le_bytes() == said))
}

/// NAT of SCTP to another port, and back: addresses, ports and the checksum over the whole packet.
#[test]
fn sctp_is_translated_in_both_directions() {
    const INSIDE: u16 = 2906;
    if !lab_is_possible() {
        return;
    }
    let options = SiteOptions { shape: Shape::TwoArm, servers: 1, reach: Reach::Nat, ..SiteOptions::USUAL };
    let site = Site::build(options).unwrap();
    let mut config = base_config(&site, Family::V4);
    let inside = v4(site.servers[0].v4);
    let vip = site.vip(Family::V4);
    config.service("sigtran", vip, Protocol::Sctp, &PORT.to_string(), "rr", &[(inside.into(), 1)]);
    config.change_service("sigtran", "method", "nat").change_servers("sigtran", "port", i64::from(INSIDE));
    forward::gateways(&mut config, &site);
    let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
    engine.await_ready(START).unwrap_or_else(|error| panic!("{error}"));

    let mac = |node: &str, interface: &str| site.lab.mac(node, interface).unwrap();
    let client = (mac(CLIENT, "eth0"), v4(site.client_address(Family::V4)));
    let service = (mac(APPLIANCE, "eth0"), v4(vip));
    let server = (mac("server1", "eth0"), inside);
    let mut outside = Frames::open(site.lab.node(CLIENT).unwrap(), "eth0").unwrap();
    let mut within = Frames::open(site.lab.node("server1").unwrap(), "eth0").unwrap();
    for port in [40_000, 40_001] {
        outside.send(&chunk(client, service, [port, PORT], 1)).unwrap();
        let there = within.receive(Duration::from_secs(2), |frame| sctp_of(frame, server.0).is_some());
        let there = there.unwrap_or_else(|| panic!("INIT reached no server: {}", engine.process().last_words(10)));
        assert_eq!(sctp_of(&there, server.0), Some((client.1, port, server.1, INSIDE, true)));

        within.send(&chunk(server, (mac(APPLIANCE, "eth1"), client.1), [INSIDE, port], 2)).unwrap();
        let back = outside.receive(Duration::from_secs(2), |frame| sctp_of(frame, client.0).is_some());
        let back = back.unwrap_or_else(|| panic!("INIT ACK did not come back: {}", engine.process().last_words(10)));
        assert_eq!(sctp_of(&back, client.0), Some((service.1, PORT, client.1, port, true)));
        assert_eq!(back[6..12], service.0.0);
    }
}

#[test]
fn udp_by_port_range_and_by_any_port() {
    if !lab_is_possible() {
        return;
    }
    let mut site = Site::build(SiteOptions::default()).unwrap();
    for port in [5000, 5099, 9] {
        udp_server::start_all(&mut site, Family::V4, port).unwrap();
        udp_server::start_all(&mut site, Family::V6, port).unwrap();
    }
    let mut config = base_config(&site, Family::V4);
    let first = |family| vec![(site.servers[0].address(family), 1)];
    let last = |family| vec![(site.servers[2].address(family), 1)];
    config.service("range", site.vip(Family::V4), Protocol::Udp, "5000-5099", "rr", &first(Family::V4));
    config.service("any", site.vip(Family::V6), Protocol::Udp, "any", "rr", &last(Family::V6));
    let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
    engine.await_ready(START).unwrap_or_else(|error| panic!("{error}"));

    let client = site.lab.node(CLIENT).unwrap();
    let survey = |family, port| {
        let target = site.vip_port(family, port);
        let answers = client.run(|| udp::survey(target, 3, Duration::from_millis(700))).unwrap();
        answers.into_iter().collect::<Vec<_>>()
    };
    let only = |name: &str| vec![(name.to_owned(), 3)];
    assert_eq!(survey(Family::V4, 5000), only("server1"));
    assert_eq!(survey(Family::V4, 5099), only("server1"));
    assert_eq!(survey(Family::V4, 9), only(""), "a port outside the range was answered");
    for port in [9, 5000, 5099] {
        assert_eq!(survey(Family::V6, port), only("server3"));
    }
}
