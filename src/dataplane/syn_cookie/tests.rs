//! Cookies: what they hold, for how long, and how hard one is to guess.

use proptest::prelude::*;

use super::*;
use crate::dataplane::parse::parse;
use crate::dataplane::proxy::tests::Segment;

const ACK: u8 = tcp_flag::ACK;
const SYN: u8 = tcp_flag::SYN;
const FIN: u8 = tcp_flag::FIN;
const RST: u8 = tcp_flag::RST;

fn secret() -> Secret {
    Secret([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908])
}

fn ends(v6: bool) -> Ends {
    let frame = Segment::default().frame(v6, 0);
    Ends::of(&frame, &parse(&frame).expect("parses")).expect("ports")
}

fn proof(secret: &Secret, v6: bool, segment: &Segment, now: u32) -> Option<Proof> {
    let frame = segment.frame(v6, 1);
    secret.proof(&frame, &parse(&frame).expect("parses"), now)
}

/// Worked out by a SipHash-2-4 of its own, from the definition in this module's head.
#[test]
fn cookies_are_what_they_are_said_to_be() {
    let offer = Offer::from_bits(0x7d);
    for (v6, cookie) in [(false, 0x0d0a_4d7d), (true, 0x34cf_3e7d)] {
        assert_eq!(secret().issue(&ends(v6), 0x0102_0304, offer, 0x0005_4321), cookie, "{v6}");
    }
    assert_eq!((offer.mss(), offer.sack(), offer.scale()), (1440, true, Some(7)));
    assert_eq!(Offer::from_bits(0xf0).scale(), None);
}

#[test]
fn of_all_that_can_be_guessed_one_is_good_in_each_slot() {
    let (secret, ends) = (secret(), ends(false));
    let good = (0..1u32 << 24).filter(|mac| secret.accept(&ends, 77, mac << 8 | 0x5d, 1_000_000).is_some()).count();
    assert_eq!(good, 2);
}

#[test]
fn what_a_syn_offers() {
    let none = 15 << 4;
    for (v6, options, expected) in [
        (false, vec![], 1 | none),
        (true, vec![], 2 | none),
        (false, vec![2, 4, 5, 180], 6 | none),
        (true, vec![2, 4, 5, 160], 5 | none),
        (false, vec![2, 4, 0xff, 0xff], 7 | none),
        (false, vec![2, 4, 0, 0], none),
        (false, vec![2, 4, 5, 179], 5 | none),
        // As Linux sends it: MSS, SACK, timestamps, scale.
        (false, vec![2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7], 6 | 8 | 7 << 4),
        (false, vec![3, 3, 200, 1], 1 | 14 << 4),
        // What does not fit ends the walk; a wrong length is not the option.
        (false, vec![2, 3, 5, 4, 2, 0, 3, 3], 1 | 8 | none),
        (false, vec![2, 4, 5, 180, 3, 9, 4, 2], 6 | none),
        (false, vec![1, 1, 1, 2], 1 | none),
        (false, vec![0, 4, 2, 0], 1 | none),
    ] {
        let frame = Segment { flags: SYN, options: options.clone(), ..Segment::default() }.frame(v6, 2);
        let offer = Offer::of(&frame, &parse(&frame).expect("parses"));
        assert_eq!(offer, Some(Offer::from_bits(expected)), "{options:?}");
    }
    let mut frame = Segment { flags: SYN, ..Segment::default() }.frame(false, 0);
    let parsed = parse(&frame).expect("parses");
    frame[46] = 0xf0;
    assert_eq!(Offer::of(&frame, &parsed), None);
}

#[test]
fn segments_that_prove_and_those_that_do_not() {
    let (secret, isn, offer) = (secret(), u32::MAX, Offer::from_bits(0x5d));
    let cookie = secret.issue(&ends(false), isn, offer, 5);
    let bare = Segment { number: 0, ack: cookie.wrapping_add(1), flags: ACK, ..Segment::default() };
    let good = Some(Proof { isn, cookie, offer });
    let with = |payload: &[u8]| Segment { payload: payload.to_vec(), ..bare.clone() };
    for (segment, expected) in [
        (bare.clone(), good),
        (with(b"data"), good),
        (Segment { flags: ACK | 0x08, ..with(b"data") }, good),
        (Segment { flags: ACK | FIN, ..bare.clone() }, good),
        // A probe of a closed window: empty, one before the first byte; or with that byte.
        (Segment { number: isn, ..bare.clone() }, good),
        (with(b"d"), good),
        (Segment { number: isn, ..with(b"d") }, None),
        (Segment { number: 1, ..bare.clone() }, None),
        (Segment { ack: cookie, ..bare.clone() }, None),
        (Segment { flags: 0, ..bare.clone() }, None),
        (Segment { flags: ACK | RST, ..bare.clone() }, None),
        (Segment { flags: ACK | SYN, ..bare.clone() }, None),
        (Segment { flags: FIN, ..bare.clone() }, None),
    ] {
        assert_eq!(proof(&secret, false, &segment, 5), expected, "{segment:?}");
    }
    assert_eq!(proof(&secret, true, &bare, 5), None, "another connection");
    let other = Secret([1, 2]);
    assert_eq!(proof(&other, false, &bare, 5), None);
    let frame = bare.frame(false, 0);
    let first = Parsed { part: Part::First, ..parse(&frame).expect("parses") };
    assert_eq!(secret.proof(&frame, &first, 5), None);
}

proptest! {
    #[test]
    fn a_cookie_brings_back_its_options_in_its_slot_and_the_next(
        v6: bool,
        isn: u32,
        bits: u8,
        now in prop_oneof![any::<u32>(), (0u32..200_000).prop_map(|back| u32::MAX - back)],
        later in 0u32..400_000,
    ) {
        let (secret, ends, offer) = (secret(), ends(v6), Offer::from_bits(bits));
        let cookie = secret.issue(&ends, isn, offer, now);
        let slots = ((u64::from(now) + u64::from(later)) >> 16) - u64::from(now >> 16);
        let found = secret.accept(&ends, isn, cookie, now.wrapping_add(later));
        prop_assert_eq!(found, (slots < 2).then_some(offer));
        if later < 65_536 {
            prop_assert!(found.is_some());
        }
        if later >= 131_072 {
            prop_assert!(found.is_none());
        }
    }

    #[test]
    fn garbage_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 1..200),
        kind in 0usize..3,
        (l3, l4, l4_len) in (0u16..60, 0u16..120, 0u16..220),
        now: u32,
    ) {
        let parsed = Parsed {
            kind: [Kind::Flow4, Kind::Flow6, Kind::Other][kind],
            protocol: 6,
            tcp_flags: SYN,
            part: Part::Whole,
            tags: 0,
            vlan: crate::dataplane::parse::NO_VLAN,
            l3,
            l4,
            l4_len,
        };
        let _ = Offer::of(&bytes, &parsed);
        let _ = Ends::of(&bytes, &parsed);
        let _ = secret().proof(&bytes, &parsed, now);
    }
}
