//! The control socket under clients that are many, slow, silent, wrong or not allowed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel::control::socket::client::{ClientError, ask};
use evenkeel::control::socket::server::{Reply, Server, SocketError};
use evenkeel::control::socket::{Answer, Command};
use evenkeel::model::{Roles, Who};
use mio::{Events, Poll, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

/// A server on a thread of its own: `status` answers a large value, `reload` refuses.
struct Running {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    /// Clients whose answer comes later.
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ek-cfg-{}-{name}.sock", std::process::id()))
}

/// Both ends of every connection are in this process.
fn with_descriptors() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let wanted = hard.min(16_384);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).unwrap();
    usize::try_from(wanted).unwrap()
}

impl Running {
    fn start(name: &str) -> Running {
        Running::with_roles(name, Roles::default())
    }

    fn with_roles(name: &str, roles: Roles) -> Running {
        with_descriptors();
        let path = path(name);
        let stop = Arc::new(AtomicBool::new(false));
        let mut poll = Poll::new().unwrap();
        let mut server = Server::bind(&path, poll.registry(), Token(10)).unwrap();
        server.set_roles(&roles);
        let stopped = stop.clone();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = waiting.clone();
        let thread = std::thread::spawn(move || {
            let mut events = Events::with_capacity(64);
            let mut later = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let until = server.next_deadline(Instant::now()).map(|at| at.saturating_duration_since(Instant::now()));
                let wait = until.unwrap_or(Duration::MAX).min(Duration::from_millis(20));
                poll.poll(&mut events, Some(wait)).unwrap();
                for event in &events {
                    assert!(server.note(event.token()));
                }
                let now = Instant::now();
                server.turn(poll.registry(), now, |request, client| match request.command {
                    Command::Status => Answer::Done(json!({ "filler": "x".repeat(1 << 20) })).into(),
                    Command::Reload
                    | Command::Persistence
                    | Command::Server
                    | Command::Events
                    | Command::Edit
                    | Command::Save
                    | Command::Zero
                    | Command::Explain
                    | Command::Log
                    | Command::Capture => Answer::refused("lb.toml: refused: 1 error").into(),
                    // Answered after as many milliseconds as its limit says; never, where that is 0.
                    Command::Flows => {
                        let wait = request.options.get("limit").and_then(Value::as_u64).unwrap_or(0);
                        let when = (wait > 0).then(|| now + Duration::from_millis(wait));
                        later.push((client, when));
                        Reply::Later
                    }
                });
                left.store(later.iter().filter(|(client, _)| server.waits(*client)).count(), Ordering::Relaxed);
                later.retain(|(client, when)| {
                    let due = when.is_some_and(|when| when <= now);
                    if due {
                        server.complete(*client, &Answer::Done(json!("late")), now);
                    }
                    !due && server.waits(*client)
                });
            }
        });
        Running { path, stop, waiting, thread: Some(thread) }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok());
        }
    }
}

fn exchange(stream: &mut UnixStream, request: &[u8]) -> Value {
    stream.write_all(request).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn questions_are_answered() {
    let running = Running::start("answers");
    assert_eq!(std::fs::metadata(&running.path).unwrap().permissions().mode() & 0o777, 0o660);
    let answer = ask(&running.path, Command::Status).unwrap();
    assert_eq!(answer["filler"].as_str().unwrap().len(), 1 << 20);
    match ask(&running.path, Command::Reload) {
        Err(ClientError::Refused { error, .. }) => assert!(error.contains("1 error")),
        other => panic!("{other:?}"),
    }
    // One connection, many questions; also in one write, and in pieces.
    let mut stream = running.connect();
    for _ in 0..3 {
        assert_eq!(exchange(&mut stream, b"{\"version\":1,\"command\":\"reload\"}\n")["ok"], json!(false));
    }
    let reload = b"{\"version\":1,\"command\":\"reload\"}\n";
    stream.write_all(&reload.repeat(100)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!((0..100).all(|_| lines.next().unwrap().unwrap().contains("1 error")));
    for byte in reload {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(lines.next().unwrap().unwrap().contains("1 error"));
}

#[test]
fn garbage_is_refused_and_the_connection_lives() {
    let running = Running::start("garbage");
    let mut stream = running.connect();
    for garbage in [&b"hello\n"[..], b"\xff\x00\xfe\n", b"{\"version\":9,\"command\":\"status\"}\n", b"[1,2]\n"] {
        let answer = exchange(&mut stream, garbage);
        assert_eq!((&answer["ok"], &answer["version"]), (&json!(false), &json!(1)), "{answer}");
        assert!(answer["error"].as_str().unwrap().len() > 10);
    }
    // A line without end.
    let mut stream = running.connect();
    let endless = vec![b'x'; 2_000_000];
    let _ = stream.write_all(&endless);
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    assert!(all.is_empty() || all.contains("at most 1048576 bytes"), "{all}");
    assert!(ask(&running.path, Command::Status).is_ok());
}

#[test]
fn slow_silent_and_many_clients_stall_nobody() {
    let running = Running::start("slow");
    // Clients that ask for megabytes and read nothing, that say nothing, that stop in the middle of a line.
    let mut idle = Vec::new();
    for number in 0..150 {
        let mut stream = running.connect();
        match number % 3 {
            0 => stream.write_all(&b"{\"version\":1,\"command\":\"status\"}\n".repeat(50)).unwrap(),
            1 => {}
            _ => stream.write_all(b"{\"version\":").unwrap(),
        }
        idle.push(stream);
    }
    for _ in 0..20 {
        assert!(ask(&running.path, Command::Status).is_ok());
    }
    drop(idle);
    assert!(ask(&running.path, Command::Status).is_ok());
}

/// Whether the other end has closed a connection, and there is nothing left to read or there is.
fn is_closed(stream: &UnixStream) -> bool {
    let mut ends = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut ends, PollTimeout::ZERO).unwrap();
    ends[0].revents().unwrap().contains(PollFlags::POLLHUP)
}

#[test]
fn thousands_of_idle_clients_stall_nobody_and_make_room() {
    let running = Running::start("idle");
    // As many as the server takes: half of the files that may be open, up to 2048.
    let most = (with_descriptors() / 2).min(2048);
    let mut idle = Vec::new();
    for number in 0..most {
        let mut stream = running.connect();
        // Some in the middle of a line.
        if number % 3 == 0 {
            stream.write_all(b"{\"version\":").unwrap();
        }
        idle.push(stream);
        if number == 1000 {
            assert!(ask(&running.path, Command::Status).is_ok(), "beside a thousand idle clients");
        }
    }
    // There is no place any more, and an admin is answered nevertheless: the one that was silent for longest goes.
    for _ in 0..20 {
        assert!(ask(&running.path, Command::Status).is_ok());
    }
    let closed = idle.iter().filter(|stream| is_closed(stream)).count();
    assert!((1..=21).contains(&closed), "{closed} closed for 21 that came");
    assert!(is_closed(&idle[0]) && !is_closed(&idle[most - 1]), "the first go first");
    // Who waits for an answer is not among them.
    let mut waiting = running.connect();
    waiting.write_all(b"{\"version\":1,\"command\":\"flows\",\"options\":{\"limit\":0}}\n").unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while running.waiting.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < end, "its request is not seen");
        std::thread::sleep(Duration::from_millis(1));
    }
    let others: Vec<UnixStream> = (0..100).map(|_| running.connect()).collect();
    assert!(ask(&running.path, Command::Status).is_ok());
    assert!(!is_closed(&waiting));
    drop(others);
}

#[test]
fn slow_readers_of_large_answers_have_a_bound() {
    let running = Running::start("bound");
    // Each has a megabyte to take, and takes nothing: more than all of them together may have.
    let status = b"{\"version\":1,\"command\":\"status\"}\n";
    let mut slow = Vec::new();
    for _ in 0..400 {
        let mut stream = running.connect();
        stream.write_all(status).unwrap();
        slow.push(stream);
    }
    let end = Instant::now() + Duration::from_secs(60);
    while !slow.iter().any(is_closed) {
        assert!(Instant::now() < end, "nobody was closed");
        assert!(ask(&running.path, Command::Status).is_ok(), "others are answered meanwhile");
    }
    // The answers of those that are still there, without what the kernel has taken of them, fit.
    let there = slow.iter().filter(|stream| !is_closed(stream)).count();
    assert!(there > 100, "{there} are left");
    // Who begins to read gets all of his answer.
    let mut whole = String::new();
    let last = slow.iter().rev().find(|stream| !is_closed(stream)).unwrap();
    BufReader::new(last).read_line(&mut whole).unwrap();
    assert!(whole.len() > 1 << 20 && whole.ends_with('\n'));
}

#[test]
fn a_flood_of_garbage_holds_up_no_status() {
    let running = Running::start("flood");
    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicUsize::new(0));
    let flooders: Vec<JoinHandle<()>> = (0..8)
        .map(|number| {
            let (path, stop, refused) = (running.path.clone(), stop.clone(), refused.clone());
            std::thread::spawn(move || {
                let lines: [&[u8]; 4] =
                    [b"{}\n", b"\xff\xfe\x00\n", b"[[[[[[[[\n", b"{\"version\":1,\"command\":\"x\"}\n"];
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut stream) = UnixStream::connect(&path) else { continue };
                    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    let mut answers = BufReader::new(stream.try_clone().unwrap());
                    for _ in 0..50 {
                        let many = lines[number % 4].repeat(20);
                        let mut line = String::new();
                        if stream.write_all(&many).is_err() || answers.read_line(&mut line).is_err() {
                            break;
                        }
                        refused.fetch_add(usize::from(line.contains("\"ok\":false")), Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(60);
    let mut asked = 0;
    while asked < 100 || refused.load(Ordering::Relaxed) < 100 {
        assert!(Instant::now() < end, "{asked} asked, {refused:?} refused");
        assert!(ask(&running.path, Command::Status).is_ok());
        asked += 1;
    }
    stop.store(true, Ordering::Relaxed);
    flooders.into_iter().for_each(|flooder| flooder.join().unwrap());
}

/// Runs a command of the program as another user.
fn as_user(uid: u32, running: &Running, args: &[&str]) -> (bool, String) {
    let socket = running.path.to_str().unwrap();
    let program = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(args)
        .args(["--socket", socket])
        .uid(uid)
        .gid(uid)
        .output()
        .unwrap();
    let text = [program.stdout, program.stderr].concat();
    (program.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn readers_ask_and_admins_change() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this needs root");
        eprintln!("SKIPPED: this needs root");
        return;
    }
    let user = |id: u32| Who::User { word: id.to_string(), id };
    let group = Who::Group { word: "@7002".to_owned(), id: 7002, members: vec![7005] };
    let roles = Roles { admins: vec![user(7001)], readers: vec![group, user(7003)] };
    let running = Running::with_roles("roles", roles);
    assert_eq!(std::fs::metadata(&running.path).unwrap().permissions().mode() & 0o777, 0o666);
    let status: &[&str] = &["status", "--json"];
    for reader in [7002, 7003, 7005] {
        let (fine, text) = as_user(reader, &running, status);
        assert!(fine && text.len() > 1 << 20, "uid {reader}: {text:.300}");
        let (fine, text) = as_user(reader, &running, &["reload"]);
        assert!(!fine && text.contains(&format!("uid {reader} may ask, and not change")), "{text}");
        assert!(text.contains("root, the engine's own user, 7001"), "{text}");
        let (_, text) = as_user(reader, &running, &["reload", "--dry-run"]);
        assert!(text.contains("lb.toml: refused"), "the handler was asked: {text}");
    }
    let (fine, text) = as_user(7001, &running, &["reload"]);
    assert!(!fine && text.contains("lb.toml: refused"), "an admin's request is handled: {text}");
    let (fine, text) = as_user(7004, &running, status);
    assert!(!fine && text.contains("uid 7004 may ask nothing"), "{text}");
    drop(running);

    // Without lists nobody but root comes in, and a group has a door of its own.
    let closed = Running::start("closed");
    let (fine, text) = as_user(7001, &closed, status);
    assert!(!fine && text.contains("Permission denied"), "{text}");
    let only = Who::Group { word: "@7002".to_owned(), id: 7002, members: Vec::new() };
    let grouped = Running::with_roles("grouped", Roles { readers: vec![only], ..Roles::default() });
    let there = std::fs::metadata(&grouped.path).unwrap();
    assert_eq!((there.permissions().mode() & 0o777, there.gid()), (0o660, 7002));
    assert!(as_user(7002, &grouped, status).0);
    assert!(!as_user(7003, &grouped, status).0);
}

#[test]
fn answers_that_come_later_hold_up_nobody_else() {
    let running = Running::start("later");
    let flows = |limit: u64| format!("{{\"version\":1,\"command\":\"flows\",\"options\":{{\"limit\":{limit}}}}}\n");
    // Two that will never be answered, one of which half-closes: it still waits.
    let mut never = running.connect();
    never.write_all(flows(0).as_bytes()).unwrap();
    let mut half = running.connect();
    half.write_all(flows(0).as_bytes()).unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    // One that asks on while it waits: its answers come in order.
    let mut eager = running.connect();
    eager.write_all(format!("{}{}", flows(150), "{\"version\":1,\"command\":\"reload\"}\n").as_bytes()).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while running.waiting.load(Ordering::Relaxed) < 3 {
        assert!(Instant::now() < end, "three wait");
        assert!(ask(&running.path, Command::Status).is_ok(), "others are answered meanwhile");
    }
    let mut lines = BufReader::new(eager).lines();
    let next: Vec<String> = (0..2).map(|_| lines.next().unwrap().unwrap()).collect();
    assert!(next[0].contains("late") && next[1].contains("1 error"), "{next:?}");
    // A client that goes away is noticed while it waits.
    drop(never);
    drop(half);
    while running.waiting.load(Ordering::Relaxed) > 0 {
        assert!(Instant::now() < end, "they are gone");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn bind(path: &Path) -> Result<Server, SocketError> {
    Server::bind(path, Poll::new().unwrap().registry(), Token(0))
}

#[test]
fn a_live_engine_is_respected_and_a_dead_ones_file_replaced() {
    let running = Running::start("twice");
    match bind(&running.path) {
        Err(SocketError::Running { pid, .. }) => assert_eq!(pid, i32::try_from(std::process::id()).unwrap()),
        other => panic!("{other:?}"),
    }
    let path_kept = running.path.clone();
    drop(running);
    assert!(!path_kept.exists(), "the file goes with its server");
    assert!(matches!(ask(&path_kept, Command::Status), Err(ClientError::Absent(_))));

    // A file that a dead process left behind.
    drop(std::os::unix::net::UnixListener::bind(&path_kept).unwrap());
    assert!(path_kept.exists());
    assert!(matches!(ask(&path_kept, Command::Status), Err(ClientError::Dead(_))));
    drop(bind(&path_kept).unwrap());
    assert!(!path_kept.exists());

    // A file that is none of ours.
    std::fs::write(&path_kept, "precious").unwrap();
    assert!(matches!(bind(&path_kept), Err(SocketError::Occupied(_))));
    assert_eq!(std::fs::read_to_string(&path_kept).unwrap(), "precious");
    std::fs::remove_file(&path_kept).unwrap();
    assert!(matches!(bind(Path::new("/nonexistent/x.sock")), Err(SocketError::Make { .. })));
}
