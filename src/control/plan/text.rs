//! A plan for people, in the form of a diff.
//!
//! Owns the words. Pure.

use std::fmt::Write as _;

use super::{Affected, Change, How, Plan, What};
use crate::control::counted;
use crate::model::Fate;

impl What {
    /// As it is called in text.
    const fn name(self) -> &'static str {
        match self {
            What::Engine => "[engine]",
            What::Timeouts => "[timeouts]",
            What::Access => "[access]",
            What::Control => "[control]",
            What::Vrrp => "[vrrp]",
            What::Interface => "interface",
            What::Neighbor => "neighbor",
            What::Address => "address",
            What::Service => "service",
            What::Server => "server",
            What::TrackScript => "track script",
            What::TrackFile => "track file",
            What::TrackProcess => "track process",
            What::VirtualRouter => "virtual router",
            What::SyncGroup => "sync group",
            What::Web => "[web]",
        }
    }
}

fn fate(affected: Affected) -> String {
    let verb = match (affected.fate, affected.flows == 1) {
        (Fate::Reset, true) => "ends",
        (Fate::Reset, false) => "end",
        (Fate::Reschedule, true) => "moves to another server",
        (Fate::Reschedule, false) => "move to other servers",
        (Fate::Keep, true) => "waits until it is back",
        (Fate::Keep, false) => "wait until it is back",
    };
    format!("{} {verb}", counted(affected.flows, "flow"))
}

fn one(out: &mut String, change: &Change) {
    let sign = match change.how {
        How::Added => '+',
        How::Removed => '-',
        How::Changed | How::Reordered => '~',
    };
    let margin = if change.what == What::Server { "    " } else { "" };
    let name = if change.name.is_empty() { String::new() } else { format!(" {}", change.name) };
    let what = match change.how {
        How::Reordered => format!("{}s: in another order", change.what.name()),
        _ => format!("{}{name}", change.what.name()),
    };
    let _ = write!(out, "{margin}{sign} {what}");
    if !change.words.is_empty() {
        let _ = write!(out, " ({})", change.words);
    }
    let mut more = Vec::new();
    more.extend(change.affected.map(fate));
    more.extend(change.restart.then(|| "only a restart brings this".to_owned()));
    more.extend(change.unsaved.then(|| "was changed by command and not saved".to_owned()));
    if !more.is_empty() {
        let _ = write!(out, ": {}", more.join("; "));
    }
    out.push('\n');
    for key in &change.keys {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let (old, new) = (value(&key.old), value(&key.new));
        let _ = writeln!(out, "{margin}    {}: {old} -> {new}", key.key);
    }
}

/// The plan in one line.
pub fn summary(plan: &Plan) -> String {
    if plan.is_empty() {
        return "nothing changes".to_owned();
    }
    let count = |how: &[How]| plan.changes.iter().filter(|change| how.contains(&change.how)).count();
    let mut text = format!(
        "{} added, {} removed, {} changed",
        count(&[How::Added]),
        count(&[How::Removed]),
        count(&[How::Changed, How::Reordered])
    );
    let flows = &plan.flows;
    if flows.total() > 0 {
        let _ = write!(text, "; of {} {} stay", counted(flows.total(), "flow"), flows.stay);
        for (number, verb) in [(flows.move_on, "move"), (flows.end, "end"), (flows.wait, "wait for their server")] {
            if number > 0 {
                let _ = write!(text, ", {number} {verb}");
            }
        }
    }
    text
}

/// The plan line by line: `+` comes, `-` goes, `~` becomes otherwise.
pub fn render(plan: &Plan) -> String {
    let mut out = String::new();
    let mut service: Option<&str> = None;
    for change in &plan.changes {
        if change.what == What::Service {
            service = Some(&change.name);
        } else if let Some(of) = change.service.as_deref().filter(|of| service != Some(*of)) {
            let _ = writeln!(out, "~ service {of}");
            service = Some(of);
        }
        one(&mut out, change);
    }
    for unit in &plan.forgotten {
        let clients = unit.clients.map_or_else(|| "persistent clients".to_owned(), |n| counted(n, "persistent client"));
        let _ = writeln!(out, "~ {}: {clients} forgotten; open flows go on", unit.of);
    }
    let restart = plan.changes.iter().filter(|change| change.restart).count();
    let unsaved = plan.changes.iter().filter(|change| change.unsaved).count();
    let _ = writeln!(out, "{}", summary(plan));
    if restart > 0 {
        let _ = writeln!(out, "{restart} of these only with a restart");
    }
    if unsaved > 0 {
        let _ =
            writeln!(out, "{unsaved} take back what was changed by command and not saved: `evenkeel save` keeps it");
    }
    out
}
