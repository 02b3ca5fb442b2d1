//! The ladder of modes, several queues and workers, the AF_PACKET fallback, and what start-up says.

mod io_support;

use std::time::{Duration, Instant};

use evenkeel::dataplane::io::facts::InterfaceFacts;
use evenkeel::dataplane::io::open::{Gate, IoError, Opened, WorkerIo, open};
use evenkeel::dataplane::io::xsk::packet::{MulticastGuard, solicited_node_group};
use evenkeel::dataplane::io::{BATCH, Frame, FrameMemory, PacketIo};
use evenkeel::dataplane::xdp::{Filter, FilterEntry, FilterError, FilterTable, XdpAttach};
use evenkeel::model::{EngineSettings, Interface, IoMode, PortRange, Protocol};
use io_support::{Net, ifindex, raw, run, udp4};

const SERVICE: [u8; 4] = [192, 0, 2, 1];

fn table() -> FilterTable {
    let address = SERVICE.into();
    let entry = FilterEntry { address, protocol: Protocol::Udp, ports: PortRange::single(53) };
    FilterTable { entries: vec![entry], owned: vec![address], ..FilterTable::default() }
}

fn interfaces(count: usize) -> Vec<Interface> {
    (0..count).map(|index| Interface { name: format!("a{index}"), queues: None }).collect()
}

fn settings(modes: &[IoMode]) -> EngineSettings {
    EngineSettings { modes: modes.to_vec(), ring_size: 256, frames: 512, ..EngineSettings::default() }
}

fn error(result: Result<Opened, IoError>) -> IoError {
    match result {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

/// Sends every received frame out of the other port until `count` came or two seconds passed.
fn forward(io: &mut impl PacketIo, count: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut seen = 0;
    while seen < count && Instant::now() < deadline {
        let mut frames = [Frame::default(); BATCH];
        let received = io.receive(&mut frames);
        for frame in &frames[..received] {
            assert_eq!(io.memory().bytes(frame).len(), frame.len as usize);
            if !io.transmit(1 - frame.port, *frame) {
                io.release(*frame);
            }
        }
        io.service();
        seen += received;
        if received == 0 {
            io.wait(Duration::from_millis(5), None);
        }
    }
    while io.tx_pending() && Instant::now() < deadline {
        io.service();
    }
    seen
}

#[test]
fn af_packet_forwards_ours_and_ignores_the_rest() {
    let Some(net) = Net::new("af_packet_forwards_ours_and_ignores_the_rest", 2) else { return };
    Net::enter(&net.outer);
    let (mut sender, _) = raw("c0");
    Net::enter(&net.inner);
    let mut opened = open(&interfaces(2), &settings(&[IoMode::AfPacket])).expect("open");
    assert_eq!(opened.report.modes, [IoMode::AfPacket; 2]);
    for gate in &mut opened.gates {
        gate.widen(&table()).expect("table");
    }
    let WorkerIo::AfPacket(io) = &mut opened.workers[0] else { panic!("not AF_PACKET") };
    let before = Net::received(&net.outer, "c1");
    let mut total = 0;
    for burst in 0..100u64 {
        for number in 0..50 {
            let port = if number % 5 == 4 { 54 } else { 53 };
            sender.send_to(&udp4(SERVICE, port, burst * 50 + number), None).expect("room").expect("sent");
        }
        total += forward(io.as_mut(), 40);
    }
    assert_eq!(total, 4000);
    assert_eq!(Net::received(&net.outer, "c1") - before, 4000);
    let account = io.frames_accounted();
    assert!(account.balanced() && account.held == 0, "{account:?}");
    assert_eq!(io.partial_checksums(), 0);

    // A tag that the kernel took off comes back.
    let mut tagged = udp4(SERVICE, 53, 1);
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    sender.send_to(&tagged, None).expect("room").expect("sent");
    let mut frames = [Frame::default(); 4];
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut received = 0;
    while received == 0 && Instant::now() < deadline {
        received = io.receive(&mut frames);
    }
    assert_eq!(received, 1);
    assert_eq!(io.memory().bytes(&frames[0]), tagged);
    assert!(io.pass(frames[0]));
}

#[test]
fn each_worker_has_its_own_queues() {
    let Some(net) = Net::new("each_worker_has_its_own_queues", 0) else { return };
    for pair in 0..2 {
        let (a, c) = (format!("a{pair}"), format!("c{pair}"));
        let words = ["ip", "-n", &net.inner, "link", "add", &a, "numrxqueues", "3", "numtxqueues", "3", "type", "veth"];
        let peer = ["peer", "name", &c, "numrxqueues", "3", "numtxqueues", "3", "netns", &net.outer];
        run(&[&words[..], &peer[..]].concat());
        run(&["ip", "-n", &net.inner, "link", "set", &a, "up"]);
        run(&["ip", "-n", &net.outer, "link", "set", &c, "up"]);
    }
    Net::enter(&net.inner);
    let mut wanted = settings(&IoMode::ALL);
    wanted.cores = vec![0, 1];
    let opened = open(&interfaces(2), &wanted).expect("open");
    let queues = |worker: usize| -> Vec<(String, u32)> {
        let sockets = &opened.report.workers[worker].sockets;
        sockets.iter().map(|socket| (socket.interface.clone(), socket.queue)).collect()
    };
    assert_eq!(queues(0), [("a0".into(), 0), ("a0".into(), 2), ("a1".into(), 0), ("a1".into(), 2)]);
    assert_eq!(queues(1), [("a0".into(), 1), ("a1".into(), 1)]);
    assert_eq!(opened.report.modes, [IoMode::Copy; 2]);
    assert!(opened.report.refused.iter().any(|r| r.mode == IoMode::ZeroCopy), "{:?}", opened.report.refused);
    assert!(opened.report.warnings.iter().any(|warning| warning.contains("veth")), "{:?}", opened.report.warnings);
    drop(opened);
    let gone = || Net::loses_xdp(&net.inner, "a0") && Net::loses_xdp(&net.inner, "a1");
    assert!(gone());

    wanted.cores = vec![0, 1, 2, 3];
    let text = error(open(&interfaces(2), &wanted)).to_string();
    assert!(text.contains("3 receive queues for 4 workers"), "{text}");

    // Again at once, on queues that were just closed.
    for _ in 0..5 {
        wanted.cores = vec![0];
        let opened = open(&interfaces(2), &wanted).expect("rebind");
        assert_eq!(opened.report.workers[0].sockets.len(), 6);
        drop(opened);
        assert!(gone());
    }
}

#[test]
fn what_cannot_work_is_refused_in_words() {
    let Some(net) = Net::new("what_cannot_work_is_refused_in_words", 2) else { return };
    Net::enter(&net.inner);
    let text = error(open(&interfaces(3), &settings(&IoMode::ALL))).to_string();
    assert!(text.contains("interface `a2`: there is no such interface"), "{text}");

    let text = error(open(&interfaces(2), &settings(&[IoMode::ZeroCopy]))).to_string();
    assert!(text.contains("no AF_XDP zero-copy"), "{text}");

    // Copy mode is not allowed, so the program moves to where generic mode has it.
    let opened = open(&interfaces(2), &settings(&[IoMode::ZeroCopy, IoMode::Generic])).expect("open");
    assert_eq!(opened.report.modes, [IoMode::Generic; 2]);
    assert!(opened.report.refused.iter().any(|refusal| refusal.reason.contains("no AF_XDP zero-copy")));
    drop(opened);

    let mut one = interfaces(1);
    one[0].queues = Some(vec![0, 5]);
    let text = error(open(&one, &settings(&IoMode::ALL))).to_string();
    assert!(text.contains("a0 has no receive queue 5; it has 1"), "{text}");

    one[0].queues = Some(vec![0, 0]);
    let text = error(open(&one, &settings(&IoMode::ALL))).to_string();
    assert!(text.contains("listed twice"), "{text}");
    run(&["ip", "tuntap", "add", "a9", "mode", "tun"]);
    let tunnel = [Interface { name: "a9".to_owned(), queues: None }];
    let text = error(open(&tunnel, &settings(&IoMode::ALL))).to_string();
    assert!(text.contains("a9 is not an Ethernet interface"), "{text}");

    run(&["ip", "link", "set", "a1", "mtu", "3000"]);
    let text = error(open(&interfaces(2), &settings(&IoMode::ALL))).to_string();
    assert!(text.contains("use `frame_size = 4096`"), "{text}");
    let mut large = settings(&IoMode::ALL);
    large.frame_size = 4096;
    assert_eq!(open(&interfaces(2), &large).expect("open").report.modes, [IoMode::Copy; 2]);
    run(&["ip", "link", "set", "a1", "mtu", "1500"]);
    assert!(Net::loses_xdp(&net.inner, "a0") && Net::loses_xdp(&net.inner, "a1"));

    let held = Filter::attach("a1", ifindex("a1"), XdpAttach::Generic).expect("filter");
    let error = error(open(&interfaces(2), &settings(&IoMode::ALL)));
    assert!(matches!(error, IoError::Filter(FilterError::Occupied { .. })), "{error:?}");
    drop(held);
    assert!(Net::loses_xdp(&net.inner, "a0"), "nothing stays attached after a failure");
}

#[test]
fn a_driver_without_xdp_gets_generic_mode() {
    let Some(net) = Net::new("a_driver_without_xdp_gets_generic_mode", 1) else { return };
    Net::enter(&net.inner);
    // macvlan has no XDP of its own.
    run(&["ip", "link", "add", "a1", "link", "a0", "type", "macvlan"]);
    run(&["ip", "link", "set", "a1", "up"]);
    let only = vec![Interface { name: "a1".to_owned(), queues: None }];
    let opened = open(&only, &settings(&IoMode::ALL)).expect("open");
    assert_eq!(opened.report.modes, [IoMode::Generic]);
    assert!(opened.report.refused.iter().any(|r| r.reason.contains("a1")), "{:?}", opened.report.refused);
    assert!(matches!(&opened.gates[0], Gate::Xdp(filter) if filter.attached() == XdpAttach::Generic));
}

#[test]
fn facts_and_groups_of_a_veth() {
    let Some(net) = Net::new("facts_and_groups_of_a_veth", 1) else { return };
    Net::enter(&net.outer);
    let facts = InterfaceFacts::of("c0").expect("facts");
    assert_eq!((facts.driver.as_str(), facts.mtu, facts.rx_queues, facts.tx_queues), ("veth", 1500, 1, 1));
    assert!(facts.up && facts.running && !facts.mac.is_zero());
    assert_eq!(facts.offloads.tx_checksum, Some(false));
    let group = solicited_node_group("2001:db8::1:2345".parse().expect("address"));
    let guard = MulticastGuard::new(facts.ifindex).expect("socket");
    guard.join(group).expect("join");
    assert!(guard.join(facts.mac).is_err(), "not a group");
    let shown = || run(&["ip", "-n", &net.outer, "maddress", "show", "dev", "c0"]);
    assert!(shown().contains(&group.to_string()), "{}", shown());
    drop(guard);
    assert!(!shown().contains(&group.to_string()), "{}", shown());
}
