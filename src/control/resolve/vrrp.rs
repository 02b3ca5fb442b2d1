//! All of VRRP in a file: its settings, what virtual routers have in common with each other, with services and the engine.
//!
//! Owns what one router must not share with another, and the groups. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use super::router::{self, router};
use super::track::{self, Known, taken};
use super::{of_servers, of_services};
use crate::control::config::problem::Collector;
use crate::control::config::raw::{At, Entry};
use crate::model::{Interface, Method, Place, Service, SyncGroup, Track, Tracked, VirtualRouter, Vrrp, VrrpSettings};

/// Shortest interval that a thread without real-time priority keeps on a busy machine, in milliseconds.
const SHORT_MS: u128 = 50;

/// All of VRRP. `services`: the sound ones.
pub(super) fn vrrp(
    file: &Entry,
    interfaces: &[Interface],
    services: &[Service],
    out: &mut Collector<'_>,
) -> Option<Vrrp> {
    let settings = file.tables("vrrp").first().and_then(settings);
    let mut known = Known::new(file, services.iter().map(|service| service.name.clone()));
    let routers = routers(file, interfaces, &mut known, out);
    let groups = groups(file, &routers, &mut known, out);
    known.unused(file, out);
    beside_services(file, &routers, services, out);
    apart(&routers, &groups, services, out);
    let settings = settings?;
    for (router, entry) in &routers {
        if settings.realtime == 0
            && router.interval.as_millis() < SHORT_MS
            && let Some(interval) = entry.seconds("interval")
        {
            out.warning(
                interval.at,
                entry.key("interval"),
                "on a busy machine adverts this close together come too late",
            )
            .help("write a `vrrp.realtime` above 0, or a longer interval");
        }
        if settings.stall.is_zero()
            && let Some(track) = entry.boolean("track_engine").filter(|track| track.value)
        {
            out.warning(track.at, entry.key("track_engine"), "with `vrrp.stall = 0` no worker counts as stalled")
                .help("remove the key, or write a `vrrp.stall` above 0");
        }
    }
    Some(Vrrp {
        settings,
        routers: routers.into_iter().map(|(router, _)| router).collect(),
        groups,
        scripts: track::scripts(file, out),
        files: track::files(file, out),
        processes: track::processes(file, out),
    })
}

fn settings(entry: &Entry) -> Option<VrrpSettings> {
    Some(VrrpSettings {
        fifo: entry.text("fifo").map(|path| path.value.into()),
        realtime: u8::try_from(entry.integer("realtime")?.value).ok()?,
        stall: entry.seconds("stall")?.value,
        handover: entry.seconds("handover")?.value,
        notify_user: entry.text("notify_user").map(|user| user.value),
    })
}

/// Whether a file has a virtual router in the engine. One whose place was refused counts as none.
pub(super) fn in_the_engine(file: &Entry) -> bool {
    file.tables("virtual_router").iter().any(|entry| router::place(entry) == Some(Place::Engine))
}

/// Every address of a virtual router, with its line.
pub(super) fn of_routers(file: &Entry, out: &Collector<'_>) -> HashMap<IpAddr, usize> {
    let lists = |entry| ["address", "excluded"].into_iter().flat_map(move |list| Entry::tables(entry, list));
    let all = file.tables("virtual_router").iter().flat_map(lists);
    all.filter_map(|item| item.host("address")).map(|host| (host.value.0, out.line(host.at))).collect()
}

fn routers<'f>(
    file: &'f Entry,
    interfaces: &[Interface],
    known: &mut Known,
    out: &mut Collector<'_>,
) -> Vec<(VirtualRouter, &'f Entry)> {
    let mut found = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut numbers: HashMap<(String, u32, bool), usize> = HashMap::new();
    let mut addresses: HashMap<IpAddr, (usize, usize)> = HashMap::new();
    let servers = of_servers(file, out);
    for (index, entry) in file.tables("virtual_router").iter().enumerate() {
        if let Some(name) = entry.text("name")
            && let Some(line) = names.insert(name.value.clone(), out.line(name.at))
        {
            taken(entry, name.at, &name.value, "virtual router", line, out);
        }
        let (interface, vrid, v6) = (entry.text("interface"), entry.integer("vrid"), router::family(entry));
        if let (Some(interface), Some(vrid), Some(v6)) = (&interface, vrid, v6)
            && let Some(line) = numbers.insert((interface.value.clone(), vrid.value, v6), out.line(vrid.at))
        {
            let text =
                format!("the number {} is taken on `{}`, by the router on line {line}", vrid.value, interface.value);
            out.error(vrid.at, entry.key("vrid"), text)
                .expected("a number that no other router of the segment has")
                .help("choose another, the same on all appliances of this router");
        }
        own_addresses((entry, index), &servers, &mut addresses, out);
        if router::place(entry) == Some(Place::Engine) {
            of_the_engine(entry, interfaces, out);
        } else if let Some(track) = entry.boolean("track_engine").filter(|track| track.value && interfaces.is_empty()) {
            no_engine(entry, track.at, out);
        }
        found.extend(router(entry, known, out).map(|router| (router, entry)));
    }
    found
}

fn no_engine(entry: &Entry, at: usize, out: &mut Collector<'_>) {
    out.error(at, entry.key("track_engine"), "without `[[interface]]` there is no engine to track")
        .expected("`false`")
        .help("remove the key, or add `[[interface]]`");
}

/// That nobody else in the file has the addresses of a router. `taken`: those of the routers before it, with
/// line and index.
fn own_addresses(
    (entry, index): (&Entry, usize),
    servers: &HashMap<IpAddr, usize>,
    taken: &mut HashMap<IpAddr, (usize, usize)>,
    out: &mut Collector<'_>,
) {
    for item in ["address", "excluded"].into_iter().flat_map(|list| entry.tables(list)) {
        let Some(host) = item.host("address") else { continue };
        let address = host.value.0;
        let (key, line) = (item.key("address"), out.line(host.at));
        if let Some((line, owner)) = taken.get(&address) {
            let whose = if *owner == index { "this router has it" } else { "another virtual router has it" };
            out.error(host.at, key, format!("{address} is there twice: {whose} on line {line}"))
                .expected("each address once over all virtual routers")
                .help("remove one of them");
        } else if let Some(line) = servers.get(&address)
            && router::place(entry) == Some(Place::Engine)
        {
            out.error(host.at, key, format!("{address} is the address of the server on line {line}"))
                .expected("an address that no server has as its own")
                .help("correct one of them");
        }
        taken.entry(address).or_insert((line, index));
    }
}

/// That the engine has the interface of a router.
fn of_the_engine(entry: &Entry, interfaces: &[Interface], out: &mut Collector<'_>) {
    let Some(interface) = entry.text("interface") else { return };
    let known = |name: &str| interfaces.iter().any(|known| known.name == name);
    let parent = interface.value.split_once('.').map(|(parent, _)| parent);
    // Without any, or with one that cannot be, that alone is said.
    let said = interfaces.is_empty() || interface.value == "lo";
    if said || known(&interface.value) || parent.is_some_and(known) {
        return;
    }
    let names = interfaces.iter().map(|interface| interface.name.as_str());
    let listed: Vec<&str> = names.clone().collect();
    out.error(interface.at, entry.key("interface"), format!("`{}` is not an interface of the engine", interface.value))
        .expected(format!("one of {}, or a VLAN on one, such as `{}.100`", listed.join(", "), listed[0]))
        .help(format!(
            "add it as `[[interface]]` with `name = \"{}\"`, or write `place = \"kernel\"` for programs on this machine",
            interface.value
        ))
        .suggest(&interface.value, names);
}

/// What services and virtual routers mean for each other.
fn beside_services(file: &Entry, routers: &[(VirtualRouter, &Entry)], services: &[Service], out: &mut Collector<'_>) {
    let of_services = of_services(file, "address", out);
    let routers_have = of_routers(file, out);
    let translated = services
        .iter()
        .any(|service| service.method.is_nat() || service.servers.iter().any(|server| server.method.is_nat()));
    // What was refused may be what is missed here.
    let whole = services.len() == file.tables("service").len();
    for (router, entry) in routers {
        let served = |address: &IpAddr| of_services.contains_key(address);
        if router.place == Place::Kernel {
            for item in ["address", "excluded"].into_iter().flat_map(|list| entry.tables(list)) {
                let Some(host) = item.host("address") else { continue };
                if let Some(line) = of_services.get(&host.value.0) {
                    let text =
                        format!("the service on line {line} has this address, and so has the kernel of a master");
                    out.warning(host.at, item.key("address"), text).help(
                        "the engine takes the ports of its services, and programs get the others; for services alone remove \
                         `place`",
                    );
                }
            }
        } else if whole && !translated && !router.all_addresses().any(|known| served(&known.address)) {
            out.warning(entry.at, entry.key("address"), "no service has an address of this router")
                .help("clients get echo answers only; for programs on this machine write `place = \"kernel\"`");
        }
    }
    if !routers.iter().any(|(router, _)| router.place == Place::Engine) {
        return;
    }
    let table = |table| file.tables(table).iter().map(move |entry| (table, entry));
    for (table, entry) in table("service").chain(table("address")) {
        let unowned = |address: &At<IpAddr>| !routers_have.contains_key(&address.value);
        let Some(address) = entry.address("address").filter(unowned) else { continue };
        let text = format!("no virtual router has {}: every appliance with this entry answers for it", address.value);
        out.warning(address.at, entry.key("address"), text).help(match table {
            "service" => "write the address in a `[[virtual_router]]`, unless this appliance alone has it",
            _ => "write the address in a `[[virtual_router]]` in the place of this, unless this appliance alone has it",
        });
    }
}

/// NAT between two routers that can be master on different appliances: one has the service, the other one, without any, is
/// taken to be the servers' gateway.
fn apart(routers: &[(VirtualRouter, &Entry)], groups: &[SyncGroup], services: &[Service], out: &mut Collector<'_>) {
    let in_engine = || routers.iter().filter(|(router, _)| router.place == Place::Engine);
    let has = |router: &VirtualRouter, service: &Service| {
        router.all_addresses().any(|known| known.address == service.key.address)
    };
    let is_nat = |service: &Service| {
        let mut methods = service.servers.iter().map(|server| server.method);
        // By full NAT servers answer to an address of the one appliance that asked.
        methods.any(|method| method == Method::Nat)
    };
    for (gateway, entry) in in_engine().filter(|(router, _)| !services.iter().any(|service| has(router, service))) {
        let together = |other: &VirtualRouter| {
            groups.iter().any(|group| [gateway, other].iter().all(|router| group.routers.contains(&router.name)))
        };
        let apart = services.iter().filter(|service| is_nat(service)).find_map(|service| {
            Some((service, in_engine().find(|(router, _)| has(router, service) && !together(router))?))
        });
        if let Some((service, (router, _))) = apart {
            let text = format!("no group keeps this router and `{}` together", router.name);
            out.warning(entry.at, entry.key("name"), text).help(format!(
                "if it is the gateway of the servers of `{}`, their answers must reach the appliance that has both: write a \
                 `[[sync_group]]` of the two",
                service.name
            ));
        }
    }
}

fn groups(
    file: &Entry,
    routers: &[(VirtualRouter, &Entry)],
    known: &mut Known,
    out: &mut Collector<'_>,
) -> Vec<SyncGroup> {
    let mut found = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut members: HashMap<String, usize> = HashMap::new();
    let all: Vec<String> =
        file.tables("virtual_router").iter().filter_map(|entry| entry.text("name")).map(|name| name.value).collect();
    let whole = all.len() == file.tables("virtual_router").len();
    for entry in file.tables("sync_group") {
        let name = entry.text("name");
        if let Some(name) = &name
            && let Some(line) = names.insert(name.value.clone(), out.line(name.at))
        {
            taken(entry, name.at, &name.value, "group", line, out);
        }
        let listed = entry.paths("routers");
        for (index, (router, at)) in listed.iter().flat_map(|listed| &listed.value).enumerate() {
            let key = format!("{}[{index}]", entry.key("routers"));
            if let Some(line) = members.insert(router.clone(), out.line(*at)) {
                out.error(*at, key, format!("`{router}` is in a group already, on line {line}"))
                    .expected("each router in one group, once")
                    .help("remove one of them, or make one group of both");
            } else if whole && !all.contains(router) {
                let problem = out.error(*at, key, format!("there is no `[[virtual_router]]` named `{router}`"));
                problem.expected(format!("the name of one: {}", all.join(", ")));
                problem.help("correct the name, or add the router").suggest(router, all.iter().map(String::as_str));
            }
        }
        if let Some(listed) = &listed
            && listed.value.len() < 2
        {
            let text = format!("a group of {} has nothing to keep together", listed.value.len());
            out.error(listed.at, entry.key("routers"), text)
                .expected("the names of two or more virtual routers")
                .help("add the others, or remove the group");
        }
        if let Some(track) = entry.boolean("track_engine").filter(|track| track.value)
            && file.tables("interface").is_empty()
        {
            no_engine(entry, track.at, out);
        }
        let mut tracks = track::tracks(entry, None, known, out);
        if let Some(listed) = &listed {
            let of_group = |name: &str| listed.value.iter().any(|(member, _)| member == name);
            owners(entry, routers.iter().filter(|(router, _)| of_group(&router.name)), &tracks, listed.at, out);
        }
        let engine = entry.boolean("track_engine").is_some_and(|track| track.value);
        tracks.extend(engine.then_some(Track { what: Tracked::Engine, weight: 0 }));
        let (Some(name), Some(listed)) = (name, listed) else { continue };
        found.push(SyncGroup {
            name: name.value,
            routers: listed.value.into_iter().map(|(router, _)| router).collect(),
            tracks,
            notify: router::notify(entry),
        });
    }
    found
}

/// What owners and weights do in a group.
fn owners<'r>(
    entry: &Entry,
    members: impl Iterator<Item = &'r (VirtualRouter, &'r Entry)> + Clone,
    tracks: &[Track],
    at: usize,
    out: &mut Collector<'_>,
) {
    let owner = |(router, _): &&(VirtualRouter, &Entry)| router.priority == 255;
    let owned = members.clone().filter(owner).count();
    if owned > 0 && owned < members.clone().count() {
        out.warning(at, entry.key("routers"), "some routers of the group have priority 255, and others have not")
            .help("the two kinds do not change together: give all of them 255, or none");
    }
    if owned > 0
        && let Some((item, what)) = track::weighted(entry, tracks)
    {
        let text = format!("the weight of {what} does nothing for routers with priority 255");
        out.warning(item.at, item.key("weight"), text).help("remove the weight to have a fault in its place");
    }
    for (router, entry) in members.filter(|member| !owner(member)) {
        if let Some((item, what)) = track::weighted(entry, &router.tracks) {
            let text = format!("the weight of {what} changes the priority of this router, and not of its group");
            out.warning(item.at, item.key("weight"), text)
                .help("track it in the `[[sync_group]]`, as keepalived asks, too");
        }
    }
}
