//! What outlives snapshots: ids, loads, weights, local addresses.

mod health;
mod life;

use super::*;
use crate::model::{MacAddr, PortRange, Protocol};

fn desired(servers: &[(u8, u16)]) -> Desired {
    let servers = servers.iter().map(|(n, weight)| Server::dr(IpAddr::from([10, 0, 0, *n]), *weight)).collect();
    let key =
        ServiceKey { address: IpAddr::from([192, 0, 2, 10]), protocol: Protocol::Tcp, ports: PortRange::single(80) };
    Desired::of(vec![Service::dr("web", key, Scheduler::WLC, servers)])
}

fn compile(registry: &mut Registry, servers: &[(u8, u16)]) -> Compiled {
    let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
    let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
    registry.compile(&desired(servers), vec![port], |_| Some(hop)).expect("compiles")
}

fn ids(compiled: &Compiled) -> Vec<(u8, u32)> {
    ids_of(&compiled.snapshot.services[0].members)
}

fn ids_of(members: &[Member]) -> Vec<(u8, u32)> {
    let last = |m: &Member| match m.address {
        IpAddr::V4(a) => a.octets()[3],
        IpAddr::V6(_) => 0,
    };
    members.iter().map(|m| (last(m), m.id)).collect()
}

#[test]
fn servers_that_stay_keep_their_id_and_load() {
    let mut registry = Registry::default();
    let first = compile(&mut registry, &[(1, 1), (2, 1), (3, 1)]);
    assert_eq!(ids(&first), [(3, 0x1_0002), (2, 0x1_0001), (1, 0x1_0000)]);
    first.snapshot.services[0].members[0].load.open(true);
    // Server 2 is known for one more snapshot: workers may make flows of it until they see this one.
    let between = compile(&mut registry, &[(3, 1), (1, 1)]);
    assert_eq!((between.removed, ids_of(&between.snapshot.services[0].ghosts)), (vec![], vec![(2, 0x1_0001)]));
    let second = compile(&mut registry, &[(4, 1), (3, 7), (1, 1)]);
    assert_eq!(second.removed, [0x1_0001]);
    // Server 4 takes the slot of server 2 under a new generation, and IPVS's list order holds.
    assert_eq!(ids(&second), [(4, 0x2_0001), (3, 0x1_0002), (1, 0x1_0000)]);
    assert_eq!(second.snapshot.services[0].members[1].load.active(), 1);
    assert!(second.snapshot.server(0x1_0001).is_none());
    assert!(second.snapshot.server(0x2_0001).is_some());
}

#[test]
fn a_quiescent_server_remembers_its_weight() {
    let mut registry = Registry::default();
    compile(&mut registry, &[(1, 5)]);
    let drained = compile(&mut registry, &[(1, 0)]);
    let member = &drained.snapshot.services[0].members[0];
    assert_eq!((member.weight, member.last_weight), (0, 5));
}

#[test]
fn generations_skip_zero_when_they_wrap() {
    let mut registry = Registry { slots: vec![(u16::MAX, false)], free: vec![0], ..Registry::default() };
    assert_eq!(registry.take_slot(), 0x1_0000);
}

#[test]
fn too_many_servers_are_refused() {
    let mut registry = Registry::default();
    let mut config = desired(&[]);
    let server = |n: u32| Server::dr(IpAddr::from((n + 0x0a00_0000).to_be_bytes()), 1);
    config.services[0].servers = (0..=MAX_SERVERS as u32).map(server).collect();
    assert_eq!(
        registry.compile(&config, Vec::new(), |_| None).map(|_| ()),
        Err(CompileError::TooManyServers { wanted: MAX_SERVERS + 1 })
    );
}

fn nat(mut desired: Desired, servers: &[(u8, Option<u16>, Method)]) -> Desired {
    let server =
        |(n, port, method): &(u8, Option<u16>, Method)| Server::new(IpAddr::from([10, 0, 0, *n]), *port, 1, *method);
    desired.services[0].servers = servers.iter().map(server).collect();
    desired
}

fn at(registry: &mut Registry, desired: &Desired, now: u64) -> Result<Compiled, CompileError> {
    let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
    let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
    registry.compile_at(desired, vec![port], Duration::from_secs(now), |_, server| Whereabouts {
        hop: Some(hop),
        awaited: false,
        mtu: (server.address == IpAddr::from([10, 0, 0, 2])).then_some(1400),
        source: server.method.is_tunnel().then_some(IpAddr::from([10, 0, 0, 254])),
        local: server.address == IpAddr::from([10, 0, 0, 9]),
        standing: None,
    })
}

#[test]
fn a_server_is_its_address_port_and_method() {
    let mut registry = Registry::default();
    let servers =
        [(1, None, Method::Nat), (1, Some(8080), Method::Nat), (2, None, Method::Ipip), (9, None, Method::Dr)];
    let first = at(&mut registry, &nat(desired(&[]), &servers), 0).expect("compiles");
    let members = |compiled: &Compiled| -> Vec<(u32, u16)> {
        compiled.snapshot.services[0].members.iter().map(|m| (m.id, m.port)).collect()
    };
    assert_eq!(members(&first), [(0x1_0003, 80), (0x1_0002, 80), (0x1_0001, 8080), (0x1_0000, 80)]);
    let endpoint =
        |n: u8, port| Endpoint { address: IpAddr::from(if n == 0 { [192, 0, 2, 10] } else { [10, 0, 0, n] }), port };
    let target = |id| first.snapshot.target(id).expect("target");
    assert_eq!((target(0x1_0000).server, target(0x1_0000).service), (endpoint(1, None), endpoint(0, None)));
    assert_eq!((target(0x1_0001).server, target(0x1_0001).service), (endpoint(1, Some(8080)), endpoint(0, Some(80))));
    let way = |id| first.snapshot.server(id).map(|server| (server.way, server.max_frame));
    assert_eq!(way(0x1_0000), Some((Way::Nat, 1514)));
    assert_eq!(way(0x1_0002), Some((Way::Tunnel, 1414)), "the route has a smaller MTU");
    assert_eq!(way(0x1_0003).map(|way| way.0), Some(Way::Local));
    assert!(target(0x1_0002).tunnel.is_some() && target(0x1_0000).tunnel.is_none());
    assert!(first.snapshot.services[0].members.iter().all(|member| member.reachable));

    // Another port, another method: another server.
    let servers = [(1, None, Method::Nat), (1, Some(8081), Method::Nat), (2, None, Method::Gue), (9, None, Method::Dr)];
    let second = at(&mut registry, &nat(desired(&[]), &servers), 0).expect("compiles");
    assert_eq!((second.removed.len(), second.added.len()), (0, 2));
    let third = at(&mut registry, &nat(desired(&[]), &servers), 0).expect("compiles");
    assert_eq!((third.removed, third.added.len()), (vec![0x1_0001, 0x1_0002], 0));
}

#[test]
fn a_tunnel_without_a_source_takes_no_flows() {
    let desired = nat(desired(&[]), &[(1, None, Method::Gre)]);
    let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
    let port = || vec![Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true)];
    let mut registry = Registry::default();
    let nowhere = |_: &Service, _: &Server| Whereabouts { hop: Some(hop), ..Whereabouts::default() };
    let compiled = registry.compile_at(&desired, port(), Duration::ZERO, nowhere).expect("compiles");
    assert!(!compiled.snapshot.services[0].members[0].reachable);
    let compiled = registry.compile(&desired, port(), |_| Some(hop)).expect("compiles");
    assert!(compiled.snapshot.services[0].members[0].reachable, "a replay does not ask for routes");
}

#[test]
fn local_addresses_keep_their_slots_and_rest_before_another_gets_one() {
    let local = |n: u8| IpAddr::from([10, 0, 0, n]);
    let with = |locals: &[u8]| {
        let mut desired = nat(desired(&[]), &[(1, None, Method::FullNat)]);
        desired.engine.local_addresses = 2;
        desired.services[0].local_addresses = locals.iter().map(|n| local(*n)).collect();
        desired
    };
    let mut registry = Registry::default();
    let mut compile = |locals: &[u8], now| {
        at(&mut registry, &with(locals), now).map(|compiled| {
            let id = compiled.snapshot.services[0].members[0].id;
            let slots = compiled.snapshot.target(id).expect("target").locals.to_vec();
            assert!(locals.iter().all(|n| compiled.snapshot.owns(local(*n))));
            (compiled.snapshot.locals, slots)
        })
    };
    assert_eq!(compile(&[101, 102], 0), Ok((vec![Some(local(101)), Some(local(102))], vec![0, 1])));
    assert_eq!(compile(&[102], 10), Ok((vec![None, Some(local(102))], vec![1])));
    // The first slot rests: it is its old address's, and nobody else's for ten minutes.
    assert_eq!(compile(&[102, 103], 20), Err(CompileError::TooManyLocals { wanted: 2, most: 2 }));
    assert_eq!(compile(&[102, 101], 30), Ok((vec![Some(local(101)), Some(local(102))], vec![1, 0])));
    assert_eq!(compile(&[102], 40), Ok((vec![None, Some(local(102))], vec![1])));
    assert_eq!(compile(&[103, 102], 639), Err(CompileError::TooManyLocals { wanted: 2, most: 2 }));
    assert_eq!(compile(&[103, 102], 640), Ok((vec![Some(local(103)), Some(local(102))], vec![0, 1])));
}

#[test]
fn selectors_are_built_anew_only_for_other_members() {
    let mut registry = Registry::default();
    let selectors = |compiled: &Compiled| {
        let service = &compiled.snapshot.services[0];
        (service.selector.clone(), service.stateless.clone())
    };
    let first = selectors(&compile(&mut registry, &[(1, 1), (2, 1)]));
    // The same servers, another next hop.
    let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
    let hop = NextHop { port: 0, vlan: Some(7), mac: MacAddr([2, 0, 0, 0, 0, 8]) };
    let moved = registry.compile(&desired(&[(1, 1), (2, 1)]), vec![port], |_| Some(hop)).expect("compiles");
    let second = selectors(&moved);
    assert!(first.0.is(&second.0) && first.1.is(&second.1));
    for servers in [&[(1, 1), (2, 3)][..], &[(1, 1)], &[(1, 1), (3, 1)], &[(1, 1), (3, 0)]] {
        let before = selectors(&compile(&mut registry, servers));
        assert!(!before.0.is(&second.0));
        let unreachable = registry.compile(&desired(servers), vec![port], |_| None).expect("compiles");
        let after = selectors(&unreachable);
        assert!(!after.0.is(&before.0) && !after.1.is(&before.1));
    }
    // Another scheduler.
    let mut other = desired(&[(1, 1), (3, 0)]);
    other.services[0].scheduler = Scheduler::named("maglev");
    let maglev = selectors(&registry.compile(&other, vec![port], |_| None).expect("compiles"));
    assert!(maglev.0.is(&maglev.1), "one table serves both");
}
