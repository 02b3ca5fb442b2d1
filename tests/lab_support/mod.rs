//! What the lab tests share: whether a lab can be had here, and a lock for the heavy ones.
//!
//! Owns the decision to skip. With `CI` set nothing is skipped: a machine that cannot run a lab fails the test.
#![allow(dead_code, reason = "every test file uses a part of this")]

pub mod browser;
pub mod machine;
pub mod rig;
pub mod vrrp;

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use evenkeel::lab::process;
use evenkeel::lab::scenario::report::Report;
use evenkeel::lab::scenario::{RunOptions, Scenario, Stage, traffic};
use nix::fcntl::{Flock, FlockArg};

/// Whether labs can be built here; says so when not, and panics instead under CI.
pub fn lab_is_possible() -> bool {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    for name in ["ethtool", "nginx", "setpriv"] {
        if process::program(name).is_none() {
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

/// The program under test: this build's, or another one named by `EVENKEEL_LAB_PROGRAM`.
pub fn program() -> PathBuf {
    std::env::var_os("EVENKEEL_LAB_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_evenkeel").into(), PathBuf::from)
}

/// A scenario's options: this build, its own choice of I/O mode, a short load.
pub fn options() -> RunOptions {
    RunOptions { program: program(), mode: None, duration: Duration::from_secs(2) }
}

/// Starts a scenario or panics with what went wrong in words.
pub fn set(scenario: &'static Scenario) -> Stage {
    Stage::set(scenario, &options()).unwrap_or_else(|error| panic!("{}: {error}", scenario.name))
}

/// Runs a scenario's traffic; panics with its report unless everything holds.
pub fn must_pass(stage: &Stage, duration: Duration) -> Report {
    let report = traffic::run(stage, duration).unwrap_or_else(|error| panic!("{}: {error}", stage.scenario.name));
    assert!(
        report.passed(),
        "{}:\n{report}\nthe engine's last words:\n    {}",
        stage.scenario.name,
        stage.engine.process().last_words(30)
    );
    report
}
