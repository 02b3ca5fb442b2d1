//! The deployment `web-nat`: two web servers by NAT, the service address on the clients' side, a gateway address on the
//! servers' side. What was done to it with the classic tools is done here, and both results are shown.
//!
//! Owns the rows of its table. What Evenkeel does not do yet says so, instead of a result.

use std::time::{Duration, Instant};

use super::report::{Report, Row, millis};
use super::{HTTP, Stage, directors, traffic};
use crate::lab::client::load::{LoadPlan, requests};
use crate::lab::error::LabError;
use crate::lab::netlink::Wire;
use crate::lab::site::{CLIENT, Plan, Reach, Shape, SiteOptions, USUAL};

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

/// Sends the traffic, judges it and fills the table.
pub fn run(stage: &Stage, duration: Duration) -> Result<Report, LabError> {
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
            config.change_server("web", address, "weight", i64::from(weight));
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
    let mut config = stage.config.clone();
    config.change_service("web", "persistence", 50);
    stage.engine.reload(&config)?;
    let tally = requests(client, &plan, 20)?;
    let kept = tally.failures == 0 && tally.answers.len() == 1 && tally.answered() == 20;
    report.check("with persistence a client keeps its server", kept, format!("{:?}", tally.answers));
    rows.push(Row {
        what: "persistence_timeout 50: a client keeps its server",
        there: "yes",
        here: format!("{} of 20 requests at one server", tally.answers.values().max().unwrap_or(&0)),
    });
    for (what, there) in [
        ("TCP_CHECK every 6 s: a stopped web server leaves the table", "yes, more than 10 s for another service"),
        ("it comes back when it runs again", "yes, about 3 s for another service"),
    ] {
        rows.push(Row { what, there, here: "not in Evenkeel yet".into() });
    }
    directors::run(stage, &mut report, &mut rows)?;
    report.rows = rows;
    Ok(report)
}

fn micros(count: u64) -> String {
    millis(Duration::from_micros(count))
}
