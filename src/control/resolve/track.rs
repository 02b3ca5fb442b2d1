//! What virtual routers track: scripts, files and processes of the file, and the lists that name them.
//!
//! Owns that each tracked name is known, and which weight it has. Pure.

use std::collections::{HashMap, HashSet};

use crate::control::config::problem::Collector;
use crate::control::config::raw::Entry;
use crate::model::{Track, TrackFile, TrackProcess, TrackScript, Tracked};

/// A list of what is tracked: its key, the table that it names entries of, and what an entry is.
type List = (&'static str, &'static str, fn(String) -> Tracked);

/// Every list, in the order of [`crate::model::VirtualRouter::tracks`].
const LISTS: [List; 5] = [
    ("track_interface", "", Tracked::Interface),
    ("track_script", "track_script", Tracked::Script),
    ("track_file", "track_file", Tracked::File),
    ("track_process", "track_process", Tracked::Process),
    ("track_service", "service", Tracked::Service),
];

/// Every name that can be tracked, by its table, with the weight that its table gives.
#[derive(Debug)]
pub(super) struct Known {
    names: HashMap<&'static str, Vec<(String, i16)>>,
    /// Tables of which a name is not known, because it was refused.
    unsure: HashSet<&'static str>,
    used: HashSet<(&'static str, String)>,
}

impl Known {
    /// The names of a file. `services`: those of the sound services.
    pub(super) fn new(file: &Entry, services: impl Iterator<Item = String>) -> Known {
        let mut known = Known { names: HashMap::new(), unsure: HashSet::new(), used: HashSet::new() };
        for table in ["track_script", "track_file", "track_process"] {
            let entries = file.tables(table);
            let named = |entry: &Entry| Some((entry.text("name")?.value, weight(entry).unwrap_or(0)));
            known.names.insert(table, entries.iter().filter_map(named).collect());
            if entries.iter().any(|entry| entry.text("name").is_none()) {
                known.unsure.insert(table);
            }
        }
        let services: Vec<(String, i16)> = services.map(|name| (name, 0)).collect();
        if services.len() < file.tables("service").len() {
            known.unsure.insert("service");
        }
        known.names.insert("service", services);
        known
    }

    /// Warns of what nobody tracks.
    pub(super) fn unused(&self, file: &Entry, out: &mut Collector<'_>) {
        for table in ["track_script", "track_file", "track_process"] {
            for entry in file.tables(table) {
                let Some(name) = entry.text("name") else { continue };
                if !self.used.contains(&(table, name.value.clone())) {
                    let text = format!("no virtual router and no group tracks `{}`", name.value);
                    out.warning(name.at, entry.key("name"), text)
                        .help(format!("name it in a `{table}` of a `[[virtual_router]]`, or remove it"));
                }
            }
        }
    }
}

fn weight(entry: &Entry) -> Option<i16> {
    entry.signed("weight").and_then(|weight| i16::try_from(weight.value).ok())
}

/// What a router or a group tracks besides the engine. `own`: the interface of a router, which is tracked anyway.
pub(super) fn tracks(entry: &Entry, own: Option<&str>, known: &mut Known, out: &mut Collector<'_>) -> Vec<Track> {
    let mut found = Vec::new();
    for (list, table, what) in LISTS {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for item in entry.tables(list) {
            let Some(name) = item.text("name") else { continue };
            if let Some(line) = seen.insert(name.value.clone(), out.line(name.at)) {
                out.error(name.at, item.key("name"), format!("`{}` is there twice", name.value))
                    .expected(format!("each at most once; the first is on line {line}"))
                    .help("remove one of them");
                continue;
            }
            let mut usual = 0;
            if table.is_empty() {
                if own == Some(name.value.as_str()) {
                    out.warning(
                        name.at,
                        item.key("name"),
                        format!("a router tracks its own interface, `{}`, anyway", name.value),
                    )
                    .help("remove it: without its interface a router is in fault, whatever the weight");
                }
            } else {
                let names = known.names.get(table).map_or(&[][..], Vec::as_slice);
                match names.iter().find(|(known, _)| *known == name.value) {
                    Some((_, weight)) => usual = *weight,
                    None if known.unsure.contains(table) => {}
                    None => {
                        let listed: Vec<&str> = names.iter().take(10).map(|(name, _)| name.as_str()).collect();
                        let problem = out.error(
                            name.at,
                            item.key("name"),
                            format!("there is no `[[{table}]]` named `{}`", name.value),
                        );
                        problem.expected(match listed.as_slice() {
                            [] => format!("the name of a `[[{table}]]`"),
                            listed => format!("the name of one, such as {}", listed.join(", ")),
                        });
                        problem
                            .help(format!("add `[[{table}]]` with `name = \"{}\"`, or correct the name", name.value));
                        problem.suggest(&name.value, names.iter().map(|(name, _)| name.as_str()));
                    }
                }
                known.used.insert((table, name.value.clone()));
            }
            if item.was_refused("weight") {
                continue;
            }
            found.push(Track { what: what(name.value), weight: weight(item).unwrap_or(usual) });
        }
    }
    found
}

/// Where the first weight of a router or a group is written that is not 0, or else its first such track.
pub(super) fn weighted<'e>(entry: &'e Entry, tracks: &[Track]) -> Option<(&'e Entry, String)> {
    let track = tracks.iter().find(|track| track.weight != 0)?;
    let (kind, name) = track.what.words();
    let list = LISTS.iter().map(|(list, ..)| *list).find(|list| list.strip_prefix("track_") == Some(kind))?;
    let named = |item: &&Entry| item.text("name").is_some_and(|known| known.value == name);
    entry.tables(list).iter().find(named).map(|item| (item, track.what.to_string()))
}

/// A name that no other entry of its table has.
fn name(entry: &Entry, what: &str, names: &mut HashMap<String, usize>, out: &mut Collector<'_>) -> Option<String> {
    let name = entry.text("name")?;
    if let Some(line) = names.insert(name.value.clone(), out.line(name.at)) {
        taken(entry, name.at, &name.value, what, line, out);
    }
    Some(name.value)
}

/// Reports a name that is taken.
pub(super) fn taken(entry: &Entry, at: usize, name: &str, what: &str, line: usize, out: &mut Collector<'_>) {
    out.error(at, entry.key("name"), format!("the name `{name}` is taken by the {what} on line {line}"))
        .expected(format!("a name that no other {what} has"))
        .help("choose another");
}

/// The scripts of a file.
pub(super) fn scripts(file: &Entry, out: &mut Collector<'_>) -> Vec<TrackScript> {
    let mut names = HashMap::new();
    let one = |entry: &Entry, out: &mut Collector<'_>| {
        let name = name(entry, "script", &mut names, out);
        let interval = entry.seconds("interval")?.value;
        Some(TrackScript {
            name: name?,
            command: entry.command("script")?.value,
            interval,
            timeout: entry.seconds("timeout").map_or(interval, |timeout| timeout.value),
            rise: u16::try_from(entry.integer("rise")?.value).ok()?,
            fall: u16::try_from(entry.integer("fall")?.value).ok()?,
            user: entry.text("user").map(|user| user.value),
            starts_good: entry.boolean("starts_good")?.value,
        })
    };
    each(file.tables("track_script"), out, one)
}

/// The tracked files of a file.
pub(super) fn files(file: &Entry, out: &mut Collector<'_>) -> Vec<TrackFile> {
    let mut names = HashMap::new();
    let one = |entry: &Entry, out: &mut Collector<'_>| {
        let name = name(entry, "tracked file", &mut names, out);
        Some(TrackFile { name: name?, path: entry.text("path")?.value.into() })
    };
    each(file.tables("track_file"), out, one)
}

/// The tracked processes of a file.
pub(super) fn processes(file: &Entry, out: &mut Collector<'_>) -> Vec<TrackProcess> {
    let mut names = HashMap::new();
    let one = |entry: &Entry, out: &mut Collector<'_>| {
        let name = name(entry, "tracked process", &mut names, out);
        Some(TrackProcess {
            name: name?,
            process: entry.text("process")?.value,
            quorum: u16::try_from(entry.integer("quorum")?.value).ok()?,
            delay: entry.seconds("delay")?.value,
        })
    };
    each(file.tables("track_process"), out, one)
}

fn each<T>(
    entries: &[Entry],
    out: &mut Collector<'_>,
    mut one: impl FnMut(&Entry, &mut Collector<'_>) -> Option<T>,
) -> Vec<T> {
    entries.iter().filter_map(|entry| one(entry, out)).collect()
}
