//! The deployment `haproxy-pair`: two boxes with HAProxy, one address, VRRP version 2 with a password. What was done to it
//! with keepalived is done here, and both results are shown.
//!
//! Owns the rows of its table: fail-over and fail-back under requests, the page of statistics, the fail-back by hand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use toml::Table;

use super::pairs::{Pair, SLACK};
use super::report::{Report, Row, millis};
use super::{HTTP, RunOptions, START, imported};
use crate::lab::client::load::{Load, LoadPlan, Tally, requests};
use crate::lab::client::pulse::Pulse;
use crate::lab::error::LabError;
use crate::lab::netlink::Cidr;
use crate::lab::process::Process;
use crate::lab::router::VrrpPlan;
use crate::lab::server::haproxy::{self, STATISTICS, STATISTICS_USER};
use crate::lab::server::{nginx, udp};
use crate::lab::site::{CLIENT, Family, Network, Plan, Reach, Site, SiteOptions, USUAL, appliance};

/// Its network: the addresses and interface names of the site's own configuration, inside the lab's namespaces.
pub const SITE: SiteOptions = SiteOptions {
    servers: 2,
    reach: Reach::FullNat,
    appliances: 2,
    plan: Plan { front: [192, 168, 219], vip: 253, client: 50, appliance: 128, ..USUAL },
    ..SiteOptions::USUAL
};

const ROUTER: &str = "VI_1";
const ECHO: u16 = 7;
/// The address from which the first box asks the second one; the next is the second box's.
const LOCALS: u8 = 60;
const STEADY: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(5);

/// How often HAProxy checks its servers at the site.
pub const CHECKS: Duration = Duration::from_secs(2);

/// A pair of boxes with their HAProxy.
pub struct Stage {
    pair: Pair,
    imported: VrrpPlan,
    /// The imported services, which are in force at the end alone.
    services: Vec<Table>,
    checks: Duration,
    proxies: Vec<Process>,
    web: Vec<Process>,
}

impl Stage {
    /// Builds the network and starts everything.
    pub fn set(options: &RunOptions, checks: Duration) -> Result<Self, LabError> {
        let mut site = Pair::site(SITE)?;
        let web = nginx::start_all(&site, HTTP)?;
        let vip = site.vip(Family::V4);
        let mut proxies = Vec::new();
        for number in 0..2 {
            let node = appliance(number);
            site.lab.setting(node, "net/ipv4/ip_nonlocal_bind", "1")?;
            // A box with a proxy is no router: what is for an address that it has no more is not handed on.
            site.lab.setting(node, "net/ipv4/ip_forward", "0")?;
            proxies.push(haproxy::balance(&site, node, site.address_of(number, Family::V4), checks)?);
            udp::start(&mut site, node, vip, ECHO)?;
        }
        let mut config = imported::keepalived(&site, &options.program, "haproxy-pair")?;
        let plan = imported::routers(&mut config)?;
        let plans = [part(&plan, 0, true), part(&plan, 1, true)];
        let services = config.take("service");
        let mut pair = Pair::new(site, &options.program, &config, plans)?;
        pair.start()?;
        pair.await_master(0, ROUTER, START)?;
        Ok(Stage { pair, imported: plan, services, checks, proxies, web })
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
    pub fn run(&mut self) -> Result<Report, LabError> {
        let target = self.pair.site.vip_port(Family::V4, HTTP);
        let client = self.pair.site.lab.node(CLIENT)?;
        let load = Load::start(client, &LoadPlan { rate: 100, ..LoadPlan::new(target) })?;
        let mut steps = Vec::new();
        let mut step = |stage: &mut Stage, what, there, work: fn(&mut Stage) -> Result<String, LabError>| {
            let before = load.tally();
            let here = work(stage)?;
            steps.push((what, there, here, load.tally().since(&before)));
            Ok::<(), LabError>(())
        };
        step(self, "one box is shut down: the other one takes over", "yes, 1-2 s", Stage::shut_down)?;
        step(self, "it starts again: the address comes back", "yes", Stage::comes_back)?;
        step(self, "one box dies: the other one takes over", "yes, about 5 s", Stage::dies)?;
        step(self, "it starts again after that", "yes", Stage::comes_back)?;
        step(self, "`nopreempt`: it stays away, and comes back by hand", "yes", Stage::by_hand)?;
        step(self, "a web server stops: out after 5 checks; back after 2", "yes, every 2 s", Stage::web_server)?;
        let tally = load.stop();

        let mut report = Report::new("haproxy-pair", &tally);
        for (what, there, here, tally) in steps {
            // Four clients, each with at most one request under way at each of at most two moves.
            let good = tally.failures <= 8 && tally.answered() > 0;
            let seen = format!("{} answers, {} failed {}", tally.answered(), tally.failures, tally.reasons.join("; "));
            report.check(format!("{what}: no request fails beyond the switch itself"), good, seen);
            report.rows.push(Row { what, there, here });
        }
        self.statistics(&mut report)?;
        self.virtual_server(&mut report)?;
        Ok(report)
    }

    /// Ends the first box's VRRP; how long the address was away.
    fn shut_down(&mut self) -> Result<String, LabError> {
        self.moving(0, 1, |stage| stage.pair.speakers[0].ask_to_end().and_then(|()| stage.pair.speakers[0].await_end()))
    }

    /// Pulls the first box's cable and kills its VRRP.
    fn dies(&mut self) -> Result<String, LabError> {
        let moved = self.moving(0, 1, |stage| {
            stage.pair.site.plug(appliance(0), "eth0", false)?;
            stage.pair.speakers[0].kill();
            Ok(())
        })?;
        self.pair.site.plug(appliance(0), "eth0", true)?;
        Ok(moved)
    }

    fn comes_back(&mut self) -> Result<String, LabError> {
        self.moving(1, 0, |stage| stage.pair.start_one(0))
    }

    /// Without preemption the address stays where it is when the first box is back; a word to the other one brings it back.
    fn by_hand(&mut self) -> Result<String, LabError> {
        for number in [0, 1] {
            let plan = part(&self.imported, number, false);
            self.pair.speakers[usize::from(number)].tell(plan)?;
        }
        let away = self.shut_down()?;
        self.pair.start_one(0)?;
        let down = self.pair.speakers[0].plan().routers[0].master_down();
        std::thread::sleep(down + Duration::from_millis(500));
        let stays =
            self.pair.watch.masters(part(&self.imported, 0, false).routers[0].vrid, Duration::from_millis(1500));
        if stays != [1] {
            return Err(LabError::Unexpected(format!("without preemption {stays:?} are master, [1] expected")));
        }
        let back = self.moving(1, 0, |stage| {
            stage.pair.speakers[1].ask_to_end().and_then(|()| stage.pair.speakers[1].await_end())
        })?;
        for number in [0, 1] {
            let plan = part(&self.imported, number, true);
            self.pair.speakers[usize::from(number)].tell(plan)?;
        }
        self.pair.start_one(1)?;
        Ok(format!("away: {away}; stays; by hand: {back}"))
    }

    /// Moves the address by `work`, from one box to the other; in words.
    fn moving(
        &mut self,
        from: u8,
        to: u8,
        work: impl FnOnce(&mut Stage) -> Result<(), LabError>,
    ) -> Result<String, LabError> {
        let pulse = Pulse::start(self.pair.site.lab.node(CLIENT)?, self.pair.site.vip_port(Family::V4, ECHO))?;
        pulse.await_steady(STEADY, START)?;
        let start = Instant::now();
        work(self)?;
        let down = self.pair.speakers[usize::from(to)].plan().routers[0].master_down();
        self.pair.await_master(to, ROUTER, down * 2 + SLACK)?;
        let moved = start.elapsed();
        pulse.await_steady(STEADY, START)?;
        let found = pulse.stop();
        let owners = self.pair.owners(self.pair.site.vip(Family::V4))?;
        if owners != [to].into() {
            let (from, to) = (appliance(from), appliance(to));
            return Err(LabError::Unexpected(format!("the address moved from {from} to {to}, but {owners:?} answer")));
        }
        Ok(format!("after {:.2} s, {} without answers", moved.as_secs_f64(), millis(found.longest())))
    }

    /// A web server behind stops, and starts again: HAProxy notices both.
    fn web_server(&mut self) -> Result<String, LabError> {
        let vip = self.pair.site.vip_port(Family::V4, STATISTICS);
        let start = Instant::now();
        self.web[1].stop();
        self.await_page(vip, "DOWN", true, self.checks * 8 + SLACK)?;
        let out = start.elapsed();
        let servers = &self.pair.site.servers[1..];
        let start = Instant::now();
        self.web[1] = nginx::start_on(&self.pair.site, servers, HTTP, false)?.remove(0);
        self.await_page(vip, "DOWN", false, self.checks * 4 + SLACK)?;
        let back = start.elapsed();
        Ok(format!("out after {:.1} s, back after {:.1} s", out.as_secs_f64(), back.as_secs_f64()))
    }

    /// Waits until a server's row of the statistics says something, or does not any more.
    fn await_page(&self, target: SocketAddr, words: &str, wanted: bool, within: Duration) -> Result<(), LabError> {
        let client = self.pair.site.lab.node(CLIENT)?;
        let start = Instant::now();
        loop {
            let page = client.run(|| page(target, "/;csv", true))?;
            let row =
                |text: &str| text.lines().any(|line| line.starts_with("servers,server2,") && line.contains(words));
            if page.as_ref().is_ok_and(|text| row(text) == wanted && text.contains("servers,server2,")) {
                return Ok(());
            }
            if start.elapsed() > within {
                let detail = format!("; {page:?}");
                return Err(LabError::Timeout { what: "a change in the statistics".into(), after: within, detail });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The file's `virtual_server`, with the two HAProxies as its servers: the engine is before them now.
    fn virtual_server(&mut self, report: &mut Report) -> Result<(), LabError> {
        let vip = self.pair.site.vip(Family::V4);
        for number in 0..2 {
            let node = appliance(number);
            // Where a server is the director itself, the kernel has the address, and keeps silent about it.
            for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
                self.pair.site.lab.setting(node, &format!("net/ipv4/conf/all/{key}"), value)?;
            }
            let local = self.pair.site.options.plan.v4(Network::Front, LOCALS + number).to_string();
            let services = self.services.iter().map(|service| served(service.clone(), &local, self.checks));
            let services: Vec<_> = services.collect();
            let mut plan = part(&self.imported, number, true);
            for router in &mut plan.routers {
                router.more.insert("place".into(), "engine".into());
            }
            let speaker = &mut self.pair.speakers[usize::from(number)];
            speaker.tell(plan)?;
            speaker.change(|config| {
                for service in services {
                    config.push("service", service);
                }
            })?;
            self.pair.site.lab.address(node, "lo", Cidr::host(vip))?;
        }
        self.pair.await_master(0, ROUTER, START)?;
        let Some(engine) = self.pair.speakers[0].engine() else {
            return Err(LabError::Unexpected("the first box does not run".into()));
        };
        let second = self.pair.site.address_of(1, Family::V4).to_string();
        let await_state = |wanted: &str| -> Result<Duration, LabError> {
            let start = Instant::now();
            let is = |status: &Json| {
                let servers = status["services"][0]["servers"].as_array().cloned().unwrap_or_default();
                let second = servers.iter().find(|server| server["address"] == second.as_str());
                servers.len() == 2 && second.is_some_and(|server| server["state"] == wanted)
            };
            engine.await_status(START * 2, &format!("the second HAProxy is {wanted}"), is)?;
            Ok(start.elapsed())
        };
        let client = self.pair.site.lab.node(CLIENT)?;
        let asked = LoadPlan::new(self.pair.site.vip_port(Family::V4, HTTP));
        await_state("up")?;
        let mut tally = requests(client, &asked, 10)?;
        self.proxies[1].stop();
        let out = await_state("down")?;
        tally.add(&requests(client, &asked, 10)?);
        let own = self.pair.site.address_of(1, Family::V4);
        self.proxies[1] = haproxy::balance(&self.pair.site, appliance(1), own, self.checks)?;
        let back = await_state("up")?;
        tally.add(&requests(client, &asked, 10)?);
        let good = tally.failures == 0 && tally.answered() == 30;
        let seen = format!("{} of 30 answers {}", tally.answered(), tally.reasons.join("; "));
        report.check("the imported virtual server takes requests, whichever HAProxy runs", good, &seen);
        report.rows.push(Row {
            what: "HTTP_GET of both HAProxies: a stopped one is out; back",
            there: "yes, every 2 s, retry 5",
            here: format!("out after {:.1} s, back after {:.1} s", out.as_secs_f64(), back.as_secs_f64()),
        });
        Ok(())
    }

    fn statistics(&self, report: &mut Report) -> Result<(), LabError> {
        let target = self.pair.site.vip_port(Family::V4, STATISTICS);
        let client = self.pair.site.lab.node(CLIENT)?;
        let (open, closed) = client.run(|| (page(target, "/", true), page(target, "/", false)))?;
        let shown = open.as_ref().is_ok_and(|text| text.starts_with("HTTP/1.1 200") && text.contains("server1"));
        let kept = closed.as_ref().is_ok_and(|text| text.starts_with("HTTP/1.1 401"));
        let status = |outcome: io::Result<String>| match outcome {
            Ok(text) => text.lines().next().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        };
        let here = format!("with the password {}, without {}", status(open), status(closed));
        report.check("the page of statistics is there, for those with the password", shown && kept, &here);
        report.rows.push(Row { what: "statistics on port 8080, by password", there: "yes", here });
        let tally: Tally = requests(client, &LoadPlan::new(self.pair.site.vip_port(Family::V4, HTTP)), 10)?;
        let both = tally.failures == 0 && tally.answers.len() == 2;
        report.check("requests go to both web servers", both, format!("{:?}", tally.answers));
        Ok(())
    }
}

/// Builds the scenario, runs it and reports; for tests and the command line.
pub fn run(options: &RunOptions, checks: Duration) -> Result<Report, LabError> {
    Stage::set(options, checks)?.run()
}

/// A box's part of the imported routers, which are the first box's. HAProxy listens on the address itself: it is the kernel's.
fn part(imported: &VrrpPlan, number: u8, preempt: bool) -> VrrpPlan {
    let mut plan = imported.clone();
    for router in &mut plan.routers {
        router.more.insert("place".into(), "kernel".into());
        router.preempt = preempt;
        // Who begins as master takes over at once.
        router.starts_as_master &= preempt;
        if number == 1 {
            router.priority = 100;
            router.starts_as_master = false;
        }
    }
    plan
}

/// An imported service for one box. Clients are in the servers' network, and would not understand what a server by plain NAT
/// answers them directly: the engine asks from an address of its own.
fn served(mut service: Table, local: &str, checks: Duration) -> Table {
    service.insert("method".into(), "full-nat".into());
    service.insert("local_addresses".into(), vec![local].into());
    if checks != CHECKS {
        imported::each_check(&mut service, |check| {
            for key in ["interval", "retry_delay"] {
                check.insert(key.into(), checks.as_secs_f64().into());
            }
        });
    }
    service
}

/// A page whose length is where its connection ends, head and all.
fn page(target: SocketAddr, path: &str, named: bool) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = if named { format!("Authorization: Basic {STATISTICS_USER}\r\n") } else { String::new() };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n{name}\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
