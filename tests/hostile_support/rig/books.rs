//! The flow tables against everything that is kept besides them, and that nothing is left when all flows have ended.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Mutex;

use evenkeel::dataplane::directory::Directory;
use evenkeel::dataplane::flow::{Entry, Flows, KeyV4, KeyV6, flag};
use evenkeel::dataplane::pipeline::Holdings;
use evenkeel::dataplane::snapshot::slot_of;

use super::Rig;

/// Whose template it is: unit, network, and how much of the client's address that is. Calls of one network are one here.
type Client = (u32, IpAddr, u8);

impl Rig {
    /// The tables of all workers against everything that is kept besides them: the servers' loads, limits, persistent
    /// clients, last hops, local ports, the directory.
    pub fn compare(&self) {
        let mut found = Found::default();
        assert_eq!(self.sum(|worker| worker.pipeline.stats().directory_full.get()), 0, "the directory is too small");
        for (me, worker) in (0u8..).zip(&self.workers) {
            let (v4, v6) = worker.pipeline.tables();
            let before = (found.entries, found.pairs, found.local_ends, found.spliced);
            found.look(v4, me, &self.directory, self.workers.len() > 1);
            found.look(v6, me, &self.directory, self.workers.len() > 1);
            assert_eq!(found.entries - before.0, v4.len() + v6.len(), "the tables miscount themselves");
            assert!(v4.proven.len() <= v4.capacity() && v6.proven.len() <= v6.capacity());
            assert!(v4.unproven.len() <= v4.unproven.capacity() && v6.unproven.len() <= v6.unproven.capacity());
            let holdings = worker.pipeline.holdings();
            assert_eq!(holdings.last_hops, found.pairs - before.1, "last hops and pairs");
            assert_eq!(holdings.spliced, found.spliced - before.3, "what is kept of flows by cookie, and those flows");
            let asked_from = found.local_ends - before.2;
            if holdings.ending == 0 {
                assert_eq!(holdings.local_ports, asked_from, "local ports and flows by full NAT");
            }
            assert!(holdings.local_ports <= asked_from, "{holdings:?} for {asked_from} flows by full NAT");
        }
        if self.workers.len() > 1 {
            assert_eq!(self.directory.len(), found.entries, "the directory has what the tables have");
        }
        for service in &self.snapshot.services {
            for member in service.all() {
                let loads = (member.load.active(), member.load.inactive());
                let flows = found.loads.get(&member.id).copied().unwrap_or_default();
                assert_eq!(loads, flows, "server {} in slot {}", member.address, slot_of(member.id));
            }
        }
        // Who has not seen the newest snapshot counts for an older tally, and for older units.
        if self.all_follow() {
            self.compare_limits(&found);
            if self.forgetting.is_none() {
                self.compare_templates(&found);
            }
        }
    }

    fn compare_limits(&self, found: &Found) {
        for (index, service) in self.snapshot.services.iter().enumerate() {
            let limited = |flow: &&Flow| {
                let of = self.snapshot.server(flow.server).map(|server| usize::from(server.outcome.service));
                of == Some(index) && flow.flags & flag::LIMITED != 0
            };
            let (limits, name) = (&service.config.limits, &service.config.name);
            let flows = found.flows.iter().filter(limited).count();
            if limits.connections.is_some() {
                assert_eq!(service.tally.flows.get() as usize, flows, "flows of {name} for its limit");
            }
            let counted = self.director.clients.totals(|tally| tally == service.tally.id).1 as usize;
            if limits.client_connections.is_some() && self.engine.roomy {
                assert_eq!(counted, flows, "flows of the clients of {name}");
            }
            // Where there was no room, a flow was not counted.
            assert!(counted <= flows, "{counted} of the clients of {name}, and {flows} flows");
        }
    }

    fn compare_templates(&self, found: &Found) {
        let mut flows: BTreeMap<Client, u32> = BTreeMap::new();
        for flow in found.flows.iter().filter(|flow| flow.flags & flag::PERSISTENT != 0) {
            let (address, port) = flow.service;
            let service = self.snapshot.service(address, flow.protocol, port);
            let service = service.map(|index| &self.snapshot.services[usize::from(index)]);
            let Some((service, persistence)) =
                service.and_then(|service| Some((service, service.config.persistence.as_ref()?)))
            else {
                panic!("a flow of {address} {port} counts for a client, and its service knows none");
            };
            let prefix = if flow.client.is_ipv4() { persistence.prefix_v4 } else { persistence.prefix_v6 };
            *flows.entry((service.unit, masked(flow.client, prefix), prefix)).or_default() += 1;
        }
        let counted: Mutex<BTreeMap<Client, u32>> = Mutex::default();
        // Looks at all of them, forgets none.
        self.director.templates.retain(|template| {
            let mut counted = counted.lock().expect("one thread");
            *counted.entry((template.unit, template.network, template.prefix)).or_default() += template.flows;
            true
        });
        let mut counted = counted.into_inner().expect("one thread");
        counted.retain(|_, flows| *flows > 0);
        if self.engine.roomy {
            assert_eq!(counted, flows, "flows of persistent clients");
        }
        // One that gave way to another is not counted any more.
        for (client, count) in counted {
            let flows = flows.get(&client).copied().unwrap_or(0);
            assert!(count <= flows, "{count} flows under the template of {client:?}, which has {flows}");
        }
    }

    /// Lets everything end: nothing is left of any flow or fragment.
    pub fn end(&mut self) {
        for worker in &mut self.workers {
            worker.snapshot = self.snapshot.clone();
        }
        // Each sees the newest snapshot first.
        self.pass_time(0, 1);
        self.settle();
        self.compare();
        for _ in 0..20 {
            self.pass_time(1_000_000, usize::MAX / 2);
        }
        self.compare();
        assert!(self.directory.is_empty());
        for worker in &self.workers {
            let (v4, v6) = worker.pipeline.tables();
            assert!(v4.is_empty() && v6.is_empty(), "flows that do not end");
            assert_eq!(worker.pipeline.holdings(), Holdings::default());
        }
        let (templates, clients) = (&self.director.templates, &self.director.clients);
        assert!(templates.is_empty(), "{} templates that do not end", templates.len());
        assert_eq!(clients.totals(|tally| self.snapshot.has_tally(tally)), (0, 0), "flows of clients that are over");
        let services = &self.snapshot.services;
        assert!(services.iter().all(|service| service.tally.flows.get() == 0), "flows that are over");
        let handed = self.sum(|worker| worker.pipeline.stats().handed.get());
        assert_eq!(handed, self.sum(|worker| worker.pipeline.stats().taken_over.get()), "what was handed on arrived");
        // Servers that were removed have no flows left.
        let last = self.site.compile(2, self.elapsed).expect("compiles");
        assert!(
            last.services.iter().all(|service| service.ghosts.is_empty()),
            "removed servers that are not forgotten"
        );
    }
}

/// An address without the bits behind a prefix.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            IpAddr::from((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            IpAddr::from((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)).to_be_bytes())
        }
    }
}

/// A flow, by its entry of the client's direction.
struct Flow {
    server: u32,
    flags: u8,
    client: IpAddr,
    protocol: u8,
    service: (IpAddr, u16),
}

/// What the tables hold.
#[derive(Default)]
struct Found {
    /// Active and inactive flows, by server.
    loads: HashMap<u32, (u32, u32)>,
    entries: usize,
    pairs: u64,
    /// Pairs whose server is asked from a local address.
    local_ends: u64,
    flows: Vec<Flow>,
    /// Pairs that a SYN cookie opened.
    spliced: u64,
}

impl Found {
    fn look<E: Entry>(&mut self, table: &Flows<E>, me: u8, directory: &Directory, listed: bool)
    where
        E::Key: Ends,
    {
        let mut clients = HashMap::new();
        let mut pairs = Vec::new();
        let mut both = 0;
        table.for_each(|flow| {
            self.entries += 1;
            let (key, hash) = (flow.key(), table.hash(&flow.key()));
            let found = directory.find(hash);
            assert!(!listed || found == Some(me), "worker {me} has a flow that others find at {found:?}");
            if flow.flags() & flag::REVERSE != 0 {
                pairs.push((flow.server(), key.destination()));
                return;
            }
            both += u64::from(flow.partner() != 0);
            let (server, flags, client, service) = (flow.server(), flow.flags(), key.source().0, key.destination());
            self.flows.push(Flow { server, flags, client, protocol: key.protocol(), service });
            self.spliced += u64::from(flow.flags() & flag::COOKIE != 0);
            if flow.partner() != 0 {
                *clients.entry((flow.server(), key.source())).or_insert(0u64) += 1;
            }
            let row = self.loads.entry(flow.server()).or_default();
            if flow.state().is_active() { row.0 += 1 } else { row.1 += 1 }
        });
        assert_eq!(both, pairs.len() as u64, "each of two entries has the other");
        self.pairs += both;
        // Under NAT the server answers to the client itself.
        self.local_ends += pairs.iter().filter(|pair| !clients.contains_key(*pair)).count() as u64;
    }
}

/// Address and port of a key's ends.
trait Ends {
    fn source(&self) -> (IpAddr, u16);
    fn destination(&self) -> (IpAddr, u16);
    fn protocol(&self) -> u8;
}

/// Two ports as they lie in the packet.
fn ports(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

impl Ends for KeyV4 {
    fn source(&self) -> (IpAddr, u16) {
        let [a, b, c, d, ..] = self.addresses.to_ne_bytes();
        (IpAddr::from([a, b, c, d]), ports(self.ports)[0])
    }

    fn destination(&self) -> (IpAddr, u16) {
        let [.., a, b, c, d] = self.addresses.to_ne_bytes();
        (IpAddr::from([a, b, c, d]), ports(self.ports)[1])
    }

    fn protocol(&self) -> u8 {
        self.protocol
    }
}

fn address(words: [u64; 2]) -> IpAddr {
    let [first, second] = words.map(u64::to_ne_bytes);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first);
    bytes[8..].copy_from_slice(&second);
    IpAddr::from(bytes)
}

impl Ends for KeyV6 {
    fn source(&self) -> (IpAddr, u16) {
        (address(self.source), ports(self.ports)[0])
    }

    fn destination(&self) -> (IpAddr, u16) {
        (address(self.destination), ports(self.ports)[1])
    }

    fn protocol(&self) -> u8 {
        self.protocol
    }
}
