//! Notify scripts: what is run for which change, in which order.
//!
//! Owns keepalived's commands and arguments. For one router or group one is run after the other; those of different ones at
//! the same time. One that takes long is not ended, for it may be meant so: the next one is then run beside it.

use std::time::Duration;

use super::Change;
use crate::model::Notify;
use crate::programs::queue::{self, Bounds, Queues, Task};
use crate::vrrp::Level;

/// What is out of date for a router is left out; nothing is ever ended.
const BOUNDS: Bounds = Bounds { waiting: 32, together: usize::MAX, time: None };

type Command = Vec<String>;
/// A line for the log.
pub(super) type Said = (Level, String);

/// All notify scripts.
pub(super) struct Scripts {
    user: Option<String>,
    queues: Queues<(bool, String)>,
}

impl Default for Scripts {
    fn default() -> Self {
        Scripts { user: None, queues: Queues::new(BOUNDS) }
    }
}

/// The commands of a change: the one for this state as it is, then the one for any with keepalived's four arguments behind
/// its own (`send_instance_notifies`).
fn commands(notify: &Notify, kind: &str, name: &str, change: Change, priority: u8) -> Vec<Command> {
    let own = match change {
        Change::Master => &notify.master,
        Change::Backup => &notify.backup,
        Change::Fault => &notify.fault,
        Change::Stop => &notify.stop,
        Change::MasterPriority | Change::BackupPriority | Change::MasterHeardLower => return Vec::new(),
    };
    let any = notify.any.as_ref().map(|any| {
        let added = [kind, name, change.word(), &priority.to_string()].map(str::to_owned);
        any.iter().cloned().chain(added).collect()
    });
    own.clone().into_iter().chain(any).collect()
}

impl Scripts {
    /// Sets the user that they are run as; `None`: this program's own.
    pub fn run_as(&mut self, user: Option<String>) {
        self.user = user;
    }

    /// Lines up what a change calls for.
    pub fn add(
        &mut self,
        notify: &Notify,
        (group, name): (bool, &str),
        change: Change,
        priority: u8,
        said: &mut Vec<Said>,
    ) {
        let mut told = Vec::new();
        for command in commands(notify, super::kind(group), name, change, priority) {
            let task = Task { of: name.to_owned(), command, user: self.user.clone(), environment: Vec::new() };
            self.queues.add((group, name.to_owned()), task, &mut told);
        }
        said.extend(told.into_iter().map(line));
    }

    /// Looks after those that run, and starts what may start.
    pub fn turn(&mut self, now: Duration, said: &mut Vec<Said>) {
        let mut told = Vec::new();
        self.queues.turn(now, &mut told);
        said.extend(told.into_iter().map(line));
    }

    /// When to come back; `None` where nothing runs.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        self.queues.deadline(now)
    }

    /// Lets those that still run go on without this program.
    pub fn leave(&mut self) {
        self.queues.leave();
    }
}

fn line(said: queue::Said) -> Said {
    match said {
        queue::Said::Warning(text) => (Level::Warn, text),
        queue::Said::Error(text) => (Level::Error, text),
    }
}
