//! What is wrong on a segment is said once, counted for each time, shown in the status, and changes nothing.
//!
//! The real keepalived with settings that do not fit, and a stranger that sends what no router should.

mod lab_support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use etherparse::{IpNumber, PacketBuilder};
use evenkeel::lab::client::frames::Frames;
use evenkeel::lab::netlink::Cidr;
use evenkeel::lab::router::{RouterPlan, VrrpPlan};
use evenkeel::lab::site::{Family, SECOND, Site};
use evenkeel::model::MacAddr;
use lab_support::lab_is_possible;
use lab_support::vrrp::{PAIR, Pair, START, VRID, Who, keepalived_is_there};
use serde_json::Value as Json;

const INTERVAL: Duration = Duration::from_millis(100);

/// Evenkeel first, with the router that `change` leaves; keepalived second, with what `other` makes of the same.
fn pair(change: impl Fn(&mut RouterPlan), other: impl Fn(&mut RouterPlan)) -> Pair {
    let plan = |site: &Site, number: u8| {
        let mut router = RouterPlan::new("VI_1", "eth0", VRID, &[Cidr::new(site.vip(Family::V4), 24)]).fast(INTERVAL);
        change(&mut router);
        if number == 1 {
            other(&mut router);
        }
        VrrpPlan::one(router)
    };
    Pair::build(PAIR, [Who::Evenkeel, Who::Keepalived], |_, _| (), plan)
}

fn status(pair: &Pair) -> Json {
    let engine = pair.speakers[0].engine().expect("Evenkeel");
    pair.must(engine.status())["vrrp"].clone()
}

/// How often something was refused, with a router or before one was known.
fn refused(status: &Json, reason: &str) -> u64 {
    let count = |value: &Json| value[reason].as_u64().unwrap_or(0);
    count(&status["refused"]) + count(&status["routers"][0]["adverts"]["refused"])
}

fn evidence(status: &Json, kind: &str) -> u64 {
    let all = status["routers"][0]["evidence"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|note| note["kind"] == kind).filter_map(|note| note["count"].as_u64()).sum()
}

/// Waits until something was counted a few times, then holds the log to one line about it.
fn seen_and_said_once(pair: &Pair, what: &str, words: &str, count: impl Fn(&Json) -> u64) {
    let start = Instant::now();
    while count(&status(pair)) < 3 {
        if start.elapsed() > Duration::from_secs(8) {
            pair.fail(&format!("{what} was not counted: {}", status(pair)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    pair.await_words(0, words, Duration::from_secs(1));
    let lines = pair.speakers[0].log().lines().filter(|line| line.contains(words)).count();
    if lines != 1 {
        pair.fail(&format!("{what}: `{words}` is in {lines} lines of the log, 1 expected"));
    }
}

fn ready() -> bool {
    let speakers = std::env::var("EVENKEEL_LAB_SPEAKERS").is_ok();
    lab_is_possible() && keepalived_is_there() && !speakers
}

#[test]
fn a_wrong_password() {
    if !ready() {
        return;
    }
    let two = |router: &mut RouterPlan| {
        (router.version, router.interval) = (2, Duration::from_secs(1));
        router.password = Some("s3cret12".into());
    };
    let mut pair = pair(two, |router| (router.password, router.priority) = (Some("other".into()), 200));
    // keepalived first, while nobody disturbs it: an advert that it drops starts its own timer anew.
    pair.start(1);
    pair.await_master(1, START);
    pair.start(0);
    pair.await_words(0, "(VI_1) Entering MASTER STATE", START);
    seen_and_said_once(&pair, "a wrong password", "received an invalid passwd!", |status| {
        refused(status, "wrong-password").min(evidence(status, "wrong-password"))
    });
    assert_eq!(status(&pair)["routers"][0]["state"], "MASTER");
}

#[test]
fn another_list_of_addresses_and_a_number_that_is_used_twice() {
    if !ready() {
        return;
    }
    let other = |router: &mut RouterPlan| {
        router.priority = 200;
        router.addresses[0].cidr = "192.0.2.77/24".parse().unwrap();
    };
    let mut pair = pair(|_| (), other);
    pair.start(0);
    pair.await_words(0, "(VI_1) Entering BACKUP STATE (init)", START);
    pair.start(1);
    pair.await_master(1, START);
    seen_and_said_once(&pair, "another list", "ip address associated with VRID 51 not present", |status| {
        evidence(status, "address-list")
    });
    assert!(pair.speakers[0].log().contains("is the number used twice on this segment?"), "{}", pair.speakers[0].log());
    // Logged and taken, as keepalived does.
    assert_eq!(status(&pair)["routers"][0]["state"], "BACKUP");
    let master = &status(&pair)["routers"][0]["master"];
    let mac = pair.site.lab.mac(SECOND, "eth0").unwrap().to_string();
    assert_eq!((&master["address"], &master["mac"]), (&Json::from("192.0.2.2"), &Json::from(mac)), "{master}");
    assert_eq!((&master["ours"], &master["priority"]), (&Json::from(false), &Json::from(200)));
}

#[test]
fn another_interval() {
    if !ready() {
        return;
    }
    let mut pair = pair(|_| (), |router| (router.interval, router.priority) = (INTERVAL * 2, 200));
    pair.start(0);
    pair.await_words(0, "(VI_1) Entering BACKUP STATE (init)", START);
    pair.start(1);
    pair.await_master(1, START);
    seen_and_said_once(
        &pair,
        "another interval",
        "advertisement interval mismatch mine=100 ms rcv'd=200 ms",
        |status| evidence(status, "other-interval"),
    );
    // Version 3 goes by its master's interval: no quarrel.
    std::thread::sleep(INTERVAL * 6);
    assert_eq!(pair.watch.masters(VRID, INTERVAL * 5), [1]);
    assert_eq!(status(&pair)["routers"][0]["master"]["interval_ms"], 200);
}

/// An advert of version 3 in an Ethernet frame.
fn advert(
    macs: (MacAddr, MacAddr),
    ends: (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    vrid: u8,
    priority: u8,
    own: Ipv4Addr,
) -> Vec<u8> {
    let mut message = vec![0x31, vrid, priority, 1, 0, 10, 0, 0];
    message.extend(own.octets());
    let mut sum: u32 = 112 + message.len() as u32;
    let words = ends.0.octets().into_iter().chain(ends.1.octets()).chain(message.iter().copied()).collect::<Vec<u8>>();
    sum += words.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let builder = PacketBuilder::ethernet2(macs.0.0, macs.1.0).ipv4(ends.0.octets(), ends.1.octets(), ttl);
    let mut frame = Vec::new();
    builder.write(&mut frame, IpNumber(112), &message).unwrap();
    frame
}

/// A stranger on the second appliance's node, where no program runs.
struct Stranger {
    frames: Frames,
    mac: MacAddr,
}

impl Stranger {
    fn new(pair: &Pair) -> Stranger {
        let frames = Frames::open(pair.site.lab.node(SECOND).unwrap(), "eth0").unwrap();
        Stranger { frames, mac: pair.site.lab.mac(SECOND, "eth0").unwrap() }
    }

    /// Sends the same frame several times, in the pace of adverts.
    fn send(&self, frame: &[u8]) {
        for _ in 0..8 {
            self.frames.send(frame).unwrap();
            std::thread::sleep(INTERVAL / 2);
        }
    }
}

fn ipv4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address}"),
    }
}

#[test]
fn what_a_stranger_sends_is_counted_and_changes_nothing() {
    if !ready() {
        return;
    }
    let mut pair = pair(|router| router.priority = 150, |_| ());
    pair.start(0);
    pair.await_words(0, "(VI_1) Entering BACKUP STATE (init)", START);
    pair.await_master(0, START);
    let stranger = Stranger::new(&pair);
    let group = Ipv4Addr::new(224, 0, 0, 18);
    let macs = (stranger.mac, MacAddr([1, 0, 0x5e, 0, 0, 0x12]));
    let [own, theirs] = [0, 1].map(|number| ipv4(pair.site.address_of(number, Family::V4)));
    let vip = ipv4(pair.site.vip(Family::V4));

    stranger.send(&advert(macs, (theirs, group), 254, VRID, 200, vip));
    seen_and_said_once(&pair, "a TTL of 254", "invalid TTL/HL. Received 254 and expect 255", |status| {
        refused(status, "ttl")
    });
    let mut broken = advert(macs, (theirs, group), 255, VRID, 200, vip);
    *broken.last_mut().unwrap() ^= 1;
    stranger.send(&broken);
    seen_and_said_once(&pair, "a wrong checksum", "bad-checksum", |status| refused(status, "bad-checksum"));
    stranger.send(&advert(macs, (own, group), 255, VRID, 200, vip));
    seen_and_said_once(&pair, "our own address", "advert received from remote host with our IP address", |status| {
        refused(status, "same-source")
    });
    // Other people's routers are counted, and no news.
    stranger.send(&advert(macs, (theirs, group), 255, VRID + 1, 200, vip));
    let start = Instant::now();
    while refused(&status(&pair), "unknown-vrid") < 4 {
        assert!(start.elapsed() < Duration::from_secs(5), "{}", status(&pair));
        std::thread::sleep(INTERVAL);
    }
    assert!(!pair.speakers[0].log().contains("unknown-vrid"), "{}", pair.speakers[0].log());
    // One that does not hear us, and so is master beside us: it loses every time, and stays.
    stranger.send(&advert(macs, (theirs, group), 255, VRID, 50, vip));
    seen_and_said_once(&pair, "two masters", "two masters: 192.0.2.2", |status| evidence(status, "two-masters"));
    // A real server that answers for the service address.
    let mut claim = vec![0xff; 6];
    claim.extend(stranger.mac.0);
    claim.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    claim.extend(stranger.mac.0);
    claim.extend(vip.octets());
    claim.extend([0xff; 6]);
    claim.extend(vip.octets());
    stranger.send(&claim);
    let words = format!("{vip} is claimed by {}", stranger.mac);
    seen_and_said_once(&pair, "a claim of our address", &words, |status| evidence(status, "claimed"));

    let after = status(&pair);
    let router = &after["routers"][0];
    assert_eq!((&router["state"], &router["promotions"]), (&Json::from("MASTER"), &Json::from(1)), "{after}");
    let text = pair.must(pair.speakers[0].engine().unwrap().status_for_people());
    for word in ["claimed", "two masters", "MASTER"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn unicast_takes_nothing_from_anybody_but_its_peers() {
    if !ready() {
        return;
    }
    let mut pair = pair(
        |router| {
            router.source = Some("192.0.2.1".parse().unwrap());
            router.peers = vec!["192.0.2.77".parse().unwrap()];
        },
        |_| (),
    );
    pair.start(0);
    pair.await_words(0, "(VI_1) Entering BACKUP STATE (init)", START);
    // Its peer is nobody: it is master at once.
    pair.await_words(0, "(VI_1) Entering MASTER STATE", START);
    let stranger = Stranger::new(&pair);
    let mac = pair.site.lab.mac("appliance", "eth0").unwrap();
    let ends = (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 1));
    let vip = ipv4(pair.site.vip(Family::V4));
    stranger.send(&advert((stranger.mac, mac), ends, 255, VRID, 200, vip));
    seen_and_said_once(&pair, "not a peer", "unicast source address 192.0.2.2 not a unicast peer", |status| {
        refused(status, "not-a-peer")
    });
    let (group, group_mac) = (Ipv4Addr::new(224, 0, 0, 18), MacAddr([1, 0, 0x5e, 0, 0, 0x12]));
    stranger.send(&advert((stranger.mac, group_mac), (ends.0, group), 255, VRID, 200, vip));
    seen_and_said_once(&pair, "multicast", "Expected unicast packet but received multicast packet", |status| {
        refused(status, "destination")
    });
    assert_eq!(status(&pair)["routers"][0]["state"], "MASTER");
}
