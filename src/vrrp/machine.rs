//! One virtual router: its state and its timers (RFC 9568, section 6.4). Pure.

/// State of a virtual router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Not all is known yet that it waits for: its source address, its first [`super::Condition`].
    #[default]
    Init,
    /// Another router is master, or nobody is yet.
    Backup,
    /// This appliance has the addresses.
    Master,
    /// It may not be master: its interface or something tracked has failed.
    Fault,
    /// Told to stop.
    Stop,
}

impl State {
    /// keepalived's word for it, as notify scripts and the FIFO get it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Init => "INIT",
            State::Backup => "BACKUP",
            State::Master => "MASTER",
            State::Fault => "FAULT",
            State::Stop => "STOP",
        }
    }
}
