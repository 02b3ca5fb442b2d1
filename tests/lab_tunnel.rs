//! Tunnels end to end: IP in IP in all combinations of families, GUE and GRE, to servers behind a router that open them with
//! `evenkeel realserver decap`.

mod lab_support;

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use evenkeel::lab::client::frames::Frames;
use evenkeel::lab::scenario::find;
use evenkeel::lab::site::{APPLIANCE, CLIENT, Family, ROUTER};
use evenkeel::model::{IoMode, Method};
use lab_support::rig::{BULK, Rig, Wish, limit_route, path_mtu};
use lab_support::{lab_is_possible, must_pass, set};

const LOAD: Duration = Duration::from_secs(2);

/// Whether the kernel can open a kind of tunnel itself; says so when not. The project's own opener is always tested.
fn kernel_has(kind: &str, package: &str) -> bool {
    let program = evenkeel::lab::process::program("ip").unwrap_or_else(|| "ip".into());
    let name = format!("ek-{}", std::process::id() % 100_000);
    // A namespace of its own, so that nothing is left.
    let words = format!("{} link add {name} type {kind}", program.display());
    let made = Command::new("unshare").args(["--net", "sh", "-c", &words]).output();
    let possible = made.is_ok_and(|output| output.status.success());
    if !possible {
        eprintln!("SKIPPED: the kernel's own {kind} as the receiver: this kernel has no {package} module");
    }
    possible
}

/// Bytes of the outer headers.
fn overhead(method: Method, outer: Family) -> u32 {
    let ip = match outer {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    ip + match method {
        Method::Gue => 8 + 4,
        Method::Gre => 4,
        _ => 0,
    }
}

fn scenario_passes(name: &str) {
    if lab_is_possible() {
        must_pass(&set(find(name).unwrap()), LOAD);
    }
}

#[test]
fn the_scenario_with_ipip() {
    scenario_passes("tunnel-ipip");
}

#[test]
fn the_scenario_with_gue() {
    scenario_passes("tunnel-gue");
}

/// HTTP, datagrams, a transfer, by one method and one pair of families; and the client learns what fits.
fn carries(method: Method, inner: Family, outer: Family, one_arm: bool) {
    if !lab_is_possible() {
        return;
    }
    let wish = if one_arm { Wish::new(method, inner).one_arm() } else { Wish::new(method, inner) };
    let rig = wish.build_towards(outer).start();
    let mut servers = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let (own, response) = rig.get();
        assert_eq!(response.status, 200);
        assert_eq!(response.client, format!("{} {}", own.ip(), own.port()));
        servers.insert(response.server);
    }
    assert_eq!(servers.len(), 2, "{servers:?}");
    rig.echo(&[1, 100, 1400]);
    rig.transfer_all();
    let mtu = path_mtu(&rig.site, CLIENT, rig.site.vip(inner));
    assert_eq!(mtu, Some(1500 - overhead(method, outer)), "{}", rig.story());
}

#[test]
fn ipip_4_in_4() {
    carries(Method::Ipip, Family::V4, Family::V4, false);
}

#[test]
fn ipip_6_in_4() {
    carries(Method::Ipip, Family::V6, Family::V4, false);
}

#[test]
fn ipip_4_in_6() {
    carries(Method::Ipip, Family::V4, Family::V6, false);
}

#[test]
fn ipip_6_in_6() {
    carries(Method::Ipip, Family::V6, Family::V6, false);
}

#[test]
fn ipip_with_one_arm() {
    carries(Method::Ipip, Family::V4, Family::V4, true);
}

#[test]
fn gue_4_in_4() {
    carries(Method::Gue, Family::V4, Family::V4, false);
}

#[test]
fn gue_6_in_6() {
    carries(Method::Gue, Family::V6, Family::V6, false);
}

#[test]
fn gue_4_in_6_and_6_in_4() {
    carries(Method::Gue, Family::V4, Family::V6, false);
    carries(Method::Gue, Family::V6, Family::V4, false);
}

#[test]
fn gre_4_in_4() {
    carries(Method::Gre, Family::V4, Family::V4, false);
}

#[test]
fn gre_6_in_6() {
    carries(Method::Gre, Family::V6, Family::V6, false);
}

#[test]
fn gre_4_in_6_and_6_in_4() {
    carries(Method::Gre, Family::V4, Family::V6, false);
    carries(Method::Gre, Family::V6, Family::V4, false);
}

/// The ICMP error comes from the service address: a client behind a filter that only knows that one gets it, too.
#[test]
fn too_big_comes_from_the_service_address_and_names_what_fits() {
    if !lab_is_possible() {
        return;
    }
    for family in [Family::V4, Family::V6] {
        let rig = Wish::new(Method::Ipip, family).build().start();
        let mut wire = Frames::open(rig.client(), "eth0").unwrap();
        let target = rig.target(BULK);
        let plan = evenkeel::lab::client::transfer::Plan { seed: 3, up: 1 << 20, down: 0 };
        rig.client()
            .run(|| evenkeel::lab::client::transfer::transfer(target, plan))
            .unwrap()
            .unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
        let error = wire.receive(Duration::from_secs(1), |frame| too_big(frame, family).is_some());
        let frame = error.unwrap_or_else(|| panic!("no such error\n{}", rig.story()));
        let (source, mtu) = too_big(&frame, family).unwrap();
        assert_eq!((source, mtu), (rig.site.vip(family), 1500 - overhead(Method::Ipip, family)));
    }
}

/// Source and MTU of an ICMP error "packet too big" in an Ethernet frame.
fn too_big(frame: &[u8], family: Family) -> Option<(IpAddr, u32)> {
    let at = |from: usize, length: usize| frame.get(from..from + length);
    match family {
        // Fragmentation needed: type 3, code 4, the MTU in the last two bytes of the header (RFC 1191).
        Family::V4 => {
            let right = at(12, 2)? == [8, 0] && frame.get(23)? == &1 && at(34, 2)? == [3, 4];
            let source: [u8; 4] = at(26, 4)?.try_into().ok()?;
            right.then_some((source.into(), u16::from_be_bytes(at(40, 2)?.try_into().ok()?).into()))
        }
        // Packet too big: type 2 (RFC 4443 section 3.2).
        Family::V6 => {
            let right = at(12, 2)? == [0x86, 0xdd] && frame.get(20)? == &58 && frame.get(54)? == &2;
            let source: [u8; 16] = at(22, 16)?.try_into().ok()?;
            right.then_some((source.into(), u32::from_be_bytes(at(58, 4)?.try_into().ok()?)))
        }
    }
}

/// With `mss_clamp` no packet is too large in the first place.
#[test]
fn a_clamped_mss_needs_no_icmp() {
    if !lab_is_possible() {
        return;
    }
    for family in [Family::V4, Family::V6] {
        let mut stand = Wish::new(Method::Ipip, family).build();
        let headers = if family == Family::V4 { 40 } else { 60 };
        let mss = 1500 - overhead(Method::Ipip, family) - headers;
        // Only the servers' own SYN-ACK could tell the client, and it does not pass the appliance: the servers announce less.
        for server in stand.site.servers.clone() {
            let router = stand.site.router_address(family);
            let option = lab_support::rig::ip_option(family);
            stand.ip(&server.name, &format!("{option} route replace default via {router} advmss {mss}"));
        }
        // From the servers to the client nothing is wrapped, but the clamp holds for what they may send as well.
        stand.config.change_service("bulk", "mss_clamp", 1000);
        let rig = stand.start();
        let mut wire = Frames::open(rig.client(), "eth0").unwrap();
        let target = rig.target(BULK);
        let plan = evenkeel::lab::client::transfer::Plan { seed: 3, up: 2 << 20, down: 2 << 20 };
        let moved = rig.client().run(|| evenkeel::lab::client::transfer::transfer(target, plan)).unwrap();
        moved.unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
        assert_eq!(path_mtu(&rig.site, CLIENT, rig.site.vip(family)), None, "the client was told of an MTU");
        let mut largest = 0;
        while let Some(frame) = wire.poll() {
            largest = largest.max(frame.len());
        }
        assert!(largest > 500, "the wire was not seen");
        assert!(largest <= 14 + headers as usize + 1000, "a segment of a frame of {largest} bytes");
        let _: &Rig = &rig;
    }
}

/// A router before the servers whose leg to them takes packets of `leg` bytes only. The engine has to learn that from the
/// router's errors, which go to the appliance's kernel, and to tell the client.
fn learns_the_path(method: Method, inner: Family, outer: Family, leg: u32) {
    learns_the_path_in(None, method, inner, outer, leg);
}

fn learns_the_path_in(mode: Option<IoMode>, method: Method, inner: Family, outer: Family, leg: u32) {
    if !lab_is_possible() {
        return;
    }
    let mut wish = Wish::new(method, inner);
    wish.site.servers = 1;
    let mut stand = wish.build_towards(outer);
    if let Some(mode) = mode {
        stand.config.set("engine", "mode", vec![mode.name()]);
    }
    stand.ip(ROUTER, &format!("link set eth2 mtu {leg}"));
    for server in &stand.site.servers {
        let router = stand.site.router_address(inner);
        limit_route(&stand.site, &server.name, inner, &format!("default via {router}"), leg);
    }
    let rig = stand.start();
    let server = rig.site.servers[0].address(outer);
    let taken = |rig: &Rig| rig.engine.server_status("bulk", server).unwrap()["path_mtu"].as_u64();
    assert_eq!(taken(&rig), None);
    rig.transfer(1, 16);
    let fits =
        if inner == Family::V6 { (leg - overhead(method, outer)).max(1280) } else { leg - overhead(method, outer) };
    let what = format!("{method:?} {inner:?} in {outer:?}, {leg}\n{}", rig.story());
    assert_eq!(path_mtu(&rig.site, CLIENT, rig.site.vip(inner)), Some(fits), "{what}");
    assert_eq!(taken(&rig), Some(u64::from(leg)), "{what}");
    rig.transfer(1, 4);
    rig.echo(&[1200, 1, 1300]);
    assert_eq!(rig.drops("bad-icmp") + rig.drops("not-ours") + rig.drops("no-frame"), 0, "{what}");
}

#[test]
fn the_client_learns_the_smaller_mtu_of_a_tunnels_path() {
    learns_the_path(Method::Ipip, Family::V4, Family::V4, 1400);
    learns_the_path(Method::Gue, Family::V4, Family::V4, 1400);
    learns_the_path(Method::Gre, Family::V4, Family::V6, 1400);
}

#[test]
fn the_client_learns_the_smaller_mtu_of_a_tunnels_path_of_ipv6() {
    learns_the_path(Method::Ipip, Family::V6, Family::V6, 1400);
    learns_the_path(Method::Gue, Family::V6, Family::V6, 1400);
}

/// The other ways by which errors come to the engine, and go on to the kernel.
#[test]
fn a_tunnels_path_is_learned_in_other_modes() {
    for mode in [IoMode::Generic, IoMode::AfPacket] {
        learns_the_path_in(Some(mode), Method::Ipip, Family::V4, Family::V4, 1400);
        learns_the_path_in(Some(mode), Method::Ipip, Family::V6, Family::V6, 1400);
    }
}

/// No sender of IPv6 makes packets below 1280 bytes: where those do not fit with the outer header, that goes in fragments.
#[test]
fn ipv6_that_must_fit_arrives_in_fragments() {
    learns_the_path(Method::Ipip, Family::V6, Family::V6, 1290);
    learns_the_path(Method::Gue, Family::V6, Family::V6, 1290);
    learns_the_path(Method::Gre, Family::V6, Family::V6, 1290);
}

/// The same over IPv4, where the appliance's own interface is the small one. (On the way, a router cuts up such an outer
/// packet itself: it has no DF, as with IPVS.)
#[test]
fn ipv6_that_must_fit_arrives_in_fragments_of_ipv4() {
    if !lab_is_possible() {
        return;
    }
    for (method, leg) in [(Method::Ipip, "eth2"), (Method::Ipip, ""), (Method::Gue, ""), (Method::Gre, "")] {
        let stand = Wish::new(method, Family::V6).build_towards(Family::V4);
        let (node, interface) = if leg.is_empty() { (APPLIANCE, "eth1") } else { (ROUTER, leg) };
        stand.ip(node, &format!("link set {interface} mtu 1290"));
        for server in &stand.site.servers {
            let router = stand.site.router_address(Family::V6);
            limit_route(&stand.site, &server.name, Family::V6, &format!("default via {router}"), 1290);
        }
        let rig = stand.start();
        rig.transfer(1, 16);
        let told = if leg.is_empty() { 1280 } else { 1500 - overhead(method, Family::V4) };
        assert_eq!(path_mtu(&rig.site, CLIENT, rig.site.vip(Family::V6)), Some(told), "{}", rig.story());
        rig.echo(&[1200, 1, 1300]);
        assert_eq!(rig.drops("no-frame"), 0, "{}", rig.story());
    }
}

/// The kernel's own tunnel as the receiver, where it has one: an opener that this project did not write.
#[test]
fn the_kernel_opens_what_the_engine_sends() {
    if !lab_is_possible() {
        return;
    }
    for (kind, package, method) in [("ipip", "ipip", Method::Ipip), ("gre", "ip_gre", Method::Gre)] {
        if !kernel_has(kind, package) {
            continue;
        }
        let mut stand = Wish::new(method, Family::V4).build();
        let vip = stand.site.vip(Family::V4);
        for server in stand.site.servers.clone() {
            let name = &server.name;
            let local = server.v4;
            stand.ip(name, &format!("link add ek-tun type {kind} local {local} remote any"));
            stand.ip(name, "link set ek-tun up");
            stand.ip(name, &format!("address add {vip}/32 dev lo"));
            stand.site.lab.setting(name, "net/ipv4/conf/ek-tun/rp_filter", "0").unwrap();
            evenkeel::lab::server::transfer::start(&mut stand.site, name, vip, BULK).unwrap();
        }
        let rig = stand.start_engine();
        rig.transfer(2, 8);
    }
}
