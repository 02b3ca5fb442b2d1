//! A million adverts made to mislead: noise, mutations, forgeries with right checksums. None makes it panic, none makes it
//! master, and only those that a router may take change anything.
//!
//! `VRRP_HOSTILE=50000000 VRRP_HOSTILE_SEED=2 cargo test --test vrrp_hostile` goes on for longer, or elsewhere.

#[allow(dead_code)]
mod vrrp_support;

use std::time::Duration;

use vrrp_support::Random;
use vrrp_support::hostile::{Victim, message};

fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_million_adverts_mislead_nobody() {
    let count = given("VRRP_HOSTILE").unwrap_or(1_000_000);
    let mut random = Random(given("VRRP_HOSTILE_SEED").unwrap_or(1));
    let mut victim = Victim::new();
    let (mut yielded, mut as_master) = (0u64, 0u64);
    for turn in 0..count {
        // Half of the time it is backup, half of the time master of all that let it be.
        if turn % 2000 == 1000 {
            victim.run(Duration::from_secs(20));
        }
        as_master += u64::from(turn % 2000 >= 1000);
        let (envelope, message) = message(&mut random, &victim.routers);
        yielded += u64::from(victim.receive(&envelope, &message));
        if turn % 97 == 0 {
            victim.run(Duration::from_micros(10));
        }
    }
    assert!(victim.is_bounded());
    let (taken, refused) = victim.counts;
    println!("{count} adverts: {taken} taken, {refused} refused, {yielded} made a master give way");
    assert!(taken > count / 10 && refused > count / 10 && yielded > 100 && as_master > 0, "each kind is met");
    let mut reasons: Vec<String> = victim.election.refused().into_keys().collect();
    reasons
        .extend(victim.election.status(victim.now).into_iter().flat_map(|router| router.adverts.refused.into_keys()));
    for refusal in evenkeel::vrrp::packet::Refusal::ALL {
        assert!(reasons.iter().any(|reason| reason == refusal.name()), "no message was refused for {}", refusal.name());
    }
}
