//! Checks with `path = "service"`: real servers that have the service's address, lack it, or listen elsewhere, and what the
//! checks say of them; by direct routing and by tunnel, IPv4 and IPv6.

mod lab_support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use evenkeel::control::config;
use evenkeel::control::health::egress::{ServicePath, Ways};
use evenkeel::control::nexthop::tracker::Tracker;
use evenkeel::health::{CheckId, Checker, Event, Plan, Wiring};
use evenkeel::lab::engine::find_server;
use evenkeel::lab::netlink::{Cidr, Wire};
use evenkeel::lab::server::nginx;
use evenkeel::lab::site::Family;
use evenkeel::lab::topology::Lab;
use evenkeel::model::Method;
use evenkeel::model::{Desired, ServiceKey};
use lab_support::rig::{WEB, Wish};
use lab_support::{lab_is_possible, program};
use serde_json::Value as Json;
use toml::{Table, Value};

const PATIENCE: Duration = Duration::from_secs(60);

/// The director is 1; servers have the last number of their address.
const GOOD: u8 = 11;
const LACKING: u8 = 12;
const ELSEWHERE: u8 = 13;
const TUNNEL: u8 = 14;

fn v4(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn v6(last: u8) -> IpAddr {
    IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
}

fn vip4(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn vip6() -> IpAddr {
    IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10])
}

fn name(server: u8) -> String {
    format!("s{server}")
}

/// What is the same in all services: the first result decides, and nothing is in a hurry.
const PACE: &str = "interval = 4, timeout = 4, warmup = 0, rise = 1, fall = 1";

fn service(name: &str, address: IpAddr, more: &str, servers: &[IpAddr], check: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("{{ address = \"{server}\" }}")).collect();
    format!(
        "[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nport = 8080\n{more}\nserver = [{}]\n\
         check = [{{ {check}, {PACE} }}]\n",
        servers.join(", ")
    )
}

fn desired() -> Desired {
    let own = [GOOD, LACKING, ELSEWHERE];
    let way = "path = \"service\"";
    let text = [
        "[[interface]]\nname = \"eth0\"\n".to_owned(),
        service("v4", vip4(10), "", &own.map(v4), &format!("type = \"tcp\", {way}")),
        service("v6", vip6(), "", &own.map(v6), &format!("type = \"tcp\", {way}")),
        service("web", vip4(20), "", &[v4(GOOD)], &format!("type = \"http\", body = \"for 192.0.2.20\", {way}")),
        service("direct", vip4(30), "", &[v4(LACKING)], "type = \"tcp\""),
        service("tunnel", vip4(40), "method = \"ipip\"", &[v4(TUNNEL)], &format!("type = \"tcp\", {way}")),
        service("gre", vip4(50), "method = \"gre\"", &[v6(TUNNEL)], &format!("type = \"tcp\", {way}")),
        service("udp", vip4(60), "protocol = \"udp\"", &[v4(GOOD)], &format!("type = \"udp\", reply = \"yes\", {way}")),
    ];
    let outcome = config::parse(&text.concat(), 0);
    assert!(outcome.problems.is_empty(), "{:#?}", outcome.problems);
    outcome.desired.unwrap()
}

/// A director and its servers on one segment.
fn build() -> Lab {
    let mut lab = Lab::new().unwrap();
    lab.add_segment("net", 1500).unwrap();
    let servers = [GOOD, LACKING, ELSEWHERE, TUNNEL];
    for (node, last) in [("director".to_owned(), 1)].into_iter().chain(servers.map(|server| (name(server), server))) {
        lab.add_node(&node).unwrap();
        lab.attach(&node, "eth0", "net", Wire::default()).unwrap();
        lab.address(&node, "eth0", Cidr::new(v4(last), 24)).unwrap();
        lab.address(&node, "eth0", Cidr::new(v6(last), 64)).unwrap();
        for of in ["all", "default", "eth0"] {
            lab.setting(&node, &format!("net/ipv4/conf/{of}/rp_filter"), "0").unwrap();
        }
    }
    for (server, address) in [
        (GOOD, vip4(10)),
        (GOOD, vip6()),
        (GOOD, vip4(20)),
        (GOOD, vip4(60)),
        (ELSEWHERE, vip4(10)),
        (ELSEWHERE, vip6()),
        (TUNNEL, vip4(40)),
        (TUNNEL, vip4(50)),
    ] {
        lab.address(&name(server), "lo", Cidr::host(address)).unwrap();
    }
    lab
}

fn listen(lab: &Lab, server: u8, address: IpAddr) -> TcpListener {
    let bind = move || TcpListener::bind(SocketAddr::new(address, 8080));
    lab.node(&name(server)).unwrap().run(bind).unwrap().unwrap_or_else(|error| panic!("{server} {address}: {error}"))
}

/// Answers web requests and datagrams of `GOOD` until the lab ends.
fn serve(lab: &mut Lab) {
    let short = Duration::from_millis(20);
    let listener = listen(lab, GOOD, vip4(20));
    listener.set_nonblocking(true).unwrap();
    let web = move |stop: Arc<AtomicBool>| {
        while !stop.load(Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else {
                std::thread::sleep(short);
                continue;
            };
            stream.set_nonblocking(false).unwrap();
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let mut request = [0; 2048];
            if stream.read(&mut request).is_ok_and(|length| length > 0) {
                let body = format!("for {}", stream.local_addr().unwrap().ip());
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        }
    };
    lab.thread(&name(GOOD), "web", web).unwrap();
    let echo = move |stop: Arc<AtomicBool>| {
        let udp = UdpSocket::bind(SocketAddr::new(vip4(60), 8080)).unwrap();
        udp.set_read_timeout(Some(short)).unwrap();
        let mut question = [0; 100];
        while !stop.load(Relaxed) {
            if let Ok((_, from)) = udp.recv_from(&mut question) {
                let _ = udp.send_to(b"yes, indeed", from);
            }
        }
    };
    lab.thread(&name(GOOD), "udp", echo).unwrap();
}

/// A checker in the director's namespace, with the ways as its kernel knows them.
struct Director {
    checker: Checker,
    plan: Vec<(CheckId, ServiceKey, IpAddr)>,
    latest: HashMap<CheckId, Event>,
}

impl Director {
    fn start(lab: &Lab, desired: &Desired) -> Director {
        let checker = lab
            .node("director")
            .unwrap()
            .run(|| {
                let start = Instant::now();
                let mut tracker = Tracker::open(desired, start).unwrap();
                while tracker.hops().any(|(_, reach)| reach.is_err()) {
                    let hops: Vec<_> = tracker.hops().collect();
                    assert!(start.elapsed() < PATIENCE, "{hops:?}");
                    drop(hops);
                    tracker.turn(Duration::from_millis(100));
                }
                let ways = Ways::default();
                ways.learn(&tracker, desired);
                let egress = Box::new(ServicePath::new(ways));
                Checker::start(Wiring { wake: Arc::new(|| {}), egress: Some(egress) }).unwrap()
            })
            .unwrap();
        let servers =
            desired.services.iter().flat_map(|service| service.servers.iter().map(|server| (service.key, server)));
        let mut checks = Vec::new();
        let mut plan = Vec::new();
        for ((key, server), id) in servers.zip(0..) {
            let [check] = server.health.checks.as_slice() else { panic!("{server:?}") };
            checks.push((CheckId(id), Arc::new(check.clone())));
            plan.push((CheckId(id), key, server.address));
        }
        checker.configure(Plan { checks });
        Director { checker, plan, latest: HashMap::new() }
    }

    fn id(&self, service: IpAddr, server: IpAddr) -> CheckId {
        self.plan.iter().find(|(_, key, of)| key.address == service && *of == server).unwrap().0
    }

    /// Waits until `holds` of the newest event of a check.
    fn wait(&mut self, id: CheckId, what: &str, holds: impl Fn(&Event) -> bool) -> Event {
        let start = Instant::now();
        loop {
            self.latest.extend(self.checker.events().map(|event| (event.id, event)));
            match self.latest.get(&id) {
                Some(event) if holds(event) => return event.clone(),
                event => {
                    let record = self.checker.record(id).map(|record| record.read());
                    assert!(start.elapsed() < PATIENCE, "{what}: {event:?}, {record:#?}");
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn expect(&mut self, service: IpAddr, server: IpAddr, up: bool, words: &str) {
        let id = self.id(service, server);
        let what = format!("{service} on {server}: {up} {words}");
        let event = self.wait(id, &what, |event| event.up == up);
        assert!(event.words.contains(words), "{what}: {event:?}");
    }
}

fn rules(lab: &Lab) -> String {
    ["-4", "-6"].map(|family| lab.output("director", Command::new("ip").args([family, "rule"])).unwrap()).concat()
}

#[test]
fn a_server_is_asked_what_clients_ask_and_where() {
    if !lab_is_possible() {
        return;
    }
    let mut lab = build();
    let desired = desired();
    let mut held = vec![
        listen(&lab, GOOD, vip4(10)),
        listen(&lab, GOOD, vip6()),
        listen(&lab, LACKING, "0.0.0.0".parse().unwrap()),
        listen(&lab, ELSEWHERE, v4(ELSEWHERE)),
        listen(&lab, ELSEWHERE, v6(ELSEWHERE)),
        listen(&lab, TUNNEL, vip4(40)),
        listen(&lab, TUNNEL, vip4(50)),
    ];
    serve(&mut lab);
    let mut decap = Command::new(program());
    decap.args(["realserver", "decap", "--prefer-kernel", "false"]);
    let decap = lab.start(&name(TUNNEL), "decap", &decap).unwrap();
    let start = Instant::now();
    while !decap.output().contains("ready:") {
        assert!(start.elapsed() < PATIENCE && decap.ended().is_none(), "{}", decap.last_words(10));
        std::thread::sleep(Duration::from_millis(20));
    }
    // What an engine has left that did not end by itself.
    let mut stale = Command::new("ip");
    stale.args(["rule", "add", "pref", "1", "fwmark", "0x656b0000", "lookup", "1701511168"]);
    lab.output("director", &stale).unwrap();

    let mut director = Director::start(&lab, &desired);
    let lacks =
        |server: IpAddr, service: IpAddr| format!("{server} does not answer for {service}: is the address on its lo");
    for (service, of) in [(vip4(10), v4 as fn(u8) -> IpAddr), (vip6(), v6)] {
        director.expect(service, of(GOOD), true, "");
        director.expect(service, of(ELSEWHERE), false, "nothing listens on port 8080 there");
        director.expect(service, of(LACKING), false, &lacks(of(LACKING), service));
    }
    // The very server that does not serve answers on its own address.
    director.expect(vip4(30), v4(LACKING), true, "");
    director.expect(vip4(20), v4(GOOD), true, "");
    director.expect(vip4(40), v4(TUNNEL), true, "");
    director.expect(vip4(50), v6(TUNNEL), true, "");
    director.expect(vip4(60), v4(GOOD), true, "");
    let mine = rules(&lab);
    assert_eq!(mine.matches("fwmark 0x656b0000").count(), 2, "one for each family: {mine}");

    // Somebody takes the address off, and puts it on again; a daemon moves to where clients ask.
    let lo = |add: bool| {
        let host = Cidr::host(vip4(10));
        let change = move |rtnl: &mut evenkeel::lab::netlink::Rtnl| match add {
            true => rtnl.add_address("lo", host),
            false => rtnl.delete_address("lo", host),
        };
        lab.rtnl(&name(GOOD), change).unwrap();
    };
    lo(false);
    director.expect(vip4(10), v4(GOOD), false, &lacks(v4(GOOD), vip4(10)));
    lo(true);
    director.expect(vip4(10), v4(GOOD), true, "");
    held.push(listen(&lab, ELSEWHERE, vip4(10)));
    director.expect(vip4(10), v4(ELSEWHERE), true, "");

    // It leaves nothing behind.
    drop(director);
    let left = rules(&lab);
    assert!(!left.contains("656b"), "{left}");
    let mut links = Command::new("ip");
    links.args(["-brief", "link"]);
    let links = lab.output("director", &links).unwrap();
    assert!(links.contains("eth0") && !links.contains("ekcheck"), "{links}");
}

#[test]
fn the_engine_takes_a_server_out_that_lost_the_address() {
    if !lab_is_possible() {
        return;
    }
    for family in [Family::V4, Family::V6] {
        let mut stand = Wish::new(Method::Dr, family).build();
        let text = format!("type = \"http\"\npath = \"service\"\n{}", PACE.replace(", ", "\n").replace('4', "1"));
        stand.config.change_service("web", "check", vec![Value::from(text.parse::<Table>().unwrap())]);
        let web = nginx::start_all(&stand.site, WEB).unwrap_or_else(|error| panic!("{error}"));
        let rig = stand.start_engine();
        let (address, vip) = (rig.site.servers[1].address(family), rig.site.vip(family));
        let state = |wanted: &str| -> Json {
            let is = |status: &Json| find_server(status, "web", address).is_some_and(|found| found["state"] == wanted);
            let status = rig.engine.await_status(PATIENCE, wanted, is);
            let status = status.unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
            find_server(&status, "web", address).cloned().unwrap()
        };
        state("up");
        let lo = |add: bool| {
            let change = move |rtnl: &mut evenkeel::lab::netlink::Rtnl| match add {
                true => rtnl.add_address("lo", Cidr::host(vip)),
                false => rtnl.delete_address("lo", Cidr::host(vip)),
            };
            rig.site.lab.rtnl(&rig.site.servers[1].name, change).unwrap();
        };
        lo(false);
        let down = state("down");
        let words = down["reason"].as_str().unwrap_or_default();
        assert!(words.contains(&format!("{address} does not answer for {vip}")), "{down}");
        lo(true);
        state("up");
        drop(web);
    }
}
