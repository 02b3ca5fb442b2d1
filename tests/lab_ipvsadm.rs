//! `ipvsadm` against a running engine: what the real one did with 250 calls is done here too, and real traffic shows where
//! people look for it. `tests/golden/ipvsadm/README.md` says how the calls were recorded.

mod lab_support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use evenkeel::lab::site::{APPLIANCE, Family, Site};
use evenkeel::model::Method;
use lab_support::rig::{Rig, WEB, Wish, eventually};
use lab_support::{heavy, lab_is_possible, program};

/// What one call did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    code: i32,
    out: String,
    error: String,
}

fn socket(site: &Site) -> PathBuf {
    site.lab.path(&format!("{APPLIANCE}.sock"))
}

/// Calls `evenkeel ipvsadm`, with `input` on its standard input.
fn call(socket: &Path, args: &[&str], input: &str) -> Done {
    let mut command = Command::new(program());
    command.arg("ipvsadm").args(args).env("EVENKEEL_SOCKET", socket);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    // One that refuses at once reads nothing.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Done { code: output.status.code().expect("a code"), out: text(output.stdout), error: text(output.stderr) }
}

/// A recorded call: its arguments, its input, and what the real one did.
struct Recorded {
    args: String,
    input: String,
    done: Done,
}

fn recorded() -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvsadm/calls.txt");
    let text = std::fs::read_to_string(path).expect("reads");
    let mut all: Vec<Recorded> = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_at(1);
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if mark == "$" {
            all.push(Recorded { args: rest.to_owned(), input: String::new(), done: Done::default() });
            continue;
        }
        let last = all.last_mut().expect("a call first");
        let add = |text: &mut String| {
            text.push_str(rest);
            text.push('\n');
        };
        match mark {
            ">" => add(&mut last.input),
            "|" => add(&mut last.done.out),
            "!" => add(&mut last.done.error),
            "=" => last.done.code = rest.parse().expect("a code"),
            other => panic!("{other}"),
        }
    }
    all
}

/// The size of the connection table is each machine's own.
fn without_size(text: &str) -> String {
    let (before, after) = text.split_once(" (size=").unwrap_or((text, ""));
    format!("{before}{}", after.split_once(')').map_or(after, |(_, after)| after))
}

#[test]
fn the_calls_that_the_real_one_took_end_the_same() {
    if !lab_is_possible() {
        return;
    }
    let mut stand = Wish::new(Method::Dr, Family::V4).build();
    stand.config.remove_all("service");
    let rig = stand.start_engine();
    let socket = socket(&rig.site);
    let calls = recorded();
    assert!(calls.len() >= 200, "{} calls", calls.len());
    let mut wrong = Vec::new();
    for Recorded { args, input, done } in &calls {
        let words: Vec<&str> = args.split_whitespace().collect();
        let here = call(&socket, &words, input);
        let here = Done { out: without_size(&here.out), ..here };
        let there = Done { out: without_size(&done.out), code: done.code, error: done.error.clone() };
        if here != there {
            wrong.push(format!("ipvsadm {args}\nhere:  {here:#?}\nthere: {there:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} calls differ:\n{}", wrong.len(), calls.len(), wrong.join("\n"));
}

/// The numbers behind an end in a listing.
fn row(listing: &str, end: &str) -> Vec<u64> {
    let line = listing.lines().find(|line| line.split_whitespace().any(|word| word == end));
    let line = line.unwrap_or_else(|| panic!("no {end} in\n{listing}"));
    line.split_whitespace().skip(2).filter_map(|word| word.parse().ok()).collect()
}

fn ask(rig: &Rig, args: &str) -> String {
    let done = call(&socket(&rig.site), &args.split_whitespace().collect::<Vec<_>>(), "");
    assert_eq!((done.code, done.error.as_str()), (0, ""), "ipvsadm {args}\n{}", rig.story());
    done.out
}

#[test]
fn traffic_shows_where_people_look_for_it() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let rig = Wish::new(Method::Dr, Family::V4).build().start();
    let service = rig.target(WEB).to_string();
    let servers: Vec<String> = rig.site.servers.iter().map(|server| format!("{}:{WEB}", server.v4)).collect();
    let clients: Vec<_> = (0..6).map(|_| rig.get().0).collect();

    // Counters: six connections, three by each server, and what the servers have is the service's.
    let stats = ask(&rig, "-Ln --stats --exact");
    let of_service = row(&stats, &service);
    assert_eq!((of_service[0], of_service[2], of_service[4]), (6, 0, 0), "{stats}");
    let of_servers: Vec<Vec<u64>> = servers.iter().map(|server| row(&stats, server)).collect();
    assert_eq!(of_servers.iter().map(|row| row[0]).collect::<Vec<_>>(), [3, 3], "{stats}");
    assert_eq!(of_servers.iter().map(|row| row[1]).sum::<u64>(), of_service[1], "{stats}");
    assert!(of_service[1] >= 6 * 4 && of_service[3] > of_service[1] * 40, "{stats}");

    // Connections: each client's, by the address and port that it had.
    let connections = ask(&rig, "-Lnc");
    let plain = ask(&rig, "-Ln");
    for client in &clients {
        let line = connections.lines().find(|line| line.contains(&format!(" {client} ")));
        let words: Vec<&str> = line.expect("its row").split_whitespace().collect();
        assert_eq!((words[0], words[4]), ("TCP", service.as_str()), "{connections}");
        assert!(servers.iter().any(|server| server == words[5]) && words[1].contains(':'), "{connections}");
        assert!(["FIN_WAIT", "ESTABLISHED", "CLOSE"].contains(&words[2]), "{connections}");
    }
    let open: u64 = servers.iter().map(|server| row(&plain, server)[1..].iter().sum::<u64>()).sum();
    assert_eq!(open, 6, "{plain}");

    // Rates: the estimator looks every two seconds.
    eventually("a rate", || row(&ask(&rig, "-Ln --rate"), &service)[1] > 0);

    // Persistence: one client, one template, one server.
    ask(&rig, &format!("-E -t {service} -s rr -p 100"));
    (0..4).for_each(|_| drop(rig.get()));
    let templates = ask(&rig, "-Lnc");
    let client = rig.site.client_address(Family::V4);
    let template = templates.lines().find(|line| line.contains(&format!(" {client}:0 "))).expect("a template");
    let kept = template.split_whitespace().nth(5).expect("its server").to_owned();
    let persistent = ask(&rig, "-Ln --persistent-conn");
    for server in &servers {
        assert_eq!(row(&persistent, server)[1], u64::from(*server == kept), "{persistent}");
    }
    assert!(plain.contains(&format!("TCP  {service} rr\n")) && persistent.contains(" rr persistent 100\n"));

    // A removed server takes nothing from its service.
    let before = row(&ask(&rig, "-Ln --stats"), &service)[0];
    assert_eq!(before, 10);
    ask(&rig, &format!("-d -t {service} -r {}", servers[0]));
    let stats = ask(&rig, "-Ln --stats");
    assert_eq!(row(&stats, &service)[0], before, "{stats}");
    assert!(!stats.contains(&servers[0]), "{stats}");

    // Rules, and back from them: the same rules, and connections are served.
    let rules = ask(&rig, "-S -n");
    ask(&rig, "-C");
    assert_eq!(ask(&rig, "-S -n"), "");
    let done = call(&socket(&rig.site), &["-R"], &rules);
    assert_eq!((done.code, done.error.as_str()), (0, ""));
    assert_eq!(ask(&rig, "-S -n"), rules);
    rig.await_status("next hops", |status| {
        let servers =
            status["services"].as_array().into_iter().flatten().flat_map(|s| s["servers"].as_array()).flatten();
        servers.into_iter().all(|server| server["next_hop"].is_object())
    });
    rig.get();

    // Zero: the service and its servers.
    assert_eq!(row(&ask(&rig, "-Ln --stats"), &service)[0], 1);
    ask(&rig, &format!("-Z -t {service}"));
    let stats = ask(&rig, "-Ln --stats");
    assert_eq!((row(&stats, &service)[0], row(&stats, &servers[1])[0]), (0, 0), "{stats}");
}

#[test]
fn what_cannot_be_is_refused_in_its_style() {
    if !lab_is_possible() {
        return;
    }
    let mut stand = Wish::new(Method::FullNat, Family::V4).build();
    stand.config.change_service("echo", "port", "7000-7010");
    let servers: Vec<_> = stand.site.servers.iter().map(|server| (server.v4, 1)).collect();
    stand.config.servers("echo", &servers);
    let rig = stand.start_engine();
    let socket = socket(&rig.site);
    // What IPVS has no word for stands in its columns all the same.
    let listing = ask(&rig, "-Ln");
    assert!(listing.contains(" FullNat 1 "), "{listing}");
    assert!(listing.contains(&format!("UDP  {}:7000 rr\n", rig.target(WEB).ip())), "{listing}");
    let saved = call(&socket, &["-S", "-n"], "");
    assert_eq!((saved.code, saved.out.as_str()), (0, ""));
    assert!(saved.error.contains("`web` has no rules: it has full NAT"), "{}", saved.error);
    assert!(saved.error.contains("`echo` has no rules: it has a range of ports"), "{}", saved.error);
    for (args, code, words) in [
        ("-A -f 1 -s rr", 255, "Firewall marks"),
        ("-a -f 1 -r 10.0.0.1 -m", 255, "Firewall marks"),
        ("-L -n -f 1", 1, "No such service"),
        ("--start-daemon master --mcast-interface eth0", 255, "no sync daemon"),
        ("-A -t 192.0.2.77:80 -p 300 -M 255.0.255.0", 2, "illegal virtual server persistent mask specified"),
        ("-A -t 192.0.2.77:80 -p 2678400", 2, "invalid timeout value"),
        ("-a -t 192.0.2.77:80 -r 10.0.0.1 -w 65536", 2, "illegal weight specified"),
    ] {
        let done = call(&socket, &args.split_whitespace().collect::<Vec<_>>(), "");
        assert_eq!(done.code, code, "{args}: {done:?}");
        assert!(done.error.contains(words) && done.error.lines().count() == 1, "{args}: {done:?}");
    }
    // GUE has one port for all servers of a service.
    for (args, code) in [
        ("-A -t 192.0.2.77:80 -s rr", 0),
        ("-a -t 192.0.2.77:80 -r 10.9.0.1 -i --tun-type gue --tun-port 6081", 0),
        ("-a -t 192.0.2.77:80 -r 10.9.0.2 -i --tun-type gue --tun-port 6082", 255),
        ("-a -t 192.0.2.77:80 -r 10.9.0.2 -i --tun-type gue --tun-port 6081 --tun-csum", 255),
        ("-e -t 192.0.2.77:80 -r 10.9.0.1 -i --tun-type gue --tun-port 6082", 0),
    ] {
        let done = call(&socket, &args.split_whitespace().collect::<Vec<_>>(), "");
        assert_eq!(done.code, code, "{args}: {done:?}");
    }
    assert!(ask(&rig, "-Ln --tun-info -t 192.0.2.77:80").contains("gue:6082:-c"));
    // Its port stays while no server needs it.
    for args in ["-d -t 192.0.2.77:80 -r 10.9.0.1", "-a -t 192.0.2.77:80 -r 10.9.0.1 -m", "-D -t 192.0.2.77:80"] {
        ask(&rig, args);
    }
    // Nobody there.
    let done = call(&socket.with_extension("gone"), &["-Ln"], "");
    assert_eq!((done.code, done.out.as_str()), (2, ""));
    assert!(done.error.starts_with("Can't initialize ipvs: "), "{}", done.error);
}
