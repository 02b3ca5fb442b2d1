//! Datagrams that IP had to cut, through every kind of forwarding: in order, out of order, both families.

mod lab_support;

use std::time::Duration;

use evenkeel::lab::scenario::find;
use evenkeel::lab::site::{Family, Reach};
use evenkeel::model::Method;
use lab_support::rig::Wish;
use lab_support::{lab_is_possible, must_pass, set};

/// One byte, just below and above what fits a frame, some fragments, 42 fragments.
const SIZES: [usize; 9] = [1, 1400, 1452, 1473, 2960, 5000, 9000, 32_768, 60_000];

fn whole(method: Method, family: Family, shuffled: bool) {
    if !lab_is_possible() {
        return;
    }
    let mut wish = Wish::new(method, family);
    wish.site.shuffled = shuffled;
    let rig = wish.build().start();
    for _ in 0..4 {
        rig.echo(&SIZES);
    }
}

#[test]
fn the_scenario() {
    if lab_is_possible() {
        must_pass(&set(find("fragments").unwrap()), Duration::from_secs(2));
    }
}

#[test]
fn by_direct_routing() {
    whole(Method::Dr, Family::V4, false);
    whole(Method::Dr, Family::V6, false);
}

#[test]
fn by_direct_routing_in_any_order() {
    whole(Method::Dr, Family::V4, true);
    whole(Method::Dr, Family::V6, true);
}

#[test]
fn by_nat() {
    whole(Method::Nat, Family::V4, false);
    whole(Method::Nat, Family::V6, false);
}

#[test]
fn by_nat_in_any_order() {
    whole(Method::Nat, Family::V4, true);
    whole(Method::Nat, Family::V6, true);
}

#[test]
fn by_full_nat() {
    whole(Method::FullNat, Family::V4, false);
    whole(Method::FullNat, Family::V6, false);
}

#[test]
fn by_full_nat_in_any_order() {
    whole(Method::FullNat, Family::V4, true);
    whole(Method::FullNat, Family::V6, true);
}

/// What fits the client's network does not fit the tunnel: each fragment of 1500 bytes must be cut again, or its sender told.
#[test]
fn by_ipip() {
    whole(Method::Ipip, Family::V4, false);
    whole(Method::Ipip, Family::V4, true);
}

#[test]
fn by_direct_routing_with_one_arm() {
    if lab_is_possible() {
        Wish::new(Method::Dr, Family::V4).one_arm().build().start().echo(&SIZES);
    }
}

/// Two workers: the fragments of one datagram arrive on different queues.
#[test]
fn over_two_workers_whose_queues_change() {
    if !lab_is_possible() {
        return;
    }
    for method in [Method::Dr, Method::Nat, Method::FullNat] {
        let mut wish = Wish::new(method, Family::V4);
        wish.site.wire.queues = 4;
        let mut stand = wish.build();
        stand.config.set("engine", "cores", evenkeel::lab::queues::cores());
        let shuffling = evenkeel::lab::queues::shuffle(&stand.site).unwrap();
        let rig = stand.start();
        for _ in 0..10 {
            rig.echo(&SIZES);
        }
        assert!(shuffling.iter().all(|process| process.ended().is_none()), "{}", shuffling[0].last_words(5));
    }
}

/// In IPv6 only the sender cuts: once it knows what fits the tunnel, its fragments do.
#[test]
fn by_ipip_over_ipv6() {
    if !lab_is_possible() {
        return;
    }
    for (outer, shuffled) in [(Family::V4, false), (Family::V6, true)] {
        let mut wish = Wish::new(Method::Ipip, Family::V6);
        wish.site.shuffled = shuffled;
        let rig = wish.build_towards(outer).start();
        // The transfer's packets are too large at first, and the client is told.
        rig.transfer(1, 1);
        rig.echo(&SIZES);
    }
}

/// Mixed: datagrams of one service, by direct routing, NAT and IP in IP in turn.
#[test]
fn by_three_methods_in_one_service() {
    if !lab_is_possible() {
        return;
    }
    let mut wish = Wish::new(Method::Dr, Family::V4);
    wish.site.reach = Reach::Mixed;
    wish.site.servers = 3;
    let rig = wish.build().start();
    for _ in 0..3 {
        rig.echo(&SIZES);
    }
    rig.transfer(3, 4);
}
