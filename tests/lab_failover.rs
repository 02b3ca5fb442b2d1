//! How long a client that sends every millisecond is without its service: a pair of Evenkeels in the engine, direct routing
//! to real servers behind.
//!
//! Each case is tried until it meets its bound, three times at most: what the appliances take is measured, not what else the
//! machine does. Every figure is printed.

mod lab_support;

use std::time::{Duration, Instant};

use evenkeel::lab::client::pulse::{Found, Pulse};
use evenkeel::lab::engine::EngineConfig;
use evenkeel::lab::netlink::Cidr;
use evenkeel::lab::router::{RouterPlan, VrrpPlan};
use evenkeel::lab::server::udp;
use evenkeel::lab::site::{CLIENT, Family, Site, appliance};
use evenkeel::model::{Place, Protocol};
use lab_support::vrrp::{PAIR, Pair, START, VRID, Who, keepalived_is_there};
use lab_support::{heavy, lab_is_possible};

const ECHO: u16 = 5353;
const HIGH: u8 = 150;
/// A service is steady when nothing was lost for this long.
const STEADY: Duration = Duration::from_millis(200);
const TRIES: usize = 3;

/// What is done to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Stop,
    Kill,
    Unplug,
}

fn router(site: &Site, number: u8, interval: Duration, place: Place) -> RouterPlan {
    let mut router = RouterPlan::new("VI_1", "eth0", VRID, &[Cidr::new(site.vip(Family::V4), 24)]).fast(interval);
    router.priority = if number == 0 { HIGH } else { 100 };
    router.place = place;
    router
}

/// A pair that serves, and a client that sends.
fn serving(interval: Duration, place: Place) -> (Pair, Pulse) {
    let config = |site: &Site, config: &mut EngineConfig| {
        if place == Place::Engine {
            let servers: Vec<_> = site.servers.iter().map(|server| (server.v4, 1)).collect();
            config.service("echo", site.vip(Family::V4), Protocol::Udp, &ECHO.to_string(), "rr", &servers);
        }
    };
    let plan = |site: &Site, number| VrrpPlan::one(router(site, number, interval, place));
    let mut pair = Pair::build(PAIR, [Who::Evenkeel, Who::Evenkeel], config, plan);
    let vip = pair.site.vip(Family::V4);
    if pair.router(0).place == Place::Kernel {
        for number in [0, 1] {
            // As proxies on such a pair do: listening before the address is there.
            let node = appliance(number);
            pair.site.lab.setting(node, "net/ipv4/ip_nonlocal_bind", "1").unwrap();
            udp::start(&mut pair.site, node, vip, ECHO).unwrap();
        }
    } else {
        udp::start_all(&mut pair.site, Family::V4, ECHO).unwrap();
    }
    for number in [0, 1] {
        pair.start(number);
        pair.await_words(number, "(VI_1) Entering BACKUP STATE (init)", START);
    }
    pair.await_master(0, START);
    let client = pair.site.lab.node(CLIENT).unwrap();
    let pulse = Pulse::start(client, pair.site.vip_port(Family::V4, ECHO)).unwrap();
    pair.must(pulse.await_steady(STEADY, START));
    (pair, pulse)
}

/// One blow, and the return of the first appliance: what the client lost by each.
fn once(pair: &mut Pair, pulse: &Pulse, blow: Blow) -> (Found, Found) {
    let start = Instant::now();
    match blow {
        Blow::Stop => pair.must(pair.speakers[0].ask_to_end()),
        Blow::Kill => pair.speakers[0].kill(),
        Blow::Unplug => pair.must(pair.site.plug(appliance(0), "eth0", false)),
    }
    pair.await_master(1, Duration::from_secs(5));
    if blow == Blow::Stop {
        let ended = pair.speakers[0].await_end();
        pair.must(ended);
    }
    pair.must(pulse.await_steady(STEADY, START));
    let lost = pulse.since(start);
    let back = Instant::now();
    match blow {
        Blow::Unplug => pair.must(pair.site.plug(appliance(0), "eth0", true)),
        _ => pair.start(0),
    }
    pair.await_master(0, START);
    pair.must(pulse.await_steady(STEADY, START));
    (lost, pulse.since(back))
}

fn measure(interval: Duration, place: Place, blow: Blow, bound: Duration) {
    if !lab_is_possible() || !keepalived_is_there() {
        return;
    }
    let _quiet = heavy();
    let (mut pair, pulse) = serving(interval, place);
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let (lost, back) = once(&mut pair, &pulse, blow);
        println!(
            "{blow:?} at {} ms adverts, {place:?}: {:.1} ms without answers ({} lost); its return: {:.1} ms ({} lost)",
            interval.as_millis(),
            lost.longest().as_secs_f64() * 1e3,
            lost.lost,
            back.longest().as_secs_f64() * 1e3,
            back.lost
        );
        best = best.min(lost.longest());
        if best <= bound {
            return;
        }
    }
    pair.fail(&format!("{blow:?}: {best:?} without answers at best, {bound:?} expected"));
}

const TEN: Duration = Duration::from_millis(10);
const HUNDRED: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_graceful_stop_costs_20_ms_at_most_whatever_the_interval() {
    for interval in [TEN, HUNDRED, SECOND] {
        measure(interval, Place::Engine, Blow::Stop, Duration::from_millis(20));
    }
}

#[test]
fn kill_costs_60_ms_at_most_at_10_ms_adverts() {
    measure(TEN, Place::Engine, Blow::Kill, Duration::from_millis(60));
}

#[test]
fn kill_costs_400_ms_at_most_at_100_ms_adverts() {
    measure(HUNDRED, Place::Engine, Blow::Kill, Duration::from_millis(400));
}

/// Master-down time and 20 ms.
#[test]
fn a_pulled_cable_costs_what_a_kill_does() {
    measure(TEN, Place::Engine, Blow::Unplug, Duration::from_millis(60));
    measure(HUNDRED, Place::Engine, Blow::Unplug, Duration::from_millis(400));
}

/// The kernel has the address: it moves after the farewell and the other one's skew time, 61 ms.
#[test]
fn a_graceful_stop_with_kernel_addresses_costs_the_skew_time() {
    measure(HUNDRED, Place::Kernel, Blow::Stop, Duration::from_millis(61 + 60));
}
