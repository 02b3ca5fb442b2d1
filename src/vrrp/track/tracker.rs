//! The thread `vrrp-track`: runs scripts, reads files and looks for processes.
//!
//! Owns the thread and when it does what. Reports what changed; never decides what that means for a router.

use std::io;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};

use super::Observation;
use crate::model::Vrrp;
use crate::vrrp::notify::Report;

/// The thread. Dropped, it ends its scripts and stops.
pub struct Tracker {
    observations: Receiver<Observation>,
}

impl Tracker {
    /// Starts it. `wake` is called after observations were put into the channel; `reports` gets the log lines.
    pub fn start(vrrp: &Vrrp, wake: Arc<dyn Fn() + Send + Sync>, reports: Sender<Report>) -> io::Result<Tracker> {
        let _ = (vrrp, wake, reports);
        let (_, observations) = crossbeam::channel::unbounded();
        Ok(Tracker { observations })
    }

    /// Takes a configuration: what did not change keeps its state and its time.
    pub fn configure(&self, vrrp: &Vrrp) {
        let _ = vrrp;
    }

    /// What was seen, in order; only what is new.
    pub fn observations(&self) -> &Receiver<Observation> {
        &self.observations
    }
}
