//! A site with an engine, its services and its servers, for tests that look at one forwarding method.
//!
//! Owns the way from a site to a running engine. Every failure panics with the engine's last words.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel::lab::bytes::Bytes;
use evenkeel::lab::client::http::{HttpConnection, Response};
use evenkeel::lab::client::transfer::{Plan, Transferred, at_once};
use evenkeel::lab::client::udp;
use evenkeel::lab::engine::{Engine, EngineConfig};
use evenkeel::lab::error::LabError;
use evenkeel::lab::netns::Namespace;
use evenkeel::lab::scenario::{START, base_config, forward, traffic};
use evenkeel::lab::server::{decap, nginx, transfer, udp as udp_server};
use evenkeel::lab::site::{APPLIANCE, CLIENT, Family, Reach, Shape, Site, SiteOptions};
use evenkeel::model::{Method, Protocol};
use serde_json::Value as Json;

use super::program;

/// The service ports; behind NAT the servers listen on others.
pub const WEB: u16 = 80;
pub const WEB_INSIDE: u16 = 8080;
pub const BULK: u16 = 7001;
pub const ECHO: u16 = 5353;
pub const ECHO_INSIDE: u16 = 5454;
/// How long a client waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a rig is built for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub method: Method,
    pub family: Family,
    pub site: SiteOptions,
}

impl Wish {
    /// A method over a family, two arms and two servers where the method wants them.
    pub fn new(method: Method, family: Family) -> Wish {
        let reach = match method {
            Method::Dr => Reach::Direct,
            Method::Nat => Reach::Nat,
            Method::FullNat => Reach::FullNat,
            Method::Ipip | Method::Gue | Method::Gre => Reach::Tunnel,
        };
        let site = SiteOptions { shape: Shape::TwoArm, servers: 2, reach, ..SiteOptions::USUAL };
        Wish { method, family, site }
    }

    /// The same with one arm.
    pub fn one_arm(mut self) -> Wish {
        self.site.shape = Shape::OneArm;
        self
    }

    /// Builds the site, and a configuration with the services `web`, `bulk` and `echo`.
    pub fn build(self) -> Stand {
        self.build_towards(self.family)
    }

    /// The same, with servers of another family (tunnels).
    pub fn build_towards(self, inner: Family) -> Stand {
        let site = Site::build(self.site).unwrap_or_else(|error| panic!("{error}"));
        let mut config = base_config(&site, self.family);
        let vip = site.vip(self.family);
        let servers: Vec<_> = site.servers.iter().map(|server| (server.address(inner), 1)).collect();
        let mut serve = |name: &str, protocol, port: u16, inside: u16| {
            config.service(name, vip, protocol, &port.to_string(), "rr", &servers);
            forward::by(&mut config, &site, self.family, name, self.method);
            for server in &site.servers {
                if matches!(server.reach, Reach::Nat | Reach::FullNat) && port != inside {
                    config.change_server(name, server.address(inner), "port", i64::from(inside));
                }
            }
        };
        serve("web", Protocol::Tcp, WEB, WEB_INSIDE);
        serve("bulk", Protocol::Tcp, BULK, BULK);
        serve("echo", Protocol::Udp, ECHO, ECHO_INSIDE);
        forward::gateways(&mut config, &site);
        Stand { wish: self, site, config }
    }
}

/// A site and a configuration, before anything runs.
pub struct Stand {
    pub wish: Wish,
    pub site: Site,
    pub config: EngineConfig,
}

impl Stand {
    /// Starts the servers and the engine.
    pub fn start(mut self) -> Rig {
        self.start_servers();
        self.start_engine()
    }

    pub fn start_servers(&mut self) {
        let (site, family) = (&mut self.site, self.wish.family);
        let mut work = || {
            decap::start_all(site, &program())?;
            for server in site.servers.clone() {
                let inside = matches!(server.reach, Reach::Nat | Reach::FullNat);
                let (web, echo) = if inside { (WEB_INSIDE, ECHO_INSIDE) } else { (WEB, ECHO) };
                nginx::start_on(site, std::slice::from_ref(&server), web, false)?;
                let address = site.served_address(&server, family);
                transfer::start(site, &server.name, address, BULK)?;
                udp_server::start(site, &server.name, address, echo)?;
            }
            Ok::<_, LabError>(())
        };
        work().unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn start_engine(self) -> Rig {
        let Stand { wish, site, config } = self;
        let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config)
            .and_then(|engine| engine.await_ready(START).map(|()| engine))
            .unwrap_or_else(|error| panic!("{wish:?}: {error}\n{}", config.to_toml()));
        Rig { wish, engine, config, site }
    }

    /// Runs `ip` inside a node: words with blanks between.
    pub fn ip(&self, node: &str, words: &str) -> String {
        ip(&self.site, node, words)
    }
}

/// Everything runs.
pub struct Rig {
    pub wish: Wish,
    pub engine: Engine,
    pub config: EngineConfig,
    /// Last: everything else lives in it.
    pub site: Site,
}

impl Rig {
    pub fn client(&self) -> &Namespace {
        self.site.lab.node(CLIENT).unwrap()
    }

    pub fn target(&self, port: u16) -> SocketAddr {
        self.site.vip_port(self.wish.family, port)
    }

    /// The engine's counters and last words, for a failure.
    pub fn story(&self) -> String {
        let status = self.engine.status().map_or_else(|error| error.to_string(), |status| told(&status));
        let wish = format!("{:?} {:?} {:?}", self.wish.method, self.wish.family, self.wish.site.shape);
        let client = self.site.client_address(self.wish.family);
        let ways = self.site.servers.iter().map(|server| {
            let name = &server.name;
            let said = ["route get", "neighbor show to"].map(|words| {
                try_ip(&self.site, name, &format!("{words} {client}")).unwrap_or_else(|error| error.to_string())
            });
            format!("{name} to the client: {}\n", said.join(" ").split_whitespace().collect::<Vec<_>>().join(" "))
        });
        let ways: String = ways.collect();
        format!("{wish}\n{status}\n{ways}the engine's last words:\n    {}", self.engine.process().last_words(8))
    }

    /// One request on a new connection, and the client's own address and port.
    pub fn get(&self) -> (SocketAddr, Response) {
        let target = self.target(WEB);
        let asked = self.client().run(|| {
            let mut connection = HttpConnection::open(target, PATIENCE)?;
            let own = connection.local_address()?;
            connection.get("/", true).map(|response| (own, response))
        });
        asked.unwrap().unwrap_or_else(|error| panic!("GET http://{target}/: {error}\n{}", self.story()))
    }

    /// Transfers at the same time, `mib` MiB each way each; all must arrive whole.
    pub fn transfer(&self, count: u64, mib: u64) -> Vec<Transferred> {
        let plan = Plan { seed: 11, up: mib << 20, down: mib << 20 };
        let outcomes = at_once(self.client(), self.target(BULK), plan, count).unwrap();
        let mut whole = Vec::new();
        for outcome in outcomes {
            match outcome {
                Ok(transfer) => whole.push(transfer),
                Err(error) => panic!("a transfer of {mib} MiB each way: {error}\n{}", self.story()),
            }
        }
        println!("{:?} {:?}: {}", self.wish.method, self.wish.family, whole[0]);
        whole
    }

    /// The whole amount that the tests move, over as many transfers as there are servers.
    pub fn transfer_all(&self) -> Vec<Transferred> {
        let servers = self.site.servers.len() as u64;
        self.transfer(servers, (traffic::transfer_bytes() >> 20) / servers)
    }

    /// Datagrams of these sizes, each from a new port, each echoed byte for byte.
    pub fn echo(&self, sizes: &[usize]) {
        let target = self.target(ECHO);
        self.client()
            .run(|| {
                let mut bytes = Bytes::new(23);
                for &size in sizes {
                    let payload = bytes.take(size);
                    let asked = udp::socket(target, PATIENCE).and_then(|socket| udp::ask_bytes(&socket, &payload));
                    asked.unwrap_or_else(|error| panic!("a datagram of {size} bytes: {error}\n{}", self.story()));
                }
            })
            .unwrap();
    }

    /// Waits until the status says something.
    pub fn await_status(&self, what: &str, wanted: impl FnMut(&Json) -> bool) -> Json {
        self.engine.await_status(PATIENCE, what, wanted).unwrap_or_else(|error| panic!("{error}\n{}", self.story()))
    }

    /// How often packets were dropped for a reason.
    pub fn drops(&self, reason: &str) -> u64 {
        self.engine.status().unwrap()["drops"][reason].as_u64().unwrap_or(0)
    }

    /// Runs `ip` inside a node: words with blanks between.
    pub fn ip(&self, node: &str, words: &str) -> String {
        ip(&self.site, node, words)
    }
}

/// The numbers of a status that are not 0, in a few lines.
fn told(status: &Json) -> String {
    let numbers = |entry: &Json| -> String {
        let all = entry.as_object().into_iter().flatten().filter(|(_, value)| value.as_u64().is_some_and(|n| n > 0));
        all.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![format!("drops: {}", numbers(&status["drops"]))];
    for worker in status["workers"].as_array().into_iter().flatten() {
        lines.push(format!("worker: {}", numbers(worker)));
    }
    for interface in status["interfaces"].as_array().into_iter().flatten() {
        lines.push(format!("{}: {}", interface["name"], numbers(interface)));
    }
    for service in status["services"].as_array().into_iter().flatten() {
        lines.push(format!("{}: {}", service["name"], numbers(service)));
        for server in service["servers"].as_array().into_iter().flatten() {
            lines.push(format!("    {}: {}", server["address"], numbers(server)));
        }
    }
    lines.join("\n")
}

/// Runs `ip` inside a node: words with blanks between.
pub fn ip(site: &Site, node: &str, words: &str) -> String {
    try_ip(site, node, words).unwrap_or_else(|error| panic!("{error}"))
}

fn try_ip(site: &Site, node: &str, words: &str) -> Result<String, LabError> {
    let mut command = Command::new(evenkeel::lab::process::require("ip", "iproute2")?);
    command.args(words.split_whitespace());
    site.lab.output(node, &command)
}

/// The prefix of `ip` for a family: its option.
pub fn ip_option(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// The path MTU that a node knows towards an address, where it has learned one.
pub fn path_mtu(site: &Site, node: &str, to: IpAddr) -> Option<u32> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let told = ip(site, node, &format!("{} route get {to}", ip_option(family)));
    let mut words = told.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    words.find(|word| *word != "lock").and_then(|word| word.parse().ok())
}

/// Makes a node send packets of at most `mtu` bytes by a route, while its SYNs still announce full segments: the other side
/// must learn the path's MTU by ICMP.
pub fn limit_route(site: &Site, node: &str, family: Family, route: &str, mtu: u32) {
    let headers = if family == Family::V4 { 40 } else { 60 };
    // In IPv6 the kernel's own route to the segment stays beside one of another metric, and wins.
    let own = if family == Family::V6 && !route.contains("via") { "proto kernel metric 256" } else { "" };
    let option = ip_option(family);
    ip(site, node, &format!("{option} route replace {route} {own} mtu lock {mtu} advmss {}", 1500 - headers));
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A file's text, or nothing.
pub fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
