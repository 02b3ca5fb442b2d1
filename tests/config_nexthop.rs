//! Next hops against a real kernel: links, VLANs, routes and neighbours in network namespaces of our own.
//!
//! Needs root; without it the tests say so and pass.

mod config_support;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use config_support::Pair;
use evenkeel::control::config::parse;
use evenkeel::control::netlink::{Monitor, Netlink};
use evenkeel::control::nexthop::tracker::Tracker;
use evenkeel::control::nexthop::{NextHop, Path, Reason};
use evenkeel::model::{Desired, MacAddr};

fn desired(servers: &[&str], more: &str) -> Desired {
    let mut text = format!("{more}\n[[interface]]\nname = \"eth0\"\n");
    for (index, server) in servers.iter().enumerate() {
        let (prefix, sep) = if server.contains(':') { ("2001:db8:ffff:", ":") } else { ("192.0.2", ".") };
        text += &format!(
            "[[service]]\naddress = \"{prefix}{sep}{}\"\nport = 80\nserver = [{{ address = \"{server}\" }}]\n",
            index + 1
        );
    }
    let outcome = parse(&text, 0);
    outcome.desired.unwrap_or_else(|| panic!("{:#?}", outcome.problems))
}

/// Turns the tracker until the server has what is expected, or five seconds have passed.
fn expect(tracker: &mut Tracker, server: &str, expected: Result<NextHop, Reason>) {
    let address: IpAddr = server.parse().unwrap();
    let end = Instant::now() + Duration::from_secs(8);
    while tracker.hop(address, Path::OnLink) != Some(&expected) {
        assert!(Instant::now() < end, "{server}: {:?}, expected {expected:?}", tracker.hop(address, Path::OnLink));
        tracker.turn(Duration::from_millis(200));
    }
}

fn to(mac: u8, vlan: Option<u16>) -> Result<NextHop, Reason> {
    Ok(NextHop { port: 0, vlan, mac: MacAddr([2, 0, 0, 0, 0x0b, mac]) })
}

#[test]
fn next_hops_follow_the_kernel() {
    let Some(pair) = Pair::new("hops") else { return };
    pair.in_a("address add 10.0.0.1/24 dev eth0");
    pair.in_b("address add 10.0.0.11/24 dev eth0");
    pair.in_a("-6 address add 2001:db8::1/64 dev eth0 nodad");
    pair.in_b("-6 address add 2001:db8::11/64 dev eth0 nodad");
    let vlans = pair.can("link add link eth0 name eth0.100 type vlan id 100");
    if vlans {
        pair.in_b("link add link eth0 name eth0.100 type vlan id 100");
        pair.in_a("link set eth0.100 up");
        pair.in_b("link set eth0.100 up");
        pair.in_a("address add 10.1.0.1/24 dev eth0.100");
        pair.in_b("address add 10.1.0.11/24 dev eth0.100");
    }
    pair.in_a("route add 10.9.0.0/16 via 10.0.0.254");
    pair.in_a("link add br0 type bridge");
    pair.in_a("link set br0 up");
    pair.in_a("route add 10.8.0.0/16 dev br0");
    pair.enter(|| {
        let servers =
            ["10.0.0.11", "10.1.0.11", "2001:db8::11", "10.9.0.1", "10.8.0.1", "10.7.0.1", "10.0.0.1", "10.0.0.99"];
        let mut tracker = Tracker::open(&desired(&servers, ""), Instant::now()).unwrap();
        expect(&mut tracker, "10.9.0.1", Err(Reason::NotOnLink { gateway: "10.0.0.254".parse().unwrap() }));
        expect(&mut tracker, "10.8.0.1", Err(Reason::WrongInterface { name: "br0".to_owned() }));
        expect(&mut tracker, "10.7.0.1", Err(Reason::NoRoute));
        expect(&mut tracker, "10.0.0.1", Err(Reason::Local));
        expect(&mut tracker, "10.0.0.11", to(1, None));
        if vlans {
            expect(&mut tracker, "10.1.0.11", to(1, Some(100)));
        }
        expect(&mut tracker, "2001:db8::11", to(1, None));
        expect(&mut tracker, "10.0.0.99", Err(Reason::Failed));

        // A server that was not there answers once it is.
        pair.in_b("address add 10.0.0.99/24 dev eth0");
        expect(&mut tracker, "10.0.0.99", to(1, None));
        // A route appears.
        pair.in_a("address add 10.7.0.254/24 dev eth0");
        pair.in_b("address add 10.7.0.1/24 dev eth0");
        expect(&mut tracker, "10.7.0.1", to(1, None));
        // The kernel forgets a neighbour: it is asked again, and nobody sees it.
        pair.in_a("neighbour flush dev eth0");
        for _ in 0..5 {
            tracker.turn(Duration::from_millis(20));
            assert_eq!(tracker.hop("10.0.0.11".parse().unwrap(), Path::OnLink), Some(&to(1, None)));
        }
        // Another Ethernet address.
        pair.in_b("link set eth0 down");
        expect(&mut tracker, "10.0.0.11", Err(Reason::LinkDown { name: "eth0".to_owned() }));
        pair.in_b("link set eth0 address 02:00:00:00:0b:02");
        pair.in_b("link set eth0 up");
        pair.in_a("neighbour flush dev eth0");
        expect(&mut tracker, "10.0.0.11", to(2, None));

        // Another configuration: what stays is known at once, what is fixed needs no answer.
        let fixed = "[[neighbor]]\naddress = \"10.0.0.55\"\nmac = \"02:00:00:00:0b:55\"";
        tracker.watch(&desired(&["10.0.0.11", "10.0.0.55"], fixed), Instant::now()).unwrap();
        assert_eq!(tracker.hops().count(), 2);
        assert_eq!(tracker.hop("10.0.0.11".parse().unwrap(), Path::OnLink), Some(&to(2, None)));
        assert_eq!(tracker.hop("10.0.0.55".parse().unwrap(), Path::OnLink), Some(&to(0x55, None)));
    });
}

#[test]
fn routers_sources_and_mtus_follow_the_kernel() {
    let Some(pair) = Pair::new("routed") else { return };
    pair.in_a("address add 10.0.0.1/24 dev eth0");
    pair.in_a("address add 10.0.0.2/24 dev eth0");
    pair.in_b("address add 10.0.0.254/24 dev eth0");
    pair.in_a("route add 10.9.0.0/16 via 10.0.0.254 mtu 1400");
    pair.in_a("-6 address add 2001:db8::1/64 dev eth0 nodad");
    pair.in_b("-6 address add 2001:db8::fe/64 dev eth0 nodad");
    pair.in_a("-6 route add 2001:db8:9::/48 via 2001:db8::fe");
    pair.enter(|| {
        let text = "[[interface]]\nname = \"eth0\"\n[[service]]\naddress = \"192.0.2.10\"\nport = 80\nserver = [\n\
                    { address = \"10.9.0.1\", method = \"nat\" }, { address = \"10.9.0.2\", method = \"dr\" },\n\
                    { address = \"10.9.0.3\", method = \"gue\" }, { address = \"2001:db8:9::4\", method = \"ipip\" },\n\
                    { address = \"10.0.0.1\", method = \"ipip\" }]";
        let desired = parse(text, 0).desired.unwrap();
        let service = &desired.services[0];
        let servers = &service.servers;
        let mut tracker = Tracker::open(&desired, Instant::now()).unwrap();
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let await_that = |tracker: &mut Tracker, what: &str, done: &dyn Fn(&Tracker) -> bool| {
            let end = Instant::now() + Duration::from_secs(8);
            while !done(tracker) {
                assert!(Instant::now() < end, "{what}: {:?}", tracker.hops().collect::<Vec<_>>());
                tracker.turn(Duration::from_millis(200));
            }
        };
        for at in [0, 2, 3] {
            await_that(&mut tracker, "the router", &|tracker| tracker.reach(service, &servers[at]) == to(1, None));
        }
        let not_on_link = Err(Reason::NotOnLink { gateway: address("10.0.0.254") });
        assert_eq!(tracker.reach(service, &servers[1]), not_on_link, "direct routing ends at routers");
        assert_eq!(tracker.reach(service, &servers[4]), Err(Reason::Local));
        assert!(
            tracker.whereabouts(service, &servers[4]).local && tracker.facts().addresses.contains(&address("10.0.0.2"))
        );
        let found = tracker.whereabouts(service, &servers[2]);
        assert_eq!((found.source, found.mtu), (Some(address("10.0.0.1")), Some(1400)));
        let found = tracker.whereabouts(service, &servers[3]);
        assert_eq!((found.source, found.mtu), (Some(address("2001:db8::1")), None));
        let mut configured = service.clone();
        configured.tunnel.source_v4 = Some([10, 0, 0, 77].into());
        let found = tracker.whereabouts(&configured, &servers[2]);
        assert_eq!(found.source, Some(address("10.0.0.77")));

        // Another source address and MTU: that is a change, though the next hop is the same.
        while tracker.turn(Duration::from_millis(50)) {}
        pair.in_a("route replace 10.9.0.0/16 via 10.0.0.254 src 10.0.0.2");
        let end = Instant::now() + Duration::from_secs(8);
        while !tracker.turn(Duration::from_millis(200)) {
            assert!(Instant::now() < end, "the route changed");
        }
        let found = tracker.whereabouts(service, &servers[2]);
        assert_eq!((found.source, found.mtu), (Some(address("10.0.0.2")), None));
        assert_eq!(tracker.reach(service, &servers[2]), to(1, None));
        // An address of the machine is one, too.
        pair.in_a("address add 10.0.0.3/24 dev eth0");
        await_that(&mut tracker, "an address", &|tracker| tracker.facts().addresses.contains(&address("10.0.0.3")));

        // Another router that nobody knows: the old one's Ethernet address is not held.
        pair.in_a("route replace 10.9.0.0/16 via 10.0.0.253");
        await_that(&mut tracker, "the other router", &|tracker| tracker.reach(service, &servers[0]).is_err());
        pair.in_b("address add 10.0.0.253/24 dev eth0");
        await_that(&mut tracker, "the other router", &|tracker| tracker.reach(service, &servers[0]) == to(1, None));
    });
}

#[test]
fn links_addresses_and_routes_are_read() {
    let Some(pair) = Pair::new("read") else { return };
    pair.in_a("address add 10.0.0.1/24 dev eth0");
    let vlans = pair.can("link add link eth0 name eth0.7 type vlan id 7")
        && pair.can("link add link eth0 name ad.8 type vlan proto 802.1ad id 8");
    pair.in_a("link add br0 type bridge");
    pair.enter(|| {
        let mut netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let find = |name: &str| links.iter().find(|link| link.name == name).unwrap();
        let eth0 = find("eth0");
        assert_eq!(eth0.mac, Some(MacAddr([2, 0, 0, 0, 0x0a, 1])));
        assert_eq!((eth0.up, eth0.running, eth0.mtu, eth0.kind.as_deref()), (true, true, 1500, Some("veth")));
        assert_eq!(eth0.parent, None, "the peer is in another namespace");
        assert_eq!((find("br0").kind.as_deref(), find("br0").up), (Some("bridge"), false));
        if vlans {
            let vlan = find("eth0.7");
            assert_eq!((vlan.parent, vlan.vlan, vlan.kind.as_deref()), (Some(eth0.index), Some(7), Some("vlan")));
            assert_eq!(find("ad.8").vlan, None, "not an 802.1Q tag");
        }
        let address = netlink.addresses().unwrap().into_iter().find(|address| address.address.is_ipv4()).unwrap();
        assert_eq!((address.link, address.prefix), (eth0.index, 24));
        let route = netlink.route("10.0.0.9".parse().unwrap()).unwrap().unwrap();
        assert_eq!((route.link, route.gateway, route.local), (eth0.index, None, false));
        assert_eq!(route.source, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(netlink.route("198.51.100.1".parse().unwrap()).unwrap(), None);
        assert_eq!(netlink.route("2001:db8::1".parse().unwrap()).unwrap(), None);
        assert!(netlink.neighbours().is_ok());
    });
}

#[test]
fn the_monitor_hears_and_survives_a_flood() {
    let Some(pair) = Pair::new("flood") else { return };
    pair.enter(|| {
        let mut monitor = Monitor::open().unwrap();
        assert!(monitor.drain().is_empty());
        pair.in_a("address add 10.0.0.1/24 dev eth0");
        assert!(monitor.wait(Duration::from_secs(2)));
        assert!(monitor.drain().routes);
        // More announcements than the socket can hold.
        let folder = std::env::temp_dir().join(format!("ek-cfg-{}-batch", std::process::id()));
        let batch: String = (0..60_000)
            .map(|n| {
                format!(
                    "neigh replace 10.0.{}.{} lladdr 02:00:00:00:00:01 dev eth0 nud permanent\n",
                    n / 250 % 250,
                    n % 250
                )
            })
            .collect();
        std::fs::write(&folder, batch).unwrap();
        pair.in_a(&format!("-force -batch {}", folder.display()));
        std::fs::remove_file(&folder).unwrap();
        let changes = monitor.drain();
        assert!(changes.lost, "{} rows were heard", changes.neighbours.len());
        // It still hears.
        pair.in_a("link set eth0 mtu 1400");
        assert!(monitor.wait(Duration::from_secs(2)));
        assert!(monitor.drain().links);
    });
}

#[test]
fn a_link_that_comes_back_has_its_neighbour_at_once() {
    let Some(pair) = Pair::new("back") else { return };
    pair.in_a("address add 10.0.0.1/24 dev eth0");
    pair.in_b("address add 10.0.0.11/24 dev eth0");
    pair.enter(|| {
        let server: IpAddr = "10.0.0.11".parse().unwrap();
        let mut tracker = Tracker::open(&desired(&["10.0.0.11"], ""), Instant::now()).unwrap();
        expect(&mut tracker, "10.0.0.11", to(1, None));
        let mut at_once = 0;
        for _ in 0..4 {
            pair.in_b("link set eth0 down");
            let end = Instant::now() + Duration::from_secs(8);
            let is_running = |tracker: &Tracker| tracker.facts().links.values().any(|l| l.name == "eth0" && l.running);
            while is_running(&tracker) || tracker.hop(server, Path::OnLink).is_some_and(Result::is_ok) {
                assert!(Instant::now() < end, "the link does not go");
                tracker.turn(Duration::from_millis(50));
            }
            pair.in_b("link set eth0 up");
            while !is_running(&tracker) {
                assert!(Instant::now() < end, "the link does not come back");
                tracker.turn(Duration::from_millis(5));
            }
            // Well before the next round of questions to the kernel, which is a second away at most.
            let soon = Instant::now() + Duration::from_millis(300);
            while Instant::now() < soon && tracker.hop(server, Path::OnLink).is_some_and(Result::is_err) {
                tracker.turn(Duration::from_millis(5));
            }
            at_once += usize::from(tracker.hop(server, Path::OnLink).is_some_and(Result::is_ok));
            expect(&mut tracker, "10.0.0.11", to(1, None));
        }
        assert!(at_once >= 3, "only {at_once} of 4");
    });
}
