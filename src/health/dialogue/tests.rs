//! What all dialogues have in common: how bytes are carried, that it makes no difference how they are split, and how foreign
//! bytes are shown.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::health::Failure;
use crate::model::{
    BodyMatch, CheckTarget, DnsCheck, GrpcCheck, HttpCheck, HttpRequest, Pace, SmtpCheck, TlsCheck, UdpCheck,
};

/// 10.0.0.11, on that port.
pub fn target(port: u16) -> CheckTarget {
    CheckTarget { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11)), port, source: None, through: None }
}

/// What a conversation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// What was sent, over each connection.
    pub sent: Vec<Vec<u8>>,
    /// The outcome; `None` when more would have to come.
    pub outcome: Option<Outcome>,
    /// Bytes of the servers that were handed over.
    pub taken: usize,
}

impl Played {
    /// The words of its failure.
    #[track_caller]
    pub fn bad(&self) -> (Reason, &str) {
        match &self.outcome {
            Some(Outcome::Bad(Failure { reason, words })) => (*reason, words),
            other => panic!("not a failure: {other:?}"),
        }
    }

    /// The words of its success.
    #[track_caller]
    pub fn good(&self) -> &str {
        match &self.outcome {
            Some(Outcome::Good { said, .. }) => said,
            other => panic!("not good: {other:?}"),
        }
    }

    /// What was sent over a connection, as text.
    #[track_caller]
    pub fn text(&self, connection: usize) -> &str {
        std::str::from_utf8(&self.sent[connection]).expect("text")
    }
}

/// Plays a conversation as a driver does: each connection brings those bytes, in pieces of `piece` bytes (the last number
/// goes on), and ends then when `ends`.
pub fn play(dialogue: &mut dyn Dialogue, connections: &[&[u8]], pieces: &[usize], ends: bool) -> Played {
    let mut played = Played { sent: Vec::new(), outcome: None, taken: 0 };
    let mut pieces = pieces.iter().copied();
    let mut piece = usize::MAX;
    for bytes in connections {
        let mut out = Vec::new();
        let mut progress = dialogue.begin(&mut out);
        let mut rest = *bytes;
        while progress == Progress::Wait && !rest.is_empty() {
            piece = pieces.next().unwrap_or(piece).max(1);
            let (part, more) = rest.split_at(piece.min(rest.len()));
            rest = more;
            played.taken += part.len();
            progress = dialogue.received(part, &mut out);
        }
        if progress == Progress::Wait && ends {
            progress = dialogue.ended();
        }
        played.sent.push(out);
        match progress {
            Progress::Reconnect => {}
            Progress::Wait => return played,
            Progress::Done(outcome) => {
                played.outcome = Some(outcome);
                return played;
            }
        }
    }
    played
}

/// The same conversation whole and byte by byte; it must come to the same.
#[track_caller]
pub fn both(make: &dyn Fn() -> Box<dyn Dialogue>, connections: &[&[u8]], ends: bool) -> Played {
    let whole = play(&mut *make(), connections, &[], ends);
    let drips = play(&mut *make(), connections, &[1], ends);
    assert_eq!((&whole.sent, &whole.outcome), (&drips.sent, &drips.outcome), "it depends on how bytes are split");
    whole
}

/// Words for people: there are some, in one line, and not many.
#[track_caller]
pub fn assert_readable(outcome: &Outcome) {
    let words = match outcome {
        Outcome::Good { said, .. } => said,
        Outcome::Bad(failure) => &failure.words,
        Outcome::Unable(why) => panic!("the server is not why we are unable: {why}"),
    };
    assert!(!words.is_empty() && words.chars().count() < 300, "{} characters: {words}", words.chars().count());
    assert!(!words.chars().any(char::is_control), "{words:?}");
}

/// What a hostile server makes of a good answer.
#[derive(Clone, Debug)]
pub enum Change {
    /// One byte is another.
    Set(Index, u8),
    /// Bytes come in between.
    Insert(Index, Vec<u8>),
    /// The rest is missing.
    Cut(Index),
    /// A part comes twice.
    Double(Index, Index),
}

/// Some of them.
pub fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => any::<Index>().prop_map(Change::Cut),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Double(from, to)),
    ];
    prop::collection::vec(change, 0..4)
}

/// What is left of the answer.
pub fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        match change {
            Change::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Change::Double(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from.min(to)..from.min(to), part);
            }
        }
    }
    bytes
}

/// An answer in any pieces comes to the same as in one, and to words that people can read.
pub fn assert_robust(make: &dyn Fn() -> Box<dyn Dialogue>, connections: &[&[u8]], pieces: &[usize], ends: bool) {
    let whole = play(&mut *make(), connections, &[], ends);
    let split = play(&mut *make(), connections, pieces, ends);
    assert_eq!((&whole.sent, &whole.outcome), (&split.sent, &split.outcome), "pieces of {pieces:?}");
    whole.outcome.iter().for_each(assert_readable);
}

#[test]
fn foreign_bytes_are_shown_in_one_short_line() {
    assert_eq!(shown(b"hello\r\n"), "`hello`");
    assert_eq!(shown(b""), "nothing");
    assert_eq!(shown(b"\0\x01"), "hex 00 01");
    assert_eq!(shown(b"\r\n"), "hex 0d 0a");
    assert_eq!(shown(&[b'x'; 100]), format!("`{}...`", "x".repeat(60)));
    assert_eq!(shown(&[0; 100]), format!("hex{}...", " 00".repeat(20)));
    assert_eq!(line("a\r\nb\u{1b}[31m"), "a  b [31m");
    assert_eq!(line(&"y".repeat(61)), format!("{}...", "y".repeat(60)));
}

#[test]
fn each_kind_has_the_dialogue_or_the_exchange_that_belongs_to_it() {
    let tls = TlsCheck { name: None, verify: false, authorities: None, expiry_days: 0 };
    let http = |tls| CheckKind::Http(HttpCheck { tls, version_11: true, requests: Vec::new() });
    let dns =
        |tcp| CheckKind::Dns(DnsCheck { tcp, name: ".".into(), kind: "SOA".into(), codes: Vec::new(), answer: false });
    let grpc = CheckKind::Grpc(GrpcCheck { tls: None, service: String::new(), authority: None });
    let udp = CheckKind::Udp(UdpCheck { payload: Vec::new(), reply: None, require_reply: false });
    let rows: [(CheckKind, bool, bool); 9] = [
        (CheckKind::Tcp, false, false),
        (CheckKind::HalfOpen, false, false),
        (CheckKind::Ping, false, false),
        (http(None), true, false),
        (http(Some(tls)), true, false),
        (dns(true), true, false),
        (dns(false), false, true),
        (grpc, true, false),
        (udp, false, true),
    ];
    for (kind, has_dialogue, has_exchange) in rows {
        let check = Check { kind, target: target(1), pace: Pace::default() };
        assert_eq!(dialogue(&check, 7).is_some(), has_dialogue, "{check}");
        assert_eq!(exchange(&check, 7).is_some(), has_exchange, "{check}");
    }
    let smtp = CheckKind::Smtp(SmtpCheck { helo: "lb".into() });
    let smtp = Check { kind: smtp, target: target(25), pace: Pace::default() };
    assert_eq!(dialogue(&smtp, 7).map(|smtp| smtp.awaited()), Some("greeting"));
    let request = HttpRequest {
        method: "GET".into(),
        path: "/".into(),
        host: None,
        headers: Vec::new(),
        status: Vec::new(),
        body: Some(BodyMatch::Regex("(".into())),
        digest: None,
    };
    let broken = HttpCheck { tls: None, version_11: true, requests: vec![request] };
    let broken = Check { kind: CheckKind::Http(broken), target: target(80), pace: Pace::default() };
    let begun = dialogue(&broken, 7).map(|mut broken| broken.begin(&mut Vec::new()));
    assert!(matches!(begun, Some(Progress::Done(Outcome::Unable(_)))), "{begun:?}");
}
