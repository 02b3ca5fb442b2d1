//! The `vrrp` thread on real sockets: two of them elect one master, whatever happens to interfaces, addresses and threads.

mod lab_support;
mod vrrp_lab_support;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel::lab::netlink::Wire;
use evenkeel::model::{Place, Track, Tracked, Unicast, VirtualRouter};
use evenkeel::vrrp::frame::multicast;
use evenkeel::vrrp::packet::{self, Advert};
use lab_support::lab_is_possible;
use vrrp_lab_support::{Appliance, ETH, LAN, ip, is_advert_of, listen, mac, plan, router, segment, wait};

const VIP: &str = "10.0.0.100";
const VIP6: [&str; 2] = ["fe80::100", "2001:db8::100"];

fn two(lab: &evenkeel::lab::topology::Lab, change: impl Fn(&mut VirtualRouter, u8)) -> (Appliance, Appliance) {
    let start = |node: &str, number: u8, priority| {
        let mut router = router("vi", 51, priority, &[VIP]);
        change(&mut router, number);
        Appliance::start(lab, node, plan(vec![router]))
    };
    (start("a", 1, 150), start("b", 2, 100))
}

fn settled(a: &Appliance, b: &Appliance) {
    wait("a is master and b is backup", || a.masters(1) && !b.masters(1) && b.state("vi") == "BACKUP");
}

#[test]
fn one_of_two_is_master_and_the_other_one_follows() {
    if !lab_is_possible() {
        return;
    }
    let lab = segment(&["a", "b", "c"]);
    let mut wire = listen(&lab, "c");
    let (a, b) = two(&lab, |_, _| {});
    settled(&a, &b);
    let advert = wire.receive(vrrp_lab_support::LONG, |frame| is_advert_of(frame, [10, 0, 0, 1])).unwrap();
    assert_eq!(advert[..6], [1, 0, 0x5e, 0, 0, 0x12]);
    assert_eq!(advert[6..12], mac(&lab, "a").0);
    assert_eq!((advert[15], advert[22]), (0xc0, 255));
    // The backup knows who is master; the master knows itself.
    wait("b names the master", || {
        b.router("vi").master.is_some_and(|master| !master.ours && master.address == "10.0.0.1")
    });
    assert!(a.router("vi").master.is_some_and(|master| master.ours));

    // It vanishes without a word: the other one waits for its adverts, and takes over.
    let gone = Instant::now();
    drop(a);
    wait("b is master", || b.masters(1));
    let took = gone.elapsed();
    assert!(took > Duration::from_millis(200), "master-down time is about 361 ms, not {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");

    // It is back, and takes its place again; told to stop, it hands over at once.
    let a = Appliance::start(&lab, "a", plan(vec![router("vi", 51, 150, &[VIP])]));
    settled(&a, &b);
    let (mastery, stopping) = (Arc::clone(&a.mastery), Instant::now());
    a.driver.stop();
    let took = stopping.elapsed();
    assert!(b.masters(1), "the successor is there before the old one goes");
    assert!(!mastery.has(evenkeel::model::RouterSlot::new(1).unwrap()));
    assert!(took < Duration::from_secs(2), "{took:?}");
    b.driver.stop();
}

#[test]
fn garbage_is_counted_and_changes_nothing() {
    if !lab_is_possible() {
        return;
    }
    let lab = segment(&["a", "b", "c"]);
    let (a, b) = two(&lab, |_, _| {});
    settled(&a, &b);
    let before = b.router("vi");
    let wire = listen(&lab, "c");
    let advert = Advert {
        version: evenkeel::model::VrrpVersion::V3,
        vrid: 51,
        priority: 254,
        interval: Duration::from_millis(100),
        password: None,
        auth_type: 0,
        checksum: Default::default(),
        addresses: vec![VIP.parse().unwrap()],
    };
    let (source, group) = ("10.0.0.3".parse().unwrap(), "224.0.0.18".parse().unwrap());
    let good = multicast(&packet::build(&advert, source, group), source, group, mac(&lab, "c"), 1);
    let mut sum = good.clone();
    sum[40] ^= 1;
    let other = Advert { vrid: 52, ..advert };
    let other = multicast(&packet::build(&other, source, group), source, group, mac(&lab, "c"), 1);
    for _ in 0..3 {
        for frame in [&sum, &other] {
            wire.send(frame).unwrap();
        }
    }
    wait("bad checksums and unknown routers are counted", || {
        let (status, router) = (b.driver.status(), b.router("vi"));
        let count = |name: &str| {
            status.refused.get(name).copied().unwrap_or_default()
                + router.adverts.refused.get(name).copied().unwrap_or_default()
        };
        count("bad-checksum") == 3 && count("unknown-vrid") == 3
    });
    let after = b.router("vi");
    assert_eq!((after.state, after.promotions), (before.state, before.promotions));
    assert!(a.masters(1));
}

#[test]
fn without_a_carrier_it_is_in_fault_at_once_and_comes_back() {
    if !lab_is_possible() {
        return;
    }
    let lab = segment(&["a", "b"]);
    let (a, b) = two(&lab, |_, _| {});
    settled(&a, &b);
    lab.rtnl(LAN, |rtnl| rtnl.set_up("a-eth0", false)).unwrap();
    let took = wait("a is in fault", || !a.masters(1) && a.state("vi") == "FAULT");
    assert!(took < Duration::from_secs(2), "{took:?}");
    wait("b is master", || b.masters(1));
    lab.rtnl(LAN, |rtnl| rtnl.set_up("a-eth0", true)).unwrap();
    settled(&a, &b);

    // The interface is switched off, and on again.
    lab.rtnl("a", |rtnl| rtnl.set_up(ETH, false)).unwrap();
    wait("a is in fault", || !a.masters(1) && a.state("vi") == "FAULT");
    lab.rtnl("a", |rtnl| rtnl.set_up(ETH, true)).unwrap();
    settled(&a, &b);

    // Its address goes, and comes.
    lab.rtnl("a", |rtnl| rtnl.delete_address(ETH, "10.0.0.1/24".parse().unwrap())).unwrap();
    wait("a is in fault", || !a.masters(1) && a.state("vi") == "FAULT");
    lab.address("a", ETH, "10.0.0.9/24".parse().unwrap()).unwrap();
    settled(&a, &b);
    assert_eq!(a.router("vi").source.as_deref(), Some("10.0.0.9"));
}

#[test]
fn an_interface_that_is_made_anew_is_taken_again() {
    if !lab_is_possible() {
        return;
    }
    let mut lab = segment(&["a", "b"]);
    let (a, b) = two(&lab, |_, _| {});
    settled(&a, &b);
    lab.rtnl("a", |rtnl| rtnl.delete_link(ETH)).unwrap();
    wait("a is in fault", || !a.masters(1) && a.state("vi") == "FAULT");
    wait("b is master", || b.masters(1));
    lab.attach("a", ETH, LAN, Wire::default()).unwrap();
    lab.address("a", ETH, "10.0.0.1/24".parse().unwrap()).unwrap();
    settled(&a, &b);
}

#[test]
fn single_peers_speak_ipv4_and_ipv6_and_vlans_their_own() {
    if !lab_is_possible() {
        return;
    }
    let mut lab = segment(&["a", "b"]);
    let vlans = lab.node("a").unwrap().run(|| evenkeel::lab::netlink::Rtnl::open()?.has_vlans()).unwrap().unwrap();
    for (node, number) in [("a", 1), ("b", 2)] {
        lab.address(node, ETH, format!("2001:db8::{number}/64").parse().unwrap()).unwrap();
        if !vlans {
            continue;
        }
        assert_eq!(lab.add_vlan(node, ETH, 7).unwrap(), "eth0.7");
        lab.address(node, "eth0.7", format!("10.7.0.{number}/24").parse().unwrap()).unwrap();
    }
    let start = |node: &str, other: u8, priority: u8| {
        let to = |peer: String| Some(Unicast { peers: vec![peer.parse().unwrap()], ttl: None });
        let mut v4 = router("v4", 1, priority, &[VIP]);
        v4.unicast = to(format!("10.0.0.{other}"));
        let mut v6 = router("v6", 2, priority, &VIP6);
        v6.unicast = to(format!("2001:db8::{other}"));
        let group = router("group6", 3, priority, &["fe80::300"]);
        // The same number, on the wire of the VLAN and below it.
        let below = router("below", 4, priority, &["10.0.0.104"]);
        let mut vlan = router("vlan", 4, priority, &["10.7.0.104"]);
        vlan.interface = "eth0.7".into();
        let all = [v4, v6, group, below].into_iter().chain(vlans.then_some(vlan));
        Appliance::start(&lab, node, plan(all.collect()))
    };
    let (a, b) = (start("a", 2, 150), start("b", 1, 100));
    if !vlans {
        eprintln!("SKIPPED: the VLAN's router: this kernel has no VLAN interfaces (8021q)");
    }
    let count = if vlans { 5 } else { 4 };
    wait("a is master of all and b of none", || {
        (1..=count).all(|slot| a.masters(slot) && !b.masters(slot))
            && b.driver.status().routers.iter().all(|router| router.state == "BACKUP" && router.adverts.received > 3)
    });
    assert_eq!(b.router("v6").master.unwrap().address, "2001:db8::1");
    assert!(b.router("group6").master.unwrap().address.starts_with("fe80::"));
    for name in ["v4", "v6", "group6", "below", "vlan"].into_iter().take(count) {
        let status = b.router(name);
        assert!(status.adverts.refused.is_empty() && status.evidence.is_empty(), "{name}: {status:?}");
    }
    assert!(b.driver.status().refused.is_empty(), "the VLAN's adverts are not heard below it");
}

#[test]
fn a_virtual_mac_is_the_source_of_all_that_a_master_sends() {
    if !lab_is_possible() {
        return;
    }
    let lab = segment(&["a", "b", "c"]);
    let mut wire = listen(&lab, "c");
    let (a, b) = two(&lab, |router, _| router.virtual_mac = true);
    settled(&a, &b);
    let virtual_mac = [0, 0, 0x5e, 0, 1, 51];
    let is_arp = |frame: &[u8]| frame[12..14] == [8, 6] && frame[28..32] == [10, 0, 0, 100];
    let mut arps = 0;
    let mut adverts = 0;
    let start = Instant::now();
    while (arps == 0 || adverts == 0) && start.elapsed() < vrrp_lab_support::LONG {
        let Some(frame) = wire.poll() else { continue };
        if is_arp(&frame) {
            assert_eq!((&frame[6..12], &frame[22..28]), (&virtual_mac[..], &virtual_mac[..]));
            arps += 1;
        }
        if is_advert_of(&frame, [10, 0, 0, 1]) {
            assert_eq!(frame[6..12], virtual_mac);
            adverts += 1;
        }
    }
    assert!(arps > 0 && adverts > 0);
    // The interface takes frames for it while its router is master, and no longer.
    wait("a takes frames for it", || promiscuity(&lab, "a") > 0);
    assert_eq!(promiscuity(&lab, "b"), 0);
    lab.rtnl(LAN, |rtnl| rtnl.set_up("a-eth0", false)).unwrap();
    wait("a does not, and b does", || promiscuity(&lab, "a") == 0 && promiscuity(&lab, "b") > 0);
    assert!(b.router("vi").evidence.is_empty(), "{:?}", b.router("vi").evidence);
}

/// How many want all frames of the interface. A veth cannot filter for one more address, so the kernel makes it take all.
fn promiscuity(lab: &evenkeel::lab::topology::Lab, node: &str) -> u32 {
    let shown = ip(lab, node, "-d link show eth0");
    let mut words = shown.split_whitespace().skip_while(|word| *word != "promiscuity").skip(1);
    words.next().and_then(|count| count.parse().ok()).unwrap_or_default()
}

#[test]
fn kernel_addresses_come_and_go_with_mastery_and_none_is_left_behind() {
    if !lab_is_possible() {
        return;
    }
    let lab = segment(&["a", "b", "c"]);
    // With that off, the kernel takes an address along when the first one of its network goes.
    for node in ["a", "b"] {
        for which in ["all", ETH] {
            lab.setting(node, &format!("net/ipv4/conf/{which}/promote_secondaries"), "0").unwrap();
        }
    }
    // A crash left an address of a router that is configured no more, and one of a router that still is.
    for address in ["10.0.0.77/24", "10.0.0.100/24"] {
        lab.address("a", ETH, address.parse().unwrap()).unwrap();
    }
    let left = |address: &str| format!(r#"{{"router":"old","interface":"eth0","address":"{address}","prefix":24}}"#);
    std::fs::write(lab.path("a.addresses"), format!("[{},{}]", left("10.0.0.77"), left(VIP))).unwrap();
    // One that the operator put on himself.
    lab.address("a", ETH, "10.0.0.102/32".parse().unwrap()).unwrap();
    let mut wire = listen(&lab, "c");
    let change = |router: &mut VirtualRouter, _: u8| {
        router.place = Place::Kernel;
        router.addresses[0].prefix = 24;
        router.addresses[0].label = Some("eth0:vip".into());
        let more = [("10.0.0.102", 32), ("10.9.0.100", 24), ("2001:db8::100", 64)].map(|(address, prefix)| {
            evenkeel::model::VirtualAddress { address: address.parse().unwrap(), prefix, device: None, label: None }
        });
        router.excluded.extend(more);
    };
    let (a, b) = two(&lab, change);
    let before = ip(&lab, "a", "address show dev eth0");
    assert!(!before.contains("10.0.0.77"), "left by a crash, and taken off before anything else\n{before}");
    settled(&a, &b);
    let has = |node: &str, what: &str| ip(&lab, node, "address show dev eth0").contains(what);
    wait("the addresses are on", || has("a", "10.0.0.100/24") && has("a", "2001:db8::100/64"));
    let shown = ip(&lab, "a", "address show dev eth0");
    assert!(shown.lines().any(|line| line.contains("10.0.0.100/24") && line.ends_with("eth0:vip")), "{shown}");
    assert!(!shown.contains("tentative"), "IPv6 serves at once\n{shown}");
    assert!(!has("b", "10.0.0.100") && !has("b", "2001:db8::100"));
    assert!(std::fs::read_to_string(&a.kept).unwrap().contains(VIP));
    // Who answers for it is told once it is there.
    let ours = mac(&lab, "a").0;
    let garp = |frame: &[u8]| frame[6..12] == ours && frame[12..14] == [8, 6] && frame[28..32] == [10, 0, 0, 100];
    wire.receive(vrrp_lab_support::LONG, garp).expect("an announcement");

    // The operator's second address in a network of which ours is the first.
    lab.address("a", ETH, "10.9.0.5/24".parse().unwrap()).unwrap();

    // With the first address of the network the kernel takes the others away: they come back.
    lab.rtnl("a", |rtnl| rtnl.delete_address(ETH, "10.0.0.1/24".parse().unwrap())).unwrap();
    lab.address("a", ETH, "10.0.0.1/24".parse().unwrap()).unwrap();
    settled(&a, &b);
    wait("the addresses are on again", || has("a", "10.0.0.100/24"));

    // No carrier: off here, on there.
    lab.rtnl(LAN, |rtnl| rtnl.set_up("a-eth0", false)).unwrap();
    wait("off", || !has("a", "10.0.0.100/24") && !has("a", "2001:db8::100"));
    wait("on at the other one", || has("b", "10.0.0.100/24"));
    assert!(has("a", "10.0.0.102/32") && has("a", "10.9.0.5/24"), "what is the operator's stays");
    lab.rtnl(LAN, |rtnl| rtnl.set_up("a-eth0", true)).unwrap();
    wait("on again", || has("a", "10.0.0.100/24"));
    let kept = a.kept.clone();
    a.driver.stop();
    assert!(!has("a", "10.0.0.100") && !has("a", "2001:db8::100") && has("a", "10.0.0.102/32"));
    assert!(!kept.exists(), "nothing is left, and nothing is remembered");
}

#[test]
fn a_reload_touches_only_the_routers_that_it_concerns() {
    if !lab_is_possible() {
        return;
    }
    let lab = segment(&["a", "b"]);
    let routers = |priority: u8, second: u8| {
        let mut fast = router("fast", 1, priority, &[VIP]);
        fast.interval = Duration::from_millis(50);
        vec![fast, router("other", second, priority, &["10.0.0.101"])]
    };
    let (a, b) =
        (Appliance::start(&lab, "a", plan(routers(150, 2))), Appliance::start(&lab, "b", plan(routers(100, 2))));
    wait("a is master of both", || {
        a.masters(1) && a.masters(2) && b.state("other") == "BACKUP" && b.state("fast") == "BACKUP"
    });
    let before = (a.mastery.changes(), b.router("fast"), a.router("fast"));
    for turn in 0..40 {
        a.driver.configure(plan(routers(150, if turn % 2 == 0 { 3 } else { 2 })));
        std::thread::sleep(Duration::from_millis(20));
    }
    wait("the other router is anew", || a.router("other").for_ms < a.router("fast").for_ms);
    // The status is up to a second old.
    wait("it was backup all the time", || b.router("fast").for_ms >= before.1.for_ms + 800);
    let (fast, at_b) = (a.router("fast"), b.router("fast"));
    assert_eq!((fast.promotions, at_b.promotions), (before.2.promotions, before.1.promotions));
    assert_eq!(at_b.state, "BACKUP");
    // 800 ms and more at 50 ms: none was missed.
    let heard = at_b.adverts.received - before.1.adverts.received;
    assert!(heard >= 14, "{heard} adverts");

    // A router that is gone says so.
    a.driver.configure(plan(routers(150, 2).into_iter().take(1).collect()));
    wait("b has the other one", || b.masters(2));
    wait("a does not", || !a.masters(2));
    assert!(a.masters(1));
}

#[test]
fn a_stalled_worker_gives_the_address_away() {
    if !lab_is_possible() {
        return;
    }
    let lab = segment(&["a", "b"]);
    let turns = Arc::new(AtomicU64::new(0));
    let stopped = Arc::new(AtomicU64::new(0));
    let beats = {
        let (turns, stopped) = (Arc::clone(&turns), Arc::clone(&stopped));
        move || {
            let now = turns.fetch_add(1, Ordering::Relaxed);
            if stopped.load(Ordering::Relaxed) == 1 { vec![now, 7] } else { vec![now, now] }
        }
    };
    let tracked = |priority| {
        let mut router = router("vi", 51, priority, &[VIP]);
        router.tracks = vec![Track { what: Tracked::Engine, weight: 0 }];
        let mut plan = plan(vec![router]);
        plan.vrrp.settings.stall = Duration::from_millis(300);
        plan
    };
    let a = Appliance::start_with(&lab, "a", tracked(150), Arc::new(beats));
    let b = Appliance::start(&lab, "b", plan(vec![router("vi", 51, 100, &[VIP])]));
    settled(&a, &b);
    stopped.store(1, Ordering::Relaxed);
    wait("the other one has it", || !a.masters(1) && b.masters(1));
    let status = a.router("vi");
    assert_eq!(status.state, "FAULT");
    assert!(status.why.contains("worker 1"), "{}", status.why);
    stopped.store(0, Ordering::Relaxed);
    settled(&a, &b);
}

/// Adverts each 10 ms make a master 36 ms after it was backup: sooner than the status is published for lesser things.
#[test]
fn who_is_told_of_a_change_finds_it_in_the_status() {
    if !lab_is_possible() {
        return;
    }
    let lab = segment(&["a"]);
    let path = lab.path("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Open for both, it neither waits for a writer nor ends with one.
    let mut told = BufReader::new(File::options().read(true).write(true).open(&path).unwrap());
    let mut router = router("vi", 51, 100, &[VIP]);
    router.interval = Duration::from_millis(10);
    let mut plan = plan(vec![router]);
    plan.vrrp.settings.fifo = Some(path);
    let a = Appliance::start(&lab, "a", plan);
    let mut until = |word: &str| {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            told.read_line(&mut line).unwrap();
        }
    };
    until("MASTER");
    for _ in 0..3 {
        lab.rtnl(LAN, |rtnl| rtnl.set_up("a-eth0", false)).unwrap();
        until("FAULT");
        assert_eq!(a.state("vi"), "FAULT");
        std::thread::sleep(Duration::from_millis(60));
        lab.rtnl(LAN, |rtnl| rtnl.set_up("a-eth0", true)).unwrap();
        until("MASTER");
        assert_eq!(a.state("vi"), "MASTER");
    }
}
