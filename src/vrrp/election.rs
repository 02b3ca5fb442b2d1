//! All virtual routers of the appliance: which advert is whose, and what follows.
//!
//! Owns the routers' machines and groups. Never sends, logs or reads a clock: it returns [`Action`]s. Time is a [`Duration`]
//! since any fixed moment, and never goes back. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::machine::State;
use super::packet::{Advert, Envelope};
use super::status::{GroupStatus, RouterStatus};
use crate::model::{MacAddr, RouterSlot, SyncGroup, VirtualRouter};

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
    specs: Vec<Spec>,
    stopped: bool,
}

impl Election {
    /// Without routers.
    pub fn new() -> Election {
        Election::default()
    }

    /// Takes a configuration. Routers are told by name: those that did not change are not touched, new ones begin, those
    /// that are gone stop. `handover`: how long a master that stops goes on to serve without a successor, at most.
    pub fn configure(
        &mut self,
        specs: &[Spec],
        _groups: &[SyncGroup],
        _handover: Duration,
        _now: Duration,
        _out: &mut Vec<Action>,
    ) {
        self.specs = specs.to_vec();
    }

    /// Says where a router's adverts come from; `None`: its interface has no address, and it is in fault. A router waits in
    /// [`State::Init`] for the first word.
    pub fn source(&mut self, _router: &str, _source: Option<Source>, _now: Duration, _out: &mut Vec<Action>) {}

    /// Says what tracking makes of a router. It waits in [`State::Init`] for the first word.
    pub fn condition(&mut self, _router: &str, _condition: Condition, _now: Duration, _out: &mut Vec<Action>) {}

    /// Takes a message that came in on an interface, and was not sent by this appliance.
    pub fn receive(
        &mut self,
        _interface: &str,
        _envelope: &Envelope,
        _message: &[u8],
        _now: Duration,
        _out: &mut Vec<Action>,
    ) {
    }

    /// When [`Election::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Does what is due. Give it all that has come in before: after a pause, the adverts that wait in the sockets say that
    /// the master is well.
    pub fn tick(&mut self, _now: Duration, _out: &mut Vec<Action>) {}

    /// Tells every router to stop: priority 0 at once. A master in the engine serves on until its successor speaks up.
    pub fn stop(&mut self, _now: Duration, _out: &mut Vec<Action>) {
        self.stopped = true;
    }

    /// Whether all routers have stopped, and their addresses are handed over or given up.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Says that a frame (ARP, NA) of somebody else claimed an address.
    pub fn claimed(
        &mut self,
        _interface: &str,
        _address: IpAddr,
        _mac: MacAddr,
        _now: Duration,
        _out: &mut Vec<Action>,
    ) {
    }

    /// How the routers are.
    pub fn status(&self, _now: Duration) -> Vec<RouterStatus> {
        Vec::new()
    }

    /// How the groups are.
    pub fn groups(&self) -> Vec<GroupStatus> {
        Vec::new()
    }

    /// Adverts that were refused before a router of ours was known, by their reasons' names. Only those that happened.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
