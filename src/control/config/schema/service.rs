//! The keys of `[[service]]` and `[[service.server]]`. Pure.

use super::scheduler;
use super::{Key, Kind, Presence, Word, integer, word};

/// The smallest MSS clamp: what every IPv4 host must take (RFC 9293, section 3.7.1).
const MIN_MSS: i64 = 536;
/// The largest MSS clamp: 65,535 bytes of IPv4 packet less two headers.
const MAX_MSS: i64 = 65_495;

/// Methods, as [`crate::model::Method`].
const METHODS: &[Word] = &[
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
];
