//! The keys of `[web]`. Pure.

use super::{Form, Key, Kind, Presence, Table, integer};

pub(super) const WEB: Table = Table {
    name: "web",
    form: Form::Maybe,
    also: &["http", "stats", "metrics", "prometheus", "page"],
    doc: "The web listener: `/metrics` for Prometheus, a status page, `/api` with the JSON of the control socket, `/healthz`. \
          Without this table nothing listens. A reload changes all of it, and reads the files again.",
    keys: KEYS,
    ..Table::ONCE
};

const KEYS: &[Key] = &[
    Key {
        name: "address",
        kind: Kind::Addresses,
        presence: Presence::Default("\"127.0.0.1\""),
        also: &["listen", "bind", "addresses", "host"],
        doc: "Addresses of this machine that it listens on: those of the management network, or the loopback.",
    },
    Key {
        name: "port",
        kind: integer(1, 65_535),
        presence: Presence::Default("9112"),
        also: &["listen_port"],
        doc: "The TCP port.",
    },
    Key {
        name: "certificate",
        kind: Kind::Path,
        presence: Presence::Otherwise("plain HTTP"),
        also: &["cert", "tls_certificate", "crt", "cert_file"],
        doc: "File with the certificate and its chain, PEM. With it, only TLS is spoken.",
    },
    Key {
        name: "key",
        kind: Kind::Path,
        presence: Presence::Otherwise("none; needed with `certificate`"),
        also: &["private_key", "tls_key", "key_file"],
        doc: "File with the certificate's private key, PEM.",
    },
    Key {
        name: "users",
        kind: Kind::Path,
        presence: Presence::Otherwise("everybody may see all and change nothing"),
        also: &["htpasswd", "passwd", "auth", "basic_auth", "users_file"],
        doc: "File of those who get in by password (HTTP basic authentication), as `htpasswd -B` writes it: `NAME:HASH`, a \
              line each, with bcrypt. Those who are no admins may see all and change nothing.",
    },
    Key {
        name: "admins",
        kind: Kind::Names,
        presence: Presence::Default("[]"),
        also: &["admin"],
        doc: "Names of `users` who may drain servers, change weights and do everything else that an admin of the control \
              socket may.",
    },
];
