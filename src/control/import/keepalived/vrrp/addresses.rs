//! The addresses of an instance, and its peers.
//!
//! Owns the words behind an address. Pure.

use std::net::IpAddr;

use super::super::desk::Desk;
use super::super::tree::Statement;
use crate::control::import::document::{Table, Value};

/// An address of an instance.
#[derive(Debug)]
pub struct Found {
    /// The address.
    pub address: IpAddr,
    /// What the configuration says of it.
    pub value: Value,
    /// The interface that is written with it.
    pub device: Option<String>,
}

/// An address with or without the length of its prefix.
fn split(text: &str) -> Option<(IpAddr, Option<u8>)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.is_none_or(|length| length <= most).then_some((address, length))
}

/// All addresses of an instance, with the lengths that they are written with.
pub fn all(block: &Statement) -> Vec<(IpAddr, Option<u8>)> {
    lists(block).filter_map(|statement| split(statement.keyword())).collect()
}

/// The interfaces that are written with addresses.
pub fn devices(block: &Statement) -> Vec<String> {
    let device = |statement: &Statement| {
        let at = statement.words.iter().position(|word| word == "dev")?;
        statement.words.get(at + 1).cloned()
    };
    lists(block).filter_map(device).collect()
}

fn lists(block: &Statement) -> impl Iterator<Item = &Statement> {
    let of =
        |statement: &&Statement| ["virtual_ipaddress", "virtual_ipaddress_excluded"].contains(&statement.keyword());
    block.inner().iter().filter(of).flat_map(Statement::inner)
}

/// Whether two addresses have these leading bits in common.
pub fn same_network(a: IpAddr, b: IpAddr, length: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(length.min(32));
            u32::from(a).checked_shr(shift) == u32::from(b).checked_shr(shift)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(length.min(128));
            u128::from(a).checked_shr(shift) == u128::from(b).checked_shr(shift)
        }
        _ => false,
    }
}

/// Whether a value of `address` is of IPv6.
pub fn is_v6(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.contains(':'),
        Value::Inline(keys) => keys.iter().any(|(key, value)| *key == "address" && is_v6(value)),
        _ => false,
    }
}

/// A line of `virtual_ipaddress`: an address, and words for `ip address add`.
pub fn one(statement: &Statement, engine: bool, interface: &str, table: &mut Table, desk: &mut Desk) -> Option<Found> {
    let Some((address, length)) = split(statement.keyword()) else {
        desk.left_out(statement, "it is no address", &mut table.notes);
        return None;
    };
    statement.taken();
    let (mut device, mut label) = (None, None);
    let mut words = statement.arguments().iter();
    while let Some(word) = words.next() {
        // Words that take another one.
        let pair = ["dev", "label", "brd", "broadcast", "scope", "peer", "preferred_lft", "valid_lft", "track_group"];
        let value = if pair.contains(&word.as_str()) { words.next() } else { None };
        match (word.as_str(), value) {
            ("dev", Some(name)) => device = Some(name.clone()),
            ("label", Some(name)) if !engine => label = Some(name.clone()),
            _ => {
                let what = [Some(word), value].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
                let reason =
                    if engine { "the kernel does not have the address" } else { "the kernel's usual one is taken" };
                desk.drop_words(&statement.at, what, reason, &mut table.notes);
            }
        }
    }
    if engine && let Some(other) = device.as_ref().filter(|device| *device != interface) {
        let text =
            format!("the engine answers for it on every interface of its own, `{other}` and `{interface}` among them");
        desk.remark(statement, text, &mut table.notes);
    }
    let text = match length {
        Some(length) => format!("{address}/{length}"),
        None => address.to_string(),
    };
    let mut keys = vec![("address", Value::text(&text))];
    if !engine {
        keys.extend(
            device.clone().filter(|d| d != interface || label.is_some()).map(|device| ("device", Value::Text(device))),
        );
        keys.extend(label.map(|label| ("label", Value::Text(label))));
    }
    let value = if keys.len() == 1 { Value::Text(text) } else { Value::Inline(keys) };
    Some(Found { address, value, device })
}

/// `unicast_peer { 192.0.2.2 min_ttl 254 max_ttl 255 }`.
pub fn peers(block: &Statement, table: &mut Table, desk: &mut Desk) {
    block.taken();
    for statement in block.inner() {
        let Ok(peer) = statement.keyword().parse::<IpAddr>() else {
            desk.left_out(statement, "it is no address", &mut table.notes);
            continue;
        };
        statement.taken();
        table.push("peers", Value::text(peer.to_string()), &statement.at);
        for pair in statement.arguments().chunks(2) {
            let key = match pair[0].as_str() {
                "min_ttl" => "peers_min_ttl",
                "max_ttl" => "peers_max_ttl",
                _ => "",
            };
            let value =
                pair.get(1).and_then(|value| value.parse::<i64>().ok()).filter(|value| (0..=255).contains(value));
            let Some(value) = value.filter(|_| !key.is_empty()) else {
                desk.drop_words(&statement.at, pair.join(" "), "it is no TTL from 0 to 255", &mut table.notes);
                continue;
            };
            let known = table.get(key).cloned();
            if known.as_ref().is_some_and(|known| *known != Value::Integer(value)) {
                let reason = "the TTLs are those of all peers, and another one has others";
                desk.drop_words(&statement.at, pair.join(" "), reason, &mut table.notes);
            } else {
                table.set(key_of(key), Value::Integer(value), &statement.at);
            }
        }
    }
    if block.block.is_none() {
        desk.left_out(block, "it has no block", &mut table.notes);
    }
}

fn key_of(key: &str) -> &'static str {
    if key == "peers_min_ttl" { "peers_min_ttl" } else { "peers_max_ttl" }
}
