//! Health checks end to end: real servers that stop, hang and come back, under real requests.

mod lab_support;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::lab::client::http;
use evenkeel::lab::client::load::{Load, LoadPlan};
use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::engine::find_server;
use evenkeel::lab::process::Process;
use evenkeel::lab::server::nginx;
use evenkeel::lab::site::{Family, Site};
use evenkeel::model::Method;
use lab_support::rig::{ECHO, PATIENCE, Rig, Stand, WEB, Wish, eventually, text_of};
use lab_support::{heavy, lab_is_possible};
use serde_json::Value as Json;
use toml::{Table, Value};

/// How long a busy machine may take for a few checks.
const LONG: Duration = Duration::from_secs(20);

/// A check with an interval of 100 ms that fails after two results and is good after two.
fn check(kind: &str) -> Table {
    let mut check = Table::new();
    check.insert("type".into(), kind.into());
    check.insert("interval".into(), 0.1.into());
    check.insert("timeout".into(), 1.into());
    check.insert("rise".into(), 2.into());
    check.insert("fall".into(), 2.into());
    check
}

fn one(check: Table) -> Vec<Value> {
    vec![check.into()]
}

/// What the status says of a server of the service `web`.
fn state(rig: &Rig, server: usize) -> Json {
    let status = rig.engine.status().unwrap();
    let address = rig.site.servers[server].address(rig.wish.family);
    find_server(&status, "web", address).cloned().unwrap_or_default()
}

fn await_state(rig: &Rig, server: usize, wanted: &str) -> Json {
    let address = rig.site.servers[server].address(rig.wish.family);
    let is = |status: &Json| find_server(status, "web", address).is_some_and(|found| found["state"] == wanted);
    let status = rig.engine.await_status(LONG, &format!("server {} {wanted}", server + 1), is);
    let status = status.unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
    find_server(&status, "web", address).cloned().unwrap_or_default()
}

/// A rig whose nginx on the second server the test may stop.
fn rig(wish: Wish, change: impl FnOnce(&mut Stand)) -> (Rig, Vec<Process>) {
    let mut stand = wish.build();
    change(&mut stand);
    let web = start_web(&stand.site);
    (stand.start_engine(), web)
}

fn start_web(site: &Site) -> Vec<Process> {
    nginx::start_all(site, WEB).unwrap_or_else(|error| panic!("{error}"))
}

fn restart(rig: &Rig, server: usize) -> Process {
    let servers = &rig.site.servers[server..=server];
    nginx::start_on(&rig.site, servers, WEB, false).unwrap_or_else(|error| panic!("{error}")).remove(0)
}

/// A program of the test, in the lab's directory.
fn program(site: &Site, name: &str, text: &str) -> PathBuf {
    let path = site.lab.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn lines(path: &Path) -> Vec<String> {
    text_of(path).lines().map(str::to_owned).collect()
}

#[test]
fn a_server_that_stops_gets_nothing_and_comes_back() {
    if !lab_is_possible() {
        return;
    }
    for (kind, family) in [("tcp", Family::V4), ("http", Family::V6)] {
        let (rig, mut web) = rig(Wish::new(Method::Dr, family), |stand| {
            stand.config.change_service("web", "check", one(check(kind)));
        });
        await_state(&rig, 0, "up");
        await_state(&rig, 1, "up");
        let load = Load::start(rig.client(), &LoadPlan::new(rig.target(WEB))).unwrap();
        eventually("both servers answer", || load.tally().answers.len() == 2);
        web.remove(1).stop();
        let down = await_state(&rig, 1, "down");
        let words = down["reason"].as_str().unwrap_or_default().to_owned();
        assert!(words.contains("connection refused"), "{down}");
        // Connections that were being made meanwhile fail; then none.
        thread::sleep(Duration::from_millis(200));
        let settled = load.tally();
        eventually("requests go on", || load.tally().since(&settled).answered() > 50);
        let after = load.tally().since(&settled);
        assert_eq!((after.failures, after.of("server2")), (0, 0), "{:?}\n{}", after.reasons, rig.story());
        let second = restart(&rig, 1);
        await_state(&rig, 1, "up");
        let settled = load.tally();
        eventually("it gets its share again", || load.tally().since(&settled).of("server2") > 20);
        let tally = load.stop().since(&settled);
        assert_eq!(tally.failures, 0, "{:?}\n{}", tally.reasons, rig.story());
        drop(second);
    }
}

#[test]
fn without_a_server_clients_are_refused_or_served_by_the_sorry_server() {
    if !lab_is_possible() {
        return;
    }
    let connect = |rig: &Rig| {
        let target = rig.target(WEB);
        rig.client().run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap()
    };
    for method in [Method::Dr, Method::Nat] {
        let port = if method == Method::Nat { 8080 } else { WEB };
        let mut stand = Wish::new(method, Family::V4).build();
        stand.config.change_service("web", "check", one(check("tcp")));
        let web = nginx::start_all(&stand.site, port).unwrap_or_else(|error| panic!("{error}"));
        let rig = stand.start_engine();
        await_state(&rig, 0, "up");
        assert!(connect(&rig).is_ok(), "{}", rig.story());
        for process in &web {
            process.stop();
        }
        await_state(&rig, 0, "down");
        await_state(&rig, 1, "down");
        let start = Instant::now();
        let refused = connect(&rig).expect_err("nobody serves");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{}", rig.story());
        assert!(start.elapsed() < PATIENCE / 2, "a refusal is heard at once");
        // The servers themselves would refuse, too: it is the engine that did.
        let status = rig.engine.status().unwrap();
        let refused: u64 = status["workers"].as_array().unwrap().iter().filter_map(|w| w["refused"].as_u64()).sum();
        assert!(refused > 0, "{}", rig.story());

        // The first server serves by another service meanwhile: here as the sorry server of this one.
        let third = &rig.site.servers[0];
        let mut config = rig.config.clone();
        let mut sorry = Table::new();
        sorry.insert("address".into(), third.v4.to_string().into());
        if method == Method::Nat {
            sorry.insert("port".into(), 8081.into());
        }
        config.remove_server("web", third.v4);
        config.change_service("web", "sorry_server", sorry);
        let sorry_port = if method == Method::Nat { 8081 } else { WEB };
        let _sorry = nginx::start_on(&rig.site, std::slice::from_ref(third), sorry_port, false).unwrap();
        rig.engine.reload(&config).unwrap_or_else(|error| panic!("{error}"));
        eventually("the sorry server answers", || {
            let target = rig.target(WEB);
            rig.client().run(|| http::get(target, "/", PATIENCE)).unwrap().is_ok_and(|got| got.server == "server1")
        });
        let _second = nginx::start_on(&rig.site, &rig.site.servers[1..], port, false).unwrap();
        await_state(&rig, 1, "up");
        for _ in 0..10 {
            assert_eq!(rig.get().1.server, "server2", "{}", rig.story());
        }
    }
}

#[test]
fn flows_of_a_failed_server_meet_the_services_setting() {
    if !lab_is_possible() {
        return;
    }
    for (fate, on_failure, broken) in
        [("reset", "remove", true), ("keep", "remove", false), ("reset", "inhibit", false)]
    {
        let mut stand = Wish::new(Method::Nat, Family::V4).build();
        let flag = stand.site.lab.path("server2-fails");
        let script = program(&stand.site, "judge", &format!("test ! -e {}", flag.display()));
        let mut check = check("script");
        check.insert("command".into(), vec![script.display().to_string()].into());
        let second = stand.site.servers[1].v4;
        stand
            .config
            .change_service("web", "flows_of_down", fate)
            .change_service("web", "on_failure", on_failure)
            .change_server("web", second, "check", one(check));
        stand.start_servers();
        let rig = stand.start_engine();
        let streams = Streams::open(rig.client(), rig.target(WEB), Speech::Http, 6, Duration::from_millis(10)).unwrap();
        assert!(streams.settled(PATIENCE), "{:?}\n{}", streams.broken(), rig.story());
        assert_eq!(streams.by_server().values().copied().collect::<Vec<_>>(), [3, 3]);
        fs::write(&flag, "").unwrap();
        let down = await_state(&rig, 1, "down");
        assert!(down["reason"].as_str().unwrap_or_default().contains("exit code 1"), "{down}");
        let exchanges = |server: &str| -> u64 {
            let states = streams.states();
            states.iter().filter(|s| s.server.as_deref() == Some(server)).map(|s| s.exchanges).sum()
        };
        let before = exchanges("server1");
        eventually("the others go on", || exchanges("server1") > before + 30);
        if broken {
            eventually("they are reset", || streams.broken().len() == 3);
        } else {
            let before = exchanges("server2");
            eventually("they go on", || exchanges("server2") > before + 10);
            assert_eq!(streams.broken(), Vec::<String>::new(), "{fate} {on_failure}\n{}", rig.story());
        }
        // New ones go elsewhere, whatever becomes of the old ones.
        for _ in 0..6 {
            assert_eq!(rig.get().1.server, "server1", "{fate} {on_failure}\n{}", rig.story());
        }
        fs::remove_file(&flag).unwrap();
        await_state(&rig, 1, "up");
    }
}

#[test]
fn scripts_are_told_of_servers_and_of_the_quorum() {
    if !lab_is_possible() {
        return;
    }
    let mut stand = Wish::new(Method::Dr, Family::V4).build();
    let notes = stand.site.lab.path("notes");
    let note = program(&stand.site, "note", &format!("echo \"$@\" >> {}", notes.display())).display().to_string();
    stand
        .config
        .change_service("web", "check", one(check("tcp")))
        .change_service("web", "quorum", 2)
        .change_service("web", "quorum_up", vec![note.clone(), "quorum-up".into()])
        .change_service("web", "quorum_down", vec![note.clone(), "quorum-down".into()]);
    let second = stand.site.servers[1].v4;
    stand.config.change_server("web", second, "notify_up", vec![note.clone(), "up".into()]).change_server(
        "web",
        second,
        "notify_down",
        vec![note, "down".into()],
    );
    let mut web = start_web(&stand.site);
    let rig = stand.start_engine();
    await_state(&rig, 1, "up");
    web.remove(1).stop();
    let said = |wanted: &str| lines(&notes).iter().any(|line| line == wanted);
    eventually("both are told of the failure", || said("down") && said("quorum-down"));
    let _second = restart(&rig, 1);
    await_state(&rig, 1, "up");
    let up = |wanted: &str| lines(&notes).iter().rev().take_while(|line| *line != "quorum-down").any(|l| l == wanted);
    eventually("both are told of the return", || up("up") && up("quorum-up"));
}

#[test]
fn a_service_without_a_check_gets_a_connect_check_and_says_so() {
    if !lab_is_possible() {
        return;
    }
    let mut stand = Wish::new(Method::Dr, Family::V4).build();
    // As if nobody had written anything.
    stand.config.unset_service("web", "check");
    let mut web = start_web(&stand.site);
    let rig = stand.start_engine();
    assert!(rig.engine.process().output().contains("web: no `[[service.check]]`"), "{}", rig.story());
    await_state(&rig, 1, "up");
    web.remove(1).stop();
    let down = await_state(&rig, 1, "down");
    assert!(down.to_string().contains("connection refused"), "{down}");
    let people = rig.engine.status_for_people().unwrap();
    assert!(people.contains("DOWN") && people.contains("connection refused"), "{people}");
}

/// Two hundred checks, eight of them scripts that never end, an engine that forwards what it can: no verdict changes.
#[test]
fn being_busy_changes_no_verdict() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let mut stand = Wish::new(Method::Nat, Family::V4).build();
    let hang = program(&stand.site, "hang", "while :; do sleep 60; done").display().to_string();
    let mut checks = Vec::new();
    for number in 0..16u16 {
        let mut tcp = check("tcp");
        // Different checks, or they would be one.
        tcp.insert("retry_delay".into(), (f64::from(number + 1) / 100.0).into());
        checks.push(Value::from(tcp));
    }
    let first = stand.site.servers[0].v4;
    stand.config.change_server("web", first, "check", checks);
    // The echo's servers are judged by scripts that hang: that is their affair alone.
    let mut script = check("script");
    script.insert("command".into(), vec![hang].into());
    stand.config.change_service("echo", "check", one(script)).change_service("echo", "on_failure", "inhibit");
    stand.start_servers();
    let rig = stand.start_engine();
    await_state(&rig, 0, "up");
    let passed = |rig: &Rig| -> u64 {
        let state = state(rig, 0);
        state["checks"].as_array().into_iter().flatten().filter_map(|check| check["passed"].as_u64()).sum()
    };
    let (start, before) = (Instant::now(), passed(&rig));
    rig.transfer(2, 128);
    // Whatever the machine could do meanwhile, and a little more.
    thread::sleep(Duration::from_secs(1));
    let (took, done) = (start.elapsed().as_secs_f64(), passed(&rig) - before);
    let state = state(&rig, 0);
    println!("{done} checks in {took:.1} s beside transfers and scripts that hang");
    assert_eq!(state["state"], "up", "{state}");
    let failed: u64 =
        state["checks"].as_array().into_iter().flatten().filter_map(|check| check["failed"].as_u64()).sum();
    assert_eq!(failed, 0, "{state}");
    // 160 a second are wanted; a machine with other work does fewer, but never stands still.
    assert!(done as f64 > 40.0 * took, "{done} in {took} s\n{}", rig.story());
    let _ = ECHO;
}
