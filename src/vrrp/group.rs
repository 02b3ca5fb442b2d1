//! Routers that are master together or not at all, as keepalived's `vrrp_sync.c` has it. A router without a group is one by
//! itself.
//!
//! Owns the decisions that take more than one router. Never looks at an advert. Pure.

use std::time::Duration;

use super::election::{Action, Level};
use super::machine::{Fitness, Machine, State};

/// A group, or a single router.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name; `None`: a single router.
    pub name: Option<String>,
    /// Places of its routers in the list of machines.
    pub members: Vec<usize>,
    /// What its members are together.
    pub state: State,
}

impl Group {
    /// Takes up routers that were not together before. Where one is backup, all are: a group has no halves.
    pub fn gather(&mut self, machines: &mut [Machine], now: Duration, out: &mut Vec<Action>) {
        let is = |state| self.members.iter().any(|member| machines[*member].state() == state);
        match (is(State::Fault), is(State::Backup), is(State::Master)) {
            (true, _, _) => self.enter(State::Fault, "one of its routers is in fault", out),
            (false, true, _) => self.give_way("its group has other routers now", machines, now, out),
            (false, false, true) => self.enter(State::Master, "its routers are master", out),
            (false, false, false) => {}
        }
    }

    /// Looks at the fitness of its members. One that is unfit takes all into fault; when all are fit, all come out of it;
    /// while one waits for the first word from outside, those that have not begun wait too.
    pub fn settle(&mut self, machines: &mut [Machine], now: Duration, out: &mut Vec<Action>) {
        let fitness: Vec<Fitness> = self.members.iter().map(|member| machines[*member].fitness()).collect();
        let unfit = fitness.iter().zip(&self.members).find_map(|(fitness, member)| match fitness {
            Fitness::Unfit(reason) => Some((machines[*member].router().name.clone(), reason.clone())),
            _ => None,
        });
        if let Some((culprit, reason)) = unfit {
            self.say_syncing(State::Fault, out);
            for (member, fitness) in self.members.iter().zip(fitness) {
                let machine = &mut machines[*member];
                if matches!(machine.state(), State::Fault | State::Stop) {
                    continue;
                }
                match fitness {
                    Fitness::Unfit(own) => machine.fault(&own, now, out),
                    _ => machine.fault(&format!("{culprit} of its group: {reason}"), now, out),
                }
            }
            self.enter(State::Fault, &format!("{culprit}: {reason}"), out);
            return;
        }
        if fitness.contains(&Fitness::Unknown) {
            return;
        }
        let mut begun = false;
        for member in &self.members {
            let machine = &mut machines[*member];
            match machine.state() {
                State::Init => machine.begin("began", now, out),
                State::Fault => machine.begin("no fault any more", now, out),
                _ => continue,
            }
            begun = true;
        }
        if begun {
            if self.state != State::Master {
                self.enter(State::Backup, "all of its routers may be master", out);
            }
            self.promote_if_all_want("owner of the addresses", machines, now, out);
        }
    }

    /// One of its members has waited long enough for a master. It becomes master with all others, once all want to: a group
    /// rather stays backup than has one half of it here and one there.
    pub fn promote_if_all_want(&mut self, why: &str, machines: &mut [Machine], now: Duration, out: &mut Vec<Action>) {
        let ready = |machine: &Machine| match machine.state() {
            State::Master => true,
            State::Backup => machine.wants() || self.state == State::Master,
            _ => false,
        };
        let wanted = self.members.iter().any(|member| machines[*member].wants());
        if !wanted || !self.members.iter().all(|member| ready(&machines[*member])) {
            return;
        }
        self.say_syncing(State::Master, out);
        for member in &self.members {
            if machines[*member].state() == State::Backup {
                machines[*member].promote(why, now, out);
            }
        }
        self.enter(State::Master, why, out);
    }

    /// One of its members gave way to another master: so do the others.
    pub fn give_way(&mut self, why: &str, machines: &mut [Machine], now: Duration, out: &mut Vec<Action>) {
        self.say_syncing(State::Backup, out);
        for member in &self.members {
            if machines[*member].state() == State::Master {
                machines[*member].demote(why, true, now, out);
            }
        }
        self.enter(State::Backup, why, out);
    }

    /// Its members have been told to stop.
    pub fn stop(&mut self, out: &mut Vec<Action>) {
        self.enter(State::Stop, "told to stop", out);
    }

    fn enter(&mut self, state: State, why: &str, out: &mut Vec<Action>) {
        if std::mem::replace(&mut self.state, state) != state
            && let Some(name) = self.name.clone()
        {
            out.push(Action::Changed { name, group: true, state, priority: 0, why: why.to_owned() });
        }
    }

    fn say_syncing(&self, state: State, out: &mut Vec<Action>) {
        if let Some(name) = &self.name
            && self.state != state
        {
            let text = format!("VRRP_Group({name}) Syncing instances to {} state", state.name());
            out.push(Action::Log { level: Level::Info, text });
        }
    }
}
