//! Any text as a configuration: each mistake has its place, and what is taken survives being written out and read.

#![no_main]

use evenkeel::control::config::{self, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let outcome = config::parse(text, 1);
    let _ = config::render_all("fuzz.toml", &outcome.problems);
    match &outcome.desired {
        None => assert!(outcome.errors().count() > 0, "refused without a reason"),
        Some(desired) => {
            assert_eq!(outcome.errors().count(), 0);
            let written = render::render(desired);
            let again = config::parse(&written, 1);
            assert_eq!(again.desired.as_ref(), Some(desired), "{written}\n{:?}", again.problems);
        }
    }
});
