//! gRPC health checks against a server of the crate h2, and against hand-made frames.

use h2::server::{self, SendResponse};
use proptest::prelude::*;

use super::*;
use crate::health::dialogue::tests::{Played, assert_robust, both, changed, changes, play, target};
use crate::model::TlsCheck;

fn make() -> Box<dyn Dialogue> {
    grpc(&GrpcCheck { tls: None, service: "orders".into(), authority: None }, &target(50051))
}

/// What a server of the crate h2 saw of a request, with its body.
struct Seen {
    request: Request<RecvStream>,
    body: Vec<u8>,
}

/// What the server sends to a check that begins so, when it answers so.
fn served(begin: &[u8], answer: impl FnOnce(SendResponse<Bytes>)) -> (Seen, Vec<u8>) {
    let context = &mut nothing_waits();
    let (mut pipe, theirs) = duplex(1 << 20);
    assert!(matches!(Pin::new(&mut pipe).poll_write(context, begin), Poll::Ready(Ok(count)) if count == begin.len()));
    let mut handshake = pin!(server::Builder::new().handshake::<_, Bytes>(theirs));
    let mut connection = match handshake.as_mut().poll(context) {
        Poll::Ready(Ok(connection)) => connection,
        other => panic!("no handshake: {:?}", other.map(|made| made.err())),
    };
    let Poll::Ready(Some(Ok((mut request, respond)))) = connection.poll_accept(context) else { panic!("no request") };
    let mut body = Vec::new();
    while let Poll::Ready(Some(Ok(part))) = request.body_mut().poll_data(context) {
        body.extend_from_slice(&part);
    }
    assert!(request.body().is_end_stream(), "the request is whole");
    answer(respond);
    assert!(connection.poll_accept(context).is_pending());
    let mut space = vec![0; 1 << 20];
    let mut read = ReadBuf::new(&mut space);
    let _ = Pin::new(&mut pipe).poll_read(context, &mut read);
    (Seen { request, body }, read.filled().to_vec())
}

fn begin(dialogue: &mut dyn Dialogue) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(dialogue.begin(&mut out), Progress::Wait);
    out
}

fn recorded(answer: impl FnOnce(SendResponse<Bytes>)) -> Vec<u8> {
    served(&begin(&mut *make()), answer).1
}

fn head(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
    let head = Response::builder().status(status);
    fields.iter().fold(head, |head, (name, value)| head.header(*name, *value)).body(()).expect("head")
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// A message and trailers with that status.
fn answered(message: &'static [u8], status: &'static str) -> Vec<u8> {
    recorded(|mut respond| {
        let mut stream = respond.send_response(head(200, &[GRPC]), false).expect("head");
        stream.send_data(Bytes::from_static(message), false).expect("message");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().expect("status"));
        stream.send_trailers(trailers).expect("trailers");
    })
}

/// An answer that is its head.
fn headed(status: u16, fields: &[(&'static str, &'static str)]) -> Vec<u8> {
    recorded(|mut respond| drop(respond.send_response(head(status, fields), true).expect("head")))
}

fn stays(answer: &[u8]) -> Played {
    both(&make, &[answer], false)
}

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

#[test]
fn the_call_is_as_the_protocol_has_it() {
    let (seen, _) = served(&begin(&mut *make()), |_| {});
    let request = &seen.request;
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri(), "http://10.0.0.11:50051/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(seen.body, b"\0\0\0\0\x08\x0a\x06orders");
    let tls = TlsCheck { name: None, verify: false, authorities: None, expiry_days: 0 };
    let whole = GrpcCheck { tls: Some(tls), service: String::new(), authority: Some("grpc.example.org".into()) };
    let v6 = CheckTarget { address: "2001:db8::b".parse().expect("address"), ..target(443) };
    let mut dialogue = grpc(&whole, &v6);
    assert_eq!(dialogue.alpn(), [b"h2"]);
    let (seen, _) = served(&begin(&mut *dialogue), |_| {});
    assert_eq!(seen.request.uri(), "https://grpc.example.org/grpc.health.v1.Health/Check");
    assert_eq!(seen.body, b"\0\0\0\0\0");
    let unnamed = GrpcCheck { tls: None, service: "x".repeat(300), authority: None };
    let (seen, _) = served(&begin(&mut *grpc(&unnamed, &v6)), |_| {});
    assert_eq!(seen.request.uri(), "http://[2001:db8::b]:443/grpc.health.v1.Health/Check");
    assert_eq!(seen.body[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    let broken = GrpcCheck { authority: Some("a b".into()), ..unnamed };
    let unable = grpc(&broken, &v6).begin(&mut Vec::new());
    assert!(matches!(unable, Progress::Done(Outcome::Unable(_))), "{unable:?}");
}

#[test]
fn the_serving_status_decides() {
    assert_eq!(stays(&answered(SERVING, "0")).good(), "SERVING");
    // With a field that is not known, and bytes that say the same in a longer way.
    assert_eq!(stays(&answered(b"\0\0\0\0\x07\x12\x01x\x08\x81\x80\0", "0")).good(), "SERVING");
    let rows: [(&[u8], &str); 4] = [
        (b"\0\0\0\0\x02\x08\x02", "NOT_SERVING"),
        (b"\0\0\0\0\0", "UNKNOWN"),
        (b"\0\0\0\0\x02\x08\x03", "SERVICE_UNKNOWN"),
        (b"\0\0\0\0\x02\x08\x07", "serving status 7"),
    ];
    for (message, words) in rows {
        assert_eq!(stays(&answered(message, "0")).bad(), (Reason::Answer, words));
    }
}

#[test]
fn a_call_that_fails_is_told_with_its_words() {
    let message = ("grpc-message", "unknown service%3A 100%25 %zz");
    let headers = headed(200, &[GRPC, ("grpc-status", "5"), message]);
    let words = "grpc status 5 (not found): unknown service: 100% %zz";
    assert_eq!(stays(&headers).bad(), (Reason::Answer, words));
    assert_eq!(stays(&answered(b"", "12")).bad(), (Reason::Answer, "grpc status 12 (unimplemented)"));
    assert_eq!(stays(&answered(SERVING, "14")).bad(), (Reason::Answer, "grpc status 14 (unavailable)"));
    assert_eq!(stays(&answered(SERVING, "99")).bad(), (Reason::Answer, "grpc status 99"));
    assert_eq!(stays(&answered(SERVING, "x")).bad(), (Reason::Malformed, "not gRPC: status `x`"));
    assert_eq!(stays(&headed(503, &[])).bad(), (Reason::Answer, "HTTP status 503, wanted 200"));
    let html = headed(200, &[("content-type", "text/html")]);
    assert_eq!(stays(&html).bad(), (Reason::Malformed, "not gRPC: content type `text/html`"));
    assert_eq!(stays(&headed(200, &[])).bad(), (Reason::Malformed, "not gRPC: content type nothing"));
    let silent = headed(200, &[GRPC]);
    assert_eq!(stays(&silent).bad(), (Reason::Malformed, "not gRPC: no status behind the answer"));
    let reset = recorded(|mut respond| respond.send_reset(h2::Reason::REFUSED_STREAM));
    let (reason, words) =
        (Reason::Closed, "the server reset the call: refused stream before processing any application logic");
    assert_eq!(stays(&reset).bad(), (reason, words));
}

#[test]
fn a_message_that_is_none_is_told() {
    let rows: [(&[u8], &str); 8] = [
        (b"", "no whole message"),
        (b"\0\0\0\0", "no whole message"),
        (b"\x01\0\0\0\x02\x08\x01", "it is compressed"),
        (b"\0\0\0\0\x03\x08\x01", "it is not as long as it says"),
        (b"\0\xff\xff\xff\xff\x08\x01", "it is not as long as it says"),
        (b"\0\0\0\0\x02\x08\x81", "a number that does not end"),
        (b"\0\0\0\0\x03\x12\x05x", "it ends within a field"),
        (b"\0\0\0\0\x01\x0b", "a field of no known kind"),
    ];
    for (message, words) in rows {
        let words = format!("answer not understood: {words}");
        assert_eq!(stays(&answered(message, "0")).bad(), (Reason::Malformed, words.as_str()));
    }
    let long = answered(&[0; MOST_MESSAGE + 1], "0");
    assert_eq!(stays(&long).bad(), (Reason::TooLarge, "an answer of more than 4096 bytes"));
}

#[test]
fn what_ends_too_early_or_is_not_http2_is_told() {
    let whole = answered(SERVING, "0");
    for length in [0, 5, whole.len() / 2, whole.len() - 1] {
        assert_eq!(stays(&whole[..length]).outcome, None, "{length}");
        let played = both(&make, &[&whole[..length]], true);
        assert_eq!(played.bad(), (Reason::Closed, "closed without an answer"), "{length}");
    }
    let rows: [(&[u8], &str); 3] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not HTTP/2: `HTTP/1.1`"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "not HTTP/2: `SSH-2.0-O`"),
        (&[0xff; 20], "not HTTP/2: hex ff ff ff ff ff ff ff ff ff"),
    ];
    for (bytes, words) in rows {
        assert_eq!(stays(bytes).bad(), (Reason::Malformed, words));
    }
    // GOAWAY before any answer, with its reason: ENHANCE_YOUR_CALM.
    let goaway = [settings(), frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11])].concat();
    let played = stays(&goaway);
    assert_eq!(played.bad().0, Reason::Closed, "{played:?}");
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

#[test]
fn floods_end_at_their_limits() {
    let flood = |unit: Vec<u8>| {
        let bytes = [settings(), unit.repeat((2 << 20) / unit.len())].concat();
        let played = play(&mut *make(), &[&bytes], &[1000], true);
        assert!(played.taken <= MOST_BYTES + 1000, "{} bytes", played.taken);
        let sent: usize = played.sent.iter().map(Vec::len).sum();
        assert!(sent <= MOST_BYTES + 1000, "{sent} bytes sent");
        let (reason, words) = played.bad();
        assert!(matches!(reason, Reason::TooLarge | Reason::Malformed | Reason::Closed), "{words}");
        assert!(words.len() < 200, "{words}");
        reason
    };
    // PING and SETTINGS are answered, WINDOW_UPDATE and unknown frames are not.
    assert_eq!(flood(frame(6, 0, 0, &[0; 8])), Reason::TooLarge);
    flood(settings());
    flood(frame(8, 0, 0, &[0, 0, 0, 1]));
    assert_eq!(flood(frame(0x55, 0, 0, &[0; 100])), Reason::TooLarge);
    assert_eq!(flood(frame(0x55, 0, 0, &[0; LONGEST_FRAME])), Reason::TooLarge);
    // Data without a head, a head without an end, promises, resets of what there is not.
    flood(frame(0, 0, 1, b""));
    flood([frame(1, 0, 1, &[0x88]), frame(9, 0, 1, &[0; 1000])].concat());
    flood(frame(9, 0, 1, &[0; 1000]));
    flood(frame(5, 4, 1, &[0, 0, 0, 2, 0x82]));
    flood(frame(3, 0, 9, &[0, 0, 0, 0]));
    // A head that is good, and then empty data without end.
    let good = [settings(), frame(1, 4, 1, b"\x88\x5f\x10application/grpc")].concat();
    let bytes = [good, frame(0, 0, 1, b"").repeat(200_000)].concat();
    let played = play(&mut *make(), &[&bytes], &[1000], true);
    assert!(played.taken <= MOST_BYTES + 1000, "{} bytes", played.taken);
    played.bad();
    let long = [settings(), vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat();
    assert_eq!(stays(&long).bad(), (Reason::TooLarge, "a frame of 16777215 bytes"));
}

#[test]
fn header_fields_without_end_are_no_answer() {
    let large = recorded(|mut respond| {
        let value = "x".repeat(1000);
        let head = (0..40).fold(Response::builder(), |head, number| head.header(format!("x-{number}"), &value));
        let _ = respond.send_response(head.body(()).expect("head"), true);
    });
    assert!(large.len() > 20_000, "{} bytes", large.len());
    stays(&large).bad();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_in_any_pieces_comes_to_the_same(
        changes in changes(),
        fails: bool,
        random in prop::collection::vec(any::<u8>(), 0..100),
        pieces in prop::collection::vec(1usize..40, 1..20),
        ends: bool,
    ) {
        let good = if fails { headed(200, &[GRPC, ("grpc-status", "5")]) } else { answered(SERVING, "0") };
        assert_robust(&make, &[&changed(good, &changes)], &pieces, ends);
        assert_robust(&make, &[&[settings(), random].concat()], &pieces, ends);
    }
}
