//! The traffic of the scenarios, and the checks on what came back.
//!
//! Owns what is sent and what must hold for it. Never builds or starts anything but clients.

use std::thread;
use std::time::{Duration, Instant};

use super::report::Report;
use super::{HTTP, Stage, Traffic, UDP};
use crate::lab::client::load::{Load, LoadPlan, Tally};
use crate::lab::client::stream::{Speech, Streams};
use crate::lab::client::{http, ping, udp};
use crate::lab::error::LabError;
use crate::lab::server::nginx;
use crate::lab::site::CLIENT;

/// How long a client waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Sends a scenario's traffic for a while and judges what came back.
pub fn run(stage: &Stage, duration: Duration) -> Result<Report, LabError> {
    let mut report = match stage.scenario.traffic {
        Traffic::Web => web(stage, duration)?,
        Traffic::Udp => conversations(stage, duration)?,
    };
    let client = stage.site.lab.node(CLIENT)?;
    let service = stage.site.vip(stage.scenario.family);
    let answer = client.run(|| ping::ping(service, 56, PATIENCE))?;
    report.check("the service address answers ping", answer.is_ok(), said(&answer));
    if stage.site.options.vlan.is_none() {
        let own = stage.site.appliance_address(stage.scenario.family);
        let answer = client.run(|| ping::ping(own, 56, PATIENCE))?;
        report.check("the appliance's own address still belongs to its kernel", answer.is_ok(), said(&answer));
    }
    let ended = stage.engine.process().ended();
    report.check("the engine runs", ended.is_none(), ended.map(|status| status.to_string()).unwrap_or_default());
    Ok(report)
}

fn web(stage: &Stage, duration: Duration) -> Result<Report, LabError> {
    let client = stage.site.lab.node(CLIENT)?;
    let target = stage.site.vip_port(stage.scenario.family, HTTP);
    let streams = Streams::open(client, target, Speech::Http, 6, Duration::from_millis(50))?;
    let load = Load::start(client, &LoadPlan::new(target))?;
    let start = Instant::now();
    let large = client.run(|| http::get(target, "/large", PATIENCE))?;
    thread::sleep(duration.saturating_sub(start.elapsed()));
    let tally = load.stop();
    let mut report = Report::new(stage.scenario.name, &tally);
    judge_load(stage, &tally, &mut report);
    let whole = large.as_ref().is_ok_and(|response| response.body == nginx::large_file());
    report.check(format!("a file of {} MiB arrives whole", nginx::LARGE >> 20), whole, said(&large));
    let (exchanges, broken) = (streams.exchanges(), streams.broken());
    let seen = if broken.is_empty() { format!("{exchanges} exchanges") } else { broken.join("; ") };
    report.check("6 long-lived connections keep their server", exchanges > 0 && broken.is_empty(), seen);
    Ok(report)
}

fn conversations(stage: &Stage, duration: Duration) -> Result<Report, LabError> {
    let client = stage.site.lab.node(CLIENT)?;
    let target = stage.site.vip_port(stage.scenario.family, UDP);
    let (tally, moved) = client.run(|| {
        let (mut tally, mut moved) = (Tally::default(), 0);
        let start = Instant::now();
        while start.elapsed() < duration {
            // A conversation: three questions from one port, which must find the same server.
            let mut first = None;
            match udp::socket(target, PATIENCE) {
                Ok(socket) => (0..3).for_each(|number| {
                    let asked = Instant::now();
                    let outcome = udp::ask(&socket, &format!("question {number}"));
                    if let Some(server) = tally.note(asked.elapsed(), outcome) {
                        moved += u32::from(*first.get_or_insert_with(|| server.clone()) != server);
                    }
                }),
                Err(error) => drop(tally.note(Duration::ZERO, Err(error))),
            }
            thread::sleep(Duration::from_millis(5));
        }
        (tally, moved)
    })?;
    let mut report = Report::new(stage.scenario.name, &tally);
    judge_load(stage, &tally, &mut report);
    report.check("every conversation keeps its server", moved == 0, format!("{moved} answers from another one"));
    Ok(report)
}

fn judge_load(stage: &Stage, tally: &Tally, report: &mut Report) {
    report.check(
        "no request fails",
        tally.failures == 0 && tally.answered() > 0,
        format!("{} answers", tally.answered()),
    );
    let silent: Vec<_> = stage
        .site
        .servers
        .iter()
        .filter(|server| tally.of(&server.name) == 0)
        .map(|server| server.name.as_str())
        .collect();
    let seen = if silent.is_empty() { String::new() } else { format!("nothing from {}", silent.join(", ")) };
    report.check("every server answers", silent.is_empty(), seen);
}

fn said<T>(outcome: &std::io::Result<T>) -> String {
    outcome.as_ref().err().map(ToString::to_string).unwrap_or_default()
}
