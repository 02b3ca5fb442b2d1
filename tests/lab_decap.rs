//! Packets that the engine's own code wrapped arrive on a real server's service address, through `evenkeel realserver
//! decap`; others do not.

mod lab_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use evenkeel::dataplane::io::FrameMemory;
use evenkeel::dataplane::io::memory::HeapMemory;
use evenkeel::dataplane::parse;
use evenkeel::dataplane::rewrite::tunnel::{Tunnel, encapsulate};
use evenkeel::dataplane::snapshot::ServerEntry;
use evenkeel::lab::client::frames::Frames;
use evenkeel::lab::netlink::{Cidr, Wire};
use evenkeel::lab::process::Process;
use evenkeel::lab::topology::Lab;
use evenkeel::model::{Method, TunnelSettings};
use lab_support::{lab_is_possible, program};
use nix::sys::signal::Signal;
use serde_json::Value;

const PORT: u16 = 5300;
const PATIENCE: Duration = Duration::from_secs(20);
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const DIRECTOR4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 21);
const DIRECTOR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x21);

struct Setup {
    lab: Lab,
    wire: Frames,
    v4: UdpSocket,
    v6: UdpSocket,
}

impl Setup {
    /// A director that sends frames, and a server with the service addresses on `lo`.
    fn build() -> Setup {
        let mut lab = Lab::new().unwrap();
        lab.add_node("director").unwrap();
        lab.add_node("server").unwrap();
        lab.link(("director", "eth0"), ("server", "eth0"), Wire::default()).unwrap();
        for (node, interface, address, prefix) in [
            ("director", "eth0", IpAddr::from(DIRECTOR4), 24),
            ("director", "eth0", DIRECTOR6.into(), 64),
            ("server", "eth0", SERVER4.into(), 24),
            ("server", "eth0", SERVER6.into(), 64),
            ("server", "lo", VIP4.into(), 32),
            ("server", "lo", VIP6.into(), 128),
        ] {
            lab.address(node, interface, Cidr::new(address, prefix)).unwrap();
        }
        let wire = Frames::open(lab.node("director").unwrap(), "eth0").unwrap();
        let bind = |address: IpAddr| {
            let socket = lab.node("server").unwrap().run(|| UdpSocket::bind(SocketAddr::new(address, PORT))).unwrap();
            let socket = socket.unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let (v4, v6) = (bind(VIP4.into()), bind(VIP6.into()));
        Setup { lab, wire, v4, v6 }
    }

    fn decap(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(program());
        command.args(["realserver", "decap", "--json"]).args(arguments);
        let process = self.lab.start("server", "decap", &command).unwrap();
        let start = Instant::now();
        while !process.output().contains("ready:") {
            assert!(start.elapsed() < PATIENCE && process.ended().is_none(), "{}", process.last_words(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        process
    }

    /// Sends a client's packet through a tunnel: `text` to the service address.
    fn send(&self, method: Method, outer: (IpAddr, IpAddr), inner_v6: bool, tos: u8, text: &[u8]) {
        let mac = |node: &str| self.lab.mac(node, "eth0").unwrap().0;
        let mut bytes = Vec::new();
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        if inner_v6 {
            let client = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
            ethernet.ipv6(client.octets(), VIP6.octets(), 9).udp(4000, PORT).write(&mut bytes, text).unwrap();
        } else {
            ethernet.ipv4([198, 51, 100, 7], VIP4.octets(), 9).udp(4000, PORT).write(&mut bytes, text).unwrap();
        }
        let mut memory = HeapMemory::new(1, 4096);
        let mut frame = memory.allocate(0, bytes.len() as u32).unwrap();
        memory.bytes_mut(&frame).copy_from_slice(&bytes);
        let mut server = ServerEntry::EMPTY;
        server.macs[..6].copy_from_slice(&mac("server"));
        server.macs[6..].copy_from_slice(&mac("director"));
        let tunnel = Tunnel::new(method, outer.0, outer.1, TunnelSettings::default());
        let parsed = parse::parse(&bytes).unwrap();
        encapsulate(&mut memory, &mut frame, &parsed, &server, &tunnel, 0x1234_5678, 77).unwrap();
        let mut wrapped = memory.bytes(&frame).to_vec();
        if tos != 0 {
            // Marked on the way; the header checksum follows.
            wrapped[15] = tos;
            wrapped[24..26].fill(0);
            let check = evenkeel::dataplane::checksum::checksum(&wrapped[14..34]);
            wrapped[24..26].copy_from_slice(&check.to_ne_bytes());
        }
        self.wire.send(&wrapped).unwrap();
    }

    fn expect(&self, v6: bool, text: &[u8], process: &Process) {
        let mut buffer = [0; 2000];
        let socket = if v6 { &self.v6 } else { &self.v4 };
        let text = String::from_utf8_lossy(text);
        match socket.recv(&mut buffer) {
            Ok(length) => assert_eq!(String::from_utf8_lossy(&buffer[..length]), text),
            Err(error) => {
                let _ = process.signal(Signal::SIGUSR1);
                std::thread::sleep(Duration::from_millis(300));
                panic!("{text} did not arrive ({error}): {}", process.last_words(10));
            }
        }
    }
}

fn outer(v6: bool) -> (IpAddr, IpAddr) {
    if v6 { (DIRECTOR6.into(), SERVER6.into()) } else { (DIRECTOR4.into(), SERVER4.into()) }
}

/// The counters that it prints at its end.
fn end(process: &Process) -> Value {
    process.signal(Signal::SIGTERM).unwrap();
    let status = process.wait(PATIENCE).unwrap();
    assert!(status.success(), "{status}: {}", process.last_words(10));
    let output = process.output();
    serde_json::from_str(output.lines().last().unwrap()).unwrap()
}

#[test]
fn every_tunnel_ends_at_the_service_address() {
    if !lab_is_possible() {
        return;
    }
    let setup = Setup::build();
    // The strict reverse path filter would drop what comes from clients by the device: it must be told not to.
    setup.lab.setting("server", "net/ipv4/conf/default/rp_filter", "1").unwrap();
    let process = setup.decap(&["--device", "vip-tun", "--mtu", "1400"]);
    let mut sent = 0;
    for method in [Method::Ipip, Method::Gue, Method::Gre] {
        for (v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
            let text = format!("{} {v6} {inner_v6}", method.name());
            setup.send(method, outer(v6), inner_v6, 0, text.as_bytes());
            setup.expect(inner_v6, text.as_bytes(), &process);
            sent += 1;
        }
    }
    process.signal(Signal::SIGUSR1).unwrap();
    let start = Instant::now();
    while !process.output().contains("\"received\"") {
        assert!(start.elapsed() < PATIENCE, "SIGUSR1 prints no counters: {}", process.last_words(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    let counters = end(&process);
    // What a device of the kernel's takes out is not counted here.
    let sent = if process.output().contains("the kernel takes") { sent - 1 } else { sent };
    assert_eq!((&counters["received"], &counters["delivered"]), (&sent.into(), &sent.into()), "{counters}");
    // Where the kernel has a device of its own or not: it says which.
    assert!(process.output().contains("ipip"), "{}", process.output());
    let outlives = setup.lab.rtnl("server", |rtnl| rtnl.index("vip-tun").map(drop));
    assert!(outlives.is_err(), "the device outlives it");
}

#[test]
fn strangers_and_packets_for_others_are_counted_and_dropped() {
    if !lab_is_possible() {
        return;
    }
    let setup = Setup::build();
    let vip = VIP4.to_string();
    let process = setup.decap(&["--from", "10.0.0.1", "--address", &vip, "--gue-port", "6081"]);
    let stranger = (IpAddr::from([10, 0, 0, 99]), SERVER4.into());
    setup.send(Method::Gre, stranger, false, 0, b"from a stranger");
    // An address of this machine, but not one of those given.
    setup.send(Method::Gre, outer(false), true, 0, b"to another address");
    // Marked on the way, and the client does not know of marks.
    setup.send(Method::Gre, outer(false), false, 3, b"marked");
    // The same socket takes this one last, so all is counted when it arrives.
    setup.send(Method::Gre, outer(false), false, 0, b"good");
    setup.expect(false, b"good", &process);
    let counters = end(&process);
    let expected = serde_json::json!({
        "received": 4, "delivered": 1, "bytes": 32,
        "dropped": { "malformed": 0, "unsupported": 0, "stranger": 1, "not-ours": 1, "congestion": 1, "refused": 0 },
    });
    assert_eq!(counters, expected);
}
