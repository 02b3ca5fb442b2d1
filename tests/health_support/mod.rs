//! Servers that behave as tests need them, and a running checker.
//!
//! Owns ports of 127.0.0.1 and ::1 that the kernel chose. Never sends anything elsewhere.
#![allow(dead_code, reason = "every test file uses a part of this")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel::health::driver::{Checker, Egress, Event, Plan, Wiring};
use evenkeel::health::record::RecordStatus;
use evenkeel::health::{CheckId, Outcome, Reason};
use evenkeel::model::{Check, CheckKind, CheckTarget, Pace, SmtpCheck};
use socket2::{Domain, Socket, Type};

/// How long a test waits for what must come: much longer than it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// One address of each family.
pub const BOTH: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
pub const V4: IpAddr = BOTH[0];

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Fast enough for a test, with as much time for an answer as a test has.
pub fn pace() -> Pace {
    let interval = ms(50);
    let (jitter, warmup) = (ms(5), Duration::ZERO);
    Pace { interval, timeout: PATIENCE, rise: 1, fall: 1, jitter, warmup, ..Pace::default() }
}

pub fn check(kind: CheckKind, to: SocketAddr, pace: Pace) -> Check {
    let target = CheckTarget { address: to.ip(), port: to.port(), source: None, through: None };
    Check { kind, target, pace }
}

pub fn smtp() -> CheckKind {
    CheckKind::Smtp(SmtpCheck { helo: "evenkeel.test".into() })
}

/// What an SMTP server says to a check that it likes.
pub fn speak_smtp(mut client: TcpStream) {
    let mut buffer = [0; 512];
    for words in ["220 hello\r\n", "250 hello\r\n", "221 bye\r\n"] {
        if client.write_all(words.as_bytes()).is_err() || !matches!(client.read(&mut buffer), Ok(1..)) {
            return;
        }
    }
}

/// A server: each connection is handled by a thread of its own.
pub struct Server {
    pub address: SocketAddr,
    /// Connections so far.
    pub seen: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(ip: IpAddr, handle: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Server {
        Server::at(SocketAddr::new(ip, 0), handle)
    }

    /// On that port; 0 lets the kernel choose.
    pub fn at(address: SocketAddr, handle: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind(address).expect("a port of ours");
        let address = listener.local_addr().expect("it is bound");
        let (seen, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end, handle) = (Arc::clone(&seen), Arc::clone(&stop), Arc::new(handle));
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                let _ = client.set_read_timeout(Some(PATIENCE));
                let _ = client.set_write_timeout(Some(PATIENCE));
                let number = count.fetch_add(1, Ordering::AcqRel);
                let handle = Arc::clone(&handle);
                std::thread::spawn(move || handle(number, client));
            }
        });
        Server { address, seen, stop, thread: Some(thread) }
    }

    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A port that refuses: it is bound, and nobody listens.
pub fn refusing(ip: IpAddr) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(ip, 0)), Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(ip, 0).into()).expect("a port");
    let address = socket.local_addr().expect("it is bound").as_socket().expect("an address");
    (socket, address)
}

/// A port that answers no SYN: its queue is full. The sockets keep it so.
pub fn silent(ip: IpAddr) -> (Vec<Socket>, SocketAddr) {
    let (listener, address) = refusing(ip);
    listener.listen(0).expect("it listens");
    let mut held = vec![listener];
    for _ in 0..8 {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a flag");
        let _ = socket.connect(&address.into());
        held.push(socket);
    }
    (held, address)
}

/// A running checker, and the events that it has sent.
pub struct Checks {
    pub checker: Checker,
    pub woken: Arc<AtomicUsize>,
    events: std::sync::Mutex<Vec<Event>>,
}

impl Checks {
    pub fn start(plan: Vec<(u64, Check)>) -> Checks {
        Checks::with(plan, None)
    }

    pub fn with(plan: Vec<(u64, Check)>, egress: Option<Box<dyn Egress>>) -> Checks {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = Arc::new(move || {
            count.fetch_add(1, Ordering::AcqRel);
        });
        let checker = Checker::start(Wiring { wake, egress }).expect("threads");
        let checks = Checks { checker, woken, events: std::sync::Mutex::default() };
        checks.configure(plan);
        checks
    }

    pub fn configure(&self, plan: Vec<(u64, Check)>) {
        let checks = plan.into_iter().map(|(id, check)| (CheckId(id), Arc::new(check))).collect();
        self.checker.configure(Plan { checks });
    }

    /// All events of that check so far.
    pub fn events(&self, id: u64) -> Vec<Event> {
        let mut events = self.events.lock().expect("nobody panicked");
        events.extend(self.checker.events());
        events.iter().filter(|event| event.id == CheckId(id)).cloned().collect()
    }

    pub fn status(&self, id: u64) -> RecordStatus {
        self.checker.record(CheckId(id)).expect("it is in the plan").read()
    }

    /// Waits until that many events of a check have come.
    pub fn wait_for_events(&self, id: u64, count: usize) -> Vec<Event> {
        wait_for(&format!("{count} events of check {id}"), || {
            let events = self.events(id);
            (events.len() >= count).then_some(events)
        })
    }

    /// Waits for the first event of a check: whether it is up, and its words.
    pub fn first(&self, id: u64) -> (bool, String) {
        let event = self.wait_for_events(id, 1).remove(0);
        (event.up, event.words)
    }

    /// Waits until a check has failed, and says why.
    pub fn failure(&self, id: u64) -> (Reason, String) {
        let last = wait_for(&format!("a failure of check {id}"), || {
            let status = self.status(id);
            match status.last {
                Some(Outcome::Bad(failure)) => Some(failure),
                _ => None,
            }
        });
        (last.reason, last.words)
    }

    /// Waits until a check has been done that often more.
    pub fn runs(&self, id: u64, more: u64) {
        let all = |status: RecordStatus| status.passed + status.failed + status.unable;
        let before = all(self.status(id));
        wait_for(&format!("{more} runs of check {id}"), || (all(self.status(id)) >= before + more).then_some(()));
    }
}

pub fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(ms(5));
    }
}

pub fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI skips nothing");
    eprintln!("SKIPPED: this needs root");
    false
}
