//! Checkers: `TCP_CHECK`, `HTTP_GET` and the others.
//!
//! Owns keepalived's own times for each kind, which are written out, for Evenkeel's are others. Pure.

mod kinds;

use super::super::desk::Desk;
use super::super::global::Global;
use super::super::keywords::Context;
use super::super::track::Files;
use super::super::tree::Statement;
use crate::control::import::document::{Table, Value};
use crate::control::import::report::{Note, Place};

/// Times and such that a virtual server, a real server and a checker can give, each for what is in it.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    delay_loop: Option<f64>,
    connect_timeout: Option<f64>,
    retry: Option<i64>,
    delay_before_retry: Option<f64>,
    warmup: Option<f64>,
    alpha: Option<bool>,
    virtualhost: Option<String>,
}

impl Defaults {
    /// Reads a statement, if it is one of these.
    pub fn statement(&mut self, statement: &Statement, table: &mut Table, desk: &mut Desk) -> bool {
        let notes = &mut table.notes;
        match statement.keyword() {
            "delay_loop" => self.delay_loop = desk.seconds(statement, notes).or(self.delay_loop),
            "connect_timeout" => self.connect_timeout = desk.seconds(statement, notes).or(self.connect_timeout),
            "retry" | "nb_get_retry" => self.retry = desk.integer(statement, 0..=100, notes).or(self.retry),
            "delay_before_retry" => {
                self.delay_before_retry = desk.seconds(statement, notes).or(self.delay_before_retry)
            }
            "warmup" => self.warmup = desk.seconds(statement, notes).or(self.warmup),
            "alpha" => self.alpha = desk.flag(statement, notes).or(self.alpha),
            "virtualhost" => self.virtualhost = desk.word(statement, notes).or(self.virtualhost.take()),
            _ => return false,
        }
        true
    }
}

/// What the rest of the file says to a checker.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The files of `track_file`.
    pub files: &'a Files,
    /// `global_defs`.
    pub global: &'a Global,
}

/// Whether a check goes to a port.
pub fn has_port(check: &Table) -> bool {
    !matches!(check.get_text("type"), Some("ping" | "file" | "script"))
}

/// The checks of a checker: one, or one for each `host` of an old `SMTP_CHECK`.
pub fn checks(
    block: &Statement,
    defaults: &Defaults,
    asked: &Asked<'_>,
    notes: &mut Vec<Note>,
    desk: &mut Desk,
) -> Vec<Table> {
    let mut table = Table::many("check", &block.at, block.written());
    let name = match block.keyword() {
        "TCP_CHECK" => "tcp",
        "HTTP_GET" => "http",
        "SSL_GET" => "https",
        "SMTP_CHECK" => "smtp",
        "DNS_CHECK" => "dns",
        "MISC_CHECK" => "script",
        "UDP_CHECK" => "udp",
        "PING_CHECK" => "ping",
        _ => "file",
    };
    table.set("type", Value::text(name), &block.at);
    block.taken();
    let mut own = defaults.clone();
    let mut hosts = Vec::new();
    let mut kind = kinds::Kind::new(name);
    for statement in block.inner() {
        if own.statement(statement, &mut table, desk) {
            continue;
        }
        match statement.keyword() {
            "connect_ip" if name != "file" => desk.set_address("address", statement, &mut table),
            "connect_port" if has_port(&table) => desk.set_integer("port", statement, 1..=65_535, &mut table),
            "bindto" if !matches!(name, "file" | "script") => desk.set_address("source", statement, &mut table),
            "host" if name == "smtp" => hosts.push(statement),
            _ if kind.statement(statement, &mut table, asked, desk) => {}
            keyword if Context::Checker.translated().contains(&keyword) => {
                let text = format!("`{}` has no such keyword", block.keyword());
                desk.left_out(statement, text, &mut table.notes);
            }
            _ => desk.other(statement, Context::Checker, &mut table.notes),
        }
    }
    if let Err(reason) = kind.finish(&mut table, own.virtualhost.as_deref(), desk) {
        desk.left_out(block, reason, notes);
        return Vec::new();
    }
    if name == "file" {
        table.set("interval", Value::Seconds(1.0), &block.at);
    } else {
        pace(&own, name, &mut table, &block.at);
    }
    if hosts.is_empty() {
        return vec![table];
    }
    let one = |host: &Statement| {
        host.taken();
        let mut table = Table { at: host.at.clone(), ..table.clone() };
        for statement in host.inner() {
            match statement.keyword() {
                "connect_ip" => desk.set_address("address", statement, &mut table),
                "connect_port" => desk.set_integer("port", statement, 1..=65_535, &mut table),
                "bindto" => desk.set_address("source", statement, &mut table),
                _ => desk.other(statement, Context::Checker, &mut table.notes),
            }
        }
        table
    };
    hosts.into_iter().map(one).collect()
}

/// The times of a check, with keepalived's defaults written out.
fn pace(own: &Defaults, kind: &str, table: &mut Table, at: &Place) {
    let interval = own.delay_loop.unwrap_or(60.0);
    let retries = own.retry.unwrap_or(match kind {
        "dns" => 3,
        "script" => 0,
        _ => 1,
    });
    let delay = own.delay_before_retry.unwrap_or(match kind {
        "dns" => interval,
        "http" | "https" => 3.0,
        _ => 1.0,
    });
    table.set("interval", Value::Seconds(interval), at);
    // `misc_timeout` of a script is there already.
    let timeout = if kind == "script" { interval } else { own.connect_timeout.unwrap_or(5.0) };
    table.set_unless("timeout", Value::Seconds(timeout), at);
    table.set("rise", Value::Integer(1), at);
    table.set("fall", Value::Integer(1), at);
    table.set("retries", Value::Integer(retries), at);
    table.set("retry_delay", Value::Seconds(delay), at);
    table.set("jitter", Value::Seconds(0.0), at);
    table.set("warmup", Value::Seconds(own.warmup.unwrap_or(interval)), at);
    table.set("first_state", Value::text(if own.alpha == Some(true) { "down" } else { "up" }), at);
}

/// The checks that all servers have alike, taken from them: they become the service's.
pub fn shared(servers: &mut [Table]) -> Vec<Table> {
    fn alike(a: &Table, b: &Table) -> bool {
        let keys = |table: &Table| table.keys.iter().map(|key| (key.name, key.value.clone())).collect::<Vec<_>>();
        a.name == b.name
            && a.notes.is_empty()
            && b.notes.is_empty()
            && keys(a) == keys(b)
            && a.tables.len() == b.tables.len()
            && a.tables.iter().zip(&b.tables).all(|(a, b)| alike(a, b))
    }
    let Some((first, others)) = servers.split_first_mut() else { return Vec::new() };
    let same = others.iter().all(|other| {
        other.tables.len() == first.tables.len() && first.tables.iter().zip(&other.tables).all(|(a, b)| alike(a, b))
    });
    if others.is_empty() || first.tables.is_empty() || !same {
        return Vec::new();
    }
    others.iter_mut().for_each(|other| other.tables.clear());
    let mut found = std::mem::take(&mut first.tables);
    for check in &mut found {
        check.title = format!("{}, the same for each real_server", check.title);
    }
    found
}
