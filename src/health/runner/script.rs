//! One run of a script that checks, as keepalived's `MISC_CHECK` judges it (keepalived/check/check_misc.c).
//!
//! Owns its process group: nothing of it outlives the run. What a script moves out of its group (`setsid`) cannot be followed.

use std::time::{Duration, Instant};

use crate::health::probe::words::span;
use crate::health::{Outcome, Reason};
use crate::model::{Check, CheckKind, ScriptCheck, Weigh};
use crate::programs::{Ended, Output, Program, Running, StartError};

/// How long a script that took too long may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// A script that runs.
pub struct Run {
    script: ScriptCheck,
    timeout: Duration,
    running: Running,
    output: Output,
    begun: Instant,
    /// When it is killed: it has been told to end.
    kill: Option<Instant>,
    /// Whether nobody waits for a result any more.
    told: bool,
    gone: bool,
}

impl Run {
    /// Starts it.
    ///
    /// # Errors
    /// The outcome, where it cannot be started.
    pub fn start(check: &Check) -> Result<Run, Outcome> {
        let CheckKind::Script(script) = &check.kind else {
            return Err(Outcome::Unable(format!("{check} is no script")));
        };
        let (program, arguments) = script.command.split_first().ok_or_else(|| Outcome::Unable("no command".into()))?;
        let mut environment = vec![
            ("EVENKEEL_ADDRESS".to_owned(), check.target.address.to_string()),
            ("EVENKEEL_PORT".to_owned(), check.target.port.to_string()),
        ];
        environment.extend(script.environment.iter().cloned());
        let started = Program::find(program, script.user.as_deref())
            .and_then(|program| program.start_alone(arguments, &environment));
        let (running, output) = started.map_err(|error| not_started(&error))?;
        let timeout = check.pace.timeout;
        let script = script.clone();
        Ok(Run { script, timeout, running, output, begun: Instant::now(), kill: None, told: false, gone: false })
    }

    /// How long it has run.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether its process has ended.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Reads what it prints, and ends it where it takes too long. The outcome, once.
    pub fn look_after(&mut self) -> Option<Outcome> {
        self.output.read();
        if let Some(ended) = self.running.ended() {
            self.gone = true;
            self.output.read();
            let told = std::mem::replace(&mut self.told, true);
            return (!told).then(|| outcome(&self.script, ended, &self.output.line()));
        }
        match self.kill {
            Some(kill) if kill <= Instant::now() => self.running.kill(),
            Some(_) => {}
            None if self.age() >= self.timeout => {
                self.running.end();
                self.kill = Some(Instant::now() + GRACE);
                let told = std::mem::replace(&mut self.told, true);
                return (!told).then(|| {
                    let words = format!("killed after {}, the timeout", span(self.timeout));
                    Outcome::bad(Reason::Script, with(words, &self.output.line()))
                });
            }
            None => {}
        }
        None
    }

    /// Nobody waits for it any more.
    pub fn cancel(&mut self) {
        self.told = true;
        self.kill();
    }

    /// Kills the whole group.
    pub fn kill(&mut self) {
        self.running.kill();
        self.kill = Some(Instant::now() + GRACE);
    }
}

fn not_started(error: &StartError) -> Outcome {
    match error {
        // No memory, no process or no descriptor left: that is this machine's trouble.
        StartError::Refused { source, .. }
            if matches!(
                source.raw_os_error(),
                Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOBUFS)
            ) =>
        {
            Outcome::Unable(error.to_string())
        }
        _ => Outcome::bad(Reason::Script, error.to_string()),
    }
}

fn outcome(script: &ScriptCheck, ended: Ended, line: &str) -> Outcome {
    match ended {
        Ended::Exit(0) => Outcome::good(with("exit code 0".into(), line)),
        Ended::Exit(code @ 2..=255) if script.dynamic => {
            let weight = (code - 2) as u16;
            let said = with(format!("exit code {code}: weight {weight}"), line);
            Outcome::Good { said, weigh: Some(Weigh::Set(weight)), warning: None }
        }
        Ended::Exit(126) if line.is_empty() => {
            Outcome::bad(Reason::Script, "exit code 126: its user cannot execute a program")
        }
        Ended::Exit(127) if line.is_empty() => Outcome::bad(Reason::Script, "exit code 127: a program is missing"),
        Ended::Exit(code) => Outcome::bad(Reason::Script, with(format!("exit code {code}"), line)),
        Ended::Signal(number) => {
            let name = nix::sys::signal::Signal::try_from(number).map_or("unknown", |signal| signal.as_str());
            Outcome::bad(Reason::Script, with(format!("ended by signal {number} ({name})"), line))
        }
    }
}

fn with(words: String, line: &str) -> String {
    if line.is_empty() { words } else { format!("{words}: {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_as_misc_check() {
        let script = |dynamic| ScriptCheck { command: Vec::new(), environment: Vec::new(), user: None, dynamic };
        let weigh = |outcome| match outcome {
            Outcome::Good { weigh, .. } => Ok(weigh),
            Outcome::Bad(failure) => Err(failure.words),
            Outcome::Unable(words) => panic!("{words}"),
        };
        for (dynamic, ended, line, expected) in [
            (false, Ended::Exit(0), "", Ok(None)),
            (false, Ended::Exit(1), "", Err("exit code 1")),
            (false, Ended::Exit(2), "no disk", Err("exit code 2: no disk")),
            (false, Ended::Exit(127), "", Err("exit code 127: a program is missing")),
            (false, Ended::Signal(9), "", Err("ended by signal 9 (SIGKILL)")),
            (true, Ended::Exit(0), "", Ok(None)),
            (true, Ended::Exit(1), "", Err("exit code 1")),
            (true, Ended::Exit(2), "", Ok(Some(Weigh::Set(0)))),
            (true, Ended::Exit(102), "", Ok(Some(Weigh::Set(100)))),
            (true, Ended::Exit(255), "", Ok(Some(Weigh::Set(253)))),
            (true, Ended::Signal(15), "late", Err("ended by signal 15 (SIGTERM): late")),
        ] {
            let seen = weigh(outcome(&script(dynamic), ended, line));
            assert_eq!(seen, expected.map_err(str::to_owned), "{dynamic} {ended:?}");
        }
    }
}
