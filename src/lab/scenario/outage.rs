//! A web server that is killed under load, for the demo: its check takes it out of the service, and brings it back.
//!
//! Owns the steps and what is printed of them.

use std::thread;
use std::time::{Duration, Instant};

use toml::{Table, Value};

use super::report::{Report, millis};
use super::{HTTP, START};
use crate::lab::client::load::{Load, LoadPlan};
use crate::lab::engine::{Engine, EngineConfig, find_server};
use crate::lab::error::LabError;
use crate::lab::process::Process;
use crate::lab::server::nginx;
use crate::lab::site::{CLIENT, Family, Site};

const SERVICE: &str = "web";
/// The server that is killed.
const VICTIM: usize = 2;

/// Shows it and notes in `report` what came of it.
pub fn show(
    site: &Site,
    engine: &Engine,
    config: &EngineConfig,
    web: &[Process],
    report: &mut Report,
) -> Result<(), LabError> {
    let server = &site.servers[VICTIM];
    let mut config = config.clone();
    let mut check = Table::new();
    let mut set = |key: &str, value: Value| drop(check.insert(key.into(), value));
    set("type", "http".into());
    set("interval", 0.2.into());
    set("timeout", 1.into());
    set("rise", 2.into());
    set("fall", 2.into());
    config.change_service(SERVICE, "check", vec![Value::from(check)]);
    engine.reload(&config)?;
    let await_state = |wanted: &str| {
        engine.await_status(START, &format!("{} {wanted}", server.name), |status| {
            find_server(status, SERVICE, server.v4).is_some_and(|found| found["state"] == wanted)
        })
    };
    await_state("up")?;
    println!("  a GET of / every 0.2 s; two failures take a server out, two successes bring it back");
    let load = Load::start(site.lab.node(CLIENT)?, &LoadPlan::new(site.vip_port(Family::V4, HTTP)))?;
    thread::sleep(Duration::from_millis(500));

    let (start, before) = (Instant::now(), load.tally());
    web[VICTIM].kill();
    let status = await_state("down")?;
    let out = start.elapsed();
    let reason = find_server(&status, SERVICE, server.v4).map(|found| found["reason"].clone()).unwrap_or_default();
    thread::sleep(Duration::from_millis(100));
    let lost = load.tally().since(&before).failures;
    println!(
        "  {} is killed: out after {}, {lost} requests failed until then; {}",
        server.name,
        millis(out),
        reason.as_str().unwrap_or_default()
    );
    let settled = load.tally();
    thread::sleep(Duration::from_secs(1));
    let without = load.tally().since(&settled);
    let seen = format!("{} answers, {} failed", without.answered(), without.failures);
    println!("  the others go on: {seen}");
    let none = without.failures == 0 && without.of(&server.name) == 0;
    report.check("no request fails once a check has taken a dead server out", none, seen);

    let start = Instant::now();
    let _again = nginx::start_on(site, std::slice::from_ref(server), HTTP, false)?;
    await_state("up")?;
    let back = start.elapsed();
    let settled = load.tally();
    thread::sleep(Duration::from_millis(500));
    let with = load.stop().since(&settled);
    let seen = format!("{} of {} answers, {} failed", with.of(&server.name), with.answered(), with.failures);
    println!("  it starts again: back after {}; {seen}", millis(back));
    report.check("it serves again when its check is good", with.failures == 0 && with.of(&server.name) > 0, seen);
    Ok(())
}
