//! What every part of the translation needs: values read from words, and a note for each word that is not taken.
//!
//! Owns how numbers, times and programs are written in keepalived.conf. Never knows a keyword. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::keywords::Context;
use super::tree::{Fate, Statement, words};
use crate::control::import::document::{Table, Value};
use crate::control::import::report::{Note, Place, Weight};

/// Longest name in a configuration.
const MOST_NAME: usize = 64;

/// A program as it is written in keepalived's file.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The program and its arguments.
    pub command: Value,
    /// The user that it runs as.
    pub user: Option<String>,
}

/// The notes of an import, in the order in which they were made, and the names that it gave.
#[derive(Debug, Default)]
pub struct Desk {
    /// All notes.
    pub report: Vec<Note>,
    /// Names of keepalived that had to be changed, and what they are now.
    names: HashMap<String, String>,
}

impl Desk {
    /// A statement has no counterpart, nor has what is in its block.
    pub fn left_out(&mut self, statement: &Statement, reason: impl Into<String>, notes: &mut Vec<Note>) {
        statement.reported();
        self.drop_words(&statement.at, statement.written(), reason, notes);
    }

    /// Words have no counterpart.
    pub fn drop_words(&mut self, at: &Place, what: String, reason: impl Into<String>, notes: &mut Vec<Note>) {
        let note = Note { weight: Weight::LeftOut, at: at.clone(), what, reason: reason.into() };
        self.report.push(note.clone());
        notes.push(note);
    }

    /// Something about a statement is worth knowing.
    pub fn remark(&mut self, statement: &Statement, reason: impl Into<String>, notes: &mut Vec<Note>) {
        statement.taken();
        self.note(&statement.at, &statement.written(), reason, notes);
    }

    /// Something about a place is worth knowing.
    pub fn note(&mut self, at: &Place, what: &str, reason: impl Into<String>, notes: &mut Vec<Note>) {
        let note = Note { weight: Weight::Remark, at: at.clone(), what: what.to_owned(), reason: reason.into() };
        self.report.push(note.clone());
        notes.push(note);
    }

    /// A keyword that no part translates: one of keepalived's without a counterpart, or a stranger.
    pub fn other(&mut self, statement: &Statement, context: Context, notes: &mut Vec<Note>) {
        let reason = context.reason(statement.keyword()).map(str::to_owned);
        let reason = reason.unwrap_or_else(|| context.unknown(statement.keyword()));
        self.left_out(statement, reason, notes);
    }

    /// A keyword whose first `used` words were read; the others are reported, and so is a block that it should not have.
    pub fn taken(&mut self, statement: &Statement, used: usize, notes: &mut Vec<Note>) {
        statement.taken();
        if statement.words.len() > used {
            let what = statement.words[used..].join(" ");
            self.drop_words(&statement.at, what, "keepalived reads no more words here", notes);
        }
        for inner in statement.inner() {
            self.left_out(inner, format!("`{}` has no block", statement.keyword()), notes);
        }
    }

    /// The one word behind a keyword.
    pub fn word(&mut self, statement: &Statement, notes: &mut Vec<Note>) -> Option<String> {
        let word = statement.word(1).to_owned();
        if word.is_empty() {
            self.left_out(statement, "it has no value", notes);
            return None;
        }
        self.taken(statement, 2, notes);
        Some(word)
    }

    /// A whole number.
    pub fn integer(&mut self, statement: &Statement, range: RangeInclusive<i64>, notes: &mut Vec<Note>) -> Option<i64> {
        match statement.word(1).parse::<i64>() {
            Ok(number) if range.contains(&number) => {
                self.taken(statement, 2, notes);
                Some(number)
            }
            _ => {
                let (first, last) = range.into_inner();
                self.left_out(statement, format!("its value is no whole number from {first} to {last}"), notes);
                None
            }
        }
    }

    /// A number of seconds.
    pub fn seconds(&mut self, statement: &Statement, notes: &mut Vec<Note>) -> Option<f64> {
        let found = decimal(statement.word(1)).filter(|seconds| (0.0..=1e7).contains(seconds));
        match found {
            Some(_) => self.taken(statement, 2, notes),
            None => self.left_out(statement, "its value is no number of seconds", notes),
        }
        found
    }

    /// Yes or no; a keyword alone means yes.
    pub fn flag(&mut self, statement: &Statement, notes: &mut Vec<Note>) -> Option<bool> {
        let value = match statement.word(1) {
            "" | "on" | "true" | "yes" => true,
            "off" | "false" | "no" => false,
            _ => {
                self.left_out(statement, "its value is none of on, off, true, false, yes and no", notes);
                return None;
            }
        };
        self.taken(statement, 2, notes);
        Some(value)
    }

    /// An address.
    pub fn address(&mut self, statement: &Statement, notes: &mut Vec<Note>) -> Option<IpAddr> {
        match statement.word(1).parse() {
            Ok(address) => {
                self.taken(statement, 2, notes);
                Some(address)
            }
            Err(_) => {
                self.left_out(statement, "its value is no address", notes);
                None
            }
        }
    }

    /// A whole number for a key.
    pub fn set_integer(&mut self, key: &'static str, from: &Statement, range: RangeInclusive<i64>, into: &mut Table) {
        if let Some(number) = self.integer(from, range, &mut into.notes) {
            into.set(key, Value::Integer(number), &from.at);
        }
    }

    /// A number of seconds for a key.
    pub fn set_seconds(&mut self, key: &'static str, from: &Statement, into: &mut Table) {
        if let Some(seconds) = self.seconds(from, &mut into.notes) {
            into.set(key, Value::Seconds(seconds), &from.at);
        }
    }

    /// A word for a key.
    pub fn set_word(&mut self, key: &'static str, from: &Statement, into: &mut Table) {
        if let Some(word) = self.word(from, &mut into.notes) {
            into.set(key, Value::Text(word), &from.at);
        }
    }

    /// An address for a key.
    pub fn set_address(&mut self, key: &'static str, from: &Statement, into: &mut Table) {
        if let Some(address) = self.address(from, &mut into.notes) {
            into.set(key, Value::text(address.to_string()), &from.at);
        }
    }

    /// A program with its arguments: `keyword "/a/program with arguments" user group`.
    pub fn program(&mut self, statement: &Statement, notes: &mut Vec<Note>) -> Option<Program> {
        let parts = words(statement.word(1)).ok().filter(|parts| parts.first().is_some_and(|word| !word.is_empty()));
        let Some(parts) = parts else {
            self.left_out(statement, "there is no program", notes);
            return None;
        };
        if parts[0].starts_with('/') {
            statement.taken();
        } else {
            let text = format!(
                "keepalived looks for `{}` in PATH, and so does /usr/bin/env: its full path is better",
                parts[0]
            );
            self.remark(statement, text, notes);
        }
        if statement.words.len() > 3 {
            let what = statement.words[3..].join(" ");
            let reason = "a program runs with the groups of its user";
            self.drop_words(&statement.at, what, reason, notes);
        }
        for inner in statement.inner() {
            self.left_out(inner, "a program has no block", notes);
        }
        let user = statement.words.get(2).cloned();
        Some(Program { command: command(parts), user })
    }

    /// A name that a configuration can have.
    pub fn name(&mut self, name: &str, at: &Place, notes: &mut Vec<Note>) -> String {
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-:/@+[]".contains(c);
        if !name.is_empty() && name.len() <= MOST_NAME && name.chars().all(fine) {
            return name.to_owned();
        }
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let plain: String = name.chars().take(40).map(|c| if fine(c) { c } else { '_' }).collect();
        let new = format!("{plain}-{}", self.names.len() + 1);
        self.names.insert(name.to_owned(), new.clone());
        let reason = format!(
            "a name has 1 to {MOST_NAME} letters, digits and the characters `. _ - : / @ + [ ]`: it is `{new}` now"
        );
        let note = Note { weight: Weight::Remark, at: at.clone(), what: name.to_owned(), reason };
        self.report.push(note.clone());
        notes.push(note);
        new
    }

    /// Reports whatever nobody has looked at: nothing is dropped without a word.
    pub fn sweep(&mut self, statements: &[Statement], notes: &mut Vec<Note>) {
        for statement in statements {
            if statement.fate() == Fate::Unseen {
                self.left_out(statement, "nothing is made of it", notes);
            }
            self.sweep(statement.inner(), notes);
        }
    }
}

/// A command whose program has a full path.
fn command(mut parts: Vec<String>) -> Value {
    if !parts[0].starts_with('/') {
        parts.insert(0, "/usr/bin/env".to_owned());
    }
    Value::Whole(parts.into_iter().map(Value::Text).collect())
}

/// A decimal number as keepalived writes them: digits and a point.
pub fn decimal(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.len() < 30 && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::import::keepalived::lines::Line;
    use crate::control::import::keepalived::tree::parse;

    fn statement(text: &str) -> Statement {
        let line = Line { text: text.to_owned(), at: Place::new("a", 1) };
        parse(&[line]).expect("sound").remove(0)
    }

    #[test]
    fn programs_are_split_as_keepalived_splits_them() {
        let (mut desk, mut notes) = (Desk::default(), Vec::new());
        let mut of = |text: &str| desk.program(&statement(text), &mut notes);
        let list = |words: &[&str]| Value::Whole(words.iter().map(|word| Value::text(*word)).collect());
        let found = of("notify \"/bin/x 'a b' c\" nobody nogroup").expect("a program");
        assert_eq!(found, Program { command: list(&["/bin/x", "a b", "c"]), user: Some("nobody".to_owned()) });
        let found = of("script \"killall -0 haproxy\"").expect("a program");
        assert_eq!(found.command, list(&["/usr/bin/env", "killall", "-0", "haproxy"]));
        assert_eq!(of("script \"\""), None);
        assert_eq!(of("script"), None);
        let said: Vec<String> = notes.iter().map(ToString::to_string).collect();
        assert!(said[0].starts_with("a:1: `nogroup` is left out"), "{said:?}");
        assert_eq!(said.len(), 4, "{said:?}");
    }

    #[test]
    fn names_are_kept_or_told_apart() {
        let (mut desk, mut notes) = (Desk::default(), Vec::new());
        let mut of = |name: &str| desk.name(name, &Place::new("a", 1), &mut notes);
        assert_eq!(of("VI_1"), "VI_1");
        assert_eq!(of("VI 1"), "VI_1-1");
        assert_eq!(of("VI!1"), "VI_1-2");
        assert_eq!(of("VI 1"), "VI_1-1");
        assert_eq!(notes.len(), 2);
    }

    #[test]
    fn numbers_are_digits() {
        for (text, expected) in
            [("6", Some(6.0)), ("0.25", Some(0.25)), ("1e3", None), ("inf", None), ("", None), (".", None)]
        {
            assert_eq!(decimal(text), expected, "{text}");
        }
    }
}
