//! Programs that are run one after the other: for one key in the order of what happened, for different ones at the same time.
//!
//! Owns their processes. One that takes long keeps the next one of its key waiting for [`PATIENCE`] only, which is then run
//! beside it. Never waits: whoever holds the queues calls [`Queues::turn`] while [`Queues::deadline`] says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::Stdio;
use std::time::Duration;

use super::{Ended, Program, Running, StartError};

/// How long the next program of the same key waits for the one before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How often running programs are looked after.
const LOOK: Duration = Duration::from_millis(10);

/// How long a program that ran out of time has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Somebody should look after it.
    Warning(String),
    /// Something was not done.
    Error(String),
}

/// What may run, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most that wait for one key: what is older is left out.
    pub waiting: usize,
    /// Most that run at a time, over all keys.
    pub together: usize,
    /// After so long one is ended, with all that it started; `None`: never, for it may be meant so.
    pub time: Option<Duration>,
}

/// A program that is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Task {
    /// Whose it is, for the log.
    pub of: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// What it is told besides this program's own environment.
    pub environment: Vec<(String, String)>,
    /// As whom it runs; `None`: as this program.
    pub user: Option<String>,
}

impl Task {
    fn words(&self) -> String {
        self.command.join(" ")
    }
}

struct Run {
    running: Running,
    program: String,
    of: String,
    started: Duration,
    /// When it is killed: it was told to end.
    kill: Option<Duration>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Task>,
    run: Option<Run>,
}

/// The programs of all keys.
pub(crate) struct Queues<K> {
    bounds: Bounds,
    queues: BTreeMap<K, Queue>,
    /// Those that the next one did not wait for.
    beside: Vec<Run>,
    /// The key whose turn is next where not all may run.
    next: Option<K>,
    /// Risks that were told of.
    risks: BTreeSet<String>,
}

impl<K: Ord + Clone> Queues<K> {
    /// Nothing to run yet.
    pub fn new(bounds: Bounds) -> Queues<K> {
        Queues { bounds, queues: BTreeMap::new(), beside: Vec::new(), next: None, risks: BTreeSet::new() }
    }

    /// Lines up a program behind those of its key.
    pub fn add(&mut self, key: K, task: Task, said: &mut Vec<Said>) {
        let queue = self.queues.entry(key).or_default();
        queue.waiting.push_back(task);
        let most = self.bounds.waiting;
        while queue.waiting.len() > most {
            let left_out = queue.waiting.pop_front().unwrap_or_default();
            let (of, words) = (&left_out.of, left_out.words());
            said.push(Said::Warning(format!("({of}) notify script {words} is left out: {most} newer ones wait")));
        }
    }

    /// Looks after those that run, and starts what may start.
    pub fn turn(&mut self, now: Duration, said: &mut Vec<Said>) {
        let bounds = self.bounds;
        self.beside.retain_mut(|run| !run.over(bounds.time, now, said));
        for queue in self.queues.values_mut() {
            if queue.run.as_mut().is_some_and(|run| run.over(bounds.time, now, said)) {
                queue.run = None;
            }
            let tired = queue.run.as_ref().is_some_and(|run| now.saturating_sub(run.started) >= PATIENCE);
            if tired && !queue.waiting.is_empty() {
                self.beside.extend(queue.run.take().inspect(|run| {
                    let (of, program) = (&run.of, &run.program);
                    let text = format!("({of}) notify script {program} still runs: the next is not kept waiting");
                    said.push(Said::Warning(text));
                }));
            }
        }
        let mut room = bounds.together.saturating_sub(self.running());
        // All in turn, from where there was no room the last time.
        let from = self.next.take();
        let keys: Vec<K> =
            self.queues.iter().filter(|(_, queue)| queue.run.is_none()).map(|(key, _)| key.clone()).collect();
        let first = from.map_or(0, |from| keys.partition_point(|key| *key < from));
        for key in keys[first..].iter().chain(&keys[..first]) {
            if room == 0 {
                self.next = Some(key.clone());
                break;
            }
            let Some(queue) = self.queues.get_mut(key) else { continue };
            while queue.run.is_none()
                && let Some(task) = queue.waiting.pop_front()
            {
                queue.run = start(task, now, &mut self.risks, said);
            }
            room -= usize::from(queue.run.is_some());
        }
        self.queues.retain(|_, queue| queue.run.is_some() || !queue.waiting.is_empty());
    }

    /// Programs that run.
    fn running(&self) -> usize {
        self.beside.len() + self.queues.values().filter(|queue| queue.run.is_some()).count()
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
    /// Whether it has ended. One that ran out of time is told to end, and killed when it does not.
    fn over(&mut self, time: Option<Duration>, now: Duration, said: &mut Vec<Said>) -> bool {
        let Some(ended) = self.running.ended() else {
            match (self.kill, time) {
                (None, Some(time)) if now.saturating_sub(self.started) >= time => {
                    self.running.end();
                    self.kill = Some(now + GRACE);
                    let (of, program) = (&self.of, &self.program);
                    let text = format!("({of}) notify script {program} is ended: it ran for {} s", time.as_secs());
                    said.push(Said::Warning(text));
                }
                (Some(kill), _) if now >= kill => self.running.kill(),
                _ => {}
            }
            return false;
        };
        let how = match ended {
            _ if self.kill.is_some() => return true,
            Ended::Exit(0) => return true,
            Ended::Exit(code) => format!("exited with status {code}"),
            Ended::Signal(signal) => format!("ended by signal {signal}"),
        };
        said.push(Said::Warning(format!("notify script {} {how}", self.program)));
        true
    }
}

fn start(task: Task, now: Duration, risks: &mut BTreeSet<String>, said: &mut Vec<Said>) -> Option<Run> {
    let words = task.words();
    let (program, arguments) = task.command.split_first()?;
    let started = Program::find(program, task.user.as_deref()).and_then(|found| {
        // Once for each program, not with each change.
        if let Some(risk) = found.risk().filter(|risk| risks.insert(risk.clone())) {
            said.push(Said::Warning(format!("({}) notify script: {risk}", task.of)));
        }
        found.start_told(arguments, &task.environment)
    });
    match started {
        Ok(running) => Some(Run { running, program: words, of: task.of, started: now, kill: None }),
        Err(error) => {
            said.push(Said::Error(format!("({}) notify script {words} was not run: {error}", task.of)));
            None
        }
    }
}

impl Program {
    /// Starts it with `arguments` and what it is told besides this program's environment, without input and output.
    fn start_told(&self, arguments: &[String], environment: &[(String, String)]) -> Result<Running, StartError> {
        let mut command = self.command();
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.spawn(command, false)
    }
}

#[cfg(test)]
mod tests;
