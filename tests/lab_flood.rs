//! Floods end to end: open connections go on, transfers arrive whole, new clients get in.

mod lab_support;

use std::time::Duration;

use evenkeel::lab::scenario::{Stage, find};
use evenkeel::lab::site::Family;
use lab_support::{heavy, lab_is_possible, must_pass, options};

/// How long the flood lasts at its steady rate; half of it at full rate.
const LASTING: Duration = Duration::from_secs(6);

fn withstands(name: &str, family: Family) {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let scenario = Box::leak(Box::new(evenkeel::lab::scenario::Scenario { family, ..*find(name).unwrap() }));
    let stage = Stage::set(scenario, &options()).unwrap_or_else(|error| panic!("{name}: {error}"));
    must_pass(&stage, LASTING);
}

#[test]
fn syns_by_direct_routing() {
    withstands("syn-flood", Family::V4);
}

#[test]
fn syns_over_ipv6() {
    withstands("syn-flood", Family::V6);
}

#[test]
fn syns_by_nat() {
    withstands("syn-flood-nat", Family::V4);
}

#[test]
fn syns_by_full_nat() {
    withstands("syn-flood-full-nat", Family::V4);
}

#[test]
fn datagrams() {
    withstands("udp-flood", Family::V4);
}
