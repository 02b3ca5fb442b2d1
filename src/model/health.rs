//! The nouns of health checks: what is asked of a server, how often, and what the answers mean.
//!
//! Owns plain values and their defaults. Never decides anything.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Method, Server, TunnelSettings};

/// One check of one address, whole: services that have equal ones share it, and it runs once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is asked, and which answer is wanted.
    pub kind: CheckKind,
    /// Who is asked.
    pub target: CheckTarget,
    /// How often, and how many answers count.
    pub pace: Pace,
}

/// What a check asks, and of whom, in a few words: `tcp 10.0.0.11:80`.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, target) = (self.kind.name(), &self.target);
        match &self.kind {
            CheckKind::Script(script) => write!(f, "{name} {}", script.command.first().map_or("", String::as_str)),
            CheckKind::File(file) => write!(f, "{name} {}", file.path.display()),
            CheckKind::Ping => write!(f, "{name} {}", target.address),
            _ => write!(f, "{name} {}", SocketAddr::new(target.address, target.port)),
        }?;
        match &target.through {
            Some(through) => write!(f, " on {}", through.server),
            None => Ok(()),
        }
    }
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckTarget {
    /// The address: the server's own, another one that the file names, or the service's.
    pub address: IpAddr,
    /// The port, host order; 0 for kinds without one.
    pub port: u16,
    /// The appliance's address from which it is asked; `None` takes the route's.
    pub source: Option<IpAddr>,
    /// `path = "service"`: the packets go to `address` on that very server.
    pub through: Option<Through>,
}

/// The server on which a service address is asked, and how packets reach it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Through {
    /// The server's own address.
    pub server: IpAddr,
    /// Direct routing or a tunnel.
    pub method: Method,
    /// How packets are wrapped, for a tunnel.
    pub tunnel: TunnelSettings,
}

/// When a check runs, and how many results in a row change its state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pace {
    /// From the start of one run to that of the next.
    pub interval: Duration,
    /// How long one attempt may take, from its start to the last byte that is wanted.
    pub timeout: Duration,
    /// Successes in a row after which a failing check is good again.
    pub rise: u16,
    /// Failed runs in a row after which a good check is failing.
    pub fall: u16,
    /// Further attempts within a run before it counts as failed.
    pub retries: u16,
    /// From a failed attempt to the next one.
    pub retry_delay: Duration,
    /// Each interval is shorter by a random part of this, so that checks do not march in step.
    pub jitter: Duration,
    /// The first run is at a random moment within this time.
    pub warmup: Duration,
    /// What the check is taken for until its first result; that result alone decides.
    pub first: FirstState,
}

impl Default for Pace {
    fn default() -> Self {
        let interval = Duration::from_secs(2);
        Pace {
            interval,
            timeout: interval,
            rise: 2,
            fall: 3,
            retries: 0,
            retry_delay: Duration::from_secs(1),
            jitter: interval / 10,
            warmup: interval,
            first: FirstState::Up,
        }
    }
}

/// What a check is taken for before its first result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstState {
    /// Good until it fails (keepalived without `alpha`).
    Up,
    /// Failing until proven (keepalived's `alpha`).
    Down,
}

/// What is asked, and which answer is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// A TCP connection comes about; it is reset then, so that neither side keeps it.
    Tcp,
    /// A SYN is answered by a SYN-ACK; no connection comes about.
    HalfOpen,
    /// HTTP, over TLS or not.
    Http(HttpCheck),
    /// A DNS query.
    Dns(DnsCheck),
    /// A datagram.
    Udp(UdpCheck),
    /// An ICMP echo.
    Ping,
    /// The greeting and `HELO` of an SMTP server.
    Smtp(SmtpCheck),
    /// A program.
    Script(ScriptCheck),
    /// A number in a file.
    File(FileCheck),
    /// `grpc.health.v1.Health/Check`.
    Grpc(GrpcCheck),
}

impl CheckKind {
    /// Name as in configs and JSON: `type` of `[[service.check]]`.
    pub const fn name(&self) -> &'static str {
        match self {
            CheckKind::Tcp => "tcp",
            CheckKind::HalfOpen => "tcp-half-open",
            CheckKind::Http(HttpCheck { tls: None, .. }) => "http",
            CheckKind::Http(HttpCheck { tls: Some(_), .. }) => "https",
            CheckKind::Dns(_) => "dns",
            CheckKind::Udp(_) => "udp",
            CheckKind::Ping => "ping",
            CheckKind::Smtp(_) => "smtp",
            CheckKind::Script(_) => "script",
            CheckKind::File(_) => "file",
            CheckKind::Grpc(_) => "grpc",
        }
    }
}

/// TLS of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsCheck {
    /// Name for SNI, and the one that the certificate must have; `None` sends none, and the address must be in it.
    pub name: Option<String>,
    /// Whether the certificate must be valid.
    pub verify: bool,
    /// PEM file of the authorities that are trusted; `None` takes the system's.
    pub authorities: Option<PathBuf>,
    /// Days before the certificate ends from which on the check warns.
    pub expiry_days: u32,
}

/// HTTP of a check: one request after the other, each must be answered as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// TLS, for `https`.
    pub tls: Option<TlsCheck>,
    /// Whether requests say HTTP/1.1 (and have a `Host`); else HTTP/1.0.
    pub version_11: bool,
    /// One or more.
    pub requests: Vec<HttpRequest>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRequest {
    /// `GET`, `HEAD`, ... upper case.
    pub method: String,
    /// Path with its query, from `/`.
    pub path: String,
    /// `Host`; `None` takes the address.
    pub host: Option<String>,
    /// Further header lines, name and value.
    pub headers: Vec<(String, String)>,
    /// Status codes that are good, first and last.
    pub status: Vec<(u16, u16)>,
    /// What the body must have.
    pub body: Option<BodyMatch>,
    /// MD5 of the body, as keepalived's `digest` (`genhash`).
    pub digest: Option<[u8; 16]>,
}

/// What a body must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BodyMatch {
    /// This text.
    Text(String),
    /// A match of this regular expression; it was tried when the file was read.
    Regex(String),
    /// No match of it.
    NotRegex(String),
}

/// DNS of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsCheck {
    /// Over TCP instead of UDP.
    pub tcp: bool,
    /// Name that is asked for, absolute; `.` is the root.
    pub name: String,
    /// Type that is asked for: `SOA`, `A`, ...
    pub kind: String,
    /// Response codes that are good, by their names in upper case (`NOERROR`, `NXDOMAIN`, ...); empty: every answer is.
    pub codes: Vec<String>,
    /// Whether the answer section must have a record.
    pub answer: bool,
}

/// UDP of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UdpCheck {
    /// What is sent.
    pub payload: Vec<u8>,
    /// With what the reply must begin.
    pub reply: Option<Vec<u8>>,
    /// Whether a reply must come; without, only an ICMP error is a failure.
    pub require_reply: bool,
}

/// SMTP of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SmtpCheck {
    /// Name that is said in `HELO`.
    pub helo: String,
}

/// gRPC of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrpcCheck {
    /// TLS; `None`: HTTP/2 with prior knowledge.
    pub tls: Option<TlsCheck>,
    /// Service that is asked for; empty: the whole server.
    pub service: String,
    /// `:authority`; `None` takes the address.
    pub authority: Option<String>,
}

/// A program that checks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScriptCheck {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment besides `PATH` and what the check itself tells (docs/config.md).
    pub environment: Vec<(String, String)>,
    /// As whom it runs; `None`: as this program.
    pub user: Option<String>,
    /// Whether exit codes from 2 on set the weight to the code less 2 (keepalived's `misc_dynamic`).
    pub dynamic: bool,
}

/// A file that holds a number (keepalived's `FILE_CHECK`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileCheck {
    /// The file.
    pub path: PathBuf,
    /// By what the number is multiplied before it is added to the weight; 0: every number but 0 is a failure.
    pub weight: i16,
}

/// What a check says about a server's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weigh {
    /// It is this instead of the configured one.
    Set(u16),
    /// This is added to the configured one.
    Add(i32),
}

/// What becomes of a server whose checks fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It is no server of the service any more: its flows meet [`super::Fates::down`], and persistent clients leave it.
    #[default]
    Remove,
    /// Its weight becomes 0: flows and persistent clients stay (`inhibit_on_failure`).
    Inhibit,
}

/// What a client of a service without any usable server gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoServer {
    /// A TCP reset, or ICMP port unreachable: it knows at once (IPVS answers with ICMP).
    #[default]
    Refuse,
    /// Nothing.
    Drop,
}

/// When a service is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Sum of the usable servers' weights.
    pub least: u32,
    /// It is lost below `least` less this, and found at `least` plus this.
    pub hysteresis: u32,
    /// Run when it is found.
    pub up: Option<Vec<String>>,
    /// Run when it is lost.
    pub down: Option<Vec<String>>,
}

impl Default for Quorum {
    fn default() -> Self {
        Quorum { least: 1, hysteresis: 0, up: None, down: None }
    }
}

/// A server that changes too often stays out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// Failures (changes from usable to not) ...
    pub failures: u16,
    /// ... within this time ...
    pub window: Duration,
    /// ... and it is held out for this long after the last one.
    pub hold: Duration,
}

/// NAT: servers are judged by what their clients' packets meet, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Least share of a server's new flows, in percent, that was reset before it was established or got no answer to its SYN.
    pub failures_percent: u8,
    /// Least number of new flows in a window for a judgement.
    pub least: u32,
    /// How long is counted.
    pub window: Duration,
    /// How long an outlier is out; twice as long the next time, up to ten times.
    pub eject: Duration,
    /// Most of a service's servers that are out by this at a time, in percent; one always stays.
    pub most_percent: u8,
}

/// What checks and people mean to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When it is up.
    pub quorum: Quorum,
    /// Serves instead of all others while the quorum is lost.
    pub sorry: Option<Box<Server>>,
    /// What clients get when nobody serves.
    pub no_server: NoServer,
    /// How long a server that comes back takes to its full weight.
    pub slow_start: Option<Duration>,
    /// Flap damping.
    pub damping: Option<Damping>,
    /// Passive checks.
    pub passive: Option<Passive>,
    /// As whom this service's scripts run; `None`: as this program.
    pub script_user: Option<String>,
}

/// What checks and people mean to one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHealth {
    /// All must be good; none: it is always.
    pub checks: Vec<Check>,
    /// Whether nobody wrote a check, and this is the usual one.
    pub default_check: bool,
    /// What becomes of it when one fails.
    pub on_failure: OnFailure,
    /// It drains while this file exists.
    pub drain_file: Option<PathBuf>,
    /// Run when it becomes usable.
    pub notify_up: Option<Vec<String>>,
    /// Run when it stops being usable.
    pub notify_down: Option<Vec<String>>,
}

impl ServerHealth {
    /// No checks: the server is usable as long as it can be reached.
    pub const NONE: ServerHealth = ServerHealth {
        checks: Vec::new(),
        default_check: false,
        on_failure: OnFailure::Remove,
        drain_file: None,
        notify_up: None,
        notify_down: None,
    };
}
