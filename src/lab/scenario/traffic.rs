//! The traffic of the scenarios, and the checks on what came back.
//!
//! Owns what is sent and what must hold for it. Never builds or starts anything but clients.

use std::thread;
use std::time::{Duration, Instant};

use super::report::Report;
use super::{HTTP, Stage, TRANSFER, Traffic, UDP, flood, web_dr, web_nat};
use crate::lab::bytes::Bytes;
use crate::lab::client::load::{Load, LoadPlan, Tally};
use crate::lab::client::stream::{Speech, Streams};
use crate::lab::client::transfer::{Plan, Transferred, at_once};
use crate::lab::client::{http, ping, udp};
use crate::lab::error::LabError;
use crate::lab::queues;
use crate::lab::server::nginx;
use crate::lab::site::{CLIENT, Reach};

/// How long a client waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Sends a scenario's traffic for a while and judges what came back.
pub fn run(stage: &Stage, duration: Duration) -> Result<Report, LabError> {
    let mut report = match stage.scenario.traffic {
        Traffic::Web => web(stage, duration)?,
        Traffic::Udp => conversations(stage, duration)?,
        Traffic::Fragments => fragments(stage, duration)?,
        Traffic::Workers => workers(stage, duration)?,
        Traffic::WebNat => web_nat::run(stage, duration)?,
        Traffic::WebDr => web_dr::run(stage)?,
        Traffic::Flood(packets) => flood::run(stage, packets, duration)?,
        Traffic::Pair(_) => return Err(LabError::Unexpected("a pair has a stage of its own".into())),
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

/// Bytes of a transfer in each direction: 64 MiB, or as many MiB as `EVENKEEL_LAB_MIB` says.
pub fn transfer_bytes() -> u64 {
    let said = std::env::var("EVENKEEL_LAB_MIB").ok().and_then(|text| text.parse::<u64>().ok());
    said.unwrap_or(64) << 20
}

pub(super) fn web(stage: &Stage, duration: Duration) -> Result<Report, LabError> {
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
    drop(streams);
    seen_by_servers(stage, &mut report)?;
    transfers(stage, 1, &mut report)?;
    Ok(report)
}

/// Who the servers think asks them: with full NAT a local address of the appliance, else the client, port and all.
fn seen_by_servers(stage: &Stage, report: &mut Report) -> Result<(), LabError> {
    let family = stage.scenario.family;
    let target = stage.site.vip_port(family, HTTP);
    let asked = stage.site.lab.node(CLIENT)?.run(|| {
        let mut connection = http::HttpConnection::open(target, PATIENCE)?;
        let own = connection.local_address()?;
        connection.get("/", true).map(|response| (own, response.client))
    })?;
    let what = match stage.site.options.reach {
        Reach::FullNat => "the server sees a local address of the appliance",
        _ => "the server sees the client's address and port",
    };
    let right = asked.as_ref().is_ok_and(|(own, seen)| match stage.site.options.reach {
        Reach::FullNat => {
            (0..2).any(|index| seen.starts_with(&format!("{} ", stage.site.local_address(family, index))))
        }
        _ => *seen == format!("{} {}", own.ip(), own.port()),
    });
    let seen = asked.map_or_else(|error| error.to_string(), |(own, seen)| format!("{own} asked, seen as {seen}"));
    report.check(what, right, seen);
    Ok(())
}

/// One transfer from each server at least, several at a time, in both directions at once.
fn transfers(stage: &Stage, rounds: u64, report: &mut Report) -> Result<Vec<Transferred>, LabError> {
    let servers = stage.site.servers.len() as u64;
    let bytes = transfer_bytes() / servers;
    let target = stage.site.vip_port(stage.scenario.family, TRANSFER);
    let plan = Plan { seed: 1, up: bytes, down: bytes };
    let start = Instant::now();
    let outcomes = at_once(stage.site.lab.node(CLIENT)?, target, plan, servers * rounds)?;
    let took = start.elapsed().as_secs_f64();
    let broken: Vec<_> = outcomes.iter().filter_map(|outcome| Some(outcome.as_ref().err()?.to_string())).collect();
    let whole: Vec<_> = outcomes.into_iter().flatten().collect();
    let moved: u64 = whole.iter().map(|transfer| transfer.bytes).sum();
    let rate = moved as f64 * 8e-6 / took;
    let seen = if broken.is_empty() {
        format!("{} transfers, {} MiB in {took:.2} s, {rate:.0} Mbit/s", whole.len(), moved >> 20)
    } else {
        broken.join("; ")
    };
    report.check("large transfers arrive byte for byte, both ways at once", broken.is_empty(), seen);
    Ok(whole)
}

/// Datagrams of all sizes, each echoed byte for byte.
fn fragments(stage: &Stage, duration: Duration) -> Result<Report, LabError> {
    const SIZES: [usize; 8] = [1, 1400, 1472, 1473, 3000, 9000, 32_768, 60_000];
    let target = stage.site.vip_port(stage.scenario.family, UDP);
    let (tally, largest) = stage.site.lab.node(CLIENT)?.run(|| {
        let (mut tally, mut largest) = (Tally::default(), 0);
        let (mut bytes, start) = (Bytes::new(3), Instant::now());
        while start.elapsed() < duration {
            for size in SIZES {
                let asked = Instant::now();
                let outcome =
                    udp::socket(target, PATIENCE).and_then(|socket| udp::ask_bytes(&socket, &bytes.take(size)));
                if tally.note(asked.elapsed(), outcome).is_some() {
                    largest = largest.max(size);
                }
            }
        }
        (tally, largest)
    })?;
    let mut report = Report::new(stage.scenario.name, &tally);
    judge_load(stage, &tally, &mut report);
    report.check("datagrams of 60,000 bytes come back", largest == 60_000, format!("{largest} bytes"));
    Ok(report)
}

/// Transfers, one round after the other, while frames change their queue.
fn workers(stage: &Stage, duration: Duration) -> Result<Report, LabError> {
    let shuffling = queues::shuffle(&stage.site)?;
    let mut report = Report::new(stage.scenario.name, &Tally::default());
    let (start, mut rounds) = (Instant::now(), Report::default());
    while start.elapsed() < duration || rounds.checks.is_empty() {
        for transfer in transfers(stage, 2, &mut rounds)? {
            *report.answers.entry(transfer.server).or_default() += 1;
        }
    }
    let broken = rounds.checks.iter().find(|check| !check.passed);
    report.check(
        "large transfers arrive byte for byte, both ways at once",
        broken.is_none(),
        broken.map_or_else(|| format!("{} rounds", rounds.checks.len()), |check| check.seen.clone()),
    );
    let ended = shuffling.iter().find(|process| process.ended().is_some());
    report.check(
        "frames changed their queue all the time",
        ended.is_none(),
        ended.map(|p| p.last_words(3)).unwrap_or_default(),
    );
    let status = stage.engine.status()?;
    let workers = status["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let handed: u64 = workers.iter().filter_map(|worker| worker["handed"].as_u64()).sum();
    let many = workers.len() > 1;
    report.check(
        "packets were handed to the worker that owns the flow",
        handed > 0 || !many,
        format!("{handed} packets"),
    );
    for process in shuffling {
        process.stop();
    }
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
