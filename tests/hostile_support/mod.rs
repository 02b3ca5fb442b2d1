//! What the hostile frames meet: a deterministic source of numbers, and a site whose services change.

pub mod frames;
pub mod rig;

use std::net::IpAddr;
use std::sync::Arc;

use evenkeel::control::compile::Registry;
use evenkeel::dataplane::flow::Seeds;
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::model::{
    Desired, EngineSettings, MacAddr, PortRange, Protocol, Scheduler, Server, Service, ServiceKey, Timeouts,
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

fn services() -> Vec<Service> {
    use Protocol::{Sctp, Tcp, Udp};
    let mh = Scheduler::Mh { port: true, fallback: false, table_size: 251 };
    let (v4, v6) = (IpAddr::from(VIP), IpAddr::from(VIP6));
    let one = PortRange::single;
    [
        (v4, Tcp, one(80), Scheduler::Rr, vec![1, 2, 3]),
        (v4, Tcp, one(443), Scheduler::Wlc, vec![2, 41, 51]),
        (v4, Tcp, PortRange { first: 8000, last: 8010 }, mh, vec![4, 5, 6]),
        (v4, Udp, PortRange { first: 5000, last: 5010 }, Scheduler::Wrr, vec![1, 42]),
        (v4, Sctp, PortRange::ANY, Scheduler::Lc, vec![7, 8]),
        (v6, Tcp, one(80), Scheduler::Wlc, vec![1, 52]),
        (v6, Udp, PortRange::ANY, mh, vec![9, 43]),
        (v6, Sctp, one(2905), Scheduler::Rr, vec![1]),
        (v4, Tcp, one(700), Scheduler::Rr, vec![101]),
        (v4, Tcp, one(701), Scheduler::Rr, vec![]),
    ]
    .into_iter()
    .map(|(address, protocol, ports, scheduler, servers)| {
        let key = ServiceKey { address, protocol, ports };
        let servers = servers.into_iter().map(|n| server(address, n)).collect();
        Service::dr(&format!("{address}-{protocol}-{ports}"), key, scheduler, servers)
    })
    .collect()
}

fn server(family: IpAddr, n: u8) -> Server {
    let address = match family {
        IpAddr::V4(_) => IpAddr::from([10, 0, 0, n]),
        IpAddr::V6(_) => IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]),
    };
    Server::dr(address, 1)
}

fn number(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(a) => a.octets()[3],
        IpAddr::V6(a) => a.octets()[15],
    }
}

impl Site {
    /// Small tables, so that they fill, evict and refuse.
    pub fn pipeline(&self) -> Pipeline {
        let settings = EngineSettings {
            flows: 1500,
            flows_ipv6: 400,
            fragments: 100,
            fragments_waiting: 64,
            ..EngineSettings::default()
        };
        Pipeline::new(&settings, Seeds::fixed(), Arc::default()).expect("memory")
    }

    /// Servers 40 to 49 lie behind the second interface, those from 50 on in VLAN 7.
    pub fn compile(&mut self, ports: usize) -> Snapshot {
        let desired = Desired {
            engine: EngineSettings::default(),
            timeouts: Timeouts::default(),
            control_socket: "/nonexistent".into(),
            interfaces: Vec::new(),
            neighbors: Vec::new(),
            addresses: Vec::new(),
            services: self.services.clone(),
        };
        let unreachable = self.unreachable.clone();
        let hop = |address: IpAddr| {
            let n = number(address);
            let port = u8::from((40..50).contains(&n));
            let hop = NextHop { port, vlan: (n >= 50).then_some(7), mac: MacAddr([2, 0, 0, 0, 1, n]) };
            (!unreachable.contains(&n)).then_some(hop)
        };
        let ports = OWN[..ports].iter().map(|mac| Port::new(*mac, MTU, true)).collect();
        self.registry.compile(&desired, ports, hop).expect("compiles").snapshot
    }

    /// Changes something that operators change.
    pub fn change(&mut self, random: &mut Random) {
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
        match random.below(6) {
            0 if service.servers.len() > 1 => {
                let gone = random.index(service.servers.len());
                service.servers.remove(gone);
            }
            1 if service.servers.len() < 8 => {
                let new = server(family, 1 + random.below(60) as u8);
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
                service.scheduler = [
                    Scheduler::Rr,
                    Scheduler::Wrr,
                    Scheduler::Lc,
                    Scheduler::Wlc,
                    Scheduler::Mh { port: random.one_in(2), fallback: random.one_in(2), table_size: 251 },
                ][random.index(5)];
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
