//! Two network namespaces joined by veth pairs, for the I/O tests.
//!
//! `outer` holds `c0`, `c1`, ... and `inner` their peers `a0`, `a1`, ...; dropping removes all of it. Frames are counted
//! by the interfaces' own statistics, so nothing is lost to a full socket buffer.

#![allow(dead_code)]

pub mod frames;

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use pnet::datalink::{self, Channel, DataLinkReceiver, DataLinkSender};

/// Runs a command; panics with its output when it fails.
pub fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|e| panic!("{words:?}: {e}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a test that cannot run is a failure.
pub fn must_run() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Two namespaces and the veth pairs between them.
pub struct Net {
    pub inner: String,
    pub outer: String,
    pub pairs: usize,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Net {
    /// `None` where namespaces cannot be made, after a loud line; with `CI=true` that is a failure instead.
    pub fn new(test: &str, pairs: usize) -> Option<Net> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = format!("ek-io-{}-{number}", std::process::id());
        let net = Net { inner: format!("{base}-a"), outer: format!("{base}-c"), pairs };
        let made = Command::new("ip").args(["netns", "add", &net.inner]).output();
        if !made.as_ref().is_ok_and(|output| output.status.success()) {
            assert!(!must_run(), "{test}: no network namespaces: {made:?}");
            eprintln!("\n*** SKIP {test}: needs root and network namespaces ***\n");
            return None;
        }
        run(&["ip", "netns", "add", &net.outer]);
        for namespace in [&net.inner, &net.outer] {
            for scope in ["all", "default"] {
                let setting = format!("net.ipv6.conf.{scope}.disable_ipv6=1");
                run(&["ip", "netns", "exec", namespace, "sysctl", "-qw", &setting]);
            }
        }
        for pair in 0..pairs {
            let (a, c) = (format!("a{pair}"), format!("c{pair}"));
            run(&["ip", "-n", &net.inner, "link", "add", &a, "type", "veth", "peer", "name", &c, "netns", &net.outer]);
            run(&["ip", "-n", &net.inner, "link", "set", &a, "up"]);
            run(&["ip", "-n", &net.outer, "link", "set", &c, "up"]);
            run(&["ip", "netns", "exec", &net.outer, "ethtool", "-K", &c, "tx", "off", "tso", "off", "gso", "off"]);
        }
        Some(net)
    }

    /// Moves this thread into a namespace.
    pub fn enter(namespace: &str) {
        let file = File::open(format!("/var/run/netns/{namespace}")).expect("namespace");
        setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
    }

    /// Frames that an interface received so far.
    pub fn received(namespace: &str, interface: &str) -> u64 {
        let text = run(&["ip", "-n", namespace, "-j", "-s", "link", "show", "dev", interface]);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON of ip");
        json[0]["stats64"]["rx"]["packets"].as_u64().expect("packets")
    }

    /// Whether an interface has an XDP program.
    pub fn has_xdp(namespace: &str, interface: &str) -> bool {
        run(&["ip", "-n", namespace, "link", "show", "dev", interface]).contains("xdp")
    }

    /// Whether an interface has no XDP program soon: a child that another test's thread has just begun has all files of this process
    /// until it becomes its program.
    pub fn loses_xdp(namespace: &str, interface: &str) -> bool {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while Net::has_xdp(namespace, interface) {
            if std::time::Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        true
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.inner, &self.outer] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

/// The index of an interface in this thread's namespace.
pub fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("interface")
}

/// A raw socket on an interface of this thread's namespace.
pub fn raw(name: &str) -> (Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>) {
    let interface = datalink::interfaces().into_iter().find(|i| i.name == name).expect("interface");
    let config =
        datalink::Config { read_timeout: Some(std::time::Duration::from_millis(200)), ..datalink::Config::default() };
    match datalink::channel(&interface, config).expect("raw socket") {
        Channel::Ethernet(sender, receiver) => (sender, receiver),
        _ => panic!("not Ethernet"),
    }
}

/// A UDP frame over IPv4, checksums right, with `number` in the payload.
pub fn udp4(destination: [u8; 4], port: u16, number: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([198, 51, 100, 7], destination, 64)
        .udp(1000 + (number % 50000) as u16, port)
        .write(&mut frame, &number.to_be_bytes())
        .expect("frame");
    frame
}
