//! What AF_XDP needs of the system: the raw calls.
//!
//! Owns every system call of the AF_XDP sockets, as safe functions that return `io::Result`. Never keeps state and
//! never decides what an error means. The constants and layouts are those of `include/uapi/linux/if_xdp.h`.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use libc::{c_int, c_void, socklen_t};

/// Most descriptors that one copy-mode `sendto` moves. Linux 6.17, `XDP_MAX_TX_SKB_BUDGET` in `if_xdp.h`.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sets a socket option whose value is a plain C value.
pub(crate) fn set_option<T: Copy>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as socklen_t;
    // SAFETY: the pointer and the length describe `value`, which lives across the call; the kernel only reads it.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast::<c_void>(), length)
    })?;
    Ok(())
}

/// Plain C values of which all bit patterns, also zero, are valid.
trait Plain: Copy {}
impl Plain for libc::xdp_mmap_offsets {}
impl Plain for libc::xdp_options {}
impl Plain for libc::xdp_statistics {}

fn option<T: Plain>(fd: BorrowedFd<'_>, name: c_int) -> io::Result<T> {
    let mut length = size_of::<T>() as socklen_t;
    // SAFETY: `Plain` types hold integers only, for which zero is a value.
    let mut value: T = unsafe { zeroed() };
    let place = std::ptr::from_mut(&mut value).cast::<c_void>();
    // SAFETY: `place` and `length` describe `value`; the kernel writes at most `length` bytes of integers.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, name, place, &raw mut length) })?;
    Ok(value)
}

/// An AF_XDP socket without rings.
pub(super) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it becomes a descriptor.
    let fd = check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel just gave us this descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A mapping of this process. Unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; `Mapping` gives no access by itself.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(length: usize, flags: c_int, fd: c_int, offset: libc::off_t) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Mapping { start, length })
    }

    /// First byte; page-aligned.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `length` are those of the mapping made in `new`, which nothing uses any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Zeroed private memory, page-aligned, in reserved 2 MiB pages when `huge`.
pub(super) fn map_memory(length: usize, huge: bool) -> io::Result<Mapping> {
    let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    if huge {
        flags |= libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    } else {
        // Populated after `advise_huge`, which must come first.
        flags &= !libc::MAP_POPULATE;
    }
    Mapping::new(length, flags, -1, 0)
}

/// Asks for transparent huge pages and faults the memory in.
pub(super) fn populate(memory: &Mapping, transparent_huge: bool) -> bool {
    let mut huge = false;
    if transparent_huge {
        // SAFETY: the range is a live anonymous mapping; the advice changes no contents.
        huge = unsafe { libc::madvise(memory.start.as_ptr().cast(), memory.length, libc::MADV_HUGEPAGE) } == 0;
    }
    for offset in (0..memory.length).step_by(4096) {
        // SAFETY: inside the mapping, writable, and nobody else uses it yet.
        unsafe { memory.start.add(offset).write_volatile(0) };
    }
    huge
}

/// Maps one ring of a socket (`XDP_PGOFF_*`).
pub(super) fn map_ring(fd: BorrowedFd<'_>, length: usize, offset: u64) -> io::Result<Mapping> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    Mapping::new(length, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
}

/// `XDP_UMEM_REG`: makes the memory the socket's UMEM of aligned chunks. The memory must stay mapped as long as any
/// socket that uses it; `Umem` sees to it.
pub(super) fn register_umem(fd: BorrowedFd<'_>, memory: &Mapping, chunk: u32) -> io::Result<()> {
    // SAFETY: integers only; zero is a value of each.
    let mut umem: libc::xdp_umem_reg = unsafe { zeroed() };
    umem.addr = memory.start.as_ptr() as u64;
    umem.len = memory.length as u64;
    umem.chunk_size = chunk;
    set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &umem)
}

/// Sets the size of a ring: `XDP_RX_RING`, `XDP_TX_RING`, `XDP_UMEM_FILL_RING`, `XDP_UMEM_COMPLETION_RING`.
pub(super) fn set_ring(fd: BorrowedFd<'_>, ring: c_int, entries: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_XDP, ring, &entries)
}

/// Where the parts of the rings lie in their mappings.
pub(super) fn ring_offsets(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    option(fd, libc::XDP_MMAP_OFFSETS)
}

/// Whether the bound socket is zero-copy (`XDP_OPTIONS`).
pub(super) fn is_zero_copy(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let options: libc::xdp_options = option(fd, libc::XDP_OPTIONS)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Drops and errors that the kernel counted on the socket.
pub(super) fn statistics(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_statistics> {
    option(fd, libc::XDP_STATISTICS)
}

/// Binds to a queue of an interface. `shared` is the socket whose UMEM is used too.
pub(super) fn bind(
    fd: BorrowedFd<'_>,
    ifindex: u32,
    queue: u32,
    flags: u16,
    shared: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags | if shared.is_some() { libc::XDP_SHARED_UMEM } else { 0 },
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared.map_or(0, |fd| fd.as_raw_fd().cast_unsigned()),
    };
    let length = size_of::<libc::sockaddr_xdp>() as socklen_t;
    // SAFETY: pointer and length describe `address`, which lives across the call; the kernel only reads it.
    check(unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) })?;
    Ok(())
}

/// Raises the number of descriptors that one copy-mode kick may send (`32..=` ring entries; Linux 6.17).
pub(super) fn set_tx_budget(fd: BorrowedFd<'_>, budget: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget)
}

/// Lets as many bytes be on their way as the rings can hold: copy-mode sends stop with EAGAIN at this limit.
pub(super) fn set_send_buffer(fd: BorrowedFd<'_>, bytes: c_int) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes))
}

/// Preferred busy polling (`Documentation/networking/napi.rst`): the socket's calls drive the driver.
pub(super) fn set_busy_poll(fd: BorrowedFd<'_>, microseconds: c_int, budget: c_int) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1i32)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &microseconds)?;
    set_option(fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget)
}

/// Makes the kernel work on the TX ring. Never blocks.
#[inline]
pub(super) fn kick_tx(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address: the kernel reads no memory of ours.
    let done = unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the kernel work on the fill and RX rings. Never blocks.
#[inline]
pub(super) fn kick_rx(fd: BorrowedFd<'_>) -> io::Result<()> {
    let none = std::ptr::null_mut();
    // SAFETY: a buffer of no bytes and no address: the kernel writes no memory of ours.
    let done = unsafe {
        libc::recvfrom(fd.as_raw_fd(), std::ptr::null_mut(), 0, libc::MSG_DONTWAIT, none, std::ptr::null_mut())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An entry that waits for a descriptor to be readable.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// An entry that waits for nothing: the kernel skips negative descriptors.
pub(crate) const NOTHING: libc::pollfd = libc::pollfd { fd: -1, events: 0, revents: 0 };

/// [`wait_readable`], with one more descriptor in the last place, which is kept for it.
pub(crate) fn wait_for(descriptors: &mut [libc::pollfd], bell: Option<BorrowedFd<'_>>, timeout: Duration) {
    if let Some(last) = descriptors.last_mut() {
        *last = bell.map_or(NOTHING, readable);
    }
    wait_readable(descriptors, timeout);
}

/// `BPF_PROG_TEST_RUN`, as in `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

const BPF_PROG_TEST_RUN: libc::c_long = 10;
/// The frame is real: what the program passes goes into the kernel's receive path (Linux 5.18).
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 2;

/// Runs an XDP program once on a frame, as if it had arrived on an interface's first queue, and lets its verdict come
/// true. The interface is one of the calling thread's network namespace.
pub(super) fn run_live(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let context = XdpMd { data_end: length, ingress_ifindex: ifindex, ..XdpMd::default() };
    let mut run = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_size_in: length,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        ctx_size_in: size_of::<XdpMd>() as u32,
        ctx_in: std::ptr::from_ref(&context) as u64,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: 1,
        ..TestRun::default()
    };
    let attributes = std::ptr::from_mut(&mut run);
    // SAFETY: `run` is the attribute of this command and as long as is said; it names `frame` and `context` with their
    // lengths, which live across the call and are only read. The kernel writes results into `run` alone.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, attributes, size_of::<TestRun>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lowers the priority of the calling thread alone.
pub(super) fn be_nice(nice: c_int) -> io::Result<()> {
    // SAFETY: no pointers. On Linux, 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
    Ok(())
}

/// Sleeps until one of the descriptors is ready, the timeout has passed, or a signal came.
pub(crate) fn wait_readable(descriptors: &mut [libc::pollfd], timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let count = descriptors.len() as libc::nfds_t;
    // SAFETY: pointer and count describe the slice; the timeout lives across the call. Failure (a signal) is a
    // return before the timeout, which callers must expect anyway.
    unsafe { libc::ppoll(descriptors.as_mut_ptr(), count, &raw const timeout, std::ptr::null()) };
}
