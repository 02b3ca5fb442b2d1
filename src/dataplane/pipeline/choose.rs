//! Which server a new flow gets: a persistent client's, else the scheduler's choice.
//!
//! Owns the order of these. Never makes a flow.

use super::Context;
use super::family::Family;
use crate::dataplane::parse::Parsed;
use crate::dataplane::schedule::{Member, Request};
use crate::dataplane::snapshot::ServiceEntry;
use crate::dataplane::verdict::DropReason;

impl Context<'_> {
    /// The server of a new flow, and the flags that the flow gets. `stateless`: the choice must be the same for a client at
    /// any time.
    pub(super) fn choose<'s, E: Family>(
        &self,
        service: &'s ServiceEntry,
        _bytes: &[u8],
        _parsed: &Parsed,
        _key: &E::Key,
        request: &Request,
        stateless: bool,
    ) -> Result<(&'s Member, u8), DropReason> {
        let chosen = if stateless {
            self.choose_stateless(service, request)
        } else {
            let at = service.selector.select(&service.members, &service.state.cursor, request);
            at.and_then(|at| service.members.get(at))
        };
        Ok((chosen.ok_or(DropReason::NoServer)?, 0))
    }

    /// The server that a client gets at any time, by nothing but its address and the servers' own.
    pub(super) fn choose_stateless<'s>(&self, service: &'s ServiceEntry, request: &Request) -> Option<&'s Member> {
        let at = service.stateless.select(&service.members, &service.state.cursor, request)?;
        service.members.get(at)
    }

    /// Takes back what [`Context::choose`] noted for a flow that was not made after all.
    pub(super) fn unchoose<E: Family>(
        &self,
        _service: &ServiceEntry,
        _bytes: &[u8],
        _parsed: &Parsed,
        _key: &E::Key,
        _flags: u8,
    ) {
    }
}
