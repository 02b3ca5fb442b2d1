//! `vrrp_script`, `track_file` and `vrrp_track_process`, and the lists that name them.
//!
//! Owns weights: which there are, and what a sync group makes of them. Pure.

use std::collections::HashMap;

use super::desk::Desk;
use super::global::Global;
use super::keywords::Context;
use super::tree::Statement;
use crate::control::import::document::{Table, Value};
use crate::control::import::report::Note;

/// Heaviest weight of Evenkeel.
const HEAVIEST: i64 = 253;

/// Weights that what is tracked gives itself, by list and name.
pub type Weights = HashMap<(&'static str, String), i64>;

/// The file that each `track_file` names.
pub type Files = HashMap<String, String>;

/// The name of a block; reported where it has none.
fn named(block: &Statement, table: &'static str, desk: &mut Desk, notes: &mut Vec<Note>) -> Option<Table> {
    if block.word(1).is_empty() {
        desk.left_out(block, "it has no name", notes);
        return None;
    }
    block.taken();
    let mut table = Table::many(table, &block.at, block.written());
    let name = desk.name(block.word(1), &block.at, &mut table.notes);
    table.set("name", Value::Text(name), &block.at);
    Some(table)
}

/// A weight; one that is turned around cannot be said.
fn weight(statement: &Statement, table: &mut Table, desk: &mut Desk) -> Option<i64> {
    if statement.word(2) == "reverse" {
        desk.left_out(
            statement,
            "no weight is turned around: turn the meaning of what is tracked around",
            &mut table.notes,
        );
        return None;
    }
    let found = statement.word(1).parse::<i64>().ok();
    match found {
        Some(weight) if weight.abs() <= HEAVIEST => {
            desk.taken(statement, if statement.word(2).contains("reverse") { 3 } else { 2 }, &mut table.notes);
            Some(weight)
        }
        Some(weight) if weight.abs() == HEAVIEST + 1 => {
            desk.remark(statement, format!("the heaviest weight is {HEAVIEST}"), &mut table.notes);
            Some(weight.signum() * HEAVIEST)
        }
        _ => {
            let text = format!("its value is no weight from -{HEAVIEST} to {HEAVIEST}");
            desk.left_out(statement, text, &mut table.notes);
            None
        }
    }
}

/// A `vrrp_script`.
pub fn script(
    block: &Statement,
    global: &Global,
    weights: &mut Weights,
    desk: &mut Desk,
    notes: &mut Vec<Note>,
) -> Option<Table> {
    let mut table = named(block, "track_script", desk, notes)?;
    for statement in block.inner() {
        let at = &statement.at;
        match statement.keyword() {
            "script" => {
                if let Some(program) = desk.program(statement, &mut table.notes) {
                    table.set("script", program.command, at);
                    if let Some(user) = program.user {
                        table.set("user", Value::Text(user), at);
                    }
                }
            }
            "interval" | "timeout" => {
                let key = if statement.keyword() == "interval" { "interval" } else { "timeout" };
                desk.set_seconds(key, statement, &mut table);
            }
            "rise" => desk.set_integer("rise", statement, 1..=65_535, &mut table),
            "fall" => desk.set_integer("fall", statement, 1..=65_535, &mut table),
            "weight" => {
                if let Some(weight) = weight(statement, &mut table, desk) {
                    table.set("weight", Value::Integer(weight), at);
                    weights.insert(("track_script", block.word(1).to_owned()), weight);
                }
            }
            "user" => user(statement, &mut table, desk),
            // A router waits for the first result anyway.
            "init_fail" => desk.taken(statement, 1, &mut table.notes),
            _ => desk.other(statement, Context::Script, &mut table.notes),
        }
    }
    if let Some((user, at)) = &global.script_user {
        table.set_unless("user", Value::text(user), at);
    }
    Some(table)
}

/// `user NAME [GROUP]`.
pub fn user(statement: &Statement, table: &mut Table, desk: &mut Desk) {
    if statement.word(1).is_empty() {
        desk.left_out(statement, "it has no value", &mut table.notes);
        return;
    }
    statement.taken();
    table.set("user", Value::text(statement.word(1)), &statement.at);
    if statement.words.len() > 2 {
        let what = statement.words[2..].join(" ");
        desk.drop_words(&statement.at, what, "a program runs with the groups of its user", &mut table.notes);
    }
}

/// A `track_file`, which was `vrrp_track_file`.
pub fn file(
    block: &Statement,
    weights: &mut Weights,
    files: &mut Files,
    desk: &mut Desk,
    notes: &mut Vec<Note>,
) -> Option<Table> {
    let mut table = named(block, "track_file", desk, notes)?;
    let mut known = 1;
    for statement in block.inner() {
        match statement.keyword() {
            "file" => {
                desk.set_word("path", statement, &mut table);
                if let Some(path) = table.get_text("path") {
                    files.insert(block.word(1).to_owned(), path.to_owned());
                }
            }
            "weight" => {
                if let Some(weight) = weight(statement, &mut table, desk) {
                    known = weight;
                    table.set("weight", Value::Integer(weight), &statement.at);
                }
            }
            _ => desk.other(statement, Context::TrackFile, &mut table.notes),
        }
    }
    weights.insert(("track_file", block.word(1).to_owned()), known);
    Some(table)
}

/// A `vrrp_track_process`.
pub fn process(block: &Statement, weights: &mut Weights, desk: &mut Desk, notes: &mut Vec<Note>) -> Option<Table> {
    let mut table = named(block, "track_process", desk, notes)?;
    for statement in block.inner() {
        let at = &statement.at;
        match statement.keyword() {
            "process" => {
                let words = super::tree::words(statement.word(1)).unwrap_or_default();
                let Some(path) = words.first() else {
                    desk.left_out(statement, "it has no value", &mut table.notes);
                    continue;
                };
                statement.taken();
                // The kernel keeps the last part of the path, and 15 bytes of it.
                let name = path.rsplit('/').next().unwrap_or_default();
                let name: String = name
                    .chars()
                    .scan(0, |sum, c| {
                        *sum += c.len_utf8();
                        (*sum <= 15).then_some(c)
                    })
                    .collect();
                table.set("process", Value::Text(name), at);
                let more: Vec<String> = words.iter().skip(1).chain(statement.words.iter().skip(2)).cloned().collect();
                if !more.is_empty() {
                    let reason = "processes are known by their name alone, whatever their arguments";
                    desk.drop_words(at, more.join(" "), reason, &mut table.notes);
                }
            }
            "quorum" => desk.set_integer("quorum", statement, 1..=65_535, &mut table),
            "delay" => desk.set_seconds("delay", statement, &mut table),
            "fork_delay" | "terminate_delay" => {
                if let Some(seconds) = desk.seconds(statement, &mut table.notes) {
                    let longer = !matches!(table.get("delay"), Some(Value::Seconds(known)) if *known >= seconds);
                    if longer {
                        table.set("delay", Value::Seconds(seconds), at);
                    }
                    desk.remark(
                        statement,
                        "one `delay` is for the coming and the going of processes: the longer one",
                        &mut table.notes,
                    );
                }
            }
            "weight" => {
                if let Some(weight) = weight(statement, &mut table, desk) {
                    table.set("weight", Value::Integer(weight), at);
                    weights.insert(("track_process", block.word(1).to_owned()), weight);
                }
            }
            _ => desk.other(statement, Context::TrackProcess, &mut table.notes),
        }
    }
    Some(table)
}

/// Who tracks.
#[derive(Clone, Copy, Debug)]
pub struct Tracker<'t> {
    /// The interface of a router, which is tracked anyway.
    pub own: Option<&'t str>,
    /// Whether keepalived takes all weights for 0: in a group without `sync_group_tracking_weight`.
    pub weightless: bool,
    /// The weights that what is tracked gives itself.
    pub weights: &'t Weights,
}

/// A list such as `track_interface { eth1 weight -20 }`.
pub fn list(block: &Statement, key: &'static str, tracker: Tracker<'_>, table: &mut Table, desk: &mut Desk) {
    block.taken();
    for statement in block.inner() {
        one(statement, key, tracker, table, desk);
    }
    if block.block.is_none() {
        desk.left_out(block, "it has no block", &mut table.notes);
    }
}

fn one(statement: &Statement, key: &'static str, tracker: Tracker<'_>, table: &mut Table, desk: &mut Desk) {
    let (name, at) = (statement.keyword(), &statement.at);
    let mut given = None;
    let mut words = statement.arguments().iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "weight" => {
                let found = words.next().and_then(|weight| weight.parse::<i64>().ok());
                let Some(weight) = found.filter(|weight| weight.abs() <= HEAVIEST + 1) else {
                    let text = format!("its weight is none from -{HEAVIEST} to {HEAVIEST}");
                    desk.left_out(statement, text, &mut table.notes);
                    return;
                };
                given = Some(weight.clamp(-HEAVIEST, HEAVIEST));
            }
            "noreverse" | "no_reverse" => {}
            "reverse" => {
                let text = "no weight is turned around: turn the meaning of what is tracked around";
                desk.left_out(statement, text, &mut table.notes);
                return;
            }
            _ => {
                desk.drop_words(at, word.to_owned(), "keepalived reads no more words here", &mut table.notes);
            }
        }
    }
    let known = tracker.weights.get(&(key, name.to_owned())).copied().unwrap_or(0);
    if tracker.weightless && given.unwrap_or(known) != 0 {
        let text = "keepalived takes the weights of routers in a sync group for 0 without `sync_group_tracking_weight`, and so \
                    does this: a failure is a fault";
        desk.remark(statement, text, &mut table.notes);
        given = Some(0);
    }
    statement.taken();
    if tracker.own == Some(name) && key == "track_interface" {
        return;
    }
    let name = if key == "track_interface" { name.to_owned() } else { desk.name(name, at, &mut table.notes) };
    let value = match given {
        Some(weight) => Value::Inline(vec![("name", Value::Text(name)), ("weight", Value::Integer(weight))]),
        None => Value::Text(name),
    };
    table.push(key, value, at);
}
