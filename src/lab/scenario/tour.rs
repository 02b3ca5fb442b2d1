//! A short tour of the forwarding methods: the same web service by each, with requests and a transfer.
//!
//! Owns the stops and their table. Each stop is a site of its own, gone before the next.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::report::Report;
use super::{HTTP, HTTP_INSIDE, RunOptions, START, TRANSFER, base_config, forward};
use crate::lab::client::http::{self, HttpConnection};
use crate::lab::client::transfer::{Plan, transfer};
use crate::lab::engine::Engine;
use crate::lab::error::LabError;
use crate::lab::server::{decap, nginx, transfer as receiver};
use crate::lab::site::{APPLIANCE, CLIENT, Family, Reach, Shape, Site, SiteOptions};
use crate::model::{Method, Protocol};

const PATIENCE: Duration = Duration::from_secs(3);

/// The stops: a method and where its servers stand.
const STOPS: [(Method, Reach); 6] = [
    (Method::Dr, Reach::Direct),
    (Method::Nat, Reach::Nat),
    (Method::FullNat, Reach::FullNat),
    (Method::Ipip, Reach::Tunnel),
    (Method::Gue, Reach::Tunnel),
    (Method::Gre, Reach::Tunnel),
];

/// Shows each method and notes in `report` whether it works.
pub fn run(options: &RunOptions, short: bool, report: &mut Report) -> Result<(), LabError> {
    println!("  {:<10} {:>12}  {:>12}  {:<28} the server sees the client as", "method", "requests/s", "transfer", "");
    for (method, reach) in STOPS {
        let name = method.name();
        match stop(options, method, reach, short) {
            Ok(line) => {
                println!("  {name:<10} {line}");
                report.check(format!("{name} works"), true, String::new());
            }
            Err(error) => {
                println!("  {name:<10} {error}");
                report.check(format!("{name} works"), false, error.to_string());
            }
        }
    }
    Ok(())
}

fn stop(options: &RunOptions, method: Method, reach: Reach, short: bool) -> Result<String, LabError> {
    let family = Family::V4;
    let site_options = SiteOptions { shape: Shape::TwoArm, servers: 2, reach, ..SiteOptions::USUAL };
    let mut site = Site::build(site_options)?;
    let proxied = method == Method::FullNat;
    let inside = if method.is_nat() { HTTP_INSIDE } else { HTTP };
    decap::start_all(&site, &options.program)?;
    nginx::start_on(&site, &site.servers, inside, proxied)?;
    receiver::start_all(&mut site, family, TRANSFER)?;
    let mut config = base_config(&site, family);
    if let Some(mode) = options.mode {
        config.set("engine", "mode", vec![mode.name()]);
    }
    let servers: Vec<_> = site.servers.iter().map(|server| (server.v4, 1)).collect();
    for (name, port) in [("web", HTTP), ("transfer", TRANSFER)] {
        config.service(name, site.vip(family), Protocol::Tcp, &port.to_string(), "rr", &servers);
        forward::by(&mut config, &site, family, name, method);
    }
    if inside != HTTP {
        config.change_servers("web", "port", i64::from(inside));
    }
    if proxied {
        config.change_service("web", "proxy_protocol", "v2");
    }
    forward::gateways(&mut config, &site);
    let engine = Engine::start(&site.lab, APPLIANCE, &options.program, &config)?;
    engine.await_ready(START)?;

    let client = site.lab.node(CLIENT)?;
    let seconds = Duration::from_millis(if short { 200 } else { 500 });
    let target = site.vip_port(family, HTTP);
    let rate = client.run(|| hammer(target, seconds))??;
    let mib = if short { 8 } else { 32 };
    let plan = Plan { seed: 5, up: mib << 20, down: mib << 20 };
    let failed = |what: &str, error: std::io::Error| LabError::Unexpected(format!("{what}: {error}"));
    let moved = client.run(|| transfer(site.vip_port(family, TRANSFER), plan))?;
    let moved = moved.map_err(|error| failed("the transfer", error))?;
    let seen = client.run(|| -> std::io::Result<_> {
        let mut connection = HttpConnection::open(target, PATIENCE)?;
        let own = connection.local_address()?;
        connection.get("/", true).map(|response| (own, response.client))
    })?;
    let (own, seen) = seen.map_err(|error| failed("a request", error))?;
    let note = if proxied { "with PROXY protocol" } else { "" };
    if method != Method::FullNat || proxied {
        let wanted = format!("{} {}", own.ip(), own.port());
        if seen != wanted {
            return Err(LabError::Unexpected(format!("the server sees `{seen}` in place of `{wanted}`")));
        }
    }
    Ok(format!("{rate:>12.0}  {:>5.0} Mbit/s  {note:<28} {seen}", moved.rate()))
}

/// Requests on new connections as fast as two clients get answers, in a second.
fn hammer(target: SocketAddr, period: Duration) -> Result<f64, LabError> {
    let start = Instant::now();
    let count = thread::scope(|scope| {
        let ask = || -> std::io::Result<u32> {
            let mut count = 0;
            while start.elapsed() < period {
                http::get(target, "/", PATIENCE)?;
                count += 1;
            }
            Ok(count)
        };
        let clients = [scope.spawn(ask), scope.spawn(ask)];
        clients.into_iter().map(|client| client.join().unwrap_or(Ok(0))).sum::<std::io::Result<u32>>()
    });
    let count = count.map_err(|error| LabError::Unexpected(format!("a request: {error}")))?;
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}
