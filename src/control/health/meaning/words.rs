//! Numbers and times in words. Pure.

use std::time::Duration;

/// A time as people say it: `2 s`, `1.5 s`, `3 min 20 s`.
pub fn span(time: Duration) -> String {
    let (seconds, rest) = (time.as_secs(), time.subsec_millis());
    match seconds {
        0..60 if rest > 0 => format!("{:.1} s", time.as_secs_f64()),
        0..60 => format!("{seconds} s"),
        60..3600 if seconds % 60 == 0 => format!("{} min", seconds / 60),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}
