//! Asking who else answers for the service addresses, and telling the log.
//!
//! Owns what is asked: the addresses of services by direct routing that are served here now, on their servers' segments.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Engine;
use crate::control::claims::ears::Ears;
use crate::control::claims::{Claims, Culprit, News, Question, Servers, probe};
use crate::model::{MacAddr, Method, Service};

/// The claims, and the socket that hears them.
pub(super) struct Listening {
    ears: Option<Ears>,
    claims: Claims,
    /// What the workers had counted, and who was the last one that they saw.
    counted: u64,
}

impl Listening {
    /// Opens the socket; without it only what reaches the workers is noticed.
    pub(super) fn open() -> Listening {
        let ears = Ears::open()
            .inspect_err(|error| {
                info!("nobody is asked who else answers for service addresses: no packet socket: {error}");
            })
            .ok();
        Listening { ears, claims: Claims::default(), counted: 0 }
    }
}

impl Engine {
    /// Asks, hears and tells; once a second.
    pub(super) fn look_for_claims(&mut self, now: Instant) {
        let now = now.saturating_duration_since(self.started);
        if let Some(ears) = &self.listening.ears {
            let own: BTreeSet<MacAddr> = self.tracker.facts().links.values().filter_map(|link| link.mac).collect();
            for (address, mac) in ears.hear() {
                // The address may have been handed to another appliance, or removed, since it was asked for.
                let snapshot = self.shared.snapshot.load();
                let Some(owner) = snapshot.ownership.owner(address.into()) else { continue };
                if !own.contains(&mac) && owner.mac != Some(mac) {
                    self.listening.claims.note(Some(address), mac, now);
                }
            }
        }
        self.note_counted(now);
        self.ask(now);
        // Servers are looked up by their Ethernet addresses only where there is someone to name.
        let servers = if self.listening.claims.is_empty() { Servers::new() } else { self.servers_by_mac() };
        for news in self.listening.claims.turn(&servers, now) {
            match news {
                News::Claimed(text) => warn!("{text}"),
                News::Gone(text) => info!("{text}"),
            }
        }
    }

    /// Claims that someone should look at now.
    pub(super) fn claim_warnings(&self) -> Vec<String> {
        if self.listening.claims.is_empty() {
            return Vec::new();
        }
        self.listening.claims.warnings(&self.servers_by_mac())
    }

    /// What workers saw by themselves: who announces an address, or asks in its name.
    fn note_counted(&mut self, now: Duration) {
        let stats = self.workers.list.iter().map(|worker| &worker.stats);
        let counted: u64 = stats.clone().map(|stats| stats.conflicts.get()).sum();
        if counted != self.listening.counted {
            self.listening.counted = counted;
            for stats in stats.filter(|stats| stats.conflicts.get() > 0) {
                let [_, _, mac @ ..] = stats.conflict_mac.get().to_be_bytes();
                self.listening.claims.note(None, MacAddr(mac), now);
            }
        }
    }

    fn ask(&mut self, now: Duration) {
        if self.listening.ears.is_none() {
            return;
        }
        if self.listening.claims.is_due(now) {
            let questions = self.questions();
            self.listening.claims.begin(questions, now);
        }
        let due = self.listening.claims.take();
        let links: BTreeMap<&str, (u32, MacAddr)> = self
            .tracker
            .facts()
            .links
            .values()
            .filter(|link| link.up && link.running)
            .filter_map(|link| Some((link.name.as_str(), (link.index, link.mac?))))
            .collect();
        let frames: Vec<(u32, Vec<u8>)> = due
            .iter()
            .filter(|question| self.serves(question.address.into()))
            .filter_map(|question| {
                let name = &self.report.interfaces.get(usize::from(question.port))?.name;
                let &(index, mac) = links.get(name.as_str())?;
                Some((index, probe(question.address, mac, question.vlan)))
            })
            .collect();
        if let Some(ears) = &self.listening.ears {
            // Where the kernel cannot list its interfaces now, the next round does.
            let _ = ears.ask(&frames);
        }
    }

    /// Every service address with servers by direct routing, on each segment that has some of them.
    fn questions(&self) -> BTreeSet<Question> {
        let mut all = BTreeSet::new();
        for service in &self.desired.services {
            let IpAddr::V4(address) = service.key.address else { continue };
            if self.serves(address.into()) {
                all.extend(self.hops(service).map(|(_, hop)| Question { address, port: hop.port, vlan: hop.vlan }));
            }
        }
        all
    }

    fn hops(&self, service: &Service) -> impl Iterator<Item = (IpAddr, crate::control::nexthop::NextHop)> {
        let direct = service.all_servers().filter(|server| server.method == Method::Dr);
        direct.filter_map(|server| Some((server.address, self.tracker.reach(service, server).ok()?)))
    }

    fn servers_by_mac(&self) -> Servers {
        let mut all = Servers::new();
        for service in &self.desired.services {
            for (server, hop) in self.hops(service) {
                let culprit = Culprit { server, service: service.name.clone() };
                all.entry(hop.mac).or_default().insert(culprit);
            }
        }
        all
    }

    /// Whether this appliance answers for the address now.
    fn serves(&self, address: IpAddr) -> bool {
        self.shared.snapshot.load().ownership.owner(address).is_some()
    }
}
