//! What the running engine tells systemd of itself.
//!
//! Owns the line of state, and what counts as a sign of life. The words of the protocol are [`crate::control::service::notify`]'s.

use std::time::Instant;

use super::Engine;
use crate::control::service::notify::Beats;

impl Engine {
    /// How the engine does, in one line: what `systemctl status` shows.
    pub(super) fn state_line(&self) -> String {
        let services = &self.desired.services;
        let meaning = self.watch.meaning();
        let down: Vec<&str> = services
            .iter()
            .map(|service| service.name.as_str())
            .filter(|name| meaning.is_up(name) == Some(false))
            .collect();
        let mut line = match services.len() {
            0 if self.desired.is_idle() => "ready, and nothing is configured yet".to_owned(),
            0 => "ready: no services".to_owned(),
            1 => "ready: 1 service".to_owned(),
            count => format!("ready: {count} services"),
        };
        match *down.as_slice() {
            [] if services.is_empty() => {}
            [] => line.push_str(", all with usable servers"),
            [one] => line.push_str(&format!(", {one} is down")),
            [first, ..] => line.push_str(&format!(", {} are down ({first} and others)", down.len())),
        }
        if let Some(vrrp) = self.routers.status().filter(|vrrp| !vrrp.routers.is_empty()) {
            let of = |state: &str| vrrp.routers.iter().filter(|router| router.state == state).count();
            let (all, master, backup) = (vrrp.routers.len(), of("MASTER"), of("BACKUP"));
            line.push_str(&format!("; virtual routers: {master} master, {backup} backup"));
            if master + backup < all {
                line.push_str(&format!(", {} neither", all - master - backup));
            }
        }
        if self.last_error.is_some() {
            line.push_str("; the last reload was refused");
        }
        line
    }

    /// With every tick: how it does, and that it lives.
    pub(super) fn tell_systemd(&mut self, now: Instant) {
        if self.notify.said().is_none() {
            return;
        }
        let line = self.state_line();
        self.notify.state(&line);
        let (workers, routers, watch) = (&self.workers, &mut self.routers, &self.watch);
        let beats = || Beats {
            workers: workers.list.iter().map(|worker| worker.stats.loops.get()).collect(),
            vrrp: routers.turns(),
            health: watch.turns(),
        };
        self.notify.beat(beats, now);
    }
}
