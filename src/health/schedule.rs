//! What is due: the first run of a check, its next one, another attempt, and the end of an attempt's time. Pure.
//!
//! Owns the order of thousands of checks. Never runs one, and two runs of the same check are never due at a time. Times are
//! since any fixed moment.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::CheckId;
use crate::model::Pace;

/// Shortest interval, whatever a file says.
const SHORTEST: Duration = Duration::from_millis(1);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// An attempt begins; its time counts from now.
    Start(CheckId),
    /// The attempt that runs has taken all of its time.
    Deadline(CheckId),
}

/// How an attempt ended, as far as its time is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Good, or this machine could not ask: the run is over.
    Final,
    /// Bad: there may be another attempt.
    Failed,
}

/// Random numbers of good quality for times, and of none for secrets (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of that seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A time from 0 to `most`.
    fn within(&mut self, most: Duration) -> Duration {
        match u64::try_from(most.as_nanos()).unwrap_or(u64::MAX) {
            0 => Duration::ZERO,
            most => Duration::from_nanos(self.number() % most),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The attempt, counted from 0, begins at that time.
    Waits { at: Duration, attempt: u16 },
    /// It runs; it may have no deadline here. `given` is what was added to that.
    Runs { deadline: Option<Duration>, given: Duration, attempt: u16 },
}

#[derive(Debug)]
struct Slot {
    interval: Duration,
    timeout: Duration,
    jitter: Duration,
    retries: u16,
    retry_delay: Duration,
    /// Whether attempts have a deadline here.
    timed: bool,
    /// When the run that is due, or runs, should have begun.
    planned: Duration,
    state: State,
}

/// All checks, by what is due of them.
#[derive(Debug)]
pub struct Schedule {
    slots: HashMap<CheckId, Slot>,
    /// Each check at most once.
    queue: BTreeSet<(Duration, CheckId)>,
    random: Random,
    latest: Duration,
}

impl Schedule {
    /// Without checks.
    pub fn new(random: Random) -> Schedule {
        Schedule { slots: HashMap::new(), queue: BTreeSet::new(), random, latest: Duration::ZERO }
    }

    /// Takes a check: its first run is within its warm-up. `timed`: whether attempts have a deadline here; else somebody
    /// else ends them.
    pub fn add(&mut self, id: CheckId, pace: &Pace, timed: bool, now: Duration) {
        self.remove(id);
        let interval = pace.interval.max(SHORTEST);
        let at = now + self.random.within(pace.warmup);
        self.slots.insert(
            id,
            Slot {
                interval,
                timeout: pace.timeout,
                // So that a check never runs without a pause.
                jitter: pace.jitter.min(interval * 9 / 10),
                retries: pace.retries,
                retry_delay: pace.retry_delay,
                timed,
                planned: at,
                state: State::Waits { at, attempt: 0 },
            },
        );
        self.queue.insert((at, id));
    }

    /// Forgets a check.
    pub fn remove(&mut self, id: CheckId) {
        if let Some(slot) = self.slots.remove(&id) {
            self.unqueue(id, slot.state);
        }
    }

    /// When to come back.
    pub fn next(&self) -> Option<Duration> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The next of what was due at `judged`. `now` is from when the time of an attempt counts; it is later where something
    /// was done since. A run that is late by its whole interval is left out: after a pause, checks go on in the order that
    /// they had, and not all at once.
    pub fn pop(&mut self, judged: Duration, now: Duration) -> Option<Due> {
        loop {
            let (at, id) = self.queue.first().copied().filter(|(at, _)| *at <= judged)?;
            self.queue.pop_first();
            let slot = self.slots.get_mut(&id)?;
            match slot.state {
                State::Runs { given, attempt, .. } => {
                    slot.state = State::Runs { deadline: None, given, attempt };
                    return Some(Due::Deadline(id));
                }
                State::Waits { attempt, .. } => {
                    let late = now.saturating_sub(at);
                    self.latest = self.latest.max(late);
                    if attempt == 0 && late > slot.interval {
                        slot.planned = not_before(slot.planned, slot.interval, now);
                        slot.state = State::Waits { at: slot.planned, attempt };
                        self.queue.insert((slot.planned, id));
                        continue;
                    }
                    let deadline = slot.timed.then(|| now + slot.timeout);
                    slot.state = State::Runs { deadline, given: Duration::ZERO, attempt };
                    self.queue.extend(deadline.map(|deadline| (deadline, id)));
                    return Some(Due::Start(id));
                }
            }
        }
    }

    /// Puts an attempt that has just begun off: what it needs is not there yet.
    pub fn put_off(&mut self, id: CheckId, at: Duration) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let State::Runs { attempt, .. } = slot.state else { return };
        let before = std::mem::replace(&mut slot.state, State::Waits { at, attempt });
        self.unqueue(id, before);
        self.queue.insert((at, id));
    }

    /// An attempt is over. Says whether the run is: if not, another attempt follows.
    pub fn over(&mut self, id: CheckId, end: End, now: Duration) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else { return true };
        let State::Runs { attempt, .. } = slot.state else { return true };
        let again = end == End::Failed && attempt < slot.retries;
        let next = match again {
            true => State::Waits { at: now + slot.retry_delay, attempt: attempt + 1 },
            false => {
                // From when the run was planned, so that nothing drifts.
                let next = slot.planned + (slot.interval - self.random.within(slot.jitter));
                slot.planned = not_before(next, slot.interval, now);
                State::Waits { at: slot.planned, attempt: 0 }
            }
        };
        let before = std::mem::replace(&mut slot.state, next);
        self.unqueue(id, before);
        if let State::Waits { at, .. } = next {
            self.queue.insert((at, id));
        }
        !again
    }

    /// The thread was kept from running for `by`: attempts that run get that time back. In all, one gets no more than its
    /// timeout again, or the longest such pause.
    pub fn give_back(&mut self, by: Duration) {
        for (id, slot) in &mut self.slots {
            let State::Runs { deadline: Some(deadline), given, attempt } = slot.state else { continue };
            let more = by.min(slot.timeout.max(by).saturating_sub(given));
            self.queue.remove(&(deadline, *id));
            self.queue.insert((deadline + more, *id));
            slot.state = State::Runs { deadline: Some(deadline + more), given: given + more, attempt };
        }
    }

    /// By how much an attempt began too late at most, since the last call.
    pub fn latest(&mut self) -> Duration {
        std::mem::take(&mut self.latest)
    }

    fn unqueue(&mut self, id: CheckId, state: State) {
        if let State::Waits { at, .. } | State::Runs { deadline: Some(at), .. } = state {
            self.queue.remove(&(at, id));
        }
    }
}

/// `time`, or the first moment that is whole intervals after it and not before `now`.
fn not_before(time: Duration, interval: Duration, now: Duration) -> Duration {
    let Some(behind) = now.checked_sub(time) else { return time };
    let missed = behind.as_nanos().div_ceil(interval.as_nanos().max(1));
    let missed = u64::try_from(missed).unwrap_or(u64::MAX);
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).saturating_mul(missed);
    time.saturating_add(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests;
