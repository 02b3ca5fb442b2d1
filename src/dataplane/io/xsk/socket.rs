//! One AF_XDP socket: a queue of an interface, with its four rings and the frames that lie in them.
//!
//! Owns the descriptor, the rings and the numbers of frames in them. Never decides in which mode to bind.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::ring::{Consumer, Producer};
use super::sys;
use super::umem::Umem;
use crate::dataplane::io::{Frame, PortIndex};

/// How long a bind is tried again while the queue is still busy from its last user, whose close takes effect late.
const REBIND: Duration = Duration::from_millis(200);
const REBIND_PAUSE: Duration = Duration::from_millis(5);

/// How a socket is bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bind {
    pub(super) ifindex: u32,
    pub(super) queue: u32,
    /// `XDP_ZEROCOPY` or `XDP_COPY`; not passed by a socket that shares a UMEM, which inherits it.
    pub(super) zero_copy: bool,
    pub(super) need_wakeup: bool,
    /// Entries of the RX, TX and completion rings; the fill ring has twice as many.
    pub(super) ring_size: u32,
    /// Frames that this socket may keep for reception.
    pub(super) frames: u32,
    /// Whether the interface has a transmit queue of this number.
    pub(super) sends: bool,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) port: PortIndex,
    pub(super) queue: u32,
    pub(super) zero_copy: bool,
    pub(super) sends: bool,
    pub(super) tx_budget: Option<u32>,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    /// Frames in the fill and RX rings and in the kernel between the two.
    rx_frames: u32,
    /// Most frames that are to be there.
    rx_target: u32,
    /// Frames in the TX and completion rings and in the kernel between the two.
    tx_frames: u32,
    /// Whether every kick is due, because the ring has no need-wakeup flag.
    always_kick: bool,
    busy_poll: bool,
    /// The kernel could not send at the last kick and nothing but time will change it.
    stalled: bool,
    pub(super) tx_kicks: u64,
    pub(super) rx_wakeups: u64,
    // Last: rings are unmapped before the descriptor is closed.
    fd: OwnedFd,
}

/// What the kernel made of a kick.
enum Kick {
    Done,
    /// More is to do, or the completion ring or the send buffer is full.
    Again,
    /// The interface is down or gone.
    Stalled,
}

impl Socket {
    /// Makes the rings and binds. `leader` is the socket whose UMEM is shared; without one the UMEM is registered.
    pub(super) fn open(port: PortIndex, bind: Bind, umem: &Umem, leader: Option<&Socket>) -> io::Result<Socket> {
        let owned = sys::socket()?;
        let fd = owned.as_fd();
        if leader.is_none() {
            sys::register_umem(fd, umem.memory(), umem.frame_size())?;
        }
        let size = bind.ring_size;
        sys::set_ring(fd, libc::XDP_UMEM_FILL_RING, size * 2)?;
        sys::set_ring(fd, libc::XDP_UMEM_COMPLETION_RING, size)?;
        sys::set_ring(fd, libc::XDP_RX_RING, size)?;
        sys::set_ring(fd, libc::XDP_TX_RING, size)?;
        let parts = sys::ring_offsets(fd)?;
        let fill = Producer::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING, &parts.fr, size * 2)?;
        let completion = Consumer::map(fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING, &parts.cr, size)?;
        let rx = Consumer::map(fd, libc::XDP_PGOFF_RX_RING.cast_unsigned(), &parts.rx, size)?;
        let tx = Producer::map(fd, libc::XDP_PGOFF_TX_RING.cast_unsigned(), &parts.tx, size)?;

        let flags = match leader {
            Some(_) => 0,
            None => {
                let mode = if bind.zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
                mode | if bind.need_wakeup { libc::XDP_USE_NEED_WAKEUP } else { 0 }
            }
        };
        let mut waited = Duration::ZERO;
        loop {
            match sys::bind(fd, bind.ifindex, bind.queue, flags, leader.map(|leader| leader.fd.as_fd())) {
                Ok(()) => break,
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && waited < REBIND => {
                    std::thread::sleep(REBIND_PAUSE);
                    waited += REBIND_PAUSE;
                }
                Err(error) => return Err(error),
            }
        }
        let zero_copy = sys::is_zero_copy(fd)?;
        let tx_budget = if zero_copy { None } else { sys::set_tx_budget(fd, size).ok().map(|()| size) };
        // A frame on its way counts with its sk_buff; 4 KiB covers both.
        let _ = sys::set_send_buffer(fd, i32::try_from(size.saturating_mul(4096)).unwrap_or(i32::MAX));
        Ok(Socket {
            port,
            queue: bind.queue,
            zero_copy,
            sends: bind.sends,
            tx_budget,
            rx,
            tx,
            fill,
            completion,
            rx_frames: 0,
            // The driver's own ring drinks from the fill ring in zero-copy mode; in copy mode more than the RX ring
            // can hold would only spread the frames over more cache.
            rx_target: bind.frames.min(if zero_copy { size * 2 } else { size }),
            tx_frames: 0,
            always_kick: !bind.need_wakeup && !zero_copy,
            busy_poll: false,
            stalled: false,
            tx_kicks: 0,
            rx_wakeups: 0,
            fd: owned,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Turns on preferred busy polling.
    pub(super) fn busy_poll(&mut self, microseconds: i32, budget: i32) -> io::Result<()> {
        sys::set_busy_poll(self.fd.as_fd(), microseconds, budget)?;
        self.busy_poll = true;
        Ok(())
    }

    /// Frames that the kernel has for reception.
    pub(super) fn rx_frames(&self) -> u32 {
        self.rx_frames
    }

    /// Frames that the kernel has for transmission, or that wait to be reaped.
    pub(super) fn tx_frames(&self) -> u32 {
        self.tx_frames
    }

    /// Hands over received frames; returns how many and their bytes.
    #[inline]
    pub(super) fn receive(&mut self, out: &mut [Frame]) -> (usize, u64) {
        let ready = self.rx.available(out.len() as u32) as usize;
        if ready == 0 {
            return (0, 0);
        }
        let mut bytes = 0;
        for frame in &mut out[..ready] {
            let descriptor = self.rx.pop();
            bytes += u64::from(descriptor.len);
            *frame = Frame { addr: descriptor.addr, len: descriptor.len, port: self.port, hops: 0, hint: 0 };
        }
        self.rx.release();
        self.rx_frames -= ready as u32;
        (ready, bytes)
    }

    /// Queues a frame, if the ring has room.
    #[inline]
    pub(super) fn transmit(&mut self, frame: &Frame) -> bool {
        if self.tx.room(1) == 0 {
            return false;
        }
        self.tx.push(libc::xdp_desc { addr: frame.addr, len: frame.len, options: 0 });
        self.tx_frames += 1;
        true
    }

    /// Whether descriptors wait for the kernel and a kick could move them.
    pub(super) fn tx_pending(&self) -> bool {
        !self.stalled && self.tx.is_waiting()
    }

    /// Shows the kernel what was queued and kicks it until it has taken all, as far as it can.
    ///
    /// In copy mode a kick sends at most `tx_budget` or 32 frames and then says EAGAIN; the rest waits for another kick
    /// even when nothing new is queued (`__xsk_generic_xmit` in `net/xdp/xsk.c`).
    #[inline]
    pub(super) fn flush(&mut self, umem: &mut Umem) {
        let fresh = self.tx.submit();
        if self.tx_frames == 0 {
            return;
        }
        if fresh || self.tx.waiting() > 0 {
            self.drive(umem);
        }
    }

    fn drive(&mut self, umem: &mut Umem) {
        self.stalled = false;
        let mut before = self.tx.waiting();
        let mut idle = 0;
        while before > 0 && (self.always_kick || self.busy_poll || self.tx.needs_wakeup()) {
            let outcome = self.kick();
            let after = self.tx.waiting();
            if let Kick::Stalled = outcome {
                self.stalled = true;
                return;
            }
            if self.zero_copy {
                // The driver was woken and goes on by itself.
                return;
            }
            if after == before {
                // No room for completions, or no memory: reap and try once more, then leave it to the next turn.
                idle += 1;
                if idle > 1 || self.reap(umem) == 0 && matches!(outcome, Kick::Again) {
                    return;
                }
            }
            before = after;
        }
    }

    fn kick(&mut self) -> Kick {
        self.tx_kicks += 1;
        match sys::kick_tx(self.fd.as_fd()).map_err(|error| error.raw_os_error()) {
            Ok(()) => Kick::Done,
            // EBUSY: a frame was dropped below us, and completed.
            Err(Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::ENOMEM | libc::EINTR)) => Kick::Again,
            Err(_) => Kick::Stalled,
        }
    }

    /// Takes sent frames back to the free list; returns how many.
    #[inline]
    pub(super) fn reap(&mut self, umem: &mut Umem) -> u32 {
        if self.tx_frames == 0 {
            return 0;
        }
        let done = self.completion.available(self.tx_frames);
        for _ in 0..done {
            umem.give(self.completion.pop());
        }
        if done > 0 {
            self.completion.release();
            self.tx_frames -= done;
        }
        done
    }

    /// Gives free frames to the kernel for reception, in batches, and wakes the driver when it ran dry.
    #[inline]
    pub(super) fn refill(&mut self, umem: &mut Umem, batch: u32) {
        let missing = self.rx_target - self.rx_frames;
        if missing >= batch {
            let count = missing.min(self.fill.room(missing));
            let mut given = 0;
            while given < count {
                let Some(chunk) = umem.take() else { break };
                self.fill.push(chunk);
                given += 1;
            }
            self.rx_frames += given;
            self.fill.submit();
        }
        if self.busy_poll || self.fill.needs_wakeup() {
            self.rx_wakeups += 1;
            // Nothing to do about an error: the frames stay in the ring, and the next turn tries again.
            let _ = sys::kick_rx(self.fd.as_fd());
        }
    }

    /// Frames that the kernel dropped on this socket for want of a fill buffer or of room in the RX ring.
    ///
    /// `rx_fill_ring_empty_descs` is left out: in copy mode it counts the frames of `rx_dropped` again
    /// (`__xsk_map_redirect`, `xp_alloc`), in zero-copy mode a driver's attempts rather than frames.
    pub(super) fn drops(&self) -> u64 {
        // The counters of a live socket cannot fail; a dead one has none.
        sys::statistics(self.fd.as_fd()).map_or(0, |counts| counts.rx_dropped + counts.rx_ring_full)
    }
}
