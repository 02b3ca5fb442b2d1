//! What is known of one check: its last result, its changes, its counts. Written by the thread that runs it, read by whoever
//! asks.
//!
//! Owns the one lock between them, held for a copy and never while anything waits.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Outcome, Reason};
use crate::model::Weigh;

/// Changes that are remembered.
pub const HISTORY: usize = 16;

/// One check's record.
#[derive(Debug, Default)]
pub struct Record(Mutex<RecordStatus>);

/// What a record says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordStatus {
    /// Whether the check is good; `None` before its first result.
    pub up: Option<bool>,
    /// Since when.
    pub since: Option<SystemTime>,
    /// The last result; of a run that could not ask, too.
    pub last: Option<Outcome>,
    /// When that was.
    pub at: Option<SystemTime>,
    /// How long it took.
    pub took: Duration,
    /// What it says about the weight now.
    pub weigh: Option<Weigh>,
    /// Results of the same kind in a row.
    pub streak: u32,
    /// Good runs.
    pub passed: u64,
    /// Failed runs.
    pub failed: u64,
    /// Runs in which this machine could not ask.
    pub unable: u64,
    /// Failed runs, by [`Reason::ALL`].
    pub reasons: [u64; Reason::ALL.len()],
    /// The last changes, oldest first.
    pub history: VecDeque<Turn>,
}

/// One change of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When.
    pub at: SystemTime,
    /// Whether it has been good from then on.
    pub up: bool,
    /// Why.
    pub words: String,
}

impl Record {
    /// A copy.
    pub fn read(&self) -> RecordStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it.
    pub(super) fn write(&self, change: impl FnOnce(&mut RecordStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
