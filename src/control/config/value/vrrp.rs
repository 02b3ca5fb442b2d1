//! Single values of VRRP's kinds: seconds with decimals, addresses with a prefix length, commands, short texts, passwords.
//!
//! Owns the wording of their mistakes. Knows nothing of other keys. Pure.

use std::net::IpAddr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::super::problem::Collector;
use super::super::schema::Kind;
use super::{describe, expectation, quote, shorten};

/// Longest password, in bytes.
pub const MAX_PASSWORD: usize = 8;

/// An integer or a decimal number of seconds. `None` for a value of another type, which says nothing yet.
pub(super) fn seconds(
    kind: &Kind,
    value: &Spanned<DeValue<'_>>,
    key: &str,
    out: &mut Collector<'_>,
) -> Option<Duration> {
    let Kind::Seconds { min, max, step } = *kind else { return None };
    let at = value.span().start;
    let (written, number) = match value.get_ref() {
        DeValue::Integer(integer) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
            (shorten(&integer.to_string()), number.map(|number| number as f64))
        }
        DeValue::Float(float) => (shorten(float.as_str()), float.as_str().replace('_', "").parse::<f64>().ok()),
        _ => return None,
    };
    // Milliseconds with what is finer still in its fraction: both ends and each step are whole numbers of them.
    let millis = number.map_or(f64::NAN, |seconds| seconds * 1000.0);
    let whole = (millis.is_finite() && (0.0..=1e12).contains(&millis)).then_some(millis.round() as u64);
    let exact = whole.filter(|whole| (*whole as f64 - millis).abs() < 1e-6 * millis.max(1.0));
    if let Some(exact) = exact.filter(|exact| (min..=max).contains(exact) && exact % step == 0) {
        return Some(Duration::from_millis(exact));
    }
    let problem = out.error(at, key, format!("{written} is not permitted"));
    problem.expected(expectation(kind));
    if millis.is_nan() || millis < min as f64 {
        problem.help(format!("the least is {}", decimals(min)));
    } else if millis > max as f64 {
        problem.help(format!("the most is {}", decimals(max)));
    } else if let Some(whole) = whole {
        let below = whole / step * step;
        problem.help(format!("the nearest are {} and {}", decimals(below.max(min)), decimals((below + step).min(max))));
    }
    None
}

/// Milliseconds as decimal seconds, in the shortest form.
pub fn decimals(millis: u64) -> String {
    let (seconds, rest) = (millis / 1000, millis % 1000);
    if rest == 0 {
        return seconds.to_string();
    }
    format!("{seconds}.{rest:03}").trim_end_matches('0').to_owned()
}

/// An address with or without a prefix length.
pub(super) fn host(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<(IpAddr, Option<u8>)> {
    let (address, length) = match text.split_once('/').filter(|_| !text.contains(char::is_whitespace)) {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    if let Ok(address) = address.parse::<IpAddr>() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let digits = |length: &str| length.bytes().all(|byte| byte.is_ascii_digit());
        match length.map(|length| length.parse::<u8>().ok().filter(|bits| *bits > 0 && digits(length)).ok_or(length)) {
            None => return Some((address, None)),
            Some(Ok(length)) if length <= bits => return Some((address, Some(length))),
            Some(_) => {
                out.error(at, key, format!("{} has a prefix length that cannot be", quote(text)))
                    .expected(format!("a length from 1 to {bits}, such as `\"{address}/{}\"`", bits / 4 * 3))
                    .help("write the length of the network that the address is in");
                return None;
            }
        }
    }
    let problem = out.error(at, key, format!("{} is not an IP address", quote(text)));
    problem.expected(expectation(&Kind::Host));
    let mut words = text.split_whitespace();
    if let Some(first) =
        words.next().filter(|first| first.split('/').next().is_some_and(|a| a.parse::<IpAddr>().is_ok()))
    {
        // As keepalived writes it: `192.0.2.10/24 dev eth0 label eth0:1`.
        let mut keys = format!("address = \"{first}\"");
        while let (Some(word), Some(value)) = (words.next(), words.next()) {
            match word {
                "dev" => keys.push_str(&format!(", device = {}", quote(value))),
                "label" => keys.push_str(&format!(", label = {}", quote(value))),
                _ => {}
            }
        }
        problem.help(format!("write a table: `{{ {keys} }}`"));
    } else if text.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') {
        problem.help("host names are not resolved");
    }
    None
}

/// A program and its arguments, from a list or from one text.
pub(super) fn command(value: &Spanned<DeValue<'_>>, key: &str, out: &mut Collector<'_>) -> Option<Vec<String>> {
    let at = value.span().start;
    let words = match value.get_ref() {
        DeValue::String(text) => match split(text) {
            Ok(words) => words,
            Err(what) => {
                out.error(at, key, format!("{} {what}", quote(text)))
                    .expected(expectation(&Kind::Command))
                    .help("write the arguments as a list, each as it is");
                return None;
            }
        },
        DeValue::Array(items) => {
            let mut words = Vec::new();
            for (index, item) in items.iter().enumerate() {
                match item.get_ref() {
                    DeValue::String(text) => words.push(text.to_string()),
                    other => {
                        let text = format!("{} does not belong here", describe(other));
                        let problem = out.error(item.span().start, format!("{key}[{index}]"), text);
                        problem.expected("the program, or an argument, as a text").help("put it in quotes");
                    }
                }
            }
            if words.len() < items.len() {
                return None;
            }
            words
        }
        _ => return None,
    };
    let problem = match words.first() {
        None => out.error(at, key, "there is no program"),
        Some(_) if words.iter().any(|word| word.contains('\0')) => {
            out.error(at, key, "no argument of a program can have a zero byte")
        }
        Some(program) if !program.starts_with('/') || program.ends_with('/') => {
            out.error(at, key, format!("{} is not the absolute path of a program", quote(program)))
        }
        Some(_) => return Some(words),
    };
    problem.expected(expectation(&Kind::Command)).help("`command -v NAME` shows the path of a program");
    None
}

/// Splits a text into words as a shell does: blanks part them, quotes and backslashes keep blanks. Nothing is expanded.
fn split(text: &str) -> Result<Vec<String>, &'static str> {
    const OPEN: &str = "has a quote without its end";
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quoted = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quoted, c) {
            (Some(quote), c) if c == quote => quoted = None,
            (Some('"'), '\\') => {
                let next = characters.next().ok_or(OPEN)?;
                let word = word.get_or_insert_default();
                if !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            (None, '"' | '\'') => {
                quoted = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().push(characters.next().ok_or("ends in a backslash")?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quoted.is_some() { Err(OPEN) } else { Ok(words) }
}

/// A short text of printable characters.
pub(super) fn short(kind: &Kind, text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<String> {
    let Kind::Text { max } = *kind else { return None };
    let problem = if text.is_empty() {
        out.error(at, key, "the text is empty")
    } else if text.len() > max {
        let mut end = max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let problem = out.error(at, key, format!("{} has {} bytes", quote(text), text.len()));
        problem.help(format!("the kernel keeps no more than {}", quote(&text[..end])))
    } else if text.chars().any(char::is_control) {
        out.error(at, key, format!("{} has a control character", quote(text)))
    } else {
        return Some(text.to_owned());
    };
    problem.expected(expectation(kind));
    None
}

/// A password, filled up with zeroes. It is in no message.
pub(super) fn password(text: &str, at: usize, key: &str, out: &mut Collector<'_>) -> Option<Vec<u8>> {
    let problem = if text.is_empty() {
        out.error(at, key, "the password is empty").help("remove the key to send none")
    } else if text.len() > MAX_PASSWORD {
        let problem = out.error(at, key, format!("the password has {} bytes", text.len()));
        problem.help(format!(
            "adverts have room for {MAX_PASSWORD}: keepalived sends the first {MAX_PASSWORD} of a longer one"
        ))
    } else if text.contains('\0') {
        out.error(at, key, "the password has a zero byte").help("choose another")
    } else {
        return Some(text.as_bytes().to_vec());
    };
    problem.expected(expectation(&Kind::Password));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_does() {
        for (text, words) in [
            ("/bin/a", &["/bin/a"][..]),
            ("  /bin/a  b\tc ", &["/bin/a", "b", "c"]),
            ("/bin/a 'b  c' \"d e\"f", &["/bin/a", "b  c", "d ef"]),
            ("/bin/a '' \"\"", &["/bin/a", "", ""]),
            (r#"/bin/a b\ c "d\"e\n\\" 'f\g'"#, &["/bin/a", "b c", "d\"e\\n\\", "f\\g"]),
            ("/bin/a $HOME; rm", &["/bin/a", "$HOME;", "rm"]),
            ("", &[]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for text in ["/bin/a 'b", "/bin/a \"b", "/bin/a \"b\\", "/bin/a \\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_are_written_in_the_shortest_form() {
        for (millis, text) in [(0, "0"), (10, "0.01"), (250, "0.25"), (1000, "1"), (40_950, "40.95"), (1001, "1.001")] {
            assert_eq!(decimals(millis), text);
        }
    }
}
