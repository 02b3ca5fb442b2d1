//! When there are SYN cookies: for which services, and while a flood lasts.

use std::net::SocketAddr;

use super::cookies::{Line, frame, service, settings};
use super::*;
use crate::dataplane::guard::{HOLD_MS, MEMORY_MS};
use crate::dataplane::proxy::tests::Segment;

#[test]
fn a_service_that_is_not_all_nat_or_has_nobody_gets_no_cookies() {
    let mixed = |weight| {
        let mut service = service(false, Method::Nat, false);
        service.servers.push(Server::dr(IpAddr::from([10, 0, 0, 2]), 1));
        service.servers[0].weight = weight;
        service
    };
    let mut nobody = service(false, Method::Nat, false);
    nobody.servers[0].weight = 0;
    nobody.health.no_server = NoServer::Drop;
    for (service, expected) in [(mixed(1), None), (mixed(0), None), (nobody, Some(DropReason::NoServer))] {
        let mut line = Line::new(false, Method::Nat, false);
        line.rig = Rig::with(settings(SynCookies::Always), vec![service]);
        let syn = frame(CLIENT_MAC, line.client, line.vip, &line.syn());
        assert_eq!(line.rig.drops(syn), expected);
        assert_eq!(line.rig.pipeline.stats().cookies_sent.get(), 0);
    }
    let mut off = Line::new(false, Method::Nat, false);
    off.rig = Rig::with(settings(SynCookies::Off), vec![service(false, Method::Nat, false)]);
    off.rig.pipeline.director().guard.press(off.rig.now);
    let syn = off.syn();
    assert!(off.says(&syn).new_flow);
}

#[test]
fn cookies_come_with_a_flood_and_go_with_it() {
    for method in [Method::Nat, Method::FullNat] {
        let mut own = settings(SynCookies::Flood);
        own.local_ports = PortRange { first: 2000, last: 9999 };
        let mut line = Line::new(false, method, false);
        line.rig = Rig::with(own, vec![service(false, method, false)]);
        let random = |n: u32| {
            let [_, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
            SocketAddr::new(IpAddr::from([100, 64 | b & 63, c, d]), 1 + (n & 0xfff) as u16)
        };
        let mut number = 0;
        let mut flood = |line: &mut Line, frames: u32| {
            for _ in 0..frames {
                number += 1;
                let syn = line.syn();
                line.rig.run(&[frame(CLIENT_MAC, random(number), line.vip, &syn)]);
                line.rig.io.sent(0);
            }
        };
        let syn = line.syn();
        assert!(line.says(&syn).new_flow, "no flood, no cookie");
        line.rig.io.sent(0);
        flood(&mut line, 400);
        assert!(line.rig.pipeline.director().guard.is_on(line.rig.now));
        assert!(line.rig.pipeline.stats().cookies_sent.get() > 200);
        // It goes on for a minute, all answered by cookies: nothing is remembered, and it is not forgotten.
        let unproven = line.rig.pipeline.v4.unproven.len();
        let mut accepted = 0;
        for second in 0..60u16 {
            line.rig.now += 1000;
            flood(&mut line, 100);
            assert!(line.rig.pipeline.director().guard.is_on(line.rig.now), "second {second}");
            // Who means it gets in.
            line.client = SocketAddr::new(IpAddr::from([198, 51, 100, 7]), 10_000 + second);
            line.ask();
            let ack = line.ack();
            line.rig.now += 30;
            let outcome = line.says(&ack);
            line.rig.io.sent(0);
            if second < 4 {
                assert!(outcome.new_flow, "{outcome:?}");
                accepted += 1;
            }
            let stray = Segment { ack: 5, ..ack };
            line.client.set_port(1);
            assert_eq!(line.says(&stray).verdict, Verdict::Drop(DropReason::BadCookie));
        }
        assert_eq!(accepted, 4);
        assert!(line.rig.pipeline.v4.unproven.len() <= unproven);
        // A cookie of the flood's last moment is good after it; and so is any packet again.
        line.client.set_port(20_000);
        line.ask();
        let held = line.rig.now;
        line.rig.now += HOLD_MS;
        line.rig.pipeline.sweep(&line.rig.snapshot, usize::MAX / 2, line.rig.now);
        assert!(!line.rig.pipeline.director().guard.is_on(line.rig.now));
        let ack = line.ack();
        line.rig.now = held + 60_000;
        line.rig.pipeline.sweep(&line.rig.snapshot, usize::MAX / 2, line.rig.now);
        let outcome = line.says(&ack);
        assert!(outcome.new_flow, "{outcome:?}");
        let sent = line.rig.sent();
        assert_eq!(Segment::read(&sent).flags, S);
        line.client.set_port(20_001);
        assert!(line.says(&Segment { ack: 5, ..ack.clone() }).new_flow, "in mid-stream");
        line.rig.io.sent(0);
        line.client.set_port(20_002);
        assert!(line.says(&syn).new_flow);
        line.rig.io.sent(0);
        line.rig.now = held + MEMORY_MS;
        line.nothing_is_left();
    }
}
