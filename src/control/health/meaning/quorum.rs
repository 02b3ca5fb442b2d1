//! Whether enough of a service is left (keepalived: `update_quorum_state` in `check/ipwrapper.c`). Pure.

use crate::model::Quorum;

/// The quorum of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumState {
    /// Whether it is there.
    pub up: bool,
}

impl QuorumState {
    /// At the start: the sum of the usable servers' weights must reach what finds it.
    pub fn first(quorum: &Quorum, sum: u64) -> QuorumState {
        QuorumState { up: sum >= threshold(quorum, false) }
    }

    /// Judges the sum of the usable servers' weights. Whether the state changed.
    pub fn judge(&mut self, quorum: &Quorum, sum: u64) -> bool {
        let up = if self.up { sum > 0 && sum >= threshold(quorum, true) } else { sum >= threshold(quorum, false) };
        std::mem::replace(&mut self.up, up) != up
    }
}

/// The least sum: for a quorum that is there to stay, or for one that was lost to be found. Nothing is never enough.
pub fn threshold(quorum: &Quorum, up: bool) -> u64 {
    let (least, hysteresis) = (u64::from(quorum.least), u64::from(quorum.hysteresis));
    if up { least.saturating_sub(hysteresis) } else { least + hysteresis }.max(1)
}
