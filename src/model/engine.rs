//! The nouns of the packet engine: modes, polling, settings, timeouts.
//!
//! Owns plain values and their defaults. Never decides anything.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::PortRange;

/// How frames move between an interface and a worker, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoMode {
    /// AF_XDP, the driver's native XDP, frames DMAed straight into the UMEM.
    ZeroCopy,
    /// AF_XDP, the driver's native XDP, one copy a frame.
    Copy,
    /// AF_XDP with generic (skb) XDP: any driver, slower.
    Generic,
    /// AF_PACKET sockets, where XDP cannot be had.
    AfPacket,
}

impl IoMode {
    /// All modes, best first: what `mode = "auto"` tries.
    pub const ALL: [IoMode; 4] = [IoMode::ZeroCopy, IoMode::Copy, IoMode::Generic, IoMode::AfPacket];

    /// Name as in configs and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            IoMode::ZeroCopy => "zero-copy",
            IoMode::Copy => "copy",
            IoMode::Generic => "generic",
            IoMode::AfPacket => "af-packet",
        }
    }
}

impl fmt::Display for IoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a worker does while no packets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Polling {
    /// Never sleeps: lowest latency, one core at 100 %.
    Busy,
    /// Polls for a while after the last packet, then sleeps in the kernel until one arrives.
    Adaptive,
}

/// Whether the UMEM and the flow tables use 2 MiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// Reserved huge pages, else transparent ones, else normal pages.
    Auto,
    /// Reserved huge pages or refuse to start.
    Always,
    /// Normal pages.
    Never,
}

/// Which transport checksums are verified before a packet is forwarded. IPv4 header checksums always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyChecksums {
    /// Packets that would create a flow: a broken packet makes no state, and partial checksums are found out.
    NewFlows,
    /// Every packet for a service.
    All,
    /// None.
    Off,
}

/// When SYNs for NAT and full NAT are answered by SYN cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SynCookies {
    /// While unproven flows come faster than there is room for them.
    Flood,
    /// Always.
    Always,
    /// Never.
    Off,
}

/// Settings of the packet engine. They need a restart to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// One worker per entry, pinned to that core.
    pub cores: Vec<usize>,
    /// I/O modes allowed, tried in this order.
    pub modes: Vec<IoMode>,
    /// What idle workers do.
    pub polling: Polling,
    /// Adaptive polling: microseconds without a packet before the worker sleeps.
    pub idle_us: u32,
    /// `XDP_USE_NEED_WAKEUP`: the kernel says when it wants a system call.
    pub need_wakeup: bool,
    /// Preferred busy polling on the sockets (`SO_PREFER_BUSY_POLL`).
    pub busy_poll: bool,
    /// Entries in each RX, TX and completion ring; a power of two. The fill ring has twice as many.
    pub ring_size: u32,
    /// UMEM frames for each queue of a worker.
    pub frames: u32,
    /// Bytes in a UMEM frame: 2048 or 4096.
    pub frame_size: u32,
    /// Huge pages for the UMEM and the flow tables.
    pub huge_pages: HugePages,
    /// IPv4 flows that one worker can hold.
    pub flows: u32,
    /// IPv6 flows that one worker can hold.
    pub flows_ipv6: u32,
    /// IPv4 flows that one worker holds in the part for those that are not proven yet.
    pub unproven: u32,
    /// The same for IPv6.
    pub unproven_ipv6: u32,
    /// When SYNs for NAT and full NAT are answered by cookies.
    pub syn_cookies: SynCookies,
    /// Flows that one worker holds of those that were opened by a SYN cookie.
    pub cookie_flows: u32,
    /// Persistent clients of all services.
    pub persistent_clients: u32,
    /// Client networks that are counted for limits, over all services.
    pub limited_clients: u32,
    /// Transport checksums verified.
    pub verify_checksums: VerifyChecksums,
    /// Ports of each local address that full NAT uses, shared out among the workers.
    pub local_ports: PortRange,
    /// Most local addresses of full NAT, over all services.
    pub local_addresses: u32,
    /// Fragmented packets that one worker follows at a time.
    pub fragments: u32,
    /// Fragments that one worker lets wait for their first one, at most.
    pub fragments_waiting: u32,
    /// Milliseconds that a fragment waits for its first one.
    pub fragment_wait_ms: u32,
}

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            cores: vec![0],
            modes: IoMode::ALL.to_vec(),
            polling: Polling::Adaptive,
            idle_us: 100,
            need_wakeup: true,
            busy_poll: false,
            ring_size: 2048,
            frames: 8192,
            frame_size: 2048,
            huge_pages: HugePages::Auto,
            flows: 1_000_000,
            flows_ipv6: 250_000,
            unproven: 131_072,
            unproven_ipv6: 65_536,
            syn_cookies: SynCookies::Flood,
            cookie_flows: 262_144,
            persistent_clients: 65_536,
            limited_clients: 65_536,
            verify_checksums: VerifyChecksums::NewFlows,
            local_ports: PortRange { first: 1024, last: u16::MAX },
            local_addresses: 16,
            fragments: 1024,
            fragments_waiting: 256,
            fragment_wait_ms: 1000,
        }
    }
}

/// Flow timeouts in seconds, by state; the defaults are IPVS's (`ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`, `ip_vs_proto_sctp.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP ESTABLISHED.
    pub tcp_established: u32,
    /// TCP SYN_SENT.
    pub tcp_syn_sent: u32,
    /// TCP SYN_RECV.
    pub tcp_syn_recv: u32,
    /// TCP FIN_WAIT (`ipvsadm --set`'s tcpfin).
    pub tcp_fin_wait: u32,
    /// TCP TIME_WAIT.
    pub tcp_time_wait: u32,
    /// TCP CLOSE.
    pub tcp_close: u32,
    /// TCP CLOSE_WAIT.
    pub tcp_close_wait: u32,
    /// TCP LAST_ACK.
    pub tcp_last_ack: u32,
    /// TCP LISTEN.
    pub tcp_listen: u32,
    /// TCP SYNACK.
    pub tcp_synack: u32,
    /// UDP.
    pub udp: u32,
    /// SCTP NONE.
    pub sctp_none: u32,
    /// SCTP INIT1.
    pub sctp_init1: u32,
    /// SCTP INIT.
    pub sctp_init: u32,
    /// SCTP C-SENT.
    pub sctp_cookie_sent: u32,
    /// SCTP C-REPLIED.
    pub sctp_cookie_replied: u32,
    /// SCTP C-WAIT.
    pub sctp_cookie_wait: u32,
    /// SCTP COOKIE.
    pub sctp_cookie: u32,
    /// SCTP C-ECHOED.
    pub sctp_cookie_echoed: u32,
    /// SCTP ESTABLISHED.
    pub sctp_established: u32,
    /// SCTP S-SENT.
    pub sctp_shutdown_sent: u32,
    /// SCTP S-RECEIVED.
    pub sctp_shutdown_received: u32,
    /// SCTP S-ACK-SENT.
    pub sctp_shutdown_ack_sent: u32,
    /// SCTP REJECTED.
    pub sctp_rejected: u32,
    /// SCTP CLOSED.
    pub sctp_closed: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            tcp_established: 900,
            tcp_syn_sent: 120,
            tcp_syn_recv: 60,
            tcp_fin_wait: 120,
            tcp_time_wait: 120,
            tcp_close: 10,
            tcp_close_wait: 60,
            tcp_last_ack: 30,
            tcp_listen: 120,
            tcp_synack: 120,
            udp: 300,
            sctp_none: 2,
            sctp_init1: 4,
            sctp_init: 61,
            sctp_cookie_sent: 61,
            sctp_cookie_replied: 61,
            sctp_cookie_wait: 61,
            sctp_cookie: 61,
            sctp_cookie_echoed: 61,
            sctp_established: 900,
            sctp_shutdown_sent: 61,
            sctp_shutdown_received: 61,
            sctp_shutdown_ack_sent: 61,
            sctp_rejected: 4,
            sctp_closed: 61,
        }
    }
}

impl Timeouts {
    /// Each with its key in the configuration, to change.
    pub fn each_mut(&mut self) -> [(&'static str, &mut u32); 25] {
        [
            ("tcp_established", &mut self.tcp_established),
            ("tcp_syn_sent", &mut self.tcp_syn_sent),
            ("tcp_syn_recv", &mut self.tcp_syn_recv),
            ("tcp_fin_wait", &mut self.tcp_fin_wait),
            ("tcp_time_wait", &mut self.tcp_time_wait),
            ("tcp_close", &mut self.tcp_close),
            ("tcp_close_wait", &mut self.tcp_close_wait),
            ("tcp_last_ack", &mut self.tcp_last_ack),
            ("tcp_listen", &mut self.tcp_listen),
            ("tcp_synack", &mut self.tcp_synack),
            ("udp", &mut self.udp),
            ("sctp_none", &mut self.sctp_none),
            ("sctp_init1", &mut self.sctp_init1),
            ("sctp_init", &mut self.sctp_init),
            ("sctp_cookie_sent", &mut self.sctp_cookie_sent),
            ("sctp_cookie_replied", &mut self.sctp_cookie_replied),
            ("sctp_cookie_wait", &mut self.sctp_cookie_wait),
            ("sctp_cookie", &mut self.sctp_cookie),
            ("sctp_cookie_echoed", &mut self.sctp_cookie_echoed),
            ("sctp_established", &mut self.sctp_established),
            ("sctp_shutdown_sent", &mut self.sctp_shutdown_sent),
            ("sctp_shutdown_received", &mut self.sctp_shutdown_received),
            ("sctp_shutdown_ack_sent", &mut self.sctp_shutdown_ack_sent),
            ("sctp_rejected", &mut self.sctp_rejected),
            ("sctp_closed", &mut self.sctp_closed),
        ]
    }

    /// Each with its key in the configuration.
    pub fn each(mut self) -> [(&'static str, u32); 25] {
        self.each_mut().map(|(key, seconds)| (key, *seconds))
    }
}
