//! The four rings of an AF_XDP socket: single producer, single consumer, shared with the kernel.
//!
//! Owns the indexes and the memory ordering (`Documentation/networking/af_xdp.rst`, `net/xdp/xsk_queue.h`). Never makes
//! a system call after it was mapped, and never knows what a descriptor means. Indexes run freely over `u32`.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sys::{self, Mapping};

/// What a ring holds: a UMEM address, or a descriptor. Plain integers, written by one side and read by the other.
pub(super) trait Entry: Copy {}
impl Entry for u64 {}
impl Entry for libc::xdp_desc {}

/// The shared parts of a ring.
#[derive(Debug)]
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    mask: u32,
    // The pointers above lead into this mapping, which must live as long.
    _mapping: Mapping,
}

// SAFETY: the pointers lead into a mapping that the ring owns; only one thread uses a ring at a time, because all
// methods that write take `&mut self`.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// Maps a ring whose size, a power of two, was set before.
    fn map(fd: BorrowedFd<'_>, offset: u64, parts: &libc::xdp_ring_offset, size: u32) -> io::Result<Ring<T>> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's ring layout does not make sense");
        let place = |offset: u64| usize::try_from(offset).map_err(|_| bad());
        let (producer, consumer) = (place(parts.producer)?, place(parts.consumer)?);
        let (flags, entries) = (place(parts.flags)?, place(parts.desc)?);
        let length = entries + size as usize * size_of::<T>();
        let aligned = [producer, consumer, flags].iter().all(|at| at % align_of::<AtomicU32>() == 0);
        if !size.is_power_of_two() || !aligned || entries % align_of::<T>() != 0 {
            return Err(bad());
        }
        if [producer, consumer, flags].iter().any(|at| at + size_of::<AtomicU32>() > length) {
            return Err(bad());
        }
        let mapping = sys::map_ring(fd, length, offset)?;
        let start = mapping.start();
        // SAFETY: all four offsets were checked to lie inside the mapping and to be aligned for their types.
        unsafe {
            Ok(Ring {
                producer: start.add(producer).cast(),
                consumer: start.add(consumer).cast(),
                flags: start.add(flags).cast(),
                entries: start.add(entries).cast(),
                mask: size - 1,
                _mapping: mapping,
            })
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: aligned, inside the mapping that `self` owns; both sides access it atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: the mask keeps the index below the ring's size, so the entry lies inside the mapping.
        unsafe { self.entries.add((index & self.mask) as usize) }
    }
}

/// A ring that we fill: the fill ring and the TX ring.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Next entry to write; the kernel sees `submitted`.
    next: u32,
    submitted: u32,
    /// The kernel's index as last read.
    consumed: u32,
}

impl<T: Entry> Producer<T> {
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offset: u64,
        parts: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Producer<T>> {
        let ring = Ring::map(fd, offset, parts, size)?;
        let next = ring.producer().load(Ordering::Relaxed);
        let consumed = ring.consumer().load(Ordering::Acquire);
        Ok(Producer { ring, next, submitted: next, consumed })
    }

    /// Entries that can be written now, reading the kernel's index only when fewer than `wanted` are known to be free.
    #[inline]
    pub(super) fn room(&mut self, wanted: u32) -> u32 {
        let size = self.ring.mask + 1;
        let free = size - self.next.wrapping_sub(self.consumed);
        if free >= wanted {
            return free;
        }
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        // The kernel's index is trusted only as far as the ring goes.
        size.saturating_sub(self.next.wrapping_sub(self.consumed))
    }

    /// Writes one entry; the kernel sees it after [`Producer::submit`]. There must be [`Producer::room`].
    #[inline]
    pub(super) fn push(&mut self, value: T) {
        // SAFETY: `entry` lies in the mapping; the kernel does not read it before the index says so, and has read what
        // was there before, because `room` read its index with acquire ordering.
        unsafe { self.ring.entry(self.next).write(value) };
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the kernel all that was pushed. Returns whether there was anything new.
    #[inline]
    pub(super) fn submit(&mut self) -> bool {
        if self.next == self.submitted {
            return false;
        }
        self.submitted = self.next;
        self.ring.producer().store(self.next, Ordering::Release);
        true
    }

    /// Entries that the kernel has not taken yet, those not submitted included.
    #[inline]
    pub(super) fn waiting(&mut self) -> u32 {
        if self.next == self.consumed {
            return 0;
        }
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(self.consumed)
    }

    /// Whether the kernel has not taken all entries yet, those not submitted included.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.next != self.consumed && self.next != self.ring.consumer().load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// A ring that the kernel fills: the RX ring and the completion ring.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    next: u32,
    /// The kernel's index as last read.
    produced: u32,
}

impl<T: Entry> Consumer<T> {
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offset: u64,
        parts: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Consumer<T>> {
        let ring = Ring::map(fd, offset, parts, size)?;
        let next = ring.consumer().load(Ordering::Relaxed);
        let produced = ring.producer().load(Ordering::Acquire);
        Ok(Consumer { ring, next, produced })
    }

    /// Entries that can be read now, at most `limit`, reading the kernel's index only when fewer are known.
    #[inline]
    pub(super) fn available(&mut self, limit: u32) -> u32 {
        let mut ready = self.produced.wrapping_sub(self.next);
        if ready < limit {
            self.produced = self.ring.producer().load(Ordering::Acquire);
            ready = self.produced.wrapping_sub(self.next);
        }
        // The kernel's index is trusted only as far as the ring goes.
        ready.min(limit).min(self.ring.mask + 1)
    }

    /// Reads the next entry, of those that [`Consumer::available`] announced. The kernel may reuse its place after
    /// [`Consumer::release`].
    #[inline]
    pub(super) fn pop(&mut self) -> T {
        // SAFETY: `entry` lies in the mapping, and the kernel wrote it before the index that `available` read with
        // acquire ordering. Any bit pattern is a value of `Entry` types.
        let value = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        value
    }

    /// Gives the places of all popped entries back to the kernel.
    #[inline]
    pub(super) fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}
