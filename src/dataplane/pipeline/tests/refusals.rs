//! Clients of a service without any usable server: refused, or left without an answer.

use std::time::Duration;

use super::fates::{METHODS, answered, ends, flows, opening, rig, say, web};
use super::translation::packet;
use super::*;
use crate::control::compile::Whereabouts;
use crate::control::health::Standing;
use crate::dataplane::parse::parse;

/// A service that has one server of no weight.
fn nobody(v6: bool, protocol: Protocol, method: Method) -> Service {
    let mut service = web(v6, protocol, method, &[1]);
    service.servers[0].weight = 0;
    service.health.no_server = NoServer::Refuse;
    service
}

fn refused(rig: &Rig) -> (u64, u64) {
    let stats = rig.pipeline.stats();
    (stats.refused.get(), stats.drops[DropReason::NoServer as usize].get())
}

#[test]
fn a_client_that_nobody_serves_is_told() {
    for (v6, method) in [false, true].into_iter().flat_map(|v6| METHODS.map(|method| (v6, method))) {
        for protocol in Protocol::ALL {
            let mut rig = rig(vec![nobody(v6, protocol, method)]);
            let question = say(v6, protocol, opening(protocol), b"hello");
            let outcome = rig.one(question.clone());
            assert_eq!((outcome.verdict, outcome.service, outcome.new_flow), (Verdict::Reply(0), 0, false));
            let sent = rig.sent();
            let expected = match (protocol, v6) {
                // RST, ACK.
                (Protocol::Tcp, _) => "tcp 0x14",
                (_, false) => "icmp 3 3",
                (_, true) => "icmp 1 4",
            };
            assert_eq!(answered(&sent, v6), expected, "{protocol} {method:?}");
            if protocol == Protocol::Tcp {
                // It acknowledges the SYN and what came with it, so that the client believes it.
                let l4 = usize::from(parse(&sent).expect("sound").l4);
                assert_eq!((&sent[l4 + 4..l4 + 8], &sent[l4 + 8..l4 + 12]), (&[0; 4][..], &7u32.to_be_bytes()[..]));
            }
            assert_eq!((refused(&rig), flows(&rig)), ((1, 0), 0));
            let stats = rig.pipeline.stats();
            let counted = (stats.replies.get(), stats.resets.get(), stats.icmp_errors.get());
            assert_eq!(counted, if protocol == Protocol::Tcp { (1, 1, 0) } else { (1, 0, 1) });
            // As configured: not a word.
            let mut service = nobody(v6, protocol, method);
            service.health.no_server = NoServer::Drop;
            rig.swap(vec![service]);
            assert_eq!(rig.drops(question.clone()), Some(DropReason::NoServer));
            assert_eq!(refused(&rig), (1, 1));
            // A server takes flows again.
            rig.swap(vec![web(v6, protocol, method, &[1])]);
            assert!(rig.one(question).new_flow);
        }
    }
}

#[test]
fn a_connection_in_mid_stream_that_nobody_knows_is_reset() {
    let mut rig = rig(vec![nobody(false, Protocol::Tcp, Method::Nat)]);
    assert_eq!(rig.one(say(false, Protocol::Tcp, A, b"data")).verdict, Verdict::Reply(0));
    // Where the client's acknowledgement stands, which is the only number that it takes.
    let sent = rig.sent();
    assert_eq!((answered(&sent, false).as_str(), &sent[38..42]), ("tcp 0x04", &7u32.to_be_bytes()[..]));
    // A reset is never answered.
    assert_eq!(rig.drops(say(false, Protocol::Tcp, R, b"")), Some(DropReason::NoFlow));
}

#[test]
fn servers_that_cannot_be_reached_are_none() {
    let mut service = web(false, Protocol::Tcp, Method::Dr, &[101, 102]);
    service.health.no_server = NoServer::Refuse;
    let mut rig = rig(vec![service.clone()]);
    assert_eq!(rig.one(say(false, Protocol::Tcp, S, b"")).verdict, Verdict::Reply(0));
    service.servers.clear();
    rig.swap(vec![service]);
    assert_eq!(rig.one(say(false, Protocol::Tcp, S, b"")).verdict, Verdict::Reply(0));
    assert_eq!(refused(&rig), (2, 0));
}

/// At a start the next hops are not known at once: who is told to go away then would not come back.
#[test]
fn servers_whose_next_hop_is_asked_for_refuse_nobody_yet() {
    let mut service = web(false, Protocol::Tcp, Method::Dr, &[101, 102]);
    service.health.no_server = NoServer::Refuse;
    let mut rig = rig(vec![service.clone()]);
    let desired = Desired::of(vec![service]);
    let mut asked = |standing: Option<Standing>| {
        let at = |_: &Service, server: &Server| {
            let awaited = server.address == desired.services[0].servers[0].address;
            Whereabouts { awaited, standing, ..Whereabouts::default() }
        };
        rig.snapshot = rig.registry.compile_at(&desired, ports(), Duration::ZERO, at).expect("compiles").snapshot;
        rig.one(say(false, Protocol::Tcp, S, b"")).verdict
    };
    let starting = Standing { weight: 1, takes: false, failed: false, drains: false };
    assert_eq!(asked(None), Verdict::Drop(DropReason::NoServer));
    assert_eq!(asked(Some(starting)), Verdict::Drop(DropReason::NoServer));
    // One that its checks have found dead, or that has no weight, is not waited for.
    assert_eq!(asked(Some(Standing { failed: true, ..starting })), Verdict::Reply(0));
    assert_eq!(asked(Some(Standing { weight: 0, ..starting })), Verdict::Reply(0));
    assert_eq!(refused(&rig), (2, 2));
}

/// Its checks fail, and its flows go on (`flows_of_down = "keep"`).
#[test]
fn servers_that_left_by_their_checks_are_none() {
    let mut service = web(false, Protocol::Tcp, Method::Dr, &[1]);
    service.health.no_server = NoServer::Refuse;
    service.fates.down = Fate::Keep;
    let mut rig = rig(vec![service.clone()]);
    let first = say(false, Protocol::Tcp, S, b"");
    assert!(rig.one(first).new_flow);
    let standing = Some(Standing { weight: 1, takes: false, failed: true, drains: false });
    let at =
        |_: &Service, server: &Server| Whereabouts { hop: hop(server.address), standing, ..Whereabouts::default() };
    let desired = Desired::of(vec![service]);
    rig.snapshot = rig.registry.compile_at(&desired, ports(), Duration::ZERO, at).expect("compiles").snapshot;
    assert_eq!(rig.one(say(false, Protocol::Tcp, A, b"data")).verdict, Verdict::Tx(0));
    let other = packet(CLIENT_MAC, "198.51.100.8:1".parse().expect("ends"), ends(false).1, Protocol::Tcp, S, b"");
    assert_eq!(rig.one(other).verdict, Verdict::Reply(0));
    assert_eq!(refused(&rig), (1, 0));
}

/// The next attempt of a client may be let in: it is not told to give up.
#[test]
fn servers_that_are_only_full_refuse_nobody() {
    let mut service = web(false, Protocol::Tcp, Method::Dr, &[1]);
    service.health.no_server = NoServer::Refuse;
    service.servers[0].upper = Some(1);
    let mut rig = rig(vec![service]);
    assert!(rig.one(say(false, Protocol::Tcp, S, b"")).new_flow);
    let other = packet(CLIENT_MAC, "198.51.100.8:1".parse().expect("ends"), ends(false).1, Protocol::Tcp, S, b"");
    assert_eq!(rig.drops(other), Some(DropReason::NoServer));
    assert_eq!(refused(&rig), (0, 1));
}

#[test]
fn so_many_are_told_a_second_and_who_must_not_be_is_not() {
    let mut rig = rig(vec![nobody(false, Protocol::Udp, Method::Dr)]);
    let question = say(false, Protocol::Udp, 0, b"q");
    let told = (0..300).filter(|_| rig.one(question.clone()).verdict == Verdict::Reply(0)).count();
    assert_eq!((told, refused(&rig)), (100, (100, 200)));
    rig.io.sent(0);
    rig.now += 1000;
    // Nobody can have these addresses, and a group's frame is answered by nobody (RFC 1122, section 3.2.2).
    let from = |source: &str| {
        let source = source.parse().expect("an address and a port");
        packet(CLIENT_MAC, source, ends(false).1, Protocol::Udp, 0, b"q")
    };
    assert_eq!(rig.drops(from("127.0.0.1:7")), Some(DropReason::MartianSource));
    assert_eq!(rig.drops(from("192.0.2.10:80")), Some(DropReason::OwnSource));
    let mut grouped = question.clone();
    grouped[6] |= 1;
    assert_eq!(rig.drops(grouped), Some(DropReason::NoServer));
    // A wrong checksum is no question.
    let mut broken = question;
    *broken.last_mut().expect("bytes") ^= 1;
    assert_eq!(rig.drops(broken), Some(DropReason::BadTransportChecksum));
    assert_eq!(refused(&rig).0, 100);
}

#[test]
fn a_flood_at_a_service_without_servers_gets_no_cookies() {
    for cookies in [SynCookies::Flood, SynCookies::Always] {
        for method in METHODS {
            let settings = EngineSettings { syn_cookies: cookies, local_addresses: 2, ..EngineSettings::default() };
            let mut rig = Rig::with(settings, vec![nobody(false, Protocol::Tcp, method)]);
            rig.pipeline.director().guard.press(rig.now);
            assert_eq!(rig.one(say(false, Protocol::Tcp, S, b"")).verdict, Verdict::Reply(0));
            assert_eq!(answered(&rig.sent(), false), "tcp 0x14", "{cookies:?} {method:?}");
            let stats = rig.pipeline.stats();
            assert_eq!((stats.cookies_sent.get(), stats.stateless.get()), (0, 0));
            assert_eq!(refused(&rig), (1, 0));
        }
    }
}
