//! `evenkeel doctor` on a sound appliance, and on one with a fault: it is named, and its command heals it. `evenkeel realserver
//! prepare` ends the ARP problem, the engine serves by servers that it prepared, and `undo` leaves nothing.

mod lab_support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel::control::claims;
use evenkeel::lab::client::frames::Frames;
use evenkeel::lab::client::http;
use evenkeel::lab::engine::{Engine, EngineConfig};
use evenkeel::lab::keepalived::Keepalived;
use evenkeel::lab::netlink::Cidr;
use evenkeel::lab::process::Process;
use evenkeel::lab::router::{RouterPlan, VrrpPlan};
use evenkeel::lab::scenario::{HTTP, START, base_config};
use evenkeel::lab::server::nginx;
use evenkeel::lab::site::{APPLIANCE, CLIENT, Family, Reach, SECOND, Shape, Site, SiteOptions};
use evenkeel::model::{MacAddr, Protocol};
use lab_support::{lab_is_possible, program};
use serde_json::Value as Json;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs this program inside a node to its end: whether it succeeded, and what it printed.
fn run(site: &Site, node: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program());
    command.args(arguments);
    let name = format!("{node}-{}", arguments[..2].join("-").replace('/', "_"));
    let process = site.lab.start(node, &name, &command).unwrap();
    let status = process.wait(PATIENCE).unwrap();
    (status.success(), process.output())
}

fn shell(site: &Site, node: &str, words: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", words]);
    site.lab.output(node, &command).unwrap_or_else(|error| panic!("{words}: {error}"))
}

fn write_config(site: &Site, config: &EngineConfig) -> PathBuf {
    let mut config = EngineConfig::parse(&config.to_toml()).unwrap();
    let path = |name: &str| site.lab.path(name).display().to_string();
    config.set("control", "socket", path("nobody.sock")).set("control", "state", path("nobody.json"));
    let file = site.lab.path("doctor.toml");
    fs::write(&file, config.to_toml()).unwrap();
    file
}

struct Doctor<'s> {
    site: &'s Site,
    file: PathBuf,
}

impl Doctor<'_> {
    fn all(&self, more: &[&str]) -> (bool, Vec<Json>) {
        let file = self.file.display().to_string();
        let arguments = [&["doctor", "--json", "--config", &file], more].concat();
        let (ok, text) = run(self.site, APPLIANCE, &arguments);
        let json: Json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(json["ok"], ok, "{text}");
        (ok, json["findings"].as_array().cloned().unwrap_or_default())
    }

    /// The findings of that name that are not fine.
    fn faults(&self, id: &str, more: &[&str]) -> Vec<Json> {
        let (_, all) = self.all(more);
        all.into_iter().filter(|finding| finding["id"] == id && finding["level"] != "ok").collect()
    }

    /// The one finding of that name, which has this level and a part of this text.
    fn must_find(&self, id: &str, level: &str, part: &str, more: &[&str]) -> Json {
        let (ok, all) = self.all(more);
        let found: Vec<&Json> = all.iter().filter(|finding| finding["id"] == id && finding["level"] != "ok").collect();
        let [one] = found[..] else { panic!("{id}: {all:#?}") };
        assert_eq!(one["level"], level, "{one}");
        assert!(one.to_string().contains(part), "{part}: {one}");
        assert!(!one["why"].as_str().unwrap().is_empty());
        assert_eq!(ok, !all.iter().any(|finding| finding["level"] == "problem"));
        one.clone()
    }

    /// Does what the finding says, and it is gone.
    fn heal(&self, id: &str, finding: &Json) {
        shell(self.site, APPLIANCE, finding["command"].as_str().unwrap());
        let left = self.faults(id, &[]);
        assert!(left.is_empty(), "{left:?}");
    }
}

fn two_arms() -> (Site, EngineConfig) {
    let site = Site::build(SiteOptions { shape: Shape::TwoArm, servers: 2, ..SiteOptions::USUAL }).unwrap();
    let mut config = base_config(&site, Family::V4);
    let servers: Vec<(IpAddr, u16)> = site.servers.iter().map(|server| (server.v4, 1)).collect();
    config.service("web", site.vip(Family::V4), Protocol::Tcp, "80", "rr", &servers);
    (site, config)
}

#[test]
fn a_sound_appliance_has_no_problem_and_each_fault_is_named_and_healed() {
    if !lab_is_possible() {
        return;
    }
    let (site, config) = two_arms();
    let doctor = Doctor { site: &site, file: write_config(&site, &config) };
    let (ok, all) = doctor.all(&[]);
    assert!(ok, "{all:#?}");
    let fine = |id: &str| all.iter().any(|finding| finding["id"] == id && finding["level"] == "ok");
    for id in ["af-xdp", "link", "queues", "address-in-kernel", "rp-filter", "server", "path-mtu"] {
        assert!(fine(id), "{id}: {all:#?}");
    }

    site.lab.setting(APPLIANCE, "net/ipv4/conf/all/rp_filter", "1").unwrap();
    let both = doctor.faults("rp-filter", &["--quiet"]);
    assert_eq!(both.len(), 2, "{both:?}");
    shell(&site, APPLIANCE, both[0]["command"].as_str().unwrap());
    shell(&site, APPLIANCE, both[1]["command"].as_str().unwrap());
    assert!(doctor.faults("rp-filter", &["--quiet"]).is_empty());

    site.lab.rtnl(APPLIANCE, |rtnl| rtnl.set_up("eth1", false)).unwrap();
    let found = doctor.must_find("link-down", "problem", "eth1", &["--quiet"]);
    doctor.heal("link-down", &found);

    shell(&site, APPLIANCE, "ip link set eth1 mtu 1400");
    let found = doctor.must_find("mtu-differs", "warning", "eth1", &["--quiet"]);
    doctor.heal("mtu-differs", &found);

    let vip = site.vip(Family::V4);
    site.lab.address(APPLIANCE, "eth0", Cidr::new(vip, 24)).unwrap();
    let found = doctor.must_find("address-in-kernel", "problem", &vip.to_string(), &["--quiet"]);
    doctor.heal("address-in-kernel", &found);

    shell(&site, APPLIANCE, "ethtool -K eth0 rxvlan on");
    let found = doctor.must_find("rx-vlan", "note", "eth0", &["--quiet"]);
    doctor.heal("rx-vlan", &found);

    let server = &site.servers[0];
    shell(&site, &server.name, "ip link set eth0 mtu 1300");
    doctor.must_find("path-mtu", "warning", &server.v4.to_string(), &[]);
    shell(&site, &server.name, "ip link set eth0 mtu 1500 && ip link set eth0 down");
    shell(&site, APPLIANCE, "ip neigh flush dev eth1");
    doctor.must_find("server-unreachable", "warning", &server.v4.to_string(), &[]);
    shell(&site, &server.name, "ip link set eth0 up");
    assert!(doctor.faults("server-unreachable", &[]).is_empty());

    let missing = run(&site, APPLIANCE, &["doctor", "--quiet", "--interface", "eth7"]);
    assert!(!missing.0 && missing.1.contains("eth7: there is no such interface"), "{}", missing.1);
}

/// With one arm, the kernel must not send the servers past the appliance.
#[test]
fn redirects_to_nat_servers_on_one_wire_are_seen_and_ended() {
    if !lab_is_possible() {
        return;
    }
    let site = Site::build(SiteOptions { reach: Reach::Nat, servers: 1, ..SiteOptions::USUAL }).unwrap();
    let mut config = base_config(&site, Family::V4);
    let (server, vip, client) = (&site.servers[0], site.vip(Family::V4), site.client_address(Family::V4));
    config.service("web", vip, Protocol::Tcp, "80", "rr", &[(server.v4, 1)]);
    config.change_service("web", "method", "nat");
    config.owned(site.gateway(Family::V4));
    shell(&site, APPLIANCE, "sysctl -w net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=1");
    // Redirects count only from the router that a host uses: here an address of the appliance's kernel.
    let (IpAddr::V4(own), IpAddr::V4(near)) = (site.appliance_address(Family::V4), server.v4) else { unreachable!() };
    let [a, b, c, _] = near.octets();
    shell(&site, &server.name, &format!("ip route replace default via {a}.{b}.{c}.{}", own.octets()[3]));
    let doctor = Doctor { site: &site, file: write_config(&site, &config) };
    let found = doctor.must_find("redirects", "warning", "hang", &[]);

    let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
    engine.await_ready(START).unwrap();
    let past = || shell(&site, &server.name, &format!("ip route get {client}")).contains("<redirected>");
    let ping = || drop(shell(&site, &server.name, &format!("ping -c 2 -i 0.2 -W 5 {client} || true")));
    // The server believes it once it has seen the client itself; the kernel tells it again after a while.
    let start = Instant::now();
    while !past() {
        assert!(start.elapsed() < PATIENCE, "the kernel's redirect is what it is about");
        ping();
        std::thread::sleep(Duration::from_millis(300));
    }
    engine.process().stop();
    doctor.heal("redirects", &found);
    shell(&site, &server.name, "ip route flush cache");
    let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
    engine.await_ready(START).unwrap();
    for _ in 0..5 {
        ping();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!past());
}

#[test]
fn somebody_elses_filter_and_the_modes_that_are_to_be_had() {
    if !lab_is_possible() {
        return;
    }
    let (site, config) = two_arms();
    let doctor = Doctor { site: &site, file: write_config(&site, &config) };
    let (ok, all) = doctor.all(&["--quiet", "--probe"]);
    let trials: Vec<&Json> = all.iter().filter(|finding| finding["id"] == "trial").collect();
    assert!(ok && trials.len() == 2 && trials[0]["found"].as_str().unwrap().starts_with("eth0: "), "{all:#?}");
    let mut attached = false;
    site.lab.rtnl(APPLIANCE, |rtnl| rtnl.has_xdp("eth0").map(|has| attached = has)).unwrap();
    assert!(!attached, "the trial's filter stays");
    // Another engine, which does not answer on this configuration's socket.
    let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
    engine.await_ready(START).unwrap();
    let found = doctor.faults("xdp-occupied", &["--quiet"]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0]["command"].as_str().unwrap().starts_with("ip link set dev eth0 xdp"), "{found:?}");
    engine.process().stop();
    assert!(doctor.faults("xdp-occupied", &["--quiet"]).is_empty());
}

#[test]
fn a_keepalived_with_the_same_number_is_heard() {
    if !lab_is_possible() || evenkeel::lab::process::program("keepalived").is_none() {
        return;
    }
    let site = Site::build(SiteOptions { appliances: 2, servers: 2, ..SiteOptions::USUAL }).unwrap();
    let mut config = base_config(&site, Family::V4);
    let servers: Vec<(IpAddr, u16)> = site.servers.iter().map(|server| (server.v4, 1)).collect();
    let vip = site.vip(Family::V4);
    config.service("web", vip, Protocol::Tcp, "80", "rr", &servers);
    let plan = |address: IpAddr, priority: u8| {
        let mut router = RouterPlan::new("VI_1", "eth0", 51, &[Cidr::new(address, 24)]);
        router.priority = priority;
        VrrpPlan::one(router)
    };
    plan(vip, 150).evenkeel(&mut config);
    let doctor = Doctor { site: &site, file: write_config(&site, &config) };
    assert!(doctor.must_find("listen", "note", "--listen 5", &["--quiet"])["command"].is_string());
    let stranger: IpAddr = "192.0.2.77".parse().unwrap();
    let keepalived = Keepalived::start(&site.lab, SECOND, &plan(stranger, 100).keepalived()).unwrap();
    await_words(keepalived.process(), "Entering MASTER STATE");
    let found = doctor.must_find("vrid-taken", "problem", "192.0.2.77", &["--quiet", "--listen", "4"]);
    assert!(found["command"].as_str().unwrap().starts_with("write `vrid = "), "{found}");
    // keepalived of another namespace is not one of this machine.
    assert!(doctor.faults("keepalived", &["--quiet"]).is_empty());
    keepalived.process().stop();
    let keepalived = Keepalived::start(&site.lab, SECOND, &plan(vip, 100).keepalived()).unwrap();
    await_words(keepalived.process(), "Entering MASTER STATE");
    doctor.must_find("vrrp-peer", "note", "with priority 100", &["--quiet", "--listen", "4"]);
}

fn await_words(process: &Process, words: &str) {
    let start = Instant::now();
    while !process.output().contains(words) {
        assert!(start.elapsed() < PATIENCE && process.ended().is_none(), "{}", process.last_words(20));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Who answers when the client asks for an address.
fn owners(site: &Site, address: IpAddr) -> BTreeSet<MacAddr> {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    let mut frames = Frames::open(site.lab.node(CLIENT).unwrap(), "eth0").unwrap();
    let mac = site.lab.mac(CLIENT, "eth0").unwrap();
    let mut owners = BTreeSet::new();
    for _ in 0..3 {
        frames.send(&claims::probe(address, mac, None)).unwrap();
        frames.receive(Duration::from_millis(400), |frame| {
            owners.extend(claims::answer(frame).filter(|(of, _)| *of == address).map(|(_, mac)| mac));
            false
        });
    }
    owners
}

/// Takes the lab's own preparation away: a server as it was installed.
fn bare(site: &Site) {
    for server in &site.servers {
        for family in [Family::V4, Family::V6] {
            let host = Cidr::host(site.vip(family));
            site.lab.rtnl(&server.name, |rtnl| rtnl.delete_address("lo", host)).unwrap();
        }
        for key in ["arp_ignore", "arp_announce"] {
            site.lab.setting(&server.name, &format!("net/ipv4/conf/all/{key}"), "0").unwrap();
        }
    }
}

/// Everything that `prepare` may change on a server.
fn picture(site: &Site, node: &str) -> String {
    let keys = "for f in /proc/sys/net/ipv4/conf/*/arp_ignore /proc/sys/net/ipv4/conf/*/arp_announce \
                /proc/sys/net/ipv4/conf/*/rp_filter; do echo $f $(cat $f); done";
    let addresses = "ip -o address show | sed 's/valid_lft.*//' | sort; ip -o link show | sed 's/ qdisc.*//'";
    shell(site, node, &format!("{keys}; {addresses}"))
}

fn state(site: &Site, node: &str) -> String {
    site.lab.path(&format!("{node}.realserver.json")).display().to_string()
}

fn realserver(site: &Site, node: &str, what: &str, more: &[&str]) -> (bool, String) {
    let state = state(site, node);
    run(site, node, &[&["realserver", what, "--state", &state], more].concat())
}

#[test]
fn prepared_servers_are_silent_and_serve_and_undo_leaves_nothing() {
    if !lab_is_possible() {
        return;
    }
    let site = Site::build(SiteOptions { servers: 2, ..SiteOptions::USUAL }).unwrap();
    bare(&site);
    let (vip, vip6) = (site.vip(Family::V4), site.vip(Family::V6));
    let (vip_text, vip6_text) = (vip.to_string(), vip6.to_string());
    let before: Vec<String> = site.servers.iter().map(|server| picture(&site, &server.name)).collect();

    // What happens to those who only add the address.
    let first = &site.servers[0];
    site.lab.address(&first.name, "lo", Cidr::host(vip)).unwrap();
    assert_eq!(owners(&site, vip), BTreeSet::from([site.lab.mac(&first.name, "eth0").unwrap()]));
    let (ok, said) = realserver(&site, &first.name, "verify", &["--vip", &vip_text]);
    assert!(!ok && said.contains("sysctl -w net.ipv4.conf.all.arp_ignore=1"), "{said}");
    site.lab.rtnl(&first.name, |rtnl| rtnl.delete_address("lo", Cidr::host(vip))).unwrap();

    // An address where it would be answered for is refused, and nothing is changed.
    site.lab.address(&first.name, "eth0", Cidr::host(vip)).unwrap();
    let vips = ["--vip", &vip_text, "--vip", &vip6_text];
    let (ok, said) = realserver(&site, &first.name, "prepare", &vips);
    assert!(!ok && said.contains(&format!("ip address del {vip}/32 dev eth0")), "{said}");
    site.lab.rtnl(&first.name, |rtnl| rtnl.delete_address("eth0", Cidr::host(vip))).unwrap();
    assert_eq!(picture(&site, &first.name), before[0]);

    let (ok, plan) = realserver(&site, &first.name, "prepare", &[&vips[..], &["--dry-run"]].concat());
    assert!(ok && plan.contains(&format!("ip address add {vip}/32 dev lo label lo:evenkeel")), "{plan}");
    assert_eq!(picture(&site, &first.name), before[0]);

    let etc = site.lab.path("etc").display().to_string();
    for server in &site.servers {
        let persist = ["--persist", "--etc", &etc];
        let more = if server.name == first.name { &persist[..] } else { &[] };
        let (ok, said) = realserver(&site, &server.name, "prepare", &[&vips[..], more].concat());
        assert!(ok && said.contains("net.ipv4.conf.all.arp_ignore=1 (it was 0)"), "{said}");
        let (ok, said) = realserver(&site, &server.name, "prepare", &vips);
        assert!(ok && !said.contains("it was") && !said.contains("added"), "again: {said}");
    }
    assert!(Path::new(&etc).join("sysctl.d/60-evenkeel-realserver.conf").exists());
    assert_eq!(owners(&site, vip), BTreeSet::new(), "a prepared server answers");

    let _web = nginx::start_on(&site, &site.servers, HTTP, false).unwrap();
    let (ok, said) = realserver(&site, &first.name, "verify", &["--port", "80"]);
    assert!(ok && said.contains("fine."), "{said}");
    let (ok, said) = realserver(&site, &first.name, "verify", &["--port", "81"]);
    assert!(!ok && said.contains("nothing listens on"), "{said}");

    let mut config = base_config(&site, Family::V4);
    let servers: Vec<(IpAddr, u16)> = site.servers.iter().map(|server| (server.v4, 1)).collect();
    config.service("web", vip, Protocol::Tcp, "80", "rr", &servers);
    let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
    engine.await_ready(START).unwrap();
    assert_eq!(owners(&site, vip), BTreeSet::from([site.lab.mac(APPLIANCE, "eth0").unwrap()]));
    serves(&site, 2);
    engine.process().stop();

    for (server, before) in site.servers.iter().zip(&before) {
        let (ok, said) = realserver(&site, &server.name, "undo", &[]);
        assert!(ok, "{said}");
        assert_eq!(picture(&site, &server.name), *before);
        assert!(!Path::new(&state(&site, &server.name)).exists());
    }
    assert!(!Path::new(&etc).join("sysctl.d/60-evenkeel-realserver.conf").exists());
}

fn serves(site: &Site, wanted: usize) {
    let target = SocketAddr::new(site.vip(Family::V4), HTTP);
    let client = site.lab.node(CLIENT).unwrap();
    let (start, mut names) = (Instant::now(), BTreeSet::new());
    while names.len() < wanted {
        assert!(start.elapsed() < PATIENCE, "{names:?}");
        match client.run(|| http::get(target, "/", Duration::from_secs(2))).unwrap() {
            Ok(response) => drop(names.insert(response.server)),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[test]
fn undo_leaves_what_somebody_changed_since() {
    if !lab_is_possible() {
        return;
    }
    let site = Site::build(SiteOptions { servers: 1, ..SiteOptions::USUAL }).unwrap();
    bare(&site);
    let (node, vip) = (&site.servers[0].name, site.vip(Family::V4).to_string());
    assert!(realserver(&site, node, "prepare", &["--vip", &vip]).0);
    site.lab.setting(node, "net/ipv4/conf/all/arp_ignore", "2").unwrap();
    let (ok, said) = realserver(&site, node, "undo", &[]);
    assert!(ok && said.contains("left     net.ipv4.conf.all.arp_ignore=2: somebody changed it"), "{said}");
    let value =
        shell(&site, node, "cat /proc/sys/net/ipv4/conf/all/arp_ignore /proc/sys/net/ipv4/conf/all/arp_announce");
    assert_eq!(value.split_whitespace().collect::<Vec<_>>(), ["2", "0"]);
    let (ok, said) = realserver(&site, node, "undo", &[]);
    assert!(ok && said.contains("nothing to undo"), "{said}");
}

#[test]
fn servers_behind_a_tunnel_are_prepared_and_told_what_takes_packets_out() {
    if !lab_is_possible() {
        return;
    }
    let options = SiteOptions { shape: Shape::TwoArm, servers: 1, reach: Reach::Tunnel, ..SiteOptions::USUAL };
    let site = Site::build(options).unwrap();
    bare(&site);
    let (node, vip) = (&site.servers[0].name, site.vip(Family::V4));
    let before = picture(&site, node);
    let (ok, said) = realserver(&site, node, "prepare", &["--vip", &vip.to_string(), "--method", "ipip"]);
    assert!(ok && said.contains("advmss 1440"), "{said}");
    let mut decap = None;
    if said.contains("this kernel has no device for ipip") {
        let (ok, verdict) = realserver(&site, node, "verify", &[]);
        assert!(!ok && verdict.contains("nothing takes packets out of ipip"), "{verdict}");
        // The very command that was said.
        let words = said.split("keep `evenkeel ").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
        let mut command = Command::new(program());
        command.args(words.split(' '));
        let process = site.lab.start(node, "decap", &command).unwrap();
        await_words(&process, "ready:");
        decap = Some(process);
    }
    let (ok, verdict) = realserver(&site, node, "verify", &[]);
    assert!(ok, "{verdict}");
    let _web = nginx::start_on(&site, &site.servers, HTTP, false).unwrap();
    let mut config = base_config(&site, Family::V4);
    config.service("web", vip, Protocol::Tcp, "80", "rr", &[(site.servers[0].v4, 1)]);
    config.change_service("web", "method", "ipip");
    let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
    engine.await_ready(START).unwrap();
    serves(&site, 1);
    if let Some(decap) = decap {
        decap.stop();
    }
    let (ok, said) = realserver(&site, node, "undo", &[]);
    assert!(ok, "{said}");
    assert_eq!(picture(&site, node), before);
}
