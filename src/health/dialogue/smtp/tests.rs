//! SMTP checks against recorded and hand-made replies.

use proptest::prelude::*;

use super::*;
use crate::health::dialogue::tests::{Played, assert_robust, both, changed, changes, play};

/// As Postfix 3.7 says it, with a greeting of several lines.
const POSTFIX: &[u8] =
    b"220-mail.example.org\r\n220 ESMTP Postfix (Debian/GNU)\r\n250 mail.example.org\r\n221 2.0.0 Bye\r\n";

fn make() -> Box<dyn Dialogue> {
    smtp(&SmtpCheck { helo: "lb.example.org".into() })
}

fn ended(replies: &[u8]) -> Played {
    both(&make, &[replies], true)
}

fn stays(replies: &[u8]) -> Played {
    both(&make, &[replies], false)
}

#[test]
fn a_mail_server_is_greeted_and_left() {
    let played = stays(POSTFIX);
    assert_eq!(played.good(), "220, HELO 250");
    assert_eq!(played.text(0), "HELO lb.example.org\r\nQUIT\r\n");
    // Nothing is said before the greeting.
    assert_eq!(stays(b"220-mail\r\n").text(0), "");
    assert_eq!(stays(b"220\r\n").text(0), "HELO lb.example.org\r\n");
    // It is good when HELO was accepted; how it says goodbye makes no difference.
    let accepted = b"220 x\n250 y\n";
    assert_eq!(stays(accepted).outcome, None);
    for goodbye in [b"".as_slice(), b"500 what?\r\n", b"nonsense\r\n", b"22"] {
        assert_eq!(ended(&[accepted, goodbye].concat()).good(), "220, HELO 250");
    }
    assert_eq!(stays(&[accepted.as_slice(), &[b'x'; 600]].concat()).good(), "220, HELO 250");
}

#[test]
fn other_codes_are_told_with_their_words() {
    let (reason, words) = (Reason::Answer, "greeting 554 No SMTP service here, wanted 220");
    assert_eq!(stays(b"554-Hello\r\n554 No SMTP service here\r\n").bad(), (reason, words));
    let (reason, words) = (Reason::Answer, "HELO answered 550 5.7.1 go away, wanted 250");
    assert_eq!(stays(b"220 x\r\n550 5.7.1 go away\r\n").bad(), (reason, words));
    // Whatever it says: one short line.
    let loud = [b"421 ".as_slice(), &[b'!'; 400], b"\x1b[31m\xff\r\n"].concat();
    let words = stays(&loud).bad().1.to_owned();
    assert_eq!(words, format!("greeting 421 {}..., wanted 220", "!".repeat(56)));
}

#[test]
fn what_ends_too_early_or_is_not_smtp_is_told() {
    assert_eq!(ended(b"").bad(), (Reason::Closed, "closed without a greeting"));
    assert_eq!(ended(b"220-x\r\n").bad(), (Reason::Closed, "closed within the greeting"));
    assert_eq!(ended(b"22").bad(), (Reason::Closed, "closed within the greeting"));
    assert_eq!(ended(b"220 x\r\n").bad(), (Reason::Closed, "closed after HELO"));
    let rows: [(&[u8], &str); 5] = [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "not SMTP: `SSH-2.0-OpenSSH_9.2p1`"),
        (b"2200 x\r\n", "not SMTP: `2200 x`"),
        (b"\r\n", "not SMTP: nothing"),
        (b"\xff\xfd\x18\n", "not SMTP: hex ff fd 18"),
        (b"220-x\r\n221 y\r\n", "codes 220 and 221 in the lines of one reply"),
    ];
    for (reply, words) in rows {
        assert_eq!(stays(reply).bad(), (Reason::Malformed, words));
    }
}

#[test]
fn floods_end_at_their_limits() {
    let line = play(&mut *make(), &[&[b'2'; 100_000]], &[100], false);
    assert_eq!(line.bad(), (Reason::TooLarge, "a line of more than 512 bytes"));
    assert_eq!(line.taken, 600);
    let lines = play(&mut *make(), &[&b"220-x\r\n".repeat(100_000)], &[1], false);
    assert_eq!(lines.bad(), (Reason::TooLarge, "a reply of more than 100 lines"));
    assert_eq!(lines.taken, 700);
    let most = [b"220-x\r\n".repeat(99), b"220 x\r\n".to_vec()].concat();
    assert_eq!(stays(&most).text(0), "HELO lb.example.org\r\n");
    let longest = [b"220 ".as_slice(), &[b'x'; 506], b"\r\n"].concat();
    assert_eq!(longest.len(), 512);
    assert_eq!(stays(&longest).text(0), "HELO lb.example.org\r\n");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_replies_in_any_pieces_come_to_the_same(
        changes in changes(),
        random in prop::collection::vec(any::<u8>(), 0..100),
        pieces in prop::collection::vec(1usize..40, 1..20),
        ends: bool,
    ) {
        assert_robust(&make, &[&changed(POSTFIX.to_vec(), &changes)], &pieces, ends);
        assert_robust(&make, &[&random], &pieces, ends);
    }
}
