//! Access lists end to end: who is denied cannot connect, who is allowed inside can, and a reload changes it.

mod lab_support;

use std::time::Duration;

use evenkeel::lab::client::http;
use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::site::{APPLIANCE, Family};
use evenkeel::model::{IoMode, Method};
use lab_support::lab_is_possible;
use lab_support::rig::{Rig, WEB, Wish};

/// How long a client waits that is not to get an answer.
const SHORT: Duration = Duration::from_millis(700);

fn connects(rig: &Rig) -> bool {
    let target = rig.target(WEB);
    rig.client().run(|| http::get(target, "/", SHORT)).unwrap().is_ok()
}

/// Frames that the filters dropped.
fn denied(rig: &Rig) -> u64 {
    let status = rig.engine.status().unwrap();
    let interfaces = status["interfaces"].as_array().unwrap();
    interfaces.iter().map(|interface| interface["filter_denied"].as_u64().unwrap()).sum()
}

/// The client's network and the client alone, as prefixes.
fn prefixes(rig: &Rig) -> (String, String) {
    let client = rig.site.client_address(rig.wish.family);
    let network = rig.site.clients_network(rig.wish.family);
    let masked: evenkeel::model::Prefix = match format!("{}/{}", network.address, network.prefix).parse() {
        Ok(prefix) => prefix,
        Err(evenkeel::model::PrefixError::HostBits { network, .. }) => network,
        Err(error) => panic!("{error}"),
    };
    (masked.to_string(), client.to_string())
}

fn is_judged(method: Method, family: Family, mode: Option<IoMode>) {
    if !lab_is_possible() {
        return;
    }
    let mut stand = Wish::new(method, family).build();
    if let Some(mode) = mode {
        stand.config.set("engine", "mode", mode.name());
        if mode == IoMode::AfPacket {
            // Without XDP the kernel sees every packet too, and must not forward any.
            for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                stand.site.lab.setting(APPLIANCE, key, "0").unwrap();
            }
        }
    }
    let rig = stand.start();
    let (network, client) = prefixes(&rig);
    assert!(connects(&rig), "without lists\n{}", rig.story());
    assert_eq!(denied(&rig), 0);
    let streams = Streams::open(rig.client(), rig.target(WEB), Speech::Http, 2, Duration::from_millis(50)).unwrap();
    assert!(streams.settled(Duration::from_secs(5)), "{}", rig.story());

    // The client's network in a file. What is established ends as well.
    let list = rig.site.lab.path("deny.txt");
    std::fs::write(&list, format!("# the clients' network\n\n203.0.113.0/24\n{network} ; all of it\n")).unwrap();
    let mut config = rig.config.clone();
    config.set("access", "deny_files", vec![list.display().to_string()]);
    rig.engine.reload(&config).unwrap();
    assert!(!connects(&rig), "{network} is denied\n{}", rig.story());
    let dropped = denied(&rig);
    assert!(dropped > 0, "{}", rig.story());
    let said = rig.engine.status_for_people().unwrap();
    assert!(said.contains("frames of clients that the access lists deny were dropped"), "{said}");
    let exchanges = streams.exchanges();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(streams.exchanges(), exchanges, "established connections of a denied client stop\n{}", rig.story());
    drop(streams);

    // The client alone is allowed inside.
    config.set("access", "allow", vec![client]);
    rig.engine.reload(&config).unwrap();
    assert!(connects(&rig), "the longer prefix decides\n{}", rig.story());

    // A mistake in the file changes nothing, and is named with its place.
    std::fs::write(&list, format!("{network}\n192.0.2.1/24\n")).unwrap();
    let error = rig.engine.reload(&config).expect_err("a bad list was taken").to_string();
    assert!(error.contains("deny.txt:2:1") && error.contains("the network is `192.0.2.0/24`"), "{error}");
    assert!(connects(&rig), "nothing changed\n{}", rig.story());

    // The file is read again, and then only what is on the allow list may come.
    std::fs::write(&list, "").unwrap();
    config.set("access", "default", "deny");
    rig.engine.reload(&config).unwrap();
    assert!(connects(&rig), "the client is on the allow list\n{}", rig.story());
    config.set("access", "allow", vec!["203.0.113.7", "2001:db8:ffff::7"]);
    rig.engine.reload(&config).unwrap();
    assert!(!connects(&rig), "the client is not on the allow list\n{}", rig.story());
    assert!(denied(&rig) > dropped);

    // No lists.
    rig.engine.reload(&rig.config).unwrap();
    assert!(connects(&rig), "without lists again\n{}", rig.story());
}

#[test]
fn by_direct_routing() {
    is_judged(Method::Dr, Family::V4, None);
}

#[test]
fn by_nat_over_ipv6() {
    is_judged(Method::Nat, Family::V6, None);
}

/// The servers answer to local addresses, which are taken like services: they are not judged.
#[test]
fn by_full_nat() {
    is_judged(Method::FullNat, Family::V4, None);
}

#[test]
fn in_generic_mode() {
    is_judged(Method::Dr, Family::V6, Some(IoMode::Generic));
}

#[test]
fn without_xdp() {
    is_judged(Method::Nat, Family::V4, Some(IoMode::AfPacket));
}
