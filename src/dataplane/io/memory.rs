//! Frame I/O in memory: for tests, benches and replay, and the heap of frames that it shares with AF_PACKET.
//!
//! Owns frames in a `Vec`. Never makes a system call, but to sleep until another worker rings.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::xsk::{FrameAccount, HEADROOM, sys};
use super::{Frame, FrameMemory, IoStats, PacketIo, PortIndex};

/// Frame memory on the heap: chunks of one size with [`HEADROOM`] bytes before each frame.
#[derive(Debug)]
pub struct HeapMemory {
    bytes: Vec<u8>,
    frame_size: usize,
    free: Vec<u64>,
    /// Frames in the hands of the worker.
    pub(super) held: u64,
}

impl HeapMemory {
    /// `frames` chunks of `frame_size` bytes, a power of two above [`HEADROOM`].
    pub fn new(frames: u32, frame_size: u32) -> HeapMemory {
        assert!(frame_size.is_power_of_two() && frame_size as usize > HEADROOM, "frame size {frame_size}");
        let free = (0..u64::from(frames)).rev().map(|frame| frame * u64::from(frame_size)).collect();
        HeapMemory {
            bytes: vec![0; frames as usize * frame_size as usize],
            frame_size: frame_size as usize,
            free,
            held: 0,
        }
    }

    /// Bytes that a frame can have.
    pub fn capacity(&self) -> usize {
        self.frame_size - HEADROOM
    }

    /// Chunks in all.
    pub fn frames(&self) -> usize {
        self.bytes.len() / self.frame_size
    }

    /// Free chunks.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a chunk; the frame in it has the full capacity.
    pub(super) fn take(&mut self, port: PortIndex) -> Option<Frame> {
        let chunk = self.free.pop()?;
        Some(Frame { addr: chunk + HEADROOM as u64, len: self.capacity() as u32, port, ..Frame::default() })
    }

    pub(super) fn give(&mut self, addr: u64) {
        debug_assert!(self.free.len() < self.frames(), "a frame was given back twice");
        self.free.push(addr & !(self.frame_size as u64 - 1));
    }

    fn range(&self, frame: &Frame) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(frame.addr).ok()?;
        let inside = start & (self.frame_size - 1);
        let fits = inside + frame.len as usize <= self.frame_size && start < self.bytes.len();
        fits.then(|| start..start + frame.len as usize)
    }
}

impl FrameMemory for HeapMemory {
    #[inline]
    fn bytes(&self, frame: &Frame) -> &[u8] {
        self.range(frame).map_or(&[], |range| &self.bytes[range])
    }

    #[inline]
    fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8] {
        match self.range(frame) {
            Some(range) => &mut self.bytes[range],
            None => &mut [],
        }
    }

    #[inline]
    fn headroom(&self, frame: &Frame) -> usize {
        frame.addr as usize & (self.frame_size - 1)
    }

    fn allocate(&mut self, port: PortIndex, len: u32) -> Option<Frame> {
        if len as usize > self.capacity() {
            return None;
        }
        let frame = self.take(port)?;
        self.held += 1;
        Some(Frame { len, ..frame })
    }

    fn give_back(&mut self, frame: Frame) {
        debug_assert!(self.held > 0, "a frame was given back that the worker did not hold");
        self.held -= 1;
        self.give(frame.addr);
    }
}

/// Frame I/O without a kernel: frames are put in and taken out by the caller.
#[derive(Debug)]
pub struct MemoryIo {
    memory: HeapMemory,
    input: Vec<VecDeque<Frame>>,
    output: Vec<Vec<Vec<u8>>>,
    passed: Vec<Vec<u8>>,
    /// Most frames that each port's output holds before [`PacketIo::transmit`] refuses.
    tx_limit: usize,
    stats: IoStats,
}

impl MemoryIo {
    /// `ports` ports over `frames` chunks of `frame_size` bytes. Outputs are not limited.
    pub fn new(ports: usize, frames: u32, frame_size: u32) -> MemoryIo {
        MemoryIo {
            memory: HeapMemory::new(frames, frame_size),
            input: vec![VecDeque::new(); ports],
            output: vec![Vec::new(); ports],
            passed: Vec::new(),
            tx_limit: usize::MAX,
            stats: IoStats::default(),
        }
    }

    /// Lets each port's output hold at most `frames` frames, as a full ring would.
    pub fn limit_output(&mut self, frames: usize) {
        self.tx_limit = frames;
    }

    /// Lets a frame arrive on a port. `false`: no free chunk, or it does not fit one; counted as a ring drop.
    pub fn inject(&mut self, port: PortIndex, bytes: &[u8]) -> bool {
        let free = if bytes.len() <= self.memory.capacity() { self.memory.take(port) } else { None };
        let Some(mut frame) = free else {
            self.stats.rx_ring_drops += 1;
            return false;
        };
        frame.len = bytes.len() as u32;
        self.memory.bytes_mut(&frame).copy_from_slice(bytes);
        self.input[usize::from(port)].push_back(frame);
        true
    }

    /// Takes all frames that were sent on a port.
    pub fn sent(&mut self, port: PortIndex) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.output[usize::from(port)])
    }

    /// Takes all frames that were passed to the kernel.
    pub fn passed(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.passed)
    }

    /// Where all frames are: `rx` are those injected and not received yet.
    pub fn frames_accounted(&self) -> FrameAccount {
        FrameAccount {
            free: self.memory.free() as u64,
            rx: self.input.iter().map(|queue| queue.len() as u64).sum(),
            held: self.memory.held,
            tx: 0,
            total: self.memory.frames() as u64,
        }
    }
}

impl PacketIo for MemoryIo {
    type Memory = HeapMemory;

    fn memory(&mut self) -> &mut HeapMemory {
        &mut self.memory
    }

    fn receive(&mut self, out: &mut [Frame]) -> usize {
        let mut filled = 0;
        for queue in &mut self.input {
            while filled < out.len() {
                let Some(frame) = queue.pop_front() else { break };
                self.stats.rx_bytes += u64::from(frame.len);
                out[filled] = frame;
                filled += 1;
            }
        }
        self.stats.rx_frames += filled as u64;
        self.memory.held += filled as u64;
        filled
    }

    fn transmit(&mut self, port: PortIndex, frame: Frame) -> bool {
        let Some(output) = self.output.get_mut(usize::from(port)).filter(|output| output.len() < self.tx_limit) else {
            self.stats.tx_full += 1;
            return false;
        };
        output.push(self.memory.bytes(&frame).to_vec());
        self.stats.tx_frames += 1;
        self.stats.tx_bytes += u64::from(frame.len);
        self.release(frame);
        true
    }

    fn pass(&mut self, frame: Frame) -> bool {
        self.passed.push(self.memory.bytes(&frame).to_vec());
        self.stats.passed += 1;
        self.release(frame);
        true
    }

    fn release(&mut self, frame: Frame) {
        self.memory.give_back(frame);
    }

    fn service(&mut self) {
        debug_assert!(self.frames_accounted().balanced(), "{:?}", self.frames_accounted());
    }

    fn wait(&mut self, timeout: Duration, bell: Option<BorrowedFd<'_>>) {
        // No frame arrives by itself here.
        if let Some(bell) = bell {
            sys::wait_readable(&mut [sys::readable(bell)], timeout);
        }
    }

    fn tx_pending(&self) -> bool {
        false
    }

    fn stats(&mut self) -> IoStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_in_and_out_and_none_is_lost() {
        let mut io = MemoryIo::new(2, 4, 2048);
        for number in 0..4u8 {
            assert!(io.inject(number & 1, &[number; 60]));
        }
        assert!(!io.inject(0, &[9; 60]), "no chunk is left");
        let mut frames = [Frame::default(); 8];
        assert_eq!(io.receive(&mut frames), 4);
        assert_eq!(io.frames_accounted().held, 4);
        io.limit_output(1);
        assert!(io.transmit(1, frames[0]));
        assert!(!io.transmit(1, frames[1]));
        assert!(io.pass(frames[1]));
        io.release(frames[2]);
        let pushed = Frame { addr: frames[3].addr - 20, len: frames[3].len + 20, ..frames[3] };
        assert_eq!(io.memory().headroom(&pushed), HEADROOM - 20);
        assert!(io.transmit(0, pushed));
        assert_eq!(io.frames_accounted(), FrameAccount { free: 4, rx: 0, held: 0, tx: 0, total: 4 });
        assert_eq!((io.sent(1), io.passed()), (vec![vec![0; 60]], vec![vec![2; 60]]));
        assert_eq!(io.sent(0)[0].len(), 80);
        assert_eq!((io.stats().tx_full, io.stats().rx_ring_drops), (1, 1));
    }
}
