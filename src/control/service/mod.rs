//! The engine as a service: what it tells systemd, and what it gives up before it meets the network.
//!
//! Owns the order of both. [`notify`] speaks with systemd, [`privileges`] and [`seccomp`] take away. Never decides about packets, and does
//! nothing of systemd's where there is none.

pub mod notify;
pub mod privileges;
pub mod seccomp;

use nix::sys::resource::{Resource, setrlimit};
use tracing::{info, warn};

/// Gives up what the engine will not need, for this thread and all that it starts, programs included. To be called before there
/// is another thread. What cannot be given up is logged, and no reason not to forward.
pub fn confine() {
    // Older kernels count the filter's maps here, and raising it takes a capability that goes. Where it fails, the kernel says so when
    // there is too little.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    match privileges::reduce() {
        Ok(kept) => info!("privileges: {kept}"),
        Err(error) => warn!("privileges: {error}; the engine runs on with what it has"),
    }
    match seccomp::install() {
        Ok(count) => info!(
            "system calls: {count} are allowed, to this program and to scripts that it starts; all others are refused, namespaces and \
             foreign processes among them"
        ),
        Err(error) => warn!("system calls: {error}; the engine runs on without that filter"),
    }
}

/// Says that nothing was given up.
pub fn warn_unconfined() {
    warn!(
        "--no-sandbox: all capabilities are kept and all system calls are allowed, to this program and to scripts that it starts; \
         leave it out as soon as what needs it is known"
    );
}
