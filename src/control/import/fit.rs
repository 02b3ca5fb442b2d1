//! Makes a configuration sound: what the reader of configurations refuses is taken out, and reported with its reason.
//!
//! Owns the promise that what an import prints is taken by `evenkeel check`. The parts of the import know most rules
//! themselves; this is for the others, and for those that two parts of a file break together. Pure.

use std::collections::BTreeMap;

use super::document::{Document, Owner, Table, Value};
use super::report::{Broken, Note, Place, Weight};
use crate::control::config::{self, Outcome, Problem};

/// Rounds of taking out before giving up: each ends what the one before it brought about.
const MOST_ROUNDS: usize = 40;

/// Keys without which their table says nothing.
const VITAL: &[(&str, &[&str])] = &[
    ("interface", &["name"]),
    ("service", &["address", "port"]),
    ("server", &["address"]),
    ("sorry_server", &["address", "port", "method"]),
    ("check", &["type", "command", "file", "address"]),
    ("request", &["url"]),
    ("virtual_router", &["name", "interface", "vrid", "address", "version"]),
    ("sync_group", &["name", "routers"]),
    ("track_script", &["name", "script"]),
    ("track_file", &["name", "path"]),
    ("track_process", &["name", "process"]),
];

/// A sound configuration.
#[derive(Debug)]
pub struct Fitted {
    /// Its text.
    pub text: String,
    /// What the reader warns of.
    pub warnings: Vec<Problem>,
}

/// Writes a configuration, without what is refused in it. What is taken out is added to `report`.
pub fn fit(document: &mut Document, source: &Place, report: &mut Vec<Note>) -> Result<Fitted, Broken> {
    for _ in 0..MOST_ROUNDS {
        let written = document.write();
        let outcome = config::parse(&written.text, 0);
        if outcome.desired.is_some() {
            return Ok(Fitted { text: written.text, warnings: outcome.problems });
        }
        let refused = refused(&outcome, &written.owners, document);
        if refused.is_empty() {
            return Err(unfit(&outcome, source));
        }
        // From the end, so that indices stay true.
        for (owner, problem) in refused.into_iter().rev() {
            take_out(document, &owner, &problem, report);
        }
    }
    Err(Broken::new(source, "too much of this fits no configuration of Evenkeel", "import a smaller part of it"))
}

fn unfit(outcome: &Outcome, source: &Place) -> Broken {
    let first = outcome.errors().next();
    let message = first.map_or("nothing of it can be used".to_owned(), |problem| problem.message.clone());
    let help = first.and_then(|problem| problem.help.clone()).unwrap_or_else(|| "import a part of it".to_owned());
    Broken::new(source, format!("no configuration of Evenkeel can have this: {message}"), help)
}

/// What is to be taken out, each once, with the first problem about it.
fn refused(outcome: &Outcome, owners: &[Option<Owner>], document: &mut Document) -> BTreeMap<Owner, Problem> {
    let mut found: BTreeMap<Owner, Problem> = BTreeMap::new();
    for problem in outcome.errors() {
        let Some(Some(owner)) = problem.line.checked_sub(1).and_then(|line| owners.get(line)) else { continue };
        let owner = widened(owner, document);
        found.entry(owner).or_insert_with(|| problem.clone());
    }
    // What goes with its table need not go by itself.
    let tables: Vec<Vec<usize>> = found.keys().filter(|o| o.key.is_none()).map(|o| o.table.clone()).collect();
    found.retain(|owner, _| {
        !tables
            .iter()
            .any(|table| owner.table.starts_with(table) && (owner.table.len() > table.len() || owner.key.is_some()))
    });
    let keys: Vec<Owner> = found.keys().filter(|o| o.key.is_some() && o.item.is_none()).cloned().collect();
    found.retain(|owner, _| {
        owner.item.is_none() || !keys.iter().any(|key| key.table == owner.table && key.key == owner.key)
    });
    found
}

/// The whole table, where a key is refused without which it says nothing.
fn widened(owner: &Owner, document: &mut Document) -> Owner {
    let whole = Owner { table: owner.table.clone(), key: None, item: None };
    let (Some(index), Some(table)) = (owner.key, document.table_mut(&owner.table)) else { return whole };
    let Some(key) = table.keys.get(index) else { return whole };
    let several = matches!(&key.value, Value::List(items) if items.len() > 1);
    let vital = VITAL.iter().any(|(name, keys)| *name == table.name && keys.contains(&key.name));
    match owner.item {
        Some(_) if several => owner.clone(),
        _ if vital => whole,
        _ => Owner { item: None, ..owner.clone() },
    }
}

fn take_out(document: &mut Document, owner: &Owner, problem: &Problem, report: &mut Vec<Note>) {
    let reason = match &problem.help {
        Some(help) => format!("Evenkeel would refuse it: {}; {help}", problem.message),
        None => format!("Evenkeel would refuse it: {}", problem.message),
    };
    let left_out = |at: &Place, what: String| Note { weight: Weight::LeftOut, at: at.clone(), what, reason };
    let (note, above) = match owner.key {
        None => {
            let Some(table) = document.remove(&owner.table) else { return };
            let title = if table.title.is_empty() { format!("[[{}]]", table.name) } else { table.title };
            let above = owner.table.split_last().map_or(&[][..], |(_, above)| above);
            (left_out(&table.at, title), above)
        }
        Some(index) => {
            let Some(table) = document.table_mut(&owner.table) else { return };
            let Some(key) = table.keys.get_mut(index) else { return };
            let note = match (&mut key.value, owner.item) {
                (Value::List(items), Some(item)) if item < items.len() => {
                    let item = items.remove(item);
                    left_out(&item.at, format!("{} {}", key.name, shown(&item.value)))
                }
                _ => {
                    let key = table.keys.remove(index);
                    left_out(&key.at, format!("{} {}", key.name, shown(&key.value)))
                }
            };
            (note, owner.table.as_slice())
        }
    };
    report.push(note.clone());
    match document.table_mut(above) {
        Some(table) => {
            table.notes.push(note);
            without_checks(table);
        }
        None => document.notes.push(note),
    }
}

/// A server whose checks all went would get the usual one, which nobody asked for.
fn without_checks(table: &mut Table) {
    let checked = table.get("check").is_some() || table.tables.iter().any(|inner| inner.name == "check");
    if table.name == "server"
        && !checked
        && table.notes.iter().any(|note| note.what.contains("_CHECK") || note.what.contains("_GET"))
    {
        let at = table.at.clone();
        table.set("check", Value::text("none"), &at);
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Seconds(seconds) => seconds.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::List(items) => items.iter().map(|item| shown(&item.value)).collect::<Vec<_>>().join(" "),
        Value::Whole(values) => values.iter().map(shown).collect::<Vec<_>>().join(" "),
        Value::Inline(keys) => keys.iter().map(|(_, value)| shown(value)).collect::<Vec<_>>().join(" "),
    }
}
