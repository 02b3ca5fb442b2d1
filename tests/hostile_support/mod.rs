//! What the hostile frames meet: a deterministic source of numbers, and a site whose services change.

pub mod echo;
pub mod frames;
pub mod rig;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::control::compile::{Registry, Whereabouts};
use evenkeel::dataplane::directory::{Directory, Peers};
use evenkeel::dataplane::flow::Seeds;
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::schedule::SCHEDULERS;
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::model::{
    Desired, EngineSettings, Fate, Fates, Limits, MacAddr, Method, PersistBy, Persistence, PortRange, Protocol, Rate,
    Scheduler, Server, Service, ServiceKey, Timeouts, TunnelSettings,
};

pub const MTU: u32 = 1500;
pub const OWN: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
pub const VIP: [u8; 4] = [192, 0, 2, 10];
pub const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Local addresses of full NAT: more than the engine has slots for.
pub const LOCALS: [[u8; 4]; 4] = [[192, 0, 2, 101], [192, 0, 2, 102], [192, 0, 2, 103], [192, 0, 2, 104]];
/// An owned address without a service.
pub const GATEWAY: [u8; 4] = [10, 0, 0, 254];

const LOCAL6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

/// A changing configuration and what outlives its changes.
pub struct Site {
    registry: Registry,
    services: Vec<Service>,
    /// Servers without a next hop now, by the last byte of their address.
    unreachable: Vec<u8>,
}

impl Default for Site {
    fn default() -> Site {
        Site { registry: Registry::default(), services: services(), unreachable: vec![101] }
    }
}

/// Small tables and few local ports, so that they fill, evict and refuse.
fn settings(workers: u8) -> EngineSettings {
    EngineSettings {
        flows: 1500 / u32::from(workers),
        flows_ipv6: 400 / u32::from(workers),
        unproven: 600 / u32::from(workers),
        unproven_ipv6: 200 / u32::from(workers),
        cookie_flows: 18 / u32::from(workers),
        fragments: 100,
        fragments_waiting: 64,
        local_ports: PortRange { first: 2000, last: 2039 },
        local_addresses: 4,
        persistent_clients: 64,
        ..EngineSettings::default()
    }
}

fn services() -> Vec<Service> {
    use Method::{Dr, FullNat, Gre, Gue, Ipip, Nat};
    use Protocol::{Sctp, Tcp, Udp};
    let mh = Scheduler { port: true, table_size: 251, ..Scheduler::MH };
    let (v4, v6) = (IpAddr::from(VIP), IpAddr::from(VIP6));
    let one = PortRange::single;
    let mail = [(1, FullNat, Some(2525)), (2, FullNat, None), (41, FullNat, None)];
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
    ]
    .into_iter()
    .map(|(address, protocol, ports, scheduler, servers)| {
        let key = ServiceKey { address, protocol, ports };
        let servers = servers.into_iter().map(|(n, method, port)| server(address, n, method, port)).collect();
        let service = Service::dr(&format!("{address}-{protocol}-{ports}"), key, scheduler, servers);
        Service {
            limits: limits(protocol, ports),
            local_addresses: locals(address).into_iter().take(1).collect(),
            proxy_protocol: protocol == Tcp && (ports == one(25) || address == v6),
            mss_clamp: (ports == one(443)).then_some(1200),
            persistence: (ports == one(80) || ports == one(25) || protocol == Sctp).then_some(Persistence {
                by: PersistBy::Client,
                seconds: 30,
                prefix_v4: 28,
                prefix_v6: 56,
                leave_drained: address == v6,
            }),
            tunnel: TunnelSettings {
                source_spread_bits: if address == v4 { 4 } else { 0 },
                ..TunnelSettings::default()
            },
            ..service
        }
    })
    .collect()
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
fn server(family: IpAddr, n: u8, method: Method, port: Option<u16>) -> Server {
    let other = method.is_tunnel() && n.is_multiple_of(2);
    let address = if family.is_ipv4() != other {
        IpAddr::from([10, 0, 0, n])
    } else {
        IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n])
    };
    Server { port: port.filter(|_| method.is_nat()), method, ..Server::dr(address, 1) }
}

fn number(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(a) => a.octets()[3],
        IpAddr::V6(a) => a.octets()[15],
    }
}

impl Site {
    /// A worker's pipeline.
    pub fn pipeline(&self, peers: Option<Peers>) -> Pipeline {
        let workers = peers.as_ref().map_or(1, |peers| peers.count);
        let mut pipeline = Pipeline::new(&settings(workers), Seeds::fixed(), Arc::default()).expect("memory");
        if let Some(peers) = peers {
            pipeline.join(peers);
        }
        pipeline
    }

    /// A directory for `workers` workers. It is never full here: a flow that finds no room is this worker's only, and what
    /// comes to another one begins anew.
    pub fn directory(&self, workers: u8) -> Arc<Directory> {
        let engine = settings(workers);
        let flows = engine.flows + engine.flows_ipv6 + engine.unproven + engine.unproven_ipv6;
        Arc::new(Directory::new(2 * flows as usize * usize::from(workers)))
    }

    /// Servers 30 to 39 are this machine, 40 to 49 lie behind the second interface, those from 50 to 69 in VLAN 7, those
    /// from 70 to 79 behind a small MTU. `None`: there are more local addresses than slots.
    pub fn compile(&mut self, ports: usize, now: Duration) -> Option<Snapshot> {
        let desired = Desired {
            engine: settings(1),
            timeouts: Timeouts::default(),
            control_socket: "/nonexistent".into(),
            interfaces: Vec::new(),
            neighbors: Vec::new(),
            addresses: vec![IpAddr::from(GATEWAY)],
            access: Default::default(),
            services: self.services.clone(),
        };
        let unreachable = self.unreachable.clone();
        let whereabouts = |_: &Service, server: &Server| {
            let n = number(server.address);
            let port = u8::from((40..50).contains(&n));
            let hop = NextHop { port, vlan: (50..70).contains(&n).then_some(7), mac: MacAddr([2, 0, 0, 0, 1, n]) };
            Whereabouts {
                hop: (!unreachable.contains(&n)).then_some(hop),
                mtu: (70..80).contains(&n).then_some(if server.address.is_ipv4() { 600 } else { 1300 }),
                source: Some(if server.address.is_ipv4() { IpAddr::from(GATEWAY) } else { IpAddr::from(LOCAL6) }),
                local: (30..40).contains(&n),
            }
        };
        let ports = OWN[..ports].iter().map(|mac| Port::new(*mac, MTU, true)).collect();
        Some(self.registry.compile_at(&desired, ports, now, whereabouts).ok()?.snapshot)
    }

    /// Changes something that operators change, and compiles; if that is refused, all stays as it was.
    pub fn swap(&mut self, ports: usize, now: Duration, random: &mut Random) -> Option<Snapshot> {
        let before = self.services.clone();
        self.change(random);
        let snapshot = self.compile(ports, now);
        if snapshot.is_none() {
            self.services = before;
        }
        snapshot
    }

    fn change(&mut self, random: &mut Random) {
        if random.one_in(30) {
            self.services = services();
            return;
        }
        if self.services.len() > 8 && random.one_in(8) {
            let at = random.index(self.services.len());
            self.services.remove(at);
            return;
        }
        let at = random.index(self.services.len());
        let service = &mut self.services[at];
        let family = service.key.address;
        if random.one_in(6) {
            let fate = |random: &mut Random| [Fate::Keep, Fate::Reschedule, Fate::Reset][random.index(3)];
            service.fates = Fates { removed: fate(random), down: fate(random), drained: fate(random) };
            service.limits.client_prefix_v4 = [8, 16, 24, 32][random.index(4)];
            service.limits.connections = if random.one_in(2) { Some(20 + random.below(60) as u32) } else { None };
            for server in &mut service.servers {
                server.drain = random.one_in(6);
                server.upper = if random.one_in(3) { Some(1 + random.below(40) as u32) } else { None };
            }
            service.drain_deadline = Some(1 + random.below(100) as u32);
            return;
        }
        match random.below(8) {
            0 if service.servers.len() > 1 => {
                let gone = random.index(service.servers.len());
                service.servers.remove(gone);
            }
            1 if service.servers.len() < 8 => {
                let method = Method::ALL[random.index(6)];
                let port =
                    if random.one_in(2) { service.key.ports.as_single().map(|port| port ^ 0x2000) } else { None };
                let new = server(family, 1 + random.below(80) as u8, method, port);
                if !service.servers.iter().any(|s| s.address == new.address) {
                    service.servers.push(new);
                }
            }
            2 | 3 => {
                for server in &mut service.servers {
                    server.weight = if random.one_in(5) { 0 } else { 1 + random.below(9) as u16 };
                }
            }
            4 => {
                let known = &SCHEDULERS[random.index(SCHEDULERS.len())];
                let table_size = known.table.map_or(0, |table| table.sizes[0]);
                service.scheduler = Scheduler { table_size, ..Scheduler::named(known.name) };
                for flag in known.flags {
                    if random.one_in(2) {
                        flag.set(&mut service.scheduler);
                    }
                }
            }
            5 if !service.servers.is_empty() => {
                // Another method for a server that stays.
                let at = random.index(service.servers.len());
                let old = service.servers[at].clone();
                let new = server(family, number(old.address), Method::ALL[random.index(6)], old.port);
                if !service.servers.iter().any(|s| s.address == new.address && s.address != old.address) {
                    service.servers[at] = Server { weight: old.weight, ..new };
                }
            }
            6 => {
                let mut all = locals(family);
                let count = 1 + random.index(all.len().min(2));
                service.local_addresses = (0..count).map(|_| all.remove(random.index(all.len()))).collect();
                service.proxy_protocol = service.key.protocol == Protocol::Tcp && random.one_in(2);
            }
            _ => {
                self.unreachable = vec![101];
                if random.one_in(2) {
                    self.unreachable.push(1 + random.below(9) as u8);
                }
            }
        }
    }
}
