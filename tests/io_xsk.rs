//! The AF_XDP layer over real interfaces: veth pairs in network namespaces.

mod io_support;

use std::time::{Duration, Instant};

use evenkeel::dataplane::io::xsk::{PortBinding, XskIo};
use evenkeel::dataplane::io::{BATCH, Frame, FrameMemory, PacketIo};
use evenkeel::dataplane::xdp::{Filter, FilterEntry, FilterTable, XdpAttach};
use evenkeel::model::{EngineSettings, HugePages, IoMode, PortRange, Protocol};
use io_support::{Net, ifindex, raw, run, udp4};

const SERVICE: [u8; 4] = [192, 0, 2, 1];

fn table() -> FilterTable {
    let address = SERVICE.into();
    let entry = FilterEntry { address, protocol: Protocol::Udp, ports: PortRange::single(53) };
    FilterTable { entries: vec![entry], owned: vec![address], ..FilterTable::default() }
}

fn open(attach: XdpAttach, settings: &EngineSettings) -> (Vec<Filter>, XskIo) {
    let names = ["a0", "a1"];
    let mut filters: Vec<_> =
        names.iter().map(|name| Filter::attach(name, ifindex(name), attach).expect("filter")).collect();
    let bindings: Vec<_> = names
        .iter()
        .zip(0..)
        .map(|(name, port)| PortBinding {
            port,
            name: (*name).to_owned(),
            ifindex: ifindex(name),
            queues: vec![0],
            attach,
            tx_queues: 1,
        })
        .collect();
    let (io, report) = XskIo::open(0, &bindings, settings).expect("sockets");
    eprintln!("{report:?}");
    let mode = if attach == XdpAttach::Native { IoMode::Copy } else { IoMode::Generic };
    assert!(report.sockets.iter().all(|socket| socket.mode == mode));
    for (port, queue, socket) in io.sockets() {
        filters[usize::from(port)].set_socket(queue, socket).expect("socket in the map");
    }
    for filter in &mut filters {
        filter.widen(&table()).expect("table");
    }
    (filters, io)
}

/// Sends everything that arrives out of the other port; returns the number of frames.
fn forward(io: &mut XskIo) -> usize {
    let mut frames = [Frame::default(); BATCH];
    let count = io.receive(&mut frames);
    for frame in &frames[..count] {
        io.memory().bytes_mut(frame)[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        if !io.transmit(1 - frame.port, *frame) {
            io.release(*frame);
        }
    }
    io.service();
    count
}

fn bursts(name: &str, attach: XdpAttach, total: u64, settings: &EngineSettings) {
    let Some(net) = Net::new(name, 2) else { return };
    Net::enter(&net.outer);
    let (mut sender, _) = raw("c0");
    Net::enter(&net.inner);
    let (filters, mut io) = open(attach, settings);
    let before = Net::received(&net.outer, "c1");

    let began = Instant::now();
    let (mut sent, mut seen) = (0, 0);
    while sent < total {
        for _ in 0..200.min(total - sent) {
            sender.send_to(&udp4(SERVICE, 53, sent), None).expect("room").expect("sent");
            sent += 1;
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while seen < sent && Instant::now() < deadline {
            seen += forward(&mut io) as u64;
        }
        assert_eq!(seen, sent, "lost on the way in: {:?}", io.stats());
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while (io.tx_pending() || io.frames_accounted().tx > 0) && Instant::now() < deadline {
        io.service();
    }
    eprintln!("{name}: {total} frames in {:?}", began.elapsed());
    let account = io.frames_accounted();
    assert!(account.balanced(), "{account:?}");
    assert_eq!((account.held, account.tx), (0, 0), "{account:?}");
    let stats = io.stats();
    assert_eq!((stats.rx_frames, stats.tx_frames, stats.tx_full, stats.rx_ring_drops), (total, total, 0, 0));
    assert_eq!(Net::received(&net.outer, "c1") - before, total);
    let counters = filters[0].counters().expect("counters");
    assert_eq!((counters.redirected, counters.no_socket), (total, 0));
}

fn small() -> EngineSettings {
    EngineSettings { ring_size: 512, frames: 1024, ..EngineSettings::default() }
}

#[test]
fn all_frames_of_bursts_cross_in_native_mode() {
    bursts("all_frames_of_bursts_cross_in_native_mode", XdpAttach::Native, 100_000, &small());
}

#[test]
fn all_frames_of_bursts_cross_in_generic_mode() {
    bursts("all_frames_of_bursts_cross_in_generic_mode", XdpAttach::Generic, 100_000, &small());
}

#[test]
fn all_frames_cross_with_every_setting() {
    let name = "all_frames_cross_with_every_setting";
    let default = EngineSettings::default();
    bursts(name, XdpAttach::Native, 5000, &default);
    bursts(name, XdpAttach::Native, 5000, &EngineSettings { need_wakeup: false, ..small() });
    bursts(name, XdpAttach::Native, 5000, &EngineSettings { busy_poll: true, ..small() });
    bursts(
        name,
        XdpAttach::Native,
        5000,
        &EngineSettings { frame_size: 4096, huge_pages: HugePages::Never, ..small() },
    );
    // As few frames as there can be: each lies in a fill ring until it is forwarded.
    bursts(name, XdpAttach::Native, 5000, &EngineSettings { ring_size: 256, frames: 256, ..small() });
}

/// An interface that goes down keeps its frames and fills up; the worker may sleep; all is well when it is up again.
#[test]
fn a_link_that_goes_down_loses_no_frame_memory() {
    let Some(net) = Net::new("a_link_that_goes_down_loses_no_frame_memory", 2) else { return };
    Net::enter(&net.outer);
    let (mut sender, _) = raw("c0");
    Net::enter(&net.inner);
    let settings = EngineSettings { ring_size: 64, frames: 256, ..EngineSettings::default() };
    let (_filters, mut io) = open(XdpAttach::Native, &settings);
    let mut burst = |io: &mut XskIo, count: u64| {
        let mut seen = 0;
        for number in 0..count {
            sender.send_to(&udp4(SERVICE, 53, number), None).expect("room").expect("sent");
            seen += forward(io) as u64;
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        while seen < count && Instant::now() < deadline {
            seen += forward(io) as u64;
        }
        assert!(io.frames_accounted().balanced(), "{:?}", io.frames_accounted());
        seen
    };
    assert_eq!(burst(&mut io, 100), 100);
    run(&["ip", "-n", &net.inner, "link", "set", "a1", "down"]);
    assert_eq!(burst(&mut io, 300), 300);
    let stats = io.stats();
    assert!(stats.tx_full > 0, "{stats:?}");
    assert!(!io.tx_pending(), "a worker must be able to sleep while a link is down");
    assert_eq!(io.frames_accounted().held, 0);
    run(&["ip", "-n", &net.inner, "link", "set", "a1", "up"]);
    let deadline = Instant::now() + Duration::from_secs(3);
    while io.frames_accounted().tx > 0 && Instant::now() < deadline {
        io.service();
    }
    assert_eq!(io.frames_accounted().tx, 0, "{:?}", io.frames_accounted());
    let before = Net::received(&net.outer, "c1");
    assert_eq!(burst(&mut io, 100), 100);
    assert!(Net::received(&net.outer, "c1") - before >= 100);
}

/// More than the rings hold at once: what is lost is counted, and no frame leaks.
#[test]
fn an_overload_is_counted_and_leaks_nothing() {
    let Some(net) = Net::new("an_overload_is_counted_and_leaks_nothing", 2) else { return };
    Net::enter(&net.outer);
    let (mut sender, _) = raw("c0");
    Net::enter(&net.inner);
    let settings = EngineSettings { ring_size: 64, frames: 64, ..EngineSettings::default() };
    let (filters, mut io) = open(XdpAttach::Native, &settings);
    let mut seen = 0;
    for round in 0..50 {
        for number in 0..200 {
            sender.send_to(&udp4(SERVICE, 53, round * 200 + number), None).expect("room").expect("sent");
        }
        let quiet = Instant::now() + Duration::from_millis(5);
        while Instant::now() < quiet {
            seen += forward(&mut io) as u64;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(1);
    while io.frames_accounted().tx > 0 && Instant::now() < deadline {
        io.service();
    }
    let (stats, account) = (io.stats(), io.frames_accounted());
    assert!(account.balanced() && account.held == 0 && account.tx == 0, "{account:?}");
    assert!(stats.rx_ring_drops > 0, "{stats:?}");
    assert_eq!(seen, stats.rx_frames);
    let redirected = filters[0].counters().expect("counters").redirected;
    assert_eq!(seen + stats.rx_ring_drops, redirected, "{stats:?}");
}
