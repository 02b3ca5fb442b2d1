//! The configuration file from outside: every mistake is reported with its place, and what is sound comes back whole.

use evenkeel::control::config::{Outcome, Problem, Severity, parse, reference, render};
use evenkeel::model::{EngineSettings, IoMode, PortRange, Scheduler, Timeouts};

const MINIMAL: &str = r#"
[[interface]]
name = "eth0"

[[service]]
address = "192.0.2.10"
port = 80
server = [{ address = "10.0.0.11" }, { address = "10.0.0.12", weight = 3 }]
"#;

fn read(text: &str) -> Outcome {
    parse(text, 1)
}

fn places(outcome: &Outcome) -> Vec<(usize, &str)> {
    outcome.errors().map(|problem| (problem.line, problem.key.as_str())).collect()
}

fn only_error(text: &str) -> Problem {
    let outcome = read(text);
    let errors: Vec<&Problem> = outcome.errors().collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(outcome.desired.is_none());
    errors[0].clone()
}

/// A sound file with one more line in its service.
fn in_service(line: &str) -> String {
    format!("[[interface]]\nname = \"eth0\"\n[[service]]\naddress = \"192.0.2.10\"\n{line}\n")
}

#[test]
fn the_least_file_has_the_models_defaults() {
    let outcome = read(MINIMAL);
    assert!(outcome.problems.is_empty(), "{:#?}", outcome.problems);
    let desired = outcome.desired.unwrap();
    assert_eq!(desired.engine, EngineSettings { cores: vec![1], ..EngineSettings::default() });
    assert_eq!(desired.timeouts, Timeouts::default());
    assert_eq!(desired.control_socket.to_str(), Some("/run/evenkeel.sock"));
    assert_eq!(desired.services[0].name, "192.0.2.10:80/tcp");
    assert_eq!(desired.services[0].scheduler, Scheduler::Wlc);
    assert_eq!(desired.services[0].servers[1].weight, 3);
    assert_eq!(desired.interfaces[0].queues, None);
}

#[test]
fn ten_mistakes_of_any_mixture_report_ten() {
    let text = r#"
[engin]
[timeouts]
tcp_established = 0
udp = "300"
[[interface]]
name = "eth0"
quues = "all"
[[service]]
name = "web"
address = "192.0.2.300"
port = "90-80"
scheduler = wlc
[[service]]
name = "web"
address = "192.0.2.11"
protocol = "tpc"
port = 80
server = [
  { address = "10.0.0.11", weight = 70000 },
  { address = "10.0.0.11" },
  { address = "10.0.0.12" wieght = 1 },
]
[[neighbor]
address = "10.0.0.11"
"#;
    let outcome = read(text);
    assert_eq!(
        places(&outcome),
        [
            (2, "engin"),
            (4, "timeouts.tcp_established"),
            (5, "timeouts.udp"),
            (8, "interface[0].quues"),
            (11, "service[0].address"),
            (12, "service[0].port"),
            (13, "service.scheduler"),
            (15, "service[1].name"),
            (17, "service[1].protocol"),
            (20, "service[1].server[0].weight"),
            (21, "service[1].server[1].address"),
            (22, "service.address"),
            (24, "neighbor[0].mac"),
            (24, "neighbor"),
        ],
        "{:#?}",
        outcome.problems
    );
    for problem in outcome.errors() {
        assert!(problem.line > 0 && problem.column > 0, "{problem:?}");
        assert!(problem.expected.is_some() || problem.help.is_some(), "{problem:?}");
    }
}

#[test]
fn ten_syntax_mistakes_report_ten() {
    let lines = ["a", "= 1", "x = ", "y = \"open", "z = [1,, 2]", "[[service", "[x", "v = 1 2", "w = {a = }", "q = 08"];
    let text = lines.join("\n");
    let outcome = read(&text);
    let broken: Vec<usize> =
        outcome.errors().filter(|p| p.message.starts_with("TOML syntax")).map(|problem| problem.line).collect();
    assert_eq!(broken, (1..=10).collect::<Vec<_>>(), "{:#?}", outcome.problems);
}

#[test]
fn what_stands_on_a_broken_line_is_not_missing_as_well() {
    let problem = only_error("[[interface]]\nname = \"eth0\"\n[[service]]\naddress = 10.0.0.1\nport = 80\n");
    assert_eq!((problem.line, problem.key.as_str()), (4, "service.address"));
    assert!(problem.help.unwrap().contains("quotes"));
    let problem = only_error("[[interface\nname = \"eth0\"\n");
    assert_eq!(problem.line, 1);
}

#[test]
fn a_list_that_is_never_closed_hides_nothing_below() {
    let text = "[engine]\ncores = [0, 1\nflows = 1\n[[interface]]\nname = \"eth0\"\nqueue = [0]\n";
    let found = read(text);
    let lines: Vec<usize> = found.errors().map(|problem| problem.line).collect();
    assert!(lines.contains(&6), "{:#?}", found.problems);
    assert!(lines.iter().any(|line| *line == 2 || *line == 3), "{:#?}", found.problems);
}

#[test]
fn slips_are_recognised() {
    for (line, suggestion) in [
        ("port = 80\nschedular = \"rr\"", "scheduler"),
        ("port = 80\nlb_algo = \"rr\"", "scheduler"),
        ("port = 80\nreal_server = []", "server"),
        ("port = 80\nscheduler = \"WLC\"", "wlc"),
        ("port = 80\nprotocol = \"tpc\"", "tcp"),
        ("port = 80\nscheduler = \"mh\"\nscheduler_flags = [\"mh_port\"]", "mh-port"),
    ] {
        assert_eq!(only_error(&in_service(line)).suggestion.as_deref(), Some(suggestion), "{line}");
    }
    assert_eq!(only_error(&in_service("prot = 80")).suggestion.as_deref(), Some("port"), "and `port` is not missing");
    let problem = only_error(&in_service("port = 80\nflows = 4096"));
    assert_eq!(problem.help.as_deref(), Some("`flows` belongs in `[engine]`"));
}

#[test]
fn values_say_what_was_expected_and_what_to_do() {
    let table: &[(&str, &str, &str)] = &[
        ("port = 0", "0 is not permitted", "the least is 1"),
        ("port = 65536", "65536 is not permitted", "the most is 65535"),
        ("port = \"80\"", "\"80\" is not a port", "remove the quotes: `80`"),
        ("port = \"*\"", "\"*\" is not a port", "every port is `\"any\"`"),
        ("port = \"90-80\"", "ends before it begins", "\"80-90\""),
        ("port = 80\nscheduler = \"sed\"", "not in this version", "wlc"),
        ("port = 80\nmethod = \"nat\"", "not in this version", "direct routing only"),
        ("port = 80\nmethod = \"full-nat\"", "not in this version", "direct routing only"),
        ("port = 80\nmethod = \"tunnel\"", "not in this version", "direct routing only"),
        ("port = 80\nscheduler = \"mh\"\nmh_table_size = 4096", "4096 is not permitted", "the nearest is 4093"),
        ("port = 80\nmh_table_size = 4093", "`wlc` has no such setting", "remove the key"),
        ("port = 80\nscheduler_flags = [\"mh-port\"]", "`wlc` has no such setting", "remove the key"),
        ("port = 80\nserver = [{ address = \"10.0.0.1/24\" }]", "not an IP address", "\"10.0.0.1\""),
        ("port = 80\nserver = [{ address = \"10.0.0.1:80\" }]", "not an IP address", "the port has its own key"),
        ("port = 80\nserver = [{ address = \"web1\" }]", "not an IP address", "host names"),
        ("port = 80\nserver = [{ address = \"192.0.2.10\" }]", "the address of the service", "`lo`"),
        ("port = 80\nserver = [{ address = \"2001:db8::1\" }]", "not an IPv4 address", "family"),
        ("port = 80\nserver = [{ address = \"10.0.0.1\", port = 81 }]", "not the service's", "remove the key"),
        ("port = \"any\"\nserver = [{ address = \"10.0.0.1\", port = 81 }]", "not the service's", "remove the key"),
        ("port = 80\nserver = { address = \"10.0.0.1\" }", "this is one table", "double brackets"),
        ("port = 80\nserver = [\"10.0.0.1\"]", "the text \"10.0.0.1\" does not belong here", ""),
        ("port = 80\nport = 81", "there twice", "remove one"),
    ];
    for (line, message, help) in table {
        let problem = only_error(&in_service(line));
        assert!(problem.message.contains(message), "{line}: {problem:#?}");
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{line}: {problem:#?}");
        assert!(problem.expected.is_some(), "{line}: {problem:#?}");
    }
}

#[test]
fn engine_values() {
    for (line, message, help) in [
        ("ring_size = 1000", "1000", "512 and 1024"),
        ("ring_size = 131072", "131072", "65536"),
        ("frame_size = 3000", "3000", "nearest"),
        ("need_wakeup = \"yes\"", "yes", "`true`"),
        ("cores = [0, 0]", "twice", "remove"),
        ("cores = []", "empty", "default"),
        ("cores = 1", "the integer 1", "square brackets"),
        ("cores = [0, -1]", "-1", "least"),
        ("mode = \"zerocopy\"", "unknown word", ""),
        ("mode = []", "empty", ""),
        ("mode = [\"copy\", \"auto\"]", "unknown word", ""),
        ("frames = 2048", "cannot fill", "frames = 8192"),
        ("flows = 99999999999999999999999999", "99999999999999999999999999", "most"),
        ("flows = 1e6", "the number 1e6", ""),
    ] {
        let problem = only_error(&format!("{MINIMAL}[engine]\n{line}\n"));
        assert!(problem.message.contains(message), "{line}: {problem:#?}");
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{line}: {problem:#?}");
        assert!(problem.expected.is_some(), "{line}: {problem:#?}");
    }
    let modes = read(&format!("{MINIMAL}[engine]\nmode = [\"generic\", \"copy\"]\n")).desired.unwrap().engine.modes;
    assert_eq!(modes, [IoMode::Generic, IoMode::Copy]);
}

#[test]
fn entries_are_compared_with_each_other() {
    let twice = |more: &str| only_error(&format!("{MINIMAL}\n{more}"));
    let overlap = twice("[[service]]\naddress = \"192.0.2.10\"\nport = \"any\"\nserver = [{ address = \"10.0.0.1\" }]");
    assert!(overlap.message.contains("overlaps the service on line 5"), "{overlap:#?}");
    assert!(twice("[[interface]]\nname = \"eth0\"").message.contains("twice"));
    assert_eq!(
        twice("[[interface]]\nname = \"eth0\"").expected.as_deref(),
        Some("each interface once; the first is on line 3")
    );
    let neighbor = "[[neighbor]]\naddress = \"10.0.0.11\"\nmac = \"02:00:00:00:00:01\"\n";
    assert!(twice(&format!("{neighbor}{neighbor}")).message.contains("has a neighbor already"));
    assert!(twice(&neighbor.replace("02:", "01:")).message.contains("multicast"));
    assert!(twice(&neighbor.replace("02:00:00:00:00:01", "0:0:0:0:0:0")).message.contains("zero"));
    assert!(twice(&format!("{neighbor}interface = \"eth1\"")).suggestion.as_deref() == Some("eth0"));
    let many: String = (1..17).map(|n| format!("[[interface]]\nname = \"e{n}\"\n")).collect();
    assert!(twice(&many).message.contains("there are 17"));
    for address in ["127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "::1", "ff02::1", "::", "::ffff:10.0.0.1"] {
        let problem = twice(&format!("[[service]]\naddress = \"{address}\"\nport = 80\n"));
        assert_eq!(problem.key, "service[1].address", "{address}");
    }
}

#[test]
fn warnings_do_not_refuse() {
    let more = "[[service]]\naddress = \"192.0.2.11\"\nport = 80\n\
                [[service]]\naddress = \"192.0.2.12\"\nport = 80\nserver = [{ address = \"10.0.0.1\", weight = 0 }]\n\
                [[neighbor]]\naddress = \"10.9.9.9\"\nmac = \"02:00:00:00:00:01\"\n";
    let outcome = read(&format!("{MINIMAL}{more}"));
    assert!(outcome.desired.is_some());
    let keys: Vec<&str> = outcome.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["service[1].server", "service[2].server", "neighbor[0].address"]);
    assert!(outcome.problems.iter().all(|problem| problem.severity == Severity::Warning));
}

#[test]
fn ports_and_schedulers_arrive() {
    let text = format!(
        "{MINIMAL}[[service]]\nname = \"dns\"\naddress = \"2001:db8::10\"\nprotocol = \"udp\"\nport = \"5000-5999\"\n\
         scheduler = \"mh\"\nscheduler_flags = [\"mh-fallback\"]\nmh_table_size = 251\n\
         [[service.server]]\naddress = \"2001:db8::1\"\n[[service.server]]\naddress = \"2001:db8::2\"\n"
    );
    let desired = read(&text).desired.unwrap();
    assert_eq!(desired.services[1].key.ports, PortRange { first: 5000, last: 5999 });
    assert_eq!(desired.services[1].scheduler, Scheduler::Mh { port: false, fallback: true, table_size: 251 });
    assert_eq!(desired.services[1].servers.len(), 2);
    assert_eq!(read(&render::render(&desired)).desired.as_ref(), Some(&desired));
}

#[test]
fn the_reference_page_is_what_the_schema_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
    if std::env::var_os("EVENKEEL_WRITE_REFERENCE").is_some() {
        std::fs::write(path, reference::page()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == reference::page(), "docs/config.md is old: run `evenkeel check --reference > docs/config.md`");
}

#[test]
fn every_example_is_sound() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let outcome = read(&std::fs::read_to_string(&path).unwrap());
            assert!(outcome.problems.is_empty(), "{}: {:#?}", path.display(), outcome.problems);
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} examples in configs/");
}

#[test]
fn what_the_data_plane_cannot_hold_is_refused_before_the_start() {
    let mut text = "[[interface]]\nname = \"eth0\"\n".to_owned();
    for service in 0..4 {
        text += &format!("[[service]]\naddress = \"192.0.2.{}\"\nport = 80\nserver = [\n", service + 1);
        for server in 0..10_000 {
            text += &format!("{{ address = \"10.{service}.{}.{}\" }},\n", server / 250, server % 250 + 1);
        }
        text += "]\n";
    }
    let start = std::time::Instant::now();
    let problem = only_error(&text);
    assert!(problem.message.contains("40000 servers"), "{problem:?}");
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
    let mut text = "[[interface]]\nname = \"eth0\"\n".to_owned();
    for host in 1..5 {
        for range in 0..30 {
            let (first, last) = (range * 2000 + 1, range * 2000 + 1900);
            text += &format!("[[service]]\naddress = \"192.0.2.{host}\"\nport = \"{first}-{last}\"\n");
        }
    }
    assert!(only_error(&text).message.contains("port ranges"));
}
