//! HTTP checks against recorded and hand-made answers.

use proptest::prelude::*;

use super::response::{MOST_HEAD_BYTES, MOST_HEADERS};
use super::*;
use crate::health::dialogue::http::content::{DIGEST_LIMIT, MATCH_LIMIT};
use crate::health::dialogue::tests::{Played, assert_robust, both, changed, changes, play, target};
use crate::model::{BodyMatch, TlsCheck};

/// As nginx 1.22 has sent it.
const NGINX: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 01 Mar 2026 10:00:00 GMT\r\nContent-Type: text/plain\r\n\
    Content-Length: 6\r\nLast-Modified: Sun, 01 Mar 2026 09:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"69a3f0e0-6\"\r\n\
    Accept-Ranges: bytes\r\n\r\nready\n";

fn get(path: &str) -> HttpRequest {
    HttpRequest {
        method: "GET".into(),
        path: path.into(),
        host: None,
        headers: Vec::new(),
        status: vec![(200, 299)],
        body: None,
        digest: None,
    }
}

fn check(requests: Vec<HttpRequest>) -> HttpCheck {
    HttpCheck { tls: None, version_11: true, requests }
}

fn wanting(body: BodyMatch) -> HttpRequest {
    HttpRequest { body: Some(body), ..get("/") }
}

/// One connection that ends.
fn once(request: HttpRequest, answer: &[u8]) -> Played {
    let check = check(vec![request]);
    both(&|| http(&check, &target(80)), &[answer], true)
}

/// One connection that stays.
fn stays(request: HttpRequest, answer: &[u8]) -> Played {
    let check = check(vec![request]);
    both(&|| http(&check, &target(80)), &[answer], false)
}

fn many(check: &HttpCheck, connections: &[&[u8]]) -> Played {
    both(&|| http(check, &target(80)), connections, true)
}

#[test]
fn the_request_is_that_of_its_version() {
    let asked = |check: &HttpCheck, target: &CheckTarget| {
        play(&mut *http(check, target), &[b""], &[], false).text(0).to_owned()
    };
    let v4 = target(8080);
    let plain = check(vec![get("/health?deep=1")]);
    assert_eq!(
        asked(&plain, &v4),
        "GET /health?deep=1 HTTP/1.1\r\nHost: 10.0.0.11:8080\r\nUser-Agent: evenkeel\r\nConnection: close\r\n\r\n"
    );
    let tls = TlsCheck { name: None, verify: true, authorities: None, expiry_days: 14 };
    let secure = HttpCheck { tls: Some(tls), ..plain.clone() };
    let v6 = |port| CheckTarget { address: "2001:db8::b".parse().expect("address"), ..target(port) };
    let host = |check: &HttpCheck, target: &CheckTarget| {
        let text = asked(check, target);
        text.lines().find_map(|line| line.strip_prefix("Host: ")).expect("host").to_owned()
    };
    assert_eq!(host(&plain, &target(80)), "10.0.0.11");
    assert_eq!(host(&plain, &target(443)), "10.0.0.11:443");
    assert_eq!(host(&secure, &target(443)), "10.0.0.11");
    assert_eq!(host(&plain, &v6(80)), "[2001:db8::b]");
    assert_eq!(host(&secure, &v6(80)), "[2001:db8::b]:80");
    let old = HttpCheck { version_11: false, ..plain };
    assert_eq!(
        asked(&old, &target(80)),
        "GET /health?deep=1 HTTP/1.0\r\nHost: 10.0.0.11:80\r\nUser-Agent: evenkeel\r\n\r\n"
    );
    let dressed = HttpRequest {
        method: "POST".into(),
        host: Some("www.example.org".into()),
        headers: vec![("user-agent".into(), "check".into()), ("X-One".into(), "1".into())],
        ..get("/")
    };
    assert_eq!(
        asked(&check(vec![dressed]), &v4),
        "POST / HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\nContent-Length: 0\r\nuser-agent: check\r\n\
         X-One: 1\r\n\r\n"
    );
}

#[test]
fn a_status_is_taken_or_not() {
    let answer = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    assert_eq!(stays(get("/"), &answer("200 OK")).good(), "status 200");
    assert_eq!(stays(get("/"), &answer("299")).good(), "status 299");
    let (reason, words) = (Reason::Answer, "status 503, wanted 200-299");
    assert_eq!(stays(get("/"), &answer("503 Service Unavailable")).bad(), (reason, words));
    let several = HttpRequest { status: vec![(200, 200), (301, 302), (401, 401)], ..get("/") };
    assert_eq!(stays(several.clone(), &answer("302 Found")).good(), "status 302");
    assert_eq!(stays(several.clone(), &answer("401 Unauthorized")).good(), "status 401");
    let (reason, words) = (Reason::Answer, "status 201, wanted 200 or 301-302 or 401");
    assert_eq!(stays(several, &answer("201 Created")).bad(), (reason, words));
    assert_eq!(stays(get("/"), NGINX).good(), "status 200");
}

#[test]
fn a_body_ends_where_the_answer_says() {
    let text = || wanting(BodyMatch::Text("ready".into()));
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\nrea\r\n2\r\ndy\r\n0\r\nX-Sum: 1\r\n\r\n";
    assert_eq!(stays(text(), chunked).good(), "status 200");
    assert_eq!(stays(text(), NGINX).good(), "status 200");
    // Up to the end of the connection: before it there is no outcome.
    let open = b"HTTP/1.0 200 OK\r\n\r\nready";
    assert_eq!(stays(text(), open).outcome, None);
    assert_eq!(once(text(), open).good(), "status 200");
    let gzip = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\nready";
    assert_eq!(once(text(), gzip).good(), "status 200");
    // Both: the chunks count (RFC 9112, 6.3).
    let both = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n";
    assert_eq!(stays(text(), both).good(), "status 200");
    // What comes behind the body does not belong to it.
    let more = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nready";
    assert_eq!(stays(text(), more).bad(), (Reason::Content, "the body has no `ready`"));
    // Line ends of UNIX, and an empty line too many, are taken.
    assert_eq!(stays(text(), b"\r\nHTTP/1.1 200 OK\nContent-Length: 5\n\nready").good(), "status 200");
    // No body, whatever the header says.
    let head = HttpRequest { method: "HEAD".into(), ..get("/") };
    assert_eq!(stays(head, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").good(), "status 200");
    for status in [204, 304] {
        let any = HttpRequest { status: vec![(200, 399)], ..get("/") };
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 10\r\n\r\n");
        assert_eq!(stays(any, answer.as_bytes()).good(), format!("status {status}"));
    }
    let upgrade = HttpRequest { status: vec![(101, 101)], ..get("/") };
    assert_eq!(stays(upgrade, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").good(), "status 101");
}

#[test]
fn interim_answers_are_skipped_but_not_without_end() {
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let answer = |count: usize| [interim.repeat(count), NGINX.to_vec()].concat();
    assert_eq!(stays(get("/"), &answer(8)).good(), "status 200");
    assert_eq!(stays(get("/"), &answer(9)).bad(), (Reason::TooLarge, "more than 8 interim answers"));
    let (reason, words) = (Reason::Closed, "closed within the header");
    assert_eq!(once(get("/"), interim).bad(), (reason, words));
}

#[test]
fn a_body_has_what_is_wanted_or_the_words_say_what_it_lacks() {
    let with = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let text = |text: &str| wanting(BodyMatch::Text(text.into()));
    let regex = |text: &str| wanting(BodyMatch::Regex(text.into()));
    let none = |text: &str| wanting(BodyMatch::NotRegex(text.into()));
    assert_eq!(stays(text("a.c"), &with("xa.cx")).good(), "status 200");
    assert_eq!(stays(text("a.c"), &with("xabcx")).bad(), (Reason::Content, "the body has no `a.c`"));
    assert_eq!(stays(regex("a.c"), &with("xabcx")).good(), "status 200");
    assert_eq!(stays(regex("^a.c$"), &with("xabcx")).bad(), (Reason::Content, "the body has no match of `^a.c$`"));
    assert_eq!(stays(none("err(or)?"), &with("fine")).good(), "status 200");
    assert_eq!(
        stays(none("err(or)?"), &with("an error")).bad(),
        (Reason::Content, "the body has `error`, which matches `err(or)?`")
    );
    // Bytes that are no text are no obstacle.
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfeok";
    assert_eq!(stays(text("ok"), answer).good(), "status 200");
}

#[test]
fn no_more_of_a_body_is_read_than_is_needed() {
    let limit = MATCH_LIMIT as usize;
    let large = [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".as_slice(), &vec![b'a'; 2 * limit]].concat();
    let read = |request: HttpRequest| {
        let check = check(vec![request]);
        play(&mut *http(&check, &target(80)), &[&large], &[1000], false)
    };
    let plain = read(get("/"));
    assert_eq!(plain.good(), "status 200");
    assert!((limit..limit + 2000).contains(&plain.taken), "{} bytes", plain.taken);
    let (reason, words) = (Reason::Content, "the first 256 KiB of the body have no `ready`");
    assert_eq!(read(wanting(BodyMatch::Text("ready".into()))).bad(), (reason, words));
    let (reason, words) = (Reason::Content, "the first 256 KiB of the body have no match of `[x-z]`");
    assert_eq!(read(wanting(BodyMatch::Regex("[x-z]".into()))).bad(), (reason, words));
    assert_eq!(read(wanting(BodyMatch::NotRegex("[x-z]".into()))).good(), "status 200");
    // The last byte of the part that is searched still counts, the next one does not.
    for (place, found) in [(limit - 1, true), (limit, false)] {
        let mut body = vec![b'a'; limit + 10];
        body[place] = b'x';
        let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 262154\r\n\r\n".as_slice(), &body].concat();
        let check = check(vec![wanting(BodyMatch::Text("x".into()))]);
        let played = play(&mut *http(&check, &target(80)), &[&answer], &[], false);
        assert_eq!(matches!(played.outcome, Some(Outcome::Good { .. })), found, "at {place}");
    }
}

#[test]
fn the_digest_is_md5_of_the_body_as_it_was_before_it_was_chunked() {
    // md5sum of "ready\n".
    let digest = [0x28, 0x85, 0x4b, 0xaf, 0xa7, 0x9a, 0x45, 0x5c, 0x3e, 0xcd, 0xb4, 0x0e, 0xf8, 0xb1, 0x14, 0x9a];
    let wanted = |digest| HttpRequest { digest: Some(digest), ..get("/") };
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nr\r\n5\r\neady\n\r\n0\r\n\r\n";
    let mut found = stays(wanted([0; 16]), NGINX);
    let (_, words) = found.bad();
    let words = words.to_owned();
    assert!(words.ends_with(", wanted 00000000000000000000000000000000"), "{words}");
    assert_eq!(stays(wanted([0; 16]), chunked).bad().1, words);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(words, format!("digest {hex}, wanted {}", "0".repeat(32)));
    assert_eq!(stays(wanted(digest), NGINX).good(), "status 200");
    assert_eq!(stays(wanted(digest), chunked).good(), "status 200");
    // The whole of a large body, and a larger one has none.
    let size = DIGEST_LIMIT as usize;
    let zeros = vec![0; size];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    let eight_mib: [u8; 16] = <md5::Md5 as md5::Digest>::digest(&zeros).into();
    let check_large = check(vec![wanted(eight_mib)]);
    let whole = [head.as_slice(), &zeros].concat();
    found = play(&mut *http(&check_large, &target(80)), &[&whole], &[65_536], false);
    assert_eq!(found.good(), "status 200");
    let open = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &zeros, b"0"].concat();
    found = play(&mut *http(&check_large, &target(80)), &[&open], &[65_536], false);
    assert_eq!(found.bad(), (Reason::TooLarge, "the body has more than 8 MiB, too many for a digest"));
}

#[test]
fn requests_follow_each_other_over_one_connection_where_the_server_lets_them() {
    let three = check(vec![get("/a"), get("/b"), HttpRequest { status: vec![(404, 404)], ..get("/c") }]);
    let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno".as_slice();
    let played = many(&three, &[&[NGINX, NGINX, missing].concat()]);
    assert_eq!(played.good(), "status 200, 404 to 3 requests");
    let lines: Vec<&str> =
        played.text(0).lines().filter(|line| line.starts_with("GET") || line.starts_with("Conn")).collect();
    assert_eq!(lines, ["GET /a HTTP/1.1", "GET /b HTTP/1.1", "GET /c HTTP/1.1", "Connection: close"]);
    // Each on a connection of its own: it closes, or is an old one, or does not say where the body ends.
    let close = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nok".as_slice();
    let old = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".as_slice();
    let open = b"HTTP/1.1 200 OK\r\n\r\nok".as_slice();
    for first in [close, old, open] {
        let played = many(&three, &[first, first, missing]);
        assert_eq!(played.good(), "status 200, 404 to 3 requests");
        assert_eq!(played.sent.len(), 3, "{}", String::from_utf8_lossy(first));
        // Before the last request nobody is asked to close.
        assert!(!played.text(1).contains("Connection"));
    }
    // The words say which one.
    let (reason, words) = (Reason::Answer, "GET /b: status 404, wanted 200-299");
    assert_eq!(many(&three, &[&[NGINX, missing].concat()]).bad(), (reason, words));
    // A large body is not read to its end: the next request has a new connection.
    let large = [b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n".as_slice(), &[b'a'; 300_000]].concat();
    let played = play(&mut *http(&three, &target(80)), &[&large, NGINX], &[50_000], false);
    assert_eq!((played.sent.len(), played.outcome), (2, None));
}

#[test]
fn an_idle_connection_that_closes_is_no_failure_but_only_once() {
    let two = check(vec![get("/a"), get("/b")]);
    let played = many(&two, &[NGINX, NGINX]);
    assert_eq!(played.good(), "status 200 to 2 requests");
    assert_eq!(played.sent.len(), 2);
    assert!(played.text(1).starts_with("GET /b "));
    assert_eq!(many(&two, &[NGINX, b""]).bad(), (Reason::Closed, "GET /b: closed without a reply"));
    assert_eq!(many(&two, &[b""]).bad(), (Reason::Closed, "GET /a: closed without a reply"));
    let cut = [NGINX, b"HTTP/1.1"].concat();
    assert_eq!(many(&two, &[&cut]).bad(), (Reason::Closed, "GET /b: closed within the header"));
}

#[test]
fn what_ends_too_early_is_not_good() {
    let rows: [(&[u8], &str); 6] = [
        (b"", "closed without a reply"),
        (b"HTTP/1.1 200 OK\r\nContent-", "closed within the header"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "closed after 3 of 10 bytes of the body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "closed before the body's last chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "closed before the body's last chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "closed before the body's last chunk"),
    ];
    for (answer, words) in rows {
        assert_eq!(once(get("/"), answer).bad(), (Reason::Closed, words), "{}", String::from_utf8_lossy(answer));
        assert_eq!(stays(get("/"), answer).outcome, None);
    }
}

#[test]
fn what_is_not_http_is_told() {
    let rows: [(&[u8], &str); 12] = [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "not HTTP: `SSH-2.0-OpenSSH_9.2p1 Debian-2`"),
        (b"220 mail ESMTP\r\n", "not HTTP: `220 mail ESMTP`"),
        (b"HTTP/2 200\r\n", "not HTTP: `HTTP/2 200`"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "not HTTP: invalid response status"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "not HTTP: invalid header name"),
        (b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "not HTTP: invalid header value"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", "not HTTP: Content-Length `1, 2`"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "not HTTP: Content-Length `+1`"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n", "not HTTP: Content-Length `2`"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "not HTTP: Content-Length `99999999999999999999`",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "not HTTP: chunk size `-1`"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", "not HTTP: a chunk longer than it says"),
    ];
    for (answer, words) in rows {
        assert_eq!(stays(get("/"), answer).bad(), (Reason::Malformed, words), "{}", String::from_utf8_lossy(answer));
    }
    // Without a line end it is told at the end, or when it is long enough.
    let alert = b"\x15\x03\x01\0\x02\x02\x46";
    assert_eq!(once(get("/"), alert).bad(), (Reason::Malformed, "not HTTP: hex 15 03 01 00 02 02 46"));
    assert_eq!(stays(get("/"), &[0xff; 1000]).bad().0, Reason::Malformed);
    assert_eq!(
        stays(get("/"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n").bad().0,
        Reason::Malformed
    );
}

#[test]
fn floods_end_at_their_limits() {
    let flood = |start: &[u8], unit: &[u8], piece: usize| {
        let check = check(vec![get("/")]);
        let bytes = [start, &unit.repeat((8 << 20) / unit.len())].concat();
        play(&mut *http(&check, &target(80)), &[&bytes], &[piece], true)
    };
    let ok = b"HTTP/1.1 200 OK\r\n".as_slice();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    let limit = MOST_HEAD_BYTES;
    // Fewer than 64 of these are more than 16 KiB.
    let long = &[b"Name: ".as_slice(), &[b'x'; 300], b"\r\n"].concat();
    let rows: [(&[u8], &[u8], usize, &str); 8] = [
        (b"HTTP/1.1 200 ", b"a", limit, "more than 16 KiB of header"),
        (ok, b"a", limit, "more than 16 KiB of header"),
        (ok, long, limit, "more than 16 KiB of header"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 1000, "more than 8 interim answers"),
        (chunked, b"f", 1000, "a chunk line of more than 256 bytes"),
        (chunked, b"0;a", 1000, "a chunk line of more than 256 bytes"),
        (&[chunked, b"0\r\n"].concat(), b"A: b\r\n", limit + 100, "more than 16 KiB of trailers"),
        (&[chunked, b"0\r\n"].concat(), b"a", limit + 100, "more than 16 KiB of trailers"),
    ];
    for (start, unit, most, words) in rows {
        for piece in [1, 100] {
            let played = flood(start, unit, piece);
            assert_eq!(played.bad(), (Reason::TooLarge, words));
            assert!(played.taken <= most + piece, "{} bytes for {words}", played.taken);
        }
    }
    let lines = [ok, &b"A: b\r\n".repeat(MOST_HEADERS), b"\r\n"].concat();
    assert_eq!(once(get("/"), &lines).good(), "status 200");
    let lines = [ok, &b"A: b\r\n".repeat(MOST_HEADERS + 1), b"\r\n"].concat();
    assert_eq!(once(get("/"), &lines).bad(), (Reason::TooLarge, "more than 64 header lines"));
    // Empty lines before an answer, and chunks of one byte: no failure by themselves, but they end.
    assert_eq!(flood(b"", b"\r\n", 1).bad().0, Reason::Malformed);
    let chunks = flood(chunked, b"1\r\na\r\n", 1);
    assert_eq!(chunks.good(), "status 200");
    assert!(chunks.taken <= 6 * (MATCH_LIMIT as usize + 1) + chunked.len());
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\nA: b\r\n\r\n".as_slice();
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".as_slice();
    let parts = prop::sample::select(vec![NGINX, chunked, interim, b"HTTP/1.0 200 OK\r\n\r\nready", b"\r\n"]);
    let good = prop::collection::vec(parts, 0..4).prop_map(|parts| parts.concat());
    prop_oneof![
        5 => (good, changes()).prop_map(|(good, changes)| changed(good, &changes)),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_in_any_pieces_comes_to_the_same(
        first in answers(),
        second in answers(),
        pieces in prop::collection::vec(1usize..40, 1..20),
        ends: bool,
        digest: bool,
    ) {
        let last = HttpRequest { digest: digest.then_some([0; 16]), ..wanting(BodyMatch::Text("ready".into())) };
        let check = check(vec![get("/a"), last]);
        assert_robust(&|| http(&check, &target(80)), &[&first, &second], &pieces, ends);
    }
}
