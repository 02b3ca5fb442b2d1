//! What is right and wrong with a real server, from what was seen of it.
//!
//! Owns the sentences and the commands that mend. Never looks at the machine. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::link::Held;
use super::wanted::{Step, Wanted, conf, host, key_of};

/// A socket that takes connections or datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// TCP; else UDP.
    pub tcp: bool,
    /// Its address; unspecified: any.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `arp_ignore` in effect on each interface that asks by ARP.
    pub arp_ignore: Vec<(String, u8)>,
    /// The same of `arp_announce`.
    pub arp_announce: Vec<(String, u8)>,
    /// Addresses.
    pub held: Vec<Held>,
    /// Tunnel devices that are up.
    pub up: Vec<String>,
    /// Those with a strict reverse path filter.
    pub filtered: Vec<String>,
    /// Whether `evenkeel realserver decap` runs.
    pub decap: bool,
    /// Ports to look for; whether of TCP.
    pub ports: Vec<(bool, u16)>,
    /// Who listens.
    pub listeners: Vec<Listener>,
    /// A client, and whether there is a way to it.
    pub client: Option<(IpAddr, bool)>,
    /// Whether there is a default route, IPv4 and IPv6.
    pub routed: [bool; 2],
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name, for programs.
    pub id: &'static str,
    /// Whether something is wrong.
    pub wrong: bool,
    /// What was found.
    pub found: String,
    /// Why that matters; empty where nothing is wrong.
    pub why: String,
    /// What mends it.
    pub command: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {}", if self.wrong { "WRONG" } else { "ok" }, self.found)?;
        if self.wrong {
            write!(f, "\n         {}", self.why)?;
        }
        match &self.command {
            Some(command) => write!(f, "\n         do: {command}"),
            None => Ok(()),
        }
    }
}

fn fine(id: &'static str, found: impl Into<String>) -> Finding {
    Finding { id, wrong: false, found: found.into(), why: String::new(), command: None }
}

fn wrong(id: &'static str, found: impl Into<String>, why: &str, command: Option<String>) -> Finding {
    Finding { id, wrong: true, found: found.into(), why: why.to_owned(), command }
}

/// Judges all of it.
pub fn judge(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    let mut all = Vec::new();
    if wanted.vips.iter().any(IpAddr::is_ipv4) {
        all.push(arp(
            "arp-ignore",
            "arp_ignore",
            "1",
            &seen.arp_ignore,
            |value| matches!(value, 1 | 2),
            "it answers ARP for the service address there, and takes clients away from the appliance",
        ));
        all.push(arp(
            "arp-announce",
            "arp_announce",
            "2",
            &seen.arp_announce,
            |value| value == 2,
            "its own ARP questions name the service address, and routers learn the wrong Ethernet address from them",
        ));
    }
    for vip in &wanted.vips {
        all.extend(place(*vip, wanted, seen));
    }
    if wanted.method.is_tunnel() {
        all.extend(tunnel(wanted, seen));
    }
    for (tcp, port) in &seen.ports {
        all.extend(wanted.vips.iter().map(|vip| listens(*vip, *tcp, *port, seen)));
    }
    all.extend(way_back(wanted, seen));
    all
}

fn arp(
    id: &'static str,
    key: &str,
    value: &str,
    seen: &[(String, u8)],
    good: impl Fn(u8) -> bool,
    why: &str,
) -> Finding {
    match seen.iter().find(|(_, value)| !good(*value)) {
        None => fine(id, format!("{key} holds on every interface that asks by ARP")),
        Some((name, 8..)) => {
            let command = format!("sysctl -w {}={value}", key_of(&conf(name, key)));
            wrong(
                id,
                format!("{key} of {name} answers for no address at all"),
                "nobody finds this server",
                Some(command),
            )
        }
        Some((name, found)) => {
            let command = format!("sysctl -w {}={value}", key_of(&conf("all", key)));
            wrong(id, format!("{key} in effect on {name} is {found}"), why, Some(command))
        }
    }
}

fn place(vip: IpAddr, wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    let mut all = Vec::new();
    let at: Vec<&str> = seen.held.iter().filter(|one| one.address == vip).map(|one| one.interface.as_str()).collect();
    if at.contains(&wanted.interface.as_str()) {
        all.push(fine("address", format!("{vip} is on {}", wanted.interface)));
    } else {
        let command = Step::Address { address: vip, interface: wanted.interface.clone() }.to_string();
        all.push(wrong(
            "address",
            format!("{vip} is not on {}", wanted.interface),
            "packets for it are not this machine's: it drops them, or sends them on",
            Some(command),
        ));
    }
    for other in at.iter().filter(|name| **name != wanted.interface) {
        all.push(wrong(
            "address-elsewhere",
            format!("{vip} is on {other}, too"),
            "that interface answers for it whatever arp_ignore says, and takes clients away from the appliance",
            Some(format!("ip address del {vip}/{} dev {other}", host(vip))),
        ));
    }
    all
}

fn tunnel(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    let devices = wanted.tunnels();
    let missing: Vec<&str> =
        devices.iter().map(|device| device.name).filter(|name| !seen.up.iter().any(|up| up == name)).collect();
    let mut all = Vec::new();
    if missing.is_empty() {
        all.push(fine("tunnel", format!("packets are taken out of {} by the kernel", wanted.method.name())));
    } else if seen.decap {
        all.push(fine("tunnel", "packets are taken out by `evenkeel realserver decap`"));
    } else {
        all.push(wrong(
            "tunnel",
            format!("nothing takes packets out of {}: no {}", wanted.method.name(), missing.join(", ")),
            "the kernel drops what it has no device for",
            Some(format!(
                "evenkeel realserver prepare {}, or, with a kernel without such devices, {}",
                wanted.options(),
                wanted.decap_command()
            )),
        ));
    }
    for name in &seen.filtered {
        all.push(wrong(
            "rp-filter",
            format!("the reverse path filter of {name} is strict"),
            "clients' packets come in by it and answers leave by another interface: the kernel drops them",
            Some(format!("sysctl -w {}=0 {}=0", key_of(&conf("all", "rp_filter")), key_of(&conf(name, "rp_filter")))),
        ));
    }
    all
}

fn listens(vip: IpAddr, tcp: bool, port: u16, seen: &Seen) -> Finding {
    let name = format!("{}/{port}", if tcp { "tcp" } else { "udp" });
    // A socket of IPv6 for any address takes IPv4, too, unless it was told not to, which cannot be seen.
    let takes = |one: &&Listener| {
        let any = one.address.is_unspecified() && (one.address.is_ipv6() || vip.is_ipv4());
        one.tcp == tcp && one.port == port && (one.address == vip || any)
    };
    match seen.listeners.iter().find(takes) {
        Some(one) if one.address == vip => fine("listens", format!("{name} listens on {vip}")),
        Some(_) => fine("listens", format!("{name} listens on any address, {vip} included")),
        None => wrong(
            "listens",
            format!("nothing listens on {vip}, {name}"),
            "clients that are sent here are refused",
            Some(format!(
                "start the program that serves {name}, on {vip} or on any address (`ss -lnp` shows who listens)"
            )),
        ),
    }
}

fn way_back(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    if let Some((client, ok)) = seen.client {
        let found = format!("the client {client}");
        return vec![if ok {
            fine("way-back", format!("there is a way to {found}"))
        } else {
            let why = "answers go to clients from here, not through the appliance, and get lost";
            wrong(
                "way-back",
                format!("there is no way to {found}"),
                why,
                Some("ip route add default via ROUTER".into()),
            )
        }];
    }
    let of = |v4: bool, routed: bool| {
        let family = if v4 { "IPv4" } else { "IPv6" };
        let used = wanted.vips.iter().any(|vip| vip.is_ipv4() == v4);
        let found = if routed {
            format!("answers over {family} have a default route")
        } else {
            format!(
                "there is no default route for {family}: only clients in networks of this machine get answers (`--client ADDRESS` \
                 looks for one)"
            )
        };
        used.then(|| fine("way-back", found))
    };
    [of(true, seen.routed[0]), of(false, seen.routed[1])].into_iter().flatten().collect()
}

impl Listener {
    /// What a table below `/proc/net` (tcp, tcp6, udp, udp6) says: sockets that listen, or have no other end.
    pub fn parse(table: &str, tcp: bool) -> Vec<Listener> {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let (local, state) = (words.nth(1)?, words.nth(1)?);
            let (address, port) = local.split_once(':')?;
            // TCP_LISTEN; TCP_CLOSE, which an unconnected datagram socket has.
            if state != if tcp { "0A" } else { "07" } {
                return None;
            }
            Some(Listener { tcp, address: parse_address(address)?, port: u16::from_str_radix(port, 16).ok()? })
        };
        table.lines().skip(1).filter_map(line).collect()
    }
}

/// The kernel prints words of 32 bits as its processor has them.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(at * 8)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
