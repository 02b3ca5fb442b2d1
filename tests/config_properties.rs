//! Properties of the configuration file: no text makes the reader panic, and what it wrote it reads back equal.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel::control::config::{parse, render};
use evenkeel::control::plan::{Loads, plan};
use evenkeel::dataplane::schedule::SCHEDULERS;
use evenkeel::model::{
    Access, Desired, EngineSettings, Fate, Fates, HugePages, Interface, IoMode, Judgement, Limits, MacAddr, Method,
    Neighbor, PersistBy, Persistence, Polling, PortRange, Prefix, PrefixError, Protocol, Rate, Roles, Scheduler,
    Server, Service, ServiceKey, SynCookies, Timeouts, TunnelSettings, VerifyChecksums, Who,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

#[path = "config_support/health.rs"]
mod health;
#[path = "config_support/vrrp.rs"]
mod vrrp;

const SOUND: &str = include_str!("../configs/one-arm-dr.toml");

/// Keys and tables of a virtual router.
const ROUTER_KEYS: [&str; 24] = [
    "address",
    "excluded",
    "interval",
    "preempt_delay",
    "announce_delay",
    "announce_refresh",
    "password",
    "peers",
    "source",
    "track_interface",
    "track_script",
    "track_service",
    "track_file",
    "notify",
    "notify_master",
    "version",
    "priority",
    "checksum",
    "state",
    "place",
    "vrid",
    "interface",
    "peers_min_ttl",
    "down_adverts",
];
const HEALTH: &str = include_str!("../configs/health.toml");
const PAIR: &str = include_str!("../configs/proxy-pair.toml");

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

/// Any scheduler, with the flags and tables that it takes.
fn scheduler() -> impl Strategy<Value = Scheduler> {
    (select(SCHEDULERS), any::<bool>(), any::<bool>(), any::<usize>()).prop_map(|(known, first, second, size)| {
        let mut scheduler = Scheduler::named(known.name);
        for (flag, _) in known.flags.iter().zip([first, second]).filter(|(_, set)| *set) {
            flag.set(&mut scheduler);
        }
        // 0: not written.
        let sizes = known.table.map_or(&[][..], |table| table.sizes);
        Scheduler { table_size: sizes.get(size % (sizes.len() + 1)).copied().unwrap_or(0), ..scheduler }
    })
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
    let server =
        (select(Method::ALL.to_vec()), any::<bool>(), proptest::option::of(1u16..), any::<u16>(), thresholds());
    let settings = (
        (select(Method::ALL.to_vec()), persistence(v6, protocol), any::<bool>()),
        proptest::collection::btree_set(9000u32..9004, 1..4),
        (any::<bool>(), proptest::option::of(536u16..=65_495)),
        (any::<bool>(), any::<bool>(), proptest::option::of(1u8..), 1u16.., 0u8..=16),
    );
    let servers = proptest::collection::btree_map(1000u32..9000, server, 0..6);
    let life = (life(), any::<bool>());
    (scheduler(), servers, settings, life).prop_map(move |(scheduler, servers, settings, life)| {
        let ((method, persistence, grouped), locals, tcp, tunnel) = settings;
        let ((limits, fates, drain_deadline), one_packet) = life;
        let has_nat = servers.values().any(|server| server.0.is_nat()) || method.is_nat();
        // Without flows there is nothing to count.
        let one_packet = one_packet
            && protocol == Protocol::Udp
            && !has_nat
            && limits.connections.is_none()
            && limits.client_connections.is_none();
        // Each service has its own address, so none overlap.
        let key = ServiceKey { address: unicast(v6, index), protocol, ports };
        let servers =
            servers.into_iter().map(|(number, (method, other_family, port, weight, (upper, lower, drain)))| {
                let port = port
                    .filter(|port| method.is_nat() && ports.as_single().is_some_and(|of_service| of_service != *port));
                let address = unicast(v6 ^ (other_family && method.is_tunnel()), number);
                let (upper, lower) = if one_packet { (None, None) } else { (upper, lower) };
                Server { upper, lower, drain, ..Server::new(address, port, weight, method) }
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
            one_packet,
            limits,
            fates,
            drain_deadline,
            ..Service::dr(&format!("s{index}/[x]@+:_-."), key, scheduler, servers)
        }
    })
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let one = (any::<bool>(), select(Protocol::ALL.to_vec()), ports());
    proptest::collection::vec(one, 0..6).prop_flat_map(|all| {
        let services = all.into_iter().enumerate();
        services
            .map(|(index, (v6, protocol, ports))| {
                service(u32::try_from(index).unwrap(), v6, protocol, ports).prop_flat_map(health::with_health)
            })
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
            (
                (1024u32..=100_000_000, 1024u32..=100_000_000),
                select(vec![SynCookies::Flood, SynCookies::Always, SynCookies::Off]),
                (64u32..=16_777_216, 1024u32..=100_000_000),
            ),
        ),
    )
        .prop_map(
            |((cores, modes), (polling, idle_us, need_wakeup, busy_poll), (ring, frame_size), pages, flows, more)| {
                let (verify_checksums, local_ports, local_addresses, fragments, floods) = more;
                let ((unproven, unproven_ipv6), syn_cookies, (limited_clients, cookie_flows)) = floods;
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
                    unproven,
                    unproven_ipv6,
                    syn_cookies,
                    cookie_flows,
                    limited_clients,
                    persistent_clients: fragments.3,
                }
            },
        )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    proptest::array::uniform25(1u32..=2_000_000).prop_map(|seconds| {
        let mut timeouts = Timeouts::default();
        timeouts.each_mut().into_iter().zip(seconds).for_each(|((_, timeout), seconds)| *timeout = seconds);
        timeouts
    })
}

/// Timeouts of one service: mostly those of all.
fn own_timeouts() -> impl Strategy<Value = Vec<(usize, u32)>> {
    proptest::collection::vec((0usize..25, 1u32..=2_000_000), 0..3)
}

fn rate() -> impl Strategy<Value = Option<Rate>> {
    let rate = (1u32..=10_000_000, 1u32..=10_000_000)
        .prop_map(|(per_second, burst)| Rate { per_second, burst: burst.min(per_second.saturating_mul(86_400)) });
    proptest::option::of(rate)
}

/// Limits, fates and a deadline.
fn life() -> impl Strategy<Value = (Limits, Fates, Option<u32>)> {
    let counts = (proptest::option::of(1u32..=1_000_000_000), proptest::option::of(1u32..=16_777_215));
    let fate = || select(vec![Fate::Keep, Fate::Reschedule, Fate::Reset]);
    let deadline = proptest::option::of(1u32..=31_536_000);
    (counts, rate(), rate(), (1u8..=32, 1u8..=128), (fate(), fate(), fate()), deadline).prop_map(
        |((connections, each), rate, client_rate, (v4, v6), (removed, down, drained), deadline)| {
            let client_connections = each.map(|each| each.min(connections.unwrap_or(u32::MAX)));
            let any = client_connections.is_some() || client_rate.is_some();
            let limits = Limits {
                connections,
                rate,
                client_connections,
                client_rate,
                client_prefix_v4: if any { v4 } else { Limits::NONE.client_prefix_v4 },
                client_prefix_v6: if any { v6 } else { Limits::NONE.client_prefix_v6 },
            };
            (limits, Fates { removed, down, drained }, deadline)
        },
    )
}

/// Thresholds, and whether the server drains.
fn thresholds() -> impl Strategy<Value = (Option<u32>, Option<u32>, bool)> {
    let pair = (1u32..=1_000_000_000, proptest::option::of(1u32..=1_000_000_000));
    (proptest::option::of(pair), any::<bool>()).prop_map(|(pair, drain)| match pair {
        Some((upper, lower)) => (Some(upper), lower.map(|lower| lower.min(upper)), drain),
        None => (None, None, drain),
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

fn access() -> impl Strategy<Value = Access> {
    let prefix = (any::<bool>(), any::<u128>(), any::<u8>()).prop_map(|(v6, bits, length)| {
        let (address, length) = if v6 {
            (IpAddr::V6(Ipv6Addr::from(bits)), length % 129)
        } else {
            (IpAddr::V4(Ipv4Addr::from(bits as u32)), length % 33)
        };
        match Prefix::new(address, length) {
            Ok(prefix) => prefix,
            Err(PrefixError::HostBits { network, .. }) => network,
            Err(error) => panic!("{error}"),
        }
    });
    let judgement = || select(vec![Judgement::Allow, Judgement::Deny]);
    (judgement(), proptest::collection::vec((prefix, judgement()), 0..9))
        .prop_map(|(default, lists)| Access::new(default, lists))
}

/// Users and groups by their numbers: names are looked up on the machine.
fn roles() -> impl Strategy<Value = Roles> {
    let who = |anyone: bool| {
        let one = prop_oneof![
            any::<u32>().prop_map(|id| Who::User { word: id.to_string(), id }),
            any::<u32>().prop_map(|id| Who::Group { word: format!("@{id}"), id, members: Vec::new() }),
            Just(if anyone { Who::Anyone } else { Who::User { word: "root".to_owned(), id: 0 } }),
        ];
        proptest::collection::vec(one, 0..3)
    };
    (who(false), who(true)).prop_map(|(admins, readers)| Roles { admins, readers })
}

fn engine_alone() -> impl Strategy<Value = Desired> {
    let neighbors = proptest::collection::btree_map(
        (any::<bool>(), 0u32..99),
        (any::<[u8; 5]>(), any::<usize>(), proptest::option::of(1u16..4095)),
        0..4,
    );
    let addresses = proptest::collection::btree_set((any::<bool>(), 9600u32..9999), 0..4);
    let listed = (neighbors, addresses, access(), roles());
    let services = (services(), proptest::collection::vec(own_timeouts(), 6));
    (engine(), timeouts(), "/[a-z]{1,9}/[ -~é]{0,20}x", interfaces(), listed, services).prop_map(
        |(engine, timeouts, socket, interfaces, (neighbors, addresses, access, roles), (services, own))| Desired {
            engine,
            timeouts,
            state_file: format!("{socket}.state").into(),
            control_socket: socket.into(),
            roles,
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
            access: access.into(),
            web: None,
            services: services
                .into_iter()
                .zip(own)
                .map(|(service, own)| {
                    let mut timeouts = timeouts;
                    own.into_iter().for_each(|(at, seconds)| *timeouts.each_mut()[at].1 = seconds);
                    Service { timeouts, ..service }
                })
                .collect(),
            vrrp: Default::default(),
        },
    )
}

/// Any configuration with an engine, and with VRRP.
fn desired() -> impl Strategy<Value = Desired> {
    engine_alone().prop_flat_map(|desired| {
        let services = desired.services.iter().map(|service| service.name.clone()).collect();
        let vrrp = vrrp::vrrp(desired.interfaces.clone(), services);
        vrrp.prop_map(move |vrrp| Desired { vrrp, ..desired.clone() })
    })
}

/// The same without interfaces and what needs them.
fn without_interfaces() -> impl Strategy<Value = Desired> {
    let bare = engine_alone().prop_map(|desired| Desired {
        interfaces: Vec::new(),
        neighbors: Vec::new(),
        addresses: Vec::new(),
        services: Vec::new(),
        ..desired
    });
    (bare, vrrp::vrrp(Vec::new(), Vec::new()))
        .prop_map(|(desired, vrrp)| Desired { vrrp, ..desired })
        .prop_filter("something to do", |desired| !desired.vrrp.routers.is_empty())
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
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..9, "[\\[\\]{}=\"'#.,\na0 -]{0,3}"), 1..8),
        text in select(vec![SOUND, PAIR, HEALTH]),
    ) {
        let mut text = text.to_owned();
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
    fn a_virtual_router_of_any_values_is_read_without_panic(
        key in select(ROUTER_KEYS.to_vec()),
        value in prop_oneof![
            "-?[0-9]{1,25}(\\.[0-9]{1,25})?(e-?[0-9]{1,3})?",
            "\"[^\"\\\\\n]{0,30}\"",
            "\"[0-9a-f.:/]{0,30}\"",
            "\\[\"[0-9a-f.:/ '\\\\]{0,30}\", (\"[^\"\\\\\n]{0,9}\"|[0-9.]{1,5}|\\{ (name|address|weight) = [-0-9\"a.]{1,9} \\})\\]",
            "true|false|nan|-inf|1979-05-27|\\{\\}|\\[\\]|\\[\\[\\]\\]",
        ],
    ) {
        let least = "[[virtual_router]]\nname = \"a\"\ninterface = \"b\"\nvrid = 1\nplace = \"kernel\"\naddress = \"10.0.0.1\"";
        let other = least.lines().filter(|line| !line.starts_with(&format!("{key} =")));
        let text: String = other.map(|line| format!("{line}\n")).collect();
        let outcome = parse(&format!("{text}{key} = {value}\n"), 0);
        prop_assert_eq!(outcome.desired.is_none(), outcome.errors().count() > 0);
        for problem in outcome.errors() {
            prop_assert!(problem.expected.is_some() || problem.help.is_some() || problem.message.starts_with("TOML"));
        }
        if let Some(desired) = outcome.desired {
            prop_assert_eq!(parse(&render::render(&desired), 0).desired, Some(desired));
        }
    }

    #[test]
    fn what_was_rendered_without_interfaces_is_read_back_equal(desired in without_interfaces()) {
        let outcome = parse(&render::render(&desired), 0);
        prop_assert_eq!(outcome.errors().collect::<Vec<_>>(), Vec::<&evenkeel::control::config::Problem>::new());
        prop_assert_eq!(outcome.desired, Some(desired));
    }

    #[test]
    fn what_was_rendered_is_read_back_equal(desired in desired()) {
        let text = render::render(&desired);
        let outcome = parse(&text, 0);
        prop_assert_eq!(outcome.errors().collect::<Vec<_>>(), Vec::<&evenkeel::control::config::Problem>::new());
        prop_assert_eq!(outcome.desired, Some(desired));
    }

    /// One part of a configuration is another one's.
    #[test]
    fn a_plan_is_empty_if_and_only_if_nothing_differs(old in desired(), other in desired(), part in 0usize..10) {
        let mut new = old.clone();
        match part {
            0 => new.engine = other.engine,
            1 => new.timeouts = other.timeouts,
            2 => new.control_socket = other.control_socket,
            3 => new.state_file = other.state_file,
            4 => new.roles = other.roles,
            5 => new.interfaces = other.interfaces,
            6 => new.neighbors = other.neighbors,
            7 => new.addresses = other.addresses,
            8 => new.access = other.access,
            _ => new.vrrp = other.vrrp,
        }
        let none = Loads::default();
        let plan = plan(&old, &new, &none);
        prop_assert_eq!(plan.is_empty(), old == new, "{:#?}", plan);
        prop_assert!(evenkeel::control::plan::plan(&new, &new, &none).is_empty());
    }
}
