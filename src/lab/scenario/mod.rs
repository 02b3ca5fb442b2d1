//! The scenarios of `evenkeel lab`: a site, an engine, traffic, and what must hold.
//!
//! Owns the list and the stages. The traffic and its checks are in [`traffic`], the narrated demo in [`demo`].

pub mod demo;
pub mod directors;
pub mod dns_dsr;
pub mod failover;
pub mod flood;
pub mod forward;
pub mod haproxy_pair;
pub mod imported;
pub mod ipvsadm;
pub mod outage;
pub mod pairs;
pub mod proxy_pair;
pub mod report;
pub mod tour;
pub mod traffic;
pub mod web_dr;
pub mod web_nat;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::flood::{self as flooder, Packets};
use super::engine::{Engine, EngineConfig};
use super::error::LabError;
use super::netlink::Wire;
use super::process::Process;
use super::queues;
use super::server::{decap, nginx, transfer, udp};
use super::site::{APPLIANCE, Family, Reach, Shape, Site, SiteOptions};
use crate::model::{IoMode, Method, Protocol};

/// The port of the web servers.
pub const HTTP: u16 = 80;
/// The port of the web servers behind NAT.
pub const HTTP_INSIDE: u16 = 8080;
/// The port of the transfer servers.
pub const TRANSFER: u16 = 7001;
/// The port of the UDP servers.
pub const UDP: u16 = 5353;
/// How long an engine may take to be ready.
pub const START: Duration = Duration::from_secs(15);

/// What the clients of a scenario do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// HTTP requests, a large file, long-lived connections.
    Web,
    /// UDP questions.
    Udp,
    /// UDP questions in fragments.
    Fragments,
    /// Many transfers, while frames change their receive queue.
    Workers,
    /// The rows of the deployment `web-nat`.
    WebNat,
    /// The rows of the deployment `web-dr`.
    WebDr,
    /// Web traffic through a flood.
    Flood(Packets),
    /// The rows of a deployment with two appliances.
    Pair(Deployment),
}

/// A deployment of two boxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// Two Squids.
    Proxy,
    /// Two HAProxies.
    Haproxy,
    /// Two directors before two DNS caches.
    Dns,
}

/// A network with a purpose.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows, in one line.
    pub summary: &'static str,
    /// Its network.
    pub site: SiteOptions,
    /// The service's internet protocol.
    pub family: Family,
    /// How packets reach the servers, where the site leaves a choice.
    pub method: Method,
    /// What the clients do.
    pub traffic: Traffic,
}

const ONE_ARM: SiteOptions = SiteOptions::USUAL;
const TWO_ARM: SiteOptions = SiteOptions { shape: Shape::TwoArm, ..ONE_ARM };

/// A scenario with web traffic over IPv4.
const fn web(name: &'static str, summary: &'static str, site: SiteOptions, method: Method) -> Scenario {
    Scenario { name, summary, site, family: Family::V4, method, traffic: Traffic::Web }
}

/// All scenarios.
pub const SCENARIOS: [Scenario; 23] = [
    web(
        "web-dr-one-arm",
        "HTTP by direct routing; client, appliance and three nginx servers share one segment",
        ONE_ARM,
        Method::Dr,
    ),
    web(
        "web-dr-two-arm",
        "HTTP by direct routing; one interface to the clients, one to the servers, two queues each",
        SiteOptions { wire: Wire { queues: 2, mtu: 1500 }, ..TWO_ARM },
        Method::Dr,
    ),
    Scenario {
        family: Family::V6,
        ..web(
            "web-dr-ipv6",
            "HTTP by direct routing over IPv6; the appliance answers neighbour discovery for the service",
            ONE_ARM,
            Method::Dr,
        )
    },
    Scenario {
        traffic: Traffic::Udp,
        ..web("udp-dr", "UDP by direct routing; every conversation keeps its server", ONE_ARM, Method::Dr)
    },
    web(
        "vlan-dr",
        "HTTP by direct routing on an 802.1Q VLAN: every frame is tagged",
        SiteOptions { vlan: Some(100), ..ONE_ARM },
        Method::Dr,
    ),
    web(
        "nat-one-arm",
        "HTTP by NAT to port 8080; both networks on one segment, the appliance is the servers' gateway",
        SiteOptions { reach: Reach::Nat, ..ONE_ARM },
        Method::Nat,
    ),
    web(
        "nat-two-arm",
        "HTTP by NAT to port 8080; the appliance stands between the clients and the servers",
        SiteOptions { reach: Reach::Nat, ..TWO_ARM },
        Method::Nat,
    ),
    Scenario {
        family: Family::V6,
        ..web("nat-ipv6", "HTTP by NAT over IPv6, two arms", SiteOptions { reach: Reach::Nat, ..TWO_ARM }, Method::Nat)
    },
    web(
        "full-nat",
        "HTTP by NAT of both addresses; the servers have no route and answer to the appliance's local addresses",
        SiteOptions { reach: Reach::FullNat, ..TWO_ARM },
        Method::FullNat,
    ),
    web(
        "tunnel-ipip",
        "HTTP by IP in IP to servers behind a router; `evenkeel realserver decap` opens the tunnel",
        SiteOptions { reach: Reach::Tunnel, ..TWO_ARM },
        Method::Ipip,
    ),
    web(
        "tunnel-gue",
        "HTTP by generic UDP encapsulation to servers behind a router",
        SiteOptions { reach: Reach::Tunnel, ..TWO_ARM },
        Method::Gue,
    ),
    web(
        "mixed",
        "one service with a server by direct routing, one by NAT and one by IP in IP",
        SiteOptions { reach: Reach::Mixed, ..TWO_ARM },
        Method::Dr,
    ),
    Scenario {
        traffic: Traffic::Fragments,
        ..web(
            "fragments",
            "UDP datagrams up to 60,000 bytes by NAT; their fragments arrive in any order",
            SiteOptions { reach: Reach::Nat, shuffled: true, ..TWO_ARM },
            Method::Nat,
        )
    },
    Scenario {
        traffic: Traffic::Workers,
        ..web(
            "many-workers",
            "transfers by NAT over two workers and four queues, while frames change their queue all the time",
            SiteOptions { reach: Reach::Nat, wire: Wire { queues: 4, mtu: 1500 }, ..TWO_ARM },
            Method::Nat,
        )
    },
    Scenario {
        traffic: Traffic::WebNat,
        ..web(
            "web-nat",
            "a site's set-up with the classic tools, and what was done to it there",
            web_nat::SITE,
            Method::Nat,
        )
    },
    Scenario {
        traffic: Traffic::WebDr,
        ..web(
            "web-dr",
            "one director by direct routing, driven by `ipvsadm`; what was done to such a site with LVS",
            web_dr::SITE,
            Method::Dr,
        )
    },
    Scenario {
        traffic: Traffic::Pair(Deployment::Proxy),
        ..web(
            "proxy-pair",
            "two boxes with Squid and two addresses; what was done to such a site with keepalived",
            proxy_pair::SITE,
            Method::FullNat,
        )
    },
    Scenario {
        traffic: Traffic::Pair(Deployment::Haproxy),
        ..web(
            "haproxy-pair",
            "two boxes with HAProxy and one address; what was done to such a site with keepalived",
            haproxy_pair::SITE,
            Method::FullNat,
        )
    },
    Scenario {
        traffic: Traffic::Pair(Deployment::Dns),
        ..web(
            "dns-dsr",
            "two directors before two DNS caches; what was done to such a site with keepalived and LVS",
            dns_dsr::SITE,
            Method::Dr,
        )
    },
    Scenario {
        traffic: Traffic::Flood(Packets::Syns),
        ..web("syn-flood", "SYNs from everywhere beside real clients, by direct routing", TWO_ARM, Method::Dr)
    },
    Scenario {
        traffic: Traffic::Flood(Packets::Syns),
        ..web(
            "syn-flood-nat",
            "SYNs from everywhere beside real clients, by NAT",
            SiteOptions { reach: Reach::Nat, ..TWO_ARM },
            Method::Nat,
        )
    },
    Scenario {
        traffic: Traffic::Flood(Packets::Syns),
        ..web(
            "syn-flood-full-nat",
            "SYNs from everywhere beside real clients, by NAT of both addresses",
            SiteOptions { reach: Reach::FullNat, ..TWO_ARM },
            Method::FullNat,
        )
    },
    Scenario {
        traffic: Traffic::Flood(Packets::Datagrams),
        ..web("udp-flood", "datagrams from everywhere beside real clients, by direct routing", TWO_ARM, Method::Dr)
    },
];

/// Finds a scenario by name.
pub fn find(name: &str) -> Result<&'static Scenario, LabError> {
    SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| LabError::Unknown {
        kind: "scenario",
        name: name.to_owned(),
        known: SCENARIOS.map(|scenario| scenario.name).join(", "),
    })
}

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The `evenkeel` to test.
    pub program: PathBuf,
    /// The I/O mode, where it is not to be found out.
    pub mode: Option<IoMode>,
    /// How long the load runs.
    pub duration: Duration,
}

/// A scenario that is up: its network, its servers and its engine.
pub struct Stage {
    /// What it is.
    pub scenario: &'static Scenario,
    /// Its engine.
    pub engine: Engine,
    /// The engine's configuration at the start.
    pub config: EngineConfig,
    /// Its web servers, where it has some.
    pub web: Vec<Process>,
    /// Its network, last: everything else lives in it.
    pub site: Site,
}

impl Stage {
    /// Builds the network and starts everything.
    pub fn set(scenario: &'static Scenario, options: &RunOptions) -> Result<Self, LabError> {
        Stage::set_with(scenario, options, |_, _| ())
    }

    /// Like [`Stage::set`], with a change to the configuration before the engine reads it.
    pub fn set_with(
        scenario: &'static Scenario,
        options: &RunOptions,
        change: impl FnOnce(&Site, &mut EngineConfig),
    ) -> Result<Self, LabError> {
        let (mut site, mut config) = Stage::prepare(scenario, options)?;
        change(&site, &mut config);
        let web = start_servers(scenario, &mut site, &options.program)?;
        let engine = Engine::start(&site.lab, APPLIANCE, &options.program, &config)?;
        engine.await_ready(START)?;
        Ok(Stage { scenario, engine, config, web, site })
    }

    /// Builds the network and its configuration, and starts nothing.
    pub fn prepare(scenario: &'static Scenario, options: &RunOptions) -> Result<(Site, EngineConfig), LabError> {
        let mut site = Site::build(scenario.site)?;
        if scenario.traffic == Traffic::WebNat {
            let config = web_nat::configuration(&site, options)?;
            return Ok((site, config));
        }
        let mut config = base_config(&site, scenario.family);
        if let Some(mode) = options.mode {
            config.set("engine", "mode", vec![mode.name()]);
        }
        let servers: Vec<_> = site.servers.iter().map(|server| (server.address(scenario.family), 1)).collect();
        let vip = site.vip(scenario.family);
        let balanced = if scenario.site.reach == Reach::Mixed { "wrr" } else { "rr" };
        let services: &[_] = match scenario.traffic {
            Traffic::Web | Traffic::WebNat => {
                &[("web", Protocol::Tcp, HTTP, balanced), ("transfer", Protocol::Tcp, TRANSFER, "rr")]
            }
            Traffic::Udp | Traffic::Fragments => &[("echo", Protocol::Udp, UDP, "rr")],
            Traffic::Workers => &[("transfer", Protocol::Tcp, TRANSFER, "rr")],
            // The kernel has the addresses, or `ipvsadm` brings the services.
            Traffic::Pair(_) | Traffic::WebDr => &[],
            Traffic::Flood(_) => &[
                ("web", Protocol::Tcp, HTTP, "wlc"),
                ("transfer", Protocol::Tcp, TRANSFER, "wlc"),
                ("echo", Protocol::Udp, UDP, "wlc"),
            ],
        };
        for &(name, protocol, port, scheduler) in services {
            config.service(name, vip, protocol, &port.to_string(), scheduler, &servers);
            forward::by(&mut config, &site, scenario.family, name, scenario.method);
        }
        if let Traffic::Flood(_) = scenario.traffic {
            flooder::attach(&mut site)?;
            config.set("engine", "unproven_flows", flood::ROOM).set("engine", "unproven_flows_ipv6", flood::ROOM);
        }
        if scenario.traffic == Traffic::Workers {
            config.set("engine", "cores", queues::cores());
        }
        for server in site.servers.iter().filter(|server| matches!(server.reach, Reach::Nat | Reach::FullNat)) {
            config.change_server("web", server.address(scenario.family), "port", i64::from(HTTP_INSIDE));
        }
        forward::gateways(&mut config, &site);
        Ok((site, config))
    }
}

/// Starts the servers' programs; those behind a tunnel first open it, by `program`. The web servers among them.
pub fn start_servers(scenario: &Scenario, site: &mut Site, program: &Path) -> Result<Vec<Process>, LabError> {
    decap::start_all(site, program)?;
    let mut web = Vec::new();
    match scenario.traffic {
        Traffic::WebDr => web = nginx::start_all(site, HTTP)?,
        Traffic::Web | Traffic::WebNat | Traffic::Flood(_) => {
            for server in &site.servers {
                let inside = matches!(server.reach, Reach::Nat | Reach::FullNat) && scenario.traffic != Traffic::WebNat;
                let port = if inside { HTTP_INSIDE } else { HTTP };
                web.extend(nginx::start_on(site, std::slice::from_ref(server), port, false)?);
            }
            if let Traffic::Flood(_) = scenario.traffic {
                udp::start_all(site, scenario.family, UDP)?;
            }
            transfer::start_all(site, scenario.family, TRANSFER)?;
        }
        Traffic::Udp | Traffic::Fragments => udp::start_all(site, scenario.family, UDP)?,
        Traffic::Workers => transfer::start_all(site, scenario.family, TRANSFER)?,
        Traffic::Pair(_) => {}
    }
    Ok(web)
}

/// A configuration with the site's interfaces and one adaptive worker, and no service yet.
pub fn base_config(site: &Site, family: Family) -> EngineConfig {
    let mut config = EngineConfig::new();
    config.set("engine", "cores", vec![0]).set("engine", "polling", "adaptive");
    for interface in site.appliance_interfaces() {
        config.interface(interface);
    }
    for (address, mac) in site.static_neighbors(family) {
        config.neighbor(address, mac, "eth0", site.options.vlan);
    }
    config
}
