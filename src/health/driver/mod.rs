//! The thread `health`: every check at its time, on one loop.
//!
//! Owns the thread and what it is told and asked from outside. Never decides what a failure means, and never waits for
//! anything but its sockets and its next deadline: what may wait is [`super::runner`]'s (docs/adr/0023-health-threads.md).

mod check;
mod turn;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::{CheckId, Record};
use crate::model::{Check, Through, Weigh};
use crate::priority;

/// Nice value of the thread `health`: it is run soon after it wakes up, and leaves others a part of the core where it has too
/// much to do.
const NICE: i8 = -10;

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
    /// Prepares the way for such checks, and says which mark of a socket makes its packets take it. Called again, half a minute
    /// later, where it failed.
    ///
    /// # Errors
    /// Why there is no such way on this machine: what those checks report.
    fn open(&mut self) -> Result<u32, String>;
    /// The appliance's address that such checks are sent from: one that the server can answer to. `None` leaves it to the
    /// route of marked packets. Called before each socket is bound.
    fn source(&self, through: &Through) -> Option<IpAddr>;
    /// A descriptor that becomes readable when packets wait. Asked for once, after [`Egress::open`]; it stays the same.
    fn descriptor(&self) -> Option<RawFd>;
    /// From now on packets from this port (host order) and protocol (IP number) go to that server; `None`: the check is over.
    fn bind(&mut self, protocol: u8, port: u16, through: Option<&Through>);
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

/// A check and where its results go.
struct Wanted {
    id: CheckId,
    check: Arc<Check>,
    record: Arc<Record>,
}

/// The running checks. Dropped, they end, and their scripts with them.
pub struct Checker {
    plans: Option<Sender<Vec<Wanted>>>,
    waker: Arc<mio::Waker>,
    events: Receiver<Event>,
    records: Mutex<HashMap<CheckId, Arc<Record>>>,
    running: Arc<AtomicBool>,
    /// In nanoseconds.
    latest: Arc<AtomicU64>,
    turns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    /// Starts the threads in the network namespace of the calling thread, with nothing to check.
    ///
    /// # Errors
    /// [`CheckerError`].
    pub fn start(wiring: Wiring) -> Result<Checker, CheckerError> {
        let (plans, inbox) = unbounded();
        let (out, events) = unbounded();
        let running = Arc::new(AtomicBool::new(true));
        let latest = Arc::new(AtomicU64::new(0));
        let turns = Arc::new(AtomicU64::new(0));
        let guard = Guard(Arc::clone(&running));
        let (mut turn, waker) =
            turn::Turn::new(wiring, inbox, out, Arc::clone(&latest), Arc::clone(&turns), guard.clone())
                .map_err(CheckerError::Start)?;
        let thread = std::thread::Builder::new()
            .name("health".into())
            .spawn(move || {
                let guard = guard;
                // Before ordinary threads: a busy machine must not make checks late. A refusal costs only that.
                let _ = priority::set_nice(NICE);
                turn.run();
                // The sockets and scripts go before it is said to be gone.
                drop(turn);
                drop(guard);
            })
            .map_err(CheckerError::Start)?;
        let (plans, thread) = (Some(plans), Some(thread));
        Ok(Checker { plans, waker, events, records: Mutex::default(), running, latest, turns, thread })
    }

    /// Takes a configuration. Checks that stay are not touched.
    pub fn configure(&self, plan: Plan) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *records);
        let wanted: Vec<Wanted> = plan
            .checks
            .into_iter()
            .map(|(id, check)| Wanted { id, check, record: before.remove(&id).unwrap_or_default() })
            .collect();
        records.extend(wanted.iter().map(|wanted| (wanted.id, Arc::clone(&wanted.record))));
        // Under the lock, so that plans come in the order of their records. Nobody there: `is_running` says so.
        if let Some(plans) = &self.plans {
            let _ = plans.send(wanted);
        }
        drop(records);
        let _ = self.waker.wake();
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
    pub fn lateness(&self) -> Duration {
        Duration::from_nanos(self.latest.swap(0, Ordering::Relaxed))
    }

    /// How often the thread has turned. It is asked to turn once more: between two calls the number grows, if it lives.
    pub fn turns(&self) -> u64 {
        let _ = self.waker.wake();
        self.turns.load(Ordering::Relaxed)
    }

    /// Whether the threads run: they end before this is dropped only by a fault of their own.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.plans = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// Says when one of the threads ends, however it ends.
#[derive(Clone)]
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
