//! The families about the web listener itself.
//!
//! Owns names, sentences and how each is read from the listener's own counters.

use std::sync::atomic::Ordering::Relaxed;

use super::table::{Metric, metric};
use crate::control::web::limits::Tally;

/// Families about the web listener.
pub const WEB: &[Metric<Tally>] = &[
    metric!(Gauge "evenkeel_web_open_connections", "Connections of the web listener, this one included.",
        |tally| tally.connections.load(Relaxed)),
    metric!(Counter "evenkeel_web_connections_total" ["end"],
    "Connections by what became of them at first: let in, or refused as there were too many.", |tally, out| {
        out.with(&[("end", "accepted")], tally.accepted.get());
        out.with(&[("end", "refused")], tally.refused_busy.get());
    }),
    metric!(Counter "evenkeel_web_gave_way_total", "Idle connections that gave way to newer ones.",
        |tally| tally.gave_way.get()),
    metric!(Counter "evenkeel_web_requests_total", "Requests that were answered.", |tally| tally.requests.get()),
    metric!(Counter "evenkeel_web_bad_requests_total", "What was no request, or not one that may be.",
        |tally| tally.bad_requests.get()),
    metric!(Counter "evenkeel_web_wrong_passwords_total", "Wrong names or passwords.",
        |tally| tally.wrong_passwords.get()),
    metric!(Counter "evenkeel_web_passwords_limited_total",
        "Passwords that were not looked at, as too many were wrong before.",
        |tally| tally.limited.get()),
    metric!(Counter "evenkeel_web_timeouts_total", "Clients that took too long to ask or to read.",
        |tally| tally.timeouts.get()),
    metric!(Counter "evenkeel_web_failed_handshakes_total", "TLS handshakes that failed.",
        |tally| tally.failed_handshakes.get()),
];
