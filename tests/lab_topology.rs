//! The lab itself, proven with the kernel in the engine's place: what these tests find working, an engine can break.

mod lab_support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel::lab::bytes::Bytes;
use evenkeel::lab::client::frames::Frames;
use evenkeel::lab::client::{http, load, ping, stream, transfer, udp};
use evenkeel::lab::holdings;
use evenkeel::lab::netlink::{Cidr, Wire};
use evenkeel::lab::server::{hash, nginx, transfer as transfer_server, udp as udp_server};
use evenkeel::lab::site::{APPLIANCE, CLIENT, Family, Reach, Shape, Site, SiteOptions};
use evenkeel::lab::{queues, tagger};
use lab_support::lab_is_possible;

const PATIENCE: Duration = Duration::from_secs(3);

/// Direct routing by the kernel: the client knows the appliance's MAC for the service address, and the appliance routes
/// that address to one server.
fn route_by_kernel(site: &Site, family: Family) {
    let vip = site.vip(family);
    let forwarding = match family {
        Family::V4 => "net/ipv4/ip_forward",
        Family::V6 => "net/ipv6/conf/all/forwarding",
    };
    site.lab.setting(APPLIANCE, forwarding, "1").unwrap();
    site.lab.setting(APPLIANCE, "net/ipv4/conf/all/send_redirects", "0").unwrap();
    let mac = site.lab.mac(APPLIANCE, "eth0").unwrap();
    let eth0 = site.addressed_interface("eth0");
    site.lab.rtnl(CLIENT, |rtnl| rtnl.set_neighbor(&eth0, vip, mac)).unwrap();
    site.lab.route(APPLIANCE, Cidr::host(vip), site.servers[1].address(family)).unwrap();
}

/// Direct routing by this test: frames for the appliance go to one server, whatever tag they have, which must be there.
fn route_by_hand(site: &mut Site, family: Family) {
    let vip = site.vip(family);
    let own = site.lab.mac(APPLIANCE, "eth0").unwrap();
    let server = site.lab.mac("server2", "eth0").unwrap();
    let eth0 = site.addressed_interface("eth0");
    site.lab.rtnl(CLIENT, |rtnl| rtnl.set_neighbor(&eth0, vip, own)).unwrap();
    let expected = tagger::tag(site.options.vlan.unwrap());
    let mut frames = Frames::open(site.lab.node(APPLIANCE).unwrap(), "eth0").unwrap();
    site.lab
        .thread(APPLIANCE, "by-hand", move |stop| {
            while !stop.load(Ordering::Relaxed) {
                let Some(mut frame) = frames.poll() else { continue };
                if frame[..6] == own.0 {
                    assert_eq!(frame[12..16], expected, "a frame without its tag");
                    frame[..6].copy_from_slice(&server.0);
                    frame[6..12].copy_from_slice(&own.0);
                    frames.send(&frame).unwrap();
                }
            }
        })
        .unwrap();
}

fn whole_site(options: SiteOptions, family: Family) {
    let mut site = Site::build(options).unwrap();
    nginx::start_all(&site, 80).unwrap();
    hash::start_all(&mut site, family, 7).unwrap();
    udp_server::start_all(&mut site, family, 9).unwrap();

    for family in [Family::V4, Family::V6] {
        let appliance = site.appliance_address(family);
        if options.vlan.is_none() {
            site.lab.node(CLIENT).unwrap().run(|| ping::ping(appliance, 1000, PATIENCE)).unwrap().unwrap();
        }
    }

    // Nobody answers ARP or ND for the service address: the real servers keep silent.
    let client = site.lab.node(CLIENT).unwrap();
    let target = site.vip_port(family, 80);
    let unanswered = client.run(|| TcpStream::connect_timeout(&target, Duration::from_millis(300))).unwrap();
    assert!(unanswered.is_err(), "something answered for the service address without an appliance");

    if options.vlan.is_some() {
        route_by_hand(&mut site, family);
    } else {
        route_by_kernel(&site, family);
    }
    let client = site.lab.node(CLIENT).unwrap();
    let answer = client.run(|| http::get(target, "/", PATIENCE)).unwrap().unwrap();
    assert_eq!((answer.status, answer.server.as_str(), answer.body.as_slice()), (200, "server2", &b"server2\n"[..]));
    let large = client.run(|| http::get(target, "/large", PATIENCE)).unwrap().unwrap();
    assert!(large.body == nginx::large_file(), "the large file came out different");

    let streams =
        stream::Streams::open(client, site.vip_port(family, 7), stream::Speech::Hash(4000), 3, Duration::ZERO).unwrap();
    assert!(streams.settled(PATIENCE));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(streams.broken(), Vec::<String>::new());
    assert_eq!(streams.by_server().into_iter().collect::<Vec<_>>(), [("server2".to_owned(), 3)]);
    assert!(streams.exchanges() > 30, "only {} exchanges", streams.exchanges());
    drop(streams);

    let answers = client.run(|| udp::survey(site.vip_port(family, 9), 5, PATIENCE)).unwrap();
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), [("server2".to_owned(), 5)]);

    let tally = load::requests(client, &load::LoadPlan::new(target), 20).unwrap();
    assert_eq!((tally.of("server2"), tally.failures), (20, 0), "{:?}", tally.reasons);
}

#[test]
fn one_arm_ipv4() {
    if lab_is_possible() {
        whole_site(SiteOptions::default(), Family::V4);
    }
}

#[test]
fn one_arm_ipv6() {
    if lab_is_possible() {
        whole_site(SiteOptions::default(), Family::V6);
    }
}

#[test]
fn two_arms_ipv4_with_four_queues() {
    if lab_is_possible() {
        let wire = Wire { queues: 4, mtu: 1500 };
        whole_site(SiteOptions { shape: Shape::TwoArm, wire, ..SiteOptions::default() }, Family::V4);
    }
}

#[test]
fn two_arms_ipv6() {
    if lab_is_possible() {
        whole_site(SiteOptions { shape: Shape::TwoArm, ..SiteOptions::default() }, Family::V6);
    }
}

#[test]
fn tagged_frames_and_jumbo_packets() {
    if lab_is_possible() {
        let wire = Wire { queues: 2, mtu: 3000 };
        whole_site(SiteOptions { vlan: Some(100), wire, ..SiteOptions::default() }, Family::V4);
        whole_site(SiteOptions { vlan: Some(100), ..SiteOptions::default() }, Family::V6);
    }
}

/// The kernel in the place of an engine that translates nothing: it has the gateway, and the client asks the servers by
/// their own addresses.
fn routed_site(options: SiteOptions) {
    let mut site = Site::build(options).unwrap();
    let back = *site.appliance_interfaces().last().unwrap();
    for family in [Family::V4, Family::V6] {
        site.lab
            .address(APPLIANCE, back, Cidr::new(site.gateway(family), site.servers_network(family).prefix))
            .unwrap();
    }
    nginx::start_all(&site, 8080).unwrap();
    for family in [Family::V4, Family::V6] {
        let server = site.servers[0].clone();
        let address = server.address(family);
        transfer_server::start(&mut site, &server.name, address, 7).unwrap();
        udp_server::start(&mut site, &server.name, address, 9).unwrap();
        let client = site.lab.node(CLIENT).unwrap();
        let answer = client.run(|| http::get(SocketAddr::new(address, 8080), "/", PATIENCE)).unwrap().unwrap();
        assert_eq!(answer.server, "server1");
        assert!(answer.client.starts_with(&format!("{} ", site.client_address(family))), "{}", answer.client);
        let plan = transfer::Plan { seed: 1, up: 4 << 20, down: 3 << 20 };
        let outcomes = transfer::at_once(client, SocketAddr::new(address, 7), plan, 2).unwrap();
        for outcome in outcomes {
            let transfer = outcome.unwrap();
            assert_eq!((transfer.server.as_str(), transfer.bytes), ("server1", 7 << 20));
            println!("{transfer}");
        }
        let socket = client.run(|| udp::socket(SocketAddr::new(address, 9), PATIENCE)).unwrap().unwrap();
        let mut bytes = Bytes::new(5);
        for size in [1, 1472, 1473, 20_000, 60_000] {
            let payload = bytes.take(size);
            let answered = client.run(|| udp::ask_bytes(&socket, &payload)).unwrap();
            assert_eq!(answered.unwrap_or_else(|error| panic!("{size} bytes: {error}")), "server1");
        }
    }
}

#[test]
fn a_nat_site_with_either_shape() {
    if lab_is_possible() {
        for shape in [Shape::OneArm, Shape::TwoArm] {
            routed_site(SiteOptions { shape, servers: 2, reach: Reach::Nat, ..SiteOptions::USUAL });
        }
    }
}

#[test]
fn a_site_whose_frames_change_their_order() {
    if lab_is_possible() {
        let options = SiteOptions { shape: Shape::TwoArm, servers: 1, reach: Reach::Nat, ..SiteOptions::USUAL };
        routed_site(SiteOptions { shuffled: true, ..options });
    }
}

/// All frames for the appliance come by the queues that the shuffle chooses, and in time by all of them.
#[test]
fn frames_change_their_queue() {
    if !lab_is_possible() {
        return;
    }
    let wire = Wire { queues: 4, mtu: 1500 };
    let options = SiteOptions { shape: Shape::TwoArm, servers: 1, reach: Reach::Nat, wire, ..SiteOptions::USUAL };
    let site = Site::build(options).unwrap();
    // The driver counts frames by queue when it polls, which GRO makes it do.
    site.lab.output(APPLIANCE, Command::new("ethtool").args(["-K", "eth0", "gro", "on"])).unwrap();
    let processes = queues::shuffle(&site).unwrap();
    let appliance = site.appliance_address(Family::V4);
    let start = std::time::Instant::now();
    let used = loop {
        site.lab.node(CLIENT).unwrap().run(|| ping::ping(appliance, 56, PATIENCE)).unwrap().unwrap();
        let told = site.lab.output(APPLIANCE, Command::new("ethtool").args(["-S", "eth0"])).unwrap();
        let count = |line: &str| line.split_once(':').and_then(|(_, number)| number.trim().parse::<u64>().ok());
        let used = |queue: u32| {
            let name = format!("rx_queue_{queue}_xdp_packets");
            told.lines().find(|line| line.trim().starts_with(&name)).and_then(count).unwrap_or(0)
        };
        let used: Vec<u64> = (0..4).map(used).collect();
        if used.iter().all(|&count| count > 0) || start.elapsed() > PATIENCE {
            break used;
        }
    };
    assert!(processes.iter().all(|process| process.ended().is_none()), "{}", processes[0].last_words(5));
    assert!(used.iter().all(|&count| count > 0), "frames by queue: {used:?}");
}

#[test]
fn a_mixed_site_and_one_with_tunnels_have_their_routes() {
    if !lab_is_possible() {
        return;
    }
    for (shape, reach) in
        [(Shape::TwoArm, Reach::Mixed), (Shape::TwoArm, Reach::Tunnel), (Shape::OneArm, Reach::Tunnel)]
    {
        let site = Site::build(SiteOptions { shape, reach, ..SiteOptions::USUAL }).unwrap();
        for family in [Family::V4, Family::V6] {
            for server in &site.servers {
                let address = server.address(family);
                let reached =
                    |node: &str| site.lab.node(node).unwrap().run(|| ping::ping(address, 1400, PATIENCE)).unwrap();
                reached(APPLIANCE).unwrap_or_else(|error| panic!("{reach:?}: the appliance to {address}: {error}"));
                if server.reach != Reach::Nat {
                    reached(CLIENT).unwrap_or_else(|error| panic!("{reach:?}: the client to {address}: {error}"));
                }
            }
        }
    }
}

#[test]
fn a_node_sees_its_own_sys_and_ip_netns_knows_it() {
    if !lab_is_possible() {
        return;
    }
    let wire = Wire { queues: 3, mtu: 1500 };
    let site = Site::build(SiteOptions { wire, ..SiteOptions::default() }).unwrap();
    let listing = site.lab.output(APPLIANCE, Command::new("ls").arg("/sys/class/net")).unwrap();
    assert!(listing.lines().all(|name| ["eth0", "lo"].contains(&name)), "{listing}");
    let queues = site.lab.output(APPLIANCE, Command::new("ls").arg("/sys/class/net/eth0/queues")).unwrap();
    assert_eq!(queues.lines().filter(|name| name.starts_with("rx-")).count(), 3);
    assert_eq!(queues.lines().filter(|name| name.starts_with("tx-")).count(), 3);
    let name = site.lab.node(APPLIANCE).unwrap().name().to_owned();
    assert!(Path::new("/run/netns").join(&name).exists());
    let known = Command::new("ip").args(["netns", "exec", &name, "ip", "-o", "address"]).output().unwrap();
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    assert!(known.contains("192.0.2.1/24") && known.contains("2001:db8:0:1::1/64"), "{known}");
    assert!(!known.contains("tentative"), "{known}");
}

/// Names in `/run/netns` and directories of the lab `id`.
fn traces(id: &str) -> Vec<String> {
    let mut traces = Vec::new();
    for directory in ["/run/netns", holdings::STATE_DIR] {
        let Ok(listing) = fs::read_dir(directory) else { continue };
        traces.extend(
            listing
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| name == id || name.starts_with(&format!("{}{id}-", holdings::PREFIX))),
        );
    }
    traces
}

#[test]
fn nothing_is_left_after_a_drop_or_a_panic() {
    if !lab_is_possible() {
        return;
    }
    let build = || {
        let site = Site::build(SiteOptions::default()).unwrap();
        let servers = nginx::start_all(&site, 80).unwrap();
        // Six namespaces and a directory.
        assert_eq!(traces(site.lab.id()).len(), 7, "{:?}", traces(site.lab.id()));
        (site, servers)
    };
    let (site, servers) = build();
    let id = site.lab.id().to_owned();
    drop(site);
    assert_eq!(traces(&id), Vec::<String>::new());
    assert!(servers.iter().all(|server| server.ended().is_some()));

    let (report, seen) = std::sync::mpsc::channel();
    let outcome = std::thread::spawn(move || {
        let (site, servers) = build();
        report.send((site.lab.id().to_owned(), servers)).unwrap();
        panic!("as intended");
    })
    .join();
    assert!(outcome.is_err());
    let (id, servers) = seen.recv().unwrap();
    assert_eq!(traces(&id), Vec::<String>::new());
    assert!(servers.iter().all(|server| server.ended().is_some()));
}
