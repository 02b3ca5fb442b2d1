//! The generator and its sink over a veth pair, both engines, by the program that users run.

mod io_support;

use std::process::{Command, Stdio};

use io_support::Net;

fn pktgen(namespace: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_evenkeel"), "pktgen", "--json"]).args(arguments);
    command
}

fn json(output: &[u8]) -> serde_json::Value {
    serde_json::from_slice(output).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(output)))
}

/// Sends 5000 packets at a moderate rate and returns what the sink counted.
fn send(net: &Net, engine: &str, more: &[&str]) -> u64 {
    let sink = pktgen(&net.inner, &["--sink", "--interface", "a0", "--count", "5000", "--duration", "8"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("sink");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !Net::has_xdp(&net.inner, "a0") && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let arguments = [
        "--interface",
        "c0",
        "--engine",
        engine,
        "--dst-mac",
        "02:00:00:00:00:02",
        "--count",
        "5000",
        "--rate",
        "20000",
    ];
    let output = pktgen(&net.outer, &[&arguments[..], more].concat()).output().expect("pktgen");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = json(&output.stdout);
    assert_eq!(report["packets"], 5000, "{report}");
    assert!(report["seconds"].as_f64().expect("seconds") > 0.2, "not paced: {report}");
    json(&sink.wait_with_output().expect("sink").stdout)["packets"].as_u64().expect("packets")
}

#[test]
fn both_engines_deliver_all_at_a_moderate_rate() {
    let Some(net) = Net::new("both_engines_deliver_all_at_a_moderate_rate", 1) else { return };
    assert_eq!(send(&net, "live-frames", &["--dst", "192.0.2.1:53", "--flows", "1000"]), 5000);
    assert_eq!(send(&net, "live-frames", &["--dst", "2001:db8::1", "--proto", "tcp-syn"]), 5000);
    assert_eq!(send(&net, "xsk", &["--dst", "192.0.2.1", "--size", "1514", "--order", "sequential"]), 5000);
    assert_eq!(send(&net, "xsk", &["--dst", "[2001:db8::1]:53", "--flows", "70000"]), 5000);
}

/// What arrives has checksums that the receiving host accepts, from all flows.
#[test]
fn live_frames_are_correct_packets_of_all_flows() {
    let Some(net) = Net::new("live_frames_are_correct_packets_of_all_flows", 1) else { return };
    Net::enter(&net.inner);
    // XDP frames need a program on the veth's peer; one that passes everything.
    let _filter = evenkeel::dataplane::xdp::Filter::attach(
        "a0",
        io_support::ifindex("a0"),
        evenkeel::dataplane::xdp::XdpAttach::Native,
    )
    .expect("filter");
    let (_sender, mut receiver) = io_support::raw("a0");
    for (destination, src, kind) in [
        ("192.0.2.1:53", "10.0.0.0/30", "udp"),
        ("192.0.2.1:53", "10.0.0.0/30", "tcp-syn"),
        ("[2001:db8::1]:53", "2001:db8:9::/126", "udp"),
        ("[2001:db8::1]:53", "2001:db8:9::/126", "tcp-syn"),
    ] {
        let arguments = ["--interface", "c0", "--dst", destination, "--dst-mac", "02:00:00:00:00:02", "--src", src];
        let more = ["--flows", "12", "--order", "sequential", "--count", "24", "--rate", "1000", "--proto", kind];
        let output = pktgen(&net.outer, &[&arguments[..], &more[..]].concat()).output().expect("pktgen");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut flows = std::collections::BTreeSet::new();
        for _ in 0..24 {
            let frame = receiver.next().expect("frame");
            let sliced = etherparse::SlicedPacket::from_ethernet(frame).expect("packet");
            let transport = match (sliced.transport.expect("transport"), sliced.net.expect("ip")) {
                (etherparse::TransportSlice::Udp(udp), etherparse::NetSlice::Ipv4(ip)) => {
                    let (header, ip) = (udp.to_header(), ip.header().to_header());
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    assert_eq!(header.calc_checksum_ipv4(&ip, udp.payload()).expect("sum"), header.checksum);
                    (ip.source.to_vec(), header.source_port)
                }
                (etherparse::TransportSlice::Tcp(tcp), etherparse::NetSlice::Ipv4(ip)) => {
                    let (header, ip) = (tcp.to_header(), ip.header().to_header());
                    assert_eq!(header.calc_checksum_ipv4(&ip, tcp.payload()).expect("sum"), header.checksum);
                    (ip.source.to_vec(), header.source_port)
                }
                (etherparse::TransportSlice::Udp(udp), etherparse::NetSlice::Ipv6(ip)) => {
                    let (header, ip) = (udp.to_header(), ip.header().to_header());
                    assert_eq!(header.calc_checksum_ipv6(&ip, udp.payload()).expect("sum"), header.checksum);
                    (ip.source.to_vec(), header.source_port)
                }
                (etherparse::TransportSlice::Tcp(tcp), etherparse::NetSlice::Ipv6(ip)) => {
                    let (header, ip) = (tcp.to_header(), ip.header().to_header());
                    assert_eq!(header.calc_checksum_ipv6(&ip, tcp.payload()).expect("sum"), header.checksum);
                    (ip.source.to_vec(), header.source_port)
                }
                other => panic!("{other:?}"),
            };
            flows.insert(transport);
        }
        assert_eq!(flows.len(), 12, "{destination} {kind}");
    }
}

#[test]
fn unbounded_or_harmful_requests_are_refused() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("pktgen").args(arguments).output().expect("run");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let base = ["--interface", "lo", "--dst", "192.0.2.1"];
    assert!(refused(&base).contains("--dst-mac"));
    assert!(refused(&[&base[..], &["--dst-mac", "ff:ff:ff:ff:ff:ff"]].concat()).contains("is a group"));
    let mac = ["--dst-mac", "02:00:00:00:00:02"];
    assert!(refused(&[&base[..], &mac[..], &["--flows", "1000", "--src", "::1"]].concat()).contains("families"));
    assert!(refused(&[&base[..], &mac[..], &["--size", "20"]].concat()).contains("42 to 3400"));
    assert!(refused(&["--interface", "nope", "--dst", "192.0.2.1", "--dst-mac", "02:00:00:00:00:02"]).contains("nope"));
}
