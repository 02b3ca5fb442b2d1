//! The tables of health checks: `[[service.check]]` and its requests. Pure.

use super::vrrp::seconds;
use super::{Form, Key, Kind, Presence, Table, Word, integer, word};

/// Most checks of one server.
const MOST_CHECKS: usize = 16;
/// Most requests of one check.
const MOST_REQUESTS: usize = 32;
/// Most bytes of a datagram that is sent or wanted: what fits the smallest packet that IPv6 may carry.
const MOST_PAYLOAD: usize = 1232;
/// Most bytes of a text.
const MOST_TEXT: usize = 1024;
/// A day, in milliseconds.
const DAY: u64 = 86_400_000;

/// Types, as [`crate::model::CheckKind::name`], and `none`.
const TYPES: &[Word] = &[
    word(
        "tcp",
        "a TCP connection comes about; it is reset at once, so that neither side keeps it",
        &["tcp_check", "connect"],
    ),
    word(
        "tcp-half-open",
        "a SYN is answered by a SYN-ACK, and no connection comes about: no server's log has it",
        &["half-open", "halfopen", "syn"],
    ),
    word("http", "requests are answered as wanted", &["http_get", "httpchk", "option httpchk"]),
    word("https", "the same over TLS", &["ssl_get", "ssl", "tls", "ssl-hello-chk"]),
    word("dns", "a query is answered as wanted", &["dns_check"]),
    word("udp", "a datagram is answered as wanted, or at least not refused by ICMP", &["udp_check"]),
    word("ping", "an ICMP echo is answered", &["ping_check", "icmp", "echo"]),
    word("smtp", "an SMTP server greets and takes `HELO`", &["smtp_check", "smtpchk", "mail"]),
    word("script", "a program ends with exit code 0", &["misc_check", "misc", "external", "exec", "external-check"]),
    word("file", "a number in a file, times `weight`, is added to the server's weight", &["file_check", "track_file"]),
    word("grpc", "`grpc.health.v1.Health/Check` says SERVING", &["grpc_check"]),
    word("none", "no check: the server is usable as long as it can be reached", &["off", "no", "disabled"]),
];

const METHODS: &[Word] = &[word("GET", "with the body", &[]), word("HEAD", "without", &[]), word("OPTIONS", "", &[])];

/// Record types, as hickory-proto names them.
const RECORDS: &[Word] = &[
    word("A", "an IPv4 address", &[]),
    word("AAAA", "an IPv6 address", &[]),
    word("CAA", "who may issue certificates", &[]),
    word("CNAME", "an alias", &[]),
    word("DNSKEY", "a key", &[]),
    word("MX", "a mail server", &[]),
    word("NS", "a name server", &[]),
    word("PTR", "a name", &[]),
    word("RRSIG", "a signature", &[]),
    word("SOA", "the start of a zone", &[]),
    word("SRV", "a service", &[]),
    word("TXT", "a text", &[]),
];

/// Response codes (RFC 1035, RFC 2136), as hickory-proto names them.
const CODES: &[Word] = &[
    word("NOERROR", "no error", &["0"]),
    word("FORMERR", "the query was not understood", &["1"]),
    word("SERVFAIL", "the server failed", &["2"]),
    word("NXDOMAIN", "there is no such name", &["3"]),
    word("NOTIMP", "not implemented", &["4"]),
    word("REFUSED", "the server does not want to", &["5"]),
    word("YXDOMAIN", "a name that should not be there", &["6"]),
    word("YXRRSET", "records that should not be there", &["7"]),
    word("NXRRSET", "records are missing", &["8"]),
    word("NOTAUTH", "the server has no authority", &["9"]),
    word("NOTZONE", "another zone", &["10"]),
];

pub(super) const CHECK: Table = Table {
    name: "check",
    form: Form::Many { min: 0, max: MOST_CHECKS },
    also: &["checks", "health_check", "health-check", "healthcheck", "health", "checker", "monitor"],
    doc: "A health check. All checks of a server must be good. Without one there is the usual one: for TCP, where the port is known, \
          a connection; else a ping. `check = \"none\"` has none. Equal checks of the same server in several services run once.",
    keys: CHECK_KEYS,
    tables: &[Table {
        name: "request",
        form: Form::Many { min: 0, max: MOST_REQUESTS },
        also: &["requests", "urls"],
        doc: "http and https: one of several requests, in the place of the keys of the same names in the check. Each must be \
              answered as wanted, one after the other.",
        keys: REQUEST,
        short: Some("url"),
        ..Table::MANY
    }],
    short: Some("type"),
    instead: &[
        ("alpha", "write `first_state = \"down\"`"),
        ("ssl", "write `type = \"https\"`"),
        ("sni", "write `tls_name = \"NAME\"`, the name for SNI"),
        ("enable_sni", "write `tls_name = \"NAME\"`, the name for SNI"),
        ("min_reply_length", "not in this version: write `reply`, with what the answer must begin"),
        ("max_reply_length", "not in this version: write `reply`, with what the answer must begin"),
        ("log_all_failures", "each failure is seen in `evenkeel status`, and each change is in the log"),
        ("fwmark", "write `path = \"service\"` to go the way of clients; others need no mark"),
        ("bind_if", "write `source`, an address of that interface"),
        ("bind_port", "the kernel takes a free one"),
    ],
    ..Table::MANY
};

/// A check inside a server: the same.
pub(super) const SERVER_CHECK: Table = Table {
    doc: "A health check of this server, in the same form as `[[service.check]]`. With one or more, those of the service are not \
          for this server; `check = \"none\"` has none.",
    like: Some("[[service.check]]"),
    ..CHECK
};

const URL: Key = Key {
    name: "url",
    kind: Kind::Url,
    presence: Presence::Default("\"/\""),
    also: &["uri", "urls", "request_path"],
    doc: "http, https: path with its query, from `/`.",
};

const METHOD: Key = Key {
    name: "method",
    kind: Kind::Word(METHODS, None),
    presence: Presence::Default("\"GET\""),
    also: &["verb", "meth"],
    doc: "http, https: method of the request.",
};

const HOST: Key = Key {
    name: "host",
    kind: Kind::Line { max: 253 },
    presence: Presence::Otherwise("the address"),
    also: &["virtualhost", "vhost"],
    doc: "http, https: the `Host` that is asked for.",
};

const STATUS: Key = Key {
    name: "status",
    kind: Kind::Status,
    presence: Presence::Default("\"200-299\""),
    also: &["status_code", "codes", "expect_status", "expected_codes"],
    doc: "http, https: status codes that are good.",
};

const BODY: Key = Key {
    name: "body",
    kind: Kind::Line { max: MOST_TEXT },
    presence: Presence::Otherwise("any"),
    also: &["string", "expect", "contains"],
    doc: "http, https: a text that the body must have.",
};

const REGEX: Key = Key {
    name: "regex",
    kind: Kind::Regex,
    presence: Presence::Otherwise("any"),
    also: &["rstring", "regexp", "match"],
    doc: "http, https: a regular expression that the body must match somewhere, in the syntax of Rust's regex crate, which is \
          Perl's without look-around and back references.",
};

const NOT_REGEX: Key = Key {
    name: "not_regex",
    kind: Kind::Regex,
    presence: Presence::Otherwise("any"),
    also: &["regex_no_match", "rstring_not"],
    doc: "http, https: a regular expression that the body must not match.",
};

const DIGEST: Key = Key {
    name: "digest",
    kind: Kind::Hex { min: 16, max: 16, what: "an MD5 digest" },
    presence: Presence::Otherwise("any"),
    also: &["md5"],
    doc: "http, https: MD5 of the body, as keepalived's `genhash` prints it.",
};

const HEADERS: Key = Key {
    name: "headers",
    kind: Kind::Pairs,
    presence: Presence::Otherwise("none"),
    also: &["header", "hdr"],
    doc: "http, https: further header lines of the request.",
};

const REQUEST: &[Key] = &[
    Key { presence: Presence::Required, doc: "Path with its query, from `/`.", ..URL },
    METHOD,
    HOST,
    STATUS,
    BODY,
    REGEX,
    NOT_REGEX,
    DIGEST,
    HEADERS,
];

const CHECK_KEYS: &[Key] = &[
    Key {
        name: "type",
        kind: Kind::Word(TYPES, None),
        presence: Presence::Required,
        also: &["kind", "check", "protocol"],
        doc: "What is asked. Keys below that begin with types are for these alone.",
    },
    Key {
        name: "interval",
        kind: seconds(100, DAY, 1),
        presence: Presence::Default("2"),
        also: &["delay_loop", "inter", "period", "every"],
        doc: "Seconds from the start of a run to that of the next.",
    },
    Key {
        name: "timeout",
        kind: seconds(10, 3_600_000, 1),
        presence: Presence::Otherwise("`interval`, 5 at most"),
        also: &["connect_timeout", "misc_timeout", "timeout_check"],
        doc: "Seconds that one attempt may take, from its start to the last byte that is wanted.",
    },
    Key {
        name: "rise",
        kind: integer(1, 65_535),
        presence: Presence::Default("2"),
        also: &["healthy_threshold"],
        doc: "Good runs in a row that make a failing check good. Its very first result alone decides.",
    },
    Key {
        name: "fall",
        kind: integer(1, 65_535),
        presence: Presence::Default("3"),
        also: &["unhealthy_threshold"],
        doc: "Failed runs in a row that make a good check failing: after `interval` times this, and `timeout`, at worst.",
    },
    Key {
        name: "retries",
        kind: integer(0, 100),
        presence: Presence::Default("0"),
        also: &["retry", "nb_get_retry", "nb_get_retries"],
        doc: "Further attempts within a run before it has failed.",
    },
    Key {
        name: "retry_delay",
        kind: seconds(0, 3_600_000, 1),
        presence: Presence::Default("1"),
        also: &["delay_before_retry"],
        doc: "Seconds from a failed attempt to the next one.",
    },
    Key {
        name: "jitter",
        kind: seconds(0, DAY, 1),
        presence: Presence::Otherwise("a tenth of `interval`"),
        also: &["spread"],
        doc: "Each interval is shorter by a random part of these seconds, so that checks never march in step.",
    },
    Key {
        name: "warmup",
        kind: seconds(0, DAY, 1),
        presence: Presence::Otherwise("`interval`"),
        also: &["warm_up", "start_delay"],
        doc: "Seconds within which the first run is, at a random moment.",
    },
    Key {
        name: "first_state",
        kind: Kind::Word(
            &[
                word("up", "good until it fails", &["in", "good", "unverified"]),
                word("down", "failing until it is proven", &["alpha", "out", "bad"]),
            ],
            None,
        ),
        presence: Presence::Default("\"up\""),
        also: &["initial_state", "init_state", "starts"],
        doc: "What the check is taken for until its first result. At a server that was judged before, a check that a reload brings is taken \
              for what the server was.",
    },
    Key {
        name: "address",
        kind: Kind::Address,
        presence: Presence::Otherwise("that of the server; with `path = \"service\"` that of the service"),
        also: &["connect_ip", "addr", "ip"],
        doc: "The address that is asked.",
    },
    Key {
        name: "port",
        kind: integer(1, 65_535),
        presence: Presence::Otherwise(
            "that of the server, else that of the service; an error if that is no single one",
        ),
        also: &["connect_port"],
        doc: "The port that is asked.",
    },
    Key {
        name: "source",
        kind: Kind::Address,
        presence: Presence::Otherwise("that of the route"),
        also: &["bindto", "source_address", "bind"],
        doc: "The appliance's address from which is asked.",
    },
    Key {
        name: "path",
        kind: Kind::Word(
            &[
                word("server", "to the server's own address", &["direct"]),
                word(
                    "service",
                    "to the address of the service on that very server, as clients' packets go: by `dr`, `ipip`, `gue` or \
                     `gre`, and with the types tcp, http, https, dns and udp; a server that lacks the address, or whose \
                     program is bound to another one, is found out",
                    &["vip", "virtual"],
                ),
            ],
            None,
        ),
        presence: Presence::Default("\"server\""),
        also: &["via", "through"],
        doc: "Which way the packets go.",
    },
    URL,
    METHOD,
    HOST,
    STATUS,
    BODY,
    REGEX,
    NOT_REGEX,
    DIGEST,
    HEADERS,
    Key {
        name: "version",
        kind: Kind::Word(
            &[word("1.0", "as keepalived without it", &["1.0c"]), word("1.1", "with a `Host`", &[])],
            None,
        ),
        presence: Presence::Default("\"1.1\""),
        also: &["http_protocol", "http_version"],
        doc: "http, https: version of HTTP.",
    },
    Key {
        name: "tls",
        kind: Kind::Boolean,
        presence: Presence::Default("false"),
        also: &["check-ssl"],
        doc: "grpc: whether it is over TLS.",
    },
    Key {
        name: "tls_name",
        kind: Kind::Line { max: 253 },
        presence: Presence::Otherwise("none is sent, and a certificate must be for the address"),
        also: &["server_name", "check-sni"],
        doc: "https, grpc: the name for SNI, and the one that a certificate must have.",
    },
    Key {
        name: "tls_verify",
        kind: Kind::Boolean,
        presence: Presence::Default("false"),
        also: &["verify", "tls_verification"],
        doc: "https, grpc: whether a certificate that is not valid is a failure. keepalived never looks at it.",
    },
    Key {
        name: "tls_ca",
        kind: Kind::Path,
        presence: Presence::Otherwise("the authorities that the system trusts"),
        also: &["ca", "ca_file", "ca-file", "cafile"],
        doc: "https, grpc: PEM file of the authorities that are trusted, for `tls_verify`.",
    },
    Key {
        name: "tls_expiry_days",
        kind: integer(0, 3650),
        presence: Presence::Default("30"),
        also: &["expiry_days", "expiry"],
        doc: "https, grpc: days before the certificate ends from which on there is a warning, verified or not; 0: never.",
    },
    Key {
        name: "name",
        kind: Kind::Line { max: 254 },
        presence: Presence::Default("\".\""),
        also: &["query", "dns_name", "domain"],
        doc: "dns: name that is asked for; `.` is the root.",
    },
    Key {
        name: "record",
        kind: Kind::Word(RECORDS, None),
        presence: Presence::Default("\"SOA\""),
        also: &["record_type", "query_type", "qtype"],
        doc: "dns: type that is asked for.",
    },
    Key {
        name: "codes",
        kind: Kind::WordOrWords { words: CODES, all: "any" },
        presence: Presence::Default("[\"NOERROR\"]"),
        also: &["rcode", "rcodes", "code"],
        doc: "dns: response codes that are good; `\"any\"`: every answer is.",
    },
    Key {
        name: "answer",
        kind: Kind::Boolean,
        presence: Presence::Default("false"),
        also: &["require_answer"],
        doc: "dns: whether the answer section must have a record of the type.",
    },
    Key {
        name: "transport",
        kind: Kind::Word(&[word("udp", "over UDP", &[]), word("tcp", "over TCP", &[])], None),
        presence: Presence::Default("\"udp\""),
        also: &["over"],
        doc: "dns: how the query is sent.",
    },
    Key {
        name: "payload",
        kind: Kind::Payload { max: MOST_PAYLOAD },
        presence: Presence::Otherwise("an empty datagram"),
        also: &["send"],
        doc: "udp: what is sent.",
    },
    Key {
        name: "reply",
        kind: Kind::Payload { max: MOST_PAYLOAD },
        presence: Presence::Otherwise("any"),
        also: &["receive"],
        doc: "udp: with what the reply must begin.",
    },
    Key {
        name: "require_reply",
        kind: Kind::Boolean,
        presence: Presence::Otherwise("`true` with `reply`, else `false`"),
        also: &["reply_required"],
        doc: "udp: whether a reply must come; without, only an ICMP error is a failure.",
    },
    Key {
        name: "helo",
        kind: Kind::Line { max: 253 },
        presence: Presence::Default("\"localhost\""),
        also: &["helo_name", "hello"],
        doc: "smtp: name that is said in `HELO`.",
    },
    Key {
        name: "command",
        kind: Kind::Command,
        presence: Presence::Otherwise("an error with `type = \"script\"`"),
        also: &["misc_path", "script", "exec", "program", "external-check command"],
        doc: "script: the program and its arguments. No shell looks at them. It gets `EVENKEEL_ADDRESS` and `EVENKEEL_PORT`.",
    },
    Key {
        name: "environment",
        kind: Kind::Pairs,
        presence: Presence::Otherwise("none"),
        also: &["env"],
        doc: "script: environment besides `PATH` and what the check tells.",
    },
    Key {
        name: "user",
        kind: Kind::Name,
        presence: Presence::Otherwise("the `script_user` of the service"),
        also: &["uid", "run_as"],
        doc: "script: user that it runs as.",
    },
    Key {
        name: "dynamic",
        kind: Kind::Boolean,
        presence: Presence::Default("false"),
        also: &["misc_dynamic"],
        doc: "script: whether exit codes from 2 on are good, and set the server's weight to the code less 2.",
    },
    Key {
        name: "file",
        kind: Kind::Path,
        presence: Presence::Otherwise("an error with `type = \"file\"`"),
        also: &["track_file", "filename"],
        doc: "file: the file.",
    },
    Key {
        name: "weight",
        kind: Kind::Signed { min: -253, max: 253 },
        presence: Presence::Default("1"),
        also: &[],
        doc: "file: by what the number is multiplied; 0: every number but 0 is a failure.",
    },
    Key {
        name: "service",
        kind: Kind::Line { max: 253 },
        presence: Presence::Otherwise("the whole server"),
        also: &["grpc_service"],
        doc: "grpc: name of the service that is asked for.",
    },
    Key {
        name: "authority",
        kind: Kind::Line { max: 253 },
        presence: Presence::Otherwise("the address"),
        also: &[":authority"],
        doc: "grpc: the `:authority` of the request.",
    },
];
