//! The families about the whole engine: process, configuration, workers, interfaces, drops, tables, and what is limited.
//!
//! Owns names, sentences and how each is read from the status. Pure.

use super::table::{Metric, metric};
use crate::control::status::{InterfaceStatus, Status, WorkerStatus};
use crate::dataplane::verdict::DropReason;

/// Families about the engine, once each.
pub const ENGINE: &[Metric<Status>] = &[
    metric!(Gauge "evenkeel_build_info" ["version"], "Always 1; the label says which version runs.", |status, out| {
        out.with(&[("version", &status.engine.version)], 1_u8);
    }),
    metric!(Counter "evenkeel_uptime_seconds_total", "Seconds since the engine began.", |status| status.engine.uptime_s),
    metric!(Gauge "evenkeel_config_generation",
        "Number of the snapshot in force; it also counts changes of next hops.",
        |status| status.config.generation),
    metric!(Gauge "evenkeel_config_generation_taken", "Number of the snapshot that the slowest worker has taken.",
        |status| status.config.taken_by_all),
    metric!(Gauge "evenkeel_config_loaded_timestamp_seconds", "Unix time of the last configuration that was taken.",
        |status| status.config.loaded_at),
    metric!(Gauge "evenkeel_config_last_reload_successful", "0 while the last reload was refused, else 1.",
        |status| status.config.last_error.is_none()),
    metric!(Gauge "evenkeel_config_unsaved_changes", "Changes by command that the file does not have.",
        |status| status.config.unsaved),
    metric!(Gauge "evenkeel_warnings", "Warnings that `evenkeel status` shows now.", |status| status.warnings.len()),
    metric!(Counter "evenkeel_drops_total" ["reason"],
    "Packets that were dropped, by reason; docs/operations.md says of each what it means and what to do.",
    |status, out| {
        for reason in DropReason::ALL {
            let count = status.drops.get(reason.name()).copied().unwrap_or(0);
            out.with(&[("reason", reason.name())], count);
        }
    }),
    metric!(Gauge "evenkeel_persistence_clients", "Persistent clients that are remembered.",
        |status| status.persistence.clients),
    metric!(Gauge "evenkeel_persistence_capacity", "Most persistent clients.", |status| status.persistence.capacity),
    metric!(Counter "evenkeel_persistence_gave_way_total", "Persistent clients that gave way to newer ones before their time.",
        |status| status.persistence.gave_way),
    metric!(Counter "evenkeel_persistence_refused_total", "Flows of clients that found no room to be remembered.",
        |status| status.persistence.refused),
    metric!(Gauge "evenkeel_local_addresses", "Local addresses of full NAT, each once.",
        |status| status.local_ports.addresses),
    metric!(Gauge "evenkeel_local_ports", "Ports of local addresses in use.", |status| status.local_ports.in_use),
    metric!(Gauge "evenkeel_local_ports_capacity", "Ports of all local addresses.",
        |status| status.local_ports.capacity),
    metric!(Gauge "evenkeel_limited_client_networks", "Client networks that are counted for limits now.",
        |status| status.limited_clients.networks),
    metric!(Gauge "evenkeel_limited_client_networks_capacity", "Client networks that there is room for.",
        |status| status.limited_clients.capacity),
    metric!(Counter "evenkeel_limited_clients_uncounted_total",
        "Flows that were let in without a look at their client's limits, since there was no room to count it.",
        |status| status.limited_clients.uncounted),
];

/// Labels of [`WORKERS`].
pub const WORKER: &[&str] = &["worker"];

/// Families about each worker.
pub const WORKERS: &[Metric<WorkerStatus>] = &[
    metric!(Gauge "evenkeel_worker_up", "1 while the worker runs.", |worker| worker.running),
    metric!(Gauge "evenkeel_worker_core", "Core that the worker has.", |worker| worker.core),
    metric!(Gauge "evenkeel_worker_load_ratio", "Share of the last second that went into packets, 0 to 1.",
        |worker| worker.load),
    metric!(Counter "evenkeel_worker_rx_frames_total", "Frames received.", |worker| worker.rx_frames),
    metric!(Counter "evenkeel_worker_tx_frames_total", "Frames sent.", |worker| worker.tx_frames),
    metric!(Counter "evenkeel_worker_rx_bytes_total", "Bytes received.", |worker| worker.rx_bytes),
    metric!(Counter "evenkeel_worker_tx_bytes_total", "Bytes sent.", |worker| worker.tx_bytes),
    metric!(Counter "evenkeel_worker_batches_total", "Batches that held a frame at least.", |worker| worker.batches),
    metric!(Counter "evenkeel_worker_sleeps_total", "Times that the worker slept.", |worker| worker.sleeps),
    metric!(Counter "evenkeel_worker_forwarded_total", "Frames forwarded to servers, and to clients by NAT.",
        |worker| worker.forwarded),
    metric!(Counter "evenkeel_worker_replies_total", "Frames answered: ARP, neighbour discovery, echo.",
        |worker| worker.replies),
    metric!(Counter "evenkeel_worker_passed_total", "Frames given back to the kernel.", |worker| worker.passed),
    metric!(Counter "evenkeel_worker_rx_ring_drops_total", "Frames that the kernel dropped because the worker was late.",
        |worker| worker.rx_ring_drops),
    metric!(Counter "evenkeel_worker_tx_full_total", "Frames that found the transmit ring full.", |worker| worker.tx_full),
    metric!(Counter "evenkeel_worker_tx_kicks_total", "Calls that asked the kernel to send.", |worker| worker.tx_kicks),
    metric!(Counter "evenkeel_worker_rx_wakeups_total", "Calls that woke the kernel's receiving side.",
        |worker| worker.rx_wakeups),
    metric!(Counter "evenkeel_worker_handed_total", "Frames handed to the worker that has their flow.",
        |worker| worker.handed),
    metric!(Counter "evenkeel_worker_taken_over_total", "Frames taken over from other workers.",
        |worker| worker.taken_over),
    metric!(Counter "evenkeel_worker_fragments_kept_total", "Fragments that had to wait for the first one of their packet.",
        |worker| worker.kept),
    metric!(Counter "evenkeel_worker_unmatched_total", "Packets from servers by NAT that answer no flow; the kernel got them.",
        |worker| worker.unmatched),
    metric!(Counter "evenkeel_worker_icmp_errors_total", "ICMP errors sent to clients and servers.",
        |worker| worker.icmp_errors),
    metric!(Counter "evenkeel_worker_resets_total",
        "TCP resets sent to clients whose server is gone, or whose service has none.",
        |worker| worker.resets),
    metric!(Counter "evenkeel_worker_refused_total", "Packets whose sender was told that their service has no server.",
        |worker| worker.refused),
    metric!(Gauge "evenkeel_flows" ["family"], "Flows in the worker's tables.", |worker, out| {
        out.with(&[("family", "ipv4")], worker.flows);
        out.with(&[("family", "ipv6")], worker.flows_ipv6);
    }),
    metric!(Gauge "evenkeel_flows_capacity" ["family"], "Most flows in the worker's tables.", |worker, out| {
        out.with(&[("family", "ipv4")], worker.flow_capacity);
        out.with(&[("family", "ipv6")], worker.flow_capacity_ipv6);
    }),
    metric!(Gauge "evenkeel_flows_unproven", "Flows that their clients have not confirmed yet.", |worker| worker.unproven),
    metric!(Counter "evenkeel_flows_expired_total", "Flows that ended by their timeout.", |worker| worker.expired),
    metric!(Counter "evenkeel_flows_evicted_total", "Flows that gave way to newer ones in a full table.",
        |worker| worker.evicted),
    metric!(Counter "evenkeel_flows_directory_full_total",
        "Flows that found no room in the directory of all workers: only their own worker knows them.",
        |worker| worker.directory_full),
    metric!(Counter "evenkeel_flows_stateless_total", "Packets that were let in without a flow during a flood.",
        |worker| worker.stateless),
    metric!(Counter "evenkeel_syn_cookies_sent_total", "SYNs that were answered by a cookie.",
        |worker| worker.cookies_sent),
    metric!(Counter "evenkeel_syn_cookies_accepted_total", "SYN cookies that came back good.",
        |worker| worker.cookies_accepted),
    metric!(Counter "evenkeel_syn_cookies_refused_total", "Packets that brought back no SYN cookie, or a bad one.",
        |worker| worker.cookies_refused),
    metric!(Gauge "evenkeel_syn_cookie_flows", "Flows now that were opened by a SYN cookie.",
        |worker| worker.cookie_flows),
    metric!(Gauge "evenkeel_syn_cookie_flows_capacity", "Most flows that are opened by a SYN cookie.",
        |worker| worker.cookie_flow_capacity),
    metric!(Gauge "evenkeel_worker_local_ports", "Ports of local addresses that the worker uses.",
        |worker| worker.local_ports),
    metric!(Gauge "evenkeel_worker_local_ports_capacity", "Ports of local addresses that are the worker's.",
        |worker| worker.local_port_capacity),
];

/// Labels of [`INTERFACES`].
pub const INTERFACE: &[&str] = &["interface"];

/// Families about each interface.
pub const INTERFACES: &[Metric<InterfaceStatus>] = &[
    metric!(Gauge "evenkeel_interface_info" ["driver", "mac"], "Always 1; the labels say what the interface is.",
        |interface, out| out.with(&[("driver", &interface.driver), ("mac", &interface.mac)], 1_u8)),
    metric!(Gauge "evenkeel_interface_up", "1 while the interface is up and has a carrier.", |interface| interface.up),
    metric!(Gauge "evenkeel_interface_mtu_bytes", "Largest packet of the interface.", |interface| interface.mtu),
    metric!(Gauge "evenkeel_interface_queues" ["mode"], "Queues of the engine, by how their frames move.",
    |interface, out| {
        let mut modes: Vec<&str> = interface.queues.iter().map(|queue| queue.mode.name()).collect();
        modes.sort_unstable();
        for same in modes.chunk_by(|a, b| a == b) {
            out.with(&[("mode", same[0])], same.len());
        }
    }),
    metric!(Counter "evenkeel_filter_passed_total", "Frames that the filter left to the kernel.",
        |interface| interface.filter_passed),
    metric!(Counter "evenkeel_filter_taken_total", "Frames that the filter handed to a worker.",
        |interface| interface.filter_taken),
    metric!(Counter "evenkeel_filter_no_socket_total",
        "Frames for a service that came on a queue without a worker; the kernel got them.",
        |interface| interface.filter_no_socket),
    metric!(Counter "evenkeel_filter_denied_total", "Frames of clients that the access lists deny: the filter dropped them.",
        |interface| interface.filter_denied),
];
