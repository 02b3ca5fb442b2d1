//! The families about services, their servers and the health checks.
//!
//! Owns names, sentences and how each is read from the status. Pure.

use super::table::{Metric, metric};
use crate::control::status::{CheckStatus, ServerStatus, ServiceStatus};

/// What a server can be, as the status says it.
pub const STATES: [&str; 7] = ["up", "starting", "down", "draining", "maintenance", "ejected", "held"];

/// How a server is: one of [`STATES`].
pub fn state(server: &ServerStatus) -> &str {
    server.health.as_ref().map_or("up", |health| &health.state)
}

/// Whether new flows can reach it.
pub fn is_up(server: &ServerStatus) -> bool {
    server.weight > 0 && server.unreachable.is_none() && !server.overloaded
}

fn configured_weight(server: &ServerStatus) -> u16 {
    server.health.as_ref().map_or(server.weight, |health| health.configured_weight)
}

/// Servers of a service, its sorry server among them.
fn all(service: &ServiceStatus) -> impl Iterator<Item = &ServerStatus> {
    service.servers.iter().chain(service.sorry.as_deref())
}

/// Labels of [`SERVICES`].
pub const SERVICE: &[&str] = &["service"];

/// Families about each service.
pub const SERVICES: &[Metric<ServiceStatus>] = &[
    metric!(Gauge "evenkeel_service_info" ["protocol", "address", "port", "scheduler", "method"],
        "Always 1; the labels say what the service is.", |service, out| out.with(&[
            ("protocol", service.protocol.name()),
            ("address", &service.address),
            ("port", &service.port),
            ("scheduler", &service.scheduler),
            ("method", service.method.name()),
        ], 1_u8)),
    metric!(Gauge "evenkeel_service_up", "1 while a server takes new flows, the sorry server included.",
        |service| all(service).any(is_up)),
    metric!(Gauge "evenkeel_service_servers" ["state"], "Servers by how they are.", |service, out| {
        for word in STATES {
            out.with(&[("state", word)], service.servers.iter().filter(|server| state(server) == word).count());
        }
    }),
    metric!(Gauge "evenkeel_service_servers_unreachable", "Servers without a next hop.",
        |service| service.servers.iter().filter(|server| server.unreachable.is_some()).count()),
    metric!(Gauge "evenkeel_service_servers_overloaded", "Servers that have as many flows as their upper threshold lets them have.",
        |service| service.servers.iter().filter(|server| server.overloaded).count()),
    metric!(Gauge "evenkeel_service_sorry_serving", "1 while the sorry server serves instead of all others.",
        |service| service.sorry.as_ref().is_some_and(|sorry| sorry.weight > 0)),
    metric!(Gauge "evenkeel_service_quorum_lost", "1 while less than the quorum is left; 0 where there is none.",
        |service| service.quorum.is_some_and(|quorum| !quorum.up)),
    metric!(Gauge "evenkeel_service_weight", "Sum of the weights that count for new flows now.",
        |service| service.servers.iter().map(|server| u64::from(server.weight)).sum::<u64>()),
    metric!(Gauge "evenkeel_service_configured_weight", "Sum of the weights as they are written.",
        |service| service.servers.iter().map(|server| u64::from(configured_weight(server))).sum::<u64>()),
    metric!(Gauge "evenkeel_service_active_flows", "Established flows.",
        |service| all(service).map(|server| u64::from(server.active)).sum::<u64>()),
    metric!(Gauge "evenkeel_service_inactive_flows", "Other flows: new, ending, and all of UDP.",
        |service| all(service).map(|server| u64::from(server.inactive)).sum::<u64>()),
    metric!(Gauge "evenkeel_service_removed_flows", "Flows that are left of servers that were removed.",
        |service| service.removed.iter().map(|removed| u64::from(removed.flows)).sum::<u64>()),
    metric!(Counter "evenkeel_service_connections_total", "New flows.", |service| service.connections),
    metric!(Counter "evenkeel_service_in_packets_total", "Packets to servers.", |service| service.packets),
    metric!(Counter "evenkeel_service_in_bytes_total", "Bytes to servers.", |service| service.bytes),
    metric!(Counter "evenkeel_service_out_packets_total", "Packets from servers, where they pass by (NAT).",
        |service| service.out_packets),
    metric!(Counter "evenkeel_service_out_bytes_total", "Bytes from servers, where they pass by (NAT).",
        |service| service.out_bytes),
    metric!(Counter "evenkeel_service_limit_refused_total" [], "New flows that a limit of the service refused.",
    |service, out| if let Some(limits) = &service.limits {
        out.put(limits.refused);
    }),
];

/// Labels of [`SERVERS`].
pub const SERVER: &[&str] = &["service", "server"];

/// Families about each server. There can be many servers: what belongs in here is needed for each of them.
pub const SERVERS: &[Metric<ServerStatus>] = &[
    metric!(Gauge "evenkeel_server_up", "1 while the server takes new flows.", |server| is_up(server)),
    metric!(Gauge "evenkeel_server_state" ["state"],
    "1 for the state in which the server is; of a server in the state `up` there is no sample.",
    |server, out| if state(server) != "up" {
        out.with(&[("state", state(server))], 1_u8);
    }),
    metric!(Gauge "evenkeel_server_weight", "Weight that counts for new flows now.", |server| server.weight),
    metric!(Gauge "evenkeel_server_configured_weight", "Weight as it is written.",
        |server| configured_weight(server)),
    metric!(Gauge "evenkeel_server_active_flows", "Established flows.", |server| server.active),
    metric!(Gauge "evenkeel_server_inactive_flows", "Other flows: new, ending, and all of UDP.",
        |server| server.inactive),
    metric!(Gauge "evenkeel_server_drain_flows" [], "Flows that are left of a server that drains.",
    |server, out| if let Some(drain) = &server.drain {
        out.put(drain.flows);
    }),
    metric!(Counter "evenkeel_server_connections_total", "New flows.", |server| server.connections),
    metric!(Counter "evenkeel_server_in_packets_total", "Packets to the server.", |server| server.packets),
    metric!(Counter "evenkeel_server_in_bytes_total", "Bytes to the server.", |server| server.bytes),
    metric!(Counter "evenkeel_server_out_packets_total" [], "Packets from the server, by NAT only: others do not pass by.",
    |server, out| if passes_by(server) {
        out.put(server.out_packets);
    }),
    metric!(Counter "evenkeel_server_out_bytes_total" [], "Bytes from the server, by NAT only: others do not pass by.",
    |server, out| if passes_by(server) {
        out.put(server.out_bytes);
    }),
];

fn passes_by(server: &ServerStatus) -> bool {
    matches!(server.configured_method.as_str(), "nat" | "full-nat") || server.out_packets > 0
}

/// Labels of [`CHECKS`].
pub const CHECK: &[&str] = &["id", "check"];

/// Families about each health check, which servers may share.
pub const CHECKS: &[Metric<CheckStatus>] = &[
    metric!(Gauge "evenkeel_check_up" [], "1 while the check is good, 0 while it is not; nothing before its first result.",
    |check, out| if check.state != "starting" {
        out.put(check.state == "up");
    }),
    metric!(Gauge "evenkeel_check_warning" [], "1 where the check is good, and somebody should look at something, such as a \
    certificate that ends soon.", |check, out| if check.warning.is_some() {
        out.put(1_u8);
    }),
    metric!(Gauge "evenkeel_check_last_duration_seconds", "How long the last run took.", |check| check.took_ms / 1000.0),
    metric!(Counter "evenkeel_check_runs_total", "Runs, those included that could not ask.",
        |check| check.passed + check.failed + check.unable),
    metric!(Counter "evenkeel_check_failures_total" ["reason"],
    "Failed runs by their reason; reasons that never happened are absent.", |check, out| {
        for (reason, count) in &check.reasons {
            out.with(&[("reason", reason)], *count);
        }
    }),
    metric!(Counter "evenkeel_check_unable_total", "Runs in which this machine could not ask.", |check| check.unable),
];

/// The families about all checks together, which are there where single ones are left out.
pub const ALL_CHECKS: &[Metric<[CheckStatus]>] = &[
    metric!(Gauge "evenkeel_checks" ["state"], "Health checks by their state.", |checks, out| {
        for word in ["up", "down", "starting"] {
            out.with(&[("state", word)], checks.iter().filter(|check| check.state == word).count());
        }
    }),
    metric!(Counter "evenkeel_checks_runs_total", "Runs of all checks that there are now.",
        |checks| checks.iter().map(|check| check.passed + check.failed + check.unable).sum::<u64>()),
    metric!(Counter "evenkeel_checks_failed_total", "Failed runs of all checks that there are now.",
        |checks| checks.iter().map(|check| check.failed).sum::<u64>()),
    metric!(Counter "evenkeel_checks_unable_total", "Runs of all checks that there are now in which this machine could not ask.",
        |checks| checks.iter().map(|check| check.unable).sum::<u64>()),
];
