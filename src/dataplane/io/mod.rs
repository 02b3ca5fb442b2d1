//! Frame I/O: what a worker needs of a set of interfaces, whatever moves the frames.
//!
//! Owns the contract between the worker loop and the rings. Never looks into a frame's headers.
//!
//! A frame is always in exactly one place: the kernel (fill or TX ring), the free list, or the hands of the worker.
//! [`PacketIo::receive`] hands frames to the worker; the worker gives each one back with exactly one of
//! [`PacketIo::transmit`] (accepted), [`PacketIo::pass`] or [`PacketIo::release`].
//!
//! - [`open`]: from the settings to running I/O, in the best mode allowed, and what start-up can say about it.
//! - [`xsk`]: AF_XDP. [`af_packet`]: the fallback. [`memory`]: without a kernel, for tests, benches and replay.
//! - [`facts`]: what start-up must know about an interface.

use std::os::fd::BorrowedFd;

pub mod af_packet;
pub mod facts;
pub mod memory;
pub mod open;
pub mod xsk;

/// Index of an interface in the config's list: the engine's name for a port.
pub type PortIndex = u8;

/// Most frames in one batch.
pub const BATCH: usize = 64;

/// One received frame in the hands of the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Offset of the first byte of the Ethernet header in the frame memory. Moving it down by at most the headroom
    /// pushes a header.
    pub addr: u64,
    /// Bytes of the frame, from the Ethernet header to the end, without FCS.
    pub len: u32,
    /// Interface on which it arrived.
    pub port: PortIndex,
    /// How often workers handed it on to each other.
    pub hops: u8,
    /// Ports of a fragment that has none itself, source then destination, as they lie in its first fragment; else 0.
    pub hint: u32,
}

/// The memory in which frames lie.
pub trait FrameMemory {
    /// The bytes of a frame. An address outside the memory gives an empty slice.
    fn bytes(&self, frame: &Frame) -> &[u8];
    /// The bytes of a frame, to change in place. An address outside the memory gives an empty slice.
    fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8];
    /// Bytes free before the frame in its own chunk.
    fn headroom(&self, frame: &Frame) -> usize;
    /// Takes a free chunk for a frame of `len` bytes that the worker makes itself; it lies behind the usual headroom.
    /// `None`: no chunk is free, or the frame does not fit one. The frame is in the hands of the worker then.
    fn allocate(&mut self, port: PortIndex, len: u32) -> Option<Frame>;
    /// Takes back a frame of [`FrameMemory::allocate`] that nothing was made of; the last one first.
    fn give_back(&mut self, frame: Frame);
}

/// Counters that an I/O backend keeps, all since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct IoStats {
    /// Frames handed to the worker.
    pub rx_frames: u64,
    /// Bytes of those frames.
    pub rx_bytes: u64,
    /// Frames accepted for transmission.
    pub tx_frames: u64,
    /// Bytes of those frames.
    pub tx_bytes: u64,
    /// Frames refused because a TX ring stayed full.
    pub tx_full: u64,
    /// Frames handed back to the kernel's stack, where the backend can.
    pub passed: u64,
    /// System calls made to start transmission.
    pub tx_kicks: u64,
    /// System calls made to wake reception or to sleep.
    pub rx_wakeups: u64,
    /// Frames that the kernel dropped because no RX descriptor or fill buffer was free.
    pub rx_ring_drops: u64,
}

/// A worker's view of its queues on every interface.
pub trait PacketIo {
    /// The memory in which its frames lie.
    type Memory: FrameMemory;

    /// The frame memory.
    fn memory(&mut self) -> &mut Self::Memory;

    /// Fills `out` from the start with received frames, fairly over the queues, and returns how many. Never blocks.
    fn receive(&mut self, out: &mut [Frame]) -> usize;

    /// Queues a frame for transmission on a port. `false`: the ring is full even after a kick, the worker still
    /// has the frame and must release it (and count the drop).
    fn transmit(&mut self, port: PortIndex, frame: Frame) -> bool;

    /// Gives a frame to the kernel's own stack, where the backend can and keeps up; else the frame is released. Returns
    /// whether the kernel gets it (an AF_PACKET backend's frame is a copy, so the kernel always has it).
    fn pass(&mut self, frame: Frame) -> bool;

    /// Takes a frame back to the free list.
    fn release(&mut self, frame: Frame);

    /// One turn of housekeeping: kicks transmission where descriptors wait, reaps completions, refills the fill
    /// rings. Called once per loop, also when idle.
    fn service(&mut self);

    /// Sleeps until a frame can be received, `bell` is readable, or the timeout has passed.
    fn wait(&mut self, timeout: std::time::Duration, bell: Option<BorrowedFd<'_>>);

    /// Whether frames still wait for the kernel to send them (the worker must not sleep then).
    fn tx_pending(&self) -> bool;

    /// Counters since start. Costs a system call for each queue: call it about once a second, not once per loop.
    fn stats(&mut self) -> IoStats;
}
