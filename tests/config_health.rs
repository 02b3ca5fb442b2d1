//! Health checks in the configuration file: what does not fit is refused with its place, and what is sound arrives whole.

use std::net::IpAddr;
use std::time::Duration;

use evenkeel::control::check::notes;
use evenkeel::control::config::{Problem, parse, render};
use evenkeel::model::{
    BodyMatch, Check, CheckKind, Damping, Desired, FirstState, Method, NoServer, OnFailure, Pace, Passive, Quorum,
    Server, Weigh,
};

const HEAD: &str = "[[interface]]\nname = \"eth0\"\n";

fn sound(text: &str) -> Desired {
    let outcome = parse(text, 0);
    assert!(outcome.problems.is_empty(), "{text}: {:#?}", outcome.problems);
    let desired = outcome.desired.unwrap();
    let shown = render::render(&desired);
    assert_eq!(parse(&shown, 0).desired.as_ref(), Some(&desired), "{shown}");
    desired
}

fn only_error(text: &str) -> Problem {
    let outcome = parse(text, 0);
    let errors: Vec<&Problem> = outcome.errors().collect();
    assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
    assert!(outcome.desired.is_none());
    errors[0].clone()
}

/// A service of two servers with more lines, and more in its first server.
fn service(lines: &str, server: &str) -> String {
    let port = if lines.starts_with("port =") { "" } else { "port = 80\n" };
    format!(
        "{HEAD}[[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\n{port}{lines}\nserver = [\n\
         {{ address = \"10.0.0.11\"{server} }},\n{{ address = \"10.0.0.12\" }}]\n"
    )
}

/// The same with one check, in a line of its own (7) as an inline table.
fn check(inside: &str) -> String {
    service(&format!("check = [{{ {inside} }}]"), "")
}

fn checks(text: &str) -> Vec<Check> {
    sound(text).services[0].servers[0].health.checks.clone()
}

fn kind(inside: &str) -> CheckKind {
    checks(&check(inside)).remove(0).kind
}

#[test]
fn without_a_word_there_is_the_usual_check() {
    let tcp = sound(&service("", ""));
    let server = &tcp.services[0].servers[1];
    assert!(server.health.default_check);
    let [check] = server.health.checks.as_slice() else { panic!("{server:?}") };
    assert_eq!((check.kind.clone(), check.target.port), (CheckKind::Tcp, 80));
    assert_eq!(check.target.address, IpAddr::from([10, 0, 0, 12]));
    assert_eq!((check.target.source, check.target.through.clone()), (None, None));
    assert_eq!(check.pace, Pace::default());
    assert_eq!(check.to_string(), "tcp 10.0.0.12:80");
    assert_eq!(notes(&tcp), ["web: no `[[service.check]]`: a connection to each server every 2 s is the check"]);
    // A server's own port.
    let nat = sound(&service("method = \"nat\"", ", port = 8080"));
    assert_eq!(nat.services[0].servers[0].health.checks[0].target.port, 8080);
    for other in ["protocol = \"udp\"", "protocol = \"sctp\"", "port = \"any\"", "port = \"80-90\""] {
        let desired = sound(&service(other, ""));
        let health = &desired.services[0].servers[0].health;
        assert!(health.default_check, "{other}");
        assert_eq!((&health.checks[0].kind, health.checks[0].target.port), (&CheckKind::Ping, 0), "{other}");
        assert_eq!(notes(&desired).len(), 1);
        assert!(notes(&desired)[0].contains("a ping of each server"), "{:?}", notes(&desired));
    }
    let none = sound(&service("check = \"none\"", ""));
    assert!(none.services[0].servers.iter().all(|server| server.health.checks.is_empty()));
    assert!(none.services[0].servers.iter().all(|server| !server.health.default_check));
    assert!(notes(&none).is_empty());
    // One server alone without, and one with others.
    let desired = sound(&service("check = [\"tcp\", \"ping\"]", ", check = \"none\""));
    let lengths: Vec<usize> = desired.services[0].servers.iter().map(|server| server.health.checks.len()).collect();
    assert_eq!(lengths, [0, 2]);
    let desired = sound(&service("", ", check = [{ type = \"smtp\", port = 25 }]"));
    let [first, second] = desired.services[0].servers.as_slice() else { panic!() };
    assert_eq!((first.health.default_check, second.health.default_check), (false, true));
    assert_eq!(first.health.checks[0].target.port, 25);
}

#[test]
fn notes_of_many_services_are_one() {
    let mut text = HEAD.to_owned();
    for port in 1000..1050 {
        text +=
            &format!("[[service]]\naddress = \"192.0.2.10\"\nport = {port}\nserver = [{{ address = \"10.0.0.1\" }}]\n");
    }
    let notes = notes(&parse(&text, 0).desired.unwrap());
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains(", 30 more: no `[[service.check]]`") && notes[0].len() < 800, "{notes:?}");
}

#[test]
fn every_type_arrives_as_written() {
    let CheckKind::Http(http) = kind("type = \"http\"") else { panic!() };
    assert!(http.tls.is_none() && http.version_11);
    let [request] = http.requests.as_slice() else { panic!() };
    assert_eq!((request.method.as_str(), request.path.as_str(), &request.host), ("GET", "/", &None));
    assert_eq!((request.status.as_slice(), &request.body, request.digest), (&[(200, 299)][..], &None, None));
    let text = "type = \"https\", version = \"1.0\", url = \"/a?b=c\", method = \"OPTIONS\", host = \"w:81\", status = [204, \
                \"300-302\"], regex = 'a.b', digest = \"000102030405060708090a0b0c0d0e0F\", headers = { X-A = \"é b\" }, \
                tls_name = \"w\", tls_verify = true, tls_ca = \"/etc/ca.pem\", tls_expiry_days = 0";
    let CheckKind::Http(http) = kind(text) else { panic!() };
    let tls = http.tls.unwrap();
    assert_eq!((tls.name.as_deref(), tls.verify, tls.expiry_days), (Some("w"), true, 0));
    assert_eq!(tls.authorities.unwrap().to_str(), Some("/etc/ca.pem"));
    let request = &http.requests[0];
    assert!(!http.version_11 && request.method == "OPTIONS" && request.path == "/a?b=c");
    assert_eq!(request.status, [(204, 204), (300, 302)]);
    assert_eq!(request.body, Some(BodyMatch::Regex("a.b".to_owned())));
    assert_eq!(request.digest.unwrap()[15], 15);
    assert_eq!(request.headers, [("X-A".to_owned(), "é b".to_owned())]);
    let several =
        "type = \"http\", request = [\"/a\", { url = \"/b\", body = \"ready\" }, { url = \"/c\", not_regex = 'x' }]";
    let CheckKind::Http(http) = kind(several) else { panic!() };
    assert_eq!(http.requests.iter().map(|request| request.path.as_str()).collect::<Vec<_>>(), ["/a", "/b", "/c"]);
    assert_eq!(http.requests[2].body, Some(BodyMatch::NotRegex("x".to_owned())));

    let CheckKind::Dns(dns) = kind("type = \"dns\"") else { panic!() };
    assert_eq!((dns.tcp, dns.name.as_str(), dns.kind.as_str(), dns.answer), (false, ".", "SOA", false));
    assert_eq!(dns.codes, ["NOERROR"], "keepalived, too, takes no other code");
    let text = "type = \"dns\", name = \"a.b\", record = \"AAAA\", codes = \"any\", answer = true, transport = \"tcp\"";
    let CheckKind::Dns(dns) = kind(text) else { panic!() };
    assert_eq!((dns.tcp, dns.name.as_str(), dns.kind.as_str(), dns.answer), (true, "a.b.", "AAAA", true));
    assert!(dns.codes.is_empty());

    let CheckKind::Udp(udp) = kind("type = \"udp\"") else { panic!() };
    assert_eq!((udp.payload.len(), udp.reply, udp.require_reply), (0, None, false));
    let CheckKind::Udp(udp) = kind("type = \"udp\", payload = \"a\\u0000é\", reply = \"hex:00fF\"") else { panic!() };
    assert_eq!((udp.payload, udp.reply, udp.require_reply), (b"a\0\xc3\xa9".to_vec(), Some(vec![0, 255]), true));

    let CheckKind::Script(script) = kind("type = \"script\", command = \"/bin/a 'b c'\"") else { panic!() };
    assert_eq!((script.command, script.user, script.dynamic), (vec!["/bin/a".into(), "b c".into()], None, false));
    let text =
        "script_user = \"nobody\"\ncheck = [{ type = \"script\", command = [\"/a\"], environment = { A = \"1\" } }]";
    let CheckKind::Script(script) = checks(&service(text, "")).remove(0).kind else { panic!() };
    assert_eq!((script.user.as_deref(), script.environment.len()), (Some("nobody"), 1));

    let CheckKind::File(file) = kind("type = \"file\", file = \"/run/w\", weight = -3") else { panic!() };
    assert_eq!((file.path.to_str(), file.weight), (Some("/run/w"), -3));
    assert!(matches!(kind("type = \"smtp\", helo = \"me\""), CheckKind::Smtp(smtp) if smtp.helo == "me"));
    assert_eq!(kind("type = \"tcp-half-open\""), CheckKind::HalfOpen);
    let CheckKind::Grpc(grpc) = kind("type = \"grpc\"") else { panic!() };
    assert!(grpc.tls.is_none() && grpc.service.is_empty() && grpc.authority.is_none());
    let CheckKind::Grpc(grpc) = kind("type = \"grpc\", tls = true, service = \"a.B\", authority = \"c\"") else {
        panic!()
    };
    assert!(grpc.tls.is_some_and(|tls| !tls.verify && tls.expiry_days == 30) && grpc.service == "a.B");
}

#[test]
fn pace_and_target_arrive_as_written() {
    let text = "type = \"tcp\", interval = 0.5, timeout = 0.15, rise = 4, fall = 5, retries = 1, retry_delay = 0.1, jitter = 0, \
                warmup = 9, first_state = \"down\", address = \"10.1.0.1\", port = 8080, source = \"10.0.0.1\"";
    let check = checks(&check(text)).remove(0);
    let millis = Duration::from_millis;
    let pace = Pace {
        interval: millis(500),
        timeout: millis(150),
        rise: 4,
        fall: 5,
        retries: 1,
        retry_delay: millis(100),
        jitter: millis(0),
        warmup: millis(9000),
        first: FirstState::Down,
    };
    assert_eq!(check.pace, pace);
    let target = &check.target;
    assert_eq!((target.address, target.port), (IpAddr::from([10, 1, 0, 1]), 8080));
    assert_eq!(target.source, Some(IpAddr::from([10, 0, 0, 1])));
    // What follows from the interval.
    for (interval, timeout, jitter) in [("0.1", 100, 10), ("1", 1000, 100), ("60", 5000, 6000)] {
        let text = format!("type = \"ping\", interval = {interval}");
        let pace = checks(&self::check(&text)).remove(0).pace;
        assert_eq!(
            (pace.timeout, pace.jitter, pace.warmup),
            (millis(timeout), millis(jitter), pace.interval),
            "{interval}"
        );
    }
    // By the service's address on that very server.
    let text = service("method = \"gue\"\ngue_port = 99\ncheck = [{ type = \"tcp\", path = \"service\" }]", "");
    let check = checks(&text).remove(0);
    let through = check.target.through.clone().unwrap();
    assert_eq!(check.target.address, IpAddr::from([192, 0, 2, 10]));
    assert_eq!(
        (through.server, through.method, through.tunnel.gue_port),
        (IpAddr::from([10, 0, 0, 11]), Method::Gue, 99)
    );
    assert_eq!(check.to_string(), "tcp 192.0.2.10:80 on 10.0.0.11");
}

#[test]
fn what_results_mean_arrives_as_written() {
    let desired = sound(&service("", ""));
    assert_eq!(desired.services[0].health, Default::default());
    let text = "method = \"nat\"\non_failure = \"inhibit\"\nquorum = 2\nhysteresis_placeholder\nquorum_up = \"/bin/up a\"\n\
                quorum_down = [\"/bin/down\"]\nno_server = \"drop\"\nslow_start = 30\nscript_user = \"nobody\"\n\
                sorry_server = { address = \"10.0.0.99\", port = 8080 }\ndamping = {}\npassive = { least = 20 }";
    let text = text.replace("hysteresis_placeholder", "quorum_hysteresis = 0");
    let server =
        ", on_failure = \"remove\", drain_file = \"/run/d\", notify_up = \"/bin/a b\", notify_down = [\"/bin/c\"]";
    let desired = sound(&service(&text, server));
    let health = &desired.services[0].health;
    let words = |all: &[&str]| Some(all.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>());
    let quorum = Quorum { least: 2, hysteresis: 0, up: words(&["/bin/up", "a"]), down: words(&["/bin/down"]) };
    assert_eq!(health.quorum, quorum);
    assert_eq!((health.no_server, health.slow_start), (NoServer::Drop, Some(Duration::from_secs(30))));
    assert_eq!(health.script_user.as_deref(), Some("nobody"));
    let sorry = Server::new(IpAddr::from([10, 0, 0, 99]), Some(8080), 1, Method::Nat);
    assert_eq!(health.sorry.as_deref(), Some(&sorry));
    let seconds = Duration::from_secs;
    assert_eq!(health.damping, Some(Damping { failures: 3, window: seconds(60), hold: seconds(300) }));
    let passive =
        Passive { failures_percent: 50, least: 20, window: seconds(10), eject: seconds(30), most_percent: 50 };
    assert_eq!(health.passive, Some(passive));
    let [first, second] = desired.services[0].servers.as_slice() else { panic!() };
    assert_eq!((first.health.on_failure, second.health.on_failure), (OnFailure::Remove, OnFailure::Inhibit));
    assert_eq!(first.health.drain_file.as_deref().and_then(|path| path.to_str()), Some("/run/d"));
    assert_eq!(first.health.notify_up, words(&["/bin/a", "b"]));
    assert_eq!(first.health.notify_down, words(&["/bin/c"]));
    let short = sound(&service("sorry_server = \"10.0.0.99\"", ""));
    assert_eq!(short.services[0].health.sorry.as_deref(), Some(&Server::dr(IpAddr::from([10, 0, 0, 99]), 1)));
    let ipip = sound(&service("sorry_server = { address = \"2001:db8::1\", method = \"ipip\" }", ""));
    assert_eq!(ipip.tunnel_servers().collect::<Vec<_>>(), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
    assert_eq!(sound(&format!("{HEAD}[control]\nstate = \"/x/y\"\n")).state_file.to_str(), Some("/x/y"));
    assert_eq!(sound(HEAD).state_file.to_str(), Some("/var/lib/evenkeel/state.json"));
    // What a check says is a word of the model, too.
    assert_eq!(serde_json::to_value(Weigh::Set(3)).unwrap(), serde_json::json!({ "set": 3 }));
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    let through = |more: &str| check(&format!("type = \"tcp\", path = \"service\"{more}"));
    let any = |inside: &str| service(&format!("port = \"any\"\ncheck = [{{ {inside} }}]"), "");
    let nat = |inside: &str| service(&format!("method = \"nat\"\n{inside}"), "");
    let http = |more: &str| check(&format!("type = \"http\", {more}"));
    let table: &[(String, &str, &str, &str)] = &[
        (check("interval = 1"), "check[0].type", "missing", "add `type"),
        (check("type = \"htp\""), "check[0].type", "unknown word", ""),
        (check("type = \"tcp\", interval = 0"), "interval", "0 is not permitted", "the least is 0.1"),
        (check("type = \"tcp\", interval = \"2s\""), "interval", "does not belong here", ""),
        (check("type = \"tcp\", jitter = 1.5"), "jitter", "more than half", "lower it"),
        (check("type = \"tcp\", fall = 0"), "fall", "0 is not permitted", "the least is 1"),
        (check("type = \"tcp\", url = \"/\""), "url", "is for `http` and `https`", "correct `type`"),
        (check("type = \"tcp\", request = [\"/\"]"), "check[0].request[0]", "requests are for", "correct `type`"),
        (check("type = \"ping\", port = 7"), "port", "not for `ping`", "remove the key"),
        (check("type = \"http\", dynamic = true"), "dynamic", "is for `script`", "correct `type`"),
        (check("type = \"none\", interval = 3"), "interval", "not for `none`", "remove the key"),
        (check("type = \"script\", command = [\"/a\"], source = \"10.0.0.1\""), "source", "not for `script`", ""),
        (check("type = \"script\""), "command", "there is no program", "add `command"),
        (check("type = \"script\", command = [\"a\"]"), "command", "not the absolute path", "command -v"),
        (check("type = \"file\""), "file", "there is no file", "add `file"),
        (check("type = \"file\", file = \"/run/x\", path = \"/run/x\""), "path", "unknown word", "`file`"),
        (http("path = \"/health\""), "path", "unknown word", "`url`"),
        (http("url = \"health\""), "url", "not the path of a URL", "\"/health\""),
        (http("url = \"http://a/b c\""), "url", "not the path of a URL", "`host = \"a\"`"),
        (http("host = \"a/b\""), "host", "no name of a host", "`url`"),
        (http("status = \"2xx\""), "status", "no status code", "\"200-299\""),
        (http("status = \"200,301\""), "status", "no status code", "as a list"),
        (http("status = [200, 99]"), "status[1]", "99 is no status code", ""),
        (http("status = \"300-200\""), "status", "no status code", ""),
        (http("status = []"), "status", "the list is empty", "default"),
        (http("regex = '(a'"), "regex", "unclosed group", "backslash"),
        (http("regex = '(?=a)'"), "regex", "look-around", "without"),
        (http("regex = '((a{500}){500}){500}'"), "regex", "too large", ""),
        (http("body = \"a\", regex = 'b'"), "regex", "`body` and `regex` are both there", "remove one"),
        (http("method = \"HEAD\", body = \"a\""), "body", "has no body", "remove one"),
        (http("method = \"get\""), "method", "unknown word", ""),
        (http("digest = \"0a\""), "digest", "cannot be an MD5 digest", ""),
        (http("headers = { Host = \"a\" }"), "headers", "`Host` cannot be a header here", "write `host`"),
        (http("headers = { \"a b\" = \"c\" }"), "headers.a b", "cannot be a name", ""),
        (http("headers = { a = 1 }"), "headers.a", "the integer 1", "quotes"),
        (http("headers = \"A: b\""), "headers", "does not belong here", ""),
        (http("url = \"/a\", request = [\"/b\"]"), "url", "requests of their own", "move the key"),
        (http("request = [{ body = \"a\" }]"), "request[0].url", "missing", "add `url"),
        (http("tls_name = \"a\""), "tls_name", "for `https` and `grpc`", "correct `type`"),
        (check("type = \"grpc\", tls_verify = true"), "tls_verify", "not over TLS", "add `tls = true`"),
        (check("type = \"dns\", name = \"a..b\""), "name", "no name of the DNS", ""),
        (check("type = \"dns\", name = \"é\""), "name", "no name of the DNS", "xn--"),
        (check("type = \"dns\", codes = [\"NXDOMAN\"]"), "codes[0]", "unknown word", ""),
        (check("type = \"udp\", payload = \"hex:0\""), "payload", "pairs of digits", ""),
        (check("type = \"udp\", payload = \"\""), "payload", "no bytes", "remove"),
        (check("type = \"tcp\", address = \"0.0.0.0\""), "address", "unspecified", "remove"),
        (check("type = \"tcp\", source = \"2001:db8::1\""), "source", "other family", "remove"),
        (check("type = \"tcp\", address = \"2001:db8::1\", source = \"10.0.0.1\""), "source", "other family", ""),
        (through(", address = \"10.0.0.11\""), "address", "the address of the service", "remove one"),
        (check("type = \"smtp\", path = \"service\""), "path", "this key is for", "correct `type`"),
        (nat("check = [{ type = \"tcp\", path = \"service\" }]"), "path", "has the method `nat`", "own address anyway"),
        (any("type = \"tcp\""), "port", "the port is not known", "add `port"),
        (service("check = [\"none\", \"tcp\"]", ""), "check[0]", "other checks besides", "remove one"),
        (service("quorum = 2\nquorum_hysteresis = 2", ""), "quorum_hysteresis", "could not be lost", "lower it"),
        (service("quorum = 0", ""), "quorum", "0 is not permitted", "the least is 1"),
        (service("sorry_server = \"10.0.0.11\"", ""), "sorry_server", "a server of the service already", "remove one"),
        (service("sorry_server = \"192.0.2.10\"", ""), "sorry_server", "the address of the service", "lo"),
        (service("sorry_server = \"2001:db8::1\"", ""), "sorry_server", "not an IPv4 address", "family"),
        (service("sorry_server = [{ address = \"10.0.0.9\" }]", ""), "sorry_server", "a list of tables", "once"),
        (service("passive = {}", ""), "passive", "does not pass the appliance", "[[service.check]]"),
        (service("damping = { failures = 1 }", ""), "damping.failures", "1 is not permitted", "the least is 2"),
        (service("slow_start = 0", ""), "slow_start", "0 is not permitted", "the least is 1"),
        (service("notify_up = \"/bin/a\"", ""), "notify_up", "unknown key", "`[[service.server]]`"),
        (service("interval = 1", ""), "interval", "unknown key", "`[[service.check]]`"),
        (service("", ", quorum = 2"), "server[0].quorum", "unknown key", "`[[service]]`"),
    ];
    let mut wrong = Vec::new();
    for (text, key, message, help) in table {
        let outcome = parse(text, 0);
        let errors: Vec<&Problem> = outcome.errors().collect();
        let ([problem], None) = (errors.as_slice(), &outcome.desired) else {
            wrong.push(format!("{text}: {errors:#?}"));
            continue;
        };
        let help_of = problem.help.clone().unwrap_or_default();
        let line = text.lines().nth(problem.line - 1).unwrap_or_default();
        let written = [key.rsplit('.').next().unwrap().split('[').next().unwrap(), "check", "server", "sorry"];
        let sound = problem.message.contains(message)
            && problem.key.ends_with(&format!(".{key}"))
            && format!("{help_of} {}", problem.suggestion.clone().unwrap_or_default()).contains(help)
            && problem.expected.is_some()
            && written.iter().any(|word| line.contains(word));
        if !sound {
            wrong.push(format!("{text}: {problem:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_wrong_for_many_servers_is_told_once() {
    let text = service(
        "method = \"nat\"\ncheck = [{ type = \"tcp\", path = \"service\" }, { type = \"dns\", path = \"service\" }]",
        "",
    );
    let outcome = parse(&text, 0);
    let keys: Vec<&str> = outcome.errors().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["service[0].check[0].path", "service[0].check[1].path"]);
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let table = [
        (check("type = \"tcp\", interval = 1, timeout = 2"), "timeout", "the next run is due after 1s"),
        (check("type = \"tcp\", retries = 3"), "retries", "a run may take"),
        (check("type = \"https\", tls_ca = \"/etc/ca.pem\""), "tls_ca", "nobody looks at this file"),
        (service("quorum = 3", ""), "quorum", "weights are 2 in all"),
        (service("quorum = 2\nquorum_hysteresis = 1", ""), "quorum", "found at 3"),
    ];
    for (text, key, message) in table {
        let outcome = parse(&text, 0);
        assert!(outcome.desired.is_some(), "{text}: {:#?}", outcome.problems);
        let [warning] = outcome.problems.as_slice() else { panic!("{text}: {:#?}", outcome.problems) };
        assert!(warning.key.ends_with(key) && warning.message.contains(message), "{warning:#?}");
        assert!(warning.help.is_some(), "{warning:#?}");
    }
}

#[test]
fn words_of_keepalived_and_haproxy_are_recognised() {
    for (inside, suggestion) in [
        ("type = \"tcp\", delay_loop = 6", "interval"),
        ("type = \"tcp\", inter = 6", "interval"),
        ("type = \"tcp\", connect_timeout = 3", "timeout"),
        ("type = \"tcp\", connect_port = 80", "port"),
        ("type = \"tcp\", connect_ip = \"10.0.0.1\"", "address"),
        ("type = \"tcp\", bindto = \"10.0.0.1\"", "source"),
        ("type = \"tcp\", retry = 3", "retries"),
        ("type = \"tcp\", delay_before_retry = 1", "retry_delay"),
        ("type = \"http\", status_code = 200", "status"),
        ("type = \"http\", virtualhost = \"a\"", "host"),
        ("type = \"http\", regex_no_match = \"a\"", "not_regex"),
        ("type = \"script\", command = [\"/a\"], misc_dynamic = true", "dynamic"),
        ("type = \"smtp\", helo_name = \"a\"", "helo"),
        ("type = \"HTTP_GET\"", "http"),
        ("type = \"SSL_GET\"", "https"),
        ("type = \"TCP_CHECK\"", "tcp"),
        ("type = \"MISC_CHECK\"", "script"),
        ("type = \"BFD\"", ""),
    ] {
        assert_eq!(only_error(&check(inside)).suggestion.unwrap_or_default(), suggestion, "{inside}");
    }
    for (line, help) in [
        ("delay_loop = 6", "`interval` in `[[service.check]]`"),
        ("alpha = true", "first_state"),
        ("inhibit_on_failure = true", "on_failure = \"inhibit\""),
        ("ha_suspend = true", "backup"),
        ("HTTP_GET = {}", "type = \"http\""),
        ("TCP_CHECK = {}", "type = \"tcp\""),
        ("MISC_CHECK = {}", "type = \"script\""),
        ("omega = true", "told"),
    ] {
        let problem = only_error(&service(line, ""));
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{line}: {problem:#?}");
        // The same in a server, where keepalived has most of them.
        let problem = only_error(&service("", &format!(", {line}")));
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{line}: {problem:#?}");
    }
    for (line, suggestion) in
        [("hysteresis = 0", "quorum_hysteresis"), ("slowstart = 3", "slow_start"), ("health_check = {}", "check")]
    {
        assert_eq!(only_error(&service(line, "")).suggestion.as_deref(), Some(suggestion), "{line}");
    }
}
