//! What an advert does to a router (RFC 9568, sections 6.4.2 and 6.4.3; RFC 3768, the same), with keepalived's ways where
//! it differs.
//!
//! Owns whose word counts. Takes only adverts that [`crate::vrrp::election`] has found to be for this router. Pure.

use std::net::IpAddr;
use std::time::Duration;

use super::{Machine, State};
use crate::model::{MacAddr, VrrpVersion};
use crate::vrrp::election::{Action, Level};
use crate::vrrp::packet::{Advert, Envelope, LEAVING};

/// Least time between two rounds of announcements that losing adverts bring about: each is several frames for each address.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);

/// What an advert was to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// We are no master and follow its sender.
    Followed,
    /// We are backup and take no notice of a lower priority.
    Discarded,
    /// Its sender leaves.
    Left,
    /// We were master and have given way.
    Yielded,
    /// We are master, and its sender should not be.
    Beaten,
    /// We are in no state to mind.
    Unminded,
}

/// The master that adverts tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherMaster {
    /// Source of its adverts.
    pub address: IpAddr,
    /// Ethernet address that they come from.
    pub mac: MacAddr,
    /// Its priority.
    pub priority: u8,
    /// Time between its adverts.
    pub interval: Duration,
    /// When it was heard first.
    pub since: Duration,
    /// When it was heard last.
    pub heard: Duration,
}

impl Machine {
    /// Takes an advert that is for this router, and right. A master that has to give way is backup afterwards.
    pub fn advert(&mut self, from: &Envelope, advert: &Advert, now: Duration, out: &mut Vec<Action>) -> Heard {
        match self.state {
            State::Init | State::Fault => {
                self.follow(from, advert, now);
                Heard::Unminded
            }
            State::Backup => self.advert_as_backup(from, advert, now, out),
            State::Master => self.advert_as_master(from, advert, now, out),
            State::Stop if advert.priority == LEAVING => Heard::Unminded,
            State::Stop => {
                self.follow(from, advert, now);
                if self.owned {
                    self.say(Level::Info, &format!("{} has taken over", from.source), out);
                    self.release(out);
                }
                Heard::Followed
            }
        }
    }

    fn advert_as_backup(&mut self, from: &Envelope, advert: &Advert, now: Duration, out: &mut Vec<Action>) -> Heard {
        if advert.priority == LEAVING {
            // Of somebody who is not our master it means nothing: he had lost to the one we follow.
            if self.master.is_some_and(|master| master.address != from.source) {
                return Heard::Left;
            }
            self.say(Level::Info, "Backup received priority 0 advertisement", out);
            self.master = None;
            self.timer = Some(now + self.skew());
            return Heard::Left;
        }
        let delayed = now < self.preempt_after;
        if self.spec.router.preempt && advert.priority < self.priority && !delayed {
            self.follow(from, advert, now);
            return Heard::Discarded;
        }
        if delayed && self.spec.router.preempt && advert.priority < self.priority && !self.delaying {
            self.delaying = true;
            let left = self.preempt_after - now;
            self.say(Level::Info, &format!("start preempt delay ({:.6})", left.as_secs_f64()), out);
        }
        self.follow(from, advert, now);
        self.adopt(advert, out);
        self.wants = false;
        self.timer = Some(now + self.down_time());
        Heard::Followed
    }

    fn advert_as_master(&mut self, from: &Envelope, advert: &Advert, now: Duration, out: &mut Vec<Action>) -> Heard {
        if advert.priority == LEAVING {
            self.say(Level::Info, "Master received priority 0 message", out);
            self.readvertise(now, out);
            return Heard::Left;
        }
        let ours = self.source().map(|source| source.address);
        let higher = advert.priority > self.priority;
        // RFC 9568, section 6.4.3: of equal priorities the higher address wins.
        if !higher && (advert.priority < self.priority || Some(from.source) <= ours) {
            self.readvertise(now, out);
            // What it has sent may have drawn the addresses to it (keepalived's `garp_lower_prio_repeat`).
            let next = self.last_round + BETWEEN_ROUNDS;
            if next <= now {
                self.announce(self.spec.router.announcements.repeat, now, out);
            } else {
                self.again = Some(self.again.map_or(next, |at| at.min(next)));
            }
            return Heard::Beaten;
        }
        let (theirs, priority) = (advert.priority, self.priority);
        let why = if higher {
            format!("Master received advert from {} with higher priority {theirs}, ours {priority}", from.source)
        } else {
            format!(
                "Master received advert from {} with same priority {theirs} but higher IP address than ours",
                from.source
            )
        };
        self.say(Level::Info, &why, out);
        self.follow(from, advert, now);
        self.adopt(advert, out);
        self.demote(&why, false, now, out);
        Heard::Yielded
    }

    fn readvertise(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.send(self.priority, out);
        self.timer = Some(now + self.spec.router.interval);
    }

    /// Remembers who is master.
    fn follow(&mut self, from: &Envelope, advert: &Advert, now: Duration) {
        if advert.priority == LEAVING {
            self.master = None;
            return;
        }
        let since = self.master.filter(|known| known.address == from.source).map_or(now, |known| known.since);
        self.master = Some(OtherMaster {
            address: from.source,
            mac: from.mac,
            priority: advert.priority,
            interval: advert.interval,
            since,
            heard: now,
        });
    }

    /// Takes the master's interval for its own (RFC 9568, section 6.4.2). In version 2 it is the same already.
    fn adopt(&mut self, advert: &Advert, out: &mut Vec<Action>) {
        if self.spec.router.version == VrrpVersion::V3 && advert.interval != self.master_interval {
            let (old, new) = (self.master_interval.as_millis(), advert.interval.as_millis());
            self.say(Level::Info, &format!("advertisement interval updated from {old}ms to {new}ms by master"), out);
            self.master_interval = advert.interval;
        }
    }
}
