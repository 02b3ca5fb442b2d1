//! From facts to findings: one function for each group.
//!
//! Owns which groups there are, and what is said of the configuration itself. Never looks at the machine. Pure.

mod interfaces;
mod machine;
mod network;
mod peers;
#[cfg(test)]
mod tests;

pub use machine::memory_need;

use super::facts::Facts;
use super::finding::{Finding, Group, Level};
use crate::model::Service;

/// All findings, in the order of the groups.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all = configuration(facts);
    all.extend(machine::kernel(facts));
    all.extend(interfaces::interfaces(facts));
    all.extend(machine::memory(facts));
    all.extend(machine::cores(facts));
    all.extend(network::network(facts));
    all.extend(network::vrrp(facts));
    all.extend(machine::time(facts));
    all.extend(peers::peers(facts));
    all
}

fn configuration(facts: &Facts) -> Vec<Finding> {
    let group = Group::Configuration;
    let Some(file) = &facts.file else {
        let why = "interfaces, cores and memory are judged by what a configuration needs";
        return vec![Finding::new(Level::Note, "no-config", group, "configuration", "none was given", why)];
    };
    let mut all = Vec::new();
    for mistake in &facts.mistakes {
        let level = if mistake.error { Level::Problem } else { Level::Warning };
        let why = if mistake.error { "the engine refuses the file" } else { "probably not what is meant" };
        let finding = Finding::new(level, "config", group, file, mistake.text.trim_end(), why);
        all.push(finding.mend(format!("edit {file}, then `evenkeel check {file}`")));
    }
    let Some(desired) = &facts.desired else { return all };
    all.push(Finding::fine("config", group, file, format!("{} services are sound", desired.services.len())));
    for note in &facts.notes {
        all.push(Finding::new(Level::Note, "usual-check", group, file, note, ""));
    }
    if facts.engine_runs {
        let (what, why) = ("an engine runs with this control socket", "what it holds is not free for another");
        all.push(Finding::new(
            Level::Note,
            "engine-runs",
            group,
            desired.control_socket.display().to_string(),
            what,
            why,
        ));
    }
    desired.services.iter().for_each(|service| all.extend(of_service(service, group)));
    if desired.vrrp.routers.is_empty() {
        let why = "the service addresses are gone while this machine is; a second appliance takes over by `[[virtual_router]]`";
        all.push(Finding::new(Level::Note, "no-vrrp", group, file, "there is no virtual router", why));
    }
    all
}

fn of_service(service: &Service, group: Group) -> Vec<Finding> {
    let name = format!("service {}", service.name);
    let mut all = Vec::new();
    let mut say = |level, id, found: &str, why: &str| all.push(Finding::new(level, id, group, &name, found, why));
    match service.servers.len() {
        0 => say(Level::Warning, "no-servers", "it has no server", "every client is refused"),
        1 => say(Level::Note, "one-server", "it has one server", "nobody takes over from it"),
        _ => {}
    }
    let unchecked = service.servers.iter().filter(|server| server.health.checks.is_empty()).count();
    if unchecked > 0 {
        let found = format!("{unchecked} of {} servers have no check", service.servers.len());
        let why = "one that answers ARP and nothing else goes on to get clients; write a `[[service.check]]`";
        say(Level::Warning, "no-checks", &found, why);
    }
    if !service.servers.is_empty() && service.servers.iter().all(|server| server.weight == 0 || server.drain) {
        let why = "no new client is served; give a server a weight above 0";
        say(Level::Warning, "all-drained", "every server has weight 0 or drains", why);
    }
    if (1..60).contains(&service.timeouts.tcp_established) {
        let found = format!("established connections are forgotten after {} s", service.timeouts.tcp_established);
        say(Level::Note, "short-timeout", &found, "connections that are silent for longer may change their server");
    }
    all
}
