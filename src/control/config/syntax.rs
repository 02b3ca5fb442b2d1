//! Syntax: finds every broken line of a TOML text, and gives the text without them.
//!
//! Owns recovery: a parser that stops making sense at the first mistake would hide the others, so each broken line
//! is reported once and blanked, and the rest is parsed again. Lines keep their numbers. Never looks at keys' meaning.
//! Pure.

use toml::de::{DeTable, Error};

use super::problem::{Collector, Places, Problem, Severity, nearest};
use super::schema::FILE;

/// Broken lines that are looked for before giving up on a text that is perhaps not TOML at all.
const MAX_BROKEN_LINES: usize = 50;

/// A text that parses (but perhaps defines a key twice), and what had to be left out of it.
#[derive(Debug)]
pub struct Repaired {
    /// The text, line by line as the original, with broken lines blanked.
    pub text: String,
    /// What was broken.
    pub problems: Vec<Problem>,
}

/// Finds all broken lines.
pub fn repair(original: &str) -> Repaired {
    let mut lines: Vec<String> = original.split('\n').map(str::to_owned).collect();
    let mut problems: Vec<Problem> = Vec::new();
    loop {
        let text = lines.join("\n");
        let errors = broken(&text);
        let Some(first) = errors.first() else { return Repaired { text, problems } };
        if problems.len() == MAX_BROKEN_LINES {
            problems.push(Problem::file(
                format!("more than {MAX_BROKEN_LINES} broken lines: this is perhaps not a TOML file"),
                "correct the lines above first",
            ));
            return Repaired { text: String::new(), problems };
        }
        let (line, problem) = report(&text, first);
        problems.push(problem);
        lines = best_repair(&lines, line - 1);
    }
}

/// The syntax errors of a text, first in the text first, without keys that are there twice: these leave a sound tree.
fn broken(text: &str) -> Vec<Error> {
    let (_, mut errors) = DeTable::parse_recoverable(text);
    errors.retain(|error| !is_duplicate(error));
    errors.sort_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
    errors
}

fn is_duplicate(error: &Error) -> bool {
    error.message().starts_with("duplicate key")
}

/// Reports keys and tables that are there twice, in a repaired text.
pub fn report_duplicates(text: &str, errors: &[Error], out: &mut Collector<'_>) {
    for error in errors.iter().filter(|error| is_duplicate(error)) {
        let at = error.span().map_or(text.len(), |span| span.start);
        let line = text.split('\n').nth(out.line(at) - 1).unwrap_or_default().trim().to_owned();
        let key = key_at(text, at);
        let problem = if line.starts_with('[') {
            out.error(at, key, "this table is there twice")
        } else {
            out.error(at, key, "this key is there twice in its table")
        };
        problem.expected("once").help("remove one, or merge them");
    }
}

fn report(text: &str, error: &Error) -> (usize, Problem) {
    let places = Places::new(text);
    let span = error.span().unwrap_or(text.len()..text.len());
    let (mut line, mut column) = places.of(span.start.min(text.len()));
    // The end of a line that breaks off belongs to that line, also when the parser only notices at its very end.
    let lines: Vec<&str> = text.split('\n').collect();
    while line > 1 && lines.get(line - 1).is_none_or(|line| line.trim().is_empty()) {
        line -= 1;
        column = lines.get(line - 1).map_or(0, |line| line.chars().count()) + 1;
    }
    let key = key_at(text, span.start);
    let (message, expected) = match error.message().split_once(", expected ") {
        Some((message, "nothing")) => (message, None),
        Some((message, expected)) => (message, Some(expected.to_owned())),
        None => (error.message(), None),
    };
    let help = advice(lines.get(line - 1).copied().unwrap_or_default(), message);
    let message = format!("TOML syntax: {message}");
    (
        line,
        Problem { severity: Severity::Error, file: None, line, column, key, message, expected, help, suggestion: None },
    )
}

/// Whether a broken line tells why a name is not in the table whose header is on `header_line`.
pub fn explains_absence(original: &str, repaired: &Repaired, header_line: usize, name: &str) -> bool {
    let lines: Vec<&str> = original.split('\n').collect();
    let mended: Vec<&str> = repaired.text.split('\n').collect();
    repaired.problems.iter().any(|problem| {
        let has_name = lines
            .get(problem.line.wrapping_sub(1))
            .is_some_and(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name));
        let same_table = || {
            let between = mended.get(header_line..problem.line.max(header_line)).unwrap_or_default();
            between.iter().all(|line| !line.trim_start().starts_with('['))
        };
        has_name && (header_line <= 1 || (problem.line >= header_line && same_table()))
    })
}

/// What probably went wrong on a line, where that can be seen.
fn advice(line: &str, message: &str) -> Option<String> {
    let statement = line.split('#').next().unwrap_or_default().trim();
    if statement.starts_with('[') && !statement.contains('=') {
        let opened = statement.chars().take_while(|c| *c == '[').count();
        let closed = statement.chars().rev().take_while(|c| *c == ']').count();
        if opened != closed {
            return Some(format!("close the header with `{}`", "]".repeat(opened)));
        }
    }
    if let Some((key, value)) = statement.split_once('=') {
        let value = value.trim();
        if value.is_empty() {
            return Some(format!("give `{}` a value, or remove the line", key.trim()));
        }
        if value.chars().filter(|c| *c == '"').count() % 2 == 1 {
            return Some("a quote is missing".to_owned());
        }
        if value.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Some(format!("texts and addresses stand in quotes: `{} = \"{value}\"`", key.trim()));
        }
    } else if !statement.is_empty() && message.contains("key") {
        return Some("a line is `key = value`, `[table]` or `[[table]]`".to_owned());
    }
    None
}

/// The key path of an offset as far as the text shows it: the header above it and the key on its line.
fn key_at(text: &str, at: usize) -> String {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(start..).unwrap_or_default().split('\n').next().unwrap_or_default().trim();
    let is_header = |line: &str| line.starts_with('[') && !line.contains('=');
    let name =
        |line: &str| line.trim_matches(['[', ']', ' ']).split(['#', ']']).next().unwrap_or_default().trim().to_owned();
    if is_header(line) {
        return name(line);
    }
    let table = before.lines().rev().map(str::trim).find(|line| is_header(line)).map(name).unwrap_or_default();
    let inside = text.get(start..at).unwrap_or_default();
    let statement = inside.rsplit(['{', ',']).next().unwrap_or_default();
    let key = statement.split('=').next().unwrap_or_default();
    let key = if key.trim().is_empty() { line.split('=').next().unwrap_or_default() } else { key };
    let key: String = key.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c)).collect();
    match (table.is_empty(), key.is_empty()) {
        (true, _) => key,
        (false, true) => table,
        (false, false) => format!("{table}.{key}"),
    }
}

/// Of the ways to leave a broken line out, the one after which the fewest errors remain.
fn best_repair(lines: &[String], broken_line: usize) -> Vec<String> {
    let blank = |from: usize, to: usize| {
        let mut repaired = lines.to_vec();
        for line in repaired.iter_mut().take(to + 1).skip(from) {
            line.clear();
        }
        repaired
    };
    let mut ways = Vec::new();
    let line = lines.get(broken_line).map(String::as_str).unwrap_or_default();
    if let Some(header) = mended_header(line) {
        let mut repaired = lines.to_vec();
        repaired[broken_line] = header;
        ways.push(repaired);
    }
    ways.push(blank(broken_line, broken_line));
    // Perhaps an earlier statement was never closed, and this line is sound.
    let opener = lines[..broken_line.min(lines.len())].iter().rposition(|line| {
        line.split_once('=')
            .is_some_and(|(key, _)| key.trim().chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)))
    });
    if let Some(opener) = opener {
        ways.push(blank(opener, broken_line - 1));
        ways.push(blank(opener, broken_line));
    }
    let now = lines.join("\n");
    ways.into_iter()
        .filter(|way| way.join("\n") != now)
        .min_by_key(|way| broken(&way.join("\n")).len())
        .unwrap_or_else(|| vec![String::new(); lines.len()])
}

/// A header as it was probably meant, so that the keys below it are not blamed on the table above.
fn mended_header(line: &str) -> Option<String> {
    let statement = line.split('#').next()?.trim();
    if !statement.starts_with('[') || statement.contains('=') {
        return None;
    }
    let name: String = statement
        .trim_start_matches('[')
        .trim()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c))
        .collect();
    let mut table = &FILE;
    let mut path = Vec::new();
    for part in name.split('.') {
        table = table.table(nearest(part, table.tables.iter().map(|table| table.name))?)?;
        path.push(table.name);
    }
    let path = path.join(".");
    Some(if table.is_alone() { format!("[{path}]") } else { format!("[[{path}]]") })
}
