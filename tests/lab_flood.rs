//! Floods end to end: established transfers go on, new clients get in.

mod lab_support;

use std::time::Duration;

use evenkeel::lab::client::flood::{self, Flood, Packets, Sent};
use evenkeel::lab::client::load::{Load, LoadPlan, Tally};
use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::site::Family;
use evenkeel::model::Method;
use lab_support::rig::{ECHO, PATIENCE, Rig, WEB, Wish};
use lab_support::{heavy, lab_is_possible, program};

/// New connections a second of legitimate clients.
const LEGITIMATE: u32 = 200;
/// Connections that are open all the time.
const ESTABLISHED: usize = 40;

struct Outcome {
    sent: Sent,
    tally: Tally,
    broken: Vec<String>,
    exchanges: u64,
}

/// A rig whose unproven part is so small that the flood fills it within a second.
fn rig(method: Method, family: Family) -> Rig {
    let mut stand = Wish::new(method, family).build();
    flood::attach(&mut stand.site).unwrap();
    // stand.config.set("engine", "unproven_flows", 4096);
    // stand.config.set("engine", "unproven_flows_ipv6", 4096);
    stand.start()
}

/// What becomes of clients, old and new, during a flood.
fn endure(rig: &Rig, packets: Packets, port: u16, rate: u64, lasting: Duration) -> Outcome {
    let (web, pause) = (rig.target(WEB), Duration::from_millis(20));
    let pages = Streams::open(rig.client(), web, Speech::Http, ESTABLISHED, pause).unwrap();
    assert!(pages.settled(PATIENCE), "{:?}\n{}", pages.broken(), rig.story());
    let flood = Flood::start(&rig.site, &program(), rig.target(port), packets, rate, lasting).unwrap();
    // The flood first fills its part: those who come then count too.
    let plan = LoadPlan { rate: LEGITIMATE, ..LoadPlan::new(web) };
    let load = Load::start(rig.client(), &plan).unwrap();
    // Byte for byte, while it goes on.
    rig.transfer(2, 2);
    assert!(flood.is_on(), "the flood was over before the transfers were");
    let sent =
        flood.ended(lasting + Duration::from_secs(20)).unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
    let tally = load.stop();
    // Each connection must still speak after the flood.
    let before = pages.states();
    std::thread::sleep(Duration::from_millis(500));
    let after = pages.states();
    let mute = before.iter().zip(&after).filter(|(before, after)| before.exchanges == after.exchanges).count();
    let mut broken = pages.broken();
    if mute > 0 {
        broken.push(format!("{mute} connections are silent"));
    }
    let exchanges = pages.exchanges();
    println!(
        "{:?} {:?} {packets:?}: {:.0} packets/s for {:.1} s; {} new connections, {} failed, median {:?}, 99 % {:?}; {exchanges} exchanges",
        rig.wish.method,
        rig.wish.family,
        sent.rate(),
        sent.seconds,
        tally.answered() + tally.failures,
        tally.failures,
        tally.percentile(0.5),
        tally.percentile(0.99),
    );
    println!("{}", rig.story());
    Outcome { sent, tally, broken, exchanges }
}

/// A hundred times the legitimate rate, then as much as the machine gives.
fn withstands(method: Method, family: Family, packets: Packets) {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let rig = rig(method, family);
    let port = if packets == Packets::Syns { WEB } else { ECHO };
    let rate = u64::from(LEGITIMATE) * 100;
    let outcome = endure(&rig, packets, port, rate, Duration::from_secs(6));
    assert!(outcome.sent.rate() > rate as f64 * 0.5, "the generator did not keep up: {:?}", outcome.sent);
    assert_eq!(outcome.broken, Vec::<String>::new(), "{}", rig.story());
    let all = outcome.tally.answered() + outcome.tally.failures;
    assert!(all > u64::from(LEGITIMATE) * 3, "only {all} connections were tried");
    assert!(outcome.tally.failures * 100 <= all, "{:?}\n{}", outcome.tally.reasons, rig.story());
    assert!(outcome.exchanges > 500);
    let outcome = endure(&rig, packets, port, 0, Duration::from_secs(3));
    assert_eq!(outcome.broken, Vec::<String>::new(), "{}", rig.story());
    // Afterwards all is as before.
    rig.transfer(2, 2);
}

#[test]
fn syns_by_direct_routing() {
    withstands(Method::Dr, Family::V4, Packets::Syns);
}
