//! The kernel's network settings and addresses, what runs beside the engine, and who speaks VRRP.
//!
//! Owns what would quarrel with the engine. Never looks at the machine. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::{Facts, Heard};
use super::super::finding::{Finding, Group, Level};
use crate::model::{Desired, IoMode, Method, Place, Service, VirtualRouter, VrrpVersion};

/// Settings, addresses, programs.
pub fn network(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    all.extend(addresses(facts));
    all.extend(reverse_path(facts));
    all.extend(forwarding(facts));
    all.extend(redirects(facts));
    all.extend(local_ports(facts));
    all.extend(beside(facts));
    all
}

/// Addresses that the engine must have alone.
fn alone(desired: &Desired) -> BTreeSet<IpAddr> {
    let in_kernel =
        |address: &IpAddr| desired.vrrp.router_of(*address).is_some_and(|(_, router)| router.place == Place::Kernel);
    let services = desired.services.iter().map(|service| service.key.address);
    let routers = desired.vrrp.routers.iter().filter(|router| router.place == Place::Engine);
    let routers = routers.flat_map(|router| router.all_addresses().map(|known| known.address));
    let all = services.chain(routers).chain(desired.addresses.iter().copied());
    all.filter(|address| !in_kernel(address)).collect()
}

fn addresses(facts: &Facts) -> Vec<Finding> {
    let group = Group::Network;
    let Some(desired) = &facts.desired else { return Vec::new() };
    let own = |address: IpAddr| facts.addresses.iter().any(|(_, known, _)| *known == address);
    // A server that is this machine needs the address of its services on `lo`.
    let local = |address: IpAddr| {
        let of_it = desired.services.iter().filter(|service| service.key.address == address);
        of_it.flat_map(Service::all_servers).any(|server| own(server.address))
    };
    let wanted = alone(desired);
    let mut all = Vec::new();
    for (interface, address, prefix) in &facts.addresses {
        if !wanted.contains(address) || interface == "lo" && local(*address) {
            continue;
        }
        let why = "the kernel answers ARP for it whoever is master, and takes packets for it that the engine does not";
        let found = format!("the kernel has it on {interface}");
        let finding = Finding::new(Level::Problem, "address-in-kernel", group, address.to_string(), found, why);
        all.push(finding.mend(format!("ip address del {address}/{prefix} dev {interface}")));
    }
    if all.is_empty() {
        let found = format!("the kernel has none of the {} that the engine answers for", wanted.len());
        all.push(Finding::fine("address-in-kernel", group, "addresses", found));
    }
    all
}

fn reverse_path(facts: &Facts) -> Vec<Finding> {
    let Some(desired) = &facts.desired else { return Vec::new() };
    let checks = desired.services.iter().flat_map(Service::all_servers).flat_map(|server| &server.health.checks);
    let by_service = checks.into_iter().any(|check| check.target.through.is_some());
    let nat = desired.services.iter().flat_map(Service::all_servers).any(|server| server.method == Method::Nat);
    let why = if by_service {
        "answers to checks with `path = \"service\"` come from the service address, and are dropped where the kernel would send \
         to that by another interface"
    } else if nat {
        "what NAT servers send of their own accord, and answers to checks, are dropped where the kernel's own way back is another"
    } else {
        "the engine's packets do not meet it, but answers to checks do, where the kernel's own way back is another interface"
    };
    let strict: Vec<&str> = facts
        .interfaces
        .iter()
        .filter(|interface| interface.rp_filter == Some(1))
        .map(|interface| interface.name.as_str())
        .collect();
    if strict.is_empty() {
        let seen = facts.interfaces.iter().any(|interface| interface.rp_filter.is_some());
        let fine = || Finding::fine("rp-filter", Group::Network, "reverse path filter", "is off or loose");
        return seen.then(fine).into_iter().collect();
    }
    let one = |name: &str| {
        let finding = Finding::new(
            Level::Warning,
            "rp-filter",
            Group::Network,
            name,
            "its reverse path filter is strict (1)",
            why,
        );
        finding.mend(format!("sysctl -w {}=0 {}=2", setting("all", "rp_filter"), setting(name, "rp_filter")))
    };
    strict.into_iter().map(one).collect()
}

/// An interface's setting for IPv4, as `sysctl` names it: dots in an interface's name are its own.
fn setting(interface: &str, key: &str) -> String {
    if interface.contains('.') {
        format!("net/ipv4/conf/{interface}/{key}")
    } else {
        format!("net.ipv4.conf.{interface}.{key}")
    }
}

/// Whether there are servers by NAT of IPv4, or of IPv6.
fn has_nat(desired: &Desired, v4: bool) -> bool {
    let mut servers = desired.services.iter().flat_map(Service::all_servers);
    servers.any(|server| server.method == Method::Nat && server.address.is_ipv4() == v4)
}

/// With one arm, the kernel tells a server whose own packets it sends back to the same wire of a shorter way to that client (ICMP
/// redirect, RFC 792, RFC 4861 section 8): from then on the server's answers to it go past the engine.
fn redirects(facts: &Facts) -> Vec<Finding> {
    let Some(desired) = &facts.desired else { return Vec::new() };
    let [only] = &desired.interfaces[..] else { return Vec::new() };
    let (name, group) = (only.name.as_str(), Group::Network);
    let why = "a NAT server whose router is this kernel is told of a way past it when it sends something of its own to a client; from \
               then on its answers to that client go there, and the client's connections hang";
    let mut all = Vec::new();
    if has_nat(desired, true) && facts.network.forward_v4 == Some(true) {
        match facts.interface(name).and_then(|interface| interface.send_redirects) {
            Some(true) => {
                let finding =
                    Finding::new(Level::Warning, "redirects", group, name, "the kernel sends ICMP redirects", why);
                let keys = [setting("all", "send_redirects"), setting(name, "send_redirects")];
                all.push(finding.mend(format!("sysctl -w {}=0 {}=0", keys[0], keys[1])));
            }
            Some(false) => all.push(Finding::fine("redirects", group, name, "the kernel sends no ICMP redirects")),
            None => {}
        }
    }
    if has_nat(desired, false) && facts.network.forward_v6 == Some(true) {
        let found = "the kernel sends ICMPv6 redirects; no setting stops that";
        let finding = Finding::new(Level::Note, "redirects-v6", group, name, found, why);
        all.push(
            finding.mend("on each server, with its interface's name: sysctl -w net.ipv6.conf.eth0.accept_redirects=0"),
        );
    }
    all
}

fn forwarding(facts: &Facts) -> Vec<Finding> {
    let Some(desired) = &facts.desired else { return Vec::new() };
    let only_packet = desired.engine.modes == [IoMode::AfPacket];
    let mut all = Vec::new();
    for (v4, key, on) in [
        (true, "net.ipv4.ip_forward", facts.network.forward_v4),
        (false, "net.ipv6.conf.all.forwarding", facts.network.forward_v6),
    ] {
        if !has_nat(desired, v4) {
            continue;
        }
        let say = |level, found: &str, why| Finding::new(level, "forwarding", Group::Network, key, found, why);
        all.push(match on {
            Some(true) if only_packet => {
                let why = "in AF_PACKET mode the kernel would forward the servers' answers untranslated: the engine refuses to start";
                say(Level::Problem, "is 1", why).mend(format!("sysctl -w {key}=0"))
            }
            Some(false) if !only_packet => {
                let why = "of what servers by NAT send through the appliance, only their answers to clients go on";
                say(Level::Note, "is 0", why).mend(format!("sysctl -w {key}=1"))
            }
            _ => Finding::fine("forwarding", Group::Network, key, "fits the servers by NAT"),
        });
    }
    all
}

fn local_ports(facts: &Facts) -> Option<Finding> {
    let desired = facts.desired.as_ref()?;
    let (first, last) = facts.network.ports?;
    let mut locals = desired.services.iter().flat_map(|service| &service.local_addresses);
    let shared = locals.find(|local| facts.addresses.iter().any(|(_, known, _)| known == *local))?;
    let ours = desired.engine.local_ports;
    if ours.last < first || last < ours.first {
        return Some(Finding::fine(
            "local-ports",
            Group::Network,
            shared.to_string(),
            "the kernel uses other ports of it",
        ));
    }
    let found = format!("the kernel has it, too, and uses ports {first}-{last} of it; the engine uses {ours}");
    let why = "answers to the kernel's own connections (checks, packages, ssh) are taken for clients' and get lost";
    let finding = Finding::new(Level::Warning, "local-ports", Group::Network, shared.to_string(), found, why);
    Some(finding.mend("write `local_ports = \"10000-65535\"` below [engine], then sysctl -w net.ipv4.ip_local_port_range=\"2048 9999\""))
}

fn beside(facts: &Facts) -> Vec<Finding> {
    let (network, group) = (&facts.network, Group::Network);
    let mut all = Vec::new();
    match network.ipvs {
        Some(0) => {
            let why = "without services it does nothing; keepalived loads it";
            let finding = Finding::new(Level::Note, "ipvs", group, "IPVS", "the kernel's is loaded, and empty", why);
            all.push(finding.mend("modprobe -r ip_vs"));
        }
        Some(services) => {
            let found = format!("the kernel's has {services} services");
            let why = "where both have a service the engine gets its packets first; checks and the kernel's own packets meet IPVS";
            all.push(Finding::new(Level::Problem, "ipvs", group, "IPVS", found, why).mend("ipvsadm -C"));
        }
        None => all.push(Finding::fine("ipvs", group, "IPVS", "the kernel's is not loaded")),
    }
    let routers = facts.desired.as_ref().map_or(0, |desired| desired.vrrp.routers.len());
    if let Some(process) = network.keepalived.first() {
        let level = if routers > 0 { Level::Problem } else { Level::Warning };
        let why = "two speakers of VRRP on one machine are masters of the same addresses at the same time";
        let finding =
            Finding::new(level, "keepalived", group, "keepalived", format!("runs here (process {process})"), why);
        all.push(finding.mend("systemctl disable --now keepalived"));
    }
    if let Some(chains) = network.dropping_chains.as_ref().filter(|chains| !chains.is_empty()) {
        let found = format!("drops what it does not know of ({})", chains.join(", "));
        let why =
            "the engine's packets and multicast VRRP do not meet it; adverts to single peers, and checks' answers, do";
        let finding = Finding::new(Level::Note, "firewall", group, "nftables", found, why);
        all.push(finding.mend("nft list ruleset    # ct state established, and ip protocol vrrp, must be accepted"));
    }
    if let Some((entries, most)) = network.conntrack
        && most > 0
        && entries > most / 10 * 8
    {
        let found = format!("{entries} of {most} entries are taken");
        let why = "when it is full the kernel drops what is its own: checks, ssh; the engine's flows are not in it";
        let finding = Finding::new(Level::Warning, "conntrack", group, "connection tracking", found, why);
        all.push(finding.mend(format!("sysctl -w net.netfilter.nf_conntrack_max={}", most * 2)));
    }
    all
}

/// VRRP: what the routers need of their interfaces, and who else speaks.
pub fn vrrp(facts: &Facts) -> Vec<Finding> {
    let group = Group::Vrrp;
    let Some(desired) = &facts.desired else { return Vec::new() };
    let mut all = Vec::new();
    for router in &desired.vrrp.routers {
        if let Some(interface) = facts.interface(&router.interface)
            && router.unicast.is_none()
            && !interface.multicast
        {
            let why = "adverts go to a group: nobody hears them, and every appliance is master";
            let finding =
                Finding::new(Level::Problem, "multicast", group, &interface.name, "takes part in no multicast", why);
            all.push(finding.mend(format!("ip link set {} multicast on", interface.name)));
        }
    }
    let Some(heard) = facts.heard.as_ref().filter(|_| !desired.vrrp.routers.is_empty()) else {
        if !desired.vrrp.routers.is_empty() {
            let why =
                "who else speaks VRRP on the segments is not known: a number that is taken is seen only by listening";
            let finding = Finding::new(Level::Note, "listen", group, "adverts", "nobody listened for them", why);
            let file = facts.file.as_deref().unwrap_or("FILE");
            all.push(finding.mend(format!("evenkeel doctor --config {file} --listen 5")));
        }
        return all;
    };
    for router in &desired.vrrp.routers {
        let same = |one: &&Heard| {
            one.interface == router.interface && one.vrid == router.vrid && one.source.is_ipv4() != router.is_v6()
        };
        let others: Vec<&Heard> = heard.iter().filter(same).collect();
        if others.is_empty() {
            let found = format!("nobody else speaks for number {} on {}", router.vrid, router.interface);
            all.push(Finding::fine("vrid", group, &router.name, found));
        }
        all.extend(others.into_iter().map(|other| meets(router, other, heard)));
    }
    all
}

/// What it means that somebody speaks for a router's number.
fn meets(router: &VirtualRouter, other: &Heard, heard: &[Heard]) -> Finding {
    let (group, name) = (Group::Vrrp, &router.name);
    let ours: BTreeSet<IpAddr> = router.addresses.iter().map(|known| known.address).collect();
    let theirs: BTreeSet<IpAddr> = other.addresses.iter().copied().collect();
    let list = |all: &BTreeSet<IpAddr>| all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    if ours.is_disjoint(&theirs) && !theirs.is_empty() {
        let taken: BTreeSet<u8> =
            heard.iter().filter(|one| one.interface == other.interface).map(|one| one.vrid).collect();
        let free = (1..=255).find(|vrid| !taken.contains(vrid) && *vrid != router.vrid).unwrap_or(router.vrid);
        let found = format!(
            "{} is master of number {} on {}, with other addresses: {}",
            other.source,
            other.vrid,
            other.interface,
            list(&theirs)
        );
        let why = "two groups of routers with one number take each other for one: the weaker one is never master";
        let finding = Finding::new(Level::Problem, "vrid-taken", group, name, found, why);
        return finding.mend(format!("write `vrid = {free}` for {name}, on every appliance of it"));
    }
    let (version, interval) =
        (if router.version == VrrpVersion::V2 { 2 } else { 3 }, router.interval.as_millis() as u64);
    let mut differs = Vec::new();
    if version != other.version {
        differs.push(format!("version {} (here {version})", other.version));
    }
    if interval != other.interval_ms {
        differs.push(format!("an interval of {} ms (here {interval})", other.interval_ms));
    }
    if ours != theirs {
        differs.push(format!("the addresses {} (here {})", list(&theirs), list(&ours)));
    }
    if !differs.is_empty() {
        let found = format!("{} is master, with {}", other.source, differs.join(" and "));
        let level =
            if version == other.version && interval == other.interval_ms { Level::Warning } else { Level::Problem };
        let why =
            "appliances of one router must be told the same, or each drops the other's adverts and both are master";
        let finding = Finding::new(level, "vrrp-differs", group, name, found, why);
        return finding.mend(format!("make `version`, `interval` and `address` of {name} the same on both"));
    }
    let found = format!("{} is master of the same addresses, with priority {}", other.source, other.priority);
    if other.priority == router.priority {
        let why = "with equal priorities the one with the higher address wins a tie: rarely what is meant";
        let finding = Finding::new(Level::Warning, "vrrp-priority", group, name, found, why);
        return finding.mend(format!("write another `priority` than {} for {name}", router.priority));
    }
    let (why, command) = if other.priority > router.priority {
        ("this one will be its backup", None)
    } else if router.preempt {
        ("this one takes over from it as soon as it runs", Some("write `preempt = false` if it must not".to_owned()))
    } else {
        ("this one waits for it to go", None)
    };
    Finding { command, ..Finding::new(Level::Note, "vrrp-peer", group, name, found, why) }
}
