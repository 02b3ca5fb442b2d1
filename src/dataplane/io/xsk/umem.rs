//! The frame memory of a worker: one UMEM for all its sockets, and the list of free chunks.
//!
//! Owns the memory and who has which chunk in numbers. Never touches a ring.
//!
//! Chunks are aligned: `frame_size` is a power of two, and the chunk of an address is the address with its low bits
//! cleared. The kernel puts a received frame [`HEADROOM`] bytes into its chunk.

use std::io;

use super::sys::{self, Mapping};
use crate::dataplane::io::{Frame, FrameMemory, PortIndex};
use crate::model::HugePages;

/// `XDP_PACKET_HEADROOM`: bytes before a received frame in its chunk.
pub const HEADROOM: usize = 256;

/// Pages in which frame memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pages {
    /// Reserved 2 MiB pages (`vm.nr_hugepages`).
    Huge,
    /// Transparent huge pages were asked for.
    Transparent,
    /// Normal pages.
    Normal,
}

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Pages::Huge => "reserved huge pages",
            Pages::Transparent => "transparent huge pages",
            Pages::Normal => "normal pages",
        })
    }
}

/// The frame memory of one worker.
#[derive(Debug)]
pub struct Umem {
    memory: Mapping,
    pages: Pages,
    frame_size: u32,
    frames: u32,
    /// First bytes of free chunks. Last in, first out: what was used last is still in the cache.
    free: Vec<u64>,
    /// Frames in the hands of the worker.
    pub(super) held: u32,
}

impl Umem {
    /// Memory for `frames` chunks of `frame_size` bytes, all free.
    ///
    /// # Errors
    /// Out of memory, or no reserved huge pages where `huge` demands them.
    pub(super) fn new(frames: u32, frame_size: u32, huge: HugePages) -> io::Result<Umem> {
        const HUGE: usize = 2 << 20;
        let bytes = frames as usize * frame_size as usize;
        let whole = bytes.next_multiple_of(HUGE);
        let reserved = if huge == HugePages::Never { None } else { Some(sys::map_memory(whole, true)) };
        let (memory, pages) = match reserved {
            Some(Ok(memory)) => (memory, Pages::Huge),
            Some(Err(error)) if huge == HugePages::Always => return Err(error),
            _ => {
                let memory = sys::map_memory(whole, false)?;
                let transparent = sys::populate(&memory, huge != HugePages::Never);
                (memory, if transparent { Pages::Transparent } else { Pages::Normal })
            }
        };
        // The lowest chunk on top.
        let free = (0..u64::from(frames)).rev().map(|frame| frame * u64::from(frame_size)).collect();
        Ok(Umem { memory, pages, frame_size, frames, free, held: 0 })
    }

    pub(super) fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// Pages in which the memory lies.
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Bytes in a chunk.
    pub fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Chunks in all.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Free chunks.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<u64> {
        self.free.pop()
    }

    /// Takes back the chunk in which `addr` lies.
    #[inline]
    pub(super) fn give(&mut self, addr: u64) {
        debug_assert!(addr < u64::from(self.frames) * u64::from(self.frame_size), "no such frame: {addr}");
        debug_assert!(self.free.len() < self.frames as usize, "a frame was given back twice");
        self.free.push(addr & !u64::from(self.frame_size - 1));
    }

    /// Brings the first bytes of a frame close.
    #[inline]
    pub(super) fn prefetch(&self, frame: &Frame) {
        if let Some(first) = self.bytes(frame).first() {
            crate::dataplane::sys::prefetch(first);
        }
    }

    /// Whether a frame has bytes and lies inside one chunk. The kernel skips descriptors for which that is not so and
    /// never completes them.
    #[inline]
    pub(super) fn holds(&self, frame: &Frame) -> bool {
        frame.len > 0 && self.range(frame).is_some()
    }

    /// The range of a frame, when it lies inside one chunk.
    #[inline]
    fn range(&self, frame: &Frame) -> Option<usize> {
        let start = usize::try_from(frame.addr).ok()?;
        let inside = start & (self.frame_size as usize - 1);
        let fits = inside + frame.len as usize <= self.frame_size as usize;
        (fits && start < self.frames as usize * self.frame_size as usize).then_some(start)
    }
}

impl FrameMemory for Umem {
    #[inline]
    fn bytes(&self, frame: &Frame) -> &[u8] {
        let Some(start) = self.range(frame) else { return &[] };
        // SAFETY: the range lies inside the mapping, which lives as long as `self` and was zeroed or written by the
        // kernel, so all bytes have values. The kernel writes only to chunks that are in a fill ring; a frame in the
        // hands of the worker is in none, and only those are asked for (the contract of `PacketIo`).
        unsafe { std::slice::from_raw_parts(self.memory.start().add(start).as_ptr(), frame.len as usize) }
    }

    #[inline]
    fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8] {
        let Some(start) = self.range(frame) else { return &mut [] };
        // SAFETY: as in `bytes`; `&mut self` keeps every other slice of this memory away.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start().add(start).as_ptr(), frame.len as usize) }
    }

    #[inline]
    fn headroom(&self, frame: &Frame) -> usize {
        (frame.addr & u64::from(self.frame_size - 1)) as usize
    }

    fn allocate(&mut self, port: PortIndex, len: u32) -> Option<Frame> {
        if len > self.frame_size - HEADROOM as u32 {
            return None;
        }
        let chunk = self.take()?;
        self.held += 1;
        Some(Frame { addr: chunk + HEADROOM as u64, len, port, ..Frame::default() })
    }

    fn give_back(&mut self, frame: Frame) {
        debug_assert!(self.held > 0, "a frame was given back that the worker did not hold");
        self.held -= 1;
        self.give(frame.addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_outside_the_memory_or_across_chunks_are_empty() {
        let mut umem = Umem::new(4, 2048, HugePages::Never).expect("memory");
        let frame = |addr, len| Frame { addr, len, ..Frame::default() };
        assert_eq!(umem.bytes(&frame(256, 1792)).len(), 1792);
        assert_eq!(umem.bytes(&frame(256, 1793)).len(), 0);
        assert_eq!(umem.bytes(&frame(4 * 2048, 1)).len(), 0);
        assert_eq!(umem.bytes_mut(&frame(u64::MAX, 1)).len(), 0);
        assert_eq!(umem.headroom(&frame(2048 + 256 - 20, 60)), 236);
    }

    #[test]
    fn a_chunk_comes_back_whatever_the_offset() {
        let mut umem = Umem::new(2, 4096, HugePages::Never).expect("memory");
        let first = umem.take().expect("free");
        let second = umem.take().expect("free");
        assert_eq!((first, second, umem.take()), (0, 4096, None));
        umem.give(second + 236);
        assert_eq!(umem.take(), Some(4096));
    }
}
