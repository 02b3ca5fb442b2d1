//! AF_XDP frame I/O: a worker's sockets on all its queues, over one shared UMEM.
//!
//! Owns the sockets, the frame memory and the turn of the rings. Never looks into a frame and never loads a program:
//! the filter is in [`crate::dataplane::xdp`].
//!
//! All sockets of a worker share one UMEM (`XDP_SHARED_UMEM`, each with its own fill and completion ring), so a frame
//! goes from one interface to another without a copy. The kernel makes all of them zero-copy or none
//! (`xp_assign_dev_shared` in `net/xdp/xsk_buff_pool.c`).

pub(crate) mod ioctl;
pub mod packet;
pub mod pass;
mod report;
mod ring;
mod socket;
pub mod sys;
mod umem;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::{BATCH, Frame, FrameMemory, IoStats, PacketIo, PortIndex};
use crate::dataplane::xdp::XdpAttach;
use crate::model::{EngineSettings, IoMode};
pub use pass::Passer;
pub use report::{FrameAccount, OpenError, OpenReport, Refusal, SocketReport};
use socket::{Bind, Socket};
pub use umem::{HEADROOM, Pages, Umem};

/// Ports that a worker can have; the port index is a byte.
const MAX_PORTS: usize = 256;

/// The queues of one interface that a worker takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBinding {
    /// The engine's index of the interface.
    pub port: PortIndex,
    /// Kernel name, for messages.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// Receive queues of this worker, at least one: the first is also the one that it sends on.
    pub queues: Vec<u32>,
    /// Where the interface's XDP program runs; zero-copy needs [`XdpAttach::Native`].
    pub attach: XdpAttach,
    /// Transmit queues of the interface. A socket on a queue beyond them sends nothing, without an error.
    pub tx_queues: u32,
}

/// AF_XDP sockets of one worker.
#[derive(Debug)]
pub struct XskIo {
    // Before the memory: sockets close first.
    sockets: Vec<Socket>,
    umem: Umem,
    /// Sockets of each port that can send, as a range of `sockets`, which is sorted by port.
    ports: Vec<(u16, u16)>,
    poll: Vec<libc::pollfd>,
    next: usize,
    stats: IoStats,
    passer: Option<Arc<Passer>>,
}

impl XskIo {
    /// Opens sockets for all queues of a worker in the best mode that the settings and the interfaces allow.
    ///
    /// # Errors
    /// [`OpenError`]; nothing stays open then.
    pub fn open(
        worker: usize,
        bindings: &[PortBinding],
        settings: &EngineSettings,
    ) -> Result<(XskIo, OpenReport), OpenError> {
        let bad = |reason: String| OpenError::Settings { worker, reason };
        let sockets: usize = bindings.iter().map(|binding| binding.queues.len()).sum();
        if let Some(binding) = bindings.iter().find(|binding| binding.queues.is_empty()) {
            return Err(bad(format!("no queue of {}: it could not send there", binding.name)));
        }
        if sockets == 0 || sockets > usize::from(u16::MAX) {
            return Err(bad(format!("{sockets} queues")));
        }
        for binding in bindings {
            if binding.queues.iter().all(|&queue| queue >= binding.tx_queues) {
                return Err(bad(format!(
                    "{}: none of its receive queues {:?} is also a transmit queue (it has {}), so it could not send \
                     there; give it as many transmit as receive queues (`ethtool -L`)",
                    binding.name, binding.queues, binding.tx_queues
                )));
            }
        }
        if !settings.ring_size.is_power_of_two() || settings.ring_size < 64 || settings.ring_size > 1 << 16 {
            return Err(bad(format!("ring_size {} is not a power of two from 64 to 65536", settings.ring_size)));
        }
        if ![2048, 4096].contains(&settings.frame_size) {
            return Err(bad(format!("frame_size {} is neither 2048 nor 4096", settings.frame_size)));
        }
        let frames = u32::try_from(sockets).ok().and_then(|sockets| settings.frames.checked_mul(sockets));
        let Some(frames) = frames.filter(|_| settings.frames >= settings.ring_size) else {
            return Err(bad(format!(
                "frames {} for each of {sockets} queues: at least ring_size ({}), and less than 2^32 in all",
                settings.frames, settings.ring_size
            )));
        };

        raise_memlock();
        let mut refused = Vec::new();
        for zero_copy in [true, false] {
            if let Err(refusal) = allowed(zero_copy, bindings, &settings.modes) {
                refused.extend(refusal);
                continue;
            }
            let umem = Umem::new(frames, settings.frame_size, settings.huge_pages).map_err(|source| {
                let bytes = u64::from(frames) * u64::from(settings.frame_size);
                let huge = settings.huge_pages == crate::model::HugePages::Always;
                OpenError::Memory { worker, bytes, huge, source }
            })?;
            match bind_all(bindings, settings, zero_copy, &umem) {
                Ok(sockets) => return Ok(XskIo::assemble(worker, bindings, settings, sockets, umem, refused)),
                Err(reason) => {
                    let mode = if zero_copy { IoMode::ZeroCopy } else { copy_mode(bindings) };
                    refused.push(Refusal { mode, reason });
                }
            }
        }
        Err(OpenError::NoMode { worker, refused })
    }

    fn assemble(
        worker: usize,
        bindings: &[PortBinding],
        settings: &EngineSettings,
        mut sockets: Vec<Socket>,
        mut umem: Umem,
        refused: Vec<Refusal>,
    ) -> (XskIo, OpenReport) {
        let mut busy_poll = None;
        if settings.busy_poll {
            let failed = sockets.iter_mut().find_map(|socket| socket.busy_poll(20, 64).err());
            busy_poll = Some(failed.map(|error| error.to_string()));
        }
        for socket in &mut sockets {
            socket.refill(&mut umem, 1);
        }
        let mut ports = vec![(0u16, 0u16); MAX_PORTS];
        for (index, socket) in (0u16..).zip(&sockets).filter(|(_, socket)| socket.sends) {
            let range = &mut ports[usize::from(socket.port)];
            if range.0 == range.1 {
                *range = (index, index);
            }
            range.1 = index + 1;
        }
        let report = OpenReport {
            worker,
            sockets: sockets
                .iter()
                .map(|socket| {
                    let binding = bindings.iter().find(|binding| binding.port == socket.port);
                    let generic = binding.is_some_and(|binding| binding.attach == XdpAttach::Generic);
                    SocketReport {
                        port: socket.port,
                        interface: binding.map(|binding| binding.name.clone()).unwrap_or_default(),
                        queue: socket.queue,
                        mode: match (socket.zero_copy, generic) {
                            (true, _) => IoMode::ZeroCopy,
                            (false, false) => IoMode::Copy,
                            (false, true) => IoMode::Generic,
                        },
                        tx_budget: socket.tx_budget,
                    }
                })
                .collect(),
            refused,
            pages: umem.pages(),
            frames: umem.frames(),
            max_frame: umem.frame_size() - HEADROOM as u32,
            busy_poll,
        };
        let poll = sockets.iter().map(|socket| sys::readable(socket.fd())).chain([sys::NOTHING]).collect();
        (XskIo { sockets, umem, ports, poll, next: 0, stats: IoStats::default(), passer: None }, report)
    }

    /// The sockets, to be registered in the filters: port, queue, descriptor.
    pub fn sockets(&self) -> impl Iterator<Item = (PortIndex, u32, BorrowedFd<'_>)> {
        self.sockets.iter().map(|socket| (socket.port, socket.queue, socket.fd()))
    }

    /// Lets frames that are not ours go back to the kernel; else [`PacketIo::pass`] drops them.
    pub fn set_passer(&mut self, passer: Arc<Passer>) {
        self.passer = Some(passer);
    }

    /// Takes a frame off the free list, for what the worker sends on its own. It lies behind [`HEADROOM`] bytes.
    pub fn allocate(&mut self, port: PortIndex, len: u32) -> Option<Frame> {
        self.umem.allocate(port, len)
    }

    /// Where all frames are.
    pub fn frames_accounted(&self) -> FrameAccount {
        FrameAccount {
            free: self.umem.free() as u64,
            rx: self.sockets.iter().map(|socket| u64::from(socket.rx_frames())).sum(),
            held: u64::from(self.umem.held),
            tx: self.sockets.iter().map(|socket| u64::from(socket.tx_frames())).sum(),
            total: u64::from(self.umem.frames()),
        }
    }
}

/// Workers take their I/O into their own threads.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<XskIo>();
};

/// Whether zero-copy, or copying, can be tried at all; else why not.
fn allowed(zero_copy: bool, bindings: &[PortBinding], modes: &[IoMode]) -> Result<(), Option<Refusal>> {
    let generic = bindings.iter().find(|binding| binding.attach == XdpAttach::Generic);
    if zero_copy {
        return match generic {
            _ if !modes.contains(&IoMode::ZeroCopy) => Err(None),
            Some(binding) => {
                let reason = format!("{} runs its XDP program in generic mode", binding.name);
                Err(Some(Refusal { mode: IoMode::ZeroCopy, reason }))
            }
            None => Ok(()),
        };
    }
    let native = bindings.iter().any(|binding| binding.attach == XdpAttach::Native);
    if generic.is_some() && !modes.contains(&IoMode::Generic) {
        let reason = "not allowed by the settings (`modes`)".to_owned();
        return Err(Some(Refusal { mode: IoMode::Generic, reason }));
    }
    if native && !modes.contains(&IoMode::Copy) {
        let reason = "not allowed by the settings (`modes`)".to_owned();
        return Err(Some(Refusal { mode: IoMode::Copy, reason }));
    }
    Ok(())
}

fn copy_mode(bindings: &[PortBinding]) -> IoMode {
    let generic = bindings.iter().all(|binding| binding.attach == XdpAttach::Generic);
    if generic { IoMode::Generic } else { IoMode::Copy }
}

/// Binds every queue, the first as the owner of the UMEM. Queues that can send come first within their port.
fn bind_all(
    bindings: &[PortBinding],
    settings: &EngineSettings,
    zero_copy: bool,
    umem: &Umem,
) -> Result<Vec<Socket>, String> {
    let mut order: Vec<&PortBinding> = bindings.iter().collect();
    order.sort_by_key(|binding| binding.port);
    let mut sockets: Vec<Socket> = Vec::new();
    for binding in order {
        let mut queues = binding.queues.clone();
        queues.sort_by_key(|&queue| queue >= binding.tx_queues);
        for queue in queues {
            let bind = Bind {
                ifindex: binding.ifindex,
                queue,
                zero_copy,
                need_wakeup: settings.need_wakeup,
                ring_size: settings.ring_size,
                frames: settings.frames,
                sends: queue < binding.tx_queues,
            };
            let socket = Socket::open(binding.port, bind, umem, sockets.first())
                .map_err(|error| format!("{} queue {queue}: {}", binding.name, explain(&error, zero_copy)))?;
            if zero_copy && !socket.zero_copy {
                return Err(format!("{} queue {queue}: the kernel bound it in copy mode", binding.name));
            }
            sockets.push(socket);
        }
    }
    Ok(sockets)
}

/// An error of opening a socket, with what it means for the operator.
fn explain(error: &io::Error, zero_copy: bool) -> String {
    let meaning = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) if zero_copy => "the driver has no AF_XDP zero-copy",
        Some(libc::EOPNOTSUPP) => "not supported by the driver",
        Some(libc::EBUSY) => "another program has an AF_XDP socket on this queue",
        Some(libc::EINVAL) => "the queue does not exist, or the driver refuses these settings",
        Some(libc::ENOBUFS | libc::ENOMEM) => "no memory to pin (RLIMIT_MEMLOCK, CAP_IPC_LOCK)",
        Some(libc::EPERM | libc::EACCES) => "needs root or CAP_NET_RAW and CAP_NET_ADMIN",
        Some(libc::EAFNOSUPPORT) => "the kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
        Some(libc::ENETDOWN) => "the interface is down",
        Some(libc::ENODEV) => "the interface is gone",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}

/// Kernels before 5.11 count pinned memory against a limit. Best effort: what it forbids, the next call reports.
fn raise_memlock() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

impl PacketIo for XskIo {
    type Memory = Umem;

    #[inline]
    fn memory(&mut self) -> &mut Umem {
        &mut self.umem
    }

    #[inline]
    fn receive(&mut self, out: &mut [Frame]) -> usize {
        let count = self.sockets.len();
        let mut filled = 0;
        for _ in 0..count {
            // Each call begins with another socket, so a full batch from one does not starve the rest.
            let socket = &mut self.sockets[self.next];
            self.next = if self.next + 1 == count { 0 } else { self.next + 1 };
            let (frames, bytes) = socket.receive(&mut out[filled..]);
            filled += frames;
            self.stats.rx_bytes += bytes;
            if filled == out.len() {
                break;
            }
        }
        // The headers come from another core's cache or from memory: ask for all of them before anyone needs one.
        for frame in &out[..filled] {
            self.umem.prefetch(frame);
        }
        self.stats.rx_frames += filled as u64;
        self.umem.held += filled as u32;
        filled
    }

    #[inline]
    fn transmit(&mut self, port: PortIndex, frame: Frame) -> bool {
        if !self.umem.holds(&frame) {
            self.stats.tx_full += 1;
            return false;
        }
        let (first, last) = self.ports[usize::from(port)];
        let sockets = &mut self.sockets[usize::from(first)..usize::from(last)];
        let mut sent = sockets.iter_mut().any(|socket| socket.transmit(&frame));
        if !sent {
            // All rings full: make the kernel take some, then try once more.
            for socket in sockets {
                socket.flush(&mut self.umem);
                socket.reap(&mut self.umem);
                if socket.transmit(&frame) {
                    sent = true;
                    break;
                }
            }
        }
        if sent {
            debug_assert!(self.umem.held > 0, "a frame was sent that the worker did not hold");
            self.umem.held -= 1;
            self.stats.tx_frames += 1;
            self.stats.tx_bytes += u64::from(frame.len);
        } else {
            self.stats.tx_full += 1;
        }
        sent
    }

    #[inline]
    fn pass(&mut self, frame: Frame) -> bool {
        // An AF_XDP socket has no way back into the kernel's receive path, but the filter's program has.
        let given = self.passer.as_ref().is_some_and(|passer| passer.give(&frame, self.umem.bytes(&frame)));
        self.stats.passed += u64::from(given);
        self.release(frame);
        given
    }

    #[inline]
    fn release(&mut self, frame: Frame) {
        self.umem.give_back(frame);
    }

    #[inline]
    fn service(&mut self) {
        for socket in &mut self.sockets {
            socket.flush(&mut self.umem);
            socket.reap(&mut self.umem);
        }
        for socket in &mut self.sockets {
            socket.refill(&mut self.umem, BATCH as u32);
        }
        debug_assert!(self.frames_accounted().balanced(), "{:?}", self.frames_accounted());
    }

    fn wait(&mut self, timeout: Duration, bell: Option<BorrowedFd<'_>>) {
        self.stats.rx_wakeups += 1;
        sys::wait_for(&mut self.poll, bell, timeout);
    }

    fn tx_pending(&self) -> bool {
        self.sockets.iter().any(Socket::tx_pending)
    }

    fn stats(&mut self) -> IoStats {
        let mut stats = self.stats;
        for socket in &self.sockets {
            stats.tx_kicks += socket.tx_kicks;
            stats.rx_wakeups += socket.rx_wakeups;
            stats.rx_ring_drops += socket.drops();
        }
        stats
    }
}
