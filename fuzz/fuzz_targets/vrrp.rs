//! A script of messages and pauses through routers of every kind, with the checks of `tests/vrrp_hostile.rs`: only what the
//! judge there lets a router take may change anything, and nothing makes it master but its own timers.
//!
//! Each step is one byte and what belongs to it: 0 to 199 a message (one byte of length, then as many bytes; what came
//! around it is chosen by the step), 200 to 229 the same with a checksum that is made right, from 230 on a pause.

#![no_main]

#[path = "../../tests/vrrp_support/mod.rs"]
#[allow(dead_code)]
mod vrrp_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use evenkeel::model::MacAddr;
use evenkeel::vrrp::packet::{Envelope, GROUP_V4, GROUP_V6};
use libfuzzer_sys::fuzz_target;
use vrrp_support::hostile::{Victim, repair};

/// From a peer or a stranger, to the group or to us, over IPv4 or IPv6.
fn envelope(step: u8) -> Envelope {
    let v6 = step & 1 == 1;
    let last = if step & 2 == 0 { 7 } else { step };
    let (source, group, ours): (IpAddr, IpAddr, IpAddr) = if v6 {
        let at = |last: u8| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(last));
        (at(last).into(), GROUP_V6.into(), at(1).into())
    } else {
        (Ipv4Addr::new(10, 0, 0, last).into(), GROUP_V4.into(), Ipv4Addr::new(10, 0, 0, 1).into())
    };
    let destination = if step & 4 == 0 { group } else { ours };
    Envelope { source, destination, ttl: if step & 24 == 24 { step } else { 255 }, mac: MacAddr([2, 0, 0, 0, 0, last]) }
}

fuzz_target!(|script: &[u8]| {
    let mut victim = Victim::new();
    let mut rest = script;
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        if step >= 230 {
            victim.run(Duration::from_millis(1 << (step - 230).min(13)));
            continue;
        }
        let Some((&length, after)) = rest.split_first() else { break };
        let (message, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        let (envelope, mut message) = (envelope(step), message.to_vec());
        if step >= 200 {
            repair(&envelope, &mut message);
        }
        victim.receive(&envelope, &message);
    }
    assert!(victim.is_bounded());
});
