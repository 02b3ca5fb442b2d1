//! The commands that show a part of a running engine say what is true of it, `top` runs on a terminal, and the examples of
//! `docs/control.md` are those of an engine.

mod lab_support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::lab::client::http::HttpConnection;
use evenkeel::lab::client::udp;
use evenkeel::lab::process::{self, Process};
use evenkeel::lab::server::nginx;
use evenkeel::lab::site::Family;
use evenkeel::model::Method;
use lab_support::rig::{ECHO, ECHO_INSIDE, PATIENCE, Rig, WEB, WEB_INSIDE, Wish};
use lab_support::{lab_is_possible, program};
use serde_json::{Value as Json, json};
use toml::Table;

/// How long a busy machine may take.
const LONG: Duration = Duration::from_secs(30);

/// A site by NAT whose web servers are checked, and whose `echo` drops what no server can take.
fn rig() -> (Rig, Vec<Process>) {
    let mut stand = Wish::new(Method::Nat, Family::V4).build();
    let mut check = Table::new();
    check.insert("type".into(), "tcp".into());
    check.insert("interval".into(), 0.1.into());
    check.insert("timeout".into(), 1.into());
    stand.config.change_service("web", "check", vec![toml::Value::from(check)]);
    stand.config.change_service("echo", "no_server", "drop");
    let web = nginx::start_on(&stand.site, &stand.site.servers, WEB_INSIDE, false);
    let web = web.unwrap_or_else(|error| panic!("{error}"));
    let rig = stand.start_engine();
    rig.engine
        .await_status(LONG, "both web servers up", |status| {
            let servers = status["services"][0]["servers"].as_array();
            servers.is_some_and(|servers| servers.len() == 2 && servers.iter().all(|server| server["state"] == "up"))
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
    (rig, web)
}

/// Runs `evenkeel WORDS` with the socket by its variable; what it printed, or what it said was wrong.
fn evenkeel(rig: &Rig, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program());
    let output = command.args(words).env("EVENKEEL_SOCKET", rig.engine.socket()).stdin(Stdio::null()).output();
    let output = output.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn json_of(rig: &Rig, words: &[&str]) -> Json {
    let text = evenkeel(rig, &[words, &["--json"]].concat()).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
}

/// The line that has a text in it.
fn line<'t>(text: &'t str, part: &str) -> &'t str {
    text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no line with {part:?} in\n{text}"))
}

fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A child's output as it comes; the child ends with it.
struct Reading {
    child: Child,
    text: Arc<Mutex<String>>,
}

impl Reading {
    fn start(command: &mut Command) -> Reading {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
        let text: Arc<Mutex<String>> = Arc::default();
        let (mut out, kept) = (child.stdout.take().expect("a pipe"), Arc::clone(&text));
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut piece) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        Reading { child, text }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn await_text(&self, part: &str) {
        let start = Instant::now();
        while !self.text().contains(part) {
            assert!(start.elapsed() < LONG, "no {part:?} within {LONG:?}, but: {:?}", self.text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes keys, as typed.
    fn type_in(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush()).expect("it reads");
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_command_shows_what_is_true() {
    if !lab_is_possible() {
        return;
    }
    let (rig, mut web) = rig();
    let ends = [0, 1].map(|at: usize| format!("{}:{WEB_INSIDE}", rig.site.servers[at].address(Family::V4)));

    // All is well.
    let services = evenkeel(&rig, &["services"]).unwrap();
    assert!(line(&services, "web ").contains(" up ") && line(&services, "web ").contains("2 of 2"), "{services}");
    let servers = evenkeel(&rig, &["servers", "--service", "web"]).unwrap();
    assert!(ends.iter().all(|end| line(&servers, end).contains(" UP ")) && !servers.contains("echo"), "{servers}");
    assert_eq!(evenkeel(&rig, &["servers", "--service", "web", "--failing"]).unwrap(), "no servers\n");
    assert_eq!(evenkeel(&rig, &["vrrp"]).unwrap(), "no virtual routers are configured\n");
    assert_eq!(json_of(&rig, &["vrrp"]), json!({}));
    let workers = evenkeel(&rig, &["workers"]).unwrap();
    assert!(workers.contains("Rings") && line(&workers, "eth0:0 ").contains("eth0:0 "), "{workers}");
    let checks = json_of(&rig, &["checks"]);
    assert_eq!(checks["checks"].as_array().map(Vec::len), Some(2), "{checks}");
    let neighbors = json_of(&rig, &["neighbors", "--server", &ends[0]]);
    let one = &neighbors["neighbors"][0];
    let status = rig.engine.status().unwrap();
    assert_eq!(neighbors["neighbors"].as_array().map(Vec::len), Some(1), "{neighbors}");
    assert_eq!((&one["state"], &one["services"]), (&json!("reachable"), &json!(["web"])), "{neighbors}");
    assert_eq!(one["mac"], status["services"][0]["servers"][0]["next_hop"]["mac"], "{neighbors}");

    // A server ends: who looks is told so, and which.
    web.remove(1).stop();
    let failing = eventually("the second server is down", || {
        let failing = json_of(&rig, &["servers", "--failing"]);
        (failing["services"][0]["servers"][0]["state"] == "down").then_some(failing)
    });
    assert_eq!(failing["services"].as_array().map(Vec::len), Some(1), "{failing}");
    assert_eq!(failing["services"][0]["servers"].as_array().map(Vec::len), Some(1), "{failing}");
    let servers = evenkeel(&rig, &["servers", "--service", "web", "--failing"]).unwrap();
    assert!(line(&servers, &ends[1]).contains("connection refused") && !servers.contains(&ends[0]), "{servers}");
    let checks = evenkeel(&rig, &["checks", "--failing"]).unwrap();
    assert!(line(&checks, &format!("tcp {}", ends[1])).contains("DOWN") && !checks.contains(&ends[0]), "{checks}");
    let services = evenkeel(&rig, &["services", "--service", "web"]).unwrap();
    assert!(line(&services, "web ").contains("1 of 2"), "{services}");

    // Its next hop goes: the way is lost, and why.
    let second = rig.site.servers[1].address(Family::V4);
    rig.ip("appliance", &format!("route add unreachable {second}"));
    let lost = eventually("the way is lost", || {
        let lost = json_of(&rig, &["neighbors", "--server", &ends[1]]);
        (lost["neighbors"][0]["state"] == "unreachable").then_some(lost)
    });
    assert_eq!(lost["neighbors"][0]["mac"], Json::Null, "{lost}");
    let neighbors = evenkeel(&rig, &["neighbors"]).unwrap();
    assert!(neighbors.lines().nth(1).is_some_and(|first| first.contains("UNREACHABLE: ")), "{neighbors}");

    // What is not there is said, with what may be meant.
    for (words, part) in [
        (vec!["servers", "--service", "wbe"], "did you mean `web`?"),
        (vec!["checks", "--server", "10.255.255.1"], "there is no server 10.255.255.1 in any service"),
        (vec!["neighbors", "--server", "web1"], "expected an address"),
        (vec!["drops", "--watch", "0"], "expected seconds"),
        (vec!["top"], "needs a terminal"),
        (vec!["top", "--once", "--service", "wbe"], "did you mean `web`?"),
        (vec!["vrrp", "--socket", "/nonexistent/socket"], "no engine is running"),
    ] {
        let error = evenkeel(&rig, &words).unwrap_err();
        assert!(error.contains(part), "{words:?}: {error}");
    }
}

#[test]
fn drops_are_watched_and_top_shows_it_all() {
    if !lab_is_possible() {
        return;
    }
    let (rig, _web) = rig();
    for server in &rig.site.servers {
        let end = format!("{}:{ECHO_INSIDE}", server.address(Family::V4));
        evenkeel(&rig, &["server", "maintenance", &end, "--service", "echo"]).unwrap();
    }
    let mut command = Command::new(program());
    command.args(["drops", "--watch", "0.2", "--socket"]).arg(rig.engine.socket()).stdin(Stdio::null());
    let watch = Reading::start(&mut command);
    let target = rig.target(ECHO);
    eventually("a line about drops", || {
        // Sent until it is seen: the first look may come after the first datagrams.
        let socket = rig.client().run(|| udp::socket(target, PATIENCE)).unwrap().unwrap();
        socket.send(b"nobody takes it").unwrap();
        watch.text().contains("  no-server ").then_some(())
    });
    assert!(line(&watch.text(), "no-server").contains(" since start)"), "{}", watch.text());
    let drops = evenkeel(&rig, &["drops"]).unwrap();
    assert!(line(&drops, "no-server").ends_with("The service has no server that can take a new flow."), "{drops}");
    let counted = json_of(&rig, &["drops"]);
    let by_worker = counted["drops_by_worker"].as_array().unwrap();
    let sum: u64 = by_worker.iter().filter_map(|worker| worker["no-server"].as_u64()).sum();
    assert!(sum > 0 && Some(sum) == counted["drops"]["no-server"].as_u64(), "{counted}");
    let times = evenkeel(&rig, &["drops", "--watch", "0.1", "--count", "2", "--json"]).unwrap();
    assert_eq!(times.lines().count(), 2, "{times}");

    let end = format!("{}:{WEB_INSIDE}", rig.site.servers[0].address(Family::V4));
    let once = evenkeel(&rig, &["top", "--once", "--interval", "0.2"]).unwrap();
    assert!(line(&once, &end).contains(" UP "), "{once}");
    assert!(line(&once, "echo  udp ").contains("NO SERVER") && once.contains("\nno-server "), "{once}");
    assert!(once.lines().any(|line| line.starts_with("load   0:")), "{once}");
    on_a_terminal(&rig, &end);
}

/// `evenkeel top` on a terminal without a size, as a serial console's may be.
fn on_a_terminal(rig: &Rig, end: &str) {
    let Some(script) = process::program("script") else {
        assert!(std::env::var_os("CI").is_none(), "this test needs `script` (bsdutils), and CI skips nothing");
        eprintln!("SKIPPED: top on a terminal: there is no program `script`");
        return;
    };
    let inner = format!("{} top --interval 0.2", program().display());
    let mut command = Command::new(script);
    command.args(["-qefc", &inner, "/dev/null"]).env("TERM", "linux").env("EVENKEEL_SOCKET", rig.engine.socket());
    let mut top = Reading::start(command.stdin(Stdio::piped()));
    top.await_text(end);
    top.await_text("service / server");
    top.type_in("3");
    top.await_text("since start");
    top.type_in("?");
    top.await_text("Ctrl-L");
    top.type_in("xq");
    let ended = eventually("it ends", || top.child.try_wait().expect("it is ours"));
    assert!(ended.success(), "{ended}: {}", top.text());
    assert!(top.text().contains("\u{1b}[?1049l"), "the screen of before is back: {}", top.text());
}

/// Where the page is, whose examples this holds to the engine.
fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/control.md")
}

/// Objects whose members are names of things, not of the protocol.
const FREE: [&str; 4] = ["drops", "reasons", "refused", "drops_by_worker"];

/// The members of an answer with their types, as paths; of a list, those of all its entries.
fn shape(value: &Json, path: &str, out: &mut BTreeSet<String>) {
    let kind = match value {
        Json::Null => return,
        Json::Bool(_) => "truth",
        Json::Number(_) => "number",
        Json::String(_) => "text",
        Json::Array(_) => "list",
        Json::Object(_) => "object",
    };
    out.insert(format!("{path}: {kind}"));
    match value {
        Json::Array(all) => all.iter().for_each(|one| shape(one, &format!("{path}[]"), out)),
        Json::Object(_) if FREE.iter().any(|name| path.ends_with(name)) => {}
        Json::Object(members) => members.iter().for_each(|(name, value)| shape(value, &format!("{path}.{name}"), out)),
        _ => {}
    }
}

/// Whether a path, or a part of it, is null in the first entries of an answer.
fn is_null(path: &str, of: &Json) -> bool {
    let names = path.split(": ").next().unwrap_or_default().replace("[]", ".0");
    let mut at = of;
    for name in names.split('.').filter(|name| !name.is_empty()) {
        let below = name.parse::<usize>().ok().map_or_else(|| at.get(name), |number| at.get(number));
        match below {
            None | Some(Json::Null) => return below.is_some(),
            Some(value) => at = value,
        }
    }
    false
}

/// The answer as the page has it: of each list the first entry, addresses and paths of the example.
fn shortened(value: &mut Json) {
    match value {
        Json::Array(all) => {
            all.truncate(1);
            all.iter_mut().for_each(shortened);
        }
        Json::Object(members) => members.values_mut().for_each(shortened),
        _ => {}
    }
}

#[test]
fn the_examples_of_the_control_page_are_those_of_an_engine() {
    if !lab_is_possible() {
        return;
    }
    let (rig, _web) = rig();
    let target = rig.target(WEB);
    // A flow to list, open to the end.
    let opened = rig.client().run(|| {
        let mut connection = HttpConnection::open(target, PATIENCE)?;
        connection.get("/", false).map(|_| connection)
    });
    let _flow = opened.unwrap().expect("an answer");
    let real = [
        ("10.0.0.11", rig.site.servers[0].address(Family::V4).to_string()),
        ("10.0.0.12", rig.site.servers[1].address(Family::V4).to_string()),
        ("/etc/evenkeel/lb.toml", rig.engine.file().display().to_string()),
    ];
    let stream = UnixStream::connect(rig.engine.socket()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut ask = |request: &str| -> Json {
        let line = real.iter().fold(request.trim().to_owned(), |line, (shown, real)| line.replace(shown, real));
        (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        reader.read_line(&mut answer).unwrap();
        let answer = real.iter().fold(answer, |answer, (shown, real)| answer.replace(real.as_str(), shown));
        serde_json::from_str(&answer).expect("JSON")
    };
    let text = std::fs::read_to_string(page()).unwrap();
    let pieces: Vec<&str> = text.split("```json\n").collect();
    let (mut written, mut differ, mut examples) = (pieces[0].to_owned(), Vec::new(), 0);
    let mut answer = Json::Null;
    for piece in &pieces[1..] {
        let (block, after) = piece.split_once("```").expect("a block ends");
        let value: Json = serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"));
        written.push_str("```json\n");
        if value.get("command").is_some() {
            answer = ask(block);
            examples += 1;
            written.push_str(block);
        } else {
            shortened(&mut answer);
            let (mut shown, mut real) = (BTreeSet::new(), BTreeSet::new());
            shape(&value, "", &mut shown);
            shape(&answer, "", &mut real);
            // What is null in one of them, or in a list that is empty there, may be something in the other.
            let told = |path: &str, of: &BTreeSet<String>| {
                let cut = path.rfind("[]").map_or(path.len(), |at| at + 2);
                of.iter().any(|known| known.starts_with(&path[..cut]))
            };
            let strays: Vec<&String> = shown
                .symmetric_difference(&real)
                .filter(|path| !is_null(path, &value) && !is_null(path, &answer))
                .filter(|path| !path.contains("[]") || (told(path, &shown) && told(path, &real)))
                .collect();
            if !strays.is_empty() || value["code"] != answer["code"] {
                differ.push(format!("{strays:?}: the engine says {answer}"));
            }
            written.push_str(&format!("{}\n", serde_json::to_string_pretty(&answer).unwrap()));
        }
        written.push_str("```");
        written.push_str(after);
    }
    assert!(examples >= 12, "{examples}");
    if std::env::var_os("EVENKEEL_WRITE_EXAMPLES").is_some() {
        std::fs::write(page(), written).unwrap();
        return;
    }
    assert!(
        differ.is_empty(),
        "docs/control.md shows other members than an engine's; with EVENKEEL_WRITE_EXAMPLES=1 this test writes what is true:\n{}",
        differ.join("\n")
    );
}
