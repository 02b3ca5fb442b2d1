//! A site whose configuration changes under its traffic: everything that an operator can change of services and servers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::control::compile::{Registry, Whereabouts};
use evenkeel::dataplane::director::Director;
use evenkeel::dataplane::directory::{Directory, Peers};
use evenkeel::dataplane::flow::Seeds;
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::schedule::SCHEDULERS;
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::model::{
    Access, Desired, EngineSettings, Fate, Fates, Health, Judgement, Limits, MacAddr, Method, NoServer, Passive,
    PersistBy, Persistence, PortRange, Prefix, Protocol, Rate, Scheduler, Server, Service, ServiceKey, SynCookies,
    TunnelSettings, VirtualAddress, VirtualRouter, Vrrp,
};

use super::{GATEWAY, LOCAL6, LOCALS, MTU, OWN, Random, VIP, VIP6};

/// Ports of services that look into their datagrams, or keep nothing of them.
const SIP: u16 = 5060;
const QUIC: u16 = 4433;
const ONE_PACKET: u16 = 5100;

/// Ports of services that can be of one group.
const SHOP: [u16; 2] = [82, 83];

/// What differs between one engine and another.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    pub workers: u8,
    pub syn_cookies: SynCookies,
    /// Room for all clients that there are: what is counted of them is exact then.
    pub roomy: bool,
}

impl Engine {
    /// Small tables and few local ports, so that they fill, evict and refuse.
    pub fn settings(self) -> EngineSettings {
        let each = |all: u32| all / u32::from(self.workers);
        EngineSettings {
            flows: each(1500),
            flows_ipv6: each(400),
            unproven: each(600),
            unproven_ipv6: each(200),
            syn_cookies: self.syn_cookies,
            cookie_flows: each(18),
            fragments: 100,
            fragments_waiting: 64,
            local_ports: PortRange { first: 2000, last: 2039 },
            local_addresses: 4,
            persistent_clients: if self.roomy { 4096 } else { 16 },
            limited_clients: if self.roomy { 4096 } else { 16 },
            ..EngineSettings::default()
        }
    }

    /// What all workers share.
    pub fn director(self) -> Arc<Director> {
        Arc::new(Director::new(&self.settings(), Seeds::fixed()))
    }

    /// A worker's pipeline.
    pub fn pipeline(self, peers: Option<Peers>, director: &Arc<Director>) -> Pipeline {
        let (director, settings) = (director.clone(), self.settings());
        let mut pipeline = Pipeline::within(director, &settings, Seeds::fixed(), Arc::default()).expect("memory");
        if let Some(peers) = peers {
            pipeline.join(peers);
        }
        pipeline
    }

    /// A directory for all workers. It is never full here: a flow that finds no room is this worker's only, and what comes to
    /// another one begins anew.
    pub fn directory(self) -> Arc<Directory> {
        let engine = self.settings();
        let flows = engine.flows + engine.flows_ipv6 + engine.unproven + engine.unproven_ipv6;
        Arc::new(Directory::new(2 * flows as usize * usize::from(self.workers)))
    }
}

/// A changing configuration and what outlives its changes.
pub struct Site {
    registry: Registry,
    services: Vec<Service>,
    access: Arc<Access>,
    /// Servers without a next hop now, by the last byte of their address.
    unreachable: Vec<u8>,
    /// What was removed and may come back.
    removed: Vec<(ServiceKey, Server)>,
    closed: Vec<Service>,
    /// Names of the schedulers that there were.
    pub schedulers: BTreeSet<&'static str>,
    /// How many were set.
    rescheduled: usize,
    /// Whether this appliance is master of the virtual router.
    master: bool,
    swaps: usize,
}

impl Default for Site {
    fn default() -> Site {
        Site {
            registry: Registry::default(),
            services: services(),
            access: Arc::default(),
            unreachable: vec![101],
            removed: Vec::new(),
            closed: Vec::new(),
            schedulers: BTreeSet::new(),
            rescheduled: 0,
            master: true,
            swaps: 0,
        }
    }
}

fn services() -> Vec<Service> {
    use Method::{Dr, FullNat, Gre, Gue, Ipip, Nat};
    use Protocol::{Sctp, Tcp, Udp};
    let mh = Scheduler { port: true, table_size: 251, ..Scheduler::MH };
    let (v4, v6) = (IpAddr::from(VIP), IpAddr::from(VIP6));
    let one = PortRange::single;
    let mail = [(1, FullNat, Some(2525)), (2, FullNat, None), (41, FullNat, None)];
    let shop = [(1, Nat, None), (2, Dr, None), (44, FullNat, None), (5, Gre, None)];
    [
        (v4, Tcp, one(80), Scheduler::RR, vec![(1, Dr, None), (2, Nat, Some(8080)), (3, Ipip, None), (31, Nat, None)]),
        (v4, Tcp, one(443), Scheduler::WLC, vec![(2, Nat, Some(8080)), (41, Nat, None), (51, Nat, Some(8443))]),
        // The same client by way of two services to one server's port.
        (v4, Tcp, one(81), Scheduler::RR, vec![(2, Nat, Some(8080))]),
        (v4, Tcp, one(25), Scheduler::RR, mail.to_vec()),
        (v4, Tcp, PortRange { first: 8000, last: 8010 }, mh, vec![(4, Dr, None), (5, Nat, None), (6, Gre, None)]),
        (
            v4,
            Udp,
            PortRange { first: 5000, last: 5010 },
            Scheduler::WRR,
            vec![(1, Nat, None), (42, Gue, None), (71, Dr, None), (72, Nat, None)],
        ),
        (v4, Udp, one(6000), Scheduler::WRR, vec![(1, FullNat, None), (43, FullNat, Some(53)), (8, Dr, None)]),
        (v4, Sctp, PortRange::ANY, Scheduler::LC, vec![(7, Nat, None), (8, Dr, None)]),
        (v6, Tcp, one(80), Scheduler::WLC, vec![(1, Nat, Some(8080)), (52, Dr, None), (2, FullNat, None)]),
        (v6, Udp, PortRange::ANY, mh, vec![(9, Nat, None), (43, Gre, None), (73, Ipip, None), (74, Nat, None)]),
        (v6, Sctp, one(2905), Scheduler::RR, vec![(1, Nat, Some(2906))]),
        (v4, Tcp, one(700), Scheduler::RR, vec![(101, Dr, None)]),
        (v4, Tcp, one(701), Scheduler::RR, vec![]),
        (v4, Tcp, one(SHOP[0]), Scheduler::RR, shop.to_vec()),
        (v4, Tcp, one(SHOP[1]), Scheduler::WLC, shop.to_vec()),
        (v6, Tcp, one(SHOP[0]), Scheduler::LC, vec![(1, Nat, None), (2, Dr, None)]),
        (v4, Udp, one(SIP), Scheduler::RR, vec![(1, Nat, None), (2, FullNat, Some(5061)), (3, Dr, None)]),
        (v4, Udp, one(QUIC), Scheduler::LC, vec![(1, Nat, None), (2, Dr, None), (3, Gue, None), (4, FullNat, None)]),
        (
            v4,
            Udp,
            one(ONE_PACKET),
            Scheduler::RR,
            vec![(1, Dr, None), (3, Ipip, None), (42, Gue, None), (72, Dr, None)],
        ),
    ]
    .into_iter()
    .map(|(address, protocol, ports, scheduler, servers)| {
        let key = ServiceKey { address, protocol, ports };
        let servers = servers.into_iter().map(|(n, method, port)| server(&key, n, method, port)).collect();
        let service = Service::dr(&format!("{address}-{protocol}-{ports}"), key, scheduler, servers);
        let no_server = if ports == one(700) { NoServer::Drop } else { NoServer::Refuse };
        let passive = (ports != one(25)).then_some(Passive {
            failures_percent: 50,
            least: 20,
            window: Duration::from_secs(10),
            eject: Duration::from_secs(30),
            most_percent: 50,
        });
        Service {
            limits: limits(protocol, ports),
            local_addresses: locals(address).into_iter().take(1).collect(),
            proxy_protocol: protocol == Tcp && (ports == one(25) || address == v6),
            mss_clamp: (ports == one(443)).then_some(1200),
            one_packet: ports == one(ONE_PACKET),
            persistence: persistence(&key),
            group: SHOP.contains(&ports.first).then(|| "shop".to_owned()),
            health: Health { no_server, passive, ..Health::default() },
            tunnel: TunnelSettings {
                source_spread_bits: if address == v4 { 4 } else { 0 },
                ..TunnelSettings::default()
            },
            ..service
        }
    })
    .collect()
}

/// Who keeps clients at first.
fn persistence(key: &ServiceKey) -> Option<Persistence> {
    let keeps = |by, seconds, prefix_v4| Persistence { by, seconds, prefix_v4, prefix_v6: 56, leave_drained: false };
    match (key.protocol, key.ports.first) {
        (Protocol::Udp, SIP) => Some(keeps(PersistBy::SipCallId, 30, 24)),
        (Protocol::Udp, QUIC) => Some(keeps(PersistBy::QuicServerId { rotation: 1, length: 2 }, 30, 32)),
        (Protocol::Sctp, _) | (Protocol::Tcp, 80 | 25) => Some(keeps(PersistBy::Client, 30, 28)),
        (Protocol::Tcp, port) if SHOP.contains(&port) => Some(keeps(PersistBy::Client, 300, 32)),
        _ => None,
    }
}

/// Small ones, so that they are reached.
fn limits(protocol: Protocol, ports: PortRange) -> Limits {
    let rate = |per_second, burst| Some(Rate { per_second, burst });
    match (protocol, ports.first) {
        (Protocol::Tcp, 443) => Limits { connections: Some(60), rate: rate(20, 3), ..Limits::NONE },
        (Protocol::Tcp, 8000) => {
            Limits { client_connections: Some(4), client_rate: rate(1, 6), client_prefix_v4: 16, ..Limits::NONE }
        }
        (Protocol::Udp, 5000) => {
            Limits { connections: Some(150), client_connections: Some(8), client_rate: rate(2, 10), ..Limits::NONE }
        }
        _ => Limits::NONE,
    }
}

fn locals(family: IpAddr) -> Vec<IpAddr> {
    if family.is_ipv4() { LOCALS.map(IpAddr::from).to_vec() } else { vec![IpAddr::from(LOCAL6)] }
}

/// Tunnels to a server with an even number go to its address of the other family.
fn server(key: &ServiceKey, n: u8, method: Method, port: Option<u16>) -> Server {
    let other = method.is_tunnel() && n.is_multiple_of(2);
    let address = if key.address.is_ipv4() != other {
        IpAddr::from([10, 0, 0, n])
    } else {
        IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n])
    };
    let quic_id = (key.ports.first == QUIC).then(|| vec![0xee, n]);
    Server { port: port.filter(|_| method.is_nat()), method, quic_id, ..Server::dr(address, 1) }
}

fn number(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(a) => a.octets()[3],
        IpAddr::V6(a) => a.octets()[15],
    }
}

fn any<T: Copy>(of: &[T], random: &mut Random) -> T {
    of[random.index(of.len())]
}

/// Lists that deny some of the clients, or all but some, or nobody.
fn access(random: &mut Random) -> Access {
    let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
    let (allow, deny) = (Judgement::Allow, Judgement::Deny);
    match random.below(5) {
        0 => Access::new(
            allow,
            vec![
                (prefix("198.51.100.8/29"), deny),
                (prefix("198.51.100.9"), allow),
                (prefix("2001:db8:1::8/125"), deny),
            ],
        ),
        1 => Access::new(
            deny,
            vec![
                (prefix("198.51.100.0/24"), allow),
                (prefix("198.51.100.4/31"), deny),
                (prefix("2001:db8::/32"), allow),
                (prefix("10.0.0.0/8"), allow),
            ],
        ),
        _ => Access::default(),
    }
}

impl Site {
    /// Servers 30 to 39 are this machine, 40 to 49 lie behind the second interface, those from 50 to 69 in VLAN 7, those
    /// from 70 to 79 behind a small MTU. `None`: there are more local addresses than slots.
    pub fn compile(&mut self, ports: usize, now: Duration) -> Option<Snapshot> {
        // IPv4 belongs to no router.
        let router = VirtualRouter::new("VI_1", "eth0", 51, vec![VirtualAddress::host(IpAddr::from(VIP6))]);
        let desired = Desired {
            engine: EngineSettings { local_addresses: 4, ..EngineSettings::default() },
            addresses: vec![IpAddr::from(GATEWAY)],
            access: self.access.clone(),
            vrrp: Vrrp { routers: vec![router.clone()], ..Vrrp::default() },
            ..Desired::of(self.services.clone())
        };
        let unreachable = self.unreachable.clone();
        let whereabouts = |_: &Service, server: &Server| {
            let n = number(server.address);
            let port = u8::from((40..50).contains(&n));
            let hop = NextHop { port, vlan: (50..70).contains(&n).then_some(7), mac: MacAddr([2, 0, 0, 0, 1, n]) };
            Whereabouts {
                hop: (!unreachable.contains(&n)).then_some(hop),
                awaited: unreachable.contains(&n) && n.is_multiple_of(2),
                mtu: (70..80).contains(&n).then_some(if server.address.is_ipv4() { 600 } else { 1300 }),
                source: Some(if server.address.is_ipv4() { IpAddr::from(GATEWAY) } else { IpAddr::from(LOCAL6) }),
                local: (30..40).contains(&n),
                standing: None,
            }
        };
        let ports = OWN[..ports].iter().map(|mac| Port::new(*mac, MTU, true)).collect();
        let snapshot = self.registry.compile_at(&desired, ports, now, whereabouts).ok()?.snapshot;
        let slot = self.registry.routers.slot(&router.name).expect("a number");
        self.registry.routers.mastery.set(slot, self.master);
        self.schedulers.extend(self.services.iter().map(|service| service.scheduler.name));
        Some(snapshot)
    }

    /// Changes something that operators change, and compiles; if that is refused, all stays as it was.
    pub fn swap(&mut self, ports: usize, now: Duration, random: &mut Random) -> Option<Snapshot> {
        let before = self.services.clone();
        match random.below(60) {
            // Time alone has changed something: a server has drained for long enough.
            0..6 => {}
            6 | 7 => self.services = services(),
            8 | 9 => self.access = Arc::new(access(random)),
            10..16 if self.services.len() > 12 => {
                let at = random.index(self.services.len());
                self.closed.push(self.services.remove(at));
            }
            16..22 => {
                let at = random.index(self.closed.len());
                if at < self.closed.len() {
                    let back = self.closed.swap_remove(at);
                    if self.services.iter().all(|known| known.key != back.key) {
                        self.services.push(back);
                        self.agree(self.services.len() - 1, false);
                    }
                }
            }
            22..25 => {
                self.unreachable = vec![101];
                if random.one_in(2) {
                    self.unreachable.push(1 + random.below(9) as u8);
                }
            }
            _ => {
                let at = random.index(self.services.len());
                self.change(at, random);
                self.agree(at, true);
            }
        }
        self.swaps += 1;
        self.master = !self.swaps.is_multiple_of(20);
        let snapshot = self.compile(ports, now);
        if snapshot.is_none() {
            self.services = before;
        }
        snapshot
    }

    /// The services of a group have the same servers and tell their clients apart in the same way: this one's, or the others'.
    fn agree(&mut self, at: usize, leads: bool) {
        let Some(group) = self.services[at].group.clone() else { return };
        let is_other = |(other, service): &(usize, &Service)| *other != at && service.group.as_ref() == Some(&group);
        let others: Vec<usize> = self.services.iter().enumerate().filter(is_other).map(|(other, _)| other).collect();
        for other in others {
            let (from, to) = if leads { (at, other) } else { (other, at) };
            let model = self.services[from].clone();
            let service = &mut self.services[to];
            service.persistence = model.persistence;
            if service.key.address == model.key.address {
                service.servers = model.servers;
            }
        }
    }

    fn change(&mut self, at: usize, random: &mut Random) {
        let service = &mut self.services[at];
        let key = service.key;
        match random.below(17) {
            0 | 1 | 16 if service.servers.len() > 1 => {
                let gone = random.index(service.servers.len());
                self.removed.push((key, service.servers.remove(gone)));
                if self.removed.len() > 20 {
                    self.removed.remove(0);
                }
            }
            2 | 3 if service.servers.len() < 8 => {
                let mine: Vec<usize> = (0..self.removed.len()).filter(|at| self.removed[*at].0 == key).collect();
                let new = if mine.is_empty() || random.one_in(3) {
                    let method = any(&Method::ALL, random);
                    let port = if random.one_in(2) { key.ports.as_single().map(|port| port ^ 0x2000) } else { None };
                    server(&key, 1 + random.below(80) as u8, method, port)
                } else {
                    self.removed.remove(any(&mine, random)).1
                };
                if !service.servers.iter().any(|s| s.address == new.address) {
                    service.servers.push(new);
                }
            }
            4 | 5 => {
                for server in &mut service.servers {
                    server.weight = if random.one_in(5) { 0 } else { 1 + random.below(9) as u16 };
                }
            }
            6 | 7 => {
                // One after the other, so that each has its turn.
                let known = &SCHEDULERS[self.rescheduled % SCHEDULERS.len()];
                self.rescheduled += 1;
                let table_size = known.table.map_or(0, |table| table.sizes[0]);
                service.scheduler = Scheduler { table_size, ..Scheduler::named(known.name) };
                for flag in known.flags {
                    if random.one_in(2) {
                        flag.set(&mut service.scheduler);
                    }
                }
            }
            8 if !service.servers.is_empty() => {
                // Another method for a server that stays.
                let at = random.index(service.servers.len());
                let old = service.servers[at].clone();
                let new = server(&key, number(old.address), any(&Method::ALL, random), old.port);
                if !service.servers.iter().any(|s| s.address == new.address && s.address != old.address) {
                    service.servers[at] = Server { weight: old.weight, ..new };
                }
            }
            9 => {
                let mut all = locals(key.address);
                let count = 1 + random.index(all.len().min(2));
                service.local_addresses = (0..count).map(|_| all.remove(random.index(all.len()))).collect();
                service.proxy_protocol = key.protocol == Protocol::Tcp && random.one_in(2);
            }
            10 | 11 => change_persistence(service, random),
            12 => service.limits = changed_limits(random),
            13 => {
                let fates = [Fate::Keep, Fate::Reschedule, Fate::Reset];
                let [removed, down, drained] = [0; 3].map(|_: usize| any(&fates, random));
                service.fates = Fates { removed, down, drained };
            }
            14 => {
                for server in &mut service.servers {
                    server.drain = random.one_in(4);
                }
                service.drain_deadline = if random.one_in(4) { None } else { Some(1 + random.below(60) as u32) };
            }
            _ => {
                for server in &mut service.servers {
                    server.upper = if random.one_in(3) { Some(1 + random.below(40) as u32) } else { None };
                    server.lower = server.upper.filter(|_| random.one_in(2)).map(|upper| upper / 2);
                }
                service.one_packet = key.ports.first == ONE_PACKET && !random.one_in(4);
            }
        }
    }
}

/// Other clients, another time, another way to tell them apart, or none; or another group.
fn change_persistence(service: &mut Service, random: &mut Random) {
    if SHOP.contains(&service.key.ports.first) && random.one_in(2) {
        service.group = if service.group.is_none() { Some("shop".to_owned()) } else { None };
        service.persistence = persistence(&service.key);
        return;
    }
    let own = persistence(&service.key);
    let by = match own.as_ref().map(|own| own.by) {
        Some(by) if !random.one_in(4) => by,
        _ => PersistBy::Client,
    };
    let keeps = service.group.is_some() || own.is_some() && !random.one_in(4) || random.one_in(3);
    service.persistence = keeps.then(|| Persistence {
        by,
        seconds: match by {
            PersistBy::QuicServerId { .. } if random.one_in(2) => 0,
            _ => any(&[1, 5, 30, 300], random),
        },
        prefix_v4: if by == PersistBy::SipCallId { any(&[0, 24, 32], random) } else { any(&[16, 28, 32], random) },
        prefix_v6: any(&[48, 64, 128], random),
        leave_drained: random.one_in(2),
    });
}

fn changed_limits(random: &mut Random) -> Limits {
    let some =
        |least: u64, more: u64, random: &mut Random| random.one_in(2).then(|| (least + random.below(more)) as u32);
    let rate = |random: &mut Random| {
        let (per_second, burst) = (some(2, 40, random)?, 1 + random.below(10) as u32);
        Some(Rate { per_second, burst })
    };
    Limits {
        connections: some(20, 60, random),
        rate: rate(random),
        client_connections: some(2, 8, random),
        client_rate: rate(random),
        client_prefix_v4: any(&[8, 16, 24, 32], random),
        client_prefix_v6: any(&[48, 64, 128], random),
    }
}
