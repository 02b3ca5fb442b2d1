//! What the engine tells systemd: that it is ready, reloads, stops, how it does, and that it lives.
//!
//! Owns the words of sd_notify(3) and the watchdog's decision ([`Pulse`], which takes time as a parameter). Without `NOTIFY_SOCKET` in the
//! environment nothing is said. Never ends anything.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::{debug, warn};

/// The engine's side of systemd.
pub struct Notify {
    /// There is somebody to tell.
    heard: bool,
    /// The last line of state.
    said: String,
    pulse: Option<Pulse>,
    refused: bool,
}

/// How long a thread may stand still before systemd is not told any more that the engine lives. systemd waits for its own time on top.
const STILL: Duration = Duration::from_secs(3);

/// What has to turn for the engine to live, as counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beats {
    /// Turns of each worker.
    pub workers: Vec<u64>,
    /// Something that VRRP makes anew at least each second; absent without virtual routers.
    pub vrrp: Option<u64>,
    /// Turns of the health checks; absent without checks.
    pub health: Option<u64>,
}

/// Which threads turn.
#[derive(Debug)]
pub struct Pulse {
    known: Beats,
    workers: Vec<Instant>,
    vrrp: Instant,
    health: Instant,
}

impl Pulse {
    /// Everything turned just now.
    pub const fn new(now: Instant) -> Pulse {
        Pulse {
            known: Beats { workers: Vec::new(), vrrp: None, health: None },
            workers: Vec::new(),
            vrrp: now,
            health: now,
        }
    }

    /// Takes the counts. Returns who has not turned for [`STILL`] or longer.
    pub fn feel(&mut self, beats: Beats, now: Instant) -> Option<String> {
        if self.workers.len() != beats.workers.len() {
            self.workers = vec![now; beats.workers.len()];
            self.known.workers.clear();
        }
        for (number, beat) in beats.workers.iter().enumerate() {
            if self.known.workers.get(number) != Some(beat) {
                self.workers[number] = now;
            }
        }
        let turned = |before: Option<u64>, beat: Option<u64>| beat.is_none() || beat != before;
        if turned(self.known.vrrp, beats.vrrp) {
            self.vrrp = now;
        }
        if turned(self.known.health, beats.health) {
            self.health = now;
        }
        self.known = beats;
        let still = |since: Instant| now.saturating_duration_since(since) >= STILL;
        let worker = self.workers.iter().position(|since| still(*since)).map(|number| format!("worker {number}"));
        let vrrp = || still(self.vrrp).then(|| "the thread of VRRP".to_owned());
        let health = || still(self.health).then(|| "the thread of the health checks".to_owned());
        worker.or_else(vrrp).or_else(health)
    }
}

impl Notify {
    /// As the environment says.
    pub fn new(now: Instant) -> Notify {
        let heard = std::env::var_os("NOTIFY_SOCKET").is_some();
        let pulse = sd_notify::watchdog_enabled().filter(|_| heard).map(|_| Pulse::new(now));
        Notify { heard, said: String::new(), pulse, refused: false }
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        if !self.heard {
            return;
        }
        match sd_notify::notify(states) {
            Ok(()) => self.refused = false,
            Err(error) if !self.refused => {
                self.refused = true;
                warn!("systemd does not hear how the engine does: {error}");
            }
            Err(_) => {}
        }
    }

    /// The engine serves.
    pub fn ready(&mut self, state: &str) {
        state.clone_into(&mut self.said);
        self.tell(&[NotifyState::Ready, NotifyState::Status(state)]);
    }

    /// A configuration is being read; [`Notify::ready`] follows, whatever came of it.
    pub fn reloading(&mut self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.tell(&[NotifyState::Reloading, now]);
        }
    }

    /// How the engine does, in one line, where that is new.
    pub fn state(&mut self, state: &str) {
        if self.heard && self.said != state {
            state.clone_into(&mut self.said);
            self.tell(&[NotifyState::Status(state)]);
        }
    }

    /// The line of state, and whether anybody wants another one.
    pub fn said(&self) -> Option<&str> {
        self.heard.then_some(self.said.as_str())
    }

    /// The engine ends.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// The control loop turns; systemd hears that the engine lives if all else turns, too.
    pub fn beat(&mut self, beats: impl FnOnce() -> Beats, now: Instant) {
        let Some(pulse) = &mut self.pulse else { return };
        match pulse.feel(beats(), now) {
            None => self.tell(&[NotifyState::Watchdog]),
            Some(who) => {
                let said = format!("{who} stands still: systemd is not told that the engine lives");
                if self.said != said {
                    warn!("{said}");
                    self.state(&said);
                }
                debug!("no sign of life for systemd");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(workers: &[u64], vrrp: Option<u64>, health: Option<u64>) -> Beats {
        Beats { workers: workers.to_vec(), vrrp, health }
    }

    #[test]
    fn whoever_stands_still_is_named() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let mut at = |seconds: u64, beats| pulse.feel(beats, start + Duration::from_secs(seconds));
        assert_eq!(at(0, beats(&[1, 1], Some(1), Some(1))), None);
        assert_eq!(at(2, beats(&[2, 1], Some(2), Some(2))), None);
        assert_eq!(at(3, beats(&[3, 1], Some(3), Some(3))), Some("worker 1".to_owned()));
        assert_eq!(at(4, beats(&[4, 2], Some(3), Some(4))), None, "it turns again");
        assert_eq!(at(6, beats(&[5, 3], Some(3), Some(4))), Some("the thread of VRRP".to_owned()));
        assert_eq!(at(7, beats(&[6, 4], None, Some(4))), Some("the thread of the health checks".to_owned()));
        assert_eq!(at(8, beats(&[7, 5], None, None)), None, "who is not there cannot stand still");
        assert_eq!(at(60, beats(&[8, 6], Some(3), Some(4))), None, "who came has time");
        assert_eq!(at(61, beats(&[], Some(4), Some(5))), None, "an engine without workers");
        assert_eq!(at(90, beats(&[0], Some(5), Some(6))), None, "another number of workers");
    }

    #[test]
    fn nobody_is_told_where_nobody_listens() {
        let mut notify = Notify { heard: false, said: String::new(), pulse: None, refused: false };
        notify.ready("ready");
        notify.beat(|| panic!("nobody counts"), Instant::now());
        assert_eq!(notify.said(), None);
    }
}
