//! Properties of the configuration file: no text makes the reader panic, and what it wrote it reads back equal.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel::control::config::{parse, render};
use evenkeel::model::{
    Desired, EngineSettings, HugePages, Interface, IoMode, MAGLEV_SIZES, MacAddr, Method, Neighbor, PersistBy,
    Persistence, Polling, PortRange, Protocol, Scheduler, Server, Service, ServiceKey, Timeouts, TunnelSettings,
    VerifyChecksums,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const SOUND: &str = include_str!("../configs/one-arm-dr.toml");

fn unicast(v6: bool, number: u32) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from(0x2001_0db8_0000_0000_0000_0000_0000_0001_u128 + u128::from(number)))
    } else {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + (number & 0x00ff_ffff)))
    }
}

fn ports() -> impl Strategy<Value = PortRange> {
    prop_oneof![
        (1u16..).prop_map(PortRange::single),
        (1u16.., 1u16..).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) }),
        Just(PortRange::ANY),
    ]
}

fn scheduler() -> impl Strategy<Value = Scheduler> {
    prop_oneof![
        select(vec![Scheduler::RR, Scheduler::WRR, Scheduler::LC, Scheduler::WLC]),
        (any::<bool>(), any::<bool>(), select(MAGLEV_SIZES.to_vec()))
            .prop_map(|(port, fallback, table_size)| Scheduler { port, fallback, table_size, ..Scheduler::MH }),
    ]
}

/// How a service of a protocol keeps its clients; nothing at all, where that does not fit.
fn persistence(v6: bool, protocol: Protocol) -> impl Strategy<Value = Option<Persistence>> {
    let by = prop_oneof![
        Just(PersistBy::Client),
        Just(PersistBy::SipCallId),
        (0u8..=6, 1u8..=15).prop_map(|(rotation, length)| PersistBy::QuicServerId { rotation, length }),
    ];
    let one = (by, 1u32..=1_000_000, (any::<bool>(), 1u8..=32, 1u8..=128), any::<bool>());
    proptest::option::of(one).prop_map(move |one| {
        let (by, seconds, (least, prefix_v4, prefix_v6), leave_drained) = one?;
        let prefix = |prefix: u8| if least && by == PersistBy::SipCallId { 0 } else { prefix };
        let sound = by == PersistBy::Client || protocol == Protocol::Udp;
        sound.then_some(Persistence {
            by,
            seconds: if least && matches!(by, PersistBy::QuicServerId { .. }) { 0 } else { seconds },
            prefix_v4: if v6 { 32 } else { prefix(prefix_v4) },
            prefix_v6: if v6 { prefix(prefix_v6) } else { 128 },
            leave_drained,
        })
    })
}

/// A service of a family and of ports, with settings that fit its servers' methods.
fn service(index: u32, v6: bool, protocol: Protocol, ports: PortRange) -> impl Strategy<Value = Service> {
    let server = (select(Method::ALL.to_vec()), any::<bool>(), proptest::option::of(1u16..), any::<u16>());
    let settings = (
        (select(Method::ALL.to_vec()), persistence(v6, protocol), any::<bool>()),
        proptest::collection::btree_set(9000u32..9004, 1..4),
        (any::<bool>(), proptest::option::of(536u16..=65_495)),
        (any::<bool>(), any::<bool>(), proptest::option::of(1u8..), 1u16.., 0u8..=16),
    );
    let servers = proptest::collection::btree_map(1000u32..9000, server, 0..6);
    (scheduler(), servers, settings).prop_map(
        move |(scheduler, servers, ((method, persistence, grouped), locals, tcp, tunnel))| {
            // Each service has its own address, so none overlap.
            let key = ServiceKey { address: unicast(v6, index), protocol, ports };
            let servers = servers.into_iter().map(|(number, (method, other_family, port, weight))| {
                let port = port
                    .filter(|port| method.is_nat() && ports.as_single().is_some_and(|of_service| of_service != *port));
                Server::new(unicast(v6 ^ (other_family && method.is_tunnel()), number), port, weight, method)
            });
            let servers = servers.zip(0u8..).map(|(server, number)| match &persistence {
                Some(Persistence { by: PersistBy::QuicServerId { length, .. }, .. }) => {
                    let id = std::iter::once(number).chain(std::iter::repeat(0xe5)).take(usize::from(*length));
                    Server { quic_id: Some(id.collect()), ..server }
                }
                _ => server,
            });
            let servers: Vec<Server> = servers.collect();
            let methods = || servers.iter().map(|server| server.method);
            let all = || methods().chain([method]);
            let only_full_nat = all().all(|method| method == Method::FullNat);
            let (source_v4, source_v6, ttl, gue_port, spread) = tunnel;
            let tunnel = if all().any(Method::is_tunnel) {
                let source = |v6| unicast(v6, 9500);
                TunnelSettings {
                    source_v4: source_v4
                        .then(|| source(false))
                        .and_then(|a| if let IpAddr::V4(a) = a { Some(a) } else { None }),
                    source_v6: source_v6
                        .then(|| source(true))
                        .and_then(|a| if let IpAddr::V6(a) = a { Some(a) } else { None }),
                    ttl,
                    gue_port,
                    source_spread_bits: if all().any(|m| matches!(m, Method::Ipip | Method::Gre)) { spread } else { 0 },
                }
            } else {
                TunnelSettings::default()
            };
            Service {
                method,
                local_addresses: if all().any(|method| method == Method::FullNat) {
                    locals.into_iter().map(|number| unicast(v6, number)).collect()
                } else {
                    Vec::new()
                },
                proxy_protocol: tcp.0 && only_full_nat && protocol == Protocol::Tcp,
                mss_clamp: tcp.1.filter(|_| protocol == Protocol::Tcp),
                tunnel,
                group: (grouped && persistence.is_some()).then(|| format!("g{index}")),
                persistence,
                ..Service::dr(&format!("s{index}/[x]@+:_-."), key, scheduler, servers)
            }
        },
    )
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let one = (any::<bool>(), select(Protocol::ALL.to_vec()), ports());
    proptest::collection::vec(one, 0..6).prop_flat_map(|all| {
        let services = all.into_iter().enumerate();
        services
            .map(|(index, (v6, protocol, ports))| service(u32::try_from(index).unwrap(), v6, protocol, ports))
            .collect::<Vec<_>>()
    })
}

fn local_ports() -> impl Strategy<Value = PortRange> {
    (1u16..=60_000, 10u16..=5000).prop_map(|(first, more)| PortRange { first, last: first + more })
}

fn engine() -> impl Strategy<Value = EngineSettings> {
    (
        (proptest::collection::btree_set(0usize..4096, 1..5), subsequence(IoMode::ALL.to_vec(), 1..=4).prop_shuffle()),
        (select(vec![Polling::Busy, Polling::Adaptive]), 0u32..=1_000_000, any::<bool>(), any::<bool>()),
        (6u32..=16, select(vec![2048u32, 4096])),
        select(vec![HugePages::Auto, HugePages::Always, HugePages::Never]),
        (1024u32..=100_000_000, 1024u32..=100_000_000),
        (
            select(vec![VerifyChecksums::All, VerifyChecksums::NewFlows, VerifyChecksums::Off]),
            local_ports(),
            // Services have up to three different ones of each family.
            8u32..=1024,
            (16u32..=65_536, 0u32..=65_536, 1u32..=60_000, 1024u32..=10_000_000),
        ),
    )
        .prop_map(
            |((cores, modes), (polling, idle_us, need_wakeup, busy_poll), (ring, frame_size), pages, flows, more)| {
                let (verify_checksums, local_ports, local_addresses, fragments) = more;
                EngineSettings {
                    cores: cores.into_iter().collect(),
                    modes,
                    polling,
                    idle_us,
                    need_wakeup,
                    busy_poll,
                    ring_size: 1 << ring,
                    frames: 4 << ring,
                    frame_size,
                    huge_pages: pages,
                    flows: flows.0,
                    flows_ipv6: flows.1,
                    verify_checksums,
                    local_ports,
                    local_addresses,
                    fragments: fragments.0,
                    fragments_waiting: fragments.1,
                    fragment_wait_ms: fragments.2,
                    persistent_clients: fragments.3,
                    ..EngineSettings::default()
                }
            },
        )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    proptest::array::uniform10(1u32..=2_000_000).prop_map(|[a, b, c, d, e, f, g, h, i, j]| Timeouts {
        tcp_established: a,
        tcp_syn_sent: b,
        tcp_syn_recv: c,
        tcp_fin_wait: d,
        tcp_time_wait: e,
        tcp_close: f,
        tcp_close_wait: g,
        tcp_last_ack: h,
        udp: i,
        sctp_established: j,
        ..Timeouts::default()
    })
}

fn interfaces() -> impl Strategy<Value = Vec<Interface>> {
    let queues = proptest::option::of(proptest::collection::btree_set(0u32..1024, 1..4));
    proptest::collection::btree_map("[a-z][a-z0-9.@_-]{0,14}", queues, 1..=16).prop_map(|all| {
        all.into_iter()
            .map(|(name, queues): (String, Option<BTreeSet<u32>>)| Interface {
                name,
                queues: queues.map(|queues| queues.into_iter().collect()),
            })
            .collect()
    })
}

fn desired() -> impl Strategy<Value = Desired> {
    let neighbors = proptest::collection::btree_map(
        (any::<bool>(), 0u32..99),
        (any::<[u8; 5]>(), any::<usize>(), proptest::option::of(1u16..4095)),
        0..4,
    );
    let addresses = proptest::collection::btree_set((any::<bool>(), 9600u32..9999), 0..4);
    let listed = (neighbors, addresses);
    (engine(), timeouts(), "/[a-z]{1,9}/[ -~é]{0,20}x", interfaces(), listed, services()).prop_map(
        |(engine, timeouts, socket, interfaces, (neighbors, addresses), services)| Desired {
            engine,
            timeouts,
            control_socket: socket.into(),
            neighbors: neighbors
                .into_iter()
                .map(|((v6, number), ([a, b, c, d, e], interface, vlan))| Neighbor {
                    address: unicast(v6, number),
                    mac: MacAddr([2, a, b, c, d, e]),
                    vlan,
                    interface: interfaces
                        .get(interface % (interfaces.len() + 1))
                        .map(|interface| interface.name.clone()),
                })
                .collect(),
            interfaces,
            addresses: addresses.into_iter().map(|(v6, number)| unicast(v6, number)).collect(),
            services: services.into_iter().map(|service| Service { timeouts, ..service }).collect(),
        },
    )
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "\\PC*") {
        let _ = parse(&text, 0);
    }

    #[test]
    fn any_text_of_tomls_own_characters_is_read_without_panic(text in "[\\[\\]{}=\"'#.,\n\t \\\\0-9a-z_:-]{0,200}") {
        let outcome = parse(&text, 0);
        prop_assert_eq!(outcome.desired.is_none(), outcome.errors().count() > 0);
    }

    #[test]
    fn a_sound_file_with_damage_is_read_without_panic(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..9, "[\\[\\]{}=\"'#.,\na0 -]{0,3}"), 1..8)
    ) {
        let mut text = SOUND.to_owned();
        for (at, length, put) in cuts {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, &put);
            }
        }
        let outcome = parse(&text, 0);
        prop_assert_eq!(outcome.desired.is_none(), outcome.errors().count() > 0);
        for problem in outcome.errors() {
            prop_assert!(problem.expected.is_some() || problem.help.is_some() || problem.message.starts_with("TOML"));
        }
    }

    #[test]
    fn what_was_rendered_is_read_back_equal(desired in desired()) {
        let text = render::render(&desired);
        let outcome = parse(&text, 0);
        prop_assert_eq!(outcome.errors().collect::<Vec<_>>(), Vec::<&evenkeel::control::config::Problem>::new());
        prop_assert_eq!(outcome.desired, Some(desired));
    }
}
