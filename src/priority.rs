//! How urgently the kernel runs the calling thread: system calls without a safe face.
//!
//! Owns the two calls. Never decides what to ask for: `vrrp` and `health` do.

use nix::errno::Errno;

/// Makes the calling thread run before all ordinary ones (SCHED_FIFO, `priority` 1 to 99). Its children do not inherit it.
pub fn set_realtime(priority: u8) -> Result<(), Errno> {
    let wanted = libc::sched_param { sched_priority: priority.into() };
    // SAFETY: the kernel reads one `sched_param` behind the pointer, which outlives the call; 0 is the calling thread.
    Errno::result(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &wanted) })
        .map(drop)
}

/// Sets the nice value of the calling thread, -20 to 19.
pub fn set_nice(value: i8) -> Result<(), Errno> {
    // SAFETY: the call takes and returns plain numbers; 0 is the calling thread.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value.into()) }).map(drop)
}
