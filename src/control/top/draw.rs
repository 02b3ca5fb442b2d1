//! A frame of `evenkeel top`: lines of text, and how each looks.
//!
//! Owns the layout: 80 columns are enough, more show more. Only letters that every serial console has. Pure.

use super::sample::{Entry, Load, Rates, Sample};
use super::screen::{Screen, View};
use crate::control::status::span;
use crate::dataplane::verdict::DropReason;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As the terminal's own.
    Plain,
    /// A service among its servers.
    Strong,
    /// Something that is not as it should be.
    Bad,
    /// The head of a list, and the last line.
    Bar,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its text, without a newline.
    pub text: String,
    /// How it looks.
    pub look: Look,
    /// Whether it is the chosen one.
    pub chosen: bool,
}

impl Line {
    fn new(text: impl Into<String>, look: Look) -> Line {
        Line { text: text.into(), look, chosen: false }
    }
}

/// What stands around the lists and is no choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Around {
    /// Seconds between two looks.
    pub every: f64,
    /// Why the engine does not answer, where it does not.
    pub trouble: Option<String>,
}

/// The least size that a frame needs, in columns and lines.
pub const LEAST: (u16, u16) = (40, 8);

/// A rate or an amount in at most five columns: `0.4`, `12`, `9999`, `12.3k`, `456M`.
pub fn short(number: f64) -> String {
    let units = ["", "k", "M", "G", "T", "P"];
    let (mut number, mut unit) = (number.max(0.0), 0);
    if number < 9.95 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    if number < 9999.5 {
        return format!("{number:.0}");
    }
    while number >= 999.5 && unit + 1 < units.len() {
        number /= 1000.0;
        unit += 1;
    }
    if number < 99.95 { format!("{number:.1}{}", units[unit]) } else { format!("{number:.0}{}", units[unit]) }
}

fn rate(rates: Option<Rates>, of: fn(Rates) -> f64) -> String {
    rates.map_or_else(|| "-".to_owned(), |rates| short(of(rates)))
}

/// Text in exactly so many columns, leaning left.
fn left(text: &str, width: usize) -> String {
    let cut: String = text.chars().take(width).collect();
    format!("{cut:<width$}")
}

/// Text in at least so many columns, leaning right.
fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

/// What a control character would do to a terminal, it does not do: texts come from configurations and servers.
fn harmless(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn fitted(mut line: Line, width: usize) -> Line {
    line.text = left(&harmless(&line.text), width).trim_end().to_owned();
    if line.look == Look::Bar || line.chosen {
        line.text = left(&line.text, width);
    }
    line
}

/// A frame of `height` lines.
pub fn frame(screen: &mut Screen, sample: &Sample, around: &Around, width: u16, height: u16) -> Vec<Line> {
    let (width, height) = (usize::from(width), usize::from(height));
    if width < usize::from(LEAST.0) || height < usize::from(LEAST.1) {
        let text = format!("at least {}x{}, please; q quits", LEAST.0, LEAST.1);
        return vec![fitted(Line::new(text, Look::Plain), width)];
    }
    let mut lines = summary(sample, around, screen.paused);
    let page = page(lines.len(), height);
    if screen.help {
        lines.push(Line::new("Keys", Look::Bar));
        lines.extend(HELP.iter().take(page).map(|line| Line::new(*line, Look::Plain)));
    } else {
        let count = count(screen, sample);
        screen.settle(page, count);
        let (head, rows) = list(screen, sample, screen.top, page, width);
        lines.push(Line::new(head, Look::Bar));
        for (at, mut row) in rows.into_iter().enumerate() {
            row.chosen = screen.top + at == screen.line && count > 0;
            lines.push(row);
        }
    }
    lines.resize(height - 1, Line::new("", Look::Plain));
    lines.push(Line::new(last_line(screen, sample), Look::Bar));
    lines.into_iter().map(|line| fitted(line, width)).collect()
}

/// Lines of the list that a screen has room for.
fn page(above: usize, height: usize) -> usize {
    // The head of the list, and the last line.
    height.saturating_sub(above + 2)
}

/// Lines of the list that a screen of this height has room for.
pub fn page_of(sample: &Sample, around: &Around, height: u16) -> usize {
    page(summary(sample, around, false).len(), usize::from(height))
}

/// Everything, list after list, for `--once`.
pub fn text(sample: &Sample, around: &Around, width: usize) -> String {
    let mut lines = summary(sample, around, false);
    for view in View::ALL {
        let screen = Screen { view, ..Screen::default() };
        let count = count(&screen, sample);
        if count > 0 {
            let (head, rows) = list(&screen, sample, 0, count, width);
            lines.push(Line::new("", Look::Plain));
            lines.push(Line::new(head, Look::Plain));
            lines.extend(rows);
        }
    }
    lines.into_iter().map(|line| format!("{}\n", harmless(&line.text).trim_end())).collect()
}

/// The lines above the list.
fn summary(sample: &Sample, around: &Around, paused: bool) -> Vec<Line> {
    let (file, generation) = (&sample.config.0, sample.config.1);
    let up = span(sample.uptime_s);
    let still = if paused { ", PAUSED" } else { "" };
    let mut lines = vec![Line::new(
        format!(
            "evenkeel {}, up {up}, generation {generation}, every {} s{still}  {file}",
            sample.version, around.every
        ),
        Look::Strong,
    )];
    if let Some(trouble) = &around.trouble {
        lines.push(Line::new(format!("no answer: {trouble}"), Look::Bad));
    }
    let loads: Vec<String> = sample
        .workers
        .iter()
        .map(|worker| match worker.load {
            Some(load) => format!("{}:{:.0}%", worker.at.0, load * 100.0),
            None => format!("{}:DEAD", worker.at.0),
        })
        .collect();
    let dead = sample.workers.iter().any(|worker| worker.load.is_none());
    lines.push(Line::new(format!("load   {}", loads.join(" ")), if dead { Look::Bad } else { Look::Plain }));
    let flows = |at: usize| sample.workers.iter().map(|worker| worker.flows[at]).sum::<u64>();
    lines.push(Line::new(
        format!(
            "flows  {} of {}, IPv6 {} of {}, {} unproven, {} new/s",
            flows(0),
            flows(1),
            flows(2),
            flows(3),
            sample.unproven,
            rate(sample.rates, |rates| rates.new)
        ),
        Look::Plain,
    ));
    let dropped: Option<f64> = sample.drops.iter().map(|drop| drop.rate).sum();
    let dropped = dropped.filter(|_| sample.rates.is_some() || !sample.drops.is_empty());
    lines.push(Line::new(
        format!(
            "in     {} packets/s, {} bit/s   out {} packets/s, {} bit/s   drops {}/s",
            rate(sample.rates, |rates| rates.in_packets),
            rate(sample.rates, |rates| rates.in_bits),
            rate(sample.rates, |rates| rates.out_packets),
            rate(sample.rates, |rates| rates.out_bits),
            dropped.map_or_else(|| "-".to_owned(), short)
        ),
        Look::Plain,
    ));
    if !sample.routers.is_empty() {
        let routers: Vec<String> =
            sample.routers.iter().map(|[name, _, _, state, ..]| format!("{name} {state}")).collect();
        let bad = sample.routers.iter().any(|[_, _, _, state, ..]| state == "FAULT");
        lines.push(Line::new(format!("vrrp   {}", routers.join(", ")), if bad { Look::Bad } else { Look::Plain }));
    }
    if let [first, rest @ ..] = sample.warnings.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" (5 shows {} more)", rest.len()) };
        lines.push(Line::new(format!("warning{more}: {first}"), Look::Bad));
    }
    lines
}

/// Lines of the list that is shown.
pub fn count(screen: &Screen, sample: &Sample) -> usize {
    match screen.view {
        View::Services => screen.entries(sample).len(),
        View::Workers => sample.workers.len(),
        View::Drops => sample.drops.len(),
        View::Routers => sample.routers.len(),
        View::Warnings => sample.warnings.len(),
    }
}

/// The head and some lines of the list that is shown.
fn list(screen: &Screen, sample: &Sample, from: usize, most: usize, width: usize) -> (String, Vec<Line>) {
    match screen.view {
        View::Services => {
            let entries = screen.entries(sample);
            let rows = entries.into_iter().skip(from).take(most);
            (entry_line(None, width), rows.map(|(entry, service)| entry_row(entry, service, width)).collect())
        }
        View::Workers => {
            let rows = sample.workers.iter().skip(from).take(most);
            (worker_head(), rows.map(worker_row).collect())
        }
        View::Drops => {
            let row = |drop: &super::sample::Dropped| {
                let known = DropReason::ALL.iter().find(|reason| reason.name() == drop.reason);
                let rate = drop.rate.map_or_else(|| "-".to_owned(), short);
                let means = known.map_or("", |reason| reason.describe());
                let look = if drop.rate.is_some_and(|rate| rate > 0.0) { Look::Strong } else { Look::Plain };
                Line::new(
                    format!(
                        "{} {} {}  {means}",
                        left(&drop.reason, 22),
                        right(&rate, 6),
                        right(&drop.all.to_string(), 12)
                    ),
                    look,
                )
            };
            let head = format!("{} {} {}  means", left("dropped", 22), right("/s", 6), right("since start", 12));
            (head, sample.drops.iter().skip(from).take(most).map(row).collect())
        }
        View::Routers => {
            let line = |[name, interface, vrid, state, since, priority, master]: &[String; 7]| {
                format!(
                    "{} {} {} {} {} {} {master}",
                    left(name, 12),
                    left(interface, 10),
                    right(vrid, 4),
                    left(state, 6),
                    right(since, 12),
                    right(priority, 10)
                )
            };
            let names = ["router", "interface", "vrid", "state", "since", "priority", "master"].map(str::to_owned);
            let look = |state: &str| if state == "FAULT" { Look::Bad } else { Look::Plain };
            let rows = sample.routers.iter().skip(from).take(most);
            (line(&names), rows.map(|router| Line::new(line(router), look(&router[3]))).collect())
        }
        View::Warnings => {
            let rows = sample.warnings.iter().skip(from).take(most);
            ("warnings".to_owned(), rows.map(|warning| Line::new(warning.clone(), Look::Bad)).collect())
        }
    }
}

/// A line of the list of services; the head where there is no entry.
fn entry_line(entry: Option<(&Entry, bool)>, width: usize) -> String {
    // Bits and schedulers where there is room for them.
    let wide = width >= 120;
    let cells: Vec<String> = match entry {
        None => {
            let mut names = vec!["weight", "active", "inact", "new/s", "in/s", "out/s"];
            names.extend(if wide { vec!["in bit/s", "out bit/s"] } else { Vec::new() });
            names.into_iter().map(str::to_owned).collect()
        }
        Some((entry, _)) => {
            let mut cells = vec![
                entry.weight.clone(),
                short(entry.active as f64),
                short(entry.inactive as f64),
                rate(entry.rates, |rates| rates.new),
                rate(entry.rates, |rates| rates.in_packets),
                rate(entry.rates, |rates| rates.out_packets),
            ];
            if wide {
                cells.push(rate(entry.rates, |rates| rates.in_bits));
                cells.push(rate(entry.rates, |rates| rates.out_bits));
            }
            cells
        }
    };
    let state = entry.map_or("state", |(entry, _)| &entry.state);
    let widths = [6, 6, 6, 6, 6, 6, 9, 9];
    let numbers: String = cells.iter().zip(widths).map(|(cell, width)| format!(" {}", right(cell, width))).collect();
    let first = match entry {
        None => "service / server".to_owned(),
        Some((entry, true)) if wide => format!("{}  {}  {}", entry.name, entry.end, entry.more),
        Some((entry, true)) => format!("{}  {}", entry.name, entry.end),
        Some((entry, false)) => format!("  {}  {}", entry.end, entry.more),
    };
    let room = width.saturating_sub(numbers.chars().count() + 13).max(16);
    format!("{} {}{numbers}", left(&first, room), left(state, 12))
}

fn entry_row(entry: &Entry, is_service: bool, width: usize) -> Line {
    let look = match (entry.good, is_service) {
        (false, _) => Look::Bad,
        (true, true) => Look::Strong,
        (true, false) => Look::Plain,
    };
    Line::new(entry_line(Some((entry, is_service)), width), look)
}

fn worker_head() -> String {
    "worker core  load  received/s  sent/s  forwarded/s  late/s  handed/s  flows   IPv6".to_owned()
}

fn worker_row(worker: &Load) -> Line {
    let frames = |at: usize| worker.frames.map_or_else(|| "-".to_owned(), |frames| short(frames[at]));
    let load = worker.load.map_or_else(|| "DEAD".to_owned(), |load| format!("{:.0}%", load * 100.0));
    let text = format!(
        "{:>6} {:>4} {load:>5} {:>11} {:>7} {:>12} {:>7} {:>9} {:>6} {:>6}",
        worker.at.0,
        worker.at.1,
        frames(0),
        frames(1),
        frames(2),
        frames(3),
        frames(4),
        short(worker.flows[0] as f64),
        short(worker.flows[2] as f64)
    );
    let late = worker.frames.is_some_and(|frames| frames[3] > 0.0);
    Line::new(text, if late || worker.load.is_none() { Look::Bad } else { Look::Plain })
}

fn last_line(screen: &Screen, sample: &Sample) -> String {
    if screen.typing {
        return format!("filter: {}_   Enter takes it, Esc leaves it", screen.filter);
    }
    if screen.help {
        return "any key goes back, q quits".to_owned();
    }
    let shown = format!("{}: {}", screen.view.name(), count(screen, sample));
    let filter = if screen.filter.is_empty() { String::new() } else { format!("  only `{}`", screen.filter) };
    format!("{shown}  order: {}{filter}   q quit  Tab list  s order  / filter  ? help", screen.order.name())
}

/// What the keys do.
const HELP: &[&str] = &[
    "q, Ctrl-C        quit",
    "Tab, 1 to 5      services, workers, drops, virtual routers, warnings",
    "Up, Down, PgUp, PgDn, Home, End   move (or k, j, g, G)",
    "s, S             order of services and of their servers: file, failing, active, new/s, packets/s",
    "/                show only what has a text in it: a name, an address, a state; Esc shows all",
    "c, Enter         services without their servers, and back",
    "p, Space         let the numbers stand still, and go on",
    "Ctrl-L           draw everything anew",
    "",
    "weight of a service: how many of its servers get new flows. new/s: flows; in/s, out/s: packets to servers,",
    "and from them where they pass by (NAT).",
];

#[cfg(test)]
mod tests;
