//! What each type of check asks, from its keys.
//!
//! Owns which keys belong to which types. Pure.

use crate::control::config::problem::Collector;
use crate::control::config::raw::Entry;
use crate::model::{
    BodyMatch, CheckKind, DnsCheck, FileCheck, GrpcCheck, HttpCheck, HttpRequest, ScriptCheck, SmtpCheck, TlsCheck,
    UdpCheck,
};

const HTTP: &[&str] = &["http", "https"];
const TLS: &[&str] = &["https", "grpc"];
const ASKED: &[&str] = &["tcp", "tcp-half-open", "http", "https", "dns", "udp", "ping", "smtp", "grpc"];
const WITH_PORT: &[&str] = &["tcp", "tcp-half-open", "http", "https", "dns", "udp", "smtp", "script", "grpc"];
const WITH_ADDRESS: &[&str] =
    &["tcp", "tcp-half-open", "http", "https", "dns", "udp", "ping", "smtp", "script", "grpc"];
const ANY: &[&str] = &["tcp", "tcp-half-open", "http", "https", "dns", "udp", "ping", "smtp", "script", "file", "grpc"];

/// Keys of one request.
const REQUEST: [&str; 9] = ["url", "method", "host", "status", "body", "regex", "not_regex", "digest", "headers"];

/// Each key, and the types that take it.
const KEYS: &[(&str, &[&str])] = &[
    ("interval", ANY),
    ("timeout", ANY),
    ("rise", ANY),
    ("fall", ANY),
    ("retries", ANY),
    ("retry_delay", ANY),
    ("jitter", ANY),
    ("warmup", ANY),
    ("first_state", ANY),
    ("address", WITH_ADDRESS),
    ("port", WITH_PORT),
    ("source", ASKED),
    ("path", &["tcp", "http", "https", "dns", "udp"]),
    ("url", HTTP),
    ("method", HTTP),
    ("host", HTTP),
    ("status", HTTP),
    ("body", HTTP),
    ("regex", HTTP),
    ("not_regex", HTTP),
    ("digest", HTTP),
    ("headers", HTTP),
    ("version", HTTP),
    ("tls", &["grpc"]),
    ("tls_name", TLS),
    ("tls_verify", TLS),
    ("tls_ca", TLS),
    ("tls_expiry_days", TLS),
    ("name", &["dns"]),
    ("record", &["dns"]),
    ("codes", &["dns"]),
    ("answer", &["dns"]),
    ("transport", &["dns"]),
    ("payload", &["udp"]),
    ("reply", &["udp"]),
    ("require_reply", &["udp"]),
    ("helo", &["smtp"]),
    ("command", &["script"]),
    ("environment", &["script"]),
    ("user", &["script"]),
    ("dynamic", &["script"]),
    ("file", &["file"]),
    ("weight", &["file"]),
    ("service", &["grpc"]),
    ("authority", &["grpc"]),
];

/// Reports keys of other types.
pub(super) fn strays(entry: &Entry, kind: &str, out: &mut Collector<'_>) {
    for (key, types) in KEYS.iter().filter(|(_, types)| !types.contains(&kind)) {
        let Some(at) = entry.written(key) else { continue };
        // What all others have is not worth a list of them.
        let those = if types.len() > 5 { format!("not for `{kind}`") } else { format!("for {}", words(types)) };
        out.error(at, entry.key(key), format!("this key is {those}"))
            .expected(format!("a key of the type `{kind}`"))
            .help("remove the key, or correct `type`");
    }
    if let Some(request) = entry.tables("request").first().filter(|_| !HTTP.contains(&kind)) {
        out.error(request.at, request.path.clone(), "requests are for `http` and `https`")
            .expected(format!("a key of the type `{kind}`"))
            .help("remove it, or correct `type`");
    }
}

fn words(types: &[&str]) -> String {
    let types: Vec<String> = types.iter().map(|name| format!("`{name}`")).collect();
    match types.as_slice() {
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => types.join(""),
    }
}

/// What a check of that type asks. `user`: as whom the service's scripts run. `None` when something was refused.
pub(super) fn kind(entry: &Entry, kind: &str, user: Option<&str>, out: &mut Collector<'_>) -> Option<CheckKind> {
    Some(match kind {
        "tcp" => CheckKind::Tcp,
        "tcp-half-open" => CheckKind::HalfOpen,
        "ping" => CheckKind::Ping,
        "http" | "https" => {
            let tls = if kind == "https" { Some(tls(entry, out)?) } else { None };
            let version_11 = entry.word("version")?.value == "1.1";
            CheckKind::Http(HttpCheck { tls, version_11, requests: requests(entry, out)? })
        }
        "dns" => CheckKind::Dns(dns(entry, out)?),
        "udp" => {
            let (payload, reply) = (entry.bytes("payload"), entry.bytes("reply"));
            if entry.was_refused("payload") || entry.was_refused("reply") || entry.was_refused("require_reply") {
                return None;
            }
            let reply = reply.map(|reply| reply.value);
            let require_reply = entry.boolean("require_reply").map_or(reply.is_some(), |require| require.value);
            CheckKind::Udp(UdpCheck { payload: payload.map(|p| p.value).unwrap_or_default(), reply, require_reply })
        }
        "smtp" => CheckKind::Smtp(SmtpCheck { helo: entry.text("helo")?.value }),
        "script" => {
            let Some(command) = entry.command("command") else {
                needed(entry, "command", "there is no program", "`command = [\"/usr/local/bin/check\"]`", out);
                return None;
            };
            CheckKind::Script(ScriptCheck {
                command: command.value,
                environment: optional(entry, "environment", entry.pairs("environment"))?.unwrap_or_default(),
                user: optional(entry, "user", entry.text("user"))?.or_else(|| user.map(str::to_owned)),
                dynamic: entry.boolean("dynamic")?.value,
            })
        }
        "file" => {
            let Some(path) = entry.text("file") else {
                needed(entry, "file", "there is no file", "`file = \"/run/evenkeel/web1\"`", out);
                return None;
            };
            let weight = i16::try_from(entry.signed("weight")?.value).ok()?;
            CheckKind::File(FileCheck { path: path.value.into(), weight })
        }
        "grpc" => {
            let with_tls = entry.boolean("tls")?.value;
            for key in ["tls_name", "tls_verify", "tls_ca", "tls_expiry_days"].iter().filter(|_| !with_tls) {
                if let Some(at) = entry.written(key) {
                    out.error(at, entry.key(key), "the check is not over TLS")
                        .expected("this key only with `tls = true`")
                        .help("add `tls = true`, or remove the key");
                }
            }
            CheckKind::Grpc(GrpcCheck {
                tls: if with_tls { Some(tls(entry, out)?) } else { None },
                service: optional(entry, "service", entry.text("service"))?.unwrap_or_default(),
                authority: optional(entry, "authority", entry.text("authority"))?,
            })
        }
        _ => return None,
    })
}

/// The value of a key that need not be there; `None` when it was refused.
fn optional<T>(entry: &Entry, key: &str, found: Option<crate::control::config::raw::At<T>>) -> Option<Option<T>> {
    if entry.was_refused(key) { None } else { Some(found.map(|found| found.value)) }
}

fn needed(entry: &Entry, key: &'static str, what: &str, example: &str, out: &mut Collector<'_>) {
    if !entry.was_refused(key) {
        out.absent(entry.at, key, entry.key(key), what.to_owned())
            .expected(format!("`{key}` with this type"))
            .help(format!("add {example}"));
    }
}

fn tls(entry: &Entry, out: &mut Collector<'_>) -> Option<TlsCheck> {
    let verify = entry.boolean("tls_verify")?.value;
    if let Some(at) = entry.written("tls_ca").filter(|_| !verify) {
        out.warning(at, entry.key("tls_ca"), "the certificate is not verified, so nobody looks at this file")
            .help("add `tls_verify = true`, or remove the key");
    }
    Some(TlsCheck {
        name: optional(entry, "tls_name", entry.text("tls_name"))?,
        verify,
        authorities: optional(entry, "tls_ca", entry.text("tls_ca"))?.map(Into::into),
        expiry_days: entry.integer("tls_expiry_days")?.value,
    })
}

/// The requests of a check: its tables, or the one of its own keys.
fn requests(entry: &Entry, out: &mut Collector<'_>) -> Option<Vec<HttpRequest>> {
    let tables = entry.tables("request");
    if tables.is_empty() {
        return request(entry, out).map(|request| vec![request]);
    }
    for key in REQUEST {
        if let Some(at) = entry.written(key) {
            out.error(at, entry.key(key), "the check has requests of their own")
                .expected("this key in each `request`, or no `request`")
                .help("move the key into them, or remove it");
        }
    }
    let found: Vec<Option<HttpRequest>> = tables.iter().map(|table| request(table, out)).collect();
    found.into_iter().collect()
}

fn request(entry: &Entry, out: &mut Collector<'_>) -> Option<HttpRequest> {
    let method = entry.word("method")?.value;
    let matches = [
        ("body", entry.text("body").map(|text| BodyMatch::Text(text.value))),
        ("regex", entry.text("regex").map(|text| BodyMatch::Regex(text.value))),
        ("not_regex", entry.text("not_regex").map(|text| BodyMatch::NotRegex(text.value))),
    ];
    let mut body: Option<(&str, BodyMatch)> = None;
    for (key, found) in matches.into_iter().filter_map(|(key, found)| Some((key, found?))) {
        if let Some((first, _)) = body {
            let at = entry.written(key).unwrap_or(entry.at);
            out.error(at, entry.key(key), format!("`{first}` and `{key}` are both there"))
                .expected("one of `body`, `regex` and `not_regex`")
                .help("remove one, or make a second request");
        } else {
            body = Some((key, found));
        }
    }
    let digest = optional(entry, "digest", entry.bytes("digest"))?;
    let of_body = body.as_ref().map(|(key, _)| *key).or(digest.as_ref().map(|_| "digest"));
    if let Some(key) = of_body.filter(|_| method == "HEAD") {
        out.error(entry.written(key).unwrap_or(entry.at), entry.key(key), "the answer to `HEAD` has no body")
            .expected("this key with another `method`")
            .help("remove one of them");
    }
    let refused = ["body", "regex", "not_regex"].iter().any(|key| entry.was_refused(key));
    let headers = optional(entry, "headers", entry.pairs("headers"))?.unwrap_or_default();
    check_headers(entry, &headers, out);
    let host = optional(entry, "host", entry.text("host"))?;
    if let Some(host) =
        host.as_ref().filter(|host| host.contains(|c: char| !c.is_ascii_graphic() || "/?#@".contains(c)))
    {
        out.error(
            entry.written("host").unwrap_or(entry.at),
            entry.key("host"),
            format!("`{host}` is no name of a host"),
        )
        .expected("a name or an address, with or without a port, such as `\"www.example.org\"`")
        .help("what follows the name belongs in `url`");
    }
    (!refused).then_some(HttpRequest {
        method: method.to_owned(),
        path: entry.text("url")?.value,
        host,
        headers,
        status: entry.ranges("status")?.value,
        body: body.map(|(_, body)| body),
        digest: digest.and_then(|digest| digest.try_into().ok()),
    })
}

fn check_headers(entry: &Entry, headers: &[(String, String)], out: &mut Collector<'_>) {
    let at = entry.written("headers").unwrap_or(entry.at);
    // RFC 9110, section 5.6.2.
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    for (name, _) in headers {
        let help = match name.to_lowercase().as_str() {
            "host" => "write `host`",
            "connection" | "content-length" | "transfer-encoding" => "remove it: the check says this itself",
            _ if !name.chars().all(token) => "a name has letters, digits and hyphens",
            _ => continue,
        };
        out.error(at, entry.key("headers"), format!("`{name}` cannot be a header here"))
            .expected("names of other header fields")
            .help(help);
    }
}

fn dns(entry: &Entry, out: &mut Collector<'_>) -> Option<DnsCheck> {
    let name = entry.text("name")?;
    let absolute = if name.value.ends_with('.') { name.value.clone() } else { format!("{}.", name.value) };
    let labels = absolute.trim_end_matches('.');
    let sound = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_*".contains(c))
    };
    if absolute != "." && (absolute.len() > 254 || !labels.split('.').all(sound) || absolute.ends_with("..")) {
        out.error(name.at, entry.key("name"), format!("`{}` is no name of the DNS", name.value))
            .expected("labels of 1 to 63 letters, digits, `-`, `_` or `*`, with dots between them; `.` is the root")
            .help("write names in other scripts in their ASCII form (`xn--...`)");
    }
    let codes = entry.words("codes")?.value;
    Some(DnsCheck {
        tcp: entry.word("transport")?.value == "tcp",
        name: absolute,
        kind: entry.word("record")?.value.to_owned(),
        // All of them are no demand.
        codes: if codes.len() == ALL_CODES { Vec::new() } else { codes.into_iter().map(str::to_owned).collect() },
        answer: entry.boolean("answer")?.value,
    })
}

/// How many response codes the schema has.
const ALL_CODES: usize = 11;
