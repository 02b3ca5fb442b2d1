//! The tables and keys of what virtual routers track: `[[track_script]]`, `[[track_file]]`, `[[track_process]]`, and the lists
//! in routers and groups that name them. Pure.

use super::vrrp::seconds;
use super::{Form, Key, Kind, Presence, Table, integer};

/// Greatest weight of what is tracked, either way.
const MOST_WEIGHT: i64 = 253;

pub(super) const TRACK_SCRIPT: Table = Table {
    name: "track_script",
    form: Form::Many { min: 0, max: 4096 },
    also: &["vrrp_script", "track_scripts", "script"],
    doc: "A program whose success can be tracked. Exit code 0 is success.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Name,
            presence: Presence::Required,
            also: &[],
            doc: "Its name; no other script has it.",
        },
        Key {
            name: "script",
            kind: Kind::Command,
            presence: Presence::Required,
            also: &["command", "exec", "run", "program", "path"],
            doc: "The program and its arguments. No shell looks at them.",
        },
        Key {
            name: "interval",
            kind: seconds(100, 86_400_000, 1),
            presence: Presence::Default("1"),
            also: &["delay", "period"],
            doc: "Seconds from one start to the next.",
        },
        Key {
            name: "timeout",
            kind: seconds(100, 86_400_000, 1),
            presence: Presence::Otherwise("`interval`"),
            also: &[],
            doc: "Seconds after which it is killed with its children, and has failed.",
        },
        Key {
            name: "rise",
            kind: integer(1, 65_535),
            presence: Presence::Default("1"),
            also: &[],
            doc: "Successes in a row that make it good.",
        },
        Key {
            name: "fall",
            kind: integer(1, 65_535),
            presence: Presence::Default("1"),
            also: &[],
            doc: "Failures in a row that make it bad.",
        },
        Key {
            name: "user",
            kind: Kind::Name,
            presence: Presence::Otherwise("that of Evenkeel itself"),
            also: &["script_user", "uid"],
            doc: "User that it runs as.",
        },
        Key {
            name: "starts_good",
            kind: Kind::Boolean,
            presence: Presence::Default("false"),
            also: &[],
            doc: "Whether it counts as good until it has run; else routers wait for that, in fault.",
        },
        DEFAULT_WEIGHT,
    ],
    instead: &[("init_fail", "write `starts_good = false`, which is what happens without it")],
    ..Table::MANY
};

pub(super) const TRACK_FILE: Table = Table {
    name: "track_file",
    form: Form::Many { min: 0, max: 4096 },
    also: &["vrrp_track_file", "track_files"],
    doc: "A file with a number in it that can be tracked: the number times the weight is added to the priority. With weight 0 \
          any number but 0 is a fault. No file, or no number in it, counts as 0.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Name,
            presence: Presence::Required,
            also: &[],
            doc: "Its name; no other tracked file has it.",
        },
        Key {
            name: "path",
            kind: Kind::Path,
            presence: Presence::Required,
            also: &["file", "filename"],
            doc: "Its path.",
        },
        Key {
            name: "weight",
            kind: Kind::Signed { min: -MOST_WEIGHT, max: MOST_WEIGHT },
            presence: Presence::Default("1"),
            also: &[],
            doc: "The weight where a router or a group gives none.",
        },
    ],
    instead: &[("init_file", "make the file before the start: no file counts as 0")],
    ..Table::MANY
};

pub(super) const TRACK_PROCESS: Table = Table {
    name: "track_process",
    form: Form::Many { min: 0, max: 4096 },
    also: &["vrrp_track_process", "track_processes"],
    doc: "A process whose presence can be tracked.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Name,
            presence: Presence::Required,
            also: &[],
            doc: "Its name; no other tracked process has it.",
        },
        Key {
            name: "process",
            kind: Kind::Text { max: 15 },
            presence: Presence::Required,
            also: &["comm", "program"],
            doc: "The name of the program as the kernel has it, in `/proc/PID/comm`.",
        },
        Key {
            name: "quorum",
            kind: integer(1, 65_535),
            presence: Presence::Default("1"),
            also: &["min", "count"],
            doc: "Least number of them.",
        },
        Key {
            name: "delay",
            kind: seconds(0, 3_600_000, 1),
            presence: Presence::Default("0"),
            also: &["fork_delay", "terminate_delay"],
            doc: "Seconds that a change must last.",
        },
        DEFAULT_WEIGHT,
    ],
    instead: &[
        ("quorum_max", "not in this version: write a `[[track_script]]` that counts"),
        ("param_match", "not in this version: write a `[[track_script]]` with `pgrep -f`"),
        ("full_command", "not in this version: write a `[[track_script]]` with `pgrep -f`"),
    ],
    ..Table::MANY
};

/// A list of what is tracked.
pub(super) const fn track(
    name: &'static str,
    also: &'static [&'static str],
    doc: &'static str,
    keys: &'static [Key],
) -> Table {
    Table { name, form: Form::Many { min: 0, max: 255 }, also, doc, keys, short: Some("name"), ..Table::MANY }
}

const WEIGHT: Key = Key {
    name: "weight",
    kind: Kind::Signed { min: -MOST_WEIGHT, max: MOST_WEIGHT },
    presence: Presence::Otherwise("that of what is tracked; 0 where that has none"),
    also: &[],
    doc: "0: in fault while it fails. Above 0: added to the priority while it holds. Below 0: added while it fails.",
};

const DEFAULT_WEIGHT: Key = Key {
    name: "weight",
    kind: Kind::Signed { min: -MOST_WEIGHT, max: MOST_WEIGHT },
    presence: Presence::Default("0"),
    also: &[],
    doc: "The weight where a router or a group gives none.",
};

pub(super) const TRACK: &[Key] =
    &[Key { name: "name", kind: Kind::Name, presence: Presence::Required, also: &[], doc: "The name." }, WEIGHT];

pub(super) const INTERFACE_TRACK: &[Key] = &[
    Key {
        name: "name",
        kind: Kind::InterfaceName,
        presence: Presence::Required,
        also: &["interface", "device", "dev"],
        doc: "The kernel's name of it.",
    },
    WEIGHT,
];
