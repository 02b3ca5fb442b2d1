//! The configuration that an import makes: tables and keys, each with the line of the imported file that it comes from.
//!
//! Owns how it is written as TOML, and which line of the TOML belongs to what. Never judges a value. Pure.

use std::fmt::Write as _;

use super::report::{Note, Place, printable};

/// Columns of a comment.
const WIDTH: usize = 118;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Integer(i64),
    /// Seconds.
    Seconds(f64),
    /// Yes or no.
    Boolean(bool),
    /// A list whose entries stand for themselves: one bad entry does not spoil the others.
    List(Vec<Item>),
    /// A list that is one thing, such as a command.
    Whole(Vec<Value>),
    /// A table on one line.
    Inline(Vec<(&'static str, Value)>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What it is.
    pub value: Value,
    /// Where it comes from.
    pub at: Place,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// Where it comes from.
    pub at: Place,
}

/// A table of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name below the table that it is in.
    pub name: &'static str,
    /// Whether there can be several.
    pub many: bool,
    /// Where it comes from.
    pub at: Place,
    /// What it was.
    pub title: String,
    /// What is to be known about it.
    pub notes: Vec<Note>,
    /// Its keys.
    pub keys: Vec<Key>,
    /// The tables in it.
    pub tables: Vec<Table>,
}

impl Table {
    /// One of several tables of a name.
    pub fn many(name: &'static str, at: &Place, title: impl Into<String>) -> Table {
        let (keys, tables, notes) = (Vec::new(), Vec::new(), Vec::new());
        Table { name, many: true, at: at.clone(), title: title.into(), notes, keys, tables }
    }

    /// The only table of a name.
    pub fn one(name: &'static str, at: &Place, title: impl Into<String>) -> Table {
        Table { many: false, ..Table::many(name, at, title) }
    }

    /// Writes a key; one that is there is replaced, as the last line of a file counts.
    pub fn set(&mut self, name: &'static str, value: Value, at: &Place) {
        match self.keys.iter_mut().find(|key| key.name == name) {
            Some(key) => (key.value, key.at) = (value, at.clone()),
            None => self.keys.push(Key { name, value, at: at.clone() }),
        }
    }

    /// Writes a key that is not there yet.
    pub fn set_unless(&mut self, name: &'static str, value: Value, at: &Place) {
        if self.get(name).is_none() {
            self.set(name, value, at);
        }
    }

    /// Adds to a list.
    pub fn push(&mut self, name: &'static str, value: Value, at: &Place) {
        let item = Item { value, at: at.clone() };
        match self.keys.iter_mut().find(|key| key.name == name) {
            Some(Key { value: Value::List(items), .. }) => items.push(item),
            _ => self.set(name, Value::List(vec![item]), at),
        }
    }

    /// The number of tables that it is, with those in it.
    pub fn size(&self) -> usize {
        1 + self.tables.iter().map(Table::size).sum::<usize>()
    }

    /// The value of a key.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.keys.iter().find(|key| key.name == name).map(|key| &key.value)
    }

    /// The text of a key.
    pub fn get_text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Document {
    /// The comment at its head, line by line.
    pub head: Vec<String>,
    /// What is to be known about no table in particular.
    pub notes: Vec<Note>,
    /// Its tables.
    pub tables: Vec<Table>,
}

/// What a line of the TOML belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Indices of the table and those that it is in, the outermost first.
    pub table: Vec<usize>,
    /// Index of the key.
    pub key: Option<usize>,
    /// Index of the entry of its list.
    pub item: Option<usize>,
}

/// A configuration as text.
#[derive(Clone, Debug)]
pub struct Written {
    /// The TOML.
    pub text: String,
    /// For each line what it belongs to; none for comments of the whole.
    pub owners: Vec<Option<Owner>>,
}

impl Written {
    fn line(&mut self, text: &str, owner: Option<&Owner>) {
        self.text.push_str(text);
        self.text.push('\n');
        self.owners.push(owner.cloned());
    }

    fn comment(&mut self, text: &str, indent: &str, owner: Option<&Owner>) {
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.len() + word.len() + indent.len() + 3 > WIDTH {
                self.line(&format!("{indent}# {line}"), owner);
                line = "  ".to_owned();
            } else if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(format!("{indent}# {line}").trim_end(), owner);
    }
}

impl Document {
    /// Writes it all.
    pub fn write(&self) -> Written {
        let mut out = Written { text: String::new(), owners: Vec::new() };
        for line in &self.head {
            out.line(format!("# {}", printable_line(line)).trim_end(), None);
        }
        if !self.notes.is_empty() {
            out.line("#", None);
        }
        for note in &self.notes {
            out.comment(&note.to_string(), "", None);
        }
        for (index, table) in self.tables.iter().enumerate() {
            write_table(table, "", &[index], &mut out);
        }
        out
    }

    /// The table at these indices.
    pub fn table_mut(&mut self, indices: &[usize]) -> Option<&mut Table> {
        let (first, rest) = indices.split_first()?;
        let mut table = self.tables.get_mut(*first)?;
        for index in rest {
            table = table.tables.get_mut(*index)?;
        }
        Some(table)
    }

    /// Takes out the table at these indices.
    pub fn remove(&mut self, indices: &[usize]) -> Option<Table> {
        let (last, path) = indices.split_last()?;
        let list = if path.is_empty() { &mut self.tables } else { &mut self.table_mut(path)?.tables };
        (*last < list.len()).then(|| list.remove(*last))
    }
}

fn printable_line(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn write_table(table: &Table, above: &str, path: &[usize], out: &mut Written) {
    let name = if above.is_empty() { table.name.to_owned() } else { format!("{above}.{}", table.name) };
    let owner = Owner { table: path.to_vec(), key: None, item: None };
    out.line("", Some(&owner));
    if !table.title.is_empty() {
        out.comment(&format!("{}: {}", table.at, printable(&table.title)), "", Some(&owner));
    }
    for note in &table.notes {
        out.comment(&note.to_string(), "", Some(&owner));
    }
    let (open, close) = if table.many { ("[[", "]]") } else { ("[", "]") };
    out.line(&format!("{open}{name}{close}"), Some(&owner));
    for (index, key) in table.keys.iter().enumerate() {
        let owner = Owner { key: Some(index), ..owner.clone() };
        match &key.value {
            Value::List(items) if items.len() > 1 => {
                out.line(&format!("{} = [", key.name), Some(&owner));
                for (index, item) in items.iter().enumerate() {
                    let owner = Owner { item: Some(index), ..owner.clone() };
                    out.line(&format!("  {},", written(&item.value)), Some(&owner));
                }
                out.line("]", Some(&owner));
            }
            value => out.line(&format!("{} = {}", key.name, written(value)), Some(&owner)),
        }
    }
    for (index, inner) in table.tables.iter().enumerate() {
        write_table(inner, &name, &[path, &[index]].concat(), out);
    }
}

/// A value on one line.
fn written(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        // Up to a microsecond, as keepalived's timers; whole seconds without decimals.
        Value::Seconds(seconds) if seconds.fract() == 0.0 => format!("{seconds:.0}"),
        Value::Seconds(seconds) => format!("{seconds:.6}").trim_end_matches('0').to_owned(),
        Value::List(items) => listed(items.iter().map(|item| &item.value)),
        Value::Whole(values) => listed(values.iter()),
        Value::Inline(keys) => {
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name} = {}", written(value))).collect();
            format!("{{ {} }}", keys.join(", "))
        }
    }
}

fn listed<'v>(values: impl Iterator<Item = &'v Value>) -> String {
    format!("[{}]", values.map(written).collect::<Vec<_>>().join(", "))
}

/// A text in quotes: as it is in single ones where escapes would be needed, else with escapes.
fn quoted(text: &str) -> String {
    let escapes = |c: char| c == '"' || c == '\\';
    if text.contains(escapes) && !text.contains('\'') && !text.contains(char::is_control) {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_being_written() {
        for text in ["", "a", "it's", "\"x\"", "a\\d", "'\"\\", "\n\t\u{0}\u{7f}\u{9b}", "ü€"] {
            let toml = format!("a = {}\n", quoted(text));
            let read: toml::Table = toml.parse().unwrap_or_else(|error| panic!("{toml}: {error}"));
            assert_eq!(read["a"].as_str(), Some(text), "{toml}");
        }
    }

    #[test]
    fn each_line_belongs_to_what_it_was_written_for() {
        let at = Place::new("a.conf", 1);
        let mut service = Table::many("service", &at, "virtual_server 192.0.2.10 80");
        service.set("address", Value::text("192.0.2.10"), &at);
        service.push("peers", Value::text("a"), &at);
        service.push("peers", Value::text("b"), &at);
        service.tables.push(Table::many("server", &at, ""));
        let document = Document { head: vec!["x".into()], notes: Vec::new(), tables: vec![service] };
        let written = document.write();
        let lines: Vec<&str> = written.text.lines().collect();
        assert_eq!(lines.len(), written.owners.len());
        let owner = |line: &str| written.owners[lines.iter().position(|known| *known == line).expect(line)].clone();
        assert_eq!(owner("# x"), None);
        assert_eq!(owner("[[service]]"), Some(Owner { table: vec![0], key: None, item: None }));
        assert_eq!(owner("  \"b\","), Some(Owner { table: vec![0], key: Some(1), item: Some(1) }));
        assert_eq!(owner("[[service.server]]"), Some(Owner { table: vec![0, 0], key: None, item: None }));
    }

    #[test]
    fn seconds_are_written_as_people_write_them() {
        for (seconds, text) in [(6.0, "6"), (0.5, "0.5"), (0.25, "0.25"), (1e-6, "0.000001"), (60.125, "60.125")] {
            assert_eq!(written(&Value::Seconds(seconds)), text);
        }
    }
}
