//! A fail-over under load, for the demo: two appliances, one address in the engine, the master killed and stopped.
//!
//! Owns the steps and what is printed of them: how long a client that sends every millisecond was without answers, and what
//! became of web requests meanwhile.

use std::time::{Duration, Instant};

use super::pairs::Pair;
use super::report::{Report, millis};
use super::{HTTP, RunOptions, START, UDP, base_config};
use crate::lab::client::load::{Load, LoadPlan};
use crate::lab::client::pulse::{Found, Pulse};
use crate::lab::error::LabError;
use crate::lab::netlink::Cidr;
use crate::lab::router::{RouterPlan, VrrpPlan};
use crate::lab::server::{nginx, udp};
use crate::lab::site::{CLIENT, Family, Site, SiteOptions};
use crate::model::Protocol;

const FAMILY: Family = Family::V4;
const ROUTER: &str = "web";
const INTERVAL: Duration = Duration::from_millis(100);
const STEADY: Duration = Duration::from_millis(300);
/// What a kill may cost: master-down time (361 ms) and 20 ms, with room for a machine that does other work.
const KILL: Duration = Duration::from_millis(600);
/// What a graceful stop may cost: 20 ms, with such room.
const STOP: Duration = Duration::from_millis(60);

/// Shows it and notes in `report` what came of it.
pub fn show(options: &RunOptions, report: &mut Report) -> Result<(), LabError> {
    let mut site = Pair::site(SiteOptions { servers: 2, ..SiteOptions::USUAL })?;
    nginx::start_all(&site, HTTP)?;
    udp::start_all(&mut site, FAMILY, UDP)?;
    let mut config = base_config(&site, FAMILY);
    if let Some(mode) = options.mode {
        config.set("engine", "mode", vec![mode.name()]);
    }
    let servers: Vec<_> = site.servers.iter().map(|server| (server.v4, 1)).collect();
    for (name, protocol, port) in [("web", Protocol::Tcp, HTTP), ("echo", Protocol::Udp, UDP)] {
        config.service(name, site.vip(FAMILY), protocol, &port.to_string(), "rr", &servers);
    }
    let plans = [plan(&site, 150), plan(&site, 100)];
    let mut pair = Pair::new(site, &options.program, &config, plans)?;
    pair.start()?;
    pair.await_master(0, ROUTER, START)?;
    println!("  VRRP version 3, an advert every 100 ms; appliance has priority 150, appliance2 has 100");

    let client = pair.site.lab.node(CLIENT)?;
    let pulse = Pulse::start(client, pair.site.vip_port(FAMILY, UDP))?;
    pulse.await_steady(STEADY, START)?;
    let load = Load::start(client, &LoadPlan { rate: 100, ..LoadPlan::new(pair.site.vip_port(FAMILY, HTTP)) })?;
    let mut steps = Vec::new();
    let mut step = |pair: &mut Pair, what: &str, to, work: fn(&mut Pair) -> Result<(), LabError>| {
        let (start, before) = (Instant::now(), load.tally());
        work(pair)?;
        pair.await_master(to, ROUTER, START)?;
        pulse.await_steady(STEADY, START)?;
        let (lost, web) = (pulse.since(start), load.tally().since(&before));
        println!(
            "  {what:<40} {:>8} without answers, {:>3} of {} datagrams lost; web: {} answers, {} failed",
            millis(lost.longest()),
            lost.lost,
            lost.sent,
            web.answered(),
            web.failures
        );
        steps.push(lost);
        Ok::<(), LabError>(())
    };
    step(&mut pair, "kill -9 of the master", 1, |pair| {
        pair.speakers[0].kill();
        Ok(())
    })?;
    step(&mut pair, "it starts again and takes over", 0, |pair| pair.start_one(0))?;
    step(&mut pair, "the master is stopped (SIGTERM)", 1, |pair| {
        pair.speakers[0].ask_to_end()?;
        pair.speakers[0].await_end()
    })?;
    let tally = load.stop();
    let longest = |place: usize| steps.get(place).map(Found::longest).unwrap_or(Duration::MAX);
    report.check("kill -9: the other appliance takes over", longest(0) <= KILL, millis(longest(0)));
    report.check("the return of the first one is not noticed", longest(1) <= STOP, millis(longest(1)));
    report.check("a graceful stop is not noticed", longest(2) <= STOP, millis(longest(2)));
    // Four clients, each with at most one request under way at each of three moves.
    let seen = format!("{} answers, {} failed: {}", tally.answered(), tally.failures, tally.reasons.join("; "));
    report.check("no web request fails beyond the moves themselves", tally.failures <= 12, seen);
    Ok(())
}

fn plan(site: &Site, priority: u8) -> VrrpPlan {
    let router = RouterPlan::new(ROUTER, "eth0", 51, &[Cidr::new(site.vip(FAMILY), 24)]).fast(INTERVAL);
    VrrpPlan::one(RouterPlan { priority, ..router })
}
