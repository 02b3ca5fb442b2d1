//! Which addresses the appliance answers for, and whether it does so now.
//!
//! Owns the table of addresses with the virtual router of each. An address without one is always answered for; one of a virtual
//! router only while this appliance is its master, which [`Mastery`] tells from one batch to the next. Never answers anything
//! itself. Pure, but for the bits that VRRP sets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{MacAddr, Masters, Mastery, RouterSlot};

/// How an address is answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its virtual router.
    pub slot: RouterSlot,
    /// The virtual MAC behind which it is; `None`: the interface's.
    pub mac: Option<MacAddr>,
    /// Whether echo is answered (VRRP's accept mode).
    pub echo: bool,
}

impl Owner {
    /// Of an address that belongs to no virtual router.
    pub const ALWAYS: Owner = Owner { slot: RouterSlot::ALWAYS, mac: None, echo: true };
}

/// The owned addresses.
#[derive(Clone, Debug, Default)]
pub struct Ownership {
    owners: HashMap<IpAddr, Owner, foldhash::fast::RandomState>,
    /// The routers that have any.
    routers: Vec<RouterSlot>,
    mastery: Arc<Mastery>,
}

impl Ownership {
    /// Of no address yet.
    pub fn new(mastery: Arc<Mastery>) -> Ownership {
        Ownership { mastery, ..Ownership::default() }
    }

    /// Adds an address, unless it is there already.
    pub fn add(&mut self, address: IpAddr, owner: Owner) {
        self.owners.entry(address).or_insert(owner);
        if owner.slot != RouterSlot::ALWAYS && !self.routers.contains(&owner.slot) {
            self.routers.push(owner.slot);
        }
    }

    /// How an address is answered for now; `None`: it is not.
    pub fn owner(&self, address: IpAddr) -> Option<&Owner> {
        self.owners.get(&address).filter(|owner| self.serves(owner.slot))
    }

    /// How an address is answered for while this appliance is master.
    pub fn known(&self, address: IpAddr) -> Option<&Owner> {
        self.owners.get(&address)
    }

    /// Whether an address is another appliance's now: it belongs to a virtual router of which this one is not master.
    pub fn is_anothers(&self, address: IpAddr) -> bool {
        self.owners.get(&address).is_some_and(|owner| !self.serves(owner.slot))
    }

    fn serves(&self, slot: RouterSlot) -> bool {
        slot == RouterSlot::ALWAYS || self.mastery.has(slot)
    }

    /// Grows when this appliance becomes master of a router, or ceases to be.
    #[inline(always)]
    pub fn changes(&self) -> u64 {
        self.mastery.changes()
    }

    /// Whether any address is another appliance's now.
    pub fn is_partial(&self) -> bool {
        let masters: Masters = self.mastery.masters();
        self.routers.iter().any(|slot| !masters.has(*slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_answered_for_by_their_master_only() {
        let mastery = Arc::new(Mastery::default());
        let slot = RouterSlot::new(3).unwrap();
        let (own, shared, nobodys) = ([1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]))).into();
        let mut ownership = Ownership::new(mastery.clone());
        ownership.add(own, Owner::ALWAYS);
        ownership.add(shared, Owner { slot, mac: None, echo: false });
        // A service of the address adds nothing.
        ownership.add(shared, Owner::ALWAYS);
        for master in [false, true, false] {
            let before = ownership.changes();
            mastery.set(slot, master);
            assert!(ownership.changes() > before);
            assert_eq!(ownership.is_partial(), !master);
            assert_eq!(ownership.owner(shared).is_some(), master);
            assert_eq!(ownership.is_anothers(shared), !master);
            assert!(ownership.owner(own).is_some() && !ownership.is_anothers(own));
            assert!(ownership.owner(nobodys).is_none() && !ownership.is_anothers(nobodys));
        }
        assert_eq!(ownership.known(shared).map(|owner| owner.echo), Some(false));
    }
}
