//! The keys of `[engine]` and `[timeouts]`. Pure.

use crate::dataplane::persist::MOST_CLIENTS;

use super::{Key, Kind, MODES, Presence, integer, word};

pub(super) const ENGINE: &[Key] = &[
    Key {
        name: "cores",
        kind: Kind::Integers { min: 0, max: 4095, or: None },
        presence: Presence::Otherwise("the last core of the machine"),
        also: &["cpus", "workers", "cpu_affinity"],
        doc: "One worker for each entry, pinned to that core. A queue of an interface belongs to one worker.",
    },
    Key {
        name: "mode",
        kind: Kind::WordOrWords { words: MODES, all: "auto" },
        presence: Presence::Default("\"auto\""),
        also: &["modes", "xdp_mode", "io"],
        doc: "How frames move between the interfaces and the workers. `\"auto\"` tries all, best first; a list is tried in \
              its order; start-up says what it got and why not better.",
    },
    Key {
        name: "polling",
        kind: Kind::Word(
            &[
                word("adaptive", "poll for a while after the last packet, then sleep until one arrives", &[]),
                word("busy", "never sleep: lowest latency, one core at 100 %", &[]),
            ],
            None,
        ),
        presence: Presence::Default("\"adaptive\""),
        also: &["poll", "poll_mode"],
        doc: "What a worker does while no packets arrive.",
    },
    Key {
        name: "idle_us",
        kind: integer(0, 1_000_000),
        presence: Presence::Default("100"),
        also: &["idle"],
        doc: "Adaptive polling: microseconds without a packet before a worker sleeps.",
    },
    Key {
        name: "need_wakeup",
        kind: Kind::Boolean,
        presence: Presence::Default("true"),
        also: &[],
        doc: "Let the kernel say when it wants a system call (`XDP_USE_NEED_WAKEUP`), instead of one for each batch.",
    },
    Key {
        name: "busy_poll",
        kind: Kind::Boolean,
        presence: Presence::Default("false"),
        also: &["prefer_busy_poll"],
        doc: "Run the driver's receive path on the worker's own core (`SO_PREFER_BUSY_POLL`), where the driver can.",
    },
    Key {
        name: "ring_size",
        kind: Kind::Integer { min: 64, max: 65_536, power_of_two: true },
        presence: Presence::Default("2048"),
        also: &["rings", "rx_ring", "tx_ring"],
        doc: "Entries in each receive, transmit and completion ring. The fill ring has twice as many.",
    },
    Key {
        name: "frames",
        kind: Kind::Integer { min: 128, max: 1_048_576, power_of_two: true },
        presence: Presence::Default("8192"),
        also: &["umem_frames"],
        doc: "Frames of memory for each queue of a worker; at least twice `ring_size`.",
    },
    Key {
        name: "frame_size",
        kind: Kind::OneOf(&[2048, 4096]),
        presence: Presence::Default("2048"),
        also: &["chunk_size"],
        doc: "Bytes in a frame. 2048 holds an MTU of 1500, 4096 an MTU of up to 3498.",
    },
    Key {
        name: "huge_pages",
        kind: Kind::Word(
            &[
                word("auto", "reserved huge pages, else transparent ones, else normal pages", &[]),
                word("always", "reserved huge pages, or refuse to start", &[]),
                word("never", "normal pages", &[]),
            ],
            None,
        ),
        presence: Presence::Default("\"auto\""),
        also: &["hugepages"],
        doc: "Pages of 2 MiB for the frames and the flow tables.",
    },
    Key {
        name: "flows",
        kind: integer(1024, 100_000_000),
        presence: Presence::Default("1_000_000"),
        also: &["conn_tab_size", "connections", "max_flows"],
        doc: "IPv4 flows that one worker can hold, at 64 bytes each at most; a flow by NAT or full NAT takes the room of two. The memory is taken at start.",
    },
    Key {
        name: "flows_ipv6",
        kind: integer(1024, 100_000_000),
        presence: Presence::Default("250_000"),
        also: &["flows6"],
        doc: "IPv6 flows that one worker can hold, at 96 bytes each at most; a flow by NAT or full NAT takes the room of two. The memory is taken at start.",
    },
    Key {
        name: "verify_checksums",
        kind: Kind::Word(
            &[
                word("new-flows", "packets that would create a flow: a broken packet makes no state", &[]),
                word("all", "every packet for a service", &[]),
                word("off", "none", &[]),
            ],
            None,
        ),
        presence: Presence::Default("\"new-flows\""),
        also: &["checksums"],
        doc: "Which transport checksums are verified before a packet is forwarded. IPv4 header checksums always are.",
    },
    Key {
        name: "local_ports",
        kind: Kind::Ports,
        presence: Presence::Default("\"1024-65535\""),
        also: &["local_port_range", "ip_local_port_range"],
        doc: "Full NAT: ports of each local address from which servers are asked, shared out among the workers. Each flow \
              takes one.",
    },
    Key {
        name: "local_addresses",
        kind: integer(1, 1024),
        presence: Presence::Default("16"),
        also: &["max_local_addresses"],
        doc: "Full NAT: most local addresses over all services. Each worker has a table of its ports for every one.",
    },
    Key {
        name: "fragments",
        kind: integer(16, 65_536),
        presence: Presence::Default("1024"),
        also: &["ipfrag_max"],
        doc: "Fragmented packets that one worker follows at a time.",
    },
    Key {
        name: "fragments_waiting",
        kind: integer(0, 65_536),
        presence: Presence::Default("256"),
        also: &[],
        doc: "Fragments that one worker lets wait for the first one of their packet, at `frame_size` bytes each.",
    },
    Key {
        name: "fragment_wait_ms",
        kind: integer(1, 60_000),
        presence: Presence::Default("1000"),
        also: &["ipfrag_time"],
        doc: "Milliseconds that a fragment waits for the first one of its packet.",
    },
    Key {
        name: "unproven_flows",
        kind: integer(1024, 100_000_000),
        presence: Presence::Default("131_072"),
        also: &["unproven", "half_open", "max_half_open"],
        doc: "IPv4 flows that one worker can hold besides `flows` while their clients have not confirmed them: a flood of \
              SYNs or datagrams fills these, and no others.",
    },
    Key {
        name: "unproven_flows_ipv6",
        kind: integer(1024, 100_000_000),
        presence: Presence::Default("65_536"),
        also: &["unproven_ipv6", "unproven6"],
        doc: "The same for IPv6.",
    },
    Key {
        name: "syn_cookies",
        kind: Kind::Word(
            &[
                word("flood", "while unproven flows come faster than there is room for them", &["auto", "1", "on"]),
                word("always", "every SYN", &["2"]),
                word("off", "never", &["0", "never"]),
            ],
            None,
        ),
        presence: Presence::Default("\"flood\""),
        also: &["tcp_syncookies", "syncookies", "syn_proxy", "synproxy"],
        doc: "NAT and full NAT: which SYNs the appliance answers itself, before it remembers anything of the client.",
    },
    Key {
        name: "cookie_flows",
        kind: integer(1024, 100_000_000),
        presence: Presence::Default("262_144"),
        also: &["synproxy_flows"],
        doc: "NAT and full NAT: flows that one worker can hold of those that a SYN cookie opened; they are among `flows` and \
              `flows_ipv6`, and their numbers are translated for as long as they live.",
    },
    Key {
        name: "limited_clients",
        kind: integer(64, 16_777_216),
        presence: Presence::Default("65_536"),
        also: &["max_clients", "client_table", "stick_table_size"],
        doc: "Client networks that are counted for `client_max_connections` and `client_max_rate`, over all services and \
              workers, at 32 bytes each. A network without flows gives way; where none does, a new one is not limited, and \
              `status` counts that.",
    },
    Key {
        name: "persistent_clients",
        kind: integer(1024, MOST_CLIENTS as i64),
        presence: Presence::Default("65_536"),
        also: &["max_persistent_clients", "persistence_table", "templates"],
        doc: "Persistent clients over all services and workers, at 204 bytes each. The memory is taken at start. Where it is full, \
              clients give way of which no flow was ever confirmed, then those without flows.",
    },
];

const fn timeout(name: &'static str, default: &'static str, also: &'static [&'static str], doc: &'static str) -> Key {
    Key { name, kind: integer(1, 2_000_000), presence: Presence::Default(default), also, doc }
}

const fn service_timeout(name: &'static str, also: &'static [&'static str], doc: &'static str) -> Key {
    Key { name, kind: integer(1, 2_000_000), presence: Presence::Otherwise("that of `[timeouts]`"), also, doc }
}

/// Every timeout, once for all services and once for one of them.
macro_rules! timeouts {
    ($($name:literal, $default:literal, $also:expr, $doc:literal;)*) => {
        pub(super) const TIMEOUTS: &[Key] = &[$(timeout($name, $default, $also, $doc)),*];
        pub(super) const SERVICE_TIMEOUTS: &[Key] = &[$(service_timeout($name, $also, $doc)),*];
    };
}

timeouts! {
    "tcp_established", "900", &["tcp", "tcp_timeout"], "TCP ESTABLISHED (the first of `ipvsadm --set`).";
    "tcp_syn_sent", "120", &[], "TCP SYN_SENT.";
    "tcp_syn_recv", "60", &["tcp_syn"], "TCP SYN_RECV: the client's SYN was forwarded.";
    "tcp_fin_wait", "120", &["tcpfin", "tcp_fin"], "TCP FIN_WAIT (the second of `ipvsadm --set`).";
    "tcp_time_wait", "120", &[], "TCP TIME_WAIT.";
    "tcp_close", "10", &["tcp_rst"], "TCP CLOSE.";
    "tcp_close_wait", "60", &[], "TCP CLOSE_WAIT.";
    "tcp_last_ack", "30", &[], "TCP LAST_ACK.";
    "tcp_listen", "120", &[], "TCP LISTEN.";
    "tcp_synack", "120", &["tcp_syn_ack"], "TCP SYNACK.";
    "udp", "300", &["udp_timeout"], "UDP (the third of `ipvsadm --set`).";
    "sctp_none", "2", &[], "SCTP NONE.";
    "sctp_init1", "4", &[], "SCTP INIT1: the client's first INIT was forwarded.";
    "sctp_init", "61", &[], "SCTP INIT.";
    "sctp_cookie_sent", "61", &[], "SCTP C-SENT.";
    "sctp_cookie_replied", "61", &[], "SCTP C-REPLIED.";
    "sctp_cookie_wait", "61", &[], "SCTP C-WAIT.";
    "sctp_cookie", "61", &[], "SCTP COOKIE.";
    "sctp_cookie_echoed", "61", &[], "SCTP C-ECHOED.";
    "sctp_established", "900", &["sctp"], "SCTP ESTABLISHED.";
    "sctp_shutdown_sent", "61", &[], "SCTP S-SENT.";
    "sctp_shutdown_received", "61", &[], "SCTP S-RECEIVED.";
    "sctp_shutdown_ack_sent", "61", &[], "SCTP S-ACK-SENT.";
    "sctp_rejected", "4", &[], "SCTP REJECTED.";
    "sctp_closed", "61", &[], "SCTP CLOSED.";
}
