//! Tracked scripts: when each is run, and how it ended.
//!
//! Owns their processes while they run: one at most of each. Never says what a failure means for a router.

use std::time::Duration;

use super::{Observation, Streak};
use crate::model::{TrackScript, Tracked};
use crate::programs::{Ended, Program, Running};
use crate::vrrp::Level;
use crate::vrrp::notify::Report;

/// How long a script that took too long may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(1);
/// How often a script that runs is looked after: first, and when it has taken [`PATIENCE`].
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(25));
const PATIENCE: Duration = Duration::from_millis(100);

struct Run {
    running: Running,
    started: Duration,
    /// When the whole group is killed; set when it has taken too long.
    kill: Option<Duration>,
    /// Looked at next.
    look: Duration,
}

struct Script {
    spec: TrackScript,
    streak: Streak,
    next: Duration,
    run: Option<Run>,
    /// The last result and the last reason that was told.
    last: Option<Result<(), String>>,
    risk: Option<String>,
}

/// All tracked scripts.
#[derive(Default)]
pub(super) struct Scripts {
    all: Vec<Script>,
}

impl Scripts {
    /// Takes a configuration. A script that did not change keeps its state and its time; one with the same program keeps its
    /// state. The others are run at once.
    pub fn configure<'a>(
        &mut self,
        specs: impl Iterator<Item = &'a TrackScript>,
        now: Duration,
        out: &mut Vec<Observation>,
    ) {
        let mut before = std::mem::take(&mut self.all);
        for spec in specs {
            let known = before.iter().position(|script| script.spec.name == spec.name).map(|at| before.remove(at));
            match known {
                Some(script) if script.spec == *spec => self.all.push(script),
                Some(mut script) if script.spec.command == spec.command && script.spec.user == spec.user => {
                    script.streak.set(spec.rise, spec.fall);
                    script.next = script.next.min(now + spec.interval);
                    script.spec = spec.clone();
                    self.all.push(script);
                }
                _ => {
                    if spec.starts_good {
                        out.push(Observation::good(Tracked::Script(spec.name.clone())));
                    }
                    self.all.push(Script {
                        streak: Streak::new(spec.rise, spec.fall, spec.starts_good),
                        spec: spec.clone(),
                        next: now,
                        run: None,
                        last: None,
                        risk: None,
                    });
                }
            }
        }
    }

    /// When to come back.
    pub fn deadline(&self) -> Option<Duration> {
        self.all.iter().map(Script::deadline).min()
    }

    /// Does what is due.
    pub fn turn(&mut self, now: Duration, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        for script in &mut self.all {
            script.look_after(now, out, reports);
            if script.run.is_none() && script.next <= now {
                script.start(now, out, reports);
            }
        }
    }
}

impl Script {
    fn deadline(&self) -> Duration {
        self.run.as_ref().map_or(self.next, |run| run.look)
    }

    fn start(&mut self, now: Duration, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        self.next += self.spec.interval;
        if self.next <= now {
            // The last one took longer than the interval.
            self.next = now + self.spec.interval;
        }
        let command = self.spec.command.split_first().map(|(program, arguments)| (program.as_str(), arguments));
        let (program, arguments) = command.unwrap_or_default();
        let started = Program::find(program, self.spec.user.as_deref()).and_then(|program| {
            let risk = program.risk();
            if risk.is_some() && risk != self.risk {
                reports.extend(
                    risk.iter().map(|risk| log(Level::Warn, format!("VRRP_Script({}): {risk}", self.spec.name))),
                );
            }
            self.risk = risk;
            program.start(arguments)
        });
        match started {
            Ok(running) => self.run = Some(Run { running, started: now, kill: None, look: now + LOOK.0 }),
            Err(error) => self.result(Err(error.to_string()), out, reports),
        }
    }

    fn look_after(&mut self, now: Duration, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        let Some(run) = self.run.as_mut().filter(|run| run.look <= now) else { return };
        let taken = now.saturating_sub(run.started);
        run.look = now + if taken < PATIENCE { LOOK.0 } else { LOOK.1 };
        if let Some(ended) = run.running.ended() {
            let told = run.kill.is_some();
            self.run = None;
            if !told {
                self.result(result_of(ended), out, reports);
            }
            return;
        }
        match run.kill {
            None if taken >= self.spec.timeout => {
                run.running.end();
                run.kill = Some(now + GRACE);
                let seconds = self.spec.timeout.as_secs_f64();
                self.result(Err(format!("timed out after {seconds} s")), out, reports);
            }
            None => run.look = run.look.min(run.started + self.spec.timeout),
            Some(kill) if kill <= now => run.running.kill(),
            Some(_) => {}
        }
    }

    fn result(&mut self, result: Result<(), String>, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        let name = &self.spec.name;
        let turned = self.streak.take(result.is_ok());
        let what = || Tracked::Script(name.clone());
        match (turned, &result) {
            (Some(true), _) => {
                reports.push(log(Level::Info, format!("VRRP_Script({name}) succeeded")));
                out.push(Observation::good(what()));
            }
            (Some(false), Err(why)) => {
                reports.push(log(Level::Warn, format!("VRRP_Script({name}) failed ({why})")));
                out.push(Observation::bad(what(), format!("failed: {why}")));
            }
            // It goes on to fail, for another reason.
            (None, Err(why)) if self.streak.good() == Some(false) && self.last.as_ref() != Some(&result) => {
                reports.push(log(Level::Info, format!("Script `{name}` now fails: {why}")));
                out.push(Observation::bad(what(), format!("failed: {why}")));
            }
            _ => {}
        }
        self.last = Some(result);
    }
}

/// In keepalived's words.
fn result_of(ended: Ended) -> Result<(), String> {
    match ended {
        Ended::Exit(0) => Ok(()),
        Ended::Exit(126) => Err("exited with status 126: it cannot be executed by its user".to_owned()),
        Ended::Exit(127) => Err("exited with status 127: a program is missing".to_owned()),
        Ended::Exit(code) => Err(format!("exited with status {code}")),
        Ended::Signal(signal) => Err(format!("due to signal {signal}")),
    }
}

fn log(level: Level, text: String) -> Report {
    Report::Log { level, text }
}
