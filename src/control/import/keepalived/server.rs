//! `virtual_server`, `virtual_server_group` and `real_server`.
//!
//! Owns which services a virtual server comes to, and keepalived's defaults for each value. Pure.

pub mod check;
mod method;
pub mod site;

use std::collections::BTreeSet;
use std::net::IpAddr;

use self::check::{Asked, Defaults};
use self::method::Method;
use self::site::{Groups, Site};
use super::desk::{Desk, Program};
use super::global::Global;
use super::keywords::Context;
use super::track::Files;
use super::tree::Statement;
use crate::control::import::document::{Key, Table, Value};
use crate::control::import::report::Note;

/// IPVS's schedulers.
pub const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "mh", "fo", "ovf", "sed", "nq", "twos"];

/// keepalived's default of `persistence_timeout`, in seconds.
const PERSISTENCE: i64 = 360;

/// What the rest of the file says to a virtual server.
#[derive(Debug)]
pub struct Around<'a> {
    /// The groups of addresses.
    pub groups: &'a Groups,
    /// The files of `track_file`.
    pub files: &'a Files,
    /// `global_defs`.
    pub global: &'a Global,
}

/// The services of a virtual server, and what the rest of the file is to know of them.
#[derive(Debug, Default)]
pub struct Services {
    /// `[[service]]`, one for each address and port.
    pub tables: Vec<Table>,
    /// Their addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The servers by NAT.
    pub nat: BTreeSet<IpAddr>,
}

/// A real server, before it is known which service it is in.
#[derive(Debug)]
struct Real {
    table: Table,
    port: Option<u16>,
    nat: bool,
}

/// A `virtual_server`, which is known to be for some addresses.
struct Virtual<'v> {
    table: Table,
    defaults: Defaults,
    method: Method,
    protocol: &'static str,
    /// Flags by number, which mean something by the scheduler only.
    numbered: Vec<(&'v Statement, usize)>,
    sorry: Option<Real>,
    sorry_method: Option<Method>,
    reals: Vec<Real>,
}

/// A `virtual_server`.
pub fn virtual_server(block: &Statement, around: &Around<'_>, desk: &mut Desk, notes: &mut Vec<Note>) -> Services {
    let sites = match site::sites(block, around.groups) {
        Ok(sites) => sites,
        Err(reason) => {
            desk.left_out(block, reason, notes);
            return Services::default();
        }
    };
    block.taken();
    let mut server = Virtual::new(block, around);
    // Defaults count for the real servers above them, too.
    for statement in block.inner().iter().filter(|inner| !["real_server", "sorry_server"].contains(&inner.keyword())) {
        server.statement(statement, desk);
    }
    server.settle(block, &sites, desk);
    for statement in block.inner() {
        match statement.keyword() {
            "real_server" => {
                let real = server.real(statement, around, desk);
                server.reals.extend(real);
            }
            "sorry_server" => server.sorry(statement, desk),
            _ => {}
        }
    }
    let mut found = Services::default();
    for (index, site) in sites.iter().enumerate() {
        let table = server.at(site, index == 0, desk);
        found.tables.push(table);
        found.addresses.insert(site.address);
    }
    found.nat = server
        .reals
        .iter()
        .filter(|real| real.nat)
        .filter_map(|real| real.table.get_text("address")?.parse().ok())
        .collect();
    found
}

impl<'v> Virtual<'v> {
    fn new(block: &Statement, around: &Around<'_>) -> Virtual<'v> {
        let mut table = Table::many("service", &block.at, block.written());
        if let Some((user, at)) = &around.global.script_user {
            table.set("script_user", Value::text(user), at);
        }
        Virtual {
            table,
            defaults: Defaults::default(),
            method: Method::nat(),
            protocol: "tcp",
            numbered: Vec::new(),
            sorry: None,
            sorry_method: None,
            reals: Vec::new(),
        }
    }

    fn statement(&mut self, statement: &'v Statement, desk: &mut Desk) {
        let (table, at) = (&mut self.table, &statement.at);
        if self.defaults.statement(statement, table, desk) {
            return;
        }
        match statement.keyword() {
            "lvs_sched" | "lb_algo" => {
                let Some(name) = desk.word(statement, &mut table.notes) else { return };
                if SCHEDULERS.contains(&name.as_str()) {
                    table.set("scheduler", Value::Text(name), at);
                } else {
                    let text = format!("IPVS has no scheduler `{name}`: `wlc` is taken");
                    desk.left_out(statement, text, &mut table.notes);
                }
            }
            "lvs_method" | "lb_kind" => {
                if let Some(method) = Method::read(statement, desk, &mut table.notes) {
                    self.method = method;
                }
            }
            "sorry_server_lvs_method" => self.sorry_method = Method::read(statement, desk, &mut table.notes),
            "protocol" => {
                self.protocol = match statement.word(1) {
                    "TCP" => "tcp",
                    "UDP" => "udp",
                    "SCTP" => "sctp",
                    _ => {
                        desk.left_out(statement, "it is none of TCP, UDP and SCTP: TCP is taken", &mut table.notes);
                        return;
                    }
                };
                desk.taken(statement, 2, &mut table.notes);
            }
            "persistence_timeout" if statement.words.len() == 1 => {
                desk.taken(statement, 1, &mut table.notes);
                table.set("persistence", Value::Integer(PERSISTENCE), at);
            }
            "persistence_timeout" if statement.word(1) == "0" => desk.taken(statement, 2, &mut table.notes),
            "persistence_timeout" => desk.set_integer("persistence", statement, 1..=1_000_000, table),
            "persistence_granularity" => granularity(statement, table, desk),
            "persistence_engine" if statement.word(1) == "sip" => {
                desk.taken(statement, 2, &mut table.notes);
                table.set("persistence_by", Value::text("sip-call-id"), at);
            }
            "persistence_engine" => {
                desk.left_out(statement, "only the engine `sip` is there, as in the kernel", &mut table.notes);
            }
            flag @ ("sh-port" | "sh-fallback" | "mh-port" | "mh-fallback") => {
                desk.taken(statement, 1, &mut table.notes);
                table.push("scheduler_flags", Value::text(flag), at);
            }
            "flag-1" => self.numbered.push((statement, 0)),
            "flag-2" => self.numbered.push((statement, 1)),
            "ops" => {
                desk.taken(statement, 1, &mut table.notes);
                table.set("one_packet", Value::Boolean(true), at);
            }
            "quorum" => desk.set_integer("quorum", statement, 1..=1_000_000_000, table),
            "hysteresis" => desk.set_integer("quorum_hysteresis", statement, 0..=1_000_000_000, table),
            key @ ("quorum_up" | "quorum_down") => {
                let key = if key == "quorum_up" { "quorum_up" } else { "quorum_down" };
                if let Some(user) = program(statement, key, table, desk) {
                    set_user(&user, statement, table, desk);
                }
            }
            "inhibit_on_failure" => {
                if desk.flag(statement, &mut table.notes) == Some(true) {
                    table.set("on_failure", Value::text("inhibit"), at);
                }
            }
            _ => desk.other(statement, Context::VirtualServer, &mut table.notes),
        }
    }

    /// What depends on several lines.
    fn settle(&mut self, block: &Statement, sites: &[Site], desk: &mut Desk) {
        let (table, at) = (&mut self.table, &block.at);
        table.set_unless("scheduler", Value::text("wlc"), at);
        let scheduler = table.get_text("scheduler").unwrap_or_default().to_owned();
        for (statement, number) in self.numbered.drain(..) {
            // IP_VS_SVC_F_SCHED1 and IP_VS_SVC_F_SCHED2 in the kernel's ip_vs.h.
            let flag = match (scheduler.as_str(), number) {
                ("sh", 0) => "sh-fallback",
                ("sh", _) => "sh-port",
                ("mh", 0) => "mh-fallback",
                ("mh", _) => "mh-port",
                _ => {
                    let text = format!("the scheduler `{scheduler}` has no such flag");
                    desk.left_out(statement, text, &mut table.notes);
                    continue;
                }
            };
            desk.taken(statement, 1, &mut table.notes);
            table.push("scheduler_flags", Value::text(flag), &statement.at);
        }
        if table.get("persistence").is_none() {
            let masked = table.keys.iter().any(|key| key.name.starts_with("persistence_"));
            let why = if sites.iter().any(|site| site.ports.is_none()) {
                Some("the port 0 is for persistent services alone")
            } else if masked {
                Some("a granularity or an engine is for persistent services alone")
            } else {
                None
            };
            if let Some(why) = why {
                let text = format!("{why}: keepalived's usual {PERSISTENCE} s are taken");
                desk.remark(block, text, &mut table.notes);
                table.set("persistence", Value::Integer(PERSISTENCE), at);
            }
        }
        if let Some(port) = self.method.gue_port {
            table.set("gue_port", Value::Integer(port.into()), at);
        }
    }

    fn real(&self, block: &Statement, around: &Around<'_>, desk: &mut Desk) -> Option<Real> {
        let mut table = Table::many("server", &block.at, block.written());
        let mut notes = Vec::new();
        let (address, port) = match site::host(block, 1) {
            Ok(found) => found,
            Err(reason) => {
                desk.left_out(block, reason, &mut notes);
                return None;
            }
        };
        block.taken();
        table.set("address", Value::text(address.to_string()), &block.at);
        let mut defaults = self.defaults.clone();
        let mut method = self.method;
        let mut checks = Vec::new();
        for statement in block.inner() {
            if defaults.statement(statement, &mut table, desk) {
                continue;
            }
            match statement.keyword() {
                "weight" => desk.set_integer("weight", statement, 0..=65_535, &mut table),
                "lvs_method" | "lb_kind" => {
                    method = Method::read(statement, desk, &mut table.notes).unwrap_or(method);
                }
                "uthreshold" | "lthreshold" if statement.word(1) == "0" => desk.taken(statement, 2, &mut table.notes),
                "uthreshold" => desk.set_integer("upper_threshold", statement, 1..=1_000_000_000, &mut table),
                "lthreshold" => desk.set_integer("lower_threshold", statement, 1..=1_000_000_000, &mut table),
                "inhibit_on_failure" => {
                    if let Some(inhibit) = desk.flag(statement, &mut table.notes) {
                        let word = if inhibit { "inhibit" } else { "remove" };
                        table.set("on_failure", Value::text(word), &statement.at);
                    }
                }
                key @ ("notify_up" | "notify_down") => {
                    let key = if key == "notify_up" { "notify_up" } else { "notify_down" };
                    if let Some(user) = program(statement, key, &mut table, desk) {
                        let known = self.table.get_text("script_user");
                        if known != Some(user.as_str()) {
                            let text = "the programs of a service run as one user: its `script_user`";
                            desk.drop_words(&statement.at, user, text, &mut table.notes);
                        }
                    }
                }
                "TCP_CHECK" | "HTTP_GET" | "SSL_GET" | "SMTP_CHECK" | "DNS_CHECK" | "MISC_CHECK" | "UDP_CHECK"
                | "PING_CHECK" | "FILE_CHECK" => checks.push(statement),
                _ => desk.other(statement, Context::RealServer, &mut table.notes),
            }
        }
        if method != self.method {
            table.set("method", Value::text(method.name), &block.at);
            if method.gue_port.is_some() && method.gue_port != self.method.gue_port {
                let what = format!("port {}", method.gue_port.unwrap_or_default());
                desk.drop_words(
                    &block.at,
                    what,
                    "the port of GUE is that of the service: `gue_port`",
                    &mut table.notes,
                );
            }
        }
        let asked = Asked { files: around.files, global: around.global };
        for statement in checks {
            let found = check::checks(statement, &defaults, &asked, &mut table.notes, desk);
            table.tables.extend(found);
        }
        if table.tables.is_empty() {
            table.set("check", Value::text("none"), &block.at);
        }
        Some(Real { table, port, nat: method.name == "nat" })
    }

    fn sorry(&mut self, statement: &Statement, desk: &mut Desk) {
        let (address, port) = match site::host(statement, 1) {
            Ok(found) => found,
            Err(reason) => {
                desk.left_out(statement, reason, &mut self.table.notes);
                return;
            }
        };
        desk.taken(statement, 3, &mut self.table.notes);
        let mut table = Table::one("sorry_server", &statement.at, statement.written());
        table.set("address", Value::text(address.to_string()), &statement.at);
        let method = self.sorry_method.unwrap_or(self.method);
        if method != self.method {
            table.set("method", Value::text(method.name), &statement.at);
        }
        self.sorry = Some(Real { table, port, nat: method.name == "nat" });
    }

    /// The service for one address and port; `first`: the first of several.
    fn at(&self, site: &Site, first: bool, desk: &mut Desk) -> Table {
        let at = &site.at;
        let mut table =
            Table { title: self.table.title.clone(), at: self.table.at.clone(), ..Table::many("service", at, "") };
        table.notes = if first { self.table.notes.clone() } else { Vec::new() };
        table.set("address", Value::text(site.address.to_string()), at);
        table.set("protocol", Value::text(self.protocol), at);
        table.set("port", site.port_value(), at);
        table.keys.extend(self.table.keys.iter().cloned());
        let place = table.keys.iter().position(|key| key.name == "scheduler").map_or(table.keys.len(), |at| at + 1);
        let method = Key { name: "method", value: Value::text(self.method.name), at: self.table.at.clone() };
        table.keys.insert(place, method);
        if let Some(sorry) = &self.sorry {
            table.tables.push(placed(sorry, site, first, &mut table.notes, desk));
        }
        let mut servers: Vec<Table> =
            self.reals.iter().map(|real| placed(real, site, first, &mut table.notes, desk)).collect();
        for server in servers.iter_mut().filter(|_| !first) {
            server.notes.clear();
            server.tables.iter_mut().for_each(|check| check.notes.clear());
        }
        table.tables.extend(check::shared(&mut servers));
        table.tables.extend(servers);
        table
    }
}

/// A server in one service: its port is written where NAT changes it.
fn placed(real: &Real, site: &Site, first: bool, notes: &mut Vec<Note>, desk: &mut Desk) -> Table {
    let mut table = real.table.clone();
    let single = site.ports.filter(|(low, high)| low == high).map(|(port, _)| port);
    let at = table.at.clone();
    if let Some(port) = real.port.filter(|port| single != Some(*port)) {
        if real.nat && single.is_some() {
            table.keys.insert(1, Key { name: "port", value: Value::Integer(port.into()), at: at.clone() });
        } else if first {
            let reason = if real.nat {
                "the service has several ports, and each packet keeps its own"
            } else {
                "direct routing and tunnels do not change ports, in IPVS neither: checks alone go to it"
            };
            desk.drop_words(&at, port.to_string(), reason, notes);
        }
        for check in table.tables.iter_mut().filter(|check| check::has_port(check)) {
            check.set_unless("port", Value::Integer(port.into()), &at);
        }
    }
    table
}

/// A program for a key, and the user that is written with it.
fn program(statement: &Statement, key: &'static str, table: &mut Table, desk: &mut Desk) -> Option<String> {
    let Program { command, user } = desk.program(statement, &mut table.notes)?;
    table.set(key, command, &statement.at);
    user
}

/// The user of a service's programs: one for all.
fn set_user(user: &str, statement: &Statement, table: &mut Table, desk: &mut Desk) {
    table.set_unless("script_user", Value::text(user), &statement.at);
    if let Some(other) = table.get_text("script_user").filter(|known| *known != user).map(str::to_owned) {
        let text = format!("the programs of a service run as one user, `{other}`");
        desk.drop_words(&statement.at, user.to_owned(), text, &mut table.notes);
    }
}

/// `persistence_granularity 255.255.255.0`, or the length of a prefix for IPv6.
fn granularity(statement: &Statement, table: &mut Table, desk: &mut Desk) {
    let word = statement.word(1);
    let found = match word.parse::<IpAddr>() {
        Ok(IpAddr::V4(mask)) => {
            let bits = u32::from(mask);
            (bits.leading_ones() + bits.trailing_zeros() >= 32)
                .then(|| ("persistence_prefix_v4", i64::from(bits.leading_ones())))
        }
        _ => word
            .parse::<i64>()
            .ok()
            .filter(|length| (1..=128).contains(length))
            .map(|length| ("persistence_prefix_v6", length)),
    };
    match found {
        Some((key, length)) => {
            desk.taken(statement, 2, &mut table.notes);
            table.set(key, Value::Integer(length), &statement.at);
        }
        None => desk.left_out(
            statement,
            "it is no mask such as 255.255.255.0, and no length of an IPv6 prefix",
            &mut table.notes,
        ),
    }
}
