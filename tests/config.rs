//! The configuration file from outside: every mistake is reported with its place, and what is sound comes back whole.

use std::collections::HashSet;

use evenkeel::control::apply::filter_table;
use evenkeel::control::config::{Outcome, Problem, Severity, parse, parse_with, reference, render};
use evenkeel::dataplane::xdp::FilterEntry;
use evenkeel::model::{
    EngineSettings, Fate, Fates, IoMode, Judgement, Limits, Method, PortRange, Rate, Scheduler, Timeouts,
};

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
    assert_eq!(desired.services[0].scheduler, Scheduler::WLC);
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
        ("port = 80\nmethod = \"masq\"", "nat"),
        ("port = 80\nmethod = \"NAT\"", "nat"),
        ("port = 80\nmethod = \"fullnat\"", "full-nat"),
        ("port = 80\nmethod = \"TUN\"", "ipip"),
        ("port = 80\nmethod = \"tunnel\"", "ipip"),
        ("port = 80\nmethod = \"ip-ip\"", "ipip"),
        ("port = 80\nserver = [{ address = \"10.0.0.1\", lvs_method = \"nat\" }]", "method"),
    ] {
        assert_eq!(only_error(&in_service(line)).suggestion.as_deref(), Some(suggestion), "{line}");
    }
    assert_eq!(only_error(&in_service("prot = 80")).suggestion.as_deref(), Some("port"), "and `port` is not missing");
    let problem = only_error(&in_service("port = 80\nidle_us = 4096"));
    assert_eq!(problem.help.as_deref(), Some("`idle_us` belongs in `[engine]`"));
}

#[test]
fn values_say_what_was_expected_and_what_to_do() {
    let table: &[(&str, &str, &str)] = &[
        ("port = 0", "0 is not permitted", "the least is 1"),
        ("port = 65536", "65536 is not permitted", "the most is 65535"),
        ("port = \"80\"", "\"80\" is not a port", "remove the quotes: `80`"),
        ("port = \"*\"", "\"*\" is not a port", "every port is `\"any\"`"),
        ("port = \"90-80\"", "ends before it begins", "\"80-90\""),
        (
            "port = 80\nscheduler = \"maglev\"\nscheduler_flags = [\"mh-port\"]",
            "has no flag `mh-port`",
            "begin with its name",
        ),
        ("port = 80\nscheduler = \"mh\"\nmh_table_size = 65537", "`mh` has no tables of 65537", "the nearest is 65521"),
        ("port = 80\nscheduler = \"sed\"\nmh_table_size = 251", "`sed` has no such setting", "`mh` or `maglev`"),
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
fn the_life_of_flows_as_written() {
    let text = service_and_server(
        "protocol = \"udp\"\nmax_rate = 50\nclient_max_connections = 3\nclient_prefix_ipv4 = 24\nmax_connections = 9\n\
         flows_of_removed = \"keep\"\ndrain_deadline = 60\ntimeouts = { udp = 7 }",
        ", drain = true, upper_threshold = 10, lower_threshold = 4",
    );
    let text = format!("[timeouts]\nudp = 8\ntcp_synack = 9\n{text}");
    let outcome = read(&text);
    assert_eq!(outcome.errors().count(), 0, "{:#?}", outcome.problems);
    let service = outcome.desired.unwrap().services.remove(0);
    assert_eq!((service.timeouts.udp, service.timeouts.tcp_synack, service.timeouts.sctp_closed), (7, 9, 61));
    let rate = Some(Rate { per_second: 50, burst: 50 });
    let limits =
        Limits { connections: Some(9), rate, client_connections: Some(3), client_prefix_v4: 24, ..Limits::NONE };
    assert_eq!((service.limits, service.drain_deadline), (limits, Some(60)));
    assert_eq!(service.fates, Fates { removed: Fate::Keep, ..Fates::DEFAULT });
    let server = &service.servers[0];
    assert_eq!((server.drain, server.upper, server.lower), (true, Some(10), Some(4)));
}

#[test]
fn impossible_limits_say_where_and_why() {
    let table: &[(&str, &str, &str, &str, &str)] = &[
        ("max_connections = 0", "", "service[0].max_connections", "0 is not permitted", "the least is 1"),
        ("client_max_rate = 0", "", "service[0].client_max_rate", "0 is not permitted", "the least is 1"),
        ("client_max_connections = 16777216", "", "service[0].client_max_connections", "not permitted", "16777215"),
        (
            "max_connections = 5\nclient_max_connections = 6",
            "",
            "service[0].client_max_connections",
            "6 flows, and the whole service 5",
            "lower one",
        ),
        ("max_rate_burst = 5", "", "service[0].max_rate_burst", "there is no `max_rate`", "add `max_rate`"),
        ("max_rate = 1\nmax_rate_burst = 0", "", "service[0].max_rate_burst", "0 is not permitted", "the least is 1"),
        (
            "max_rate = 1\nmax_rate_burst = 100000",
            "",
            "service[0].max_rate_burst",
            "takes 100000 seconds to come back",
            "raise `max_rate`",
        ),
        (
            "client_max_rate = 1\nclient_prefix_ipv4 = 33",
            "",
            "service[0].client_prefix_ipv4",
            "33 is not permitted",
            "the most is 32",
        ),
        (
            "client_max_rate = 1\nclient_prefix_ipv6 = 0",
            "",
            "service[0].client_prefix_ipv6",
            "0 is not permitted",
            "the least is 1",
        ),
        ("client_prefix_ipv4 = 24", "", "service[0].client_prefix_ipv4", "no limits for client networks", "add one"),
        ("one_packet = true", "", "service[0].one_packet", "the service is tcp", "remove the key"),
        (
            "protocol = \"udp\"\none_packet = true",
            ", method = \"nat\"",
            "service[0].one_packet",
            "cannot be translated back",
            "`dr` or a tunnel",
        ),
        (
            "protocol = \"udp\"\none_packet = true\nmax_connections = 1",
            "",
            "service[0].max_connections",
            "no flows to count",
            "rates count packets",
        ),
        (
            "protocol = \"udp\"\none_packet = true",
            ", upper_threshold = 5",
            "service[0].server[0].upper_threshold",
            "no flows to count",
            "remove one",
        ),
        ("drain_deadline = 0", "", "service[0].drain_deadline", "0 is not permitted", "`\"off\"`"),
        ("flows_of_removed = \"shutdown\"", "", "service[0].flows_of_removed", "unknown word", ""),
        (
            "",
            ", upper_threshold = 5, lower_threshold = 6",
            "service[0].server[0].lower_threshold",
            "6 is above the upper threshold, 5",
            "fewer than the lower",
        ),
        (
            "",
            ", lower_threshold = 6",
            "service[0].server[0].lower_threshold",
            "no upper threshold",
            "add `upper_threshold`",
        ),
        ("", ", weight = 65536", "service[0].server[0].weight", "65536 is not permitted", "the most is 65535"),
        ("", ", weight = -1", "service[0].server[0].weight", "-1 is not permitted", "the least is 0"),
        ("timeouts = { udp = 0 }", "", "service[0].timeouts.udp", "0 is not permitted", "the least is 1"),
    ];
    for (service, server, key, message, help) in table {
        let problem = only_error(&service_and_server(service, server));
        assert_eq!(problem.key, *key, "{service} {server}: {problem:#?}");
        assert!(problem.line > 0 && problem.message.contains(message), "{service} {server}: {problem:#?}");
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{service} {server}: {problem:#?}");
        assert!(problem.expected.is_some(), "{service} {server}: {problem:#?}");
    }
    // Words that others have for it.
    for (line, suggestion) in
        [("uthreshold = 5", "upper_threshold"), ("l_threshold = 5", "lower_threshold"), ("maintenance = true", "drain")]
    {
        let problem = only_error(&service_and_server("", &format!(", {line}")));
        assert_eq!(problem.suggestion.as_deref(), Some(suggestion), "{line}");
    }
    for (line, suggestion) in [
        ("ops = true", "one_packet"),
        ("expire_nodest_conn = 1", "flows_of_removed"),
        ("flows_of_removed = \"expire\"", "reset"),
        ("timeouts = { tcpfin = 5 }", "tcp_fin_wait"),
    ] {
        let problem = only_error(&service_and_server(line, ""));
        assert_eq!(problem.suggestion.as_deref(), Some(suggestion), "{line}");
    }
    let warned = read(&service_and_server("flows_of_drained = \"keep\"\ndrain_deadline = 5", ""));
    assert!(warned.warnings().any(|warning| warning.message.contains("nothing happens at the deadline")));
}

/// A service with one server, both with more keys.
fn service_and_server(service: &str, server: &str) -> String {
    in_service(&format!("port = 80\n{service}\nserver = [{{ address = \"10.0.0.1\"{server} }}]"))
}

#[test]
fn methods_say_what_they_need_and_what_they_do_not_take() {
    let full = "method = \"full-nat\"\nlocal_addresses = [\"10.0.0.101\"]";
    let with = |more: &str| format!("{full}\n{more}");
    let table: &[(String, &str, &str)] = &[
        (service_and_server("method = \"full-nat\"", ""), "no address to ask", "local_addresses"),
        (service_and_server("", ", method = \"full-nat\""), "no address to ask", "local_addresses"),
        (service_and_server("local_addresses = \"10.0.0.101\"", ""), "has the method `full-nat`", "remove the key"),
        (service_and_server(&full.replace("10.0.0.101", "2001:db8::1"), ""), "not of the family", "each family"),
        (service_and_server(&full.replace("10.0.0.101", "127.0.0.1"), ""), "a loopback address", "free addresses"),
        (service_and_server(&full.replace("10.0.0.101", "192.0.2.10"), ""), "of the service on line 4", "free address"),
        (service_and_server(&full.replace("10.0.0.101", "10.0.0.1"), ""), "of the server on line", "free address"),
        (service_and_server(&full.replace("[\"10.0.0.101\"]", "[]"), ""), "the list is empty", ""),
        (service_and_server(&full.replace("[\"10.0.0.101\"]", "[1]"), ""), "the integer 1", ""),
        (service_and_server(&full.replace("\"10.0.0.101\"", "\"10.0.0.9\", \"10.0.0.9\""), ""), "twice", "remove"),
        (service_and_server("proxy_protocol = \"v2\"", ""), "a server has the method `dr`", "remove the key"),
        (service_and_server(&with("proxy_protocol = \"v2\""), ", method = \"nat\""), "the method `nat`", "remove"),
        (service_and_server(&with("proxy_protocol = \"v2\"\nprotocol = \"udp\""), ""), "ahead of a stream", "remove"),
        (service_and_server("mss_clamp = 1400\nprotocol = \"udp\"", ""), "only TCP has segments", "remove"),
        (service_and_server("mss_clamp = 500", ""), "500 is not permitted", "the least is 536"),
        (service_and_server("mss_clamp = 0", ""), "0 is not permitted", "\"off\""),
        (service_and_server("mss_clamp = \"1400\"", ""), "does not belong here", "remove the quotes"),
        (service_and_server("tunnel_ttl = 64", ""), "has the method `ipip`", "remove the key"),
        (service_and_server("gue_port = 6080", ""), "has the method `ipip`", "remove the key"),
        (service_and_server("tunnel_source = \"10.0.0.2\"", ""), "has the method `ipip`", "remove the key"),
        (service_and_server("method = \"gue\"\ntunnel_source_spread = 4", ""), "GUE varies", "remove the key"),
        (
            service_and_server("method = \"gre\"\ntunnel_source_spread = 17", ""),
            "17 is not permitted",
            "the most is 16",
        ),
        (service_and_server("method = \"ipip\"\ntunnel_ttl = 0", ""), "0 is not permitted", "\"inherit\""),
        (service_and_server("method = \"ipip\"\ntunnel_source = \"192.0.2.10\"", ""), "have this address", "remove"),
        (
            service_and_server("method = \"ipip\"\ntunnel_source = [\"10.0.0.2\", \"10.0.0.3\"]", ""),
            "a second address of its family",
            "tunnel_source_spread",
        ),
        (service_and_server("method = \"ipip\"", ", port = 81"), "not the service's", "choose the method `nat`"),
        (
            service_and_server("method = \"nat\"", ", port = 81").replace("port = 80", "port = \"80-90\""),
            "not the service's",
            "a service for each port",
        ),
        (
            service_and_server("method = \"nat\"", "").replace("10.0.0.1\"", "2001:db8::1\""),
            "not an IPv4 address",
            "a tunnel",
        ),
    ];
    for (text, message, help) in table {
        let problem = only_error(text);
        assert!(problem.message.contains(message), "{text}: {problem:#?}");
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{text}: {problem:#?}");
        assert!(problem.expected.is_some() && problem.line > 0, "{text}: {problem:#?}");
    }
}

#[test]
fn methods_arrive() {
    let text = "[[interface]]\nname = \"eth0\"\n[[address]]\naddress = \"10.0.0.254\"\n\
                [[service]]\naddress = \"192.0.2.10\"\nport = 80\nmethod = \"nat\"\nmss_clamp = 1400\n\
                local_addresses = [\"10.0.0.101\", \"10.0.0.102\"]\ntunnel_source = [\"10.0.0.2\", \"2001:db8::2\"]\n\
                tunnel_ttl = 64\ntunnel_source_spread = 8\ngue_port = 6081\nserver = [\n\
                { address = \"10.0.0.1\", port = 8080 },\n{ address = \"10.0.0.1\", port = 8081 },\n\
                { address = \"10.0.0.1\", port = 80 },\n{ address = \"10.0.0.2\", method = \"full-nat\", port = 81 },\n\
                { address = \"2001:db8::1\", method = \"ipip\" },\n{ address = \"10.0.0.4\", method = \"gue\" },\n\
                { address = \"10.0.0.5\", method = \"gre\" },\n{ address = \"10.0.0.6\", method = \"dr\" }]\n\
                [engine]\nlocal_ports = \"20000-29999\"\nlocal_addresses = 2\nfragments = 64\nfragments_waiting = 0\n\
                fragment_wait_ms = 500\n";
    let outcome = read(text);
    assert!(outcome.problems.is_empty(), "{:#?}", outcome.problems);
    let desired = outcome.desired.unwrap();
    assert_eq!(desired.addresses, ["10.0.0.254".parse::<std::net::IpAddr>().unwrap()]);
    let service = &desired.services[0];
    let servers: Vec<(Option<u16>, Method)> = service.servers.iter().map(|s| (s.port, s.method)).collect();
    assert_eq!(
        servers,
        [
            (Some(8080), Method::Nat),
            (Some(8081), Method::Nat),
            (None, Method::Nat),
            (Some(81), Method::FullNat),
            (None, Method::Ipip),
            (None, Method::Gue),
            (None, Method::Gre),
            (None, Method::Dr),
        ]
    );
    assert_eq!((service.mss_clamp, service.local_addresses.len()), (Some(1400), 2));
    let tunnel = &service.tunnel;
    assert_eq!((tunnel.ttl, tunnel.source_spread_bits, tunnel.gue_port), (Some(64), 8, 6081));
    assert!(tunnel.source_v4.is_some() && tunnel.source_v6.is_some());
    assert_eq!(desired.engine.local_ports, PortRange { first: 20_000, last: 29_999 });
    assert_eq!(read(&render::render(&desired)).desired.as_ref(), Some(&desired));
    // What the filters shall take.
    let table = filter_table(&desired, &HashSet::from(["10.0.0.102".parse().unwrap()]));
    let text = |entries: &[FilterEntry]| -> Vec<String> {
        entries.iter().map(|e| format!("{} {} {}", e.address, e.protocol, e.ports)).collect()
    };
    assert_eq!(
        text(&table.entries),
        ["10.0.0.101 tcp 20000-29999", "10.0.0.102 tcp 20000-29999", "192.0.2.10 tcp 80"],
        "servers answer to local addresses"
    );
    assert_eq!(text(&table.replies), ["10.0.0.1 tcp 80", "10.0.0.1 tcp 8080", "10.0.0.1 tcp 8081"]);
    let tunnels: Vec<String> = table.tunnels.iter().map(ToString::to_string).collect();
    assert_eq!(tunnels, ["10.0.0.4", "10.0.0.5", "2001:db8::1"]);
    let owned: Vec<String> = table.owned.iter().map(ToString::to_string).collect();
    assert_eq!(owned, ["10.0.0.101", "10.0.0.254", "192.0.2.10"], "the kernel answers ARP for its own");
}

#[test]
fn owned_addresses_are_nobody_elses() {
    let full = service_and_server("method = \"full-nat\"\nlocal_addresses = \"10.0.0.101\"", "");
    for (address, message) in [
        ("192.0.2.10", "by a service on line 4"),
        ("10.0.0.101", "by local addresses on line 7"),
        ("10.0.0.1", "the address of the server on line 8"),
        ("ff02::1", "a multicast address"),
    ] {
        let problem = only_error(&format!("{full}[[address]]\naddress = \"{address}\"\n"));
        assert!(problem.message.contains(message), "{problem:#?}");
    }
    let twice = "[[address]]\naddress = \"10.0.0.254\"\n".repeat(2);
    assert!(only_error(&format!("{full}{twice}")).message.contains("another `[[address]]` on line 10"));
    assert_eq!(only_error(&format!("{full}[[gateway]]\n")).suggestion.as_deref(), Some("address"));
    // Too many over all services, reported where the first one is too many.
    let locals = "local_addresses = [\"10.0.0.101\", \"10.0.0.102\"]";
    let text = full.replace("local_addresses = \"10.0.0.101\"", locals) + "[engine]\nlocal_addresses = 1\n";
    let problem = only_error(&text);
    assert!(problem.message.contains("2 local addresses") && problem.line == 7, "{problem:#?}");
}

#[test]
fn a_clamp_that_meets_no_announcement_is_a_warning() {
    let problems =
        |method: &str| read(&service_and_server(&format!("mss_clamp = 1400\nmethod = \"{method}\""), "")).problems;
    for (method, count) in [("dr", 1), ("gue", 1), ("nat", 0)] {
        let found = problems(method);
        assert_eq!(found.len(), count, "{found:#?}");
        assert!(found.iter().all(|problem| problem.severity == Severity::Warning), "{found:#?}");
    }
}

#[test]
fn a_router_may_be_a_fixed_neighbor_where_servers_may_be_behind_one() {
    let neighbor = "[[neighbor]]\naddress = \"10.9.9.9\"\nmac = \"02:00:00:00:00:01\"\n";
    assert!(read(&format!("{}{neighbor}", service_and_server("method = \"nat\"", ""))).problems.is_empty());
    assert_eq!(read(&format!("{}{neighbor}", service_and_server("", ""))).problems.len(), 1);
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
        ("local_ports = \"any\"", "port 0", "range"),
        ("local_ports = \"9-8\"", "ends before it begins", "8-9"),
        ("local_ports = 5000\ncores = [0, 1]", "too few for 2 workers", "range"),
        ("local_addresses = 1025", "1025", "most"),
        ("fragments = 1", "1 is not", "least"),
        ("fragment_wait_ms = 0", "0 is not", "least"),
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
    assert_eq!(desired.services[1].scheduler, Scheduler { fallback: true, table_size: 251, ..Scheduler::MH });
    assert_eq!(desired.services[1].servers.len(), 2);
    assert_eq!(read(&render::render(&desired)).desired.as_ref(), Some(&desired));
}

#[test]
fn a_table_has_a_slot_for_each_server() {
    let servers = |count: u32| {
        let one = |n: u32| format!("[[service.server]]\naddress = \"10.1.{}.{}\"\n", n / 200, n % 200 + 1);
        (0..count).map(one).collect::<String>()
    };
    for name in ["mh", "maglev"] {
        let text = |count| format!("port = 80\nscheduler = \"{name}\"\nmh_table_size = 251\n{}", servers(count));
        assert!(read(&in_service(&text(251))).desired.is_some());
        let problem = only_error(&in_service(&text(252)));
        assert_eq!(problem.key, "service[0].mh_table_size");
        assert!(problem.message.contains("251 slots cannot hold 252 servers"), "{problem:#?}");
        assert_eq!(problem.help.as_deref(), Some("write `mh_table_size = 32749`"));
    }
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

const LISTS: &str = r#"
[access]
default = "deny"
deny = ["192.0.2.0/24", "2001:db8::/32", "192.0.2.0/24"]
allow = "192.0.2.7"
deny_files = ["/etc/evenkeel/deny.txt"]
allow_files = "/etc/evenkeel/allow.txt"
"#;

/// A sound file with lists, and what is in their files.
fn with_files(lists: &str, deny: &[u8], allow: &[u8]) -> Outcome {
    let (deny, allow) = (deny.to_vec(), allow.to_vec());
    parse_with(&format!("{MINIMAL}{lists}"), 1, &move |path| match path.to_str() {
        Some("/etc/evenkeel/deny.txt") => Ok(deny.clone()),
        Some("/etc/evenkeel/allow.txt") => Ok(allow.clone()),
        _ => Err("No such file".to_owned()),
    })
}

#[test]
fn access_lists_come_from_the_file_and_from_others() {
    let deny = b"\xef\xbb\xbf# a comment\r\n\r\n  198.51.100.0/24  # why\r\n2001:db8:1::1;who\n198.51.100.0/24\n";
    let outcome = with_files(LISTS, deny, b"203.0.113.0/24");
    assert_eq!(outcome.problems, []);
    let access = outcome.desired.unwrap().access;
    assert_eq!(access.default, Judgement::Deny);
    let all: Vec<String> =
        access.lists().iter().map(|(prefix, judgement)| format!("{} {prefix}", judgement.name())).collect();
    assert_eq!(
        all,
        [
            "deny 192.0.2.0/24",
            "allow 192.0.2.7/32",
            "deny 198.51.100.0/24",
            "allow 203.0.113.0/24",
            "deny 2001:db8::/32",
            "deny 2001:db8:1::1/128"
        ]
    );
    assert!(!read(MINIMAL).desired.unwrap().access.denies_any());
}

#[test]
fn mistakes_in_lists_have_their_places() {
    let lists = "[access]\ndeny = [\"192.0.2.1/24\", \"10.0.0.0/40\", 7]\nallow = [\"10.0.0.0/255.0.0.0\"]\n\
                 deny_files = [\"deny.txt\", \"/nowhere\"]\n";
    let outcome = with_files(lists, b"", b"");
    let said: Vec<String> = outcome.errors().map(|problem| problem.render("x")).collect();
    let expected = [
        ("access.deny[0]", "the network is `192.0.2.0/24`; the host alone is `192.0.2.1`"),
        ("access.deny[1]", "the length 40 does not fit an address of 32 bits"),
        ("access.deny[2]", "the integer 7 does not belong here"),
        ("access.allow[0]", "a length instead of a mask: `/8`"),
        ("access.deny_files[0]", "\"deny.txt\" is not an absolute path"),
    ];
    for (key, text) in expected {
        assert!(said.iter().any(|said| said.contains(key) && said.contains(text)), "{key}: {text}: {said:#?}");
    }
    let outcome = with_files("[access]\ndeny_files = [\"/nowhere\"]\n", b"", b"");
    let error = outcome.errors().next().unwrap();
    assert_eq!((error.line, error.key.as_str()), (10, "access.deny_files[0]"));
    assert!(error.message.contains("cannot be read: No such file"), "{}", error.message);
}

#[test]
fn mistakes_in_files_of_lists_name_file_and_line() {
    let outcome = with_files(LISTS, b"10.0.0.0/8\n10.0.0.1/8\n\xff\xfe\nfoo\n", b"2001:db8::/32\n");
    let places: Vec<(&str, usize, &str)> =
        outcome.errors().map(|p| (p.file.as_deref().unwrap_or_default(), p.line, p.key.as_str())).collect();
    let deny = "/etc/evenkeel/deny.txt";
    assert_eq!(
        places,
        [
            ("/etc/evenkeel/allow.txt", 1, "access.allow_files"),
            (deny, 2, "access.deny_files[0]"),
            (deny, 3, "access.deny_files[0]"),
            (deny, 4, "access.deny_files[0]"),
        ]
    );
    let text = outcome.errors().next().unwrap().render("x.toml");
    assert!(
        text.starts_with("/etc/evenkeel/allow.txt:1:1: access.allow_files: 2001:db8::/32 is allowed here"),
        "{text}"
    );
    assert!(text.contains("denied on line 12"), "{text}");
    assert!(outcome.desired.is_none());

    // A file of another kind does not fill the screen.
    let outcome = with_files(LISTS, "no list\n".repeat(500).as_bytes(), b"");
    assert_eq!(outcome.errors().count(), 21);
    assert!(outcome.errors().any(|problem| problem.message == "480 more lines are wrong"));
}

#[test]
fn lists_that_do_nothing_or_keep_everybody_out_are_warned_about() {
    for (lists, word) in [
        ("[access]\nallow = [\"10.0.0.0/8\"]", "change nothing"),
        ("[access]\ndefault = \"deny\"\ndeny = [\"10.0.0.0/8\"]", "no client may use any service"),
    ] {
        let outcome = with_files(lists, b"", b"");
        let warnings: Vec<&Problem> = outcome.warnings().collect();
        assert!(warnings.len() == 1 && warnings[0].message.contains(word), "{warnings:?}");
        assert!(outcome.desired.is_some());
    }
    let many: String = (0..525_000u32).map(|n| format!("{}.{}.{}.1\n", 1 + (n >> 16), n >> 8 & 255, n & 255)).collect();
    let outcome = with_files(LISTS, many.as_bytes(), b"");
    let error = outcome.errors().next().unwrap();
    assert!(error.message.contains("525001 networks of /24 with longer prefixes"), "{}", error.message);
}
