//! `[access]` and the files that it names -> [`Access`].
//!
//! Owns the form of those files, and that no prefix is both allowed and denied. Pure: what a file holds comes from whoever
//! may read files.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use crate::control::config::ReadFile;
use crate::control::config::problem::Collector;
use crate::control::config::raw::Entry;
use crate::control::config::value::quote;
use crate::dataplane::access::{MAX_BLOCKS, MAX_LONG, MAX_PREFIXES};
use crate::model::{Access, Judgement, Prefix};

/// Most mistakes that are reported of one kind: a file of another form has one on every line.
const MOST_PROBLEMS: usize = 20;

/// Where a prefix stands.
#[derive(Clone, Copy)]
enum Place {
    /// Byte offset in the configuration.
    Config(usize),
    /// File of the list, and line in it.
    File(u32, u32),
}

/// What was found so far.
#[derive(Default)]
struct Found {
    prefixes: Vec<(Prefix, Judgement, Place)>,
    files: Vec<String>,
}

const KEYS: [(&str, &str, Judgement); 2] =
    [("deny", "deny_files", Judgement::Deny), ("allow", "allow_files", Judgement::Allow)];

/// The lists of a file. `None` when a value was refused.
pub(super) fn access(entry: &Entry, read: ReadFile<'_>, out: &mut Collector<'_>) -> Option<Access> {
    let default = match entry.word("default")?.value {
        "deny" => Judgement::Deny,
        _ => Judgement::Allow,
    };
    let mut found = Found::default();
    let mut sound = true;
    for (inline, files, judgement) in KEYS {
        match entry.prefixes(inline) {
            Some(list) => {
                found
                    .prefixes
                    .extend(list.value.into_iter().map(|(prefix, at)| (prefix, judgement, Place::Config(at))));
            }
            None => sound = false,
        }
        let Some(paths) = entry.paths(files) else {
            sound = false;
            continue;
        };
        for (index, (path, at)) in paths.value.into_iter().enumerate() {
            let key = format!("{}[{index}]", entry.key(files));
            match read(Path::new(&path)) {
                Ok(bytes) => found.add_file(path, &key, judgement, &bytes, out),
                Err(reason) => {
                    out.error(at, key, format!("{} cannot be read: {reason}", quote(&path)))
                        .help("check the path and the permissions of the file");
                }
            }
        }
    }
    found.prefixes.sort_by_key(|(prefix, ..)| *prefix);
    found.contradictions(entry, out);
    found.capacity(entry, out);
    if !sound {
        return None;
    }
    found.usefulness(entry, default, out);
    Some(Access::new(default, found.prefixes.into_iter().map(|(prefix, judgement, _)| (prefix, judgement)).collect()))
}

/// A mistake in a file of a list.
fn file_error<'c>(
    out: &'c mut Collector<'_>,
    (file, line): (&str, usize),
    key: &str,
    message: String,
) -> &'c mut crate::control::config::Problem {
    let problem = out.error(0, key, message);
    problem.file = Some(file.to_owned());
    (problem.line, problem.column) = (line, 1);
    problem
}

impl Found {
    fn add_file(&mut self, path: String, key: &str, judgement: Judgement, bytes: &[u8], out: &mut Collector<'_>) {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let number = self.files.len() as u32;
        let mut wrong = 0;
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let end = line.iter().position(|byte| matches!(byte, b'#' | b';')).unwrap_or(line.len());
            let line = line[..end].trim_ascii();
            if line.is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(line);
            let refused = match text.parse::<Prefix>() {
                Ok(prefix) => {
                    self.prefixes.push((prefix, judgement, Place::File(number, index as u32 + 1)));
                    continue;
                }
                Err(refused) => refused,
            };
            wrong += 1;
            if wrong <= MOST_PROBLEMS {
                let said = format!("{}: {refused}", quote(&text));
                let problem = file_error(out, (&path, index + 1), key, said);
                problem.expected("one prefix or address a line, such as `192.0.2.0/24` or `2001:db8::1`");
                problem.help = refused.help();
            }
        }
        if wrong > MOST_PROBLEMS {
            file_error(out, (&path, 0), key, format!("{} more lines are wrong", wrong - MOST_PROBLEMS))
                .help("is this file a list of prefixes at all?");
        }
        self.files.push(path);
    }

    fn said(&self, place: Place, out: &Collector<'_>) -> String {
        match place {
            Place::Config(at) => format!("on line {}", out.line(at)),
            Place::File(file, line) => format!("in {}, line {line}", self.files[file as usize]),
        }
    }

    /// Prefixes that are allowed and denied. They are in order.
    fn contradictions(&self, entry: &Entry, out: &mut Collector<'_>) {
        let mut count = 0;
        for pair in self.prefixes.chunk_by(|a, b| a.0 == b.0) {
            let place_of =
                |wanted| pair.iter().find(|(_, judgement, _)| *judgement == wanted).map(|(.., place)| *place);
            let (Some(denied), Some(allowed)) = (place_of(Judgement::Deny), place_of(Judgement::Allow)) else {
                continue;
            };
            count += 1;
            if count > MOST_PROBLEMS {
                continue;
            }
            let text = format!("{} is allowed here, and denied {}", pair[0].0, self.said(denied, out));
            let problem = match allowed {
                Place::Config(at) => out.error(at, entry.key("allow"), text),
                Place::File(file, line) => {
                    let file = self.files[file as usize].clone();
                    file_error(out, (&file, line as usize), &entry.key("allow_files"), text)
                }
            };
            problem
                .expected("a prefix in one of the lists")
                .help("remove one of them; a longer prefix goes before a shorter one");
        }
        if count > MOST_PROBLEMS {
            let text = format!("{} more prefixes are allowed and denied", count - MOST_PROBLEMS);
            out.error(entry.at, entry.path.clone(), text).help("remove them from one of the lists");
        }
    }

    /// What the filter cannot hold.
    fn capacity(&self, entry: &Entry, out: &mut Collector<'_>) {
        let long = self.prefixes.iter().map(|(prefix, ..)| *prefix).filter(|prefix| prefix.length() > 24);
        let mut blocks: BTreeSet<u32> = BTreeSet::new();
        let mut long6 = 0;
        let mut last = None;
        for prefix in long.filter(|prefix| last.replace(*prefix) != Some(*prefix)) {
            match prefix.address() {
                IpAddr::V4(address) => {
                    blocks.insert(address.to_bits() >> 8);
                }
                IpAddr::V6(_) => long6 += 1,
            }
        }
        for (count, most, what) in [
            (self.prefixes.len(), MAX_PREFIXES, "prefixes in all lists together"),
            (blocks.len(), MAX_BLOCKS, "networks of /24 with longer prefixes inside"),
            (long6, MAX_LONG, "IPv6 prefixes longer than /24"),
        ] {
            if count > most {
                out.error(entry.at, entry.path.clone(), format!("there are {count} {what}"))
                    .expected(format!("at most {most}"))
                    .help("join neighbouring prefixes into shorter ones");
            }
        }
    }

    /// Lists that do nothing, or keep everybody out.
    fn usefulness(&self, entry: &Entry, default: Judgement, out: &mut Collector<'_>) {
        let has = |wanted| self.prefixes.iter().any(|(_, judgement, _)| *judgement == wanted);
        let at = entry.word("default").map_or(entry.at, |word| word.at);
        if default == Judgement::Deny && !has(Judgement::Allow) {
            out.warning(at, entry.key("default"), "no client may use any service: nothing is allowed")
                .help("add prefixes to `allow` or `allow_files`");
        }
        if default == Judgement::Allow && has(Judgement::Allow) && !has(Judgement::Deny) {
            out.warning(at, entry.key("default"), "the allowed prefixes change nothing: nothing is denied")
                .help("write `default = \"deny\"`, if only they are to be allowed");
        }
    }
}
