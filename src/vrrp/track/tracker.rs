//! The thread `vrrp-track`: runs scripts, reads files and looks for processes.
//!
//! Owns the thread and when it does what. Reports what is new; never decides what that means for a router.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TryRecvError, unbounded};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::file::Files;
use super::process::Processes;
use super::script::Scripts;
use super::{Observation, ignored};
use crate::model::{Tracked, Vrrp};
use crate::vrrp::Level;
use crate::vrrp::notify::Report;

const WAKE: Token = Token(0);
const FILES: Token = Token(1);

/// Called after observations were put into the channel.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// The thread. Dropped, it ends its scripts and is over.
pub struct Tracker {
    plans: Option<Sender<Arc<Vrrp>>>,
    waker: Arc<Waker>,
    observations: Receiver<Observation>,
    thread: Option<JoinHandle<()>>,
}

impl Tracker {
    /// Starts it. `wake` is called after observations were put into the channel; `reports` gets the log lines.
    pub fn start(vrrp: &Vrrp, wake: Wake, reports: Sender<Report>) -> io::Result<Tracker> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (plans, taken) = unbounded();
        let (seen, observations) = unbounded();
        let mut work = Work {
            poll,
            polled: None,
            begun: Instant::now(),
            scripts: Scripts::default(),
            files: Files::default(),
            processes: Processes::default(),
            seen,
            wake,
            reports,
        };
        let first = vrrp.clone();
        // On its own thread from the start: a file system that does not answer must not keep the caller waiting.
        let run = move || {
            work.configure(&first);
            work.run(&taken);
        };
        let thread = thread::Builder::new().name("vrrp-track".into()).spawn(run)?;
        Ok(Tracker { plans: Some(plans), waker, observations, thread: Some(thread) })
    }

    /// Takes a configuration: what did not change keeps its state and its time.
    pub fn configure(&self, vrrp: &Vrrp) {
        if let Some(plans) = &self.plans {
            let _ = plans.send(Arc::new(vrrp.clone()));
            let _ = self.waker.wake();
        }
    }

    /// What was seen, in order; only what is new.
    pub fn observations(&self) -> &Receiver<Observation> {
        &self.observations
    }

    /// Whether the thread is there; where it is not, nothing is tracked any more.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.plans = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    poll: Poll,
    polled: Option<RawFd>,
    begun: Instant,
    scripts: Scripts,
    files: Files,
    processes: Processes,
    seen: Sender<Observation>,
    wake: Wake,
    reports: Sender<Report>,
}

impl Work {
    fn run(mut self, plans: &Receiver<Arc<Vrrp>>) {
        let mut events = Events::with_capacity(8);
        loop {
            let next = self.turn();
            let wait = next.map(|next| next.saturating_sub(self.begun.elapsed()));
            // Interrupted is as good as woken.
            let _ = self.poll.poll(&mut events, wait.map(up_to_millis));
            loop {
                match plans.try_recv() {
                    Ok(vrrp) => self.configure(&vrrp),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
    }

    /// Only what a router or a group tracks is looked at, as in keepalived.
    fn configure(&mut self, vrrp: &Vrrp) {
        let now = self.begun.elapsed();
        let routers = vrrp.routers.iter().flat_map(|router| &router.tracks);
        let groups = vrrp.groups.iter().flat_map(|group| &group.tracks);
        let used: BTreeSet<&Tracked> = routers.chain(groups).map(|track| &track.what).collect();
        let (mut out, mut reports) = (Vec::new(), Vec::new());
        let warnings = ignored(vrrp).into_iter().map(|text| Report::Log { level: Level::Warn, text });
        reports.extend(warnings);
        let scripts = vrrp.scripts.iter().filter(|script| used.contains(&Tracked::Script(script.name.clone())));
        self.scripts.configure(scripts, now, &mut out);
        let files = vrrp.files.iter().filter(|file| used.contains(&Tracked::File(file.name.clone())));
        self.files.configure(files, now, &mut out, &mut reports);
        let processes = vrrp.processes.iter().filter(|process| used.contains(&Tracked::Process(process.name.clone())));
        self.processes.configure(processes, now);
        self.tell(out, reports);
        if let Some(descriptor) = self.files.descriptor().filter(|descriptor| self.polled != Some(*descriptor)) {
            // Where this fails the files are still read every second.
            let registered = self.poll.registry().register(&mut SourceFd(&descriptor), FILES, Interest::READABLE);
            self.polled = registered.is_ok().then_some(descriptor);
        }
    }

    /// Does what is due; returns when something is due next.
    fn turn(&mut self) -> Option<Duration> {
        let now = self.begun.elapsed();
        let (mut out, mut reports) = (Vec::new(), Vec::new());
        self.scripts.turn(now, &mut out, &mut reports);
        self.files.turn(now, &mut out, &mut reports);
        self.processes.turn(now, &mut out, &mut reports);
        self.tell(out, reports);
        [self.scripts.deadline(), self.files.deadline(), self.processes.deadline()].into_iter().flatten().min()
    }

    fn tell(&self, out: Vec<Observation>, reports: Vec<Report>) {
        for report in reports {
            let _ = self.reports.send(report);
        }
        if !out.is_empty() {
            out.into_iter().for_each(|observation| drop(self.seen.send(observation)));
            (self.wake)();
        }
    }
}

/// Rounded up, since epoll counts milliseconds: a deadline is not reached by waking before it again and again.
fn up_to_millis(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}
