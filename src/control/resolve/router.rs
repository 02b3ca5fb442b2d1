//! One `[[virtual_router]]`: what fits together within it.
//!
//! Owns the rules of each version, family and place. Never compares one router with another. Pure.

use std::net::IpAddr;
use std::time::Duration;

use super::services::unfit;
use super::track::{self, Known};
use crate::control::config::problem::Collector;
use crate::control::config::raw::{At, Entry};
use crate::model::{
    Announcements, Notify, Place, Track, Tracked, Unicast, VirtualAddress, VirtualRouter, VrrpChecksum, VrrpVersion,
};

/// Most IPv6 addresses in an advert of one Ethernet frame: 40 bytes of IPv6 and 8 of VRRP go off 1500.
const MOST_IPV6: usize = (1500 - 40 - 8) / 16;

/// As many addresses as every implementation takes.
const USUAL_ADDRESSES: usize = 20;

/// Longest interval of version 3: 12 bits of hundredths.
const LONGEST_V3: Duration = Duration::from_millis(40_950);

/// What the keys of a router say that others depend on. `None` where that was refused.
#[derive(Clone, Copy, Debug)]
struct Basis {
    version: Option<VrrpVersion>,
    v6: Option<bool>,
    place: Option<Place>,
    priority: Option<u8>,
    master: bool,
}

impl Basis {
    fn of(entry: &Entry, out: &mut Collector<'_>) -> Basis {
        let v6 = family(entry);
        let priority = entry.integer("priority").and_then(|priority| u8::try_from(priority.value).ok());
        let state = entry.word("state").map(|state| state.value);
        if state == Some("master") && priority.is_none() && !entry.was_refused("priority") {
            let text = "a router that begins as master says its priority".to_owned();
            out.absent(entry.at, "priority", entry.key("priority"), text)
                .expected("an integer from 1 to 255")
                .help("add `priority = ...`; keepalived takes 255 here, as if the addresses were this machine's own");
        }
        let priority = if entry.was_refused("priority") { None } else { Some(priority.unwrap_or(100)) };
        let version = match entry.integer("version") {
            Some(At { value: 2, at, .. }) if v6 == Some(true) => {
                out.error(at, entry.key("version"), "version 2 has no IPv6")
                    .expected("`3` for IPv6")
                    .help("write `version = 3`, or remove the key");
                None
            }
            Some(At { value: 2, .. }) => Some(VrrpVersion::V2),
            Some(_) => Some(VrrpVersion::V3),
            None if entry.was_refused("version") => None,
            None => v6.map(|v6| if v6 { VrrpVersion::V3 } else { VrrpVersion::V2 }),
        };
        let master = state == Some("master") || (state.is_none() && priority == Some(255));
        Basis { version, v6, place: place(entry), priority, master }
    }
}

/// Whether the adverts of a router go over IPv6.
pub(super) fn family(entry: &Entry) -> Option<bool> {
    entry.tables("address").first()?.host("address").map(|host| host.value.0.is_ipv6())
}

/// Where a router's addresses are.
pub(super) fn place(entry: &Entry) -> Option<Place> {
    entry.word("place").map(|place| if place.value == "kernel" { Place::Kernel } else { Place::Engine })
}

/// A router, where everything necessary is there.
pub(super) fn router(entry: &Entry, known: &mut Known, out: &mut Collector<'_>) -> Option<VirtualRouter> {
    let basis = Basis::of(entry, out);
    let interface = entry.text("interface").map(|interface| interface.value);
    if let Some(interface) = entry.text("interface").filter(|interface| interface.value == "lo") {
        out.error(interface.at, entry.key("interface"), "the loopback interface leads to no other appliance")
            .expected("the interface towards the other appliances")
            .help("to have the addresses on `lo` give each of them `device = \"lo\"`");
    }
    let addresses = addresses(entry, "address", basis, interface.as_deref(), out);
    let excluded = addresses_of(entry, "excluded", basis, interface.as_deref(), out);
    let interval = interval(entry, basis, out);
    let password = password(entry, basis, out);
    let checksum = checksum(entry, basis, out);
    let all: Vec<IpAddr> = addresses.iter().chain(&excluded).map(|known| known.address).collect();
    let source = source(entry, basis, &all, out);
    let unicast = unicast(entry, basis, source, &all, out);
    preemption(entry, basis, out);
    kernel_only(entry, basis, out);
    let mut tracks = track::tracks(entry, interface.as_deref(), known, out);
    if basis.priority == Some(255)
        && let Some((item, what)) = track::weighted(entry, &tracks)
    {
        out.warning(item.at, item.key("weight"), format!("the weight of {what} does nothing: the priority 255 stays"))
            .help("remove the weight to have a fault in its place, or lower the priority");
    }
    let engine = entry.boolean("track_engine").map_or(basis.place == Some(Place::Engine), |track| track.value);
    tracks.extend(engine.then_some(Track { what: Tracked::Engine, weight: 0 }));
    Some(VirtualRouter {
        name: entry.text("name")?.value,
        interface: interface?,
        vrid: small(entry, "vrid")?,
        version: basis.version?,
        priority: basis.priority?,
        starts_as_master: basis.master,
        interval: interval?,
        addresses,
        excluded,
        place: basis.place?,
        password,
        checksum,
        source,
        unicast,
        preempt: entry.boolean("preempt")?.value,
        preempt_delay: entry.seconds("preempt_delay")?.value,
        down_adverts: small(entry, "down_adverts")?,
        accept: entry.boolean("accept")?.value,
        virtual_mac: entry.boolean("virtual_mac")?.value,
        announcements: Announcements {
            repeat: small(entry, "announce_repeat")?,
            delay: entry.seconds("announce_delay")?.value,
            refresh: entry.seconds("announce_refresh")?.value,
            refresh_repeat: small(entry, "announce_refresh_repeat")?,
        },
        tracks,
        notify: notify(entry),
    })
}

fn small(entry: &Entry, key: &str) -> Option<u8> {
    entry.integer(key).and_then(|number| u8::try_from(number.value).ok())
}

/// The programs that a router or a group tells of changes.
pub(super) fn notify(entry: &Entry) -> Notify {
    let program = |key| entry.command(key).map(|command| command.value);
    Notify {
        master: program("notify_master"),
        backup: program("notify_backup"),
        fault: program("notify_fault"),
        stop: program("notify_stop"),
        any: program("notify"),
    }
}

/// The addresses in the adverts.
fn addresses(
    entry: &Entry,
    list: &'static str,
    basis: Basis,
    interface: Option<&str>,
    out: &mut Collector<'_>,
) -> Vec<VirtualAddress> {
    let entries = entry.tables(list);
    let hosts = || entries.iter().filter_map(|item| Some((item, item.host("address")?)));
    if let Some((first, v6)) = entries.first().zip(basis.v6) {
        for (item, host) in hosts().filter(|(_, host)| host.value.0.is_ipv6() != v6) {
            let (family, line) = (if v6 { "IPv6" } else { "IPv4" }, out.line(first.at));
            out.error(host.at, item.key("address"), format!("{} is not an {family} address", host.value.0))
                .expected(format!("the family of the router's first address, on line {line}"))
                .help("write it under `excluded`, or make a second router for it and a `[[sync_group]]` of both");
        }
        let multicast = entry.addresses("peers").is_none() && !entry.was_refused("peers");
        if let (true, true, Some(host)) = (v6, multicast, first.host("address"))
            && !link_local(host.value.0)
        {
            out.warning(host.at, first.key("address"), format!("{} is not a link-local address", host.value.0)).help(
                "RFC 9568 asks for one at the head of the list, and keepalived warns, too: write one such as `\"fe80::10\"` first",
            );
        }
    }
    let count = entries.len();
    if basis.v6 == Some(true) && count > MOST_IPV6 {
        let beyond = entries.get(MOST_IPV6).map_or(entry.at, |item| item.at);
        out.error(
            beyond,
            entry.key(list),
            format!("an advert with {count} IPv6 addresses does not fit an Ethernet frame"),
        )
        .expected(format!("at most {MOST_IPV6}"))
        .help("write the others under `excluded`");
    } else if count > USUAL_ADDRESSES {
        let beyond = entries.get(USUAL_ADDRESSES).map_or(entry.at, |item| item.at);
        out.warning(beyond, entry.key(list), format!("adverts with {count} addresses are refused by some routers"))
            .help(format!("write those after the first {USUAL_ADDRESSES} under `excluded`"));
    }
    addresses_of(entry, list, basis, interface, out)
}

fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The addresses of a list, each checked by itself.
fn addresses_of(
    entry: &Entry,
    list: &'static str,
    basis: Basis,
    interface: Option<&str>,
    out: &mut Collector<'_>,
) -> Vec<VirtualAddress> {
    let mut found = Vec::new();
    for item in entry.tables(list) {
        let (device, label) = (item.text("device"), item.text("label"));
        let host = item.host("address");
        if basis.place == Some(Place::Engine) {
            let written = [("device", device.as_ref()), ("label", label.as_ref())];
            for (key, at) in written.into_iter().filter_map(|(key, found)| Some((key, found?.at))) {
                out.error(at, item.key(key), "the kernel does not have the addresses of this router")
                    .expected("this key only with `place = \"kernel\"`")
                    .help("remove the key, or write `place = \"kernel\"` in the router");
            }
        }
        let on = device.as_ref().map(|device| device.value.as_str()).or(interface);
        if let (Some(label), Some(on)) = (&label, on)
            && !label.value.starts_with(on)
        {
            out.error(label.at, item.key("label"), format!("the label `{}` does not begin with `{on}`", label.value))
                .expected("the name of the interface, and more after it")
                .help(format!("write `label = \"{on}:1\"`"));
        }
        let Some(At { value: (address, length), at, .. }) = host else { continue };
        if let Some(label) = label.as_ref().filter(|_| address.is_ipv6()) {
            out.error(label.at, item.key("label"), "the kernel has no labels for IPv6 addresses")
                .expected("this key only for IPv4")
                .help("remove the key");
        }
        if let Some(what) = unfit(address).or_else(|| length.and_then(|length| end_of_network(address, length))) {
            out.error(at, item.key("address"), format!("{address} is {what}"))
                .expected("a unicast address that clients can reach")
                .help("the address must be one that no host has");
            continue;
        }
        found.push(VirtualAddress {
            address,
            prefix: length.unwrap_or(if address.is_ipv4() { 32 } else { 128 }),
            device: device.map(|device| device.value),
            label: label.map(|label| label.value),
        });
    }
    found
}

/// What an IPv4 address is in its network that no host can be.
fn end_of_network(address: IpAddr, length: u8) -> Option<&'static str> {
    let IpAddr::V4(v4) = address else { return None };
    let hosts = u32::MAX.checked_shr(u32::from(length)).filter(|_| length < 31)?;
    match u32::from(v4) & hosts {
        0 => Some("the network itself"),
        all if all == hosts => Some("the broadcast address of its network"),
        _ => None,
    }
}

fn interval(entry: &Entry, basis: Basis, out: &mut Collector<'_>) -> Option<Duration> {
    let At { value, at, .. } = entry.seconds("interval")?;
    match basis.version {
        Some(VrrpVersion::V2) if value.subsec_nanos() > 0 => {
            let whole = value.as_secs_f64().round().max(1.0);
            out.error(at, entry.key("interval"), "version 2 counts whole seconds")
                .expected("seconds from 1 to 255, without decimals")
                .help(format!(
                    "write `version = 3` on all appliances of the router, or `interval = {whole}`, which is what keepalived makes \
                     of it"
                ));
        }
        Some(VrrpVersion::V3) if value > LONGEST_V3 => {
            out.error(at, entry.key("interval"), "version 3 has no intervals above 40.95 seconds")
                .expected("seconds from 0.01 to 40.95, in steps of 0.01")
                .help("write a shorter one");
        }
        _ => {}
    }
    Some(value)
}

fn password(entry: &Entry, basis: Basis, out: &mut Collector<'_>) -> Option<[u8; 8]> {
    let password = entry.bytes("password")?;
    if basis.version == Some(VrrpVersion::V3) {
        out.error(password.at, entry.key("password"), "version 3 has no passwords")
            .expected("this key only with version 2 over IPv4")
            .help("remove the key; to know the other appliances write `peers`");
    }
    let mut padded = [0; 8];
    padded.iter_mut().zip(&password.value).for_each(|(to, from)| *to = *from);
    Some(padded)
}

fn checksum(entry: &Entry, basis: Basis, out: &mut Collector<'_>) -> VrrpChecksum {
    let Some(word) = entry.word("checksum") else { return VrrpChecksum::default() };
    let what = match (basis.version, basis.v6) {
        (Some(VrrpVersion::V2), _) => "version 2 has one form of checksum only",
        (_, Some(true)) => "IPv6 has one form of checksum only",
        _ => "",
    };
    if word.written && !what.is_empty() {
        out.error(word.at, entry.key("checksum"), what)
            .expected("this key only with version 3 over IPv4")
            .help("remove the key");
    }
    if word.value == "message" { VrrpChecksum::Message } else { VrrpChecksum::PseudoHeader }
}

fn source(entry: &Entry, basis: Basis, all: &[IpAddr], out: &mut Collector<'_>) -> Option<IpAddr> {
    let At { value, at, .. } = entry.address("source")?;
    let key = entry.key("source");
    if let Some(what) = unfit(value) {
        out.error(at, key, format!("{value} is {what}"))
            .expected("a unicast address of this appliance")
            .help("remove the key to have the interface's own");
    } else if let Some(v6) = basis.v6.filter(|v6| *v6 != value.is_ipv6()) {
        out.error(at, key, format!("{value} is not of the family of the router's addresses"))
            .expected(if v6 { "an IPv6 address" } else { "an IPv4 address" })
            .help("remove the key to have the interface's own");
    } else if all.contains(&value) && basis.priority.is_some_and(|priority| priority < 255) {
        out.error(at, key, format!("{value} is an address of the router, which moves to other appliances"))
            .expected("an address that only this appliance has")
            .help("remove the key to have the interface's own");
    } else if value.is_ipv6() && !link_local(value) && entry.addresses("peers").is_none() {
        out.warning(at, key, format!("{value} is not a link-local address"))
            .help("adverts to the group address come from a link-local one: remove the key to have the interface's");
    }
    Some(value)
}

fn unicast(
    entry: &Entry,
    basis: Basis,
    source: Option<IpAddr>,
    all: &[IpAddr],
    out: &mut Collector<'_>,
) -> Option<Unicast> {
    let (least, most) = (entry.integer("peers_min_ttl"), entry.integer("peers_max_ttl"));
    let Some(peers) = entry.addresses("peers") else {
        let written = [("peers_min_ttl", least), ("peers_max_ttl", most)];
        for (key, at) in written.into_iter().filter_map(|(key, found)| Some((key, found?.at))) {
            if !entry.was_refused("peers") {
                out.error(at, entry.key(key), "the router has no `peers`")
                    .expected("this key only with `peers`")
                    .help("remove the key: adverts to the group address have TTL 255, or are refused");
            }
        }
        return None;
    };
    for peer in &peers.value {
        let what = if let Some(what) = unfit(*peer) {
            what
        } else if basis.v6.is_some_and(|v6| v6 != peer.is_ipv6()) {
            "not of the family of the router's addresses"
        } else if source == Some(*peer) {
            "the source of this appliance's own adverts"
        } else if all.contains(peer) {
            "an address of the router, which moves"
        } else {
            continue;
        };
        out.error(peers.at, entry.key("peers"), format!("{peer} is {what}"))
            .expected("addresses that only the other appliances have, of the family of the router's")
            .help("remove it, or correct it");
    }
    let byte = |number: Option<At<u32>>| number.and_then(|number| u8::try_from(number.value).ok());
    let ttl = match (byte(least), byte(most)) {
        (None, None) => None,
        (least, most) => Some((least.unwrap_or(0), most.unwrap_or(u8::MAX))),
    };
    if let (Some((low, high)), Some(at)) = (ttl, most.or(least).map(|key| key.at))
        && low > high
    {
        out.error(
            at,
            entry.key(if most.is_some() { "peers_max_ttl" } else { "peers_min_ttl" }),
            "no TTL fits both bounds",
        )
        .expected(format!("a `peers_max_ttl` of at least `peers_min_ttl`, {low}"))
        .help("raise one, or lower the other");
    }
    Some(Unicast { peers: peers.value, ttl })
}

fn preemption(entry: &Entry, basis: Basis, out: &mut Collector<'_>) {
    let preempt = entry.boolean("preempt").filter(|preempt| !preempt.value);
    let delay = entry.seconds("preempt_delay").filter(|delay| !delay.value.is_zero());
    let why = if basis.priority == Some(255) {
        Some("the owner of the addresses takes over always")
    } else if basis.master {
        Some("a router that begins as master takes over at its start")
    } else {
        None
    };
    let state = "remove the key, or write `state = \"backup\"`: the first one that starts becomes master all the same";
    let help = if basis.priority == Some(255) { "remove the key, or lower the priority" } else { state };
    for (key, at) in [("preempt", preempt.map(|key| key.at)), ("preempt_delay", delay.map(|key| key.at))] {
        let Some(at) = at else { continue };
        if let Some(why) = why {
            out.error(at, entry.key(key), why).expected("this key only for a router that begins as backup").help(help);
        } else if key == "preempt_delay" && preempt.is_some() {
            out.error(at, entry.key(key), "there is nothing to delay with `preempt = false`")
                .expected("one of the two keys")
                .help("remove one");
        }
    }
}

/// What only the engine can do.
fn kernel_only(entry: &Entry, basis: Basis, out: &mut Collector<'_>) {
    if basis.place != Some(Place::Kernel) {
        return;
    }
    if let Some(mac) = entry.boolean("virtual_mac").filter(|mac| mac.value) {
        out.error(mac.at, entry.key("virtual_mac"), "the kernel has the addresses, behind its interface's own MAC")
            .expected("this key only with `place = \"engine\"`")
            .help("remove the key, or `place`");
    }
    if let Some(accept) = entry.boolean("accept").filter(|accept| !accept.value) {
        out.error(accept.at, entry.key("accept"), "the kernel has the addresses, and answers for them")
            .expected("this key only with `place = \"engine\"`")
            .help("remove the key, and filter in the kernel what shall not be answered");
    }
}
