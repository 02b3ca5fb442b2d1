//! Frames that the filter took and the engine does not want arrive in the kernel after all: at its sockets, and on its
//! way through to other networks.

mod io_support;

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use evenkeel::dataplane::io::open::{Opened, WorkerIo, open};
use evenkeel::dataplane::io::{BATCH, Frame, PacketIo};
use evenkeel::dataplane::xdp::{FilterEntry, FilterTable};
use evenkeel::model::{EngineSettings, Interface, IoMode, PortRange, Protocol};
use io_support::{Net, run};

/// Takes what has arrived and gives all of it back; how many frames the engine got, and how many it gave back.
fn give_back(io: &mut dyn FnMut(&mut [Frame]) -> (usize, usize), until: u64, seen: &mut u64, given: &mut u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while *seen < until && Instant::now() < deadline {
        let (count, passed) = io(&mut [Frame::default(); BATCH]);
        *seen += count as u64;
        *given += passed as u64;
    }
    assert_eq!(*seen, until, "lost on the way in");
}

fn back_to_the_kernel(test: &str, mode: IoMode) {
    let Some(net) = Net::new(test, 2) else { return };
    let in_inner = |words: &[&str]| run(&[&["ip", "-n", &net.inner][..], words].concat());
    in_inner(&["addr", "add", "10.99.0.1/24", "dev", "a0"]);
    in_inner(&["addr", "add", "10.98.0.1/24", "dev", "a1"]);
    in_inner(&["neigh", "add", "10.98.0.5", "lladdr", "02:00:00:00:00:05", "dev", "a1"]);
    run(&["ip", "netns", "exec", &net.inner, "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    run(&["ip", "-n", &net.outer, "addr", "add", "10.99.0.2/24", "dev", "c0"]);
    run(&["ip", "-n", &net.outer, "route", "add", "10.98.0.0/24", "via", "10.99.0.1"]);

    Net::enter(&net.outer);
    let client = UdpSocket::bind("10.99.0.2:0").expect("client");
    Net::enter(&net.inner);
    let host = UdpSocket::bind("10.99.0.1:5000").expect("host");
    host.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let interface = Interface { name: "a0".to_owned(), queues: None };
    let settings = EngineSettings { modes: vec![mode], ..EngineSettings::default() };
    let Opened { mut workers, mut gates, report } = open(&[interface], &settings).expect("open");
    assert_eq!(report.modes, [mode]);
    assert!(!report.warnings.iter().any(|warning| warning.contains("given back")), "{:?}", report.warnings);
    let entry = |address: [u8; 4]| FilterEntry {
        address: IpAddr::from(address),
        protocol: Protocol::Udp,
        ports: PortRange::single(5000),
    };
    let entries = vec![entry([10, 99, 0, 1]), entry([10, 98, 0, 5])];
    gates[0].widen(&FilterTable { entries, ..FilterTable::default() }).expect("table");
    let Some(WorkerIo::Xsk(mut io)) = workers.pop() else { panic!("AF_XDP") };
    let mut turn = |frames: &mut [Frame]| {
        let count = io.receive(frames);
        let given = frames[..count].iter().filter(|frame| io.pass(**frame)).count();
        io.service();
        (count, given)
    };

    // At a socket of the host: every one, in order, unchanged.
    // As many as the socket has room for: each lies in a page of its own.
    const BURST: u64 = 30;
    let (mut seen, mut given) = (0, 0);
    let mut fastest = Duration::MAX;
    let mut buffer = [0; 2000];
    for round in 0..20u64 {
        let began = Instant::now();
        for n in 0..BURST {
            let number = (round * BURST + n).to_be_bytes();
            let long = [&number[..], &vec![7; if n % 10 == 0 { 1400 } else { 10 }]].concat();
            client.send_to(&long, "10.99.0.1:5000").expect("sent");
        }
        give_back(&mut turn, (round + 1) * BURST, &mut seen, &mut given);
        for n in 0..BURST {
            let (length, from) = host.recv_from(&mut buffer).expect("given back to the socket");
            assert_eq!(buffer[..8], (round * BURST + n).to_be_bytes());
            assert_eq!((length, from.ip()), (if n % 10 == 0 { 1408 } else { 18 }, IpAddr::from([10, 99, 0, 2])));
        }
        fastest = fastest.min(began.elapsed() / BURST as u32);
    }
    eprintln!("{test}: at best {fastest:?} for each of {BURST} frames, from client to host");
    assert_eq!(given, seen);

    // Through the host to another network.
    let before = Net::received(&net.outer, "c1");
    for n in 0..BURST {
        client.send_to(&n.to_be_bytes(), "10.98.0.5:5000").expect("sent");
    }
    give_back(&mut turn, seen + BURST, &mut { seen }, &mut given);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Net::received(&net.outer, "c1") - before < BURST && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(Net::received(&net.outer, "c1") - before, BURST, "forwarded");
    let stats = io.stats();
    assert_eq!(stats.passed, given);
    assert!(io.frames_accounted().balanced());

    // A flood costs the worker copies at most: what the kernel does not keep up with is refused, the rest arrives.
    let number = 99u64.to_be_bytes();
    host.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    let flood: Vec<u64> = (0..10)
        .map(|_| {
            let mut frames = [Frame::default(); BATCH];
            (0..BURST).for_each(|_| drop(client.send_to(&number, "10.99.0.1:5000")));
            let mut passed = 0;
            for _ in 0..4 {
                let count = io.receive(&mut frames);
                passed += frames[..count].iter().filter(|frame| io.pass(**frame)).count() as u64;
                io.service();
            }
            passed
        })
        .collect();
    let mut arrived = 0;
    while host.recv_from(&mut buffer).is_ok() {
        arrived += 1;
    }
    // What the socket's own buffer could not hold is the kernel's loss.
    assert!(arrived > 0 && arrived <= flood.iter().sum::<u64>());
    drop(gates);
}

#[test]
fn what_is_not_ours_goes_back_to_the_kernel_in_native_mode() {
    back_to_the_kernel("what_is_not_ours_goes_back_to_the_kernel_in_native_mode", IoMode::Copy);
}

#[test]
fn what_is_not_ours_goes_back_to_the_kernel_in_generic_mode() {
    back_to_the_kernel("what_is_not_ours_goes_back_to_the_kernel_in_generic_mode", IoMode::Generic);
}
