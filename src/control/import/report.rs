//! What an import says besides the file that it makes: what was left out, what is different, and what was broken.
//!
//! Owns places in the imported files and the wording of a report. Never decides what is left out. Pure.

use std::fmt;
use std::sync::Arc;

/// Longest text of an imported file that is repeated in a report, in characters.
const MOST_QUOTED: usize = 100;

/// A line of an imported file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
}

impl Place {
    /// A line of a file.
    pub fn new(file: &str, line: usize) -> Place {
        Place { file: file.into(), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = printable(&self.file);
        if self.line == 0 { f.write_str(&file) } else { write!(f, "{file}:{}", self.line) }
    }
}

/// How much a note weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Something of the imported file is not in the new one.
    LeftOut,
    /// It is there, and something about it is worth knowing.
    Remark,
}

/// One sentence about a part of an imported file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How much it weighs.
    pub weight: Weight,
    /// Where the part is.
    pub at: Place,
    /// What is written there; empty where the sentence says it all.
    pub what: String,
    /// Why, or what to know.
    pub reason: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if !self.what.is_empty() {
            write!(f, "`{}`", printable(&self.what))?;
            f.write_str(if self.weight == Weight::LeftOut { " is left out: " } else { ": " })?;
        }
        f.write_str(&printable_up_to(&self.reason, 600))
    }
}

/// Why nothing could be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {}\n  help: {}", printable_up_to(message, 600), printable_up_to(help, 600))]
pub struct Broken {
    /// Where.
    pub at: Place,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Broken {
    /// Something that cannot be read as what it should be.
    pub fn new(at: &Place, message: impl Into<String>, help: impl Into<String>) -> Broken {
        Broken { at: at.clone(), message: message.into(), help: help.into() }
    }
}

/// A text for one line of a terminal or a comment: without control characters, and not too long.
pub fn printable(text: &str) -> String {
    printable_up_to(text, MOST_QUOTED)
}

fn printable_up_to(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() || c == '\u{2028}' || c == '\u{2029}' { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(most).map(plain).collect();
    if text.chars().nth(most).is_some() {
        short.push_str(" ...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_line_whatever_it_is_about() {
        let at = Place::new("a\nb.conf", 3);
        let what = "x\u{1b}[31m\n".repeat(200);
        let note = Note { weight: Weight::LeftOut, at, what, reason: "there is no such thing".into() };
        let text = note.to_string();
        assert!(text.starts_with("a\u{fffd}b.conf:3: `x\u{fffd}[31m\u{fffd}x"), "{text}");
        assert!(text.ends_with(" ...` is left out: there is no such thing"), "{text}");
        assert!(!text.contains(char::is_control) && text.len() < 1000);
    }
}
