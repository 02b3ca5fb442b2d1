//! The schema: every table and key of the configuration file, described once.
//!
//! Owns names, kinds, ranges, defaults and the reference text. The walk over a file ([`super::raw`]), the checks of
//! single values ([`super::value`]) and the reference page ([`super::reference`]) all read this table, so a key
//! that is not described here does not exist. Never checks anything itself. Pure.

mod access;
mod check;
mod engine;
mod health;
mod scheduler;
mod service;
mod track;
mod vrrp;
mod web;

use access::ACCESS;
use engine::{ENGINE, SERVICE_TIMEOUTS, TIMEOUTS};
use service::{SERVER, SERVICE};
pub use vrrp::MOST_ADDRESSES;

/// Most interfaces that one engine takes.
pub const MAX_INTERFACES: usize = 16;

/// A word that a key can have, with its meaning.
#[derive(Debug)]
pub struct Word {
    /// As written in the file.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// Words that keepalived, ipvsadm or habit have for it, in lower case.
    pub also: &'static [&'static str],
}

const fn word(name: &'static str, doc: &'static str, also: &'static [&'static str]) -> Word {
    Word { name, doc, also }
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
    /// An integer in a range, both ends included, or a word in its place.
    IntegerOr {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
        /// The word.
        word: &'static str,
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
    /// An IPv4 or IPv6 address, or a list of different ones.
    Addresses,
    /// A list of IPv4 and IPv6 prefixes, or one.
    Prefixes,
    /// An Ethernet address.
    Mac,
    /// A port, a range of ports or `"any"`.
    Ports,
    /// A name of a service.
    Name,
    /// A name of a kernel interface.
    InterfaceName,
    /// Bytes in hexadecimal digits.
    Hex {
        /// Least bytes.
        min: usize,
        /// Most bytes.
        max: usize,
        /// What they are.
        what: &'static str,
    },
    /// An absolute path of a file.
    Path,
    /// A list of absolute paths of files, or one.
    Paths,
    /// An integer in a range that may be negative, both ends included.
    Signed {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// Seconds with decimals.
    Seconds {
        /// Least, in milliseconds.
        min: u64,
        /// Most, in milliseconds.
        max: u64,
        /// It is a multiple of this, in milliseconds.
        step: u64,
    },
    /// A list of different names, or one.
    Names,
    /// A list of different users and groups, or one.
    People {
        /// Whether `"*"` may stand for everybody.
        anyone: bool,
    },
    /// An IPv4 or IPv6 address, with or without a prefix length.
    Host,
    /// A program and its arguments: a list, or one text that is split as a shell does.
    Command,
    /// A short text of printable characters.
    Text {
        /// Most bytes.
        max: usize,
    },
    /// A password of VRRP. Never shown.
    Password,
    /// A text without control characters.
    Line {
        /// Most bytes.
        max: usize,
    },
    /// The path of a URL, with its query.
    Url,
    /// A regular expression.
    Regex,
    /// Status codes of HTTP: one, a range, or a list of these.
    Status,
    /// A table of names and texts.
    Pairs,
    /// Bytes, as a text or as hexadecimal digits.
    Payload {
        /// Most bytes.
        max: usize,
    },
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
    /// `[name]`, at most once; without it, it has its defaults.
    Once,
    /// `[name]`, at most once; without it, there is nothing.
    Maybe,
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
    /// The key whose value alone may stand in the place of the whole table.
    pub short: Option<&'static str>,
    /// Another table with the same keys, by whose section the reference page stands for this one's.
    pub like: Option<&'static str>,
    /// Names that keepalived has and this table has not, each with what to do instead.
    pub instead: &'static [(&'static str, &'static str)],
}

impl Table {
    /// A table that is there at most once, to fill in.
    const ONCE: Table = Table {
        name: "",
        form: Form::Once,
        also: &[],
        doc: "",
        keys: &[],
        tables: &[],
        short: None,
        like: None,
        instead: &[],
    };
    /// A table that can be there often, to fill in.
    const MANY: Table = Table { form: Form::Many { min: 0, max: 0 }, ..Table::ONCE };

    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The table of that name inside this one.
    pub fn table(&self, name: &str) -> Option<&'static Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Whether it is there at most once.
    pub fn is_alone(&self) -> bool {
        matches!(self.form, Form::Once | Form::Maybe)
    }

    /// Every name that can stand in this table.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.tables.iter().map(|table| table.name).chain(self.keys.iter().map(|key| key.name))
    }
}

/// I/O modes, best first, as [`crate::model::IoMode`].
pub const MODES: &[Word] = &[
    word("zero-copy", "AF_XDP, native XDP, the NIC writes straight into the engine's memory", &[]),
    word("copy", "AF_XDP, native XDP, one copy a frame", &[]),
    word("generic", "AF_XDP with generic XDP: any driver, slower", &[]),
    word("af-packet", "AF_PACKET sockets, where XDP cannot be had", &[]),
];

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
            ..Table::ONCE
        },
        Table {
            name: "timeouts",
            form: Form::Once,
            also: &["timeout"],
            doc: "Seconds without a packet after which a flow in a state is forgotten. The defaults are those of IPVS.",
            keys: TIMEOUTS,
            ..Table::ONCE
        },
        Table {
            name: "access",
            form: Form::Once,
            also: &["acl", "lists", "access_list", "access-list", "blacklist", "blocklist", "whitelist"],
            doc: "Which clients may use the services, by the prefixes that their addresses lie in: the longest one decides. \
                  Packets of the others are dropped before they cost anything, those of established flows too. A reload reads \
                  the files again.",
            keys: ACCESS,
            ..Table::ONCE
        },
        Table {
            name: "control",
            form: Form::Once,
            also: &["api"],
            doc: "The control socket, through which `evenkeel status` and `evenkeel reload` speak with the running engine.",
            keys: CONTROL,
            ..Table::ONCE
        },
        Table {
            name: "interface",
            form: Form::Many { min: 0, max: MAX_INTERFACES },
            also: &["interfaces", "nic"],
            doc: "A network interface whose packets the engine takes. One interface serves clients and servers alike \
                  (one-arm); with two or more, packets arrive on any of them and leave on the one that leads to the \
                  server. What is not for a service passes to the kernel untouched. Without any, only virtual routers with \
                  `place = \"kernel\"` can be there.",
            keys: INTERFACE,
            ..Table::ONCE
        },
        Table {
            name: "neighbor",
            form: Form::Many { min: 0, max: 65_536 },
            also: &["neighbour", "neighbors", "neighbours"],
            doc: "A fixed next hop. Normally none is needed: the kernel's route and neighbour tables say where a server \
                  is, and the engine follows them.",
            keys: NEIGHBOR,
            ..Table::ONCE
        },
        Table {
            name: "address",
            form: Form::Many { min: 0, max: 4096 },
            also: &["addresses", "gateway", "virtual_address", "virtual_ipaddress"],
            doc: "An address that the engine owns without a service, such as the gateway of the servers behind NAT: it \
                  answers ARP, neighbour discovery and ping for it. The kernel must not have it.",
            keys: ADDRESS,
            ..Table::ONCE
        },
        Table {
            name: "service",
            form: Form::Many { min: 0, max: 65_535 },
            also: &["services", "virtual_server", "virtual-server"],
            doc: "A virtual service: what clients connect to. No two services may share an address, a protocol and a port.",
            keys: SERVICE,
            tables: &[
                Table {
                    name: "server",
                    form: Form::Many { min: 0, max: 65_536 },
                    also: &["servers", "real_server", "real-server"],
                    doc: "A real server of the service, as `[[service.server]]` after its service, or as \
                          `server = [{ address = \"10.0.0.11\" }]` in it.",
                    keys: SERVER,
                    tables: &[check::SERVER_CHECK],
                    instead: health::SERVICE_INSTEAD,
                    ..Table::ONCE
                },
                check::CHECK,
                health::SORRY_SERVER,
                health::DAMPING,
                health::PASSIVE,
                Table {
                    name: "timeouts",
                    form: Form::Once,
                    also: &["timeout"],
                    doc: "The same as `[timeouts]`, for the flows of this service: as `[service.timeouts]` after its service, \
                          or as `timeouts = { tcp_established = 7200 }` in it.",
                    keys: SERVICE_TIMEOUTS,
                    ..Table::ONCE
                },
            ],
            instead: health::SERVICE_INSTEAD,
            ..Table::ONCE
        },
        vrrp::VRRP,
        vrrp::ROUTER,
        vrrp::GROUP,
        track::TRACK_SCRIPT,
        track::TRACK_FILE,
        track::TRACK_PROCESS,
        web::WEB,
    ],
    ..Table::ONCE
};

const fn integer(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max, power_of_two: false }
}

const CONTROL: &[Key] = &[
    Key {
        name: "socket",
        kind: Kind::Path,
        presence: Presence::Default("\"/run/evenkeel.sock\""),
        also: &["path"],
        doc: "Path of the Unix socket. It needs a restart to change.",
    },
    Key {
        name: "admins",
        kind: Kind::People { anyone: false },
        presence: Presence::Default("[]"),
        also: &["admin", "users", "operators"],
        doc: "Who may do everything through the socket, besides root and the user that the engine runs as: users by name or \
              number, groups as `\"@wheel\"` or `\"@10\"`. A group means its members and those whose own group it is. Names are \
              looked up in `/etc/passwd` and `/etc/group` when the file is read, so that no directory service can hold up \
              the engine: write users and groups of such a service as numbers.",
    },
    Key {
        name: "readers",
        kind: Kind::People { anyone: true },
        presence: Presence::Default("[]"),
        also: &["reader", "read_only", "viewers", "monitors"],
        doc: "Who may ask through the socket and change nothing: the same words, or `\"*\"` for everybody. With neither admins \
              nor readers the socket has mode 0660; with a single group it is that group's; else everybody can open it, and \
              the kernel's word on who it is decides.",
    },
    Key {
        name: "state",
        kind: Kind::Path,
        presence: Presence::Default("\"/var/lib/evenkeel/state.json\""),
        also: &["state_file", "server-state-file", "server_state_file"],
        doc: "Path of the file that remembers which servers are in maintenance, over restarts. It needs a restart to change.",
    },
];

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

const ADDRESS: &[Key] = &[Key {
    name: "address",
    kind: Kind::Address,
    presence: Presence::Required,
    also: &["ip", "addr", "gateway", "virtual_address"],
    doc: "The address.",
}];
