//! The reference page, docs/config.md, made from the schema.
//!
//! Owns the page's wording around the schema's. A test holds the committed page to this text. Pure.

use std::fmt::Write as _;

use super::schema::{FILE, Form, Kind, Presence, Table, Word};
use super::value::expectation;

const INTRODUCTION: &str = "\
# Configuration reference

This page is made from the schema that checks the file: `evenkeel check --reference > docs/config.md`.

The file is [TOML](https://toml.io). Unknown keys are refused, so a slip of the hand cannot pass as a default.
`evenkeel check FILE` reports every mistake at once, with line, column and key, and exits 0 when there is none;
`evenkeel check --effective FILE` shows the file with every default written out. `evenkeel reload` and `SIGHUP` read
the file again: a file with a mistake changes nothing.

The least that forwards:

```toml
[[interface]]
name = \"eth0\"

[[service]]
address = \"192.0.2.10\"
port = 80
server = [{ address = \"10.0.0.11\" }, { address = \"10.0.0.12\" }]
```

Complete examples with comments are in [configs/](../configs/).
";

/// The whole page.
pub fn page() -> String {
    let mut out = INTRODUCTION.to_owned();
    for table in FILE.tables {
        section(&mut out, table, "");
    }
    out
}

fn section(out: &mut String, table: &Table, within: &str) {
    let path = if within.is_empty() { table.name.to_owned() } else { format!("{within}.{}", table.name) };
    let (header, often) = match table.form {
        Form::Once | Form::Maybe => (format!("[{path}]"), "At most once.".to_owned()),
        Form::Many { min: 0, max } => (format!("[[{path}]]"), format!("Any number of times, up to {max}.")),
        Form::Many { min, max } => (format!("[[{path}]]"), format!("{min} to {max} times.")),
    };
    let short = table.short.map_or_else(String::new, |key| format!(" A text in the place of a table is its `{key}`."));
    let _ = write!(out, "\n## `{header}`\n\n{} {often}{short}\n\n", table.doc);
    if let Some(like) = table.like {
        let _ = writeln!(out, "The keys are those of `{like}`.");
        return;
    }
    out.push_str("| key | value | without it | meaning |\n|---|---|---|---|\n");
    for key in table.keys {
        let without = match key.presence {
            Presence::Required => "an error".to_owned(),
            Presence::Default(text) => format!("`{text}`"),
            Presence::Otherwise(text) => text.to_owned(),
        };
        let mut meaning = key.doc.to_owned();
        if let Kind::Word(words, _) | Kind::Words(words, _) | Kind::WordOrWords { words, .. } = &key.kind {
            meaning.push_str(&vocabulary(words));
        }
        if !key.also.is_empty() {
            let also: Vec<String> = key.also.iter().map(|name| format!("`{name}`")).collect();
            let _ = write!(meaning, " (Elsewhere: {}.)", also.join(", "));
        }
        let value = expectation(&key.kind);
        let _ = writeln!(out, "| `{}` | {} | {} | {} |", key.name, cell(&value), cell(&without), cell(&meaning));
    }
    for inner in table.tables {
        section(out, inner, &path);
    }
}

fn vocabulary(words: &[Word]) -> String {
    let one = |word: &Word| {
        let also: Vec<String> = word.also.iter().take(3).map(|name| format!("`{name}`")).collect();
        let also = if also.is_empty() { String::new() } else { format!(" (Elsewhere: {}.)", also.join(", ")) };
        format!("<br>`\"{}\"`: {}.{also}", word.name, word.doc)
    };
    words.iter().map(one).collect()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
