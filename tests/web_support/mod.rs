//! A web listener with a small control loop behind it that answers by rote, for its tests.
//!
//! Owns that loop's thread. [`client`] asks it.

pub mod client;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel::control::socket::server::{Reply, Server};
use evenkeel::control::socket::{Answer, Code, Command};
use evenkeel::control::status::{Status, WebStatus};
use evenkeel::control::web::{Asked, Web};
use evenkeel::model::{self, Role, WebUser, WebUsers};
use mio::{Events, Poll, Token, Waker};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use client::{Response, receive, send};

/// How long a busy machine may take.
pub const LONG: Duration = Duration::from_secs(60);

/// Bytes of the large answer.
pub const LARGE: usize = 8 << 20;

/// A control loop with a web listener, on a thread of its own.
pub struct Running {
    pub path: PathBuf,
    pub stop: Arc<AtomicBool>,
    /// The loop does nothing while this is set.
    pub stalled: Arc<AtomicBool>,
    pub wanted: Arc<Mutex<Option<Arc<model::Web>>>>,
    pub status: Arc<Mutex<Option<WebStatus>>>,
    /// Requests that came to the loop.
    pub asked: Arc<AtomicU64>,
    pub wake: Arc<dyn Fn() + Send + Sync>,
    pub port: u16,
    pub thread: Option<JoinHandle<()>>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn plain(port: u16) -> model::Web {
    model::Web { listen: vec![Ipv4Addr::LOCALHOST.into()], port, tls: None, users: None }
}

pub fn users() -> WebUsers {
    let user = |name: &str, role| {
        let hash = bcrypt::hash(format!("{name}'s"), 4).unwrap();
        WebUser { name: name.to_owned(), hash, role }
    };
    WebUsers { file: "users".into(), list: vec![user("ann", Role::Admin), user("bob", Role::Reader)] }
}

impl Running {
    pub fn start(name: &str, web: impl FnOnce(u16) -> model::Web) -> Running {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(16_384), hard).unwrap();
        let path = std::env::temp_dir().join(format!("ek-web-{}-{name}.sock", std::process::id()));
        let (stop, stalled) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let port = free_port();
        let wanted = Arc::new(Mutex::new(Some(Arc::new(web(port)))));
        let (status, asked) = (Arc::<Mutex<Option<WebStatus>>>::default(), Arc::<AtomicU64>::default());
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(1)).unwrap();
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || waker.wake().unwrap());
        let server = Server::bind(&path, poll.registry(), Token(10)).unwrap();
        let fake = Fake {
            poll,
            server,
            web: Web::new(Arc::clone(&wake)),
            stop: Arc::clone(&stop),
            stalled: Arc::clone(&stalled),
            wanted: Arc::clone(&wanted),
            status: Arc::clone(&status),
            asked: Arc::clone(&asked),
        };
        let thread = Some(std::thread::spawn(move || fake.run()));
        let running = Running { path, stop, stalled, wanted, status, asked, wake, port, thread };
        running.eventually("it listens", || TcpStream::connect(running.address()).ok());
        running
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn eventually<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}; {:?}", self.status());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn status(&self) -> WebStatus {
        self.status.lock().unwrap().clone().unwrap_or_default()
    }

    pub fn configure(&self, web: Option<model::Web>) {
        *self.wanted.lock().unwrap() = web.map(Arc::new);
        (self.wake)();
    }

    pub fn connect(&self) -> TcpStream {
        self.connect_from(Ipv4Addr::LOCALHOST)
    }

    /// A connection from some address of this machine.
    pub fn connect_from(&self, from: Ipv4Addr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).unwrap();
        socket.connect(&self.address().into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// A request on a connection of its own.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        send(&mut self.connect(), method, path, headers, body)
    }

    /// Whether it is well, where a connection may be lost while listeners change.
    pub fn is_well(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address()) else { return false };
        let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        sent.is_ok() && receive(&mut stream, false).is_ok_and(|response| response.code == 200)
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], "")
    }

    pub fn post(&self, request: &Value, headers: &[(&str, &str)]) -> Response {
        let all = [&[("Content-Type", "application/json")], headers].concat();
        self.request("POST", "/api", &all, &request.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        (self.wake)();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

struct Fake {
    poll: Poll,
    server: Server,
    web: Web,
    stop: Arc<AtomicBool>,
    stalled: Arc<AtomicBool>,
    wanted: Arc<Mutex<Option<Arc<model::Web>>>>,
    status: Arc<Mutex<Option<WebStatus>>>,
    asked: Arc<AtomicU64>,
}

impl Fake {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        let mut later = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            self.poll.poll(&mut events, Some(Duration::from_millis(20))).unwrap();
            while self.stalled.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            for event in events.iter().filter(|event| event.token() != Token(1)) {
                self.server.note(event.token());
            }
            let now = Instant::now();
            self.web.configure(self.wanted.lock().unwrap().as_ref(), now);
            *self.status.lock().unwrap() = self.web.status();
            while let Some(asked) = self.web.next() {
                match asked {
                    Asked::Client(stream, role) => self.server.adopt(stream, role, self.poll.registry(), now),
                    Asked::Picture(to) => {
                        let mut status = Status::default();
                        status.engine.pid = 7;
                        status.drops.insert("no-service".to_owned(), 3);
                        let _ = to.send(Arc::new(status));
                    }
                    Asked::Alive(to) => {
                        let _ = to.send(Ok(()));
                    }
                }
            }
            let asked = &self.asked;
            self.server.turn(self.poll.registry(), now, |request, client| {
                asked.fetch_add(1, Ordering::Relaxed);
                match request.command {
                    Command::Status => Answer::Done(json!({ "filler": "x".repeat(LARGE) })).into(),
                    Command::Events => {
                        later.push((client, request.options.get("since").and_then(Value::as_u64).unwrap_or(0)));
                        Reply::Later
                    }
                    Command::Flows => Answer::refused_as(Code::NoService, "there is no such service").into(),
                    Command::Persistence => Answer::refused_as(Code::NoServer, "there is no such server").into(),
                    Command::Edit => Answer::refused_as(Code::ServiceExists, "it is there").into(),
                    Command::Save => Answer::refused_as(Code::Failed, "the disk is full").into(),
                    _ => Answer::Done(json!({ "options": request.options })).into(),
                }
            });
            for (client, since) in later.drain(..) {
                self.server.complete(client, &Answer::Done(json!({ "events": [], "next": since + 1 })), now);
            }
        }
    }
}
