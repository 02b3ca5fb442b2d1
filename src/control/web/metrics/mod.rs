//! `/metrics`: what the engine counts and how it is, as Prometheus reads it.
//!
//! Owns the order of the answer, what is left out on request, and the reference of all families. Never asks the engine itself: the
//! picture is given. The families are in [`engine`], [`services`], [`routers`],
//! [`visitors`] and [`process`]; each row makes a family of the answer
//! and a line of docs/metrics.md.

mod engine;
mod process;
mod routers;
mod services;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod visitors;

use std::fmt::Write as _;

use super::limits::Tally;
use crate::control::status::{CheckStatus, ServerStatus, ServiceStatus, Status, with_port};
use process::Process;
use table::{Described, describe, write};
pub use text::{Format, Kind};
use text::{Text, labels};

/// What a scraper leaves out, by the query of its request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `service=NAME`, any number of times: only these services, with their servers; checks of other servers are left out, too.
    pub services: Vec<String>,
    /// `servers=0`: neither single servers nor single checks.
    pub no_servers: bool,
}

impl Wanted {
    /// What the query of a request says.
    ///
    /// # Errors
    /// An option that is not known, or a value that it cannot have.
    pub fn read(query: &str) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (name, value) {
                ("servers", "0" | "false" | "no") => wanted.no_servers = true,
                ("servers", "1" | "true" | "yes") => wanted.no_servers = false,
                ("servers", _) => return Err("`servers` is 0 or 1".to_owned()),
                ("service", "") => return Err("`service` is a service's name".to_owned()),
                ("service", name) => wanted.services.push(decoded(name)?),
                _ => return Err("`/metrics` takes `servers=0` and `service=NAME`".to_owned()),
            }
        }
        Ok(wanted)
    }

    fn has(&self, service: &ServiceStatus) -> bool {
        self.services.is_empty() || self.services.contains(&service.name)
    }
}

/// A value of a query as it was meant: `%41` and `+` are letters.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'+', after @ ..] => {
                bytes.push(b' ');
                after
            }
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |letter: &u8| (*letter as char).to_digit(16).unwrap_or(0) as u8;
                bytes.push(digit(high) << 4 | digit(low));
                after
            }
            [b'%', ..] => return Err("a `%` in the query is not followed by two hexadecimal digits".to_owned()),
            [other, after @ ..] => {
                bytes.push(*other);
                after
            }
        };
    }
    String::from_utf8(bytes).map_err(|_| "the query is not UTF-8".to_owned())
}

/// The answer.
pub(super) fn body(status: &Status, tally: &Tally, wanted: &Wanted, format: Format) -> String {
    let services: Vec<&ServiceStatus> = status.services.iter().filter(|service| wanted.has(service)).collect();
    let servers = if wanted.no_servers { Vec::new() } else { of_servers(&services) };
    let checks = if wanted.no_servers { Vec::new() } else { of_checks(status, wanted, &services) };
    // About 90 bytes a sample: 9 of a server by direct routing, 4 of a check.
    let room = 64 * 1024 + services.len() * 3500 + servers.len() * 850 + checks.len() * 450;
    let mut text = Text::new(format, room);
    write(&mut text, engine::ENGINE, &[(String::new(), status)]);
    let workers = status.workers.iter().map(|one| (labels(&[("worker", &one.worker.to_string())]), one));
    write(&mut text, engine::WORKERS, &workers.collect::<Vec<_>>());
    let interfaces = status.interfaces.iter().map(|one| (labels(&[("interface", &one.name)]), one));
    write(&mut text, engine::INTERFACES, &interfaces.collect::<Vec<_>>());
    if let Some(vrrp) = &status.vrrp {
        write(&mut text, routers::VRRP, &[(String::new(), vrrp)]);
        let all = vrrp.routers.iter().map(|one| (labels(&[("router", &one.name)]), one));
        write(&mut text, routers::ROUTERS, &all.collect::<Vec<_>>());
        let groups = vrrp.groups.iter().map(|one| (labels(&[("group", &one.name)]), one));
        write(&mut text, routers::GROUPS, &groups.collect::<Vec<_>>());
    }
    let of_services: Vec<_> = services.iter().map(|one| (labels(&[("service", &one.name)]), *one)).collect();
    write(&mut text, services::SERVICES, &of_services);
    write(&mut text, services::SERVERS, &servers);
    write(&mut text, services::ALL_CHECKS, &[(String::new(), status.checks.as_slice())]);
    write(&mut text, services::CHECKS, &checks);
    write(&mut text, visitors::WEB, &[(String::new(), tally)]);
    write(&mut text, process::PROCESS, &[(String::new(), &Process::read())]);
    text.end()
}

fn of_servers<'s>(services: &[&'s ServiceStatus]) -> Vec<(String, &'s ServerStatus)> {
    let mut all = Vec::with_capacity(services.iter().map(|service| service.servers.len()).sum());
    for service in services {
        all.extend(service.servers.iter().map(|server| {
            let port = server.port.map_or_else(|| service.port.clone(), |port| port.to_string());
            (labels(&[("service", &service.name), ("server", &with_port(&server.address, &port))]), server)
        }));
    }
    all
}

fn of_checks<'s>(status: &'s Status, wanted: &Wanted, services: &[&ServiceStatus]) -> Vec<(String, &'s CheckStatus)> {
    let asked: Option<std::collections::HashSet<u64>> = (!wanted.services.is_empty()).then(|| {
        let healths = services.iter().flat_map(|service| &service.servers).filter_map(|server| server.health.as_ref());
        healths.flat_map(|health| &health.checks).map(|check| check.id).collect()
    });
    let checks = status.checks.iter().filter(|check| asked.as_ref().is_none_or(|asked| asked.contains(&check.id)));
    checks.map(|check| (labels(&[("id", &check.id.to_string()), ("check", &check.check)]), check)).collect()
}

/// All families, by section.
fn described() -> [(&'static str, Vec<Described>); 10] {
    [
        ("The engine", describe(engine::ENGINE, &[])),
        ("Workers", describe(engine::WORKERS, engine::WORKER)),
        ("Interfaces", describe(engine::INTERFACES, engine::INTERFACE)),
        ("VRRP", {
            let mut all = describe(routers::VRRP, &[]);
            all.extend(describe(routers::ROUTERS, routers::ROUTER));
            all.extend(describe(routers::GROUPS, routers::GROUP));
            all
        }),
        ("Services", describe(services::SERVICES, services::SERVICE)),
        ("Servers", describe(services::SERVERS, services::SERVER)),
        ("All health checks", describe(services::ALL_CHECKS, &[])),
        ("Single health checks", describe(services::CHECKS, services::CHECK)),
        ("The web listener", describe(visitors::WEB, &[])),
        ("The process", describe(process::PROCESS, &[])),
    ]
}

/// The names of all families.
pub fn names() -> Vec<&'static str> {
    described().into_iter().flat_map(|(_, all)| all).map(|family| family.name).collect()
}

/// The tables of docs/metrics.md.
pub fn reference() -> String {
    let mut out = String::new();
    for (title, families) in described() {
        let _ = writeln!(out, "\n## {title}\n\n| metric | type | labels | means |\n|---|---|---|---|");
        for family in families {
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind, help) = (family.name, family.kind.name(), family.help);
            let _ = writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels.join(" "));
        }
    }
    out
}
