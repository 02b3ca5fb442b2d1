//! What the election wants done: adverts, announcements, addresses, words.
//!
//! Owns the doing, in the order in which it is wanted. Never asks whether it should be done.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use super::turn::Turn;
use crate::model::{MacAddr, Place, RouterSlot, VirtualRouter};
use crate::vrrp::announce::announcement;
use crate::vrrp::election::{Action, Level};
use crate::vrrp::frame::multicast;
use crate::vrrp::kernel::Job;
use crate::vrrp::notify::{Change, Report};
use crate::vrrp::packet::{Advert, GROUP_V4, GROUP_V6, build};

impl Turn {
    /// Does all that is wanted by now. What changed is in the status before anybody is told of it: who reads in the log that
    /// this appliance is master does not find it backup.
    pub(super) fn act(&mut self) {
        let mut reports = Vec::new();
        let mut changed = false;
        for action in std::mem::take(&mut self.out) {
            match action {
                Action::Advertise { router, advert } => self.advertise(&router, &advert),
                Action::Own { router, slot, owned } => self.own(&router, slot, owned),
                Action::Announce { router, repeat } => self.announce(&router, repeat),
                Action::Changed { name, group, state, priority, .. } => {
                    changed = true;
                    reports.extend(Change::of(state).map(|change| Report::Changed { name, group, change, priority }));
                }
                Action::Log { level, text } => reports.push(Report::Log { level, text }),
            }
        }
        if changed {
            self.publish_at_once();
        } else if !reports.is_empty() {
            self.changed();
        }
        for report in reports {
            let _ = self.reports.send(report);
        }
    }

    fn advertise(&mut self, router: &VirtualRouter, advert: &Advert) {
        let Some(runner) = self.runners.get_mut(&router.name) else { return };
        let Some(Some(source)) = runner.source else { return };
        let id = runner.id;
        // As keepalived, 0 is left out: the kernel would put a number of its own in its place.
        runner.id = runner.id.wrapping_add(1).max(1);
        let Some(entry) = self.ports.get(&router.interface) else { return };
        let send = || -> io::Result<()> {
            let Some(unicast) = &router.unicast else {
                let group = if router.is_v6() { IpAddr::V6(GROUP_V6) } else { IpAddr::V4(GROUP_V4) };
                let message = build(advert, source.address, group);
                let mac = if router.virtual_mac { router.mac() } else { entry.mac };
                let port = entry.port.as_ref().ok_or(io::ErrorKind::NotConnected)?;
                return port.send(&multicast(&message, source.address, group, mac, id));
            };
            let speaker = self.speaker.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            // One peer that cannot be reached must not cost the others their advert.
            let sent = unicast.peers.iter().map(|peer| {
                speaker.send(&build(advert, source.address, *peer), source.address, *peer, entry.index, id)
            });
            sent.fold(Ok(()), Result::and)
        };
        let failed = send().err();
        let news = failed.is_some() != std::mem::replace(&mut runner.mute, failed.is_some());
        match failed {
            Some(error) if news => {
                self.log(
                    Level::Warn,
                    format!("({}) cannot send adverts on {}: {error}", router.name, router.interface),
                );
            }
            None if news => self.log(Level::Info, format!("({}) sends adverts again", router.name)),
            _ => {}
        }
    }

    fn own(&mut self, router: &Arc<VirtualRouter>, slot: RouterSlot, owned: bool) {
        self.slots.set(slot, owned);
        self.changed();
        let index = self.ports.get(&router.interface).map(|entry| entry.index);
        if router.virtual_mac {
            let name = router.name.clone();
            match (owned, index) {
                (true, Some(index)) => self.kernel.ask(Job::Adopt(name, index, router.mac())),
                _ => self.kernel.ask(Job::Disown(name)),
            }
        }
        let in_kernel = router.place == Place::Kernel;
        if in_kernel {
            self.kernel.ask(if owned { Job::Put(Arc::clone(router)) } else { Job::Take(router.name.clone()) });
        }
        if let Some(runner) = self.runners.get_mut(&router.name) {
            runner.owned = owned;
            runner.putting += u32::from(in_kernel && owned);
            if !owned {
                runner.awaiting = None;
            }
        }
    }

    fn announce(&mut self, router: &VirtualRouter, repeat: u8) {
        // Until an address is on, the kernel does not answer for it.
        if let Some(runner) = self.runners.get_mut(&router.name).filter(|runner| runner.putting > 0) {
            runner.awaiting = Some(runner.awaiting.unwrap_or_default().max(repeat));
            return;
        }
        for _ in 0..repeat {
            for address in router.all_addresses() {
                let interface = address.device.as_ref().unwrap_or(&router.interface);
                let Some(entry) = self.ports.get(interface) else { continue };
                let Some(port) = &entry.port else { continue };
                let mac = if router.virtual_mac { router.mac() } else { entry.mac };
                let forwards = router.place == Place::Kernel && entry.forwards;
                if mac != MacAddr::default() {
                    // One that is lost is repeated, or the interface is down and the router with it.
                    let _ = port.send(&announcement(address.address, mac, forwards));
                }
            }
        }
    }

    /// The addresses of a router are on the kernel's interfaces, as far as they can be.
    pub(super) fn announce_put(&mut self, router: &str) {
        let Some(runner) = self.runners.get_mut(router) else { return };
        runner.putting = runner.putting.saturating_sub(1);
        if runner.putting == 0
            && runner.owned
            && let Some(repeat) = runner.awaiting.take()
        {
            let router = Arc::clone(&runner.spec.router);
            self.announce(&router, repeat);
        }
    }
}
