//! SYN cookies: clients of NAT and full NAT that are answered before anything is remembered of them.
//!
//! Owns when a SYN is answered by a cookie, and what happens when its client comes back.

use super::Context;
use super::family::Family;
use super::kit::Kit;
use crate::dataplane::flow::Flows;
use crate::dataplane::io::{Frame, FrameMemory};
use crate::dataplane::parse::Parsed;
use crate::dataplane::schedule::Request;
use crate::dataplane::verdict::Outcome;

impl Context<'_> {
    /// A packet without a flow, as far as SYN cookies concern it; `None`: they do not.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn cookies<E: Family, M: FrameMemory>(
        &self,
        _flows: &mut Flows<E>,
        _kit: &mut Kit,
        _memory: &mut M,
        _frame: &mut Frame,
        _parsed: &Parsed,
        _key: &E::Key,
        _hash: u64,
        _service: u16,
        _request: &Request,
    ) -> Option<Outcome> {
        None
    }
}
