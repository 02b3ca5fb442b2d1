//! The AF_XDP layer over real interfaces: veth pairs in network namespaces.

mod io_support;

use std::time::{Duration, Instant};

use evenkeel::dataplane::io::xsk::{PortBinding, XskIo};
use evenkeel::dataplane::io::{BATCH, Frame, FrameMemory, PacketIo};
use evenkeel::dataplane::xdp::{Filter, FilterEntry, FilterTable, XdpAttach};
use evenkeel::model::{EngineSettings, IoMode, PortRange, Protocol};
use io_support::{Net, ifindex, raw, udp4};

const SERVICE: [u8; 4] = [192, 0, 2, 1];

fn table() -> FilterTable {
    let address = SERVICE.into();
    let entry = FilterEntry { address, protocol: Protocol::Udp, ports: PortRange::single(53) };
    FilterTable { entries: vec![entry], owned: vec![address] }
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

fn bursts(name: &str, attach: XdpAttach, total: u64) {
    let Some(net) = Net::new(name, 2) else { return };
    Net::enter(&net.outer);
    let (mut sender, _) = raw("c0");
    Net::enter(&net.inner);
    let settings = EngineSettings { ring_size: 512, frames: 1024, ..EngineSettings::default() };
    let (filters, mut io) = open(attach, &settings);
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

#[test]
fn all_frames_of_bursts_cross_in_native_mode() {
    bursts("all_frames_of_bursts_cross_in_native_mode", XdpAttach::Native, 100_000);
}

#[test]
fn all_frames_of_bursts_cross_in_generic_mode() {
    bursts("all_frames_of_bursts_cross_in_generic_mode", XdpAttach::Generic, 100_000);
}
