//! Clients that send what they like, over streams in memory: each is answered or left, and none stays or harms.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::speak;
use crate::model::{Role, Web, WebUser, WebUsers};

/// How long a busy machine may take.
const LONG: Duration = Duration::from_secs(60);

fn web(users: bool) -> Web {
    let hash = bcrypt::hash("b", 4).expect("a hash");
    let list = vec![WebUser { name: "a".to_owned(), hash, role: Role::Admin }];
    let users = users.then(|| WebUsers { file: "users".into(), list });
    Web { listen: vec![std::net::Ipv4Addr::LOCALHOST.into()], port: 1, tls: None, users }
}

/// What is answered to some bytes where the engine ends, so that nothing is asked of it. `closes`: the client says that it sends
/// no more, and is taken for gone.
async fn answer(web: &Web, bytes: &[u8], closes: bool) -> String {
    let (asks, _) = crossbeam::channel::bounded(1);
    let (mut ours, theirs) = tokio::io::duplex(1 << 16);
    let web = web.clone();
    let from = std::net::Ipv4Addr::LOCALHOST.into();
    let talk = tokio::spawn(async move { speak(theirs, from, &web, asks, Arc::new(|| {})).await });
    let _ = ours.write_all(bytes).await;
    if closes {
        let _ = ours.shutdown().await;
    }
    let mut all = Vec::new();
    tokio::time::timeout(LONG, ours.read_to_end(&mut all)).await.expect("it ends").expect("is read");
    drop(ours);
    tokio::time::timeout(LONG, talk).await.expect("it ends").expect("no panic");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn an_engine_that_ends_is_said() {
    let said = answer(&web(false), b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false).await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("the engine ends"), "{said}");
    let said =
        answer(&web(false), b"GET /api/me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", false).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.contains(r#""role":"reader""#), "{said}");
    let said = answer(&web(true), b"GET /api/status HTTP/1.0\r\nAuthorization: Basic YTpi\r\n\r\n", false).await;
    assert!(said.starts_with("HTTP/1.0 503") && said.contains(r#""code":"failed""#), "{said}");
    let said = answer(&web(true), b"GET /api/me HTTP/1.0\r\nAuthorization: Basic YTpj\r\n\r\n", false).await;
    assert!(said.starts_with("HTTP/1.0 401") && !said.contains("$2"), "{said}");
}

#[tokio::test]
async fn any_bytes_end_a_conversation() {
    let sound: [&[u8]; 4] = [
        b"GET /api/flows?limit=5&client=10.0.0.0/8 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic YTpi\r\n\r\n",
        b"POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{\"version\":1,\"command\":\"zero\"}",
        b"POST /api HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ver\r\n0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n\r\nHEAD / HTTP/1.1\r\nConnection: close\r\n\r\n",
    ];
    let (with, without) = (web(true), web(false));
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize % below
    };
    for number in 0..3000 {
        let mut bytes = sound[random(sound.len())].to_vec();
        match number % 4 {
            0 => bytes.truncate(random(bytes.len())),
            1 => (0..=random(3)).for_each(|_| {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }),
            2 => (0..=random(2)).for_each(|_| {
                let (at, other) = (random(bytes.len()), sound[random(sound.len())]);
                let piece = other[random(other.len())..].to_vec();
                bytes.splice(at..at, piece);
            }),
            _ => bytes = (0..random(400)).map(|_| random(256) as u8).collect(),
        }
        let web = if random(8) == 0 { &with } else { &without };
        let said = answer(web, &bytes, true).await;
        assert!(said.len() < 1 << 16, "{} bytes", said.len());
        assert!(said.is_empty() || said.starts_with("HTTP/1."), "{said}");
    }
}
