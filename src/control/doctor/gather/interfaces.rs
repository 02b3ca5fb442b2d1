//! The interfaces, by netlink, ethtool and the kernel's files.
//!
//! Owns asking. Never judges. Files below `/sys` show the network namespace in which it was mounted: they count only where
//! they speak of the same interface.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached};

use super::super::facts::{Facts, Interface};
use super::machine::core_list;
use super::{number, text};
use crate::control::netlink::{Link, Netlink};
use crate::dataplane::io::facts::InterfaceFacts;

/// Looks at the interfaces of these names.
pub fn look(facts: &mut Facts, wanted: &[String]) {
    let Ok(mut netlink) = Netlink::open() else { return };
    let links = netlink.links().unwrap_or_default();
    let messages = netlink.link_messages().unwrap_or_default();
    let names: BTreeMap<u32, &str> = links.iter().map(|link| (link.index, link.name.as_str())).collect();
    facts.all_interfaces = links.iter().map(|link| link.name.clone()).collect();
    for address in netlink.addresses().unwrap_or_default() {
        let name = names.get(&address.link).copied().unwrap_or("?");
        facts.addresses.push((name.to_owned(), address.address, address.prefix));
    }
    let interrupts = text("/proc/interrupts").unwrap_or_default();
    for name in wanted {
        let (Some(link), Ok(found)) = (links.iter().find(|link| link.name == *name), InterfaceFacts::of(name)) else {
            facts.missing_interfaces.push(name.clone());
            continue;
        };
        let message = messages.iter().find(|message| message.header.index == link.index);
        facts.interfaces.push(interface(&found, link, message, &links, &interrupts));
    }
}

fn interface(
    found: &InterfaceFacts,
    link: &Link,
    message: Option<&LinkMessage>,
    links: &[Link],
    interrupts: &str,
) -> Interface {
    let name = &found.name;
    let flags = message.map(|message| message.header.flags).unwrap_or(LinkFlags::empty());
    let files = PathBuf::from(format!("/sys/class/net/{name}"));
    let mac = text(files.join("address")).filter(|mac| *mac == found.mac.to_string());
    let same = mac.is_some() && number(files.join("ifindex")) == Some(found.ifindex);
    let setting = |of: &str, key: &str| number::<u8>(format!("/proc/sys/net/ipv4/conf/{of}/{key}"));
    let most = |key: &str| setting(name, key).map(|own| own.max(setting("all", key).unwrap_or(0)));
    let named = |index: u32| links.iter().find(|other| other.index == index);
    let peer = link.parent.filter(|_| found.driver == "veth").and_then(named);
    let lines = if same { of_interface(interrupts, name) } else { Vec::new() };
    Interface {
        name: name.clone(),
        driver: found.driver.clone(),
        ethernet: found.ethernet,
        mtu: found.mtu,
        up: found.up,
        running: found.running,
        multicast: flags.contains(LinkFlags::Multicast),
        promiscuous: flags.contains(LinkFlags::Promisc),
        rx_queues: found.rx_queues,
        offloads: found.offloads,
        xdp: message.and_then(xdp),
        master: message.and_then(master).and_then(named).map(|master| master.name.clone()),
        vlans: links.iter().filter(|one| one.parent == Some(link.index)).filter_map(|one| one.vlan).collect(),
        veth_peer: peer.and_then(|peer| {
            let offloads = InterfaceFacts::of(&peer.name).ok()?.offloads;
            Some((peer.name.clone(), offloads.tx_checksum?))
        }),
        speed: number(files.join("speed")).filter(|_| same).filter(|speed| *speed > 0 && *speed < u32::MAX),
        node: number(files.join("device/numa_node")).filter(|_| same),
        interrupts: lines.into_iter().filter_map(|line| Some((line, targets(line)?))).collect(),
        rp_filter: most("rp_filter"),
        send_redirects: most("send_redirects").map(|on| on != 0),
    }
}

fn xdp(message: &LinkMessage) -> Option<&'static str> {
    message.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Xdp(all) = attribute else { return None };
        all.iter().find_map(|one| match one {
            LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Multiple) => Some("xdp"),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("xdpgeneric"),
            LinkXdp::Attached(XdpAttached::Hardware) => Some("xdpoffload"),
            _ => None,
        })
    })
}

fn master(message: &LinkMessage) -> Option<u32> {
    let of =
        |attribute: &LinkAttribute| if let LinkAttribute::Controller(index) = attribute { Some(*index) } else { None };
    message.attributes.iter().find_map(of)
}

/// Numbers of the interrupts that are named after an interface, as `eth0`, `eth0-TxRx-1` or `i40e-eth0-TxRx-0`.
pub fn of_interface(interrupts: &str, name: &str) -> Vec<u32> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric();
    let names = |line: &str| {
        line.match_indices(name).any(|(at, _)| {
            let before = at.checked_sub(1).is_none_or(|at| !is_word(line.as_bytes()[at]));
            before && line.as_bytes().get(at + name.len()).is_none_or(|byte| !is_word(*byte))
        })
    };
    let line = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        names(rest).then(|| number.trim().parse().ok()).flatten()
    };
    interrupts.lines().filter_map(line).collect()
}

fn targets(interrupt: u32) -> Option<BTreeSet<usize>> {
    let file = |name: &str| text(format!("/proc/irq/{interrupt}/{name}")).filter(|list| !list.is_empty());
    file("effective_affinity_list").or_else(|| file("smp_affinity_list")).map(|list| core_list(&list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_are_found_by_the_whole_name() {
        let text = "           CPU0 CPU1\n  24:  1 2 PCI-MSI 5 eth0-TxRx-0\n  25:  1 2 PCI-MSI 6 i40e-eth0-TxRx-1\n  26: 0 0 PCI 7 \
                    eth01\n NMI: 4 eth0\n";
        assert_eq!(of_interface(text, "eth0"), [24, 25]);
        assert!(of_interface(text, "eth1").is_empty());
    }
}
