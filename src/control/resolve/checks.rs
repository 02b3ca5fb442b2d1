//! Health checks of the file: which keys each type takes, what fits together, and what it comes to for one server.
//!
//! Owns the rules of `[[service.check]]`. Pure.

mod kinds;

use std::net::IpAddr;
use std::time::Duration;

use super::services::unfit;
use crate::control::config::problem::Collector;
use crate::control::config::raw::{At, Entry};
use crate::model::{
    Check, CheckKind, CheckTarget, FirstState, Method, Pace, Server, ServiceKey, Through, TunnelSettings,
};

/// The longest timeout of checks that give none.
const MOST_USUAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A check as it is written: for which servers it is, is not said yet.
pub(super) struct Wanted<'e> {
    entry: &'e Entry,
    kind: CheckKind,
    pace: Pace,
    address: Option<IpAddr>,
    port: Option<u16>,
    source: Option<At<IpAddr>>,
    /// Where `path = "service"` stands.
    through: Option<usize>,
}

/// The checks of a service or of a server. `None` where nothing is written, or something was refused; empty for `none`.
pub(super) fn listed<'e>(owner: &'e Entry, user: Option<&str>, out: &mut Collector<'_>) -> Option<Vec<Wanted<'e>>> {
    let entries = owner.tables("check");
    let is_none = |entry: &&Entry| entry.word("type").is_some_and(|word| word.value == "none");
    if let Some(none) = entries.iter().find(is_none) {
        kinds::strays(none, "none", out);
        if entries.len() > 1 {
            out.error(none.at, none.key("type"), "there are other checks besides `none`")
                .expected("`none` alone, or checks")
                .help("remove one of them");
        }
        return Some(Vec::new());
    }
    let found: Vec<Option<Wanted<'_>>> = entries.iter().map(|entry| wanted(entry, user, out)).collect();
    let all: Option<Vec<Wanted<'_>>> = found.into_iter().collect();
    all.filter(|all| !all.is_empty())
}

fn wanted<'e>(entry: &'e Entry, user: Option<&str>, out: &mut Collector<'_>) -> Option<Wanted<'e>> {
    let kind = entry.word("type")?.value;
    kinds::strays(entry, kind, out);
    explain_path(entry, kind, out);
    let (pace, kind) = (pace(entry, out), kinds::kind(entry, kind, user, out));
    let through = entry.word("path").filter(|path| path.value == "service").map(|path| path.at);
    let (address, source) = (entry.address("address"), entry.address("source"));
    for (key, given) in [("address", address), ("source", source)] {
        let Some(given) = given else { continue };
        if let Some(what) = unfit(given.value).filter(|_| !given.value.is_loopback()) {
            out.error(given.at, entry.key(key), format!("{} is {what}", given.value))
                .expected("a unicast address")
                .help("remove the key to have the usual one");
        }
    }
    if let (Some(address), Some(_)) = (address, through) {
        out.error(address.at, entry.key("address"), "with `path = \"service\"` the address of the service is asked")
            .expected("one of these keys")
            .help("remove one of them");
    }
    let port = entry.integer("port").and_then(|port| u16::try_from(port.value).ok());
    Some(Wanted {
        entry,
        kind: kind?,
        pace: pace?,
        address: address.map(|address| address.value),
        port,
        source,
        through,
    })
}

/// `path` of another meaning.
fn explain_path(entry: &Entry, kind: &str, out: &mut Collector<'_>) {
    let instead = match kind {
        "http" | "https" => "the path of a request is `url`",
        "file" => "the path of the file is `file`",
        "script" => "the program is `command`",
        _ => return,
    };
    let key = entry.key("path");
    if let Some(problem) = out.problems.iter_mut().find(|problem| entry.was_refused("path") && problem.key == key) {
        problem.help(instead);
    }
}

fn pace(entry: &Entry, out: &mut Collector<'_>) -> Option<Pace> {
    let interval = entry.seconds("interval")?.value;
    let timeout = entry.seconds("timeout");
    let retries = entry.integer("retries")?;
    let delay = entry.seconds("retry_delay")?.value;
    let jitter = entry.seconds("jitter");
    if ["timeout", "jitter", "warmup"].iter().any(|key| entry.was_refused(key)) {
        return None;
    }
    let tenth = Duration::from_millis(u64::try_from(interval.as_millis() / 10).ok()?);
    let pace = Pace {
        interval,
        timeout: timeout.map_or(interval.min(MOST_USUAL_TIMEOUT), |timeout| timeout.value),
        rise: u16::try_from(entry.integer("rise")?.value).ok()?,
        fall: u16::try_from(entry.integer("fall")?.value).ok()?,
        retries: u16::try_from(retries.value).ok()?,
        retry_delay: delay,
        jitter: jitter.map_or(tenth, |jitter| jitter.value),
        warmup: entry.seconds("warmup").map_or(interval, |warmup| warmup.value),
        first: if entry.word("first_state")?.value == "down" { FirstState::Down } else { FirstState::Up },
    };
    if let Some(jitter) = jitter.filter(|jitter| jitter.value > interval / 2) {
        out.error(jitter.at, entry.key("jitter"), "the jitter is more than half of the interval")
            .expected(format!("at most {:?}", interval / 2))
            .help("lower it: the check would run much more often than `interval` says");
    }
    let run = pace.timeout + (pace.timeout + delay) * u32::from(pace.retries);
    if let Some(timeout) = timeout.filter(|timeout| timeout.value > interval) {
        let text = format!("an attempt may take {:?}, and the next run is due after {interval:?}", timeout.value);
        out.warning(timeout.at, entry.key("timeout"), text)
            .help("a run that lasts longer delays the next one; lower it, or raise `interval`");
    } else if pace.retries > 0 && run > interval {
        let text = format!("with its retries a run may take {run:?}, and the next one is due after {interval:?}");
        out.warning(retries.at, entry.key("retries"), text)
            .help("lower `timeout`, `retries` or `retry_delay`, or raise `interval`; `fall` asks again without them");
    }
    Some(pace)
}

/// Whether a check is made to a port.
fn has_port(kind: &CheckKind) -> bool {
    !matches!(kind, CheckKind::Ping | CheckKind::Script(_) | CheckKind::File(_))
}

/// The service's part in a check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// What the service matches.
    pub key: ServiceKey,
    /// How its tunnelled packets are wrapped.
    pub tunnel: TunnelSettings,
}

/// Adds a check to each of these servers. What does not fit is reported once.
pub(super) fn add<'s>(
    wanted: &Wanted<'_>,
    site: Site,
    servers: impl Iterator<Item = &'s mut Server>,
    out: &mut Collector<'_>,
) {
    let mut told = false;
    for server in servers {
        match wanted.of(site, server) {
            Ok(check) => {
                if !server.health.checks.contains(&check) {
                    server.health.checks.push(check);
                }
            }
            Err(misfit) if !told => {
                told = true;
                let problem = match misfit.at {
                    Some(at) => out.error(at, wanted.entry.key(misfit.key), misfit.message),
                    None => out.absent(wanted.entry.at, misfit.key, wanted.entry.key(misfit.key), misfit.message),
                };
                problem.expected(misfit.expected).help(misfit.help);
            }
            Err(_) => {}
        }
    }
}

/// Why a check is not for a server.
struct Misfit {
    key: &'static str,
    at: Option<usize>,
    message: String,
    expected: String,
    help: String,
}

impl Wanted<'_> {
    fn of(&self, site: Site, server: &Server) -> Result<Check, Misfit> {
        let method = server.method;
        if let Some(at) = self.through.filter(|_| method != Method::Dr && !method.is_tunnel()) {
            return Err(Misfit {
                key: "path",
                at: Some(at),
                message: format!("server {} has the method `{}`", server.address, method.name()),
                expected: "`\"server\"`, or servers by `dr`, `ipip`, `gue` or `gre`".to_owned(),
                help: "remove the key: by NAT clients' packets go to the server's own address anyway".to_owned(),
            });
        }
        let usual = if self.through.is_some() { site.key.address } else { server.address };
        let address = self.address.unwrap_or(usual);
        if let Some(source) = self.source.filter(|source| source.value.is_ipv4() != address.is_ipv4()) {
            return Err(Misfit {
                key: "source",
                at: Some(source.at),
                message: format!("{} cannot ask {address}: it is of the other family", source.value),
                expected: "an address of the family that is asked".to_owned(),
                help: "remove the key, or write a check for each server".to_owned(),
            });
        }
        let port = self.port.or(server.port).or(site.key.ports.as_single());
        let port = match port {
            None if has_port(&self.kind) => {
                return Err(Misfit {
                    key: "port",
                    at: None,
                    message: format!("the port is not known: those of the service are {}", site.key.ports),
                    expected: "an integer from 1 to 65535".to_owned(),
                    help: "add `port = ...`".to_owned(),
                });
            }
            _ if matches!(self.kind, CheckKind::Ping | CheckKind::File(_)) => 0,
            port => port.unwrap_or(0),
        };
        let through = self.through.map(|_| Through { server: server.address, method, tunnel: site.tunnel });
        let source = self.source.map(|source| source.value);
        let target = CheckTarget { address, port, source, through };
        Ok(Check { kind: self.kind.clone(), target, pace: self.pace.clone() })
    }
}

/// The check of a server for which none is written: for TCP a connection, where the port is known. What answers on a port of
/// another protocol cannot be known without being told, so there it is a ping.
pub(super) fn usual(key: ServiceKey, server: &Server) -> Check {
    let port = server.port.or(key.ports.as_single());
    let (kind, port) = match port {
        Some(port) if key.protocol == crate::model::Protocol::Tcp => (CheckKind::Tcp, port),
        _ => (CheckKind::Ping, 0),
    };
    let target = CheckTarget { address: server.address, port, source: None, through: None };
    Check { kind, target, pace: Pace::default() }
}
