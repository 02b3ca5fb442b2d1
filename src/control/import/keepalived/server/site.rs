//! What a virtual server is for: an address and a port, or the many of a group.
//!
//! Owns ranges of addresses. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::desk::Desk;
use super::super::tree::Statement;
use crate::control::import::document::Value;
use crate::control::import::report::{Note, Place};

/// Most addresses of a range: a service is made for each.
const MOST: u128 = 1024;

const MARK: &str = "there are no firewall marks: write a [[service]] for each port that is marked; with persistence, all of them \
                    with the same `group`";

/// What one service is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The address.
    pub address: IpAddr,
    /// First and last port; none for every port.
    pub ports: Option<(u16, u16)>,
    /// Where it is written.
    pub at: Place,
}

impl Site {
    /// The value of `port`.
    pub fn port_value(&self) -> Value {
        match self.ports {
            None => Value::text("any"),
            Some((first, last)) if first == last => Value::Integer(first.into()),
            Some((first, last)) => Value::Text(format!("{first}-{last}")),
        }
    }
}

/// The groups of a file, by name: what they are for, or why they are for nothing.
pub type Groups = HashMap<String, Vec<Site>>;

/// A `virtual_server_group`.
pub fn group(block: &Statement, groups: &mut Groups, desk: &mut Desk, notes: &mut Vec<Note>) {
    if block.word(1).is_empty() {
        desk.left_out(block, "it has no name", notes);
        return;
    }
    block.taken();
    let mut found = Vec::new();
    for statement in block.inner() {
        if statement.keyword() == "fwmark" {
            desk.left_out(statement, MARK, notes);
            continue;
        }
        match range(statement.keyword()).and_then(|range| Ok((range, ports(statement.word(1))?))) {
            Ok((addresses, ports)) => {
                desk.taken(statement, 2, notes);
                found.extend(addresses.into_iter().map(|address| Site { address, ports, at: statement.at.clone() }));
            }
            Err(reason) => desk.left_out(statement, reason, notes),
        }
    }
    groups.insert(block.word(1).to_owned(), found);
}

/// What a `virtual_server` is for.
pub fn sites(block: &Statement, groups: &Groups) -> Result<Vec<Site>, String> {
    match block.word(1) {
        "fwmark" => Err(MARK.to_owned()),
        "group" => {
            let name = block.word(2);
            let sites = groups.get(name).ok_or_else(|| format!("there is no virtual_server_group `{name}`"))?;
            if sites.is_empty() {
                Err(format!("nothing of the virtual_server_group `{name}` can be a service"))
            } else {
                Ok(sites.clone())
            }
        }
        _ => {
            let (address, port) = host(block, 1)?;
            Ok(vec![Site { address, ports: port.map(|port| (port, port)), at: block.at.clone() }])
        }
    }
}

/// An address and a port among the words of a statement; no port is written as 0 or not at all.
pub fn host(statement: &Statement, at: usize) -> Result<(IpAddr, Option<u16>), String> {
    let (address, port) = (statement.word(at), statement.word(at + 1));
    let address = address.parse().map_err(|_| format!("`{address}` is no address"))?;
    match ports(port)? {
        Some((first, last)) if first == last => Ok((address, Some(first))),
        Some(_) => Err(format!("`{port}` is no single port")),
        None => Ok((address, None)),
    }
}

/// First and last port; none where it is 0 or not written.
fn ports(text: &str) -> Result<Option<(u16, u16)>, String> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Some((first, last))),
        _ => Err(format!("`{text}` is no port from 1 to 65535")),
    }
}

/// Addresses as `10.0.0.1`, `10.0.0.1-10`, `10.0.0.1-10.0.1.2` or `10.0.0.8/29`, and the same for IPv6.
fn range(text: &str) -> Result<Vec<IpAddr>, String> {
    let wrong = || format!("`{text}` is neither an address nor a range of addresses");
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    let (first, last) = if let Some((first, end)) = text.split_once('-') {
        let first: IpAddr = first.parse().map_err(|_| wrong())?;
        let last = match (first, end.parse::<IpAddr>()) {
            (_, Ok(last)) if last.is_ipv4() == first.is_ipv4() => last,
            // The last part of the address: decimal for IPv4, hexadecimal for IPv6.
            (IpAddr::V4(first), _) => {
                let [a, b, c, _] = first.octets();
                IpAddr::from([a, b, c, end.parse::<u8>().map_err(|_| wrong())?])
            }
            (IpAddr::V6(first), _) => {
                let mut parts = first.segments();
                parts[7] = u16::from_str_radix(end, 16).map_err(|_| wrong())?;
                IpAddr::from(parts)
            }
        };
        (first, last)
    } else if let Some((network, length)) = text.split_once('/') {
        let network: IpAddr = network.parse().map_err(|_| wrong())?;
        let bits = if network.is_ipv4() { 32 } else { 128 };
        let length: u32 = length.parse().ok().filter(|length| *length <= bits).ok_or_else(wrong)?;
        let hosts = 1_u128.checked_shl(bits - length).map_or(u128::MAX, |count| count - 1);
        let first = number(network) & !hosts;
        let make = |number: u128| {
            if network.is_ipv4() {
                IpAddr::V4(Ipv4Addr::from(number as u32))
            } else {
                IpAddr::V6(Ipv6Addr::from(number))
            }
        };
        (make(first), make(first | hosts))
    } else {
        let address = text.parse().map_err(|_| wrong())?;
        (address, address)
    };
    let (low, high) = (number(first), number(last));
    if high < low {
        return Err(format!("the range `{text}` ends before it begins"));
    }
    if high - low >= MOST {
        return Err(format!("the range `{text}` has more than {MOST} addresses, and each is a service of its own"));
    }
    let make = |number: u128| {
        if first.is_ipv4() { IpAddr::V4(Ipv4Addr::from(number as u32)) } else { IpAddr::V6(Ipv6Addr::from(number)) }
    };
    Ok((low..=high).map(make).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<String>, String> {
        range(text).map(|found| found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn ranges_are_those_of_the_manual() {
        assert_eq!(of("192.168.200.9-11").expect("range"), ["192.168.200.9", "192.168.200.10", "192.168.200.11"]);
        assert_eq!(of("10.0.0.255-10.0.1.1").expect("range"), ["10.0.0.255", "10.0.1.0", "10.0.1.1"]);
        assert_eq!(of("192.168.202.9/31").expect("range"), ["192.168.202.8", "192.168.202.9"]);
        assert_eq!(of("2001:db8::9-b").expect("range"), ["2001:db8::9", "2001:db8::a", "2001:db8::b"]);
        assert_eq!(of("10.0.0.0/22").expect("range").len(), 1024);
        for bad in [
            "10.0.0.0/21",
            "::/0",
            "10.0.0.9-1",
            "10.0.0.1-::1",
            "10.0.0.1-256",
            "10.0.0.0/33",
            "x",
            "",
            "255.255.255.255-x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert_eq!(of("255.255.255.254/31").expect("range").len(), 2);
    }
}
