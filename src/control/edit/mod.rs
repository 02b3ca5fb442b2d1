//! Changes of services and servers while the engine runs: what can be said, and what it does to the configuration's text.
//!
//! The running configuration is a text: that of the file, with what commands changed since. An edit changes the text, the text
//! is read as the file would be, and so every rule and every sentence about a mistake is the same; `evenkeel save` writes it to
//! the file. Owns the words of an edit. Never changes the data plane. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The options of the command `edit` on the control socket.
pub const OPTIONS: &[&str] = &["edits", "dry_run"];

/// Most edits in one request: all of them are in force together, or none is.
pub const MOST_EDITS: usize = 1000;

/// One change. A *service* is named by its name, or as `PROTOCOL ADDRESS:PORT` (`tcp 192.0.2.10:80`, `udp [2001:db8::1]:53`,
/// the port as in the file: a range, or `any`). A *server* is named by `ADDRESS:PORT`, or by `ADDRESS` where only one server
/// of the service has it. Keys and values are those of the configuration file; `null` takes a key away, a table is merged with
/// the one that is there, and a list of tables replaces the one that is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Edit {
    /// A service that was not there; `keys` may have its servers, as `server`.
    AddService {
        /// Keys of `[[service]]`.
        keys: Map<String, Value>,
    },
    /// Other keys for a service.
    EditService {
        /// The service.
        service: String,
        /// Keys of `[[service]]`.
        keys: Map<String, Value>,
    },
    /// A service goes, and its servers with it.
    RemoveService {
        /// The service.
        service: String,
    },
    /// All services go.
    RemoveServices {},
    /// A server that was not there.
    AddServer {
        /// Its service.
        service: String,
        /// Keys of `[[service.server]]`.
        keys: Map<String, Value>,
    },
    /// Other keys for a server.
    EditServer {
        /// Its service; absent: every service that has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// The server.
        server: String,
        /// Keys of `[[service.server]]`.
        keys: Map<String, Value>,
    },
    /// A server goes.
    RemoveServer {
        /// Its service; absent: every service that has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// The server.
        server: String,
    },
    /// Other keys for a table that is there once, such as `timeouts`.
    EditTable {
        /// Its name.
        table: String,
        /// Its keys.
        keys: Map<String, Value>,
    },
}
