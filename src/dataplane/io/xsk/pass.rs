//! The way back: frames that the filter took and the engine does not want go into the kernel's receive path after all.
//!
//! Owns the one thread that does so and its inbox. Never looks into a frame. A frame is run through the interface's own
//! XDP program as a live frame (`docs/adr/0010-frames-back-to-the-kernel.md`). That costs some microseconds of system
//! call, locks and memory, so no worker does it: workers hand frames over as they do to each other, and when the thread
//! does not keep up they drop them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use super::sys;
use crate::dataplane::handover::Inbox;
use crate::dataplane::io::Frame;
use crate::dataplane::xdp::{HEAD, WayBack};

/// Frames that wait at most, of all workers.
const WAITING: usize = 1024;

/// Priority of the thread: on a core that it shares with a polling worker it gets about a tenth.
const NICE: i32 = 10;

/// Largest frame. The kernel puts it into one page of 4096 bytes, with 256 bytes of headroom, its own notes before and
/// `skb_shared_info` behind.
const LARGEST: usize = 3072;

/// Most heads before a frame.
const HEADS: usize = 2 * HEAD;

/// An interface to whose receive path frames go back.
#[derive(Debug)]
pub struct Target {
    /// Kernel index.
    pub ifindex: u32,
    /// Its filter's program.
    pub way: WayBack,
}

impl Target {
    /// Puts a frame behind its heads into `buffer`, and returns all of it.
    fn wrap<'a>(&self, trial: bool, bytes: &[u8], buffer: &'a mut [u8; HEADS + LARGEST]) -> &'a [u8] {
        let mut at = 0;
        for _ in 0..self.way.heads() {
            buffer[at..at + HEAD].copy_from_slice(&self.way.head(trial));
            at += HEAD;
        }
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        &buffer[..at + bytes.len()]
    }

    fn run(&self, trial: bool, bytes: &[u8], buffer: &mut [u8; HEADS + LARGEST]) -> io::Result<()> {
        let frame = self.wrap(trial, bytes, buffer);
        sys::run_live(self.way.program(), self.ifindex, frame)
    }
}

#[derive(Debug)]
struct Shared {
    inbox: Inbox,
    stop: AtomicBool,
    lost: AtomicU64,
}

/// The thread that gives frames back. Dropping it ends and awaits the thread.
#[derive(Debug)]
pub struct Passer {
    shared: Arc<Shared>,
    ports: usize,
    thread: Option<JoinHandle<()>>,
}

impl Passer {
    /// Tries whether the kernel takes frames back on each interface, then starts the thread in the network namespace of
    /// the calling one. `targets` are indexed by port.
    ///
    /// # Errors
    /// What the kernel says of live frames, or of one more thread or descriptor.
    pub fn start(targets: Vec<Target>) -> io::Result<Passer> {
        let mut buffer = Box::new([0; HEADS + LARGEST]);
        for target in &targets {
            target.run(true, &[0; LARGEST], &mut buffer)?;
        }
        let inbox = Inbox::new(WAITING, LARGEST as u32)?;
        let shared = Arc::new(Shared { inbox, stop: AtomicBool::new(false), lost: AtomicU64::new(0) });
        let (theirs, ports) = (shared.clone(), targets.len());
        let body = move || {
            // Best effort: with the priority of all others it only costs more under a flood.
            let _ = sys::be_nice(NICE);
            serve(&theirs, &targets, &mut buffer);
        };
        let thread = std::thread::Builder::new().name("pass".to_owned()).spawn(body)?;
        Ok(Passer { shared, ports, thread: Some(thread) })
    }

    /// Copies a frame for the thread. `false`: too many wait already, or the frame is too large.
    pub fn give(&self, frame: &Frame, bytes: &[u8]) -> bool {
        usize::from(frame.port) < self.ports && self.shared.inbox.send(frame, bytes)
    }

    /// Frames that the kernel refused after all.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }
}

impl Drop for Passer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.shared.inbox.ring();
        if let Some(thread) = self.thread.take() {
            // A panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Shared, targets: &[Target], buffer: &mut [u8; HEADS + LARGEST]) {
    while !shared.stop.load(Relaxed) {
        let some = shared.inbox.open(|frame, bytes| {
            let Some(target) = targets.get(usize::from(frame.port)) else { return };
            if let Err(error) = target.run(false, bytes, buffer)
                && shared.lost.fetch_add(1, Relaxed) == 0
            {
                tracing::warn!("a frame was lost that was the kernel's (more are counted silently): {error}");
            }
        });
        if !some {
            if let Some(bell) = shared.inbox.lie_down() {
                sys::wait_readable(&mut [sys::readable(bell)], Duration::from_secs(1));
            }
            shared.inbox.get_up();
        }
    }
}
