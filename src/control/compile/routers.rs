//! Numbers of virtual routers among the bits of [`Mastery`], and the addresses that go with them.
//!
//! Owns which router has which number from one snapshot to the next. Never says who is master. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::dataplane::ownership::{Owner, Ownership};
use crate::model::{Desired, MOST_ROUTERS, Mastery, Place, RouterSlot};

/// The numbers that are given out.
#[derive(Debug, Default)]
pub struct Routers {
    /// The bits.
    pub mastery: Arc<Mastery>,
    slots: HashMap<String, RouterSlot>,
    /// The number given out last: one that comes free rests as long as possible, while workers may know it yet.
    last: usize,
}

impl Routers {
    /// Takes over a configuration: routers that stay keep their number.
    pub fn assign(&mut self, desired: &Desired) {
        let routers = &desired.vrrp.routers;
        self.slots.retain(|name, _| routers.iter().any(|router| router.name == *name));
        for router in routers {
            if self.slots.contains_key(&router.name) {
                continue;
            }
            let numbers = (self.last..self.last + MOST_ROUTERS).map(|number| number % MOST_ROUTERS + 1);
            let free = |slot: &RouterSlot| !self.slots.values().any(|taken| taken == slot);
            if let Some(slot) = numbers.filter_map(RouterSlot::new).find(free) {
                self.last = slot.number();
                self.slots.insert(router.name.clone(), slot);
            }
        }
    }

    /// The number of a router of the configuration that was assigned last.
    pub fn slot(&self, router: &str) -> Option<RouterSlot> {
        self.slots.get(router).copied()
    }

    /// The addresses of the routers in the engine, those that are owned without a service, and the local addresses of
    /// services, which go with the service's address.
    pub fn ownership(&self, desired: &Desired) -> Ownership {
        let mut ownership = Ownership::new(self.mastery.clone());
        for router in &desired.vrrp.routers {
            let Some(slot) = self.slot(&router.name) else { continue };
            // What is on an interface of the kernel is the kernel's to answer for, but a service there is served by the
            // master only, too.
            let of_service = |address| desired.services.iter().any(|service| service.key.address == address);
            let owner = Owner { slot, mac: router.virtual_mac.then(|| router.mac()), echo: router.accept };
            for known in router.all_addresses().map(|known| known.address) {
                if router.place == Place::Engine || of_service(known) {
                    ownership.add(known, owner);
                }
            }
        }
        for service in desired.services.iter().filter(|service| !service.local_addresses.is_empty()) {
            if let Some(owner) = ownership.known(service.key.address).copied() {
                service.local_addresses.iter().for_each(|local| ownership.add(*local, owner));
            }
        }
        desired.addresses.iter().for_each(|address| ownership.add(*address, Owner::ALWAYS));
        ownership
    }
}
