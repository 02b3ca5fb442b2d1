//! The path of a change: the only place where the layers are wired together.

pub mod alarms;
pub mod apply;
pub mod capture;
pub mod check;
pub mod claims;
pub mod cli;
pub mod collect;
pub mod compile;
pub mod config;
pub mod counters;
pub mod doctor;
pub mod edit;
pub mod explain;
pub mod flows;
pub mod groups;
pub mod health;
pub mod import;
pub mod ipvsadm;
pub mod log;
pub mod manual;
pub mod naming;
pub mod netlink;
pub mod nexthop;
pub mod persistence;
pub mod plan;
pub mod progress;
pub mod replay;
pub mod resolve;
pub mod routers;
pub mod run;
pub mod service;
pub mod show;
pub mod socket;
pub mod startup;
pub mod status;
pub mod top;
pub mod web;
pub mod whole_file;
pub mod workers;

use std::io::Write as _;
use std::time::SystemTime;

/// `1 check`, `2 checks`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Seconds of the wall clock since 1970; 0 on a machine that does not know the year.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Prints to stdout. A reader that went away (`evenkeel status | head`) is not an error.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
