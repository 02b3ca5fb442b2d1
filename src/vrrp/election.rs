//! All virtual routers of the appliance: which advert is whose, and what follows.
//!
//! Owns the routers' machines and groups. Never sends, logs or reads a clock: it returns [`Action`]s. Time is a [`Duration`]
//! since any fixed moment, and never goes back. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::evidence::{Evidence, Notes};
use super::group::Group;
use super::machine::{Heard, Machine, State, same_router};
use super::packet::{self, Advert, Envelope, PASSWORD, Refusal};
use super::status::{GroupStatus, RouterStatus};
use crate::model::{MacAddr, RouterSlot, SyncGroup, VirtualRouter, VrrpVersion};

/// A configured router and its bit in [`crate::model::Mastery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The router.
    pub router: Arc<VirtualRouter>,
    /// Its bit.
    pub slot: RouterSlot,
}

/// Where a router's adverts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Source address of the adverts.
    pub address: IpAddr,
    /// The interface's Ethernet address.
    pub mac: MacAddr,
}

/// What tracking says of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Added to the configured priority; the result is 1 to 254, and an owner's stays 255.
    pub adjust: i32,
    /// The first reason for which it may not be master, in words.
    pub fault: Option<String>,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A change that is no problem.
    Info,
    /// A problem that does not keep the router from its work.
    Warn,
    /// A problem that does.
    Error,
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an advert: to the group, or to each of the router's peers.
    Advertise {
        /// Whose.
        router: Arc<VirtualRouter>,
        /// What it says.
        advert: Advert,
    },
    /// Serve a router's addresses, or stop to. `owned` again while they are served: the addresses have changed, and those
    /// that are gone go off.
    Own {
        /// Whose addresses.
        router: Arc<VirtualRouter>,
        /// Its bit.
        slot: RouterSlot,
        /// Whether they are served from now on.
        owned: bool,
    },
    /// Tell the segment where a router's addresses are: a gratuitous ARP or unsolicited NA for each, `repeat` times.
    Announce {
        /// Whose addresses.
        router: Arc<VirtualRouter>,
        /// How often each.
        repeat: u8,
    },
    /// Tell notify scripts and the FIFO.
    Changed {
        /// Name of the router or group.
        name: String,
        /// Whether it is a group.
        group: bool,
        /// What it is now.
        state: State,
        /// Its priority; 0 for a group, as keepalived has it.
        priority: u8,
        /// Why, in words.
        why: String,
    },
    /// Write a log line.
    Log {
        /// How much it matters.
        level: Level,
        /// The line.
        text: String,
    },
}

/// The routers of this appliance.
#[derive(Debug, Default)]
pub struct Election {
    machines: Vec<Machine>,
    evidence: Vec<Evidence>,
    groups: Vec<Group>,
    /// Routers that the configuration has no more, while their addresses are handed over.
    leaving: Vec<Machine>,
    handover: Duration,
    stopping: bool,
    refused: BTreeMap<Refusal, u64>,
    strangers: Notes,
}

impl Election {
    /// Without routers.
    pub fn new() -> Election {
        Election::default()
    }

    /// Takes a configuration. Routers are told by name: those that did not change are not touched, new ones begin, those
    /// that are gone stop, and those of which something changed that others or the kernel see otherwise (interface, number,
    /// version, family, place, source, virtual MAC, kind of peers, bit) stop and begin anew. `handover`: how long a master
    /// that stops goes on to serve without a successor, at most. After [`Election::stop`] a configuration changes nothing.
    pub fn configure(
        &mut self,
        specs: &[Spec],
        groups: &[SyncGroup],
        handover: Duration,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        if self.stopping {
            return;
        }
        self.handover = handover;
        let was: Vec<_> = self.groups.iter().map(|group| names(group, &self.machines)).collect();
        let mut old: Vec<Option<(Machine, Evidence)>> =
            std::mem::take(&mut self.machines).into_iter().zip(std::mem::take(&mut self.evidence)).map(Some).collect();
        // The gone ones first: their addresses may be another router's now.
        for entry in &mut old {
            let gone = |(machine, _): &(Machine, Evidence)| {
                !specs.iter().any(|spec| spec.router.name == machine.router().name)
            };
            if let Some((mut machine, _)) = entry.take_if(|entry| gone(entry)) {
                machine.stop(handover, now, out);
                self.leaving.push(machine);
            }
        }
        for spec in specs {
            let known = old
                .iter_mut()
                .find(|entry| entry.as_ref().is_some_and(|(machine, _)| machine.router().name == spec.router.name));
            let (machine, evidence) = match known.and_then(Option::take) {
                Some((machine, evidence)) if machine.spec() == spec => (machine, evidence),
                Some((mut machine, evidence)) if same_router(machine.spec(), spec) => {
                    machine.reconfigure(spec.clone(), now, out);
                    (machine, evidence)
                }
                Some((mut machine, _)) => {
                    let anew = machine.begin_anew(spec.clone(), now);
                    machine.stop(Duration::ZERO, now, out);
                    (anew, Evidence::default())
                }
                None => (Machine::new(spec.clone(), now), Evidence::default()),
            };
            self.machines.push(machine);
            self.evidence.push(evidence);
        }
        let taken = |machine: &Machine| {
            specs.iter().any(|spec| spec.slot == machine.spec().slot || spec.router.name == machine.router().name)
        };
        for machine in self.leaving.iter_mut().filter(|machine| taken(machine)) {
            machine.release(out);
        }
        self.leaving.retain(Machine::owns);
        self.regroup(groups, &was, now, out);
    }

    /// `was`: the groups until now, by the names of their routers.
    fn regroup(
        &mut self,
        groups: &[SyncGroup],
        was: &[(Option<String>, Vec<String>)],
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let old = std::mem::take(&mut self.groups);
        let place = |name: &String| self.machines.iter().position(|machine| machine.router().name == *name);
        for group in groups {
            let members: Vec<usize> = group.routers.iter().filter_map(place).collect();
            let known = old.iter().find(|known| known.name.as_ref() == Some(&group.name));
            let state = known.map(|known| known.state).unwrap_or_default();
            self.groups.push(Group { name: Some(group.name.clone()), members, state });
        }
        for member in 0..self.machines.len() {
            if !self.groups.iter().any(|group| group.members.contains(&member)) {
                let state = self.machines[member].state();
                self.groups.push(Group { name: None, members: vec![member], state });
            }
        }
        for group in &mut self.groups {
            if !was.contains(&names(group, &self.machines)) {
                group.gather(&mut self.machines, now, out);
            }
            group.settle(&mut self.machines, now, out);
        }
    }

    /// Says where a router's adverts come from; `None`: its interface has no address, and it is in fault. A router waits in
    /// [`State::Init`] for the first word; one that a configuration moved to another interface or family waits anew.
    pub fn source(&mut self, router: &str, source: Option<Source>, now: Duration, out: &mut Vec<Action>) {
        if let Some(index) = self.place(router) {
            self.machines[index].set_source(source);
            self.settle(index, now, out);
        }
    }

    /// Says what tracking makes of a router. It waits in [`State::Init`] for the first word.
    pub fn condition(&mut self, router: &str, condition: Condition, now: Duration, out: &mut Vec<Action>) {
        if let Some(index) = self.place(router) {
            self.machines[index].set_condition(condition, out);
            self.settle(index, now, out);
        }
    }

    /// Takes a message that came in on an interface, cut to the length that its IP header gives.
    pub fn receive(
        &mut self,
        interface: &str,
        envelope: &Envelope,
        message: &[u8],
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let v6 = envelope.source.is_ipv6();
        let index = message.get(1).and_then(|vrid| self.find(interface, *vrid, v6));
        let advert = match packet::parse(envelope, message) {
            Ok(advert) => advert,
            Err(refusal) => return self.refuse(index, interface, envelope, refusal, None, now, out),
        };
        let Some(index) = index.or_else(|| self.find_leaving(interface, advert.vrid, v6)) else {
            let other = self.find(interface, advert.vrid, !v6).is_some();
            let refusal = if other { Refusal::Family } else { Refusal::UnknownVrid };
            return self.refuse(None, interface, envelope, refusal, Some(&advert), now, out);
        };
        let Some(machine) = self.machines.get_mut(index) else {
            // A router that is leaving: all that matters is whether a successor has spoken up.
            let machine = &mut self.leaving[index - self.machines.len()];
            if check(machine, envelope, &advert).is_ok() {
                machine.advert(envelope, &advert, now, out);
                self.leaving.retain(Machine::owns);
            }
            return;
        };
        if let Err(refusal) = check(machine, envelope, &advert) {
            return self.refuse(Some(index), interface, envelope, refusal, Some(&advert), now, out);
        }
        let heard = machine.advert(envelope, &advert, now, out);
        if heard == Heard::Yielded {
            let why = machine.last_change().1.to_owned();
            if let Some(group) = self.groups.iter_mut().find(|group| group.members.contains(&index)) {
                group.give_way(&why, &mut self.machines, now, out);
            }
        }
        self.evidence[index].heard(&self.machines[index], envelope, &advert, heard, now, out);
    }

    #[expect(clippy::too_many_arguments, reason = "one place where an advert is refused")]
    fn refuse(
        &mut self,
        index: Option<usize>,
        interface: &str,
        from: &Envelope,
        refusal: Refusal,
        advert: Option<&Advert>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        if let Some(index) = index {
            return self.evidence[index].refused(&self.machines[index], from, refusal, advert, now, out);
        }
        *self.refused.entry(refusal).or_default() += 1;
        // Other people's routers on the segment are none of our business; what is broken is.
        if matches!(refusal, Refusal::UnknownVrid | Refusal::Family) {
            return;
        }
        let text = || {
            let (name, meaning) = (refusal.name(), refusal.meaning().trim());
            format!("{interface}: refused an advert ({name}) from {} ({}): {meaning}", from.source, from.mac)
        };
        if let Some(text) = self.strangers.see(refusal.name(), from.source, (from.mac, 0), text, now) {
            out.push(Action::Log { level: Level::Warn, text });
        }
    }

    /// When [`Election::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.machines.iter().chain(&self.leaving).filter_map(Machine::deadline).min()
    }

    /// Does what is due. Give it all that has come in before: after a pause, the adverts that wait in the sockets say that
    /// the master is well.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        for index in 0..self.machines.len() {
            if self.machines[index].tick(now, out) {
                let group = self.groups.iter_mut().find(|group| group.members.contains(&index));
                if let Some(group) = group {
                    group.promote_if_all_want("Receive advertisement timeout", &mut self.machines, now, out);
                }
            }
        }
        for machine in &mut self.leaving {
            machine.tick(now, out);
        }
        self.leaving.retain(Machine::owns);
    }

    /// Tells every router to stop: priority 0 at once. A master in the engine serves on until its successor speaks up.
    pub fn stop(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.stopping = true;
        for machine in &mut self.machines {
            if machine.state() != State::Stop {
                machine.stop(self.handover, now, out);
            }
        }
        for group in &mut self.groups {
            group.stop(out);
        }
    }

    /// Whether all routers have stopped, and their addresses are handed over or given up.
    pub fn is_stopped(&self) -> bool {
        self.stopping && !self.machines.iter().chain(&self.leaving).any(Machine::owns)
    }

    /// Says that a frame (ARP, NA) of somebody else claimed an address. It matters where a router of that interface serves
    /// it; the interface's own MAC and the router's virtual one are ours.
    pub fn claimed(&mut self, interface: &str, address: IpAddr, mac: MacAddr, now: Duration, out: &mut Vec<Action>) {
        for (machine, evidence) in self.machines.iter().zip(&mut self.evidence) {
            let router = machine.router();
            let ours = machine.source().is_some_and(|source| source.mac == mac) || router.mac() == mac;
            if machine.state() == State::Master
                && router.interface == interface
                && !ours
                && router.all_addresses().any(|one| one.address == address)
            {
                evidence.claimed(machine, address, mac, now, out);
            }
        }
    }

    /// How the routers are.
    pub fn status(&self, now: Duration) -> Vec<RouterStatus> {
        let of = |(index, (machine, evidence)): (usize, (&Machine, &Evidence))| {
            let group = self.groups.iter().find(|group| group.members.contains(&index));
            RouterStatus::of(machine, evidence, group.and_then(|group| group.name.clone()), now)
        };
        self.machines.iter().zip(&self.evidence).enumerate().map(of).collect()
    }

    /// How the groups are.
    pub fn groups(&self) -> Vec<GroupStatus> {
        let named = self.groups.iter().filter_map(|group| group.name.clone().map(|name| (name, group)));
        let routers =
            |group: &Group| group.members.iter().map(|member| self.machines[*member].router().name.clone()).collect();
        named
            .map(|(name, group)| GroupStatus { name, state: group.state.name().to_owned(), routers: routers(group) })
            .collect()
    }

    /// Adverts that were refused before a router of ours was known, by reason. Only those that happened.
    pub fn refused(&self) -> BTreeMap<String, u64> {
        self.refused.iter().map(|(refusal, count)| (refusal.name().to_owned(), *count)).collect()
    }

    /// Adverts that were taken, and changes to master, of all routers together.
    pub fn totals(&self) -> (u64, u64) {
        let taken = self.evidence.iter().map(|evidence| evidence.received().0).sum();
        (taken, self.machines.iter().map(|machine| machine.counts().0).sum())
    }

    fn place(&self, router: &str) -> Option<usize> {
        self.machines.iter().position(|machine| machine.router().name == router)
    }

    fn find(&self, interface: &str, vrid: u8, v6: bool) -> Option<usize> {
        self.machines.iter().position(|machine| is_for(machine, interface, vrid, v6))
    }

    /// As [`Election::find`] among those that are leaving, counted on from the others.
    fn find_leaving(&self, interface: &str, vrid: u8, v6: bool) -> Option<usize> {
        let at = self.leaving.iter().position(|machine| is_for(machine, interface, vrid, v6));
        at.map(|at| self.machines.len() + at)
    }

    fn settle(&mut self, index: usize, now: Duration, out: &mut Vec<Action>) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.members.contains(&index)) {
            group.settle(&mut self.machines, now, out);
        }
    }
}

fn names(group: &Group, machines: &[Machine]) -> (Option<String>, Vec<String>) {
    let routers = group.members.iter().map(|member| machines[*member].router().name.clone());
    (group.name.clone(), routers.collect())
}

fn is_for(machine: &Machine, interface: &str, vrid: u8, v6: bool) -> bool {
    let router = machine.router();
    router.vrid == vrid && router.is_v6() == v6 && router.interface == interface
}

/// Compares an advert with the router that it is for.
fn check(machine: &Machine, envelope: &Envelope, advert: &Advert) -> Result<(), Refusal> {
    let router = machine.router();
    if advert.version != router.version {
        return Err(Refusal::Version);
    }
    if let Some(source) = machine.source().filter(|source| source.address == envelope.source) {
        let ours = envelope.mac == source.mac || envelope.mac == router.mac();
        return Err(if ours { Refusal::OwnSource } else { Refusal::SameSource });
    }
    match &router.unicast {
        Some(_) if envelope.is_multicast() => return Err(Refusal::Destination),
        None if !envelope.is_multicast() => return Err(Refusal::Destination),
        Some(unicast) => {
            if !unicast.peers.contains(&envelope.source) {
                return Err(Refusal::NotAPeer);
            }
            if unicast.ttl.is_some_and(|(least, most)| !(least..=most).contains(&envelope.ttl)) {
                return Err(Refusal::Ttl);
            }
        }
        None => {}
    }
    if router.version == VrrpVersion::V2 {
        if (advert.auth_type == PASSWORD) != router.password.is_some() {
            return Err(Refusal::AuthType);
        }
        if advert.password != router.password {
            return Err(Refusal::Password);
        }
        if advert.interval != router.interval {
            return Err(Refusal::Interval);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
