//! Whether the machine is ours: what other programs take of it, as far as user time shows.
//!
//! Owns the reading of `/proc/stat`. A compiler on the other core changes every rate, so samples wait for a quiet moment,
//! and one that was disturbed is taken again.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Share of one core that others may take.
const LIMIT: f64 = 0.1;
/// How long a sample waits for a quiet moment.
const PATIENCE: Duration = Duration::from_secs(3);
/// Nanoseconds of a tick of `/proc/stat`.
const TICK: f64 = 1e7;

/// User time of the whole machine so far, in nanoseconds.
pub fn user_ns() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * TICK
}

/// Whether user time of others stayed below the limit.
pub fn undisturbed(user_before: f64, own: f64, window: Duration) -> bool {
    user_ns() - user_before - own < LIMIT * window.as_nanos() as f64
}

/// Waits until nobody else computes, for a while; goes on then in any case.
pub fn wait() {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let (before, window) = (user_ns(), Instant::now());
        thread::sleep(Duration::from_millis(200));
        if undisturbed(before, 0.0, window.elapsed()) {
            return;
        }
    }
}
