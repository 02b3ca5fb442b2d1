//! The keys of `[[service]]` and `[[service.server]]`. Pure.

use super::health::ON_FAILURE;
use super::scheduler;
use super::vrrp::seconds;
use super::{Key, Kind, Presence, Word, integer, word};
use crate::dataplane::limits::MOST_PER_CLIENT;
use crate::dataplane::persist::MOST_SECONDS;

/// The smallest MSS clamp: what every IPv4 host must take (RFC 9293, section 3.7.1).
const MIN_MSS: i64 = 536;
/// The largest MSS clamp: 65,535 bytes of IPv4 packet less two headers.
const MAX_MSS: i64 = 65_495;

/// Methods, as [`crate::model::Method`].
pub(super) const METHODS: &[Word] = &[
    word(
        "dr",
        "direct routing (`ipvsadm -g`): only Ethernet addresses change; the server answers the client itself",
        &["gateway", "gatewaying", "route", "direct", "direct-routing"],
    ),
    word(
        "nat",
        "destination NAT (`ipvsadm -m`): the server sees the client's address and answers by way of the appliance, which \
         must be its gateway",
        &["masq", "masquerade", "masquerading", "dnat"],
    ),
    word(
        "full-nat",
        "NAT of both addresses: the server sees one of `local_addresses` and answers to it, wherever its gateway is",
        &["fullnat", "full_nat", "fnat", "snat"],
    ),
    word(
        "ipip",
        "IP in IP (`ipvsadm -i`), any of the four combinations of IPv4 and IPv6; the server answers the client itself",
        &["tun", "tunnel", "ip-ip", "ip_ip", "ip-in-ip", "sit", "ip6tnl"],
    ),
    word("gue", "generic UDP encapsulation (`ipvsadm -i --tun-type gue`), the same otherwise", &["udp", "fou"]),
    word("gre", "GRE without options (`ipvsadm -i --tun-type gre`), the same otherwise", &[]),
];

/// The highest rate and the largest burst.
const MOST_RATE: i64 = 10_000_000;

/// Fates, as [`crate::model::Fate`].
const FATES: &[Word] = &[
    word(
        "keep",
        "their packets are dropped as `server-gone` or `no-next-hop`, and they go on when the server is back",
        &["0", "no", "false", "none", "drop", "wait"],
    ),
    word(
        "reschedule",
        "their next packet is treated as one without a flow, and goes to another server",
        &["move", "rebalance", "failover", "redispatch"],
    ),
    word(
        "reset",
        "their next packet is answered by a TCP reset, or by ICMP port unreachable, and they end",
        &["1", "yes", "true", "expire", "rst", "close", "shutdown-sessions"],
    ),
];

pub(super) const SERVICE: &[Key] = &[
    Key {
        name: "name",
        kind: Kind::Name,
        presence: Presence::Otherwise("made from address, port and protocol, such as `192.0.2.10:80/tcp`"),
        also: &["id", "alias"],
        doc: "Unique name, for people, JSON and metrics.",
    },
    Key {
        name: "address",
        kind: Kind::Address,
        presence: Presence::Required,
        also: &["ip", "addr", "vip", "virtual_ipaddress"],
        doc: "The virtual address. The kernel must not have it: the engine answers ARP, neighbour discovery and ping for it.",
    },
    Key {
        name: "protocol",
        kind: Kind::Word(&[word("tcp", "TCP", &[]), word("udp", "UDP", &[]), word("sctp", "SCTP", &[])], None),
        presence: Presence::Default("\"tcp\""),
        also: &["proto"],
        doc: "The transport protocol.",
    },
    Key {
        name: "port",
        kind: Kind::Ports,
        presence: Presence::Required,
        also: &["ports"],
        doc: "The port, a range of ports, or every port.",
    },
    Key {
        name: "scheduler",
        kind: Kind::Word(scheduler::NAMES, None),
        presence: Presence::Default("\"wlc\""),
        also: &["lb_algo", "lvs_sched", "sched", "algorithm"],
        doc: "How a server is chosen for a new flow, by its IPVS name if it has one. Workers choose as one: sequences and counts are those \
              of the whole appliance. No scheduler takes a server of weight 0 or one at its threshold.",
    },
    Key {
        name: "scheduler_flags",
        kind: Kind::Words(scheduler::FLAGS, None),
        presence: Presence::Default("[]"),
        also: &["flags", "sched_flags"],
        doc: "Flags of the scheduler; they begin with its name.",
    },
    Key {
        name: "mh_table_size",
        kind: Kind::OneOf(scheduler::TABLE_SIZES),
        presence: Presence::Otherwise("the scheduler's own, which its line tells"),
        also: &["table_size", "maglev_table_size"],
        doc: "Slots of the table of the schedulers that have one, `mh` and `maglev`; take at least a hundred for each server. \
              Not each takes every size: `mh` has those of the kernel.",
    },
    Key {
        name: "method",
        kind: Kind::Word(METHODS, None),
        presence: Presence::Default("\"dr\""),
        also: &["lb_kind", "lvs_method", "forwarding"],
        doc: "How packets reach the servers, where a server does not say otherwise.",
    },
    Key {
        name: "local_addresses",
        kind: Kind::Addresses,
        presence: Presence::Otherwise("an error, if a server has the method `full-nat`"),
        also: &["local_address", "laddr", "laddr_group", "local_address_group", "snat_ip"],
        doc: "Full NAT: addresses from which the servers are asked, of the family of the service. The servers must have a \
              route to them. The engine answers ARP and neighbour discovery for those that the kernel does not have. \
              Services may share them.",
    },
    Key {
        name: "proxy_protocol",
        kind: Kind::Word(
            &[
                word("off", "the server does not learn it", &["none", "no"]),
                word("v2", "by PROXY protocol version 2, in the first segment of each connection", &["2", "v1", "on"]),
            ],
            None,
        ),
        presence: Presence::Default("\"off\""),
        also: &["send_proxy", "send-proxy-v2", "proxy"],
        doc: "Full NAT over TCP: how the server learns the client's address. Every server must expect it.",
    },
    Key {
        name: "mss_clamp",
        kind: Kind::IntegerOr { min: MIN_MSS, max: MAX_MSS, word: "off" },
        presence: Presence::Default("\"off\""),
        also: &["mss", "set_mss", "clamp_mss"],
        doc: "TCP by NAT and full NAT: the largest segment that a SYN may announce, in bytes, in both directions. Larger \
              announcements are lowered, so that packets fit a smaller link. By tunnel the servers' announcements do \
              not pass the appliance: lower them there (`ip route ... advmss`).",
    },
    Key {
        name: "tunnel_source",
        kind: Kind::Addresses,
        presence: Presence::Otherwise("the source address of the route to the server"),
        also: &["tun_source", "outer_source"],
        doc: "Tunnels: outer source address; a list has one of each family.",
    },
    Key {
        name: "tunnel_ttl",
        kind: Kind::IntegerOr { min: 1, max: 255, word: "inherit" },
        presence: Presence::Default("\"inherit\""),
        also: &["tun_ttl"],
        doc: "Tunnels: TTL or hop limit of the outer packet; `\"inherit\"` copies that of the inner one, as IPVS does.",
    },
    Key {
        name: "tunnel_source_spread",
        kind: integer(0, 16),
        presence: Presence::Default("0"),
        also: &["source_spread"],
        doc: "Tunnels `ipip` and `gre`: low bits of the outer source address that vary with the flow, so that the servers' \
              cards spread the load over their queues. 0 keeps one source. The servers must accept all these sources.",
    },
    Key {
        name: "gue_port",
        kind: integer(1, 65_535),
        presence: Presence::Default("6080"),
        also: &["tun_port", "tun-port", "tunnel_port"],
        doc: "Tunnel `gue`: UDP port on which the servers take packets.",
    },
    Key {
        name: "one_packet",
        kind: Kind::Boolean,
        presence: Presence::Default("false"),
        also: &["ops", "one-packet", "one_packet_scheduling"],
        doc: "UDP: every datagram is scheduled by itself, and no flow is remembered (`ipvsadm --ops`). By direct routing and \
              tunnel only.",
    },
    Key {
        name: "max_connections",
        kind: integer(1, 1_000_000_000),
        presence: Presence::Otherwise("no limit"),
        also: &["connection_limit", "maxconn", "connlimit"],
        doc: "Flows of the service at a time, over all workers; a new one beyond is dropped as `service-connections`.",
    },
    Key {
        name: "max_rate",
        kind: integer(1, MOST_RATE),
        presence: Presence::Otherwise("no limit"),
        also: &["rate_limit", "max_connection_rate", "maxconnrate", "connection_rate"],
        doc: "New flows of the service a second, over all workers; one beyond is dropped as `service-rate`.",
    },
    Key {
        name: "max_rate_burst",
        kind: integer(1, MOST_RATE),
        presence: Presence::Otherwise("`max_rate`: what comes in a second"),
        also: &["rate_burst"],
        doc: "New flows at once after a pause.",
    },
    Key {
        name: "client_max_connections",
        kind: integer(1, MOST_PER_CLIENT as i64),
        presence: Presence::Otherwise("no limit"),
        also: &["client_connection_limit", "max_connections_per_client", "per_client_connections"],
        doc: "Flows of one client network with the service at a time, over all workers; a new one beyond is dropped as \
              `client-connections`.",
    },
    Key {
        name: "client_max_rate",
        kind: integer(1, MOST_RATE),
        presence: Presence::Otherwise("no limit"),
        also: &["client_rate_limit", "max_rate_per_client", "per_client_rate"],
        doc: "New flows of one client network a second, over all workers; one beyond is dropped as `client-rate`.",
    },
    Key {
        name: "client_max_rate_burst",
        kind: integer(1, MOST_RATE),
        presence: Presence::Otherwise("`client_max_rate`: what comes in a second"),
        also: &["client_rate_burst"],
        doc: "New flows of one client network at once after a pause.",
    },
    Key {
        name: "client_prefix_ipv4",
        kind: integer(1, 32),
        presence: Presence::Default("32"),
        also: &["client_prefix", "client_mask", "client_netmask", "client_prefix_v4"],
        doc: "Leading bits of IPv4 addresses that make a client network: 32 limits each address, 24 all of a /24 together.",
    },
    Key {
        name: "client_prefix_ipv6",
        kind: integer(1, 128),
        presence: Presence::Default("64"),
        also: &["client_prefix_v6", "client_prefix6"],
        doc: "The same for IPv6. A site has a /64 at least, and may choose any address in it.",
    },
    Key {
        name: "flows_of_removed",
        kind: Kind::Word(FATES, None),
        presence: Presence::Default("\"reset\""),
        also: &["expire_nodest_conn", "on_removed", "on_remove"],
        doc: "What becomes of the flows of a server that was removed from the service.",
    },
    Key {
        name: "flows_of_down",
        kind: Kind::Word(FATES, None),
        presence: Presence::Default("\"keep\""),
        also: &["on_marked_down", "on-marked-down", "on_down"],
        doc: "What becomes of the flows of a server that cannot be reached, or whose checks fail and remove it.",
    },
    Key {
        name: "flows_of_drained",
        kind: Kind::Word(FATES, None),
        presence: Presence::Default("\"reset\""),
        also: &["on_drained", "on_deadline"],
        doc: "What becomes of the flows that a draining server has left at the deadline; with `\"keep\"` it goes on to serve \
              them.",
    },
    Key {
        name: "drain_deadline",
        kind: Kind::IntegerOr { min: 1, max: 31_536_000, word: "off" },
        presence: Presence::Default("\"off\""),
        also: &["drain_timeout", "drain_time", "deadline"],
        doc: "Seconds from the moment at which a server begins to drain to that at which `flows_of_drained` is applied to what \
              is left; `\"off\"` lets its flows end by themselves.",
    },
    Key {
        name: "persistence",
        kind: Kind::IntegerOr { min: 1, max: MOST_SECONDS as i64, word: "off" },
        presence: Presence::Default("\"off\""),
        also: &["persistence_timeout", "persistent", "persistent_timeout", "sticky"],
        doc: "Seconds for which a client keeps its server after its last new flow (`ipvsadm -p`). While flows are open at the \
              end of that time, it is 60 seconds more, again and again, as in IPVS.",
    },
    Key {
        name: "persistence_by",
        kind: Kind::Word(
            &[
                word("client", "by their addresses, or networks", &["source", "source-ip", "ip", "src"]),
                word(
                    "sip-call-id",
                    "by the Call-ID of SIP over UDP, and by their addresses or networks (`ipvsadm --pe sip`); with a prefix of \
                     0 by nothing but the Call-ID; a first packet without one is dropped",
                    &["sip", "call-id", "callid"],
                ),
                word(
                    "quic-server-id",
                    "by the server id in QUIC connection ids (draft-ietf-quic-load-balancers, plaintext), so that a connection \
                     survives a change of its client's address; `persistence` is not needed, and holds for packets without \
                     such an id",
                    &["quic", "quic-lb", "quic-cid", "connection-id"],
                ),
            ],
            None,
        ),
        presence: Presence::Default("\"client\""),
        also: &["persistence_engine", "pe", "pe_name"],
        doc: "What tells clients apart.",
    },
    Key {
        name: "persistence_prefix_v4",
        kind: integer(0, 32),
        presence: Presence::Default("32"),
        also: &["persistence_granularity", "persistence_mask", "persistence_netmask", "persistence_prefix", "netmask"],
        doc: "Leading bits of an IPv4 client's address that count (`ipvsadm -M`: 24 is 255.255.255.0): clients that have them in \
              common share a server.",
    },
    Key {
        name: "persistence_prefix_v6",
        kind: integer(0, 128),
        presence: Presence::Default("128"),
        also: &["persistence_granularity_v6", "persistence_mask_v6", "persistence_prefix6", "netmask6"],
        doc: "The same for IPv6 clients; most providers give a client a network of 56 or 64 bits.",
    },
    Key {
        name: "persistence_drained",
        kind: Kind::Word(
            &[
                word("keep", "they keep it until their time is over", &["stay"]),
                word("leave", "their next flow goes to another one (`expire_quiescent_template`)", &["expire", "move"]),
            ],
            None,
        ),
        presence: Presence::Default("\"keep\""),
        also: &["expire_quiescent_template", "quiescent"],
        doc: "What becomes of the persistent clients of a server with weight 0.",
    },
    Key {
        name: "group",
        kind: Kind::Name,
        presence: Presence::Otherwise("the service's clients are its own"),
        also: &["fwmark", "virtual_server_group", "service_group"],
        doc: "Services of one group share their persistent clients: who has a server in one has it in all, for example over the \
              ports 80 and 443, or over TCP and UDP. They must have the same servers and the same persistence.",
    },
    Key {
        name: "quic_rotation",
        kind: integer(0, 6),
        presence: Presence::Default("0"),
        also: &["quic_config_id", "config_rotation", "config_id"],
        doc: "QUIC-LB: config rotation bits (the three highest of a connection id's first octet) of the ids that are looked at.",
    },
    Key {
        name: "quic_server_id_length",
        kind: integer(1, 15),
        presence: Presence::Otherwise("the length of the servers' `quic_id`"),
        also: &["server_id_length", "quic_id_length"],
        doc: "QUIC-LB: bytes of a server id.",
    },
    Key {
        name: "on_failure",
        kind: Kind::Word(ON_FAILURE, None),
        presence: Presence::Default("\"remove\""),
        also: &["failure", "on_down_server"],
        doc: "What becomes of a server whose checks fail.",
    },
    Key {
        name: "quorum",
        kind: integer(1, 1_000_000_000),
        presence: Presence::Default("1"),
        also: &["min_servers", "minimum"],
        doc: "Least sum of the usable servers' weights with which the service is up.",
    },
    Key {
        name: "quorum_hysteresis",
        kind: integer(0, 1_000_000_000),
        presence: Presence::Default("0"),
        also: &["hysteresis"],
        doc: "The quorum is lost when the sum is below `quorum` less this, and found again at `quorum` and this.",
    },
    Key {
        name: "quorum_up",
        kind: Kind::Command,
        presence: Presence::Otherwise("nothing is run"),
        also: &["notify_quorum_up"],
        doc: "Program that is run when the quorum is found.",
    },
    Key {
        name: "quorum_down",
        kind: Kind::Command,
        presence: Presence::Otherwise("nothing is run"),
        also: &["notify_quorum_down"],
        doc: "Program that is run when the quorum is lost.",
    },
    Key {
        name: "no_server",
        kind: Kind::Word(
            &[
                word(
                    "refuse",
                    "a TCP reset, or ICMP port unreachable: it knows at once",
                    &["reset", "reject", "rst", "unreachable"],
                ),
                word("drop", "nothing: its packets are dropped as `no-server`", &["silent", "none", "ignore"]),
            ],
            None,
        ),
        presence: Presence::Default("\"refuse\""),
        also: &["on_no_server", "no_servers"],
        doc: "What a new client gets while no server is usable, nor a sorry server there. Where the Ethernet address of one is still being \
              asked for, its packets are dropped in any case: its next attempt may be let in.",
    },
    Key {
        name: "slow_start",
        kind: seconds(1000, 86_400_000, 1),
        presence: Presence::Otherwise("it has it at once"),
        also: &["slowstart", "slow-start", "warm_up_time"],
        doc: "Seconds in which a server that comes back gets to its full weight, a tenth at a time.",
    },
    Key {
        name: "script_user",
        kind: Kind::Name,
        presence: Presence::Otherwise("that of Evenkeel itself"),
        also: &["notify_user", "user"],
        doc: "User that the service's programs run as: its checks' and servers', and those of its quorum.",
    },
];

pub(super) const SERVER: &[Key] = &[
    Key {
        name: "address",
        kind: Kind::Address,
        presence: Presence::Required,
        also: &["ip", "addr", "host"],
        doc: "The server's own address, of the family of the service's; by tunnel of either family. By direct routing it \
              must be in a network of one of the engine's interfaces; by the other methods it may be behind routers.",
    },
    Key {
        name: "port",
        kind: integer(1, 65_535),
        presence: Presence::Otherwise("the port of the service"),
        also: &[],
        doc: "The server's port, where the methods `nat` and `full-nat` change it. Only in a service of one port.",
    },
    Key {
        name: "weight",
        kind: integer(0, 65_535),
        presence: Presence::Default("1"),
        also: &[],
        doc: "Share of new flows. 0 takes no new ones and keeps those it has.",
    },
    Key {
        name: "method",
        kind: Kind::Word(METHODS, None),
        presence: Presence::Otherwise("the `method` of the service"),
        also: &["lb_kind", "lvs_method", "forwarding"],
        doc: "How packets reach this server.",
    },
    Key {
        name: "drain",
        kind: Kind::Boolean,
        presence: Presence::Default("false"),
        also: &["draining", "drained", "maintenance", "disabled", "quiescent"],
        doc: "Whether the server takes no new flows, keeps those it has until the service's `drain_deadline`, and has its \
              progress shown by `status`. Its weight waits.",
    },
    Key {
        name: "upper_threshold",
        kind: integer(1, 1_000_000_000),
        presence: Presence::Otherwise("no threshold"),
        also: &[
            "u-threshold",
            "u_threshold",
            "uthreshold",
            "upper_connection_limit",
            "max_connections",
            "maxconn",
            "x",
        ],
        doc: "Flows at which the server takes no new ones (`ipvsadm -x`): never more, whatever the number of workers. Inactive \
              ones count, too.",
    },
    Key {
        name: "lower_threshold",
        kind: integer(1, 1_000_000_000),
        presence: Presence::Otherwise("three quarters of `upper_threshold`"),
        also: &["l-threshold", "l_threshold", "lthreshold", "lower_connection_limit", "y"],
        doc: "Flows below which it takes new ones again (`ipvsadm -y`).",
    },
    Key {
        name: "quic_id",
        kind: Kind::Hex { min: 1, max: 15, what: "an id" },
        presence: Presence::Otherwise("an error, if clients are told apart by `quic-server-id`"),
        also: &["server_id", "quic_server_id"],
        doc: "QUIC-LB: the server's id in its connection ids, as the server itself is configured.",
    },
    Key {
        name: "on_failure",
        kind: Kind::Word(ON_FAILURE, None),
        presence: Presence::Otherwise("the `on_failure` of the service"),
        also: &["failure"],
        doc: "What becomes of this server when a check fails.",
    },
    Key {
        name: "drain_file",
        kind: Kind::Path,
        presence: Presence::Otherwise("none"),
        also: &["maintenance_file", "file"],
        doc: "While this file exists the server drains.",
    },
    Key {
        name: "notify_up",
        kind: Kind::Command,
        presence: Presence::Otherwise("nothing is run"),
        also: &["on_up"],
        doc: "Program that is run when the server becomes usable.",
    },
    Key {
        name: "notify_down",
        kind: Kind::Command,
        presence: Presence::Otherwise("nothing is run"),
        also: &["on_down", "on-marked-down"],
        doc: "Program that is run when the server stops being usable.",
    },
];
