//! Listings of workers' flows, from the request to the page; the workers here take their turns when the test says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::client::line;
use super::*;
use crate::control::compile::{Registry, Whereabouts};
use crate::dataplane::director::Director;
use crate::dataplane::flow::Seeds;
use crate::dataplane::io::memory::MemoryIo;
use crate::dataplane::io::{BATCH, Frame, PacketIo};
use crate::dataplane::pipeline::{Effort, Pipeline};
use crate::dataplane::snapshot::{NextHop, Port};
use crate::dataplane::verdict::{Outcome, Verdict};
use crate::dataplane::worker;
use crate::model::*;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn service(name: &str, vip: &str, protocol: Protocol, method: Method, servers: &[&str]) -> Service {
    let vip: SocketAddr = vip.parse().expect("an end");
    let key = ServiceKey { address: vip.ip(), protocol, ports: PortRange::single(vip.port()) };
    let server = |text: &&str| {
        let end: SocketAddr = text.parse().expect("an end");
        Server::new(end.ip(), method.is_nat().then_some(end.port()), 1, method)
    };
    let local_addresses = if method == Method::FullNat { vec![IpAddr::from([10, 0, 0, 250])] } else { Vec::new() };
    Service { method, local_addresses, ..Service::dr(name, key, Scheduler::RR, servers.iter().map(server).collect()) }
}

fn services() -> Vec<Service> {
    vec![
        service("dns", "192.0.2.10:53", Protocol::Udp, Method::Dr, &["10.0.0.1:53", "10.0.0.2:53"]),
        service("web", "192.0.2.10:80", Protocol::Tcp, Method::Nat, &["10.0.0.3:8080", "10.0.0.4:8080"]),
        service("full", "192.0.2.11:80", Protocol::Tcp, Method::FullNat, &["10.0.0.5:8080"]),
        service("six", "[2001:db8::10]:53", Protocol::Udp, Method::Dr, &["[fd00::1]:53"]),
    ]
}

/// Workers without threads.
struct Rig {
    shared: Shared,
    workers: Vec<Pipeline>,
    desired: Desired,
    listings: Listings,
    now: u32,
    time: Instant,
}

/// A client's packet: TCP with flags, or UDP.
fn packet(client: SocketAddr, vip: SocketAddr, flags: Option<u8>) -> Vec<u8> {
    let ethernet = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], OWN.0);
    let step = match (client.ip(), vip.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => ethernet.ipv4(a.octets(), b.octets(), 64),
        (IpAddr::V6(a), IpAddr::V6(b)) => ethernet.ipv6(a.octets(), b.octets(), 64),
        _ => panic!("two families"),
    };
    let mut frame = Vec::new();
    match flags {
        None => step.udp(client.port(), vip.port()).write(&mut frame, b"q").expect("builds"),
        Some(flags) => {
            let mut tcp = step.tcp(client.port(), vip.port(), 1, 9000);
            tcp = if flags & 2 != 0 { tcp.syn() } else { tcp };
            tcp = if flags & 16 != 0 { tcp.ack(1) } else { tcp };
            tcp.write(&mut frame, b"").expect("builds");
        }
    }
    frame
}

impl Rig {
    fn new(workers: usize) -> Rig {
        let desired = Desired {
            engine: EngineSettings {
                flows: 4000,
                flows_ipv6: 2000,
                unproven: 4000,
                unproven_ipv6: 2000,
                ..EngineSettings::default()
            },
            ..Desired::of(services())
        };
        let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 1, 1]) };
        let at = Whereabouts { hop: Some(hop), ..Whereabouts::default() };
        let ports = vec![Port::new(OWN, 1500, true)];
        let compiled = Registry::default().compile_at(&desired, ports, Duration::ZERO, |_, _| at).expect("compiles");
        let (engine, seeds) = (&desired.engine, Seeds::fixed());
        let director = Arc::new(Director::new(engine, seeds));
        let pipeline = |_| Pipeline::within(director.clone(), engine, seeds, Arc::default()).expect("memory");
        let workers: Vec<Pipeline> = (0..workers).map(pipeline).collect();
        let shared = Shared::new(compiled.snapshot, workers.len(), 2048).expect("shared");
        Rig { shared, workers, desired, listings: Listings::default(), now: 1000, time: Instant::now() }
    }

    fn send(&mut self, worker: usize, frame: &[u8]) {
        let snapshot = self.shared.snapshot.load_full();
        let mut io = MemoryIo::new(1, 4, 2048);
        assert!(io.inject(0, frame));
        let mut frames = [Frame::default(); BATCH];
        let mut outcomes = [Outcome::plain(Verdict::Pass); 1];
        assert_eq!(io.receive(&mut frames), 1);
        let pipeline = &mut self.workers[worker];
        pipeline.process(&snapshot, io.memory(), &mut frames[..1], &mut outcomes, self.now);
        worker::act(&mut io, &[], &frames[..1], &mut outcomes);
        assert_eq!(outcomes[0].verdict, Verdict::Tx(0));
    }

    /// Flow `n` of a service, with as many packets as it takes to prove it, or one.
    fn open(&mut self, n: u16, proven: bool) -> (String, SocketAddr) {
        let at = usize::from(n) % self.desired.services.len();
        let key = self.desired.services[at].key;
        let vip = SocketAddr::new(key.address, key.ports.first);
        let [hi, lo] = n.to_be_bytes();
        let client = match vip.ip() {
            IpAddr::V4(_) => SocketAddr::from(([198, 51, 100 + hi, lo], 1024 + n)),
            IpAddr::V6(_) => SocketAddr::from(([0x2001, 0xdb8, 1, 0, 0, 0, 0, n], 1024 + n)),
        };
        let worker = usize::from(n / 4) % self.workers.len();
        let flags = if key.protocol == Protocol::Tcp { [Some(2), Some(16)] } else { [None, None] };
        for flags in &flags[..1 + usize::from(proven)] {
            self.send(worker, &packet(client, vip, *flags));
        }
        (self.desired.services[at].name.clone(), client)
    }

    fn begin(&mut self, client: usize, options: &Value) -> Reply {
        let options = options.as_object().expect("options");
        self.listings.begin(ClientId(client), options, &self.shared, &self.desired, self.time)
    }

    /// A turn of every worker.
    fn work(&mut self, effort: Effort) {
        let snapshot = self.shared.snapshot.load_full();
        for (pipeline, desk) in self.workers.iter_mut().zip(self.shared.desks()) {
            pipeline.answer(desk, &snapshot, effort, self.now);
        }
    }

    /// A turn of the control loop.
    fn fetch(&mut self, waits: impl Fn(ClientId) -> bool) -> Vec<(ClientId, Answer)> {
        let mut answers = Vec::new();
        self.listings.turn(&self.shared, self.time, waits, |client, answer| answers.push((client, answer)));
        answers
    }

    /// Asks page after page, and returns all of them.
    fn pages(&mut self, options: &Value, effort: Effort) -> Vec<Value> {
        let mut options = options.clone();
        let mut pages = Vec::new();
        loop {
            assert_eq!(self.begin(1, &options), Reply::Later);
            let page = loop {
                self.work(effort);
                match self.fetch(|_| true).pop() {
                    Some((ClientId(1), Answer::Done(page))) => break page,
                    Some(other) => panic!("{other:?}"),
                    None => {}
                }
            };
            options["from"] = page["next"].clone();
            pages.push(page);
            if options["from"].is_null() {
                return pages;
            }
        }
    }

    fn rows(&mut self, options: &Value, effort: Effort) -> Vec<FlowRow> {
        let pages = self.pages(options, effort);
        let rows = |page: &Value| serde_json::from_value::<Vec<FlowRow>>(page["flows"].clone()).expect("rows");
        pages.iter().flat_map(rows).collect()
    }

    fn count(&mut self, options: Value) -> u64 {
        self.pages(&options, EFFORT).iter().map(|page| page["matched"].as_u64().expect("a number")).sum()
    }
}

const EFFORT: Effort = Effort { buckets: 512, flows: 32 };

#[test]
fn every_flow_is_listed_once_and_filters_name_the_right_ones() {
    let mut rig = Rig::new(2);
    let mut opened: BTreeMap<String, HashSet<SocketAddr>> = BTreeMap::new();
    for n in 0..800 {
        let (service, client) = rig.open(n, n % 8 < 4);
        opened.entry(service).or_default().insert(client);
    }
    for limit in [7, 100, 2000] {
        let rows = rig.rows(&json!({ "limit": limit }), EFFORT);
        assert_eq!(rows.len(), 800, "each once, by pages of {limit}");
        for (service, clients) in &opened {
            let listed = rows.iter().filter(|row| row.service.as_ref() == Some(service)).map(|row| row.client);
            assert_eq!(&listed.collect::<HashSet<_>>(), clients);
        }
        assert_eq!(rows.iter().filter(|row| row.worker == 1).count(), 400);
    }
    for (options, expected) in [
        (json!({ "count": true }), 800),
        (json!({ "count": true, "service": "dns" }), 200),
        (json!({ "count": true, "service": "six", "proven": true }), 100),
        (json!({ "count": true, "protocol": "TCP" }), 400),
        (json!({ "count": true, "protocol": "sctp" }), 0),
        (json!({ "count": true, "server": "10.0.0.1" }), 100),
        (json!({ "count": true, "server": "10.0.0.3:8080" }), 100),
        (json!({ "count": true, "server": "10.0.0.3:80" }), 0),
        (json!({ "count": true, "server": "fd00::1" }), 200),
        (json!({ "count": true, "state": "established" }), 200),
        (json!({ "count": true, "state": "SYN_RECV", "proven": false }), 200),
        (json!({ "count": true, "client": "198.51.100.0/24" }), 192),
        (json!({ "count": true, "client": "198.51.100.8/32" }), 1),
        (json!({ "count": true, "client": "198.51.100.8" }), 1),
        (json!({ "count": true, "client": "2001:db8:1::/64" }), 200),
        (json!({ "count": true, "client": "::/0" }), 200),
        (json!({ "count": true, "client": "2001:db8:1::/64", "service": "dns" }), 0),
    ] {
        assert_eq!(rig.count(options.clone()), expected, "{options}");
        let mut list = options.clone();
        list.as_object_mut().expect("an object").remove("count");
        assert_eq!(rig.rows(&list, EFFORT).len() as u64, expected, "{list}");
    }
}

#[test]
fn a_row_says_what_a_flow_is() {
    let mut rig = Rig::new(1);
    for n in 0..4 {
        rig.open(n, n != 0);
    }
    rig.now += 60_000;
    let rows = rig.rows(&json!({}), EFFORT);
    let of = |name: &str| rows.iter().find(|row| row.service.as_deref() == Some(name)).expect("listed");
    let end = |text: &str| Some(text.parse::<SocketAddr>().expect("an end"));
    let dns = of("dns");
    assert_eq!((dns.proven, dns.idle_ms, dns.expires_s, dns.local), (false, 60_000, 240, None));
    assert_eq!((dns.server, Some(dns.r#virtual)), (end("10.0.0.2:53"), end("192.0.2.10:53")));
    let web = of("web");
    assert_eq!(
        (web.proven, web.state.as_str(), web.server, web.local),
        (true, "ESTABLISHED", end("10.0.0.4:8080"), None)
    );
    let full = of("full");
    assert_eq!((full.server, full.local), (end("10.0.0.5:8080"), end("10.0.0.250:1024")));
    assert_eq!(of("six").server, end("[fd00::1]:53"));
    // What has outlived its time is gone for everybody, swept or not.
    rig.now += 241_000;
    let mut left: Vec<String> = rig.rows(&json!({}), EFFORT).into_iter().filter_map(|row| row.service).collect();
    left.sort_unstable();
    assert_eq!(left, ["full", "web"], "UDP has ended, TCP has not");
}

#[test]
fn lines_are_those_of_ipvsadm() {
    let row = |protocol: &str, state: &str, expires_s, ends: [&str; 3]| FlowRow {
        worker: 0,
        service: None,
        protocol: protocol.to_owned(),
        state: state.to_owned(),
        proven: true,
        client: ends[0].parse().expect("an end"),
        r#virtual: ends[1].parse().expect("an end"),
        server: ends[2].parse().ok(),
        local: None,
        expires_s,
        idle_ms: 0,
        flags: Vec::new(),
    };
    // The first three are `ipvsadm -Lnc`'s own.
    for (row, expected) in [
        (
            row("udp", "UDP", 297, ["10.1.0.10:30000", "10.1.0.100:5000", "10.0.0.23:5000"]),
            "UDP 04:57  UDP         10.1.0.10:30000    10.1.0.100:5000    10.0.0.23:5000\n",
        ),
        (
            row("tcp", "TIME_WAIT", 116, ["10.1.0.10:20001", "10.1.0.100:80", "10.0.0.22:80"]),
            "TCP 01:56  TIME_WAIT   10.1.0.10:20001    10.1.0.100:80      10.0.0.22:80\n",
        ),
        (
            row("tcp", "ESTABLISHED", 897, ["10.1.0.10:21003", "10.1.0.100:80", "10.0.0.23:80"]),
            "TCP 14:57  ESTABLISHED 10.1.0.10:21003    10.1.0.100:80      10.0.0.23:80\n",
        ),
        (
            row("sctp", "C-REPLIED", 6059, ["[2001:db8::7]:1", "[2001:db8::10]:80", "gone"]),
            "SCTP 100:59  C-REPLIED   [2001:db8::7]:1    [2001:db8::10]:80  -\n",
        ),
    ] {
        assert_eq!(line(&row), expected);
    }
}

#[test]
fn clearing_ends_what_is_named_and_nothing_else() {
    let mut rig = Rig::new(2);
    for n in 0..400 {
        rig.open(n, n % 8 < 4);
    }
    let ports = |rig: &Rig| rig.workers.iter().map(|worker| worker.holdings().local_ports).sum::<u64>();
    assert_eq!(ports(&rig), 100);
    assert_eq!(rig.count(json!({ "clear": true, "service": "full" })), 100);
    assert_eq!((rig.count(json!({ "count": true })), ports(&rig)), (300, 0));
    assert_eq!(rig.count(json!({ "clear": true, "proven": false, "client": "0.0.0.0/0" })), 100);
    assert_eq!(rig.count(json!({ "count": true })), 200);
    assert_eq!(rig.count(json!({ "clear": true, "all": true })), 200);
    assert_eq!(rig.count(json!({ "count": true })), 0);
    // Nothing of them is left: neither at the servers nor in the tables.
    let snapshot = rig.shared.snapshot.load_full();
    let loads = snapshot.services.iter().flat_map(|service| &service.members);
    assert!(loads.map(|member| (member.load.active(), member.load.inactive())).all(|load| load == (0, 0)));
    for worker in &rig.workers {
        assert!(worker.tables().0.is_empty() && worker.tables().1.is_empty());
        assert_eq!(worker.holdings().last_hops, 0);
    }
}

#[test]
fn a_turn_costs_a_worker_what_it_may_and_no_more() {
    let mut rig = Rig::new(1);
    for n in 0..1000 {
        rig.open(n, false);
    }
    let effort = Effort { buckets: 64, flows: 8 };
    for options in [json!({}), json!({ "clear": true, "all": true })] {
        assert_eq!(rig.begin(1, &options), Reply::Later);
        let mut before = rig.workers[0].tables().0.len();
        for _ in 0..50 {
            rig.work(effort);
            let mut said = 0;
            while rig.shared.desks()[0].take().is_some() {
                said += 1;
            }
            let now = rig.workers[0].tables().0.len();
            // An ended flow by NAT has two entries.
            assert!(said <= 8 && before - now <= 16, "{said} {before} {now}");
            before = now;
        }
        // This one's client is gone: the place is free again.
        rig.fetch(|_| false);
        rig.work(effort);
        rig.fetch(|_| false);
        assert!(rig.listings.open.is_empty());
    }
}

#[test]
fn a_worker_never_waits_for_answers_to_be_taken() {
    let mut rig = Rig::new(1);
    for n in 0..2000 {
        rig.open(n, false);
    }
    // Three lists that nobody fetches: together more than there is room for.
    let desk = |rig: &Rig| rig.shared.desks()[0].is_full();
    for client in 0..3 {
        assert_eq!(rig.begin(client, &json!({ "limit": 2000 })), Reply::Later);
    }
    for _ in 0..20_000 {
        rig.work(EFFORT);
    }
    assert!(desk(&rig));
    // A packet is not kept from its way; and when somebody fetches, nothing is missing.
    rig.open(2000, true);
    let mut done = Vec::new();
    for _ in 0..20_000 {
        done.extend(rig.fetch(|_| true));
        rig.work(EFFORT);
    }
    assert_eq!(done.len(), 3);
    for (_, answer) in done {
        let Answer::Done(page) = answer else { panic!("{answer:?}") };
        assert_eq!(page["flows"].as_array().map(Vec::len), Some(2000));
    }
}

#[test]
fn many_ask_at_once_and_each_gets_its_own() {
    let mut rig = Rig::new(2);
    for n in 0..200 {
        rig.open(n, true);
    }
    let asked = ["dns", "web", "full", "six"];
    for client in 0..40 {
        let options = json!({ "service": asked[client % 4], "limit": 500 });
        assert_eq!(rig.begin(client, &options), Reply::Later);
    }
    let mut answers = HashMap::new();
    for _ in 0..2000 {
        rig.work(EFFORT);
        // Every seventh goes away before its answer.
        answers.extend(rig.fetch(|client| client.0 % 7 != 0));
    }
    assert_eq!(answers.len(), (0..40).filter(|client| client % 7 != 0).count());
    for (client, answer) in answers {
        let Answer::Done(page) = answer else { panic!("{answer:?}") };
        let rows: Vec<FlowRow> = serde_json::from_value(page["flows"].clone()).expect("rows");
        assert!(rows.len() == 50 && rows.iter().all(|row| row.service.as_deref() == Some(asked[client.0 % 4])));
    }
    assert!(rig.listings.open.is_empty() && rig.listings.waiting.is_empty());
}

#[test]
fn a_page_ends_with_its_time_and_a_silent_worker_with_patience() {
    let mut rig = Rig::new(2);
    for n in 0..400 {
        rig.open(n, true);
    }
    let little = Effort { buckets: 8, flows: 1 };
    assert_eq!(rig.begin(1, &json!({ "limit": 2000 })), Reply::Later);
    rig.work(little);
    rig.work(little);
    assert!(rig.fetch(|_| true).is_empty());
    rig.time += PAGE_TIME;
    assert!(rig.fetch(|_| true).is_empty(), "the workers have not ended yet");
    rig.work(little);
    let answers = rig.fetch(|_| true);
    let [(_, Answer::Done(page))] = &answers[..] else { panic!("{answers:?}") };
    assert!(!page["next"].is_null() && page["flows"].as_array().is_some_and(|flows| flows.len() < 400));
    // A worker that does not answer at all.
    assert_eq!(rig.begin(2, &json!({ "count": true })), Reply::Later);
    rig.time += PATIENCE;
    let answers = rig.fetch(|_| true);
    assert_eq!(answers, [(ClientId(2), Answer::refused("worker 0 does not answer"))]);
    assert_eq!(rig.listings.open.len(), 1, "its place is kept until the worker has ended it");
    rig.work(EFFORT);
    assert!(rig.fetch(|_| true).is_empty() && rig.listings.open.is_empty());
}

#[test]
fn options_are_understood_or_explained() {
    let desired = Rig::new(1).desired;
    let parse = |options: Value| Query::parse(options.as_object().expect("an object"), &desired, 2);
    for (options, part) in [
        (json!({ "service": "dsn" }), "there is no service \"dsn\"; did you mean `dns`?"),
        (json!({ "service": 7 }), "`service` is 7; expected a text"),
        (json!({ "server": "10.0.0" }), "expected an address"),
        (json!({ "client": "10.0.0.0/33" }), "expected an address or a network"),
        (json!({ "client": "::/129" }), "expected an address or a network"),
        (json!({ "client": "10.0.0.0/x" }), "expected an address or a network"),
        (json!({ "client": "x".repeat(5000) }), "expected an address or a network"),
        (json!({ "protocol": "icmp" }), "expected one of tcp, udp, sctp"),
        (json!({ "state": "ESTABLISH" }), "did you mean ESTABLISHED?"),
        (json!({ "state": "?" }), "it is one of"),
        (json!({ "proven": "yes" }), "expected true or false"),
        (json!({ "limit": 0 }), "expected a number from 1 to 2000"),
        (json!({ "limit": 2001 }), "expected a number from 1 to 2000"),
        (json!({ "limit": -1 }), "expected a number from 1 to 2000"),
        (json!({ "limit": 5, "count": true }), "`limit` is for listing"),
        (json!({ "count": true, "clear": true }), "exclude each other"),
        (json!({ "clear": true }), "would end every flow"),
        (json!({ "from": [0] }), "for 2 workers"),
        (json!({ "from": "x" }), "for 2 workers"),
        (json!({ "from": [0, -4] }), "for 2 workers"),
    ] {
        let error = parse(options.clone()).expect_err("it is refused");
        assert!(error.contains(part) && error.len() < 400, "{options}: {error}");
    }
    let all = parse(json!({ "clear": true, "all": true })).expect("understood");
    assert_eq!((all.wish, all.from), (Wish::Clear, vec![Some(0); 2]));
}

proptest! {
    /// A client may claim to have been anywhere: no place makes a worker look at what is not there, or go on for ever.
    #[test]
    fn any_place_to_go_on_from_is_survived(places in proptest::collection::vec(any::<u64>(), 2), limit in 1u64..2000) {
        let mut rig = Rig::new(2);
        for n in 0..40 {
            rig.open(n, n % 3 == 0);
        }
        let rows = rig.rows(&json!({ "from": places, "limit": limit }), EFFORT);
        prop_assert!(rows.len() <= 40);
    }

    /// Flows come, go and are proven while a list is made: what is there all the time is in it.
    #[test]
    fn what_stays_is_listed_whatever_else_happens(
        changes in proptest::collection::vec((0u16..200, 0u8..3), 1..120), limit in 1u64..60, buckets in 1usize..2000,
    ) {
        let mut rig = Rig::new(2);
        let mut stays: HashSet<SocketAddr> = (0..200).map(|n| rig.open(n, n % 8 < 4).1).collect();
        let mut changes = changes.into_iter().cycle();
        let mut options = json!({ "limit": limit });
        let mut listed: HashSet<SocketAddr> = HashSet::new();
        loop {
            rig.begin(1, &options);
            let page = loop {
                rig.work(Effort { buckets: buckets * 64, flows: 9 });
                let (n, what) = changes.next().expect("endless");
                match what {
                    // It is proven, or is already; a flow of its own beside it comes.
                    0 => drop(rig.open(n, true)),
                    1 => drop(rig.open(1000 + n, true)),
                    _ => {
                        let (_, client) = rig.open(2000 + n, false);
                        stays.remove(&client);
                    }
                }
                if let Some((_, answer)) = rig.fetch(|_| true).pop() {
                    let Answer::Done(page) = answer else { panic!("{answer:?}") };
                    break page;
                }
            };
            let rows: Vec<FlowRow> = serde_json::from_value(page["flows"].clone()).expect("rows");
            listed.extend(rows.iter().map(|row| row.client));
            if page["next"].is_null() {
                break;
            }
            options["from"] = page["next"].clone();
        }
        prop_assert!(stays.is_subset(&listed), "{:?}", stays.difference(&listed).collect::<Vec<_>>());
    }
}
