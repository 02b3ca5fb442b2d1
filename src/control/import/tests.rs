//! Imports as a whole: what services and routers come to, and that whatever the input, the output is taken or refused.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::keepalived::keywords::{CONTEXTS, Context};
use super::*;
use crate::control::config;
use crate::model::{CheckKind, Desired, FirstState, Method, OnFailure, Place as Where};

fn wishes() -> Wishes {
    Wishes { config_id: "main".to_owned(), interfaces: Vec::new() }
}

/// Imports one text that includes nothing.
fn import(text: &str) -> Result<Made, Broken> {
    let read = |path: &Path| match path == Path::new("k.conf") {
        true => Ok(text.as_bytes().to_vec()),
        false => Err("no such file".to_owned()),
    };
    let list = |_: &Path| Ok(Vec::new());
    from_keepalived(Path::new("k.conf"), &wishes(), Disk { read: &read, list: &list })
}

fn taken(made: &Made) -> Desired {
    let outcome = config::parse(&made.text, 0);
    let problems = config::render_all("import.toml", &outcome.problems);
    outcome.desired.unwrap_or_else(|| panic!("{}\n{problems}", made.text))
}

fn sound(text: &str) -> (Desired, Vec<String>) {
    let made = import(text).unwrap_or_else(|broken| panic!("{broken}"));
    (taken(&made), made.report.iter().map(ToString::to_string).collect())
}

const SERVICE: &str = "virtual_server 192.0.2.10 80 {\n lb_algo wrr\n lb_kind DR\n delay_loop 6\n \
                       real_server 10.0.0.11 80 {\n  TCP_CHECK {\n  }\n }\n}\n";

#[test]
fn times_that_are_not_written_are_those_of_keepalived() {
    let (desired, _) = sound("virtual_server 192.0.2.10 80 {\n real_server 10.0.0.11 80 {\n TCP_CHECK {\n}\n}\n}\n");
    let service = &desired.services[0];
    assert_eq!((service.method, service.servers[0].weight), (Method::Nat, 1));
    let pace = &service.servers[0].health.checks[0].pace;
    let seconds =
        [pace.interval, pace.timeout, pace.retry_delay, pace.jitter, pace.warmup].map(|time| time.as_secs_f64());
    assert_eq!(seconds, [60.0, 5.0, 1.0, 0.0, 60.0]);
    assert_eq!((pace.rise, pace.fall, pace.retries, pace.first), (1, 1, 1, FirstState::Up));
}

#[test]
fn a_checker_has_the_times_of_its_server_and_that_those_of_the_service() {
    let text = "virtual_server 192.0.2.10 53 {\n protocol UDP\n delay_loop 7\n retry 4\n alpha\n real_server 10.0.0.11 53 {\n \
                delay_loop 8\n DNS_CHECK {\n retry 2\n type A\n name a.example.\n}\n MISC_CHECK {\n misc_path \"/bin/c x\"\n \
                misc_dynamic\n}\n}\n}\n";
    let (desired, _) = sound(text);
    let checks = &desired.services[0].servers[0].health.checks;
    let of = |index: usize| {
        (checks[index].pace.interval.as_secs(), checks[index].pace.retries, checks[index].pace.timeout.as_secs())
    };
    assert_eq!((of(0), of(1)), ((8, 2, 5), (8, 4, 8)));
    assert_eq!(checks[0].pace.retry_delay.as_secs(), 8, "that of DNS_CHECK is delay_loop");
    assert!(checks.iter().all(|check| check.pace.first == FirstState::Down), "alpha");
    let CheckKind::Script(script) = &checks[1].kind else { panic!("{checks:?}") };
    assert_eq!(script.command, ["/bin/c", "x"]);
    assert!(script.dynamic);
}

#[test]
fn a_server_without_a_checker_is_not_checked() {
    let (desired, _) = sound("virtual_server 192.0.2.10 80 {\n real_server 10.0.0.11 80 {\n}\n}\n");
    assert!(desired.services[0].servers[0].health.checks.is_empty());
    assert!(!desired.services[0].servers[0].health.default_check);
    let text = "virtual_server 192.0.2.10 80 {\n real_server 10.0.0.11 80 {\n BFD_CHECK {\n name x\n}\n}\n}\n";
    let (desired, report) = sound(text);
    assert!(desired.services[0].servers[0].health.checks.is_empty());
    assert!(report.iter().any(|line| line.starts_with("k.conf:3: `BFD_CHECK` is left out")), "{report:?}");
}

#[test]
fn old_and_new_spellings_are_the_same() {
    let old = "virtual_server 192.0.2.10 80 {\n lb_algo sh\n lb_kind TUN\n real_server 10.0.0.11 80 {\n HTTP_GET {\n \
               url {\n path /\n}\n nb_get_retry 2\n}\n}\n}\n";
    let new = old.replace("lb_algo", "lvs_sched").replace("lb_kind", "lvs_method").replace("nb_get_retry", "retry");
    assert_eq!(sound(old).0, sound(&new).0);
    assert_eq!(sound(old).0.services[0].method, Method::Ipip);
}

#[test]
fn all_of_a_service() {
    let text = "virtual_server 192.0.2.10 443 {\n lvs_sched mh\n flag-1\n mh-port\n lvs_method NAT\n persistence_timeout\n \
                persistence_granularity 255.255.255.0\n quorum 2\n hysteresis 1\n quorum_up \"/bin/up a\" nobody\n \
                quorum_down /bin/down nobody\n sorry_server 10.0.0.99 8443\n sorry_server_lvs_method DR\n inhibit_on_failure\n \
                virtualhost www.example.org\n real_server 10.0.0.11 8443 {\n weight 3\n uthreshold 100\n lthreshold 80\n \
                inhibit_on_failure off\n notify_up /bin/u\n notify_down '/bin/d x'\n SSL_GET {\n enable_sni\n url {\n path /a\n \
                status_code 200-299 301\n digest 9b3a0c85a887a256d6939da88aabd8cd\n}\n url {\n path /b\n regex 'a.b'\n regex_options \
                caseless\n regex_no_match\n}\n connect_port 9443\n}\n}\n}\n";
    let (desired, report) = sound(text);
    let service = &desired.services[0];
    let persistence = service.persistence.as_ref().map(|p| format!("{p:?}")).unwrap_or_default();
    assert!(persistence.contains("360") && persistence.contains("24"), "{persistence}");
    assert_eq!((service.health.quorum.least, service.health.quorum.hysteresis), (2, 1));
    assert_eq!(service.health.script_user.as_deref(), Some("nobody"));
    let sorry = service.health.sorry.as_ref().expect("a sorry server");
    assert_eq!((sorry.address.to_string().as_str(), sorry.method, sorry.port), ("10.0.0.99", Method::Dr, None));
    let server = &service.servers[0];
    assert_eq!((server.port, server.weight, server.health.on_failure), (Some(8443), 3, OnFailure::Remove));
    let check = &server.health.checks[0];
    assert_eq!(check.target.port, 9443);
    let CheckKind::Http(http) = &check.kind else { panic!("{check:?}") };
    assert!(!http.version_11 && http.requests.len() == 2, "{http:?}");
    assert_eq!(http.tls.as_ref().and_then(|tls| tls.name.clone()).as_deref(), Some("www.example.org"));
    assert_eq!(http.requests[0].status, [(200, 299), (301, 301)]);
    assert_eq!(format!("{:?}", http.requests[1].body), "Some(NotRegex(\"(?i)a.b\"))");
    assert_eq!(report.len(), 1, "the port of the sorry server alone: {report:?}");
}

#[test]
fn groups_are_a_service_for_each_address() {
    let text = "virtual_server_group G {\n 192.0.2.10-12 80\n 2001:db8::1 80\n fwmark 3\n}\nvirtual_server group G {\n lb_kind TUN\n \
                real_server 10.0.0.11 80 {\n TCP_CHECK {\n}\n}\n}\nvirtual_server fwmark 7 {\n real_server 10.0.0.12 80 {\n}\n}\n";
    let (desired, report) = sound(text);
    let addresses: Vec<String> = desired.services.iter().map(|service| service.key.address.to_string()).collect();
    assert_eq!(addresses, ["192.0.2.10", "192.0.2.11", "192.0.2.12", "2001:db8::1"]);
    for start in ["k.conf:4: `fwmark 3` is left out", "k.conf:13: `virtual_server fwmark 7` is left out"] {
        assert!(report.iter().any(|line| line.starts_with(start)), "{start}: {report:?}");
    }
}

fn router(extra: &str) -> String {
    format!(
        "vrrp_instance VI {{\n interface eth0\n virtual_router_id 51\n {extra}\n virtual_ipaddress {{\n 192.0.2.10/24 dev eth0 label \
         eth0:1\n }}\n}}\n"
    )
}

#[test]
fn addresses_of_services_are_in_the_engine_and_others_in_the_kernel() {
    let (desired, _) = sound(&[router("").as_str(), SERVICE].concat());
    assert_eq!(desired.vrrp.routers[0].place, Where::Engine);
    assert_eq!(desired.interfaces[0].name, "eth0");
    let (desired, _) = sound(&router(""));
    let one = &desired.vrrp.routers[0];
    assert_eq!(one.place, Where::Kernel);
    assert_eq!(one.addresses[0].label.as_deref(), Some("eth0:1"));
    assert!(desired.interfaces.is_empty());
}

#[test]
fn the_gateway_of_servers_behind_nat_is_in_the_engine() {
    let nat = SERVICE.replace("lb_kind DR", "lb_kind NAT");
    let inside =
        "vrrp_instance IN {\n interface eth1.7\n virtual_router_id 52\n virtual_ipaddress {\n 10.0.0.254/24\n}\n}\n";
    let (desired, report) = sound(&[router("").as_str(), inside, &nat].concat());
    assert_eq!(desired.vrrp.routers[1].place, Where::Engine);
    let names: Vec<&str> = desired.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["eth0", "eth1"]);
    assert!(report.iter().any(|line| line.contains("taken for the gateway")), "{report:?}");
    // Without NAT it is nothing to the engine.
    let (desired, _) = sound(&[router("").as_str(), inside, SERVICE].concat());
    assert_eq!(desired.vrrp.routers[1].place, Where::Kernel);
}

#[test]
fn what_keepalived_makes_of_an_instance_is_written_out() {
    let of = |extra: &str| {
        let (desired, report) = sound(&router(extra));
        (desired.vrrp.routers[0].clone(), report)
    };
    let (one, report) = of("state MASTER\n nopreempt\n advert_int 1.4");
    assert_eq!((one.priority, one.starts_as_master, one.preempt, one.interval.as_secs_f64()), (255, true, true, 1.0));
    assert_eq!(report.len(), 3, "{report:?}");
    let (one, report) = of("authentication {\n auth_type PASS\n auth_pass secret-words\n}");
    assert_eq!(one.password, Some(*b"secret-w"));
    assert_eq!(report.len(), 1, "{report:?}");
    let (one, report) = of("version 3\n authentication {\n auth_pass x\n}\n advert_int 0.25");
    assert_eq!((one.password, one.interval.as_millis()), (None, 250));
    assert!(report[0].contains("version 3 has no passwords"), "{report:?}");
    let (one, _) =
        of("unicast_src_ip 192.0.2.2\n unicast_peer {\n 192.0.2.3 min_ttl 254 max_ttl 255\n}\n priority 300");
    let unicast = one.unicast.expect("peers");
    assert_eq!((unicast.peers.len(), unicast.ttl, one.priority), (1, Some((254, 255)), 100));
    let (one, _) = of("notify \"/bin/n a\"\n notify_master \"killall -0 x\"");
    assert_eq!(one.notify.any, Some(vec!["/bin/n".into(), "a".into()]));
    assert_eq!(one.notify.master, Some(["/usr/bin/env", "killall", "-0", "x"].map(String::from).to_vec()));
}

#[test]
fn weights_in_a_sync_group_are_what_keepalived_makes_of_them() {
    let script = "vrrp_script s {\n script /bin/s\n weight -20\n}\n";
    let two = "vrrp_instance B {\n interface eth1\n virtual_router_id 1\n virtual_ipaddress {\n 192.0.2.20\n}\n}\n";
    let group = "vrrp_sync_group G {\n group {\n VI\n B\n}\n}\n";
    let weighted = group.replace("}\n}\n", "}\n sync_group_tracking_weight\n}\n");
    let router = router("track_script {\n s\n}");
    let weight = |text: &[&str]| sound(&text.concat()).0.vrrp.routers[0].tracks[0].weight;
    assert_eq!(weight(&[script, &router, two]), -20);
    assert_eq!(weight(&[script, &router, two, group]), 0);
    assert_eq!(weight(&[script, &router, two, &weighted]), -20);
}

#[test]
fn global_settings_reach_what_they_are_for() {
    let text = "global_defs {\n vrrp_version 3\n vrrp_garp_master_repeat 2\n vrrp_garp_master_delay 9\n script_user nobody\n \
                vrrp_notify_fifo /run/f\n lvs_timeouts tcp 100 udp 30\n vrrp_rt_priority 20\n router_id x\n nonsens y\n}\n";
    let (desired, report) = sound(&[text, router("garp_master_delay 3").as_str(), SERVICE].concat());
    let one = &desired.vrrp.routers[0];
    assert_eq!(format!("{:?}", one.version), "V3");
    assert_eq!((one.announcements.repeat, one.announcements.delay.as_secs()), (2, 3));
    assert_eq!(desired.vrrp.settings.notify_user.as_deref(), Some("nobody"));
    assert_eq!(desired.vrrp.settings.realtime, 20);
    assert_eq!(desired.services[0].health.script_user.as_deref(), Some("nobody"));
    let starts =
        ["k.conf:9: `router_id x` is left out: only", "k.conf:10: `nonsens y` is left out: it is not a keyword"];
    for start in starts {
        assert!(report.iter().any(|line| line.starts_with(start)), "{start}: {report:?}");
    }
}

#[test]
fn what_the_configuration_refuses_is_left_out_with_its_reason() {
    let twice = [SERVICE, &SERVICE.replace("10.0.0.11", "10.0.0.12"), &SERVICE.replace(".10 80", ".11 80")].concat();
    let (desired, report) = sound(&twice);
    assert_eq!(desired.services.len(), 2);
    assert!(
        report.iter().any(|line| line.starts_with("k.conf:10: ") && line.contains("overlaps the service at k.conf:1;")),
        "{report:?}"
    );
    let (desired, report) = sound(&router("track_script {\n none\n}"));
    assert!(desired.vrrp.routers[0].tracks.is_empty());
    assert!(report.iter().any(|line| line.contains("there is no `[[track_script]]` named `none`")), "{report:?}");
}

#[test]
fn a_file_of_which_nothing_is_left_is_one_to_begin_with() {
    for text in [
        "",
        "global_defs {\n}\n",
        "virtual_server fwmark 3 {\n real_server 10.0.0.11 80 {\n}\n}\n",
        "vrrp_instance A {\n}\n",
    ] {
        let (desired, _) = sound(text);
        assert!(desired.services.is_empty() && desired.vrrp.routers.is_empty());
        assert_eq!(desired.interfaces[0].name, "eth0");
    }
}

#[test]
fn notes_about_what_is_in_a_part_that_goes_stay_in_the_file() {
    let text = SERVICE.replace("10.0.0.11 80 {\n", "127.0.0.1 80 {\n weight 1000000\n fwmark 3\n");
    let made = import(&text).expect("sound");
    for note in &made.report {
        let words = |text: &str| text.split_whitespace().filter(|word| *word != "#").collect::<Vec<_>>().join(" ");
        assert!(words(&made.text).contains(&words(&note.to_string())), "{note}\n{}", made.text);
    }
    assert_eq!(made.left_out(), 3, "{:?}", made.report);
}

/// Every keyword of keepalived.conf(5), each in its place.
fn everything() -> String {
    let mut text = String::new();
    let block = |head: &str, context: Context, inner: &str| {
        let lines: String = context.all().map(|word| format!(" {word} 1\n")).collect();
        format!("{head} {{\n{lines}{inner}}}\n")
    };
    text += &block("global_defs", Context::Global, "");
    text += &block("vrrp_instance A", Context::Instance, "");
    text += &block("vrrp_sync_group G", Context::SyncGroup, "");
    text += &block("vrrp_script s", Context::Script, "");
    text += &block("track_file f", Context::TrackFile, "");
    text += &block("vrrp_track_process p", Context::TrackProcess, "");
    let url = block("url", Context::Url, "");
    let kinds = ["TCP", "HTTP_GET", "SSL_GET", "SMTP", "DNS", "MISC", "UDP", "PING", "FILE"];
    let kind = |name: &str| if name.ends_with("GET") { name.to_owned() } else { format!("{name}_CHECK") };
    let checks: String = kinds.iter().map(|name| block(&kind(name), Context::Checker, &url)).collect();
    let real = block("real_server 10.0.0.11 80", Context::RealServer, &checks);
    text += &block("virtual_server 192.0.2.10 80", Context::VirtualServer, &real);
    text += &Context::Top.all().map(|word| format!("{word} x {{\n 1 2\n}}\n")).collect::<String>();
    text
}

/// That each statement is either in the new file or in the report, by its line or by that of a block around it.
fn nothing_is_dropped(text: &str) -> Result<(), String> {
    let read = |_: &Path| Ok(text.as_bytes().to_vec());
    let list = |_: &Path| Ok(Vec::new());
    let Ok(imported) = keepalived::import(Path::new("k.conf"), &wishes(), Disk { read: &read, list: &list }) else {
        return Ok(());
    };
    let generic = imported.report.iter().find(|note| note.reason == "nothing is made of it");
    if let Some(note) = generic {
        return Err(format!("nobody looked at {note}"));
    }
    let left_out = imported.report.iter().filter(|note| note.weight == Weight::LeftOut);
    let reported: Vec<usize> = left_out.map(|note| note.at.line).collect();
    // The blocks that a statement is in.
    let mut around: Vec<usize> = Vec::new();
    for one in &imported.statements {
        around.truncate(one.depth);
        around.push(one.at.line);
        if !one.taken && !around.iter().any(|line| reported.contains(line)) {
            return Err(format!("{}: `{}` is neither taken nor reported", one.at, one.words));
        }
    }
    Ok(())
}

#[test]
fn every_keyword_is_taken_or_reported() {
    let text = everything();
    nothing_is_dropped(&text).expect("nothing is dropped");
    for context in CONTEXTS {
        for keyword in context.translated() {
            assert!(text.contains(keyword), "{context:?} {keyword}");
        }
    }
    match import(&text) {
        Ok(made) => drop(taken(&made)),
        Err(broken) => panic!("{broken}"),
    }
    // Not one of them is a stranger where it belongs.
    let made = import(&text).expect("imported");
    let stranger = made.report.iter().find(|note| note.reason.starts_with("it is not a keyword") && note.what != "1 2");
    assert_eq!(stranger, None);
}

/// Lines of the golden file that are taken and change nothing by being there, and why.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("init_fail", "a router waits for the first result anyway"),
    ("auth_type PASS", "a password has no other type"),
    ("protocol TCP", "the default"),
    ("lb_kind NAT", "the default"),
];

#[test]
fn each_line_that_is_taken_matters() {
    let text = include_str!("../../../tests/golden/import/much.keepalived.conf");
    let lines: Vec<&str> = text.lines().collect();
    let read_as = |text: String| {
        let read = move |_: &Path| Ok(text.clone().into_bytes());
        let list = |_: &Path| Ok(Vec::new());
        let wishes = Wishes { config_id: "lb1".to_owned(), interfaces: Vec::new() };
        let imported = keepalived::import(Path::new("k.conf"), &wishes, Disk { read: &read, list: &list });
        imported.map(|imported| (imported.document.write().text, imported.statements))
    };
    let (whole, statements) = read_as(text.to_owned()).expect("sound");
    let mut idle = Vec::new();
    let mut tried = 0;
    for (index, one) in statements.iter().enumerate().filter(|(_, one)| one.taken) {
        let leaf = statements.get(index + 1).is_none_or(|next| next.depth <= one.depth);
        let alone = lines[one.at.line - 1].split_whitespace().collect::<Vec<_>>().join(" ");
        if !leaf || alone.replace('"', "") != one.words {
            continue;
        }
        tried += 1;
        let without: Vec<&str> =
            (1..).zip(&lines).map(|(line, text)| if line == one.at.line { "" } else { text }).collect();
        if read_as(without.join("\n")).is_ok_and(|(text, _)| text == whole) {
            idle.push(one.words.as_str());
        }
    }
    assert!(tried > 50, "{tried}");
    let expected: BTreeSet<&str> = WITHOUT_EFFECT.iter().map(|(words, _)| *words).collect();
    assert_eq!(idle.into_iter().collect::<BTreeSet<_>>(), expected);
}

/// Words that statements are made of.
fn word() -> impl Strategy<Value = String> {
    let known: Vec<String> = CONTEXTS.iter().flat_map(|context| context.all()).map(str::to_owned).collect();
    let values = [
        "1",
        "0",
        "80",
        "255",
        "-20",
        "192.0.2.10",
        "10.0.0.11/24",
        "2001:db8::1",
        "fe80::1/64",
        "eth0",
        "A",
        "G",
        "/bin/x",
        "\"/bin/x y\"",
        "weight",
        "dev",
        "label",
        "group",
        "fwmark",
        "MASTER",
        "NAT",
        "DR",
        "TUN",
        "gue",
        "port",
        "PASS",
        "TCP",
        "UDP",
        "on",
        "x y",
        "'",
        "\"",
        "ü",
        "$A",
        "${A}",
        "~SEQ(A,1,3)",
        "@main",
        "\\",
        "#",
        "10.0.0.1-9",
        "0.5",
        "reverse",
        "wlc",
        "mh",
    ];
    prop_oneof![
        4 => proptest::sample::select(known),
        4 => proptest::sample::select(values.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
    ]
}

fn statement() -> impl Strategy<Value = String> {
    let words = proptest::collection::vec(word(), 1..5).prop_map(|words| words.join(" ")).boxed();
    words.clone().prop_recursive(4, 40, 8, move |inner| {
        (words.clone(), proptest::collection::vec(inner, 0..8))
            .prop_map(|(head, inner)| format!("{head} {{\n{}\n}}", inner.join("\n")))
    })
}

/// Blocks of the right kind around statements that may be wrong: these come further.
fn plausible() -> impl Strategy<Value = String> {
    let heads = [
        "vrrp_instance A",
        "vrrp_instance B",
        "vrrp_sync_group G",
        "vrrp_script s",
        "track_file f",
        "virtual_server 192.0.2.10 80",
        "virtual_server group G",
        "virtual_server_group G",
        "global_defs",
    ];
    let usual = "interface eth0\nvirtual_router_id 5\nvirtual_ipaddress {\n192.0.2.10\n}\nreal_server 10.0.0.11 80 {\nHTTP_GET {\nurl {\n}\n}\n";
    (proptest::sample::select(heads.to_vec()), any::<bool>(), proptest::collection::vec(statement(), 0..6)).prop_map(
        move |(head, with, inner)| {
            let (usual, end) = if with { (usual, "\n}") } else { ("", "") };
            format!("{head} {{\n{usual}\n{}{end}\n}}", inner.join("\n"))
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_imported_is_taken_or_refused(parts in proptest::collection::vec(prop_oneof![statement(), plausible()], 0..8)) {
        let text = parts.join("\n");
        if let Err(dropped) = nothing_is_dropped(&text) {
            prop_assert!(false, "{}\n{}", dropped, text);
        }
        match import(&text) {
            Ok(made) => {
                let outcome = config::parse(&made.text, 0);
                prop_assert!(outcome.desired.is_some(), "{}\n{}", text, made.text);
            }
            Err(broken) => prop_assert!(!broken.message.is_empty()),
        }
    }

    #[test]
    fn whatever_rules_are_imported_are_taken_or_refused(lines in proptest::collection::vec(rule(), 0..12)) {
        let text = lines.join("\n");
        if let Ok(made) = from_ipvsadm(text.as_bytes(), "rules", &[]) {
            let outcome = config::parse(&made.text, 0);
            prop_assert!(outcome.desired.is_some(), "{}\n{}", text, made.text);
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let read = |_: &Path| Ok(bytes.clone());
        let list = |_: &Path| Ok(Vec::new());
        let _ = from_keepalived(Path::new("k"), &wishes(), Disk { read: &read, list: &list });
        let _ = from_ipvsadm(&bytes, "rules", &[]);
    }
}

fn rule() -> impl Strategy<Value = String> {
    let service = proptest::sample::select(vec![
        "-t 192.0.2.10:80",
        "-u 192.0.2.10:53",
        "--tcp-service=[2001:db8::1]:80",
        "-t 192.0.2.11:0",
        "-f 3",
    ]);
    let command = proptest::sample::select(vec![
        "-A",
        "ipvsadm -A",
        "-E",
        "-a",
        "-a",
        "-a",
        "-e",
        "-d",
        "-D",
        "-C",
        "--set 1 2 3",
        "-Z",
    ]);
    let option = proptest::sample::select(vec![
        "-r 10.0.0.11",
        "-r 10.0.0.12:8080",
        "-r 2001:db8::9",
        "-g",
        "-m",
        "-i",
        "-w 3",
        "-w0",
        "-x 5",
        "-y 2",
        "-s rr",
        "-s sh",
        "-b sh-port",
        "-b flag-1",
        "-p",
        "-p 60",
        "-M 255.255.255.0",
        "--ops",
        "--pe sip",
        "--tun-type gue --tun-port 6080",
        "-6",
        "# x",
    ]);
    (command, service, proptest::collection::vec(option, 0..4))
        .prop_map(|(command, service, options)| format!("{command} {service} {}", options.join(" ")))
}

mod rules {
    use super::*;

    fn rules(text: &str) -> Result<Made, Broken> {
        from_ipvsadm(text.as_bytes(), "rules", &["eth0".to_owned()])
    }

    #[test]
    fn rules_are_run_one_after_the_other() {
        let text = "#!/bin/sh\nipvsadm -C\n-A -t 192.0.2.10:80 -s wrr -p 300 -M 255.255.255.0\n\
                    /sbin/ipvsadm --add-server --tcp-service 192.0.2.10:80 -r 10.0.0.11:8080 -m -w 3 -x 100 -y 80\n\
                    -at 192.0.2.10:80 -r 10.0.0.12 -i --tun-type gue --tun-port 5555\n-a -t 192.0.2.10:80 -r 10.0.0.13:80 -g\n\
                    -e -t 192.0.2.10:80 -r 10.0.0.13:80 -g -w 7\n-d -t 192.0.2.10:80 -r 10.0.0.12:80\n\
                    -A -u [2001:db8::10]:53 -s mh -b flag-2,mh-fallback --ops\n-E -u [2001:db8::10]:53 -s rr\n\
                    -A -t 192.0.2.11:0 -p\n-A -t 192.0.2.12:1\n-D -t 192.0.2.12:1\n--set 100 0 30\n";
        let made = rules(text).unwrap_or_else(|broken| panic!("{broken}"));
        let desired = taken(&made);
        let names: Vec<String> = desired.services.iter().map(|service| service.key.to_string()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        let web = &desired.services[0];
        let of = |index: usize| {
            (
                web.servers[index].address.to_string(),
                web.servers[index].port,
                web.servers[index].weight,
                web.servers[index].method,
            )
        };
        assert_eq!(of(0), ("10.0.0.11".to_owned(), Some(8080), 3, Method::Nat));
        assert_eq!(of(1), ("10.0.0.13".to_owned(), None, 7, Method::Dr));
        assert!(web.servers.iter().all(|server| server.health.checks.is_empty()));
        assert_eq!(desired.services[1].scheduler.name, "rr");
        assert_eq!(desired.timeouts.tcp_established, 100);
    }

    #[test]
    fn wrong_rules_have_their_line() {
        let of = |text: &str| rules(text).map(|_| ()).expect_err(text).to_string();
        assert!(of("-A -t 192.0.2.10:80\n-A -t 192.0.2.10:http\n").starts_with("rules:2: `http` is no port"));
        assert!(of("-A -t web:80\n").contains("`ipvsadm -S -n`"));
        assert!(of("-a -t 192.0.2.10:80 -r 10.0.0.1\n").starts_with("rules:1: there is no such service above"));
        assert!(of("-A -t 192.0.2.10:80 --nonsense\n").contains("`--nonsense` is no option"));
        assert!(of("-A -t 192.0.2.10:80 -s best\n").contains("no scheduler `best`"));
        assert!(of("ipvsadm -A -t $VIP:80\n").contains("`$` needs a shell"));
        assert!(of("-A -D -t 192.0.2.10:80\n").contains("two commands"));
        assert!(of("\0\n").contains("no line of rules"));
        assert!(of(&"x".repeat(70_000)).contains("no line of rules"));
    }

    #[test]
    fn marks_and_daemons_are_reported() {
        let made =
            rules("-A -f 3 -s rr\n-A -t 192.0.2.10:80\n--start-daemon master --mcast-interface eth0\n").expect("sound");
        assert_eq!(made.left_out(), 2, "{:?}", made.report);
        assert!(
            made.text.contains("# rules:1: `-A -f 3 -s rr` is left out: there are no firewall marks"),
            "{}",
            made.text
        );
    }
}
