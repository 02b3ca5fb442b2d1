//! What the tests of `evenkeel replay` share: a directory, captures in and out, the command.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use serde_json::Value;

/// A directory of this test's own, removed when it ends.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("evenkeel-replay-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("creates");
        Scratch(path)
    }

    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, contents).expect("writes");
        path
    }

    pub fn capture(&self, name: &str, frames: &[(u64, Vec<u8>)]) -> PathBuf {
        let path = self.0.join(name);
        let file = std::fs::File::create(&path).expect("creates");
        let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(file, header).expect("header");
        for (millis, bytes) in frames {
            let packet = PcapPacket::new(Duration::from_millis(*millis), bytes.len() as u32, bytes);
            writer.write_packet(&packet).expect("writes");
        }
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn read(path: &Path) -> Vec<(Duration, Vec<u8>)> {
    let mut reader = PcapReader::new(std::fs::File::open(path).expect("opens")).expect("a capture");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.expect("a frame");
        frames.push((packet.timestamp, packet.data.into_owned()));
    }
    frames
}

pub fn replay(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("replay").args(args).output().expect("runs")
}

pub fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

pub const CONFIG: &str = r#"
[engine]
verify_checksums = "new-flows"
[[interface]]
name = "eth0"
[[neighbor]]
address = "10.0.0.21"
mac = "02:00:00:00:00:21"
[[neighbor]]
address = "10.0.0.22"
mac = "02:00:00:00:00:22"
[[service]]
name = "web"
address = "10.0.0.100"
port = 80
scheduler = "rr"
server = [{ address = "10.0.0.21" }, { address = "10.0.0.22" }]
[[service]]
name = "dns"
address = "10.0.0.100"
protocol = "udp"
port = 53
scheduler = "rr"
server = [{ address = "10.0.0.21" }, { address = "10.0.0.22" }]
"#;
