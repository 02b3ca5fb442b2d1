//! Changes under load: nothing is lost, nothing moves that need not, and a bad file changes nothing.

mod lab_support;

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::control::plan::Plan;
use evenkeel::control::socket::Command;
use evenkeel::control::socket::client::ask_with;
use evenkeel::lab::client::load::{Load, LoadPlan, requests};
use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::engine::{Engine, find_server};
use evenkeel::lab::scenario::{HTTP, START, Stage, base_config, find};
use evenkeel::lab::server::hash;
use evenkeel::lab::site::{APPLIANCE, CLIENT, Family, Site, SiteOptions};
use evenkeel::model::Protocol;
use lab_support::{heavy, lab_is_possible, program, set};

const STREAM: u16 = 7000;

/// The servers' addresses with a weight each; `None` leaves one out.
fn weights(site: &Site, weight: impl Fn(usize) -> Option<u16>) -> Vec<(IpAddr, u16)> {
    let servers = site.servers.iter().enumerate();
    servers.filter_map(|(index, server)| Some((server.v4, weight(index)?))).collect()
}

fn open_load(stage: &Stage) -> (Load, Streams) {
    let client = stage.site.lab.node(CLIENT).unwrap();
    let target = stage.site.vip_port(Family::V4, HTTP);
    let streams = Streams::open(client, target, Speech::Http, 6, Duration::from_millis(20)).unwrap();
    assert!(streams.settled(Duration::from_secs(5)));
    (Load::start(client, &LoadPlan::new(target)).unwrap(), streams)
}

#[test]
fn a_thousand_reloads_under_load_lose_nothing_and_move_nothing() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let stage = set(find("web-dr-one-arm").unwrap());
    let (load, streams) = open_load(&stage);
    let before = streams.by_server();
    let start = Instant::now();
    let mut config = stage.config.clone();
    for round in 0..1000_u16 {
        // Weights change; with every third reload one server is drained, never removed: flows have no reason to move.
        let drained = usize::from(round / 3 % 3);
        let list =
            weights(&stage.site, |index| Some(if round % 3 == 0 && index == drained { 0 } else { 1 + round % 5 }));
        stage.engine.reload(config.servers("web", &list)).unwrap_or_else(|error| panic!("reload {round}: {error}"));
    }
    let took = start.elapsed();
    // The load must have run against the swaps: a second at least.
    thread::sleep(Duration::from_secs(1).saturating_sub(took));
    let tally = load.stop();
    println!("1000 reloads in {took:?}; {} answers, slowest {:?}", tally.answered(), tally.percentile(1.0));
    assert_eq!((tally.failures, streams.broken()), (0, vec![]), "{:?}", tally.reasons);
    assert!(tally.answered() > 100);
    assert_eq!(streams.by_server(), before);
    // A lost SYN is repeated after a second: nothing was that slow.
    assert!(tally.percentile(1.0) < Duration::from_millis(900), "a packet was lost: {:?}", tally.percentile(1.0));
}

/// Two hundred other services come, go and change with every reload: nothing of it is seen by the flows of the one that stays.
#[test]
fn reloads_of_two_hundred_other_services_lose_nothing_and_move_nothing() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let mut stage = set(find("web-dr-one-arm").unwrap());
    let all = weights(&stage.site, |_| Some(1));
    let vip = stage.site.vip(Family::V4);
    let alone = stage.config.clone();
    let with_others = |round: u16| {
        let mut config = alone.clone();
        for number in 0..200_u16 {
            // A tenth has another port each round, a tenth other weights, a tenth another scheduler.
            let port = 10_000 + number + if number % 10 == 0 { 1000 * (round % 5) } else { 0 };
            let weight = if number % 10 == 1 { 1 + round % 5 } else { 1 };
            let scheduler = if number % 10 == 2 && round.is_multiple_of(2) { "rr" } else { "wlc" };
            let list: Vec<(IpAddr, u16)> = all.iter().map(|(address, _)| (*address, weight)).collect();
            config.service(&format!("other-{number}"), vip, Protocol::Tcp, &port.to_string(), scheduler, &list);
        }
        config
    };
    stage.config = with_others(0);
    stage.engine.reload(&stage.config).unwrap();
    let (load, streams) = open_load(&stage);
    let before = streams.by_server();
    let socket = stage.engine.socket().to_owned();
    for round in 1..=40_u16 {
        let config = with_others(round);
        stage.engine.reload(&config).unwrap_or_else(|error| panic!("reload {round}: {error}"));
        // The plan of what was just taken is empty, and moves nothing.
        let answer = ask_with(&socket, Command::Reload, &serde_json::json!({ "dry_run": true })).unwrap();
        let plan: Plan = serde_json::from_value(answer["plan"].clone()).unwrap();
        assert!(plan.is_empty(), "round {round}: {plan:#?}");
        assert_eq!((plan.flows.end, plan.flows.move_on, plan.flows.wait), (0, 0, 0), "round {round}");
    }
    thread::sleep(Duration::from_secs(1));
    let tally = load.stop();
    assert_eq!((tally.failures, streams.broken()), (0, vec![]), "{:?}", tally.reasons);
    assert!(tally.answered() > 100);
    assert_eq!(streams.by_server(), before);
    // A lost SYN is repeated after a second: nothing was that slow.
    assert!(tally.percentile(1.0) < Duration::from_millis(900), "a packet was lost: {:?}", tally.percentile(1.0));
}

#[test]
fn hang_up_reloads_too() {
    if !lab_is_possible() {
        return;
    }
    let stage = set(find("web-dr-one-arm").unwrap());
    let mut config = stage.config.clone();
    config.servers("web", &weights(&stage.site, |index| (index == 2).then_some(1)));
    stage.engine.hang_up(&config).unwrap();
    let gone = stage.site.servers[0].v4;
    let within = Duration::from_secs(5);
    stage.engine.await_status(within, "the reload", |status| find_server(status, "web", gone).is_none()).unwrap();
    let plan = LoadPlan::new(stage.site.vip_port(Family::V4, HTTP));
    let tally = requests(stage.site.lab.node(CLIENT).unwrap(), &plan, 10).unwrap();
    assert_eq!((tally.of("server3"), tally.failures), (10, 0), "{tally:?}");
}

#[test]
fn a_bad_file_changes_nothing_and_says_all_that_is_wrong() {
    if !lab_is_possible() {
        return;
    }
    let stage = set(find("web-dr-one-arm").unwrap());
    let (load, streams) = open_load(&stage);
    let services = |stage: &Stage| {
        let status = stage.engine.status().unwrap();
        let services = status["services"].as_array().unwrap().clone();
        services
            .iter()
            .map(|service| (service["name"].clone(), service["servers"].as_array().unwrap().len()))
            .collect::<Vec<_>>()
    };
    let before = services(&stage);
    for (text, words) in [
        ("not toml at all [", vec![]),
        (
            "[[service]]\nname = 'web'\naddres = '192.0.2.10'\nport = 99999\nscheduler = 'wlcc'\n",
            vec!["addres", "99999", "wlc"],
        ),
        ("", vec!["interface"]),
    ] {
        let error = stage.engine.reload_text(text).expect_err("a bad file was taken").to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    }
    thread::sleep(Duration::from_millis(500));
    assert_eq!(services(&stage), before);
    let tally = load.stop();
    assert_eq!((tally.failures, streams.broken()), (0, vec![]), "{:?}", tally.reasons);
    // The good file is still taken afterwards.
    stage.engine.reload(&stage.config).unwrap();
}

/// Three servers with long-lived connections to each; one goes: only its connections are touched.
#[test]
fn only_a_removed_server_s_flows_move() {
    if !lab_is_possible() {
        return;
    }
    let mut site = Site::build(SiteOptions::default()).unwrap();
    hash::start_all(&mut site, Family::V4, STREAM).unwrap();
    let mut config = base_config(&site, Family::V4);
    let all = weights(&site, |_| Some(1));
    config.service("stream", site.vip(Family::V4), Protocol::Tcp, &STREAM.to_string(), "rr", &all);
    let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
    engine.await_ready(START).unwrap_or_else(|error| panic!("{error}"));

    let client = site.lab.node(CLIENT).unwrap();
    let target = site.vip_port(Family::V4, STREAM);
    let streams = Streams::open(client, target, Speech::Hash(3000), 12, Duration::from_millis(5)).unwrap();
    assert!(streams.settled(Duration::from_secs(5)));
    assert_eq!(streams.by_server().values().copied().collect::<Vec<_>>(), [4, 4, 4], "{:?}", streams.broken());

    engine.reload(config.servers("stream", &weights(&site, |index| (index != 1).then_some(1)))).unwrap();
    thread::sleep(Duration::from_secs(2));
    let mut before = 0;
    for state in streams.states() {
        let server = state.server.unwrap();
        assert!(server == "server2" || state.broken.is_none(), "{server}: {:?}", state.broken);
        before += if server == "server2" { 0 } else { state.exchanges };
    }
    thread::sleep(Duration::from_millis(300));
    let states = streams.close();
    let after: u64 =
        states.iter().filter(|state| state.server.as_deref() != Some("server2")).map(|state| state.exchanges).sum();
    assert!(after > before, "the other connections stand still");

    let fresh = Streams::open(client, target, Speech::Hash(10), 6, Duration::from_millis(5)).unwrap();
    assert!(fresh.settled(Duration::from_secs(5)));
    assert_eq!(fresh.broken(), Vec::<String>::new());
    assert_eq!(
        fresh.by_server().into_iter().collect::<Vec<_>>(),
        [("server1".to_owned(), 3), ("server3".to_owned(), 3)]
    );
}

/// A server without a resolved next hop is reported, not silently lost.
#[test]
fn an_unresolved_server_is_reported() {
    if !lab_is_possible() {
        return;
    }
    let stage = set(find("web-dr-one-arm").unwrap());
    let nobody = stage.site.nobody(Family::V4);
    let mut list = weights(&stage.site, |_| Some(1));
    list.push((nobody, 1));
    let mut config = stage.config.clone();
    stage.engine.reload(config.servers("web", &list)).unwrap();
    // The kernel asks for about three seconds before it gives up.
    thread::sleep(Duration::from_secs(4));
    let entry = stage.engine.server_status("web", nobody).unwrap();
    let resolved = stage.engine.server_status("web", stage.site.servers[0].v4).unwrap();
    assert!(entry["next_hop"].is_null() && entry["unreachable"]["detail"].is_string(), "{entry}");
    assert!(resolved["next_hop"]["mac"].is_string() && resolved["unreachable"].is_null(), "{resolved}");
    let people = stage.engine.status_for_people().unwrap();
    let told = people.lines().any(|line| line.contains(&format!("{nobody}:{HTTP}")) && line.contains("UNREACHABLE"));
    assert!(told, "{people}");
}
