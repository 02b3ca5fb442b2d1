//! What the results of checks mean to a service, as it is written: quorum, sorry server, damping, passive checks, programs.
//!
//! Owns the rules of these keys within one `[[service]]`. Pure.

use super::checks::{self, Site};
use super::services;
use crate::control::config::problem::Collector;
use crate::control::config::raw::{At, Entry};
use crate::model::{Damping, Health, NoServer, OnFailure, Passive, Quorum, Server, Service};

/// Fills in what a service says about health. `has_nat`: it, or one of its servers, has NAT or full NAT.
pub(super) fn of_service(entry: &Entry, mut service: Service, has_nat: bool, out: &mut Collector<'_>) -> Service {
    service.health = Health {
        quorum: quorum(entry, &service.servers, out),
        sorry: sorry(entry, &service, out).map(Box::new),
        no_server: match entry.word("no_server").map(|word| word.value) {
            Some("drop") => NoServer::Drop,
            _ => NoServer::Refuse,
        },
        slow_start: entry.seconds("slow_start").map(|seconds| seconds.value),
        damping: entry.tables("damping").first().and_then(damping),
        passive: entry.tables("passive").first().and_then(|table| passive(table, has_nat, out)),
        script_user: entry.text("script_user").map(|user| user.value),
    };
    let on_failure = entry.word("on_failure");
    let entries = entry.tables("server");
    // Not where one was refused: then it is not known which is which.
    let pairs = (entries.len() == service.servers.len()).then(|| service.servers.iter_mut().zip(entries));
    for (server, entry) in pairs.into_iter().flatten() {
        let on_failure = entry.word("on_failure").or(on_failure).map(|word| word.value);
        server.health.on_failure = if on_failure == Some("inhibit") { OnFailure::Inhibit } else { OnFailure::Remove };
        server.health.drain_file = entry.text("drain_file").map(|path| path.value.into());
        server.health.notify_up = entry.command("notify_up").map(|command| command.value);
        server.health.notify_down = entry.command("notify_down").map(|command| command.value);
    }
    add_checks(entry, &mut service, out);
    service
}

/// Gives each server its checks: its own, else those of the service, else the usual one.
fn add_checks(entry: &Entry, service: &mut Service, out: &mut Collector<'_>) {
    let user = service.health.script_user.clone();
    let site = Site { key: service.key, tunnel: service.tunnel };
    let of_all = checks::listed(entry, user.as_deref(), out);
    let nothing_for_all = entry.tables("check").is_empty();
    let entries = entry.tables("server");
    let known = entries.len() == service.servers.len();
    for (index, entry) in entries.iter().enumerate() {
        let own = checks::listed(entry, user.as_deref(), out);
        let mut server = service.servers.get_mut(index).filter(|_| known);
        for wanted in own.iter().flatten() {
            checks::add(wanted, site, server.iter_mut().map(|server| &mut **server), out);
        }
        if let Some(server) = server.filter(|_| nothing_for_all && entry.tables("check").is_empty()) {
            server.health.checks = vec![checks::usual(site.key, server)];
            server.health.default_check = true;
        }
    }
    for wanted in of_all.iter().flatten().filter(|_| known) {
        let pairs = service.servers.iter_mut().zip(entries);
        let without_own = pairs.filter(|(_, entry)| entry.tables("check").is_empty()).map(|(server, _)| server);
        checks::add(wanted, site, without_own, out);
    }
}

fn quorum(entry: &Entry, servers: &[Server], out: &mut Collector<'_>) -> Quorum {
    let least = entry.integer("quorum");
    let hysteresis = entry.integer("quorum_hysteresis");
    if let (Some(least), Some(hysteresis)) = (least, hysteresis)
        && hysteresis.value >= least.value
    {
        let text = format!("the quorum of {} could not be lost any more", least.value);
        out.error(hysteresis.at, entry.key("quorum_hysteresis"), text)
            .expected(format!("at most {}: below `quorum`", least.value - 1))
            .help("lower it, or raise `quorum`");
    }
    let sum: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
    let most = least.map_or(0, |least| u64::from(least.value)) + hysteresis.map_or(0, |more| u64::from(more.value));
    if let Some(least) = least.filter(|least| least.written && most > sum)
        && servers.len() == entry.tables("server").len()
        && !servers.is_empty()
    {
        let text = format!("the servers' weights are {sum} in all, and the quorum is found at {most}");
        out.warning(least.at, entry.key("quorum"), text)
            .help("once lost it is never found again; lower it, or raise the weights");
    }
    Quorum {
        least: least.map_or(1, |least| least.value),
        hysteresis: hysteresis.map_or(0, |hysteresis| hysteresis.value),
        up: entry.command("quorum_up").map(|command| command.value),
        down: entry.command("quorum_down").map(|command| command.value),
    }
}

fn sorry(entry: &Entry, service: &Service, out: &mut Collector<'_>) -> Option<Server> {
    let table = entry.tables("sorry_server").first()?;
    let address = table.address("address")?;
    let method = services::method(table).unwrap_or(service.method);
    let port = services::server_port(table, Some(service.key), Some(method), out);
    services::check_server_address(entry, table, address, Some(method), out);
    let same = |server: &&Server| server.address == address.value && server.port == port;
    if let Some(server) = service.servers.iter().find(same) {
        let text = format!("{} is a server of the service already", server.address);
        out.error(address.at, table.key("address"), text)
            .expected("a server that does not serve until the others are down")
            .help("remove one of them");
    }
    Some(Server::new(address.value, port, 1, method))
}

fn damping(table: &Entry) -> Option<Damping> {
    Some(Damping {
        failures: u16::try_from(table.integer("failures")?.value).ok()?,
        window: table.seconds("window")?.value,
        hold: table.seconds("hold")?.value,
    })
}

fn passive(table: &Entry, has_nat: bool, out: &mut Collector<'_>) -> Option<Passive> {
    if !has_nat {
        out.error(
            table.at,
            table.path.clone(),
            "what servers answer by direct routing or tunnel does not pass the appliance",
        )
        .expected("passive checks only with the method `nat` or `full-nat`")
        .help("remove it, and write a `[[service.check]]` that asks what clients ask");
    }
    let percent = |key| table.integer(key).and_then(|percent: At<u32>| u8::try_from(percent.value).ok());
    Some(Passive {
        failures_percent: percent("failures_percent")?,
        least: table.integer("least")?.value,
        window: table.seconds("window")?.value,
        eject: table.seconds("eject")?.value,
        most_percent: percent("most_percent")?,
    })
}
