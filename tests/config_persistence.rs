//! Persistence in the configuration file: what does not fit is refused with its place, and what is sound arrives whole.

use evenkeel::control::config::{Problem, parse, render};
use evenkeel::model::{Desired, PersistBy, Persistence};

fn sound(text: &str) -> Desired {
    let outcome = parse(text, 0);
    assert!(outcome.problems.is_empty(), "{text}: {:#?}", outcome.problems);
    outcome.desired.unwrap()
}

fn only_error(text: &str) -> Problem {
    let outcome = parse(text, 0);
    let errors: Vec<&Problem> = outcome.errors().collect();
    assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
    assert!(outcome.desired.is_none());
    errors[0].clone()
}

const HEAD: &str = "[[interface]]\nname = \"eth0\"\n";

/// A service with two servers, each with more to say.
fn service(address: &str, port: u16, lines: &str, server: [&str; 2]) -> String {
    let family = if address.contains(':') { "2001:db8:1::" } else { "10.0.0." };
    format!(
        "[[service]]\naddress = \"{address}\"\nport = {port}\n{lines}\nserver = [\n{{ address = \"{family}1\"{} }},\n\
         {{ address = \"{family}2\"{} }}]\n",
        server[0], server[1]
    )
}

fn one(lines: &str) -> String {
    HEAD.to_owned() + &service("192.0.2.10", 80, lines, ["", ""])
}

fn quic(lines: &str, ids: [&str; 2]) -> String {
    let servers = ids.map(|id| if id.is_empty() { String::new() } else { format!(", quic_id = \"{id}\"") });
    let lines = format!("protocol = \"udp\"\npersistence_by = \"quic-server-id\"\n{lines}");
    HEAD.to_owned() + &service("192.0.2.10", 443, &lines, [&servers[0], &servers[1]])
}

fn group(first: &str, second: &str) -> String {
    let member = |port, lines: &str| service("192.0.2.10", port, &format!("group = \"shop\"\n{lines}"), ["", ""]);
    HEAD.to_owned() + &member(80, first) + &member(443, second)
}

#[test]
fn persistence_arrives() {
    let plain =
        Persistence { by: PersistBy::Client, seconds: 300, prefix_v4: 32, prefix_v6: 128, leave_drained: false };
    let of = |text: &str| {
        let desired = sound(text);
        assert_eq!(parse(&render::render(&desired), 0).desired.as_ref(), Some(&desired));
        desired.services[0].persistence.clone()
    };
    assert_eq!(of(&one("")), None);
    assert_eq!(of(&one("persistence = \"off\"")), None);
    assert_eq!(of(&one("persistence = 300")), Some(plain.clone()));
    let masked = "persistence = 300\npersistence_prefix_v4 = 24\npersistence_drained = \"leave\"";
    assert_eq!(of(&one(masked)), Some(Persistence { prefix_v4: 24, leave_drained: true, ..plain.clone() }));
    let sip = "protocol = \"udp\"\npersistence = 60\npersistence_by = \"sip-call-id\"\npersistence_prefix_v4 = 0";
    let by_call = Persistence { by: PersistBy::SipCallId, seconds: 60, prefix_v4: 0, ..plain.clone() };
    assert_eq!(of(&one(sip)), Some(by_call));
    let by = PersistBy::QuicServerId { rotation: 2, length: 2 };
    assert_eq!(of(&quic("quic_rotation = 2", ["0a1B", "0a1c"])), Some(Persistence { by, seconds: 0, ..plain.clone() }));
    assert_eq!(of(&quic("quic_rotation = 2\npersistence = 300", ["0a1b", "0a1c"])), Some(Persistence { by, ..plain }));
    let ids = sound(&quic("", ["0a1B", "ff00"])).services[0]
        .servers
        .iter()
        .map(|s| s.quic_id.clone().unwrap())
        .collect::<Vec<_>>();
    assert_eq!(ids, [[0x0a, 0x1b], [0xff, 0]]);
    let both = sound(&group("persistence = 300", "persistence = 300"));
    assert!(both.services.iter().all(|service| service.group.as_deref() == Some("shop")));
    assert_eq!(sound(&format!("{HEAD}[engine]\npersistent_clients = 2048\n")).engine.persistent_clients, 2048);
    // Both families in a group, each with its own prefix.
    let v6 = "group = \"shop\"\npersistence = 300\npersistence_prefix_v6 = 56";
    let two = group("persistence = 300", "persistence = 300") + &service("2001:db8::10", 80, v6, ["", ""]);
    assert_eq!(sound(&two).services[2].persistence.as_ref().unwrap().prefix_v6, 56);
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    let v6 = |lines: &str| HEAD.to_owned() + &service("2001:db8::10", 80, lines, ["", ""]);
    let nat_twice = "group = \"shop\"\npersistence = 300\nmethod = \"nat\"";
    let table: &[(String, usize, &str, &str, &str)] = &[
        (one("persistence = 0"), 6, "persistence", "0 is not permitted", "\"off\""),
        (one("persistence = 1000001"), 6, "persistence", "is not permitted", "the most is 1000000"),
        (one("persistence = -1"), 6, "persistence", "-1 is not permitted", "the least is 1"),
        (one("persistence = \"300\""), 6, "persistence", "does not belong here", "remove the quotes"),
        (
            one("persistence = 300\npersistence_prefix_v4 = 33"),
            7,
            "persistence_prefix_v4",
            "33 is not permitted",
            "the most is 32",
        ),
        (
            v6("persistence = 300\npersistence_prefix_v6 = 129"),
            7,
            "persistence_prefix_v6",
            "129 is not permitted",
            "the most is 128",
        ),
        (
            one("persistence = 300\npersistence_prefix_v4 = 0"),
            7,
            "persistence_prefix_v4",
            "all clients would be one",
            "fo",
        ),
        (
            one("persistence = 300\npersistence_prefix_v6 = 64"),
            7,
            "persistence_prefix_v6",
            "no IPv6 clients",
            "remove the key",
        ),
        (
            v6("persistence = 300\npersistence_prefix_v4 = 24"),
            7,
            "persistence_prefix_v4",
            "no IPv4 clients",
            "remove the key",
        ),
        (one("persistence_prefix_v4 = 24"), 6, "persistence_prefix_v4", "has no persistence", "persistence = SECONDS"),
        (
            one("persistence_drained = \"leave\""),
            6,
            "persistence_drained",
            "has no persistence",
            "persistence = SECONDS",
        ),
        (
            one("persistence = 60\npersistence_by = \"sip-call-id\""),
            7,
            "persistence_by",
            "the service is tcp",
            "correct `protocol`",
        ),
        (
            one("protocol = \"sctp\"\npersistence = 60\npersistence_by = \"sip-call-id\""),
            8,
            "persistence_by",
            "the service is sctp",
            "protocol",
        ),
        (
            one("protocol = \"udp\"\npersistence_by = \"sip-call-id\""),
            7,
            "persistence_by",
            "has no persistence",
            "SECONDS",
        ),
        (
            quic("", ["0a1b", "0a1c"]).replace("protocol = \"udp\"\n", ""),
            6,
            "persistence_by",
            "QUIC goes over UDP",
            "protocol",
        ),
        (quic("", ["0a1b", ""]), 11, "server[1].quic_id", "the server has no id", "quic_id"),
        (quic("", ["0a1b", "0a1c1d"]), 11, "server[1].quic_id", "the id has 3 bytes", "one length"),
        (
            quic("quic_server_id_length = 2", ["0a1b", "0a"]),
            11,
            "server[1].quic_id",
            "the id has 1 bytes",
            "one length",
        ),
        (quic("", ["0a1b", "0A1B"]), 11, "server[1].quic_id", "another server has this id", "correct one"),
        (quic("", ["0a1b", "0x0a"]), 11, "server[1].quic_id", "cannot be an id", "leave the `0x` away"),
        (quic("", ["0a1b", "0a:1c"]), 11, "server[1].quic_id", "cannot be an id", "without anything between"),
        (quic("", ["0a1b", "0a1"]), 11, "server[1].quic_id", "cannot be an id", ""),
        (quic("", ["0a1b", "00112233445566778899aabbccddeeff"]), 11, "server[1].quic_id", "cannot be an id", ""),
        (quic("quic_rotation = 7", ["0a1b", "0a1c"]), 8, "quic_rotation", "7 is not permitted", "the most is 6"),
        (one("quic_rotation = 1"), 6, "quic_rotation", "does not tell its clients apart", "quic-server-id"),
        (
            one("").replacen("10.0.0.1\"", "10.0.0.1\", quic_id = \"0a\"", 1),
            8,
            "server[0].quic_id",
            "does not tell",
            "quic-server-id",
        ),
        (group("persistence = 300", "persistence = 60"), 15, "persistence", "on line 3", "the same in all"),
        (
            group("persistence = 300", "persistence = 300\npersistence_prefix_v4 = 24"),
            16,
            "persistence_prefix_v4",
            "on line 3",
            "the same",
        ),
        (
            group("persistence = 300", "persistence = 300\npersistence_drained = \"leave\""),
            16,
            "persistence_drained",
            "on line 3",
            "the same",
        ),
        (
            group(
                "persistence = 300\nprotocol = \"udp\"",
                "persistence = 300\nprotocol = \"udp\"\npersistence_by = \"sip-call-id\"",
            ),
            18,
            "persistence_by",
            "on line 3",
            "the same",
        ),
        (group("persistence = 300", ""), 14, "group", "the service has none", "or remove `group`"),
        (one("group = \"shop\""), 6, "group", "the service has none", "or remove `group`"),
        (
            HEAD.to_owned()
                + &service("192.0.2.10", 80, nat_twice, ["", ""]).replace("10.0.0.2\"", "10.0.0.1\", port = 8080"),
            3,
            "server",
            "10.0.0.1 is there twice",
            "or remove `group`",
        ),
        (
            group("persistence = 300", "persistence = 300")
                .replacen("10.0.0.2\"", "10.0.0.3\"", 1)
                .replace("10.0.0.3\" }]", "10.0.0.2\" },{ address = \"10.0.0.3\" }]"),
            11,
            "server",
            "10.0.0.3 is missing",
            "weight = 0",
        ),
    ];
    for (text, line, key, message, help) in table {
        let problem = only_error(text);
        let key = format!(".{key}");
        assert!(problem.message.contains(message) && problem.key.ends_with(&key), "{text}: {problem:#?}");
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{text}: {problem:#?}");
        assert!(problem.expected.is_some(), "{text}: {problem:#?}");
        assert_eq!(problem.line, *line, "{text}: {problem:#?}");
    }
}

#[test]
fn words_of_ipvs_are_recognised() {
    for (line, suggestion) in [
        ("persistence_timeout = 300", "persistence"),
        ("persistence_granularity = \"255.255.255.0\"", "persistence_prefix_v4"),
        ("netmask = 24", "persistence_prefix_v4"),
        ("pe = \"sip\"", "persistence_by"),
        ("fwmark = 7", "group"),
        ("expire_quiescent_template = 1", "persistence_drained"),
        ("persistence_by = \"sip\"", "sip-call-id"),
        ("persistence_drained = \"expire\"", "leave"),
    ] {
        assert_eq!(only_error(&one(line)).suggestion.as_deref(), Some(suggestion), "{line}");
    }
}
