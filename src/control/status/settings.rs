//! In the status, what a service is set to beyond what its lines show, and what passes a second. Plain values. Pure.

use serde::{Deserialize, Serialize};

/// Timeouts that `ipvsadm --timeout` shows, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutsStatus {
    /// Established TCP.
    pub tcp: u32,
    /// TCP after a FIN.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

/// Settings of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsStatus {
    /// Every datagram is scheduled by itself.
    #[serde(default)]
    pub one_packet: bool,
    /// How clients keep their server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<PersistenceSettings>,
    /// UDP port of GUE.
    #[serde(default)]
    pub gue_port: u16,
}

/// How clients keep their server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceSettings {
    /// Seconds after a client's last new flow.
    pub seconds: u32,
    /// Leading bits of the clients' addresses that count, of the service's family.
    pub prefix: u8,
    /// What tells clients apart: `client`, `sip-call-id` or `quic-server-id`.
    pub by: String,
}

/// What passes a second: the average of the last seconds, as the kernel's estimator makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesStatus {
    /// New flows.
    pub connections: u64,
    /// Packets to servers.
    pub in_packets: u64,
    /// Packets from servers, where they pass by.
    pub out_packets: u64,
    /// Bytes to servers.
    pub in_bytes: u64,
    /// Bytes from servers.
    pub out_bytes: u64,
}

impl RatesStatus {
    /// In the order of ipvsadm's columns.
    pub const fn counts(&self) -> [u64; 5] {
        [self.connections, self.in_packets, self.out_packets, self.in_bytes, self.out_bytes]
    }
}
