//! The deployment `web-nat`: two web servers by NAT, the service address on the clients' side, a gateway address on the
//! servers' side. What was done to it with the classic tools is done here, and both results are shown.
//!
//! Owns the rows of its table.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::report::{Report, Row, millis};
use super::{HTTP, RunOptions, START, Stage, TRANSFER, directors, forward, imported, traffic};
use crate::lab::client::load::{LoadPlan, requests};
use crate::lab::engine::{EngineConfig, find_server};
use crate::lab::error::LabError;
use crate::lab::netlink::Wire;
use crate::lab::server::nginx;
use crate::lab::site::{CLIENT, Family, Plan, Reach, Shape, Site, SiteOptions, USUAL};
use crate::model::{Method, Protocol};

const FAMILY: Family = Family::V4;

/// Its network: the addresses and interface names of the site's own configuration, inside the lab's namespaces.
pub const SITE: SiteOptions = SiteOptions {
    shape: Shape::TwoArm,
    servers: 2,
    wire: Wire { queues: 1, mtu: 1500 },
    reach: Reach::Nat,
    plan: Plan {
        front: [32, 32, 32],
        back: [33, 33, 33],
        vip: 100,
        gateway: 100,
        client: 200,
        first_server: 10,
        arms: ["br0", "br1"],
        ..USUAL
    },
    ..SiteOptions::USUAL
};

/// The site's own configuration, and a service for large transfers beside it. One client stands for many: those of the site's
/// persistence are asked for where it is looked at.
pub fn configuration(site: &Site, options: &RunOptions) -> Result<EngineConfig, LabError> {
    let mut config = imported(site, &options.program)?;
    if let Some(mode) = options.mode {
        config.set("engine", "mode", vec![mode.name()]);
    }
    config.each("service", |service| service.retain(|key, _| !key.starts_with("persistence")));
    Ok(config)
}

/// The same, with persistence.
pub fn imported(site: &Site, program: &Path) -> Result<EngineConfig, LabError> {
    let mut config = imported::keepalived(site, program, "web-nat")?;
    let servers: Vec<_> = site.servers.iter().map(|server| (server.address(FAMILY), 1)).collect();
    config.service("transfer", site.vip(FAMILY), Protocol::Tcp, &TRANSFER.to_string(), "rr", &servers);
    forward::by(&mut config, site, FAMILY, "transfer", Method::Nat);
    Ok(config)
}

/// The name that the import gave to the service.
fn service(stage: &Stage) -> Result<String, LabError> {
    imported::service(&stage.config, stage.site.vip(FAMILY), Protocol::Tcp, HTTP)
}

/// Waits until the director, which is alone, is master of both routers.
fn await_mastery(stage: &Stage) -> Result<(), LabError> {
    let is_master = |status: &Json| {
        let routers = status["vrrp"]["routers"].as_array().map(Vec::as_slice).unwrap_or_default();
        routers.len() == 2 && routers.iter().all(|router| router["state"] == "MASTER")
    };
    stage.engine.await_status(START, "the director is master of both routers", is_master).map(drop)
}

/// Sends the traffic, judges it and fills the table.
pub fn run(stage: &Stage, duration: Duration) -> Result<Report, LabError> {
    await_mastery(stage)?;
    let web = service(stage)?;
    let mut report = traffic::web(stage, duration)?;
    let client = stage.site.lab.node(CLIENT)?;
    let plan = LoadPlan::new(stage.site.vip_port(stage.scenario.family, HTTP));
    let mut rows = Vec::new();

    let share = |report: &Report| {
        let total: u64 = report.answers.values().sum();
        let words = report.answers.iter().map(|(name, count)| (name, 100.0 * *count as f64 / total.max(1) as f64));
        words.map(|(name, share)| format!("{name} {share:.1} %")).collect::<Vec<_>>().join(", ")
    };
    rows.push(Row { what: "traffic is balanced (weights 1 and 1)", there: "yes", here: share(&report) });

    let mut config = stage.config.clone();
    let weights = |second| -> Vec<_> {
        let both = stage.site.servers.iter().zip([1, second]);
        both.map(|(server, weight)| (server.address(stage.scenario.family), weight)).collect()
    };
    let mut change = |second| -> Result<Duration, LabError> {
        let start = Instant::now();
        for (address, weight) in weights(second) {
            config.change_server(&web, address, "weight", i64::from(weight));
        }
        stage.engine.reload(&config)?;
        Ok(start.elapsed())
    };
    let took = change(0)?;
    let drained = requests(client, &plan, 20)?;
    let out = drained.failures == 0 && drained.of("server2") == 0;
    report.check("a server with weight 0 gets no new request", out, format!("{:?}", drained.answers));
    rows.push(Row {
        what: "a server is taken out by hand",
        there: "yes, ipvsadm on one director",
        here: format!("no request after {}", millis(took)),
    });
    let took = change(3)?;
    let tally = requests(client, &plan, 40)?;
    let heavy = tally.failures == 0 && tally.of("server2") == 30;
    report.check("weights 1 and 3 divide 40 requests as 10 and 30", heavy, format!("{:?}", tally.answers));
    rows.push(Row {
        what: "it comes back, with weight 3 beside 1",
        there: "yes",
        here: format!("{} of 40 requests, after {}", tally.of("server2"), millis(took)),
    });
    rows.push(Row {
        what: "a request, median and slowest",
        there: "not measured",
        here: format!("{}, {}", micros(report.latency_p50_us), micros(report.latency_max_us)),
    });
    stage.engine.reload(&imported(&stage.site, stage.engine.program())?)?;
    let tally = requests(client, &plan, 20)?;
    let kept = tally.failures == 0 && tally.answers.len() == 1 && tally.answered() == 20;
    report.check("with persistence a client keeps its server", kept, format!("{:?}", tally.answers));
    rows.push(Row {
        what: "persistence_timeout 50: a client keeps its server",
        there: "yes",
        here: format!("{} of 20 requests at one server", tally.answers.values().max().unwrap_or(&0)),
    });
    checks(stage, &mut report, &mut rows)?;
    directors::run(stage, &mut report, &mut rows)?;
    report.rows = rows;
    Ok(report)
}

/// The site's check, `TCP_CHECK` every 6 s: a web server stops, and starts again.
fn checks(stage: &Stage, report: &mut Report, rows: &mut Vec<Row>) -> Result<(), LabError> {
    let family = stage.scenario.family;
    stage.engine.reload(&stage.config)?;
    let name = service(stage)?;
    let server = &stage.site.servers[1];
    let is = |status: &Json, wanted: &str| {
        find_server(status, &name, server.address(family)).is_some_and(|found| found["state"] == wanted)
    };
    let await_state = |wanted: &str| -> Result<Duration, LabError> {
        let start = Instant::now();
        let what = format!("{} {wanted}", server.name);
        stage.engine.await_status(START + Duration::from_secs(12), &what, |status| is(status, wanted))?;
        Ok(start.elapsed())
    };
    await_state("up")?;
    let client = stage.site.lab.node(CLIENT)?;
    let plan = LoadPlan::new(stage.site.vip_port(family, HTTP));
    let web = stage.web.iter().find(|process| process.name().starts_with(&server.name));
    let Some(web) = web else { return Err(LabError::Unexpected(format!("{} has no web server", server.name))) };
    web.stop();
    let out = await_state("down")?;
    let tally = requests(client, &plan, 20)?;
    let none = tally.failures == 0 && tally.of(&server.name) == 0;
    report.check("a stopped web server gets no request", none, format!("{:?} {:?}", tally.answers, tally.reasons));
    let _again = nginx::start_on(&stage.site, std::slice::from_ref(server), HTTP, false)?;
    let back = await_state("up")?;
    let tally = requests(client, &plan, 20)?;
    let both = tally.failures == 0 && tally.of(&server.name) > 0;
    report.check("it gets requests again when it runs", both, format!("{:?} {:?}", tally.answers, tally.reasons));
    for (what, there, took) in [
        ("TCP_CHECK every 6 s: a stopped web server leaves the table", "yes, more than 10 s for another service", out),
        ("it comes back when it runs again", "yes, about 3 s for another service", back),
    ] {
        rows.push(Row { what, there, here: format!("after {:.2} s", took.as_secs_f64()) });
    }
    Ok(())
}

fn micros(count: u64) -> String {
    millis(Duration::from_micros(count))
}
