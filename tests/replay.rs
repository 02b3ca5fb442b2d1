//! `evenkeel replay` from outside: on time, on fragments, on bad input.

mod replay_support;

use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use replay_support::{CONFIG, Scratch, lines, read, replay, text};
use serde_json::Value;
use std::time::Duration;

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

/// Fragments of a datagram to the DNS service: each with its offset in units of eight bytes, and whether more follow.
fn fragment(offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = udp(7)[..34].to_vec();
    frame[16..18].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    frame[18..20].copy_from_slice(&[0x77, 0x77]);
    frame[20..22].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
    frame[24..26].fill(0);
    let check = evenkeel::dataplane::checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&check.to_ne_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn fragments_that_waited_leave_behind_the_one_they_waited_for() {
    let scratch = Scratch::new("fragments");
    let config = scratch.file("config.toml", CONFIG);
    let mut datagram = udp(7)[34..42].to_vec();
    datagram[4..6].copy_from_slice(&72u16.to_be_bytes());
    datagram.resize(72, 5);
    // The second and third come first; then one of another packet, whose first one never comes.
    let mut lost = fragment(1, false, &[9; 8]);
    lost[18] = 0x78;
    lost[24] = lost[24].wrapping_sub(1);
    let frames = vec![
        (0, fragment(6, false, &datagram[48..])),
        (0, fragment(3, true, &datagram[24..48])),
        (1, lost),
        (2, fragment(0, true, &datagram[..24])),
        (3, udp(8)),
    ];
    let input = scratch.capture("in.pcap", &frames);
    let out = scratch.0.join("out.pcap");
    let args = ["--config", text(&config), "--in", text(&input), "--out", text(&out)];
    let result = lines(&replay(&[&args[..], &["--json"]].concat()));
    let seen: Vec<(u64, &str, bool)> = result
        .iter()
        .map(|l| {
            let verdict = l["verdict"].as_str().expect("a word");
            (l["frame"].as_u64().expect("a number"), verdict, l["extra"] == true)
        })
        .collect();
    let expected = [
        (1, "kept", false),
        (2, "kept", false),
        (3, "kept", false),
        (4, "tx", false),
        (4, "tx", true),
        (4, "tx", true),
        (5, "tx", false),
    ];
    assert_eq!(seen, expected);
    let sent: Vec<Vec<u8>> = read(&out).into_iter().map(|(_, frame)| frame[34..].to_vec()).collect();
    let whole = [&datagram[..24], &datagram[48..], &datagram[24..48], &udp(8)[34..]];
    assert_eq!(sent, whole, "in the order in which they came");
    let summary = String::from_utf8(replay(&args).stdout).expect("UTF-8");
    for line in ["5 frames", "4 tx", "3 kept", "1 drop", "1   fragment-timeout"] {
        assert!(summary.lines().any(|l| l.trim_start().starts_with(line)), "{line}: {summary}");
    }
}

#[test]
fn pieces_of_what_does_not_fit_leave_in_order() {
    let scratch = Scratch::new("pieces");
    let config = scratch.file("config.toml", CONFIG);
    let mut large = udp(9);
    large.truncate(42);
    large.extend((0..2000u32).map(|n| n as u8));
    large[16..18].copy_from_slice(&2028u16.to_be_bytes());
    large[38..42].copy_from_slice(&[0x07, 0xd8, 0, 0]);
    large[20] = 0;
    large[24..26].fill(0);
    let check = evenkeel::dataplane::checksum::checksum(&large[14..34]);
    large[24..26].copy_from_slice(&check.to_ne_bytes());
    let mut whole = large.clone();
    whole[20] = 0x40;
    whole[24..26].fill(0);
    let check = evenkeel::dataplane::checksum::checksum(&whole[14..34]);
    whole[24..26].copy_from_slice(&check.to_ne_bytes());
    let input = scratch.capture("in.pcap", &[(0, large.clone()), (0, udp(8)), (1, whole)]);
    let out = scratch.0.join("out.pcap");
    let args = ["--config", text(&config), "--in", text(&input), "--out", text(&out), "--json", "--mtu", "eth0=1000"];
    let result = lines(&replay(&args));
    let verdicts: Vec<(u64, &str)> =
        result.iter().map(|l| (l["frame"].as_u64().expect("number"), l["verdict"].as_str().expect("word"))).collect();
    // With "don't fragment", the sender is told.
    assert_eq!(verdicts, [(1, "tx"), (1, "tx"), (1, "tx"), (2, "tx"), (3, "reply")]);
    let sent: Vec<Vec<u8>> = read(&out).into_iter().map(|(_, frame)| frame).collect();
    assert!(sent.iter().all(|frame| frame.len() <= 1014));
    let rest: Vec<u8> = sent[..3].iter().flat_map(|frame| frame[34..].to_vec()).collect();
    assert_eq!(rest, large[34..]);
    assert_eq!(sent[3][34..], udp(8)[34..]);
}

/// Stamps of pcapng files have the unit that each interface says; microseconds where it says none.
#[test]
fn stamps_of_pcapng_files_have_their_interfaces_unit() {
    let scratch = Scratch::new("units");
    let config = scratch.file("config.toml", CONFIG);
    for (option, units) in [(None, 1_000_000), (Some(9), 1_000_000_000), (Some(3), 1000), (Some(0x80 | 10), 1024)] {
        let path = scratch.0.join("in.pcapng");
        let mut writer = PcapNgWriter::new(std::fs::File::create(&path).expect("creates")).expect("header");
        let options = option.map(InterfaceDescriptionOption::IfTsResol).into_iter().collect();
        let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
        writer.write_block(&interface.into_block()).expect("writes");
        for seconds in [5, 905] {
            let data = udp(3);
            let block = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::from_nanos(seconds * units),
                original_len: data.len() as u32,
                data: data.into(),
                options: Vec::new(),
            };
            writer.write_block(&block.into_block()).expect("writes");
        }
        drop(writer);
        let result = lines(&replay(&["--config", text(&config), "--in", text(&path), "--json"]));
        let seen: Vec<(f64, bool)> =
            result.iter().map(|l| (l["time"].as_f64().expect("seconds"), l["new"] == true)).collect();
        assert_eq!(seen, [(5.0, true), (905.0, true)], "{option:?}");
    }
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
    let cases: [(&[&str], &str); 8] = [
        (&["--config", text(&broken), "--in", text(&good)], "did you mean `address`"),
        (&["--config", "/nonexistent.toml", "--in", text(&good)], "/nonexistent.toml"),
        (&["--config", text(&config), "--in", "/nonexistent.pcap"], "/nonexistent.pcap"),
        (&["--config", text(&config), "--in", text(&garbage)], "expected a pcap or pcapng file"),
        (&["--config", text(&config), "--in", text(&empty)], "expected a pcap or pcapng file"),
        (&["--config", text(&config), "--in", text(&cut)], "frame 1"),
        (&["--config", text(&config), "--in", text(&good), "--mac", "eth7=02:00:00:00:00:01"], "eth7"),
        (&["--config", text(&config), "--in", text(&good), "--mtu", "eth8=1500"], "eth8"),
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
