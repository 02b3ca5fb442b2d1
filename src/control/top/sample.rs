//! What `evenkeel top` shows, from two looks at the engine: numbers now, and rates between the two.
//!
//! Owns the sums and the rates. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::control::show::services::{server_end, server_state, serves};
use crate::control::status::{ServerStatus, ServiceStatus, Status, WorkerStatus, ago, master_words, with_port};

/// Rates by the second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// New flows.
    pub new: f64,
    /// Packets to servers.
    pub in_packets: f64,
    /// Packets from servers, where they pass by.
    pub out_packets: f64,
    /// Bits to servers.
    pub in_bits: f64,
    /// Bits from servers.
    pub out_bits: f64,
}

/// A service, or a server of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Address and port; for a service with its protocol.
    pub end: String,
    /// A service's name; nothing for a server.
    pub name: String,
    /// A service's scheduler, or that a server is the sorry server.
    pub more: String,
    /// How it is, in a word.
    pub state: String,
    /// Whether that is as it should be.
    pub good: bool,
    /// A server's weight; for a service how many of its servers serve.
    pub weight: String,
    /// Established flows.
    pub active: u64,
    /// Other flows.
    pub inactive: u64,
    /// Its rates; none before the second look.
    pub rates: Option<Rates>,
}

/// A service with its servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The service.
    pub service: Entry,
    /// Its servers.
    pub servers: Vec<Entry>,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Its number and core.
    pub at: (usize, usize),
    /// Share of its time spent on packets, 0 to 1; none where it is dead.
    pub load: Option<f64>,
    /// Frames by the second: received, sent, forwarded, lost because it was late, handed to others; none before the second look.
    pub frames: Option<[f64; 5]>,
    /// IPv4 and IPv6 flows, and most of each.
    pub flows: [u64; 4],
}

/// Drops for one reason.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dropped {
    /// The reason's name.
    pub reason: String,
    /// Packets by the second; none before the second look.
    pub rate: Option<f64>,
    /// Packets since start.
    pub all: u64,
}

/// A virtual router: name, interface, VRID, state, since, priority, master.
pub type Router = [String; 7];

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Version, pid, and what is in force.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since start.
    pub uptime_s: u64,
    /// The configuration file and the number of the snapshot.
    pub config: (String, u64),
    /// Why the last reload was refused, and what else someone should look at.
    pub warnings: Vec<String>,
    /// Services, in the order of the file.
    pub groups: Vec<Group>,
    /// Workers.
    pub workers: Vec<Load>,
    /// Drops, the most frequent of late first.
    pub drops: Vec<Dropped>,
    /// Virtual routers.
    pub routers: Vec<Router>,
    /// Flows that their clients have not confirmed yet.
    pub unproven: u64,
    /// Rates over all services.
    pub rates: Option<Rates>,
}

/// What tells servers apart over two looks: service, address, port, and whether it is the sorry server.
type Key<'s> = (&'s str, &'s str, Option<u16>, bool);

/// Takes a sample. `before`: the look before, and how long ago it was.
pub fn take(before: Option<(&Status, Duration)>, now: &Status) -> Sample {
    // Another process counts from zero.
    let before = before.filter(|(status, _)| status.engine.pid == now.engine.pid);
    let seconds = before.map_or(1.0, |(_, ago)| ago.as_secs_f64().max(0.001));
    let old = before.map(|(status, _)| status);
    let mut servers: HashMap<Key<'_>, &ServerStatus> = HashMap::new();
    for service in old.map_or(&[][..], |status| &status.services) {
        servers.extend(service.servers.iter().map(|s| (key(service, s, false), s)));
        servers.extend(service.sorry.as_deref().map(|s| (key(service, s, true), s)));
    }
    let group = |service: &ServiceStatus| {
        let one = |server: &ServerStatus, sorry: bool| {
            let then = servers.get(&key(service, server, sorry));
            let rates = old.map(|_| then.map_or(Rates::default(), |then| rates(then, server, seconds)));
            server_entry(service, server, sorry, rates)
        };
        let mut rows: Vec<Entry> = service.servers.iter().map(|server| one(server, false)).collect();
        rows.extend(service.sorry.as_deref().map(|server| one(server, true)));
        Group { service: service_entry(service, &rows), servers: rows }
    };
    let groups: Vec<Group> = now.services.iter().map(group).collect();
    let loads = now.workers.iter().map(|worker| {
        let then = old.and_then(|old| old.workers.iter().find(|one| one.worker == worker.worker));
        load(worker, then, seconds)
    });
    let routers = now.vrrp.iter().flat_map(|vrrp| &vrrp.routers).map(|router| {
        let priority = match router.priority == router.base_priority {
            true => router.priority.to_string(),
            false => format!("{} of {}", router.priority, router.base_priority),
        };
        let (vrid, since) = (router.vrid.to_string(), ago(router.for_ms));
        [
            router.name.clone(),
            router.interface.clone(),
            vrid,
            router.state.clone(),
            since,
            priority,
            master_words(router),
        ]
    });
    let refused = now.config.last_error.iter().map(|error| format!("the last reload was refused: {error}"));
    Sample {
        version: now.engine.version.clone(),
        pid: now.engine.pid,
        uptime_s: now.engine.uptime_s,
        config: (now.config.file.clone(), now.config.generation),
        warnings: refused.chain(now.warnings.iter().cloned()).collect(),
        rates: sum(groups.iter().map(|group| group.service.rates)),
        groups,
        workers: loads.collect(),
        drops: drops(old.map(|old| &old.drops), &now.drops, seconds),
        routers: routers.collect(),
        unproven: now.workers.iter().map(|worker| worker.unproven).sum(),
    }
}

fn key<'s>(service: &'s ServiceStatus, server: &'s ServerStatus, sorry: bool) -> Key<'s> {
    (&service.name, &server.address, server.port, sorry)
}

/// How fast a counter grew; one that fell was started anew.
fn rate(then: u64, now: u64, seconds: f64) -> f64 {
    now.saturating_sub(then) as f64 / seconds
}

fn rates(then: &ServerStatus, now: &ServerStatus, seconds: f64) -> Rates {
    Rates {
        new: rate(then.connections, now.connections, seconds),
        in_packets: rate(then.packets, now.packets, seconds),
        out_packets: rate(then.out_packets, now.out_packets, seconds),
        in_bits: rate(then.bytes, now.bytes, seconds) * 8.0,
        out_bits: rate(then.out_bytes, now.out_bytes, seconds) * 8.0,
    }
}

/// All together; none where one has none, or there is nothing.
fn sum(all: impl Iterator<Item = Option<Rates>>) -> Option<Rates> {
    all.reduce(|a, b| {
        let (a, b) = (a?, b?);
        Some(Rates {
            new: a.new + b.new,
            in_packets: a.in_packets + b.in_packets,
            out_packets: a.out_packets + b.out_packets,
            in_bits: a.in_bits + b.in_bits,
            out_bits: a.out_bits + b.out_bits,
        })
    })
    .flatten()
}

fn server_entry(service: &ServiceStatus, server: &ServerStatus, sorry: bool, rates: Option<Rates>) -> Entry {
    Entry {
        end: server_end(service, server),
        name: String::new(),
        more: if sorry { "sorry server" } else { "" }.to_owned(),
        state: server_state(server),
        good: sorry || serves(server),
        weight: server.weight.to_string(),
        active: server.active.into(),
        inactive: server.inactive.into(),
        rates,
    }
}

fn service_entry(service: &ServiceStatus, servers: &[Entry]) -> Entry {
    let serving = service.servers.iter().filter(|server| serves(server)).count();
    let sorry = service.sorry.as_ref().is_some_and(|sorry| serves(sorry));
    let (state, good) = match &service.quorum {
        _ if sorry => ("SORRY SERVER", false),
        _ if serving == 0 => ("NO SERVER", false),
        Some(quorum) if !quorum.up => ("NO QUORUM", false),
        _ => ("up", true),
    };
    Entry {
        end: format!("{} {}", service.protocol, with_port(&service.address, &service.port)),
        name: service.name.clone(),
        more: service.scheduler.clone(),
        state: state.to_owned(),
        good,
        weight: format!("{serving}/{}", service.servers.len()),
        active: servers.iter().map(|server| server.active).sum(),
        inactive: servers.iter().map(|server| server.inactive).sum(),
        rates: sum(servers.iter().map(|server| server.rates)),
    }
}

fn load(worker: &WorkerStatus, then: Option<&WorkerStatus>, seconds: f64) -> Load {
    let counters = |w: &WorkerStatus| [w.rx_frames, w.tx_frames, w.forwarded, w.rx_ring_drops, w.handed];
    let grown = |then: &WorkerStatus| {
        let (then, now) = (counters(then), counters(worker));
        [0, 1, 2, 3, 4].map(|at: usize| rate(then[at], now[at], seconds))
    };
    Load {
        at: (worker.worker, worker.core),
        load: worker.running.then_some(worker.load),
        frames: then.map(grown),
        flows: [worker.flows, worker.flow_capacity, worker.flows_ipv6, worker.flow_capacity_ipv6],
    }
}

fn drops(then: Option<&BTreeMap<String, u64>>, now: &BTreeMap<String, u64>, seconds: f64) -> Vec<Dropped> {
    let one = |(reason, all): (&String, &u64)| Dropped {
        reason: reason.clone(),
        rate: then.map(|then| rate(then.get(reason).copied().unwrap_or(0), *all, seconds)),
        all: *all,
    };
    let mut drops: Vec<Dropped> = now.iter().map(one).collect();
    drops.sort_by(|a, b| b.rate.unwrap_or(0.0).total_cmp(&a.rate.unwrap_or(0.0)).then(b.all.cmp(&a.all)));
    drops
}

#[cfg(test)]
pub(in crate::control) mod tests {
    use super::*;
    use crate::control::show::services::tests::{server, service};
    use crate::control::status::EngineStatus;

    /// An engine with two services and some drops, `step` seconds after its start.
    pub fn status(step: u64) -> Status {
        let mut first = server("10.0.0.11", "up", 2);
        first.connections += 10 * step;
        first.packets += 1000 * step;
        first.bytes += 64_000 * step;
        first.out_packets += 500 * step;
        let mut second = server("10.0.0.12", "down", 0);
        second.packets += 3 * step;
        let worker = WorkerStatus {
            running: true,
            load: 0.25,
            rx_frames: 2000 * step,
            forwarded: 1003 * step,
            flows: 403,
            flow_capacity: 1_000_000,
            unproven: 7,
            ..WorkerStatus::default()
        };
        Status {
            engine: EngineStatus { version: "0.1.0".to_owned(), pid: 42, uptime_s: step },
            workers: vec![worker],
            services: vec![service("web", vec![first, second]), service("mail", vec![server("10.0.0.13", "down", 0)])],
            drops: [("no-server".to_owned(), 100), ("loop".to_owned(), 1 + 4 * step)].into(),
            ..Status::default()
        }
    }

    #[test]
    fn rates_are_between_two_looks() {
        let first = take(None, &status(1));
        assert_eq!((first.rates, first.groups[0].service.rates, first.workers[0].frames), (None, None, None));
        assert_eq!(first.drops[0].reason, "no-server", "without rates, the most");
        let sample = take(Some((&status(1), Duration::from_secs(2))), &status(3));
        let rates = sample.groups[0].servers[0].rates.unwrap();
        assert_eq!(
            rates,
            Rates { new: 10.0, in_packets: 1000.0, out_packets: 500.0, in_bits: 512_000.0, out_bits: 0.0 }
        );
        assert_eq!(sample.groups[0].service.rates.unwrap().in_packets, 1003.0);
        assert_eq!(sample.rates.unwrap().in_packets, 1003.0);
        assert_eq!(sample.workers[0].frames, Some([2000.0, 0.0, 1003.0, 0.0, 0.0]));
        assert_eq!((sample.drops[0].reason.as_str(), sample.drops[0].rate), ("loop", Some(4.0)));
        assert_eq!((sample.unproven, sample.uptime_s), (7, 3));
    }

    #[test]
    fn states_are_told() {
        let sample = take(None, &status(1));
        let told: Vec<(&str, &str, bool)> = sample
            .groups
            .iter()
            .map(|group| &group.service)
            .map(|entry| (entry.state.as_str(), entry.weight.as_str(), entry.good))
            .collect();
        assert_eq!(told, [("up", "1/2", true), ("NO SERVER", "0/1", false)]);
        assert_eq!(sample.groups[0].servers[1].state, "DOWN");
        assert_eq!(sample.groups[0].service.active, 24);
    }

    #[test]
    fn another_process_and_new_servers_have_no_past() {
        let mut other = status(1);
        other.engine.pid = 43;
        assert_eq!(take(Some((&other, Duration::from_secs(1))), &status(3)).rates, None);
        let mut fewer = status(1);
        fewer.services[0].servers.remove(0);
        let sample = take(Some((&fewer, Duration::from_secs(1))), &status(2));
        assert_eq!(sample.groups[0].servers[0].rates, Some(Rates::default()), "what it had before is not counted");
        let fallen = take(Some((&status(9), Duration::from_secs(1))), &status(2));
        assert_eq!(fallen.rates.unwrap().in_packets, 0.0);
    }
}
