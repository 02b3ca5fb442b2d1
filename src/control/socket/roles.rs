//! What a request asks for: an answer, or a change.
//!
//! Owns which requests only an admin may make; who is one is decided by [`crate::model::Roles`]. Pure.

use serde_json::Value;

use super::{Answer, Code, Command, Request};
use crate::model::{Peer, Role, Roles};

/// The least role that may make a request. What is not known to change nothing needs an admin.
pub fn needed(request: &Request) -> Role {
    let options = &request.options;
    let is = |key: &str, value: Value| options.get(key) == Some(&value);
    let lists = || options.get("action").is_none_or(|action| action == "list");
    let only_asks = match request.command {
        Command::Status | Command::Events | Command::Explain => true,
        Command::Flows => options.get("clear").is_none_or(|clear| *clear == Value::Bool(false)),
        Command::Persistence | Command::Server => lists(),
        Command::Reload | Command::Edit => is("dry_run", Value::Bool(true)),
        Command::Log => is("level", Value::Null) || !options.contains_key("level"),
        Command::Save | Command::Zero | Command::Capture => false,
    };
    if only_asks { Role::Reader } else { Role::Admin }
}

/// Why a request is refused, if it is. `role`: that of the client, by `roles`.
pub fn refusal(request: &Request, role: Option<Role>, peer: Peer, roles: &Roles) -> Option<Answer> {
    let needed = needed(request);
    if role.is_some_and(|role| role >= needed) {
        return None;
    }
    let name = request.command.name();
    let said = match role {
        None => format!(
            "uid {} may ask nothing of this engine; `admins` and `readers` in `[control]` say who may: name the user there, or \
             be root",
            peer.uid
        ),
        Some(_) => format!(
            "uid {} may ask, and not change anything: this `{name}` is for admins ({}); `admins` in `[control]` says who is one",
            peer.uid,
            roles.admins_in_words()
        ),
    };
    Some(Answer::refused_as(Code::Denied, said))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::socket::parse_request;

    fn request(command: &str, options: Value) -> Request {
        let line = json!({ "version": 1, "command": command, "options": options }).to_string();
        parse_request(line.as_bytes()).expect("is read")
    }

    #[test]
    fn what_changes_anything_needs_an_admin() {
        let reader = [
            ("status", json!({})),
            ("events", json!({})),
            ("events", json!({ "follow": true })),
            ("flows", json!({})),
            ("flows", json!({ "count": true, "clear": false })),
            ("persistence", json!({})),
            ("persistence", json!({ "action": "list" })),
            ("server", json!({})),
            ("server", json!({ "action": "list" })),
            ("reload", json!({ "dry_run": true })),
            ("edit", json!({ "dry_run": true, "edits": [] })),
            ("explain", json!({})),
            ("log", json!({})),
            ("log", json!({ "level": null })),
        ];
        let admin = [
            ("flows", json!({ "clear": true, "all": true })),
            ("flows", json!({ "clear": 1 })),
            ("persistence", json!({ "action": "clear" })),
            ("server", json!({ "action": "drain" })),
            ("server", json!({ "action": ["list"] })),
            ("reload", json!({})),
            ("reload", json!({ "dry_run": "yes" })),
            ("reload", json!({ "dry_run": false })),
            ("edit", json!({ "edits": [] })),
            ("save", json!({})),
            ("zero", json!({})),
            ("capture", json!({})),
            ("log", json!({ "level": "debug" })),
            ("log", json!({ "level": "info", "for_s": 60 })),
        ];
        let peer = Peer { uid: 1000, gid: 1000, pid: 7 };
        let roles = Roles::default();
        for (all, needs) in [(&reader, Role::Reader), (&admin, Role::Admin)] {
            for (command, options) in all {
                let asked = request(command, options.clone());
                assert_eq!(needed(&asked), needs, "{command} {options}");
                let of = |role| refusal(&asked, role, peer, &roles);
                assert_eq!(of(Some(Role::Admin)), None);
                assert_eq!(of(Some(Role::Reader)).is_some(), needs == Role::Admin, "{command} {options}");
                for refused in of(None).into_iter().chain(of(Some(Role::Reader))) {
                    let Answer::Refused { error, code: Code::Denied, .. } = refused else { panic!("{refused:?}") };
                    assert!(error.contains("uid 1000") && error.contains("[control]"), "{error}");
                }
            }
        }
    }

    #[test]
    fn every_command_is_thought_of() {
        // A new command is for admins until somebody says otherwise here.
        let readers = Command::ALL
            .into_iter()
            .filter(|command| needed(&Request { command: *command, options: serde_json::Map::new() }) == Role::Reader);
        let names: Vec<&str> = readers.map(|command| command.name()).collect();
        assert_eq!(names, ["status", "flows", "persistence", "server", "events", "explain", "log"]);
    }
}
