//! What the results of checks mean to a service: its tables `sorry_server`, `damping`, `passive`, and the words for what other
//! programs have. Pure.

use super::vrrp::seconds;
use super::{Form, Key, Kind, Presence, Table, Word, integer, word};

/// A day, in milliseconds.
const DAY: u64 = 86_400_000;

/// What becomes of a server whose checks fail.
pub(super) const ON_FAILURE: &[Word] = &[
    word(
        "remove",
        "it is out: no new flows, `flows_of_down` decides about those it has, and persistent clients leave it",
        &["down", "out", "delete"],
    ),
    word(
        "inhibit",
        "its weight becomes 0: no new flows, those it has and persistent clients stay",
        &["weight-0", "weight0", "inhibit_on_failure", "quiesce", "drain"],
    ),
];

pub(super) const SORRY_SERVER: Table = Table {
    name: "sorry_server",
    form: Form::Maybe,
    also: &["backup", "fallback", "backup_server"],
    doc: "The server that serves in the place of all others while the service has lost its quorum. It is not checked.",
    keys: &[
        Key {
            name: "address",
            kind: Kind::Address,
            presence: Presence::Required,
            also: &["ip", "addr", "host"],
            doc: "Its own address, as that of a server.",
        },
        Key {
            name: "port",
            kind: integer(1, 65_535),
            presence: Presence::Otherwise("the port of the service"),
            also: &[],
            doc: "Its port, where the methods `nat` and `full-nat` change it.",
        },
        Key {
            name: "method",
            kind: Kind::Word(super::service::METHODS, None),
            presence: Presence::Otherwise("the `method` of the service"),
            also: &["sorry_server_lvs_method", "lb_kind", "lvs_method", "forwarding"],
            doc: "How packets reach it.",
        },
    ],
    short: Some("address"),
    instead: &[("sorry_server_inhibit", "its flows meet `flows_of_down` when the quorum is found again")],
    ..Table::ONCE
};

pub(super) const DAMPING: Table = Table {
    name: "damping",
    form: Form::Maybe,
    also: &["flap_damping", "flap", "dampening"],
    doc: "A server that fails too often is held out for a while, whatever its checks say then.",
    keys: &[
        Key {
            name: "failures",
            kind: integer(2, 1000),
            presence: Presence::Default("3"),
            also: &["flaps", "count", "error_limit"],
            doc: "Failures (changes from usable to not) that are too often.",
        },
        Key {
            name: "window",
            kind: seconds(1000, DAY, 1),
            presence: Presence::Default("60"),
            also: &["within", "period"],
            doc: "Seconds within which they are counted.",
        },
        Key {
            name: "hold",
            kind: seconds(1000, DAY, 1),
            presence: Presence::Default("300"),
            also: &["suppress", "penalty"],
            doc: "Seconds after the last failure for which the server is held out.",
        },
    ],
    ..Table::ONCE
};

pub(super) const PASSIVE: Table = Table {
    name: "passive",
    form: Form::Maybe,
    also: &["outlier_detection", "observe", "passive_check"],
    doc: "NAT and full NAT: servers are judged by what their clients' packets meet, too. A server that resets connections before they \
          are established, or leaves SYNs without an answer, is put out for a while.",
    keys: &[
        Key {
            name: "failures_percent",
            kind: integer(1, 100),
            presence: Presence::Default("50"),
            also: &["failure_percentage_threshold", "threshold"],
            doc: "Least share of a server's new flows that failed, in percent, for it to be an outlier.",
        },
        Key {
            name: "least",
            kind: integer(1, 1_000_000),
            presence: Presence::Default("10"),
            also: &["minimum", "request_volume", "min_flows"],
            doc: "Least number of new flows of a server in a window for a judgement.",
        },
        Key {
            name: "window",
            kind: seconds(1000, 3_600_000, 1),
            presence: Presence::Default("10"),
            also: &["interval"],
            doc: "Seconds that are counted.",
        },
        Key {
            name: "eject",
            kind: seconds(1000, DAY, 1),
            presence: Presence::Default("30"),
            also: &["ejection_time", "base_ejection_time"],
            doc: "Seconds for which an outlier is out; twice as long the next time, and so on up to ten times.",
        },
        Key {
            name: "most_percent",
            kind: integer(1, 100),
            presence: Presence::Default("50"),
            also: &["max_ejection_percent"],
            doc: "Most of the service's servers that are out by this at a time, in percent. One always stays.",
        },
    ],
    ..Table::ONCE
};

/// What keepalived writes in a `virtual_server`, besides keys of the same meaning elsewhere.
pub(super) const SERVICE_INSTEAD: &[(&str, &str)] = &[
    ("delay_loop", "write `interval` in `[[service.check]]`"),
    ("connect_timeout", "write `timeout` in `[[service.check]]`"),
    ("retry", "write `retries` in `[[service.check]]`"),
    ("delay_before_retry", "write `retry_delay` in `[[service.check]]`"),
    ("alpha", "write `first_state = \"down\"` in `[[service.check]]`"),
    ("omega", "at the end of the program its service addresses end, too: nothing is to be told to servers"),
    ("inhibit_on_failure", "write `on_failure = \"inhibit\"`"),
    ("sorry_server_inhibit", "the sorry server's flows meet `flows_of_down` when the quorum is found again"),
    ("sorry_server_lvs_method", "write `sorry_server = { address = \"...\", method = \"...\" }`"),
    ("ha_suspend", "checks run on the backup too, so that it is ready when it becomes master"),
    ("virtualhost", "write `host` in `[[service.check]]`"),
    ("http_get", "write `[[service.check]]` with `type = \"http\"`"),
    ("ssl_get", "write `[[service.check]]` with `type = \"https\"`"),
    ("tcp_check", "write `[[service.check]]` with `type = \"tcp\"`"),
    ("udp_check", "write `[[service.check]]` with `type = \"udp\"`"),
    ("dns_check", "write `[[service.check]]` with `type = \"dns\"`"),
    ("ping_check", "write `[[service.check]]` with `type = \"ping\"`"),
    ("smtp_check", "write `[[service.check]]` with `type = \"smtp\"`"),
    ("misc_check", "write `[[service.check]]` with `type = \"script\"`"),
    ("file_check", "write `[[service.check]]` with `type = \"file\"`"),
    ("bfd_check", "not in this version: a check of `type = \"ping\"` each 0.1 s comes near to it"),
    ("smtp_alert", "not in this version: write `notify_up` and `notify_down` of a server"),
];
