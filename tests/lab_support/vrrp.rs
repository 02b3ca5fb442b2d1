//! Two appliances that speak VRRP, and what their segment hears of them.
//!
//! Owns the way from a plan to a running pair. Every failure panics with both sides' last words.
//! `EVENKEEL_LAB_SPEAKERS=keepalived` puts the real keepalived in the place of every Evenkeel: the same meters then measure
//! the reference.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant, SystemTime};

use evenkeel::lab::client::frames::Frames;
use evenkeel::lab::client::probe::who_has;
use evenkeel::lab::engine::EngineConfig;
use evenkeel::lab::error::LabError;
use evenkeel::lab::process;
use evenkeel::lab::router::VrrpPlan;
use evenkeel::lab::scenario::base_config;
use evenkeel::lab::site::{CLIENT, Family, Site, SiteOptions, appliance};
use evenkeel::lab::speaker::{Make, Speaker, evenkeel};
use evenkeel::lab::watch::{Heard, Watch};
use evenkeel::model::{MacAddr, Place};

use super::program;

/// The router's number in all of these tests.
pub const VRID: u8 = 51;
/// How long a program may take to start.
pub const START: Duration = Duration::from_secs(15);
/// What a busy machine may add to a time of the protocol. `lab_failover` holds the tight bounds.
pub const SLACK: Duration = Duration::from_millis(400);

/// Which program an appliance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Evenkeel,
    Keepalived,
}

/// Whether the other side of these tests is here; says so when not, and panics instead under CI.
pub fn keepalived_is_there() -> bool {
    let there = process::program("keepalived").is_some() && process::program("tcpdump").is_some();
    assert!(there || std::env::var_os("CI").is_none(), "keepalived and tcpdump are needed, and CI skips nothing");
    if !there {
        eprintln!("SKIPPED: keepalived or tcpdump is not installed");
    }
    there
}

/// Two appliances on one segment, and a listener.
pub struct Pair {
    pub watch: Watch,
    pub speakers: [Speaker; 2],
    pub site: Site,
}

/// One arm, two appliances, two servers by direct routing.
pub const PAIR: SiteOptions = SiteOptions { appliances: 2, servers: 2, ..SiteOptions::USUAL };

impl Pair {
    /// Builds a pair; nothing runs yet. `plan` says what each appliance is told, `config` adds to Evenkeel's base.
    pub fn build(
        options: SiteOptions,
        who: [Who; 2],
        config: impl Fn(&Site, &mut EngineConfig),
        plan: impl Fn(&Site, u8) -> VrrpPlan,
    ) -> Pair {
        let build = || -> Result<Pair, LabError> {
            let site = Site::build(options)?;
            let watch = Watch::start(&site, "eth0")?;
            let mut base = base_config(&site, Family::V4);
            config(&site, &mut base);
            let only = std::env::var("EVENKEEL_LAB_SPEAKERS").is_ok_and(|word| word == "keepalived");
            let speaker = |number: u8| {
                let mut plan = plan(&site, number);
                let make = match who[usize::from(number)] {
                    Who::Evenkeel if !only => evenkeel(&program(), &base),
                    _ => Make::Keepalived,
                };
                if matches!(make, Make::Keepalived) {
                    plan.routers.iter_mut().for_each(|router| router.place = Place::Kernel);
                }
                Speaker::new(number, make, plan)
            };
            Ok(Pair { speakers: [speaker(0), speaker(1)], watch, site })
        };
        build().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The first router that an appliance is told of.
    pub fn router(&self, number: u8) -> &evenkeel::lab::router::RouterPlan {
        &self.speakers[usize::from(number)].plan().routers[0]
    }

    pub fn start(&mut self, number: u8) {
        let started = self.speakers[usize::from(number)].start(&self.site);
        started.unwrap_or_else(|error| self.fail(&error.to_string()));
    }

    /// Ends with everything that is known.
    pub fn fail(&self, why: &str) -> ! {
        let [first, second] = &self.speakers;
        let status = |speaker: &Speaker| match speaker.engine().map(|engine| engine.status_for_people()) {
            Some(Ok(status)) => format!("\n{status}"),
            Some(Err(error)) => format!("\n{error}"),
            None => String::new(),
        };
        panic!(
            "{why}\n{}\n{}{}{}\nadverts:\n    {}",
            first.last_words(25),
            second.last_words(25),
            status(first),
            status(second),
            self.watch.tail(VRID, 12)
        );
    }

    pub fn must<T>(&self, outcome: Result<T, LabError>) -> T {
        outcome.unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    /// Waits until appliance `number` alone is master; the time of its first advert.
    pub fn await_master(&self, number: u8, within: Duration) -> SystemTime {
        let interval = self.router(number).interval;
        self.must(self.watch.await_only(number, VRID, interval, within))
    }

    /// Waits for the first advert of `number` that came after `since`.
    pub fn first_advert(&self, number: u8, since: SystemTime, within: Duration) -> SystemTime {
        let start = Instant::now();
        loop {
            let adverts = self.watch.adverts(VRID, since);
            let first = adverts.iter().find(|heard| heard.from == number && priority(heard) > 0);
            if let Some(first) = first {
                return first.at;
            }
            if start.elapsed() > within {
                self.fail(&format!("no advert of {} within {within:?}", appliance(number)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The last advert of `number`, with priority 0 or without.
    pub fn last_advert(&self, number: u8, farewell: bool) -> SystemTime {
        let all = self.watch.adverts(VRID, SystemTime::UNIX_EPOCH);
        let own = |heard: &&Heard| heard.from == number && (priority(heard) == 0) == farewell;
        let Some(last) = all.iter().rev().find(own) else {
            self.fail(&format!("no advert of {}, farewell: {farewell}", appliance(number)));
        };
        last.at
    }

    /// Who answers for an address.
    pub fn owners(&self, target: IpAddr) -> BTreeSet<MacAddr> {
        let client = self.site.lab.node(CLIENT).unwrap();
        let mut frames = Frames::open(client, "eth0").unwrap();
        let mac = self.site.lab.mac(CLIENT, "eth0").unwrap();
        let family = if target.is_ipv4() { Family::V4 } else { Family::V6 };
        let own = (mac, self.site.client_address(family));
        who_has(&mut frames, own, target, Duration::from_millis(120)).unwrap()
    }

    /// Exactly one appliance answers for an address.
    pub fn must_own(&self, number: u8, target: IpAddr) {
        let mac = self.site.lab.mac(appliance(number), "eth0").unwrap();
        // A new master's kernel gets the address after its advert, or the engine's worker has its next turn.
        let start = Instant::now();
        loop {
            let owners = self.owners(target);
            if owners == BTreeSet::from([mac]) {
                return;
            }
            if start.elapsed() > Duration::from_secs(2) {
                self.fail(&format!("{target} belongs to {} ({mac}), but {owners:?} answer", appliance(number)));
            }
        }
    }

    /// Waits until an appliance has said something.
    pub fn await_words(&self, number: u8, words: &str, within: Duration) {
        let start = Instant::now();
        while !self.speakers[usize::from(number)].log().contains(words) {
            if start.elapsed() > within {
                self.fail(&format!("{} did not say `{words}`", appliance(number)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The priority in an advert.
pub fn priority(heard: &Heard) -> u8 {
    heard.advert().map_or(0, |advert| advert.priority)
}

/// The link-local address that a kernel makes from an Ethernet address (RFC 4291, appendix A).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
