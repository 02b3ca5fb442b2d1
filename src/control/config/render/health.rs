//! Health checks as part of a configuration file.
//!
//! Owns the text form of checks and of what their results mean. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::value::decimals;
use super::{Keys, table, text};
use crate::model::{
    BodyMatch, Check, CheckKind, FirstState, Health, HttpCheck, HttpRequest, NoServer, OnFailure, Server, TlsCheck,
};

/// The keys of a service.
pub(super) fn of_service(health: &Health) -> Keys {
    let mut keys = vec![
        ("quorum", health.quorum.least.to_string()),
        ("quorum_hysteresis", health.quorum.hysteresis.to_string()),
        ("no_server", text(if health.no_server == NoServer::Drop { "drop" } else { "refuse" })),
    ];
    keys.extend(health.quorum.up.as_deref().map(|command| ("quorum_up", texts(command))));
    keys.extend(health.quorum.down.as_deref().map(|command| ("quorum_down", texts(command))));
    keys.extend(health.slow_start.map(|time| ("slow_start", seconds(time))));
    keys.extend(health.script_user.as_deref().map(|user| ("script_user", text(user))));
    if let Some(sorry) = &health.sorry {
        let port = sorry.port.map_or_else(String::new, |port| format!(", port = {port}"));
        let (address, method) = (text(&sorry.address.to_string()), text(sorry.method.name()));
        keys.push(("sorry_server", format!("{{ address = {address}{port}, method = {method} }}")));
    }
    if let Some(damping) = &health.damping {
        let (window, hold) = (seconds(damping.window), seconds(damping.hold));
        let inner = format!("{{ failures = {}, window = {window}, hold = {hold} }}", damping.failures);
        keys.push(("damping", inner));
    }
    if let Some(passive) = &health.passive {
        let mut inner = format!("{{ failures_percent = {}, least = {}", passive.failures_percent, passive.least);
        let (window, eject) = (seconds(passive.window), seconds(passive.eject));
        let _ = write!(inner, ", window = {window}, eject = {eject}, most_percent = {} }}", passive.most_percent);
        keys.push(("passive", inner));
    }
    keys
}

/// The keys of a server.
pub(super) fn of_server(server: &Server) -> Keys {
    let health = &server.health;
    let mut keys =
        vec![("on_failure", text(if health.on_failure == OnFailure::Inhibit { "inhibit" } else { "remove" }))];
    keys.extend(health.drain_file.as_ref().map(|path| ("drain_file", text(&path.to_string_lossy()))));
    keys.extend(health.notify_up.as_deref().map(|command| ("notify_up", texts(command))));
    keys.extend(health.notify_down.as_deref().map(|command| ("notify_down", texts(command))));
    if health.checks.is_empty() {
        keys.push(("check", text("none")));
    }
    keys
}

/// The tables of a server's checks. The usual check is there where none is written.
pub(super) fn checks(out: &mut String, server: &Server) {
    if server.health.default_check {
        let usual: Vec<String> = server.health.checks.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "# check: {}, as none is written", usual.join(", "));
        return;
    }
    for check in &server.health.checks {
        table(out, "[[service.server.check]]", &keys(check));
        if let CheckKind::Http(http) = &check.kind {
            http.requests.iter().for_each(|one| table(out, "[[service.server.check.request]]", &request(one)));
        }
    }
}

/// The keys of a check, without its requests.
pub(in crate::control) fn keys(check: &Check) -> Keys {
    let (pace, target) = (&check.pace, &check.target);
    let mut keys = vec![
        ("type", text(check.kind.name())),
        ("interval", seconds(pace.interval)),
        ("timeout", seconds(pace.timeout)),
        ("rise", pace.rise.to_string()),
        ("fall", pace.fall.to_string()),
        ("retries", pace.retries.to_string()),
        ("retry_delay", seconds(pace.retry_delay)),
        ("jitter", seconds(pace.jitter)),
        ("warmup", seconds(pace.warmup)),
        ("first_state", text(if pace.first == FirstState::Down { "down" } else { "up" })),
    ];
    if target.through.is_some() {
        keys.push(("path", text("service")));
    } else if !matches!(check.kind, CheckKind::File(_)) {
        keys.push(("address", text(&target.address.to_string())));
    }
    keys.extend((target.port != 0).then(|| ("port", target.port.to_string())));
    keys.extend(target.source.map(|source| ("source", text(&source.to_string()))));
    keys.extend(kind(&check.kind));
    keys
}

fn kind(kind: &CheckKind) -> Keys {
    match kind {
        CheckKind::Tcp | CheckKind::HalfOpen | CheckKind::Ping => Vec::new(),
        CheckKind::Http(HttpCheck { tls: settings, version_11, .. }) => {
            let version = ("version", text(if *version_11 { "1.1" } else { "1.0" }));
            settings.as_ref().map(tls).unwrap_or_default().into_iter().chain([version]).collect()
        }
        CheckKind::Dns(dns) => {
            let codes = if dns.codes.is_empty() { text("any") } else { texts(&dns.codes) };
            vec![
                ("name", text(&dns.name)),
                ("record", text(&dns.kind)),
                ("codes", codes),
                ("answer", dns.answer.to_string()),
                ("transport", text(if dns.tcp { "tcp" } else { "udp" })),
            ]
        }
        CheckKind::Udp(udp) => {
            let payload = (!udp.payload.is_empty()).then_some(&udp.payload);
            let bytes = [("payload", payload), ("reply", udp.reply.as_ref())];
            let bytes = bytes.into_iter().filter_map(|(key, bytes)| Some((key, text(&format!("hex:{}", hex(bytes?))))));
            bytes.chain([("require_reply", udp.require_reply.to_string())]).collect()
        }
        CheckKind::Smtp(smtp) => vec![("helo", text(&smtp.helo))],
        CheckKind::Script(script) => {
            let mut keys = vec![("command", texts(&script.command)), ("dynamic", script.dynamic.to_string())];
            keys.extend((!script.environment.is_empty()).then(|| ("environment", pairs(&script.environment))));
            keys.extend(script.user.as_deref().map(|user| ("user", text(user))));
            keys
        }
        CheckKind::File(file) => {
            vec![("file", text(&file.path.to_string_lossy())), ("weight", file.weight.to_string())]
        }
        CheckKind::Grpc(grpc) => {
            let mut keys = vec![("tls", grpc.tls.is_some().to_string())];
            keys.extend(grpc.tls.as_ref().map(tls).unwrap_or_default());
            keys.extend((!grpc.service.is_empty()).then(|| ("service", text(&grpc.service))));
            keys.extend(grpc.authority.as_deref().map(|authority| ("authority", text(authority))));
            keys
        }
    }
}

fn tls(tls: &TlsCheck) -> Keys {
    let mut keys = vec![("tls_verify", tls.verify.to_string()), ("tls_expiry_days", tls.expiry_days.to_string())];
    keys.extend(tls.name.as_deref().map(|name| ("tls_name", text(name))));
    keys.extend(tls.authorities.as_ref().map(|path| ("tls_ca", text(&path.to_string_lossy()))));
    keys
}

/// The keys of a request of a check.
pub(in crate::control) fn request(request: &HttpRequest) -> Keys {
    let range = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => text(&format!("{first}-{last}")),
    };
    let status: Vec<String> = request.status.iter().map(range).collect();
    let mut keys = vec![
        ("url", text(&request.path)),
        ("method", text(&request.method)),
        ("status", format!("[{}]", status.join(", "))),
    ];
    keys.extend(request.host.as_deref().map(|host| ("host", text(host))));
    keys.extend(request.body.as_ref().map(|body| match body {
        BodyMatch::Text(body) => ("body", text(body)),
        BodyMatch::Regex(regex) => ("regex", text(regex)),
        BodyMatch::NotRegex(regex) => ("not_regex", text(regex)),
    }));
    keys.extend(request.digest.map(|digest| ("digest", text(&hex(&digest)))));
    keys.extend((!request.headers.is_empty()).then(|| ("headers", pairs(&request.headers))));
    keys
}

fn pairs(all: &[(String, String)]) -> String {
    let one = |(name, value): &(String, String)| format!("{} = {}", text(name), text(value));
    format!("{{ {} }}", all.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(all: &[String]) -> String {
    format!("[{}]", all.iter().map(|one| text(one)).collect::<Vec<_>>().join(", "))
}

fn seconds(duration: Duration) -> String {
    decimals(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
