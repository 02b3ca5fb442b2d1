//! What Evenkeel does with a virtual router beyond what keepalived does: a pair in the engine, with real clients and servers.

mod lab_support;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use evenkeel::lab::client::pulse::Pulse;
use evenkeel::lab::engine::EngineConfig;
use evenkeel::lab::netlink::Cidr;
use evenkeel::lab::router::{RouterPlan, VrrpPlan};
use evenkeel::lab::server::udp;
use evenkeel::lab::site::{CLIENT, Family, Site};
use evenkeel::model::{MacAddr, Protocol};
use lab_support::vrrp::{PAIR, Pair, START, VRID, Who, keepalived_is_there};
use lab_support::{heavy, lab_is_possible};
use toml::{Table, Value};

const ECHO: u16 = 5353;
const STEADY: Duration = Duration::from_millis(200);

fn ready() -> bool {
    lab_is_possible() && keepalived_is_there()
}

/// A pair with a service in the engine, the first appliance the better one; `more` are keys of its router.
fn pair(more: impl Fn(&Site) -> Table, config: impl Fn(&Site, &mut EngineConfig)) -> Pair {
    let service = |site: &Site, all: &mut EngineConfig| {
        let servers: Vec<_> = site.servers.iter().map(|server| (server.v4, 1)).collect();
        all.service("echo", site.vip(Family::V4), Protocol::Udp, &ECHO.to_string(), "rr", &servers);
        config(site, all);
    };
    let plan = |site: &Site, number| {
        let vip = Cidr::new(site.vip(Family::V4), 24);
        let mut router = RouterPlan::new("VI_1", "eth0", VRID, &[vip]).fast(Duration::from_millis(100));
        router.priority = if number == 0 { 150 } else { 100 };
        router.more = more(site);
        VrrpPlan::one(router)
    };
    let mut pair = Pair::build(PAIR, [Who::Evenkeel, Who::Evenkeel], service, plan);
    udp::start_all(&mut pair.site, Family::V4, ECHO).unwrap();
    for number in [0, 1] {
        pair.start(number);
        pair.await_words(number, "(VI_1) Entering BACKUP STATE", START);
    }
    pair.await_master(0, START);
    pair
}

fn client(pair: &Pair) -> Pulse {
    let pulse = Pulse::start(pair.site.lab.node(CLIENT).unwrap(), pair.site.vip_port(Family::V4, ECHO)).unwrap();
    pair.must(pulse.await_steady(STEADY, START));
    pulse
}

fn keys(pairs: &[(&str, Value)]) -> Table {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

#[test]
fn a_virtual_mac_serves_and_moves() {
    if !ready() {
        return;
    }
    let _quiet = heavy();
    let mut pair = pair(|_| keys(&[("virtual_mac", true.into())]), |_, _| {});
    let (vip, mac) = (pair.site.vip(Family::V4), MacAddr([0, 0, 0x5e, 0, 1, VRID]));
    let pulse = client(&pair);
    let start = Instant::now();
    for master in [0, 1] {
        // Whoever has it answers with the virtual router's own MAC, and for that a client's neighbour stays as it is.
        assert_eq!(pair.owners(vip).into_iter().collect::<Vec<_>>(), [mac], "appliance {master}");
        if master == 0 {
            pair.speakers[0].kill();
            pair.await_master(1, Duration::from_secs(5));
            pair.must(pulse.await_steady(STEADY, START));
        }
    }
    let lost = pulse.since(start);
    println!("kill with a virtual MAC at 100 ms adverts: {:.1} ms without answers", lost.longest().as_secs_f64() * 1e3);
    assert!(lost.longest() < Duration::from_secs(2), "{:?}", lost.longest());
}

#[test]
fn excluded_addresses_of_the_other_family_go_with_the_router() {
    if !ready() {
        return;
    }
    let v6 = |site: &Site| Value::from(vec![Value::from(format!("{}/64", site.vip(Family::V6)))]);
    let mut pair = pair(
        |site| keys(&[("excluded", v6(site))]),
        |site, all| {
            let servers: Vec<_> = site.servers.iter().map(|server| (server.v6, 1)).collect();
            all.service("echo6", site.vip(Family::V6), Protocol::Udp, &ECHO.to_string(), "rr", &servers);
        },
    );
    udp::start_all(&mut pair.site, Family::V6, ECHO).unwrap();
    let target = pair.site.vip_port(Family::V6, ECHO);
    let pulse = Pulse::start(pair.site.lab.node(CLIENT).unwrap(), target).unwrap();
    pair.must(pulse.await_steady(STEADY, START));
    let advert = pair.watch.tail(VRID, 1);
    assert!(!advert.contains(&pair.site.vip(Family::V6).to_string()), "{advert}");
    let start = Instant::now();
    pair.must(pair.speakers[0].ask_to_end());
    pair.await_master(1, Duration::from_secs(5));
    pair.speakers[0].await_end().unwrap();
    pair.must(pulse.await_steady(STEADY, START));
    let lost = pulse.since(start);
    println!("IPv6 beside an IPv4 router, graceful stop: {:.1} ms without answers", lost.longest().as_secs_f64() * 1e3);
    assert!(lost.longest() < Duration::from_secs(1), "{:?}", lost.longest());
}

/// Weight of every server of the service, which is how it has none to give clients to.
fn weights(pair: &mut Pair, number: usize, weight: i64) {
    let changed = pair.speakers[number].change(|all| {
        all.change_servers("echo", "weight", weight);
    });
    changed.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_service_without_servers_gives_the_address_away_or_lowers_the_priority() {
    if !ready() {
        return;
    }
    for (weight, words) in
        [(0, "(VI_1) Entering FAULT STATE: service echo"), (-60, "(VI_1) Changing effective priority from 150 to 90")]
    {
        let track = keys(&[("name", "echo".into()), ("weight", i64::from(weight).into())]);
        let more = |_: &Site| keys(&[("track_service", Value::from(vec![Value::from(track.clone())]))]);
        let mut pair = pair(more, |_, _| {});
        weights(&mut pair, 0, 0);
        pair.await_words(0, words, START);
        pair.await_master(1, START);
        let vip: IpAddr = pair.site.vip(Family::V4);
        pair.must_own(1, vip);
        weights(&mut pair, 0, 1);
        pair.await_master(0, START);
        pair.must_own(0, vip);
    }
}

#[test]
fn a_fifo_and_a_program_are_told_in_keepalived_s_words() {
    if !ready() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("evenkeel-vrrp-engine-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (fifo, told, script) = (folder.join("fifo"), folder.join("told"), folder.join("tell.sh"));
    std::fs::write(&script, format!("#!/bin/sh\necho \"$*\" >> {}\n", told.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = format!("{} mine", script.display());
    // Who makes it takes it away at his end: both write to this one.
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut pair = pair(
        |_| keys(&[("notify", program.clone().into())]),
        |_, all| {
            all.set("vrrp", "fifo", fifo.display().to_string());
        },
    );
    pair.must(pair.speakers[0].ask_to_end());
    pair.speakers[0].await_end().unwrap();
    pair.await_master(1, START);
    let until = Instant::now() + START;
    let said = || std::fs::read_to_string(&told).unwrap_or_default();
    let wanted = [
        "mine INSTANCE VI_1 BACKUP 150",
        "mine INSTANCE VI_1 MASTER 150",
        "mine INSTANCE VI_1 STOP 150",
        "mine INSTANCE VI_1 MASTER 100",
    ];
    while !wanted.iter().all(|line| said().lines().any(|known| known == *line)) {
        assert!(Instant::now() < until, "{}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
    // The second appliance holds the FIFO open: what nobody has read yet waits in it.
    let mut lines = String::new();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let mut reader = std::io::BufReader::new(file);
    while !lines.contains("INSTANCE \"VI_1\" MASTER 100\n") {
        std::io::BufRead::read_line(&mut reader, &mut lines).unwrap();
    }
    drop(pair);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(lines.lines().all(|line| line.starts_with("INSTANCE \"VI_1\" ")), "{lines}");
}
