//! The virtual routers of a running engine: what VRRP is told of the configuration, the services and the workers.
//!
//! Owns the driver's handle. Decides nothing about who is master.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::workers::Workers;
use crate::model::{Desired, Mastery, RouterSlot, Tracked, Vrrp};
use crate::vrrp::driver::{Driver, DriverError, Plan, Wiring};
use crate::vrrp::status::VrrpStatus;

/// The driver of VRRP, once there is a virtual router.
pub struct Routers {
    driver: Option<Driver>,
    wiring: Wiring,
    /// Services that are tracked, and what was said of them last.
    tracked: Vec<(String, bool)>,
    /// The driver's last word of itself, and how many there were.
    heard: (Option<Arc<VrrpStatus>>, u64),
}

/// Services that a router or a group tracks.
fn tracked_services(vrrp: &Vrrp) -> impl Iterator<Item = &str> {
    let tracks = vrrp.routers.iter().flat_map(|router| &router.tracks);
    tracks.chain(vrrp.groups.iter().flat_map(|group| &group.tracks)).filter_map(|track| match &track.what {
        Tracked::Service(name) => Some(name.as_str()),
        _ => None,
    })
}

impl Routers {
    /// Nobody yet. `socket` is the control socket: beside it lies the file that remembers addresses on interfaces of the kernel.
    pub fn new(mastery: Arc<Mastery>, workers: &Workers, socket: &Path) -> Routers {
        let stats: Vec<_> = workers.list.iter().map(|worker| worker.stats.clone()).collect();
        let beats = Arc::new(move || stats.iter().map(|stats| stats.loops.get()).collect());
        let mut kept = socket.as_os_str().to_owned();
        kept.push(".addresses");
        let wiring = Wiring { mastery, beats, kept: PathBuf::from(kept) };
        Routers { driver: None, wiring, tracked: Vec::new(), heard: (None, 0) }
    }

    /// Takes a configuration over. Virtual routers that it does not change are not touched. `is_up`: as for
    /// [`Routers::services`].
    ///
    /// # Errors
    /// [`DriverError`]: the first one could not be started.
    pub fn configure(
        &mut self,
        desired: &Desired,
        slot: impl Fn(&str) -> Option<RouterSlot>,
        is_up: impl Fn(&str) -> Option<bool>,
    ) -> Result<(), DriverError> {
        let vrrp = desired.vrrp.clone();
        let slots = vrrp.routers.iter().map(|router| slot(&router.name).unwrap_or_default()).collect();
        let plan = Plan { vrrp, slots };
        match &self.driver {
            Some(driver) => driver.configure(plan),
            None if plan.vrrp.routers.is_empty() => return Ok(()),
            None => self.driver = Some(Driver::start(plan, self.wiring.clone())?),
        }
        self.tracked = tracked_services(&desired.vrrp).map(|name| (name.to_owned(), false)).collect();
        self.tracked.sort_unstable();
        self.tracked.dedup();
        self.tell(is_up, true);
        Ok(())
    }

    /// Says which services have their quorum (`None`: there is no such service), if that changed.
    pub fn services(&mut self, is_up: impl Fn(&str) -> Option<bool>) {
        self.tell(is_up, false);
    }

    fn tell(&mut self, is_up: impl Fn(&str) -> Option<bool>, always: bool) {
        let Some(driver) = self.driver.as_ref().filter(|_| !self.tracked.is_empty()) else { return };
        let mut changed = always;
        for (name, known) in &mut self.tracked {
            let up = is_up(name).unwrap_or(false);
            changed |= up != *known;
            *known = up;
        }
        if changed {
            driver.services(self.tracked.clone());
        }
    }

    /// What VRRP says of itself; `None` where there never was a virtual router.
    pub fn status(&self) -> Option<Arc<VrrpStatus>> {
        self.driver.as_ref().map(Driver::status)
    }

    /// A number that grows while VRRP turns: at least once a second. `None` where there is no virtual router.
    pub fn turns(&mut self) -> Option<u64> {
        let now = self.status().filter(|status| !status.routers.is_empty())?;
        let (heard, count) = &mut self.heard;
        // Each word is a new one; the old one is kept so that its place is not taken by the next.
        if heard.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &now)) {
            *count += 1;
            *heard = Some(now);
        }
        Some(*count)
    }

    /// Whether VRRP runs, where it should.
    pub fn is_running(&self) -> bool {
        self.driver.as_ref().is_none_or(Driver::is_running)
    }

    /// Hands everything over to the other appliances, and waits for that; the workers go on meanwhile.
    pub fn stop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.stop();
        }
    }
}
