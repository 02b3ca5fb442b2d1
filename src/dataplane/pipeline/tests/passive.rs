//! What is counted of flows whose server resets them at once or says nothing: each once, and only where that was asked for.

use std::net::SocketAddr;
use std::time::Duration;

use super::cookies::{self, Line};
use super::fates::{ends, rig, say, web};
use super::translation::{SERVER_MAC, at, icmp_error, packet};
use super::*;
use crate::dataplane::proxy::tests::Segment;

const PASSIVE: Passive = Passive {
    failures_percent: 50,
    least: 5,
    window: Duration::from_secs(10),
    eject: Duration::from_secs(30),
    most_percent: 50,
};

fn watched(v6: bool, method: Method) -> Service {
    let mut service = web(v6, Protocol::Tcp, method, &[1]);
    service.health.passive = Some(PASSIVE);
    service
}

fn failed(rig: &Rig) -> u64 {
    rig.pipeline.stats().servers.iter().map(|server| server.failed.get()).sum()
}

/// Opens a flow; who the server is, and who it thinks asks.
fn ask(rig: &mut Rig, v6: bool) -> (SocketAddr, SocketAddr, Vec<u8>) {
    assert!(rig.one(say(v6, Protocol::Tcp, S, b"")).new_flow);
    let sent = rig.sent();
    let (asker, server) = super::translation::ends(&sent);
    (server, asker, sent)
}

fn answer(rig: &mut Rig, (server, asker): (SocketAddr, SocketAddr), flags: u8) {
    let outcome = rig.one(packet(SERVER_MAC, server, asker, Protocol::Tcp, flags, b""));
    assert_eq!(outcome.verdict, Verdict::Tx(0));
    rig.io.sent(0);
}

const BOTH: [Method; 2] = [Method::Nat, Method::FullNat];

fn each(test: impl Fn(bool, Method)) {
    for (v6, method) in [false, true].into_iter().flat_map(|v6| BOTH.map(|method| (v6, method))) {
        test(v6, method);
    }
}

#[test]
fn a_connection_that_is_refused_counts_once() {
    each(|v6, method| {
        let mut rig = rig(vec![watched(v6, method)]);
        let (server, asker, _) = ask(&mut rig, v6);
        for _ in 0..2 {
            answer(&mut rig, (server, asker), R | A);
        }
        assert_eq!(failed(&rig), 1, "{method:?}");
        let slot = rig.snapshot.services[0].members[0].id;
        assert_eq!(rig.pipeline.stats().servers[slot_of(slot)].failed.get(), 1);
        // The client tries again from the same port: another flow.
        rig.now += 20;
        let (server, asker, _) = ask(&mut rig, v6);
        answer(&mut rig, (server, asker), R | A);
        assert_eq!(failed(&rig), 2);
        rig.now += 2_000_000;
        rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
        assert_eq!(failed(&rig), 2, "what was counted does not count again when it ends");
    });
}

#[test]
fn a_reset_between_syn_ack_and_ack_counts_and_one_of_a_connection_does_not() {
    each(|v6, method| {
        let mut rig = rig(vec![watched(v6, method)]);
        let (server, asker, _) = ask(&mut rig, v6);
        answer(&mut rig, (server, asker), S | A);
        assert_eq!(failed(&rig), 0);
        answer(&mut rig, (server, asker), R);
        assert_eq!(failed(&rig), 1);
        let mut rig = super::fates::rig(vec![watched(v6, method)]);
        let (server, asker, _) = ask(&mut rig, v6);
        answer(&mut rig, (server, asker), S | A);
        rig.one(say(v6, Protocol::Tcp, A, b""));
        answer(&mut rig, (server, asker), R);
        rig.now += 2_000_000;
        rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
        assert_eq!((failed(&rig), super::fates::flows(&rig)), (0, 0));
    });
}

#[test]
fn a_syn_that_is_sent_again_twice_counts_once() {
    each(|v6, method| {
        let mut rig = rig(vec![watched(v6, method)]);
        ask(&mut rig, v6);
        // As Linux sends them: 1, 3, 7, 15 s after the first.
        for (wait, expected) in [(1000, 0), (2000, 1), (4000, 1), (8000, 1)] {
            rig.now += wait;
            assert!(!rig.one(say(v6, Protocol::Tcp, S, b"")).new_flow);
            assert_eq!(failed(&rig), expected, "{method:?} after {wait} ms more");
        }
        rig.io.sent(0);
        rig.now += 200_000;
        rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
        assert_eq!((failed(&rig), super::fates::flows(&rig)), (1, 0));
    });
}

#[test]
fn a_server_that_answered_or_was_asked_thrice_at_once_is_not_dead() {
    each(|v6, method| {
        let mut rig = rig(vec![watched(v6, method)]);
        let (server, asker, _) = ask(&mut rig, v6);
        for _ in 0..10 {
            rig.now += 200;
            rig.one(say(v6, Protocol::Tcp, S, b""));
        }
        assert_eq!(failed(&rig), 0, "a client that repeats itself");
        // A SYN-ACK that the client does not get, or does not want.
        answer(&mut rig, (server, asker), S | A);
        for _ in 0..5 {
            rig.now += 2000;
            rig.one(say(v6, Protocol::Tcp, S, b""));
        }
        rig.now += 200_000;
        rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
        assert_eq!((failed(&rig), super::fates::flows(&rig)), (0, 0));
    });
}

#[test]
fn a_flow_that_ends_without_an_answer_counts() {
    each(|v6, method| {
        let mut rig = rig(vec![watched(v6, method)]);
        ask(&mut rig, v6);
        rig.now += 61_000;
        rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
        assert_eq!((failed(&rig), super::fates::flows(&rig)), (1, 0), "{method:?}");
    });
}

#[test]
fn an_icmp_error_about_the_question_counts() {
    each(|v6, method| {
        // Type and whether it says that the server is not there.
        for (kind, counts) in if v6 { [(1, true), (3, false)] } else { [(3, true), (11, false)] } {
            let mut rig = rig(vec![watched(v6, method)]);
            let (server, asker, question) = ask(&mut rig, v6);
            for _ in 0..2 {
                let error = icmp_error(SERVER_MAC, server.ip(), asker.ip(), kind, &question, 1200);
                assert_eq!(rig.one(error).verdict, Verdict::Tx(0));
            }
            assert_eq!(failed(&rig), u64::from(counts), "type {kind}");
            // Once it has answered it is alive.
            let mut rig = super::fates::rig(vec![watched(v6, method)]);
            let (server, asker, question) = ask(&mut rig, v6);
            answer(&mut rig, (server, asker), S | A);
            rig.one(icmp_error(SERVER_MAC, server.ip(), asker.ip(), kind, &question, 1200));
            assert_eq!(failed(&rig), 0);
        }
    });
    // "Fragmentation needed" is no failure.
    let mut rig = rig(vec![watched(false, Method::Nat)]);
    let (server, asker, question) = ask(&mut rig, false);
    let mut error = icmp_error(SERVER_MAC, server.ip(), asker.ip(), 3, &question, 1200);
    error[35] = 4;
    error[36..38].fill(0);
    let check = checksum::checksum(&error[34..]);
    error[36..38].copy_from_slice(&check.to_ne_bytes());
    assert_eq!(rig.one(error).verdict, Verdict::Tx(0));
    assert_eq!(failed(&rig), 0);
}

#[test]
fn a_server_that_refuses_who_came_by_a_cookie_counts() {
    for (mut line, passive) in Line::all().into_iter().zip([true, false].into_iter().cycle()) {
        let mut service = line.rig.snapshot.services[0].config.as_ref().clone();
        service.health.passive = passive.then_some(PASSIVE);
        line.rig = Rig::with(cookies::settings(SynCookies::Always), vec![service]);
        line.come_back();
        let reset = Segment { flags: R | A, window: 0, options: vec![], number: 0, ..line.syn_ack() };
        assert_eq!(line.server_says(&reset).verdict, Verdict::Tx(0));
        assert_eq!(failed(&line.rig), u64::from(passive));
    }
    let mut line = Line::new(false, Method::Nat, false);
    let mut service = line.rig.snapshot.services[0].config.as_ref().clone();
    service.health.passive = Some(PASSIVE);
    line.rig = Rig::with(cookies::settings(SynCookies::Always), vec![service]);
    line.come_back();
    let answer = line.syn_ack();
    assert_eq!(line.server_says(&answer).verdict, Verdict::Tx(0));
    line.rig.now += 2_000_000;
    line.rig.pipeline.sweep(&line.rig.snapshot, usize::MAX / 2, line.rig.now);
    assert_eq!((failed(&line.rig), line.sent().0.len()), (0, 1));
}

#[test]
fn nobody_else_is_watched() {
    // Without passive checks, and what opens no connection.
    for (passive, opens) in [(None, S), (Some(PASSIVE), A)] {
        let mut service = web(false, Protocol::Tcp, Method::Nat, &[1]);
        service.health.passive = passive;
        let mut rig = rig(vec![service]);
        rig.one(say(false, Protocol::Tcp, opens, b""));
        answer(&mut rig, (at("10.0.0.1:80"), ends(false).0), R | A);
        assert_eq!(failed(&rig), 0);
    }
}

#[test]
fn a_watched_flow_is_watched_on_when_its_client_moves() {
    let mut rig = rig(vec![watched(false, Method::Nat)]);
    let (server, asker, _) = ask(&mut rig, false);
    rig.now += 5000;
    let mut moved = say(false, Protocol::Tcp, S, b"");
    moved[11] = 0xd;
    rig.one(moved);
    rig.io.sent(0);
    let outcome = rig.one(packet(SERVER_MAC, server, asker, Protocol::Tcp, R | A, b""));
    assert_eq!(outcome.verdict, Verdict::Tx(0));
    assert_eq!((rig.sent()[5], failed(&rig)), (0xd, 1));
    rig.now += 2_000_000;
    rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
    assert_eq!(rig.pipeline.holdings(), Holdings::default());
}
