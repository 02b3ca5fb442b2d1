//! The walk: a spanned TOML tree and the schema give entries of checked values, and every mistake on the way.
//!
//! Owns unknown keys, missing keys and tables in the wrong form. Never compares one entry with another: that is
//! [`crate::control::resolve`]. Pure.

use std::net::IpAddr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Collector, nearest};
use super::schema::{FILE, Form, Key, Presence, Table};
use super::value::{Value, check, describe};
use crate::model::{MacAddr, PortRange, Prefix};

/// A value and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Byte offset of it; of its table when it is a default.
    pub at: usize,
    /// Whether the file has it; else it is a default.
    pub written: bool,
}

/// One table of the file: its checked values and its inner tables.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path of the table, for example `service[0]`.
    pub path: String,
    /// Byte offset of its header.
    pub at: usize,
    values: Vec<(&'static str, At<Value>)>,
    refused: Vec<&'static str>,
    tables: Vec<(&'static str, Vec<Entry>)>,
    /// It was written as the value of one key alone.
    short: bool,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident -> $type:ty, $variant:ident($inner:ident) => $give:expr;)*) => {
        $($(#[$doc])*
        pub fn $name(&self, key: &str) -> Option<At<$type>> {
            let (_, found) = self.values.iter().find(|(name, _)| *name == key)?;
            match &found.value {
                Value::$variant($inner) => Some(At { value: $give, at: found.at, written: found.written }),
                _ => None,
            }
        })*
    };
}

/// Each getter gives nothing when the key has neither value nor default, or when its value was refused.
impl Entry {
    getters! {
        /// The boolean under a key.
        boolean -> bool, Boolean(b) => *b;
        /// The integer under a key.
        integer -> u32, Integer(n) => *n;
        /// The integer under a key; inside, `None` is the word in its place.
        integer_or -> Option<u32>, IntegerOr(n) => *n;
        /// The list of integers under a key; inside, `None` is the word for all.
        integers -> Option<Vec<u32>>, Integers(list) => list.clone();
        /// The word under a key.
        word -> &'static str, Word(word) => *word;
        /// The words under a key.
        words -> Vec<&'static str>, Words(words) => words.clone();
        /// The address under a key.
        address -> IpAddr, Address(address) => *address;
        /// The addresses under a key.
        addresses -> Vec<IpAddr>, Addresses(addresses) => addresses.clone();
        /// The prefixes under a key, each with its place.
        prefixes -> Vec<(Prefix, usize)>, Prefixes(list) => list.clone();
        /// The paths under a key, each with its place.
        paths -> Vec<(String, usize)>, Paths(list) => list.clone();
        /// The Ethernet address under a key.
        mac -> MacAddr, Mac(mac) => *mac;
        /// The ports under a key.
        ports -> PortRange, Ports(ports) => *ports;
        /// The bytes under a key.
        bytes -> Vec<u8>, Bytes(bytes) => bytes.clone();
        /// The text under a key.
        text -> String, Text(text) => text.clone();
        /// The integer under a key that may be negative.
        signed -> i32, Signed(n) => *n;
        /// The seconds under a key.
        seconds -> Duration, Seconds(seconds) => *seconds;
        /// The program and arguments under a key.
        command -> Vec<String>, Command(words) => words.clone();
        /// The status codes under a key.
        ranges -> Vec<(u16, u16)>, Ranges(ranges) => ranges.clone();
        /// The names and texts under a key.
        pairs -> Vec<(String, String)>, Pairs(pairs) => pairs.clone();
    }

    /// The address under a key, and the prefix length where one is written.
    pub fn host(&self, key: &str) -> Option<At<(IpAddr, Option<u8>)>> {
        let (_, found) = self.values.iter().find(|(name, _)| *name == key)?;
        match found.value {
            Value::Host(address, length) => Some(At { value: (address, length), at: found.at, written: found.written }),
            _ => None,
        }
    }

    /// Where the value of a key stands, if the file has a sound one.
    pub fn written(&self, key: &str) -> Option<usize> {
        self.values.iter().find(|(name, found)| *name == key && found.written).map(|(_, found)| found.at)
    }

    /// Whether the file has a value under a key that was refused.
    pub fn was_refused(&self, key: &str) -> bool {
        self.refused.contains(&key)
    }

    /// The inner tables of a name, in the order of the file.
    pub fn tables(&self, name: &str) -> &[Entry] {
        self.tables.iter().find(|(table, _)| *table == name).map_or(&[], |(_, entries)| entries)
    }

    /// The path of a key of this table.
    pub fn key(&self, name: &str) -> String {
        if self.short { self.path.clone() } else { join(&self.path, name) }
    }
}

/// Walks a whole document.
pub fn walk(root: &DeTable<'_>, out: &mut Collector<'_>) -> Entry {
    entry(&FILE, root, String::new(), 0, out)
}

fn join(path: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let name = if bare { name.to_owned() } else { format!("{:?}", name.chars().take(60).collect::<String>()) };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

fn entry(schema: &'static Table, table: &DeTable<'_>, path: String, at: usize, out: &mut Collector<'_>) -> Entry {
    let mut found = Entry { path, at, values: Vec::new(), refused: Vec::new(), tables: Vec::new(), short: false };
    let mut seen = Vec::new();
    for (name, value) in table {
        let path = found.key(name.get_ref());
        if let Some(key) = schema.key(name.get_ref()) {
            seen.push(key.name);
            match check(&key.kind, value, &path, out) {
                Some(checked) => {
                    found.values.push((key.name, At { value: checked, at: value.span().start, written: true }));
                }
                None => found.refused.push(key.name),
            }
        } else if let Some(inner) = schema.table(name.get_ref()) {
            seen.push(inner.name);
            found.tables.push((inner.name, tables(inner, value, &path, out)));
        } else {
            // A key that was misspelt is not missing as well.
            seen.extend(unknown(schema, name, &path, out));
        }
    }
    for key in schema.keys.iter().filter(|key| !seen.contains(&key.name)) {
        absent(key, &mut found, out);
    }
    for inner in schema.tables.iter().filter(|inner| !seen.contains(&inner.name)) {
        let entries = match inner.form {
            // A table that is not there has its defaults.
            Form::Once => vec![entry(inner, &DeTable::new(), inner.name.to_owned(), at, out)],
            Form::Many { min, .. } => {
                if min > 0 {
                    none_of(inner, min, &found, out);
                }
                Vec::new()
            }
            Form::Maybe => Vec::new(),
        };
        found.tables.push((inner.name, entries));
    }
    found
}

/// Reports that there is not one table of a name.
fn none_of(schema: &'static Table, min: usize, within: &Entry, out: &mut Collector<'_>) {
    let path = within.key(schema.name);
    let problem = out.absent(within.at, schema.name, path.clone(), format!("there is no `[[{}]]`", header(&path)));
    problem.expected(format!("{min} or more"));
    match schema.short {
        Some(_) => problem.help(format!("add `{} = [...]`", schema.name)),
        None => problem.help(format!("add `[[{}]]` with {}", header(&path), required(schema))),
    };
}

/// Reports that there is no `[[interface]]`.
pub fn no_interface(file: &Entry, out: &mut Collector<'_>) {
    if let Some(schema) = FILE.table("interface") {
        none_of(schema, 1, file, out);
    }
}

/// A value that stands in the place of a whole table.
fn short(schema: &'static Table, value: &Spanned<DeValue<'_>>, path: String, out: &mut Collector<'_>) -> Option<Entry> {
    let key =
        schema.short.and_then(|name| schema.key(name)).filter(|_| matches!(value.get_ref(), DeValue::String(_)))?;
    let at = value.span().start;
    let mut found = Entry { path, at, values: Vec::new(), refused: Vec::new(), tables: Vec::new(), short: true };
    match check(&key.kind, value, &found.path, out) {
        Some(checked) => found.values.push((key.name, At { value: checked, at, written: true })),
        None => found.refused.push(key.name),
    }
    for other in schema.keys.iter().filter(|other| other.name != key.name) {
        absent(other, &mut found, out);
    }
    Some(found)
}

fn required(schema: &Table) -> String {
    let names: Vec<String> = schema
        .keys
        .iter()
        .filter(|key| matches!(key.presence, Presence::Required))
        .map(|key| format!("`{}`", key.name))
        .collect();
    names.join(" and ")
}

fn absent(key: &'static Key, found: &mut Entry, out: &mut Collector<'_>) {
    match key.presence {
        Presence::Required => {
            out.absent(found.at, key.name, found.key(key.name), "this key is missing".to_owned())
                .expected(super::value::expectation(&key.kind))
                .help(format!("add `{} = ...`", key.name));
        }
        Presence::Default(text) => {
            if let Some(value) = default_value(key, text) {
                found.values.push((key.name, At { value, at: found.at, written: false }));
            }
        }
        Presence::Otherwise(_) => {}
    }
}

/// A default of the schema as a value. A test shows that each default is valid.
pub fn default_value(key: &Key, text: &str) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    check(&key.kind, &value, key.name, &mut Collector::new(text))
}

/// The entries of an inner table, whatever form it was written in, so that mistakes inside are found in any case.
fn tables(schema: &'static Table, value: &Spanned<DeValue<'_>>, path: &str, out: &mut Collector<'_>) -> Vec<Entry> {
    let at = value.span().start;
    if let Some(alone) = short(schema, value, path.to_owned(), out) {
        return vec![alone];
    }
    match (value.get_ref(), &schema.form) {
        (DeValue::Table(table), Form::Once | Form::Maybe) => vec![entry(schema, table, path.to_owned(), at, out)],
        (DeValue::Table(table), Form::Many { .. }) if schema.short.is_some() => {
            vec![entry(schema, table, path.to_owned(), at, out)]
        }
        (DeValue::Table(table), Form::Many { .. }) => {
            out.error(at, path, "this is one table").expected(format!("a list: `[[{}]]`", header(path))).help(format!(
                "write `[[{}]]` with double brackets, once for each {}",
                header(path),
                schema.name
            ));
            vec![entry(schema, table, format!("{path}[0]"), at, out)]
        }
        (DeValue::Array(array), form) => {
            if schema.is_alone() {
                out.error(at, path, "this is a list of tables")
                    .expected(format!("one table: `[{}]`", header(path)))
                    .help(format!("write `[{}]` with single brackets, once", header(path)));
            }
            if let Form::Many { min, .. } = form
                && array.len() < *min
            {
                let problem = out.error(at, path, "the list is empty");
                problem.expected(format!("{min} or more")).help("write what belongs in it");
            }
            if let Form::Many { max, .. } = form
                && array.len() > *max
            {
                let beyond = array.get(*max).map_or(at, |item| item.span().start);
                out.error(beyond, path, format!("there are {} of `[[{}]]`", array.len(), header(path)))
                    .expected(format!("at most {max}"))
                    .help("remove some");
            }
            let mut entries = Vec::new();
            for (index, item) in array.iter().enumerate() {
                let path = if schema.is_alone() { path.to_owned() } else { format!("{path}[{index}]") };
                match (item.get_ref(), short(schema, item, path.clone(), out)) {
                    (_, Some(alone)) => entries.push(alone),
                    (DeValue::Table(table), None) => entries.push(entry(schema, table, path, item.span().start, out)),
                    (other, None) => wrong_form(schema, other, item.span().start, &path, out),
                }
            }
            entries
        }
        (other, _) => {
            wrong_form(schema, other, at, path, out);
            Vec::new()
        }
    }
}

fn wrong_form(schema: &Table, value: &DeValue<'_>, at: usize, path: &str, out: &mut Collector<'_>) {
    let first = schema.keys.first().map_or("key", |key| key.name);
    let example = match value {
        DeValue::String(text) => format!("{{ {first} = {} }}", super::value::quote(text)),
        _ => format!("{{ {first} = ... }}"),
    };
    out.error(at, path, format!("{} does not belong here", describe(value)))
        .expected(format!("a table, such as `{example}`"));
}

/// A path without indices, as table headers are written.
fn header(path: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    plain
}

/// Reports an unknown key, and gives the name that was probably meant.
fn unknown(
    schema: &'static Table,
    name: &Spanned<std::borrow::Cow<'_, str>>,
    path: &str,
    out: &mut Collector<'_>,
) -> Option<&'static str> {
    let written = name.get_ref().as_ref();
    let names: Vec<&'static str> = schema.names().collect();
    let problem = out.error(name.span().start, path, "unknown key");
    problem.expected(format!("one of {}", names.join(", ")));
    let lower = written.to_lowercase();
    let by_habit = schema
        .keys
        .iter()
        .map(|key| (key.name, key.also))
        .chain(schema.tables.iter().map(|table| (table.name, table.also)))
        .find(|(_, also)| also.contains(&lower.as_str()))
        .map(|(name, _)| name);
    // The very name in another table is likelier than one that looks like it in this.
    let instead = schema.instead.iter().find(|(name, _)| *name == lower).map(|(_, instead)| *instead);
    let owner = owner(&FILE, "", &lower, schema).filter(|_| by_habit.is_none() && instead.is_none());
    let meant = by_habit.or_else(|| nearest(written, names).filter(|_| owner.is_none() && instead.is_none()));
    problem.suggestion = meant.map(str::to_owned);
    if let Some(owner) = owner {
        problem.help(format!("`{lower}` belongs in {owner}"));
    } else if let Some(instead) = instead {
        problem.help(instead);
    }
    meant
}

/// Which other table has a key of this name, as its header is written: a table, then those inside it, then those inside them.
fn owner(within: &'static Table, path: &str, name: &str, not: &'static Table) -> Option<String> {
    let has = |table: &&'static Table| !std::ptr::eq(*table, not) && table.key(name).is_some();
    let header = |table: &Table, within: &str| {
        let path = join(within, table.name);
        if table.is_alone() { format!("`[{path}]`") } else { format!("`[[{path}]]`") }
    };
    let mut inner = within.tables.iter();
    inner.find_map(|table| {
        let path = join(path, table.name);
        let here = has(&table).then(|| header(table, within_of(&path)));
        let below = || table.tables.iter().find(has).map(|inner| header(inner, &path));
        here.or_else(below).or_else(|| owner(table, &path, name, not))
    })
}

/// A path without its last name.
fn within_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(within, _)| within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_table(table: &'static Table, visit: &mut impl FnMut(&'static Table)) {
        visit(table);
        for inner in table.tables {
            every_table(inner, visit);
        }
    }

    #[test]
    fn every_default_is_valid_and_every_key_is_described() {
        every_table(&FILE, &mut |table| {
            for key in table.keys {
                assert!(key.doc.ends_with('.'), "{}: {}", key.name, key.doc);
                if let Presence::Default(text) = key.presence {
                    assert!(default_value(key, text).is_some(), "{} = {text}", key.name);
                }
            }
            assert!(table.short.is_none_or(|name| table.key(name).is_some()), "{}", table.name);
            for (name, instead) in table.instead {
                assert!(!table.names().any(|known| known == *name) && !instead.is_empty(), "{}: {name}", table.name);
            }
            let mut names: Vec<&str> = table.names().collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(all, names.len(), "a name twice in {}", table.name);
        });
    }
}
