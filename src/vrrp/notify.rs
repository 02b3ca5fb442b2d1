//! Who is told of what happens: log lines, notify scripts and a FIFO.
//!
//! Owns the thread `vrrp-report`, keepalived's formats (`vrrp_notify.c`) and the order in which things are told. Never
//! keeps the `vrrp` thread waiting: it takes from an unbounded channel.

use std::io;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};

use crate::model::Vrrp;

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What happens.
    Info,
    /// What should be looked at.
    Warn,
    /// What does not work.
    Error,
}

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

/// The thread. Dropped, it tells what is in the channel and stops.
pub struct Reporter {
    reports: Sender<Report>,
    _kept: Receiver<Report>,
}

impl Reporter {
    /// Starts it.
    pub fn start(vrrp: Arc<Vrrp>) -> io::Result<Reporter> {
        let _ = vrrp;
        let (reports, _kept) = crossbeam::channel::unbounded();
        Ok(Reporter { reports, _kept })
    }

    /// Where reports go; never blocks.
    pub fn reports(&self) -> Sender<Report> {
        self.reports.clone()
    }

    /// Lines that a FIFO without a reader lost, since the start.
    pub fn lost_lines(&self) -> u64 {
        0
    }
}
