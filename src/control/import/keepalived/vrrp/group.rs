//! `vrrp_sync_group`.
//!
//! Owns which instances are in which group. Pure.

use super::super::desk::Desk;
use super::super::global::Global;
use super::super::keywords::Context;
use super::super::track::{self, Tracker, Weights};
use super::super::tree::Statement;
use crate::control::import::document::{Table, Value};
use crate::control::import::report::Note;

/// Who is in a group.
#[derive(Debug)]
pub struct Group {
    /// The instances, by keepalived's names.
    pub members: Vec<String>,
    /// Whether the weights of what its members track count.
    pub weighted: bool,
}

/// Who is in a group, before anything is translated.
pub fn membership(block: &Statement) -> Group {
    let group = block.inner().iter().find(|statement| statement.keyword() == "group");
    let names = group.into_iter().flat_map(Statement::inner).flat_map(|statement| statement.words.clone());
    let weighted =
        |statement: &Statement| ["sync_group_tracking_weight", "global_tracking"].contains(&statement.keyword());
    Group { members: names.collect(), weighted: block.inner().iter().any(weighted) }
}

/// A `vrrp_sync_group`.
pub fn group(
    block: &Statement,
    weights: &Weights,
    global: &mut Global,
    desk: &mut Desk,
    notes: &mut Vec<Note>,
) -> Option<Table> {
    if block.word(1).is_empty() {
        desk.left_out(block, "it has no name", notes);
        return None;
    }
    block.taken();
    let mut table = Table::many("sync_group", &block.at, block.written());
    let name = desk.name(block.word(1), &block.at, &mut table.notes);
    table.set("name", Value::Text(name), &block.at);
    let tracker = Tracker { own: None, weightless: false, weights };
    for statement in block.inner() {
        match statement.keyword() {
            "group" if table.get("routers").is_some() => {
                desk.left_out(statement, "keepalived ignores it: there is one above", &mut table.notes);
            }
            "group" => {
                statement.taken();
                for member in statement.inner() {
                    member.taken();
                    for name in &member.words {
                        let name = desk.name(name, &member.at, &mut table.notes);
                        table.push("routers", Value::Text(name), &member.at);
                    }
                }
            }
            "track_interface" => track::list(statement, "track_interface", tracker, &mut table, desk),
            "track_script" => track::list(statement, "track_script", tracker, &mut table, desk),
            "track_file" => track::list(statement, "track_file", tracker, &mut table, desk),
            "track_process" => track::list(statement, "track_process", tracker, &mut table, desk),
            "notify_master" | "notify_backup" | "notify_fault" | "notify_stop" | "notify" => {
                super::notify(statement, &mut table, global, desk);
            }
            // Weights count anyway.
            "sync_group_tracking_weight" => desk.taken(statement, 1, &mut table.notes),
            _ => desk.other(statement, Context::SyncGroup, &mut table.notes),
        }
    }
    Some(table)
}
