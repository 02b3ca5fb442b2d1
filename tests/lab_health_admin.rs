//! Servers drained, put in maintenance and let serve again by people, on a running engine: at once, over a reload and a restart,
//! with events and notify scripts, and what clients meet when nobody is left.

mod lab_support;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use evenkeel::lab::site::Family;
use evenkeel::model::Method;
use lab_support::rig::{PATIENCE, Rig, Stand, WEB, WEB_INSIDE, Wish, eventually, text_of};
use lab_support::{lab_is_possible, program};
use serde_json::Value as Json;

/// Runs `evenkeel WORDS --socket SOCKET`; what it printed, or what it said was wrong.
fn evenkeel(rig: &Rig, words: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program()).args(words).arg("--socket").arg(rig.engine.socket()).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// `evenkeel events --follow --json`, as it comes.
struct Follower {
    child: Child,
    events: Arc<Mutex<Vec<Json>>>,
}

impl Follower {
    fn start(rig: &Rig) -> Follower {
        let mut command = Command::new(program());
        command.args(["events", "--follow", "--json", "--socket"]).arg(rig.engine.socket());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
        let events: Arc<Mutex<Vec<Json>>> = Arc::default();
        let (lines, kept) = (BufReader::new(child.stdout.take().expect("a pipe")).lines(), Arc::clone(&events));
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).expect("JSON"));
            }
        });
        Follower { child, events }
    }

    /// Whether an event of this server is there; a server may be named by its whole service.
    fn has(&self, what: &str, server: &str) -> bool {
        let events = self.events.lock().unwrap();
        events.iter().any(|event| event["what"] == what && event["server"].as_str().unwrap_or("") == server)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The servers of eight connections, each once.
fn serving(rig: &Rig) -> Vec<String> {
    let mut names: Vec<String> = (0..8).map(|_| rig.get().1.server).collect();
    names.sort();
    names.dedup();
    names
}

const BOTH: [&str; 2] = ["server1", "server2"];

/// A site by NAT whose servers of `web` tell a file what becomes of them; the second one drains by a file, too.
struct Place {
    told: PathBuf,
    drain: PathBuf,
    servers: [IpAddr; 2],
    second: String,
}

fn build() -> (Stand, Place) {
    let mut stand = Wish::new(Method::Nat, Family::V4).build();
    let (told, drain) = (stand.site.lab.path("told"), stand.site.lab.path("drain"));
    let servers = [0, 1].map(|at: usize| stand.site.servers[at].address(Family::V4));
    let line = format!("echo \"$EVENKEEL_SERVICE $EVENKEEL_SERVER $EVENKEEL_STATE\" >> {}", told.display());
    let script = || vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()];
    for server in servers {
        stand.config.change_server("web", server, "notify_down", script());
        stand.config.change_server("web", server, "notify_up", script());
    }
    stand.config.change_server("web", servers[1], "drain_file", drain.display().to_string());
    stand.config.change_service("web", "quorum_down", script());
    stand.config.change_service("web", "quorum_up", script());
    let second = format!("{}:{WEB_INSIDE}", servers[1]);
    (stand, Place { told, drain, servers, second })
}

#[test]
fn servers_are_taken_out_and_back_by_hand_and_by_file() {
    if !lab_is_possible() {
        return;
    }
    let (stand, place) = build();
    let rig = stand.start();
    let follower = Follower::start(&rig);
    assert_eq!(serving(&rig), BOTH);

    // By hand: in force when the command returns.
    let said = evenkeel(&rig, &["server", "maintenance", &place.second]).unwrap();
    assert_eq!(said, format!("{} of web: maintenance, was ready\n", place.second));
    assert_eq!(serving(&rig), ["server1"], "{}", rig.story());
    eventually("an event", || follower.has("maintenance", &place.second));
    eventually("its script", || text_of(&place.told) == format!("web {} maintenance\n", place.second));
    let listed = evenkeel(&rig, &["server", "list", "--service", "web"]).unwrap();
    assert!(listed.lines().any(|row| row.contains(&place.second) && row.contains("MAINT")), "{listed}");

    // Over a reload, and over a restart that nobody announced.
    rig.engine.reload(&rig.config).unwrap();
    assert_eq!(serving(&rig), ["server1"]);
    let Rig { wish, engine, config, site } = rig;
    drop(engine);
    drop(follower);
    let rig = Stand { wish, site, config }.start_engine();
    let follower = Follower::start(&rig);
    assert_eq!(serving(&rig), ["server1"], "{}", rig.story());
    let said = evenkeel(&rig, &["server", "ready", &place.servers[1].to_string(), "--service", "web"]).unwrap();
    assert_eq!(said, format!("{} of web: ready, was maintenance\n", place.second));
    assert_eq!(serving(&rig), BOTH, "{}", rig.story());
    eventually("an event", || follower.has("up", &place.second));

    // By file.
    fs::write(&place.drain, "").unwrap();
    eventually("it drains", || follower.has("draining", &place.second));
    assert_eq!(serving(&rig), ["server1"], "{}", rig.story());
    fs::remove_file(&place.drain).unwrap();
    eventually("it serves again", || serving(&rig) == BOTH);

    // What is not there is said.
    let error = evenkeel(&rig, &["server", "drain", "10.255.255.1"]).unwrap_err();
    assert!(error.contains("there is no server 10.255.255.1 in any service"), "{error}");
    let error = evenkeel(&rig, &["server", "drain"]).unwrap_err();
    assert!(error.contains("`server` is missing"), "{error}");
    let status = rig.engine.status().unwrap();
    assert_eq!(status["last_error"], Json::Null);
}

#[test]
fn clients_are_refused_at_once_when_nobody_is_left() {
    if !lab_is_possible() {
        return;
    }
    let (stand, place) = build();
    let rig = stand.start();
    let follower = Follower::start(&rig);
    for server in place.servers {
        evenkeel(&rig, &["server", "maintenance", &server.to_string(), "--service", "web"]).unwrap();
    }
    let target = rig.target(WEB);
    let connect = || rig.client().run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    let refused = connect().expect_err("nobody serves");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}\n{}", rig.story());
    let status = rig.engine.status().unwrap();
    let count =
        |status: &Json| status["workers"].as_array().unwrap().iter().filter_map(|w| w["refused"].as_u64()).sum::<u64>();
    assert_eq!(count(&status), 1, "{}", rig.story());
    eventually("the quorum's event", || follower.has("quorum-lost", ""));
    eventually("its script", || text_of(&place.told).contains("web  quorum-lost\n"));

    // As configured, they are told nothing.
    let mut silent = rig.config.clone();
    silent.change_service("web", "no_server", "drop");
    rig.engine.reload(&silent).unwrap();
    let waits = std::time::Duration::from_millis(300);
    let waited = rig.client().run(|| TcpStream::connect_timeout(&target, waits)).unwrap().expect_err("nobody serves");
    assert_eq!(waited.kind(), ErrorKind::TimedOut, "{waited}");
    assert!(rig.drops("no-server") > 0, "{}", rig.story());

    evenkeel(&rig, &["server", "ready", &place.second]).unwrap();
    assert_eq!(serving(&rig), ["server2"]);
    eventually("its event", || follower.has("quorum-found", ""));
    let events = evenkeel(&rig, &["events"]).unwrap();
    for part in ["service web is without its quorum", "service web has its quorum", " of web is in MAINT"] {
        assert!(events.contains(part), "no {part:?} in\n{events}");
    }
}
