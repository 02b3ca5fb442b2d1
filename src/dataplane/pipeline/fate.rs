//! Flows whose server does not serve them any more: kept, rescheduled or reset.
//!
//! Owns what their next packet meets. Which of the three it is was decided by the compiler.

use super::Context;
use super::family::Family;
use super::kit::Kit;
use crate::dataplane::flow::{Flows, Place, Stage};
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::Parsed;
use crate::dataplane::verdict::{DropReason, Outcome};
use crate::model::Fate;

impl Context<'_> {
    /// A client's packet of such a flow.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn meet_fate<E: Family, M: FrameMemory>(
        &self,
        fate: Fate,
        flows: &mut Flows<E>,
        kit: &mut Kit,
        place: (Stage, Place),
        memory: &mut M,
        frame: &mut Frame,
        parsed: &Parsed,
        key: &E::Key,
        hash: u64,
    ) -> Outcome {
        match fate {
            Fate::Keep => Outcome::drop(DropReason::NoNextHop),
            Fate::Reschedule | Fate::Reset => self.replace_flow(flows, kit, place, memory, frame, parsed, key, hash),
        }
    }
}
