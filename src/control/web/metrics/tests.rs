//! The answer against a strict reader of the text format, the dashboard and the alert rules against the families that there are.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use super::*;
use crate::control::status::{
    InterfaceStatus, LimitsStatus, QuorumStatus, ServerHealthStatus, Unreachable, WorkerStatus,
};
use crate::dataplane::verdict::DropReason;
use crate::model::{Method, Protocol};
use crate::vrrp::status::{
    EvidenceStatus, GroupStatus, MasterStatus, PeerStatus, RouterStatus, TrackedStatus, VrrpStatus,
};

/// Samples by name and labels.
type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

/// Reads text format 0.0.4 strictly: each family once, in one piece, with its help and type first; names and labels of legal letters; no
/// sample twice; counters end in `_total`.
fn read(body: &str) -> Samples {
    assert!(body.ends_with('\n'));
    let mut samples = Samples::new();
    let mut families = HashSet::new();
    let mut lines = body.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").expect(line).split_once(' ').expect(line);
        assert!(families.insert(name.to_owned()), "{name} is there twice");
        assert!(help.ends_with('.') || help.ends_with(|c: char| c.is_alphanumeric()), "{line}");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect(line);
        assert!(matches!(kind, "counter" | "gauge"), "{kind}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (key, value) = sample(line);
            assert_eq!(key.0, name, "{line}");
            assert!(samples.insert(key, value).is_none(), "twice: {line}");
        }
    }
    samples
}

/// A line, by hand and letter for letter.
fn sample(line: &str) -> ((String, Vec<(String, String)>), f64) {
    let (name, mut rest) = match line.find(['{', ' ']) {
        Some(at) => line.split_at(at),
        None => panic!("no value: {line}"),
    };
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(!label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            let (mut value, mut letters) = (String::new(), after.char_indices());
            let end = loop {
                match letters.next().expect(line) {
                    (at, '"') => break at,
                    (_, '\\') => match letters.next().expect(line).1 {
                        'n' => value.push('\n'),
                        other @ ('\\' | '"') => value.push(other),
                        other => panic!("\\{other}: {line}"),
                    },
                    (_, other) => value.push(other),
                }
            };
            assert!(!labels.iter().any(|(known, _)| known == label), "label twice: {line}");
            labels.push((label.to_owned(), value));
            rest = &after[end + 1..];
            match rest.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').expect(line);
    ((name.to_owned(), labels), value.parse().expect(line))
}

/// An engine with something of everything.
fn everything() -> Status {
    let server = |address: &str, state: &str, weight| ServerStatus {
        address: address.to_owned(),
        port: None,
        method: "nat".to_owned(),
        configured_method: "nat".to_owned(),
        weight,
        health: Some(ServerHealthStatus {
            state: state.to_owned(),
            configured_weight: 5,
            checks: vec![crate::control::status::ServerCheckStatus { id: 7, ..Default::default() }],
            ..ServerHealthStatus::default()
        }),
        next_hop: None,
        unreachable: None,
        active: 3,
        inactive: 4,
        connections: 10,
        upper_threshold: None,
        lower_threshold: None,
        overloaded: false,
        drain: None,
        packets: 100,
        bytes: 6400,
        out_packets: 50,
        out_bytes: 3200,
        rates: Default::default(),
        path_mtu: None,
    };
    let cut_off = ServerStatus {
        unreachable: Some(Unreachable { reason: "no-route".to_owned(), detail: String::new() }),
        ..server("fd00::12", "up", 5)
    };
    let service = |name: &str, servers| ServiceStatus {
        name: name.to_owned(),
        address: "192.0.2.10".to_owned(),
        protocol: Protocol::Tcp,
        port: "80".to_owned(),
        scheduler: "wlc".to_owned(),
        flags: Vec::new(),
        method: Method::Nat,
        packets: 300,
        bytes: 19_200,
        out_packets: 150,
        out_bytes: 9600,
        connections: 30,
        rates: Default::default(),
        settings: Default::default(),
        limits: Some(LimitsStatus { refused: 9, ..LimitsStatus::default() }),
        quorum: Some(QuorumStatus { up: false, ..QuorumStatus::default() }),
        servers,
        sorry: Some(Box::new(server("10.0.0.99", "serving", 1))),
        removed: Vec::new(),
    };
    let router = RouterStatus {
        name: "VI_1".to_owned(),
        state: "MASTER".to_owned(),
        for_ms: 1500,
        master: Some(MasterStatus::default()),
        peers: vec![PeerStatus { address: "10.0.0.3".to_owned(), heard_ms: 250, ..PeerStatus::default() }],
        evidence: [(4, 900), (2, 100)]
            .map(|(count, seen_ms)| EvidenceStatus {
                kind: "two-masters".to_owned(),
                count,
                seen_ms,
                ..EvidenceStatus::default()
            })
            .to_vec(),
        ..RouterStatus::default()
    };
    let check = |id, state: &str| CheckStatus {
        id,
        check: "tcp 10.0.0.11:80".to_owned(),
        state: state.to_owned(),
        took_ms: 1.5,
        passed: 8,
        failed: 1,
        unable: 1,
        warning: (id == 7).then(|| "it ends soon".to_owned()),
        reasons: [("refused".to_owned(), 1)].into(),
        ..CheckStatus::default()
    };
    Status {
        services: vec![
            service("web \"é\\\n", vec![server("10.0.0.11", "up", 5), cut_off, server("10.0.0.13", "down", 0)]),
            service("dns", vec![server("10.0.0.11", "maintenance", 0)]),
        ],
        workers: vec![WorkerStatus { flows: 12, load: 0.25, ..WorkerStatus::default() }; 2]
            .into_iter()
            .enumerate()
            .map(|(worker, status)| WorkerStatus { worker, ..status })
            .collect(),
        interfaces: vec![InterfaceStatus { name: "eth0".to_owned(), mtu: 1500, ..InterfaceStatus::default() }],
        checks: vec![check(7, "up"), check(8, "starting")],
        vrrp: Some(VrrpStatus {
            routers: vec![router],
            groups: vec![GroupStatus { name: "VG".to_owned(), state: "MASTER".to_owned(), ..GroupStatus::default() }],
            tracked: [("script chk", Some(false), None), ("file load", None, Some(-7)), ("script new", None, None)]
                .map(|(what, good, number)| TrackedStatus { what: what.to_owned(), good, number, ..Default::default() })
                .into(),
            ..VrrpStatus::default()
        }),
        drops: [("no-server".to_owned(), 6)].into(),
        ..Status::default()
    }
}

#[test]
fn the_answer_is_sound_and_says_what_the_status_says() {
    let samples = read(&body(&everything(), &Tally::default(), &Wanted::default(), Format::Plain));
    let get = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        samples.get(&(name.to_owned(), labels)).copied()
    };
    let web = ("service", "web \"é\\\n");
    let one = ("server", "10.0.0.11:80");
    for (name, labels, value) in [
        ("evenkeel_drops_total", &[("reason", "no-server")][..], 6.0),
        ("evenkeel_drops_total", &[("reason", "truncated")], 0.0),
        ("evenkeel_worker_load_ratio", &[("worker", "1")], 0.25),
        ("evenkeel_flows", &[("worker", "0"), ("family", "ipv4")], 12.0),
        ("evenkeel_interface_mtu_bytes", &[("interface", "eth0")], 1500.0),
        ("evenkeel_config_last_reload_successful", &[], 1.0),
        ("evenkeel_service_up", &[web], 1.0),
        ("evenkeel_service_quorum_lost", &[web], 1.0),
        ("evenkeel_service_servers", &[web, ("state", "up")], 2.0),
        ("evenkeel_service_servers", &[web, ("state", "down")], 1.0),
        ("evenkeel_service_servers", &[("service", "dns"), ("state", "maintenance")], 1.0),
        ("evenkeel_service_servers_unreachable", &[web], 1.0),
        ("evenkeel_service_sorry_serving", &[web], 1.0),
        ("evenkeel_service_weight", &[web], 10.0),
        ("evenkeel_service_configured_weight", &[web], 15.0),
        ("evenkeel_service_active_flows", &[web], 12.0),
        ("evenkeel_service_limit_refused_total", &[web], 9.0),
        ("evenkeel_service_in_bytes_total", &[web], 19_200.0),
        ("evenkeel_server_up", &[web, one], 1.0),
        ("evenkeel_server_up", &[web, ("server", "[fd00::12]:80")], 0.0),
        ("evenkeel_server_up", &[web, ("server", "10.0.0.13:80")], 0.0),
        ("evenkeel_server_state", &[web, ("server", "10.0.0.13:80"), ("state", "down")], 1.0),
        ("evenkeel_server_out_bytes_total", &[web, one], 3200.0),
        ("evenkeel_checks", &[("state", "starting")], 1.0),
        ("evenkeel_check_up", &[("id", "7"), ("check", "tcp 10.0.0.11:80")], 1.0),
        ("evenkeel_check_warning", &[("id", "7"), ("check", "tcp 10.0.0.11:80")], 1.0),
        ("evenkeel_check_runs_total", &[("id", "8"), ("check", "tcp 10.0.0.11:80")], 10.0),
        ("evenkeel_check_last_duration_seconds", &[("id", "8"), ("check", "tcp 10.0.0.11:80")], 0.0015),
        ("evenkeel_vrrp_state", &[("router", "VI_1"), ("state", "MASTER")], 1.0),
        ("evenkeel_vrrp_state", &[("router", "VI_1"), ("state", "BACKUP")], 0.0),
        ("evenkeel_vrrp_state_seconds", &[("router", "VI_1")], 1.5),
        ("evenkeel_vrrp_peer_silent_seconds", &[("router", "VI_1"), ("peer", "10.0.0.3")], 0.25),
        ("evenkeel_vrrp_evidence", &[("router", "VI_1"), ("kind", "two-masters")], 6.0),
        ("evenkeel_vrrp_evidence_age_seconds", &[("router", "VI_1"), ("kind", "two-masters")], 0.1),
        ("evenkeel_vrrp_tracked_good", &[("what", "script chk")], 0.0),
        ("evenkeel_vrrp_tracked_number", &[("what", "file load")], -7.0),
        ("evenkeel_vrrp_group_state", &[("group", "VG"), ("state", "MASTER")], 1.0),
    ] {
        assert_eq!(get(name, labels), Some(value), "{name} {labels:?}");
    }
    assert_eq!(get("evenkeel_server_state", &[web, one, ("state", "up")]), None, "it goes without saying");
    assert_eq!(get("evenkeel_check_up", &[("id", "8"), ("check", "tcp 10.0.0.11:80")]), None, "not known yet");
    let reasons = samples.keys().filter(|(name, _)| name == "evenkeel_drops_total").count();
    assert_eq!(reasons, DropReason::COUNT);
    // Everything that is described is there, and nothing else, with the labels that are described.
    let written: BTreeSet<&str> = samples.keys().map(|(name, _)| name.as_str()).collect();
    let rare = ["evenkeel_server_drain_flows", "evenkeel_interface_queues"];
    let described: BTreeSet<&str> = names().into_iter().filter(|name| !rare.contains(name)).collect();
    assert_eq!(written, described);
    let all: BTreeMap<&str, Vec<&str>> =
        described_labels().into_iter().filter(|(name, _)| !rare.contains(name)).collect();
    for (name, labels) in samples.keys() {
        let labels: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(Some(&labels), all.get(name.as_str()), "{name}");
    }
}

fn described_labels() -> Vec<(&'static str, Vec<&'static str>)> {
    described().into_iter().flat_map(|(_, all)| all).map(|family| (family.name, family.labels)).collect()
}

#[test]
fn a_server_has_few_samples() {
    let one = |name: &str, servers: usize| {
        let mut service = everything().services.remove(1);
        name.clone_into(&mut service.name);
        let mut server = service.servers.remove(0);
        server.health = None;
        "dr".clone_into(&mut server.configured_method);
        (server.out_packets, server.weight) = (0, 1);
        service.servers = (0..servers)
            .map(|n| ServerStatus {
                address: format!("10.200.0.{n}"),
                packets: 1 << 40,
                bytes: 1 << 45,
                ..server.clone()
            })
            .collect();
        let status = Status { services: vec![service], ..Status::default() };
        body(&status, &Tally::default(), &Wanted::default(), Format::Plain)
    };
    let (few, many) = (one("service-123", 0), one("service-123", 200));
    let samples = |body: &str| body.lines().filter(|line| line.starts_with("evenkeel_server_")).count();
    assert_eq!(samples(&many), 200 * 8);
    // What docs/metrics.md says of a large answer.
    let each = (many.len() - few.len()) / 200;
    assert!((560..720).contains(&each), "{each} bytes");
}

#[test]
fn nothing_at_all_is_sound_too() {
    let samples = read(&body(&Status::default(), &Tally::default(), &Wanted::default(), Format::Plain));
    assert_eq!(samples.get(&("evenkeel_warnings".to_owned(), Vec::new())), Some(&0.0));
    assert!(!samples.keys().any(|(name, _)| name.starts_with("evenkeel_vrrp")));
}

#[test]
fn openmetrics_says_the_same_and_ends() {
    let status = everything();
    let plain = body(&status, &Tally::default(), &Wanted::default(), Format::Plain);
    let open = body(&status, &Tally::default(), &Wanted::default(), Format::OpenMetrics);
    let samples = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("process_"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(samples(&plain), samples(&open));
    // There a counter's family has its name without `_total`, which no gauge may have.
    let bare: HashSet<&str> = names().into_iter().map(|name| name.trim_end_matches("_total")).collect();
    assert_eq!(bare.len(), names().len());
    assert!(open.ends_with("\n# EOF\n") && !plain.contains("# EOF"));
    assert!(open.contains("\n# TYPE evenkeel_drops counter\nevenkeel_drops_total{"));
}

#[test]
fn servers_are_left_out_on_request() {
    let status = everything();
    let of =
        |query: &str| read(&body(&status, &Tally::default(), &Wanted::read(query).expect("is sound"), Format::Plain));
    let has = |samples: &Samples, name: &str, value: &str| {
        samples.keys().any(|(known, labels)| known == name && labels.iter().any(|(_, label)| label == value))
    };
    let none = of("servers=0");
    assert!(has(&none, "evenkeel_service_up", "dns") && has(&none, "evenkeel_checks", "up"));
    assert!(!none.keys().any(|(name, _)| name.starts_with("evenkeel_server_") || name.starts_with("evenkeel_check_")));
    let one = of("service=dns");
    assert!(has(&one, "evenkeel_server_up", "dns") && !has(&one, "evenkeel_service_up", "web \"é\\\n"));
    assert!(has(&one, "evenkeel_check_up", "7") && !has(&one, "evenkeel_check_runs_total", "8"));
    let two = of("service=dns&service=web+%22%C3%A9%5c%0A&servers=0");
    assert!(has(&two, "evenkeel_service_up", "web \"é\\\n") && !has(&two, "evenkeel_server_up", "dns"));
    for query in ["server=0", "servers=2", "servers", "service=", "service=%4", "service=%ff", "x"] {
        assert!(Wanted::read(query).is_err(), "{query}");
    }
    assert_eq!(Wanted::read(""), Ok(Wanted::default()));
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words of an expression that are names of families of ours.
fn families(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':');
    words.filter(|word| word.starts_with("evenkeel_") || word.starts_with("process_")).collect()
}

/// The label names inside of the braces and groupings of an expression.
fn all_known(what: &str, expressions: &[String]) {
    let known: BTreeSet<&str> = names().into_iter().collect();
    let labels: BTreeSet<&str> = described_labels().into_iter().flat_map(|(_, labels)| labels).collect();
    assert!(expressions.len() > 10, "{what}: {} expressions", expressions.len());
    for expression in expressions {
        let used = families(expression);
        assert!(!used.is_empty() || expression.contains("up{"), "{what}: no family of ours in {expression}");
        for name in used {
            assert!(known.contains(name), "{what}: there is no {name}, of {expression}");
        }
        for inside in expression.split('{').skip(1).filter_map(|part| part.split('}').next()) {
            for matcher in inside.split("\",").filter(|matcher| !matcher.is_empty()) {
                let label = matcher.split(['=', '!']).next().unwrap_or("").trim_matches([' ', ',']);
                let ours = labels.contains(label) || matches!(label, "instance" | "job");
                assert!(ours, "{what}: no label {label:?}, of {expression}");
            }
        }
        for grouping in ["by (", "on (", "group_left ("] {
            for inside in expression.split(grouping).skip(1).filter_map(|part| part.split(')').next()) {
                for label in inside.split(',').map(str::trim) {
                    let ours = labels.contains(label) || matches!(label, "instance" | "job");
                    assert!(ours, "{what}: no label {label:?}, of {expression}");
                }
            }
        }
        let (open, close) = (expression.matches('(').count(), expression.matches(')').count());
        assert_eq!(open, close, "{what}: brackets of {expression}");
    }
}

/// All texts under a key, wherever they are.
fn under(value: &serde_json::Value, key: &str, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(text) if name == key => out.push(text.to_owned()),
                    _ => under(member, key, out),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| under(item, key, out)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let board: serde_json::Value =
        serde_json::from_str(&file("packaging/grafana/evenkeel.json")).expect("the dashboard is JSON");
    let mut expressions = Vec::new();
    under(&board, "expr", &mut expressions);
    all_known("the dashboard", &expressions);
    assert!(expressions.iter().all(|expression| expression.contains("instance=~\"$instance\"")), "of any appliance");
    let mut sources = Vec::new();
    under(&board, "uid", &mut sources);
    assert!(sources.iter().all(|source| matches!(source.as_str(), "${datasource}" | "evenkeel")), "{sources:?}");
    let panels = board["panels"].as_array().expect("panels");
    let ids: HashSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has its own id");
    // No panel lies on another one.
    let mut cells = HashSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(cells.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
    }
}

#[test]
fn the_alert_rules_ask_for_what_there_is() {
    let rules = file("packaging/prometheus/evenkeel.rules.yml");
    let lines = || rules.lines().map(str::trim_start);
    let expressions: Vec<String> = lines().filter_map(|line| line.strip_prefix("expr: ")).map(str::to_owned).collect();
    all_known("the rules", &expressions);
    let alerts: Vec<&str> = lines().filter_map(|line| line.strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), expressions.len(), "each rule on lines of its own");
    assert_eq!(alerts.len(), alerts.iter().collect::<HashSet<_>>().len(), "no name twice");
    for (key, count) in [("summary: ", alerts.len()), ("severity: ", alerts.len()), ("description: ", alerts.len())] {
        assert_eq!(lines().filter(|line| line.starts_with(key)).count(), count, "{key}");
    }
    let operations = file("docs/operations.md");
    for alert in &alerts {
        assert!(operations.contains(&format!("`{alert}`")), "docs/operations.md does not say what to do about {alert}");
    }
}

#[test]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = file("docs/metrics.md");
    let mark =
        "<!-- Below: written by the test the_reference_is_current; EVENKEEL_WRITE_REFERENCE=1 rewrites it. -->\n";
    let (before, after) = page.split_once(mark).expect("the mark is there");
    if std::env::var_os("EVENKEEL_WRITE_REFERENCE").is_some() {
        fs::write(path, format!("{before}{mark}{}", reference())).expect("can be written");
        return;
    }
    assert_eq!(after, reference(), "EVENKEEL_WRITE_REFERENCE=1 cargo test --lib the_reference_is_current rewrites it");
}
