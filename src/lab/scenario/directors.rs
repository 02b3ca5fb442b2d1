//! The two directors of the deployment `web-nat`: the service address on the clients' side and the gateway address on the
//! servers' side, held by two virtual routers that move together.
//!
//! Owns the rows of the table that need both directors. They are on a network of their own.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::pairs::{Pair, SLACK};
use super::report::{Report, Row, millis};
use super::{HTTP, START, Stage, UDP, forward, imported, web_nat};
use crate::lab::client::pulse::Pulse;
use crate::lab::engine::EngineConfig;
use crate::lab::error::LabError;
use crate::lab::router::VrrpPlan;
use crate::lab::server::{nginx, udp};
use crate::lab::site::{APPLIANCE, CLIENT, Family, Site};
use crate::model::Protocol;

const FAMILY: Family = Family::V4;
const CLIENTS: &str = "CLIENTS";
const VRID: u8 = 32;
const PRIORITY: u8 = 254;
const STEADY: Duration = Duration::from_millis(300);

/// Builds the pair, moves both addresses twice, and fills the rows.
pub fn run(stage: &Stage, report: &mut Report, rows: &mut Vec<Row>) -> Result<(), LabError> {
    let mut site = Pair::site(web_nat::SITE)?;
    nginx::start_all(&site, HTTP)?;
    udp::start_all(&mut site, FAMILY, UDP)?;
    let mut config = configuration(stage, &site)?;
    let plan = imported::routers(&mut config)?;
    let plans = [plan.clone(), second(plan)];
    let mut pair = Pair::new(site, stage.engine.program(), &config, plans)?;
    pair.start()?;
    pair.await_master(0, CLIENTS, START)?;

    let advert = pair.watch.heard().into_iter().rev().find_map(|heard| heard.advert().cloned());
    let seen = advert.as_ref().map_or(String::from("none"), |advert| {
        let (vrid, priority, seconds) = (advert.vrid, advert.priority, advert.interval.as_secs_f64());
        format!("VRID {vrid}, priority {priority}, {seconds} s, version {}", advert.version)
    });
    let right = advert.is_some_and(|advert| {
        (advert.vrid, advert.priority, advert.interval) == (VRID, PRIORITY, Duration::from_secs(1))
    });
    let what = "VRRP: the master's adverts carry VRID 32, priority 254, 1 s";
    report.check(what, right, &seen);
    rows.push(Row { what, there: "yes", here: seen });

    let pulse = Pulse::start(pair.site.lab.node(CLIENT)?, pair.site.vip_port(FAMILY, UDP))?;
    pulse.await_steady(STEADY, START)?;
    let front = pair.site.options.plan.arms[0];
    let start = Instant::now();
    pair.site.plug(APPLIANCE, front, false)?;
    let cut = moved(&mut pair, &pulse, start, 1)?;
    pair.site.plug(APPLIANCE, front, true)?;
    moved(&mut pair, &pulse, Instant::now(), 0)?;
    let start = Instant::now();
    pair.speakers[0].ask_to_end()?;
    let stopped = moved(&mut pair, &pulse, start, 1)?;
    let what = "fail-over moves both addresses";
    let here = format!("yes, {} when the cable is pulled, {} when shut down", millis(cut), millis(stopped));
    report.check(what, true, &here);
    rows.push(Row { what, there: "yes, about 5 s of lost pings, 1-2 s when shut down", here });
    Ok(())
}

/// Waits until both addresses are at one director; how long the service was away since `start`.
fn moved(pair: &mut Pair, pulse: &Pulse, start: Instant, to: u8) -> Result<Duration, LabError> {
    let down = pair.speakers[usize::from(to)].plan().routers[0].master_down();
    pair.await_master(to, CLIENTS, down * 2 + SLACK)?;
    let server = pair.site.servers[0].clone();
    let back = pair.site.options.plan.arms[1];
    let (vip, gateway): (IpAddr, IpAddr) = (pair.site.vip(FAMILY), pair.site.gateway(FAMILY));
    let both = || -> Result<[BTreeSet<u8>; 2], LabError> {
        Ok([pair.owners(vip)?, pair.owners_seen_from((&server.name, server.v4), back, gateway)?])
    };
    let (wanted, asked) = (BTreeSet::from([to]), Instant::now());
    loop {
        let owners = both()?;
        if owners.iter().all(|owners| *owners == wanted) {
            break;
        }
        if asked.elapsed() > SLACK {
            let what =
                format!("both addresses are to be at director {to} alone; {vip} and {gateway} are at {owners:?}");
            return Err(LabError::Unexpected(what));
        }
    }
    pulse.await_steady(STEADY, START)?;
    Ok(pulse.since(start).longest())
}

/// The site's own configuration, and an echo.
fn configuration(stage: &Stage, site: &Site) -> Result<EngineConfig, LabError> {
    let mut config = web_nat::imported(site, stage.engine.program())?;
    let servers: Vec<_> = site.servers.iter().map(|server| (server.v4, 1)).collect();
    config.service("echo", site.vip(FAMILY), Protocol::Udp, &UDP.to_string(), "rr", &servers);
    forward::by(&mut config, site, FAMILY, "echo", stage.scenario.method);
    Ok(config)
}

/// The other director's part, of which the site's file says nothing: the same with a lower priority.
fn second(mut plan: VrrpPlan) -> VrrpPlan {
    for router in &mut plan.routers {
        router.priority = 100;
        router.starts_as_master = false;
    }
    plan
}
