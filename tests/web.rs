//! The web listener under clients that are many, slow, wrong or not allowed, over real sockets of this machine; the control loop
//! behind it is a small one that answers by rote.

mod web_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command as Program;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel::control::socket::client::ask;
use evenkeel::control::socket::{Answer, Command};
use evenkeel::model::{self, WebTls};
use serde_json::{Value, json};
use web_support::client::{chunk, receive, send};
use web_support::{LARGE, Running, plain, users};

fn password(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

#[test]
fn every_code_of_the_contract() {
    let running = Running::start("contract", plain);
    // What a picture has, and what it has not.
    let status = running.get("/api/status");
    assert_eq!((status.code, status.header("content-type")), (200, Some("application/json")));
    assert_eq!(status.json()["answer"]["engine"]["pid"], 7);
    let parts = running.get("/api/status?parts=drops,warnings");
    let expected = json!({ "version": 1, "ok": true, "answer": { "drops": { "no-service": 3 }, "warnings": [] } });
    assert_eq!(parts.json(), expected);
    assert_eq!(parts.body, Answer::Done(expected["answer"].clone()).line(), "word for word");
    assert_eq!(running.asked.load(Ordering::Relaxed), 0, "pictures do");
    let large = running.get("/api/status?parts=neighbors");
    assert_eq!((large.code, large.body.len() > LARGE), (200, true));
    assert_eq!(large.json()["answer"]["filler"].as_str().map(str::len), Some(LARGE));
    let explain = running.get("/api/explain?client=10.0.0.1:5&to=192.0.2.1:80");
    let options = json!({ "client": "10.0.0.1:5", "to": "192.0.2.1:80" });
    assert_eq!(explain.json(), json!({ "version": 1, "ok": true, "answer": { "options": options } }));
    let me = running.get("/api/me");
    assert_eq!((me.code, me.json()), (200, json!({ "name": null, "role": "reader" })));
    let posted = running.post(&json!({ "version": 1, "command": "explain", "options": { "to": "a\nb" } }), &[]);
    assert_eq!(posted.json()["answer"]["options"]["to"], "a\nb");

    for (path, code, word, part) in [
        ("/api", 400, "invalid", "GET /api/COMMAND"),
        ("/api/", 400, "invalid", "GET /api/COMMAND"),
        ("/api/statsu", 400, "invalid", "did you mean `status`?"),
        ("/api/status?part=x", 400, "invalid", "did you mean `parts`?"),
        ("/api/status?parts=drop", 400, "invalid", "did you mean `drops`?"),
        ("/api/status?service=a&service=b", 400, "invalid", "twice"),
        ("/api/save", 403, "denied", "nobody is one here"),
        ("/api/zero/", 403, "denied", "nobody is one here"),
        ("/api/flows?service=wbe", 404, "no-service", "there is no such service"),
        ("/api/persistence", 404, "no-server", "there is no such server"),
        ("/api/edit?dry_run", 409, "service-exists", "it is there"),
    ] {
        let refused = running.get(path);
        let said = refused.json();
        assert_eq!(
            (refused.code, said["code"].as_str(), said["ok"].as_bool()),
            (code, Some(word), Some(false)),
            "{path}"
        );
        assert!(said["error"].as_str().unwrap().contains(part), "{path}: {said}");
    }
    for (method, path, code) in [
        ("GET", "/nothing", 404),
        ("HEAD", "/healthz", 200),
        ("GET", "/healthz/", 200),
        ("HEAD", "/api/status", 200),
        ("OPTIONS", "/api", 204),
        ("PUT", "/api", 405),
        ("DELETE", "/", 405),
        ("POST", "/", 405),
        ("POST", "/api/status", 405),
        ("BREW", "/api", 405),
    ] {
        let response = running.request(method, path, &[], "");
        assert_eq!(response.code, code, "{method} {path}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
    // Other sites, and other names.
    let asked = json!({ "version": 1, "command": "explain" });
    assert_eq!(running.request("POST", "/api", &[("Content-Type", "text/plain")], &asked.to_string()).code, 400);
    assert_eq!(running.post(&asked, &[("Origin", "http://evil.example")]).code, 403);
    assert_eq!(running.post(&asked, &[("Sec-Fetch-Site", "cross-site")]).code, 403);
    assert_eq!(running.post(&asked, &[("Origin", "http://127.0.0.1")]).code, 200);
    assert_eq!(running.request("GET", "/api/status", &[("Host", "evil.example")], "").code, 403);
    assert_eq!(running.request("GET", "/healthz", &[("Host", "evil.example")], "").code, 200);
    // Too long, for a reader.
    let long = json!({ "version": 1, "command": "explain", "options": { "to": "x".repeat(64 << 10) } });
    assert_eq!(running.post(&long, &[]).code, 413);
    // One connection, many requests; and a client of the last century.
    let mut stream = running.connect();
    for _ in 0..5 {
        assert_eq!(send(&mut stream, "GET", "/api/me", &[], "").code, 200);
    }
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut last = String::new();
    stream.read_to_string(&mut last).unwrap();
    assert!(last.starts_with("HTTP/1.0 200") && last.ends_with("\r\n\r\nok\n"), "{last}");
    let status = running.status();
    assert!(status.bad_requests >= 7 && status.requests > 30 && status.trouble.is_none(), "{status:?}");
}

#[test]
fn users_have_roles_and_guesses_have_bounds() {
    let running = Running::start("users", |port| model::Web { users: Some(users()), ..plain(port) });
    let save = json!({ "version": 1, "command": "save" });
    let with = |text: &str| vec![("Authorization".to_owned(), text.to_owned())];
    let get = |path: &str, headers: &[(String, String)]| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        running.request("GET", path, &headers, "")
    };
    let nobody = running.get("/api/status");
    assert_eq!((nobody.code, nobody.json()["code"].as_str()), (401, Some("denied")));
    assert!(nobody.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Basic realm=")));
    assert_eq!(running.get("/").code, 401);
    assert_eq!(running.get("/healthz").code, 200, "probes have no password");
    let (ann, bob) = (password("ann", "ann's"), password("bob", "bob's"));
    assert_eq!(get("/api/me", &with(&ann)).json(), json!({ "name": "ann", "role": "admin" }));
    assert_eq!(get("/api/me", &with(&bob)).json(), json!({ "name": "bob", "role": "reader" }));
    // The password is what keeps other names out.
    assert_eq!(running.request("GET", "/api/me", &[("Authorization", &ann), ("Host", "lb.example")], "").code, 200);
    let denied = running.post(&save, &[("Authorization", &bob)]);
    assert!(denied.code == 403 && denied.json()["error"].as_str().unwrap().contains("bob may ask"), "{denied:?}");
    let failed = running.post(&save, &[("Authorization", &ann)]);
    assert_eq!((failed.code, failed.json()["error"].as_str()), (503, Some("the disk is full")));
    let long = json!({ "version": 1, "command": "explain", "options": { "to": "x".repeat(512 << 10) } });
    assert_eq!(running.post(&long, &[("Authorization", &ann)]).code, 200, "an admin may say more");

    let mut codes = Vec::new();
    for number in 0..40 {
        let answer = get("/api/me", &with(&password("ann", &number.to_string())));
        if answer.code == 429 {
            assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{answer:?}");
        }
        codes.push(answer.code);
    }
    assert!(
        codes.iter().all(|code| [401, 429].contains(code)) && codes.contains(&401) && codes.contains(&429),
        "{codes:?}"
    );
    assert_eq!(get("/api/me", &with(&ann)).code, 200, "who is known is not kept out");
    running.eventually("it is counted", || {
        let status = running.status();
        (status.wrong_passwords + status.limited == 40 && status.limited > 0).then_some(())
    });

    // A connection that is open hears of new users with its next request.
    let mut open = running.connect();
    assert_eq!(send(&mut open, "GET", "/api/me", &[("Authorization", &ann)], "").code, 200);
    let mut fewer = users();
    fewer.list.remove(0);
    running.configure(Some(model::Web { users: Some(fewer), ..plain(running.port) }));
    running.eventually("she is gone", || {
        let code = send(&mut open, "GET", "/api/me", &[("Authorization", &ann)], "").code;
        assert!([200, 401, 429].contains(&code), "{code}");
        (code != 200).then_some(())
    });
}

#[test]
fn events_come_line_by_line_until_the_client_goes() {
    let running = Running::start("events", plain);
    // More than may follow at once, one after the other: each gives its place back.
    for _ in 0..40 {
        let mut stream = running.eventually("a place", || {
            let mut stream = running.connect();
            stream.write_all(b"GET /api/events?follow&since=5 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            head.starts_with("HTTP/1.1 200").then_some((stream, head))
        });
        assert!(stream.1.contains("application/x-ndjson"), "{}", stream.1);
        let mut text = Vec::new();
        while text.iter().filter(|byte| **byte == b'\n').count() < 3 {
            text.extend(chunk(&mut stream.0).unwrap().expect("it goes on"));
        }
        let lines: Vec<Value> =
            text.split(|byte| *byte == b'\n').take(3).map(|line| serde_json::from_slice(line).unwrap()).collect();
        let next: Vec<u64> = lines.iter().map(|line| line["answer"]["next"].as_u64().unwrap()).collect();
        assert_eq!(next, [6, 7, 8]);
    }
    // A POST is one question.
    let once = running.post(&json!({ "version": 1, "command": "events", "options": { "follow": true } }), &[]);
    assert_eq!((once.code, once.json()["answer"]["next"].as_u64()), (200, Some(1)));
}

#[test]
fn a_stalled_loop_is_told_and_holds_up_nobody() {
    let running = Running::start("stalled", plain);
    assert_eq!(running.get("/healthz").body, b"ok\n");
    running.stalled.store(true, Ordering::Relaxed);
    let ill = running.get("/healthz");
    assert_eq!(ill.code, 503);
    assert!(String::from_utf8_lossy(&ill.body).contains("control loop has not answered"), "{ill:?}");
    // What needs no loop is answered.
    assert_eq!(running.get("/api/me").code, 200);
    running.stalled.store(false, Ordering::Relaxed);
    running.eventually("it is well", || (running.get("/healthz").code == 200).then_some(()));
}

fn certificate(dir: &std::path::Path, name: &str) -> (WebTls, PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let chain = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let file = dir.join(format!("{name}.pem"));
    std::fs::write(&file, &chain).unwrap();
    let secret = key.serialize_pem().into_bytes();
    (WebTls { certificate: file.clone(), key: "key".into(), chain: chain.into_bytes(), secret }, file)
}

#[test]
fn tls_is_spoken_and_renewed() {
    let dir = std::env::temp_dir().join(format!("ek-web-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let ((first, old), (second, new)) = (certificate(&dir, "old"), certificate(&dir, "new"));
    let running = Running::start("tls", |port| model::Web { tls: Some(first), ..plain(port) });
    let curl = |trusted: &std::path::Path| {
        let url = format!("https://localhost:{}/healthz", running.port);
        let output = Program::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--ipv4", "--cacert"])
            .arg(trusted)
            .arg(url)
            .output()
            .expect("curl runs");
        output.status.success() && output.stdout == b"ok\n"
    };
    assert!(curl(&old) && !curl(&new));
    let lost = running.get("/healthz");
    assert!(lost.code == 400 && String::from_utf8_lossy(&lost.body).contains("https://"), "{lost:?}");
    // Bytes that are no handshake, and a client that says nothing: neither is in the way.
    let silent = running.connect();
    let mut wrong = running.connect();
    wrong.write_all(&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]).unwrap();
    let _ = wrong.read_to_end(&mut Vec::new());
    running.configure(Some(model::Web { tls: Some(second), ..plain(running.port) }));
    running.eventually("the new one is shown", || curl(&new).then_some(()));
    assert!(!curl(&old));
    drop(silent);
    running.configure(Some(plain(running.port)));
    running.eventually("plain HTTP", || running.is_well().then_some(()));
    running.configure(None);
    running.eventually("nobody listens", || TcpStream::connect(running.address()).err());
    running.configure(Some(plain(running.port)));
    running.eventually("it listens again", || TcpStream::connect(running.address()).ok());
    let _ = std::fs::remove_dir_all(&dir);
}

#[test]
fn an_address_that_is_taken_is_tried_again() {
    let running = Running::start("taken", plain);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    running.configure(Some(plain(port)));
    let trouble = running.eventually("it is said", || running.status().trouble);
    assert!(trouble.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{trouble}");
    drop(taken);
    running.eventually("it listens", || (running.status().trouble.is_none()).then_some(()));
    running.eventually("it answers", || TcpStream::connect(("127.0.0.1", port)).ok());
}

#[test]
fn garbage_is_refused_and_forgotten() {
    let running = Running::start("garbage", plain);
    let two = "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n";
    let both = "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\
                Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    for (text, codes) in [
        (two, &[400][..]),
        (both, &[400]),
        (&huge, &[414, 431, 400]),
        (&headers, &[431, 400]),
        ("GET / HTTP/9.9\r\n\r\n", &[400]),
        ("\u{16}\u{3}\u{1}", &[400]),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", &[400]),
        ("GET /\0 HTTP/1.1\r\n\r\n", &[400]),
    ] {
        let mut stream = running.connect();
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // It may be closed before all is taken: then there is an answer or none, but no other one.
        if let Ok(response) = receive(&mut stream, false) {
            assert!(codes.contains(&response.code), "{:.60}: {response:?}", text);
            let mut more = Vec::new();
            let _ = stream.read_to_end(&mut more);
            assert!(more.is_empty(), "{:.60}: {}", text, String::from_utf8_lossy(&more));
        }
    }
    // A request cut anywhere, and with any byte wrong.
    let sound = b"POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{\"version\":1,\"command\":\"explain\"}       ";
    let mut seed = 7u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for number in 0..400 {
        let mut bytes = sound.to_vec();
        match number % 3 {
            0 => bytes.truncate(random() as usize % sound.len()),
            1 => (0..=random() % 4).for_each(|_| bytes[random() as usize % sound.len()] = random() as u8),
            _ => bytes = (0..random() % 3000).map(|_| random() as u8).collect(),
        }
        let mut stream = running.connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(running.get("/healthz").code, 200);
    assert_eq!(ask(&running.path, Command::Server).unwrap(), json!({ "options": {} }));
    running.eventually("all are gone", || (running.status().connections <= 1).then_some(()));
}

#[test]
fn thousands_of_connections_and_slow_ones_leave_room() {
    let running = Running::start("many", plain);
    // Heads that never end, from many addresses, and thousands that say nothing.
    let mut slow: Vec<TcpStream> = Vec::new();
    for number in 0..300u32 {
        let mut stream = running.connect_from(Ipv4Addr::from(0x7f00_0100 + number));
        stream.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").unwrap();
        slow.push(stream);
    }
    for number in 0..2000u32 {
        slow.push(running.connect_from(Ipv4Addr::from(0x7f00_1000 + number % 500)));
    }
    // Some that ask for much and read nothing.
    for number in 0..30u32 {
        let mut stream = running.connect_from(Ipv4Addr::from(0x7f00_2000 + number));
        stream.write_all(b"GET /api/status?parts=neighbors HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        slow.push(stream);
    }
    for number in 0..50 {
        for stream in slow.iter_mut().take(300) {
            let _ = stream.write(b"x");
        }
        assert_eq!(running.get("/healthz").code, 200, "{number}");
        assert_eq!(running.get("/api/me").code, 200, "{number}");
        assert_eq!(ask(&running.path, Command::Server).unwrap(), json!({ "options": {} }), "{number}");
    }
    let status = running.status();
    assert!(status.connections <= 1024 && status.accepted > 2300 && status.gave_way > 1000, "{status:?}");
    drop(slow);
    running.eventually("all are gone", || (running.status().connections <= 1).then_some(()));
    let mut one = BufReader::new(running.connect());
    one.get_mut().write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut line = String::new();
    one.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
}
