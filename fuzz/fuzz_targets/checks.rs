//! Any bytes as what a server answers to a health check: an outcome or none, the same however the bytes are split, in words
//! that people can read.
//!
//! The first byte chooses the kind of check, the second the size of the pieces; an odd third ends the connection. The rest
//! is the answer.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use evenkeel::health::Outcome;
use evenkeel::health::dialogue::{Progress, dialogue, exchange};
use evenkeel::model::*;
use libfuzzer_sys::fuzz_target;

fn request(path: &str, body: Option<BodyMatch>, digest: Option<[u8; 16]>) -> HttpRequest {
    let status = vec![(200, 299)];
    HttpRequest { method: "GET".into(), path: path.into(), host: None, headers: Vec::new(), status, body, digest }
}

/// The kinds that are fuzzed.
fn kind(choice: u8) -> CheckKind {
    let http = |requests| CheckKind::Http(HttpCheck { tls: None, version_11: true, requests });
    let dns = |tcp| {
        let codes = vec!["NOERROR".into()];
        CheckKind::Dns(DnsCheck { tcp, name: "www.example.org".into(), kind: "A".into(), codes, answer: true })
    };
    match choice % 8 {
        0 => http(vec![request("/", Some(BodyMatch::Text("ready".into())), None)]),
        1 => http(vec![request("/a", None, None), request("/b", Some(BodyMatch::NotRegex("e.*r".into())), None)]),
        2 => http(vec![request("/", None, Some([0; 16]))]),
        3 => CheckKind::Smtp(SmtpCheck { helo: "lb".into() }),
        4 => CheckKind::Grpc(GrpcCheck { tls: None, service: "x".into(), authority: None }),
        5 => dns(true),
        6 => dns(false),
        _ => CheckKind::Udp(UdpCheck { payload: b"ping".to_vec(), reply: Some(b"pong".to_vec()), require_reply: true }),
    }
}

fn assert_readable(outcome: &Outcome) {
    let words = match outcome {
        Outcome::Good { said, .. } => said,
        Outcome::Bad(failure) => &failure.words,
        Outcome::Unable(why) => panic!("the server is not why we are unable: {why}"),
    };
    assert!(!words.is_empty() && words.chars().count() < 300, "{words}");
    assert!(!words.chars().any(char::is_control), "{words:?}");
}

/// What is sent and what it comes to, with the answer in pieces of that size; a second connection brings it again.
fn play(check: &Check, answer: &[u8], piece: usize, ends: bool) -> (Vec<u8>, Option<Outcome>) {
    let Some(mut dialogue) = dialogue(check, 0x1234) else { return (Vec::new(), None) };
    let mut out = Vec::new();
    for _ in 0..2 {
        let mut progress = dialogue.begin(&mut out);
        for part in answer.chunks(piece) {
            if progress == Progress::Wait {
                progress = dialogue.received(part, &mut out);
            }
        }
        if progress == Progress::Wait && ends {
            progress = dialogue.ended();
        }
        match progress {
            Progress::Done(outcome) => return (out, Some(outcome)),
            Progress::Wait => return (out, None),
            Progress::Reconnect => {}
        }
    }
    (out, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[choice, piece, ends], answer)) = bytes.split_first_chunk::<3>() else { return };
    let target = CheckTarget { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1, source: None, through: None };
    let check = Check { kind: kind(choice), target, pace: Pace::default() };
    if let Some(mut exchange) = exchange(&check, 0x1234)
        && let Progress::Done(outcome) = exchange.received(answer)
    {
        assert_readable(&outcome);
    }
    let whole = play(&check, answer, answer.len().max(1), ends & 1 == 1);
    let split = play(&check, answer, usize::from(piece).max(1), ends & 1 == 1);
    assert_eq!(whole, split, "it depends on how bytes are split");
    whole.1.iter().for_each(assert_readable);
});
