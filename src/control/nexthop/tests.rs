//! Tables over the judgement of next hops.

use super::*;
use crate::model::MacAddr;

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11));
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 11]);

fn link(index: u32, name: &str, vlan: Option<(u32, u16)>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: Some(MacAddr([2, 0, 0, 0, 1, 1])),
        mtu: 1500,
        up: true,
        running: true,
        kind: vlan.map(|_| "vlan".to_owned()),
        parent: vlan.map(|(parent, _)| parent),
        vlan: vlan.map(|(_, id)| id),
    }
}

fn ports(names: &[&str]) -> Vec<Interface> {
    names.iter().map(|name| Interface { name: (*name).to_owned(), queues: None }).collect()
}

/// eth0 (2), eth1 (3), eth0.100 (4), other (5); the server on the given link, with the given certainty.
fn facts(on: u32, certainty: Option<Certainty>) -> Facts {
    let links =
        [link(2, "eth0", None), link(3, "eth1", None), link(4, "eth0.100", Some((2, 100))), link(5, "other", None)];
    let mut facts = Facts { links: links.into_iter().map(|link| (link.index, link)).collect(), ..Facts::default() };
    facts.routes.insert(SERVER, Some(Route { link: on, gateway: None, source: None, local: false, mtu: None }));
    if let Some(certainty) = certainty {
        let mac = (!matches!(certainty, Certainty::Pending | Certainty::Failed)).then_some(MAC);
        facts.neighbours.insert((on, SERVER), NeighbourEntry { link: on, address: SERVER, mac, certainty });
    }
    facts
}

fn judged(facts: &Facts, fixed: &[Neighbor]) -> Reach {
    judge(SERVER, Path::OnLink, facts, &ports(&["eth0", "eth1"]), fixed)
}

fn hop(port: PortIndex, vlan: Option<u16>) -> Reach {
    Ok(NextHop { port, vlan, mac: MAC })
}

#[test]
fn certainty_decides() {
    for (certainty, expected) in [
        (Some(Certainty::Sure), hop(0, None)),
        (Some(Certainty::Stale), hop(0, None)),
        (Some(Certainty::Pending), Err(Reason::Unresolved)),
        (Some(Certainty::Failed), Err(Reason::Failed)),
        (None, Err(Reason::Unresolved)),
    ] {
        assert_eq!(judged(&facts(2, certainty), &[]), expected, "{certainty:?}");
    }
}

#[test]
fn the_route_decides_port_and_tag() {
    assert_eq!(judged(&facts(3, Some(Certainty::Sure)), &[]), hop(1, None));
    assert_eq!(judged(&facts(4, Some(Certainty::Sure)), &[]), hop(0, Some(100)));
    let wrong = Err(Reason::WrongInterface { name: "other".to_owned() });
    assert_eq!(judged(&facts(5, Some(Certainty::Sure)), &[]), wrong);
    assert_eq!(judged(&facts(9, Some(Certainty::Sure)), &[]), Err(Reason::NoRoute));
    assert_eq!(judged(&Facts::default(), &[]), Err(Reason::NoRoute));
}

#[test]
fn routers_and_this_machine_are_refused() {
    let mut routed = facts(2, Some(Certainty::Sure));
    let gateway = "10.0.0.1".parse().unwrap();
    routed
        .routes
        .insert(SERVER, Some(Route { link: 2, gateway: Some(gateway), source: None, local: false, mtu: None }));
    assert_eq!(judged(&routed, &[]), Err(Reason::NotOnLink { gateway }));
    routed.routes.insert(SERVER, Some(Route { link: 1, gateway: None, source: None, local: true, mtu: None }));
    assert_eq!(judged(&routed, &[]), Err(Reason::Local));
}

#[test]
fn routers_are_the_next_hop_of_every_other_method() {
    let gateway: IpAddr = "10.0.0.1".parse().unwrap();
    let routed = |certainty| {
        let mut facts = facts(2, None);
        facts
            .routes
            .insert(SERVER, Some(Route { link: 2, gateway: Some(gateway), source: None, local: false, mtu: None }));
        let entry = NeighbourEntry { link: 2, address: gateway, mac: Some(MAC), certainty };
        facts.neighbours.insert((2, gateway), entry);
        facts
    };
    let judged = |facts: &Facts, fixed: &[Neighbor]| judge(SERVER, Path::Routed, facts, &ports(&["eth0"]), fixed);
    assert_eq!(judged(&routed(Certainty::Sure), &[]), hop(0, None));
    assert_eq!(judged(&routed(Certainty::Failed), &[]), Err(Reason::Failed));
    assert_eq!(judged(&facts(2, Some(Certainty::Sure)), &[]), hop(0, None), "without a router, too");
    assert_eq!(wants_resolution(SERVER, Path::Routed, &routed(Certainty::Stale), &[]), Some((2, gateway)));
    assert_eq!(wants_resolution(SERVER, Path::Routed, &routed(Certainty::Sure), &[]), None);
    assert_eq!(wants_resolution(SERVER, Path::OnLink, &routed(Certainty::Stale), &[]), None, "of no use");
    // A fixed neighbour is the router, or the server itself.
    for address in [gateway, SERVER] {
        let mac = MacAddr([2, 0, 0, 0, 0, 99]);
        let fixed = [Neighbor { address, mac, interface: None, vlan: None }];
        let found = judged(&routed(Certainty::Failed), &fixed);
        assert_eq!(found, Ok(NextHop { port: 0, vlan: None, mac }), "{address}");
        assert_eq!(wants_resolution(SERVER, Path::Routed, &routed(Certainty::Failed), &fixed), None);
    }
}

#[test]
fn links_that_are_down_are_named() {
    for (off, on) in [(2, 2), (2, 4), (4, 4)] {
        let mut facts = facts(on, Some(Certainty::Sure));
        let link = facts.links.get_mut(&off).unwrap();
        link.running = false;
        let name = link.name.clone();
        assert_eq!(judged(&facts, &[]), Err(Reason::LinkDown { name }));
    }
}

#[test]
fn fixed_neighbors_override() {
    let fixed = |interface: Option<&str>| {
        vec![Neighbor { address: SERVER, mac: MAC, interface: interface.map(str::to_owned), vlan: None }]
    };
    let all_ports = ports(&["eth0", "eth1"]);
    let one_port = ports(&["eth1"]);
    // By the route, also when the kernel says the neighbour failed.
    assert_eq!(
        judge(SERVER, Path::OnLink, &facts(4, Some(Certainty::Failed)), &all_ports, &fixed(None)),
        hop(0, Some(100))
    );
    // By name, with the route's tag where it is the same interface, else without.
    assert_eq!(judge(SERVER, Path::OnLink, &facts(4, None), &all_ports, &fixed(Some("eth0"))), hop(0, Some(100)));
    assert_eq!(judge(SERVER, Path::OnLink, &facts(4, None), &all_ports, &fixed(Some("eth1"))), hop(1, None));
    // A tag of its own.
    let mut tagged = fixed(Some("eth1"));
    tagged[0].vlan = Some(7);
    assert_eq!(judge(SERVER, Path::OnLink, &facts(4, None), &all_ports, &tagged), hop(1, Some(7)));
    // Without a route: by the only interface, or not at all.
    let mut unrouted = facts(2, None);
    unrouted.routes.clear();
    assert_eq!(judge(SERVER, Path::OnLink, &unrouted, &one_port, &fixed(None)), hop(0, None));
    assert_eq!(judge(SERVER, Path::OnLink, &unrouted, &all_ports, &fixed(None)), Err(Reason::NoRoute));
    // A name that the kernel does not have.
    let gone = Err(Reason::LinkDown { name: "eth9".to_owned() });
    assert_eq!(judge(SERVER, Path::OnLink, &unrouted, &ports(&["eth9"]), &fixed(None)), gone);
    assert_eq!(wants_resolution(SERVER, Path::OnLink, &facts(2, None), &fixed(None)), None);
}

#[test]
fn what_is_not_sure_is_asked_for() {
    assert_eq!(wants_resolution(SERVER, Path::OnLink, &facts(2, Some(Certainty::Sure)), &[]), None);
    for certainty in [None, Some(Certainty::Stale), Some(Certainty::Pending), Some(Certainty::Failed)] {
        assert_eq!(
            wants_resolution(SERVER, Path::OnLink, &facts(2, certainty), &[]),
            Some((2, SERVER)),
            "{certainty:?}"
        );
    }
    let mut down = facts(2, None);
    down.links.get_mut(&2).unwrap().up = false;
    assert_eq!(wants_resolution(SERVER, Path::OnLink, &down, &[]), None);
}

#[test]
fn housekeeping_of_the_kernel_is_not_seen() {
    let start = Instant::now();
    let same = |_: &NextHop| true;
    let mut steady = Steady::new(hop(0, None));
    steady.update(Err(Reason::Unresolved), same, start);
    assert_eq!(steady.reach, hop(0, None), "held");
    steady.update(Err(Reason::Unresolved), same, start + HOLD - Duration::from_millis(1));
    assert_eq!(steady.reach, hop(0, None));
    steady.update(Err(Reason::Unresolved), same, start + HOLD);
    assert_eq!(steady.reach, Err(Reason::Unresolved));

    let mut steady = Steady::new(hop(0, None));
    steady.update(Err(Reason::Failed), same, start);
    assert_eq!(steady.reach, Err(Reason::Failed));
    steady.update(Err(Reason::Unresolved), same, start);
    assert_eq!(steady.reach, Err(Reason::Failed), "asked again, not answered yet");
    steady.update(hop(1, None), same, start);
    assert_eq!(steady.reach, hop(1, None));
    steady.update(Err(Reason::Unresolved), |_| false, start);
    assert_eq!(steady.reach, Err(Reason::Unresolved), "another way: nothing to hold");

    // A link that goes and comes back: the kernel has forgotten its neighbours.
    let down = || Err(Reason::LinkDown { name: "eth0".to_owned() });
    let mut steady = Steady::new(hop(0, None));
    for gone in [down(), Err(Reason::NoRoute), down()] {
        steady.update(gone.clone(), |_| false, start);
        assert_eq!(steady.reach, gone, "it cannot be reached");
    }
    let back = start + 2 * HOLD;
    steady.update(Err(Reason::Unresolved), same, back);
    assert_eq!(steady.reach, hop(0, None), "as before, until the kernel knows better");
    steady.update(Err(Reason::Unresolved), same, back + HOLD);
    assert_eq!(steady.reach, Err(Reason::Unresolved));
    for (fresh, is_same) in [(Err(Reason::Unresolved), false), (Err(Reason::Failed), true), (hop(1, None), true)] {
        let mut steady = Steady::new(hop(0, None));
        steady.update(down(), |_| false, start);
        steady.update(fresh.clone(), |_| is_same, start);
        assert_eq!(steady.reach, fresh);
    }
}
