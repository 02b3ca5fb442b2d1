//! Passive checks: servers whose clients' packets meet too many failures. Pure.
//!
//! Owns who is an outlier of a window, and for how long. Never lets a service be without servers by this.

use std::time::Duration;

use crate::model::Passive;

/// What was counted of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// New flows.
    pub new: u64,
    /// New flows that were reset before they were established, or got no answer.
    pub failed: u64,
}

/// What passive checks know of one server.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// The counters when they were read last; `None`: never.
    seen: Option<Counts>,
    /// In the window that runs.
    pub window: Counts,
    /// Until when it is out.
    pub until: Option<Duration>,
    /// How often it was put out of late.
    times: u32,
}

impl Watched {
    /// Takes the counters as they are now.
    pub fn count(&mut self, now: Counts) {
        if let Some(seen) = self.seen {
            self.window.new += now.new.saturating_sub(seen.new);
            self.window.failed += now.failed.saturating_sub(seen.failed);
        }
        self.seen = Some(now);
    }

    /// Whether the window that ends is enough for a judgement, and says that the server fails.
    pub fn is_outlier(&self, settings: &Passive) -> Option<bool> {
        let Counts { new, failed } = self.window;
        let enough = new >= u64::from(settings.least.max(1));
        enough.then(|| failed * 100 >= new * u64::from(settings.failures_percent.max(1)))
    }

    /// Puts it out. For how long.
    pub fn eject(&mut self, settings: &Passive, now: Duration) -> Duration {
        let lasts = settings.eject * (1u32 << self.times.min(4)).min(10);
        self.times += 1;
        self.until = Some(now + lasts);
        lasts
    }

    /// A window without fault: the next ejection is shorter again.
    pub fn praise(&mut self) {
        self.times = self.times.saturating_sub(1);
    }

    /// Lets it in. Whether it was out.
    pub fn release(&mut self) -> bool {
        self.until.take().is_some()
    }

    /// Begins a window.
    pub fn begin(&mut self) {
        self.window = Counts::default();
    }
}

/// How many more of a service's servers may be put out. `servers`: all of them; `out`: those that are out by this already;
/// `usable`: those that are in and usable.
pub fn room(settings: &Passive, servers: usize, out: usize, usable: usize) -> usize {
    let share = usize::from(settings.most_percent.min(100));
    // A small service would else have none: it may be one, as long as another one stays.
    let most = if share == 0 { 0 } else { (servers * share / 100).max(1) };
    most.saturating_sub(out).min(usable.saturating_sub(1))
}
