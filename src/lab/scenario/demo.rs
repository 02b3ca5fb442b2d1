//! The demo: real HTTP across the appliance, the server set swapped under load, a server that dies, a pair that fails over, told step by step.
//!
//! Owns the story and its checks. Reads well with and without a terminal: one line a second, nothing is overwritten.

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::report::{Report, millis};
use super::{HTTP, RunOptions, START, failover, find, flood, outage, tour};
use crate::lab::client::load::{Load, LoadPlan, Tally, requests};
use crate::lab::client::stream::{Speech, Streams};
use crate::lab::engine::{Engine, EngineConfig};
use crate::lab::error::LabError;
use crate::lab::holdings::PREFIX;
use crate::lab::netns::NETNS_DIR;
use crate::lab::site::{APPLIANCE, CLIENT, Family, Site};

/// The demo's configuration.
pub const CONFIG: &str = include_str!("../../../configs/demo.toml");

/// The service and the server that comes and goes.
const SERVICE: &str = "web";
const GUEST: &str = "server2";
/// Seconds of a step of the story.
const STEP: u64 = 1;
/// Long-lived connections.
const LONG_LIVED: usize = 9;

/// Runs the demo; `short` makes its tour of the methods shorter. Returns what it found.
pub fn run(options: &RunOptions, short: bool) -> Result<Report, LabError> {
    let start = Instant::now();
    heading("A network of namespaces");
    let scenario = find("web-dr-one-arm")?;
    let mut site = Site::build(scenario.site)?;
    println!("{}", site.picture(Family::V4));
    let web = super::start_servers(scenario, &mut site, &options.program)?;
    println!("  nginx runs on {} servers; namespaces are called ek-{}-NAME", site.servers.len(), site.lab.id());

    heading("evenkeel run --config demo.toml, on the appliance");
    let mut config = EngineConfig::parse(CONFIG)?;
    if let Some(mode) = options.mode {
        config.set("engine", "mode", vec![mode.name()]);
    }
    let engine = Engine::start(&site.lab, APPLIANCE, &options.program, &config)?;
    engine.await_ready(START)?;
    engine.process().output().lines().take(20).for_each(|line| println!("  | {line}"));

    heading("A few requests, one after the other");
    first_requests(&site)?;

    let mut story = Story::begin(&site, &engine, config.clone())?;
    story.tell()?;
    let mut report = story.end()?;

    heading("A web server is killed: its health check takes it out, and brings it back");
    outage::show(&site, &engine, &config, &web, &mut report)?;
    if !short {
        heading("evenkeel status");
        print!("{}", engine.status_for_people()?);
    }

    heading("Cleaning up");
    let mine = format!("{PREFIX}{}-", site.lab.id());
    drop(site);
    let names = Path::new(NETNS_DIR).read_dir().into_iter().flatten().flatten();
    let left = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(&mine)).count();
    println!("  processes ended, namespaces removed");
    report.check("nothing is left behind", left == 0, format!("{left} namespaces"));

    heading("The same web service by every method, each on a network of its own");
    tour::run(options, short, &mut report)?;

    if !short {
        heading(
            "A flood of SYNs from nowhere, a hundred for each client that comes, then as many as the machine gives",
        );
        flood::show(options, &mut report)?;
    }

    heading("Two appliances, one address: the master is killed, then stopped, under load");
    failover::show(options, &mut report)?;

    heading("Summary");
    report.scenario = "demo".into();
    print!("{report}");
    let word = if report.passed() { "everything held" } else { "SOMETHING WENT WRONG" };
    println!("\n{word}; {:.0} s in all", start.elapsed().as_secs_f64());
    println!(
        "next: take the nearest example of configs/ (configs/README.md), then `evenkeel check FILE` and `evenkeel doctor --config FILE`"
    );
    Ok(report)
}

fn first_requests(site: &Site) -> Result<(), LabError> {
    let client = site.lab.node(CLIENT)?;
    let target = site.vip_port(Family::V4, HTTP);
    for _ in 0..6 {
        let tally = requests(client, &LoadPlan::new(target), 1)?;
        let took = millis(tally.percentile(0.5));
        match (tally.answers.keys().next(), tally.reasons.first()) {
            (Some(server), _) => println!("  client: GET http://{target}/  ->  200 from {server} in {took}"),
            (None, reason) => println!("  client: GET http://{target}/  ->  {}", reason.map_or("?", |text| text)),
        }
    }
    Ok(())
}

/// The part of the demo that runs under load.
struct Story<'a> {
    site: &'a Site,
    engine: &'a Engine,
    config: EngineConfig,
    load: Load,
    streams: Streams,
    start: Instant,
    checks: Report,
}

impl<'a> Story<'a> {
    fn begin(site: &'a Site, engine: &'a Engine, config: EngineConfig) -> Result<Self, LabError> {
        let target = site.vip_port(Family::V4, HTTP);
        let client = site.lab.node(CLIENT)?;
        heading("Load: 200 requests a second, each on a new connection, and nine connections that stay open");
        let streams = Streams::open(client, target, Speech::Http, LONG_LIVED, Duration::from_millis(50))?;
        streams.settled(Duration::from_secs(5));
        let load = Load::start(client, &LoadPlan::new(target))?;
        let checks = Report::default();
        let start = Instant::now();
        Ok(Story { site, engine, config, load, streams, start, checks })
    }

    fn tell(&mut self) -> Result<(), LabError> {
        let all = self.servers(|_| Some(1));
        self.watch(2 * STEP);

        heading(&format!("Swap: drain {GUEST} (weight 0). New requests go elsewhere, its open connections stay"));
        self.reload(&self.servers(|name| Some(u16::from(name != GUEST))))?;
        let drained = self.watch(2 * STEP);
        self.checks.check(
            format!("{GUEST} gets no new request while it drains"),
            drained.of(GUEST) == 0,
            format!("{} requests", drained.of(GUEST)),
        );
        let kept = self.streams.by_server().get(GUEST).copied().unwrap_or(0);
        self.checks.check(format!("its open connections stay on {GUEST}"), kept > 0, format!("{kept} connections"));

        heading(&format!("Swap: the clients of {GUEST} have hung up; remove it"));
        self.streams.hang_up_on(GUEST);
        thread::sleep(Duration::from_millis(200));
        self.reload(&self.servers(|name| (name != GUEST).then_some(1)))?;
        self.watch(STEP);

        heading(&format!("Swap: {GUEST} is back"));
        self.reload(&all)?;
        let back = self.watch(STEP);
        self.checks.check(format!("{GUEST} is used again"), back.of(GUEST) > 0, format!("{} requests", back.of(GUEST)));

        heading("Swap: server1 takes four times as much as the others");
        self.reload(&self.servers(|name| Some(if name == "server1" { 4 } else { 1 })))?;
        let heavy = self.watch(STEP);
        let share = heavy.of("server1") as f64 / heavy.answered().max(1) as f64;
        let seen = format!("{:.0} % of the requests, 67 % expected", share * 100.0);
        self.checks.check("weights hold", (0.6..0.73).contains(&share), seen);

        heading("Swap: over and over, as fast as the command can be run");
        self.storm()
    }

    /// Reloads with one set of weights after the other.
    fn storm(&mut self) -> Result<(), LabError> {
        let before = self.load.tally();
        let (start, mut swaps) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(STEP) {
            swaps += 1;
            self.engine.reload(self.config.clone().servers(SERVICE, &self.servers(|_| Some(1 + swaps % 7))))?;
        }
        let during = self.load.tally().since(&before);
        println!(
            "  {swaps} reloads in {:.1} s; meanwhile {} answers, {} failed",
            start.elapsed().as_secs_f64(),
            during.answered(),
            during.failures
        );
        let seen = format!("{swaps} reloads, {} failed", during.failures);
        self.checks.check("swaps in quick succession lose nothing", during.failures == 0, seen);
        Ok(())
    }

    fn end(self) -> Result<Report, LabError> {
        let tally = self.load.stop();
        let (exchanges, broken) = (self.streams.exchanges(), self.streams.broken());
        let mut report = Report::new("demo", &tally);
        report.check("no request failed", tally.failures == 0, format!("{} answers", tally.answered()));
        let seen = if broken.is_empty() { format!("{exchanges} exchanges") } else { broken.join("; ") };
        report.check("no open connection was moved or broken", broken.is_empty() && exchanges > 0, seen);
        let used = self.site.servers.iter().all(|server| tally.of(&server.name) > 0);
        report.check("every server answered", used, String::new());
        report.checks.extend(self.checks.checks);
        let ended = self.engine.process().ended();
        report.check("the engine still runs", ended.is_none(), String::new());
        Ok(report)
    }

    /// The servers with the weights that `weight` gives them; none leaves one out.
    fn servers(&self, weight: impl Fn(&str) -> Option<u16>) -> Vec<(IpAddr, u16)> {
        self.site.servers.iter().filter_map(|server| Some((server.v4, weight(&server.name)?))).collect()
    }

    fn reload(&mut self, servers: &[(IpAddr, u16)]) -> Result<(), LabError> {
        let words: Vec<_> = servers.iter().map(|(address, weight)| format!("{address} weight {weight}")).collect();
        println!("  server = {}", words.join(", "));
        self.config.servers(SERVICE, servers);
        let start = Instant::now();
        let said = self.engine.reload(&self.config)?;
        println!("  evenkeel reload: {} ({})", said.lines().next().unwrap_or("done"), millis(start.elapsed()));
        // Requests that were under way at the swap may still be on their old server.
        thread::sleep(Duration::from_millis(200));
        Ok(())
    }

    /// Prints a line each second; returns what happened meanwhile.
    fn watch(&self, seconds: u64) -> Tally {
        let first = self.load.tally();
        let mut last = first.clone();
        for _ in 0..seconds {
            thread::sleep(Duration::from_secs(1));
            let now = self.load.tally();
            let step = now.since(&last);
            let counts: Vec<_> = self
                .site
                .servers
                .iter()
                .map(|server| format!("{} {:>4}", server.name, step.of(&server.name)))
                .collect();
            println!(
                "  {:>3} s   {}   failed {}   median {:<8}  open: {} connections, {} lost",
                self.start.elapsed().as_secs(),
                counts.join("   "),
                now.failures,
                millis(step.percentile(0.5)),
                self.streams.by_server().values().sum::<usize>(),
                self.streams.broken().len(),
            );
            last = now;
        }
        last.since(&first)
    }
}

fn heading(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\x1b[1m== {text}\x1b[0m");
    } else {
        println!("\n== {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_config_has_the_demo_site_s_addresses() {
        let config = EngineConfig::parse(CONFIG).unwrap();
        let servers = ["192.0.2.11", "192.0.2.12", "192.0.2.13"].map(|text| (text.parse().unwrap(), 1));
        let mut same = config.clone();
        same.servers(SERVICE, &servers);
        assert_eq!(config, same);
        assert!(CONFIG.contains("address = \"192.0.2.10\"") && CONFIG.contains("name = \"eth0\""));
    }
}
