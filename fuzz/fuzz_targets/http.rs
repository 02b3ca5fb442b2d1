//! Any bytes as what a client of the web listener sends, with and without users: it is answered or left, and never stays.

#![no_main]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use evenkeel::control::web::speak;
use evenkeel::model::{Role, Web, WebUser, WebUsers};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

/// Longest answer to what nobody asked for.
const LONGEST: usize = 1 << 20;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_current_thread().enable_time().build().expect("a runtime"))
}

fn web(users: bool) -> Web {
    let hash = format!("$2y$04${}", ".".repeat(53));
    let list = vec![WebUser { name: "a".to_owned(), hash, role: Role::Admin }];
    let users = users.then(|| WebUsers { file: "users".into(), list });
    Web { listen: vec!["127.0.0.1".parse().expect("an address")], port: 1, tls: None, users }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let users = first & 1 == 1;
    runtime().block_on(async {
        // Nobody answers: what comes so far is refused there.
        let (asks, _) = crossbeam::channel::bounded(1);
        let (mut ours, theirs) = tokio::io::duplex(1 << 16);
        let from = "192.0.2.1".parse().expect("an address");
        let talk = tokio::spawn(async move { speak(theirs, from, &web(users), asks, Arc::new(|| {})).await });
        let _ = ours.write_all(bytes).await;
        let _ = ours.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), ours.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "it goes on");
        assert!(answer.len() < LONGEST, "{} bytes", answer.len());
        drop(ours);
        talk.await.expect("no panic");
    });
});
