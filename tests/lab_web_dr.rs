//! The deployment `web-dr` with its `ipvsadm`; and who else answers for a service address: a real server is named, a
//! stranger's Ethernet address is.

mod lab_support;

use std::time::Duration;

use evenkeel::lab::netlink::Cidr;
use evenkeel::lab::scenario;
use evenkeel::lab::site::{CLIENT, Family};
use lab_support::{lab_is_possible, must_pass, set};
use serde_json::Value as Json;

/// Rounds of questions are 5 s apart, and a stranger must have answered in two.
const NOTICE: Duration = Duration::from_secs(60);

fn claims(status: &Json) -> Vec<String> {
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    let texts = warnings.iter().filter_map(|text| text.as_str().map(str::to_owned));
    texts.filter(|text| text.contains("answers ARP")).collect()
}

#[test]
fn web_dr_by_ipvsadm() {
    if lab_is_possible() {
        let report = must_pass(&set(scenario::find("web-dr").unwrap()), Duration::ZERO);
        println!("{report}");
    }
}

#[test]
fn a_server_and_a_stranger_that_answer_for_the_service_address_are_told_apart() {
    if !lab_is_possible() {
        return;
    }
    let stage = set(scenario::find("web-dr-one-arm").unwrap());
    let await_claims = |what: &str, wanted: &dyn Fn(&[String]) -> bool| {
        let status = stage.engine.await_status(NOTICE, what, |status| wanted(&claims(status)));
        claims(&status.unwrap_or_else(|error| panic!("{error}")))
    };
    assert_eq!(claims(&stage.engine.status().unwrap()), Vec::<String>::new());
    let (server, vip) = (&stage.site.servers[1], stage.site.vip(Family::V4));
    let arp_ignore = |value: &str| stage.site.lab.setting(&server.name, "net/ipv4/conf/all/arp_ignore", value).unwrap();
    arp_ignore("0");
    stage.site.lab.address(CLIENT, "eth0", Cidr::host(vip)).unwrap();
    let said = await_claims("both that answer ARP", &|said| said.len() == 2);
    let stranger = stage.site.lab.mac(CLIENT, "eth0").unwrap().to_string();
    let named = said.iter().find(|text| text.starts_with(&format!("server {} (of transfer, web; ", server.v4)));
    assert!(named.is_some_and(|text| text.contains(&vip.to_string()) && text.contains("arp_ignore=1")), "{said:?}");
    let strange = said.iter().find(|text| text.starts_with("another host"));
    assert!(strange.is_some_and(|text| text.contains(&stranger) && text.contains(&vip.to_string())), "{said:?}");
    arp_ignore("1");
    let said = await_claims("the server's silence", &|said| said.len() < 2);
    assert!(said[0].contains(&stranger), "{said:?}");
    let log = stage.engine.process().output();
    let of_server = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    let who = format!("server {} (of ", server.v4);
    assert_eq!((of_server(&who), of_server("answers ARP for"), of_server("no longer")), (2, 3, 1), "{log}");
}
