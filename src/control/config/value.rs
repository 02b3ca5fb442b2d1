//! Single values: one TOML value and one kind of the schema give a typed value, or say why not.
//!
//! Owns the wording of type and range mistakes. Knows nothing of other keys. Pure.

mod health;
mod integer;
mod vrrp;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::problem::Collector;
use super::schema::{Absent, Kind, Word};
use crate::model::{MacAddr, PortRange, Prefix};

use integer::{checked_integer, single_integer};
pub use vrrp::{MAX_PASSWORD, decimals};

/// A checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Boolean`].
    Boolean(bool),
    /// Of [`Kind::Integer`] and [`Kind::OneOf`].
    Integer(u32),
    /// Of [`Kind::IntegerOr`]; `None` for the word.
    IntegerOr(Option<u32>),
    /// Of [`Kind::Integers`]; `None` for the word that stands for all.
    Integers(Option<Vec<u32>>),
    /// Of [`Kind::Word`].
    Word(&'static str),
    /// Of [`Kind::Words`] and [`Kind::WordOrWords`].
    Words(Vec<&'static str>),
    /// Of [`Kind::Address`].
    Address(IpAddr),
    /// Of [`Kind::Addresses`].
    Addresses(Vec<IpAddr>),
    /// Of [`Kind::Prefixes`], each with its place.
    Prefixes(Vec<(Prefix, usize)>),
    /// Of [`Kind::Mac`].
    Mac(MacAddr),
    /// Of [`Kind::Ports`].
    Ports(PortRange),
    /// Of [`Kind::Hex`], [`Kind::Payload`] and [`Kind::Password`].
    Bytes(Vec<u8>),
    /// Of [`Kind::Name`], [`Kind::InterfaceName`], [`Kind::Path`], [`Kind::Text`], [`Kind::Line`], [`Kind::Url`] and
    /// [`Kind::Regex`].
    Text(String),
    /// Of [`Kind::Paths`], [`Kind::Names`] and [`Kind::People`], each with its place.
    Paths(Vec<(String, usize)>),
    /// Of [`Kind::Signed`].
    Signed(i32),
    /// Of [`Kind::Seconds`].
    Seconds(Duration),
    /// Of [`Kind::Host`].
    Host(IpAddr, Option<u8>),
    /// Of [`Kind::Command`]: one word or more.
    Command(Vec<String>),
    /// Of [`Kind::Status`]: first and last of each range.
    Ranges(Vec<(u16, u16)>),
    /// Of [`Kind::Pairs`], in the order of the file.
    Pairs(Vec<(String, String)>),
}

/// Longest service name.
pub const MAX_NAME: usize = 64;

/// Checks a value against its kind. `None` when something was wrong, and then it was reported.
pub fn check(kind: &Kind, value: &Spanned<DeValue<'_>>, key: &str, out: &mut Collector<'_>) -> Option<Value> {
    let at = value.span().start;
    match (kind, value.get_ref()) {
        (Kind::Boolean, DeValue::Boolean(b)) => Some(Value::Boolean(*b)),
        (Kind::Integer { .. } | Kind::OneOf(_), DeValue::Integer(_)) => {
            single_integer(kind, value, key, out).map(Value::Integer)
        }
        (Kind::IntegerOr { .. }, DeValue::Integer(_)) => {
            single_integer(kind, value, key, out).map(|n| Value::IntegerOr(Some(n)))
        }
        (Kind::IntegerOr { word, .. }, DeValue::String(text)) if text == word => Some(Value::IntegerOr(None)),
        (Kind::Integers { or: Some(word), .. }, DeValue::String(text)) if text == word => Some(Value::Integers(None)),
        (Kind::Integers { min, max, .. }, DeValue::Array(_)) => {
            let kind = Kind::Integer { min: *min, max: *max, power_of_two: false };
            list(value, key, &expectation(&kind), out, |item, key, out| single_integer(&kind, item, key, out))
                .and_then(|items| non_empty(items, at, key, kind_of_list(&kind), out))
                .map(|items| Value::Integers(Some(items)))
        }
        (Kind::Word(words, absent), DeValue::String(text)) => {
            one_word(words, *absent, &[], text, at, key, out).map(Value::Word)
        }
        (Kind::Words(words, absent), DeValue::Array(_)) => word_list(words, *absent, value, key, out).map(Value::Words),
        (Kind::WordOrWords { words, all }, DeValue::String(text)) => {
            if text == all {
                Some(Value::Words(words.iter().map(|word| word.name).collect()))
            } else {
                one_word(words, None, &[all], text, at, key, out).map(|word| Value::Words(vec![word]))
            }
        }
        (Kind::WordOrWords { words, .. }, DeValue::Array(_)) => word_list(words, None, value, key, out)
            .and_then(|items| non_empty(items, at, key, "one or more words".to_owned(), out))
            .map(Value::Words),
        (Kind::Addresses, DeValue::Array(_)) => {
            list(value, key, &expectation(&Kind::Address), out, |item, key, out| match item.get_ref() {
                DeValue::String(text) => address(text, item.span().start, key, out),
                other => {
                    out.error(item.span().start, key, format!("{} does not belong here", describe(other)))
                        .expected(expectation(&Kind::Address));
                    None
                }
            })
            .and_then(|items| non_empty(items, at, key, "one or more addresses".to_owned(), out))
            .map(Value::Addresses)
        }
        (Kind::Prefixes, DeValue::Array(_) | DeValue::String(_)) => {
            texts(kind, value, key, out, prefix).map(Value::Prefixes)
        }
        (Kind::Paths, DeValue::Array(_) | DeValue::String(_)) => texts(kind, value, key, out, path).map(Value::Paths),
        (Kind::Ports, DeValue::Integer(_)) => {
            let kind = Kind::Integer { min: 1, max: 65_535, power_of_two: false };
            let port = single_integer(&kind, value, key, out)?;
            Some(Value::Ports(PortRange::single(u16::try_from(port).ok()?)))
        }
        (Kind::Names, DeValue::Array(_) | DeValue::String(_)) => texts(kind, value, key, out, name).map(Value::Paths),
        (Kind::People { anyone }, DeValue::Array(_) | DeValue::String(_)) => {
            let one = if *anyone { person_or_anyone } else { person };
            texts(kind, value, key, out, one).map(Value::Paths)
        }
        (Kind::Signed { min, max }, DeValue::Integer(_)) => {
            let kind = Kind::Integer { min: *min, max: *max, power_of_two: false };
            checked_integer(&kind, value, key, out).and_then(|n| i32::try_from(n).ok()).map(Value::Signed)
        }
        (Kind::Seconds { .. }, DeValue::Integer(_) | DeValue::Float(_)) => {
            vrrp::seconds(kind, value, key, out).map(Value::Seconds)
        }
        (Kind::Command, DeValue::Array(_) | DeValue::String(_)) => vrrp::command(value, key, out).map(Value::Command),
        (Kind::Status, DeValue::Integer(_) | DeValue::String(_) | DeValue::Array(_)) => {
            health::status(value, key, out).map(Value::Ranges)
        }
        (Kind::Pairs, DeValue::Table(table)) => health::pairs(table, key, out).map(Value::Pairs),
        (Kind::Password, other) if !matches!(other, DeValue::String(_)) => {
            let problem = out.error(at, key, "a password is a text");
            problem.expected(expectation(kind)).help("put it in quotes");
            None
        }
        (_, DeValue::String(text)) => from_text(kind, text, at, key, out),
        (_, other) => {
            let problem = out.error(at, key, format!("{} does not belong here", describe(other)));
            problem.expected(expectation(kind));
            if matches!(other, DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_)) {
                None
            } else {
                let quoted = matches!(
                    kind,
                    Kind::Word(..)
                        | Kind::WordOrWords { .. }
                        | Kind::Name
                        | Kind::Names
                        | Kind::People { .. }
                        | Kind::Path
                        | Kind::Hex { .. }
                        | Kind::Text { .. }
                        | Kind::Line { .. }
                        | Kind::Payload { .. }
                );
                if quoted {
                    problem.help("put it in quotes, if that is what you mean");
                } else if matches!(kind, Kind::Integers { .. } | Kind::Words(..)) {
                    problem.help("put it in square brackets: a list of one");
                }
                None
            }
        }
    }
}

fn from_text(kind: &Kind, text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<Value> {
    match kind {
        Kind::Address => address(text, at, key, out).map(Value::Address),
        Kind::Addresses => address(text, at, key, out).map(|address| Value::Addresses(vec![address])),
        Kind::Mac => match text.parse::<MacAddr>() {
            Ok(mac) => Some(Value::Mac(mac)),
            Err(_) => {
                out.error(at, key, format!("{} is not a MAC address", quote(text))).expected(expectation(kind));
                None
            }
        },
        Kind::Ports => ports(text, at, key, out).map(Value::Ports),
        Kind::Name => name(text, at, key, out).map(Value::Text),
        Kind::Text { .. } => vrrp::short(kind, text, at, key, out).map(Value::Text),
        Kind::Host => vrrp::host(text, at, key, out).map(|(address, length)| Value::Host(address, length)),
        Kind::Password => vrrp::password(text, at, key, out).map(Value::Bytes),
        Kind::InterfaceName => {
            let sound = |c: char| c.is_ascii_graphic() && c != '/' && c != ':' && c != '%';
            if !text.is_empty() && text.len() <= 15 && text.chars().all(sound) && text != "." && text != ".." {
                return Some(Value::Text(text.to_owned()));
            }
            out.error(at, key, format!("{} cannot be the name of an interface", quote(text)))
                .expected(expectation(kind))
                .help("`ip -brief link` lists the interfaces");
            None
        }
        Kind::Path => path(text, at, key, out).map(Value::Text),
        Kind::Line { .. } => health::line(kind, text, at, key, out).map(Value::Text),
        Kind::Url => health::url(text, at, key, out).map(Value::Text),
        Kind::Regex => health::regex(text, at, key, out).map(Value::Text),
        Kind::Payload { max } => health::payload(*max, text, at, key, out).map(Value::Bytes),
        Kind::Hex { .. } => {
            let Kind::Hex { min, max, what } = kind else { return None };
            if let Some(bytes) = health::digits(text).filter(|bytes| (*min..=*max).contains(&bytes.len())) {
                return Some(Value::Bytes(bytes));
            }
            let problem = out.error(at, key, format!("{} cannot be {what}", quote(text)));
            problem.expected(expectation(kind));
            if let Some(bare) = text.strip_prefix("0x") {
                problem.help(format!("leave the `0x` away: {}", quote(bare)));
            } else if text.contains([':', '-', ' ']) {
                problem.help("write the digits without anything between them");
            }
            None
        }
        Kind::Boolean
        | Kind::Integer { .. }
        | Kind::IntegerOr { .. }
        | Kind::OneOf(_)
        | Kind::Integers { .. }
        | Kind::Signed { .. }
        | Kind::Seconds { .. } => {
            let inner = text.trim();
            let problem = out.error(at, key, format!("the text {} does not belong here", quote(text)));
            problem.expected(expectation(kind));
            let decimal = matches!(kind, Kind::Seconds { .. }) && inner.parse::<f64>().is_ok_and(f64::is_finite);
            if inner.parse::<i64>().is_ok() || decimal || matches!(inner, "true" | "false") {
                problem.help(match kind {
                    Kind::Integers { .. } => format!("write `[{inner}]`"),
                    _ => format!("remove the quotes: `{inner}`"),
                });
            } else if matches!(kind, Kind::Boolean) && matches!(inner, "yes" | "on" | "no" | "off") {
                problem.help(if matches!(inner, "yes" | "on") { "write `true`" } else { "write `false`" });
            } else if let Kind::Integers { or: Some(word), .. } | Kind::IntegerOr { word, .. } = kind {
                problem.suggest(text, [*word]);
            }
            None
        }
        Kind::Words(words, _) => {
            let problem = out.error(at, key, format!("the text {} does not belong here", quote(text)));
            problem.expected(expectation(kind));
            if words.iter().any(|word| word.name == text) {
                problem.help(format!("put it in square brackets: `[\"{text}\"]`"));
            }
            None
        }
        Kind::Pairs => {
            out.error(at, key, format!("the text {} does not belong here", quote(text))).expected(expectation(kind));
            None
        }
        // These take a text themselves.
        Kind::Status
        | Kind::Word(..)
        | Kind::WordOrWords { .. }
        | Kind::Prefixes
        | Kind::Paths
        | Kind::Names
        | Kind::People { .. }
        | Kind::Command => None,
    }
}

fn name(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || "._-:/@+[]".contains(c);
    let problem = if text.is_empty() {
        "the name is empty".to_owned()
    } else if text.len() > MAX_NAME {
        format!("the name has {} characters", text.chars().count())
    } else if let Some(bad) = text.chars().find(|c| !sound(*c)) {
        format!("{} has the character {:?}", quote(text), bad)
    } else {
        return Some(text.to_owned());
    };
    out.error(at, key, problem).expected(expectation(&Kind::Name));
    None
}

/// A user, or a group behind an `@`.
fn person(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<String> {
    let name = text.strip_prefix('@').unwrap_or(text);
    let sound = |c: char| c.is_alphanumeric() || "._-$+\\".contains(c);
    if !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(sound) {
        return Some(text.to_owned());
    }
    let problem = out.error(at, key, format!("{} is no user and no group", quote(text)));
    problem.expected(expectation(&Kind::People { anyone: false }));
    if text == "*" {
        problem.help("everybody may read (`readers`), not change: name those who may");
    }
    None
}

fn person_or_anyone(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<String> {
    if text == "*" { Some(text.to_owned()) } else { person(text, at, key, out) }
}

fn path(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<String> {
    if text.starts_with('/') && !text.contains('\0') && !text.ends_with('/') {
        return Some(text.to_owned());
    }
    out.error(at, key, format!("{} is not an absolute path of a file", quote(text))).expected(expectation(&Kind::Path));
    None
}

fn prefix(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<Prefix> {
    match text.parse::<Prefix>() {
        Ok(prefix) => Some(prefix),
        Err(refused) => {
            let problem = out.error(at, key, format!("{}: {refused}", quote(text)));
            problem.expected("an address or a prefix, such as `\"192.0.2.0/24\"` or `\"2001:db8::/32\"`");
            problem.help = refused.help();
            None
        }
    }
}

/// Texts of a list, or one alone, each with its place. They may be many, and some the same.
fn texts<T>(
    kind: &Kind,
    value: &Spanned<DeValue<'_>>,
    key: &str,
    out: &mut Collector<'_>,
    read: impl Fn(&str, usize, &str, &mut Collector<'_>) -> Option<T>,
) -> Option<Vec<(T, usize)>> {
    let items = match value.get_ref() {
        DeValue::Array(array) => array,
        DeValue::String(text) => {
            let at = value.span().start;
            return read(text, at, key, out).map(|found| vec![(found, at)]);
        }
        _ => return None,
    };
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let (at, key) = (item.span().start, format!("{key}[{index}]"));
        match item.get_ref() {
            DeValue::String(text) => found.extend(read(text, at, &key, out).map(|found| (found, at))),
            other => {
                out.error(at, key, format!("{} does not belong here", describe(other))).expected(expectation(kind));
            }
        }
    }
    (found.len() == items.len()).then_some(found)
}

fn address(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let problem = out.error(at, key, format!("{} is not an IP address", quote(text)));
    problem.expected(expectation(&Kind::Address));
    let plain = |text: &str| text.parse::<IpAddr>().is_ok();
    if let Some((before, _)) = inner.split_once('/').filter(|(before, _)| plain(before)) {
        problem.help(format!("leave the prefix length away: `\"{before}\"`"));
    } else if let Some((before, _)) = inner.split_once('%').filter(|(before, _)| plain(before)) {
        problem.help(format!("leave the zone away: `\"{before}\"`"));
    } else if let Some((before, _)) = text.rsplit_once(':').filter(|(before, after)| {
        after.parse::<u16>().is_ok() && plain(before.trim_start_matches('[').trim_end_matches(']'))
    }) {
        let before = before.trim_start_matches('[').trim_end_matches(']');
        problem.help(format!("the port has its own key: `\"{before}\"` and `port = ...`"));
    } else if plain(inner) {
        problem.help(format!("write `\"{inner}\"`"));
    } else if inner.starts_with(|c: char| c.is_ascii_alphabetic()) && !inner.contains(':') {
        problem.help("host names are not resolved: a load balancer must not depend on DNS");
    }
    None
}

fn ports(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<PortRange> {
    if text == "any" {
        return Some(PortRange::ANY);
    }
    let number = |part: &str| part.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let problem = match text.split_once('-') {
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => return Some(PortRange { first, last }),
            (Some(first), Some(last)) => {
                let problem = out.error(at, key, format!("the range {} ends before it begins", quote(text)));
                problem.help(format!("write `\"{last}-{first}\"`"))
            }
            _ => out.error(at, key, format!("{} is not a range of ports", quote(text))),
        },
        None => {
            let problem = out.error(at, key, format!("{} is not a port", quote(text)));
            if let Some(port) = number(text) {
                problem.help(format!("remove the quotes: `{port}`"));
            } else if matches!(text.trim(), "0" | "all" | "*") {
                problem.help("every port is `\"any\"`");
            }
            problem
        }
    };
    problem.expected(expectation(&Kind::Ports));
    None
}

fn one_word(
    words: &'static [Word],
    absent: Option<&'static Absent>,
    more: &[&'static str],
    text: &str,
    at: usize,
    key: &str,
    out: &mut Collector<'_>,
) -> Option<&'static str> {
    if let Some(word) = words.iter().find(|word| word.name == text) {
        return Some(word.name);
    }
    let names = || words.iter().map(|word| word.name).chain(more.iter().copied());
    if let Some(absent) = absent.filter(|absent| absent.words.contains(&text.to_lowercase().as_str())) {
        out.error(at, key, format!("{} is not in this version", quote(text)))
            .expected(one_of(names()))
            .help(absent.instead);
        return None;
    }
    let lower = text.to_lowercase();
    let by_habit = words.iter().find(|word| word.also.contains(&lower.as_str())).map(|word| word.name);
    let problem = out.error(at, key, format!("unknown word {}", quote(text)));
    problem.expected(one_of(names())).suggest(by_habit.unwrap_or(text), names());
    None
}

fn word_list(
    words: &'static [Word],
    absent: Option<&'static Absent>,
    value: &Spanned<DeValue<'_>>,
    key: &str,
    out: &mut Collector<'_>,
) -> Option<Vec<&'static str>> {
    let expected = one_of(words.iter().map(|word| word.name));
    list(value, key, &expected, out, |item, key, out| match item.get_ref() {
        DeValue::String(text) => one_word(words, absent, &[], text, item.span().start, key, out),
        other => {
            out.error(item.span().start, key, format!("{} does not belong here", describe(other)))
                .expected(expected.clone());
            None
        }
    })
}

/// Checks every item of a list, so that each mistake is reported, and that none is there twice.
fn list<T: PartialEq + std::fmt::Display>(
    value: &Spanned<DeValue<'_>>,
    key: &str,
    expected: &str,
    out: &mut Collector<'_>,
    mut item: impl FnMut(&Spanned<DeValue<'_>>, &str, &mut Collector<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let DeValue::Array(array) = value.get_ref() else { return None };
    let mut items = Vec::new();
    let mut sound = true;
    for (index, entry) in array.iter().enumerate() {
        let path = format!("{key}[{index}]");
        match item(entry, &path, out) {
            Some(found) if items.contains(&found) => {
                out.error(entry.span().start, path, format!("`{found}` is there twice"))
                    .expected(format!("{expected}, each at most once"))
                    .help("remove one of them");
                sound = false;
            }
            Some(found) => items.push(found),
            None => sound = false,
        }
    }
    sound.then_some(items)
}

fn non_empty<T>(items: Vec<T>, at: usize, key: &str, expected: String, out: &mut Collector<'_>) -> Option<Vec<T>> {
    if items.is_empty() {
        out.error(at, key, "the list is empty").expected(expected).help("remove the key to have its default");
        return None;
    }
    Some(items)
}

fn kind_of_list(kind: &Kind) -> String {
    format!("a list of one or more of: {}", expectation(kind))
}

/// What a kind takes, in words.
pub fn expectation(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "`true` or `false`".to_owned(),
        Kind::Integer { min, max, power_of_two } => {
            format!("{} from {min} to {max}", if *power_of_two { "a power of two" } else { "an integer" })
        }
        Kind::IntegerOr { min, max, word } => format!("an integer from {min} to {max}, or `\"{word}\"`"),
        Kind::OneOf(choices) => {
            let choices: Vec<String> = choices.iter().map(u32::to_string).collect();
            format!("one of {}", choices.join(", "))
        }
        Kind::Integers { min, max, or } => {
            let mut text = format!("a list of different integers from {min} to {max}, such as `[0, 1]`");
            if let Some(word) = or {
                let _ = write!(text, ", or `\"{word}\"`");
            }
            text
        }
        Kind::Word(words, _) => one_of(words.iter().map(|word| word.name)),
        Kind::Words(words, _) => format!("a list of {}", one_of(words.iter().map(|word| word.name))),
        Kind::WordOrWords { words, all } => {
            format!("`\"{all}\"`, {}, or a list of these", one_of(words.iter().map(|word| word.name)))
        }
        Kind::Address => "an IPv4 or IPv6 address, such as `\"192.0.2.10\"` or `\"2001:db8::10\"`".to_owned(),
        Kind::Addresses => {
            "an IPv4 or IPv6 address, or a list of different ones, such as `[\"192.0.2.10\", \"192.0.2.11\"]`"
                .to_owned()
        }
        Kind::Prefixes => "a list of prefixes and addresses, such as `[\"192.0.2.0/24\", \"2001:db8::1\"]`".to_owned(),
        Kind::Mac => "six hexadecimal bytes, such as `\"02:00:5e:10:00:01\"`".to_owned(),
        Kind::Ports => {
            "a port such as `80`, a range such as `\"8000-8099\"`, or `\"any\"`; ports are 1 to 65535".to_owned()
        }
        Kind::Name => format!("1 to {MAX_NAME} letters, digits and the characters `. _ - : / @ + [ ]`"),
        Kind::InterfaceName => "the kernel's name of an interface, 1 to 15 characters, such as `\"eth0\"`".to_owned(),
        Kind::Hex { min, max, .. } if min == max => format!("{max} bytes in hexadecimal: {} digits", max * 2),
        Kind::Hex { min, max, .. } => format!("{min} to {max} bytes in hexadecimal, such as `\"0a1b\"`"),
        Kind::Path => "an absolute path, such as `\"/run/evenkeel.sock\"`".to_owned(),
        Kind::Paths => "a list of absolute paths, such as `[\"/etc/evenkeel/list.txt\"]`".to_owned(),
        Kind::Signed { min, max } => format!("an integer from {min} to {max}"),
        Kind::Seconds { min, max, step } => {
            let finest = if *step > 1 { format!(" in steps of {}", decimals(*step)) } else { String::new() };
            format!("seconds from {} to {}{finest}, such as `1` or `0.5`", decimals(*min), decimals(*max))
        }
        Kind::Names => "a list of names, such as `[\"outside\", \"inside\"]`".to_owned(),
        Kind::People { anyone } => format!(
            "users and groups, such as `[\"alice\", \"1000\", \"@wheel\"]`{}",
            if *anyone { ", or `\"*\"` for everybody" } else { "" }
        ),
        Kind::Host => {
            "an address with or without a prefix length, such as `\"192.0.2.10/24\"` or `\"2001:db8::10/64\"`".to_owned()
        }
        Kind::Command => {
            "an absolute path with arguments, such as `\"/usr/local/bin/tell me\"` or `[\"/usr/local/bin/tell\", \"me\"]`"
                .to_owned()
        }
        Kind::Text { max } => format!("1 to {max} bytes of text"),
        Kind::Password => format!("a text of 1 to {MAX_PASSWORD} bytes"),
        Kind::Line { max } => format!("a text of 1 to {max} bytes on one line"),
        Kind::Url => "the path of a URL from `/`, such as `\"/health?full=1\"`".to_owned(),
        Kind::Regex => "a regular expression, such as `'ready: (yes|true)'`".to_owned(),
        Kind::Status => {
            "a status code such as `200`, a range such as `\"200-299\"`, or a list of these; codes are 100 to 599".to_owned()
        }
        Kind::Pairs => "a table of names and texts, such as `{ \"X-Check\" = \"yes\" }`".to_owned(),
        Kind::Payload { max } => {
            format!("a text of 1 to {max} bytes, or `\"hex:\"` and hexadecimal digits, such as `\"hex:0a1b\"`")
        }
    }
}

fn one_of<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<String> = words.map(|word| format!("`\"{word}\"`")).collect();
    match words.as_slice() {
        [only] => only.clone(),
        [first, last] => format!("{first} or {last}"),
        _ => format!("one of {}", words.join(", ")),
    }
}

/// A written text in quotes, shortened so that one absurd value cannot fill the screen.
pub fn quote(text: &str) -> String {
    format!("\"{}\"", shorten(text).escape_debug())
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_owned(),
    }
}

/// A TOML value of the wrong type, in words.
pub fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", quote(text)),
        DeValue::Integer(integer) => format!("the integer {}", shorten(integer.as_str())),
        DeValue::Float(float) => format!("the number {}", shorten(float.as_str())),
        DeValue::Boolean(b) => format!("`{b}`"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
