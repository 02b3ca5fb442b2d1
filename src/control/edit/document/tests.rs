//! Edits of texts: what they change, what they leave, and what they refuse.

use serde_json::json;

use super::*;
use crate::control::config;
use crate::control::edit::{Question, apply};

const TEXT: &str = "\
# The pair in rack 4.
[engine]
cores = [1]

[[interface]]
name = \"eth0\"   # ten gigabit

# ---- web ----

# The shop.
[[service]]
name = \"web\"   # asked for by Ann
address = \"192.0.2.10\"
port = 80
scheduler = \"wrr\"  # since May

[[service.server]]
address = \"10.0.0.11\"
weight = 3 # new box

[[service.server]]
address = \"10.0.0.12\"

# ---- names ----

[[service]]
address = \"192.0.2.10\"
protocol = \"udp\"
port = 53
server = [ { address = \"10.0.0.21\" }, { address = \"10.0.0.22\", weight = 2 } ]  # caches

# The end.
";

/// The text after edits; it is always a configuration.
fn after(text: &str, edits: serde_json::Value) -> Result<String, EditError> {
    let options = json!({ "edits": edits });
    let question = Question::read(options.as_object().expect("an object")).expect("is understood");
    let mut document = Document::read(text).expect("is TOML");
    let text = apply(&mut document, &question.edits)?;
    let outcome = config::parse(&text, 1);
    assert!(outcome.desired.is_some(), "{text}\n{:?}", outcome.problems);
    // What it knows of the new text is what another finds in it.
    let again = Document::read(&text).expect("is TOML");
    assert_eq!(format!("{:?}", document.services), format!("{:?}", again.services));
    Ok(text)
}

fn refused(edits: serde_json::Value) -> (Code, String) {
    let error = after(TEXT, edits).expect_err("is refused");
    (error.code, error.text)
}

/// The lines that differ.
fn difference(text: &str) -> Vec<String> {
    let (before, after): (Vec<&str>, Vec<&str>) = (TEXT.lines().collect(), text.lines().collect());
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("-{line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+{line}"));
    gone.chain(new).collect()
}

#[test]
fn a_text_that_nobody_edits_stays_as_it_is() {
    assert_eq!(Document::read(TEXT).expect("is TOML").text(), TEXT);
}

#[test]
fn values_change_and_comments_stay() {
    let text = after(
        TEXT,
        json!([
            { "do": "edit-service", "service": "web", "keys": { "scheduler": "wlc" } },
            { "do": "edit-server", "service": "web", "server": "10.0.0.11:80", "keys": { "weight": 5 } },
            { "do": "edit-server", "server": "10.0.0.22", "keys": { "weight": 7 } },
            { "do": "edit-service", "service": "udp 192.0.2.10:53", "keys": { "persistence": 60 } },
        ]),
    );
    let expected = [
        "-scheduler = \"wrr\"  # since May",
        "-weight = 3 # new box",
        "-server = [ { address = \"10.0.0.21\" }, { address = \"10.0.0.22\", weight = 2 } ]  # caches",
        "+scheduler = \"wlc\"  # since May",
        "+weight = 5 # new box",
        "+server = [ { address = \"10.0.0.21\" }, { address = \"10.0.0.22\", weight = 7 } ]  # caches",
        "+persistence = 60",
    ];
    assert_eq!(difference(&text.expect("is made")), expected);
}

#[test]
fn what_is_new_stands_where_it_belongs() {
    let text = after(
        TEXT,
        json!([
            { "do": "add-server", "service": "web", "keys": { "address": "10.0.0.13", "weight": 2 } },
            { "do": "add-server", "service": "192.0.2.10:53/udp", "keys": { "address": "10.0.0.23" } },
            { "do": "add-service", "keys": { "address": "192.0.2.11", "port": 443, "persistence": 300,
                "server": [{ "address": "10.0.0.31" }], "check": [{ "type": "tcp", "interval": 5 }] } },
            { "do": "add-server", "service": "tcp 192.0.2.11:443", "keys": { "address": "10.0.0.32" } },
            { "do": "edit-table", "table": "timeouts", "keys": { "udp": 30 } },
        ]),
    )
    .expect("is made");
    let desired = config::parse(&text, 1).desired.expect("is sound");
    let servers = |at: usize| desired.services[at].servers.iter().map(|s| s.address.to_string()).collect::<Vec<_>>();
    assert_eq!(servers(0), ["10.0.0.11", "10.0.0.12", "10.0.0.13"]);
    assert_eq!(servers(1), ["10.0.0.21", "10.0.0.22", "10.0.0.23"]);
    assert_eq!(servers(2), ["10.0.0.31", "10.0.0.32"]);
    assert_eq!(desired.services[2].persistence.as_ref().map(|p| p.seconds), Some(300));
    let new = "[[service]]\naddress = \"192.0.2.11\"\nport = 443\npersistence = 300\n";
    assert!(text.contains(new), "keys are in the order of the reference:\n{text}");
    for line in TEXT.lines().filter(|line| !line.contains("10.0.0.21")) {
        assert!(text.contains(line), "{line:?} is in\n{text}");
    }
}

#[test]
fn what_goes_takes_its_own_comments_with_it_and_no_others() {
    let text = after(TEXT, json!([{ "do": "remove-service", "service": "web" }])).expect("is made");
    assert!(text.contains("# ---- web ----") && !text.contains("# The shop."), "{text}");
    let text = after(
        TEXT,
        json!([{ "do": "remove-server", "server": "10.0.0.12" }, { "do": "remove-server", "service": "web", "server": "10.0.0.11" }]),
    );
    let desired = config::parse(&text.expect("is made"), 1).desired.expect("is sound");
    assert_eq!(desired.services[0].servers.len(), 0);
    let text = after(TEXT, json!([{ "do": "remove-services" }])).expect("is made");
    for comment in ["# The pair in rack 4.", "# ten gigabit", "# ---- web ----", "# ---- names ----", "# The end."] {
        assert!(text.contains(comment), "{comment} is in\n{text}");
    }
    assert!(config::parse(&text, 1).desired.expect("is sound").services.is_empty());
}

#[test]
fn all_services_go_and_come_again() {
    let text = after(TEXT, json!([{ "do": "remove-services" }])).expect("is made");
    let text = after(
        &text,
        json!([{ "do": "add-service", "keys": { "address": "192.0.2.10", "port": 80 } },
               { "do": "add-server", "service": "tcp 192.0.2.10:80", "keys": { "address": "10.0.0.11" } }]),
    );
    assert_eq!(config::parse(&text.expect("is made"), 1).desired.expect("is sound").services.len(), 1);
}

#[test]
fn keys_go() {
    let text = after(
        TEXT,
        json!([{ "do": "edit-service", "service": "web", "keys": { "scheduler": null, "nothing": null } }]),
    );
    assert_eq!(difference(&text.expect("is made")), ["-scheduler = \"wrr\"  # since May"]);
}

#[test]
fn refusals_name_what_was_meant() {
    for (edits, code, part) in [
        (json!([{ "do": "remove-service", "service": "wbe" }]), Code::NoService, "did you mean `web`?"),
        (
            json!([{ "do": "remove-server", "server": "10.0.0.99" }]),
            Code::NoServer,
            "no server 10.0.0.99 in any service",
        ),
        (
            json!([{ "do": "remove-server", "service": "web", "server": "10.0.0.21" }]),
            Code::NoServer,
            "in the service `web`",
        ),
        (json!([{ "do": "remove-server", "server": "ten" }]), Code::Invalid, "expected an address"),
        (
            json!([{ "do": "add-service", "keys": { "address": "192.0.2.10", "port": 80 } }]),
            Code::ServiceExists,
            "there is a service tcp 192.0.2.10:80 already: `web`",
        ),
        (
            json!([{ "do": "add-service", "keys": { "address": "192.0.2.99", "port": 80, "name": "web" } }]),
            Code::ServiceExists,
            "`web` already",
        ),
        (
            json!([{ "do": "edit-service", "service": "web", "keys": { "protocol": "udp", "port": 53 } }]),
            Code::ServiceExists,
            "has already",
        ),
        (
            json!([{ "do": "add-server", "service": "web", "keys": { "address": "10.0.0.12", "port": 80 } }]),
            Code::ServerExists,
            "has the server 10.0.0.12:80 already",
        ),
        (json!([{ "do": "edit-table", "table": "timeout", "keys": {} }]), Code::Invalid, "did you mean `timeouts`?"),
        (
            json!([{ "do": "edit-table", "table": "timeouts", "keys": { "udp": [null] } }]),
            Code::Invalid,
            "null inside a list",
        ),
        (
            json!([{ "do": "edit-table", "table": "timeouts", "keys": {} }, { "do": "remove-service", "service": "x" }]),
            Code::NoService,
            "edit 2: there is no service `x`",
        ),
    ] {
        let (got, text) = refused(edits);
        assert!(got == code && text.contains(part), "{got:?} {text}");
    }
    let options = json!({ "edits": [] });
    assert!(Question::read(options.as_object().expect("an object")).is_err_and(|why| why.contains("empty")));
}
