//! Several workers: real connections whose frames change their receive queue all the time stay whole, by every method.

mod lab_support;

use std::time::Duration;

use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::queues;
use evenkeel::lab::scenario::{find, traffic};
use evenkeel::lab::site::Family;
use evenkeel::model::Method;
use lab_support::rig::{PATIENCE, Rig, WEB, Wish};
use lab_support::{heavy, lab_is_possible, must_pass, set};

/// Four queues on both arms and a worker on each of two processors, where there are two.
fn two_workers(method: Method, family: Family) -> Rig {
    let mut wish = Wish::new(method, family);
    wish.site.wire.queues = 4;
    let mut stand = wish.build();
    stand.config.set("engine", "cores", queues::cores());
    stand.start()
}

/// Numbers of all workers, added.
fn total(rig: &Rig, key: &str) -> u64 {
    let status = rig.engine.status().unwrap();
    let workers = status["workers"].as_array().unwrap().clone();
    workers.iter().filter_map(|worker| worker[key].as_u64()).sum()
}

fn whole(method: Method, family: Family) {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let rig = two_workers(method, family);
    let shuffling = queues::shuffle(&rig.site).unwrap();
    let streams = Streams::open(rig.client(), rig.target(WEB), Speech::Http, 8, Duration::from_millis(2)).unwrap();
    assert!(streams.settled(PATIENCE), "{:?}\n{}", streams.broken(), rig.story());
    let mib = (traffic::transfer_bytes() >> 20) / 8;
    rig.transfer(8, mib);
    rig.echo(&[1, 500, 1000, 1400, 700, 300]);
    assert_eq!(streams.broken(), Vec::<String>::new(), "{}", rig.story());
    assert!(streams.exchanges() > 100, "{} exchanges", streams.exchanges());
    assert!(shuffling.iter().all(|process| process.ended().is_none()), "{}", shuffling[0].last_words(5));
    if queues::cores().len() > 1 {
        assert!(total(&rig, "handed") > 0, "nothing was handed over\n{}", rig.story());
    }
    // Each flow has one owner: the table of the other worker has no second entry for it.
    let key = if family == Family::V4 { "flows" } else { "flows_ipv6" };
    let flows = total(&rig, key);
    let entries = if method.is_nat() { 2 } else { 1 };
    let opened = 8 + 8 + 6;
    assert!(flows <= entries * opened, "{flows} entries for {opened} connections\n{}", rig.story());
}

#[test]
fn the_scenario() {
    if lab_is_possible() {
        let _alone = heavy();
        must_pass(&set(find("many-workers").unwrap()), Duration::from_secs(2));
    }
}

#[test]
fn direct_routing() {
    whole(Method::Dr, Family::V4);
}

#[test]
fn direct_routing_over_ipv6() {
    whole(Method::Dr, Family::V6);
}

#[test]
fn nat() {
    whole(Method::Nat, Family::V4);
}

#[test]
fn nat_over_ipv6() {
    whole(Method::Nat, Family::V6);
}

#[test]
fn full_nat() {
    whole(Method::FullNat, Family::V4);
}

#[test]
fn full_nat_over_ipv6() {
    whole(Method::FullNat, Family::V6);
}

#[test]
fn ipip() {
    whole(Method::Ipip, Family::V4);
}

#[test]
fn gue() {
    whole(Method::Gue, Family::V4);
}

#[test]
fn gre() {
    whole(Method::Gre, Family::V6);
}

/// Without a shuffle, too: an answer of a server finds the worker that has its connection, whichever queue it arrives on.
#[test]
fn answers_find_the_owner() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    for method in [Method::Nat, Method::FullNat] {
        let rig = two_workers(method, Family::V4);
        for _ in 0..40 {
            rig.get();
        }
        rig.transfer(4, 4);
    }
}
