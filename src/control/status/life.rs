//! Thresholds, limits, drains and removed servers in the status: the values, and the words for people.
//!
//! Owns what stands behind a service's name and a server's next hop. Pure.

use serde::{Deserialize, Serialize};

use super::{ServerStatus, ServiceStatus};
use crate::model::Fate;

/// Client networks that are counted for limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitedClientsStatus {
    /// Networks with flows now.
    pub networks: u64,
    /// Networks that there is room for.
    pub capacity: u64,
    /// Flows that were let in without a look at their client's limits, since there was no room.
    pub uncounted: u64,
}

/// The limits of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsStatus {
    /// Flows now, where these are limited.
    pub connections: Option<u32>,
    /// Most flows.
    pub max_connections: Option<u32>,
    /// Most new flows a second.
    pub max_rate: Option<u32>,
    /// Most flows of a client network.
    pub client_max_connections: Option<u32>,
    /// Most new flows of a client network a second.
    pub client_max_rate: Option<u32>,
    /// New flows that one of the limits refused.
    pub refused: u64,
}

/// A server that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedStatus {
    /// Its own address.
    pub address: String,
    /// Its port, where NAT changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Flows that are left.
    pub flows: u32,
    /// What their next packet meets.
    pub fate: Fate,
}

/// A server that drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Flows that are left.
    pub flows: u32,
    /// Flows when it began.
    pub of: u32,
    /// Seconds to the deadline; 0 when it has passed, absent where there is none.
    pub seconds_left: Option<u64>,
    /// What then becomes of those that are left.
    pub fate: Fate,
}

/// What happens to a flow, as a word.
const fn met(fate: Fate) -> &'static str {
    match fate {
        Fate::Keep => "kept",
        Fate::Reschedule => "rescheduled",
        Fate::Reset => "reset",
    }
}

/// A service's limits, and what they refused.
pub(super) fn of_service(service: &ServiceStatus) -> String {
    let Some(limits) = &service.limits else { return String::new() };
    let mut parts = Vec::new();
    if let (Some(now), Some(most)) = (limits.connections, limits.max_connections) {
        parts.push(format!("{now} of {most} connections"));
    }
    parts.extend(limits.max_rate.map(|rate| format!("{rate} new a second")));
    parts.extend(limits.client_max_connections.map(|most| format!("{most} a client")));
    parts.extend(limits.client_max_rate.map(|rate| format!("{rate} new a second a client")));
    format!(" (at most {}; {} refused)", parts.join(", "), limits.refused)
}

/// A server's threshold and drain.
pub(super) fn of_server(server: &ServerStatus) -> String {
    let mut text = String::new();
    if let Some(upper) = server.upper_threshold {
        let total = u64::from(server.active) + u64::from(server.inactive);
        text += &format!(", {total} of {upper} flows");
        if server.overloaded {
            text += ", OVERLOADED";
        }
    }
    if let Some(drain) = &server.drain {
        text += &format!(", {}", of_drain(drain));
    }
    text
}

fn of_drain(drain: &DrainStatus) -> String {
    let progress = format!("{} of {} flows left", drain.flows, drain.of.max(drain.flows));
    match drain.seconds_left {
        _ if drain.flows == 0 => "drained: no flows left".to_owned(),
        None => format!("draining: {progress}"),
        Some(0) => format!("drained: {progress}, {} with their next packet", met(drain.fate)),
        Some(seconds) => format!("draining: {progress}, {seconds} s to the deadline"),
    }
}

/// A server that was removed.
pub(super) fn of_removed(removed: &RemovedStatus) -> String {
    match removed.fate {
        Fate::Keep => format!("removed: {} flows left, dropped until it is back", removed.flows),
        fate => format!("removed: {} flows left, {} with their next packet", removed.flows, met(fate)),
    }
}
