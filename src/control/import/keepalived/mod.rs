//! keepalived.conf -> a configuration.
//!
//! Owns the order of the parts: what `global_defs` and virtual servers say is needed before an instance can be understood.
//! Files are read by the caller. Pure.

mod desk;
pub mod glob;
mod global;
pub mod keywords;
pub mod lines;
mod server;
mod track;
mod tree;
mod vrrp;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

pub use lines::Disk;

use self::desk::Desk;
use self::global::Global;
use self::keywords::Context;
use self::tree::{Fate, Statement};
use super::document::{Document, Table, Value};
use super::report::{Broken, Note, Place};

/// Most notes of one import: what has more is of another program.
const MOST_NOTES: usize = 10_000;

/// What keepalived's file does not say.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// The name of this machine for `@` conditions.
    pub config_id: String,
    /// Interfaces of the engine, besides those that the file names.
    pub interfaces: Vec<String>,
}

/// An import.
#[derive(Debug)]
pub struct Imported {
    /// The configuration.
    pub document: Document,
    /// What was said about the way.
    pub report: Vec<Note>,
    /// What became of each statement, in the order of the file.
    pub statements: Vec<Became>,
}

/// What became of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Became {
    /// Where it is.
    pub at: Place,
    /// Its words.
    pub words: String,
    /// The number of blocks that it is in.
    pub depth: usize,
    /// Whether the new file says it; else the report has it, or a block that it is in.
    pub taken: bool,
}

/// Imports a file with what it includes.
pub fn import(path: &Path, wishes: &Wishes, disk: Disk<'_>) -> Result<Imported, Broken> {
    let lines = lines::read(path, &wishes.config_id, disk)?;
    let statements = tree::parse(&lines.lines)?;
    let mut desk = Desk::default();
    desk.report.extend(lines.notes.iter().cloned());
    let mut document = Document { head: Vec::new(), notes: lines.notes.clone(), tables: Vec::new() };
    translate(&statements, wishes, &mut document, &mut desk);
    desk.sweep(&statements, &mut document.notes);
    if let Some(note) = desk.report.get(MOST_NOTES) {
        let text = format!("more than {MOST_NOTES} parts have no counterpart");
        return Err(Broken::new(&note.at, text, "this is perhaps no file of keepalived; else import a part of it"));
    }
    document.head = head(&lines, wishes);
    let mut known = Vec::new();
    for statement in &statements {
        let mut look = |one: &Statement, depth: usize| {
            let taken = one.fate() == Fate::Taken;
            known.push(Became { at: one.at.clone(), words: one.written(), depth, taken });
        };
        statement.each(0, &mut look);
    }
    Ok(Imported { document, report: desk.report, statements: known })
}

/// The comment at the head of the file.
fn head(lines: &lines::Lines, wishes: &Wishes) -> Vec<String> {
    let mut head = vec![
        format!("Imported from keepalived's {} by `evenkeel import keepalived`.", lines.files.join(", ")),
        String::new(),
        "Each part names the line that it comes from. Times of checks are written out, for keepalived's defaults are others".into(),
        "than Evenkeel's. What has no counterpart is named where it was. Then: `evenkeel check FILE`.".into(),
    ];
    let (others, count) = &lines.others;
    if *count > 0 {
        let names: Vec<&str> = others.iter().map(String::as_str).take(20).collect();
        head.push(String::new());
        head.push(format!(
            "This is the file of `{}`: {count} lines for other machines ({}) are not in it. `--config-id NAME` makes theirs.",
            wishes.config_id,
            super::report::printable(&names.join(", "))
        ));
    }
    head
}

fn of<'s>(statements: &'s [Statement], keywords: &'static [&'static str]) -> impl Iterator<Item = &'s Statement> {
    statements.iter().filter(|statement| keywords.contains(&statement.keyword()))
}

fn translate(statements: &[Statement], wishes: &Wishes, document: &mut Document, desk: &mut Desk) {
    let notes = &mut document.notes;
    let mut global = Global::default();
    for block in of(statements, &["global_defs"]) {
        global::read(block, &mut global, desk, notes);
    }
    if let Some((user, at)) = global.script_user.clone() {
        global.vrrp(&at).set("notify_user", Value::Text(user), &at);
    }
    let (mut weights, mut files) = (track::Weights::new(), track::Files::new());
    let mut tracked: Vec<Table> = Vec::new();
    for block in of(statements, &["vrrp_script"]) {
        tracked.extend(track::script(block, &global, &mut weights, desk, notes));
    }
    for block in of(statements, &["track_file", "vrrp_track_file"]) {
        tracked.extend(track::file(block, &mut weights, &mut files, desk, notes));
    }
    for block in of(statements, &["vrrp_track_process", "track_process"]) {
        tracked.extend(track::process(block, &mut weights, desk, notes));
    }
    let mut groups = HashMap::new();
    for block in of(statements, &["virtual_server_group"]) {
        server::site::group(block, &mut groups, desk, notes);
    }
    let (mut served, mut nat, mut services) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut room = server::MOST;
    for block in of(statements, &["virtual_server"]) {
        let around = server::Around { groups: &groups, files: &files, global: &global };
        let found = server::virtual_server(block, &around, &mut room, desk, notes);
        served.extend(found.addresses);
        nat.extend(found.nat);
        services.extend(found.tables);
    }
    let sync: Vec<&Statement> = of(statements, &["vrrp_sync_group"]).collect();
    let serving: HashSet<String> = of(statements, &["vrrp_instance"])
        .filter(|block| vrrp::serves(block, &served))
        .map(|block| block.word(1).to_owned())
        .collect();
    let groups = vrrp::Membership::new(&sync, &serving);
    let interfaces = &wishes.interfaces;
    let around = vrrp::Around { served: &served, nat: &nat, groups: &groups, weights: &weights, interfaces };
    let mut routers = Vec::new();
    let mut interfaces: Vec<(String, Place)> = Vec::new();
    for block in of(statements, &["vrrp_instance"]) {
        let Some(router) = vrrp::instance(block, &around, &mut global, desk, notes) else { continue };
        interfaces.extend(router.interfaces.into_iter().map(|name| (name, router.table.at.clone())));
        routers.push(router.table);
    }
    let mut groups = Vec::new();
    for block in sync {
        groups.extend(vrrp::group(block, &weights, &mut global, desk, notes));
    }
    for statement in statements.iter().filter(|one| !Context::Top.translated().contains(&one.keyword())) {
        desk.other(statement, Context::Top, notes);
    }
    document.tables = self::interfaces(&interfaces, wishes, !services.is_empty(), statements);
    document.tables.extend(global.timeouts);
    document.tables.extend(global.vrrp);
    for list in [tracked, routers, groups, services] {
        document.tables.extend(list);
    }
}

/// `[[interface]]` for each that a router in the engine has; a VLAN is on its parent.
fn interfaces(known: &[(String, Place)], wishes: &Wishes, services: bool, statements: &[Statement]) -> Vec<Table> {
    let whole = statements.first().map_or_else(|| Place::new("keepalived.conf", 0), |first| first.at.clone());
    let mut found: Vec<Table> = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |name: &str, at: &Place, title: &str, note: Option<Note>| {
        let name = name.split_once('.').map_or(name, |(parent, _)| parent);
        if !name.is_empty() && seen.insert(name.to_owned()) {
            let mut table = Table::many("interface", at, title);
            table.set("name", Value::text(name), at);
            table.notes.extend(note);
            found.push(table);
        }
    };
    for (name, at) in known {
        add(name, at, "the interface of a virtual router", None);
    }
    for name in &wishes.interfaces {
        add(name, &Place { line: 0, ..whole.clone() }, "--interface", None);
    }
    if found.is_empty() && services {
        return vec![super::unknown_interface(&Place { line: 0, ..whole })];
    }
    found
}
