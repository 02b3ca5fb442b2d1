//! One call of ipvsadm: its words, as popt reads them.
//!
//! Owns the options, long and short. Never knows what they do to a table. Pure.

use std::net::IpAddr;

/// Why a call comes to nothing.
#[derive(Debug)]
pub enum Refusal {
    /// It is no call of ipvsadm: message and help.
    Broken(String, String),
    /// It has no counterpart.
    LeftOut(String),
}

/// A virtual service as a call names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 for every port.
    pub port: u16,
}

/// A call.
#[derive(Debug, Default)]
pub struct Call {
    /// The letter of the command: `A`, `E`, `D`, `C`, `a`, `e`, `d`, `R`.
    pub command: char,
    /// The service.
    pub service: Option<Named>,
    /// The server, and its port where one is written.
    pub server: Option<(IpAddr, Option<u16>)>,
    /// Each other option with its value, by its letter or its long name.
    pub options: Vec<(&'static str, String)>,
}

impl Call {
    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// How an option takes a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// One that need not be there.
    Perhaps,
}

use Takes::{Nothing, Perhaps, Value};

/// Short and long name of each option. Those without a letter have a blank.
const OPTIONS: &[(char, &str, Takes)] = &[
    ('A', "add-service", Nothing),
    ('E', "edit-service", Nothing),
    ('D', "delete-service", Nothing),
    ('C', "clear", Nothing),
    ('R', "restore", Nothing),
    ('S', "save", Nothing),
    ('a', "add-server", Nothing),
    ('e', "edit-server", Nothing),
    ('d', "delete-server", Nothing),
    ('L', "list", Nothing),
    ('l', "list", Nothing),
    ('Z', "zero", Nothing),
    (' ', "set", Nothing),
    (' ', "start-daemon", Value),
    (' ', "stop-daemon", Value),
    ('h', "help", Nothing),
    ('v', "version", Nothing),
    ('t', "tcp-service", Value),
    ('u', "udp-service", Value),
    (' ', "sctp-service", Value),
    ('f', "fwmark-service", Value),
    ('s', "scheduler", Value),
    ('p', "persistent", Perhaps),
    ('M', "netmask", Value),
    (' ', "pe", Value),
    ('b', "sched-flags", Value),
    ('o', "ops", Nothing),
    ('O', "ops", Nothing),
    ('r', "real-server", Value),
    ('g', "gatewaying", Nothing),
    ('m', "masquerading", Nothing),
    ('i', "ipip", Nothing),
    ('w', "weight", Value),
    ('x', "u-threshold", Value),
    ('y', "l-threshold", Value),
    (' ', "tun-type", Value),
    (' ', "tun-port", Value),
    (' ', "tun-nocsum", Nothing),
    (' ', "tun-csum", Nothing),
    (' ', "tun-remcsum", Nothing),
    ('n', "numeric", Nothing),
    ('6', "ipv6", Nothing),
    ('c', "connection", Nothing),
    (' ', "stats", Nothing),
    (' ', "rate", Nothing),
    (' ', "exact", Nothing),
    (' ', "thresholds", Nothing),
    (' ', "persistent-conn", Nothing),
    (' ', "timeout", Nothing),
    (' ', "daemon", Nothing),
    (' ', "sort", Nothing),
    (' ', "nosort", Nothing),
    (' ', "mcast-interface", Value),
    (' ', "syncid", Value),
];

fn broken<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Broken(
        message.into(),
        "import what `ipvsadm -S -n` prints, or lines of `ipvsadm` with options".into(),
    ))
}

/// Reads a line; none where it is empty or a comment.
pub fn read(line: &str) -> Result<Option<Call>, Refusal> {
    let words = match words(line) {
        Ok(words) => words,
        Err(message) => return broken(message),
    };
    let mut words = words.into_iter().peekable();
    // The name of the program, as scripts have it; `sudo` before it.
    words.next_if(|word| word.rsplit('/').next() == Some("sudo"));
    words.next_if(|word| word.rsplit('/').next() == Some("ipvsadm"));
    if words.peek().is_none() {
        return Ok(None);
    }
    let mut call = Call::default();
    let mut rest = Vec::new();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
            let Some((letter, name, takes)) = OPTIONS.iter().find(|(_, known, _)| *known == name) else {
                return broken(format!("`--{name}` is no option of ipvsadm"));
            };
            let value = value.or_else(|| following(*takes, &mut words));
            option(&mut call, *letter, name, *takes, value)?;
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                let Some((letter, name, takes)) = OPTIONS.iter().find(|(known, ..)| *known == letter && letter != ' ')
                else {
                    return broken(format!("`-{letter}` is no option of ipvsadm"));
                };
                let attached = letters.as_str();
                let value = match takes {
                    Nothing => None,
                    // What stands right behind the letter is its value.
                    _ if !attached.is_empty() => {
                        let value = attached.strip_prefix('=').unwrap_or(attached).to_owned();
                        letters = "".chars();
                        Some(value)
                    }
                    takes => following(*takes, &mut words),
                };
                option(&mut call, *letter, name, *takes, value)?;
            }
        } else {
            rest.push(word);
        }
    }
    match call.command {
        '\0' => broken("the line has no command of ipvsadm"),
        '!' => {
            call.options.push(("values", rest.join(" ")));
            Ok(Some(call))
        }
        _ if !rest.is_empty() => broken(format!("`{}` is no option of ipvsadm", rest[0])),
        _ => Ok(Some(call)),
    }
}

/// The value of an option that is the next word.
fn following(takes: Takes, words: &mut std::iter::Peekable<std::vec::IntoIter<String>>) -> Option<String> {
    match takes {
        Nothing => None,
        Value => words.next(),
        Perhaps => words.next_if(|word| word.starts_with(|c: char| c.is_ascii_digit())),
    }
}

fn option(
    call: &mut Call,
    letter: char,
    name: &'static str,
    takes: Takes,
    value: Option<String>,
) -> Result<(), Refusal> {
    let value = match (takes, value) {
        (Value, None) => return broken(format!("`--{name}` has no value")),
        (Nothing, Some(_)) => return broken(format!("`--{name}` takes no value")),
        (_, value) => value.unwrap_or_default(),
    };
    match (letter, name) {
        ('A' | 'E' | 'D' | 'C' | 'R' | 'S' | 'a' | 'e' | 'd' | 'L' | 'l' | 'Z' | 'h' | 'v', _)
            if call.command == '\0' =>
        {
            call.command = letter;
        }
        // A letter that no command has.
        (_, "set") if call.command == '\0' => call.command = '!',
        (_, "start-daemon" | "stop-daemon") if call.command == '\0' => call.command = '@',
        ('A' | 'E' | 'D' | 'C' | 'R' | 'S' | 'a' | 'e' | 'd' | 'L' | 'l' | 'Z' | 'h' | 'v', _)
        | (_, "set" | "start-daemon" | "stop-daemon") => return broken("there are two commands in one line"),
        (_, "tcp-service") => call.service = Some(named("tcp", &value)?),
        (_, "udp-service") => call.service = Some(named("udp", &value)?),
        (_, "sctp-service") => call.service = Some(named("sctp", &value)?),
        (_, "fwmark-service") => {
            let text =
                "there are no firewall marks: write a [[service]] for each port that is marked, with the same `group`";
            return Err(Refusal::LeftOut(text.to_owned()));
        }
        (_, "real-server") => call.server = Some(host(&value)?),
        _ => call.options.push((name, value)),
    }
    Ok(())
}

fn named(protocol: &'static str, text: &str) -> Result<Named, Refusal> {
    let (address, port) = host(text)?;
    Ok(Named { protocol, address, port: port.unwrap_or(0) })
}

/// An address with or without a port: `192.0.2.10:80`, `[2001:db8::10]:80`, `2001:db8::10`.
fn host(text: &str) -> Result<(IpAddr, Option<u16>), Refusal> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (address, port.strip_prefix(':')),
            None => return broken(format!("`{text}` has a `[` without a `]`")),
        },
        None if text.matches(':').count() == 1 => text.split_once(':').map_or((text, None), |(a, p)| (a, Some(p))),
        None => (text, None),
    };
    let help = || "save the rules with `ipvsadm -S -n`: names of hosts and ports are not looked up".to_owned();
    let Ok(address) = address.parse() else {
        return Err(Refusal::Broken(format!("`{address}` is no address"), help()));
    };
    match port.map(str::parse) {
        None => Ok((address, None)),
        Some(Ok(port)) => Ok((address, Some(port))),
        Some(Err(_)) => Err(Refusal::Broken(format!("`{}` is no port", port.unwrap_or_default()), help())),
    }
}

/// The words of a line of a shell script, without variables and what follows `#`.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut found: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.trim().chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => found.extend(word.take()),
            (None, '$' | '`' | ';' | '|' | '&' | '<' | '>') => {
                return Err(format!(
                    "`{c}` needs a shell: run the script, and import what `ipvsadm -S -n` prints then"
                ));
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    found.extend(word);
    Ok(found)
}
