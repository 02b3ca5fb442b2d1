//! A [`Desired`] as a configuration file: what `evenkeel check --effective` shows.
//!
//! Owns the text form with every key written out. A property test holds it to [`super::parse`]: rendering and parsing
//! gives the same configuration. Pure.

mod health;
mod vrrp;

pub(in crate::control) use health::{keys as check, request as check_request};
pub(in crate::control) use vrrp::{
    file as track_file, group as sync_group, process as track_process, router as virtual_router,
    script as track_script, settings as vrrp_settings,
};

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::dataplane::schedule;
use crate::model::{
    Access, Desired, EngineSettings, Fate, HugePages, Interface, Judgement, Method, Neighbor, PersistBy, Polling,
    PortRange, Role, Server, Service, SynCookies, Timeouts, VerifyChecksums, Web, Who,
};

/// Keys of a table and their values as TOML.
pub(in crate::control) type Keys = Vec<(&'static str, String)>;

/// The configuration with every default written out.
pub fn render(desired: &Desired) -> String {
    let mut out = String::new();
    table(&mut out, "[engine]", &engine(&desired.engine));
    table(&mut out, "[timeouts]", &timeouts(desired.timeouts));
    access(&mut out, &desired.access);
    table(&mut out, "[control]", &control(desired));
    for one in &desired.interfaces {
        table(&mut out, "[[interface]]", &interface(one));
    }
    for one in &desired.neighbors {
        table(&mut out, "[[neighbor]]", &neighbor(one));
    }
    for address in &desired.addresses {
        table(&mut out, "[[address]]", &[("address", text(&address.to_string()))]);
    }
    for one in &desired.services {
        table(&mut out, "[[service]]", &service(one, desired.timeouts));
        for one in &one.servers {
            table(&mut out, "[[service.server]]", &server(one));
            health::checks(&mut out, one);
        }
    }
    vrrp::vrrp(&mut out, &desired.vrrp);
    if let Some(one) = &desired.web {
        table(&mut out, "[web]", &web(one));
    }
    out
}

/// The keys of `[engine]`.
pub(in crate::control) fn engine(engine: &EngineSettings) -> Keys {
    let modes: Vec<String> = engine.modes.iter().map(|mode| text(mode.name())).collect();
    let polling = match engine.polling {
        Polling::Busy => "busy",
        Polling::Adaptive => "adaptive",
    };
    let huge_pages = match engine.huge_pages {
        HugePages::Auto => "auto",
        HugePages::Always => "always",
        HugePages::Never => "never",
    };
    let verify = match engine.verify_checksums {
        VerifyChecksums::NewFlows => "new-flows",
        VerifyChecksums::All => "all",
        VerifyChecksums::Off => "off",
    };
    let syn_cookies = match engine.syn_cookies {
        SynCookies::Flood => "flood",
        SynCookies::Always => "always",
        SynCookies::Off => "off",
    };
    vec![
        ("cores", list(&engine.cores)),
        ("mode", format!("[{}]", modes.join(", "))),
        ("polling", text(polling)),
        ("idle_us", engine.idle_us.to_string()),
        ("need_wakeup", engine.need_wakeup.to_string()),
        ("busy_poll", engine.busy_poll.to_string()),
        ("ring_size", engine.ring_size.to_string()),
        ("frames", engine.frames.to_string()),
        ("frame_size", engine.frame_size.to_string()),
        ("huge_pages", text(huge_pages)),
        ("flows", engine.flows.to_string()),
        ("flows_ipv6", engine.flows_ipv6.to_string()),
        ("verify_checksums", text(verify)),
        ("local_ports", text(&local_ports(engine.local_ports))),
        ("local_addresses", engine.local_addresses.to_string()),
        ("fragments", engine.fragments.to_string()),
        ("fragments_waiting", engine.fragments_waiting.to_string()),
        ("fragment_wait_ms", engine.fragment_wait_ms.to_string()),
        ("unproven_flows", engine.unproven.to_string()),
        ("unproven_flows_ipv6", engine.unproven_ipv6.to_string()),
        ("syn_cookies", text(syn_cookies)),
        ("cookie_flows", engine.cookie_flows.to_string()),
        ("limited_clients", engine.limited_clients.to_string()),
        ("persistent_clients", engine.persistent_clients.to_string()),
    ]
}

/// The keys of `[timeouts]`.
pub(in crate::control) fn timeouts(timeouts: Timeouts) -> Keys {
    timeouts.each().map(|(key, seconds)| (key, seconds.to_string())).into()
}

/// The keys of `[control]`.
pub(in crate::control) fn control(desired: &Desired) -> Keys {
    vec![
        ("socket", text(&desired.control_socket.to_string_lossy())),
        ("admins", people(&desired.roles.admins)),
        ("readers", people(&desired.roles.readers)),
        ("state", text(&desired.state_file.to_string_lossy())),
    ]
}

/// The keys of `[web]`. What the files hold is not among them.
pub(in crate::control) fn web(web: &Web) -> Keys {
    let addresses: Vec<String> = web.listen.iter().map(|address| text(&address.to_string())).collect();
    let mut keys = vec![("address", list(&addresses)), ("port", web.port.to_string())];
    if let Some(tls) = &web.tls {
        keys.push(("certificate", text(&tls.certificate.to_string_lossy())));
        keys.push(("key", text(&tls.key.to_string_lossy())));
    }
    if let Some(users) = &web.users {
        keys.push(("users", text(&users.file.to_string_lossy())));
        let admins = users.list.iter().filter(|user| user.role == Role::Admin);
        let admins: Vec<String> = admins.map(|user| text(&user.name)).collect();
        keys.push(("admins", list(&admins)));
    }
    keys
}

/// The keys of an `[[interface]]`.
pub(in crate::control) fn interface(interface: &Interface) -> Keys {
    let queues = interface.queues.as_deref().map_or_else(|| text("all"), list);
    vec![("name", text(&interface.name)), ("queues", queues)]
}

/// The keys of a `[[neighbor]]`.
pub(in crate::control) fn neighbor(neighbor: &Neighbor) -> Keys {
    let mut keys = vec![("address", text(&neighbor.address.to_string())), ("mac", text(&neighbor.mac.to_string()))];
    keys.extend(neighbor.interface.as_deref().map(|name| ("interface", text(name))));
    keys.extend(neighbor.vlan.map(|vlan| ("vlan", vlan.to_string())));
    keys
}

/// The keys of a `[[service]]`, without its servers. `others`: the timeouts of services that say nothing.
pub(in crate::control) fn service(service: &Service, others: Timeouts) -> Keys {
    let mut keys = vec![
        ("name", text(&service.name)),
        ("address", text(&service.key.address.to_string())),
        ("protocol", text(service.key.protocol.name())),
        ("port", port(service.key.ports)),
        ("scheduler", text(service.scheduler.name)),
    ];
    let flags: Vec<String> = schedule::flags(service.scheduler).iter().map(|flag| text(flag)).collect();
    if !flags.is_empty() {
        keys.push(("scheduler_flags", format!("[{}]", flags.join(", "))));
    }
    if service.scheduler.table_size != 0 {
        keys.push(("mh_table_size", service.scheduler.table_size.to_string()));
    }
    keys.push(("method", text(service.method.name())));
    keys.extend(settings(service));
    keys.extend(life(service, others));
    keys.extend(persistence(service));
    keys.extend(health::of_service(&service.health));
    keys
}

/// The keys of a `[[service.server]]`, without its checks.
pub(in crate::control) fn server(server: &Server) -> Keys {
    let mut keys = vec![("address", text(&server.address.to_string()))];
    keys.extend(server.port.map(|port| ("port", port.to_string())));
    keys.push(("weight", server.weight.to_string()));
    keys.push(("method", text(server.method.name())));
    keys.push(("drain", server.drain.to_string()));
    keys.extend(server.upper.map(|flows| ("upper_threshold", flows.to_string())));
    keys.extend(server.lower.map(|flows| ("lower_threshold", flows.to_string())));
    if let Some(id) = &server.quic_id {
        let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        keys.push(("quic_id", text(&digits)));
    }
    keys.extend(health::of_server(server));
    keys
}

/// The lists, those from files too.
fn access(out: &mut String, access: &Access) {
    let listed = |wanted| {
        let mut list = String::from("[");
        for (prefix, _) in access.lists().iter().filter(|(_, judgement)| *judgement == wanted) {
            let _ = write!(list, "\n    \"{prefix}\",");
        }
        list.push_str(if list.len() > 1 { "\n]" } else { "]" });
        list
    };
    let keys = [
        ("default", text(access.default.name())),
        ("deny", listed(Judgement::Deny)),
        ("allow", listed(Judgement::Allow)),
    ];
    table(out, "[access]", &keys);
}

/// The settings of a service that only some methods and protocols take.
fn settings(service: &Service) -> Vec<(&'static str, String)> {
    let mut keys = Vec::new();
    if !service.local_addresses.is_empty() {
        keys.push(("local_addresses", addresses(service.local_addresses.iter())));
    }
    keys.push(("proxy_protocol", text(if service.proxy_protocol { "v2" } else { "off" })));
    keys.push(("mss_clamp", service.mss_clamp.map_or_else(|| text("off"), |bytes| bytes.to_string())));
    if service.servers.iter().map(|server| server.method).chain([service.method]).any(Method::is_tunnel) {
        let tunnel = &service.tunnel;
        let sources = [tunnel.source_v4.map(IpAddr::V4), tunnel.source_v6.map(IpAddr::V6)];
        if sources.iter().any(Option::is_some) {
            keys.push(("tunnel_source", addresses(sources.iter().flatten())));
        }
        keys.push(("tunnel_ttl", tunnel.ttl.map_or_else(|| text("inherit"), |ttl| ttl.to_string())));
        keys.push(("tunnel_source_spread", tunnel.source_spread_bits.to_string()));
        keys.push(("gue_port", tunnel.gue_port.to_string()));
    }
    keys
}

/// The life of a service's flows. `others`: the timeouts of services that say nothing.
fn life(service: &Service, others: Timeouts) -> Vec<(&'static str, String)> {
    let fate = |fate| {
        text(match fate {
            Fate::Keep => "keep",
            Fate::Reschedule => "reschedule",
            Fate::Reset => "reset",
        })
    };
    let (limits, fates) = (&service.limits, &service.fates);
    let mut keys = vec![("one_packet", service.one_packet.to_string())];
    keys.extend(limits.connections.map(|most| ("max_connections", most.to_string())));
    if let Some(rate) = limits.rate {
        keys.extend([("max_rate", rate.per_second.to_string()), ("max_rate_burst", rate.burst.to_string())]);
    }
    keys.extend(limits.client_connections.map(|most| ("client_max_connections", most.to_string())));
    if let Some(rate) = limits.client_rate {
        keys.push(("client_max_rate", rate.per_second.to_string()));
        keys.push(("client_max_rate_burst", rate.burst.to_string()));
    }
    if limits.client_connections.is_some() || limits.client_rate.is_some() {
        keys.push(("client_prefix_ipv4", limits.client_prefix_v4.to_string()));
        keys.push(("client_prefix_ipv6", limits.client_prefix_v6.to_string()));
    }
    keys.push(("flows_of_removed", fate(fates.removed)));
    keys.push(("flows_of_down", fate(fates.down)));
    keys.push(("flows_of_drained", fate(fates.drained)));
    keys.push(("drain_deadline", service.drain_deadline.map_or_else(|| text("off"), |seconds| seconds.to_string())));
    let pairs = service.timeouts.each().into_iter().zip(others.each());
    let own: Vec<String> =
        pairs.filter(|(own, other)| own != other).map(|((key, seconds), _)| format!("{key} = {seconds}")).collect();
    if !own.is_empty() {
        keys.push(("timeouts", format!("{{ {} }}", own.join(", "))));
    }
    keys
}

/// How a service keeps its clients.
fn persistence(service: &Service) -> Vec<(&'static str, String)> {
    let Some(persistence) = &service.persistence else { return vec![("persistence", text("off"))] };
    let mut keys = Vec::new();
    if persistence.seconds > 0 {
        keys.push(("persistence", persistence.seconds.to_string()));
    }
    let by = match persistence.by {
        PersistBy::Client => "client",
        PersistBy::SipCallId => "sip-call-id",
        PersistBy::QuicServerId { .. } => "quic-server-id",
    };
    keys.push(("persistence_by", text(by)));
    // The key of the other family has no meaning.
    keys.push(match service.key.address {
        IpAddr::V4(_) => ("persistence_prefix_v4", persistence.prefix_v4.to_string()),
        IpAddr::V6(_) => ("persistence_prefix_v6", persistence.prefix_v6.to_string()),
    });
    keys.push(("persistence_drained", text(if persistence.leave_drained { "leave" } else { "keep" })));
    if let PersistBy::QuicServerId { rotation, length } = persistence.by {
        keys.push(("quic_rotation", rotation.to_string()));
        keys.push(("quic_server_id_length", length.to_string()));
    }
    keys.extend(service.group.as_deref().map(|group| ("group", text(group))));
    keys
}

fn addresses<'a>(all: impl Iterator<Item = &'a IpAddr>) -> String {
    let all: Vec<String> = all.map(|address| text(&address.to_string())).collect();
    format!("[{}]", all.join(", "))
}

fn people(all: &[Who]) -> String {
    let all: Vec<String> = all.iter().map(|who| text(who.word())).collect();
    format!("[{}]", all.join(", "))
}

/// A range also where it is a single port.
fn local_ports(ports: PortRange) -> String {
    format!("{}-{}", ports.first, ports.last)
}

fn table(out: &mut String, header: &str, keys: &[(&str, String)]) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{header}");
    for (key, value) in keys {
        let _ = writeln!(out, "{key} = {value}");
    }
}

fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(", "))
}

fn port(ports: PortRange) -> String {
    ports.as_single().map_or_else(|| text(&ports.to_string()), |port| port.to_string())
}
