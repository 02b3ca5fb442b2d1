//! The keys of `[access]`. Pure.

use super::{Key, Kind, Presence, word};

pub(super) const ACCESS: &[Key] = &[
    Key {
        name: "default",
        kind: Kind::Word(
            &[
                word("allow", "they may use the services", &["accept", "permit", "pass"]),
                word("deny", "their packets are dropped", &["drop", "reject", "block"]),
            ],
            None,
        ),
        presence: Presence::Default("\"allow\""),
        also: &["policy"],
        doc: "What becomes of clients in no prefix of the lists.",
    },
    Key {
        name: "deny",
        kind: Kind::Prefixes,
        presence: Presence::Default("[]"),
        also: &["blacklist", "blocklist", "denylist", "drop", "block", "reject"],
        doc: "Clients whose packets are dropped.",
    },
    Key {
        name: "allow",
        kind: Kind::Prefixes,
        presence: Presence::Default("[]"),
        also: &["whitelist", "allowlist", "permit", "accept"],
        doc: "Clients that may use the services.",
    },
    Key {
        name: "deny_files",
        kind: Kind::Paths,
        presence: Presence::Default("[]"),
        also: &["deny_file", "blacklist_file", "blocklist_file"],
        doc: "Files with more of `deny`: one prefix or address a line; what follows `#` or `;` is a comment.",
    },
    Key {
        name: "allow_files",
        kind: Kind::Paths,
        presence: Presence::Default("[]"),
        also: &["allow_file", "whitelist_file", "allowlist_file"],
        doc: "Files with more of `allow`, in the same form.",
    },
];
