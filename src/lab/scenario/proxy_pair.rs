//! The deployment `proxy-pair`: two boxes with Squid, two virtual routers, each box master of one address. What was done to
//! it with keepalived is done here, and both results are shown.
//!
//! Owns the rows of its table. The addresses are the kernel's, with labels, as Squid needs them; one router speaks by
//! multicast, the other one to its single peer.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::pairs::{Pair, SLACK, await_text};
use super::report::{Report, Row, millis};
use super::{HTTP, RunOptions, START, imported};
use crate::lab::client::load::{Load, LoadPlan, Tally, requests};
use crate::lab::client::pulse::Pulse;
use crate::lab::engine::EngineConfig;
use crate::lab::error::{Doing, LabError};
use crate::lab::netlink::Cidr;
use crate::lab::router::VrrpPlan;
use crate::lab::server::squid::{self, Squid};
use crate::lab::server::{nginx, udp};
use crate::lab::site::links::SIDE_INTERFACE;
use crate::lab::site::{APPLIANCE, CLIENT, Family, Plan, Reach, Site, SiteOptions, USUAL, appliance};

/// Its network: the addresses and interface names of the site's own configuration, inside the lab's namespaces.
pub const SITE: SiteOptions = SiteOptions {
    servers: 1,
    reach: Reach::FullNat,
    appliances: 2,
    plan: Plan { front: [192, 168, 2], vip: 101, client: 50, appliance: 251, ..USUAL },
    ..SiteOptions::USUAL
};

/// The routers; each box is master of the one with its own number.
const ROUTERS: [(&str, u8, &str); 2] = [("proxy_ip1", 1, "192.168.2.101/24"), ("proxy_ip2", 2, "192.168.2.102/24")];
/// The port of an echo beside the proxy, which shows where the address is and how long it is away.
const ECHO: u16 = 7;
/// Requests after a move, and after the return.
const AFTER: u64 = 20;
/// A service is steady when nothing was lost for this long.
const STEADY: Duration = Duration::from_millis(300);

/// How fast the scenario's own clocks go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time from one run of the script to the next; it may take two thirds of that.
    pub script: Duration,
}

impl Pace {
    /// That of the site.
    pub const SITE: Pace = Pace { script: Duration::from_secs(3) };
}

/// A pair of boxes with their proxies.
pub struct Stage {
    pair: Pair,
    squids: Vec<Squid>,
}

impl Stage {
    /// Builds the network and starts everything.
    pub fn set(options: &RunOptions, pace: Pace) -> Result<Self, LabError> {
        let mut site = Pair::site(SITE)?;
        site.add_side()?;
        nginx::start_all(&site, HTTP)?;
        let mut squids = Vec::new();
        for number in 0..2 {
            let node = appliance(number);
            // Programs that listen on an address before it is there.
            site.lab.setting(node, "net/ipv4/ip_nonlocal_bind", "1")?;
            // A box with a proxy is no router: what is for an address that it has no more is not handed on.
            site.lab.setting(node, "net/ipv4/ip_forward", "0")?;
            squids.push(Squid::start(&site, node, site.address_of(number, Family::V4))?);
            for (_, _, address) in ROUTERS {
                udp::start(&mut site, node, cidr(address)?.address, ECHO)?;
            }
        }
        let imported = imported::keepalived(&site, &options.program, "proxy-pair")?;
        let (first, second) =
            (part(&site, 0, &squids[0], pace, &imported)?, part(&site, 1, &squids[1], pace, &imported)?);
        let mut pair = Pair::of(site, &options.program, [first.0, second.0], [first.1, second.1])?;
        pair.start()?;
        for (number, (name, _, _)) in [0, 1].into_iter().zip(ROUTERS) {
            pair.await_master(number, name, START + pace.script * 3)?;
        }
        Ok(Stage { pair, squids })
    }

    /// Its network.
    pub fn network(&self) -> &Site {
        &self.pair.site
    }

    /// The appliances' last words.
    pub fn last_words(&self) -> String {
        self.pair.speakers.iter().map(|speaker| speaker.last_words(20)).collect::<Vec<_>>().join("\n")
    }

    /// Does what was done to the site, and reports.
    pub fn run(&mut self, pace: Pace) -> Result<Report, LabError> {
        let client = self.pair.site.lab.node(CLIENT)?;
        let origin = format!("http://{}/", self.pair.site.servers[0].v4);
        let through = |address: &str| -> Result<LoadPlan, LabError> {
            let target = SocketAddr::new(cidr(address)?.address, squid::PORT);
            Ok(LoadPlan { path: origin.clone(), rate: 100, ..LoadPlan::new(target) })
        };
        let mut own = Vec::new();
        for (number, (name, _, address)) in [0u8, 1].into_iter().zip(ROUTERS) {
            let tally = requests(client, &through(address)?, 10)?;
            let owners = self.pair.owners(cidr(address)?.address)?;
            own.push((name, number, tally, owners));
        }
        let plan = through(ROUTERS[0].2)?;
        let load = Load::start(client, &plan)?;
        let mut moves = vec![
            self.cable(SIDE_INTERFACE, "interface eth1 is down", &plan)?,
            self.cable("eth0", "interface eth0 is down", &plan)?,
        ];
        let tally = load.stop();
        // Until the script notices, requests are refused: there is nobody to answer them.
        moves.push(self.proxy(pace, &plan)?);

        let mut report = Report::new("proxy-pair", &tally);
        for (name, number, tally, owners) in own {
            let right = tally.failures == 0 && tally.answered() == 10;
            report.check(format!("requests pass by {name}"), right, tally.reasons.join("; "));
            let seen = format!("{owners:?}");
            report.check(format!("{name} is at {} alone", appliance(number)), owners == [number].into(), seen);
        }
        for step in &moves {
            report.check(format!("{}: the address moves, and moves back", step.what), step.moved, &step.here);
            let (answered, failed) = (step.requests.answered(), step.requests.failures);
            let seen = format!("{answered} answers, {failed} failed: {}", step.requests.reasons.join("; "));
            let what = format!("{}: requests pass after it, and after the return", step.what);
            report.check(what, failed == 0 && answered == 2 * AFTER, seen);
            report.check(format!("{}: it is logged why", step.what), step.why.is_ok(), said(&step.why));
            report.check(
                format!("{}: the program under `notify` is told", step.what),
                step.told.is_ok(),
                said(&step.told),
            );
            report.rows.push(Row { what: step.what, there: "yes", here: step.here.clone() });
        }
        judge_load(&tally, &mut report);
        Ok(report)
    }

    /// Pulls a cable of the first box and puts it back.
    fn cable(&mut self, interface: &'static str, why: &'static str, asked: &LoadPlan) -> Result<Move, LabError> {
        let what = if interface == SIDE_INTERFACE { "the tracked NIC goes down" } else { "the second NIC goes down" };
        self.step(
            (what, why),
            asked,
            Duration::ZERO,
            |stage| stage.pair.site.plug(APPLIANCE, interface, false),
            |stage| stage.pair.site.plug(APPLIANCE, interface, true),
        )
    }

    /// Stops the proxy of the first box and starts it again.
    fn proxy(&mut self, pace: Pace, asked: &LoadPlan) -> Result<Move, LabError> {
        let stop = |stage: &mut Stage| {
            stage.squids[0].stop();
            Ok(())
        };
        let start = |stage: &mut Stage| stage.squids[0].start_again(&stage.pair.site);
        // Two runs that fail, or succeed, and the rest of the one before.
        self.step(("the proxy stops", "script chk_squid_service"), asked, pace.script * 3, stop, start)
    }

    /// Breaks something, watches the first address move, mends it, and watches the address come back.
    fn step(
        &mut self,
        (what, why): (&'static str, &str),
        asked: &LoadPlan,
        notice: Duration,
        breaks: impl FnOnce(&mut Stage) -> Result<(), LabError>,
        mends: impl FnOnce(&mut Stage) -> Result<(), LabError>,
    ) -> Result<Move, LabError> {
        let (name, _, address) = ROUTERS[0];
        let client = self.pair.site.lab.node(CLIENT)?;
        let pulse = Pulse::start(client, SocketAddr::new(cidr(address)?.address, ECHO))?;
        pulse.await_steady(STEADY, START)?;
        let (logged, noted) = (self.pair.speakers[0].log().len(), self.told().len());
        let start = Instant::now();
        breaks(self)?;
        let down = self.pair.speakers[1].plan().routers[0].master_down();
        self.pair.await_master(1, name, notice + down + SLACK)?;
        let moved = start.elapsed();
        let away = self.pair.owners(cidr(address)?.address)?;
        pulse.await_steady(STEADY, START)?;
        let gap = pulse.since(start).longest();
        let mut passed = requests(self.pair.site.lab.node(CLIENT)?, asked, AFTER as u32)?;
        let log = || self.pair.speakers[0].log().get(logged..).unwrap_or_default().to_owned();
        let logs = await_text(&format!("the reason `{why}` in the log"), SLACK, log, why)
            .and_then(|()| await_text("the change in the log", SLACK, log, &format!("({name}) Entering FAULT STATE")));
        let fault = format!("INSTANCE {name} FAULT");
        let heard = || self.told().get(noted..).unwrap_or_default().to_owned();
        let mut told = await_text("the notification of the fault", SLACK, heard, &fault);

        let start = Instant::now();
        mends(self)?;
        let down = self.pair.speakers[0].plan().routers[0].master_down();
        self.pair.await_master(0, name, notice + down + SLACK)?;
        let returned = start.elapsed();
        pulse.await_steady(STEADY, START)?;
        let back = self.pair.owners(cidr(address)?.address)?;
        let gap_back = pulse.since(start).longest();
        let later = requests(self.pair.site.lab.node(CLIENT)?, asked, AFTER as u32)?;
        passed.add(&later);
        let heard = || self.told().get(noted..).unwrap_or_default().to_owned();
        told = told.and_then(|()| {
            await_text("the notification of the return", SLACK, heard, &format!("INSTANCE {name} MASTER"))
        });
        let here = format!(
            "moved after {:.2} s, {} without answers; back after {:.2} s, {}",
            moved.as_secs_f64(),
            millis(gap),
            returned.as_secs_f64(),
            millis(gap_back)
        );
        let moved = away == [1].into() && back == [0].into();
        Ok(Move { what, here, moved, why: logs, told, requests: passed })
    }

    /// What the program under `notify` of the first box has written down.
    fn told(&self) -> String {
        fs::read_to_string(notes(&self.pair.site, 0)).unwrap_or_default()
    }
}

/// What came of one fail-over.
struct Move {
    what: &'static str,
    here: String,
    moved: bool,
    why: Result<(), LabError>,
    told: Result<(), LabError>,
    requests: Tally,
}

/// Builds the scenario, runs it and reports; for tests and the command line.
pub fn run(options: &RunOptions, pace: Pace) -> Result<Report, LabError> {
    Stage::set(options, pace)?.run(pace)
}

/// A box's part of the imported configuration, which is the first box's. The programs are the lab's; the second box has the
/// other address as its own, and speaks to the first one.
fn part(
    site: &Site,
    number: u8,
    squid: &Squid,
    pace: Pace,
    imported: &EngineConfig,
) -> Result<(EngineConfig, VrrpPlan), LabError> {
    let notify = site.lab.path(&format!("{}-proxy-state", appliance(number)));
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\n", notes(site, number).display());
    let write =
        || fs::write(&notify, script).and_then(|()| fs::set_permissions(&notify, Permissions::from_mode(0o755)));
    write().doing(|| format!("writing {}", notify.display()))?;
    let mut config = imported.clone();
    config.each("track_script", |script| {
        script.insert("script".into(), squid.check().into());
        if pace.script != Pace::SITE.script {
            script.insert("interval".into(), pace.script.as_secs_f64().into());
            script.insert("timeout".into(), (pace.script * 2 / 3).as_secs_f64().into());
        }
    });
    let mut plan = imported::routers(&mut config)?;
    if plan.routers.len() != ROUTERS.len() {
        return Err(LabError::Unexpected(format!("{} routers were imported", plan.routers.len())));
    }
    for router in &mut plan.routers {
        if let Some(program) = router.more.get_mut("notify") {
            *program = notify.display().to_string().into();
        }
        if number == 1 {
            let own = router.priority != 255;
            router.priority = if own { 255 } else { 100 };
            router.starts_as_master = own;
            if router.more.contains_key("peers") {
                let address = |number| site.address_of(number, Family::V4).to_string();
                router.more.insert("source".into(), address(1).into());
                router.more.insert("peers".into(), vec![address(0)].into());
            }
        }
    }
    Ok((config, plan))
}

fn notes(site: &Site, number: u8) -> PathBuf {
    site.lab.path(&format!("{}-proxy-state.notes", appliance(number)))
}

fn cidr(text: &str) -> Result<Cidr, LabError> {
    text.parse().map_err(|error| LabError::Unexpected(format!("{error}")))
}

/// Requests that were under way when the address moved may fail, one a client and move; no other.
fn judge_load(tally: &Tally, report: &mut Report) {
    const MOVES: u64 = 4;
    const CLIENTS: u64 = 4;
    let seen = format!("{} answers, {} failed: {}", tally.answered(), tally.failures, tally.reasons.join("; "));
    let good = tally.answered() > 0 && tally.failures <= MOVES * CLIENTS;
    report.check("no request fails beyond the moves themselves", good, seen);
}

fn said(outcome: &Result<(), LabError>) -> String {
    outcome.as_ref().err().map(ToString::to_string).unwrap_or_default()
}
