//! What each kind of checker asks.
//!
//! Owns the keywords of each kind. Pure.

use super::super::super::desk::Desk;
use super::super::super::keywords::Context;
use super::super::super::track::user;
use super::super::super::tree::Statement;
use super::Asked;
use crate::control::import::document::{Table, Value};
use crate::control::import::report::Place;

/// What keepalived says in `HELO` without `helo_name`.
const HELO: &str = "smtpchecker.keepalived.org";

/// A checker that is being read.
#[derive(Debug)]
pub struct Kind {
    name: &'static str,
    /// `url` of HTTP.
    requests: Vec<Table>,
    sni: Option<Place>,
}

impl Kind {
    /// The checker that a type of check was.
    pub fn new(name: &'static str) -> Kind {
        Kind { name, requests: Vec::new(), sni: None }
    }

    /// Reads a keyword of this kind; false where it has no such one.
    pub fn statement(&mut self, statement: &Statement, table: &mut Table, asked: &Asked<'_>, desk: &mut Desk) -> bool {
        let at = &statement.at;
        match (self.name, statement.keyword()) {
            ("http" | "https", "url") => self.requests.push(request(statement, desk)),
            ("http" | "https", "http_protocol") => match statement.word(1) {
                "1.1" => {
                    desk.taken(statement, 2, &mut table.notes);
                    table.set("version", Value::text("1.1"), at);
                }
                "1.0" | "1.0C" | "1.0c" => desk.taken(statement, 2, &mut table.notes),
                _ => desk.left_out(statement, "it is none of 1.0, 1.0C and 1.1: 1.0 is taken", &mut table.notes),
            },
            ("https", "enable_sni") => {
                if desk.flag(statement, &mut table.notes) == Some(true) {
                    self.sni = Some(at.clone());
                }
            }
            ("smtp", "helo_name") => desk.set_word("helo", statement, table),
            ("dns", "type") => {
                if let Some(word) = desk.word(statement, &mut table.notes) {
                    table.set("record", Value::Text(word.to_uppercase()), at);
                }
            }
            ("dns", "name") => desk.set_word("name", statement, table),
            ("script", "misc_path") => {
                if let Some(program) = desk.program(statement, &mut table.notes) {
                    table.set("command", program.command, at);
                    if let Some(user) = program.user {
                        table.set("user", Value::Text(user), at);
                    }
                }
            }
            ("script", "misc_timeout") => desk.set_seconds("timeout", statement, table),
            ("script", "misc_dynamic") => {
                if desk.flag(statement, &mut table.notes) == Some(true) {
                    table.set("dynamic", Value::Boolean(true), at);
                }
            }
            ("script", "user") => user(statement, table, desk),
            ("udp", "payload") => match hex(statement.arguments()) {
                Some((digits, true)) => {
                    statement.taken();
                    table.set("payload", Value::Text(format!("hex:{digits}")), at);
                }
                _ => desk.left_out(statement, "it is no hexadecimal text", &mut table.notes),
            },
            ("udp", "require_reply") => {
                statement.taken();
                table.set("require_reply", Value::Boolean(true), at);
                match hex(statement.arguments()) {
                    Some((digits, whole)) => {
                        if !digits.is_empty() {
                            table.set("reply", Value::Text(format!("hex:{digits}")), at);
                        }
                        if !whole {
                            let text = "what comes before the first `x` is looked at, and not what follows it";
                            desk.left_out(statement, text, &mut table.notes);
                        }
                    }
                    None if statement.arguments().is_empty() => {}
                    None => desk.left_out(statement, "it is no hexadecimal text: any reply is good", &mut table.notes),
                }
            }
            ("file", "track_file") => match asked.files.get(statement.word(1)) {
                Some(path) => {
                    desk.taken(statement, 2, &mut table.notes);
                    table.set("file", Value::text(path), at);
                }
                None => {
                    let text = format!("there is no track_file `{}` with a `file`", statement.word(1));
                    desk.left_out(statement, text, &mut table.notes);
                }
            },
            ("file", "weight") if statement.word(2) == "reverse" => {
                let text = "no weight is turned around: turn the number in the file around";
                desk.left_out(statement, text, &mut table.notes);
            }
            ("file", "weight") => desk.set_integer("weight", statement, -253..=253, table),
            _ => return false,
        }
        if self.name == "script"
            && let Some((user, at)) = &asked.global.script_user
        {
            table.set_unless("user", Value::text(user), at);
        }
        true
    }

    /// What depends on several keywords. An error is why there is no check.
    pub fn finish(
        &mut self,
        table: &mut Table,
        virtualhost: Option<&str>,
        desk: &mut Desk,
    ) -> Result<(), &'static str> {
        let at = table.at.clone();
        match self.name {
            "http" | "https" => {
                if self.requests.is_empty() {
                    return Err("it has no `url`: keepalived ignores it, too");
                }
                table.set_unless("version", Value::text("1.0"), &at);
                if let Some(host) = virtualhost {
                    for request in &mut self.requests {
                        request.set_unless("host", Value::text(host), &at);
                    }
                }
                if let Some(at) = self.sni.take() {
                    match self.requests.iter().find_map(|request| request.get_text("host")) {
                        Some(host) => table.set("tls_name", Value::text(host.split(':').next().unwrap_or(host)), &at),
                        None => {
                            let reason = "there is no `virtualhost` whose name could be sent";
                            desk.drop_words(&at, "enable_sni".to_owned(), reason, &mut table.notes);
                        }
                    }
                }
                let mut requests = std::mem::take(&mut self.requests);
                if requests.len() == 1
                    && let Some(one) = requests.pop()
                {
                    table.keys.extend(one.keys);
                    table.notes.extend(one.notes);
                }
                table.tables.extend(requests);
            }
            "smtp" => table.set_unless("helo", Value::text(HELO), &at),
            "dns" => {
                table.set_unless("record", Value::text("SOA"), &at);
                table.set_unless("name", Value::text("."), &at);
            }
            "script" if table.get("command").is_none() => {
                return Err("it has no `misc_path`: keepalived ignores it, too");
            }
            "file" if table.get("file").is_none() => return Err("it names no track_file that is there"),
            "udp" if table.get("payload").is_none() => {
                let text = "without `payload` keepalived sends something at random: this sends an empty datagram";
                desk.note(&at, "UDP_CHECK", text, &mut table.notes);
            }
            _ => {}
        }
        Ok(())
    }
}

/// A `url` of `HTTP_GET`.
fn request(block: &Statement, desk: &mut Desk) -> Table {
    let mut table = Table::many("request", &block.at, block.written());
    block.taken();
    table.set("url", Value::text("/"), &block.at);
    let (mut pattern, mut flags, mut negated) = (None, String::new(), false);
    for statement in block.inner() {
        let at = &statement.at;
        match statement.keyword() {
            "path" => desk.set_word("url", statement, &mut table),
            "digest" => desk.set_word("digest", statement, &mut table),
            "virtualhost" => desk.set_word("host", statement, &mut table),
            "status_code" if !statement.arguments().is_empty() => {
                statement.taken();
                let code = |word: &String| word.parse().map_or_else(|_| Value::text(word), Value::Integer);
                let codes: Vec<Value> = statement.arguments().iter().map(code).collect();
                let value = if let [one] = codes.as_slice() { one.clone() } else { Value::Whole(codes) };
                table.set("status", value, at);
            }
            "regex" => pattern = desk.word(statement, &mut table.notes).map(|word| (word, at.clone())).or(pattern),
            "regex_no_match" => {
                desk.taken(statement, 1, &mut table.notes);
                negated = true;
            }
            "regex_options" => {
                statement.taken();
                for option in statement.arguments() {
                    match option.as_str() {
                        "caseless" => flags.push('i'),
                        "multiline" => flags.push('m'),
                        "dotall" => flags.push('s'),
                        "extended" => flags.push('x'),
                        "ungreedy" => flags.push('U'),
                        // What they ask for is so anyway.
                        "utf" | "ucp" | "no_auto_capture" | "no_auto_possess" | "no_start_optimize"
                        | "no_dotstar_anchor" => {}
                        _ => {
                            let reason = "the regular expressions have no such option";
                            desk.drop_words(at, option.clone(), reason, &mut table.notes);
                        }
                    }
                }
            }
            _ => desk.other(statement, Context::Url, &mut table.notes),
        }
    }
    if let Some((pattern, at)) = pattern {
        let pattern = if flags.is_empty() { pattern } else { format!("(?{flags}){pattern}") };
        table.set(if negated { "not_regex" } else { "regex" }, Value::Text(pattern), &at);
    }
    table
}

/// Bytes as keepalived writes them: pairs of digits, an odd one at the end of a word alone, `x` for half a byte of any value.
/// The digits up to the first byte with an `x`, and whether that was all.
fn hex(words: &[String]) -> Option<(String, bool)> {
    let mut out = String::new();
    let mut any = false;
    for word in words.iter().flat_map(|word| word.split_whitespace()) {
        let digits: Vec<char> = word.chars().collect();
        if !digits.iter().all(|c| c.is_ascii_hexdigit() || matches!(c, 'x' | 'X')) {
            return None;
        }
        any = true;
        for pair in digits.chunks(2) {
            if pair.iter().any(|c| matches!(c, 'x' | 'X')) {
                return Some((out, false));
            }
            if pair.len() == 1 {
                out.push('0');
            }
            out.extend(pair.iter().map(char::to_ascii_lowercase));
        }
    }
    any.then_some((out, true))
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn bytes_are_those_of_the_manual() {
        let of = |text: &str| hex(&[text.to_owned()]);
        assert_eq!(of("Ab12f 3 456 546443123"), Some(("ab120f0345065464431203".to_owned(), true)));
        assert_eq!(of("0102 xA 03"), Some(("0102".to_owned(), false)));
        assert_eq!(of("01 g"), None);
        assert_eq!(of(""), None);
    }
}
