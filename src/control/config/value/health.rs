//! Single values of health checks' kinds: lines, paths of URLs, regular expressions, status codes, pairs, payloads.
//!
//! Owns the wording of their mistakes. Knows nothing of other keys. Pure.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::problem::Collector;
use super::super::schema::Kind;
use super::{describe, expectation, quote, shorten};

/// Largest memory of a compiled regular expression, in bytes.
const MOST_REGEX: usize = 1 << 20;
/// Most pairs of one table, and most bytes of a name or a text in it.
const MOST_PAIRS: usize = 32;
const MOST_PAIR: usize = 4096;

/// A text without control characters.
pub(super) fn line(kind: &Kind, text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<String> {
    let Kind::Line { max } = *kind else { return None };
    let problem = if text.is_empty() {
        out.error(at, key, "the text is empty").help("remove the key, if nothing is meant")
    } else if text.len() > max {
        out.error(at, key, format!("{} has {} bytes", quote(text), text.len())).help("shorten it")
    } else if text.chars().any(char::is_control) {
        out.error(at, key, format!("{} has a control character", quote(text))).help("remove it")
    } else {
        return Some(text.to_owned());
    };
    problem.expected(expectation(kind));
    None
}

/// The path of a URL: no spaces, no fragment, nothing that is not ASCII.
pub(super) fn url(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<String> {
    let sound = |c: char| c.is_ascii_graphic() && c != '#';
    if text.starts_with('/') && text.len() <= 2048 && text.chars().all(sound) {
        return Some(text.to_owned());
    }
    let problem = out.error(at, key, format!("{} is not the path of a URL", quote(text)));
    problem.expected(expectation(&Kind::Url));
    if let Some((_, rest)) = text.split_once("://") {
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        problem.help(format!("write `url = {}` and `host = {}`", quote(path), quote(host)));
    } else if text.contains(' ') {
        problem.help("write a space as `%20`");
    } else if !text.starts_with('/') {
        problem.help(format!("write {}", quote(&format!("/{text}"))));
    }
    None
}

/// A regular expression that compiles.
pub(super) fn regex(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<String> {
    let tried = regex::bytes::RegexBuilder::new(text).size_limit(MOST_REGEX).build();
    let why = match tried {
        Ok(_) => return Some(text.to_owned()),
        Err(regex::Error::CompiledTooBig(_)) => "it is too large when compiled".to_owned(),
        Err(error) => {
            let all = error.to_string();
            let last = all.lines().last().unwrap_or_default();
            last.trim().trim_start_matches("error: ").to_owned()
        }
    };
    let problem = out.error(at, key, format!("{} is not a regular expression: {why}", quote(text)));
    problem.expected(expectation(&Kind::Regex));
    if why.contains("look-around") || why.contains("backreference") {
        problem.help("write it without: `not_regex` is there for what must not be in the body");
    } else {
        problem.help("put a backslash before characters that stand for themselves, and the whole in single quotes");
    }
    None
}

/// Status codes: one, a range, or a list of these.
pub(super) fn status(value: &Spanned<DeValue<'_>>, key: &str, out: &mut Collector<'_>) -> Option<Vec<(u16, u16)>> {
    let DeValue::Array(items) = value.get_ref() else { return one_status(value, key, out).map(|range| vec![range]) };
    if items.is_empty() {
        out.error(value.span().start, key, "the list is empty")
            .expected(expectation(&Kind::Status))
            .help("remove the key to have its default");
        return None;
    }
    let one = |(index, item): (usize, &Spanned<DeValue<'_>>)| one_status(item, &format!("{key}[{index}]"), out);
    let found: Vec<Option<(u16, u16)>> = items.iter().enumerate().map(one).collect();
    found.into_iter().collect()
}

fn one_status(value: &Spanned<DeValue<'_>>, key: &str, out: &mut Collector<'_>) -> Option<(u16, u16)> {
    let at = value.span().start;
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|code| (100..=599).contains(code));
    let (range, shown) = match value.get_ref() {
        DeValue::Integer(integer) => {
            let code =
                i128::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|n| number(&n.to_string()));
            (code.map(|code| (code, code)), shorten(&integer.to_string()))
        }
        DeValue::String(text) => {
            let range = match text.split_once('-') {
                Some((first, last)) => number(first).zip(number(last)).filter(|(first, last)| first <= last),
                None => number(text).map(|code| (code, code)),
            };
            (range, quote(text))
        }
        other => (None, describe(other)),
    };
    if range.is_none() {
        let problem = out.error(at, key, format!("{shown} is no status code and no range of them"));
        problem.expected(expectation(&Kind::Status));
        if let DeValue::String(text) = value.get_ref() {
            let class = text.to_lowercase();
            if let Some(first) = class.strip_suffix("xx").filter(|first| matches!(*first, "1" | "2" | "3" | "4" | "5"))
            {
                problem.help(format!("write `\"{first}00-{first}99\"`"));
            } else if text.contains([',', ' ']) {
                problem.help("write several as a list: `[\"200-299\", 401]`");
            }
        }
    }
    range
}

/// Names and texts.
pub(super) fn pairs(table: &DeTable<'_>, key: &str, out: &mut Collector<'_>) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (name, value) in table {
        let at = value.span().start;
        let written = name.get_ref();
        let key = format!("{key}.{}", shorten(written));
        let problem = match value.get_ref() {
            _ if found.len() == MOST_PAIRS => out.error(at, key, format!("there are more than {MOST_PAIRS}")),
            DeValue::String(text) => {
                let bad = |text: &str| text.len() > MOST_PAIR || text.chars().any(char::is_control);
                if written.is_empty() || bad(written) || written.contains(['=', ':', ' ']) {
                    out.error(at, key, format!("{} cannot be a name", quote(written)))
                } else if bad(text) {
                    out.error(at, key, format!("{} is too long, or has a control character", quote(text)))
                } else {
                    found.push((written.to_string(), text.to_string()));
                    continue;
                }
            }
            other => {
                let problem = out.error(at, key, format!("{} does not belong here", describe(other)));
                problem.help("put it in quotes")
            }
        };
        problem.expected(expectation(&Kind::Pairs));
    }
    (found.len() == table.len()).then_some(found)
}

/// Bytes, as a text or after `hex:`.
pub(super) fn payload(max: usize, text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<Vec<u8>> {
    let bytes = match text.strip_prefix("hex:") {
        Some(digits_alone) => digits(digits_alone),
        None => Some(text.as_bytes().to_vec()),
    };
    let problem = match bytes {
        Some(bytes) if (1..=max).contains(&bytes.len()) => return Some(bytes),
        Some(bytes) if bytes.is_empty() => {
            out.error(at, key, "there are no bytes").help("remove the key, if nothing is meant")
        }
        Some(bytes) => out.error(at, key, format!("there are {} bytes", bytes.len())).help("shorten it"),
        None => {
            let problem = out.error(at, key, format!("{} has other characters than pairs of digits", quote(text)));
            problem.help("write the digits without anything between them")
        }
    };
    problem.expected(expectation(&Kind::Payload { max }));
    None
}

/// Bytes from pairs of hexadecimal digits.
pub(super) fn digits(text: &str) -> Option<Vec<u8>> {
    let nibble = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pair = |pair: &[u8]| Some(nibble(pair.first()?)? << 4 | nibble(pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect()
}
