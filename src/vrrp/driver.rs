//! The `vrrp` thread: adverts in and out, at their time.
//!
//! Owns the thread and what it is told from outside. The thread waits for its sockets and its next deadline and for nothing
//! else: what may wait for the kernel's locks is [`super::kernel`]'s, what is told to people [`super::notify`]'s. It decides
//! nothing: [`super::election`] does.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};

use super::status::VrrpStatus;
use crate::model::{Mastery, RouterSlot, Vrrp};

mod act;
mod ports;
mod stall;
mod turn;
mod world;

/// What the thread has in common with the rest of the program.
#[derive(Clone)]
pub struct Wiring {
    /// Where it says of which routers this appliance is master.
    pub mastery: Arc<Mastery>,
    /// Turns of each worker of the engine, ever growing; nothing where no engine runs. Must not wait.
    pub beats: Arc<dyn Fn() -> Vec<u64> + Send + Sync>,
    /// File that knows the addresses on the kernel's interfaces over a crash.
    pub kept: PathBuf,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The routers, their groups and what they track.
    pub vrrp: Vrrp,
    /// The bit of each router of `vrrp.routers`, in their order; the same as before for one that was there before.
    pub slots: Vec<RouterSlot>,
}

/// A thread that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A socket, a poll or a thread of its own.
    #[error("cannot start VRRP: no {what}")]
    Start {
        /// What it lacks.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the thread is told.
#[derive(Debug)]
enum Command {
    Configure(Box<Plan>),
    /// Names of services, and whether each has its quorum.
    Services(Vec<(String, bool)>),
    /// Hand over, and end.
    Stop,
    /// End.
    Abandon,
}

/// The thread. Dropped without [`Driver::stop`], it falls silent at once, without a last advert.
pub struct Driver {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
    status: Arc<ArcSwap<VrrpStatus>>,
    running: Arc<AtomicBool>,
    /// Longest hand-over, as configured last.
    handover: ArcSwap<Duration>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts it in the network namespace of the calling thread, once what a crash left on the kernel's interfaces is taken
    /// off.
    pub fn start(plan: Plan, wiring: Wiring) -> Result<Driver, DriverError> {
        let (commands, inbox) = unbounded();
        let status = Arc::new(ArcSwap::from_pointee(VrrpStatus::default()));
        let handover = ArcSwap::from_pointee(plan.vrrp.settings.handover);
        let (mut turn, waker) = turn::Turn::new(plan, wiring, inbox, Arc::clone(&status))?;
        let running = Arc::new(AtomicBool::new(true));
        let (finished, done) = bounded(1);
        let guard = Running { flag: Arc::clone(&running), finished };
        let thread = std::thread::Builder::new()
            .name("vrrp".into())
            .spawn(move || {
                let guard = guard;
                turn.run();
                // What it holds goes before it is said to be gone.
                drop(turn);
                drop(guard);
            })
            .map_err(|source| DriverError::Start { what: "thread", source })?;
        Ok(Driver { commands, waker, status, running, handover, done, thread: Some(thread) })
    }

    /// Takes another configuration. Routers that did not change are not touched.
    pub fn configure(&self, plan: Plan) {
        self.handover.store(Arc::new(plan.vrrp.settings.handover));
        self.tell(Command::Configure(Box::new(plan)));
    }

    /// Says of services whether each has its quorum of usable servers.
    pub fn services(&self, up: Vec<(String, bool)>) {
        self.tell(Command::Services(up));
    }

    /// What there is to see, at most a second old.
    pub fn status(&self) -> Arc<VrrpStatus> {
        self.status.load_full()
    }

    /// Whether the thread still runs: it ends before [`Driver::stop`] only by a fault of its own, and is then master of
    /// nothing.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Hands over to the other appliances and ends; waits for that as long as is configured, and a second.
    pub fn stop(mut self) {
        self.tell(Command::Stop);
        let limit = **self.handover.load() + Duration::from_secs(1);
        if self.done.recv_timeout(limit) == Err(crossbeam::channel::RecvTimeoutError::Timeout) {
            // It hangs in the kernel: the end of the program ends it.
            self.thread = None;
        }
    }

    fn tell(&self, command: Command) {
        // Nobody there: `is_running` says so.
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.tell(Command::Abandon);
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// Says when the thread ends, however it ends.
struct Running {
    flag: Arc<AtomicBool>,
    finished: Sender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.flag.store(false, Ordering::Release);
        let _ = self.finished.try_send(());
    }
}
