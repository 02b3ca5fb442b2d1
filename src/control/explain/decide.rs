//! The way of a packet, step by step, as the pipeline goes it. Pure.
//!
//! Owns the order of the steps and what each found. Where the pipeline takes something (a place in a sequence, a token of a
//! rate), this looks only.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::servers::{self, Choice};
use super::{By, Explanation, Fortune, Question, Step, WayRow, with_port};
use crate::control::flows::FlowRow;
use crate::dataplane::answer::is_martian;
use crate::dataplane::director::Director;
use crate::dataplane::limits::{Admission, ClientLimits};
use crate::dataplane::persist::Subject;
use crate::dataplane::schedule::{self, Member};
use crate::dataplane::snapshot::{ServiceEntry, Snapshot, Way};
use crate::dataplane::verdict::{DropReason, Verdict};
use crate::model::{Fate, Judgement, PersistBy, Persistence, Protocol, Server, Service, SynCookies};

/// How a server is, in words; empty where there is nothing to say.
pub type Health<'k> = &'k dyn Fn(&Service, &Server) -> String;

/// What is known of the engine.
pub struct Known<'k> {
    /// The snapshot in force.
    pub snapshot: &'k Snapshot,
    /// What workers share besides.
    pub director: &'k Director,
    /// The workers' clock: milliseconds, wraps.
    pub now: u32,
    /// Names of the interfaces, by their numbers.
    pub interfaces: &'k [String],
    /// Flows of the client with what it asks for: those of its port, where it is given.
    pub flows: &'k [FlowRow],
    /// Whether all of them are there: else the workers had no time to look at every one.
    pub is_complete: bool,
    /// The virtual router of an address.
    pub router: &'k dyn Fn(IpAddr) -> Option<String>,
    /// How a server is.
    pub health: Health<'k>,
}

/// The end of the way.
struct End {
    fortune: Fortune,
    reason: Option<DropReason>,
    summary: String,
}

impl End {
    fn drop(reason: DropReason) -> End {
        let text = reason.describe();
        let summary = format!("dropped as {}: {}", reason.name(), text.trim_end_matches('.'));
        End { fortune: Fortune::Dropped, reason: Some(reason), summary }
    }

    fn of(fortune: Fortune, summary: impl Into<String>) -> End {
        End { fortune, reason: None, summary: summary.into() }
    }
}

/// Says what would become of a packet.
pub fn explain(question: &Question, known: &Known<'_>) -> Explanation {
    let mut told = Explanation {
        client: with_port(question.client, question.port.unwrap_or(0)),
        to: question.to.to_string(),
        protocol: question.protocol,
        fortune: Fortune::Passed,
        reason: None,
        summary: String::new(),
        service: None,
        server: None,
        by: None,
        steps: Vec::new(),
        next_hop: None,
        servers: Vec::new(),
    };
    let End { fortune, reason, summary } = walk(&mut told, question, known);
    Explanation { fortune, reason: reason.map(|reason| reason.name().to_owned()), summary, ..told }
}

fn step(told: &mut Explanation, step: &str, says: impl Into<String>) {
    told.steps.push(Step { step: step.to_owned(), says: says.into() });
}

fn walk(told: &mut Explanation, asked: &Question, known: &Known<'_>) -> End {
    let (snapshot, address) = (known.snapshot, asked.to.ip());
    if let Some(end) = whose(told, known, address) {
        return end;
    }
    let Some(index) = snapshot.service(address, asked.protocol.number(), asked.to.port()) else {
        return no_service(told, asked, known);
    };
    let Some(service) = snapshot.services.get(usize::from(index)) else { return no_service(told, asked, known) };
    told.service = Some(service.config.name.clone());
    step(told, "service", format!("{} ({})", service.config.name, service.key()));
    if let Some(end) = access(told, known, asked.client) {
        return end;
    }
    if let Some(end) = known_flow(told, asked, known, service) {
        return end;
    }
    if is_martian(asked.client) {
        step(told, "access", "no client has this address");
        return End::drop(DropReason::MartianSource);
    }
    if snapshot.owns(asked.client) {
        step(told, "access", "the client's address is one of the appliance's own");
        return End::drop(DropReason::OwnSource);
    }
    let cookie = flood(told, asked, known, index);
    if let Some(end) = limits(told, asked, known, service) {
        return end;
    }
    new_flow(told, asked, known, (index, service), cookie)
}

/// Who answers for the address.
fn whose(told: &mut Explanation, known: &Known<'_>, address: IpAddr) -> Option<End> {
    let ownership = &known.snapshot.ownership;
    let router = (known.router)(address);
    if ownership.is_anothers(address) {
        let router = router.map(|name| format!("the virtual router {name}")).unwrap_or("a virtual router".to_owned());
        step(told, "address", format!("{address} is of {router}, of which another appliance is master: silence here"));
        return Some(End::drop(DropReason::NotMaster));
    }
    match (ownership.known(address), router) {
        (None, _) => step(told, "address", format!("{address} is no address of the appliance's services")),
        (Some(_), Some(name)) => {
            let text = format!("{address} is of the virtual router {name}, of which this appliance is master");
            step(told, "address", text);
        }
        (Some(_), None) => step(told, "address", format!("{address} is answered for, by no virtual router")),
    }
    None
}

fn no_service(told: &mut Explanation, asked: &Question, known: &Known<'_>) -> End {
    let (address, port) = (asked.to.ip(), asked.to.port());
    if known.snapshot.local_slot(address).is_some() {
        step(told, "service", "it is a local address of full NAT: only answers of servers come to it");
        return End::drop(DropReason::NoFlow);
    }
    let keys = || known.snapshot.services.iter().map(|service| (service.key(), &service.config.name));
    let distance = |first: u16, last: u16| if port < first { first - port } else { port.saturating_sub(last) };
    // The same port by another protocol, the nearest ports of the address, the same port of other addresses.
    let mut near: Vec<(u32, String)> = keys()
        .filter_map(|(key, name)| {
            let away = match (key.address == address, key.protocol == asked.protocol, key.ports.contains(port)) {
                (true, false, true) => 0,
                (true, true, _) => 1 + u32::from(distance(key.ports.first, key.ports.last)),
                (false, true, true) => 100_000,
                (true, false, false) => 200_000,
                _ => return None,
            };
            Some((away, format!("{name} ({key})")))
        })
        .collect();
    near.sort();
    let near: Vec<String> = near.into_iter().take(3).map(|(_, text)| text).collect();
    let mut says = format!("none on {} {}", asked.protocol, asked.to);
    if !near.is_empty() {
        let _ = write!(says, "; nearest: {}", near.join(", "));
    }
    step(told, "service", says);
    End::of(Fortune::Passed, "no service: left to the appliance's kernel")
}

/// The rule of the access lists that holds for a client.
fn access(told: &mut Explanation, known: &Known<'_>, client: IpAddr) -> Option<End> {
    let lists = known.snapshot.access.lists();
    let rule = lists.lists().iter().filter(|(prefix, _)| prefix.contains(client)).max_by_key(|(p, _)| p.length());
    let denied = known.snapshot.access.denies(client);
    let word = if denied { "denied" } else { "allowed" };
    let says = match rule {
        Some((prefix, judgement)) => {
            format!(
                "{word}: {} {}/{} is the longest prefix that has it",
                judgement.name(),
                prefix.address(),
                prefix.length()
            )
        }
        None if lists.lists().is_empty() && lists.default == Judgement::Allow => "no lists".to_owned(),
        None => format!("{word}: in no list, and `default` is {}", lists.default.name()),
    };
    step(told, "access", says);
    denied.then(|| End::drop(DropReason::Denied))
}

/// A flow that is there already decides.
fn known_flow(told: &mut Explanation, asked: &Question, known: &Known<'_>, service: &ServiceEntry) -> Option<End> {
    let incomplete = if known.is_complete { "" } else { "; the workers have so many that not all were looked at" };
    let flow = match (known.flows, asked.port) {
        ([], _) => {
            let whose = if asked.port.is_some() { "none with this port" } else { "none of this client" };
            step(told, "flow", format!("{whose}: a packet opens one{incomplete}"));
            return None;
        }
        (flows, None) => {
            let ports: Vec<String> = flows.iter().take(5).map(|flow| flow.client.port().to_string()).collect();
            let more = if flows.len() > 5 { ", ..." } else { "" };
            let (count, ports) = (flows.len(), ports.join(", "));
            let plural = if count == 1 { "" } else { "s" };
            step(
                told,
                "flow",
                format!("{count} flow{plural} of this client (port {ports}{more}){incomplete}; explained is a new one"),
            );
            return None;
        }
        ([flow, ..], Some(_)) => flow,
    };
    let mut says = format!("in {} for {} ms, at worker {}", flow.state, flow.idle_ms, flow.worker);
    if !flow.proven {
        says.push_str(", not confirmed by its client yet");
    }
    let end = flow.server?;
    let of_flow = |member: &&Member| member.address == end.ip() && (member.port == 0 || member.port == end.port());
    let Some(member) = service.all().find(of_flow) else {
        step(told, "flow", format!("{says}; its server {end} is gone: the next packet is scheduled anew"));
        return None;
    };
    let server = known.snapshot.server(member.id)?;
    if server.reachable {
        step(told, "flow", format!("{says}; it stays with {end} (a SYN that begins anew in a closed one does not)"));
        told.servers = servers::of_flow(service, member, known.health);
        return Some(goes(told, known, member, By::Flow, asked.to.port()));
    }
    match known.snapshot.fate(member.id) {
        Some(Fate::Reschedule) => {
            step(told, "flow", format!("{says}; its server {end} does not serve it any more: scheduled anew"));
            None
        }
        Some(Fate::Reset) if asked.protocol != Protocol::Tcp => {
            step(told, "flow", format!("{says}; its server {end} does not serve it any more: its client is told"));
            Some(End::of(Fortune::Answered, "answered by ICMP port unreachable: the flow's server is gone"))
        }
        Some(Fate::Reset) => {
            step(told, "flow", format!("{says}; its server {end} does not serve it any more: its client is told"));
            Some(End::of(Fortune::Answered, "answered by a TCP reset: the flow's server is gone"))
        }
        fate => {
            step(
                told,
                "flow",
                format!("{says}; its server {end} cannot be reached, and the flow is kept for when it can"),
            );
            Some(End::drop(if fate.is_some() { DropReason::ServerGone } else { DropReason::NoNextHop }))
        }
    }
}

/// Whether a SYN is answered by a cookie.
fn flood(told: &mut Explanation, asked: &Question, known: &Known<'_>, index: u16) -> bool {
    let guard = &known.director.guard;
    let is_on = match known.director.syn_cookies {
        SynCookies::Off => false,
        SynCookies::Always => true,
        SynCookies::Flood => guard.is_on(known.now),
    };
    let cookie = is_on && asked.protocol == Protocol::Tcp && known.snapshot.cookie_mss(index).is_some();
    if cookie {
        step(
            told,
            "flood",
            "SYN cookies are in force: a SYN is answered, and its server is chosen when the client comes back",
        );
    } else if guard.is_on(known.now) {
        step(
            told,
            "flood",
            "a flood goes on: servers are chosen by the client's address and port, whatever the scheduler",
        );
    } else if guard.is_remembered(known.now) {
        step(told, "flood", "one was there a minute ago: servers are chosen by the client's address and port still");
    }
    cookie
}

fn limits(told: &mut Explanation, asked: &Question, known: &Known<'_>, service: &ServiceEntry) -> Option<End> {
    let limits = &service.config.limits;
    if limits.is_none() {
        step(told, "limits", "none");
        return None;
    }
    let mut says = Vec::new();
    let mut end = None;
    let of_client = ClientLimits { connections: limits.client_connections, rate: limits.client_rate };
    if of_client.connections.is_some() || of_client.rate.is_some() {
        let prefix = if asked.client.is_ipv4() { limits.client_prefix_v4 } else { limits.client_prefix_v6 };
        let network = known.director.clients.network(service.tally.id, asked.client, prefix);
        if let Some(most) = of_client.connections {
            says.push(format!("{} of {most} flows of the client's /{prefix}", known.director.clients.count(network)));
        }
        let judged = known.director.clients.judge(network, of_client, known.now);
        if let Some(rate) = of_client.rate {
            let word = if judged == Admission::Rate { "over" } else { "within" };
            says.push(format!("{word} {} new flows a second of the client's /{prefix}", rate.per_second));
        }
        end = match judged {
            Admission::Connections => Some(DropReason::ClientConnections),
            Admission::Rate => Some(DropReason::ClientRate),
            Admission::Admitted | Admission::NoRoom => None,
        };
    }
    if let Some(most) = limits.connections {
        let flows = service.tally.flows.get();
        says.push(format!("{flows} of {most} flows of the service"));
        end = end.or((flows >= most).then_some(DropReason::ServiceConnections));
    }
    if let Some(rate) = limits.rate {
        let has = service.state.rate.has(rate, known.now);
        let word = if has { "within" } else { "over" };
        says.push(format!("{word} {} new flows a second of the service", rate.per_second));
        end = end.or((!has).then_some(DropReason::ServiceRate));
    }
    step(told, "limits", says.join(", "));
    end.map(End::drop)
}

/// The server that a persistent client has, where it may still have it.
fn persistent<'s>(
    told: &mut Explanation,
    asked: &Question,
    known: &Known<'_>,
    service: &'s ServiceEntry,
) -> Option<&'s Member> {
    let Some(persistence) = &service.config.persistence else {
        step(told, "persistence", "none");
        return None;
    };
    match persistence.by {
        PersistBy::SipCallId => {
            step(told, "persistence", "by Call-ID: a call that is known keeps its server; explained is a new one");
            return None;
        }
        PersistBy::QuicServerId { .. } => {
            step(
                told,
                "persistence",
                "by QUIC connection id: one that names a server goes there; explained is one that names none",
            );
        }
        PersistBy::Client => {}
    }
    if persistence.seconds == 0 {
        return None;
    }
    let subject = Subject::new(service.unit, asked.client, persistence, &[]);
    let prefix = if asked.client.is_ipv4() { persistence.prefix_v4 } else { persistence.prefix_v6 };
    let Some(real) = known.director.templates.peek(&subject, known.now) else {
        step(
            told,
            "persistence",
            format!("the client's /{prefix} has no server yet: it gets one for {} s", persistence.seconds),
        );
        return None;
    };
    let Some(member) = service.real(real) else {
        step(told, "persistence", "the client's server is gone from the service: another is chosen");
        return None;
    };
    let name = name(member, asked.to.port());
    match kept(known.snapshot, member, persistence) {
        Ok(()) => {
            step(told, "persistence", format!("the client's /{prefix} has {name}, whatever its weight and threshold"));
            Some(member)
        }
        Err(why) => {
            step(told, "persistence", format!("the client's /{prefix} had {name}, which {why}: another is chosen"));
            None
        }
    }
}

/// Whether a persistent client may still have a server, as the pipeline asks it.
fn kept(snapshot: &Snapshot, member: &Member, persistence: &Persistence) -> Result<(), &'static str> {
    if member.weight == 0 && persistence.leave_drained {
        return Err("has weight 0, and clients leave such servers");
    }
    let reached = snapshot.server(member.id).is_some_and(|server| server.reachable);
    if member.reachable && reached { Ok(()) } else { Err("is out") }
}

fn new_flow(
    told: &mut Explanation,
    asked: &Question,
    known: &Known<'_>,
    (index, service): (u16, &ServiceEntry),
    cookie: bool,
) -> End {
    let stateless = known.director.guard.is_remembered(known.now);
    let fixed = persistent(told, asked, known, service);
    let choice = match fixed {
        Some(member) => Choice::fixed(member.id),
        None => servers::choose(service, asked, known.now, stateless),
    };
    told.servers = servers::rows(service, asked, known.snapshot, &choice, known.health);
    let flags = schedule::flags(service.config.scheduler).join(",");
    let scheduler = match (stateless, flags.as_str()) {
        (true, _) => "by the flood's hash".to_owned(),
        (false, "") => service.config.scheduler.name.to_owned(),
        (false, flags) => format!("{} ({flags})", service.config.scheduler.name),
    };
    let chosen = choice.taken.and_then(|id| service.members.iter().find(|member| member.id == id));
    if fixed.is_none() {
        let says = match (chosen, choice.shares.is_empty()) {
            (Some(member), _) if service.config.one_packet && !is_nat(known, member) => {
                format!("{scheduler}: the next packet gets {}, each is scheduled anew", name(member, asked.to.port()))
            }
            (Some(member), _) => format!("{scheduler}: the next new flow gets {}", name(member, asked.to.port())),
            (None, false) if choice.by_port => format!("{scheduler}: the client's port decides, which was not given"),
            (None, false) => format!("{scheduler}: draws lots among the servers that are available"),
            (None, true) if told.servers.iter().any(|row| row.available) => {
                format!("{scheduler}: the server that the client falls to takes no new flows, and no other is asked")
            }
            (None, true) => format!("{scheduler}: no server can be had"),
        };
        step(told, "scheduler", says);
    }
    if let Some(member) = chosen {
        let by = if fixed.is_some() { By::Persistence } else { By::Scheduler };
        let end = goes(told, known, member, by, asked.to.port());
        if cookie && end.fortune != Fortune::Dropped {
            return End::of(Fortune::Answered, format!("a SYN is answered by a cookie; then {}", end.summary));
        }
        return end;
    }
    if !choice.shares.is_empty() {
        told.by = Some(By::Lot);
        let to = if choice.by_port { "the client's port decides between" } else { "lots decide between" };
        let some = told.servers.iter().filter(|row| row.available).count();
        return End::of(
            if cookie { Fortune::Answered } else { Fortune::Forwarded },
            format!("{to} {some} servers of {}", service.config.name),
        );
    }
    if known.snapshot.refuses(index) {
        let how = if asked.protocol == Protocol::Tcp { "a TCP reset" } else { "ICMP port unreachable" };
        return End::of(Fortune::Answered, format!("answered by {how}: {} has no server", service.config.name));
    }
    End::drop(DropReason::NoServer)
}

fn is_nat(known: &Known<'_>, member: &Member) -> bool {
    known.snapshot.server(member.id).is_some_and(|server| matches!(server.way, Way::Nat | Way::FullNat))
}

/// A member as people write it; `port` is what the client asked for.
pub(super) fn name(member: &Member, port: u16) -> String {
    with_port(member.address, if member.port == 0 { port } else { member.port })
}

/// The last step: by which way the packet leaves.
fn goes(told: &mut Explanation, known: &Known<'_>, member: &Member, by: By, port: u16) -> End {
    let snapshot = known.snapshot;
    let server = name(member, port);
    let Some(entry) = snapshot.server(member.id).filter(|entry| entry.reachable) else {
        step(told, "next hop", format!("{server} has none"));
        return End::drop(DropReason::NoNextHop);
    };
    told.server = Some(server.clone());
    told.by = Some(by);
    let target = snapshot.target(member.id);
    let tunnel = target.and_then(|target| target.tunnel.as_ref());
    let configured = snapshot.service_of(member.id).and_then(|service| {
        let is_it = |server: &&Server| servers::ends(&service.config, server) == (member.address, member.port);
        service.config.all_servers().find(is_it).map(|server| server.method.name())
    });
    let method = if entry.way == Way::Local { "local" } else { configured.unwrap_or("dr") };
    if entry.way == Way::Local {
        told.next_hop = Some(WayRow {
            method: method.to_owned(),
            interface: None,
            mac: None,
            vlan: None,
            mtu: u32::from(u16::MAX),
            tunnel_source: None,
            local_addresses: Vec::new(),
        });
        step(told, "next hop", "the server is this machine: left to the kernel");
        return End::of(Fortune::Passed, format!("goes to {server}, which is this machine"));
    }
    let interface = match entry.outcome.verdict {
        Verdict::Tx(port) => known.interfaces.get(usize::from(port)).cloned(),
        _ => None,
    };
    let [a, b, c, d, e, f, ..] = entry.macs;
    let mac = crate::model::MacAddr([a, b, c, d, e, f]).to_string();
    let frame = tunnel.map_or(entry.max_frame, |tunnel| tunnel.largest_frame(entry.max_frame, known.now));
    let mtu = u32::from(frame).saturating_sub(14 + tunnel.map_or(0, |tunnel| tunnel.overhead()));
    let locals = target.map(|target| &target.locals[..]).unwrap_or_default();
    let local_addresses: Vec<IpAddr> =
        locals.iter().filter_map(|slot| snapshot.locals.get(usize::from(*slot)).copied().flatten()).collect();
    let vlan = (entry.vlan != crate::dataplane::parse::NO_VLAN).then_some(entry.vlan);
    let tunnel_source = tunnel.map(|tunnel| tunnel.source());
    let mut says = format!("{mac} by {}", interface.as_deref().unwrap_or("?"));
    if let Some(vlan) = vlan {
        let _ = write!(says, ", VLAN {vlan}");
    }
    let _ = write!(says, ", {method}, packets of up to {mtu} bytes");
    if let Some(source) = tunnel_source {
        let _ = write!(says, ", tunnel from {source}");
    }
    if !local_addresses.is_empty() {
        let all: Vec<String> = local_addresses.iter().map(IpAddr::to_string).collect();
        let _ = write!(says, ", from a port of {}", all.join(", "));
    }
    step(told, "next hop", says);
    let method = method.to_owned();
    told.next_hop = Some(WayRow { method, interface, mac: Some(mac), vlan, mtu, tunnel_source, local_addresses });
    End::of(Fortune::Forwarded, format!("goes to {server}"))
}
