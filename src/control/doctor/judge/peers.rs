//! Real servers and VRRP peers: whether they are there, and how large packets to them may be.
//!
//! Owns what an absent one means. Never asks anybody. Pure.

use super::super::facts::{Facts, Way};
use super::super::finding::{Finding, Group, Level};

/// All of them.
pub fn peers(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    for way in &facts.ways {
        all.push(reach(way));
        all.extend(size(facts, way));
    }
    for way in &facts.peers {
        all.push(match &way.reach {
            Ok(by) => Finding::fine("peer", Group::Peers, way.to.to_string(), format!("peer of {}: {by}", way.of)),
            Err((_, why_not)) => {
                let why = "adverts do not arrive there: as long as it is so, both are master";
                let found = format!("peer of {}: {why_not}", way.of);
                Finding::new(Level::Warning, "peer", Group::Peers, way.to.to_string(), found, why)
                    .mend(format!("ip route get {0}; ping -c 3 {0}", way.to))
            }
        });
    }
    if let Some(desired) = &facts.desired {
        for service in desired.services.iter().filter(|service| !service.servers.is_empty()) {
            let lost = |address| facts.ways.iter().any(|way| way.to == address && way.reach.is_err());
            if service.servers.len() > 1 && service.servers.iter().all(|server| lost(server.address)) {
                let (found, why) = ("none of its servers can be reached", "every client is refused");
                let name = format!("service {}", service.name);
                all.push(Finding::new(Level::Problem, "service-unreachable", Group::Peers, name, found, why));
            }
        }
    }
    all
}

fn reach(way: &Way) -> Finding {
    let (group, subject) = (Group::Peers, way.to.to_string());
    let (word, why_not) = match &way.reach {
        Ok(by) => return Finding::fine("server", group, subject, format!("server of {}: {by}", way.of)),
        Err(reason) => reason,
    };
    let found = format!("server of {}: {why_not}", way.of);
    let say = |level, why: &str| Finding::new(level, "server-unreachable", group, &subject, &found, why);
    let bits = if way.to.is_ipv4() { 24 } else { 64 };
    match *word {
        "local" => {
            let why = "its packets are left to the kernel, which must have the service address";
            Finding { id: "server-local", ..say(Level::Note, why) }
        }
        "no-route" => say(Level::Problem, "the engine sends nothing to it")
            .mend(format!("ip address add OWN-ADDRESS/{bits} dev INTERFACE, or ip route add {} via ROUTER", way.to)),
        "not-on-link" => {
            say(Level::Problem, "direct routing changes Ethernet addresses only: a router would send it elsewhere")
                .mend("write another `method` for it, such as \"ipip\", or put it into a network of this machine")
        }
        "wrong-interface" => say(Level::Problem, "the engine does not send by that interface")
            .mend("add that interface as an `[[interface]]`, or route the server by another"),
        "link-down" => say(Level::Problem, "the engine sends nothing to it").mend("ip link set INTERFACE up"),
        "no-source" => {
            say(Level::Problem, "outer packets have no sender").mend("write `tunnel_source` for the service")
        }
        _ => say(Level::Warning, "it gets no clients until it answers; its checks say the same")
            .mend(format!("on it: ip -brief address; ip link; from here: ping -c 3 {}", way.to)),
    }
}

fn size(facts: &Facts, way: &Way) -> Vec<Finding> {
    let (group, subject) = (Group::Peers, way.to.to_string());
    let mut all = Vec::new();
    match way.full_size {
        Some((bytes, false)) => {
            let found = format!("packets of {bytes} bytes do not come back, small ones do");
            let why = "clients' full packets are lost on the way: an MTU is smaller than this machine's";
            let finding = Finding::new(Level::Warning, "path-mtu", group, &subject, found, why);
            all.push(
                finding.mend(format!(
                    "tracepath {} , then the same `ip link set INTERFACE mtu {bytes}` on the way",
                    way.to
                )),
            );
        }
        Some((bytes, true)) => {
            all.push(Finding::fine("path-mtu", group, &subject, format!("packets of {bytes} bytes arrive")));
        }
        None if way.reach.is_ok() => {
            let why = "it does not answer ping, so how large packets may be is not known";
            all.push(Finding::new(Level::Note, "path-mtu", group, &subject, "it does not answer ping", why));
        }
        None => {}
    }
    let widest = facts.interfaces.iter().map(|interface| interface.mtu).max().unwrap_or(1500);
    if let (Some(overhead), Some((interface, mtu))) = (way.tunnel, &way.leaves)
        && widest + overhead > *mtu
    {
        let found = format!(
            "by {interface} packets of {mtu} bytes fit, and a client's with its outer headers have {}",
            widest + overhead
        );
        let why = "full packets go in fragments, or their senders are told by ICMP and must heed it";
        let finding = Finding::new(Level::Warning, "tunnel-mtu", group, &subject, found, why);
        let advmss = mtu.saturating_sub(overhead + if way.to.is_ipv4() { 40 } else { 60 });
        all.push(finding.mend(format!(
            "ip link set {interface} mtu {}, with the switches; or on the server: ip route change default via ROUTER advmss {advmss}",
            widest + overhead
        )));
    }
    all
}
