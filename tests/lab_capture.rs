//! Captures and explanations of a running engine: files that tcpdump reads, filters of each kind, bounds, and clients that go
//! away.

mod lab_support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use evenkeel::lab::process::require;
use evenkeel::lab::site::Family;
use evenkeel::model::{Method, Protocol};
use lab_support::rig::{ECHO, Rig, WEB, Wish};
use lab_support::{lab_is_possible, program};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;

/// A service whose only server has weight 0, and which drops its clients' packets for that.
const EMPTY: u16 = 9999;

/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rig(method: Method) -> Rig {
    let mut stand = Wish::new(method, Family::V4).build();
    let vip = stand.site.vip(Family::V4);
    let server = stand.site.servers[0].address(Family::V4);
    stand.config.service("empty", vip, Protocol::Udp, &EMPTY.to_string(), "rr", &[(server, 0)]);
    stand.config.change_service("empty", "no_server", "drop");
    stand.start()
}

fn evenkeel(rig: &Rig, words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(words).arg("--socket").arg(rig.engine.socket()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A capture that has begun, and its file.
struct Running {
    child: Child,
    file: PathBuf,
}

fn begin(rig: &Rig, name: &str, words: &[&str]) -> Running {
    let file = rig.site.lab.path(&format!("{name}.pcapng"));
    let mut command = evenkeel(rig, &["capture"]);
    let child = command.args(words).arg("--output").arg(&file).spawn().unwrap();
    eventually("the capture begins", || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0));
    Running { child, file }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Running {
    /// Waits for its end; what it said, and its packets with their comments.
    fn end(self) -> (String, Vec<(Vec<u8>, String)>) {
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        (said(&output), packets(&self.file))
    }
}

fn packets(file: &Path) -> Vec<(Vec<u8>, String)> {
    let bytes = std::fs::read(file).unwrap();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let mut all = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            let comment = packet.options.iter().find_map(|option| match option {
                EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                _ => None,
            });
            all.push((packet.data.to_vec(), comment.unwrap()));
        }
    }
    all
}

/// What tcpdump says of a file, a line for each packet.
fn tcpdump(file: &Path) -> Vec<String> {
    let mut command = Command::new(require("tcpdump", "tcpdump").unwrap());
    let output = command.arg("-nnr").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Sends datagrams to a port of the service address, and waits for no answer.
fn send(rig: &Rig, port: u16, count: usize) {
    let target = rig.target(port);
    let send = || {
        let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
        (0..count).try_for_each(|_| socket.send_to(b"question", target).map(drop))
    };
    rig.client().run(send).unwrap().unwrap();
}

#[test]
fn frames_are_captured_by_each_filter_and_tcpdump_reads_them() {
    if !lab_is_possible() {
        return;
    }
    let rig = rig(Method::Nat);
    let client = rig.site.client_address(Family::V4).to_string();
    let server = rig.site.servers[0].address(Family::V4).to_string();
    // The drops only.
    let drops = begin(&rig, "drops", &["--reason", "no-server", "--count", "3"]);
    let service = begin(&rig, "service", &["--service", "web", "--verdict", "tx", "--both", "--count", "6"]);
    send(&rig, EMPTY, 5);
    rig.get();
    let (words, found) = drops.end();
    assert!(words.contains("3 frames captured, 0 missed"), "{words}");
    assert_eq!(found.len(), 3);
    for (bytes, comment) in &found {
        assert!(comment.starts_with("drop no-server, service empty, worker 0"), "{comment}");
        assert!(bytes.ends_with(b"question"), "{bytes:?}");
    }
    // Both halves of frames of one service: as they came, to the service, and as they leave, to a server.
    let file = service.file.clone();
    let (words, found) = service.end();
    assert!(words.contains("12 frames captured"), "{words}");
    let leaving = found.iter().filter(|(_, comment)| comment.starts_with("tx, as it leaves, service web")).count();
    let came = found.iter().filter(|(_, comment)| comment.starts_with("tx, service web, server ")).count();
    assert_eq!((leaving, came, found.len()), (6, 6, 12), "{found:?}");
    assert!(found[0].1.contains("new flow"), "{}", found[0].1);
    let lines = tcpdump(&file);
    assert_eq!(lines.len(), 12, "{lines:?}");
    let target = rig.target(WEB);
    let first = format!("{}.{}: Flags [S]", target.ip(), target.port());
    assert!(lines[0].contains(&first) && lines[1].contains(".8080: Flags [S]"), "{lines:?}");

    // One server, the client's network, and cut frames; a network that nobody has.
    let of_server =
        begin(&rig, "server", &["--server", &server, "--service", "echo", "--count", "1", "--snaplen", "48"]);
    let of_client = begin(&rig, "client", &["--client", &format!("{client}/32"), "--service", "echo", "--count", "4"]);
    let of_nobody = begin(&rig, "nobody", &["--client", "203.0.113.0/24", "--seconds", "2"]);
    rig.echo(&[600; 4]);
    let (_, found) = of_server.end();
    assert_eq!((found.len(), found[0].0.len()), (1, 48));
    assert!(found[0].1.contains(&format!("server {server}:")), "{}", found[0].1);
    let (_, found) = of_client.end();
    assert!(found.iter().all(|(bytes, comment)| bytes.len() > 600 && comment.contains("service echo")), "{found:?}");
    let (words, found) = of_nobody.end();
    assert!(words.starts_with("0 frames captured") && words.contains("seconds"), "{words}");
    assert!(found.is_empty());

    // By a pipe, and bounded in bytes.
    let mut command = evenkeel(&rig, &["capture", "--service", "echo", "--bytes", "2000"]);
    let mut piped = command.spawn().unwrap();
    let reader = Command::new(require("tcpdump", "tcpdump").unwrap())
        .args(["-nnr", "-"])
        .stdin(piped.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while piped.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "the capture ends by its bytes");
        rig.echo(&[600; 4]);
    }
    let output = piped.wait_with_output().unwrap();
    assert!(said(&output).contains("bytes"), "{}", said(&output));
    let read = reader.wait_with_output().unwrap();
    let lines = String::from_utf8_lossy(&read.stdout).lines().count();
    assert_eq!(lines, 3, "three frames of 642 bytes fit 2000: {}", String::from_utf8_lossy(&read.stdout));

    // What is wrong is named, and no file is left for it.
    let wrong = evenkeel(&rig, &["capture", "--reason", "no-sever", "--output", "/nonexistent/file"]).output().unwrap();
    assert!(!wrong.status.success() && said(&wrong).contains("did you mean no-server"), "{}", said(&wrong));
    let wrong = evenkeel(&rig, &["capture", "--output", "/nonexistent/file"]).output().unwrap();
    assert!(!wrong.status.success() && said(&wrong).contains("/nonexistent/file"), "{}", said(&wrong));
}

#[test]
fn captures_are_few_and_end_with_their_clients() {
    if !lab_is_possible() {
        return;
    }
    let rig = rig(Method::Dr);
    let long = ["--seconds", "600", "--reason", "denied"];
    let mut running: Vec<Running> = (0..4).map(|n| begin(&rig, &format!("long{n}"), &long)).collect();
    let fifth = || {
        let mut command = evenkeel(&rig, &["capture", "--seconds", "1", "--reason", "denied"]);
        command.stdout(Stdio::null()).output().unwrap()
    };
    let refused = fifth();
    assert!(!refused.status.success() && said(&refused).contains("4 captures at a time"), "{}", said(&refused));
    // A client that is killed makes room; what it has written can be read.
    let mut killed = running.remove(0);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert_eq!(packets(&killed.file), []);
    eventually("there is room for another", || fifth().status.success());
    for mut left in running {
        left.child.kill().unwrap();
        left.child.wait().unwrap();
    }
    rig.get();
}

/// What the engine explains.
fn explain(rig: &Rig, words: &[&str]) -> Value {
    let mut command = evenkeel(rig, &["explain", "--json"]);
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_is_explained_is_what_happens() {
    if !lab_is_possible() {
        return;
    }
    let rig = rig(Method::Nat);
    let client = rig.site.client_address(Family::V4).to_string();
    for _ in 0..5 {
        // Whom the next connection gets, twice: asking is not taking.
        let next = explain(&rig, &[&client, "--service", "web"]);
        assert_eq!(next["by"], "scheduler", "{next}");
        assert_eq!(next["server"], explain(&rig, &[&client, "--service", "web"])["server"]);
        let (own, _) = rig.get();
        // The flow is there, with that server.
        let target = rig.target(WEB).to_string();
        let told = explain(&rig, &[&SocketAddr::new(own.ip(), own.port()).to_string(), &target]);
        assert_eq!((&told["by"], &told["server"]), (&Value::from("flow"), &next["server"]), "{told}");
        assert_eq!(told["fortune"], "forwarded", "{told}");
    }
    let told = explain(&rig, &[&client, "--service", "empty"]);
    assert_eq!((&told["fortune"], &told["reason"]), (&Value::from("dropped"), &Value::from("no-server")), "{told}");
    assert!(told["servers"][0]["why"].as_str().unwrap().contains("weight 0"), "{told}");
    let target = rig.target(ECHO).to_string();
    let text = evenkeel(&rig, &["explain", &client, &target]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("left to the appliance's kernel") && text.contains("nearest: echo (udp"), "{text}");
}
