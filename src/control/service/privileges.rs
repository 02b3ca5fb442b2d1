//! Which capabilities the engine keeps, and why; the others are given up for good.
//!
//! Owns that list. Never changes who the process is: it stays the user that it was started as.

use std::fmt;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;

/// What is kept where the process has it, and what for.
pub const KEPT: [(Capability, &str); 11] = [
    (Capability::CAP_NET_ADMIN, "XDP programs, addresses, marked sockets, TUN devices"),
    (Capability::CAP_NET_RAW, "AF_XDP, packet and raw sockets"),
    (Capability::CAP_BPF, "maps of the filter"),
    (Capability::CAP_PERFMON, "the filter is loaded; given up then"),
    (Capability::CAP_IPC_LOCK, "memory that the card writes to"),
    (Capability::CAP_SYS_NICE, "VRRP and checks before ordinary work"),
    (Capability::CAP_NET_BIND_SERVICE, "a web port below 1024"),
    (Capability::CAP_CHOWN, "the control socket's group, the owner of a saved file"),
    (Capability::CAP_SETUID, "scripts as their `user`"),
    (Capability::CAP_SETGID, "scripts as their `user`"),
    (Capability::CAP_KILL, "end scripts of another user"),
];

/// Needed only until the filter is loaded.
const EARLY: [Capability; 1] = [Capability::CAP_PERFMON];

/// Why capabilities could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// A set of capabilities could not be read or written.
    #[error("the {set} capabilities cannot be changed: {source}")]
    Set {
        /// Which set.
        set: &'static str,
        /// What the system said.
        source: CapsError,
    },
    /// Programs could still gain what was given up.
    #[error("`no new privileges` cannot be set: {0}")]
    NoNewPrivileges(Errno),
}

/// What the engine has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Names as the kernel writes them, in its order.
    pub capabilities: Vec<String>,
    /// Whether programs that it starts could gain more.
    pub bounded: bool,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> =
            self.capabilities.iter().map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
        let names = if words.is_empty() { "no capability".to_owned() } else { words.join(", ") };
        write!(f, "kept {names}; nothing else can be had again, by scripts neither")?;
        if !self.bounded {
            write!(f, " (the bounding set stays as it is: that takes CAP_SETPCAP)")?;
        }
        Ok(())
    }
}

fn kept() -> impl Iterator<Item = Capability> {
    KEPT.into_iter().map(|(capability, _)| capability)
}

fn set(name: &'static str, set: CapSet, wanted: &CapsHashSet) -> Result<(), PrivilegeError> {
    caps::set(None, set, wanted).map_err(|source| PrivilegeError::Set { set: name, source })
}

fn has(name: &'static str, set: CapSet) -> Result<CapsHashSet, PrivilegeError> {
    caps::read(None, set).map_err(|source| PrivilegeError::Set { set: name, source })
}

/// Gives up all but [`KEPT`], for the calling thread and what it starts.
///
/// # Errors
/// [`PrivilegeError`]: the first step that failed; later ones were not tried.
pub fn reduce() -> Result<Kept, PrivilegeError> {
    prctl::set_no_new_privs().map_err(PrivilegeError::NoNewPrivileges)?;
    let wanted: CapsHashSet = kept().collect();
    let permitted = has("permitted", CapSet::Permitted)?;
    let bounded = permitted.contains(&Capability::CAP_SETPCAP);
    if bounded {
        let all = has("bounding", CapSet::Bounding)?;
        for capability in all.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability)
                .map_err(|source| PrivilegeError::Set { set: "bounding", source })?;
        }
    }
    keep_only(&wanted)?;
    let mut left: Vec<Capability> = permitted.intersection(&wanted).copied().collect();
    left.sort_by_key(Capability::index);
    Ok(Kept { capabilities: left.iter().map(Capability::to_string).collect(), bounded })
}

/// Gives up what only loading the filter needed, for the calling thread and what it starts from now on.
///
/// # Errors
/// As for [`reduce`].
pub fn reduce_after_opening() -> Result<(), PrivilegeError> {
    let wanted: CapsHashSet = kept().filter(|capability| !EARLY.contains(capability)).collect();
    keep_only(&wanted)
}

/// What is not wanted leaves every set of the calling thread. Ambient capabilities go with the inheritable ones.
fn keep_only(wanted: &CapsHashSet) -> Result<(), PrivilegeError> {
    let narrowed = |name, set| Ok(has(name, set)?.intersection(wanted).copied().collect::<CapsHashSet>());
    // No set may be larger than the permitted one.
    set("inheritable", CapSet::Inheritable, &narrowed("inheritable", CapSet::Inheritable)?)?;
    set("effective", CapSet::Effective, &narrowed("effective", CapSet::Effective)?)?;
    set("permitted", CapSet::Permitted, &narrowed("permitted", CapSet::Permitted)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_over_a_machine_is_not_kept() {
        use Capability::*;
        let kept: Vec<Capability> = kept().collect();
        for capability in
            [CAP_SYS_ADMIN, CAP_SYS_MODULE, CAP_SYS_PTRACE, CAP_SYS_RAWIO, CAP_DAC_OVERRIDE, CAP_SETPCAP, CAP_MKNOD]
        {
            assert!(!kept.contains(&capability), "{capability}");
        }
        assert!(EARLY.iter().all(|early| kept.contains(early)));
    }

    #[test]
    fn a_thread_gives_up_and_cannot_take_back() {
        // A thread of its own: what it gives up is gone for it alone.
        let kept = std::thread::spawn(|| {
            let kept = reduce().expect("is given up");
            reduce_after_opening().expect("is given up");
            for set in [CapSet::Permitted, CapSet::Effective] {
                let left = caps::read(None, set).expect("is read");
                assert!(left.iter().all(|one| super::kept().any(|kept| kept == *one)), "{left:?}");
                assert!(!left.contains(&Capability::CAP_PERFMON));
            }
            assert_eq!(prctl::get_no_new_privs(), Ok(true));
            let again = caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN);
            assert!(again.is_err());
            kept
        });
        let kept = kept.join().expect("the thread ends well");
        let said = kept.to_string();
        assert!(!said.contains("sys_admin") && said.contains("by scripts neither"), "{said}");
    }

    #[test]
    fn every_capability_says_what_for() {
        assert!(KEPT.iter().all(|(_, why)| why.len() > 10));
    }
}
