//! Dropped packets for people: all with what each reason means, and what was dropped between two looks.
//!
//! Owns the layout. Pure.

use std::collections::BTreeMap;

use crate::control::status::Status;
use crate::control::status::table::Table;
use crate::dataplane::verdict::DropReason;

/// Most workers that have a column each; [`Status::drops_by_worker`] has all of them for programs.
const MOST_COLUMNS: usize = 8;

/// What a reason means; a newer engine may know more reasons than this program.
pub(in crate::control) fn meaning(name: &str) -> &'static str {
    let known = DropReason::ALL.iter().find(|reason| reason.name() == name);
    known.map_or("This program does not know it: the engine is of another version.", |reason| reason.describe())
}

/// All drops since start, the most frequent first.
pub fn render(status: &Status) -> String {
    let mut rows: Vec<(&String, &u64)> = status.drops.iter().collect();
    if rows.is_empty() {
        return "no packets were dropped\n".to_owned();
    }
    rows.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let workers = status.drops_by_worker.as_deref().unwrap_or_default();
    let workers = if (2..=MOST_COLUMNS).contains(&workers.len()) { workers } else { &[] };
    let mut header = vec!["<Dropped".to_owned(), ">Packets".to_owned()];
    header.extend((0..workers.len()).map(|worker| format!(">Worker {worker}")));
    header.push("<Means".to_owned());
    let mut table = Table::new(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for (reason, packets) in rows {
        let mut cells = vec![reason.clone(), packets.to_string()];
        cells.extend(workers.iter().map(|drops| drops.get(reason).copied().unwrap_or(0).to_string()));
        cells.push(meaning(reason).to_owned());
        table.cells(cells);
    }
    table.render()
}

/// What grew between two looks; an engine that was started anew in between begins at 0.
pub fn grown(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let growth = |(reason, count): (&String, &u64)| {
        let then = before.get(reason).copied().unwrap_or(0);
        (reason.clone(), if *count < then { *count } else { count - then })
    };
    now.iter().map(growth).filter(|(_, count)| *count > 0).collect()
}

/// A line for each reason that grew: when, how much, and of how many.
pub fn lines(at: &str, grown: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> String {
    let line = |(reason, count): (&String, &u64)| {
        let all = now.get(reason).copied().unwrap_or(0);
        format!("{at}  {reason:<22} +{count} ({all} since start)\n")
    };
    grown.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
        all.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
    }

    #[test]
    fn drops_have_their_meaning_and_their_workers() {
        let drops = counts(&[("no-server", 4), ("truncated", 9), ("newer", 4)]);
        let mut status = Status { drops, ..Status::default() };
        status.drops_by_worker = Some(vec![counts(&[("truncated", 9)]), counts(&[("no-server", 4), ("newer", 4)])]);
        let expected = "\
Dropped    Packets  Worker 0  Worker 1  Means
truncated        9         9         0  The frame ends before the headers that it announces.
newer            4         0         4  This program does not know it: the engine is of another version.
no-server        4         0         4  The service has no server that can take a new flow.
";
        assert_eq!(render(&status), expected);
        status.drops_by_worker.as_mut().unwrap().pop();
        assert!(!render(&status).contains("Worker"), "one worker has all of them");
        assert_eq!(render(&Status::default()), "no packets were dropped\n");
    }

    #[test]
    fn growth_is_between_two_looks() {
        let (before, now) =
            (counts(&[("loop", 5), ("no-flow", 7)]), counts(&[("loop", 8), ("no-flow", 2), ("denied", 1)]));
        assert_eq!(grown(&before, &now), counts(&[("denied", 1), ("loop", 3), ("no-flow", 2)]));
        assert_eq!(grown(&now, &now), BTreeMap::new());
        let expected =
            "12:00  denied                 +1 (1 since start)\n12:00  loop                   +3 (8 since start)\n";
        assert_eq!(lines("12:00", &counts(&[("denied", 1), ("loop", 3)]), &now), expected);
    }
}
