//! What `evenkeel status` says: plain values as they go over the control socket, and their form for people.
//!
//! Owns names and layout. Never collects anything: the control loop fills these.

mod health;
mod life;
mod machine;
mod neighbors;
pub mod parts;
mod services;
mod settings;
pub(in crate::control) mod table;
mod vrrp;
mod web;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::model::{IoMode, Method, Protocol};
use crate::vrrp::status::VrrpStatus;
pub use health::{CheckStatus, QuorumStatus, ServerCheckStatus, ServerHealthStatus, TurnStatus, render_checks};
pub(in crate::control) use health::{short, word as state_word};
pub use life::{DrainStatus, LimitedClientsStatus, LimitsStatus, RemovedStatus};
pub use machine::{InterfaceStatus, QueueStatus, RefusedMode, WorkerStatus};
pub use neighbors::NeighborStatus;
pub(in crate::control) use services::with_port;
pub use settings::{PersistenceSettings, RatesStatus, SettingsStatus, TimeoutsStatus};
use table::Table;
pub(in crate::control) use vrrp::{ago, master as master_words};
pub use web::WebStatus;

/// Everything about the engine, or those parts of it that were asked for; [`parts::Part`] has the members' names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The process.
    pub engine: EngineStatus,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// Interfaces, in the order of the configuration.
    pub interfaces: Vec<InterfaceStatus>,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
    /// Services, in the order of the configuration.
    pub services: Vec<ServiceStatus>,
    /// The timeouts that `ipvsadm` knows.
    #[serde(default)]
    pub timeouts: TimeoutsStatus,
    /// Health checks, each once, whoever shares it.
    pub checks: Vec<CheckStatus>,
    /// Local addresses of full NAT, over all services and workers.
    pub local_ports: LocalPortsStatus,
    /// Client networks that are counted for limits, over all services.
    pub limited_clients: LimitedClientsStatus,
    /// Persistent clients, over all services and workers.
    pub persistence: PersistenceStatus,
    /// Virtual routers; absent where there never was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vrrp: Option<VrrpStatus>,
    /// Next hops; only where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<Vec<NeighborStatus>>,
    /// Dropped packets by reason; reasons that never happened are absent.
    pub drops: BTreeMap<String, u64>,
    /// The same for each worker, in their order; only where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drops_by_worker: Option<Vec<BTreeMap<String, u64>>>,
    /// The web listener; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web: Option<WebStatus>,
    /// What someone should look at.
    pub warnings: Vec<String>,
}

/// Persistent clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceStatus {
    /// Clients now, those whose time is over but who were not swept yet included.
    pub clients: u64,
    /// Most clients.
    pub capacity: u64,
    /// Clients that gave way to newer ones before their time.
    pub gave_way: u32,
    /// Flows of clients for whom there was no room.
    pub refused: u32,
}

/// Local addresses of full NAT and their ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPortsStatus {
    /// Local addresses, each counted once.
    pub addresses: u64,
    /// Ports in use.
    pub in_use: u64,
    /// Ports of all these addresses.
    pub capacity: u64,
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since start.
    pub uptime_s: u64,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file.
    pub file: String,
    /// Number of the snapshot in force; it also counts changes of next hops.
    pub generation: u64,
    /// Snapshot that the slowest worker has taken.
    pub taken_by_all: u64,
    /// Unix time of the last configuration that was taken.
    pub loaded_at: u64,
    /// Why the last reload was refused, if it was.
    pub last_error: Option<String>,
    /// Changes by command that the file does not have.
    #[serde(default)]
    pub unsaved: usize,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name.
    pub name: String,
    /// Virtual address.
    pub address: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port, range or `any`.
    pub port: String,
    /// Scheduler, with its flags.
    pub scheduler: String,
    /// Scheduler flags.
    pub flags: Vec<String>,
    /// Forwarding method, where a server has no other.
    pub method: Method,
    /// Packets of all its servers, those that were removed included.
    pub packets: u64,
    /// Bytes of all its servers.
    pub bytes: u64,
    /// Packets that came from all its servers (NAT).
    pub out_packets: u64,
    /// Bytes of those packets.
    pub out_bytes: u64,
    /// Flows of all its servers since start.
    pub connections: u64,
    /// What passes of all its servers a second.
    #[serde(default)]
    pub rates: RatesStatus,
    /// What else it is set to.
    #[serde(default)]
    pub settings: SettingsStatus,
    /// Its limits for new flows, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsStatus>,
    /// Whether enough of it is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<QuorumStatus>,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
    /// The server that serves instead of all others while the quorum is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorry: Option<Box<ServerStatus>>,
    /// Servers that were removed, while flows of them are left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedStatus>,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its own address.
    pub address: String,
    /// Its port, where NAT changes it; absent where it is the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How packets reach it: a method's name, or `local` for a server that is this machine.
    pub method: String,
    /// The method that it is configured with.
    #[serde(default)]
    pub configured_method: String,
    /// Weight that counts for new flows now: 0 for a server that gets none.
    pub weight: u16,
    /// How it is by its checks, by people and by traffic.
    #[serde(flatten)]
    pub health: Option<ServerHealthStatus>,
    /// Where frames for it go, if known.
    pub next_hop: Option<NextHopStatus>,
    /// Why there is no next hop: a word, and a sentence. A local server needs none.
    pub unreachable: Option<Unreachable>,
    /// Established flows now.
    pub active: u32,
    /// Other flows now.
    pub inactive: u32,
    /// Flows since start.
    pub connections: u64,
    /// Flows at which it takes no new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper_threshold: Option<u32>,
    /// Flows below which it takes new ones again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_threshold: Option<u32>,
    /// Whether it takes no new ones because of that.
    #[serde(default)]
    pub overloaded: bool,
    /// How far it has drained, where it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// Packets forwarded to it.
    pub packets: u64,
    /// Bytes forwarded to it.
    pub bytes: u64,
    /// Packets that came from it, where they pass by (NAT).
    pub out_packets: u64,
    /// Bytes of those packets.
    pub out_bytes: u64,
    /// What of all this passes a second.
    #[serde(default)]
    pub rates: RatesStatus,
    /// Tunnels: largest packet on the way to it, in bytes with the outer header, where a router has told of less than the
    /// interface takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
}

/// Where frames for a server go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextHopStatus {
    /// Its Ethernet address.
    pub mac: String,
    /// Interface.
    pub interface: String,
    /// 802.1Q tag.
    pub vlan: Option<u16>,
}

/// Why a server has no next hop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unreachable {
    /// One word.
    pub reason: String,
    /// One sentence.
    pub detail: String,
}

/// The status for people. `now` is the Unix time.
pub fn render(status: &Status, now: u64) -> String {
    let mut out = String::new();
    let (engine, config) = (&status.engine, &status.config);
    let _ = writeln!(out, "evenkeel {}, pid {}, up {}", engine.version, engine.pid, span(engine.uptime_s));
    let _ = writeln!(
        out,
        "{}, loaded {} ago, generation {}{}",
        config.file,
        span(now.saturating_sub(config.loaded_at)),
        config.generation,
        if config.taken_by_all < config.generation { ", not yet taken by all workers" } else { "" },
    );
    for warning in &status.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    if let Some(error) = &config.last_error {
        let _ = writeln!(out, "warning: the last reload was refused: {error}");
    }
    if config.unsaved > 0 {
        let _ = writeln!(
            out,
            "changes by command that the file does not have: {} (`evenkeel save` writes them)",
            config.unsaved
        );
    }
    out.push('\n');
    if let Some(routers) = &status.vrrp {
        vrrp::render(&mut out, routers);
    }
    interfaces(&mut out, status);
    out.push_str(&render_workers(status));
    services::render(&mut out, status);
    let persistence = &status.persistence;
    if persistence.clients > 0 || persistence.refused > 0 {
        let _ = write!(out, "{} of {} persistent clients", persistence.clients, persistence.capacity);
        let more = [(persistence.gave_way, "gave way early"), (persistence.refused, "flows found no room")];
        for (count, what) in more.into_iter().filter(|(count, _)| *count > 0) {
            let _ = write!(out, ", {count} {what}");
        }
        out.push_str("\n\n");
    }
    if !status.drops.is_empty() {
        let mut rows: Vec<(&String, &u64)> = status.drops.iter().collect();
        rows.sort_by(|a, b| b.1.cmp(a.1));
        let mut table = Table::new(&["<Dropped", ">Packets"]);
        rows.iter().for_each(|(reason, packets)| table.row([reason.to_string(), packets.to_string()]));
        out.push_str(&table.render());
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn interfaces(out: &mut String, status: &Status) {
    let mut table =
        Table::new(&["<Interface", "<Driver", "<State", ">MTU", "<Queue:worker", "<Mode", ">Taken", ">Passed"]);
    for interface in &status.interfaces {
        let queues: Vec<String> = interface.queues.iter().map(|q| format!("{}:{}", q.queue, q.worker)).collect();
        let mut modes: Vec<IoMode> = interface.queues.iter().map(|q| q.mode).collect();
        modes.sort_unstable();
        modes.dedup();
        let modes: Vec<&str> = modes.into_iter().map(IoMode::name).collect();
        table.row([
            interface.name.clone(),
            interface.driver.clone(),
            if interface.up { "up" } else { "down" }.to_owned(),
            interface.mtu.to_string(),
            queues.join(" "),
            modes.join(" "),
            interface.filter_taken.to_string(),
            interface.filter_passed.to_string(),
        ]);
    }
    out.push_str(&table.render());
    for interface in &status.interfaces {
        for refused in &interface.refused {
            let _ = writeln!(out, "{}: no {}: {}", interface.name, refused.mode, refused.reason);
        }
        if interface.filter_no_socket > 0 {
            let _ = writeln!(
                out,
                "{}: {} frames for services came on queues without a worker",
                interface.name, interface.filter_no_socket
            );
        }
        if interface.filter_denied > 0 {
            let _ = writeln!(
                out,
                "{}: {} frames of clients that the access lists deny were dropped",
                interface.name, interface.filter_denied
            );
        }
    }
    out.push('\n');
}

/// The workers for people.
pub(in crate::control) fn render_workers(status: &Status) -> String {
    let mut out = String::new();
    let header = [
        ">Worker",
        ">Core",
        ">Load",
        ">Received",
        ">Sent",
        ">Forwarded",
        ">A batch",
        ">Late",
        ">Flows",
        ">of",
        ">IPv6 flows",
        ">of",
    ];
    let mut table = Table::new(&header);
    for worker in &status.workers {
        let batch = if worker.batches == 0 { 0.0 } else { worker.rx_frames as f64 / worker.batches as f64 };
        table.row([
            worker.worker.to_string(),
            worker.core.to_string(),
            if worker.running { format!("{:.0} %", worker.load * 100.0) } else { "DEAD".to_owned() },
            worker.rx_frames.to_string(),
            worker.tx_frames.to_string(),
            worker.forwarded.to_string(),
            format!("{batch:.1}"),
            worker.rx_ring_drops.to_string(),
            worker.flows.to_string(),
            worker.flow_capacity.to_string(),
            worker.flows_ipv6.to_string(),
            worker.flow_capacity_ipv6.to_string(),
        ]);
    }
    out.push_str(&table.render());
    out.push('\n');
    shared_work(&mut out, status);
    cookies(&mut out, status);
    out
}

/// What workers do besides forwarding; nothing while none of it happens.
fn shared_work(out: &mut String, status: &Status) {
    let header = [
        ">Worker",
        ">Unproven",
        ">Stateless",
        ">Handed",
        ">Taken over",
        ">Waited",
        ">Unmatched",
        ">ICMP errors",
        ">Resets",
        ">Refusals",
        ">Local ports",
        ">of",
    ];
    let mut table = Table::new(&header);
    let mut any = false;
    for worker in &status.workers {
        let numbers = [
            worker.unproven,
            worker.stateless,
            worker.handed,
            worker.taken_over,
            worker.kept,
            worker.unmatched,
            worker.icmp_errors,
            worker.resets,
            worker.refused,
            worker.local_ports,
            worker.local_port_capacity,
        ];
        any |= numbers.iter().any(|number| *number > 0);
        let cells = std::iter::once(u64::try_from(worker.worker).unwrap_or(0)).chain(numbers);
        table.cells(cells.map(|number| number.to_string()).collect());
    }
    if any {
        out.push_str(&table.render());
        out.push('\n');
    }
}

/// SYN cookies; nothing while there are none.
fn cookies(out: &mut String, status: &Status) {
    let mut table = Table::new(&[">Worker", ">Cookies sent", ">Came back", ">Refused", ">Flows by cookie", ">of"]);
    let mut any = false;
    for worker in &status.workers {
        any |= worker.cookies_sent + worker.cookies_accepted + worker.cookies_refused + worker.cookie_flows > 0;
        table.row([
            worker.worker.to_string(),
            worker.cookies_sent.to_string(),
            worker.cookies_accepted.to_string(),
            worker.cookies_refused.to_string(),
            worker.cookie_flows.to_string(),
            worker.cookie_flow_capacity.to_string(),
        ]);
    }
    if any {
        out.push_str(&table.render());
        out.push('\n');
    }
}

/// Seconds in words.
pub(in crate::control) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests;
