//! `evenkeel replay` from outside: against a capture of the real IPVS, on time, on bad input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use serde_json::Value;

/// A directory of this test's own, removed when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("evenkeel-replay-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("creates");
        Scratch(path)
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, contents).expect("writes");
        path
    }

    fn capture(&self, name: &str, frames: &[(u64, Vec<u8>)]) -> PathBuf {
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

fn read(path: &Path) -> Vec<(Duration, Vec<u8>)> {
    let mut reader = PcapReader::new(std::fs::File::open(path).expect("opens")).expect("a capture");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.expect("a frame");
        frames.push((packet.timestamp, packet.data.into_owned()));
    }
    frames
}

fn replay(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("replay").args(args).output().expect("runs")
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

const CONFIG: &str = r#"
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

/// The capture holds each packet before and after the real IPVS: what we make of the first must be the second.
#[test]
fn frames_leave_as_the_real_ipvs_sends_them() {
    let scratch = Scratch::new("ipvs");
    let golden = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ipvs-dr.pcap")));
    let director = [0x9a, 0x5c, 0x15, 0xf2, 0x62, 0x01];
    let theirs: Vec<&Vec<u8>> = golden.iter().map(|(_, f)| f).filter(|f| f[6..12] == director).collect();
    let config = CONFIG
        .replace("new-flows", "off")
        .replace("port = 53", "port = 5000")
        .replace(r#"{ address = "10.0.0.22" }]"#, r#"{ address = "10.0.0.22" }, { address = "10.0.0.23" }]"#);
    let config = scratch.file("config.toml", config);
    let out = scratch.0.join("out.pcap");
    // The MACs that servers 1, 2 and 3 had behind IPVS.
    let output = replay(&[
        "--config",
        text(&config),
        "--in",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ipvs-dr.pcap"),
        "--out",
        text(&out),
        "--json",
        "--neighbor",
        "10.0.0.21=82:b2:2d:56:49:f4",
        "--neighbor",
        "10.0.0.22=32:1d:c0:35:c7:39",
        "--neighbor",
        "10.0.0.23=be:88:28:54:48:aa",
    ]);
    assert_eq!(lines(&output).len(), golden.len());
    let ours = read(&out);
    assert_eq!(ours.len(), theirs.len());
    for (at, ((_, ours), theirs)) in ours.iter().zip(theirs).enumerate() {
        // The UDP service had served others before: its sequence is at another place. All else is the same.
        let from = if ours[23] == 17 { 6 } else { 0 };
        assert_eq!(ours[from..], theirs[from..], "frame {at}");
    }
}

fn udp(port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
        .ipv4([198, 51, 100, 7], [10, 0, 0, 100], 64)
        .udp(port, 53)
        .write(&mut frame, b"q")
        .expect("builds");
    frame
}

#[test]
fn time_comes_from_the_stamps() {
    let scratch = Scratch::new("time");
    let config = scratch.file("config.toml", CONFIG);
    let start = 1_700_000_000_000;
    // UDP flows last 300 s.
    let frames: Vec<(u64, Vec<u8>)> =
        [0, 299_000, 598_000, 900_000, 899_000].iter().map(|at| (start + at, udp(5))).collect();
    let input = scratch.capture("in.pcap", &frames);
    let out = scratch.0.join("out.pcap");
    let result = lines(&replay(&["--config", text(&config), "--in", text(&input), "--out", text(&out), "--json"]));
    let new: Vec<bool> = result.iter().map(|l| l["new"].as_bool().expect("a flag")).collect();
    assert_eq!(new, [true, false, false, true, false]);
    let servers: Vec<&str> = result.iter().map(|l| l["server"].as_str().expect("a server")).collect();
    assert_eq!(servers, ["10.0.0.22", "10.0.0.22", "10.0.0.22", "10.0.0.21", "10.0.0.21"]);
    assert!(result.iter().all(|l| l["verdict"] == "tx" && l["service"] == "dns" && l["reason"].is_null()));
    // The output keeps order and stamps.
    let stamps: Vec<u64> = read(&out).iter().map(|(t, _)| t.as_millis() as u64).collect();
    assert_eq!(stamps, frames.iter().map(|(t, _)| *t).collect::<Vec<_>>());
}

#[test]
fn servers_can_be_told_down_and_macs_on_the_command_line_win() {
    let scratch = Scratch::new("down");
    let config = scratch.file("config.toml", CONFIG);
    let frames: Vec<(u64, Vec<u8>)> = (0..20).map(|n| (n, udp(n as u16))).collect();
    let input = scratch.capture("in.pcap", &frames);
    let out = scratch.0.join("out.pcap");
    let args = ["--config", text(&config), "--in", text(&input), "--out", text(&out)];
    let output =
        replay(&[&args[..], &["--json", "--down", "10.0.0.22", "--neighbor", "10.0.0.21=02:aa:00:00:00:01"]].concat());
    assert!(lines(&output).iter().all(|l| l["server"] == "10.0.0.21" && l["interface"] == "eth0"));
    assert!(read(&out).iter().all(|(_, f)| f[..12] == [2, 0xaa, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1]));
    let summary = String::from_utf8(replay(&args).stdout).expect("UTF-8");
    assert!(summary.contains("20 frames") && summary.contains("10 packets"), "{summary}");
}

#[test]
fn verdicts_have_their_names() {
    let scratch = Scratch::new("names");
    let config = scratch.file("config.toml", CONFIG);
    let mut bad = udp(1);
    bad[24] ^= 0xff;
    let mut elsewhere = udp(1);
    elsewhere[37] = 54;
    let mut arp = vec![0xff; 6];
    arp.extend_from_slice(&[2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 1]);
    arp.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 0, 0, 100]);
    let frames: Vec<(u64, Vec<u8>)> = [udp(1), bad, elsewhere, arp, vec![0; 5]].into_iter().map(|f| (0, f)).collect();
    let input = scratch.capture("in.pcap", &frames);
    let out = scratch.0.join("out.pcap");
    let args = ["--config", text(&config), "--in", text(&input), "--out", text(&out), "--json"];
    let named: Vec<(String, Value)> = lines(&replay(&args))
        .into_iter()
        .map(|mut l| (l["verdict"].as_str().expect("a word").to_owned(), l["reason"].take()))
        .collect();
    let expected =
        [("tx", None), ("drop", Some("bad-ip-checksum")), ("pass", None), ("reply", None), ("drop", Some("truncated"))];
    for (at, ((verdict, reason), (v, r))) in named.iter().zip(expected).enumerate() {
        assert_eq!((verdict.as_str(), reason.as_str()), (v, r), "frame {}", at + 1);
    }
    assert_eq!(read(&out).len(), 1, "only what was forwarded");
    replay(&[&args[..], &["--with-replies"]].concat());
    assert_eq!(read(&out).len(), 2);
}

#[test]
fn bad_input_is_named() {
    let scratch = Scratch::new("bad");
    let config = scratch.file("config.toml", CONFIG);
    let broken = scratch.file("broken.toml", "[[service]]\nadress = 1\n");
    let good = scratch.capture("good.pcap", &[(0, udp(1))]);
    let garbage = scratch.file("garbage.pcap", b"this is no capture at all, not even a little");
    let empty = scratch.file("empty.pcap", b"");
    let mut cut = std::fs::read(&good).expect("reads");
    cut.truncate(cut.len() - 3);
    let cut = scratch.file("cut.pcap", cut);
    let cases: [(&[&str], &str); 7] = [
        (&["--config", text(&broken), "--in", text(&good)], "did you mean `address`"),
        (&["--config", "/nonexistent.toml", "--in", text(&good)], "/nonexistent.toml"),
        (&["--config", text(&config), "--in", "/nonexistent.pcap"], "/nonexistent.pcap"),
        (&["--config", text(&config), "--in", text(&garbage)], "expected a pcap or pcapng file"),
        (&["--config", text(&config), "--in", text(&empty)], "expected a pcap or pcapng file"),
        (&["--config", text(&config), "--in", text(&cut)], "frame 1"),
        (&["--config", text(&config), "--in", text(&good), "--mac", "eth7=02:00:00:00:00:01"], "eth7"),
    ];
    for (args, expected) in cases {
        let output = replay(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    assert_eq!(replay(&["--config", text(&config), "--in", text(&good), "--neighbor", "x"]).status.code(), Some(2));
    // A capture that was cut off later is replayed up to there.
    let two = scratch.capture("two.pcap", &[(0, udp(1)), (1, udp(2))]);
    let mut cut = std::fs::read(&two).expect("reads");
    cut.truncate(cut.len() - 3);
    let cut = scratch.file("cut.pcap", cut);
    let output = replay(&["--config", text(&config), "--in", text(&cut), "--json"]);
    assert_eq!(lines(&output).len(), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("frame 2"));
}
