//! What watching costs forwarding: short windows with and without questions take turns in one run.
//!
//! `cargo run --release --example watched [-- --pairs 100] [--only metrics,page,status,flows] [--json FILE]`, as root; the program that
//! is measured is `target/release/evenkeel`, or that of `--evenkeel`. One engine with 1000 services of 20 servers and a million UDP
//! flows in its table forwards more packets than its worker can take; windows of a second come in the order ABBA, A without and B with
//! one question at its begin. Each pair gives a ratio of the rates at the sink; the median of the pairs is given with an interval of
//! 95 % by bootstrap. Everything but the worker is pinned to the load's core, as on an appliance whose workers have cores of their own.
//!
//! Also from the start of the process to the first packet at the sink: `--only start`.

#[path = "../end_to_end/quiet.rs"]
mod quiet;
#[expect(dead_code, reason = "the parts that other measurements need")]
#[path = "../end_to_end/site.rs"]
mod site;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use evenkeel::control::socket;
use evenkeel::control::socket::client::ask;
use evenkeel::lab::engine::{Engine, EngineConfig};
use evenkeel::lab::holdings;
use evenkeel::lab::process::Process;
use evenkeel::model::Protocol;

use site::{BULK_PORT, DEVICE, DEVICE_CORE, GENERATOR, LOAD_CORE, SINK, Site, VIP};

/// Port of the web listener, in the device's own namespace.
const WEB: u16 = 9112;

/// What watching costs forwarding.
#[derive(Parser)]
struct Arguments {
    /// Pairs of windows for each question.
    #[arg(long, default_value_t = 100)]
    pairs: usize,
    /// Length of a window in seconds.
    #[arg(long, default_value_t = 1.0)]
    window: f64,
    /// Services; one of them has the flows.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Servers of each.
    #[arg(long, default_value_t = 20)]
    servers: usize,
    /// Flows.
    #[arg(long, default_value_t = 1_000_000)]
    flows: u32,
    /// Packets offered a second.
    #[arg(long, default_value_t = 1_300_000)]
    rate: u64,
    /// Questions: `nothing` is the control.
    #[arg(long, value_delimiter = ',', default_value = "start,nothing,metrics,few,page,status,flows")]
    only: Vec<String>,
    /// Where to write all ratios.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The program under test.
    #[arg(long, default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
}

fn main() -> ExitCode {
    holdings::clean_up_on_signals();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watched: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration: all services have the same servers, which have the sink's Ethernet address.
fn config(arguments: &Arguments, site: &Site, services: usize) -> anyhow::Result<EngineConfig> {
    let mac = site.mac(SINK, "k0")?;
    let server = |n: usize| IpAddr::from(Ipv4Addr::new(10, 92, 1 + (n / 200) as u8, (n % 200) as u8 + 1));
    let servers: Vec<(IpAddr, u16)> = (0..arguments.servers).map(|n| (server(n), 1)).collect();
    let mut config = EngineConfig::new();
    config
        .set("engine", "cores", vec![DEVICE_CORE as i64])
        .set("engine", "polling", "busy")
        .set("engine", "flows", i64::from(arguments.flows) * 3 / 2)
        .set("engine", "unproven_flows", i64::from(arguments.flows) * 3 / 2)
        .set("web", "address", "127.0.0.1")
        .set("web", "port", i64::from(WEB))
        .interface("l0")
        .interface("l1");
    for (address, _) in &servers {
        config.neighbor(*address, mac, "l1", None);
    }
    config.service("bulk", VIP.into(), Protocol::Udp, &BULK_PORT.to_string(), "wlc", &servers);
    for at in 1..services {
        let address = Ipv4Addr::new(10, 100, (at / 250) as u8, (at % 250) as u8 + 1);
        config.service(&format!("service-{at}"), address.into(), Protocol::Tcp, "80", "wlc", &servers);
    }
    Ok(config)
}

fn generator(arguments: &Arguments, site: &Site, rate: u64) -> anyhow::Result<Process> {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(LOAD_CORE.to_string()).arg(&arguments.evenkeel);
    command.args(["pktgen", "--interface", "g0", "--dst", &format!("{VIP}:{BULK_PORT}")]);
    command.args(["--dst-mac", &site.mac(DEVICE, "l0")?.to_string(), "--src", "10.91.128.0/20", "--size", "60"]);
    command.args(["--flows", &arguments.flows.to_string(), "--rate", &rate.to_string(), "--duration", "36000"]);
    Ok(site.lab.start(GENERATOR, "pktgen", &command)?)
}

/// All threads of the engine but its workers go to the load's core.
fn pin_others(pid: u32) -> anyhow::Result<()> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if !name.starts_with("worker-") {
            let id = task.file_name().to_str().and_then(|id| id.parse().ok()).context("a thread's id")?;
            site::pin(id, LOAD_CORE)?;
        }
    }
    Ok(())
}

/// Asks over HTTP, in the device's namespace; how many bytes came.
fn get(site: &Site, path: &str) -> anyhow::Result<usize> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let fetched = site.lab.node(DEVICE)?.run(|| -> std::io::Result<Vec<u8>> {
        site::pin(nix::unistd::gettid().as_raw() as u32, LOAD_CORE).map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], WEB)))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    })??;
    if !fetched.starts_with(b"HTTP/1.1 200") {
        bail!("{path}: {}", String::from_utf8_lossy(&fetched[..fetched.len().min(200)]));
    }
    Ok(fetched.len())
}

/// One question; how many bytes the answer had.
fn question(kind: &str, site: &Site, engine: &Engine) -> anyhow::Result<usize> {
    match kind {
        "nothing" => Ok(0),
        "metrics" => get(site, "/metrics"),
        "few" => get(site, "/metrics?servers=0"),
        "page" => get(site, "/api/status"),
        "status" => Ok(ask(engine.socket(), socket::Command::Status)?.to_string().len()),
        "flows" => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(LOAD_CORE.to_string()).arg(engine.program());
            command.args(["flows", "--count", "--socket"]).arg(engine.socket());
            Ok(site.lab.output(DEVICE, &command)?.len())
        }
        other => bail!("--only {other}: the questions are start, nothing, metrics, few, page, status, flows"),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The interval that holds 95 % of the medians of resamples.
fn interval(values: &[f64]) -> (f64, f64) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let medians: Vec<f64> = (0..2000)
        .map(|_| median(&(0..values.len()).map(|_| values[random(values.len())]).collect::<Vec<_>>()))
        .collect();
    let mut sorted = medians;
    sorted.sort_by(f64::total_cmp);
    (sorted[50], sorted[1949])
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !arguments.evenkeel.is_file() {
        bail!("{} is missing: cargo build --release --bin evenkeel", arguments.evenkeel.display());
    }
    if thread::available_parallelism()?.get() < 2 {
        bail!("two cores are needed: one for the worker, one for all else");
    }
    site::pin(std::process::id(), LOAD_CORE)?;
    let mut json = serde_json::Map::new();
    if arguments.only.iter().any(|kind| kind == "start") {
        for services in [1, arguments.services] {
            let times: Vec<f64> = (0..5).map(|_| start(arguments, services)).collect::<anyhow::Result<_>>()?;
            let (least, most) = times.iter().fold((f64::MAX, 0.0_f64), |(a, b), t| (a.min(*t), b.max(*t)));
            println!(
                "start to first packet, {services} services: {:.0} ms ({least:.0} to {most:.0}), of 5 starts",
                median(&times)
            );
            json.insert(format!("start_{services}_ms"), serde_json::json!(times));
        }
    }
    let kinds: Vec<&String> = arguments.only.iter().filter(|kind| *kind != "start").collect();
    if !kinds.is_empty() {
        watched(arguments, &kinds, &mut json)?;
    }
    if let Some(file) = &arguments.json {
        fs::write(file, serde_json::Value::Object(json).to_string())
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// From the start of the process to the first packet at the sink, in milliseconds. Packets come all the time; the servers' addresses are
/// fixed.
fn start(arguments: &Arguments, services: usize) -> anyhow::Result<f64> {
    let site = Site::new()?;
    let config = config(arguments, &site, services)?;
    // Somebody has to take the generator's frames before the engine does, or there is no path for them.
    let mut command = Command::new("taskset");
    command.arg("-c").arg(LOAD_CORE.to_string()).arg(&arguments.evenkeel);
    command.args(["pktgen", "--engine", "xsk", "--interface", "g0", "--dst", &format!("{VIP}:{BULK_PORT}")]);
    command.args(["--dst-mac", &site.mac(DEVICE, "l0")?.to_string(), "--src", "10.91.128.0/20", "--size", "60"]);
    command.args(["--flows", "1000", "--rate", "20000", "--duration", "60"]);
    let generator = site.lab.start(GENERATOR, "pktgen", &command)?;
    thread::sleep(Duration::from_millis(500));
    let before = site.arrived()?;
    let begun = Instant::now();
    let engine = Engine::start(&site.lab, DEVICE, &arguments.evenkeel, &config)?;
    // What the kernel sends by itself, such as router solicitations, is a few packets.
    while site.arrived()? < before + 20 {
        if let Some(status) = engine.process().ended() {
            bail!("the engine ended ({status}): {}", engine.process().last_words(5));
        }
        if begun.elapsed() > Duration::from_secs(30) {
            bail!("no packet came: {}", generator.last_words(5));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

fn watched(
    arguments: &Arguments,
    kinds: &[&String],
    json: &mut serde_json::Map<String, serde_json::Value>,
) -> anyhow::Result<()> {
    let site = Site::new()?;
    let config = config(arguments, &site, arguments.services)?;
    let engine = Engine::start(&site.lab, DEVICE, &arguments.evenkeel, &config)?;
    engine.await_ready(Duration::from_secs(60))?;
    pin_others(engine.process().pid())?;
    let load = generator(arguments, &site, arguments.rate)?;
    let flows = fill(arguments, &engine, &load)?;
    // The web listener's thread may have begun since.
    get(&site, "/healthz")?;
    pin_others(engine.process().pid())?;
    println!(
        "{} services of {} servers, {flows} flows, {} packets/s offered, {} pairs of {} s",
        arguments.services, arguments.servers, arguments.rate, arguments.pairs, arguments.window
    );
    for kind in kinds {
        quiet::wait();
        let (mut ratios, mut rates, mut took, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for pair in 0..arguments.pairs {
            let mut rate = [0.0; 2];
            // ABBA: a drift hits both alike.
            for with in if pair % 2 == 0 { [false, true] } else { [true, false] } {
                let (before, begun) = (site.arrived()?, Instant::now());
                if with {
                    bytes = question(kind, &site, &engine)?;
                    took.push(begun.elapsed().as_secs_f64() * 1000.0);
                }
                thread::sleep(Duration::from_secs_f64(arguments.window).saturating_sub(begun.elapsed()));
                rate[usize::from(with)] = (site.arrived()? - before) as f64 / begun.elapsed().as_secs_f64();
            }
            if let Some(status) = load.ended() {
                bail!("the generator ended ({status}): {}", load.last_words(5));
            }
            ratios.push(rate[1] / rate[0]);
            rates.push(rate[0]);
        }
        let (low, high) = interval(&ratios);
        let (min, max) = ratios.iter().fold((f64::MAX, 0.0_f64), |(a, b), r| (a.min(*r), b.max(*r)));
        println!(
            "  {kind:<8} {:+.2} % ({:+.2} to {:+.2}; pairs {:+.0} to {:+.0}) of {:.0} packets/s; {bytes} bytes in {:.0} ms",
            (median(&ratios) - 1.0) * 100.0,
            (low - 1.0) * 100.0,
            (high - 1.0) * 100.0,
            (min - 1.0) * 100.0,
            (max - 1.0) * 100.0,
            median(&rates),
            median(&took),
        );
        json.insert(
            (*kind).clone(),
            serde_json::json!({ "ratios": ratios, "packets_per_s": rates, "bytes": bytes, "ms": took }),
        );
    }
    Ok(())
}

/// Waits until the flows are there; how many there are.
fn fill(arguments: &Arguments, engine: &Engine, load: &Process) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let options = serde_json::json!({ "parts": ["workers"] });
    loop {
        let status = socket::client::ask_with(engine.socket(), socket::Command::Status, &options)?;
        let flows = status["workers"][0]["flows"].as_u64().context("no flows")?;
        if flows >= u64::from(arguments.flows) * 97 / 100 {
            return Ok(flows);
        }
        if let Some(status) = load.ended() {
            bail!("the generator ended ({status}): {}", load.last_words(5));
        }
        if begun.elapsed() > Duration::from_secs(300) {
            bail!("{flows} flows after five minutes");
        }
        thread::sleep(Duration::from_millis(500));
    }
}
