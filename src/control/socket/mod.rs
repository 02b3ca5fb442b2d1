//! The control socket: how other processes speak with the running engine.
//!
//! One JSON object a line in, one a line out, over a Unix stream: `{"version":1,"command":"status"}`. Owns the
//! protocol's words; [`server`] has the engine's side, [`client`] the commands'. Never acts on a request.

pub mod client;
pub mod server;

use serde_json::{Value, json};

use super::config::Problem;
use super::config::problem::nearest;
use super::persistence::Question;

/// Version of the protocol.
pub const VERSION: u64 = 1;

/// Longest request, in bytes, without the newline.
pub const MAX_LINE: usize = 64 * 1024;

/// What can be asked of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Everything about the state of the engine.
    Status,
    /// Read the configuration file again.
    Reload,
    /// List or clear persistent clients.
    Persistence(Question),
}

impl Command {
    /// The words of all commands.
    pub const NAMES: [&str; 3] = ["status", "reload", "persistence"];

    /// The word on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Command::Status => "status",
            Command::Reload => "reload",
            Command::Persistence(_) => "persistence",
        }
    }

    /// What is asked in detail, where a command has something to say.
    pub fn options(&self) -> Option<Value> {
        match self {
            Command::Status | Command::Reload => None,
            Command::Persistence(question) => serde_json::to_value(question).ok(),
        }
    }
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Done; the value says what.
    Done(Value),
    /// Not done.
    Refused {
        /// Why not.
        error: String,
        /// Every mistake in the configuration file, where that is why.
        problems: Vec<Problem>,
    },
}

impl Answer {
    /// A refusal without more to say.
    pub fn refused(error: impl Into<String>) -> Answer {
        Answer::Refused { error: error.into(), problems: Vec::new() }
    }

    /// The line that goes to the client, newline included.
    pub fn line(&self) -> Vec<u8> {
        let value = match self {
            Answer::Done(value) => json!({ "version": VERSION, "ok": true, "answer": value }),
            Answer::Refused { error, problems } => {
                json!({ "version": VERSION, "ok": false, "error": error, "problems": problems })
            }
        };
        let mut line = value.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

/// What a client sent, cut to what a sentence can hold.
fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Reads a request, or says what is wrong with it.
pub fn parse_request(line: &[u8]) -> Result<Command, String> {
    let expected = "expected one JSON object on a line, such as {\"version\":1,\"command\":\"status\"}";
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON ({error}); {expected}"))?;
    let Value::Object(object) = value else { return Err(format!("not an object; {expected}")) };
    match object.get("version") {
        Some(version) if version.as_u64() == Some(VERSION) => {}
        Some(version) => {
            let version = shortened(&version.to_string());
            return Err(format!("version {version} is not spoken here; this engine speaks {VERSION}"));
        }
        None => return Err(format!("`version` is missing; {expected}")),
    }
    let names = Command::NAMES;
    if let Some(key) = object.keys().find(|key| !matches!(key.as_str(), "version" | "command" | "options")) {
        return Err(format!("unknown key {:?}; {expected}", shortened(key)));
    }
    let Some(name) = object.get("command").and_then(Value::as_str) else {
        return Err(format!("`command` is missing or no text; it is one of {}", names.join(", ")));
    };
    let options = object.get("options").filter(|options| !options.is_null());
    let plain = |command: Command| match options {
        None => Ok(command),
        Some(_) => Err(format!("the command `{name}` takes no `options`")),
    };
    match name {
        "status" => plain(Command::Status),
        "reload" => plain(Command::Reload),
        "persistence" => detailed(name, options).map(Command::Persistence),
        _ => {
            let near = nearest(name, names).map(|word| format!("did you mean `{word}`? "));
            let shown = shortened(name);
            Err(format!("unknown command {shown:?}; {}it is one of {}", near.unwrap_or_default(), names.join(", ")))
        }
    }
}

/// A command's options; without any, those that it has by itself.
fn detailed<T: serde::de::DeserializeOwned + Default>(name: &str, options: Option<&Value>) -> Result<T, String> {
    let Some(options) = options else { return Ok(T::default()) };
    serde_json::from_value(options.clone()).map_err(|error| {
        let why: String = error.to_string().chars().take(300).collect();
        format!("`options` of the command `{name}`: {why}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::persistence::Action;

    #[test]
    fn requests_are_read_or_explained() {
        assert_eq!(parse_request(br#"{"version":1,"command":"status"}"#), Ok(Command::Status));
        assert_eq!(parse_request(br#" {"command":"reload","version":1} "#), Ok(Command::Reload));
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
            (br#"{"version":1,"command":"status","options":{}}"#, "takes no `options`"),
            (br#"{"version":1,"command":"persistence","options":7}"#, "`options` of the command"),
            (br#"{"version":1,"command":"persistence","options":{"servce":"web"}}"#, "unknown field `servce`"),
        ] {
            let error = parse_request(line).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let asked = br#"{"version":1,"command":"persistence","options":{"action":"clear","client":"10.0.0.0/8"}}"#;
        let question = Question { action: Action::Clear, client: Some("10.0.0.0/8".to_owned()), ..Question::default() };
        assert_eq!(parse_request(asked), Ok(Command::Persistence(question.clone())));
        let command = Command::Persistence(question);
        let written = json!({ "version": VERSION, "command": command.name(), "options": command.options() });
        assert_eq!(parse_request(written.to_string().as_bytes()), Ok(command));
        assert_eq!(
            parse_request(br#"{"version":1,"command":"persistence"}"#),
            Ok(Command::Persistence(Question::default()))
        );
        // A fuzzer's find: what was sent came back whole, however long.
        for word in [
            "{\"version\":1,\"KEY\":0}",
            "{\"version\":\"KEY\"}",
            "{\"version\":1,\"command\":\"KEY\"}",
            "{\"version\":1,\"command\":\"persistence\",\"options\":{\"KEY\":1}}",
        ] {
            let error = parse_request(word.replace("KEY", &"\u{1}".repeat(5000)).as_bytes()).unwrap_err();
            assert!(error.len() < 1000, "{} bytes", error.len());
            let error = parse_request(word.replace("KEY", &"x".repeat(5000)).as_bytes()).unwrap_err();
            assert!(error.len() < 1000, "{} bytes", error.len());
        }
    }
}
