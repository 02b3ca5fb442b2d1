//! Captures of the real IPVS through our pipeline: what we make of a packet is what IPVS made of it, and after the same
//! packets our flows have the states that `ipvsadm -Lnc` showed. `tests/golden/README.md` says how they were recorded.

mod replay_support;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::control::compile::Registry;
use evenkeel::control::config;
use evenkeel::dataplane::flow::{Entry, Seeds, flag};
use evenkeel::dataplane::io::memory::MemoryIo;
use evenkeel::dataplane::io::{Frame, PacketIo};
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::dataplane::verdict::{Outcome, Verdict};
use evenkeel::dataplane::worker;
use evenkeel::model::MacAddr;
use pcap_file::pcapng::{Block, PcapNgReader};
use replay_support::{CONFIG, Scratch, lines, read, replay, text};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Frames with the number of the interface and the time at which it saw them.
fn read_pcapng(path: &Path) -> Vec<(u32, Duration, Vec<u8>)> {
    let mut reader = PcapNgReader::new(std::fs::File::open(path).expect("opens")).expect("a capture");
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("a block") {
            frames.push((packet.interface_id, packet.timestamp, packet.data.into_owned()));
        }
    }
    frames
}

/// Direct routing: the capture holds each packet before and after the director.
#[test]
fn dr_frames_leave_as_the_real_ipvs_sends_them() {
    let scratch = Scratch::new("ipvs-dr");
    let config = CONFIG
        .replace("new-flows", "off")
        .replace("port = 53", "port = 5000")
        .replace(r#"{ address = "10.0.0.22" }]"#, r#"{ address = "10.0.0.22" }, { address = "10.0.0.23" }]"#);
    let config = scratch.file("config.toml", config);
    // The MACs that servers 1, 2 and 3 had behind IPVS.
    let neighbors = ["10.0.0.21=82:b2:2d:56:49:f4", "10.0.0.22=32:1d:c0:35:c7:39", "10.0.0.23=be:88:28:54:48:aa"];
    let (ours, theirs) = both_ways(&scratch, &config, "ipvs-dr.pcap", [0x9a, 0x5c, 0x15, 0xf2, 0x62, 0x01], &neighbors);
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        // The UDP service had served others before: its sequence is at another place. All else is the same.
        let from = if ours[23] == 17 { 6 } else { 0 };
        assert_eq!(ours[from..], theirs[from..], "frame {at}");
    }
}

/// Tunnels: the same servers, and the outer header byte for byte.
#[test]
fn tunnel_frames_leave_as_the_real_ipvs_sends_them() {
    let scratch = Scratch::new("ipvs-tun");
    let config = CONFIG
        .replace("new-flows", "off")
        .replace("port = 53", "port = 5000")
        .replace("scheduler = \"rr\"", "scheduler = \"rr\"\nmethod = \"ipip\"\ntunnel_source = \"10.0.0.1\"")
        .replace(r#"{ address = "10.0.0.22" }]"#, r#"{ address = "10.0.0.22" }, { address = "10.0.0.23" }]"#);
    let config = scratch.file("config.toml", config);
    let neighbors = ["10.0.0.21=d6:58:13:f7:ad:f2", "10.0.0.22=36:f1:c1:1a:71:0a", "10.0.0.23=d2:45:e6:e8:15:2c"];
    let (ours, theirs) =
        both_ways(&scratch, &config, "ipvs-tun.pcap", [0x5e, 0xf8, 0x0f, 0xd4, 0x1b, 0xc7], &neighbors);
    // The sequences of both services were at another place: the first connection went to server 1, and so on. What tells
    // the servers apart is the destination, in the frame and in the outer header, whose checksum follows.
    let unnamed = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        assert_eq!(evenkeel::dataplane::checksum::checksum(&frame[14..34]), 0, "outer header");
        frame[..6].fill(0);
        frame[24..26].fill(0);
        frame[33] = 0;
        frame
    };
    let mut servers = std::collections::BTreeMap::new();
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(unnamed(ours), unnamed(theirs), "frame {at}");
        // One server of theirs for one flow is one of ours.
        let flow = (ours[54..58].to_vec(), ours[43]);
        let pair = (ours[33], theirs[33], ours[5], theirs[5]);
        assert_eq!(*servers.entry(flow).or_insert(pair), pair, "frame {at}");
    }
    assert_eq!(servers.len(), 4);
}

/// What we send for what came to the director, and what the director sent.
fn both_ways(
    scratch: &Scratch,
    config: &Path,
    capture: &str,
    director: [u8; 6],
    neighbors: &[&str],
) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let all = read(&golden(capture));
    let theirs: Vec<Vec<u8>> = all.iter().map(|(_, f)| f.clone()).filter(|f| f[6..12] == director).collect();
    let (out, input) = (scratch.0.join("out.pcap"), golden(capture));
    let mut args = vec!["--config", text(config), "--in", text(&input), "--out", text(&out), "--json"];
    neighbors.iter().for_each(|neighbor| args.extend(["--neighbor", neighbor]));
    assert_eq!(lines(&replay(&args)).len(), all.len());
    let ours: Vec<Vec<u8>> = read(&out).into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(ours.len(), theirs.len());
    (ours, theirs)
}

/// The director's MACs, towards the servers and towards the clients.
const DIRECTOR: [[u8; 6]; 2] = [[0xbe, 0xe0, 0x18, 0x3a, 0xf4, 0x3e], [0x16, 0x5f, 0xfe, 0x6f, 0x48, 0xc8]];

fn nat_config() -> String {
    let mut config = "[[interface]]\nname = \"eth0\"\n[[interface]]\nname = \"eth1\"\n".to_owned();
    for (server, mac) in [(21, "82:33:60:7e:d3:15"), (22, "c2:20:ea:5d:55:f0"), (23, "02:42:f0:8d:76:4c")] {
        config += &format!("[[neighbor]]\naddress = \"10.0.0.{server}\"\nmac = \"{mac}\"\ninterface = \"eth0\"\n");
    }
    for (protocol, port, server_port, servers) in [
        ("tcp", 80, 80, &[21, 22, 23][..]),
        ("tcp", 8000, 8080, &[21, 22, 23]),
        ("tcp", 81, 81, &[22]),
        ("udp", 5000, 5000, &[21, 22, 23]),
        ("udp", 5999, 5999, &[21]),
    ] {
        let servers: Vec<String> =
            servers.iter().map(|n| format!("{{ address = \"10.0.0.{n}\", port = {server_port} }}")).collect();
        config += &format!(
            "[[service]]\nname = \"{protocol}-{port}\"\naddress = \"10.1.0.100\"\nprotocol = \"{protocol}\"\nport = {port}\n\
             scheduler = \"rr\"\nmethod = \"nat\"\nserver = [{}]\n",
            servers.join(", ")
        );
    }
    config
}

/// NAT: requests and answers, translated ports, a reset by a server, and an ICMP error about a translated packet. Byte for
/// byte, with every address, checksum and MAC: on each interface, and in the order in which the director sent them there.
#[test]
fn nat_frames_leave_as_the_real_ipvs_sends_them() {
    let scratch = Scratch::new("ipvs-nat");
    let (config, input) = (scratch.file("config.toml", nat_config()), golden("ipvs-nat.pcapng"));
    let out = scratch.0.join("out.pcap");
    let args = ["--config", text(&config), "--in", text(&input), "--out", text(&out), "--json"];
    let all = read_pcapng(&input);
    // The interfaces' MACs are learned from the capture, or told.
    let macs = DIRECTOR.map(|mac| MacAddr(mac).to_string());
    let told = [format!("eth0={}", macs[0]), format!("eth1={}", macs[1])];
    for more in [&[][..], &["--mac", &told[0], "--mac", &told[1]]] {
        let result = lines(&replay(&[&args[..], more].concat()));
        assert_eq!(result.len(), all.len());
        let ours = read(&out);
        for (interface, director) in (0..).zip(DIRECTOR) {
            let theirs: Vec<&Vec<u8>> =
                all.iter().filter(|(at, _, f)| *at == interface && f[6..12] == director).map(|(_, _, f)| f).collect();
            let ours: Vec<&Vec<u8>> = ours.iter().map(|(_, f)| f).filter(|f| f[6..12] == director).collect();
            assert_eq!(ours.len(), theirs.len(), "interface {interface}");
            for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                if ours[23] != 1 {
                    assert_eq!(ours, theirs, "frame {at} of interface {interface}");
                    continue;
                }
                // IPVS translates the addresses and ports that an ICMP error quotes, and leaves the quoted transport
                // checksum as it was behind NAT. We mend it too, so that the client finds its own packet quoted: that
                // checksum differs, and the ICMP checksum with it.
                let (mine, asked) = ((68..70), all.iter().find(|(_, _, f)| f[34..38] == ours[62..66]).expect("asked"));
                assert_eq!(ours[62..], asked.2[34..], "the client's own datagram");
                let mut same = ours.to_vec();
                same[mine.clone()].copy_from_slice(&theirs[mine]);
                same[36..38].copy_from_slice(&theirs[36..38]);
                assert_eq!(same, **theirs, "frame {at} of interface {interface}");
                assert_eq!(evenkeel::dataplane::checksum::checksum(&ours[34..]), 0, "ICMP checksum");
            }
        }
        let sent = all.iter().filter(|(_, _, f)| DIRECTOR.iter().any(|mac| f[6..12] == *mac)).count();
        assert_eq!((ours.len(), sent * 2), (sent, all.len()), "every frame left");
        assert!(ours.iter().any(|(_, f)| f[23] == 1) && ours.iter().any(|(_, f)| f[23] == 6 && f[47] & 4 != 0));
    }
}

/// A flow as `ipvsadm -Lnc` lists it: protocol, state, client, service, server.
type Listed = (String, String, SocketAddr, SocketAddr, SocketAddr);

fn listed(name: &str) -> BTreeSet<Listed> {
    let text = std::fs::read_to_string(golden(name)).expect("reads");
    let end = |word: Option<&str>| word.and_then(|word| word.parse().ok()).expect("address:port");
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (protocol, _, state) = (words.next(), words.next(), words.next());
        let name = |word: Option<&str>| word.expect("a word").to_owned();
        (name(protocol), name(state), end(words.next()), end(words.next()), end(words.next()))
    };
    text.lines().filter(|text| text.starts_with("TCP") || text.starts_with("UDP")).map(line).collect()
}

fn flows(pipeline: &Pipeline, snapshot: &Snapshot) -> BTreeSet<Listed> {
    let mut flows = BTreeSet::new();
    pipeline.tables().0.for_each(|flow| {
        if flow.flags() & flag::REVERSE != 0 {
            return;
        }
        let key = flow.key();
        let ([a, b, c, d, e, f, g, h], [i, j, k, l]) = (key.addresses.to_ne_bytes(), key.ports.to_ne_bytes());
        let client = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([i, j])));
        let service = SocketAddr::from(([e, f, g, h], u16::from_be_bytes([k, l])));
        let target = snapshot.target(flow.server()).expect("a server").server;
        let server = SocketAddr::new(target.address, target.port.unwrap_or(service.port()));
        let protocol = if key.protocol == 6 { "TCP" } else { "UDP" };
        flows.insert((protocol.to_owned(), flow.state().name().to_owned(), client, service, server));
    });
    flows
}

/// States: while three connections are open, and when all are closed.
#[test]
fn nat_flows_have_the_states_that_ipvsadm_shows() {
    let scratch = Scratch::new("ipvs-states");
    let desired = config::load(&scratch.file("config.toml", nat_config())).expect("a configuration").desired;
    let ports = DIRECTOR.map(|mac| Port::new(MacAddr(mac), 1500, true)).to_vec();
    let hop = |address: IpAddr| {
        let known = desired.neighbors.iter().find(|neighbor| neighbor.address == address)?;
        Some(NextHop { port: 0, vlan: None, mac: known.mac })
    };
    let snapshot = Registry::default().compile(&desired, ports, hop).expect("compiles").snapshot;
    let mut pipeline = Pipeline::new(&desired.engine, Seeds::fixed(), Arc::default()).expect("memory");
    let mut io = MemoryIo::new(2, 4, 4096);
    let all = read_pcapng(&golden("ipvs-nat.pcapng"));
    // The first listing was made while these connections were open.
    let held = |frame: &[u8]| {
        let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        frame[23] == 6 && [port(34), port(36)].iter().any(|port| (22_100..22_103).contains(port))
    };
    let mut was_open = false;
    for (interface, time, frame) in &all {
        if !was_open && held(frame) && frame[47] & 1 != 0 {
            assert_eq!(flows(&pipeline, &snapshot), listed("ipvs-nat-open.txt"));
            was_open = true;
        }
        assert!(io.inject(*interface as u8, frame));
        let (mut batch, mut outcomes) = ([Frame::default()], [Outcome::plain(Verdict::Pass)]);
        assert_eq!(io.receive(&mut batch), 1);
        let now = (*time - all[0].1).as_millis() as u32;
        pipeline.process(&snapshot, io.memory(), &mut batch, &mut outcomes, now);
        worker::act(&mut io, &[], &batch, &mut outcomes);
        pipeline.settle(&outcomes);
        pipeline.sweep(&snapshot, usize::MAX / 2, now);
    }
    assert!(was_open);
    assert_eq!(flows(&pipeline, &snapshot), listed("ipvs-nat-closed.txt"));
}
