//! How long a reload takes: from the command to the new snapshot.
//!
//! `cargo bench --bench control` reloads 1000 services of 20 servers; `-- --services 200 --servers 5` others, `-- --rounds 21` more
//! often, `-- --checks` with the usual check of each server, `-- --out FILE` writes one JSON object. As root it starts the engine
//! itself, in namespaces of its own, and measures `evenkeel reload` from the outside, the start of that program included; its
//! servers have fixed next hops, so that nothing waits for ARP. Each round changes the weights of a tenth of the services, adds a
//! service and takes one away. Then, or without root only, the steps of a reload by themselves, in this process.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel::control::apply::filter_table;
use evenkeel::control::compile::{Registry, Whereabouts};
use evenkeel::control::config;
use evenkeel::control::health::watch::Watch;
use evenkeel::control::plan::{Loads, plan};
use evenkeel::control::socket::Command;
use evenkeel::control::socket::client::ask;
use evenkeel::dataplane::snapshot::{NextHop, Port};
use evenkeel::lab::engine::{Engine, EngineConfig};
use evenkeel::lab::site::{APPLIANCE, Site, SiteOptions};
use evenkeel::model::MacAddr;

/// What is reloaded.
#[derive(Clone, Copy)]
struct Size {
    services: usize,
    servers: usize,
    checks: bool,
}

fn server(at: usize) -> IpAddr {
    IpAddr::from([10, 200, (at / 200) as u8, (at % 200) as u8 + 1])
}

/// The configuration of a round.
fn text(size: Size, round: usize) -> String {
    let mut text = String::from("[[interface]]\nname = \"eth0\"\n");
    for at in 0..size.servers {
        let (address, mac) = (server(at), MacAddr([2, 0, 0, 0, 1, at as u8]));
        let _ = write!(text, "\n[[neighbor]]\naddress = \"{address}\"\nmac = \"{mac}\"\ninterface = \"eth0\"\n");
    }
    // One service goes with each round, and another one comes.
    for at in round..round + size.services {
        let address = IpAddr::from([198, 18, (at / 250) as u8, (at % 250) as u8 + 1]);
        let _ = write!(text, "\n[[service]]\nname = \"service-{at}\"\naddress = \"{address}\"\nport = 80\n");
        if !size.checks {
            text.push_str("check = \"none\"\n");
        }
        let weight = if at % 10 == 0 { 1 + round % 7 } else { 1 };
        for number in 0..size.servers {
            let _ = write!(text, "\n[[service.server]]\naddress = \"{}\"\nweight = {weight}\n", server(number));
        }
    }
    text
}

struct Row {
    name: &'static str,
    times: Vec<f64>,
}

impl Row {
    /// Least, median and greatest, in milliseconds.
    fn of(&self) -> (f64, f64, f64) {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        let at = |at: usize| times.get(at).copied().unwrap_or(f64::NAN);
        (at(0), at(times.len() / 2), at(times.len().saturating_sub(1)))
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name: &str, usual: usize| value(name).map_or(usual, |text| text.parse().expect("a number"));
    let checks = args.iter().any(|arg| arg == "--checks");
    let size = Size { services: number("--services", 1000), servers: number("--servers", 20), checks };
    let rounds = number("--rounds", 9);
    let mut rows = Vec::new();
    if nix::unistd::geteuid().is_root() {
        rows.extend(live(size, rounds));
    } else {
        println!("SKIPPED: `evenkeel reload` of a running engine: needs root");
    }
    rows.extend(steps(size, rounds));
    println!(
        "{} services of {} servers{}, {rounds} rounds; ms: median (least to greatest)",
        size.services,
        size.servers,
        if checks { " with the usual checks" } else { "" }
    );
    let mut all = serde_json::Map::new();
    for row in &rows {
        let (least, median, most) = row.of();
        println!("  {:<44} {median:8.1} ({least:.1} to {most:.1})", row.name);
        all.insert(row.name.to_owned(), serde_json::json!({ "least": least, "median": median, "most": most }));
    }
    if let Some(file) = value("--out") {
        let row =
            serde_json::json!({ "services": size.services, "servers": size.servers, "checks": checks, "ms": all });
        fs::write(file, row.to_string()).expect("the file of --out can be written");
    }
}

fn timed<T>(row: &mut Vec<f64>, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    row.push(begun.elapsed().as_secs_f64() * 1000.0);
    done
}

/// `evenkeel reload` of an engine in a lab.
fn live(size: Size, rounds: usize) -> Vec<Row> {
    let site = Site::build(SiteOptions::default()).expect("a lab");
    let program = Path::new(env!("CARGO_BIN_EXE_evenkeel"));
    let config = |round| {
        let mut config = EngineConfig::parse(&text(size, round)).expect("is sound");
        config.set("engine", "cores", vec![0]).set("engine", "polling", "adaptive").set("engine", "flows", 1024);
        config
    };
    let engine = Engine::start(&site.lab, APPLIANCE, program, &config(0)).expect("the engine starts");
    engine.await_status(Duration::from_secs(120), "the start", |_| true).expect("it answers");
    let (mut reload, mut nothing, mut status) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let config = config(round);
        timed(&mut reload, || engine.reload(&config)).expect("is taken");
        timed(&mut nothing, || ask(engine.socket(), Command::Reload)).expect("is taken");
        timed(&mut status, || ask(engine.socket(), Command::Status)).expect("is answered");
    }
    vec![
        Row { name: "`evenkeel reload`, changed", times: reload },
        Row { name: "the same, nothing changed", times: nothing },
        Row { name: "`status`, over the socket", times: status },
    ]
}

/// The steps by themselves.
fn steps(size: Size, rounds: usize) -> Vec<Row> {
    let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
    let at = Whereabouts { hop: Some(hop), ..Whereabouts::default() };
    let ports = || vec![Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true)];
    let read = |text: &str| config::parse(text, 0).desired.expect("is sound");
    let mut old = read(&text(size, 0));
    let mut registry = Registry::default();
    let mut snapshot = registry.compile_at(&old, ports(), Duration::ZERO, |_, _| at).expect("compiles").snapshot;
    let watch = Watch::new(Instant::now(), Arc::new(|| {}));
    let mut times: [Vec<f64>; 5] = Default::default();
    let [parse, compare, look, table, compile] = &mut times;
    for round in 1..=rounds {
        let text = text(size, round);
        let new = timed(parse, || read(&text));
        let plan = timed(compare, || plan(&old, &new, &Loads::of(&snapshot)));
        assert!(!plan.is_empty());
        drop(timed(look, || watch.look(&new, Instant::now(), |_, _| Ok(hop), |_| {})));
        drop(timed(table, || filter_table(&new, &HashSet::new())));
        let compiled = timed(compile, || registry.compile_at(&new, ports(), Duration::ZERO, |_, _| at));
        (snapshot, old) = (compiled.expect("compiles").snapshot, new);
    }
    let names =
        ["  reading the file", "  the plan", "  what checks mean to it", "  the filter's table", "  the snapshot"];
    names.into_iter().zip(times).map(|(name, times)| Row { name, times }).collect()
}
