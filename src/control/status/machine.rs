//! Interfaces and workers in the status. Plain values. Pure.

use serde::{Deserialize, Serialize};

use crate::model::IoMode;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Kernel name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Ethernet address.
    pub mac: String,
    /// Largest packet.
    pub mtu: u32,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// Queues of the engine.
    pub queues: Vec<QueueStatus>,
    /// Better modes that could not be had: mode, and why not.
    pub refused: Vec<RefusedMode>,
    /// Frames that the filter left to the kernel.
    pub filter_passed: u64,
    /// Frames that the filter handed to a worker.
    pub filter_taken: u64,
    /// Frames for a service that came on a queue without a worker; the kernel got them.
    pub filter_no_socket: u64,
    /// Frames of clients that the access lists deny: the filter dropped them.
    #[serde(default)]
    pub filter_denied: u64,
}

/// One queue of an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Queue number.
    pub queue: u32,
    /// Worker that has it.
    pub worker: usize,
    /// How its frames move.
    pub mode: IoMode,
}

/// A mode that could not be had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedMode {
    /// The mode.
    pub mode: IoMode,
    /// Why not, in plain words.
    pub reason: String,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: usize,
    /// Its core.
    pub core: usize,
    /// Whether it still runs.
    pub running: bool,
    /// Share of time spent on packets since the last second, 0 to 1.
    pub load: f64,
    /// Frames received.
    pub rx_frames: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Batches with at least one frame.
    pub batches: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Frames forwarded to servers.
    pub forwarded: u64,
    /// Frames answered (ARP, neighbour discovery, echo).
    pub replies: u64,
    /// Frames that the kernel dropped because the worker was late.
    pub rx_ring_drops: u64,
    /// Frames that found the transmit ring full.
    #[serde(default)]
    pub tx_full: u64,
    /// Frames given back to the kernel.
    #[serde(default)]
    pub passed: u64,
    /// Calls that asked the kernel to send.
    #[serde(default)]
    pub tx_kicks: u64,
    /// Calls that woke the kernel's receiving side.
    #[serde(default)]
    pub rx_wakeups: u64,
    /// Flows that ended by their timeout.
    #[serde(default)]
    pub expired: u64,
    /// IPv4 flows now, and most.
    pub flows: u64,
    /// Most IPv4 flows.
    pub flow_capacity: u64,
    /// IPv6 flows now.
    pub flows_ipv6: u64,
    /// Most IPv6 flows.
    pub flow_capacity_ipv6: u64,
    /// Flows of both families among them that their clients have not confirmed yet.
    pub unproven: u64,
    /// Packets that were let in without a flow during a flood.
    pub stateless: u64,
    /// Flows that gave way to newer ones in a full table.
    pub evicted: u64,
    /// Frames handed to the worker that has their flow.
    pub handed: u64,
    /// Frames taken over from other workers.
    pub taken_over: u64,
    /// Fragments that had to wait for the first one of their packet.
    pub kept: u64,
    /// Packets from servers by NAT that answer no flow; the kernel got them.
    pub unmatched: u64,
    /// ICMP errors sent to clients and servers.
    pub icmp_errors: u64,
    /// TCP resets sent to clients whose server is gone, or whose service has none.
    #[serde(default)]
    pub resets: u64,
    /// Packets whose sender was told that their service has no server.
    #[serde(default)]
    pub refused: u64,
    /// SYNs that were answered by a cookie.
    #[serde(default)]
    pub cookies_sent: u64,
    /// Cookies that came back good.
    #[serde(default)]
    pub cookies_accepted: u64,
    /// Packets that brought back none, or a bad one.
    #[serde(default)]
    pub cookies_refused: u64,
    /// Flows now that were opened by a cookie.
    #[serde(default)]
    pub cookie_flows: u64,
    /// Most flows that are opened by a cookie.
    #[serde(default)]
    pub cookie_flow_capacity: u64,
    /// Flows that found no room in the directory of all workers: only this worker knows them.
    pub directory_full: u64,
    /// Full NAT: ports of local addresses that this worker uses now.
    pub local_ports: u64,
    /// Full NAT: ports of local addresses that are this worker's.
    pub local_port_capacity: u64,
}
