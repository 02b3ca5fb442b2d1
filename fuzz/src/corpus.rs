//! Writes the seeds of the fuzzers to `fuzz/corpus/`: one frame of every kind, scripts and captures of them, the
//! example configurations, and requests. `fuzz/run.sh` calls it.
//!
//! It is a fuzzer without a target, for all that is built here needs libFuzzer's symbols.

#![no_main]

#[path = "../../tests/hostile_support/mod.rs"]
#[allow(dead_code)]
mod hostile_support;

use std::fs;
use std::path::{Path, PathBuf};

use hostile_support::frames::bases;

fn folder(target: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("folder");
    folder
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    fs::write(folder(target).join(name), bytes).expect("seed");
}

/// A pcap file with one frame a millisecond.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for (at, frame) in frames.iter().enumerate() {
        for word in [1_700_000_000, at as u32 * 1000, frame.len() as u32, frame.len() as u32] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(frame);
    }
    file
}

/// A message as a script for the fuzzer of VRRP: as it is and with its checksum repaired, before and after a long pause.
fn vrrp_script(message: &[u8]) -> Vec<u8> {
    let mut script = Vec::new();
    for step in [0, 200, 243, 0, 200, 4, 204] {
        script.push(step);
        if step < 230 {
            script.push(message.len() as u8);
            script.extend_from_slice(message);
        }
    }
    script
}

/// The recorded adverts of keepalived.
fn write_vrrp() {
    let adverts = include_str!("../../tests/golden/vrrp/adverts.txt");
    for (at, line) in adverts.lines().filter(|line| !line.starts_with('#')).enumerate() {
        let hex = line.rsplit(' ').next().unwrap_or_default();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let mut message: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        // Numbers 1 to 5 are the fuzzer's routers.
        message[1] = at as u8 % 5 + 1;
        write("vrrp", &format!("advert-{at:02}"), &vrrp_script(&message));
    }
}

/// Good answers to each kind of check, whole and in pieces.
fn write_checks() {
    let web = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready".as_slice();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\nA: b\r\n\r\n".as_slice();
    let mail = b"220-x\r\n220 y\r\n250 z\r\n221 bye\r\n".as_slice();
    // SETTINGS, HEADERS (200, application/grpc), DATA (SERVING), HEADERS (grpc-status 0, of no index).
    let call =
        b"\0\0\0\x04\0\0\0\0\0\0\0\x13\x01\x04\0\0\0\x01\x88\x5f\x10application/grpc\0\0\x07\0\0\0\0\0\x01\0\0\0\0\
        \x02\x08\x01\0\0\x0f\x01\x05\0\0\0\x01\0\x0bgrpc-status\x010";
    let name = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\
        \x02\x01";
    let framed = [&(name.len() as u16).to_be_bytes()[..], name].concat();
    let answers: [&[u8]; 8] = [web, &web.repeat(2), chunked, mail, call, &framed, name, b"pong"];
    for (kind, answer) in answers.iter().enumerate() {
        write("checks", &format!("answer-{kind}"), &[&[kind as u8, 3, 1][..], answer].concat());
    }
}

fn write_all() {
    write_vrrp();
    write_checks();
    let bases = bases();
    for (at, frame) in bases.iter().enumerate() {
        write("parse", &format!("base-{at:02}"), frame);
    }
    for (at, group) in bases.chunks(4).enumerate() {
        let mut script = vec![at as u8];
        for (step, frame) in group.iter().enumerate() {
            script.push(step as u8);
            script.extend_from_slice(&(frame.len() as u16).to_le_bytes());
            script.extend_from_slice(frame);
            // A batch, and what comes back for it.
            script.extend_from_slice(&[240, 220 + step as u8, at as u8, 240, [240, 207, 230, 218][step]]);
        }
        write("pipeline", &format!("script-{at:02}"), &script);
        let mut capture = vec![at as u8];
        capture.extend_from_slice(&pcap(group));
        write("replay", &format!("capture-{at:02}"), &capture);
    }
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    for entry in fs::read_dir(configs).expect("configs").flatten() {
        let text = fs::read(entry.path()).expect("config");
        write("config", &entry.file_name().to_string_lossy(), &text);
    }
    let imports = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/import");
    for entry in fs::read_dir(imports).expect("imports").flatten().filter(|entry| entry.path().is_file()) {
        let text = fs::read(entry.path()).expect("import");
        write("import", &entry.file_name().to_string_lossy(), &text);
    }
    write("config", "replay.toml", include_bytes!("../replay.toml"));
    for (name, line) in [
        ("status", r#"{"version":1,"command":"status"}"#),
        ("reload", r#"{"command":"reload","version":1}"#),
        ("near", r#"{"version":1,"command":"statsu"}"#),
        ("extra", r#"{"version":1,"command":"status","x":[1,null,"\u00e9"]}"#),
        ("array", "[]"),
        (
            "edit",
            r#"{"version":1,"command":"edit","options":{"edits":[{"do":"edit-server","server":"10.0.0.12","keys":{"weight":3}}]}}"#,
        ),
        (
            "add",
            r#"{"version":1,"command":"edit","options":{"edits":[{"do":"add-service","keys":{"address":"192.0.2.9","port":1}},{"do":"remove-service","service":"web"}]}}"#,
        ),
        (
            "table",
            r#"{"version":1,"command":"edit","options":{"dry_run":true,"edits":[{"do":"edit-table","table":"timeouts","keys":{"udp":null}}]}}"#,
        ),
    ] {
        write("request", name, line.as_bytes());
    }
    for (name, bytes) in [
        ("get", &b"\0GET /api/flows?limit=5&service=web HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"[..]),
        ("user", b"\x01GET /api/me HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\n\r\n"),
        (
            "post",
            b"\0POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 31\r\n\r\n{\"version\":1,\"command\":\"status\"}",
        ),
        ("probe", b"\0HEAD /healthz HTTP/1.0\r\n\r\n"),
    ] {
        write("http", name, bytes);
    }
    println!("seeds are in {}", folder("").display());
}

libfuzzer_sys::fuzz_target!(init: write_all(), |_unused: &[u8]| {});
