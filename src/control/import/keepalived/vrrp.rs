//! `vrrp_instance` and `vrrp_sync_group`.
//!
//! Owns where the addresses of an instance are: in the engine where a virtual server has them or the servers' gateway is among
//! them, else in the kernel. Never knows a virtual server but by its addresses. Pure.

mod addresses;
mod group;

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use super::desk::Desk;
use super::global::{self, Global};
use super::keywords::Context;
use super::track::{self, Tracker, Weights};
use super::tree::Statement;
use crate::control::import::document::{Table, Value};
use crate::control::import::report::Note;

pub use group::{Group, group, membership};

/// Most IPv6 addresses in an advert that fits an Ethernet frame.
const MOST_IPV6: usize = 90;

/// Longest password: that of an advert.
const PASSWORD: usize = 8;

/// What the rest of the file says to an instance.
#[derive(Debug)]
pub struct Around<'a> {
    /// The addresses of virtual servers.
    pub served: &'a BTreeSet<IpAddr>,
    /// The real servers by NAT.
    pub nat: &'a BTreeSet<IpAddr>,
    /// The instances with an address of a virtual server.
    pub serving: &'a HashSet<String>,
    /// The groups.
    pub groups: &'a [Group],
    /// Weights of what is tracked.
    pub weights: &'a Weights,
    /// Interfaces from the command line.
    pub interfaces: &'a [String],
}

/// A virtual router, and what the engine needs for it.
#[derive(Debug)]
pub struct Router {
    /// `[[virtual_router]]`.
    pub table: Table,
    /// The interfaces that the engine must have, by their names in the kernel.
    pub interfaces: Vec<String>,
}

/// Whether an instance has an address of a virtual server.
pub fn serves(block: &Statement, served: &BTreeSet<IpAddr>) -> bool {
    addresses::all(block).iter().any(|(address, _)| served.contains(address))
}

/// A `vrrp_instance`.
pub fn instance(
    block: &Statement,
    around: &Around<'_>,
    global: &mut Global,
    desk: &mut Desk,
    notes: &mut Vec<Note>,
) -> Option<Router> {
    if block.word(1).is_empty() {
        desk.left_out(block, "it has no name", notes);
        return None;
    }
    block.taken();
    let at = &block.at;
    let mut table = Table::many("virtual_router", at, block.written());
    let name = desk.name(block.word(1), at, &mut table.notes);
    table.set("name", Value::Text(name), at);
    let interface = interface(block, around, global, &mut table, desk);
    table.set("interface", Value::text(&interface), at);
    let engine = in_the_engine(block, around, &mut table, desk);
    let group = around.groups.iter().find(|group| group.members.iter().any(|member| member == block.word(1)));
    let weightless = group.is_some_and(|group| !group.weighted);
    let tracker = Tracker { own: Some(&interface), weightless, weights: around.weights };
    let mut one =
        Instance { table, interface: &interface, interfaces: Vec::new(), engine, tracker, strict: global.strict };
    for statement in block.inner() {
        one.statement(statement, global, desk);
    }
    let Instance { mut table, mut interfaces, strict, .. } = one;
    if !engine {
        table.set("place", Value::text("kernel"), at);
    } else if strict {
        table.set_unless("accept", Value::Boolean(false), at);
    }
    // Only to know that it was said.
    if table.get("accept") == Some(&Value::Boolean(true)) {
        table.keys.retain(|key| key.name != "accept");
    }
    settle(block, global, &mut table, desk);
    for (key, value, at) in &global.of_routers {
        table.set_unless(key, value.clone(), at);
    }
    if engine {
        interfaces.insert(0, interface);
    }
    Some(Router { table, interfaces })
}

/// The interface of an instance.
fn interface(block: &Statement, around: &Around<'_>, global: &Global, table: &mut Table, desk: &mut Desk) -> String {
    let written = block.inner().iter().rfind(|statement| statement.keyword() == "interface");
    if let Some(statement) = written
        && let Some(name) = desk.word(statement, &mut table.notes)
    {
        return name;
    }
    let devices = addresses::devices(block);
    let usual = devices.first().or(global.default_interface.as_ref()).or(around.interfaces.first());
    let name = usual.cloned().unwrap_or_else(|| "eth0".to_owned());
    let text = format!("it names no interface: adverts go out of `{name}`; correct that where it is wrong");
    desk.remark(block, text, &mut table.notes);
    name
}

/// Whether the engine is to have the addresses.
fn in_the_engine(block: &Statement, around: &Around<'_>, table: &mut Table, desk: &mut Desk) -> bool {
    let all = addresses::all(block);
    let served = |address: &IpAddr| around.served.contains(address);
    if all.iter().any(|(address, _)| served(address)) {
        if all.iter().any(|(address, _)| !served(address)) {
            let text = "a virtual server has some of its addresses, so the engine has all of them: programs on this machine \
                        cannot listen on the others; for these make a second router with `place = \"kernel\"`";
            desk.remark(block, text, &mut table.notes);
        }
        return true;
    }
    if around.nat.is_empty() || all.is_empty() {
        return false;
    }
    let mates = around.groups.iter().filter(|group| group.members.iter().any(|member| member == block.word(1)));
    let with_service = mates.flat_map(|group| &group.members).any(|member| around.serving.contains(member));
    // Without a length that of most networks.
    let near = |address: &IpAddr, length: &Option<u8>| {
        let length = length.filter(|length| *length < if address.is_ipv4() { 31 } else { 127 });
        let length = length.unwrap_or(if address.is_ipv4() { 24 } else { 64 });
        around.nat.iter().any(|server| addresses::same_network(*address, *server, length))
    };
    let gateway = all.iter().any(|(address, length)| near(address, length));
    if with_service || gateway {
        let text = "taken for the gateway of the servers behind NAT: the engine has it; for programs on this machine write \
                    `place = \"kernel\"`";
        desk.remark(block, text, &mut table.notes);
    }
    with_service || gateway
}

/// What the statements of an instance come to.
struct Instance<'i> {
    table: Table,
    interface: &'i str,
    interfaces: Vec<String>,
    engine: bool,
    tracker: Tracker<'i>,
    strict: bool,
}

impl Instance<'_> {
    fn statement(&mut self, statement: &Statement, global: &mut Global, desk: &mut Desk) {
        let (table, at) = (&mut self.table, &statement.at);
        match statement.keyword() {
            // Read before the others; the last one counts.
            "interface" => statement.taken(),
            "state" => match statement.word(1) {
                "MASTER" => {
                    desk.taken(statement, 2, &mut table.notes);
                    table.set("state", Value::text("master"), at);
                }
                "BACKUP" if table.get("state") == Some(&Value::text("master")) => {
                    let text = "keepalived ignores it: `state MASTER` is above";
                    desk.left_out(statement, text, &mut table.notes);
                }
                "BACKUP" => {
                    desk.taken(statement, 2, &mut table.notes);
                    table.set("state", Value::text("backup"), at);
                }
                _ => {
                    desk.remark(statement, "keepalived takes it for BACKUP", &mut table.notes);
                    table.set_unless("state", Value::text("backup"), at);
                }
            },
            "virtual_router_id" => desk.set_integer("vrid", statement, 1..=255, table),
            "priority" => match statement.word(1).parse::<i64>() {
                Ok(1..=255) => desk.set_integer("priority", statement, 1..=255, table),
                _ => {
                    desk.remark(statement, "it is no number from 1 to 255: keepalived takes 100", &mut table.notes);
                    table.set("priority", Value::Integer(100), at);
                }
            },
            "advert_int" => desk.set_seconds("interval", statement, table),
            "version" => desk.set_integer("version", statement, 2..=3, table),
            "native_ipv6" | "check_unicast_src" => statement.taken(),
            "authentication" => authentication(statement, table, desk),
            "virtual_ipaddress" => self.addresses("address", statement, desk),
            "virtual_ipaddress_excluded" => self.addresses("excluded", statement, desk),
            "mcast_src_ip" | "unicast_src_ip" | "vrrp_unicast_bind" => desk.set_address("source", statement, table),
            "unicast_peer" => addresses::peers(statement, table, desk),
            "vrrp_unicast_peer" => {
                if let Some(peer) = desk.address(statement, &mut table.notes) {
                    table.push("peers", Value::text(peer.to_string()), at);
                }
            }
            "nopreempt" => {
                desk.taken(statement, 1, &mut table.notes);
                table.set("preempt", Value::Boolean(false), at);
            }
            "preempt" => {
                desk.taken(statement, 1, &mut table.notes);
                table.set("preempt", Value::Boolean(true), at);
            }
            "preempt_delay" => desk.set_seconds("preempt_delay", statement, table),
            "down_timer_adverts" => desk.set_integer("down_adverts", statement, 1..=100, table),
            "garp_master_delay" => desk.set_seconds("announce_delay", statement, table),
            "garp_master_repeat" => desk.set_integer("announce_repeat", statement, 1..=100, table),
            "garp_master_refresh" => desk.set_seconds("announce_refresh", statement, table),
            "garp_master_refresh_repeat" => desk.set_integer("announce_refresh_repeat", statement, 1..=100, table),
            "use_vmac" if self.engine => {
                statement.taken();
                table.set("virtual_mac", Value::Boolean(true), at);
                if statement.words.len() > 1 {
                    let (what, reason) =
                        (statement.words[1..].join(" "), "the virtual MAC needs no interface, and is that of the RFC");
                    desk.drop_words(at, what, reason, &mut table.notes);
                }
            }
            "use_vmac" => {
                let text =
                    "the kernel has these addresses, behind the MAC of their interface: failover is by gratuitous ARP";
                desk.left_out(statement, text, &mut table.notes);
            }
            "accept" => {
                desk.taken(statement, 1, &mut table.notes);
                if self.engine {
                    table.set("accept", Value::Boolean(true), at);
                }
            }
            "no_accept" if self.engine => {
                desk.taken(statement, 1, &mut table.notes);
                table.set("accept", Value::Boolean(false), at);
            }
            "no_accept" => {
                let text =
                    "the kernel has these addresses, and answers for them: filter there what shall not be answered";
                desk.left_out(statement, text, &mut table.notes);
            }
            "strict_mode" => {
                if let Some(strict) = desk.flag(statement, &mut table.notes) {
                    self.strict = strict;
                    global::explain_strict(statement, strict, desk, &mut table.notes);
                }
            }
            "old_unicast_checksum" if statement.word(1) == "never" => desk.taken(statement, 2, &mut table.notes),
            "old_unicast_checksum" | "v3_checksum_as_v2" => {
                desk.taken(statement, 2, &mut table.notes);
                table.set("checksum", Value::text("message"), at);
            }
            "track_interface" => track::list(statement, "track_interface", self.tracker, table, desk),
            "track_script" => track::list(statement, "track_script", self.tracker, table, desk),
            "track_file" => track::list(statement, "track_file", self.tracker, table, desk),
            "track_process" => track::list(statement, "track_process", self.tracker, table, desk),
            "notify_master" | "notify_backup" | "notify_fault" | "notify_stop" | "notify" => {
                notify(statement, table, global, desk);
            }
            _ => desk.other(statement, Context::Instance, &mut table.notes),
        }
    }

    fn addresses(&mut self, list: &'static str, block: &Statement, desk: &mut Desk) {
        block.taken();
        for statement in block.inner() {
            let Some(found) = addresses::one(statement, self.engine, self.interface, &mut self.table, desk) else {
                continue;
            };
            let first = match self.table.get("address") {
                Some(Value::List(items)) => items.first().map(|item| &item.value),
                _ => None,
            };
            let other = first.is_some_and(|first| addresses::is_v6(first) != found.address.is_ipv6());
            if list == "address" && other {
                let text = "keepalived leaves it out, too: the first address is of the other family; write it under `excluded`";
                desk.left_out(statement, text, &mut self.table.notes);
                continue;
            }
            let count = match self.table.get("address") {
                Some(Value::List(items)) => items.len(),
                _ => 0,
            };
            let list = if list == "address" && found.address.is_ipv6() && count == MOST_IPV6 {
                desk.remark(statement, "an advert has no room for it: it goes with the others", &mut self.table.notes);
                "excluded"
            } else {
                list
            };
            self.interfaces.extend(found.device.filter(|device| self.engine && device != self.interface));
            self.table.push(list, found.value, &statement.at);
        }
        if block.block.is_none() {
            desk.left_out(block, "it has no block", &mut self.table.notes);
        }
    }
}

fn authentication(block: &Statement, table: &mut Table, desk: &mut Desk) {
    block.taken();
    let mut kind = "PASS";
    for statement in block.inner() {
        match statement.keyword() {
            "auth_type" if statement.word(1) == "PASS" => desk.taken(statement, 2, &mut table.notes),
            "auth_type" => {
                kind = "";
                let text = "only `PASS` is there: write that on all appliances, and restrict who can send with `peers`";
                desk.left_out(statement, text, &mut table.notes);
            }
            "auth_pass" if !statement.word(1).is_empty() => {
                let pass = statement.word(1);
                let short: String =
                    pass.char_indices().take_while(|(at, c)| at + c.len_utf8() <= PASSWORD).map(|(_, c)| c).collect();
                desk.taken(statement, 2, &mut table.notes);
                if short.len() < pass.len() {
                    let text = format!("keepalived sends its first {PASSWORD} bytes, and so does this");
                    desk.remark(statement, text, &mut table.notes);
                }
                table.set("password", Value::Text(short), &statement.at);
            }
            "auth_pass" => desk.left_out(statement, "it has no value", &mut table.notes),
            _ => desk.left_out(statement, "only `auth_type` and `auth_pass` are here", &mut table.notes),
        }
    }
    if kind.is_empty() {
        table.keys.retain(|key| key.name != "password");
    }
}

/// A program for a change of state.
fn notify(statement: &Statement, table: &mut Table, global: &mut Global, desk: &mut Desk) {
    let key = match statement.keyword() {
        "notify_master" => "notify_master",
        "notify_backup" => "notify_backup",
        "notify_fault" => "notify_fault",
        "notify_stop" => "notify_stop",
        _ => "notify",
    };
    let Some(program) = desk.program(statement, &mut table.notes) else { return };
    if table.get(key).is_some() {
        desk.left_out(statement, "keepalived ignores it: there is one above", &mut table.notes);
        return;
    }
    table.set(key, program.command, &statement.at);
    let Some(user) = program.user else { return };
    let known = global.vrrp(&statement.at);
    known.set_unless("notify_user", Value::text(&user), &statement.at);
    if let Some(other) = known.get_text("notify_user").filter(|known| *known != user) {
        let text = format!("all these programs run as one user, `{other}`: `notify_user` of `[vrrp]`");
        desk.drop_words(&statement.at, user, text, &mut table.notes);
    }
}

/// What keepalived makes of an instance when it has read all of it.
fn settle(block: &Statement, global: &Global, table: &mut Table, desk: &mut Desk) {
    let at = &block.at;
    let v6 = matches!(table.get("address"), Some(Value::List(items)) if items.first().is_some_and(|i| addresses::is_v6(&i.value)));
    if v6 {
        table.keys.retain(|key| key.name != "version");
    } else if let Some(version) = global.version {
        table.set_unless("version", Value::Integer(version), at);
    }
    let version = if v6 || table.get("version") == Some(&Value::Integer(3)) { 3 } else { 2 };
    let mut remove = |key: &str, reason: &str, table: &mut Table| {
        if let Some(index) = table.keys.iter().position(|known| known.name == key) {
            let key = table.keys.remove(index);
            let what = match (key.name, &key.value) {
                ("preempt", _) => "nopreempt",
                ("preempt_delay", _) => "preempt_delay",
                ("password", _) => "auth_pass",
                _ => "old_unicast_checksum",
            };
            desk.drop_words(&key.at, what.to_owned(), reason, &mut table.notes);
        }
    };
    if version == 3 {
        remove("password", "version 3 has no passwords, and keepalived ignores it, too", table);
    }
    if version == 2 || v6 {
        remove("checksum", "there is one form of checksum only", table);
    }
    if table.get("preempt") == Some(&Value::Boolean(true)) {
        table.keys.retain(|key| key.name != "preempt");
    }
    let master = table.get("state") == Some(&Value::text("master"));
    let missing = master && table.get("priority").is_none();
    let owner = missing || table.get("priority") == Some(&Value::Integer(255));
    if owner || master {
        let reason = "keepalived ignores it beside `state MASTER`, and says so in its log";
        remove("preempt", reason, table);
        remove("preempt_delay", reason, table);
    } else if table.get("preempt").is_some() {
        remove("preempt_delay", "keepalived ignores it beside `nopreempt`", table);
    }
    if missing {
        desk.remark(block, "keepalived takes the priority 255 for `state MASTER` without one", &mut table.notes);
        table.set("priority", Value::Integer(255), at);
    }
    if owner {
        table.set("state", Value::text("master"), at);
    }
    if let Some(Value::Seconds(seconds)) = table.get("interval").cloned()
        && version == 2
        && seconds.fract() != 0.0
    {
        let whole = seconds.round().max(1.0);
        let text = format!("version 2 counts whole seconds: keepalived makes {whole} s of {seconds} s");
        desk.remark(block, text, &mut table.notes);
        table.set("interval", Value::Seconds(whole), at);
    }
}
