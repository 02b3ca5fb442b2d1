//! The health checks' threads against real sockets of 127.0.0.1 and ::1: servers that accept, refuse, are silent, drip, reset
//! and never end; rise, fall and retries; reloads; scripts that hang; a machine without descriptors, and one that pauses.

mod health_support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel::health::driver::Egress;
use evenkeel::health::{Outcome, Reason};
use evenkeel::model::{
    Check, CheckKind, FileCheck, HttpCheck, HttpRequest, Method, Pace, ScriptCheck, Through, TunnelSettings, UdpCheck,
    Weigh,
};
use health_support::{
    BOTH, Checks, PATIENCE, Server, V4, check, is_root, ms, pace, refusing, silent, smtp, speak_smtp, wait_for,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn held(_: usize, mut client: TcpStream) {
    let _ = client.read(&mut [0; 64]);
}

fn reset(client: TcpStream) {
    let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
}

#[test]
fn a_connection_comes_about_or_is_refused() {
    for ip in BOTH {
        let server = Server::start(ip, held);
        let (_socket, nobody) = refusing(ip);
        let checks = Checks::start(vec![
            (1, check(CheckKind::Tcp, server.address, pace())),
            (2, check(CheckKind::Tcp, nobody, pace())),
        ]);
        assert_eq!(checks.first(1), (true, "connected".into()));
        assert_eq!(checks.first(2), (false, "connection refused".into()));
        checks.runs(1, 3);
        checks.runs(2, 3);
        assert_eq!((checks.events(1).len(), checks.events(2).len()), (1, 1), "nothing has changed");
        let (up, down) = (checks.status(1), checks.status(2));
        assert_eq!((up.up, up.failed, up.unable), (Some(true), 0, 0));
        assert_eq!((down.up, down.passed, down.unable), (Some(false), 0, 0));
        assert_eq!(
            down.reasons[Reason::ALL.iter().position(|reason| *reason == Reason::Refused).expect("listed")],
            down.failed
        );
        assert!(up.streak >= 4 && up.history.len() == 1 && up.history[0].up && up.since == Some(up.history[0].at));
        assert!(checks.woken.load(Ordering::Acquire) >= 1, "somebody was told");
    }
}

#[test]
fn silence_has_words_for_where_it_was() {
    let quick = Pace { timeout: ms(300), ..pace() };
    for ip in BOTH {
        let (_sockets, nobody) = silent(ip);
        let mute = Server::start(ip, held);
        let drips = Server::start(ip, |_, mut client| {
            while client.write_all(b"2").is_ok() {
                std::thread::sleep(ms(20));
            }
        });
        let checks = Checks::start(vec![
            (1, check(CheckKind::Tcp, nobody, quick.clone())),
            (2, check(smtp(), mute.address, quick.clone())),
            (3, check(smtp(), drips.address, quick.clone())),
        ]);
        assert_eq!(checks.failure(1), (Reason::Timeout, "no connection in 300 ms".into()));
        for id in [2, 3] {
            let (reason, words) = checks.failure(id);
            assert_eq!(reason, Reason::Timeout);
            assert!(words.starts_with("no ") && words.ends_with(" in 300 ms"), "{words}");
        }
        checks.runs(1, 2);
    }
}

#[test]
fn resets_and_answers_without_end_are_failures() {
    let resets = Server::start(V4, |_, client| reset(client));
    let closes = Server::start(V4, |_, client| drop(client));
    let endless = Server::start(V4, |_, mut client| while client.write_all(&[b'x'; 60_000]).is_ok() {});
    let lines = Server::start(V4, |_, mut client| while client.write_all(&b"220-more\r\n".repeat(6000)).is_ok() {});
    let plan = [&resets, &closes, &endless, &lines].into_iter().zip(1..);
    let checks = Checks::start(plan.map(|(server, id)| (id, check(smtp(), server.address, pace()))).collect());
    assert_eq!(checks.failure(1), (Reason::Closed, "connection reset".into()));
    assert_eq!(checks.failure(2).0, Reason::Closed);
    for id in [3, 4] {
        let (reason, words) = checks.failure(id);
        assert_ne!(reason, Reason::Timeout, "{words}");
    }
    for id in 1..=4 {
        checks.runs(id, 3);
        assert_eq!((checks.status(id).passed, checks.status(id).unable), (0, 0));
    }
}

#[test]
fn a_server_that_goes_and_comes_back() {
    let server = Server::start(V4, held);
    let address = server.address;
    let pace = Pace { rise: 3, fall: 4, ..pace() };
    let checks = Checks::start(vec![(1, check(CheckKind::Tcp, address, pace))]);
    assert_eq!(checks.first(1), (true, "connected".into()));
    checks.runs(1, 3);
    drop(server);
    let down = checks.wait_for_events(1, 2)[1].clone();
    assert_eq!((down.up, down.words.as_str()), (false, "connection refused"));
    let status = checks.status(1);
    assert!(status.failed >= 4, "{status:?}");
    let passed = status.passed;
    let server = Server::at(address, held);
    let up = checks.wait_for_events(1, 3)[2].clone();
    assert!(up.up && server.seen() >= 3);
    let status = checks.status(1);
    assert!(status.passed >= passed + 3, "{status:?}");
    assert_eq!(status.history.iter().map(|turn| turn.up).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(status.since, Some(up.at));
}

#[test]
fn a_run_is_good_when_one_of_its_attempts_is() {
    // Every other connection is reset.
    let server = Server::start(V4, |number, client| if number % 2 == 0 { reset(client) } else { speak_smtp(client) });
    let checks =
        Checks::start(vec![(1, check(smtp(), server.address, Pace { retries: 1, retry_delay: ms(10), ..pace() }))]);
    assert!(checks.first(1).0);
    checks.runs(1, 5);
    let status = checks.status(1);
    assert_eq!((status.failed, status.unable), (0, 0), "{:?}", status.last);
    assert!(server.seen() as u64 >= status.passed * 2);
}

#[test]
fn a_reload_leaves_what_stays_alone() {
    let (first, second) = (Server::start(V4, held), Server::start(V4, held));
    let one = || (1, check(CheckKind::Tcp, first.address, pace()));
    let two = || (2, check(CheckKind::Tcp, second.address, pace()));
    let checks = Checks::start(vec![one()]);
    checks.first(1);
    checks.runs(1, 3);
    let record = checks.checker.record(evenkeel::health::CheckId(1)).expect("there");
    let passed = record.read().passed;
    checks.configure(vec![one(), two()]);
    assert!(checks.first(2).0);
    checks.runs(1, 3);
    assert!(record.read().passed >= passed + 3, "the same record goes on");
    assert_eq!(checks.events(1).len(), 1, "and nothing is told anew");
    checks.configure(vec![two()]);
    assert!(checks.checker.record(evenkeel::health::CheckId(1)).is_none());
    checks.runs(2, 3);
    let seen = first.seen();
    checks.runs(2, 10);
    assert_eq!(first.seen(), seen, "it is asked no more");
    assert_eq!(checks.events(2).len(), 1);
    // Plans that follow one another at once: the last counts.
    for _ in 0..50 {
        checks.configure(vec![one()]);
        checks.configure(vec![one(), two()]);
    }
    checks.runs(2, 3);
    checks.runs(1, 3);
    assert!(checks.checker.is_running());
}

fn script(text: &str, dynamic: bool) -> CheckKind {
    let command = vec!["/bin/sh".into(), "-c".into(), text.into()];
    CheckKind::Script(ScriptCheck { command, environment: Vec::new(), user: None, dynamic })
}

#[test]
fn scripts_that_hang_delay_nobody_else() {
    let server = Server::start(V4, |_, client| drop(client));
    let nobody = SocketAddr::new(V4, 0);
    let mut plan: Vec<(u64, Check)> = (0..200)
        .map(|id| {
            (id, check(CheckKind::Tcp, server.address, Pace { interval: ms(200 + id), warmup: ms(200), ..pace() }))
        })
        .collect();
    let hangs = Pace { timeout: ms(400), interval: ms(100), ..pace() };
    plan.extend((1000..1080).map(|id| (id, check(script("sleep 1000", false), nobody, hangs.clone()))));
    let checks = Checks::start(plan);
    assert_eq!(checks.failure(1000), (Reason::Script, "killed after 400 ms, the timeout".into()));
    for id in 0..200 {
        wait_for("ten runs of each", || (checks.status(id).passed >= 10).then_some(()));
        let status = checks.status(id);
        assert_eq!((status.failed, status.unable), (0, 0), "{:?}", status.last);
    }
    for id in 1000..1080 {
        // More than may run at a time: those that wait have not failed by waiting, and get their turn.
        assert_eq!(checks.failure(id).1, "killed after 400 ms, the timeout");
    }
}

#[test]
fn scripts_and_files_say_weights() {
    let folder = std::env::temp_dir().join(format!("evenkeel-health-driver-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("number");
    std::fs::write(&path, "4").expect("a file");
    let nobody = SocketAddr::new(V4, 0);
    let file = CheckKind::File(FileCheck { path: path.clone(), weight: 10 });
    let checks = Checks::start(vec![
        (1, check(file, nobody, pace())),
        (2, check(script("exit 12", true), nobody, pace())),
        (3, check(script("exit 12", false), nobody, pace())),
    ]);
    let first = checks.wait_for_events(1, 1)[0].clone();
    assert_eq!((first.up, first.weigh, first.words.as_str()), (true, Some(Weigh::Add(40)), "the file says 4"));
    let weight = checks.wait_for_events(2, 1)[0].clone();
    assert_eq!((weight.up, weight.weigh), (true, Some(Weigh::Set(10))));
    assert_eq!(checks.first(3), (false, "exit code 12".into()));
    std::fs::write(folder.join("new"), "-1").expect("a file");
    std::fs::rename(folder.join("new"), &path).expect("one step");
    let changed = checks.wait_for_events(1, 2)[1].clone();
    assert_eq!((changed.up, changed.weigh), (true, Some(Weigh::Add(-10))));
    std::fs::remove_dir_all(&folder).expect("it was ours");
}

fn udp(payload: &[u8], reply: Option<&[u8]>, require_reply: bool) -> CheckKind {
    CheckKind::Udp(UdpCheck { payload: payload.into(), reply: reply.map(Into::into), require_reply })
}

#[test]
fn datagrams_are_answered_refused_or_lost() {
    for ip in BOTH {
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).expect("a port");
        let address = socket.local_addr().expect("it is bound");
        let mute = UdpSocket::bind(SocketAddr::new(ip, 0)).expect("a port");
        let gone = UdpSocket::bind(SocketAddr::new(ip, 0)).and_then(|socket| socket.local_addr()).expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&[b"re: ", &buffer[..length]].concat(), from);
            }
        });
        let quick = Pace { timeout: ms(300), ..pace() };
        let silent = mute.local_addr().expect("it is bound");
        let checks = Checks::start(vec![
            (1, check(udp(b"ping", Some(b"re: ping"), true), address, pace())),
            (2, check(udp(b"ping", None, true), gone, pace())),
            (3, check(udp(b"ping", None, true), silent, quick.clone())),
            (4, check(udp(b"ping", None, false), silent, quick)),
        ]);
        assert!(checks.first(1).0);
        assert_eq!(checks.first(2), (false, "port unreachable, the server says".into()));
        assert_eq!(checks.first(3), (false, "no reply in 300 ms".into()));
        assert_eq!(checks.first(4), (true, "no error in 300 ms".into()));
    }
}

#[test]
fn pings_and_half_open_connections() {
    if !is_root() {
        return;
    }
    for ip in BOTH {
        let server = Server::start(ip, held);
        let (_socket, nobody) = refusing(ip);
        let (_sockets, mute) = silent(ip);
        let plan: Vec<(u64, Check)> = vec![
            (1, check(CheckKind::Ping, SocketAddr::new(ip, 0), pace())),
            (2, check(CheckKind::HalfOpen, server.address, pace())),
            (3, check(CheckKind::HalfOpen, nobody, pace())),
            (4, check(CheckKind::HalfOpen, mute, Pace { timeout: ms(300), ..pace() })),
            (5, check(CheckKind::Ping, SocketAddr::new(ip, 0), pace())),
        ];
        let checks = Checks::start(plan);
        assert_eq!(checks.first(1), (true, "echo reply".into()));
        assert_eq!(checks.first(2), (true, "SYN-ACK".into()));
        assert_eq!(checks.first(3), (false, "connection refused".into()));
        assert_eq!(checks.first(4), (false, "no SYN-ACK in 300 ms".into()));
        assert_eq!(checks.first(5), (true, "echo reply".into()));
        checks.runs(2, 5);
        assert_eq!(checks.status(2).failed, 0);
        assert_eq!(server.seen(), 0, "no connection came about");
    }
}

/// Protocol, port, and the server that gets its packets.
type Said = (u8, u16, Option<IpAddr>);

#[derive(Clone, Default)]
struct Way {
    mark: Option<u32>,
    said: Arc<Mutex<Vec<Said>>>,
    opened: Arc<AtomicUsize>,
}

impl Egress for Way {
    fn open(&mut self) -> Result<u32, String> {
        self.opened.fetch_add(1, Ordering::AcqRel);
        self.mark.ok_or_else(|| "no TUN device".into())
    }
    fn source(&self, _: &Through) -> Option<IpAddr> {
        Some(V4)
    }
    fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        None
    }
    fn bind(&mut self, protocol: u8, port: u16, through: Option<&Through>) {
        self.said.lock().expect("nobody panicked").push((protocol, port, through.map(|through| through.server)));
    }
    fn turn(&mut self) {}
}

fn through(mut check: Check) -> Check {
    let server = IpAddr::from([127, 0, 0, 11]);
    check.target.through = Some(Through { server, method: Method::Dr, tunnel: TunnelSettings::default() });
    check
}

#[test]
fn checks_on_that_very_server_say_what_it_lacks() {
    if !is_root() {
        return;
    }
    let (_socket, nobody) = refusing(V4);
    let (_sockets, mute) = silent(V4);
    let server = Server::start(V4, |_, client| speak_smtp(client));
    let way = Way { mark: Some(0), ..Way::default() };
    let plan = vec![
        (1, through(check(CheckKind::Tcp, nobody, pace()))),
        (2, through(check(CheckKind::Tcp, mute, Pace { timeout: ms(300), ..pace() }))),
        (3, through(check(smtp(), server.address, pace()))),
    ];
    let checks = Checks::with(plan, Some(Box::new(way.clone())));
    let port = nobody.port();
    let words = format!(
        "connection refused: the server has 127.0.0.1, but nothing listens on port {port} there: the daemon may be bound to \
         another address"
    );
    assert_eq!(checks.first(1), (false, words));
    let words = "no connection in 300 ms: 127.0.0.11 does not answer for 127.0.0.1: is the address on its lo, and does it reach us?";
    assert_eq!(checks.first(2), (false, words.into()));
    assert!(checks.first(3).0);
    checks.runs(3, 3);
    assert_eq!(way.opened.load(Ordering::Acquire), 1);
    drop(checks);
    // Each port is given to the server before it is taken back, and none is given away twice.
    let mut given = std::collections::HashSet::new();
    for (protocol, port, to) in way.said.lock().expect("nobody panicked").iter() {
        assert_eq!(*protocol, 6);
        match to {
            Some(server) => assert!(*server == IpAddr::from([127, 0, 0, 11]) && *port != 0 && given.insert(*port)),
            None => assert!(given.remove(port)),
        }
    }
}

#[test]
fn without_a_way_to_that_server_nothing_is_said_of_it() {
    let server = Server::start(V4, held);
    for egress in [None, Some(Box::new(Way::default()) as Box<dyn Egress>)] {
        let named = egress.is_some();
        let checks = Checks::with(vec![(1, through(check(CheckKind::Tcp, server.address, pace())))], egress);
        checks.runs(1, 3);
        let status = checks.status(1);
        assert_eq!((status.up, status.passed, status.failed), (None, 0, 0));
        let Some(Outcome::Unable(words)) = status.last else { panic!("{:?}", status.last) };
        assert_eq!(words.ends_with("no TUN device"), named, "{words}");
        assert!(checks.events(1).is_empty());
    }
    assert_eq!(server.seen(), 0);
}

/// Runs the ignored test of that name in a process of its own, whose descriptors and pauses are no other test's.
fn child(name: &str) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", name, "--ignored", "--nocapture"]).env("EVENKEEL_CHILD", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program again")
}

fn is_child() -> bool {
    std::env::var_os("EVENKEEL_CHILD").is_some()
}

#[test]
fn without_descriptors_it_is_this_machine_that_is_unable() {
    let output = child("child_without_descriptors").wait_with_output().expect("it ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn child_without_descriptors() {
    if !is_child() {
        return;
    }
    let server = Server::start(V4, held);
    let checks = Checks::start(vec![(1, check(CheckKind::Tcp, server.address, pace()))]);
    assert!(checks.first(1).0);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("a lower limit");
    wait_for("a run without a descriptor", || (checks.status(1).unable >= 3).then_some(()));
    let status = checks.status(1);
    assert_eq!((status.up, status.failed), (Some(true), 0));
    let Some(Outcome::Unable(words)) = status.last else { panic!("{:?}", status.last) };
    assert_eq!(words, "cannot open a socket: this process has no descriptors left (LimitNOFILE)");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the limit of before");
    let passed = checks.status(1).passed;
    wait_for("descriptors again", || (checks.status(1).passed > passed + 2).then_some(()));
    assert_eq!(checks.events(1).len(), 1);
}

#[test]
fn a_pause_of_this_machine_is_no_failure_of_a_server() {
    let mut child = child("child_that_pauses");
    let pid = Pid::from_raw(child.id() as i32);
    let mut out = child.stdout.take().expect("a pipe");
    let mut seen = Vec::new();
    while !seen.ends_with(b"running\n") {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).ok(), Some(1), "it ended: {}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    for _ in 0..3 {
        kill(pid, Signal::SIGSTOP).expect("our child");
        std::thread::sleep(ms(1500));
        kill(pid, Signal::SIGCONT).expect("our child");
        std::thread::sleep(ms(300));
    }
    drop(child.stdin.take());
    let mut rest = String::new();
    let _ = out.read_to_string(&mut rest);
    assert!(child.wait().expect("our child").success(), "{rest}");
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn child_that_pauses() {
    if !is_child() {
        return;
    }
    // The answer takes a while, so that pauses find attempts on their way.
    let server = Server::start(V4, |_, client| {
        std::thread::sleep(ms(60));
        speak_smtp(client);
    });
    let pace = Pace { interval: ms(200), timeout: ms(1000), warmup: ms(200), ..pace() };
    let checks = Checks::start((0..20).map(|id| (id, check(smtp(), server.address, pace.clone()))).collect());
    (0..20).for_each(|id| assert!(checks.first(id).0));
    println!("running");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    for id in 0..20 {
        checks.runs(id, 3);
        let status = checks.status(id);
        assert_eq!((status.failed, status.unable), (0, 0), "{:?}", status.last);
    }
}

#[test]
fn several_requests_over_connections_of_their_own() {
    // It closes after each answer: the next request needs another connection.
    let server = Server::start(V4, |_, mut client| {
        let mut seen = Vec::new();
        let mut buffer = [0; 1024];
        while !seen.ends_with(b"\r\n\r\n") {
            match client.read(&mut buffer) {
                Ok(count @ 1..) => seen.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
        let status = if seen.starts_with(b"GET /good ") { "200 OK" } else { "503 Busy" };
        let _ = write!(client, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    });
    let http = |paths: &[&str]| {
        let request = |path: &&str| HttpRequest {
            method: "GET".into(),
            path: (*path).into(),
            host: None,
            headers: Vec::new(),
            status: vec![(200, 299)],
            body: None,
            digest: None,
        };
        CheckKind::Http(HttpCheck { tls: None, version_11: true, requests: paths.iter().map(request).collect() })
    };
    let checks = Checks::start(vec![
        (1, check(http(&["/good", "/good", "/good"]), server.address, pace())),
        (2, check(http(&["/good", "/bad"]), server.address, pace())),
    ]);
    assert!(checks.first(1).0);
    let (up, words) = checks.first(2);
    assert!(!up && words.contains("status 503, wanted 200-299"), "{words}");
    checks.runs(1, 3);
    assert_eq!(checks.status(1).failed, 0);
}
