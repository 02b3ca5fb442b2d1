//! A running engine over HTTPS: what it answers is what its control socket answers, an admin drains a server, a reload brings another
//! certificate, and clients that hold every place change nothing for those of the services.

mod lab_support;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use evenkeel::lab::site::{APPLIANCE, Family};
use evenkeel::model::Method;
use lab_support::lab_is_possible;
use lab_support::rig::{Rig, Stand, Wish, eventually};
use serde_json::{Value as Json, json};

/// How long a busy machine may take.
const LONG: Duration = Duration::from_secs(30);

/// In a namespace of its own: no port is taken.
const PORT: u16 = 9112;

/// Writes certificate and key; the file that a client trusts.
fn certificate(stand: &Stand, name: &str) -> PathBuf {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let chain = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
    for (file, text) in [("web.pem", &chain), ("web.key", &key.serialize_pem()), (name, &chain)] {
        fs::write(stand.site.lab.path(file), text).unwrap();
    }
    stand.site.lab.path(name)
}

/// Runs curl beside the engine: the status code and the body; `None`: no answer.
fn curl(rig: &Rig, trusted: &PathBuf, words: &[&str], path: &str) -> Option<(u16, String)> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--noproxy", "*", "--max-time", "30", "--write-out", "\n%{http_code}", "--cacert"]);
    command.arg(trusted).args(words).arg(format!("https://localhost:{PORT}{path}"));
    let output = rig.site.lab.output(APPLIANCE, &command).ok()?;
    let (body, code) = output.trim_end().rsplit_once('\n')?;
    Some((code.parse().ok()?, body.trim_end().to_owned()))
}

fn state(rig: &Rig, server: usize) -> String {
    let status = rig.engine.status().unwrap();
    status["services"][0]["servers"][server]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_engine_is_seen_and_driven_over_https() {
    if !lab_is_possible() {
        return;
    }
    let mut stand = Wish::new(Method::Dr, Family::V4).build();
    let old = certificate(&stand, "old.pem");
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    let users = stand.site.lab.path("web.users");
    fs::write(&users, format!("ann:{}\nbob:{}\n", hash("a"), hash("b"))).unwrap();
    let path = |file: &str| stand.site.lab.path(file).display().to_string();
    let keys = [("certificate", path("web.pem")), ("key", path("web.key")), ("users", path("web.users"))];
    for (key, value) in keys {
        stand.config.set("web", key, value);
    }
    stand.config.set("web", "port", i64::from(PORT));
    stand.config.set("web", "admins", vec!["ann"]);
    let _ = stand.ip(APPLIANCE, "link set lo up");
    stand.start_servers();
    let rig = stand.start_engine();
    let get = |words: &[&str], path: &str| {
        curl(&rig, &old, words, path).unwrap_or_else(|| panic!("{path}: no answer\n{}", rig.story()))
    };
    eventually("it listens", || {
        curl(&rig, &old, &[], "/healthz").is_some_and(|answer| answer == (200, "ok".to_owned()))
    });

    assert_eq!(get(&[], "/api/status").0, 401);
    let (code, text) = get(&["--user", "bob:b"], "/api/status");
    let over_http: Json = serde_json::from_str(&text).unwrap();
    let over_socket = rig.engine.status().unwrap();
    let members = |status: &Json| status.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((code, members(&over_http["answer"])), (200, members(&over_socket)));
    assert_eq!(over_http["answer"]["config"], over_socket["config"]);
    assert_eq!(over_http["answer"]["web"]["addresses"], json!([format!("127.0.0.1:{PORT}")]));

    // An admin drains, a reader does not.
    let server = rig.site.servers[1].address(Family::V4).to_string();
    let options = json!({ "action": "drain", "service": "web", "server": server });
    let drain = json!({ "version": 1, "command": "server", "options": options }).to_string();
    let post = |user: &str| get(&["--user", user, "-H", "Content-Type: application/json", "-d", &drain], "/api");
    assert_eq!(post("bob:b").0, 403);
    assert_eq!(state(&rig, 1), "up");
    let (code, said) = post("ann:a");
    assert_eq!(code, 200, "{said}");
    assert_eq!(state(&rig, 1), "draining");
    let (code, events) = get(&["--user", "bob:b"], "/api/events");
    assert!(code == 200 && events.contains("DRAIN"), "{events}");

    // Another certificate by a reload over HTTP itself: the answer still comes by the old one.
    let renewed = {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        fs::write(rig.site.lab.path("web.pem"), &chain).unwrap();
        fs::write(rig.site.lab.path("web.key"), key.serialize_pem()).unwrap();
        let file = rig.site.lab.path("new.pem");
        fs::write(&file, &chain).unwrap();
        file
    };
    let reload = r#"{"version":1,"command":"reload"}"#;
    let (code, said) = get(&["--user", "ann:a", "-H", "Content-Type: application/json", "-d", reload], "/api");
    assert!(code == 200 && said.contains("certificate.contents") && !said.contains("PRIVATE"), "{said}");
    eventually("the new one", || curl(&rig, &renewed, &[], "/healthz").is_some());
    assert_eq!(curl(&rig, &old, &[], "/healthz"), None);

    // Everybody's places are held; services, the socket and newcomers feel nothing of it.
    let node = rig.site.lab.node(APPLIANCE).unwrap();
    let held = node.run(|| {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let all = (0..1500).filter_map(|_| {
            let mut stream = TcpStream::connect_timeout(&target, LONG).ok()?;
            stream.write_all(&[0x16, 3, 1]).ok()?;
            Some(stream)
        });
        all.collect::<Vec<_>>()
    });
    let held = held.unwrap();
    assert!(held.len() > 1000, "{}", held.len());
    for _ in 0..10 {
        assert_eq!(rig.get().1.server, "server1", "{}", rig.story());
        assert_eq!(curl(&rig, &renewed, &[], "/healthz"), Some((200, "ok".to_owned())), "{}", rig.story());
    }
    let web = &rig.engine.status().unwrap()["web"];
    assert!(web["connections"].as_u64().unwrap() <= 1024 && web["gave_way"].as_u64().unwrap() > 0, "{web}");
    drop(held);
}
