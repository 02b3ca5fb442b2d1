//! What servers and services counted: from which values on, what was counted by servers that are forgotten, and rates a second.
//!
//! The data plane's counters belong to slots that live on, and only grow. Owns what a server's and a service's own numbers are
//! then, and the estimator of rates, which is the kernel's (`net/netfilter/ipvs/ip_vs_est.c`): every two seconds a quarter of
//! what is new. Time is a parameter. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::control::naming::misread;
use crate::dataplane::snapshot::{ServiceEntry, Snapshot};
use crate::model::{ServiceKey, Timeouts};

use super::status::{PersistenceSettings, RatesStatus, SettingsStatus, TimeoutsStatus};
use crate::model::{PersistBy, Service};

/// Counters in the order in which all of this has them: packets and bytes to a server, connections, packets and bytes from it.
pub type Counts = [u64; 5];

/// How often rates are estimated.
pub const PERIOD: Duration = Duration::from_secs(2);

/// The options of the command `zero` on the control socket.
pub const OPTIONS: &[&str] = &["service", "server"];

/// Whose counters start from zero: nothing given means all services and their servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// A service with its servers: its name, or `PROTOCOL ADDRESS:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Of that service only this server, as `ADDRESS:PORT` or `ADDRESS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

impl Question {
    /// A question as it came over the control socket.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(options: &Map<String, Value>) -> Result<Question, String> {
        let question: Question =
            serde_json::from_value(Value::Object(options.clone())).map_err(|error| misread("zero", &error))?;
        match question {
            Question { service: None, server: Some(_) } => {
                Err("`server` without `service`; say of which service".to_owned())
            }
            question => Ok(question),
        }
    }
}

const fn less(a: Counts, b: Counts) -> Counts {
    let mut all = [0; 5];
    let mut at = 0;
    while at < 5 {
        all[at] = a[at].saturating_sub(b[at]);
        at += 1;
    }
    all
}

fn plus(a: Counts, b: Counts) -> Counts {
    [0, 1, 2, 3, 4].map(|at: usize| a[at].saturating_add(b[at]))
}

/// An average a second of each counter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Meter {
    last: Counts,
    average: [f64; 5],
}

impl Meter {
    fn take(&mut self, now: Counts, seconds: f64) {
        for (at, average) in self.average.iter_mut().enumerate() {
            let rate = now[at].saturating_sub(self.last[at]) as f64 / seconds;
            *average += (rate - *average) / 4.0;
        }
        self.last = now;
    }

    fn rates(&self) -> RatesStatus {
        let [in_packets, in_bytes, connections, out_packets, out_bytes] = self.average;
        // The kernel rounds at the middle.
        let whole = |rate: f64| (rate + 0.5) as u64;
        RatesStatus {
            connections: whole(connections),
            in_packets: whole(in_packets),
            out_packets: whole(out_packets),
            in_bytes: whole(in_bytes),
            out_bytes: whole(out_bytes),
        }
    }
}

/// What is known of one slot.
#[derive(Clone, Copy, Debug)]
struct Slot {
    service: ServiceKey,
    /// What it showed when its server's own numbers were zero.
    base: Counts,
    /// What it showed when those of its service were zero.
    service_base: Counts,
    meter: Meter,
}

/// The counters of all servers and services. `totals`, wherever it is asked for, says what a slot shows over all workers.
#[derive(Debug, Default)]
pub struct Counters {
    slots: HashMap<u32, Slot, RandomState>,
    /// What forgotten servers of a service had counted, and the service's own rates.
    services: HashMap<ServiceKey, (Counts, Meter), RandomState>,
    estimated: Option<Duration>,
}

impl Counters {
    /// Takes note of a new snapshot: `added` slots begin at zero, what `removed` ones counted stays with their services.
    pub fn change(&mut self, snapshot: &Snapshot, added: &[u32], removed: &[u32], totals: impl Fn(u32) -> Counts) {
        for id in removed {
            if let Some(slot) = self.slots.remove(id)
                && let Some((carried, _)) = self.services.get_mut(&slot.service)
            {
                *carried = plus(*carried, less(totals(*id), slot.service_base));
            }
        }
        let keys: HashSet<ServiceKey> = snapshot.services.iter().map(|service| *service.key()).collect();
        self.services.retain(|key, _| keys.contains(key));
        for key in keys {
            self.services.entry(key).or_default();
        }
        if added.is_empty() {
            return;
        }
        let added: HashSet<u32> = added.iter().copied().collect();
        for service in &snapshot.services {
            for member in service.members.iter().filter(|member| added.contains(&member.id)) {
                let base = totals(member.id);
                let slot = Slot { service: *service.key(), base, service_base: base, meter: Meter::default() };
                self.slots.insert(member.id, slot);
            }
        }
    }

    /// What a server counted.
    pub fn of_server(&self, id: u32, totals: impl Fn(u32) -> Counts) -> Counts {
        self.slots.get(&id).map_or([0; 5], |slot| less(totals(id), slot.base))
    }

    /// What a service counted, by its servers of now and of before.
    pub fn of_service(&self, service: &ServiceEntry, totals: impl Fn(u32) -> Counts) -> Counts {
        let carried = self.services.get(service.key()).map_or([0; 5], |(carried, _)| *carried);
        let all = service.members.iter().chain(&service.ghosts);
        let slots = all.filter_map(|member| Some((member.id, self.slots.get(&member.id)?)));
        slots.fold(carried, |sum, (id, slot)| plus(sum, less(totals(id), slot.service_base)))
    }

    /// What a server counts a second.
    pub fn rates_of_server(&self, id: u32) -> RatesStatus {
        self.slots.get(&id).map(|slot| slot.meter.rates()).unwrap_or_default()
    }

    /// What a service counts a second.
    pub fn rates_of_service(&self, key: &ServiceKey) -> RatesStatus {
        self.services.get(key).map(|(_, meter)| meter.rates()).unwrap_or_default()
    }

    /// When [`Counters::estimate`] is due.
    pub fn next_estimate(&self) -> Option<Duration> {
        self.estimated.map(|at| at + PERIOD)
    }

    /// Estimates rates, when it is time.
    pub fn estimate(&mut self, snapshot: &Snapshot, now: Duration, totals: impl Fn(u32) -> Counts) {
        let Some(before) = self.estimated else {
            self.estimated = Some(now);
            return;
        };
        let seconds = now.saturating_sub(before).as_secs_f64();
        if now < before + PERIOD || seconds <= 0.0 {
            return;
        }
        self.estimated = Some(now);
        let mut sums: HashMap<ServiceKey, Counts> = HashMap::with_capacity(self.services.len());
        for service in &snapshot.services {
            sums.insert(*service.key(), self.of_service(service, &totals));
        }
        for (id, slot) in &mut self.slots {
            slot.meter.take(less(totals(*id), slot.base), seconds);
        }
        for (key, (_, meter)) in &mut self.services {
            meter.take(sums.get(key).copied().unwrap_or(meter.last), seconds);
        }
    }

    /// A server's numbers are zero from now on; its service's stay.
    pub fn zero_server(&mut self, id: u32, totals: impl Fn(u32) -> Counts) {
        if let Some(slot) = self.slots.get_mut(&id) {
            (slot.base, slot.meter) = (totals(id), Meter::default());
        }
    }

    /// The numbers of a service and of its servers are zero from now on.
    pub fn zero_service(&mut self, service: &ServiceEntry, totals: impl Fn(u32) -> Counts) {
        for member in service.members.iter().chain(&service.ghosts) {
            if let Some(slot) = self.slots.get_mut(&member.id) {
                let now = totals(member.id);
                (slot.base, slot.service_base, slot.meter) = (now, now, Meter::default());
            }
        }
        self.services.insert(*service.key(), Default::default());
    }
}

/// The timeouts that ipvsadm knows.
pub const fn timeouts(timeouts: &Timeouts) -> TimeoutsStatus {
    TimeoutsStatus { tcp: timeouts.tcp_established, tcp_fin: timeouts.tcp_fin_wait, udp: timeouts.udp }
}

/// What a service is set to.
pub fn settings(service: &Service) -> SettingsStatus {
    SettingsStatus {
        one_packet: service.one_packet,
        gue_port: service.tunnel.gue_port,
        persistence: service.persistence.as_ref().map(|known| PersistenceSettings {
            seconds: known.seconds,
            prefix: if service.key.address.is_ipv4() { known.prefix_v4 } else { known.prefix_v6 },
            by: match known.by {
                PersistBy::Client => "client",
                PersistBy::SipCallId => "sip-call-id",
                PersistBy::QuicServerId { .. } => "quic-server-id",
            }
            .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::IpAddr;

    use super::*;
    use crate::control::compile::Registry;
    use crate::dataplane::snapshot::{NextHop, Port};
    use crate::model::{Desired, MacAddr, PortRange, Protocol, Scheduler, Server};

    fn desired(servers: &[u8]) -> Desired {
        let key = ServiceKey {
            address: IpAddr::from([192, 0, 2, 10]),
            protocol: Protocol::Tcp,
            ports: PortRange::single(80),
        };
        let servers = servers.iter().map(|last| Server::dr(IpAddr::from([10, 0, 0, *last]), 1)).collect();
        Desired::of(vec![Service::dr("web", key, Scheduler::WLC, servers)])
    }

    /// A registry, counters, and a way from one configuration to the next.
    struct World {
        registry: Registry,
        counters: Counters,
        snapshot: Snapshot,
    }

    impl World {
        fn go(&mut self, servers: &[u8], count: u64) {
            let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
            let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
            let compiled = self.registry.compile(&desired(servers), vec![port], |_| Some(hop)).expect("compiles");
            self.counters.change(&compiled.snapshot, &compiled.added, &compiled.removed, |_| [count; 5]);
            self.snapshot = compiled.snapshot;
        }

        fn service(&self, count: u64) -> u64 {
            self.counters.of_service(&self.snapshot.services[0], |_| [count; 5])[0]
        }

        fn server(&self, last: u8, count: u64) -> u64 {
            let all = self.snapshot.services[0].members.iter();
            let member = all.clone().find(|member| member.address == IpAddr::from([10, 0, 0, last])).expect("is there");
            self.counters.of_server(member.id, |_| [count; 5])[0]
        }
    }

    fn world(servers: &[u8], count: u64) -> World {
        let empty = Snapshot::new(
            0,
            Vec::new(),
            Vec::new(),
            &Timeouts::default(),
            Default::default(),
            Default::default(),
            |_, _| unreachable!("no members"),
        );
        let mut world = World { registry: Registry::default(), counters: Counters::default(), snapshot: empty };
        world.go(servers, count);
        world
    }

    /// Every slot shows the same number here, so a service has it once for each of its servers.
    #[test]
    fn a_service_remembers_what_its_removed_servers_counted() {
        let mut world = world(&[1, 2], 100);
        assert_eq!((world.service(100), world.server(1, 110)), (0, 10));
        assert_eq!(world.service(110), 20);
        // Removed: first it may have flows, then it is forgotten.
        world.go(&[1], 110);
        assert_eq!(world.service(110), 20);
        world.go(&[1], 115);
        assert_eq!((world.service(115), world.server(1, 115)), (30, 15));
        // Another one may have its slot.
        world.go(&[1, 3], 120);
        assert_eq!((world.service(120), world.server(3, 120)), (35, 0));
    }

    #[test]
    fn zero_is_of_a_server_or_of_a_service_with_its_servers() {
        let mut world = world(&[1, 2], 0);
        let id = world.snapshot.services[0].members.iter().find(|m| m.address == IpAddr::from([10, 0, 0, 1]));
        let id = id.expect("is there").id;
        world.counters.zero_server(id, |_| [7; 5]);
        assert_eq!((world.server(1, 8), world.server(2, 8), world.service(8)), (1, 8, 16));
        world.go(&[2], 8);
        world.go(&[2], 8);
        world.counters.zero_service(&world.snapshot.services[0], |_| [9; 5]);
        assert_eq!((world.server(2, 10), world.service(10)), (1, 1));
    }

    #[test]
    fn rates_come_and_go_by_quarters() {
        let mut world = world(&[1], 0);
        let count = Cell::new(0);
        let mut at = |second: u64, counted: u64| {
            count.set(counted);
            world.counters.estimate(&world.snapshot, Duration::from_secs(second), |_| [count.get(); 5]);
            let member = world.snapshot.services[0].members[0].id;
            let service = world.counters.rates_of_service(world.snapshot.services[0].key());
            assert_eq!(service, world.counters.rates_of_server(member));
            service.counts()
        };
        assert_eq!(at(10, 0), [0; 5]);
        assert_eq!(at(11, 500), [0; 5], "too early");
        // 400 a second: a quarter of it, then a quarter of what is missing.
        assert_eq!(at(12, 800), [100; 5]);
        assert_eq!(at(14, 1600), [175; 5]);
        // Late: as much a second.
        assert_eq!(at(18, 3200), [231; 5]);
        assert_eq!(at(20, 3200), [173; 5]);
    }

    #[test]
    fn the_golden_rates_are_this_estimator_s() {
        // tests/golden/ipvsadm/modes/nat/1_traffic: 49 packets in, 39 out, 3213 and 2743 bytes. Its rates of two estimates
        // after them lie between what comes right away and two seconds later.
        let mut meter = Meter::default();
        meter.take([49, 3213, 10, 39, 2743], 2.0);
        let [now, _] = [meter.rates().counts(), [0; 5]];
        assert_eq!(now, [1, 6, 5, 402, 343]);
        meter.take([49, 3213, 10, 39, 2743], 2.0);
        assert_eq!(meter.rates().counts(), [1, 5, 4, 301, 257], "as the sample has it");
    }

    #[test]
    fn questions_are_read_or_explained() {
        let read = |text: &str| {
            Question::read(serde_json::from_str::<Value>(text).expect("JSON").as_object().expect("object"))
        };
        assert_eq!(read("{}"), Ok(Question::default()));
        assert_eq!(read(r#"{"service":"web"}"#).map(|question| question.service), Ok(Some("web".to_owned())));
        assert!(read(r#"{"server":"10.0.0.1"}"#).unwrap_err().contains("say of which service"));
        assert!(read(r#"{"service":7}"#).unwrap_err().contains("`zero`"));
    }
}
