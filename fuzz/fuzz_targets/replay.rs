//! Any bytes as a capture: read or refused, and replayed without a panic, to JSON and to a capture.
//!
//! The first byte chooses the options, the rest is the file.

#![no_main]

use std::io::Write;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::Parser;
use evenkeel::control::replay::{self, ReplayArgs};
use libfuzzer_sys::fuzz_target;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    replay: ReplayArgs,
}

/// `run.sh` sets `TMPDIR` to a place in memory.
fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("evenkeel-fuzz-{}-{name}.pcap", std::process::id()))
}

static INPUT: LazyLock<PathBuf> = LazyLock::new(|| file("in"));
static OUTPUT: LazyLock<PathBuf> = LazyLock::new(|| file("out"));

fuzz_target!(|data: &[u8]| {
    let Some((options, capture)) = data.split_first() else { return };
    std::fs::File::create(&*INPUT).and_then(|mut file| file.write_all(capture)).expect("written");
    let mut words: Vec<std::ffi::OsString> = vec!["replay".into()];
    words.extend(["--config".into(), concat!(env!("CARGO_MANIFEST_DIR"), "/replay.toml").into()]);
    words.extend(["--in".into(), INPUT.as_os_str().to_owned()]);
    if options & 1 != 0 {
        words.push("--json".into());
    }
    if options & 2 != 0 {
        words.extend(["--with-replies".into(), "--out".into(), OUTPUT.as_os_str().to_owned()]);
    }
    if options & 4 != 0 {
        words.extend(["--mac".into(), "eth0=02:00:00:00:00:01".into()]);
    }
    if options & 8 != 0 {
        words.extend(["--mtu".into(), "eth0=600".into()]);
    }
    let arguments = Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    let _ = replay::run(&arguments.replay, &mut std::io::sink());
});
