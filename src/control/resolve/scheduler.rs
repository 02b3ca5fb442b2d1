//! The scheduler of a service: its flags and its table, as far as it has such. Pure.
//!
//! What a scheduler takes is known to the data plane's list of schedulers; nothing here knows one by name.

use crate::control::config::problem::Collector;
use crate::control::config::raw::Entry;
use crate::dataplane::schedule::{self, Description, SCHEDULERS};
use crate::model::Scheduler;

/// The scheduler as configured, with the flags and the table size that it permits.
pub(super) fn scheduler(entry: &Entry, out: &mut Collector<'_>) -> Option<Scheduler> {
    let word = entry.word("scheduler")?.value;
    let known = schedule::description(word)?;
    let mut scheduler = Scheduler::named(known.name);
    let flags = entry.words("scheduler_flags");
    for name in flags.iter().flat_map(|flags| &flags.value) {
        let at = flags.as_ref().map_or(0, |flags| flags.at);
        match known.flags.iter().find(|flag| flag.name == *name) {
            Some(flag) => flag.set(&mut scheduler),
            None if known.flags.is_empty() => {
                let others = having(|other| other.flags.iter().any(|flag| flag.name == *name));
                absent(entry, "scheduler_flags", at, known, &others, out);
            }
            None => {
                let own: Vec<String> = known.flags.iter().map(|flag| format!("`\"{}\"`", flag.name)).collect();
                out.error(at, entry.key("scheduler_flags"), format!("the scheduler `{word}` has no flag `{name}`"))
                    .expected(own.join(" or "))
                    .help("the flags of a scheduler begin with its name");
            }
        }
    }
    if let Some(size) = entry.integer("mh_table_size") {
        match known.table {
            Some(table) if table.sizes.contains(&size.value) => scheduler.table_size = size.value,
            Some(table) => {
                let sizes: Vec<String> = table.sizes.iter().map(u32::to_string).collect();
                let nearest = table.sizes.iter().min_by_key(|permitted| permitted.abs_diff(size.value));
                out.error(
                    size.at,
                    entry.key("mh_table_size"),
                    format!("the scheduler `{word}` has no tables of {} slots", size.value),
                )
                .expected(format!("one of {}", sizes.join(", ")))
                .help(format!("the nearest is {}", nearest.unwrap_or(&table.default)));
            }
            None => absent(entry, "mh_table_size", size.at, known, &having(|other| other.table.is_some()), out),
        }
    }
    flags.map(|_| scheduler)
}

/// Reports a table that has fewer slots than there are servers: some would never be chosen (`ip_vs_mh_reassign` refuses too).
pub(super) fn table_holds(entry: &Entry, scheduler: Scheduler, servers: usize, out: &mut Collector<'_>) {
    let Some((known, table)) = schedule::description(scheduler.name).and_then(|known| Some((known, known.table?)))
    else {
        return;
    };
    let slots = known.slots(scheduler);
    if servers > slots as usize {
        let written = entry.integer("mh_table_size").map(|size| size.at);
        let wanted = table.sizes.iter().find(|size| **size as usize >= servers.saturating_mul(100));
        let size = wanted.or(table.sizes.last()).unwrap_or(&table.default);
        out.error(
            written.unwrap_or(entry.at),
            entry.key("mh_table_size"),
            format!("a table of {slots} slots cannot hold {servers} servers"),
        )
        .expected("at least as many slots as servers, better a hundred for each")
        .help(format!("write `mh_table_size = {size}`"));
    }
}

fn having(has: impl Fn(&Description) -> bool) -> Vec<&'static str> {
    SCHEDULERS.iter().filter(|known| has(known)).map(|known| known.name).collect()
}

/// A setting of other schedulers.
fn absent(entry: &Entry, key: &str, at: usize, known: &Description, others: &[&str], out: &mut Collector<'_>) {
    let written: Vec<String> = others.iter().map(|name| format!("`scheduler = \"{name}\"`")).collect();
    let names: Vec<String> = others.iter().map(|name| format!("`{name}`")).collect();
    out.error(at, entry.key(key), format!("the scheduler `{}` has no such setting", known.name))
        .expected(format!("this key only with {}", written.join(" or ")))
        .help(format!("remove the key, or choose the scheduler {}", names.join(" or ")));
}
