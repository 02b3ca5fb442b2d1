//! Explanations: every step and every scheduler by tables; that the pipeline agrees is in [`agreement`].

mod agreement;

use std::sync::Arc;

use super::decide::{Known, explain};
use super::*;
use crate::control::compile::{Registry, Whereabouts};
use crate::control::flows::FlowRow;
use crate::dataplane::director::Director;
use crate::dataplane::flow::Seeds;
use crate::dataplane::schedule::{SCHEDULERS, description};
use crate::dataplane::snapshot::{NextHop, Port, Snapshot};
use crate::model::*;

pub(super) const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn at(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn key(port: u16) -> ServiceKey {
    ServiceKey { address: [192, 0, 2, 10].into(), protocol: Protocol::Tcp, ports: PortRange::single(port) }
}

fn web(scheduler: Scheduler, servers: &[(u8, u16)]) -> Service {
    let servers = servers.iter().map(|(n, weight)| Server::dr(at(*n), *weight)).collect();
    Service::dr("web", key(80), scheduler, servers)
}

/// An engine's parts, as far as an explanation needs them.
struct Site {
    desired: Desired,
    registry: Registry,
    snapshot: Snapshot,
    director: Arc<Director>,
    now: u32,
}

/// Servers from 100 on have no next hop, those from 50 on are behind VLAN 7.
pub(super) fn whereabouts(service: &Service, server: &Server) -> Whereabouts {
    let last = match server.address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    let vlan = (last >= 50).then_some(7);
    let hop = (last < 100).then_some(NextHop { port: 0, vlan, mac: MacAddr([2, 0, 0, 0, 1, last]) });
    let source = service.tunnel.source_towards(server.address);
    Whereabouts { hop, source, ..Whereabouts::default() }
}

impl Site {
    fn of(desired: Desired) -> Site {
        let mut registry = Registry::default();
        let ports = vec![Port::new(OWN, 1500, true)];
        let snapshot = registry.compile_at(&desired, ports, std::time::Duration::ZERO, whereabouts);
        let snapshot = snapshot.expect("compiles").snapshot;
        let settings = EngineSettings { persistent_clients: 1024, ..EngineSettings::default() };
        let director = Arc::new(Director::new(&settings, Seeds::fixed()));
        Site { desired, registry, snapshot, director, now: 1000 }
    }

    fn with(service: Service) -> Site {
        Site::of(Desired::of(vec![service]))
    }

    fn asks(&self, question: Value, flows: &[FlowRow]) -> Explanation {
        let options = question.as_object().cloned().expect("an object");
        let question = Question::read(&options, &self.desired).expect("is understood");
        let interfaces = ["lan0".to_owned()];
        let routers = &self.desired.vrrp.routers;
        let router = |address: IpAddr| {
            let of = routers.iter().find(|router| router.all_addresses().any(|known| known.address == address));
            of.map(|router| router.name.clone())
        };
        let health = |_: &Service, server: &Server| match server.weight {
            7 => "down: connection refused".to_owned(),
            _ => String::new(),
        };
        let known = Known {
            snapshot: &self.snapshot,
            director: &self.director,
            now: self.now,
            interfaces: &interfaces,
            flows,
            is_complete: true,
            router: &router,
            health: &health,
        };
        let told = explain(&question, &known);
        let back: Explanation = serde_json::from_value(serde_json::to_value(&told).expect("JSON")).expect("back");
        assert_eq!(back, told);
        told
    }

    fn new_flow(&self) -> Explanation {
        self.asks(serde_json::json!({ "client": "198.51.100.7:4000", "to": "192.0.2.10:80" }), &[])
    }
}

impl Explanation {
    fn says(&self, step: &str) -> &str {
        self.steps.iter().find(|known| known.step == step).map_or("", |step| &step.says)
    }

    fn why(&self, last: u8) -> &str {
        let end = with_port(at(last), 80);
        self.servers.iter().find(|row| row.server == end).map_or("", |row| &row.why)
    }
}

/// Three servers: 1 and 2 with two established connections, 3 with one and five others; 2 has twice the weight.
fn loaded(scheduler: Scheduler) -> Site {
    let site = Site::with(web(scheduler, &[(1, 1), (2, 2), (3, 1)]));
    for member in &site.snapshot.services[0].members {
        let (active, inactive) = if member.address == at(3) { (1, 5) } else { (2, 0) };
        (0..active).for_each(|_| member.load.open(true));
        (0..inactive).for_each(|_| member.load.open(false));
    }
    site
}

#[test]
fn every_scheduler_says_whom_it_takes_and_why_not_the_others() {
    // Scheduler, who is taken, why, and why another one is not. The list is walked from the server that was added last.
    let table: &[(&str, u8, &str, u8, &str)] = &[
        ("rr", 3, "its turn", 1, "its turn comes 2 new flows later"),
        ("rr", 3, "its turn", 2, "its turn is the next one"),
        // The first one alone had weight 1, and the limit of the pass stays when others are added (`ip_vs_wrr_dest_changed`).
        ("wrr", 3, "its turn", 2, "its turn is the next one"),
        ("wrr", 3, "its turn", 1, "its turn comes 2 new flows later"),
        ("lc", 3, "the least: 261 (256 x 1 + 5)", 2, "512 (256 x 2 + 0), more"),
        ("wlc", 2, "the least: 256.00 ((256 x 2 + 0) / 2)", 3, "261.00 ((256 x 1 + 5) / 1), more"),
        ("sed", 2, "the least: 1.50 ((2 + 1) / 2)", 1, "3.00 ((2 + 1) / 1), more"),
        ("nq", 2, "the least: 1.50 ((2 + 1) / 2)", 3, "2.00 ((1 + 1) / 1), more"),
        ("fo", 2, "the highest weight: weight 2", 1, "weight 1, lower"),
        ("ovf", 2, "the highest weight of those", 1, "2 established, more than its weight 1"),
        ("ovf", 2, "the highest weight of those", 3, "weight 1, lower"),
        ("lblc", 2, "the service address has it", 1, "the service address keeps its server"),
        ("lblcr", 2, "the service address has it", 1, "not the least loaded"),
    ];
    for (name, taken, won, other, lost) in table {
        let site = loaded(Scheduler::named(description(name).expect("is known").name));
        // Asking changes nothing: the answer is the same again.
        for told in [site.new_flow(), site.new_flow()] {
            assert_eq!(told.server.as_deref(), Some(&*with_port(at(*taken), 80)), "{name}: {told:?}");
            assert_eq!((told.by, told.fortune), (Some(By::Scheduler), Fortune::Forwarded), "{name}");
            assert!(told.why(*taken).starts_with(won), "{name}: {}", told.why(*taken));
            assert!(told.why(*other).starts_with(lost), "{name}: {}", told.why(*other));
            assert!(told.says("scheduler").starts_with(name), "{}", told.says("scheduler"));
        }
    }
    let hashed = ["sh", "dh", "mh", "maglev"];
    let drawn = ["twos", "p2c"];
    for name in hashed {
        let told = loaded(Scheduler::named(description(name).expect("is known").name)).new_flow();
        let [taken, others] = [true, false].map(|is| told.servers.iter().filter(move |row| row.taken == is));
        assert!(taken.map(|row| &*row.why).eq(["the hash names it"]), "{name}: {told:?}");
        assert!(others.map(|row| &*row.why).eq(["the hash names another"; 2]), "{name}: {told:?}");
    }
    for name in drawn {
        let told = loaded(Scheduler::named(description(name).expect("is known").name)).new_flow();
        let sum: f64 = told.servers.iter().filter_map(|row| row.share).sum();
        assert!((sum - 1.0).abs() < 1e-9 && told.server.is_none() && told.by == Some(By::Lot), "{name}: {told:?}");
        assert!(told.why(2).starts_with("drawn about"), "{name}: {}", told.why(2));
    }
    let known: Vec<&str> = table.iter().map(|row| row.0).chain(hashed).chain(drawn).collect();
    for scheduler in SCHEDULERS {
        assert!(known.contains(&scheduler.name), "{} is in no table", scheduler.name);
    }
}

#[test]
fn ties_and_idle_servers_are_told() {
    let told = |name| Site::with(web(Scheduler::named(name), &[(1, 1), (2, 1)])).new_flow();
    assert_eq!(told("wlc").why(1), "0.00 ((256 x 0 + 0) / 1), the same, but comes later in the list");
    assert_eq!(told("nq").why(1), "has none either, but comes later in the list");
    assert_eq!(told("nq").why(2), "the first one without established connections");
    assert_eq!(told("fo").why(1), "weight 1, the same, but comes later in the list");
}

#[test]
fn servers_that_take_no_new_flows_say_why() {
    let mut service = web(Scheduler::WLC, &[(1, 1), (2, 0), (101, 1), (102, 7), (4, 1)]);
    service.servers[4].upper = Some(1);
    let site = Site::with(service);
    let full = site.snapshot.services[0].members.iter().find(|member| member.address == at(4)).expect("is there");
    assert!(full.load.try_open(true, full.upper));
    let told = site.new_flow();
    assert_eq!(told.server.as_deref(), Some("10.0.0.1:80"));
    for (last, why) in [
        (2, "weight 0: no new flows"),
        (101, "it cannot be reached"),
        (102, "down: connection refused"),
        (4, "overloaded: it had 1 flows, and takes more below three quarters"),
    ] {
        assert!(told.why(last).starts_with(why), "{last}: {}", told.why(last));
    }
    assert_eq!(told.servers.iter().filter(|row| row.available).count(), 1);
    // Persistent clients come whatever the threshold: then it is full, though nobody has called it overloaded.
    let mut beyond = web(Scheduler::RR, &[(1, 1)]);
    beyond.servers[0].upper = Some(2);
    let site = Site::with(beyond);
    (0..2).for_each(|_| site.snapshot.services[0].members[0].load.open(true));
    let told = site.new_flow();
    assert_eq!((told.server.as_deref(), told.reason.as_deref()), (None, Some("no-server")), "{told:?}");
    assert!(told.why(1).starts_with("full: 2 flows of 2"), "{told:?}");
    // Nobody is left: the client is told, or not.
    let mut none = web(Scheduler::RR, &[(2, 0)]);
    let answered = Site::with(none.clone()).new_flow();
    assert_eq!((answered.fortune, answered.server), (Fortune::Answered, None));
    none.health.no_server = NoServer::Drop;
    let dropped = Site::with(none).new_flow();
    assert_eq!((dropped.fortune, dropped.reason.as_deref()), (Fortune::Dropped, Some("no-server")));
    // A hash that names a server which takes none asks no other.
    let mut hashed = Site::with(web(Scheduler::named("dh"), &[(1, 0), (2, 1)]));
    if hashed.new_flow().server.is_some() {
        hashed = Site::with(web(Scheduler::named("dh"), &[(1, 1), (2, 0)]));
    }
    let told = hashed.new_flow();
    assert!(told.says("scheduler").contains("no other is asked"), "{told:?}");
}

#[test]
fn the_address_the_lists_and_the_service_come_first() {
    let mut desired = Desired::of(vec![web(Scheduler::RR, &[(1, 1)])]);
    let host = |text: &str, length| Prefix::new(text.parse().expect("address"), length).expect("prefix");
    let deny = (host("198.51.100.0", 24), Judgement::Deny);
    desired.access = Arc::new(Access::new(Judgement::Allow, vec![deny, (host("198.51.100.9", 32), Judgement::Allow)]));
    desired.vrrp.routers =
        vec![VirtualRouter::new("VI_1", "lan0", 51, vec![VirtualAddress::host([192, 0, 2, 10].into())])];
    let site = Site::of(desired);
    let slot = site.registry.routers.slot("VI_1").expect("a number");
    let backup = site.new_flow();
    assert_eq!(backup.reason.as_deref(), Some("not-master"));
    assert!(backup.says("address").contains("VI_1, of which another appliance is master"), "{backup:?}");
    site.registry.routers.mastery.set(slot, true);
    let denied = site.new_flow();
    assert_eq!(denied.reason.as_deref(), Some("denied"));
    assert_eq!(denied.says("access"), "denied: deny 198.51.100.0/24 is the longest prefix that has it");
    assert!(denied.says("address").contains("this appliance is master"), "{denied:?}");
    let allowed = site.asks(serde_json::json!({ "client": "198.51.100.9", "service": "web" }), &[]);
    assert_eq!(allowed.says("access"), "allowed: allow 198.51.100.9/32 is the longest prefix that has it");
    assert_eq!(allowed.summary, "goes to 10.0.0.1:80");
    let other = site.asks(serde_json::json!({ "client": "203.0.113.9", "to": "192.0.2.10:81" }), &[]);
    assert_eq!((other.fortune, other.service.as_deref()), (Fortune::Passed, None));
    assert_eq!(other.says("service"), "none on tcp 192.0.2.10:81; nearest: web (tcp 192.0.2.10:80)");
    let nobodys = site.asks(serde_json::json!({ "client": "203.0.113.9", "to": "192.0.2.11:443" }), &[]);
    assert!(nobodys.says("address").contains("no address of"), "{nobodys:?}");
    let martian = site.asks(serde_json::json!({ "client": "127.0.0.1", "to": "192.0.2.10:80" }), &[]);
    assert_eq!(martian.reason.as_deref(), Some("martian-source"));
}

/// A flow as the workers list it.
fn flow(port: u16, server: &str) -> FlowRow {
    FlowRow {
        worker: 1,
        service: Some("web".to_owned()),
        protocol: "tcp".to_owned(),
        state: "ESTABLISHED".to_owned(),
        proven: true,
        client: SocketAddr::from(([198, 51, 100, 7], port)),
        r#virtual: SocketAddr::from(([192, 0, 2, 10], 80)),
        server: Some(server.parse().expect("an end")),
        local: None,
        expires_s: 900,
        idle_ms: 250,
        flags: Vec::new(),
    }
}

#[test]
fn a_flow_that_is_there_decides() {
    let site = Site::with(web(Scheduler::RR, &[(1, 1), (2, 1)]));
    let question = serde_json::json!({ "client": "198.51.100.7:4000", "to": "192.0.2.10:80" });
    let told = site.asks(question.clone(), &[flow(4000, "10.0.0.1:80")]);
    assert_eq!((told.by, told.server.as_deref()), (Some(By::Flow), Some("10.0.0.1:80")));
    assert!(told.says("flow").starts_with("in ESTABLISHED for 250 ms, at worker 1; it stays with 10.0.0.1:80"));
    assert_eq!(told.why(2), "the flow has another");
    // Its server is gone: as if it were new.
    let told = site.asks(question.clone(), &[flow(4000, "10.0.0.9:80")]);
    assert_eq!((told.by, told.server.as_deref()), (Some(By::Scheduler), Some("10.0.0.2:80")));
    // Without a port they are only counted.
    let any = serde_json::json!({ "client": "198.51.100.7", "to": "192.0.2.10:80" });
    let told = site.asks(any, &[flow(4000, "10.0.0.1:80"), flow(4001, "10.0.0.2:80")]);
    assert_eq!(told.says("flow"), "2 flows of this client (port 4000, 4001); explained is a new one");
    // Its server is out.
    let site = Site::with(web(Scheduler::RR, &[(101, 1), (2, 1)]));
    let told = site.asks(question, &[flow(4000, "10.0.0.101:80")]);
    assert_eq!((told.fortune, told.server), (Fortune::Dropped, None));
}

#[test]
fn limits_and_persistence_are_looked_at_and_left() {
    let mut service = web(Scheduler::RR, &[(1, 1), (2, 1)]);
    let rate = Some(Rate { per_second: 1, burst: 1 });
    service.limits = Limits { connections: Some(2), rate, client_connections: Some(1), ..Limits::NONE };
    let site = Site::with(service.clone());
    for _ in 0..2 {
        let told = site.new_flow();
        assert_eq!(told.fortune, Fortune::Forwarded, "asking takes no token: {told:?}");
        assert!(told.says("limits").contains("0 of 2 flows of the service, within 1 new flows a second"), "{told:?}");
    }
    let entry = &site.snapshot.services[0];
    assert!(entry.state.rate.take(Rate { per_second: 1, burst: 1 }, site.now));
    assert_eq!(site.new_flow().reason.as_deref(), Some("service-rate"));
    entry.tally.flows.add();
    entry.tally.flows.add();
    assert_eq!(site.new_flow().reason.as_deref(), Some("service-connections"));
    let clients = &site.director.clients;
    clients.add(clients.network(entry.tally.id, [198, 51, 100, 7].into(), 32), site.now, |_| true);
    let told = site.new_flow();
    assert_eq!(told.reason.as_deref(), Some("client-connections"));
    assert!(told.says("limits").starts_with("1 of 1 flows of the client's /32"), "{told:?}");

    service.limits = Limits::NONE;
    let by = PersistBy::Client;
    let persistence = Persistence { by, seconds: 300, prefix_v4: 24, prefix_v6: 64, leave_drained: false };
    service.persistence = Some(persistence.clone());
    let site = Site::with(service);
    let told = site.new_flow();
    assert_eq!(told.by, Some(By::Scheduler));
    assert!(told.says("persistence").contains("no server yet"), "{told:?}");
    let entry = &site.snapshot.services[0];
    let first = entry.members.iter().find(|member| member.address == at(1)).expect("is there");
    let subject = crate::dataplane::persist::Subject::new(entry.unit, [198, 51, 100, 99].into(), &persistence, &[]);
    let joined = site.director.templates.join(&subject, site.now).expect("room");
    site.director.templates.bind(&joined, first.real, 300, site.now);
    let told = site.new_flow();
    assert_eq!((told.by, told.server.as_deref()), (Some(By::Persistence), Some("10.0.0.1:80")));
    assert_eq!((told.why(1), told.why(2)), ("the client has it", "the client has another"));
}

#[test]
fn the_next_hop_is_told_for_every_method() {
    let next_hop = |method, server: u8, change: fn(&mut Service)| {
        let mut service = web(Scheduler::RR, &[(server, 1)]);
        (service.method, service.servers[0].method) = (method, method);
        change(&mut service);
        let told = Site::with(service).new_flow();
        told.next_hop.clone().unwrap_or_else(|| panic!("{told:?}"))
    };
    let plain = next_hop(Method::Dr, 1, |_| {});
    let told = (plain.interface.as_deref(), plain.mac.as_deref(), plain.vlan, plain.mtu);
    assert_eq!(told, (Some("lan0"), Some("02:00:00:00:01:01"), None, 1500));
    assert_eq!(next_hop(Method::Nat, 50, |_| {}).vlan, Some(7));
    let tunnel = next_hop(Method::Ipip, 1, |service| service.tunnel.source_v4 = Some([10, 0, 0, 200].into()));
    assert_eq!((tunnel.mtu, tunnel.tunnel_source), (1480, Some([10, 0, 0, 200].into())));
    let full = next_hop(Method::FullNat, 1, |service| service.local_addresses = vec![[10, 0, 0, 201].into()]);
    assert_eq!((full.method.as_str(), full.local_addresses), ("full-nat", vec![[10, 0, 0, 201].into()]));
}

#[test]
fn a_port_that_is_not_given_may_decide() {
    let scheduler = Scheduler { port: true, ..Scheduler::MH };
    let site = Site::with(web(scheduler, &[(1, 1), (2, 1), (3, 1)]));
    let told = site.asks(serde_json::json!({ "client": "198.51.100.7", "to": "192.0.2.10:80" }), &[]);
    assert!(told.server.is_none() && told.says("scheduler").contains("the client's port decides"), "{told:?}");
    assert!(told.servers.iter().all(|row| row.share.is_some_and(|share| share > 0.1)), "{told:?}");
    assert!(site.new_flow().server.is_some());
}

#[test]
fn questions_are_understood_or_refused() {
    let desired = Desired::of(vec![web(Scheduler::RR, &[])]);
    let read = |value: Value| Question::read(value.as_object().expect("an object"), &desired);
    let named = read(serde_json::json!({ "client": "198.51.100.7", "service": "web" })).expect("is understood");
    assert_eq!((named.port, named.to, named.protocol), (None, "192.0.2.10:80".parse().unwrap(), Protocol::Tcp));
    for (value, part) in [
        (serde_json::json!({}), "`client` is missing"),
        (serde_json::json!({ "client": "web", "to": "192.0.2.10:80" }), "`client` is \"web\""),
        (serde_json::json!({ "client": "198.51.100.7" }), "`to` is missing"),
        (serde_json::json!({ "client": "198.51.100.7", "to": "192.0.2.10" }), "`to` is \"192.0.2.10\""),
        (serde_json::json!({ "client": "198.51.100.7", "to": "192.0.2.10:80", "protocol": "icmp" }), "expected one of"),
        (serde_json::json!({ "client": "198.51.100.7", "to": "[::1]:80" }), "different families"),
        (serde_json::json!({ "client": "198.51.100.7", "service": "wbe" }), "did you mean `web`"),
        (serde_json::json!({ "client": "198.51.100.7", "service": "web", "to": "192.0.2.10:80" }), "exclude"),
        (serde_json::json!({ "client": "198.51.100.7", "service": "web", "protocol": "udp" }), "leave `protocol` out"),
    ] {
        let error = read(value.clone()).unwrap_err();
        assert!(error.contains(part), "{value}: {error}");
    }
}

#[test]
fn it_reads_as_people_like_it() {
    let text = render(&loaded(Scheduler::WLC).new_flow());
    let expected = "\
198.51.100.7:4000 -> tcp 192.0.2.10:80: goes to 10.0.0.2:80

address      192.0.2.10 is answered for, by no virtual router
service      web (tcp 192.0.2.10:80)
access       no lists
flow         none with this port: a packet opens one
limits       none
persistence  none
scheduler    wlc: the next new flow gets 10.0.0.2:80
next hop     02:00:00:00:01:02 by lan0, dr, packets of up to 1500 bytes

   Server      Weight ActiveConn InActConn
   10.0.0.1:80 1      2          0         512.00 ((256 x 2 + 0) / 1), more
-> 10.0.0.2:80 2      2          0         the least: 256.00 ((256 x 2 + 0) / 2)
   10.0.0.3:80 1      1          5         261.00 ((256 x 1 + 5) / 1), more
";
    assert_eq!(text, expected);
}
