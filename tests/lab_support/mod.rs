//! What the lab tests share: whether a lab can be had here, and a lock for the heavy ones.
//!
//! Owns the decision to skip. With `CI` set nothing is skipped: a machine that cannot run a lab fails the test.
#![allow(dead_code, reason = "every test file uses a part of this")]

use std::fs::File;

use evenkeel::lab::process::program;
use nix::fcntl::{Flock, FlockArg};

/// Whether labs can be built here; says so when not, and panics instead under CI.
pub fn lab_is_possible() -> bool {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    for name in ["ethtool", "nginx", "setpriv"] {
        if program(name).is_none() {
            missing.push(format!("the program `{name}`"));
        }
    }
    if missing.is_empty() {
        evenkeel::lab::holdings::clean_up_on_signals();
        return true;
    }
    let what = missing.join(", ");
    assert!(std::env::var_os("CI").is_none(), "this lab test needs {what}, and CI skips nothing");
    eprintln!("SKIPPED: a lab needs {what}; `make test` installs what can be installed");
    false
}

/// Held by tests that load the machine: they run one at a time, also across test programs.
pub fn heavy() -> Flock<File> {
    let path = std::env::temp_dir().join("evenkeel-heavy-tests.lock");
    let file = File::options().create(true).write(true).truncate(false).open(&path).expect("a lock file");
    match Flock::lock(file, FlockArg::LockExclusive) {
        Ok(lock) => lock,
        Err((_, error)) => panic!("locking {}: {error}", path.display()),
    }
}
