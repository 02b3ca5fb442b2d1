//! DNS checks against hand-made messages and those of hickory.

use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{RData, Record};
use proptest::prelude::*;

use super::*;
use crate::health::dialogue::tests::{Played, assert_readable, assert_robust, both, changed, changes};

const ID: u16 = 0x1234;

fn check(name: &str, kind: &str, codes: &[&str], answer: bool) -> DnsCheck {
    let codes = codes.iter().map(|code| (*code).to_owned()).collect();
    DnsCheck { tcp: false, name: name.into(), kind: kind.into(), codes, answer }
}

/// An A record of www.example.org is wanted.
fn wanting() -> DnsCheck {
    check("www.example.org.", "A", &["NOERROR"], true)
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("name")
}

/// An answer to [`wanting`], with an alias and its address.
fn answer() -> Message {
    let mut message = Message::new(ID, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name("www.example.org."), RecordType::A));
    let (www, web) = (name("www.example.org."), name("web.example.org."));
    message.add_answer(Record::from_rdata(www, 60, RData::CNAME(CNAME(web.clone()))));
    message.add_answer(Record::from_rdata(web, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 1)))));
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("message")
}

fn ask(check: &DnsCheck, datagram: &[u8]) -> Progress {
    dns_udp(check, ID).received(datagram)
}

#[track_caller]
fn assert_bad(progress: Progress, reason: Reason, words: &str) {
    assert_eq!(progress, Progress::bad(reason, words));
}

#[test]
fn the_query_is_as_keepalived_asks() {
    let mut exchange = dns_udp(&check(".", "SOA", &[], false), ID);
    // Recursion desired, one question, the root, SOA, IN.
    assert_eq!(exchange.question(), [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1]);
    assert_eq!(exchange.question(), exchange.question(), "it can be sent again");
    assert!(!exchange.silence_is_good());
    // Absolute, with the last dot or without.
    let dotted = dns_udp(&check("www.example.org.", "A", &[], false), ID).question();
    assert_eq!(dotted, dns_udp(&check("www.example.org", "A", &[], false), ID).question());
    assert_eq!(&dotted[12..], b"\x03www\x07example\x03org\0\0\x01\0\x01");
    let mut out = Vec::new();
    assert_eq!(dns_tcp(&check("www.example.org", "A", &[], false), ID).begin(&mut out), Progress::Wait);
    assert_eq!(out, [&(dotted.len() as u16).to_be_bytes()[..], &dotted].concat());
}

#[test]
fn what_cannot_be_asked_is_told_and_is_not_the_servers_fault() {
    assert_eq!(dns_problem("www.example.org", "AAAA"), None);
    assert_eq!(dns_problem("www.example.org", "BLA").as_deref(), Some("`BLA` is no type of DNS records"));
    let long = format!("{}.org", "x".repeat(64));
    assert!(dns_problem(&long, "A").is_some_and(|why| why.contains("is no DNS name")));
    let unable = dns_tcp(&check(&long, "A", &[], false), ID).begin(&mut Vec::new());
    assert!(matches!(unable, Progress::Done(Outcome::Unable(_))), "{unable:?}");
}

#[test]
fn an_answer_is_taken_by_its_code_and_its_records() {
    assert_eq!(ask(&wanting(), &bytes(&answer())), Progress::Done(Outcome::good("code NOERROR, 2 records")));
    let mut failed = answer();
    failed.metadata.response_code = ResponseCode::ServFail;
    assert_bad(ask(&wanting(), &bytes(&failed)), Reason::Answer, "code SERVFAIL, wanted NOERROR");
    let either = check("www.example.org.", "A", &["NOERROR", "NXDOMAIN"], false);
    assert_bad(ask(&either, &bytes(&failed)), Reason::Answer, "code SERVFAIL, wanted NOERROR or NXDOMAIN");
    failed.metadata.response_code = ResponseCode::NXDomain;
    assert_eq!(ask(&either, &bytes(&failed)), Progress::Done(Outcome::good("code NXDOMAIN, 2 records")));
    let any = check("www.example.org.", "A", &[], false);
    for code in 0..16u8 {
        failed.metadata.response_code = ResponseCode::from_low(code);
        assert!(matches!(ask(&any, &bytes(&failed)), Progress::Done(Outcome::Good { .. })), "code {code}");
    }
    failed.metadata.response_code = ResponseCode::from_low(12);
    assert_bad(ask(&wanting(), &bytes(&failed)), Reason::Answer, "code 12, wanted NOERROR");
    // An alias alone is no address.
    let mut alias = answer();
    alias.answers.truncate(1);
    assert_bad(ask(&wanting(), &bytes(&alias)), Reason::Content, "no A record in the answer, code NOERROR");
    assert_eq!(ask(&any, &bytes(&alias)), Progress::Done(Outcome::good("code NOERROR, 1 record")));
    // Neither is one that is in another section.
    let mut elsewhere = answer();
    elsewhere.additionals = std::mem::take(&mut elsewhere.answers);
    assert_bad(ask(&wanting(), &bytes(&elsewhere)), Reason::Content, "no A record in the answer, code NOERROR");
}

#[test]
fn the_names_of_codes_are_those_of_their_numbers() {
    let known = [
        ResponseCode::NoError,
        ResponseCode::FormErr,
        ResponseCode::ServFail,
        ResponseCode::NXDomain,
        ResponseCode::NotImp,
        ResponseCode::Refused,
        ResponseCode::YXDomain,
        ResponseCode::YXRRSet,
        ResponseCode::NXRRSet,
        ResponseCode::NotAuth,
        ResponseCode::NotZone,
    ];
    assert_eq!(known.len(), CODES.len());
    for (number, code) in known.into_iter().enumerate() {
        assert_eq!(usize::from(u16::from(code)), number);
        assert_eq!(code_name(code), format!("{code:?}").to_uppercase());
    }
}

#[test]
fn what_is_of_another_question_is_passed_over() {
    let mut other_id = answer();
    other_id.metadata.id = ID + 1;
    let mut query = answer();
    query.metadata.message_type = MessageType::Query;
    let mut other_name = answer();
    other_name.queries[0].set_name(name("www.example.com."));
    let mut other_kind = answer();
    other_kind.queries[0].set_query_type(RecordType::AAAA);
    for message in [other_id, query, other_name, other_kind] {
        assert_eq!(ask(&wanting(), &bytes(&message)), Progress::Wait);
        // Over a connection nothing else can come.
        let bytes = bytes(&message);
        let framed = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
        let words = "answer not understood: it is of another question";
        assert_eq!(over_tcp(&framed, false).bad(), (Reason::Malformed, words));
    }
    assert_eq!(ask(&wanting(), b""), Progress::Wait);
    assert_eq!(ask(&wanting(), &[0x12]), Progress::Wait);
    // Upper and lower case are the same.
    let mut loud = answer();
    loud.queries[0].set_name(name("WWW.Example.ORG."));
    assert!(matches!(ask(&wanting(), &bytes(&loud)), Progress::Done(Outcome::Good { .. })));
    // Who refuses may leave the question out; who answers may not.
    let mut bare = Message::new(ID, MessageType::Response, OpCode::Query);
    bare.metadata.response_code = ResponseCode::Refused;
    assert_bad(ask(&wanting(), &bytes(&bare)), Reason::Answer, "code REFUSED, wanted NOERROR");
    bare.metadata.response_code = ResponseCode::NoError;
    assert_bad(ask(&wanting(), &bytes(&bare)), Reason::Malformed, "answer not understood: 0 questions in it");
}

#[test]
fn a_truncated_answer_is_one() {
    let mut cut = answer();
    cut.metadata.truncation = true;
    let good = Progress::Done(Outcome::good("code NOERROR, truncated"));
    let whole = bytes(&cut);
    let question_ends = 12 + b"\x03www\x07example\x03org\0\0\x01\0\x01".len();
    for length in [whole.len(), whole.len() - 1, question_ends + 5, question_ends] {
        assert_eq!(ask(&wanting(), &whole[..length]), good, "{length} of {} bytes", whole.len());
    }
    let words = "answer not understood: unexpected end of input reached";
    assert_bad(ask(&wanting(), &whole[..question_ends - 1]), Reason::Malformed, words);
    cut.metadata.response_code = ResponseCode::ServFail;
    assert_bad(ask(&wanting(), &bytes(&cut)), Reason::Answer, "code SERVFAIL, wanted NOERROR");
}

#[test]
fn nonsense_is_told() {
    let header = |counts: [u8; 8]| [&[0x12, 0x34, 0x80, 0][..], &counts].concat();
    let question = b"\x03www\x07example\x03org\0\0\x01\0\x01".as_slice();
    let with = |records: u8, rest: &[u8]| [&header([0, 1, 0, records, 0, 0, 0, 0]), question, rest].concat();
    let record = b"\0\x01\0\x01\0\0\0\0\0\0".as_slice();
    let at = 12 + question.len() as u8;
    let rows: [(Vec<u8>, &str); 13] = [
        (header([0; 8])[..11].to_vec(), "shorter than a header"),
        (header([0, 2, 0, 0, 0, 0, 0, 0]), "2 questions in it"),
        (header([0, 1, 0, 0, 0, 0, 0, 0]), "unexpected end of input reached"),
        // A question whose name is a pointer to itself, or a label of 200 bytes.
        (
            [&header([0, 1, 0, 0, 0, 0, 0, 0])[..], &[0xc0, 12, 0, 1, 0, 1]].concat(),
            "label points to data not prior to idx: 12 ptr: 12",
        ),
        (
            [&header([0, 1, 0, 0, 0, 0, 0, 0])[..], &[0x80, 12, 0, 1, 0, 1]].concat(),
            "unrecognized label code: 10000000",
        ),
        (with(1, b""), "it ends within a name"),
        (with(1, &[3, b'w']), "it ends within a name"),
        (with(1, &[0xc0]), "it ends within a name"),
        // To itself, forward, and into the header.
        (with(1, &[&[0xc0, at], record].concat()), "a compressed name leads nowhere"),
        (with(1, &[&[0xc0, at + 2], record].concat()), "a compressed name leads nowhere"),
        (with(1, &[&[0xc0, 11], record].concat()), "a compressed name leads nowhere"),
        (with(1, &[&[0], &record[..9]].concat()), "it ends within a record"),
        (with(2, &[&[0], &record[..9], &[3, 1, 2]].concat()), "it ends within a record"),
    ];
    for (message, words) in rows {
        assert_bad(ask(&wanting(), &message), Reason::Malformed, &format!("answer not understood: {words}"));
    }
    let long = [&[63; 64].repeat(4)[..], &[0], record].concat();
    assert_bad(
        ask(&wanting(), &with(1, &long)),
        Reason::Malformed,
        "answer not understood: a name of more than 255 bytes",
    );
    assert_bad(
        ask(&wanting(), &with(1, &[0x40])),
        Reason::Malformed,
        "answer not understood: a label of no known kind",
    );
    // What is well formed but says nothing that is wanted, and pointers to where names may be.
    let compressed = with(2, &[&[0xc0, 12], record, &[1, b'a', 0xc0, at], record].concat());
    assert_eq!(ask(&wanting(), &compressed), Progress::Done(Outcome::good("code NOERROR, 2 records")));
}

fn over_tcp(answer: &[u8], ends: bool) -> Played {
    both(&|| dns_tcp(&wanting(), ID), &[answer], ends)
}

#[test]
fn over_tcp_the_length_comes_first() {
    let message = bytes(&answer());
    let framed = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    assert_eq!(over_tcp(&framed, false).good(), "code NOERROR, 2 records");
    // What comes behind it is not looked at.
    assert_eq!(over_tcp(&[&framed[..], b"more"].concat(), false).good(), "code NOERROR, 2 records");
    assert_eq!(over_tcp(&framed[..framed.len() - 1], false).outcome, None);
    assert_eq!(over_tcp(&framed[..framed.len() - 1], true).bad(), (Reason::Closed, "closed within the answer"));
    assert_eq!(over_tcp(b"", true).bad(), (Reason::Closed, "closed without an answer"));
    assert_eq!(over_tcp(&[0, 0], false).bad().0, Reason::Malformed);
    // The longest that can be: no more is taken than that.
    let mut largest = vec![0xff; 100_000];
    largest[2..4].copy_from_slice(&[0x12, 0x34]);
    let played = over_tcp(&largest, false);
    assert_eq!(played.bad(), (Reason::Malformed, "answer not understood: 65535 questions in it"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_is_told_or_passed_over(
        changes in changes(),
        random in prop::collection::vec(any::<u8>(), 0..100),
        pieces in prop::collection::vec(1usize..40, 1..20),
        ends: bool,
    ) {
        let mutant = changed(bytes(&answer()), &changes);
        // Without its id and flags it would be passed over nearly always.
        let random = [&[0x12, 0x34, 0x80, 0, 0, 0][..], &random].concat();
        for message in [mutant, random] {
            match ask(&wanting(), &message) {
                Progress::Done(outcome) => assert_readable(&outcome),
                Progress::Wait => {}
                Progress::Reconnect => return Err(TestCaseError::fail("there is no connection")),
            }
            let framed = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
            assert_robust(&|| dns_tcp(&wanting(), ID), &[&framed], &pieces, ends);
            assert_robust(&|| dns_tcp(&wanting(), ID), &[&message], &pieces, ends);
        }
    }
}
