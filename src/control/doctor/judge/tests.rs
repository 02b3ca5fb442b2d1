//! A table: a machine with one fault, and the finding that must name it, with its level and its command.

use std::collections::BTreeSet;

use super::super::facts::{Facts, Heard, Interface, Kernel, Memory, Way};
use super::super::finding::{self, Level};
use super::*;
use crate::control::config;
use crate::dataplane::io::facts::Offloads;

const CONFIG: &str = r#"
[engine]
cores = [2, 3]
[[interface]]
name = "eth0"
[[interface]]
name = "eth1"
[[service]]
name = "web"
address = "192.0.2.10"
port = 80
[[service.server]]
address = "10.0.0.11"
[[service.server]]
address = "10.0.0.12"
[[virtual_router]]
name = "VI_1"
interface = "eth0"
vrid = 51
priority = 150
address = ["192.0.2.10"]
"#;

fn interface(name: &str) -> Interface {
    Interface {
        name: name.into(),
        driver: "ice".into(),
        ethernet: true,
        mtu: 1500,
        up: true,
        running: true,
        multicast: true,
        rx_queues: 2,
        offloads: Offloads { gro: Some(true), lro: Some(false), rx_vlan: Some(false), ..Offloads::default() },
        rp_filter: Some(2),
        node: Some(0),
        ..Interface::default()
    }
}

fn way(to: &str) -> Way {
    Way {
        to: to.parse().unwrap(),
        of: "web".into(),
        reach: Ok("reached by eth1".into()),
        tunnel: None,
        leaves: Some(("eth1".into(), 1500)),
        full_size: Some((1500, true)),
    }
}

fn other() -> Heard {
    Heard {
        interface: "eth0".into(),
        version: 2,
        vrid: 51,
        source: "192.0.2.2".parse().unwrap(),
        priority: 100,
        interval_ms: 1000,
        addresses: vec!["192.0.2.10".parse().unwrap()],
    }
}

/// A machine without a fault.
fn sound() -> Facts {
    let outcome = config::parse(CONFIG, 0);
    let desired = outcome.desired.unwrap_or_else(|| panic!("{:?}", outcome.problems));
    let mut facts = Facts {
        file: Some("lb.toml".into()),
        desired: Some(desired),
        kernel: Kernel { release: "6.12.1-1".into(), af_xdp: Some(Ok(())), jit: Some(1), ..Kernel::default() },
        interfaces: vec![interface("eth0"), interface("eth1")],
        memory: Memory { available: Some(64 << 30), huge_free: Some(4096), huge_total: Some(4096), huge_size: 2 << 20 },
        addresses: vec![("eth0".into(), "192.0.2.1".parse().unwrap(), 24)],
        ways: vec![way("10.0.0.11"), way("10.0.0.12")],
        heard: Some(Vec::new()),
        ..Facts::default()
    };
    facts.cores.online = (0..4).collect();
    facts.cores.allowed = (0..4).collect();
    facts.cores.isolated = BTreeSet::from([2, 3]);
    facts.cores.tickless = Some(BTreeSet::from([2, 3]));
    facts.cores.nodes = (0..4).map(|core| (core, 0)).collect();
    facts.clock.source = Some("tsc".into());
    facts.clock.synchronised = Some(true);
    facts
}

fn faults(facts: &Facts) -> Vec<Finding> {
    judge(facts).into_iter().filter(|finding| finding.level != Level::Ok).collect()
}

#[test]
fn a_sound_machine_has_only_good_findings_and_is_told_to_run() {
    let facts = sound();
    assert_eq!(faults(&facts), []);
    let all = judge(&facts);
    assert!(all.len() > 15, "{all:?}");
    let text = finding::text(&all, Some("lb.toml"));
    assert!(text.ends_with("next: evenkeel run --config lb.toml\n"), "{text}");
    assert_eq!(finding::as_json(&all, None)["ok"], true);
}

type Change = fn(&mut Facts);

/// One interface, and a server by NAT.
fn one_arm(facts: &mut Facts, server: &str) {
    let desired = facts.desired.as_mut().unwrap();
    desired.interfaces.truncate(1);
    let first = &mut desired.services[0].servers[0];
    (first.method, first.address) = (crate::model::Method::Nat, server.parse().unwrap());
}

/// Each fault alone: its name, its level, a part of its command, and how it comes about.
const FAULTS: &[(&str, Level, &str, Change)] = &[
    ("kernel-version", Level::Problem, "", |f| f.kernel.release = "4.19.0".into()),
    ("kernel-version", Level::Warning, "", |f| f.kernel.release = "5.10.0-8-amd64".into()),
    ("af-xdp", Level::Warning, "CONFIG_XDP_SOCKETS", |f| f.kernel.af_xdp = Some(Err(libc::EAFNOSUPPORT))),
    ("af-xdp", Level::Note, "sudo", |f| f.kernel.af_xdp = Some(Err(libc::EPERM))),
    ("bpf-jit", Level::Warning, "sysctl -w net.core.bpf_jit_enable=1", |f| f.kernel.jit = Some(0)),
    ("capabilities", Level::Note, "sudo", |f| f.kernel.lacks = vec!["CAP_NET_ADMIN"]),
    ("no-interface", Level::Problem, "ip -brief link", |f| f.missing_interfaces.push("eth9".into())),
    ("link-down", Level::Problem, "ip link set eth0 up", |f| f.interfaces[0].up = false),
    ("no-carrier", Level::Problem, "ethtool eth1", |f| f.interfaces[1].running = false),
    ("driver", Level::Note, "", |f| f.interfaces[0].driver = "veth2".replace("veth2", "virtio_net")),
    ("xdp-occupied", Level::Problem, "ip link set dev eth0 xdpgeneric off", |f| {
        f.interfaces[0].xdp = Some("xdpgeneric")
    }),
    ("port-of", Level::Warning, "nomaster", |f| f.interfaces[0].master = Some("br0".into())),
    ("promiscuous", Level::Note, "", |f| f.interfaces[0].promiscuous = true),
    ("queues", Level::Problem, "ethtool -L eth0 combined 2", |f| f.interfaces[0].rx_queues = 1),
    ("queues", Level::Note, "ethtool -L eth0 combined 2", |f| f.interfaces[0].rx_queues = 3),
    ("interrupts", Level::Note, "echo 0 > /proc/irq/24/smp_affinity_list", |f| {
        f.interfaces[0].interrupts = vec![(24, BTreeSet::from([2])), (25, BTreeSet::from([0]))];
    }),
    ("lro", Level::Problem, "ethtool -K eth0 lro off", |f| f.interfaces[0].offloads.lro = Some(true)),
    ("rx-vlan", Level::Note, "ethtool -K eth0 rxvlan off", |f| f.interfaces[0].offloads.rx_vlan = Some(true)),
    ("rx-vlan", Level::Problem, "ethtool -K eth0 rxvlan off", |f| {
        f.interfaces[0].offloads.rx_vlan = Some(true);
        f.interfaces[0].vlans = vec![100];
    }),
    ("veth-checksums", Level::Warning, "ethtool -K veth9 tx off", |f| {
        f.interfaces[0].veth_peer = Some(("veth9".into(), true));
    }),
    ("frame-size", Level::Problem, "frame_size = 4096", |f| {
        f.interfaces.truncate(1);
        f.interfaces[0].mtu = 3000;
    }),
    ("frame-size", Level::Problem, "mtu 1500", |f| {
        f.interfaces.truncate(1);
        f.interfaces[0].mtu = 9000;
    }),
    ("mtu-differs", Level::Warning, "ip link set eth1 mtu 1500", |f| f.interfaces[1].mtu = 1400),
    ("memory", Level::Problem, "[engine]", |f| f.memory.available = Some(100 << 20)),
    ("huge-pages", Level::Note, "sysctl -w vm.nr_hugepages=", |f| f.memory.huge_free = Some(1)),
    ("huge-pages", Level::Problem, "sysctl -w vm.nr_hugepages=", |f| {
        f.memory.huge_free = Some(1);
        f.desired.as_mut().unwrap().engine.huge_pages = crate::model::HugePages::Always;
    }),
    ("core-missing", Level::Problem, "`cores`", |f| {
        f.cores.online.remove(&3);
    }),
    ("core-barred", Level::Warning, "Cpus_allowed_list", |f| {
        f.cores.allowed.remove(&3);
    }),
    ("isolation", Level::Note, "isolcpus=2", |f| {
        f.cores.isolated.remove(&2);
    }),
    ("tick", Level::Note, "nohz_full=2,3", |f| f.cores.tickless = Some(BTreeSet::new())),
    ("governor", Level::Warning, "echo performance > /sys/devices/system/cpu/cpu2", |f| {
        f.cores.governors.insert(2, "powersave".into());
    }),
    ("core-busy", Level::Warning, "$2 == 3", |f| {
        f.cores.busy.insert(3, 60);
    }),
    ("siblings", Level::Warning, "lscpu", |f| {
        f.cores.siblings.insert(2, BTreeSet::from([2, 3]));
    }),
    ("numa", Level::Warning, "out of 0,1,2", |f| {
        f.interfaces[1].node = None;
        f.cores.nodes.insert(3, 1);
    }),
    ("address-in-kernel", Level::Problem, "ip address del 192.0.2.10/24 dev eth0", |f| {
        f.addresses.push(("eth0".into(), "192.0.2.10".parse().unwrap(), 24));
    }),
    ("rp-filter", Level::Warning, "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth1.rp_filter=2", |f| {
        f.interfaces[1].rp_filter = Some(1);
    }),
    (
        "redirects",
        Level::Warning,
        "sysctl -w net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0",
        |f| {
            one_arm(f, "10.0.0.11");
            f.network.forward_v4 = Some(true);
            f.interfaces[0].send_redirects = Some(true);
        },
    ),
    ("redirects-v6", Level::Note, "accept_redirects=0", |f| {
        one_arm(f, "fd00::11");
        f.network.forward_v6 = Some(true);
    }),
    ("ipvs", Level::Note, "modprobe -r ip_vs", |f| f.network.ipvs = Some(0)),
    ("ipvs", Level::Problem, "ipvsadm -C", |f| f.network.ipvs = Some(3)),
    ("keepalived", Level::Problem, "systemctl disable --now keepalived", |f| f.network.keepalived = vec![77]),
    ("firewall", Level::Note, "nft list ruleset", |f| {
        f.network.dropping_chains = Some(vec!["inet filter input".into()])
    }),
    ("conntrack", Level::Warning, "nf_conntrack_max=2000", |f| f.network.conntrack = Some((950, 1000))),
    ("multicast", Level::Problem, "ip link set eth0 multicast on", |f| f.interfaces[0].multicast = false),
    ("listen", Level::Note, "evenkeel doctor --config lb.toml --listen 5", |f| f.heard = None),
    ("vrrp-peer", Level::Note, "preempt = false", |f| f.heard = Some(vec![other()])),
    ("vrrp-priority", Level::Warning, "another `priority`", |f| {
        f.heard = Some(vec![Heard { priority: 150, ..other() }]);
    }),
    ("vrrp-differs", Level::Problem, "the same on both", |f| f.heard = Some(vec![Heard { version: 3, ..other() }])),
    ("vrid-taken", Level::Problem, "vrid = 1", |f| {
        f.heard = Some(vec![Heard { addresses: vec!["192.0.2.77".parse().unwrap()], ..other() }]);
    }),
    ("clocksource", Level::Warning, "echo tsc", |f| f.clock.source = Some("hpet".into())),
    ("time", Level::Warning, "timedatectl set-ntp true", |f| f.clock.synchronised = Some(false)),
    ("time", Level::Note, "", |f| f.clock.synchronised = None),
    ("server-unreachable", Level::Warning, "ping -c 3 10.0.0.11", |f| {
        f.ways[0].reach = Err(("failed", "it does not answer".into()));
        f.ways[0].full_size = None;
    }),
    ("server-unreachable", Level::Problem, "ip route add 10.0.0.11 via", |f| {
        f.ways[0].reach = Err(("no-route", "no route to it".into()));
        f.ways[0].full_size = None;
    }),
    ("path-mtu", Level::Warning, "tracepath 10.0.0.12", |f| f.ways[1].full_size = Some((1500, false))),
    ("path-mtu", Level::Note, "", |f| f.ways[1].full_size = None),
    ("tunnel-mtu", Level::Warning, "advmss 1440", |f| f.ways[0].tunnel = Some(20)),
    ("peer", Level::Warning, "ip route get 192.0.2.2", |f| {
        let reach = Err(("failed", "192.0.2.2 does not answer".into()));
        f.peers = vec![Way { reach, ..way("192.0.2.2") }];
    }),
    ("config", Level::Problem, "evenkeel check lb.toml", |f| {
        f.desired = None;
        f.mistakes.push(super::super::facts::Mistake { error: true, text: "lb.toml:3: no".into() });
    }),
    ("one-server", Level::Note, "", |f| drop(f.desired.as_mut().unwrap().services[0].servers.pop())),
    ("no-checks", Level::Warning, "", |f| f.desired.as_mut().unwrap().services[0].servers[0].health.checks.clear()),
    ("all-drained", Level::Warning, "", |f| {
        f.desired.as_mut().unwrap().services[0].servers.iter_mut().for_each(|server| server.weight = 0);
    }),
    ("no-vrrp", Level::Note, "", |f| f.desired.as_mut().unwrap().vrrp.routers.clear()),
    ("no-config", Level::Note, "", |f| (f.file, f.desired) = (None, None)),
    ("trial", Level::Problem, "", |f| f.trial = Some(Err("no".into()))),
];

#[test]
fn each_fault_alone_has_its_finding() {
    for (id, level, command, change) in FAULTS {
        let mut facts = sound();
        change(&mut facts);
        let found = faults(&facts);
        let names: Vec<_> = found.iter().map(|finding| (finding.id, finding.level)).collect();
        assert_eq!(names, [(*id, *level)], "{found:?}");
        assert!(found[0].command.as_deref().unwrap_or_default().contains(command), "{found:?}");
        assert!(!found[0].why.is_empty(), "{found:?}");
        let text = finding::text(&judge(&facts), facts.file.as_deref());
        assert!(text.contains(&format!("  {:<8} {}: ", level.name(), found[0].subject)), "{text}");
        assert_eq!(text.contains("mend the problems"), *level == Level::Problem, "{text}");
    }
}

#[test]
fn an_engine_that_runs_explains_what_it_holds() {
    let mut facts = sound();
    facts.engine_runs = true;
    facts.interfaces[0].xdp = Some("xdp");
    facts.cores.busy.insert(2, 100);
    let names: Vec<_> = faults(&facts).iter().map(|finding| finding.id).collect();
    assert_eq!(names, ["engine-runs"]);
}

#[test]
fn a_service_without_any_reachable_server_is_a_problem() {
    let mut facts = sound();
    for way in &mut facts.ways {
        (way.reach, way.full_size) = (Err(("failed", "it does not answer".into())), None);
    }
    let worst = faults(&facts).into_iter().find(|finding| finding.level == Level::Problem).unwrap();
    assert_eq!((worst.id, worst.subject.as_str()), ("service-unreachable", "service web"));
}

#[test]
fn memory_is_what_the_operations_page_says() {
    let settings =
        crate::model::EngineSettings { unproven: 0, unproven_ipv6: 0, cookie_flows: 0, ..Default::default() };
    // 16 MiB of frames for a queue, 82 MB of flow tables, 1 MB of counters for a worker.
    let need = memory_need(&settings, &[1]);
    assert!((98_000_000..101_000_000).contains(&need), "{need}");
}
