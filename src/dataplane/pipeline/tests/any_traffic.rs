//! Whatever comes in: what holds for every traffic.

use super::*;

/// Frames that look like the real thing in every respect but one or two.
fn frame_strategy() -> impl Strategy<Value = Vec<u8>> {
    let base = prop_oneof![
        (0u16..40, 0u8..32).prop_map(|(port, flags)| tcp(port, 80, flags, b"some payload")),
        (0u16..40, 0u8..32).prop_map(|(port, flags)| tagged(tcp(port, 700, flags, b"x"), 7)),
        (0u16..40, 0u8..32).prop_map(|(port, flags)| tcp6(port, flags)),
        (0u8..40).prop_map(|n| udp([198, 51, 100, n], 5000 + u16::from(n % 12))),
        (0u8..16).prop_map(sctp),
        Just(arp(1, CLIENT, VIP)),
        Just(solicit(CLIENT6, VIP6, true, 255)),
        (0u16..40).prop_map(frag_needed),
        proptest::collection::vec(any::<u8>(), 0..120),
    ];
    (base, proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), 0usize..200, 0usize..20)
        .prop_map(|(mut frame, changes, cut, grow)| {
            for (at, value) in changes {
                if !frame.is_empty() {
                    let at = at.index(frame.len());
                    frame[at] = value;
                }
            }
            if cut < 10 {
                frame.truncate(frame.len().saturating_sub(cut * 4));
            }
            frame.resize(frame.len() + grow, 0);
            frame
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes in: no panic, no frame lost, every frame one outcome, every drop counted, loads as the table.
    #[test]
    fn any_traffic_keeps_the_invariants(batches in proptest::collection::vec(proptest::collection::vec(frame_strategy(), 1..40), 1..8)) {
        let settings = EngineSettings { flows: 64, flows_ipv6: 16, ..EngineSettings::default() };
        let mut rig = Rig::with(settings, default_services());
        let mut total = 0;
        for batch in batches {
            total += rig.run(&batch).len() as u64;
            rig.now += 7_000;
            rig.pipeline.sweep(&rig.snapshot, 200, rig.now);
        }
        let stats = rig.pipeline.stats();
        let drops: u64 = stats.drops.iter().map(|d| d.get()).sum();
        // Fragments that wait are kept, and counted once more when they are given up.
        let others = stats.replies.get() + stats.passed.get() + stats.kept.get();
        prop_assert_eq!(stats.forwarded.get() + others + drops, stats.frames.get());
        prop_assert!(stats.frames.get() >= total);
        let counted: u32 = (0..rig.snapshot.services.len()).flat_map(|s| rig.counts(s)).map(|(a, i)| a + i).sum();
        let (v4, v6) = rig.pipeline.tables();
        prop_assert_eq!(counted as usize, v4.len() + v6.len());
    }

    /// The short way and the long way agree: a tag that is pushed on and taken off again changes the way, not the
    /// outcome.
    #[test]
    fn short_and_long_way_agree(packets in proptest::collection::vec((0u16..6, 0u8..32, 0u32..100_000), 1..60)) {
        let (mut short, mut long) = (Rig::new(), Rig::new());
        for (port, flags, pause) in packets {
            short.now += pause;
            long.now = short.now;
            for (service, frame) in [(0, tcp(port, 80, flags, b"payload")), (3, tcp6(port, flags))] {
                let a = short.one(frame.clone());
                let b = long.one(tagged(frame, 3));
                prop_assert_eq!(a, b);
                prop_assert_eq!(short.io.sent(0), long.io.sent(0));
                prop_assert_eq!(short.counts(service), long.counts(service));
            }
        }
    }
}
