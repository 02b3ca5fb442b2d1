//! keepalived's files as lines: comments, `include`, `@` conditions, `$` definitions, `~SEQ` and `~LST`, continued lines.
//!
//! Follows `read_line` and `decomment` of keepalived's lib/parser.c and the chapter ADVANCED CONFIGURATION of
//! keepalived.conf(5). Owns which lines there are, and where each comes from. Never knows a keyword but `include`. Pure.

mod expand;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::glob::{self, is_pattern};
use crate::control::import::report::{Broken, Note, Place, Weight};

/// Longest line, before and after its definitions are put in, in bytes.
const MOST_LINE: usize = 65_536;

/// Most bytes in all files together.
const MOST_BYTES: usize = 16 << 20;

/// Most lines after definitions and sequences.
const MOST_LINES: usize = 200_000;

/// Most steps of putting in definitions, over all lines: a definition may stand for itself.
const MOST_STEPS: usize = 400_000;

/// Most bytes that definitions may have made of lines.
const MOST_MADE: usize = 64 << 20;

/// Most files, and most of them one in the other.
const MOST_FILES: usize = 1000;
const DEEPEST: usize = 32;

/// Where files come from.
#[derive(Clone, Copy)]
pub struct Disk<'d> {
    /// What is in a file.
    pub read: &'d dyn Fn(&Path) -> Result<Vec<u8>, String>,
    /// The names in a folder.
    pub list: glob::List<'d>,
}

/// A line without comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What is written.
    pub text: String,
    /// Where.
    pub at: Place,
}

/// All lines of a configuration.
#[derive(Debug)]
pub struct Lines {
    /// The lines that are for this machine.
    pub lines: Vec<Line>,
    /// What to know about the reading.
    pub notes: Vec<Note>,
    /// The names of other machines in `@` conditions, and how many lines were theirs alone.
    pub others: (BTreeSet<String>, usize),
    /// The files, in the order in which they were read.
    pub files: Vec<String>,
}

/// What a name stands for.
#[derive(Clone, Debug)]
struct Definition {
    lines: Vec<String>,
}

struct Reader<'d> {
    disk: Disk<'d>,
    config_id: &'d str,
    definitions: BTreeMap<String, Definition>,
    /// The definition that further lines belong to.
    open: Option<String>,
    stack: Vec<PathBuf>,
    bytes: usize,
    steps: usize,
    made: usize,
    out: Lines,
}

/// Reads a file and what it includes. `config_id`: the name of this machine for `@` conditions.
pub fn read(path: &Path, config_id: &str, disk: Disk<'_>) -> Result<Lines, Broken> {
    let out = Lines { lines: Vec::new(), notes: Vec::new(), others: (BTreeSet::new(), 0), files: Vec::new() };
    let mut reader = Reader {
        disk,
        config_id,
        definitions: BTreeMap::new(),
        open: None,
        stack: Vec::new(),
        bytes: 0,
        steps: 0,
        made: 0,
        out,
    };
    reader.file(path, None)?;
    Ok(reader.out)
}

/// A path without `.` and `..` where that can be seen from the path alone.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

impl Reader<'_> {
    /// Reads one file. `from`: the line that includes it.
    fn file(&mut self, path: &Path, from: Option<&Place>) -> Result<(), Broken> {
        let path = plain(path);
        let name = path.display().to_string();
        let whole = Place::new(&name, 0);
        let from = from.unwrap_or(&whole);
        if self.stack.contains(&path) {
            return Err(Broken::new(from, format!("`{name}` includes itself"), "remove this `include`"));
        }
        if self.stack.len() == DEEPEST {
            let text = format!("more than {DEEPEST} files include each other");
            return Err(Broken::new(from, text, "put them into one file"));
        }
        if self.out.files.len() == MOST_FILES {
            return Err(Broken::new(from, format!("there are more than {MOST_FILES} files"), "import fewer at a time"));
        }
        let bytes = (self.disk.read)(&path).map_err(|error| {
            Broken::new(from, format!("`{name}` cannot be read: {error}"), "check the path and the permissions")
        })?;
        self.bytes += bytes.len();
        if self.bytes > MOST_BYTES {
            let text = format!("the files have more than {} MiB", MOST_BYTES >> 20);
            return Err(Broken::new(from, text, "this is more than a configuration"));
        }
        self.out.files.push(name.clone());
        self.stack.push(path);
        self.text(&bytes, &name)?;
        self.stack.pop();
        Ok(())
    }

    fn text(&mut self, bytes: &[u8], name: &str) -> Result<(), Broken> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf".as_slice()).unwrap_or(bytes);
        let file = Place::new(name, 0);
        let mut joined: Option<(String, Place)> = None;
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let at = Place { file: file.file.clone(), line: index + 1 };
            if line.len() > MOST_LINE {
                let text = format!("the line has {} bytes", line.len());
                return Err(Broken::new(&at, text, format!("the most is {MOST_LINE}")));
            }
            if line.iter().any(|byte| *byte == 0 || *byte == 0x1b) {
                return Err(Broken::new(&at, "this is no text", "import the file that keepalived reads"));
            }
            // Other encodings are found in comments, mostly.
            let line = String::from_utf8_lossy(line);
            let (text, more) = without_comment(line.trim_end_matches('\r'), &at)?;
            if let Some(name) = self.open.take() {
                self.open = more.then(|| name.clone());
                if let Some(definition) = self.definitions.get_mut(&name).filter(|_| !text.is_empty()) {
                    definition.lines.push(text);
                }
                continue;
            }
            let (text, at) = match joined.take() {
                Some((before, at)) => (format!("{before} {text}"), at),
                None => (text, at),
            };
            if text.len() > MOST_LINE {
                return Err(Broken::new(
                    &at,
                    "the line goes on for too long",
                    format!("the most is {MOST_LINE} bytes"),
                ));
            }
            if more && !self.begins_definition(&text) {
                joined = Some((text, at));
                continue;
            }
            if more {
                // A name, and nothing on its line but the sign that more lines follow.
                self.process(&format!("{text}\\"), &at, 0)?;
            } else {
                self.process(&text, &at, 0)?;
            }
        }
        if let Some((text, at)) = joined {
            self.process(&text, &at, 0)?;
        }
        self.open = None;
        Ok(())
    }

    fn begins_definition(&self, text: &str) -> bool {
        let text = match text.strip_prefix('@') {
            Some(rest) => rest.split_once([' ', '\t']).map_or("", |(_, rest)| rest).trim_start(),
            None => text,
        };
        expand::definition(text).is_some()
    }

    /// What a line comes to.
    fn process(&mut self, text: &str, at: &Place, depth: usize) -> Result<(), Broken> {
        if depth > 64 {
            return Err(Broken::new(at, "definitions stand for each other without an end", "write this line out"));
        }
        let mut text = text.trim().to_owned();
        loop {
            self.steps += 1;
            self.made += text.len();
            if self.steps > MOST_STEPS || self.made > MOST_MADE || text.len() > MOST_LINE {
                let help = "a definition that stands for itself never ends; import a part of it";
                return Err(Broken::new(at, "definitions and sequences make too much of this", help));
            }
            if let Some(condition) = text.strip_prefix('@') {
                let (name, rest) = condition.split_once([' ', '\t']).unwrap_or((condition, ""));
                let (name, negated) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
                if (name == self.config_id) == negated || rest.is_empty() {
                    self.out.others.0.insert(name.to_owned());
                    self.out.others.1 += 1;
                    return Ok(());
                }
                text = rest.trim().to_owned();
                continue;
            }
            if let Some((name, value)) = expand::definition(&text) {
                return self.define(name, value, at);
            }
            if text.starts_with("~SEQ") || text.starts_with("~LST") {
                let (sets, rest) = expand::sequence(&text).map_err(|(message, help)| Broken::new(at, message, help))?;
                let rest = rest.to_owned();
                for set in sets {
                    for (name, value) in set {
                        self.definitions.insert(name, Definition { lines: vec![value] });
                    }
                    self.process(&rest, at, depth + 1)?;
                }
                return Ok(());
            }
            let Some((from, to, lines)) = self.reference(&text, at)? else { break };
            let (before, after) = (&text[..from], &text[to..]);
            if let [line] = lines.as_slice() {
                text = [before, line, after].concat().trim().to_owned();
                continue;
            }
            let last = lines.len().saturating_sub(1);
            for (index, line) in lines.iter().enumerate() {
                let before = if index == 0 { before } else { "" };
                let after = if index == last { after } else { "" };
                self.process(&[before, line, after].concat(), at, depth + 1)?;
            }
            return Ok(());
        }
        if text.is_empty() {
            return Ok(());
        }
        if let Some((pattern, checks)) = included(&text) {
            return self.include(pattern, checks, at);
        }
        if self.out.lines.len() == MOST_LINES {
            return Err(Broken::new(at, format!("there are more than {MOST_LINES} lines"), "import a part of it"));
        }
        self.out.lines.push(Line { text, at: at.clone() });
        Ok(())
    }

    fn define(&mut self, name: &str, value: &str, at: &Place) -> Result<(), Broken> {
        let (value, more) = match value.strip_suffix('\\') {
            Some(value) => (value.trim_end(), true),
            None => (value, false),
        };
        if more && !value.is_empty() {
            let text = format!("`${name}` has a value on its line and goes on on the next one");
            return Err(Broken::new(at, text, "end the line after the `=`"));
        }
        let lines = if more { Vec::new() } else { vec![value.to_owned()] };
        self.definitions.insert(name.to_owned(), Definition { lines });
        self.open = more.then(|| name.to_owned());
        Ok(())
    }

    /// The first name in a text that stands for something: where it is, and for what.
    fn reference(&self, text: &str, at: &Place) -> Result<Option<(usize, usize, Vec<String>)>, Broken> {
        for (from, to, name) in expand::references(text) {
            if let Some(definition) = self.definitions.get(name) {
                return Ok(Some((from, to, definition.lines.clone())));
            }
            let folder = || self.stack.last().and_then(|path| path.parent());
            let known = match name.split_whitespace().next().unwrap_or_default() {
                "_PWD" => folder().map_or(String::new(), |folder| folder.display().to_string()),
                "_INSTANCE" => self.config_id.to_owned(),
                "_HASH" => "#".to_owned(),
                "_BANG" => "!".to_owned(),
                "_RANDOM" => {
                    let help = "write a number in its place: the new file is the same each time it is read";
                    return Err(Broken::new(at, "keepalived takes a random number here", help));
                }
                _ => continue,
            };
            return Ok(Some((from, to, vec![known])));
        }
        Ok(None)
    }

    fn include(&mut self, pattern: &str, checks: bool, at: &Place) -> Result<(), Broken> {
        let folder = self.stack.last().and_then(|path| path.parent()).unwrap_or(Path::new("")).to_owned();
        if !is_pattern(pattern) {
            return self.file(&folder.join(pattern), Some(at));
        }
        let files = glob::matches(pattern, &folder, self.disk.list)
            .map_err(|message| Broken::new(at, message, "include fewer files"))?;
        if files.is_empty() && checks {
            return Err(Broken::new(at, format!("no file matches `{pattern}`"), "correct the pattern, or add a file"));
        }
        if files.is_empty() {
            let reason = "no file matches: as with keepalived, nothing is included".to_owned();
            let what = format!("include {pattern}");
            self.out.notes.push(Note { weight: Weight::Remark, at: at.clone(), what, reason });
        }
        files.iter().try_for_each(|file| self.file(file, Some(at)))
    }
}

/// The pattern of an `include`, and whether files must match.
fn included(text: &str) -> Option<(&str, bool)> {
    let rest = text.strip_prefix("include")?;
    let (kind, rest) = match rest.chars().next()? {
        c if c.is_whitespace() => (None, rest),
        c @ ('r' | 'm' | 'w' | 'b' | 'a') => (Some(c), &rest[1..]),
        _ => return None,
    };
    let pattern = rest.strip_prefix([' ', '\t'])?.trim();
    let pattern = pattern.trim_matches('"');
    (!pattern.is_empty()).then_some((pattern, matches!(kind, Some('m' | 'w' | 'a'))))
}

/// A line without its comment and the blanks around it, and whether it goes on on the next one.
fn without_comment(line: &str, at: &Place) -> Result<(String, bool), Broken> {
    let line = line.trim();
    let mut out = String::with_capacity(line.len());
    let mut quoted = false;
    let mut more = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                out.push(c);
            }
            '\\' => match chars.next() {
                None => more = true,
                Some(next @ ('#' | '!')) if !quoted => out.push(next),
                Some(next) => out.extend([c, next]),
            },
            '#' | '!' if !quoted => {
                quoted = false;
                more = line.ends_with('\\');
                break;
            }
            c => out.push(c),
        }
    }
    if quoted {
        return Err(Broken::new(at, "a `\"` has no second one on its line", "close the quotes"));
    }
    Ok((out.trim_end().to_owned(), more))
}

#[cfg(test)]
mod tests;
