//! Who is told of what happens: log lines, notify scripts and a FIFO.
//!
//! Owns the thread `vrrp-report`, keepalived's formats (`vrrp_notify.c`) and the order in which things are told. Never
//! keeps the `vrrp` thread waiting: it takes from an unbounded channel.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, after, bounded, never, select, unbounded};
use tracing::{error, info, warn};

use super::election::Level;
use super::machine::State;
use crate::model::{Notify, Vrrp};

mod fifo;
mod scripts;

use fifo::{Fifo, FifoError};
use scripts::Scripts;

/// What a router or a group has become, in keepalived's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Master.
    Master,
    /// Backup.
    Backup,
    /// Fault.
    Fault,
    /// The program ends, or the router is no longer configured.
    Stop,
    /// Still master, with another priority; for the FIFO only.
    MasterPriority,
    /// Still backup, with another priority; for the FIFO only.
    BackupPriority,
    /// Still master, having heard an advert with a lower priority; for the FIFO only.
    MasterHeardLower,
}

impl Change {
    /// What a state is told as; `None` for one that is told to nobody.
    pub fn of(state: State) -> Option<Change> {
        match state {
            State::Init => None,
            State::Master => Some(Change::Master),
            State::Backup => Some(Change::Backup),
            State::Fault => Some(Change::Fault),
            State::Stop => Some(Change::Stop),
        }
    }

    /// keepalived's word.
    pub fn word(self) -> &'static str {
        match self {
            Change::Master => "MASTER",
            Change::Backup => "BACKUP",
            Change::Fault => "FAULT",
            Change::Stop => "STOP",
            Change::MasterPriority => "MASTER_PRIORITY",
            Change::BackupPriority => "BACKUP_PRIORITY",
            Change::MasterHeardLower => "MASTER_RX_LOWER_PRI",
        }
    }
}

/// What is told.
#[derive(Clone, Debug)]
pub enum Report {
    /// A line for the log.
    Log {
        /// How much it matters.
        level: Level,
        /// Without a time and without a newline.
        text: String,
    },
    /// A router or a group changed.
    Changed {
        /// Its name.
        name: String,
        /// Whether it is a group.
        group: bool,
        /// What it has become.
        change: Change,
        /// Its priority; 0 for a group.
        priority: u8,
    },
    /// A new configuration: whom to tell. Names that are gone are known until their [`Change::Stop`].
    Plan(Arc<Vrrp>),
}

/// How long the end waits for notify scripts that still run; then they go on alone.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The thread. Dropped, it tells what is in the channel, waits a little for the scripts, and is over.
pub struct Reporter {
    reports: Sender<Report>,
    end: Option<Sender<Infallible>>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Starts it.
    pub fn start(vrrp: Arc<Vrrp>) -> io::Result<Reporter> {
        let (reports, taken) = unbounded();
        let (end, ended) = bounded(0);
        let lost = Arc::new(AtomicU64::new(0));
        let mut work = Work::new(Arc::clone(&lost));
        let run = move || {
            work.take(Report::Plan(vrrp));
            work.run(&taken, &ended);
        };
        let thread = thread::Builder::new().name("vrrp-report".into()).spawn(run)?;
        Ok(Reporter { reports, end: Some(end), lost, thread: Some(thread) })
    }

    /// Where reports go; never blocks.
    pub fn reports(&self) -> Sender<Report> {
        self.reports.clone()
    }

    /// Lines that a FIFO without a reader lost, since the start.
    pub fn lost_lines(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// keepalived's word for a router or a group.
fn kind(group: bool) -> &'static str {
    if group { "GROUP" } else { "INSTANCE" }
}

struct Work {
    begun: Instant,
    /// With whether it is still configured.
    notified: HashMap<(bool, String), (Notify, bool)>,
    scripts: Scripts,
    fifo: Option<Fifo>,
    /// What is wrong with the FIFO, said once.
    wrong: Option<String>,
    lost: Arc<AtomicU64>,
}

impl Work {
    fn new(lost: Arc<AtomicU64>) -> Work {
        let (notified, scripts) = (HashMap::new(), Scripts::default());
        Work { begun: Instant::now(), notified, scripts, fifo: None, wrong: None, lost }
    }

    fn run(mut self, reports: &Receiver<Report>, ended: &Receiver<Infallible>) {
        loop {
            let wait = match self.turn() {
                Some(wait) => after(wait),
                None => never(),
            };
            select! {
                recv(reports) -> report => match report {
                    Ok(report) => self.take(report),
                    Err(_) => break,
                },
                recv(ended) -> _ => break,
                recv(wait) -> _ => {}
            }
        }
        reports.try_iter().for_each(|report| self.take(report));
        let last = self.begun.elapsed() + LAST_WAIT;
        while let Some(wait) = self.turn() {
            if self.begun.elapsed() >= last {
                self.scripts.leave();
                break;
            }
            thread::sleep(wait);
        }
    }

    /// Looks after the scripts; returns the time until it has to again.
    fn turn(&mut self) -> Option<Duration> {
        let mut said = Vec::new();
        let now = self.begun.elapsed();
        self.scripts.turn(now, &mut said);
        said.iter().for_each(|(level, text)| log(*level, text));
        self.scripts.deadline(now).map(|deadline| deadline - now)
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Log { level, text } => log(level, &text),
            Report::Plan(vrrp) => self.plan(&vrrp),
            Report::Changed { name, group, change, priority } => self.changed(name, group, change, priority),
        }
    }

    fn plan(&mut self, vrrp: &Vrrp) {
        let routers = vrrp.routers.iter().map(|router| ((false, router.name.clone()), router.notify.clone()));
        let groups = vrrp.groups.iter().map(|group| ((true, group.name.clone()), group.notify.clone()));
        self.notified.values_mut().for_each(|(_, configured)| *configured = false);
        self.notified.extend(routers.chain(groups).map(|(key, notify)| (key, (notify, true))));
        self.scripts.run_as(vrrp.settings.notify_user.clone());
        if self.fifo.as_ref().map(|fifo| fifo.path()) != vrrp.settings.fifo.as_deref() {
            self.fifo = vrrp.settings.fifo.as_deref().map(Fifo::new);
            self.wrong = None;
            // Now, so that a reader can open it before something happens.
            let opened = self.fifo.as_mut().map_or(Ok(()), |fifo| fifo.open().map(drop));
            self.judge(opened);
        }
    }

    fn changed(&mut self, name: String, group: bool, change: Change, priority: u8) {
        let mut said = Vec::new();
        let key = (group, name);
        if let Some((notify, _)) = self.notified.get(&key) {
            self.scripts.add(notify, (group, &key.1), change, priority, &mut said);
        }
        said.iter().for_each(|(level, text)| log(*level, text));
        if let Some(fifo) = &mut self.fifo {
            let written = fifo.write(&fifo::line(kind(group), &key.1, change, priority));
            if written.is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            self.judge(written);
        }
        if change == Change::Stop && self.notified.get(&key).is_some_and(|(_, configured)| !configured) {
            self.notified.remove(&key);
        }
    }

    fn judge(&mut self, result: Result<(), FifoError>) {
        let wrong = result.err().map(|error| error.to_string());
        if wrong != self.wrong {
            match &wrong {
                Some(wrong) => log(Level::Warn, wrong),
                None => log(
                    Level::Info,
                    &format!("the FIFO is read again; {} lines were lost so far", self.lost.load(Ordering::Relaxed)),
                ),
            }
            self.wrong = wrong;
        }
    }
}

fn log(level: Level, text: &str) {
    match level {
        Level::Info => info!("{text}"),
        Level::Warn => warn!("{text}"),
        Level::Error => error!("{text}"),
    }
}
