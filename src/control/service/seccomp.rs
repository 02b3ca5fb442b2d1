//! Which system calls the engine and the programs that it starts may make.
//!
//! Owns the list. An ordinary program finds all that it needs in it; what is missing from it, or newer than it, the kernel answers as
//! unknown (`ENOSYS`), for which libraries have another way. Decides nothing about what a permitted call may touch: capabilities do.

use std::collections::BTreeMap;

use libc as c;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Not on this kind of processor.
    #[error("there is no filter for the processor {0}")]
    Processor(&'static str),
    /// The filter could not be made.
    #[error("the filter cannot be made: {0}")]
    Make(#[from] seccompiler::BackendError),
    /// The kernel refuses.
    #[error("the kernel takes no filter: {0}")]
    Refused(#[from] seccompiler::Error),
}

/// Files and folders; mounting is not among them.
const FILES: &[c::c_long] = &[
    c::SYS_chdir,
    c::SYS_close,
    c::SYS_close_range,
    c::SYS_copy_file_range,
    c::SYS_dup,
    c::SYS_dup3,
    c::SYS_faccessat,
    c::SYS_faccessat2,
    c::SYS_fadvise64,
    c::SYS_fallocate,
    c::SYS_fchdir,
    c::SYS_fchmod,
    c::SYS_fchmodat,
    c::SYS_fchmodat2,
    c::SYS_fchown,
    c::SYS_fchownat,
    c::SYS_fcntl,
    c::SYS_fdatasync,
    c::SYS_fgetxattr,
    c::SYS_flistxattr,
    c::SYS_flock,
    c::SYS_fremovexattr,
    c::SYS_fsetxattr,
    c::SYS_fstat,
    c::SYS_fstatfs,
    c::SYS_fsync,
    c::SYS_ftruncate,
    c::SYS_getcwd,
    c::SYS_getdents64,
    c::SYS_getxattr,
    c::SYS_inotify_add_watch,
    c::SYS_inotify_init1,
    c::SYS_inotify_rm_watch,
    c::SYS_ioctl,
    c::SYS_lgetxattr,
    c::SYS_linkat,
    c::SYS_listxattr,
    c::SYS_llistxattr,
    c::SYS_lremovexattr,
    c::SYS_lseek,
    c::SYS_lsetxattr,
    c::SYS_mkdirat,
    c::SYS_mknodat,
    c::SYS_name_to_handle_at,
    c::SYS_newfstatat,
    c::SYS_openat,
    c::SYS_openat2,
    c::SYS_pipe2,
    c::SYS_pread64,
    c::SYS_preadv,
    c::SYS_preadv2,
    c::SYS_pwrite64,
    c::SYS_pwritev,
    c::SYS_pwritev2,
    c::SYS_read,
    c::SYS_readahead,
    c::SYS_readlinkat,
    c::SYS_readv,
    c::SYS_removexattr,
    c::SYS_renameat,
    c::SYS_renameat2,
    c::SYS_sendfile,
    c::SYS_setxattr,
    c::SYS_splice,
    c::SYS_statfs,
    c::SYS_statx,
    c::SYS_symlinkat,
    c::SYS_sync,
    c::SYS_sync_file_range,
    c::SYS_syncfs,
    c::SYS_tee,
    c::SYS_truncate,
    c::SYS_umask,
    c::SYS_unlinkat,
    c::SYS_utimensat,
    c::SYS_vmsplice,
    c::SYS_write,
    c::SYS_writev,
];

/// Sockets, waiting, messages, and the maps of the filter.
const SOCKETS: &[c::c_long] = &[
    c::SYS_accept,
    c::SYS_accept4,
    c::SYS_bind,
    c::SYS_bpf,
    c::SYS_connect,
    c::SYS_epoll_create1,
    c::SYS_epoll_ctl,
    c::SYS_epoll_pwait,
    c::SYS_epoll_pwait2,
    c::SYS_eventfd2,
    c::SYS_getpeername,
    c::SYS_getsockname,
    c::SYS_getsockopt,
    c::SYS_listen,
    c::SYS_mq_getsetattr,
    c::SYS_mq_notify,
    c::SYS_mq_open,
    c::SYS_mq_timedreceive,
    c::SYS_mq_timedsend,
    c::SYS_mq_unlink,
    c::SYS_msgctl,
    c::SYS_msgget,
    c::SYS_msgrcv,
    c::SYS_msgsnd,
    c::SYS_ppoll,
    c::SYS_pselect6,
    c::SYS_recvfrom,
    c::SYS_recvmmsg,
    c::SYS_recvmsg,
    c::SYS_semctl,
    c::SYS_semget,
    c::SYS_semop,
    c::SYS_semtimedop,
    c::SYS_sendmmsg,
    c::SYS_sendmsg,
    c::SYS_sendto,
    c::SYS_setsockopt,
    c::SYS_shmat,
    c::SYS_shmctl,
    c::SYS_shmdt,
    c::SYS_shmget,
    c::SYS_shutdown,
    c::SYS_signalfd4,
    c::SYS_socket,
    c::SYS_socketpair,
];

/// Memory and time; setting the clock is not among them.
const MEMORY_AND_TIME: &[c::c_long] = &[
    c::SYS_brk,
    c::SYS_clock_getres,
    c::SYS_clock_gettime,
    c::SYS_clock_nanosleep,
    c::SYS_get_mempolicy,
    c::SYS_getitimer,
    c::SYS_gettimeofday,
    c::SYS_madvise,
    c::SYS_mbind,
    c::SYS_memfd_create,
    c::SYS_mincore,
    c::SYS_mlock,
    c::SYS_mlock2,
    c::SYS_mlockall,
    c::SYS_mmap,
    c::SYS_mprotect,
    c::SYS_mremap,
    c::SYS_msync,
    c::SYS_munlock,
    c::SYS_munlockall,
    c::SYS_munmap,
    c::SYS_nanosleep,
    c::SYS_set_mempolicy,
    c::SYS_setitimer,
    c::SYS_timer_create,
    c::SYS_timer_delete,
    c::SYS_timer_getoverrun,
    c::SYS_timer_gettime,
    c::SYS_timer_settime,
    c::SYS_timerfd_create,
    c::SYS_timerfd_gettime,
    c::SYS_timerfd_settime,
    c::SYS_times,
];

/// Processes, threads, signals and users; `clone` has a rule of its own.
const PROCESSES: &[c::c_long] = &[
    c::SYS_capget,
    c::SYS_capset,
    c::SYS_execve,
    c::SYS_execveat,
    c::SYS_exit,
    c::SYS_exit_group,
    c::SYS_futex,
    c::SYS_get_robust_list,
    c::SYS_getcpu,
    c::SYS_getegid,
    c::SYS_geteuid,
    c::SYS_getgid,
    c::SYS_getgroups,
    c::SYS_getpgid,
    c::SYS_getpid,
    c::SYS_getppid,
    c::SYS_getpriority,
    c::SYS_getrandom,
    c::SYS_getresgid,
    c::SYS_getresuid,
    c::SYS_getrusage,
    c::SYS_getsid,
    c::SYS_gettid,
    c::SYS_getuid,
    c::SYS_ioprio_get,
    c::SYS_ioprio_set,
    c::SYS_kill,
    c::SYS_landlock_add_rule,
    c::SYS_landlock_create_ruleset,
    c::SYS_landlock_restrict_self,
    c::SYS_membarrier,
    c::SYS_pidfd_open,
    c::SYS_pidfd_send_signal,
    c::SYS_prctl,
    c::SYS_prlimit64,
    c::SYS_restart_syscall,
    c::SYS_rseq,
    c::SYS_rt_sigaction,
    c::SYS_rt_sigpending,
    c::SYS_rt_sigprocmask,
    c::SYS_rt_sigqueueinfo,
    c::SYS_rt_sigreturn,
    c::SYS_rt_sigsuspend,
    c::SYS_rt_sigtimedwait,
    c::SYS_rt_tgsigqueueinfo,
    c::SYS_sched_get_priority_max,
    c::SYS_sched_get_priority_min,
    c::SYS_sched_getaffinity,
    c::SYS_sched_getattr,
    c::SYS_sched_getparam,
    c::SYS_sched_getscheduler,
    c::SYS_sched_rr_get_interval,
    c::SYS_sched_setaffinity,
    c::SYS_sched_setattr,
    c::SYS_sched_setparam,
    c::SYS_sched_setscheduler,
    c::SYS_sched_yield,
    c::SYS_seccomp,
    c::SYS_set_robust_list,
    c::SYS_set_tid_address,
    c::SYS_setfsgid,
    c::SYS_setfsuid,
    c::SYS_setgid,
    c::SYS_setgroups,
    c::SYS_setpgid,
    c::SYS_setpriority,
    c::SYS_setregid,
    c::SYS_setresgid,
    c::SYS_setresuid,
    c::SYS_setreuid,
    c::SYS_setsid,
    c::SYS_setuid,
    c::SYS_sigaltstack,
    c::SYS_sysinfo,
    c::SYS_tgkill,
    c::SYS_tkill,
    c::SYS_uname,
    c::SYS_wait4,
    c::SYS_waitid,
];

/// The older forms of all these, which newer processors do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c::c_long] = &[
    c::SYS_access,
    c::SYS_alarm,
    c::SYS_arch_prctl,
    c::SYS_chmod,
    c::SYS_chown,
    c::SYS_creat,
    c::SYS_dup2,
    c::SYS_epoll_create,
    c::SYS_epoll_wait,
    c::SYS_eventfd,
    c::SYS_fork,
    c::SYS_futimesat,
    c::SYS_getdents,
    c::SYS_getpgrp,
    c::SYS_getrlimit,
    c::SYS_inotify_init,
    c::SYS_lchown,
    c::SYS_link,
    c::SYS_lstat,
    c::SYS_mkdir,
    c::SYS_mknod,
    c::SYS_open,
    c::SYS_pause,
    c::SYS_pipe,
    c::SYS_poll,
    c::SYS_readlink,
    c::SYS_rename,
    c::SYS_rmdir,
    c::SYS_select,
    c::SYS_setrlimit,
    c::SYS_signalfd,
    c::SYS_stat,
    c::SYS_symlink,
    c::SYS_time,
    c::SYS_unlink,
    c::SYS_utime,
    c::SYS_utimes,
    c::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c::c_long] = &[c::SYS_setrlimit, c::SYS_getrlimit];

/// What `clone` may not make: a world of its own, in which a program is root again.
const NAMESPACES: c::c_int = c::CLONE_NEWCGROUP
    | c::CLONE_NEWIPC
    | c::CLONE_NEWNET
    | c::CLONE_NEWNS
    | c::CLONE_NEWPID
    | c::CLONE_NEWUSER
    | c::CLONE_NEWUTS;

fn allowed() -> impl Iterator<Item = c::c_long> {
    [FILES, SOCKETS, MEMORY_AND_TIME, PROCESSES, OLDER].into_iter().flatten().copied()
}

/// The filter as the kernel takes it, and how many calls it allows.
fn program() -> Result<(BpfProgram, usize), FilterError> {
    let processor = std::env::consts::ARCH;
    let arch: TargetArch = processor.try_into().map_err(|_| FilterError::Processor(processor))?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = allowed().map(|call| (call, Vec::new())).collect();
    // `clone3` hides its flags behind a pointer, so that nobody can judge them here: without it the C library uses `clone`.
    let none = SeccompCmpOp::MaskedEq(u64::from(NAMESPACES.cast_unsigned()));
    let plain = SeccompCondition::new(0, SeccompCmpArgLen::Dword, none, 0)?;
    rules.insert(c::SYS_clone, vec![SeccompRule::new(vec![plain])?]);
    let count = rules.len();
    let unknown = SeccompAction::Errno(c::ENOSYS.cast_unsigned());
    let filter = SeccompFilter::new(rules, unknown, SeccompAction::Allow, arch)?;
    Ok((filter.try_into()?, count))
}

/// Filters the calls of the calling thread and of all that it starts from now on. Returns how many calls are allowed.
///
/// # Errors
/// [`FilterError`]; nothing is filtered then.
pub fn install() -> Result<usize, FilterError> {
    let (program, count) = program()?;
    seccompiler::apply_filter(&program)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::errno::Errno;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn dangerous_calls_are_on_no_list() {
        let dangerous = [
            c::SYS_add_key,
            c::SYS_chroot,
            c::SYS_clone3,
            c::SYS_clock_settime,
            c::SYS_delete_module,
            c::SYS_finit_module,
            c::SYS_init_module,
            c::SYS_io_uring_enter,
            c::SYS_io_uring_setup,
            c::SYS_kexec_load,
            c::SYS_keyctl,
            c::SYS_mount,
            c::SYS_move_mount,
            c::SYS_open_by_handle_at,
            c::SYS_perf_event_open,
            c::SYS_pidfd_getfd,
            c::SYS_pivot_root,
            c::SYS_process_vm_readv,
            c::SYS_process_vm_writev,
            c::SYS_ptrace,
            c::SYS_reboot,
            c::SYS_setns,
            c::SYS_settimeofday,
            c::SYS_swapon,
            c::SYS_syslog,
            c::SYS_umount2,
            c::SYS_unshare,
            c::SYS_userfaultfd,
        ];
        for call in allowed() {
            assert!(!dangerous.contains(&call), "{call}");
        }
        let mut all: Vec<_> = allowed().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), allowed().count(), "a call is there twice");
    }

    #[test]
    fn the_kernel_takes_it_and_programs_run_under_it() {
        // Threads of their own: a filter stays for good.
        let confined = std::thread::spawn(|| {
            install().expect("is installed");
            let shell = Command::new("/bin/sh")
                .args(["-c", "echo one | cat && mkdir /tmp/evenkeel-seccomp-$$ && rmdir /tmp/evenkeel-seccomp-$$"])
                .output()
                .expect("a shell runs");
            let namespace = unshare(CloneFlags::CLONE_NEWUSER);
            let thread = std::thread::spawn(|| 7).join().expect("a thread");
            (shell, namespace, thread)
        });
        let (shell, namespace, thread) = confined.join().expect("the thread ends well");
        assert_eq!((shell.status.success(), &shell.stdout[..], thread), (true, &b"one\n"[..], 7), "{shell:?}");
        assert_eq!(namespace, Err(Errno::ENOSYS));
    }
}
