//! The control socket under clients that are many, slow, silent or wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel::control::socket::client::{ClientError, ask};
use evenkeel::control::socket::server::{Reply, Server, SocketError};
use evenkeel::control::socket::{Answer, Command};
use mio::{Events, Poll, Token};
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

impl Running {
    fn start(name: &str) -> Running {
        let path = path(name);
        let stop = Arc::new(AtomicBool::new(false));
        let mut poll = Poll::new().unwrap();
        let mut server = Server::bind(&path, poll.registry(), Token(10)).unwrap();
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
    let endless = vec![b'x'; 200_000];
    let _ = stream.write_all(&endless);
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    assert!(all.is_empty() || all.contains("at most 65536 bytes"), "{all}");
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
        let start = Instant::now();
        assert!(ask(&running.path, Command::Status).is_ok());
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    // Beyond the most, a client is told so; when others go, there is room again.
    for _ in 0..150 {
        idle.push(running.connect());
    }
    let mut said = String::new();
    let mut refused = running.connect();
    refused.read_to_string(&mut said).unwrap();
    assert!(said.contains("more than 256 clients"), "{said}");
    drop(idle);
    let end = Instant::now() + Duration::from_secs(5);
    while ask(&running.path, Command::Status).is_err() {
        assert!(Instant::now() < end, "no room again");
    }
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
