//! The worker threads: started, pinned, watched and ended.
//!
//! Owns the threads and each one's counters. Never looks at a packet; the loop is `dataplane::worker`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::dataplane::director::Director;
use crate::dataplane::directory::{Directory, MAX_WORKERS, Peers};
use crate::dataplane::flow::Seeds;
use crate::dataplane::io::open::WorkerIo;
use crate::dataplane::io::xsk::HEADROOM;
use crate::dataplane::pipeline::Pipeline;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::worker::{self, Pace, Shared};
use crate::model::EngineSettings;

/// Why the workers do not run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No such core, or not for this process.
    #[error(
        "worker {worker} cannot be pinned to core {core}: {source}; choose others in `engine.cores` \
         (`nproc` counts them, from 0)"
    )]
    Pin {
        /// Worker.
        worker: usize,
        /// Core.
        core: usize,
        /// Why not.
        source: io::Error,
    },
    /// No thread.
    #[error("worker {worker} cannot start")]
    Spawn {
        /// Worker.
        worker: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No memory for its flow tables.
    #[error(
        "worker {worker} has no memory for its flow tables: {source}; lower `engine.flows` or `engine.flows_ipv6` \
         (58 and 94 bytes a flow)"
    )]
    Memory {
        /// Worker.
        worker: usize,
        /// Why not.
        source: io::Error,
    },
    /// No inboxes.
    #[error("the workers cannot hand frames over to each other")]
    Inboxes(#[source] io::Error),
    /// It ended before it began, which is a panic: its message is on stderr.
    #[error("worker {worker} died at its start")]
    Died {
        /// Worker.
        worker: usize,
    },
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    /// Its core.
    pub core: usize,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// IPv4 and IPv6 flows that it can hold.
    pub capacity: (u64, u64),
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Whether its thread still runs.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// All workers. Dropping them ends and awaits them.
#[derive(Debug)]
pub struct Workers {
    /// One for each core of the settings.
    pub list: Vec<Worker>,
    /// What they share besides the snapshot.
    pub director: Arc<Director>,
    shared: Arc<Shared>,
}

impl Workers {
    /// Starts a worker for each I/O, and waits until each has its memory and is about to poll.
    ///
    /// # Errors
    /// [`WorkerError`]; workers that had started are ended then.
    pub fn start(ios: Vec<WorkerIo>, settings: &EngineSettings, shared: &Arc<Shared>) -> Result<Workers, WorkerError> {
        // One hash of a flow for all, so that a word in the directory means the same to each.
        let seeds = Seeds::random();
        let director = Arc::new(Director::new(settings, seeds));
        director.templates.prefault();
        let mut workers = Workers { list: Vec::new(), director: director.clone(), shared: shared.clone() };
        let peers = peers(ios.len(), settings);
        for (worker, (io, core)) in ios.into_iter().zip(&settings.cores).enumerate() {
            let stats = Arc::new(WorkerStats::default());
            let (started, start) = crossbeam::channel::bounded(1);
            let (theirs, settings, shared, core) = (stats.clone(), settings.clone(), shared.clone(), *core);
            let (peers, director) = (peers.get(worker).cloned(), director.clone());
            let body = move || {
                // First the core, then the memory: it is touched first by who uses it.
                if let Err(source) = pin(core) {
                    let _ = started.send(Err(WorkerError::Pin { worker, core, source }));
                    return;
                }
                let mut pipeline = match Pipeline::within(director, &settings, seeds, theirs) {
                    Ok(pipeline) => pipeline,
                    Err(source) => {
                        let _ = started.send(Err(WorkerError::Memory { worker, source }));
                        return;
                    }
                };
                pipeline.prefault();
                if let Some(peers) = peers {
                    pipeline.join(peers);
                }
                let (v4, v6) = pipeline.tables();
                let _ = started.send(Ok((v4.capacity() as u64, v6.capacity() as u64)));
                let pace = Pace { polling: settings.polling, idle: Duration::from_micros(u64::from(settings.idle_us)) };
                match io {
                    WorkerIo::Xsk(mut io) => worker::run(&mut *io, &mut pipeline, &shared, worker, pace),
                    WorkerIo::AfPacket(mut io) => worker::run(&mut *io, &mut pipeline, &shared, worker, pace),
                }
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{worker}"))
                .spawn(body)
                .map_err(|source| WorkerError::Spawn { worker, source })?;
            let capacity = start.recv().map_err(|_| WorkerError::Died { worker })??;
            workers.list.push(Worker { core, stats, capacity, thread: Some(thread) });
        }
        Ok(workers)
    }

    /// The oldest snapshot that a worker may still use; the newest there can be where there is no worker.
    pub fn oldest_generation(&self) -> u64 {
        self.list.iter().map(|worker| worker.stats.generation.get()).min().unwrap_or(u64::MAX)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for worker in &mut self.list {
            if let Some(thread) = worker.thread.take() {
                // A panic was printed where it happened.
                let _ = thread.join();
            }
        }
    }
}

/// What the workers will share.
///
/// # Errors
/// [`WorkerError::Inboxes`].
pub fn shared(snapshot: Snapshot, workers: usize, settings: &EngineSettings) -> Result<Shared, WorkerError> {
    Shared::new(snapshot, workers, settings.frame_size - HEADROOM as u32).map_err(WorkerError::Inboxes)
}

/// Each worker's place among the others; nothing where there are no others. The directory has room for every flow of
/// every worker.
fn peers(workers: usize, settings: &EngineSettings) -> Vec<Peers> {
    let count = u8::try_from(workers.min(MAX_WORKERS)).unwrap_or(u8::MAX);
    if count < 2 {
        return Vec::new();
    }
    let settings = [settings.flows, settings.flows_ipv6, settings.unproven, settings.unproven_ipv6];
    let flows: usize = settings.iter().map(|flows| *flows as usize).sum();
    let directory = Arc::new(Directory::new(flows * workers));
    (0..count).map(|me| Peers { me, count, directory: directory.clone() }).collect()
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}
