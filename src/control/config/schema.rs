//! The schema: every table and key of the configuration file, described once.
//!
//! Owns names, kinds, ranges, defaults and the reference text. The walk over a file ([`super::raw`]), the checks of
//! single values ([`super::value`]) and the reference page ([`super::reference`]) all read this table, so a key
//! that is not described here does not exist. Never checks anything itself. Pure.

use crate::model::MAGLEV_SIZES;

/// Most interfaces that one engine takes.
pub const MAX_INTERFACES: usize = 16;

/// A word that a key can have, with its meaning.
#[derive(Debug)]
pub struct Word {
    /// As written in the file.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// Words that are known from keepalived and IPVS, but not in this version.
#[derive(Debug)]
pub struct Absent {
    /// As people would write them.
    pub words: &'static [&'static str],
    /// What to write instead.
    pub instead: &'static str,
}

/// What a key's value is.
#[derive(Debug)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// An integer in a range, both ends included.
    Integer {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
        /// Whether it must be a power of two.
        power_of_two: bool,
    },
    /// One of a few integers.
    OneOf(&'static [u32]),
    /// A list of one or more different integers.
    Integers {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
        /// A word that may stand in the place of the list.
        or: Option<&'static str>,
    },
    /// One word of a set.
    Word(&'static [Word], Option<&'static Absent>),
    /// A list of different words of a set.
    Words(&'static [Word], Option<&'static Absent>),
    /// One word of a set, or a list of different ones, or a word that means the whole set.
    WordOrWords {
        /// The set.
        words: &'static [Word],
        /// The word that means the whole set, in its order.
        all: &'static str,
    },
    /// An IPv4 or IPv6 address.
    Address,
    /// An Ethernet address.
    Mac,
    /// A port, a range of ports or `"any"`.
    Ports,
    /// A name of a service.
    Name,
    /// A name of a kernel interface.
    InterfaceName,
    /// An absolute path of a file.
    Path,
}

/// Whether a key must be there.
#[derive(Debug)]
pub enum Presence {
    /// It must.
    Required,
    /// Without it, this TOML text is taken.
    Default(&'static str),
    /// Without it, something that depends on other keys or on the machine happens: described here.
    Otherwise(&'static str),
}

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Whether it must be there.
    pub presence: Presence,
    /// Names that keepalived, ipvsadm or habit have for it.
    pub also: &'static [&'static str],
    /// The reference text.
    pub doc: &'static str,
}

/// How often a table can be there.
#[derive(Debug, PartialEq, Eq)]
pub enum Form {
    /// `[name]`, at most once.
    Once,
    /// `[[name]]`, from `min` to `max` times.
    Many {
        /// Least, else an error with this much to say.
        min: usize,
        /// Most.
        max: usize,
    },
}

/// A table of the file.
#[derive(Debug)]
pub struct Table {
    /// Its own name.
    pub name: &'static str,
    /// How often it can be there.
    pub form: Form,
    /// Names that keepalived or habit have for it.
    pub also: &'static [&'static str],
    /// The reference text.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// Tables inside it.
    pub tables: &'static [Table],
}

impl Table {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The table of that name inside this one.
    pub fn table(&self, name: &str) -> Option<&'static Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Every name that can stand in this table.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.tables.iter().map(|table| table.name).chain(self.keys.iter().map(|key| key.name))
    }
}

/// I/O modes, best first, as [`crate::model::IoMode`].
pub const MODES: &[Word] = &[
    Word { name: "zero-copy", doc: "AF_XDP, native XDP, the NIC writes straight into the engine's memory" },
    Word { name: "copy", doc: "AF_XDP, native XDP, one copy a frame" },
    Word { name: "generic", doc: "AF_XDP with generic XDP: any driver, slower" },
    Word { name: "af-packet", doc: "AF_PACKET sockets, where XDP cannot be had" },
];

const ABSENT_SCHEDULERS: Absent = Absent {
    words: &["lblc", "lblcr", "sh", "dh", "fo", "ovf", "sed", "nq", "twos"],
    instead: "take `wlc` for uneven connections, or `mh` where a client must keep its server",
};

const ABSENT_METHODS: Absent = Absent {
    words: &["nat", "masq", "tunnel", "tun", "ipip", "gre", "gue", "full-nat", "fullnat"],
    instead: "this version forwards by direct routing only: write `dr`, and put the service address on `lo` of each server",
};

/// The whole file.
pub static FILE: Table = Table {
    name: "",
    form: Form::Once,
    also: &[],
    doc: "",
    keys: &[],
    tables: &[
        Table {
            name: "engine",
            form: Form::Once,
            also: &["global", "global_defs", "dataplane"],
            doc: "The packet engine. These settings need a restart; `evenkeel reload` says so when one of them changed.",
            keys: ENGINE,
            tables: &[],
        },
        Table {
            name: "timeouts",
            form: Form::Once,
            also: &["timeout"],
            doc: "Seconds without a packet after which a flow in a state is forgotten. The defaults are those of IPVS.",
            keys: TIMEOUTS,
            tables: &[],
        },
        Table {
            name: "control",
            form: Form::Once,
            also: &["api"],
            doc: "The control socket, through which `evenkeel status` and `evenkeel reload` speak with the running engine.",
            keys: CONTROL,
            tables: &[],
        },
        Table {
            name: "interface",
            form: Form::Many { min: 1, max: MAX_INTERFACES },
            also: &["interfaces", "nic"],
            doc: "A network interface whose packets the engine takes. One interface serves clients and servers alike \
                  (one-arm); with two or more, packets arrive on any of them and leave on the one that leads to the \
                  server. What is not for a service passes to the kernel untouched.",
            keys: INTERFACE,
            tables: &[],
        },
        Table {
            name: "neighbor",
            form: Form::Many { min: 0, max: 65_536 },
            also: &["neighbour", "neighbors", "neighbours"],
            doc: "A fixed next hop. Normally none is needed: the kernel's route and neighbour tables say where a server \
                  is, and the engine follows them.",
            keys: NEIGHBOR,
            tables: &[],
        },
        Table {
            name: "service",
            form: Form::Many { min: 0, max: 65_535 },
            also: &["services", "virtual_server", "virtual-server"],
            doc: "A virtual service: what clients connect to. No two services may share an address, a protocol and a port.",
            keys: SERVICE,
            tables: &[Table {
                name: "server",
                form: Form::Many { min: 0, max: 65_536 },
                also: &["servers", "real_server", "real-server"],
                doc: "A real server of the service, as `[[service.server]]` after its service, or as \
                      `server = [{ address = \"10.0.0.11\" }]` in it.",
                keys: SERVER,
                tables: &[],
            }],
        },
    ],
};

const fn integer(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max, power_of_two: false }
}

const ENGINE: &[Key] = &[
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
                Word { name: "adaptive", doc: "poll for a while after the last packet, then sleep until one arrives" },
                Word { name: "busy", doc: "never sleep: lowest latency, one core at 100 %" },
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
                Word { name: "auto", doc: "reserved huge pages, else transparent ones, else normal pages" },
                Word { name: "always", doc: "reserved huge pages, or refuse to start" },
                Word { name: "never", doc: "normal pages" },
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
        doc: "IPv4 flows that one worker can hold, at 64 bytes each at most. The memory is taken at start.",
    },
    Key {
        name: "flows_ipv6",
        kind: integer(1024, 100_000_000),
        presence: Presence::Default("250_000"),
        also: &["flows6"],
        doc: "IPv6 flows that one worker can hold, at 96 bytes each at most. The memory is taken at start.",
    },
    Key {
        name: "verify_checksums",
        kind: Kind::Word(
            &[
                Word { name: "new-flows", doc: "packets that would create a flow: a broken packet makes no state" },
                Word { name: "all", doc: "every packet for a service" },
                Word { name: "off", doc: "none" },
            ],
            None,
        ),
        presence: Presence::Default("\"new-flows\""),
        also: &["checksums"],
        doc: "Which transport checksums are verified before a packet is forwarded. IPv4 header checksums always are.",
    },
];

const fn timeout(name: &'static str, default: &'static str, also: &'static [&'static str], doc: &'static str) -> Key {
    Key { name, kind: integer(1, 2_000_000), presence: Presence::Default(default), also, doc }
}

const TIMEOUTS: &[Key] = &[
    timeout("tcp_established", "900", &["tcp", "tcp_timeout"], "TCP ESTABLISHED (the first of `ipvsadm --set`)."),
    timeout("tcp_syn_sent", "120", &[], "TCP SYN_SENT."),
    timeout("tcp_syn_recv", "60", &["tcp_syn"], "TCP SYN_RECV: the client's SYN was forwarded."),
    timeout("tcp_fin_wait", "120", &["tcpfin", "tcp_fin"], "TCP FIN_WAIT (the second of `ipvsadm --set`)."),
    timeout("tcp_time_wait", "120", &[], "TCP TIME_WAIT."),
    timeout("tcp_close", "10", &["tcp_rst"], "TCP CLOSE."),
    timeout("tcp_close_wait", "60", &[], "TCP CLOSE_WAIT."),
    timeout("tcp_last_ack", "30", &[], "TCP LAST_ACK."),
    timeout("udp", "300", &["udp_timeout"], "UDP (the third of `ipvsadm --set`)."),
    timeout("sctp_established", "900", &["sctp"], "SCTP ESTABLISHED."),
];

const CONTROL: &[Key] = &[Key {
    name: "socket",
    kind: Kind::Path,
    presence: Presence::Default("\"/run/evenkeel.sock\""),
    also: &["path"],
    doc: "Path of the Unix socket, created with mode 0660. It needs a restart to change.",
}];

const INTERFACE: &[Key] = &[
    Key {
        name: "name",
        kind: Kind::InterfaceName,
        presence: Presence::Required,
        also: &["interface", "device", "dev", "ifname"],
        doc: "The kernel's name of the interface. For servers in a VLAN, name the parent: frames carry their tags, and \
              a sub-interface such as `eth0.100` in the kernel tells which tag leads to them.",
    },
    Key {
        name: "queues",
        kind: Kind::Integers { min: 0, max: 1023, or: Some("all") },
        presence: Presence::Default("\"all\""),
        also: &["queue"],
        doc: "Receive queues to take. Packets that arrive on other queues go to the kernel.",
    },
];

const NEIGHBOR: &[Key] = &[
    Key {
        name: "address",
        kind: Kind::Address,
        presence: Presence::Required,
        also: &["ip", "addr"],
        doc: "Address of a real server.",
    },
    Key {
        name: "mac",
        kind: Kind::Mac,
        presence: Presence::Required,
        also: &["lladdr", "hwaddr", "ether"],
        doc: "Its Ethernet address.",
    },
    Key {
        name: "interface",
        kind: Kind::InterfaceName,
        presence: Presence::Otherwise("the interface of the route to it, or the only one"),
        also: &["device", "dev"],
        doc: "The interface to send through: one of `[[interface]]`.",
    },
    Key {
        name: "vlan",
        kind: integer(1, 4094),
        presence: Presence::Otherwise("the tag of the route to it, or none"),
        also: &["tag", "vlan_id"],
        doc: "The 802.1Q tag to put on, for a kernel that has no interface in that VLAN.",
    },
];

const SERVICE: &[Key] = &[
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
        kind: Kind::Word(
            &[Word { name: "tcp", doc: "TCP" }, Word { name: "udp", doc: "UDP" }, Word { name: "sctp", doc: "SCTP" }],
            None,
        ),
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
        kind: Kind::Word(
            &[
                Word { name: "rr", doc: "round robin: weights only tell 0 from more" },
                Word { name: "wrr", doc: "weighted round robin" },
                Word { name: "lc", doc: "least connections" },
                Word { name: "wlc", doc: "weighted least connections" },
                Word { name: "mh", doc: "Maglev hashing: a client keeps its server, on every appliance alike" },
            ],
            Some(&ABSENT_SCHEDULERS),
        ),
        presence: Presence::Default("\"wlc\""),
        also: &["lb_algo", "lvs_sched", "sched", "algorithm"],
        doc: "How a server is chosen for a new flow, by its IPVS name.",
    },
    Key {
        name: "scheduler_flags",
        kind: Kind::Words(
            &[
                Word { name: "mh-port", doc: "hash the client's port too, not only its address" },
                Word { name: "mh-fallback", doc: "pick another server when the hashed one has weight 0" },
            ],
            None,
        ),
        presence: Presence::Default("[]"),
        also: &["flags", "sched_flags"],
        doc: "Flags of the scheduler `mh`.",
    },
    Key {
        name: "mh_table_size",
        kind: Kind::OneOf(&MAGLEV_SIZES),
        presence: Presence::Otherwise("4093, as in a stock kernel"),
        also: &["table_size"],
        doc: "Slots of the table of the scheduler `mh`; take at least a hundred for each server.",
    },
    Key {
        name: "method",
        kind: Kind::Word(
            &[Word {
                name: "dr",
                doc: "direct routing (`ipvsadm -g`): only Ethernet addresses change; the server answers the client itself",
            }],
            Some(&ABSENT_METHODS),
        ),
        presence: Presence::Default("\"dr\""),
        also: &["lb_kind", "lvs_method", "forwarding"],
        doc: "How packets reach the servers.",
    },
];

const SERVER: &[Key] = &[
    Key {
        name: "address",
        kind: Kind::Address,
        presence: Presence::Required,
        also: &["ip", "addr", "host"],
        doc: "The server's own address, of the family of the service's. It must be in a network of one of the \
              engine's interfaces: direct routing reaches servers by their Ethernet address.",
    },
    Key {
        name: "weight",
        kind: integer(0, 65_535),
        presence: Presence::Default("1"),
        also: &[],
        doc: "Share of new flows. 0 takes no new ones and keeps those it has.",
    },
    Key {
        name: "port",
        kind: integer(1, 65_535),
        presence: Presence::Otherwise("the port of the service"),
        also: &[],
        doc: "The server's port. Direct routing does not change ports, so it can only be that of the service.",
    },
];
