//! The thread `health-run`: scripts, files, and the authorities of TLS.
//!
//! Owns what may take milliseconds, or wait for a disk, so that no other check is late for it; and the processes of scripts
//! while they run: one at most of each check. Never says what a result means.

mod file;
mod script;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rustls::ClientConfig;

use super::probe::tls::{self, Trust};
use super::{CheckId, Outcome};
use crate::model::{Check, CheckKind};

/// Most processes at a time; more scripts wait for their turn, and their time does not count.
pub const MOST: usize = 64;
/// How often scripts that run are looked after: those that began lately, and the others.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(25));
/// How long a script is one that began lately.
const LATELY: Duration = Duration::from_millis(100);

/// What it is asked for.
#[derive(Debug)]
pub enum Job {
    /// One attempt of a script or file check.
    Run(CheckId, Arc<Check>),
    /// That check is gone: what runs for it is killed, and no result is sent.
    Cancel(CheckId),
    /// Reads what is trusted.
    Read(Trust),
}

/// What it answers.
#[derive(Debug)]
pub enum Answer {
    /// An attempt is over, and took that long since it really began.
    Ran(CheckId, Outcome, Duration),
    /// What is trusted, or why it cannot be.
    Trusts(Trust, Result<Arc<ClientConfig>, String>),
}

/// The thread. Dropped, it kills what it runs and ends.
pub struct Runner {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts it. `tell` takes answers; `guard` is dropped when the thread ends, however it does.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(tell: impl Fn(Answer) + Send + 'static, guard: impl Send + 'static) -> io::Result<Runner> {
        let (jobs, inbox) = unbounded();
        let thread = std::thread::Builder::new().name("health-run".into()).spawn(move || {
            let guard = guard;
            Turn { inbox, tell, runs: HashMap::new(), waiting: VecDeque::new() }.run();
            drop(guard);
        })?;
        Ok(Runner { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Asks for something. Never waits.
    pub fn ask(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Nobody there: its guard has said so.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed when it happened.
            let _ = thread.join();
        }
    }
}

struct Turn<T> {
    inbox: Receiver<Job>,
    tell: T,
    runs: HashMap<CheckId, script::Run>,
    waiting: VecDeque<(CheckId, Arc<Check>)>,
}

impl<T: Fn(Answer)> Turn<T> {
    fn run(&mut self) {
        loop {
            let job = match self.look() {
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(time) => self.inbox.recv_timeout(time),
            };
            match job {
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(job) = self.inbox.try_recv() {
                self.take(job);
            }
            self.look_after();
            self.start_waiting();
        }
        // All are killed before one is waited for.
        self.runs.values_mut().for_each(script::Run::kill);
    }

    /// When to look again; `None` while nothing runs.
    fn look(&self) -> Option<Duration> {
        let lately = self.runs.values().any(|run| run.age() < LATELY);
        (!self.runs.is_empty()).then_some(if lately { LOOK.0 } else { LOOK.1 })
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Run(id, check) => match &check.kind {
                CheckKind::File(wanted) => {
                    let begun = Instant::now();
                    let outcome = file::read(wanted);
                    (self.tell)(Answer::Ran(id, outcome, begun.elapsed()));
                }
                _ => self.waiting.push_back((id, check)),
            },
            Job::Cancel(id) => {
                self.waiting.retain(|(waits, _)| *waits != id);
                if let Some(run) = self.runs.get_mut(&id) {
                    run.cancel();
                }
            }
            Job::Read(trust) => {
                let read = tls::configure(&trust);
                (self.tell)(Answer::Trusts(trust, read));
            }
        }
    }

    fn look_after(&mut self) {
        let tell = &self.tell;
        self.runs.retain(|id, run| {
            if let Some(outcome) = run.look_after() {
                tell(Answer::Ran(*id, outcome, run.age()));
            }
            !run.is_gone()
        });
    }

    fn start_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            if self.runs.len() >= MOST {
                return;
            }
            let Some((id, check)) = self.waiting.pop_front() else { return };
            if self.runs.contains_key(&id) {
                // The one before was told to end and has not yet.
                self.waiting.push_back((id, check));
                continue;
            }
            match script::Run::start(&check) {
                Ok(run) => {
                    self.runs.insert(id, run);
                }
                Err(outcome) => (self.tell)(Answer::Ran(id, outcome, Duration::ZERO)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
