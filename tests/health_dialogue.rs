//! The dialogues of health checks from outside: with nginx and unbound over real sockets, and with servers that never end,
//! whose bytes must not stay.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel::health::dialogue::{Dialogue, Progress, dialogue, exchange};
use evenkeel::health::{Outcome, Reason};
use evenkeel::model::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// The allocation counts are the whole process's: the tests here take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Only a hang comes near it.
const PATIENCE: Duration = Duration::from_secs(60);

fn check(kind: CheckKind, port: u16) -> Check {
    let target = CheckTarget { address: IpAddr::V4(HOST), port, source: None, through: None };
    Check { kind, target, pace: Pace::default() }
}

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

fn http(requests: Vec<HttpRequest>) -> HttpCheck {
    HttpCheck { tls: None, version_11: true, requests }
}

/// Carries a dialogue over real sockets to its outcome; says over how many connections.
fn carry(check: &Check) -> (Outcome, usize) {
    let mut dialogue = dialogue(check, 0x5eed).expect("a dialogue");
    for connections in 1..10 {
        let mut stream = TcpStream::connect((check.target.address, check.target.port)).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut out = Vec::new();
        let mut progress = dialogue.begin(&mut out);
        while progress == Progress::Wait {
            stream.write_all(&out).expect("sent");
            out.clear();
            let mut space = [0; 4096];
            progress = match stream.read(&mut space).expect("read") {
                0 => dialogue.ended(),
                count => dialogue.received(&space[..count], &mut out),
            };
        }
        if let Progress::Done(outcome) = progress {
            return (outcome, connections);
        }
    }
    panic!("it connects again and again");
}

fn carry_datagrams(check: &Check) -> Outcome {
    let mut exchange = exchange(check, 0x5eed).expect("an exchange");
    let socket = UdpSocket::bind((HOST, 0)).expect("bound");
    socket.connect((check.target.address, check.target.port)).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    socket.send(&exchange.question()).expect("sent");
    loop {
        let mut space = [0; 4096];
        let count = socket.recv(&mut space).expect("a reply");
        if let Progress::Done(outcome) = exchange.received(&space[..count]) {
            return outcome;
        }
    }
}

#[track_caller]
fn assert_bad(outcome: &Outcome, wanted: Reason, words: &str) {
    match outcome {
        Outcome::Bad(failure) => assert_eq!((failure.reason, failure.words.as_str()), (wanted, words)),
        other => panic!("{other:?}, wanted `{words}`"),
    }
}

/// A daemon in a directory of its own; both end with it.
struct Daemon {
    child: Child,
    port: u16,
    home: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// Where a program is; without it the test is skipped, but not under CI.
fn program(name: &str) -> Option<PathBuf> {
    let places = std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let found = places.chain(["/usr/sbin".into()]).map(|place| place.join(name)).find(|file| file.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is needed, and CI skips nothing");
        eprintln!("skipped: there is no {name} here");
    }
    found
}

/// Starts a daemon on a port that the kernel chose, and waits until it listens. Somebody else may take the port in between:
/// then once more.
fn start(name: &str, prepare: impl Fn(&Path, u16, &mut Command) -> PathBuf) -> Option<Daemon> {
    let file = program(name)?;
    for attempt in 0..10 {
        let port = TcpListener::bind((HOST, 0)).and_then(|socket| socket.local_addr()).expect("port").port();
        let home = std::env::temp_dir().join(format!("evenkeel-dialogue-{}-{name}-{attempt}", std::process::id()));
        fs::create_dir_all(&home).expect("directory");
        let mut command = Command::new(&file);
        let configuration = prepare(&home, port, &mut command);
        command.arg("-c").arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = Daemon { child: command.spawn().expect("started"), port, home };
        for _ in 0..600 {
            if daemon.child.try_wait().expect("state").is_some() {
                break;
            }
            match TcpStream::connect_timeout(&SocketAddr::from((HOST, port)), PATIENCE) {
                Ok(_) => return Some(daemon),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    panic!("{name} does not listen");
}

fn nginx() -> Option<Daemon> {
    start("nginx", |home, port, command| {
        fs::write(home.join("ready"), "ready\n").expect("content");
        fs::write(home.join("chunked"), "it is ready").expect("content");
        fs::write(home.join("large"), vec![b'x'; 1 << 20]).expect("content");
        let file = home.join("nginx.conf");
        let here = home.display();
        let configuration = format!(
            "daemon off; master_process off; worker_processes 1;
pid {here}/nginx.pid; error_log {here}/error.log warn;
events {{ worker_connections 64; }}
http {{
    log_format requests \"$connection_requests $request $status\";
    access_log {here}/access.log requests;
    default_type text/plain;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
    server {{
        listen {HOST}:{port};
        root {here};
        location = /down {{ return 503; }}
        location = /host {{ return 200 \"$http_host\"; }}
        location = /chunked {{ ssi on; ssi_types *; }}
        location = /last {{ keepalive_timeout 0; return 200 ok; }}
    }}
}}
"
        );
        fs::write(&file, configuration).expect("configuration");
        command.arg("-e").arg(home.join("error.log")).arg("-p").arg(home);
        file
    })
}

#[test]
fn nginx_is_judged_by_status_body_and_digest() {
    let _turn = turn();
    let Some(nginx) = nginx() else { return };
    let ask = |requests| carry(&check(CheckKind::Http(http(requests)), nginx.port));
    // md5sum of "ready\n".
    let digest = 0x2885_4baf_a79a_455c_3ecd_b40e_f8b1_149a_u128.to_be_bytes();
    let text = |path, text: &str| HttpRequest { body: Some(BodyMatch::Text(text.into())), ..get(path) };
    let with_digest = |path, digest| HttpRequest { digest: Some(digest), ..get(path) };
    let head = HttpRequest { method: "HEAD".into(), ..get("/large") };

    assert_eq!(ask(vec![text("/ready", "ready")]), (Outcome::good("status 200"), 1));
    assert_eq!(ask(vec![with_digest("/ready", digest)]), (Outcome::good("status 200"), 1));
    assert_eq!(ask(vec![text("/host", &format!("{HOST}:{}", nginx.port))]), (Outcome::good("status 200"), 1));
    assert_eq!(ask(vec![head.clone()]), (Outcome::good("status 200"), 1));
    assert_bad(&ask(vec![get("/down")]).0, Reason::Answer, "status 503, wanted 200-299");
    assert_bad(&ask(vec![text("/large", "y")]).0, Reason::Content, "the first 256 KiB of the body have no `y`");
    let words = "digest 28854bafa79a455c3ecdb40ef8b1149a, wanted 00000000000000000000000000000000";
    assert_bad(&ask(vec![with_digest("/ready", [0; 16])]).0, Reason::Content, words);

    // All over one connection: nginx counts the requests of each.
    let all = vec![with_digest("/ready", digest), text("/chunked", "it is ready"), head, text("/ready", "ready")];
    assert_eq!(ask(all), (Outcome::good("status 200 to 4 requests"), 1));
    let log = || fs::read_to_string(nginx.home.join("access.log")).expect("log");
    let lines =
        ["1 GET /ready", "2 GET /chunked", "3 HEAD /large", "4 GET /ready"].map(|line| format!("{line} HTTP/1.1 200"));
    // nginx writes its line after the answer.
    assert!((0..600).any(|_| log().ends_with(&(lines.join("\n") + "\n")) || pause()), "{}", log());

    // On a new one where the server closes, and where the body is too large to wait for its end.
    assert_eq!(ask(vec![get("/last"), get("/ready")]), (Outcome::good("status 200 to 2 requests"), 2));
    assert_eq!(ask(vec![get("/large"), get("/ready")]), (Outcome::good("status 200 to 2 requests"), 2));
    let old = HttpCheck { version_11: false, ..http(vec![get("/ready"), get("/down")]) };
    let (outcome, connections) = carry(&check(CheckKind::Http(old), nginx.port));
    assert_bad(&outcome, Reason::Answer, "GET /down: status 503, wanted 200-299");
    assert_eq!(connections, 2);
}

fn pause() -> bool {
    std::thread::sleep(Duration::from_millis(50));
    false
}

#[test]
fn a_protocol_is_not_taken_for_another() {
    let _turn = turn();
    let Some(nginx) = nginx() else { return };
    let smtp = check(CheckKind::Smtp(SmtpCheck { helo: "lb".into() }), nginx.port);
    // nginx waits for a request, the dialogue for a greeting: only who carries it ends that.
    let mut greeting = dialogue(&smtp, 1).expect("a dialogue");
    assert_eq!(greeting.begin(&mut Vec::new()), Progress::Wait);
    assert_eq!(greeting.awaited(), "greeting");
    let grpc = GrpcCheck { tls: None, service: String::new(), authority: None };
    let (outcome, _) = carry(&check(CheckKind::Grpc(grpc), nginx.port));
    let Outcome::Bad(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.reason, Reason::Malformed, "{failure}");
    assert!(failure.words.starts_with("not HTTP/2: "), "{failure}");
}

#[test]
fn unbound_is_judged_by_code_and_records() {
    let _turn = turn();
    let unbound = start("unbound", |home, port, _| {
        let file = home.join("unbound.conf");
        let configuration = format!(
            "server:\n interface: {HOST}@{port}\n do-daemonize: no\n chroot: \"\"\n username: \"\"\n directory: \"{here}\"\n \
             pidfile: \"{here}/pid\"\n use-syslog: no\n logfile: \"{here}/log\"\n module-config: \"iterator\"\n \
             access-control: 127.0.0.0/8 allow\n local-zone: \"example.org.\" static\n \
             local-data: \"www.example.org. 60 IN A 192.0.2.1\"\n local-zone: \"refused.test.\" refuse\n\
             remote-control:\n control-enable: no\n",
            here = home.display(),
        );
        fs::write(&file, configuration).expect("configuration");
        file
    });
    let Some(unbound) = unbound else { return };
    for tcp in [false, true] {
        let ask = |name: &str, kind: &str, codes: &[&str], answer| {
            let codes = codes.iter().map(|code| (*code).to_owned()).collect();
            let dns = DnsCheck { tcp, name: name.into(), kind: kind.into(), codes, answer };
            let check = check(CheckKind::Dns(dns), unbound.port);
            if tcp { carry(&check).0 } else { carry_datagrams(&check) }
        };
        assert_eq!(ask("www.example.org", "A", &["NOERROR"], true), Outcome::good("code NOERROR, 1 record"));
        let no_record = "no AAAA record in the answer, code NOERROR";
        assert_bad(&ask("www.example.org", "AAAA", &["NOERROR"], true), Reason::Content, no_record);
        let missing = "code NXDOMAIN, wanted NOERROR";
        assert_bad(&ask("missing.example.org", "A", &["NOERROR"], false), Reason::Answer, missing);
        assert_eq!(ask("missing.example.org", "A", &["NXDOMAIN"], false), Outcome::good("code NXDOMAIN, 0 records"));
        let refused = "code REFUSED, wanted NOERROR";
        assert_bad(&ask("a.refused.test", "SOA", &["NOERROR"], false), Reason::Answer, refused);
    }
}

/// Most bytes that one conversation may hold at a time: the part of a body that is searched (a `Vec` doubles), and little
/// else.
const MOST_HELD: isize = 640 << 10;
/// What each hostile server would send.
const FLOOD: usize = 16 << 20;

/// Floods a dialogue; returns what it came to and the most bytes that were held meanwhile.
fn flood(dialogue: &mut dyn Dialogue, start: &[u8], unit: &[u8], piece: usize) -> (Option<Outcome>, isize) {
    let mut bytes = start.to_vec();
    while bytes.len() < piece + start.len() {
        bytes.extend_from_slice(unit);
    }
    let (first, again) = (bytes.clone(), unit.repeat(piece / unit.len() + 1));
    let mut out = Vec::with_capacity(FLOOD / 8);
    let region = Region::new(ALLOCATOR);
    let mut most = 0;
    let mut sent = 0;
    let mut progress = dialogue.begin(&mut out);
    while progress == Progress::Wait && sent < FLOOD {
        let part = if sent == 0 { &first } else { &again };
        progress = dialogue.received(part, &mut out);
        sent += part.len();
        let change = region.change();
        most = most.max(change.bytes_allocated as isize - change.bytes_deallocated as isize);
    }
    match progress {
        Progress::Done(outcome) => (Some(outcome), most),
        _ => (None, most),
    }
}

#[test]
fn endless_servers_fill_no_memory() {
    let _turn = turn();
    let wanting = HttpRequest { body: Some(BodyMatch::NotRegex("y[^x]*z".into())), ..get("/") };
    let web = check(CheckKind::Http(http(vec![wanting])), 80);
    let digest = check(CheckKind::Http(http(vec![HttpRequest { digest: Some([0; 16]), ..get("/") }])), 80);
    let mail = check(CheckKind::Smtp(SmtpCheck { helo: "lb".into() }), 25);
    let name = DnsCheck { tcp: true, name: ".".into(), kind: "SOA".into(), codes: Vec::new(), answer: false };
    let name = check(CheckKind::Dns(name), 53);
    let call = check(CheckKind::Grpc(GrpcCheck { tls: None, service: String::new(), authority: None }), 50051);
    let ok = b"HTTP/1.1 200 OK\r\n".as_slice();
    let open = b"HTTP/1.1 200 OK\r\n\r\n".as_slice();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    let trailers = [chunked, b"0\r\n"].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let data = [&[0, 0x10, 0, 0, 0, 0, 0, 0, 1][..], &[0; 4096]].concat();
    let rows: [(&Check, &[u8], &[u8]); 14] = [
        (&web, b"", b"\r\n"),
        (&web, ok, b"a"),
        (&web, ok, b"A: b\r\n"),
        (&web, b"", b"HTTP/1.1 103 x\r\n\r\n"),
        (&web, open, b"x"),
        (&web, chunked, b"1\r\nx\r\n"),
        (&web, chunked, b"1;extension"),
        (&web, &trailers, b"A: b\r\n"),
        (&digest, open, b"x"),
        (&mail, b"", b"220-x\r\n"),
        (&mail, b"", b"2"),
        (&name, b"", b"\xff"),
        (&call, &settings, &ping),
        (&call, &settings, &data),
    ];
    for (check, start, unit) in rows {
        for piece in [7, 100_000] {
            let mut dialogue = dialogue(check, 1).expect("a dialogue");
            let (outcome, most) = flood(&mut *dialogue, start, unit, piece);
            let what = format!("{check}, {} without end", String::from_utf8_lossy(&unit[..unit.len().min(20)]));
            assert!(outcome.is_some(), "{what}: no outcome after {FLOOD} bytes");
            assert!(most <= MOST_HELD, "{what}: {most} bytes are held");
            println!("{most:7} bytes at most: {what:?}");
        }
    }
}
