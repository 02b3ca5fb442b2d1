//! UDP checks.

use proptest::prelude::*;

use super::*;
use crate::health::dialogue::tests::assert_readable;

fn check(reply: Option<&[u8]>, require_reply: bool) -> Box<dyn Exchange> {
    udp(&UdpCheck { payload: b"ping".to_vec(), reply: reply.map(<[u8]>::to_vec), require_reply })
}

#[test]
fn a_reply_must_begin_as_wanted() {
    let mut exchange = check(Some(b"pong"), true);
    assert_eq!(exchange.question(), b"ping");
    assert_eq!(exchange.question(), b"ping", "it can be sent again");
    assert_eq!(exchange.received(b"pong 1"), Progress::Done(Outcome::good("reply of 6 bytes")));
    let words = "reply `pang`, wanted `pong` at its beginning";
    assert_eq!(exchange.received(b"pang"), Progress::bad(Reason::Content, words));
    let words = "reply `pon`, wanted `pong` at its beginning";
    assert_eq!(exchange.received(b"pon"), Progress::bad(Reason::Content, words));
    let words = "reply nothing, wanted `pong` at its beginning";
    assert_eq!(exchange.received(b""), Progress::bad(Reason::Content, words));
    let words = "reply hex 00 ff, wanted hex 00 fe at its beginning";
    assert_eq!(check(Some(b"\0\xfe"), true).received(b"\0\xff"), Progress::bad(Reason::Content, words));
}

#[test]
fn silence_is_good_where_no_reply_is_required() {
    assert!(!check(None, true).silence_is_good());
    assert!(check(None, false).silence_is_good());
    assert!(check(Some(b"pong"), false).silence_is_good());
    assert_eq!(check(None, true).received(b""), Progress::Done(Outcome::good("reply of 0 bytes")));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_reply_is_told_in_a_short_line(datagram in prop::collection::vec(any::<u8>(), 0..2000), wanted: [u8; 2]) {
        let Progress::Done(outcome) = check(Some(&wanted), true).received(&datagram) else {
            return Err(TestCaseError::fail("a reply must end it"));
        };
        assert_readable(&outcome);
        prop_assert_eq!(matches!(outcome, Outcome::Good { .. }), datagram.starts_with(&wanted));
    }
}
