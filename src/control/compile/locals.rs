//! Slots of the local addresses of full NAT, stable from one snapshot to the next.
//!
//! Owns which address has which slot. Workers keep the free ports of each slot: a slot that gets another address first
//! rests for so long that no flow has a port of the old one. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::CompileError;
use crate::model::Desired;

/// How long a slot rests before another address gets it.
const REST: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Slot {
    address: IpAddr,
    /// Since when it has not been in use.
    free_since: Option<Duration>,
}

/// The slots. There are never more than `engine.local_addresses`.
#[derive(Clone, Debug, Default)]
pub(super) struct Locals(Vec<Slot>);

impl Locals {
    /// Gives each local address of a configuration a slot.
    ///
    /// # Errors
    /// [`CompileError::TooManyLocals`]; nothing changed then.
    pub(super) fn assign(&mut self, desired: &Desired, now: Duration) -> Result<(), CompileError> {
        let mut wanted: Vec<IpAddr> = Vec::new();
        for address in desired.services.iter().flat_map(|service| &service.local_addresses) {
            if !wanted.contains(address) {
                wanted.push(*address);
            }
        }
        let most = desired.engine.local_addresses as usize;
        let mut slots = self.0.clone();
        for slot in &mut slots {
            slot.free_since = match slot.free_since {
                _ if wanted.contains(&slot.address) => None,
                None => Some(now),
                since => since,
            };
        }
        for address in &wanted {
            if slots.iter().any(|slot| slot.address == *address) {
                continue;
            }
            let slot = Slot { address: *address, free_since: None };
            if slots.len() < most {
                slots.push(slot);
                continue;
            }
            let rested = |slot: &&mut Slot| slot.free_since.is_some_and(|since| now.saturating_sub(since) >= REST);
            let longest = slots.iter_mut().filter(rested).min_by_key(|slot| slot.free_since);
            *longest.ok_or(CompileError::TooManyLocals { wanted: wanted.len(), most })? = slot;
        }
        self.0 = slots;
        Ok(())
    }

    /// The slots of a service's addresses, in their order.
    pub(super) fn slots(&self, addresses: &[IpAddr]) -> Arc<[u16]> {
        let find = |address: &IpAddr| {
            let at = self.0.iter().position(|slot| slot.address == *address && slot.free_since.is_none())?;
            u16::try_from(at).ok()
        };
        addresses.iter().filter_map(find).collect()
    }

    /// The addresses by slot, as workers read them.
    pub(super) fn snapshot(&self) -> Vec<Option<IpAddr>> {
        self.0.iter().map(|slot| slot.free_since.is_none().then_some(slot.address)).collect()
    }
}
