//! Two appliances on a site, brought up with their virtual routers: what the scenarios of pairs share.
//!
//! Owns the way from plans to a running pair, and the waiting for its masters. Never decides what is good enough.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::START;
use crate::lab::client::frames::Frames;
use crate::lab::client::probe::who_has;
use crate::lab::engine::EngineConfig;
use crate::lab::error::LabError;
use crate::lab::router::VrrpPlan;
use crate::lab::site::{CLIENT, Family, Site, SiteOptions, appliance};
use crate::lab::speaker::{Speaker, evenkeel};
use crate::lab::watch::Watch;

/// What a busy machine may add to a time of the protocol, for a scenario that is shown and not judged by it.
pub const SLACK: Duration = Duration::from_secs(2);

/// A pair that is up.
pub struct Pair {
    /// The appliances, the one with the higher priority first.
    pub speakers: [Speaker; 2],
    /// Who hears them.
    pub watch: Watch,
    /// Their network, last: everything else lives in it.
    pub site: Site,
}

impl Pair {
    /// A pair on a built site: both with the same configuration, each with its own plan. Nothing runs yet.
    pub fn new(site: Site, program: &Path, config: &EngineConfig, plans: [VrrpPlan; 2]) -> Result<Self, LabError> {
        Pair::of(site, program, [config.clone(), config.clone()], plans)
    }

    /// The same, each with its own configuration.
    pub fn of(site: Site, program: &Path, configs: [EngineConfig; 2], plans: [VrrpPlan; 2]) -> Result<Self, LabError> {
        let watch = Watch::start(&site, site.options.plan.arms[0])?;
        let [first, second] = plans;
        let [one, two] = configs.map(|config| evenkeel(program, &config));
        let speakers = [Speaker::new(0, one, first), Speaker::new(1, two, second)];
        Ok(Pair { speakers, watch, site })
    }

    /// A site for a pair.
    pub fn site(options: SiteOptions) -> Result<Site, LabError> {
        Site::build(SiteOptions { appliances: 2, ..options })
    }

    /// Starts both, and waits until each has said that it is there.
    pub fn start(&mut self) -> Result<(), LabError> {
        for number in [0, 1] {
            self.start_one(number)?;
        }
        Ok(())
    }

    /// Starts one and waits until its status has all its routers.
    pub fn start_one(&mut self, number: u8) -> Result<(), LabError> {
        let speaker = &mut self.speakers[usize::from(number)];
        speaker.start(&self.site)?;
        let count = speaker.plan().routers.len();
        if let Some(engine) = speaker.engine() {
            engine.await_status(START, "its virtual routers", |status| {
                status["vrrp"]["routers"].as_array().is_some_and(|routers| routers.len() == count)
            })?;
        }
        Ok(())
    }

    /// Waits until an appliance alone is master of the router `name`; what it and the other one said, if it does not come.
    pub fn await_master(&self, number: u8, name: &str, within: Duration) -> Result<(), LabError> {
        let plan = self.speakers[usize::from(number)].plan();
        let Some(router) = plan.routers.iter().find(|router| router.name == name) else {
            return Err(LabError::Unexpected(format!("{} has no router {name}", appliance(number))));
        };
        let (vrid, interval) = (router.vrid, router.interval);
        self.watch.await_only(number, vrid, interval, within).map(drop).map_err(|error| {
            let [first, second] = &self.speakers;
            LabError::Unexpected(format!("{error}\n{}\n{}", first.last_words(15), second.last_words(15)))
        })
    }

    /// The appliances that answer for an address, asked from the client.
    pub fn owners(&self, target: IpAddr) -> Result<BTreeSet<u8>, LabError> {
        let own = self.site.client_address(if target.is_ipv4() { Family::V4 } else { Family::V6 });
        self.owners_seen_from((CLIENT, own), self.site.options.plan.arms[0], target)
    }

    /// The appliances that answer on their `interface` for an address, asked by a node with the address `own`.
    pub fn owners_seen_from(
        &self,
        (node, own): (&str, IpAddr),
        interface: &str,
        target: IpAddr,
    ) -> Result<BTreeSet<u8>, LabError> {
        let mut frames = Frames::open(self.site.lab.node(node)?, "eth0")?;
        let mac = self.site.lab.mac(node, "eth0").unwrap_or_default();
        let answers = who_has(&mut frames, (mac, own), target, Duration::from_millis(120))?;
        let owner =
            |number: &u8| self.site.lab.mac(appliance(*number), interface).is_some_and(|m| answers.contains(&m));
        Ok([0, 1].into_iter().filter(owner).collect())
    }

    /// Waits until an appliance has logged something.
    pub fn await_words(&self, number: u8, words: &str, within: Duration) -> Result<(), LabError> {
        let speaker = &self.speakers[usize::from(number)];
        await_text(&format!("`{words}` in the log of {}", speaker.node()), within, || speaker.log(), words)
    }
}

/// Waits until a text has some words in it.
pub fn await_text(what: &str, within: Duration, text: impl Fn() -> String, words: &str) -> Result<(), LabError> {
    let start = Instant::now();
    while !text().contains(words) {
        if start.elapsed() > within {
            let text = text();
            let lines: Vec<&str> = text.lines().collect();
            let detail = format!("; it has:\n    {}", lines[lines.len().saturating_sub(15)..].join("\n    "));
            return Err(LabError::Timeout { what: what.to_owned(), after: within, detail });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
