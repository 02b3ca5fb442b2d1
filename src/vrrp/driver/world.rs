//! What this machine is for the routers: its interfaces and their addresses.
//!
//! Owns what follows from the kernel's news and from what came of jobs: sockets, source addresses, conditions. Never waits for
//! an answer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ports::needs;
use super::turn::{LISTENER, SECOND, Turn};
use crate::model::{Place, Tracked, VirtualAddress, VirtualRouter, Vrrp};
use crate::vrrp::election::{Level, Source};
use crate::vrrp::kernel::{Job, Outcome};
use crate::vrrp::link::News;
use crate::vrrp::track::Observation;

/// How far the sockets for single peers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Speaking {
    asked: Option<(bool, bool)>,
    failed: bool,
    pub(super) retry: Option<Duration>,
}

impl Turn {
    /// Reads what the kernel tells of interfaces. Returns whether something changed.
    pub(super) fn take_news(&mut self) -> bool {
        let mut news = Vec::new();
        let drained = self.listener.drain(&mut news);
        if drained.more {
            self.unread.insert(LISTENER);
        }
        if drained.lost {
            self.ask_for_links();
        }
        let mut changed = false;
        for one in &news {
            changed |= self.links.apply(one);
            if let News::NoAddress(index, address) = one {
                self.put_back(*index, *address);
            }
        }
        if let Some(since) = &mut self.since {
            since.extend(news);
        }
        changed
    }

    /// An address of a router that is served is gone from its interface, and not by this program: with the first address of
    /// a network, the kernel removes the others.
    fn put_back(&mut self, index: u32, address: IpAddr) {
        let on = self.links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        for runner in self.runners.values_mut().filter(|runner| runner.owned) {
            let router = &runner.spec.router;
            let has = |known: &VirtualAddress| {
                known.address == address && on.as_ref() == Some(known.device.as_ref().unwrap_or(&router.interface))
            };
            if router.place == Place::Kernel && router.all_addresses().any(has) {
                runner.putting += 1;
                runner.awaiting = Some(runner.awaiting.unwrap_or_default().max(1));
                self.kernel.ask(Job::Put(Arc::clone(router)));
            }
        }
    }

    /// When the interfaces are to be asked for again; not while they are.
    pub(super) fn asks_again(&self) -> Option<Duration> {
        self.ask_again.filter(|_| self.since.is_none())
    }

    pub(super) fn ask_for_links(&mut self) {
        // What is being asked for may be older than the loss: it is asked for again when it has come.
        if self.since.is_some() {
            self.ask_again = Some(Duration::ZERO);
            return;
        }
        self.ask_again = None;
        self.since = Some(Vec::new());
        self.kernel.ask(Job::Links);
    }

    /// Takes what came of a job. Returns whether interfaces or sockets changed.
    pub(super) fn take_outcome(&mut self, outcome: Outcome, now: Duration) -> bool {
        match outcome {
            Outcome::Links(Ok(mut links)) => {
                for one in self.since.take().unwrap_or_default() {
                    links.apply(&one);
                }
                self.links = links;
                self.known = true;
                true
            }
            Outcome::Links(Err(error)) => {
                self.log(Level::Error, format!("cannot read the interfaces ({error}): trying again"));
                self.since = None;
                self.ask_again = Some(now + SECOND);
                false
            }
            Outcome::Port { interface, index, forwards, port } => {
                let about = (interface.as_str(), index, forwards);
                if let Some(error) = self.ports.opened(about, port, self.poll.registry(), now) {
                    let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
                    self.log(Level::Error, format!("{error}{why}"));
                }
                // What came in before it was registered has no event.
                self.unread.extend(self.ports.token_of(&interface));
                true
            }
            Outcome::Speaker(Ok(speaker)) => {
                self.speaker = Some(speaker);
                self.speaking = Speaking { asked: self.speaking.asked, ..Speaking::default() };
                true
            }
            Outcome::Speaker(Err(error)) => {
                if !self.speaking.failed {
                    self.log(Level::Error, error.to_string());
                }
                self.speaking = Speaking { asked: None, failed: true, retry: Some(now + 5 * SECOND) };
                true
            }
            Outcome::Put(router) => {
                self.announce_put(&router);
                false
            }
        }
    }

    /// Brings the sockets and what the election knows of this machine in line with its interfaces.
    pub(super) fn settle(&mut self, now: Duration) {
        self.runners.retain(|_, runner| runner.owned || !runner.gone);
        for job in self.ports.settle(&needs(self.runners.values().map(|runner| &*runner.spec.router)), &self.links, now)
        {
            self.kernel.ask(job);
        }
        let single = self.runners.values().map(|runner| &runner.spec.router).filter(|router| router.unicast.is_some());
        let (v6, v4): (Vec<_>, Vec<_>) = single.partition(|router| router.is_v6());
        let wanted = (!v4.is_empty(), !v6.is_empty());
        let due = self.speaking.retry.is_none_or(|at| at <= now);
        if wanted == (false, false) {
            self.speaking.retry = None;
        } else if self.speaking.asked != Some(wanted) && due {
            self.speaking = Speaking { asked: Some(wanted), retry: None, ..self.speaking };
            self.kernel.ask(Job::Speak(wanted.0, wanted.1));
        }
        if !self.known {
            return;
        }
        for name in self.watched.clone() {
            let usable = self.links.named(&name).is_some_and(|link| link.usable);
            self.observe(Observation::interface(&name, usable), now);
        }
        let sources: Vec<(String, Option<Source>)> = self
            .runners
            .values()
            .filter(|runner| !runner.gone)
            .filter_map(|runner| Some((runner, self.source(&runner.spec.router)?)))
            .filter(|(runner, source)| runner.source != Some(*source))
            .map(|(runner, source)| (runner.spec.router.name.clone(), source))
            .collect();
        for (name, source) in sources {
            if let Some(runner) = self.runners.get_mut(&name) {
                runner.source = Some(source);
            }
            self.election.source(&name, source, now, &mut self.out);
        }
        self.act();
    }

    /// Where a router's adverts come from; `None` as long as that is being found out.
    fn source(&self, router: &VirtualRouter) -> Option<Option<Source>> {
        let Some(link) = self.links.named(&router.interface) else { return Some(None) };
        let entry = self.ports.get(&router.interface)?;
        if entry.port.is_none() {
            return entry.failed.then_some(None);
        }
        if router.unicast.is_some() && !self.speaker.as_ref().is_some_and(|speaker| speaker.speaks(!router.is_v6())) {
            return self.speaking.failed.then_some(None);
        }
        let own = |address: IpAddr| !self.virtuals.contains(&address);
        // An owner may have nothing but the address that it owns.
        let any = |address: IpAddr| own(address) || router.priority == 255;
        let far = router.unicast.iter().flat_map(|unicast| &unicast.peers).any(|peer| match peer {
            IpAddr::V6(peer) => !peer.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        });
        let found = || -> Option<IpAddr> {
            match router.is_v6() {
                false => link.first_v4(own).or_else(|| link.first_v4(any)).map(IpAddr::V4),
                // A peer that is not on the link cannot answer an address of the link.
                true => link.first_v6(!far, own).or_else(|| link.first_v6(!far, any)).map(IpAddr::V6),
            }
        };
        let mac = link.mac.unwrap_or_default();
        Some(router.source.or_else(found).map(|address| Source { address, mac }))
    }
}

/// All interfaces whose state matters.
pub(super) fn interfaces_of(vrrp: &Vrrp) -> BTreeSet<String> {
    let tracks = vrrp.routers.iter().flat_map(|router| &router.tracks);
    let shared = vrrp.groups.iter().flat_map(|group| &group.tracks);
    let tracked = tracks.chain(shared).filter_map(|track| match &track.what {
        Tracked::Interface(name) => Some(name),
        _ => None,
    });
    tracked.chain(vrrp.routers.iter().map(|router| &router.interface)).cloned().collect()
}
