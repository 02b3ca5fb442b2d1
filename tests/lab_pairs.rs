//! The deployments of two boxes, with their own clocks made faster.

mod lab_support;

use std::time::Duration;

use evenkeel::lab::process;
use evenkeel::lab::scenario::report::Report;
use evenkeel::lab::scenario::{dns_dsr, haproxy_pair, proxy_pair};
use lab_support::{lab_is_possible, options};

fn there(program: &str) -> bool {
    let there = process::program(program).is_some();
    assert!(there || std::env::var_os("CI").is_none(), "{program} is not installed, and CI skips nothing");
    if !there {
        eprintln!("SKIPPED: {program} is not installed");
    }
    there
}

fn must_pass(report: &Report) {
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[test]
fn proxy_pair_with_squid() {
    if lab_is_possible() && there("squid") {
        let pace = proxy_pair::Pace { script: Duration::from_millis(600) };
        must_pass(&proxy_pair::run(&options(), pace).unwrap_or_else(|error| panic!("{error}")));
    }
}

#[test]
fn haproxy_pair_with_haproxy() {
    if lab_is_possible() && there("haproxy") {
        let checks = Duration::from_millis(200);
        must_pass(&haproxy_pair::run(&options(), checks).unwrap_or_else(|error| panic!("{error}")));
    }
}

#[test]
fn dns_dsr_with_unbound() {
    if lab_is_possible() && there("unbound") && there("dig") {
        must_pass(&dns_dsr::run(&options(), dns_dsr::Pace::FAST).unwrap_or_else(|error| panic!("{error}")));
    }
}
