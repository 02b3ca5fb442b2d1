//! Persistence: what fits together within one `[[service]]`, and between the services of one group.
//!
//! Owns which keys a way of telling clients apart needs, and what a group must have in common. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::control::config::problem::Collector;
use crate::control::config::raw::{At, Entry};
use crate::model::{PersistBy, Persistence, Protocol, Service, ServiceKey};

/// The persistence of a service.
pub(super) fn persistence(entry: &Entry, key: Option<ServiceKey>, out: &mut Collector<'_>) -> Option<Persistence> {
    let by = entry.word("persistence_by")?;
    let is_quic = by.value == "quic-server-id";
    let quic = if is_quic { quic(entry, out) } else { None };
    if !is_quic {
        let keys = [entry.integer("quic_rotation").filter(|at| at.written), entry.integer("quic_server_id_length")];
        for (name, at) in ["quic_rotation", "quic_server_id_length"].iter().zip(keys) {
            if let Some(at) = at {
                only_by_quic(at.at, entry.key(name), out);
            }
        }
        for server in entry.tables("server") {
            if let Some(id) = server.bytes("quic_id") {
                only_by_quic(id.at, server.key("quic_id"), out);
            }
        }
    }
    check_protocol(entry, by, key, out);
    let seconds = entry.integer_or("persistence")?;
    let Some(length) = seconds.value.or(if is_quic { Some(0) } else { None }) else {
        without_time(entry, by, out);
        return None;
    };
    let is_v4 = key.map(|key| key.address.is_ipv4());
    let prefix_v4 = prefix(entry, "persistence_prefix_v4", by.value, is_v4.map(|v4| !v4), out);
    let prefix_v6 = prefix(entry, "persistence_prefix_v6", by.value, is_v4, out);
    let by = match by.value {
        "sip-call-id" => PersistBy::SipCallId,
        "quic-server-id" => quic?,
        _ => PersistBy::Client,
    };
    let leave_drained = entry.word("persistence_drained")?.value == "leave";
    Some(Persistence { by, seconds: length, prefix_v4: prefix_v4?, prefix_v6: prefix_v6?, leave_drained })
}

fn only_by_quic(at: usize, key: String, out: &mut Collector<'_>) {
    out.error(at, key, "the service does not tell its clients apart by QUIC connection ids")
        .expected("this key only with `persistence_by = \"quic-server-id\"`")
        .help("remove the key, or write `persistence_by = \"quic-server-id\"`");
}

/// SIP and QUIC are looked for in datagrams.
fn check_protocol(entry: &Entry, by: At<&'static str>, key: Option<ServiceKey>, out: &mut Collector<'_>) {
    let Some(key) = key.filter(|key| by.value != "client" && key.protocol != Protocol::Udp) else { return };
    let what = if by.value == "sip-call-id" { "Call-IDs are looked for in SIP over UDP" } else { "QUIC goes over UDP" };
    out.error(by.at, entry.key("persistence_by"), format!("{what}, and the service is {}", key.protocol))
        .expected("`\"client\"`, or a service with `protocol = \"udp\"`")
        .help("remove the key, or correct `protocol`");
}

/// Keys that mean nothing while no time is given.
fn without_time(entry: &Entry, by: At<&'static str>, out: &mut Collector<'_>) {
    let written = [
        ("persistence_by", Some(by.at).filter(|_| by.written)),
        ("persistence_prefix_v4", entry.integer("persistence_prefix_v4").filter(|at| at.written).map(|at| at.at)),
        ("persistence_prefix_v6", entry.integer("persistence_prefix_v6").filter(|at| at.written).map(|at| at.at)),
        ("persistence_drained", entry.word("persistence_drained").filter(|at| at.written).map(|at| at.at)),
    ];
    for (name, at) in written.into_iter().filter_map(|(name, at)| Some((name, at?))) {
        out.error(at, entry.key(name), "the service has no persistence")
            .expected("this key only with `persistence`")
            .help("add `persistence = SECONDS`, or remove the key");
    }
}

/// The bits of clients' addresses that count. `other_family`: the service has no clients of this family.
fn prefix(entry: &Entry, name: &str, by: &str, other_family: Option<bool>, out: &mut Collector<'_>) -> Option<u8> {
    let prefix = entry.integer(name)?;
    if prefix.written && other_family == Some(true) {
        let family = if name.ends_with("v4") { "IPv4" } else { "IPv6" };
        out.error(prefix.at, entry.key(name), format!("the service has no {family} clients"))
            .expected("the key of the family of the service's address")
            .help("remove the key; for services of both families write each its own");
    } else if prefix.value == 0 && by != "sip-call-id" {
        out.error(prefix.at, entry.key(name), "with no bit of their addresses all clients would be one")
            .expected("an integer from 1 on; 0 only with `persistence_by = \"sip-call-id\"`")
            .help("for one server that takes all clients, use the scheduler `fo`");
    }
    u8::try_from(prefix.value).ok()
}

/// Ids of QUIC servers: there, of one length, each once.
fn quic(entry: &Entry, out: &mut Collector<'_>) -> Option<PersistBy> {
    let written = entry.integer("quic_server_id_length");
    let mut length = written.map(|written| written.value as usize);
    let mut lines: HashMap<Vec<u8>, usize> = HashMap::new();
    let servers = entry.tables("server");
    for server in servers {
        let Some(id) = server.bytes("quic_id") else {
            if !server.was_refused("quic_id") {
                out.absent(server.at, "quic_id", server.key("quic_id"), "the server has no id".to_owned())
                    .expected("an id for each server: connection ids name it")
                    .help("add `quic_id = \"...\"`, as the server itself is configured");
            }
            continue;
        };
        let own = id.value.len();
        if let Some(length) = length.filter(|length| *length != own) {
            out.error(id.at, server.key("quic_id"), format!("the id has {own} bytes"))
                .expected(format!(
                    "{length} bytes: {}",
                    if written.is_some() { "`quic_server_id_length`" } else { "as the first server's" }
                ))
                .help("all servers of a configuration of QUIC-LB have ids of one length");
        }
        length = length.or(Some(own));
        if let Some(line) = lines.insert(id.value, out.line(id.at)) {
            out.error(id.at, server.key("quic_id"), "another server has this id")
                .expected(format!("an id of its own; the first is on line {line}"))
                .help("correct one of them");
        }
    }
    let rotation = u8::try_from(entry.integer("quic_rotation")?.value).ok()?;
    // A service without servers has none of any length.
    let length = length.or(if servers.is_empty() { Some(1) } else { None })?;
    Some(PersistBy::QuicServerId { rotation, length: u8::try_from(length).ok()? })
}

/// What the services of each group must have in common. `entries` are those of `services` that are sound, in their order.
pub(super) fn groups(services: &[(Service, &Entry)], out: &mut Collector<'_>) {
    let mut groups: BTreeMap<&str, Vec<&(Service, &Entry)>> = BTreeMap::new();
    for service in services {
        if let Some(name) = &service.0.group {
            groups.entry(name).or_default().push(service);
        }
    }
    for (name, members) in groups {
        for (service, entry) in &members {
            let at = entry.text("group").map_or(entry.at, |group| group.at);
            match &service.persistence {
                None => {
                    out.error(at, entry.key("group"), "a group shares persistent clients, and the service has none")
                        .expected("`persistence` in every service of a group")
                        .help("add `persistence = SECONDS`, or remove `group`");
                }
                Some(own) => compare(name, (service, entry, own), &members, out),
            }
            twice(name, service, entry, out);
        }
    }
}

/// Compares a service of a group with the first one of it, and with the first one of its family.
fn compare(
    name: &str,
    (service, entry, own): (&Service, &Entry, &Persistence),
    members: &[&(Service, &Entry)],
    out: &mut Collector<'_>,
) {
    let is_v4 = service.key.address.is_ipv4();
    let before = members.iter().take_while(|(other, _)| other.key != service.key);
    let settled: Vec<_> = before.filter_map(|(other, at)| Some((other, *at, other.persistence.as_ref()?))).collect();
    let Some((_, first_entry, first)) = settled.first() else { return };
    let line = out.line(first_entry.at);
    let mut differs = |key: &str, is: bool, theirs: String| {
        if is {
            let text = format!("the group `{name}` has another `{key}` in the service on line {line}");
            out.error(written_at(entry, key), entry.key(key), text)
                .expected(format!("`{key} = {theirs}`, as there"))
                .help("the services of a group share their clients: write the same in all of them");
        }
    };
    differs("persistence", own.seconds != first.seconds, first.seconds.to_string());
    differs("persistence_by", own.by != first.by, format!("\"{}\" with the same settings", by_name(first.by)));
    let drained = if first.leave_drained { "\"leave\"" } else { "\"keep\"" };
    differs("persistence_drained", own.leave_drained != first.leave_drained, drained.to_owned());
    let Some((other, other_entry, theirs)) = settled.iter().find(|(other, ..)| other.key.address.is_ipv4() == is_v4)
    else {
        return;
    };
    let (key, ours, prefix) = if is_v4 {
        ("persistence_prefix_v4", own.prefix_v4, theirs.prefix_v4)
    } else {
        ("persistence_prefix_v6", own.prefix_v6, theirs.prefix_v6)
    };
    differs(key, ours != prefix, prefix.to_string());
    let addresses =
        |service: &Service| service.servers.iter().map(|server| server.address).collect::<BTreeSet<IpAddr>>();
    let (ours, theirs) = (addresses(service), addresses(other));
    if let Some(lone) = ours.symmetric_difference(&theirs).next() {
        let line = out.line(other_entry.at);
        let text = if ours.contains(lone) {
            format!("the service on line {line} of the group `{name}` does not have the server {lone}")
        } else {
            format!("the server {lone} is missing, which the service on line {line} of the group `{name}` has")
        };
        out.error(entry.at, entry.key("server"), text)
            .expected("the same servers in all services of a group: a client has one server for all of them")
            .help("write the server in both; with `weight = 0` it takes no new clients");
    }
}

/// Where a key stands; its table where it is not written.
fn written_at(entry: &Entry, key: &str) -> usize {
    let time = entry.integer_or(key).map(|at| at.at);
    time.or(entry.integer(key).map(|at| at.at)).or(entry.word(key).map(|at| at.at)).unwrap_or(entry.at)
}

/// In a group a server is one by its address, whatever its port.
fn twice(name: &str, service: &Service, entry: &Entry, out: &mut Collector<'_>) {
    let mut seen = BTreeSet::new();
    for server in &service.servers {
        if !seen.insert(server.address) {
            out.error(
                entry.at,
                entry.key("server"),
                format!("{} is there twice, in a service of the group `{name}`", server.address),
            )
            .expected("each address once: a client of a group has a server, whatever the port")
            .help("remove one of them, or remove `group`");
        }
    }
}

fn by_name(by: PersistBy) -> &'static str {
    match by {
        PersistBy::Client => "client",
        PersistBy::SipCallId => "sip-call-id",
        PersistBy::QuicServerId { .. } => "quic-server-id",
    }
}
