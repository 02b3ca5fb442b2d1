//! Asks servers and peers whether they are there, and listens for adverts.
//!
//! Owns how long that may take. Never judges. It asks by ARP, neighbour discovery and echo, as the kernel would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::super::facts::{Facts, Heard, Way};
use super::ping;
use crate::control::netlink::{Certainty, Netlink};
use crate::control::nexthop::tracker::Tracker;
use crate::control::nexthop::{Reach, Reason};
use crate::model::{Desired, VrrpVersion};
use crate::vrrp::frame::{self, Heard as Frame};
use crate::vrrp::packet;
use crate::vrrp::socket::{LONGEST, Port};

/// How long neighbours may take to answer: the kernel asks three times, a second apart.
const ANSWER: Duration = Duration::from_secs(4);
/// How long an echo may take.
const ECHO: Duration = Duration::from_secs(1);
/// Most servers that are asked how large packets may be.
const MOST: usize = 64;

/// Finds the way to every server of the configuration.
pub fn servers(facts: &mut Facts, say: &mut dyn FnMut(&str)) {
    let Some(desired) = facts.desired.clone() else { return };
    let Ok(mut tracker) = Tracker::open(&desired, Instant::now()) else { return };
    let all: BTreeSet<IpAddr> =
        desired.services.iter().flat_map(|service| service.all_servers()).map(|server| server.address).collect();
    say(&format!("asking {} servers for their Ethernet addresses", all.len()));
    let until = Instant::now() + ANSWER;
    // The kernel remembers for a while who did not answer: such a one may be there again.
    let open = |reach: &Reach| matches!(reach, Err(Reason::Unresolved | Reason::Failed));
    while tracker.hops().any(|(_, reach)| open(reach)) && Instant::now() < until {
        tracker.turn(Duration::from_millis(100));
    }
    let mut seen: BTreeMap<(IpAddr, Option<u32>), Way> = BTreeMap::new();
    for service in &desired.services {
        for server in service.all_servers() {
            let tunnel = server.method.is_tunnel().then(|| server.method.outer_bytes(server.address.is_ipv6()));
            let entry = seen.entry((server.address, tunnel)).or_insert_with(|| {
                let route = tracker.facts().route(server.address);
                let link = route.and_then(|route| tracker.facts().links.get(&route.link));
                let leaves = link.map(|link| {
                    let mtu = route.and_then(|route| route.mtu).map_or(link.mtu, |mtu| mtu.min(link.mtu));
                    (link.name.clone(), mtu)
                });
                let reach = match tracker.reach(service, server) {
                    Ok(hop) => {
                        let name = desired.interfaces.get(usize::from(hop.port)).map_or("?", |port| port.name.as_str());
                        Ok(format!("reached by {name}"))
                    }
                    Err(reason) => Err((reason.word(), reason.to_string())),
                };
                Way { to: server.address, of: String::new(), reach, tunnel, leaves, full_size: None }
            });
            if !entry.of.split(", ").any(|known| known == service.name) {
                entry.of += if entry.of.is_empty() { "" } else { ", " };
                entry.of += &service.name;
            }
        }
    }
    facts.ways = seen.into_values().collect();
    sizes(&mut facts.ways, say);
}

/// Asks by small and by full echo requests, all at the same time.
fn sizes(ways: &mut [Way], say: &mut dyn FnMut(&str)) {
    let asked: Vec<&mut Way> =
        ways.iter_mut().filter(|way| way.reach.is_ok() && way.leaves.is_some()).take(MOST).collect();
    if asked.is_empty() {
        return;
    }
    say(&format!("asking {} servers how large packets may be", asked.len()));
    thread::scope(|scope| {
        for (number, way) in (0u16..).zip(asked) {
            scope.spawn(move || way.full_size = size_of_way(way, number));
        }
    });
}

fn size_of_way(way: &Way, number: u16) -> Option<(u32, bool)> {
    let (_, mtu) = way.leaves.as_ref()?;
    let ask = |bytes, number| ping::answered(way.to, bytes, number, ECHO).ok();
    if !ask(64, number * 4)? {
        return None;
    }
    // A lost one may be chance.
    let full = ask(*mtu, number * 4 + 1)? || ask(*mtu, number * 4 + 2)?;
    Some((*mtu, full))
}

/// Finds the way to single VRRP peers.
pub fn peers(facts: &mut Facts, say: &mut dyn FnMut(&str)) {
    let Some(desired) = facts.desired.as_ref() else { return };
    let all = peers_of(desired);
    let (Ok(mut netlink), false) = (Netlink::open(), all.is_empty()) else { return };
    say(&format!("asking {} peers", all.len()));
    let mut ways = Vec::new();
    for (to, of) in all {
        let route = netlink.route(to).ok().flatten();
        let reach = match route {
            None => Err(("no-route", "there is no route to it".to_owned())),
            Some(route) if route.local => Err(("local", "it is an address of this machine".to_owned())),
            Some(route) => {
                let neighbour = route.gateway.unwrap_or(to);
                if answers(&mut netlink, route.link, neighbour) {
                    Ok(format!("{neighbour} answers"))
                } else {
                    Err(("failed", format!("{neighbour} does not answer ARP or neighbour discovery")))
                }
            }
        };
        ways.push(Way { to, of, reach, tunnel: None, leaves: None, full_size: None });
    }
    facts.peers = ways;
}

fn peers_of(desired: &Desired) -> Vec<(IpAddr, String)> {
    let mut all: BTreeMap<IpAddr, String> = BTreeMap::new();
    for router in &desired.vrrp.routers {
        for peer in router.unicast.iter().flat_map(|unicast| &unicast.peers) {
            all.entry(*peer).or_insert_with(|| router.name.clone());
        }
    }
    all.into_iter().collect()
}

fn answers(netlink: &mut Netlink, link: u32, neighbour: IpAddr) -> bool {
    let _ = netlink.resolve(link, neighbour);
    let until = Instant::now() + ANSWER;
    loop {
        let rows = netlink.neighbours().unwrap_or_default();
        let row = rows.into_iter().find(|row| row.link == link && row.address == neighbour);
        match row.map(|row| row.certainty) {
            Some(Certainty::Sure | Certainty::Stale) => return true,
            _ if Instant::now() > until => return false,
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Listens for adverts on the interfaces of the virtual routers.
pub fn listen(facts: &mut Facts, time: Duration, say: &mut dyn FnMut(&str)) {
    let Some(desired) = facts.desired.as_ref() else { return };
    let names: BTreeSet<&str> = desired.vrrp.routers.iter().map(|router| router.interface.as_str()).collect();
    let open = |name: &&str| {
        let index = nix::net::if_::if_nametoindex(*name).ok()?;
        Some(((*name).to_owned(), Port::open(name, index, true, true, &[]).ok()?))
    };
    let ports: Vec<(String, Port)> = names.iter().filter_map(open).collect();
    if ports.is_empty() {
        return;
    }
    say(&format!("listening for adverts for {} s", time.as_secs()));
    let mut heard = BTreeSet::new();
    let mut buffer = vec![0; LONGEST];
    let until = Instant::now() + time;
    while Instant::now() < until {
        for (name, port) in &ports {
            while let Ok(Some(frame)) = port.receive(&mut buffer) {
                heard.extend(advert(name, frame));
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    facts.heard = Some(heard.into_iter().collect());
}

fn advert(interface: &str, frame: &[u8]) -> Option<Heard> {
    let Frame::Advert(envelope, message) = frame::heard(frame)? else { return None };
    let advert = packet::parse(&envelope, message).ok()?;
    Some(Heard {
        interface: interface.to_owned(),
        version: if advert.version == VrrpVersion::V2 { 2 } else { 3 },
        vrid: advert.vrid,
        source: envelope.source,
        priority: advert.priority,
        interval_ms: advert.interval.as_millis() as u64,
        addresses: advert.addresses,
    })
}
