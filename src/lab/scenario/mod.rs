//! The scenarios of `evenkeel lab`: a site, an engine, traffic, and what must hold.
//!
//! Owns the list and the stages. The traffic and its checks are in [`traffic`], the narrated demo in [`demo`].

pub mod demo;
pub mod report;
pub mod traffic;

use std::path::PathBuf;
use std::time::Duration;

use super::engine::{Engine, EngineConfig};
use super::error::LabError;
use super::netlink::Wire;
use super::server::{nginx, udp};
use super::site::{APPLIANCE, Family, Shape, Site, SiteOptions};
use crate::model::{IoMode, Protocol};

/// The port of the web servers.
pub const HTTP: u16 = 80;
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
    /// What the clients do.
    pub traffic: Traffic,
}

const ONE_ARM: SiteOptions =
    SiteOptions { shape: Shape::OneArm, servers: 3, wire: Wire { queues: 1, mtu: 1500 }, vlan: None };

/// All scenarios.
pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "web-dr-one-arm",
        summary: "HTTP by direct routing; client, appliance and three nginx servers share one segment",
        site: ONE_ARM,
        family: Family::V4,
        traffic: Traffic::Web,
    },
    Scenario {
        name: "web-dr-two-arm",
        summary: "HTTP by direct routing; one interface to the clients, one to the servers, two queues each",
        site: SiteOptions { shape: Shape::TwoArm, wire: Wire { queues: 2, mtu: 1500 }, ..ONE_ARM },
        family: Family::V4,
        traffic: Traffic::Web,
    },
    Scenario {
        name: "web-dr-ipv6",
        summary: "HTTP by direct routing over IPv6; the appliance answers neighbour discovery for the service",
        site: ONE_ARM,
        family: Family::V6,
        traffic: Traffic::Web,
    },
    Scenario {
        name: "udp-dr",
        summary: "UDP by direct routing; every conversation keeps its server",
        site: ONE_ARM,
        family: Family::V4,
        traffic: Traffic::Udp,
    },
    Scenario {
        name: "vlan-dr",
        summary: "HTTP by direct routing on an 802.1Q VLAN: every frame is tagged",
        site: SiteOptions { vlan: Some(100), ..ONE_ARM },
        family: Family::V4,
        traffic: Traffic::Web,
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
        start_servers(scenario, &mut site)?;
        let engine = Engine::start(&site.lab, APPLIANCE, &options.program, &config)?;
        engine.await_ready(START)?;
        Ok(Stage { scenario, engine, config, site })
    }

    /// Builds the network and its configuration, and starts nothing.
    pub fn prepare(scenario: &'static Scenario, options: &RunOptions) -> Result<(Site, EngineConfig), LabError> {
        let site = Site::build(scenario.site)?;
        let mut config = base_config(&site, scenario.family);
        if let Some(mode) = options.mode {
            config.set("engine", "mode", vec![mode.name()]);
        }
        let servers: Vec<_> = site.servers.iter().map(|server| (server.address(scenario.family), 1)).collect();
        let vip = site.vip(scenario.family);
        match scenario.traffic {
            Traffic::Web => config.service("web", vip, Protocol::Tcp, &HTTP.to_string(), "rr", &servers),
            Traffic::Udp => config.service("echo", vip, Protocol::Udp, &UDP.to_string(), "rr", &servers),
        };
        Ok((site, config))
    }
}

/// Starts the servers' programs.
pub fn start_servers(scenario: &Scenario, site: &mut Site) -> Result<(), LabError> {
    match scenario.traffic {
        Traffic::Web => nginx::start_all(site, HTTP).map(drop),
        Traffic::Udp => udp::start_all(site, scenario.family, UDP),
    }
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
