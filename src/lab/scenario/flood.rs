//! Floods: packets from sources that nobody has, beside connections that are open and clients that come.
//!
//! Owns what must hold then: no open connection breaks, and 99 of 100 new ones succeed at a hundred times the rate of the
//! legitimate ones; no open connection breaks at whatever rate the machine gives.

use std::process::Command;
use std::time::{Duration, Instant};

use super::report::{Report, millis};
use super::{HTTP, RunOptions, Stage, TRANSFER, UDP, find};
use crate::lab::client::flood::{Flood, Packets, Sent};
use crate::lab::client::load::{Load, LoadPlan, Tally, requests};
use crate::lab::client::stream::{Speech, Streams};
use crate::lab::client::transfer::{Plan, at_once};
use crate::lab::error::LabError;
use crate::lab::site::CLIENT;

/// Unproven flows that the engine has room for: so few that the flood fills them within a second.
pub const ROOM: i64 = 4096;

/// New connections a second of legitimate clients.
const LEGITIMATE: u32 = 200;

/// Fewest of them that say anything.
const ENOUGH: u64 = 50;

/// How many packets of the flood there are for each of them.
const TIMES: u32 = 100;

/// Connections that are open all the time.
const OPEN: usize = 40;

/// How long the demo's floods last.
const DEMO: Duration = Duration::from_secs(3);

/// Patience with clients and connections.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of everybody.
struct Seen {
    sent: Sent,
    tally: Tally,
    broken: Vec<String>,
    exchanges: u64,
    transfers: String,
}

/// Floods the stage's service, judges, and reports. `duration` is that of either flood.
pub fn run(stage: &Stage, packets: Packets, duration: Duration) -> Result<Report, LabError> {
    let steady = endure(stage, packets, u64::from(LEGITIMATE * TIMES), duration)?;
    let mut report = Report::new(stage.scenario.name, &steady.tally);
    let tried = steady.tally.answered() + steady.tally.failures;
    let told = |seen: &Seen| {
        let (median, slow) = (seen.tally.percentile(0.5), seen.tally.percentile(0.99));
        let (failed, tried) = (seen.tally.failures, seen.tally.answered() + seen.tally.failures);
        let sent = format!("{:.0} packets/s for {:.1} s", seen.sent.rate(), seen.sent.seconds);
        format!("{sent}: {tried} new connections, {failed} failed, median {}, 99 % {}", millis(median), millis(slow))
    };
    let kept = |report: &mut Report, what: &str, seen: &Seen| {
        let words =
            if seen.broken.is_empty() { format!("{} exchanges", seen.exchanges) } else { seen.broken.join("; ") };
        report.check(what, seen.broken.is_empty() && seen.exchanges > 0, words);
    };
    let rate = f64::from(LEGITIMATE * TIMES);
    report.check(
        format!("the flood is {TIMES} times the legitimate rate"),
        steady.sent.rate() > rate * 0.5,
        told(&steady),
    );
    // On a machine that is busy with other work each takes its time, for frames wait in rings that overflow meanwhile; so many
    // still tell one in a hundred from none.
    let enough = tried >= ENOUGH;
    let in_time = enough && steady.tally.failures * 100 <= tried;
    report.check("99 of 100 new connections succeed", in_time, steady.tally.reasons.join("; "));
    kept(&mut report, "no open connection breaks", &steady);
    report.check("transfers through the flood arrive byte for byte", !steady.transfers.is_empty(), &steady.transfers);
    let status = stage.engine.status()?;
    let unproven = status["workers"][0]["unproven"].as_u64().unwrap_or(0);
    let stateless = status["workers"][0]["stateless"].as_u64().unwrap_or(0);
    let bounded = unproven <= 2 * ROOM.unsigned_abs();
    let seen = format!("{unproven} unproven flows now, {stateless} packets without state");
    report.check("what nobody confirmed stays in its bounds", bounded && unproven > 0, seen);

    let flat_out = endure(stage, packets, 0, duration / 2)?;
    report.check("then as many packets as the machine gives", flat_out.sent.packets > 0.0, told(&flat_out));
    kept(&mut report, "no open connection breaks then", &flat_out);
    let after = endure_nothing(stage)?;
    report.check("afterwards all is as before", after.failures == 0, format!("{} requests", after.answered()));
    Ok(report)
}

/// Shows a flood by direct routing and one by NAT, and notes in `report` what came of them.
pub fn show(options: &RunOptions, report: &mut Report) -> Result<(), LabError> {
    for name in ["syn-flood", "syn-flood-nat"] {
        let stage = Stage::set(find(name)?, options)?;
        let found = run(&stage, Packets::Syns, DEMO)?;
        println!("  {name}");
        for check in &found.checks {
            let word = if check.passed { "PASS" } else { "FAIL" };
            println!("    {word}  {}: {}", check.what, check.seen);
        }
        let failed = found.checks.iter().filter(|check| !check.passed).count();
        report.check(format!("{name} harms nobody"), found.passed(), format!("{failed} of its checks failed"));
    }
    Ok(())
}

/// Lets connections, transfers and new clients live through a flood.
fn endure(stage: &Stage, packets: Packets, rate: u64, lasting: Duration) -> Result<Seen, LabError> {
    let family = stage.scenario.family;
    let (client, web) = (stage.site.lab.node(CLIENT)?, stage.site.vip_port(family, HTTP));
    let open = Streams::open(client, web, Speech::Http, OPEN, Duration::from_millis(20))?;
    if !open.settled(PATIENCE) {
        return Err(LabError::Unexpected(format!("connections before the flood: {:?}", open.broken())));
    }
    let target = if packets == Packets::Syns { web } else { stage.site.vip_port(family, UDP) };
    let flood = Flood::start(&stage.site, stage.engine.program(), target, packets, rate, lasting)?;
    let load = Load::start(client, &LoadPlan { rate: LEGITIMATE, ..LoadPlan::new(web) })?;
    let plan = Plan { seed: 17, up: 2 << 20, down: 2 << 20 };
    let mut transfers = Vec::new();
    for outcome in at_once(client, stage.site.vip_port(family, TRANSFER), plan, 2)? {
        let moved = outcome.map_err(|error| {
            LabError::Unexpected(format!("a transfer in the flood: {error}; {}", where_it_may_be(stage)))
        })?;
        transfers.push(moved.to_string());
    }
    let sent = flood.ended(lasting + PATIENCE)?;
    let tally = load.stop();
    // Each connection must still speak after the flood. At full rate rings lose packets of everybody, and TCP waits longer from
    // loss to loss.
    let (before, start) = (open.states(), Instant::now());
    let mute = loop {
        let pairs = before.iter().zip(open.states());
        let mute = pairs.filter(|(before, after)| before.exchanges == after.exchanges).count();
        if mute == 0 || start.elapsed() > PATIENCE {
            break mute;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let mut broken = open.broken();
    if mute > 0 && broken.is_empty() {
        broken.push(format!("{mute} connections are silent"));
    }
    Ok(Seen { sent, tally, broken, exchanges: open.exchanges(), transfers: transfers.join("; ") })
}

/// What there is to see when something got lost: the engine's counters, and the client's connections as its kernel sees them.
fn where_it_may_be(stage: &Stage) -> String {
    let engine = stage.engine.status().map_or_else(
        |error| error.to_string(),
        |status| format!("workers {}, drops {}", status["workers"], status["drops"]),
    );
    let shown = |command: &mut Command| match stage.site.lab.node(CLIENT).and_then(|node| node.run(|| command.output()))
    {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    let sockets = shown(Command::new("ss").args(["--tcp", "--info", "--options", "--numeric"]));
    let neighbors = shown(Command::new("ip").args(["neighbor", "show"]));
    format!("{engine}; the client's neighbors:\n{neighbors}its connections:\n{sockets}")
}

/// Requests when nothing disturbs them.
fn endure_nothing(stage: &Stage) -> Result<Tally, LabError> {
    let plan = LoadPlan::new(stage.site.vip_port(stage.scenario.family, HTTP));
    requests(stage.site.lab.node(CLIENT)?, &plan, 50)
}
