//! What the XDP filter takes and what it leaves, by running the program in the kernel on single frames, and what is
//! left of it when its process is killed.

mod io_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{PacketBuilder, VlanId};
use evenkeel::dataplane::io::open::open;
use evenkeel::dataplane::xdp::{Filter, FilterEntry, FilterError, FilterTable, Matcher, XdpAttach};
use evenkeel::model::{EngineSettings, Interface, PortRange, Protocol};
use io_support::{Net, ifindex, must_run, run, udp4};

const V4: [u8; 4] = [192, 0, 2, 1];
const OTHER4: [u8; 4] = [192, 0, 2, 99];
const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const OTHER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

fn table() -> FilterTable {
    let entry = |address: IpAddr, protocol, ports| FilterEntry { address, protocol, ports };
    let (v4, v6) = (IpAddr::V4(V4.into()), IpAddr::V6(V6.into()));
    FilterTable {
        entries: vec![
            entry(v4, Protocol::Udp, PortRange::single(53)),
            entry(v4, Protocol::Tcp, PortRange { first: 8000, last: 8010 }),
            entry(v6, Protocol::Udp, PortRange::single(53)),
            entry(v6, Protocol::Sctp, PortRange::ANY),
        ],
        owned: vec![v4, v6],
        replies: vec![],
    }
}

fn filter(test: &str) -> Option<Filter> {
    match Filter::detached() {
        Ok(mut filter) => {
            filter.widen(&table()).expect("table");
            Some(filter)
        }
        Err(error) => {
            assert!(!must_run(), "{test}: {error:?}");
            eprintln!("\n*** SKIP {test}: needs root: {error} ***\n");
            None
        }
    }
}

/// Ethernet, `tags` VLAN tags, and what follows.
fn ethernet(tags: &[u16], ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 100]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(rest);
    frame
}

fn ipv4(destination: [u8; 4], protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45 + options as u8, 0];
    packet.extend(((20 + options * 4 + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 198, 51, 100, 7]);
    packet.extend(destination);
    packet.extend(vec![1; options * 4]);
    packet.extend(payload);
    packet
}

/// IPv6 with extension headers, each given by its number and its whole bytes without the next-header byte.
fn ipv6(destination: [u8; 16], extensions: &[(u8, Vec<u8>)], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, (_, bytes)) in extensions.iter().enumerate() {
        body.push(extensions.get(index + 1).map_or(protocol, |(next, _)| *next));
        body.extend(bytes);
    }
    body.extend(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([extensions.first().map_or(protocol, |(next, _)| *next), 64]);
    packet.extend(CLIENT6);
    packet.extend(destination);
    packet.extend(body);
    packet
}

fn udp(port: u16) -> Vec<u8> {
    [&1234u16.to_be_bytes()[..], &port.to_be_bytes(), &[0, 12, 0, 0, 1, 2, 3, 4]].concat()
}

fn arp(operation: u16, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend([2, 0, 0, 0, 0, 1]);
    packet.extend(sender);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 1, 0, 1, 9, 9]
}

fn solicitation(target: [u8; 16]) -> Vec<u8> {
    [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target].concat()
}

fn advertisement(target: [u8; 16]) -> Vec<u8> {
    [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target].concat()
}

fn hop_by_hop(words: u8) -> (u8, Vec<u8>) {
    (0, [vec![words], vec![1; 6 + usize::from(words) * 8]].concat())
}

fn fragment6(offset: u16, more: u16) -> (u8, Vec<u8>) {
    (44, [&[0][..], &(offset << 3 | more).to_be_bytes(), &[0, 0, 0, 7]].concat())
}

/// Name, whether it is ours, frame.
fn cases() -> Vec<(&'static str, bool, Vec<u8>)> {
    let v4 = |packet: Vec<u8>| ethernet(&[], 0x0800, &packet);
    let v6 = |packet: Vec<u8>| ethernet(&[], 0x86dd, &packet);
    let mut solicited = [0u8; 16];
    solicited[..13].copy_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]);
    solicited[15] = 1;
    let destination_options = (60, vec![0, 1, 4, 0, 0, 0, 0]);
    let authentication = (51, [vec![4, 0, 0], vec![0; 20]].concat());
    let routing = (43, [vec![2, 4, 0, 0, 0, 0, 0], vec![0; 16]].concat());
    let all = vec![
        hop_by_hop(0),
        destination_options.clone(),
        routing.clone(),
        fragment6(0, 1),
        authentication.clone(),
        destination_options.clone(),
    ];
    let many: Vec<_> = (0..9).map(|_| destination_options.clone()).collect();

    vec![
        ("udp to the service", true, udp4(V4, 53, 1)),
        ("udp to another port", false, udp4(V4, 54, 1)),
        ("udp to another address", false, udp4(OTHER4, 53, 1)),
        ("tcp to the udp port", false, v4(ipv4(V4, 6, 0, 0, &udp(53)))),
        ("tcp, first of the range", true, v4(ipv4(V4, 6, 0, 0, &udp(8000)))),
        ("tcp, last of the range", true, v4(ipv4(V4, 6, 0, 0, &udp(8010)))),
        ("tcp, below the range", false, v4(ipv4(V4, 6, 0, 0, &udp(7999)))),
        ("tcp, above the range", false, v4(ipv4(V4, 6, 0, 0, &udp(8011)))),
        ("one tag", true, ethernet(&[0x8100], 0x0800, &ipv4(V4, 17, 0, 0, &udp(53)))),
        ("two tags", true, ethernet(&[0x88a8, 0x8100], 0x0800, &ipv4(V4, 17, 0, 0, &udp(53)))),
        ("three tags", false, ethernet(&[0x88a8, 0x8100, 0x8100], 0x0800, &ipv4(V4, 17, 0, 0, &udp(53)))),
        ("one tag, another port", false, ethernet(&[0x8100], 0x0800, &ipv4(V4, 17, 0, 0, &udp(54)))),
        ("options", true, v4(ipv4(V4, 17, 3, 0, &udp(53)))),
        ("all options", true, v4(ipv4(V4, 17, 10, 0, &udp(53)))),
        ("options that hide another port", false, v4(ipv4(V4, 17, 3, 0, &udp(54)))),
        ("first fragment", true, v4(ipv4(V4, 17, 0, 0x2000, &udp(53)))),
        ("first fragment, another port", false, v4(ipv4(V4, 17, 0, 0x2000, &udp(54)))),
        ("later fragment", true, v4(ipv4(V4, 17, 0, 0x2064, &[0; 32]))),
        ("later fragment, no such service", false, v4(ipv4(V4, 132, 0, 0x2064, &[0; 32]))),
        ("header length below five", false, {
            let mut frame = udp4(V4, 53, 1);
            frame[14] = 0x44;
            frame
        }),
        ("version six in an IPv4 frame", false, {
            let mut frame = udp4(V4, 53, 1);
            frame[14] = 0x65;
            frame
        }),
        ("no ports", false, v4(ipv4(V4, 17, 0, 0, &[0, 1, 0]))),
        ("ethernet only", false, ethernet(&[], 0x0800, &[])),
        ("half an IPv4 header", false, udp4(V4, 53, 1)[..30].to_vec()),
        ("echo request", true, v4(ipv4(V4, 1, 0, 0, &icmp(8)))),
        ("echo reply", false, v4(ipv4(V4, 1, 0, 0, &icmp(0)))),
        ("unreachable", true, v4(ipv4(V4, 1, 0, 0, &icmp(3)))),
        ("time exceeded", true, v4(ipv4(V4, 1, 2, 0, &icmp(11)))),
        ("redirect", false, v4(ipv4(V4, 1, 0, 0, &icmp(5)))),
        ("echo to another", false, v4(ipv4(OTHER4, 1, 0, 0, &icmp(8)))),
        ("another protocol", false, v4(ipv4(V4, 47, 0, 0, &icmp(8)))),
        ("vrrp", false, v4(ipv4([224, 0, 0, 18], 112, 0, 0, &icmp(8)))),
        ("arp request", true, ethernet(&[], 0x0806, &arp(1, [198, 51, 100, 7], V4))),
        ("arp request in a tag", true, ethernet(&[0x8100], 0x0806, &arp(1, [198, 51, 100, 7], V4))),
        ("arp probe", true, ethernet(&[], 0x0806, &arp(1, [0; 4], V4))),
        ("arp for another", false, ethernet(&[], 0x0806, &arp(1, [198, 51, 100, 7], OTHER4))),
        ("arp reply from ours", false, ethernet(&[], 0x0806, &arp(2, V4, [198, 51, 100, 7]))),
        ("short arp", false, ethernet(&[], 0x0806, &arp(1, [0; 4], V4)[..26])),
        ("udp6", true, v6(ipv6(V6, &[], 17, &udp(53)))),
        ("udp6 to another port", false, v6(ipv6(V6, &[], 17, &udp(54)))),
        ("udp6 to another address", false, v6(ipv6(OTHER6, &[], 17, &udp(53)))),
        ("tcp6 where there is none", false, v6(ipv6(V6, &[], 6, &udp(53)))),
        ("any port", true, v6(ipv6(V6, &[], 132, &udp(4711)))),
        ("any port, no ports", true, v6(ipv6(V6, &[], 132, &[1]))),
        ("hop by hop", true, v6(ipv6(V6, &[hop_by_hop(0)], 17, &udp(53)))),
        ("long hop by hop", true, v6(ipv6(V6, &[hop_by_hop(12)], 17, &udp(53)))),
        ("all extension headers", true, v6(ipv6(V6, &all, 17, &udp(53)))),
        ("all, another port", false, v6(ipv6(V6, &all, 17, &udp(54)))),
        ("authentication", true, v6(ipv6(V6, &[authentication], 17, &udp(53)))),
        ("routing", true, v6(ipv6(V6, &[routing], 17, &udp(53)))),
        ("too many extension headers", false, v6(ipv6(V6, &many, 17, &udp(53)))),
        ("cut in an extension header", false, v6(ipv6(V6, &[hop_by_hop(12)], 17, &udp(53)))[..80].to_vec()),
        ("first fragment6", true, v6(ipv6(V6, &[fragment6(0, 1)], 17, &udp(53)))),
        ("later fragment6", true, v6(ipv6(V6, &[fragment6(9, 0)], 17, &[0; 32]))),
        ("later fragment6, no such service", false, v6(ipv6(V6, &[fragment6(9, 0)], 6, &[0; 32]))),
        ("later fragment6 of options", true, v6(ipv6(V6, &[fragment6(9, 0)], 60, &[0; 32]))),
        ("echo6", true, v6(ipv6(V6, &[], 58, &icmp(128)))),
        ("echo6 behind options", true, v6(ipv6(V6, &[hop_by_hop(0)], 58, &icmp(128)))),
        ("echo6 to another", false, v6(ipv6(OTHER6, &[], 58, &icmp(128)))),
        ("packet too big", true, v6(ipv6(V6, &[], 58, &icmp(2)))),
        ("echo reply6", false, v6(ipv6(V6, &[], 58, &icmp(129)))),
        ("solicitation", true, v6(ipv6(solicited, &[], 58, &solicitation(V6)))),
        ("solicitation in a tag", true, { ethernet(&[0x8100], 0x86dd, &ipv6(solicited, &[], 58, &solicitation(V6))) }),
        ("advertisement of ours by another", true, v6(ipv6(solicited, &[], 58, &advertisement(V6)))),
        ("advertisement of another's", false, v6(ipv6(solicited, &[], 58, &advertisement(OTHER6)))),
        ("unicast solicitation", true, v6(ipv6(V6, &[], 58, &solicitation(V6)))),
        ("solicitation for another", false, v6(ipv6(solicited, &[], 58, &solicitation(OTHER6)))),
        ("short solicitation", false, v6(ipv6(solicited, &[], 58, &solicitation(V6)[..20]))),
        ("router advertisement", false, v6(ipv6(solicited, &[], 58, &icmp(134)))),
        ("multicast udp", false, v6(ipv6(solicited, &[], 17, &udp(53)))),
        ("lldp", false, ethernet(&[], 0x88cc, &[0; 46])),
    ]
}

#[test]
fn the_filter_takes_what_is_ours_and_nothing_else() {
    let Some(filter) = filter("the_filter_takes_what_is_ours_and_nothing_else") else { return };
    let matcher = Matcher::new(&table()).expect("table");
    let cases = cases();
    let mut wrong = Vec::new();
    for (name, ours, frame) in &cases {
        if filter.takes(frame).expect("test run") != *ours {
            wrong.push(format!("{name}: should be {}", if *ours { "taken" } else { "passed" }));
        }
        if matcher.takes(frame) != *ours {
            wrong.push(format!("{name}: the matcher differs"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let counters = filter.counters().expect("counters");
    assert_eq!(counters.passed + counters.no_socket, cases.len() as u64);

    // The builder's own frames agree with the hand-made ones.
    let mut tagged = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .single_vlan(VlanId::try_new(7).expect("id"))
        .ipv6(CLIENT6, V6, 9)
        .udp(1, 53)
        .write(&mut tagged, &[1, 2, 3])
        .expect("frame");
    assert!(filter.takes(&tagged).expect("test run"));
}

/// Mutations of the cases above: the program in the kernel and the matcher in user space agree on all of them.
#[test]
fn the_matcher_decides_like_the_program() {
    let Some(filter) = filter("the_matcher_decides_like_the_program") else { return };
    let matcher = Matcher::new(&table()).expect("table");
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let interesting = [0u8, 1, 2, 4, 6, 8, 17, 41, 43, 44, 51, 58, 59, 60, 132, 135, 255, 0x45, 0x4f, 0x60, 0x81];
    let cases = cases();
    let mut taken = 0;
    for round in 0..60_000 {
        let mut frame = cases[round % cases.len()].2.clone();
        for _ in 0..random(4) {
            let at = 12 + random(frame.len() - 12);
            frame[at] = if random(2) == 0 { interesting[random(interesting.len())] } else { random(256) as u8 };
        }
        if random(8) == 0 {
            frame.truncate(14 + random(frame.len() - 13));
        }
        let program = filter.takes(&frame).expect("test run");
        taken += usize::from(program);
        assert_eq!(matcher.takes(&frame), program, "{frame:02x?}");
    }
    assert!(taken > 10_000, "the mutations are too wild: {taken}");
}

#[test]
fn tables_widen_and_narrow() {
    let Some(mut filter) = filter("tables_widen_and_narrow") else { return };
    let tcp = |port: u16| ethernet(&[], 0x0800, &ipv4(V4, 6, 0, 0, &udp(port)));
    let address = IpAddr::V4(Ipv4Addr::from(V4));
    let next = FilterTable {
        entries: vec![FilterEntry { address, protocol: Protocol::Tcp, ports: PortRange { first: 8005, last: 8020 } }],
        owned: vec![],
        ..FilterTable::default()
    };
    filter.widen(&next).expect("wider");
    for (port, ours) in [(7999, false), (8000, true), (8015, true), (8021, false)] {
        assert_eq!(filter.takes(&tcp(port)).expect("run"), ours, "{port}");
    }
    assert!(filter.takes(&udp4(V4, 53, 1)).expect("run"));
    filter.narrow(&next).expect("narrower");
    for (port, ours) in [(8000, false), (8004, false), (8005, true), (8020, true), (8021, false)] {
        assert_eq!(filter.takes(&tcp(port)).expect("run"), ours, "{port}");
    }
    assert!(!filter.takes(&udp4(V4, 53, 1)).expect("run"));
    assert!(!filter.takes(&ethernet(&[], 0x0806, &arp(1, [0; 4], V4))).expect("run"));

    // Twenty ranges: four of them become single ports.
    let entries = (0..20u16).map(|i| FilterEntry {
        address,
        protocol: Protocol::Tcp,
        ports: PortRange { first: 1000 + i * 100, last: 1000 + i * 100 + 10 + i },
    });
    filter.narrow(&FilterTable { entries: entries.collect(), owned: vec![], replies: vec![] }).expect("twenty ranges");
    for i in 0..20u16 {
        let first = 1000 + i * 100;
        for (port, ours) in [(first - 1, false), (first, true), (first + 10 + i, true), (first + 11 + i, false)] {
            assert_eq!(filter.takes(&tcp(port)).expect("run"), ours, "{port}");
        }
    }
    filter.narrow(&FilterTable::default()).expect("empty");
    assert!(!filter.takes(&tcp(1005)).expect("run"));
    let any = FilterEntry { address: IpAddr::V6(Ipv6Addr::from(V6)), protocol: Protocol::Tcp, ports: PortRange::ANY };
    filter.narrow(&FilterTable { entries: vec![any], owned: vec![], replies: vec![] }).expect("any");
    assert!(filter.takes(&ethernet(&[], 0x86dd, &ipv6(V6, &[], 6, &udp(1)))).expect("run"));
}

#[test]
fn another_program_is_not_pushed_aside() {
    let Some(net) = Net::new("another_program_is_not_pushed_aside", 1) else { return };
    Net::enter(&net.inner);
    for (first, second) in [
        (XdpAttach::Native, XdpAttach::Native),
        (XdpAttach::Generic, XdpAttach::Native),
        (XdpAttach::Native, XdpAttach::Generic),
    ] {
        let held = Filter::attach("a0", ifindex("a0"), first).expect("first");
        let error = Filter::attach("a0", ifindex("a0"), second).err().expect("refused");
        assert!(matches!(error, FilterError::Occupied { .. }), "{error:?}");
        drop(held);
        assert!(!Net::has_xdp(&net.inner, "a0"));
    }
    let error = Filter::attach("lo", ifindex("lo"), XdpAttach::Native).err().expect("refused");
    assert!(matches!(error, FilterError::Refused { .. }), "{error:?}");
}

/// Kernels before 5.18 get the program without multi-buffer support: the verifier takes it too.
#[test]
fn the_plain_program_loads() {
    if filter("the_plain_program_loads").is_none() {
        return;
    }
    let object = aya::include_bytes_aligned!("../src/dataplane/xdp/filter.o");
    let mut ebpf = aya::Ebpf::load(object).expect("object");
    let program: &mut aya::programs::Xdp =
        ebpf.program_mut("evenkeel").expect("program").try_into().expect("XDP program");
    program.load().expect("verifier");
}

/// Runs as a child of the next test, in a namespace of its own: holds filter and sockets until it is killed.
#[test]
fn holds_a_filter_when_asked() {
    let Ok(namespace) = std::env::var("EVENKEEL_TEST_HOLD") else { return };
    Net::enter(&namespace);
    let interface = Interface { name: "a0".to_owned(), queues: None };
    let mut opened = open(&[interface], &EngineSettings::default()).expect("open");
    opened.gates[0].widen(&table()).expect("table");
    println!("holding");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_no_program() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let Some(net) = Net::new("a_killed_process_leaves_no_program", 1) else { return };
    run(&["ip", "-n", &net.inner, "addr", "add", "10.99.0.1/24", "dev", "a0"]);
    run(&["ip", "-n", &net.outer, "addr", "add", "10.99.0.2/24", "dev", "c0"]);
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["holds_a_filter_when_asked", "--exact", "--nocapture"])
        .env("EVENKEEL_TEST_HOLD", &net.inner)
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    let lines = BufReader::new(child.stdout.take().expect("output")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("holding")));
    assert!(Net::has_xdp(&net.inner, "a0"));
    run(&["ip", "netns", "exec", &net.outer, "ping", "-c1", "-W2", "10.99.0.1"]);
    child.kill().expect("SIGKILL");
    child.wait().expect("gone");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while Net::has_xdp(&net.inner, "a0") && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!Net::has_xdp(&net.inner, "a0"));
    run(&["ip", "netns", "exec", &net.outer, "ping", "-c1", "-W2", "10.99.0.1"]);
}
