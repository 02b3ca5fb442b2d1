//! What is wrong with a configuration file, and where: one value for each mistake, rendered for people and for JSON.
//!
//! Owns positions, severities and the wording of a whole report. Never decides what is a mistake. Pure.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Whether a problem refuses the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, but this is probably not what was meant.
    Warning,
}

/// One mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Whether it refuses the file.
    pub severity: Severity,
    /// The file that it is in, where that is not the configuration itself but one that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, from 1; 0 when the mistake has no place (the file cannot be read).
    pub line: usize,
    /// Column in characters, from 1; 0 when the mistake has no place.
    pub column: usize,
    /// Path of the key, for example `service[0].server[1].weight` (indices from 0); empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What was expected in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The word that was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Problem {
    /// An error without a place.
    pub fn file(message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            file: None,
            line: 0,
            column: 0,
            key: String::new(),
            message: message.into(),
            expected: None,
            help: Some(help.into()),
            suggestion: None,
        }
    }

    /// The problem as a compiler would print it: `file:line:column: key: message`, then what was expected and what
    /// to do, each on an indented line of its own.
    pub fn render(&self, file: &str) -> String {
        let mut out = self.file.as_deref().unwrap_or(file).to_owned();
        if self.line > 0 {
            let _ = write!(out, ":{}:{}", self.line, self.column);
        }
        out.push_str(": ");
        if self.severity == Severity::Warning {
            out.push_str("warning: ");
        }
        if !self.key.is_empty() {
            let _ = write!(out, "{}: ", self.key);
        }
        out.push_str(&self.message);
        out.push('\n');
        if let Some(expected) = &self.expected {
            let _ = writeln!(out, "  expected: {expected}");
        }
        match (&self.suggestion, &self.help) {
            (Some(word), Some(help)) => {
                let _ = writeln!(out, "  help: did you mean `{word}`? {help}");
            }
            (Some(word), None) => {
                let _ = writeln!(out, "  help: did you mean `{word}`?");
            }
            (None, Some(help)) => {
                let _ = writeln!(out, "  help: {help}");
            }
            (None, None) => {}
        }
        out
    }
}

/// All problems, in the order of the file, as text for people.
pub fn render_all(file: &str, problems: &[Problem]) -> String {
    problems.iter().map(|p| p.render(file)).collect()
}

/// Turns byte offsets of a text into lines and columns.
#[derive(Debug)]
pub struct Places<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Places<'t> {
    /// Indexes a text.
    pub fn new(text: &'t str) -> Places<'t> {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Places { text, line_starts: std::iter::once(0).chain(newlines).collect() }
    }

    /// Line and column, both from 1, of a byte offset. Offsets beyond the text give its end.
    pub fn of(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(offset - start, |before| before.chars().count());
        (line.max(1), column + 1)
    }
}

/// Collects the problems of one file while it is walked.
#[derive(Debug)]
pub struct Collector<'t> {
    places: Places<'t>,
    /// What was found so far, in no particular order.
    pub problems: Vec<Problem>,
    /// Names whose absence was reported: index in `problems`, and the name.
    pub absences: Vec<(usize, &'static str)>,
}

impl<'t> Collector<'t> {
    /// A collector for a text.
    pub fn new(text: &'t str) -> Collector<'t> {
        Collector { places: Places::new(text), problems: Vec::new(), absences: Vec::new() }
    }

    /// Records an error at a byte offset, and gives it back to be completed.
    pub fn error(&mut self, at: usize, key: impl Into<String>, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Error, at, key.into(), message.into())
    }

    /// Records a warning at a byte offset, and gives it back to be completed.
    pub fn warning(&mut self, at: usize, key: impl Into<String>, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Warning, at, key.into(), message.into())
    }

    /// Records as an error that something is not there.
    pub fn absent(&mut self, at: usize, name: &'static str, key: String, message: String) -> &mut Problem {
        self.absences.push((self.problems.len(), name));
        self.push(Severity::Error, at, key, message)
    }

    /// The line, from 1, of a byte offset.
    pub fn line(&self, at: usize) -> usize {
        self.places.of(at).0
    }

    fn push(&mut self, severity: Severity, at: usize, key: String, message: String) -> &mut Problem {
        let (line, column) = self.places.of(at);
        let index = self.problems.len();
        let (expected, help, suggestion) = (None, None, None);
        self.problems.push(Problem { severity, file: None, line, column, key, message, expected, help, suggestion });
        &mut self.problems[index]
    }
}

impl Problem {
    /// Says what was expected.
    pub fn expected(&mut self, expected: impl Into<String>) -> &mut Problem {
        self.expected = Some(expected.into());
        self
    }

    /// Says what to do next.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Problem {
        self.help = Some(help.into());
        self
    }

    /// Names the word that was probably meant, if one is near enough to what was written.
    pub fn suggest<'w>(&mut self, written: &str, words: impl IntoIterator<Item = &'w str>) -> &mut Problem {
        self.suggestion = nearest(written, words).map(str::to_owned);
        self
    }
}

/// The word nearest to what was written, if it is a plausible slip of the hand.
pub fn nearest<'w>(written: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let plain = |word: &str| word.to_lowercase().replace(['_', ' ', '.'], "-");
    // Edit distance is quadratic: nobody misspells a key by hundreds of characters.
    if written.len() > 64 {
        return None;
    }
    let written = plain(written);
    words
        .into_iter()
        .filter_map(|word| {
            let candidate = plain(word);
            let distance = strsim::damerau_levenshtein(&written, &candidate);
            let close = distance <= (candidate.len().max(written.len()) / 3).max(1) && distance < candidate.len();
            let extended = written.len() >= 3 && candidate.len() >= 3 && candidate.starts_with(&written);
            (close || extended).then_some((if close { distance } else { 4 }, word))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let places = Places::new("a\nbé = 1\n\nz");
        assert_eq!(places.of(0), (1, 1));
        assert_eq!(places.of(2), (2, 1));
        assert_eq!(places.of(5), (2, 3), "é is two bytes and one column");
        assert_eq!(places.of(10), (3, 1));
        assert_eq!(places.of(11), (4, 1));
        assert_eq!(places.of(999), (4, 2));
        assert_eq!(Places::new("").of(0), (1, 1));
    }

    #[test]
    fn nearest_takes_slips_and_leaves_strangers() {
        let words = ["scheduler", "server", "address", "port", "name"];
        assert_eq!(nearest("schedular", words), Some("scheduler"));
        assert_eq!(nearest("Adress", words), Some("address"));
        assert_eq!(nearest("addr", words), Some("address"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest("x", words), None);
        assert_eq!(nearest("zero_copy", ["zero-copy", "copy"]), Some("zero-copy"));
    }
}
