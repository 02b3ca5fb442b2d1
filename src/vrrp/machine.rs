//! One virtual router: its state and its timers (RFC 9568, section 6.4; RFC 3768, section 6.4), with keepalived's ways where
//! it differs (`vrrp.c`, `vrrp_scheduler.c`).
//!
//! Owns what a single router may decide. Whether it may become master is its [`super::group`]'s word, and whether an advert
//! is taken at all [`super::election`]'s. Never sends and never reads a clock. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::election::{Action, Condition, Level, Source, Spec};
use super::packet::{Advert, LEAVING, NO_AUTH, OWNER, PASSWORD};
use crate::model::{Place, VirtualRouter, VrrpVersion};

mod heard;

pub use heard::{Heard, OtherMaster};

/// State of a virtual router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Not all is known yet that it waits for: its source address, its first [`Condition`].
    #[default]
    Init,
    /// Another router is master, or nobody is yet.
    Backup,
    /// This appliance has the addresses.
    Master,
    /// It may not be master: its interface or something tracked has failed, for itself or for one of its group.
    Fault,
    /// Told to stop.
    Stop,
}

impl State {
    /// All of them.
    pub const ALL: [State; 5] = [State::Init, State::Backup, State::Master, State::Fault, State::Stop];

    /// keepalived's word for it, as notify scripts and the FIFO get it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Init => "INIT",
            State::Backup => "BACKUP",
            State::Master => "MASTER",
            State::Fault => "FAULT",
            State::Stop => "STOP",
        }
    }
}

/// Whether a router may run for master, as far as itself goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// Not known yet.
    Unknown,
    /// It may not; the reason in words.
    Unfit(String),
    /// It may.
    Fit,
}

/// A virtual router of this appliance.
#[derive(Clone, Debug)]
pub struct Machine {
    spec: Spec,
    state: State,
    /// When it came into that state.
    since: Duration,
    why: String,
    source: Option<Option<Source>>,
    condition: Option<Condition>,
    priority: u8,
    /// Its time as backup is over; a group may have it wait.
    wants: bool,
    /// Backup: when the master counts as gone. Master: when the next advert is due.
    timer: Option<Duration>,
    /// Interval of the master that it follows (version 3), or its own.
    master_interval: Duration,
    /// Until when it lets a master with a lower priority be.
    preempt_after: Duration,
    delaying: bool,
    master: Option<OtherMaster>,
    /// Whether its addresses are served.
    owned: bool,
    /// When it gives the addresses up though no successor was heard.
    handover: Option<Duration>,
    again: Option<Duration>,
    refresh: Option<Duration>,
    last_round: Duration,
    promotions: u64,
    sent: u64,
    sent_zero: u64,
}

impl Machine {
    /// In [`State::Init`]: it waits for its source and its condition.
    pub fn new(spec: Spec, now: Duration) -> Machine {
        Machine {
            priority: effective(&spec.router, 0),
            master_interval: spec.router.interval,
            spec,
            state: State::Init,
            since: now,
            why: "waits for its interface and for what it tracks".to_owned(),
            source: None,
            condition: None,
            wants: false,
            timer: None,
            preempt_after: Duration::ZERO,
            delaying: false,
            master: None,
            owned: false,
            handover: None,
            again: None,
            refresh: None,
            last_round: Duration::ZERO,
            promotions: 0,
            sent: 0,
            sent_zero: 0,
        }
    }

    /// Its configuration.
    pub fn router(&self) -> &Arc<VirtualRouter> {
        &self.spec.router
    }

    /// Its configuration and its bit.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// When it came into its state, and why.
    pub fn last_change(&self) -> (Duration, &str) {
        (self.since, &self.why)
    }

    /// Its priority with what is tracked.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// Where its adverts come from; `None`: from nowhere, or not known yet.
    pub fn source(&self) -> Option<Source> {
        self.source.flatten()
    }

    /// The other router that is master, as far as adverts say. `None` while it is master itself.
    pub fn other_master(&self) -> Option<&OtherMaster> {
        self.master.as_ref()
    }

    /// Whether its addresses are served: while it is master, and during a hand-over.
    pub fn owns(&self) -> bool {
        self.owned
    }

    /// Whether its time as backup is over, and only its group has it wait.
    pub fn wants(&self) -> bool {
        self.wants
    }

    /// Changes to master; adverts that were sent; those with priority 0 among them.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.promotions, self.sent, self.sent_zero)
    }

    /// Whether it may run for master, as far as itself goes.
    pub fn fitness(&self) -> Fitness {
        match (&self.source, &self.condition) {
            (_, Some(Condition { fault: Some(reason), .. })) => Fitness::Unfit(reason.clone()),
            (Some(None), _) => {
                let family = if self.spec.router.is_v6() { "IPv6" } else { "IPv4" };
                Fitness::Unfit(format!("interface {} has no {family} address", self.spec.router.interface))
            }
            (Some(Some(_)), Some(_)) => Fitness::Fit,
            _ => Fitness::Unknown,
        }
    }

    /// When [`Machine::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let due = match self.state {
            State::Init | State::Fault => [None; 3],
            State::Backup => [self.timer, None, None],
            State::Master => [self.timer, self.again, self.refresh],
            State::Stop => [self.handover, None, None],
        };
        due.into_iter().flatten().min()
    }

    /// How long a master may be silent (RFC 9568, section 6.1: Active_Down_Interval).
    pub fn down_time(&self) -> Duration {
        self.master_interval * u32::from(self.spec.router.down_adverts) + self.skew()
    }

    /// The smaller our priority, the longer we wait (RFC 9568, section 6.1; RFC 3768, section 6.1).
    pub fn skew(&self) -> Duration {
        let whole = match self.spec.router.version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => self.master_interval,
        };
        whole * (256 - u32::from(self.priority)) / 256
    }

    /// Notes where adverts come from. The caller looks at [`Machine::fitness`] afterwards.
    pub fn set_source(&mut self, source: Option<Source>) {
        self.source = Some(source);
    }

    /// Notes what tracking says. The caller looks at [`Machine::fitness`] afterwards.
    pub fn set_condition(&mut self, condition: Condition, out: &mut Vec<Action>) {
        self.condition = Some(condition);
        self.weigh(out);
    }

    fn weigh(&mut self, out: &mut Vec<Action>) {
        let adjust = self.condition.as_ref().map_or(0, |condition| condition.adjust);
        let priority = effective(&self.spec.router, adjust);
        if priority != self.priority {
            let text = format!("Changing effective priority from {} to {priority}", self.priority);
            self.say(Level::Info, &text, out);
            self.priority = priority;
        }
    }

    /// From [`State::Init`] or [`State::Fault`] to backup. The owner of the addresses wants to be master at once.
    pub fn begin(&mut self, why: &str, now: Duration, out: &mut Vec<Action>) {
        let router = &self.spec.router;
        self.master_interval = router.interval;
        self.preempt_after = now + router.preempt_delay;
        self.delaying = false;
        self.wants = self.priority == OWNER;
        self.timer = Some(now + self.down_time());
        let word = if self.state == State::Init { "Entering BACKUP STATE (init)" } else { "Entering BACKUP STATE" };
        self.enter(State::Backup, word, why, now, out);
    }

    /// Becomes master: the advert first, then the addresses, then the announcements (RFC 9568, section 6.4.2).
    pub fn promote(&mut self, why: &str, now: Duration, out: &mut Vec<Action>) {
        self.promotions += 1;
        self.wants = false;
        self.master = None;
        self.master_interval = self.spec.router.interval;
        self.send(self.priority, out);
        self.timer = Some(now + self.spec.router.interval);
        self.own(true, out);
        let rounds = self.spec.router.announcements;
        self.announce(rounds.repeat, now, out);
        self.again = (!rounds.delay.is_zero()).then_some(now + rounds.delay);
        self.refresh = (!rounds.refresh.is_zero()).then_some(now + rounds.refresh);
        self.enter(State::Master, "Entering MASTER STATE", why, now, out);
    }

    /// From master to backup, silent at once. `farewell`: others need not wait for the next advert that does not come.
    pub fn demote(&mut self, why: &str, farewell: bool, now: Duration, out: &mut Vec<Action>) {
        self.leave(farewell, out);
        self.wants = false;
        self.timer = Some(now + self.down_time());
        self.enter(State::Backup, "Entering BACKUP STATE", why, now, out);
    }

    /// Into fault, silent at once. A master says that it leaves.
    pub fn fault(&mut self, why: &str, now: Duration, out: &mut Vec<Action>) {
        self.leave(self.state == State::Master, out);
        self.wants = false;
        self.timer = None;
        let word = if self.state == State::Init { "Entering FAULT STATE (init)" } else { "Entering FAULT STATE" };
        self.enter(State::Fault, word, why, now, out);
    }

    /// Stops. A master says that it leaves; where its addresses are in the engine it goes on to serve them until a successor
    /// is heard, `limit` at most, and no longer than the slowest successor takes.
    pub fn stop(&mut self, limit: Duration, now: Duration, out: &mut Vec<Action>) {
        let router = Arc::clone(&self.spec.router);
        if self.state == State::Master {
            self.send(LEAVING, out);
            self.say(Level::Info, "sent 0 priority", out);
        }
        let skew = if router.version == VrrpVersion::V2 { Duration::from_secs(1) } else { router.interval };
        let limit = limit.min(skew + router.interval);
        if self.owned && router.place == Place::Engine && !limit.is_zero() {
            self.handover = Some(now + limit);
        } else {
            self.own(false, out);
        }
        self.wants = false;
        (self.timer, self.again, self.refresh) = (None, None, None);
        self.enter(State::Stop, "Stopped", "told to stop", now, out);
    }

    /// Gives up addresses that it served on during a hand-over.
    pub fn release(&mut self, out: &mut Vec<Action>) {
        self.handover = None;
        self.own(false, out);
    }

    /// Takes the configuration of the same router, changed in what can change while it runs: see [`same_router`].
    pub fn reconfigure(&mut self, spec: Spec, now: Duration, out: &mut Vec<Action>) {
        let old = std::mem::replace(&mut self.spec, spec);
        let new = Arc::clone(&self.spec.router);
        self.weigh(out);
        let mut advertise = old.router.interval != new.interval || old.router.addresses != new.addresses;
        advertise |= old.router.password != new.password || old.router.checksum != new.checksum;
        match self.state {
            State::Master => {
                self.master_interval = new.interval;
                if advertise {
                    self.timer = Some(now);
                }
                if !old.router.all_addresses().eq(new.all_addresses()) {
                    self.own(true, out);
                    self.announce(new.announcements.repeat, now, out);
                }
                if old.router.announcements != new.announcements {
                    let refresh = new.announcements.refresh;
                    self.refresh = (!refresh.is_zero()).then_some(now + refresh);
                }
            }
            State::Backup if old.router.interval != new.interval || old.router.down_adverts != new.down_adverts => {
                // The master's own interval comes with its next advert.
                self.master_interval = new.interval.max(self.master_interval);
                self.timer = Some(now + self.down_time());
            }
            _ => {}
        }
    }

    /// A machine for the same name that begins anew, with what was said of this one where that still holds.
    pub fn begin_anew(&self, spec: Spec, now: Duration) -> Machine {
        let (old, new) = (&self.spec.router, &spec.router);
        let same_place = old.interface == new.interface && old.is_v6() == new.is_v6() && old.source == new.source;
        let mut machine = Machine::new(spec, now);
        machine.source = if same_place { self.source } else { None };
        machine.condition = self.condition.clone();
        machine.priority = effective(&machine.spec.router, machine.condition.as_ref().map_or(0, |it| it.adjust));
        machine
    }

    /// Does what is due. True: the master is taken to be gone, and this router wants its place.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Action>) -> bool {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        match self.state {
            State::Backup if due(self.timer) => {
                if !self.wants {
                    self.say(Level::Info, "Receive advertisement timeout", out);
                }
                self.wants = true;
                self.master = None;
                self.timer = Some(now + self.down_time());
                true
            }
            State::Master => {
                let interval = self.spec.router.interval;
                if let Some(at) = self.timer.filter(|at| *at <= now) {
                    self.send(self.priority, out);
                    // Late by less than an interval: the next one is due when it was.
                    self.timer = Some(if at + interval > now { at + interval } else { now + interval });
                }
                let rounds = self.spec.router.announcements;
                if due(self.again) {
                    self.again = None;
                    self.announce(rounds.repeat, now, out);
                }
                if due(self.refresh) {
                    self.refresh = (!rounds.refresh.is_zero()).then_some(now + rounds.refresh);
                    self.announce(rounds.refresh_repeat, now, out);
                }
                false
            }
            State::Stop if due(self.handover) => {
                self.say(Level::Warn, "no successor was heard: the addresses are given up", out);
                self.release(out);
                false
            }
            _ => false,
        }
    }

    fn leave(&mut self, farewell: bool, out: &mut Vec<Action>) {
        self.own(false, out);
        if farewell {
            self.send(LEAVING, out);
            self.say(Level::Info, "sent 0 priority", out);
        }
        (self.again, self.refresh) = (None, None);
    }

    fn own(&mut self, owned: bool, out: &mut Vec<Action>) {
        if owned || self.owned {
            self.owned = owned;
            let (router, slot) = (Arc::clone(&self.spec.router), self.spec.slot);
            out.push(Action::Own { router, slot, owned });
        }
    }

    fn announce(&mut self, repeat: u8, now: Duration, out: &mut Vec<Action>) {
        self.last_round = now;
        if repeat > 0 {
            out.push(Action::Announce { router: Arc::clone(&self.spec.router), repeat });
        }
    }

    fn send(&mut self, priority: u8, out: &mut Vec<Action>) {
        self.sent += 1;
        self.sent_zero += u64::from(priority == LEAVING);
        let router = Arc::clone(&self.spec.router);
        let advert = Advert {
            version: router.version,
            vrid: router.vrid,
            priority,
            interval: router.interval,
            password: router.password,
            auth_type: if router.password.is_some() { PASSWORD } else { NO_AUTH },
            checksum: router.checksum,
            addresses: router.addresses.iter().map(|one| one.address).collect(),
        };
        out.push(Action::Advertise { router, advert });
    }

    fn enter(&mut self, state: State, words: &str, why: &str, now: Duration, out: &mut Vec<Action>) {
        self.state = state;
        self.since = now;
        self.why = why.to_owned();
        let level = if state == State::Fault { Level::Warn } else { Level::Info };
        let words = if state == State::Fault { format!("{words}: {why}") } else { words.to_owned() };
        self.say(level, &words, out);
        let name = self.spec.router.name.clone();
        out.push(Action::Changed { name, group: false, state, priority: self.priority, why: why.to_owned() });
    }

    fn say(&self, level: Level, text: &str, out: &mut Vec<Action>) {
        out.push(Action::Log { level, text: format!("({}) {text}", self.spec.router.name) });
    }
}

/// Whether two configurations are of one router that can go on running: only what [`Machine::reconfigure`] takes differs.
pub fn same_router(old: &Spec, new: &Spec) -> bool {
    let (a, b) = (&old.router, &new.router);
    let peers = |router: &VirtualRouter| router.unicast.is_some();
    (old.slot, &a.name, &a.interface, a.vrid, a.version, a.is_v6(), a.place, a.source, a.virtual_mac, peers(a))
        == (new.slot, &b.name, &b.interface, b.vrid, b.version, b.is_v6(), b.place, b.source, b.virtual_mac, peers(b))
}

fn effective(router: &VirtualRouter, adjust: i32) -> u8 {
    if router.priority == OWNER {
        return OWNER;
    }
    (i32::from(router.priority).saturating_add(adjust)).clamp(1, 254) as u8
}
