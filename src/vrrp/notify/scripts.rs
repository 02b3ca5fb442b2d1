//! Notify scripts: what is run for which change, in which order.
//!
//! Owns their processes. For one router or group one is run after the other; those of different ones at the same time. One
//! that takes long is not ended, for it may be meant so: the next one is then run beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Change;
use crate::model::Notify;
use crate::programs::{Ended, Program, Running};
use crate::vrrp::Level;

/// How long the next script of the same router waits for the one before.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most that wait for one router: what is older is out of date and left out.
const MOST_WAITING: usize = 32;
/// How often running scripts are looked after.
const LOOK: Duration = Duration::from_millis(10);

type Command = Vec<String>;
/// A line for the log.
pub(super) type Said = (Level, String);

struct Run {
    running: Running,
    program: String,
    started: Duration,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Command>,
    run: Option<Run>,
}

/// All notify scripts.
#[derive(Default)]
pub(super) struct Scripts {
    user: Option<String>,
    queues: BTreeMap<(bool, String), Queue>,
    /// Those that the next one did not wait for.
    beside: Vec<Run>,
    /// Risks that were told of.
    risks: BTreeSet<String>,
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
        let commands = commands(notify, super::kind(group), name, change, priority);
        if commands.is_empty() {
            return;
        }
        let queue = self.queues.entry((group, name.to_owned())).or_default();
        queue.waiting.extend(commands);
        while queue.waiting.len() > MOST_WAITING {
            let left_out = queue.waiting.pop_front().unwrap_or_default();
            let text =
                format!("({name}) notify script {} is left out: {MOST_WAITING} newer ones wait", words(&left_out));
            said.push((Level::Warn, text));
        }
    }

    /// Looks after those that run, and starts what may start.
    pub fn turn(&mut self, now: Duration, said: &mut Vec<Said>) {
        self.beside.retain_mut(|run| !run.over(said));
        for ((_, name), queue) in &mut self.queues {
            loop {
                if queue.run.as_mut().is_some_and(|run| run.over(said)) {
                    queue.run = None;
                }
                let tired = queue.run.as_ref().is_some_and(|run| now.saturating_sub(run.started) >= PATIENCE);
                if tired && !queue.waiting.is_empty() {
                    self.beside.extend(queue.run.take().inspect(|run| {
                        let text =
                            format!("({name}) notify script {} still runs: the next is not kept waiting", run.program);
                        said.push((Level::Warn, text));
                    }));
                }
                if queue.run.is_some() {
                    break;
                }
                let Some(command) = queue.waiting.pop_front() else { break };
                queue.run = start(&command, self.user.as_deref(), now, name, &mut self.risks, said);
            }
        }
        self.queues.retain(|_, queue| queue.run.is_some() || !queue.waiting.is_empty());
    }

    /// When to come back; `None` where nothing runs.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        (!self.queues.is_empty() || !self.beside.is_empty()).then_some(now + LOOK)
    }

    /// Lets those that still run go on without this program.
    pub fn leave(&mut self) {
        let runs = self.queues.values_mut().filter_map(|queue| queue.run.as_mut());
        runs.chain(&mut self.beside).for_each(|run| run.running.leave());
    }
}

impl Run {
    fn over(&mut self, said: &mut Vec<Said>) -> bool {
        let Some(ended) = self.running.ended() else { return false };
        let how = match ended {
            Ended::Exit(0) => return true,
            Ended::Exit(code) => format!("exited with status {code}"),
            Ended::Signal(signal) => format!("ended by signal {signal}"),
        };
        said.push((Level::Warn, format!("notify script {} {how}", self.program)));
        true
    }
}

fn start(
    command: &[String],
    user: Option<&str>,
    now: Duration,
    name: &str,
    risks: &mut BTreeSet<String>,
    said: &mut Vec<Said>,
) -> Option<Run> {
    let (program, arguments) = command.split_first()?;
    let started = Program::find(program, user).and_then(|found| {
        // Once for each program, not with each change.
        if let Some(risk) = found.risk().filter(|risk| risks.insert(risk.clone())) {
            said.push((Level::Warn, format!("({name}) notify script: {risk}")));
        }
        found.start(arguments)
    });
    match started {
        Ok(running) => Some(Run { running, program: words(command), started: now }),
        Err(error) => {
            said.push((Level::Error, format!("({name}) notify script {} was not run: {error}", words(command))));
            None
        }
    }
}

fn words(command: &[String]) -> String {
    command.join(" ")
}
