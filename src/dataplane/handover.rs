//! Hand-over of frames between threads: an inbox for each worker, and one for what goes back to the kernel.
//!
//! Owns the parcels, all made at the start, and the bell that wakes a sleeping receiver. Never looks into a frame and
//! never waits: with no empty parcel left, the sender keeps its frame.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst, fence};

use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::io::{Frame, FrameMemory};

/// Parcels of a worker's inbox.
pub const PARCELS: usize = 1024;

/// A frame on its way, and room for the next one.
#[derive(Debug)]
struct Parcel {
    /// `addr` means nothing here.
    frame: Frame,
    bytes: Box<[u8]>,
}

/// Where one thread finds frames from others, in the order in which each of them sent its own.
#[derive(Debug)]
pub struct Inbox {
    full: ArrayQueue<Parcel>,
    empty: ArrayQueue<Parcel>,
    room: usize,
    /// Whether the receiver sleeps, or is about to.
    asleep: AtomicBool,
    bell: EventFd,
}

impl Inbox {
    /// An inbox of `parcels` parcels, each for a frame of up to `room` bytes.
    ///
    /// # Errors
    /// No descriptor is left for the bell.
    pub fn new(parcels: usize, room: u32) -> std::io::Result<Inbox> {
        let (room, parcels) = (room as usize, parcels.max(1));
        let empty = ArrayQueue::new(parcels);
        for _ in 0..parcels {
            // Written to, so that no packet pays for a page fault.
            let mut bytes = vec![1u8; room].into_boxed_slice();
            bytes.fill(0);
            let _ = empty.push(Parcel { frame: Frame::default(), bytes });
        }
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Inbox { full: ArrayQueue::new(parcels), empty, room, asleep: AtomicBool::new(false), bell })
    }

    /// Copies a frame into the inbox and wakes its owner. `false`: no parcel is empty, or the frame fits none.
    pub fn send(&self, frame: &Frame, bytes: &[u8]) -> bool {
        if bytes.len() > self.room {
            return false;
        }
        let Some(mut parcel) = self.empty.pop() else { return false };
        parcel.frame = Frame { len: bytes.len() as u32, hops: frame.hops.saturating_add(1), ..*frame };
        parcel.bytes[..bytes.len()].copy_from_slice(bytes);
        // There are as many places as parcels.
        let _ = self.full.push(parcel);
        // Either this thread sees that the other is about to sleep, or the other sees the parcel: see `lie_down`.
        fence(SeqCst);
        if self.asleep.load(Relaxed) && self.asleep.swap(false, Relaxed) {
            let _ = self.bell.write(1);
        }
        true
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty()
    }

    /// Moves frames from the inbox into the worker's own memory, into `out` from its start, and returns how many. What
    /// finds no free frame stays where it is. For the owner only.
    pub fn take<M: FrameMemory>(&self, memory: &mut M, out: &mut [Frame]) -> usize {
        let mut count = 0;
        while count < out.len() && !self.full.is_empty() {
            // The length is known only when the parcel is out: take room for any.
            let Some(mut frame) = memory.allocate(0, self.room as u32) else { break };
            let taken = self.open(|parcel, bytes| {
                frame = Frame { addr: frame.addr, ..*parcel };
                memory.bytes_mut(&frame).copy_from_slice(bytes);
            });
            debug_assert!(taken, "nobody else takes from an inbox");
            out[count] = frame;
            count += 1;
        }
        count
    }

    /// Lets `with` have the next frame and its bytes. `false`: there was none. For the owner only.
    pub fn open(&self, with: impl FnOnce(&Frame, &[u8])) -> bool {
        let Some(parcel) = self.full.pop() else { return false };
        with(&parcel.frame, &parcel.bytes[..parcel.frame.len as usize]);
        let _ = self.empty.push(parcel);
        true
    }

    /// To be called before the owner sleeps: what becomes readable when a frame arrives. `None`: one is there, stay
    /// awake. [`Inbox::get_up`] afterwards in any case.
    pub fn lie_down(&self) -> Option<BorrowedFd<'_>> {
        self.asleep.store(true, Relaxed);
        fence(SeqCst);
        self.full.is_empty().then(|| self.bell.as_fd())
    }

    /// To be called when the owner has slept.
    pub fn get_up(&self) {
        if !self.asleep.swap(false, Relaxed) {
            // Somebody rang, or is about to: then the next sleep ends at once, and no harm is done.
            let _ = self.bell.read();
        }
    }

    /// Wakes the owner without a frame, to see that it shall end.
    pub fn ring(&self) {
        let _ = self.bell.write(1);
    }
}

#[cfg(test)]
mod tests;
