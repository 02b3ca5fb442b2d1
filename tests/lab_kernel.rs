//! The engine and the kernel on one interface: what is not for a service stays the kernel's, in life and after death.

mod lab_support;

use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::lab::client::frames::Frames;
use evenkeel::lab::client::load::{LoadPlan, requests};
use evenkeel::lab::client::ping::ping;
use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::netlink::Rtnl;
use evenkeel::lab::scenario::{HTTP, Stage, find};
use evenkeel::lab::server::hash;
use evenkeel::lab::site::{APPLIANCE, CLIENT, Family, Site};
use evenkeel::model::IoMode;
use lab_support::{lab_is_possible, options, set};

const PATIENCE: Duration = Duration::from_secs(3);
const SSH: u16 = 22;

fn has_xdp(site: &Site) -> bool {
    site.lab.node(APPLIANCE).unwrap().run(|| Rtnl::open()?.has_xdp("eth0")).unwrap().unwrap()
}

fn pings(site: &Site, target: IpAddr) -> bool {
    site.lab.node(CLIENT).unwrap().run(|| ping(target, 1000, PATIENCE)).unwrap().is_ok()
}

/// However the engine ends, the interface is as before: no program, and the kernel has all its packets.
fn ends_without_a_trace(mode: Option<IoMode>, end: impl FnOnce(&Stage)) {
    let mut options = options();
    options.mode = mode;
    let stage = Stage::set(find("web-dr-one-arm").unwrap(), &options).unwrap_or_else(|error| panic!("{error}"));
    let (site, own) = (&stage.site, stage.site.appliance_address(Family::V4));
    assert_eq!(has_xdp(site), mode != Some(IoMode::AfPacket));
    let plan = LoadPlan::new(site.vip_port(Family::V4, HTTP));
    let tally = requests(site.lab.node(CLIENT).unwrap(), &plan, 6).unwrap();
    assert_eq!(tally.failures, 0, "{:?}", tally.reasons);

    end(&stage);
    assert!(stage.engine.process().ended().is_some());
    // The kernel takes the program off when the last reference goes, which may be just after the process.
    let start = Instant::now();
    while has_xdp(site) && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!has_xdp(site), "the XDP program is still attached");
    assert!(pings(site, own), "the appliance's own address is silent");
    assert!(pings(site, site.appliance_address(Family::V6)));
    let gone = LoadPlan { timeout: Duration::from_millis(300), ..plan };
    let client = site.lab.node(CLIENT).unwrap();
    assert_eq!(requests(client, &gone, 1).unwrap().failures, 1, "something still forwards");
}

fn kill(stage: &Stage) {
    stage.engine.process().kill();
}

#[test]
fn killed_in_copy_mode() {
    if lab_is_possible() {
        ends_without_a_trace(None, kill);
    }
}

#[test]
fn killed_in_generic_mode() {
    if lab_is_possible() {
        ends_without_a_trace(Some(IoMode::Generic), kill);
    }
}

#[test]
fn killed_in_af_packet_mode() {
    if lab_is_possible() {
        ends_without_a_trace(Some(IoMode::AfPacket), kill);
    }
}

#[test]
fn asked_to_end() {
    if lab_is_possible() {
        ends_without_a_trace(None, |stage| {
            let status = stage.engine.process().stop();
            assert!(status.success(), "{status}: {}", stage.engine.process().last_words(10));
        });
    }
}

/// A long session with the appliance itself, as an operator's SSH, crosses the filter untouched.
#[test]
fn a_session_with_the_appliance_itself_passes() {
    if !lab_is_possible() {
        return;
    }
    let mut stage = set(find("web-dr-one-arm").unwrap());
    let own = stage.site.appliance_address(Family::V4);
    hash::start(&mut stage.site, APPLIANCE, own, SSH).unwrap();
    let client = stage.site.lab.node(CLIENT).unwrap();
    let speech = Speech::Hash(20_000);
    let session = Streams::open(client, (own, SSH).into(), speech, 2, Duration::from_millis(1)).unwrap();
    let tally = requests(client, &LoadPlan::new(stage.site.vip_port(Family::V4, HTTP)), 30).unwrap();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(session.broken(), Vec::<String>::new());
    assert_eq!(session.by_server().into_iter().collect::<Vec<_>>(), [(APPLIANCE.to_owned(), 2)]);
    assert!(session.exchanges() > 50);
    assert_eq!(tally.failures, 0, "{:?}", tally.reasons);
}

/// An ARP question for the service address has one answer, with the appliance's MAC; for others, the kernel's.
#[test]
fn arp_for_the_service_address_is_answered_once() {
    if !lab_is_possible() {
        return;
    }
    let stage = set(find("web-dr-one-arm").unwrap());
    let site = &stage.site;
    let appliance = site.lab.mac(APPLIANCE, "eth0").unwrap();
    let client = site.lab.mac(CLIENT, "eth0").unwrap();
    let mut frames = Frames::open(site.lab.node(CLIENT).unwrap(), "eth0").unwrap();
    for target in [site.vip(Family::V4), site.appliance_address(Family::V4)] {
        let (IpAddr::V4(own), IpAddr::V4(asked)) = (site.client_address(Family::V4), target) else { unreachable!() };
        let mut question = vec![0xff; 6];
        question.extend(client.0);
        question.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
        question.extend(client.0);
        question.extend(own.octets());
        question.extend([0; 6]);
        question.extend(asked.octets());
        frames.send(&question).unwrap();
        let is_answer = |frame: &[u8]| {
            frame.len() >= 42
                && frame[12..14] == [0x08, 0x06]
                && frame[20..22] == [0, 2]
                && frame[28..32] == asked.octets()
        };
        let answer = frames.receive(PATIENCE, is_answer).unwrap_or_else(|| panic!("no answer for {asked}"));
        assert_eq!(answer[22..28], appliance.0, "{asked} is at another MAC");
        assert_eq!(answer[..6], client.0);
        assert_eq!(answer[6..12], appliance.0);
        let another = frames.receive(Duration::from_millis(200), is_answer);
        assert!(another.is_none(), "two answers for {asked}");
    }
}

#[test]
fn both_addresses_answer_ping_and_nd() {
    if !lab_is_possible() {
        return;
    }
    for (name, family) in [("web-dr-one-arm", Family::V4), ("web-dr-ipv6", Family::V6)] {
        let stage = set(find(name).unwrap());
        assert!(pings(&stage.site, stage.site.vip(family)), "{}", stage.site.vip(family));
        assert!(pings(&stage.site, stage.site.appliance_address(family)));
    }
}

/// A sender that leaves checksums to its network card: its connections are not carried broken to a server but dropped
/// by name, and both the log and the status say what to do.
#[test]
fn partial_checksums_are_detected_and_named() {
    if !lab_is_possible() {
        return;
    }
    let stage = set(find("web-dr-one-arm").unwrap());
    // Both ends that send towards the appliance: a bridge completes what its port would not.
    for (node, interface) in [(CLIENT, "eth0"), ("lan", "appliance-eth0")] {
        let mut offload = Command::new("ethtool");
        offload.args(["-K", interface, "tx", "on"]);
        stage.site.lab.output(node, &offload).unwrap();
    }
    let plan = LoadPlan { timeout: Duration::from_millis(300), ..LoadPlan::new(stage.site.vip_port(Family::V4, HTTP)) };
    let client = stage.site.lab.node(CLIENT).unwrap();
    assert_eq!(requests(client, &plan, 1).unwrap().failures, 1);
    let status = stage.engine.status().unwrap();
    assert!(status["drops"]["partial-checksum"].as_u64().unwrap() > 0, "{}", status["drops"]);
    assert!(status["warnings"].to_string().contains("ethtool -K DEVICE tx off"), "{}", status["warnings"]);
    let start = Instant::now();
    while !stage.engine.process().output().contains("(partial-checksum)") && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(20));
    }
    let log = stage.engine.process().output();
    assert_eq!(log.matches("(partial-checksum)").count(), 1, "logged once:\n{log}");
}
