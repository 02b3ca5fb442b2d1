//! Changes of services and servers while the engine runs: what can be said, and what it does to the configuration's text.
//!
//! The running configuration is a text: that of the file, with what commands changed since. An edit changes the text, the text
//! is read as the file would be, and so every rule and every sentence about a mistake is the same; `evenkeel save` writes it to
//! the file. Owns the words of an edit. Never changes the data plane.

pub mod client;
pub mod document;
pub mod running;
pub mod save;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::Problem;
use super::naming::misread;
use super::socket::Code;
pub use document::Document;
pub use running::Running;

/// The options of the command `edit` on the control socket.
pub const OPTIONS: &[&str] = &["edits", "dry_run"];

/// Most edits in one request: all of them are in force together, or none is.
pub const MOST_EDITS: usize = 1000;

/// Edits that the log names.
const SHOWN: usize = 10;

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

/// Why an edit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct EditError {
    /// What sort of refusal it is.
    pub code: Code,
    /// The sentence.
    pub text: String,
}

impl EditError {
    /// A refusal.
    pub fn new(code: Code, text: impl Into<String>) -> EditError {
        EditError { code, text: text.into() }
    }
}

/// A request to change something.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What, in this order.
    pub edits: Vec<Edit>,
    /// Only say what it would change.
    #[serde(default)]
    pub dry_run: bool,
}

impl Question {
    /// A question as it came over the control socket.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(options: &Map<String, Value>) -> Result<Question, String> {
        let question: Question =
            serde_json::from_value(Value::Object(options.clone())).map_err(|error| misread("edit", &error))?;
        match question.edits.len() {
            0 => Err("`edits` is empty; expected at least one change".to_owned()),
            1..=MOST_EDITS => Ok(question),
            many => Err(format!("{many} edits; at most {MOST_EDITS} are made together")),
        }
    }
}

/// Makes changes in a text. The text as it is then.
///
/// # Errors
/// [`EditError`] of the first that cannot be made, with its number where there are several; the document is of no more use.
pub fn apply(document: &mut Document, edits: &[Edit]) -> Result<String, EditError> {
    for (number, edit) in edits.iter().enumerate() {
        document.apply(edit).map_err(|error| match edits.len() {
            1 => error,
            _ => EditError::new(error.code, format!("edit {}: {}", number + 1, error.text)),
        })?;
    }
    Ok(document.text())
}

/// What is wrong with a text that an edit made, for who made the edit and never saw the text: without its lines.
pub fn explain<'p>(problems: impl IntoIterator<Item = &'p Problem>) -> String {
    let sentence = |problem: &Problem| {
        let mut said = format!("{}: {}", problem.key, problem.message);
        if let Some(expected) = &problem.expected {
            said.push_str(&format!("; expected {expected}"));
        }
        match (&problem.suggestion, &problem.help) {
            (Some(word), _) => said.push_str(&format!("; did you mean `{word}`?")),
            (None, Some(help)) => said.push_str(&format!("; {help}")),
            (None, None) => {}
        }
        said
    };
    problems.into_iter().map(sentence).collect::<Vec<_>>().join("\n")
}

/// Edits for the log.
pub fn summary(edits: &[Edit]) -> String {
    let sentence = |edit: &Edit| {
        let keys = |keys: &Map<String, Value>| Value::Object(keys.clone()).to_string();
        let of = |service: &Option<String>| service.as_ref().map_or(String::new(), |name| format!(" of {name}"));
        match edit {
            Edit::AddService { keys: given } => format!("service added {}", keys(given)),
            Edit::EditService { service, keys: given } => format!("service {service} {}", keys(given)),
            Edit::RemoveService { service } => format!("service {service} removed"),
            Edit::RemoveServices {} => "all services removed".to_owned(),
            Edit::AddServer { service, keys: given } => format!("server of {service} added {}", keys(given)),
            Edit::EditServer { service, server, keys: given } => {
                format!("server {server}{} {}", of(service), keys(given))
            }
            Edit::RemoveServer { service, server } => format!("server {server}{} removed", of(service)),
            Edit::EditTable { table, keys: given } => format!("{table} {}", keys(given)),
        }
    };
    let mut said: String = edits.iter().take(SHOWN).map(sentence).collect::<Vec<_>>().join("; ");
    if edits.len() > SHOWN {
        said.push_str(&format!("; and {} more", edits.len() - SHOWN));
    }
    said.chars().filter(|sign| !sign.is_control()).take(2000).collect()
}
