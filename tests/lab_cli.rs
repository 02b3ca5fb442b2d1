//! `evenkeel lab` from outside: its output, its exit codes, and that nothing is left however it ends.

mod lab_support;

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::lab::holdings::{PREFIX, STATE_DIR};
use evenkeel::lab::scenario::SCENARIOS;
use lab_support::{lab_is_possible, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("lab").args(arguments).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Namespaces, directories and processes of the lab that process `pid` ran.
fn traces(pid: u32) -> Vec<String> {
    let names = |directory: &str| {
        let listing = fs::read_dir(directory).into_iter().flatten().flatten();
        listing.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let mut traces = names("/run/netns");
    traces.retain(|name| name.starts_with(&format!("{PREFIX}{pid}-")));
    traces.extend(names(STATE_DIR).into_iter().filter(|name| *name == pid.to_string()));
    let marker = format!("{STATE_DIR}/{pid}/");
    for process in names("/proc") {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        if text(&line).contains(&marker) {
            traces.push(text(&line));
        }
    }
    traces
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A kept lab that is up.
fn keep() -> Child {
    let mut command = lab(&["run", "udp-dr", "--keep", "--duration", "1", "--evenkeel"]);
    let child = command.arg(program()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let note = format!("{STATE_DIR}/{}/lab.json", child.id());
    eventually("the lab is up", || fs::exists(&note).unwrap());
    assert!(traces(child.id()).len() > 6);
    child
}

#[test]
fn scenarios_are_listed_and_an_unknown_one_is_named() {
    let Output { status, stdout, .. } = lab(&["list"]).output().unwrap();
    assert!(status.success());
    for name in SCENARIOS.map(|scenario| scenario.name) {
        assert!(text(&stdout).contains(name), "{name}");
    }
    let Output { status, stderr, .. } = lab(&["run", "web-dr-one-leg"]).output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(text(&stderr).contains("web-dr-one-leg") && text(&stderr).contains("web-dr-one-arm"), "{}", text(&stderr));
}

#[test]
fn an_engine_that_ends_at_once_is_reported_with_its_last_words() {
    if !lab_is_possible() {
        return;
    }
    let output = lab(&["run", "udp-dr", "--evenkeel", "/bin/ls"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/bin/ls: "), "{}", text(&output.stderr));
}

#[test]
fn a_run_reports_json() {
    if !lab_is_possible() {
        return;
    }
    let output = lab(&["run", "udp-dr", "--json", "--duration", "1", "--evenkeel"]).arg(program()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["scenario"], "udp-dr");
    assert_eq!(report["failures"], 0);
    assert!(report["answers"]["server1"].as_u64().unwrap() > 0);
}

#[test]
fn signals_clean_up() {
    if !lab_is_possible() {
        return;
    }
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut child = keep();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(traces(child.id()), Vec::<String>::new());
    }
}

/// Killed without a chance to clean up: the kernel ends the children, and the next lab removes the names.
#[test]
fn a_killed_lab_is_swept_by_the_next_and_a_living_one_is_not() {
    if !lab_is_possible() {
        return;
    }
    let (mut killed, mut living) = (keep(), keep());
    killed.kill().unwrap();
    killed.wait().unwrap();
    eventually("the killed lab's processes end", || traces(killed.id()).iter().all(|trace| !trace.contains('/')));
    let before = traces(living.id());
    drop(evenkeel::lab::topology::Lab::new().unwrap());
    assert_eq!(traces(killed.id()), Vec::<String>::new());
    assert_eq!(traces(living.id()), before);

    let output = lab(&["list"]).output().unwrap();
    assert!(text(&output.stdout).contains(&format!("process {}", living.id())));
    kill(Pid::from_raw(living.id() as i32), Signal::SIGTERM).unwrap();
    living.wait().unwrap();
    assert_eq!(traces(living.id()), Vec::<String>::new());
}
