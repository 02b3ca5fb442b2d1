//! `global_defs`: settings of the whole program, and defaults for every router.
//!
//! Owns which of them Evenkeel has. Pure.

use super::desk::Desk;
use super::keywords::Context;
use super::tree::Statement;
use crate::control::import::document::{Table, Value};
use crate::control::import::report::{Note, Place};

/// The group addresses of VRRP: RFC 9568, sections 5.1.1.2 and 5.1.2.2.
const GROUPS: [&str; 2] = ["224.0.0.18", "ff02::12"];

/// What `global_defs` says to the rest of the file.
#[derive(Debug, Default)]
pub struct Global {
    /// Defaults of each router: key, value, place.
    pub of_routers: Vec<(&'static str, Value, Place)>,
    /// Version of routers that give none.
    pub version: Option<i64>,
    /// Whether routers are strict.
    pub strict: bool,
    /// User of programs that give none.
    pub script_user: Option<(String, Place)>,
    /// Interface of what gives none.
    pub default_interface: Option<String>,
    /// `[vrrp]`.
    pub vrrp: Option<Table>,
    /// `[timeouts]`.
    pub timeouts: Option<Table>,
}

impl Global {
    /// `[vrrp]`, made where it is not there yet.
    pub fn vrrp(&mut self, at: &Place) -> &mut Table {
        self.vrrp.get_or_insert_with(|| Table::one("vrrp", at, "global_defs"))
    }
}

/// Reads a `global_defs`. A file may have several.
pub fn read(block: &Statement, global: &mut Global, desk: &mut Desk, notes: &mut Vec<Note>) {
    block.taken();
    for statement in block.inner() {
        one(statement, global, desk, notes);
    }
}

fn one(statement: &Statement, global: &mut Global, desk: &mut Desk, notes: &mut Vec<Note>) {
    let at = &statement.at;
    let default = |key: &'static str, value: Value, global: &mut Global| {
        global.of_routers.retain(|(known, ..)| *known != key);
        global.of_routers.push((key, value, at.clone()));
    };
    match statement.keyword() {
        "vrrp_version" => global.version = desk.integer(statement, 2..=3, notes).or(global.version),
        "vrrp_garp_master_delay" => {
            if let Some(seconds) = desk.seconds(statement, notes) {
                default("announce_delay", Value::Seconds(seconds), global);
            }
        }
        "vrrp_garp_master_refresh" => {
            if let Some(seconds) = desk.seconds(statement, notes) {
                default("announce_refresh", Value::Seconds(seconds), global);
            }
        }
        "vrrp_garp_master_repeat" => {
            if let Some(count) = desk.integer(statement, 1..=100, notes) {
                default("announce_repeat", Value::Integer(count), global);
            }
        }
        "vrrp_garp_master_refresh_repeat" => {
            if let Some(count) = desk.integer(statement, 1..=100, notes) {
                default("announce_refresh_repeat", Value::Integer(count), global);
            }
        }
        "vrrp_down_timer_adverts" => {
            if let Some(count) = desk.integer(statement, 1..=100, notes) {
                default("down_adverts", Value::Integer(count), global);
            }
        }
        "vrrp_min_garp" => {
            if desk.flag(statement, notes) == Some(true) {
                default("announce_repeat", Value::Integer(1), global);
                default("announce_delay", Value::Seconds(0.0), global);
            }
        }
        "vrrp_strict" => {
            if let Some(strict) = desk.flag(statement, notes) {
                global.strict = strict;
                explain_strict(statement, strict, desk, notes);
            }
        }
        "vrrp_mcast_group4" | "vrrp_mcast_group6" if GROUPS.contains(&statement.word(1)) => {
            desk.taken(statement, 2, notes);
        }
        "vrrp_mcast_group4" | "vrrp_mcast_group6" => {
            desk.left_out(statement, "adverts go to the group address of the RFC, or to `peers`", notes);
        }
        // A source that is no peer is always refused.
        "vrrp_check_unicast_src" => {
            desk.flag(statement, notes);
        }
        "default_interface" => {
            global.default_interface = desk.word(statement, notes).or(global.default_interface.take())
        }
        "vrrp_rt_priority" => {
            if let Some(priority) = desk.integer(statement, 0..=99, notes) {
                global.vrrp(at).set("realtime", Value::Integer(priority), at);
            }
        }
        "script_user" => {
            if let Some(user) = statement.words.get(1).cloned() {
                statement.taken();
                group(statement, desk, notes);
                global.script_user = Some((user, at.clone()));
            } else {
                desk.left_out(statement, "it has no value", notes);
            }
        }
        "vrrp_notify_fifo" | "notify_fifo" => fifo(statement, global, desk, notes),
        "lvs_timeouts" => timeouts(statement, global, desk, notes),
        _ => desk.other(statement, Context::Global, notes),
    }
}

/// What strict routers do here.
pub fn explain_strict(statement: &Statement, strict: bool, desk: &mut Desk, notes: &mut Vec<Note>) {
    if strict {
        let text =
            "the addresses do not answer ping (`accept = false`); the other rules of strict mode are not looked at";
        desk.remark(statement, text, notes);
    }
}

/// A group behind a user.
fn group(statement: &Statement, desk: &mut Desk, notes: &mut Vec<Note>) {
    if statement.words.len() > 2 {
        let what = statement.words[2..].join(" ");
        desk.drop_words(&statement.at, what, "a program runs with the groups of its user", notes);
    }
}

fn fifo(statement: &Statement, global: &mut Global, desk: &mut Desk, notes: &mut Vec<Note>) {
    let path = statement.word(1);
    if !path.starts_with('/') || path.ends_with('/') {
        desk.left_out(statement, "it has no absolute path", notes);
        return;
    }
    if statement.keyword() == "notify_fifo" {
        desk.remark(statement, "it tells of virtual routers; `evenkeel events` tells of servers and services", notes);
    }
    statement.taken();
    if statement.words.len() > 2 {
        let what = statement.words[2..].join(" ");
        desk.drop_words(&statement.at, what, "the FIFO belongs to the user that runs Evenkeel", notes);
    }
    let at = statement.at.clone();
    global.vrrp(&at).set("fifo", Value::text(path), &at);
}

/// `lvs_timeouts tcp 900 tcpfin 120 udp 300`.
fn timeouts(statement: &Statement, global: &mut Global, desk: &mut Desk, notes: &mut Vec<Note>) {
    statement.taken();
    let at = &statement.at;
    let table = global.timeouts.get_or_insert_with(|| Table::one("timeouts", at, "lvs_timeouts"));
    for pair in statement.arguments().chunks(2) {
        let key = match pair[0].as_str() {
            "tcp" => Some("tcp_established"),
            "tcpfin" | "tcp_fin" => Some("tcp_fin_wait"),
            "udp" => Some("udp"),
            _ => None,
        };
        let seconds =
            pair.get(1).and_then(|seconds| seconds.parse::<i64>().ok()).filter(|s| (1..=2_000_000).contains(s));
        match (key, seconds) {
            (Some(key), Some(seconds)) => table.set(key, Value::Integer(seconds), at),
            _ => desk.drop_words(at, pair.join(" "), "it is none of `tcp`, `tcpfin` and `udp` with seconds", notes),
        }
    }
}
