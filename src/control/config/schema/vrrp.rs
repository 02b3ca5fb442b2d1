//! The tables and keys of VRRP: `[vrrp]`, `[[virtual_router]]` and `[[sync_group]]`. Pure.

use super::track::{INTERFACE_TRACK, TRACK, track};
use super::{Form, Key, Kind, Presence, Table, integer, word};
use crate::model::MOST_ROUTERS;

/// Most addresses that an advert counts (its count is a byte).
pub const MOST_ADDRESSES: usize = 255;

pub(super) const fn seconds(min: u64, max: u64, step: u64) -> Kind {
    Kind::Seconds { min, max, step }
}

pub(super) const VRRP: Table = Table {
    name: "vrrp",
    also: &["vrrp_globals", "ha"],
    doc: "What all virtual routers share.",
    keys: &[
        Key {
            name: "fifo",
            kind: Kind::Path,
            presence: Presence::Otherwise("none"),
            also: &["vrrp_notify_fifo", "notify_fifo"],
            doc: "A FIFO that gets a line for each change of a router or a group, in keepalived's form. It is made where it is \
                  not there.",
        },
        Key {
            name: "realtime",
            kind: integer(0, 99),
            presence: Presence::Default("50"),
            also: &["vrrp_rt_priority", "rt_priority", "vrrp_priority"],
            doc: "Real-time priority (SCHED_FIFO) of the thread that sends and hears the adverts, where the system permits it; \
                  0: none.",
        },
        Key {
            name: "stall",
            kind: seconds(0, 3_600_000, 1),
            presence: Presence::Default("1"),
            also: &["stall_timeout", "watchdog"],
            doc: "Seconds without a turn after which a worker counts as stalled, for `track_engine`; 0: never.",
        },
        Key {
            name: "handover",
            kind: seconds(0, 60_000, 1),
            presence: Presence::Default("2"),
            also: &["handover_timeout"],
            doc: "Seconds that a master which is told to stop goes on to forward while no successor has spoken up, at most.",
        },
        Key {
            name: "notify_user",
            kind: Kind::Name,
            presence: Presence::Otherwise("that of Evenkeel itself"),
            also: &["script_user"],
            doc: "User that the `notify` programs run as.",
        },
    ],
    instead: &[
        ("vrrp_version", "write `version` in each `[[virtual_router]]`"),
        ("vrrp_garp_master_delay", "write `announce_delay` in each `[[virtual_router]]`"),
        ("vrrp_garp_master_repeat", "write `announce_repeat` in each `[[virtual_router]]`"),
        ("vrrp_garp_master_refresh", "write `announce_refresh` in each `[[virtual_router]]`"),
        ("vrrp_garp_master_refresh_repeat", "write `announce_refresh_repeat` in each `[[virtual_router]]`"),
        ("vrrp_mcast_group4", "adverts go to 224.0.0.18, as the RFCs say; for others write `peers`"),
        ("vrrp_mcast_group6", "adverts go to ff02::12, as the RFCs say; for others write `peers`"),
        ("vrrp_check_unicast_src", "adverts of anybody but the `peers` are always refused"),
        ("vrrp_strict", "there is no such mode: what does not fit together is refused anyway"),
        ("enable_script_security", "name the user of programs: `notify_user`, and `user` of a `[[track_script]]`"),
    ],
    ..Table::ONCE
};

pub(super) const ROUTER: Table = Table {
    name: "virtual_router",
    form: Form::Many { min: 0, max: MOST_ROUTERS },
    also: &["vrrp_instance", "virtual_routers", "vrrp_router", "vrrp_instances"],
    doc: "A virtual router: addresses of which one appliance of several is master, found out by VRRP. The defaults are \
          keepalived's.",
    keys: ROUTER_KEYS,
    tables: &[
        Table {
            name: "address",
            form: Form::Many { min: 1, max: MOST_ADDRESSES },
            also: &["addresses", "virtual_ipaddress", "virtual_address", "vip", "ip"],
            doc: "Its addresses, in the order in which adverts list them: texts such as `address = [\"192.0.2.10/24\"]`, or \
                  tables. All are of one family; for IPv6 a link-local one comes first.",
            short: Some("address"),
            keys: ADDRESS,
            ..Table::MANY
        },
        Table {
            name: "excluded",
            form: Form::Many { min: 0, max: 4096 },
            also: &["virtual_ipaddress_excluded", "excluded_address", "excluded_addresses"],
            doc: "Addresses of any family that go with them without being in the adverts, in the same forms.",
            short: Some("address"),
            keys: ADDRESS,
            ..Table::MANY
        },
        track(
            "track_interface",
            &["track_interfaces"],
            "Interfaces of the kernel that must be up and have a carrier: names, or tables. The router's own is always tracked.",
            INTERFACE_TRACK,
        ),
        track("track_script", &["track_scripts"], "Names of a `[[track_script]]`, or tables.", TRACK),
        track("track_file", &["track_files"], "Names of a `[[track_file]]`, or tables.", TRACK),
        track("track_process", &["track_processes"], "Names of a `[[track_process]]`, or tables.", TRACK),
        track(
            "track_service",
            &["track_services"],
            "Names of a `[[service]]` that must have its quorum of usable servers, or tables. Without a weight the router is in \
             fault while one has not.",
            TRACK,
        ),
    ],
    instead: &[
        ("nopreempt", "write `preempt = false`"),
        ("no_accept", "write `accept = false`"),
        ("strict_mode", "there is no such mode: what does not fit together is refused anyway"),
        ("authentication", "write `password = \"...\"` for `auth_type PASS`; AH is not in this version"),
        ("auth_type", "write `password = \"...\"` for `PASS`; AH is not in this version"),
        ("native_ipv6", "the family is that of the addresses"),
        ("smtp_alert", "no mail is sent: write `notify` with a program that does"),
        ("virtual_routes", "not in this version: put them on by a program under `notify_master`"),
        ("virtual_rules", "not in this version: put them on by a program under `notify_master`"),
        ("lvs_sync_daemon_interface", "not in this version: connections are not copied to the other appliance"),
        ("dont_track_primary", "not in this version: without its interface a router cannot be master"),
        ("track_bfd", "not in this version: write `track_script`, or a shorter `interval`"),
        ("linkbeat_use_polling", "not needed: the kernel tells of each change at once"),
        ("skip_check_adv_addr", "not needed: adverts with other addresses are taken, and reported once"),
        ("vmac_xmit_base", "not in this version: with `virtual_mac` adverts have that address"),
        ("garp_lower_prio_delay", "not in this version: after a losing advert a master announces as a new one does"),
        ("garp_lower_prio_repeat", "not in this version: after a losing advert a master announces as a new one does"),
        ("debug", "write `RUST_LOG=debug` in the environment"),
    ],
    ..Table::MANY
};

pub(super) const GROUP: Table = Table {
    name: "sync_group",
    form: Form::Many { min: 0, max: 512 },
    also: &["vrrp_sync_group", "sync_groups", "vrrp_group"],
    doc: "Virtual routers that are master together or not at all, such as those of the clients' and of the servers' side.",
    keys: &[
        NAME_OF_GROUP,
        Key {
            name: "routers",
            kind: Kind::Names,
            presence: Presence::Required,
            also: &["group", "members", "instances", "router", "virtual_router"],
            doc: "Names of two or more `[[virtual_router]]`, each in no other group.",
        },
        Key {
            name: "track_engine",
            kind: Kind::Boolean,
            presence: Presence::Default("false"),
            also: &[],
            doc: "Whether all routers of the group are in fault while a worker of the engine is stalled.",
        },
        NOTIFY_MASTER,
        NOTIFY_BACKUP,
        NOTIFY_FAULT,
        NOTIFY_STOP,
        NOTIFY,
    ],
    tables: &[
        track(
            "track_interface",
            &["track_interfaces"],
            "What each router of the group tracks besides its own: interfaces of the kernel.",
            INTERFACE_TRACK,
        ),
        track("track_script", &["track_scripts"], "The same: names of a `[[track_script]]`, or tables.", TRACK),
        track("track_file", &["track_files"], "The same: names of a `[[track_file]]`, or tables.", TRACK),
        track("track_process", &["track_processes"], "The same: names of a `[[track_process]]`, or tables.", TRACK),
        track("track_service", &["track_services"], "The same: names of a `[[service]]`, or tables.", TRACK),
    ],
    instead: &[
        ("global_tracking", "not needed: what a group tracks holds for each of its routers"),
        ("sync_group_tracking_weight", "not needed: weights in a group are obeyed"),
        ("smtp_alert", "no mail is sent: write `notify` with a program that does"),
    ],
    ..Table::MANY
};

const ADDRESS: &[Key] = &[
    Key {
        name: "address",
        kind: Kind::Host,
        presence: Presence::Required,
        also: &["ip", "addr"],
        doc: "The address, with the length of its network's prefix for `place = \"kernel\"`; without one, a host's.",
    },
    Key {
        name: "device",
        kind: Kind::InterfaceName,
        presence: Presence::Otherwise("the router's interface"),
        also: &["dev", "interface"],
        doc: "For `place = \"kernel\"`: the interface to put it on.",
    },
    Key {
        name: "label",
        kind: Kind::Text { max: 15 },
        presence: Presence::Otherwise("none"),
        also: &[],
        doc: "For `place = \"kernel\"` and IPv4: the kernel's label for it, such as `\"eth0:1\"`.",
    },
];

const NAME_OF_GROUP: Key = Key {
    name: "name",
    kind: Kind::Name,
    presence: Presence::Required,
    also: &[],
    doc: "Its name in logs, status and for `notify` programs; no other group has it.",
};

macro_rules! notify {
    ($($constant:ident = $name:literal: $doc:literal;)*) => {
        $(const $constant: Key = Key {
            name: $name,
            kind: Kind::Command,
            presence: Presence::Otherwise("none"),
            also: &[],
            doc: $doc,
        };)*
    };
}

notify! {
    NOTIFY_MASTER = "notify_master": "A program to run when it becomes master. After its own arguments it gets keepalived's: \
                                      `INSTANCE` or `GROUP`, the name, the state, the priority.";
    NOTIFY_BACKUP = "notify_backup": "The same, when it becomes backup.";
    NOTIFY_FAULT = "notify_fault": "The same, when it comes into fault.";
    NOTIFY_STOP = "notify_stop": "The same, when Evenkeel ends.";
    NOTIFY = "notify": "The same, at each of those.";
}

const ROUTER_KEYS: &[Key] = &[
    Key {
        name: "name",
        kind: Kind::Name,
        presence: Presence::Required,
        also: &[],
        doc: "Its name in logs, status and for `notify` programs; no other router has it.",
    },
    Key {
        name: "interface",
        kind: Kind::InterfaceName,
        presence: Presence::Required,
        also: &["device", "dev"],
        doc: "The kernel's name of the interface for adverts and announcements. With `place = \"engine\"` one of \
              `[[interface]]`, or a VLAN on one, such as `eth0.100`.",
    },
    Key {
        name: "vrid",
        kind: integer(1, 255),
        presence: Presence::Required,
        also: &["virtual_router_id", "router_id", "id"],
        doc: "Number of the router, the same on all its appliances and on no other router of the segment.",
    },
    Key {
        name: "version",
        kind: Kind::OneOf(&[2, 3]),
        presence: Presence::Otherwise("2; 3 for IPv6"),
        also: &["vrrp_version"],
        doc: "Version of the protocol, the same on all its appliances.",
    },
    Key {
        name: "priority",
        kind: integer(1, 255),
        presence: Presence::Otherwise("100; with `state = \"master\"` an error"),
        also: &["prio"],
        doc: "The appliance with the highest one is master. 255 is for the one that has the addresses as its own.",
    },
    Key {
        name: "state",
        kind: Kind::Word(
            &[
                word("backup", "it waits for the adverts of a master first", &["slave", "standby", "init"]),
                word(
                    "master",
                    "it is meant to be the master; as with keepalived it listens first all the same, unless its priority is 255",
                    &["active", "primary"],
                ),
            ],
            None,
        ),
        presence: Presence::Otherwise("`\"backup\"`; `\"master\"` with priority 255"),
        also: &["initial_state", "init_state"],
        doc: "How it begins. The priorities alone decide how it goes on.",
    },
    Key {
        name: "interval",
        kind: seconds(10, 255_000, 10),
        presence: Presence::Default("1"),
        also: &["advert_int", "advertisement_interval", "adver_int"],
        doc: "Seconds between adverts: whole ones with version 2, the same on all appliances; hundredths up to 40.95 with \
              version 3. A backup takes over about three times as long after the last advert.",
    },
    Key {
        name: "place",
        kind: Kind::Word(
            &[
                word(
                    "engine",
                    "the engine answers for the addresses, and the kernel must not have them",
                    &["evenkeel"],
                ),
                word("kernel", "on an interface of the kernel, for programs on this machine", &["host", "system"]),
            ],
            None,
        ),
        presence: Presence::Default("\"engine\""),
        also: &[],
        doc: "Where the addresses are while this appliance is master.",
    },
    Key {
        name: "password",
        kind: Kind::Password,
        presence: Presence::Otherwise("none"),
        also: &["auth_pass", "auth", "pass", "secret"],
        doc: "For version 2: the password in the adverts, for anyone on the segment to read (`auth_type PASS`).",
    },
    Key {
        name: "checksum",
        kind: Kind::Word(
            &[
                word("pseudo-header", "the addresses of the packet, too: RFC 5798, keepalived", &["rfc5798"]),
                word("message", "the message only: RFC 9568, `v3_checksum_as_v2`", &["rfc9568", "v2"]),
            ],
            None,
        ),
        presence: Presence::Default("\"pseudo-header\""),
        also: &["v3_checksum_as_v2"],
        doc: "For version 3 over IPv4: what the checksum of sent adverts covers. Both are taken from others.",
    },
    Key {
        name: "source",
        kind: Kind::Address,
        presence: Presence::Otherwise("the interface's first address; for IPv6 its link-local one"),
        also: &["unicast_src_ip", "mcast_src_ip", "src_ip", "source_address"],
        doc: "Source address of the adverts.",
    },
    Key {
        name: "peers",
        kind: Kind::Addresses,
        presence: Presence::Otherwise("adverts go to the group address"),
        also: &["unicast_peer", "unicast_peers", "peer"],
        doc: "The other appliances: adverts go to each of them in the place of the group address, and those of anybody else are \
              refused.",
    },
    Key {
        name: "peers_min_ttl",
        kind: integer(0, 255),
        presence: Presence::Otherwise("any; 0 with `peers_max_ttl`"),
        also: &["min_ttl", "unicast_ttl"],
        doc: "Least TTL or hop limit of a peer's advert. 255: it passed no router.",
    },
    Key {
        name: "peers_max_ttl",
        kind: integer(0, 255),
        presence: Presence::Otherwise("any; 255 with `peers_min_ttl`"),
        also: &["max_ttl"],
        doc: "Most TTL or hop limit of a peer's advert.",
    },
    Key {
        name: "preempt",
        kind: Kind::Boolean,
        presence: Presence::Default("true"),
        also: &[],
        doc: "Whether it takes over from a master with a lower priority. Without that, whoever is master stays it.",
    },
    Key {
        name: "preempt_delay",
        kind: seconds(0, 1_000_000, 1),
        presence: Presence::Default("0"),
        also: &[],
        doc: "Seconds after its start, or after a fault, that it lets such a master be.",
    },
    Key {
        name: "down_adverts",
        kind: integer(1, 100),
        presence: Presence::Default("3"),
        also: &["down_timer_adverts"],
        doc: "Intervals without an advert after which a master is taken to be gone.",
    },
    Key {
        name: "accept",
        kind: Kind::Boolean,
        presence: Presence::Default("true"),
        also: &["accept_mode"],
        doc: "Whether the addresses answer ping. ARP and neighbour discovery are answered anyway, and services serve.",
    },
    Key {
        name: "virtual_mac",
        kind: Kind::Boolean,
        presence: Presence::Default("false"),
        also: &["use_vmac", "vmac"],
        doc: "Whether the addresses are behind the virtual MAC of the RFCs, in the place of the interface's own.",
    },
    Key {
        name: "announce_repeat",
        kind: integer(1, 100),
        presence: Presence::Default("5"),
        also: &["garp_master_repeat"],
        doc: "Gratuitous ARPs, or unsolicited neighbour advertisements, for each address in one round of a new master.",
    },
    Key {
        name: "announce_delay",
        kind: seconds(0, 86_400_000, 1),
        presence: Presence::Default("5"),
        also: &["garp_master_delay", "garp_delay"],
        doc: "Seconds until a second round after the one at once; 0: none.",
    },
    Key {
        name: "announce_refresh",
        kind: seconds(0, 86_400_000, 1),
        presence: Presence::Default("0"),
        also: &["garp_master_refresh"],
        doc: "Seconds between later rounds; 0: none.",
    },
    Key {
        name: "announce_refresh_repeat",
        kind: integer(1, 100),
        presence: Presence::Default("1"),
        also: &["garp_master_refresh_repeat"],
        doc: "Announcements for each address in one of those.",
    },
    Key {
        name: "track_engine",
        kind: Kind::Boolean,
        presence: Presence::Otherwise("`true` with `place = \"engine\"`, else `false`"),
        also: &[],
        doc: "Whether it is in fault while a worker of the engine is stalled.",
    },
    NOTIFY_MASTER,
    NOTIFY_BACKUP,
    NOTIFY_FAULT,
    NOTIFY_STOP,
    NOTIFY,
];
