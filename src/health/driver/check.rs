//! One check that runs: its state, its record, and the attempt that is on its way.
//!
//! Owns what is told of a result. Never knows when the next one is due.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Event, Wanted};
use crate::health::machine::{Machine, Verdict};
use crate::health::record::{HISTORY, Turn};
use crate::health::{CheckId, Outcome, Reason, Record};
use crate::model::Check;

/// A check.
pub(super) struct Running {
    /// Its name.
    pub id: CheckId,
    /// What it asks.
    pub check: Arc<Check>,
    /// The attempt that runs.
    pub attempt: Option<usize>,
    /// When that began.
    pub begun: Duration,
    machine: Machine,
    record: Arc<Record>,
}

impl Running {
    pub fn new(wanted: Wanted) -> Running {
        let machine = Machine::new(&wanted.check.pace);
        let Wanted { id, check, record } = wanted;
        Running { id, check, attempt: None, begun: Duration::ZERO, machine, record }
    }

    /// Whether that is its record.
    pub fn writes_to(&self, record: &Arc<Record>) -> bool {
        Arc::ptr_eq(&self.record, record)
    }

    /// Takes the result of a run: writes it down, and says what others must hear.
    pub fn take(&mut self, outcome: Outcome, took: Duration) -> Option<Event> {
        let verdict = self.machine.take(&outcome);
        let at = SystemTime::now();
        let words = words(&outcome).to_owned();
        let (up, weigh, streak) = (self.machine.up(), self.machine.weigh(), self.machine.streak());
        let turned = matches!(verdict, Verdict::Turned(_));
        self.record.write(|status| {
            match &outcome {
                Outcome::Good { .. } => status.passed += 1,
                Outcome::Bad(failure) => {
                    status.failed += 1;
                    let place = Reason::ALL.iter().position(|reason| *reason == failure.reason);
                    if let Some(count) = place.and_then(|place| status.reasons.get_mut(place)) {
                        *count += 1;
                    }
                }
                Outcome::Unable(_) => status.unable += 1,
            }
            if turned {
                status.since = Some(at);
                if status.history.len() >= HISTORY {
                    status.history.pop_front();
                }
                status.history.push_back(Turn { at, up: up == Some(true), words: words.clone() });
            }
            (status.up, status.weigh, status.streak) = (up, weigh, streak);
            (status.last, status.at, status.took) = (Some(outcome), Some(at), took);
        });
        (verdict != Verdict::Same).then(|| Event { id: self.id, up: up == Some(true), weigh, words, at })
    }
}

fn words(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Good { said, .. } => said,
        Outcome::Bad(failure) => &failure.words,
        Outcome::Unable(words) => words,
    }
}
