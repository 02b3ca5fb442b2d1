//! The short path against the general one.

use std::net::IpAddr;

use proptest::prelude::*;

use super::super::nat::tests::{Build, build, endpoint, parsed_of};
use super::super::nat::translate;
use super::*;
use crate::dataplane::snapshot::Endpoint;

const SHORT: &[u8] = &[TCP, UDP];

/// The short path's result for one end of a packet.
fn rewritten(build: &Build, end: End, new: Endpoint, port_known: bool, age: bool) -> (Vec<u8>, bool) {
    let old = if end == DESTINATION { build.destination } else { build.source };
    let known = port_known.then_some(old.1);
    let mut frame = build.frame();
    let bytes = &mut frame;
    let done = match (old.0, new.address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let rewrite = Rewrite4::new((a, known), (b, new.port));
            match (end, age) {
                (SOURCE, false) => plain_v4::<SOURCE, false>(bytes, &rewrite, build.protocol),
                (SOURCE, true) => plain_v4::<SOURCE, true>(bytes, &rewrite, build.protocol),
                (DESTINATION, false) => plain_v4::<DESTINATION, false>(bytes, &rewrite, build.protocol),
                (DESTINATION, true) => plain_v4::<DESTINATION, true>(bytes, &rewrite, build.protocol),
            }
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let rewrite = Rewrite6::new((a, known), (b, new.port));
            match (end, age) {
                (SOURCE, false) => plain_v6::<SOURCE, false>(bytes, &rewrite, build.protocol),
                (SOURCE, true) => plain_v6::<SOURCE, true>(bytes, &rewrite, build.protocol),
                (DESTINATION, false) => plain_v6::<DESTINATION, false>(bytes, &rewrite, build.protocol),
                (DESTINATION, true) => plain_v6::<DESTINATION, true>(bytes, &rewrite, build.protocol),
            }
        }
        _ => false,
    };
    (frame, done)
}

proptest! {
    #[test]
    fn equals_the_general_way(
        (mut build, new) in any::<bool>().prop_flat_map(|v6| (build(v6, SHORT), endpoint(v6))),
        end: bool,
        port_known: bool,
        age: bool,
    ) {
        (build.tags, build.extra) = (0, 0);
        let Some(new) = new else { return Ok(()) };
        let (found, done) = rewritten(&build, end, new, port_known, age);
        prop_assert!(done);
        let kept = Some(Endpoint { port: new.port.filter(|_| port_known), ..new });
        let (source, destination) = if end == DESTINATION { (None, kept) } else { (kept, None) };
        let mut expected = Build { ttl: build.ttl - u8::from(age), ..build.clone() }.frame();
        prop_assert_eq!(translate(&mut expected, &parsed_of(&build), source, destination), Ok(()));
        prop_assert_eq!(&found, &expected);
        let older = Build { ttl: build.ttl - u8::from(age), ..build.clone() };
        prop_assert_eq!(found, older.between(source, destination).frame());
    }

    #[test]
    fn short_frames_are_left(bytes in proptest::collection::vec(any::<u8>(), 0..80), protocol: u8) {
        let four = Rewrite4::new(([1; 4].into(), Some(1)), ([2; 4].into(), Some(2)));
        let six = Rewrite6::new(([1; 16].into(), Some(1)), ([2; 16].into(), Some(2)));
        for protocol in [protocol, TCP, UDP] {
            let mut copy = bytes.clone();
            if !plain_v4::<SOURCE, true>(&mut copy, &four, protocol) {
                prop_assert_eq!(&copy, &bytes);
            }
            let mut copy = bytes.clone();
            if !plain_v6::<DESTINATION, true>(&mut copy, &six, protocol) {
                prop_assert_eq!(&copy, &bytes);
            }
        }
    }
}

#[test]
fn they_stay_small() {
    assert!(size_of::<Rewrite4>() <= 20 && size_of::<Rewrite6>() <= 24);
}
