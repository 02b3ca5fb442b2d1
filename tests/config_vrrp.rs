//! VRRP in the configuration file: what is written, what the defaults are, and what each mistake says.

use std::time::Duration;

use evenkeel::control::config::{Outcome, Problem, parse, render};
use evenkeel::model::{
    Announcements, Desired, Notify, Place, Track, Tracked, Unicast, VirtualAddress, VrrpChecksum, VrrpSettings,
    VrrpVersion,
};

/// A sound router in the engine with more lines in it, before its end.
fn router(lines: &str) -> String {
    let or = |key: &str, line| if lines.lines().any(|written| written.starts_with(key)) { "" } else { line };
    let interface = or("interface =", "interface = \"eth0\"\n");
    let vrid = or("vrid =", "vrid = 10\n");
    let address = or("address =", "address = [\"192.0.2.10/24\"]\n");
    format!("{ENGINE}[[virtual_router]]\nname = \"vi\"\n{interface}{vrid}{address}{lines}\n")
}

/// An engine with a service on the address.
const ENGINE: &str = "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\nport = 80\n\
                      server = [{ address = \"10.0.0.11\", method = \"nat\" }]\n";

/// A sound router in the kernel, without an engine.
fn kernel(lines: &str) -> String {
    router(&format!("place = \"kernel\"\n{lines}")).replace(ENGINE, "")
}

fn read(text: &str) -> Outcome {
    parse(text, 0)
}

#[track_caller]
fn taken(text: &str) -> Desired {
    let outcome = read(text);
    assert_eq!(outcome.problems, [], "{text}");
    let desired = outcome.desired.unwrap();
    let again = read(&render::render(&desired));
    assert_eq!(again.desired.as_ref(), Some(&desired), "{:#?}", again.problems);
    desired
}

#[track_caller]
fn only_error(text: &str) -> Problem {
    let outcome = read(text);
    let errors: Vec<&Problem> = outcome.errors().collect();
    assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
    assert!(outcome.desired.is_none());
    errors[0].clone()
}

fn address(text: &str, prefix: u8) -> VirtualAddress {
    VirtualAddress { address: text.parse().unwrap(), prefix, device: None, label: None }
}

#[test]
fn the_least_router_has_keepaliveds_defaults() {
    let vrrp = taken(&router("")).vrrp;
    assert_eq!(vrrp.settings, VrrpSettings::default());
    let least = &vrrp.routers[0];
    assert_eq!((least.name.as_str(), least.interface.as_str(), least.vrid), ("vi", "eth0", 10));
    assert_eq!((least.version, least.priority, least.starts_as_master), (VrrpVersion::V2, 100, false));
    assert_eq!((least.interval, least.down_adverts), (Duration::from_secs(1), 3));
    assert_eq!((&least.addresses, &least.excluded), (&vec![address("192.0.2.10", 24)], &vec![]));
    assert_eq!((least.place, least.checksum), (Place::Engine, VrrpChecksum::PseudoHeader));
    assert_eq!((least.password, least.source, &least.unicast), (None, None, &None));
    assert_eq!((least.preempt, least.preempt_delay), (true, Duration::ZERO));
    assert_eq!((least.accept, least.virtual_mac), (true, false));
    assert_eq!(least.announcements, Announcements::default());
    assert_eq!(least.tracks, [Track { what: Tracked::Engine, weight: 0 }]);
    assert_eq!(least.notify, Notify::default());
    assert_eq!(taken(&kernel("")).vrrp.routers[0].tracks, []);
    let v6 = taken(&router("address = [\"fe80::10\", \"2001:db8::10\"]\nexcluded = \"192.0.2.10\""));
    assert_eq!(v6.vrrp.routers[0].version, VrrpVersion::V3);
    let owner = taken(&router("priority = 255"));
    assert!(owner.vrrp.routers[0].starts_as_master);
    assert!(!taken(&router("priority = 255\nstate = \"backup\"")).vrrp.routers[0].starts_as_master);
    assert_eq!(taken("[[interface]]\nname = \"eth0\"").vrrp, Default::default());
}

#[test]
fn everything_is_taken_as_written() {
    let text = r#"
[vrrp]
fifo = "/run/vrrp"
realtime = 0
stall = 0.25
handover = 0
notify_user = "nobody"
[[track_script]]
name = "proxy"
script = "/usr/bin/check 'a b' \"c\\\" d\""
interval = 3
rise = 2
weight = -20
user = "proxy"
[[track_file]]
name = "manual"
path = "/run/manual"
[[track_process]]
name = "squid"
process = "squid: worker"
quorum = 2
delay = 0.5
weight = 7
[[virtual_router]]
name = "one"
interface = "eth0"
vrid = 1
version = 3
priority = 200
state = "master"
interval = 0.05
address = [{ address = "192.0.2.10/24", device = "eth1", label = "eth1:1" }, "192.0.2.11"]
excluded = "2001:db8::10/64"
place = "kernel"
checksum = "message"
source = "10.0.0.1"
peers = ["10.0.0.2"]
peers_min_ttl = 254
down_adverts = 2
announce_repeat = 1
announce_delay = 0.5
announce_refresh = 60
announce_refresh_repeat = 2
track_interface = ["eth1", { name = "eth2", weight = 5 }]
track_script = ["proxy"]
track_file = ["manual"]
track_process = [{ name = "squid", weight = 0 }]
notify = "/bin/any"
notify_master = ["/bin/master", "with blank"]
[[virtual_router]]
name = "two"
interface = "eth0"
vrid = 1
priority = 101
preempt = false
address = ["fe80::10"]
place = "kernel"
[[sync_group]]
name = "both"
routers = ["one", "two"]
track_file = { name = "manual", weight = 2 }
notify_fault = "/bin/fault"
notify_stop = "/bin/stop"
notify_backup = "/bin/backup"
"#;
    let outcome = read(text);
    assert_eq!(outcome.errors().collect::<Vec<_>>(), Vec::<&Problem>::new());
    let desired = outcome.desired.unwrap();
    assert_eq!(read(&render::render(&desired)).desired.as_ref(), Some(&desired));
    let vrrp = desired.vrrp;
    let millis = Duration::from_millis;
    assert_eq!(
        vrrp.settings,
        VrrpSettings {
            fifo: Some("/run/vrrp".into()),
            realtime: 0,
            stall: millis(250),
            handover: Duration::ZERO,
            notify_user: Some("nobody".to_owned()),
        }
    );
    let script = &vrrp.scripts[0];
    assert_eq!(script.command, ["/usr/bin/check", "a b", "c\" d"]);
    assert_eq!((script.interval, script.timeout), (millis(3000), millis(3000)));
    assert_eq!((script.rise, script.fall, script.user.as_deref(), script.starts_good), (2, 1, Some("proxy"), false));
    assert_eq!((vrrp.files[0].name.as_str(), vrrp.files[0].path.to_str()), ("manual", Some("/run/manual")));
    let process = &vrrp.processes[0];
    assert_eq!((process.process.as_str(), process.quorum, process.delay), ("squid: worker", 2, millis(500)));
    let one = &vrrp.routers[0];
    let labelled = VirtualAddress {
        device: Some("eth1".to_owned()),
        label: Some("eth1:1".to_owned()),
        ..address("192.0.2.10", 24)
    };
    assert_eq!(one.addresses, [labelled, address("192.0.2.11", 32)]);
    assert_eq!(one.excluded, [address("2001:db8::10", 64)]);
    assert_eq!((one.priority, one.starts_as_master, one.interval), (200, true, millis(50)));
    assert_eq!((one.place, one.checksum), (Place::Kernel, VrrpChecksum::Message));
    assert_eq!(one.source, Some("10.0.0.1".parse().unwrap()));
    let peers = vec!["10.0.0.2".parse().unwrap()];
    assert_eq!(one.unicast, Some(Unicast { peers, ttl: Some((254, 255)) }));
    let announcements = Announcements { repeat: 1, delay: millis(500), refresh: millis(60_000), refresh_repeat: 2 };
    assert_eq!((one.announcements, one.down_adverts), (announcements, 2));
    let track = |what, weight| Track { what, weight };
    assert_eq!(
        one.tracks,
        [
            track(Tracked::Interface("eth1".to_owned()), 0),
            track(Tracked::Interface("eth2".to_owned()), 5),
            track(Tracked::Script("proxy".to_owned()), -20),
            track(Tracked::File("manual".to_owned()), 1),
            track(Tracked::Process("squid".to_owned()), 0),
        ]
    );
    assert_eq!(one.notify.any.as_deref(), Some(&["/bin/any".to_owned()][..]));
    assert_eq!(one.notify.master.as_deref().unwrap(), ["/bin/master", "with blank"]);
    assert_eq!((vrrp.routers[1].is_v6(), vrrp.routers[1].preempt), (true, false));
    let group = &vrrp.groups[0];
    assert_eq!(group.routers, ["one", "two"]);
    assert_eq!(group.tracks, [track(Tracked::File("manual".to_owned()), 2)]);
    assert!(group.notify.fault.is_some() && group.notify.stop.is_some() && group.notify.backup.is_some());
    let secret = taken(&kernel("password = \"1111\"")).vrrp;
    assert_eq!(secret.routers[0].password, Some(*b"1111\0\0\0\0"));
}

#[test]
fn mistakes_in_a_router_say_where_and_why() {
    let table: &[(&str, &str, &str, &str)] = &[
        ("vrid = 0", "vrid", "0 is not permitted", "the least is 1"),
        ("vrid = 256", "vrid", "256 is not permitted", "the most is 255"),
        ("version = 4", "version", "4 is not permitted", "the nearest is 3"),
        ("priority = 0", "priority", "0 is not permitted", "the least is 1"),
        ("state = \"master\"", "priority", "says its priority", "keepalived takes 255"),
        ("state = \"MASTER\"\npriority = 7", "state", "unknown word \"MASTER\"", ""),
        ("interval = 0.1", "interval", "version 2 counts whole seconds", "`version = 3` on all appliances"),
        ("interval = 1.5", "interval", "version 2 counts whole seconds", "`interval = 2`"),
        ("interval = 0", "interval", "0 is not permitted", "the least is 0.01"),
        ("interval = -1", "interval", "-1 is not permitted", "the least is 0.01"),
        ("interval = nan", "interval", "nan is not permitted", "the least is 0.01"),
        ("interval = inf", "interval", "inf is not permitted", "the most is 255"),
        ("interval = 1e300", "interval", "1e300 is not permitted", "the most is 255"),
        ("interval = \"0.5\"", "interval", "does not belong here", "remove the quotes: `0.5`"),
        ("version = 3\ninterval = 0.125", "interval", "0.125 is not permitted", "the nearest are 0.12 and 0.13"),
        ("version = 3\ninterval = 41", "interval", "no intervals above 40.95", "a shorter one"),
        ("version = 3\npassword = \"x\"", "password", "version 3 has no passwords", "remove the key"),
        ("password = \"123456789\"", "password", "the password has 9 bytes", "the first 8"),
        ("password = \"\"", "password", "the password is empty", "remove the key"),
        ("password = \"a\\u0000b\"", "password", "a zero byte", "another"),
        ("password = 7388", "password", "a password is a text", "put it in quotes"),
        ("checksum = \"message\"", "checksum", "version 2 has one form", "remove the key"),
        ("address = [\"fe80::1\"]\nchecksum = \"message\"", "checksum", "IPv6 has one form", "remove the key"),
        ("address = [\"fe80::1\"]\nversion = 2", "version", "version 2 has no IPv6", "`version = 3`"),
        ("address = [\"192.0.2.10\", \"fe80::1\"]", "address[1]", "not an IPv4 address", "`excluded`"),
        ("address = [\"192.0.2.10/33\"]", "address[0]", "prefix length", ""),
        ("address = [\"192.0.2.10/+8\"]", "address[0]", "prefix length", ""),
        ("address = [\"192.0.2.10/\"]", "address[0]", "prefix length", ""),
        ("address = [\"192.0.2.0/24\"]", "address[0]", "the network itself", "no host has"),
        ("address = [\"192.0.2.255/24\"]", "address[0]", "broadcast address of its network", "no host has"),
        ("address = [\"127.0.0.1\"]", "address[0]", "a loopback address", "no host has"),
        ("address = [\"224.0.0.18\"]", "address[0]", "a multicast address", "no host has"),
        (
            "address = [\"192.0.2.10\", \"192.0.2.10/24\"]",
            "address[1]",
            "there twice: this router has it",
            "remove one",
        ),
        ("excluded = [\"192.0.2.10\"]", "excluded[0]", "there twice: this router has it", "remove one"),
        ("address = [\"10.0.0.11\"]", "address[0]", "the address of the server on line 7", "correct one"),
        ("address = [\"web\"]", "address[0]", "not an IP address", "host names"),
        (
            "address = [\"192.0.2.10/24 dev eth0 label eth0:1\"]",
            "address[0]",
            "not an IP address",
            "{ address = \"192.0.2.10/24\", device = \"eth0\", label = \"eth0:1\" }",
        ),
        ("address = []", "address", "the list is empty", "write what belongs in it"),
        ("address = [7]", "address[0]", "the integer 7 does not belong here", ""),
        ("address = [{ address = \"192.0.2.10\", dev = \"eth0\" }]", "address[0].dev", "unknown key", ""),
        (
            "address = [{ address = \"192.0.2.10\", device = \"eth1\" }]",
            "address[0].device",
            "the kernel does not have",
            "`place = \"kernel\"`",
        ),
        ("source = \"192.0.2.10\"", "source", "which moves", "remove the key"),
        ("source = \"fe80::2\"", "source", "not of the family", "remove the key"),
        ("source = \"0.0.0.0\"", "source", "the unspecified address", "remove the key"),
        ("peers = [\"fe80::2\"]", "peers", "not of the family", "remove it"),
        ("peers = [\"192.0.2.10\"]", "peers", "which moves", "remove it"),
        ("peers = [\"10.0.0.1\"]\nsource = \"10.0.0.1\"", "peers", "own adverts", "remove it"),
        ("peers = []", "peers", "the list is empty", ""),
        ("peers_min_ttl = 255", "peers_min_ttl", "no `peers`", "remove the key"),
        ("peers = [\"10.0.0.2\"]\npeers_min_ttl = 9\npeers_max_ttl = 8", "peers_max_ttl", "no TTL fits", "raise one"),
        ("priority = 255\npreempt = false", "preempt", "the owner of the addresses", "lower the priority"),
        ("priority = 9\nstate = \"master\"\npreempt = false", "preempt", "begins as master", "`state = \"backup\"`"),
        ("priority = 9\nstate = \"master\"\npreempt_delay = 9", "preempt_delay", "begins as master", "remove the key"),
        ("preempt = false\npreempt_delay = 9", "preempt_delay", "nothing to delay", "remove one"),
        ("preempt_delay = 1001", "preempt_delay", "1001 is not permitted", "the most is 1000"),
        ("down_adverts = 0", "down_adverts", "0 is not permitted", "the least is 1"),
        ("interface = \"eth1\"", "interface", "not an interface of the engine", "`place = \"kernel\"`"),
        ("track_service = [\"wob\"]", "track_service[0]", "no `[[service]]` named `wob`", "correct the name"),
        ("track_script = [\"x\"]", "track_script[0]", "no `[[track_script]]` named `x`", "add"),
        ("track_file = [{ name = \"x\" }]", "track_file[0].name", "no `[[track_file]]` named `x`", "add"),
        ("track_process = [\"x\"]", "track_process[0]", "no `[[track_process]]` named `x`", "add"),
        ("track_interface = [\"a\", \"a\"]", "track_interface[1]", "`a` is there twice", "remove one"),
        (
            "track_interface = [{ name = \"a\", weight = -254 }]",
            "track_interface[0].weight",
            "-254 is not permitted",
            "the least is -253",
        ),
        (
            "track_service = [{ name = \"web\", weight = 254 }]",
            "track_service[0].weight",
            "254 is not permitted",
            "the most is 253",
        ),
        ("notify = \"tell\"", "notify", "not the absolute path of a program", "command -v"),
        ("notify = \"\"", "notify", "there is no program", ""),
        ("notify = []", "notify", "there is no program", ""),
        ("notify = \"/bin/a 'b\"", "notify", "a quote without its end", "as a list"),
        ("notify = [\"/bin/a\", 1]", "notify[1]", "the integer 1 does not belong here", "in quotes"),
        ("notify = [\"/bin/a\", \"\\u0000\"]", "notify", "zero byte", ""),
        ("nopreempt = true", "nopreempt", "unknown key", "`preempt = false`"),
        ("authentication = { auth_type = \"PASS\" }", "authentication", "unknown key", "`password = "),
        ("smtp_alert = true", "smtp_alert", "unknown key", "`notify`"),
    ];
    for (line, key, message, help) in table {
        let problem = only_error(&router(line));
        assert_eq!(problem.key, format!("virtual_router[0].{key}"), "{line}: {problem:#?}");
        assert!(problem.line > 0 && problem.message.contains(message), "{line}: {problem:#?}");
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{line}: {problem:#?}");
        assert!(problem.expected.is_some(), "{line}: {problem:#?}");
        assert!(!line.contains("password") || !problem.render("x").contains("123456789"), "{problem:#?}");
    }
    let none = only_error(&router("").replace("address = [\"192.0.2.10/24\"]\n", ""));
    assert_eq!((none.key.as_str(), none.help.as_deref()), ("virtual_router[0].address", Some("add `address = [...]`")));
    assert_eq!(none.message, "there is no `[[virtual_router.address]]`");
}

#[test]
fn mistakes_of_a_router_in_the_kernel() {
    let table: &[(&str, &str, &str, &str)] = &[
        ("virtual_mac = true", "virtual_mac", "its interface's own MAC", "remove the key"),
        ("accept = false", "accept", "answers for them", "filter in the kernel"),
        ("track_engine = true", "track_engine", "no engine to track", "add `[[interface]]`"),
        (
            "address = [{ address = \"192.0.2.10\", label = \"eth1:1\" }]",
            "address[0].label",
            "does not begin with `eth0`",
            "`label = \"eth0:1\"`",
        ),
        (
            "address = [{ address = \"192.0.2.10\", label = \"eth0:12345678901\" }]",
            "address[0].label",
            "has 16 bytes",
            "\"eth0:1234567890\"",
        ),
        (
            "address = [{ address = \"fe80::1\", label = \"eth0:1\" }]",
            "address[0].label",
            "no labels for IPv6",
            "remove the key",
        ),
    ];
    for (line, key, message, help) in table {
        let problem = only_error(&kernel(line));
        assert_eq!(problem.key, format!("virtual_router[0].{key}"), "{line}: {problem:#?}");
        assert!(problem.message.contains(message), "{line}: {problem:#?}");
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{line}: {problem:#?}");
        assert!(problem.expected.is_some(), "{line}: {problem:#?}");
    }
    let vlan = router("interface = \"eth0.100\"");
    assert_eq!(taken(&vlan).vrrp.routers[0].interface, "eth0.100");
}

/// A second router of other numbers, with more lines.
fn second(lines: &str) -> String {
    let address = if lines.contains("address =") { "" } else { "address = [\"192.0.2.20\"]\n" };
    format!("[[virtual_router]]\nname = \"vj\"\ninterface = \"eth0\"\nvrid = 11\n{address}{lines}\n")
}

#[test]
fn mistakes_between_entries() {
    let group = |lines: &str| format!("{}{}[[sync_group]]\nname = \"g\"\n{lines}\n", router(""), second(""));
    let both = "routers = [\"vi\", \"vj\"]";
    let table: &[(String, &str, &str, &str)] = &[
        (
            format!("{}{}", router(""), second("").replace("vj", "vi")),
            "virtual_router[1].name",
            "the name `vi` is taken by the virtual router on line",
            "choose another",
        ),
        (
            format!("{}{}", router(""), second("").replace("vrid = 11", "vrid = 10")),
            "virtual_router[1].vrid",
            "the number 10 is taken on `eth0`",
            "choose another",
        ),
        (
            format!("{}{}", router(""), second("address = [\"192.0.2.10\"]")),
            "virtual_router[1].address[0]",
            "there twice: another virtual router has it",
            "remove one",
        ),
        (
            format!("{}[[address]]\naddress = \"192.0.2.20\"\n", router("excluded = \"192.0.2.20\"")),
            "address[0].address",
            "owned already, by a virtual router on line",
            "remove this entry",
        ),
        (
            router("excluded = \"192.0.2.20\"")
                .replace("method = \"nat\" }]", "method = \"full-nat\" }]\nlocal_addresses = \"192.0.2.20\""),
            "service[0].local_addresses",
            "the address of the virtual router on line",
            "a free address",
        ),
        (group("routers = [\"vi\"]"), "sync_group[0].routers", "a group of 1", "remove the group"),
        (group("routers = []"), "sync_group[0].routers", "a group of 0", "remove the group"),
        (group("routers = [\"vi\", \"vi\"]"), "sync_group[0].routers[1]", "in a group already", "one group"),
        (group("routers = [\"vi\", \"vk\"]"), "sync_group[0].routers[1]", "named `vk`", "correct the name"),
        (group(&format!("{both}\ntrack_script = \"x\"")), "sync_group[0].track_script", "named `x`", "add"),
        (
            kernel(
                "[[track_script]]\nname = \"a\"\nscript = \"/bin/a\"\n[[track_script]]\nname = \"a\"\nscript = \"/bin/a\"",
            ),
            "track_script[1].name",
            "taken by the script on line",
            "choose another",
        ),
        (
            kernel("[[track_file]]\nname = \"a\"\npath = \"/a\"\n[[track_file]]\nname = \"a\"\npath = \"/a\""),
            "track_file[1].name",
            "taken by the tracked file on line",
            "choose another",
        ),
        (
            kernel(
                "[[track_process]]\nname = \"a\"\nprocess = \"a\"\n[[track_process]]\nname = \"a\"\nprocess = \"a\"",
            ),
            "track_process[1].name",
            "taken by the tracked process on line",
            "choose another",
        ),
        (
            kernel("[[track_process]]\nname = \"a\"\nprocess = \"a-very-long-name\""),
            "track_process[0].process",
            "has 16 bytes",
            "\"a-very-long-nam\"",
        ),
        (
            kernel("[[track_script]]\nname = \"a\"\nscript = \"a\""),
            "track_script[0].script",
            "not the absolute path",
            "",
        ),
        (
            kernel("[[track_script]]\nname = \"a\"\nscript = \"/a\"\ninit_fail = true"),
            "track_script[0].init_fail",
            "unknown key",
            "starts_good",
        ),
        (kernel("[vrrp]\nrealtime = 100"), "vrrp.realtime", "100 is not permitted", "the most is 99"),
        (kernel("[vrrp]\nfifo = \"run\""), "vrrp.fifo", "not an absolute path", ""),
        (kernel("[vrrp]\nvrrp_version = 3"), "vrrp.vrrp_version", "unknown key", "in each `[[virtual_router]]`"),
        (
            router("").replace("[[interface]]\nname = \"eth0\"\n", ""),
            "interface",
            "there is no `[[interface]]`",
            "with `name`",
        ),
        (kernel("").replace("\"kernel\"", "\"engine\""), "interface", "there is no `[[interface]]`", "with `name`"),
        (String::new(), "interface", "there is no `[[interface]]`", "with `name`"),
    ];
    for (text, key, message, help) in table {
        let problem = only_error(text);
        assert_eq!(problem.key, *key, "{text}: {problem:#?}");
        assert!(problem.message.contains(message), "{text}: {problem:#?}");
        assert!(problem.help.clone().unwrap_or_default().contains(help), "{text}: {problem:#?}");
        assert!(problem.expected.is_some(), "{text}: {problem:#?}");
    }
    let two = read(&group(&format!("{both}\n[[sync_group]]\nname = \"g\"\nrouters = [\"vj\", \"vi\"]")));
    let keys: Vec<&str> = two.errors().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["sync_group[1].name", "sync_group[1].routers[0]", "sync_group[1].routers[1]"]);
    // The same number on another interface, or of the other family, is another router.
    taken(&format!(
        "{}{}",
        kernel(""),
        second("place = \"kernel\"").replace("vrid = 11", "vrid = 10").replace("eth0", "eth1")
    ));
    let v6 = second("place = \"kernel\"\naddress = [\"fe80::10\"]").replace("vrid = 11", "vrid = 10");
    taken(&format!("{}{v6}", kernel("")));
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let script = "[[track_script]]\nname = \"s\"\nscript = \"/bin/s\"\n";
    let grouped = |lines: &str, more: &str| {
        format!(
            "{}{}[[sync_group]]\nname = \"g\"\nrouters = [\"vi\", \"vj\"]\n{more}\n",
            router(lines),
            second("excluded = []")
        )
    };
    let many: Vec<String> = (1..=21).map(|host| format!("\"192.0.2.{host}\"")).collect();
    let table: &[(String, &str, &str)] = &[
        (router("address = [\"2001:db8::10\"]"), "virtual_router[0].address[0]", "not a link-local address"),
        (
            router("address = [\"fe80::10\"]\nsource = \"2001:db8::1\""),
            "virtual_router[0].source",
            "not a link-local address",
        ),
        (router(&format!("address = [{}]", many.join(", "))), "virtual_router[0].address", "21 addresses"),
        (router("track_interface = [\"eth0\"]"), "virtual_router[0].track_interface[0]", "its own interface"),
        (
            router("priority = 255\ntrack_interface = [{ name = \"eth1\", weight = -9 }]"),
            "virtual_router[0].track_interface[0].weight",
            "the priority 255 stays",
        ),
        (kernel(script), "track_script[0].name", "tracks `s`"),
        (
            format!("[vrrp]\nstall = 0\n{}", router("track_engine = true")),
            "virtual_router[0].track_engine",
            "no worker counts as stalled",
        ),
        (
            format!("{}{}", router(""), second("address = [\"10.0.0.254\"]")),
            "virtual_router[1].name",
            "no group keeps this router and `vi` together",
        ),
        (
            format!("[vrrp]\nrealtime = 0\n{}", router("version = 3\ninterval = 0.04")),
            "virtual_router[0].interval",
            "too late",
        ),
        (
            router("").replace("method = \"nat\"", "method = \"dr\"").replace("192.0.2.10/24", "192.0.2.11/24"),
            "virtual_router[0].address",
            "no service has an address",
        ),
        (router("address = [\"192.0.2.9\"]"), "service[0].address", "no virtual router has 192.0.2.10"),
        (
            format!("{}[[address]]\naddress = \"192.0.2.30\"\n", router("")),
            "address[0].address",
            "no virtual router has 192.0.2.30",
        ),
        (router("place = \"kernel\""), "virtual_router[0].address[0]", "and so has the kernel of a master"),
        (grouped("priority = 255", ""), "sync_group[0].routers", "some routers of the group have priority 255"),
        (
            grouped("track_interface = [{ name = \"eth1\", weight = 9 }]", ""),
            "virtual_router[0].track_interface[0].weight",
            "and not of its group",
        ),
    ];
    for (text, key, message) in table {
        let outcome = read(text);
        assert!(outcome.desired.is_some(), "{text}: {:#?}", outcome.problems);
        let found = outcome.warnings().find(|warning| warning.key == *key);
        let found = found.unwrap_or_else(|| panic!("{text}: {:#?}", outcome.problems));
        assert!(found.message.contains(message) && found.help.is_some(), "{found:#?}");
    }
    let owners = format!(
        "{}{}[[sync_group]]\nname = \"g\"\nrouters = [\"vi\", \"vj\"]\ntrack_interface = {{ name = \"eth1\", weight = 9 }}\n",
        router("priority = 255"),
        second("priority = 255")
    );
    assert!(read(&owners).warnings().any(|warning| warning.key == "sync_group[0].track_interface.weight"));
    // None of it where it does not hold.
    let gateway = second("address = [\"10.0.0.254\"]");
    let group = "[[sync_group]]\nname = \"g\"\nrouters = [\"vi\", \"vj\"]\n";
    taken(&format!("{}{gateway}{group}", router("")));
    assert_eq!(read(&router("track_service = [\"web\"]\nversion = 3\ninterval = 0.04")).problems, []);
    assert_eq!(
        read(&router("address = [\"2001:db8::10\"]\npeers = [\"2001:db8::2\"]"))
            .warnings()
            .filter(|w| w.message.contains("link-local"))
            .count(),
        0
    );
}

#[test]
fn keepaliveds_words_are_recognised() {
    for (line, suggestion) in [
        ("virtual_router_id = 5", "vrid"),
        ("advert_int = 1", "interval"),
        ("auth_pass = \"x\"", "password"),
        ("unicast_src_ip = \"10.0.0.1\"", "source"),
        ("mcast_src_ip = \"10.0.0.1\"", "source"),
        ("unicast_peer = [\"10.0.0.1\"]", "peers"),
        ("virtual_ipaddress_excluded = [\"10.0.0.1\"]", "excluded"),
        ("garp_master_delay = 1", "announce_delay"),
        ("garp_master_repeat = 1", "announce_repeat"),
        ("garp_master_refresh = 1", "announce_refresh"),
        ("garp_master_refresh_repeat = 1", "announce_refresh_repeat"),
        ("down_timer_adverts = 1", "down_adverts"),
        ("use_vmac = true", "virtual_mac"),
        ("vrrp_version = 3", "version"),
        ("notify_masters = \"/x\"", "notify_master"),
        ("place = \"host\"", "kernel"),
        ("state = \"BACKUP\"", "backup"),
    ] {
        let problem = only_error(&router(line));
        assert_eq!(problem.suggestion.as_deref(), Some(suggestion), "{line}: {problem:#?}");
    }
    let instead = only_error(&router("").replace("address = [", "virtual_ipaddress = ["));
    assert_eq!(instead.suggestion.as_deref(), Some("address"));
    for (table, suggestion) in [
        ("[[vrrp_instance]]", "virtual_router"),
        ("[[vrrp_sync_group]]", "sync_group"),
        ("[[vrrp_script]]", "track_script"),
        ("[[vrrp_track_file]]", "track_file"),
        ("[[vrrp_track_process]]", "track_process"),
    ] {
        assert_eq!(only_error(&kernel(table)).suggestion.as_deref(), Some(suggestion), "{table}");
    }
    for (line, suggestion) in [
        ("vrrp_notify_fifo = \"/x\"", "fifo"),
        ("vrrp_rt_priority = 1", "realtime"),
        ("script_user = \"x\"", "notify_user"),
    ] {
        assert_eq!(only_error(&kernel(&format!("[vrrp]\n{line}"))).suggestion.as_deref(), Some(suggestion), "{line}");
    }
}

#[test]
fn short_forms_and_tables_are_the_same() {
    let list = taken(&router("address = [\"192.0.2.10/24\"]\ntrack_service = [\"web\"]"));
    let alone = taken(&router("address = \"192.0.2.10/24\"\ntrack_service = \"web\""));
    let table = taken(&router("address = { address = \"192.0.2.10/24\" }\ntrack_service = { name = \"web\" }"));
    let header = router("track_service = \"web\"").replace("address = [\"192.0.2.10/24\"]\n", "")
        + "[[virtual_router.address]]\naddress = \"192.0.2.10/24\"\n";
    assert_eq!(list, alone);
    assert_eq!(list, table);
    assert_eq!(list, taken(&header));
}
