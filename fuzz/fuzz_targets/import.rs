//! Any text as a file of keepalived and as rules of ipvsadm: what is made of it is a sound configuration, or it is refused.

#![no_main]

use std::path::Path;

use evenkeel::control::config;
use evenkeel::control::import::keepalived::{Disk, Wishes};
use evenkeel::control::import::{Made, from_ipvsadm, from_keepalived};
use libfuzzer_sys::fuzz_target;

fn sound(made: &Made) {
    let outcome = config::parse(&made.text, 0);
    assert!(outcome.desired.is_some(), "{}\n{:?}", made.text, outcome.problems);
}

fuzz_target!(|bytes: &[u8]| {
    // Two files: the second one is what the first includes as `b`.
    let (first, second) = bytes.split_at(bytes.iter().position(|byte| *byte == 0xff).unwrap_or(bytes.len()));
    let second = second.get(1..).unwrap_or_default();
    let read = |path: &Path| match path.to_str() {
        Some("/a") => Ok(first.to_vec()),
        Some("/b") => Ok(second.to_vec()),
        _ => Err("no such file".to_owned()),
    };
    let list = |_: &Path| Ok(vec!["a".to_owned(), "b".to_owned()]);
    let wishes = Wishes { config_id: "main".to_owned(), interfaces: Vec::new() };
    if let Ok(made) = from_keepalived(Path::new("/a"), &wishes, Disk { read: &read, list: &list }) {
        sound(&made);
    }
    if let Ok(made) = from_ipvsadm(bytes, "rules", &[]) {
        sound(&made);
    }
});
