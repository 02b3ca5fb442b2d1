//! The control socket: how other processes speak with the running engine.
//!
//! One JSON object a line in, one a line out, over a Unix stream: `{"version":1,"command":"status"}`, with `options` where
//! a command has any. Owns the protocol's words; [`server`] has the engine's side, [`client`] the commands', [`roles`] who may ask for what.
//! Never acts on a request.

pub mod client;
pub mod roles;
pub mod server;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::Problem;
use super::config::problem::nearest;
use super::naming::cut;

/// Version of the protocol.
pub const VERSION: u64 = 1;

/// Longest request, in bytes, without the newline.
pub const MAX_LINE: usize = 64 * 1024;

/// Longest request of an admin: many edits at once.
pub const MAX_ADMIN_LINE: usize = 1024 * 1024;

/// What can be asked of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The state of the engine, whole or in parts.
    Status,
    /// Read the configuration file again, or say what that would change.
    Reload,
    /// List, count or end flows.
    Flows,
    /// List or clear persistent clients.
    Persistence,
    /// List servers, drain them, put them in maintenance or back.
    Server,
    /// What happened to servers and services.
    Events,
    /// Change services and servers.
    Edit,
    /// Write what was changed to the configuration file.
    Save,
    /// Counters of services and servers start from zero.
    Zero,
    /// Say where a client's packet would go, and why.
    Explain,
    /// Catch frames by what became of them.
    Capture,
    /// Show or change what is logged.
    Log,
}

impl Command {
    /// All commands.
    pub const ALL: [Command; 12] = [
        Command::Status,
        Command::Reload,
        Command::Flows,
        Command::Persistence,
        Command::Server,
        Command::Events,
        Command::Edit,
        Command::Save,
        Command::Zero,
        Command::Explain,
        Command::Capture,
        Command::Log,
    ];

    /// The word on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Command::Status => "status",
            Command::Reload => "reload",
            Command::Flows => "flows",
            Command::Persistence => "persistence",
            Command::Server => "server",
            Command::Events => "events",
            Command::Edit => "edit",
            Command::Save => "save",
            Command::Zero => "zero",
            Command::Explain => "explain",
            Command::Capture => "capture",
            Command::Log => "log",
        }
    }

    /// Names of the options that it takes.
    pub const fn options(self) -> &'static [&'static str] {
        match self {
            Command::Status => super::status::parts::OPTIONS,
            Command::Reload => &["dry_run"],
            Command::Flows => super::flows::OPTIONS,
            Command::Persistence => super::persistence::OPTIONS,
            Command::Server => super::health::admin::OPTIONS,
            Command::Events => super::health::events::OPTIONS,
            Command::Edit => super::edit::OPTIONS,
            Command::Save => super::edit::save::OPTIONS,
            Command::Zero => super::counters::OPTIONS,
            Command::Explain => super::explain::OPTIONS,
            Command::Capture => super::capture::OPTIONS,
            Command::Log => super::log::OPTIONS,
        }
    }
}

/// Why the engine refuses, for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request, or what it asks for, is wrong in itself.
    #[default]
    Invalid,
    /// The client may not ask for this.
    Denied,
    /// There is no such service.
    NoService,
    /// There is no such server.
    NoServer,
    /// There is such a service already.
    ServiceExists,
    /// There is such a server already.
    ServerExists,
    /// The machine refuses: a file, memory, the kernel.
    Failed,
}

/// What a client asks. What the options mean is the command's affair; their names are known to be its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The command.
    pub command: Command,
    /// Its options.
    pub options: Map<String, Value>,
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Done; the value says what.
    Done(Value),
    /// Done; the value says what, and is written as JSON already, for it can be large.
    Written(String),
    /// Not done.
    Refused {
        /// Why not.
        error: String,
        /// What sort of refusal it is.
        code: Code,
        /// Every mistake in the configuration file, where that is why.
        problems: Vec<Problem>,
    },
}

impl Answer {
    /// A refusal without more to say.
    pub fn refused(error: impl Into<String>) -> Answer {
        Answer::refused_as(Code::Invalid, error)
    }

    /// A refusal of some sort without more to say.
    pub fn refused_as(code: Code, error: impl Into<String>) -> Answer {
        Answer::Refused { error: error.into(), code, problems: Vec::new() }
    }

    /// The line that goes to the client, newline included.
    pub fn line(&self) -> Vec<u8> {
        let value = match self {
            Answer::Written(text) => {
                return format!("{{\"answer\":{text},\"ok\":true,\"version\":{VERSION}}}\n").into_bytes();
            }
            Answer::Done(value) => json!({ "version": VERSION, "ok": true, "answer": value }),
            Answer::Refused { error, code, problems } => {
                json!({ "version": VERSION, "ok": false, "error": error, "code": code, "problems": problems })
            }
        };
        let mut line = value.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

/// Reads a request, or says what is wrong with it.
pub fn parse_request(line: &[u8]) -> Result<Request, String> {
    let expected = "expected one JSON object on a line, such as {\"version\":1,\"command\":\"status\"}";
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON ({error}); {expected}"))?;
    let Value::Object(mut object) = value else { return Err(format!("not an object; {expected}")) };
    match object.get("version") {
        Some(version) if version.as_u64() == Some(VERSION) => {}
        Some(version) => {
            let version = cut(&version.to_string());
            return Err(format!("version {version} is not spoken here; this engine speaks {VERSION}"));
        }
        None => return Err(format!("`version` is missing; {expected}")),
    }
    let names: Vec<&str> = Command::ALL.iter().map(|command| command.name()).collect();
    if let Some(key) = object.keys().find(|key| !matches!(key.as_str(), "version" | "command" | "options")) {
        return Err(format!("unknown key {:?}; {expected}", cut(key)));
    }
    let Some(name) = object.get("command").and_then(Value::as_str) else {
        return Err(format!("`command` is missing or no text; it is one of {}", names.join(", ")));
    };
    let command = Command::ALL.into_iter().find(|command| command.name() == name).ok_or_else(|| {
        let near = nearest(name, names.iter().copied()).map(|word| format!("did you mean `{word}`? "));
        let shown = cut(name);
        format!("unknown command {shown:?}; {}it is one of {}", near.unwrap_or_default(), names.join(", "))
    })?;
    let options = match object.remove("options") {
        None => Map::new(),
        Some(Value::Object(options)) => options,
        Some(_) => return Err("`options` is no object; leave it out, or give each option by its name".to_owned()),
    };
    let known = command.options();
    if let Some(key) = options.keys().find(|key| !known.contains(&key.as_str())) {
        let near = nearest(key, known.iter().copied()).map(|word| format!("did you mean `{word}`? "));
        let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let (shown, near) = (cut(key), near.unwrap_or_default());
        return Err(format!("unknown option {shown:?}; {near}`{}` takes {takes}", command.name()));
    }
    Ok(Request { command, options })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::persistence::{Action, Question};

    #[test]
    fn requests_are_read_or_explained() {
        let plain = |command| Ok(Request { command, options: Map::new() });
        assert_eq!(parse_request(br#"{"version":1,"command":"status"}"#), plain(Command::Status));
        assert_eq!(parse_request(br#" {"command":"reload","version":1} "#), plain(Command::Reload));
        assert_eq!(parse_request(br#"{"version":1,"command":"status","options":{}}"#), plain(Command::Status));
        let flows = parse_request(br#"{"version":1,"command":"flows","options":{"limit":7}}"#).expect("is read");
        assert_eq!((flows.command, flows.options.get("limit")), (Command::Flows, Some(&json!(7))));
        for (line, part) in [
            (&b""[..], "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b"[]", "not an object"),
            (b"{}", "`version` is missing"),
            (br#"{"version":2,"command":"status"}"#, "version 2"),
            (br#"{"version":1}"#, "`command` is missing"),
            (br#"{"version":1,"command":7}"#, "`command` is missing"),
            (br#"{"version":1,"command":"statsu"}"#, "did you mean `status`?"),
            (br#"{"version":1,"command":"status","x":1}"#, "unknown key \"x\""),
            (br#"{"version":1,"command":"status","options":[]}"#, "`options` is no object"),
            (br#"{"version":1,"command":"status","options":{"limit":1}}"#, "`status` takes parts, service, server"),
            (br#"{"version":1,"command":"status","options":{"part":[]}}"#, "did you mean `parts`?"),
            (br#"{"version":1,"command":"flows","options":{"limmit":1}}"#, "did you mean `limit`?"),
            (br#"{"version":1,"command":"persistence","options":{"servce":"web"}}"#, "did you mean `service`?"),
            (br#"{"version":1,"command":"server","options":{"actoin":"drain"}}"#, "did you mean `action`?"),
            (br#"{"version":1,"command":"events","options":{"folow":true}}"#, "did you mean `follow`?"),
        ] {
            let error = parse_request(line).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let asked = br#"{"version":1,"command":"persistence","options":{"action":"clear","client":"10.0.0.0/8"}}"#;
        let question = Question { action: Action::Clear, client: Some("10.0.0.0/8".to_owned()), ..Question::default() };
        let request = parse_request(asked).expect("is read");
        assert_eq!((request.command, Question::read(&request.options)), (Command::Persistence, Ok(question)));
        let short = parse_request(br#"{"version":1,"command":"persistence"}"#).expect("is read");
        assert_eq!(Question::read(&short.options), Ok(Question::default()));
        // A fuzzer's find: what was sent came back whole, however long.
        for word in [
            "{\"version\":1,\"KEY\":0}",
            "{\"version\":\"KEY\"}",
            "{\"version\":1,\"command\":\"KEY\"}",
            "{\"version\":1,\"command\":\"flows\",\"options\":{\"KEY\":0}}",
            "{\"version\":1,\"command\":\"persistence\",\"options\":{\"KEY\":1}}",
        ] {
            let error = parse_request(word.replace("KEY", &"\u{1}".repeat(5000)).as_bytes()).unwrap_err();
            assert!(error.len() < 1000, "{} bytes", error.len());
            let error = parse_request(word.replace("KEY", &"x".repeat(5000)).as_bytes()).unwrap_err();
            assert!(error.len() < 1000, "{} bytes", error.len());
        }
    }
}
